//! How busy each machine was: one sample for each ten seconds in which something was heard, from
//! presences and from `machine.load` events alike.
//!
//! Which stream is read first does not matter: of the samples of ten seconds the latest counts, and
//! the newest of those are kept, fewer of each where there are many machines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Deserialize;

use crate::ids::MachineId;
use crate::machine::Presence;
use crate::time::Time;

/// The span that one sample stands for.
pub const LOAD_STEP: Duration = Duration::from_secs(10);
/// Most samples of one machine: an hour.
pub const LOAD_SAMPLES: usize = 360;
/// Samples of all machines together, about.
const LOAD_SAMPLES_IN_ALL: usize = 393_216;
/// Fewest samples of a machine, however many machines there are.
const LOAD_SAMPLES_LEAST: usize = 12;
/// A change of the load by processor that is worth telling.
const LOAD_NOTICED: f32 = 0.1;
/// A change of the share of memory that is worth telling.
const MEMORY_NOTICED: f32 = 0.05;
/// Most machines whose load is kept.
const LOAD_MACHINES: usize = 32_768;

/// How busy a machine was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadSample {
    /// Load average of one minute by processor: 1 is all of them busy.
    pub load: f32,
    /// Share of the memory that can be had, 0 to 1; 1 where it is not known.
    pub mem_free: f32,
    /// Slots that attempts held.
    pub slots_used: u16,
    /// Slots in all.
    pub slots: u16,
}

/// The details of a `machine.load` event.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, Deserialize)]
pub struct LoadTold {
    /// Load average of one minute.
    pub load: f64,
    /// Logical processors.
    pub cores: u32,
    /// Memory that can be had, in bytes.
    pub mem_free: u64,
    /// Memory, in bytes.
    pub mem_total: u64,
    /// Slots that attempts hold.
    pub slots_used: u32,
    /// Slots in all.
    pub slots: u32,
}

impl LoadTold {
    /// What a presence says of it.
    #[must_use]
    pub fn of(presence: &Presence) -> Self {
        let (load, specs) = (&presence.load, &presence.specs);
        Self {
            load: load.load,
            cores: specs.cores,
            mem_free: load.mem_free,
            mem_total: specs.mem_total,
            slots_used: load.slots_used,
            slots: load.slots,
        }
    }

    /// Whether it is worth telling after `last`: another number of slots in use or in all, a tenth
    /// of a processor's load more or less, a twentieth of the memory more or less.
    #[must_use]
    pub fn is_other_than(&self, last: &Self) -> bool {
        let (new, old) = (self.sample(), last.sample());
        (new.slots_used, new.slots) != (old.slots_used, old.slots)
            || (new.load - old.load).abs() >= LOAD_NOTICED
            || (new.mem_free - old.mem_free).abs() >= MEMORY_NOTICED
    }

    /// As it is kept. A peer may have sent anything: the result is always finite.
    #[must_use]
    pub fn sample(&self) -> LoadSample {
        let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let load = self.load / f64::from(self.cores.max(1));
        let load = if load.is_finite() { load } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "for a picture of an eighth of a row's height"
        )]
        let (load, mem_free) = {
            let free = self.mem_free as f64 / self.mem_total.max(1) as f64;
            let free = if self.mem_total == 0 { 1.0 } else { free };
            (load.clamp(0.0, 1e6) as f32, free.clamp(0.0, 1.0) as f32)
        };
        LoadSample {
            load,
            mem_free,
            slots_used: short(self.slots_used),
            slots: short(self.slots),
        }
    }
}

/// A sample and when it was taken, by the reader's own clock.
type Dated = (Time, LoadSample);

/// The samples of every machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Loads {
    machines: BTreeMap<MachineId, VecDeque<Dated>>,
}

