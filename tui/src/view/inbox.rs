//! The inbox: what needs a person, failed or is lost.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::dispatches;
use crate::model::Model;
use crate::widget;

/// How much is in it.
pub(super) fn count(_model: &Model) -> usize {
    0
}

/// Draws it.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let inner = widget::pane(buf, area, model.look, focused, "Inbox", "");
    dispatches::teach(buf, inner, model.look, "not looked at yet");
}
