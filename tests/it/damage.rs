//! A hub whose store went back in time: found out, recovered into a new epoch, and no fencing token
//! given out twice. Backups: what is written is what is put back.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fleet::{Gate, HubEnd, only_attempt};
use crate::harness::{Fleet, Home, Ran, Running, eventually, eventually_or_say};

/// The folder of a stream on the hub's disk.
fn stream_dir(fleet: &Fleet, stream: &str) -> PathBuf {
    let accounts = fleet.home.fleet().join("hub/jetstream");
    let mut found = std::fs::read_dir(&accounts)
        .unwrap()
        .map(|account| account.unwrap().path().join("streams").join(stream))
        .filter(|path| path.exists());
    found.next().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    let ran = Ran::of(Command::new("cp").arg("-a").arg(from).arg(to));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A job that writes its token and waits for the gate.
fn gated(gate: &Gate, name: &str) -> String {
    let ran = gate.file("ran");
    format!(
        "echo {name} $FLEET_FENCING_TOKEN >> {}; {}",
        ran.display(),
        gate.wait("go")
    )
}

/// Every token that a job has written, none twice, by the job's name.
fn tokens(gate: &Gate) -> Vec<(String, u64)> {
    let lines = gate.lines("ran");
    let tokens: Vec<(String, u64)> = lines
        .iter()
        .map(|line| {
            let (name, token) = line.split_once(' ').unwrap();
            (name.to_owned(), token.parse().unwrap())
        })
        .collect();
    let distinct: BTreeSet<u64> = tokens.iter().map(|(_, token)| *token).collect();
    assert_eq!(
        distinct.len(),
        tokens.len(),
        "a token was given out twice: {lines:?}"
    );
    tokens
}

fn question(job: &Value) -> &str {
    job["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_lost_journal_is_said_and_only_what_a_machine_reports_goes_on() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    let runs = fleet.dispatch(&["--shell", "--", &gated(&gate, "runs")]);
    gate.until_lines("ran", 1);
    let waits: Vec<String> = (0..3)
        .map(|_| fleet.dispatch(&["--shell", "--", &gated(&gate, "waits")]))
        .collect();
    fleet.without_hub(HubEnd::Stopped, |fleet| {
        std::fs::remove_dir_all(stream_dir(fleet, "JOB")).unwrap();
    });
    let errors = fleet.hub.errors();
    assert!(errors.contains("stream JOB is missing"), "{errors}");
    // Until then the journal has nothing of them.
    fleet.event("hub.recovered", |_| true);
    for id in &waits {
        let job = fleet.until(id, "needs_human");
        assert!(question(&job).starts_with("hub restored from"), "{job}");
    }
    // The journal has it again once its machine has told of it.
    fleet.event("job.adopted", |e| e["job"] == runs.as_str());
    fleet.until(&runs, "running");
    let status = fleet.json(&["hub", "status"]);
    assert!(status["epoch"].as_u64().unwrap() > 0, "{status}");
    assert!(status["recovered"]["damage"]["JOB"].is_string(), "{status}");
    assert_eq!(status["recovered"]["asked"], 3, "{status}");
    fleet.event("hub.damaged", |e| e["data"]["detail"]["stream"] == "JOB");

    gate.open("go");
    let (code, job) = fleet.ended(&runs);
    assert_eq!(code, 0, "{job}");
    only_attempt(&job);
    let after = fleet.dispatch(&["--shell", "--", &gated(&gate, "after")]);
    assert_eq!(fleet.ended(&after).0, 0);
    let tokens = tokens(&gate);
    assert_eq!(
        tokens.len(),
        2,
        "what was put to the operator did not run: {tokens:?}"
    );
    assert!(tokens[1].1 > tokens[0].1, "{tokens:?}");

    // Nothing more is damaged: what was recovered stays as it is.
    fleet.without_hub(HubEnd::Killed, |_| {});
    assert_eq!(fleet.events("hub.recovered").len(), 1);
    assert_eq!(fleet.json(&["hub", "status"])["epoch"], status["epoch"]);
}

/// The last that was said about the machine's lease.
fn lease(fleet: &Fleet) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let last = bus.last("LEASE", "fleet.lease.studio.*").await;
        last.unwrap().unwrap().seq
    })
}

