//! What the mouse does: a click selects, focuses or opens a tab; a second one opens; the wheel moves
//! what is under it.

use std::time::Duration;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::{act, choose, list, log, select};
use crate::keymap::Action;
use crate::model::{Cmd, Detail, Model, Pane, Screen};
use crate::ui::{Click, Popup};
use crate::view::{self, Hit};

/// Two clicks on one cell within this time are a double click.
const DOUBLE: Duration = Duration::from_millis(400);
/// Rows that one notch of the wheel moves.
const NOTCH: i64 = 3;

/// Takes what the mouse did.
pub(super) fn take(model: &mut Model, event: &MouseEvent) -> Vec<Cmd> {
    if !model.ui.mouse {
        return Vec::new();
    }
    let at = (event.column, event.row);
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => click(model, at),
        MouseEventKind::ScrollUp => wheel(model, at, -NOTCH),
        MouseEventKind::ScrollDown => wheel(model, at, NOTCH),
        _ => Vec::new(),
    }
}

fn click(model: &mut Model, (column, row): (u16, u16)) -> Vec<Cmd> {
    model.ui.hush();
    model.ui.pending = None;
    let at = (column, row);
    let before = model.ui.clicked.take();
    let before = before.filter(|click| click.at == at && model.clock.since(click.when) <= DOUBLE);
    let double = before.is_some();
    let hit = view::hit(model, column, row);
    let in_list = matches!(hit, Hit::Row(..) | Hit::Pane(_));
    // The second click is about what the first one selected, wherever that is by now.
    let picked = match before {
        Some(click) => click.picked,
        None => model.drawn_at(at, view::rows).filter(|_| in_list),
    };
    if !double {
        let (when, picked) = (model.clock, picked.clone());
        model.ui.clicked = Some(Click { when, at, picked });
    }
    match (hit, picked) {
        (Hit::Tab(screen), _) => return act::act(model, Action::Screen(screen), None),
        (Hit::Row(..) | Hit::Pane(_), Some((pane, pick, above))) => {
            focus(model, pane);
            // The list does not move under the mouse.
            model.pick(pane, &pick, above);
            if double {
                return act::act(model, Action::Open, None);
            }
        }
        (Hit::Row(pane, ..) | Hit::Pane(pane), None) => focus(model, pane),
        (Hit::Choice(row), _) => return pick(model, row, double),
        (Hit::Popup | Hit::Detail | Hit::Nothing, _) => {}
    }
    Vec::new()
}

/// Gives a pane of the screen the focus.
fn focus(model: &mut Model, pane: Pane) {
    // What is typed there is done with.
    model.ui.input = None;
    if model.screen == Screen::Fleet {
        model.pane = pane;
    }
}

fn pick(model: &mut Model, row: usize, double: bool) -> Vec<Cmd> {
    match &mut model.ui.popup {
        Some(Popup::Columns(at)) => {
            *at = row;
            list::toggle(model);
        }
        Some(Popup::Help(chooser) | Popup::Palette(chooser)) => {
            chooser.at = row;
            // Where there is no such row nothing is pointed at beyond the last.
            choose::step(model, 0);
            if double {
                return act::act(model, Action::Accept, None);
            }
        }
        Some(Popup::Why(_)) | None => {}
    }
    Vec::new()
}

fn wheel(model: &mut Model, (column, row): (u16, u16), by: i64) -> Vec<Cmd> {
    match view::hit(model, column, row) {
        Hit::Row(pane, ..) | Hit::Pane(pane) => {
            focus(model, pane);
            select::list(model, by);
            model.let_go();
        }
        Hit::Detail if matches!(model.detail, Some(Detail::Job(_))) => log::scroll(model, by),
        Hit::Choice(_) | Hit::Popup => match &model.ui.popup {
            Some(Popup::Help(_) | Popup::Palette(_)) => choose::step(model, by.signum() as isize),
            _ => select::scroll(model, by.signum()),
        },
        Hit::Detail | Hit::Tab(_) | Hit::Nothing => {}
    }
    Vec::new()
}
