//! Bad peers: whatever a machine sends with its own credentials, or a broken tool with the
//! operator's, nothing stops, it is counted and told, and the work of others goes on.

use bytes::Bytes;
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::hub::Credentials;
use fleet_nats::testing::Peer;
use serde_json::Value;

use crate::fleet::{Gate, only_attempt};
use crate::harness::{DEADLINE, Fleet, Ran, eventually};

/// A job that nobody has dispatched.
const NOBODYS: &str = "aaaaaaaaaaaaaaaa";

/// Connects with the rights of a machine of this name, past everything that an agent checks.
async fn worker(fleet: &Fleet, name: &str) -> Peer {
    let file = fleet.home.user().join(format!("{name}.creds"));
    let path = file.to_str().unwrap();
    fleet
        .run(&["hub", "credentials", "--machine", name, "--out", path])
        .ok();
    let options = ConnectOptions {
        fail_within: DEADLINE,
        ..ConnectOptions::new("fleet test", Credentials::load(&file).unwrap())
    };
    Peer::new(connect(&options).await.unwrap())
}

/// One JSON message of the contract's shape.
fn envelope(kind: &str, machine: &str, job: &str, data: &str) -> String {
    format!(
        r#"{{"v":99,"id":"gorla2xmhluj6awz","time":"2026-11-20T07:00:22.615533Z","kind":"{kind}","machine":"{machine}","job":"{job}","attempt":"qzhknl653cmnjmjn","data":{data}}}"#
    )
}

/// What no reader is ready for, whatever the subject.
fn junk(job: &str) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = [
        &b""[..],
        b"junk",
        b"{}",
        b"null",
        b"\xff\xfe\x00",
        b"{\"v\":1",
    ]
    .into_iter()
    .map(Bytes::from_static)
    .collect();
    for kind in [
        "ticket",
        "presence",
        "lease",
        "job.claimed",
        "job.queued",
        "hub",
        "stat",
        "x",
    ] {
        for machine in ["rogue", "studio", "NO SUCH"] {
            for data in ["{}", "null", "[1,2]", r#"{"prev":1,"change":"claimed"}"#] {
                all.push(envelope(kind, machine, job, data).into());
            }
        }
    }
    all.push("[".repeat(100_000).into());
    all.push(format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000)).into());
    all.push(vec![b'x'; 1024 * 1024].into());
    all.push(
        envelope(
            "x",
            "rogue",
            job,
            &format!("\"{}\"", "y".repeat(1024 * 1024)),
        )
        .into(),
    );
    all
}

/// Headers that mean something to the server.
fn odd_headers() -> Vec<Vec<(String, String)>> {
    let one = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        owned.collect::<Vec<_>>()
    };
    vec![
        one(&[("Nats-Rollup", "all")]),
        one(&[("Nats-Rollup", "sub")]),
        one(&[("Nats-TTL", "1s")]),
        one(&[("Nats-Msg-Id", "same")]),
        one(&[("Nats-Msg-Id", "same")]),
        one(&[("Nats-Expected-Last-Sequence", "1")]),
        one(&[("Nats-Expected-Stream", "NONE")]),
        one(&[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")]),
        one(&[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "7")]),
        one(&[
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", "fleet.work.any.n.x"),
        ]),
        one(&[
            ("Nats-Stream", "JOB"),
            ("Nats-Subject", "x"),
            ("Nats-Sequence", "1"),
        ]),
        one(&[("Nats-Marker-Reason", "MaxAge"), ("KV-Operation", "PURGE")]),
        one(&[("Fleet-Chunk", "{}"), ("Status", "503")]),
    ]
}

/// Sends all of it on each subject, with and without a reply to come.
async fn pour(peer: &Peer, subjects: &[String], job: &str) {
    for subject in subjects {
        for bytes in junk(job) {
            peer.send(subject, &[], bytes).await;
        }
        for headers in odd_headers() {
            peer.send(subject, &headers, Bytes::from_static(b"{}"))
                .await;
        }
        peer.send_for(subject, &peer.inbox(), Bytes::from_static(b"junk"))
            .await;
        peer.settled().await;
    }
}

/// A fleet with a machine `studio`, and a job that runs on it until its gate is opened.
struct Scene {
    fleet: Fleet,
    gate: Gate,
    runs: String,
    agent: u32,
}

impl Scene {
    fn new() -> Self {
        let fleet = Fleet::of(&[("studio", 2)]);
        let gate = Gate::new();
        let script = format!(
            "echo runs >> {}; {}; echo done",
            gate.file("ran").display(),
            gate.wait("go")
        );
        let runs = fleet.dispatch(&["--on", "studio", "--shell", "--", &script]);
        gate.until_lines("ran", 1);
        let agent = fleet.agents[0].process.pid();
        Self {
            fleet,
            gate,
            runs,
            agent,
        }
    }

