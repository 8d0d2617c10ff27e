//! What the hub's keeper does when nobody else would: the pure part.
//!
//! It folds the journal, keeps no state that is not in the streams, and each of its acts is a
//! compare-and-swap: a restart, a repeat or a second keeper does no harm. Nothing here waits; the
//! shell asks [`Keeper::next_due`] when to come back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::{JobId, MachineId, TicketId, Writer};
use crate::job::{Applied, Job, JobState, Void};
use crate::lease::{BootTime, LEASE, LeaseRecord};
use crate::policy::{self, Situation};
use crate::record::{Cause, Change, Record};
use crate::spec::Target;
use crate::time::Time;

/// First look for the ticket of a queued job that nobody has claimed.
pub const TICKET_CHECK_FIRST: Duration = Duration::from_secs(5);
/// Longest pause between two looks for the same ticket.
pub const TICKET_CHECK_MAX: Duration = Duration::from_secs(60);
/// How long an act of the keeper may stay without its record before it is tried again.
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most acts handed out at once; the rest is due again at once.
pub const ACTS_MAX: usize = 256;

/// How long ended jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this long after their end.
    pub age: Duration,
    /// At most this many.
    pub count: usize,
}

impl Default for Retention {
    /// Seven days, 20,000 jobs.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 24 * 3600),
            count: 20_000,
        }
    }
}

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
    /// Remove the job's journal up to here, and its log.
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
    /// When the fold saw it end, by the keeper's clock.
    ended_at: Option<Time>,
}

#[derive(Debug, Clone, Copy)]
struct LeaseSeen {
    seq: u64,
    at: BootTime,
}

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    started: BootTime,
    retention: Retention,
    jobs: HashMap<JobId, Kept>,
    deadlines: BTreeSet<(Time, JobId)>,
    ended: BTreeSet<(Time, JobId)>,
    running: BTreeMap<MachineId, BTreeSet<JobId>>,
    leases: BTreeMap<MachineId, LeaseSeen>,
    taking: BTreeMap<MachineId, BootTime>,
    urgent: Vec<Act>,
}

