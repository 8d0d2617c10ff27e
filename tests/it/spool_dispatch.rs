//! `dispatch --spool`: jobs that are dispatched while the hub is away run once, in order, when it is
//! back, and only for who may dispatch.

use serde_json::Value;

use crate::fleet::{Gate, HubEnd, only_attempt};
use crate::harness::{Fleet, Home, Ran, eventually};

fn files(home: &Home) -> Vec<std::path::PathBuf> {
    let folder = home.fleet().join("spool/dispatch");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    found.sort();
    found
}

/// Spools a job that writes this word; what it printed.
fn spool(home: &Home, gate: &Gate, word: &str, more: &[&str]) -> Vec<String> {
    let script = format!("echo {word}$FLEET_INDEX >> {}", gate.file("ran").display());
    let words = [&["dispatch", "--spool"], more, &["--shell", "--", &script]].concat();
    let ran = home.run(&words);
    let ids = ran.ok().lines().map(str::to_owned).collect();
    assert!(ran.err.contains("spooled here, not sent"), "{ran:?}");
    ids
}

fn until_empty(home: &Home) {
    eventually("everything is sent", || {
        files(home).is_empty().then_some(())
    });
}

#[test]
fn spooled_jobs_are_shown_sent_in_order_and_run_once() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    let mut ids = Vec::new();
    let mut kept = Vec::new();
    fleet.without_hub(HubEnd::Killed, |fleet| {
        let refused = fleet.run(&["dispatch", "--", "true"]);
        assert_eq!(refused.code, 69, "{refused:?}");
        for way in ["fleet up", "--spool", "fleet run -- CMD"] {
            assert!(refused.err.contains(way), "{refused:?}");
        }
        ids.extend(spool(&fleet.home, &gate, "a", &["--on", "studio"]));
        ids.extend(spool(
            &fleet.home,
            &gate,
            "b",
            &["--on", "studio", "--count", "3"],
        ));
        ids.extend(spool(
            &fleet.home,
            &gate,
            "c",
            &["--on", "studio", "--key", "k"],
        ));
        let again = spool(&fleet.home, &gate, "c", &["--on", "studio", "--key", "k"]);
        assert_eq!(again, ids[4..], "the same key is the same job");

        // Seen here without a hub.
        let jobs: Ran = fleet.run(&["jobs"]);
        assert_eq!(jobs.code, 69);
        assert_eq!(
            jobs.out.matches("spooled here, not sent").count(),
            6,
            "{jobs:?}"
        );
        let shown = fleet.json(&["show", &ids[0]]);
        assert_eq!(shown["reason"], "spooled here, not sent", "{shown}");
        let list = fleet.json(&["spool", "list"]);
        assert_eq!(list[1]["id"], ids[1].as_str(), "{list}");
        let sent = fleet.run(&["spool", "send"]);
        assert_eq!(sent.code, 69, "{sent:?}");
        let gone = spool(&fleet.home, &gate, "gone", &[]);
        fleet.run(&["spool", "remove", &gone[0]]).ok();
        for file in files(&fleet.home) {
            kept.push((file.clone(), std::fs::read(file).unwrap()));
        }
        assert_eq!(kept.len(), 4);
    });
    until_empty(&fleet.home);
    for id in &ids {
        let (code, job) = fleet.ended(id);
        assert_eq!(code, 0, "{job}");
        only_attempt(&job);
    }
    let expected = ["a", "b0", "b1", "b2", "c"];
    assert_eq!(gate.lines("ran"), expected);
    // As if the sender had been killed before it could remove them.
    for (file, bytes) in &kept {
        std::fs::write(file, bytes).unwrap();
    }
    let sent = fleet.json(&["spool", "send"]);
    assert_eq!(sent["waiting"], 0, "{sent}");
    let last = fleet.run(&["dispatch", "--wait", "--on", "studio", "--", "true"]);
    assert_eq!(last.code, 0, "{last:?}");
    assert_eq!(gate.lines("ran"), expected, "nothing ran twice");
    assert_eq!(fleet.json(&["jobs"]).as_array().unwrap().len(), 6);
}

