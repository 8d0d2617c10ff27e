//! Lanes against a real server: what a record that lies, or is lost, does to the jobs behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::time::Duration;

use fleet_contract::ids::Lane;
use fleet_contract::needs::Needs;
use fleet_contract::spec::{JobSpec, Priority, Target};
use fleet_contract::ticket::Ticket;
use fleet_nats::bus::{Bus, Store};
use fleet_nats::hub::Permission;
use fleet_nats::pulls::Pulled;
use fleet_nats::testing::TestHub;
use fleet_nats::work::{Delivered, Queue};
use fleet_nats::{clock, keeper, subject};

const STORE: u64 = 1 << 30;
/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(60);

async fn operator(hub: &TestHub) -> Bus {
    let link = hub.connect("operator", Permission::Operator).await.unwrap();
    let bus = Bus::new(&link);
    keeper::prepare(&bus, STORE).await.unwrap();
    bus
}

fn needing(needs: &Needs) -> JobSpec {
    let target = Target::Lane(needs.lane());
    let command = vec!["true".to_owned()];
    JobSpec::new(command, target, clock::now(), "test".to_owned()).needing(needs)
}

fn ticket(spec: JobSpec, target: Target) -> Ticket {
    Ticket {
        ticket: clock::ticket_id(),
        job: clock::job_id(),
        after: 0,
        target,
        spec: Box::new(spec),
        epoch: 0,
    }
}

/// What the hub's agents know of a lane.
async fn known(bus: &Bus, needs: &Needs) -> Option<Option<Needs>> {
    let lanes = bus.lanes().await.unwrap();
    let lane = needs.lane();
    let mut found = lanes.into_iter().filter(|known| known.lane == lane);
    let first = found.next().map(|known| known.needs);
    assert_eq!(found.next(), None);
    first
}

async fn put(bus: &Bus, needs: &Needs, payload: &'static [u8]) {
    let subject = subject::lane(&needs.lane());
    let store = Store::default();
    bus.store(&subject, payload.into(), &store).await.unwrap();
}

#[tokio::test]
async fn a_record_that_says_nothing_or_something_else_is_written_anew() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker,mem>=16GiB".parse().unwrap();
    assert_eq!(known(&bus, &needs).await, None);
    bus.ensure_lane(&needs).await.unwrap();
    assert_eq!(known(&bus, &needs).await, Some(Some(needs.clone())));
    for payload in [&b"\xff\x00"[..], b"{}", b""] {
        put(&bus, &needs, payload).await;
        assert_eq!(known(&bus, &needs).await, Some(None), "{payload:?}");
        let id = clock::job_id();
        bus.dispatch(id, None, needing(&needs)).await.unwrap();
        assert_eq!(known(&bus, &needs).await, Some(Some(needs.clone())));
    }
}

#[tokio::test]
async fn a_ticket_says_what_its_lane_requires_when_the_record_is_lost() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let (kept, empty): (Needs, Needs) = ("docker".parse().unwrap(), "xcode".parse().unwrap());
    bus.ensure_lane(&empty).await.unwrap();
    // Its dispatcher died right after it, and a hub that starts had removed the lane meanwhile.
    let target = Target::Lane(kept.lane());
    let lost = ticket(needing(&kept), target.clone());
    bus.publish_ticket(&lost, Priority::Normal).await.unwrap();
    assert_eq!(known(&bus, &kept).await, None);
    bus.drop_empty_lanes().await.unwrap();
    keeper::prepare(&bus, STORE).await.unwrap();
    assert_eq!(known(&bus, &kept).await, Some(Some(kept.clone())));
    assert_eq!(known(&bus, &empty).await, None, "nothing waits in it");
    assert_eq!(pull(&bus, kept.lane()).await.ticket.as_deref(), Ok(&lost));
}

/// The next ticket of a lane. A queue may be found empty for a moment after a ticket was stored.
async fn pull(bus: &Bus, lane: Lane) -> Delivered {
    let queue = Queue::new(&Target::Lane(lane), Priority::Normal);
    let mut pulls = bus.pulls().await.unwrap();
    let pulled = async {
        loop {
            match pulls.pull_now(&queue).await.unwrap() {
                Pulled::Ticket(delivered) => return *delivered,
                Pulled::NoConsumer => panic!("nobody can pull from it"),
                Pulled::Empty | Pulled::Again => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LONG, pulled).await.unwrap()
}

/// What a hub that starts does at the end of removing a lane.
async fn delete_consumers(bus: &Bus, needs: &Needs) {
    for letter in ["h", "n", "l"] {
        let verb = format!("CONSUMER.DELETE.WORK.{}-{letter}", needs.lane());
        let gone: serde_json::Value = bus.api(&verb, bytes::Bytes::new()).await.unwrap();
        assert_eq!(gone["success"], true);
    }
}

#[tokio::test]
async fn whoever_dispatches_makes_the_consumers_that_a_hub_took_while_it_started() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker".parse().unwrap();
    // The hub has removed the record; the dispatcher finds none, and the consumers still there; the
    // hub deletes them; the dispatcher stores the record and the ticket.
    bus.ensure_lane(&needs).await.unwrap();
    delete_consumers(&bus, &needs).await;
    let id = clock::job_id();
    bus.dispatch(id, None, needing(&needs)).await.unwrap();
    let delivered = pull(&bus, needs.lane()).await;
    assert_eq!(delivered.ticket.unwrap().job, id);
    // The same where the lane is known for long, and somebody else has made the record meanwhile.
    let link = hub.operator().await;
    let other = Bus::new(&link);
    let record = subject::lane(&needs.lane());
    bus.purge("LANE", &record, None).await.unwrap();
    other.ensure_lane(&needs).await.unwrap();
    delete_consumers(&bus, &needs).await;
    let id = clock::job_id();
    bus.dispatch(id, None, needing(&needs)).await.unwrap();
    let (first, second) = (
        pull(&bus, needs.lane()).await,
        pull(&bus, needs.lane()).await,
    );
    let jobs = [first, second].map(|delivered| delivered.ticket.unwrap().job);
    assert!(jobs.contains(&id), "{jobs:?}");
}

#[tokio::test]
async fn a_hub_that_removed_a_lane_makes_the_consumers_of_one_that_is_there_again() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker".parse().unwrap();
    bus.ensure_lane(&needs).await.unwrap();
    delete_consumers(&bus, &needs).await;
    bus.mend_lane(&needs.lane()).await.unwrap();
    let queue = Queue::new(&Target::Lane(needs.lane()), Priority::Normal);
    let mut pulls = bus.pulls().await.unwrap();
    let pulled = pulls.pull_now(&queue).await.unwrap();
    assert!(matches!(pulled, Pulled::Empty), "{pulled:?}");
}

