//! What a machine keeps while its hub is away: every event arrives once, in order, whoever dies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleet_nats::bus::Stored;
use fleet_nats::tail::{From, read_all};
use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::{Gate, HubEnd, kill};
use crate::harness::{Fleet, Home, Running, eventually};

/// The place of every event that the hub has of a machine, in the order in which it has them.
fn places(fleet: &Fleet, machine: &str) -> Vec<(String, u64, String)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stored = runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let filters = [format!("fleet.flow.{machine}.>")];
        read_all(&bus, "FLOW", &filters, From::First).await.unwrap()
    });
    let place = |message: &Stored| {
        let event = fleet_nats::flow::event(message).unwrap();
        let boot = event.data["boot"].as_str().unwrap().to_owned();
        (boot, event.data["seq"].as_u64().unwrap(), event.kind)
    };
    stored.iter().map(place).collect()
}

/// Each run's events are all there, once, in order, and no run is mixed with another.
fn check(places: &[(String, u64, String)]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for (boot, seq, _) in places {
        if order.last() != Some(&boot.as_str()) {
            order.push(boot);
        }
        let before = last.insert(boot, *seq).unwrap_or(0);
        assert_eq!(*seq, before + 1, "of {boot}: {places:?}");
    }
    assert_eq!(order.len(), last.len(), "runs are mixed: {places:?}");
}

fn status(home: &Home) -> Value {
    home.json(&["agent", "status"])
}

/// Waits until the agent in this home has this many events to deliver, or more.
fn until_spooled(home: &Home, events: u64) -> Value {
    eventually(&format!("{events} events wait"), || {
        let status = status(home);
        (status["spool"]["events"].as_u64().unwrap() >= events).then_some(status)
    })
}

/// Has a running agent tell an event, without any hub: its executor is killed and started again.
fn lose_executor(home: &Home) {
    let before = eventually("an executor", || status(home)["executor_pid"].as_u64());
    kill(u32::try_from(before).unwrap());
    eventually("another executor", || {
        let now = status(home)["executor_pid"].as_u64()?;
        (now != before).then_some(())
    });
}

fn start(home: &Home, name: &str) -> Running {
    let process = Running::start(home.command(&["--json", "agent", "run", "--tether"]));
    assert_eq!(process.json_line()["machine"], name);
    eventually("the agent says how it is", || {
        let ran = home.run(&["--json", "agent", "status"]);
        let status: Value = serde_json::from_str(&ran.out).ok()?;
        (status["pid"] == process.pid()).then_some(())
    });
    process
}

/// The names of the journal's readers.
fn readers(fleet: &Fleet) -> BTreeSet<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let names: Value = bus.api("CONSUMER.NAMES.JOB", Bytes::new()).await.unwrap();
        let names = names["consumers"].as_array().unwrap().iter();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    })
}

#[test]
fn events_of_an_outage_arrive_once_and_in_order_though_the_agent_is_killed_in_it() {
    let mut fleet = Fleet::of(&[("studio", 2)]);
    let agent = fleet.take("studio");
    let mut home = Some(agent.home);
    let mut process = Some(agent.process);
    fleet.without_hub(HubEnd::Killed, |_| {
        let here = home.as_ref().unwrap();
        until_spooled(here, 1);
        eventually("it is cut off", || {
            (status(here)["connected"] == false).then_some(())
        });
        for _ in 0..3 {
            let before = status(here)["spool"]["events"].as_u64().unwrap();
            lose_executor(here);
            until_spooled(here, before + 1);
        }
        let before = status(here)["spool"]["events"].as_u64().unwrap();
        process.take().unwrap().kill();
        let again = start(here, "studio");
        // What the dead one told waits on, and more comes.
        until_spooled(here, before);
        lose_executor(here);
        let seen = until_spooled(here, before + 1);
        assert!(seen["spool"]["bytes"].as_u64().unwrap() > 100, "{seen}");
        assert!(seen["spool"]["oldest"].is_string(), "{seen}");
        assert_eq!(seen["spool"]["dropped_events"], 0);
        let text = here.run(&["agent", "status"]);
        assert!(text.ok().contains("spool: "), "{text:?}");
        process = Some(again);
    });
    let replayed = fleet.event("spool.replayed", |e| e["machine"] == "studio");
    let detail = &replayed["data"]["detail"];
    assert!(detail["events"].as_u64().unwrap() >= 5, "{replayed}");
    assert!(detail["oldest_age_ms"].as_u64().unwrap() > 0, "{replayed}");
    let told = places(&fleet, "studio");
    check(&told);
    let count = |kind: &str| told.iter().filter(|(_, _, k)| k == kind).count();
    assert_eq!(
        (count("link.lost"), count("executor.started")),
        (1, 4),
        "{told:?}"
    );
    let home = home.take().unwrap();
    eventually("nothing waits any more", || {
        (status(&home)["spool"]["events"] == 0).then_some(())
    });
    assert_eq!(process.take().unwrap().stop(), 0);
    // The goodbye is in its place, too.
    let told = places(&fleet, "studio");
    check(&told);
    assert_eq!(told.last().unwrap().2, "machine.offline");
}

