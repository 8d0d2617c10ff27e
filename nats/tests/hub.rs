//! The hub as a process: starting, refusing, surviving, ending.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::net::TcpListener;
use std::time::Duration;

use fleet_nats::connect::{ConnectError, ConnectOptions, Unreachable, connect};
use fleet_nats::hub::{Credentials, Hub, HubError, HubEvent, HubRecord, Permission};
use fleet_nats::testing::TestHub;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

fn is_gone(raw: u32) -> bool {
    test_kill_process(pid(raw)).is_err()
}

#[tokio::test]
async fn a_hub_starts_serves_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let options = TestHub::options(folder.path()).await;
    let home = options.home.clone();
    let hub = Hub::start(options).await.unwrap();
    let server = hub.pid().unwrap();
    assert!(hub.warnings().is_empty());

    let operator = Credentials::load(&home.operator_credentials()).unwrap();
    assert_eq!(operator.hubs(), [hub.url()]);
    assert_eq!(operator.permission(), Permission::Operator);
    let link = connect(&ConnectOptions::new("test", operator))
        .await
        .unwrap();
    link.ready().await.unwrap();
    assert!(link.is_connected());

    let record = HubRecord::load(&home).unwrap().unwrap();
    assert_eq!(record.epoch, 0);
    assert_eq!(record.listen, hub.listen().to_string());
    hub.update_record(|r| r.epoch = 3).unwrap();

    let listen = hub.listen();
    hub.stop().await.unwrap();
    assert!(is_gone(server));
    assert!(!home.server_pid().exists());
    TcpListener::bind(listen).unwrap();
    assert_eq!(HubRecord::load(&home).unwrap().unwrap().epoch, 3);
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = TestHub::options(folder.path()).await;
    options.listen = taken.local_addr().unwrap();
    let error = Hub::start(options).await.err().unwrap();
    assert!(matches!(error, HubError::PortTaken { .. }));
    let text = error.to_string();
    assert!(text.contains(&options_port(&taken)), "{text}");
    assert!(text.contains("--listen"), "{text}");
}

fn options_port(listener: &TcpListener) -> String {
    format!("port {}", listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn a_second_hub_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    let error = Hub::start(TestHub::options(folder.path()).await)
        .await
        .err()
        .unwrap();
    let me = std::process::id();
    assert!(
        matches!(error, HubError::InUse { pid: Some(pid), .. } if pid == me),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("process {me}")));
    first.stop().await.unwrap();
    // And then the folder is free again.
    let again = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_home_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Below a file nobody can write, root neither.
    let error = Hub::start(TestHub::options(&file.join("home")).await)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, HubError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains("FLEET_HOME"), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_clients_come_back() {
    let hub = TestHub::start().await;
    let link = hub.operator().await;
    let mut status = link.status();
    let mut events = hub.events();
    let first = hub.pid().unwrap();
    kill_process(pid(first), Signal::KILL).unwrap();

    let exited = tokio::time::timeout(LONG, events.recv()).await.unwrap();
    assert!(
        matches!(exited, Ok(HubEvent::ServerExited { pid, .. }) if pid == first),
        "{exited:?}"
    );
    let restarted = tokio::time::timeout(LONG, events.recv()).await.unwrap();
    let Ok(HubEvent::ServerRestarted { pid: second, .. }) = restarted else {
        panic!("{restarted:?}");
    };
    assert_ne!(first, second);
    assert_eq!(hub.pid(), Some(second));
    tokio::time::timeout(LONG, status.wait_for(|s| s.connects == 2))
        .await
        .unwrap()
        .unwrap();
    link.ready().await.unwrap();
    hub.stop().await.unwrap();
    assert!(is_gone(second));
}

#[tokio::test]
async fn nobody_listening_is_said_at_once_with_every_address() {
    let free = |()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("nats://{}", listener.local_addr().unwrap())
    };
    let hub = TestHub::start().await;
    let mut options = ConnectOptions::new("test", hub.credentials("a", Permission::Viewer));
    options.urls = vec![free(()), free(())];
    let started = std::time::Instant::now();
    let error = connect(&options).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2));
    let ConnectError::Unreachable(attempts) = &error else {
        panic!("{error}");
    };
    assert_eq!(attempts.len(), 2);
    assert!(
        attempts
            .iter()
            .all(|a| a.why == Unreachable::ConnectionRefused),
        "{error}"
    );
    // The hub itself as the last resort works.
    options.urls.push(hub.url());
    connect(&options).await.unwrap();
}
