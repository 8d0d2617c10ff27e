//! Events: past-tense facts. Those about jobs are the journal itself; all others are these.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AttemptId, JobId, MachineId, MessageId};
use crate::outcome::{Outcome, OutputCount};
use crate::time::Time;

/// The kinds of event that are not transitions of a job. Kinds are open: a reader tolerates others.
pub mod kind {
    /// An agent took its machine into service.
    pub const MACHINE_UP: &str = "machine.up";
    /// An agent said goodbye.
    pub const MACHINE_OFFLINE: &str = "machine.offline";
    /// A machine's connection closed without goodbye, or its beats stopped.
    pub const MACHINE_LOST: &str = "machine.lost";
    /// A machine became degraded, or for other reasons than before.
    pub const MACHINE_DEGRADED: &str = "machine.degraded";
    /// A machine is no longer degraded.
    pub const MACHINE_RECOVERED: &str = "machine.recovered";
    /// A sample of a machine's load, for who draws its past: told when it changed noticeably. No news.
    pub const MACHINE_LOAD: &str = "machine.load";
    /// What a machine can do is not as it was: skills, loaded models, graphics processors.
    pub const MACHINE_SKILLS: &str = "machine.skills";
    /// A machine was started anew since its agent ran last.
    pub const MACHINE_REBOOTED: &str = "machine.rebooted";
    /// An agent lost the hub: told once it has found it again.
    pub const LINK_LOST: &str = "link.lost";
    /// What a machine had kept for the hub while it was away is with it.
    pub const SPOOL_REPLAYED: &str = "spool.replayed";
    /// Events that nobody will ever see: how many, and why.
    pub const SPOOL_DROPPED: &str = "spool.dropped";
    /// What a machine kept for the hub was damaged on its disk.
    pub const SPOOL_DAMAGED: &str = "spool.damaged";
    /// An agent found the hub again.
    pub const LINK_HEALED: &str = "link.healed";
    /// An agent started its executor.
    pub const EXECUTOR_STARTED: &str = "executor.started";
    /// An attempt had ended, or was ended, after another decision held.
    pub const ATTEMPT_SUPERSEDED: &str = "attempt.superseded";
    /// A record of the journal that does not count.
    pub const JOURNAL_VOID: &str = "journal.void";
    /// A message that is no message: malformed, oversize.
    pub const MESSAGE_MALFORMED: &str = "message.malformed";
    /// The hub is ready.
    pub const HUB_STARTED: &str = "hub.started";
    /// The hub's nats-server died and was started again.
    pub const HUB_SERVER_RESTARTED: &str = "hub.server_restarted";
    /// The hub stops in order.
    pub const HUB_STOPPING: &str = "hub.stopping";
    /// The keeper removed ended jobs: which, and why.
    pub const JOB_PURGED: &str = "hub.job_purged";
    /// Something that the hub stored is not there any more: which stream, and what of it.
    pub const HUB_DAMAGED: &str = "hub.damaged";
    /// The journal went back in time and was recovered into a new epoch: what became of the jobs.
    pub const HUB_RECOVERED: &str = "hub.recovered";
    /// The disk of the hub's store fills up, and what of it is the hub's.
    pub const HUB_DISK_SHORT: &str = "hub.disk_short";
    /// The disk of the hub's store is nearly full: it takes neither dispatches nor output.
    pub const HUB_DISK_LOW: &str = "hub.disk_low";
    /// A stream takes nothing any more: its disk was full.
    pub const HUB_STREAM_SILENT: &str = "hub.stream_silent";
    /// A stream is nearly full, and what makes it grow.
    pub const HUB_NEARLY_FULL: &str = "hub.nearly_full";
    /// A machine sent more than any may, and is not let in until the operator says so.
    pub const HUB_LOCKED_OUT: &str = "hub.locked_out";
    /// What one of the before told is over.
    pub const HUB_WELL_AGAIN: &str = "hub.well_again";
    /// The hub's wall clock jumped.
    pub const HUB_CLOCK_JUMPED: &str = "hub.clock_jumped";
    /// Messages that retention removed, by stream.
    pub const HUB_REMOVED: &str = "hub.removed";
    /// The keeper took over a machine's lease.
    pub const LEASE_TAKEN: &str = "hub.lease_taken";
}

/// The data of an event's envelope: its place in its machine's own order, and its details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Which run of the writer.
    pub boot: String,
    /// The writer's own count, from 1 for each boot.
    pub seq: u64,
    /// Details, by kind.
    #[serde(default)]
    pub detail: Value,
}

/// The details of [`kind::ATTEMPT_SUPERSEDED`]. What an older agent does not say is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededTold {
    /// How the attempt had truly ended.
    pub outcome: Option<Outcome>,
    /// Its number, from 1.
    #[serde(default)]
    pub no: Option<u32>,
    /// Its fencing token.
    #[serde(default)]
    pub token: Option<u64>,
    /// What it wrote.
    #[serde(default)]
    pub output: OutputCount,
    /// When its process was started, by its machine's clock.
    #[serde(default)]
    pub started_at: Option<Time>,
    /// When it was gone, by its machine's clock.
    #[serde(default)]
    pub ended_at: Option<Time>,
}

/// An event as people and programs see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its own id.
    pub id: MessageId,
    /// Its sequence in its stream.
    pub seq: u64,
    /// When it happened, by its writer's clock.
    pub time: Time,
    /// The machine it is about.
    pub machine: Option<MachineId>,
    /// What happened.
    pub kind: String,
    /// The job it is about.
    pub job: Option<JobId>,
    /// The attempt it is about.
    pub attempt: Option<AttemptId>,
    /// Details.
    pub data: Value,
}

impl EventView {
    /// Its details alone: an agent's and a hub's events carry their place in the writer's own order
    /// around them.
    #[must_use]
    pub fn detail(&self) -> &Value {
        self.data.get("detail").unwrap_or(&self.data)
    }
}
