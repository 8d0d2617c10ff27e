//! Starting and stopping the hub's server: everything that can be wrong is found, each with its
//! own error, before anything is started; then the child is supervised until [`Hub::stop`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_contract::time::Time;
use rustix::process::Signal;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::config::{Settings, default_file_store, render};
use super::credentials::Credentials;
use super::identity::{Identity, IdentityError};
use super::process;
use super::record::{HubRecord, RecordError};
use super::supervise::{HubEvent, Launch, supervise};
use crate::connect::{self, ConnectError, ConnectOptions};
use crate::files::{private_dir, write_durably};
use crate::home::Home;

/// How many ports are tried when the caller does not care which.
const PORT_TRIES: u32 = 5;

/// Events kept for a reader that is slow.
const EVENTS: usize = 64;

/// How long a lock may be held by somebody who only looks.
const LOOK_WITHIN: Duration = Duration::from_millis(100);

/// How long a dropped hub waits for its server once that was told to end, and once it was killed.
const DROP_WITHIN: (Duration, Duration) = (process::TERM_WITHIN, Duration::from_secs(2));

/// How to start a hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Where everything is kept.
    pub home: Home,
    /// The nats-server to run, as [`super::find_server`] found it.
    pub server: PathBuf,
    /// Where clients connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health and metrics are asked for. `None`: loopback, the client port and 4000, or a
    /// free one where that is taken.
    pub monitor: Option<SocketAddr>,
    /// The server's name, shown by other NATS tools.
    pub name: String,
    /// Bytes that all streams together may use. `None`: as at the first start, and then four
    /// fifths of what the disk has.
    pub max_file_store: Option<u64>,
    /// How long the server may take to load its streams.
    pub healthy_within: Duration,
    /// The server is killed when this process ends, however it ends. For tests: the server of a
    /// real hub goes on serving until the next start takes its place.
    pub tethered: bool,
    /// For its own process only: where it listens is not written down for anybody.
    pub private: bool,
}

impl HubOptions {
    /// A hub on `127.0.0.1:4222`.
    #[must_use]
    pub fn new(home: Home, server: PathBuf) -> Self {
        Self {
            home,
            server,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4222),
            monitor: None,
            name: "fleet".to_owned(),
            max_file_store: None,
            healthy_within: Duration::from_secs(120),
            tethered: false,
            private: false,
        }
    }
}

/// Why the hub did not start or stop. Nothing was started, or it has been ended again.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A folder cannot be used.
    #[error("cannot write to {}: {source}: mend its rights, or choose another with FLEET_HOME", path.display())]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another hub has this data folder.
    #[error("a hub{} is running on {} already: use it, or end it with 'fleet down'", by(*pid), path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Its process, where it said so.
        pid: Option<u32>,
    },
    /// The port is taken.
    #[error("port {} on {} is taken by another program: end that, or choose another with '--listen {}:{}'", address.port(), address.ip(), ip(*address), address.port().wrapping_add(1))]
    PortTaken {
        /// Where the hub was to listen.
        address: SocketAddr,
    },
    /// The address is not this machine's, or the port not ours to take.
    #[error("cannot listen on {address}: {source}: choose another with '--listen ADDRESS:PORT'")]
    Listen {
        /// Where the hub was to listen.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// An orphan of a killed hub could not be ended.
    #[error(
        "nats-server {pid} of an earlier hub does not end: end it with 'kill -9 {pid}' and try again"
    )]
    Orphan {
        /// Its process.
        pid: u32,
    },
    /// The program could not be started.
    #[error("cannot start nats-server {}: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server ended, or is not healthy in time.
    #[error("nats-server did not start: {0}")]
    NotHealthy(String),
    /// The server runs but does not let the hub itself in.
    #[error("nats-server started but is not usable: {0}")]
    NotUsable(#[from] ConnectError),
    /// Keys or credentials.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// `hub.json`.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server could not be ended.
    #[error("cannot end nats-server: {0}")]
    Stop(io::Error),
}

/// A running hub. [`Hub::stop`] ends it in order; dropping it ends it as well as can be done
/// without waiting long.
pub struct Hub {
    home: Home,
    identity: Arc<Identity>,
    listen: SocketAddr,
    monitor: SocketAddr,
    operator: Credentials,
    record: Arc<Mutex<HubRecord>>,
    control: mpsc::Sender<String>,
    locked_out: Arc<Notify>,
    pid: Arc<AtomicU32>,
    events: broadcast::Sender<HubEvent>,
    stop: Option<oneshot::Sender<()>>,
    supervisor: Option<JoinHandle<io::Result<()>>>,
    ended_orphan: Option<u32>,
    /// Held for as long as the hub lives.
    _lock: File,
}

