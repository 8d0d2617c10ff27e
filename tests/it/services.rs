//! up, down, hub and agent: started, asked, stopped, and nothing left behind.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Fleet, Home, Ran, Running, eventually, runs, signal_process};
use crate::json::matches_example;

#[test]
fn up_detach_is_ready_when_it_returns_and_down_leaves_nothing() {
    let home = Home::new();
    let up = [
        "--json",
        "up",
        "--detach",
        "--name",
        "studio",
        "--slots",
        "2",
        "--listen",
        "127.0.0.1:0",
    ];
    let ran = home.run(&up);
    let ready: serde_json::Value = serde_json::from_str(ran.ok()).unwrap();
    // Whatever fails below, nothing stays behind.
    let _guard = Down(&home);
    matches_example("up", &ready);
    let status = home.json(&["agent", "status"]);
    matches_example("agent_status", &status);
    assert_eq!(home.run(&["dispatch", "--wait", "--", "true"]).code, 0);

    let again = home.run(&["up", "--detach"]);
    assert_eq!(again.code, 78, "{again:?}");
    assert!(
        again.err.contains("already") && again.err.ends_with("fleet down\n"),
        "{again:?}"
    );

    let server = std::fs::read_to_string(home.fleet().join("hub/nats-server.pid")).unwrap();
    let server: u32 = server.trim().parse().unwrap();
    let pids = [&ready["pid"], &status["executor_pid"]].map(|p| p.as_u64().unwrap() as u32);
    assert!(runs(server) && pids.iter().all(|pid| runs(*pid)));
    let down = home.json(&["down"]);
    assert_eq!(down["result"], "stopped");
    matches_example("down", &down);
    assert!(!runs(server), "the server is gone when down returns");
    // Both are orphans by now: whoever reaps them here may take a moment.
    for pid in pids {
        eventually("up and executor are gone", || (!runs(pid)).then_some(()));
    }
    assert_eq!(home.json(&["down"])["result"], "nothing_ran");
}

struct Down<'a>(&'a Home);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        self.0.run(&["down"]);
    }
}

#[test]
fn a_detached_up_that_cannot_start_says_why_and_ends() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = home.run(&["up", "--detach", "--listen", &address]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.err.contains("is taken by another program"), "{ran:?}");
    assert!(ran.err.contains("--listen"), "{ran:?}");
    assert_eq!(home.json(&["down"])["result"], "nothing_ran");
}

#[test]
fn hub_and_agent_alone_make_a_fleet_and_say_goodbye() {
    let mut fleet = Fleet::hub_alone();
    let nobody = fleet.run(&["dispatch", "--", "true"]);
    assert_eq!(nobody.code, 75, "{nobody:?}");
    assert!(nobody.err.contains("fleet agent run"), "{nobody:?}");

    let file = fleet.home.user().join("x.creds");
    let written = fleet.json(&[
        "hub",
        "credentials",
        "--machine",
        "x",
        "--out",
        file.to_str().unwrap(),
    ]);
    assert_eq!(written["hubs"][0], fleet.url);
    let again = fleet.run(&[
        "hub",
        "credentials",
        "--machine",
        "x",
        "--out",
        file.to_str().unwrap(),
    ]);
    assert_eq!(
        (again.code, again.err.contains("exists already")),
        (64, true),
        "{again:?}"
    );

    fleet.add_agent("mini", &["--slots", "3", "--label", "rack=cellar"]);
    let mut machines = fleet.json(&["machines"]);
    // The machine this test runs on may really be short of something.
    if machines[0]["state"] == "degraded" {
        machines[0]["state"] = "up".into();
        machines[0]["degraded"] = serde_json::json!([]);
    }
    matches_example("machines", &machines);
    assert_eq!(fleet.json(&["status"])[0]["machine"], "mini", "an alias");
    matches_example("hub_status", &fleet.json(&["hub", "status"]));
    assert_eq!(
        fleet
            .run(&["dispatch", "--wait", "--on", "mini", "--", "true"])
            .code,
        0
    );

    let agent = fleet.agents.pop().unwrap();
    assert_eq!(agent.process.stop(), 0);
    assert_eq!(fleet.machine("mini").unwrap()["state"], "offline");
    let queued = fleet.run(&["dispatch", "--", "true"]);
    assert_eq!(queued.code, 0);
    assert!(queued.err.contains("mini is offline"), "{queued:?}");

    // Started again without naming them, it finds the credentials it took in.
    let again = Running::start(agent.home.command(&["--json", "agent", "run", "--tether"]));
    assert_eq!(again.json_line()["machine"], "mini");
    fleet.run(&["wait", queued.out.trim()]).ok();
    assert_eq!(again.stop(), 0);

    let forgotten = fleet.json(&["machines", "forget", "mini", "--yes"]);
    assert_eq!(forgotten["result"], "forgotten");
    assert_eq!(fleet.machine("mini"), None);
    assert_eq!(fleet.hub.stop(), 0);
}

