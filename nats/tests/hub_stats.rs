//! How the hub says it is, asked of the real server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use fleet_contract::hub::HubStats;
use fleet_contract::ids::{AttemptId, JobId};
use fleet_contract::outcome::OutputStream;
use fleet_contract::stat::Stat;
use fleet_contract::time::Time;
use fleet_nats::bus::{Bus, BusError, Store};
use fleet_nats::connect::{ConnectOptions, Link, connect};
use fleet_nats::hub::Permission::{Operator, Viewer, Worker};
use fleet_nats::hub_stats::{self, AboutHub};
use fleet_nats::output::ChunkHead;
use fleet_nats::stat::{Counters, decode_stat};
use fleet_nats::testing::TestHub;
use fleet_nats::{keeper, subject};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

struct Answering {
    hub: TestHub,
    task: JoinHandle<()>,
    _links: [Link; 2],
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answering() -> Answering {
    let hub = TestHub::start().await;
    let own = hub.operator().await;
    let bus = Bus::new(&own);
    keeper::prepare(&bus, 1 << 30).await.unwrap();
    let options = ConnectOptions {
        check_api: false,
        fail_within: LONG,
        ..ConnectOptions::new("system", hub.system_credentials().unwrap())
    };
    let system = connect(&options).await.unwrap();
    let about = AboutHub {
        host: "anvil".to_owned(),
        machine: "anvil".parse().ok(),
        address: hub.listen().to_string(),
        version: "1.2.3".to_owned(),
        started_at: Time::from_micros(1),
        store: hub.home().hub_dir(),
    };
    let answers = hub_stats::answer(about, bus, system.client().clone(), Arc::default());
    let task = tokio::spawn(answers);
    Answering {
        hub,
        task,
        _links: [own, system],
    }
}

/// Asks until the answerer has begun to listen, and all was there in time: a busy server may not say
/// everything within the second and a half that the answerer has.
async fn asked(bus: &Bus, until: impl Fn(&HubStats) -> bool) -> HubStats {
    let asking = async {
        loop {
            match bus.hub_stats(Duration::from_secs(5)).await {
                Ok(stats) if stats.missing.is_empty() && until(&stats) => return stats,
                Ok(_) | Err(BusError::NoResponders(_) | BusError::NoAnswer { .. }) => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(LONG, asking).await.unwrap()
}

#[tokio::test]
async fn a_viewer_and_the_operator_are_told_how_the_hub_is() {
    let fleet = answering().await;
    for (name, permission) in [("vera", Viewer), ("olga", Operator)] {
        let link = fleet.hub.connect(name, permission).await.unwrap();
        let stats = asked(&Bus::new(&link), |_| true).await;
        assert_eq!(
            (stats.host.as_str(), stats.version.as_str()),
            ("anvil", "1.2.3")
        );
        assert_eq!(stats.addresses[0], fleet.hub.listen().to_string());
        let server = stats.server.unwrap();
        assert!(server.version.starts_with("2."), "{}", server.version);
        assert!(server.connections >= 2 && server.memory > 0 && server.store_limit > 0);
        assert!(server.started_at > Time::from_micros(1));
        let disk = stats.disk.unwrap();
        assert!(disk.total >= disk.free && disk.free > 0);
        let names: Vec<&str> = stats.streams.iter().map(|s| s.name.as_str()).collect();
        for stream in ["JOB", "WORK", "PIN", "LANE", "PRES", "FLOW", "LOG", "LEASE"] {
            assert!(names.contains(&stream), "{stream}");
        }
        assert!(stats.streams.iter().all(|s| s.max_bytes > 0));
        // Three of the lane `any`, none of which is looked at while no ticket waits.
        assert_eq!((stats.consumers_total, stats.consumers_seen), (3, 0));
        assert_eq!(stats.slow, []);
    }
}

#[tokio::test]
async fn a_ticket_that_waits_is_seen_as_its_queues_lag() {
    let fleet = answering().await;
    let link = fleet.hub.operator().await;
    let bus = Bus::new(&link);
    let store = Store::default();
    for n in 0..3 {
        let subject = format!("fleet.work.any.n.{}", JobId::from_random([n; 10]));
        bus.store(&subject, "x".into(), &store).await.unwrap();
    }
    let stats = asked(&bus, |stats| stats.consumers_seen > 0).await;
    let worst = &stats.consumers[0];
    assert_eq!(
        (worst.stream.as_str(), worst.name.as_str()),
        ("WORK", "any-n")
    );
    assert_eq!((worst.pending, stats.consumers_seen), (3, 3));
    let work = stats.streams.iter().find(|s| s.name == "WORK").unwrap();
    assert_eq!((work.messages, work.refuses), (3, true));
    let rated = asked(&bus, |stats| {
        stats.server.as_ref().is_some_and(|s| s.rates.is_some())
    });
    assert!(rated.await.server.unwrap().rates.unwrap().messages_in > 0.0);
}

#[tokio::test]
async fn a_worker_may_not_ask_and_no_answer_goes_anywhere_but_to_an_inbox() {
    let fleet = answering().await;
    let operator = fleet.hub.operator().await;
    let bus = Bus::new(&operator);
    asked(&bus, |_| true).await;
    let worker = fleet.hub.connect("studio", Worker).await.unwrap();
    let within = Duration::from_millis(500);
    let refused = Bus::new(&worker).hub_stats(within).await.unwrap_err();
    assert!(matches!(refused, BusError::NoAnswer { .. }), "{refused}");
    let mut status = worker.status();
    let denied = status.wait_for(|status| {
        let error = status.last_error.as_deref().unwrap_or_default();
        error.contains("fleet.cmd.hub.stats")
    });
    tokio::time::timeout(LONG, denied).await.unwrap().unwrap();
    // Nor may the hub be made to write for its asker.
    let mut told = operator.client().subscribe("fleet.pres.>").await.unwrap();
    let ask = subject::command_hub("stats");
    let client = operator.client();
    client
        .publish_with_reply(ask, "fleet.pres.studio", Bytes::new())
        .await
        .unwrap();
    // The answerer takes one question after the other: this one comes after it.
    bus.ask(
        &subject::command_hub("stats"),
        Bytes::new(),
        HeaderMap::new(),
        LONG,
    )
    .await
    .unwrap();
    client
        .publish("fleet.pres.end", Bytes::new())
        .await
        .unwrap();
    let first = tokio::time::timeout(LONG, told.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.subject.as_str(), "fleet.pres.end");
}

#[tokio::test]
async fn a_machines_summary_reaches_a_viewer_and_nobody_tells_another_machines() {
    let fleet = answering().await;
    let viewer = fleet.hub.connect("vera", Viewer).await.unwrap();
    let mut heard = viewer.client().subscribe(subject::STATS).await.unwrap();
    // Answered after the subscription was taken in; `flush` would not say so.
    asked(&Bus::new(&viewer), |_| true).await;
    let link = fleet.hub.connect("studio", Worker).await.unwrap();
    let counters = Arc::new(Counters::default());
    let bus = Bus::new(&link).counting(counters.clone());
    let me = "studio".parse().unwrap();
    let job = JobId::from_random([1; 10]);
    let attempt = AttemptId::from_random([2; 10]);
    let head = ChunkHead::new(attempt, 1, OutputStream::Stdout, 0, Time::default());
    bus.put_chunk(job, &me, &head, "twelve bytes".into())
        .await
        .unwrap();
    counters.any().await;
    let stat = counters.take(Duration::from_secs(1));
    let expected = Stat {
        interval_ms: 1000,
        chunks: 1,
        bytes_out: 12,
        ..Stat::default()
    };
    assert_eq!(stat, expected);
    bus.tell_stat(&me, &stat).await.unwrap();
    let message = tokio::time::timeout(LONG, heard.next())
        .await
        .unwrap()
        .unwrap();
    let (machine, read) = decode_stat(&message.subject, &message.payload).unwrap();
    assert_eq!((machine, read), (me, stat));
    let other = "mini".parse().unwrap();
    bus.tell_stat(&other, &stat).await.unwrap();
    let mut status = link.status();
    let denied = status.wait_for(|status| {
        let error = status.last_error.as_deref().unwrap_or_default();
        error.contains("fleet.stat.mini")
    });
    tokio::time::timeout(LONG, denied).await.unwrap().unwrap();
}
