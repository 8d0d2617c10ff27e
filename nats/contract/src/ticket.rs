//! Tickets: what waits in a lane for a machine, and what a machine may do with one.
//!
//! A ticket is a hint that a job can be had; the journal decides. The rules here were searched
//! exhaustively in a bounded model: simpler ones get jobs stuck, doubled or run off their pin.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, MachineId, TicketId, Writer};
use crate::record::{After, Change, Record, StateWord};
use crate::spec::{JobSpec, Target};

/// The kind of a ticket's envelope.
pub const TICKET_KIND: &str = "ticket";

/// How often one delivery of a ticket reads a journal that seems older than the ticket, before it
/// counts as purged.
pub const READ_AGAIN_MAX: u32 = 5;

/// A job that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its own id, fresh for each ticket and never the job's: it is the `Nats-Msg-Id`, and the
    /// dedup window would swallow a job's legitimate second ticket.
    pub ticket: TicketId,
    /// The job.
    pub job: JobId,
    /// The journal sequence its issuer saw, 0 for a new job.
    pub after: u64,
    /// Where it waits.
    pub target: Target,
    /// The hub's epoch.
    #[serde(default)]
    pub epoch: u64,
    /// The job as asked for.
    pub spec: Box<JobSpec>,
}

/// The last record of a job's journal: what a machine sees before it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Its sequence.
    pub seq: u64,
    /// Who wrote it.
    pub writer: Writer,
    /// The ticket it queued, if it is `queued`.
    pub queued: Option<TicketId>,
    /// The attempt it is about, if it is an attempt's own record.
    pub about: Option<AttemptId>,
    /// Whether it ends that attempt.
    pub ends: bool,
    /// What holds after it.
    pub after: After,
}

impl Tip {
    /// The tip that this record is.
    #[must_use]
    pub fn of(seq: u64, writer: Writer, record: &Record) -> Self {
        let queued = match &record.change {
            Change::Queued { ticket, .. } => Some(*ticket),
            _ => None,
        };
        Self {
            seq,
            writer,
            queued,
            about: record.change.attempt(),
            ends: matches!(record.change, Change::Ended { .. }),
            after: record.after.clone(),
        }
    }

    /// The tip that a record is which cannot be read: the last sequence, but no word of it counts.
    #[must_use]
    pub fn unreadable(seq: u64, writer: Writer) -> Self {
        let after = After {
            // No ticket names it and no attempt is open by it: it makes a ticket stale and waits for
            // the keeper to say again what holds.
            state: StateWord::NeedsHuman,
            attempt: None,
            machine: None,
            cancel_requested: false,
            attempts: 0,
            losses: 0,
        };
        Self {
            seq,
            writer,
            queued: None,
            about: None,
            ends: false,
            after,
        }
    }
}

/// What a machine does with a delivered ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Claim it: append `claimed` as attempt `no`, expecting `expect`.
    Claim {
        /// The journal's last sequence.
        expect: u64,
        /// The attempt's number.
        no: u32,
        /// Attempts lost so far.
        losses: u32,
    },
    /// Acknowledge it: the journal has moved on, the ticket means nothing any more.
    Stale,
    /// The journal read is older than the ticket: read again.
    ReadAgain,
    /// Its issuer has yet to append `queued`, without which an ended job must not run again: give
    /// the ticket back.
    GiveBack,
    /// It is pinned to another machine and was delivered here by mistake or malice: leave it alone.
    NotMine,
}

/// What `me` does with `ticket`, given the journal's last record.
#[must_use]
pub fn judge(ticket: &Ticket, me: &MachineId, tip: Option<&Tip>) -> Verdict {
    if matches!(&ticket.target, Target::Pin(machine) if machine != me) {
        return Verdict::NotMine;
    }
    let Some(tip) = tip else {
        return if ticket.after == 0 {
            Verdict::Claim {
                expect: 0,
                no: 1,
                losses: 0,
            }
        } else {
            Verdict::ReadAgain
        };
    };
    if tip.seq < ticket.after {
        return Verdict::ReadAgain;
    }
    if tip.seq != ticket.after && tip.queued != Some(ticket.ticket) {
        return Verdict::Stale;
    }
    match tip.after.state {
        StateWord::Queued | StateWord::Backoff => Verdict::Claim {
            expect: tip.seq,
            no: tip.after.attempts.saturating_add(1),
            losses: tip.after.losses,
        },
        // A running attempt is never queued over; its ticket can only be stale.
        StateWord::Running => Verdict::Stale,
        _ => Verdict::GiveBack,
    }
}

/// What the journal of a job says where it matters to an attempt whose append was refused: the last
/// record in all, and the last of each writer that may rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The last record of all writers.
    pub tip: Option<Tip>,
    /// The operator's last.
    pub operator: Option<Tip>,
    /// The keeper's last.
    pub keeper: Option<Tip>,
    /// The reading machine's own last.
    pub own: Option<Tip>,
}

/// What a refused append means for the attempt that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The attempt's end is there already: an earlier try of the same append arrived.
    Ended {
        /// Its sequence.
        seq: u64,
    },
    /// The attempt is open; go on from this sequence.
    GoOn {
        /// The journal's last sequence: what the next append expects.
        seq: u64,
        /// The sequence of the attempt's `claimed`, where this reading shows it.
        claimed: Option<u64>,
        /// Whether the operator wants the attempt ended.
        cancel: bool,
    },
    /// The attempt was never claimed: judge the ticket anew.
    NotClaimed,
    /// Another decision holds: end the processes and say so.
    Fenced,
}

/// Judges a refused append of `mine`; a refused append (10071) is no loss of ownership by itself.
/// `known` is the last sequence that the attempt has adopted, `claimed` whether it knows its claim.
///
/// Records of other machines decide nothing here: none of them can have taken the job unless
/// operator or keeper let it, and their records say so.
#[must_use]
pub fn refused(mine: AttemptId, known: u64, claimed: bool, reading: &Reading) -> Refused {
    let Some(tip) = &reading.tip else {
        return if claimed {
            Refused::Fenced
        } else {
            Refused::NotClaimed
        };
    };
    let own = reading.own.as_ref().filter(|own| own.about == Some(mine));
    if let Some(own) = own
        && own.ends
    {
        return Refused::Ended { seq: own.seq };
    }
    if !claimed && own.is_none() {
        return Refused::NotClaimed;
    }
    let known = known.max(own.map_or(0, |own| own.seq));
    let ruling = [&reading.operator, &reading.keeper]
        .into_iter()
        .flatten()
        .filter(|ruling| ruling.seq > known)
        .max_by_key(|ruling| ruling.seq);
    match ruling {
        Some(ruling) if ruling.after.attempt != Some(mine) => Refused::Fenced,
        ruling => Refused::GoOn {
            seq: tip.seq,
            claimed: own.map(|own| own.seq),
            cancel: ruling.is_some_and(|ruling| ruling.after.cancel_requested),
        },
    }
}
