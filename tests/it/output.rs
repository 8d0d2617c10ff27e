//! Output: logs, following, pipes, settings, help.

use std::io::Read;
use std::process::Stdio;

use sha2::{Digest, Sha256};

use crate::harness::{Fleet, Home, Running, eventually, signal_process};

#[test]
fn a_pipe_gets_the_bytes_as_they_were() {
    let fleet = Fleet::up("studio", 1);
    let script = "head -c 3000000 /dev/urandom > r; cat r; printf 'e\\033[2J\\377' >&2";
    let followed = fleet.run(&[
        "dispatch", "--follow", "--shell", "--cwd", ".", "--", script,
    ]);
    assert_eq!(followed.code, 0, "{}", followed.err);
    let written = std::fs::read(fleet.home.user().join("work/r")).unwrap();
    let same = |bytes: &[u8]| Sha256::digest(bytes) == Sha256::digest(&written);
    assert!(same(&followed.bytes), "{} bytes came", followed.bytes.len());
    assert!(followed.err.contains("e\u{1b}[2J"), "{}", followed.err);
    let jobs = fleet.json(&["jobs"]);
    let id = jobs[0]["id"].as_str().unwrap();
    assert_eq!(
        jobs[0]["attempts"][0]["output"]["stdout"]["bytes"],
        3_000_000
    );
    for words in [
        &["logs", id][..],
        &["logs", "-f", &id[..6]],
        &["logs", "--raw", id],
    ] {
        assert!(same(&fleet.run(words).bytes), "{words:?}");
    }
    let (_, chunks) = fleet.home.json_lines(&["logs", id]);
    assert!(chunks.iter().any(|chunk| chunk["base64"].is_string()));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["text"].is_string() != chunk["base64"].is_string())
    );
}

