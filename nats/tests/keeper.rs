//! The keeper's shell against a real server: who is lost, what makes room, what a broken link means.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::{EventView, kind};
use fleet_contract::ids::{JobId, Lane, MachineId, Writer};
use fleet_contract::keeper::{MAKE_ROOM_ABOVE_PERCENT, Pace, Retention, Why};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{Load, Presence, Service, Specs};
use fleet_contract::needs::Needs;
use fleet_contract::spec::{JobSpec, Target};
use fleet_nats::bus::{Bus, BusError, Store};
use fleet_nats::connect::{ConnectOptions, Link, LinkState, connect};
use fleet_nats::hub::{Credentials, Permission};
use fleet_nats::pulls::Pulled;
use fleet_nats::tail::{From, Next, Tail};
use fleet_nats::testing::TestHub;
use fleet_nats::work::Queue;
use fleet_nats::{clock, flow, keeper, subject};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

/// A hub without the keeper of its own, and all that the keeper needs.
struct Bench {
    hub: TestHub,
    bus: Bus,
    _link: Link,
    events: Tail,
}

/// A keeper, ended with the test.
struct Running(JoinHandle<()>, [Link; 2]);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn link(name: &str, credentials: Credentials, url: Option<String>) -> Link {
    connect(&ConnectOptions {
        urls: url.into_iter().collect(),
        fail_within: LONG,
        // The system account has none.
        check_api: false,
        ..ConnectOptions::new(name, credentials)
    })
    .await
    .unwrap()
}

impl Bench {
    async fn new(store: u64) -> Self {
        let hub = TestHub::start().await;
        let link = hub.operator().await;
        let bus = Bus::new(&link);
        keeper::prepare(&bus, store).await.unwrap();
        let flows = [subject::FLOWS.to_owned()];
        let events = Tail::open(&bus, "FLOW", &flows, From::First).await.unwrap();
        Self {
            hub,
            bus,
            _link: link,
            events,
        }
    }

    async fn keeper(&self, pace: Pace, url: Option<String>) -> Running {
        self.keeper_of(Retention::default(), pace, url).await
    }

    async fn keeper_of(&self, retention: Retention, pace: Pace, url: Option<String>) -> Running {
        let own = link("keeper", self.hub.keeper_credentials().unwrap(), url).await;
        let system = self.hub.system_credentials().unwrap();
        let system = link("system", system, None).await;
        let task = tokio::spawn(keeper::run_at(
            Bus::new(&own),
            system.client().clone(),
            self.hub.identity().clone(),
            retention,
            clock::message_id().to_string(),
            pace,
            Arc::default(),
        ));
        Running(task, [own, system])
    }

    /// The next event of this kind.
    async fn event(&mut self, kind: &str) -> EventView {
        let found = async {
            loop {
                if let Next::Message(message, _) = self.events.next().await.unwrap() {
                    let event = flow::event(&message).unwrap();
                    if event.kind == kind {
                        return event;
                    }
                }
            }
        };
        tokio::time::timeout(LONG, found)
            .await
            .unwrap_or_else(|_| panic!("no {kind}"))
    }

    /// Returns when the keeper reads what is told: it tells what it cannot read.
    async fn awake(&mut self) {
        self.put("fleet.pres.nobody", "no presence").await;
        self.event(kind::MESSAGE_MALFORMED).await;
    }

    async fn put(&self, subject: &str, bytes: &'static str) {
        let stored = self
            .bus
            .store(subject, bytes.into(), &Store::default())
            .await;
        stored.unwrap();
    }
}

fn studio() -> MachineId {
    "studio".parse().unwrap()
}

fn spec() -> JobSpec {
    let any = Target::Lane(Lane::any());
    JobSpec::new(vec!["true".to_owned()], any, clock::now(), "test".into())
}

fn lease() -> LeaseRecord {
    LeaseRecord::Agent {
        machine: studio(),
        instance: clock::instance_id(),
        host: "host".to_owned(),
        released: false,
        term: None,
        held: Vec::new(),
        seen: None,
    }
}

const STORE: u64 = 1 << 30;

/// A wire that can be cut.
struct Proxy {
    at: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Proxy {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (cut, state) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if *state.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { at, cut }
    }
}

