//! A fault runner over real processes, and a checker over the histories that come of it.
//!
//! One seed makes one history: a hub with its nats-server and five agents, each in a world of its
//! own (plain, behind a proxy, at the end of a cable, on a small disk, with a clock that jumps), to
//! which faults are done by a schedule from the seed while jobs are dispatched, canceled and
//! answered. Then everything is healed, has to come to rest, and is judged: see [`checker`].
//!
//! Each history runs in network, mount and process namespaces of its own: no port, no file system
//! and no process of it is anybody else's, and nothing is left of it however it ends.
//!
//! `FLEET_HISTORY_SEED=n` (or `a..b`) instead of the usual seeds, `FLEET_HISTORY_SECONDS=s` of
//! faults, `FLEET_HISTORY_AT_ONCE=n` histories side by side.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod calls;
mod checker;
mod draw;
mod faults;
mod gather;
#[path = "../it/harness.rs"]
#[allow(dead_code, reason = "the whole of it is used by the other tests")]
mod harness;
mod history;
mod report;
mod schedule;
mod shape;
mod watch;
mod world;

use calls::Calls;
use report::Report;
use schedule::What;
use watch::Watch;
use world::World;

/// The seeds of every run: between them they know every fault.
const SEEDS: [u64; 3] = [0, 1, 2];
/// How long faults are done in each.
const SECONDS: Duration = Duration::from_secs(100);

/// Set where the namespaces are made already: the folder of this history.
const INSIDE: &str = "FLEET_HISTORY_INSIDE";
/// The name of the test, by which it starts itself again inside.
const NAME: &str = "nothing_is_lost_and_nothing_doubled_whatever_is_done_to_real_processes";

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| {
        let number = text.parse();
        number.unwrap_or_else(|e| panic!("{name}={text}: {e}"))
    })
}

fn length() -> Duration {
    number("FLEET_HISTORY_SECONDS").map_or(SECONDS, Duration::from_secs)
}

fn seeds() -> Vec<u64> {
    match setting("FLEET_HISTORY_SEED") {
        None => SEEDS.to_vec(),
        Some(text) => match text.split_once("..") {
            Some((from, to)) => (from.parse().unwrap()..to.parse().unwrap()).collect(),
            None => vec![text.parse().unwrap()],
        },
    }
}

#[test]
#[ignore = "needs root and Linux: .ci/run histories"]
fn nothing_is_lost_and_nothing_doubled_whatever_is_done_to_real_processes() {
    if let Some(dir) = setting(INSIDE) {
        return inside(Path::new(&dir));
    }
    let at_once = number("FLEET_HISTORY_AT_ONCE").unwrap_or(3).max(1) as usize;
    let mut waiting = seeds().into_iter();
    let mut running = Vec::new();
    let mut reports = Vec::new();
    let mut failed = Vec::new();
    loop {
        while running.len() < at_once
            && let Some(seed) = waiting.next()
        {
            running.push(std::thread::spawn(move || outside(seed)));
        }
        let Some(at) = running
            .iter()
            .position(std::thread::JoinHandle::is_finished)
        else {
            if running.is_empty() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(100));
            continue;
        };
        let (report, why) = running.remove(at).join().unwrap();
        reports.extend(report);
        if let Some(why) = why {
            println!("{why}");
            failed.push(why);
        }
    }
    println!("{}", report::table(&reports));
    assert!(failed.is_empty(), "{} histories are bad", failed.len());
}

