//! Records what a fleet of five machines says on its bus while more than a thousand jobs run and
//! everything goes wrong that can: the event log that the console's tests read. A tool, not a test:
//! `cargo test --test it record_a_bad_day -- --ignored` writes the recording anew (three minutes).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleet_nats::bus::{Bus, Store, Stored};
use fleet_nats::recording::Writer;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::fleet::{HubEnd, kill};
use crate::harness::{Fleet, eventually, signal_process};

const NAMES: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];
const STREAMS: [(&str, &str); 3] = [
    (stream::JOB, subject::JOBS),
    (stream::PRES, subject::PRESENCES),
    (stream::FLOW, subject::FLOWS),
];

/// Reads the streams into a file.
struct Recorder {
    runtime: Runtime,
    bus: Bus,
    writing: std::thread::JoinHandle<u64>,
    at: BTreeMap<&'static str, Arc<AtomicU64>>,
}

impl Recorder {
    fn begin(fleet: &Fleet, file: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let (_, bus) = runtime.block_on(fleet.bus());
        let (send, mut messages) = mpsc::channel::<(&'static str, Stored)>(64);
        let mut at = BTreeMap::new();
        for (name, filter) in STREAMS {
            let (send, bus) = (send.clone(), bus.clone());
            let seq = Arc::new(AtomicU64::new(0));
            at.insert(name, seq.clone());
            runtime.spawn(async move {
                let mut tail = Tail::open(&bus, name, &[filter.to_owned()], From::First)
                    .await
                    .unwrap();
                loop {
                    if let Next::Message(message, _) = tail.next().await.unwrap() {
                        let last = message.seq;
                        if send.send((name, *message)).await.is_err() {
                            return;
                        }
                        seq.store(last, Ordering::SeqCst);
                    }
                }
            });
        }
        let file = File::create(file).unwrap();
        let writing = std::thread::spawn(move || {
            let mut writer = Writer::begin(file).unwrap();
            let mut count = 0;
            while let Some((name, message)) = messages.blocking_recv() {
                writer.write(name, &message).unwrap();
                count += 1;
            }
            writer.end().unwrap();
            count
        });
        Self {
            runtime,
            bus,
            writing,
            at,
        }
    }

    fn garbage(&self, subject: &str, bytes: &'static [u8]) {
        let options = Store::default();
        let stored = self.bus.store(subject, Bytes::from_static(bytes), &options);
        self.runtime.block_on(stored).unwrap();
    }

    /// Ends when everything that the journal and the flow hold is in the file; how many messages.
    fn end(self) -> u64 {
        for name in [stream::JOB, stream::FLOW] {
            let last = self
                .runtime
                .block_on(self.bus.usage(name))
                .unwrap()
                .last_seq;
            eventually("everything is recorded", || {
                (self.at[name].load(Ordering::SeqCst) >= last).then_some(())
            });
        }
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        self.writing.join().unwrap()
    }
}

/// What goes wrong, counted.
struct Day {
    fleet: Fleet,
    faults: u32,
}

impl Day {
    fn jobs(&self, count: u32, words: &[&str]) -> Vec<String> {
        let count = count.to_string();
        let words: Vec<&str> = ["dispatch", "--count", &count]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let ran = self.fleet.run(&words);
        ran.ok().lines().map(str::to_owned).collect()
    }

    fn until_running(&self, id: &str) {
        self.fleet.until(id, "running");
    }

    /// Agents that die while jobs run, and come back.
    fn agents_die(&mut self) {
        for name in ["ada", "bob", "cyd"] {
            let words = ["--on", name, "--shell", "--", "sleep 2; exit 4"];
            let ids = self.jobs(3, &words);
            self.until_running(&ids[0]);
            let home = self.fleet.take(name).kill();
            self.faults += 1;
            self.jobs(60, &["--", "true"]);
            self.fleet.again(home, name, &["--slots", "4"]);
        }
        for name in ["dan", "eve"] {
            let words = ["--on", name, "--on-lost", "retry", "--", "sleep", "3"];
            let ids = self.jobs(3, &words);
            self.until_running(&ids[0]);
            let at = self.fleet.agents.iter().position(|a| a.name == name);
            kill(self.fleet.agents[at.unwrap()].executor());
            self.faults += 1;
            self.jobs(60, &["--shell", "--", "exit 1"]);
        }
    }

    /// The hub that dies, stops and freezes.
    fn hubs_die(&mut self) {
        for _ in 0..2 {
            self.jobs(60, &["--", "sleep", "0.2"]);
            kill(self.fleet.server());
            self.faults += 1;
            eventually("the hub answers again", || {
                (self.fleet.run(&["hub", "status"]).code == 0).then_some(())
            });
        }
        for how in [HubEnd::Killed, HubEnd::Stopped] {
            self.jobs(60, &["--", "sleep", "0.2"]);
            self.fleet.without_hub(how, |_| {});
            self.faults += 1;
        }
        self.jobs(60, &["--", "sleep", "0.1"]);
        let server = self.fleet.server();
        signal_process(server, Signal::STOP);
        std::thread::sleep(Duration::from_secs(3));
        signal_process(server, Signal::CONT);
        self.faults += 1;
    }

