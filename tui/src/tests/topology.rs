//! The drawing of the fleet at any number of machines: how it looks, what of it moves, and that the
//! worst is seen at any size.

use std::sync::OnceLock;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fleet_contract::machine::MachineState;
use fleet_contract::projection::Fact;
use ratatui::style::Modifier;

use super::snapshots::check;
use super::*;
use crate::Motion;
use crate::model::{Pane, Phase};
use crate::topology::Zoom;
use crate::view::{CELLS_MAX, inside, topology_alone as alone};

const COUNTS: [usize; 5] = [0, 3, 30, 300, 3000];

fn build(n: usize, keep: impl Fn(&Fact) -> bool) -> Model {
    let mut model = blank(COLOUR);
    let mut facts = demo::fleet_of(n, 7, now());
    facts.retain(keep);
    let mut msgs = vec![link(true)];
    msgs.extend(READERS.map(Msg::Opened));
    let reader = Reader::Journal;
    let left = 0;
    msgs.push(Msg::Facts {
        reader,
        facts,
        left,
    });
    msgs.extend(READERS.map(Msg::CaughtUp));
    let rtt = Duration::from_micros(640);
    let journal_seq = 0;
    msgs.push(Msg::Probe { rtt, journal_seq });
    for msg in msgs {
        update(&mut model, now(), msg);
    }
    assert_eq!(model.phase(), Phase::Live);
    model.pane = Pane::Machines;
    model
}

/// A fleet of so many machines, made once.
pub(super) fn fleet(n: usize) -> Model {
    static MADE: OnceLock<Vec<Model>> = OnceLock::new();
    let made = MADE.get_or_init(|| COUNTS.map(|n| build(n, |_| true)).into());
    match COUNTS.iter().position(|count| *count == n) {
        Some(at) => made[at].clone(),
        None => build(n, |_| true),
    }
}

fn press(model: &mut Model, code: KeyCode) {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    let now = model.now;
    update(model, now, Msg::Key(key));
}

/// The drawing alone, in an area of this size.
fn drawn(model: &Model, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    alone(model, true, area, &mut buffer);
    buffer
}

#[test]
fn any_number_of_machines_looks_as_it_did() {
    for n in COUNTS {
        for (name, look) in [("colour", COLOUR), ("mono", MONO), ("ascii", ASCII)] {
            let mut model = fleet(n);
            model.look = look;
            check(&format!("machines-{n}-{name}"), model);
        }
    }
}

#[test]
fn ascii_is_ascii_at_every_zoom_and_mono_sets_no_colour() {
    for n in COUNTS {
        for zoom in Zoom::ALL {
            let mut model = fleet(n);
            model.topology.zoom = Some(zoom);
            model.look = ASCII;
            let text = text(&draw(&model, 140, 40));
            let foreign = text.chars().find(|c| !c.is_ascii());
            assert_eq!(foreign, None, "{n} {zoom:?}\n{text}");
            model.look = MONO;
            let buffer = draw(&model, 140, 40);
            let plain = ratatui::style::Color::Reset;
            assert!(buffer.content.iter().all(|cell| cell.fg == plain));
        }
    }
}

/// Cells that differ between two pictures.
fn changed(a: &Buffer, b: &Buffer) -> usize {
    assert_eq!(a.area, b.area);
    a.content
        .iter()
        .zip(&b.content)
        .filter(|(a, b)| a != b)
        .count()
}

#[test]
fn no_step_of_what_moves_changes_more_than_a_few_cells() {
    for n in [3, 5, 8, 30, 300, 3000] {
        let fleet = fleet(n);
        for zoom in [None].into_iter().chain(Zoom::ALL.map(Some)) {
            for (width, height) in [(120, 36), (80, 24), (200, 60)] {
                let mut model = fleet.clone();
                model.size = (width, height);
                model.topology.zoom = zoom;
                let period = Duration::from_millis(200);
                let mut last = draw(&model, width, height);
                let mut moved = 0;
                // Within a second: no age changes.
                for step in 1..5 {
                    model.now = now().plus(period * step);
                    let next = draw(&model, width, height);
                    let cells = changed(&last, &next);
                    assert!(cells <= CELLS_MAX, "{n} {zoom:?} {width}x{height}: {cells}");
                    moved += cells;
                    last = next;
                }
                // There is traffic, and where lanes are drawn it is seen.
                if n == 3 && width >= 120 {
                    assert!(moved > 0, "{n} {zoom:?} {width}x{height}");
                }
                assert_eq!(moved > 0, view::next_motion(&model).is_some());
            }
        }
    }
}

