//! `hub.json`: what the hub knows about itself from one start to the next. Only the hub that
//! holds the lock writes it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use fleet_contract::ids::MachineId;
use fleet_contract::lease::Mark;
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use crate::files::{private_dir, write_durably};
use crate::guard::Recovered;
use crate::home::Home;

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not a hub's record. Not replaced: without it a damaged store looks like a new
    /// one.
    #[error("{} is damaged ({source}): restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What the hub knows about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubRecord {
    /// Format of this file.
    pub version: u32,
    /// When this hub was started first.
    pub created_at: Time,
    /// The epoch of the journal: another, greater one after each time that it went back. The upper
    /// part of every fencing token, so that none is given out twice.
    pub epoch: u64,
    /// The server's name.
    pub name: String,
    /// Where clients reach the hub on this machine, as of the last start: `host:port`.
    pub listen: String,
    /// Where health is asked for, as of the last start: `host:port`, loopback.
    pub monitor: String,
    /// Bytes that all streams together may use. Decided at the first start and kept: it should
    /// not follow a disk that others fill. (The server still loads streams that have
    /// reserved more.)
    pub max_file_store: u64,
    /// What was stored, by stream, to notice a damaged store. Empty before the first start is over.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamRecord>,
    /// A recovery that was begun and is not known to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<Recovering>,
    /// The last recovery that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// The store was put back from a backup of this time and has not been recovered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Time>,
    /// Machines that are not let in until the operator says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locked_out: BTreeMap<MachineId, LockedOut>,
    /// Fields of a newer fleet, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A machine that is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOut {
    /// Since when, by the hub's clock.
    pub at: Time,
    /// Why: what it sent.
    pub reason: String,
    /// Public keys of its users, with the time up to which what was issued to them is revoked, in
    /// seconds since 1970.
    pub keys: BTreeMap<String, i64>,
}

/// A recovery under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovering {
    /// What the store is as of, in words.
    pub since: String,
    /// What was wrong, by stream.
    pub damage: BTreeMap<String, String>,
    /// Where the journal ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Mark>,
}

/// What the hub remembers of one stream, to notice a damaged store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// The server's creation time of the stream, verbatim.
    pub created: String,
    /// Highest sequence known to have been stored.
    pub last_sequence: u64,
}

impl HubRecord {
    /// Public keys that are not let in, as the server wants them.
    pub(crate) fn revoked(&self) -> BTreeMap<String, i64> {
        let all = self.locked_out.values();
        all.flat_map(|locked| locked.keys.clone()).collect()
    }

    /// Reads the record of this home; `None` where no hub was ever started.
    ///
    /// # Errors
    /// [`RecordError`]; a damaged file is not replaced.
    pub fn load(home: &Home) -> Result<Option<Self>, RecordError> {
        let path = home.hub_record();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(RecordError::File {
                    verb: "read",
                    path,
                    source,
                });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| RecordError::Damaged { path, source })
    }

    /// Writes the record durably. Only the process that holds the hub's lock may.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn save(&self, home: &Home) -> Result<(), RecordError> {
        let path = home.hub_record();
        let write = || {
            private_dir(&home.hub_dir())?;
            let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
            write_durably(&path, &bytes, 0o600)
        };
        write().map_err(|source| RecordError::File {
            verb: "write",
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_kept_with_what_a_newer_fleet_added() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        assert_eq!(HubRecord::load(&home).unwrap(), None);
        let text = r#"{"version":1,"created_at":"2026-01-31T12:00:00.000000Z","epoch":0,
            "name":"studio","listen":"127.0.0.1:4222","monitor":"127.0.0.1:8222",
            "max_file_store":1073741824,"colour":"blue"}"#;
        private_dir(&home.hub_dir()).unwrap();
        std::fs::write(home.hub_record(), text).unwrap();
        let mut record = HubRecord::load(&home).unwrap().unwrap();
        record.epoch += 1;
        let stream = StreamRecord {
            created: "x".into(),
            last_sequence: 7,
        };
        record.streams.insert("JOB".into(), stream);
        record.save(&home).unwrap();
        let again = HubRecord::load(&home).unwrap().unwrap();
        assert_eq!(again, record);
        assert_eq!(again.other["colour"], "blue");
    }

    #[test]
    fn a_damaged_record_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        private_dir(&home.hub_dir()).unwrap();
        std::fs::write(home.hub_record(), "{").unwrap();
        assert!(matches!(
            HubRecord::load(&home),
            Err(RecordError::Damaged { .. })
        ));
    }
}
