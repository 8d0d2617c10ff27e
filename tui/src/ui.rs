//! What the person is in the middle of: keys pressed so far, text being typed, what is opened
//! over the screen, the one line that answers an action. A part of the model; it knows nothing of
//! the fleet.

use std::time::Duration;

use fleet_contract::time::Time;

use crate::drawn::Pick;
use crate::input::TextLine;
use crate::keymap::{Key, Keymap, Place};
use crate::leave::Leaving;
use crate::model::Pane;

/// A sequence that waits so long shows what can follow.
pub(crate) const HINT_AFTER: Duration = Duration::from_millis(300);
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);

/// Something to be chosen from a list by typing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chooser {
    /// What is typed.
    pub(crate) line: TextLine,
    /// Which of the rows that are left is selected.
    pub(crate) at: usize,
    /// Where the person was when it was opened.
    pub(crate) place: Place,
}

/// What is shown over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Popup {
    /// The keys of this place.
    Help(Chooser),
    /// Everything that can be done, by name.
    Palette(Chooser),
    /// Why what is selected is as it is; so many lines are above the first shown.
    Why(usize),
    /// Which columns the list has; the one that is pointed at.
    Columns(usize),
}

/// What text is typed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The filter of this list.
    Filter(Pane),
    /// What is looked for in the output.
    Search,
}

/// Text that is being typed in the line below the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    /// What for.
    pub(crate) wanted: Wanted,
    /// The text.
    pub(crate) line: TextLine,
    /// Whether nothing was typed yet, so that what stood before still holds.
    pub(crate) fresh: bool,
    /// What stood before, and stands again where this is left.
    pub(crate) before: String,
    /// What is wrong with it.
    pub(crate) wrong: Option<String>,
}

/// A sequence of keys that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The keys so far.
    pub(crate) keys: Vec<Key>,
    /// Since when.
    pub(crate) since: Time,
}

/// A click.
#[derive(Debug, Clone)]
pub(crate) struct Click {
    /// When.
    pub(crate) when: Time,
    /// Column and row.
    pub(crate) at: (u16, u16),
    /// The row of a list that it selected.
    pub(crate) picked: Option<(Pane, Pick, usize)>,
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
    /// What is being typed.
    pub(crate) input: Option<Input>,
    /// One line that answers what was done last, and when it was said.
    notice: Option<(Time, String)>,
    /// What the mouse clicked last.
    pub(crate) clicked: Option<Click>,
    /// Whether the mouse is captured.
    pub(crate) mouse: bool,
    /// Lines of an opened machine that are above the screen.
    pub(crate) machine_top: usize,
    /// Whether the terminal is in the foreground of its window, as far as it tells.
    pub(crate) focused: bool,
    /// What leaving would end.
    pub(crate) leaving: Leaving,
}

impl Ui {
    /// Nothing has begun.
    pub(crate) fn new() -> Self {
        Self {
            mouse: true,
            focused: true,
            ..Self::default()
        }
    }

    /// Hub and agent run in this process: the keys that leave say so.
    pub(crate) fn with_hub(&mut self) {
        self.leaving.with_hub = true;
        self.keymap.with_hub();
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
        match &self.popup {
            _ if self.input.is_some() => Some(Place::Input),
            Some(Popup::Help(_) | Popup::Palette(_)) => Some(Place::Input),
            Some(Popup::Why(_) | Popup::Columns(_)) => Some(Place::Popup),
            None => None,
        }
    }

    /// What is chosen from by typing.
    pub(crate) fn chooser(&self) -> Option<&Chooser> {
        match &self.popup {
            Some(Popup::Help(chooser) | Popup::Palette(chooser)) => Some(chooser),
            _ => None,
        }
    }

    /// The same, to change it.
    pub(crate) fn chooser_mut(&mut self) -> Option<&mut Chooser> {
        match &mut self.popup {
            Some(Popup::Help(chooser) | Popup::Palette(chooser)) => Some(chooser),
            _ => None,
        }
    }

    /// The line that is being typed.
    pub(crate) fn line(&mut self) -> Option<&mut TextLine> {
        if let Some(input) = &mut self.input {
            return Some(&mut input.line);
        }
        match &mut self.popup {
            Some(Popup::Help(chooser) | Popup::Palette(chooser)) => Some(&mut chooser.line),
            _ => None,
        }
    }
}
