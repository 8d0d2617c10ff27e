//! Jobs and machines as `--json` prints them and the console lists them: stable field names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, Lane, MachineId};
use crate::job::{Job, JobState, Resolved};
use crate::machine::{self, Degraded, MachineState, Presence};
use crate::outcome::{Outcome, OutputCount};
use crate::record::StateWord;
use crate::spec::{FromRole, JobSpec, Target};
use crate::time::Time;

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Its number, from 1.
    pub attempt: u32,
    /// Its id.
    pub id: AttemptId,
    /// Its machine.
    pub machine: MachineId,
    /// Its fencing token.
    pub token: u64,
    /// When its process was started; while that is not known of one that runs, when it was claimed.
    pub started_at: Option<Time>,
    /// When it ended or was given up.
    pub ended_at: Option<Time>,
    /// Its exit code, if it ended by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// Why it ended, where neither tells.
    pub reason: Option<String>,
    /// What it wrote.
    pub output: OutputCount,
}

/// An attempt that had run though another decision held: its end does not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupersededView {
    /// The attempt, and how it had truly ended.
    #[serde(flatten)]
    pub ran: AttemptView,
    /// Who has acknowledged it.
    pub acknowledged_by: Option<String>,
}

/// That the operator said how a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedView {
    /// Who said so.
    pub by: String,
    /// When, by their clock.
    pub at: Time,
    /// Why, in words.
    pub notes: Option<String>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Its state.
    pub state: StateWord,
    /// The machine it runs or ran on last, or is pinned to.
    pub machine: Option<MachineId>,
    /// The lane it waits or waited in; none for a pinned one.
    pub lane: Option<Lane>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether the command is a line for a shell.
    pub shell: bool,
    /// The number of the last attempt, 0 before the first.
    pub attempt: u32,
    /// All attempts.
    pub attempts: Vec<AttemptView>,
    /// Attempts that had run though another decision held.
    #[serde(default)]
    pub superseded: Vec<SupersededView>,
    /// Whether one of those is not acknowledged.
    #[serde(default)]
    pub unacknowledged: bool,
    /// Whether more than one attempt had a process, one of them superseded.
    #[serde(default)]
    pub two_ran: bool,
    /// The exit code of the last attempt, once it ended by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended the last attempt.
    pub signal: Option<u8>,
    /// Why it stands where it stands, in words.
    pub reason: Option<String>,
    /// Who said that it ended so, where that is the operator's word.
    #[serde(default)]
    pub resolved: Option<ResolvedView>,
    /// Whether the operator wants the running attempt ended.
    pub cancel_requested: bool,
    /// When it was dispatched.
    pub submitted_at: Time,
    /// When its last attempt was started, or claimed while no more is known.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Who dispatched it.
    pub submitted_by: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The folder it runs in; none is the home of the user there.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Where that is another one on some machines.
    #[serde(default)]
    pub cwd_on: BTreeMap<MachineId, String>,
    /// The role it was made from.
    #[serde(default)]
    pub role: Option<FromRole>,
    /// Its number among the jobs of one `--count`.
    pub index: Option<u32>,
    /// What it needs of its machine, in canonical form.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub needs: String,
    /// The machines it would rather run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// The last sequence of its journal: what an action names as what it saw.
    pub revision: u64,
}

