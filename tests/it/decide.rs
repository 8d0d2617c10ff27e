//! What a person decides about jobs: another attempt, or how they ended; once, whoever else decides
//! at the same time, and over what they saw.

use fleet_contract::ids::JobId;
use fleet_contract::record::{Cause, StateWord};
use fleet_nats::operate::ActError;
use serde_json::Value;

use crate::fleet::{Gate, HubEnd, kill, runs, together};
use crate::harness::{Fleet, Ran, eventually};
use crate::json::matches_example;

/// A line for a shell that says in the file `ran` that it ran, and fails with 3 until `ready` is there.
fn until_ready(gate: &Gate) -> String {
    let (ran, ready) = (gate.file("ran"), gate.file("ready"));
    format!(
        "echo \"$FLEET_JOB $$\" >> {}; test -e {} || exit 3",
        ran.display(),
        ready.display()
    )
}

fn failed(fleet: &Fleet, gate: &Gate, flags: &[&str]) -> String {
    let script = until_ready(gate);
    let words = [flags, &["--shell", "--", &script]].concat();
    let id = fleet.dispatch(&words);
    assert_eq!(fleet.ended(&id).0, 3);
    id
}

/// A job that waits for a person: its executor was killed, and nobody knows what it did.
fn asked(fleet: &mut Fleet, gate: &Gate, machine: &str) -> String {
    let script = format!(
        "echo $$ >> {}; {}",
        gate.file("pids").display(),
        gate.wait("go")
    );
    let before = gate.lines("pids").len();
    let id = fleet.dispatch(&["--on", machine, "--shell", "--", &script]);
    gate.until_lines("pids", before + 1);
    let agent = fleet.agents.iter().find(|agent| agent.name == machine);
    // The one before it may have been killed as well.
    let executor = eventually("there is an executor", || {
        Some(agent.unwrap().executor()).filter(|pid| runs(*pid))
    });
    kill(executor);
    fleet.until(&id, "needs_human");
    id
}

fn says(ran: &Ran, code: u8, words: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.err.contains(words), "{words}: {ran:?}");
}

fn exits(job: &Value) -> Vec<Option<u64>> {
    let attempts = job["attempts"].as_array().unwrap().iter();
    attempts.map(|a| a["exit_code"].as_u64()).collect()
}

#[test]
fn a_job_that_failed_runs_once_more_and_keeps_its_history() {
    let fleet = Fleet::of(&[("ada", 2)]);
    let gate = Gate::new();
    let id = failed(&fleet, &gate, &[]);
    // Nobody is there to be asked.
    says(
        &fleet.run(&["retry", &id[..6]]),
        64,
        "there is no terminal to ask on; the same with --yes",
    );
    let would = fleet.run(&["retry", "--dry-run", &id[..6]]);
    assert!(would.ok().contains("failed: exit 3"), "{would:?}");
    assert_eq!(fleet.job(&id)["attempt"], 1, "nothing was done");

    gate.open("ready");
    let ran = fleet.run(&["retry", "--yes", &id[..6]]);
    assert_eq!(ran.ok(), format!("{id} queued as attempt 2"));
    assert_eq!(fleet.ended(&id).0, 0);
    let job = fleet.job(&id);
    assert_eq!(exits(&job), [Some(3), Some(0)], "{job}");
    assert_eq!(gate.lines("ran").len(), 2);
    // What succeeded may be wanted again, too.
    let (code, lines) = fleet.home.json_lines(&["retry", "--yes", &id]);
    matches_example("retry", &lines[0]);
    assert_eq!(
        (
            code,
            &lines[0]["result"],
            &lines[0]["attempt"],
            &lines[0]["lane"]
        ),
        (0, &"queued".into(), &3.into(), &"any".into()),
        "{lines:?}"
    );
    assert_eq!(fleet.ended(&id).0, 0);
    assert_eq!(exits(&fleet.job(&id)), [Some(3), Some(0), Some(0)]);
    let of_job = ["flow", "--kind", "job.queued", "--job", &id];
    let causes = fleet.home.json_lines(&of_job).1;
    let causes: Vec<&str> = causes
        .iter()
        .filter_map(|e| e["data"]["cause"].as_str())
        .collect();
    assert_eq!(causes, ["dispatch", "retry", "retry"]);
}

