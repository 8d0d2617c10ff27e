//! What every part of an agent shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_contract::attempt::{Gone, Input};
use fleet_contract::ids::{AttemptId, InstanceId, MachineId, Writer};
use fleet_contract::lease::{BootTime, CLAIM_WITHIN, FENCE_AFTER};
use fleet_contract::machine::Service;
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::quota::Quota;
use fleet_contract::time::Time;
use fleet_nats::bus::Bus;
use fleet_nats::clock;
use fleet_nats::connect::{Link, LinkState};
use fleet_nats::home::Home;
use tokio::sync::watch;

use super::Stop;
use super::events::EventSink;
use super::routes::{Announced, Routes, Told};
use crate::executor::{self, ClientError, ExecutorClient, KillCause};

/// With less than this free under `FLEET_HOME`, in bytes, no work is taken.
const ROOM: u64 = 1024 * 1024;
/// And files that can be made.
const ROOM_FILES: u64 = 16;

/// The lease as the agent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Its term; 0 while it is not held.
    pub term: u64,
    /// When the last acknowledged renewal was sent.
    pub sent: BootTime,
    /// How often it has lapsed by [`CLAIM_WITHIN`] and was renewed after all.
    pub lapses: u64,
    /// The hub's epoch in which it was taken.
    pub epoch: u64,
}

impl Held {
    /// Until when attempts that another may take over are safe here.
    pub(super) fn until(self) -> BootTime {
        self.sent.plus(FENCE_AFTER)
    }

    /// Until when tickets may become attempts.
    pub(super) fn fresh_until(self) -> BootTime {
        self.sent.plus(CLAIM_WITHIN)
    }

    /// Whether a ticket may be claimed under it now.
    pub(super) fn is_valid(self) -> bool {
        self.term != 0 && clock::boot_time() < self.fresh_until()
    }

    /// How often it has lapsed, a lapse that goes on counted: whoever remembers another number was
    /// asleep or cut off meanwhile, and what it read before is old.
    pub(super) fn lapses_now(self) -> u64 {
        let lapsed = self.term != 0 && clock::boot_time() >= self.fresh_until();
        self.lapses + u64::from(lapsed)
    }

    /// The lease after a renewal that was sent at `sent`.
    pub(super) fn renewed(self, term: u64, sent: BootTime) -> Self {
        let lapsed = self.term != 0 && sent >= self.fresh_until();
        Self {
            term,
            sent,
            lapses: self.lapses + u64::from(lapsed),
            epoch: self.epoch,
        }
    }
}

/// How often the link's own state is looked at while its events say that it is down.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause before the executor is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The end of an attempt that nobody has seen.
pub(super) fn gone_unknown(reason: &str) -> Gone {
    let now = clock::now();
    Gone {
        outcome: Outcome::Unknown {
            reason: reason.to_owned(),
        },
        output: OutputCount::default(),
        started_at: now,
        ended_at: now,
    }
}

/// Shared by all parts of one agent.
pub(super) struct Context {
    pub me: MachineId,
    pub instance: InstanceId,
    /// This run of the agent, in its events.
    pub boot: String,
    pub home: Home,
    pub env: BTreeMap<String, String>,
    pub link: Link,
    pub bus: Bus,
    pub routes: Routes,
    pub events: EventSink,
    pub lease: watch::Sender<Held>,
    /// What the hub vouches for.
    pub hub: watch::Sender<Option<super::epoch::Vouched>>,
    pub seen: super::epoch::Seen,
    /// The executor, while it answers.
    pub executor: watch::Sender<Option<ExecutorClient>>,
    /// Whether new work is taken.
    pub open: watch::Sender<bool>,
    /// How the agent is stopping; `Now` once its jobs are being ended.
    pub stop: watch::Sender<Stop>,
    /// Output on its way to the hub.
    pub output: Outgoing,
    /// Results on their way to the hub.
    pub results: Tally,
    /// Output on this machine's disk.
    pub kept: Kept,
    /// What the machine is and has, and who holds what of it.
    pub capacity: std::sync::Arc<super::capacity::Capacity>,
    /// Every lane of the hub.
    pub lanes: watch::Sender<Vec<fleet_nats::lanes::KnownLane>>,
    /// Asks for the lanes to be read again.
    pub lanes_stale: tokio::sync::Notify,
    /// Asks to look for skills now.
    pub ask_probes: tokio::sync::mpsc::Sender<super::probes::Ask>,
    /// Asks for a beat before its time.
    pub beat_soon: tokio::sync::Notify,
    pub pulse: std::sync::Arc<super::presence::Pulse>,
    /// Messages that were none.
    pub malformed: Mutex<Quota>,
}

