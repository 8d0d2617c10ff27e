//! A card for each machine, each with two lanes to the hub's box: jobs to it, and what it tells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::ink::Way;
use super::pulse::{Flow, Pulses};
use super::roster::{self, Entry};
use super::zoom::{CARD, CARD_ROWS};
use super::{Scene, facts, hub, ink, lanes};
use crate::model::Model;
use crate::text;
use crate::theme::Role;

/// Widest hub and widest card.
const WIDEST: (u16, u16) = (44, 66);
/// Columns that a rate takes at the end of a lane.
const LABEL: u16 = 16;

/// Where everything is.
struct Places {
    hub: Rect,
    cards: Vec<Rect>,
    /// Cells of a lane's rail.
    rail: u16,
    /// Columns of the lane's label.
    label: u16,
}

fn places(model: &Model, scene: &Scene<'_>, inner: Rect) -> Option<(Places, Vec<usize>)> {
    let host = hub::host(model, &scene.all).map(|(_, m)| &m.presence.machine);
    let shown: Vec<usize> = (0..scene.all.len())
        .filter(|at| Some(&scene.all[*at].1.presence.machine) != host)
        .collect();
    let room = usize::from(inner.height / CARD.1);
    let count = u16::try_from(shown.len().min(room)).unwrap_or(0);
    let hub_width = (inner.width * 28 / 100).clamp(22, WIDEST.0);
    let card_width = (inner.width * 32 / 100).clamp(CARD.0, WIDEST.1);
    let lane = inner.width.checked_sub(hub_width + card_width + 2)?;
    if lane < 8 || inner.height < CARD.1 || (count == 0 && !shown.is_empty()) {
        return None;
    }
    let height = match inner.height.checked_div(count) {
        Some(height) => height.min(CARD_ROWS).min(content(model, scene) + 2),
        None => 0,
    };
    let spare = inner.height - height * count;
    let gap = spare
        .checked_div(count.saturating_sub(1))
        .unwrap_or(0)
        .min(1);
    let all = height * count + gap * count.saturating_sub(1);
    let hub_height = all.max(hub::wanted(model, &scene.all)).min(inner.height);
    let hub = Rect::new(inner.x + 1, inner.y, hub_width, hub_height);
    let x = inner.right() - card_width - 1;
    let cards = (0..count).map(|at| {
        let y = inner.y + at * (height + gap);
        Rect::new(x, y, card_width, height)
    });
    let label = if lane >= 30 { LABEL } else { 0 };
    let places = Places {
        hub,
        cards: cards.collect(),
        rail: lane - label,
        label,
    };
    Some((places, shown))
}

/// Rows inside a card that says everything.
fn content(model: &Model, scene: &Scene<'_>) -> u16 {
    let few = scene.all.iter().take(usize::from(u8::MAX));
    let mut causes = few.map(|(s, m)| facts::causes(model, *s, m));
    if causes.any(|causes| !causes.is_empty()) {
        3
    } else {
        2
    }
}

