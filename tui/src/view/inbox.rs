//! The inbox: what wants a person, in groups, each with what was asked or why it ended, in full, and
//! what to type about it.

use fleet_contract::job::{Job, JobState};
use fleet_contract::projection::place;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{link, table, words};
use crate::inbox::{count, group, jobs};
use crate::keymap::Action;
use crate::model::{Model, Screen};
use crate::text;
use crate::theme::Role;
use crate::widget;

/// Lines that a question or reason may take.
const REASON: usize = 4;
/// Jobs that are looked at before the selected one, to begin the screen with.
const BEFORE: usize = 64;

fn group_count(model: &Model, group: u8) -> usize {
    let (fleet, at) = (&model.fleet, model.as_of());
    match group {
        0 => fleet.count(StateWord::NeedsHuman),
        1 => fleet.count(StateWord::Lost),
        2 => fleet.superseded(),
        _ => fleet.freshly_failed(at),
    }
}

/// Draws it.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let all = count(model);
    let title = match link::never_read(model) {
        true => "Inbox".to_owned(),
        false => format!("Inbox {} {}", look.dot(), text::thousands(all as u64)),
    };
    let right = match model.is_dated() {
        true => link::as_of(model),
        false => "failures of the last hour".to_owned(),
    };
    let older = older(model);
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    if all == 0 {
        let text = match model.fleet.jobs().is_empty() {
            false => "nothing waits for you, none is lost, none failed in the last hour",
            true => "nothing waits for you: there are no jobs yet",
        };
        table::teach(buf, inner, look, &link::empty(model, 0, text));
        if let Some(older) = older {
            widget::line(buf, inner, 1, &older);
        }
        return;
    }
    let width = usize::from(inner.width);
    let wanted = model.inbox_job();
    let at = jobs(model)
        .position(|job| Some(job.id) == wanted)
        .unwrap_or(0);
    let first = first(model, at, width, usize::from(inner.height));
    let mut y = 0;
    let mut last = first.checked_sub(1).and_then(|at| jobs(model).nth(at));
    let mut shown = 0;
    for (no, job) in jobs(model).enumerate().skip(first) {
        let selected = focused && no == at;
        let heads = heading(model, last, job);
        let lines = heads
            .into_iter()
            .chain(entry(model, job, selected, width))
            .collect::<Vec<_>>();
        let all = lines.len();
        for (at, line) in lines.into_iter().enumerate() {
            let line = widget::fitted(line, width, look.ellipsis());
            widget::line(buf, inner, y, &line);
            let is_head = at + entry_height(model, job, selected, width) == all;
            if selected && is_head && y < inner.height {
                let row = Rect {
                    y: inner.y + y,
                    height: 1,
                    ..inner
                };
                buf.set_style(row, look.selection());
            }
            y = y.saturating_add(1);
        }
        last = Some(job);
        if y > inner.height {
            break;
        }
        shown += 1;
        if y == inner.height {
            break;
        }
    }
    table::more(buf, inner, look, all.max(first + shown), first, shown);
    if let Some(older) = older {
        widget::line(buf, inner, y, &older);
    }
}

/// What failed before the last hour, counted: nobody may have seen it.
fn older(model: &Model) -> Option<Line<'static>> {
    let count = model.fleet.formerly_failed(model.as_of());
    let key = model.ui.keymap.key_of(Action::Screen(Screen::Dispatches));
    let text = format!(
        " {} {} failed more than an hour ago: {key} lists all",
        model.look.rule(),
        text::thousands(count as u64)
    );
    (count > 0).then(|| Line::styled(text, model.look.style(Role::Dim)))
}

fn entry_height(model: &Model, job: &Job, selected: bool, width: usize) -> usize {
    entry(model, job, selected, width).len()
}

