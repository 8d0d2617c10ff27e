//! What keys do: one table, from which the lookup, the footer, the help and the documents are
//! made. The lookup is pure: the keys pressed so far and the next one give an action, a longer
//! wait, or nothing.

pub(crate) mod action;
pub(crate) mod key;
pub(crate) mod rebind;
pub(crate) mod table;

pub(crate) use action::{Action, Group, Place};
pub(crate) use key::Key;
pub(crate) use table::KEYMAP;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Binding {
    /// What it is called in the settings.
    pub(crate) name: &'static str,
    /// Its keys or sequences of keys, one space between two.
    pub(crate) keys: &'static [&'static str],
    /// What they do.
    pub(crate) action: Action,
    /// Where.
    pub(crate) place: Place,
    /// What it is for.
    pub(crate) group: Group,
    /// In words.
    pub(crate) help: &'static str,
    /// In one word, for the footer; empty for none.
    pub(crate) short: &'static str,
}

/// A line of the table with the keys that hold.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// The line.
    pub(crate) binding: &'static Binding,
    /// Its sequences.
    pub(crate) keys: Vec<Vec<Key>>,
}

impl Bound {
    /// Its keys as people read them: `Up k`.
    pub(crate) fn shown(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|keys| key::shown(keys)).collect();
        keys.join(" ")
    }
}

/// What a press leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// This is to be done, with the free character where the sequence has one.
    Action(Action, Option<char>),
    /// A sequence begins so.
    Prefix,
    /// No key of this place.
    Nothing,
}

/// The table with the keys that hold.
#[derive(Debug, Clone)]
pub(crate) struct Keymap {
    bound: Vec<Bound>,
}

impl Default for Keymap {
    fn default() -> Self {
        let bound = KEYMAP.iter().map(|binding| Bound {
            binding,
            keys: binding
                .keys
                .iter()
                .filter_map(|k| Key::sequence(k))
                .collect(),
        });
        Self {
            bound: bound.collect(),
        }
    }
}

impl Keymap {
    /// Says of the keys that leave what they do where hub and agent run in the same process.
    pub(crate) fn with_hub(&mut self) {
        for other in table::WITH_HUB {
            let mut all = self.bound.iter_mut();
            if let Some(bound) = all.find(|b| b.binding.name == other.name) {
                bound.binding = other;
            }
        }
    }

    /// What pressing `key` after `before` does here.
    pub(crate) fn look(&self, here: Place, before: &[Key], key: Key) -> Found {
        let mut prefix = false;
        for bound in self.here(here) {
            for keys in &bound.keys {
                let Some((this, after)) = begins(keys, before).and_then(|rest| rest.split_first())
                else {
                    continue;
                };
                if !this.is(key) {
                    continue;
                }
                if after.is_empty() {
                    let free = key.character().filter(|_| *this == Key::Any);
                    return Found::Action(bound.binding.action, free);
                }
                prefix = true;
            }
        }
        if prefix {
            Found::Prefix
        } else {
            Found::Nothing
        }
    }

    /// What can follow `before` here: the rest of the keys and what they do.
    pub(crate) fn after(&self, here: Place, before: &[Key]) -> Vec<(String, &'static Binding)> {
        let mut all = Vec::new();
        for bound in self.here(here) {
            for keys in &bound.keys {
                if let Some(rest) = begins(keys, before).filter(|rest| !rest.is_empty()) {
                    all.push((key::shown(rest), bound.binding));
                }
            }
        }
        all
    }

    /// The bindings that hold here, in the table's order.
    pub(crate) fn here(&self, here: Place) -> impl Iterator<Item = &Bound> {
        self.bound
            .iter()
            .filter(move |b| b.binding.place.holds(here))
    }

    /// The first key of an action as people read it; empty where it has none.
    pub(crate) fn key_of(&self, action: Action) -> String {
        self.first(action).map_or(String::new(), key::shown)
    }

    /// The keys of an action before the free character that it ends in; none where it has none.
    pub(crate) fn awaits(&self, action: Action) -> Option<Vec<Key>> {
        let (last, before) = self.first(action)?.split_last()?;
        (*last == Key::Any).then(|| before.to_vec())
    }

    /// The same as people read it.
    pub(crate) fn prefix_of(&self, action: Action) -> String {
        self.awaits(action)
            .map_or(String::new(), |keys| key::shown(&keys))
    }

    fn first(&self, action: Action) -> Option<&[Key]> {
        let bound = self.bound.iter().find(|b| b.binding.action == action);
        bound.and_then(|b| b.keys.first()).map(Vec::as_slice)
    }
}

/// What follows in a sequence that begins with the keys that were pressed.
fn begins<'a>(keys: &'a [Key], pressed: &[Key]) -> Option<&'a [Key]> {
    let (head, rest) = keys.split_at_checked(pressed.len())?;
    let same = head
        .iter()
        .zip(pressed)
        .all(|(key, pressed)| key.is(*pressed));
    same.then_some(rest)
}

#[cfg(test)]
mod tests;
