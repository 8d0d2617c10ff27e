//! Model → cells. Pure: the same model gives the same cells at any size, and no size is refused.

mod bus;
mod choose;
mod detail;
mod dispatches;
mod events;
mod footer;
mod header;
mod hit;
mod inbox;
mod layout;
mod leave;
mod link;
mod machines;
mod path;
mod popup;
mod selected;
mod small;
mod spark;
mod strip;
mod table;
mod topology;
mod why;
pub(crate) mod words;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::{Detail, Model, Pane, Screen};
use crate::ui::Popup;
use crate::widget;

pub(crate) use detail::{job_parts, log_inside, log_room, machine_most};
pub(crate) use hit::{Hit, hit, rows};
pub(crate) use layout::places;
pub(crate) use small::counts;
pub(crate) use topology::roster::Entry;
pub(crate) use topology::{Scene, inside, zoom};
#[cfg(test)]
pub(crate) use topology::{draw as topology_alone, pulse::CELLS_MAX};
pub(crate) use words::clock;

/// Draws everything.
pub(crate) fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    let places = places(model, area);
    if places.small {
        return small::draw(model, area, buf);
    }
    header::draw(model, places.head, buf);
    footer::draw(model, places.foot, buf);
    match &model.detail {
        Some(Detail::Job(job)) => detail::job(model, job, places.body, buf),
        Some(Detail::Machine(id)) => detail::machine(model, id, places.body, buf),
        None => {
            for (which, area) in &places.panes {
                pane(model, *which, *which == model.focus(), *area, buf);
            }
        }
    }
    if let Some(area) = places.selected {
        selected::draw(model, area, buf);
    }
    if let Some(area) = places.strip {
        strip::draw(model, area, buf);
    }
    match &model.ui.popup {
        Some(Popup::Help(chooser) | Popup::Palette(chooser)) => {
            choose::draw(model, chooser, places.body, buf);
        }
        Some(Popup::Why(top)) => popup::why(model, *top, places.body, buf),
        Some(Popup::Columns(at)) => popup::columns(model, *at, places.body, buf),
        None => {}
    }
    if let Some(pending) = model.ui.hints(model.clock) {
        popup::hints(model, pending, places.body, buf);
    }
    leave::draw(model, places.body, buf);
}

/// How long until something on the screen moves by itself; none where nothing does.
pub(crate) fn next_motion(model: &Model) -> Option<Duration> {
    let (width, height) = model.size;
    if model.screen != Screen::Fleet || model.detail.is_some() {
        return None;
    }
    let places = places(model, Rect::new(0, 0, width, height));
    let machines = places.panes.iter().find(|(p, _)| *p == Pane::Machines);
    machines.and_then(|(_, area)| topology::next_motion(model, *area))
}

/// How many rows a list shows.
pub(crate) fn list_height(model: &Model, pane: Pane) -> usize {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let places = places(model, area);
    let area = places.panes.iter().find(|(which, _)| *which == pane);
    area.map_or(1, |(_, area)| table::height(widget::inside(*area)))
}

fn pane(model: &Model, pane: Pane, focused: bool, area: Rect, buf: &mut Buffer) {
    match pane {
        Pane::Machines if model.screen == Screen::Fleet => {
            topology::draw(model, focused, area, buf);
        }
        Pane::Machines => machines::draw(model, focused, area, buf),
        Pane::Dispatches => dispatches::draw(model, focused, area, buf),
        Pane::Events => events::draw(model, focused, area, buf),
        Pane::Bus => bus::draw(model, focused, area, buf),
        Pane::Inbox => inbox::draw(model, focused, area, buf),
    }
}
