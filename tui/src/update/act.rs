//! What each action does. What takes more than a line is in a file of its own beside this one.

use crate::keymap::Action;
use crate::model::{Cmd, Model, Pane, Screen};
use crate::ui::Popup;

use super::{log, open, select, topology};

/// Does it; what is to be done outside.
pub(super) fn act(model: &mut Model, action: Action, _free: Option<char>) -> Vec<Cmd> {
    match action {
        Action::Leave => return vec![Cmd::Quit],
        Action::LeaveKeeping => return vec![Cmd::QuitKeeping],
        Action::Suspend => return vec![Cmd::Suspend],
        Action::Close => return close(model),
        Action::Back => return back(model),
        Action::Help => toggle(model, Popup::Help),
        Action::Why => why(model),
        Action::Screen(screen) => return go(model, screen),
        Action::Next => return step(model, 1),
        Action::Previous => return step(model, -1),
        Action::Open => return open::selected(model),
        Action::JumpMachine => return open::jump_machine(model),
        Action::JumpDispatch | Action::JumpLog => return open::jump_job(model),
        Action::Follow => select::follow(model),
        Action::Up => select::scroll(model, -1),
        Action::Down => select::scroll(model, 1),
        Action::PageUp => select::scroll(model, -select::page(model)),
        Action::PageDown => select::scroll(model, select::page(model)),
        Action::First => select::scroll(model, i64::MIN),
        Action::Last => select::scroll(model, i64::MAX),
        Action::CellLeft => topology::step(model, 0, -1),
        Action::CellRight => topology::step(model, 0, 1),
        Action::ZoomIn | Action::ZoomOut | Action::ZoomFit => topology::zoom(model, action),
        Action::Left => log::sideways(model, false),
        Action::Right => log::sideways(model, true),
        Action::Wrap => log::wrap(model),
        Action::Times => log::times(model),
    }
    Vec::new()
}

fn toggle(model: &mut Model, popup: Popup) {
    let ui = &mut model.ui;
    ui.popup = match ui.popup.take() {
        Some(open) if open == popup => None,
        _ => Some(popup),
    };
}

fn why(model: &mut Model) {
    if matches!(model.ui.popup, Some(Popup::Why(_))) {
        model.ui.popup = None;
    } else if model.subject_job().is_some() || model.subject_machine().is_some() {
        model.ui.popup = Some(Popup::Why(0));
    } else {
        model.say("why: nothing is selected here");
    }
}

/// One step back: what is over the screen, then what is opened. Never out.
fn back(model: &mut Model) -> Vec<Cmd> {
    if model.ui.popup.take().is_some() {
        return Vec::new();
    }
    open::close(model)
}

/// One step back, and out where there is none left.
fn close(model: &mut Model) -> Vec<Cmd> {
    if model.ui.popup.is_none() && model.detail.is_none() {
        return vec![Cmd::Quit];
    }
    back(model)
}

pub(super) fn go(model: &mut Model, screen: Screen) -> Vec<Cmd> {
    model.ui.popup = None;
    model.screen = screen;
    open::close(model)
}

/// All places that Tab goes through: the panes of the first screen, then the other screens.
const PLACES: [(Screen, Pane); 8] = [
    (Screen::Fleet, Pane::Machines),
    (Screen::Fleet, Pane::Dispatches),
    (Screen::Fleet, Pane::Events),
    (Screen::Dispatches, Pane::Dispatches),
    (Screen::Machines, Pane::Machines),
    (Screen::Events, Pane::Events),
    (Screen::Bus, Pane::Bus),
    (Screen::Inbox, Pane::Inbox),
];

fn step(model: &mut Model, by: isize) -> Vec<Cmd> {
    let here = (model.screen, model.focus());
    let at = PLACES.iter().position(|p| *p == here).unwrap_or(0);
    let to = at.cast_signed() + by;
    let to = to.rem_euclid(PLACES.len().cast_signed()).unsigned_abs();
    let (screen, pane) = PLACES[to];
    if screen == Screen::Fleet {
        model.pane = pane;
    }
    go(model, screen)
}