#[test]
fn output_is_whole_and_in_order_though_the_hub_is_killed_meanwhile() {
    let fleet = Fleet::up("studio", 1);
    let script = "head -c 100000000 /dev/urandom > r; cat r";
    let mut child = fleet
        .home
        .command(&[
            "dispatch", "--follow", "--shell", "--cwd", ".", "--", script,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut came = vec![0; 10_000_000];
    out.read_exact(&mut came).unwrap();
    let server = std::fs::read_to_string(fleet.home.fleet().join("hub/nats-server.pid")).unwrap();
    signal_process(
        server.trim().parse().unwrap(),
        rustix::process::Signal::KILL,
    );
    out.read_to_end(&mut came).unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        ended.status.success() && !told.contains("missing"),
        "{told}"
    );
    let written = std::fs::read(fleet.home.user().join("work/r")).unwrap();
    let written = Sha256::digest(&written);
    assert_eq!(came.len(), 100_000_000);
    assert_eq!(Sha256::digest(&came), written, "as it was followed");
    let id = fleet.json(&["jobs"])[0]["id"].as_str().unwrap().to_owned();
    let logs = fleet.run(&["logs", &id]);
    assert_eq!(
        Sha256::digest(&logs.bytes),
        written,
        "as it is stored: {}",
        logs.err
    );
}

#[test]
fn following_begins_at_line_one_and_ends_with_the_job() {
    let fleet = Fleet::up("studio", 1);
    let script = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two";
    let id = fleet.dispatch(&["--shell", "--cwd", ".", "--", script]);
    fleet.until(&id, "running");
    let mut first = Running::start(fleet.home.command(&["logs", "-f", &id]));
    assert_eq!(first.line(), "one");
    let mut second = Running::start(fleet.home.command(&["logs", "-f", &id]));
    assert_eq!(
        second.line(),
        "one",
        "a later follower begins at line one too"
    );
    std::fs::write(fleet.home.user().join("work/go"), "").unwrap();
    for follower in [&mut first, &mut second] {
        assert_eq!(follower.line(), "two");
        assert_eq!(follower.ended(), 0);
    }
    assert_eq!(fleet.run(&["logs", &id]).ok(), "one\ntwo");
}

#[test]
fn the_flow_shows_events_as_they_come() {
    let fleet = Fleet::up("studio", 1);
    let flow = Running::start(
        fleet
            .home
            .command(&["--json", "flow", "-f", "--since", "1h"]),
    );
    let until = |kind: &str| loop {
        let event = flow.json_line();
        if event["kind"] == kind {
            return event;
        }
    };
    until("machine.up");
    let id = fleet.dispatch(&["--", "true"]);
    assert_eq!(until("job.claimed")["machine"], "studio");
    assert_eq!(until("job.ended")["job"], id.as_str());
    let kinds = fleet
        .home
        .json_lines(&["flow", "--kind", "job", "--machine", "studio"])
        .1;
    let kinds: Vec<&str> = kinds.iter().filter_map(|e| e["kind"].as_str()).collect();
    assert_eq!(kinds, ["job.claimed", "job.ended"]);
    // Whoever was faster, the dispatch is an event.
    for _ in 0..8 {
        let id = fleet.dispatch(&["--wait", "--", "true"]);
        let id = id.lines().next().unwrap();
        let (_, events) = fleet.home.json_lines(&["flow", "--job", id]);
        let kinds: Vec<&str> = events.iter().filter_map(|e| e["kind"].as_str()).collect();
        assert_eq!(kinds, ["job.queued", "job.claimed", "job.ended"]);
    }
    assert_eq!(
        fleet
            .home
            .json_lines(&["flow", "--kind", "nothing"])
            .1
            .len(),
        0
    );
}

#[test]
fn a_closed_pipe_is_success() {
    let fleet = Fleet::up("studio", 1);
    let words = [
        "dispatch",
        "--follow",
        "--shell",
        "--",
        "yes | head -c 5000000",
    ];
    let mut child = fleet
        .home
        .command(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_who_has_had_enough_does_not_keep_jobs_from_being_sent() {
    let fleet = Fleet::up("studio", 1);
    let mut child = fleet
        .home
        .command(&["dispatch", "--count", "300", "--", "true"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 17];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // A job without a first record yet has its ticket: it shows when it is claimed.
    eventually("all of them are there", || {
        let jobs = fleet.json(&["jobs", "--limit", "0"]);
        (jobs.as_array().unwrap().len() == 300).then_some(())
    });
}

#[test]
fn lists_for_people_and_plain_ones() {
    let fleet = Fleet::up("studio", 2);
    let id = fleet.dispatch(&["--wait", "--name", "tab\u{fc}", "--", "true"]);
    let id = id.lines().next().unwrap();
    let jobs = fleet.run(&["jobs"]);
    let row = jobs.ok().lines().nth(1).unwrap().to_owned();
    assert!(
        row.starts_with(&id[..4]) && !row.starts_with(id),
        "a short id: {row}"
    );
    assert!(row.contains("succeeded") && row.contains("tabü"), "{row}");
    assert!(!jobs.out.contains('\u{1b}'), "no colours into a pipe");
    let colored = fleet.run(&["jobs", "--color", "always"]);
    assert!(
        colored.ok().contains("\u{1b}[32msucceeded\u{1b}[0m"),
        "{colored:?}"
    );
    let plain = fleet.run(&["--plain", "jobs", "--color", "always"]);
    assert!(
        !plain.ok().contains('\u{1b}') && plain.out.contains("Z  ana@"),
        "{plain:?}"
    );
    let shown = fleet.run(&["show", &row[..4]]);
    assert!(shown.ok().contains("ATTEMPT"), "{shown:?}");
    let machines = fleet.run(&["machines"]);
    assert!(machines.ok().starts_with("MACHINE"), "{machines:?}");
    assert!(machines.out.contains("studio"), "{machines:?}");
}

#[test]
fn settings_say_where_they_come_from() {
    let home = Home::new();
    std::fs::create_dir_all(home.fleet()).unwrap();
    std::fs::write(
        home.fleet().join("config.toml"),
        "slots = 3\n[env]\nA = \"1\"\n",
    )
    .unwrap();
    std::fs::write(home.user().join(".fleet.toml"), "hub = \"studio\"\n").unwrap();
    let rows = home.json(&["config", "show", "--color", "never"]);
    let row = |key: &str| {
        let rows = rows.as_array().unwrap();
        let row = rows.iter().find(|r| r["key"] == key).unwrap();
        (
            row["value"].as_str().unwrap_or("-").to_owned(),
            row["origin"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(row("slots").0, "3");
    assert!(row("slots").1.ends_with("config.toml:1"));
    assert_eq!(row("hub").0, "nats://studio:4222");
    assert!(row("hub").1.ends_with(".fleet.toml:1"));
    assert_eq!(row("env.A").0, "1");
    assert_eq!(row("color"), ("never".to_owned(), "--color".to_owned()));
    assert_eq!(row("heartbeat"), ("5s".to_owned(), "default".to_owned()));
    assert_eq!(row("home").1, "environment FLEET_HOME");
}

#[test]
fn settings_of_a_fleet_are_the_ones_that_hold() {
    let fleet = Fleet::up("laptop", 1);
    let rows = fleet.json(&["config", "show"]);
    let row = |key: &str| {
        let rows = rows.as_array().unwrap();
        let row = rows.iter().find(|r| r["key"] == key).unwrap();
        [row["value"].clone(), row["origin"].clone()]
    };
    assert_eq!(
        row("hub"),
        [fleet.url.as_str(), "credentials/operator.creds"]
    );
    assert_eq!(row("machine"), ["laptop", "credentials/laptop.creds"]);
}

#[test]
fn help_version_and_completions_need_nothing() {
    let home = Home::new();
    let help = home.run(&["--help"]);
    assert!(
        help.ok().contains("dispatch") && !help.out.contains("executor"),
        "{help:?}"
    );
    for verb in [
        "up", "dispatch", "hub", "agent", "jobs", "logs", "machines", "flow", "cancel",
    ] {
        assert!(
            home.run(&[verb, "--help"]).ok().contains("Usage: fleet"),
            "{verb}"
        );
    }
    assert!(home.run(&["--version"]).ok().starts_with("fleet "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.run(&["completions", shell])
                .ok()
                .contains("FLEET_COMPLETE"),
            "{shell}"
        );
    }
    for (words, expected) in [(&[][..], "dispatch"), (&["hub"], "install-server")] {
        let bare = home.run::<&str>(words);
        assert_eq!((bare.code, bare.out.as_str()), (64, ""), "{bare:?}");
        assert!(
            bare.err.contains(expected) && !bare.err.contains("login-env"),
            "{bare:?}"
        );
    }
    assert_eq!(home.run(&["--json"]).code, 64);
    assert!(!home.fleet().exists(), "nothing was written");
}
