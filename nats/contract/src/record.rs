//! Records of the journal: the transitions of a job, and the words for its states.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, MachineId, TicketId};
use crate::outcome::{Outcome, OutputCount};
use crate::spec::{JobSpec, Target};
use crate::time::Time;

/// The word for a job's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Waits for a machine.
    Queued,
    /// An attempt runs.
    Running,
    /// Waits until its next attempt is due.
    Backoff,
    /// Waits for the operator's decision.
    NeedsHuman,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise.
    Failed,
    /// Ended because it ran too long.
    TimedOut,
    /// Ended because the operator asked for it.
    Canceled,
    /// Its machine is gone, its outcome unknown.
    Lost,
    /// Never started in time.
    Expired,
    /// Could not be started.
    Rejected,
}

impl StateWord {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Running,
        Self::Backoff,
        Self::NeedsHuman,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Canceled,
        Self::Lost,
        Self::Expired,
        Self::Rejected,
    ];

    /// The word as it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::NeedsHuman => "needs_human",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Canceled => "canceled",
            Self::Lost => "lost",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether it is an end: it absorbs everything but the operator's retry or resolve.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::Queued | Self::Running | Self::Backoff | Self::NeedsHuman
        )
    }
}

impl std::fmt::Display for StateWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a job was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It is new.
    Dispatch,
    /// Its next attempt is due.
    Backoff,
    /// Its ticket was gone.
    Republish,
    /// The operator wants another attempt.
    Retry,
    /// The operator wants it elsewhere.
    Move,
    /// The operator decided that it shall run again.
    Resolve,
    /// The operator answered its question.
    Answer,
}

/// What becomes of the job after an attempt of it ended. Decided by the writer of the record by
/// [`crate::policy::next`], because it holds a time and a random draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "next")]
pub enum Next {
    /// The job ends as the attempt did.
    End,
    /// Another attempt, not before this time.
    Backoff {
        /// When it is due, by the writer's clock: how long after the record's own time it is counts.
        until: Time,
    },
    /// The operator decides.
    Ask {
        /// What to decide, in words.
        question: String,
    },
}

