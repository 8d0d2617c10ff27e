//! File → facts: what a fleet did once, from a recording, in the order in which the hub stored it.

use std::fs::File;
use std::path::Path;

use fleet_contract::projection::Fact;
use fleet_contract::time::Time;
use fleet_nats::recording::{self, RecordingError};

use super::decode;
use crate::model::Reader;

/// A fact, who would have brought it, and when it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Replayed {
    /// Who reads its stream.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests bring streams in other orders")
    )]
    pub(crate) reader: Reader,
    /// When it was stored, by the hub's clock.
    pub(crate) stored: Time,
    /// It.
    pub(crate) fact: Fact,
}

/// Reads a recording as if it had happened so many microseconds later; messages of streams that the
/// console does not read are left out.
///
/// # Errors
/// `Broken` where there is no such file; otherwise as [`recording::Reader`].
pub(crate) fn read(
    file: &Path,
    shift: i64,
) -> Result<impl Iterator<Item = Result<Replayed, RecordingError>> + use<>, RecordingError> {
    let file = File::open(file).map_err(|source| RecordingError::Broken { line: 0, source })?;
    let messages = recording::Reader::begin(file)?;
    Ok(messages.filter_map(move |next| {
        let recorded = match next {
            Err(error) => return Some(Err(error)),
            Ok(recorded) => recorded,
        };
        let reader = decode::reader(&recorded.stream)?;
        let stored = recorded.message.time.as_micros().saturating_add(shift);
        let stored = Time::from_micros(stored);
        Some(Ok(Replayed {
            reader,
            stored,
            fact: decode::fact(reader, &recorded.message, stored),
        }))
    }))
}
