//! The last hour in one line: how much happened in each minute, and where something went wrong.

use std::time::Duration;

use fleet_contract::machine::MachineState;
use fleet_contract::projection::Minute;
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::topology::ink;
use crate::model::{Model, Phase};
use crate::text;
use crate::theme::{Look, Role};

/// Minutes that are shown.
const MINUTES: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// What goes wrong in more than one minute of so many is marked where it is more than usual.
const OFTEN: usize = 4;

/// Draws it into one row.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let dim = look.style(Role::Dim);
    let minus = if look.ascii { "-" } else { "−" };
    let before = format!(" {minus}60m ");
    let after = " now";
    let fixed = before.width() + after.width() + 1;
    let room = usize::from(area.width).saturating_sub(fixed);
    if room < 6 {
        return;
    }
    let each = MINUTES.div_ceil(room);
    let minutes = minutes(model);
    let scale = Scale::of(&minutes);
    let mut x = ink::put(buf, area, (area.x, area.y), &before, dim);
    for span in minutes.rchunks(each).rev() {
        let (glyph, style) = cell(model, span, &scale);
        x = ink::put(buf, area, (x, area.y), glyph, style);
    }
    x = ink::put(buf, area, (x, area.y), after, dim);
    notes(model, &minutes, &scale, (buf, area, x));
}

/// One minute: when it begins, what happened, and whether it was read at all.
type Past = (Time, Option<Minute>);

fn minutes(model: &Model) -> Vec<Past> {
    let history = model.fleet.history();
    let first = history.recorded().next().map(|(at, _)| at);
    history
        .minutes(model.now, MINUTES)
        .map(|(at, minute)| {
            let is_read = first.is_some_and(|first| at >= first);
            (at, is_read.then_some(minute))
        })
        .collect()
}

/// What is much, in this hour.
struct Scale {
    /// Events in the busiest minute.
    most: u32,
    /// So many failures in a minute are worth a mark.
    failed: u32,
    /// So many machines that became degraded are.
    degraded: u32,
}

impl Scale {
    fn of(minutes: &[Past]) -> Self {
        let read = || minutes.iter().filter_map(|(_, minute)| *minute);
        Self {
            most: read().map(|m| m.events).max().unwrap_or(0),
            failed: unusual(read().map(|m| m.failed)),
            degraded: unusual(read().map(|m| m.machines_degraded)),
        }
    }
}

/// From how many on there are more than usual: one, where most minutes have none.
fn unusual(counts: impl Iterator<Item = u32>) -> u32 {
    let mut counts: Vec<u32> = counts.filter(|n| *n > 0).collect();
    counts.sort_unstable();
    let usual = counts.get(counts.len() / 2).copied().unwrap_or(0);
    if counts.len() * OFTEN > MINUTES {
        usual * 2
    } else {
        1
    }
}

fn cell(model: &Model, span: &[Past], scale: &Scale) -> (&'static str, Style) {
    let look = model.look;
    let mut sum = Minute::default();
    let (mut failed, mut degraded) = (0, 0);
    for (_, minute) in span {
        let minute = minute.unwrap_or_default();
        sum.events = sum.events.max(minute.events);
        sum.asked += minute.asked;
        sum.lost += minute.lost;
        sum.machines_lost += minute.machines_lost;
        degraded = degraded.max(minute.machines_degraded);
        failed = failed.max(minute.failed);
    }
    let job = |word| mark(look, word);
    let end = span.last().map_or(model.now, |(at, _)| at.plus(MINUTE));
    let begin = span.first().map_or(model.now, |(at, _)| *at);
    if is_gap(model, begin, end) {
        return gap(look);
    }
    let hole = model.link.holes.touch(begin, end);
    if sum.lost + sum.machines_lost > 0 {
        return job(StateWord::Lost);
    }
    if sum.asked > 0 {
        return job(StateWord::NeedsHuman);
    }
    if failed >= scale.failed {
        return job(StateWord::Failed);
    }
    match hole {
        Some(true) => return gap(look),
        Some(false) => return later(look),
        None => {}
    }
    if degraded >= scale.degraded {
        let (glyph, role) = look.machine(MachineState::Degraded);
        return (glyph, look.style(role));
    }
    if span.iter().all(|(_, minute)| minute.is_none()) {
        return (" ", Style::new());
    }
    // Bursts would squash the rest: by the root.
    let share = f64::from(sum.events) / f64::from(scale.most.max(1));
    #[expect(clippy::cast_possible_truncation, reason = "a share, 0 to 1")]
    let share = share.sqrt() as f32;
    (ink::bar(look, share), look.style(Role::Dim))
}

