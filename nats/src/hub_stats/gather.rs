//! Asks the server and JetStream, all within one time: what is not answered by then is missing.

use std::time::Duration;

use async_nats::Client;
use fleet_contract::hub::{
    ConsumerStats, DiskStats, HubStats, KeeperStats, Rates, ServerStats, SlowPeer, StreamStats,
};
use fleet_contract::time::Time;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::AboutHub;
use crate::bus::Bus;
use crate::clock;
use crate::subject::stream;

/// How long all questions together may take: those who ask wait for two seconds.
const WITHIN: Duration = Duration::from_millis(1500);
/// Consumers are listed this often at the most: a machine has three.
const CONSUMERS_EVERY: Duration = Duration::from_secs(5);
/// Pages of consumers of one stream that are read, of 256 each.
const PAGES_MAX: usize = 16;
/// Closed connections that are looked through for slow ones.
const CLOSED_MAX: u64 = 1024;
/// Longest text of the server's that is passed on.
const TEXT_MAX: usize = 200;

pub(super) struct Gatherer {
    about: AboutHub,
    bus: Bus,
    system: Client,
    traffic: Option<(Instant, Totals)>,
    consumers: Option<(Instant, Vec<ConsumerStats>, u64)>,
    missing: Vec<String>,
}

/// What the server counted since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Varz {
    version: String,
    start: Time,
    connections: u64,
    mem: u64,
    cpu: f64,
    slow_consumers: u64,
    stale_connections: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    jetstream: JetStream,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JetStream {
    config: StoreConfig,
    stats: StoreStats,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StoreConfig {
    max_storage: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StoreStats {
    storage: u64,
    api: Api,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Api {
    total: u64,
    errors: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Jsz {
    account_details: Vec<Account>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Account {
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    #[serde(default)]
    config: StreamConfig,
    state: StreamState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StreamConfig {
    max_bytes: i64,
    discard: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    consumer_count: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connz {
    connections: Vec<Connection>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connection {
    name: String,
    reason: String,
    stop: Time,
}

#[derive(Deserialize)]
struct Consumers {
    total: u64,
    #[serde(default)]
    consumers: Vec<Consumer>,
}

#[derive(Deserialize)]
struct Consumer {
    name: String,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_redelivered: u64,
    #[serde(default)]
    num_waiting: u64,
}

impl Gatherer {
    pub(super) fn new(about: AboutHub, bus: Bus, system: Client) -> Self {
        Self {
            about,
            bus,
            system,
            traffic: None,
            consumers: None,
            missing: Vec::new(),
        }
    }

    /// How the hub is now.
    pub(super) async fn gather(&mut self, keeper: KeeperStats) -> HubStats {
        self.missing.clear();
        let until = Instant::now() + WITHIN;
        let streams = json!({ "accounts": true, "streams": true, "config": true });
        let (varz, jsz) = tokio::join!(
            ask::<Varz>(&self.system, until, "VARZ", json!({})),
            ask::<Jsz>(&self.system, until, "JSZ", streams),
        );
        let varz = self.or_missing("the server's state", varz);
        let jsz = self.or_missing("the streams", jsz).unwrap_or_default();
        let streams: Vec<StreamStats> = jsz
            .account_details
            .into_iter()
            .flat_map(|account| account.stream_detail)
            .map(stream_stats)
            .collect();
        let any_slow = varz.as_ref().is_some_and(|varz| varz.slow_consumers > 0);
        let system = self.system.clone();
        let ((consumers, consumers_seen), slow) =
            tokio::join!(self.consumers(&streams, until), async {
                match any_slow {
                    true => slow(&system, until).await,
                    false => Ok(Vec::new()),
                }
            });
        let word = by(until, self.bus.hub_word()).await;
        let word = self.or_missing("what is wrong", word).flatten();
        let slow = self.or_missing("who was too slow", slow);
        let slow = slow.unwrap_or_default();
        let mut stats = HubStats {
            at: clock::now(),
            host: self.about.host.clone(),
            machine: self.about.machine.clone(),
            addresses: self.addresses(),
            version: self.about.version.clone(),
            started_at: self.about.started_at,
            server: varz.map(|varz| self.server(varz)),
            disk: self.disk(),
            troubles: word.map(|word| word.troubles).unwrap_or_default(),
            consumers_total: streams.iter().map(|stream| stream.consumers).sum(),
            streams,
            consumers,
            consumers_seen,
            slow,
            locked_out: Vec::new(),
            keeper,
            missing: std::mem::take(&mut self.missing),
        };
        stats.bound();
        stats
    }

    fn or_missing<T>(&mut self, what: &str, answer: Result<T, String>) -> Option<T> {
        answer
            .inspect_err(|why| self.missing.push(clip(&format!("{what}: {why}"))))
            .ok()
    }

    fn server(&mut self, varz: Varz) -> ServerStats {
        let totals = Totals {
            messages_in: varz.in_msgs,
            messages_out: varz.out_msgs,
            bytes_in: varz.in_bytes,
            bytes_out: varz.out_bytes,
        };
        let now = Instant::now();
        let before = self.traffic.replace((now, totals));
        let rates = before.and_then(|(then, before)| rates(now - then, &before, &totals));
        ServerStats {
            version: clip(&varz.version),
            started_at: varz.start,
            connections: varz.connections,
            memory: varz.mem,
            cpu_percent: varz.cpu,
            slow_consumers: varz.slow_consumers,
            stale_connections: varz.stale_connections,
            rates,
            store_used: varz.jetstream.stats.storage,
            store_limit: varz.jetstream.config.max_storage,
            api_requests: varz.jetstream.stats.api.total,
            api_errors: varz.jetstream.stats.api.errors,
        }
    }

    /// Where it listens, and by which addresses others can reach it.
    fn addresses(&self) -> Vec<String> {
        let mut all = vec![self.about.address.clone()];
        let info = self.bus.client().try_server_info();
        for url in info.into_iter().flat_map(|info| info.connect_urls) {
            if !all.contains(&url) {
                all.push(url);
            }
        }
        all
    }

    fn disk(&mut self) -> Option<DiskStats> {
        let found = rustix::fs::statvfs(&self.about.store).map_err(|e| e.to_string());
        let found = self.or_missing("the disk", found)?;
        Some(DiskStats {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// The consumers of all streams that may lag, and how many were looked at.
    async fn consumers(
        &mut self,
        streams: &[StreamStats],
        until: Instant,
    ) -> (Vec<ConsumerStats>, u64) {
        if let Some((at, consumers, seen)) = &self.consumers
            && at.elapsed() < CONSUMERS_EVERY
        {
            return (consumers.clone(), *seen);
        }
        let (mut found, mut whole) = (Vec::new(), true);
        for s in streams {
            // A queue without a ticket has no consumer that lags, but three for each machine.
            let queue = s.name == stream::WORK || s.name == stream::PIN;
            if s.consumers > 0 && !(queue && s.messages == 0) {
                let listed = self.consumers_of(&s.name, &mut found, until).await;
                let listed = self.or_missing(&format!("the consumers of {}", s.name), listed);
                whole &= listed.is_some();
            }
        }
        let seen = u64::try_from(found.len()).unwrap_or(u64::MAX);
        let mut worst = HubStats {
            consumers: found,
            ..HubStats::default()
        };
        worst.bound();
        let consumers = worst.consumers;
        // What is missing is asked for again, and said again.
        self.consumers = whole.then(|| (Instant::now(), consumers.clone(), seen));
        (consumers, seen)
    }

    async fn consumers_of(
        &self,
        of: &str,
        found: &mut Vec<ConsumerStats>,
        until: Instant,
    ) -> Result<(), String> {
        let mut offset = 0;
        for _ in 0..PAGES_MAX {
            let verb = format!("CONSUMER.LIST.{of}");
            let body = json!({ "offset": offset }).to_string();
            let page = self.bus.api::<Consumers>(&verb, body.into());
            let page = by(until, page).await?;
            if page.consumers.is_empty() {
                return Ok(());
            }
            offset += page.consumers.len();
            found.extend(page.consumers.into_iter().map(|c| ConsumerStats {
                stream: of.to_owned(),
                name: clip(&c.name),
                pending: c.num_pending,
                ack_pending: c.num_ack_pending,
                redelivered: c.num_redelivered,
                waiting: c.num_waiting,
            }));
            if u64::try_from(offset).is_ok_and(|read| read >= page.total) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Who was closed for being too slow, as long as the server remembers.
async fn slow(system: &Client, until: Instant) -> Result<Vec<SlowPeer>, String> {
    let closed = json!({ "state": 1, "sort": "stop", "limit": CLOSED_MAX });
    let closed = ask::<Connz>(system, until, "CONNZ", closed).await?;
    let slow = closed
        .connections
        .into_iter()
        .filter(|connection| connection.reason.starts_with("Slow Consumer"))
        .map(|connection| SlowPeer {
            name: clip(&connection.name),
            at: connection.stop,
            reason: clip(&connection.reason),
        });
    Ok(slow.collect())
}

/// An answer that comes before a time.
async fn by<T, E: std::fmt::Display>(
    until: Instant,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    timeout_at(until, answer)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|e| e.to_string())
}

/// Asks the server itself. There is one: the first answer is the answer.
pub(crate) async fn ask<T: DeserializeOwned>(
    system: &Client,
    until: Instant,
    what: &str,
    body: serde_json::Value,
) -> Result<T, String> {
    let subject = format!("$SYS.REQ.SERVER.PING.{what}");
    let asked = system.request(subject, body.to_string().into());
    let answer = by(until, asked).await?;
    serde_json::from_slice::<Answer<T>>(&answer.payload)
        .map(|answer| answer.data)
        .map_err(|e| e.to_string())
}

fn stream_stats(stream: Stream) -> StreamStats {
    StreamStats {
        name: clip(&stream.name),
        messages: stream.state.messages,
        bytes: stream.state.bytes,
        max_bytes: u64::try_from(stream.config.max_bytes).unwrap_or(0),
        refuses: stream.config.discard == "new",
        first_seq: stream.state.first_seq,
        last_seq: stream.state.last_seq,
        consumers: stream.state.consumer_count,
    }
}

/// None for a server that was started anew: it counts from zero.
fn rates(over: Duration, before: &Totals, after: &Totals) -> Option<Rates> {
    let seconds = over.as_secs_f64();
    if seconds < 0.05 {
        return None;
    }
    let rate = |before: u64, after: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = after.checked_sub(before)? as f64;
        Some((count / seconds * 10.0).round() / 10.0)
    };
    Some(Rates {
        over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
        messages_in: rate(before.messages_in, after.messages_in)?,
        messages_out: rate(before.messages_out, after.messages_out)?,
        bytes_in: rate(before.bytes_in, after.bytes_in)?,
        bytes_out: rate(before.bytes_out, after.bytes_out)?,
    })
}

fn clip(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_and_none_over_a_restart() {
        let totals = |n| Totals {
            messages_in: n,
            messages_out: 2 * n,
            bytes_in: 0,
            bytes_out: 100 * n,
        };
        let found = rates(Duration::from_secs(2), &totals(10), &totals(20)).unwrap();
        assert_eq!((found.messages_in, found.messages_out), (5.0, 10.0));
        assert_eq!((found.bytes_out, found.over_ms), (500.0, 2000));
        assert_eq!(rates(Duration::from_secs(2), &totals(10), &totals(9)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_questions_stay_without_an_answer_the_whole_ends_in_time() {
        let begun = Instant::now();
        let until = begun + WITHIN;
        for _ in 0..10 {
            let never = std::future::pending::<Result<(), String>>();
            assert_eq!(by(until, never).await.unwrap_err(), "no answer in time");
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        // What is there at once is taken even then.
        let there = std::future::ready(Ok::<_, String>(7));
        assert_eq!(by(until, there).await, Ok(7));
    }

    #[test]
    fn what_the_server_says_is_read_by_its_names() {
        let slow = r#"{"data":{"connections":[{"name":"fleet tui","reason":"Slow Consumer (Pending Bytes)",
            "stop":"2026-11-20T09:12:31.686602933Z","cid":5}]}}"#;
        let connz: Answer<Connz> = serde_json::from_str(slow).unwrap();
        assert_eq!(connz.data.connections[0].name, "fleet tui");
        let page = r#"{"total":300,"offset":0,"limit":256,"consumers":[{"name":"any-n","num_pending":7,
            "num_ack_pending":1,"num_redelivered":0,"num_waiting":3,"config":{}}]}"#;
        let page: Consumers = serde_json::from_str(page).unwrap();
        assert_eq!((page.total, page.consumers[0].num_pending), (300, 7));
    }
}
