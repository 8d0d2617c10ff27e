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
        if self.is_in(text) {
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

    /// How many lines have it, and which of them the person is at, from 1. `open` are those that
    /// have not ended yet and have it.
    pub(crate) fn found(&self, open: &[u64]) -> (usize, Option<usize>) {
        let count = self.lines.len() + open.len();
        let rank = self.at.and_then(|at| {
            let ended = self.lines.binary_search(&at).ok();
            let open = || open.iter().position(|no| *no == at);
            ended.or_else(|| open().map(|no| self.lines.len() + no))
        });
        (count, rank.map(|rank| rank + 1))
    }

    /// Goes to the first line that has it.
    pub(crate) fn first(&mut self, open: &[u64]) -> Option<u64> {
        self.at = self.lines.front().or(open.first()).copied();
        self.at
    }

    /// Goes to the next line after `from` that has it, or the one before; round the end.
    pub(crate) fn step(&mut self, from: u64, forward: bool, open: &[u64]) -> Option<u64> {
        let after = self.lines.partition_point(|no| *no <= from);
        let before = self.lines.partition_point(|no| *no < from);
        // Lines that have not ended come after all that have.
        let to = if forward {
            let next = self.lines.get(after);
            next.or_else(|| open.iter().find(|no| **no > from))
                .or_else(|| self.lines.front())
                .or_else(|| open.first())
        } else {
            let last = open.iter().rev().find(|no| **no < from);
            last.or_else(|| before.checked_sub(1).and_then(|at| self.lines.get(at)))
                .or_else(|| open.last())
                .or_else(|| self.lines.back())
        };
        self.at = to.copied();
        self.at
    }

    /// Whether a text has it.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        !self.wanted.is_empty() && find(text, &self.wanted).is_some()
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
        assert_eq!(search.step(2, true, &[]), Some(7));
        assert_eq!(search.found(&[]), (200, Some(2)));
        assert_eq!(search.step(7, false, &[]), Some(2));
        assert_eq!(search.step(2, false, &[]), Some(997));
        assert_eq!(search.step(997, true, &[]), Some(2));
        // A line that has not ended is one of them.
        assert_eq!(search.step(997, true, &[1000]), Some(1000));
        assert_eq!(search.found(&[1000]), (201, Some(201)));
        assert_eq!(search.step(1000, true, &[1000]), Some(2));
        assert_eq!(search.step(2, false, &[1000]), Some(1000));
        assert_eq!(search.step(1000, false, &[1000]), Some(997));
        search.forget_before(500);
        assert_eq!(search.found(&[]), (100, Some(100)));
        assert_eq!(Search::new("no").step(0, true, &[]), None);
        assert_eq!(Search::new("no").first(&[4]), Some(4));
    }
}
