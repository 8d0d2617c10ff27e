//! The hub: a box beside cards, a line above everything else.

use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::pulse::Flow;
use super::roster::Entry;
use super::{facts, ink};
use crate::model::Model;
use crate::text;
use crate::theme::Role;

/// The way to the hub in words: `● 0.6 ms`, or that there is none.
fn link(model: &Model) -> (String, Style) {
    let look = model.look;
    if model.is_dated() {
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
    if model.is_dated() {
        return None;
    }
    let mut sum = Flow::default();
    for (_, traffic) in model.fleet.all_traffic(model.heard_at()) {
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

/// The machine that the hub runs on, where it tells.
pub(super) fn host<'a>(model: &Model, all: &[Entry<'a>]) -> Option<Entry<'a>> {
    all.iter().find(|(_, m)| facts::is_hub(model, m)).copied()
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
            format!(" HUB {} ", facts::hub_name(model, None)),
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
    frame(model, host, selected, area, buf);
    let inner = super::inside(area);
    let room = usize::from(inner.width).saturating_sub(2);
    for (y, (parts, right)) in (inner.y..inner.bottom()).zip(rows(model, host, room)) {
        let mut x = inner.x + 1;
        for (text, style) in parts {
            let room = usize::from(inner.right().saturating_sub(x + 1));
            let text = text::clip(&text, room, look.ellipsis());
            x = ink::put(buf, inner, (x, y), &text, style);
        }
        let fits = usize::from(x) + right.width() + 2 <= usize::from(inner.right());
        if !right.is_empty() && fits {
            let end = (inner.right().saturating_sub(1), y);
            ink::put_right(buf, inner, end, &right, look, look.style(Role::Dim));
        }
    }
}

/// A row of the box: from the left, and at the right end.
type Row = (Vec<(String, Style)>, String);

/// What there is to say, what matters most first.
fn rows(model: &Model, host: Option<Entry<'_>>, room: usize) -> Vec<Row> {
    let look = model.look;
    let (plain, dim) = (Style::new(), look.style(Role::Dim));
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |parts: Vec<(String, Style)>, right: String| rows.push((parts, right));
    if let Some((state, machine)) = host {
        let (mark, word, style) = facts::state(model, state);
        let seen = facts::seen(model, machine);
        row(vec![(format!("{mark} {word}"), style)], seen);
        let causes = facts::causes(model, state, machine);
        if !causes.is_empty() {
            row(vec![(causes, style)], String::new());
        }
        let load = facts::load(model, machine, 8);
        row(vec![(facts::slots(model, machine), plain)], load);
        let jobs = facts::jobs(model, &machine.presence.machine, room);
        row(jobs, String::new());
    }
    let (state, style) = link(model);
    row(
        vec![("bus ".to_owned(), dim), (state, style)],
        String::new(),
    );
    if let Some((out, back)) = flows(model) {
        row(vec![(out, plain)], String::new());
        row(vec![(back, plain)], String::new());
    }
    for (text, role) in counts(model) {
        row(vec![(text, look.style(role))], String::new());
    }
    rows
}

/// What the hub holds, in words.
fn counts(model: &Model) -> Vec<(String, Role)> {
    let fleet = &model.fleet;
    let count = |words: &[StateWord]| -> usize { words.iter().map(|w| fleet.count(*w)).sum() };
    let thousands = |n: usize| text::thousands(n as u64);
    let jobs = format!(
        "{} running  {} waiting",
        thousands(count(&[StateWord::Running])),
        thousands(count(&[StateWord::Queued, StateWord::Backoff]))
    );
    let mut said = vec![(jobs, Role::Dim)];
    let Some((_, stats)) = model.bus.hub() else {
        let record = text::thousands(fleet.journal_seq());
        said.push((format!("record {record}"), Role::Dim));
        return said;
    };
    let Some(server) = &stats.server else {
        said.push(("its server does not answer".to_owned(), Role::Warn));
        return said;
    };
    if let Some(rates) = &server.rates {
        let to = ink::rate(rates.messages_in);
        let from = ink::rate(rates.messages_out);
        said.push((format!("in {to}  out {from}"), Role::Dim));
    }
    let warn = |is: bool| if is { Role::Warn } else { Role::Dim };
    let (used, limit) = (server.store_used, server.store_limit);
    let store = format!("store {} of {}", text::bytes(used), text::bytes(limit));
    said.push((store, warn(limit > 0 && used / 9 >= limit / 10)));
    let (slow, lost) = (server.slow_consumers, model.link.lost);
    said.push((format!("{slow} slow  {lost} lost"), warn(slow + lost > 0)));
    let (streams, consumers) = (stats.streams.len(), stats.consumers_total);
    let streams = format!("{streams} streams  {consumers} consumers");
    said.push((streams, Role::Dim));
    said
}

fn frame(model: &Model, host: Option<Entry<'_>>, selected: bool, area: Rect, buf: &mut Buffer) {
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
    let name = format!(" HUB {} ", facts::hub_name(model, host));
    let name = text::clip(&name, usize::from(area.width) - 4, look.ellipsis());
    let style = look.style(Role::Accent);
    let style = if selected {
        style.add_modifier(Modifier::REVERSED)
    } else {
        style
    };
    ink::put(buf, area, (area.x + 2, area.y), &name, style);
}

/// Rows that the box would take.
pub(super) fn wanted(model: &Model, all: &[Entry<'_>]) -> u16 {
    let rows = rows(model, host(model, all), usize::from(u8::MAX)).len();
    u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2)
}
