//! Several agents: who takes what, who is refused, who is seen how.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::fleet::{Gate, machines};
use crate::harness::{Fleet, Home, Running, eventually, signal_process};

#[test]
fn jobs_for_any_spread_and_pins_are_strict() {
    let mut fleet = Fleet::of(&[("ada", 1), ("bob", 1), ("cy", 1)]);
    let gate = Gate::new();
    let held = gate.wait("go-$FLEET_MACHINE");
    fleet.dispatch(&["--count", "3", "--shell", "--", &held]);
    let jobs = fleet.until_count(3, "running");
    assert_eq!(machines(&jobs), ["ada", "bob", "cy"], "one for each slot");

    // Bob is busy: what is pinned to him waits, whoever else is free.
    let pinned = fleet.dispatch(&["--on", "bob", "--", "true"]);
    gate.open("go-ada");
    gate.open("go-cy");
    for _ in 0..6 {
        let (code, answers) = fleet.home.json_lines(&["dispatch", "--wait", "--", "true"]);
        assert_eq!(code, 0, "{answers:?}");
        assert_ne!(answers[1]["machine"], "bob", "{answers:?}");
    }
    assert_eq!(fleet.job(&pinned)["state"], "queued");
    gate.open("go-bob");
    let (code, job) = fleet.ended(&pinned);
    assert_eq!((code, &job["machine"]), (0, &"bob".into()));

    // Bob is away: the pin waits for him, and nobody else takes it.
    let bob = fleet.take("bob");
    assert_eq!(bob.process.stop(), 0);
    assert_eq!(fleet.machine("bob").unwrap()["state"], "offline");
    let queued = fleet.run(&["dispatch", "--on", "bob", "--", "true"]);
    assert!(queued.err.contains("bob is offline"), "{queued:?}");
    let pinned = queued.ok();
    for _ in 0..4 {
        fleet.run(&["dispatch", "--wait", "--", "true"]).ok();
    }
    assert_eq!(fleet.job(pinned)["state"], "queued");
    fleet.again(bob.home, "bob", &[]);
    let (code, job) = fleet.ended(pinned);
    assert_eq!((code, &job["machine"]), (0, &"bob".into()));
}

#[test]
fn a_second_live_agent_of_a_name_is_refused_and_the_first_goes_on() {
    let mut fleet = Fleet::of(&[("twin", 1)]);
    let second = Home::new();
    let file = fleet.agents[0].home.user().join("twin.creds");
    let words = [
        "agent",
        "run",
        "--tether",
        "--credentials",
        file.to_str().unwrap(),
    ];
    let mut refused = Running::start(second.command(&words));
    assert_eq!(refused.ended(), 78, "{}", refused.errors());
    let host = fleet.machine("twin").unwrap()["host"].clone();
    let host = host.as_str().unwrap();
    let error = refused.errors();
    let both = format!("another agent is running as twin on {host} (this host is {host})");
    assert!(error.contains(&both), "{error}");
    assert!(error.contains("--name"), "{error}");

    // In the same home it is the same instance, which its lock tells apart.
    let again = fleet.agents[0].home.run(&["agent", "run"]);
    assert_eq!(again.code, 78, "{again:?}");
    assert!(again.err.contains("already runs in"), "{again:?}");

    assert_eq!(
        fleet.run(&["dispatch", "--wait", "--", "true"]).code,
        0,
        "the first one goes on"
    );
    // Once the first has said goodbye, another home may have the name at once.
    assert_eq!(fleet.take("twin").process.stop(), 0);
    let moved = fleet.again(second, "twin", &[]);
    assert_eq!(moved.name, "twin");
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}

#[test]
fn an_agent_without_credentials_or_with_anothers_is_refused_with_what_to_do() {
    let fleet = Fleet::hub_alone();
    let home = Home::new();
    let ran = home.run(&["--hub", &fleet.url, "agent", "run", "--name", "eve"]);
    assert_eq!(ran.code, 77, "{ran:?}");
    for part in [
        "no credentials",
        "fleet hub credentials --machine eve --out FILE",
        "fleet agent run --credentials FILE",
    ] {
        assert!(ran.err.contains(part), "{ran:?}");
    }
    let file = home.user().join("ada.creds");
    let file = file.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", "ada", "--out", file])
        .ok();
    let words = ["agent", "run", "--name", "eve", "--credentials", file];
    let ran = home.run(&words);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.err.contains("not for machine eve"), "{ran:?}");
    // Another hub does not know who this is.
    let other = Fleet::hub_alone();
    let words = ["--hub", &other.url, "agent", "run", "--credentials", file];
    let ran = home.run(&words);
    assert_eq!(ran.code, 77, "{ran:?}");
    assert!(
        ran.err.contains("refuses these credentials (ada)"),
        "{ran:?}"
    );
    assert!(ran.err.contains("fleet hub credentials"), "{ran:?}");
}

