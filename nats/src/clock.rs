//! The clocks and the dice, in the one place of this crate that may read them.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_contract::ids::{AttemptId, InstanceId, JobId, MessageId, TicketId};
use fleet_contract::lease::BootTime;
use fleet_contract::time::Time;

/// Now, by the wall clock.
#[must_use]
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Now, by the clock that runs on through suspend.
#[must_use]
pub fn boot_time() -> BootTime {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    // On macOS CLOCK_MONOTONIC counts through sleep (Apple's clock_gettime(3)).
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    let t = rustix::time::clock_gettime(id);
    let nanos = i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    BootTime(u64::try_from(nanos).unwrap_or(0))
}

/// A clock that reads as the wall clock did when it was made and goes on with the one that nothing
/// moves: rules that count spans of time go by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    wall: Time,
    boot: BootTime,
    /// The latest time that [`Steady::of_stored`] has given out.
    latest: Time,
}

impl Steady {
    pub(crate) fn new() -> Self {
        Self {
            wall: now(),
            boot: boot_time(),
            latest: Time::from_micros(0),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Time {
        self.wall.plus(boot_time().since(self.boot))
    }

    /// The time of this clock at which something was stored that the wall clock says was stored at
    /// `stored`: just now where it is `fresh`, so that the wall clock is as far off as it is now.
    /// Never later than now, and never earlier than for what was stored before.
    pub(crate) fn of_stored(&mut self, stored: Time, fresh: bool) -> Time {
        let steady = self.now();
        let off = if fresh {
            now().as_micros().saturating_sub(steady.as_micros())
        } else {
            0
        };
        let time = Time::from_micros(stored.as_micros().saturating_sub(off));
        self.latest = time.min(steady).max(self.latest.min(steady));
        self.latest
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        // No system fleet runs on is without a source of randomness; a clock is better than zeros.
        for (byte, clock) in bytes.iter_mut().zip(boot_time().0.to_le_bytes()) {
            *byte = clock;
        }
    }
    bytes
}

/// A random number, all of its bits.
pub(crate) fn random_u32() -> u32 {
    u32::from_le_bytes(random())
}

/// A random number, all of its bits.
pub(crate) fn random_u64() -> u64 {
    u64::from_le_bytes(random())
}

/// A random number in 0..1.
#[must_use]
pub fn draw() -> f64 {
    f64::from(random_u32()) / (f64::from(u32::MAX) + 1.0)
}

/// `span` as it is or up to a half longer, so that many do not come at once.
#[must_use]
pub fn jittered(span: std::time::Duration) -> std::time::Duration {
    span.mul_f64(1.0 + draw() / 2.0)
}

/// A fresh job.
#[must_use]
pub fn job_id() -> JobId {
    JobId::from_random(random())
}

/// A fresh attempt.
#[must_use]
pub fn attempt_id() -> AttemptId {
    AttemptId::from_random(random())
}

/// A fresh ticket.
#[must_use]
pub fn ticket_id() -> TicketId {
    TicketId::from_random(random())
}

/// A fresh message.
#[must_use]
pub fn message_id() -> MessageId {
    MessageId::from_random(random())
}

/// A fresh instance.
#[must_use]
pub fn instance_id() -> InstanceId {
    InstanceId::from_random(random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_counts_neither_from_the_future_nor_from_before_what_came_first() {
        let mut clock = Steady::new();
        let hour = std::time::Duration::from_secs(3600);
        let early = clock.now();
        let ahead = clock.of_stored(early.plus(hour), false);
        assert!(ahead <= clock.now(), "stamped by a clock that was ahead");
        let back = Time::from_micros(early.as_micros() - 3_600_000_000);
        assert!(
            clock.of_stored(back, false) >= ahead,
            "the clock was set back"
        );
    }
}
