//! A history: what was done to a fleet, what its jobs did, and what the fleet says of it. Plain
//! data; [`crate::gather`] fills it in, [`crate::checker`] judges it.

use std::collections::BTreeMap;

use fleet_contract::ids::JobId;
use fleet_nats::journal::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A fault as it happened, timed by a clock that runs on through everything, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Injected {
    pub(crate) fault: String,
    /// None for those of the hub.
    pub(crate) machine: Option<String>,
    pub(crate) from: f64,
    pub(crate) to: Option<f64>,
}

/// What an attempt said of itself, in the file that only the test reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Effect {
    pub(crate) what: Did,
    pub(crate) job: String,
    pub(crate) attempt: String,
    pub(crate) token: u64,
    pub(crate) machine: String,
    pub(crate) at: f64,
}

/// What it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    /// It began; whether another attempt of its job still had a process.
    Begin { beside: bool },
    /// It is about to end by itself with this code.
    End { exit: u8 },
}

impl Effect {
    /// Reads a line of the script's.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, job, attempt, token, machine, at, detail] = words[..] else {
            return None;
        };
        let what = match (what, detail) {
            ("begin", "alone") => Did::Begin { beside: false },
            ("begin", "beside") => Did::Begin { beside: true },
            ("end", code) => Did::End {
                exit: code.parse().ok()?,
            },
            _ => return None,
        };
        Some(Self {
            what,
            job: job.to_owned(),
            attempt: attempt.to_owned(),
            token: token.parse().ok()?,
            machine: machine.to_owned(),
            at: at.parse().ok()?,
        })
    }
}

/// A chunk of output as `fleet --json logs` gives it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Chunk {
    pub(crate) attempt: String,
    pub(crate) seq: u64,
    pub(crate) stderr: bool,
    pub(crate) missing: u64,
    pub(crate) missing_bytes: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What `fleet logs` gives of a job.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Logs {
    pub(crate) chunks: Vec<Chunk>,
    /// Chunks that it says are still to come.
    pub(crate) to_come: u64,
    /// The same without `--json`, where that was asked.
    pub(crate) plain: Option<(Vec<u8>, Vec<u8>)>,
}

/// An event as the hub has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) writer: String,
    pub(crate) boot: String,
    pub(crate) seq: u64,
    pub(crate) kind: String,
    pub(crate) attempt: Option<String>,
    pub(crate) machine: Option<String>,
    /// When it happened and when the hub stored it, by the clock of [`Injected`].
    pub(crate) happened: f64,
    pub(crate) stored: f64,
}

/// All that is known in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Ids that `fleet dispatch` printed.
    pub(crate) acknowledged: Vec<String>,
    /// Ids of jobs that were canceled before they were sent, and so never are.
    pub(crate) withdrawn: Vec<String>,
    /// Every record of every job, in the order of the stream.
    pub(crate) journal: Vec<Entry>,
    /// How many seconds the wall clock is ahead of the clock of the faults.
    pub(crate) wall: f64,
    pub(crate) effects: Vec<Effect>,
    /// Lines of the effects' file that are none.
    pub(crate) strange: Vec<String>,
    /// `fleet --json jobs`, and `show` of some.
    pub(crate) shown: Vec<Value>,
    pub(crate) logs: BTreeMap<JobId, Logs>,
    /// Every event that machines and hub told, in the order of the stream.
    pub(crate) flow: Vec<Told>,
    /// Ids of all events as `fleet --json flow` shows them.
    pub(crate) shown_flow: Vec<String>,
    pub(crate) injected: Vec<Injected>,
    /// Processes of jobs that are still there.
    pub(crate) alive: Vec<String>,
    /// Tickets that are left, by stream.
    pub(crate) tickets: Vec<(String, u64)>,
    /// What went wrong on the way: commands that crashed, what did not come to rest.
    pub(crate) complaints: Vec<String>,
}
