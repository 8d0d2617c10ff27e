//! The line below everything: what was just done, the keys pressed so far, or the keys that help
//! most here.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::popup;
use crate::keymap::{Action, Bound, key};
use crate::model::{Model, Pane};
use crate::palette;
use crate::text;
use crate::theme::Role;
use crate::ui::{Input, Wanted};
use crate::widget;

/// Draws it.
pub(super) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let width = usize::from(area.width).saturating_sub(1);
    if let Some(pending) = &model.ui.pending {
        let text = format!(" {} {}", key::shown(&pending.keys), look.ellipsis());
        return widget::line(buf, area, 0, &Line::styled(text, look.style(Role::Accent)));
    }
    if let Some(input) = &model.ui.input {
        return typed(model, input, area, buf);
    }
    if let Some(notice) = model.ui.notice(model.clock) {
        let text = text::clip(&text::escape(notice), width, look.ellipsis());
        let line = Line::styled(format!(" {text}"), look.style(Role::Plain));
        return widget::line(buf, area, 0, &line);
    }
    keys(model, area, buf);
}

/// The filter that is being typed, what is wrong with it or how many rows it hides.
fn typed(model: &Model, input: &Input, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let hides = |pane| match model.hidden(pane) {
        0 => "hides nothing".to_owned(),
        hidden => format!("hides {}", text::thousands(hidden as u64)),
    };
    let (note, role) = match (&input.wrong, &input.wanted) {
        (Some(wrong), _) => (text::escape(wrong).into_owned(), Role::Warn),
        (None, _) if input.fresh => {
            let before = text::escape(&input.before);
            (
                format!("typing replaces {before}, Up brings it back"),
                Role::Dim,
            )
        }
        (None, Wanted::Filter(pane)) => (hides(*pane), Role::Dim),
        (None, Wanted::Search) => (String::new(), Role::Dim),
    };
    popup::line(model, area, 0, " /", &input.line, buf);
    let used = 4 + input.line.text().width();
    let room = usize::from(area.width).saturating_sub(used);
    // What is wrong comes before what is typed where there is no room for both.
    let room = match input.wrong {
        Some(_) => room.max(usize::from(area.width) / 2),
        None => room,
    };
    let note = text::clip(&note, room, look.ellipsis());
    let width = u16::try_from(note.width())
        .unwrap_or(area.width)
        .min(area.width);
    let at = Rect {
        x: area.x + area.width - width,
        width,
        ..area
    };
    widget::line(buf, at, 0, &Line::styled(note, look.style(role)));
}

/// The keys that help most here.
fn keys(model: &Model, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let over = model.ui.popup.is_some();
    let in_detail = model.detail.is_some();
    let mut spans = vec![Span::raw(" ")];
    let mut room = usize::from(area.width).saturating_sub(1);
    // The way out and the way to all other keys are never without room.
    let vital = |bound: &&Bound| matches!(bound.binding.action, Action::Close | Action::Help);
    let here = || model.ui.keymap.here(model.place());
    let vital_first = here().filter(vital).chain(here().filter(|b| !vital(b)));
    for bound in vital_first {
        let binding = bound.binding;
        let Some(first) = bound.keys.first().filter(|_| !binding.short.is_empty()) else {
            continue;
        };
        let in_list = !in_detail && !over;
        let fits_here = match binding.action {
            action if in_list && palette::is_idle(model, action) => false,
            Action::Open => !in_detail && !over,
            Action::Back => in_detail || over,
            Action::Follow => in_detail || model.focus() == Pane::Events,
            _ => true,
        };
        let key = match binding.action {
            Action::Down if look.ascii => "j/k".to_owned(),
            Action::Down => "↑↓".to_owned(),
            _ => key::shown(first),
        };
        // The same words as in the frame of what is open.
        let short = match binding.action {
            Action::Accept if over => "does it",
            Action::Cancel | Action::Back if over => "closes",
            _ => binding.short,
        };
        let width = key.width() + short.width() + 3;
        if !fits_here || width > room {
            continue;
        }
        room -= width;
        spans.push(Span::styled(key, look.style(Role::Accent)));
        spans.push(Span::styled(format!(" {short}  "), look.style(Role::Dim)));
    }
    widget::line(buf, area, 0, &Line::from(spans));
}