/// One transition of a job, in the past tense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A ticket for the job waits.
    Queued {
        /// The ticket that is valid from now on.
        ticket: TicketId,
        /// Where it waits.
        target: Target,
        /// The ticket's sequence in its stream, to delete it by.
        work_seq: u64,
        /// Why.
        cause: Cause,
        /// The job itself, in its first record only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<JobSpec>>,
    },
    /// A machine took the job; this record's sequence is the attempt's fencing token.
    Claimed {
        /// The attempt.
        attempt: AttemptId,
        /// Its number, from 1.
        no: u32,
        /// The ticket it was claimed by.
        ticket: TicketId,
        /// The hub's epoch: how often its store was rebuilt.
        #[serde(default)]
        epoch: u64,
        /// Nobody writes or reads it any more: where a job waits is not for its claimant to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Target>,
        /// The term of the machine's lease that it was claimed under
        /// ([`crate::lease::LeaseRecord::term`]), 0 where the writer does not say.
        #[serde(default, skip_serializing_if = "is_zero")]
        lease: u64,
        /// The job itself, where the claim is its first record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<JobSpec>>,
    },
    /// The attempt ended and every process of it is gone.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
        /// What it wrote.
        #[serde(default)]
        output: OutputCount,
        /// When its process was started, by its machine's clock.
        started_at: Time,
        /// When it was gone, by its machine's clock.
        ended_at: Time,
        /// What becomes of the job.
        next: Next,
    },
    /// The operator wants the running attempt ended.
    CancelRequested {
        /// Who asked.
        by: String,
    },
    /// The operator ended a job that no machine runs.
    Canceled {
        /// Who did.
        by: String,
    },
    /// The lease of the attempt's machine is over.
    Lost {
        /// The attempt.
        attempt: AttemptId,
        /// What is known, in words.
        reason: String,
        /// What becomes of the job.
        next: Next,
    },
    /// It waited longer than it was worth.
    Expired {},
    /// Nobody could start it.
    Rejected {
        /// Why, in words.
        reason: String,
    },
    /// The operator said how it ended.
    Resolved {
        /// The end: `succeeded` or `failed`.
        to: StateWord,
        /// Who said so.
        by: String,
        /// Why, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notes: Option<String>,
    },
    /// The keeper says again what holds, over a record that does not count.
    Restated {},
    /// The hub's store went back in time or lost records, and nobody knows what became of the job:
    /// the operator decides, unless a machine reports an attempt at it.
    Recovered {
        /// The hub's epoch from now on.
        epoch: u64,
        /// What to decide, in words.
        question: String,
    },
    /// A machine reports an attempt of an earlier epoch that it still answers for: claimed before
    /// the hub's store went back in time, running on, or ended with an end that nobody knows yet.
    Adopted {
        /// The attempt.
        attempt: AttemptId,
        /// Its number, from 1.
        no: u32,
        /// Its fencing token, as it was handed to the process.
        token: u64,
        /// The hub's epoch in which it is reported.
        epoch: u64,
        /// The term of the machine's lease under which it is reported.
        lease: u64,
        /// The job itself, where this is its first record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<JobSpec>>,
    },
    /// A remark, which changes nothing: an attempt had run though another decision held, and its
    /// machine has told how it truly ended.
    Superseded {
        /// The attempt.
        attempt: AttemptId,
        /// Its number, from 1.
        no: u32,
        /// Its machine.
        machine: MachineId,
        /// Its fencing token.
        token: u64,
        /// How it had ended.
        outcome: Outcome,
        /// What it wrote.
        #[serde(default)]
        output: OutputCount,
        /// When its process was started, by its machine's clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<Time>,
        /// When it was gone, by its machine's clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended_at: Option<Time>,
    },
    /// A remark, which changes nothing: the operator knows of every superseded attempt told so far.
    Acknowledged {
        /// Who does.
        by: String,
    },
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Change {
    /// The change's kind on the wire and in the flow, `job.` before it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "job.queued",
            Self::Claimed { .. } => "job.claimed",
            Self::Ended { .. } => "job.ended",
            Self::CancelRequested { .. } => "job.cancel_requested",
            Self::Canceled { .. } => "job.canceled",
            Self::Lost { .. } => "job.lost",
            Self::Expired {} => "job.expired",
            Self::Rejected { .. } => "job.rejected",
            Self::Resolved { .. } => "job.resolved",
            Self::Restated {} => "job.restated",
            Self::Recovered { .. } => "job.recovered",
            Self::Adopted { .. } => "job.adopted",
            Self::Superseded { .. } => "job.superseded",
            Self::Acknowledged { .. } => "job.acknowledged",
        }
    }

    /// Whether `kind` is one this binary can read.
    #[must_use]
    pub fn knows_kind(kind: &str) -> bool {
        const KINDS: [&str; 14] = [
            "job.queued",
            "job.claimed",
            "job.ended",
            "job.cancel_requested",
            "job.canceled",
            "job.lost",
            "job.expired",
            "job.rejected",
            "job.resolved",
            "job.restated",
            "job.recovered",
            "job.adopted",
            "job.superseded",
            "job.acknowledged",
        ];
        KINDS.contains(&kind)
    }

    /// The attempt it is about.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Claimed { attempt, .. }
            | Self::Ended { attempt, .. }
            | Self::Lost { attempt, .. }
            | Self::Adopted { attempt, .. }
            | Self::Superseded { attempt, .. } => Some(*attempt),
            _ => None,
        }
    }

    /// Whether it only tells something and changes nothing.
    #[must_use]
    pub fn is_remark(&self) -> bool {
        matches!(self, Self::Superseded { .. } | Self::Acknowledged { .. })
    }
}

/// The state after a record, in short: what a reader of only the last record needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The state's word.
    pub state: StateWord,
    /// The open attempt, if any: the one that may still write an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptId>,
    /// The machine of the open attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Whether the operator wants the open attempt ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// How many of them were lost.
    #[serde(default)]
    pub losses: u32,
}

/// One record of a job's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sequence of the job's previous record, 0 for the first. The append expects it too.
    pub prev: u64,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
    /// What holds now.
    pub after: After,
}
