//! What the hub's keeper does when nobody else would: the pure part.
//!
//! It folds the journal, keeps no state that is not in the streams, and each of its acts is a
//! compare-and-swap: a restart, a repeat or a second keeper does no harm. Nothing here waits; the
//! shell asks [`Keeper::next_due`] when to come back.

mod ended;
mod headless;
mod limits;
mod lost;
mod overdue;
mod superseded;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::{JobId, MachineId, TicketId, Writer};
use crate::job::{Applied, Job, JobState, Void};
use crate::lease::{BootTime, LeaseRecord};
use crate::policy;
use crate::record::{Cause, Change, Record};
use crate::spec::Target;
use crate::time::Time;
use ended::Ended;
use headless::Headless;
use superseded::Pending;

pub use limits::{Pace, Removed, Retention, Why};
pub use overdue::OVERDUE;
pub use superseded::{KEEP_UNACKNOWLEDGED, UNACKNOWLEDGED_MAX};

/// First look for the ticket of a queued job that nobody has claimed.
pub const TICKET_CHECK_FIRST: Duration = Duration::from_secs(5);
/// Longest pause between two looks for the same ticket.
pub const TICKET_CHECK_MAX: Duration = Duration::from_secs(60);
/// How long an act of the keeper may stay without its record before it is tried again.
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most acts handed out at once; the rest is due again at once.
pub const ACTS_MAX: usize = 256;

/// A job with more void records than this is restated more slowly with each: who writes them has no
/// say in how much the keeper writes.
const VOIDS_AT_ONCE: u32 = 8;
/// By so much, up to [`ACT_TIMEOUT`].
const VOID_PAUSE: Duration = Duration::from_millis(100);

/// Ended jobs younger than this are kept whatever their number.
pub const PURGE_AGE_MIN: Duration = Duration::from_secs(90);

/// Between the removal of an ended job's last tickets and that of its journal: whoever had one of
/// them has found the end there by then, or given it up ([`crate::lease::CLAIM_WITHIN`],
/// [`crate::ticket::CLAIM_FRESH`]).
pub const CLEAR_BEFORE_PURGE: Duration = Duration::from_secs(60);

/// Where the journal holds more than this of what it may, in percent, the oldest ended jobs go
/// before their time ([`Keeper::journal_holds`]): well before dispatch is refused.
pub const MAKE_ROOM_ABOVE_PERCENT: u64 = 80;
/// Down to here, in percent.
pub const MAKE_ROOM_DOWN_TO_PERCENT: u64 = 70;

/// A pause between two turns of the keeper's loop that is longer than this part of a lease is a
/// hole: the keeper was suspended or stopped, and what it did not hear in it says nothing.
const HOLE_PART: u32 = 2;
/// While there is a lease to watch, the loop turns at least this many times in it.
const TURN_PART: u32 = 4;

/// What the keeper wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Append this record to the job's journal, expecting its `prev`.
    Append {
        /// The job.
        job: JobId,
        /// The record.
        record: Box<Record>,
    },
    /// Publish a fresh ticket and then append `queued`, expecting `after`.
    Issue {
        /// The job.
        job: JobId,
        /// The journal's last sequence.
        after: u64,
        /// Where the ticket goes.
        target: Target,
        /// Why.
        cause: Cause,
    },
    /// Look whether this ticket is still there; answer with [`Keeper::ticket_gone`] if not.
    CheckTicket {
        /// The job.
        job: JobId,
        /// The journal's last sequence.
        revision: u64,
        /// Where the ticket waits.
        target: Target,
        /// Its sequence there.
        work_seq: u64,
    },
    /// Append the hub's record to the machine's lease, expecting `expect`; answer with
    /// [`Keeper::lease_taken`] if it is stored.
    TakeLease {
        /// The machine.
        machine: MachineId,
        /// The lease's last sequence.
        expect: u64,
    },
    /// Remove every ticket of the ended job that still waits anywhere; answer with
    /// [`Keeper::cleared`]. A new job's ticket that is left over (of a second dispatcher with the
    /// same key, say) would run the job again once nothing tells any more that it ended.
    Clear {
        /// The job.
        job: JobId,
    },
    /// Remove the job's log, and then its journal up to here; answer with [`Keeper::purged`].
    Purge {
        /// The job.
        job: JobId,
        /// The journal's last sequence.
        up_to: u64,
    },
}

