//! The bytes of frames through a terminal emulator: what it shows is what was drawn, whatever
//! frames and sizes came before; and what they cost.

use std::num::NonZeroU16;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::{Cell, CellWidth};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::terminal::Canvas;

const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";

/// A terminal with the console on it.
struct Terminal {
    canvas: Canvas,
    emulator: vt100::Parser,
    size: (u16, u16),
}

fn at_least_one(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN)
}

impl Terminal {
    fn new(size: (u16, u16)) -> Self {
        // As on a real one: our themes decide.
        crossterm::style::force_color_output(true);
        Self {
            canvas: Canvas::new(size).unwrap(),
            emulator: vt100::Parser::new(at_least_one(size.1), at_least_one(size.0), 0),
            size,
        }
    }

    fn resize(&mut self, model: &mut Model, size: (u16, u16)) {
        self.size = size;
        self.canvas.resize(size);
        let (columns, rows) = (at_least_one(size.0), at_least_one(size.1));
        self.emulator.set_size(rows, columns);
        update(model, model.now, Msg::Resize(size.0, size.1));
    }

    /// Draws a frame and checks what the terminal shows then; the bytes.
    fn frame(&mut self, model: &Model) -> Vec<u8> {
        let bytes = self
            .canvas
            .draw(|frame| view::draw(model, frame.area(), frame.buffer_mut()))
            .unwrap();
        let begins = bytes.windows(BEGIN.len()).filter(|w| *w == BEGIN).count();
        let ends = bytes.windows(END.len()).filter(|w| *w == END).count();
        let framed = bytes.starts_with(BEGIN) && bytes.ends_with(END) && (begins, ends) == (1, 1);
        assert!(bytes.is_empty() || framed, "one frame, whole");
        self.emulator.process(&bytes);
        self.check(model);
        bytes
    }

    fn check(&self, model: &Model) {
        let buffer = draw(model, self.size.0, self.size.1);
        let shown = self.emulator.screen();
        for y in 0..self.size.1 {
            let mut hidden = 0;
            for x in 0..self.size.0 {
                if hidden > 0 {
                    hidden -= 1;
                    continue;
                }
                let cell = &buffer[(x, y)];
                hidden = cell.cell_width().saturating_sub(1);
                let found = shown.cell(y, x).unwrap();
                // What terminals do not agree about is drawn in as many cells, or in fewer.
                let covered = (x..=x + hidden).map(|x| shown.cell(y, x).unwrap().contents());
                let letters = covered.collect::<String>();
                let (letters, symbol) = (letters.trim_end(), cell.symbol().trim_end());
                assert_eq!(letters, symbol, "at {x},{y} of {:?}", self.size);
                if letters.is_empty() {
                    let reversed = cell.modifier.contains(Modifier::REVERSED);
                    // Nothing else is seen where nothing is written.
                    let look = (found.inverse(), found.bgcolor());
                    assert_eq!(look, (reversed, vt100::Color::Default), "at {x},{y}");
                    continue;
                }
                // Both at once are one of them to the emulator, as to some terminals.
                let both = cell.modifier.contains(Modifier::BOLD | Modifier::DIM);
                let look = (
                    found.bold() || both,
                    found.dim() || both,
                    found.inverse(),
                    found.fgcolor(),
                    found.bgcolor(),
                );
                assert_eq!(
                    look,
                    wanted(cell),
                    "at {x},{y} of {:?}: {letters}",
                    self.size
                );
            }
        }
    }
}

fn wanted(cell: &Cell) -> (bool, bool, bool, vt100::Color, vt100::Color) {
    let has = |modifier| cell.modifier.contains(modifier);
    (
        has(Modifier::BOLD),
        has(Modifier::DIM),
        has(Modifier::REVERSED),
        colour(cell.fg),
        colour(cell.bg),
    )
}

