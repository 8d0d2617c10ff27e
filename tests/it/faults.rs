//! Processes that die at the worst moment: nothing acknowledged is lost, nothing runs twice that
//! may not, and every loss is told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleet_contract::envelope::MESSAGE_MAX_BYTES;
use fleet_contract::outcome::CHUNK_MAX_BYTES;
use fleet_nats::bus::{BusError, Store};
use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::{Gate, HubEnd, kill, only_attempt, runs};
use crate::harness::{Fleet, Running, eventually};

/// A line for a shell that says in the file `ran` that it runs, writes a line before and one after
/// the gate `go`, and ends with `code`.
fn gated(gate: &Gate, code: u8) -> String {
    format!(
        "echo \"$FLEET_JOB $FLEET_FENCING_TOKEN $FLEET_MACHINE $$\" >> {}; echo before; {}; \
         echo after; exit {code}",
        gate.file("ran").display(),
        gate.wait("go")
    )
}

/// The word of a line that [`gated`] or a like job wrote.
fn word(line: &str, at: usize) -> &str {
    line.split(' ').nth(at).unwrap()
}

/// Waits until the hub has all that a job wrote: after an outage that may be later than its end.
fn until_log(fleet: &Fleet, id: &str, expected: &str) {
    eventually("the whole log", || {
        let ran = fleet.run(&["logs", id]);
        (ran.ok() == expected).then_some(())
    });
}

#[test]
fn a_killed_agent_loses_neither_job_nor_output_nor_exit_status() {
    let mut fleet = Fleet::of(&[("studio", 3)]);
    let gate = Gate::new();
    let words = ["--shell", "--"];
    let job = |script: &str| fleet.dispatch(&[&words[..], &[script]].concat());
    // One ends while there is no agent, one goes on until there is one again, one writes much.
    let ends = job(&gated(&gate, 3));
    let goes_on = job(&format!("echo on; {}; echo off", gate.wait("later")));
    let blob = "yes 0123456789abcdef | head -c 3000000";
    let writes = job(&format!("{}; {blob}", gate.wait("go")));
    for id in [&ends, &goes_on, &writes] {
        fleet.until(id, "running");
    }
    let follower = Running::start(fleet.home.command(&["logs", "-f", &goes_on]));
    assert_eq!(follower.line(), "on");
    let shell: u32 = word(&gate.until_lines("ran", 1)[0], 3).parse().unwrap();

    let home = fleet.take("studio").kill();
    gate.open("go");
    eventually("the job has ended without an agent", || {
        (!runs(shell)).then_some(())
    });
    assert_eq!(
        fleet.job(&ends)["state"],
        "running",
        "nobody could tell yet"
    );
    fleet.again(home, "studio", &["--slots", "3"]);

    let (code, job) = fleet.ended(&ends);
    assert_eq!((code, &job["exit_code"]), (3, &3.into()), "{job}");
    only_attempt(&job);
    until_log(&fleet, &ends, "before\nafter");
    assert_eq!(gate.lines("ran").len(), 1, "it ran once");

    let (code, job) = fleet.ended(&writes);
    assert_eq!(code, 0, "{job}");
    let expected = "0123456789abcdef\n".repeat(3_000_000 / 17 + 1);
    until_log(&fleet, &writes, expected[..3_000_000].trim_end());

    assert_eq!(fleet.job(&goes_on)["state"], "running", "it ran through");
    gate.open("later");
    assert_eq!(follower.line(), "off");
    let (code, job) = fleet.ended(&goes_on);
    assert_eq!(code, 0, "{job}");
    only_attempt(&job);
    assert_eq!(fleet.events("attempt.superseded"), [] as [Value; 0]);
}

/// Dispatches one gated job for each policy and waits until all run; their ids by policy, and
/// whoever waits for the one that asks.
fn one_of_each(fleet: &Fleet, gate: &Gate) -> (BTreeMap<&'static str, String>, Running) {
    let script = gated(gate, 0);
    let mut ids = BTreeMap::new();
    for policy in ["fail", "retry"] {
        let words = ["--on-lost", policy, "--shell", "--", &script];
        ids.insert(policy, fleet.dispatch(&words));
    }
    let words = ["dispatch", "--wait", "--shell", "--", &script];
    let waits = Running::start(fleet.home.command(&words));
    ids.insert("ask", waits.line());
    gate.until_lines("ran", 3);
    for id in ids.values() {
        fleet.until(id, "running");
    }
    (ids, waits)
}

