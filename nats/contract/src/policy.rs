//! What becomes of a job after an attempt of it ended.

use std::time::Duration;

use crate::ids::MachineId;
use crate::outcome::Outcome;
use crate::record::Next;
use crate::spec::{JobSpec, OnLost};
use crate::time::Time;

/// A job whose attempts were lost this often is put to the operator, whatever its policy.
pub const LOSSES_MAX: u32 = 3;
/// A job that so many attempts could not begin for want of room, lost ones counted, is put to the
/// operator.
pub const NO_ROOM_MAX: u32 = 10;
/// First pause before another attempt of a failed job.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause before another attempt.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// The exit code that stands for a time-out.
const TIMED_OUT: u8 = 124;

/// What the decision depends on beside the outcome.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The job.
    pub spec: &'a JobSpec,
    /// The machine of the attempt.
    pub machine: &'a MachineId,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Attempts lost before this one.
    pub losses: u32,
    /// Whether the operator wants the job ended.
    pub cancel_requested: bool,
    /// Now, by the writer's clock.
    pub now: Time,
    /// A random draw in 0..1, for the pause's jitter.
    pub draw: f64,
}

/// Whether an attempt that ended so counts as lost, and not as a try: nobody knows what it did, or
/// it did nothing, since its machine had no room.
#[must_use]
pub fn counts_as_lost(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Unknown { .. } | Outcome::Fenced | Outcome::Rejected { no_room: true, .. }
    )
}

/// What becomes of the job whose attempt ended with `outcome`.
#[must_use]
pub fn next(outcome: &Outcome, at: &Situation<'_>) -> Next {
    match outcome {
        Outcome::Exited { exit_code: 0 }
        | Outcome::Canceled
        | Outcome::Rejected { no_room: false, .. } => Next::End,
        _ if at.cancel_requested => Next::End,
        Outcome::Rejected { reason, .. } => no_room(at, reason),
        Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::TimedOut
            if !worth_another(outcome, at.spec) =>
        {
            Next::End
        }
        Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::TimedOut => retry_or_end(at),
        Outcome::Interrupted => gone(
            at,
            at.losses,
            "the agent was stopped while it ran and ended it",
        ),
        Outcome::Unknown { reason } => {
            let what = format!("{reason}; its outcome is unknown");
            gone(at, at.losses + 1, &what)
        }
        Outcome::Fenced => gone(
            at,
            at.losses + 1,
            "its lease ran out while it ran, which ended it",
        ),
    }
}

/// What becomes of the job whose machine's lease is over.
#[must_use]
pub fn next_after_lost_lease(at: &Situation<'_>) -> Next {
    if at.cancel_requested && at.spec.on_lost != OnLost::Ask {
        return Next::End;
    }
    gone(
        at,
        at.losses + 1,
        "its lease is over; its outcome is unknown",
    )
}

fn gone(at: &Situation<'_>, losses: u32, what: &str) -> Next {
    let ask = |question: String| Next::Ask { question };
    match at.spec.on_lost {
        OnLost::Fail => Next::End,
        OnLost::Retry if losses >= LOSSES_MAX => ask(format!(
            "attempt {} on {}: {what}; {losses} attempts were lost: run it again?",
            at.attempts, at.machine
        )),
        OnLost::Retry => Next::Backoff { until: at.now },
        OnLost::Ask => ask(format!(
            "attempt {} on {}: {what}: shall it run again?",
            at.attempts, at.machine
        )),
    }
}

/// It did not begin: another machine may have room, or this one later. Whatever its policy is, that
/// is no second run.
fn no_room(at: &Situation<'_>, reason: &str) -> Next {
    let losses = at.losses.saturating_add(1);
    if losses >= NO_ROOM_MAX {
        return Next::Ask {
            question: format!(
                "attempt {} did not begin on {}: {reason}; {losses} attempts did not come to an end: run it again?",
                at.attempts, at.machine
            ),
        };
    }
    backoff(at, losses)
}

/// Whether an attempt that failed so is one of those that the job is to be tried again after.
fn worth_another(outcome: &Outcome, spec: &JobSpec) -> bool {
    let code = match outcome {
        Outcome::Exited { exit_code } => *exit_code,
        Outcome::Signaled { signal } => 128u8.saturating_add(*signal),
        Outcome::TimedOut => TIMED_OUT,
        _ => return false,
    };
    spec.retry_on.is_empty() || spec.retry_on.contains(&code)
}

fn retry_or_end(at: &Situation<'_>) -> Next {
    let done = at.attempts.saturating_sub(at.losses);
    if done > at.spec.retries {
        return Next::End;
    }
    backoff(at, done)
}

