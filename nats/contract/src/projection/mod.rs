//! The whole fleet as its bus tells it: jobs, machines and events folded from what readers of the
//! streams bring, with the orders in which people want to see them.
//!
//! One fold for everything that watches. It is pure and bounded: what it lets go of is counted.
//! The order between the streams does not matter, within one the stream's order does; what comes
//! twice changes nothing.

mod event;
mod history;
mod load;
mod machines;
mod places;
mod traffic;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use event::{Event, EventKey, TEXT_MAX_CHARS, details, span};
pub use history::{HISTORY_MINUTES, History, Minute};
pub use load::{LOAD_SAMPLES, LOAD_STEP, LoadSample, LoadTold};
pub use machines::Machine;
pub use places::JobsAt;
pub use traffic::{TRAFFIC_FRESH, Traffic};
pub use why::{
    AHEAD_MAX, ATTEMPTS_TOLD, Holder, MachineReason, Reason, TAKEN_WITHIN, why, why_machine,
};

use crate::event::{EventView, kind};
use crate::ids::{JobId, MachineId, Writer};
use crate::job::{Applied, Job, JobState, Void};
use crate::machine::{MachineState, Presence};
use crate::record::{Change, Record, StateWord};
use crate::stat::Stat;
use crate::time::Time;
use load::Loads;
use machines::Machines;
use places::{Places, Spot};
use traffic::{Summaries, Told};

/// A job that ended badly is put before those that run for this long.
pub const FRESH: Duration = Duration::from_secs(3600);
/// Most a command may take in memory here, in bytes; the rest is cut.
pub const COMMAND_MAX_BYTES: usize = 4096;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ended jobs; those that ended first go first. Jobs that have not ended are all kept.
    pub ended_jobs: usize,
    /// Events; the oldest go first. One takes a quarter of a kilobyte.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ended_jobs: 20_000,
            events: 50_000,
        }
    }
}

/// What a reader of the bus brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A record of the journal.
    Record(Box<JournalFact>),
    /// A machine's presence.
    Presence {
        /// What it says.
        presence: Box<Presence>,
        /// Its sequence in its stream.
        seq: u64,
        /// When the hub stored it, by the reader's own clock.
        seen: Time,
    },
    /// An event that is no transition of a job.
    Event {
        /// It.
        event: Box<EventView>,
        /// When the hub stored it, by the reader's own clock.
        stored: Time,
    },
    /// What a machine counted since its last summary.
    Stat {
        /// It.
        machine: MachineId,
        /// What it counted.
        stat: Stat,
        /// When the reader got it, by the reader's own clock.
        at: Time,
    },
    /// All machines that the registry holds: others were forgotten.
    Registered(BTreeSet<MachineId>),
    /// The first sequence that the journal still holds: jobs that end before it were purged.
    JournalBegins(u64),
    /// A message that cannot be read.
    Unreadable {
        /// Why not.
        why: String,
    },
}

/// One record as a reader of the journal brings it.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalFact {
    /// The job.
    pub job: JobId,
    /// Who wrote it.
    pub writer: Writer,
    /// Its sequence.
    pub seq: u64,
    /// When the hub stored it, by the reader's own clock.
    pub stored: Time,
    /// When it was written, by its writer's clock. Only to find what the same writer wrote then:
    /// ages and orders go by when it was stored.
    pub time: Time,
    /// Itself, or why it is none.
    pub record: Result<Record, Void>,
}

/// What was counted. All only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records of the journal.
    pub records: u64,
    /// Those of them that do not count.
    pub voids: u64,
    /// Records of jobs that are no longer kept here.
    pub of_others: u64,
    /// Presences.
    pub beats: u64,
    /// Events, those of jobs too.
    pub events: u64,
    /// Events that are no longer kept.
    pub events_dropped: u64,
    /// Samples of load, which are no events for people.
    pub samples: u64,
    /// Summaries of what machines counted.
    pub stats: u64,
    /// Samples and summaries of machines for which there was no room.
    pub samples_dropped: u64,
    /// Ended jobs that are no longer kept.
    pub jobs_dropped: u64,
    /// Messages that cannot be read.
    pub unreadable: u64,
}

/// Where a job stands among the others, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NeedsHuman,
    Lost,
    /// An attempt of it had run though another decision held, and nobody has acknowledged that.
    Superseded,
    Failed,
    Running,
    Backoff,
    Queued,
    Ended,
}

