//! How things look: a glyph, a word and a place say what is meant; colour comes fourth.
//!
//! Only the sixteen colours of the person's own palette, and no background is ever painted.
//! Without colour a theme sets none at all: the terminal library turns a set colour into a reset
//! of bold and reverse where `NO_COLOR` is in the environment.

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

/// What a style is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing in particular.
    Plain,
    /// Well.
    Ok,
    /// At work.
    Busy,
    /// Waits.
    Wait,
    /// Wants a person.
    Attention,
    /// Bad.
    Bad,
    /// Not bad yet.
    Warn,
    /// Old, or of less interest.
    Dim,
    /// What a screen or pane is called, and where the focus is.
    Accent,
}

/// How things look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether colours are set.
    pub(crate) colour: bool,
    /// Whether only ASCII is written.
    pub(crate) ascii: bool,
}

impl Look {
    /// The style of a role.
    pub(crate) fn style(self, role: Role) -> Style {
        let (colour, modifier) = match role {
            Role::Plain => (None, Modifier::empty()),
            Role::Ok => (Some(Color::Green), Modifier::empty()),
            Role::Busy => (Some(Color::Cyan), Modifier::empty()),
            // Blue is what many palettes show darkest, so waiting has no colour.
            Role::Wait => (None, Modifier::empty()),
            Role::Attention => (
                Some(Color::Magenta),
                Modifier::BOLD.union(Modifier::REVERSED),
            ),
            Role::Bad => (Some(Color::Red), Modifier::BOLD),
            Role::Warn => (Some(Color::Yellow), Modifier::empty()),
            Role::Dim => (None, Modifier::DIM),
            Role::Accent => (Some(Color::Cyan), Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        match colour.filter(|_| self.colour) {
            Some(colour) => style.fg(colour),
            None => style,
        }
    }

    /// The style of a role where it is not what the screen is about: nothing is reversed.
    pub(crate) fn calm(self, role: Role) -> Style {
        let style = self.style(role);
        style.remove_modifier(Modifier::REVERSED)
    }

    /// Of the selected row: one bar, whatever its cells are.
    pub(crate) fn selection(self) -> Style {
        Style::new()
            .fg(Color::Reset)
            .remove_modifier(Modifier::DIM)
            .add_modifier(Modifier::REVERSED)
    }

    fn pick(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    /// A job's glyph.
    pub(crate) fn job(self, word: StateWord) -> (&'static str, Role) {
        let (unicode, ascii, role) = match word {
            StateWord::Queued => ("○", "o", Role::Wait),
            StateWord::Running => ("●", "*", Role::Busy),
            StateWord::Backoff => ("◷", "~", Role::Warn),
            StateWord::NeedsHuman => ("▲", "!", Role::Attention),
            StateWord::Succeeded => ("✓", "+", Role::Ok),
            StateWord::Failed => ("✗", "x", Role::Bad),
            StateWord::TimedOut => ("⧖", "T", Role::Bad),
            StateWord::Canceled => ("⊘", "-", Role::Dim),
            StateWord::Lost => ("✕", "X", Role::Bad),
            StateWord::Expired => ("⌀", "e", Role::Bad),
            StateWord::Rejected => ("⊗", "r", Role::Bad),
        };
        (self.pick(unicode, ascii), role)
    }

    /// A machine's glyph.
    pub(crate) fn machine(self, state: MachineState) -> (&'static str, Role) {
        let (unicode, ascii, role) = match state {
            MachineState::Up => ("●", "*", Role::Ok),
            MachineState::Degraded => ("◐", "c", Role::Warn),
            MachineState::Stale => ("◌", "~", Role::Warn),
            MachineState::Lost => ("✕", "X", Role::Bad),
            MachineState::Cordoned | MachineState::Draining => ("⊖", "-", Role::Wait),
            MachineState::Offline => ("○", "o", Role::Dim),
        };
        (self.pick(unicode, ascii), role)
    }

    /// Nobody knows now.
    pub(crate) fn unknown(self) -> (&'static str, Role) {
        ("?", Role::Warn)
    }

    /// Before a selected row.
    pub(crate) fn pointer(self) -> &'static str {
        self.pick("▸", ">")
    }

    /// Something was cut.
    pub(crate) fn ellipsis(self) -> &'static str {
        self.pick("…", "~")
    }

    /// Between two parts of a line.
    pub(crate) fn dot(self) -> &'static str {
        self.pick("·", "-")
    }

