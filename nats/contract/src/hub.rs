//! What the hub says about itself when it is asked: its server, its disk, its streams, who lags and
//! who was too slow. For pictures: no rule goes by it.

use serde::{Deserialize, Serialize};

use crate::ids::MachineId;
use crate::time::Time;

/// The kind of the answer's envelope.
pub const HUB_STATS_KIND: &str = "hub.stats";
/// Most streams in one answer; the fullest stay.
pub const STREAMS_MAX: usize = 32;
/// Most consumers in one answer; those with most waiting stay.
pub const CONSUMERS_MAX: usize = 32;
/// Most connections that were too slow in one answer; the latest stay.
pub const SLOW_MAX: usize = 16;
/// Most machines that are not let in of which an answer tells.
pub const LOCKED_OUT_MAX: usize = 16;
/// Most addresses in one answer.
pub const ADDRESSES_MAX: usize = 16;

/// Something that is wrong with the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What kind of trouble: the kind of its event, and what it is about.
    pub kind: String,
    /// In words, with what to do.
    pub text: String,
    /// Since when.
    pub since: Time,
}

/// How the hub is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HubStats {
    /// When it looked, by its own clock.
    pub at: Time,
    /// Its host name.
    pub host: String,
    /// The machine that it runs on, as the agent beside it is called; none where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Where it can be reached.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The version of its fleet.
    pub version: String,
    /// Since when the hub's own process runs: its counters are from then on.
    pub started_at: Time,
    /// Its nats-server; none where that did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStats>,
    /// The disk with its store; none where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStats>,
    /// What is wrong with it now.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// Its streams, fullest first.
    #[serde(default)]
    pub streams: Vec<StreamStats>,
    /// Its consumers with most waiting, worst first.
    #[serde(default)]
    pub consumers: Vec<ConsumerStats>,
    /// Consumers in all.
    #[serde(default)]
    pub consumers_total: u64,
    /// Consumers that were looked at: queues without a ticket are not, nor are too many.
    #[serde(default)]
    pub consumers_seen: u64,
    /// Connections that the server closed because they were too slow, the latest first.
    #[serde(default)]
    pub slow: Vec<SlowPeer>,
    /// Machines that are not let in, since they sent more than any may; the latest first.
    #[serde(default)]
    pub locked_out: Vec<LockedOutPeer>,
    /// What its keeper counted.
    #[serde(default)]
    pub keeper: KeeperStats,
    /// What could not be looked at, and why.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// How its nats-server is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServerStats {
    /// Its version.
    pub version: String,
    /// Since when it runs: its counters are from then on.
    pub started_at: Time,
    /// Connections.
    pub connections: u64,
    /// Memory that it uses, in bytes.
    pub memory: u64,
    /// Percent of one processor that it uses.
    pub cpu_percent: f64,
    /// How often it closed a connection that was too slow.
    pub slow_consumers: u64,
    /// How often it closed a connection that did not answer.
    #[serde(default)]
    pub stale_connections: u64,
    /// Messages and bytes a second; none before it was asked twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// Bytes in all streams.
    pub store_used: u64,
    /// Bytes that all streams together may hold.
    pub store_limit: u64,
    /// Requests to JetStream.
    pub api_requests: u64,
    /// Those of them that it refused: asking for a stream before it is made is one.
    pub api_errors: u64,
}

/// What goes through the server in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// How long was counted, in milliseconds.
    pub over_ms: u64,
    /// Messages to it.
    pub messages_in: f64,
    /// Messages from it.
    pub messages_out: f64,
    /// Bytes to it.
    pub bytes_in: f64,
    /// Bytes from it.
    pub bytes_out: f64,
}

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskStats {
    /// Its size, in bytes.
    pub total: u64,
    /// Bytes that can be had.
    pub free: u64,
}

/// How full a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamStats {
    /// Its name.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Most bytes it may hold; 0 where it has no limit.
    pub max_bytes: u64,
    /// Whether it refuses what is new once it is full; it else drops what is oldest.
    #[serde(default)]
    pub refuses: bool,
    /// Its first sequence.
    pub first_seq: u64,
    /// Its last sequence.
    pub last_seq: u64,
    /// Its consumers.
    pub consumers: u64,
}

