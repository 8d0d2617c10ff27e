//! What a job becomes when an attempt of it has ended.

use super::JobState;
use crate::outcome::Outcome;
use crate::record::{Next, StateWord};

pub(super) fn after_attempt(outcome: &Outcome, next: &Next) -> JobState {
    match next {
        Next::Backoff { until } => return JobState::Backoff { until: *until },
        Next::Ask { question } => {
            return JobState::NeedsHuman {
                question: question.clone(),
                open: None,
            };
        }
        Next::End => {}
    }
    let failed = |exit_code, signal, reason| JobState::Failed {
        exit_code,
        signal,
        reason,
    };
    match outcome {
        Outcome::Exited { exit_code: 0 } => JobState::Succeeded,
        Outcome::Exited { exit_code } => failed(Some(*exit_code), None, None),
        Outcome::Signaled { signal } => failed(None, Some(*signal), None),
        Outcome::TimedOut => JobState::TimedOut,
        Outcome::Canceled => JobState::Canceled,
        Outcome::Interrupted => failed(None, None, Some("its agent was stopped".to_owned())),
        Outcome::Fenced => JobState::Lost {
            reason: "its lease ran out".to_owned(),
        },
        Outcome::Rejected { reason, .. } => JobState::Rejected {
            reason: reason.clone(),
        },
        Outcome::Unknown { reason } => JobState::Lost {
            reason: reason.clone(),
        },
    }
}

/// The state a job ends in whose last attempt ended so.
#[must_use]
pub fn terminal_word(outcome: &Outcome) -> StateWord {
    after_attempt(outcome, &Next::End).word()
}
