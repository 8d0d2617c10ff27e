//! Why a command ends without having done what it was asked, and the exit code that says so.
//!
//! Every message is a lowercase fragment: what failed, on what; then the next command to type.

use std::io;

use serde::Serialize;

use crate::output::escape::one_line;

/// Exit codes of fleet's own failures, after sysexits. A job's own code is passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line is wrong.
    Usage,
    /// The hub cannot be reached.
    Unavailable,
    /// Fleet itself failed, or the machine did under it.
    Internal,
    /// Nobody can run it now, or its outcome is not the job's.
    TempFail,
    /// Not permitted.
    NoPermission,
    /// The configuration is wrong.
    Config,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::TempFail => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell the person.
    Told(Box<Told>),
    /// Whoever read the output has had enough of it, which is success.
    PipeClosed,
    /// Everything was told already; only the exit code is left.
    Exit(u8),
}

/// A failure in words.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    /// What failed, on what.
    pub(crate) message: String,
    /// The next command to type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    /// The exit code.
    pub(crate) exit_code: u8,
}

/// What a verb gives back: the process's exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure with this exit code: what failed, on what.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told(Box::new(Told {
            message: message.into(),
            next: None,
            exit_code: exit.code(),
        }))
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The configuration is wrong.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(Exit::Config, message)
    }

    /// Fleet or the machine failed.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A file could not be used.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::internal(format!("{what}: {}: {error}", path.display()))
    }

    /// The same failure with the next command to type.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.next = Some(next.into());
        }
        self
    }

    /// The same failure with another command to type, where it named this one.
    #[must_use]
    pub(crate) fn instead_of(self, known: &str, next: &str) -> Self {
        match &self {
            Self::Told(told) if told.next.as_deref() == Some(known) => self.next(next),
            _ => self,
        }
    }

    /// The same failure with more words.
    #[must_use]
    pub(crate) fn and(mut self, more: &str) -> Self {
        if let Self::Told(told) = &mut self {
            told.message.push_str(more);
        }
        self
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Told(told) => told.exit_code,
            Self::PipeClosed => 0,
            Self::Exit(code) => *code,
        }
    }

    /// What to write on standard error; nothing for a closed pipe.
    pub(crate) fn render(&self, json: bool) -> Option<String> {
        #[derive(Serialize)]
        struct Document<'a> {
            error: &'a Told,
        }
        let Self::Told(told) = self else {
            return None;
        };
        if json {
            return serde_json::to_string(&Document { error: told }).ok();
        }
        // What a file or a peer said is in it, too.
        Some(one_line(&match &told.next {
            Some(next) => format!("fleet: {}; {next}", told.message),
            None => format!("fleet: {}", told.message),
        }))
    }
}

/// Only for what is written to standard output; files say what and which with [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::internal(format!("cannot write the output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_on_what_and_the_next_command() {
        let failure =
            Failure::new(Exit::Unavailable, "no hub at 127.0.0.1:4222: refused").next("fleet up");
        assert_eq!(failure.exit_code(), 69);
        assert_eq!(
            failure.render(false).unwrap(),
            "fleet: no hub at 127.0.0.1:4222: refused; fleet up"
        );
        assert_eq!(
            failure.render(true).unwrap(),
            r#"{"error":{"message":"no hub at 127.0.0.1:4222: refused","next":"fleet up","exit_code":69}}"#
        );
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit_code(), 0);
        assert_eq!(failure.render(false), None);
        let other = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(other.exit_code(), 70);
    }
}
