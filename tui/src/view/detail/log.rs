//! A job's output: its lines as they are, or broken at the width; what the job did not write is
//! told apart, what is searched is marked without colour too.

use std::ops::Range;

use fleet_contract::job::Job;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::log::{self, Ink, Origin, Place};
use crate::model::{JobDetail, Model};
use crate::text;
use crate::theme::{Look, Role};
use crate::view::{table, words};
use crate::widget;

/// Columns before a line: the found one is pointed at, standard error is marked.
const GUTTER: u16 = 4;
/// Columns of a time and the space after it.
const STAMP: u16 = 12;

/// The sixteen colours, as output counts them.
const PALETTE: [Color; 16] = [
    Color::Black,
    Color::Red,
    Color::Green,
    Color::Yellow,
    Color::Blue,
    Color::Magenta,
    Color::Cyan,
    Color::Gray,
    Color::DarkGray,
    Color::LightRed,
    Color::LightGreen,
    Color::LightYellow,
    Color::LightBlue,
    Color::LightMagenta,
    Color::LightCyan,
    Color::White,
];

/// Columns and rows that text has in this pane.
pub(crate) fn room(detail: &JobDetail, inner: Rect) -> (usize, usize) {
    let stamp = if detail.times { STAMP } else { 0 };
    let width = inner.width.saturating_sub(GUTTER + stamp).max(1);
    (usize::from(width), usize::from(inner.height))
}

/// Draws it.
pub(super) fn draw(model: &Model, job: &Job, detail: &JobDetail, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let log = &detail.log;
    let inner = widget::inside(area);
    let (width, height) = room(detail, inner);
    let wrap = detail.wrap.then_some(width);
    let end = log.end(height, wrap);
    let first = Place::of(log.dropped());
    let top = detail.top.unwrap_or(end).min(end).max(first);
    let title = title(model, job, detail, top, end);
    let inner = widget::pane(buf, area, look, detail.part == 0, &title, &right(detail));
    if log.len() == 0 {
        return table::teach(buf, inner, look, nothing(job, detail));
    }
    let mut y = 0;
    let mut row = top.row;
    for no in top.line..log.len() {
        let Some(line) = log.line(no) else { break };
        let found = detail.point == Some(no);
        let places = log.search().places(&line.text);
        let rows = log::rows(&line.text, wrap);
        for range in rows.iter().skip(row) {
            if y >= inner.height {
                return;
            }
            let begins = range.start == 0;
            let spans = match &line.origin {
                Origin::Attempt(id, machine) => heading(look, job, *id, machine.as_str()),
                Origin::Note => note(look, &line.text),
                Origin::Out | Origin::Err => {
                    let mut spans = gutter(model, detail, &line, begins, found && begins);
                    let (range, pad) = match wrap {
                        Some(_) => (range.clone(), 0),
                        None => text::columns(&line.text, detail.left, width),
                    };
                    spans.push(Span::raw(" ".repeat(pad)));
                    spans.extend(styled(look, &line, range, &places, found));
                    spans
                }
            };
            widget::line(buf, inner, y, &Line::from(spans));
            y += 1;
        }
        row = 0;
    }
}

fn nothing(job: &Job, detail: &JobDetail) -> &'static str {
    match (detail.log.caught_up, job.attempts.is_empty()) {
        (false, _) => "not read yet",
        (true, true) => "no output yet: it has not started",
        (true, false) if job.state.word().is_terminal() => "it wrote nothing",
        (true, false) => "no output yet",
    }
}

fn title(model: &Model, job: &Job, detail: &JobDetail, top: Place, end: Place) -> String {
    let dot = model.look.dot();
    let log = &detail.log;
    let mut title = "Output".to_owned();
    if job.attempts.len() > 1
        && let Some(id) = log.attempt_of(top.line)
        && let Some(attempt) = job.attempts.iter().find(|a| a.id == id)
    {
        title = format!("{title} of attempt {}", attempt.no);
    }
    let ended = job.state.word().is_terminal();
    let place = match detail.top {
        None if ended && log.caught_up => "the end".to_owned(),
        None => "following".to_owned(),
        Some(_) => {
            let below = match end.line.saturating_sub(top.line).max(1) {
                1 => "1 line".to_owned(),
                below => format!("{} lines", text::thousands(below)),
            };
            // Nothing more comes of what has ended.
            match ended && log.caught_up {
                true => format!("{below} below {dot} f to the end"),
                false => format!("behind by {below} {dot} f follows"),
            }
        }
    };
    title = format!("{title} {dot} {place}");
    let search = log.search();
    if !search.wanted().is_empty() {
        let (all, rank) = log.found();
        let count = text::thousands(all as u64);
        let so_far = if log.caught_up { "" } else { " so far" };
        let found = match (all, rank) {
            (0, _) if log.dropped() > 0 => {
                let id = words::prefix(&model.fleet, job.id);
                format!("not found in what is kept{so_far}; fleet logs {id} | grep has all")
            }
            (0, _) => format!("not found{so_far}"),
            (_, Some(rank)) => format!("{} of {count} lines{so_far}", text::thousands(rank as u64)),
            (1, None) => format!("1 line{so_far}"),
            (_, None) => format!("{count} lines{so_far}"),
        };
        title = format!("{title} {dot} /{} {found}", text::escape(search.wanted()));
    }
    title
}