#[test]
fn deep_asks_every_agent_and_a_silent_one_is_shown_as_such_within_a_second() {
    let mut fleet = Fleet::up("studio", 1);
    fleet.add_agent("mini", &[]);
    let frozen = fleet.agents[0].process.pid();
    crate::harness::signal_process(frozen, Signal::STOP);
    let begun = std::time::Instant::now();
    let machines = fleet.json(&["machines", "--deep"]);
    let took = begun.elapsed();
    let text = fleet.run(&["machines", "--deep"]);
    crate::harness::signal_process(frozen, Signal::CONT);
    let probe = |name: &str| {
        let all = machines.as_array().unwrap();
        all.iter().find(|m| m["machine"] == name).unwrap()["probe"].clone()
    };
    assert_eq!(probe("studio"), "answered");
    assert_eq!(probe("mini"), "silent");
    // It is asked for a second: the rest is for a machine under load, not for one that waits on.
    assert!(took.as_secs() < 30, "{took:?}");
    assert!(
        text.ok()
            .lines()
            .any(|l| l.starts_with("mini") && l.contains("specs?")),
        "{text:?}"
    );
}

#[test]
fn an_agent_that_is_killed_is_lost_at_once() {
    let mut fleet = Fleet::up("studio", 1);
    // Three beats that it misses take longer than anything here is waited for.
    fleet.add_agent_that_beats("mini", "60s");
    let agent = fleet.agents.pop().unwrap();
    agent.process.kill();
    eventually("it is lost", || {
        let machine = fleet.machine(&agent.name).unwrap();
        (machine["state"] == "lost").then_some(())
    });
}

#[test]
fn a_demonstration_has_four_machines_and_work_for_them() {
    let fleet = Fleet::demo();
    eventually("four machines are there", || {
        let machines = fleet.json(&["machines"]);
        (machines.as_array().unwrap().len() == 4).then_some(())
    });
    eventually("one of them has ended a job", || {
        let jobs = fleet.json(&["jobs", "--state", "succeeded"]);
        let jobs = jobs.as_array().unwrap();
        jobs.iter()
            .any(|j| j["tags"]["from"] == "demo")
            .then_some(())
    });
    let home = fleet.home.fleet().join("demo");
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 3);
    assert_eq!(fleet.hub.stop(), 0);
}

#[test]
fn a_command_waits_for_a_server_that_is_being_started_again() {
    let fleet = Fleet::up("studio", 1);
    let pid = fleet.home.fleet().join("hub/nats-server.pid");
    let before = std::fs::read_to_string(&pid).unwrap();
    signal_process(before.trim().parse().unwrap(), Signal::KILL);
    let jobs = fleet.run(&["jobs"]);
    // On a machine under load the server may need longer; then it says that it is on its way.
    assert!(
        jobs.code == 0 || jobs.err.contains("its server is being started"),
        "{jobs:?}"
    );
    assert!(!jobs.err.contains("fleet up"), "{jobs:?}");
    let reason = eventually("the restart is told", || {
        let (_, events) = fleet
            .home
            .json_lines(&["flow", "--kind", "hub.server_restarted"]);
        let event = events.last()?;
        Some(event["data"]["detail"]["reason"].as_str()?.to_owned())
    });
    assert!(!reason.contains("[INF]"), "{reason}");
}

