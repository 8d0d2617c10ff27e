//! Moving in what has the focus.

use super::{log, topology};
use crate::columns;
use crate::filter::Sieve;
use crate::inbox;
use crate::model::{Detail, Model, Pane};
use crate::ui::Popup;
use crate::view;

/// Rows of a page.
pub(super) fn page(model: &Model) -> i64 {
    log::page(model).unwrap_or(i64::from(model.size.1.saturating_sub(8).max(1)))
}

/// Moves in what has the focus.
pub(super) fn scroll(model: &mut Model, by: i64) {
    let in_drawing = topology::has_focus(model);
    let step = isize::try_from(by).unwrap_or(isize::MAX);
    let columns = columns::choice(model.focus()).count();
    match (&mut model.ui.popup, &mut model.detail) {
        (Some(Popup::Help(_) | Popup::Palette(_)), _) => {}
        (None, Some(Detail::Machine(_))) => {
            let most = view::machine_most(model);
            let top = model.ui.machine_top.saturating_add_signed(step);
            model.ui.machine_top = top.min(most);
        }
        (Some(Popup::Why(top)), _) => *top = top.saturating_add_signed(step).min(1000),
        (Some(Popup::Columns(at)), _) => {
            *at = at
                .saturating_add_signed(step)
                .min(columns.saturating_sub(1));
        }
        (None, Some(Detail::Job(_))) => log::scroll(model, by),
        (None, None) if in_drawing => topology::step(model, by, 0),
        (None, None) => list(model, by),
    }
}

/// Follows what is new again.
pub(super) fn follow(model: &mut Model) {
    match &mut model.detail {
        Some(Detail::Job(detail)) => log::follow(detail),
        Some(Detail::Machine(_)) => model.ui.machine_top = 0,
        None => first(model),
    }
}

/// To the first row of the list, and stays there.
fn first(model: &mut Model) {
    let focus = model.focus();
    let lists = &mut model.lists;
    match focus {
        Pane::Events => (model.event, lists.events.above) = (None, 0),
        Pane::Dispatches | Pane::Inbox => (model.job, lists.jobs.above) = (None, 0),
        Pane::Machines => (model.machine, lists.machines.above) = (None, 0),
        Pane::Bus => {}
    }
}

/// Moves in the list that has the focus.
pub(super) fn list(model: &mut Model, by: i64) {
    let pane = model.focus();
    let (at, rows) = position(model, pane);
    let last = i64::try_from(rows).unwrap_or(i64::MAX) - 1;
    let from = i64::try_from(at).unwrap_or(i64::MAX);
    let to = from.saturating_add(by).clamp(0, last.max(0));
    choose(model, pane, usize::try_from(to).unwrap_or(0));
}

/// Where the selected row is, and how many there are.
pub(super) fn position(model: &Model, pane: Pane) -> (usize, usize) {
    match pane {
        Pane::Dispatches => {
            let selected = model.selected_job();
            let at = model.job_ids_shown().position(|id| Some(id) == selected);
            (at.unwrap_or(0), model.jobs_count())
        }
        Pane::Machines => {
            let selected = model.selected_machine();
            let at = model
                .machines_shown()
                .position(|(_, m)| Some(&m.presence.machine) == selected.as_ref());
            (at.unwrap_or(0), model.machines_count())
        }
        Pane::Events => {
            let selected = model.selected_event();
            let at = model
                .events_shown()
                .position(|row| Some(row.key) == selected);
            (at.unwrap_or(0), model.events_shown().count())
        }
        Pane::Inbox => {
            let selected = model.inbox_job();
            let at = inbox::jobs(model).position(|job| Some(job.id) == selected);
            (at.unwrap_or(0), inbox::count(model))
        }
        Pane::Bus => (0, 0),
    }
}

/// Selects a row, so that the list moves no more than it has to.
pub(super) fn choose(model: &mut Model, pane: Pane, to: usize) {
    let (at, _) = position(model, pane);
    let height = view::list_height(model, pane).max(1);
    let moved = |above: usize| {
        (above.min(at).min(height - 1) + to)
            .saturating_sub(at)
            .min(height - 1)
            .min(to)
    };
    // Who stands on the first row wants to see what is worst, also when worse comes.
    let stays = |above: usize| if to == 0 { usize::MAX } else { moved(above) };
    match pane {
        Pane::Dispatches => {
            let job = model.job_ids_shown().nth(to);
            model.job = job;
            model.lists.jobs.above = stays(model.lists.jobs.above);
        }
        Pane::Machines => {
            let machine = model.machines_shown().nth(to);
            let machine = machine.map(|(_, m)| m.presence.machine.clone());
            model.machine = machine;
            model.lists.machines.above = stays(model.lists.machines.above);
        }
        Pane::Events => {
            // The newest one follows.
            let row = model.events_shown().nth(to).filter(|_| to > 0);
            model.event = row.map(|row| row.key);
            model.lists.events.above = moved(model.lists.events.above);
        }
        Pane::Inbox => {
            let job = inbox::jobs(model).nth(to).map(|job| job.id);
            model.job = job;
        }
        Pane::Bus => {}
    }
}

/// The next row, or the one before, that the last filter lets through.
pub(super) fn find(model: &mut Model, forward: bool) {
    if model.detail.is_some() {
        return log::find(model, forward);
    }
    let pane = model.focus();
    let mut sieve = Sieve::new();
    let (at, now) = (model.as_of(), model.now);
    let lists = &model.lists;
    let found: Option<Vec<bool>> = match pane {
        Pane::Dispatches => lists.jobs.last.as_ref().map(|filter| {
            let jobs = model.jobs_shown();
            jobs.map(|job| sieve.job(filter, job, now)).collect()
        }),
        Pane::Machines => lists.machines.last.as_ref().map(|filter| {
            let each = model
                .machines_shown()
                .map(|(_, m)| sieve.machine(filter, m, at));
            each.collect()
        }),
        Pane::Events => lists.events.last.as_ref().map(|filter| {
            let events = model.fleet.events();
            let each = model.events_shown().map(|row| {
                let Some(event) = events.get(&row.key) else {
                    return false;
                };
                let job = event.job.and_then(|id| model.fleet.job(id));
                let title = job.map(|job| job.spec.title());
                sieve.event(filter, event, title.as_deref(), now)
            });
            each.collect()
        }),
        Pane::Bus | Pane::Inbox => None,
    };
    let Some(found) = found else {
        return model.say("nothing was looked for here yet: / begins");
    };
    let (here, rows) = position(model, pane);
    let steps = (1..=rows).map(|step| match forward {
        true => (here + step) % rows,
        false => (here + rows - step) % rows,
    });
    match { steps }.find(|at| found.get(*at) == Some(&true)) {
        Some(to) if to == here => model.say("this is the only match"),
        Some(to) => choose(model, pane, to),
        None => model.say("nothing here matches the last filter"),
    }
}
