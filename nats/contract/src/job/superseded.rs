//! Attempts that had run though another decision held: told in the journal by remarks, which change
//! nothing about where the job stands, until the operator has acknowledged them.

use super::{Job, JobState, Void};
use crate::ids::{AttemptId, MachineId};
use crate::outcome::{Outcome, OutputCount};
use crate::record::Change;
use crate::time::Time;

/// Most such attempts of one job that its journal tells of; more stand in the flow alone.
pub const SUPERSEDED_MAX: usize = 16;

/// An attempt that had run though another decision held, and how it had truly ended. That end does
/// not count for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseded {
    /// Its id.
    pub id: AttemptId,
    /// Its number.
    pub no: u32,
    /// Its machine.
    pub machine: MachineId,
    /// Its fencing token.
    pub token: u64,
    /// How it had ended.
    pub outcome: Outcome,
    /// What it wrote.
    pub output: OutputCount,
    /// When its process was started, by its machine's clock.
    pub started_at: Option<Time>,
    /// When every process of it was gone, by its machine's clock.
    pub ended_at: Option<Time>,
    /// Who has acknowledged it.
    pub acknowledged_by: Option<String>,
}

impl Job {
    /// Takes in a remark: where the job stands, and since when, stays as it is.
    ///
    /// What waits for a machine takes none: its ticket is valid only while `queued` is the last
    /// record. Nor does a job that a recovery asks about, whose machine looks for that very record.
    pub(super) fn remark(&mut self, change: &Change) -> Result<(), Void> {
        let impossible = || Void::Transition {
            kind: change.kind().to_owned(),
            state: self.state.word().to_string(),
        };
        if !self.takes_remarks() {
            return Err(impossible());
        }
        match change {
            Change::Superseded {
                attempt,
                no,
                machine,
                token,
                outcome,
                output,
                started_at,
                ended_at,
            } => {
                if !self.lacks(*attempt, machine) {
                    return Err(impossible());
                }
                self.superseded.push(Superseded {
                    id: *attempt,
                    no: *no,
                    machine: machine.clone(),
                    token: *token,
                    outcome: outcome.clone(),
                    output: *output,
                    started_at: *started_at,
                    ended_at: *ended_at,
                    acknowledged_by: None,
                });
            }
            Change::Acknowledged { by } if self.unacknowledged() > 0 => {
                for told in &mut self.superseded {
                    told.acknowledged_by.get_or_insert_with(|| by.clone());
                }
            }
            _ => return Err(impossible()),
        }
        Ok(())
    }

    /// Whether a remark may be written now.
    #[must_use]
    pub fn takes_remarks(&self) -> bool {
        let waits = matches!(self.state, JobState::Queued { .. });
        !waits && self.recovered.is_none() && self.last_seq > 0
    }

    /// Whether the journal could tell of this attempt that it was superseded: it does not yet, the
    /// attempt is not open, and if it is known it is this machine's.
    #[must_use]
    pub fn lacks(&self, attempt: AttemptId, machine: &MachineId) -> bool {
        let open = self.state.open().is_some_and(|o| o.attempt == attempt);
        let told = self.superseded.iter().any(|told| told.id == attempt);
        let known = self.attempts.iter().find(|known| known.id == attempt);
        let other = known.is_some_and(|known| known.machine != *machine);
        !open && !told && !other && self.superseded.len() < SUPERSEDED_MAX
    }

    /// How many superseded attempts nobody has acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        let told = self.superseded.iter();
        told.filter(|told| told.acknowledged_by.is_none()).count()
    }

    /// Whether more than one attempt had a process, as far as is known: superseded ones and others.
    #[must_use]
    pub fn two_ran(&self) -> bool {
        let ran = |outcome: Option<&Outcome>| !matches!(outcome, Some(Outcome::Rejected { .. }));
        self.superseded.iter().any(|told| {
            let mut others = self.attempts.iter().filter(|other| other.id != told.id);
            others.any(|other| ran(other.outcome.as_ref()))
        })
    }
}