impl Rank {
    fn of(word: StateWord) -> Self {
        match word {
            StateWord::NeedsHuman => Self::NeedsHuman,
            StateWord::Lost => Self::Lost,
            StateWord::Failed | StateWord::TimedOut | StateWord::Rejected | StateWord::Expired => {
                Self::Failed
            }
            StateWord::Running => Self::Running,
            StateWord::Backoff => Self::Backoff,
            StateWord::Queued => Self::Queued,
            StateWord::Canceled | StateWord::Succeeded => Self::Ended,
        }
    }

    fn of_job(job: &Job) -> Self {
        match Self::of(job.state.word()) {
            rank @ (Self::NeedsHuman | Self::Lost) => rank,
            _ if job.unacknowledged() > 0 => Self::Superseded,
            rank => rank,
        }
    }
}

/// Rank, then a time (what waits or runs longest first, what ended last first), then the id.
type OrderKey = (Rank, i64, JobId);

/// The fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fleet {
    limits: Limits,
    jobs: BTreeMap<JobId, Job>,
    order: BTreeSet<OrderKey>,
    ended: BTreeSet<(Time, JobId)>,
    by_state: BTreeMap<StateWord, usize>,
    places: Places,
    machines: Machines,
    loads: Loads,
    traffic: Summaries,
    history: History,
    events: BTreeMap<EventKey, Event>,
    journal_seq: u64,
    flow_seq: u64,
    counters: Counters,
}

