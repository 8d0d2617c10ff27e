//! Every message of a real run can be read, and one of each kind is what the fixtures of the wire
//! contract were taken from: with `FLEET_BLESS_FIXTURES=DIR` they are written there. Those of v1
//! are never written again.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleet_contract::ids::Writer;
use fleet_contract::record::{Change, StateWord};
use fleet_contract::ticket::TICKET_KIND;
use fleet_nats::bus::{Bus, Store};
use fleet_nats::subject::stream;
use serde_json::Value;

use crate::fleet::{Gate, kill};
use crate::harness::{Fleet, eventually};

/// Goes through as many kinds of record as it can, on a hub whose streams are looked at after.
fn live(fleet: &mut Fleet, gate: &Gate, runtime: &tokio::runtime::Runtime) {
    let input = gate.file("in");
    std::fs::write(&input, "in").unwrap();
    let words = [
        &["dispatch"][..],
        &["--name", "greet", "--tag", "from=ci", "-e", "A=b"],
        &["--timeout", "1h", "--cwd", "~", "--on-lost", "fail"],
        &["--priority", "high", "--count", "1"],
        &["--stdin", input.to_str().unwrap(), "--shell"],
    ]
    .concat();
    let greet = ["--", "echo out; echo err >&2; cat"];
    let ran = fleet.run(&[&words[..], &["--wait"], &greet].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    // A ticket that nobody takes, so that there is one to look at.
    let later = ["--on", "later", "--queue-anyway"];
    fleet.run(&[&words[..], &later, &greet].concat()).ok();
    // Expired, then canceled while it waits, then while it runs.
    let away = ["--on", "nobody", "--queue-anyway", "--", "true"];
    let ran = fleet.run(&[&["dispatch", "--wait", "--expires", "1s"], &away[..]].concat());
    assert_eq!(ran.code, 75, "{ran:?}");
    let waits = fleet.dispatch(&away);
    fleet.run(&["cancel", "--yes", &waits]).ok();
    let runs = fleet.dispatch(&["--", "sleep", "600"]);
    fleet.until(&runs, "running");
    fleet.run(&["cancel", "--yes", &runs]).ok();
    assert_eq!(fleet.ended(&runs).0, 130);
    // Restated over garbage; lost because its agent does not know it any more; resolved.
    let script = gate.wait("never");
    let id = fleet.dispatch(&["--shell", "--", &script]);
    fleet.until(&id, "running");
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let subject = format!("fleet.job.{id}.studio");
        let garbage = Bytes::from_static(b"{}");
        let stored = bus.store(&subject, garbage, &Store::default()).await;
        stored.unwrap();
    });
    fleet.event("job.restated", |e| e["job"] == id.as_str());
    let agent = fleet.take("studio");
    let executor = agent.executor();
    agent.process.signal(rustix::process::Signal::STOP);
    kill(executor);
    let home = agent.kill();
    // Whoever still wrote there would keep the folder from going.
    eventually("the executor has ended", || {
        (!crate::fleet::runs(executor)).then_some(())
    });
    std::fs::remove_dir_all(home.fleet().join("agent/jobs")).unwrap();
    // A machine that is back before the hub has seen that it went was never lost.
    fleet.event("machine.lost", |e| e["machine"] == "studio");
    fleet.again(home, "studio", &[]);
    fleet.until(&id, "needs_human");
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let job = bus.job(id.parse().unwrap()).await.unwrap().unwrap();
        let now = fleet_nats::clock::now();
        let resolved = Change::Resolved {
            to: StateWord::Failed,
            by: "ana@studio".to_owned(),
            notes: Some("looked at it".to_owned()),
        };
        let record = job.record(now, &Writer::Operator, resolved).unwrap();
        let appended = bus.append(job.id, &Writer::Operator, now, &record).await;
        appended.unwrap();
    });
    assert_eq!(fleet.job(&id)["state"], "failed");
    fleet.event("machine.load", |_| true);
    let agent = fleet.take("studio");
    assert_eq!(agent.process.stop(), 0);
}

/// One message of each kind, by the name of its fixture.
async fn one_of_each(bus: &Bus) -> BTreeMap<String, Value> {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for name in [
        stream::JOB,
        stream::WORK,
        stream::PIN,
        stream::LANE,
        stream::PRES,
        stream::FLOW,
        stream::LOG,
        stream::LEASE,
    ] {
        let last = bus.usage(name).await.unwrap().last_seq;
        for seq in 1..=last {
            let Some(message) = bus.at(name, seq).await.unwrap() else {
                continue;
            };
            if let Some(head) = message.headers.get("Fleet-Chunk") {
                let head = serde_json::from_str(head.as_str()).unwrap();
                found.insert("chunk".to_owned(), head);
                continue;
            }
            let value: Value = serde_json::from_slice(&message.payload).unwrap();
            let Some(kind) = value["kind"].as_str() else {
                // The garbage.
                continue;
            };
            let kind = match (name, kind) {
                (stream::LEASE, _) => {
                    format!("lease.{}", value["data"]["holder"].as_str().unwrap())
                }
                (stream::FLOW, kind) => format!("event.{kind}"),
                (_, kind) => kind.to_owned(),
            };
            // The first of a job says most.
            found.entry(kind).or_insert(value);
        }
    }
    found
}

#[test]
fn every_kind_of_message_is_one_that_the_fixtures_know() {
    let mut fleet = Fleet::of(&[("studio", 2)]);
    let gate = Gate::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    live(&mut fleet, &gate, &runtime);
    let found = runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        one_of_each(&bus).await
    });
    for kind in [
        "job.queued",
        "job.claimed",
        "job.ended",
        "job.cancel_requested",
        "job.canceled",
        "job.lost",
        "job.expired",
        "job.resolved",
        "job.restated",
        TICKET_KIND,
        "presence",
        "lease.agent",
        "lane",
        "chunk",
        "event.machine.load",
        "event.machine.up",
        "event.machine.lost",
        "event.machine.offline",
        "event.hub.started",
        "event.journal.void",
    ] {
        assert!(found.contains_key(kind), "{kind}: {:?}", found.keys());
    }
    if let Some(dir) = std::env::var_os("FLEET_BLESS_FIXTURES") {
        for (name, value) in &found {
            let mut text = serde_json::to_string_pretty(value).unwrap();
            text.push('\n');
            let path = std::path::Path::new(&dir).join(format!("{name}.json"));
            std::fs::write(path, text).unwrap();
        }
    }
}
