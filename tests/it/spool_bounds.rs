//! What a machine keeps of its jobs' output while the hub is away: so much of all jobs together, the
//! oldest goes first and is told to the byte, results and events are never among it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fleet::{Gate, HubEnd};
use crate::harness::{Fleet, Home, eventually};

/// Jobs of one machine, and lines of 64 bytes that each writes.
const JOBS: usize = 5;
const LINES: u64 = 16_384;
/// What its configuration says.
const KEEP: u64 = 2 << 20;

fn status(home: &Home) -> Value {
    home.json(&["agent", "status"])
}

/// The line of a job: 64 bytes.
fn line(job: usize, number: u64) -> String {
    format!("job {job} line {number:052}\n")
}

/// A job's output as `fleet logs` has it: lines of standard output, and what it says of the rest.
struct Log {
    bytes: String,
    missing_chunks: u64,
    missing_bytes: u64,
    to_come: u64,
}

fn log(fleet: &Fleet, id: &str) -> Log {
    let (code, lines) = fleet.home.json_lines(&["logs", id]);
    assert_eq!(code, 0);
    let said = lines.iter().find(|l| l.get("chunks_to_come").is_some());
    let number = |name: &str| said.map_or(0, |l| l[name].as_u64().unwrap());
    let texts = lines.iter().filter_map(|l| l["text"].as_str());
    Log {
        bytes: texts.collect(),
        missing_chunks: number("missing_chunks"),
        missing_bytes: number("missing_bytes"),
        to_come: number("chunks_to_come"),
    }
}

/// Has the jobs write one after the other while the hub is away; what the agent says then.
fn write_in_turn(home: &Home, gate: &Gate, jobs: usize) -> Value {
    let mut written = 0;
    for job in 0..jobs {
        gate.open(&format!("go-{job}"));
        gate.until_lines(&format!("done-{job}"), 1);
        // All of it is in the executor's hands before the next one begins.
        written += LINES * 64;
        eventually("it is kept or dropped", || {
            let spool = status(home)["spool"].clone();
            let results = spool["results"].as_u64().unwrap();
            (results > job as u64).then_some(())
        });
    }
    eventually("what was dropped is said", || {
        let status = status(home);
        let spool = &status["spool"];
        let kept = spool["kept_bytes"].as_u64().unwrap();
        let dropped = spool["dropped_log_bytes"].as_u64().unwrap();
        // Heads of chunks are on the disk, too.
        let known = dropped > 0 && kept + dropped >= written && kept <= KEEP;
        known.then_some(status)
    })
}

fn script(gate: &Gate) -> String {
    let write = format!("seq -f \"job $FLEET_INDEX line %052.0f\" 1 {LINES}");
    let done = gate.file("done").display().to_string();
    let wait = gate.wait("go-$FLEET_INDEX");
    format!(
        "echo $FLEET_INDEX >> {0}; {wait}; {write}; echo x > {done}-$FLEET_INDEX; exit $FLEET_INDEX",
        gate.file("ran").display()
    )
}

fn configure(home: &Home, text: &str) {
    std::fs::create_dir_all(home.fleet()).unwrap();
    std::fs::write(home.fleet().join("config.toml"), text).unwrap();
}