#[test]
fn whoever_comes_by_with_the_right_to_dispatch_sends_first_what_waits() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    // A machine that is not the hub's, where a person may dispatch.
    let home = Home::new();
    let folder = home.fleet().join("credentials");
    std::fs::create_dir_all(&folder).unwrap();
    let operator = "credentials/operator.creds";
    std::fs::copy(
        fleet.home.fleet().join(operator),
        folder.join("operator.creds"),
    )
    .unwrap();
    fleet.without_hub(HubEnd::Stopped, |_| {
        let on = ["--on", "studio"];
        for word in ["a", "b", "c"] {
            spool(&home, &gate, word, &on);
        }
    });
    let script = format!("echo d >> {}", gate.file("ran").display());
    let words = [
        "dispatch", "--spool", "--on", "studio", "--shell", "--", &script,
    ];
    let ran = home.run(&words);
    assert!(ran.err.contains("sent 3 jobs that waited here"), "{ran:?}");
    assert_eq!(
        files(&home).len(),
        0,
        "the hub is there: nothing is spooled"
    );
    assert_eq!(fleet.ended(ran.ok()).0, 0);
    assert_eq!(gate.lines("ran"), ["a", "b", "c", "d"]);
}

#[test]
fn an_agent_sends_with_the_operators_credentials_and_none_without() {
    let mut fleet = Fleet::of(&[("ada", 1), ("bob", 1)]);
    let gate = Gate::new();
    let operator = fleet.home.fleet().join("credentials/operator.creds");
    let here = fleet.agents[0]
        .home
        .fleet()
        .join("credentials/operator.creds");
    std::fs::copy(operator, here).unwrap();
    let mut id = String::new();
    fleet.without_hub(HubEnd::Killed, |fleet| {
        let ids = spool(&fleet.agents[0].home, &gate, "ran", &["--on", "bob"]);
        id.clone_from(&ids[0]);
        // A worker's own credentials are no right to dispatch, by whatever way.
        let worker = &fleet.agents[1].home;
        let own = worker.fleet().join("credentials/bob.creds");
        let own = own.to_str().unwrap();
        for more in [&[][..], &["--credentials", own]] {
            let words = [&["dispatch", "--spool"], more, &["--", "true"]].concat();
            let refused = worker.run(&words);
            assert_eq!(refused.code, 77, "{refused:?}");
            assert!(refused.err.contains("operator"), "{refused:?}");
            assert_eq!(files(worker).len(), 0);
        }
    });
    until_empty(&fleet.agents[0].home);
    let (code, job) = fleet.ended(&id);
    assert_eq!((code, &job["machine"]), (0, &Value::from("bob")), "{job}");
    assert_eq!(gate.lines("ran"), ["ran"]);
}

#[test]
fn what_the_fleet_cannot_run_waits_refused_and_is_in_nobodys_way() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    let (mut wrong, mut right) = (Vec::new(), Vec::new());
    fleet.without_hub(HubEnd::Killed, |fleet| {
        wrong = spool(&fleet.home, &gate, "wrong", &["--on", "stduio"]);
        right = spool(&fleet.home, &gate, "right", &["--on", "studio"]);
        std::fs::write(fleet.home.fleet().join("spool/dispatch/0-x.json"), "{").unwrap();
    });
    assert_eq!(fleet.ended(&right[0]).0, 0);
    let shown = eventually("it is refused", || {
        let job = fleet.json(&["show", &wrong[0]]);
        let reason = job["reason"].as_str().unwrap().to_owned();
        reason.contains("stduio").then_some(reason)
    });
    assert!(shown.contains("did you mean studio"), "{shown}");
    let sent = fleet.run(&["spool", "send"]);
    assert_eq!(sent.code, 75, "{sent:?}");
    assert!(sent.err.contains("cannot read"), "{sent:?}");
    let list = fleet.run(&["jobs"]);
    assert!(list.ok().contains("spooled here, not sent"), "{list:?}");
    fleet.run(&["spool", "remove", &wrong[0]]).ok();
    assert_eq!(fleet.run(&["show", &wrong[0]]).code, 64);
    assert_eq!(gate.lines("ran"), ["right"]);
}