impl Context {
    /// What was told of messages that were none.
    pub(super) fn malformed<T>(&self, with: impl FnOnce(&mut Quota) -> T) -> T {
        with(
            &mut self
                .malformed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(super) fn writer(&self) -> Writer {
        Writer::Machine(self.me.clone())
    }

    /// The executor; waits until there is one.
    pub(super) async fn executor(&self) -> ExecutorClient {
        let mut watch = self.executor.subscribe();
        loop {
            if let Some(client) = watch.borrow_and_update().clone() {
                return client;
            }
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for `pause` with jitter, or shorter when the link comes back meanwhile.
    pub(super) async fn pause(&self, pause: Duration) {
        let mut status = self.link.status();
        let connects = status.borrow_and_update().connects;
        let back = status.wait_for(|s| s.connects > connects && s.state == LinkState::Connected);
        tokio::select! {
            () = tokio::time::sleep(clock::jittered(pause)) => {}
            _ = back => {}
        }
    }

    /// Waits until the link is up.
    pub(super) async fn connected(&self) {
        let mut status = self.link.status();
        // The client drops events in a storm of them; its own state is the truth.
        while !self.link.is_connected() {
            let up = status.wait_for(|s| s.state == LinkState::Connected);
            let _ = tokio::time::timeout(LOOK_AGAIN, up).await;
            tokio::task::yield_now().await;
        }
    }

    /// What the machine does with work.
    pub(super) fn service(&self) -> Service {
        match *self.stop.borrow() {
            Stop::No => Service::Up,
            Stop::Gracefully | Stop::Now => Service::Draining,
        }
    }

    /// Whether the disk has room for the record of one more attempt. On a full one an attempt could
    /// not be started, and its job would wait for another one though others can run it.
    pub(super) fn has_room(&self) -> bool {
        super::specs::has_room(self.home.root(), ROOM, ROOM_FILES)
    }

    /// Ends the processes of an attempt, however often the executor has to be asked. Where it knows
    /// no such attempt, nobody will ever tell of its end.
    pub(super) async fn kill(&self, attempt: AttemptId, cause: KillCause) {
        loop {
            match self.executor().await.kill(attempt, cause).await {
                Ok(()) => return,
                Err(ClientError::NotKnown(_)) => {
                    let told =
                        Told::from(Input::Gone(gone_unknown("its executor does not know it")));
                    return self.routes.tell(attempt, told).await;
                }
                Err(error) => tracing::debug!(%error, %attempt, "not ended yet; asking again"),
            }
            tokio::time::sleep(clock::jittered(ASK_AGAIN)).await;
        }
    }

    /// Chunks of output that the hub has not confirmed yet.
    pub(super) fn chunks_waiting(&self) -> u64 {
        self.output.waiting().chunks
    }
}

/// What executors said of the output that they keep.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Kept {
    /// What an executor says now, and said before.
    pub(super) fn say(&self, now: executor::Kept, before: executor::Kept) {
        self.bytes.store(now.bytes, Ordering::Relaxed);
        let more = now.dropped.saturating_sub(before.dropped);
        self.dropped.fetch_add(more, Ordering::Relaxed);
    }

    /// Bytes on disk, also of what the hub has already.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were lost before the hub had them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Things that are made and then delivered.
#[derive(Debug, Default)]
pub(super) struct Tally {
    made: AtomicU64,
    done: AtomicU64,
}

impl Tally {
    pub(super) fn make(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> u64 {
        let made = self.made.load(Ordering::Relaxed);
        made.saturating_sub(self.done())
    }
}

/// How far the output of attempts is.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pumps: Mutex<HashMap<AttemptId, OnItsWay>>,
    done: AtomicU64,
}

/// How far that of one attempt is.
#[derive(Debug)]
struct OnItsWay {
    of: watch::Receiver<Announced>,
    at: Reached,
}

/// What the hub has of an attempt's output, or never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reached {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of both streams.
    pub bytes: u64,
    /// When the next chunk was written, where it was looked at.
    pub next: Option<Time>,
}

/// Output that waits for the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waits {
    /// Chunks.
    pub chunks: u64,
    /// Their bytes; those that are no longer on disk, too, until that is noticed.
    pub bytes: u64,
    /// When the oldest was written.
    pub oldest: Option<Time>,
}

impl Outgoing {
    fn pumps(&self) -> MutexGuard<'_, HashMap<AttemptId, OnItsWay>> {
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output of an attempt is carried to the hub from now on.
    pub(super) fn begin(&self, attempt: AttemptId, of: watch::Receiver<Announced>, at: Reached) {
        self.pumps().insert(attempt, OnItsWay { of, at });
    }

    /// The hub has so much of it.
    pub(super) fn reach(&self, attempt: AttemptId, at: Reached) {
        if let Some(pump) = self.pumps().get_mut(&attempt) {
            let more = at.chunks.saturating_sub(pump.at.chunks);
            pump.at = at;
            self.done.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// The hub has all of it.
    pub(super) fn end(&self, attempt: AttemptId) {
        self.pumps().remove(&attempt);
    }

    /// Chunks that were delivered since the start.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What waits.
    pub(super) fn waiting(&self) -> Waits {
        let mut all = Waits::default();
        for OnItsWay { of, at } in self.pumps().values() {
            let made = *of.borrow();
            let chunks = made.chunks.saturating_sub(at.chunks);
            if chunks > 0 {
                all.chunks += chunks;
                all.bytes += made.bytes.saturating_sub(at.bytes);
                all.oldest = match (all.oldest, at.next) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        all
    }
}
