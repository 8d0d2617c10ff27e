//! Jobs that so far only wait on this machine for the hub: what every command that names one knows
//! of it and does about it.

use std::process::Command;

use crate::fleet::{Gate, HubEnd, together};
use crate::harness::{Fleet, Home, Ran, Running, eventually};

/// Spools a job; its id.
fn spool(home: &Home, words: &[&str]) -> String {
    let words = [&["dispatch", "--spool"], words].concat();
    home.run(&words).ok().to_owned()
}

fn script(gate: &Gate, word: &str) -> String {
    format!("echo {word}; echo {word} >> {}", gate.file("ran").display())
}

fn files(home: &Home) -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(home.fleet().join("spool/dispatch")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect()
}

#[test]
fn wait_waits_logs_says_it_and_cancel_takes_it_out_before_it_is_sent() {
    let mut fleet = Fleet::of(&[("studio", 2)]);
    let gate = Gate::new();
    let (mut ids, mut waits, mut follows) = (Vec::new(), None, None);
    fleet.without_hub(HubEnd::Killed, |fleet| {
        for word in ["a", "b", "c"] {
            let line = script(&gate, word);
            ids.push(spool(
                &fleet.home,
                &["--on", "studio", "--shell", "--", &line],
            ));
        }
        let [a, b, c] = [&ids[0], &ids[1], &ids[2]];
        let logs = fleet.run(&["logs", a]);
        assert_eq!((logs.code, logs.out.as_str()), (0, ""), "{logs:?}");
        assert!(
            logs.err
                .contains("has written nothing: spooled here, not sent"),
            "{logs:?}"
        );
        let unknown = fleet.run(&["cancel", "--yes", "aaaaaaaaaaaaaaaa"]);
        assert_eq!(unknown.code, 69, "nobody here knows it: {unknown:?}");
        let both = fleet.run(&["wait", a, "aaaaaaaaaaaaaaaa"]);
        assert_eq!(both.code, 69, "{both:?}");
        let late = fleet.run(&["wait", "--timeout", "1s", a]);
        assert_eq!(late.code, 75, "{late:?}");
        assert!(late.err.contains("it waits here for the hub"), "{late:?}");

        let (code, canceled) = fleet.home.json_lines(&["cancel", "--yes", &b[..6]]);
        assert_eq!((code, &canceled[0]["result"]), (0, &"removed".into()));
        assert_eq!(fleet.run(&["show", b]).code, 69);
        assert_eq!(files(&fleet.home).len(), 2);

        waits = Some(Running::start(fleet.home.command(&["wait", a])));
        follows = Some(Running::start(fleet.home.command(&["logs", "-f", c])));
        for waiter in [&waits, &follows].into_iter().flatten() {
            eventually("it waits for the hub", || {
                waiter
                    .errors()
                    .contains("waiting for the hub")
                    .then_some(())
            });
        }
    });
    let follows = follows.as_mut().unwrap();
    assert_eq!(follows.line(), "c");
    assert_eq!(follows.ended(), 0, "{}", follows.errors());
    let waits = waits.as_mut().unwrap();
    assert_eq!(waits.ended(), 0, "{}", waits.errors());
    let mut ran = gate.until_lines("ran", 2);
    ran.sort();
    assert_eq!(ran, ["a", "c"]);
    let unknown = fleet.run(&["show", &ids[1]]);
    assert_eq!(unknown.code, 64, "the hub never heard of it: {unknown:?}");
    assert_eq!(gate.lines("ran").len(), 2);
}

#[test]
fn a_job_whose_sending_was_cut_off_is_canceled_at_the_hub_too() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let mut id = String::new();
    fleet.without_hub(HubEnd::Killed, |fleet| {
        let nobody = ["--on", "nobody", "--queue-anyway", "--", "true"];
        id = spool(&fleet.home, &nobody);
        // As a sender leaves it that was killed with its ticket on the way.
        let file = files(&fleet.home).remove(0);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen('{', "{\"begun\":true,", 1)).unwrap();
        let ran = fleet.run(&["cancel", "--yes", &id]);
        assert!(
            ran.ok().contains("canceled when the hub is back"),
            "{ran:?}"
        );
        let shown = fleet.json(&["show", &id]);
        assert_eq!(shown["cancel_requested"], true, "{shown}");
    });
    eventually("it is told to the hub", || {
        files(&fleet.home).is_empty().then_some(())
    });
    let job = fleet.job(&id);
    assert_eq!(job["state"], "canceled", "{job}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 0, "{job}");
    // A wish to wait for what is gone.
    assert_eq!(fleet.run(&["wait", &id]).code, 130);
}

#[test]
fn sent_or_canceled_but_never_both() {
    let mut fleet = Fleet::of(&[("studio", 4)]);
    let gate = Gate::new();
    let mut ids = Vec::new();
    fleet.without_hub(HubEnd::Killed, |fleet| {
        for n in 0..8 {
            let line = script(&gate, &format!("j{n}"));
            ids.push(spool(&fleet.home, &["--shell", "--", &line]));
        }
    });
    // The hub sends by itself, a person sends, and another cancels.
    let mut commands: Vec<Command> = vec![fleet.home.command(&["spool", "send"])];
    let cancels = ids
        .iter()
        .map(|id| fleet.home.command(&["cancel", "--yes", id]));
    commands.extend(cancels);
    let ran: Vec<Ran> = together(commands);
    eventually("nothing waits", || {
        files(&fleet.home).is_empty().then_some(())
    });
    for (n, (id, canceled)) in ids.iter().zip(&ran[1..]).enumerate() {
        assert_eq!(canceled.code, 0, "{canceled:?}");
        let lines = gate.lines("ran");
        let runs = lines
            .iter()
            .filter(|line| **line == format!("j{n}"))
            .count();
        if canceled.out.contains("never sent") {
            assert_eq!(runs, 0, "{canceled:?}");
            assert_eq!(fleet.run(&["show", id]).code, 64, "{canceled:?}");
        } else {
            let (_, job) = fleet.ended(id);
            let state = job["state"].as_str().unwrap();
            assert!(["canceled", "succeeded"].contains(&state), "{job}");
            assert!(runs <= 1, "{job}");
        }
    }
}
