//! The columns of the lists: what they are called, what a list has of them, and how rows are put in
//! order by one. No cells here.

use std::time::Duration;

use fleet_contract::job::Job;
use fleet_contract::spec::Target;
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
