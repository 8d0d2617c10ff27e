//! What an operator does to jobs: dispatch and cancel. Each act reads what holds, names the
//! sequence it saw, and is refused if the job has moved on.

use std::time::Duration;

use bytes::Bytes;
use fleet_contract::ids::{JobId, Lane, MachineId, TicketId, Writer};
use fleet_contract::job::{Job, JobState, Void, first_record};
use fleet_contract::machine::MachineState;
use fleet_contract::needs::{Near, Needs, Standing};
use fleet_contract::record::{Cause, Change, StateWord};
use fleet_contract::spec::{JobSpec, SpecError, Target};
use fleet_contract::ticket::Ticket;
use serde::Serialize;
use serde_json::json;
use strsim::levenshtein as distance;

use crate::bus::{Bus, BusError, Usage};
use crate::clock;
use crate::registry::Seen;
use crate::subject::{self, stream};

/// Dispatch is refused when a stream it needs is fuller than this, in percent, so that claims,
/// results and re-queues keep room.
pub const REFUSE_AT_PERCENT: u64 = 90;

/// Why a job was not dispatched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DispatchError {
    /// The job itself is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The machine is not in the registry.
    #[error("machine {machine} is not known{}", did_you_mean(.nearest))]
    UnknownMachine {
        /// As given.
        machine: MachineId,
        /// Machines with similar names, nearest first.
        nearest: Vec<MachineId>,
    },
    /// The fleet has no machine at all.
    #[error(
        "no machine can run this: the fleet has no machine yet; start an agent with `fleet agent run`, or queue it anyway with --queue-anyway"
    )]
    NoMachine,
    /// Nobody who is known has what it needs.
    #[error("no machine has what this needs ({needs})")]
    NobodyFits {
        /// What it needs.
        needs: String,
        /// The machines that lack least, nearest first, with how old their word is.
        near: Vec<(Near<MachineId>, Duration)>,
    },
    /// The journal or the queue is nearly full.
    #[error(
        "the hub is nearly full: {stream} holds {bytes} of {max_bytes} bytes; jobs that have ended make room within minutes, so try again, or end some that wait or run: `fleet jobs`, `fleet cancel`"
    )]
    NearlyFull {
        /// Which stream.
        stream: &'static str,
        /// Bytes in it.
        bytes: u64,
        /// Its limit.
        max_bytes: u64,
    },
    /// The hub has something that is worse than being full.
    #[error("the hub takes no jobs now: {0}")]
    Trouble(String),
    /// The same key was used for another job.
    #[error("key {key:?} was already used for another job ({id}): use a new key, or the same job")]
    KeyTaken {
        /// The key.
        key: String,
        /// The job that has it.
        id: JobId,
    },
    /// Nobody knows whether the hub has the ticket.
    #[error("outcome unknown: the hub did not confirm the job; look with `fleet show {0}`")]
    OutcomeUnknown(JobId),
    /// Something else on the bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

fn did_you_mean(names: &[MachineId]) -> String {
    if names.is_empty() {
        return ": see `fleet machines`".to_owned();
    }
    let names: Vec<&str> = names.iter().map(MachineId::as_str).collect();
    format!(": did you mean {}?", names.join(", "))
}

/// A job that is safe with the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    /// The job.
    pub id: JobId,
    /// Whether it was there before: the same key, the same job.
    pub existed: bool,
    /// The last sequence of the journal as far as the dispatcher knows: where to follow it from.
    pub revision: u64,
}

/// How many of the machines that lack least are named.
const NEAR_MAX: usize = 3;

/// How a machine stands to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The machine.
    pub machine: MachineId,
    /// Its state.
    pub state: MachineState,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
    /// How long ago it was measured what it lacks or its jobs hold; else how old its word is. In
    /// milliseconds.
    pub age_ms: u64,
}

/// What presence says about who can run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// Machines that could run it and take work now.
    pub ready: Vec<MachineId>,
    /// Machines that could run it but do not take work now, with their state in words.
    pub away: Vec<(MachineId, MachineState)>,
    /// How every machine stands to it.
    pub candidates: Vec<Candidate>,
}

