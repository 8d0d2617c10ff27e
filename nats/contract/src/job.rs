//! A job as its journal tells it: the one fold that agent, keeper, CLI and console share.

mod adopt;
mod ends;
mod resolved;
mod superseded;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, MachineId, TicketId, Writer};
use crate::outcome::{Outcome, OutputCount};
use crate::record::{After, Cause, Change, Next, Record, StateWord};
use crate::spec::{JobSpec, Target};
use crate::time::Time;
use ends::after_attempt;

pub use ends::terminal_word;
pub use resolved::Resolved;
pub use superseded::{SUPERSEDED_MAX, Superseded};

/// Bits of a fencing token that hold the sequence; the epoch is above them.
const EPOCH_SHIFT: u32 = 40;

/// The fencing token of the attempt whose `claimed` has this sequence. One number that only grows,
/// also over a rebuilt hub, so that any guarded resource can compare it.
#[must_use]
pub fn token(epoch: u64, seq: u64) -> u64 {
    (epoch << EPOCH_SHIFT) | (seq & ((1 << EPOCH_SHIFT) - 1))
}

/// The sequence in a fencing token.
#[must_use]
pub fn token_seq(token: u64) -> u64 {
    token & ((1 << EPOCH_SHIFT) - 1)
}

/// The epoch in a fencing token.
#[must_use]
pub fn token_epoch(token: u64) -> u64 {
    token >> EPOCH_SHIFT
}

/// The attempt that may still write an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its machine.
    pub machine: MachineId,
    /// Its fencing token.
    pub token: u64,
}

/// Where a job stands. Each state carries its data; an illegal one cannot be built from a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Waits for a machine.
    Queued {
        /// The ticket that is valid.
        ticket: TicketId,
        /// Its sequence in its stream.
        work_seq: u64,
    },
    /// An attempt runs.
    Running {
        /// It.
        open: Open,
        /// Whether the operator wants it ended.
        cancel_requested: bool,
    },
    /// The next attempt is due at a time.
    Backoff {
        /// When.
        until: Time,
    },
    /// The operator decides. The attempt it is about may still end by itself.
    NeedsHuman {
        /// What to decide.
        question: String,
        /// The attempt nobody has heard of, if that is the question.
        open: Option<Open>,
    },
    /// Ended with exit code 0, or resolved so.
    Succeeded,
    /// Ended otherwise.
    Failed {
        /// The exit code, if it ended by itself.
        exit_code: Option<u8>,
        /// The signal that ended it, if one did.
        signal: Option<u8>,
        /// Why, where neither tells.
        reason: Option<String>,
    },
    /// Ran too long.
    TimedOut,
    /// The operator ended it.
    Canceled,
    /// Outcome unknown.
    Lost {
        /// What is known.
        reason: String,
    },
    /// Never started in time.
    Expired,
    /// Could not be started.
    Rejected {
        /// Why.
        reason: String,
    },
}

impl JobState {
    /// The state's word.
    #[must_use]
    pub fn word(&self) -> StateWord {
        match self {
            Self::Queued { .. } => StateWord::Queued,
            Self::Running { .. } => StateWord::Running,
            Self::Backoff { .. } => StateWord::Backoff,
            Self::NeedsHuman { .. } => StateWord::NeedsHuman,
            Self::Succeeded => StateWord::Succeeded,
            Self::Failed { .. } => StateWord::Failed,
            Self::TimedOut => StateWord::TimedOut,
            Self::Canceled => StateWord::Canceled,
            Self::Lost { .. } => StateWord::Lost,
            Self::Expired => StateWord::Expired,
            Self::Rejected { .. } => StateWord::Rejected,
        }
    }

    /// The attempt that may still write an end.
    #[must_use]
    pub fn open(&self) -> Option<&Open> {
        match self {
            Self::Running { open, .. } => Some(open),
            Self::NeedsHuman { open, .. } => open.as_ref(),
            _ => None,
        }
    }
}

