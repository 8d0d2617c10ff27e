//! How jobs end: everything they started is gone, every end is told once, each job runs once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::{Gate, only_attempt, runs, together};
use crate::harness::{Fleet, Running, eventually};

/// What takes a second where the machine has nothing else to do, and some more under load.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Lines for a shell that leave processes behind which do not want to end. Each writes its number
/// to the file `pids` and then sleeps.
fn stubborn(gate: &Gate) -> Vec<(&'static str, String, usize)> {
    let pids = gate.file("pids");
    let nap = gate.file("nap");
    let script = format!(
        "trap '' TERM HUP INT; echo $$ >> {}; exec sleep 600",
        pids.display()
    );
    std::fs::write(&nap, script).unwrap();
    let nap = format!("sh {}", nap.display());
    let away = "> /dev/null 2>&1 < /dev/null";
    let mut kinds = vec![(
        "grandchildren that ignore TERM",
        format!("{nap} & sh -c \"{nap} & wait\" & exec {nap}"),
        3,
    )];
    if cfg!(target_os = "linux") {
        kinds.push((
            "daemons: forked twice, in a session of their own, their parents gone",
            format!("( setsid {nap} {away} & ); ( ( setsid -f {nap} & ) & ); exec {nap}"),
            3,
        ));
        kinds.push((
            "daemons that have thrown away their environment",
            format!(
                "env -i PATH=\"$PATH\" setsid -f {nap} {away}; cd /; \
                 env -i PATH=\"$PATH\" setsid -f {nap}; exec sleep 600"
            ),
            2,
        ));
    }
    kinds
}

fn pids(lines: &[String]) -> Vec<u32> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn after_a_time_out_nothing_that_the_job_started_is_left() {
    let fleet = Fleet::up("studio", 3);
    let gates: Vec<(Gate, &str, String, usize)> = (0..)
        .map_while(|at| {
            let gate = Gate::new();
            let (what, script, count) = stubborn(&gate).into_iter().nth(at)?;
            Some((gate, what, script, count))
        })
        .collect();
    let commands = gates.iter().map(|(_, _, script, _)| {
        let words = ["dispatch", "--wait", "--timeout", "10s", "--shell", "--"];
        let mut command = fleet.home.command(&words);
        command.arg(script);
        command
    });
    let ran = together(commands.collect());
    for ((gate, what, _, count), ran) in gates.iter().zip(&ran) {
        assert_eq!(ran.code, 124, "{what}: {ran:?}");
        let pids = pids(&gate.lines("pids"));
        assert_eq!(pids.len(), *count, "{what}: all were there");
        for pid in pids {
            assert!(!runs(pid), "{what}: process {pid} is still there");
        }
    }
    let jobs = fleet.json(&["jobs"]);
    for job in jobs.as_array().unwrap() {
        assert_eq!(job["state"], "timed_out", "{job}");
    }
}

#[test]
fn after_a_cancel_nothing_that_the_job_started_is_left() {
    let fleet = Fleet::up("studio", 3);
    let mut jobs = Vec::new();
    for at in 0..stubborn(&Gate::new()).len() {
        let gate = Gate::new();
        let (what, script, count) = stubborn(&gate).swap_remove(at);
        let id = fleet.dispatch(&["--shell", "--", &script]);
        let pids = pids(&gate.until_lines("pids", count));
        assert!(pids.iter().all(|pid| runs(*pid)), "{what}");
        jobs.push((what, id, pids));
    }
    let ids: Vec<&str> = jobs.iter().map(|(_, id, _)| id.as_str()).collect();
    fleet.run(&[&["cancel", "--yes"], &ids[..]].concat()).ok();
    for (what, id, pids) in &jobs {
        let (code, job) = fleet.ended(id);
        assert_eq!((code, &job["state"]), (130, &"canceled".into()), "{what}");
        for pid in pids {
            assert!(!runs(*pid), "{what}: process {pid} is still there");
        }
    }
}