#[derive(Debug, Clone)]
struct Kept {
    job: Job,
    /// When to look at it next, as it stands in `deadlines`.
    deadline: Option<Time>,
    /// An act on it is under way, until its record comes or this time.
    busy_until: Option<Time>,
    check_pause: Duration,
    check_at: Time,
    /// When the hub stored its first record, or the operator's last wish to run it again: its life
    /// counts from here, whatever the clock of who dispatched it says.
    first: Time,
    /// When the hub stored its last record.
    stored: Time,
    /// When the hub stored the record that ended it.
    ended_at: Option<Time>,
    /// When its tickets were removed, after its end.
    cleared_at: Option<Time>,
    /// The machine whose lease decides about its open attempt, as it stands in `running`.
    runs_on: Option<MachineId>,
    runs: Option<overdue::Runs>,
    /// What its journal takes on the hub, as far as it was told ([`Keeper::grew`]).
    bytes: u64,
    /// Attempts of it that were superseded, as their machines have told and its journal does not yet.
    superseded: Vec<Pending>,
}

impl Kept {
    /// When it expires if nobody has started it.
    fn expires_at(&self) -> Time {
        let life = Duration::from_millis(self.job.spec.expires_ms);
        self.first.plus(life)
    }

    /// When the next attempt is due. The writer's clock may be off by years: only how long its
    /// pause is counts, from when the hub stored the record.
    fn backoff_due(&self, until: Time) -> Time {
        let pause = until.since(self.job.changed_at).min(policy::BACKOFF_MAX);
        self.stored.plus(pause)
    }
}

#[derive(Debug, Clone)]
struct LeaseSeen {
    seq: u64,
    at: BootTime,
    record: LeaseRecord,
}

impl LeaseSeen {
    /// Whether an agent holds it, as far as the stream says.
    fn is_held(&self) -> bool {
        matches!(
            self.record,
            LeaseRecord::Agent {
                released: false,
                ..
            }
        )
    }
}

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    /// Since when it hears all that is said, without a hole: silence counts from here.
    hears_since: BootTime,
    /// When it last said whether it hears, and what.
    turned: (BootTime, bool),
    pace: Pace,
    retention: Retention,
    /// The hub's epoch, and since when: what an attempt of an earlier one did is not known.
    epoch: u64,
    jobs: HashMap<JobId, Kept>,
    deadlines: BTreeSet<(Time, JobId)>,
    ended: Ended,
    running: BTreeMap<MachineId, BTreeSet<JobId>>,
    leases: BTreeMap<MachineId, LeaseSeen>,
    taking: BTreeMap<MachineId, BootTime>,
    /// Ended jobs that are kept beyond their time, for the operator has not acknowledged something.
    unacknowledged: BTreeSet<JobId>,
    urgent: Vec<Act>,
    headless: Headless,
    /// The last random draw it was given.
    draw: f64,
}

impl Keeper {
    /// A keeper that starts now and knows nothing yet.
    #[must_use]
    pub fn new(started: BootTime, retention: Retention) -> Self {
        Self {
            hears_since: started,
            turned: (started, true),
            pace: Pace::default(),
            retention,
            epoch: 0,
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            ended: Ended::default(),
            running: BTreeMap::new(),
            leases: BTreeMap::new(),
            taking: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            urgent: Vec::new(),
            headless: Headless::default(),
            draw: 0.0,
        }
    }

    /// The same keeper at another pace than the contract's.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The same at a hub of this epoch.
    #[must_use]
    pub fn in_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// To be told at each turn of the loop, before [`Keeper::due`]: whether the keeper's link is up
    /// and its readers follow the streams. Time in which it could not hear is not silence of the
    /// machines: what it was not told (`hears` is false) and what it slept through (a hole between
    /// two turns) counts as a keeper's start. Whether leases are counted anew.
    pub fn turns(&mut self, boot: BootTime, hears: bool) -> bool {
        let (turned, heard) = std::mem::replace(&mut self.turned, (boot, hears));
        let anew = !hears || !heard || boot.since(turned) > self.pace.lease / HOLE_PART;
        if anew {
            self.hears_since = boot;
        }
        anew
    }

