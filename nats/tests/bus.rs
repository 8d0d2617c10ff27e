//! The bus primitives and rules against a real server: journal, tickets, registry, output.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use fleet_contract::attempt::{Attempt, Effect, Input};
use fleet_contract::ids::{Lane, MachineId, Writer};
use fleet_contract::outcome::OutputStream;
use fleet_contract::spec::{JobSpec, Priority, Target};
use fleet_contract::ticket::{Verdict, judge};
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::hub::Permission;
use fleet_nats::output::ChunkHead;
use fleet_nats::pulls::Pulled;
use fleet_nats::tail::{self, From};
use fleet_nats::testing::TestHub;
use fleet_nats::work::Queue;
use fleet_nats::{clock, keeper, streams, subject};

const STORE: u64 = 1 << 30;

async fn operator(hub: &TestHub) -> Bus {
    let link = hub.connect("operator", Permission::Operator).await.unwrap();
    let bus = Bus::new(&link);
    keeper::prepare(&bus, STORE).await.unwrap();
    bus
}

async fn worker(hub: &TestHub, name: &str) -> Bus {
    let link = hub.connect(name, Permission::Worker).await.unwrap();
    Bus::new(&link)
}

fn spec(target: Target) -> JobSpec {
    JobSpec::new(
        vec!["true".to_owned()],
        target,
        clock::now(),
        "test".to_owned(),
    )
}

fn any() -> Target {
    Target::Lane(Lane::any())
}

#[tokio::test]
async fn ensure_is_idempotent_and_says_what_it_did() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let again = streams::ensure(&bus, STORE).await.unwrap();
    assert!(
        again.iter().all(|e| e.done == streams::Done::Nothing),
        "{again:?}"
    );
    let tighter = streams::ensure(&bus, STORE / 2).await.unwrap();
    assert!(
        tighter
            .iter()
            .any(|e| matches!(&e.done, streams::Done::Changed(what) if what == &["max_bytes"]))
    );
    let looser = streams::ensure(&bus, STORE).await.unwrap();
    assert!(
        looser.iter().all(|e| e.done == streams::Done::Nothing),
        "a limit was loosened: {looser:?}"
    );
}

#[tokio::test]
async fn a_worker_takes_a_job_from_ticket_to_claim() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let studio: MachineId = "studio".parse().unwrap();
    let agent = worker(&hub, "studio").await;
    let queue = Queue::new(&any(), Priority::Normal);
    assert!(matches!(
        agent.pulls().await.unwrap().pull_now(&queue).await.unwrap(),
        Pulled::Empty
    ));
    let mut parked = agent.pulls().await.unwrap();
    parked.park(&queue).await.unwrap();

    let id = clock::job_id();
    let dispatched = bus.dispatch(id, None, spec(any())).await.unwrap();
    let Some((None, Pulled::Ticket(delivered))) = parked.next().await else {
        panic!("no ticket")
    };
    let ticket = delivered.ticket.clone().unwrap();
    assert_eq!(delivered.deliveries, 1);
    let tip = agent.tip(id).await.unwrap().unwrap();
    assert_eq!(tip.seq, dispatched.revision);
    assert!(matches!(
        judge(&ticket, &studio, Some(&tip)),
        Verdict::Claim { no: 1, .. }
    ));

    let (mut attempt, effects) = Attempt::deliver(studio.clone(), clock::attempt_id(), *ticket);
    assert_eq!(effects, [Effect::Read]);
    let effects = attempt.on(Input::Tip(Some(tip)), clock::now(), 0.5);
    let [Effect::Append(record)] = &effects[..] else {
        panic!("{effects:?}")
    };
    let me = Writer::Machine(studio.clone());
    let seq = agent.append(id, &me, clock::now(), record).await.unwrap();
    assert!(matches!(
        agent.append(id, &me, clock::now(), record).await,
        Err(BusError::Moved(_))
    ));
    let reading = agent.reading(id, &studio).await.unwrap();
    assert_eq!(reading.own.as_ref().map(|t| t.seq), Some(seq));
    assert_eq!(reading.tip, reading.own);
    agent.ack(&delivered).await.unwrap();
    assert!(matches!(
        agent.pulls().await.unwrap().pull_now(&queue).await.unwrap(),
        Pulled::Empty
    ));
    assert_eq!(bus.usage("WORK").await.unwrap().messages, 0);
    let job = bus.job(id).await.unwrap().unwrap();
    assert_eq!(job.state.word().as_str(), "running");
}

#[tokio::test]
async fn a_ticket_given_back_or_withdrawn_comes_again_at_once() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let (one, two) = (worker(&hub, "one").await, worker(&hub, "two").await);
    let queue = Queue::new(&any(), Priority::Normal);
    let mut first = one.pulls().await.unwrap();
    first.park(&queue).await.unwrap();
    bus.dispatch(clock::job_id(), None, spec(any()))
        .await
        .unwrap();
    let Some((_, Pulled::Ticket(delivered))) = first.next().await else {
        panic!("no ticket")
    };
    let mut withdrawn = one.pulls().await.unwrap();
    withdrawn.park(&queue).await.unwrap();
    withdrawn.withdraw().await;
    let mut second = two.pulls().await.unwrap();
    second.park(&queue).await.unwrap();
    one.give_back(&delivered).await.unwrap();
    let Some((_, Pulled::Ticket(again))) = second.next().await else {
        panic!("no ticket")
    };
    assert_eq!(again.deliveries, 2);
}

