//! What agent and executor say to each other over their socket: length-prefixed JSON frames,
//! bounded, with a version in the greeting. New fields are added with defaults; the version
//! changes only when an older side would misunderstand.

use std::collections::BTreeMap;

use fleet_contract::ids::{AttemptId, JobId, MachineId};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::spec::JobSpec;
use fleet_contract::time::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use super::room::{Kept, OutputBound};

/// The protocol's version. Both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest frame in bytes: a specification with its standard input as base64, and room.
pub const FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Variables by name. Values that are not UTF-8 cannot travel and are left out.
pub type Environment = BTreeMap<String, String>;

/// One attempt to start.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// The job.
    pub job: JobId,
    /// The attempt: starting the same one again starts nothing and reports it.
    pub attempt: AttemptId,
    /// The attempt's fencing token.
    pub token: u64,
    /// Which try it is, from 1.
    pub attempt_no: u32,
    /// The machine it runs on.
    pub machine: MachineId,
    /// What to run.
    pub spec: JobSpec,
    /// The machine's configured variables, on top of what the login shell gives.
    pub env: Environment,
    /// When it must be ended, whatever happens to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_at: Option<BootTime>,
}

impl std::fmt::Debug for StartRequest {
    // Neither variables nor standard input: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartRequest")
            .field("job", &self.job)
            .field("attempt", &self.attempt)
            .field("token", &self.token)
            .field("attempt_no", &self.attempt_no)
            .finish_non_exhaustive()
    }
}

/// Why an attempt is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillCause {
    /// The operator asked for it.
    Cancel,
    /// The agent stops.
    Interrupt,
    /// The lease ran out.
    Fence,
}

/// What the executor knows of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The attempt's fencing token.
    pub token: u64,
    /// Which try it is, from 1.
    pub attempt_no: u32,
    /// The machine it runs on.
    pub machine: MachineId,
    /// What was asked for, without its standard input.
    pub spec: JobSpec,
    /// The first process's number, while it may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it started; none if it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of its processes was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How it ended; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it has written so far.
    #[serde(default)]
    pub output: OutputCount,
    /// When it must be ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_at: Option<BootTime>,
    /// Processes that could not be ended (programs of another user, stuck in the kernel).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survivors: Vec<u32>,
}

/// The small record kept for 7 days after an attempt was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRecord {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The attempt's fencing token.
    pub token: u64,
    /// Which try it was, from 1.
    pub attempt_no: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What it had written.
    #[serde(default)]
    pub output: OutputCount,
    /// When it started; none if it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of its processes was gone.
    pub ended_at: Time,
    /// The machine it was for; none in records of an earlier fleet, as the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The job as asked for, without its standard input; none where that is too much to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Box<JobSpec>>,
}

/// What the executor tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorEvent {
    /// The attempt's first process runs.
    Started {
        /// The attempt.
        attempt: AttemptId,
        /// The process's number, which is also its group's.
        pid: u32,
        /// When.
        at: Time,
    },
    /// Chunks up to this number are on disk. Several are told as one.
    Output {
        /// The attempt.
        attempt: AttemptId,
        /// The newest chunk's number, which is also how many there are.
        chunks: u64,
        /// What was written so far, of both streams.
        #[serde(default)]
        bytes: u64,
    },
    /// How much output of all attempts is kept, and how much was lost.
    Kept(Kept),
    /// Every process of the attempt is gone and its outcome is on disk.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
        /// What it wrote.
        output: OutputCount,
        /// When it started; none if it could not be.
        started_at: Option<Time>,
        /// When the last of its processes was gone.
        ended_at: Time,
        /// Processes that could not be ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        survivors: Vec<u32>,
    },
    /// The connection to the executor is over; made by the client, never sent.
    Lost,
}

