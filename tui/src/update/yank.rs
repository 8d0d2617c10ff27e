//! To the clipboard, with a receipt.

use crate::keymap::Action;
use crate::model::{Cmd, Model};
use crate::text;
use crate::yank;

/// Copies what an action is about.
pub(super) fn yank(model: &mut Model, action: Action) -> Vec<Cmd> {
    let subjects = yank::subjects(model);
    let copied = yank::text(model, action, &subjects);
    if copied.is_empty() {
        model.say("nothing is selected here that could be copied");
        return Vec::new();
    }
    if copied.len() > yank::MAX_BYTES {
        let size = text::bytes(copied.len() as u64);
        let most = text::bytes(yank::MAX_BYTES as u64);
        model.say(format!("not copied: {size}, and clipboards take {most}"));
        return Vec::new();
    }
    let what = match action {
        Action::YankId => "id",
        Action::YankLine => "line",
        Action::YankJson => "JSON",
        _ => "command",
    };
    let lines = copied.lines().count();
    model.say(match lines {
        1 => format!("copied {what}: {copied}"),
        lines => format!("copied {what} of {lines} rows"),
    });
    vec![Cmd::Copy(copied)]
}