    /// Others' work goes on: what waits is claimed, what runs ends, and each once.
    fn works(&self) {
        let ran = self
            .fleet
            .run(&["dispatch", "--follow", "--", "echo", "through"]);
        assert_eq!(ran.ok(), "through", "{ran:?}");
        let ran = self.fleet.run(&[
            "dispatch", "--follow", "--on", "studio", "--", "echo", "pinned",
        ]);
        assert_eq!(ran.ok(), "pinned", "{ran:?}");
    }

    /// Nothing has stopped, or was started anew; what ran ends as it does.
    fn ends(self) -> Fleet {
        self.works();
        let runs = self.fleet.job(&self.runs);
        assert_eq!(runs["state"], "running", "{runs}");
        self.gate.open("go");
        let (code, job) = self.fleet.ended(&self.runs);
        assert_eq!(
            (code, &job["state"]),
            (0, &Value::from("succeeded")),
            "{job}"
        );
        only_attempt(&job);
        let logs = self.fleet.run(&["logs", &self.runs]);
        assert_eq!(logs.out, "done\n", "{logs:?}");
        assert_eq!(self.gate.lines("ran"), ["runs"]);
        let machine = self.fleet.machine("studio").unwrap();
        assert!(
            ["up", "degraded"].contains(&machine["state"].as_str().unwrap()),
            "{machine}"
        );
        assert_eq!(self.fleet.agents[0].process.pid(), self.agent);
        assert!(
            crate::fleet::runs(self.agent),
            "the agent is the same process"
        );
        assert!(crate::fleet::runs(self.fleet.hub.pid()));
        for errors in [
            self.fleet.hub.errors(),
            self.fleet.agents[0].process.errors(),
        ] {
            assert!(!errors.contains("panicked"), "{errors}");
        }
        assert_eq!(self.fleet.events("hub.server_restarted").len(), 0);
        self.fleet
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_machine_sends_where_it_may_is_counted_and_told_and_stops_nobody() {
    let scene = Scene::new();
    let rogue = worker(&scene.fleet, "rogue").await;
    let job = scene.runs.as_str();
    let subjects = [
        "fleet.pres.rogue".to_owned(),
        "fleet.stat.rogue".to_owned(),
        "fleet.flow.rogue.machine.up".to_owned(),
        "fleet.flow.rogue.hub.job_purged".to_owned(),
        "fleet.flow.rogue.a.b.c.d".to_owned(),
        "fleet.lease.rogue.rogue".to_owned(),
        format!("fleet.log.{job}.rogue"),
        format!("fleet.log.{NOBODYS}.rogue"),
        "fleet.log.NO.rogue".to_owned(),
        format!("fleet.job.{job}.rogue"),
        format!("fleet.job.{NOBODYS}.rogue"),
        "fleet.job.NO.rogue".to_owned(),
        "$JS.API.CONSUMER.MSG.NEXT.WORK.any-n".to_owned(),
        "$JS.ACK.WORK.any-n.1.1.1.1.0".to_owned(),
        "$JS.API.DIRECT.GET.LANE".to_owned(),
        format!("$JS.API.DIRECT.GET.JOB.fleet.job.{job}.*"),
    ];
    pour(&rogue, &subjects, job).await;
    scene.works();

    // It is told: by whom, and how many.
    let told = scene
        .fleet
        .event("journal.void", |e| e["machine"] == "rogue");
    assert_eq!(told["job"], job, "{told}");
    let told = scene.fleet.event("message.malformed", |_| true);
    assert!(told["data"]["detail"]["subject"].is_string(), "{told}");
    let flow = scene.fleet.run(&["flow", "--since", "1h"]);
    assert_eq!(flow.code, 0, "{flow:?}");
    assert!(flow.err.contains("cannot be read"), "{flow:?}");
    scene.ends();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tool_of_the_operators_stops_nobody() {
    let scene = Scene::new();
    let tool = Peer::new(scene.fleet.bus().await.0);
    let job = scene.runs.as_str();
    let subjects = [
        format!("fleet.work.any.n.{job}"),
        format!("fleet.work.any.h.{NOBODYS}"),
        "fleet.work.any.n.NO".to_owned(),
        "fleet.work.none.n.x".to_owned(),
        format!("fleet.pin.studio.n.{NOBODYS}"),
        "fleet.pin.nobody.n.x".to_owned(),
        "fleet.lane.none".to_owned(),
        "fleet.want.studio".to_owned(),
        "fleet.want.hub".to_owned(),
        "fleet.cmd.studio.cancel".to_owned(),
        "fleet.cmd.studio.none".to_owned(),
        "fleet.cmd.all.specs".to_owned(),
        "fleet.cmd.all.none".to_owned(),
        "fleet.cmd.hub.stats".to_owned(),
        "fleet.cmd.hub.none".to_owned(),
        "fleet.stat.studio".to_owned(),
        "fleet.flow.hub.x".to_owned(),
        "fleet.flow.studio.x".to_owned(),
        "fleet.pres.nobody".to_owned(),
        "fleet.lease.nobody.nobody".to_owned(),
        format!("fleet.log.{job}.nobody"),
        format!("fleet.job.{job}.operator"),
        format!("fleet.job.{job}.keeper"),
        format!("fleet.job.{job}.studio"),
    ];
    pour(&tool, &subjects, job).await;
    scene.ends();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_again_and_in_the_wrong_order_change_nothing() {
    let scene = Scene::new();
    let tool = Peer::new(scene.fleet.bus().await.0);
    let heard = tool.overhear("fleet.>").await;
    let before: Vec<String> = ["--on=studio", "--priority=high", "--priority=low"]
        .iter()
        .map(|flag| scene.fleet.dispatch(&[flag, "--", "echo", "once"]))
        .collect();
    for id in &before {
        assert_eq!(scene.fleet.ended(id).0, 0);
    }
    // A beat, a renewal of the lease, whatever comes of itself.
    scene.fleet.machine("studio").unwrap();
    let again = tool.replay(heard).await;
    assert!(
        again > 9,
        "a ticket, a dispatch, a claim and an end of each: {again}"
    );
    for id in &before {
        let job = eventually("it is as it was", || {
            let job = scene.fleet.job(id);
            (job["state"] == "succeeded").then_some(job)
        });
        only_attempt(&job);
    }
    scene.ends();
}

/// How many messages of each kind a flood has; `FLEET_FLOOD=50000` by hand.
fn flood_size() -> usize {
    let asked = std::env::var("FLEET_FLOOD").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// Sends as fast as the connection takes it.
async fn flood(peer: &Peer, name: &str, subject: impl Fn(usize) -> String) {
    let body = Bytes::from(envelope("x", "rogue", NOBODYS, "{}"));
    let begun = std::time::Instant::now();
    for n in 0..flood_size() {
        peer.send(&subject(n), &[], body.clone()).await;
    }
    peer.settled().await;
    println!("{name}: {} sent in {:?}", flood_size(), begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_holds_up_nobody_and_what_it_leaves_in_the_journal_goes() {
    let scene = Scene::new();
    let rogue = worker(&scene.fleet, "rogue").await;
    let job = scene.runs.clone();
    let random = |n: usize| {
        let digits = |c: u32| char::from_digit(c, 32).unwrap();
        let letter = |at: u32| match (n as u32 >> (5 * at)) & 31 {
            c @ 0..26 => char::from(b'a' + c as u8),
            c => digits(c - 26 + 2),
        };
        format!("aaaaaaaaaaaa{}", (0..4).map(letter).collect::<String>())
    };
    let floods = tokio::spawn(async move {
        flood(&rogue, "pres", |_| "fleet.pres.rogue".to_owned()).await;
        flood(&rogue, "stat", |_| "fleet.stat.rogue".to_owned()).await;
        flood(&rogue, "lease", |_| "fleet.lease.rogue.rogue".to_owned()).await;
        flood(&rogue, "flow", |n| format!("fleet.flow.rogue.k{}", n % 100)).await;
        flood(&rogue, "log", |_| format!("fleet.log.{job}.rogue")).await;
        flood(&rogue, "job", |_| format!("fleet.job.{job}.rogue")).await;
        flood(&rogue, "jobs", |n| format!("fleet.job.{}.rogue", random(n))).await;
        let pull = "$JS.API.CONSUMER.MSG.NEXT.WORK.any-n";
        flood(&rogue, "pull", |_| pull.to_owned()).await;
    });
    let mut worst = std::time::Duration::ZERO;
    loop {
        let over = floods.is_finished();
        let begun = std::time::Instant::now();
        tokio::task::block_in_place(|| scene.works());
        worst = worst.max(begun.elapsed());
        if over {
            break;
        }
    }
    floods.await.unwrap();
    println!("the slowest two jobs took {worst:?}");
    assert_eq!(scene.fleet.events("machine.lost").len(), 0);
    eventually("its journals are gone", || {
        let jobs = scene.fleet.json(&["hub", "status"]);
        let streams = jobs["streams"].as_array().unwrap();
        let journal = streams.iter().find(|s| s["stream"] == "JOB").unwrap();
        // What lies on a job that is there stays until that goes.
        (journal["messages"].as_u64().unwrap() < 2 * flood_size() as u64).then_some(())
    });
    scene.ends();
}

/// A chunk of output that says that it is the first of this attempt.
async fn forge_chunk(peer: &Peer, job: &str, by: &str, attempt: &str, text: &str) {
    let head = format!(
        r#"{{"v":1,"attempt":"{attempt}","seq":1,"stream":"stdout","offset":0,"time":"2026-11-20T07:00:22Z"}}"#
    );
    let headers = [("Fleet-Chunk".to_owned(), head)];
    let bytes = Bytes::from(text.to_owned());
    peer.send(&format!("fleet.log.{job}.{by}"), &headers, bytes)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_the_output_of_anothers_attempt() {
    let scene = Scene::new();
    let rogue = worker(&scene.fleet, "rogue").await;
    let job = scene.runs.as_str();
    let (_link, bus) = scene.fleet.bus().await;
    let known = bus.job(job.parse().unwrap()).await.unwrap().unwrap();
    let attempt = known.attempts[0].id.to_string();
    // Of the attempt that runs, of one that nobody knows, and of both many.
    for of in [attempt.as_str(), NOBODYS] {
        for _ in 0..40 {
            forge_chunk(&rogue, job, "rogue", of, "forged\n").await;
        }
    }
    let left_out = |shown: &Ran| shown.err.contains("80 chunks from rogue left out");
    let shown = tokio::task::block_in_place(|| {
        eventually("all of it is there", || {
            let shown = scene.fleet.run(&["logs", job]);
            left_out(&shown).then_some(shown)
        })
    });
    assert_eq!((shown.code, shown.out.as_str()), (0, ""), "{shown:?}");
    let shown = scene.fleet.run(&["--json", "logs", job]);
    let line: Value = serde_json::from_str(shown.out.trim()).unwrap();
    assert_eq!(line["foreign_chunks"], 80, "{shown:?}");
    // What follows is the job's own alone, and all of it.
    let job = scene.runs.clone();
    let fleet = scene.ends();
    let shown = fleet.run(&["logs", "-f", &job]);
    assert_eq!((shown.code, shown.out.as_str()), (0, "done\n"), "{shown:?}");
    assert!(left_out(&shown), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_holds_against_a_machine_that_claims_over_it() {
    let scene = Scene::new();
    let rogue = worker(&scene.fleet, "rogue").await;
    let (_link, bus) = scene.fleet.bus().await;
    // Both slots are taken, so that what is pinned waits.
    let gate = Gate::new();
    let script = format!(
        "echo runs >> {}; {}",
        gate.file("ran").display(),
        gate.wait("go")
    );
    let second = scene
        .fleet
        .dispatch(&["--on", "studio", "--shell", "--", &script]);
    gate.until_lines("ran", 1);
    let pinned = scene
        .fleet
        .dispatch(&["--on", "studio", "--", "echo", "mine"]);
    let id = pinned.parse().unwrap();
    for target in [
        "",
        r#","target":{"lane":"any"}"#,
        r#","target":{"pin":"rogue"}"#,
    ] {
        let seq = bus.job(id).await.unwrap().unwrap().last_seq;
        let data = format!(
            r#"{{"prev":{seq},"change":"claimed","attempt":"{NOBODYS}","no":1,"ticket":"{NOBODYS}"{target},"after":{{"state":"running","attempt":"{NOBODYS}","machine":"rogue","attempts":1,"losses":0}}}}"#
        );
        let claim = envelope("job.claimed", "rogue", &pinned, &data);
        let claim = claim
            .replace(r#""v":99"#, r#""v":1"#)
            .replace("qzhknl653cmnjmjn", NOBODYS);
        let subject = format!("fleet.job.{pinned}.rogue");
        rogue.send(&subject, &[], claim.into()).await;
        rogue.settled().await;
        let void = tokio::task::block_in_place(|| {
            scene.fleet.event("journal.void", |e| {
                e["job"] == pinned.as_str() && e["data"]["detail"]["seq"].as_u64() > Some(seq)
            })
        });
        let why = void["data"]["detail"]["reason"].as_str().unwrap();
        assert!(
            why.contains("pinned to another machine than rogue"),
            "{void}"
        );
        assert_eq!(scene.fleet.job(&pinned)["state"], "queued");
        // The keeper has said again what holds.
        tokio::task::block_in_place(|| {
            eventually("what holds is said again", || {
                let handle = tokio::runtime::Handle::current();
                let job = handle.block_on(bus.job(id)).unwrap().unwrap();
                (!job.void_on_top).then_some(())
            });
        });
    }
    gate.open("go");
    assert_eq!(scene.fleet.ended(&second).0, 0);
    let (code, job) = scene.fleet.ended(&pinned);
    assert_eq!(
        (code, &job["machine"]),
        (0, &Value::from("studio")),
        "{job}"
    );
    only_attempt(&job);
    scene.ends();
}

/// Sends until the server has had enough, or so many; how many were taken.
async fn flood_until_out(peer: &Peer, subject: impl Fn(usize) -> String, body: &Bytes) -> usize {
    for n in 0..50_000 {
        let subject = subject(n);
        // Whoever is locked out is not written to any more.
        if !peer.link().is_connected() || !peer.try_send(&subject, body.clone()).await {
            return n;
        }
    }
    50_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_floods_is_locked_out_and_others_lose_nothing() {
    let scene = Scene::new();
    let rogue = worker(&scene.fleet, "rogue").await;
    let job = scene.runs.clone();
    let body = Bytes::from(envelope("x", "rogue", NOBODYS, "{}"));
    let floods = tokio::spawn(async move {
        let mut sent = Vec::new();
        let log = format!("fleet.log.{job}.rogue");
        let journal = format!("fleet.job.{job}.rogue");
        for subject in [
            "fleet.stat.rogue",
            "fleet.flow.rogue.x",
            &log,
            &journal,
            "fleet.lease.rogue.rogue",
            "fleet.pres.rogue",
        ] {
            sent.push(flood_until_out(&rogue, |_| subject.to_owned(), &body).await);
        }
        (rogue, sent)
    });
    // What is acknowledged meanwhile runs, once; what is not is asked for again, by the same key.
    let mut jobs = Vec::new();
    let mut slowest = std::time::Duration::ZERO;
    for n in 0..20 {
        let key = format!("--key=k{n}");
        let begun = std::time::Instant::now();
        let id = tokio::task::block_in_place(|| {
            eventually("the hub takes it", || {
                let ran = scene.fleet.run(&[
                    "--json", "dispatch", &key, "--on", "studio", "--", "echo", "mine",
                ]);
                let said: Value = serde_json::from_str(ran.out.trim()).ok()?;
                (ran.code == 0).then(|| said["id"].as_str().unwrap().to_owned())
            })
        });
        slowest = slowest.max(begun.elapsed());
        jobs.push(id);
    }
    println!("the slowest dispatch took {slowest:?}");
    for id in &jobs {
        let (code, job) = scene.fleet.ended(id);
        assert_eq!(code, 0, "{job}");
        only_attempt(&job);
        assert_eq!(scene.fleet.run(&["logs", id]).out, "mine\n");
    }
    let (rogue, sent) = floods.await.unwrap();
    println!("sent before it was locked out: {sent:?}");
    // The server may have had all of it before it was seen.

    // Named, and kept out over a restart of the server too.
    let told = scene.fleet.event("hub.locked_out", |_| true);
    let text = told["data"]["detail"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("fleet hub admit rogue"), "{told}");
    let status = eventually("status names it", || {
        let status = scene.fleet.run(&["hub", "status"]);
        status
            .out
            .contains("rogue is locked out: it sent")
            .then_some(status)
    });
    assert_eq!(status.code, 0, "{status:?}");
    let again = rogue_options(&scene.fleet, "rogue");
    assert!(connect(&again).await.is_err(), "it is not let in");
    let admitted = scene.fleet.run(&["hub", "admit", "rogue"]);
    assert_eq!(admitted.ok(), "rogue is let in again", "{admitted:?}");
    eventually("status is well again", || {
        let status = scene.fleet.run(&["hub", "status"]);
        (!status.out.contains("rogue")).then_some(())
    });
    let options = ConnectOptions {
        fail_within: DEADLINE,
        ..again
    };
    connect(&options).await.unwrap();
    drop(rogue);
    let admitted = scene.fleet.run(&["hub", "admit", "rogue"]);
    assert_eq!(admitted.ok(), "rogue was not locked out", "{admitted:?}");
    scene.ends();
}

/// How a machine connects whose credentials [`worker`] wrote.
fn rogue_options(fleet: &Fleet, name: &str) -> ConnectOptions {
    let file = fleet.home.user().join(format!("{name}.creds"));
    ConnectOptions::new("fleet test", Credentials::load(&file).unwrap())
}
