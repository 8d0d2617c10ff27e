//! What the operator decided about a job that no machine decides about: how it ended, or that it
//! shall run once more.

use super::{Job, JobState, Void};
use crate::ids::Writer;
use crate::record::{Cause, Change, StateWord};
use crate::time::Time;

/// That the operator said how a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Who said so.
    pub by: String,
    /// Why, in words.
    pub notes: Option<String>,
    /// When, by their clock.
    pub at: Time,
}

impl Job {
    /// Takes in how the job ended, by the operator's word.
    pub(super) fn resolve(&mut self, time: Time, change: &Change) -> Result<(), Void> {
        let impossible = || Void::Transition {
            kind: change.kind().to_owned(),
            state: self.state.word().to_string(),
        };
        let Change::Resolved { to, by, notes } = change else {
            return Err(impossible());
        };
        let waits = matches!(
            self.state,
            JobState::Queued { .. } | JobState::Backoff { .. }
        );
        let state = match to {
            _ if waits => return Err(impossible()),
            StateWord::Succeeded => JobState::Succeeded,
            StateWord::Failed => JobState::Failed {
                exit_code: None,
                signal: None,
                reason: Some(reason(notes.as_deref())),
            },
            _ => return Err(impossible()),
        };
        self.give_up_open(time);
        self.state = state;
        self.resolved = Some(Box::new(Resolved {
            by: by.clone(),
            notes: notes.clone(),
            at: time,
        }));
        Ok(())
    }

    /// Takes note of why it waits again: what was decided before does not hold any more, and where a
    /// person wants it run, its time to wait begins anew.
    pub(super) fn queued_because(&mut self, time: Time, writer: &Writer, cause: Cause) {
        self.cause = cause;
        self.resolved = None;
        let again = matches!(cause, Cause::Retry | Cause::Resolve | Cause::Answer);
        if again && *writer == Writer::Operator {
            self.asked_again = Some(time);
        }
    }

    /// When it expires if it has not started by then, by the clock of whoever wanted it run last.
    #[must_use]
    pub fn expires_at(&self) -> Time {
        let life = std::time::Duration::from_millis(self.spec.expires_ms);
        self.asked_again
            .unwrap_or(self.spec.submitted_at)
            .plus(life)
    }
}

fn reason(notes: Option<&str>) -> String {
    match notes {
        Some(notes) => format!("resolved by the operator: {notes}"),
        None => "resolved by the operator".to_owned(),
    }
}
