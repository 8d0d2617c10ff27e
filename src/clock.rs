//! The one place where this crate reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_contract::time::Time;

/// Now, by this machine's clock.
pub(crate) fn now() -> Time {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        });
    Time::from_micros(micros)
}