#[test]
fn without_traffic_no_pulse_is_drawn_and_nothing_wakes_the_console() {
    for n in [3, 30, 300] {
        let is_no_traffic = |fact: &Fact| !matches!(fact, Fact::Stat { .. });
        let silent = build(n, is_no_traffic);
        for zoom in Zoom::ALL {
            let mut model = silent.clone();
            model.topology.zoom = Some(zoom);
            model.look = ASCII;
            model.size = (120, 36);
            assert_eq!(view::next_motion(&model), None);
            let text = text(&drawn(&model, 118, 30));
            for pulse in ["->", "<-", "-<", ">-"] {
                assert!(!text.contains(pulse), "{zoom:?} {pulse}\n{text}");
            }
            let first = draw(&model, 120, 36);
            model.now = now().plus(Duration::from_millis(800));
            assert_eq!(changed(&first, &draw(&model, 120, 36)), 0);
        }
    }
}

#[test]
fn nothing_moves_where_nothing_should() {
    let moving = |model: &Model| {
        let mut model = model.clone();
        let on_screen = model.screen == crate::model::Screen::Fleet;
        let first = drawn(&model, 120, 16);
        model.now = model.now.plus(Duration::from_millis(600));
        let moved = on_screen && changed(&first, &drawn(&model, 120, 16)) > 0;
        assert_eq!(moved, view::next_motion(&model).is_some());
        moved
    };
    let mut base = fleet(3);
    base.size = (120, 36);
    assert!(moving(&base));
    let mut still = base.clone();
    still.motion = Motion::Still;
    assert!(!moving(&still));
    let mut away = base.clone();
    update(&mut away, now(), Msg::Focus(false));
    assert!(!moving(&away));
    update(&mut away, now(), Msg::Focus(true));
    assert!(moving(&away));
    let mut slow = base.clone();
    let stored = now();
    slow.link.lag = Some(crate::link::Lag { left: 1204, stored });
    assert!(!moving(&slow));
    let mut elsewhere = base.clone();
    press(&mut elsewhere, KeyCode::Char('2'));
    assert!(!moving(&elsewhere));
    let mut down = base.clone();
    update(&mut down, now(), link(false));
    assert_eq!(view::next_motion(&down), None);
    assert!(!text(&drawn(&down, 118, 30)).contains('◂'));
    // Three seconds without a summary: nobody knows of any traffic.
    let mut old = base.clone();
    update(&mut old, later(4), Msg::Tick);
    assert_eq!(view::next_motion(&old), None);
    let calm = |motion| {
        let mut model = base.clone();
        model.motion = motion;
        view::next_motion(&model).unwrap()
    };
    assert_eq!(calm(Motion::Full), Duration::from_millis(200));
    assert_eq!(calm(Motion::Calm), Duration::from_millis(500));
}

#[test]
fn the_worst_is_seen_at_any_size_and_zoom() {
    let glyph = ASCII.machine(MachineState::Lost).0;
    let dated = ASCII.unknown().0;
    let some = [24, 30, 38, 40, 44, 56, 60, 76, 77, 90, 110, 137, 300];
    let sizes: Vec<u16> = (0..=20).chain(some).collect();
    let mut turn = 0;
    for n in [30, 300] {
        let mut live = fleet(n);
        live.look = ASCII;
        let mut down = live.clone();
        update(&mut down, now(), link(false));
        for zoom in [None].into_iter().chain(Zoom::ALL.map(Some)) {
            live.topology.zoom = zoom;
            down.topology.zoom = zoom;
            for &width in &sizes {
                for &height in &sizes {
                    turn += 1;
                    // All sizes are gone through, but not each with each.
                    if width > 3 && height > 3 && turn % 11 != 0 {
                        continue;
                    }
                    let text = text(&drawn(&live, width, height));
                    let seen = width == 0 || height == 0 || text.contains(glyph);
                    assert!(seen, "{n} {zoom:?} {width}x{height}\n{text}");
                    drawn(&down, width, height);
                }
            }
        }
        // What is known no more looks so wherever there is room for a row.
        let text = text(&drawn(&down, 30, 6));
        assert!(text.contains(dated) || text.contains("as of"), "{text}");
    }
}

#[test]
fn no_size_panics_with_any_fleet() {
    let fleets = COUNTS.map(fleet);
    let mut turn: usize = 0;
    let all: Vec<u16> = (0..=300).collect();
    // All of them take too long where nothing is optimised.
    let step = if cfg!(debug_assertions) { 23 } else { 3 };
    for &width in all.iter().step_by(step) {
        for &height in all.iter().step_by(step) {
            turn += 1;
            let mut model = fleets[turn % fleets.len()].clone();
            model.size = (width, height);
            draw(&model, width, height);
            let zoom = Zoom::ALL[turn / fleets.len() % Zoom::ALL.len()];
            model.topology.zoom = Some(zoom);
            drawn(&model, width, height);
            view::next_motion(&model);
        }
    }
}

