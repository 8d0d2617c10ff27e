//! Text that is safe in a cell and fits it. Everything that a peer wrote passes through here.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns between two tab stops.
const TAB: usize = 8;

/// Characters that move the cursor, hide or turn round what is beside them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A text for one line: what would be obeyed is shown instead.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut line, c| {
        if is_unsafe(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    }))
}

/// One line of a job's output: tabs become spaces, colours are left out, everything else that
/// would be obeyed is shown.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let mut line = String::new();
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            if let Some(after) = without_colour(rest) {
                rest = after;
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '\t' => {
                    let to_stop = TAB - line.width() % TAB;
                    line.extend(std::iter::repeat_n(' ', to_stop));
                }
                c if is_unsafe(c) => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    line
}

/// What follows a colour sequence (`ESC [ … m`) that `text` begins with.
fn without_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].strip_prefix('m')
}

/// As much of `text` as fits `width` columns; where something is cut, the last column says so.
pub(crate) fn clip(text: &str, width: usize, ellipsis: &str) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(ellipsis.width());
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        out.push(c);
    }
    if ellipsis.width() <= width {
        out.push_str(ellipsis);
    }
    out
}

/// `text` without its first `columns` columns.
pub(crate) fn skip(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        if used >= columns {
            return &text[at..];
        }
        used += c.width().unwrap_or(0);
    }
    ""
}

/// `1,204`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in at most four digits and a unit of 1024.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut left = size;
    while left >= 1024 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{left} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_cannot_move_the_cursor() {
        assert_eq!(escape("a\x1b[2J\n\u{9b}b"), "a\\u{1b}[2J\\n\\u{9b}b");
        assert_eq!(escape("safe\u{202e}exe"), "safe\\u{202e}exe");
        assert_eq!(escape("ä 漢"), "ä 漢");
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = escape(&c.to_string()).into_owned();
            assert!(!text.chars().any(|c| c.is_control()), "{c:?}");
        }
    }

    #[test]
    fn output_is_shown_without_its_colours_and_with_its_escapes() {
        assert_eq!(clean(b"\x1b[1;31mred\x1b[0m\tx"), "red     x");
        assert_eq!(clean(b"\x1b[2Jx\x1b["), "\\u{1b}[2Jx\\u{1b}[");
        assert_eq!(clean(b"10%\r20% \xff"), "10%\\r20% \\xff");
    }

    #[test]
    fn what_is_cut_says_so_and_never_takes_more_than_it_may() {
        assert_eq!(clip("abcdef", 4, "…"), "abc…");
        assert_eq!(clip("漢字漢字", 4, "…"), "漢…");
        assert_eq!(clip("abc", 0, "…"), "");
        for width in 0..12 {
            assert!(clip("漢字a漢字b", width, "…").width() <= width);
        }
        assert_eq!(skip("abcdef", 2), "cdef");
        assert_eq!(thousands(88_231), "88,231");
        assert_eq!(thousands(999), "999");
    }
}
