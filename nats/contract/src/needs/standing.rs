//! How a machine stands to a job: whether it could run it, and what keeps it from doing so now. Pure.

use serde::Serialize;

use super::{Facts, Missing, Needs};
use crate::machine::{MachineState, Presence};
use crate::spec::Target;
use crate::time::Time;

/// How a machine stands to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// It takes it now.
    Ready {
        /// Slots that are free.
        free: u32,
    },
    /// It could run it, but all its slots are taken.
    Full {
        /// How many those are.
        slots: u32,
    },
    /// It could run it, but its jobs hold what is needed.
    Held(Missing),
    /// It could run it, but takes no work now.
    Away,
    /// It has not what is needed.
    Lacks {
        /// How many requirements it does not satisfy.
        lacks: usize,
        /// The first of them.
        #[serde(flatten)]
        first: Missing,
    },
    /// The job may only run on another machine.
    Elsewhere,
}

impl Standing {
    /// How a machine that is in this state, and said so of itself at `said`, stands to a job.
    #[must_use]
    pub fn of(
        needs: &Needs,
        target: &Target,
        presence: &Presence,
        state: MachineState,
        said: Time,
    ) -> Self {
        if matches!(target, Target::Pin(machine) if *machine != presence.machine) {
            return Self::Elsewhere;
        }
        let facts = Facts::of(presence, said);
        let mut missing = needs.missing(&facts);
        if let Some(first) = missing.next() {
            let lacks = 1 + missing.count();
            return Self::Lacks { lacks, first };
        }
        if !state.takes_work() {
            return Self::Away;
        }
        if let Some(held) = needs.held(&facts) {
            return Self::Held(held);
        }
        let load = &presence.load;
        match load.slots.saturating_sub(load.slots_used) {
            0 => Self::Full { slots: load.slots },
            free => Self::Ready { free },
        }
    }

    /// Whether it could run the job, now or later.
    #[must_use]
    pub fn could(&self) -> bool {
        !matches!(self, Self::Lacks { .. } | Self::Elsewhere)
    }

    /// Whether it could run the job and is in service.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Full { .. } | Self::Held(_))
    }

    /// What it lacks, or what its jobs hold.
    #[must_use]
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Lacks { first, .. } => Some(first),
            Self::Held(held) => Some(held),
            _ => None,
        }
    }
}
