//! The model of the bus: streams as the server keeps them, without the network in front of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::ids::{JobId, MachineId, TicketId, Writer};
use fleet_contract::job::Job;
use fleet_contract::lease::LeaseRecord;
use fleet_contract::record::Record;
use fleet_contract::spec::Target;
use fleet_contract::ticket::{Reading, Ticket, Tip};
use fleet_contract::time::Time;

use super::rng::Rng;

/// Virtual time in microseconds.
pub type Micros = u64;

pub const SECOND: Micros = 1_000_000;
pub const ACK_WAIT: Micros = 5 * SECOND;

/// A record as it stands in the stream; none is bytes that are no record.
#[derive(Debug, Clone)]
pub struct Entry {
    pub job: JobId,
    pub seq: u64,
    pub writer: Writer,
    pub time: Time,
    pub stored: Time,
    pub record: Option<Arc<Record>>,
}

impl Entry {
    fn tip(&self) -> Tip {
        match &self.record {
            Some(record) => Tip::of(self.seq, self.writer.clone(), record),
            None => Tip::unreadable(self.seq, self.writer.clone()),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Queued {
    pub ticket: Arc<Ticket>,
    pub pending_until: Option<Micros>,
}

/// What is asked of the bus.
#[derive(Debug, Clone)]
pub enum Req {
    Tip(JobId),
    All(JobId, MachineId),
    Whole(JobId),
    Append {
        job: JobId,
        writer: Writer,
        time: Time,
        record: Option<Arc<Record>>,
        /// None: whatever the last sequence is.
        expect: Option<u64>,
    },
    Purge {
        job: JobId,
        up_to: u64,
    },
    /// Remove every ticket of the job.
    Clear(JobId),
    Publish(Arc<Ticket>),
    Delete(u64),
    Check(u64),
    Pull(MachineId),
    Ack(u64),
    Nak(u64),
    LeaseRead(MachineId),
    LeaseAppend {
        record: LeaseRecord,
        expect: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Resp {
    Tip(Option<Tip>),
    All(Box<Reading>),
    Whole(Option<Box<Job>>),
    Stored(u64),
    Refused,
    Ticket(Option<(u64, Arc<Ticket>)>),
    There(bool),
    Lease(Option<(u64, LeaseRecord)>),
    Ok,
}

#[derive(Debug, Default)]
pub struct Bus {
    pub journals: BTreeMap<JobId, Vec<Entry>>,
    /// All records in stream order: what a tail sees.
    pub log: Vec<Entry>,
    pub purged: BTreeMap<JobId, u64>,
    pub leases: BTreeMap<MachineId, (u64, LeaseRecord)>,
    pub lease_log: Vec<(u64, LeaseRecord)>,
    pub queue: BTreeMap<u64, Queued>,
    pub dedup: Option<BTreeMap<TicketId, u64>>,
    seq: u64,
}

impl Bus {
    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn last_seq(&self, job: JobId) -> u64 {
        self.entries(job).last().map_or(0, |e| e.seq)
    }

    pub fn entries(&self, job: JobId) -> &[Entry] {
        self.journals.get(&job).map_or(&[], Vec::as_slice)
    }

    /// The job's records as a replica may show them that is up to `lag` records behind.
    fn seen(&self, job: JobId, stale: u64, rng: &mut Rng) -> &[Entry] {
        let all = self.entries(job);
        let lag = if rng.chance(stale) {
            rng.range(1, 3)
        } else {
            0
        };
        let lag = usize::try_from(lag).unwrap().min(all.len());
        &all[..all.len() - lag]
    }

    pub fn tip(&self, job: JobId, stale: u64, rng: &mut Rng) -> Option<Tip> {
        self.seen(job, stale, rng).last().map(Entry::tip)
    }

    pub fn reading(&self, job: JobId, me: &MachineId, stale: u64, rng: &mut Rng) -> Reading {
        let mut of = |writer: &Writer| {
            let seen = self.seen(job, stale, rng);
            seen.iter()
                .rev()
                .find(|e| e.writer == *writer)
                .map(Entry::tip)
        };
        let (operator, keeper) = (of(&Writer::Operator), of(&Writer::Keeper));
        let own = of(&Writer::Machine(me.clone()));
        Reading {
            tip: self.tip(job, stale, rng),
            operator,
            keeper,
            own,
        }
    }

    pub fn whole(&self, job: JobId, stale: u64, rng: &mut Rng) -> Option<Job> {
        fold(self.seen(job, stale, rng))
    }

    pub fn publish(&mut self, ticket: Arc<Ticket>) -> u64 {
        if let Some(seq) = self.dedup.as_ref().and_then(|d| d.get(&ticket.ticket)) {
            return *seq;
        }
        let seq = self.next_seq();
        if let Some(dedup) = &mut self.dedup {
            dedup.insert(ticket.ticket, seq);
        }
        let queued = Queued {
            ticket,
            pending_until: None,
        };
        self.queue.insert(seq, queued);
        seq
    }

    pub fn pull(&mut self, me: &MachineId, now: Micros) -> Option<(u64, Arc<Ticket>)> {
        let mine = |target: &Target| match target {
            Target::Pin(machine) => machine == me,
            Target::Lane(_) => true,
        };
        let (seq, queued) = self.queue.iter_mut().find(|(_, queued)| {
            queued.pending_until.is_none_or(|until| until <= now) && mine(&queued.ticket.target)
        })?;
        queued.pending_until = Some(now + ACK_WAIT);
        Some((*seq, queued.ticket.clone()))
    }

    /// The hub's process is gone and comes back: what was delivered is delivered again.
    pub fn restart(&mut self) {
        for queued in self.queue.values_mut() {
            queued.pending_until = None;
        }
    }
}

/// The job that these records tell.
pub fn fold(entries: &[Entry]) -> Option<Job> {
    let mut job: Option<Job> = None;
    for entry in entries {
        match (&mut job, &entry.record) {
            (Some(job), Some(record)) => {
                job.apply(entry.seq, entry.time, &entry.writer, record);
            }
            (Some(job), None) => job.skip(entry.seq),
            (None, Some(record)) => {
                job = Job::first(entry.job, entry.seq, entry.time, &entry.writer, record).ok();
            }
            (None, None) => {}
        }
    }
    job
}
