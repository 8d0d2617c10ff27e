//! Colours, and whether and how wide to write. Pure but for [`Terminal::of`].

use std::io::IsTerminal;

use fleet_contract::machine::MachineState;
use fleet_contract::record::StateWord;

/// When to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// The choice with this name.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        <Self as clap::ValueEnum>::from_str(word, false).ok()
    }

    /// The choice's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }

    /// Whether colours are written. An explicit `always` is stronger than `NO_COLOR`.
    pub(crate) fn enabled(self, terminal: bool, no_color: bool, dumb: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color && !dumb,
        }
    }
}

/// What standard output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Its width in columns; none where it is no terminal.
    pub(crate) width: Option<usize>,
}

impl Terminal {
    /// What this stream is.
    pub(crate) fn of<S: IsTerminal + std::os::fd::AsFd>(stream: &S) -> Self {
        let width = stream.is_terminal().then(|| {
            let columns = rustix::termios::tcgetwinsize(stream.as_fd())
                .map_or(0, |size| usize::from(size.ws_col));
            if columns == 0 { 80 } else { columns }
        });
        Self { width }
    }
}

/// A meaning that has a colour. Colour is never the only sign: the word is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Paint {
    /// Nothing special.
    #[default]
    None,
    /// As it should be.
    Good,
    /// Wants attention.
    Warn,
    /// Went wrong.
    Bad,
    /// Happens now.
    Active,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Paint {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
            Self::Active => Some("36"),
            Self::Dim => Some("2"),
            Self::Bold => Some("1"),
        }
    }

    /// The text in this colour, if colours are on.
    pub(crate) fn on(self, text: &str, color: bool) -> String {
        match self.code() {
            Some(code) if color && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// The colour of a job's state.
    pub(crate) fn of_job(state: StateWord) -> Self {
        match state {
            StateWord::Succeeded => Self::Good,
            StateWord::Running => Self::Active,
            StateWord::Queued | StateWord::Canceled => Self::Dim,
            StateWord::Backoff | StateWord::NeedsHuman => Self::Warn,
            StateWord::Failed
            | StateWord::TimedOut
            | StateWord::Lost
            | StateWord::Expired
            | StateWord::Rejected => Self::Bad,
        }
    }

    /// The colour of a machine's state.
    pub(crate) fn of_machine(state: MachineState) -> Self {
        match state {
            MachineState::Up => Self::Good,
            MachineState::Degraded | MachineState::Stale => Self::Warn,
            MachineState::Lost => Self::Bad,
            MachineState::Cordoned | MachineState::Draining | MachineState::Offline => Self::Dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_choice_the_terminal_and_no_color() {
        use ColorChoice::{Always, Auto, Never};
        for (choice, terminal, no_color, dumb, expected) in [
            (Auto, true, false, false, true),
            (Auto, true, true, false, false),
            (Auto, true, false, true, false),
            (Auto, false, false, false, false),
            (Always, false, true, true, true),
            (Never, true, false, false, false),
        ] {
            assert_eq!(
                choice.enabled(terminal, no_color, dumb),
                expected,
                "{choice:?} {terminal} {no_color} {dumb}"
            );
        }
        assert_eq!(Paint::Good.on("up", true), "\x1b[32mup\x1b[0m");
        assert_eq!(Paint::Good.on("up", false), "up");
    }
}
