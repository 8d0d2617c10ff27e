//! A machine that has claimed a job and does not end it: it lives, so that its lease is no sign, but
//! the job's time-out, or the operator's wish, is long over. Nobody may run it again by itself, for
//! the machine may run it still.

use std::time::Duration;

use super::{Keeper, Kept};
use crate::ids::AttemptId;
use crate::job::{Job, JobState};
use crate::record::{Change, Next};
use crate::spec::KILL_GRACE;
use crate::time::Time;

/// How long after the time by which every process of an attempt should be gone its end is waited for.
pub const OVERDUE: Duration = Duration::from_secs(120);

/// Since when an attempt runs and is to end, by when the hub stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    attempt: AttemptId,
    since: Time,
    cancel_since: Option<Time>,
}

impl Kept {
    /// To be told after each record, with when that was stored.
    pub(super) fn note_run(&mut self, stored: Time) {
        let JobState::Running {
            open,
            cancel_requested,
        } = &self.job.state
        else {
            self.runs = None;
            return;
        };
        let known = self.runs.filter(|runs| runs.attempt == open.attempt);
        let mut runs = known.unwrap_or(Runs {
            attempt: open.attempt,
            since: stored,
            cancel_since: None,
        });
        if *cancel_requested {
            runs.cancel_since.get_or_insert(stored);
        }
        self.runs = Some(runs);
    }

    /// When its end is overdue; none while it may run for ever.
    pub(super) fn overdue_at(&self) -> Option<Time> {
        let runs = self.runs?;
        let timeout = self.job.spec.timeout_ms.map(Duration::from_millis);
        let by_timeout = timeout.map(|timeout| runs.since.plus(timeout));
        let first = by_timeout.into_iter().chain(runs.cancel_since).min()?;
        Some(first.plus(KILL_GRACE).plus(OVERDUE))
    }
}

impl Keeper {
    /// What is said of a job whose machine lives and does not end it; none while that is not sure.
    pub(super) fn overdue(&self, kept: &Kept, now: Time) -> Option<Change> {
        let JobState::Running { open, .. } = &kept.job.state else {
            return None;
        };
        let (boot, machine) = (self.turned.0, &open.machine);
        // Whoever is silent has its lease, which decides.
        let lives = boot.since(self.lease_heard(machine)) < self.pace.lease;
        let heard_long = boot.since(self.hears_since) >= self.pace.lease;
        if !lives || !heard_long || kept.overdue_at().is_none_or(|at| at > now) {
            return None;
        }
        Some(change(&kept.job, kept.runs?))
    }
}

fn change(job: &Job, runs: Runs) -> Change {
    let machine = job
        .state
        .open()
        .map_or("its machine", |open| open.machine.as_str());
    let canceled = runs.cancel_since.is_some();
    let after = if canceled {
        "it was asked to cancel it"
    } else {
        "its time-out"
    };
    let reason = format!(
        "{machine} has not ended it {} s after {after}",
        OVERDUE.as_secs()
    );
    let next = if canceled {
        Next::End
    } else {
        Next::Ask {
            question: format!(
                "attempt {}: {reason}, and may run it still: shall it run again?",
                job.after().attempts
            ),
        }
    };
    Change::Lost {
        attempt: runs.attempt,
        reason,
        next,
    }
}
