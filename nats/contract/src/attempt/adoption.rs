//! An attempt of an earlier epoch at a hub whose store went back in time: it is put into the new
//! journal by its id, unless another decision holds there.

use super::{Attempt, Effect, Gone, Stage};
use crate::ids::Writer;
use crate::job::first_record;
use crate::outcome::{Outcome, OutputCount};
use crate::record::{After, Change, Record, StateWord};
use crate::spec::JobSpec;
use crate::ticket::Reading;
use crate::time::Time;

impl Attempt {
    /// The hub's store went back in time. What only a ticket speaks for is dropped; what has a
    /// process or an end is put into the new journal.
    pub(super) fn rebuilt(&mut self, epoch: u64, term: u64, now: Time) -> Vec<Effect> {
        if epoch <= self.hub || self.is_done() {
            return Vec::new();
        }
        (self.hub, self.term) = (epoch, term);
        (self.known, self.blanks, self.appending) = (0, 0, None);
        match &self.stage {
            Stage::Judging => return self.finish(Vec::new()),
            Stage::Claiming { .. } => {
                // Its claim may be in the journal; a process of it is not, and never will be.
                self.unclaimed = true;
                self.stage = Stage::Ending {
                    gone: Gone {
                        outcome: Outcome::Interrupted,
                        output: OutputCount::default(),
                        started_at: now,
                        ended_at: now,
                    },
                };
            }
            Stage::Running | Stage::Ending { .. } => {}
            Stage::Superseded | Stage::Done => return Vec::new(),
        }
        self.token = self.token();
        self.unknown = true;
        vec![Effect::ReadAll]
    }

    /// What the journal of a new epoch says about an attempt of an earlier one.
    pub(super) fn adopt_read(
        &mut self,
        reading: &Reading,
        refused: Option<u64>,
        now: Time,
    ) -> Vec<Effect> {
        if self.appending.is_some() {
            // Its own append is still on its way and will tell.
            return Vec::new();
        }
        let writer = Writer::Machine(self.me.clone());
        let own = [&reading.own, &reading.tip].into_iter().flatten();
        if own
            .filter(|tip| tip.readable && tip.writer == writer && tip.about == Some(self.id))
            .any(|tip| tip.ends)
        {
            return self.finish(vec![Effect::Forget]);
        }
        let Some(tip) = &reading.tip else {
            return self.adopt_first(now);
        };
        if !tip.readable || refused == Some(tip.seq) {
            return self.pause();
        }
        let after = &tip.after;
        let mine = after.attempt == Some(self.id);
        let asked = tip.recovered.is_some_and(|r| r <= self.hub) && self.no > after.attempts;
        if !mine && (self.unclaimed || !asked) {
            return self.give_way();
        }
        let counted_lost = mine && after.state == StateWord::NeedsHuman;
        self.losses = after.losses.saturating_sub(u32::from(counted_lost));
        self.learned = true;
        let after = After {
            state: StateWord::Running,
            attempt: Some(self.id),
            machine: Some(self.me.clone()),
            cancel_requested: after.cancel_requested,
            attempts: self.no,
            losses: self.losses,
        };
        let record = Record {
            prev: tip.seq,
            change: self.adoption(None),
            after,
        };
        self.append(Box::new(record))
    }

    fn adoption(&self, spec: Option<Box<JobSpec>>) -> Change {
        Change::Adopted {
            attempt: self.id,
            no: self.no,
            token: self.token.unwrap_or_default(),
            epoch: self.hub,
            lease: self.term,
            spec,
        }
    }

    /// The journal does not know the job at all.
    fn adopt_first(&mut self, now: Time) -> Vec<Effect> {
        if self.unclaimed {
            return self.finish(Vec::new());
        }
        let change = self.adoption(Some(Box::new(self.spec.clone())));
        let writer = Writer::Machine(self.me.clone());
        (self.losses, self.learned) = (0, true);
        match first_record(self.job, now, &writer, change) {
            Ok(record) => self.append(Box::new(record)),
            Err(_) => self.give_way(),
        }
    }

    /// Another decision holds in the new epoch.
    fn give_way(&mut self) -> Vec<Effect> {
        self.unknown = false;
        match self.stage.clone() {
            Stage::Ending { .. } if self.unclaimed => self.finish(Vec::new()),
            Stage::Ending { gone } => {
                self.finish(vec![Effect::Superseded(Box::new(gone)), Effect::Forget])
            }
            _ => {
                self.stage = Stage::Superseded;
                vec![Effect::Fence]
            }
        }
    }

    /// The journal knows it again.
    pub(super) fn adopted(&mut self, seq: u64, now: Time, draw: f64) -> Vec<Effect> {
        (self.claimed, self.known) = (Some(seq), seq);
        self.unknown = false;
        match self.stage {
            Stage::Ending { .. } => self.end(now, draw),
            // A wish to cancel may have come meanwhile.
            _ => vec![Effect::ReadAll],
        }
    }
}
