//! Wrong input: each its own clear refusal, with the exit code that says what kind it is.

use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use fleet_nats::testing::TestPort;

use crate::harness::{Fleet, Home};

/// Two seconds are promised where the machine has nothing else to do; under load it may take some
/// more, but does not wait for a hub.
const AT_ONCE: Duration = Duration::from_secs(30);

#[test]
fn a_wrong_command_line_is_refused_with_what_to_type() {
    let home = Home::new();
    let long = "x".repeat(120 * 1024);
    for (words, code, expected) in [
        (
            &["dispatch", "make", "test"][..],
            64,
            "; fleet dispatch -- make test",
        ),
        (&["dispatch"], 64, "no command to run"),
        (&["dispatch", "--", ""], 64, "empty command"),
        (&["run"], 64, "no command to run"),
        (&["jbos"], 64, "'jobs'"),
        (
            &["dispatch", "--timeout", "soon", "--", "x"],
            64,
            "write it like 30s",
        ),
        (
            &["dispatch", "--timeout", "0s", "--", "x"],
            64,
            "time-out of zero",
        ),
        (
            &["dispatch", "--expires", "5", "--", "x"],
            64,
            "is not a duration",
        ),
        (
            &["dispatch", "--on", "No Name", "--", "x"],
            64,
            "machine id",
        ),
        (&["dispatch", "--env", "A", "--", "x"], 64, "NAME=VALUE"),
        (&["dispatch", "--tag", "=b", "--", "x"], 64, "NAME=VALUE"),
        (
            &["dispatch", "--count", "0", "--", "x"],
            64,
            "0 is not in 1..=100000",
        ),
        (
            &["dispatch", "--stdin", "/no/such/file", "--", "x"],
            64,
            "cannot read --stdin",
        ),
        (
            &["dispatch", "--cwd", "~bob/x", "--", "x"],
            64,
            "another user's home",
        ),
        (
            &["dispatch", "--name", "a\nb", "--", "x"],
            64,
            "name is not valid",
        ),
        (
            &["dispatch", "--", &long, &long, &long, &long, &long],
            64,
            "--stdin FILE",
        ),
        (&["jobs", "--state", "done"], 64, "needs_human"),
        (&["retry"], 64, "no job to retry; fleet retry JOB"),
        (
            &["retry", "abcd", "--state", "failed"],
            64,
            "either named or chosen",
        ),
        (&["retry", "--state", "done"], 64, "is no state"),
        (&["retry", "--since", "5"], 64, "is not a duration"),
        (&["retry", "--machine", "No Name"], 64, "machine id"),
        (&["resolve"], 64, "<JOB>"),
        (
            &["resolve", "abcd"],
            64,
            "succeeded, failed or queued, not \"abcd\"",
        ),
        (&["resolve", "failed"], 64, "no job to resolve"),
        (
            &["resolve", "abcd", "queued", "--notes", "x"],
            64,
            "--notes are kept of an end only",
        ),
        (
            &["resolve", "abcd", "failed", "--notes", ""],
            64,
            "--notes is empty",
        ),
        (&["move", "abcd"], 64, "--on <M|here>"),
        (
            &["dispatch", "--retries", "1001", "--", "x"],
            64,
            "1001 is not in 0..=1000",
        ),
        (
            &["dispatch", "--retries", "1", "--retry-on", "0", "--", "x"],
            64,
            "no exit code of a failure",
        ),
        (
            &["dispatch", "--retry-on", "7", "--", "x"],
            64,
            "--retries <N>",
        ),
        (&["logs", "abcd", "--attempt", "first"], 64, "invalid digit"),
        (
            &["logs", "abcd", "-f", "--attempt", "1"],
            64,
            "--attempt <N>",
        ),
        (&["failures", "--by", "moon"], 64, "machine, role, reason"),
        (&["failures", "--since", "ever"], 64, "is not a duration"),
        (&["--hub", "http://x", "jobs"], 64, "nats://studio:4222"),
        (&["up", "--slots", "0"], 64, "use 1 to 4096"),
        (
            &["hub", "credentials", "--machine", "x", "--out", "y"],
            78,
            "fleet hub run",
        ),
        (
            &["agent", "run", "--name", "x"],
            77,
            "fleet hub credentials --machine x",
        ),
        (&["agent", "status"], 69, "no agent runs"),
        (&["tui"], 64, "needs a terminal"),
    ] {
        let ran = home.run(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.starts_with("fleet: "), "{words:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{words:?}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{words:?}: {ran:?}");
        assert_eq!(ran.out, "", "{words:?}");
    }
    let bytes = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let words = [std::ffi::OsString::from("dispatch"), "--".into(), bytes];
    let ran = home.run(&words);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("argument 3 is not UTF-8"), "{ran:?}");
    let json = home.run(&["--json", "dispatch", "make"]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(error["error"]["exit_code"], 64);
    assert_eq!(error["error"]["next"], "fleet dispatch -- make");
}

