//! The machines around their hub, with what flows between them: at any number of machines and any
//! size, the worst first. It draws; what it draws of the fleet is the projection's.

mod cards;
mod cells;
mod facts;
mod hub;
pub(super) mod ink;
mod lanes;
pub(crate) mod pulse;
pub(crate) mod roster;
mod sites;
pub(crate) mod zoom;

use std::time::Duration;

use fleet_contract::machine::MachineState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr;

use super::{link, table, words};
use crate::model::{Model, Pane};
use crate::text;
use crate::theme::Role;
use crate::topology::Zoom;
use crate::widget;

use roster::{Entry, Group};

/// What is drawn of the fleet, and how near.
pub(crate) struct Scene<'a> {
    /// Every machine, worst first.
    pub(crate) all: Vec<Entry<'a>>,
    /// The same by site, where sites are drawn.
    pub(crate) groups: Vec<Group<'a>>,
    /// How near.
    pub(crate) zoom: Zoom,
}

impl<'a> Scene<'a> {
    /// What is drawn inside this area.
    pub(crate) fn of(model: &'a Model, inner: Rect) -> Self {
        let all = roster::all(model);
        let mut groups = Vec::new();
        let zoom = model
            .topology
            .zoom
            .unwrap_or_else(|| fitting(&all, &mut groups, inner));
        if groups.is_empty() && zoom >= Zoom::Cells {
            groups = roster::groups(&all);
        }
        Self { all, groups, zoom }
    }

    /// How near is best here.
    pub(crate) fn fitting(model: &Model, inner: Rect) -> Zoom {
        fitting(&roster::all(model), &mut Vec::new(), inner)
    }
}

fn fitting<'a>(all: &[Entry<'a>], groups: &mut Vec<Group<'a>>, inner: Rect) -> Zoom {
    zoom::fitting(all.len(), inner, || {
        *groups = roster::groups(all);
        zoom::sizes(groups)
    })
}

/// What is inside the frame.
pub(crate) fn inside(area: Rect) -> Rect {
    if area.height < 3 || area.width < 12 {
        return area;
    }
    Rect::new(area.x + 1, area.y + 1, area.width - 2, area.height - 2)
}

/// Rows that the drawing would take with its frame, if it had that many.
pub(super) fn wanted(model: &Model, width: u16, most: u16) -> u16 {
    let inner = Rect::new(0, 0, width.saturating_sub(2), most.saturating_sub(2));
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    if model.topology.zoom.is_none() && model.machines_count() > zoom::CELLS {
        let sites = roster::count_sites(model, usize::from(most));
        return count(sites + 4).clamp(3, most.max(3));
    }
    let scene = Scene::of(model, inner);
    let rows = match scene.zoom {
        Zoom::Cards => cards::wanted(model, &scene.all),
        Zoom::Lanes => {
            let lanes = zoom::lanes(scene.all.len(), inner);
            count(scene.all.len().div_ceil(lanes.columns)) + u16::from(lanes.hub)
        }
        Zoom::Cells => {
            let grid = zoom::grid(&zoom::sizes(&scene.groups), inner);
            count(grid.rows.len()) + 2
        }
        Zoom::Sites => count(scene.groups.len() + 2),
    };
    rows.saturating_add(2).clamp(3, most.max(3))
}

/// Draws it.
pub(crate) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let area = area.intersection(buf.area);
    let scene = Scene::of(model, inside(area));
    let (title, right) = titles(model, &scene, usize::from(area.width));
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    if inner.is_empty() {
        return;
    }
    if scene.all.is_empty() {
        return empty(model, inner, buf);
    }
    let below = match scene.zoom {
        Zoom::Cards => cards::draw(model, &scene, focused, inner, buf),
        Zoom::Lanes => lanes::draw(model, &scene, focused, inner, buf),
        Zoom::Cells => cells::draw(model, &scene, focused, inner, buf),
        Zoom::Sites => sites::draw(model, &scene, focused, inner, buf),
    };
    in_frame(model, area, inner, &below, buf);
}

/// What to type where there is nothing to draw.
const FIRST_STEPS: [(&str, &str); 3] = [
    (
        "fleet up",
        "makes this computer a machine, with a hub of its own",
    ),
    (
        "fleet agent run",
        "on another computer: adds it to this hub",
    ),
    (
        "fleet dispatch --follow -- uname -a",
        "sends a job to whichever machine fits",
    ),
];

/// Columns that what is typed takes.
const FIRST_STEP: u16 = 38;