#[test]
fn the_cursor_moves_both_ways_and_is_seen_everywhere() {
    for n in [3, 30, 300, 3000] {
        for zoom in Zoom::ALL {
            let mut model = fleet(n);
            model.size = (120, 36);
            model.topology.zoom = Some(zoom);
            let mut seen = std::collections::BTreeSet::new();
            for code in [
                KeyCode::Down,
                KeyCode::Down,
                KeyCode::Right,
                KeyCode::Right,
                KeyCode::Char('h'),
                KeyCode::Up,
                KeyCode::End,
                KeyCode::Home,
            ] {
                press(&mut model, code);
                seen.insert(model.selected_machine());
                let buffer = draw(&model, 120, 36);
                let places = view::places(&model, buffer.area);
                let area = inside(places.panes[0].1);
                let reversed = area
                    .positions()
                    .filter(|at| buffer[*at].modifier.contains(Modifier::REVERSED))
                    .count();
                assert!(reversed > 0, "{n} {zoom:?} after {code}");
            }
            assert!(seen.len() >= 3, "{n} {zoom:?}: {seen:?}");
        }
    }
}

#[test]
fn plus_and_minus_zoom_and_equals_fits_again() {
    let mut model = fleet(300);
    model.size = (120, 36);
    let title = |model: &Model| row(&draw(model, 120, 36), 2);
    assert!(title(&model).contains("names hidden at this zoom"));
    press(&mut model, KeyCode::Char('+'));
    assert_eq!(model.topology.zoom, Some(Zoom::Lanes));
    assert!(!title(&model).contains("hidden"));
    assert!(text(&draw(&model, 120, 36)).contains("more below"));
    press(&mut model, KeyCode::Char('-'));
    assert_eq!(model.topology.zoom, None, "what fits follows again");
    press(&mut model, KeyCode::Char('-'));
    press(&mut model, KeyCode::Char('-'));
    assert_eq!(model.topology.zoom, Some(Zoom::Sites));
    press(&mut model, KeyCode::Char('='));
    assert_eq!(model.topology.zoom, None);
    press(&mut model, KeyCode::Char('2'));
    press(&mut model, KeyCode::Char('+'));
    assert_eq!(model.topology.zoom, None);
}

#[test]
fn the_machine_that_hosts_the_hub_is_in_the_hubs_box() {
    let mut model = fleet(3);
    model.size = (120, 36);
    let before = text(&drawn(&model, 120, 16));
    assert!(before.contains("HUB anvil:4222"), "{before}");
    assert!(before.contains("┌ anvil"), "{before}");
    let mut stats = demo::hub::well(now());
    // A machine's word for its host is nothing: it may be the hub's.
    stats.host = "anvil.local".to_owned();
    stats.machine = None;
    let said = crate::bus::BusMsg::Hub(Ok(Box::new(stats.clone())));
    update(&mut model, now(), Msg::Bus(said));
    assert!(text(&drawn(&model, 120, 16)).contains("┌ anvil"));
    stats.machine = "anvil".parse().ok();
    let said = crate::bus::BusMsg::Hub(Ok(Box::new(stats)));
    update(&mut model, now(), Msg::Bus(said));
    let after = text(&drawn(&model, 120, 16));
    assert!(after.contains("HUB anvil ═"), "{after}");
    assert!(!after.contains("┌ anvil"), "{after}");
    // It is selected like any other.
    model.machine = "anvil".parse().ok();
    let buffer = drawn(&model, 120, 16);
    let reversed = |at| buffer[at].modifier.contains(Modifier::REVERSED);
    assert!(buffer.area.positions().any(reversed));
    model.topology.zoom = Some(Zoom::Lanes);
    let rows = text(&drawn(&model, 120, 16));
    assert!(rows.contains("(the hub)"), "{rows}");
}

#[test]
fn what_is_selected_tells_its_way_and_the_strip_when_nothing_was_heard() {
    let mut model = fleet(3);
    let shown = |model: &Model| text(&draw(model, 120, 36));
    assert!(shown(&model).contains("▸ hub ─"), "{}", shown(&model));
    assert!(shown(&model).contains("−60m "));
    assert!(!shown(&model).contains('░'));
    update(&mut model, now(), link(false));
    update(&mut model, later(150), Msg::Tick);
    let strip = |model: &Model| row(&draw(model, 120, 36), 34);
    assert!(strip(&model).contains("░░░ now"), "{}", strip(&model));
    assert!(strip(&model).contains("░ not heard"));
    // What came before anything was read is no quiet hour.
    let young = build(3, |fact| !matches!(fact, Fact::Record(_)));
    assert!(strip(&young).contains("m read"), "{}", strip(&young));
}
