//! The guard against a real server: flipped bits in the journal's blocks, and streams that fill.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleet_contract::ids::{JobId, Lane, Writer};
use fleet_contract::keeper::Retention;
use fleet_contract::needs::Needs;
use fleet_contract::record::{Cause, Change, StateWord};
use fleet_contract::spec::{JobSpec, Target};
use fleet_nats::bus::{Bus, Store};
use fleet_nats::connect::{ConnectOptions, Link, connect};
use fleet_nats::flow::NewEvent;
use fleet_nats::guard::{Guard, KeeperTask, write_down};
use fleet_nats::hub::{Credentials, Hub};
use fleet_nats::lanes::KnownLane;
use fleet_nats::streams::{self, Keep, Keeps};
use fleet_nats::subject::{self, stream};
use fleet_nats::testing::TestHub;
use fleet_nats::{clock, flow, keeper};
use serde_json::{Value, json};

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(40);

async fn link(credentials: Credentials) -> Link {
    connect(&ConnectOptions {
        fail_within: LONG,
        // The system account has none.
        check_api: false,
        ..ConnectOptions::new("test", credentials)
    })
    .await
    .unwrap()
}

/// A hub in a folder, with a guard that has admitted it.
struct Guarded {
    hub: Hub,
    bus: Bus,
    _link: Link,
    guard: Guard,
    notes: Vec<String>,
}

async fn start(folder: &Path) -> Guarded {
    start_keeping(folder, Keeps::default()).await
}

async fn start_keeping(folder: &Path, keeps: Keeps) -> Guarded {
    let hub = Hub::start(TestHub::options(folder).await).await.unwrap();
    let link = link(hub.keeper_credentials().unwrap()).await;
    let bus = Bus::new(&link);
    let mut guard = Guard::new(bus.clone(), hub.handle()).keeping(keeps);
    let notes = guard.admit().await.unwrap();
    Guarded {
        hub,
        bus,
        _link: link,
        guard,
        notes,
    }
}

async fn stop(guarded: Guarded) {
    write_down(&guarded.bus, &guarded.hub.handle()).await;
    guarded.hub.stop().await.unwrap();
}