impl JobView {
    /// The job for people and programs.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        let attempts: Vec<AttemptView> = job.attempts.iter().map(attempt_view).collect();
        let last = attempts.last();
        let word = job.state.word();
        let machine = last
            .map(|a| a.machine.clone())
            .filter(|_| word != StateWord::Queued);
        let (lane, pin) = match &job.target {
            Target::Lane(lane) => (Some(lane.clone()), None),
            Target::Pin(machine) => (None, Some(machine.clone())),
        };
        let ended = word.is_terminal();
        Self {
            id: job.id,
            name: job.spec.name.clone(),
            state: word,
            machine: machine.or(pin),
            lane,
            command: job.spec.command.clone(),
            shell: job.spec.shell,
            attempt: last.map_or(0, |a| a.attempt),
            exit_code: last.and_then(|a| a.exit_code).filter(|_| ended),
            signal: last.and_then(|a| a.signal).filter(|_| ended),
            reason: reason(&job.state),
            resolved: job.resolved.as_deref().map(resolved_view),
            cancel_requested: job.after().cancel_requested,
            submitted_at: job.spec.submitted_at,
            started_at: last.and_then(|a| a.started_at),
            ended_at: ended.then(|| ended_at(job)),
            submitted_by: job.spec.submitted_by.clone(),
            tags: job.spec.tags.clone(),
            cwd: job.spec.cwd.clone(),
            cwd_on: job.spec.cwd_on.clone(),
            role: job.spec.role.clone(),
            index: job.spec.index,
            needs: job.spec.needs.clone(),
            prefer: job.spec.prefer.clone(),
            revision: job.last_seq,
            attempts,
            superseded: job.superseded.iter().map(superseded_view).collect(),
            unacknowledged: job.unacknowledged() > 0,
            two_ran: job.two_ran(),
        }
    }

    /// A job of which nothing is known but what was dispatched, and the last sequence of its journal
    /// (0 before its first record).
    #[must_use]
    pub fn dispatched(id: JobId, spec: &JobSpec, revision: u64) -> Self {
        let (lane, machine) = match &spec.target {
            Target::Lane(lane) => (Some(lane.clone()), None),
            Target::Pin(machine) => (None, Some(machine.clone())),
        };
        Self {
            id,
            name: spec.name.clone(),
            state: StateWord::Queued,
            machine,
            lane,
            command: spec.command.clone(),
            shell: spec.shell,
            attempt: 0,
            attempts: Vec::new(),
            superseded: Vec::new(),
            unacknowledged: false,
            two_ran: false,
            exit_code: None,
            signal: None,
            reason: None,
            resolved: None,
            cancel_requested: false,
            submitted_at: spec.submitted_at,
            started_at: None,
            ended_at: None,
            submitted_by: spec.submitted_by.clone(),
            tags: spec.tags.clone(),
            cwd: spec.cwd.clone(),
            cwd_on: spec.cwd_on.clone(),
            role: spec.role.clone(),
            index: spec.index,
            needs: spec.needs.clone(),
            prefer: spec.prefer.clone(),
            revision,
        }
    }

    /// What people call it: its name, or its command on one line.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.command.join(" "))
    }

    /// The exit code of a command that waited for it; none while it has not ended. As documented:
    /// the job's own, 128 + n for a signal, 124, 130, or 75 where the outcome is not the job's.
    #[must_use]
    pub fn exit_status(&self) -> Option<u8> {
        match self.state {
            StateWord::Queued | StateWord::Running | StateWord::Backoff => None,
            StateWord::Succeeded => Some(0),
            StateWord::Failed => match (self.exit_code, self.signal) {
                (Some(code), _) if code != 0 => Some(code),
                (_, Some(signal)) => Some(128u8.saturating_add(signal)),
                _ => Some(1),
            },
            StateWord::TimedOut => Some(124),
            StateWord::Canceled => Some(130),
            StateWord::Lost | StateWord::Expired | StateWord::Rejected | StateWord::NeedsHuman => {
                Some(75)
            }
        }
    }
}

/// When a job that has ended did so: with its last attempt, or by a decision after that.
fn ended_at(job: &Job) -> Time {
    let last = job.attempts.last();
    let canceled_later = matches!(job.state, JobState::Canceled)
        && last.is_some_and(|a| a.outcome != Some(Outcome::Canceled));
    let decided = canceled_later || job.resolved.is_some();
    last.filter(|_| !decided && job.state.word() != StateWord::Expired)
        .and_then(|a| a.ended_at)
        .unwrap_or(job.changed_at)
}

fn resolved_view(resolved: &Resolved) -> ResolvedView {
    ResolvedView {
        by: resolved.by.clone(),
        at: resolved.at,
        notes: resolved.notes.clone(),
    }
}

fn reason(state: &JobState) -> Option<String> {
    match state {
        JobState::NeedsHuman { question, .. } => Some(question.clone()),
        JobState::Failed { reason, .. } => reason.clone(),
        JobState::Lost { reason } | JobState::Rejected { reason } => Some(reason.clone()),
        JobState::Backoff { until } => Some(format!("next attempt at {until}")),
        _ => None,
    }
}

