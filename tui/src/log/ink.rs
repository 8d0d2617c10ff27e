//! Colours of a job's output: the simple ones are shown in the person's own palette, all others are
//! left out. No background is ever taken over.

use crate::text;

/// Columns between two tab stops.
const TAB: usize = 8;

/// How output wants to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ink {
    /// One of the sixteen colours.
    pub(crate) colour: Option<u8>,
    /// Bold.
    pub(crate) bold: bool,
    /// Dim.
    pub(crate) dim: bool,
    /// Underlined.
    pub(crate) underline: bool,
}

impl Ink {
    /// Takes in the parameters of a colour sequence, `1;31`.
    fn take(&mut self, parameters: &str) {
        let mut codes = parameters
            .split([';', ':'])
            .map(|code| code.parse::<u8>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underline = false,
                30..=37 => self.colour = Some(code - 30),
                90..=97 => self.colour = Some(code - 90 + 8),
                39 => self.colour = None,
                // A colour of a bigger palette: of those only the first sixteen are the person's.
                38 => match codes.next() {
                    Some(5) => self.colour = codes.next().filter(|n| *n < 16),
                    _ => return,
                },
                48 => match codes.next() {
                    Some(5) => drop(codes.next()),
                    _ => return,
                },
                _ => {}
            }
        }
    }
}

/// A line of output made safe for a cell, and where its look changes, by byte.
pub(crate) type Inked = (String, Vec<(u32, Ink)>);

/// One line of a job's output: tabs become spaces, simple colours stand beside the text, everything
/// else that would be obeyed is shown. `ink` is how it goes on from the line before.
pub(crate) fn inked(bytes: &[u8], ink: &mut Ink) -> Inked {
    let mut line = String::new();
    let mut inks = Vec::new();
    if *ink != Ink::default() {
        inks.push((0, *ink));
    }
    // The column that this byte of the line is in.
    let (mut column, mut counted) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            if let Some((parameters, after)) = colour_sequence(rest) {
                rest = after;
                ink.take(parameters);
                inks.push((u32::try_from(line.len()).unwrap_or(u32::MAX), *ink));
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '\t' => {
                    column += text::width(&line[counted..]);
                    counted = line.len();
                    line.extend(std::iter::repeat_n(' ', TAB - column % TAB));
                }
                c if text::is_unsafe(c) => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    (line, inks)
}

/// The parameters of a colour sequence (`ESC [ … m`) that `text` begins with, and what follows it.
fn colour_sequence(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    let after = parameters[end..].strip_prefix('m')?;
    Some((&parameters[..end], after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: &[u8]) -> String {
        inked(bytes, &mut Ink::default()).0
    }

    #[test]
    fn output_is_shown_with_simple_colours_beside_it_and_with_its_escapes() {
        let mut ink = Ink::default();
        let (text, inks) = inked(b"\x1b[1;31mred\x1b[0m\tx\x1b[92m", &mut ink);
        assert_eq!(text, "red     x");
        let red = Ink {
            colour: Some(1),
            bold: true,
            ..Ink::default()
        };
        let green = Ink {
            colour: Some(10),
            ..Ink::default()
        };
        assert_eq!(inks, [(0, red), (3, Ink::default()), (9, green)]);
        // The next line goes on as this one ended.
        assert_eq!(inked(b"on", &mut ink).1, [(0, green)]);
        assert_eq!(plain(b"\x1b[2Jx\x1b["), "\\u{1b}[2Jx\\u{1b}[");
        assert_eq!(plain(b"10%\r20% \xff"), "10%\\r20% \\xff");
        assert_eq!(plain("漢\tx".as_bytes()), "漢      x");
    }

    #[test]
    fn a_colour_of_a_bigger_palette_and_a_background_are_left_out() {
        for (sequence, colour) in [
            ("38;5;3", Some(3)),
            ("38;5;208", None),
            ("38;2;1;2;3", None),
            ("41", None),
            ("48;5;1", None),
            ("31;48;5;2;32", Some(2)),
        ] {
            let mut ink = Ink::default();
            let text = format!("\x1b[{sequence}mx");
            assert_eq!(inked(text.as_bytes(), &mut ink).0, "x");
            assert_eq!(ink.colour, colour, "{sequence}");
        }
    }
}