fn right(detail: &JobDetail) -> String {
    let log = &detail.log;
    let (lines, gone) = log.own_lines();
    let mut right = match lines {
        1 => "1 line".to_owned(),
        n => format!("{} lines", text::thousands(n)),
    };
    if gone > 0 {
        let dropped = text::thousands(gone);
        right = format!("{right}, the first {dropped} not kept here");
    }
    if log.foreign > 0 {
        let foreign = text::thousands(log.foreign);
        right = format!("{right}, {foreign} forged chunks left out");
    }
    if log.left > 0 {
        right = format!("{right}, {} chunks to come", text::thousands(log.left));
    }
    if detail.wrap {
        right.push_str(", broken");
    } else if detail.left > 0 {
        right = format!("{right}, from column {}", detail.left + 1);
    }
    right
}

fn heading(
    look: Look,
    job: &Job,
    id: fleet_contract::ids::AttemptId,
    machine: &str,
) -> Vec<Span<'static>> {
    let known = job.attempts.iter().find(|a| a.id == id);
    let text = match known {
        Some(attempt) => format!("attempt {} on {machine}", attempt.no),
        None => format!("an attempt on {machine} that the journal does not name"),
    };
    let rule = look.rule();
    let text = format!("{rule} {} {rule}", text::escape(&text));
    vec![Span::styled(text, look.style(Role::Dim))]
}

fn note(look: Look, text: &str) -> Vec<Span<'static>> {
    let rule = look.rule();
    let text = format!("{rule} {text} {rule}");
    vec![Span::styled(text, look.style(Role::Warn))]
}

fn gutter(
    model: &Model,
    detail: &JobDetail,
    line: &log::Line,
    begins: bool,
    found: bool,
) -> Vec<Span<'static>> {
    let look = model.look;
    let dim = look.style(Role::Dim);
    let mut spans = Vec::with_capacity(8);
    if detail.times {
        let time = match begins && !line.goes_on {
            true => words::clock_fine(line.time, &model.zone),
            false => String::new(),
        };
        let width = usize::from(STAMP);
        spans.push(Span::styled(format!("{time:<width$}"), dim));
    }
    let pointer = if found { look.pointer() } else { " " };
    let mark = match (&line.origin, begins && !line.goes_on) {
        (_, false) => look.ellipsis(),
        (Origin::Err, true) => "2",
        _ => " ",
    };
    let sep = match line.origin {
        Origin::Err => ">",
        _ => " ",
    };
    spans.push(Span::styled(pointer, look.style(Role::Accent)));
    spans.push(Span::styled(format!("{mark}{sep} "), dim));
    spans
}

/// A part of a line in its own look, with what is searched reversed; bold too in the line that the
/// person is at.
fn styled(
    look: Look,
    line: &log::Line,
    range: Range<usize>,
    places: &[Range<usize>],
    found: bool,
) -> Vec<Span<'static>> {
    let edges = places.iter().flat_map(|p| [p.start, p.end]);
    let inks = line.inks.iter().map(|(at, _)| *at as usize);
    let mut cuts: Vec<usize> = edges
        .chain(inks)
        .filter(|at| range.contains(at))
        .chain([range.start, range.end])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut spans = Vec::with_capacity(cuts.len());
    for pair in cuts.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let Some(text) = line.text.get(from..to) else {
            continue;
        };
        let before = line.inks.partition_point(|(at, _)| *at as usize <= from);
        let ink = before.checked_sub(1).map(|at| line.inks[at].1);
        let mut style = ink.map_or(Style::new(), |ink| inked(look, ink));
        if places.iter().any(|p| p.contains(&from)) {
            let mark = match found {
                true => Modifier::REVERSED | Modifier::BOLD,
                false => Modifier::REVERSED,
            };
            style = style.add_modifier(mark);
        }
        spans.push(Span::styled(text.to_owned(), style));
    }
    spans
}

fn inked(look: Look, ink: Ink) -> Style {
    let mut style = Style::new();
    for (holds, modifier) in [
        (ink.bold, Modifier::BOLD),
        (ink.dim, Modifier::DIM),
        (ink.underline, Modifier::UNDERLINED),
    ] {
        if holds {
            style = style.add_modifier(modifier);
        }
    }
    match ink.colour.and_then(|n| PALETTE.get(usize::from(n))) {
        Some(colour) if look.colour => style.fg(*colour),
        _ => style,
    }
}
