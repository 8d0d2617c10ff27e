//! Bus → messages: one task that holds the link, readers of the streams and of one job's output
//! below it. Their channel is bounded: a console that is slow makes its readers wait, nothing is
//! dropped. After an outage each reader goes on after the last message that it delivered.

mod decode;
mod gaps;
mod hub;
#[cfg(any(test, feature = "demo"))]
pub(crate) mod replay;
mod store;
mod wants;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_contract::ids::JobId;
use fleet_contract::projection::Fact;
use fleet_contract::time::Time;
use fleet_nats::bus::{Bus, BusError, Stored, Usage};
use fleet_nats::clock;
use fleet_nats::connect::{self, ConnectError, ConnectOptions, Link, LinkState, LinkStatus};
use fleet_nats::output::Chunk;
use fleet_nats::owners::Owners;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::{Cmd, Msg, Reader};
use gaps::Gaps;
use store::{Clocks, Positions, Store};
use wants::Reached;
pub(crate) use wants::Wants;

/// Most messages of a stream in one batch.
const BATCH: usize = 512;
/// Batches that wait for the console.
const CHANNEL: usize = 16;
/// How far back events that are no transitions of a job are read.
const HISTORY: Duration = Duration::from_secs(3600);
/// How often the hub is asked how it is: a round trip can only be measured by making one.
const PROBE: Duration = Duration::from_secs(5);
/// Pause after something failed though the link is up.
const RETRY: Duration = Duration::from_secs(1);

/// Where messages come from and commands go to.
#[derive(Debug)]
pub(crate) struct Source {
    /// What comes in.
    pub(crate) msgs: mpsc::Receiver<Msg>,
    wants: watch::Sender<Wants>,
    task: JoinHandle<()>,
}

impl Source {
    /// Begins to read the bus; connects for ever. All times that it brings are of this clock.
    ///
    /// # Errors
    /// For addresses and credentials that can never work.
    pub(crate) async fn open(options: &ConnectOptions, clock: Clock) -> Result<Self, ConnectError> {
        let link = connect::connect_for_ever(options).await?;
        Ok(Self::spawn(|msgs, wants| run(link, clock, msgs, wants)))
    }

    /// A source of one's own making.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        run: impl FnOnce(mpsc::Sender<Msg>, watch::Receiver<Wants>) -> F,
    ) -> Self {
        let (send, msgs) = mpsc::channel(CHANNEL);
        let (wants, wanted) = watch::channel(Wants::default());
        let task = tokio::spawn(run(send, wanted));
        Self { msgs, wants, task }
    }

    /// Says what is wanted, whether there is a link or not.
    pub(crate) fn want(&self, cmd: &Cmd) {
        self.wants.send_if_modified(|wants| wants.take(cmd));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The console is gone.
struct Gone;

impl<T> std::convert::From<mpsc::error::SendError<T>> for Gone {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self
    }
}

/// Why reading ended.
enum Ended {
    Gone,
    Failed(String),
}