fn colour(colour: Color) -> vt100::Color {
    let all = [
        Color::Black,
        Color::Red,
        Color::Green,
        Color::Yellow,
        Color::Blue,
        Color::Magenta,
        Color::Cyan,
        Color::Gray,
        Color::DarkGray,
        Color::LightRed,
        Color::LightGreen,
        Color::LightYellow,
        Color::LightBlue,
        Color::LightMagenta,
        Color::LightCyan,
        Color::White,
    ];
    match all.iter().position(|c| *c == colour) {
        Some(at) => vt100::Color::Idx(u8::try_from(at).unwrap()),
        None => vt100::Color::Default,
    }
}

/// A small generator: the same each time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ (seed << 32))
    }

    /// A place in a list of so many.
    pub(super) fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Jobs with names that take two cells a letter, or none, or others together than apart.
fn name_widely(model: &mut Model) {
    let mut script = Script::default();
    script.seq = model.fleet.journal_seq();
    let names = [
        "夜間ビルド",
        "naïve-e\u{301}tude",
        "🚀 launch 🚀",
        "한국어 배포",
        "\u{26a0}\u{fe0f} deploy the \u{2764}\u{fe0f} of it, 1\u{fe0f}\u{20e3} by 1\u{fe0f}\u{20e3}",
        "لا سلام",
        "a\u{200b}b",
    ];
    let dispatched = names.iter().zip(100..);
    let facts = dispatched.filter_map(|(name, n)| script.dispatch(n, now(), name, "make", ""));
    let (reader, facts, left) = (Reader::Journal, facts.collect(), 0);
    let msg = Msg::Facts {
        reader,
        facts,
        left,
    };
    let before = model.fleet.jobs().len();
    update(model, now(), msg);
    assert_eq!(model.fleet.jobs().len(), before + names.len());
}

#[test]
fn a_name_whose_letters_change_their_width_is_drawn_in_every_column() {
    let mut model = model(Situation::Live, COLOUR);
    name_widely(&mut model);
    let two = KeyEvent::new(KeyCode::Char('2'), KeyModifiers::NONE);
    update(&mut model, now(), Msg::Key(two));
    let mut terminal = Terminal::new((120, 36));
    for columns in 1..=140 {
        terminal.resize(&mut model, (columns, 36));
        terminal.frame(&model);
    }
    let shown = terminal.emulator.screen().contents();
    assert!(shown.contains("deploy the"), "{shown}");
}

fn key(dice: &mut Dice) -> KeyEvent {
    let keys = "jkhlG123456?fzsn/gmdewq!tpc'x+-[]";
    let code = match dice.below(8) {
        0 => KeyCode::Enter,
        1 => KeyCode::Esc,
        2 => KeyCode::Tab,
        3 => KeyCode::Down,
        4 => KeyCode::PageDown,
        _ => {
            let at = dice.below(keys.len() as u64);
            KeyCode::Char(keys.chars().nth(usize::try_from(at).unwrap()).unwrap())
        }
    };
    KeyEvent::new(code, KeyModifiers::NONE)
}

#[test]
fn the_terminal_shows_what_was_drawn_after_any_frames_and_sizes() {
    for (seed, look) in [(1, COLOUR), (2, MONO), (3, ASCII), (4, COLOUR), (5, MONO)] {
        let mut dice = Dice::new(seed);
        let mut model = model(Situation::Live, look);
        name_widely(&mut model);
        let mut terminal = Terminal::new((120, 36));
        update(&mut model, now(), Msg::Resize(120, 36));
        terminal.frame(&model);
        let mut at = 0;
        for _ in 0..150 {
            match dice.below(10) {
                0 => {
                    let (columns, rows) = (1 + dice.below(200), 1 + dice.below(60));
                    let size = (
                        u16::try_from(columns).unwrap(),
                        u16::try_from(rows).unwrap(),
                    );
                    terminal.resize(&mut model, size);
                }
                1 => {
                    at += dice.below(90);
                    update(&mut model, later(at), Msg::Tick);
                }
                2 => drop(update(&mut model, later(at), link(dice.below(2) == 0))),
                // Somebody else had the terminal.
                3 => {
                    let scribble = b"\x1b[H\x1b[7;31msomething else\x1b[0m\r\nand more";
                    terminal.emulator.process(scribble);
                    terminal.canvas.forget();
                }
                _ => drop(update(&mut model, later(at), Msg::Key(key(&mut dice)))),
            }
            terminal.frame(&model);
        }
    }
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    for situation in SITUATIONS {
        let mut model = model(situation, COLOUR);
        let mut terminal = Terminal::new((120, 36));
        let at = model.now;
        update(&mut model, at, Msg::Resize(120, 36));
        assert!(!terminal.frame(&model).is_empty());
        assert_eq!(terminal.frame(&model), b"", "{situation:?}");
    }
}

