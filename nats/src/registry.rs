//! Machines on the bus: presence and leases.

use std::time::Duration;

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, WireError};
use fleet_contract::ids::MachineId;
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{PRESENCE_KIND, Presence};
use fleet_contract::time::Time;
use fleet_contract::view::MachineView;

use crate::bus::{Bus, BusError, Store, Stored};
use crate::clock;
use crate::subject::{self, HUB, stream};

/// The kind of a lease's envelope.
pub const LEASE_KIND: &str = "lease";

/// A machine's last presence.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it said.
    pub presence: Presence,
    /// Its sequence.
    pub seq: u64,
    /// When the hub stored it.
    pub stored: Time,
    /// How long ago that was by the hub's clock.
    pub age: Duration,
}

impl Seen {
    /// The machine for people and programs.
    #[must_use]
    pub fn view(&self) -> MachineView {
        MachineView::of(&self.presence, self.stored, self.age)
    }
}

/// Reads a presence.
///
/// # Errors
/// As [`envelope::decode`]; `Malformed` where it speaks for another machine than its subject.
pub fn decode_presence(message: &Stored) -> Result<Presence, WireError> {
    let (_, presence): (_, Presence) =
        envelope::decode(&message.honest()?.payload, PRESENCE_KIND, MESSAGE_MAX_BYTES)?;
    if subject::parse_presence(&message.subject).as_ref() != Some(&presence.machine) {
        return Err(WireError::Malformed(format!(
            "it speaks for {} on {}",
            presence.machine, message.subject
        )));
    }
    Ok(presence)
}

/// Reads a lease's record.
///
/// # Errors
/// As [`decode_presence`].
pub fn decode_lease(message: &Stored) -> Result<LeaseRecord, WireError> {
    let (_, record): (_, LeaseRecord) =
        envelope::decode(&message.honest()?.payload, LEASE_KIND, MESSAGE_MAX_BYTES)?;
    let (machine, expected) = match &record {
        LeaseRecord::Agent { machine, .. } => (machine, subject::lease(machine, machine.as_str())),
        LeaseRecord::Hub { machine } => (machine, subject::lease(machine, HUB)),
    };
    if message.subject != expected {
        return Err(WireError::Malformed(format!(
            "it speaks for {machine} on {}",
            message.subject
        )));
    }
    Ok(record)
}

fn presence_bytes(presence: &Presence) -> Result<Vec<u8>, WireError> {
    let mut header = Header::new(clock::message_id(), clock::now(), PRESENCE_KIND);
    header.machine = Some(presence.machine.clone());
    envelope::encode(&header, presence, MESSAGE_MAX_BYTES)
}

impl Bus {
    /// Every machine the fleet knows, by name, and how many presences could not be read.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn machines(&self) -> Result<(Vec<Seen>, u64), BusError> {
        let (messages, usage) = tokio::try_join!(
            self.last_of_each(stream::PRES, &[subject::PRESENCES]),
            self.usage(stream::PRES)
        )?;
        let mut unreadable = 0;
        let mut machines = Vec::with_capacity(messages.len());
        for message in &messages {
            match decode_presence(message) {
                Ok(presence) => machines.push(Seen {
                    presence,
                    seq: message.seq,
                    stored: message.time,
                    age: usage.now.since(message.time),
                }),
                Err(_) => unreadable += 1,
            }
        }
        machines.sort_by(|a, b| a.presence.machine.cmp(&b.presence.machine));
        Ok((machines, unreadable))
    }

    /// The presence of one machine by its own subject: all that a worker may read.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn own_presence(&self, machine: &MachineId) -> Result<Option<Seen>, BusError> {
        let Some(message) = self.last(stream::PRES, &subject::presence(machine)).await? else {
            return Ok(None);
        };
        let presence = decode_presence(&message)?;
        // A worker cannot ask for the hub's clock; its own is what is left.
        let age = clock::now().since(message.time);
        Ok(Some(Seen {
            presence,
            seq: message.seq,
            stored: message.time,
            age,
        }))
    }

    /// This machine's clock less the hub's when its last presence was stored, in milliseconds; off by
    /// the time that storing it took.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn clock_offset_ms(&self, machine: &MachineId) -> Result<Option<i64>, BusError> {
        let Some(message) = self.last(stream::PRES, &subject::presence(machine)).await? else {
            return Ok(None);
        };
        let header = envelope::decode_header(&message.payload, MESSAGE_MAX_BYTES)?;
        Ok(Some(
            (header.time.as_micros() - message.time.as_micros()) / 1000,
        ))
    }

    /// Publishes a presence; where `expect` is given, only over this sequence.
    ///
    /// # Errors
    /// `Moved` where `expect` does not hold.
    pub async fn beat(&self, presence: &Presence, expect: Option<u64>) -> Result<u64, BusError> {
        let payload = presence_bytes(presence)?;
        let subject = subject::presence(&presence.machine);
        let options = Store {
            expect: expect.map(|seq| (seq, subject.as_str())),
            ..Store::default()
        };
        self.store(&subject, payload.into(), &options).await
    }

    /// The last record of a machine's lease. One that cannot be read is nobody's, as if the hub
    /// had taken the lease: who holds it takes it anew over that.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn lease(&self, machine: &MachineId) -> Result<Option<(u64, LeaseRecord)>, BusError> {
        let Some(message) = self
            .last(stream::LEASE, &subject::lease_all(machine))
            .await?
        else {
            return Ok(None);
        };
        let record = decode_lease(&message).unwrap_or_else(|error| {
            tracing::warn!(%error, %machine, "the lease cannot be read");
            LeaseRecord::Hub {
                machine: machine.clone(),
            }
        });
        Ok(Some((message.seq, record)))
    }

    /// Appends to a machine's lease, expecting its last sequence.
    ///
    /// # Errors
    /// `Moved` where it is another; `Closed` while the link is down: queued for the reconnect, the
    /// hub's record would overtake the renewal that the machine could not send either.
    pub async fn append_lease(&self, record: &LeaseRecord, expect: u64) -> Result<u64, BusError> {
        self.only_now()?;
        let (machine, holder) = match record {
            LeaseRecord::Agent { machine, .. } => (machine, machine.as_str()),
            LeaseRecord::Hub { machine } => (machine, HUB),
        };
        let mut header = Header::new(clock::message_id(), clock::now(), LEASE_KIND);
        header.machine = Some(machine.clone());
        let payload = envelope::encode(&header, record, MESSAGE_MAX_BYTES)?;
        let filter = subject::lease_all(machine);
        let options = Store {
            expect: Some((expect, &filter)),
            ..Store::default()
        };
        self.store(&subject::lease(machine, holder), payload.into(), &options)
            .await
    }

    /// The sequence of what lies on a machine's lease where that is no record of it.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn unreadable_lease(&self, machine: &MachineId) -> Result<Option<u64>, BusError> {
        let last = self
            .last(stream::LEASE, &subject::lease_all(machine))
            .await?;
        Ok(last.filter(|m| decode_lease(m).is_err()).map(|m| m.seq))
    }

    /// Removes a machine from the registry; whether it was there.
    ///
    /// # Errors
    /// What the server says.
    pub async fn forget(&self, machine: &MachineId) -> Result<bool, BusError> {
        let removed = self
            .purge(stream::PRES, &subject::presence(machine), None)
            .await?;
        self.purge(stream::LEASE, &subject::lease_all(machine), None)
            .await?;
        Ok(removed > 0)
    }
}
