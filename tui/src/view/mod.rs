//! Model → cells. Pure: the same model gives the same cells at any size, and no size is refused.

mod detail;
mod dispatches;
mod events;
mod header;
mod help;
mod machines;
mod small;
mod words;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use crate::model::{Detail, Model, Pane, Screen};

pub(crate) use small::state_line;
pub(crate) use words::clock;

/// Below so many columns or rows there is a line of words.
const SMALL: (u16, u16) = (40, 8);
/// From so many columns on panes stand side by side.
const WIDE: u16 = 100;
/// From so many rows on there is more than one pane.
const TALL: u16 = 24;
/// From so many rows on there is a pane for the selected job.
const ROOMY: u16 = 30;

/// Draws everything.
pub(crate) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    if area.width < SMALL.0 || area.height < SMALL.1 {
        return small::draw(model, area, buf);
    }
    let head = header::height(model, area);
    let [top, body, foot] = Layout::vertical([
        Constraint::Length(head),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    header::draw(model, top, buf);
    header::footer(model, foot, buf);
    if model.help {
        return help::draw(model, body, buf);
    }
    match (&model.detail, model.screen) {
        (Some(Detail::Job(job)), _) => detail::job(model, job, body, buf),
        (Some(Detail::Machine(id)), _) => detail::machine(model, id, body, buf),
        (None, Screen::Fleet) => fleet(model, body, area, buf),
        (None, _) => pane(model, model.focus(), true, body, buf),
    }
}

fn pane(model: &Model, pane: Pane, focused: bool, area: Rect, buf: &mut Buffer) {
    match pane {
        Pane::Machines => machines::draw(model, focused, area, buf),
        Pane::Dispatches => dispatches::draw(model, focused, area, buf),
        Pane::Events => events::draw(model, focused, area, buf),
    }
}

/// Machines above; dispatches and events side by side, or one above the other; or the one pane
/// that has the focus.
fn fleet(model: &Model, body: Rect, whole: Rect, buf: &mut Buffer) {
    if whole.height < TALL {
        return pane(model, model.pane, true, body, buf);
    }
    let machines = u16::try_from(model.fleet.machines().len()).unwrap_or(u16::MAX);
    let wanted = machines.max(1).saturating_add(2);
    let most = if whole.width < WIDE {
        body.height / 3
    } else {
        body.height * 2 / 5
    };
    let selected = if whole.height >= ROOMY { 4 } else { 0 };
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(wanted.clamp(3, most.max(3))),
        Constraint::Fill(1),
        Constraint::Length(selected),
    ])
    .areas(body);
    let halves = if whole.width < WIDE {
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)])
    } else {
        Layout::horizontal([Constraint::Fill(13), Constraint::Fill(9)])
    };
    let [jobs, events] = halves.areas(middle);
    for (which, area) in Pane::ALL.into_iter().zip([top, jobs, events]) {
        pane(model, which, model.pane == which, area, buf);
    }
    if selected > 0 {
        detail::selected(model, bottom, buf);
    }
}
