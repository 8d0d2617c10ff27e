//! What this machine is and has, as requirements are compared with it, and what its jobs hold of it.
//!
//! Whoever probes says what it found with [`Capacity::found`]; the beat, the lanes that are pulled
//! from and the tickets that are taken follow from here. It starts no probes itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_contract::machine::Specs;
use fleet_contract::needs::{Facts, Missing, Needs, Probed, Reserved, Room, Skill};
use fleet_contract::time::Time;
use fleet_nats::clock;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// What an attempt holds of its machine; given back when it is dropped.
pub(super) struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
    _hold: Option<Hold>,
}

impl Slot {
    /// Without a permit where it runs though all slots are taken: there were more when it began.
    pub(super) fn new(permit: Option<OwnedSemaphorePermit>, hold: Option<Hold>) -> Self {
        Self {
            _permit: permit,
            _hold: hold,
        }
    }
}

/// A share of memory and graphics processors; given back when it is dropped.
pub(super) struct Hold {
    capacity: Arc<Capacity>,
    id: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        {
            let mut state = self.capacity.state();
            state.held.remove(&self.id);
            state.freed += 1;
        }
        self.capacity.changed();
    }
}

/// What there is, and who holds what.
pub(super) struct Capacity {
    specs: Specs,
    labels: BTreeMap<String, String>,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Since when this agent can have looked at anything.
    since: Time,
}

#[derive(Default)]
struct State {
    probed: Probed,
    /// Probes that fail, in words.
    failing: Option<String>,
    held: HashMap<u64, Reserved>,
    holds: u64,
    freed: u64,
}

impl Capacity {
    pub(super) fn new(specs: Specs, labels: BTreeMap<String, String>) -> Self {
        Self {
            specs,
            labels,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            since: clock::now(),
        }
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes whenever another answer may hold.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How often something that was held was given back.
    pub(super) fn freed(&self) -> u64 {
        self.state().freed
    }

    /// Takes over what probes found. What jobs hold is not theirs to say.
    pub(super) fn found(&self, failing: Option<String>, probe: impl FnOnce(&mut Probed)) {
        {
            let mut state = self.state();
            probe(&mut state.probed);
            state.failing = failing;
        }
        self.changed();
    }

    /// The probes that fail, or are older than they may be, in words.
    pub(super) fn failing(&self, now: Time) -> Option<String> {
        let state = self.state();
        state.failing.clone().or_else(|| {
            // What an earlier agent found is as old as it is, but this one was not there to look.
            let overdue = |skill: &Skill| {
                let checked_at = skill.checked_at.max(self.since);
                let seen = Skill {
                    checked_at,
                    ..skill.clone()
                };
                seen.is_stale(now)
            };
            let (name, skill) = state.probed.skills.iter().find(|(_, s)| overdue(s))?;
            let age = now.since(skill.checked_at).as_secs();
            Some(format!("{name}: not looked at for {age} s"))
        })
    }

    /// What is known now, what jobs hold included.
    pub(super) fn probed(&self) -> Probed {
        let state = self.state();
        Probed {
            reserved: Reserved::sum(state.held.values()),
            ..state.probed.clone()
        }
    }

    /// Of several sets, whether this machine satisfies each and has room for it.
    pub(super) fn fits<'a>(&self, sets: impl IntoIterator<Item = &'a Needs>) -> Vec<bool> {
        let probed = self.probed();
        let facts = Facts::new(&self.specs, &self.labels, &probed, clock::now());
        sets.into_iter()
            .map(|needs| needs.fit(&facts) && needs.held(&facts).is_none())
            .collect()
    }

    /// Holds what a job with these requirements needs.
    ///
    /// # Errors
    /// What is missing, for good or because others hold it.
    pub(super) fn hold(self: &Arc<Self>, needs: &Needs) -> Result<Option<Hold>, Missing> {
        if needs.is_empty() {
            return Ok(None);
        }
        let probed = self.probed();
        let facts = Facts::new(&self.specs, &self.labels, &probed, clock::now());
        let first = needs.missing(&facts).next();
        match first.or_else(|| needs.held(&facts)) {
            Some(missing) => Err(missing),
            None => Ok(self.hold_anyway(needs)),
        }
    }

    /// Holds it whatever others hold: of a job that runs already.
    pub(super) fn hold_anyway(self: &Arc<Self>, needs: &Needs) -> Option<Hold> {
        let share = needs.share();
        if share.is_nothing() {
            return None;
        }
        let probed = self.probed();
        let room = Room {
            mem: self.specs.mem_total,
            gpus: &probed.gpus,
            reserved: &probed.reserved,
        };
        let reserved = room.take(&share).unwrap_or(Reserved {
            mem: share.mem,
            gpus: Vec::new(),
        });
        let id = {
            let mut state = self.state();
            state.holds += 1;
            let id = state.holds;
            state.held.insert(id, reserved);
            id
        };
        self.changed();
        Some(Hold {
            capacity: self.clone(),
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_holds_is_given_back_when_it_lets_go() {
        let specs = Specs {
            mem_total: 16 << 30,
            ..Specs::default()
        };
        let capacity = Arc::new(Capacity::new(specs, BTreeMap::new()));
        let mut changes = capacity.changes();
        let needs: Needs = "mem>=10GiB".parse().unwrap();
        let hold = capacity.hold(&needs).unwrap().unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(capacity.probed().reserved.mem, 10 << 30);
        assert_eq!(capacity.fits([&needs, &Needs::default()]), [false, true]);
        assert!(
            capacity
                .hold(&needs)
                .is_err_and(|missing| missing.found.passes())
        );
        let adopted = capacity.hold_anyway(&needs);
        drop(hold);
        assert!(changes.has_changed().unwrap());
        assert_eq!(capacity.fits([&needs]), [false]);
        drop(adopted);
        assert_eq!(capacity.fits([&needs]), [true]);
        let large: Needs = "mem>=17GiB".parse().unwrap();
        assert!(
            capacity
                .hold(&large)
                .is_err_and(|missing| !missing.found.passes())
        );
    }

    #[test]
    fn what_nobody_looks_at_any_more_is_told_but_not_of_an_agent_that_has_just_started() {
        let capacity = Capacity::new(Specs::default(), BTreeMap::new());
        let (now, minute) = (clock::now(), std::time::Duration::from_secs(60));
        let skill = Skill {
            ok: true,
            checked_at: Time::from_micros(0),
            interval_ms: 60_000,
            ..Skill::default()
        };
        capacity.found(None, |probed| {
            probed.skills.insert("node".to_owned(), skill);
        });
        assert_eq!(capacity.failing(now), None);
        let told = capacity.failing(now.plus(4 * minute)).unwrap();
        assert!(told.starts_with("node: not looked at for "), "{told}");
        capacity.found(Some("git: no answer".to_owned()), |_| {});
        assert_eq!(capacity.failing(now).as_deref(), Some("git: no answer"));
    }
}
