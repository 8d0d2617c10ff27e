//! The hub as a process: starting, refusing, surviving, ending.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet_nats::connect::{
    Attempt, ConnectError, ConnectOptions, LinkState, Unreachable, connect, connect_for_ever,
};
use fleet_nats::hub::{
    Credentials, Hub, HubError, HubEvent, HubOptions, HubRecord, PeerEvent, PeerEventKind,
    Permission, running_hub,
};
use fleet_nats::testing::{TestHub, TestPort, test_server};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// Who connects, and takes the time that a loaded machine needs.
fn patient(credentials: Credentials) -> ConnectOptions {
    ConnectOptions {
        fail_within: LONG,
        ..ConnectOptions::new("test", credentials)
    }
}

fn is_gone(raw: u32) -> bool {
    test_kill_process(pid(raw)).is_err()
}

#[tokio::test]
async fn a_hub_starts_serves_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let port = TestPort::take();
    let mut options = TestHub::options(folder.path()).await;
    options.listen = port.address();
    let home = options.home.clone();
    let hub = Hub::start(options).await.unwrap();
    let server = hub.pid().unwrap();
    assert!(hub.warnings().is_empty());

    let operator = Credentials::load(&home.operator_credentials()).unwrap();
    assert_eq!(operator.hubs(), [hub.url()]);
    assert_eq!(operator.permission(), Permission::Operator);
    let link = connect(&patient(operator)).await.unwrap();
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
    let home = first.home().clone();
    assert_eq!(running_hub(&home), Some(me));
    first.stop().await.unwrap();
    assert_eq!(running_hub(&home), None);
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
    tokio::time::timeout(LONG, status.wait_for(|s| s.connects >= 2))
        .await
        .unwrap()
        .unwrap();
    link.ready().await.unwrap();
    hub.stop().await.unwrap();
    assert!(is_gone(second));
}

#[tokio::test]
async fn nobody_listening_is_said_at_once_with_every_address() {
    let nobody = [TestPort::take(), TestPort::take()];
    let hub = TestHub::start().await;
    let mut options = patient(hub.credentials("a", Permission::Viewer));
    options.urls = nobody
        .iter()
        .map(|port| format!("nats://{}", port.address()))
        .collect();
    let started = std::time::Instant::now();
    let error = connect(&options).await.unwrap_err();
    // At once: it has not used up the time it was given.
    assert!(started.elapsed() < LONG);
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

/// The server of a killed hub, as it is found later: nobody's child but the test's.
async fn orphan_of(home: &Path) -> Child {
    let hub = Hub::start(TestHub::options(home).await).await.unwrap();
    let config = hub.home().server_config();
    let pid_file = hub.home().server_pid();
    hub.stop().await.unwrap();
    let child = Command::new(test_server().await)
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // It writes the file itself.
    until(|| {
        std::fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == child.id().to_string())
    })
    .await;
    child
}

