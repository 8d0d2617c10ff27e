//! The lines above and below everything: how true what is shown is, and what is worst.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{link, words};
use crate::inbox;
use crate::keymap::Action;
use crate::model::{Model, Screen};
use crate::text;
use crate::theme::Role;
use crate::widget;

/// The row of the tabs, where there is room for them.
pub(super) fn tabs_row(model: &Model, area: Rect) -> Option<u16> {
    let rows = height(model, area);
    (area.height >= 12).then(|| area.y + rows - 1)
}

/// Rows of the header: the state, where it is bad why, and the screens where there is room.
pub(super) fn height(model: &Model, area: Rect) -> u16 {
    let trouble = u16::from(link::trouble(model).is_some());
    1 + trouble + u16::from(area.height >= 12)
}

/// Draws it.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    widget::line(buf, area, 0, &state(model, usize::from(area.width)));
    let mut y = 1;
    if let Some(trouble) = link::trouble(model) {
        let room = usize::from(area.width).saturating_sub(1);
        let text = text::clip(&text::escape(&trouble), room, model.look.ellipsis());
        let style = model.look.style(Role::Warn);
        widget::line(buf, area, y, &Line::styled(format!(" {text}"), style));
        y += 1;
    }
    widget::line(buf, area, y, &tabs(model, usize::from(area.width)));
}

/// One part of a line, and how soon it is left out where there is no room: the highest first.
struct Part {
    text: String,
    role: Role,
    leave: u8,
}

fn part(text: impl Into<String>, role: Role, leave: u8) -> Part {
    Part {
        text: text.into(),
        role,
        leave,
    }
}

fn state(model: &Model, width: usize) -> Line<'static> {
    let look = model.look;
    let mut left = vec![part("fleet", Role::Accent, 9)];
    if !model.name.is_empty() {
        left.push(part(text::escape(&model.name), Role::Plain, 8));
    }
    let parts = link::parts(model).into_iter();
    left.extend(parts.map(|(text, role, leave)| part(text, role, leave)));
    if model.paused.is_some() {
        let since = words::clock(model.now, &model.zone);
        left.push(part(format!("PAUSED {since}"), Role::Attention, 0));
    }
    let mut right = problems(model);
    let separator = format!(" {}", look.bar());
    loop {
        let used_left: usize = left
            .iter()
            .map(|p| p.text.width() + separator.width())
            .sum();
        let used_right: usize = right.iter().map(|p| p.text.width() + 2).sum();
        if used_left + used_right <= width {
            let mut spans = Vec::new();
            for (at, part) in left.into_iter().enumerate() {
                let before = if at == 0 { " " } else { separator.as_str() };
                spans.push(Span::styled(before.to_owned(), look.style(Role::Dim)));
                spans.push(Span::styled(part.text, look.style(part.role)));
            }
            let written: usize = spans.iter().map(|s| s.content.width()).sum();
            let pad = width.saturating_sub(written + used_right);
            spans.push(Span::raw(" ".repeat(pad)));
            for part in right {
                spans.push(Span::raw(" "));
                spans.push(Span::styled(part.text, look.style(part.role)));
                spans.push(Span::raw(" "));
            }
            return Line::from(spans);
        }
        let leaves = |parts: &[Part]| parts.iter().map(|p| p.leave).max().unwrap_or(0);
        let (in_left, in_right) = (leaves(&left), leaves(&right));
        let parts = if in_left >= in_right {
            &mut left
        } else {
            &mut right
        };
        let most = in_left.max(in_right);
        match parts.iter().rposition(|p| p.leave == most) {
            Some(at) => drop(parts.remove(at)),
            None => return Line::default(),
        }
    }
}

/// What needs somebody, worst first; what is least bad is left out first.
fn problems(model: &Model) -> Vec<Part> {
    let look = model.look;
    let fleet = &model.fleet;
    let at = model.as_of();
    let machines = |state| fleet.count_machines(state, at);
    let job = |word| look.job(word).0;
    let machine = |state| look.machine(state).0;
    let counts = [
        (
            fleet.count(StateWord::NeedsHuman),
            job(StateWord::NeedsHuman),
            "needs you",
            Role::Attention,
        ),
        (
            machines(MachineState::Lost),
            machine(MachineState::Lost),
            "machine lost",
            Role::Bad,
        ),
        (
            fleet.count(StateWord::Lost),
            job(StateWord::Lost),
            "job lost",
            Role::Bad,
        ),
        (
            fleet.freshly_failed(at),
            job(StateWord::Failed),
            "failed in 1 h",
            Role::Bad,
        ),
        (
            machines(MachineState::Stale),
            machine(MachineState::Stale),
            "stale",
            Role::Warn,
        ),
        (
            machines(MachineState::Degraded),
            machine(MachineState::Degraded),
            "degraded",
            Role::Warn,
        ),
    ];
    let mut parts = Vec::new();
    for (rank, (count, glyph, words, role)) in counts.into_iter().enumerate() {
        if count > 0 {
            let leave = 2 + u8::try_from(rank).unwrap_or(6);
            let words = match (words, count) {
                ("machine lost", 2..) => "machines lost",
                ("job lost", 2..) => "jobs lost",
                ("needs you", 2..) => "need you",
                _ => words,
            };
            let count = text::thousands(count as u64);
            parts.push(part(format!("{glyph} {count} {words}"), role, leave));
        }
    }
    parts
}

/// The screen whose tab is in a column.
pub(super) fn tab_at(model: &Model, width: usize, column: usize) -> Option<Screen> {
    let mut end = 0;
    let tabs = tab_names(model, width).into_iter();
    let mut ends = tabs.map(|(screen, text)| {
        end += text.width();
        (screen, end)
    });
    ends.find(|(_, end)| column < *end)
        .map(|(screen, _)| screen)
}

/// The tabs that there is room for.
fn tab_names(model: &Model, width: usize) -> Vec<(Screen, String)> {
    let mut tabs = Vec::new();
    let mut used = 0;
    for screen in Screen::ALL {
        let count = match screen {
            Screen::Fleet | Screen::Bus => String::new(),
            // What was never read is not none.
            _ if link::never_read(model) => String::new(),
            Screen::Inbox => match inbox::count(model) {
                0 => String::new(),
                count => format!(" {count}"),
            },
            Screen::Dispatches => format!(" {}", text::thousands(model.fleet.jobs().len() as u64)),
            Screen::Machines => {
                format!(" {}", text::thousands(model.fleet.machines().len() as u64))
            }
            Screen::Events => {
                let events = model.fleet.counters().events;
                format!(" {}", text::thousands(events))
            }
        };
        let key = model.ui.keymap.key_of(Action::Screen(screen));
        let text = format!("{key} {}{count}", screen.name());
        let text = match model.screen == screen {
            true => format!("[{text}]"),
            false => format!(" {text} "),
        };
        used += text.width();
        if used > width {
            break;
        }
        tabs.push((screen, text));
    }
    tabs
}

fn tabs(model: &Model, width: usize) -> Line<'static> {
    let look = model.look;
    let mut spans = Vec::new();
    let mut used = 0;
    for (screen, text) in tab_names(model, width) {
        let here = model.screen == screen;
        let role = if here { Role::Accent } else { Role::Plain };
        used += text.width();
        spans.push(Span::styled(text, look.style(role)));
    }
    let unread = model.fleet.counters().unreadable + model.fleet.counters().voids;
    let note = format!("  {unread} records do not count");
    if unread > 0 && used + note.width() <= width {
        spans.push(Span::styled(note, look.style(Role::Warn)));
    }
    Line::from(spans)
}
