//! Tables that fit the terminal: columns shrink, then the least important ones go. Pure.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::one_line;
use super::style::Paint;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: &'static str,
    /// Whether its values end at the right.
    pub(crate) right: bool,
    /// The width it may shrink to; none keeps it whole.
    pub(crate) shrink_to: Option<usize>,
    /// Higher goes first where the table does not fit; 0 always stays.
    pub(crate) drop: u8,
}

impl Column {
    /// A column that stays whole.
    pub(crate) const fn new(title: &'static str) -> Self {
        Self {
            title,
            right: false,
            shrink_to: None,
            drop: 0,
        }
    }

    /// The same, values at the right.
    pub(crate) const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// The same, and it may shrink to this width.
    pub(crate) const fn shrinks(mut self, to: usize) -> Self {
        self.shrink_to = Some(to);
        self
    }

    /// The same, and it may go; higher goes first.
    pub(crate) const fn may_go(mut self, order: u8) -> Self {
        self.drop = order;
        self
    }
}

/// One value, on one line whatever its text.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A value.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self {
            text: one_line(text.as_ref()),
            paint: Paint::None,
        }
    }

    /// A value in colour.
    pub(crate) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self {
            text: one_line(text.as_ref()),
            paint,
        }
    }

    /// A value that may be unknown.
    pub(crate) fn maybe(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::painted("-", Paint::Dim), Self::new)
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of these columns.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Takes out those of these columns in which no row has a value.
    pub(crate) fn drop_empty(&mut self, titles: &[&str]) {
        for at in (0..self.columns.len()).rev() {
            let empty = |row: &Vec<Cell>| row.get(at).is_none_or(|cell| cell.text == "-");
            if titles.contains(&self.columns[at].title) && self.rows.iter().all(empty) {
                self.columns.remove(at);
                for row in &mut self.rows {
                    if at < row.len() {
                        row.remove(at);
                    }
                }
            }
        }
    }

    /// Adds a row: one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text; `width` none does not shorten anything.
    pub(crate) fn render(&self, width: Option<usize>, color: bool) -> String {
        let (shown, widths) = self.fit(width);
        let mut text = String::new();
        let heads: Vec<Cell> = self
            .columns
            .iter()
            .map(|c| Cell::painted(c.title, Paint::Bold))
            .collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            self.line(row, &shown, &widths, color, &mut text);
        }
        text
    }

    fn line(
        &self,
        row: &[Cell],
        shown: &[usize],
        widths: &[usize],
        color: bool,
        text: &mut String,
    ) {
        let last = shown.last().copied();
        for &at in shown {
            let Some(cell) = row.get(at) else { continue };
            let value = clip(&cell.text, widths[at]);
            let pad = " ".repeat(widths[at].saturating_sub(value.width()));
            let painted = cell.paint.on(&value, color);
            if self.columns[at].right {
                text.push_str(&pad);
                text.push_str(&painted);
            } else {
                text.push_str(&painted);
                if Some(at) != last {
                    text.push_str(&pad);
                }
            }
            text.push_str(if Some(at) == last { "\n" } else { "  " });
        }
    }

    /// Which columns are shown, and how wide each of all is.
    fn fit(&self, width: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| self.natural(at)).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(limit) = width else {
            return (shown, widths);
        };
        loop {
            let total = |w: &[usize]| -> usize {
                shown.iter().map(|&at| w[at]).sum::<usize>() + 2 * shown.len().saturating_sub(1)
            };
            let mut tried = widths.clone();
            while total(&tried) > limit {
                let widest = shown
                    .iter()
                    .copied()
                    .filter(|&at| self.columns[at].shrink_to.is_some_and(|to| tried[at] > to))
                    .max_by_key(|&at| tried[at]);
                let Some(at) = widest else { break };
                tried[at] -= 1;
            }
            if total(&tried) <= limit {
                return (shown, tried);
            }
            let goes = shown
                .iter()
                .copied()
                .filter(|&at| self.columns[at].drop > 0)
                .max_by_key(|&at| self.columns[at].drop);
            let Some(at) = goes else {
                widths = tried;
                return (shown, widths);
            };
            shown.retain(|&other| other != at);
        }
    }

    fn natural(&self, at: usize) -> usize {
        self.rows
            .iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.text.width())
            .chain([self.columns[at].title.width()])
            .max()
            .unwrap_or(0)
    }
}

/// The text in at most `width` columns, with `…` where something was left out.
pub(crate) fn clip(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        clipped.push(c);
    }
    if width > 0 {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::new("ID"),
            Column::new("COMMAND").shrinks(8),
            Column::new("SIZE").right(),
            Column::new("TAGS").may_go(1),
        ]);
        table.row(vec![
            Cell::new("a1"),
            Cell::new("cargo test --workspace"),
            Cell::new("12"),
            Cell::new("by=me"),
        ]);
        table.row(vec![
            Cell::new("b"),
            Cell::painted("漢字", Paint::Good),
            Cell::new("3"),
            Cell::maybe(None::<&str>),
        ]);
        table
    }

    #[test]
    fn without_a_terminal_nothing_is_shortened() {
        assert_eq!(
            table().render(None, false),
            "ID  COMMAND                 SIZE  TAGS\n\
             a1  cargo test --workspace    12  by=me\n\
             b   漢字                       3  -\n"
        );
    }

    #[test]
    fn columns_shrink_and_then_go() {
        assert_eq!(
            table().render(Some(30), false),
            "ID  COMMAND        SIZE  TAGS\n\
             a1  cargo test -…    12  by=me\n\
             b   漢字              3  -\n"
        );
        assert_eq!(
            table().render(Some(19), false),
            "ID  COMMAND    SIZE\n\
             a1  cargo te…    12\n\
             b   漢字          3\n"
        );
    }

    #[test]
    fn a_control_character_cannot_leave_its_cell() {
        let mut table = Table::new(&[Column::new("NAME")]);
        table.row(vec![Cell::new("a\nb\x1b[2J")]);
        assert_eq!(table.render(None, false), "NAME\na\\nb\\u{1b}[2J\n");
    }

    #[test]
    fn clipping_counts_columns_not_bytes() {
        assert_eq!(clip("漢字漢字", 5), "漢字…");
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcd", 3), "ab…");
        assert_eq!(clip("abc", 0), "");
    }
}