#[test]
fn a_hub_that_goes_and_comes_gets_each_event_once_however_often() {
    let mut fleet = Fleet::of(&[("ada", 1), ("bob", 1)]);
    for how in [HubEnd::Killed, HubEnd::Stopped, HubEnd::Killed] {
        fleet.without_hub(how, |fleet| {
            for agent in &fleet.agents {
                until_spooled(&agent.home, 1);
                lose_executor(&agent.home);
            }
        });
        for agent in &fleet.agents {
            eventually("all is delivered", || {
                let status = status(&agent.home);
                (status["connected"] == true && status["spool"]["events"] == 0).then_some(())
            });
        }
    }
    for name in ["ada", "bob"] {
        let told = places(&fleet, name);
        check(&told);
        let lost = told.iter().filter(|(_, _, kind)| kind == "link.lost");
        assert_eq!(lost.count(), 3, "{told:?}");
    }
}

#[test]
fn jobs_that_end_while_the_hub_is_away_are_told_with_all_they_wrote() {
    let mut fleet = Fleet::of(&[("studio", 8)]);
    let gate = Gate::new();
    let script = format!(
        "echo $FLEET_INDEX >> {}; {}; seq $FLEET_INDEX 20000; exit $FLEET_INDEX",
        gate.file("ran").display(),
        gate.wait("go")
    );
    let words = ["--count", "8", "--shell", "--", &script];
    let ids = fleet.dispatch(&words);
    gate.until_lines("ran", 8);
    fleet.until_count(8, "running");
    // A waiter that was there before the outage goes on after it.
    let all: Vec<&str> = ids.lines().collect();
    let before = readers(&fleet);
    let mut waiter = Running::start(fleet.home.command(&[&["wait"], &all[..]].concat()));
    // Those of commands that have ended may still be there, and go meanwhile.
    eventually("it waits", || {
        (!readers(&fleet).is_subset(&before)).then_some(())
    });
    fleet.without_hub(HubEnd::Killed, |fleet| {
        gate.open("go");
        let home = &fleet.agents[0].home;
        let seen = eventually("8 results wait", || {
            let status = status(home);
            let spool = &status["spool"];
            let all = spool["results"] == 8 && spool["chunks"].as_u64().unwrap() >= 8;
            all.then_some(status)
        });
        let total = seen["spooled"].as_u64().unwrap();
        let part = |name: &str| seen["spool"][name].as_u64().unwrap();
        assert_eq!(total, part("events") + part("chunks") + part("results"));
    });
    assert_eq!(waiter.ended(), 1, "the second of them: {}", waiter.errors());
    for (index, id) in all.iter().enumerate() {
        let job = fleet.job(id);
        assert_eq!(job["exit_code"], index, "{job}");
        let lines: Vec<String> = (index..=20_000).map(|n| n.to_string()).collect();
        eventually("the whole log", || {
            (fleet.run(&["logs", id]).ok() == lines.join("\n")).then_some(())
        });
    }
    assert_eq!(gate.lines("ran").len(), 8, "each ran once");
    eventually("nothing waits any more", || {
        (status(&fleet.agents[0].home)["spooled"] == 0).then_some(())
    });
    let replayed = fleet.event("spool.replayed", |_| true);
    assert_eq!(replayed["data"]["detail"]["results"], 8, "{replayed}");
}

#[test]
fn a_machine_that_was_frozen_in_the_middle_of_delivering_makes_no_double() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let agent = fleet.take("studio");
    fleet.without_hub(HubEnd::Killed, |_| {
        until_spooled(&agent.home, 1);
        for _ in 0..3 {
            lose_executor(&agent.home);
        }
    });
    for _ in 0..5 {
        agent.process.signal(Signal::STOP);
        agent.process.signal(Signal::CONT);
    }
    let home = agent.kill();
    let again = start(&home, "studio");
    eventually("all is delivered", || {
        let status = status(&home);
        (status["connected"] == true && status["spool"]["events"] == 0).then_some(())
    });
    check(&places(&fleet, "studio"));
    assert_eq!(again.stop(), 0);
    check(&places(&fleet, "studio"));
}
