//! A cell for each machine, by site; the name of the one under the cursor on a line below.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::ink::Way;
use super::pulse::{Flow, Pulses};
use super::roster::{self, Group};
use super::zoom::{self, Left};
use super::{Scene, hub, ink};
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::widget;

/// What stands before the cells or the bar of a site: trunk, rail, rate, name, counts.
pub(super) fn left(
    model: &Model,
    (group, flow): (&Group<'_>, Option<Flow>),
    (no, is_last, pulses): (usize, bool, &Pulses),
    (buf, area): (&mut Buffer, Rect),
) {
    let look = model.look;
    let widths = Left::of(area.width);
    let dim = look.style(Role::Dim);
    let mut x = area.x;
    let broken = model.is_dated();
    if widths.rail > 0 {
        let joint = ink::joints(look)[if is_last { 2 } else { 1 }];
        ink::put(buf, area, (x, area.y), joint, dim);
        let ways = [Way::Out, Way::Back];
        pulses.draw(model, no, broken, &ways, (buf, area, (x + 1, area.y)));
        x += widths.rail + 3;
    }
    if widths.rate > 0 {
        if let Some(flow) = flow.filter(|f| !broken && f.back + f.out > 0.0) {
            let text = format!("{} {}", ink::pulse(look, Way::Back), ink::rate(flow.back));
            let end = (x + widths.rate, area.y);
            ink::put_right(
                buf,
                area,
                end,
                &text,
                look,
                ink::pulse_style(look, Way::Back),
            );
        }
        x += widths.rate + 1;
    }
    let name = text::escape(group.name);
    let name = text::clip(&name, usize::from(widths.site), look.ellipsis());
    ink::put(
        buf,
        area,
        (x, area.y),
        &name,
        Style::new().add_modifier(Modifier::BOLD),
    );
    if widths.site > 0 {
        x += widths.site + 1;
    }
    if widths.counts > 0 {
        let all = text::thousands(group.machines.len() as u64);
        let all = format!("{all:>4} ");
        let x = ink::put(buf, area, (x, area.y), &all, dim);
        if group.bad() > 0 {
            let bad = format!("!{}", group.bad());
            ink::put(buf, area, (x, area.y), &bad, look.style(Role::Warn));
        }
    }
}

/// The pulses on the lanes of these sites.
pub(super) fn pulses(model: &Model, flows: &[Option<Flow>], width: u16) -> Pulses {
    Pulses::of(model, Left::of(width).rail, flows)
}

/// Draws them; what is to be said of those that have no room.
pub(super) fn draw(
    model: &Model,
    scene: &Scene<'_>,
    focused: bool,
    inner: Rect,
    buf: &mut Buffer,
) -> String {
    let look = model.look;
    let selected = model.selected_machine().filter(|_| focused);
    let sizes = zoom::sizes(&scene.groups);
    let mut grid = zoom::grid(&sizes, inner);
    if let Some(id) = selected.as_ref().filter(|_| !grid.whole) {
        // The worst of each site, but all of them where the cursor goes through them.
        let rows: Vec<zoom::Row> = zoom::rows(&sizes, grid.room).collect();
        let holds = |row: &zoom::Row| {
            let machines = &scene.groups[row.group].machines[row.from..row.to];
            machines.iter().any(|(_, m)| m.presence.machine == *id)
        };
        let at = rows.iter().position(holds).unwrap_or(0);
        let height = usize::from(inner.height - u16::from(grid.line) - u16::from(grid.hub));
        let first = widget::first_row(at, rows.len(), height);
        grid.rows = rows.into_iter().skip(first).take(height).collect();
    }
    let flows = roster::flows(model, &scene.groups);
    let shown = grid.rows.last().map_or(0, |row| row.group + 1);
    let pulses = pulses(model, &flows[..shown.min(flows.len())], inner.width);
    if grid.hub {
        let trunks: &[u16] = if Left::of(inner.width).rail > 0 {
            &[inner.x]
        } else {
            &[]
        };
        hub::line(model, inner, trunks, buf);
    }
    let top = inner.y + u16::from(grid.hub);
    let last = grid.rows.iter().rposition(|row| row.from == 0);
    let mut seen = 0;
    for (no, (y, row)) in (top..inner.bottom()).zip(&grid.rows).enumerate() {
        let group = &scene.groups[row.group];
        let area = Rect::new(inner.x, y, inner.width, 1);
        if row.from == 0 {
            let flow = flows.get(row.group).copied().flatten();
            left(
                model,
                (group, flow),
                (row.group, Some(no) == last, &pulses),
                (buf, area),
            );
        } else if Left::of(inner.width).rail > 0 && last.is_some_and(|last| no < last) {
            let trunk = ink::double(look)[5];
            ink::put(buf, area, (inner.x, y), trunk, look.style(Role::Dim));
        }
        let mut x = inner.x + grid.left;
        for (state, machine) in &group.machines[row.from..row.to] {
            let (glyph, role) = ink::cell(look, *state, roster::is_idle(machine));
            let mut style = look.style(if model.is_dated() { Role::Dim } else { role });
            if selected.as_ref() == Some(&machine.presence.machine) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            ink::put(buf, area, (x, y), glyph, style);
            x += grid.step;
        }
        if grid.right > 0 && row.from == 0 {
            tail(model, group, (buf, area));
        }
        seen += row.to - row.from;
    }
    if grid.line {
        line(model, scene, focused, inner, buf);
    }
    match scene.all.len() - seen.min(scene.all.len()) {
        0 => String::new(),
        cut => format!("{} more not shown", text::thousands(cut as u64)),
    }
}

/// What stands behind a site: how busy it is, and how far away.
pub(super) fn tail(model: &Model, group: &Group<'_>, (buf, area): (&mut Buffer, Rect)) {
    let style = model.look.style(Role::Dim);
    let end = (area.right().saturating_sub(1), area.y);
    ink::put_right(buf, area, end, &roster::sum(group), model.look, style);
}

/// The last line: the machine under the cursor, or the worst ones.
pub(super) fn line(model: &Model, scene: &Scene<'_>, focused: bool, inner: Rect, buf: &mut Buffer) {
    let y = inner.height.saturating_sub(1);
    let selected = model.selected_machine();
    let selected = scene
        .all
        .iter()
        .find(|(_, m)| Some(&m.presence.machine) == selected.as_ref());
    let line = match selected {
        Some(entry) if focused => super::about(model, entry, inner.width),
        _ => super::outliers(model, scene, inner.width),
    };
    let is_empty = line.spans.iter().all(|span| span.content.width() == 0);
    if !is_empty {
        widget::line(buf, inner, y, &line);
    }
}
