//! What happened, newest first; gaps among it.

use fleet_contract::projection::{Event, EventKey};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{dispatches, link, words};
use crate::model::{Model, Phase};
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, cell, left};

/// Of so many events one is shown while more come than can be read.
const SAMPLE: u64 = 10;

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let following = model.event.is_none();
    let counters = model.fleet.counters();
    let many = model.fleet.events().len() >= usize::from(area.height) * 10;
    let sampled = many && following && matches!(model.phase(), Phase::Slow { .. });
    let right = match (following, counters.events_dropped) {
        _ if sampled => format!("1 in {SAMPLE} shown"),
        (true, 0) => "following".to_owned(),
        (true, n) => format!("following, {} no longer kept", text::thousands(n)),
        (false, _) => "f follows again".to_owned(),
    };
    let title = format!("Events {} newest first", look.dot());
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    let events = model.fleet.events();
    if events.is_empty() && model.marks.is_empty() {
        let text = link::empty(model, 0, "nothing happened in the last hour");
        return dispatches::teach(buf, inner, look, &text);
    }
    let height = usize::from(inner.height);
    let selected = if focused {
        model.selected_event()
    } else {
        None
    };
    // Half a screen of newer ones above the selected one.
    let above = match (focused && !following, selected) {
        (true, Some(key)) => {
            let after = (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded);
            events.range(after).take(height / 2).count()
        }
        _ => 0,
    };
    let start = match (focused && !following, selected) {
        (true, Some(key)) => {
            let after = (std::ops::Bound::Included(key), std::ops::Bound::Unbounded);
            events.range(after).nth(above).map(|(key, _)| *key)
        }
        _ => events.keys().next_back().copied(),
    };
    let mut marks = model.marks.iter().rev().peekable();
    if let (false, Some(start)) = (following, start) {
        while marks.next_if(|(at, _)| **at > start.stored).is_some() {}
    }
    let mut y = 0;
    let mark_line = |at, mark: &str| {
        let time = words::clock(at, &model.zone);
        let rule = look.rule();
        let text = format!(" {time} {rule} {mark} {rule}");
        let text = text::clip(&text, usize::from(inner.width), look.ellipsis());
        Line::styled(text, look.style(Role::Warn))
    };
    let shown = start.map(|start| events.range(..=start).rev());
    let kept = |key: &EventKey| !sampled || key.seq.is_multiple_of(SAMPLE);
    for (key, event) in shown.into_iter().flatten().filter(|(key, _)| kept(key)) {
        while let Some((at, mark)) = marks.next_if(|(at, _)| **at > key.stored) {
            widget::line(buf, inner, y, &mark_line(*at, mark));
            y += 1;
        }
        if y >= inner.height {
            return;
        }
        row(model, inner, y, selected == Some(*key), event, buf);
        y += 1;
    }
    for (at, mark) in marks {
        widget::line(buf, inner, y, &mark_line(*at, mark));
        y = y.saturating_add(1);
    }
}

fn row(model: &Model, area: Rect, y: u16, selected: bool, event: &Event, buf: &mut Buffer) {
    let look = model.look;
    let width = usize::from(area.width);
    let fine = width >= 90;
    let (time, time_width) = if fine {
        (words::clock_fine(event.time, &model.zone), 11)
    } else {
        (words::clock(event.time, &model.zone), 8)
    };
    let columns = [
        left(time_width),
        left(if width >= 34 { 5 } else { 0 }),
        left(if width >= 90 { 17 } else { 11 }),
        left(if width >= 42 { 8 } else { 0 }),
        left(width),
    ];
    let id = event.job.map(|id| words::prefix(&model.fleet, id));
    let role = role(look, &event.word);
    let machine = event.machine.as_ref().map_or("-", |m| m.as_str());
    let cells = vec![
        cell(time, look.style(Role::Dim)),
        cell(id.unwrap_or_default(), look.style(Role::Dim)),
        cell(short(&event.word), look.style(role)),
        cell(machine, look.style(Role::Plain)),
        cell(event.text.as_str(), look.style(Role::Dim)),
    ];
    widget::row(buf, area, y, look, selected, &columns, cells);
}

/// The machine stands beside it: `machine.lost` is `lost`.
fn short(word: &str) -> &str {
    word.strip_prefix("machine.").unwrap_or(word)
}

fn role(look: Look, word: &str) -> Role {
    if let Some(state) = fleet_contract::record::StateWord::from_word(word) {
        return look.job(state).1;
    }
    match word.rsplit('.').next().unwrap_or(word) {
        "lost" | "void" | "malformed" | "server_restarted" => Role::Bad,
        "degraded" | "superseded" | "cancel_requested" | "lease_taken" => Role::Warn,
        "up" | "recovered" | "healed" => Role::Ok,
        "claimed" => Role::Busy,
        _ => Role::Plain,
    }
}
