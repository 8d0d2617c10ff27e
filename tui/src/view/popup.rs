//! What is shown over a screen: a frame at its lower end, with as few lines as it needs.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::why;
use crate::columns::{self, Col};
use crate::input::TextLine;
use crate::keymap::key;
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::ui::Pending;
use crate::widget;

/// Where a frame with room for `lines` lines is: at the lower end of `area`.
pub(super) fn place(area: Rect, lines: usize) -> Rect {
    let wanted = u16::try_from(lines).unwrap_or(u16::MAX).saturating_add(2);
    let height = wanted.clamp(3, area.height.max(3)).min(area.height);
    Rect {
        y: area.y + area.height - height,
        height,
        ..area
    }
}

/// Rows of which the one that is pointed at is on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// Where they are.
    pub(super) area: Rect,
    /// The first of them.
    pub(super) first: usize,
}

impl Rows {
    /// Those in `area` where `at` is pointed at.
    pub(super) fn new(area: Rect, at: usize) -> Self {
        let first = at.saturating_sub(usize::from(area.height).saturating_sub(1));
        Self { area, first }
    }
}

/// The rows of the columns that can be chosen.
pub(super) fn column_rows(model: &Model, at: usize, area: Rect) -> Rows {
    let count = columns::choice(model.focus()).count();
    Rows::new(widget::inside(place(area, count)), at)
}

/// A frame at the lower end of `area` with room for `lines` lines; what is inside it.
pub(super) fn frame(
    model: &Model,
    area: Rect,
    lines: usize,
    title: &str,
    right: &str,
    buf: &mut Buffer,
) -> Rect {
    let at = place(area, lines);
    Clear.render(at.intersection(buf.area), buf);
    widget::pane(buf, at, model.look, true, title, right)
}

/// Why the selected dispatch or machine is as it is.
pub(super) fn why(model: &Model, top: usize, area: Rect, buf: &mut Buffer) {
    let (lines, name) = match (model.subject_job(), model.subject_machine()) {
        (Some(id), _) => (why::why(model, id), super::words::prefix(&model.fleet, id)),
        (None, Some(id)) => (why::of_machine(model, &id), id.to_string()),
        (None, None) => return,
    };
    let lines = folded(lines, usize::from(area.width).saturating_sub(4));
    let title = format!("Why {} {name}", model.look.dot());
    let inner = frame(model, area, lines.len(), &title, "Esc closes", buf);
    let top = top.min(lines.len().saturating_sub(usize::from(inner.height)));
    for (y, line) in (0..inner.height).zip(lines.into_iter().skip(top)) {
        let mut spans = vec![Span::raw(" ")];
        spans.extend(line.spans);
        widget::line(buf, inner, y, &Line::from(spans));
    }
}

/// Lines that are too long go on below, so that no reason is cut.
pub(super) fn folded(lines: Vec<Line<'static>>, width: usize) -> Vec<Line<'static>> {
    let mut all = Vec::with_capacity(lines.len());
    for line in lines {
        let last = line.spans.last().map(|s| (s.content.clone(), s.style));
        let (Some((text, style)), true) = (last, line.width() > width) else {
            all.push(line);
            continue;
        };
        let before: usize = line.width() - text.width();
        let room = width.saturating_sub(before).max(8);
        let mut head = line.spans;
        head.pop();
        for (no, range) in crate::text::wrap(&text, room).into_iter().enumerate() {
            let mut spans = match no {
                0 => std::mem::take(&mut head),
                _ => vec![Span::raw(" ".repeat(before))],
            };
            spans.push(Span::styled(text[range].to_owned(), style));
            all.push(Line::from(spans));
        }
    }
    all
}

/// A line that is being typed, with the cursor in reverse.
pub(super) fn line(
    model: &Model,
    area: Rect,
    y: u16,
    prompt: &'static str,
    line: &TextLine,
    buf: &mut Buffer,
) {
    let look = model.look;
    let before = u16::try_from(prompt.width()).unwrap_or(0);
    let room = area.width.saturating_sub(before + 1);
    // A line longer than its room shows what is around the cursor.
    let column = u16::try_from(line.column()).unwrap_or(u16::MAX);
    let left = column.saturating_sub(room.saturating_sub(1));
    let (shown, _) = text::columns(line.text(), usize::from(left), usize::from(room));
    let spans = vec![
        Span::styled(prompt, look.style(Role::Accent)),
        Span::raw(line.text()[shown].to_owned()),
    ];
    widget::line(buf, area, y, &Line::from(spans));
    let at = (area.x + before + column - left, area.y + y);
    if let Some(cell) = buf
        .cell_mut(at)
        .filter(|_| before + column - left < area.width)
    {
        cell.modifier.insert(Modifier::REVERSED);
    }
}

/// Which columns the list has.
pub(super) fn columns(model: &Model, at: usize, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let pane = model.focus();
    let columns: Vec<Col> = columns::choice(pane).collect();
    let inner = frame(
        model,
        area,
        columns.len(),
        "Columns",
        "Space turns one on or off, Esc closes",
        buf,
    );
    let Rows { first, .. } = column_rows(model, at, area);
    for (y, (no, column)) in (0..inner.height).zip(columns.iter().enumerate().skip(first)) {
        let on = if model.lists.has(pane, *column) {
            'x'
        } else {
            ' '
        };
        let note = match column.leaves() {
            true => column.help().to_owned(),
            false => format!("{}; always shown", column.help()),
        };
        let pointer = if no == at { look.pointer() } else { " " };
        let line = Line::from(vec![
            Span::raw(pointer),
            Span::raw(format!("[{on}] {:<8} ", column.name())),
            Span::styled(note, look.style(Role::Dim)),
        ]);
        widget::line(buf, inner, y, &line);
        if no == at {
            widget::select(buf, inner, y, look);
        }
    }
}

/// What can follow the keys pressed so far, in columns.
pub(super) fn hints(model: &Model, pending: &Pending, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let after = model.ui.keymap.after(model.place(), &pending.keys);
    let widest = after
        .iter()
        .map(|(keys, b)| keys.width() + b.help.width() + 3);
    let room = usize::from(area.width).saturating_sub(2).max(1);
    let width = widest.max().unwrap_or(1).clamp(1, room);
    let across = (room / width).max(1);
    let lines = after.len().div_ceil(across);
    let title = format!("{} {}", key::shown(&pending.keys), look.ellipsis());
    let inner = frame(model, area, lines, &title, "Esc ends", buf);
    for (at, (keys, binding)) in after.iter().enumerate() {
        let x = u16::try_from(at / lines.max(1) * width).unwrap_or(u16::MAX);
        let y = u16::try_from(at % lines.max(1)).unwrap_or(u16::MAX);
        let cell = Rect {
            x: inner.x.saturating_add(x),
            width: inner.width.saturating_sub(x),
            ..inner
        };
        let line = Line::from(vec![
            Span::raw(" "),
            Span::styled(keys.clone(), look.style(Role::Accent)),
            Span::raw(format!(" {}", binding.help)),
        ]);
        widget::line(buf, cell, y, &line);
    }
}
