//! What needs a disk of its own, and so Linux and root: a hub whose store fills a small one, and jobs
//! whose output does.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "it/harness.rs"]
#[allow(dead_code, reason = "the whole of it is used by the other tests")]
mod harness;

use harness::{Fleet, Home, Ran, Running, eventually, eventually_or_say, signal_process};
use rustix::process::Signal;

/// A small disk; gone when dropped, however the test ends.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let ran = Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(at),
        );
        assert_eq!(ran.code, 0, "mount (needs root): {ran:?}");
        Self(at.to_owned())
    }

    /// Fills it so that this many bytes are left, about.
    fn leave(&self, bytes: u64) {
        let fs = rustix::fs::statvfs(&self.0).unwrap();
        let free = fs.f_bavail * fs.f_frsize;
        let filler = vec![7; usize::try_from(free.saturating_sub(bytes)).unwrap()];
        std::fs::write(self.0.join("filler"), filler).unwrap();
    }

    /// Takes more of it, until this many bytes are left, about.
    fn leave_more(&self, bytes: u64) {
        let file = self.0.join("filler");
        let fs = rustix::fs::statvfs(&self.0).unwrap();
        let more = (fs.f_bavail * fs.f_frsize).saturating_sub(bytes);
        let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        let filler = vec![7; usize::try_from(more).unwrap()];
        std::io::Write::write_all(&mut file, &filler).unwrap();
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![7; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

/// Stops a process, and waits until it has stopped.
fn freeze(pid: u32) {
    signal_process(pid, Signal::STOP);
    eventually("it has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let state = stat.rsplit(')').next().unwrap().trim_start().to_owned();
        state.starts_with('T').then_some(())
    });
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A hub that listens on a free port, and where it is.
fn hub(home: &Home) -> (Running, String) {
    let words = [
        "--json",
        "hub",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tether",
    ];
    let hub = Running::start(home.command(&words));
    let ready = hub.json_line();
    assert_eq!(ready["event"], "ready", "{ready}");
    let url = ready["hub"].as_str().unwrap().to_owned();
    (hub, url)
}

/// An agent `studio` in a home of its own.
fn agent(hub: &Home, home: &Home, slots: &str) -> Running {
    let creds = hub.user().join("studio.creds");
    let file = creds.to_str().unwrap();
    hub.run(&["hub", "credentials", "--machine", "studio", "--out", file])
        .ok();
    let mut words = vec!["--json", "agent", "run", "--tether", "--slots", slots];
    words.extend(["--credentials", file]);
    let agent = Running::start(home.command(&words));
    assert_eq!(agent.json_line()["machine"], "studio");
    eventually("the agent is in service", || {
        let machines = hub.json(&["machines"]);
        (!machines.as_array().unwrap().is_empty()).then_some(())
    });
    agent
}

#[test]
#[ignore = "needs root and Linux: .ci/run namespaces"]
fn a_full_disk_is_said_and_when_there_is_room_nothing_acknowledged_is_lost() {
    let home = Home::new();
    let disk = Disk::new(&home.fleet().join("hub"), "64m");
    let (hub, _) = hub(&home);
    let other = Home::new();
    let _agent = agent(&home, &other, "4");
    let before = home.run(&["dispatch", "--count", "20", "--", "sleep", "3"]);
    let mut acknowledged: Vec<String> = before.ok().lines().map(str::to_owned).collect();
    disk.fill();
    // What is still acknowledged has to hold, whatever it is.
    let refused = eventually("a dispatch is not acknowledged", || {
        let ran = home.run(&["dispatch", "--shell", "--", "seq 20000"]);
        if ran.code == 0 {
            acknowledged.push(ran.ok().to_owned());
            return None;
        }
        Some(ran)
    });
    assert_ne!(refused.code, 0);
    eventually("the hub says so", || {
        let said = hub.errors();
        (said.contains("a stream takes nothing") && said.contains("dispatch is refused"))
            .then_some(())
    });
    disk.free();
    for id in &acknowledged {
        let ran = home.run(&["wait", "--timeout", "60s", id]);
        assert_eq!(ran.code, 0, "{id}: {ran:?} {}", hub.errors());
    }
    let restarts = home
        .json_lines(&["flow", "--kind", "hub.server_restarted"])
        .1;
    assert!(
        restarts.iter().any(|e| e["data"]["detail"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("disk was full"))),
        "{restarts:?}"
    );
    eventually("it is well again", || {
        let status = home.json(&["hub", "status"]);
        status["troubles"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    assert!(
        home.json_lines(&["flow", "--kind", "hub.damaged"])
            .1
            .is_empty()
    );
    assert_eq!(home.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}

/// Output of a job that fills the machine's disk while the hub is away leaves room for its result and
/// for events, and is told to the byte.
#[test]
#[ignore = "needs root and Linux: .ci/run namespaces"]
fn output_that_fills_the_disk_leaves_room_for_results_and_events() {
    const LINES: u64 = 2_000_000;
    let mut fleet = Fleet::hub_alone();
    let home = Home::new();
    let disk = Disk::new(&home.fleet(), "64m");
    let agent = fleet.agent(home, "studio", &["--slots", "1"]);
    let go = fleet.home.user().join("go");
    let script = format!(
        "while [ ! -e {0} ]; do sleep 0.05; done; seq -f %063.0f 1 {LINES}; exit 3",
        go.display()
    );
    let id = fleet.dispatch(&["--shell", "--", &script]);
    fleet.until(&id, "running");
    let listen = fleet.url.strip_prefix("nats://").unwrap().to_owned();
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0, "{}", fleet.hub.errors());
    std::fs::write(&go, "").unwrap();
    let spool = eventually("its result waits", || {
        let spool = agent.home.json(&["agent", "status"])["spool"].clone();
        (spool["results"] == 1).then_some(spool)
    });
    assert_eq!(spool["dropped_events"], 0, "{spool}");
    assert!(spool["events"].as_u64().unwrap() > 0, "{spool}");
    assert!(
        spool["dropped_log_bytes"].as_u64().unwrap() > 60 << 20,
        "{spool}"
    );
    let left = rustix::fs::statvfs(&disk.0).unwrap();
    assert!(left.f_bavail * left.f_frsize > 2 << 20, "{spool}");
    let words = ["--json", "hub", "run", "--listen", &listen, "--tether"];
    fleet.hub = Running::start(fleet.home.command(&words));
    fleet.hub.json_line();
    assert_eq!(fleet.run(&["wait", "--timeout", "10m", &id]).code, 3);
    let (shown, missing) = eventually("all that is left has come", || {
        let (_, lines) = fleet.home.json_lines(&["logs", &id]);
        let texts = lines.iter().filter_map(|l| l["text"].as_str());
        let shown: u64 = texts.map(|text| text.len() as u64).sum();
        let last = lines.iter().find(|l| l.get("chunks_to_come").is_some())?;
        (last["chunks_to_come"] == 0).then(|| (shown, last["missing_bytes"].as_u64().unwrap()))
    });
    assert_eq!(shown + missing, LINES * 64);
    eventually("everything is delivered", || {
        let status = agent.home.json(&["agent", "status"]);
        (status["spooled"] == 0).then_some(())
    });
    let status = agent.home.json(&["agent", "status"]);
    assert_eq!(status["spool"]["dropped_log_bytes"], missing, "{status}");
    assert_eq!(status["spool"]["dropped_events"], 0, "{status}");
    assert_eq!(agent.process.stop(), 0);
}

#[test]
#[ignore = "needs root and Linux: .ci/run namespaces"]
fn a_disk_that_fills_between_claim_and_start_sends_the_job_back_and_it_runs_when_there_is_room() {
    let home = Home::new();
    let (_hub, _) = hub(&home);
    let other = Home::new();
    let disk = Disk::new(&other.fleet(), "48m");
    let _agent = agent(&home, &other, "1");
    let executor = eventually("the agent has an executor", || {
        let status = other.json(&["agent", "status"]);
        status["executor_pid"].as_u64()
    });
    let executor = u32::try_from(executor).unwrap();
    // It claims the job and has nobody yet who would start it.
    freeze(executor);
    let id = home.run(&["dispatch", "--on-lost", "fail", "--", "true"]);
    let id = id.ok().to_owned();
    let state = |states: &[&str]| {
        eventually_or_say(&format!("{id} is one of {states:?}"), || {
            let job = home.json(&["show", &id]);
            match states.contains(&job["state"].as_str().unwrap()) {
                true => Ok(job),
                false => Err(job),
            }
        })
    };
    state(&["running"]);
    disk.fill();
    signal_process(executor, Signal::CONT);
    let job = state(&["backoff", "queued"]);
    let reason = job["attempts"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("No space left"), "{job}");
    // However long it waits, a full machine takes nothing.
    let since = home.json(&["show", &id])["attempts"].clone();
    eventually("its ticket waits", || {
        let job = state(&["backoff", "queued"]);
        assert_eq!(job["attempts"], since);
        (job["state"] == "queued").then_some(())
    });
    disk.free();
    let ran = home.run(&["wait", "--timeout", "60s", &id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let job = home.json(&["show", &id]);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 2, "{job}");
}

#[test]
#[ignore = "needs root and Linux: .ci/run namespaces"]
fn where_the_hubs_disk_gets_short_dispatch_stops_first_then_output_and_never_ends_or_reads() {
    let home = Home::new();
    let disk = Disk::new(&home.fleet().join("hub"), "256m");
    let (_hub, _) = hub(&home);
    let other = Home::new();
    let _agent = agent(&home, &other, "2");
    let dispatch = |line: &str| {
        let ran = home.run(&["dispatch", "--shell", "--", line]);
        ran.ok().to_owned()
    };
    let early = dispatch("seq 20000");
    let shown = |id: &str| home.run(&["logs", "-f", id]).ok().lines().count();
    assert_eq!(shown(&early), 20_000);
    let gate = home.user().join("gate");
    let dir = home.user();
    let (gate, dir) = (gate.display(), dir.display());
    // It goes on when there is no folder any more, so that it does not outlive the test.
    let wait = format!("while [ ! -e {gate} ] && [ -d {dir} ]; do sleep 0.05; done");
    let long = dispatch(&format!("{wait}; seq 100000"));
    let troubles = |kind: &str| {
        let status = home.json(&["hub", "status"]);
        let troubles = status["troubles"].as_array().unwrap().clone();
        let found = troubles.iter().find(|t| t["kind"] == kind).cloned();
        (status["state"].clone(), found)
    };

    // First it is said, and with what of it is the hub's own.
    disk.leave(16 << 20);
    let short = eventually("the hub says that its disk fills up", || {
        troubles("hub.disk_short").1
    });
    let text = short["text"].as_str().unwrap();
    assert!(text.contains("left; the hub's own: LOG "), "{text}");
    assert_eq!(home.run(&["dispatch", "--wait", "--", "true"]).code, 0);

    // Then dispatch is refused, and output; claims, ends and reads go on.
    disk.leave_more(4 << 20);
    let state = eventually("the hub says that its disk is low", || {
        let (state, found) = troubles("hub.disk_low");
        found.map(|_| state)
    });
    assert_eq!(state, "degraded");
    let refused = home.run(&["dispatch", "--", "true"]);
    assert_eq!(refused.code, 75, "{refused:?}");
    assert!(
        refused
            .err
            .contains("the hub takes no jobs now: the disk of"),
        "{refused:?}"
    );
    std::fs::write(home.user().join("gate"), "").unwrap();
    assert_eq!(home.run(&["wait", "--timeout", "60s", &long]).code, 0);
    assert_eq!(shown(&early), 20_000);
    let part = home.run(&["logs", &long]);
    assert!(part.err.contains("still on studio"), "{part:?}");
    let told = home.json_lines(&["flow", "--kind", "hub.disk_low"]).1;
    assert_eq!(told.len(), 1, "{told:?}");

    // And with room it is as it was, and nothing is missing.
    disk.free();
    assert_eq!(shown(&long), 100_000);
    eventually("the hub is well again", || {
        let (state, low) = troubles("hub.disk_low");
        (state == "up" && low.is_none()).then_some(())
    });
    assert_eq!(home.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}