/// Why there is nothing to draw, and how to begin where there is nothing yet.
fn empty(model: &Model, inner: Rect, buf: &mut Buffer) {
    let look = model.look;
    let none = "no machines yet: fleet up starts this one, fleet agent run another";
    let hidden = model.hidden(Pane::Machines);
    let why = link::empty(model, hidden, none);
    table::teach(buf, inner, look, &why);
    if model.is_dated() || hidden > 0 {
        return;
    }
    // Where there is no room beside what is typed, what it does is below it.
    let below = inner.width < FIRST_STEP + 40;
    let first = inner.y + 1 + table::teach_height(inner.width, &why);
    let rows = (first..inner.bottom()).step_by(1 + usize::from(below));
    for (y, (command, does)) in rows.zip(FIRST_STEPS) {
        let x = inner.x + 3;
        if below {
            let room = usize::from(inner.right().saturating_sub(x));
            let command = text::clip(command, room, look.ellipsis());
            ink::put(buf, inner, (x, y), &command, look.style(Role::Accent));
            if y + 1 < inner.bottom() {
                let does = text::clip(does, room.saturating_sub(2), look.ellipsis());
                ink::put(buf, inner, (x + 2, y + 1), &does, look.style(Role::Dim));
            }
            continue;
        }
        ink::put(buf, inner, (x, y), command, look.style(Role::Accent));
        let room = usize::from(inner.right().saturating_sub(x + FIRST_STEP));
        let does = text::clip(does, room, look.ellipsis());
        ink::put(
            buf,
            inner,
            (x + FIRST_STEP, y),
            &does,
            look.style(Role::Dim),
        );
    }
}

/// Writes into the frame below the drawing what did not fit.
fn in_frame(model: &Model, area: Rect, inner: Rect, text: &str, buf: &mut Buffer) {
    let framed = inner.bottom() < area.bottom();
    let width = u16::try_from(text.width())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    if text.is_empty() || !framed || width + 4 > area.width {
        return;
    }
    let at = (area.right() - width - 2, area.bottom() - 1);
    let text = format!(" {text} ");
    ink::put(buf, area, at, &text, model.look.style(Role::Dim));
}

/// What stands in the frame above: what it is, and how many are in which state.
fn titles(model: &Model, scene: &Scene<'_>, width: usize) -> (String, String) {
    let dot = model.look.dot();
    if link::never_read(model) {
        return ("Topology".to_owned(), "nothing was read yet".to_owned());
    }
    let machines = text::thousands(scene.all.len() as u64);
    let machines = match scene.all.len() {
        1 => "1 machine".to_owned(),
        _ => format!("{machines} machines"),
    };
    if model.is_dated() {
        let as_of = words::clock(model.link.as_of, &model.zone);
        let as_of = format!("as of {as_of}, nothing below is live");
        return match model.filter_note(Pane::Machines) {
            None => (format!("Topology {dot} {as_of}"), machines),
            Some(note) => {
                let all = text::thousands(model.fleet.machines().len() as u64);
                let shown = text::thousands(scene.all.len() as u64);
                let title = format!("Topology {dot} {note} {dot} {as_of}");
                (title, format!("{shown} of {all} machines"))
            }
        };
    }
    let mut title = format!("Topology {dot} {machines}");
    match model.list_notes(Pane::Machines).as_str() {
        // What people expect needs no words.
        "worst first" => {}
        notes => title = format!("{title} {dot} {notes}"),
    }
    if scene.zoom >= Zoom::Cells && !scene.all.is_empty() {
        let sites = scene.groups.len();
        let hint = format!("{title}, {sites} sites {dot} names hidden at this zoom");
        let short = format!("{title} {dot} names hidden");
        title = [hint, short]
            .into_iter()
            .find(|hint| hint.width() + 36 < width)
            .unwrap_or(title);
    }
    if model.topology.zoom.is_some() {
        title = format!("{title} {dot} {}", scene.zoom.word());
    }
    // The least bad go first where there is no room for all.
    let mut tallies = tallies(model, scene);
    while title.width() + tallies.iter().map(|t| t.width() + 2).sum::<usize>() + 12 > width
        && tallies.pop().is_some()
    {}
    (title, tallies.join("  "))
}