/// One try at a job, as the journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its number, from 1.
    pub no: u32,
    /// Its machine.
    pub machine: MachineId,
    /// Its fencing token.
    pub token: u64,
    /// The term of its machine's lease that it was claimed under, 0 where that is not known.
    pub lease: u64,
    /// The hub's epoch in which its machine last spoke for it: that of its claim, or a later one in
    /// which it was adopted.
    pub epoch: u64,
    /// When it was claimed, by its machine's clock.
    pub claimed_at: Time,
    /// When its process was started, once that is known.
    pub started_at: Option<Time>,
    /// When it ended or was given up.
    pub ended_at: Option<Time>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it wrote.
    pub output: OutputCount,
}

/// Why a record does not count. It stays in the stream, is told as `journal.void` and the keeper
/// says again what holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Void {
    /// It names another previous record than the job has.
    #[error("its previous record is {found}, the job's is {expected}")]
    Prev {
        /// The job's.
        expected: u64,
        /// The record's.
        found: u64,
    },
    /// This writer may not write this.
    #[error("{writer} may not write {kind}")]
    Writer {
        /// Who wrote it.
        writer: Writer,
        /// What it is.
        kind: String,
    },
    /// The change does not lead out of the state.
    #[error("{kind} is not possible while the job is {state}")]
    Transition {
        /// What it is.
        kind: String,
        /// The state.
        state: String,
    },
    /// It says another state after it than the change leads to.
    #[error("it says that the job is {said} after it, but the job is {is}")]
    After {
        /// What it says.
        said: StateWord,
        /// What holds.
        is: StateWord,
    },
    /// A claim of a job that is pinned to another machine.
    #[error("the job is pinned to another machine than {machine}")]
    Pin {
        /// Who claimed it.
        machine: MachineId,
    },
    /// A first record without the job itself.
    #[error("it is the first record and does not say what the job is")]
    NoSpec,
    /// The bytes are no record.
    #[error("{0}")]
    Unreadable(String),
}

/// What became of a record that was offered to the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It counts.
    Changed,
    /// It was known already.
    Duplicate,
    /// It does not count.
    Void(Void),
}

/// A job as its journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for; known from the first record that counts.
    pub spec: Arc<JobSpec>,
    /// Where it stands.
    pub state: JobState,
    /// Where it waits or waited last.
    pub target: Target,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
    /// How many of them were lost.
    pub losses: u32,
    /// Sequence of its last record, void ones too: what the next append expects.
    pub last_seq: u64,
    /// Whether that last record is void, so that what holds must be said again. So is a remark over
    /// an open attempt: an older machine could not read past it.
    pub void_on_top: bool,
    /// Void records so far.
    pub voids: u32,
    /// When its state last changed, by the writer's clock.
    pub changed_at: Time,
    /// Why it is queued, or was last.
    pub cause: Cause,
    /// When the operator last wanted it run again, by their clock.
    pub asked_again: Option<Time>,
    /// That its end is the operator's word.
    pub resolved: Option<Box<Resolved>>,
    /// The epoch of the recovery that put it to the operator, while nothing has happened since.
    pub recovered: Option<u64>,
    /// Attempts that had run though another decision held, in the order in which that was told.
    pub superseded: Vec<Superseded>,
}

impl Job {
    /// The job whose first record this is.
    ///
    /// # Errors
    /// Why the record cannot be a job's first.
    pub fn first(
        id: JobId,
        seq: u64,
        time: Time,
        writer: &Writer,
        record: &Record,
    ) -> Result<Self, Void> {
        if record.prev != 0 {
            return Err(Void::Prev {
                expected: 0,
                found: record.prev,
            });
        }
        let (spec, target) = match &record.change {
            Change::Queued { spec, target, .. } => (spec, Some(target.clone())),
            Change::Claimed { spec, .. } | Change::Adopted { spec, .. } => (spec, None),
            other => {
                return Err(Void::Transition {
                    kind: other.kind().to_owned(),
                    state: "not there yet".to_owned(),
                });
            }
        };
        let spec = Arc::new(*spec.clone().ok_or(Void::NoSpec)?);
        let mut job = Self {
            id,
            target: target.unwrap_or_else(|| spec.target.clone()),
            spec,
            // Replaced by the very step below; a first record leads out of "waits", whatever it is.
            state: JobState::Backoff {
                until: Time::from_micros(0),
            },
            attempts: Vec::new(),
            losses: 0,
            last_seq: 0,
            void_on_top: false,
            voids: 0,
            changed_at: time,
            cause: Cause::Dispatch,
            asked_again: None,
            resolved: None,
            recovered: None,
            superseded: Vec::new(),
        };
        job.check_and_step(seq, time, writer, record)?;
        job.last_seq = seq;
        Ok(job)
    }

