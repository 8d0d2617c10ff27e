//! The executor's state: every attempt, from its start to the moment its last process is gone
//! and its outcome is on disk. Synchronous: events in, effects at once; it never waits.
//!
//! It runs on one thread, which is also the only one that reaps (see
//! `platform::own_children`), and there can be one engine in a process.

mod ending;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::{Outcome, OutputCount};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::boot::{BootTime, boot_now};
use super::log::{Chunk, LogReader, LogWriter};
use super::orphans::Orphans;
use super::outbox::Outbox;
use super::platform;
use super::protocol::{
    AttemptReport, EndedRecord, Environment, ExecutorEvent, KillCause, StartRequest,
};
use super::pump::{self, PumpHandle, PumpOptions};
use super::record::{Begin, End, Loaded, Started, Store};
use super::recover::{self, Claim};
use super::room::{OutputBound, Room};
use super::spawn::{self, Reject, Spawned};
use super::wall_now;

/// How long after KILL the processes of a job are waited for; then they are told as survivors.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How many forgotten attempts are remembered so that starting one again does not run it again.
const REMEMBER: usize = 4096;

/// How an engine works.
#[derive(Debug)]
pub(crate) struct EngineOptions {
    /// Where the journal is.
    pub(crate) root: PathBuf,
    /// Where folders with output are.
    pub(crate) logs: PathBuf,
    /// Small records of forgotten ones.
    pub(crate) ended: Option<PathBuf>,
    /// Time between TERM and KILL.
    pub(crate) grace: Duration,
    /// The base of every job's environment.
    pub(crate) base_env: Environment,
    /// Whether this process is more than an executor: it may have children of its own, in its
    /// own group, and others of its kind share the folder, so that nothing there is taken up.
    pub(crate) within_program: bool,
}

/// What comes back from the engine's tasks.
#[derive(Debug)]
pub(crate) enum Input {
    /// All output is written.
    PumpDone {
        attempt: AttemptId,
        output: OutputCount,
    },
    /// What an earlier executor left is gone, but for these.
    Recovered {
        attempt: AttemptId,
        survivors: Vec<u32>,
    },
}

struct Attempt {
    begin: Begin,
    started: Option<Started>,
    fence_at: Option<BootTime>,
    phase: Phase,
}

enum Phase {
    Running(Box<Running>),
    /// Left by an earlier executor, being ended.
    Recovering,
    Ended(End),
}

struct Running {
    child: Child,
    leader: i32,
    pump: PumpHandle,
    timeout_at: Option<Instant>,
    /// How the first process ended, once it has.
    exit: Option<Outcome>,
    /// Why it is ended from outside, if that was before its own end.
    cause: Option<Outcome>,
    stage: Stage,
}

enum Stage {
    Runs,
    Terminating {
        kill_at: Instant,
    },
    Killing {
        give_up_at: Instant,
    },
    /// Every process is gone, the last output is read.
    Draining {
        survivors: Vec<u32>,
    },
}

/// What became of a start.
pub(crate) enum StartResult {
    /// Started, or ended at once as rejected or fenced.
    New,
    /// It had been started before.
    Known(Box<AttemptReport>),
    /// The executor takes no more.
    Stopping,
}

/// All attempts and what is needed to end them.
pub(crate) struct Engine {
    options: EngineOptions,
    store: Store,
    outbox: Arc<Outbox>,
    room: Arc<Room>,
    inputs: mpsc::UnboundedSender<Input>,
    attempts: HashMap<AttemptId, Attempt>,
    /// Those not ended.
    live: BTreeSet<AttemptId>,
    leaders: HashMap<i32, AttemptId>,
    orphans: Orphans,
    forgotten: VecDeque<EndedRecord>,
    boot: String,
    session: i32,
    own_group: i32,
    stopping: bool,
}