#[test]
fn an_agent_that_was_there_before_its_hub_waits_for_it() {
    let mut fleet = Fleet::hub_alone();
    let home = Home::new();
    let file = home.user().join("early.creds");
    let file = file.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", "early", "--out", file])
        .ok();
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0);

    let words = ["--json", "agent", "run", "--tether", "--credentials", file];
    let mut agent = Running::start(home.command(&words));
    assert_eq!(agent.json_line()["machine"], "early");
    let status = eventually("it says that it waits", || {
        let ran = home.run(&["--json", "agent", "status"]);
        let status: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
        status["last_error"].is_string().then_some(status)
    });
    assert_eq!(status["connected"], false, "{status}");

    fleet.start_hub();
    eventually("it is up", || {
        fleet.machine("early").filter(|m| m["state"] != "offline")
    });
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.ended(), 0);
}

#[test]
fn a_killed_agent_is_lost_within_a_second_and_the_others_work_on() {
    let mut fleet = Fleet::of(&[("ada", 1), ("cy", 1)]);
    // What it misses is no sign of its end for as long as anything here is waited for.
    fleet.add_agent_that_beats("bob", "60s");
    let killed = fleet.take("bob").kill();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let lost = fleet.event("machine.lost", |e| e["machine"] == "bob");
    let told: fleet_contract::time::Time = serde_json::from_value(lost["time"].clone()).unwrap();
    let took = told.as_micros() - i64::try_from(at.as_micros()).unwrap();
    // A second, where there is nothing else to do; a machine under load may take some more.
    assert!(took < 30_000_000, "{took} µs after its death: {lost}");
    assert_eq!(fleet.machine("bob").unwrap()["state"], "lost");
    let others = fleet.json(&["machines"]);
    let lost = others.as_array().unwrap().iter();
    assert_eq!(lost.filter(|m| m["state"] == "lost").count(), 1);

    let jobs = fleet.dispatch(&["--count", "6", "--wait", "--", "true"]);
    assert_eq!(jobs.matches("succeeded").count(), 6, "{jobs}");
    let jobs = fleet.json(&["jobs"]);
    let jobs = jobs.as_array().unwrap();
    assert!(jobs.iter().all(|j| j["machine"] != "bob"), "{jobs:?}");

    // Forgotten, it is unknown; started again, it is there again.
    fleet.json(&["machines", "forget", "bob", "--yes"]);
    assert_eq!(fleet.machine("bob"), None);
    let unknown = fleet.run(&["dispatch", "--on", "bob", "--", "true"]);
    assert_eq!(unknown.code, 75, "{unknown:?}");
    fleet.again(killed, "bob", &[]);
    let ran = fleet.run(&["dispatch", "--wait", "--on", "bob", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Whoever says that it speaks another protocol is refused, which the executor remarks.
#[cfg(target_os = "linux")]
fn annoy_executor(home: &Home) {
    use std::io::{Read, Write};
    let socket = home.fleet().join("agent/executor.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let hello = br#"{"hello":{"version":4711,"base_env":null}}"#;
    let length = u32::try_from(hello.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).unwrap();
    stream.write_all(hello).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("refused"), "{answer}");
}

/// The file that an executor's remarks go to lies on the disk that may be full.
#[cfg(target_os = "linux")]
#[test]
fn a_remark_that_finds_no_room_ends_no_executor_and_no_job() {
    let fleet = Fleet::hub_alone();
    let home = Home::new();
    let folder = home.fleet().join("agent");
    std::fs::create_dir_all(&folder).unwrap();
    // Nothing can be written to it, for want of space.
    std::os::unix::fs::symlink("/dev/full", folder.join("executor.log")).unwrap();
    let agent = fleet.agent(home, "studio", &[]);
    let gate = Gate::new();
    let script = format!("{}; exit 3", gate.wait("go"));
    let id = fleet.dispatch(&["--shell", "--", &script]);
    fleet.until(&id, "running");
    let executor = agent.executor();
    annoy_executor(&agent.home);
    gate.open("go");
    let (code, job) = fleet.ended(&id);
    assert_eq!(code, 3, "{job}");
    assert_eq!(agent.executor(), executor, "it is the same one");
}

#[test]
fn an_executor_that_is_stopped_is_seen_and_its_jobs_go_on_when_it_does() {
    let fleet = Fleet::of(&[("studio", 1)]);
    let agent = &fleet.agents[0];
    let executor = agent.executor();
    let degraded = || {
        let machine = fleet.machine("studio").unwrap();
        let causes = machine["degraded"].as_array().unwrap().clone();
        causes.iter().any(|c| c["cause"] == "executor")
    };
    assert!(!degraded());
    signal_process(executor, Signal::STOP);
    let id = fleet.dispatch(&["--", "true"]);
    eventually("it does not answer", || degraded().then_some(()));
    signal_process(executor, Signal::CONT);
    assert_eq!(fleet.ended(&id).0, 0);
    eventually("it answers again", || (!degraded()).then_some(()));
    assert_eq!(agent.executor(), executor);
}
