//! A list of rows in columns: which columns there is room for, their header, the rows, and how many
//! are not on screen. It is given the rows that are on screen and no others.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::columns::Col;
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, Cell};

/// From so many rows on there is a header above them.
const HEADER_FROM: u16 = 5;

/// How wide a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// So wide.
    Is(usize),
    /// As wide as its cells, between these.
    Fit(usize, usize),
    /// As wide as its cells, from so much up to so many hundredths of what the others leave.
    Share(usize, usize),
    /// All that is left, but at least so much.
    Rest(usize),
}

impl Width {
    fn least(self) -> usize {
        match self {
            Self::Is(n) | Self::Fit(n, _) | Self::Share(n, _) | Self::Rest(n) => n,
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Which.
    pub(crate) col: Col,
    /// How wide.
    pub(crate) width: Width,
    /// Whether it is aligned to the right.
    pub(crate) right: bool,
    /// Columns with a higher number give way first.
    pub(crate) rank: u8,
}

/// A column aligned to the left.
pub(crate) const fn column(col: Col, width: Width, rank: u8) -> Column {
    Column {
        col,
        width,
        right: false,
        rank,
    }
}

/// A column aligned to the right.
pub(crate) const fn number(col: Col, width: Width, rank: u8) -> Column {
    Column {
        col,
        width,
        right: true,
        rank,
    }
}

/// What a list is made of.
pub(crate) trait Row {
    /// What stands in a column.
    fn cell(&self, col: Col) -> Cell<'_>;

    /// One line across all columns instead of cells.
    fn across(&self) -> Option<Line<'static>> {
        None
    }

    /// Whether the person marked it.
    fn marked(&self) -> bool {
        false
    }
}

/// How a list is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    /// How things look.
    pub(crate) look: Look,
    /// Its columns from left to right.
    pub(crate) columns: &'a [Column],
    /// The column that the rows are put in order by, and whether from the end.
    pub(crate) sort: Option<(Col, bool)>,
    /// The row that is selected, among those on screen.
    pub(crate) selected: Option<usize>,
    /// Whether any row of the list is marked.
    pub(crate) marks: bool,
}

/// Where the rows are, below the header.
pub(crate) fn body(inner: Rect) -> Rect {
    let top = header_height(inner);
    Rect {
        y: inner.y + top,
        height: inner.height - top,
        ..inner
    }
}

/// Rows that fit below the header, in `inner`.
pub(crate) fn height(inner: Rect) -> usize {
    usize::from(inner.height - header_height(inner))
}

fn header_height(inner: Rect) -> u16 {
    u16::from(inner.height >= HEADER_FROM)
}

impl Table<'_> {
    /// Draws the rows that are on screen.
    pub(crate) fn draw<R: Row>(&self, rows: &[R], inner: Rect, buf: &mut Buffer) {
        let inner = inner.intersection(buf.area);
        if inner.is_empty() {
            return;
        }
        let gutter = 1 + usize::from(self.marks) * 2;
        let room = usize::from(inner.width).saturating_sub(gutter);
        let shown = self.fitting(rows, room);
        let top = header_height(inner);
        if top > 0 {
            self.header(&shown, gutter, inner, buf);
        }
        let body = body(inner);
        for (at, row) in (0..body.height).zip(rows) {
            self.row(row, &shown, at, body, buf);
        }
    }

    /// The columns that there is room for, with their widths.
    fn fitting<R: Row>(&self, rows: &[R], room: usize) -> Vec<(Column, usize)> {
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by_key(|at| self.columns[*at].rank);
        // A machine's name is cut last: what else there is gives way to it.
        let least = |at: usize| match (self.columns[at].col, self.columns[at].width) {
            (col @ (Col::Machine | Col::Where), Width::Fit(least, most)) => {
                widest(rows, col).clamp(least, most).min(room.max(least))
            }
            (_, width) => width.least(),
        };
        let mut taken = Vec::new();
        let mut used = 0;
        for at in order {
            let least = least(at) + 1;
            // The first one is there in any case, cut if need be.
            if used > 0 && used + least > room + 1 {
                break;
            }
            used += least;
            taken.push(at);
        }
        let mut left = (room + 1).saturating_sub(used);
        let has_rest = taken
            .iter()
            .any(|at| matches!(self.columns[*at].width, Width::Rest(_)));
        let mut widths: Vec<(usize, usize)> = Vec::with_capacity(taken.len());
        for &at in &taken {
            let column = &self.columns[at];
            let least = least(at);
            let most = match column.width {
                Width::Is(_) | Width::Rest(_) => least,
                Width::Fit(_, most) => most,
                Width::Share(_, part) if has_rest => least + left * part / 100,
                Width::Share(..) => least + left,
            };
            let extra = if most > least {
                let wanted = widest(rows, column.col).clamp(least, most);
                (wanted - least).min(left)
            } else {
                0
            };
            left -= extra;
            widths.push((at, least + extra));
        }
        for (at, width) in &mut widths {
            if matches!(self.columns[*at].width, Width::Rest(_)) {
                *width += std::mem::take(&mut left);
            }
        }
        widths.sort_unstable_by_key(|(at, _)| *at);
        widths
            .into_iter()
            .map(|(at, width)| (self.columns[at], width))
            .collect()
    }

    fn header(&self, shown: &[(Column, usize)], gutter: usize, inner: Rect, buf: &mut Buffer) {
        let dim = self.look.style(Role::Dim);
        let mut spans = vec![Span::raw(" ".repeat(gutter))];
        for (column, width) in shown {
            let mut name = column.col.name().to_owned();
            let sorted = self.sort.filter(|(col, _)| *col == column.col);
            if let Some((_, reverse)) = sorted {
                name.push_str(self.look.sorted(reverse));
            }
            let name = text::clip(&name, *width, self.look.ellipsis());
            let pad = text::pad(&name, *width);
            let style = match sorted {
                Some(_) => Style::new().add_modifier(Modifier::BOLD),
                None => dim,
            };
            let (before, after) = if column.right {
                (pad, String::new())
            } else {
                (String::new(), pad)
            };
            spans.extend([
                Span::raw(before),
                Span::styled(name, style),
                Span::raw(after + " "),
            ]);
        }
        widget::line(buf, inner, 0, &Line::from(spans));
    }

    fn row<R: Row>(
        &self,
        row: &R,
        shown: &[(Column, usize)],
        y: u16,
        body: Rect,
        buf: &mut Buffer,
    ) {
        let look = self.look;
        if let Some(line) = row.across() {
            return widget::line(buf, body, y, &line);
        }
        let selected = self.selected == Some(usize::from(y));
        let mut spans = vec![Span::raw(if selected { look.pointer() } else { " " })];
        if self.marks {
            let mark = if row.marked() { look.mark() } else { " " };
            spans.push(Span::styled(mark, look.style(Role::Accent)));
            spans.push(Span::raw(" "));
        }
        for (column, width) in shown {
            let cell = row.cell(column.col);
            let text = text::clip(&text::escape(&cell.text), *width, look.ellipsis());
            let pad = text::pad(&text, *width);
            // The space is not part of what is styled, or a reversed word would look like a bar.
            let (before, after) = if column.right {
                (pad, String::new())
            } else {
                (String::new(), pad)
            };
            spans.extend([
                Span::raw(before),
                Span::styled(text, cell.style),
                Span::raw(after + " "),
            ]);
        }
        widget::line(buf, body, y, &Line::from(spans));
        if selected {
            widget::select(buf, body, y, look);
        }
    }
}