    /// Between the first and the last of something.
    pub(crate) fn range(self) -> &'static str {
        self.pick("–", "-")
    }

    /// Between the parts of the header.
    pub(crate) fn bar(self) -> &'static str {
        self.pick("▏", "|")
    }

    /// A rule in a list.
    pub(crate) fn rule(self) -> &'static str {
        self.pick("──", "--")
    }

    /// A slot that is taken, and a free one.
    pub(crate) fn slots(self) -> (&'static str, &'static str) {
        (self.pick("▮", "#"), self.pick("▯", "."))
    }

    /// Something that should not have happened.
    pub(crate) fn alarm(self) -> &'static str {
        "!"
    }

    /// A row that the person marked.
    pub(crate) fn mark(self) -> &'static str {
        self.pick("◆", "@")
    }

    /// Behind the name of the column that a list is put in order by.
    pub(crate) fn sorted(self, reverse: bool) -> &'static str {
        match reverse {
            false => self.pick("▾", "v"),
            true => self.pick("▴", "^"),
        }
    }

    /// The line and the tip of a hop.
    pub(crate) fn hop(self) -> (&'static str, &'static str) {
        (self.pick("─", "-"), self.pick("▸", ">"))
    }

    /// How full something was: 1 is full; nothing where it is not known.
    pub(crate) fn level(self, value: Option<f32>) -> char {
        const UNICODE: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const ASCII: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];
        let Some(value) = value else { return ' ' };
        let levels = if self.ascii { ASCII } else { UNICODE };
        let most = levels.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 8, by the clamp"
        )]
        let at = (value.clamp(0.0, 1.0) * 8.0) as usize;
        levels[at.min(most)]
    }

    /// The frame of a pane.
    pub(crate) fn border(self) -> border::Set<'static> {
        if self.ascii {
            border::Set {
                top_left: "+",
                top_right: "+",
                bottom_left: "+",
                bottom_right: "+",
                vertical_left: "|",
                vertical_right: "|",
                horizontal_top: "-",
                horizontal_bottom: "-",
            }
        } else {
            border::PLAIN
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn every_state_has_a_glyph_of_one_cell_that_no_other_has() {
        for ascii in [false, true] {
            let look = Look {
                colour: true,
                ascii,
            };
            let jobs: Vec<_> = StateWord::ALL.iter().map(|w| look.job(*w).0).collect();
            let machines: Vec<_> = MachineState::ALL
                .iter()
                .map(|s| look.machine(*s).0)
                .collect();
            for glyph in jobs.iter().chain(&machines) {
                assert_eq!(glyph.width(), 1, "{glyph}");
                assert!(!ascii || glyph.is_ascii());
            }
            assert_eq!(jobs.iter().collect::<BTreeSet<_>>().len(), jobs.len());
            // Cordoned and draining share theirs: the word beside it tells them apart.
            assert_eq!(machines.iter().collect::<BTreeSet<_>>().len(), 6);
        }
    }

    #[test]
    fn without_colour_no_colour_is_set() {
        let look = Look {
            colour: false,
            ascii: false,
        };
        for role in [
            Role::Plain,
            Role::Ok,
            Role::Busy,
            Role::Wait,
            Role::Attention,
            Role::Bad,
            Role::Warn,
            Role::Dim,
            Role::Accent,
        ] {
            let style = look.style(role);
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }
}