#[test]
fn an_older_copy_of_the_whole_hub_is_found_out_by_what_an_agent_has_seen() {
    let mut fleet = Fleet::of(&[("studio", 4)]);
    let gate = Gate::new();
    let known = fleet.dispatch(&["--shell", "--", &gated(&gate, "known")]);
    gate.until_lines("ran", 1);
    let hub = fleet.home.fleet().join("hub");
    let older = fleet.home.fleet().join("older");
    fleet.without_hub(HubEnd::Stopped, |_| copy_folder(&hub, &older));
    let copied = lease(&fleet);
    // All this will never have happened as far as the hub knows.
    let lost = fleet.dispatch(&["--shell", "--", &gated(&gate, "lost")]);
    gate.until_lines("ran", 2);
    for _ in 0..5 {
        assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
    }
    // The agent takes its lease anew at the older copy, and reads its journals, before that is found
    // to be one.
    eventually("the lease is renewed", || {
        (lease(&fleet) != copied).then_some(())
    });
    fleet.without_hub(HubEnd::Stopped, |_| {
        std::fs::remove_dir_all(&hub).unwrap();
        copy_folder(&older, &hub);
    });
    let damaged = fleet.event("hub.damaged", |e| e["data"]["detail"]["stream"] == "JOB");
    let text = damaged["data"]["detail"]["text"].as_str().unwrap();
    assert!(text.contains("studio has seen"), "{text}");
    // Both attempts run on, the one too of which the restored journal knows nothing.
    for id in [&known, &lost] {
        eventually_or_say("the attempt was reported", || {
            let ran = fleet.run(&["show", "--json", id]);
            let known = ran.out.contains("\"running\"");
            known.then_some(()).ok_or(format!("{id}: {ran:?}"))
        });
    }
    fleet.event("job.adopted", |e| e["job"] == lost.as_str());
    let later = fleet.dispatch(&["--shell", "--", &gated(&gate, "later")]);
    gate.until_lines("ran", 3);
    gate.open("go");
    for id in [&known, &lost, &later] {
        let (code, job) = fleet.ended(id);
        assert_eq!(code, 0, "{job}");
        only_attempt(&job);
    }
    let tokens = tokens(&gate);
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    assert!(
        tokens[2].1 > tokens[1].1 && tokens[1].1 > tokens[0].1,
        "{tokens:?}"
    );
}

/// Modes of every file below a folder.
fn modes(dir: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        found.push((path.clone(), mode));
        if path.is_dir() {
            modes(&path, found);
        }
    }
}

