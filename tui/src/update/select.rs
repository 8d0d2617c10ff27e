//! Moving in what has the focus.

use fleet_contract::ids::JobId;

use super::{log, topology};
use crate::model::{Detail, Model, Pane};
use crate::ui::Popup;

/// Rows of a page.
pub(super) fn page(model: &Model) -> i64 {
    log::page(model).unwrap_or(i64::from(model.size.1.saturating_sub(8).max(1)))
}

/// Moves in what has the focus.
pub(super) fn scroll(model: &mut Model, by: i64) {
    let in_drawing = topology::has_focus(model);
    match (&mut model.ui.popup, &mut model.detail) {
        (Some(Popup::Help), _) | (None, Some(Detail::Machine(_))) => {}
        (Some(Popup::Why(top)), _) => {
            let by = isize::try_from(by).unwrap_or(isize::MAX);
            *top = top.saturating_add_signed(by).min(1000);
        }
        (None, Some(Detail::Job(_))) => log::scroll(model, by),
        (None, None) if in_drawing => topology::step(model, by, 0),
        (None, None) => select(model, by),
    }
}

/// Follows what is new again.
pub(super) fn follow(model: &mut Model) {
    match &mut model.detail {
        Some(Detail::Job(detail)) => log::follow(detail),
        Some(Detail::Machine(_)) => {}
        None => match model.focus() {
            Pane::Events => model.event = None,
            Pane::Dispatches | Pane::Inbox => model.job = None,
            Pane::Machines => model.machine = None,
            Pane::Bus => {}
        },
    }
}

fn select(model: &mut Model, by: i64) {
    let at = model.as_of();
    match model.focus() {
        Pane::Dispatches => {
            let ids: Vec<JobId> = model.fleet.worst_first(at).map(|j| j.id).collect();
            model.job = moved(&ids, model.selected_job().as_ref(), by);
        }
        Pane::Machines => {
            let all = model.fleet.machines_worst_first(at);
            let ids: Vec<_> = all
                .iter()
                .map(|(_, m)| m.presence.machine.clone())
                .collect();
            model.machine = moved(&ids, model.selected_machine().as_ref(), by);
        }
        Pane::Events => {
            let keys: Vec<_> = model.fleet.events().keys().rev().copied().collect();
            let to = moved(&keys, model.selected_event().as_ref(), by);
            // The newest one follows.
            model.event = to.filter(|key| keys.first() != Some(key));
        }
        Pane::Bus | Pane::Inbox => {}
    }
}

fn moved<T: PartialEq + Clone>(all: &[T], here: Option<&T>, by: i64) -> Option<T> {
    let at = here.and_then(|h| all.iter().position(|x| x == h));
    let at = i64::try_from(at.unwrap_or(0)).unwrap_or(i64::MAX);
    let last = i64::try_from(all.len()).unwrap_or(i64::MAX) - 1;
    let to = at.saturating_add(by).clamp(0, last.max(0));
    all.get(usize::try_from(to).unwrap_or(0)).cloned()
}
