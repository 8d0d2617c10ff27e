//! The bus: the way there, the hub and its streams, how far behind their readers are, what was
//! lost. Where there is no room for all of it, what is worst stays.

mod lines;
mod streams;

use fleet_contract::hub::HubStats;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{table, words};
use crate::model::Model;
use crate::text;
use crate::theme::{Look, Role};
use crate::widget;

/// A row, and how soon it is left out where there is no room: the highest first.
pub(super) struct Row {
    leave: u8,
    line: Line<'static>,
}

/// A part of a row: its text, its role, and how soon it is left out.
type Part = (String, Role, u8);

/// What the rows are made from.
pub(super) struct Sheet<'a> {
    model: &'a Model,
    hub: Option<(Time, &'a HubStats)>,
    width: usize,
    rows: Vec<Row>,
}

/// Draws it.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let right = text::escape(&dated(model)).into_owned();
    let inner = widget::pane(buf, area, model.look, focused, "Bus", &right);
    let mut sheet = Sheet {
        model,
        hub: model.bus.hub(),
        width: usize::from(inner.width),
        rows: Vec::new(),
    };
    lines::fill(&mut sheet);
    streams::fill(&mut sheet);
    let all = sheet.rows.len();
    let rows = fitting(sheet.rows, usize::from(inner.height));
    if let hidden @ 1.. = all - rows.len() {
        let lines = if hidden == 1 { "line" } else { "lines" };
        let text = format!(" {hidden} {lines} more where it is higher ");
        table::below(buf, inner, model.look, &text);
    }
    for (y, row) in (0..inner.height).zip(rows) {
        widget::line(buf, inner, y, &row.line);
    }
}

/// How old what the hub said is.
fn dated(model: &Model) -> String {
    match (model.bus.hub(), model.bus.silent()) {
        (Some((at, _)), _) if model.is_dated() || model.bus.silent().is_some() => {
            let clock = words::clock(at, &model.zone);
            format!("as of {clock}, {}", words::ago(model.now, at))
        }
        (Some((at, _)), _) => format!("answered {}", words::ago(model.now, at)),
        (None, Some(why)) => why.to_owned(),
        (None, None) => "the hub was not heard yet".to_owned(),
    }
}

/// As many rows as there is room for: those that are left out soonest go first, the last of them
/// before the others.
fn fitting(mut rows: Vec<Row>, height: usize) -> Vec<Row> {
    while rows.len() > height {
        let most = rows.iter().map(|row| row.leave).max().unwrap_or(0);
        match rows.iter().rposition(|row| row.leave == most) {
            Some(at) => drop(rows.remove(at)),
            None => break,
        }
    }
    rows
}

impl Sheet<'_> {
    fn look(&self) -> Look {
        self.model.look
    }

    /// Whether what the hub said may be no longer true.
    fn is_old(&self) -> bool {
        self.model.is_dated() || self.model.bus.silent().is_some()
    }

    /// Columns of the names before the rows.
    fn label(&self) -> usize {
        if self.width < 60 { 11 } else { 12 }
    }

    fn push(&mut self, leave: u8, line: Line<'static>) {
        self.rows.push(Row { leave, line });
    }

    /// A name and what there is to say, as far as there is room.
    fn say(&mut self, leave: u8, name: &str, parts: Vec<Part>) {
        let line = self.facts(name, parts);
        self.push(leave, line);
    }

    fn facts(&self, name: &str, mut parts: Vec<Part>) -> Line<'static> {
        let look = self.look();
        let label = self.label();
        let between = format!(" {} ", look.dot());
        let room = self.width.saturating_sub(label + 2);
        loop {
            let texts: usize = parts.iter().map(|(text, ..)| text.width()).sum();
            let used = texts + between.width() * parts.len().saturating_sub(1);
            let most = parts.iter().map(|(.., leave)| *leave).max().unwrap_or(0);
            let last = parts.iter().rposition(|(.., leave)| *leave == most);
            match last.filter(|_| used > room && parts.len() > 1) {
                Some(at) => drop(parts.remove(at)),
                None => break,
            }
        }
        let name = text::clip(name, label, look.ellipsis());
        let mut spans = vec![Span::styled(
            format!(" {name}{}", text::pad(&name, label)),
            look.style(Role::Dim),
        )];
        for (at, (text, role, _)) in parts.into_iter().enumerate() {
            if at > 0 {
                spans.push(Span::styled(between.clone(), look.style(Role::Dim)));
            }
            let text = text::clip(&text::escape(&text), room, look.ellipsis());
            spans.push(Span::styled(text, look.style(role)));
        }
        Line::from(spans)
    }
}

/// Bytes in few digits, with a tenth where one digit alone would say little.
fn bytes(size: u64) -> String {
    let unit = [40, 30, 20, 10].into_iter().find(|unit| size >> unit > 0);
    let Some(unit) = unit.filter(|unit| size >> unit < 10) else {
        return text::bytes(size);
    };
    let tenths = (size & ((1 << unit) - 1)).saturating_mul(10) >> unit;
    let whole = text::bytes(size);
    match whole.split_once(' ') {
        Some((digit, unit)) => format!("{digit}.{tenths} {unit}"),
        None => whole,
    }
}

/// A bar of so many cells.
fn bar(look: Look, fill: f64, cells: usize) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and the number of cells"
    )]
    // One hundredth is seen, and it is full only when it is.
    let full = match fill {
        f if f < 0.01 => 0,
        f if f >= 1.0 => cells,
        f => ((f * cells as f64) as usize).clamp(1, cells.saturating_sub(1).max(1)),
    };
    let (taken, free) = look.slots();
    taken.repeat(full) + &free.repeat(cells.saturating_sub(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_soonest_goes_first_and_the_last_of_it() {
        let row = |leave, name: &'static str| Row {
            leave,
            line: Line::from(name),
        };
        let rows = || vec![row(1, "a"), row(9, "b"), row(9, "c"), row(0, "d")];
        let kept = |height| -> String {
            let rows = fitting(rows(), height);
            rows.iter().map(|row| row.line.to_string()).collect()
        };
        assert_eq!(kept(4), "abcd");
        assert_eq!(kept(3), "abd");
        assert_eq!(kept(2), "ad");
        assert_eq!(kept(1), "d");
        assert_eq!(kept(0), "");
    }

    #[test]
    fn one_digit_of_bytes_has_a_tenth() {
        let of = |size| bytes(size);
        assert_eq!(of(999), "999 B");
        assert_eq!(of(1024), "1.0 KiB");
        assert_eq!(of(1536), "1.5 KiB");
        assert_eq!(of(10 << 20), "10 MiB");
        assert_eq!(of((3 << 30) + (205 << 20)), "3.2 GiB");
        assert_eq!(of(u64::MAX), "16777215 TiB");
    }

    #[test]
    fn a_bar_shows_a_little_and_is_full_only_when_it_is() {
        let look = Look {
            colour: false,
            ascii: true,
        };
        assert_eq!(bar(look, 0.0, 4), "....");
        assert_eq!(bar(look, 0.009, 4), "....");
        assert_eq!(bar(look, 0.01, 4), "#...");
        assert_eq!(bar(look, 0.999, 4), "###.");
        assert_eq!(bar(look, 1.0, 4), "####");
        assert_eq!(bar(look, 0.5, 1), "#");
    }
}
