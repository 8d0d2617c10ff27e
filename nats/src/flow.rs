//! Events that are not transitions of a job, and the one view of both.

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, WireError};
use fleet_contract::event::{EventView, Flow};
use fleet_contract::ids::{AttemptId, JobId, MachineId};
use serde_json::Value;

use crate::bus::{Bus, BusError, Store, Stored};
use crate::clock;
use crate::subject;

/// An event before it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What happened.
    pub kind: &'static str,
    /// The machine it is about.
    pub machine: Option<MachineId>,
    /// The job it is about.
    pub job: Option<JobId>,
    /// The attempt it is about.
    pub attempt: Option<AttemptId>,
    /// Details.
    pub detail: Value,
}

impl NewEvent {
    /// An event of this kind about a machine.
    #[must_use]
    pub fn of_machine(kind: &'static str, machine: &MachineId, detail: Value) -> Self {
        Self {
            kind,
            machine: Some(machine.clone()),
            job: None,
            attempt: None,
            detail,
        }
    }

    /// The event as bytes, as `seq` of its writer's `boot`.
    ///
    /// # Errors
    /// `Oversize`.
    pub fn encode(&self, boot: &str, seq: u64) -> Result<Vec<u8>, WireError> {
        let mut header = Header::new(clock::message_id(), clock::now(), self.kind);
        header.machine.clone_from(&self.machine);
        header.job = self.job;
        header.attempt = self.attempt;
        let flow = Flow {
            boot: boot.to_owned(),
            seq,
            detail: self.detail.clone(),
        };
        envelope::encode(&header, &flow, MESSAGE_MAX_BYTES)
    }
}

/// Any message of JOB or FLOW as an event.
///
/// # Errors
/// As [`envelope::decode_any`].
pub fn event(message: &Stored) -> Result<EventView, WireError> {
    let limit = envelope::TICKET_MAX_BYTES;
    let (header, mut data): (Header, Value) =
        envelope::decode_any(&message.honest()?.payload, limit, |_| true)?;
    // Standard input may be megabytes of base64 that nobody wants to see in an event.
    if let Some(spec) = data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("stdin");
    }
    Ok(EventView {
        id: header.id,
        seq: message.seq,
        time: header.time,
        machine: header.machine,
        kind: header.kind,
        job: header.job,
        attempt: header.attempt,
        data,
    })
}

impl Bus {
    /// Stores an event told by `writer` (a machine, or the hub).
    ///
    /// # Errors
    /// `NoAnswer`, `Full`.
    pub async fn put_event(
        &self,
        writer: &str,
        event: &NewEvent,
        boot: &str,
        seq: u64,
    ) -> Result<u64, BusError> {
        let payload = event.encode(boot, seq)?;
        let id = format!("{writer}-{boot}-{seq}");
        let options = Store {
            message_id: Some(&id),
            ..Store::default()
        };
        self.store(&subject::flow(writer, event.kind), payload.into(), &options)
            .await
    }
}
