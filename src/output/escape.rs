//! What a job wrote, made safe for a terminal: text, newlines, tabs and colours pass, every other
//! control sequence is shown instead of obeyed. A small state machine, because a chunk may end in
//! the middle of a sequence or of a character. Pure.

/// Longest colour sequence that passes, in bytes; a longer one is shown.
const COLOUR_MAX: usize = 64;

/// Turns a stream of bytes into what a terminal may receive. One per output stream of a job.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    /// The beginning of a sequence or character whose end has not come yet.
    pending: Vec<u8>,
    /// Whether a colour passed that was not reset since.
    coloured: bool,
}

/// What the pending bytes are.
enum Step {
    /// The beginning of something.
    More,
    /// Whole, and it passes.
    Pass,
    /// The first byte can never be part of what passes: show it, and look at the rest anew.
    Show,
}

impl Escaper {
    /// Appends to `out` what these bytes become.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.pending.push(byte);
            self.settle(out);
        }
    }

    /// Appends what is left when the stream has ended, and ends its colours.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        for byte in std::mem::take(&mut self.pending) {
            show(byte, out);
        }
        if std::mem::take(&mut self.coloured) {
            out.extend_from_slice(b"\x1b[0m");
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        while !self.pending.is_empty() {
            match step(&self.pending) {
                Step::More => return,
                Step::Pass => {
                    if self.pending[0] == 0x1b {
                        self.coloured = !matches!(self.pending.as_slice(), b"\x1b[m" | b"\x1b[0m");
                    }
                    out.append(&mut self.pending);
                }
                Step::Show => show_first(&mut self.pending, out),
            }
        }
    }
}

fn step(bytes: &[u8]) -> Step {
    match bytes {
        [b'\n' | b'\t'] => Step::Pass,
        // A carriage return moves the cursor, unless a newline follows at once.
        [b'\r'] => Step::More,
        [b'\r', b'\n'] => Step::Pass,
        [0x1b, rest @ ..] => colour(rest),
        [0x20..=0x7e] => Step::Pass,
        [0..=0x7f, ..] => Step::Show,
        // The C1 controls, U+0080 to U+009F, are control sequences too.
        [0xc2, 0x80..=0x9f] => Step::Show,
        _ => match std::str::from_utf8(bytes) {
            Ok(_) => Step::Pass,
            Err(e) if e.error_len().is_none() => Step::More,
            Err(_) => Step::Show,
        },
    }
}

/// After ESC: `[`, digits with `;` or `:`, and `m`.
fn colour(rest: &[u8]) -> Step {
    match rest {
        [] => Step::More,
        [b'[', parameters @ ..] => {
            if rest.len() >= COLOUR_MAX {
                return Step::Show;
            }
            match parameters.split_last() {
                None => Step::More,
                Some((b'm', _)) => Step::Pass,
                Some((b'0'..=b'9' | b';' | b':', _)) => Step::More,
                Some(_) => Step::Show,
            }
        }
        _ => Step::Show,
    }
}

/// Shows the first character of `pending` and takes it off.
fn show_first(pending: &mut Vec<u8>, out: &mut Vec<u8>) {
    if let [0xc2, c1 @ 0x80..=0x9f] = pending.as_slice() {
        out.extend_from_slice(format!("\\u{{{c1:x}}}").as_bytes());
        pending.clear();
    } else {
        show(pending.remove(0), out);
    }
}

fn show(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\r' => out.extend_from_slice(b"\\r"),
        0x20..=0x7e => out.push(byte),
        _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    }
}

/// A text for one line of a table or message: every control character is shown.
pub(crate) fn one_line(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        let mut escaper = Escaper::default();
        escaper.push(bytes, &mut out);
        escaper.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_colour_newline_and_tab_pass() {
        let text = "a\tb\r\nc äöü 漢字 🚀\n\x1b[1;38:5:200mred\x1b[0m done\n";
        assert_eq!(whole(text.as_bytes()), text);
        assert_eq!(whole(b"\x1b[31mred"), "\x1b[31mred\x1b[0m");
    }

    #[test]
    fn every_other_control_sequence_is_shown() {
        assert_eq!(whole(b"\x1b[2J\x1b[H"), "\\x1b[2J\\x1b[H");
        assert_eq!(whole(b"\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(whole(b"\x1bPq\x1b\\"), "\\x1bPq\\x1b\\");
        assert_eq!(whole(b"10%\r20%"), "10%\\r20%");
        assert_eq!(whole(b"\0\x08\x7f"), "\\x00\\x08\\x7f");
        assert_eq!(whole("\u{9b}2J".as_bytes()), "\\u{9b}2J");
        assert_eq!(whole(b"\x9b2J \xff\xc3"), "\\x9b2J \\xff\\xc3");
        assert_eq!(whole(b"\x1b[?25l"), "\\x1b[?25l");
        assert_eq!(whole(b"\x1b"), "\\x1b");
        assert_eq!(whole(b"\xe4\xb8\x1b[31mx"), "\\xe4\\xb8\x1b[31mx\x1b[0m");
        let long = format!("\x1b[{}m", "1;".repeat(COLOUR_MAX));
        assert!(!whole(long.as_bytes()).contains('\x1b'));
    }

    #[test]
    fn where_chunks_are_split_changes_nothing() {
        let bytes = "a\x1b[1;31mred\x1b[0m\r\n\x1b[2J漢\u{9b}x\x1b\x1b[32m\r".as_bytes();
        let expected = whole(bytes);
        for at in 0..=bytes.len() {
            let mut out = Vec::new();
            let mut escaper = Escaper::default();
            escaper.push(&bytes[..at], &mut out);
            escaper.push(&bytes[at..], &mut out);
            escaper.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "split at {at}");
        }
    }

    #[test]
    fn a_line_of_a_table_stays_a_line() {
        assert_eq!(one_line("a\nb\x1b[31m\u{9b}"), "a\\nb\\u{1b}[31m\\u{9b}");
        assert_eq!(one_line("ä ok"), "ä ok");
    }
}
