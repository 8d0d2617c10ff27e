//! The model of the bus: streams as the server keeps them, without the network in front of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::ids::{AttemptId, JobId, MachineId, TicketId, Writer};
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
/// How long the server knows the ids of messages.
const DEDUP: Micros = 120 * SECOND;

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
    /// When it is due again; none where nobody has ever had it, as far as the server knows: what
    /// acknowledges it then is about another one of this number, and counts for nothing.
    pub pending_until: Option<Micros>,
}

/// One event of a machine: its agent's run, and its count in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub run: u64,
    pub no: u64,
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
    Pull(usize),
    Ack(u64),
    Nak(u64),
    LeaseRead(MachineId),
    LeaseAppend {
        record: LeaseRecord,
        /// None: whatever the last sequence is.
        expect: Option<u64>,
    },
    /// What the hub says of itself.
    Word,
    /// The last event of a machine.
    LastTold(usize),
    /// Events of a machine, all or none.
    Tell {
        machine: usize,
        events: Arc<[Told]>,
        /// None: whatever the last sequence is.
        expect: Option<u64>,
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
    /// The server's number, and the epoch if its hub vouches for it.
    Word(u64, Option<u64>),
    LastTold(u64, Option<Told>),
    Ok,
}

/// The journal.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    pub jobs: BTreeMap<JobId, Vec<Entry>>,
    /// All records in stream order: what a tail sees.
    pub log: Vec<Entry>,
    /// Jobs that were removed, and up to where.
    pub purged: BTreeMap<JobId, u64>,
    pub seq: u64,
}

impl Journal {
    pub fn last_seq(&self, job: JobId) -> u64 {
        self.entries(job).last().map_or(0, |e| e.seq)
    }

    pub fn entries(&self, job: JobId) -> &[Entry] {
        self.jobs.get(&job).map_or(&[], Vec::as_slice)
    }

    /// What a tail gets that has everything before `next`.
    pub fn since(&self, next: u64) -> &[Entry] {
        let at = self.log.partition_point(|e| e.seq < next);
        &self.log[at..]
    }

    pub fn push(&mut self, entry: Entry) {
        self.seq = entry.seq;
        let entries = self.jobs.entry(entry.job).or_default();
        entries.push(entry.clone());
        self.log.push(entry);
    }

    pub fn purge(&mut self, job: JobId, up_to: u64) {
        if let Some(entries) = self.jobs.get_mut(&job) {
            entries.retain(|e| e.seq > up_to);
            if entries.is_empty() {
                self.jobs.remove(&job);
            }
        }
        self.log.retain(|e| e.job != job || e.seq > up_to);
    }

    /// The end after `seq` is lost.
    pub fn truncate(&mut self, seq: u64) {
        self.log.retain(|e| e.seq <= seq);
        for entries in self.jobs.values_mut() {
            entries.retain(|e| e.seq <= seq);
        }
        self.jobs.retain(|_, entries| !entries.is_empty());
        self.seq = self.seq.min(seq);
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

    /// The ticket that an attempt was claimed by.
    pub fn ticket_of(&self, job: JobId, id: AttemptId) -> Option<TicketId> {
        use fleet_contract::record::Change;
        self.entries(job)
            .iter()
            .find_map(|e| match &e.record.as_ref()?.change {
                Change::Claimed {
                    attempt, ticket, ..
                } if *attempt == id => Some(*ticket),
                _ => None,
            })
    }
}

/// The tickets.
#[derive(Debug, Default, Clone)]
pub struct Work {
    pub queue: BTreeMap<u64, Queued>,
    pub seq: u64,
}

/// The events of each machine, with their sequences.
#[derive(Debug, Default, Clone)]
pub struct Flow {
    pub of: BTreeMap<usize, Vec<(u64, Told)>>,
    pub seq: u64,
}

impl Flow {
    pub fn last(&self, machine: usize) -> Option<(u64, Told)> {
        self.of.get(&machine)?.last().copied()
    }
}

#[derive(Debug, Default)]
pub struct Bus {
    pub journal: Journal,
    pub work: Work,
    pub flow: Flow,
    pub leases: BTreeMap<MachineId, (u64, LeaseRecord)>,
    pub lease_log: Vec<(u64, LeaseRecord)>,
    pub lease_seq: u64,
    /// Which process of the server this is.
    pub server: u64,
    /// The server that the hub vouches for, and its epoch.
    pub word: (u64, u64),
    /// Ids of messages of late, and where those are.
    dedup: BTreeMap<TicketId, (u64, Micros)>,
}

impl Bus {
    /// Whether somebody has had the ticket of this number.
    pub fn is_delivered(&self, seq: u64) -> bool {
        let queued = self.work.queue.get(&seq);
        queued.is_some_and(|queued| queued.pending_until.is_some())
    }

    pub fn publish(&mut self, ticket: Arc<Ticket>, now: Micros) -> u64 {
        if let Some((seq, at)) = self.dedup.get(&ticket.ticket)
            && now < at + DEDUP
        {
            return *seq;
        }
        self.work.seq += 1;
        let seq = self.work.seq;
        self.dedup.insert(ticket.ticket, (seq, now));
        let queued = Queued {
            ticket,
            pending_until: None,
        };
        self.work.queue.insert(seq, queued);
        seq
    }

    /// The next ticket for a machine; `stray`: or one that is pinned to another.
    pub fn pull(&mut self, me: &MachineId, stray: bool, now: Micros) -> Option<(u64, Arc<Ticket>)> {
        let mine = |target: &Target| match target {
            Target::Pin(machine) => machine == me || stray,
            Target::Lane(_) => true,
        };
        let (seq, queued) = self.work.queue.iter_mut().find(|(_, queued)| {
            queued.pending_until.is_none_or(|until| until <= now) && mine(&queued.ticket.target)
        })?;
        queued.pending_until = Some(now + ACK_WAIT);
        Some((*seq, queued.ticket.clone()))
    }

    /// The server's process is gone and another comes: what was delivered is delivered again, and
    /// the ids are known of what is still there.
    pub fn restart(&mut self) {
        self.server += 1;
        for queued in self.work.queue.values_mut() {
            queued.pending_until = None;
        }
        let queue = &self.work.queue;
        self.dedup.retain(|_, (seq, _)| queue.contains_key(seq));
    }

    pub fn vouched(&self) -> Option<u64> {
        (self.word.0 == self.server).then_some(self.word.1)
    }

    /// Whether the job has a ticket.
    pub fn has_ticket(&self, job: JobId) -> bool {
        self.work.queue.values().any(|q| q.ticket.job == job)
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
