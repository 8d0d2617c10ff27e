//! What is opened over a screen: one job with its output, or one machine.

mod job;
mod log;
mod machine;

use fleet_contract::job::Job;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{table, words};
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::widget;

pub(super) use job::draw as job;
pub(crate) use job::{job_parts, log_inside};
pub(crate) use log::room as log_room;
pub(super) use machine::draw as machine;
pub(crate) use machine::machine_most;

/// Columns that names of facts take.
const NAME: usize = 11;

/// A name and what it is. What a peer wrote is made safe.
fn fact(model: &Model, name: &str, text: &str) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!(" {name:<NAME$} "), model.look.style(Role::Dim)),
        Span::raw(text::escape(text).into_owned()),
    ])
}

/// What a part is called.
fn part(model: &Model, name: &str) -> Line<'static> {
    Line::from(Span::styled(
        format!(" {name}"),
        model.look.style(Role::Accent),
    ))
}

fn lines(model: &Model, buf: &mut Buffer, area: Rect, lines: Vec<Line<'static>>, top: usize) {
    let shown = usize::from(area.height);
    let all = lines.len();
    for (y, line) in (0..area.height).zip(lines.into_iter().skip(top)) {
        let line = widget::fitted(line, usize::from(area.width), model.look.ellipsis());
        widget::line(buf, area, y, &line);
    }
    table::more(buf, area, model.look, all, top, shown);
}

/// The state in glyph and word, then what there is to know beside it.
pub(super) fn state_line(model: &Model, job: &Job, width: u16) -> Line<'static> {
    let word = job.state.word();
    let (glyph, role) = model.look.job(word);
    let style = model.look.style(role);
    let was = if model.is_dated() && !word.is_terminal() {
        "was "
    } else {
        ""
    };
    let age = words::age(model.now, job.changed_at);
    let state = format!("{glyph} {was}{word}");
    let since = match age.as_str() {
        "now" => " now  ".to_owned(),
        age if word.is_terminal() => format!(" {age} ago  "),
        age => format!(" for {age}  "),
    };
    let room = usize::from(width).saturating_sub(1 + state.width() + since.width());
    let note = words::note(model, job);
    let note = text::clip(&text::escape(&note), room, model.look.ellipsis());
    Line::from(vec![
        Span::raw(" "),
        Span::styled(state, style),
        Span::styled(since, model.look.style(Role::Dim)),
        Span::raw(note),
    ])
}
