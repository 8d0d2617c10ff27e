//! One job: what was asked, its attempts one by one, what its journal tells, and its output.

use fleet_contract::job::{Attempt, Job};
use fleet_contract::projection::span;
use fleet_contract::spec::{OnLost, Priority, Target};
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;

use super::{NAME, fact, lines, log, part, state_line};
use crate::model::{JobDetail, Model};
use crate::text;
use crate::view::{events, path, popup, table, words};
use crate::widget;

/// Attempts that are listed; earlier ones are counted.
const ATTEMPTS: usize = 8;
/// Lines that a question or reason may take.
const IN_FULL: usize = 4;
/// Events of it that are told.
const JOURNAL: usize = 500;
/// From so many columns on the journal stands beside the facts.
const WIDE: u16 = 110;

/// Draws it.
pub(in crate::view) fn draw(model: &Model, detail: &JobDetail, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(job) = model.fleet.job(detail.id) else {
        let inner = widget::pane(buf, area, look, true, "Dispatch", "Esc back");
        return table::teach(buf, inner, look, "this job is no longer kept");
    };
    let areas = areas(model, job, detail.part, area);
    let id = words::prefix(&model.fleet, job.id);
    let title = format!("Dispatch {} {id} {}", look.dot(), words::title(job));
    let right = match areas.journal {
        Some(_) => "Esc back".to_owned(),
        None => format!("times in {}  Esc back", words::zone(model)),
    };
    let focused = detail.part == 1;
    let inner = widget::pane(
        buf,
        areas.facts,
        look,
        focused,
        &text::escape(&title),
        &right,
    );
    let all = facts(model, job, inner.width);
    let top = detail.above[0].min(beyond(all.len(), inner));
    lines(model, buf, inner, all, top);
    if let Some(area) = areas.journal {
        journal(model, job, detail, area, buf);
    }
    log::draw(model, job, detail, areas.log, buf);
}

fn beyond(lines: usize, inner: Rect) -> usize {
    lines.saturating_sub(usize::from(inner.height))
}

/// How many parts it has here, and how far summary and journal can be scrolled.
pub(crate) fn job_parts(model: &Model, detail: &JobDetail, body: Rect) -> (usize, [usize; 2]) {
    let Some(job) = model.fleet.job(detail.id) else {
        return (1, [0; 2]);
    };
    let areas = areas(model, job, detail.part, body);
    let inner = widget::inside(areas.facts);
    let summary = beyond(facts(model, job, inner.width).len(), inner);
    let journal = areas.journal.map(|area| {
        let told = events::of_job(model, job, JOURNAL).len();
        beyond(told, widget::inside(area))
    });
    let parts = 2 + usize::from(journal.is_some());
    (parts, [summary, journal.unwrap_or(0)])
}

/// Where the text of its output is, for whoever scrolls it.
pub(crate) fn log_inside(model: &Model, detail: &JobDetail, body: Rect) -> Option<Rect> {
    let job = model.fleet.job(detail.id)?;
    Some(widget::inside(areas(model, job, detail.part, body).log))
}

struct Areas {
    facts: Rect,
    journal: Option<Rect>,
    log: Rect,
}

fn areas(model: &Model, job: &Job, part: usize, area: Rect) -> Areas {
    let wide = area.width >= WIDE;
    let share = u32::from(area.width) * 13 / 22;
    let width = match wide {
        true => u16::try_from(share).unwrap_or(area.width),
        false => area.width,
    };
    let wanted = facts(model, job, width.saturating_sub(2))
        .len()
        .saturating_add(2);
    let wanted = u16::try_from(wanted).unwrap_or(u16::MAX);
    // What is read has most of the room.
    let most = match part {
        0 => area.height * 9 / 20,
        _ => area.height * 7 / 10,
    };
    let most = most.max(3);
    let [top, log] =
        Layout::vertical([Constraint::Length(wanted.min(most)), Constraint::Fill(1)]).areas(area);
    if !wide {
        return Areas {
            facts: top,
            journal: None,
            log,
        };
    }
    let [facts, journal] =
        Layout::horizontal([Constraint::Fill(13), Constraint::Fill(9)]).areas(top);
    Areas {
        facts,
        journal: Some(journal),
        log,
    }
}

fn facts(model: &Model, job: &Job, width: u16) -> Vec<Line<'static>> {
    let zone = &model.zone;
    let spec = &job.spec;
    let mut facts = vec![state_line(model, job, width)];
    facts.extend(in_full(model, job, width));
    facts.push(path::line(model, job, usize::from(width)));
    facts.push(fact(model, "command", &spec.command.join(" ")));
    facts.extend(attempts(model, job));
    facts.extend(superseded(model, job, width));
    let at = format!(
        "{} by {}, {}",
        words::clock(spec.submitted_at, zone),
        spec.submitted_by,
        words::ago(model.now, spec.submitted_at)
    );
    facts.push(fact(model, "dispatched", &at));
    facts.push(fact(model, "policy", &policy(job)));
    facts.push(fact(model, "id", job.id.as_str()));
    if let Some(cwd) = &spec.cwd {
        facts.push(fact(model, "folder", cwd));
    }
    if !spec.tags.is_empty() {
        let tags: Vec<String> = spec.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        facts.push(fact(model, "tags", &tags.join(" ")));
    }
    popup::folded(facts, usize::from(width))
}

