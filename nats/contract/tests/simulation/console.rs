//! A console as a model: it reads the journal in batches, of which some are lost and read again, and
//! folds them as the contract's projection. What it shows is what holds.

use fleet_contract::ids::JobId;
use fleet_contract::job::{Job, Void};
use fleet_contract::projection::{Fact, Fleet, JournalFact};

use super::bus::{Entry, SECOND};
use super::mutant::Mutant;
use super::world::{Event, World};

#[derive(Debug, Default)]
pub struct Console {
    fleet: Fleet,
    /// What its reader gets next.
    next: u64,
    /// It has seen that something is missing from here on.
    gap: Option<u64>,
    epoch: u64,
}

impl Console {
    pub fn lags(&self, epoch: u64, seq: u64) -> bool {
        self.epoch != epoch || self.next <= seq || self.gap.is_some()
    }
}

fn fact(entry: &Entry) -> Fact {
    let record = match &entry.record {
        Some(record) => Ok((**record).clone()),
        None => Err(Void::Unreadable("garbage".to_owned())),
    };
    Fact::Record(Box::new(JournalFact {
        job: entry.job,
        writer: entry.writer.clone(),
        seq: entry.seq,
        stored: entry.stored,
        time: entry.time,
        record,
    }))
}

/// What two folds of a job have to agree on: all but the times, which a console counts by when the
/// hub stored them.
fn same(shown: &Job, is: &Job) -> bool {
    let attempts = |job: &Job| {
        let one = |a: &fleet_contract::job::Attempt| {
            (
                a.id,
                a.no,
                a.machine.clone(),
                a.token,
                a.lease,
                a.outcome.clone(),
            )
        };
        job.attempts.iter().map(one).collect::<Vec<_>>()
    };
    shown.state == is.state
        && shown.target == is.target
        && shown.cause == is.cause
        && shown.losses == is.losses
        && shown.voids == is.voids
        && shown.void_on_top == is.void_on_top
        && shown.last_seq == is.last_seq
        && shown.recovered == is.recovered
        && attempts(shown) == attempts(is)
}

impl World {
    pub fn console_reads(&mut self) {
        let pause = self.rng.range(SECOND / 5, 6 * SECOND);
        self.at(self.now + pause, Event::Console);
        let Some(epoch) = self.bus.vouched().filter(|_| !self.hub_down) else {
            return;
        };
        if self.console.epoch != epoch && self.mutant != Mutant::OldEpochReadOn {
            // Another store: what was read says nothing.
            self.console = Console {
                epoch,
                ..Console::default()
            };
            self.hit("console begins anew");
        }
        if let Some(from) = self.console.gap.take()
            && self.mutant != Mutant::GapNotHealed
        {
            self.hit("console heals a gap");
            // Some of it for the second time.
            self.console.next = from.saturating_sub(self.rng.range(0, 4));
        }
        let most = usize::try_from(self.rng.range(1, 60)).unwrap();
        let most = if self.calm { usize::MAX } else { most };
        let batch = self.bus.journal.since(self.console.next);
        let mut facts: Vec<(u64, JobId, Fact)> = batch
            .iter()
            .take(most)
            .map(|entry| (entry.seq, entry.job, fact(entry)))
            .collect();
        let Some(last) = facts.last().map(|(seq, ..)| *seq) else {
            self.console.next = self.console.next.max(self.bus.journal.seq + 1);
            return;
        };
        self.console.next = last + 1;
        if !self.calm && facts.len() > 1 && self.rng.chance(15) {
            // The rest came faster than it was read.
            let kept = usize::try_from(self.rng.range(0, facts.len() as u64)).unwrap();
            let lost = facts.split_off(kept);
            self.console.gap = lost.first().map(|(seq, ..)| *seq);
        }
        for (_, _, fact) in &facts {
            self.console.fleet.fold(fact);
        }
        let begins = self.bus.journal.log.first().map_or(0, |e| e.seq);
        self.console.fleet.fold(&Fact::JournalBegins(begins));
        for (_, job, _) in facts {
            self.check_console(job);
        }
    }

    /// Where the console has read as much of a job as there is, it shows what holds.
    fn check_console(&mut self, id: JobId) {
        let (Some(shown), Some(is)) = (self.console.fleet.job(id), self.truth.get(&id)) else {
            return;
        };
        let reborn = self.reborn.contains(&id);
        if shown.last_seq == is.last_seq && !same(shown, is) && !reborn {
            let what = format!(
                "the projection shows {id} as {:?}, it is {:?}",
                shown.state, is.state
            );
            self.violated(what);
        }
    }

    pub fn check_console_whole(&mut self) {
        let fleet = &self.console.fleet;
        for (id, is) in &self.truth {
            let shown = fleet.job(*id);
            if !shown.is_some_and(|shown| same(shown, is)) && !self.reborn.contains(id) {
                let shown = shown.map(|job| &job.state);
                let what = format!(
                    "the projection shows {id} as {shown:?}, it is {:?}",
                    is.state
                );
                return self.violated(what);
            }
        }
        let ghost = fleet
            .jobs()
            .keys()
            .find(|id| !self.truth.contains_key(*id) && !self.bus.journal.purged.contains_key(*id));
        if let Some(id) = ghost {
            self.violated(format!("the projection shows {id}, which is not there"));
        }
    }
}
