//! The keeper's errands, each with all it needs: what it asks of the bus, and what that brought.

use std::time::Duration;

use fleet_contract::damage;
use fleet_contract::ids::{JobId, Lane, MachineId, Writer};
use fleet_contract::keeper::Act;
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{Presence, Service};
use fleet_contract::needs::Needs;
use fleet_contract::record::{Cause, Change};
use fleet_contract::spec::Target;

use crate::bus::{Bus, BusError, Usage};
use crate::clock;
use crate::flow::NewEvent;
use crate::registry::decode_presence;
use crate::subject::{self, HUB, stream};

/// First and longest pause before an errand that nobody would give out again is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Pause between looks at a journal that is too full.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often a journal without a first record is removed before it is left alone.
const PURGE_TRIES: u32 = 5;

/// What an errand brought.
pub(super) enum Outcome {
    Nothing,
    TicketGone(JobId, u64),
    LeaseTaken(MachineId, u64),
    Cleared(JobId),
    Purged(JobId),
    /// The machine's queues exist.
    Served(MachineId),
    /// The machine is marked as lost, for this reason; its host.
    Lost(MachineId, String, String),
    /// How full the journal is.
    Holds(Usage),
    /// This record of the job is lost.
    Hole(JobId, u64),
    /// The job's ticket still waits in this lane.
    Waits(JobId, Lane),
}

/// Which errand it is: it is not begun twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// An act on a job that stands at a revision.
    Job(JobId, &'static str, u64),
    Lease(MachineId, u64),
    Serve(MachineId),
    Lane(Lane),
    Lost(MachineId, Sign),
    Event(u64),
    Look,
}

/// By what a machine was found to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sign {
    /// This connection of its closed.
    Connection(u64),
    /// Nothing came after this beat.
    Beat(u64),
}

impl Sign {
    fn holds(self, presence: &Presence, seq: u64) -> bool {
        match self {
            Self::Connection(connection) => presence.connection == connection,
            Self::Beat(beat) => seq == beat,
        }
    }
}

/// Whose answers an act waits for, and which act it is.
pub(super) fn lane_of(act: &Act) -> (&'static str, Key) {
    match act {
        Act::Append { job, record } => (stream::JOB, Key::Job(*job, "append", record.prev)),
        Act::Issue {
            job, after, target, ..
        } => (
            subject::ticket_stream(target),
            Key::Job(*job, "issue", *after),
        ),
        Act::CheckTicket {
            job,
            revision,
            target,
            ..
        } => (
            subject::ticket_stream(target),
            Key::Job(*job, "check", *revision),
        ),
        Act::TakeLease { machine, expect } => (stream::LEASE, Key::Lease(machine.clone(), *expect)),
        Act::Clear { job } => ("clear", Key::Job(*job, "clear", 0)),
        Act::Purge { job, up_to } => ("purge", Key::Job(*job, "purge", *up_to)),
    }
}

/// Carries out an act. One that fails is due again, and says so to the log only.
pub(super) async fn carry_out(bus: Bus, act: Act) -> Outcome {
    try_to(&bus, &act).await.unwrap_or_else(|error| {
        tracing::debug!(%error, ?act, "an act of the keeper failed; it is due again");
        Outcome::Nothing
    })
}

async fn try_to(bus: &Bus, act: &Act) -> Result<Outcome, BusError> {
    match act {
        Act::Append { job, record } => append(bus, *job, record).await,
        Act::Issue {
            job,
            after,
            target,
            cause,
        } => issue(bus, *job, *after, target, *cause).await,
        Act::CheckTicket {
            job,
            revision,
            target,
            work_seq,
        } => {
            let there = bus.at(subject::ticket_stream(target), *work_seq).await?;
            Ok(match (there, target) {
                (Some(_), Target::Lane(lane)) => Outcome::Waits(*job, lane.clone()),
                (Some(_), Target::Pin(_)) => Outcome::Nothing,
                (None, _) => Outcome::TicketGone(*job, *revision),
            })
        }
        Act::TakeLease { machine, expect } => {
            let machine = machine.clone();
            let record = LeaseRecord::Hub {
                machine: machine.clone(),
            };
            let mut stored = bus.append_lease(&record, *expect).await;
            if matches!(stored, Err(BusError::Moved(_)))
                // What cannot be read renews nothing, but it is what lies on the lease now.
                && let Some(seq) = bus.unreadable_lease(&machine).await?
            {
                stored = bus.append_lease(&record, seq).await;
            }
            match stored {
                Ok(seq) => Ok(Outcome::LeaseTaken(machine, seq)),
                Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
                Err(error) => Err(error),
            }
        }
        Act::Clear { job } => {
            for (stream, filter) in subject::tickets_of(*job) {
                bus.purge(stream, &filter, None).await?;
            }
            Ok(Outcome::Cleared(*job))
        }
        Act::Purge { job, up_to } => purge(bus, *job, *up_to).await,
    }
}

async fn append(
    bus: &Bus,
    job: JobId,
    record: &fleet_contract::record::Record,
) -> Result<Outcome, BusError> {
    match bus.append(job, &Writer::Keeper, clock::now(), record).await {
        // Somebody else was faster: the next record says what holds.
        Ok(_) | Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
        Err(error) => Err(error),
    }
}

