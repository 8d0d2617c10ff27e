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
    up_to: BTreeMap<JobId, u64>,
    due: BTreeSet<(Time, JobId)>,
}

impl Headless {
    /// The journal goes up to here.
    pub(super) fn add(&mut self, job: JobId, up_to: u64) {
        if let Some(up) = self.up_to.get_mut(&job) {
            *up = up_to;
        } else if self.up_to.len() < HEADLESS_MAX {
            self.up_to.insert(job, up_to);
            self.due.insert((Time::default(), job));
        }
    }

    /// It is gone, or its job has begun.
    pub(super) fn remove(&mut self, job: JobId) {
        self.up_to.remove(&job);
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
            if let Some(up_to) = self.up_to.get(&job) {
                self.due.insert((now.plus(ACT_TIMEOUT), job));
                acts.push(Act::Purge { job, up_to: *up_to });
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
        assert_eq!(headless.up_to.len(), HEADLESS_MAX);
        let now = Time::from_micros(1_000_000);
        let mut acts = Vec::new();
        headless.due(now, 1000, &mut acts);
        assert_eq!(acts.len(), AT_ONCE);
        for n in 0..100_000 {
            headless.remove(job(n));
        }
        let mut rest = Vec::new();
        while headless.next_due().is_some_and(|at| at <= now) {
            headless.due(now, 1000, &mut rest);
        }
        assert!(rest.is_empty());
        headless.due(now.plus(ACT_TIMEOUT), 1000, &mut rest);
        assert!(rest.is_empty() && headless.next_due().is_none());
    }
}