    /// A job as the keeper knows it.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).map(|kept| &kept.job)
    }

    /// How many jobs it knows.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Takes in the next record of the journal in stream order; says whether it counts. `stored` is
    /// the time at which the hub stored it, so that a restarted keeper counts ages as the old one did.
    pub fn record(
        &mut self,
        id: JobId,
        seq: u64,
        time: Time,
        writer: &Writer,
        record: Result<&Record, Void>,
        stored: Time,
    ) -> Applied {
        let applied = match (self.jobs.get_mut(&id), record) {
            (Some(kept), Ok(record)) => {
                let before = kept.job.asked_again;
                let applied = kept.job.apply(seq, time, writer, record);
                if applied == Applied::Changed && kept.job.asked_again != before {
                    kept.first = stored;
                }
                applied
            }
            (Some(kept), Err(void)) => {
                kept.job.skip(seq);
                Applied::Void(void)
            }
            (None, Err(void)) => {
                self.refuse_first(id, seq, writer);
                return Applied::Void(void);
            }
            (None, Ok(record)) => match Job::first(id, seq, time, writer, record) {
                Ok(mut job) => {
                    job.forget_stdin();
                    let kept = Kept {
                        job,
                        deadline: None,
                        busy_until: None,
                        check_pause: TICKET_CHECK_FIRST,
                        check_at: stored.plus(TICKET_CHECK_FIRST),
                        first: stored,
                        stored,
                        ended_at: None,
                        cleared_at: None,
                        runs_on: None,
                        runs: None,
                        bytes: 0,
                        superseded: Vec::new(),
                    };
                    self.jobs.insert(id, kept);
                    self.headless.remove(id);
                    Applied::Changed
                }
                Err(void) => {
                    self.refuse_first(id, seq, writer);
                    return Applied::Void(void);
                }
            },
        };
        if applied != Applied::Duplicate {
            self.touched(id, stored);
        }
        applied
    }

    /// A void record before any that counts. There is nothing to say again over it, and it would
    /// keep the job's own first record out for ever: no machine begins a journal with this, so it
    /// goes. (What operator or keeper wrote may be of a newer contract and stays.)
    fn refuse_first(&mut self, job: JobId, up_to: u64, writer: &Writer) {
        if matches!(writer, Writer::Machine(_)) {
            self.headless.add(job, up_to);
        }
    }

    /// Takes in a lease's next record. What it gives up ([`LeaseRecord::gives_up`]) is due to be
    /// lost.
    pub fn lease(&mut self, record: &LeaseRecord, seq: u64, at: BootTime) {
        let machine = record.machine();
        if self.leases.get(machine).is_some_and(|seen| seen.seq >= seq) {
            return;
        }
        let seen = LeaseSeen {
            seq,
            at,
            record: record.clone(),
        };
        self.leases.insert(machine.clone(), seen);
        self.taking.remove(machine);
        let jobs: Vec<JobId> = self
            .running
            .get(machine)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in jobs {
            self.schedule(id);
        }
    }

    /// The hub's own record is stored on the machine's lease: what ran there is lost. `draw` is a
    /// random number in 0..1.
    pub fn lease_taken(
        &mut self,
        machine: &MachineId,
        seq: u64,
        at: BootTime,
        _now: Time,
        draw: f64,
    ) {
        self.draw = draw;
        let machine = machine.clone();
        self.lease(&LeaseRecord::Hub { machine }, seq, at);
    }

    /// The ticket that `revision` of the job waits by is gone.
    pub fn ticket_gone(&mut self, id: JobId, revision: u64) {
        if let Some(job) = self.job(id)
            && job.last_seq == revision
            && matches!(job.state, JobState::Queued { .. })
        {
            let act = Act::Issue {
                job: id,
                after: revision,
                target: job.target.clone(),
                cause: Cause::Republish,
            };
            self.urgent.push(act);
        }
    }

    /// No ticket of the ended job waits anywhere any more.
    pub fn cleared(&mut self, id: JobId, now: Time) {
        if let Some(kept) = self.jobs.get_mut(&id)
            && kept.ended_at.is_some()
        {
            kept.cleared_at = Some(now);
            kept.busy_until = None;
            self.schedule(id);
        }
    }

    /// The record that makes a freshly published ticket valid, if the job still stands at `after`.
    #[must_use]
    pub fn queued(
        &self,
        id: JobId,
        after: u64,
        ticket: TicketId,
        work_seq: u64,
        cause: Cause,
        now: Time,
    ) -> Option<Record> {
        let job = self.job(id).filter(|job| job.last_seq == after)?;
        let target = job.target.clone();
        job.record(
            now,
            &Writer::Keeper,
            Change::Queued {
                ticket,
                target,
                work_seq,
                cause,
                spec: None,
            },
        )
        .ok()
    }

    /// What is due. Each act is handed out again only after [`ACT_TIMEOUT`] without its record.
    pub fn due(&mut self, now: Time, boot: BootTime) -> Vec<Act> {
        let mut acts = std::mem::take(&mut self.urgent);
        self.due_leases(boot, &mut acts);
        while acts.len() < ACTS_MAX {
            let Some(&(at, id)) = self.deadlines.first() else {
                break;
            };
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            acts.extend(self.due_job(id, now));
            self.schedule(id);
        }
        let room = ACTS_MAX.saturating_sub(acts.len());
        self.headless.due(now, room, &mut acts);
        acts
    }

    /// How long until something is due, at the most; none while nothing ever will be.
    #[must_use]
    pub fn next_due(&self, now: Time, boot: BootTime) -> Option<Duration> {
        if !self.urgent.is_empty() {
            return Some(Duration::ZERO);
        }
        let headless = self.headless.next_due();
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let job = headless.into_iter().chain(deadline).min();
        let job = job.map(|at| at.since(now));
        let lease = self
            .watched()
            .map(|machine| {
                let over = self.lease_heard(machine).plus(self.pace.lease);
                let retry = self
                    .taking
                    .get(machine)
                    .map_or(over, |at| at.plus(ACT_TIMEOUT));
                // A hole is known by the turn that did not come.
                over.max(retry).since(boot).min(self.pace.lease / TURN_PART)
            })
            .min();
        job.into_iter().chain(lease).min()
    }

    /// Machines whose leases can be over: those that hold one, so that another instance may take
    /// it some day, and those that run jobs.
    fn watched(&self) -> impl Iterator<Item = &MachineId> {
        let held = self
            .leases
            .iter()
            .filter(|(_, seen)| seen.is_held())
            .map(|(machine, _)| machine);
        // A lease that the hub has taken already is over once and for all.
        let running = self.running.keys().filter(|machine| {
            !self.leases.get(*machine).is_some_and(|seen| {
                seen.is_held() || matches!(seen.record, LeaseRecord::Hub { .. })
            })
        });
        held.chain(running)
    }

    /// When the machine's lease was last heard of. Counted anew after a start and after a time of
    /// deafness: nobody heard the renewals in between.
    fn lease_heard(&self, machine: &MachineId) -> BootTime {
        self.leases
            .get(machine)
            .map_or(self.hears_since, |seen| seen.at.max(self.hears_since))
    }

    fn due_leases(&mut self, boot: BootTime, acts: &mut Vec<Act>) {
        let over: Vec<MachineId> = self
            .watched()
            .filter(|machine| boot.since(self.lease_heard(machine)) >= self.pace.lease)
            .filter(|machine| {
                self.taking
                    .get(*machine)
                    .is_none_or(|at| boot.since(*at) >= ACT_TIMEOUT)
            })
            .cloned()
            .collect();
        for machine in over {
            let expect = self.leases.get(&machine).map_or(0, |seen| seen.seq);
            self.taking.insert(machine.clone(), boot);
            acts.push(Act::TakeLease { machine, expect });
        }
    }

    /// What the job whose deadline has come wants done. Whatever that is, it is not due again at
    /// once.
    fn due_job(&mut self, id: JobId, now: Time) -> Option<Act> {
        let kept = self.jobs.get(&id)?;
        let job = &kept.job;
        let issue = |cause| Act::Issue {
            job: id,
            after: job.last_seq,
            target: job.target.clone(),
            cause,
        };
        let mut check = None;
        let act = if job.void_on_top {
            append(job, now, Change::Restated {})
        } else if let Some(remark) = kept.remark(self.epoch) {
            append(job, now, remark)
        } else {
            match &job.state {
                JobState::Queued { .. } if job.attempts.is_empty() && kept.expires_at() <= now => {
                    append(job, now, Change::Expired {})
                }
                JobState::Queued { work_seq, .. } => {
                    check = Some((kept.check_pause * 2).min(TICKET_CHECK_MAX));
                    Some(Act::CheckTicket {
                        job: id,
                        revision: job.last_seq,
                        target: job.target.clone(),
                        work_seq: *work_seq,
                    })
                }
                JobState::Backoff { until } if kept.backoff_due(*until) <= now => {
                    Some(issue(Cause::Backoff))
                }
                JobState::Running { .. } if self.given_up(job) => self.lost(job, now),
                JobState::Running { .. } => {
                    let overdue = self.overdue(kept, now);
                    overdue.and_then(|change| append(job, now, change))
                }
                state if state.word().is_terminal() => Some(match kept.cleared_at {
                    None => Act::Clear { job: id },
                    Some(_) => Act::Purge {
                        job: id,
                        up_to: job.last_seq,
                    },
                }),
                _ => None,
            }
        };
        let kept = self.jobs.get_mut(&id)?;
        if let Some(pause) = check {
            kept.check_pause = pause;
            kept.check_at = now.plus(pause);
        } else {
            kept.busy_until = Some(now.plus(ACT_TIMEOUT));
        }
        act
    }

    /// Indexes the job anew after a record of it that was stored at `stored`.
    fn touched(&mut self, id: JobId, stored: Time) {
        let Some(kept) = self.jobs.get_mut(&id) else {
            return;
        };
        kept.busy_until = None;
        kept.check_pause = TICKET_CHECK_FIRST;
        kept.check_at = stored.plus(TICKET_CHECK_FIRST);
        kept.stored = stored;
        kept.cleared_at = None;
        kept.note_run(stored);
        let terminal = kept.job.state.word().is_terminal();
        let was_ended = kept.ended_at;
        kept.ended_at = terminal.then(|| was_ended.unwrap_or(stored));
        let runs_on = match &kept.job.state {
            JobState::Running { open, .. } => Some(open.machine.clone()),
            _ => None,
        };
        let was_on = std::mem::replace(&mut kept.runs_on, runs_on.clone());
        let (ended_at, bytes) = (kept.ended_at, kept.bytes);
        kept.drop_told();
        let was_held = self.unacknowledged.contains(&id);
        let room = was_held || self.unacknowledged.len() < UNACKNOWLEDGED_MAX;
        let holds = room && kept.waits_for_operator();
        if was_ended != ended_at || was_held != holds {
            if let Some(at) = was_ended {
                self.ended.remove(at, id);
            }
            if holds {
                self.unacknowledged.insert(id);
            } else {
                self.unacknowledged.remove(&id);
                if let Some(at) = ended_at {
                    self.ended.insert(at, id, bytes);
                }
            }
        }
        if was_on != runs_on {
            if let Some(machine) = &was_on {
                self.leaves(id, machine);
            }
            if let Some(machine) = runs_on {
                self.running.entry(machine).or_default().insert(id);
            }
        }
        self.schedule(id);
        self.shed_surplus();
    }

    /// Sets the job's deadline from what is known of it.
    fn schedule(&mut self, id: JobId) {
        let Some(kept) = self.jobs.get(&id) else {
            return;
        };
        let job = &kept.job;
        let wanted = if job.void_on_top {
            let pause = VOID_PAUSE.saturating_mul(job.voids.saturating_sub(VOIDS_AT_ONCE));
            Some(kept.stored.plus(pause.min(ACT_TIMEOUT)))
        } else if kept.remark(self.epoch).is_some() {
            Some(kept.stored)
        } else {
            match &job.state {
                JobState::Queued { .. } if job.attempts.is_empty() => {
                    Some(kept.check_at.min(kept.expires_at()))
                }
                JobState::Queued { .. } => Some(kept.check_at),
                JobState::Backoff { until } => Some(kept.backoff_due(*until)),
                JobState::Running { .. } if self.given_up(job) => Some(kept.stored),
                JobState::Running { .. } => kept.overdue_at(),
                state if state.word().is_terminal() => kept.ended_at.map(|at| {
                    let age = if self.ended.surplus(at, id).is_some() {
                        self.retention.age.min(self.pace.purge_age_min)
                    } else if self.unacknowledged.contains(&id) {
                        self.retention.age.max(KEEP_UNACKNOWLEDGED)
                    } else {
                        self.retention.age
                    };
                    match kept.cleared_at {
                        None => at.plus(age.saturating_sub(self.pace.clear_before_purge)),
                        Some(cleared) => {
                            at.plus(age).max(cleared.plus(self.pace.clear_before_purge))
                        }
                    }
                }),
                _ => None,
            }
        };
        // While an act is under way there is nothing to look at.
        let deadline = wanted.map(|at| kept.busy_until.map_or(at, |busy| busy.max(at)));
        self.set_deadline(id, deadline);
    }

    fn set_deadline(&mut self, id: JobId, deadline: Option<Time>) {
        let Some(kept) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut kept.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
    }

    fn leaves(&mut self, id: JobId, machine: &MachineId) {
        if let Some(jobs) = self.running.get_mut(machine) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.running.remove(machine);
            }
        }
    }

    fn unindex(&mut self, id: JobId, kept: &Kept) {
        if let Some(at) = kept.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = kept.ended_at {
            self.ended.remove(at, id);
        }
        if let Some(machine) = &kept.runs_on {
            self.leaves(id, machine);
        }
        self.unacknowledged.remove(&id);
    }
}

fn append(job: &Job, now: Time, change: Change) -> Option<Act> {
    let record = job.record(now, &Writer::Keeper, change).ok()?;
    Some(Act::Append {
        job: job.id,
        record: Box::new(record),
    })
}
