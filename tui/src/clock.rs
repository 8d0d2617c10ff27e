//! The console's clock: one for the loop and for the source, so that an age is never the difference
//! of two clocks. Views know no clock.

use std::time::Duration;

use fleet_contract::time::Time;
use fleet_nats::clock;

/// Now, by a clock that starts at the wall's time and only goes forward, through suspend too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall: Time,
    boot: fleet_contract::lease::BootTime,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            wall: clock::now(),
            boot: clock::boot_time(),
        }
    }

    /// Now.
    pub(crate) fn now(self) -> Time {
        let passed = clock::boot_time().0.saturating_sub(self.boot.0);
        self.wall.plus(Duration::from_nanos(passed))
    }
}

/// How far a clock is ahead of the hub's, as the last probe found it. Either clock may be set at
/// any time: what was translated before stays as it was, what comes after the next probe is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ahead(i64);

impl Ahead {
    /// What an answer tells that was asked for and came at these times by the own clock, and gave
    /// the hub's time.
    pub(crate) fn found(asked: Time, came: Time, hub: Time) -> Self {
        let between = asked.as_micros().midpoint(came.as_micros());
        Self(between.saturating_sub(hub.as_micros()))
    }

    /// The own clock's time of what the hub stored at this time by its own. Never later than `now`.
    pub(crate) fn here(self, hub: Time, now: Time) -> Time {
        Time::from_micros(hub.as_micros().saturating_add(self.0)).min(now)
    }

    /// In microseconds.
    pub(crate) fn as_micros(self) -> i64 {
        self.0
    }

    /// Of so many microseconds.
    pub(crate) fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(seconds: i64) -> Time {
        Time::from_micros(1_000_000 * (1_800_000_000 + seconds))
    }

    fn hub(seconds: i64, off: i64) -> Time {
        Time::from_micros(at(seconds).as_micros() + off)
    }

    #[test]
    fn what_is_stored_is_as_old_as_it_is_whatever_clock_is_set_in_which_direction() {
        for before in [-HOUR, 0, HOUR] {
            for step in [-HOUR, HOUR] {
                let ahead = Ahead::found(at(0), at(0), hub(0, before));
                assert_eq!(ahead.here(hub(2, before), at(3)), at(2));
                // The hub's clock is set: until the next probe nothing is of the future.
                assert!(ahead.here(hub(4, before + step), at(4)) <= at(4));
                let ahead = Ahead::found(at(5), at(5), hub(5, before + step));
                assert_eq!(ahead.here(hub(6, before + step), at(7)), at(6));
            }
        }
    }

    #[test]
    fn half_of_the_round_trip_is_the_way_there() {
        let ahead = Ahead::found(at(0), at(2), at(1));
        assert_eq!(ahead, Ahead::default());
    }
}
