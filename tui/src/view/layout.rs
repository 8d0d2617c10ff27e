//! Where everything is, at any size. Pure, and shared: the views draw into these areas, and what
//! the mouse is over is found in them.

use ratatui::layout::{Constraint, Layout, Rect};

use super::{header, topology};
use crate::model::{Model, Pane, Screen};

/// Below so many columns or rows there is a line of words.
const SMALL: (u16, u16) = (40, 8);
/// From so many columns on panes stand side by side.
const WIDE: u16 = 100;
/// From so many rows on there is more than one pane.
const TALL: u16 = 24;
/// From so many rows on there is a pane for the selected job.
const ROOMY: u16 = 30;

/// Where everything is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// Too small for panes: one line of words, and the worst below it.
    pub(crate) small: bool,
    /// The lines above everything.
    pub(crate) head: Rect,
    /// What is between head and foot.
    pub(crate) body: Rect,
    /// The line below everything.
    pub(crate) foot: Rect,
    /// The panes of the screen with their frames; none where something is opened over it.
    pub(crate) panes: Vec<(Pane, Rect)>,
    /// The few lines about the selected job.
    pub(crate) selected: Option<Rect>,
    /// The line about the last hour.
    pub(crate) strip: Option<Rect>,
}

/// Where everything is in `area`.
pub(crate) fn places(model: &Model, area: Rect) -> Places {
    if area.width < SMALL.0 || area.height < SMALL.1 {
        return Places {
            small: true,
            ..Places::default()
        };
    }
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(header::height(model, area)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    let mut places = Places {
        head,
        body,
        foot,
        ..Places::default()
    };
    if model.detail.is_none() {
        match model.screen {
            Screen::Fleet => fleet(model, area, &mut places),
            _ => places.panes.push((model.focus(), body)),
        }
    }
    places
}

/// Machines above; dispatches and events side by side, or one above the other; or the one pane
/// that has the focus.
fn fleet(model: &Model, whole: Rect, places: &mut Places) {
    let body = places.body;
    if whole.height < TALL {
        places.panes.push((model.pane, body));
        return;
    }
    let selected = if whole.height >= ROOMY { 4 } else { 0 };
    let most = if whole.width < WIDE {
        (body.height - 1) * 2 / 5
    } else {
        (body.height - selected - 1) * 4 / 7
    };
    let [top, middle, bottom, strip] = Layout::vertical([
        Constraint::Length(topology::wanted(model, body.width, most.max(3))),
        Constraint::Fill(1),
        Constraint::Length(selected),
        Constraint::Length(1),
    ])
    .areas(body);
    let halves = if whole.width < WIDE {
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)])
    } else {
        Layout::horizontal([Constraint::Fill(13), Constraint::Fill(9)])
    };
    let [jobs, events] = halves.areas(middle);
    places.panes = Pane::FLEET.into_iter().zip([top, jobs, events]).collect();
    places.selected = (selected > 0).then_some(bottom);
    places.strip = Some(strip);
}