#[tokio::test]
async fn pins_are_strict_and_unknown_queues_are_told() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let (studio, forge) = (
        "studio".parse::<MachineId>().unwrap(),
        "forge".parse::<MachineId>().unwrap(),
    );
    let pin = |m: &MachineId| Queue::new(&Target::Pin(m.clone()), Priority::Normal);
    let agent = worker(&hub, "studio").await;
    assert!(matches!(
        agent
            .pulls()
            .await
            .unwrap()
            .pull_now(&pin(&studio))
            .await
            .unwrap(),
        Pulled::NoConsumer
    ));
    bus.ensure_queues(&Target::Pin(studio.clone()))
        .await
        .unwrap();
    bus.ensure_queues(&Target::Pin(studio.clone()))
        .await
        .unwrap();
    bus.ensure_queues(&Target::Pin(forge.clone()))
        .await
        .unwrap();
    bus.dispatch(clock::job_id(), None, spec(Target::Pin(forge.clone())))
        .await
        .unwrap();
    assert!(matches!(
        agent
            .pulls()
            .await
            .unwrap()
            .pull_now(&pin(&studio))
            .await
            .unwrap(),
        Pulled::Empty
    ));
    let other = worker(&hub, "forge").await;
    assert!(matches!(
        other
            .pulls()
            .await
            .unwrap()
            .pull_now(&pin(&forge))
            .await
            .unwrap(),
        Pulled::Ticket(_)
    ));
}

#[tokio::test]
async fn the_same_key_is_the_same_job() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let id = fleet_contract::ids::JobId::from_key("nightly");
    let first = bus
        .dispatch(id, Some("nightly"), spec(any()))
        .await
        .unwrap();
    let second = bus
        .dispatch(id, Some("nightly"), spec(any()))
        .await
        .unwrap();
    assert!(!first.existed && second.existed);
    let mut other = spec(any());
    other.command.push("x".to_owned());
    let error = bus.dispatch(id, Some("nightly"), other).await.unwrap_err();
    assert!(
        error.to_string().contains("already used for another job"),
        "{error}"
    );
    assert_eq!(bus.usage("WORK").await.unwrap().messages, 1);
}

#[tokio::test]
async fn output_keeps_its_bytes_and_its_order() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let studio: MachineId = "studio".parse().unwrap();
    let agent = worker(&hub, "studio").await;
    let (job, attempt) = (clock::job_id(), clock::attempt_id());
    assert_eq!(agent.last_chunk(job, &studio).await.unwrap(), None);
    for seq in 1..=3 {
        let head = ChunkHead::new(attempt, seq, OutputStream::Stdout, seq - 1, clock::now());
        agent
            .put_chunk(
                job,
                &studio,
                &head,
                bytes::Bytes::from(vec![0xff, u8::try_from(seq).unwrap()]),
            )
            .await
            .unwrap();
    }
    assert_eq!(
        agent.last_chunk(job, &studio).await.unwrap().unwrap().seq,
        3
    );
    let found = tail::read_all(&bus, "LOG", &[subject::log_all(job)], From::First)
        .await
        .unwrap();
    let bytes: Vec<u8> = found.iter().flat_map(|m| m.payload.to_vec()).collect();
    assert_eq!(bytes, [0xff, 1, 0xff, 2, 0xff, 3]);
}

#[tokio::test]
async fn a_record_smuggled_in_by_a_reply_subject_changes_nothing() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let agent = worker(&hub, "studio").await;
    let id = clock::job_id();
    let dispatched = bus.dispatch(id, None, spec(any())).await.unwrap();
    let job = bus.job(id).await.unwrap().unwrap();
    let change = fleet_contract::record::Change::Canceled {
        by: "nobody".to_owned(),
    };
    let record = job.record(clock::now(), &Writer::Operator, change).unwrap();
    let forged = fleet_nats::journal::encode(id, &Writer::Operator, clock::now(), &record).unwrap();
    // The worker stores the forged record where it may, and has the server answer into the journal.
    let mine = "fleet.flow.studio.x";
    agent
        .store(mine, forged.into(), &fleet_nats::bus::Store::default())
        .await
        .unwrap();
    let reply = subject::job(id, &Writer::Operator);
    let api = format!("$JS.API.DIRECT.GET.FLOW.{mine}");
    agent
        .client()
        .publish_with_reply(api, reply, bytes::Bytes::new())
        .await
        .unwrap();
    let mut tail = tail::Tail::open(
        &bus,
        "JOB",
        &[subject::job_all(id)],
        From::Seq(dispatched.revision + 1),
    )
    .await
    .unwrap();
    let forged_seq = loop {
        if let tail::Next::Message(message, _) = tail.next().await.unwrap() {
            assert!(message.smuggled, "a consumer shows it as honest");
            break message.seq;
        }
    };
    let job = bus.job(id).await.unwrap().unwrap();
    assert_eq!(job.state.word().as_str(), "queued");
    assert_eq!((job.voids, job.last_seq), (1, forged_seq));
    let tip = agent.tip(id).await.unwrap().unwrap();
    assert_eq!((tip.seq, tip.readable), (forged_seq, false));
}

#[tokio::test]
async fn a_job_whose_ticket_is_safe_is_dispatched_whatever_becomes_of_its_first_record() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let keeper = ConnectOptions {
        fail_within: std::time::Duration::from_secs(60),
        ..ConnectOptions::new("test keeper", hub.keeper_credentials().unwrap())
    };
    let keeper = Bus::new(&connect(&keeper).await.unwrap());
    let gone: serde_json::Value = keeper.api("STREAM.DELETE.JOB", "".into()).await.unwrap();
    assert_eq!(gone["success"], true);
    let sent = bus
        .dispatch(clock::job_id(), None, spec(any()))
        .await
        .unwrap();
    assert_eq!(sent.revision, 0, "nothing is known of its journal");
    assert_eq!(bus.usage("WORK").await.unwrap().messages, 1);
}
