//! Jobs that are moved to another machine, and jobs that are tried again by themselves.

use serde_json::Value;

use crate::fleet::{Gate, runs};
use crate::harness::{Fleet, Ran};

fn says(ran: &Ran, code: u8, words: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.err.contains(words), "{words}: {ran:?}");
}

/// A line for a shell that says where and as which process it runs, and waits on ada for its gate.
fn held_on_ada(gate: &Gate) -> String {
    format!(
        "echo \"$FLEET_MACHINE $$\" >> {}; test $FLEET_MACHINE != ada || {{ {}; }}",
        gate.file("ran").display(),
        gate.wait("go")
    )
}

fn machines(job: &Value) -> Vec<&str> {
    let attempts = job["attempts"].as_array().unwrap().iter();
    attempts.map(|a| a["machine"].as_str().unwrap()).collect()
}

#[test]
fn what_waits_and_what_runs_is_moved_to_another_machine() {
    let mut fleet = Fleet::of(&[("ada", 1), ("bob", 1)]);
    let gate = Gate::new();
    let script = held_on_ada(&gate);
    let first = fleet.dispatch(&["--on", "ada", "--shell", "--", &script]);
    let pid = gate.until_lines("ran", 1)[0]
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let waits = fleet.dispatch(&["--on", "ada", "--shell", "--", &script]);
    // Where it is already, it is not moved to; nor to where nobody is.
    let to = |id: &str, machine: &str| fleet.run(&["move", id, "--on", machine]);
    says(
        &to(&waits, "ada"),
        75,
        "waits for ada already: nothing was changed",
    );
    says(
        &to(&first, "ada"),
        75,
        "runs on ada already: nothing was changed",
    );
    says(
        &to(&waits, "bbo"),
        75,
        "no machine \"bbo\": there are ada, bob; fleet machines",
    );
    says(&to(&waits, "No Name"), 64, "--on: ");
    says(
        &to(&first, "bob"),
        64,
        "run it anew on bob? there is no terminal to ask on",
    );
    assert!(runs(pid), "nothing was done");

    assert_eq!(
        to(&waits[..6], "bob").ok(),
        format!("{waits} queued for bob as attempt 1")
    );
    assert_eq!(fleet.ended(&waits).0, 0);
    assert_eq!(machines(&fleet.job(&waits)), ["bob"]);

    let mut here = fleet
        .home
        .command(&["move", "--yes", &first, "--on", "here"]);
    let ran = Ran::of(here.env("FLEET_MACHINE", "bob"));
    assert_eq!(ran.ok(), format!("{first} queued for bob as attempt 2"));
    assert!(!runs(pid), "it has ended where it was");
    assert_eq!(fleet.ended(&first).0, 0);
    let job = fleet.job(&first);
    assert_eq!(machines(&job), ["ada", "bob"], "{job}");
    assert_eq!(job["attempts"][0]["reason"], "canceled", "{job}");
    assert_eq!(gate.lines("ran").len(), 3);

    // A machine that takes no work now: only for whoever says so.
    assert_eq!(fleet.take("bob").process.stop(), 0);
    let held = fleet.dispatch(&["--on", "ada", "--shell", "--", &script]);
    let waits = fleet.dispatch(&["--on", "ada", "--", "true"]);
    gate.until_lines("ran", 4);
    let to = |id: &str, machine: &str| fleet.run(&["move", id, "--on", machine]);
    says(
        &to(&waits, "bob"),
        64,
        "on bob, which is offline? there is no terminal to ask on",
    );
    let ran = fleet.run(&["move", "--yes", &waits, "--on", "bob"]);
    says(&ran, 0, "bob is offline: what is queued for it waits");
    assert_eq!(fleet.job(&waits)["machine"], "bob");
    // And back again; what has ended runs once more where it is wanted.
    assert_eq!(
        to(&waits, "ada").ok(),
        format!("{waits} queued for ada as attempt 1")
    );
    gate.open("go");
    for id in [&held, &waits] {
        assert_eq!(fleet.ended(id).0, 0);
    }
    fleet.run(&["move", "--yes", &first, "--on", "ada"]).ok();
    assert_eq!(fleet.ended(&first).0, 0);
    assert_eq!(machines(&fleet.job(&first)), ["ada", "bob", "ada"]);
}

#[test]
fn what_fails_is_tried_again_and_each_attempt_has_its_own_output() {
    let fleet = Fleet::of(&[("ada", 2)]);
    let gate = Gate::new();
    // The third time it works.
    let tries = gate.file("tries");
    let script = format!(
        "echo x >> {0}; n=$(wc -l < {0}); echo try $n; test $n -ge 3 || exit 7",
        tries.display()
    );
    let dispatch = |flags: &[&str]| {
        let words = [flags, &["--shell", "--", &script]].concat();
        fleet.dispatch(&words)
    };
    let other = dispatch(&["--retries", "3", "--retry-on", "8,124"]);
    assert_eq!(fleet.ended(&other).0, 7, "7 is none of those");
    assert_eq!(fleet.job(&other)["attempt"], 1);
    std::fs::remove_file(&tries).unwrap();
    let id = dispatch(&["--retries", "3", "--retry-on", "7"]);
    let (code, job) = fleet.ended(&id);
    let attempts = job["attempts"].as_array().unwrap().iter();
    let exits: Vec<u64> = attempts.map(|a| a["exit_code"].as_u64().unwrap()).collect();
    assert_eq!((code, exits), (0, vec![7, 7, 0]), "{job}");
    for no in ["1", "2", "3"] {
        let ran = fleet.run(&["logs", &id, "--attempt", no]);
        assert_eq!(ran.ok().trim(), format!("try {no}"), "{ran:?}");
        assert_eq!(ran.err, "", "{ran:?}");
    }
    assert_eq!(fleet.run(&["logs", &id]).ok().lines().count(), 3);
    says(
        &fleet.run(&["logs", &id, "--attempt", "4"]),
        64,
        "has no attempt 4, it has 3",
    );
    // Worth two attempts, and both fail.
    let none = fleet.dispatch(&["--retries", "1", "--shell", "--", "exit 9"]);
    let (code, job) = fleet.ended(&none);
    assert_eq!((code, &job["attempt"]), (9, &2.into()), "{job}");
}
