//! One machine: how it is and why, how busy it was, what runs and waits there, what it is, and what
//! happened on it; each with its age.

use fleet_contract::ids::MachineId;
use fleet_contract::job::Job;
use fleet_contract::projection::{LoadSample, Machine, span};
use fleet_contract::record::StateWord;
use fleet_contract::spec::Target;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::{fact, lines, part};
use crate::model::{Detail, Model};
use crate::text;
use crate::theme::Role;
use crate::view::{events, machines, popup, spark, table, why, words};
use crate::widget;

/// From so many columns on there are two columns.
const WIDE: u16 = 100;
/// Rows of a picture where there is room.
const TALL: u8 = 3;
/// Events that are listed.
const EVENTS: usize = 50;
/// Jobs that are listed of each kind.
const JOBS: usize = 6;
/// Jobs that are looked at to find those that wait for this machine.
const LOOK_AT: usize = 5000;

/// The share of something that is taken.
type Share = fn(&LoadSample) -> f32;

/// What is pictured over time.
const PICTURES: [(&str, Share); 3] = [
    ("load", |s| s.load),
    ("memory", |s| 1.0 - s.mem_free),
    ("slots", |s| {
        f32::from(s.slots_used) / f32::from(s.slots.max(1))
    }),
];

/// A pane of it.
struct Sheet {
    area: Rect,
    focused: bool,
    title: String,
    right: String,
    lines: Vec<Line<'static>>,
}

impl Sheet {
    /// Lines that there is no room for.
    fn beyond(&self) -> usize {
        let rows = usize::from(widget::inside(self.area).height);
        self.lines.len().saturating_sub(rows)
    }
}

/// Draws it.
pub(in crate::view) fn draw(model: &Model, id: &MachineId, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let Some(machine) = model.fleet.machines().get(id) else {
        let title = format!("Machine {} {id}", look.dot());
        let inner = widget::pane(buf, area, look, true, &title, "Esc back");
        return table::teach(buf, inner, look, "this machine was forgotten");
    };
    for sheet in sheets(model, machine, area) {
        let top = model.ui.machine_top.min(sheet.beyond());
        let (title, right) = (&sheet.title, &sheet.right);
        let inner = widget::pane(buf, sheet.area, look, sheet.focused, title, right);
        lines(model, buf, inner, sheet.lines, top);
    }
}

/// How far it can be scrolled.
pub(crate) fn machine_most(model: &Model) -> usize {
    let Some(Detail::Machine(id)) = &model.detail else {
        return 0;
    };
    let screen = Rect::new(0, 0, model.size.0, model.size.1);
    let body = crate::view::places(model, screen).body;
    let known = model.fleet.machines().get(id);
    let sheets = known.map_or(Vec::new(), |machine| sheets(model, machine, body));
    sheets.iter().map(Sheet::beyond).max().unwrap_or(0)
}

/// Its panes: one, or three where there is room.
fn sheets(model: &Model, machine: &Machine, area: Rect) -> Vec<Sheet> {
    let id = &machine.presence.machine;
    let title = format!("Machine {} {id}", model.look.dot());
    let first = |area, lines| Sheet {
        area,
        focused: true,
        title,
        right: "Esc back".to_owned(),
        lines,
    };
    if area.width < WIDE {
        let width = area.width.saturating_sub(2);
        let mut all = state(model, machine, width);
        all.extend(jobs(model, id));
        all.extend(load(model, machine, width, 1));
        all.extend(specs(model, machine));
        let zone = words::zone(model);
        all.push(part(model, &format!("what happened, times in {zone}")));
        all.extend(events::of_machine(model, id, JOBS));
        return vec![first(area, all)];
    }
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let work = jobs(model, id);
    let wanted = u16::try_from(work.len() + 2).unwrap_or(u16::MAX);
    let [top, bottom] = Layout::vertical([
        Constraint::Length(wanted.min(right.height * 3 / 5)),
        Constraint::Fill(1),
    ])
    .areas(right);
    let mut told = events::of_machine(model, id, EVENTS);
    if told.is_empty() {
        told.push(dim(model, "nothing that is still kept here"));
    }
    vec![
        first(left, facts(model, machine, left)),
        Sheet {
            area: top,
            focused: false,
            title: "Dispatches here".to_owned(),
            right: ended_here(model, id),
            lines: work,
        },
        Sheet {
            area: bottom,
            focused: false,
            title: "What happened".to_owned(),
            right: format!("times in {}", words::zone(model)),
            lines: told,
        },
    ]
}