async fn issue(
    bus: &Bus,
    id: JobId,
    after: u64,
    target: &Target,
    cause: Cause,
) -> Result<Outcome, BusError> {
    // The keeper's own fold has forgotten the job's standard input.
    let Some(job) = bus.job(id).await?.filter(|job| job.last_seq == after) else {
        return Ok(Outcome::Nothing);
    };
    let (ticket, work_seq) = bus.issue(&job, after, target).await?;
    let change = Change::Queued {
        ticket,
        target: target.clone(),
        work_seq,
        cause,
        spec: None,
    };
    match job.record(clock::now(), &Writer::Keeper, change) {
        Ok(record) => append(bus, id, &record).await,
        // The job stands where no ticket may follow; this one is stale.
        Err(_) => Ok(Outcome::Nothing),
    }
}

/// A void first record asks for this once only, so that it is tried more than once.
async fn purge(bus: &Bus, job: JobId, up_to: u64) -> Result<Outcome, BusError> {
    let mut tries = 0;
    loop {
        let done = async {
            // What was retried meanwhile keeps its journal: without its beginning it is none.
            let tip = bus.tip(job).await?;
            if tip.is_some_and(|tip| tip.seq > up_to) {
                return Ok(false);
            }
            bus.purge(stream::LOG, &subject::log_all(job), None).await?;
            bus.purge(stream::JOB, &subject::job_all(job), Some(up_to))
                .await?;
            Ok(true)
        };
        tries += 1;
        match done.await {
            Ok(true) => return Ok(Outcome::Purged(job)),
            Ok(false) => return Ok(Outcome::Nothing),
            Err(error) if tries >= PURGE_TRIES => return Err(error),
            Err(_) => tokio::time::sleep(clock::jittered(AGAIN.0)).await,
        }
    }
}

/// Looks whether the record that another one names as the job's previous is there. Where it is not,
/// the job is put to the operator: nobody knows what it said.
pub(super) async fn look_for_hole(bus: Bus, job: JobId, lost: u64) -> Outcome {
    for _ in 0..PURGE_TRIES {
        match bus.at(stream::JOB, lost).await {
            Ok(Some(_)) => return Outcome::Nothing,
            Ok(None) => match over_hole(&bus, job, lost).await {
                Ok(()) => return Outcome::Hole(job, lost),
                Err(error) => tracing::debug!(%error, %job, "a hole was not said over yet"),
            },
            Err(error) => tracing::debug!(%error, %job, "cannot look for a lost record yet"),
        }
        tokio::time::sleep(clock::jittered(AGAIN.0 / 10)).await;
    }
    Outcome::Nothing
}

async fn over_hole(bus: &Bus, id: JobId, lost: u64) -> Result<(), BusError> {
    let Some(job) = bus.job(id).await? else {
        return Ok(());
    };
    let now = clock::now();
    match damage::over_a_hole(&job, lost, bus.epoch(), now) {
        Some(record) => bus
            .append(id, &Writer::Keeper, now, &record)
            .await
            .map(drop),
        None => Ok(()),
    }
}

/// Makes the queues of a machine. Where that fails, its next beat asks for it again.
pub(super) async fn serve(bus: Bus, machine: MachineId) -> Outcome {
    match bus.ensure_queues(&Target::Pin(machine.clone())).await {
        Ok(()) => Outcome::Served(machine),
        Err(error) => {
            tracing::warn!(%error, %machine, "cannot make the machine's queues");
            Outcome::Nothing
        }
    }
}

/// Makes a lane usable in which a ticket waits. Where that fails, a later look at it asks again.
pub(super) async fn mend_lane(bus: Bus, lane: Lane, needs: Option<Needs>) -> Outcome {
    if let Err(error) = bus.mend_lane_of(&lane, needs).await {
        tracing::warn!(%error, %lane, "cannot make sure of a lane in which jobs wait");
    }
    Outcome::Nothing
}

/// Marks a machine as lost, unless it has said goodbye or spoken since; tries until the hub says
/// which.
pub(super) async fn lose(bus: Bus, machine: MachineId, sign: Sign, reason: String) -> Outcome {
    let mut pause = AGAIN.0;
    loop {
        match mark_lost(&bus, &machine, sign).await {
            Ok(Some(host)) => return Outcome::Lost(machine, reason, host),
            Ok(None) => return Outcome::Nothing,
            Err(error) => tracing::warn!(%error, %machine, "cannot mark the machine as lost yet"),
        }
        tokio::time::sleep(clock::jittered(pause)).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

async fn mark_lost(bus: &Bus, machine: &MachineId, sign: Sign) -> Result<Option<String>, BusError> {
    let Some(message) = bus.last(stream::PRES, &subject::presence(machine)).await? else {
        return Ok(None);
    };
    let Ok(mut presence) = decode_presence(&message) else {
        return Ok(None);
    };
    if matches!(presence.service, Service::Offline | Service::Lost)
        || !sign.holds(&presence, message.seq)
    {
        return Ok(None);
    }
    presence.service = Service::Lost;
    presence.lost_at = Some(clock::now());
    match bus.beat(&presence, Some(message.seq)).await {
        Ok(_) => Ok(Some(presence.host)),
        // It spoke in between: not lost.
        Err(BusError::Moved(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How full the journal is, once the hub says it; `calmly` after a pause.
pub(super) async fn look(bus: Bus, calmly: bool) -> Outcome {
    if calmly {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let mut pause = AGAIN.0;
    loop {
        match bus.usage(stream::JOB).await {
            Ok(usage) => return Outcome::Holds(usage),
            Err(error) => tracing::debug!(%error, "cannot see how full the journal is yet"),
        }
        tokio::time::sleep(clock::jittered(pause)).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// Stores an event of the hub's.
pub(super) async fn tell(bus: Bus, event: NewEvent, boot: String, seq: u64) -> Outcome {
    if let Err(error) = bus.put_event(HUB, &event, &boot, seq).await {
        tracing::warn!(%error, kind = event.kind, "an event was not stored");
    }
    Outcome::Nothing
}