#[test]
fn a_cancel_that_meets_the_end_leaves_one_end() {
    let fleet = Fleet::up("studio", 2);
    let ids = fleet.dispatch(&[
        "--count",
        "24",
        "--shell",
        "--",
        "sleep 0.0$((FLEET_INDEX % 10))",
    ]);
    let ids: Vec<&str> = ids.lines().collect();
    // One after the other while they run: some wait, some run, some have just ended.
    let words = [&["cancel", "--yes"], &ids[..]].concat();
    let (code, answers) = fleet.home.json_lines(&words);
    assert_eq!((code, answers.len()), (0, ids.len()));
    for (id, answer) in ids.iter().zip(&answers) {
        let (_, job) = fleet.ended(id);
        let state = job["state"].as_str().unwrap();
        match answer["result"].as_str().unwrap() {
            "already_ended" => assert_eq!(state, "succeeded", "{job}"),
            "canceled" => assert_eq!(state, "canceled", "{job}"),
            // An end that was committed first wins.
            "cancel_requested" => {
                assert!(["canceled", "succeeded"].contains(&state), "{job}");
                assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
            }
            other => panic!("{other}"),
        }
    }
    let ended = fleet.events("job.ended").len();
    let canceled = fleet.events("job.canceled").len();
    assert_eq!(ended + canceled, ids.len(), "each job has one end");
    assert_eq!(
        fleet.events("journal.void"),
        [] as [Value; 0],
        "nobody wrote nonsense"
    );
}

#[test]
fn a_waiting_dispatch_is_told_each_kind_of_end_at_once() {
    let fleet = Fleet::hub_alone();
    // Nobody takes it, and its time is over.
    let begun = Instant::now();
    let words = [
        "dispatch",
        "--queue-anyway",
        "--expires",
        "300ms",
        "--wait",
        "--",
        "true",
    ];
    let ran = fleet.run(&words);
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.out.contains("expired"), "{ran:?}");
    assert!(begun.elapsed() < AT_ONCE, "{ran:?}");

    // Nobody takes it, and it is canceled.
    let words = ["--json", "dispatch", "--queue-anyway", "--wait", "--", "x"];
    let mut waits = Running::start(fleet.home.command(&words));
    let id = waits.json_line()["id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    fleet.run(&["cancel", "--yes", &id]).ok();
    assert_eq!(waits.json_line()["state"], "canceled");
    assert_eq!(waits.ended(), 130);
    assert!(begun.elapsed() < AT_ONCE);
}