impl Engine {
    /// Opens the store and begins to end what an earlier executor left.
    pub(crate) fn open(
        options: EngineOptions,
        outbox: Arc<Outbox>,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> std::io::Result<Self> {
        platform::become_subreaper()?;
        let (store, loaded) = Store::open(
            options.root.clone(),
            options.logs.clone(),
            options.ended.clone(),
        )?;
        let (own_group, session) = platform::own_group_and_session();
        // What a program runs within itself is bound job by job.
        let bound = match options.within_program {
            true => OutputBound::NONE,
            false => OutputBound::default(),
        };
        let mut engine = Self {
            options,
            store,
            outbox,
            room: Arc::new(Room::new(bound)),
            inputs,
            attempts: HashMap::new(),
            live: BTreeSet::new(),
            leaders: HashMap::new(),
            orphans: Orphans::default(),
            forgotten: VecDeque::new(),
            boot: platform::boot_id(),
            session,
            own_group,
            stopping: false,
        };
        if !engine.options.within_program {
            engine.load(loaded);
            let known = |id| engine.attempts.contains_key(&id);
            engine.store.sweep_unknown(known)?;
        }
        Ok(engine)
    }

    fn load(&mut self, all: Vec<Loaded>) {
        let logs = all.iter().map(|loaded| {
            let dir = (self.store).attempt_dir(loaded.begin.job, loaded.begin.attempt);
            (
                loaded.begin.attempt,
                dir,
                loaded.end.as_ref().map(|end| end.output),
            )
        });
        self.room.load(logs);
        let mut claims = Vec::new();
        for loaded in all {
            let attempt = loaded.begin.attempt;
            let same_boot = loaded.begin.boot == self.boot;
            let claim = same_boot.then(|| Claim::of(&loaded.begin, loaded.started.as_ref()));
            let Loaded {
                begin,
                started,
                end,
            } = loaded;
            let open = end.is_none();
            self.live.insert(attempt);
            let phase = end.map_or(Phase::Recovering, Phase::Ended);
            self.attempts.insert(
                attempt,
                Attempt {
                    begin,
                    started,
                    fence_at: None,
                    phase,
                },
            );
            match claim {
                _ if !open => {
                    self.live.remove(&attempt);
                }
                Some(claim) => claims.push(claim),
                None => self.end_recovered(
                    attempt,
                    "the machine was restarted while it ran".to_owned(),
                    Vec::new(),
                ),
            }
        }
        if !claims.is_empty() {
            let (inputs, grace) = (self.inputs.clone(), self.options.grace);
            tokio::spawn(recover::end_leftovers(claims, grace, GIVE_UP, inputs));
        }
    }

    /// How many attempts have not ended.
    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    /// Replaces the base of every later job's environment.
    pub(crate) fn set_base_env(&mut self, env: Environment) {
        self.options.base_env = env;
    }

    /// How much output may be kept from now on.
    pub(crate) fn set_bound(&self, bound: OutputBound) {
        self.room.set_bound(bound, SystemTime::now());
    }

    /// How much output is kept.
    pub(crate) fn kept(&self) -> super::room::Kept {
        self.room.kept()
    }

    /// The hub has the chunks of an attempt up to this one.
    pub(crate) fn delivered(&self, id: AttemptId, chunks: u64) {
        self.room.delivered(id, chunks);
    }

    /// Starts an attempt, once.
    pub(crate) fn start(
        &mut self,
        mut request: StartRequest,
        live: Option<mpsc::Sender<Chunk>>,
    ) -> StartResult {
        let id = request.attempt;
        if let Some(known) = self.known(&request) {
            return StartResult::Known(Box::new(known));
        }
        if self.stopping {
            return StartResult::Stopping;
        }
        let plan = spawn::plan(&request, &self.options.base_env);
        let stdin = request.spec.stdin.take();
        let begin = Begin {
            job: request.job,
            attempt: id,
            token: request.token,
            attempt_no: request.attempt_no,
            machine: request.machine,
            spec: request.spec,
            boot: self.boot.clone(),
            session: self.session,
            not_before: boot_now(),
        };
        let attempt = Attempt {
            started: None,
            fence_at: request.fence_at,
            phase: Phase::Recovering,
            begin,
        };
        let outcome = match self.store.begin(&attempt.begin) {
            Ok(()) => {
                if attempt.fence_at.is_some_and(|at| at <= boot_now()) {
                    Err(Outcome::Fenced)
                } else {
                    plan.and_then(|plan| spawn::spawn(plan, stdin.is_some()))
                        .map_err(|reject| rejected(&reject))
                }
            }
            Err(error) => Err(Outcome::Rejected {
                reason: format!(
                    "cannot write the attempt's record under {}: {error}",
                    self.options.root.display()
                ),
                no_room: is_full(&error),
            }),
        };
        self.attempts.insert(id, attempt);
        self.live.insert(id);
        match outcome {
            Ok(spawned) => self.started(id, spawned, stdin, live),
            Err(outcome) => self.end(id, outcome, OutputCount::default(), Vec::new()),
        }
        StartResult::New
    }

    fn known(&self, request: &StartRequest) -> Option<AttemptReport> {
        if let Some(attempt) = self.attempts.get(&request.attempt) {
            return Some(attempt.report());
        }
        let ended = self
            .forgotten
            .iter()
            .find(|ended| ended.attempt == request.attempt)?;
        let mut spec = request.spec.clone();
        spec.stdin = None;
        Some(AttemptReport {
            job: ended.job,
            attempt: ended.attempt,
            token: ended.token,
            attempt_no: ended.attempt_no,
            machine: request.machine.clone(),
            spec,
            pid: None,
            started_at: ended.started_at,
            ended_at: Some(ended.ended_at),
            outcome: Some(ended.outcome.clone()),
            output: ended.output,
            fence_at: None,
            survivors: Vec::new(),
        })
    }

    fn started(
        &mut self,
        id: AttemptId,
        spawned: Spawned,
        stdin: Option<Vec<u8>>,
        live: Option<mpsc::Sender<Chunk>>,
    ) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let pid = spawned.child.id();
        let started = Started {
            pid,
            at: wall_now(),
            not_after: boot_now(),
            pipes: [&spawned.stdout, &spawned.stderr]
                .into_iter()
                .flatten()
                .filter_map(pipe_number)
                .collect(),
        };
        let dir = self.store.attempt_dir(attempt.begin.job, id);
        if let Err(error) = self.store.started(id, &started) {
            tracing::warn!(attempt = %id, %error, "cannot record the attempt's process");
        }
        if let (Some(pipe), Some(bytes)) = (spawned.stdin, stdin) {
            spawn::feed(pipe, bytes);
        }
        let inputs = self.inputs.clone();
        let pump = pump::start(
            PumpOptions {
                attempt: id,
                log: LogWriter::new(
                    id,
                    dir,
                    attempt.begin.spec.log_keep_bytes,
                    Arc::clone(&self.room),
                ),
                outbox: Arc::clone(&self.outbox),
                live,
            },
            spawned.stdout,
            spawned.stderr,
            move |output| {
                // Fails only when the engine is gone.
                let _ = inputs.send(Input::PumpDone {
                    attempt: id,
                    output,
                });
            },
        );
        let leader = pid.cast_signed();
        let timeout = attempt.begin.spec.timeout_ms.map(Duration::from_millis);
        attempt.phase = Phase::Running(Box::new(Running {
            child: spawned.child,
            leader,
            pump,
            timeout_at: timeout.and_then(|limit| Instant::now().checked_add(limit)),
            exit: None,
            cause: None,
            stage: Stage::Runs,
        }));
        self.leaders.insert(leader, id);
        self.outbox.event(ExecutorEvent::Started {
            attempt: id,
            pid,
            at: started.at,
        });
        attempt.started = Some(started);
    }

