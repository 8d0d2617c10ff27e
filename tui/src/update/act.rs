//! What each action does. What takes more than a line is in a file of its own beside this one.

use crate::keymap::Action;
use crate::leave;
use crate::model::{Cmd, Model, Pane, Screen};
use crate::trail::Spot;
use crate::ui::Popup;

use super::{choose, jump, list, log, open, pause, select, topology, typing, yank};

/// Does it, and remembers where the person came from; what is to be done outside.
pub(super) fn act(model: &mut Model, action: Action, free: Option<char>) -> Vec<Cmd> {
    let goes_back = matches!(action, Action::ViewBefore | Action::ViewAfter);
    let before = Spot::of(model);
    let there = model.take_in_hand(action);
    let cmds = match there {
        true => perform(model, action, free),
        false => {
            model.say("what was selected is gone: nothing was done");
            Vec::new()
        }
    };
    model.let_go();
    if !goes_back && !before.is(&Spot::of(model)) {
        model.trail.went(before);
    }
    cmds
}

/// Does it; what is to be done outside.
pub(super) fn perform(model: &mut Model, action: Action, free: Option<char>) -> Vec<Cmd> {
    match action {
        Action::Leave => return leave::leave(model, Cmd::Quit),
        Action::LeaveKeeping => return leave::leave(model, Cmd::QuitKeeping),
        Action::Suspend if model.ui.leaving.with_hub => model.say(leave::STAYS),
        Action::Suspend => return vec![Cmd::Suspend],
        Action::Close => return close(model),
        Action::Back => return back(model),
        Action::Help | Action::Palette => choose::open(model, action),
        Action::Why => why(model),
        Action::Screen(screen) => return go(model, screen),
        Action::Next => return step(model, 1),
        Action::Previous => return step(model, -1),
        Action::Open if matches!(model.ui.popup, Some(Popup::Columns(_))) => list::toggle(model),
        Action::Open => return open::selected(model),
        Action::ViewBefore => return jump::step(model, false),
        Action::ViewAfter => return jump::step(model, true),
        Action::LastView => return jump::last(model),
        Action::JumpMachine => return open::jump_machine(model),
        Action::JumpDispatch => return open::jump_job(model),
        Action::JumpLog => return jump::log(model),
        Action::JumpEvents => return jump::events(model),
        Action::SetMark => jump::set_mark(model, free),
        Action::GoMark => return jump::go_mark(model, free),
        Action::Filter => typing::filter(model),
        Action::Search => typing::search(model),
        Action::NextMatch => select::find(model, true),
        Action::PreviousMatch => select::find(model, false),
        Action::MarkRow => list::mark(model),
        Action::MarkAll => list::mark_all(model),
        Action::Sort => list::sort(model),
        Action::SortTurned => list::turn(model),
        Action::Columns => list::columns(model),
        Action::Toggle => list::toggle(model),
        Action::Fold => list::fold(model),
        Action::Pause => pause::toggle(model),
        Action::Mouse => return mouse(model),
        Action::YankId | Action::YankLine | Action::YankJson | Action::YankCommand => {
            return yank::yank(model, action);
        }
        Action::Accept => return typing::accept(model),
        Action::Cancel => typing::cancel(model),
        Action::ChooseUp if typing::recall(model) => {}
        Action::ChooseUp => choose::step(model, -1),
        Action::ChooseDown => choose::step(model, 1),
        Action::EraseBefore
        | Action::EraseAt
        | Action::CursorLeft
        | Action::CursorRight
        | Action::CursorHome
        | Action::CursorEnd => typing::edit(model, action),
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

fn why(model: &mut Model) {
    if matches!(model.ui.popup, Some(Popup::Why(_))) {
        model.ui.popup = None;
    } else if model.subject_job().is_some() || model.subject_machine().is_some() {
        model.keep_in_hand();
        model.ui.popup = Some(Popup::Why(0));
    } else {
        model.say("why: nothing is selected here");
    }
}

fn mouse(model: &mut Model) -> Vec<Cmd> {
    let ui = &mut model.ui;
    ui.mouse = !ui.mouse;
    let on = ui.mouse;
    model.say(match on {
        true => "the mouse selects, opens and scrolls here",
        false => "the mouse is the terminal's again: it selects text",
    });
    vec![Cmd::Mouse(on)]
}

/// One step back: what is over the screen, what is opened, then the filter. Never out.
fn back(model: &mut Model) -> Vec<Cmd> {
    if model.ui.popup.take().is_some() {
        return Vec::new();
    }
    if model.detail.is_some() {
        return open::close(model);
    }
    let pane = model.focus();
    if model.lists.filter(pane).is_some() {
        typing::set_filter(model, pane, None);
    } else if model.screen == Screen::Fleet {
        // Whatever filter is seen here is cleared from here.
        let seen = Pane::FLEET.into_iter();
        if let Some(pane) = { seen }.find(|pane| model.lists.filter(*pane).is_some()) {
            typing::set_filter(model, pane, None);
        }
    }
    Vec::new()
}

/// One step back, and out where there is none left.
fn close(model: &mut Model) -> Vec<Cmd> {
    if model.ui.popup.is_none() && model.detail.is_none() {
        return leave::leave(model, Cmd::Quit);
    }
    back(model)
}

/// To a screen.
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
    if model.detail.is_some() {
        log::next_part(model, by);
        return Vec::new();
    }
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
