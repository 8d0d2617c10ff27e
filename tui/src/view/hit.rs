//! What is under the mouse: found in the same areas that the views draw into.

use ratatui::layout::{Position, Rect};

use super::popup::Rows as Choices;
use super::{choose, dispatches, events, header, machines, places, popup, table};
use crate::drawn::{Pick, Rows};
use crate::model::{Detail, Model, Pane, Screen};
use crate::ui::Popup;
use crate::widget;

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit {
    /// A screen's tab.
    Tab(Screen),
    /// A row of a list, by its place among all that the list shows, and how many are above it on
    /// the screen.
    Row(Pane, usize, usize),
    /// A pane, but none of its rows.
    Pane(Pane),
    /// A row of what is shown over the screen.
    Choice(usize),
    /// What is shown over the screen, but none of its rows.
    Popup,
    /// A dispatch or a machine that is open.
    Detail,
    /// Nothing that knows the mouse.
    Nothing,
}

/// What is at a cell of the terminal.
pub(crate) fn hit(model: &Model, column: u16, row: u16) -> Hit {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let at = Position::new(column, row);
    let places = places(model, area);
    if places.small || !area.contains(at) {
        return Hit::Nothing;
    }
    if let Some(hit) = over(model, places.body, at) {
        return hit;
    }
    if header::tabs_row(model, area) == Some(row) {
        let tab = header::tab_at(model, usize::from(area.width), usize::from(column));
        return tab.map_or(Hit::Nothing, Hit::Tab);
    }
    if let (Some(Detail::Job(_) | Detail::Machine(_)), true) =
        (&model.detail, places.body.contains(at))
    {
        return Hit::Detail;
    }
    let panes = places.panes.iter();
    let mut under = panes.filter(|(_, area)| area.contains(at));
    under.next().map_or(Hit::Nothing, |(pane, area)| {
        let row = row_at(model, *pane, *area, at);
        row.map_or(Hit::Pane(*pane), |(row, above)| Hit::Row(*pane, row, above))
    })
}

/// What is shown over the screen there.
fn over(model: &Model, body: Rect, at: Position) -> Option<Hit> {
    let rows = match model.ui.popup.as_ref()? {
        Popup::Help(chooser) | Popup::Palette(chooser) => choose::rows(model, chooser, body),
        Popup::Columns(pointed) => popup::column_rows(model, *pointed, body),
        Popup::Why(_) => return body.contains(at).then_some(Hit::Popup),
    };
    let Choices { area, first } = rows;
    // All below its beginning is the popup's: it stands at the lower end.
    let top = area.y.saturating_sub(2).max(body.y);
    let frame = Rect {
        y: top,
        height: body.bottom().saturating_sub(top),
        ..body
    };
    if area.contains(at) {
        return Some(Hit::Choice(first + usize::from(at.y - area.y)));
    }
    frame.contains(at).then_some(Hit::Popup)
}

/// What is in each row of the lists on the screen.
pub(crate) fn rows(model: &Model) -> Vec<Rows> {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let places = places(model, area);
    if places.small || model.detail.is_some() {
        return Vec::new();
    }
    let rows = places.panes.iter().map(|(pane, area)| {
        let inner = widget::inside(*area);
        let height = table::height(inner);
        let focused = *pane == model.focus();
        let picks = match pane {
            Pane::Dispatches => {
                let first = dispatches::window(model, focused, height).0;
                let ids = model.job_ids_shown().skip(first).take(height);
                ids.map(|id| Some(Pick::Job(id))).collect()
            }
            Pane::Machines if model.screen != Screen::Fleet => {
                let first = machines::window(model, focused, height).0;
                let shown = model.machines_shown().skip(first).take(height);
                let names = shown.map(|(_, machine)| machine.presence.machine.clone());
                names.map(|id| Some(Pick::Machine(id))).collect()
            }
            Pane::Events => {
                let keys = events::keys(model, focused, inner).into_iter();
                keys.map(|key| key.map(Pick::Event)).collect()
            }
            _ => Vec::new(),
        };
        let (pane, body) = (*pane, table::body(inner));
        Rows { pane, body, picks }
    });
    rows.collect()
}

fn row_at(model: &Model, pane: Pane, area: Rect, at: Position) -> Option<(usize, usize)> {
    let inner = widget::inside(area);
    let body = table::body(inner);
    if !body.contains(at) {
        return None;
    }
    let focused = pane == model.focus();
    let height = table::height(inner);
    let y = usize::from(at.y - body.y);
    let (first, all) = match pane {
        Pane::Dispatches => (
            dispatches::window(model, focused, height).0,
            model.jobs_count(),
        ),
        // There it is a drawing, not a list.
        Pane::Machines if model.screen == Screen::Fleet => return None,
        Pane::Machines => (
            machines::window(model, focused, height).0,
            model.machines_count(),
        ),
        Pane::Events => {
            let keys = events::keys(model, focused, inner);
            let key = keys.get(y).copied()??;
            let above = keys.iter().take(y).flatten().count();
            let row = model.events_shown().position(|row| row.key == key);
            return row.map(|row| (row, above));
        }
        Pane::Bus | Pane::Inbox => return None,
    };
    (first + y < all).then_some((first + y, y))
}
