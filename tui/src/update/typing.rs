//! Text that is typed: the filter of a list with its live preview, and what palette and help are
//! searched by.

use super::{choose, log};
use crate::filter::{Filter, Kind};
use crate::input::TextLine;
use crate::keymap::Action;
use crate::model::{Cmd, Detail, Model, Pane};
use crate::ui::{Input, Popup, Wanted};

fn kind(pane: Pane) -> Option<Kind> {
    match pane {
        Pane::Machines => Some(Kind::Machines),
        Pane::Dispatches => Some(Kind::Jobs),
        Pane::Events => Some(Kind::Events),
        Pane::Bus | Pane::Inbox => None,
    }
}

/// Begins to type a filter.
pub(super) fn filter(model: &mut Model) {
    let pane = model.focus();
    if kind(pane).is_none() {
        return model.say("there is nothing to filter here");
    }
    let before = model.lists.filter(pane).map_or("", |f| &f.text).to_owned();
    let line = TextLine::default();
    model.ui.input = Some(Input {
        fresh: !before.is_empty(),
        wanted: Wanted::Filter(pane),
        line,
        before,
        wrong: None,
    });
}

/// Begins to type what is looked for in the output.
pub(super) fn search(model: &mut Model) {
    let Some(Detail::Job(detail)) = &model.detail else {
        return;
    };
    let before = detail.log.search().wanted().to_owned();
    let line = TextLine::default();
    model.ui.input = Some(Input {
        fresh: !before.is_empty(),
        wanted: Wanted::Search,
        line,
        before,
        wrong: None,
    });
}

/// Sets a list's filter to this text, or takes it away; what is wrong with the text.
pub(super) fn set_filter(model: &mut Model, pane: Pane, text: Option<&str>) -> Option<String> {
    let kind = kind(pane)?;
    match Filter::parse(text.unwrap_or(""), kind) {
        Ok(filter) => {
            model.lists.set_filter(pane, filter);
            model.lists.spoil();
            None
        }
        Err(wrong) => Some(wrong),
    }
}

/// What was typed changed.
pub(super) fn changed(model: &mut Model) {
    if let Some(chooser) = model.ui.chooser_mut() {
        chooser.at = 0;
    }
    let Some(input) = &mut model.ui.input else {
        return;
    };
    input.fresh = false;
    let text = input.line.text().to_owned();
    let pane = match input.wanted {
        Wanted::Filter(pane) => pane,
        Wanted::Search => return log::search(model, &text),
    };
    let wrong = set_filter(model, pane, Some(&text));
    if wrong.is_some() {
        // What is right before the term that is wrong holds.
        let ends = text.match_indices(' ').map(|(at, _)| at).rev().chain([0]);
        for end in ends {
            if set_filter(model, pane, Some(&text[..end])).is_none() {
                break;
            }
        }
    }
    if let Some(input) = &mut model.ui.input {
        input.wrong = wrong;
    }
}

/// Brings back what stood before, to go on with it; whether there was anything to bring.
pub(super) fn recall(model: &mut Model) -> bool {
    let Some(input) = model.ui.input.as_mut().filter(|input| input.fresh) else {
        return false;
    };
    input.line = TextLine::new(&input.before);
    input.fresh = false;
    true
}

/// A character is typed.
pub(super) fn insert(model: &mut Model, c: char) {
    let empty = |line: &TextLine| line.text().is_empty();
    if matches!(&model.ui.popup, Some(Popup::Help(chooser)) if c == '?' && empty(&chooser.line)) {
        model.ui.popup = None;
    } else if model.ui.line().is_some_and(|line| line.insert(c)) {
        changed(model);
    }
}

/// Text comes from the clipboard; whether anything takes it.
pub(super) fn paste(model: &mut Model, text: &str) -> bool {
    let Some(line) = model.ui.line() else {
        return false;
    };
    line.paste(text);
    changed(model);
    true
}

/// Moves and removes.
pub(super) fn edit(model: &mut Model, action: Action) {
    let Some(line) = model.ui.line() else { return };
    match action {
        Action::EraseBefore => line.erase_before(),
        Action::EraseAt => line.erase_at(),
        Action::CursorLeft => return line.step(false),
        Action::CursorRight => return line.step(true),
        Action::CursorHome => return line.jump(false),
        _ => return line.jump(true),
    }
    changed(model);
}

/// Takes what was typed.
pub(super) fn accept(model: &mut Model) -> Vec<Cmd> {
    if model.ui.input.as_ref().is_some_and(|i| i.wrong.is_some()) {
        // It stays, with what is wrong beside it.
        return Vec::new();
    }
    if model.ui.input.take().is_some() {
        return Vec::new();
    }
    choose::accept(model)
}

/// Leaves it: what stood before stands again.
pub(super) fn cancel(model: &mut Model) {
    match model.ui.input.take() {
        Some(input) => match input.wanted {
            Wanted::Filter(pane) => drop(set_filter(model, pane, Some(&input.before))),
            Wanted::Search => log::search(model, &input.before),
        },
        None => model.ui.popup = None,
    }
}
