//! The machines, worst first.

use fleet_contract::machine::MachineState;
use fleet_contract::projection::Machine;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{dispatches, link, words};
use crate::model::Model;
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, cell, left, right};

/// Longest bar of slots, in cells.
const BAR: u32 = 8;

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let machines = model.fleet.machines_worst_first(model.as_of());
    let title = format!("Machines {} {}", look.dot(), machines.len());
    let right = tallies(model, &machines);
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    if machines.is_empty() {
        let text = link::empty(
            model,
            0,
            "no machines yet: fleet up starts this one, fleet agent run another",
        );
        return dispatches::teach(buf, inner, look, &text);
    }
    let height = usize::from(inner.height);
    let selected = model.selected_machine();
    let at = machines
        .iter()
        .position(|(_, m)| Some(&m.presence.machine) == selected.as_ref())
        .unwrap_or(0);
    let first = widget::first_row(at, machines.len(), height);
    // Without the focus the worst are what matters.
    let first = if focused { first } else { 0 };
    let shown = || machines.iter().skip(first).take(height);
    let names = shown().map(|(_, m)| m.presence.machine.as_str());
    let name = widget::width(names, 5, usize::from(inner.width) / 5);
    for (y, (state, machine)) in shown().enumerate() {
        let selected = focused && first + y == at;
        let y = u16::try_from(y).unwrap_or(u16::MAX);
        row(model, inner, (y, selected, name), *state, machine, buf);
    }
    dispatches::more(buf, inner, look, machines.len(), first);
}

fn tallies(model: &Model, machines: &[(MachineState, &Machine)]) -> String {
    if model.is_dated() {
        let as_of = words::clock(model.link.as_of, &model.zone);
        return format!("as of {as_of}, nothing below is live");
    }
    let mut words = Vec::new();
    for state in MachineState::ALL {
        let count = machines.iter().filter(|(s, _)| *s == state).count();
        if count > 0 {
            let (glyph, _) = model.look.machine(state);
            words.push(format!("{glyph} {count} {state}"));
        }
    }
    words.join("  ")
}

fn row(
    model: &Model,
    area: Rect,
    (y, selected, name): (u16, bool, usize),
    state: MachineState,
    machine: &Machine,
    buf: &mut Buffer,
) {
    let look = model.look;
    let presence = &machine.presence;
    let width = usize::from(area.width);
    let (glyph, role) = look.machine(state);
    let dated = model.is_dated();
    let (mark, word, style) = if dated {
        let (unknown, role) = look.unknown();
        (unknown, format!("last {glyph} {state}"), look.style(role))
    } else {
        (glyph, state.to_string(), look.style(role))
    };
    let plain = look.style(if dated || state == MachineState::Offline {
        Role::Dim
    } else {
        Role::Plain
    });
    let seen = match words::age(model.now, machine.seen).as_str() {
        age if dated => format!("{age} ago"),
        "now" => "seen now".to_owned(),
        age => format!("seen {age}"),
    };
    let load = &presence.load;
    let wide = width >= 90;
    let cores = match presence.specs.cores {
        0 => String::new(),
        cores => format!("/{cores}"),
    };
    let load_words = match load.load {
        // Tenths of many are noise.
        load if load < 10.0 => format!("load {load:.1}{cores}"),
        load => format!("load {load:.0}{cores}"),
    };
    let free = load.mem_free.min(presence.specs.mem_total);
    let memory = if presence.specs.mem_total == 0 {
        String::new()
    } else {
        format!("{} free", text::bytes(free))
    };
    let rtt = load.rtt_ms.map_or(String::new(), |ms| match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    });
    let columns = [
        left(1),
        left(name),
        left(if dated { 15 } else { 8 }),
        left(if width >= 50 { 11 } else { 0 }),
        left(14),
        right(if wide { 12 } else { 0 }),
        right(if wide { 13 } else { 0 }),
        right(if wide { 8 } else { 0 }),
        left(width),
    ];
    let cells = vec![
        cell(mark, style),
        cell(presence.machine.as_str(), plain),
        cell(word, style),
        cell(seen, look.style(Role::Dim)),
        cell(slots(look, load.slots_used, load.slots), plain),
        cell(load_words, plain),
        cell(memory, plain),
        cell(rtt, look.style(Role::Dim)),
        cell(
            words::causes(machine, state, judged_at(model)),
            look.style(role),
        ),
    ];
    widget::row(buf, area, y, look, selected, &columns, cells);
}

/// Ages go on while the link is down; what they mean does not.
fn judged_at(model: &Model) -> Time {
    model.as_of()
}

/// Slots as a bar with its numbers: `▮▮▯▯ 2/4`.
pub(super) fn slots(look: Look, used: u32, all: u32) -> String {
    let (full, free) = look.slots();
    let cells = all.min(BAR);
    // More slots than cells: the bar is full only when all slots are, and empty when none is.
    let taken = match used.min(all) {
        used if all <= BAR => used,
        0 => 0,
        used if used == all => BAR,
        used => (u64::from(used) * u64::from(BAR) / u64::from(all)).clamp(1, 7) as u32,
    };
    format!(
        "{}{} {used}/{all}",
        full.repeat(taken as usize),
        free.repeat((cells - taken) as usize)
    )
}
