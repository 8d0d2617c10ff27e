//! What the terminal is told besides frames: how it is taken, given back, and the few modes
//! between. Only bytes.

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// Alternate screen, cursor hidden, pastes told apart from keys, focus told.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[0m\x1b[?25l\x1b[?2004h\x1b[?1004h";
/// The end of a frame that may be open, no attributes, and the opposite of [`enter`].
pub(super) const LEAVE: &[u8] =
    b"\x1b[?2026l\x1b[0m\x1b[?1006l\x1b[?1002l\x1b[?1000l\x1b[?1004l\x1b[?2004l\x1b[?25h\x1b[?1049l";
/// Presses, drags and the wheel, in numbers that know more than 223 columns. Movements alone are
/// not wanted: each would be a wake-up.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1002h\x1b[?1006h";
const MOUSE_OFF: &[u8] = b"\x1b[?1006l\x1b[?1002l\x1b[?1000l";
/// What is between these appears at once.
pub(super) const BEGIN_FRAME: &[u8] = b"\x1b[?2026h";
pub(super) const END_FRAME: &[u8] = b"\x1b[?2026l";

/// How the terminal is taken.
pub(super) fn enter(mouse: bool) -> Vec<u8> {
    let mut bytes = ENTER.to_vec();
    if mouse {
        bytes.extend_from_slice(MOUSE_ON);
    }
    bytes
}

/// Whether the mouse is the console's, or the terminal's own for selecting text.
pub(super) fn mouse(on: bool) -> &'static [u8] {
    if on { MOUSE_ON } else { MOUSE_OFF }
}

/// What puts a text into the clipboard of the terminal, also through SSH.
pub(super) fn copy(text: &str) -> Vec<u8> {
    let text = data_encoding::BASE64.encode(text.as_bytes());
    format!("\x1b]52;c;{text}\x1b\\").into_bytes()
}

/// A picture of the screen as lines that stay in the terminal's own history: no positions, only
/// letters and their looks.
pub(super) fn lines(buffer: &Buffer) -> Vec<u8> {
    let mut out = Vec::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let row = || (buffer.area.left()..buffer.area.right()).map(|x| &buffer[(x, y)]);
        let last = row().rposition(|cell| cell.symbol() != " " || !cell.modifier.is_empty());
        let mut look = String::new();
        let mut skip = 0;
        for cell in row().take(last.map_or(0, |at| at + 1)) {
            // The second half of a wide letter.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
            let this = attributes(cell);
            if this != look {
                out.extend_from_slice(format!("\x1b[0{this}m").as_bytes());
                look = this;
            }
            out.extend_from_slice(cell.symbol().as_bytes());
        }
        if !look.is_empty() {
            out.extend_from_slice(b"\x1b[0m");
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The attributes of a cell, each after a semicolon.
fn attributes(cell: &Cell) -> String {
    let mut look = String::new();
    for (modifier, code) in [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::ITALIC, ";3"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
    ] {
        if cell.modifier.contains(modifier) {
            look.push_str(code);
        }
    }
    if let Some(code) = colour(cell.fg) {
        look.push_str(&format!(";{code}"));
    }
    look
}

/// The code of one of the 16 colours; others are never used.
fn colour(colour: Color) -> Option<u8> {
    Some(match colour {
        Color::Black => 30,
        Color::Red => 31,
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Blue => 34,
        Color::Magenta => 35,
        Color::Cyan => 36,
        Color::Gray => 37,
        Color::DarkGray => 90,
        Color::LightRed => 91,
        Color::LightGreen => 92,
        Color::LightYellow => 93,
        Color::LightBlue => 94,
        Color::LightMagenta => 95,
        Color::LightCyan => 96,
        Color::White => 97,
        _ => return None,
    })
}
