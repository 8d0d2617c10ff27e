//! The journal: appends by compare-and-swap, and the reads that its rules need.

use fleet_contract::envelope::{self, Header, TICKET_MAX_BYTES, WireError};
use fleet_contract::ids::{JobId, MachineId, TicketId, Writer};
use fleet_contract::job::{Applied, Job, Void};
use fleet_contract::record::{Change, Record};
use fleet_contract::ticket::{Reading, Tip};
use fleet_contract::time::Time;

use crate::bus::{Bus, BusError, Store, Stored};
use crate::clock;
use crate::subject::{self, stream};
use crate::tail::{self, From};

/// One record as it stands in the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The job.
    pub job: JobId,
    /// Who wrote it.
    pub writer: Writer,
    /// Its sequence.
    pub seq: u64,
    /// When the hub stored it.
    pub stored: Time,
    /// Its header and itself, or why it is none.
    pub record: Result<(Header, Record), Void>,
}

impl Entry {
    /// The entry that a stored message is; none where the subject is no journal's.
    #[must_use]
    pub fn of(message: &Stored) -> Option<Self> {
        let (job, writer) = subject::parse_job(&message.subject)?;
        let record = message
            .honest()
            .and_then(|m| envelope::decode_any(&m.payload, TICKET_MAX_BYTES, Change::knows_kind))
            .map_err(|error| Void::Unreadable(error.to_string()));
        Some(Self {
            job,
            writer,
            seq: message.seq,
            stored: message.time,
            record,
        })
    }

    /// When it was written, by its writer's clock; by the hub's where it cannot be read.
    #[must_use]
    pub fn time(&self) -> Time {
        self.record
            .as_ref()
            .map_or(self.stored, |(header, _)| header.time)
    }

    fn tip(self) -> Tip {
        match self.record {
            Ok((_, record)) => Tip::of(self.seq, self.writer, &record),
            // What cannot be read rules nothing, but it is the last sequence.
            Err(_) => Tip::unreadable(self.seq, self.writer),
        }
    }
}

/// Takes the next entry into a job that may not be known yet.
pub fn fold(job: &mut Option<Job>, entry: &Entry) -> Applied {
    let time = entry.time();
    match (job.as_mut(), &entry.record) {
        (Some(job), Ok((_, record))) => job.apply(entry.seq, time, &entry.writer, record),
        (Some(job), Err(void)) => {
            job.skip(entry.seq);
            Applied::Void(void.clone())
        }
        (None, Ok((_, record))) => {
            match Job::first(entry.job, entry.seq, time, &entry.writer, record) {
                Ok(first) => {
                    *job = Some(first);
                    Applied::Changed
                }
                Err(void) => Applied::Void(void),
            }
        }
        (None, Err(void)) => Applied::Void(void.clone()),
    }
}

/// A record as bytes.
///
/// # Errors
/// `Oversize` where the job is too large for the bus.
pub fn encode(
    job: JobId,
    writer: &Writer,
    time: Time,
    record: &Record,
) -> Result<Vec<u8>, WireError> {
    let mut header = Header::new(clock::message_id(), time, record.change.kind());
    header.job = Some(job);
    header.attempt = record.change.attempt();
    if let Writer::Machine(machine) = writer {
        header.machine = Some(machine.clone());
    }
    envelope::encode(&header, record, TICKET_MAX_BYTES)
}

impl Bus {
    /// Appends a record, expecting that the job's last sequence is the record's `prev`.
    ///
    /// # Errors
    /// `Moved` where it is not; `NoAnswer` where nobody knows whether it was appended.
    pub async fn append(
        &self,
        job: JobId,
        writer: &Writer,
        time: Time,
        record: &Record,
    ) -> Result<u64, BusError> {
        self.only_now()?;
        let payload = encode(job, writer, time, record)?;
        let filter = subject::job_all(job);
        let options = Store {
            expect: Some((record.prev, &filter)),
            ..Store::default()
        };
        self.store(&subject::job(job, writer), payload.into(), &options)
            .await
    }

    /// The last record of a job.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn tip(&self, job: JobId) -> Result<Option<Tip>, BusError> {
        self.tip_of(&subject::job_all(job)).await
    }

    async fn tip_of(&self, subject: &str) -> Result<Option<Tip>, BusError> {
        let message = self.last(stream::JOB, subject).await?;
        Ok(message.as_ref().and_then(Entry::of).map(Entry::tip))
    }

    /// What the journal says where it matters to an attempt of `machine`.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn reading(&self, job: JobId, machine: &MachineId) -> Result<Reading, BusError> {
        let (operator, keeper, own) = (
            subject::job(job, &Writer::Operator),
            subject::job(job, &Writer::Keeper),
            subject::job(job, &Writer::Machine(machine.clone())),
        );
        let (operator, keeper, own) = tokio::try_join!(
            self.tip_of(&operator),
            self.tip_of(&keeper),
            self.tip_of(&own)
        )?;
        // Read last: a record in between makes the tip newer than a ruling, never older.
        let tip = self.tip(job).await?;
        Ok(Reading {
            tip,
            operator,
            keeper,
            own,
        })
    }

    /// The whole of a job, standard input and all; none where the hub has no journal of it.
    ///
    /// # Errors
    /// As [`tail::read_all`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, BusError> {
        let mut job = None;
        for message in
            tail::read_all(self, stream::JOB, &[subject::job_all(id)], From::First).await?
        {
            if let Some(entry) = Entry::of(&message) {
                fold(&mut job, &entry);
            }
        }
        Ok(job)
    }

    /// The ticket that the first record of a job names: whose dispatch it is.
    ///
    /// # Errors
    /// As [`tail::read_all`].
    pub(crate) async fn first_ticket(&self, id: JobId) -> Result<Option<TicketId>, BusError> {
        let filter = [subject::job_all(id)];
        let all = tail::read_all(self, stream::JOB, &filter, From::First).await?;
        let first = all
            .iter()
            .find_map(|message| Entry::of(message)?.record.ok());
        Ok(first.and_then(|(_, record)| match record.change {
            Change::Queued { ticket, .. } | Change::Claimed { ticket, .. } => Some(ticket),
            _ => None,
        }))
    }
}