/// How often a job ran, by what it wrote itself; each time with another token.
fn times(gate: &Gate, id: &str) -> usize {
    let lines = gate.lines("ran");
    let mut tokens: Vec<&str> = lines
        .iter()
        .filter(|line| word(line, 0) == id)
        .map(|line| word(line, 1))
        .collect();
    let times = tokens.len();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), times, "a token was used twice: {lines:?}");
    times
}

#[test]
fn a_stopped_agent_interrupts_its_jobs_as_their_policy_says() {
    let mut fleet = Fleet::hub_alone();
    fleet.add_agent("studio", &["--slots", "3", "--grace", "100ms"]);
    let gate = Gate::new();
    let (ids, mut waits) = one_of_each(&fleet, &gate);
    let agent = fleet.take("studio");
    assert_eq!(agent.process.stop(), 0);
    for line in gate.lines("ran") {
        assert!(!runs(word(&line, 3).parse().unwrap()), "{line}");
    }
    assert_eq!(fleet.machine("studio").unwrap()["state"], "offline");

    assert_eq!(waits.ended(), 75, "nobody answers");
    let job = fleet.job(&ids["ask"]);
    assert_eq!(job["state"], "needs_human", "{job}");
    assert_eq!(only_attempt(&job)["reason"], "interrupted");
    let job = fleet.job(&ids["fail"]);
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(fleet.ended(&ids["fail"]).0, 1);

    gate.open("go");
    fleet.again(agent.home, "studio", &[]);
    let (code, job) = fleet.ended(&ids["retry"]);
    assert_eq!((code, &job["attempt"]), (0, &2.into()), "{job}");
    assert_eq!(times(&gate, &ids["retry"]), 2);
    assert_eq!(gate.lines("ran").len(), 4, "the others ran once");
    until_log(&fleet, &ids["retry"], "before\nbefore\nafter");
}

#[test]
fn a_killed_executor_leaves_no_process_and_its_jobs_to_their_policy() {
    let fleet = Fleet::of(&[("studio", 3)]);
    let gate = Gate::new();
    let (ids, mut waits) = one_of_each(&fleet, &gate);
    let first = gate.lines("ran");
    kill(fleet.agents[0].executor());
    assert_eq!(waits.ended(), 75);
    let job = fleet.job(&ids["ask"]);
    assert_eq!(job["state"], "needs_human", "{job}");
    let reason = only_attempt(&job)["reason"].as_str().unwrap();
    assert!(reason.contains("executor"), "{reason}");
    let (code, job) = fleet.ended(&ids["fail"]);
    assert_eq!((code, &job["state"]), (75, &"lost".into()), "{job}");
    for line in &first {
        assert!(!runs(word(line, 3).parse().unwrap()), "{line}");
    }
    // It runs again, on the executor that was started for the dead one.
    gate.until_lines("ran", 4);
    gate.open("go");
    let (code, job) = fleet.ended(&ids["retry"]);
    assert_eq!((code, &job["attempt"]), (0, &2.into()), "{job}");
    assert_eq!(times(&gate, &ids["retry"]), 2);
    assert_eq!(gate.lines("ran").len(), 4, "the others ran once");
    fleet.event("executor.started", |e| e["machine"] == "studio");
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}

#[test]
fn what_was_acknowledged_outlives_the_hub_before_its_claim_and_before_its_end() {
    let mut fleet = Fleet::of(&[("studio", 2)]);
    let gate = Gate::new();
    let agent = fleet.take("studio");
    assert_eq!(agent.process.stop(), 0);
    let script = gated(&gate, 0);
    let words = ["--count", "8", "--shell", "--", &script];
    let ids = fleet.dispatch(&words);
    let pinned = fleet.dispatch(&["--on", "studio", "--shell", "--", &script]);
    let ids: Vec<&str> = ids.lines().chain([pinned.as_str()]).collect();
    fleet.without_hub(HubEnd::Killed, |_| {});
    fleet.until_count(9, "queued");
    fleet.again(agent.home, "studio", &["--slots", "2"]);
    gate.until_lines("ran", 2);

    // Claimed, running, and the hub is gone when they end.
    fleet.without_hub(HubEnd::Killed, |_| {
        gate.open("go");
        for line in gate.lines("ran") {
            let pid = word(&line, 3).parse().unwrap();
            eventually("the job has ended without a hub", || {
                (!runs(pid)).then_some(())
            });
        }
    });
    for id in &ids {
        let (code, job) = fleet.ended(id);
        assert_eq!(code, 0, "{job}");
        only_attempt(&job);
        assert_eq!(times(&gate, id), 1);
        until_log(&fleet, id, "before\nafter");
    }
    assert_eq!(gate.lines("ran").len(), 9);
    assert_eq!(fleet.events("journal.void"), [] as [Value; 0]);
}

