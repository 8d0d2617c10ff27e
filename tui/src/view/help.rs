//! The keys, from the very table that they are found in, and what the glyphs mean.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::keymap::{KEYMAP, Place};
use crate::model::Model;
use crate::theme::Role;
use crate::widget;

/// Draws them.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let inner = widget::pane(buf, area, look, true, "Keys", "Esc closes");
    let mut lines: Vec<Line<'_>> = KEYMAP
        .iter()
        .map(|binding| {
            let place = match binding.place {
                Place::Anywhere => "",
                Place::Detail => " (in a detail)",
            };
            Line::from(vec![
                Span::styled(
                    format!(" {:<12} ", binding.keys.join(" ")),
                    look.style(Role::Accent),
                ),
                Span::raw(binding.help),
                Span::styled(place, look.style(Role::Dim)),
            ])
        })
        .collect();
    let legend = |name: &str, entries: Vec<(&'static str, Role, &'static str)>| {
        let mut spans = vec![Span::styled(format!(" {name:<12} "), look.style(Role::Dim))];
        for (glyph, role, word) in entries {
            spans.push(Span::styled(glyph, look.style(role)));
            spans.push(Span::raw(format!(" {word}  ")));
        }
        Line::from(spans)
    };
    let job = |words: &[StateWord]| {
        words
            .iter()
            .map(|w| {
                let (glyph, role) = look.job(*w);
                (glyph, role, w.as_str())
            })
            .collect()
    };
    let (first, second) = StateWord::ALL.split_at(6);
    let machines = MachineState::ALL
        .iter()
        .map(|s| {
            let (glyph, role) = look.machine(*s);
            (glyph, role, s.as_str())
        })
        .collect();
    lines.push(legend("jobs", job(first)));
    lines.push(legend("", job(second)));
    lines.push(legend("machines", machines));
    for (y, line) in (0..inner.height).zip(&lines) {
        widget::line(buf, inner, y, line);
    }
}
