//! What waits to be told to the agent: replies and events in order, with notices of output
//! coalesced per attempt, so that its length is bounded by what the agent asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_contract::ids::AttemptId;
use tokio::sync::Notify;

use super::protocol::{ExecutorEvent, FromExecutor};
use super::room::Kept;

/// Most messages that may wait for an agent that does not read; then it is disconnected, and
/// learns the state anew when it comes back.
const QUEUE_MAX: usize = 100_000;
/// What is kept is told anew when it changed by so many bytes.
const KEPT_STEP: u64 = 1024 * 1024;

enum Item {
    Message(FromExecutor),
    /// The newest counts are in `output`.
    Output(AttemptId),
    /// The newest is in `kept`.
    Kept,
}

#[derive(Default)]
struct Queue {
    /// Counts connections; none is attached while `open` is false.
    epoch: u64,
    open: bool,
    /// Nothing more will come: the connection ends after what waits.
    last: bool,
    items: VecDeque<Item>,
    /// Chunks and bytes.
    output: BTreeMap<AttemptId, (u64, u64)>,
    /// What was told or is about to be; none where the agent does not ask for it.
    kept: Option<Kept>,
    kept_waits: bool,
}

/// Shared by everything that has something to tell and the one that tells it.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection: whatever waited for an earlier one is dropped, its reader is told to
    /// stop. Answers the connection's number. With `kept`, changes of that are told.
    pub(crate) fn attach(&self, kept: Option<Kept>) -> u64 {
        let mut queue = self.lock();
        let epoch = queue.epoch + 1;
        *queue = Queue {
            epoch,
            open: true,
            kept,
            ..Queue::default()
        };
        drop(queue);
        self.wake.notify_waiters();
        epoch
    }

    /// The connection with this number is over.
    pub(crate) fn detach(&self, epoch: u64) {
        let mut queue = self.lock();
        if queue.epoch == epoch {
            *queue = Queue {
                epoch,
                ..Queue::default()
            };
        }
        drop(queue);
        self.wake.notify_waiters();
    }

    /// Nothing more will come: the connection ends after what waits.
    pub(crate) fn finish(&self) {
        self.lock().last = true;
        self.wake.notify_waiters();
    }

    pub(crate) fn event(&self, event: ExecutorEvent) {
        let mut queue = self.lock();
        if !queue.open {
            return;
        }
        let item = match event {
            ExecutorEvent::Output {
                attempt,
                chunks,
                bytes,
            } => {
                if queue.output.insert(attempt, (chunks, bytes)).is_some() {
                    return;
                }
                Item::Output(attempt)
            }
            other => Item::Message(FromExecutor::Event(other)),
        };
        self.push(queue, item);
    }

    /// What is kept now; told if that is news: a loss always, and each [`KEPT_STEP`]. With `exactly`
    /// any change is.
    pub(crate) fn kept(&self, now: Kept, exactly: bool) {
        let mut queue = self.lock();
        let Some(told) = queue.kept.filter(|_| queue.open) else {
            return;
        };
        let moved =
            told.bytes.abs_diff(now.bytes) >= KEPT_STEP || (now.bytes == 0) != (told.bytes == 0);
        if told == now || (told.dropped == now.dropped && !moved && !exactly) {
            return;
        }
        queue.kept = Some(now);
        if !std::mem::replace(&mut queue.kept_waits, true) {
            self.push(queue, Item::Kept);
        }
    }

    /// Only for the connection that asked.
    pub(crate) fn reply(&self, epoch: u64, message: FromExecutor) {
        let queue = self.lock();
        if queue.open && queue.epoch == epoch {
            self.push(queue, Item::Message(message));
        }
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, item: Item) {
        queue.items.push_back(item);
        if queue.items.len() > QUEUE_MAX {
            tracing::warn!(
                waiting = queue.items.len(),
                "the agent does not read what it is told, disconnecting it"
            );
            let epoch = queue.epoch;
            *queue = Queue {
                epoch,
                ..Queue::default()
            };
        }
        drop(queue);
        self.wake.notify_waiters();
    }

    /// The next message for the connection with this number; none when it is over.
    pub(crate) async fn next(&self, epoch: u64) -> Option<FromExecutor> {
        loop {
            let wake = self.wake.notified();
            tokio::pin!(wake);
            // Registered before the look, so that nothing put in between is missed.
            wake.as_mut().enable();
            match self.try_next(epoch) {
                Taken::Message(message) => return Some(message),
                Taken::Over => return None,
                Taken::Nothing => wake.await,
            }
        }
    }

    /// Like [`Self::next`], without waiting.
    pub(crate) fn try_next(&self, epoch: u64) -> Taken {
        let mut queue = self.lock();
        let over = queue.last && queue.items.is_empty();
        if queue.epoch != epoch || !queue.open || over {
            return Taken::Over;
        }
        match queue.items.pop_front() {
            Some(Item::Message(message)) => Taken::Message(message),
            Some(Item::Output(attempt)) => {
                let (chunks, bytes) = queue.output.remove(&attempt).unwrap_or_default();
                Taken::Message(FromExecutor::Event(ExecutorEvent::Output {
                    attempt,
                    chunks,
                    bytes,
                }))
            }
            Some(Item::Kept) => {
                queue.kept_waits = false;
                let kept = queue.kept.unwrap_or_default();
                Taken::Message(FromExecutor::Event(ExecutorEvent::Kept(kept)))
            }
            None => Taken::Nothing,
        }
    }
}

/// What [`Outbox::try_next`] found.
pub(crate) enum Taken {
    Message(FromExecutor),
    Nothing,
    Over,
}