/// Ends when dropped.
struct Watching(tokio::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The guard at its watch, with a keeper.
async fn watch(hub: &Hub, bus: &Bus, guard: Guard) -> (Watching, Link) {
    let system = link(hub.system_credentials().unwrap()).await;
    let (bus, identity) = (bus.clone(), hub.identity().clone());
    let client = system.client().clone();
    let keeper = move |_| {
        KeeperTask::new(tokio::spawn(keeper::run(
            bus.clone(),
            client.clone(),
            identity.clone(),
            Retention::default(),
            clock::message_id().to_string(),
            Arc::default(),
        )))
    };
    (Watching(tokio::spawn(guard.watch(keeper))), system)
}

fn spec() -> JobSpec {
    let any = Target::Lane(Lane::any());
    JobSpec::new(vec!["true".to_owned()], any, clock::now(), "test".into())
}

async fn dispatch(bus: &Bus) -> JobId {
    let id = clock::job_id();
    bus.dispatch(id, None, spec()).await.unwrap();
    id
}

/// The folder of the journal's blocks.
fn blocks(folder: &Path) -> PathBuf {
    let accounts = std::fs::read_dir(folder.join("hub/jetstream")).unwrap();
    let mut found = accounts
        .map(|account| account.unwrap().path().join("streams/JOB/msgs"))
        .filter(|path| path.exists());
    found.next().unwrap()
}

/// Flips a bit of the block where `text` stands in it.
fn flip(folder: &Path, text: &str) {
    let path = blocks(folder).join("1.blk");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_that_truncates_the_journal_is_found_out_and_no_ticket_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path()).await;
    assert_eq!(first.notes, [] as [String; 0]);
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(dispatch(&first.bus).await);
    }
    stop(first).await;
    // In the middle, and without the server's own index it ends there.
    flip(folder.path(), &format!("fleet.job.{}.", jobs[10]));
    std::fs::remove_file(blocks(folder.path()).join("index.db")).unwrap();

    let again = start(folder.path()).await;
    let said = again.notes.join("\n");
    assert!(said.contains("stream JOB ends at"), "{said}");
    assert!(again.guard.epoch() > 0);
    for id in &jobs {
        let job = again.bus.job(*id).await.unwrap().unwrap();
        assert_eq!(job.state.word(), StateWord::NeedsHuman, "{id}");
        assert_eq!(job.recovered, Some(again.guard.epoch()));
    }
    let epoch = again.guard.epoch();
    stop(again).await;
    let third = start(folder.path()).await;
    assert_eq!(third.notes, [] as [String; 0], "it is well again");
    assert_eq!(third.guard.epoch(), epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_lane_goes_when_the_hub_starts_and_not_while_agents_pull_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path()).await;
    let needs: Needs = "docker".parse().unwrap();
    first.bus.ensure_lane(&needs).await.unwrap();
    // As after a damage that is mended while it runs.
    first.guard.admit().await.unwrap();
    let lanes = |known: Vec<KnownLane>| known.iter().filter(|k| k.lane == needs.lane()).count();
    assert_eq!(lanes(first.bus.lanes().await.unwrap()), 1);
    stop(first).await;
    let second = start(folder.path()).await;
    assert_eq!(lanes(second.bus.lanes().await.unwrap()), 0);
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_lost_in_the_middle_puts_its_job_to_the_operator_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path()).await;
    let (damaged, whole) = (dispatch(&first.bus).await, dispatch(&first.bus).await);
    let mut tickets = Vec::new();
    for _ in 0..2 {
        let job = first.bus.job(damaged).await.unwrap().unwrap();
        let ticket = clock::ticket_id();
        tickets.push(ticket);
        let change = Change::Queued {
            ticket,
            target: job.target.clone(),
            work_seq: 1,
            cause: Cause::Move,
            spec: None,
        };
        let now = clock::now();
        let record = job.record(now, &Writer::Operator, change).unwrap();
        first
            .bus
            .append(damaged, &Writer::Operator, now, &record)
            .await
            .unwrap();
    }
    stop(first).await;
    flip(folder.path(), tickets[0].as_str());

    let again = start(folder.path()).await;
    assert_eq!(again.notes, [] as [String; 0], "no count shows it");
    let (bus, guard) = (again.bus.clone(), again.guard);
    let _watching = watch(&again.hub, &bus, guard).await;
    let deadline = Instant::now() + LONG;
    loop {
        let job = bus.job(damaged).await.unwrap().unwrap();
        if job.state.word() == StateWord::NeedsHuman {
            break;
        }
        assert!(Instant::now() < deadline, "{job:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let job = bus.job(whole).await.unwrap().unwrap();
    assert_eq!(job.state.word(), StateWord::Queued);
    let events = bus.last(stream::FLOW, "fleet.flow.hub.hub.damaged").await;
    let text = String::from_utf8_lossy(&events.unwrap().unwrap().payload).into_owned();
    assert!(text.contains(damaged.as_str()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fills_is_said_with_who_fills_it_before_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = start(folder.path()).await;
    let bus = guarded.bus.clone();
    let info: Value = bus
        .api("STREAM.INFO.FLOW", bytes::Bytes::new())
        .await
        .unwrap();
    let mut config = info["config"].clone();
    config["max_bytes"] = 100_000.into();
    bus.api::<Value>("STREAM.UPDATE.FLOW", config.to_string().into())
        .await
        .unwrap();
    // Many small ones of one machine, a few that are heavy of another.
    for n in 0..60 {
        let (machine, bytes) = if n % 4 == 0 {
            ("studio", 3500)
        } else {
            ("mini", 200)
        };
        let name = machine.parse().unwrap();
        let detail = json!({ "filler": "x".repeat(bytes) });
        let event = NewEvent::of_machine("test.filler", &name, detail);
        bus.put_event(machine, &event, "boot", n).await.unwrap();
    }
    // It says what it finds first, and only once: all of it has to be there by then.
    let _watching = watch(&guarded.hub, &bus, guarded.guard).await;
    let deadline = Instant::now() + LONG;
    let trouble = loop {
        let word = bus.hub_word().await.unwrap().unwrap();
        if let Some(trouble) = word.troubles.first() {
            break trouble.clone();
        }
        assert!(Instant::now() < deadline, "nothing was said");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(trouble.kind, "hub.nearly_full FLOW");
    let text = &trouble.text;
    let names = text.contains("most of it: events of studio (about ");
    assert!(names && text.contains(", events of mini (about "), "{text}");
}

/// Stores so many messages of 40 KiB as output and as events.
async fn fill(bus: &Bus, count: u64) {
    let filler: Bytes = vec![b'x'; 40 * 1024].into();
    let log = subject::log(clock::job_id(), &"studio".parse().unwrap());
    for _ in 0..count {
        for subject in [log.as_str(), "fleet.flow.studio.test.filler"] {
            let stored = bus.store(subject, filler.clone(), &Store::default()).await;
            stored.unwrap();
        }
    }
}

/// Asks again until there is an answer.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was removed of each stream, as it was told last.
async fn told_removed(bus: &Bus) -> Option<Value> {
    let told = bus.last(stream::FLOW, "fleet.flow.hub.hub.removed").await;
    let event = flow::event(&told.unwrap()?).unwrap();
    Some(event.detail()["streams"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_output_go_by_bytes_and_by_age_as_it_is_set_and_what_goes_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path()).await;
    fill(&first.bus, 150).await;
    let before = [stream::LOG, stream::FLOW].map(|name| (name, &first.bus));
    for (name, bus) in before {
        assert!(bus.usage(name).await.unwrap().bytes > 6_000_000, "{name}");
    }
    stop(first).await;

    // Fewer bytes, at once: of what is there, too.
    let few = Keep {
        bytes: Some(4 << 20),
        age: None,
    };
    let keeps = Keeps {
        flow: few,
        log: few,
    };
    let second = start_keeping(folder.path(), keeps).await;
    let said = second.notes.join("\n");
    for what in ["events", "output"] {
        let line = format!("{what}: kept for 14 d and up to 4 MiB, was for 14 d and up to");
        assert!(
            said.contains(&line) && said.contains("were removed"),
            "{said}"
        );
    }
    let bus = second.bus.clone();
    for name in [stream::LOG, stream::FLOW] {
        let usage = bus.usage(name).await.unwrap();
        assert!(usage.bytes <= 4 << 20 && usage.bytes > 3 << 20, "{usage:?}");
    }
    let watching = watch(&second.hub, &bus, second.guard).await;
    let removed = until("it is told what went", || told_removed(&bus)).await;
    for name in [stream::LOG, stream::FLOW] {
        let one = &removed[name];
        assert!(one["messages"].as_u64().unwrap() >= 45, "{removed}");
        assert!(one["bytes"].as_u64().unwrap() >= 1_800_000, "{removed}");
        assert!(one["from"].as_str() < one["until"].as_str(), "{removed}");
    }
    // A restart changes nothing more, and is nothing to tell.
    drop(watching);
    write_down(&bus, &second.hub.handle()).await;
    second.hub.stop().await.unwrap();
    let third = start_keeping(folder.path(), keeps).await;
    assert_eq!(third.notes, [] as [String; 0]);
    stop(third).await;

    // Younger, and the bytes as they were: nobody sets them any more.
    let young = Keep {
        age: Some(Duration::from_secs(1)),
        bytes: None,
    };
    let keeps = Keeps {
        flow: Keep::default(),
        log: young,
    };
    let fourth = start_keeping(folder.path(), keeps).await;
    let said = fourth.notes.join("\n");
    assert!(said.contains("output: kept for 1 s and up to "), "{said}");
    assert!(said.contains("what is older goes now"), "{said}");
    let bus = fourth.bus.clone();
    let default = streams::default_bytes(stream::LOG, 1 << 30).unwrap();
    assert_eq!(bus.usage(stream::LOG).await.unwrap().max_bytes, default);
    let _watching = watch(&fourth.hub, &bus, fourth.guard).await;
    until("the output is gone", || async {
        let usage = bus.usage(stream::LOG).await.unwrap();
        (usage.messages == 0).then_some(())
    })
    .await;
    assert!(bus.usage(stream::FLOW).await.unwrap().bytes > 3 << 20);
    until("it is told", || async {
        let removed = told_removed(&bus).await?;
        removed[stream::FLOW].is_null().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let flow = Keep {
        age: Some(Duration::from_secs(1)),
        bytes: None,
    };
    let keeps = Keeps {
        flow,
        ..Keeps::default()
    };
    let hub = start_keeping(folder.path(), keeps).await;
    fill(&hub.bus, 3).await;
    until("the events are gone", || async {
        let usage = hub.bus.usage(stream::FLOW).await.unwrap();
        (usage.messages == 0).then_some(())
    })
    .await;
    let log = hub.bus.usage(stream::LOG).await.unwrap();
    assert_eq!(log.messages, 3, "output is kept for longer");
}
