//! The columns of the lists: what they are called, what a list has of them, and how rows are put in
//! order by one. No cells here.

use std::cmp::Reverse;
use std::time::Duration;

use fleet_contract::job::Job;
use fleet_contract::machine::MachineState;
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::{Fleet, JobsAt, Machine, place};
use fleet_contract::record::StateWord;
use fleet_contract::spec::{Priority, Target};
use fleet_contract::time::Time;

use crate::model::Pane;

/// A column of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Col {
    Glyph,
    State,
    Id,
    What,
    Where,
    Age,
    Note,
    Attempt,
    By,
    Tags,
    Took,
    Exit,
    Lane,
    Priority,
    Machine,
    Seen,
    Slots,
    Load,
    History,
    Memory,
    Disk,
    Rtt,
    Os,
    Version,
    Jobs,
    Done,
    Failed,
    Causes,
    Time,
    Kind,
    Text,
}

impl Col {
    /// What stands above it; empty where the column explains itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Glyph => "",
            Self::State => "STATE",
            Self::Id => "ID",
            Self::What => "WHAT",
            Self::Where => "WHERE",
            Self::Age => "AGE",
            Self::Note => "NOTE",
            Self::Attempt => "TRY",
            Self::By => "BY",
            Self::Tags => "TAGS",
            Self::Took => "TOOK",
            Self::Exit => "EXIT",
            Self::Lane => "LANE",
            Self::Priority => "PRIO",
            Self::Machine => "MACHINE",
            Self::Seen => "SEEN",
            Self::Slots => "SLOTS",
            Self::Load => "LOAD",
            Self::History => "15 MIN",
            Self::Memory => "RAM-FREE",
            Self::Disk => "DISK",
            Self::Rtt => "RTT",
            Self::Os => "OS",
            Self::Version => "VERSION",
            Self::Jobs => "RUN",
            Self::Done => "DONE",
            Self::Failed => "FAILED",
            Self::Causes => "CAUSES",
            Self::Time => "TIME",
            Self::Kind => "EVENT",
            Self::Text => "WHAT HAPPENED",
        }
    }

    /// What it tells, for whoever chooses columns.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::Glyph => "the state's glyph",
            Self::State => "the state in a word",
            Self::Id => "the shortest beginning of the id that is unique",
            Self::What => "name or command",
            Self::Where => "the machine it runs on, ran on or is pinned to",
            Self::Age => "since when it is in its state",
            Self::Note => "what there is to know beside the state",
            Self::Attempt => "the number of the last attempt",
            Self::By => "who dispatched it",
            Self::Tags => "its tags",
            Self::Took => "how long the last attempt ran",
            Self::Exit => "how the last attempt ended: exit code or signal",
            Self::Lane => "the queue it waits or waited in",
            Self::Priority => "how urgent it is",
            Self::Machine => "its name",
            Self::Seen => "when it was heard of last",
            Self::Slots => "slots that are taken, of all",
            Self::Load => "load average of one minute, of its cores",
            Self::History => "its load over the last 15 minutes",
            Self::Memory => "memory that can be had",
            Self::Disk => "disk that can be had where fleet keeps its files",
            Self::Rtt => "median round trip to the hub",
            Self::Os => "its system",
            Self::Version => "the version of its fleet",
            Self::Jobs => "dispatches that run on it",
            Self::Done => "dispatches that succeeded on it, as far as kept here",
            Self::Failed => "dispatches that failed on it, as far as kept here",
            Self::Causes => "why it is not simply up",
            Self::Time => "when it happened, by its writer's clock",
            Self::Kind => "what happened, in a word",
            Self::Text => "the rest",
        }
    }

    /// Whether rows can be put in its order.
    pub(crate) fn sorts(self) -> bool {
        !matches!(
            self,
            Self::Glyph
                | Self::Note
                | Self::Tags
                | Self::History
                | Self::Causes
                | Self::Time
                | Self::Kind
                | Self::Text
        )
    }

    /// Whether it can be left out.
    pub(crate) fn leaves(self) -> bool {
        !matches!(self, Self::Glyph | Self::What | Self::Machine | Self::Kind)
    }
}

/// Puts jobs in the order of a column. Those that have nothing there come last; those that are
/// alike stay as they were.
pub(crate) fn sort_jobs(jobs: &mut [&Job], col: Col, now: Time) {
    let word = |job: &Job| StateWord::ALL.iter().position(|w| *w == job.state.word());
    let exit = |job: &Job| match job.attempt().map(|a| &a.outcome) {
        Some(Some(Outcome::Exited { exit_code })) => Some(*exit_code),
        _ => None,
    };
    match col {
        Col::State => jobs.sort_by_key(|job| word(job)),
        Col::Id => jobs.sort_by_key(|job| job.id),
        Col::What => jobs.sort_by_cached_key(|job| job.spec.title().to_lowercase()),
        Col::Where => jobs.sort_by_key(|job| (place(job).is_none(), place(job))),
        // The youngest first.
        Col::Age => jobs.sort_by_key(|job| Reverse(job.changed_at)),
        Col::Attempt => jobs.sort_by_key(|job| Reverse(job.attempts.len())),
        Col::Took => jobs.sort_by_key(|job| Reverse(took(job, now))),
        Col::Exit => jobs.sort_by_key(|job| (exit(job).is_none(), exit(job))),
        Col::Lane => jobs.sort_by(|a, b| lane(a).cmp(lane(b))),
        Col::Priority => jobs.sort_by_key(|job| match job.spec.priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        }),
        Col::By => jobs.sort_by(|a, b| a.spec.submitted_by.cmp(&b.spec.submitted_by)),
        _ => {}
    }
}

