//! What becomes of a job whose attempt nobody answers for any more.

use super::{Act, Keeper, append};
use crate::damage;
use crate::job::{Job, JobState, token_epoch};
use crate::policy::{self, Situation};
use crate::record::{Change, Next};
use crate::time::Time;

impl Keeper {
    /// Whether the job's open attempt is nobody's any more.
    pub(super) fn given_up(&self, job: &Job) -> bool {
        let (JobState::Running { open, .. }, Some(attempt)) = (&job.state, job.attempt()) else {
            return false;
        };
        self.leases
            .get(&open.machine)
            .is_some_and(|seen| seen.record.gives_up(seen.seq, attempt.lease, open.attempt))
    }

    pub(super) fn lost(&self, job: &Job, now: Time) -> Option<Act> {
        let JobState::Running {
            open,
            cancel_requested,
        } = &job.state
        else {
            return None;
        };
        let machine = &open.machine;
        let taken = self.leases.get(machine).is_some_and(|seen| !seen.is_held());
        let reason = if taken {
            format!("the lease of {machine} is over")
        } else {
            format!("the agent of {machine} was started anew and does not know it")
        };
        // Whatever its policy: it may have ended, and others may have run, in the time that the hub's
        // store has lost.
        let forgotten = job.attempt().is_some_and(|a| a.epoch < self.epoch);
        let no = job.after().attempts;
        let next = policy::next_after_lost_lease(&Situation {
            spec: &job.spec,
            machine,
            attempts: no,
            losses: job.losses,
            cancel_requested: *cancel_requested,
            now,
            draw: self.draw,
        });
        let next = match next {
            _ if forgotten => Next::Ask {
                question: damage::question_of_attempt(machine, no),
            },
            // It was adopted: a later one may have been lost with the journal's end.
            Next::Backoff { .. } if token_epoch(open.token) < self.epoch => Next::Ask {
                question: damage::question_after(machine, no),
            },
            next => next,
        };
        let change = Change::Lost {
            attempt: open.attempt,
            reason,
            next,
        };
        append(job, now, change)
    }
}
