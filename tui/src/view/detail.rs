//! One job with its output, one machine, and the few lines about the selected job.

use fleet_contract::ids::MachineId;
use fleet_contract::job::Job;
use fleet_contract::projection::{place, span};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{dispatches, machines, words};
use crate::log::Origin;
use crate::model::{JobDetail, Model};
use crate::text;
use crate::theme::Role;
use crate::widget;

/// Attempts that are listed; earlier ones are counted.
const ATTEMPTS: usize = 3;

/// A name and what it is.
fn fact(model: &Model, name: &str, text: &str) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!(" {name:<11} "), model.look.style(Role::Dim)),
        Span::raw(text::escape(text).into_owned()),
    ])
}

fn lines(buf: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (y, line) in (0..area.height).zip(lines) {
        widget::line(buf, area, y, line);
    }
}

/// The state in glyph and word, then what there is to know beside it.
fn state_line(model: &Model, job: &Job, width: u16) -> Line<'static> {
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

/// The selected job in two lines.
pub(super) fn selected(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(job) = model.selected_job().and_then(|id| model.fleet.job(id)) else {
        let inner = widget::pane(buf, area, look, false, "Selected", "");
        return dispatches::teach(buf, inner, look, "nothing to select yet");
    };
    let id = words::prefix(&model.fleet, job.id);
    let title = format!("Selected {} {id} {}", look.dot(), words::title(job));
    let title = text::escape(&title);
    let inner = widget::pane(buf, area, look, false, &title, "Enter opens its log");
    let arrow = if look.ascii { "->" } else { "→" };
    let place = place(job).map_or("any machine".to_owned(), ToString::to_string);
    let path = format!(
        " {} {arrow} {place} {} dispatched {} {} {}",
        job.spec.submitted_by,
        look.dot(),
        words::ago(model.now, job.spec.submitted_at),
        look.dot(),
        job.spec.command.join(" "),
    );
    let path = text::escape(&path).into_owned();
    let path = text::clip(&path, usize::from(inner.width), look.ellipsis());
    lines(
        buf,
        inner,
        &[
            state_line(model, job, inner.width),
            Line::styled(path, look.style(Role::Dim)),
        ],
    );
}

/// A job and its output.
pub(super) fn job(model: &Model, detail: &JobDetail, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(job) = model.fleet.job(detail.id) else {
        let inner = widget::pane(buf, area, look, true, "Dispatch", "");
        return dispatches::teach(buf, inner, look, "this job is no longer kept");
    };
    let facts = facts(model, job, area.width.saturating_sub(2));
    let wanted = u16::try_from(facts.len()).unwrap_or(u16::MAX);
    let most = (area.height / 2).max(3);
    let [top, bottom] = Layout::vertical([
        Constraint::Length(wanted.saturating_add(2).min(most)),
        Constraint::Fill(1),
    ])
    .areas(area);
    let id = words::prefix(&model.fleet, job.id);
    let title = format!("Dispatch {} {id} {}", look.dot(), words::title(job));
    let inner = widget::pane(buf, top, look, false, &text::escape(&title), "Esc back");
    lines(buf, inner, &facts);
    log(model, detail, bottom, buf);
}

fn facts(model: &Model, job: &Job, width: u16) -> Vec<Line<'static>> {
    let zone = &model.zone;
    let spec = &job.spec;
    let mut facts = vec![
        state_line(model, job, width),
        fact(model, "command", &spec.command.join(" ")),
        fact(
            model,
            "dispatched",
            &format!(
                "{} by {}, {}",
                words::clock(spec.submitted_at, zone),
                spec.submitted_by,
                words::ago(model.now, spec.submitted_at)
            ),
        ),
        fact(model, "id", job.id.as_str()),
    ];
    if let Some(cwd) = &spec.cwd {
        facts.push(fact(model, "folder", cwd));
    }
    if !spec.tags.is_empty() {
        let tags: Vec<String> = spec.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        facts.push(fact(model, "tags", &tags.join(" ")));
    }
    let earlier = job.attempts.len().saturating_sub(ATTEMPTS);
    if earlier > 0 {
        facts.push(fact(model, "", &format!("{earlier} attempts before these")));
    }
    for attempt in job.attempts.iter().skip(earlier) {
        let took = match (attempt.started_at, attempt.ended_at) {
            (Some(started), Some(ended)) => format!(" after {}", span(ended.since(started))),
            _ => format!(", since {}", words::clock(attempt.claimed_at, zone)),
        };
        let text = format!(
            "on {}: {}{took}",
            attempt.machine,
            words::outcome(attempt.outcome.as_ref())
        );
        facts.push(fact(model, &format!("attempt {}", attempt.no), &text));
    }
    facts
}

