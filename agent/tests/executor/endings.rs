//! A job's end means that every process of it is gone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_agent::executor::{KillCause, StartRequest, boot_now};
use fleet_contract::outcome::Outcome;

use crate::support::{Agent, End, GRACE, Home, exited, gone, job, number_in, runs, shell};

async fn cancel(agent: &mut Agent, request: &StartRequest) -> End {
    let cancel = agent.client.kill(request.attempt, KillCause::Cancel);
    cancel.await.unwrap();
    agent.end(request).await
}

/// A shell line that starts a process which writes its number to `file` and runs on.
fn sleeper(wrap: &str, file: &Path, ignore_term: bool) -> String {
    let trap = if ignore_term { "trap \"\" TERM; " } else { "" };
    let file = file.display();
    format!("{wrap} sh -c '{trap}echo $$ > {file}; while :; do sleep 0.2; done'")
}

#[tokio::test]
async fn exit_code_and_signal_are_apart() {
    let home = Home::new();
    let mut agent = home.connect().await;
    assert_eq!(agent.run(&shell("exit 137")).await.outcome, exited(137));
    let end = agent.run(&shell("kill -9 $$")).await;
    assert_eq!(end.outcome, Outcome::Signaled { signal: 9 });
    let end = agent.run(&shell("kill -TERM $$")).await;
    assert_eq!(end.outcome, Outcome::Signaled { signal: 15 });
}

#[tokio::test]
async fn cancel_ends_grandchildren_that_ignore_term() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let file = home.scratch().join("pid");
    let request = shell(&format!("{} & wait", sleeper("", &file, true)));
    agent.start(&request).await;
    let grandchild = number_in(&file).await;
    let begun = Instant::now();
    let end = cancel(&mut agent, &request).await;
    assert_eq!(end.outcome, Outcome::Canceled);
    assert!(!runs(grandchild));
    assert!(end.survivors.is_empty());
    assert!(begun.elapsed() >= GRACE);
}

#[tokio::test]
async fn a_leader_that_exits_zero_on_term_was_canceled_all_the_same() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    agent.start(&request).await;
    agent.output(&request, 1).await;
    let end = cancel(&mut agent, &request).await;
    assert_eq!(end.outcome, Outcome::Canceled);
    // Canceling what has ended changes nothing.
    agent
        .client
        .kill(request.attempt, KillCause::Fence)
        .await
        .unwrap();
    let report = agent.report(&request).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Canceled));
}

#[tokio::test]
async fn a_stopped_process_hears_term_too() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = shell("trap 'echo heard; exit 0' TERM; echo ready; kill -STOP $$; exit 1");
    agent.start(&request).await;
    agent.output(&request, 1).await;
    let end = cancel(&mut agent, &request).await;
    assert_eq!(end.outcome, Outcome::Canceled);
    let text = agent.text(&request, end.output.chunks);
    assert_eq!(text, "ready\nheard\n");
}

#[tokio::test]
async fn what_the_first_process_leaves_behind_is_ended_with_it() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let file = home.scratch().join("pid");
    let request = shell(&format!(
        "{} & while ! test -s {}; do sleep 0.01; done; exit 6",
        sleeper("", &file, false),
        file.display()
    ));
    let end = agent.run(&request).await;
    assert_eq!(end.outcome, exited(6));
    assert!(!runs(number_in(&file).await));
}

#[tokio::test]
async fn a_time_out_ends_everything() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let file = home.scratch().join("pid");
    let mut request = shell(&format!("trap '' TERM; {}", sleeper("", &file, true)));
    // Long enough for a machine under load to have started what is to be ended.
    request.spec.timeout_ms = Some(3000);
    let begun = Instant::now();
    let end = agent.run(&request).await;
    assert_eq!(end.outcome, Outcome::TimedOut);
    assert!(begun.elapsed() >= Duration::from_secs(3) + GRACE);
    assert!(!runs(number_in(&file).await));
    // One that is quicker is not touched.
    let mut request = job(&["true"]);
    request.spec.timeout_ms = Some(u64::MAX);
    assert_eq!(agent.run(&request).await.outcome, exited(0));
}

#[tokio::test]
async fn a_fence_ends_a_job_while_no_agent_is_connected() {
    let home = Home::new();
    let agent = home.connect().await;
    let file = home.scratch().join("pid");
    let request = shell(&sleeper("exec", &file, false));
    agent.start(&request).await;
    let leader = number_in(&file).await;
    let at = boot_now().plus(Duration::from_millis(200));
    agent
        .client
        .fence_at(Some(request.attempt), Some(at))
        .await
        .unwrap();
    drop(agent);
    gone(leader).await;
    assert!(boot_now() >= at);
    let mut agent = home.connect().await;
    let outcome = match agent.report(&request).await.unwrap().outcome {
        Some(outcome) => outcome,
        None => agent.end(&request).await.outcome,
    };
    assert_eq!(outcome, Outcome::Fenced);
}

#[tokio::test]
async fn a_fence_can_be_moved_and_one_that_has_passed_starts_nothing() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let gate = home.scratch().join("gate");
    let mut first = shell(&format!(
        "while ! test -e {}; do sleep 0.01; done",
        gate.display()
    ));
    // Both are started before that, on a machine under load, too.
    let before = boot_now().plus(Duration::from_secs(5));
    first.fence_at = Some(before);
    let mut second = first.clone();
    second.attempt = job(&["x"]).attempt;
    agent.start(&first).await;
    agent.start(&second).await;
    agent.client.fence_at(None, None).await.unwrap();
    let later = before.plus(Duration::from_millis(200));
    let moved = agent.client.fence_at(Some(second.attempt), Some(later));
    moved.await.unwrap();
    assert_eq!(agent.end(&second).await.outcome, Outcome::Fenced);
    assert!(boot_now() >= later);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(agent.end(&first).await.outcome, exited(0));
    let mut past = job(&["true"]);
    past.fence_at = Some(boot_now());
    assert_eq!(agent.run(&past).await.outcome, Outcome::Fenced);
    assert_eq!(agent.report(&past).await.unwrap().started_at, None);
}

