//! From a key to an action: sequences begin, go on, and end.

use crossterm::event::{KeyCode, KeyEvent};

use super::{act, choose, leave, typing};
use crate::keymap::{Found, Key, Place, key};
use crate::model::{Cmd, Model};
use crate::ui::Pending;

/// Takes a key; what is to be done outside.
pub(super) fn press(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let Some(pressed) = Key::pressed(event) else {
        return Vec::new();
    };
    model.ui.hush();
    if let Some(cmds) = leave::answer(model, event, pressed) {
        return cmds;
    }
    let pending = model.ui.pending.take();
    let mut keys = pending.as_ref().map_or(Vec::new(), |p| p.keys.clone());
    let here = model.place();
    match model.ui.keymap.look(here, &keys, pressed) {
        Found::Action(action, free) => act::act(model, action, free),
        Found::Prefix => {
            keys.push(pressed);
            let since = pending.map_or(model.clock, |p| p.since);
            model.ui.pending = Some(Pending { keys, since });
            Vec::new()
        }
        // Leaving and suspending are never part of a sequence.
        Found::Nothing if matches!(pressed, Key::Ctrl(_)) && !keys.is_empty() => {
            press(model, event)
        }
        Found::Nothing if here == Place::Input => {
            match pressed {
                Key::Plain(KeyCode::PageUp) => choose::page(model, false),
                Key::Plain(KeyCode::PageDown) => choose::page(model, true),
                _ => {}
            }
            if let Some(c) = pressed.character() {
                typing::insert(model, c);
            }
            Vec::new()
        }
        Found::Nothing => {
            if !keys.is_empty() && pressed != Key::Plain(KeyCode::Esc) {
                keys.push(pressed);
                let shown = key::shown(&keys);
                model.say(format!("{shown} is no key here; ? shows those that are"));
            }
            Vec::new()
        }
    }
}