    /// Takes in the job's next record in stream order.
    pub fn apply(&mut self, seq: u64, time: Time, writer: &Writer, record: &Record) -> Applied {
        if seq <= self.last_seq {
            return Applied::Duplicate;
        }
        let mut next = self.clone();
        match next.check_and_step(seq, time, writer, record) {
            Ok(()) => {
                next.last_seq = seq;
                next.void_on_top = record.change.is_remark() && next.state.open().is_some();
                *self = next;
                Applied::Changed
            }
            Err(void) => {
                self.skip(seq);
                Applied::Void(void)
            }
        }
    }

    /// Takes in that a record at `seq` does not count.
    pub fn skip(&mut self, seq: u64) {
        if seq > self.last_seq {
            self.last_seq = seq;
            self.void_on_top = true;
            self.voids = self.voids.saturating_add(1);
        }
    }

    fn check_and_step(
        &mut self,
        seq: u64,
        time: Time,
        writer: &Writer,
        record: &Record,
    ) -> Result<(), Void> {
        if record.prev != self.last_seq {
            return Err(Void::Prev {
                expected: self.last_seq,
                found: record.prev,
            });
        }
        self.step(seq, time, writer, &record.change)?;
        let is = self.after();
        if record.after != is {
            return Err(Void::After {
                said: record.after.state,
                is: is.state,
            });
        }
        Ok(())
    }