/// What was checked and written before the server is started.
struct Prepared {
    lock: File,
    identity: Arc<Identity>,
    ended_orphan: Option<u32>,
}

impl Hub {
    /// Starts the server and waits until it is healthy.
    ///
    /// # Errors
    /// [`HubError`]: each thing that can be wrong has its own. No process is left behind.
    pub async fn start(options: HubOptions) -> Result<Self, HubError> {
        let home = options.home.clone();
        // Waits for an orphan to end, which blocks.
        let prepared = tokio::task::spawn_blocking(move || prepare(&home))
            .await
            .map_err(|e| HubError::Stop(io::Error::other(e)))??;
        let mut tries = 0;
        loop {
            tries += 1;
            match launch(&options, &prepared).await {
                // Somebody was quicker on the free port we had picked.
                Err(HubError::PortTaken { .. })
                    if options.listen.port() == 0 && tries < PORT_TRIES => {}
                Err(error) => return Err(error),
                Ok(started) => return Ok(started.into_hub(options, prepared)),
            }
        }
    }

    /// Ends the server in order and gives up the data folder. Returns once it is gone.
    ///
    /// # Errors
    /// [`HubError::Stop`] where the process could not be ended.
    pub async fn stop(mut self) -> Result<(), HubError> {
        if let Some(stop) = self.stop.take() {
            // The supervisor is gone only if it failed; its result says why.
            let _ = stop.send(());
        }
        if let Some(supervisor) = self.supervisor.take() {
            supervisor
                .await
                .map_err(|e| HubError::Stop(io::Error::other(e)))?
                .map_err(HubError::Stop)?;
        }
        let _ = std::fs::remove_file(self.home.server_pid());
        Ok(())
    }

    /// Where clients on this machine connect: `nats://127.0.0.1:4222`.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.listen)
    }

    /// Where the server listens.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Health and metrics: `http://127.0.0.1:8222`.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://{}", self.monitor)
    }

    /// The server's process; `None` while it is being started again.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// What happens to the server from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HubEvent> {
        self.events.subscribe()
    }

    /// The server of a killed hub that was ended first, if there was one.
    #[must_use]
    pub fn ended_orphan(&self) -> Option<u32> {
        self.ended_orphan
    }

    /// The home it was started in.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The fleet's keys.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The operator's credentials, as written to the home.
    #[must_use]
    pub fn operator_credentials(&self) -> &Credentials {
        &self.operator
    }

    /// Credentials of the keeper, with this hub's address.
    ///
    /// # Errors
    /// Only where a key cannot sign.
    pub fn keeper_credentials(&self) -> Result<Credentials, IdentityError> {
        self.identity.keeper(unix_now(), vec![self.url()])
    }

    /// Credentials for the server's own events. Not to be given to another process.
    ///
    /// # Errors
    /// Only where a key cannot sign.
    pub fn system_credentials(&self) -> Result<Credentials, IdentityError> {
        self.identity.system(unix_now(), vec![self.url()])
    }

    /// What the hub knows about itself.
    #[must_use]
    pub fn record(&self) -> HubRecord {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the record and writes it durably. On an error nothing has changed.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn update_record(&self, change: impl FnOnce(&mut HubRecord)) -> Result<(), RecordError> {
        self.handle().update_record(change)
    }

    /// What those that watch over the hub need of it.
    #[must_use]
    pub fn handle(&self) -> HubHandle {
        HubHandle {
            home: self.home.clone(),
            monitor: self.monitor,
            record: self.record.clone(),
            events: self.events.clone(),
            control: self.control.clone(),
            locked_out: self.locked_out.clone(),
        }
    }

    /// What the operator should know about the way this hub was started.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        if self.listen.ip().is_loopback() {
            return Vec::new();
        }
        vec![format!(
            "listening on {} without TLS: jobs, logs and commands travel readable; use a network you trust, or a VPN",
            self.listen
        )]
    }
}

/// A hub as those see it that watch over it.
#[derive(Debug, Clone)]
pub struct HubHandle {
    home: Home,
    monitor: SocketAddr,
    record: Arc<Mutex<HubRecord>>,
    events: broadcast::Sender<HubEvent>,
    control: mpsc::Sender<String>,
    locked_out: Arc<Notify>,
}

impl HubHandle {
    /// Who is locked out has changed.
    pub(crate) fn locked_out_changed(&self) {
        self.locked_out.notify_one();
    }

    /// Waits until who is locked out has changed. For one that waits.
    pub(crate) async fn locked_out(&self) {
        self.locked_out.notified().await;
    }

