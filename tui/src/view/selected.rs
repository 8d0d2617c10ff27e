//! The selected dispatch in a few lines: where it is on its way, how long each part took, and what
//! there is to know or to answer.

use std::time::Duration;

use fleet_contract::job::{Job, JobState};
use fleet_contract::projection::{place, span};
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{dispatches, words};
use crate::keymap::Action;
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::widget;

/// Events that are looked through for when the hub stored a record.
const LOOK: usize = 2000;
/// How far the clocks of two machines may be apart for that.
const APART: Duration = Duration::from_secs(30);

/// Draws it.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(job) = model.selected_job().and_then(|id| model.fleet.job(id)) else {
        let inner = widget::pane(buf, area, look, false, "Selected", "");
        return dispatches::teach(buf, inner, look, "nothing to select yet");
    };
    let id = words::prefix(&model.fleet, job.id);
    let title = format!("Selected {} {id} {}", look.dot(), words::title(job));
    let title = text::escape(&title);
    let keys = keys(
        model,
        usize::from(area.width).saturating_sub(title.width() + 12),
    );
    let inner = widget::pane(buf, area, look, false, &title, &keys);
    let width = usize::from(inner.width).saturating_sub(2);
    let mut lines = vec![path(model, job, width)];
    let command = job.spec.command.join(" ");
    let note = match (words::note(model, job), &job.state) {
        (note, _) if note.is_empty() => command.clone(),
        (note, JobState::NeedsHuman { .. }) => note,
        (note, _) => format!("{note} {} {command}", look.dot()),
    };
    let note = text::clip(&text::escape(&note), width, look.ellipsis());
    lines.push(Line::from(vec![Span::raw(" "), Span::raw(note)]));
    for (y, line) in (0..inner.height).zip(&lines) {
        widget::line(buf, inner, y, line);
    }
}

/// The keys that lead on from here, as far as there is room.
fn keys(model: &Model, mut room: usize) -> String {
    let mut keys = Vec::new();
    for (action, word) in [
        (Action::Open, "open"),
        (Action::Why, "why"),
        (Action::JumpMachine, "machine"),
        (Action::JumpLog, "log"),
    ] {
        let key = model.ui.keymap.key_of(action);
        let text = format!("{} {word}", key.replace(' ', ""));
        if key.is_empty() || text.width() + 2 > room {
            continue;
        }
        room -= text.width() + 2;
        keys.push(text);
    }
    keys.join("  ")
}

/// One place on a job's way: how long it took to come there, and what it is.
struct Hop {
    took: Option<Duration>,
    text: String,
    style: Style,
}

/// `▲ needs_human 4 min  ana@anvil ─3 ms▸ hub ─140 ms▸ forge ─2 s▸ started ─6 min▸ exit 75`.
fn path(model: &Model, job: &Job, width: usize) -> Line<'static> {
    let look = model.look;
    let word = job.state.word();
    let (glyph, role) = look.job(word);
    let dated = model.is_dated() && !word.is_terminal();
    let was = if dated { "was " } else { "" };
    let age = words::age(model.now, job.changed_at);
    let state = format!("{glyph} {was}{word}");
    let age = format!(" {age}   ");
    let mut room = width.saturating_sub(state.width() + age.width());
    let mut spans = vec![
        Span::raw(" "),
        Span::styled(state, look.style(role)),
        Span::styled(age, look.style(Role::Dim)),
    ];
    let (rail, tip) = if look.ascii {
        ("-", ">")
    } else {
        ("─", "▸")
    };
    let by = text::escape(&job.spec.submitted_by).into_owned();
    let mut hops = hops(model, job);
    hops.insert(
        0,
        Hop {
            took: None,
            text: by,
            style: Style::new(),
        },
    );
    for (at, hop) in hops.into_iter().enumerate() {
        let took = hop.took.map_or(String::new(), brief);
        let way = if at == 0 {
            String::new()
        } else {
            format!(" {rail}{took}{tip} ")
        };
        if way.width() + hop.text.width() > room {
            spans.push(Span::raw(look.ellipsis()));
            break;
        }
        room -= way.width() + hop.text.width();
        spans.push(Span::styled(way, look.style(Role::Dim)));
        spans.push(Span::styled(hop.text, hop.style));
    }
    Line::from(spans)
}

fn hops(model: &Model, job: &Job) -> Vec<Hop> {
    let plain = Style::new();
    let hop = |took, text: String, style| Hop { took, text, style };
    let stored = stored(
        model,
        job,
        job.spec.submitted_at,
        StateWord::Queued.as_str(),
    );
    // Two clocks: a time that comes out before it began says nothing.
    let sent = stored.and_then(|at| passed(job.spec.submitted_at, at));
    let mut hops = vec![hop(sent, "hub".to_owned(), plain)];
    let dim = model.look.style(Role::Dim);
    let Some(attempt) = job.attempt() else {
        let waits = passed(stored.unwrap_or(job.changed_at), model.now);
        let place = place(job).map_or("any machine".to_owned(), ToString::to_string);
        hops.push(hop(waits, format!("waits for {place}"), dim));
        return hops;
    };
    let claimed = self::stored(model, job, attempt.claimed_at, "claimed");
    let waited = match (attempt.no, stored, claimed) {
        // By the hub's clock alone.
        (1, Some(stored), Some(claimed)) => passed(stored, claimed),
        (1, ..) => passed(job.spec.submitted_at, attempt.claimed_at),
        _ => None,
    };
    let machine = match attempt.no {
        1 => attempt.machine.to_string(),
        no => format!("{} (attempt {no})", attempt.machine),
    };
    hops.push(hop(waited, machine, plain));
    let begun = attempt.started_at.unwrap_or(attempt.claimed_at);
    if attempt.started_at.is_some() {
        let took = passed(attempt.claimed_at, begun);
        hops.push(hop(took, "started".to_owned(), plain));
    }
    let (_, role) = model.look.job(job.state.word());
    let style = model.look.style(role).remove_modifier(Modifier::REVERSED);
    match attempt.ended_at {
        Some(ended) => {
            let text = words::outcome(attempt.outcome.as_ref());
            let text = text::escape(&text).into_owned();
            hops.push(hop(passed(begun, ended), text, style));
        }
        None if model.is_dated() => hops.push(hop(None, "unknown".to_owned(), dim)),
        None => hops.push(hop(passed(begun, model.now), "runs".to_owned(), style)),
    }
    hops
}

/// When the hub stored what a job was told at about this time, if that is still known.
fn stored(model: &Model, job: &Job, about: Time, word: &str) -> Option<Time> {
    let apart = i64::try_from(APART.as_micros()).unwrap_or(0);
    let from = Time::from_micros(about.as_micros().saturating_sub(apart));
    let events = model.fleet.events();
    let near = fleet_contract::projection::EventKey {
        stored: from,
        of_journal: false,
        seq: 0,
    };
    let found = events
        .range(near..)
        .take(LOOK)
        .take_while(|(key, _)| key.stored <= about.plus(APART))
        .find(|(_, event)| event.job == Some(job.id) && event.word == word);
    found.map(|(key, _)| key.stored)
}

fn passed(from: Time, to: Time) -> Option<Duration> {
    (to >= from).then(|| to.since(from))
}

/// `3 ms`, `2.1 s`, `6 min`.
fn brief(took: Duration) -> String {
    match took.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => span(took),
    }
}
