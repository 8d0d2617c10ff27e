//! What is known of the bus itself: what the hub said, how long round trips took, what was lost on
//! the way here. A part of the model; it knows nothing of the fleet.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_contract::hub::HubStats;
use fleet_contract::projection::Fact;
use fleet_contract::time::Time;

use crate::model::Reader;

/// Round trips that are kept: ten minutes of one each second.
const TRIPS: usize = 600;

/// What the bus tells about itself.
#[derive(Debug, Clone)]
pub(crate) enum BusMsg {
    /// What machines counted; so many summaries were passed over for later ones.
    Stats { facts: Vec<Fact>, superseded: u64 },
    /// What the hub says, or why it says nothing.
    Hub(Result<Box<HubStats>, String>),
    /// Messages that the client library dropped so far.
    Drops(u64),
    /// Memory that this console uses, in bytes.
    Memory(u64),
}

/// What is known of the bus.
#[derive(Debug, Clone, Default)]
pub(crate) struct BusHealth {
    /// Since when this console counts.
    since: Option<Time>,
    answer: Option<(Time, HubStats)>,
    silent: Option<(Time, String)>,
    trips: VecDeque<(Time, u32)>,
    /// How often the link was made.
    pub(crate) links: u32,
    /// How often it went away.
    pub(crate) outages: u32,
    /// How long it was away in all, an outage that goes on not counted.
    pub(crate) away: Duration,
    /// Messages of each reader that cannot be read.
    pub(crate) unreadable: [u64; 3],
    /// Summaries that were passed over for later ones.
    pub(crate) superseded: u64,
    /// Memory that this console uses, in bytes.
    pub(crate) memory: Option<u64>,
}

impl BusHealth {
    /// Something came at a time.
    pub(crate) fn begin(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    /// Since when this console counts.
    pub(crate) fn since(&self, now: Time) -> Time {
        self.since.unwrap_or(now)
    }

    /// The hub said how it is, or why not.
    pub(crate) fn hub_said(&mut self, now: Time, said: Result<Box<HubStats>, String>) {
        match said {
            Ok(stats) => {
                self.answer = Some((now, *stats));
                self.silent = None;
            }
            Err(why) => self.silent = Some((now, why)),
        }
    }

    /// What the hub said last, and when that came.
    pub(crate) fn hub(&self) -> Option<(Time, &HubStats)> {
        self.answer.as_ref().map(|(at, stats)| (*at, stats))
    }

    /// Why the hub said nothing when it was asked last.
    pub(crate) fn silent(&self) -> Option<&str> {
        self.silent.as_ref().map(|(_, why)| why.as_str())
    }

    /// A round trip was measured.
    pub(crate) fn trip(&mut self, now: Time, took: Duration) {
        if self.trips.len() == TRIPS {
            self.trips.pop_front();
        }
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.trips.push_back((now, micros));
    }

    /// The last round trips with when they were measured, oldest first.
    pub(crate) fn trips(&self) -> impl Iterator<Item = (Time, Duration)> {
        let trips = self.trips.iter();
        trips.map(|(at, micros)| (*at, Duration::from_micros(u64::from(*micros))))
    }

    /// What half of the last round trips took at most, and 99 of 100.
    pub(crate) fn percentiles(&self) -> Option<(Duration, Duration)> {
        let mut all: Vec<u32> = self.trips.iter().map(|(_, micros)| *micros).collect();
        all.sort_unstable();
        let at = |percent: usize| {
            let at = (all.len() * percent).div_ceil(100).checked_sub(1)?;
            Some(Duration::from_micros(u64::from(*all.get(at)?)))
        };
        Some((at(50)?, at(99)?))
    }

    /// The link came or went.
    pub(crate) fn linked(&mut self, up: bool, lasted: Duration, ever: bool) {
        match (up, ever) {
            (true, true) => {
                self.links += 1;
                self.away += lasted;
            }
            (true, false) => self.links += 1,
            (false, _) => self.outages += 1,
        }
    }

    /// Counts what cannot be read of what a reader brought.
    pub(crate) fn count(&mut self, reader: Reader, facts: &[Fact]) {
        let unreadable = |fact: &&Fact| matches!(fact, Fact::Unreadable { .. });
        let count = facts.iter().filter(unreadable).count();
        self.unreadable[reader as usize] += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_bounded_and_their_worst_is_the_last_percent() {
        let mut bus = BusHealth::default();
        assert_eq!(bus.percentiles(), None);
        let at = |n: u64| Time::from_micros(i64::try_from(n).unwrap());
        for n in 0..1000 {
            bus.trip(at(n), Duration::from_micros(n));
        }
        assert_eq!(bus.trips().count(), TRIPS);
        let (half, most) = bus.percentiles().unwrap();
        assert_eq!((half.as_micros(), most.as_micros()), (699, 993));
    }

    #[test]
    fn a_hub_that_falls_silent_keeps_its_last_word() {
        let mut bus = BusHealth::default();
        let at = Time::from_micros(7);
        bus.hub_said(at, Ok(Box::default()));
        bus.hub_said(Time::from_micros(9), Err("no answer".to_owned()));
        assert_eq!(bus.hub().unwrap().0, at);
        assert_eq!(bus.silent(), Some("no answer"));
        bus.hub_said(Time::from_micros(11), Ok(Box::default()));
        assert_eq!(bus.silent(), None);
    }
}
