//! Ended jobs by the time of their end: which of them go before their time, and why.

use std::collections::BTreeMap;

use super::{Keeper, MAKE_ROOM_ABOVE_PERCENT, MAKE_ROOM_DOWN_TO_PERCENT, Removed, Why};
use crate::ids::JobId;
use crate::time::Time;

/// The ended jobs that nothing holds.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that are kept, oldest first, with the bytes of their journals; the sum of these.
    kept: BTreeMap<(Time, JobId), u64>,
    bytes: u64,
    /// Those that go as soon as they may.
    surplus: BTreeMap<(Time, JobId), Why>,
}

impl Ended {
    pub(super) fn insert(&mut self, at: Time, id: JobId, bytes: u64) {
        if self.kept.insert((at, id), bytes).is_none() {
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn remove(&mut self, at: Time, id: JobId) {
        let bytes = self.kept.remove(&(at, id)).unwrap_or(0);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.surplus.remove(&(at, id));
    }

    /// A kept one takes more than it did.
    fn grew(&mut self, at: Time, id: JobId, bytes: u64) {
        if let Some(takes) = self.kept.get_mut(&(at, id)) {
            *takes = takes.saturating_add(bytes);
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Why this one goes before its time; none if it does not.
    pub(super) fn surplus(&self, at: Time, id: JobId) -> Option<Why> {
        self.surplus.get(&(at, id)).copied()
    }

    /// The oldest that is kept goes as soon as it may; which one that is.
    fn shed(&mut self, why: Why) -> Option<JobId> {
        let ((at, id), bytes) = self.kept.pop_first()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.surplus.insert((at, id), why);
        Some(id)
    }
}

impl Keeper {
    /// A record of the job takes this many bytes on the hub.
    pub fn grew(&mut self, id: JobId, bytes: u64) {
        let Some(kept) = self.jobs.get_mut(&id) else {
            return;
        };
        kept.bytes = kept.bytes.saturating_add(bytes);
        if let Some(at) = kept.ended_at {
            self.ended.grew(at, id, bytes);
            self.shed_surplus();
        }
    }

    /// The journal holds `bytes` of `max_bytes`. Where that is more than
    /// [`MAKE_ROOM_ABOVE_PERCENT`], the oldest ended jobs that take what is above
    /// [`MAKE_ROOM_DOWN_TO_PERCENT`] go as soon as they may ([`super::PURGE_AGE_MIN`]); whether it is.
    pub fn journal_holds(&mut self, bytes: u64, max_bytes: u64) -> bool {
        let part = |percent: u64| max_bytes / 100 * percent;
        if max_bytes == 0 || bytes <= part(MAKE_ROOM_ABOVE_PERCENT) {
            return false;
        }
        let takes = |id: &JobId| self.jobs.get(id).map_or(0, |kept| kept.bytes);
        let going: u64 = self.ended.surplus.keys().map(|(_, id)| takes(id)).sum();
        let most = part(MAKE_ROOM_DOWN_TO_PERCENT).saturating_add(going);
        let mut over = bytes.saturating_sub(most);
        while over > 0 {
            let before = self.ended.bytes;
            if !self.shed(Why::Room) {
                break;
            }
            over = over.saturating_sub(before - self.ended.bytes);
        }
        true
    }

    /// Puts the oldest ended jobs over a limit among those that go as soon as they may.
    pub(super) fn shed_surplus(&mut self) {
        while self.ended.kept.len() > self.retention.count && self.shed(Why::Count) {}
        let most = self.retention.bytes.unwrap_or(u64::MAX);
        while self.ended.bytes > most && self.shed(Why::Bytes) {}
    }

    fn shed(&mut self, why: Why) -> bool {
        let shed = self.ended.shed(why);
        if let Some(id) = shed {
            self.schedule(id);
        }
        shed.is_some()
    }

    /// The job's journal was removed; what is known of it if it was a job.
    pub fn purged(&mut self, id: JobId) -> Option<Removed> {
        self.headless.remove(id);
        let kept = self.jobs.remove(&id)?;
        let surplus = kept.ended_at.and_then(|at| self.ended.surplus(at, id));
        self.unindex(id, &kept);
        Some(Removed {
            why: surplus.unwrap_or(Why::Age),
            ended_at: kept.ended_at,
            bytes: kept.bytes,
        })
    }
}
