//! What waits to be told to the agent: replies and events in order, with notices of output
//! coalesced per attempt, so that its length is bounded by what the agent asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_contract::ids::AttemptId;
use tokio::sync::Notify;

use super::protocol::{ExecutorEvent, FromExecutor};

/// Most messages that may wait for an agent that does not read; then it is disconnected, and
/// learns the state anew when it comes back.
const QUEUE_MAX: usize = 100_000;

enum Item {
    Message(FromExecutor),
    /// The newest count is in `output`.
    Output(AttemptId),
}

#[derive(Default)]
struct Queue {
    /// Counts connections; none is attached while `open` is false.
    epoch: u64,
    open: bool,
    /// Nothing more will come: the connection ends after what waits.
    last: bool,
    items: VecDeque<Item>,
    output: BTreeMap<AttemptId, u64>,
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
    /// stop. Answers the connection's number.
    pub(crate) fn attach(&self) -> u64 {
        let mut queue = self.lock();
        let epoch = queue.epoch + 1;
        *queue = Queue {
            epoch,
            open: true,
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
            ExecutorEvent::Output { attempt, chunks } => {
                if queue.output.insert(attempt, chunks).is_some() {
                    return;
                }
                Item::Output(attempt)
            }
            other => Item::Message(FromExecutor::Event(other)),
        };
        self.push(queue, item);
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
                let chunks = queue.output.remove(&attempt).unwrap_or_default();
                Taken::Message(FromExecutor::Event(ExecutorEvent::Output {
                    attempt,
                    chunks,
                }))
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
