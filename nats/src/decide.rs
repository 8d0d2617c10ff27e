//! What the operator decides about jobs that have ended or wait for a person: another attempt, or
//! how it ended. Each decision names the revision that the person saw and is refused if the job has
//! moved on since, so that of two that decide at once one is told.

use fleet_contract::ids::{JobId, MachineId, Writer};
use fleet_contract::job::{Job, JobState};
use fleet_contract::record::{Cause, Change, Record, StateWord};
use fleet_contract::spec::Target;

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::journal::Entry;
use crate::operate::{ActError, DispatchError, REFUSE_AT_PERCENT};
use crate::subject::{self, stream};
use crate::tail::{self, From};

/// A decision that is safe with the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The sequence of its record.
    pub revision: u64,
    /// The machine of an attempt that was open until then: it ends what of it still runs.
    pub given_up: Option<MachineId>,
}

impl Bus {
    /// Whether the hub has room for one more ticket for `target` and its job's records.
    ///
    /// # Errors
    /// `NearlyFull`, or what the bus says.
    pub async fn has_room(&self, target: &Target) -> Result<(), DispatchError> {
        let queue = subject::ticket_stream(target);
        let (work, journal) = tokio::try_join!(self.usage(queue), self.usage(stream::JOB))?;
        for (stream, usage) in [(queue, work), (stream::JOB, journal)] {
            if usage.over(REFUSE_AT_PERCENT) {
                return Err(DispatchError::NearlyFull {
                    stream,
                    bytes: usage.bytes,
                    max_bytes: usage.max_bytes,
                });
            }
        }
        Ok(())
    }

    /// Has a job run once more that does not run: one that ended, waits for a person or for its next
    /// attempt. An attempt that was still open is given up.
    ///
    /// # Errors
    /// `MovedOn` where the job does not stand at `revision` any more, `OutcomeUnknown`.
    pub async fn run_again(
        &self,
        id: JobId,
        revision: u64,
        target: Option<Target>,
        cause: Cause,
    ) -> Result<Decided, ActError> {
        // For the epoch in the ticket.
        self.hub_word().await?;
        let job = self.standing_at(id, revision).await?;
        if matches!(job.state, JobState::Running { .. }) {
            return Err(moved_on(&job));
        }
        let target = target.unwrap_or_else(|| job.target.clone());
        let (ticket, work_seq) = self.issue(&job, revision, &target).await?;
        let change = Change::Queued {
            ticket,
            target: target.clone(),
            work_seq,
            cause,
            spec: None,
        };
        let decided = self.decide(&job, change).await;
        let own = subject::ticket_stream(&target);
        match (&decided, &job.state) {
            // It waited by another ticket: whoever gets that finds out and acknowledges it.
            (Ok(_), JobState::Queued { work_seq, .. }) => {
                let old = subject::ticket_stream(&job.target);
                let _ = self.delete(old, *work_seq).await;
            }
            (Err(ActError::MovedOn { .. }), _) => drop(self.delete(own, work_seq).await),
            _ => {}
        }
        decided
    }

    /// Ends a job that does not run, by the operator's word: `to` is `succeeded` or `failed`.
    ///
    /// # Errors
    /// As [`Bus::run_again`].
    pub async fn resolve(
        &self,
        id: JobId,
        revision: u64,
        to: StateWord,
        by: &str,
        notes: Option<&str>,
    ) -> Result<Decided, ActError> {
        let job = self.standing_at(id, revision).await?;
        if matches!(job.state, JobState::Running { .. }) {
            return Err(moved_on(&job));
        }
        let change = Change::Resolved {
            to,
            by: by.to_owned(),
            notes: notes.map(str::to_owned),
        };
        self.decide(&job, change).await
    }

    async fn standing_at(&self, id: JobId, revision: u64) -> Result<Job, ActError> {
        let job = self.job(id).await?.ok_or(ActError::UnknownJob(id))?;
        match job.last_seq == revision {
            true => Ok(job),
            false => Err(moved_on(&job)),
        }
    }

    /// Appends the operator's record over what was seen. An answer that was lost is no refusal: the
    /// journal says whether the record is in it.
    async fn decide(&self, job: &Job, change: Change) -> Result<Decided, ActError> {
        let (id, now) = (job.id, clock::now());
        let record = job
            .record(now, &Writer::Operator, change)
            .map_err(|void| ActError::Impossible { id, void })?;
        let open = job.state.open().map(|open| open.machine.clone());
        let mut appended = self.append(id, &Writer::Operator, now, &record).await;
        let lost = matches!(
            appended,
            Err(BusError::NoAnswer { .. } | BusError::Closed(_))
        );
        if lost {
            appended = self.append(id, &Writer::Operator, now, &record).await;
        }
        let revision = match appended {
            Ok(revision) => revision,
            Err(BusError::Moved(_)) => match self.finds(id, &record).await? {
                Some(revision) => revision,
                None => {
                    let now = self.job(id).await?.ok_or(ActError::UnknownJob(id))?;
                    return Err(moved_on(&now));
                }
            },
            Err(BusError::NoAnswer { .. } | BusError::Closed(_)) => {
                return Err(ActError::OutcomeUnknown(id));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(machine) = &open {
            // It reads the journal again after every reconnect, too.
            let _ = self.tell_cancel(machine, id).await;
        }
        Ok(Decided {
            revision,
            given_up: open,
        })
    }

    /// Where in the journal this very record of the operator's is, or the claim of a machine that was
    /// faster with its ticket than the record was: from a job that waits it may.
    async fn finds(&self, id: JobId, record: &Record) -> Result<Option<u64>, BusError> {
        let own = match &record.change {
            Change::Queued { ticket, .. } => Some(*ticket),
            _ => None,
        };
        let filter = [subject::job_all(id)];
        let all = tail::read_all(self, stream::JOB, &filter, From::First).await?;
        let mut entries = all.iter().filter_map(Entry::of);
        Ok(entries.find_map(|entry| {
            let (_, found) = entry.record.ok()?;
            let claimed = match (&found.change, own) {
                (Change::Claimed { ticket, .. }, Some(own)) => *ticket == own,
                _ => false,
            };
            let written = entry.writer == Writer::Operator && found == *record;
            (claimed || written).then_some(entry.seq)
        }))
    }
}

fn moved_on(job: &Job) -> ActError {
    ActError::MovedOn {
        id: job.id,
        state: job.state.word(),
        machine: job.state.open().map(|open| open.machine.clone()),
        revision: job.last_seq,
    }
}
