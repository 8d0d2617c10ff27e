//! For tests: a real hub in a folder of its own on free ports, ended when the test ends, however
//! it ends, and peers that do not keep to the contract. The server is found or installed by fleet's
//! own code; without one a test fails.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;

use crate::connect::{ConnectError, ConnectOptions, Link, connect};
use crate::home::Home;
use crate::hub::{
    Credentials, Hub, HubError, HubOptions, Permission, SearchPath, find_server, install_server,
};

/// How long a connection of a test may take: a loaded machine is no reason to fail one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ports of tests. Below those that systems give to connections (from 32768 on Linux, 49152 on
/// macOS), or a client that tries again could sit on the port of a hub that is away: with one try
/// it can even connect to itself. Two more ports belong to each, in ranges of their own.
const PORTS: std::ops::Range<u16> = 10_000..14_000;
/// From a hub's port to the one on which it is asked for its health, unless that is taken.
const MONITOR: u16 = 4_000;
/// From a hub's port to the one that is listened on for as long as a test has it.
const TAKEN: u16 = 8_000;

/// A port of loopback that is one test's for as long as this lives, whoever listens on it or not:
/// a hub can be ended and started again there.
#[derive(Debug)]
pub struct TestPort {
    address: SocketAddr,
    /// No two tests can have it, in whatever processes, and it is given up however one ends.
    _taken: TcpListener,
}

impl TestPort {
    /// Takes one.
    ///
    /// # Panics
    /// Where all are taken.
    #[expect(clippy::panic, reason = "a test that needs a port fails without one")]
    #[must_use]
    pub fn take() -> Self {
        let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let count = u64::from(PORTS.end - PORTS.start);
        let from = RandomState::new().build_hasher().finish() % count;
        (0..count)
            .filter_map(|n| u16::try_from((from + n) % count).ok())
            .find_map(|n| {
                let port = PORTS.start + n;
                let taken = listen(port + TAKEN)?;
                // Some other program may be there.
                (listen(port).is_some() && listen(port + MONITOR).is_some()).then(|| Self {
                    address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
                    _taken: taken,
                })
            })
            .unwrap_or_else(|| panic!("no port of {PORTS:?} is free"))
    }

    /// `127.0.0.1:10000`, say.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A hub for one test.
pub struct TestHub {
    /// Before the folder, so that the server is gone when its files go.
    hub: Hub,
    _folder: TempDir,
    _port: TestPort,
}

impl TestHub {
    /// Starts one. Fails the test where that cannot be done.
    ///
    /// # Panics
    /// Where there is no server, or it does not start.
    #[expect(
        clippy::panic,
        reason = "a test that needs its server fails without it"
    )]
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder for a hub: {e}"));
        let port = TestPort::take();
        let options = HubOptions {
            listen: port.address(),
            ..Self::options(folder.path()).await
        };
        let hub = Hub::start(options)
            .await
            .unwrap_or_else(|e| panic!("the test's hub did not start: {e}"));
        Self {
            hub,
            _folder: folder,
            _port: port,
        }
    }

    /// Options of a hub for tests in this folder: free ports on loopback, ended with the process.
    /// One that is started again at the same address needs a [`TestPort`].
    pub async fn options(home: &Path) -> HubOptions {
        HubOptions {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            max_file_store: Some(1024 * 1024 * 1024),
            healthy_within: Duration::from_secs(60),
            tethered: true,
            ..HubOptions::new(Home::new(home), test_server().await)
        }
    }

    /// Credentials for a user of this hub.
    ///
    /// # Panics
    /// Where the name is not valid.
    #[expect(clippy::panic, reason = "a test's own mistake")]
    #[must_use]
    pub fn credentials(&self, name: &str, permission: Permission) -> Credentials {
        self.hub
            .identity()
            .issue(1_700_000_000, name, permission, vec![self.hub.url()])
            .unwrap_or_else(|e| panic!("no credentials for {name}: {e}"))
    }

    /// Connects as a user of this hub.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(&self, name: &str, permission: Permission) -> Result<Link, ConnectError> {
        let credentials = self.credentials(name, permission);
        connect(&ConnectOptions {
            fail_within: PATIENCE,
            ..ConnectOptions::new(format!("test {name}"), credentials)
        })
        .await
    }

    /// Connects as the operator.
    ///
    /// # Panics
    /// Where the hub does not let the operator in.
    #[expect(clippy::panic, reason = "a test that needs its hub fails without it")]
    pub async fn operator(&self) -> Link {
        self.connect("operator", Permission::Operator)
            .await
            .unwrap_or_else(|e| panic!("the operator cannot connect: {e}"))
    }

    /// Ends the hub in order; its folder goes, too.
    ///
    /// # Errors
    /// As [`Hub::stop`].
    pub async fn stop(self) -> Result<(), HubError> {
        self.hub.stop().await
    }
}

impl Deref for TestHub {
    type Target = Hub;
    fn deref(&self) -> &Hub {
        &self.hub
    }
}

