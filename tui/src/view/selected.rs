//! The selected dispatch in a few lines: where it stands, its way so far with what each part took,
//! and the keys that lead on from here.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::{detail, path, table, words};
use crate::keymap::Action;
use crate::model::Model;
use crate::text;
use crate::widget;

/// Draws it.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(job) = model.selected_job().and_then(|id| model.fleet.job(id)) else {
        let inner = widget::pane(buf, area, look, false, "Selected", "");
        return table::teach(buf, inner, look, "nothing to select yet");
    };
    let id = words::prefix(&model.fleet, job.id);
    let title = format!("Selected {} {id} {}", look.dot(), words::title(job));
    let title = text::escape(&title);
    let room = usize::from(area.width).saturating_sub(title.width() + 12);
    let inner = widget::pane(buf, area, look, false, &title, &keys(model, room));
    let both = [
        detail::state_line(model, job, inner.width),
        path::line(model, job, usize::from(inner.width)),
    ];
    for (y, line) in (0..inner.height).zip(&both) {
        widget::line(buf, inner, y, line);
    }
}

/// The keys that lead on from here, as far as there is room.
fn keys(model: &Model, mut room: usize) -> String {
    let mut keys = Vec::new();
    for (action, word) in [
        (Action::Open, "open"),
        (Action::Why, "why"),
        (Action::JumpMachine, "machine"),
        (Action::JumpLog, "log"),
    ] {
        let key = model.ui.keymap.key_of(action);
        let text = format!("{} {word}", key.replace(' ', ""));
        if key.is_empty() || text.width() + 2 > room {
            continue;
        }
        room -= text.width() + 2;
        keys.push(text);
    }
    keys.join("  ")
}
