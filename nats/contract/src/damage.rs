//! Hub damage: whether the store still holds what it once held, and what follows for the jobs. Pure:
//! what was written down and what is there are arguments.
//!
//! Sequences are tokens, so that a store that went back in time would give some of them out twice.
//! What shows it: a stream that is missing or was made anew, or one that ends before what the hub
//! itself or an agent saw stored in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{MachineId, Writer};
use crate::job::{Job, JobState};
use crate::lease::Mark;
use crate::record::{Change, Next, Record};
use crate::time::Time;

/// A clock that moved by this many seconds more or less than the time that passed has jumped.
pub const CLOCK_JUMP_SECS: u64 = 30;

/// What was written down of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The server's creation time of the stream, verbatim.
    pub created: String,
    /// Highest sequence known to have been stored.
    pub last_seq: u64,
}

/// What is there of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The server's creation time of the stream, verbatim.
    pub created: String,
    /// Its last sequence.
    pub last_seq: u64,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "damage")]
pub enum Damage {
    /// It is not there.
    Missing {
        /// What it held.
        recorded: u64,
    },
    /// It is another one than before.
    Recreated {
        /// What the earlier one held.
        recorded: u64,
        /// What this one holds.
        found: u64,
    },
    /// It ends before what was stored in it.
    Truncated {
        /// What it held.
        recorded: u64,
        /// What it holds.
        found: u64,
    },
    /// It ends before what an agent saw stored in it.
    Behind {
        /// Whose agent.
        machine: MachineId,
        /// What it saw.
        seen: u64,
        /// What the stream holds.
        found: u64,
    },
    /// Somebody put back an earlier copy.
    Restored {
        /// When the copy was made.
        taken: Time,
    },
}

impl Damage {
    /// The highest sequence that is known to have been stored, where it is known.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        match self {
            Self::Missing { recorded }
            | Self::Recreated { recorded, .. }
            | Self::Truncated { recorded, .. } => *recorded,
            Self::Behind { seen, .. } => *seen,
            Self::Restored { .. } => 0,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { recorded } => write!(f, "is missing; it held up to {recorded}"),
            Self::Recreated { recorded, found } => write!(
                f,
                "was made anew and holds up to {found}; the one before held up to {recorded}"
            ),
            Self::Truncated { recorded, found } => {
                write!(f, "ends at {found}; it held up to {recorded}")
            }
            Self::Behind {
                machine,
                seen,
                found,
            } => write!(f, "ends at {found}; {machine} has seen {seen} in it"),
            Self::Restored { taken } => write!(f, "was restored from a backup of {taken}"),
        }
    }
}

/// What is wrong, by stream; empty where the store holds all that was written down. A stream that
/// nothing was written down of is new.
#[must_use]
pub fn examine(
    recorded: &BTreeMap<String, Recorded>,
    found: &BTreeMap<String, Found>,
) -> BTreeMap<String, Damage> {
    let mut damaged = BTreeMap::new();
    for (stream, was) in recorded {
        let recorded = was.last_seq;
        let damage = match found.get(stream) {
            None => Damage::Missing { recorded },
            Some(is) if is.created != was.created => Damage::Recreated {
                recorded,
                found: is.last_seq,
            },
            Some(is) if is.last_seq < recorded => Damage::Truncated {
                recorded,
                found: is.last_seq,
            },
            Some(_) => continue,
        };
        damaged.insert(stream.clone(), damage);
    }
    damaged
}

/// Whether the journal, at `last_seq` in `epoch`, has lost what an agent has seen. What was seen in
/// an earlier epoch is known to be lost; a later one is another hub's.
#[must_use]
pub fn behind(epoch: u64, last_seq: u64, seen: Mark) -> bool {
    seen.epoch == epoch && seen.seq > last_seq
}

/// What the operator is asked about a job that a recovery puts before them. `since` is what the
/// store is as of.
#[must_use]
pub fn question(since: &str, before: Option<&str>) -> String {
    let asked = format!(
        "hub restored from {since}: what happened to this job after that is not known; shall it run (again)?"
    );
    match before {
        Some(before) if !before.starts_with("hub restored from") => {
            format!("{asked} Before: {before}")
        }
        _ => asked,
    }
}

/// What the operator is asked about an attempt that no machine answers for after a recovery.
#[must_use]
pub fn question_of_attempt(machine: &MachineId, attempt: u32) -> String {
    format!(
        "hub restored from an earlier time: {machine} does not report attempt {attempt}, which may have ended since: shall it run again?"
    )
}

/// What the operator is asked where an attempt from before a recovery did not succeed.
#[must_use]
pub fn question_after(machine: &MachineId, attempt: u32) -> String {
    format!(
        "hub restored from an earlier time: attempt {attempt} on {machine} was from before that, and whether a later one has run is not known; shall it run again?"
    )
}

