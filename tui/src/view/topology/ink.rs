//! What the drawing of the fleet is made of: rails, pulses, frames, bars, each with its ASCII form,
//! and the one way to write them, which never leaves its area.

use fleet_contract::machine::MachineState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use crate::text;
use crate::theme::{Look, Role};

/// Eighths of a row, from little to much.
const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const ASCII_BARS: [&str; 8] = ["_", ".", ":", "-", "=", "+", "*", "#"];

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::view) enum Way {
    /// From the hub to a machine: jobs.
    Out,
    /// From a machine to the hub: records, output.
    Back,
}

fn pick(look: Look, unicode: &'static str, ascii: &'static str) -> &'static str {
    if look.ascii { ascii } else { unicode }
}

/// A rail on which messages can go; broken where none can.
pub(super) fn rail(look: Look, broken: bool) -> &'static str {
    match broken {
        true => pick(look, "╌", "."),
        false => pick(look, "─", "-"),
    }
}

/// A message on its way.
pub(super) fn pulse(look: Look, way: Way) -> &'static str {
    match way {
        Way::Out => pick(look, "▸", ">"),
        Way::Back => pick(look, "◂", "<"),
    }
}

/// How a pulse looks.
pub(super) fn pulse_style(look: Look, way: Way) -> Style {
    look.style(match way {
        Way::Out => Role::Accent,
        Way::Back => Role::Ok,
    })
}

/// The hub's frame: corners from the top left on, clockwise, then across and down.
pub(super) fn double(look: Look) -> [&'static str; 6] {
    match look.ascii {
        false => ["╔", "╗", "╝", "╚", "═", "║"],
        true => ["#", "#", "#", "#", "=", "#"],
    }
}

/// Where lanes leave the hub: from its frame, from its trunk, from the end of its trunk.
pub(super) fn joints(look: Look) -> [&'static str; 4] {
    match look.ascii {
        false => ["╟", "╠", "╚", "╦"],
        true => ["#", "#", "#", "#"],
    }
}

/// The end of a lane at a card's frame.
pub(super) fn socket(look: Look) -> &'static str {
    pick(look, "┤", "|")
}

/// A share of the whole, 0 to 1, as one cell.
pub(in crate::view) fn bar(look: Look, share: f32) -> &'static str {
    let bars = if look.ascii { ASCII_BARS } else { BARS };
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "of 0 to 1, in eighths"
    )]
    let at = (share * 7.99) as usize;
    bars[at.min(bars.len() - 1)]
}

/// A machine in one cell: what works on nothing is quieter than what works.
pub(super) fn cell(look: Look, state: MachineState, idle: bool) -> (&'static str, Role) {
    match (state, idle) {
        (MachineState::Up, true) => (pick(look, "∙", ","), Role::Dim),
        _ => look.machine(state),
    }
}

/// Machines of a state in a bar.
pub(super) fn block(look: Look, state: MachineState, idle: bool) -> (&'static str, Role) {
    let (_, role) = look.machine(state);
    match (state, idle) {
        (MachineState::Lost, _) => (pick(look, "✕", "X"), role),
        (MachineState::Stale, _) => (pick(look, "░", "~"), role),
        (MachineState::Degraded, _) => (pick(look, "▓", "%"), role),
        (MachineState::Draining | MachineState::Cordoned, _) => (pick(look, "▒", "/"), role),
        (MachineState::Offline, _) => (pick(look, "○", "o"), role),
        (MachineState::Up, false) => (pick(look, "━", "="), role),
        (MachineState::Up, true) => (pick(look, "∙", ","), Role::Dim),
    }
}

/// Writes text at a place of an area; what does not fit is not written. The column after it.
pub(in crate::view) fn put(
    buf: &mut Buffer,
    area: Rect,
    (x, y): (u16, u16),
    text: &str,
    style: Style,
) -> u16 {
    let area = area.intersection(buf.area);
    if x < area.x || x >= area.right() || y < area.y || y >= area.bottom() {
        return x;
    }
    let room = usize::from(area.right() - x);
    buf.set_stringn(x, y, text, room, style).0
}

/// Writes text that ends at a column; cut where the area begins.
pub(super) fn put_right(
    buf: &mut Buffer,
    area: Rect,
    (end, y): (u16, u16),
    text: &str,
    look: Look,
    style: Style,
) {
    let room = usize::from(end.saturating_sub(area.x));
    let text = text::clip(text, room, look.ellipsis());
    let width = u16::try_from(text.width()).unwrap_or(0);
    put(buf, area, (end.saturating_sub(width), y), &text, style);
}

/// `39/s`, `0.4/s`, `1.2k/s`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        r if !r.is_finite() || r <= 0.0 => "0/s".to_owned(),
        r if r < 9.95 && (r - r.round()).abs() > 0.05 => format!("{r:.1}/s"),
        r if r < 9_999.5 => format!("{r:.0}/s"),
        r if r < 9_999_500.0 => format!("{:.0}k/s", r / 1e3),
        r => format!("{:.0}M/s", r / 1e6),
    }
}

/// Bytes in a second.
pub(super) fn byte_rate(per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float saturates where it is cast"
    )]
    let bytes = per_second.max(0.0) as u64;
    format!("{}/s", text::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_and_exact_where_it_matters() {
        let rates = [0.0, 0.4, 2.0, 2.04, 39.4, 812.0, 12_345.0, f64::NAN];
        let words: Vec<_> = rates.into_iter().map(rate).collect();
        assert_eq!(
            words,
            [
                "0/s", "0.4/s", "2/s", "2/s", "39/s", "812/s", "12k/s", "0/s"
            ]
        );
    }

    #[test]
    fn every_glyph_takes_one_cell_and_has_an_ascii_form() {
        for ascii in [false, true] {
            let look = Look {
                colour: true,
                ascii,
            };
            let mut all: Vec<&str> = Vec::new();
            all.extend(double(look));
            all.extend(joints(look));
            all.extend([rail(look, true), rail(look, false), socket(look)]);
            all.extend([pulse(look, Way::Out), pulse(look, Way::Back)]);
            all.extend((0..=10).map(|n| bar(look, n as f32 / 10.0)));
            for state in MachineState::ALL {
                for idle in [false, true] {
                    all.extend([cell(look, state, idle).0, block(look, state, idle).0]);
                }
            }
            for glyph in all {
                assert_eq!(glyph.width(), 1, "{glyph}");
                assert!(!ascii || glyph.is_ascii(), "{glyph}");
            }
        }
    }
}
