//! Many agents whose hub goes and comes: all are back within seconds, and not at the same moment.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::{Duration, Instant};

use fleet_nats::connect::{ConnectOptions, Link, LinkState, connect_for_ever};
use fleet_nats::hub::Permission;
use fleet_nats::testing::TestHub;
use rustix::process::{Pid, Signal, kill_process};

/// `FLEET_HERD=1000` tries with a thousand; each takes a socket here and one at the server.
fn how_many() -> usize {
    let given = std::env::var("FLEET_HERD").ok();
    given.map_or(100, |n| n.parse().unwrap())
}

/// When the link is up again after it had broken.
async fn back(link: Link) -> Instant {
    let mut status = link.status();
    let broken = status.wait_for(|s| s.disconnects > 0).await.map(drop);
    broken.unwrap();
    let up = status.wait_for(|s| s.state == LinkState::Connected && s.connects > 1);
    up.await.map(drop).unwrap();
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_come_back_within_seconds_and_not_all_at_once() {
    let hub = TestHub::start().await;
    let count = how_many();
    let begun = Instant::now();
    let mut links = Vec::new();
    for n in 0..count {
        let name = format!("agent-{n}");
        let credentials = hub.credentials(&name, Permission::Worker);
        let options = ConnectOptions::new(&name, credentials);
        links.push(connect_for_ever(&options).await.unwrap());
    }
    for link in &links {
        link.ready().await.unwrap();
    }
    println!("{count} agents connected in {:?}", begun.elapsed());
    let waiting: Vec<_> = links
        .iter()
        .map(|link| tokio::spawn(back(link.clone())))
        .collect();
    let pid = Pid::from_raw(i32::try_from(hub.pid().unwrap()).unwrap()).unwrap();
    let killed = Instant::now();
    kill_process(pid, Signal::KILL).unwrap();
    let mut times = Vec::new();
    for task in waiting {
        // The longest pause between two tries is four seconds; the rest is for a busy machine.
        let back = tokio::time::timeout(Duration::from_secs(60), task).await;
        times.push(back.unwrap().unwrap() - killed);
    }
    times.sort_unstable();
    let at = |share: usize| times[(count - 1) * share / 100];
    println!(
        "back after the server was killed: first {:?}, half {:?}, 99 % {:?}, last {:?}",
        at(0),
        at(50),
        at(99),
        at(100)
    );
    // Their pauses are spread; the rest is what the server takes.
    assert!(
        at(100) - at(0) > Duration::from_millis(100),
        "all at once: {times:?}"
    );
}
