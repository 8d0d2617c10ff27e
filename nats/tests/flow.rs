//! Events of a writer on a real server: in order, once, whole batches or none.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use bytes::Bytes;
use fleet_contract::ids::MachineId;
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::flow::{BATCH_MAX, Encoded, LastTold, NewEvent, event};
use fleet_nats::hub::Permission;
use fleet_nats::tail::{self, From};
use fleet_nats::testing::TestHub;
use fleet_nats::{keeper, subject};
use serde_json::json;

fn events(machine: &MachineId, boot: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Encoded> {
    seqs.map(|seq| {
        let kind = ["machine.load", "machine.up", "link.healed"][seq as usize % 3];
        let told = NewEvent::of_machine(kind, machine, json!({ "n": seq }));
        Encoded {
            kind: kind.to_owned(),
            payload: told.encode(boot, seq).unwrap().into(),
        }
    })
    .collect()
}

#[tokio::test]
async fn events_are_stored_in_order_once_and_a_batch_whole_or_not_at_all() {
    let hub = TestHub::start().await;
    let link = hub.operator().await;
    let bus = Bus::new(&link);
    keeper::prepare(&bus, 1 << 30).await.unwrap();
    let link = hub.connect("studio", Permission::Worker).await.unwrap();
    let agent = Bus::new(&link);
    let me: MachineId = "studio".parse().unwrap();
    let none = LastTold {
        seq: 0,
        place: None,
    };
    assert_eq!(agent.last_told("studio").await.unwrap(), none);

    let put = async |of: Vec<Encoded>, after| agent.put_events("studio", &of, after).await;
    let one = put(events(&me, "a", 1..=1), 0).await.unwrap();
    // Another writer's events are in nobody's way.
    let other = NewEvent::of_machine("machine.lost", &me, json!({}));
    bus.put_event(subject::HUB, &other, "h", 1).await.unwrap();
    let most = BATCH_MAX as u64;
    let last = put(events(&me, "a", 2..=most + 1), one).await.unwrap();
    assert_eq!(last, one + 1 + most);
    let told = agent.last_told("studio").await.unwrap();
    let expected = LastTold {
        seq: last,
        place: Some(("a".to_owned(), most + 1)),
    };
    assert_eq!(told, expected);

    // The same again, of which nobody knew whether it had arrived.
    for again in [events(&me, "a", 2..=most + 1), events(&me, "a", 2..=2)] {
        let refused = put(again, one).await;
        assert!(matches!(refused, Err(BusError::Moved(_))), "{refused:?}");
    }
    put(events(&me, "b", 1..=2), last).await.unwrap();

    let filters = [subject::flow("studio", ">")];
    let stored = tail::read_all(&bus, "FLOW", &filters, From::First).await;
    let places: Vec<(String, u64)> = stored
        .unwrap()
        .iter()
        .map(|message| {
            let data = event(message).unwrap().data;
            let boot = data["boot"].as_str().unwrap().to_owned();
            (boot, data["seq"].as_u64().unwrap())
        })
        .collect();
    let a = (1..=most + 1).map(|seq| ("a".to_owned(), seq));
    let b = (1..=2).map(|seq| ("b".to_owned(), seq));
    assert_eq!(places, a.chain(b).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_no_event_under_a_machines_name_is_in_the_way_of_none() {
    let hub = TestHub::start().await;
    let link = hub.operator().await;
    let bus = Bus::new(&link);
    keeper::prepare(&bus, 1 << 30).await.unwrap();
    let garbage = Bytes::from_static(b"{");
    let options = fleet_nats::bus::Store::default();
    let stored = bus.store("fleet.flow.studio.x", garbage, &options).await;
    let told = bus.last_told("studio").await.unwrap();
    assert_eq!((told.seq, told.place), (stored.unwrap(), None));
    let me: MachineId = "studio".parse().unwrap();
    let three = events(&me, "a", 1..=3);
    let after = bus.put_events("studio", &three, told.seq).await;
    assert_eq!(after.unwrap(), told.seq + 3);
}

/// What an agent does with a long outage's events once its hub is back.
#[tokio::test]
async fn ten_thousand_events_are_stored_in_order_within_seconds() {
    let hub = TestHub::start().await;
    let link = hub.operator().await;
    let bus = Bus::new(&link);
    keeper::prepare(&bus, 1 << 30).await.unwrap();
    let link = hub.connect("studio", Permission::Worker).await.unwrap();
    let agent = Bus::new(&link);
    let all = events(&"studio".parse().unwrap(), "a", 1..=10_000);
    let begun = std::time::Instant::now();
    let mut after = 0;
    for batch in all.chunks(BATCH_MAX) {
        after = agent.put_events("studio", batch, after).await.unwrap();
    }
    println!("10,000 events stored in {:?}", begun.elapsed());
    let told = agent.last_told("studio").await.unwrap();
    assert_eq!(told.place, Some(("a".to_owned(), 10_000)));
    assert_eq!(told.seq, after);
}
