//! dispatch, wait, cancel: what is told and with which exit code.

use rustix::process::Signal;

use crate::harness::{Fleet, Home, Running, eventually, lines};
use crate::json::matches_example;

#[test]
fn exit_codes_are_the_jobs_own() {
    let fleet = Fleet::up("studio", 2);
    let wait = |words: &[&str]| {
        let words: Vec<&str> = ["dispatch", "--wait"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        fleet.run(&words)
    };
    for (words, code, word) in [
        (&["--", "true"][..], 0, "succeeded"),
        (&["--", "sh", "-c", "exit 3"], 3, "failed"),
        (&["--shell", "--", "exit 255"], 255, "failed"),
        (&["--shell", "--", "kill -9 $$"], 137, "SIGKILL"),
        (
            &["--timeout", "200ms", "--", "sleep", "600"],
            124,
            "timed_out",
        ),
        (&["--", "/no/such/program"], 75, "rejected"),
        (&["--cwd", "/no/such/folder", "--", "true"], 75, "rejected"),
        (
            &[
                "--count",
                "3",
                "--shell",
                "--",
                "test $FLEET_INDEX != 1 || exit 7",
            ],
            7,
            "failed",
        ),
    ] {
        let ran = wait(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.out.contains(word), "{words:?}: {ran:?}");
    }
}

#[test]
fn the_json_of_a_job_is_as_committed() {
    let fleet = Fleet::up("studio", 1);
    let words = [
        "dispatch", "--wait", "--name", "greet", "--tag", "from=ci", "--", "echo", "hi",
    ];
    let (code, answers) = fleet.home.json_lines(&words);
    assert_eq!((code, answers.len()), (0, 2), "{answers:?}");
    matches_example("dispatched", &answers[0]);
    matches_example("ended", &answers[1]);
    let id = answers[0]["id"].as_str().unwrap();
    matches_example("show", &fleet.job(id));
    matches_example("jobs", &fleet.json(&["jobs"]));
    let (_, chunks) = fleet.home.json_lines(&["logs", id]);
    matches_example("logs", &chunks.into());
    let (code, waited) = fleet.home.json_lines(&["wait", &id[..8]]);
    assert_eq!(code, 0);
    assert_eq!(waited[0], fleet.job(id));
    let words = ["flow", "--job", id, "--kind", "job.ended"];
    let (_, events) = fleet.home.json_lines(&words);
    matches_example("flow", &events.into());
    matches_example(
        "dry_run",
        &fleet.json(&["dispatch", "--dry-run", "--", "true"]),
    );
    let (code, refused) = {
        let ran = fleet.run(&["--json", "show", "zzzz"]);
        (ran.code, lines(&ran.err))
    };
    assert_eq!(code, 64);
    matches_example("error", &refused[0]);
}

#[test]
fn the_world_of_a_job_is_what_was_asked_for() {
    let fleet = Fleet::up("studio", 1);
    let follow = |words: &[&str]| {
        let words: Vec<&str> = ["dispatch", "--follow"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        fleet.run(&words)
    };
    let home = std::fs::canonicalize(fleet.home.user()).unwrap();
    assert_eq!(follow(&["--", "pwd", "-P"]).ok(), home.to_str().unwrap());
    let work = home.join("work");
    assert_eq!(
        follow(&["--cwd", ".", "--", "pwd", "-P"]).ok(),
        work.to_str().unwrap()
    );
    assert_eq!(
        follow(&["--env", "A=b c", "--shell", "--", "echo $A"]).ok(),
        "b c"
    );
    let variables = follow(&["--shell", "--", "echo $FLEET_MACHINE $FLEET_JOB"]);
    let jobs = fleet.json(&["jobs", "--limit", "1"]);
    let id = jobs[0]["id"].as_str().unwrap();
    assert_eq!(variables.ok(), format!("studio {id}"));
    std::fs::write(work.join("in"), b"from a file").unwrap();
    assert_eq!(follow(&["--stdin", "in", "--", "cat"]).ok(), "from a file");
    let piped = fleet.home.run_with(
        &["dispatch", "--follow", "--stdin", "-", "--", "cat"],
        b"\xff\0piped",
    );
    assert_eq!(piped.bytes, b"\xff\0piped");
    assert_eq!(follow(&["--", "cat"]).ok(), "", "standard input is closed");
}

#[test]
fn the_same_key_is_the_same_job() {
    let fleet = Fleet::up("studio", 1);
    let first = fleet.dispatch(&["--key", "nightly", "--", "true"]);
    let second = fleet.dispatch(&["--key", "nightly", "--wait", "--", "true"]);
    assert!(second.starts_with(&first), "{first} {second}");
    let other = fleet.run(&["dispatch", "--key", "nightly", "--", "false"]);
    assert_eq!(other.code, 64, "{other:?}");
    assert!(other.err.contains("already used"), "{other:?}");
    let many = fleet.dispatch(&["--key", "many", "--count", "3", "--", "true"]);
    assert_eq!(
        many,
        fleet.dispatch(&["--key", "many", "--count", "3", "--", "true"])
    );
    assert_eq!(many.lines().count(), 3);
}

#[test]
fn cancel_ends_what_waits_and_what_runs() {
    let fleet = Fleet::up("studio", 1);
    let runs = fleet.dispatch(&["--", "sleep", "600"]);
    fleet.until(&runs, "running");
    let waits = fleet.dispatch(&["--", "true"]);
    let unasked = fleet.run(&["cancel", &waits]);
    assert_eq!(
        unasked.code, 64,
        "without a terminal it wants --yes: {unasked:?}"
    );
    assert!(unasked.err.contains("--yes"), "{unasked:?}");

    let canceled = fleet.json(&["cancel", "--yes", &waits]);
    assert_eq!(canceled["result"], "canceled");
    let requested = fleet.json(&["cancel", "--yes", &runs]);
    assert_eq!(requested["result"], "cancel_requested");
    assert_eq!(requested["machine"], "studio");
    let ran = fleet.run(&["wait", &runs, &waits]);
    assert_eq!(ran.code, 130, "{ran:?}");
    let late = fleet.json(&["cancel", "--yes", &runs]);
    assert_eq!(
        (&late["result"], &late["state"]),
        (&"already_ended".into(), &"canceled".into())
    );
    let ended = fleet.json(&["jobs", "--state", "canceled"]);
    assert_eq!(ended.as_array().unwrap().len(), 2);
    assert_eq!(
        fleet.json(&["jobs", "--state", "running"]),
        serde_json::json!([])
    );
}

#[test]
fn ctrl_c_leaves_the_job_running_where_nobody_can_be_asked() {
    let fleet = Fleet::up("studio", 1);
    let mut waiting = Running::start(
        fleet
            .home
            .command(&["dispatch", "--wait", "--", "sleep", "600"]),
    );
    let id = waiting.line();
    fleet.until(&id, "running");
    waiting.signal(Signal::INT);
    assert_eq!(waiting.ended(), 130);
    assert!(
        waiting.errors().contains(&format!("left running: {id}")),
        "{}",
        waiting.errors()
    );
    assert_eq!(fleet.job(&id)["state"], "running");
    let late = fleet.run(&["wait", "--timeout", "100ms", &id]);
    assert_eq!(late.code, 75, "{late:?}");
    fleet.run(&["cancel", "--yes", &id]).ok();
}

#[test]
fn ctrl_c_right_after_the_id_was_told_says_that_the_job_is_left_running() {
    let fleet = Fleet::up("studio", 1);
    for words in [&["--wait"][..], &["--follow"], &["--count", "3", "--wait"]] {
        let words = [&["dispatch"], words, &["--", "sleep", "600"]].concat();
        let mut waiting = Running::start(fleet.home.command(&words));
        if words[1] == "--follow" {
            eventually("its id is told", || {
                waiting.errors().contains("dispatched").then_some(())
            });
        } else {
            waiting.line();
        }
        waiting.signal(Signal::INT);
        assert_eq!(waiting.ended(), 130);
        // It may come between the first and the last of several.
        let said = waiting.errors();
        assert!(
            said.contains("left running: ") || said.contains("of 3 were dispatched"),
            "{words:?}: {said}"
        );
    }
    // Nothing that runs is in the way of the fleet's own end.
    let jobs = fleet.json(&["jobs"]);
    let ids = jobs.as_array().unwrap().iter();
    let ids: Vec<&str> = ids.map(|job| job["id"].as_str().unwrap()).collect();
    fleet.run(&[&["cancel", "--yes"], &ids[..]].concat()).ok();
}

#[test]
fn run_needs_no_bus_and_leaves_its_record() {
    let home = Home::new();
    let ran = home.run(&[
        "run",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; pwd -P; exit 4",
    ]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let work = std::fs::canonicalize(home.user()).unwrap().join("work");
    assert_eq!(ran.out, format!("out\n{}\n", work.display()));
    assert!(ran.err.starts_with("err\n"), "{ran:?}");
    assert!(ran.err.contains("failed (4)"), "{ran:?}");
    matches_example("run", &home.json(&["run", "--", "true"]));
    let runs = std::fs::read_dir(home.fleet().join("runs"))
        .unwrap()
        .count();
    assert_eq!(runs, 2);
    let missing = home.run(&["run", "--", "/no/such/program"]);
    assert_eq!(missing.code, 75, "{missing:?}");
    assert_eq!(
        home.run(&["run", "--timeout", "100ms", "--", "sleep", "600"])
            .code,
        124
    );

    let mut interrupted =
        Running::start(home.command(&["run", "--shell", "--", "echo on; sleep 600"]));
    assert_eq!(interrupted.line(), "on");
    interrupted.signal(Signal::INT);
    assert_eq!(interrupted.ended(), 130);
}

#[test]
fn a_running_job_tells_its_start_and_an_ended_one_is_not_asked_about() {
    let fleet = Fleet::up("studio", 2);
    let id = fleet.dispatch(&["--", "sleep", "600"]);
    let job = fleet.until(&id, "running");
    assert!(job["started_at"].is_string(), "{job}");
    let shown = fleet.run(&["show", &id]);
    assert!(shown.ok().contains("\nstarted "), "{shown:?}");
    let late = fleet.run(&["wait", "--timeout", "1ms", &id]);
    assert_eq!(late.code, 75);
    assert!(
        late.err.contains(&format!("job {id} has not ended")),
        "{late:?}"
    );
    fleet.run(&["cancel", "--yes", &id]).ok();
    assert_eq!(fleet.run(&["wait", &id]).code, 130);
    let again = fleet.run(&["cancel", &id]);
    assert_eq!(again.ok(), format!("{id} had ended before: canceled"));
}

#[test]
fn a_job_for_a_person_to_decide_says_what_to_type() {
    let mut fleet = Fleet::up("studio", 1);
    fleet.add_agent("mini", &["--grace", "100ms"]);
    let id = fleet.dispatch(&["--on", "mini", "--", "sleep", "600"]);
    fleet.until(&id, "running");
    assert_eq!(fleet.agents.pop().unwrap().process.stop(), 0);
    let job = fleet.until(&id, "needs_human");
    let cancel = format!("fleet cancel {id}");
    let shown = fleet.run(&["show", &id]);
    assert!(shown.ok().contains(&cancel), "{shown:?}");
    let waited = fleet.run(&["wait", &id]);
    assert_eq!(waited.code, 75);
    assert!(waited.out.contains(&cancel), "{waited:?}");
    fleet.run(&["cancel", "--yes", &id]).ok();
    let ended = fleet.job(&id);
    assert_eq!(ended["state"], "canceled");
    let attempt = job["attempts"][0]["ended_at"].as_str().unwrap();
    assert!(
        ended["ended_at"].as_str().unwrap() > attempt,
        "it ended when it was canceled: {ended}"
    );
}

#[test]
fn a_key_that_was_used_says_what_was_found() {
    let fleet = Fleet::up("studio", 1);
    let words = ["dispatch", "--key", "k", "--wait", "--", "true"];
    let first = fleet.run(&words);
    assert!(!first.err.contains("found"), "{first:?}");
    let second = fleet.run(&words);
    assert!(second.err.contains("found, dispatched"), "{second:?}");
    assert!(second.err.contains("succeeded"), "{second:?}");
}
