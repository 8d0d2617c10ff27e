//! A row for each machine, each with its lane from the hub's trunk.

use fleet_contract::machine::MachineState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::ink::Way;
use super::pulse::{Flow, Pulses};
use super::roster::{self, Entry};
use super::{Scene, facts, hub, ink, zoom};
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::view::machines;
use crate::widget;

/// What of a row there is room for, in columns.
struct Widths {
    rail: u16,
    rates: u16,
    name: u16,
    word: u16,
    slots: u16,
    load: u16,
    seen: u16,
}

impl Widths {
    fn of(width: u16, name: u16, dated: bool) -> Self {
        let word = if dated { 15 } else { 8 };
        let (rail, rates, word, slots, load, seen) = match width {
            110.. => (14, 14, word, 17, 14, 10),
            90.. => (14, 14, word, 17, 0, 10),
            70.. => (12, 0, word, 17, 0, 0),
            56.. => (8, 0, word, 8, 0, 0),
            48.. => (6, 0, word, 0, 0, 0),
            36.. => (4, 0, word, 0, 0, 0),
            _ => (0, 0, word, 0, 0, 0),
        };
        // Where it is dated, how long ago that was counts more than its lane.
        let (rail, seen) = match (dated, width) {
            (false, _) => (rail, seen),
            (true, 70..) => (rail.min(6), 10),
            (true, 56..) => (0, 9),
            (true, _) => (0, 0),
        };
        let mut widths = Self {
            rail,
            rates,
            name: name.min(width / 4).max(5),
            word,
            slots,
            load,
            seen,
        };
        widths.spare(name.min(width / 2));
        widths
    }

    /// A name is cut last: what moves and what is measured gives way to it.
    fn spare(&mut self, name: u16) {
        let gives_way = [
            &mut self.load,
            &mut self.rates,
            &mut self.slots,
            &mut self.rail,
        ];
        for other in gives_way {
            if self.name < name {
                self.name = name.min(self.name + std::mem::take(other));
            }
        }
    }
}

/// Where rows are, and which machines have one.
struct Places {
    lanes: zoom::Lanes,
    /// The first machine that is shown.
    first: usize,
    width: u16,
    top: u16,
}

impl Places {
    fn of(model: &Model, scene: &Scene<'_>, focused: bool, inner: Rect) -> Self {
        let lanes = zoom::lanes(scene.all.len(), inner);
        let selected = model.selected_machine().filter(|_| focused);
        let is_selected = |e: &Entry<'_>| selected.as_ref() == Some(&e.1.presence.machine);
        let at = scene.all.iter().position(is_selected).unwrap_or(0);
        let columns = u16::try_from(lanes.columns.max(1)).unwrap_or(1);
        Self {
            lanes,
            // Without the focus the worst are what matters.
            first: widget::first_row(at, scene.all.len(), lanes.room()),
            width: inner.width / columns,
            top: inner.y + u16::from(lanes.hub),
        }
    }

    /// The left upper corner of a row, and its width.
    fn at(&self, no: usize, inner: Rect) -> Rect {
        let rows = self.lanes.rows.max(1);
        let column = u16::try_from(no / rows).unwrap_or(0);
        let row = u16::try_from(no % rows).unwrap_or(0);
        let x = inner.x + column * self.width;
        Rect::new(x, self.top + row, self.width, 1).intersection(inner)
    }

    fn shown<'a, 's>(&self, scene: &'s Scene<'a>) -> &'s [Entry<'a>] {
        let first = self.first.min(scene.all.len());
        let last = (first + self.lanes.room()).min(scene.all.len());
        &scene.all[first..last]
    }
}