#[cfg(target_os = "linux")]
mod daemons {
    use super::*;

    /// Starts a daemon in the background of its job and waits until it runs.
    fn daemon_job(wrap: &str, file: &Path, rest: &str) -> StartRequest {
        shell(&format!(
            "({} &) ; while ! test -s {}; do sleep 0.01; done; {rest}",
            sleeper(wrap, file, true),
            file.display()
        ))
    }

    async fn ends_with_its_job(wrap: &str) {
        let home = Home::new();
        let mut agent = home.connect().await;
        for (name, rest) in [
            ("exits", "exit 2"),
            ("canceled", "echo ready; exec sleep 600"),
        ] {
            let file = home.scratch().join(name);
            let request = daemon_job(wrap, &file, rest);
            agent.start(&request).await;
            let daemon = number_in(&file).await;
            let end = if name == "exits" {
                agent.end(&request).await
            } else {
                agent.output(&request, 1).await;
                cancel(&mut agent, &request).await
            };
            let expected = if name == "exits" {
                exited(2)
            } else {
                Outcome::Canceled
            };
            assert_eq!(end.outcome, expected);
            assert!(end.survivors.is_empty());
            assert!(!runs(daemon), "{wrap} {name}");
        }
    }

    #[tokio::test]
    async fn setsid_daemons_are_ended() {
        ends_with_its_job("setsid").await;
    }

    #[tokio::test]
    async fn daemons_without_an_environment_are_ended() {
        ends_with_its_job("env -i setsid").await;
    }

    #[tokio::test]
    async fn daemons_without_environment_and_output_are_ended() {
        ends_with_its_job("env -i setsid </dev/null >/dev/null 2>&1").await;
    }

    /// A job's daemon that can be told apart only by the one job that ran when it began.
    const HIDDEN: &str = "env -i setsid </dev/null >/dev/null 2>&1";

    #[tokio::test]
    async fn the_daemons_of_other_jobs_are_left_alone() {
        let home = Home::new();
        let mut agent = home.connect().await;
        let path = |name: &str| -> PathBuf { home.scratch().join(name) };
        let long = daemon_job("setsid", &path("long"), "echo ready; exec sleep 600");
        agent.start(&long).await;
        agent.output(&long, 1).await;
        let theirs = number_in(&path("long")).await;
        for number in 0..5 {
            let short = daemon_job("setsid", &path(&number.to_string()), "exit 0");
            assert_eq!(agent.run(&short).await.outcome, exited(0));
            assert!(!runs(number_in(&path(&number.to_string())).await));
            assert!(runs(theirs));
        }
        cancel(&mut agent, &long).await;
        assert!(!runs(theirs));
    }

    #[tokio::test]
    async fn a_daemon_that_could_be_either_jobs_is_ended_with_the_last() {
        let home = Home::new();
        let mut agent = home.connect().await;
        let file = home.scratch().join("pid");
        let other = shell("echo ready; exec sleep 600");
        agent.start(&other).await;
        agent.output(&other, 1).await;
        let request = daemon_job(HIDDEN, &file, "exit 0");
        assert_eq!(agent.run(&request).await.outcome, exited(0));
        let daemon = number_in(&file).await;
        assert!(runs(daemon), "it might be the other job's");
        assert_eq!(cancel(&mut agent, &other).await.outcome, Outcome::Canceled);
        assert!(!runs(daemon));
    }

    #[tokio::test]
    async fn orphans_that_end_are_reaped_while_their_job_runs() {
        let home = Home::new();
        let mut agent = home.connect().await;
        let request = shell(
            "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 0.05 &); done; sleep 0.2; echo ready; exec sleep 600",
        );
        agent.start(&request).await;
        agent.output(&request, 1).await;
        let children = format!("/proc/{0}/task/{0}/children", agent.client.pid());
        let leader = agent.report(&request).await.unwrap().pid.unwrap();
        let until = Instant::now() + crate::support::LIMIT;
        loop {
            let seen = std::fs::read_to_string(&children).unwrap();
            // The harness runs the executor on a thread; its jobs may be that one's children.
            let seen: Vec<u32> = seen
                .split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .filter(|pid| *pid != leader)
                .collect();
            if seen.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "zombies: {seen:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel(&mut agent, &request).await;
    }

    #[tokio::test]
    async fn a_tree_that_keeps_forking_is_ended() {
        let home = Home::new();
        let mut agent = home.connect().await;
        let request = shell(
            "trap '' TERM; f() { (trap '' TERM; sleep 0.02; f) & }; f; f; echo ready; while :; do sleep 0.05; done",
        );
        agent.start(&request).await;
        agent.output(&request, 1).await;
        let end = cancel(&mut agent, &request).await;
        assert_eq!(end.outcome, Outcome::Canceled);
        assert!(end.survivors.is_empty());
        let mark = format!("FLEET_ATTEMPT={}", request.attempt);
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|env| env.windows(mark.len()).any(|w| w == mark.as_bytes()))
        });
        assert!(!left);
    }
}
