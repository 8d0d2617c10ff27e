//! What keys do: one table, from which the lookup, the footer and the help are made.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key does. None of them changes anything but what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Screen(u8),
    Next,
    Previous,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Left,
    Right,
    Open,
    Back,
    Follow,
    Help,
}

/// Where a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everywhere.
    Anywhere,
    /// In a job's or a machine's detail.
    Detail,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The keys, as they are written in the help.
    pub(crate) keys: &'static [&'static str],
    /// What they do.
    pub(crate) action: Action,
    /// Where.
    pub(crate) place: Place,
    /// In words.
    pub(crate) help: &'static str,
    /// In one word, for the footer; empty for none.
    pub(crate) short: &'static str,
}

const fn bind(
    keys: &'static [&'static str],
    action: Action,
    help: &'static str,
    short: &'static str,
) -> Binding {
    Binding {
        keys,
        action,
        place: Place::Anywhere,
        help,
        short,
    }
}

const fn in_detail(keys: &'static [&'static str], action: Action, help: &'static str) -> Binding {
    Binding {
        keys,
        action,
        place: Place::Detail,
        help,
        short: "",
    }
}

/// The table.
pub(crate) const KEYMAP: &[Binding] = &[
    bind(
        &["q", "Ctrl-c"],
        Action::Quit,
        "leave the console; nothing else stops",
        "quit",
    ),
    bind(
        &["?"],
        Action::Help,
        "these keys; again, or Esc, closes them",
        "keys",
    ),
    bind(
        &["Tab"],
        Action::Next,
        "the next pane, after the last one the next screen",
        "next",
    ),
    bind(
        &["Shift-Tab"],
        Action::Previous,
        "the pane or screen before",
        "",
    ),
    bind(
        &["1"],
        Action::Screen(0),
        "Fleet: machines, dispatches and events",
        "",
    ),
    bind(
        &["2"],
        Action::Screen(1),
        "Dispatches: every job, worst first",
        "",
    ),
    bind(
        &["3"],
        Action::Screen(2),
        "Machines: every machine, worst first",
        "",
    ),
    bind(
        &["4"],
        Action::Screen(3),
        "Events: what happened, newest first",
        "",
    ),
    bind(&["Up", "k"], Action::Up, "the row above", ""),
    bind(&["Down", "j"], Action::Down, "the row below", "move"),
    bind(&["PageUp"], Action::PageUp, "a page up", ""),
    bind(&["PageDown"], Action::PageDown, "a page down", ""),
    bind(&["Home", "g"], Action::First, "the first row", ""),
    bind(&["End", "G"], Action::Last, "the last row", ""),
    bind(
        &["Enter"],
        Action::Open,
        "open what is selected: a job with its log, or a machine",
        "open",
    ),
    bind(
        &["Esc"],
        Action::Back,
        "back; never leaves the console",
        "back",
    ),
    bind(
        &["f"],
        Action::Follow,
        "follow what is new: the log's end, the newest event",
        "follow",
    ),
    in_detail(&["Left", "h"], Action::Left, "long lines: to the left"),
    in_detail(&["Right", "l"], Action::Right, "long lines: to the right"),
];

/// What a key does here.
pub(crate) fn action(key: &KeyEvent, in_detail: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let name = name(key)?;
    KEYMAP
        .iter()
        .filter(|b| b.place == Place::Anywhere || in_detail)
        .find(|b| b.keys.contains(&name.as_str()))
        .map(|b| b.action)
}

/// A key as the table writes it.
fn name(key: &KeyEvent) -> Option<String> {
    let base = match key.code {
        KeyCode::Char(c) => c.to_string(),
        KeyCode::Enter => "Enter".to_owned(),
        KeyCode::Esc => "Esc".to_owned(),
        KeyCode::Tab => "Tab".to_owned(),
        KeyCode::BackTab => return Some("Shift-Tab".to_owned()),
        KeyCode::Up => "Up".to_owned(),
        KeyCode::Down => "Down".to_owned(),
        KeyCode::Left => "Left".to_owned(),
        KeyCode::Right => "Right".to_owned(),
        KeyCode::PageUp => "PageUp".to_owned(),
        KeyCode::PageDown => "PageDown".to_owned(),
        KeyCode::Home => "Home".to_owned(),
        KeyCode::End => "End".to_owned(),
        _ => return None,
    };
    // Shift is in the character itself.
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    Some(if key.modifiers.contains(KeyModifiers::CONTROL) {
        format!("Ctrl-{base}")
    } else {
        base
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn no_key_means_two_things_in_one_place() {
        for (at, a) in KEYMAP.iter().enumerate() {
            for b in &KEYMAP[at + 1..] {
                let same_place =
                    a.place == b.place || a.place == Place::Anywhere || b.place == Place::Anywhere;
                let both = a.keys.iter().find(|k| b.keys.contains(k));
                assert!(!same_place || both.is_none(), "{both:?} twice");
                assert_ne!(a.action, b.action, "one line for one action");
            }
        }
    }

    #[test]
    fn every_binding_is_explained_and_nothing_is_on_alt_or_a_multiplexers_keys() {
        for binding in KEYMAP {
            assert!(!binding.help.is_empty());
            for key in binding.keys {
                // Leaving is the one thing that Ctrl may do.
                assert!(
                    !key.starts_with("Ctrl-") || binding.action == Action::Quit,
                    "{key}"
                );
                assert!(!key.starts_with("Alt-"));
            }
        }
    }

    #[test]
    fn keys_are_found_by_their_names() {
        let none = KeyModifiers::NONE;
        let at = |code, modifiers| action(&press(code, modifiers), false);
        assert_eq!(at(KeyCode::Char('q'), none), Some(Action::Quit));
        assert_eq!(
            at(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Action::Quit)
        );
        assert_eq!(
            at(KeyCode::Char('G'), KeyModifiers::SHIFT),
            Some(Action::Last)
        );
        assert_eq!(at(KeyCode::Char('k'), KeyModifiers::CONTROL), None);
        assert_eq!(at(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(at(KeyCode::Left, none), None);
        assert_eq!(
            action(&press(KeyCode::Left, none), true),
            Some(Action::Left)
        );
        let mut released = press(KeyCode::Char('q'), none);
        released.kind = KeyEventKind::Release;
        assert_eq!(action(&released, false), None);
    }
}
