//! When a machine sends more than any that keeps to the contract does. Pure: what was counted, and
//! when, are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::ids::MachineId;
use crate::lease::BootTime;

/// Over how long it is counted.
pub const FLOOD_WITHIN: Duration = Duration::from_secs(10);
/// Messages that a machine may send in [`FLOOD_WITHIN`], unless configured. A machine that ends 1,000
/// jobs in a second sends a third of it.
pub const FLOOD_MESSAGES: u64 = 300_000;
/// ... and those of them that do not count, or are of a kind that comes a few times a minute: a machine
/// that keeps to the contract sends a few dozen.
pub const FLOOD_USELESS: u64 = 1_000;
/// ... and their bytes.
pub const FLOOD_USELESS_BYTES: u64 = 64 * 1024 * 1024;
/// Machines that are watched at once; beyond, those that sent least are let go.
const MACHINES_MAX: usize = 4096;

/// What a machine may send in [`FLOOD_WITHIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages of all kinds.
    pub messages: u64,
    /// Messages that do not count: void records, what is malformed.
    pub useless: u64,
    /// Bytes of these.
    pub useless_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            messages: FLOOD_MESSAGES,
            useless: FLOOD_USELESS,
            useless_bytes: FLOOD_USELESS_BYTES,
        }
    }
}

/// What a machine sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Messages of all kinds.
    pub messages: u64,
    /// Messages that do not count.
    pub useless: u64,
    /// Bytes of these.
    pub useless_bytes: u64,
}

impl Sent {
    /// Takes in more.
    pub fn add(&mut self, more: &Self) {
        self.messages = self.messages.saturating_add(more.messages);
        self.useless = self.useless.saturating_add(more.useless);
        self.useless_bytes = self.useless_bytes.saturating_add(more.useless_bytes);
    }
}

/// By what a machine is over its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// So many messages.
    Messages(u64),
    /// So many that do not count.
    Useless(u64),
    /// So many bytes that do not count.
    UselessBytes(u64),
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = FLOOD_WITHIN.as_secs();
        match self {
            Self::Messages(n) => write!(f, "{n} messages in {seconds} s"),
            Self::Useless(n) => write!(f, "{n} messages that do not count in {seconds} s"),
            Self::UselessBytes(n) => write!(f, "{n} bytes that do not count in {seconds} s"),
        }
    }
}

/// What each machine sent lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Floods {
    bounds: Bounds,
    machines: BTreeMap<MachineId, VecDeque<(BootTime, Sent)>>,
}

impl Floods {
    /// Of machines that may send so much.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            machines: BTreeMap::new(),
        }
    }

    /// The machine sent so much more since it was counted last. By what it is over its bounds, if it
    /// is; then it is counted anew.
    pub fn add(&mut self, machine: &MachineId, more: Sent, now: BootTime) -> Option<Flood> {
        if more == Sent::default() {
            return None;
        }
        if !self.machines.contains_key(machine) && self.machines.len() >= MACHINES_MAX {
            self.forget_least(now);
        }
        let counted = self.machines.entry(machine.clone()).or_default();
        counted.push_back((now, more));
        drop_old(counted, now);
        let mut all = Sent::default();
        counted.iter().for_each(|(_, sent)| all.add(sent));
        let flood = self.bounds.exceeded(&all);
        if flood.is_some() {
            self.machines.remove(machine);
        }
        flood
    }

    /// Lets go of what is too old to count.
    pub fn settle(&mut self, now: BootTime) {
        self.machines.retain(|_, counted| {
            drop_old(counted, now);
            !counted.is_empty()
        });
    }

    fn forget_least(&mut self, now: BootTime) {
        self.settle(now);
        let sum = |counted: &VecDeque<(BootTime, Sent)>| -> u64 {
            counted
                .iter()
                .map(|(_, sent)| sent.messages.max(sent.useless))
                .sum()
        };
        let least = self.machines.iter().min_by_key(|(_, counted)| sum(counted));
        if let Some(least) = least.map(|(machine, _)| machine.clone()) {
            self.machines.remove(&least);
        }
    }
}

fn drop_old(counted: &mut VecDeque<(BootTime, Sent)>, now: BootTime) {
    while counted
        .front()
        .is_some_and(|(at, _)| now.since(*at) >= FLOOD_WITHIN)
    {
        counted.pop_front();
    }
}

impl Bounds {
    fn exceeded(&self, sent: &Sent) -> Option<Flood> {
        if sent.useless > self.useless {
            Some(Flood::Useless(sent.useless))
        } else if sent.useless_bytes > self.useless_bytes {
            Some(Flood::UselessBytes(sent.useless_bytes))
        } else if sent.messages > self.messages {
            Some(Flood::Messages(sent.messages))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::default().plus(Duration::from_secs(seconds))
    }

    fn messages(messages: u64) -> Sent {
        Sent {
            messages,
            ..Sent::default()
        }
    }

    fn machine(n: usize) -> MachineId {
        format!("m{n}").parse().unwrap()
    }

    #[test]
    fn what_counts_is_a_span_and_not_a_sum() {
        let mut floods = Floods::default();
        let rogue = machine(0);
        for second in 0..1000 {
            let steady = messages(FLOOD_MESSAGES / 10);
            assert_eq!(floods.add(&rogue, steady, at(second)), None, "{second}");
        }
        let over = floods.add(&rogue, messages(1), at(999));
        assert_eq!(over, Some(Flood::Messages(FLOOD_MESSAGES + 1)));
        // Counted anew: said once.
        assert_eq!(floods.add(&rogue, messages(1), at(999)), None);
        floods.settle(at(1009));
        assert_eq!(floods, Floods::default());
    }

    #[test]
    fn what_does_not_count_is_bounded_by_number_and_by_weight() {
        let mut floods = Floods::default();
        let useless = |useless, useless_bytes| Sent {
            useless,
            useless_bytes,
            ..Sent::default()
        };
        assert_eq!(
            floods.add(&machine(1), useless(FLOOD_USELESS, 9), at(0)),
            None
        );
        let more = floods.add(&machine(1), useless(1, 9), at(9));
        assert_eq!(more, Some(Flood::Useless(FLOOD_USELESS + 1)));
        let heavy = floods.add(&machine(2), useless(7, FLOOD_USELESS_BYTES + 1), at(0));
        assert_eq!(heavy, Some(Flood::UselessBytes(FLOOD_USELESS_BYTES + 1)));
    }

    #[test]
    fn however_many_machines_there_are_who_sends_most_is_watched() {
        let mut floods = Floods::default();
        let rogue = machine(MACHINES_MAX * 3);
        assert_eq!(floods.add(&rogue, messages(FLOOD_MESSAGES), at(0)), None);
        for n in 0..MACHINES_MAX * 2 {
            assert_eq!(floods.add(&machine(n), messages(1), at(0)), None);
        }
        assert!(floods.machines.len() <= MACHINES_MAX);
        assert!(floods.add(&rogue, messages(1), at(1)).is_some());
    }
}
