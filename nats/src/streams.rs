//! The streams, as the wire contract lays them down, made by an idempotent [`ensure`] that says
//! what it did and never loosens a limit that somebody set tighter, but those that its own
//! configuration set ([`Keeps`]).

mod keep;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bus::{Bus, BusError};
use crate::subject::stream;

pub use keep::{Keep, Keeps, TooMuch};

/// The server's dedup window.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Events are kept this long, unless it is set otherwise.
pub const FLOW_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Output is kept this long, unless it is set otherwise.
pub const LOG_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Least bytes of a stream.
pub const BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Most chunks of one job's output on the hub: more than 256 MiB in full chunks.
const LOG_PER_JOB: i64 = 131_072;

/// Heaviest message of a stream that takes no jobs and no output, in bytes: the contract's 1 MiB, and
/// headers.
const MESSAGE_SIZE: i64 = 1024 * 1024 + 64 * 1024;
/// Heaviest chunk of output: 32 KiB, and headers.
const CHUNK_SIZE: i64 = 48 * 1024;

/// Most consumers of one stream.
const MAX_CONSUMERS: i64 = 100_000;

/// What [`ensure`] did with one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The stream.
    pub stream: &'static str,
    /// What was done.
    pub done: Done,
}

/// What was done with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was there, as it should be.
    Nothing,
    /// It was made.
    Created,
    /// These settings were changed.
    Changed(Vec<String>),
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// The configuration of every stream on a hub whose store may hold `store_bytes`. Their limits add
/// up to less than the store, which the server reserves for them.
#[must_use]
pub fn definitions(store_bytes: u64) -> Vec<(&'static str, Value)> {
    const MIB: u64 = 1024 * 1024;
    let share = |percent: u64, most_mib: u64| {
        (store_bytes / 100 * percent).clamp(BYTES_MIN, most_mib * MIB)
    };
    let with = |name: &'static str, subjects: &[&str], max_bytes: u64, extra: Value| {
        let mut config = json!({
            "name": name,
            "subjects": subjects,
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_bytes": max_bytes,
            "max_age": 0,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            // For "no limit" the server (2.15) takes 1,000: three for each lane and machine, and one
            // for each reader, which stays for half a minute after its end.
            "max_consumers": MAX_CONSUMERS,
            "num_replicas": 1,
            "duplicate_window": nanos(DUPLICATE_WINDOW),
            "allow_direct": true,
        });
        merge(&mut config, extra);
        (name, config)
    };
    let queue = json!({ "retention": "workqueue", "discard": "new" });
    // One peer has one subject here: that many bytes are all it can take.
    let registry = json!({ "max_msgs_per_subject": 1, "max_msg_size": MESSAGE_SIZE });
    vec![
        with(
            stream::JOB,
            &["fleet.job.*.*"],
            share(20, 8192),
            json!({ "discard": "new", "deny_delete": true }),
        ),
        with(
            stream::WORK,
            &["fleet.work.*.*.*"],
            share(10, 4096),
            queue.clone(),
        ),
        with(stream::PIN, &["fleet.pin.*.*.*"], share(10, 4096), queue),
        with(
            stream::LANE,
            &["fleet.lane.*", "fleet.want.*"],
            share(1, 64),
            registry.clone(),
        ),
        with(
            stream::PRES,
            &["fleet.pres.*"],
            share(1, 64),
            registry.clone(),
        ),
        with(
            stream::FLOW,
            &["fleet.flow.>"],
            share(10, 4096),
            // What a machine told while the hub was away comes in batches, whole or not at all.
            json!({ "max_age": nanos(FLOW_AGE), "allow_atomic": true, "max_msg_size": MESSAGE_SIZE }),
        ),
        with(
            stream::LOG,
            &["fleet.log.*.*"],
            share(40, 65_536),
            json!({
                "max_age": nanos(LOG_AGE),
                "max_msgs_per_subject": LOG_PER_JOB,
                "max_msg_size": CHUNK_SIZE,
                "compression": "s2",
            }),
        ),
        with(stream::LEASE, &["fleet.lease.*.*"], share(1, 64), registry),
    ]
}