impl std::convert::From<BusError> for Ended {
    fn from(error: BusError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl<T> std::convert::From<mpsc::error::SendError<T>> for Ended {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Gone
    }
}

/// What is known of the hub's store, beyond one link.
#[derive(Debug)]
struct Known {
    clocks: Clocks,
    positions: Positions,
    epoch: Option<u64>,
    log: Reached,
}

async fn run(link: Link, clock: Clock, msgs: mpsc::Sender<Msg>, wants: watch::Receiver<Wants>) {
    let bus = Bus::new(&link);
    let mut status = link.status();
    let mut known = Known {
        clocks: Clocks::new(clock),
        positions: Positions::default(),
        epoch: None,
        log: Reached::default(),
    };
    loop {
        let Ok(connects) = until_up(&link, &msgs, &mut status).await else {
            return;
        };
        let error = tokio::select! {
            ended = read(&bus, &msgs, &wants, &mut known, link.status()) => match ended {
                Ended::Gone => return,
                Ended::Failed(error) => Some(error),
            },
            error = until_down(&mut status, connects) => error,
        };
        let still_up = link.is_connected();
        let down = Msg::Link {
            up: false,
            error,
            slow_drops: status.borrow().slow_drops,
        };
        if msgs.send(down).await.is_err() {
            return;
        }
        if still_up {
            tokio::time::sleep(clock::jittered(RETRY)).await;
        }
    }
}

/// Waits for the link, telling every change of what is known of it; how often it was made so far.
async fn until_up(
    link: &Link,
    msgs: &mpsc::Sender<Msg>,
    status: &mut watch::Receiver<LinkStatus>,
) -> Result<u64, Gone> {
    let mut ready = std::pin::pin!(link.ready());
    loop {
        tokio::select! {
            up = &mut ready => {
                let (slow_drops, connects) = {
                    let now = status.borrow_and_update();
                    (now.slow_drops, now.connects)
                };
                match up {
                    Ok(()) => {
                        msgs.send(Msg::Link { up: true, error: None, slow_drops }).await?;
                        return Ok(connects);
                    }
                    Err(error) => {
                        msgs.send(Msg::Hopeless(error.to_string())).await?;
                        // A hub that is too old may be replaced by one that is not.
                        tokio::time::sleep(clock::jittered(PROBE)).await;
                        ready.set(link.ready());
                    }
                }
            }
            changed = status.changed() => {
                if changed.is_err() {
                    return Err(Gone);
                }
                let now = status.borrow_and_update().clone();
                if now.state != LinkState::Connected {
                    let slow_drops = now.slow_drops;
                    msgs.send(Msg::Link { up: false, error: now.last_error, slow_drops }).await?;
                    if let Some((no, at)) = now.next_try {
                        let after = at.saturating_duration_since(Instant::now());
                        msgs.send(Msg::Tries { no: no as u64, after }).await?;
                    }
                }
            }
        }
    }
}

/// Waits until the link is gone, or was for a moment; the last error.
async fn until_down(status: &mut watch::Receiver<LinkStatus>, connects: u64) -> Option<String> {
    let down = status
        .wait_for(|s| s.state != LinkState::Connected || s.connects > connects)
        .await
        .map(|s| s.last_error.clone());
    down.unwrap_or_default()
}

async fn read(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    wants: &watch::Receiver<Wants>,
    known: &mut Known,
    status: watch::Receiver<LinkStatus>,
) -> Ended {
    let usage = match begin(bus, msgs, known).await {
        Ok(usage) => usage,
        Err(ended) => return ended,
    };
    let Known {
        clocks,
        positions,
        epoch,
        log,
    } = known;
    let (clocks, positions) = (&*clocks, &*positions);
    let back = i64::try_from(HISTORY.as_micros()).unwrap_or(i64::MAX);
    let history = From::Time(Time::from_micros(
        usage.now.as_micros().saturating_sub(back),
    ));
    let events = Reading {
        reader: Reader::Flow,
        stream: stream::FLOW,
        filter: subject::FLOWS,
        first: history,
    };
    let everything = async {
        tokio::try_join!(
            JOURNAL.run(bus, msgs, &positions.journal, clocks),
            PRESENCES.run(bus, msgs, &positions.presence, clocks),
            events.run(bus, msgs, &positions.flow, clocks),
            probes(bus, msgs, wants.clone(), clocks, *epoch),
            hub::asks(bus, msgs, wants.clone()),
            hub::stats(bus, msgs, clocks),
            hub::drops(msgs, status),
            logs(bus, msgs, wants.clone(), log),
        )
    };
    match Box::pin(everything).await {
        Ok(_) => Ended::Failed("the readers ended".to_owned()),
        Err(ended) => ended,
    }
}

/// Makes sure whose store this is before anything of it is read.
async fn begin(bus: &Bus, msgs: &mpsc::Sender<Msg>, known: &mut Known) -> Result<Usage, Ended> {
    let usage = probe(bus, msgs, &known.clocks).await?;
    let store = Store::ask(bus, &usage).await?;
    if store.is_another(known.epoch, &known.positions) {
        msgs.send(Msg::Reset).await?;
        known.positions.reset();
        known.log.seq = 0;
    }
    known.epoch = store.epoch.or(known.epoch);
    Ok(usage)
}

type Forever = Result<std::convert::Infallible, Ended>;

const JOURNAL: Reading = Reading {
    reader: Reader::Journal,
    stream: stream::JOB,
    filter: subject::JOBS,
    first: From::First,
};

const PRESENCES: Reading = Reading {
    reader: Reader::Presence,
    stream: stream::PRES,
    filter: subject::PRESENCES,
    first: From::First,
};

/// How one stream is read.
struct Reading {
    reader: Reader,
    stream: &'static str,
    filter: &'static str,
    first: From,
}

impl Reading {
    async fn run(
        &self,
        bus: &Bus,
        msgs: &mpsc::Sender<Msg>,
        position: &AtomicU64,
        clocks: &Clocks,
    ) -> Forever {
        let fact = |message: &Stored| decode::fact(self.reader, message, clocks.here(message.time));
        let begin = position.load(Ordering::Relaxed);
        let from = after(begin, self.first);
        let mut gaps = self.gaps(bus, begin).await?;
        let mut tail = Tail::open(bus, self.stream, &[self.filter.to_owned()], from).await?;
        msgs.send(Msg::Opened(self.reader)).await?;
        loop {
            let batch = batch(&mut tail).await?;
            let seqs = batch.messages.iter().map(|message| message.seq);
            let gap = gaps.see(seqs, batch.caught_up).map(Msg::Gap);
            let facts = (!batch.messages.is_empty()).then(|| Msg::Facts {
                reader: self.reader,
                facts: batch.messages.iter().map(fact).collect(),
                left: batch.left,
            });
            let caught_up = batch.caught_up.then_some(Msg::CaughtUp(self.reader));
            let told: Vec<Msg> = [gap, facts, caught_up].into_iter().flatten().collect();
            // All of it or nothing: what was told is not told again after an outage.
            let room = msgs
                .reserve_many(told.len())
                .await
                .map_err(|_| Ended::Gone)?;
            for (room, msg) in room.zip(told) {
                room.send(msg);
            }
            if let Some(reached) = gaps.reached() {
                position.store(reached, Ordering::Relaxed);
            }
        }
    }
}

impl Reading {
    /// What to hold the sequences against that come after `position`.
    async fn gaps(&self, bus: &Bus, position: u64) -> Result<Gaps, Ended> {
        // Of presence the stream keeps the last of each machine only.
        let whole = self.reader != Reader::Presence;
        let last = match position {
            0 => 0,
            _ if !whole => 0,
            _ => bus.usage(self.stream).await?.last_seq,
        };
        Ok(Gaps::new(self.reader, whole.then_some(position), last))
    }
}

fn after(position: u64, first: From) -> From {
    match position {
        0 => first,
        seq => From::Seq(seq + 1),
    }
}

#[derive(Default)]
struct Batch {
    messages: Vec<Stored>,
    left: u64,
    caught_up: bool,
}

/// Waits for a message and takes with it what is there already.
async fn batch(tail: &mut Tail) -> Result<Batch, Ended> {
    let mut batch = Batch::default();
    let mut next = Some(tail.next().await?);
    while let Some(this) = next.take() {
        match this {
            Next::Message(message, left) => {
                batch.messages.push(*message);
                batch.left = left;
            }
            Next::CaughtUp => {
                batch.caught_up = true;
                break;
            }
        }
        if batch.messages.len() < BATCH {
            next = tail.next().now_or_never().transpose()?;
        }
    }
    Ok(batch)
}

async fn probe(bus: &Bus, msgs: &mpsc::Sender<Msg>, clocks: &Clocks) -> Result<Usage, Ended> {
    let (begun, asked) = (Instant::now(), clocks.now());
    let usage = bus.usage(stream::JOB).await?;
    let rtt = begun.elapsed();
    clocks.told(asked, usage.now);
    let journal_seq = usage.last_seq;
    msgs.send(Msg::Probe { rtt, journal_seq }).await?;
    Ok(usage)
}

/// Measures the round trip, and sees what only absence tells: machines that were forgotten, jobs
/// that were purged.
async fn probes(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    mut wants: watch::Receiver<Wants>,
    clocks: &Clocks,
    epoch: Option<u64>,
) -> Forever {
    let mut registered = None;
    let mut begins = 0;
    loop {
        hub::pace(&mut wants).await;
        let usage = probe(bus, msgs, clocks).await?;
        let is = store::epoch(bus).await?;
        if epoch.zip(is).is_some_and(|(was, is)| was != is) {
            return Err(Ended::Failed(
                "the hub began another epoch: all is read anew".to_owned(),
            ));
        }
        let mut facts = Vec::new();
        if usage.first_seq > begins {
            begins = usage.first_seq;
            facts.push(Fact::JournalBegins(begins));
        }
        let machines = bus.usage(stream::PRES).await?.messages;
        if registered.is_none_or(|before| machines < before) {
            let (known, unreadable) = bus.machines().await?;
            if unreadable == 0 {
                let ids = known.into_iter().map(|seen| seen.presence.machine);
                facts.push(Fact::Registered(ids.collect()));
            }
        }
        registered = Some(machines);
        if !facts.is_empty() {
            let (reader, left) = (Reader::Journal, 0);
            msgs.send(Msg::Facts {
                reader,
                facts,
                left,
            })
            .await?;
        }
    }
}

/// Follows the output that is wanted, if any is.
async fn logs(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    mut wants: watch::Receiver<Wants>,
    reached: &mut Reached,
) -> Forever {
    loop {
        let wanted = wants.borrow_and_update().log;
        reached.turn_to(wanted);
        let following = async {
            match wanted {
                Some(opening) => follow(bus, msgs, opening.job, &mut reached.seq).await,
                None => std::future::pending().await,
            }
        };
        let other = async { wants.wait_for(|w| w.log != wanted).await.is_err() };
        tokio::select! {
            ended = following => return ended,
            gone = other => if gone {
                return Err(Ended::Gone);
            },
        }
    }
}

async fn follow(bus: &Bus, msgs: &mpsc::Sender<Msg>, job: JobId, reached: &mut u64) -> Forever {
    let from = after(*reached, From::First);
    let mut tail = Tail::open(bus, stream::LOG, &[subject::log_all(job)], from).await?;
    let (mut owners, mut foreign) = (Owners::of(job), 0);
    loop {
        let batch = batch(&mut tail).await?;
        if !batch.messages.is_empty() {
            let mut chunks = Vec::new();
            for chunk in batch.messages.iter().filter_map(|m| Chunk::of(m).ok()) {
                if owners.admits(bus, &chunk).await {
                    chunks.push(chunk);
                }
            }
            let left = batch.left;
            msgs.send(Msg::Log { job, chunks, left }).await?;
            let more = owners.foreign() - foreign;
            if more > 0 {
                foreign += more;
                msgs.send(Msg::LogForeign(job, more)).await?;
            }
            *reached = tail.last_seq();
        }
        if batch.caught_up {
            msgs.send(Msg::LogCaughtUp(job)).await?;
        }
    }
}
