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
    if area.height < 3 || area.width < 12 {
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

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its width; 0 for none of it.
    pub(crate) width: usize,
    /// Whether it is aligned to the right.
    pub(crate) right: bool,
}

/// A column of this width.
pub(crate) const fn left(width: usize) -> Column {
    Column {
        width,
        right: false,
    }
}

/// A column of this width, aligned to the right.
pub(crate) const fn right(width: usize) -> Column {
    Column { width, right: true }
}

/// The width of a column whose cells are these, within bounds.
pub(crate) fn width<'a>(cells: impl Iterator<Item = &'a str>, least: usize, most: usize) -> usize {
    let widest = cells.map(|text| text::escape(text).width()).max();
    widest.unwrap_or(0).clamp(least.min(most), most)
}

/// One cell of a row.
pub(crate) struct Cell<'a> {
    text: Cow<'a, str>,
    style: Style,
}

/// A cell. What a peer wrote is made safe.
pub(crate) fn cell<'a>(text: impl Into<Cow<'a, str>>, style: Style) -> Cell<'a> {
    Cell {
        text: text.into(),
        style,
    }
}

/// A row of a list: a pointer if it is selected, then its cells, one column between two.
pub(crate) fn row(
    buf: &mut Buffer,
    area: Rect,
    y: u16,
    look: Look,
    selected: bool,
    columns: &[Column],
    cells: Vec<Cell<'_>>,
) {
    let mut spans = vec![Span::raw(if selected { look.pointer() } else { " " })];
    let mut room = usize::from(area.width).saturating_sub(1);
    for (column, cell) in columns.iter().zip(cells) {
        let width = column.width.min(room);
        if width == 0 {
            continue;
        }
        room = room.saturating_sub(width + 1);
        let text = text::clip(&text::escape(&cell.text), width, look.ellipsis());
        let pad = " ".repeat(width - text.width());
        // The space is not part of what is styled, or a reversed word would look like a bar.
        let (before, after) = match column.right {
            true => (pad, String::new()),
            false => (String::new(), pad),
        };
        spans.extend([
            Span::raw(before),
            Span::styled(text, cell.style),
            Span::raw(after + " "),
        ]);
    }
    let area = area.intersection(buf.area);
    line(buf, area, y, &Line::from(spans));
    if selected && y < area.height {
        let row = Rect {
            y: area.y + y,
            height: 1,
            ..area
        };
        buf.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
    }
}

/// The first row to show so that the selected one is on screen, in the middle where it can be.
pub(crate) fn first_row(selected: usize, rows: usize, height: usize) -> usize {
    selected
        .saturating_sub(height / 2)
        .min(rows.saturating_sub(height))
}