    /// Ends an attempt from outside; false if there is none of that name.
    pub(crate) fn kill(&mut self, id: AttemptId, cause: KillCause) -> bool {
        let outcome = match cause {
            KillCause::Cancel => Outcome::Canceled,
            KillCause::Interrupt => Outcome::Interrupted,
            KillCause::Fence => Outcome::Fenced,
        };
        self.end_because(id, outcome);
        self.attempts.contains_key(&id)
    }

    /// Sets, moves or takes away the moment an attempt (none: every one) is ended at; false if
    /// there is none of that name.
    pub(crate) fn fence_at(&mut self, id: Option<AttemptId>, at: Option<BootTime>) -> bool {
        let Some(id) = id else {
            for id in &self.live {
                if let Some(attempt) = self.attempts.get_mut(id) {
                    attempt.fence_at = at;
                }
            }
            return true;
        };
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return false;
        };
        attempt.fence_at = at;
        true
    }

    /// Takes no more, and ends what runs as interrupted.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for id in self.live.clone() {
            self.end_because(id, Outcome::Interrupted);
        }
    }

    /// Everything that is known, in no order.
    pub(crate) fn reports(&self) -> impl Iterator<Item = AttemptReport> {
        self.attempts.values().map(Attempt::report)
    }

    /// The records of those of these attempts that ended and are not forgotten.
    pub(crate) fn ended(&self, attempts: &[AttemptId]) -> Vec<EndedRecord> {
        let here = attempts.iter().filter_map(|id| self.attempts.get(id));
        here.filter_map(Attempt::ended_record).collect()
    }

    /// Removes an ended attempt's files and keeps its small record. None if there is none of
    /// that name, false if it runs.
    pub(crate) fn forget(&mut self, id: AttemptId) -> Option<std::io::Result<bool>> {
        let attempt = self.attempts.get(&id)?;
        let Some(record) = attempt.ended_record() else {
            return Some(Ok(false));
        };
        if let Err(error) = self.store.forget(&record, wall_now()) {
            return Some(Err(error));
        }
        self.attempts.remove(&id);
        self.room.forget(id);
        self.outbox.kept(self.room.kept(), true);
        self.forgotten.push_back(EndedRecord {
            spec: None,
            ..record
        });
        if self.forgotten.len() > REMEMBER {
            self.forgotten.pop_front();
        }
        if self.store.is_bloated() {
            let kept = self.attempts.values().map(|attempt| {
                let end = match &attempt.phase {
                    Phase::Ended(end) => Some(end),
                    Phase::Running(_) | Phase::Recovering => None,
                };
                (&attempt.begin, attempt.started.as_ref(), end)
            });
            if let Err(error) = self.store.rewrite(kept) {
                tracing::warn!(%error, "cannot shorten the journal of attempts");
            }
        }
        Some(Ok(true))
    }

    /// When [`Self::tick`] is wanted next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let running = self.running().filter_map(|(_, r)| r.deadline());
        let expiry = self.room.expires_in(SystemTime::now());
        let expiry = expiry.and_then(|left| Instant::now().checked_add(left));
        running.chain(expiry).min()
    }

    /// When [`Self::fence`] is wanted next.
    pub(crate) fn fence_deadline(&self) -> Option<BootTime> {
        let unfenced = |id: &&AttemptId| {
            self.attempts.get(*id).is_some_and(|a| match &a.phase {
                Phase::Running(r) => r.cause.is_none() && r.exit.is_none(),
                Phase::Recovering | Phase::Ended(_) => false,
            })
        };
        self.live
            .iter()
            .filter(unfenced)
            .filter_map(|id| self.attempts.get(id)?.fence_at)
            .min()
    }

    fn running(&self) -> impl Iterator<Item = (AttemptId, &Running)> {
        self.live
            .iter()
            .filter_map(|id| match &self.attempts.get(id)?.phase {
                Phase::Running(running) => Some((*id, &**running)),
                Phase::Recovering | Phase::Ended(_) => None,
            })
    }

    fn running_mut(&mut self, id: AttemptId) -> Option<&mut Running> {
        match &mut self.attempts.get_mut(&id)?.phase {
            Phase::Running(running) => Some(running),
            Phase::Recovering | Phase::Ended(_) => None,
        }
    }

    /// Something came back from a task.
    pub(crate) fn input(&mut self, input: Input) {
        match input {
            Input::PumpDone { attempt, output } => {
                let Some(running) = self.running_mut(attempt) else {
                    return;
                };
                let survivors = match &mut running.stage {
                    Stage::Draining { survivors } => std::mem::take(survivors),
                    _ => Vec::new(),
                };
                let outcome = running.cause.take().or(running.exit.take());
                let outcome = outcome.unwrap_or(Outcome::Unknown {
                    reason: "its output ended before it did".to_owned(),
                });
                self.end(attempt, outcome, output, survivors);
            }
            Input::Recovered { attempt, survivors } => self.end_recovered(
                attempt,
                "the executor was killed while it ran".to_owned(),
                survivors,
            ),
        }
    }

    fn end_recovered(&mut self, id: AttemptId, reason: String, survivors: Vec<u32>) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        let dir = self.store.attempt_dir(attempt.begin.job, id);
        let output = LogReader::new(dir).count().unwrap_or_default();
        self.end(id, Outcome::Unknown { reason }, output, survivors);
    }

    fn end(&mut self, id: AttemptId, outcome: Outcome, output: OutputCount, survivors: Vec<u32>) {
        self.live.remove(&id);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let end = End {
            outcome: outcome.clone(),
            output,
            at: wall_now(),
            survivors: survivors.clone(),
        };
        if let Err(error) = self.store.end(id, &end) {
            // It is still told; should this process die before that, it becomes unknown.
            tracing::warn!(attempt = %id, %error, "cannot record how the attempt ended");
        }
        if !survivors.is_empty() {
            tracing::warn!(attempt = %id, ?survivors, "processes of the attempt could not be ended");
        }
        self.outbox.kept(self.room.kept(), true);
        self.outbox.event(ExecutorEvent::Ended {
            attempt: id,
            outcome,
            output,
            started_at: attempt.started.as_ref().map(|s| s.at),
            ended_at: end.at,
            survivors,
        });
        attempt.phase = Phase::Ended(end);
    }
}