#[test]
fn output_over_the_bound_of_a_machine_goes_oldest_first_and_is_told_to_the_byte() {
    let mut fleet = Fleet::hub_alone();
    let home = Home::new();
    configure(&home, "spool_keep = \"2 MiB\"\n");
    let agent = fleet.agent(home, "studio", &["--slots", "5"]);
    let gate = Gate::new();
    let ids = fleet.dispatch(&["--count", "5", "--shell", "--", &script(&gate)]);
    let ids: Vec<&str> = ids.lines().collect();
    gate.until_lines("ran", JOBS);
    fleet.until_count(JOBS, "running");
    let mut seen = Value::Null;
    fleet.without_hub(HubEnd::Killed, |_| {
        seen = write_in_turn(&agent.home, &gate, JOBS);
        let text = agent.home.run(&["agent", "status"]);
        let text = text.ok();
        assert!(text.contains("of 2.0 MiB"), "{text}");
        assert!(text.contains("lost since its start: "), "{text}");
    });
    assert_eq!(seen["spool"]["results"], 5, "{seen}");
    // Every result is there, whatever became of the output.
    let mut missing = 0;
    let mut left = BTreeMap::new();
    for (index, id) in ids.iter().enumerate() {
        let (code, job) = fleet.ended(id);
        assert_eq!(
            (usize::from(code), &job["exit_code"]),
            (index, &index.into())
        );
        let log = eventually("nothing is still to come", || {
            Some(log(&fleet, id)).filter(|log| log.to_come == 0)
        });
        let whole: String = (1..=LINES).map(|n| line(index, n)).collect();
        assert_eq!(
            log.bytes.len() as u64 + log.missing_bytes,
            LINES * 64,
            "{id}"
        );
        assert!(whole.ends_with(&log.bytes), "the oldest of {id} went");
        assert_eq!(log.missing_chunks > 0, log.missing_bytes > 0);
        missing += log.missing_bytes;
        left.insert(index, log.bytes.len());
    }
    assert_eq!((left[&0], left[&1]), (0, 0), "{left:?}");
    assert_eq!(left[&(JOBS - 1)] as u64, LINES * 64, "{left:?}");
    let said = status(&agent.home);
    assert_eq!(said["spool"]["dropped_log_bytes"], missing, "{said}");
    let text = fleet.run(&["logs", ids[0]]);
    let gone = format!("{} bytes missing", LINES * 64);
    assert!(text.err.contains(&gone), "{text:?}");
    // The hub and whoever looks at it know, too.
    let machine = eventually("the machine says so", || {
        fleet
            .machine("studio")
            .filter(|m| m["dropped_log_bytes"] == missing)
    });
    let causes = machine["degraded"].as_array().unwrap();
    assert!(
        causes.iter().any(|c| c["cause"] == "dropped_log"),
        "{machine}"
    );
    eventually("nothing waits any more", || {
        let status = status(&agent.home);
        (status["spooled"] == 0 && status["spool"]["kept_bytes"] == 0).then_some(())
    });
    assert_eq!(agent.process.stop(), 0);
}

#[test]
fn what_waits_is_said_with_its_size_and_age_here_and_at_the_hub() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    let words = format!("{}; seq 1 5000; {}", gate.wait("go"), gate.wait("end"));
    fleet.dispatch(&["--shell", "--", &words]);
    fleet.until_count(1, "running");
    let agent = fleet.take("studio");
    let total: u64 = (1..=5000_u64).map(|n| n.to_string().len() as u64 + 1).sum();
    fleet.without_hub(HubEnd::Killed, |_| {
        gate.open("go");
        let seen = eventually("its output waits", || {
            let status = status(&agent.home);
            let spool = &status["spool"];
            let waits = spool["chunk_bytes"] == total && spool["oldest_chunk"].is_string();
            waits.then_some(status)
        });
        assert!(seen["spool"]["chunks"].as_u64().unwrap() > 0, "{seen}");
        assert!(
            seen["spool"]["kept_bytes"].as_u64().unwrap() >= total,
            "{seen}"
        );
        assert_eq!(seen["spool"]["dropped_log_bytes"], 0, "{seen}");
        // A hub that comes back hears of it with the first beat, if it is not all there by then:
        // nothing can be asserted of that here but that the fields are.
    });
    let machine = eventually("it is known", || fleet.machine("studio"));
    for name in [
        "spooled",
        "spooled_bytes",
        "spooled_since",
        "dropped_log_bytes",
    ] {
        assert!(machine.get(name).is_some(), "{name}: {machine}");
    }
    gate.open("end");
    eventually("nothing waits any more", || {
        (status(&agent.home)["spooled"] == 0).then_some(())
    });
    assert_eq!(agent.process.stop(), 0);
}