impl Fleet {
    /// A fleet of which nothing is known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Takes in what a reader brings. Whether anything changed.
    pub fn fold(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Record(record) => self.record(record),
            Fact::Presence {
                presence,
                seq,
                seen,
            } => self.presence(presence, *seq, *seen),
            Fact::Event { event, stored } => self.flow(event, *stored),
            Fact::Stat { machine, stat, at } => {
                let told = self.traffic.tell(machine, stat, *at);
                self.counters.stats += u64::from(told == Told::New);
                self.counters.samples_dropped += u64::from(told == Told::NoRoom);
                told == Told::New
            }
            Fact::Registered(machines) => {
                self.loads.retain(|id| machines.contains(id));
                self.traffic.retain(|id| machines.contains(id));
                self.machines.retain(machines)
            }
            Fact::JournalBegins(seq) => self.purge(*seq),
            Fact::Unreadable { .. } => {
                self.counters.unreadable += 1;
                true
            }
        }
    }

    fn record(&mut self, fact: &JournalFact) -> bool {
        if fact.seq <= self.journal_seq {
            return false;
        }
        self.journal_seq = fact.seq;
        self.counters.records += 1;
        let before = self.jobs.get(&fact.job).map(Indexed::of);
        let applied = match (self.jobs.get_mut(&fact.job), &fact.record) {
            (Some(job), Ok(record)) => {
                let applied = job.apply(fact.seq, fact.stored, &fact.writer, record);
                if applied == Applied::Changed {
                    end_here(job, fact.stored, record);
                }
                applied
            }
            (Some(job), Err(void)) => {
                job.skip(fact.seq);
                Applied::Void(void.clone())
            }
            // Its beginning was here once, or was before what this reader read.
            (None, Ok(record)) if record.prev != 0 => {
                self.counters.of_others += 1;
                Applied::Duplicate
            }
            (None, Ok(record)) => {
                match Job::first(fact.job, fact.seq, fact.stored, &fact.writer, record) {
                    Ok(mut job) => {
                        slim(&mut job);
                        self.jobs.insert(fact.job, job);
                        Applied::Changed
                    }
                    Err(void) => Applied::Void(void),
                }
            }
            (None, Err(void)) => Applied::Void(void.clone()),
        };
        match applied {
            Applied::Void(_) => self.counters.voids += 1,
            Applied::Changed => {
                self.count_change(fact, before.as_ref());
                let key = EventKey::journal(fact.stored, fact.seq);
                if let Ok(record) = &fact.record {
                    if let Some(dispatch) = Event::of_dispatch(fact, record) {
                        self.remember(key.before(), dispatch);
                    }
                    let event = Event::of_record(fact, record, self.jobs.get(&fact.job));
                    self.remember(key, event);
                }
                self.reindex(fact.job, before);
            }
            Applied::Duplicate => {}
        }
        true
    }

    /// Counts what a record made of its job, in the minute in which the hub stored it.
    fn count_change(&mut self, fact: &JournalFact, before: Option<&Indexed>) {
        let Some(is) = self.jobs.get(&fact.job).map(|job| job.state.word()) else {
            return;
        };
        let was = before.map(|before| before.word);
        let ends = is.is_terminal() && !was.is_some_and(StateWord::is_terminal);
        let asks = is == StateWord::NeedsHuman && was != Some(is);
        let rank = Rank::of(is);
        self.history.count(fact.stored, |minute| {
            minute.dispatched += u32::from(was.is_none());
            minute.ended += u32::from(ends);
            minute.failed += u32::from(ends && rank == Rank::Failed);
            minute.lost += u32::from(ends && rank == Rank::Lost);
            minute.asked += u32::from(asks);
        });
    }

    fn reindex(&mut self, id: JobId, before: Option<Indexed>) {
        if let Some(before) = before {
            self.unindex(&before);
        }
        let Some(Indexed { key, word, spot }) = self.jobs.get(&id).map(Indexed::of) else {
            return;
        };
        self.order.insert(key);
        *self.by_state.entry(word).or_default() += 1;
        self.places.add(spot);
        if word.is_terminal() {
            self.ended.insert((ended_at(key), id));
        }
        while self.ended.len() > self.limits.ended_jobs {
            let Some((_, oldest)) = self.ended.first().copied() else {
                return;
            };
            self.remove(oldest);
            self.counters.jobs_dropped += 1;
        }
    }

    fn unindex(&mut self, Indexed { key, word, spot }: &Indexed) {
        self.order.remove(key);
        self.places.remove(spot);
        if let Some(count) = self.by_state.get_mut(word) {
            *count = count.saturating_sub(1);
        }
        if word.is_terminal() {
            self.ended.remove(&(ended_at(*key), key.2));
        }
    }

    fn remove(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.remove(&id) else {
            return false;
        };
        self.unindex(&Indexed::of(&job));
        true
    }

    fn purge(&mut self, begins: u64) -> bool {
        // Purged jobs have ended: only those need to be looked at.
        let gone: Vec<JobId> = self
            .ended
            .iter()
            .map(|(_, id)| *id)
            .filter(|id| self.jobs.get(id).is_some_and(|j| j.last_seq < begins))
            .collect();
        for id in &gone {
            self.remove(*id);
        }
        !gone.is_empty()
    }

    fn presence(&mut self, presence: &Presence, seq: u64, seen: Time) -> bool {
        let known = self.machines.all().get(&presence.machine);
        if known.is_some_and(|known| seq <= known.seq) {
            return false;
        }
        self.counters.beats += 1;
        self.sample(&presence.machine, seen, &LoadTold::of(presence));
        self.machines.insert(Machine {
            presence: presence.clone(),
            seq,
            seen,
        });
        true
    }

    fn sample(&mut self, machine: &MachineId, at: Time, told: &LoadTold) {
        let kept = self.loads.tell(machine, at, told.sample());
        self.counters.samples_dropped += u64::from(!kept);
    }

    fn flow(&mut self, event: &EventView, stored: Time) -> bool {
        if event.seq <= self.flow_seq {
            return false;
        }
        self.flow_seq = event.seq;
        if event.kind == kind::MACHINE_LOAD {
            self.counters.samples += 1;
            if let (Some(machine), Ok(told)) =
                (&event.machine, LoadTold::deserialize(event.detail()))
            {
                self.sample(machine, stored, &told);
            }
            return true;
        }
        match (event.kind.as_str(), event.job) {
            (kind::JOB_PURGED, Some(job)) => drop(self.remove(job)),
            (kind::MACHINE_LOST, _) => self.history.count(stored, |m| m.machines_lost += 1),
            (kind::MACHINE_DEGRADED, _) => self.history.count(stored, |m| m.machines_degraded += 1),
            _ => {}
        }
        self.remember(
            EventKey::flow(stored, event.seq),
            Event::of_flow(event, stored),
        );
        true
    }

    fn remember(&mut self, key: EventKey, mut event: Event) {
        if let Some(machine) = &mut event.machine
            && let Some((known, _)) = self.machines.all().get_key_value(machine)
        {
            // One name in memory for all that is said of a machine.
            machine.clone_from(known);
        }
        self.counters.events += 1;
        self.history.count(key.stored, |minute| minute.events += 1);
        self.events.insert(key, event);
        while self.events.len() > self.limits.events {
            self.events.pop_first();
            self.counters.events_dropped += 1;
        }
    }

    /// Every job that is kept, by id. Its times are those at which the hub stored what it tells, by
    /// the reader's own clock; of what machines wrote only how long an attempt took is used.
    #[must_use]
    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// How many jobs are in a state.
    #[must_use]
    pub fn count(&self, word: StateWord) -> usize {
        self.by_state.get(&word).copied().unwrap_or(0)
    }

    /// How many jobs ended as failed, timed out, rejected or expired within [`FRESH`].
    #[must_use]
    pub fn freshly_failed(&self, now: Time) -> usize {
        self.fresh(Rank::Failed, now).count()
    }

    /// How many jobs ended so longer ago.
    #[must_use]
    pub fn formerly_failed(&self, now: Time) -> usize {
        let failed = StateWord::ALL.into_iter();
        let failed = failed.filter(|word| Rank::of(*word) == Rank::Failed);
        let all: usize = failed.map(|word| self.count(word)).sum();
        let told = self.rank(Rank::Superseded).filter(|(_, _, id)| {
            let job = self.jobs.get(id);
            job.is_some_and(|job| Rank::of(job.state.word()) == Rank::Failed)
        });
        all.saturating_sub(self.freshly_failed(now) + told.count())
    }

    /// How many jobs, beside those that wait for a person or are lost, tell of an attempt that had
    /// run though another decision held, which nobody has acknowledged.
    #[must_use]
    pub fn superseded(&self) -> usize {
        self.rank(Rank::Superseded).count()
    }

    fn rank(&self, rank: Rank) -> impl Iterator<Item = &OrderKey> {
        let least = JobId::from_random([0; 10]);
        let from = Bound::Included((rank, i64::MIN, least));
        self.order
            .range((from, Bound::Unbounded))
            .take_while(move |key| key.0 == rank)
    }

    /// Those of a bad end, newest first.
    fn fresh(&self, rank: Rank, now: Time) -> impl Iterator<Item = &OrderKey> {
        self.rank(rank)
            .take_while(move |key| is_fresh(ended_at(**key), now))
    }

    /// Jobs as an operator needs to see them: those that wait for a person, those that are lost,
    /// until somebody says how they ended, those of which more ran than counts, until somebody
    /// acknowledges that, those that failed within [`FRESH`], what runs and waits, and then all
    /// other ended ones, newest first. Lazy: taking a screenful costs a screenful.
    pub fn worst_first(&self, now: Time) -> impl Iterator<Item = &Job> {
        self.worst_first_ids(now)
            .filter_map(|id| self.jobs.get(&id))
    }

    /// The same without a look at the jobs themselves: to find a place far down among many.
    pub fn worst_first_ids(&self, now: Time) -> impl Iterator<Item = JobId> {
        let first = self
            .rank(Rank::NeedsHuman)
            .chain(self.rank(Rank::Lost))
            .chain(self.rank(Rank::Superseded))
            .chain(self.fresh(Rank::Failed, now))
            .chain(self.rank(Rank::Running))
            .chain(self.rank(Rank::Backoff))
            .chain(self.rank(Rank::Queued))
            .map(|(_, _, id)| *id);
        let above = self.count(StateWord::Lost) > 0 || self.rank(Rank::Superseded).next().is_some();
        let rest = self.ended.iter().rev().filter(move |(at, id)| {
            let fresh = is_fresh(*at, now);
            let job = (fresh || above).then(|| self.jobs.get(id)).flatten();
            // Those that nobody has dealt with, and that failed of late, stand above.
            match job.map(Rank::of_job) {
                Some(Rank::Lost | Rank::Superseded) => false,
                Some(Rank::Failed) => !fresh,
                _ => true,
            }
        });
        first.chain(rest.map(|(_, id)| *id))
    }

    /// Every machine, by name.
    #[must_use]
    pub fn machines(&self) -> &BTreeMap<MachineId, Machine> {
        self.machines.all()
    }

    /// Tells what time it is, so that what is asked about machines at that time and shortly after
    /// costs no look at all of them. Answers are the same without.
    pub fn pass_time(&mut self, now: Time) {
        self.machines.pass(now);
    }

    /// Machines with their state at `now`, worst first, then by name. Lazy: taking a screenful
    /// costs a screenful.
    pub fn worst_machines(&self, now: Time) -> impl Iterator<Item = (MachineState, &Machine)> {
        self.machines.worst_first(now)
    }

    /// All of [`Fleet::worst_machines`].
    #[must_use]
    pub fn machines_worst_first(&self, now: Time) -> Vec<(MachineState, &Machine)> {
        self.worst_machines(now).collect()
    }

    /// How many machines are in a state at `now`.
    #[must_use]
    pub fn count_machines(&self, state: MachineState, now: Time) -> usize {
        let counts = self.machine_counts(now);
        counts.get(state as usize).copied().unwrap_or(0)
    }

    /// How many machines are in each state at `now`, in the order of [`MachineState::ALL`].
    #[must_use]
    pub fn machine_counts(&self, now: Time) -> [usize; MachineState::ALL.len()] {
        self.machines.counts(now)
    }

    /// What runs on a machine, waits for it and ended on it, counted; none where there is nothing.
    #[must_use]
    pub fn jobs_at(&self, machine: &MachineId) -> Option<&JobsAt> {
        self.places.at(machine)
    }

    /// Jobs that run on a machine now, longest first; then those that wait for a person while their
    /// attempt may still end.
    pub fn running_on<'a>(&'a self, machine: &MachineId) -> impl Iterator<Item = &'a Job> {
        let at = self.places.at(machine);
        at.into_iter()
            .flat_map(JobsAt::open)
            .filter_map(|id| self.jobs.get(&id))
    }

    /// What flows between a machine and the hub; none where it told nothing for 3 s, because nothing
    /// flows or because it is not heard.
    #[must_use]
    pub fn traffic(&self, machine: &MachineId, now: Time) -> Option<Traffic> {
        self.traffic.of(machine, now)
    }

    /// Whether a machine ever told what it counts: older agents do not, and then nothing is known
    /// of what flows.
    #[must_use]
    pub fn tells_traffic(&self, machine: &MachineId) -> bool {
        self.traffic.know(machine)
    }

    /// All machines with traffic, by name.
    pub fn all_traffic(&self, now: Time) -> impl Iterator<Item = (&MachineId, Traffic)> {
        self.traffic.all(now)
    }

    /// How busy a machine was, oldest first: at most one sample for each ten seconds of the last
    /// hour; less far back where there are more than a thousand machines.
    pub fn load_history(
        &self,
        machine: &MachineId,
    ) -> impl DoubleEndedIterator<Item = (Time, &LoadSample)> {
        self.loads.of(machine)
    }

    /// What happened in each of the last minutes.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Events, oldest first, in the order in which the hub stored them.
    #[must_use]
    pub fn events(&self) -> &BTreeMap<EventKey, Event> {
        &self.events
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The last sequence of the journal that was folded.
    #[must_use]
    pub fn journal_seq(&self) -> u64 {
        self.journal_seq
    }
}

