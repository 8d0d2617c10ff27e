//! Which jobs are where: for each machine what runs on it, what waits for it and how its jobs ended,
//! counted as the jobs change, never by looking through all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{JobId, MachineId};
use crate::job::Job;
use crate::record::StateWord;

use super::place;

/// Since when, and the job.
type Since = (i64, JobId);

/// The jobs of one machine, among those that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobsAt {
    counts: [u32; StateWord::ALL.len()],
    running: BTreeSet<Since>,
    asked: BTreeSet<Since>,
}

impl JobsAt {
    /// How many are in a state.
    #[must_use]
    pub fn count(&self, word: StateWord) -> usize {
        self.counts.get(word as usize).map_or(0, |n| *n as usize)
    }

    /// How many are in one of these states.
    fn sum(&self, words: &[StateWord]) -> usize {
        words.iter().map(|word| self.count(*word)).sum()
    }

    /// How many wait for this very machine.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sum(&[StateWord::Queued, StateWord::Backoff])
    }

    /// How many succeeded on it.
    #[must_use]
    pub fn done(&self) -> usize {
        self.count(StateWord::Succeeded)
    }

    /// How many failed on it, timed out, were rejected by it or expired before it took them.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.sum(&[
            StateWord::Failed,
            StateWord::TimedOut,
            StateWord::Rejected,
            StateWord::Expired,
        ])
    }

    /// Those whose attempt may still end by itself: those that run, then those asked about, each
    /// longest first.
    pub(super) fn open(&self) -> impl Iterator<Item = JobId> {
        self.running.iter().chain(&self.asked).map(|(_, id)| *id)
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|n| *n == 0) && self.running.is_empty() && self.asked.is_empty()
    }
}

/// Where a job is, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    job: JobId,
    word: StateWord,
    since: i64,
    place: Option<MachineId>,
    open: Option<MachineId>,
}

impl Spot {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            job: job.id,
            word: job.state.word(),
            since: job.changed_at.as_micros(),
            place: place(job).cloned(),
            open: job.state.open().map(|open| open.machine.clone()),
        }
    }
}

/// The jobs of every machine that has any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Places {
    machines: BTreeMap<MachineId, JobsAt>,
}

impl Places {
    pub(super) fn add(&mut self, spot: Spot) {
        if let Some(machine) = spot.place {
            let at = self.machines.entry(machine).or_default();
            if let Some(count) = at.counts.get_mut(spot.word as usize) {
                *count += 1;
            }
        }
        if let Some(machine) = spot.open {
            let at = self.machines.entry(machine).or_default();
            set(at, spot.word).insert((spot.since, spot.job));
        }
    }

    pub(super) fn remove(&mut self, spot: &Spot) {
        if let Some(at) = spot.place.as_ref().and_then(|m| self.machines.get_mut(m))
            && let Some(count) = at.counts.get_mut(spot.word as usize)
        {
            *count = count.saturating_sub(1);
        }
        if let Some(at) = spot.open.as_ref().and_then(|m| self.machines.get_mut(m)) {
            set(at, spot.word).remove(&(spot.since, spot.job));
        }
        for machine in [&spot.place, &spot.open].into_iter().flatten() {
            if self.machines.get(machine).is_some_and(JobsAt::is_empty) {
                self.machines.remove(machine);
            }
        }
    }

    pub(super) fn at(&self, machine: &MachineId) -> Option<&JobsAt> {
        self.machines.get(machine)
    }
}

fn set(at: &mut JobsAt, word: StateWord) -> &mut BTreeSet<Since> {
    if word == StateWord::Running {
        &mut at.running
    } else {
        &mut at.asked
    }
}
