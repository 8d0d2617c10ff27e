//! Ended jobs that were removed and that nobody was told of yet: each by its id, many in one event.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::event::kind;
use fleet_contract::ids::JobId;
use fleet_contract::keeper::{Removed, Why};
use fleet_contract::time::Time;
use serde_json::json;
use tokio::time::Instant;

use crate::flow::NewEvent;

/// Jobs named in one event: whoever asks for a removed job is answered by it.
const NAMED_MAX: usize = 1000;
/// They are told this often, and sooner where there are many.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What was removed, by why.
#[derive(Debug, Default)]
pub(super) struct Untold {
    by_why: BTreeMap<Why, Batch>,
    /// When there is something to tell; none while there is nothing.
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<JobId>,
    bytes: u64,
    /// When the first and the last of them had ended.
    ended: Option<(Time, Time)>,
}

impl Untold {
    pub(super) fn add(&mut self, job: JobId, removed: &Removed, now: Instant) {
        let batch = self.by_why.entry(removed.why).or_default();
        batch.jobs.push(job);
        batch.bytes = batch.bytes.saturating_add(removed.bytes);
        if let Some(at) = removed.ended_at {
            let (first, last) = batch.ended.unwrap_or((at, at));
            batch.ended = Some((first.min(at), last.max(at)));
        }
        let soon = match batch.jobs.len() >= NAMED_MAX {
            true => now,
            false => now + TOLD_EVERY,
        };
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// When [`Untold::take`] has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be told now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<NewEvent> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        let by_why = std::mem::take(&mut self.by_why).into_iter();
        by_why.map(|(why, batch)| batch.event(why)).collect()
    }
}

impl Batch {
    fn event(self, why: Why) -> NewEvent {
        let (from, until) = self.ended.unzip();
        let detail = json!({
            "reason": why.to_string(),
            "count": self.jobs.len(),
            "bytes": self.bytes,
            "ended_from": from,
            "ended_until": until,
            "jobs": self.jobs,
        });
        NewEvent {
            kind: kind::JOB_PURGED,
            machine: None,
            job: None,
            attempt: None,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(why: Why, second: i64) -> Removed {
        Removed {
            why,
            ended_at: Some(Time::from_micros(second * 1_000_000)),
            bytes: 10,
        }
    }

    #[test]
    fn each_that_goes_is_named_in_time_and_with_why() {
        let mut untold = Untold::default();
        let now = Instant::now();
        assert_eq!(untold.due(), None);
        for n in 0..NAMED_MAX - 1 {
            let second = i64::try_from(n).unwrap();
            untold.add(crate::clock::job_id(), &removed(Why::Age, second), now);
        }
        assert!(untold.take(now).is_empty(), "together with what comes");
        untold.add(crate::clock::job_id(), &removed(Why::Bytes, 7), now);
        untold.add(crate::clock::job_id(), &removed(Why::Age, 5000), now);
        let told = untold.take(now);
        assert_eq!(told.len(), 2, "full: now");
        assert_eq!(told[0].detail["count"], 1000);
        assert_eq!(told[0].detail["bytes"], 10_000);
        assert_eq!(told[0].detail["jobs"].as_array().unwrap().len(), 1000);
        assert_eq!(told[0].detail["ended_from"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(told[0].detail["ended_until"], "1970-01-01T01:23:20.000000Z");
        assert_eq!(told[1].detail["count"], 1);
        assert!(untold.take(now + TOLD_EVERY).is_empty(), "once");
    }
}
