//! What machines tell of attempts that had run though another decision held: the keeper writes it
//! into the job's journal, where it stays until the operator has acknowledged it.

use std::time::Duration;

use super::{Keeper, Kept};
use crate::event::SupersededTold;
use crate::ids::{AttemptId, JobId, MachineId};
use crate::job::{SUPERSEDED_MAX, Superseded, token_epoch};
use crate::outcome::Outcome;
use crate::record::Change;

/// How long an ended job is kept whose superseded attempts nobody has acknowledged.
pub const KEEP_UNACKNOWLEDGED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most jobs that are kept for that beyond their time; others go as all do.
pub const UNACKNOWLEDGED_MAX: usize = 1000;
/// Most of one job that are kept of one machine before its journal names them, and of all machines.
const UNKNOWN_MAX: (usize, usize) = (2, 8);
/// A journal that takes more goes as all do.
const HELD_MAX_BYTES: u64 = 256 * 1024;

/// What was told of an attempt and does not stand in its job's journal yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    attempt: AttemptId,
    machine: MachineId,
    outcome: Outcome,
    told: SupersededTold,
}

impl Keeper {
    /// A machine has told that an attempt of its had ended though another decision held
    /// ([`crate::event::kind::ATTEMPT_SUPERSEDED`]). May come again, and before the records that it
    /// follows from. One that never had a process is nothing to tell of. Whether it may tell of it.
    pub fn superseded(
        &mut self,
        job: JobId,
        attempt: AttemptId,
        machine: &MachineId,
        told: &SupersededTold,
    ) -> bool {
        let Some(outcome) = told.outcome.clone().filter(|_| had_run(told)) else {
            return true;
        };
        let Some(kept) = self.jobs.get_mut(&job) else {
            return true;
        };
        let known = |p: &Pending| p.attempt == attempt && p.machine == *machine;
        let told_of = |t: &Superseded| t.id == attempt && t.machine == *machine;
        if kept.superseded.iter().any(known) || kept.job.superseded.iter().any(told_of) {
            return true;
        }
        if !kept.hears_of(attempt, machine) {
            return false;
        }
        kept.superseded.push(Pending {
            attempt,
            machine: machine.clone(),
            outcome: outcome.clipped(),
            told: SupersededTold {
                outcome: None,
                ..told.clone()
            },
        });
        self.schedule(job);
        true
    }
}

/// Whether there was a process, as far as its machine says. Older agents do not say when it started.
fn had_run(told: &SupersededTold) -> bool {
    let says_all = told.no.is_some();
    match &told.outcome {
        Some(Outcome::Rejected { .. }) | None => false,
        // Its claim came too late to start anything.
        Some(Outcome::Fenced | Outcome::Interrupted | Outcome::Canceled) => {
            !says_all || told.started_at.is_some()
        }
        Some(_) => true,
    }
}

impl Kept {
    /// Whether this machine may tell of this attempt: it had it, or the journal does not know it, or
    /// not yet. Of those, only a few are kept, or one machine could keep others' words out.
    fn hears_of(&self, attempt: AttemptId, machine: &MachineId) -> bool {
        if self.superseded.len() >= SUPERSEDED_MAX + UNKNOWN_MAX.1 {
            return false;
        }
        if let Some(known) = self.job.attempts.iter().find(|known| known.id == attempt) {
            return known.machine == *machine;
        }
        let pending = self.superseded.iter().map(|p| (p.attempt, &p.machine));
        let told = self.job.superseded.iter().map(|t| (t.id, &t.machine));
        let known = |id: AttemptId| self.job.attempts.iter().any(|known| known.id == id);
        let unknown: Vec<&MachineId> = pending
            .chain(told)
            .filter_map(|(id, machine)| (!known(id)).then_some(machine))
            .collect();
        let own = unknown.iter().filter(|of| **of == machine).count();
        own < UNKNOWN_MAX.0 && unknown.len() < UNKNOWN_MAX.1
    }

    /// The remark that can be written now, if there is one. `epoch` is the hub's: an attempt that
    /// the journal does not know can only be of an earlier one.
    pub(super) fn remark(&self, epoch: u64) -> Option<Change> {
        if self.superseded.is_empty() || !self.job.takes_remarks() {
            return None;
        }
        let mut all = self.superseded.iter();
        all.find_map(|pending| pending.remark(self, epoch))
    }

    /// Lets go of what the journal tells by now, and of what it says that another machine had.
    pub(super) fn drop_told(&mut self) {
        let job = &self.job;
        self.superseded.retain(|pending| {
            let told = job.superseded.iter().any(|t| t.id == pending.attempt);
            let mut known = job.attempts.iter().filter(|k| k.id == pending.attempt);
            !told && known.all(|known| known.machine == pending.machine)
        });
    }

    /// Whether it has ended, and is to be kept until the operator has acknowledged what it tells.
    pub(super) fn waits_for_operator(&self) -> bool {
        self.ended_at.is_some() && self.job.unacknowledged() > 0 && self.bytes <= HELD_MAX_BYTES
    }
}

impl Pending {
    fn remark(&self, kept: &Kept, epoch: u64) -> Option<Change> {
        let job = &kept.job;
        if !job.lacks(self.attempt, &self.machine) {
            return None;
        }
        let known = job.attempts.iter().find(|known| known.id == self.attempt);
        let (no, token) = match (known, self.told.no, self.told.token) {
            (Some(known), ..) => (known.no, known.token),
            (None, Some(no), Some(token)) if token_epoch(token) < epoch => (no, token),
            _ => return None,
        };
        Some(Change::Superseded {
            attempt: self.attempt,
            no,
            machine: self.machine.clone(),
            token,
            outcome: self.outcome.clone(),
            output: self.told.output,
            started_at: self.told.started_at,
            ended_at: self.told.ended_at,
        })
    }
}