/// Most bytes of a stream on a hub whose store may hold `store_bytes`, unless it is set otherwise.
#[must_use]
pub fn default_bytes(name: &str, store_bytes: u64) -> Option<u64> {
    let mut all = definitions(store_bytes).into_iter();
    let (_, config) = all.find(|(stream, _)| *stream == name)?;
    config["max_bytes"].as_u64()
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Settings that may be changed on a living stream and that this binary insists on.
const INSISTED: [&str; 5] = [
    "subjects",
    "allow_direct",
    "allow_atomic",
    "deny_delete",
    "discard",
];
/// Limits: made tighter where ours are, never looser. 0 and below mean none.
const LIMITS: [&str; 4] = [
    "max_bytes",
    "max_age",
    "max_msgs_per_subject",
    "max_msg_size",
];

/// Makes the streams that are missing and mends those that differ.
///
/// # Errors
/// What the server says; `Full` where the disk is too small for them.
pub async fn ensure(bus: &Bus, store_bytes: u64) -> Result<Vec<Ensured>, BusError> {
    ensure_keeping(bus, store_bytes, &Keeps::default()).await
}

/// As [`ensure`], where events and output are kept as an operator has set it.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_keeping(
    bus: &Bus,
    store_bytes: u64,
    keeps: &Keeps,
) -> Result<Vec<Ensured>, BusError> {
    let mut report = Vec::new();
    // What a stream gives up of the store another one may be to get.
    let mut grow = Vec::new();
    for (name, mut wanted) in definitions(store_bytes) {
        keeps.lay_over(name, &mut wanted);
        let Some(mut config) = info(bus, name).await? else {
            let body = wanted.to_string().into();
            bus.api::<Value>(&format!("STREAM.CREATE.{name}"), body)
                .await?;
            report.push(Ensured {
                stream: name,
                done: Done::Created,
            });
            continue;
        };
        let held = limit(&config, "max_bytes");
        let changed = reconcile(&mut config, &wanted);
        let done = match changed.is_empty() {
            true => Done::Nothing,
            false if held > 0 && limit(&config, "max_bytes") > held => {
                grow.push((name, config));
                Done::Changed(changed)
            }
            false => {
                update(bus, name, config).await?;
                Done::Changed(changed)
            }
        };
        report.push(Ensured { stream: name, done });
    }
    for (name, config) in grow {
        update(bus, name, config).await?;
    }
    Ok(report)
}

/// Lets a stream grow no more: what is new is refused, what is there stays. Ended by
/// [`ensure_keeping`], in this run or another.
///
/// # Errors
/// What the server says.
pub(crate) async fn hold(bus: &Bus, name: &str) -> Result<(), BusError> {
    let Some(mut config) = info(bus, name).await? else {
        return Ok(());
    };
    let bytes = bus.usage(name).await?.bytes.max(1);
    config.insert("discard".to_owned(), "new".into());
    keep::hold(&mut config, bytes);
    update(bus, name, config).await
}

async fn update(bus: &Bus, name: &str, config: Map<String, Value>) -> Result<(), BusError> {
    let body = Value::Object(config).to_string().into();
    bus.api::<Value>(&format!("STREAM.UPDATE.{name}"), body)
        .await
        .map(drop)
}

/// A limit as it is configured; 0 and below mean none.
fn limit(config: &Map<String, Value>, key: &str) -> i64 {
    config.get(key).and_then(Value::as_i64).unwrap_or(0)
}

async fn info(bus: &Bus, name: &str) -> Result<Option<Map<String, Value>>, BusError> {
    match bus
        .api::<Value>(&format!("STREAM.INFO.{name}"), bytes::Bytes::new())
        .await
    {
        Ok(mut info) => match info["config"].take() {
            Value::Object(config) => Ok(Some(config)),
            _ => Ok(None),
        },
        // 10059: stream not found.
        Err(BusError::Server { code: 10059, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes `config` to what is wanted and says which settings that were.
fn reconcile(config: &mut Map<String, Value>, wanted: &Value) -> Vec<String> {
    let mut changed = keep::reconcile(config, wanted);
    for key in INSISTED {
        let Some(want) = wanted.get(key) else {
            continue;
        };
        if config.get(key) != Some(want) {
            config.insert(key.to_owned(), want.clone());
            changed.push(key.to_owned());
        }
    }
    for key in LIMITS {
        let want = wanted.get(key).and_then(Value::as_i64).unwrap_or(0);
        let have = limit(config, key);
        if want > 0 && (have <= 0 || have > want) {
            config.insert(key.to_owned(), want.into());
            changed.push(key.to_owned());
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_fit_their_store() {
        for store in [256 << 20, 10 << 30, 1 << 40_u64] {
            let sum: u64 = definitions(store)
                .iter()
                .map(|(_, c)| c["max_bytes"].as_u64().unwrap())
                .sum();
            assert!(sum < store, "{store}: {sum}");
        }
    }

    #[test]
    fn a_tighter_limit_stays_and_a_looser_one_is_tightened() {
        let wanted =
            json!({ "subjects": ["a"], "max_bytes": 100, "max_age": 0, "allow_direct": true });
        let mut tighter =
            json!({ "subjects": ["a"], "max_bytes": 50, "max_age": 7, "allow_direct": true });
        assert_eq!(
            reconcile(tighter.as_object_mut().unwrap(), &wanted),
            Vec::<String>::new()
        );
        let mut looser = json!({ "subjects": ["a", "b"], "max_bytes": -1, "allow_direct": false });
        assert_eq!(
            reconcile(looser.as_object_mut().unwrap(), &wanted),
            ["subjects", "allow_direct", "max_bytes"]
        );
        assert_eq!(looser["max_bytes"], 100);
    }
}