    /// The home it was started in.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What the hub knows about itself.
    #[must_use]
    pub fn record(&self) -> HubRecord {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// As [`Hub::update_record`].
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn update_record(&self, change: impl FnOnce(&mut HubRecord)) -> Result<(), RecordError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = record.clone();
        change(&mut changed);
        if changed != *record {
            changed.save(&self.home)?;
            *record = changed;
        }
        Ok(())
    }

    /// What happens to the server from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HubEvent> {
        self.events.subscribe()
    }

    /// Has the server ended in order and started again. One wish at a time: a second one is dropped.
    pub fn restart_server(&self, reason: &str) {
        // Full: a restart is on its way. Closed: the hub stops.
        let _ = self.control.try_send(reason.to_owned());
    }

    /// What the server says is wrong with it, if it is.
    pub async fn ailment(&self) -> Option<String> {
        super::health::ailment(self.monitor).await
    }

    /// Bytes free for the store, of how many.
    #[must_use]
    pub fn free_space(&self) -> (u64, u64) {
        rustix::fs::statvfs(self.home.hub_dir()).map_or((u64::MAX, u64::MAX), |fs| {
            let size = fs.f_frsize;
            (
                fs.f_bavail.saturating_mul(size),
                fs.f_blocks.saturating_mul(size),
            )
        })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.supervisor.take().is_none() {
            return;
        }
        // It starts no other server from here on, but may have no thread to end this one on.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let pid = self.pid.swap(0, Ordering::AcqRel);
        let config = self.home.server_config();
        if pid != 0 {
            let there = || process::is_there(pid, &config);
            process::send(pid, Signal::TERM);
            if !process::gone_within(DROP_WITHIN.0, there) {
                process::send(pid, Signal::KILL);
                process::gone_within(DROP_WITHIN.1, there);
            }
        }
        let _ = std::fs::remove_file(self.home.server_pid());
    }
}

/// A server that is healthy and lets the hub in.
struct Started {
    listen: SocketAddr,
    monitor: SocketAddr,
    operator: Credentials,
    record: HubRecord,
    launch: Launch,
    server: super::supervise::Server,
}

impl Started {
    fn into_hub(self, options: HubOptions, prepared: Prepared) -> Hub {
        let pid = Arc::new(AtomicU32::new(self.server.pid));
        let (events, _) = broadcast::channel(EVENTS);
        let (stop, stopped) = oneshot::channel();
        let (control, restarts) = mpsc::channel(1);
        let supervisor = tokio::spawn(supervise(
            self.launch,
            self.server,
            pid.clone(),
            events.clone(),
            restarts,
            stopped,
        ));
        Hub {
            home: options.home,
            identity: prepared.identity,
            listen: self.listen,
            monitor: self.monitor,
            operator: self.operator,
            record: Arc::new(Mutex::new(self.record)),
            control,
            locked_out: Arc::default(),
            pid,
            events,
            stop: Some(stop),
            supervisor: Some(supervisor),
            ended_orphan: prepared.ended_orphan,
            _lock: prepared.lock,
        }
    }
}

/// Takes the data folder, ends the orphan of a killed hub, loads or makes the keys.
fn prepare(home: &Home) -> Result<Prepared, HubError> {
    for folder in [home.root().to_owned(), home.hub_dir()] {
        private_dir(&folder).map_err(not_writable(&folder))?;
    }
    let lock = take_lock(home)?;
    let orphan = process::orphan(home);
    if let Some(pid) = orphan
        && !process::end(pid, &home.server_config())
    {
        return Err(HubError::Orphan { pid });
    }
    process::until_ended(home);
    Ok(Prepared {
        lock,
        identity: Arc::new(Identity::load_or_create(home)?),
        ended_orphan: orphan,
    })
}

