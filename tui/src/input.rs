//! A line of text that is being typed: bounded, without control characters.

use crate::text;

/// Most characters of a line.
const MAX_CHARS: usize = 200;

/// Most characters of a paste that are looked at: those that are left out need no room.
const PASTE_MAX_CHARS: usize = 4 * MAX_CHARS;

/// The line, and where the next character goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TextLine {
    text: String,
    /// In bytes, at a character's beginning or the end.
    at: usize,
}

impl TextLine {
    /// A line with the cursor at its end.
    pub(crate) fn new(text: &str) -> Self {
        let mut line = Self::default();
        line.paste(text);
        line
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What is before the cursor, in columns.
    pub(crate) fn column(&self) -> usize {
        text::width(&self.text[..self.at])
    }

    /// Types a character; whether it had a place.
    pub(crate) fn insert(&mut self, c: char) -> bool {
        if text::is_unsafe(c) || self.text.chars().count() >= MAX_CHARS {
            return false;
        }
        self.text.insert(self.at, c);
        self.at += c.len_utf8();
        true
    }

    /// Takes a text as if it were typed: line ends and tabs become spaces, other control
    /// characters are left out.
    pub(crate) fn paste(&mut self, text: &str) {
        // However much it is, no more is looked at than there is room for.
        let mut room = MAX_CHARS.saturating_sub(self.text.chars().count());
        for c in text.chars().take(PASTE_MAX_CHARS) {
            if room == 0 {
                break;
            }
            let taken = self.insert(if matches!(c, '\n' | '\r' | '\t') {
                ' '
            } else {
                c
            });
            room -= usize::from(taken);
        }
    }

    /// Removes the character before the cursor.
    pub(crate) fn erase_before(&mut self) {
        if let Some((at, _)) = self.text[..self.at].char_indices().next_back() {
            self.text.remove(at);
            self.at = at;
        }
    }

    /// Removes the character at the cursor.
    pub(crate) fn erase_at(&mut self) {
        if self.at < self.text.len() {
            self.text.remove(self.at);
        }
    }

    /// Moves the cursor by one character.
    pub(crate) fn step(&mut self, right: bool) {
        let rest = &self.text[self.at..];
        let before = &self.text[..self.at];
        if right {
            self.at += rest.chars().next().map_or(0, char::len_utf8);
        } else {
            self.at -= before.chars().next_back().map_or(0, char::len_utf8);
        }
    }

    /// Moves the cursor to an end.
    pub(crate) fn jump(&mut self, end: bool) {
        self.at = if end { self.text.len() } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_edited_by_characters_and_stays_one_safe_line() {
        let mut line = TextLine::new("aß漢\n\x1b[2J\tz");
        assert_eq!(line.text(), "aß漢 [2J z");
        line.jump(false);
        line.step(true);
        line.erase_at();
        line.step(true);
        line.erase_before();
        assert_eq!(line.text(), "a [2J z");
        assert_eq!(line.column(), 1);
        line.step(false);
        line.step(false);
        line.erase_before();
        line.insert('q');
        assert_eq!(line.text(), "qa [2J z");
        line.jump(true);
        line.erase_at();
        line.step(true);
        line.paste(&"x".repeat(1000));
        assert_eq!(line.text().chars().count(), MAX_CHARS);
        let mut line = TextLine::default();
        line.paste(&format!("{}x", "\u{1b}".repeat(PASTE_MAX_CHARS)));
        assert_eq!(line.text(), "", "no more is looked at");
    }
}