/// What was asked or why it ended, where the first line has no room for all of it.
fn in_full(model: &Model, job: &Job, width: u16) -> Vec<Line<'static>> {
    let note = words::note(model, job);
    let note = text::escape(&note).into_owned();
    let first: String = state_line(model, job, width)
        .spans
        .iter()
        .map(|s| s.content.as_ref())
        .collect();
    if note.is_empty() || first.ends_with(&note) {
        return Vec::new();
    }
    let room = usize::from(width).saturating_sub(4).max(8);
    let rows = text::wrap(&note, room).into_iter().take(IN_FULL);
    rows.map(|range| Line::raw(format!("   {}", &note[range])))
        .collect()
}

/// What was asked for beside the command, where it is not the usual.
fn policy(job: &Job) -> String {
    let spec = &job.spec;
    let mut words = vec![match &job.target {
        Target::Pin(machine) => format!("only on {machine}"),
        Target::Lane(lane) if lane.as_str() == "any" => "any machine".to_owned(),
        Target::Lane(lane) => format!("lane {lane}"),
    }];
    match spec.retries {
        0 => {}
        1 => words.push("1 retry".to_owned()),
        n => words.push(format!("{n} retries")),
    }
    words.push(match spec.on_lost {
        OnLost::Ask => "asks if lost".to_owned(),
        OnLost::Retry => "runs again if lost".to_owned(),
        OnLost::Fail => "ends if lost".to_owned(),
    });
    match spec.priority {
        Priority::Normal => {}
        Priority::High => words.push("high priority".to_owned()),
        Priority::Low => words.push("low priority".to_owned()),
    }
    if let Some(ms) = spec.timeout_ms {
        let limit = span(std::time::Duration::from_millis(ms));
        words.push(format!("time-out {limit}"));
    }
    words.join(", ")
}

/// The attempts, the last one first: the newest is what matters where there is little room.
fn attempts(model: &Model, job: &Job) -> Vec<Line<'static>> {
    let mut told: Vec<Line<'static>> = job
        .attempts
        .iter()
        .rev()
        .take(ATTEMPTS)
        .map(|attempt| tried(model, job, attempt))
        .collect();
    let earlier = job.attempts.len().saturating_sub(ATTEMPTS);
    if earlier > 0 {
        told.push(fact(model, "", &format!("{earlier} attempts before these")));
    }
    told
}

/// Attempts that had run though their ends do not count, in full, and what to type about them.
fn superseded(model: &Model, job: &Job, width: u16) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(NAME + 2).max(8);
    let mut told = Vec::new();
    for one in job.superseded.iter().rev().take(ATTEMPTS) {
        let text = words::ran_too(model, one);
        let text = text::escape(&text).into_owned();
        let rows = text::wrap(&text, room).into_iter().take(IN_FULL);
        told.extend(rows.enumerate().map(|(no, range)| {
            let name = if no == 0 { "also ran" } else { "" };
            fact(model, name, &text[range])
        }));
    }
    if job.unacknowledged() > 0 {
        let id = words::prefix(&model.fleet, job.id);
        let next = format!("fleet ack {id} when you have seen to what it did");
        told.push(fact(model, "type", &next));
    }
    told
}

fn tried(model: &Model, job: &Job, attempt: &Attempt) -> Line<'static> {
    let clock = |time: Time| words::clock(time, &model.zone);
    let from = attempt.started_at.unwrap_or(attempt.claimed_at);
    let times = match attempt.ended_at {
        Some(ended) => format!(
            "{} to {}, {}",
            clock(from),
            clock(ended),
            span(ended.since(from))
        ),
        None => format!("since {}", clock(from)),
    };
    let open = job.state.open().is_some_and(|o| o.attempt == attempt.id);
    let how = match (&attempt.outcome, open, model.is_dated()) {
        (Some(outcome), _, _) => words::outcome(Some(outcome)),
        (None, true, true) => "ran when last heard".to_owned(),
        (None, _, _) => "runs".to_owned(),
    };
    let wrote = attempt.output.stdout.bytes + attempt.output.stderr.bytes;
    let wrote = match (attempt.outcome.is_some(), wrote) {
        (true, n) if n > 0 => format!(", wrote {}", text::bytes(n)),
        _ => String::new(),
    };
    let token = attempt.token;
    let text = format!("{} {how}, {times}{wrote}, token {token}", attempt.machine);
    fact(model, &format!("attempt {}", attempt.no), &text)
}

/// What its journal tells, newest first.
fn journal(model: &Model, job: &Job, detail: &JobDetail, area: Rect, buf: &mut Buffer) {
    let title = "Journal";
    let right = format!("times in {}", words::zone(model));
    let inner = widget::pane(buf, area, model.look, detail.part == 2, title, &right);
    let wanted = usize::from(inner.height) + 1 + detail.above[1];
    let mut rows = events::of_job(model, job, wanted.min(JOURNAL));
    if rows.is_empty() {
        rows.push(part(model, "its events are no longer kept here"));
    }
    let top = detail.above[1].min(beyond(rows.len(), inner));
    lines(model, buf, inner, rows, top);
}
