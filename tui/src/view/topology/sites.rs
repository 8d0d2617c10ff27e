//! A bar for each site, the worst site first, and the worst machines by name below.

use fleet_contract::machine::MachineState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use unicode_width::UnicodeWidthStr;

use super::roster::{self, Group};
use super::zoom::{Left, TAIL};
use super::{Scene, cells, hub, ink};
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::widget;

/// Columns of the counts at the end of a bar.
const COUNTS: u16 = 24;

/// How many machines are of each kind of block, worst first.
fn parts(group: &Group<'_>) -> Vec<(MachineState, bool, usize)> {
    let idle = group
        .machines
        .iter()
        .filter(|(s, m)| *s == MachineState::Up && roster::is_idle(m))
        .count();
    let mut parts = Vec::new();
    for state in MachineState::ALL {
        let count = group.counts[state as usize];
        if state == MachineState::Up {
            parts.extend([(state, false, count - idle), (state, true, idle)]);
        } else {
            parts.push((state, false, count));
        }
    }
    parts.retain(|(.., count)| *count > 0);
    parts
}

/// Shares of a bar of this many cells: each part has a cell at least, the worst first where there
/// are fewer cells than parts; the largest part gives or takes what rounding left.
fn shares(parts: &[usize], cells: usize) -> Vec<usize> {
    let all: usize = parts.iter().sum();
    let cells = cells.min(all);
    let mut shares: Vec<usize> = parts
        .iter()
        .map(|n| (n * cells / all.max(1)).max(1))
        .collect();
    let mut over = shares.iter().sum::<usize>() as isize - cells as isize;
    while over > 0 {
        let Some(most) = (0..shares.len()).max_by_key(|at| (shares[*at], *at)) else {
            break;
        };
        shares[most] -= 1;
        over -= 1;
    }
    if over < 0
        && let Some(most) = (0..shares.len()).max_by_key(|at| shares[*at])
    {
        shares[most] += over.unsigned_abs();
    }
    shares
}

/// Draws them; what is to be said of those that have no room.
pub(super) fn draw(
    model: &Model,
    scene: &Scene<'_>,
    focused: bool,
    inner: Rect,
    buf: &mut Buffer,
) -> String {
    let height = usize::from(inner.height);
    let below = usize::from(height > 1);
    let has_hub = inner.width >= 56 && height >= 6;
    let space = height - below - usize::from(has_hub);
    let selected = model.selected_machine().filter(|_| focused);
    let holds = |g: &Group<'_>| {
        let mut ids = g.machines.iter().map(|(_, m)| &m.presence.machine);
        ids.any(|id| Some(id) == selected.as_ref())
    };
    let at = match focused {
        true => scene.groups.iter().position(holds),
        false => None,
    };
    let first = widget::first_row(at.unwrap_or(0), scene.groups.len(), space);
    let last = (first + space).min(scene.groups.len());
    let flows = roster::flows(model, &scene.groups[first..last]);
    let pulses = cells::pulses(model, &flows, inner.width);
    if has_hub {
        hub::line(model, inner, &[inner.x], buf);
    }
    let top = inner.y + u16::from(has_hub);
    for (no, (y, group)) in (top..).zip(&scene.groups[first..last]).enumerate() {
        let area = Rect::new(inner.x, y, inner.width, 1);
        let flow = flows.get(no).copied().flatten();
        let is_last = first + no + 1 == scene.groups.len();
        cells::left(model, (group, flow), (no, is_last, &pulses), (buf, area));
        bar(model, group, at == Some(first + no), (buf, area));
    }
    if below > 0 {
        cells::line(model, scene, focused, inner, buf);
    }
    more(scene, first, last)
}

fn more(scene: &Scene<'_>, first: usize, last: usize) -> String {
    let machines = |groups: &[Group<'_>]| groups.iter().map(|g| g.machines.len()).sum::<usize>();
    let below = &scene.groups[last..];
    let (sites, cut) = (below.len(), text::thousands(machines(below) as u64));
    match (first, sites) {
        (0, 0) => String::new(),
        (0, _) => format!("{sites} more sites below, {cut} machines"),
        (above, _) => format!("{above} sites above, {sites} below"),
    }
}

fn bar(model: &Model, group: &Group<'_>, selected: bool, (buf, area): (&mut Buffer, Rect)) {
    let look = model.look;
    let parts = parts(group);
    let start = area.x + Left::of(area.width).width();
    let room = area.right().saturating_sub(start);
    let counts = if room > COUNTS * 2 { COUNTS + 1 } else { 0 };
    let tail = if room > (COUNTS + TAIL) * 2 { TAIL } else { 0 };
    let cells = usize::from(room - counts - tail);
    if tail > 0 {
        cells::tail(model, group, (buf, area));
    }
    let sizes: Vec<usize> = parts.iter().map(|(.., n)| *n).collect();
    let dated = model.is_dated();
    let mut x = start;
    for ((state, idle, _), share) in parts.iter().zip(shares(&sizes, cells)) {
        let (glyph, role) = ink::block(look, *state, *idle);
        let mut style = look.style(if dated { Role::Dim } else { role });
        style = style.remove_modifier(Modifier::BOLD);
        if selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        x = ink::put(buf, area, (x, area.y), &glyph.repeat(share), style);
    }
    if counts == 0 {
        return;
    }
    let end = area.right() - tail;
    let mut x = end - counts + 1;
    for (state, _, count) in parts.iter().filter(|(s, ..)| *s < MachineState::Up) {
        let (glyph, role) = look.machine(*state);
        let text = format!("{glyph}{count} ");
        if usize::from(x) + text.width() > usize::from(end) {
            break;
        }
        let style = look.style(if dated { Role::Dim } else { role });
        x = ink::put(buf, area, (x, area.y), &text, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_bar_vanishes_while_there_is_a_cell_for_it() {
        assert_eq!(shares(&[1, 100, 24], 50), [1, 40, 9]);
        assert_eq!(shares(&[1, 1, 1], 50), [1, 1, 1]);
        assert_eq!(shares(&[1, 2, 3], 0), [0, 0, 0]);
        for cells in 0..60 {
            for parts in [vec![1, 1000], vec![3, 1, 1, 2, 90, 28], vec![5]] {
                let shares = shares(&parts, cells);
                let all: usize = parts.iter().sum();
                assert_eq!(shares.iter().sum::<usize>(), cells.min(all));
                let lit = shares.iter().filter(|n| **n > 0).count();
                assert_eq!(lit, parts.len().min(cells));
                // The worst is the last to go.
                assert!(cells == 0 || shares[0] > 0);
            }
        }
    }
}
