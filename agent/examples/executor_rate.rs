//! How quick the executor is: `cargo run --release -p fleet-agent --example executor_rate`.
//!
//! Through the socket, as the agent uses it: start, end, forget of `true`; the time from request
//! to the process running; and what an executor with nothing to do costs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measuring program"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet_agent::executor::{
    ConnectOptions, ExecutorClient, ExecutorCommand, ExecutorEvent, ExecutorOptions, StartRequest,
    serve_blocking,
};
use fleet_contract::ids::{AttemptId, JobId, Lane};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use tokio::sync::mpsc;

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "executor") {
        let home = PathBuf::from(args.next().unwrap());
        serve_blocking(ExecutorOptions::new(home)).unwrap();
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let home = tempfile::tempdir().unwrap();
    let options = ConnectOptions {
        home: home.path().to_owned(),
        command: ExecutorCommand {
            program: std::env::current_exe().unwrap(),
            args: vec!["executor".into(), home.path().into()],
            env: Vec::new(),
        },
        base_env: None,
        keep: None,
        limit: Duration::from_secs(10),
    };
    let begun = Instant::now();
    let (client, mut events) = ExecutorClient::connect_or_start(options).await.unwrap();
    println!("started and connected in {:?}", begun.elapsed());
    idle(client.pid()).await;
    one_at_a_time(&client, &mut events).await;
    for in_flight in [1, 2, 4, 8, 32] {
        rate(&client, &mut events, in_flight, 4000).await;
    }
    idle(client.pid()).await;
    client.shutdown().await.unwrap();
}

async fn one_at_a_time(client: &ExecutorClient, events: &mut mpsc::Receiver<ExecutorEvent>) {
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for number in 0..500 {
        let request = request(1_000_000 + number);
        let begun = Instant::now();
        client.start(request.clone()).await.unwrap();
        loop {
            match events.recv().await.unwrap() {
                ExecutorEvent::Started { .. } => started.push(begun.elapsed()),
                ExecutorEvent::Ended { .. } => break,
                _ => {}
            }
        }
        ended.push(begun.elapsed());
        client.forget(request.attempt).await.unwrap();
    }
    for (what, mut times) in [("started", started), ("ended", ended)] {
        times.sort();
        let at = |part: usize| times[times.len() * part / 100];
        println!("one at a time, {what}: p50 {:?} p99 {:?}", at(50), at(99));
    }
}

async fn rate(
    client: &ExecutorClient,
    events: &mut mpsc::Receiver<ExecutorEvent>,
    in_flight: u64,
    jobs: u64,
) {
    let begun = Instant::now();
    let base = in_flight * 10_000_000;
    let mut next = 0;
    let mut done = 0;
    let start = |number: u64| {
        let client = client.clone();
        tokio::spawn(async move { client.start(request(base + number)).await.unwrap() });
    };
    while next < in_flight {
        start(next);
        next += 1;
    }
    while done < jobs {
        if let ExecutorEvent::Ended { attempt, .. } = events.recv().await.unwrap() {
            done += 1;
            if next < jobs {
                start(next);
                next += 1;
            }
            let client = client.clone();
            tokio::spawn(async move { client.forget(attempt).await });
        }
    }
    let rate = jobs as f64 / begun.elapsed().as_secs_f64();
    println!("{in_flight} in flight: {rate:.0} jobs/s");
}

fn request(number: u64) -> StartRequest {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&number.to_be_bytes());
    let mut spec = JobSpec::new(
        vec!["true".to_owned()],
        Target::Lane(Lane::any()),
        Time::from_micros(0),
        "ana@studio".to_owned(),
    );
    spec.cwd = Some("/".to_owned());
    StartRequest {
        job: JobId::from_random(bits),
        attempt: AttemptId::from_random(bits),
        token: number,
        attempt_no: 1,
        machine: "studio".parse().unwrap(),
        spec,
        env: Default::default(),
        fence_at: None,
    }
}

/// Memory, and what three seconds of nothing cost.
async fn idle(pid: u32) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (Ok(status), Ok(before)) = (read("status"), read("schedstat")) else {
        return;
    };
    for line in status
        .lines()
        .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
    {
        println!("idle {line}");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = read("schedstat").unwrap();
    println!("3 s idle (ns on cpu, ns waiting, slices): {before} -> {after}");
}