/// Runs the history of a seed in namespaces of its own; its figures, and what is wrong. Then its
/// folder stays.
fn outside(seed: u64) -> (Option<Report>, Option<String>) {
    let dir = tempfile::Builder::new()
        .prefix(&format!("flh-{seed}-"))
        .tempdir()
        .unwrap()
        .keep();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc"])
        // The first process of a namespace inherits its orphans and has to reap them: a shell does.
        .args(["--kill-child", "--", "sh", "-c", "\"$0\" \"$@\"; exit $?"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--ignored", "--nocapture"])
        .env(INSIDE, &dir)
        .env("TMPDIR", &dir)
        .env("FLEET_TEST_SERVER", harness::nats_server())
        .env("FLEET_HISTORY_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let report = std::fs::read(dir.join("report.json")).unwrap_or_default();
    let report: Option<Report> = serde_json::from_slice(&report).ok();
    let violations = report.as_ref().map_or(&[][..], |r| &r.violations);
    if let Some(report) = report
        .clone()
        .filter(|_| status.success() && violations.is_empty())
    {
        let _ = std::fs::remove_dir_all(&dir);
        return (Some(report), None);
    }
    let mut why = format!("seed {seed}:\n{}\n", violations.join("\n"));
    if report.is_none() {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        why += &log;
    }
    let seconds = length().as_secs();
    why += &format!(
        "what is left of it: {}\nagain: FLEET_HISTORY_SEED={seed} FLEET_HISTORY_SECONDS={seconds} \
         cargo test --test histories -- --ignored\n",
        dir.display()
    );
    (report, Some(why))
}

/// Runs one history, inside its namespaces.
fn inside(dir: &Path) {
    let seed = seeds()[0];
    // Not taken apart, whatever happens: its processes go with the namespace, its files are for
    // whoever wants to know what happened.
    let mut world = ManuallyDrop::new(World::start(dir));
    let watch = Watch::start(world.home.fleet());
    let mut calls = Calls::default();
    let begun = Instant::now();
    for step in schedule::plan(seed, length()) {
        std::thread::sleep(step.at.saturating_sub(begun.elapsed()));
        println!("{:7.2} {:?}", begun.elapsed().as_secs_f64(), step.what);
        match step.what {
            What::Inject(fault, machine) => world.inject(fault, machine),
            What::Heal(fault, machine) => world.heal(fault, machine),
            What::Dispatch(dispatch) => calls.dispatch(&world, dispatch),
            What::Cancel(draw) => calls.cancel(&world, draw),
            What::Answer(draw) => calls.answer(&world, draw),
        }
    }
    let mut report = Report {
        seed,
        faults_for: begun.elapsed().as_secs_f64(),
        ..Report::default()
    };
    let healed = Instant::now();
    let made = calls.finish();
    report.calls = made.calls;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (busy, history) = runtime.block_on(async {
        let busy = gather::rest(&world, &made.acknowledged, seed).await;
        report.rest_after = healed.elapsed().as_secs_f64();
        println!("at rest after {:.1} s: {busy:#?}", report.rest_after);
        (busy, gather::gather(&world, made.acknowledged).await)
    });
    let looks = watch.finish();
    let mut history = history.unwrap();
    history.withdrawn = made.withdrawn;
    history.complaints.extend(made.complaints);
    history
        .complaints
        .extend(busy.into_iter().map(|what| format!("not at rest: {what}")));
    report.count(&history, &looks);
    let violations = checker::check(&history);
    report.violations = violations
        .iter()
        .map(|v| format!("{:?}: {}", v.rule, v.text))
        .collect();
    keep(dir, &world, &history, &looks);
    let json = serde_json::to_vec_pretty(&report).unwrap();
    std::fs::write(dir.join("report.json"), json).unwrap();
}

/// Leaves everything that was gathered beside what is there, for whoever wants to know.
fn keep(dir: &Path, world: &World, history: &history::History, looks: &[watch::Look]) {
    let write = |name: &str, text: String| std::fs::write(PathBuf::from(dir).join(name), text);
    let lines = |all: Vec<String>| all.join("\n");
    let journal = history.journal.iter().map(|entry| format!("{entry:?}"));
    let flow = history.flow.iter().map(|event| format!("{event:?}"));
    let looks = looks.iter().map(|look| format!("{look:?}"));
    let injected = history.injected.iter().map(|one| format!("{one:?}"));
    write("journal.txt", lines(journal.collect())).unwrap();
    write("flow.txt", lines(flow.collect())).unwrap();
    write("looks.txt", lines(looks.collect())).unwrap();
    write("injected.txt", lines(injected.collect())).unwrap();
    write("said.txt", world.said()).unwrap();
    // The small disk goes with its namespace.
    let small = world.home_of(schedule::CRAMPED).fleet();
    let _ = Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([small, dir.join(schedule::CRAMPED)])
        .status();
}