    /// Makes the change without a record, to see what it would lead to. `seq` may be anything where
    /// only [`Job::after`] is wanted.
    ///
    /// # Errors
    /// Why the change is not possible.
    pub fn step(
        &mut self,
        seq: u64,
        time: Time,
        writer: &Writer,
        change: &Change,
    ) -> Result<(), Void> {
        self.may_write(writer, change)?;
        let before = self.state.word();
        let impossible = || Void::Transition {
            kind: change.kind().to_owned(),
            state: before.to_string(),
        };
        match change {
            Change::Queued {
                ticket,
                target,
                work_seq,
                cause,
                ..
            } => {
                // The keeper only sends on its way what waits already; decisions are the operator's.
                let possible = match self.state {
                    JobState::Running { .. } => false,
                    JobState::Queued { .. } | JobState::Backoff { .. } => true,
                    _ => *writer == Writer::Operator,
                };
                if !possible {
                    return Err(impossible());
                }
                self.target = target.clone();
                self.queued_because(time, writer, *cause);
                self.give_up_open(time);
                self.state = JobState::Queued {
                    ticket: *ticket,
                    work_seq: *work_seq,
                };
            }
            Change::Claimed {
                attempt,
                no,
                epoch,
                lease,
                ..
            } => {
                let Writer::Machine(machine) = writer else {
                    return Err(impossible());
                };
                // Where it waits is said by operator and keeper alone, whatever the claim says.
                if matches!(&self.target, Target::Pin(pinned) if pinned != machine) {
                    return Err(Void::Pin {
                        machine: machine.clone(),
                    });
                }
                if !matches!(
                    self.state,
                    JobState::Queued { .. } | JobState::Backoff { .. }
                ) || *no != self.next_no()
                {
                    return Err(impossible());
                }
                let open = Open {
                    attempt: *attempt,
                    machine: machine.clone(),
                    token: token(*epoch, seq),
                };
                self.attempts.push(Attempt {
                    id: *attempt,
                    no: *no,
                    machine: machine.clone(),
                    token: open.token,
                    lease: *lease,
                    epoch: *epoch,
                    claimed_at: time,
                    started_at: None,
                    ended_at: None,
                    outcome: None,
                    output: OutputCount::default(),
                });
                self.state = JobState::Running {
                    open,
                    cancel_requested: false,
                };
            }
            Change::Ended {
                attempt,
                outcome,
                output,
                started_at,
                ended_at,
                next,
            } => {
                let open = self
                    .state
                    .open()
                    .filter(|o| o.attempt == *attempt)
                    .ok_or_else(impossible)?;
                if *writer != Writer::Machine(open.machine.clone()) {
                    return Err(Void::Writer {
                        writer: writer.clone(),
                        kind: change.kind().to_owned(),
                    });
                }
                if let Some(last) = self.attempts.last_mut() {
                    last.started_at = Some(*started_at);
                    last.ended_at = Some(*ended_at);
                    last.outcome = Some(outcome.clone());
                    last.output = *output;
                }
                // An attempt that was put to the operator as lost and then ends was not lost.
                let was_asked = matches!(self.state, JobState::NeedsHuman { .. });
                if was_asked {
                    self.losses = self.losses.saturating_sub(1);
                }
                if crate::policy::counts_as_lost(outcome) {
                    self.losses += 1;
                }
                self.state = after_attempt(outcome, next);
            }
            Change::CancelRequested { .. } => match &mut self.state {
                JobState::Running {
                    cancel_requested, ..
                } => *cancel_requested = true,
                _ => return Err(impossible()),
            },
            Change::Canceled { .. } => match self.state {
                JobState::Queued { .. }
                | JobState::Backoff { .. }
                | JobState::NeedsHuman { .. } => {
                    self.give_up_open(time);
                    self.state = JobState::Canceled;
                }
                _ => return Err(impossible()),
            },
            Change::Lost {
                attempt,
                reason,
                next,
            } => {
                let JobState::Running {
                    open,
                    cancel_requested,
                } = &self.state
                else {
                    return Err(impossible());
                };
                if open.attempt != *attempt {
                    return Err(impossible());
                }
                let (open, cancel_requested) = (open.clone(), *cancel_requested);
                self.losses += 1;
                self.state = match next {
                    Next::Ask { question } => JobState::NeedsHuman {
                        question: question.clone(),
                        open: Some(open),
                    },
                    Next::Backoff { until } => JobState::Backoff { until: *until },
                    Next::End if cancel_requested => JobState::Canceled,
                    Next::End => JobState::Lost {
                        reason: reason.clone(),
                    },
                };
                if self.state.open().is_none() {
                    self.close_attempt(
                        time,
                        Outcome::Unknown {
                            reason: reason.clone(),
                        },
                    );
                }
            }
            Change::Expired {} => match self.state {
                JobState::Queued { .. } if self.attempts.is_empty() => {
                    self.state = JobState::Expired
                }
                _ => return Err(impossible()),
            },
            Change::Rejected { reason } => match self.state {
                JobState::Queued { .. } => {
                    self.state = JobState::Rejected {
                        reason: reason.clone(),
                    }
                }
                _ => return Err(impossible()),
            },
            Change::Resolved { .. } => self.resolve(time, change)?,
            Change::Restated {} => {
                if !self.void_on_top {
                    return Err(impossible());
                }
                return Ok(());
            }
            Change::Recovered { epoch, question } => {
                let open = match &self.state {
                    JobState::Queued { .. } | JobState::Backoff { .. } => None,
                    JobState::NeedsHuman { open, .. } => open.clone(),
                    _ => return Err(impossible()),
                };
                let question = question.clone();
                self.state = JobState::NeedsHuman { question, open };
                self.recovered = Some(*epoch);
                self.changed_at = time;
                return Ok(());
            }
            Change::Adopted { .. } => self.adopt(seq, time, writer, change)?,
            Change::Superseded { .. } | Change::Acknowledged { .. } => return self.remark(change),
        }
        self.recovered = None;
        self.changed_at = time;
        Ok(())
    }

