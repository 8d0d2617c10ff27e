//! What keys do to lists: marks, order, columns, folds.

use super::select;
use crate::columns;
use crate::model::{Model, Pane};
use crate::text;
use crate::ui::Popup;

/// Marks the selected row and goes on to the next.
pub(super) fn mark(model: &mut Model) {
    match model.focus() {
        Pane::Dispatches => {
            let Some(id) = model.selected_job() else {
                return;
            };
            model.lists.jobs.mark(id);
        }
        Pane::Machines => {
            let Some(id) = model.selected_machine() else {
                return;
            };
            model.lists.machines.mark(id);
        }
        Pane::Events => {
            let Some(key) = model.selected_event() else {
                return;
            };
            model.lists.events.mark(key);
        }
        Pane::Bus | Pane::Inbox => return model.say("rows cannot be marked here"),
    }
    select::scroll(model, 1);
}

/// Marks all rows that are shown; where all are marked, none.
pub(super) fn mark_all(model: &mut Model) {
    let marked = match model.focus() {
        Pane::Dispatches => {
            let all = model.jobs_shown().map(|job| job.id).collect();
            model.lists.jobs.mark_all(all);
            model.lists.jobs.marked.len()
        }
        Pane::Machines => {
            let all = model.machines_shown();
            let all = all.map(|(_, m)| m.presence.machine.clone()).collect();
            model.lists.machines.mark_all(all);
            model.lists.machines.marked.len()
        }
        Pane::Events => {
            let all = model.events_shown().map(|row| row.key).collect();
            model.lists.events.mark_all(all);
            model.lists.events.marked.len()
        }
        Pane::Bus | Pane::Inbox => return model.say("rows cannot be marked here"),
    };
    model.say(format!("{} marked", text::thousands(marked as u64)));
}

/// The order of the next column.
pub(super) fn sort(model: &mut Model) {
    let pane = model.focus();
    let sort = match pane {
        Pane::Dispatches => {
            model.lists.jobs.next_sort(pane);
            model.lists.jobs.sort
        }
        Pane::Machines => {
            model.lists.machines.next_sort(pane);
            model.lists.machines.sort
        }
        Pane::Events => return model.say("events are in the order in which they came"),
        Pane::Bus | Pane::Inbox => return model.say("there is no order to choose here"),
    };
    model.lists.spoil();
    model.say(match sort {
        Some(col) => format!("in the order of {}", col.name().to_lowercase()),
        None => "worst first".to_owned(),
    });
}

/// The same order from its other end.
pub(super) fn turn(model: &mut Model) {
    let turned = match model.focus() {
        Pane::Dispatches => &mut model.lists.jobs.reverse,
        Pane::Machines => &mut model.lists.machines.reverse,
        Pane::Events => return model.say("events are in the order in which they came"),
        Pane::Bus | Pane::Inbox => return model.say("there is no order to choose here"),
    };
    *turned = !*turned;
    model.lists.spoil();
}

/// Shows which columns there are.
pub(super) fn columns(model: &mut Model) {
    match model.focus() {
        Pane::Bus | Pane::Inbox => model.say("there are no columns to choose here"),
        Pane::Dispatches | Pane::Machines | Pane::Events => {
            model.ui.popup = Some(Popup::Columns(0))
        }
    }
}

/// Turns on or off what is pointed at.
pub(super) fn toggle(model: &mut Model) {
    let Some(Popup::Columns(at)) = model.ui.popup else {
        return;
    };
    let pane = model.focus();
    let Some(col) = columns::choice(pane).nth(at) else {
        return;
    };
    if !col.leaves() {
        return model.say(format!("{} is always shown", col.name()));
    }
    let shown = model.lists.has(pane, col);
    if let Some(chosen) = model.lists.chosen(pane) {
        chosen.insert(col, !shown);
    }
}

/// Folds what is routine among the events, or shows it.
pub(super) fn fold(model: &mut Model) {
    if model.focus() != Pane::Events {
        return model.say("only events can be folded");
    }
    model.lists.fold = !model.lists.fold;
    model.lists.spoil();
    model.say(match model.lists.fold {
        true => "routine is folded: queued, claimed, succeeded in a row are one line",
        false => "every event has its line",
    });
}
