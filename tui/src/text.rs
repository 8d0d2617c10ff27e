//! Text that is safe in a cell and fits it. Everything that a peer wrote passes through here.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Characters that move the cursor, hide or turn round what is beside them.
pub(crate) fn is_unsafe(c: char) -> bool {
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

/// The bytes of `text` that stand in `width` columns from column `from` on, and how many columns are
/// empty before them because a wide character begins further left.
pub(crate) fn columns(text: &str, from: usize, width: usize) -> (std::ops::Range<usize>, usize) {
    let mut used = 0;
    let mut start = None;
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        let wide = c.width().unwrap_or(0);
        if start.is_none() && used >= from {
            start = Some((at, used));
        }
        used += wide;
        if used > from + width {
            end = at;
            break;
        }
    }
    let (start, column) = start.unwrap_or((text.len(), from));
    (start..end.max(start), (column - from).min(width))
}

/// The rows of a text that goes on below, by byte: broken between words where that can be.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<std::ops::Range<usize>> {
    let width = width.max(2);
    let mut rows = Vec::new();
    let (mut from, mut used) = (0, 0);
    // The end of the last word that fits, and where the next one begins.
    let mut gap: Option<(usize, usize)> = None;
    for (at, c) in text.char_indices() {
        let wide = c.width().unwrap_or(0);
        if c == ' ' && used <= width {
            gap = Some((at, at + 1));
        } else if used + wide > width {
            let (end, next) = gap.filter(|(end, _)| *end > from).unwrap_or((at, at));
            rows.push(from..end);
            (from, used) = (next, text[next..at].width());
            gap = None;
        }
        used += wide;
    }
    rows.push(from..text.len());
    rows
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
    fn prose_goes_on_below_between_words() {
        let rows = |text: &str, width| -> Vec<String> {
            wrap(text, width)
                .into_iter()
                .map(|r| text[r].to_owned())
                .collect()
        };
        assert_eq!(
            rows("its connection closed", 14),
            ["its connection", "closed"]
        );
        assert_eq!(rows("a verylongword b", 6), ["a", "verylo", "ngword", "b"]);
        assert_eq!(rows("漢字 漢字", 5), ["漢字", "漢字"]);
        assert_eq!(rows("", 5), [""]);
        for width in 0..20 {
            for text in ["why why why", "x", "  a  b ", "漢a字 b漢字字字 c"] {
                let rows = wrap(text, width);
                assert!(
                    rows.iter()
                        .all(|r| text[r.clone()].trim().width() <= width.max(2))
                );
                let kept: String = rows.iter().map(|r| &text[r.clone()]).collect();
                assert_eq!(kept.replace(' ', ""), text.replace(' ', ""), "{width}");
            }
        }
    }

    #[test]
    fn what_is_cut_says_so_and_never_takes_more_than_it_may() {
        assert_eq!(clip("abcdef", 4, "…"), "abc…");
        assert_eq!(clip("漢字漢字", 4, "…"), "漢…");
        assert_eq!(clip("abc", 0, "…"), "");
        for width in 0..12 {
            assert!(clip("漢字a漢字b", width, "…").width() <= width);
        }
        assert_eq!(columns("abcdef", 2, 3), (2..5, 0));
        assert_eq!(columns("abcdef", 9, 3), (6..6, 0));
        assert_eq!(columns("漢字a", 1, 3), (3..6, 1));
        assert_eq!(columns("漢字a", 1, 2), (3..3, 1));
        assert_eq!(thousands(88_231), "88,231");
        assert_eq!(thousands(999), "999");
    }
}