/// Where a job stands in the indexes.
struct Indexed {
    key: OrderKey,
    word: StateWord,
    spot: Spot,
}

impl Indexed {
    fn of(job: &Job) -> Self {
        let (key, word) = order_key(job);
        let spot = Spot::of(job);
        Self { key, word, spot }
    }
}

fn order_key(job: &Job) -> (OrderKey, StateWord) {
    let word = job.state.word();
    let at = job.changed_at.as_micros();
    let at = if word.is_terminal() { -at } else { at };
    ((Rank::of_job(job), at, job.id), word)
}

fn ended_at(key: OrderKey) -> Time {
    Time::from_micros(-key.1)
}

fn is_fresh(at: Time, now: Time) -> bool {
    now.since(at) < FRESH
}

/// What a machine wrote of its attempt's times is how long it took; when it ended is when the hub
/// stored that.
fn end_here(job: &mut Job, stored: Time, record: &Record) {
    let Change::Ended {
        started_at,
        ended_at,
        ..
    } = &record.change
    else {
        return;
    };
    let took = i64::try_from(ended_at.since(*started_at).as_micros()).unwrap_or(0);
    if let Some(last) = job.attempts.last_mut() {
        let started = stored.as_micros().saturating_sub(took);
        last.started_at = Some(Time::from_micros(started));
        last.ended_at = Some(stored);
    }
}

