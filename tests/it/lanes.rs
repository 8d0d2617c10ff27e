//! Lanes under contention: one slot for many of them, and many machines that come and go.

use std::time::Duration;

use fleet_nats::bus::Bus;
use serde_json::Value;

use crate::fleet::Gate;
use crate::harness::{Agent, Fleet, eventually, eventually_within};

/// What hundreds of jobs may take on a loaded machine.
const LONG: Duration = Duration::from_secs(600);

/// Tickets that were handed out and not answered, in all lanes.
async fn handed_out(bus: &Bus) -> u64 {
    let mut count = 0;
    for known in bus.lanes().await.unwrap() {
        for letter in ["h", "n", "l"] {
            let verb = format!("CONSUMER.INFO.WORK.{}-{letter}", known.lane);
            let info: Value = bus.api(&verb, bytes::Bytes::new()).await.unwrap();
            count += info["num_ack_pending"].as_u64().unwrap();
        }
    }
    count
}

/// Dispatches so many jobs into the lane of this number.
fn send(fleet: &Fleet, lane: usize, count: usize, line: &str) {
    let (needs, count) = (format!("mem>={}MiB", lane + 1), count.to_string());
    let words = [
        "dispatch",
        "--needs",
        &needs,
        "--count",
        &count,
        "--on-lost",
        "retry",
        "--shell",
        "--",
        line,
    ];
    fleet.run(&words).ok();
}

/// Six lanes, one slot: of 600 jobs each lane has its share, and a busy machine holds no ticket that
/// another could run.
#[test]
fn lanes_take_turns() {
    const LANES: usize = 6;
    const EACH: usize = 120;
    const SEEN: usize = 600;
    let fleet = Fleet::up("studio", 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_link, bus) = runtime.block_on(fleet.bus());
    let gate = Gate::new();
    let busy = fleet.dispatch(&["--shell", "--", &gate.wait("go")]);
    fleet.until(&busy, "running");
    let out = gate.file("ran");
    for lane in 0..LANES {
        send(
            &fleet,
            lane,
            EACH,
            &format!("echo {lane} >> {}", out.display()),
        );
    }
    eventually("no ticket is held", || {
        (runtime.block_on(handed_out(&bus)) == 0).then_some(())
    });
    gate.open("go");
    let ran = eventually_within(LONG, "600 jobs ran", || {
        Some(gate.lines("ran")).filter(|lines| lines.len() >= SEEN)
    });
    let mut turns = [0; LANES];
    for line in &ran[..SEEN] {
        turns[line.parse::<usize>().unwrap()] += 1;
    }
    assert!(turns.iter().all(|n| (90..=110).contains(n)), "{turns:?}");
}

#[test]
fn two_hundred_jobs_over_twenty_lanes_all_run_while_machines_join_leave_and_die() {
    const LANES: usize = 20;
    const EACH: usize = 10;
    let mut fleet = Fleet::hub_alone();
    let slots = ["--slots", "2"];
    for name in ["ada", "bob", "cy"] {
        fleet.add_agent(name, &slots);
    }
    let gate = Gate::new();
    let line = format!("echo $FLEET_JOB >> {}", gate.file("ran").display());
    let mut dead = None;
    for lane in 0..LANES {
        send(&fleet, lane, EACH, &line);
        match lane {
            4 => {
                fleet.add_agent("dee", &slots);
            }
            8 => {
                let Agent { process, home, .. } = fleet.take("ada");
                process.kill();
                dead = Some(home);
            }
            12 => assert_eq!(fleet.take("bob").process.stop(), 0),
            16 => {
                fleet.again(dead.take().unwrap(), "ada", &slots);
            }
            _ => {}
        }
    }
    let ended = eventually_within(LONG, "all have ended", || {
        let jobs = fleet.json(&["jobs", "--limit", "1000"]);
        let jobs = jobs.as_array().unwrap().clone();
        let ended = jobs.iter().all(|job| job["state"] == "succeeded");
        (ended && jobs.len() == LANES * EACH).then_some(jobs)
    });
    // A machine that dies between its claim and the start leaves a job that nobody has run; one that
    // is away for too long, jobs that somebody else runs again. No job runs more often than it has
    // attempts.
    let ran = gate.lines("ran");
    for job in &ended {
        let id = job["id"].as_str().unwrap();
        let times = ran.iter().filter(|line| *line == id).count();
        let attempts = job["attempts"].as_array().unwrap().len();
        assert!((1..=attempts).contains(&times), "{times} times: {job}");
    }
}