#[test]
fn a_hub_that_is_stopped_while_a_job_runs_gets_its_result_later() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let gate = Gate::new();
    let id = fleet.dispatch(&["--shell", "--", &gated(&gate, 5)]);
    let pid = word(&gate.until_lines("ran", 1)[0], 3).parse().unwrap();
    let waits = ["wait", &id];
    fleet.without_hub(HubEnd::Stopped, |fleet| {
        let ran = fleet.run(&waits);
        assert_eq!(ran.code, 69, "{ran:?}");
        gate.open("go");
        eventually("the job has ended without a hub", || {
            (!runs(pid)).then_some(())
        });
    });
    let (code, job) = fleet.ended(&id);
    assert_eq!((code, &job["exit_code"]), (5, &5.into()), "{job}");
    only_attempt(&job);
    until_log(&fleet, &id, "before\nafter");
    fleet.event("link.healed", |e| e["machine"] == "studio");
    eventually("the machine is back", || {
        fleet.machine("studio").filter(|m| m["state"] != "lost")
    });
}

#[test]
fn a_killed_server_is_started_again_and_no_acknowledged_job_is_lost() {
    let fleet = Fleet::of(&[("ada", 2), ("bob", 2)]);
    let gate = Gate::new();
    let script = format!(
        "echo \"$FLEET_JOB $FLEET_FENCING_TOKEN\" >> {}",
        gate.file("ran").display()
    );
    let words = ["dispatch", "--count", "400", "--shell", "--", &script];
    let ids = std::fs::File::create(gate.file("ids")).unwrap();
    let mut dispatcher = fleet.home.command(&words).stdout(ids).spawn().unwrap();
    gate.until_lines("ids", 40);
    let server = fleet.server();
    kill(server);
    let restarted = fleet.event("hub.server_restarted", |_| true);
    assert!(
        restarted["data"]["detail"]["reason"].is_string(),
        "{restarted}"
    );
    assert_ne!(fleet.server(), server);
    // It got through, or says that it did not know: either is the truth.
    let code = dispatcher.wait().unwrap().code();
    assert!([Some(0), Some(69)].contains(&code), "{code:?}");
    let acknowledged = gate.lines("ids");
    println!("{} of 400 were acknowledged", acknowledged.len());
    // A job whose first record did not get through is seen as soon as somebody has its ticket.
    eventually("every acknowledged job has succeeded", || {
        let jobs = fleet.json(&["jobs", "--limit", "0", "--state", "succeeded"]);
        let jobs = jobs.as_array().unwrap().iter();
        let ended: BTreeSet<&str> = jobs.filter_map(|j| j["id"].as_str()).collect();
        let missing = acknowledged.iter().find(|id| !ended.contains(id.as_str()));
        missing.is_none().then_some(())
    });
    for id in &acknowledged {
        assert_eq!(times(&gate, id), 1, "{id}");
    }
    // Those that were not acknowledged may be there or not, but not twice.
    for line in gate.lines("ran") {
        assert_eq!(times(&gate, word(&line, 0)), 1);
    }
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}

