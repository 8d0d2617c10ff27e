//! What happened in each of the last minutes, by when the hub stored it. Bounded by its span.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Time;

/// How many minutes are kept.
pub const HISTORY_MINUTES: usize = 120;

const MINUTE: Duration = Duration::from_secs(60);

/// What happened in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minute {
    /// Events, those of jobs too.
    pub events: u32,
    /// Jobs that became known.
    pub dispatched: u32,
    /// Jobs that ended, however they did.
    pub ended: u32,
    /// Those of them that failed, timed out, were rejected or expired.
    pub failed: u32,
    /// Those of them that were lost.
    pub lost: u32,
    /// Jobs that began to wait for a person.
    pub asked: u32,
    /// Machines that were told to be lost.
    pub machines_lost: u32,
    /// Machines that became degraded, or for other reasons.
    pub machines_degraded: u32,
}

impl Minute {
    /// Whether something went wrong in it.
    #[must_use]
    pub fn has_problem(&self) -> bool {
        self.failed + self.lost + self.asked + self.machines_lost + self.machines_degraded > 0
    }
}

/// The last minutes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    minutes: BTreeMap<i64, Minute>,
}

impl History {
    /// Counts something that the hub stored at a time.
    pub(super) fn count(&mut self, stored: Time, what: impl FnOnce(&mut Minute)) {
        let minute = number(stored);
        let newest = self.minutes.last_key_value().map_or(minute, |(n, _)| *n);
        let span = i64::try_from(HISTORY_MINUTES).unwrap_or(i64::MAX);
        if minute <= newest - span {
            return;
        }
        what(self.minutes.entry(minute).or_default());
        if minute > newest {
            self.minutes = self.minutes.split_off(&(minute - span + 1));
        }
    }

    /// The last `count` minutes at a time, oldest first, each with when it begins; the last is the
    /// one that goes on. Minutes of which nothing is known are empty.
    pub fn minutes(&self, now: Time, count: usize) -> impl Iterator<Item = (Time, Minute)> {
        let last = number(now);
        let count = i64::try_from(count.min(HISTORY_MINUTES)).unwrap_or(0);
        (last + 1 - count..=last).map(|n| {
            let minute = self.minutes.get(&n).copied().unwrap_or_default();
            (begins(n), minute)
        })
    }

    /// The minutes in which something happened, oldest first.
    pub fn recorded(&self) -> impl DoubleEndedIterator<Item = (Time, &Minute)> {
        self.minutes.iter().map(|(n, minute)| (begins(*n), minute))
    }
}

fn length() -> i64 {
    i64::try_from(MINUTE.as_micros()).unwrap_or(i64::MAX)
}

fn number(at: Time) -> i64 {
    at.as_micros().div_euclid(length())
}

fn begins(minute: i64) -> Time {
    Time::from_micros(minute.saturating_mul(length()))
}
