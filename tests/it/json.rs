//! Compares JSON with committed examples, after everything that differs from run to run was
//! replaced by what kind of thing it is.

use std::path::PathBuf;

use serde_json::Value;

/// Keys whose numbers differ from run to run.
const NUMBERS: [&str; 30] = [
    "age_ms",
    "cores",
    "disk_free",
    "load",
    "mem_free",
    "mem_total",
    "rtt_ms",
    "probe_ms",
    "token",
    "revision",
    "seq",
    "prev",
    "work_seq",
    "pid",
    "server_pid",
    "executor_pid",
    "took_ms",
    "bytes",
    "messages",
    "max_bytes",
    "last_seq",
    "lease",
    "connection",
    "chunks",
    "events",
    "results",
    "spooled",
    "spooled_bytes",
    "chunk_bytes",
    "kept_bytes",
];
/// Keys whose texts differ from machine to machine or from run to run.
const TEXTS: [&str; 17] = [
    "arch",
    "os",
    "os_version",
    "host",
    "version",
    "submitted_by",
    "hub",
    "monitor",
    "address",
    "boot",
    "instance",
    "url",
    "path",
    "by",
    "value",
    "origin",
    "cwd",
];
/// Keys whose texts are times.
const TIMES: [&str; 9] = [
    "submitted_at",
    "started_at",
    "ended_at",
    "seen_at",
    "written_at",
    "time",
    "since",
    "stored",
    "last_at",
];
/// Keys whose texts are ids.
const IDS: [&str; 7] = [
    "id",
    "job",
    "attempt",
    "ticket",
    "machine_id",
    "corr",
    "last",
];

/// Replaces what differs from run to run.
pub(crate) fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), field(key, value)))
            .collect(),
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

fn field(key: &str, value: &Value) -> Value {
    match value {
        // Not measured yet, or measured.
        Value::Null | Value::Number(_) if key == "rtt_ms" => "<number or null>".into(),
        // Something waits for the hub at this moment, or nothing.
        Value::Null | Value::String(_)
            if ["oldest", "oldest_chunk", "spooled_since"].contains(&key) =>
        {
            "<time or null>".into()
        }
        Value::Bool(_) if key == "lease" => "<bool>".into(),
        Value::Number(_) if NUMBERS.contains(&key) => "<number>".into(),
        Value::String(text) if IDS.contains(&key) && text.len() == 16 => "<id>".into(),
        Value::String(text) if TIMES.contains(&key) => {
            assert!(
                text.ends_with('Z') && text.len() == 27,
                "{key}: {text} is no time"
            );
            "<time>".into()
        }
        Value::String(_) if TEXTS.contains(&key) => "<text>".into(),
        other => normal(other),
    }
}

/// Fails the test unless the value is the committed example of this name. With `FLEET_BLESS=1` the
/// example is written instead, to be looked at and committed.
pub(crate) fn matches_example(name: &str, value: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/examples")
        .join(format!("{name}.json"));
    let found = normal(value);
    if std::env::var_os("FLEET_BLESS").is_some() {
        let mut text = serde_json::to_string_pretty(&found).unwrap();
        text.push('\n');
        std::fs::write(&path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}: run with FLEET_BLESS=1", path.display()));
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert_eq!(
        serde_json::to_string_pretty(&found).unwrap(),
        serde_json::to_string_pretty(&committed).unwrap(),
        "{name}: if that is meant to be, run with FLEET_BLESS=1 and commit the example"
    );
}