#[test]
fn bad_settings_name_file_line_and_key() {
    let home = Home::new();
    std::fs::create_dir_all(home.fleet()).unwrap();
    std::fs::write(home.fleet().join("config.toml"), "\nslosts = 3\n").unwrap();
    let ran = home.run(&["jobs"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(
        ran.err
            .contains("config.toml:2: there is no setting \"slosts\""),
        "{ran:?}"
    );
    assert!(ran.err.contains("nearest is \"slots\""), "{ran:?}");
}

#[test]
fn without_a_hub_a_dispatch_fails_at_once_and_says_what_to_do() {
    let home = Home::new();
    let nobody = TestPort::take();
    let hub = format!("nats://{}", nobody.address());
    let begun = Instant::now();
    let ran = home.run(&["--hub", &hub, "dispatch", "--", "true"]);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(ran.code, 69, "{ran:?}");
    for part in [hub.as_str(), "connection refused", "fleet up", "fleet run"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    // One that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = format!("nats://{}", silent.local_addr().unwrap());
    let ran = home.run(&["--hub", &hub, "jobs"]);
    assert_eq!(
        ran.code, 77,
        "somebody is there, but there are no credentials: {ran:?}"
    );
}

#[test]
fn a_hub_that_is_gone_or_silent_is_told_within_two_seconds() {
    let fleet = Fleet::hub_alone();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = format!("nats://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let ran = fleet.run(&["--hub", &hub, "dispatch", "--", "true"]);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(ran.code, 69, "{ran:?}");
    assert!(ran.err.contains("timed out"), "{ran:?}");
    let (home, url) = (fleet.home, fleet.url);
    assert_eq!(fleet.hub.stop(), 0);
    let ran = home.run(&["dispatch", "--", "true"]);
    assert_eq!(ran.code, 69, "{ran:?}");
    for part in [url.as_str(), "connection refused", "fleet up", "fleet run"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn what_the_fleet_does_not_have_is_refused_with_what_it_has() {
    let fleet = Fleet::up("studio", 1);
    let ran = fleet.run(&["dispatch", "--on", "stduio", "--", "true"]);
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.err.contains("the nearest is studio"), "{ran:?}");
    let queued = fleet.run(&["dispatch", "--on", "later", "--queue-anyway", "--", "true"]);
    assert_eq!(queued.code, 0, "{queued:?}");
    assert!(queued.err.contains("later is not known yet"), "{queued:?}");
    assert_eq!(fleet.job(queued.out.trim())["state"], "queued");
    let creds = fleet.home.user().join("mini.creds");
    let creds = creds.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", "mini", "--out", creds])
        .ok();
    let worker = ["--credentials", creds, "dispatch", "--", "true"];
    for (words, code, expected) in [
        (&worker[..], 77, "worker \"mini\" do not permit this"),
        (&["show", "zzzz"][..], 64, "no job begins with"),
        (&["show", "aaaaaaaaaaaaaaaa"], 64, "no job aaaaaaaaaaaaaaaa"),
        (&["logs", "NO"], 64, "is no job id"),
        (&["wait", "aaaaaaaaaaaaaaaa"], 64, "no job"),
        (&["cancel", "--yes", "aaaaaaaaaaaaaaaa"], 64, "no job"),
        (
            &["machines", "forget", "studoi", "--yes"],
            64,
            "the nearest is studio",
        ),
        (
            &["machines", "forget", "studio", "--yes"],
            64,
            "stop its agent",
        ),
    ] {
        let ran = fleet.run(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{words:?}: {ran:?}");
    }
    let limit = vec![b'x'; 8 * 1024 * 1024 + 1];
    let words = ["dispatch", "--stdin", "-", "--", "wc", "-c"];
    // The pipe closes before all is read: only the refusal counts.
    let file = fleet.home.user().join("big");
    std::fs::write(&file, &limit).unwrap();
    let words = words.map(|w| if w == "-" { file.to_str().unwrap() } else { w });
    let ran = fleet.run(&words);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("8 MiB"), "{ran:?}");
    std::fs::write(&file, &limit[1..]).unwrap();
    let words: Vec<&str> = words.into_iter().collect();
    let ran = fleet.run(&[&["dispatch", "--follow"], &words[1..]].concat());
    assert_eq!(ran.ok().trim(), "8388608", "exactly 8 MiB fit");
}
