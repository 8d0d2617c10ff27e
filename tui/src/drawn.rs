//! What the last frame showed: which row was selected, and which was where. What a key or a click is
//! about is what the person saw, also where the lists have moved since. A part of the model; no
//! cells.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::projection::EventKey;
use ratatui::layout::{Position, Rect};

use crate::keymap::Action;
use crate::model::{Model, Pane};

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pick {
    /// A job.
    Job(JobId),
    /// A machine.
    Machine(MachineId),
    /// An event.
    Event(EventKey),
}

/// The rows of a list on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    /// Whose.
    pub(crate) pane: Pane,
    /// Where they are.
    pub(crate) body: Rect,
    /// What is in each; none for those that are no row of the list.
    pub(crate) picks: Vec<Option<Pick>>,
}

/// What the last frame showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drawn {
    /// The rows; none before the first frame.
    rows: Option<Vec<Rows>>,
    /// What was selected where the focus is: as drawn, or by a key since then.
    selected: Option<(Pane, Option<Pick>)>,
    /// The same while an action is done that is about it.
    hand: Option<(Pane, Option<Pick>)>,
}

impl Drawn {
    /// What an action is about that is done now; none outside of one.
    pub(crate) fn hand(&self, pane: Pane) -> Option<Option<&Pick>> {
        let (of, pick) = self.hand.as_ref()?;
        (*of == pane).then_some(pick.as_ref())
    }
}

impl Pick {
    /// What is selected where the focus is.
    fn of_focus(model: &Model) -> Option<Self> {
        match model.focus() {
            Pane::Dispatches => model.selected_job().map(Self::Job),
            Pane::Inbox => model.inbox_job().map(Self::Job),
            Pane::Machines => model.selected_machine().map(Self::Machine),
            Pane::Events => model.selected_event().map(Self::Event),
            Pane::Bus => None,
        }
    }

    /// Whether it is still known.
    pub(crate) fn is_known(&self, model: &Model) -> bool {
        match self {
            Self::Job(id) => model.fleet.job(*id).is_some(),
            Self::Machine(id) => model.fleet.machines().contains_key(id),
            Self::Event(key) => model.fleet.events().contains_key(key),
        }
    }
}

/// Whether an action is about what is selected.
fn has_subject(action: Action) -> bool {
    matches!(
        action,
        Action::Open
            | Action::Why
            | Action::JumpMachine
            | Action::JumpDispatch
            | Action::JumpLog
            | Action::JumpEvents
            | Action::MarkRow
    ) || is_yank(action)
}

/// Whether it is about the marked rows, where there are any.
fn is_yank(action: Action) -> bool {
    matches!(
        action,
        Action::YankId | Action::YankLine | Action::YankJson | Action::YankCommand
    )
}

impl Model {
    /// These rows have been drawn.
    pub(crate) fn saw(&mut self, rows: Vec<Rows>) {
        self.drawn.rows = Some(rows);
        self.drawn.selected = Some((self.focus(), Pick::of_focus(self)));
    }

    /// Takes in hand what an action is about; whether it is still there.
    pub(crate) fn take_in_hand(&mut self, action: Action) -> bool {
        let free = self.detail.is_none() && self.ui.popup.is_none();
        let seen = self.drawn.selected.as_ref().filter(|_| free);
        let seen = seen.filter(|(pane, _)| has_subject(action) && *pane == self.focus());
        let seen = seen.cloned();
        let known = match &seen {
            Some((_, Some(pick))) => is_yank(action) || pick.is_known(self),
            _ => true,
        };
        self.drawn.hand = seen;
        known
    }

    /// What is in hand stays selected, whatever comes before it in the list.
    pub(crate) fn keep_in_hand(&mut self) {
        match self.drawn.hand.clone() {
            Some((_, Some(Pick::Job(id)))) => self.job = Some(id),
            Some((_, Some(Pick::Machine(id)))) => self.machine = Some(id),
            Some((_, Some(Pick::Event(key)))) => self.event = Some(key),
            _ => {}
        }
    }

    /// An action was done: what it selected is what the next one is about.
    pub(crate) fn let_go(&mut self) {
        let held = self.drawn.hand.take();
        let moved = match &held {
            Some((pane, Some(Pick::Job(id)))) => {
                *pane != self.focus() || self.job.is_some_and(|job| job != *id)
            }
            Some((pane, Some(Pick::Machine(id)))) => {
                *pane != self.focus() || self.machine.as_ref().is_some_and(|m| m != id)
            }
            Some((pane, Some(Pick::Event(key)))) => {
                *pane != self.focus() || self.event.is_some_and(|event| event != *key)
            }
            _ => true,
        };
        if moved && self.drawn.selected.is_some() {
            self.drawn.selected = Some((self.focus(), Pick::of_focus(self)));
        }
    }

    /// Selects what is in a row that was drawn, so that it stays where it is.
    pub(crate) fn pick(&mut self, pane: Pane, pick: &Pick, above: usize) {
        match pick {
            Pick::Job(id) => (self.job, self.lists.jobs.above) = (Some(*id), above),
            Pick::Machine(id) => {
                self.machine = Some(id.clone());
                self.lists.machines.above = above;
            }
            Pick::Event(key) => {
                // The newest one follows.
                let newest = self
                    .events_shown()
                    .next()
                    .is_some_and(|row| row.key == *key);
                self.event = (!newest).then_some(*key);
                self.lists.events.above = above;
            }
        }
        if self.drawn.selected.is_some() {
            self.drawn.selected = Some((pane, Some(pick.clone())));
        }
    }

    /// What the last frame showed in a cell, and how many rows are above it; `now` are the rows
    /// where nothing was drawn yet.
    pub(crate) fn drawn_at(
        &self,
        (column, row): (u16, u16),
        now: impl FnOnce(&Self) -> Vec<Rows>,
    ) -> Option<(Pane, Pick, usize)> {
        let at = Position::new(column, row);
        let now = match &self.drawn.rows {
            Some(_) => Vec::new(),
            None => now(self),
        };
        let mut all = self.drawn.rows.iter().flatten().chain(&now);
        let rows = all.find(|rows| rows.body.contains(at))?;
        let y = usize::from(row - rows.body.y);
        let pick = rows.picks.get(y)?.clone()?;
        let above = rows.picks.iter().take(y).flatten().count();
        Some((rows.pane, pick, above))
    }
}
