//! Journals without a first record that counts: they keep the job's own first record out, so they go.

use std::collections::{BTreeMap, BTreeSet};

use super::{ACT_TIMEOUT, Act};
use crate::ids::JobId;
use crate::time::Time;

/// Journals that are remembered until they are removed; more are found by the next keeper.
const HEADLESS_MAX: usize = 65_536;
/// ... and removed at once.
const AT_ONCE: usize = 64;

/// Which they are, and when each is due to go.
#[derive(Debug, Default)]
pub(super) struct Headless {
    known: BTreeMap<JobId, Known>,
    /// Each that is known, once.
    due: BTreeSet<(Time, JobId)>,
}

#[derive(Debug)]
struct Known {
    up_to: u64,
    due: Time,
}

impl Headless {
    /// The journal goes up to here.
    pub(super) fn add(&mut self, job: JobId, up_to: u64) {
        if let Some(known) = self.known.get_mut(&job) {
            known.up_to = up_to;
        } else if self.known.len() < HEADLESS_MAX {
            let due = Time::default();
            self.known.insert(job, Known { up_to, due });
            self.due.insert((due, job));
        }
    }

    /// It is gone, or its job has begun.
    pub(super) fn remove(&mut self, job: JobId) {
        if let Some(known) = self.known.remove(&job) {
            self.due.remove(&(known.due, job));
        }
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Those that are to go now, at most `room`: each again until it is gone.
    pub(super) fn due(&mut self, now: Time, room: usize, acts: &mut Vec<Act>) {
        for _ in 0..room.min(AT_ONCE) {
            let Some((_, job)) = self.due.first().copied().filter(|(at, _)| *at <= now) else {
                return;
            };
            self.due.pop_first();
            if let Some(known) = self.known.get_mut(&job) {
                known.due = now.plus(ACT_TIMEOUT);
                self.due.insert((known.due, job));
                let up_to = known.up_to;
                acts.push(Act::Purge { job, up_to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_until_it_is_gone_and_what_is_remembered_is_bounded() {
        let mut headless = Headless::default();
        let job = |n: u32| {
            let mut bytes = [0; 10];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            JobId::from_random(bytes)
        };
        for n in 0..100_000 {
            headless.add(job(n), u64::from(n));
        }
        assert_eq!(headless.known.len(), HEADLESS_MAX);
        assert_eq!(headless.due.len(), HEADLESS_MAX);
        let now = Time::from_micros(1_000_000);
        let mut acts = Vec::new();
        headless.due(now, 1000, &mut acts);
        assert_eq!(acts.len(), AT_ONCE);
        // One that is gone and comes again is known once, and so it goes once at a time.
        headless.remove(job(0));
        headless.add(job(0), 9);
        assert_eq!(headless.due.len(), headless.known.len());
        for n in 0..100_000 {
            headless.remove(job(n));
        }
        assert!(headless.due.is_empty());
        let mut rest = Vec::new();
        while headless.next_due().is_some_and(|at| at <= now) {
            headless.due(now, 1000, &mut rest);
        }
        assert!(rest.is_empty());
        headless.due(now.plus(ACT_TIMEOUT), 1000, &mut rest);
        assert!(rest.is_empty() && headless.next_due().is_none());
    }
}