/// A job's glyph, small enough not to shout.
fn mark(look: Look, word: StateWord) -> (&'static str, Style) {
    let (glyph, role) = look.job(word);
    (glyph, look.style(role).remove_modifier(Modifier::REVERSED))
}

fn gap(look: Look) -> (&'static str, Style) {
    let glyph = if look.ascii { "?" } else { "░" };
    (glyph, look.style(Role::Warn))
}

/// Heard, but not when it happened.
fn later(look: Look) -> (&'static str, Style) {
    let glyph = if look.ascii { "~" } else { "▒" };
    (glyph, look.style(Role::Dim))
}

/// Whether nothing was heard in a minute that is not known since either.
fn is_gap(model: &Model, begin: Time, end: Time) -> bool {
    let down = model.link.down_since;
    let cut = matches!(model.phase(), Phase::Down | Phase::Silent);
    let down = down.or(cut.then_some(model.link.as_of));
    down.is_some_and(|down| down < end && begin <= model.now)
}

/// At the right: how far back it was read, and what the marks mean, as far as there is room.
fn notes(
    model: &Model,
    minutes: &[Past],
    scale: &Scale,
    (buf, area, mut x): (&mut Buffer, Rect, u16),
) {
    let look = model.look;
    let dim = look.style(Role::Dim);
    let read = minutes.iter().filter(|(_, m)| m.is_some()).count();
    let mut notes: Vec<(&'static str, Style, String)> = Vec::new();
    if read == 0 {
        notes.push(("", dim, "no history yet".to_owned()));
    } else if read < MINUTES {
        notes.push(("", dim, format!("{read} m read")));
    }
    let hole = |(at, _): &Past| model.link.holes.touch(*at, at.plus(MINUTE));
    let holes: Vec<bool> = minutes.iter().filter_map(hole).collect();
    if is_gap(model, model.now, model.now.plus(MINUTE)) || holes.contains(&true) {
        let (glyph, style) = gap(look);
        notes.push((glyph, style, "not heard".to_owned()));
    }
    if holes.contains(&false) {
        let (glyph, style) = later(look);
        notes.push((glyph, style, "heard later".to_owned()));
    }
    let from = |count: u32, what: &str| match count {
        1 => what.to_owned(),
        n => format!("{}+ {what}", text::thousands(n.into())),
    };
    let words = [
        (StateWord::Lost, "lost".to_owned()),
        (StateWord::NeedsHuman, "asked".to_owned()),
        (StateWord::Failed, from(scale.failed, "failed")),
    ];
    for (word, text) in words {
        let (glyph, style) = mark(look, word);
        notes.push((glyph, style, text));
    }
    let (glyph, role) = look.machine(MachineState::Degraded);
    let text = from(scale.degraded, "degraded");
    notes.push((glyph, look.style(role), text));
    for (glyph, style, text) in notes {
        let width = 3 + glyph.width() + 1 + text.width();
        if usize::from(x) + width > usize::from(area.right()) {
            return;
        }
        x = ink::put(buf, area, (x + 3, area.y), glyph, style);
        let text = if glyph.is_empty() {
            text
        } else {
            format!(" {text}")
        };
        x = ink::put(buf, area, (x, area.y), &text, dim);
    }
}
