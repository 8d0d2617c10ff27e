//! What an operator types while all of that happens: commands of their own threads, so that a hub
//! that does not answer holds nothing up, and what came of them.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fleet_contract::ids::{JobId, Writer};
use fleet_contract::job::JobState;
use fleet_contract::record::{Cause, Change};
use fleet_nats::bus::Bus;
use fleet_nats::clock;

use crate::harness::Ran;
use crate::schedule::Dispatch;
use crate::world::World;

/// Longest that a command may take, whatever happens to its hub.
const WITHIN: Duration = Duration::from_secs(300);
/// The exit codes that a command may have while everything around it fails: done, no hub, not now.
const EXPECTED: [u8; 3] = [0, 69, 75];
/// A job that is not known, or not yet.
const UNKNOWN: u8 = 64;

#[derive(Default)]
struct Shared {
    acknowledged: Vec<String>,
    withdrawn: Vec<String>,
    complaints: Vec<String>,
    made: u64,
}

/// What came of all calls.
pub(crate) struct Made {
    pub(crate) calls: u64,
    /// Ids that were printed and not taken back.
    pub(crate) acknowledged: Vec<String>,
    /// Ids of jobs that were canceled before they were sent.
    pub(crate) withdrawn: Vec<String>,
    /// What was wrong.
    pub(crate) complaints: Vec<String>,
}

/// All calls.
#[derive(Default)]
pub(crate) struct Calls {
    shared: Arc<Mutex<Shared>>,
    threads: Vec<JoinHandle<()>>,
}

impl Calls {
    /// Ids that were printed so far.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        self.shared.lock().unwrap().acknowledged.clone()
    }

    /// Waits for all.
    pub(crate) fn finish(self) -> Made {
        for thread in self.threads {
            if thread.join().is_err() {
                let mut shared = self.shared.lock().unwrap();
                shared.complaints.push("a call panicked".to_owned());
            }
        }
        let mut shared = self.shared.lock().unwrap();
        let mut shared = std::mem::take(&mut *shared);
        let withdrawn = shared.withdrawn;
        shared.acknowledged.retain(|id| !withdrawn.contains(id));
        Made {
            calls: shared.made,
            acknowledged: shared.acknowledged,
            withdrawn,
            complaints: shared.complaints,
        }
    }

    fn call(&mut self, command: Command, dispatches: bool) {
        let shared = self.shared.clone();
        self.threads.push(std::thread::spawn(move || {
            let words: Vec<_> = command.get_args().map(|w| w.to_owned()).collect();
            let ran = within(command);
            let mut shared = shared.lock().unwrap();
            shared.made += 1;
            let unknown = !dispatches && ran.code == UNKNOWN;
            let expected = unknown || EXPECTED.contains(&ran.code);
            let fine = expected && !ran.err.contains("panicked");
            if !fine {
                shared.complaints.push(format!("{words:?}: {ran:?}"));
            }
            // What was printed is acknowledged, also where the rest of a batch was not.
            if dispatches {
                shared
                    .acknowledged
                    .extend(ran.out.lines().map(str::to_owned));
            }
            // What was spooled here and never sent is taken out, and the hub never hears of it.
            for line in ran.out.lines().filter(|_| !dispatches) {
                let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
                if said["result"] == "removed"
                    && let Some(id) = said["id"].as_str()
                {
                    shared.withdrawn.push(id.to_owned());
                }
            }
        }));
    }

    /// `fleet dispatch`.
    pub(crate) fn dispatch(&mut self, world: &World, it: Dispatch) {
        let mut words: Vec<String> = vec!["dispatch".into()];
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        flag("--count", it.count.to_string());
        flag("--on-lost", it.on_lost.word().to_owned());
        flag("--priority", it.priority.to_owned());
        if let Some(machine) = it.on {
            flag("--on", machine.to_owned());
        }
        if let Some(limit) = it.timeout {
            flag("--timeout", format!("{}ms", limit.as_millis()));
        }
        if it.spool {
            words.push("--spool".into());
        }
        words.push("--".into());
        let script = world.jobs().join("job.sh");
        words.extend(it.shape.command(script.to_str().unwrap()));
        self.call(world.operator(it.shifty, &words), true);
    }

    /// `fleet cancel` of one of those that were acknowledged.
    pub(crate) fn cancel(&mut self, world: &World, draw: u64) {
        let all = self.acknowledged();
        if all.is_empty() {
            return;
        }
        // One of the last: most of the others have ended.
        let recent = &all[all.len().saturating_sub(12)..];
        let id = &recent[draw as usize % recent.len()];
        let words = ["--json", "cancel", "--yes", id].map(str::to_owned);
        self.call(world.operator(false, &words), false);
    }

    /// The operator answers one of the questions, if there is any, by this draw: another attempt,
    /// or the end.
    pub(crate) fn answer(&mut self, world: &World, draw: u64) {
        let list = world.operator(false, &words("--json jobs --state needs_human"));
        let home = world.home.fleet();
        self.threads.push(std::thread::spawn(move || {
            let ran = within(list);
            let jobs: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
            let ids: Vec<JobId> = jobs
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|job| job["id"].as_str()?.parse().ok())
                .collect();
            if ids.is_empty() {
                return;
            }
            let id = ids[draw as usize % ids.len()];
            let again = draw.is_multiple_of(3);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            // Whatever it answers: the hub may be away by now, and the job may have moved on.
            let _ = runtime.block_on(async {
                let (_link, bus) = crate::world::bus(&home).await?;
                answer(&bus, id, again).await
            });
        }));
    }
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Answers the question that a job asks: another attempt, or the end of it. An attempt that may
/// still run is never joined by another.
pub(crate) async fn answer(bus: &Bus, id: JobId, again: bool) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let job = bus.job(id).await.map_err(|e| text(&e))?;
    let job = job.ok_or("no such job")?;
    let JobState::NeedsHuman { open, .. } = &job.state else {
        return Err("it asks nothing".to_owned());
    };
    if !again || open.is_some() {
        let canceled = bus.cancel(id, "the test").await;
        return canceled.map(drop).map_err(|e| text(&e));
    }
    // As the contract has it: the ticket, and then the record that makes it the one that counts.
    let issued = bus.issue(&job, job.last_seq, &job.target).await;
    let (ticket, work_seq) = issued.map_err(|e| text(&e))?;
    let change = Change::Queued {
        ticket,
        target: job.target.clone(),
        work_seq,
        cause: Cause::Retry,
        spec: None,
    };
    let now = clock::now();
    let record = job
        .record(now, &Writer::Operator, change)
        .map_err(|e| text(&e))?;
    let appended = bus.append(id, &Writer::Operator, now, &record).await;
    appended.map(drop).map_err(|e| text(&e))
}

/// Runs a command, and kills it where it does not end.
pub(crate) fn within(mut command: Command) -> Ran {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel();
    let begun = Instant::now();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(WITHIN).is_err() {
            crate::faults::process::signal(pid, rustix::process::Signal::KILL);
        }
    });
    let out = child.wait_with_output().unwrap();
    let _ = done.send(());
    watch.join().unwrap();
    let mut ran = Ran::new(out);
    if begun.elapsed() >= WITHIN {
        ran.err += "(killed: it did not end)";
    }
    ran
}
