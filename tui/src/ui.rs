//! What the person is in the middle of: keys pressed so far, what is opened over the screen, the
//! one line that answers an action. A part of the model; it knows nothing of the fleet.

use std::time::Duration;

use fleet_contract::time::Time;

use crate::keymap::{Key, Keymap, Place};

/// A sequence that waits so long shows what can follow.
pub(crate) const HINT_AFTER: Duration = Duration::from_millis(300);
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);

/// What is shown over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Popup {
    /// The keys of this place.
    Help,
    /// Why the selected dispatch stands where it stands; so many lines are above the first shown.
    Why(usize),
}

/// A sequence of keys that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The keys so far.
    pub(crate) keys: Vec<Key>,
    /// Since when.
    pub(crate) since: Time,
}

/// What the person is in the middle of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ui {
    /// The keys that hold.
    pub(crate) keymap: Keymap,
    /// The sequence that has begun.
    pub(crate) pending: Option<Pending>,
    /// What is shown over the screen.
    pub(crate) popup: Option<Popup>,
    /// One line that answers what was done last, and when it was said.
    notice: Option<(Time, String)>,
    /// Whether the terminal is in the foreground of its window, as far as it tells.
    pub(crate) focused: bool,
}

impl Ui {
    /// Nothing has begun.
    pub(crate) fn new() -> Self {
        Self {
            focused: true,
            ..Self::default()
        }
    }

    /// Says in one line what was done.
    pub(crate) fn say(&mut self, now: Time, text: impl Into<String>) {
        self.notice = Some((now, text.into()));
    }

    /// Says nothing any more.
    pub(crate) fn hush(&mut self) {
        self.notice = None;
    }

    /// What is said now.
    pub(crate) fn notice(&self, now: Time) -> Option<&str> {
        let (at, text) = self.notice.as_ref()?;
        (now.since(*at) < NOTICE).then_some(text)
    }

    /// Whether it is time to show what can follow.
    pub(crate) fn hints(&self, now: Time) -> Option<&Pending> {
        self.pending
            .as_ref()
            .filter(|pending| now.since(pending.since) >= HINT_AFTER)
    }

    /// How long it is until something here changes by itself; ages are none of it.
    pub(crate) fn wakes_in(&self, now: Time) -> Option<Duration> {
        let pending = self.pending.as_ref()?;
        HINT_AFTER
            .checked_sub(now.since(pending.since))
            .filter(|left| !left.is_zero())
    }

    /// The place of what is over the screen, if anything is.
    pub(crate) fn place(&self) -> Option<Place> {
        self.popup.as_ref().map(|_| Place::Popup)
    }
}
