//! The hub: a box beside cards, a line above everything else.

use fleet_contract::projection::Machine;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::pulse::Flow;
use super::roster::{self, Entry};
use super::{Scene, facts, ink};
use crate::model::Model;
use crate::text;
use crate::theme::Role;

/// The way to the hub in words: `● 0.6 ms`, or that there is none.
fn link(model: &Model) -> (String, Style) {
    let look = model.look;
    if facts::dated(model) {
        let (unknown, role) = look.unknown();
        return (format!("{unknown} not heard"), look.style(role));
    }
    let dot = if look.ascii { "*" } else { "●" };
    let rtt = model.link.rtt.map_or("up".to_owned(), |rtt| {
        format!("{:.1} ms", rtt.as_secs_f64() * 1000.0)
    });
    (format!("{dot} {rtt}"), look.style(Role::Ok))
}

/// What flows in all, in words; nothing where nothing flows.
fn flows(model: &Model) -> Option<(String, String)> {
    if facts::dated(model) {
        return None;
    }
    let mut sum = Flow::default();
    for (_, traffic) in model.fleet.all_traffic(model.as_of()) {
        sum.add(Flow::of(traffic));
    }
    if sum.out + sum.back <= 0.0 {
        return None;
    }
    let look = model.look;
    let out = format!(
        "{} jobs {}",
        ink::pulse(look, ink::Way::Out),
        ink::rate(sum.out)
    );
    let back = format!(
        "{} records {}",
        ink::pulse(look, ink::Way::Back),
        ink::rate(sum.back)
    );
    Some((out, back))
}

/// The machine that the hub runs on.
pub(super) fn host<'a>(model: &Model, scene: &Scene<'a>) -> Option<Entry<'a>> {
    let host = facts::hub_machine(model)?;
    let is_host = |entry: &&Entry<'_>| entry.1.presence.machine == *host;
    scene.all.iter().find(is_host).copied()
}

/// The hub in a line of its own, with the trunk that lanes leave from at these columns.
pub(super) fn line(model: &Model, area: Rect, trunks: &[u16], buf: &mut Buffer) {
    let look = model.look;
    let [left, .., across, _] = ink::double(look);
    let frame = look.style(Role::Dim);
    ink::put(
        buf,
        area,
        (area.x, area.y),
        &across.repeat(usize::from(area.width)),
        frame,
    );
    for (no, x) in trunks.iter().enumerate() {
        let joint = if no == 0 { left } else { ink::joints(look)[3] };
        ink::put(buf, area, (*x, area.y), joint, frame);
    }
    let (state, style) = link(model);
    let parts = [
        (
            format!(" HUB {} ", facts::hub_name(model)),
            look.style(Role::Accent),
        ),
        (format!("{state} "), style),
    ];
    let mut x = area.x + 2;
    for (text, style) in parts {
        x = ink::put(buf, area, (x, area.y), &text, style);
    }
    // At the right end, clear of the other trunks.
    let Some((out, back)) = flows(model) else {
        return;
    };
    let width = u16::try_from(out.width() + back.width() + 4).unwrap_or(u16::MAX);
    let last = trunks.last().copied().unwrap_or(area.x);
    let start = area.right().saturating_sub(width + 2);
    if start > x + 2 && (start > last || trunks.len() == 1) {
        let style = ink::pulse_style(look, ink::Way::Out);
        let x = ink::put(buf, area, (start, area.y), &format!(" {out}  "), style);
        let style = ink::pulse_style(look, ink::Way::Back);
        ink::put(buf, area, (x, area.y), &format!("{back} "), style);
    }
}

