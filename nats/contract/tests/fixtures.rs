//! The wire contract as it was written once is read for ever. `fixtures/v1` holds one message of
//! each kind from a real run (`lease.hub`, `job.rejected`, `job.superseded`, `job.acknowledged`,
//! `event.attempt.superseded`, `event.machine.load` and what is not stored, `stat` and `hub.stats`, by
//! hand) and is never changed.
//! `fixtures/v2` is what a later fleet may write: the same with fields nobody knows yet, and kinds
//! nobody knows yet.

#![expect(
    clippy::disallowed_methods,
    reason = "the contract touches no files, its tests read what was once written"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleet_contract::envelope::{self, TICKET_MAX_BYTES, WireError};
use fleet_contract::event::Flow;
use fleet_contract::hub::{HUB_STATS_KIND, HubStats};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{PRESENCE_KIND, Presence};
use fleet_contract::outcome::Outcome;
use fleet_contract::record::{Change, Record};
use fleet_contract::stat::{STAT_KIND, Stat};
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The fixtures of a version, by name.
fn fixtures(version: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version);
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// Reads it as what it is, and as JSON again.
fn read<D: DeserializeOwned + Serialize>(
    bytes: &[u8],
    known: impl FnOnce(&str) -> bool,
) -> Result<Value, WireError> {
    let (_, data): (_, D) = envelope::decode_any(bytes, TICKET_MAX_BYTES, known)?;
    Ok(serde_json::to_value(data).unwrap())
}

/// Reads a fixture by the reader for its kind.
fn read_named(name: &str, bytes: &[u8]) -> Result<Value, WireError> {
    match name.split('.').next().unwrap() {
        "job" => read::<Record>(bytes, Change::knows_kind),
        "ticket" => read::<Ticket>(bytes, |kind| kind == TICKET_KIND),
        "presence" => read::<Presence>(bytes, |kind| kind == PRESENCE_KIND),
        "lease" => read::<LeaseRecord>(bytes, |kind| kind == "lease"),
        "event" => read::<Flow>(bytes, |_| true),
        "stat" => read::<Stat>(bytes, |kind| kind == STAT_KIND),
        "hub" => read::<HubStats>(bytes, |kind| kind == HUB_STATS_KIND),
        "lane" => read::<Value>(bytes, |kind| kind == "lane"),
        other => panic!("no reader for {other}"),
    }
}

/// Fails unless everything that stands in `written` was read.
fn holds(name: &str, written: &Value, read: &Value) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                // What is left out when written stands for the same.
                let found = read.get(key).unwrap_or(&Value::Null);
                let left_out = [Value::Null, 0.into(), false.into()].contains(value);
                if !(left_out && found.is_null()) {
                    holds(&format!("{name}.{key}"), value, found);
                }
            }
        }
        _ => assert_eq!(written, read, "{name}"),
    }
}

#[test]
fn version_one_is_read_and_nothing_of_it_is_lost() {
    let mut fixtures = fixtures("v1");
    // The header of a chunk of output: nats/tests/fixtures.rs reads it.
    fixtures.remove("chunk").unwrap();
    for kind in [
        "queued",
        "claimed",
        "ended",
        "cancel_requested",
        "canceled",
        "lost",
        "expired",
        "rejected",
        "resolved",
        "restated",
        "superseded",
        "acknowledged",
    ] {
        assert!(fixtures.contains_key(&format!("job.{kind}")), "{kind}");
    }
    for (name, bytes) in &fixtures {
        let written: Value = serde_json::from_slice(bytes).unwrap();
        let read = read_named(name, bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        holds(name, &written["data"], &read);
        let header = envelope::decode_header(bytes, TICKET_MAX_BYTES).unwrap();
        let header = serde_json::to_value(header).unwrap();
        for (key, value) in written.as_object().unwrap() {
            if key != "data" {
                holds(name, value, &header[key]);
            }
        }
    }
}

#[test]
fn version_one_means_what_it_meant() {
    let fixtures = fixtures("v1");
    let record = |name: &str| -> Record {
        let bytes = &fixtures[name];
        let read = envelope::decode_any(bytes, TICKET_MAX_BYTES, Change::knows_kind);
        read.unwrap().1
    };
    let Change::Queued { spec, .. } = record("job.queued").change else {
        panic!("queued is queued");
    };
    let spec = spec.unwrap();
    assert_eq!(spec.stdin.as_deref(), Some(&b"in"[..]));
    assert_eq!(spec.timeout_ms, Some(3_600_000));
    assert!(spec.shell);
    spec.validate().unwrap();
    let Change::Ended { outcome, .. } = record("job.ended").change else {
        panic!("ended is ended");
    };
    assert_eq!(outcome, Outcome::Exited { exit_code: 0 });
    let (_, ticket): (_, Ticket) =
        envelope::decode(&fixtures["ticket"], TICKET_KIND, TICKET_MAX_BYTES).unwrap();
    assert_eq!(ticket.spec.command, spec.command);
    assert_eq!(ticket.after, 0);
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let (one, two) = (fixtures("v1"), fixtures("v2"));
    for (name, bytes) in two.iter().filter(|(name, _)| one.contains_key(*name)) {
        if name == "chunk" {
            continue;
        }
        let later = read_named(name, bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Only where data is passed on unread does it keep what nobody knows.
        if !name.starts_with("event") && name != "lane" {
            assert_eq!(later, read_named(name, &one[name]).unwrap(), "{name}");
        }
    }
}

#[test]
fn kinds_of_a_later_version_are_told_apart_by_every_reader() {
    let two = fixtures("v2");
    let unknown: Vec<_> = two
        .iter()
        .filter(|(name, _)| name.starts_with("unknown."))
        .collect();
    assert!(unknown.len() >= 3);
    for (name, bytes) in unknown {
        let kind = name.strip_prefix("unknown.").unwrap();
        let expected = WireError::UnknownKind(kind.to_owned());
        for reader in ["job", "ticket", "presence", "lease", "lane", "stat", "hub"] {
            assert_eq!(
                read_named(reader, bytes).unwrap_err(),
                expected,
                "{reader} {name}"
            );
        }
        // The flow shows what it does not know.
        read::<Value>(bytes, |_| true).unwrap();
    }
}