    fn may_write(&self, writer: &Writer, change: &Change) -> Result<(), Void> {
        let allowed = match change {
            Change::Queued { .. } => matches!(writer, Writer::Operator | Writer::Keeper),
            Change::Claimed { .. } | Change::Ended { .. } | Change::Adopted { .. } => {
                matches!(writer, Writer::Machine(_))
            }
            Change::CancelRequested { .. }
            | Change::Canceled { .. }
            | Change::Resolved { .. }
            | Change::Acknowledged { .. } => *writer == Writer::Operator,
            Change::Lost { .. }
            | Change::Expired {}
            | Change::Rejected { .. }
            | Change::Restated {}
            | Change::Recovered { .. }
            | Change::Superseded { .. } => *writer == Writer::Keeper,
        };
        if allowed {
            Ok(())
        } else {
            Err(Void::Writer {
                writer: writer.clone(),
                kind: change.kind().to_owned(),
            })
        }
    }

    fn give_up_open(&mut self, time: Time) {
        if self.state.open().is_some() {
            self.close_attempt(
                time,
                Outcome::Unknown {
                    reason: "given up by the operator".to_owned(),
                },
            );
        }
    }

    fn close_attempt(&mut self, time: Time, outcome: Outcome) {
        if let Some(last) = self.attempts.last_mut()
            && last.outcome.is_none()
        {
            last.ended_at = Some(time);
            last.outcome = Some(outcome);
        }
    }

    /// Drops the standard input it carries: whoever only watches jobs has no use for megabytes.
    pub fn forget_stdin(&mut self) {
        if self.spec.stdin.is_some() {
            Arc::make_mut(&mut self.spec).stdin = None;
        }
    }

    /// The number of the next attempt.
    #[must_use]
    pub fn next_no(&self) -> u32 {
        self.last_no().saturating_add(1)
    }

    /// The number of the last attempt, 0 before the first. Not how many are known: a recovered
    /// journal may have lost some.
    fn last_no(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.no)
    }

    /// What a record written now says about the state after it.
    #[must_use]
    pub fn after(&self) -> After {
        let open = self.state.open();
        After {
            state: self.state.word(),
            attempt: open.map(|o| o.attempt),
            machine: open.map(|o| o.machine.clone()),
            cancel_requested: matches!(
                self.state,
                JobState::Running {
                    cancel_requested: true,
                    ..
                }
            ),
            attempts: self.last_no(),
            losses: self.losses,
        }
    }

    /// The record that makes this change next.
    ///
    /// # Errors
    /// Why the change is not possible now.
    pub fn record(&self, time: Time, writer: &Writer, change: Change) -> Result<Record, Void> {
        let mut next = self.clone();
        next.step(self.last_seq + 1, time, writer, &change)?;
        Ok(Record {
            prev: self.last_seq,
            change,
            after: next.after(),
        })
    }

    /// The last attempt, if there was one.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }
}

/// The record that makes a job known: its first.
///
/// # Errors
/// Where `change` cannot be a first record.
pub fn first_record(
    id: JobId,
    time: Time,
    writer: &Writer,
    change: Change,
) -> Result<Record, Void> {
    let blank = After {
        state: StateWord::Queued,
        attempt: None,
        machine: None,
        cancel_requested: false,
        attempts: 0,
        losses: 0,
    };
    let mut record = Record {
        prev: 0,
        change,
        after: blank,
    };
    if let (
        Change::Claimed { attempt, no, .. } | Change::Adopted { attempt, no, .. },
        Writer::Machine(machine),
    ) = (&record.change, writer)
    {
        record.after = After {
            state: StateWord::Running,
            attempt: Some(*attempt),
            machine: Some(machine.clone()),
            attempts: *no,
            ..record.after
        };
    }
    Job::first(id, 1, time, writer, &record)?;
    Ok(record)
}