impl Placement {
    /// Who could run what waits at `target` and needs this.
    #[must_use]
    pub fn of(target: &Target, needs: &Needs, machines: &[Seen]) -> Self {
        let mut placement = Self {
            ready: Vec::new(),
            away: Vec::new(),
            candidates: Vec::with_capacity(machines.len()),
        };
        for seen in machines {
            let state = fleet_contract::machine::state(&seen.presence, seen.age);
            let standing = Standing::of(needs, target, &seen.presence, state, seen.stored);
            let machine = seen.presence.machine.clone();
            if standing.serves() {
                placement.ready.push(machine.clone());
            } else if standing.could() {
                placement.away.push((machine.clone(), state));
            }
            let measured = standing.missing().map_or(seen.stored, |m| m.checked_at);
            let age = seen.age + seen.stored.since(measured);
            placement.candidates.push(Candidate {
                machine,
                state,
                standing,
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            });
        }
        placement
    }

    /// Whether nobody the fleet knows could run it.
    #[must_use]
    pub fn nobody(&self) -> bool {
        self.ready.is_empty() && self.away.is_empty()
    }

    /// The machines that lack least, and how old what is known of them is.
    fn near(&self) -> Vec<(Near<MachineId>, Duration)> {
        let lacking = self.candidates.iter().filter_map(|c| match &c.standing {
            Standing::Lacks { lacks, first } => {
                let near = Near {
                    machine: c.machine.clone(),
                    lacks: *lacks,
                    first: first.clone(),
                };
                Some((near, Duration::from_millis(c.age_ms)))
            }
            _ => None,
        });
        let mut near: Vec<_> = lacking.collect();
        near.sort_by(|(a, _), (b, _)| (a.lacks, &a.machine).cmp(&(b.lacks, &b.machine)));
        near.truncate(NEAR_MAX);
        near
    }
}

/// The machines whose names are nearest to `wanted`, at most three.
fn nearest_machines(wanted: &MachineId, machines: &[Seen]) -> Vec<MachineId> {
    let mut scored: Vec<(usize, &MachineId)> = machines
        .iter()
        .map(|seen| {
            (
                distance(wanted.as_str(), seen.presence.machine.as_str()),
                &seen.presence.machine,
            )
        })
        .filter(|(score, name)| {
            *score <= name.as_str().len().max(wanted.as_str().len()).div_ceil(2)
        })
        .collect();
    scored.sort();
    scored
        .into_iter()
        .take(3)
        .map(|(_, name)| name.clone())
        .collect()
}

