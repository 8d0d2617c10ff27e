//! Starting, listing, forgetting, and what survives whose death.

use std::path::Path;
use std::time::{Duration, Instant};

use fleet_agent::executor::{
    ClientError, ExecutorClient, ExecutorEvent, KillCause, Start, StartRequest,
};
use fleet_contract::outcome::Outcome;

use crate::support::{
    Home, LIMIT, TEST, connect, exited, gone, job, kill_9, number_in, options, runs, shell,
};

#[tokio::test]
async fn a_job_is_started_once_listed_and_forgotten() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = shell("echo hello; exit 3");
    let end = agent.run(&request).await;
    assert_eq!(end.outcome, exited(3));
    assert_eq!((end.output.chunks, end.output.stdout.bytes), (1, 6));
    assert_eq!(agent.text(&request, 1), "hello\n");

    // A second start is a report, no second process.
    let Start::Known(known) = agent.client.start(request.clone()).await.unwrap() else {
        panic!("started twice");
    };
    assert_eq!(known.outcome, Some(exited(3)));
    let report = agent.report(&request).await.unwrap();
    assert_eq!(report, *known);
    assert_eq!((report.token, report.attempt_no), (42, 1));
    assert_eq!(report.spec, request.spec);

    agent.client.forget(request.attempt).await.unwrap();
    agent.client.forget(request.attempt).await.unwrap();
    assert!(agent.report(&request).await.is_none());
    let dir = fleet_agent::executor::attempt_dir(home.path(), request.job, request.attempt);
    let until = Instant::now() + LIMIT;
    while dir.parent().unwrap().exists() {
        assert!(Instant::now() < until, "the output is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Its small record stays, and it is still not started again.
    let ended = agent.client.ended(vec![request.attempt]).await.unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].token, &ended[0].outcome), (42, &exited(3)));
    let again = agent.client.start(request.clone()).await.unwrap();
    assert!(matches!(again, Start::Known(_)));
}

#[tokio::test]
async fn what_runs_is_not_forgotten_and_what_is_unknown_is_told() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = job(&["sleep", "600"]);
    agent.start(&request).await;
    let refused = agent.client.forget(request.attempt).await;
    assert!(matches!(refused, Err(ClientError::Running(_))));
    let unknown = job(&["true"]).attempt;
    let refused = agent.client.kill(unknown, KillCause::Cancel).await;
    assert!(matches!(refused, Err(ClientError::NotKnown(_))));
    agent
        .client
        .kill(request.attempt, KillCause::Cancel)
        .await
        .unwrap();
    assert_eq!(agent.end(&request).await.outcome, Outcome::Canceled);
}

#[tokio::test]
async fn jobs_outlive_the_agent() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let gate = home.scratch().join("gate");
    let long = shell(&format!(
        "echo before; while ! test -e {}; do sleep 0.01; done; echo after; exit 5",
        gate.display()
    ));
    agent.start(&long).await;
    agent.output(&long, 1).await;
    let executor = agent.client.pid();
    // The agent is gone without a word, as after kill -9: its socket just closes.
    drop(agent);
    std::fs::write(&gate, "").unwrap();

    let mut agent = home.connect().await;
    assert_eq!(agent.client.pid(), executor, "the same executor");
    let report = agent.report(&long).await.unwrap();
    let (outcome, chunks) = match report.outcome {
        Some(outcome) => (outcome, report.output.chunks),
        None => {
            let end = agent.end(&long).await;
            (end.outcome, end.output.chunks)
        }
    };
    assert_eq!(outcome, exited(5));
    assert_eq!(agent.text(&long, chunks), "before\nafter\n");
}

const AGENT: &str = "FLEET_TEST_AGENT";

/// Not a test: an agent that starts an executor and a job, and then runs until it is killed.
#[tokio::test]
async fn agent_process() {
    let Some(home) = std::env::var_os(AGENT).map(std::path::PathBuf::from) else {
        return;
    };
    crate::support::end_with_the_test();
    let mut agent = connect(options(&home, 2000)).await;
    let request =
        shell("echo before; while ! test -e gate; do sleep 0.01; done; echo after; exit 5");
    let request = in_folder(request, &home);
    agent.start(&request).await;
    agent.output(&request, 1).await;
    let line = format!("{}\n", agent.client.pid());
    std::fs::write(home.join("executor-pid"), line).unwrap();
    std::future::pending::<()>().await;
}