#[tokio::test]
async fn a_keeper_that_was_cut_off_takes_no_lease_before_it_has_heard_for_a_whole_one() {
    let mut bench = Bench::new(STORE).await;
    let proxy = Proxy::to(bench.hub.listen()).await;
    let pace = Pace {
        // A quarter of it passes before the cut: the rest is for a machine that stands still.
        lease: Duration::from_secs(8),
        ..Pace::default()
    };
    let url = format!("nats://{}", proxy.at);
    let keeper = bench.keeper(pace, Some(url)).await;
    bench.awake().await;
    let seq = bench.bus.append_lease(&lease(), 0).await.unwrap();
    let taken = tokio::time::timeout(pace.lease / 4, bench.event(kind::LEASE_TAKEN));
    assert!(taken.await.is_err(), "it is not over");

    let link = &keeper.1[0];
    let mut status = link.status();
    proxy.cut.send(true).unwrap();
    let down = status.wait_for(|s| s.state != LinkState::Connected);
    down.await.map(drop).unwrap();
    // What is not done over the link now is not done later either.
    assert!(matches!(
        Bus::new(link).append_lease(&lease(), seq).await,
        Err(BusError::Closed(_))
    ));
    let healed = Instant::now();
    proxy.cut.send(false).unwrap();
    bench.event(kind::LEASE_TAKEN).await;
    let heard = healed.elapsed();
    assert!(heard >= pace.lease, "taken after {heard:?}");
    let (_, record) = bench.bus.lease(&studio()).await.unwrap().unwrap();
    assert!(matches!(record, LeaseRecord::Hub { .. }));
}

