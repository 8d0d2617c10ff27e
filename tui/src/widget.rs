//! The few things that every view is made of: panes with titles, rows of columns.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};
use unicode_width::UnicodeWidthStr;

use crate::text;
use crate::theme::{Look, Role};

/// Writes one line into row `y` of `area`, clipped; nothing where there is no such row.
pub(crate) fn line(buf: &mut Buffer, area: Rect, y: u16, line: &Line<'_>) {
    let area = area.intersection(buf.area);
    if y < area.height && area.width > 0 {
        buf.set_line(area.x, area.y + y, line, area.width);
    }
}

/// A line that fits `width` columns; where something is cut, the last one says so.
pub(crate) fn fitted(line: Line<'static>, width: usize, ellipsis: &str) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut room = width;
    let mut spans = Vec::with_capacity(line.spans.len());
    let mut rest = line.spans.into_iter().peekable();
    while let Some(span) = rest.next() {
        let wide = span.content.width();
        // The last one that fits whole has to leave room for the sign, if more follows.
        if wide < room || (wide == room && rest.peek().is_none()) {
            room -= wide;
            spans.push(span);
            continue;
        }
        let mut cut = text::clip(&span.content, room, ellipsis);
        if wide == room && !cut.is_empty() {
            cut = text::clip(&format!("{} ", span.content), room, ellipsis);
        }
        spans.push(Span::styled(cut, span.style));
        break;
    }
    Line::from(spans).style(line.style)
}

fn has_frame(area: Rect) -> bool {
    area.height >= 3 && area.width >= 12
}

/// What is inside a pane.
pub(crate) fn inside(area: Rect) -> Rect {
    if !has_frame(area) {
        return area;
    }
    Rect {
        x: area.x + 1,
        y: area.y + 1,
        width: area.width - 2,
        height: area.height - 2,
    }
}

/// Draws the frame of a pane; what is inside it. Too small for a frame: all of it is inside.
pub(crate) fn pane(
    buf: &mut Buffer,
    area: Rect,
    look: Look,
    focused: bool,
    title: &str,
    right: &str,
) -> Rect {
    let area = area.intersection(buf.area);
    if !has_frame(area) {
        return area;
    }
    let role = if focused { Role::Accent } else { Role::Plain };
    let room = usize::from(area.width).saturating_sub(6);
    let title = text::clip(title, room, look.ellipsis());
    let mut block = Block::bordered()
        .border_set(look.border())
        .border_style(look.style(if focused { Role::Accent } else { Role::Dim }))
        .title(Span::styled(
            format!(" {title} "),
            look.style(role)
                .add_modifier(Modifier::BOLD)
                .remove_modifier(Modifier::DIM),
        ));
    if !right.is_empty() && title.width() + right.width() + 4 <= room {
        let right = Span::styled(format!(" {right} "), look.style(Role::Dim));
        block = block.title(Line::from(right).right_aligned());
    }
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// One cell of a row.
pub(crate) struct Cell<'a> {
    /// Its text, as a peer may have written it.
    pub(crate) text: Cow<'a, str>,
    /// How it looks.
    pub(crate) style: Style,
}

/// A cell. What a peer wrote is made safe.
pub(crate) fn cell<'a>(text: impl Into<Cow<'a, str>>, style: Style) -> Cell<'a> {
    Cell {
        text: text.into(),
        style,
    }
}

/// Shows a row as the selected one.
pub(crate) fn select(buf: &mut Buffer, area: Rect, y: u16, look: Look) {
    if y < area.height {
        let row = Rect {
            y: area.y + y,
            height: 1,
            ..area
        };
        buf.set_style(row, look.selection());
    }
}

/// The first row to show so that the selected one is on screen, in the middle where it can be.
pub(crate) fn first_row(selected: usize, rows: usize, height: usize) -> usize {
    first_below(selected, height / 2, rows, height)
}

/// The first row to show, with so many rows above the selected one where that is possible.
pub(crate) fn first_below(selected: usize, above: usize, rows: usize, height: usize) -> usize {
    let above = above.min(height.saturating_sub(1)).min(selected);
    (selected - above).min(rows.saturating_sub(height))
}