#[test]
fn what_runs_or_waits_is_refused_with_what_to_type() {
    let fleet = Fleet::of(&[("ada", 1)]);
    let gate = Gate::new();
    let runs = fleet.dispatch(&["--shell", "--", &gate.wait("go")]);
    fleet.until(&runs, "running");
    let waits = fleet.dispatch(&["--on", "ada", "--", "true"]);
    for verb in [
        &["retry", "--yes", &runs][..],
        &["resolve", "--yes", &runs, "queued"],
    ] {
        let ran = fleet.run(verb);
        let then = format!("fleet cancel {runs}, and when it has ended fleet retry {runs}");
        says(&ran, 75, "runs on ada: nothing was changed");
        says(&ran, 75, &then);
    }
    says(
        &fleet.run(&["resolve", "--yes", &runs, "failed"]),
        75,
        "runs on ada",
    );
    says(
        &fleet.run(&["retry", "--yes", &waits]),
        75,
        "waits for a machine already",
    );
    says(
        &fleet.run(&["resolve", "--yes", &waits, "failed"]),
        75,
        &format!("fleet cancel {waits}"),
    );
    says(
        &fleet.run(&["retry", "--yes", "zzzz"]),
        64,
        "no job begins with",
    );
    // One that cannot be does not keep the others from it.
    gate.open("go");
    assert_eq!(fleet.ended(&waits).0, 0);
    let blocked = fleet.dispatch(&["--shell", "--", &gate.wait("later")]);
    fleet.until(&blocked, "running");
    let ran = fleet.run(&["retry", "--yes", &blocked, &waits]);
    says(&ran, 75, &format!("job {blocked} runs on ada"));
    assert_eq!(ran.out, format!("{waits} queued for ada as attempt 2\n"));
    gate.open("later");
    assert_eq!(fleet.ended(&waits).0, 0);
    assert_eq!(exits(&fleet.job(&waits)), [Some(0), Some(0)]);
}

#[test]
fn of_two_that_decide_at_once_one_is_told_that_the_job_moved_on() {
    let mut fleet = Fleet::of(&[("ada", 4)]);
    let gate = Gate::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for other in [
        &["retry", "--yes"][..],
        &["resolve", "--yes", "--notes", "seen"],
    ] {
        let id = asked(&mut fleet, &gate, "ada");
        let mut words = other.to_vec();
        words.push(&id);
        if other[0] == "resolve" {
            words.push("succeeded");
        }
        let retry = ["retry", "--yes", &id];
        let done = together(vec![fleet.home.command(&retry), fleet.home.command(&words)]);
        let mut codes: Vec<u8> = done.iter().map(|ran| ran.code).collect();
        codes.sort_unstable();
        // What was resolved may be retried after that: then both were heard.
        let both = other[0] == "resolve" && codes == [0, 0];
        assert!(codes == [0, 75] || both, "{done:?}");
        if let Some(told) = done.iter().find(|ran| ran.code == 75) {
            let words = [
                "moved on meanwhile",
                "waits for a machine already",
                "waits for its next attempt",
                "runs on ada",
                "by your word",
            ];
            assert!(
                words.iter().any(|words| told.err.contains(words)),
                "{told:?}"
            );
        }
        // Whoever decides over what does not hold any more is told what does.
        let job: JobId = id.parse().unwrap();
        let revision = 1;
        let late = runtime.block_on(async {
            let (_link, bus) = fleet.bus().await;
            let first = bus.run_again(job, revision, None, Cause::Retry).await;
            let second = bus
                .resolve(job, revision, StateWord::Failed, "ana", None)
                .await;
            [first, second]
        });
        for late in late {
            assert!(matches!(late, Err(ActError::MovedOn { .. })), "{late:?}");
        }
        let at_most = fleet.job(&id)["attempts"].as_array().unwrap().len();
        assert!(at_most <= 2, "one more attempt, whoever asked for it");
        let _ = fleet.run(&["cancel", "--yes", &id]);
        fleet.ended(&id);
    }
}

