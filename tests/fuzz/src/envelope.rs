//! Any bytes as each message of the bus: an error or a message, never a panic; a message that was
//! read is the same after it was written and read again.

use bytes::Bytes;
use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, TICKET_MAX_BYTES, WireError};
use fleet_contract::event::Flow;
use fleet_contract::hub::{HUB_STATS_KIND, HubStats};
use fleet_contract::ids::{JobId, Writer};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{PRESENCE_KIND, Presence};
use fleet_contract::record::{Change, Record};
use fleet_contract::stat::{STAT_KIND, Stat};
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use fleet_contract::time::Time;
use fleet_nats::bus::Stored;
use fleet_nats::guard::HubWord;
use fleet_nats::journal::Entry;
use fleet_nats::output::ChunkHead;
use fleet_nats::{flow, registry, stat, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Seed;

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    if let Ok(header) = envelope::decode_header(data, MESSAGE_MAX_BYTES) {
        again(&header);
    }
    let small = data.len() / 2;
    let over = envelope::decode_header(data, small);
    if data.len() > small {
        assert!(matches!(over, Err(WireError::Oversize { .. })), "{over:?}");
    }
    message::<Record>(data, Change::knows_kind);
    message::<Ticket>(data, |kind| kind == TICKET_KIND);
    message::<Presence>(data, |kind| kind == PRESENCE_KIND);
    message::<LeaseRecord>(data, |kind| kind == "lease");
    message::<Stat>(data, |kind| kind == STAT_KIND);
    message::<HubStats>(data, |kind| kind == HUB_STATS_KIND);
    message::<HubWord>(data, |kind| kind == "hub");
    message::<Flow>(data, |_| true);
    message::<Value>(data, |_| true);
    if let Ok(head) = serde_json::from_slice::<ChunkHead>(data) {
        again(&head);
    }
    as_stored(data);
}

/// A message of one kind, there and back.
fn message<D: DeserializeOwned + Serialize>(data: &[u8], known: impl Fn(&str) -> bool) {
    let read = envelope::decode_any::<D>(data, TICKET_MAX_BYTES, &known);
    let Ok((header, read)) = read else { return };
    assert!(known(&header.kind), "{} is not of this kind", header.kind);
    let written = envelope::encode(&header, &read, usize::MAX).unwrap();
    let (header_again, read_again): (Header, D) =
        envelope::decode_any(&written, usize::MAX, known).unwrap();
    assert_eq!(header_again, header);
    same("data", &value(&read), &value(&read_again));
    let short = written.len() - 1;
    let over = envelope::encode(&header, &read, short);
    assert!(matches!(over, Err(WireError::Oversize { .. })));
}

fn again<D: DeserializeOwned + Serialize>(read: &D) {
    let text = serde_json::to_string(read).unwrap();
    let read_again: D = serde_json::from_str(&text).unwrap();
    same("", &value(read), &value(&read_again));
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

/// The same, but for the last digit of a number that is not whole.
fn same(at: &str, one: &Value, other: &Value) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{at}: {one} {other}");
            a.iter().for_each(|(key, value)| same(key, value, &b[key]));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).for_each(|(a, b)| same(at, a, b));
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= a.abs() * 1e-12, "{at}: {a} {b}");
        }
        _ => assert_eq!(one, other, "{at}"),
    }
}

/// The readers that also look at the subject: none takes a message for another's.
fn as_stored(data: &[u8]) {
    let of = |subject: &str, smuggled| Stored {
        subject: subject.to_owned(),
        seq: 7,
        time: Time::default(),
        headers: Default::default(),
        payload: Bytes::copy_from_slice(data),
        smuggled,
    };
    let studio = "studio".parse().unwrap();
    let presence = subject::presence(&studio);
    if let Ok(read) = registry::decode_presence(&of(&presence, false)) {
        assert_eq!(read.machine, studio);
    }
    assert!(registry::decode_presence(&of(&presence, true)).is_err());
    for holder in [studio.as_str(), subject::HUB] {
        if let Ok(read) = registry::decode_lease(&of(&subject::lease(&studio, holder), false)) {
            assert_eq!(read.machine(), &studio);
        }
    }
    if let Ok(told) = stat::decode_stat(&subject::stat(&studio), data) {
        assert_eq!(told.0, studio);
    }
    let job = JobId::from_random([1; 10]);
    let record = subject::job(job, &Writer::Machine(studio));
    let entry = Entry::of(&of(&record, false)).unwrap();
    let _ = entry.time();
    assert!(Entry::of(&of(&record, true)).unwrap().record.is_err());
    if let Ok(event) = flow::event(&of(&record, false)) {
        assert_eq!(event.data.pointer("/spec/stdin"), None);
        again(&event);
    }
}

/// The frozen messages of both versions, as they were on a bus.
pub(crate) fn seeds() -> Vec<Seed> {
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../nats/contract/tests/fixtures"
    );
    let mut seeds = Vec::new();
    for version in ["v1", "v2"] {
        for entry in std::fs::read_dir(format!("{fixtures}/{version}")).unwrap() {
            let path = entry.unwrap().path();
            let message: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            // As short as they travel.
            seeds.push((
                format!("{version}-{name}"),
                message.to_string().into_bytes(),
            ));
        }
    }
    seeds
}
