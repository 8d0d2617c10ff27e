//! An attempt of an earlier epoch at a hub whose store went back in time: it is put into the new
//! journal by its id, unless another decision holds there.

use super::{Attempt, Effect, Found, Gone, Stage};
use crate::ids::Writer;
use crate::job::{first_record, token_epoch, token_seq};
use crate::lease::Mark;
use crate::outcome::{Outcome, OutputCount};
use crate::record::{After, Change, Record, StateWord};
use crate::spec::JobSpec;
use crate::ticket::{BLANKS_MAX, READ_AGAIN_MAX, Reading, Tip};
use crate::time::Time;

/// Whether an attempt that ended here before the hub's store went back, and that nobody keeps but a
/// small record of it, is to be put into the journal that is left: it waits for this attempt, asks
/// about a time in which it may have run, or was lost as a whole. `tip` is the journal's last record,
/// `left` where all journals ended when the recovery began.
#[must_use]
pub fn is_missed(found: &Found, tip: Option<&Tip>, left: Option<Mark>) -> bool {
    let Some(tip) = tip else {
        // With an earlier token it was purged before, and not lost.
        let claimed = Mark {
            epoch: token_epoch(found.token),
            seq: token_seq(found.token),
        };
        return left.is_some_and(|left| claimed > left);
    };
    let after = &tip.after;
    tip.readable
        && !after.state.is_terminal()
        && (after.attempt == Some(found.attempt)
            || (tip.recovered.is_some() && found.no > after.attempts))
}

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
            // The decision that it gave way to may be lost: then the journal waits for its end.
            Stage::Superseded => self.stage = Stage::Running,
            Stage::Done => return Vec::new(),
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
        let own = own
            .filter(|tip| tip.readable && tip.writer == writer && tip.about == Some(self.id))
            .max_by_key(|tip| tip.seq);
        if own.is_some_and(|own| own.ends) {
            return self.finish(vec![Effect::Forget]);
        }
        let Some(tip) = &reading.tip else {
            return self.adopt_first(now);
        };
        let believed = tip.rules() || tip.writer == writer;
        if !tip.readable || refused == Some(tip.seq) {
            return self.pause();
        }
        self.known = self.known.max(own.map_or(0, |own| own.seq));
        let after = &tip.after;
        let mine = believed && after.attempt == Some(self.id);
        // It is open by its own record, and nobody who may has ruled otherwise since: this reading is
        // older, or what another machine wrote over it does not count and the keeper will say so.
        let rulings = [&reading.operator, &reading.keeper, &reading.tip];
        let mut rulings = rulings.into_iter().flatten().filter(|tip| tip.rules());
        let ruled = rulings.any(|r| r.seq > self.known && r.after.attempt != Some(self.id));
        if !mine && self.known > 0 && !ruled {
            // Nor does anybody say anything over what does count: a later attempt that another
            // machine reported first.
            let other = tip.seq > self.known && !tip.rules() && tip.writer != writer;
            self.blanks += u32::from(other);
            if self.blanks < BLANKS_MAX {
                return self.pause();
            }
            return self.give_way();
        }
        let asked = tip.recovered.is_some_and(|r| r <= self.hub) && self.no > after.attempts;
        if !mine && (self.unclaimed || !asked) {
            // One reading may be old, and what it does not show open here.
            self.blanks += 1;
            if self.blanks < READ_AGAIN_MAX {
                return self.pause();
            }
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

    /// The journal does not know the job at all. One that was never started says so, too: its ticket
    /// may be all that was left of the job, and its claim may yet arrive.
    fn adopt_first(&mut self, now: Time) -> Vec<Effect> {
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
