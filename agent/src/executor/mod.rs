//! The executor: parent of every job of this machine, in a process of its own that outlives the
//! agent.
//!
//! Nobody but its parent can wait for a process. So that neither a crash nor an upgrade of the
//! agent loses a job, its output or its exit status, jobs belong to this second, small process:
//! it starts them, reads their pipes, writes output and outcome to disk, and ends everything
//! they started. It knows nothing of the hub. The agent speaks to it through
//! [`ExecutorClient`]; what it wrote is read with [`LogReader`].

pub(crate) mod boot;
mod client;
mod engine;
pub(crate) mod frame;
pub(crate) mod log;
mod orphans;
mod outbox;
#[cfg(target_os = "linux")]
#[path = "platform_linux.rs"]
mod platform;
#[cfg(not(target_os = "linux"))]
#[path = "platform_macos.rs"]
mod platform;
pub(crate) mod protocol;
mod pump;
pub(crate) mod record;
mod recover;
pub(crate) mod room;
mod run_here;
mod server;
mod socket;
mod spawn;
mod wakeups;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fleet_contract::ids::{AttemptId, JobId};
use fleet_contract::time::Time;

pub use boot::{BootTime, boot_now};
pub use client::{ClientError, ConnectOptions, ExecutorClient, ExecutorCommand, Start};
pub use log::{Chunk, Gap, LogRead, LogReader};
pub use protocol::{
    AttemptReport, EndedRecord, Environment, ExecutorEvent, FRAME_MAX_BYTES, FrameError, KillCause,
    PROTOCOL_VERSION, StartRequest,
};
pub(crate) use record::{ended_before, make_private_dir};
pub use room::{Kept, OutputBound};
pub use run_here::{RunHere, read_run, run_here};
pub use server::{ExecutorOptions, serve, serve_blocking};
pub(crate) use server::{ended_dir, own_environment};

/// Why an executor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Another executor holds the same `FLEET_HOME`.
    #[error("another executor already works for {}", .0.display())]
    Busy(PathBuf),
    /// A second engine in one process would take the first one's jobs for strangers.
    #[error("this process already runs jobs: one at a time")]
    SecondInProcess,
    /// A file, folder or socket.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// Signals, timers, threads.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

/// The folder of an attempt's files under this `FLEET_HOME`: what [`LogReader::new`] wants.
#[must_use]
pub fn attempt_dir(home: &Path, job: JobId, attempt: AttemptId) -> PathBuf {
    jobs_dir(home).join(job.as_str()).join(attempt.as_str())
}

fn agent_dir(home: &Path) -> PathBuf {
    home.join("agent")
}

fn jobs_dir(home: &Path) -> PathBuf {
    agent_dir(home).join("jobs")
}

fn wall_now() -> Time {
    let micros = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    Time::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// Holds the right to be the one engine of this process.
struct OnlyOne;

static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

impl OnlyOne {
    fn take() -> Result<Self, ExecutorError> {
        if TAKEN.swap(true, std::sync::atomic::Ordering::AcqRel) {
            return Err(ExecutorError::SecondInProcess);
        }
        Ok(Self)
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        TAKEN.store(false, std::sync::atomic::Ordering::Release);
    }
}