/// The pause after so many tries.
fn backoff(at: &Situation<'_>, tries: u32) -> Next {
    let doublings = tries.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX);
    let pause = full.mul_f64(0.5 + at.draw.clamp(0.0, 1.0) / 2.0);
    Next::Backoff {
        until: at.now.plus(pause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Lane;
    use crate::spec::Target;

    fn with<R>(on_lost: OnLost, retries: u32, f: impl FnOnce(Situation<'_>) -> R) -> R {
        let mut spec = JobSpec::new(
            vec!["true".to_owned()],
            Target::Lane(Lane::any()),
            Time::from_micros(0),
            String::new(),
        );
        spec.on_lost = on_lost;
        spec.retries = retries;
        let machine: MachineId = "studio".parse().unwrap();
        f(Situation {
            spec: &spec,
            machine: &machine,
            attempts: 1,
            losses: 0,
            cancel_requested: false,
            now: Time::from_micros(0),
            draw: 1.0,
        })
    }

    #[test]
    fn success_never_runs_again_and_failure_only_while_retries_are_left() {
        let failed = Outcome::Exited { exit_code: 3 };
        with(OnLost::Retry, 5, |at| {
            assert_eq!(next(&Outcome::Exited { exit_code: 0 }, &at), Next::End)
        });
        with(OnLost::Ask, 0, |at| {
            assert_eq!(next(&failed, &at), Next::End)
        });
        with(OnLost::Ask, 1, |at| {
            assert_eq!(
                next(&failed, &at),
                Next::Backoff {
                    until: Time::from_micros(1_000_000)
                }
            );
            let second = Situation { attempts: 2, ..at };
            assert_eq!(next(&failed, &second), Next::End);
            let canceled = Situation {
                cancel_requested: true,
                ..at
            };
            assert_eq!(next(&failed, &canceled), Next::End);
        });
    }

    #[test]
    fn what_did_not_begin_for_want_of_room_begins_again_whatever_the_policy_but_not_for_ever() {
        let full = Outcome::Rejected {
            reason: "no space left".to_owned(),
            no_room: true,
        };
        for on_lost in [OnLost::Ask, OnLost::Fail, OnLost::Retry] {
            with(on_lost, 0, |at| {
                let second = Time::from_micros(1_000_000);
                assert_eq!(next(&full, &at), Next::Backoff { until: second });
                let mut pauses = Vec::new();
                for losses in 0..NO_ROOM_MAX - 1 {
                    let then = Situation { losses, ..at };
                    let Next::Backoff { until } = next(&full, &then) else {
                        panic!("{losses}");
                    };
                    pauses.push(until);
                }
                assert!(pauses.is_sorted() && pauses.last() > pauses.first());
                let last = Situation {
                    losses: NO_ROOM_MAX - 1,
                    ..at
                };
                assert!(matches!(next(&full, &last), Next::Ask { .. }));
                let canceled = Situation {
                    cancel_requested: true,
                    ..at
                };
                assert_eq!(next(&full, &canceled), Next::End);
            });
        }
        assert!(counts_as_lost(&full), "it is no try");
        with(OnLost::Ask, 1, |at| {
            // The one that did not begin, and the first that failed.
            let tried = Situation {
                attempts: 2,
                losses: 1,
                ..at
            };
            let failed = Outcome::Exited { exit_code: 1 };
            assert!(matches!(next(&failed, &tried), Next::Backoff { .. }));
        });
    }

    #[test]
    fn only_the_exit_codes_that_are_named_are_worth_another_attempt() {
        let again = |outcome: Outcome, retry_on: &[u8]| {
            with(OnLost::Ask, 1, |at| {
                let mut spec = at.spec.clone();
                spec.retry_on = retry_on.to_vec();
                let at = Situation { spec: &spec, ..at };
                assert_eq!(
                    matches!(next(&outcome, &at), Next::Backoff { .. }),
                    retry_on.is_empty() || retry_on == [7],
                    "{outcome:?} {retry_on:?}"
                );
            });
        };
        again(Outcome::Exited { exit_code: 7 }, &[]);
        again(Outcome::Exited { exit_code: 7 }, &[7]);
        again(Outcome::Exited { exit_code: 7 }, &[8, 124]);
        again(Outcome::TimedOut, &[8]);
        with(OnLost::Ask, 1, |at| {
            let mut spec = at.spec.clone();
            spec.retry_on = vec![124, 137];
            let at = Situation { spec: &spec, ..at };
            for outcome in [Outcome::TimedOut, Outcome::Signaled { signal: 9 }] {
                assert!(matches!(next(&outcome, &at), Next::Backoff { .. }));
            }
            assert_eq!(next(&Outcome::Exited { exit_code: 0 }, &at), Next::End);
        });
    }

    #[test]
    fn a_lost_attempt_follows_the_policy_and_the_third_asks() {
        let unknown = Outcome::Unknown {
            reason: "gone".to_owned(),
        };
        with(OnLost::Ask, 0, |at| {
            assert!(matches!(next(&unknown, &at), Next::Ask { .. }))
        });
        with(OnLost::Fail, 0, |at| {
            assert_eq!(next(&unknown, &at), Next::End)
        });
        with(OnLost::Retry, 0, |at| {
            assert_eq!(next(&unknown, &at), Next::Backoff { until: at.now });
            let third = Situation { losses: 2, ..at };
            assert!(matches!(next(&unknown, &third), Next::Ask { .. }));
            assert!(matches!(next_after_lost_lease(&third), Next::Ask { .. }));
        });
    }
}
