//! How long the keeper keeps what has ended, and the spans by which it works.

use std::time::Duration;

use super::{CLEAR_BEFORE_PURGE, PURGE_AGE_MIN};
use crate::lease::LEASE;

/// How long ended jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this long after their end.
    pub age: Duration,
    /// At most this many, and those that ended less than [`PURGE_AGE_MIN`] ago.
    pub count: usize,
}

impl Default for Retention {
    /// Seven days, 20,000 jobs.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 24 * 3600),
            count: 20_000,
        }
    }
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
