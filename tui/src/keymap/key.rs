//! One key: how it is written, and which press of the keyboard it is. Nothing is on Alt, which
//! terminals and multiplexers take for themselves.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// How a free character is written in the table: `m <char>`.
pub(crate) const ANY: &str = "<char>";

/// Keys that are called by their names.
const NAMED: &[(&str, KeyCode)] = &[
    ("Enter", KeyCode::Enter),
    ("Esc", KeyCode::Esc),
    ("Tab", KeyCode::Tab),
    ("Shift-Tab", KeyCode::BackTab),
    ("Backspace", KeyCode::Backspace),
    ("Delete", KeyCode::Delete),
    ("Insert", KeyCode::Insert),
    ("Up", KeyCode::Up),
    ("Down", KeyCode::Down),
    ("Left", KeyCode::Left),
    ("Right", KeyCode::Right),
    ("PageUp", KeyCode::PageUp),
    ("PageDown", KeyCode::PageDown),
    ("Home", KeyCode::Home),
    ("End", KeyCode::End),
    ("Space", KeyCode::Char(' ')),
];

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A key by its code; shift is in the character itself.
    Plain(KeyCode),
    /// With Ctrl.
    Ctrl(char),
    /// In the table only: any character.
    Any,
}

impl Key {
    /// The key that was pressed; none for a release, and for what no table can hold.
    pub(crate) fn pressed(event: &KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release || event.modifiers.contains(KeyModifiers::ALT) {
            return None;
        }
        match event.code {
            KeyCode::Char(c) if event.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Self::Ctrl(c.to_ascii_lowercase()))
            }
            KeyCode::Char(c) => Some(Self::Plain(KeyCode::Char(c))),
            // Terminals tell Shift-Tab in two ways.
            KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => {
                Some(Self::Plain(KeyCode::BackTab))
            }
            code => NAMED
                .iter()
                .any(|(_, named)| *named == code)
                .then_some(Self::Plain(code)),
        }
    }

    /// The key that is written so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name == ANY {
            return Some(Self::Any);
        }
        if let Some((_, code)) = NAMED.iter().find(|(named, _)| *named == name) {
            return Some(Self::Plain(*code));
        }
        let one = |text: &str| {
            let mut chars = text.chars();
            let c = chars.next().filter(|c| !c.is_control() && *c != ' ')?;
            chars.next().is_none().then_some(c)
        };
        if let Some(c) = name.strip_prefix("Ctrl-").and_then(one) {
            return Some(Self::Ctrl(c.to_ascii_lowercase()));
        }
        one(name).map(|c| Self::Plain(KeyCode::Char(c)))
    }

    /// The keys of a sequence, `g m`; none where one of them is no key.
    pub(crate) fn sequence(text: &str) -> Option<Vec<Self>> {
        let keys: Option<Vec<Self>> = text.split(' ').map(Self::named).collect();
        keys.filter(|keys| !keys.is_empty())
    }

    /// The character that it types, if it types one.
    pub(crate) fn character(self) -> Option<char> {
        match self {
            Self::Plain(KeyCode::Char(c)) => Some(c),
            _ => None,
        }
    }

    /// Whether a press of `pressed` is this key of the table.
    pub(crate) fn is(self, pressed: Self) -> bool {
        self == pressed || (self == Self::Any && pressed.character().is_some())
    }

    /// Whether one press can be both.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.is(other) || other.is(self)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Ctrl(c) => write!(f, "Ctrl-{c}"),
            Self::Plain(code) => match (NAMED.iter().find(|(_, named)| named == code), code) {
                (Some((name, _)), _) => f.write_str(name),
                (None, KeyCode::Char(c)) => write!(f, "{c}"),
                (None, _) => Ok(()),
            },
        }
    }
}

/// A sequence as people read it: `gm`, `Ctrl-c`, `m<char>`.
pub(crate) fn shown(keys: &[Key]) -> String {
    keys.iter().map(Key::to_string).collect()
}
