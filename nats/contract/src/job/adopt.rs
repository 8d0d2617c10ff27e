//! How a journal that went back in time takes back an attempt that a machine reports.

use super::{Attempt, Job, JobState, Open, Void, token_epoch};
use crate::ids::Writer;
use crate::outcome::{Outcome, OutputCount};
use crate::record::Change;
use crate::time::Time;

impl Job {
    /// Takes back an attempt that the journal lost with its tail, or that it asks about. Only the
    /// open attempt, or a later one than the journal knows where a recovery asks about the job.
    pub(super) fn adopt(
        &mut self,
        seq: u64,
        time: Time,
        writer: &Writer,
        change: &Change,
    ) -> Result<(), Void> {
        let impossible = || Void::Transition {
            kind: change.kind().to_owned(),
            state: self.state.word().to_string(),
        };
        let Change::Adopted {
            attempt,
            no,
            token,
            epoch,
            lease,
            ..
        } = change
        else {
            return Err(impossible());
        };
        let Writer::Machine(machine) = writer else {
            return Err(impossible());
        };
        let mine = |open: &Open| open.attempt == *attempt && open.machine == *machine;
        let blank = self.last_seq == 0;
        let adopts = match &self.state {
            JobState::Running { open, .. } => mine(open),
            JobState::NeedsHuman {
                open: Some(open), ..
            } if mine(open) => true,
            JobState::NeedsHuman { .. } => {
                self.recovered.is_some_and(|r| r <= *epoch) && *no >= self.next_no()
            }
            // The step of a first record begins here, whatever it is.
            _ => blank,
        };
        // A token of this or a later epoch is the journal's own to give.
        if !adopts || token_epoch(*token) >= *epoch || seq == 0 {
            return Err(impossible());
        }
        // Where it waits by what is left of the journal says nothing: the move to this machine may be
        // what was lost. What ran has run.
        let known = self.state.open().is_some_and(mine);
        if known {
            // It was counted as lost when it was asked about, and is not.
            if matches!(self.state, JobState::NeedsHuman { .. }) {
                self.losses = self.losses.saturating_sub(1);
            }
            if let Some(last) = self.attempts.last_mut() {
                (last.lease, last.epoch) = (*lease, *epoch);
            }
        } else {
            let outcome = Outcome::Unknown {
                reason: "the hub's store went back in time".to_owned(),
            };
            self.close_attempt(time, outcome);
            self.attempts.push(Attempt {
                id: *attempt,
                no: *no,
                machine: machine.clone(),
                token: *token,
                lease: *lease,
                epoch: *epoch,
                claimed_at: time,
                started_at: None,
                ended_at: None,
                outcome: None,
                output: OutputCount::default(),
            });
        }
        let cancel_requested = matches!(
            self.state,
            JobState::Running {
                cancel_requested: true,
                ..
            }
        );
        self.state = JobState::Running {
            open: Open {
                attempt: *attempt,
                machine: machine.clone(),
                token: *token,
            },
            cancel_requested,
        };
        Ok(())
    }
}
