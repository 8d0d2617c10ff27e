//! What flows between each machine and the hub right now, by the machines' own summaries. Only the
//! last summary of a machine is kept, and believed for a few seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::MachineId;
use crate::stat::{STAT_EVERY, Stat};
use crate::time::Time;

/// How long a summary is believed: a machine that counts something tells one each second.
pub const TRAFFIC_FRESH: Duration = Duration::from_secs(3);
/// Longest time that one summary is believed to be about.
const INTERVAL_MAX_MS: u64 = 60_000;
/// Most machines whose traffic is kept; the summaries of others are dropped and counted.
pub(super) const TRAFFIC_MACHINES: usize = 16_384;

/// What flows between a machine and the hub.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Tickets that reach it, in a second.
    pub jobs_in_per_s: f64,
    /// Messages that it sends: records, output and events, in a second.
    pub messages_out_per_s: f64,
    /// Bytes of those, in a second.
    pub bytes_out_per_s: f64,
    /// How old this is.
    pub age: Duration,
}

/// What became of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is its machine's last.
    New,
    /// A later one came before it, or it came before.
    Old,
    /// There is no room for another machine.
    NoRoom,
}

/// The last summary of each machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Summaries {
    last: BTreeMap<MachineId, (Time, Stat)>,
}

impl Summaries {
    /// Takes in a summary.
    pub(super) fn tell(&mut self, machine: &MachineId, stat: &Stat, at: Time) -> Told {
        if let Some(known) = self.last.get_mut(machine) {
            if at <= known.0 {
                return Told::Old;
            }
            *known = (at, bounded(stat));
            return Told::New;
        }
        if self.last.len() >= TRAFFIC_MACHINES {
            return Told::NoRoom;
        }
        self.last.insert(machine.clone(), (at, bounded(stat)));
        Told::New
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&MachineId) -> bool) {
        self.last.retain(|id, _| keep(id));
    }

    pub(super) fn know(&self, machine: &MachineId) -> bool {
        self.last.contains_key(machine)
    }

    pub(super) fn of(&self, machine: &MachineId, now: Time) -> Option<Traffic> {
        let (at, stat) = self.last.get(machine)?;
        traffic(*at, stat, now)
    }

    pub(super) fn all(&self, now: Time) -> impl Iterator<Item = (&MachineId, Traffic)> {
        self.last
            .iter()
            .filter_map(move |(id, (at, stat))| Some((id, traffic(*at, stat, now)?)))
    }
}

/// A machine says itself how long it counted: what cannot be true makes no rate of a million.
fn bounded(stat: &Stat) -> Stat {
    let least = u64::try_from(STAT_EVERY.as_millis()).unwrap_or(1) / 2;
    Stat {
        interval_ms: stat.interval_ms.clamp(least, INTERVAL_MAX_MS),
        ..*stat
    }
}

fn traffic(at: Time, stat: &Stat, now: Time) -> Option<Traffic> {
    let age = now.since(at);
    let seconds = Duration::from_millis(stat.interval_ms.max(1)).as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for a picture: 52 bits of a second's messages are enough"
    )]
    let rate = |count: u64| count as f64 / seconds;
    (age <= TRAFFIC_FRESH).then(|| Traffic {
        jobs_in_per_s: rate(stat.tickets),
        messages_out_per_s: rate(stat.messages_out()),
        bytes_out_per_s: rate(stat.bytes_out),
        age,
    })
}