impl Keeper {
    /// A keeper that starts now and knows nothing yet.
    #[must_use]
    pub fn new(started: BootTime, retention: Retention) -> Self {
        Self {
            started,
            retention,
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            ended: BTreeSet::new(),
            running: BTreeMap::new(),
            leases: BTreeMap::new(),
            taking: BTreeMap::new(),
            urgent: Vec::new(),
        }
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
            (Some(kept), Ok(record)) => kept.job.apply(seq, time, writer, record),
            (Some(kept), Err(void)) => {
                kept.job.skip(seq);
                Applied::Void(void)
            }
            // A void record before any that counts: there is nothing to say again.
            (None, Err(void)) => return Applied::Void(void),
            (None, Ok(record)) => match Job::first(id, seq, time, writer, record) {
                Ok(mut job) => {
                    job.forget_stdin();
                    let kept = Kept {
                        job,
                        deadline: None,
                        busy_until: None,
                        check_pause: TICKET_CHECK_FIRST,
                        check_at: stored.plus(TICKET_CHECK_FIRST),
                        ended_at: None,
                    };
                    self.jobs.insert(id, kept);
                    Applied::Changed
                }
                Err(void) => return Applied::Void(void),
            },
        };
        if applied != Applied::Duplicate {
            self.touched(id, stored);
        }
        applied
    }

    /// Takes in a lease's next record.
    pub fn lease(&mut self, record: &LeaseRecord, seq: u64, at: BootTime) {
        let (LeaseRecord::Agent { machine, .. } | LeaseRecord::Hub { machine }) = record;
        let seen = self
            .leases
            .entry(machine.clone())
            .or_insert(LeaseSeen { seq: 0, at });
        if seq > seen.seq {
            *seen = LeaseSeen { seq, at };
            self.taking.remove(machine);
        }
    }

    /// The hub's own record is stored on the machine's lease: what ran there is lost.
    pub fn lease_taken(
        &mut self,
        machine: &MachineId,
        seq: u64,
        at: BootTime,
        now: Time,
        draw: f64,
    ) {
        self.lease(
            &LeaseRecord::Hub {
                machine: machine.clone(),
            },
            seq,
            at,
        );
        let jobs: Vec<JobId> = self
            .running
            .get(machine)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in jobs {
            let Some(job) = self.job(id) else { continue };
            let JobState::Running {
                open,
                cancel_requested,
            } = &job.state
            else {
                continue;
            };
            let next = policy::next_after_lost_lease(&Situation {
                spec: &job.spec,
                machine,
                attempts: job.after().attempts,
                losses: job.losses,
                cancel_requested: *cancel_requested,
                now,
                draw,
            });
            let change = Change::Lost {
                attempt: open.attempt,
                reason: format!("the lease of {machine} is over"),
                next,
            };
            if let Ok(record) = job.record(now, &Writer::Keeper, change) {
                self.urgent.push(Act::Append {
                    job: id,
                    record: Box::new(record),
                });
            }
        }
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

    /// The job's journal was removed.
    pub fn purged(&mut self, id: JobId) {
        if let Some(kept) = self.jobs.remove(&id) {
            self.unindex(id, &kept);
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
            acts.extend(self.due_job(id, now));
            self.touched_after_act(id, now);
        }
        while self.ended.len() > self.retention.count && acts.len() < ACTS_MAX {
            let Some((_, id)) = self.ended.pop_first() else {
                break;
            };
            if let Some(job) = self.job(id) {
                acts.push(Act::Purge {
                    job: id,
                    up_to: job.last_seq,
                });
            }
        }
        acts
    }

    /// How long until something is due, at the most; none while nothing ever will be.
    #[must_use]
    pub fn next_due(&self, now: Time, boot: BootTime) -> Option<Duration> {
        if !self.urgent.is_empty() || self.ended.len() > self.retention.count {
            return Some(Duration::ZERO);
        }
        let job = self.deadlines.first().map(|(at, _)| at.since(now));
        let lease = self
            .running
            .keys()
            .map(|machine| {
                let over = self.lease_seen(machine).at.plus(LEASE);
                let retry = self
                    .taking
                    .get(machine)
                    .map_or(over, |at| at.plus(ACT_TIMEOUT));
                over.max(retry).since(boot)
            })
            .min();
        job.into_iter().chain(lease).min()
    }

    /// Marks the oldest `count` ended jobs to be purged, because the journal nears its limit.
    pub fn purge_oldest(&mut self, count: usize) {
        for _ in 0..count {
            let Some((_, id)) = self.ended.pop_first() else {
                break;
            };
            if let Some(job) = self.job(id) {
                let up_to = job.last_seq;
                self.urgent.push(Act::Purge { job: id, up_to });
            }
        }
    }

    fn lease_seen(&self, machine: &MachineId) -> LeaseSeen {
        let unseen = LeaseSeen {
            seq: 0,
            at: self.started,
        };
        let seen = self.leases.get(machine).copied().unwrap_or(unseen);
        // Counted anew after a start: nobody heard the renewals in between.
        LeaseSeen {
            at: seen.at.max(self.started),
            ..seen
        }
    }

    fn due_leases(&mut self, boot: BootTime, acts: &mut Vec<Act>) {
        for machine in self.running.keys().cloned().collect::<Vec<_>>() {
            let seen = self.lease_seen(&machine);
            let waiting = self
                .taking
                .get(&machine)
                .is_some_and(|at| boot.since(*at) < ACT_TIMEOUT);
            if boot.since(seen.at) >= LEASE && !waiting {
                self.taking.insert(machine.clone(), boot);
                acts.push(Act::TakeLease {
                    machine,
                    expect: seen.seq,
                });
            }
        }
    }

    fn due_job(&mut self, id: JobId, now: Time) -> Option<Act> {
        let kept = self.jobs.get_mut(&id)?;
        if kept.busy_until.is_some_and(|until| until > now) {
            return None;
        }
        let job = &kept.job;
        let append = |change| {
            let record = job.record(now, &Writer::Keeper, change).ok()?;
            Some(Act::Append {
                job: id,
                record: Box::new(record),
            })
        };
        let act = if job.void_on_top {
            append(Change::Restated {})
        } else {
            match &job.state {
                JobState::Queued { .. }
                    if job.attempts.is_empty() && job.spec.expires_at() <= now =>
                {
                    append(Change::Expired {})
                }
                JobState::Queued { work_seq, .. } => {
                    kept.check_pause = (kept.check_pause * 2).min(TICKET_CHECK_MAX);
                    kept.check_at = now.plus(kept.check_pause);
                    return Some(Act::CheckTicket {
                        job: id,
                        revision: job.last_seq,
                        target: job.target.clone(),
                        work_seq: *work_seq,
                    });
                }
                JobState::Backoff { until } if *until <= now => Some(Act::Issue {
                    job: id,
                    after: job.last_seq,
                    target: job.target.clone(),
                    cause: Cause::Backoff,
                }),
                state if state.word().is_terminal() => Some(Act::Purge {
                    job: id,
                    up_to: job.last_seq,
                }),
                _ => None,
            }
        };
        if act.is_some() {
            kept.busy_until = Some(now.plus(ACT_TIMEOUT));
        }
        act
    }

    /// Indexes the job anew after a record of it.
    fn touched(&mut self, id: JobId, now: Time) {
        let Some(kept) = self.jobs.get_mut(&id) else {
            return;
        };
        kept.busy_until = None;
        kept.check_pause = TICKET_CHECK_FIRST;
        kept.check_at = now.plus(TICKET_CHECK_FIRST);
        let terminal = kept.job.state.word().is_terminal();
        if let (Some(at), false) = (kept.ended_at, terminal) {
            self.ended.remove(&(at, id));
            kept.ended_at = None;
        } else if terminal && kept.ended_at.is_none() {
            kept.ended_at = Some(now);
            self.ended.insert((now, id));
        }
        self.running.retain(|_, jobs| {
            jobs.remove(&id);
            !jobs.is_empty()
        });
        if let Some(kept) = self.jobs.get(&id)
            && let JobState::Running { open, .. } = &kept.job.state
        {
            self.running
                .entry(open.machine.clone())
                .or_default()
                .insert(id);
        }
        self.touched_after_act(id, now);
    }

    fn touched_after_act(&mut self, id: JobId, now: Time) {
        let retention = self.retention.age;
        let Some(kept) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(old) = kept.deadline.take() {
            self.deadlines.remove(&(old, id));
        }
        let job = &kept.job;
        let wanted = if job.void_on_top {
            Some(now)
        } else {
            match &job.state {
                JobState::Queued { .. } if job.attempts.is_empty() => {
                    Some(kept.check_at.min(job.spec.expires_at()))
                }
                JobState::Queued { .. } => Some(kept.check_at),
                JobState::Backoff { until } => Some(*until),
                state if state.word().is_terminal() => kept.ended_at.map(|at| at.plus(retention)),
                _ => None,
            }
        };
        // While an act is under way there is nothing to look at.
        kept.deadline = wanted.map(|at| kept.busy_until.map_or(at, |busy| busy.max(at)));
        if let Some(at) = kept.deadline {
            self.deadlines.insert((at, id));
        }
    }

    fn unindex(&mut self, id: JobId, kept: &Kept) {
        if let Some(at) = kept.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = kept.ended_at {
            self.ended.remove(&(at, id));
        }
        if let JobState::Running { open, .. } = &kept.job.state
            && let Some(jobs) = self.running.get_mut(&open.machine)
        {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.running.remove(&open.machine);
            }
        }
    }
}
