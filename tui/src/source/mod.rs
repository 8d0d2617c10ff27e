//! Bus → messages: one task that holds the link, readers of the streams and of one job's output
//! below it. Their channel is bounded: a console that is slow makes its readers wait, nothing is
//! dropped. After an outage each reader goes on after the last message that it delivered.

mod decode;
mod gaps;
mod hub;
#[cfg(any(test, feature = "demo"))]
pub(crate) mod replay;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_contract::ids::JobId;
use fleet_contract::projection::Fact;
use fleet_contract::time::Time;
use fleet_nats::bus::{Bus, BusError, Stored, Usage};
use fleet_nats::clock;
use fleet_nats::connect::{self, ConnectError, ConnectOptions, Link, LinkState, LinkStatus};
use fleet_nats::output::Chunk;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::{Cmd, Msg, Reader};
use gaps::Gaps;

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
    /// What is to be done.
    pub(crate) cmds: mpsc::Sender<Cmd>,
    task: JoinHandle<()>,
}

impl Source {
    /// Begins to read the bus; connects for ever.
    ///
    /// # Errors
    /// For addresses and credentials that can never work.
    pub(crate) async fn open(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let link = connect::connect_for_ever(options).await?;
        Ok(Self::spawn(|msgs, cmds| run(link, msgs, cmds)))
    }

    /// A source of one's own making.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        run: impl FnOnce(mpsc::Sender<Msg>, mpsc::Receiver<Cmd>) -> F,
    ) -> Self {
        let (send, msgs) = mpsc::channel(CHANNEL);
        let (cmds, wanted) = mpsc::channel(CHANNEL);
        let task = tokio::spawn(run(send, wanted));
        Self { msgs, cmds, task }
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

/// The sequences after which the readers go on.
#[derive(Debug, Clone, Default)]
struct Positions {
    journal: Arc<AtomicU64>,
    presence: Arc<AtomicU64>,
    flow: Arc<AtomicU64>,
    log: Arc<AtomicU64>,
}

impl Positions {
    fn reset(&self) {
        for position in [&self.journal, &self.presence, &self.flow, &self.log] {
            position.store(0, Ordering::Relaxed);
        }
    }
}

/// The hub's clock against this console's.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    offset: i64,
}

impl Clocks {
    /// What the hub's time is here. Never later than now.
    fn here(self, hub: Time) -> Time {
        Time::from_micros(hub.as_micros().saturating_add(self.offset)).min(clock::now())
    }
}