/// Looks again, soon, until it holds or the deadline is over.
async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "it never held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_orphan_is_ended_and_its_place_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut orphan = orphan_of(folder.path()).await;
    let hub = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    assert_eq!(hub.ended_orphan(), Some(orphan.id()));
    assert!(orphan.try_wait().unwrap().is_some());
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_stranger_with_the_orphans_number_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = TestHub::options(folder.path()).await;
    let mut stranger = Command::new("sh")
        .args(["-c", "read -r _"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::create_dir_all(options.home.hub_dir()).unwrap();
    std::fs::write(options.home.server_pid(), stranger.id().to_string()).unwrap();
    let hub = Hub::start(options).await.unwrap();
    assert_eq!(hub.ended_orphan(), None);
    assert!(stranger.try_wait().unwrap().is_none());
    hub.stop().await.unwrap();
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
}

/// Tells a copy of this test, run as a process of its own, where its home is.
const HELPER: &str = "FLEET_TEST_HELPER_HOME";

/// Runs the test of this name as another process, up to the line in which it says its server's
/// pid.
fn helper(test: &str, home: &Path) -> (Child, u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(HELPER, home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = lines
        .find_map(|line| {
            let line = line.unwrap();
            line.split_once("server ")
                .and_then(|(_, number)| number.trim().parse().ok())
        })
        .unwrap_or_else(|| panic!("{test}: the helper started no server"));
    (child, server)
}

/// The helper's part: says its server's pid and waits to be killed. Ends with its parent.
fn wait_to_be_killed(hub: &Hub) {
    println!("\nserver {}", hub.pid().unwrap());
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[tokio::test]
async fn a_tests_server_dies_with_the_test_even_when_that_is_killed() {
    if let Some(home) = std::env::var_os(HELPER) {
        let options = TestHub::options(Path::new(&home)).await;
        wait_to_be_killed(&Hub::start(options).await.unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_tests_server_dies_with_the_test_even_when_that_is_killed";
    let (mut child, server) = helper(name, folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    until(|| is_gone_or_zombie(server)).await;
}

/// Where nobody reaps orphans, a dead one stays as a zombie: it is dead all the same.
fn is_gone_or_zombie(pid: u32) -> bool {
    is_gone(pid)
        || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.is_empty())
}

#[tokio::test]
async fn a_killed_hub_leaves_its_server_and_the_next_start_takes_over() {
    if let Some(home) = std::env::var_os(HELPER) {
        let mut options = TestHub::options(Path::new(&home)).await;
        options.tethered = false;
        wait_to_be_killed(&Hub::start(options).await.unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_killed_hub_leaves_its_server_and_the_next_start_takes_over";
    let (mut child, server) = helper(name, folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!is_gone_or_zombie(server), "it should serve on");
    let hub = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    assert_eq!(hub.ended_orphan(), Some(server));
    until(|| is_gone_or_zombie(server)).await;
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_hub_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = TestHub::options(folder.path()).await;
    options.tethered = false;
    let hub = Hub::start(options.clone()).await.unwrap();
    let server = hub.pid().unwrap();
    drop(hub);
    until(|| is_gone(server)).await;
    // In order, not by force.
    let log = std::fs::read_to_string(options.home.server_log()).unwrap();
    assert!(log.contains("Server Exiting"), "{log}");
}

#[tokio::test]
async fn a_start_given_up_half_way_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = TestHub::options(folder.path()).await;
    options.tethered = false;
    let pid_file = options.home.server_pid();
    let server = {
        let mut start = std::pin::pin!(Hub::start(options));
        // Given up as soon as there is a process.
        loop {
            tokio::select! {
                biased;
                _ = &mut start => panic!("it was started before it could be given up"),
                () = tokio::task::yield_now() => {}
            }
            if let Some(pid) = std::fs::read_to_string(&pid_file)
                .ok()
                .and_then(|text| text.trim().parse::<u32>().ok())
            {
                break pid;
            }
        }
    };
    until(|| is_gone(server)).await;
}

#[tokio::test]
async fn a_program_that_is_no_server_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (program, expected) in [("/bin/cat", "did not start"), ("/missing", "cannot start")] {
        let mut options = TestHub::options(folder.path()).await;
        options.server = program.into();
        let home = options.home.clone();
        let error = Hub::start(options).await.err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!home.server_pid().exists());
        assert!(
            !home.hub_record().exists(),
            "a hub that never ran has no record"
        );
    }
    // And the folder is free again.
    let hub = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn the_store_and_the_keys_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(TestHub::options(folder.path()).await)
        .await
        .unwrap();
    let worker = hub
        .identity()
        .issue(1, "studio", Permission::Worker, vec![]);
    let worker = worker.unwrap();
    let operator = hub.operator_credentials().clone();
    let link = connect(&patient(operator.clone())).await.unwrap();
    let js = async_nats::jetstream::new(link.client().clone());
    js.create_stream(async_nats::jetstream::stream::Config {
        name: "PRES".into(),
        subjects: vec!["fleet.pres.*".into()],
        ..Default::default()
    })
    .await
    .unwrap();
    js.publish("fleet.pres.studio", "here".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let store = hub.record().max_file_store;
    hub.stop().await.unwrap();

    let mut options = TestHub::options(folder.path()).await;
    options.max_file_store = None;
    let hub = Hub::start(options).await.unwrap();
    // The bound of the first start stays, whatever has become of the disk.
    assert_eq!(hub.record().max_file_store, store);
    assert_eq!(
        hub.operator_credentials().public_key(),
        operator.public_key()
    );
    // Credentials given out before, at the new port.
    let worker = worker.with_hubs(vec![hub.url()]);
    let link = connect(&patient(worker)).await.unwrap();
    let request = link
        .client()
        .request("fleet.pres.studio", "again".into())
        .await;
    assert!(String::from_utf8_lossy(&request.unwrap().payload).contains("\"seq\":2"));
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn another_hubs_credentials_are_refused_with_what_to_do() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = fleet_nats::home::Home::new(folder.path());
    let stranger = fleet_nats::hub::Identity::load_or_create(&home).unwrap();
    let credentials = stranger
        .issue(1, "studio", Permission::Worker, vec![hub.url()])
        .unwrap();
    let options = patient(credentials);
    let error = connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("fleet hub credentials"));
    // An agent goes on trying, and shows why it is not let in.
    let link = connect_for_ever(&options).await.unwrap();
    let mut status = link.status();
    let told = tokio::time::timeout(LONG, status.wait_for(|s| s.auth_failures > 1)).await;
    assert_eq!(told.unwrap().unwrap().connects, 0);
}

#[tokio::test]
async fn silence_a_wrong_name_and_a_wrong_program_each_have_their_reason() {
    let hub = TestHub::start().await;
    let mut options = patient(hub.credentials("a", Permission::Viewer));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("nats://{}", silent.local_addr().unwrap());
    options.fail_within = Duration::from_millis(300);
    options.urls = vec![silent_url];
    // By itself, though nobody hangs up; how soon is not what a loaded machine can promise.
    let error = tokio::time::timeout(LONG, connect(&options)).await;
    let error = error.unwrap().unwrap_err();
    assert!(error.to_string().ends_with("(timed out)"), "{error}");

    options.fail_within = LONG;
    // Too long for a name: no name server needs to be asked to know that.
    options.urls = vec![format!("nats://{}:4222", "x".repeat(64))];
    let error = connect(&options).await.unwrap_err();
    assert!(error.to_string().ends_with("(unknown host)"), "{error}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    options.urls = vec![format!("nats://{}", other.local_addr().unwrap())];
    let greeter = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        stream.write_all(b"SSH-2.0-Other\r\n").unwrap();
        // Until the other side has hung up.
        let _ = stream.read(&mut [0; 1]);
    });
    let error = connect(&options).await.unwrap_err();
    let ConnectError::Unreachable(attempts) = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(
            &attempts[..],
            [Attempt {
                why: Unreachable::Other(_),
                ..
            }]
        ),
        "{error}"
    );
    greeter.join().unwrap();

    options.urls = vec!["nats://".into()];
    let error = connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Address { .. }), "{error}");
    options.urls = Vec::new();
    options.credentials = options.credentials.with_hubs(Vec::new());
    let error = connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAddress), "{error}");
}