/// The nats-server for tests: `FLEET_TEST_SERVER`, or one on `PATH` that is new enough, or the
/// pinned one, installed once below the build folder and shared by all tests.
///
/// # Panics
/// Where there is none and none can be installed.
pub async fn test_server() -> PathBuf {
    tokio::task::spawn_blocking(test_server_blocking)
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

/// As [`test_server`], for tests without a runtime.
///
/// # Panics
/// Where there is none and none can be installed.
#[expect(
    clippy::panic,
    reason = "a test that needs its server fails without it"
)]
#[must_use]
pub fn test_server_blocking() -> PathBuf {
    let home = Home::new(shared_folder());
    let named = std::env::var_os("FLEET_TEST_SERVER");
    let search = SearchPath {
        flag: named.clone().map(PathBuf::from),
        variable: None,
        path: std::env::var_os("PATH"),
    };
    match find_server(&search, &home) {
        Ok(found) => found.path,
        Err(e) if named.is_some() => panic!("FLEET_TEST_SERVER: {e}"),
        Err(_) => {
            install_server(&home, |_| {})
                .unwrap_or_else(|e| {
                    panic!("tests need a nats-server: {e}; or name one by FLEET_TEST_SERVER")
                })
                .path
        }
    }
}

/// The build folder (that of the running test, marked by cargo), or the system's temporary one.
fn shared_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(std::env::temp_dir, Path::to_path_buf)
        .join("fleet-test-server")
}

/// Somebody on the bus who sends whatever comes to mind, as far as its credentials reach.
pub struct Peer {
    link: Link,
}

impl Peer {
    /// One over this connection.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Its connection.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Sends a message with these headers, for nobody to answer.
    ///
    /// # Panics
    /// Where the client does not take it.
    #[expect(clippy::panic, reason = "a test that cannot send fails there and then")]
    pub async fn send(&self, subject: &str, headers: &[(String, String)], bytes: bytes::Bytes) {
        let mut map = async_nats::HeaderMap::new();
        for (name, value) in headers {
            map.append(name.as_str(), value.as_str());
        }
        let client = self.link.client();
        let sent = match headers {
            [] => client.publish(subject.to_owned(), bytes).await,
            _ => {
                client
                    .publish_with_headers(subject.to_owned(), map, bytes)
                    .await
            }
        };
        sent.unwrap_or_else(|e| panic!("{subject}: {e}"));
    }

    /// As [`Peer::send`], but gives up where the client does not take it: whether it did.
    pub async fn try_send(&self, subject: &str, bytes: bytes::Bytes) -> bool {
        let sent = self.link.client().publish(subject.to_owned(), bytes);
        let within = tokio::time::timeout(Duration::from_secs(5), sent).await;
        within.is_ok_and(|sent| sent.is_ok())
    }

    /// Sends a message that names where the answer goes.
    ///
    /// # Panics
    /// As [`Peer::send`].
    #[expect(clippy::panic, reason = "a test that cannot send fails there and then")]
    pub async fn send_for(&self, subject: &str, reply: &str, bytes: bytes::Bytes) {
        let client = self.link.client();
        let sent = client.publish_with_reply(subject.to_owned(), reply.to_owned(), bytes);
        sent.await.unwrap_or_else(|e| panic!("{subject}: {e}"));
    }

    /// Returns when the server has taken in everything that was sent, refused or not.
    ///
    /// # Panics
    /// Where it does not answer.
    #[expect(clippy::panic, reason = "a test that needs its hub fails without it")]
    pub async fn settled(&self) {
        let client = self.link.client();
        let asked = client.request("$JS.API.INFO", bytes::Bytes::new());
        match tokio::time::timeout(Duration::from_secs(60), asked).await {
            Ok(Ok(_)) => {}
            other => panic!("the server does not answer: {other:?}"),
        }
    }

    /// An inbox of its own.
    #[must_use]
    pub fn inbox(&self) -> String {
        self.link.client().new_inbox()
    }

    /// Hears everything below a subject from now on, until it is asked to send it again.
    ///
    /// # Panics
    /// Where it may not.
    #[expect(clippy::panic, reason = "a test that needs its hub fails without it")]
    pub async fn overhear(&self, subject: &str) -> Overheard {
        let heard = self.link.client().subscribe(subject.to_owned()).await;
        let heard = heard.unwrap_or_else(|e| panic!("{subject}: {e}"));
        self.settled().await;
        Overheard(heard)
    }

    /// Sends everything again that was heard, as it was, the newest first, and then the oldest first
    /// without the headers that tell the server that it had it; how many messages that were.
    ///
    /// # Panics
    /// As [`Peer::send`].
    pub async fn replay(&self, mut heard: Overheard) -> usize {
        self.settled().await;
        let mut all = Vec::new();
        while let Some(Some(message)) = futures_util::FutureExt::now_or_never(heard.0.next()) {
            all.push(message);
        }
        for message in all.iter().rev() {
            let pairs = message.headers.iter().flat_map(|headers| headers.iter());
            let pairs = pairs.flat_map(|(name, values)| {
                let pair = |v: &async_nats::HeaderValue| (name.to_string(), v.to_string());
                values.iter().map(pair).collect::<Vec<_>>()
            });
            let pairs: Vec<_> = pairs.collect();
            self.send(&message.subject, &pairs, message.payload.clone())
                .await;
        }
        for message in &all {
            self.send(&message.subject, &[], message.payload.clone())
                .await;
        }
        self.settled().await;
        all.len()
    }
}

/// What a peer has heard.
pub struct Overheard(async_nats::Subscriber);