/// What is known of it; the pictures are taller where that hides nothing.
fn facts(model: &Model, machine: &Machine, area: Rect) -> Vec<Line<'static>> {
    let inner = widget::inside(area);
    let all = |tall| {
        let mut known = state(model, machine, inner.width);
        known.extend(load(model, machine, inner.width, tall));
        known.extend(specs(model, machine));
        known
    };
    let known = all(TALL);
    match known.len() > usize::from(inner.height) {
        true => all(1),
        false => known,
    }
}

fn dim(model: &Model, text: &str) -> Line<'static> {
    Line::styled(format!(" {text}"), model.look.style(Role::Dim))
}

/// How it is, and why.
fn state(model: &Model, machine: &Machine, width: u16) -> Vec<Line<'static>> {
    let look = model.look;
    let state = machine.state(model.as_of());
    let (glyph, role) = look.machine(state);
    let (mark, word) = if model.is_dated() {
        (look.unknown().0, format!("last {glyph} {state}"))
    } else {
        (glyph, state.to_string())
    };
    let mut all = vec![Line::from(vec![
        Span::styled(format!(" {mark} {word}"), look.style(role)),
        Span::raw(format!(
            "  last beat {}",
            words::ago(model.now, machine.seen)
        )),
        Span::styled(
            format!(", one is due each {}", span(interval(machine))),
            look.style(Role::Dim),
        ),
    ])];
    let reasons = why::machine(model, machine).into_iter().map(|line| {
        let mut spans = vec![Span::raw("   ")];
        spans.extend(line.spans);
        Line::from(spans)
    });
    // No reason is cut.
    all.extend(popup::folded(reasons.collect(), usize::from(width)));
    all
}

fn interval(machine: &Machine) -> std::time::Duration {
    std::time::Duration::from_millis(machine.presence.interval_ms.clamp(100, 600_000))
}

/// What it measures now, and what it was in the last hour.
fn load(model: &Model, machine: &Machine, width: u16, tall: u8) -> Vec<Line<'static>> {
    let look = model.look;
    let presence = &machine.presence;
    let load = &presence.load;
    let specs = &presence.specs;
    let mut all = Vec::new();
    let now = words::ago(model.now, machine.seen);
    all.push(part(model, &format!("measured {now}")));
    let slots = machines::slots(look, load.slots_used, load.slots);
    all.push(fact(model, "slots", &format!("{slots} taken")));
    let text = format!("{:.2} of {} cores", load.load, specs.cores);
    all.push(fact(model, "load", &text));
    let text = format!(
        "{} free of {}",
        text::bytes(load.mem_free),
        text::bytes(specs.mem_total)
    );
    all.push(fact(model, "memory", &text));
    let text = format!(
        "{} free of {}",
        text::bytes(load.disk_free),
        text::bytes(load.disk_total)
    );
    all.push(fact(model, "disk", &text));
    let rtt = match (load.rtt_ms, load.rtt_p99_ms) {
        (Some(rtt), Some(p99)) => format!("{rtt:.1} ms, p99 {p99:.1} ms"),
        (Some(rtt), None) => format!("{rtt:.1} ms"),
        (None, _) => "not measured".to_owned(),
    };
    all.push(fact(model, "round trip", &rtt));
    if load.spooled > 0 {
        let bytes = match load.spooled_bytes {
            0 => String::new(),
            bytes => format!(", {}", text::bytes(bytes)),
        };
        let oldest = load.spooled_since.map_or_else(String::new, |since| {
            format!(", the oldest of {}", words::ago(model.now, since))
        });
        let text = format!(
            "{} waiting for the hub{bytes}{oldest}",
            text::thousands(load.spooled)
        );
        all.push(fact(model, "spool", &text));
    }
    if load.dropped_log_bytes > 0 {
        let text = format!("{} of output", text::bytes(load.dropped_log_bytes));
        all.push(fact(model, "dropped", &text));
    }
    all.extend(history(model, &presence.machine, width, tall));
    all
}

