//! The clocks of one party: a wall clock that is wrong and jumps, and one that runs on through
//! suspend and drifts.

use fleet_contract::lease::BootTime;
use fleet_contract::time::Time;

use super::bus::{Micros, SECOND};
use super::rng::Rng;

/// 2023, so that clocks can be wrong in both directions.
const WALL: i64 = 1_700_000_000_000_000;

/// What a quartz and a clock daemon that slews make of a second, in millionths.
const USUAL_PPM: u64 = 600;

/// The most that a clock daemon in use (chrony, as it is delivered: one part in twelve) lets a clock
/// run fast or slow while it slews. The lease rule holds up to 7 parts in 83 on both sides at once:
/// 38 s of a slow machine are then as long as 45 s of a fast hub.
pub const MOST_PPM: i64 = 83_333;

#[derive(Debug, Clone)]
pub struct Clock {
    /// How far its wall clock is off.
    pub skew: i64,
    /// By how much its suspend-inclusive clock runs fast, in millionths.
    ppm: i64,
    /// When that clock began.
    born: Micros,
}

impl Clock {
    pub fn new(rng: &mut Rng, slews: bool) -> Self {
        let most = if slews {
            MOST_PPM
        } else {
            i64::try_from(USUAL_PPM).unwrap()
        };
        let ppm = match rng.range(0, 3) {
            0 => most,
            1 => -most,
            _ => i64::try_from(rng.range(0, USUAL_PPM * 2)).unwrap() - most.min(600),
        };
        Self {
            skew: 0,
            ppm,
            born: 0,
        }
    }

    /// The machine starts anew, and this clock with it.
    pub fn reboot(&mut self, now: Micros) {
        self.born = now;
    }

    pub fn jump(&mut self, rng: &mut Rng) {
        let minutes = i64::try_from(rng.range(0, 241)).unwrap() - 120;
        self.skew = minutes * 60 * i64::try_from(SECOND).unwrap();
    }

    fn reading(&self, now: Micros) -> Micros {
        let passed = i128::from(now.saturating_sub(self.born));
        let read = passed * i128::from(1_000_000 + self.ppm) / 1_000_000;
        u64::try_from(read).unwrap()
    }

    pub fn boot(&self, now: Micros) -> BootTime {
        BootTime(self.reading(now) * 1000)
    }

    /// How long it takes in truth until the clock has gone on by `span`.
    pub fn lasts(&self, span: Micros) -> Micros {
        let lasts = i128::from(span) * 1_000_000 / i128::from(1_000_000 + self.ppm);
        u64::try_from(lasts).unwrap() + 1
    }

    pub fn wall(&self, now: Micros) -> Time {
        Time::from_micros(WALL + i64::try_from(now).unwrap() + self.skew)
    }

    /// What counts spans only: a wall clock that was read once.
    pub fn steady(&self, now: Micros) -> Time {
        Time::from_micros(WALL + i64::try_from(self.reading(now)).unwrap())
    }
}
