//! The answer to the question whether to leave.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::keymap::{Action, Found, Key};
use crate::model::{Cmd, Model};

/// Takes a key as the answer; none where nothing is asked. Only `y` is a yes; another key that
/// leaves is no answer: whoever holds Ctrl-c down has not read the question.
pub(super) fn answer(model: &mut Model, event: &KeyEvent, pressed: Key) -> Option<Vec<Cmd>> {
    let asked = model.ui.leaving.asked.take()?;
    let plain = !event
        .modifiers
        .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    if plain && matches!(event.code, KeyCode::Char('y' | 'Y')) {
        return Some(vec![asked]);
    }
    let found = model.ui.keymap.look(model.place(), &[], pressed);
    match found {
        Found::Action(Action::Leave | Action::LeaveKeeping | Action::Close, _) => {
            model.ui.leaving.asked = Some(asked);
        }
        _ => model.say("stays: nothing was ended"),
    }
    Some(Vec::new())
}
