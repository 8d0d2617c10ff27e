//! The keys, from the very table that they are found in, and what the glyphs mean.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use crate::keymap::Group;
use crate::model::Model;
use crate::theme::Role;
use crate::widget;

/// Draws them.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    Clear.render(area.intersection(buf.area), buf);
    let inner = widget::pane(buf, area, look, true, "Keys", "Esc closes");
    let all = model.ui.keymap.all();
    let mut lines: Vec<Line<'_>> = Group::ALL
        .into_iter()
        .flat_map(|group| all.iter().filter(move |b| b.binding.group == group))
        .map(|bound| {
            let place = match bound.binding.place.words() {
                "" => String::new(),
                words => format!(" ({words})"),
            };
            Line::from(vec![
                Span::styled(
                    format!(" {:<7} ", bound.binding.group.name()),
                    look.style(Role::Dim),
                ),
                Span::styled(format!("{:<12} ", bound.shown()), look.style(Role::Accent)),
                Span::raw(bound.binding.help),
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
