//! Where fleet keeps its files: one root, `FLEET_HOME`, and a typed path for everything below it.
//! Reads neither the environment nor the disk; whoever makes a [`Home`] has decided where it is.

use std::path::{Path, PathBuf};

use fleet_contract::ids::MachineId;

/// The root of every file fleet writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home at this folder, which need not exist yet. Give an absolute path: a relative one
    /// means something else as soon as a process changes its folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`, the user's settings.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `roles.d/`, the operator's own templates of jobs.
    #[must_use]
    pub fn roles(&self) -> PathBuf {
        self.root.join("roles.d")
    }

    /// `credentials/`, 0700.
    #[must_use]
    pub fn credentials_dir(&self) -> PathBuf {
        self.root.join("credentials")
    }

    /// `credentials/operator.creds`, written when a hub starts here.
    #[must_use]
    pub fn operator_credentials(&self) -> PathBuf {
        self.credentials_dir().join("operator.creds")
    }

    /// `credentials/<machine>.creds`: what this machine's agent shows to the hub.
    #[must_use]
    pub fn machine_credentials(&self, machine: &MachineId) -> PathBuf {
        self.credentials_dir().join(format!("{machine}.creds"))
    }

    /// `hub/`, 0700: everything the hub keeps.
    #[must_use]
    pub fn hub_dir(&self) -> PathBuf {
        self.root.join("hub")
    }

    /// `hub/hub.json`, what the hub knows about itself.
    #[must_use]
    pub fn hub_record(&self) -> PathBuf {
        self.hub_dir().join("hub.json")
    }

    /// `hub/lock`, held while a hub runs here.
    #[must_use]
    pub fn hub_lock(&self) -> PathBuf {
        self.hub_dir().join("lock")
    }

    /// `hub/nats-server.conf`, rendered anew at every start.
    #[must_use]
    pub fn server_config(&self) -> PathBuf {
        self.hub_dir().join("nats-server.conf")
    }

    /// `hub/nats-server.pid`.
    #[must_use]
    pub fn server_pid(&self) -> PathBuf {
        self.hub_dir().join("nats-server.pid")
    }

    /// `hub/nats-server.log`.
    #[must_use]
    pub fn server_log(&self) -> PathBuf {
        self.hub_dir().join("nats-server.log")
    }

    /// `hub/nats-server.out`: what the server says before it has opened its log.
    #[must_use]
    pub fn server_output(&self) -> PathBuf {
        self.hub_dir().join("nats-server.out")
    }

    /// `hub/keys/`, 0700.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.hub_dir().join("keys")
    }

    /// `hub/keys/identity.json`, 0600: the seeds that make this hub the owner of its fleet.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.keys_dir().join("identity.json")
    }

    /// `hub/jetstream/`: the streams. The server makes this folder below [`Home::hub_dir`].
    #[must_use]
    pub fn jetstream_dir(&self) -> PathBuf {
        self.hub_dir().join("jetstream")
    }

    /// `agent/`, 0700: everything the agent and its executor keep. What lies below is the executor's
    /// own affair (`fleet_agent::executor::attempt_dir`).
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// `agent/instance.json`.
    #[must_use]
    pub fn agent_instance(&self) -> PathBuf {
        self.agent_dir().join("instance.json")
    }

    /// `agent/skills.json`: what the agent found the last time.
    #[must_use]
    pub fn agent_skills(&self) -> PathBuf {
        self.agent_dir().join("skills.json")
    }

    /// `skills.d/`: skills of the operator's own.
    #[must_use]
    pub fn skills_dir(&self) -> PathBuf {
        self.root.join("skills.d")
    }

    /// `agent/lock`, held while an agent runs here.
    #[must_use]
    pub fn agent_lock(&self) -> PathBuf {
        self.agent_dir().join("lock")
    }

    /// `spool/`, 0700: what waits here for the hub.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// `spool/events/`: what the agent has to tell.
    #[must_use]
    pub fn spool_events(&self) -> PathBuf {
        self.spool_dir().join("events")
    }

    /// `spool/dispatch/`: jobs that were dispatched while the hub was away.
    #[must_use]
    pub fn spool_dispatch(&self) -> PathBuf {
        self.spool_dir().join("dispatch")
    }

    /// `bin/nats-server`, what `fleet hub install-server` unpacked.
    #[must_use]
    pub fn server_binary(&self) -> PathBuf {
        self.root.join("bin").join("nats-server")
    }
}
