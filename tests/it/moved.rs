//! A hub that comes back at another address: nothing that runs notices, what waits arrives there,
//! and whoever waits is told what to type.

use crate::fleet::{Gate, only_attempt, runs};
use crate::harness::{Fleet, Home, Running, eventually};

/// A line for a shell that says who it is, waits for its gate and ends with `code`.
fn script(gate: &Gate, name: &str, code: u8) -> String {
    format!(
        "echo \"{name} $FLEET_FENCING_TOKEN $$\" >> {}; {}; echo done {name}; exit {code}",
        gate.file("ran").display(),
        gate.wait(name)
    )
}

/// What a job wrote when it began: its token and process.
fn begun(gate: &Gate, name: &str) -> (u64, u32) {
    let begins = format!("{name} ");
    let line = eventually(&format!("{name} runs"), || {
        let mut lines = gate.lines("ran").into_iter();
        lines.find(|line| line.starts_with(&begins) && line.split(' ').count() == 3)
    });
    let mut words = line.split(' ').skip(1);
    let token = words.next().unwrap().parse().unwrap();
    (token, words.next().unwrap().parse().unwrap())
}

#[test]
fn a_hub_that_was_moved_gets_everything_from_agents_that_were_given_its_new_address() {
    let mut fleet = Fleet::of(&[("studio", 3)]);
    let gate = Gate::new();
    let ends = fleet.dispatch(&["--shell", "--", &script(&gate, "ends", 3)]);
    let on = script(&gate, "on", 0);
    let words = ["dispatch", "--wait", "--shell", "--", &on];
    let waits = Running::start(fleet.home.command(&words));
    let goes_on = waits.line();
    let (_, ending) = begun(&gate, "ends");
    let (token, running) = begun(&gate, "on");
    for id in [&ends, &goes_on] {
        fleet.until(id, "running");
    }
    let agent = fleet.agents[0].process.pid();

    // Moved as the documents say: stopped, backed up, restored elsewhere.
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0, "{}", fleet.hub.errors());
    let backup = fleet.home.user().join("backup");
    let backup = backup.to_str().unwrap();
    fleet.run(&["hub", "backup", backup]).ok();
    let elsewhere = Home::new();
    elsewhere.run(&["hub", "restore", "--yes", backup]).ok();
    gate.open("ends");
    eventually("it has ended without a hub", || {
        (!runs(ending)).then_some(())
    });
    let told = eventually("whoever waits is told what to type", || {
        let told = waits.errors();
        told.contains("--hub nats://HOST:PORT").then_some(told)
    });
    assert!(told.contains(&format!("fleet wait {goes_on}")), "{told}");
    let words = [
        "--json",
        "hub",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tether",
    ];
    let hub = Running::start(elsewhere.command(&words));
    let ready = hub.json_line();
    let url = ready["hub"].as_str().unwrap().to_owned();
    assert_ne!(url, fleet.url);

    // For another machine they are refused, and nothing has changed.
    let studio = &fleet.agents[0].home;
    let file = |machine: &str| {
        let file = elsewhere.user().join(format!("{machine}.creds"));
        let file = file.to_str().unwrap().to_owned();
        let words = ["hub", "credentials", "--machine", machine, "--out", &file];
        elsewhere.run(&words).ok();
        file
    };
    let refused = studio.run(&["agent", "credentials", &file("other")]);
    assert_eq!(refused.code, 78, "{refused:?}");
    let taken = studio.json(&["agent", "credentials", &file("studio")]);
    assert_eq!(
        (&taken["machine"], &taken["hubs"][0], &taken["running"]),
        (&"studio".into(), &url.as_str().into(), &true.into()),
        "{taken}"
    );
    eventually("the agent says where it goes on", || {
        let line = fleet.agents[0].process.json_line();
        (line["event"] == "renewed").then_some(())
    });
    // A busy machine may take longer than a command waits for its hub.
    let answer = |words: &[&str]| {
        let words = [&["--json"], words].concat();
        eventually(&format!("an answer to {words:?}"), || {
            let ran = elsewhere.run(&words);
            let lines = (ran.code == 0).then(|| crate::harness::lines(&ran.out));
            lines.filter(|lines| !lines.is_empty())
        })
    };
    let status = eventually("it is in service there", || {
        let ran = studio.run(&["--json", "agent", "status"]);
        let status = crate::harness::lines(&ran.out).pop()?;
        (status["connected"] == true && status["lease"] == true).then_some(status)
    });
    assert_eq!(status["pid"], agent, "the same process");

    // What ended meanwhile is there, once; what ran runs on, under its token.
    let show = |id: &str| answer(&["show", id]).remove(0);
    let job = eventually("what ended meanwhile is there", || {
        Some(show(&ends)).filter(|job| job["state"] == "failed")
    });
    assert_eq!(job["exit_code"], 3, "{job}");
    only_attempt(&job);
    assert!(runs(running), "nobody ended it");
    assert_eq!(show(&goes_on)["state"], "running");
    // What the waiter was told to type, with the address of now.
    let creds = elsewhere.fleet().join("credentials/operator.creds");
    let creds = creds.to_str().unwrap();
    let words = ["wait", &goes_on, "--hub", &url, "--credentials", creds];
    gate.open("on");
    eventually("what was told to be typed works", || {
        let ran = fleet.home.run(&words);
        assert!([0, 69].contains(&ran.code), "{ran:?}");
        (ran.code == 0).then_some(())
    });
    let job = show(&goes_on);
    assert_eq!(only_attempt(&job)["token"], token, "{job}");
    assert_eq!(gate.lines("ran").len(), 2, "each ran once");
    for (id, name) in [(&ends, "ends"), (&goes_on, "on")] {
        let expected = format!("done {name}");
        eventually("its output is there", || {
            let ran = elsewhere.run(&["logs", id]);
            (ran.out.trim() == expected).then_some(())
        });
        let words = ["flow", "--kind", "job.ended", "--job", id];
        assert_eq!(answer(&words).len(), 1, "one end");
    }
    let kinds = answer(&["flow"]);
    let superseded = kinds.iter().filter(|e| e["kind"] == "attempt.superseded");
    assert_eq!(superseded.count(), 0);
    waits.kill();
}
