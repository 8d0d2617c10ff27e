//! The palette and the help: opened, moved in, and done what is chosen in them.

use super::{act, open, select, typing};
use crate::input::TextLine;
use crate::keymap::{Action, Key};
use crate::model::{Cmd, Model};
use crate::palette::{self, Run};
use crate::ui::{Chooser, Pending, Popup};

/// Opens the palette, or the help.
pub(super) fn open(model: &mut Model, action: Action) {
    let chooser = Chooser {
        line: TextLine::default(),
        at: 0,
        place: model.place(),
    };
    model.ui.popup = Some(match action {
        Action::Help => Popup::Help(chooser),
        _ => Popup::Palette(chooser),
    });
}

/// Moves in what is chosen from, or in the list that is being filtered.
pub(super) fn step(model: &mut Model, by: isize) {
    let rows = palette::choices(model).len();
    match model.ui.chooser_mut() {
        Some(chooser) => {
            let last = rows.saturating_sub(1);
            chooser.at = chooser.at.saturating_add_signed(by).min(last);
        }
        None => select::list(model, by as i64),
    }
}

/// Moves by a page.
pub(super) fn page(model: &mut Model, down: bool) {
    let page = isize::try_from(select::page(model)).unwrap_or(1);
    step(model, if down { page } else { -page });
}

/// Does what is chosen.
pub(super) fn accept(model: &mut Model) -> Vec<Cmd> {
    let choices = palette::choices(model);
    let at = model.ui.chooser().map_or(0, |chooser| chooser.at);
    let Some(choice) = choices.into_iter().nth(at) else {
        model.say("nothing is called so");
        return Vec::new();
    };
    match choice.run {
        Run::Nothing => return Vec::new(),
        Run::Type(text) => {
            if let Some(chooser) = model.ui.chooser_mut() {
                chooser.line = TextLine::new(&text);
                chooser.at = 0;
            }
            return Vec::new();
        }
        _ => model.ui.popup = None,
    }
    match choice.run {
        Run::Action(action) => match model.ui.keymap.awaits(action) {
            // The character that it wants is still to come.
            Some(keys) => wait(model, keys),
            None => act::perform(model, action, None),
        },
        Run::Dispatch(id) => open::job(model, id),
        Run::Machine(id) => open::machine(model, id),
        Run::Filter(text) => {
            let pane = model.focus();
            typing::set_filter(model, pane, Some(&text));
            Vec::new()
        }
        Run::Nothing | Run::Type(_) => Vec::new(),
    }
}

fn wait(model: &mut Model, keys: Vec<Key>) -> Vec<Cmd> {
    let since = model.clock;
    model.ui.pending = Some(Pending { keys, since });
    Vec::new()
}
