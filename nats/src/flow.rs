//! Events that are not transitions of a job, and the one view of both.

use bytes::Bytes;
use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, WireError};
use fleet_contract::event::{EventView, Flow, kind};
use fleet_contract::ids::{AttemptId, JobId, MachineId, Writer};
use fleet_contract::time::Time;
use serde_json::Value;

use crate::bus::{Bus, BusError, Store, Stored};
use crate::clock;
use crate::subject::{self, stream};

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
        self.encode_at(clock::now(), boot, seq)
    }

    /// The same, of something that happened at `time`.
    ///
    /// # Errors
    /// `Oversize`.
    pub fn encode_at(&self, time: Time, boot: &str, seq: u64) -> Result<Vec<u8>, WireError> {
        let mut header = Header::new(clock::message_id(), time, self.kind);
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
    let (mut header, mut data): (Header, Value) =
        envelope::decode_any(&message.honest()?.payload, limit, |_| true)?;
    speaks_for_its_writer(&message.subject, &mut header)?;
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

/// Refuses an event that tells of another than who may write on its subject.
fn speaks_for_its_writer(subject: &str, header: &mut Header) -> Result<(), WireError> {
    let (writer, kind, job) = match (subject::parse_flow(subject), subject::parse_job(subject)) {
        (Some((writer, kind)), _) => (writer.parse::<MachineId>().ok(), Some(kind), None),
        (None, Some((job, Writer::Machine(machine)))) => (Some(machine), None, Some(job)),
        (None, Some((job, _))) => (None, None, Some(job)),
        (None, None) => {
            return Err(WireError::Malformed(format!(
                "no event's subject: {subject}"
            )));
        }
    };
    // What the hub alone tells may have others act on it.
    let of_hub = kind.is_some_and(|kind| {
        kind.starts_with("hub.") || [kind::MACHINE_LOST, kind::JOURNAL_VOID].contains(&kind)
    });
    let other_kind = kind.is_some_and(|kind| kind != header.kind) || (of_hub && writer.is_some());
    let other_job = job.is_some() && header.job.is_some_and(|told| Some(told) != job);
    let other_machine = writer.is_some() && header.machine.is_some() && header.machine != writer;
    if other_kind || other_job || other_machine {
        let told: String = header.kind.chars().take(80).collect();
        let machine = header.machine.as_ref().map_or("nobody", MachineId::as_str);
        return Err(WireError::Malformed(format!(
            "{told:?} of {machine} was told on {subject}"
        )));
    }
    if writer.is_some() {
        header.machine = writer;
    }
    Ok(())
}

/// Most events that are stored at once; the server takes 1,000.
pub const BATCH_MAX: usize = 500;

/// An event that was encoded before: its kind and its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What happened.
    pub kind: String,
    /// Its envelope.
    pub payload: Bytes,
}

/// The last event that the hub has of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTold {
    /// Its sequence in the stream; 0 where there is none.
    pub seq: u64,
    /// Its writer's run and count; none where it cannot be read.
    pub place: Option<(String, u64)>,
}

impl Bus {
    /// The last event that the hub has of this writer.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn last_told(&self, writer: &str) -> Result<LastTold, BusError> {
        let filter = subject::flow(writer, ">");
        let Some(message) = self.last(stream::FLOW, &filter).await? else {
            return Ok(LastTold {
                seq: 0,
                place: None,
            });
        };
        let read: Result<(Header, Flow), _> =
            envelope::decode_any(&message.payload, MESSAGE_MAX_BYTES, |_| true);
        Ok(LastTold {
            seq: message.seq,
            place: read.ok().map(|(_, flow)| (flow.boot, flow.seq)),
        })
    }

    /// Stores events of one writer in this order, if the last one that the hub has of it has the
    /// sequence `after`: all of them or none. The sequence of the last.
    ///
    /// # Errors
    /// `Moved` where something came in between, `NoAnswer` where nobody knows: ask for the last one.
    pub async fn put_events(
        &self,
        writer: &str,
        events: &[Encoded],
        after: u64,
    ) -> Result<u64, BusError> {
        let filter = subject::flow(writer, ">");
        let expect = Some((after, filter.as_str()));
        let options = Store {
            expect,
            ..Store::default()
        };
        match events {
            [] => Ok(after),
            [one] => {
                let subject = subject::flow(writer, &one.kind);
                self.store(&subject, one.payload.clone(), &options).await
            }
            [first, between @ .., last] => {
                let id = clock::message_id().to_string();
                let batch = |n: usize| {
                    [
                        ("Nats-Batch-Id", id.clone()),
                        ("Nats-Batch-Sequence", n.to_string()),
                    ]
                };
                self.begin_batch(
                    &subject::flow(writer, &first.kind),
                    first.payload.clone(),
                    &Store {
                        headers: &batch(1),
                        ..options
                    },
                )
                .await?;
                for (event, n) in between.iter().zip(2..) {
                    let subject = subject::flow(writer, &event.kind);
                    self.send_headed(&subject, event.payload.clone(), &batch(n))
                        .await?;
                }
                let [id, sequence] = batch(events.len());
                let commit = Store {
                    headers: &[id, sequence, ("Nats-Batch-Commit", "1".to_owned())],
                    ..Store::default()
                };
                let subject = subject::flow(writer, &last.kind);
                let stored = self.store(&subject, last.payload.clone(), &commit).await?;
                for event in events.iter().take(events.len() - 1) {
                    self.count(&subject::flow(writer, &event.kind), event.payload.len());
                }
                Ok(stored)
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::HeaderMap;

    fn told(
        subject: &str,
        kind: &'static str,
        machine: Option<&str>,
    ) -> Result<EventView, WireError> {
        let new = NewEvent {
            kind,
            machine: machine.map(|m| m.parse().unwrap()),
            job: Some(JobId::from_key("x")),
            attempt: None,
            detail: Value::Null,
        };
        event(&Stored {
            subject: subject.to_owned(),
            seq: 1,
            time: Time::default(),
            headers: HeaderMap::new(),
            payload: new.encode("boot", 1).unwrap().into(),
            smuggled: false,
        })
    }

    #[test]
    fn an_event_is_told_by_whom_it_is_about() {
        let own = told("fleet.flow.rogue.x", "x", Some("rogue")).unwrap();
        assert_eq!(own.machine.unwrap().as_str(), "rogue");
        let unnamed = told("fleet.flow.rogue.x", "x", None).unwrap();
        assert_eq!(unnamed.machine.unwrap().as_str(), "rogue");
        let hub = told(
            "fleet.flow.hub.machine.lost",
            "machine.lost",
            Some("studio"),
        )
        .unwrap();
        assert_eq!(hub.machine.unwrap().as_str(), "studio");
        for (subject, kind, machine) in [
            ("fleet.flow.rogue.x", "x", Some("studio")),
            ("fleet.flow.rogue.x", "y", Some("rogue")),
            // A console forgets a job that the hub purged.
            ("fleet.flow.rogue.hub.job_purged", "hub.job_purged", None),
            ("fleet.flow.rogue.machine.lost", "machine.lost", None),
            ("fleet.flow.rogue.journal.void", "journal.void", None),
            ("fleet.pres.rogue", "x", Some("rogue")),
        ] {
            assert!(told(subject, kind, machine).is_err(), "{subject} {kind}");
        }
    }
}
