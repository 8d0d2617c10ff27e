//! Output on the bus: one message a chunk, its bytes as they are, what they are in one header.

use std::sync::OnceLock;

use bytes::Bytes;
use fleet_contract::envelope::{WIRE_VERSION, WireError};
use fleet_contract::ids::{AttemptId, JobId, MachineId, MessageId};
use fleet_contract::outcome::OutputStream;
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError, Store, Stored};
use crate::clock;
use crate::subject::{self, stream};

/// Chunks of one attempt that its sender may have on their way at once: half a MiB at the most. None
/// is stored more than so many too late, which is what a reader relies on to put them in order.
pub const WINDOW: u64 = 16;

/// The header that says what a chunk is.
const CHUNK: &str = "Fleet-Chunk";

/// What a chunk of output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHead {
    /// Version of the wire contract.
    pub v: u32,
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// Its number in the attempt, from 1, both streams counted together.
    pub seq: u64,
    /// Where it was written to.
    pub stream: OutputStream,
    /// Bytes of that stream before it.
    pub offset: u64,
    /// When it was read, by the machine's clock.
    pub time: Time,
    /// Chunks right before it that the machine no longer had. A chunk without bytes is itself one of
    /// them: none that is there comes after it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl ChunkHead {
    /// The head of a chunk with nothing missing before it.
    #[must_use]
    pub fn new(
        attempt: AttemptId,
        seq: u64,
        stream: OutputStream,
        offset: u64,
        time: Time,
    ) -> Self {
        Self {
            v: WIRE_VERSION,
            attempt,
            seq,
            stream,
            offset,
            time,
            missing: 0,
        }
    }
}

/// A chunk of output as the hub has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The job.
    pub job: JobId,
    /// The machine it ran on.
    pub machine: MachineId,
    /// What it is.
    pub head: ChunkHead,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Chunk {
    /// Reads a stored message as a chunk.
    ///
    /// # Errors
    /// `Malformed` where it is none.
    pub fn of(message: &Stored) -> Result<Self, WireError> {
        let malformed =
            |why: &str| WireError::Malformed(format!("chunk on {}: {why}", message.subject));
        message.honest()?;
        let (job, machine) =
            subject::parse_log(&message.subject).ok_or_else(|| malformed("no such subject"))?;
        let head = message
            .headers
            .get(CHUNK)
            .ok_or_else(|| malformed("without its header"))?;
        let head = serde_json::from_str(head.as_str()).map_err(|e| malformed(&e.to_string()))?;
        Ok(Self {
            job,
            machine,
            head,
            bytes: message.payload.clone(),
        })
    }
}

/// What only this process knows, for as long as it runs.
fn secret() -> &'static MessageId {
    static SECRET: OnceLock<MessageId> = OnceLock::new();
    SECRET.get_or_init(clock::message_id)
}

impl Bus {
    /// Stores a chunk of output.
    ///
    /// # Errors
    /// `NoAnswer` where nobody knows whether it was stored; `Full` where there is no room.
    pub async fn put_chunk(
        &self,
        job: JobId,
        machine: &MachineId,
        head: &ChunkHead,
        bytes: Bytes,
    ) -> Result<u64, BusError> {
        let text = serde_json::to_string(head).map_err(|e| WireError::Malformed(e.to_string()))?;
        // Nobody else may guess it: the server's dedup window is one for all machines, and who stored
        // the id first would have the chunk swallowed.
        let id = format!("{}-{}-{}", secret(), head.attempt, head.seq);
        let headers = [(CHUNK, text)];
        let options = Store {
            message_id: Some(&id),
            headers: &headers,
            ..Store::default()
        };
        self.store(&subject::log(job, machine), bytes, &options)
            .await
    }

    /// The last chunk of a job that the hub has from this machine.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn last_chunk(
        &self,
        job: JobId,
        machine: &MachineId,
    ) -> Result<Option<ChunkHead>, BusError> {
        let message = self.last(stream::LOG, &subject::log(job, machine)).await?;
        Ok(message
            .and_then(|m| Chunk::of(&m).ok())
            .map(|chunk| chunk.head))
    }
}
