//! Recovery of a hub whose journal went back in time: tickets without a journal get one, every job
//! that was not ended and does not run is put to the operator, and all tickets go. Each step may be
//! repeated: a recovery that was cut short is begun anew at the next start.

use std::collections::HashMap;

use fleet_contract::damage;
use fleet_contract::envelope::{self, Header, TICKET_MAX_BYTES};
use fleet_contract::ids::{JobId, Writer};
use fleet_contract::job::{Job, JobState, first_record};
use fleet_contract::record::{Cause, Change};
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::bus::{Bus, BusError, Stored};
use crate::clock;
use crate::journal::{Entry, fold};
use crate::subject::{self, stream};
use crate::tail::{From, Next, Tail};

/// Appends under way at once.
const AT_ONCE: usize = 64;
/// Tickets read at once.
const PAGE: u64 = 64;
/// How often a record is tried over what others append meanwhile.
const TRIES: u32 = 5;

/// What a recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) asked: u64,
    pub(super) running: u64,
    pub(super) tickets: u64,
}

/// Recovers the journal into `epoch`; `since` says what the store is as of.
pub(super) async fn recover(bus: &Bus, epoch: u64, since: &str) -> Result<Counts, BusError> {
    let mut counts = Counts::default();
    for (name, filter) in [(stream::WORK, "fleet.work.>"), (stream::PIN, "fleet.pin.>")] {
        let last = bus.usage(name).await?.last_seq;
        counts.tickets += journal_tickets(bus, name, filter).await?;
        let body = json!({ "seq": last.saturating_add(1) }).to_string();
        bus.api::<Value>(&format!("STREAM.PURGE.{name}"), body.into())
            .await?;
    }
    let jobs = read(bus).await?;
    let mut open = Vec::new();
    for (id, job) in jobs {
        match &job.state {
            JobState::Running { .. } => counts.running += 1,
            state if state.word().is_terminal() => {}
            _ => open.push(id),
        }
    }
    let asks = open.into_iter().map(|id| ask(bus, id, epoch, since));
    let mut asks = futures_util::stream::iter(asks).buffer_unordered(AT_ONCE);
    while let Some(asked) = asks.next().await {
        counts.asked += u64::from(asked?);
    }
    Ok(counts)
}

/// Every job of the journal, without standard input.
async fn read(bus: &Bus) -> Result<HashMap<JobId, Job>, BusError> {
    let mut jobs: HashMap<JobId, Option<Job>> = HashMap::new();
    let filter = [subject::JOBS.to_owned()];
    let mut tail = Tail::open(bus, stream::JOB, &filter, From::First).await?;
    while let Next::Message(message, _) = tail.next().await? {
        if let Some(entry) = Entry::of(&message) {
            let job = jobs.entry(entry.job).or_default();
            fold(job, &entry);
            if let Some(job) = job {
                job.forget_stdin();
            }
        }
    }
    Ok(jobs
        .into_iter()
        .filter_map(|(id, job)| Some((id, job?)))
        .collect())
}

/// Writes the first record of every ticket whose job has none; how many those were.
async fn journal_tickets(bus: &Bus, name: &str, filter: &str) -> Result<u64, BusError> {
    let mut written = 0;
    let mut next = 1;
    loop {
        let page = bus.page(name, filter, next, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(written);
        };
        next = last.seq.saturating_add(1);
        for message in &page {
            written += u64::from(journal_ticket(bus, message).await?);
        }
    }
}

async fn journal_ticket(bus: &Bus, message: &Stored) -> Result<bool, BusError> {
    let Ok(honest) = message.honest() else {
        return Ok(false);
    };
    let Ok((_, ticket)) =
        envelope::decode::<Box<Ticket>>(&honest.payload, TICKET_KIND, TICKET_MAX_BYTES)
            as Result<(Header, Box<Ticket>), _>
    else {
        return Ok(false);
    };
    // Also where the ticket is not the job's first: it may be all that is left of it.
    if bus.tip(ticket.job).await?.is_some() {
        return Ok(false);
    }
    let change = Change::Queued {
        ticket: ticket.ticket,
        target: ticket.target.clone(),
        work_seq: message.seq,
        cause: Cause::Dispatch,
        spec: Some(ticket.spec.clone()),
    };
    let now = clock::now();
    let Ok(record) = first_record(ticket.job, now, &Writer::Keeper, change) else {
        return Ok(false);
    };
    match bus.append(ticket.job, &Writer::Keeper, now, &record).await {
        Ok(_) => Ok(true),
        Err(BusError::Moved(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts one job to the operator; whether that was to be done.
pub(super) async fn ask(bus: &Bus, id: JobId, epoch: u64, since: &str) -> Result<bool, BusError> {
    for _ in 0..TRIES {
        let Some(job) = bus.job(id).await? else {
            return Ok(false);
        };
        let now = clock::now();
        let Some(record) = damage::recovery(&job, epoch, since, now) else {
            return Ok(false);
        };
        match bus.append(id, &Writer::Keeper, now, &record).await {
            Ok(_) => return Ok(true),
            Err(BusError::Moved(_)) => {}
            Err(error) => return Err(error),
        }
    }
    // Whoever keeps writing to it decides about it.
    Ok(false)
}
