//! The palette and the help: what is typed, what can be chosen, and in the help what the glyphs
//! mean.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::popup::{self, Rows};
use super::table;
use crate::keymap::Place;
use crate::model::{Model, Pane};
use crate::palette::{self, Choice};
use crate::text;
use crate::theme::Role;
use crate::ui::{Chooser, Popup};
use crate::widget;

/// From so many rows on what the glyphs mean is below the keys.
const ROOMY: u16 = 14;
/// Width of a group's name.
const GROUP: usize = 7;
/// Widest column of keys or names.
const NAME_MAX: usize = 18;

/// Lines of what is below the choices.
fn legend_of(model: &Model, chooser: &Chooser) -> Vec<Line<'static>> {
    let help = matches!(model.ui.popup, Some(Popup::Help(_)));
    match help && chooser.line.text().is_empty() {
        true => legend(model),
        false => Vec::new(),
    }
}

fn lines(choices: &[Choice], legend: &[Line<'_>]) -> usize {
    1 + choices.len().max(1) + legend.len()
}

/// The rows of the choices.
pub(super) fn rows(model: &Model, chooser: &Chooser, area: Rect) -> Rows {
    let choices = palette::choices(model);
    let legend = legend_of(model, chooser);
    let inner = widget::inside(popup::place(area, lines(&choices, &legend)));
    // What the glyphs mean stays on screen, where there is room for both.
    let below = u16::try_from(legend.len()).unwrap_or(0);
    let below = if inner.height >= ROOMY { below } else { 0 };
    let area = Rect {
        y: inner.y.saturating_add(1),
        height: inner.height.saturating_sub(1 + below),
        ..inner
    };
    Rows::new(area, chooser.at)
}

/// Draws what is chosen from.
pub(super) fn draw(model: &Model, chooser: &Chooser, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let help = matches!(model.ui.popup, Some(Popup::Help(_)));
    let choices = palette::choices(model);
    let legend = legend_of(model, chooser);
    let title = match (help, chooser.place.words()) {
        (true, "") => "Keys".to_owned(),
        (true, _) if chooser.place == Place::List && model.focus() == Pane::Bus => {
            "Keys of the bus".to_owned()
        }
        (true, place) => format!("Keys {place}"),
        (false, _) => "Everything that can be done".to_owned(),
    };
    let wanted = lines(&choices, &legend);
    let inner = popup::frame(
        model,
        area,
        wanted,
        &title,
        "Enter does it, Esc closes",
        buf,
    );
    popup::line(model, inner, 0, ": ", &chooser.line, buf);
    let Rows { area: rows, first } = self::rows(model, chooser, area);
    if choices.is_empty() {
        let line = Line::styled(" nothing is called so", look.style(Role::Dim));
        return widget::line(buf, rows, 0, &line);
    }
    let widest = |part: fn(&Choice) -> &String| {
        let all = choices.iter().map(|choice| part(choice).width());
        all.max().unwrap_or(0).min(NAME_MAX)
    };
    // The help is read in groups, the palette is searched by names.
    let by_group = help && chooser.line.text().is_empty();
    let names = if by_group { GROUP } else { widest(|c| &c.name) };
    let keys = widest(|c| &c.keys);
    for (y, (at, choice)) in (0..rows.height).zip(choices.iter().enumerate().skip(first)) {
        let group = choice.group.filter(|_| by_group);
        let name = group.map_or(choice.name.as_str(), |group| group.name());
        let selected = at == chooser.at;
        row(model, rows, y, (keys, names), (choice, name, selected), buf);
    }
    let below = inner.height.saturating_sub(1 + rows.height);
    for (y, line) in (inner.height - below..inner.height).zip(&legend) {
        widget::line(buf, inner, y, line);
    }
    let shown = usize::from(rows.height);
    table::more(buf, inner, look, choices.len(), first, shown);
}

fn row(
    model: &Model,
    area: Rect,
    y: u16,
    (keys, names): (usize, usize),
    (choice, name, selected): (&Choice, &str, bool),
    buf: &mut Buffer,
) {
    let look = model.look;
    let pad = |text: &str, width: usize| {
        let text = text::clip(&text::escape(text), width, look.ellipsis());
        format!("{text}{} ", text::pad(&text, width))
    };
    let pointer = if selected { look.pointer() } else { " " };
    let mut spans = vec![
        Span::raw(pointer),
        Span::styled(pad(&choice.keys, keys), look.style(Role::Accent)),
    ];
    // Where there is room for one of both, what it does says more than what it is called.
    if usize::from(area.width) >= keys + names + 40 {
        spans.push(Span::styled(pad(name, names), look.style(Role::Dim)));
    }
    spans.push(Span::raw(text::escape(&choice.help).into_owned()));
    widget::line(buf, area, y, &Line::from(spans));
    if selected {
        widget::select(buf, area, y, look);
    }
}

/// What the glyphs mean.
fn legend(model: &Model) -> Vec<Line<'static>> {
    let look = model.look;
    let line = |name: &str, entries: Vec<(&'static str, Role, &'static str)>| {
        let mut spans = vec![Span::styled(format!(" {name:<9}"), look.style(Role::Dim))];
        for (glyph, role, word) in entries {
            spans.push(Span::styled(glyph, look.style(role)));
            spans.push(Span::raw(format!(" {word}  ")));
        }
        Line::from(spans)
    };
    let job = |words: &[StateWord]| {
        let each = words.iter().map(|word| {
            let (glyph, role) = look.job(*word);
            (glyph, role, word.as_str())
        });
        each.collect()
    };
    let machines = MachineState::ALL.iter().map(|state| {
        let (glyph, role) = look.machine(*state);
        (glyph, role, state.as_str())
    });
    let (first, second) = StateWord::ALL.split_at(6);
    vec![
        line("jobs", job(first)),
        line("", job(second)),
        line("machines", machines.collect()),
    ]
}