/// Whoever only watches has no use for a job's input and environment, nor for a command of
/// megabytes.
fn slim(job: &mut Job) {
    job.forget_stdin();
    let long = job.spec.command.iter().map(String::len).sum::<usize>() > COMMAND_MAX_BYTES;
    if job.spec.env.is_empty() && !long {
        return;
    }
    let spec = Arc::make_mut(&mut job.spec);
    spec.env.clear();
    if long {
        shorten(&mut spec.command);
    }
}

fn shorten(command: &mut Vec<String>) {
    let mut room = COMMAND_MAX_BYTES;
    let mut kept = 0;
    for arg in command.iter_mut() {
        kept += 1;
        if arg.len() > room {
            let end = (0..=room).rev().find(|at| arg.is_char_boundary(*at));
            arg.truncate(end.unwrap_or(0));
            arg.push('…');
            break;
        }
        room -= arg.len();
    }
    command.truncate(kept);
}

/// Where a job runs, ran last or waits to run; none while any machine of its lane may take it.
#[must_use]
pub fn place(job: &Job) -> Option<&MachineId> {
    let waits = matches!(
        job.state,
        JobState::Queued { .. } | JobState::Backoff { .. }
    );
    match (job.attempt(), &job.target) {
        (Some(attempt), _) if !waits => Some(&attempt.machine),
        (_, crate::spec::Target::Pin(machine)) => Some(machine),
        _ => None,
    }
}
