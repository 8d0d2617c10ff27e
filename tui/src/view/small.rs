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
        .map(|(word, count)| format!("{word} {count}"));
    let lost = lost(machines(MachineState::Lost), fleet.count(StateWord::Lost));
    let counts: Vec<String> = lost.into_iter().chain(counts).collect();
    if counts.is_empty() {
        "nothing yet".to_owned()
    } else {
        counts.join(" ")
    }
}

/// `lost 1 machine 2 jobs`: one is not the other's loss.
fn lost(machines: usize, jobs: usize) -> Option<String> {
    let parts = [(machines, "machine"), (jobs, "job")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    (!parts.is_empty()).then(|| format!("lost {}", parts.join(" ")))
}

/// The whole fleet in one line: `lost 1 job ask 1 fail 2 run 3 · 12:04:31`.
fn state_line(model: &Model) -> String {
    let (before, after) = link::around(model);
    let parts = match model.phase() {
        Phase::Connecting => [before, String::new(), after],
        _ => [before, counts(model), after],
    };
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.collect();
    parts.join(&format!(" {} ", model.look.dot()))
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
    let state = text::clip(&state_line(model), width, "");
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