fn in_folder(mut request: StartRequest, folder: &Path) -> StartRequest {
    request.spec.cwd = Some(folder.display().to_string());
    request
}

#[tokio::test]
async fn kill_9_of_the_agent_that_started_the_executor_loses_nothing() {
    let home = Home::new();
    let mut process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["life::agent_process", "--exact"])
        .env(AGENT, home.path())
        .env(TEST, std::process::id().to_string())
        .spawn()
        .unwrap();
    let executor = number_in(&home.path().join("executor-pid")).await;
    process.kill().unwrap();
    process.wait().unwrap();
    std::fs::write(home.path().join("gate"), "").unwrap();

    let mut agent = home.connect().await;
    assert_eq!(agent.client.pid(), executor, "the same executor");
    let report = agent.client.list().await.unwrap().remove(0);
    let request = StartRequest {
        job: report.job,
        attempt: report.attempt,
        ..shell("unused")
    };
    let (outcome, chunks) = match report.outcome {
        Some(outcome) => (outcome, report.output.chunks),
        None => {
            let end = agent.end(&request).await;
            (end.outcome, end.output.chunks)
        }
    };
    assert_eq!(outcome, exited(5));
    assert_eq!(agent.text(&request, chunks), "before\nafter\n");
}

#[tokio::test]
async fn a_newer_agent_replaces_the_older() {
    let home = Home::new();
    let mut older = home.connect().await;
    let mut newer = home.connect().await;
    older
        .wait(|event| (*event == ExecutorEvent::Lost).then_some(()))
        .await;
    let refused = older.client.list().await;
    assert!(matches!(refused, Err(ClientError::Lost)), "{refused:?}");
    assert_eq!(newer.run(&job(&["true"])).await.outcome, exited(0));
}

#[tokio::test]
async fn a_killed_executor_leaves_no_process_and_the_next_one_says_so() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let [a, b, c] = ["a", "b", "c"].map(|name| home.scratch().join(name));
    let request = shell(&format!(
        "trap '' TERM; echo words; (setsid sh -c 'trap \"\" TERM; echo $$ > {a}; while :; do sleep 1; done' &); \
         (env -i setsid sh -c 'echo $$ > {c}; exec /bin/sleep 600' &); \
         echo $$ > {b}; while :; do sleep 1; done",
        a = a.display(),
        b = b.display(),
        c = c.display()
    ));
    agent.start(&request).await;
    agent.output(&request, 1).await;
    let (daemon, leader) = (number_in(&a).await, number_in(&b).await);
    // Known by the output pipe it holds alone.
    let nameless = number_in(&c).await;
    let done = job(&["true"]);
    agent.run(&done).await;
    kill_9(agent.client.pid());
    agent
        .wait(|event| (*event == ExecutorEvent::Lost).then_some(()))
        .await;
    assert!(runs(daemon) && runs(leader) && runs(nameless));

    let mut agent = home.connect().await;
    let listed = agent.report(&request).await.unwrap();
    let (outcome, output) = match listed.outcome {
        Some(outcome) => (outcome, listed.output),
        None => {
            let end = agent.end(&request).await;
            assert!(end.survivors.is_empty());
            (end.outcome, end.output)
        }
    };
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert!(!runs(daemon) && !runs(leader));
    assert!(!runs(nameless) || cfg!(not(target_os = "linux")));
    assert_eq!(agent.text(&request, output.chunks), "words\n");
    // What had ended before is still known as it was.
    let report = agent.report(&done).await.unwrap();
    assert_eq!(report.outcome, Some(exited(0)));
    let again = agent.client.start(request.clone()).await.unwrap();
    assert!(matches!(again, Start::Known(_)));
}