/// What was looked up before a dispatch.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Every machine.
    pub machines: Vec<Seen>,
    work: (&'static str, Usage),
    journal: Usage,
    /// Why the hub takes no jobs.
    trouble: Option<String>,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canceled {
    /// The job waited and is canceled.
    Done,
    /// The job runs; its machine was told.
    Requested {
        /// Where it runs.
        machine: MachineId,
    },
    /// The wish was there already.
    AlreadyRequested {
        /// Where it runs.
        machine: MachineId,
    },
    /// It had ended before.
    AlreadyEnded(StateWord),
}

/// Why a job was not canceled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ActError {
    /// No such job.
    #[error("job {0} is not known: see `fleet jobs`")]
    UnknownJob(JobId),
    /// The change is not possible.
    #[error("cannot change job {id}: {void}")]
    Impossible {
        /// The job.
        id: JobId,
        /// Why not.
        void: Void,
    },
    /// It moved on too often while it was tried.
    #[error("job {0} keeps moving: nothing was changed; look with `fleet show {0}`")]
    Moving(JobId),
    /// It does not stand any more where the person saw it.
    #[error(
        "job {id} moved on meanwhile: it is {state}{} now, and nothing was changed",
        .machine.as_ref().map(|machine| format!(" on {machine}")).unwrap_or_default()
    )]
    MovedOn {
        /// The job.
        id: JobId,
        /// Where it stands.
        state: StateWord,
        /// The machine of its open attempt.
        machine: Option<MachineId>,
        /// The last sequence of its journal.
        revision: u64,
    },
    /// Nobody knows whether the hub has the decision.
    #[error("outcome unknown: the hub did not confirm it; look with `fleet show {0}`")]
    OutcomeUnknown(JobId),
    /// Something on the bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Bus {
    /// Looks up what a dispatch to `target` needs to know, in one round trip.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn survey(&self, target: &Target) -> Result<Survey, BusError> {
        let queue = subject::ticket_stream(target);
        // The word is for the epoch in the tickets.
        let ((machines, _), work, journal, word) = tokio::try_join!(
            self.machines(),
            self.usage(queue),
            self.usage(stream::JOB),
            self.hub_word()
        )?;
        Ok(Survey {
            machines,
            work: (queue, work),
            journal,
            trouble: word.and_then(|word| word.refuses_jobs().map(str::to_owned)),
        })
    }

    /// Dispatches a job, once however often it is tried: when this returns, the job survives the loss
    /// of the hub's process and of its power. The caller has made sure of [`Survey::check`].
    ///
    /// # Errors
    /// `OutcomeUnknown` where the hub may or may not have it.
    pub async fn dispatch(
        &self,
        id: JobId,
        key: Option<&str>,
        spec: JobSpec,
    ) -> Result<Dispatched, DispatchError> {
        spec.validate()?;
        if let Some(key) = key
            && let Some(existing) = self.job(id).await?
        {
            return same_job(key, &existing, &spec);
        }
        self.send_job(id, clock::ticket_id(), key, spec).await
    }

    /// Dispatches a job that the hub may have already: of an earlier try with this very ticket, of
    /// which nobody knows how it ended.
    ///
    /// # Errors
    /// As [`Bus::dispatch`].
    pub async fn dispatch_again(
        &self,
        id: JobId,
        ticket: TicketId,
        key: Option<&str>,
        spec: JobSpec,
    ) -> Result<Dispatched, DispatchError> {
        spec.validate()?;
        match (self.job(id).await?, key) {
            (Some(existing), Some(key)) => same_job(key, &existing, &spec),
            (Some(existing), None) => Ok(Dispatched {
                id,
                existed: true,
                revision: existing.last_seq,
            }),
            // A ticket that is there already means nothing once the job has another record, and
            // this one means nothing then either.
            (None, _) => self.send_job(id, ticket, key, spec).await,
        }
    }

    async fn send_job(
        &self,
        id: JobId,
        ticket: TicketId,
        key: Option<&str>,
        spec: JobSpec,
    ) -> Result<Dispatched, DispatchError> {
        let needs = needs_of_lane(&spec)?;
        if let Some(needs) = &needs {
            self.ensure_lane(needs).await?;
        }
        let ticket = Ticket {
            ticket,
            ..self.new_ticket(id, 0, &spec)
        };
        let work_seq = match self.publish_ticket(&ticket, spec.priority).await {
            Ok(seq) => seq,
            Err(BusError::NoAnswer { .. } | BusError::Closed(_)) => {
                return Err(DispatchError::OutcomeUnknown(id));
            }
            Err(error) => return Err(error.into()),
        };
        let change = Change::Queued {
            ticket: ticket.ticket,
            target: spec.target.clone(),
            work_seq,
            cause: Cause::Dispatch,
            spec: Some(Box::new(spec.clone())),
        };
        let now = clock::now();
        // The ticket is safe, and with it the job: whoever claims it writes what is missing. To report
        // a failure from here on would have it sent twice.
        let sent = |revision| {
            Ok(Dispatched {
                id,
                existed: false,
                revision,
            })
        };
        let Ok(record) = first_record(id, now, &Writer::Operator, change) else {
            return sent(0);
        };
        let append = self.append(id, &Writer::Operator, now, &record);
        let (mut appended, ()) = tokio::join!(append, self.look_again(needs.as_ref()));
        if matches!(appended, Err(BusError::NoAnswer { .. })) {
            // The hub may have gone and come back meanwhile: with its record the job is seen by
            // everybody, without it only by whoever gets its ticket.
            appended = self.append(id, &Writer::Operator, now, &record).await;
        }
        match appended {
            Ok(revision) => sent(revision),
            // A machine was faster than this record, or the same key was dispatched at the same time.
            Err(BusError::Moved(_)) => match key {
                None => sent(0),
                // The machine had this very ticket: what is found is what was just sent.
                Some(_) if matches!(self.first_ticket(id).await, Ok(Some(t)) if t == ticket.ticket) => {
                    sent(0)
                }
                Some(key) => match self.job(id).await {
                    Ok(Some(existing)) => same_job(key, &existing, &spec),
                    Ok(None) | Err(_) => sent(0),
                },
            },
            Err(error) => {
                tracing::debug!(%error, %id, "the first record was not written; the ticket was");
                sent(0)
            }
        }
    }

    /// Looks again at the lane where the ticket is by now. Where that cannot be done, the keeper does
    /// it when the ticket has waited for a while.
    async fn look_again(&self, needs: Option<&Needs>) {
        if let Some(needs) = needs
            && let Err(error) = self.confirm_lane(needs).await
        {
            tracing::debug!(%error, "the lane was not looked at again");
        }
    }

    fn new_ticket(&self, job: JobId, after: u64, spec: &JobSpec) -> Ticket {
        Ticket {
            ticket: clock::ticket_id(),
            job,
            after,
            target: spec.target.clone(),
            epoch: self.epoch(),
            spec: Box::new(spec.clone()),
        }
    }

    /// Publishes a ticket for a job that stands at `after`; the ticket and its sequence.
    ///
    /// # Errors
    /// As [`Bus::publish_ticket`].
    pub async fn issue(
        &self,
        job: &Job,
        after: u64,
        target: &Target,
    ) -> Result<(TicketId, u64), BusError> {
        // The lane may be gone since the job was queued first.
        let needs = match needs_of_lane(&job.spec) {
            Ok(needs) if *target == job.spec.target => needs,
            _ => None,
        };
        if let Some(needs) = &needs {
            self.ensure_lane_again(needs).await?;
        }
        let ticket = Ticket {
            target: target.clone(),
            ..self.new_ticket(job.id, after, &job.spec)
        };
        let seq = self.publish_ticket(&ticket, job.spec.priority).await?;
        self.look_again(needs.as_ref()).await;
        Ok((ticket.ticket, seq))
    }

    /// Cancels a job: at once where it waits; where it runs, its machine is told and writes
    /// `canceled` when every process is gone.
    ///
    /// # Errors
    /// `UnknownJob`, or what the bus says.
    pub async fn cancel(&self, id: JobId, by: &str) -> Result<Canceled, ActError> {
        const TRIES: u32 = 8;
        for _ in 0..TRIES {
            let job = self.job(id).await?.ok_or(ActError::UnknownJob(id))?;
            let by = by.to_owned();
            let (change, done, ticket) = match &job.state {
                state if state.word().is_terminal() => {
                    return Ok(Canceled::AlreadyEnded(state.word()));
                }
                JobState::Running {
                    open,
                    cancel_requested: true,
                } => {
                    let machine = open.machine.clone();
                    self.tell_cancel(&machine, id).await?;
                    return Ok(Canceled::AlreadyRequested { machine });
                }
                JobState::Running { open, .. } => {
                    let requested = Canceled::Requested {
                        machine: open.machine.clone(),
                    };
                    (Change::CancelRequested { by }, requested, None)
                }
                JobState::Queued { work_seq, .. } => {
                    (Change::Canceled { by }, Canceled::Done, Some(*work_seq))
                }
                _ => (Change::Canceled { by }, Canceled::Done, None),
            };
            let open = job.state.open().map(|open| open.machine.clone());
            let now = clock::now();
            let record = job
                .record(now, &Writer::Operator, change)
                .map_err(|void| ActError::Impossible { id, void })?;
            match self.append(id, &Writer::Operator, now, &record).await {
                Ok(_) => {}
                Err(BusError::Moved(_)) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(machine) = open {
                self.tell_cancel(&machine, id).await?;
            }
            if let Some(seq) = ticket {
                // A ticket that stays behind is stale: whoever gets it acknowledges it.
                let _ = self.delete(subject::ticket_stream(&job.target), seq).await;
            }
            return Ok(done);
        }
        Err(ActError::Moving(id))
    }

    /// Tells a machine that one of its jobs is to end; the journal already says so, and the machine
    /// reads it again after every reconnect.
    pub(crate) async fn tell_cancel(
        &self,
        machine: &MachineId,
        job: JobId,
    ) -> Result<(), BusError> {
        let body = Bytes::from(json!({ "job": job }).to_string());
        self.tell(&subject::command(machine, subject::verb::CANCEL), body)
            .await?;
        self.flush(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// What the lane requires in which a job waits; none where it waits in [`Lane::any`] or for one
/// machine.
fn needs_of_lane(spec: &JobSpec) -> Result<Option<Needs>, SpecError> {
    match &spec.target {
        Target::Lane(lane) if *lane != Lane::any() => Ok(Some(spec.needs()?)),
        _ => Ok(None),
    }
}

fn same_job(key: &str, existing: &Job, spec: &JobSpec) -> Result<Dispatched, DispatchError> {
    let was = &*existing.spec;
    let same = was.command == spec.command
        && was.shell == spec.shell
        && was.cwd == spec.cwd
        && was.cwd_on == spec.cwd_on
        && was.env == spec.env
        && was.stdin == spec.stdin
        && was.target == spec.target
        && was.needs == spec.needs;
    if same {
        Ok(Dispatched {
            id: existing.id,
            existed: true,
            revision: existing.last_seq,
        })
    } else {
        Err(DispatchError::KeyTaken {
            key: key.to_owned(),
            id: existing.id,
        })
    }
}

impl Survey {
    /// Whether the job may be dispatched: the hub has room, and somebody can run it.
    ///
    /// # Errors
    /// `NearlyFull`, `UnknownMachine`, `NoMachine`, `NobodyFits`; the last three not with
    /// `queue_anyway`.
    pub fn check(&self, spec: &JobSpec, queue_anyway: bool) -> Result<Placement, DispatchError> {
        if let Some(trouble) = &self.trouble {
            return Err(DispatchError::Trouble(trouble.clone()));
        }
        for (stream, usage) in [self.work, (stream::JOB, self.journal)] {
            if usage.over(REFUSE_AT_PERCENT) {
                return Err(DispatchError::NearlyFull {
                    stream,
                    bytes: usage.bytes,
                    max_bytes: usage.max_bytes,
                });
            }
        }
        let placement = self.placement(spec)?;
        if !placement.nobody() || queue_anyway {
            return Ok(placement);
        }
        let known = |machine: &MachineId| {
            let mut all = self.machines.iter();
            all.any(|seen| seen.presence.machine == *machine)
        };
        Err(match &spec.target {
            Target::Pin(machine) if !known(machine) => DispatchError::UnknownMachine {
                machine: machine.clone(),
                nearest: nearest_machines(machine, &self.machines),
            },
            _ if self.machines.is_empty() => DispatchError::NoMachine,
            _ => DispatchError::NobodyFits {
                needs: spec.needs.clone(),
                near: placement.near(),
            },
        })
    }

    /// How every machine stands to a job.
    ///
    /// # Errors
    /// Requirements of a later fleet.
    pub fn placement(&self, spec: &JobSpec) -> Result<Placement, SpecError> {
        let needs = spec.needs()?;
        Ok(Placement::of(&spec.target, &needs, &self.machines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("studio", "studio"), 0);
        assert_eq!(distance("studo", "studio"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