impl Attempt {
    fn report(&self) -> AttemptReport {
        let mut report = AttemptReport {
            job: self.begin.job,
            attempt: self.begin.attempt,
            token: self.begin.token,
            attempt_no: self.begin.attempt_no,
            machine: self.begin.machine.clone(),
            spec: self.begin.spec.clone(),
            pid: None,
            started_at: self.started.as_ref().map(|s| s.at),
            ended_at: None,
            outcome: None,
            output: OutputCount::default(),
            fence_at: self.fence_at,
            survivors: Vec::new(),
        };
        match &self.phase {
            Phase::Running(running) => {
                report.pid = Some(running.leader.cast_unsigned());
                report.output = *running.pump.count.borrow();
            }
            Phase::Recovering => {}
            Phase::Ended(end) => {
                report.ended_at = Some(end.at);
                report.outcome = Some(end.outcome.clone());
                report.output = end.output;
                report.survivors.clone_from(&end.survivors);
            }
        }
        report
    }

    fn ended_record(&self) -> Option<EndedRecord> {
        let Phase::Ended(end) = &self.phase else {
            return None;
        };
        Some(EndedRecord {
            job: self.begin.job,
            attempt: self.begin.attempt,
            token: self.begin.token,
            attempt_no: self.begin.attempt_no,
            outcome: end.outcome.clone(),
            output: end.output,
            started_at: self.started.as_ref().map(|s| s.at),
            ended_at: end.at,
            machine: Some(self.begin.machine.clone()),
            spec: Some(Box::new(self.begin.spec.clone())),
        })
    }
}

fn rejected(reject: &Reject) -> Outcome {
    Outcome::Rejected {
        reason: reject.to_string(),
        no_room: false,
    }
}

/// Whether a file was not written because the disk has no room for it, or not for this user.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn pipe_number(fd: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(fd.as_fd()).ok().map(|stat| stat.st_ino)
}