/// Exit code, signal, and why it ended where neither tells.
fn ended_how(outcome: Option<&Outcome>) -> (Option<u8>, Option<u8>, Option<String>) {
    match outcome {
        None => (None, None, None),
        Some(Outcome::Exited { exit_code }) => (Some(*exit_code), None, None),
        Some(Outcome::Signaled { signal }) => (None, Some(*signal), None),
        Some(Outcome::TimedOut) => (None, None, Some("timed out".to_owned())),
        Some(Outcome::Canceled) => (None, None, Some("canceled".to_owned())),
        Some(Outcome::Interrupted) => (None, None, Some("interrupted".to_owned())),
        Some(Outcome::Fenced) => (None, None, Some("its lease ran out".to_owned())),
        Some(Outcome::Rejected { reason, .. } | Outcome::Unknown { reason }) => {
            (None, None, Some(reason.clone()))
        }
    }
}

fn attempt_view(attempt: &crate::job::Attempt) -> AttemptView {
    let (exit_code, signal, reason) = ended_how(attempt.outcome.as_ref());
    AttemptView {
        attempt: attempt.no,
        id: attempt.id,
        machine: attempt.machine.clone(),
        token: attempt.token,
        started_at: attempt
            .started_at
            .or_else(|| attempt.ended_at.is_none().then_some(attempt.claimed_at)),
        ended_at: attempt.ended_at,
        exit_code,
        signal,
        reason,
        output: attempt.output,
    }
}

/// A superseded attempt for people and programs.
#[must_use]
pub fn superseded_view(told: &crate::job::Superseded) -> SupersededView {
    // Of one that is fenced it is told here that it was ended, not why it was given up.
    let (exit_code, signal, reason) = match &told.outcome {
        Outcome::Fenced => (None, None, Some("ended by its machine".to_owned())),
        outcome => ended_how(Some(outcome)),
    };
    SupersededView {
        ran: AttemptView {
            attempt: told.no,
            id: told.id,
            machine: told.machine.clone(),
            token: told.token,
            started_at: told.started_at,
            ended_at: told.ended_at,
            exit_code,
            signal,
            reason,
            output: told.output,
        },
        acknowledged_by: told.acknowledged_by.clone(),
    }
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its id.
    pub machine: MachineId,
    /// Its state.
    pub state: MachineState,
    /// When its last beat was stored, by the hub's clock.
    pub seen_at: Time,
    /// How long ago that was for the reader, in milliseconds.
    pub age_ms: u64,
    /// Its host name.
    pub host: String,
    /// The address it reaches the hub from.
    pub address: String,
    /// Slots in all.
    pub slots: u32,
    /// Slots that attempts hold.
    pub slots_used: u32,
    /// Load average of one minute.
    pub load: f64,
    /// Logical processors.
    pub cores: u32,
    /// Memory, in bytes.
    pub mem_total: u64,
    /// Memory that can be had, in bytes.
    pub mem_free: u64,
    /// Disk that can be had, in bytes.
    pub disk_free: u64,
    /// Its system.
    pub os: String,
    /// Its system's version.
    pub os_version: String,
    /// Its processor.
    pub arch: String,
    /// Its fleet's version.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its skills.
    pub skills: BTreeMap<String, String>,
    /// Models it has loaded.
    pub models: Vec<String>,
    /// Median round trip to the hub, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Events, results and chunks of output that wait there for the hub.
    pub spooled: u64,
    /// Bytes of those events and chunks.
    pub spooled_bytes: u64,
    /// When the oldest of them happened or was written.
    pub spooled_since: Option<Time>,
    /// Bytes of output that were dropped there before the hub had them.
    pub dropped_log_bytes: u64,
    /// Why it is degraded.
    pub degraded: Vec<Degraded>,
}

impl MachineView {
    /// The machine for people and programs; its last beat was stored at `seen_at` and is `age` old.
    #[must_use]
    pub fn of(presence: &Presence, seen_at: Time, age: Duration) -> Self {
        let p = presence.clone();
        Self {
            state: machine::state(presence, age),
            machine: p.machine,
            seen_at,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            host: p.host,
            address: p.address,
            slots: p.load.slots,
            slots_used: p.load.slots_used,
            load: p.load.load,
            cores: p.specs.cores,
            mem_total: p.specs.mem_total,
            mem_free: p.load.mem_free,
            disk_free: p.load.disk_free,
            os: p.specs.os,
            os_version: p.specs.os_version,
            arch: p.specs.arch,
            version: p.specs.version,
            labels: p.labels,
            skills: p.skills,
            models: p.models,
            rtt_ms: p.load.rtt_ms,
            spooled: p.load.spooled,
            spooled_bytes: p.load.spooled_bytes,
            spooled_since: p.load.spooled_since,
            dropped_log_bytes: p.load.dropped_log_bytes,
            degraded: p.degraded,
        }
    }
}
