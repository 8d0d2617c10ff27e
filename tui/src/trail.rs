//! Where the person was: the views before and after this one, and places that were marked.

use std::collections::BTreeMap;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::projection::EventKey;

use crate::model::{Detail, Model, Pane, Screen};

/// Views that are remembered.
const MAX: usize = 50;

/// What is opened over a screen, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    Job(JobId),
    Machine(MachineId),
}

/// A view: a screen, what is opened over it, and what is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) screen: Screen,
    pub(crate) opened: Option<Opened>,
    pub(crate) pane: Pane,
    pub(crate) job: Option<JobId>,
    pub(crate) machine: Option<MachineId>,
    pub(crate) event: Option<EventKey>,
}

impl Spot {
    /// Where the person is.
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            screen: model.screen,
            opened: match &model.detail {
                Some(Detail::Job(detail)) => Some(Opened::Job(detail.id)),
                Some(Detail::Machine(id)) => Some(Opened::Machine(id.clone())),
                None => None,
            },
            pane: model.pane,
            job: model.job,
            machine: model.machine.clone(),
            event: model.event,
        }
    }

    /// Whether both are the same view, whatever is selected in it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.screen, &self.opened) == (other.screen, &other.opened)
    }
}

/// Where the person was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail {
    before: Vec<Spot>,
    after: Vec<Spot>,
    /// Places that were marked, by their character.
    pub(crate) marked: BTreeMap<char, Spot>,
}

impl Trail {
    /// The person went from `left` to another view.
    pub(crate) fn went(&mut self, left: Spot) {
        self.after.clear();
        self.before.push(left);
        if self.before.len() > MAX {
            self.before.remove(0);
        }
    }

    /// The view before, or the one after it; the present one is on the other side then.
    pub(crate) fn step(&mut self, here: Spot, forward: bool) -> Option<Spot> {
        let (from, to) = match forward {
            true => (&mut self.after, &mut self.before),
            false => (&mut self.before, &mut self.after),
        };
        let spot = from.pop()?;
        to.push(here);
        Some(spot)
    }

    /// The last view.
    pub(crate) fn last(&self) -> Option<&Spot> {
        self.before.last()
    }
}