/// Dispatchers and a hub that removes lanes, in whatever order their requests arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ticket_is_stuck_however_often_empty_lanes_are_removed() {
    const DISPATCHERS: usize = 4;
    const EACH: usize = 25;
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let mut dispatchers = Vec::new();
    for mine in 0..DISPATCHERS {
        let link = hub.operator().await;
        dispatchers.push(tokio::spawn(async move {
            let bus = Bus::new(&link);
            let mut sent = Vec::new();
            for n in 0..EACH {
                let needs: Needs = format!("cores>={}", (n * DISPATCHERS + mine) / 3 + 1)
                    .parse()
                    .unwrap();
                let id = clock::job_id();
                bus.dispatch(id, None, needing(&needs)).await.unwrap();
                sent.push(needs);
            }
            sent
        }));
    }
    while !dispatchers.iter().all(tokio::task::JoinHandle::is_finished) {
        bus.drop_empty_lanes().await.unwrap();
    }
    for dispatcher in dispatchers {
        for needs in dispatcher.await.unwrap() {
            assert_eq!(known(&bus, &needs).await, Some(Some(needs.clone())));
            pull(&bus, needs.lane()).await.ticket.unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_lane_requires_is_told_by_any_ticket_in_it_that_can_be_read() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker".parse().unwrap();
    let target = Target::Lane(needs.lane());
    let good = ticket(needing(&needs), target.clone());
    bus.publish_ticket(&good, Priority::Normal).await.unwrap();
    for _ in 0..20 {
        let subject = subject::ticket(&target, Priority::Normal, clock::job_id());
        let store = Store::default();
        bus.store(&subject, "none".into(), &store).await.unwrap();
    }
    // Nor is its record any that can be read.
    put(&bus, &needs, b"{}").await;
    keeper::prepare(&bus, STORE).await.unwrap();
    assert_eq!(known(&bus, &needs).await, Some(Some(needs.clone())));
    assert_eq!(pull(&bus, needs.lane()).await.ticket.as_deref(), Ok(&good));
}

#[tokio::test]
async fn a_ticket_in_a_lane_that_is_not_its_jobs_is_none() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker".parse().unwrap();
    let any = Target::Lane(Lane::any());
    let stray = ticket(needing(&needs), any);
    bus.publish_ticket(&stray, Priority::Normal).await.unwrap();
    let delivered = pull(&bus, Lane::any()).await;
    let error = delivered.ticket.as_deref().unwrap_err().to_string();
    assert!(error.contains("whose job needs another: docker"), "{error}");
}

/// More than the 1,024 subjects whose last messages the server would tell at once.
#[tokio::test]
async fn more_lanes_than_may_be_are_read_and_new_jobs_alone_get_no_more() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let (older, queued): (Needs, _) = ("xcode".parse().unwrap(), clock::job_id());
    bus.dispatch(queued, None, needing(&older)).await.unwrap();
    for n in 0..1_100 {
        let needs: Needs = format!("cores>={}", n + 1).parse().unwrap();
        put(&bus, &needs, b"{}").await;
    }
    assert_eq!(bus.lanes().await.unwrap().len(), 2 + 1_100);
    let more: Needs = "docker".parse().unwrap();
    let id = clock::job_id();
    let refused = bus.dispatch(id, None, needing(&more)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("there are 1101 lanes"), "{refused}");
    // A job that the hub has taken has its lane all the same: the hub starts, and queues it again.
    let lost = ticket(needing(&more), Target::Lane(more.lane()));
    bus.publish_ticket(&lost, Priority::Normal).await.unwrap();
    keeper::prepare(&bus, STORE).await.unwrap();
    assert_eq!(known(&bus, &more).await, Some(Some(more.clone())));
    let record = subject::lane(&older.lane());
    bus.purge("LANE", &record, None).await.unwrap();
    let link = hub.operator().await;
    let again = Bus::new(&link);
    let job = bus.job(queued).await.unwrap().unwrap();
    let issued = again.issue(&job, job.last_seq, &job.target).await;
    issued.unwrap();
    assert_eq!(known(&bus, &older).await, Some(Some(older.clone())));
}
