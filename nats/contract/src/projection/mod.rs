//! The whole fleet as its bus tells it: jobs, machines and events folded from what readers of the
//! streams bring, with the orders in which people want to see them.
//!
//! One fold for everything that watches. It is pure and bounded: what it lets go of is counted.
//! The order between the streams does not matter, within one the stream's order does; what comes
//! twice changes nothing.

mod event;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use event::{Event, EventKey, TEXT_MAX_CHARS, details, span};
pub use why::{
    AHEAD_MAX, ATTEMPTS_TOLD, Holder, MachineReason, Reason, TAKEN_WITHIN, why, why_machine,
};

use crate::event::{EventView, kind};
use crate::ids::{JobId, MachineId, Writer};
use crate::job::{Applied, Job, JobState, Void};
use crate::machine::{self, MachineState, Presence};
use crate::record::{Record, StateWord};
use crate::time::Time;

/// A job that ended badly is put before those that run for this long.
pub const FRESH: Duration = Duration::from_secs(3600);
/// Most a command may take in memory here, in bytes; the rest is cut.
pub const COMMAND_MAX_BYTES: usize = 4096;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ended jobs; those that ended first go first. Jobs that have not ended are all kept.
    pub ended_jobs: usize,
    /// Events; the oldest go first.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ended_jobs: 20_000,
            events: 20_000,
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
    /// When it was written, by its writer's clock.
    pub time: Time,
    /// Itself, or why it is none.
    pub record: Result<Record, Void>,
}

/// A machine as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// What it said.
    pub presence: Presence,
    /// The sequence of that.
    pub seq: u64,
    /// When, by the reader's own clock.
    pub seen: Time,
}

impl Machine {
    /// Its state at `now` by the reader's clock.
    #[must_use]
    pub fn state(&self, now: Time) -> MachineState {
        machine::state(&self.presence, now.since(self.seen))
    }
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

    fn is_bad_end(self) -> bool {
        matches!(self, Self::Lost | Self::Failed)
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
    machines: BTreeMap<MachineId, Machine>,
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
            Fact::Registered(machines) => {
                let before = self.machines.len();
                self.machines.retain(|id, _| machines.contains(id));
                self.machines.len() != before
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
        let before = self.jobs.get(&fact.job).map(order_key);
        let applied = match (self.jobs.get_mut(&fact.job), &fact.record) {
            (Some(job), Ok(record)) => job.apply(fact.seq, fact.time, &fact.writer, record),
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
                match Job::first(fact.job, fact.seq, fact.time, &fact.writer, record) {
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
                self.reindex(fact.job, before);
                let key = EventKey::journal(fact.stored, fact.seq);
                if let Ok(record) = &fact.record {
                    self.remember(key, Event::of_record(fact, record));
                }
            }
            Applied::Duplicate => {}
        }
        true
    }

    fn reindex(&mut self, id: JobId, before: Option<(OrderKey, StateWord)>) {
        if let Some((key, word)) = before {
            self.unindex(key, word);
        }
        let Some((key, word)) = self.jobs.get(&id).map(order_key) else {
            return;
        };
        self.order.insert(key);
        *self.by_state.entry(word).or_default() += 1;
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

    fn unindex(&mut self, key: OrderKey, word: StateWord) {
        self.order.remove(&key);
        if let Some(count) = self.by_state.get_mut(&word) {
            *count = count.saturating_sub(1);
        }
        if word.is_terminal() {
            self.ended.remove(&(ended_at(key), key.2));
        }
    }

    fn remove(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.remove(&id) else {
            return false;
        };
        let (key, word) = order_key(&job);
        self.unindex(key, word);
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
        if self
            .machines
            .get(&presence.machine)
            .is_some_and(|known| seq <= known.seq)
        {
            return false;
        }
        self.counters.beats += 1;
        let machine = Machine {
            presence: presence.clone(),
            seq,
            seen,
        };
        self.machines.insert(presence.machine.clone(), machine);
        true
    }

    fn flow(&mut self, event: &EventView, stored: Time) -> bool {
        if event.seq <= self.flow_seq {
            return false;
        }
        self.flow_seq = event.seq;
        if event.kind == kind::MACHINE_LOAD {
            self.counters.samples += 1;
            return true;
        }
        if let (kind::JOB_PURGED, Some(job)) = (event.kind.as_str(), event.job) {
            self.remove(job);
        }
        self.remember(EventKey::flow(stored, event.seq), Event::of_flow(event));
        true
    }

    fn remember(&mut self, key: EventKey, event: Event) {
        self.counters.events += 1;
        self.events.insert(key, event);
        while self.events.len() > self.limits.events {
            self.events.pop_first();
            self.counters.events_dropped += 1;
        }
    }

    /// Every job that is kept, by id.
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

    /// How many jobs were lost within [`FRESH`].
    #[must_use]
    pub fn freshly_lost(&self, now: Time) -> usize {
        self.fresh(Rank::Lost, now).count()
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

    /// Jobs as an operator needs to see them: those that wait for a person, those that ended badly
    /// within [`FRESH`], what runs and waits, and then all other ended ones, newest first. Lazy:
    /// taking a screenful costs a screenful.
    pub fn worst_first(&self, now: Time) -> impl Iterator<Item = &Job> {
        let first = self
            .rank(Rank::NeedsHuman)
            .chain(self.fresh(Rank::Lost, now))
            .chain(self.fresh(Rank::Failed, now))
            .chain(self.rank(Rank::Running))
            .chain(self.rank(Rank::Backoff))
            .chain(self.rank(Rank::Queued))
            .filter_map(|(_, _, id)| self.jobs.get(id));
        let rest = self.ended.iter().rev().filter_map(move |(at, id)| {
            let job = self.jobs.get(id)?;
            let shown = Rank::of(job.state.word()).is_bad_end() && is_fresh(*at, now);
            (!shown).then_some(job)
        });
        first.chain(rest)
    }

    /// Every machine, by name.
    #[must_use]
    pub fn machines(&self) -> &BTreeMap<MachineId, Machine> {
        &self.machines
    }

    /// Machines with their state at `now`, worst first, then by name.
    #[must_use]
    pub fn machines_worst_first(&self, now: Time) -> Vec<(MachineState, &Machine)> {
        let mut all: Vec<_> = self.machines.values().map(|m| (m.state(now), m)).collect();
        all.sort_by_key(|(state, _)| *state);
        all
    }

    /// Jobs that run on a machine now, longest first.
    pub fn running_on<'a>(&'a self, machine: &'a MachineId) -> impl Iterator<Item = &'a Job> {
        self.rank(Rank::Running)
            .chain(self.rank(Rank::NeedsHuman))
            .filter_map(|(_, _, id)| self.jobs.get(id))
            .filter(move |job| job.state.open().is_some_and(|o| o.machine == *machine))
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

fn order_key(job: &Job) -> (OrderKey, StateWord) {
    let word = job.state.word();
    let at = job.changed_at.as_micros();
    let at = if word.is_terminal() { -at } else { at };
    ((Rank::of(word), at, job.id), word)
}

fn ended_at(key: OrderKey) -> Time {
    Time::from_micros(-key.1)
}

fn is_fresh(at: Time, now: Time) -> bool {
    now.since(at) < FRESH
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