impl Loads {
    /// Takes in a sample. Whether there is room for it.
    pub(super) fn tell(&mut self, machine: &MachineId, at: Time, sample: LoadSample) -> bool {
        let most = most(self.machines.len());
        if let Some(samples) = self.machines.get_mut(machine) {
            insert(samples, (at, sample), most);
            return true;
        }
        if self.machines.len() >= LOAD_MACHINES {
            return false;
        }
        let samples = VecDeque::from([(at, sample)]);
        self.machines.insert(machine.clone(), samples);
        let fewer = self::most(self.machines.len());
        if fewer < most {
            for samples in self.machines.values_mut() {
                samples.drain(..samples.len().saturating_sub(fewer));
                samples.shrink_to(fewer);
            }
        }
        true
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&MachineId) -> bool) {
        self.machines.retain(|id, _| keep(id));
    }

    pub(super) fn of(
        &self,
        machine: &MachineId,
    ) -> impl DoubleEndedIterator<Item = (Time, &LoadSample)> {
        let samples = self.machines.get(machine).map(VecDeque::iter);
        let samples = samples.unwrap_or_default();
        samples.map(|(at, sample)| (*at, sample))
    }
}

/// How many samples of each of so many machines are kept: halved whenever their number doubles, so
/// that it changes seldom.
fn most(machines: usize) -> usize {
    let each = LOAD_SAMPLES_IN_ALL / machines.max(1).next_power_of_two();
    each.clamp(LOAD_SAMPLES_LEAST, LOAD_SAMPLES)
}

fn step(at: Time) -> i64 {
    let length = i64::try_from(LOAD_STEP.as_micros()).unwrap_or(i64::MAX);
    at.as_micros().div_euclid(length)
}

fn insert(samples: &mut VecDeque<Dated>, new: Dated, most: usize) {
    let at = samples.partition_point(|(at, _)| step(*at) < step(new.0));
    let is_full = samples.len() >= most;
    match samples.get_mut(at) {
        Some(known) if step(known.0) == step(new.0) => {
            if rank(&new) > rank(known) {
                *known = new;
            }
        }
        // Older than all that is kept, which is as much as may be.
        _ if at == 0 && is_full => {}
        _ => samples.insert(at, new),
    }
    while samples.len() > most {
        samples.pop_front();
    }
}

/// Which of two samples of the same ten seconds counts: the later one. The rest decides between two
/// of the very same moment, whichever comes first.
fn rank((at, sample): &Dated) -> (Time, u32, u32, u16, u16) {
    (
        *at,
        sample.load.to_bits(),
        sample.mem_free.to_bits(),
        sample.slots_used,
        sample.slots,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sends_makes_a_finite_sample() {
        let odd = LoadTold {
            load: f64::NAN,
            cores: 0,
            mem_free: u64::MAX,
            mem_total: 1,
            slots_used: u32::MAX,
            slots: 0,
        };
        let sample = odd.sample();
        assert_eq!((sample.load, sample.mem_free), (0.0, 1.0));
        assert_eq!(sample.slots_used, u16::MAX);
    }

    #[test]
    fn only_what_changed_noticeably_is_told() {
        let calm = LoadTold {
            load: 1.0,
            cores: 4,
            mem_free: 50,
            mem_total: 100,
            slots_used: 1,
            slots: 4,
        };
        let changed = |change: fn(&mut LoadTold)| {
            let mut now = calm;
            change(&mut now);
            now.is_other_than(&calm)
        };
        assert!(!changed(|l| l.load = 1.3));
        assert!(!changed(|l| l.mem_free = 46));
        assert!(changed(|l| l.load = 1.5));
        assert!(changed(|l| l.load = 0.5));
        assert!(changed(|l| l.mem_free = 44));
        assert!(changed(|l| l.slots_used = 2));
        assert!(changed(|l| l.slots = 3));
    }

    #[test]
    fn many_machines_have_fewer_samples_each() {
        assert_eq!(most(3), LOAD_SAMPLES);
        assert_eq!(most(3000), 96);
        assert_eq!(most(1 << 20), LOAD_SAMPLES_LEAST);
        let mut loads = Loads::default();
        let sample = LoadTold::default().sample();
        let at = |n: i64| Time::from_micros(n * 10_000_000);
        let machine = |n: usize| format!("m{n}").parse::<MachineId>().unwrap();
        for n in 0..1000 {
            loads.tell(&machine(0), at(n), sample);
        }
        assert_eq!(loads.of(&machine(0)).count(), LOAD_SAMPLES);
        for n in 1..3000 {
            loads.tell(&machine(n), at(1), sample);
        }
        let kept: Vec<Time> = loads.of(&machine(0)).map(|(at, _)| at).collect();
        assert_eq!((kept.len(), kept[0]), (96, at(904)));
    }
}
