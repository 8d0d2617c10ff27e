//! The machines, worst first unless another order is asked for.

use std::borrow::Cow;
use std::time::Duration;

use fleet_contract::machine::MachineState;
use fleet_contract::projection::Machine;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::table::{self, Column, Row, Table, Width, column, number};
use super::{link, spark, words};
use crate::columns::Col;
use crate::model::{Model, Pane};
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, Cell, cell};

/// Longest bar of slots, in cells.
const BAR: u32 = 8;
/// Cells of the picture of the load, each for a minute.
const HISTORY: usize = 15;

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let list = &model.lists.machines;
    let all = model.machines_count();
    let count = text::thousands(all as u64);
    let title = match model.list_notes(Pane::Machines).as_str() {
        _ if link::never_read(model) => "Machines".to_owned(),
        // What people expect needs no words.
        "worst first" => format!("Machines {} {count}", look.dot()),
        notes => format!("Machines {0} {count} {0} {notes}", look.dot()),
    };
    let first = window(model, focused, table::height(widget::inside(area))).0;
    let own = list.sort.is_none() && !list.reverse;
    let title = match table::worse(look, first, own).as_str() {
        "" => title,
        worse => title.replacen(look.dot(), &format!("{}{worse}", look.dot()), 1),
    };
    let right = tallies(model);
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    if all == 0 {
        let teach = "no machines yet: fleet up starts this one, fleet agent run another";
        let hidden = model.hidden(Pane::Machines);
        return table::teach(buf, inner, look, &link::empty(model, hidden, teach));
    }
    let height = table::height(inner);
    let (first, selected) = window(model, focused, height);
    let shown = model.machines_shown().skip(first).take(height);
    let rows: Vec<MachineRow<'_>> = shown
        .map(|(state, machine)| MachineRow {
            model,
            machine,
            state,
        })
        .collect();
    let table = Table {
        look,
        columns: &shown_columns(model, inner.width),
        sort: list.sort.map(|col| (col, list.reverse)),
        selected: focused.then(|| selected - first),
        marks: !list.marked.is_empty(),
    };
    table.draw(&rows, inner, buf);
    table::more(buf, inner, look, all, first, height);
}

/// The first row on screen, and the selected one.
pub(super) fn window(model: &Model, focused: bool, height: usize) -> (usize, usize) {
    // Without a selection, or the focus, the worst are what matters.
    let selected = match (focused, &model.machine) {
        (false, _) | (_, None) => 0,
        _ => {
            let wanted = model.selected_machine();
            let mut all = model.machines_shown();
            all.position(|(_, m)| Some(&m.presence.machine) == wanted.as_ref())
                .unwrap_or(0)
        }
    };
    let above = model.lists.machines.above;
    let first = widget::first_below(selected, above, model.machines_count(), height);
    (first, selected)
}

fn tallies(model: &Model) -> String {
    if model.is_dated() {
        return match link::never_read(model) {
            true => link::as_of(model),
            false => format!("{}, nothing below is live", link::as_of(model)),
        };
    }
    let counts = model.fleet.machine_counts(model.as_of());
    let words = MachineState::ALL.into_iter().zip(counts);
    let words = words.filter(|(_, count)| *count > 0).map(|(state, count)| {
        let (glyph, _) = model.look.machine(state);
        format!("{glyph} {count} {state}")
    });
    words.collect::<Vec<_>>().join("  ")
}

/// The columns at this width.
fn shown_columns(model: &Model, width: u16) -> Vec<Column> {
    let width = usize::from(width);
    let word = if model.is_dated() { 15 } else { 8 };
    let name = (width / 2).clamp(5, 48);
    let mut columns = vec![
        column(Col::Glyph, Width::Is(1), 0),
        column(Col::Machine, Width::Fit(5, name), 0),
        column(Col::State, Width::Is(word), 1),
        column(Col::Seen, Width::Is(9), 3),
        column(Col::Slots, Width::Is(14), 2),
        number(Col::Load, Width::Is(7), 5),
        column(Col::History, Width::Is(HISTORY), 9),
        number(Col::Memory, Width::Is(8), 6),
        number(Col::Disk, Width::Is(8), 8),
        number(Col::Rtt, Width::Is(7), 7),
    ];
    let chosen = &model.lists.machines.chosen;
    for (from, mut unusual) in [
        (124, number(Col::Jobs, Width::Is(4), 10)),
        (124, number(Col::Done, Width::Is(5), 10)),
        (124, number(Col::Failed, Width::Is(6), 10)),
        (150, column(Col::Os, Width::Fit(5, 16), 11)),
        (150, column(Col::Version, Width::Fit(7, 12), 12)),
    ] {
        let asked_for = chosen.get(&unusual.col) == Some(&true);
        if asked_for {
            unusual.rank = 3;
        }
        if asked_for || width >= from {
            columns.push(unusual);
        }
    }
    let causes = match width {
        100.. => 28,
        60.. => 24,
        _ => 10,
    };
    columns.push(column(Col::Causes, Width::Rest(causes), 4));
    columns.retain(|column| chosen.get(&column.col) != Some(&false));
    columns
}

