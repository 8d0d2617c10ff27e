//! Messages of the streams → facts. The one way for what comes from the bus and from a file.

use fleet_contract::projection::{Fact, JournalFact};
use fleet_contract::time::Time;
use fleet_nats::bus::Stored;
use fleet_nats::flow;
use fleet_nats::journal::Entry;
use fleet_nats::registry::decode_presence;

use crate::model::Reader;

/// What a message says that was stored at this time by the console's clock.
pub(crate) fn fact(reader: Reader, message: &Stored, stored: Time) -> Fact {
    match reader {
        Reader::Journal => record(message, stored),
        Reader::Presence => presence(message, stored),
        Reader::Flow => event(message, stored),
    }
}

/// Who reads a stream; none where nobody here does.
#[cfg(any(test, feature = "demo"))]
pub(crate) fn reader(of: &str) -> Option<Reader> {
    use fleet_nats::subject::stream;

    Some(match of {
        stream::JOB => Reader::Journal,
        stream::PRES => Reader::Presence,
        stream::FLOW => Reader::Flow,
        _ => return None,
    })
}

fn record(message: &Stored, stored: Time) -> Fact {
    match Entry::of(message) {
        None => unreadable(format!("no journal's subject: {}", message.subject)),
        Some(entry) => Fact::Record(Box::new(JournalFact {
            job: entry.job,
            writer: entry.writer.clone(),
            seq: entry.seq,
            stored,
            time: entry.time(),
            record: entry.record.map(|(_, record)| record),
        })),
    }
}

fn presence(message: &Stored, seen: Time) -> Fact {
    match decode_presence(message) {
        Err(error) => unreadable(error.to_string()),
        Ok(mut presence) => {
            // The hub's word, by its clock.
            let ahead = seen.as_micros().saturating_sub(message.time.as_micros());
            let here = |hub: Time| Time::from_micros(hub.as_micros().saturating_add(ahead));
            presence.lost_at = presence.lost_at.map(here);
            Fact::Presence {
                presence: Box::new(presence),
                seq: message.seq,
                seen,
            }
        }
    }
}

fn event(message: &Stored, stored: Time) -> Fact {
    match flow::event(message) {
        Err(error) => unreadable(error.to_string()),
        Ok(event) => Fact::Event {
            event: Box::new(event),
            stored,
        },
    }
}

fn unreadable(why: String) -> Fact {
    Fact::Unreadable { why }
}