/// Columns that the widest cell or the name of a column takes.
fn widest<R: Row>(rows: &[R], col: Col) -> usize {
    let rows = rows.iter().filter(|row| row.across().is_none());
    let cells = rows.map(|row| cell_width(&row.cell(col)));
    cells.max().unwrap_or(0).max(col.name().width())
}

fn cell_width(cell: &Cell<'_>) -> usize {
    text::width(&text::escape(&cell.text))
}

/// An empty list says why, and what to type.
pub(crate) fn teach(buf: &mut Buffer, area: Rect, look: Look, text: &str) {
    let room = usize::from(area.width).saturating_sub(1);
    let text = text::escape(text);
    let rows = text::wrap(&text, room.max(1));
    let shown = usize::from(area.height);
    let cut = rows.len() > shown;
    for (y, (no, range)) in (0..area.height).zip(rows.into_iter().enumerate()) {
        // What is to be typed is never cut without a word.
        let line = match cut && no + 1 == shown {
            true => text::clip(&text[range.start..], room, look.ellipsis()),
            false => text[range].to_owned(),
        };
        let line = Line::styled(format!(" {line}"), look.style(Role::Dim));
        widget::line(buf, area, y, &line);
    }
}

/// Rows that it takes.
pub(crate) fn teach_height(width: u16, text: &str) -> u16 {
    let room = usize::from(width).saturating_sub(1).max(1);
    u16::try_from(text::wrap(&text::escape(text), room).len()).unwrap_or(u16::MAX)
}

/// Says above a list that is worst first how many worse ones are not on screen.
pub(crate) fn worse(look: Look, first: usize, worst_first: bool) -> String {
    match (first, worst_first) {
        (0, _) | (_, false) => String::new(),
        (first, true) => {
            let up = if look.ascii { "^" } else { "▲" };
            let first = text::thousands(first as u64);
            format!(" {up} {first} worse above {}", look.dot())
        }
    }
}

/// Says in the frame below a list how many rows are not on screen.
pub(crate) fn more(
    buf: &mut Buffer,
    inner: Rect,
    look: Look,
    all: usize,
    first: usize,
    shown: usize,
) {
    let shown = shown.min(all - first.min(all));
    let under = all - first - shown;
    if all <= shown {
        return;
    }
    let text = match first {
        0 => format!(" {} more below ", text::thousands(under as u64)),
        _ => format!(
            " {} above, {} below ",
            text::thousands(first as u64),
            text::thousands(under as u64)
        ),
    };
    below(buf, inner, look, &text);
}

/// Writes into the frame below a pane, where it has one.
pub(crate) fn below(buf: &mut Buffer, inner: Rect, look: Look, text: &str) {
    let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
    let y = inner.y.saturating_add(inner.height);
    if width + 4 > inner.width || y >= buf.area.bottom() {
        return;
    }
    // Only a pane with a frame has a row below its inside that is its own.
    let corner = buf.cell((inner.x, y)).map(|c| c.symbol().to_owned());
    if corner.as_deref() == Some(look.border().horizontal_bottom) {
        let x = inner.x + inner.width - width - 1;
        buf.set_string(x, y, text, look.style(Role::Dim));
    }
}