/// Puts machines in the order of a column: what is fullest, slowest or most first.
pub(crate) fn sort_machines(all: &mut [(MachineState, &Machine)], col: Col, fleet: &Fleet) {
    let load = |machine: &Machine| {
        let cores = f64::from(machine.presence.specs.cores.max(1));
        machine.presence.load.load / cores
    };
    let free = |machine: &Machine| {
        let load = &machine.presence.load;
        load.slots.saturating_sub(load.slots_used)
    };
    let rtt = |machine: &Machine| machine.presence.load.rtt_ms.unwrap_or(-1.0);
    let name = |machine: &Machine| machine.presence.machine.clone();
    let at = |machine: &Machine| fleet.jobs_at(&machine.presence.machine);
    match col {
        Col::Machine => all.sort_by_key(|(_, m)| name(m)),
        Col::State => all.sort_by_key(|(state, _)| *state),
        Col::Seen => all.sort_by_key(|(_, m)| m.seen),
        Col::Slots => all.sort_by_key(|(_, m)| free(m)),
        Col::Load => all.sort_by(|(_, a), (_, b)| load(b).total_cmp(&load(a))),
        Col::Memory => all.sort_by_key(|(_, m)| m.presence.load.mem_free),
        Col::Disk => all.sort_by_key(|(_, m)| m.presence.load.disk_free),
        Col::Rtt => all.sort_by(|(_, a), (_, b)| rtt(b).total_cmp(&rtt(a))),
        Col::Jobs => all.sort_by_key(|(_, m)| Reverse(m.presence.load.slots_used)),
        Col::Done => all.sort_by_key(|(_, m)| Reverse(at(m).map_or(0, JobsAt::done))),
        Col::Failed => all.sort_by_key(|(_, m)| Reverse(at(m).map_or(0, JobsAt::failed))),
        Col::Os => all.sort_by(|(_, a), (_, b)| a.presence.specs.os.cmp(&b.presence.specs.os)),
        Col::Version => {
            all.sort_by(|(_, a), (_, b)| a.presence.specs.version.cmp(&b.presence.specs.version));
        }
        _ => {}
    }
}

/// The columns of a list from left to right.
pub(crate) fn of(pane: Pane) -> &'static [Col] {
    match pane {
        Pane::Dispatches => &[
            Col::Glyph,
            Col::State,
            Col::Id,
            Col::What,
            Col::Where,
            Col::Age,
            Col::Attempt,
            Col::Took,
            Col::Exit,
            Col::Lane,
            Col::Priority,
            Col::By,
            Col::Tags,
            Col::Note,
        ],
        Pane::Machines => &[
            Col::Glyph,
            Col::Machine,
            Col::State,
            Col::Seen,
            Col::Slots,
            Col::Load,
            Col::History,
            Col::Memory,
            Col::Disk,
            Col::Rtt,
            Col::Jobs,
            Col::Done,
            Col::Failed,
            Col::Os,
            Col::Version,
            Col::Causes,
        ],
        Pane::Events => &[
            Col::Time,
            Col::Id,
            Col::Glyph,
            Col::Kind,
            Col::Where,
            Col::Text,
        ],
        Pane::Inbox | Pane::Bus => &[],
    }
}

/// The columns of a list that have a name to choose them by.
pub(crate) fn choice(pane: Pane) -> impl Iterator<Item = Col> {
    let all = of(pane).iter().copied();
    all.filter(|col| !col.name().is_empty())
}

/// Columns that are shown unless the person says otherwise; the others come only where they are
/// asked for.
pub(crate) fn is_usual(col: Col) -> bool {
    !matches!(
        col,
        Col::Lane | Col::Priority | Col::Tags | Col::Exit | Col::Took | Col::Attempt | Col::By
    )
}

/// How long the last attempt ran or runs.
pub(crate) fn took(job: &Job, now: Time) -> Option<Duration> {
    let attempt = job.attempt()?;
    let ended = match job.state.open() {
        Some(_) => now,
        None => attempt.ended_at?,
    };
    Some(ended.since(attempt.started_at.unwrap_or(attempt.claimed_at)))
}

/// The lane's name, or the machine it is pinned to.
pub(crate) fn lane(job: &Job) -> &str {
    match &job.target {
        Target::Pin(machine) => machine.as_str(),
        Target::Lane(lane) => lane.as_str(),
    }
}