/// The last hour in one line each, as far back as there are samples.
fn history(model: &Model, id: &MachineId, width: u16, tall: u8) -> Vec<Line<'static>> {
    let samples: Vec<(Time, &LoadSample)> = model.fleet.load_history(id).collect();
    let Some((oldest, _)) = samples.first() else {
        return Vec::new();
    };
    let cells = usize::from(width).saturating_sub(24).clamp(8, 60);
    let back = span(model.now.since(*oldest));
    let mut all = vec![part(model, "the last hour")];
    for (name, value) in PICTURES {
        let values = samples.iter().map(|(at, sample)| (*at, value(sample)));
        let peak = samples.iter().map(|(_, s)| value(s)).fold(0.0, f32::max);
        let rows = spark::tall(model.look, model.now, values, cells, tall);
        let last = rows.len().saturating_sub(1);
        for (no, row) in rows.into_iter().enumerate() {
            let mut shown = fact(model, if no == last { name } else { "" }, &row);
            if no == last {
                let peak = format!(" peak {:.0} %", peak * 100.0);
                shown.push_span(Span::styled(peak, model.look.style(Role::Dim)));
            }
            all.push(shown);
        }
    }
    if model.now.since(*oldest) < std::time::Duration::from_secs(3300) {
        all.push(dim(model, &format!("known here for {back}")));
    }
    all
}

/// What it is.
fn specs(model: &Model, machine: &Machine) -> Vec<Line<'static>> {
    let presence = &machine.presence;
    let specs = &presence.specs;
    let mut all = vec![part(model, "what it is")];
    let system = format!(
        "{} {} {}, {} cores, {}",
        specs.os,
        specs.os_version,
        specs.arch,
        specs.cores,
        text::bytes(specs.mem_total)
    );
    all.push(fact(model, "system", &system));
    let host = format!("{} {}", presence.host, presence.address);
    all.push(fact(model, "host", &host));
    let fleet = format!("{}, contract {}", specs.version, presence.contract);
    all.push(fact(model, "fleet", &fleet));
    for (name, map) in [("labels", &presence.labels), ("skills", &presence.skills)] {
        if !map.is_empty() {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| match v.as_str() {
                    "" => k.clone(),
                    v => format!("{k}={v}"),
                })
                .collect();
            all.push(fact(model, name, &pairs.join(" ")));
        }
    }
    if !presence.models.is_empty() {
        all.push(fact(model, "models", &presence.models.join(" ")));
    }
    all
}

/// How many ended here.
fn ended_here(model: &Model, id: &MachineId) -> String {
    match model.fleet.jobs_at(id) {
        Some(jobs) => format!(
            "{} succeeded  {} failed  {} lost",
            text::thousands(jobs.done() as u64),
            text::thousands(jobs.failed() as u64),
            text::thousands(jobs.count(StateWord::Lost) as u64)
        ),
        None => String::new(),
    }
}

/// What runs there, waits for it and ended there last.
fn jobs(model: &Model, id: &MachineId) -> Vec<Line<'static>> {
    let fleet = &model.fleet;
    let mut all = Vec::new();
    let waiting = fleet.jobs_at(id).map_or(0, |jobs| jobs.waiting());
    let was = if model.is_dated() {
        "ran when last heard"
    } else {
        "runs now"
    };
    let running: Vec<&Job> = fleet.running_on(id).take(JOBS + 1).collect();
    list(model, was, &running, &mut all);
    if waiting > 0 {
        let queued = fleet
            .worst_first(model.as_of())
            .take(LOOK_AT)
            .filter(|job| {
                matches!(job.state.word(), StateWord::Queued | StateWord::Backoff)
                    && matches!(&job.target, Target::Pin(pin) if pin == id)
            });
        let queued: Vec<&Job> = queued.take(JOBS + 1).collect();
        let name = format!("waits for it: {}", text::thousands(waiting as u64));
        list(model, &name, &queued, &mut all);
    }
    let ended = events::ended_on(model, id, JOBS);
    list(model, "ended here last", &ended, &mut all);
    all
}

fn list(model: &Model, name: &str, jobs: &[&Job], all: &mut Vec<Line<'static>>) {
    let look = model.look;
    let mut head = part(model, name);
    if jobs.is_empty() {
        head.push_span(Span::styled("  nothing here", look.style(Role::Dim)));
    }
    all.push(head);
    for job in jobs.iter().take(JOBS) {
        let (glyph, role) = look.job(job.state.word());
        let prefix = words::prefix(&model.fleet, job.id);
        let age = words::age(model.now, job.changed_at);
        let title = text::escape(&words::title(job)).into_owned();
        let note = text::escape(&words::note(model, job)).into_owned();
        all.push(Line::from(vec![
            Span::styled(format!("   {glyph} "), look.style(role)),
            Span::styled(format!("{prefix} "), look.style(Role::Dim)),
            Span::raw(format!("{title}  ")),
            Span::styled(format!("{age}  {note}"), look.style(Role::Dim)),
        ]));
    }
    if jobs.len() > JOBS {
        all.push(Line::styled("   and more", look.style(Role::Dim)));
    }
}