#[test]
fn exit_codes_signals_and_rejections_are_told_apart() {
    let fleet = Fleet::up("studio", 4);
    let word = |words: &[&str]| {
        let words: Vec<&str> = ["dispatch", "--wait"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let (code, answers) = fleet.home.json_lines(&words);
        (code, answers.last().unwrap().clone())
    };
    for (words, code, state, exit, signal) in [
        (&["--", "true"][..], 0, "succeeded", Some(0), None),
        (&["--shell", "--", "exit 3"], 3, "failed", Some(3), None),
        (
            &["--shell", "--", "exit 255"],
            255,
            "failed",
            Some(255),
            None,
        ),
        // A program's own 137 is an exit code, killed by signal 9 is a signal.
        (
            &["--shell", "--", "exit 137"],
            137,
            "failed",
            Some(137),
            None,
        ),
        (
            &["--shell", "--", "kill -KILL $$"],
            137,
            "failed",
            None,
            Some(9),
        ),
        (
            &["--shell", "--", "kill -TERM $$"],
            143,
            "failed",
            None,
            Some(15),
        ),
        (
            &["--shell", "--", "kill -HUP $$"],
            129,
            "failed",
            None,
            Some(1),
        ),
    ] {
        let (ended, job) = word(words);
        assert_eq!(ended, code, "{words:?}: {job}");
        assert_eq!(job["state"], state, "{words:?}");
        assert_eq!(job["exit_code"].as_i64(), exit, "{words:?}: {job}");
        assert_eq!(job["signal"].as_i64(), signal, "{words:?}: {job}");
    }
    let gate = Gate::new();
    std::fs::write(gate.file("data"), "no program").unwrap();
    let data = gate.file("data");
    let data = data.to_str().unwrap();
    for (words, named) in [
        (&["--", "no-such-program-here"][..], "no-such-program-here"),
        (&["--", "/no/such/program"], "/no/such/program"),
        (&["--", data], data),
        (&["--", "/"], "/"),
        (
            &["--cwd", "/no/such/folder", "--", "true"],
            "/no/such/folder",
        ),
        (&["--cwd", data, "--", "true"], data),
    ] {
        let begun = Instant::now();
        let (code, job) = word(words);
        assert_eq!(code, 75, "{words:?}: {job}");
        assert_eq!(job["state"], "rejected", "{words:?}: {job}");
        let reason = job["reason"].as_str().unwrap();
        assert!(reason.contains(named), "{words:?}: {reason}");
        assert!(begun.elapsed() < AT_ONCE, "at once");
    }
}

#[test]
fn a_job_that_is_too_large_is_refused_with_nothing_left() {
    let fleet = Fleet::up("studio", 1);
    let gate = Gate::new();
    let large = vec![b'x'; 8 * 1024 * 1024 + 1];
    std::fs::write(gate.file("in"), &large).unwrap();
    let file = gate.file("in");
    let env: Vec<String> = (0..5)
        .map(|at| format!("A{at}={}", "x".repeat(120 * 1024)))
        .collect();
    let many = env.iter().flat_map(|env| ["-e", env]).collect();
    for (words, says) in [
        (vec!["--stdin", file.to_str().unwrap()], "8 MiB"),
        (many, "524288"),
    ] {
        let words = [&["dispatch"][..], &words, &["--", "cat"]].concat();
        let ran = fleet.run(&words);
        assert_eq!(ran.code, 64, "{ran:?}");
        assert!(ran.err.contains(says), "{ran:?}");
    }
    assert_eq!(fleet.json(&["jobs"]), serde_json::json!([]));
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}

#[test]
fn each_of_a_thousand_jobs_runs_exactly_once() {
    let fleet = Fleet::of(&[("ada", 4), ("bob", 4)]);
    let gate = Gate::new();
    let script = format!(
        "echo $FLEET_INDEX $FLEET_FENCING_TOKEN $FLEET_MACHINE >> {}",
        gate.file("ran").display()
    );
    let words = [
        "dispatch", "--count", "1000", "--wait", "--shell", "--", &script,
    ];
    let ran = fleet.run(&words);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines = gate.lines("ran");
    assert_eq!(lines.len(), 1000);
    let column = |at: usize| -> BTreeSet<&str> {
        lines
            .iter()
            .map(|line| line.split(' ').nth(at).unwrap())
            .collect()
    };
    let indices: BTreeSet<u32> = column(0).iter().map(|i| i.parse().unwrap()).collect();
    assert_eq!(indices, (0..1000).collect());
    assert_eq!(column(1).len(), 1000, "each has its own token");
    assert_eq!(column(2).len(), 2, "both machines took part");
    let jobs = fleet.json(&["jobs", "--limit", "0"]);
    for job in jobs.as_array().unwrap() {
        assert_eq!(job["state"], "succeeded", "{job}");
        let token = only_attempt(job)["token"].to_string();
        assert!(column(1).contains(token.as_str()), "{job}");
    }
    assert_eq!(fleet.events("job.claimed").len(), 1000);
    assert_eq!(fleet.events("journal.void"), [] as [Value; 0]);
}

#[test]
fn the_same_key_from_several_dispatchers_at_once_is_one_job() {
    let fleet = Fleet::of(&[("ada", 2), ("bob", 2)]);
    let gate = Gate::new();
    for round in 0..4 {
        let file = format!("ran{round}");
        let script = format!("echo $FLEET_INDEX >> {}", gate.file(&file).display());
        let key = format!("nightly {round}");
        let words = [
            "--json", "dispatch", "--key", &key, "--count", "5", "--wait", "--shell", "--", &script,
        ];
        let ran = together((0..4).map(|_| fleet.home.command(&words)).collect());
        let ids = |ran: &crate::harness::Ran| -> BTreeSet<String> {
            crate::harness::lines(&ran.out)
                .iter()
                .map(|job| job["id"].as_str().unwrap().to_owned())
                .collect()
        };
        for one in &ran {
            assert_eq!(one.code, 0, "{one:?}");
            assert_eq!(ids(one), ids(&ran[0]));
            assert_eq!(ids(one).len(), 5);
        }
        let mut lines = gate.lines(&file);
        lines.sort();
        assert_eq!(lines, ["0", "1", "2", "3", "4"], "round {round}");
    }
    assert_eq!(fleet.json(&["jobs"]).as_array().unwrap().len(), 20);
}

#[test]
fn an_agent_that_is_told_to_stop_now_ends_what_ignores_it() {
    let mut fleet = Fleet::hub_alone();
    fleet.add_agent("studio", &["--slots", "1", "--grace", "10m"]);
    let gate = Gate::new();
    let (_, script, count) = stubborn(&gate).swap_remove(0);
    let words = ["--on-lost", "fail", "--shell", "--", &script];
    let id = fleet.dispatch(&words);
    let pids = pids(&gate.until_lines("pids", count));
    let mut agent = fleet.take("studio");
    // The first wish waits for the jobs, the second does not; two at once may arrive as one.
    let pid = agent.process.pid();
    eventually("it ends", || {
        agent.process.signal(Signal::TERM);
        (!runs(pid)).then_some(())
    });
    assert_eq!(agent.process.ended(), 0, "{}", agent.process.errors());
    for pid in pids {
        assert!(!runs(pid), "process {pid} is still there");
    }
    let job = fleet.job(&id);
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(fleet.machine("studio").unwrap()["state"], "offline");
}
