//! The question before the console is left where hub and agent end with it: over everything, at
//! any size.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::popup;
use crate::leave;
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::widget;

/// Draws it in a frame, where there is room for one.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let Some(lines) = lines(model, usize::from(area.width).saturating_sub(4)) else {
        return;
    };
    let right = "y leaves, else it stays";
    let inner = popup::frame(model, area, lines.len(), "Leave", right, buf);
    let inside = Rect {
        x: inner.x.saturating_add(1),
        width: inner.width.saturating_sub(1),
        ..inner
    };
    for (y, line) in (0..inner.height).zip(lines) {
        widget::line(buf, inside, y, &line);
    }
}

/// Draws it alone; whether anything is asked.
pub(super) fn small(model: &Model, area: Rect, buf: &mut Buffer) -> bool {
    let Some(lines) = lines(model, usize::from(area.width)) else {
        return false;
    };
    for (y, line) in (0..area.height).zip(lines) {
        widget::line(buf, area, y, &line);
    }
    true
}

fn lines(model: &Model, width: usize) -> Option<Vec<Line<'static>>> {
    let roles = [Role::Attention, Role::Plain];
    let parts = leave::question(model)?.into_iter().zip(roles);
    let lines = parts.flat_map(|(part, role)| {
        let rows = text::wrap(&part, width.max(1));
        let rows = rows.into_iter().map(|range| part[range].to_owned());
        let style = model.look.style(role);
        rows.map(|row| Line::styled(row, style)).collect::<Vec<_>>()
    });
    Some(lines.collect())
}