fn log(model: &Model, detail: &JobDetail, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let log = &detail.log;
    let follows = match detail.top {
        None => "following",
        Some(_) => "f follows",
    };
    let title = format!("Output {} {follows}", look.dot());
    let mut right = format!("{} lines", text::thousands(log.len()));
    if log.dropped() > 0 {
        right = format!(
            "{right}, the first {} not kept here",
            text::thousands(log.dropped())
        );
    }
    if log.left > 0 {
        right = format!("{right}, {} chunks to come", text::thousands(log.left));
    }
    let inner = widget::pane(buf, area, look, true, &title, &right);
    if log.len() == 0 {
        let text = if log.caught_up {
            "no output yet"
        } else {
            "not read yet"
        };
        return dispatches::teach(buf, inner, look, text);
    }
    let end = log.len().saturating_sub(u64::from(inner.height));
    let top = detail.top.unwrap_or(end).min(end).max(log.dropped());
    for (y, no) in (0..inner.height).zip(top..log.len()) {
        let Some(line) = log.line(no) else { break };
        let (gutter, role) = match line.origin {
            Origin::Out => ("   ", Role::Plain),
            Origin::Err => ("2> ", Role::Plain),
            Origin::Note => (look.rule(), Role::Warn),
        };
        let line = Line::from(vec![
            Span::styled(gutter, look.style(Role::Dim)),
            Span::styled(
                text::skip(&line.text, detail.left).to_owned(),
                look.style(role),
            ),
        ]);
        widget::line(buf, inner, y, &line);
    }
}

/// A machine.
pub(super) fn machine(model: &Model, id: &MachineId, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let title = format!("Machine {} {id}", look.dot());
    let inner = widget::pane(buf, area, look, true, &title, "Esc back");
    let Some(machine) = model.fleet.machines().get(id) else {
        return dispatches::teach(buf, inner, look, "this machine was forgotten");
    };
    let presence = &machine.presence;
    let at = model.as_of();
    let state = machine.state(at);
    let (glyph, role) = look.machine(state);
    let (mark, word) = if model.is_dated() {
        (look.unknown().0, format!("last {glyph} {state}"))
    } else {
        (glyph, state.to_string())
    };
    let specs = &presence.specs;
    let load = &presence.load;
    let mut facts = vec![
        Line::from(vec![
            Span::styled(format!(" {mark} {word}"), look.style(role)),
            Span::raw(format!("  seen {}", words::ago(model.now, machine.seen))),
        ]),
        fact(
            model,
            "system",
            &format!("{} {} {}", specs.os, specs.os_version, specs.arch),
        ),
        fact(
            model,
            "host",
            &format!("{} {}", presence.host, presence.address),
        ),
        fact(model, "fleet", &specs.version),
        fact(
            model,
            "slots",
            &machines::slots(look, load.slots_used, load.slots),
        ),
        fact(
            model,
            "load",
            &format!("{:.2}, {} cores", load.load, specs.cores),
        ),
        fact(
            model,
            "memory",
            &format!(
                "{} free of {}",
                text::bytes(load.mem_free),
                text::bytes(specs.mem_total)
            ),
        ),
        fact(
            model,
            "disk",
            &format!(
                "{} free of {}",
                text::bytes(load.disk_free),
                text::bytes(load.disk_total)
            ),
        ),
    ];
    if let Some(rtt) = load.rtt_ms {
        let p99 = load
            .rtt_p99_ms
            .map_or(String::new(), |p| format!(", p99 {p:.1} ms"));
        facts.push(fact(model, "round trip", &format!("{rtt:.1} ms{p99}")));
    }
    if load.spooled > 0 {
        let text = format!("{} waiting for the hub", text::thousands(load.spooled));
        facts.push(fact(model, "spool", &text));
    }
    for (name, map) in [("labels", &presence.labels), ("skills", &presence.skills)] {
        if !map.is_empty() {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
            facts.push(fact(model, name, &pairs.join(" ")));
        }
    }
    for cause in words::own_causes(presence) {
        facts.push(fact(model, "degraded", &cause));
    }
    facts.push(Line::default());
    facts.push(Line::styled(" runs now", look.style(Role::Accent)));
    let before = facts.len();
    for job in model.fleet.running_on(id).take(usize::from(inner.height)) {
        let (glyph, role) = look.job(job.state.word());
        let prefix = words::prefix(&model.fleet, job.id);
        let age = words::age(model.now, job.changed_at);
        let title = text::escape(&words::title(job)).into_owned();
        facts.push(Line::from(vec![
            Span::styled(format!(" {glyph} "), look.style(role)),
            Span::styled(format!("{prefix} "), look.style(Role::Dim)),
            Span::raw(format!("{title}  {age}")),
        ]));
    }
    if facts.len() == before {
        facts.push(Line::styled(" nothing", look.style(Role::Dim)));
    }
    lines(buf, inner, &facts);
}
