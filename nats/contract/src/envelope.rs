//! The envelope around every message on the bus, and how one is read.
//!
//! Readers tolerate unknown fields and unknown kinds, so that an older binary lives beside a newer
//! one; what is malformed or oversize is a typed error that is counted and shown, never a panic.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{AttemptId, JobId, MachineId, MessageId};
use crate::time::Time;

/// The version of the wire contract that this binary writes.
pub const WIRE_VERSION: u32 = 1;

/// Most an ordinary message may weigh, in bytes. Tickets and first records, which carry a job's
/// standard input, may weigh [`TICKET_MAX_BYTES`].
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// Most a ticket or a journal record may weigh, in bytes: 8 MiB of standard input as base64, the
/// specification beside it, and room for the envelope. The hub's `max_payload` is the same.
pub const TICKET_MAX_BYTES: usize = 12 * 1024 * 1024;

/// What every message says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the wire contract that the writer speaks.
    pub v: u32,
    /// The message's own id.
    pub id: MessageId,
    /// When it was written, by the writer's clock. For people only: no rule reads it.
    pub time: Time,
    /// What kind of fact it is.
    pub kind: String,
    /// The machine it is about or from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The attempt it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptId>,
    /// The message that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corr: Option<MessageId>,
}

impl Header {
    /// The header of a message of this kind that is about nothing in particular yet.
    #[must_use]
    pub fn new(id: MessageId, time: Time, kind: &str) -> Self {
        Self {
            v: WIRE_VERSION,
            id,
            time,
            kind: kind.to_owned(),
            machine: None,
            job: None,
            attempt: None,
            corr: None,
        }
    }
}

#[derive(Serialize)]
struct Written<'a, D> {
    #[serde(flatten)]
    header: &'a Header,
    data: &'a D,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(flatten)]
    header: Header,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Heavier than its limit.
    #[error("message of {bytes} bytes is over the limit of {limit}")]
    Oversize {
        /// Its weight.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not an envelope, or its data is not what its kind promises.
    #[error("message is malformed: {0}")]
    Malformed(String),
    /// Of a kind this binary does not know: skipped, counted.
    #[error("message kind {0:?} is unknown here: a newer fleet wrote it")]
    UnknownKind(String),
}

/// A message as bytes.
///
/// # Errors
/// `Malformed` where `data` has no JSON form, `Oversize` over `limit`.
pub fn encode<D: Serialize>(header: &Header, data: &D, limit: usize) -> Result<Vec<u8>, WireError> {
    let bytes = serde_json::to_vec(&Written { header, data }).map_err(|e| malformed(&e))?;
    check_size(bytes.len(), limit)?;
    Ok(bytes)
}

/// A message's header alone.
///
/// # Errors
/// `Oversize` or `Malformed`.
pub fn decode_header(bytes: &[u8], limit: usize) -> Result<Header, WireError> {
    check_size(bytes.len(), limit)?;
    serde_json::from_slice::<Header>(bytes).map_err(|e| malformed(&e))
}

/// A message of one known kind.
///
/// # Errors
/// `Oversize`, `Malformed`, or `UnknownKind` where the kind is another than `kind`.
pub fn decode<D: DeserializeOwned>(
    bytes: &[u8],
    kind: &str,
    limit: usize,
) -> Result<(Header, D), WireError> {
    decode_any(bytes, limit, |found| found == kind)
}

/// A message of one of several kinds whose data tells them apart itself.
///
/// # Errors
/// As [`decode`].
pub fn decode_any<D: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
    known: impl FnOnce(&str) -> bool,
) -> Result<(Header, D), WireError> {
    check_size(bytes.len(), limit)?;
    let read: Read<'_> = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
    if !known(&read.header.kind) {
        return Err(WireError::UnknownKind(
            read.header.kind.chars().take(80).collect(),
        ));
    }
    let data =
        serde_json::from_str(read.data.map_or("null", RawValue::get)).map_err(|e| malformed(&e))?;
    Ok((read.header, data))
}

fn check_size(bytes: usize, limit: usize) -> Result<(), WireError> {
    if bytes > limit {
        return Err(WireError::Oversize { bytes, limit });
    }
    Ok(())
}

fn malformed(error: &serde_json::Error) -> WireError {
    WireError::Malformed(error.to_string().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(
            MessageId::from_random([7; 10]),
            Time::from_micros(1),
            "greeting",
        )
    }

    #[test]
    fn messages_round_trip() {
        let bytes = encode(&header(), &"hello", MESSAGE_MAX_BYTES).unwrap();
        let (read, data): (_, String) = decode(&bytes, "greeting", MESSAGE_MAX_BYTES).unwrap();
        assert_eq!((read, data.as_str()), (header(), "hello"));
    }

    #[test]
    fn unknown_fields_are_tolerated_and_unknown_kinds_told_apart() {
        let text = br#"{"v":2,"id":"aaaaaaaaaaaaaaaa","time":"2026-01-01T00:00:00Z","kind":"greeting","data":"x","mood":1}"#;
        assert!(decode::<String>(text, "greeting", 1000).is_ok());
        assert_eq!(
            decode::<String>(text, "farewell", 1000).unwrap_err(),
            WireError::UnknownKind("greeting".to_owned())
        );
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in [
            &b""[..],
            b"{}",
            b"\xff\xfe",
            b"[1,2",
            b"{\"v\":1,\"data\":3}",
        ] {
            assert!(matches!(
                decode::<String>(bad, "greeting", 1000),
                Err(WireError::Malformed(_))
            ));
        }
        assert!(matches!(
            decode::<String>(&[b' '; 101], "greeting", 100),
            Err(WireError::Oversize {
                bytes: 101,
                limit: 100
            })
        ));
        assert!(encode(&header(), &"x".repeat(200), 100).is_err());
    }
}