    /// Agents that freeze until they are stale.
    fn agents_freeze(&mut self) {
        for name in ["cyd", "eve"] {
            let at = self.fleet.agents.iter().position(|a| a.name == name);
            let pid = self.fleet.agents[at.unwrap()].process.pid();
            signal_process(pid, Signal::STOP);
            self.jobs(40, &["--", "true"]);
            eventually("it is missed", || {
                let machine = self.fleet.machine(name).unwrap();
                (machine["state"] != "up").then_some(())
            });
            signal_process(pid, Signal::CONT);
            self.faults += 1;
        }
    }

    /// Jobs that are canceled, run out of time, cannot start, or never do.
    fn jobs_fail(&mut self) {
        for id in self.jobs(4, &["--", "sleep", "60"]) {
            self.until_running(&id);
            self.fleet.run(&["cancel", "--yes", &id]);
            self.faults += 1;
        }
        self.jobs(4, &["--timeout", "1s", "--", "sleep", "60"]);
        self.jobs(2, &["--", "/no/such/program"]);
        self.jobs(2, &["--shell", "--", "kill -9 $$"]);
        self.faults += 8;
    }

    fn garbage(&mut self, recorder: &Recorder) {
        let unknown = br#"{"v":9,"id":"aaaaaaaaaaaaaaaa","time":"2030-01-01T00:00:00.000000Z","kind":"job.teleported","data":{"to":"mars"}}"#;
        for (subject, bytes) in [
            ("fleet.job.bbbbbbbbbbbbbbbb.operator", &b"{"[..]),
            ("fleet.job.no-job.operator", b"\xff\xfe\0"),
            ("fleet.pres.ghost", b"null"),
            ("fleet.flow.nobody.x", unknown),
            ("fleet.flow.ada.machine.up", b""),
            ("fleet.work.any.n.bbbbbbbbbbbbbbbb", b"[1,2]"),
        ] {
            recorder.garbage(subject, bytes);
            self.faults += 1;
        }
    }

    /// One machine dies for good: its jobs go on elsewhere, ask, or are lost.
    fn one_is_lost(&mut self) {
        for policy in ["ask", "retry", "fail"] {
            let pinned = policy != "retry";
            let mut words = vec!["--on-lost", policy];
            if pinned {
                words.extend(["--on", "dan"]);
            }
            words.extend(["--", "sleep", "20"]);
            let ids = self.jobs(if pinned { 1 } else { 12 }, &words);
            self.until_running(&ids[0]);
        }
        let agent = self.fleet.take("dan");
        let executor = agent.executor();
        drop(agent.kill());
        kill(executor);
        self.faults += 1;
        self.jobs(1, &["--on", "dan", "--expires", "5s", "--", "true"]);
        eventually("its lease is over", || {
            let lost = self
                .fleet
                .json(&["jobs", "--limit", "0", "--state", "lost"]);
            (!lost.as_array().unwrap().is_empty()).then_some(())
        });
    }
}

/// What `fleet jobs` said of each job in the end.
fn summary(jobs: &Value) -> Value {
    let jobs = jobs.as_array().unwrap();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for job in jobs {
        *states.entry(job["state"].as_str().unwrap()).or_default() += 1;
    }
    let each: BTreeMap<&str, Value> = jobs
        .iter()
        .map(|job| {
            let said = json!([job["state"], job["attempt"], job["machine"]]);
            (job["id"].as_str().unwrap(), said)
        })
        .collect();
    json!({ "states": states, "jobs": each })
}

#[test]
#[ignore = "a tool: it writes the recording that the console's tests read"]
fn record_a_bad_day() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tui/src/tests/recording");
    std::fs::create_dir_all(&folder).unwrap();
    let fleet = Fleet::hub_alone();
    let recorder = Recorder::begin(&fleet, &folder.join("bad-day.jsonl.gz"));
    let mut day = Day { fleet, faults: 0 };
    for name in NAMES {
        day.fleet.add_agent(name, &["--slots", "4"]);
    }
    day.jobs(300, &["--", "true"]);
    day.agents_die();
    day.jobs_fail();
    day.garbage(&recorder);
    day.agents_freeze();
    day.hubs_die();
    day.one_is_lost();
    let open = |day: &Day| {
        let jobs = day.fleet.json(&["jobs", "--limit", "0"]);
        let open = ["queued", "running", "backoff"];
        let states = jobs.as_array().unwrap().iter();
        let left = states.filter(|j| open.contains(&j["state"].as_str().unwrap()));
        (left.count(), jobs)
    };
    let jobs = eventually("nothing runs or waits", || {
        let (left, jobs) = open(&day);
        (left == 0).then_some(jobs)
    });
    let count = recorder.end();
    let summary = summary(&jobs);
    let jobs = jobs.as_array().unwrap().len();
    let text = serde_json::to_string(&summary).unwrap();
    std::fs::write(folder.join("bad-day.jobs.json"), text + "\n").unwrap();
    println!(
        "{jobs} jobs, {} faults, {count} messages: {}",
        day.faults, summary["states"]
    );
    assert!(jobs >= 1000 && day.faults >= 20);
}