/// The first job on screen so that the selected one is whole on it.
fn first(model: &Model, selected: usize, width: usize, height: usize) -> usize {
    let from = selected.saturating_sub(BEFORE);
    let some: Vec<&Job> = jobs(model).skip(from).take(selected - from + 1).collect();
    let mut used = 0;
    let mut first = selected;
    for (at, job) in some.iter().enumerate().rev() {
        let before = at.checked_sub(1).and_then(|at| some.get(at)).copied();
        let is_selected = from + at == selected;
        used += entry_height(model, job, is_selected, width) + heading(model, before, job).len();
        // What is selected is there in any case.
        if used > height && !is_selected {
            break;
        }
        first = from + at;
    }
    first
}

/// What the group is called, before its first job.
fn heading(model: &Model, before: Option<&Job>, job: &Job) -> Vec<Line<'static>> {
    let Some((here, name)) = group(job) else {
        return Vec::new();
    };
    let last = before.and_then(group);
    if last.is_some_and(|(group, _)| group == here) {
        return Vec::new();
    }
    let count = group_count(model, here);
    let name = match (name, count) {
        ("waits for a person", 2..) => "wait for a person",
        _ => name,
    };
    let count = text::thousands(count as u64);
    let text = format!(" {} {count} {name}", model.look.rule());
    vec![Line::styled(text, model.look.style(Role::Accent))]
}

/// One job: what and where, the question or reason in full, and what to type if it is selected.
fn entry(model: &Model, job: &Job, selected: bool, width: usize) -> Vec<Line<'static>> {
    let look = model.look;
    let (glyph, role) = look.job(job.state.word());
    let pointer = if selected { look.pointer() } else { " " };
    let id = words::prefix(&model.fleet, job.id);
    let place = place(job).map_or("-".to_owned(), ToString::to_string);
    let title = text::escape(&words::title(job)).into_owned();
    let age = words::ago(model.now, job.changed_at);
    let dim = look.style(Role::Dim);
    let mut lines = vec![Line::from(vec![
        Span::raw(pointer),
        Span::styled(format!("{glyph} {}", job.state.word()), look.style(role)),
        Span::styled(format!(" {id} "), dim),
        Span::raw(title),
        Span::styled(format!("  {place}  {age}"), dim),
    ])];
    for told in std::iter::once(reason(model, job)).chain(words::superseded(model, job)) {
        let told = text::escape(&told).into_owned();
        let room = width.saturating_sub(4).max(8);
        let rows = text::wrap(&told, room);
        let cut = rows.len() > REASON;
        for (no, range) in rows.into_iter().take(REASON).enumerate() {
            let more = if cut && no + 1 == REASON {
                look.ellipsis()
            } else {
                ""
            };
            lines.push(Line::raw(format!("    {}{more}", &told[range])));
        }
    }
    if selected {
        lines.push(Line::styled(format!("    {}", to_type(job, &id)), dim));
    }
    lines
}

fn reason(model: &Model, job: &Job) -> String {
    match &job.state {
        JobState::NeedsHuman { question, .. } => question.clone(),
        _ => {
            let note = words::note(model, job);
            match job.attempts.len() {
                0 | 1 => note,
                n => format!("{note}, after {n} attempts"),
            }
        }
    }
}

/// What to type about it: verbs that there are.
fn to_type(job: &Job, id: &str) -> String {
    let ack = match job.unacknowledged() {
        0 => String::new(),
        _ => format!("fleet ack {id} when you have seen to what it did   "),
    };
    format!("{ack}{}", to_type_about_end(job, id))
}

fn to_type_about_end(job: &Job, id: &str) -> String {
    match job.state {
        JobState::NeedsHuman { .. } => {
            format!("fleet retry {id}   fleet resolve {id} succeeded|failed   fleet cancel {id}")
        }
        JobState::Lost { .. } => {
            format!("fleet retry {id}   fleet resolve {id} succeeded|failed   fleet logs {id}")
        }
        JobState::Rejected { .. } | JobState::Expired => {
            format!("fleet retry {id}   fleet show {id}")
        }
        JobState::Failed { .. } | JobState::TimedOut => {
            format!("fleet retry {id}   fleet logs {id}")
        }
        _ => format!("fleet show {id}   fleet logs {id}"),
    }
}