#[test]
fn a_retry_that_died_with_the_hub_after_its_ticket_has_changed_nothing() {
    let mut fleet = Fleet::of(&[("ada", 2)]);
    let gate = Gate::new();
    let id = failed(&fleet, &gate, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let job = bus.job(id.parse().unwrap()).await.unwrap().unwrap();
        // The ticket is out, the record is not: here whoever typed it dies.
        bus.issue(&job, job.last_seq, &job.target).await.unwrap();
    });
    fleet.without_hub(HubEnd::Killed, |_| {});
    // The machine has judged the ticket once it has run what came after it.
    let next = fleet.dispatch(&["--", "true"]);
    assert_eq!(fleet.ended(&next).0, 0);
    assert_eq!(fleet.job(&id)["state"], "failed");
    gate.open("ready");
    fleet.run(&["retry", "--yes", &id]).ok();
    assert_eq!(fleet.ended(&id).0, 0);
    assert_eq!(exits(&fleet.job(&id)), [Some(3), Some(0)]);
    assert_eq!(gate.lines("ran").len(), 2, "no third one ran");
}

#[test]
fn jobs_are_chosen_by_state_machine_and_time_and_counted_before() {
    let fleet = Fleet::of(&[("ada", 4), ("bob", 4)]);
    let gate = Gate::new();
    let on_ada: Vec<String> = (0..3)
        .map(|_| failed(&fleet, &gate, &["--on", "ada"]))
        .collect();
    let on_bob = failed(&fleet, &gate, &["--on", "bob"]);
    let fine = fleet.dispatch(&["--on", "ada", "--", "true"]);
    assert_eq!(fleet.ended(&fine).0, 0);
    let chosen = [
        "retry",
        "--state",
        "failed",
        "--machine",
        "ada",
        "--since",
        "1h",
    ];
    let with = |more: &[&str]| fleet.run(&[&chosen[..], more].concat());
    says(
        &with(&[]),
        64,
        "retry 3 jobs? there is no terminal to ask on",
    );
    let (code, would) = fleet
        .home
        .json_lines(&[&chosen[..], &["--dry-run"]].concat());
    assert_eq!((code, would.len()), (0, 3), "{would:?}");
    assert!(
        would
            .iter()
            .all(|job| job["result"] == "would" && job["reason"] == "exit 3")
    );
    assert_eq!(with(&["--dry-run"]).ok().lines().count(), 3);
    gate.open("ready");
    assert_eq!(with(&["--yes"]).ok().lines().count(), 3);
    for id in &on_ada {
        assert_eq!(fleet.ended(id).0, 0);
    }
    assert_eq!(fleet.job(&on_bob)["attempt"], 1);
    assert_eq!(
        fleet.job(&fine)["attempt"],
        1,
        "what succeeded is not meant"
    );
    let none = with(&["--yes"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""), "{none:?}");
    assert!(none.err.contains("no job is meant by that"), "{none:?}");

    says(
        &fleet.run(&["retry", "--machine", "adda", "--yes"]),
        64,
        "no machine \"adda\": ",
    );
    says(
        &fleet.run(&["retry", "--state", "running"]),
        64,
        "cannot be chosen",
    );
    says(
        &fleet.run(&[
            "resolve",
            "--state",
            "failed",
            "--machine",
            "bob",
            "--yes",
            "succeeded",
        ]),
        0,
        "",
    );
    assert_eq!(fleet.job(&on_bob)["state"], "succeeded");
}