fn name_width(shown: &[Entry<'_>]) -> u16 {
    let names = shown.iter().map(|(_, m)| m.presence.machine.as_str().len());
    u16::try_from(names.max().unwrap_or(0)).unwrap_or(u16::MAX)
}

/// The pulses on the lanes.
pub(super) fn pulses(model: &Model, scene: &Scene<'_>, focused: bool, inner: Rect) -> Pulses {
    let places = Places::of(model, scene, focused, inner);
    let shown = places.shown(scene);
    let widths = Widths::of(places.width, name_width(shown), model.is_dated());
    let flows: Vec<Option<Flow>> = shown
        .iter()
        .map(|entry| roster::flow(model, entry))
        .collect();
    Pulses::of(model, widths.rail, &flows)
}

/// Draws them; what is to be said of those that have no room.
pub(super) fn draw(
    model: &Model,
    scene: &Scene<'_>,
    focused: bool,
    inner: Rect,
    buf: &mut Buffer,
) -> String {
    let places = Places::of(model, scene, focused, inner);
    let shown = places.shown(scene);
    let widths = Widths::of(places.width, name_width(shown), model.is_dated());
    let pulses = pulses(model, scene, focused, inner);
    if places.lanes.hub {
        let used = shown.len().div_ceil(places.lanes.rows.max(1)).max(1);
        let trunks = (0..used).map(|c| places.at(c * places.lanes.rows, inner).x);
        let trunks: Vec<u16> = match widths.rail {
            0 => Vec::new(),
            _ => trunks.collect(),
        };
        hub::line(model, inner, &trunks, buf);
    }
    let selected = model.selected_machine().filter(|_| focused);
    for (no, entry) in shown.iter().enumerate() {
        let area = places.at(no, inner);
        let id = &entry.1.presence.machine;
        let is_last = (no + 1) % places.lanes.rows.max(1) == 0 || no + 1 == shown.len();
        let flow = roster::flow(model, entry);
        lane(
            model,
            entry,
            flow,
            (no, is_last, &pulses, &widths),
            (buf, area),
        );
        row(
            model,
            entry,
            &widths,
            selected.as_ref() == Some(id),
            (buf, area),
        );
    }
    let below = scene.all.len() - places.first.min(scene.all.len()) - shown.len();
    match (places.first, below) {
        (0, 0) => String::new(),
        (0, below) => format!("{} more below", text::thousands(below as u64)),
        (above, below) => format!("{above} above, {below} below"),
    }
}

/// Trunk, rail and rates.
fn lane(
    model: &Model,
    (state, _): &Entry<'_>,
    flow: Option<Flow>,
    (no, is_last, pulses, widths): (usize, bool, &Pulses, &Widths),
    (buf, area): (&mut Buffer, Rect),
) {
    if widths.rail == 0 {
        return;
    }
    let look = model.look;
    let dim = look.style(Role::Dim);
    let joint = ink::joints(look)[if is_last { 2 } else { 1 }];
    ink::put(buf, area, (area.x, area.y), joint, dim);
    let broken = facts::is_broken(model, *state);
    let ways = [Way::Out, Way::Back];
    pulses.draw(model, no, broken, &ways, (buf, area, (area.x + 1, area.y)));
    if let Some(flow) = flow.filter(|_| widths.rates > 0) {
        let mut x = area.x + widths.rail + 2;
        for (way, rate, width) in [(Way::Out, flow.out, 6), (Way::Back, flow.back, 7)] {
            let text = format!("{}{}", ink::pulse(look, way), ink::rate(rate));
            let style = if rate > 0.0 {
                ink::pulse_style(look, way)
            } else {
                dim
            };
            ink::put(buf, area, (x, area.y), &text, style);
            x += width;
        }
    }
}

/// What the machine is.
fn row(
    model: &Model,
    (state, machine): &Entry<'_>,
    widths: &Widths,
    selected: bool,
    (buf, area): (&mut Buffer, Rect),
) {
    let look = model.look;
    let (mark, word, style) = facts::state(model, *state);
    let dim = look.style(Role::Dim);
    let quiet = facts::is_broken(model, *state);
    let plain = if quiet { dim } else { Style::new() };
    let trunk = if widths.rail > 0 { widths.rail + 2 } else { 0 };
    let start = area.x
        + trunk
        + if widths.rates > 0 {
            widths.rates + 1
        } else {
            0
        };
    // Where there is a single cell, it is the state's.
    let pointer = match (selected, area.width) {
        (_, 0..=2) => "",
        (true, _) => look.pointer(),
        (false, _) => " ",
    };
    let mut x = ink::put(buf, area, (start, area.y), pointer, Style::new());
    x = ink::put(buf, area, (x, area.y), mark, style) + 1;
    let is_up = matches!(state, MachineState::Up);
    let name = machine.presence.machine.as_str();
    let room = widths.name
        + if is_up && widths.slots == 0 {
            widths.word
        } else {
            0
        };
    let name = text::clip(name, usize::from(room), look.ellipsis());
    let bold = if quiet {
        dim
    } else {
        Style::new().add_modifier(Modifier::BOLD)
    };
    ink::put(buf, area, (x, area.y), &name, bold);
    x += widths.name + 1;
    let column = |x: &mut u16, width: u16, text: &str, style: Style, buf: &mut Buffer| {
        if width > 0 {
            let text = text::clip(text, usize::from(width), look.ellipsis());
            ink::put(buf, area, (*x, area.y), &text, style);
            *x += width + 1;
        }
    };
    if widths.slots > 0 || !is_up || model.is_dated() {
        column(&mut x, widths.word, &word, style, buf);
    }
    let slots = match widths.slots {
        17.. => facts::slots(model, machine),
        _ => machines::slots(
            look,
            machine.presence.load.slots_used,
            machine.presence.load.slots,
        ),
    };
    column(&mut x, widths.slots, &slots, plain, buf);
    let load = if widths.load > 0 {
        facts::load(model, machine, 9)
    } else {
        String::new()
    };
    column(&mut x, widths.load, &load, plain, buf);
    column(&mut x, widths.seen, &facts::seen(model, machine), dim, buf);
    let room = usize::from(area.right().saturating_sub(x));
    let causes = facts::causes(model, *state, machine);
    let mut room = room;
    if facts::is_hub(model, machine) && room > 20 {
        x = ink::put(buf, area, (x, area.y), "(the hub)  ", dim);
        room -= 11;
    }
    if causes.is_empty() {
        let jobs = facts::jobs(model, &machine.presence.machine, room);
        // The bar of slots says already that it runs nothing.
        for (text, style) in jobs
            .into_iter()
            .filter(|_| room >= 10 && !roster::is_idle(machine))
        {
            x = ink::put(buf, area, (x, area.y), &text, style);
        }
    } else {
        let causes = text::clip(&causes, room, look.ellipsis());
        ink::put(buf, area, (x, area.y), &causes, style);
    }
    if selected {
        let bar = Rect::new(start, area.y, area.right().saturating_sub(start), 1);
        buf.set_style(
            bar.intersection(area),
            Style::new().add_modifier(Modifier::REVERSED),
        );
    }
}