/// What the operator is asked about a job that only a ticket from before a recovery knows.
#[must_use]
pub fn question_of_ticket() -> String {
    "hub restored from an earlier time: this job was dispatched before that, and whether it has run is not known; shall it run (again)?".to_owned()
}

/// What the keeper appends for a job that was not ended when the store went back to `since`. None
/// for a job that has ended, that was put to the operator in this epoch already, or that runs: that
/// is decided by its machine, which reports the attempt or does not.
#[must_use]
pub fn recovery(job: &Job, epoch: u64, since: &str, now: Time) -> Option<Record> {
    if job.recovered.is_some_and(|r| r >= epoch) {
        return None;
    }
    let before = match &job.state {
        JobState::NeedsHuman { question, .. } => Some(question.as_str()),
        JobState::Queued { .. } | JobState::Backoff { .. } => None,
        _ => return None,
    };
    let question = question(since, before);
    let change = Change::Recovered { epoch, question };
    job.record(now, &Writer::Keeper, change).ok()
}

/// What the keeper appends for a job of whose journal the record at `lost` is gone: nobody knows
/// what it said. None for a job that has ended.
#[must_use]
pub fn over_a_hole(job: &Job, lost: u64, epoch: u64, now: Time) -> Option<Record> {
    let what = format!("record {lost} of its journal is lost");
    let change = match &job.state {
        state if state.word().is_terminal() => return None,
        JobState::Running { open, .. } => Change::Lost {
            attempt: open.attempt,
            reason: what.clone(),
            next: Next::Ask {
                question: format!("{what}: what became of it is not known; shall it run again?"),
            },
        },
        _ => Change::Recovered {
            epoch,
            question: format!("{what}: what became of it is not known; shall it run (again)?"),
        },
    };
    job.record(now, &Writer::Keeper, change).ok()
}

/// How far a wall clock moved beyond the time that passed, in seconds, where that is a jump.
#[must_use]
pub fn clock_jump(wall_micros: i64, passed_micros: i64) -> Option<i64> {
    let moved = wall_micros.saturating_sub(passed_micros) / 1_000_000;
    (moved.unsigned_abs() >= CLOCK_JUMP_SECS).then_some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(of: &[(&str, &str, u64)]) -> BTreeMap<String, Recorded> {
        let one = |(name, created, last_seq): &(&str, &str, u64)| {
            let created = (*created).to_owned();
            let last_seq = *last_seq;
            ((*name).to_owned(), Recorded { created, last_seq })
        };
        of.iter().map(one).collect()
    }

    fn found(of: &[(&str, &str, u64)]) -> BTreeMap<String, Found> {
        let one = |(name, created, last_seq): &(&str, &str, u64)| {
            let created = (*created).to_owned();
            let last_seq = *last_seq;
            ((*name).to_owned(), Found { created, last_seq })
        };
        of.iter().map(one).collect()
    }

    #[test]
    fn a_store_that_holds_what_it_held_is_intact() {
        let was = recorded(&[("JOB", "a", 10), ("LOG", "b", 5)]);
        let is = found(&[("JOB", "a", 10), ("LOG", "b", 9), ("NEW", "c", 1)]);
        assert!(examine(&was, &is).is_empty());
        assert!(examine(&BTreeMap::new(), &is).is_empty(), "a first start");
    }

    #[test]
    fn what_is_missing_made_anew_or_shorter_is_damage() {
        let was = recorded(&[
            ("JOB", "a", 10),
            ("LOG", "b", 5),
            ("PIN", "c", 0),
            ("PRES", "d", 7),
        ]);
        let is = found(&[("JOB", "a", 9), ("LOG", "x", 50), ("PRES", "d", 7)]);
        let damaged = examine(&was, &is);
        assert_eq!(
            damaged["JOB"],
            Damage::Truncated {
                recorded: 10,
                found: 9
            }
        );
        assert!(matches!(
            damaged["LOG"],
            Damage::Recreated { found: 50, .. }
        ));
        assert_eq!(damaged["PIN"], Damage::Missing { recorded: 0 });
        assert_eq!(damaged.len(), 3);
    }

    #[test]
    fn an_agent_speaks_for_its_own_epoch_only() {
        let seen = Mark { epoch: 1, seq: 40 };
        assert!(behind(1, 39, seen));
        assert!(!behind(1, 40, seen));
        assert!(!behind(2, 3, seen), "known to be lost");
        assert!(!behind(0, 3, seen), "another hub's");
    }

    #[test]
    fn only_a_jump_counts() {
        const HOUR: i64 = 3600 * 1_000_000;
        assert_eq!(clock_jump(HOUR + 1_000_000, 1_000_000), Some(3600));
        assert_eq!(clock_jump(1_000_000 - HOUR, 1_000_000), Some(-3600));
        assert_eq!(clock_jump(HOUR, HOUR), None, "time passed, asleep or not");
        assert_eq!(clock_jump(5_000_000, 1_000_000), None, "slewed");
    }
}
