//! What a made-up hub says of itself: one that does well, and one in trouble.

use std::time::Duration;

use fleet_contract::hub::{
    ConsumerStats, DiskStats, HubStats, KeeperStats, LockedOutPeer, Rates, ServerStats, SlowPeer,
    StreamStats, Trouble,
};
use fleet_contract::time::Time;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn stream(name: &str, messages: u64, bytes: u64, max_bytes: u64, consumers: u64) -> StreamStats {
    StreamStats {
        name: name.to_owned(),
        messages,
        bytes,
        max_bytes,
        refuses: matches!(name, "JOB" | "WORK" | "PIN"),
        first_seq: 1,
        last_seq: messages,
        consumers,
    }
}

fn consumer(stream: &str, name: &str, pending: u64) -> ConsumerStats {
    ConsumerStats {
        stream: stream.to_owned(),
        name: name.to_owned(),
        pending,
        waiting: 2,
        ..ConsumerStats::default()
    }
}

fn before(now: Time, seconds: i64) -> Time {
    Time::from_micros(now.as_micros() - seconds * 1_000_000)
}

/// A hub that does well.
pub(crate) fn well(now: Time) -> HubStats {
    let mut stats = HubStats {
        at: now,
        host: "anvil".to_owned(),
        machine: "anvil".parse().ok(),
        addresses: vec!["0.0.0.0:4222".to_owned(), "192.168.1.20:4222".to_owned()],
        version: "0.1.0".to_owned(),
        started_at: before(now, 11_000),
        troubles: Vec::new(),
        server: Some(ServerStats {
            version: "2.15.1".to_owned(),
            started_at: before(now, 11_000),
            connections: 6,
            memory: 31 * MIB,
            cpu_percent: 2.0,
            slow_consumers: 0,
            stale_connections: 0,
            rates: Some(Rates {
                over_ms: Duration::from_secs(1).as_millis() as u64,
                messages_in: 42.0,
                messages_out: 118.0,
                bytes_in: 12_400.0,
                bytes_out: 61_000.0,
            }),
            store_used: 1228 * MIB,
            store_limit: 8 * GIB,
            api_requests: 48_112,
            api_errors: 9,
        }),
        disk: Some(DiskStats {
            total: 460 * GIB,
            free: 212 * GIB,
        }),
        streams: vec![
            stream("JOB", 88_231, 61 * MIB, 1638 * MIB, 3),
            stream("WORK", 2, 1200, 819 * MIB, 3),
            stream("PIN", 0, 0, 819 * MIB, 12),
            stream("LANE", 1, 149, 64 * MIB, 0),
            stream("PRES", 4, 3100, 64 * MIB, 2),
            stream("FLOW", 20_114, 9 * MIB, 819 * MIB, 2),
            stream("LOG", 310_822, 1158 * MIB, 3276 * MIB, 1),
            stream("LEASE", 8, 2100, 64 * MIB, 1),
        ],
        consumers: vec![
            consumer("WORK", "any-n", 2),
            consumer("JOB", "fleet-keeper", 0),
        ],
        consumers_total: 24,
        consumers_seen: 12,
        slow: Vec::new(),
        locked_out: Vec::new(),
        keeper: KeeperStats::default(),
        missing: Vec::new(),
    };
    stats.bound();
    stats
}

/// The same hub in trouble.
pub(crate) fn troubled(now: Time) -> HubStats {
    let mut stats = well(now);
    for stream in &mut stats.streams {
        match stream.name.as_str() {
            "JOB" => stream.bytes = stream.max_bytes / 100 * 96,
            "LOG" => stream.bytes = stream.max_bytes / 100 * 99,
            "FLOW" => stream.bytes = stream.max_bytes / 100 * 83,
            _ => {}
        }
    }
    if let Some(server) = &mut stats.server {
        server.slow_consumers = 2;
    }
    stats.disk = Some(DiskStats {
        total: 460 * GIB,
        free: 9 * GIB,
    });
    stats.consumers.push(ConsumerStats {
        ack_pending: 7,
        redelivered: 3,
        ..consumer("PIN", "m-forge-n", 1204)
    });
    stats.slow = vec![SlowPeer {
        name: "fleet tui".to_owned(),
        at: before(now, 95),
        reason: "Slow Consumer (Pending Bytes)".to_owned(),
    }];
    stats.locked_out = "attic"
        .parse()
        .ok()
        .into_iter()
        .map(|machine| LockedOutPeer {
            machine,
            at: before(now, 41),
            reason: "it sent 5214 messages that do not count in 10 s".to_owned(),
        })
        .collect();
    stats.keeper = KeeperStats {
        voids: 1,
        malformed: 2,
        tickets_again: 14,
        machines_lost: 3,
        leases_taken: 1,
    };
    stats.troubles = vec![Trouble {
        kind: "hub.nearly_full JOB".to_owned(),
        text: "stream JOB is 96 % full: dispatch is refused from 90 %: keep less of what has ended (jobs_age, jobs_size), or end what waits (`fleet cancel`); most of it: job 6mejsgu3hxsxcvaq (about 78 MiB)".to_owned(),
        since: before(now, 240),
    }];
    stats.missing = vec!["the consumers of LOG: no answer in time".to_owned()];
    stats.bound();
    stats
}
