//! What `fleet agent status` reads: a small file that a running agent keeps.

use std::path::PathBuf;

use fleet_contract::ids::{InstanceId, MachineId};
use fleet_contract::time::Time;
use fleet_nats::home::Home;
use serde::{Deserialize, Serialize};

/// What waits on this machine for the hub, and what was lost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Events.
    pub events: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// When the oldest of them happened.
    pub oldest: Option<Time>,
    /// Chunks of output.
    pub chunks: u64,
    /// Their bytes.
    #[serde(default)]
    pub chunk_bytes: u64,
    /// When the oldest of them was written.
    #[serde(default)]
    pub oldest_chunk: Option<Time>,
    /// Results of attempts.
    pub results: u64,
    /// Bytes of output on this machine's disk, of what the hub has already, too.
    #[serde(default)]
    pub kept_bytes: u64,
    /// How many may be there: then the oldest go.
    #[serde(default)]
    pub keep_bytes: u64,
    /// Events that were lost since the agent started.
    pub dropped_events: u64,
    /// Bytes of output that were lost before the hub had them.
    pub dropped_log_bytes: u64,
    /// Why events are lost now.
    pub trouble: Option<String>,
}

/// What a running agent says about itself on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process.
    pub pid: u32,
    /// Its machine.
    pub machine: MachineId,
    /// Its home's identity.
    pub instance: InstanceId,
    /// Since when it runs.
    pub started_at: Time,
    /// When it last wrote this.
    pub written_at: Time,
    /// Whether the hub is there.
    pub connected: bool,
    /// The last error of its link.
    pub last_error: Option<String>,
    /// Whether it holds its machine's lease.
    pub lease: bool,
    /// Slots in all.
    pub slots: u32,
    /// Slots that attempts hold.
    pub slots_used: u32,
    /// Events, results and chunks of output that wait for the hub.
    pub spooled: u64,
    /// The same in detail.
    #[serde(default)]
    pub spool: SpoolStatus,
    /// Its executor's process, while it answers.
    pub executor_pid: Option<u32>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No agent runs in this home.
    #[error("no agent runs in {}: start one with `fleet agent run` or `fleet up`", .0.display())]
    NotRunning(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {path}: {why}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

pub(super) fn path(home: &Home) -> PathBuf {
    home.agent_dir().join("status.json")
}

/// The status of the agent that runs in this home.
///
/// # Errors
/// `NotRunning` where none does.
pub fn read_status(home: &Home) -> Result<AgentStatus, StatusError> {
    if !super::supervisor::is_locked(home) {
        return Err(StatusError::NotRunning(home.root().to_owned()));
    }
    let path = path(home);
    let unreadable = |why: String| StatusError::Unreadable {
        path: path.clone(),
        why,
    };
    let bytes = std::fs::read(&path).map_err(|e| unreadable(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))
}

/// Writes the status; by rename, so that a reader never sees half of it. Not flushed to disk: it
/// means nothing after a power loss.
pub(super) fn write(home: &Home, status: &AgentStatus) {
    let path = path(home);
    let temporary = path.with_extension("new");
    let written = serde_json::to_vec(status)
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "cannot write the agent's status");
    }
}