#[tokio::test]
async fn a_lane_whose_tickets_nobody_can_pull_is_made_usable_again() {
    let bench = Bench::new(STORE).await;
    let needs: Needs = "docker".parse().unwrap();
    let target = Target::Lane(needs.lane());
    let spec = JobSpec { target, ..spec() }.needing(&needs);
    let queue = Queue::new(&spec.target, spec.priority);
    let id = clock::job_id();
    bench.bus.dispatch(id, None, spec).await.unwrap();
    for letter in ["h", "n", "l"] {
        let verb = format!("CONSUMER.DELETE.WORK.{}-{letter}", needs.lane());
        let gone = bench
            .bus
            .api::<serde_json::Value>(&verb, bytes::Bytes::new());
        gone.await.unwrap();
    }
    let record = subject::lane(&needs.lane());
    bench.bus.purge("LANE", &record, None).await.unwrap();
    let mut pulls = bench.bus.pulls().await.unwrap();
    let pulled = pulls.pull_now(&queue).await.unwrap();
    assert!(matches!(pulled, Pulled::NoConsumer), "{pulled:?}");
    let _keeper = bench.keeper(Pace::default(), None).await;
    let deadline = Instant::now() + LONG;
    let delivered = loop {
        if let Pulled::Ticket(delivered) = pulls.pull_now(&queue).await.unwrap() {
            break delivered;
        }
        assert!(Instant::now() < deadline, "nobody can pull it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(delivered.ticket.unwrap().job, id);
    let lanes = bench.bus.lanes().await.unwrap();
    assert!(
        lanes
            .iter()
            .any(|known| known.needs.as_ref() == Some(&needs))
    );
}

#[tokio::test]
async fn a_machine_whose_connection_closes_is_lost_at_once() {
    let mut bench = Bench::new(STORE).await;
    let _keeper = bench.keeper(Pace::default(), None).await;
    bench.awake().await;
    let worker = bench
        .hub
        .connect("studio", Permission::Worker)
        .await
        .unwrap();
    let presence = Presence {
        machine: studio(),
        instance: clock::instance_id(),
        boot: String::new(),
        host: "desk".to_owned(),
        address: String::new(),
        connection: worker.client().server_info().client_id,
        service: Service::Up,
        interval_ms: 60_000,
        contract: WIRE_VERSION,
        specs: Specs::default(),
        load: Load::default(),
        labels: BTreeMap::new(),
        skills: BTreeMap::new(),
        models: Vec::new(),
        probed: Default::default(),
        degraded: Vec::new(),
        lost_at: None,
    };
    let agent = Bus::new(&worker);
    agent.beat(&presence, None).await.unwrap();
    worker.client().drain().await.unwrap();
    let lost = bench.event(kind::MACHINE_LOST).await;
    assert_eq!(lost.machine, Some(studio()));
    assert_eq!(lost.data["detail"]["host"], "desk");
    let (seen, _) = bench.bus.machines().await.unwrap();
    let studio = seen.iter().find(|s| s.presence.machine == studio());
    assert_eq!(studio.unwrap().presence.service, Service::Lost);
}

#[tokio::test]
async fn a_journal_that_fills_up_loses_its_oldest_ended_jobs_and_says_which() {
    // Four MiB of journal.
    let mut bench = Bench::new(20 << 20).await;
    let _keeper = bench.keeper(hasty(), None).await;
    let mut ids: Vec<JobId> = Vec::new();
    loop {
        let id = clock::job_id();
        let mut spec = spec();
        spec.stdin = Some(vec![0xff; 256 * 1024]);
        bench.bus.dispatch(id, None, spec).await.unwrap();
        bench.bus.cancel(id, "test").await.unwrap();
        ids.push(id);
        let usage = bench.bus.usage("JOB").await.unwrap();
        assert!(ids.len() < 100, "it never fills: {usage:?}");
        if usage.over(MAKE_ROOM_ABOVE_PERCENT) {
            break;
        }
    }
    // Several are removed side by side and told as they went: the oldest is soon among them.
    until_removed(&mut bench, &ids[..1], Why::Room).await;
    assert!(bench.bus.tip(ids[0]).await.unwrap().is_none());
    let last = ids[ids.len() - 1];
    assert!(bench.bus.tip(last).await.unwrap().is_some());
}

/// A job that has ended, with so many bytes in its journal and a chunk of output.
async fn ended(bus: &Bus, bytes: usize) -> JobId {
    let id = clock::job_id();
    let mut spec = spec();
    spec.stdin = Some(vec![0xff; bytes]);
    bus.dispatch(id, None, spec).await.unwrap();
    bus.cancel(id, "test").await.unwrap();
    let log = subject::log(id, &studio());
    let stored = bus.store(&log, "output".into(), &Store::default()).await;
    stored.unwrap();
    id
}

/// Returns when each of these jobs was named as removed, for this reason; the bytes that were told.
async fn until_removed(bench: &mut Bench, jobs: &[JobId], why: Why) -> u64 {
    let mut left: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let mut bytes = 0;
    while !left.is_empty() {
        let detail = bench.event(kind::JOB_PURGED).await.data["detail"].take();
        assert_eq!(detail["reason"], why.to_string(), "{detail}");
        assert!(detail["ended_until"].as_str() >= detail["ended_from"].as_str());
        let named = detail["jobs"].as_array().unwrap();
        assert_eq!(detail["count"], named.len(), "{detail}");
        left.retain(|id| !named.contains(&id.as_str().into()));
        bytes += detail["bytes"].as_u64().unwrap();
    }
    bytes
}

/// At once, but for what there is to see of the order.
fn hasty() -> Pace {
    Pace {
        purge_age_min: Duration::from_millis(100),
        clear_before_purge: Duration::from_millis(50),
        ..Pace::default()
    }
}

#[tokio::test]
async fn ended_jobs_go_by_the_bytes_that_are_kept_of_them_oldest_first_with_their_output() {
    let mut bench = Bench::new(STORE).await;
    let retention = Retention {
        bytes: Some(1 << 20),
        ..Retention::default()
    };
    let _keeper = bench.keeper_of(retention, hasty(), None).await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(ended(&bench.bus, 300 * 1024).await);
    }
    // In base64 each takes 400 KiB, about: there is room for two.
    let bytes = until_removed(&mut bench, &jobs[..3], Why::Bytes).await;
    assert!((1_200_000..1_300_000).contains(&bytes), "{bytes}");
    for (at, id) in jobs.iter().enumerate() {
        let there = bench.bus.tip(*id).await.unwrap().is_some();
        assert_eq!(there, at >= 3, "{at}");
        let log = subject::log(*id, &studio());
        let output = bench.bus.last("LOG", &log).await.unwrap().is_some();
        assert_eq!(output, at >= 3, "{at}");
    }
}

#[tokio::test]
async fn ended_jobs_go_by_their_age() {
    let mut bench = Bench::new(STORE).await;
    let retention = Retention {
        age: Duration::from_secs(1),
        ..Retention::default()
    };
    let (old, waits) = (ended(&bench.bus, 10).await, clock::job_id());
    bench.bus.dispatch(waits, None, spec()).await.unwrap();
    let _keeper = bench.keeper_of(retention, hasty(), None).await;
    until_removed(&mut bench, &[old], Why::Age).await;
    assert!(bench.bus.tip(old).await.unwrap().is_none());
    assert!(bench.bus.tip(waits).await.unwrap().is_some(), "it waits");
}

#[tokio::test]
async fn what_does_not_count_is_told_once_and_keeps_no_job_from_beginning() {
    let mut bench = Bench::new(STORE).await;
    let keeper = bench.keeper(Pace::default(), None).await;
    bench.awake().await;
    let rogue = Writer::Machine("rogue".parse().unwrap());
    let (one, two, new) = (clock::job_id(), clock::job_id(), clock::job_id());
    for id in [one, two] {
        bench.bus.dispatch(id, None, spec()).await.unwrap();
    }
    bench.put(&subject::job(one, &rogue), "garbage").await;
    let void = bench.event(kind::JOURNAL_VOID).await;
    assert_eq!(void.job, Some(one));
    // The keeper says the truth over it.
    let jobs = [subject::job(one, &Writer::Keeper)];
    let mut own = Tail::open(&bench.bus, "JOB", &jobs, From::First)
        .await
        .unwrap();
    while !matches!(own.next().await.unwrap(), Next::Message(..)) {}
    drop(keeper);

    // What came while nobody looked is told by the next one; what was told is not.
    bench.put(&subject::job(two, &rogue), "garbage").await;
    let _keeper = bench.keeper(Pace::default(), None).await;
    let void = bench.event(kind::JOURNAL_VOID).await;
    assert_eq!(void.job, Some(two));

    // A first record that is none goes.
    bench.put(&subject::job(new, &rogue), "garbage").await;
    let void = bench.event(kind::JOURNAL_VOID).await;
    assert_eq!(void.job, Some(new));
    let gone = async {
        while bench.bus.tip(new).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    let dispatched = bench.bus.dispatch(new, None, spec()).await.unwrap();
    assert_ne!(dispatched.revision, 0);
}