async fn run(link: Link, msgs: mpsc::Sender<Msg>, mut cmds: mpsc::Receiver<Cmd>) {
    let bus = Bus::new(&link);
    let mut status = link.status();
    let positions = Positions::default();
    let mut wants = Wants::default();
    loop {
        let Ok(connects) = until_up(&link, &msgs, &mut status, &mut cmds, &mut wants).await else {
            return;
        };
        let error = tokio::select! {
            ended = read(&bus, &msgs, &mut cmds, &mut wants, &positions, link.status()) => match ended {
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
    cmds: &mut mpsc::Receiver<Cmd>,
    wants: &mut Wants,
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
            cmd = cmds.recv() => {
                wants.take(&cmd.ok_or(Gone)?);
            }
        }
    }
}

/// What the person wants to see.
#[derive(Debug, Default)]
struct Wants {
    log: Option<JobId>,
    /// Whether the hub itself is looked at.
    hub: watch::Sender<bool>,
}

impl Wants {
    /// Takes in a command. Whether output is to be read anew.
    fn take(&mut self, cmd: &Cmd) -> bool {
        match cmd {
            Cmd::OpenLog(job) => self.log = Some(*job),
            Cmd::CloseLog => self.log = None,
            Cmd::WatchHub(on) => {
                self.hub.send_replace(*on);
                return false;
            }
            Cmd::Quit | Cmd::QuitKeeping | Cmd::Suspend | Cmd::Copy(_) | Cmd::Mouse(_) => {
                return false;
            }
        }
        true
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
    cmds: &mut mpsc::Receiver<Cmd>,
    wants: &mut Wants,
    positions: &Positions,
    status: watch::Receiver<LinkStatus>,
) -> Ended {
    let usage = match probe(bus, msgs).await {
        Ok(usage) => usage,
        Err(ended) => return ended,
    };
    if usage.last_seq < positions.journal.load(Ordering::Relaxed) {
        positions.reset();
        if msgs.send(Msg::Reset).await.is_err() {
            return Ended::Gone;
        }
    }
    let clocks = Clocks {
        offset: clock::now().as_micros() - usage.now.as_micros(),
    };
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
            probes(bus, msgs, wants.hub.subscribe()),
            hub::asks(bus, msgs, wants.hub.subscribe()),
            hub::stats(bus, msgs),
            hub::drops(msgs, status),
            logs(bus, msgs, cmds, wants, positions),
        )
    };
    match Box::pin(everything).await {
        Ok(_) => Ended::Failed("the readers ended".to_owned()),
        Err(ended) => ended,
    }
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
        clocks: Clocks,
    ) -> Forever {
        let fact = |message: &Stored| decode::fact(self.reader, message, clocks.here(message.time));
        let from = after(position, self.first);
        let mut gaps = self.gaps(bus, position.load(Ordering::Relaxed)).await?;
        let mut tail = Tail::open(bus, self.stream, &[self.filter.to_owned()], from).await?;
        msgs.send(Msg::Opened(self.reader)).await?;
        loop {
            let batch = batch(&mut tail).await?;
            let seqs = batch.messages.iter().map(|message| message.seq);
            if let Some(gap) = gaps.see(seqs, batch.caught_up) {
                msgs.send(Msg::Gap(gap)).await?;
            }
            if !batch.messages.is_empty() {
                msgs.send(Msg::Facts {
                    reader: self.reader,
                    facts: batch.messages.iter().map(fact).collect(),
                    left: batch.left,
                })
                .await?;
                position.store(tail.last_seq(), Ordering::Relaxed);
            }
            if batch.caught_up {
                msgs.send(Msg::CaughtUp(self.reader)).await?;
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

fn after(position: &AtomicU64, first: From) -> From {
    match position.load(Ordering::Relaxed) {
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

async fn probe(bus: &Bus, msgs: &mpsc::Sender<Msg>) -> Result<Usage, Ended> {
    let begun = Instant::now();
    let usage = bus.usage(stream::JOB).await?;
    let rtt = begun.elapsed();
    let journal_seq = usage.last_seq;
    msgs.send(Msg::Probe { rtt, journal_seq }).await?;
    Ok(usage)
}

/// Measures the round trip, and sees what only absence tells: machines that were forgotten, jobs
/// that were purged.
async fn probes(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    mut watched: watch::Receiver<bool>,
) -> Forever {
    let mut registered = None;
    let mut begins = 0;
    loop {
        hub::pace(&mut watched).await;
        let usage = probe(bus, msgs).await?;
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

/// Follows the output of the job that is wanted, if any is.
async fn logs(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    cmds: &mut mpsc::Receiver<Cmd>,
    wants: &mut Wants,
    positions: &Positions,
) -> Forever {
    loop {
        let wanted = wants.log;
        let mut following = std::pin::pin!(async {
            match wanted {
                Some(job) => follow(bus, msgs, job, &positions.log).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                ended = &mut following => return ended,
                cmd = cmds.recv() => if wants.take(&cmd.ok_or(Ended::Gone)?) {
                    positions.log.store(0, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

async fn follow(bus: &Bus, msgs: &mpsc::Sender<Msg>, job: JobId, position: &AtomicU64) -> Forever {
    let from = after(position, From::First);
    let mut tail = Tail::open(bus, stream::LOG, &[subject::log_all(job)], from).await?;
    loop {
        let batch = batch(&mut tail).await?;
        if !batch.messages.is_empty() {
            let chunks = batch.messages.iter().filter_map(|m| Chunk::of(m).ok());
            msgs.send(Msg::Log {
                job,
                chunks: chunks.collect(),
                left: batch.left,
            })
            .await?;
            position.store(tail.last_seq(), Ordering::Relaxed);
        }
        if batch.caught_up {
            msgs.send(Msg::LogCaughtUp(job)).await?;
        }
    }
}
