//! How long events and output are kept, and how much of them: what the operator has set lies over
//! what the contract lays down. Says whether the store has room for it; changes nothing itself.

use std::time::Duration;

use fleet_contract::needs::rounded_size;
use serde_json::{Map, Value, json};

use super::{definitions, nanos};
use crate::subject::stream;

/// Where a stream's own metadata says which of its limits were set by configuration: they go back to
/// what they are by default when nobody sets them any more.
const SET: &str = "fleet.set";
const AGE: &str = "max_age";
const BYTES: &str = "max_bytes";
const WINDOW: &str = "duplicate_window";

/// What is set for one stream; what is not is as by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Messages go when they are this old.
    pub age: Option<Duration>,
    /// The oldest messages go when there are more bytes.
    pub bytes: Option<u64>,
}

/// What is set for events and for output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeps {
    /// `FLOW`.
    pub flow: Keep,
    /// `LOG`.
    pub log: Keep,
}

/// What is set does not fit into the hub's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "events and output may take {} together, but the hub's store has {} for them",
    rounded_size(*asked),
    rounded_size(*room)
)]
pub struct TooMuch {
    /// What was set, or is the default, for both.
    pub asked: u64,
    /// What the store has beside the other streams.
    pub room: u64,
}

impl Keeps {
    fn of(&self, name: &str) -> Keep {
        match name {
            stream::FLOW => self.flow,
            stream::LOG => self.log,
            _ => Keep::default(),
        }
    }

    /// Whether the store has room for what is set.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn fit(&self, store_bytes: u64) -> Result<(), TooMuch> {
        let (mut asked, mut others) = (0_u64, 0_u64);
        for (name, wanted) in definitions(store_bytes) {
            let default = wanted[BYTES].as_u64().unwrap_or(0);
            match name {
                stream::FLOW | stream::LOG => {
                    asked = asked.saturating_add(self.of(name).bytes.unwrap_or(default));
                }
                _ => others = others.saturating_add(default),
            }
        }
        let room = store_bytes.saturating_sub(others);
        match asked <= room {
            true => Ok(()),
            false => Err(TooMuch { asked, room }),
        }
    }

    /// Lays what is set over the definition of a stream.
    pub(super) fn lay_over(&self, name: &str, wanted: &mut Value) {
        let Keep { age, bytes } = self.of(name);
        let mut set = Vec::new();
        if let Some(age) = age {
            wanted[AGE] = nanos(age).into();
            // The server wants no longer one than messages live.
            let window = wanted[WINDOW].as_i64().unwrap_or(0).min(nanos(age));
            wanted[WINDOW] = window.into();
            set.push(AGE);
        }
        if let Some(bytes) = bytes {
            wanted[BYTES] = bytes.into();
            set.push(BYTES);
        }
        if !set.is_empty() {
            wanted["metadata"] = json!({ SET: set.join(" ") });
        }
    }
}

/// Sets the bytes of a stream to what it has, as nobody has set it: they go back by themselves.
pub(super) fn hold(config: &mut Map<String, Value>, bytes: u64) {
    let there = Value::Object(config.clone());
    let set = match set(&there).contains(AGE) {
        true => format!("{AGE} {BYTES}"),
        false => BYTES.to_owned(),
    };
    config.insert(BYTES.to_owned(), bytes.into());
    let metadata = config.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(SET.to_owned(), set.into());
    }
}

/// What a configuration says was set by an operator.
fn set(config: &Value) -> &str {
    config["metadata"][SET].as_str().unwrap_or_default()
}

/// Changes what is set, or was and is not any more, to what is wanted; says which settings that were.
pub(super) fn reconcile(config: &mut Map<String, Value>, wanted: &Value) -> Vec<String> {
    let there = Value::Object(config.clone());
    let (was, is) = (set(&there), set(wanted));
    let mut changed = Vec::new();
    for key in [AGE, BYTES] {
        let named = |set: &str| set.split(' ').any(|name| name == key);
        if (named(was) || named(is)) && there.get(key) != wanted.get(key) {
            config.insert(key.to_owned(), wanted[key].clone());
            changed.push(key.to_owned());
        }
    }
    if changed.iter().any(|key| key == AGE) {
        config.insert(WINDOW.to_owned(), wanted[WINDOW].clone());
    }
    if was != is {
        let metadata = config.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove(SET);
            if !is.is_empty() {
                metadata.insert(SET.to_owned(), is.into());
            }
        }
        changed.push("metadata".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(keeps: Keeps) -> Value {
        let found = definitions(1 << 30).into_iter();
        let mut log = found.filter(|(name, _)| *name == stream::LOG);
        let (name, mut wanted) = log.next().unwrap();
        keeps.lay_over(name, &mut wanted);
        wanted
    }

    fn log(age: Option<u64>, bytes: Option<u64>) -> Keeps {
        let log = Keep {
            age: age.map(Duration::from_secs),
            bytes,
        };
        Keeps {
            log,
            ..Keeps::default()
        }
    }

    #[test]
    fn what_is_set_holds_in_both_directions_and_what_is_set_no_more_goes_back() {
        let default = wanted(Keeps::default());
        let mut there = default.as_object().unwrap().clone();
        assert_eq!(reconcile(&mut there, &default), [] as [&str; 0]);
        let few = wanted(log(Some(3600), Some(5 << 20)));
        assert_eq!(
            reconcile(&mut there, &few),
            ["max_age", "max_bytes", "metadata"]
        );
        assert_eq!(there["max_bytes"], 5 << 20);
        assert_eq!(reconcile(&mut there, &few), [] as [&str; 0]);
        let more = wanted(log(Some(7200), Some(6 << 20)));
        assert_eq!(reconcile(&mut there, &more), ["max_age", "max_bytes"]);
        let bytes = wanted(log(None, Some(6 << 20)));
        assert_eq!(reconcile(&mut there, &bytes), ["max_age", "metadata"]);
        assert_eq!(
            reconcile(&mut there, &default),
            ["max_bytes", "metadata"],
            "as it was"
        );
        assert_eq!(there["max_bytes"], default["max_bytes"]);
        assert_eq!(there["max_age"], default["max_age"]);
    }

    #[test]
    fn the_window_for_duplicates_is_never_longer_than_messages_live() {
        let short = wanted(log(Some(1), None));
        assert_eq!(short["duplicate_window"], 1_000_000_000);
        let long = wanted(log(Some(86_400), None));
        assert_eq!(long["duplicate_window"], 120_000_000_000_i64);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_room_there_is() {
        let store = 1 << 30;
        assert_eq!(Keeps::default().fit(store), Ok(()));
        let refused = log(None, Some(1 << 30)).fit(store).unwrap_err();
        assert!(refused.room < store && refused.asked > 1 << 30);
        assert_eq!(log(None, Some(400 << 20)).fit(store), Ok(()));
    }
}
