//! Which machines there are to draw, worst first, and by site.

use std::collections::{BTreeMap, BTreeSet};

use fleet_contract::ids::MachineId;
use fleet_contract::machine::MachineState;
use fleet_contract::projection::Machine;
use fleet_contract::record::StateWord;

use super::pulse::Flow;
use crate::model::Model;

/// The label that says where a machine is.
const SITE: &str = "site";
/// What machines without that label are called together.
const NO_SITE: &str = "no site";

/// A machine and its state.
pub(crate) type Entry<'a> = (MachineState, &'a Machine);

/// Machines of a site, worst first.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// The site, as its label says.
    pub(crate) name: &'a str,
    /// Its machines.
    pub(crate) machines: Vec<Entry<'a>>,
    /// How many are in each state, in the order of [`MachineState::ALL`].
    pub(crate) counts: [usize; MachineState::ALL.len()],
}

impl Group<'_> {
    /// How many want attention.
    pub(crate) fn bad(&self) -> usize {
        self.counts[..=MachineState::Degraded as usize].iter().sum()
    }
}

/// From so many machines on a look at all of them in the order of their names, each once, costs
/// less than finding each by its name.
const MANY: usize = 200;

/// Every machine that is to be drawn: those that the filter lets through, always the worst first,
/// whatever order the lists have.
pub(crate) fn all(model: &Model) -> Vec<Entry<'_>> {
    let machines = model.fleet.machines();
    let is_whole = model.machines_count() == machines.len();
    let mut all: Vec<Entry<'_>> = if is_whole && machines.len() >= MANY {
        let at = model.as_of();
        machines.values().map(|m| (m.state(at), m)).collect()
    } else {
        model.machines_shown().collect()
    };
    all.sort_by_key(|(state, _)| *state);
    all
}

/// How many sites there are, as far as up to so many.
pub(super) fn count_sites(model: &Model, most: usize) -> usize {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for machine in model.fleet.machines().values() {
        names.insert(site(machine));
        if names.len() >= most {
            break;
        }
    }
    names.len()
}

/// The same by site, the worst site first.
pub(crate) fn groups<'a>(all: &[Entry<'a>]) -> Vec<Group<'a>> {
    let mut by_name: BTreeMap<&str, Group<'a>> = BTreeMap::new();
    for (state, machine) in all {
        let name = site(machine);
        let group = by_name.entry(name).or_insert_with(|| Group {
            name,
            machines: Vec::new(),
            counts: [0; MachineState::ALL.len()],
        });
        group.machines.push((*state, machine));
        group.counts[*state as usize] += 1;
    }
    let mut groups: Vec<_> = by_name.into_values().collect();
    // By name already: this order is kept among sites that are equally bad.
    groups.sort_by_key(|g| {
        let [lost, stale, degraded, ..] = g.counts;
        std::cmp::Reverse((lost, stale, degraded))
    });
    groups
}

/// The site of a machine.
pub(super) fn site(machine: &Machine) -> &str {
    let site = machine.presence.labels.get(SITE).map(String::as_str);
    site.filter(|s| !s.is_empty()).unwrap_or(NO_SITE)
}

/// What flows between a machine and the hub, as far as it is known now: nothing of one that is not
/// heard.
pub(super) fn flow(model: &Model, (state, machine): &Entry<'_>) -> Option<Flow> {
    let heard = !matches!(
        state,
        MachineState::Lost | MachineState::Stale | MachineState::Offline
    );
    if model.is_dated() || !heard {
        return None;
    }
    let traffic = model
        .fleet
        .traffic(&machine.presence.machine, model.heard_at());
    traffic.map(Flow::of)
}

/// What flows between each of these sites and the hub.
pub(super) fn flows(model: &Model, groups: &[Group<'_>]) -> Vec<Option<Flow>> {
    if model.is_dated() {
        return vec![None; groups.len()];
    }
    let mut by_name: BTreeMap<&str, Flow> = BTreeMap::new();
    // Both are in the order of names: one goes along the other.
    let mut machines = model.fleet.machines().iter().peekable();
    for (id, traffic) in model.fleet.all_traffic(model.heard_at()) {
        while machines.next_if(|(other, _)| *other < id).is_some() {}
        if let Some((_, machine)) = machines.next_if(|(other, _)| *other == id) {
            by_name
                .entry(site(machine))
                .or_default()
                .add(Flow::of(traffic));
        }
    }
    groups
        .iter()
        .map(|g| by_name.get(g.name).copied())
        .collect()
}

/// How busy a site is and how far away, in words: `71% busy  14 ms`.
pub(super) fn sum(group: &Group<'_>) -> String {
    let (mut used, mut slots) = (0_u64, 0_u64);
    let mut trips: Vec<f64> = Vec::new();
    for (state, machine) in &group.machines {
        let load = &machine.presence.load;
        if state.takes_work() {
            used += u64::from(load.slots_used.min(load.slots));
            slots += u64::from(load.slots);
            trips.extend(load.rtt_ms.filter(|ms| ms.is_finite()));
        }
    }
    let busy = match (used * 100).checked_div(slots) {
        Some(percent) => format!("{percent:>3}% busy"),
        None => " -  busy".to_owned(),
    };
    let middle = trips.len() / 2;
    if trips.is_empty() {
        return busy;
    }
    let (_, median, _) = trips.select_nth_unstable_by(middle, f64::total_cmp);
    format!("{busy} {median:>4.0} ms")
}

/// Whether a machine runs nothing.
pub(super) fn is_idle(machine: &Machine) -> bool {
    machine.presence.load.slots_used == 0
}

/// How many jobs wait for this very machine.
pub(super) fn waiting(model: &Model, machine: &MachineId) -> usize {
    let at = model.fleet.jobs_at(machine);
    at.map_or(0, |at| {
        at.count(StateWord::Queued) + at.count(StateWord::Backoff)
    })
}
