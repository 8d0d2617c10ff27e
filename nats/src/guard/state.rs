//! What is there of the streams, as the server says it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fleet_contract::damage;
use fleet_contract::time::Time;
use serde::Deserialize;

use crate::bus::{Bus, BusError};
use crate::hub::StreamRecord;
use crate::subject::stream;

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// Its creation time, verbatim.
    pub created: String,
    /// Its first sequence.
    pub first_seq: u64,
    /// Its last sequence.
    pub last_seq: u64,
    /// When its last message was stored, verbatim.
    pub last_time: String,
    /// When its first message was stored; none where it is empty.
    pub first_time: Option<Time>,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Most bytes it may hold; 0: no limit.
    pub max_bytes: u64,
    /// How long messages are kept; none: for ever.
    pub max_age: Option<Duration>,
}

/// Every stream of the contract that is there.
///
/// # Errors
/// What the server says.
pub async fn streams(bus: &Bus) -> Result<BTreeMap<String, StreamState>, BusError> {
    #[derive(Deserialize)]
    struct Info {
        created: String,
        config: Config,
        state: State,
    }
    #[derive(Deserialize)]
    struct Config {
        max_bytes: i64,
        #[serde(default)]
        max_age: u64,
    }
    #[derive(Deserialize)]
    struct State {
        messages: u64,
        bytes: u64,
        first_seq: u64,
        last_seq: u64,
        #[serde(default)]
        first_ts: String,
        #[serde(default)]
        last_ts: String,
    }
    let mut found = BTreeMap::new();
    for name in stream::ALL {
        let info = bus
            .api::<Info>(&format!("STREAM.INFO.{name}"), Bytes::new())
            .await;
        let info = match info {
            Ok(info) => info,
            // 10059: stream not found.
            Err(BusError::Server { code: 10059, .. }) => continue,
            Err(error) => return Err(error),
        };
        let state = StreamState {
            created: info.created,
            first_seq: info.state.first_seq,
            last_seq: info.state.last_seq,
            last_time: info.state.last_ts,
            first_time: match info.state.messages {
                0 => None,
                _ => info.state.first_ts.parse().ok(),
            },
            messages: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
            max_age: match info.config.max_age {
                0 => None,
                nanos => Some(Duration::from_nanos(nanos)),
            },
        };
        found.insert(name.to_owned(), state);
    }
    Ok(found)
}

/// The same for the contract's decision.
pub(super) fn found(streams: &BTreeMap<String, StreamState>) -> BTreeMap<String, damage::Found> {
    let one = |(name, state): (&String, &StreamState)| {
        let found = damage::Found {
            created: state.created.clone(),
            last_seq: state.last_seq,
        };
        (name.clone(), found)
    };
    streams.iter().map(one).collect()
}

/// What `hub.json` holds, for the contract's decision.
pub(super) fn recorded(
    streams: &BTreeMap<String, StreamRecord>,
) -> BTreeMap<String, damage::Recorded> {
    let one = |(name, record): (&String, &StreamRecord)| {
        let recorded = damage::Recorded {
            created: record.created.clone(),
            last_seq: record.last_sequence,
        };
        (name.clone(), recorded)
    };
    streams.iter().map(one).collect()
}

/// Writes down what is there where it is more of the same: what is less is damage, and to be seen.
pub(super) fn advance(
    written: &mut BTreeMap<String, StreamRecord>,
    there: &BTreeMap<String, StreamState>,
) {
    for (name, mark) in marks(there) {
        match written.get_mut(&name) {
            Some(was) if was.created != mark.created || was.last_sequence > mark.last_sequence => {}
            Some(was) => *was = mark,
            None => drop(written.insert(name, mark)),
        }
    }
}

/// What is to be written down.
pub(super) fn marks(streams: &BTreeMap<String, StreamState>) -> BTreeMap<String, StreamRecord> {
    let one = |(name, state): (&String, &StreamState)| {
        let record = StreamRecord {
            created: state.created.clone(),
            last_sequence: state.last_seq,
        };
        (name.clone(), record)
    };
    streams.iter().map(one).collect()
}
