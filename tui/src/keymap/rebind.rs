//! Keys that a person chose. What cannot be a key, what two actions would share, and what nobody
//! could leave the console without is refused, with what to write instead.

use std::collections::BTreeMap;

use crossterm::event::KeyCode;

use super::{Action, Bound, Group, KEYMAP, Key, Keymap, Place, key};

/// Most keys of a sequence.
const SEQUENCE_MAX: usize = 4;
/// Most sequences of an action.
const SEQUENCES_MAX: usize = 8;
/// What Ctrl makes of these is another key, or stops the terminal's output.
const NOT_WITH_CTRL: [char; 7] = ['h', 'i', 'j', 'm', '[', 's', 'q'];

/// Keys that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct KeysError {
    /// The action that they were for.
    pub action: String,
    /// Whether there is no such action.
    pub unknown: bool,
    /// What is wrong, and what to write instead.
    pub why: String,
}

fn wrong(action: &str, why: String) -> KeysError {
    KeysError {
        action: action.to_owned(),
        unknown: false,
        why,
    }
}

impl Keymap {
    /// The table with these keys instead of its own, by action.
    pub(crate) fn rebound(changes: &BTreeMap<String, Vec<String>>) -> Result<Self, KeysError> {
        let mut map = Self::default();
        for (name, keys) in changes {
            let Some(bound) = map.bound.iter_mut().find(|b| b.binding.name == name) else {
                return Err(KeysError {
                    action: name.clone(),
                    unknown: true,
                    why: format!("there is no action {name:?}"),
                });
            };
            bound.keys = keys
                .iter()
                .map(|keys| sequence(bound, keys))
                .collect::<Result<_, _>>()?;
            vital(bound)?;
        }
        let chosen = |bound: &&Bound| changes.contains_key(bound.binding.name);
        for this in map.bound.iter().filter(chosen) {
            let others = map.bound.iter();
            for other in others.filter(|other| other.binding.name != this.binding.name) {
                apart(this, other)?;
            }
            for (at, keys) in this.keys.iter().enumerate() {
                let mut rest = this.keys[at + 1..].iter();
                if let Some(twice) = rest.find(|other| meet(keys, other)) {
                    let (a, b) = (written(keys), written(twice));
                    let why = format!("{a:?} and {b:?} begin alike: write one of them");
                    return Err(wrong(this.binding.name, why));
                }
            }
        }
        Ok(map)
    }
}

fn written(keys: &[Key]) -> String {
    let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
    keys.join(" ")
}

/// Whether one of both is the other's beginning, or the same.
fn meet(a: &[Key], b: &[Key]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.meets(*b))
}

fn sequence(bound: &Bound, text: &str) -> Result<Vec<Key>, KeysError> {
    let name = bound.binding.name;
    let Some(keys) = Key::sequence(text) else {
        let bad = text.split(' ').find(|key| Key::named(key).is_none());
        let bad = bad.unwrap_or(text);
        let why = format!(
            "{bad:?} is no key: write one character, Enter, Esc, Tab, Space, Up, Home or the like, \
             Ctrl-x, and spaces between the keys of a sequence: \"g m\""
        );
        return Err(wrong(name, why));
    };
    if keys.len() > SEQUENCE_MAX {
        let why = format!("{text:?} is too long: {SEQUENCE_MAX} keys are the most");
        return Err(wrong(name, why));
    }
    for key in &keys {
        if let Key::Ctrl(c) = key
            && NOT_WITH_CTRL.contains(c)
        {
            let why = format!("terminals take {key} for another key or for themselves");
            return Err(wrong(name, why));
        }
    }
    let wants = bound.binding.keys.iter().any(|k| k.ends_with(key::ANY));
    let (last, before) = keys.split_last().unwrap_or((&Key::Any, &[]));
    let good = !before.contains(&Key::Any) && (*last == Key::Any) == wants;
    if !good || keys.len() < 1 + usize::from(wants) {
        let why = match wants {
            true => format!(
                "{text:?} has to end in a free character: \"m {}\"",
                key::ANY
            ),
            false => format!("{text:?} cannot have a free character"),
        };
        return Err(wrong(name, why));
    }
    let types = |key: &Key| matches!(key, Key::Plain(KeyCode::Char(_)));
    if bound.binding.place == Place::Input && (keys.len() > 1 || keys.iter().any(types)) {
        let why = format!("{text:?} would be typed: write Enter, Esc, Up or the like, or Ctrl-x");
        return Err(wrong(name, why));
    }
    if bound.binding.place == Place::Always && (keys.len() > 1 || !matches!(keys[0], Key::Ctrl(_)))
    {
        let why = format!("{text:?} has to work while text is typed too: write Ctrl-x");
        return Err(wrong(name, why));
    }
    Ok(keys)
}

/// What nobody can do without.
fn vital(bound: &Bound) -> Result<(), KeysError> {
    let name = bound.binding.name;
    let needed = bound.binding.group == Group::Typing
        || matches!(bound.binding.action, Action::Leave | Action::Back);
    if bound.keys.is_empty() && needed {
        return Err(wrong(name, "it cannot be without a key".to_owned()));
    }
    if bound.keys.len() > SEQUENCES_MAX {
        let why = format!("{SEQUENCES_MAX} sequences are the most");
        return Err(wrong(name, why));
    }
    Ok(())
}

/// Two bindings that hold in one place share no key.
fn apart(this: &Bound, other: &Bound) -> Result<(), KeysError> {
    if !this.binding.place.meets(other.binding.place) {
        return Ok(());
    }
    let pairs = |keys| other.keys.iter().map(move |others| (keys, others));
    let mut all = this.keys.iter().flat_map(pairs);
    let Some((keys, others)) = all.find(|(keys, others)| meet(keys, others)) else {
        return Ok(());
    };
    let (keys, name) = (written(keys), other.binding.name);
    let why = match written(others) {
        same if same == keys => format!("{keys:?} is the key of {name}: give {name} another one"),
        longer if longer.starts_with(&keys) => {
            format!("{longer:?} of {name} begins with {keys:?}: give {name} another one")
        }
        shorter => format!("{shorter:?} is the key of {name}: give {name} another one"),
    };
    Err(wrong(this.binding.name, why))
}

/// The keys of the console.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub(crate) map: Keymap,
}

impl Keys {
    /// The console's keys with these instead of its own, by action; none takes an action's away.
    ///
    /// # Errors
    /// For what cannot be: [`KeysError`].
    pub fn rebound(changes: &BTreeMap<String, Vec<String>>) -> Result<Self, KeysError> {
        let map = Keymap::rebound(changes)?;
        Ok(Self { map })
    }

    /// What keys can do, by name.
    pub fn actions() -> impl Iterator<Item = &'static str> {
        KEYMAP.iter().map(|binding| binding.name)
    }
}