#[tokio::test]
async fn an_agent_started_before_its_hub_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = TestPort::take();
    let options = HubOptions {
        listen: port.address(),
        ..TestHub::options(folder.path()).await
    };
    let first = Hub::start(options.clone()).await.unwrap();
    let worker = first
        .identity()
        .issue(1, "studio", Permission::Worker, vec![first.url()])
        .unwrap();
    first.stop().await.unwrap();

    let link = connect_for_ever(&ConnectOptions::new("fleet agent studio", worker))
        .await
        .unwrap();
    assert!(!link.is_connected());
    let hub = Hub::start(options).await.unwrap();
    tokio::time::timeout(LONG, link.ready())
        .await
        .unwrap()
        .unwrap();
    assert!(link.is_connected());
    hub.stop().await.unwrap();
    let mut status = link.status();
    let lost = status.wait_for(|s| s.state == LinkState::Disconnected);
    tokio::time::timeout(LONG, lost).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_hub_is_told_who_comes_and_goes() {
    let hub = TestHub::start().await;
    let system = ConnectOptions {
        check_api: false,
        ..patient(hub.system_credentials().unwrap())
    };
    let system = connect(&system).await.unwrap();
    let mut events = system.client().subscribe("$SYS.ACCOUNT.*.*").await.unwrap();
    // A request is answered after the subscription was taken in; `flush` would not say so.
    let ping = system.client().request("$SYS.REQ.SERVER.PING", "".into());
    ping.await.unwrap();
    let worker = hub.connect("studio", Permission::Worker).await.unwrap();
    let came = next_peer(&hub, &mut events, PeerEventKind::Connected).await;
    drop(worker);
    let left = next_peer(&hub, &mut events, PeerEventKind::Disconnected).await;
    for event in [&came, &left] {
        assert_eq!(event.name, "studio");
        assert_eq!(event.permission, Permission::Worker);
        assert_eq!(event.host, "127.0.0.1");
    }
    assert_eq!(came.connection, left.connection);
    assert_eq!(left.reason.as_deref(), Some("Client Closed"));
    assert!(hub.identity().peer_event(b"{}").is_none());
}

async fn next_peer(
    hub: &Hub,
    events: &mut async_nats::Subscriber,
    kind: PeerEventKind,
) -> PeerEvent {
    loop {
        let message = tokio::time::timeout(LONG, events.next()).await.unwrap();
        let event = hub.identity().peer_event(&message.unwrap().payload);
        if let Some(event) = event.filter(|e| e.kind == kind && e.name == "studio") {
            return event;
        }
    }
}