/// Rows that cards would take.
pub(super) fn wanted(model: &Model, all: &[Entry<'_>]) -> u16 {
    let host = usize::from(hub::host(model, all).is_some());
    let cards = all.len() - host;
    let cards = u16::try_from(cards).unwrap_or(u16::MAX);
    let cards = cards.saturating_mul(CARD_ROWS + 1).saturating_sub(1);
    cards.max(hub::wanted(model, all))
}

fn flows(model: &Model, scene: &Scene<'_>, shown: &[usize], count: usize) -> Vec<Option<Flow>> {
    let entries = shown.iter().take(count).map(|at| &scene.all[*at]);
    entries.map(|entry| roster::flow(model, entry)).collect()
}

/// The pulses on the lanes.
pub(super) fn pulses(model: &Model, scene: &Scene<'_>, inner: Rect) -> Pulses {
    match places(model, scene, inner) {
        Some((places, shown)) => {
            let flows = flows(model, scene, &shown, places.cards.len());
            Pulses::of(model, places.rail, &flows)
        }
        None => lanes::pulses(model, scene, false, inner),
    }
}

/// Draws them; what is to be said of those that have no room.
pub(super) fn draw(
    model: &Model,
    scene: &Scene<'_>,
    focused: bool,
    inner: Rect,
    buf: &mut Buffer,
) -> String {
    // Where there is no room for cards, rows say the same.
    let Some((places, shown)) = places(model, scene, inner) else {
        return lanes::draw(model, scene, focused, inner, buf);
    };
    let selected = model.selected_machine().filter(|_| focused);
    let is_selected = |entry: &Entry<'_>| selected.as_ref() == Some(&entry.1.presence.machine);
    let host = hub::host(model, &scene.all);
    hub::card(
        model,
        host,
        host.as_ref().is_some_and(is_selected),
        places.hub,
        buf,
    );
    let flows = flows(model, scene, &shown, places.cards.len());
    let pulses = Pulses::of(model, places.rail, &flows);
    // The selected one is on screen, the worst are otherwise.
    let at = shown
        .iter()
        .position(|at| is_selected(&scene.all[*at]))
        .unwrap_or(0);
    let first = (at + 1).saturating_sub(places.cards.len());
    for (no, area) in places.cards.iter().enumerate() {
        let Some(entry) = shown.get(first + no).map(|at| &scene.all[*at]) else {
            break;
        };
        card(model, entry, is_selected(entry), *area, buf);
        let flow = if first == 0 {
            flows.get(no).copied().flatten()
        } else {
            None
        };
        lane(
            model,
            entry,
            flow,
            (no, &pulses, &places),
            (buf, inner, *area),
        );
    }
    let cut = shown.len() - places.cards.len().min(shown.len());
    match cut {
        0 => String::new(),
        cut => format!("{cut} more machines"),
    }
}

/// The two lanes between hub and card, or the one where the card is low.
fn lane(
    model: &Model,
    (state, machine): &Entry<'_>,
    flow: Option<Flow>,
    (no, pulses, places): (usize, &Pulses, &Places),
    (buf, inner, card): (&mut Buffer, Rect, Rect),
) {
    let look = model.look;
    let broken = facts::is_broken(model, *state);
    let dim = look.style(Role::Dim);
    let two = card.height >= 4;
    let ways: &[&[Way]] = match two {
        true => &[&[Way::Out], &[Way::Back]],
        false => &[&[Way::Out, Way::Back]],
    };
    let start = places.hub.right();
    for (y, ways) in (card.y + 1..).zip(ways) {
        let in_hub = y + 1 < places.hub.bottom();
        if in_hub {
            ink::put(
                buf,
                inner,
                (start - 1, y),
                ink::joints(look)[0],
                Style::new(),
            );
        }
        pulses.draw(model, no, broken, ways, (buf, inner, (start, y)));
        let rail = ink::rail(look, broken).repeat(usize::from(places.label));
        ink::put(buf, inner, (start + places.rail, y), &rail, dim);
        ink::put(buf, inner, (card.x, y), ink::socket(look), dim);
    }
    let label = |flow: Flow, way| match way {
        Way::Out => format!(" jobs {} ", ink::rate(flow.out)),
        Way::Back => format!(" {} {} ", ink::rate(flow.back), ink::byte_rate(flow.bytes)),
    };
    let end = card.x - 1;
    match flow.filter(|_| places.label > 0) {
        Some(flow) if two => {
            for (y, way) in [(card.y + 1, Way::Out), (card.y + 2, Way::Back)] {
                let style = if flow.rate(way) > 0.0 {
                    Style::new()
                } else {
                    dim
                };
                ink::put_right(buf, inner, (end, y), &label(flow, way), look, style);
            }
        }
        Some(flow) => {
            let text = format!(" {} jobs {} ", ink::rate(flow.back), ink::rate(flow.out));
            ink::put_right(buf, inner, (end, card.y + 1), &text, look, dim);
        }
        None => {}
    }
    if card.height >= 4 {
        let room = usize::from(places.rail + places.label).saturating_sub(2);
        let rtt = |name: &str, ms: Option<f64>| match ms {
            Some(ms) => format!("{name} {ms:.1} ms  "),
            None => String::new(),
        };
        let load = &machine.presence.load;
        let text = match flow {
            Some(_) => format!("{}{}", rtt("rtt", load.rtt_ms), rtt("p99", load.rtt_p99_ms)),
            None => facts::silence(model, *state, machine),
        };
        let text = text::clip(&text, room, look.ellipsis());
        ink::put(buf, inner, (start + 2, card.y + 3), &text, dim);
    }
}

fn card(model: &Model, (state, machine): &Entry<'_>, selected: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let (mark, word, style) = facts::state(model, *state);
    frame(
        model,
        (machine.presence.machine.as_str(), selected),
        area,
        buf,
    );
    let inner = super::inside(area);
    let room = usize::from(inner.width).saturating_sub(2);
    let dim = look.style(Role::Dim);
    let plain = if facts::is_broken(model, *state) {
        dim
    } else {
        Style::new()
    };
    // In the frame: what it is, and how old that is.
    let end = area.right().saturating_sub(2);
    let seen = format!("{} ", facts::seen(model, machine));
    // The name is cut last: the age gives way first, then the word.
    let name = machine.presence.machine.as_str();
    let words = format!(" {mark} {word}  ");
    let left = usize::from(area.width).saturating_sub(text::width(name) + 5);
    let seen = if words.width() + seen.width() <= left {
        seen
    } else {
        String::new()
    };
    let state_words = match words.width() <= left {
        true if seen.is_empty() => words.trim_end().to_owned() + " ",
        true => words,
        false => format!(" {mark} "),
    };
    ink::put_right(buf, area, (end, area.y), &seen, look, dim);
    let end = end.saturating_sub(u16::try_from(seen.width()).unwrap_or(0));
    ink::put_right(buf, area, (end, area.y), &state_words, look, style);
    let causes = facts::causes(model, *state, machine);
    let slots = facts::slots(model, machine);
    let cells = room.saturating_sub(slots.width() + 7).min(12);
    let mut rows: Vec<(Vec<(String, Style)>, String)> =
        vec![(vec![(slots, plain)], facts::load(model, machine, cells))];
    let jobs = |room| facts::jobs(model, &machine.presence.machine, room);
    if inner.height == 1 && room > 40 && !roster::is_idle(machine) {
        let left = room.saturating_sub(cells + 8 + rows[0].0[0].0.width() + 2);
        rows[0].0.push(("  ".to_owned(), plain));
        rows[0].0.extend(jobs(left));
    }
    if !causes.is_empty() {
        let causes = text::clip(&causes, room, look.ellipsis());
        rows.push((vec![(causes, style)], String::new()));
    }
    rows.push((jobs(room), String::new()));
    let load = &machine.presence.load;
    let free = format!(
        "{} memory, {} disk free",
        text::bytes(load.mem_free),
        text::bytes(load.disk_free)
    );
    rows.push((vec![(free, dim)], String::new()));
    // On a card of one row what is wrong matters more than what is free.
    if inner.height == 1 && !causes.is_empty() {
        rows.swap(0, 1);
    }
    for (y, (parts, right)) in (inner.y..inner.bottom()).zip(rows) {
        let mut x = inner.x + 1;
        for (text, style) in parts {
            x = ink::put(buf, inner, (x, y), &text, style);
        }
        if usize::from(x) + right.width() + 2 <= usize::from(inner.right()) {
            let end = (inner.right() - 1, y);
            ink::put_right(buf, inner, end, &right, look, plain);
        }
    }
}

fn frame(model: &Model, (name, selected): (&str, bool), area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let set = look.border();
    let style = look.style(if selected { Role::Accent } else { Role::Dim });
    let middle = usize::from(area.width).saturating_sub(2);
    let top = set.horizontal_top.repeat(middle);
    let bottom = set.horizontal_bottom.repeat(middle);
    let last = area.bottom().saturating_sub(1);
    let top = format!("{}{top}{}", set.top_left, set.top_right);
    let bottom = format!("{}{bottom}{}", set.bottom_left, set.bottom_right);
    ink::put(buf, area, (area.x, area.y), &top, style);
    ink::put(buf, area, (area.x, last), &bottom, style);
    for y in area.y + 1..last {
        ink::put(buf, area, (area.x, y), set.vertical_left, style);
        ink::put(buf, area, (area.right() - 1, y), set.vertical_right, style);
    }
    let name = text::clip(name, middle.saturating_sub(7).max(6), look.ellipsis());
    let style = Style::new().add_modifier(Modifier::BOLD);
    let (text, style) = match selected {
        true => (
            format!("{}{name} ", look.pointer()),
            style.add_modifier(Modifier::REVERSED),
        ),
        false => (format!(" {name} "), style),
    };
    ink::put(buf, area, (area.x + 1, area.y), &text, style);
}
