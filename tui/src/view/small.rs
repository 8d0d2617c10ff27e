//! What is left where there is hardly any room: one line of words, worst first, cut from the
//! right; and below it the worst jobs.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr;

use super::{leave, link, words};
use crate::model::{Model, Phase};
use crate::text;
use crate::theme::Role;
use crate::widget;

/// What is counted, worst first: `lost 1 job ask 1 fail 2 run 3`.
pub(crate) fn counts(model: &Model) -> String {
    items(model).join(" ")
}

/// The same one by one.
fn items(model: &Model) -> Vec<String> {
    let fleet = &model.fleet;
    let at = model.as_of();
    let machines = |state| fleet.count_machines(state, at);
    let counts = [
        ("ask", fleet.count(StateWord::NeedsHuman)),
        ("fail", fleet.freshly_failed(at)),
        ("stale", machines(MachineState::Stale)),
        ("degraded", machines(MachineState::Degraded)),
        ("run", fleet.count(StateWord::Running)),
        (
            "wait",
            fleet.count(StateWord::Queued) + fleet.count(StateWord::Backoff),
        ),
        ("up", machines(MachineState::Up)),
    ];
    let counts = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{word} {}", text::thousands(count as u64)));
    let lost = lost(machines(MachineState::Lost), fleet.count(StateWord::Lost));
    let counts: Vec<String> = lost.into_iter().chain(counts).collect();
    match counts.is_empty() {
        true => vec!["nothing yet".to_owned()],
        false => counts,
    }
}

/// `lost 1 machine 2 jobs`: one is not the other's loss.
fn lost(machines: usize, jobs: usize) -> Vec<String> {
    let parts = [(machines, "machine"), (jobs, "job")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts = parts.enumerate().map(|(at, (count, what))| {
        let lost = if at == 0 { "lost " } else { "" };
        let many = if count == 1 { "" } else { "s" };
        format!("{lost}{} {what}{many}", text::thousands(count as u64))
    });
    parts.collect()
}

/// The whole fleet in one line: `lost 1 job ask 1 fail 2 run 3 · 12:04:31`; of what has no room
/// nothing at all, for half a word or a word without its number says something else.
fn state_line(model: &Model, width: usize) -> String {
    let dot = format!(" {} ", model.look.dot());
    let (before, after) = link::around(model);
    let parts = |text: &str| text.split(&dot).map(str::to_owned).collect::<Vec<_>>();
    let counts = match link::never_read(model) {
        true => Vec::new(),
        false => items(model),
    };
    let mut all: Vec<(&str, String)> = Vec::new();
    all.extend(parts(&before).into_iter().map(|part| (dot.as_str(), part)));
    let counts = counts.into_iter().enumerate();
    all.extend(counts.map(|(at, item)| (if at == 0 { dot.as_str() } else { " " }, item)));
    all.push((&dot, after));
    let mut line = String::new();
    for (between, part) in all.into_iter().filter(|(_, part)| !part.is_empty()) {
        let between = if line.is_empty() { "" } else { between };
        // The first is there in any case.
        if !line.is_empty() && line.width() + between.width() + part.width() > width {
            break;
        }
        line.push_str(between);
        line.push_str(&part);
    }
    // Of very few letters each tells more than the sign of what is missing.
    let sign = if width < 4 { "" } else { model.look.ellipsis() };
    text::clip(&line, width, sign)
}

/// Draws it.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    if leave::small(model, area, buf) {
        return;
    }
    let look = model.look;
    let width = usize::from(area.width);
    let role = match model.phase() {
        Phase::Live => Role::Plain,
        _ => Role::Warn,
    };
    let state = state_line(model, width);
    widget::line(buf, area, 0, &Line::styled(state, look.style(role)));
    let rows = model.fleet.worst_first(model.as_of());
    for (y, job) in (1..area.height).zip(rows) {
        let (glyph, role) = look.job(job.state.word());
        let text = format!(
            "{glyph} {} {}",
            words::prefix(&model.fleet, job.id),
            text::escape(&words::title(job))
        );
        let text = text::clip(&text, width, look.ellipsis());
        widget::line(buf, area, y, &Line::styled(text, look.style(role)));
    }
    notice(model, area, buf);
}

/// What a key did, in the last lines: never in the first.
fn notice(model: &Model, area: Rect, buf: &mut Buffer) {
    let Some(notice) = model.ui.notice(model.clock) else {
        return;
    };
    let width = usize::from(area.width);
    let notice = text::escape(notice);
    let rows = text::wrap(&notice, width.max(1));
    let count = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    let first = area.height.saturating_sub(count).max(1);
    for (y, range) in (first..area.height).zip(rows) {
        let text = &notice[range];
        let pad = " ".repeat(width.saturating_sub(text.width()));
        widget::line(buf, area, y, &Line::raw(format!("{text}{pad}")));
    }
}
