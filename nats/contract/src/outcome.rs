//! How one attempt ended, as its executor saw it.

use serde::{Deserialize, Serialize};

/// How an attempt ended. Exit code and signal are apart: 137 is a program's own exit code,
/// killed by signal 9 is a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The process ended by itself with this code.
    Exited {
        /// Its exit code, 0 to 255.
        exit_code: u8,
    },
    /// A signal that fleet did not send ended it.
    Signaled {
        /// The signal's number.
        signal: u8,
    },
    /// It ran longer than its time-out and everything it had started was ended.
    TimedOut,
    /// It was ended because the operator asked for it.
    Canceled,
    /// It was ended because its agent stopped.
    Interrupted,
    /// It was ended because its lease ran out.
    Fenced,
    /// It could not be started: no such command or folder, no permission.
    Rejected {
        /// What failed, on what, in words.
        reason: String,
        /// The machine's disk was full: nothing is wrong with the job, and nothing of it was done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_room: bool,
    },
    /// Its end was not seen: the executor or the machine went away under it.
    Unknown {
        /// What is known, in words.
        reason: String,
    },
}

/// Longest reason that is passed on of what a machine says, in bytes.
pub const REASON_MAX_BYTES: usize = 512;

impl Outcome {
    /// The same with its reason cut to [`REASON_MAX_BYTES`].
    #[must_use]
    pub fn clipped(mut self) -> Self {
        if let Self::Rejected { reason, .. } | Self::Unknown { reason } = &mut self
            && reason.len() > REASON_MAX_BYTES
        {
            let dots = "…";
            let most = REASON_MAX_BYTES - dots.len();
            let end = (0..=most).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
            reason.push_str(dots);
        }
        self
    }
}

/// How much one output stream of an attempt wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamCount {
    /// Bytes it wrote.
    pub bytes: u64,
    /// Bytes of them that its machine threw away before it knew them to be at the hub. What was on its
    /// way just then may have come: at most so many are missing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How much an attempt wrote: what a reader of its log waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputCount {
    /// Chunks in all, both streams.
    pub chunks: u64,
    /// Standard output.
    pub stdout: StreamCount,
    /// Standard error.
    pub stderr: StreamCount,
}

/// Which output stream a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Largest chunk of output, in bytes.
pub const CHUNK_MAX_BYTES: usize = 32 * 1024;