/// From the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToExecutor {
    /// First on every connection.
    Hello {
        version: u32,
        /// What the login shell gives, the base of every job's environment.
        #[serde(default)]
        base_env: Option<Environment>,
        /// How much output may be kept; who says it is told [`ExecutorEvent::Kept`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<OutputBound>,
    },
    /// Answered with the same id.
    Request { id: u64, request: Request },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Start(Box<StartRequest>),
    Kill {
        attempt: AttemptId,
        cause: KillCause,
    },
    FenceAt {
        /// None for all.
        attempt: Option<AttemptId>,
        at: Option<BootTime>,
    },
    List,
    Ended {
        attempts: Vec<AttemptId>,
    },
    Forget {
        attempt: AttemptId,
    },
    /// The hub has the chunks up to this one.
    Delivered {
        attempt: AttemptId,
        chunks: u64,
    },
    SetBaseEnv {
        env: Environment,
    },
    Shutdown,
}

/// From the executor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromExecutor {
    Welcome {
        version: u32,
        pid: u32,
        /// Whether it takes [`Request::Delivered`].
        #[serde(default)]
        takes_delivered: bool,
    },
    Refused {
        reason: String,
    },
    Reply {
        id: u64,
        reply: Reply,
    },
    Event(ExecutorEvent),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    /// The report of an attempt that had been started before.
    Known(Box<AttemptReport>),
    /// The executor has no such attempt.
    NotKnown,
    /// The attempt still runs.
    Running,
    /// Part of a list; the last part has `more` false.
    Reports {
        reports: Vec<AttemptReport>,
        more: bool,
    },
    Ended {
        records: Vec<EndedRecord>,
    },
    /// The executor is about to end and takes no more: the next one will.
    Stopping,
    Failed {
        reason: String,
    },
}

/// A frame that is not one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over [`FRAME_MAX_BYTES`].
    #[error("a frame of {0} bytes is over the limit of {FRAME_MAX_BYTES}")]
    TooLarge(usize),
    /// Not JSON, or not a message of this protocol.
    #[error("a frame is not a message of this protocol: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// A buffer over this size is given back when it is empty, in bytes.
const KEEP_BYTES: usize = 64 * 1024;
/// Room to read into, in bytes: several usual frames at once.
const READ_AHEAD: usize = 16 * 1024;

/// Appends one message to `out`.
pub(crate) fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let written = serde_json::to_writer(&mut *out, message).map_err(FrameError::Malformed);
    let length = out.len() - start - 4;
    let checked = match written {
        Ok(()) if length > FRAME_MAX_BYTES => Err(FrameError::TooLarge(length)),
        other => other,
    };
    if checked.is_err() {
        out.truncate(start);
        return checked;
    }
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Takes the first whole message off the front of `buffer`; none while it is incomplete.
pub(crate) fn decode<T: DeserializeOwned>(
    buffer: &mut bytes::BytesMut,
) -> Result<Option<T>, FrameError> {
    let Some(header) = buffer.first_chunk::<4>() else {
        buffer.reserve(READ_AHEAD);
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    if buffer.len() < 4 + length {
        // Grows with what arrives, not with what is announced.
        buffer.reserve(READ_AHEAD.max(buffer.len()).min(4 + length));
        return Ok(None);
    }
    let frame = buffer.split_to(4 + length);
    let message = serde_json::from_slice(&frame[4..]).map_err(FrameError::Malformed);
    // A large frame's memory must not stay with an idle connection.
    if buffer.is_empty() && length > KEEP_BYTES {
        *buffer = bytes::BytesMut::new();
    }
    message.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn frames_survive_any_split_and_garbage_is_a_typed_error() {
        let mut wire = Vec::new();
        for id in 0..3 {
            let request = Request::List;
            encode(&ToExecutor::Request { id, request }, &mut wire).unwrap();
        }
        let mut buffer = BytesMut::new();
        let mut ids = Vec::new();
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            while let Some(message) = decode::<ToExecutor>(&mut buffer).unwrap() {
                let ToExecutor::Request { id, .. } = message else {
                    panic!("not a request");
                };
                ids.push(id);
            }
        }
        assert_eq!(ids, [0, 1, 2]);

        let mut huge = BytesMut::from(&[0xff; 8][..]);
        assert!(matches!(
            decode::<ToExecutor>(&mut huge),
            Err(FrameError::TooLarge(_))
        ));
        let mut garbage = BytesMut::from(&b"\0\0\0\x02{]"[..]);
        assert!(matches!(
            decode::<ToExecutor>(&mut garbage),
            Err(FrameError::Malformed(_))
        ));
    }
}