#[test]
fn a_server_that_ends_while_a_command_connects_is_waited_for() {
    let fleet = Fleet::hub_alone();
    let home = &fleet.home;
    let record = std::fs::read(home.fleet().join("hub/hub.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    // The server is gone, and in its place is one that ends whenever somebody has come.
    fleet.hub.signal(Signal::STOP);
    let server = fleet.server();
    signal_process(server, Signal::KILL);
    let listener = eventually("its port is free", || {
        std::net::TcpListener::bind(record["listen"].as_str().unwrap()).ok()
    });
    let mut command = home.command(&["jobs"]);
    let jobs = std::thread::spawn(move || Ran::of(&mut command));
    listener.set_nonblocking(true).unwrap();
    let mut came = 0;
    eventually("the command has come again, or has given up", || {
        came += usize::from(listener.accept().is_ok());
        (came == 3 || jobs.is_finished()).then_some(())
    });
    drop(listener);
    fleet.hub.signal(Signal::CONT);
    let jobs = jobs.join().unwrap();
    assert!(
        jobs.code == 0 || jobs.err.contains("its server is being started"),
        "{jobs:?}"
    );
}

#[test]
fn an_agent_says_that_it_waits_for_the_hub_and_status_knows() {
    let fleet = Fleet::hub_alone();
    let home = Home::new();
    let file = home.user().join("mini.creds");
    let file = file.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", "mini", "--out", file])
        .ok();
    let agent = Running::start(home.command(&[
        "--json",
        "--hub",
        "nats://127.0.0.1:1",
        "agent",
        "run",
        "--tether",
        "--credentials",
        file,
    ]));
    assert_eq!(agent.json_line()["event"], "started");
    let waiting = agent.json_line();
    assert_eq!(waiting["event"], "waiting");
    assert_eq!(waiting["hubs"][0], "nats://127.0.0.1:1");
    let status = home.json(&["agent", "status"]);
    assert_eq!(status["connected"], false);

    // Another one in the same home is refused before it leaves anything there.
    let other = home.user().join("other.creds");
    let other = other.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", "other", "--out", other])
        .ok();
    let second = home.run(&["agent", "run", "--credentials", other]);
    assert_eq!(second.code, 78, "{second:?}");
    assert!(second.err.contains("already runs"), "{second:?}");
    assert_eq!(second.out, "");
    assert!(!home.fleet().join("credentials/other.creds").exists());
    agent.kill();
}

#[test]
fn credentials_of_a_hub_on_every_address_name_its_addresses() {
    let mut fleet = Fleet::hub_alone();
    // A hub that runs writes its record, too.
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0);
    let home = &fleet.home;
    // Tests listen on loopback only: the record says what a hub on every address would say.
    let record = home.fleet().join("hub/hub.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let listen = said["listen"].as_str().unwrap();
    said["listen"] = listen.replace("127.0.0.1", "0.0.0.0").into();
    std::fs::write(&record, said.to_string()).unwrap();
    let file = home.user().join("mini.creds");
    let written = home.json(&[
        "hub",
        "credentials",
        "--machine",
        "mini",
        "--out",
        file.to_str().unwrap(),
    ]);
    let hubs: Vec<&str> = written["hubs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|hub| hub.as_str())
        .collect();
    let port = hubs[0].rsplit(':').next().unwrap();
    assert!(
        hubs.len() <= 16 && hubs.iter().all(|hub| hub.ends_with(port)),
        "{hubs:?}"
    );
    assert!(
        hubs.iter().all(|hub| !hub.contains("127.0.0.1")),
        "{hubs:?}"
    );
}