/// The hub in a box with a double frame.
pub(super) fn card(
    model: &Model,
    host: Option<Entry<'_>>,
    selected: bool,
    area: Rect,
    buf: &mut Buffer,
) {
    let look = model.look;
    frame(model, area, selected, buf);
    let inner = super::inside(area);
    let mut y = inner.y;
    let mut row = |parts: Vec<(String, Style)>, right: &str| {
        let mut x = inner.x + 1;
        for (text, style) in parts {
            x = ink::put(buf, inner, (x, y), &text, style);
        }
        let fits = usize::from(x) + right.width() + 2 <= usize::from(inner.right());
        if !right.is_empty() && fits {
            let end = (inner.right().saturating_sub(1), y);
            ink::put_right(buf, inner, end, right, look, look.style(Role::Dim));
        }
        y += 1;
    };
    let plain = Style::new();
    let dim = look.style(Role::Dim);
    let (state, style) = link(model);
    row(vec![("bus ".to_owned(), dim), (state, style)], "");
    if let Some((state, machine)) = host {
        let (mark, word, style) = facts::state(model, state);
        row(
            vec![(format!("{mark} {word}"), style)],
            &facts::seen(model, machine),
        );
        row(
            vec![(facts::slots(model, machine), plain)],
            &facts::load(model, machine, 8),
        );
        let causes = facts::causes(model, state, machine);
        if !causes.is_empty() {
            let room = usize::from(inner.width).saturating_sub(2);
            row(
                vec![(text::clip(&causes, room, look.ellipsis()), style)],
                "",
            );
        }
        let room = usize::from(inner.width).saturating_sub(2);
        row(facts::jobs(model, &machine.presence.machine, room), "");
    }
    if let Some((out, back)) = flows(model) {
        row(vec![(out, plain)], "");
        row(vec![(back, plain)], "");
    }
    for text in counts(model) {
        row(vec![(text, dim)], "");
    }
}

/// What the hub holds, in words.
fn counts(model: &Model) -> Vec<String> {
    let fleet = &model.fleet;
    let count = |words: &[StateWord]| -> usize { words.iter().map(|w| fleet.count(*w)).sum() };
    let thousands = |n: usize| text::thousands(n as u64);
    vec![
        format!(
            "{} running  {} waiting",
            thousands(count(&[StateWord::Running])),
            thousands(count(&[StateWord::Queued, StateWord::Backoff]))
        ),
        format!("record {}", text::thousands(fleet.journal_seq())),
    ]
}

fn frame(model: &Model, area: Rect, selected: bool, buf: &mut Buffer) {
    let look = model.look;
    if area.width < 4 || area.height < 2 {
        return;
    }
    let [tl, tr, br, bl, across, down] = ink::double(look);
    let style = look.style(if selected { Role::Accent } else { Role::Plain });
    let middle = across.repeat(usize::from(area.width) - 2);
    let last = area.bottom() - 1;
    ink::put(
        buf,
        area,
        (area.x, area.y),
        &format!("{tl}{middle}{tr}"),
        style,
    );
    ink::put(
        buf,
        area,
        (area.x, last),
        &format!("{bl}{middle}{br}"),
        style,
    );
    for y in area.y + 1..last {
        ink::put(buf, area, (area.x, y), down, style);
        ink::put(buf, area, (area.right() - 1, y), down, style);
    }
    let name = format!(" HUB {} ", facts::hub_name(model));
    let name = text::clip(&name, usize::from(area.width) - 4, look.ellipsis());
    let style = look.style(Role::Accent);
    let style = if selected {
        style.add_modifier(Modifier::REVERSED)
    } else {
        style
    };
    ink::put(buf, area, (area.x + 2, area.y), &name, style);
}

/// How long the hub's machine has nothing to say about itself in cards: nothing known of it.
pub(super) fn rows(model: &Model, all: &[Entry<'_>]) -> u16 {
    let host: Option<&Machine> = facts::hub_machine(model).and_then(|id| {
        let found = all.iter().find(|(_, m)| m.presence.machine == *id);
        found.map(|(_, m)| *m)
    });
    match host {
        Some(machine) if roster::is_idle(machine) => 9,
        Some(_) => 10,
        None => 7,
    }
}
