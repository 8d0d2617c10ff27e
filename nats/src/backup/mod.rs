//! Backup and restore of a hub: streams by the server's own snapshots, keys, credentials and
//! configuration as files, and a manifest that names the checksum of each. A backup without a
//! manifest was cut short and is none.
//!
//! It may not recover anything: what was restored is older than what agents have seen, and that is
//! the guard's affair ([`crate::guard`]) at the hub's next start.

mod restore;
mod transfer;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::bus::BusError;
use crate::hub::{HubError, HubRecord, RecordError};

pub use restore::{check, put_files, restore};
pub use write::backup;

/// The manifest's name.
const MANIFEST: &str = "manifest.json";
/// Bytes read or sent at once.
const CHUNK: usize = 128 * 1024;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// `read`, `write` or `make`.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder of the backup is in use.
    #[error("{} is not empty: name a folder that does not exist yet", .0.display())]
    NotEmpty(PathBuf),
    /// There is a hub where one is to be restored.
    #[error("a hub lives in {} already: move that folder away, or restore elsewhere with FLEET_HOME", .0.display())]
    HubThere(PathBuf),
    /// There is no hub to back up.
    #[error("no hub lives in {}: name its home with FLEET_HOME", .0.display())]
    NoHub(PathBuf),
    /// It is no backup.
    #[error("{} is no backup, or one that was cut short: it has no {MANIFEST}", .0.display())]
    NoManifest(PathBuf),
    /// The manifest cannot be read.
    #[error("{} is damaged ({why}): use another backup", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file of the backup is not what was written.
    #[error("{} is damaged: {why}; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A stream.
    #[error("stream {stream}: {why}")]
    Stream {
        /// Which.
        stream: String,
        /// What is wrong.
        why: String,
    },
    /// The server.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The hub that serves the streams for this.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// `hub.json`.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file.
    pub version: u32,
    /// When it was begun.
    pub taken: Time,
    /// Which fleet wrote it.
    pub fleet: String,
    /// The hub's record.
    pub hub: HubRecord,
    /// Every file but this, by its path below the backup.
    pub files: BTreeMap<String, FileSum>,
    /// Every stream.
    pub streams: BTreeMap<String, StreamCopy>,
}

/// A file as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A stream as it was copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamCopy {
    /// Messages in it.
    pub messages: u64,
    /// Its first sequence.
    pub first_seq: u64,
    /// Its last sequence.
    pub last_seq: u64,
    /// Its configuration, as the server wants it back.
    pub config: Value,
    /// Its state, as the server wants it back.
    pub state: Value,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A stream is being copied.
    Stream {
        /// Which.
        stream: &'a str,
        /// Bytes so far.
        bytes: u64,
    },
    /// What was written is read again.
    Verifying,
}

/// How often progress of one stream is told.
const TELL_EVERY: u64 = 64 * 1024 * 1024;

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::File { verb, path, source }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sum of a file, read in pieces.
fn sum(path: &Path) -> Result<FileSum, BackupError> {
    let mut opened = File::open(path).map_err(file("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let n = opened.read(&mut buffer).map_err(file("read", path))?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
        bytes += u64::try_from(n).unwrap_or(0);
    }
    Ok(FileSum {
        bytes,
        sha256: hex(&hash.finalize()),
    })
}

/// Reads every file of the manifest again.
async fn verify(dir: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let (dir, files) = (dir.to_owned(), manifest.files.clone());
    let reading = tokio::task::spawn_blocking(move || {
        for (name, expected) in files {
            let path = dir.join(&name);
            let found = sum(&path)?;
            if found != expected {
                let why = format!(
                    "{} bytes with sum {}, not {} with {}",
                    found.bytes, found.sha256, expected.bytes, expected.sha256
                );
                return Err(BackupError::Damaged { path, why });
            }
        }
        Ok(())
    });
    reading.await.unwrap_or_else(|e| {
        Err(BackupError::Damaged {
            path: PathBuf::from(MANIFEST),
            why: e.to_string(),
        })
    })
}

/// Whether a folder is there and holds something.
fn is_occupied(path: &Path) -> Result<bool, BackupError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file("read", path)(e)),
    }
}
