//! Whose is it? Attribution of processes that lost their parents, in a process that is the
//! subreaper of several jobs at once.
//!
//! An orphan belongs to the job whose group it is in, else to the one its environment names,
//! else to the one whose output pipe it holds, else to whom the other members of its group or
//! session belong, else to the only job that ran when it was started. Where several ran it is
//! kept as shared between them and ended with the last: never with the first, it might be
//! another's.

use std::collections::{BTreeMap, BTreeSet};

use fleet_contract::ids::AttemptId;

use super::boot::BootTime;
use super::platform::{self, Process};

/// What is needed of a job that may have left orphans.
pub(crate) struct Candidate {
    pub(crate) attempt: AttemptId,
    /// The number of its first process and of its group.
    pub(crate) leader: i32,
    pub(crate) not_before: BootTime,
    pub(crate) pipes: Vec<u64>,
}

/// Whom an orphan belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Attempt(AttemptId),
    OneOf(BTreeSet<AttemptId>),
    /// A child that the program around a `run_here` started itself.
    Stranger,
}

#[derive(Debug)]
struct Orphan {
    owner: Owner,
    group: i32,
    session: i32,
}

/// All orphans that were adopted and not yet reaped. Their numbers cannot become others'.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    by_pid: BTreeMap<i32, Orphan>,
}

impl Orphans {
    /// Forgets one that was reaped.
    pub(crate) fn reaped(&mut self, pid: i32) {
        self.by_pid.remove(&pid);
    }

    /// Forgets those that are no children any more: strangers, which others reap.
    pub(crate) fn retain(&mut self, children: &[i32]) {
        self.by_pid.retain(|pid, _| children.contains(pid));
    }

    /// Whether this child was looked at before.
    pub(crate) fn knows(&self, pid: i32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Whether this child is none of a job's.
    pub(crate) fn is_stranger(&self, pid: i32) -> bool {
        self.by_pid
            .get(&pid)
            .is_some_and(|o| o.owner == Owner::Stranger)
    }

    /// Looks at a new one. `spare_group`: children in this group are strangers.
    pub(crate) fn adopt(&mut self, pid: i32, candidates: &[Candidate], spare_group: Option<i32>) {
        let Some(process) = platform::process(pid) else {
            return;
        };
        let owner = self.owner_of(&process, candidates, spare_group);
        self.by_pid.insert(
            pid,
            Orphan {
                owner,
                group: process.group,
                session: process.session,
            },
        );
    }

    fn owner_of(
        &self,
        process: &Process,
        candidates: &[Candidate],
        spare_group: Option<i32>,
    ) -> Owner {
        if let Some(found) = candidates.iter().find(|c| c.leader == process.group) {
            return Owner::Attempt(found.attempt);
        }
        if let Some(named) = platform::attempt_of(process.pid)
            && let Some(found) = candidates.iter().find(|c| c.attempt.as_str() == named)
        {
            return Owner::Attempt(found.attempt);
        }
        let pipes = platform::pipes_of(process.pid);
        if let Some(found) = candidates
            .iter()
            .find(|c| c.pipes.iter().any(|p| pipes.contains(p)))
        {
            return Owner::Attempt(found.attempt);
        }
        if spare_group == Some(process.group) {
            return Owner::Stranger;
        }
        let own_session = candidates
            .iter()
            .any(|c| platform::process(c.leader).is_some_and(|l| l.session == process.session));
        if let Some(relative) = self.by_pid.values().find(|o| {
            matches!(o.owner, Owner::Attempt(_))
                && (o.group == process.group || (!own_session && o.session == process.session))
        }) {
            return relative.owner.clone();
        }
        // Start times are rounded down, so a job's own process may seem a tick older than it.
        let tick = platform::start_resolution();
        let older: BTreeSet<AttemptId> = candidates
            .iter()
            .filter(|c| c.not_before.minus(tick) <= process.started)
            .map(|c| c.attempt)
            .collect();
        match older.len() {
            1 => older
                .first()
                .map_or(Owner::Stranger, |a| Owner::Attempt(*a)),
            _ => Owner::OneOf(older),
        }
    }

    /// The orphans to be ended with this attempt.
    pub(crate) fn of(&self, attempt: AttemptId) -> Vec<i32> {
        self.by_pid
            .iter()
            .filter(|(_, o)| match &o.owner {
                Owner::Attempt(owner) => *owner == attempt,
                Owner::OneOf(owners) => owners.len() == 1 && owners.contains(&attempt),
                Owner::Stranger => false,
            })
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// This attempt's first process has ended: what it shares with others who are still there is
    /// theirs now; what it shares with nobody any more is its own.
    pub(crate) fn leave_to_others(
        &mut self,
        attempt: AttemptId,
        present: impl Fn(AttemptId) -> bool,
    ) {
        for orphan in self.by_pid.values_mut() {
            if let Owner::OneOf(owners) = &mut orphan.owner
                && owners.contains(&attempt)
            {
                owners.retain(|owner| *owner == attempt || present(*owner));
                if owners.len() > 1 {
                    owners.remove(&attempt);
                }
            }
        }
    }

    /// Orphans that belong to nobody who is still there.
    pub(crate) fn of_nobody(&self, present: impl Fn(AttemptId) -> bool) -> Vec<i32> {
        self.by_pid
            .iter()
            .filter(|(_, o)| match &o.owner {
                Owner::Attempt(owner) => !present(*owner),
                Owner::OneOf(owners) => !owners.iter().any(|o| present(*o)),
                Owner::Stranger => false,
            })
            .map(|(pid, _)| *pid)
            .collect()
    }
}
