//! Tickets: what waits in a lane for a machine, and what a machine may do with one.
//!
//! A ticket is a hint that a job can be had; the journal decides. The rules here were searched
//! exhaustively in a bounded model: simpler ones get jobs stuck, doubled or run off their pin.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, MachineId, TicketId, Writer};
use crate::record::{After, Change, Record, StateWord};
use crate::spec::{JobSpec, Target};

/// The kind of a ticket's envelope.
pub const TICKET_KIND: &str = "ticket";

/// How often a journal is read again that does not bear out (yet) what is believed of it: the delivery
/// of a ticket, before that counts as an orphan, and an attempt from before a recovery, before it
/// gives way to another.
pub const READ_AGAIN_MAX: u32 = 5;

/// How often in a row an open attempt finds no journal at all, before that counts as purged. With a
/// pause of a fifth of a second at least before each, that is most of a minute: where the journal
/// went back in time instead, the hub finds that out by what this machine has seen, which comes with
/// the next renewal of its lease, and looks every few seconds. Nothing hangs on an earlier answer:
/// what is purged ended long ago, and its lease was over.
pub const BLANKS_MAX: u32 = 240;

/// How long, by its wall clock, a machine may claim a job without a journal by one delivery of its
/// ticket. A machine that slept on a ticket could else claim a job anew that ended and was purged
/// meanwhile. Clocks jump, so that [`crate::lease::CLAIM_WITHIN`] counts beside it.
pub const CLAIM_FRESH: Duration = Duration::from_secs(10);

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
    /// The epoch of the recovery that it tells of, if it is the keeper's word about one.
    pub recovered: Option<u64>,
    /// What holds after it.
    pub after: After,
    /// Whether the record could be read; if not, nothing above but `seq` and `writer` says anything.
    pub readable: bool,
}

impl Tip {
    /// The tip that this record is.
    #[must_use]
    pub fn of(seq: u64, writer: Writer, record: &Record) -> Self {
        // A machine may not queue: its `queued` is void and makes no ticket valid.
        let queued = match &record.change {
            Change::Queued { ticket, .. } if !matches!(writer, Writer::Machine(_)) => Some(*ticket),
            _ => None,
        };
        let recovered = match &record.change {
            Change::Recovered { epoch, .. } if writer == Writer::Keeper => Some(*epoch),
            _ => None,
        };
        Self {
            seq,
            writer,
            queued,
            about: record.change.attempt(),
            ends: matches!(record.change, Change::Ended { .. }),
            recovered,
            after: record.after.clone(),
            readable: true,
        }
    }

    /// The tip that a record is which cannot be read: malformed, or of a kind of a newer contract.
    #[must_use]
    pub fn unreadable(seq: u64, writer: Writer) -> Self {
        Self {
            seq,
            writer,
            queued: None,
            about: None,
            ends: false,
            recovered: None,
            after: After {
                state: StateWord::NeedsHuman,
                attempt: None,
                machine: None,
                cancel_requested: false,
                attempts: 0,
                losses: 0,
            },
            readable: false,
        }
    }

    /// Whether operator or keeper wrote it and it can be read: then what it says holds.
    pub(crate) fn rules(&self) -> bool {
        self.readable && !matches!(self.writer, Writer::Machine(_))
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
    /// The journal read is older than the ticket, or ends with a record that cannot be read: read
    /// again.
    ReadAgain,
    /// The ticket's issuer has yet to append `queued`, which says where the job waits now and without
    /// which it must not run again: read again a few times, then acknowledge it as an orphan (the
    /// keeper publishes another should `queued` come after all).
    Early,
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
    if tip.seq < ticket.after || !tip.readable {
        return Verdict::ReadAgain;
    }
    let named = tip.queued == Some(ticket.ticket);
    if tip.seq != ticket.after && !named {
        return Verdict::Stale;
    }
    match tip.after.state {
        StateWord::Queued | StateWord::Backoff if named => Verdict::Claim {
            expect: tip.seq,
            no: tip.after.attempts.saturating_add(1),
            losses: tip.after.losses,
        },
        // A running attempt is never queued over; its ticket can only be stale.
        StateWord::Running => Verdict::Stale,
        _ => Verdict::Early,
    }
}

/// What the journal of a job says where it matters to an attempt whose append was refused: the last
/// record in all, and the last of each writer that may rule. The four are read one by one, in any
/// order, and each may be older than the others.
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
        /// The sequence of the attempt's `claimed`.
        claimed: u64,
        /// Whether the operator wants the attempt ended.
        cancel: bool,
    },
    /// The attempt was never claimed: judge the ticket anew.
    NotClaimed,
    /// Another decision holds: end the processes and say so.
    Fenced,
    /// There is no journal: purged, or a read that is too old.
    Blank,
    /// The reading contradicts itself or what is known already, or ends with a record that does
    /// not count and that the keeper will say something over: read again.
    Unclear,
}

/// Judges what the journal says about `mine`, an attempt of `me`; a refused append (10071) is no
/// loss of ownership by itself. `claimed` is the sequence of its claim as far as it knows it,
/// `known` the last sequence that it has adopted.
///
/// Only operator, keeper and `me` are believed. Nobody else can take the job unless operator or
/// keeper let go of it first, and their records say so: another machine's record on top is either
/// void, or this reading has missed the record that allowed it.
#[must_use]
pub fn refused(
    mine: AttemptId,
    me: &MachineId,
    claimed: Option<u64>,
    known: u64,
    reading: &Reading,
) -> Refused {
    let writer = Writer::Machine(me.clone());
    let owns = || {
        [&reading.own, &reading.tip]
            .into_iter()
            .flatten()
            .filter(|tip| tip.readable && tip.writer == writer)
    };
    let own = owns()
        .filter(|tip| tip.about == Some(mine))
        .max_by_key(|tip| tip.seq);
    if let Some(own) = own
        && own.ends
    {
        return Refused::Ended { seq: own.seq };
    }
    let rulings = || {
        [&reading.operator, &reading.keeper, &reading.tip]
            .into_iter()
            .flatten()
            .filter(|tip| tip.rules())
    };
    let Some(claim) = claimed.or(own.map(|own| own.seq)) else {
        // Somebody has seen the claim that this reading does not show.
        return if rulings().any(|ruling| ruling.after.attempt == Some(mine)) {
            Refused::Unclear
        } else {
            Refused::NotClaimed
        };
    };
    // An attempt that is not open any more never opens again, so that one such record is enough.
    if rulings().any(|ruling| ruling.seq > claim && ruling.after.attempt != Some(mine)) {
        return Refused::Fenced;
    }
    // A later attempt of this very machine hides this one's last record, and nobody let go of this
    // one: then it had ended.
    if let Some(later) = owns().find(|tip| tip.seq > claim && tip.about != Some(mine)) {
        return Refused::Ended { seq: later.seq };
    }
    let Some(tip) = &reading.tip else {
        return if *reading == Reading::default() {
            Refused::Blank
        } else {
            Refused::Unclear
        };
    };
    let believed = tip.rules() || own.is_some_and(|own| own.seq == tip.seq);
    if tip.seq < known.max(claim) || !believed {
        return Refused::Unclear;
    }
    Refused::GoOn {
        seq: tip.seq,
        claimed: claim,
        // A wish to cancel is never taken back while the attempt is open.
        cancel: rulings()
            .any(|ruling| ruling.after.attempt == Some(mine) && ruling.after.cancel_requested),
    }
}
