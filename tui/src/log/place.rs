//! Where the person is in a log: a line by its number, and a row of it where lines are broken.
//! Numbers never change, so what is read stays where it is, whatever comes or falls out.

use std::ops::Range;

use super::Log;
use crate::text;

/// The first row on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// The line's number, from 0.
    pub(crate) line: u64,
    /// The row of it, from 0.
    pub(crate) row: usize,
}

impl Place {
    /// The beginning of a line.
    pub(crate) fn of(line: u64) -> Self {
        Self { line, row: 0 }
    }
}

/// The rows of a text that is broken at `width` columns, by byte; at least one. Without a width it
/// is one row.
pub(crate) fn rows(text: &str, width: Option<usize>) -> Vec<Range<usize>> {
    match width {
        Some(width) => text::rows(text, width, text::Break::Anywhere),
        None => std::iter::once(0..text.len()).collect(),
    }
}

impl Log {
    fn row_count(&self, no: u64, width: Option<usize>) -> usize {
        match width {
            None => 1,
            Some(_) => self.line(no).map_or(1, |l| rows(&l.text, width).len()),
        }
    }

    /// The place that shows the end in so many rows; `width` is none where lines are not broken.
    pub(crate) fn end(&self, height: usize, width: Option<usize>) -> Place {
        let mut left = height.max(1);
        let mut no = self.len();
        while no > self.dropped() {
            no -= 1;
            let rows = self.row_count(no, width);
            if rows >= left {
                return Place {
                    line: no,
                    row: rows - left,
                };
            }
            left -= rows;
        }
        Place::of(self.dropped())
    }

    /// `by` rows below `from`, or above where it is negative; never before what is kept.
    pub(crate) fn step(&self, from: Place, by: i64, width: Option<usize>) -> Place {
        let first = Place::of(self.dropped());
        let mut at = from.max(first);
        let mut left = by.unsigned_abs();
        if width.is_none() {
            let line = at.line.saturating_add_signed(by);
            let last = self.len().saturating_sub(1).max(self.dropped());
            return Place::of(line.clamp(self.dropped(), last));
        }
        while left > 0 {
            let to = if by < 0 {
                self.above(at, width)
            } else {
                self.below(at, width)
            };
            let Some(to) = to else { break };
            at = to;
            left -= 1;
        }
        at
    }

    fn above(&self, at: Place, width: Option<usize>) -> Option<Place> {
        if at.row > 0 {
            return Some(Place {
                row: at.row - 1,
                ..at
            });
        }
        let line = at.line.checked_sub(1).filter(|no| *no >= self.dropped())?;
        Some(Place {
            line,
            row: self.row_count(line, width) - 1,
        })
    }

    fn below(&self, at: Place, width: Option<usize>) -> Option<Place> {
        if at.row + 1 < self.row_count(at.line, width) {
            return Some(Place {
                row: at.row + 1,
                ..at
            });
        }
        (at.line + 1 < self.len()).then(|| Place::of(at.line + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_at_the_width_and_no_wide_letter_in_two() {
        assert_eq!(rows("abcdef", Some(4)), [0..4, 4..6]);
        assert_eq!(rows("漢字漢", Some(5)), [0..6, 6..9]);
        assert_eq!(rows("", Some(5)), std::slice::from_ref(&(0..0)));
        assert_eq!(rows("abc", None), std::slice::from_ref(&(0..3)));
        for width in 0..9 {
            let text = "漢a字bc".repeat(9);
            let rows = rows(&text, Some(width));
            assert_eq!(
                rows.iter().map(|r| &text[r.clone()]).collect::<String>(),
                text
            );
        }
    }
}
