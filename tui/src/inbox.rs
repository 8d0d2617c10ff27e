//! What wants a person: which dispatches, in which order, in which groups. No cells here.

use fleet_contract::ids::JobId;
use fleet_contract::job::Job;
use fleet_contract::record::StateWord;

use crate::drawn::Pick;
use crate::model::{Model, Pane};

/// What is in it, in its order: what waits for a person, what was lost, until somebody says how it
/// ended, of what more ran than counts, until somebody acknowledges that, and what failed within the
/// last hour, as on the top of the worst-first list.
pub(crate) fn jobs(model: &Model) -> impl Iterator<Item = &Job> {
    model.fleet.worst_first(model.as_of()).take(count(model))
}

/// How much is in it.
pub(crate) fn count(model: &Model) -> usize {
    let (fleet, at) = (&model.fleet, model.as_of());
    let decide = fleet.count(StateWord::NeedsHuman) + fleet.count(StateWord::Lost);
    decide + fleet.superseded() + fleet.freshly_failed(at)
}

/// Which group a job belongs to: its place and what it is called.
pub(crate) fn group(job: &Job) -> Option<(u8, &'static str)> {
    match job.state.word() {
        StateWord::NeedsHuman => Some((0, "waits for a person")),
        StateWord::Lost => Some((1, "lost: nobody knows how it ended")),
        _ if job.unacknowledged() > 0 => Some((2, "ran twice, or on after its end")),
        StateWord::Failed | StateWord::TimedOut | StateWord::Rejected | StateWord::Expired => {
            Some((3, "failed, timed out or never started"))
        }
        _ => None,
    }
}

impl Model {
    /// The dispatch that is selected in the inbox: the selected one where it is in it, else the
    /// first.
    pub(crate) fn inbox_job(&self) -> Option<JobId> {
        if let Some(pick) = self.drawn.hand(Pane::Inbox) {
            return match pick {
                Some(Pick::Job(id)) => Some(*id),
                _ => None,
            };
        }
        let selected = self.job.and_then(|id| self.fleet.job(id));
        let kept = selected
            .filter(|job| group(job).is_some() && jobs(self).any(|other| other.id == job.id));
        kept.or_else(|| jobs(self).next()).map(|job| job.id)
    }
}
