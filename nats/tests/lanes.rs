//! Lanes against a real server: what a record that lies, or is lost, does to the jobs behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use fleet_contract::needs::Needs;
use fleet_contract::spec::{JobSpec, Priority, Target};
use fleet_contract::ticket::Ticket;
use fleet_nats::bus::{Bus, Store};
use fleet_nats::hub::Permission;
use fleet_nats::testing::TestHub;
use fleet_nats::work::{Pulled, Queue};
use fleet_nats::{clock, keeper, subject};

const STORE: u64 = 1 << 30;

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
    keeper::prepare(&bus, STORE).await.unwrap();
    assert_eq!(known(&bus, &kept).await, Some(Some(kept.clone())));
    assert_eq!(known(&bus, &empty).await, None, "nothing waits in it");
    let queue = Queue::new(&target, Priority::Normal);
    let mut asker = bus.asker().await.unwrap();
    let Pulled::Ticket(delivered) = asker.pull_now(&queue).await.unwrap() else {
        panic!("no ticket")
    };
    assert_eq!(delivered.ticket.as_deref(), Ok(&lost));
}

#[tokio::test]
async fn a_ticket_in_a_lane_that_is_not_its_jobs_is_none() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    let needs: Needs = "docker".parse().unwrap();
    let any = Target::Lane(fleet_contract::ids::Lane::any());
    let stray = ticket(needing(&needs), any.clone());
    bus.publish_ticket(&stray, Priority::Normal).await.unwrap();
    let queue = Queue::new(&any, Priority::Normal);
    let mut asker = bus.asker().await.unwrap();
    let Pulled::Ticket(delivered) = asker.pull_now(&queue).await.unwrap() else {
        panic!("no ticket")
    };
    let error = delivered.ticket.as_deref().unwrap_err().to_string();
    assert!(error.contains("whose job needs another: docker"), "{error}");
}

/// More than the 1,024 subjects whose last messages the server would tell at once.
#[tokio::test]
async fn more_lanes_than_may_be_are_still_read() {
    let hub = TestHub::start().await;
    let bus = operator(&hub).await;
    for n in 0..1_100 {
        let needs: Needs = format!("cores>={}", n + 1).parse().unwrap();
        put(&bus, &needs, b"{}").await;
    }
    assert_eq!(bus.lanes().await.unwrap().len(), 1 + 1_100);
    let more: Needs = "docker".parse().unwrap();
    let refused = bus.ensure_lane(&more).await.unwrap_err().to_string();
    assert!(refused.contains("there are 1101 lanes"), "{refused}");
}
