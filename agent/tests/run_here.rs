//! `fleet run`: the executor's machinery within the calling process.
//!
//! There is one engine in a process, so each case runs in a process of its own: this very test
//! binary, started again with `FLEET_TEST_RUN` set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_agent::executor::{self, AttemptReport, Chunk, LogReader, RunHere, run_here};
use fleet_contract::ids::{AttemptId, JobId, Lane};
use fleet_contract::outcome::{Outcome, OutputStream};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use tokio::sync::mpsc;

const MARK: &str = "FLEET_TEST_RUN";

/// Runs this test again in a process of its own; true there.
fn alone(name: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(MARK, "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

fn options(home: &Path, line: &str) -> RunHere {
    let mut spec = JobSpec::new(
        vec![line.to_owned()],
        Target::Lane(Lane::any()),
        Time::from_micros(0),
        "ana@studio".to_owned(),
    );
    spec.shell = true;
    spec.cwd = Some(home.display().to_string());
    RunHere {
        grace: Duration::from_millis(400),
        ..RunHere::new(
            home.to_owned(),
            JobId::from_random([1; 10]),
            AttemptId::from_random([2; 10]),
            "studio".parse().unwrap(),
            spec,
        )
    }
}

/// Runs it, collecting the output.
fn run(options: RunHere, cancel_at: Option<&'static str>) -> (AttemptReport, Vec<Chunk>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (sender, mut chunks) = mpsc::channel::<Chunk>(4);
        let (cancel, canceled) = tokio::sync::oneshot::channel::<()>();
        let mut cancel = Some(cancel);
        let collect = async {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                if cancel_at.is_some_and(|at| chunk.bytes.starts_with(at.as_bytes())) {
                    cancel.take();
                }
                all.push(chunk);
            }
            all
        };
        let never = cancel_at.is_none();
        let run = run_here(options, sender, async move {
            if never {
                std::future::pending::<()>().await;
            }
            let _ = canceled.await;
        });
        let limit = Duration::from_secs(60);
        let both = async { tokio::join!(run, collect) };
        let (report, chunks) = tokio::time::timeout(limit, both).await.unwrap();
        (report.unwrap(), chunks)
    })
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

#[test]
fn output_is_told_live_and_kept_with_the_record() {
    if !alone("output_is_told_live_and_kept_with_the_record") {
        return;
    }
    let (_dir, home) = home();
    let options = options(
        &home,
        "pwd; echo oops >&2; head -c 3000000 /dev/zero; exit 7",
    );
    let (job, log) = (options.job, options.log_dir());
    let (report, chunks) = run(options, None);
    assert_eq!(report.outcome, Some(Outcome::Exited { exit_code: 7 }));
    assert_eq!(report.output.chunks, chunks.len() as u64);
    let stdout: Vec<u8> = chunks
        .iter()
        .filter(|c| c.stream == OutputStream::Stdout)
        .flat_map(|c| c.bytes.to_vec())
        .collect();
    let line = format!("{}\n", home.display());
    assert!(stdout.starts_with(line.as_bytes()));
    assert_eq!(stdout.len(), line.len() + 3_000_000);

    let read = LogReader::new(log).read_from(1, report.output.chunks, usize::MAX);
    assert_eq!(read.unwrap().chunks, chunks);
    let read = executor::read_run(&home, job).unwrap().unwrap();
    let mut expected = report;
    expected.pid = read.pid;
    assert_eq!(read, expected);
    let unknown = JobId::from_random([9; 10]);
    assert_eq!(executor::read_run(&home, unknown).unwrap(), None);
}

#[test]
fn a_second_at_the_same_time_is_refused_and_one_after_the_other_is_not() {
    if !alone("a_second_at_the_same_time_is_refused_and_one_after_the_other_is_not") {
        return;
    }
    let (_dir, home) = home();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (sender, _) = mpsc::channel(1);
        let first = run_here(
            options(&home, "sleep 0.3"),
            sender.clone(),
            std::future::pending(),
        );
        // Polled after the first one, which has its place from its first poll on.
        let second = run_here(
            options(&home, "true"),
            sender.clone(),
            std::future::pending(),
        );
        let (first, second) = tokio::join!(first, second);
        first.unwrap();
        second.unwrap_err();
    });
    let mut options = options(&home, "true");
    options.job = JobId::from_random([3; 10]);
    let (report, _) = run(options, None);
    assert_eq!(report.outcome, Some(Outcome::Exited { exit_code: 0 }));
}

#[test]
fn cancel_ends_daemons_and_spares_the_programs_own_children() {
    if !alone("cancel_ends_daemons_and_spares_the_programs_own_children") {
        return;
    }
    let (_dir, home) = home();
    let mut own = Command::new("sleep").arg("600").spawn().unwrap();
    let options = options(
        &home,
        "(setsid sh -c 'echo $$ > pid; exec sleep 600' </dev/null >/dev/null 2>&1 &); \
         while ! test -s pid; do sleep 0.01; done; echo ready; exec sleep 600",
    );
    let (report, _) = run(options, Some("ready"));
    assert_eq!(report.outcome, Some(Outcome::Canceled));
    assert!(report.survivors.is_empty());
    assert_eq!(
        own.try_wait().unwrap(),
        None,
        "the program's own child runs"
    );
    own.kill().unwrap();
    own.wait().unwrap();
    if cfg!(target_os = "linux") {
        let pid = std::fs::read_to_string(home.join("pid")).unwrap();
        let status = Command::new("ps")
            .args(["-p", pid.trim()])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success());
    }
}

#[test]
fn what_cannot_be_started_is_an_outcome() {
    if !alone("what_cannot_be_started_is_an_outcome") {
        return;
    }
    let (_dir, home) = home();
    let mut options = options(&home, "x");
    options.spec.shell = false;
    options.spec.command = vec!["no-such-program".to_owned()];
    let (report, chunks) = run(options, None);
    assert!(matches!(report.outcome, Some(Outcome::Rejected { .. })));
    assert!(chunks.is_empty());
}
