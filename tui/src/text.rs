//! Text that is safe in a cell and fits it. Everything that a peer wrote passes through here.

use std::borrow::Cow;

use ratatui::buffer::CellWidth;
use unicode_segmentation::UnicodeSegmentation;

/// Characters that move the cursor, hide or turn round what is beside them, or are not seen.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Hyphens that are not there, marks of direction and of grammar.
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}'
            // Letters that are blank.
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            // Notes between the lines, and tags.
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
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

/// The letters of a text as they are drawn, each with where it begins and how many columns it
/// takes: a character with all that changes it. What one takes is no sum over its characters.
fn letters(text: &str) -> impl Iterator<Item = (usize, &str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = at;
        let rest = &text[from..];
        // Only what is not ASCII ever changes the character before it.
        let plain = match rest.as_bytes() {
            [] => return None,
            [first, second, ..] => first.is_ascii() && second.is_ascii(),
            [_] => true,
        };
        let letter = if plain {
            &rest[..1]
        } else {
            rest.graphemes(true).next()?
        };
        at += letter.len();
        let wide = match letter.contains(char::is_control) {
            // Never drawn.
            true => 0,
            false => usize::from(letter.cell_width()),
        };
        Some((from, letter, wide))
    })
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    letters(text).map(|(.., wide)| wide).sum()
}

/// The spaces that make a text as wide as its column.
pub(crate) fn pad(text: &str, column: usize) -> String {
    " ".repeat(column.saturating_sub(width(text)))
}

/// As much of `text` as fits `width` columns; where something is cut, the last column says so.
pub(crate) fn clip(text: &str, width: usize, ellipsis: &str) -> String {
    let room = width.saturating_sub(self::width(ellipsis));
    let (mut used, mut cut) = (0, 0);
    for (at, letter, wide) in letters(text) {
        used += wide;
        if used > width {
            let fits = self::width(ellipsis) <= width;
            return text[..cut].to_owned() + if fits { ellipsis } else { "" };
        }
        if used <= room {
            cut = at + letter.len();
        }
    }
    text.to_owned()
}

/// The bytes of `text` that stand in `width` columns from column `from` on, and how many columns are
/// empty before them because a wide letter begins further left.
pub(crate) fn columns(text: &str, from: usize, width: usize) -> (std::ops::Range<usize>, usize) {
    let mut used = 0;
    let mut start = None;
    let mut end = text.len();
    for (at, _, wide) in letters(text) {
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

/// Where the rows of a text that goes on below are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Where the width is used up.
    Anywhere,
    /// Between words, where that can be; the space is in no row.
    Words,
}

/// The rows of a text that goes on below, by byte: broken between words where that can be.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<std::ops::Range<usize>> {
    rows(text, width, Break::Words)
}

/// The rows of a text that goes on below, by byte; at least one.
pub(crate) fn rows(text: &str, width: usize, at_a: Break) -> Vec<std::ops::Range<usize>> {
    let width = width.max(2);
    let mut rows = Vec::new();
    let (mut from, mut used) = (0, 0);
    // The end of the last word that fits, where the next one begins, and what is used up to there.
    let mut gap: Option<(usize, usize, usize)> = None;
    for (at, letter, wide) in letters(text) {
        if at_a == Break::Words && letter == " " && used <= width {
            gap = Some((at, at + 1, used + 1));
        } else if used + wide > width && at > from {
            let (end, next, before) = gap
                .filter(|(end, ..)| *end > from)
                .unwrap_or((at, at, used));
            rows.push(from..end);
            (from, used) = (next, used - before);
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
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    /// Texts of what takes another width together than apart, among others.
    fn odd() -> impl Strategy<Value = String> {
        let pieces = [
            "\u{26a0}\u{fe0f}",
            "\u{2764}\u{fe0f}",
            "1\u{fe0f}\u{20e3}",
            "\u{26a0}\u{fe0e}",
            "\u{fe0f}",
            "e\u{301}",
            "\u{301}",
            "\u{1f1e9}",
            "\u{1f469}\u{1f3fd}",
            "\u{644}\u{627}",
            "\u{ff76}\u{ff9e}",
            "\u{1100}\u{1100}\u{1161}",
            "\u{915}\u{94d}\u{937}",
            "漢",
            "a",
            " ",
        ];
        let piece = prop_oneof![
            proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_is_wider_than_its_column(text in odd(), column in 0_usize..20) {
            let text = escape(&text);
            let cut = clip(&text, column, "…");
            prop_assert!(width(&cut) <= column, "{cut:?}");
            prop_assert_eq!(width(&(pad(&cut, column) + &cut)), column);
            // As wide as it is drawn.
            let area = ratatui::layout::Rect::new(0, 0, 400, 1);
            let mut buffer = ratatui::buffer::Buffer::empty(area);
            let (end, _) = buffer.set_stringn(0, 0, &text, 400, ratatui::style::Style::new());
            prop_assert_eq!(width(&text), usize::from(end));
            for row in rows(&text, column, Break::Anywhere) {
                let alone = letters(&text[row.clone()]).count() == 1;
                prop_assert!(alone || width(&text[row]) <= column.max(2));
            }
        }
    }

    #[test]
    fn what_a_peer_wrote_cannot_move_the_cursor() {
        assert_eq!(escape("a\x1b[2J\n\u{9b}b"), "a\\u{1b}[2J\\n\\u{9b}b");
        assert_eq!(escape("safe\u{202e}exe"), "safe\\u{202e}exe");
        assert_eq!(escape("ä 漢"), "ä 漢");
        for hidden in
            "\u{ad}\u{115f}\u{1160}\u{3164}\u{ffa0}\u{180e}\u{fff9}\u{fffb}\u{e0041}\u{e007f}"
                .chars()
        {
            let text = escape(&format!("stu{hidden}dio")).into_owned();
            assert!(text.is_ascii() && text.contains("\\u{"), "{text}");
        }
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