fn take_lock(home: &Home) -> Result<File, HubError> {
    let path = home.hub_lock();
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(not_writable(&path))?;
    let mut locked = file.try_lock();
    if matches!(locked, Err(TryLockError::WouldBlock)) {
        // Somebody may only be looking whether a hub runs here: that is over in no time.
        process::gone_within(LOOK_WITHIN, || {
            locked = file.try_lock();
            locked.is_err()
        });
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(HubError::InUse {
                path: home.hub_dir(),
                pid: pid_in(&file),
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(HubError::NotWritable { path, source });
        }
    }
    // For the error above, in another process.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(not_writable(&path))?;
    Ok(file)
}

/// What the holder of the lock has written into it.
fn pid_in(file: &File) -> Option<u32> {
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    text.trim().parse().ok()
}

/// The process whose hub runs in this home, for `fleet down` and `fleet hub status`: `None` where
/// none does, or where it has not said its number yet.
#[must_use]
pub fn running_hub(home: &Home) -> Option<u32> {
    let file = File::open(home.hub_lock()).ok()?;
    // Where nobody holds it, it is ours for a moment, until the file is closed below.
    let running = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    running.then(|| pid_in(&file)).flatten()
}

async fn launch(options: &HubOptions, prepared: &Prepared) -> Result<Started, HubError> {
    let home = &options.home;
    let listen = free_address(options.listen)?;
    let monitor = monitor_address(options, listen)?;
    let now = unix_now();
    let record = updated_record(options, listen, monitor)?;
    let trust = prepared.identity.trust(now, &record.revoked())?;
    let text = render(&Settings {
        home,
        name: &options.name,
        listen,
        monitor,
        max_file_store: record.max_file_store,
        trust: &trust,
    });
    let path = home.server_config();
    write_durably(&path, text.as_bytes(), 0o600).map_err(not_writable(&path))?;

    let launch = Launch {
        program: options.server.clone(),
        home: home.clone(),
        monitor,
        tethered: options.tethered,
    };
    let mut server = launch.spawn().map_err(|source| HubError::Spawn {
        path: options.server.clone(),
        source,
    })?;
    let checked = async {
        launch
            .healthy(&mut server, options.healthy_within)
            .await
            .map_err(|why| {
                if why.contains("address already in use") {
                    HubError::PortTaken { address: listen }
                } else {
                    HubError::NotHealthy(why)
                }
            })?;
        let keeper = prepared.identity.keeper(now, vec![url(listen)])?;
        // It is healthy; a busy machine may take its time to let anybody in.
        let patient = ConnectOptions {
            fail_within: options.healthy_within,
            ..ConnectOptions::new("fleet hub", keeper)
        };
        drop(connect::connect(&patient).await?);
        let hubs = vec![url(listen)];
        if options.private {
            return Ok(prepared.identity.keeper(now, hubs)?);
        }
        record.save(home)?;
        let operator = prepared
            .identity
            .write_operator_credentials(home, now, hubs)?;
        Ok(operator)
    };
    match checked.await {
        Ok(operator) => Ok(Started {
            listen,
            monitor,
            operator,
            record,
            launch,
            server,
        }),
        Err(error) => {
            server.end().await.map_err(HubError::Stop)?;
            let _ = std::fs::remove_file(home.server_pid());
            Err(error)
        }
    }
}

/// The record of this start. Not written yet.
fn updated_record(
    options: &HubOptions,
    listen: SocketAddr,
    monitor: SocketAddr,
) -> Result<HubRecord, HubError> {
    let home = &options.home;
    let mut record = match HubRecord::load(home)? {
        Some(record) => record,
        None => HubRecord {
            version: 1,
            created_at: Time::from_micros(unix_now().saturating_mul(1_000_000)),
            epoch: 0,
            name: options.name.clone(),
            listen: String::new(),
            monitor: String::new(),
            max_file_store: default_file_store(
                free_bytes(home.root()),
                used_bytes(&home.jetstream_dir()),
            ),
            streams: std::collections::BTreeMap::new(),
            recovering: None,
            recovered: None,
            restored: None,
            locked_out: std::collections::BTreeMap::new(),
            other: std::collections::BTreeMap::new(),
        },
    };
    if !options.private {
        record.name.clone_from(&options.name);
        record.listen = listen.to_string();
        record.monitor = monitor.to_string();
    }
    if let Some(bytes) = options.max_file_store {
        record.max_file_store = bytes;
    }
    Ok(record)
}

/// The address with a port that can be listened on now.
fn free_address(address: SocketAddr) -> Result<SocketAddr, HubError> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => HubError::PortTaken { address },
            _ => HubError::Listen { address, source },
        })
}

fn monitor_address(options: &HubOptions, listen: SocketAddr) -> Result<SocketAddr, HubError> {
    if let Some(address) = options.monitor {
        return free_address(address);
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // With a free client port, a free monitoring port: derived ones would collide.
    let derived = listen.port().checked_add(4000).unwrap_or(0);
    let wanted = if options.listen.port() == 0 {
        0
    } else {
        derived
    };
    free_address(SocketAddr::new(loopback, wanted))
        .or_else(|_| free_address(SocketAddr::new(loopback, 0)))
}

/// Where clients on this machine reach a server that listens here.
fn url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("nats://{}", SocketAddr::new(ip, listen.port()))
}

fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

fn used_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => used_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |m| m.len()),
        })
        .sum()
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    crate::clock::now().as_micros() / 1_000_000
}

fn not_writable(path: &Path) -> impl FnOnce(io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::NotWritable { path, source }
}

fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// An IP as it is written before a port.
fn ip(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
