//! Finds lines of a log: every match that is kept is known, so the count is exact.

use std::collections::VecDeque;
use std::ops::Range;

/// Matches of one line that are told apart; a line of thousands of them needs no more on screen.
const IN_LINE_MAX: usize = 64;

/// What is looked for, and the lines that have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Search {
    wanted: String,
    /// Numbers of the lines that have it, in order.
    lines: VecDeque<u64>,
    /// The line that the person is at.
    pub(crate) at: Option<u64>,
}

impl Search {
    /// Nothing found yet.
    #[allow(dead_code, reason = "there as soon as there are keys for it")]
    pub(crate) fn new(wanted: &str) -> Self {
        Self {
            wanted: wanted.to_owned(),
            ..Self::default()
        }
    }

    /// What is looked for.
    pub(crate) fn wanted(&self) -> &str {
        &self.wanted
    }

    /// Takes in the next line.
    pub(crate) fn look(&mut self, no: u64, text: &str) {
        if !self.wanted.is_empty() && find(text, &self.wanted).is_some() {
            self.lines.push_back(no);
        }
    }

    /// Lines before this one are no longer kept.
    pub(crate) fn forget_before(&mut self, no: u64) {
        while self.lines.front().is_some_and(|first| *first < no) {
            self.lines.pop_front();
        }
        self.at = self.at.filter(|at| *at >= no);
    }

    /// How many lines have it.
    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Which of them the person is at, from 1.
    pub(crate) fn rank(&self) -> Option<usize> {
        let at = self.at?;
        let found = self.lines.binary_search(&at).ok()?;
        Some(found + 1)
    }

    /// Goes to the first line that has it.
    #[allow(dead_code, reason = "there as soon as there are keys for it")]
    pub(crate) fn first(&mut self) -> Option<u64> {
        self.at = self.lines.front().copied();
        self.at
    }

    /// Goes to the next line after `from` that has it, or the one before; round the end.
    #[allow(dead_code, reason = "there as soon as there are keys for it")]
    pub(crate) fn step(&mut self, from: u64, forward: bool) -> Option<u64> {
        let after = self.lines.partition_point(|no| *no <= from);
        let before = self.lines.partition_point(|no| *no < from);
        let to = if forward {
            self.lines.get(after).or_else(|| self.lines.front())
        } else {
            before
                .checked_sub(1)
                .and_then(|at| self.lines.get(at))
                .or_else(|| self.lines.back())
        };
        self.at = to.copied();
        self.at
    }

    /// Where it is in a text, by byte.
    pub(crate) fn places(&self, text: &str) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        let mut from = 0;
        while let Some(at) = find(&text[from..], &self.wanted) {
            let start = from + at;
            let end = start + self.wanted.len();
            places.push(start..end);
            from = end;
            if places.len() >= IN_LINE_MAX || self.wanted.is_empty() {
                break;
            }
        }
        places
    }
}

/// Where `wanted` begins in `text`. Letters of ASCII match in both cases unless `wanted` has a
/// capital one.
fn find(text: &str, wanted: &str) -> Option<usize> {
    if wanted.bytes().any(|b| b.is_ascii_uppercase()) {
        return text.find(wanted);
    }
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let first = *wanted.first()?;
    let other = first.to_ascii_uppercase();
    let last = text.len().checked_sub(wanted.len())?;
    (0..=last).find(|at| {
        (text[*at] == first || text[*at] == other)
            && text[*at..*at + wanted.len()].eq_ignore_ascii_case(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_find_both_and_a_capital_one_only_itself() {
        assert_eq!(find("An Error", "error"), Some(3));
        assert_eq!(find("An error", "Error"), None);
        assert_eq!(find("漢字 ß", "字"), Some(3));
        assert_eq!(find("x", "xx"), None);
        let search = Search::new("ab");
        assert_eq!(search.places("abAB b"), [0..2, 2..4]);
    }

    #[test]
    fn the_count_is_exact_and_steps_go_round() {
        let mut search = Search::new("x");
        for no in 0..1000 {
            search.look(no, if no % 5 == 2 { "ax" } else { "a" });
        }
        assert_eq!(search.count(), 200);
        assert_eq!(search.step(2, true), Some(7));
        assert_eq!(search.rank(), Some(2));
        assert_eq!(search.step(7, false), Some(2));
        assert_eq!(search.step(2, false), Some(997));
        assert_eq!(search.step(997, true), Some(2));
        search.forget_before(500);
        assert_eq!((search.count(), search.at), (100, None));
        assert_eq!(Search::new("no").step(0, true), None);
    }
}
