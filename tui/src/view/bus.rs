//! The bus: the hub, its streams, how far behind their readers are, and what was lost.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::dispatches;
use crate::model::Model;
use crate::widget;

/// Draws it.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let inner = widget::pane(buf, area, model.look, focused, "Bus", "");
    dispatches::teach(buf, inner, model.look, "not looked at yet");
}
