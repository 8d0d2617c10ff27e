//! How long the keeper keeps what has ended, and the spans by which it works.

use std::fmt;
use std::time::Duration;

use super::{CLEAR_BEFORE_PURGE, PURGE_AGE_MIN};
use crate::lease::LEASE;
use crate::time::Time;

/// How long ended jobs are kept: those that ended less than [`PURGE_AGE_MIN`] ago in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this long after their end.
    pub age: Duration,
    /// At most this many.
    pub count: usize,
    /// At most this many bytes of journal; none: as long as the journal has room
    /// ([`super::MAKE_ROOM_ABOVE_PERCENT`]).
    pub bytes: Option<u64>,
}

impl Default for Retention {
    /// Seven days, 20,000 jobs.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 24 * 3600),
            count: 20_000,
            bytes: None,
        }
    }
}

/// Why an ended job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It was kept as long as ended jobs are.
    Age,
    /// It was the oldest of more than are kept.
    Count,
    /// It was the oldest, and ended jobs took more than is kept of them.
    Bytes,
    /// It was the oldest, and the journal was nearly full.
    Room,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "it was kept as long as ended jobs are",
            Self::Count => "more jobs had ended than are kept",
            Self::Bytes => "ended jobs took more bytes than are kept of them",
            Self::Room => "the journal was nearly full",
        })
    }
}

/// A job that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Why it went.
    pub why: Why,
    /// When it had ended, by the hub's clock.
    pub ended_at: Option<Time>,
    /// What its journal took.
    pub bytes: u64,
}

/// The spans that a test cannot wait for; everybody else takes the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// In place of [`LEASE`].
    pub lease: Duration,
    /// In place of [`PURGE_AGE_MIN`].
    pub purge_age_min: Duration,
    /// In place of [`CLEAR_BEFORE_PURGE`].
    pub clear_before_purge: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: LEASE,
            purge_age_min: PURGE_AGE_MIN,
            clear_before_purge: CLEAR_BEFORE_PURGE,
        }
    }
}