impl StreamStats {
    /// How full it is, 0 to 1; 0 without a limit.
    #[must_use]
    pub fn fill(&self) -> f64 {
        if self.max_bytes == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share for a bar")]
        let fill = self.bytes as f64 / self.max_bytes as f64;
        fill.clamp(0.0, 1.0)
    }
}

/// How far a consumer is behind its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsumerStats {
    /// Its stream.
    pub stream: String,
    /// Its name.
    pub name: String,
    /// Messages that wait for it.
    pub pending: u64,
    /// Messages that it has and did not acknowledge yet.
    pub ack_pending: u64,
    /// Messages that it got more than once and did not acknowledge yet.
    pub redelivered: u64,
    /// Pulls that wait for a message.
    pub waiting: u64,
}

impl ConsumerStats {
    /// What orders consumers, worst first when it is reversed.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.pending.saturating_add(self.ack_pending)
    }
}

/// A connection that was too slow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlowPeer {
    /// What it called itself: `fleet agent studio`.
    pub name: String,
    /// When it was closed, by the hub's clock.
    pub at: Time,
    /// Why, in the server's words.
    pub reason: String,
}

/// A machine that is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOutPeer {
    /// It.
    pub machine: MachineId,
    /// Since when, by the hub's clock.
    pub at: Time,
    /// Why: what it sent.
    pub reason: String,
}

/// What the keeper counted since the hub's process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeeperStats {
    /// Records of the journal that do not count.
    pub voids: u64,
    /// Messages that are none.
    pub malformed: u64,
    /// Tickets that were gone and published again.
    pub tickets_again: u64,
    /// Machines that were found to be lost.
    pub machines_lost: u64,
    /// Leases that were taken over.
    pub leases_taken: u64,
}

impl HubStats {
    /// Brings everything into the answer's order and bounds.
    pub fn bound(&mut self) {
        self.streams.sort_by(|a, b| {
            let fill = b.fill().total_cmp(&a.fill());
            fill.then_with(|| a.name.cmp(&b.name))
        });
        self.streams.truncate(STREAMS_MAX);
        self.consumers.sort_by(|a, b| {
            let worst = (b.lag(), b.redelivered).cmp(&(a.lag(), a.redelivered));
            worst.then_with(|| (&a.stream, &a.name).cmp(&(&b.stream, &b.name)))
        });
        self.consumers.truncate(CONSUMERS_MAX);
        self.slow.sort_by_key(|peer| std::cmp::Reverse(peer.at));
        self.slow.truncate(SLOW_MAX);
        self.locked_out
            .sort_by_key(|peer| std::cmp::Reverse(peer.at));
        self.locked_out.truncate(LOCKED_OUT_MAX);
        self.addresses.truncate(ADDRESSES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_and_worst_first() {
        let mut stats = HubStats::default();
        for n in 0..100u64 {
            stats.streams.push(StreamStats {
                name: format!("S{n}"),
                bytes: n,
                max_bytes: 100,
                ..StreamStats::default()
            });
            stats.consumers.push(ConsumerStats {
                name: format!("c{n}"),
                pending: n,
                ..ConsumerStats::default()
            });
            stats.slow.push(SlowPeer {
                at: Time::from_micros(i64::try_from(n).unwrap()),
                ..SlowPeer::default()
            });
        }
        stats.bound();
        assert_eq!((stats.streams.len(), stats.consumers.len()), (32, 32));
        assert_eq!(stats.slow.len(), SLOW_MAX);
        assert_eq!(stats.streams[0].name, "S99");
        assert_eq!(stats.consumers[0].name, "c99");
        assert_eq!(stats.slow[0].at, Time::from_micros(99));
    }

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        let stream = StreamStats {
            bytes: 5,
            ..StreamStats::default()
        };
        assert!(stream.fill() < 0.01);
    }
}