fn tallies(model: &Model, scene: &Scene<'_>) -> Vec<String> {
    let look = model.look;
    let mut counts = [0_usize; MachineState::ALL.len()];
    let mut idle = 0;
    for (state, machine) in &scene.all {
        counts[*state as usize] += 1;
        idle += usize::from(*state == MachineState::Up && roster::is_idle(machine));
    }
    let mut words = Vec::new();
    if scene.zoom >= Zoom::Cells {
        // They share their glyph.
        counts[MachineState::Cordoned as usize] += counts[MachineState::Draining as usize];
    }
    for state in MachineState::ALL {
        let count = counts[state as usize];
        let (glyph, _) = look.machine(state);
        if count == 0 {
            continue;
        }
        // Far away there are many, and their glyphs are all that is drawn.
        match (scene.zoom >= Zoom::Cells, state) {
            (true, MachineState::Up) => {
                words.push(format!("{glyph} {} busy", count - idle));
                words.push(format!("{} {idle} idle", ink::cell(look, state, true).0));
            }
            (true, MachineState::Draining) => {}
            (true, _) => words.push(format!("{glyph} {count}")),
            (false, _) => words.push(format!("{glyph} {count} {state}")),
        }
    }
    words
}

/// One line about one machine, for where names are hidden.
fn about(model: &Model, (state, machine): &Entry<'_>, width: u16) -> Line<'static> {
    let look = model.look;
    let dot = look.dot();
    let (mark, word, style) = facts::state(model, *state);
    let id = &machine.presence.machine;
    let mut text = format!(
        " {} {dot} {}",
        facts::slots(model, machine),
        facts::seen(model, machine)
    );
    let causes = facts::causes(model, *state, machine);
    if !causes.is_empty() {
        text = format!(": {causes} {dot}{text}");
    } else {
        text = format!(" {dot}{text}");
    }
    let jobs = model.fleet.running_on(id).count();
    text = format!("{text} {dot} {jobs} running {dot} Enter opens");
    let head = format!("{} {id} ", look.pointer());
    let state = format!("{mark} {word}");
    let room = usize::from(width).saturating_sub(head.width() + state.width());
    Line::from(vec![
        ratatui::text::Span::styled(head, look.style(Role::Accent)),
        ratatui::text::Span::styled(state, style),
        ratatui::text::Span::raw(text::clip(&text, room, look.ellipsis())),
    ])
}

/// The worst machines in one line, as many as fit; nothing where all is well.
fn outliers(model: &Model, scene: &Scene<'_>, width: u16) -> Line<'static> {
    let look = model.look;
    let mut spans = vec![ratatui::text::Span::styled(
        "worst  ",
        look.style(Role::Dim),
    )];
    let mut room = usize::from(width).saturating_sub(7);
    for (state, machine) in &scene.all {
        if *state > MachineState::Degraded {
            break;
        }
        let (mark, word, style) = facts::state(model, *state);
        let causes = facts::causes(model, *state, machine);
        let id = &machine.presence.machine;
        let running = match model.fleet.running_on(id).count() {
            0 => String::new(),
            n => format!(" ({n} running)"),
        };
        let name = format!("{id} ");
        let state = format!("{mark} {word}");
        let more = format!("{running} {}   ", text::clip(&causes, 34, look.ellipsis()));
        let used = name.width() + state.width() + more.width();
        if used > room {
            break;
        }
        room -= used;
        spans.push(ratatui::text::Span::raw(name));
        spans.push(ratatui::text::Span::styled(state, style));
        spans.push(ratatui::text::Span::styled(more, look.style(Role::Dim)));
    }
    match spans.len() {
        1 => Line::default(),
        _ => Line::from(spans),
    }
}

/// How long until something in the drawing moves; none where nothing does.
pub(super) fn next_motion(model: &Model, area: Rect) -> Option<Duration> {
    let period = pulse::period(model)?;
    let inner = inside(area);
    let far = model.topology.zoom.is_none() && model.machines_count() > zoom::LANES;
    if far && zoom::Left::of(inner.width).rail == 0 {
        return None;
    }
    if far {
        // Sites are drawn: some of them has it.
        let mut flows = model.fleet.all_traffic(model.heard_at());
        let lit = flows.any(|(_, t)| t.jobs_in_per_s + t.messages_out_per_s > 0.0);
        return lit.then(|| pulse::next(model.now, period));
    }
    let scene = Scene::of(model, inner);
    let moves = match scene.zoom {
        Zoom::Cards => cards::pulses(model, &scene, inner).any(),
        Zoom::Lanes => lanes::pulses(model, &scene, false, inner).any(),
        Zoom::Cells | Zoom::Sites => {
            let shown = usize::from(inner.height);
            let rail = zoom::Left::of(inner.width).rail;
            let flows = roster::flows(model, &scene.groups);
            let lit = |flow: &Option<pulse::Flow>| flow.is_some_and(|f| f.out + f.back > 0.0);
            rail > 0 && flows.iter().take(shown).any(lit)
        }
    };
    moves.then(|| pulse::next(model.now, period))
}
