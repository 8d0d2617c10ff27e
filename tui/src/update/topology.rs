//! What keys do in the drawing of the fleet: nearer, farther, and from machine to machine.

use fleet_contract::ids::MachineId;
use ratatui::layout::Rect;

use crate::keymap::Action;
use crate::model::{Model, Pane, Screen};
use crate::topology::Zoom;
use crate::view::{self, Scene, zoom};

/// Nearer, farther, or what fits.
pub(super) fn zoom(model: &mut Model, action: Action) {
    let Some(inner) = drawn(model) else {
        return model.say("the drawing of the fleet is on screen 1 only");
    };
    let is = Scene::of(model, inner).zoom;
    let to = match action {
        Action::ZoomIn => Some(is.nearer()),
        Action::ZoomOut => Some(is.farther()),
        _ => None,
    };
    let fits = Scene::fitting(model, inner);
    // What fits best anyway goes on following how many machines there are.
    model.topology.zoom = to.filter(|zoom| *zoom != fits);
    let word = model.topology.zoom.unwrap_or(fits).word();
    model.say(match (model.topology.zoom, to) {
        (None, _) => format!("zoom: {word}, as fits"),
        (Some(zoom), _) if zoom == is => format!("zoom: {word} is as far as it goes"),
        (Some(_), _) => format!("zoom: {word}"),
    });
}

/// The inside of the drawing, where it is on screen.
fn drawn(model: &Model) -> Option<Rect> {
    if model.screen != Screen::Fleet || model.detail.is_some() {
        return None;
    }
    let (width, height) = model.size;
    let places = view::places(model, Rect::new(0, 0, width, height));
    let pane = places.panes.iter().find(|(p, _)| *p == Pane::Machines);
    pane.map(|(_, area)| view::inside(*area))
}

/// Whether what has the focus is the drawing.
pub(super) fn has_focus(model: &Model) -> bool {
    model.screen == Screen::Fleet && model.focus() == Pane::Machines
}

/// Moves to another machine: so many rows down, so many cells to the right.
pub(super) fn step(model: &mut Model, down: i64, right: i64) {
    let Some(inner) = drawn(model) else {
        return;
    };
    let to = {
        let scene = Scene::of(model, inner);
        let rows = rows(&scene, inner);
        let selected = model.selected_machine();
        let here = rows.iter().enumerate().find_map(|(y, row)| {
            let x = row.iter().position(|id| Some(*id) == selected.as_ref())?;
            Some((y, x))
        });
        here.or(Some((0, 0)))
            .and_then(|(y, x)| moved(&rows, (y, x), (down, right)))
            .cloned()
    };
    if to.is_some() {
        model.machine = to;
    }
}

/// The machines as they stand on screen: keys go through all of them, also those that have no
/// room now.
fn rows<'a>(scene: &Scene<'a>, inner: Rect) -> Vec<Vec<&'a MachineId>> {
    let id = |(_, machine): &view::Entry<'a>| &machine.presence.machine;
    match scene.zoom {
        Zoom::Cards => scene.all.iter().map(|entry| vec![id(entry)]).collect(),
        Zoom::Lanes => {
            let lanes = zoom::lanes(scene.all.len(), inner);
            if lanes.columns <= 1 {
                return scene.all.iter().map(|entry| vec![id(entry)]).collect();
            }
            let mut rows = vec![Vec::new(); lanes.rows.max(1)];
            for (no, entry) in scene.all.iter().enumerate() {
                rows[no % lanes.rows.max(1)].push(id(entry));
            }
            rows
        }
        Zoom::Cells => {
            let room = zoom::grid(&zoom::sizes(&scene.groups), inner).room.max(1);
            let groups = scene.groups.iter();
            let rows = groups.flat_map(|g| g.machines.chunks(room));
            rows.map(|row| row.iter().map(id).collect()).collect()
        }
        Zoom::Sites => {
            let groups = scene.groups.iter();
            groups
                .map(|g| g.machines.iter().map(id).collect())
                .collect()
        }
    }
}

fn moved<'a>(
    rows: &[Vec<&'a MachineId>],
    (y, x): (usize, usize),
    (down, right): (i64, i64),
) -> Option<&'a MachineId> {
    let last = i64::try_from(rows.len()).unwrap_or(i64::MAX) - 1;
    let y = i64::try_from(y).unwrap_or(0);
    let to = y.saturating_add(down).clamp(0, last.max(0));
    let row = rows.get(usize::try_from(to).unwrap_or(0))?;
    let end = i64::try_from(row.len()).unwrap_or(i64::MAX) - 1;
    let x = i64::try_from(x).unwrap_or(0);
    let x = x.saturating_add(right).clamp(0, end.max(0));
    row.get(usize::try_from(x).unwrap_or(0)).copied()
}