#[test]
fn a_backup_under_load_is_put_back_elsewhere_and_goes_on_in_a_new_epoch() {
    let fleet = Fleet::of(&[("studio", 2)]);
    let mut load = fleet
        .home
        .command(&["dispatch", "--count", "200", "--shell", "--", "seq 200"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("some have ended", || {
        let jobs = fleet.json(&["jobs", "--limit", "0", "--state", "succeeded"]);
        (jobs.as_array().unwrap().len() > 5).then_some(())
    });
    let dir = fleet.home.user().join("backup");
    let to = dir.to_str().unwrap();
    let copied = fleet.json(&["hub", "backup", to]);
    assert!(load.wait().unwrap().success());
    let again = fleet.run(&["hub", "backup", to]);
    assert_eq!(again.code, 64, "not over another one: {again:?}");

    let mut files = Vec::new();
    modes(&dir, &mut files);
    for (path, mode) in &files {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(*mode, expected, "{}", path.display());
    }
    let refused = fleet.run(&["hub", "restore", to, "--yes"]);
    assert_eq!(refused.code, 78, "{refused:?}");

    let other = Home::new();
    let asks = other.run(&["hub", "restore", to]);
    assert_eq!(asks.code, 64, "no terminal to ask on: {asks:?}");
    let restored = other.json(&["hub", "restore", to, "--yes"]);
    assert_eq!(restored["streams"], copied["streams"]);
    let hub = Running::start(other.command(&[
        "--json",
        "hub",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tether",
    ]));
    assert_eq!(hub.json_line()["event"], "ready");
    assert!(
        hub.errors().contains("was restored from a backup"),
        "{}",
        hub.errors()
    );
    let status = other.json(&["hub", "status"]);
    assert!(status["epoch"].as_u64().unwrap() > 0, "{status}");
    let jobs = other.json(&["jobs", "--limit", "0"]);
    let jobs = jobs.as_array().unwrap();
    assert!(jobs.len() > 5, "{}", jobs.len());
    for job in jobs {
        let state = job["state"].as_str().unwrap();
        assert!(
            ["succeeded", "needs_human", "running"].contains(&state),
            "{job}"
        );
    }
    hub.stop();

    // One bit is enough to refuse it.
    let file = dir.join("streams/JOB.snapshot");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let third = Home::new();
    let refused = third.run(&["hub", "restore", to, "--yes"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(
        refused.err.contains("JOB.snapshot is damaged"),
        "{refused:?}"
    );
    assert!(!third.fleet().join("hub/hub.json").exists());
    std::fs::remove_file(dir.join("manifest.json")).unwrap();
    let refused = third.run(&["hub", "restore", to, "--yes"]);
    assert!(refused.err.contains("is no backup"), "{refused:?}");
}

#[test]
fn a_stopped_hub_can_be_backed_up_and_nobody_reaches_it_meanwhile() {
    let mut fleet = Fleet::hub_alone();
    let gate = Gate::new();
    let to = gate.file("backup");
    let before = std::fs::read(fleet.home.fleet().join("credentials/operator.creds")).unwrap();
    fleet.without_hub(HubEnd::Stopped, |fleet| {
        let copied = fleet.json(&["hub", "backup", to.to_str().unwrap()]);
        assert_eq!(copied["streams"].as_array().unwrap().len(), 8, "{copied}");
    });
    let after = std::fs::read(fleet.home.fleet().join("credentials/operator.creds")).unwrap();
    let url = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("127.0.0.1");
    assert_eq!(url(&before), url(&after));
    assert_eq!(fleet.events("hub.damaged"), [] as [Value; 0]);
    let nothing = Home::new();
    let refused = nothing.run(&["hub", "backup", gate.file("no").to_str().unwrap()]);
    assert_eq!(refused.code, 78, "{refused:?}");
}

#[test]
fn what_ended_after_the_backup_and_was_forgotten_since_is_told_again_after_a_restore() {
    let mut fleet = Fleet::of(&[("studio", 3)]);
    let gate = Gate::new();
    let script = |code: u32| format!("seq 3; {}; exit {code}", gated(&gate, "known"));
    let well = fleet.dispatch(&["--shell", "--", &script(0)]);
    let badly = fleet.dispatch(&["--shell", "--", &script(3)]);
    gate.until_lines("ran", 2);
    fleet.until_count(2, "running");
    let copy = gate.file("backup");
    let copy = copy.to_str().unwrap();
    fleet.json(&["hub", "backup", copy]);
    // All this the hub will not know.
    gate.open("go");
    assert_eq!(fleet.ended(&well).0, 0);
    assert_eq!(fleet.ended(&badly).0, 3);
    let after = fleet.dispatch(&["--shell", "--", "seq 3; exit 4"]);
    assert_eq!(fleet.ended(&after).0, 4);
    let agent = fleet.take("studio");
    until_forgotten(&agent.home, 3);
    assert_eq!(agent.process.stop(), 0);

    fleet.without_hub(HubEnd::Stopped, |fleet| {
        std::fs::remove_dir_all(fleet.home.fleet().join("hub")).unwrap();
        fleet.json(&["hub", "restore", copy, "--yes"]);
    });
    let agent = fleet.agent(agent.home, "studio", &[]);
    for (id, code) in [(&well, 0), (&badly, 3), (&after, 4)] {
        let job = eventually_or_say("its end is told again", || {
            let ran = fleet.run(&["show", "--json", id]);
            let job: Option<Value> = serde_json::from_str(&ran.out).ok();
            job.filter(|job| job["ended_at"].is_string())
                .ok_or(format!("{id}: {ran:?}"))
        });
        let state = if code == 0 { "succeeded" } else { "failed" };
        assert_eq!(
            (&job["state"], &job["exit_code"]),
            (&state.into(), &code.into())
        );
        only_attempt(&job);
        // Its output was forgotten, too; that is said, and waited for by nobody.
        assert_eq!(fleet.run(&["logs", id]).code, 0);
        assert_eq!(fleet.run(&["wait", id]).code, code);
    }
    // Nobody says that two ran, or asks.
    assert_eq!(fleet.events("attempt.superseded"), [] as [Value; 0]);
    let asked = fleet.json(&["jobs", "--state", "needs_human"]);
    assert_eq!(asked, serde_json::json!([]));
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
    assert_eq!(agent.process.stop(), 0);
}

/// Waits until the executor has nothing of its attempts any more but so many small records.
fn until_forgotten(home: &Home, records: usize) {
    let names = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(home.fleet().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    eventually("all is forgotten", || {
        let days = names("agent/ended");
        let texts = days.iter().map(|day| std::fs::read_to_string(day).unwrap());
        let kept: usize = texts.map(|text| text.lines().count()).sum();
        let folders = names("agent/jobs").iter().any(|path| path.is_dir());
        (kept == records && !folders).then_some(())
    });
}