#[test]
fn what_needs_a_person_is_listed_until_somebody_has_said_what_became_of_it() {
    let mut fleet = Fleet::of(&[("ada", 4)]);
    let gate = Gate::new();
    assert_eq!(fleet.run(&["review"]).ok(), "nothing needs you");
    let (one, two) = (
        asked(&mut fleet, &gate, "ada"),
        asked(&mut fleet, &gate, "ada"),
    );
    let listed = fleet.json(&["review"]);
    let listed = listed.as_array().unwrap();
    let ids: Vec<&str> = listed
        .iter()
        .map(|e| e["job"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [one.as_str(), &two], "the longest first");
    assert_eq!(listed[0]["why"], serde_json::json!(["needs_human"]));
    let question = listed[0]["question"].as_str().unwrap();
    assert!(question.contains("shall it run again?"), "{question}");
    let text = fleet.run(&["review"]);
    for command in listed[0]["commands"].as_array().unwrap() {
        assert!(text.ok().contains(command.as_str().unwrap()), "{text:?}");
    }
    assert!(text.ok().ends_with("2 jobs need you"), "{text:?}");

    let ran = fleet.run(&[
        "resolve",
        "--yes",
        "--notes",
        "it is there",
        &one,
        "succeeded",
    ]);
    assert_eq!(
        ran.ok(),
        format!("{one} succeeded by your word, it was needs_human")
    );
    let (code, job) = fleet.ended(&one);
    assert_eq!((code, &job["state"]), (0, &"succeeded".into()), "{job}");
    assert_eq!(job["resolved"]["notes"], "it is there", "{job}");
    assert!(fleet.run(&["show", &one]).ok().contains("it is there"));
    let (code, lines) = fleet.home.json_lines(&["resolve", "--yes", &two, "failed"]);
    assert_eq!(code, 0, "{lines:?}");
    matches_example("resolve", &lines[0]);
    assert_eq!(fleet.ended(&two).0, 1);
    assert_eq!(fleet.run(&["review"]).ok(), "nothing needs you");
    // Decided otherwise later on, and run again after all: that word does not hold any more.
    fleet.run(&["resolve", "--yes", &two, "succeeded"]).ok();
    assert_eq!(fleet.ended(&two).0, 0);
    gate.open("go");
    fleet.run(&["resolve", "--yes", &two, "queued"]).ok();
    let (code, job) = fleet.ended(&two);
    assert_eq!((code, &job["resolved"]), (0, &Value::Null), "{job}");

    let id = failed(&fleet, &gate, &[]);
    let counted = fleet.json(&["failures"]);
    assert_eq!(
        (&counted["failed"], &counted["ended"]),
        (&1.into(), &3.into()),
        "{counted}"
    );
    matches_example("failures", &counted);
    let group = &counted["groups"][0];
    assert_eq!(
        (&group["machine"], &group["reason"], &group["last"]),
        (&"ada".into(), &"exit 3".into(), &id.as_str().into())
    );
    let text = fleet.run(&["failures", "--by", "machine", "--since", "1h"]);
    assert!(text.ok().contains("ada"), "{text:?}");
    assert!(
        text.ok()
            .ends_with("1 of 3 that ended in the last 1 h failed"),
        "{text:?}"
    );
    says(
        &fleet.run(&["failures", "--machine", "bob"]),
        64,
        "no machine \"bob\"",
    );
}

#[test]
fn an_attempt_that_was_given_up_is_ended_when_its_machine_is_heard_of() {
    let mut fleet = Fleet::of(&[("ada", 1)]);
    let gate = Gate::new();
    let script = format!(
        "echo \"$FLEET_MACHINE $$\" >> {}; test $FLEET_MACHINE = bob || {}",
        gate.file("ran").display(),
        gate.wait("never")
    );
    let id = fleet.dispatch(&["--shell", "--", &script]);
    let line = gate.until_lines("ran", 1).remove(0);
    let pid: u32 = line.strip_prefix("ada ").unwrap().parse().unwrap();
    let home = fleet.take("ada").kill();
    fleet.add_agent("bob", &["--slots", "1"]);
    fleet.until_lease_taken("ada");
    fleet.until(&id, "needs_human");
    let (code, lines) = fleet.home.json_lines(&["retry", "--yes", &id]);
    assert_eq!(
        (code, &lines[0]["given_up"]),
        (0, &"ada".into()),
        "{lines:?}"
    );
    assert_eq!(fleet.ended(&id).0, 0);
    assert!(runs(pid), "nobody has told its executor yet");
    fleet.again(home, "ada", &["--slots", "1"]);
    eventually("what was given up is ended", || (!runs(pid)).then_some(()));
    eventually("it is told", || {
        let job = fleet.job(&id);
        (job["two_ran"] == true && job["unacknowledged"] == true).then_some(())
    });
    let listed = fleet.json(&["review"]);
    assert_eq!(listed[0]["why"], serde_json::json!(["two_ran"]), "{listed}");
}
