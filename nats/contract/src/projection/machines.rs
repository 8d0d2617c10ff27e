//! Machines, with an index of their states. A state depends on the time that is asked about: the
//! index holds those of one moment, and when each can next change by age alone. What is asked about
//! a little later is the index and the few that changed since.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::MachineId;
use crate::machine::{self, MachineState, Presence};
use crate::time::Time;

/// A machine as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// What it said.
    pub presence: Presence,
    /// The sequence of that.
    pub seq: u64,
    /// When, by the reader's own clock.
    pub seen: Time,
}

impl Machine {
    /// Its state at `now` by the reader's clock.
    #[must_use]
    pub fn state(&self, now: Time) -> MachineState {
        machine::state(&self.presence, now.since(self.seen))
    }

    /// When its state can next change by age alone, counted from a time.
    fn changes(&self, at: Time) -> Option<Time> {
        let after = machine::next_change(&self.presence, at.since(self.seen))?;
        Some(self.seen.plus(after))
    }
}

const STATES: usize = MachineState::ALL.len();

/// Every machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Machines {
    all: BTreeMap<MachineId, Machine>,
    /// The moment of the index.
    at: Time,
    by_state: [BTreeSet<MachineId>; STATES],
    changes: BTreeSet<(Time, MachineId)>,
}

impl Machines {
    pub(super) fn all(&self) -> &BTreeMap<MachineId, Machine> {
        &self.all
    }

    pub(super) fn insert(&mut self, machine: Machine) {
        let id = machine.presence.machine.clone();
        self.unindex(&id);
        self.all.insert(id.clone(), machine);
        self.index(&id);
    }

    /// Forgets all others. Whether there were any.
    pub(super) fn retain(&mut self, keep: &BTreeSet<MachineId>) -> bool {
        let gone: Vec<MachineId> = self
            .all
            .keys()
            .filter(|id| !keep.contains(*id))
            .cloned()
            .collect();
        for id in &gone {
            self.unindex(id);
            self.all.remove(id);
        }
        !gone.is_empty()
    }

    /// Moves the index to another moment.
    pub(super) fn pass(&mut self, now: Time) {
        if now < self.at {
            // Seldom: a link that went away takes what is shown back to when the hub was heard.
            self.at = now;
            self.by_state = Default::default();
            self.changes.clear();
            let ids: Vec<MachineId> = self.all.keys().cloned().collect();
            ids.iter().for_each(|id| self.index(id));
            return;
        }
        while let Some((at, _)) = self.changes.first()
            && *at <= now
        {
            let Some((_, id)) = self.changes.pop_first() else {
                break;
            };
            if let Some(machine) = self.all.get(&id) {
                self.by_state[machine.state(self.at) as usize].remove(&id);
                self.by_state[machine.state(now) as usize].insert(id.clone());
                let next = machine.changes(now).filter(|at| *at > now);
                self.changes.extend(next.map(|at| (at, id)));
            }
        }
        self.at = now;
    }

    fn index(&mut self, id: &MachineId) {
        if let Some(machine) = self.all.get(id) {
            self.by_state[machine.state(self.at) as usize].insert(id.clone());
            let changes = machine.changes(self.at);
            self.changes.extend(changes.map(|at| (at, id.clone())));
        }
    }

    fn unindex(&mut self, id: &MachineId) {
        if let Some(machine) = self.all.get(id) {
            self.by_state[machine.state(self.at) as usize].remove(id);
            if let Some(at) = machine.changes(self.at) {
                self.changes.remove(&(at, id.clone()));
            }
        }
    }

    /// The machines whose state at a time is another than the index says, with that state.
    fn changed(&self, now: Time) -> BTreeMap<&MachineId, (MachineState, MachineState)> {
        let state = |machine: &Machine| (machine.state(self.at), machine.state(now));
        let differ = |id, machine| {
            let (was, is) = state(machine);
            (was != is).then_some((id, (was, is)))
        };
        if now < self.at {
            let all = self.all.iter();
            return all.filter_map(|(id, m)| differ(id, m)).collect();
        }
        self.changes
            .iter()
            .take_while(|(at, _)| *at <= now)
            .filter_map(|(_, id)| differ(id, self.all.get(id)?))
            .collect()
    }

    /// Machines with their state at a time, worst first, then by name. Lazy: taking a screenful
    /// costs a screenful, and the machines that changed since the index.
    pub(super) fn worst_first(&self, now: Time) -> impl Iterator<Item = (MachineState, &Machine)> {
        let changed = std::rc::Rc::new(self.changed(now));
        MachineState::ALL.into_iter().flat_map(move |state| {
            let into: Vec<&MachineId> = changed
                .iter()
                .filter(|(_, (_, is))| *is == state)
                .map(|(id, _)| *id)
                .collect();
            let changed = changed.clone();
            let stay = self.by_state[state as usize]
                .iter()
                .filter(move |id| !changed.contains_key(id));
            merged(stay, into.into_iter()).filter_map(move |id| Some((state, self.all.get(id)?)))
        })
    }

    /// How many are in each state at a time, in the order of [`MachineState::ALL`].
    pub(super) fn counts(&self, now: Time) -> [usize; STATES] {
        let mut counts = self.by_state.each_ref().map(BTreeSet::len);
        for (was, is) in self.changed(now).values() {
            counts[*was as usize] -= 1;
            counts[*is as usize] += 1;
        }
        counts
    }
}

/// Two ascending rows as one.
fn merged<'a, T: Ord + ?Sized + 'a>(
    left: impl Iterator<Item = &'a T>,
    right: impl Iterator<Item = &'a T>,
) -> impl Iterator<Item = &'a T> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(l), Some(r)) if r < l => right.next(),
        (None, _) => right.next(),
        _ => left.next(),
    })
}