#[test]
fn the_selection_is_reverse_in_the_terminal_without_colours() {
    let mut model = model(Situation::Live, MONO);
    let mut terminal = Terminal::new((120, 36));
    update(&mut model, now(), Msg::Resize(120, 36));
    let bytes = terminal.frame(&model);
    let text = String::from_utf8_lossy(&bytes);
    for code in ["\x1b[3", "\x1b[9", "\x1b[;m", "\x1b[38"] {
        let coloured = text.match_indices(code).any(|(at, _)| {
            let rest = &text[at + 2..];
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
            // 39 is the person's own colour.
            rest[end..].starts_with('m') && &rest[..end] != "39"
        });
        assert!(!coloured, "{code:?}");
    }
    let screen = terminal.emulator.screen();
    let reversed = (0..36).filter(|y| screen.cell(*y, 4).unwrap().inverse());
    assert!(reversed.count() >= 1);
}

#[test]
fn one_key_costs_a_few_hundred_bytes_and_a_second_a_few_dozen() {
    let mut model = model(Situation::Live, COLOUR);
    let mut terminal = Terminal::new((120, 36));
    update(&mut model, now(), Msg::Resize(120, 36));
    terminal.frame(&model);
    let down = KeyEvent::new(KeyCode::Down, KeyModifiers::NONE);
    update(&mut model, now(), Msg::Key(down));
    let bytes = terminal.frame(&model).len();
    assert!(bytes > 0 && bytes <= 2048, "{bytes} for a key");
    update(&mut model, later(1), Msg::Tick);
    let bytes = terminal.frame(&model).len();
    assert!(bytes > 0 && bytes <= 512, "{bytes} for a second");
}

#[test]
fn what_moves_by_itself_costs_at_most_a_kilobyte_a_frame() {
    for machines in [3, 8, 30, 300] {
        let mut many = demo::Many::new(machines, 5);
        let mut model = blank(COLOUR);
        let mut terminal = Terminal::new((120, 36));
        update(&mut model, now(), link(true));
        update(&mut model, now(), Msg::Resize(120, 36));
        let facts = |facts| Msg::Facts {
            reader: Reader::Journal,
            facts,
            left: 0,
        };
        update(&mut model, now(), facts(many.history(now())));
        for reader in READERS {
            update(&mut model, now(), Msg::CaughtUp(reader));
        }
        let mut moved = 0;
        for second in 1..6 {
            update(&mut model, later(second), facts(many.second(later(second))));
            terminal.frame(&model);
            // Only what moves changes within a second.
            for step in 1..5 {
                let at = later(second).plus(Duration::from_millis(step * 200));
                update(&mut model, at, Msg::Tick);
                let bytes = terminal.frame(&model).len();
                // In the same frame an age may begin its next second.
                assert!(bytes <= 2048, "{bytes} bytes with {machines} machines");
                moved += bytes;
            }
        }
        let mean = moved / 20;
        assert!(
            mean <= 1024,
            "{mean} bytes a frame with {machines} machines"
        );
        assert!(moved > 0 || machines > 8, "nothing moved with {machines}");
    }
}

#[test]
fn a_second_in_which_nothing_on_screen_ages_costs_nothing() {
    // One cell shows no clock.
    let mut model = model(Situation::Live, COLOUR);
    let mut terminal = Terminal::new((3, 1));
    update(&mut model, now(), Msg::Resize(3, 1));
    terminal.frame(&model);
    for second in 1..5 {
        update(&mut model, later(second), Msg::Tick);
        assert_eq!(terminal.frame(&model), b"");
    }
}
