//! Every look of every situation at six sizes, letters and styles, against committed files. With
//! `FLEET_TUI_BLESS=1` in the environment the files are written anew: look at what changed.

use std::fmt::Write;
use std::path::Path;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::*;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const SIZES: [(u16, u16); 6] = [(120, 36), (80, 24), (60, 16), (40, 10), (20, 5), (1, 1)];

fn style(cell: &Cell) -> String {
    let mut style = match cell.fg {
        Color::Reset => String::new(),
        colour => colour.to_string().to_lowercase(),
    };
    assert_eq!(cell.bg, Color::Reset, "no background is ever painted");
    for (modifier, letter) in [
        (Modifier::BOLD, "+bold"),
        (Modifier::DIM, "+dim"),
        (Modifier::REVERSED, "+reverse"),
    ] {
        if cell.modifier.contains(modifier) {
            style.push_str(letter);
        }
    }
    style
}

/// The runs of cells in a row that have a style.
fn styles(buffer: &Buffer, y: u16) -> String {
    let mut runs = String::new();
    let mut x = 0;
    while x < buffer.area.width {
        let this = style(&buffer[(x, y)]);
        let end = (x..buffer.area.width)
            .find(|x| style(&buffer[(*x, y)]) != this)
            .unwrap_or(buffer.area.width);
        if !this.is_empty() {
            let _ = write!(runs, " {x}-{} {this}", end - 1);
        }
        x = end;
    }
    runs
}

fn picture(model: &mut Model, sizes: &[(u16, u16)]) -> String {
    let mut out = String::new();
    for &(width, height) in sizes {
        update(model, model.now, Msg::Resize(width, height));
        let buffer = draw(model, width, height);
        let _ = writeln!(out, "== {width}x{height}");
        let _ = writeln!(out, "{}", text(&buffer));
        let _ = writeln!(out, "-- styles");
        for y in 0..height {
            let runs = styles(&buffer, y);
            if !runs.is_empty() {
                let _ = writeln!(out, "{y}:{runs}");
            }
        }
    }
    out
}

pub(super) fn check(name: &str, model: Model) {
    check_at(name, model, &SIZES);
}

/// Compares how it looks at these sizes with the committed file of this name.
pub(super) fn check_at(name: &str, mut model: Model, sizes: &[(u16, u16)]) {
    let found = picture(&mut model, sizes);
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tests/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("FLEET_TUI_BLESS").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    for (no, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", no + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
}

#[test]
fn every_situation_looks_as_it_did() {
    for (name, situation) in [
        ("live", Situation::Live),
        ("down", Situation::Down),
        ("empty", Situation::Empty),
        ("catching-up", Situation::CatchingUp),
        ("slow", Situation::Slow),
        ("gap", Situation::Gap),
    ] {
        check(&format!("{name}-colour"), model(situation, COLOUR));
        check(&format!("{name}-mono"), model(situation, MONO));
        check(&format!("{name}-ascii"), model(situation, ASCII));
    }
    for (name, situation) in [
        ("silent", Situation::Silent),
        ("connecting", Situation::Connecting),
        ("read-only", Situation::ReadOnly),
        ("refused", Situation::Refused),
        ("paused", Situation::Paused),
    ] {
        check(&format!("{name}-mono"), model(situation, MONO));
    }
}

#[test]
fn any_two_situations_differ_in_letters() {
    for (width, height) in SIZES.into_iter().filter(|size| *size > (4, 4)) {
        let texts: Vec<String> = SITUATIONS
            .iter()
            .map(|s| text(&draw(&model(*s, MONO), width, height)))
            .collect();
        for (at, a) in texts.iter().enumerate() {
            for (b, other) in texts[at + 1..].iter().zip(&SITUATIONS[at + 1..]) {
                assert_ne!(
                    a, b,
                    "{:?} and {other:?} at {width}x{height}",
                    SITUATIONS[at]
                );
            }
        }
    }
}

#[test]
fn without_colour_none_is_set_and_the_selection_is_reverse() {
    for situation in SITUATIONS {
        let buffer = draw(&model(situation, MONO), 120, 36);
        assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset));
    }
    let buffer = draw(&model(Situation::Live, MONO), 120, 36);
    let pointed = (0..36).find(|y| row(&buffer, *y).contains('▸')).unwrap();
    assert!(buffer[(30, pointed)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn ascii_is_ascii() {
    for situation in SITUATIONS {
        let mut model = model(situation, ASCII);
        for keys in ["", "?", "\u{1b}:", "\u{1b}c"] {
            for c in keys.chars() {
                let code = match c {
                    '\u{1b}' => KeyCode::Esc,
                    c => KeyCode::Char(c),
                };
                let key = KeyEvent::new(code, KeyModifiers::NONE);
                update(&mut model, now(), Msg::Key(key));
            }
            assert_eq!(model.ui.popup.is_some(), !keys.is_empty());
            let text = text(&draw(&model, 120, 36));
            let foreign = text.chars().find(|c| !c.is_ascii());
            assert_eq!(foreign, None, "{situation:?}\n{text}");
        }
    }
}

/// Models that show everything there is to show.
fn all_views() -> Vec<Model> {
    let mut models: Vec<Model> = SITUATIONS.map(|s| model(s, COLOUR)).into();
    let press = |model: &mut Model, code| {
        let key = KeyEvent::new(code, KeyModifiers::NONE);
        update(model, now(), Msg::Key(key));
    };
    for keys in [
        vec![KeyCode::Char('?')],
        vec![KeyCode::Enter],
        vec![KeyCode::Char('2'), KeyCode::End],
        vec![KeyCode::Char('3'), KeyCode::Enter],
        vec![KeyCode::Char('4'), KeyCode::Down, KeyCode::Down],
    ] {
        for situation in [Situation::Live, Situation::Down] {
            let mut model = model(situation, ASCII);
            keys.iter().for_each(|code| press(&mut model, *code));
            if let (KeyCode::Enter, Some(job)) = (keys[0], model.selected_job()) {
                let mut chunk = demo::output(
                    5,
                    1,
                    fleet_contract::outcome::OutputStream::Stdout,
                    &"漢字 and 🚀 words\tand tabs\n".repeat(200),
                );
                chunk.job = job;
                let chunks = vec![chunk];
                let left = 3;
                update(&mut model, now(), Msg::Log { job, chunks, left });
            }
            models.push(model);
        }
    }
    assert!(
        models.iter().any(|m| m.ui.popup.is_some()) && models.iter().any(|m| m.detail.is_some())
    );
    models
}

#[test]
fn no_size_is_refused_and_none_panics() {
    let models = all_views();
    let mut turn = 0;
    for width in 0..=150_u16 {
        for height in 0..=150_u16 {
            // Small ones all, of the others each width and each height, but not each with each.
            if height > 12 && !(width + height).is_multiple_of(9) {
                continue;
            }
            turn += 1;
            let model = &models[turn % models.len()];
            let buffer = draw(model, width, height);
            if width > 0 && height > 0 {
                // The worst there is to know is never hidden.
                assert!(!row(&buffer, 0).trim().is_empty(), "{width}x{height}");
            }
        }
    }
    // Odd ends, with each.
    for model in &models {
        for (width, height) in [
            (1, 1),
            (2, 400),
            (400, 2),
            (39, 8),
            (40, 7),
            (40, 8),
            (99, 24),
        ] {
            draw(model, width, height);
        }
    }
}