struct MachineRow<'a> {
    model: &'a Model,
    machine: &'a Machine,
    state: MachineState,
}

impl MachineRow<'_> {
    /// The mark, the word and their look.
    fn state(&self) -> (&'static str, String, Role) {
        let look = self.model.look;
        let (glyph, role) = look.machine(self.state);
        if self.model.is_dated() {
            let (unknown, role) = look.unknown();
            return (unknown, format!("last {glyph} {}", self.state), role);
        }
        (glyph, self.state.to_string(), role)
    }

    fn number(&self, col: Col) -> Cow<'_, str> {
        let presence = &self.machine.presence;
        let load = &presence.load;
        let jobs = self.model.fleet.jobs_at(&presence.machine);
        let count = |n: usize| match n {
            0 => "".into(),
            n => text::thousands(n as u64).into(),
        };
        match col {
            Col::Seen => words::ago(self.model.now, self.machine.seen).into(),
            Col::Slots => slots(self.model.look, load.slots_used, load.slots).into(),
            Col::Load => load_words(load.load, presence.specs.cores).into(),
            Col::Memory if presence.specs.mem_total == 0 => "".into(),
            Col::Memory => text::bytes(load.mem_free.min(presence.specs.mem_total)).into(),
            Col::Disk if load.disk_total == 0 => "".into(),
            Col::Disk => text::bytes(load.disk_free).into(),
            Col::Rtt => load.rtt_ms.map_or("".into(), |ms| match ms {
                ms if ms < 10.0 => format!("{ms:.1} ms").into(),
                ms => format!("{ms:.0} ms").into(),
            }),
            Col::Jobs => count(self.model.fleet.running_on(&presence.machine).count()),
            Col::Done => count(jobs.map_or(0, |jobs| jobs.done())),
            Col::Failed => count(jobs.map_or(0, |jobs| jobs.failed())),
            Col::Os => format!("{} {}", presence.specs.os, presence.specs.os_version).into(),
            Col::Version => presence.specs.version.as_str().into(),
            _ => "".into(),
        }
    }

    /// The load of the last minutes.
    fn history(&self) -> String {
        let now = self.model.now;
        let stretch = Duration::from_secs(60 * HISTORY as u64);
        let history = self
            .model
            .fleet
            .load_history(&self.machine.presence.machine);
        let samples = history.rev().take_while(|(at, _)| now.since(*at) < stretch);
        let values = samples.map(|(at, sample)| (at, sample.load));
        spark::over(self.model.look, now, stretch, values, HISTORY)
    }
}

impl Row for MachineRow<'_> {
    fn marked(&self) -> bool {
        let marked = &self.model.lists.machines.marked;
        marked.contains(&self.machine.presence.machine)
    }

    fn cell(&self, col: Col) -> Cell<'_> {
        let look = self.model.look;
        let (mark, word, role) = self.state();
        let style = look.style(role);
        let faint = self.model.is_dated() || self.state == MachineState::Offline;
        let plain = look.style(if faint { Role::Dim } else { Role::Plain });
        match col {
            Col::Glyph => cell(mark, style),
            Col::Machine => cell(self.machine.presence.machine.as_str(), plain),
            Col::State => cell(word, style),
            Col::History => cell(self.history(), plain),
            Col::Causes => {
                let at = self.model.as_of();
                cell(words::causes(self.machine, self.state, at), style)
            }
            Col::Seen | Col::Rtt | Col::Os | Col::Version => {
                cell(self.number(col), look.style(Role::Dim))
            }
            Col::Failed => cell(self.number(col), look.style(Role::Bad)),
            _ => cell(self.number(col), plain),
        }
    }
}

/// `1.9/8`: of how many cores.
fn load_words(load: f64, cores: u32) -> String {
    let cores = match cores {
        0 => String::new(),
        cores => format!("/{cores}"),
    };
    match load {
        // Tenths of many are noise.
        load if load < 10.0 => format!("{load:.1}{cores}"),
        load => format!("{load:.0}{cores}"),
    }
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