#[tokio::test]
async fn shutdown_interrupts_what_runs_and_ends_the_executor() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = job(&["sleep", "600"]);
    agent.start(&request).await;
    let executor = agent.client.pid();
    agent.client.shutdown().await.unwrap();
    assert_eq!(agent.end(&request).await.outcome, Outcome::Interrupted);
    agent
        .wait(|event| (*event == ExecutorEvent::Lost).then_some(()))
        .await;
    gone(executor).await;
    // The next one still knows it.
    let agent = home.connect().await;
    assert_ne!(agent.client.pid(), executor);
    let report = agent.report(&request).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Interrupted));
}

#[tokio::test]
async fn signals_of_a_terminal_are_ignored_and_term_ends_it_in_order() {
    use rustix::process::{Pid, Signal, kill_process};
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = job(&["sleep", "600"]);
    agent.start(&request).await;
    let executor = Pid::from_raw(agent.client.pid().cast_signed()).unwrap();
    // A session of its own: no terminal can send it anything.
    assert_eq!(rustix::process::getsid(Some(executor)).unwrap(), executor);
    kill_process(executor, Signal::INT).unwrap();
    kill_process(executor, Signal::HUP).unwrap();
    assert_eq!(agent.run(&job(&["true"])).await.outcome, exited(0));
    kill_process(executor, Signal::TERM).unwrap();
    assert_eq!(agent.end(&request).await.outcome, Outcome::Interrupted);
    agent
        .wait(|event| (*event == ExecutorEvent::Lost).then_some(()))
        .await;
}

#[tokio::test]
async fn an_executor_with_nothing_to_do_ends_by_itself() {
    let mut home = Home::new();
    home.linger_ms = 50;
    let agent = home.connect().await;
    let file = home.scratch().join("pid");
    let request = shell(&format!("echo $$ > {}; sleep 0.5", file.display()));
    agent.start(&request).await;
    let executor = agent.client.pid();
    drop(agent);
    let leader = number_in(&file).await;
    // Not while a job runs.
    gone(leader).await;
    gone(executor).await;
    assert!(!home.path().join("agent/executor.sock").exists());
    let agent = home.connect().await;
    let report = agent.report(&request).await.unwrap();
    assert_eq!(report.outcome, Some(exited(0)));
}

#[tokio::test]
async fn many_that_connect_at_once_get_one_executor() {
    let home = Home::new();
    let all = futures_util::future::join_all(
        (0..8).map(|_| ExecutorClient::connect_or_start(home.options())),
    )
    .await;
    let pids: Vec<u32> = all.into_iter().map(|c| c.unwrap().0.pid()).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

#[tokio::test]
async fn a_home_with_a_very_long_path_works() {
    let home = Home::with_path(&format!("{}/{}", "x".repeat(120), "y".repeat(120)));
    let mut agent = home.connect().await;
    assert_eq!(agent.run(&job(&["true"])).await.outcome, exited(0));
    agent.client.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_executor_that_cannot_be_started_is_an_error_that_says_why() {
    let home = Home::new();
    let mut options = home.options();
    options.command.program = "/no/such/fleet".into();
    let error = ExecutorClient::connect_or_start(options).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/fleet"), "{error}");
    let mut options = home.options();
    options.command.program = "/bin/false".into();
    let error = ExecutorClient::connect_or_start(options).await.unwrap_err();
    assert!(error.to_string().contains("executor.log"), "{error}");
}

#[tokio::test]
async fn garbage_and_strange_versions_are_refused_and_do_no_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let home = Home::new();
    let mut agent = home.connect().await;
    // Where the temporary folder's own path is long, the socket is elsewhere.
    let socket = home.path().join("agent/executor.sock");
    let socket = std::fs::read_to_string(socket.with_extension("sock.at"))
        .map_or(socket, std::path::PathBuf::from);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x02{]",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x1d{\"hello\":{\"version\":4000000}}",
        b"\0\0\0\x2a{\"request\":{\"id\":1,\"request\":\"shutdown\"}}   ",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // Closed, sometimes with unread bytes: then as a reset.
        let _ = tokio::time::timeout(LIMIT, read)
            .await
            .expect("the connection is closed");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.contains("refused"), "{answer}");
    }
    assert_eq!(agent.run(&job(&["true"])).await.outcome, exited(0));
}