#[test]
fn a_machine_that_is_gone_is_waited_for_and_then_replaced() {
    let mut fleet = Fleet::of(&[("ada", 3)]);
    let gate = Gate::new();
    let (ids, mut waits) = one_of_each(&fleet, &gate);
    let ada = fleet.take("ada");
    // The whole machine goes: agent, executor and every process of its jobs.
    let executor = ada.executor();
    ada.process.signal(Signal::STOP);
    kill(executor);
    for line in gate.lines("ran") {
        kill(word(&line, 3).parse().unwrap());
    }
    let home = ada.kill();
    // Nothing that lies on its lease but a renewal keeps it from being over.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (_link, bus) = fleet.bus().await;
        for holder in ["ada", "hub"] {
            let subject = format!("fleet.lease.ada.{holder}");
            let bytes = Bytes::from_static(b"garbage");
            let stored = bus.store(&subject, bytes, &Store::default()).await;
            stored.unwrap();
        }
    });
    fleet.add_agent("bob", &["--slots", "3"]);
    assert_eq!(fleet.run(&["dispatch", "--wait", "--", "true"]).code, 0);
    // Nobody else runs it before the lease is over, whenever that is on this machine.
    let early = times(&gate, &ids["retry"]);
    if fleet.events("hub.lease_taken").is_empty() {
        assert_eq!(early, 1, "the lease is not over yet");
    }

    gate.until_lines("ran", 4);
    fleet.event("hub.lease_taken", |e| e["machine"] == "ada");
    gate.open("go");
    let (code, job) = fleet.ended(&ids["retry"]);
    assert_eq!(code, 0, "{job}");
    assert_eq!(
        (&job["attempt"], &job["machine"]),
        (&2.into(), &"bob".into())
    );
    let (code, job) = fleet.ended(&ids["fail"]);
    assert_eq!((code, &job["state"]), (75, &"lost".into()), "{job}");
    assert_eq!(waits.ended(), 75);
    let job = fleet.job(&ids["ask"]);
    assert_eq!(job["state"], "needs_human", "{job}");

    // Back again, it finds that others have decided, and takes new work.
    fleet.again(home, "ada", &["--slots", "1"]);
    let ran = fleet.run(&["dispatch", "--wait", "--on", "ada", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (code, job) = fleet.ended(&ids["retry"]);
    assert_eq!((code, &job["machine"]), (0, &"bob".into()));
    assert_eq!(times(&gate, &ids["retry"]), 2);
    assert_eq!(gate.lines("ran").len(), 4);
}

/// What no reader may trip over.
fn garbage() -> Vec<Bytes> {
    let unknown = br#"{"v":9,"id":"aaaaaaaaaaaaaaaa","time":"2030-01-01T00:00:00.000000Z","kind":"job.teleported","data":{"to":"mars"}}"#;
    let wrong = br#"{"v":1,"id":"aaaaaaaaaaaaaaaa","time":"2030-01-01T00:00:00.000000Z","kind":"ticket","data":[1,2]}"#;
    vec![
        Bytes::from_static(b"{"),
        Bytes::new(),
        Bytes::from_static(b"\xff\xfe\0"),
        Bytes::from_static(unknown),
        Bytes::from_static(wrong),
        // Over the limit of an ordinary message.
        Bytes::from(vec![b' '; 1_200_000]),
        Bytes::from(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
    ]
}

#[test]
fn garbage_on_every_subject_is_survived_and_told() {
    let fleet = Fleet::of(&[("studio", 2)]);
    let gate = Gate::new();
    let running = fleet.dispatch(&["--shell", "--", &gated(&gate, 0)]);
    gate.until_lines("ran", 1);
    fleet.until(&running, "running");
    let strange = "bbbbbbbbbbbbbbbb";
    let stored = [
        format!("fleet.job.{running}.operator"),
        format!("fleet.job.{running}.keeper"),
        format!("fleet.job.{running}.studio"),
        format!("fleet.job.{running}.nobody"),
        format!("fleet.job.{strange}.operator"),
        "fleet.job.no-job.operator".to_owned(),
        format!("fleet.work.any.n.{strange}"),
        "fleet.work.any.h.no-job".to_owned(),
        format!("fleet.pin.studio.n.{strange}"),
        "fleet.lane.any".to_owned(),
        "fleet.lane.other".to_owned(),
        "fleet.want.studio".to_owned(),
        "fleet.pres.studio".to_owned(),
        "fleet.pres.ghost".to_owned(),
        "fleet.flow.studio.machine.up".to_owned(),
        "fleet.flow.nobody.x".to_owned(),
        format!("fleet.log.{running}.studio"),
        format!("fleet.log.{running}.nobody"),
        "fleet.lease.studio.studio".to_owned(),
        "fleet.lease.studio.hub".to_owned(),
        "fleet.lease.ghost.ghost".to_owned(),
    ];
    let told = [
        "fleet.cmd.studio.cancel",
        "fleet.cmd.studio.explode",
        "fleet.cmd.studio.specs",
        "fleet.cmd.all.explode",
        "fleet.cmd.all.specs",
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (link, bus) = runtime.block_on(fleet.bus());
    let store = async |bytes: &Bytes| {
        for subject in &stored {
            let stored = bus.store(subject, bytes.clone(), &Store::default()).await;
            // Jobs and tickets may carry megabytes of input; chunks of output are small, and
            // nothing else is as heavy as the heaviest of these.
            let refused = match subject.split('.').nth(1) {
                Some("job" | "work" | "pin") => false,
                Some("log") => bytes.len() > 2 * CHUNK_MAX_BYTES,
                _ => bytes.len() > MESSAGE_MAX_BYTES,
            };
            match stored {
                Err(BusError::Full(why)) if refused => {
                    assert!(why.contains("message size"), "{subject}: {why}");
                }
                stored => assert!(stored.is_ok() && !refused, "{subject}: {stored:?}"),
            }
        }
    };
    let tell = async |bytes: &Bytes| {
        for subject in told {
            bus.tell(subject, bytes.clone()).await.unwrap();
        }
        bus.flush(crate::harness::DEADLINE).await;
    };
    let until_told = |subjects: &[&str]| {
        for subject in subjects {
            // Those that are only counted name none.
            let is_of = |e: &Value| e["data"]["detail"]["subject"] == *subject;
            let event = fleet.event("message.malformed", is_of);
            assert!(event["data"]["detail"]["reason"].is_string(), "{event}");
        }
    };
    // One of each first: of too many in a minute each is only counted, whichever were read first.
    let garbage = garbage();
    let (first, rest) = garbage.split_first().unwrap();
    runtime.block_on(store(first));
    until_told(&[
        "fleet.work.any.n.bbbbbbbbbbbbbbbb",
        "fleet.work.any.h.no-job",
        "fleet.pin.studio.n.bbbbbbbbbbbbbbbb",
        "fleet.pres.ghost",
        "fleet.pres.studio",
        "fleet.lease.studio.hub",
        "fleet.lease.ghost.ghost",
    ]);
    runtime.block_on(tell(first));
    until_told(&[
        "fleet.cmd.studio.cancel",
        "fleet.cmd.studio.explode",
        "fleet.cmd.all.explode",
    ]);
    runtime.block_on(async {
        for bytes in rest {
            store(bytes).await;
            tell(bytes).await;
        }
    });
    for job in [&running, strange] {
        fleet.event("journal.void", |e| e["job"] == *job);
    }
    let flow = fleet.run(&["flow"]);
    assert_eq!(flow.code, 0);
    assert!(flow.err.contains("an event cannot be read"), "{}", flow.err);
    // Nothing of it is in anybody's way.
    let machines = fleet.json(&["machines"]);
    let names: Vec<&Value> = machines
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["machine"])
        .collect();
    assert!(!names.contains(&&Value::from("ghost")), "{machines}");
    let jobs = fleet.json(&["jobs"]);
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs}");
    assert_eq!(fleet.run(&["show", strange]).code, 64);

    gate.open("go");
    let (code, job) = fleet.ended(&running);
    assert_eq!(code, 0, "{job}");
    until_log(&fleet, &running, "before\nafter");
    // Its own presence was written over, too, until its next beat.
    eventually("studio is known again", || fleet.machine("studio"));
    let words = ["dispatch", "--wait", "--on", "studio", "--", "true"];
    let one = fleet.run(&words);
    assert_eq!(one.code, 0, "{one:?}");
    let many = fleet.run(&["dispatch", "--count", "20", "--wait", "--", "true"]);
    assert_eq!(many.code, 0, "{many:?}");
    // The lease that was written over is held again.
    eventually("the lease is held", || {
        let status = fleet.agents[0].home.json(&["agent", "status"]);
        let lease = runtime.block_on(async {
            let subject = "fleet.lease.studio.*";
            let bus = fleet_nats::bus::Bus::new(&link);
            bus.last("LEASE", subject).await.unwrap().unwrap()
        });
        (status["lease"] == true
            && lease.subject.ends_with("studio.studio")
            && lease.payload.starts_with(b"{\"v\":1"))
        .then_some(())
    });
    assert_eq!(fleet.run(&words).code, 0);
}
