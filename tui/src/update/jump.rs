//! Where the person was, marks of places, and the events of what is selected.

use super::{act, log, open, typing};
use crate::model::{Cmd, Detail, Model, Pane, Screen};
use crate::trail::{Opened, Spot};

/// Most places that can be called by a character.
const MARKS_MAX: usize = 100;

/// The view before, or the one after it.
pub(super) fn step(model: &mut Model, forward: bool) -> Vec<Cmd> {
    let here = Spot::of(model);
    match model.trail.step(here, forward) {
        Some(spot) => go(model, spot),
        None => {
            model.say(match forward {
                true => "there is no view after this one",
                false => "there is no view before this one",
            });
            Vec::new()
        }
    }
}

/// The last view.
pub(super) fn last(model: &mut Model) -> Vec<Cmd> {
    match model.trail.last().cloned() {
        Some(spot) => go(model, spot),
        None => {
            model.say("there is no view before this one");
            Vec::new()
        }
    }
}

/// Goes to a place.
fn go(model: &mut Model, spot: Spot) -> Vec<Cmd> {
    let mut cmds = act::go(model, spot.screen);
    model.pane = spot.pane;
    (model.job, model.machine, model.event) = (spot.job, spot.machine, spot.event);
    match spot.opened {
        None => {}
        Some(Opened::Job(id)) if model.fleet.job(id).is_some() => cmds = open::job(model, id),
        Some(Opened::Machine(id)) if model.fleet.machines().contains_key(&id) => {
            cmds.extend(open::machine(model, id));
        }
        Some(_) => model.say("what was open there is not known any more"),
    }
    cmds
}

/// Calls this place by a character.
pub(super) fn set_mark(model: &mut Model, free: Option<char>) {
    let Some(c) = free else { return };
    let spot = Spot::of(model);
    let marked = &mut model.trail.marked;
    if marked.len() >= MARKS_MAX && !marked.contains_key(&c) {
        return model.say("no more places can be marked");
    }
    marked.insert(c, spot);
    let key = model.ui.keymap.prefix_of(crate::keymap::Action::GoMark);
    model.say(format!("this place is {c}: {key}{c} comes back"));
}

/// Goes to a place that was called so.
pub(super) fn go_mark(model: &mut Model, free: Option<char>) -> Vec<Cmd> {
    let spot = free.and_then(|c| model.trail.marked.get(&c).cloned());
    match (spot, free) {
        (Some(spot), _) => go(model, spot),
        (None, Some(c)) => {
            let known: String = model.trail.marked.keys().collect();
            model.say(match known.as_str() {
                "" => format!("no place is called {c}, nor anything else yet"),
                known => format!("no place is called {c}; there are {known}"),
            });
            Vec::new()
        }
        (None, None) => Vec::new(),
    }
}

/// The output of what is selected, at the time of an event.
pub(super) fn log(model: &mut Model) -> Vec<Cmd> {
    let event = model
        .selected_event()
        .filter(|_| model.focus() == Pane::Events);
    let event = event.filter(|_| model.detail.is_none());
    let time = event.and_then(|key| model.fleet.events().get(&key).map(|e| e.written));
    let cmds = open::jump_job(model);
    if let (Some(time), false) = (time, cmds.is_empty()) {
        log::go_to(model, time);
    }
    cmds
}

/// The events of what is selected, or of the line of output that is read.
pub(super) fn events(model: &mut Model) -> Vec<Cmd> {
    if matches!(model.detail, Some(Detail::Job(_))) {
        return log::jump_event(model);
    }
    let terms = match (model.subject_job(), model.subject_machine()) {
        (Some(id), _) => format!("id:{id}"),
        (None, Some(machine)) => format!("m:{machine}"),
        (None, None) => {
            model.say("nothing is selected here that has events");
            return Vec::new();
        }
    };
    let cmds = act::go(model, Screen::Events);
    model.event = None;
    typing::set_filter(model, Pane::Events, Some(&terms));
    cmds
}
