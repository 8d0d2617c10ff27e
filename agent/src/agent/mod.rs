//! The agent: the link between this machine and the hub.
//!
//! An imperative shell around the contract's attempt machine: tickets, the executor's events, the
//! operator's commands and the link are inputs; appends, starts and kills are effects. It owns no
//! process and no result: those are the executor's, so that an agent can die at any moment.

mod capacity;
mod context;
mod deliver;
mod driver;
mod epoch;
mod events;
mod lanes;
mod lease;
mod listen;
mod presence;
mod probes;
mod puller;
mod pump;
mod queues;
mod recall;
mod routes;
mod specs;
mod stats;
mod status;
mod supervisor;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fleet_contract::ids::MachineId;
use fleet_nats::connect::ConnectError;
use fleet_nats::home::Home;
use fleet_nats::hub::Credentials;

use crate::executor::{ClientError, ExecutorCommand, OutputBound};

pub use status::{AgentStatus, SpoolStatus, StatusError, read_status};
pub use supervisor::run;

/// How long a stopping agent lets its jobs run on, unless configured.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// How an agent is started.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Where everything is kept.
    pub home: Home,
    /// The machine it speaks for; the credentials are for the same.
    pub machine: MachineId,
    /// The hub's addresses; empty: those of the credentials.
    pub urls: Vec<String>,
    /// Worker's credentials.
    pub credentials: Credentials,
    /// How many attempts may run at once.
    pub slots: u32,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// Variables of every job on this machine.
    pub env: BTreeMap<String, String>,
    /// How often it says that it is there.
    pub heartbeat: Duration,
    /// How long a stopping agent lets its jobs run on before it ends them.
    pub grace: Duration,
    /// How much output of all jobs may lie on this machine.
    pub keep: OutputBound,
    /// Whether it looks for skills by itself, or only when it is asked to.
    pub probe: bool,
    /// How the executor is started.
    pub executor: ExecutorCommand,
    /// How the login shell's environment is asked for (see [`crate::world`]).
    pub login_env: ExecutorCommand,
    /// The version of this fleet.
    pub version: String,
}

/// How an agent is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    No,
    /// Take no more work, let what runs run for the grace time, then end it.
    Gracefully,
    /// End what runs now.
    Now,
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another process has this home.
    #[error("an agent{} already runs in {}: stop it first, or use another FLEET_HOME", pid_text(*pid), home.display())]
    AlreadyRunning {
        /// Its process.
        pid: Option<u32>,
        /// The home.
        home: PathBuf,
    },
    /// Another home has this machine's lease.
    #[error(
        "another agent is running as {machine} on {host} (this host is {here}): stop it, or choose another name with --name"
    )]
    NameTaken {
        /// The name.
        machine: MachineId,
        /// Where the other one runs.
        host: String,
        /// Where this one runs.
        here: String,
    },
    /// A file of the agent's.
    #[error("cannot use {path}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No executor, no jobs.
    #[error(transparent)]
    Executor(#[from] ClientError),
    /// A part of the agent ended that never should.
    #[error("the agent cannot go on without {0}: this is a mistake in fleet; start it again")]
    Broken(&'static str),
    /// No way to the hub, now or ever.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
