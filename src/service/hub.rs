//! The hub as a service: the server, the streams, the keeper; started and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet_contract::event::kind;
use fleet_nats::bus::Bus;
use fleet_nats::connect::{ConnectOptions, connect, connect_for_ever};
use fleet_nats::flow::NewEvent;
use fleet_nats::guard::{self, Guard, GuardError, KeeperTask};
use fleet_nats::home::Home;
use fleet_nats::hub::{
    FindError, Hub, HubError, HubEvent, HubOptions, InstallError, Progress, SearchPath,
    find_server, install_server,
};
use fleet_nats::hub_stats::{self, AboutHub, KeeperCounters};
use fleet_nats::lockout::Lockout;
use fleet_nats::streams::TooMuch;
use fleet_nats::{clock, keeper, subject};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::config::{Origin, Settings};
use crate::context::no_hub;
use crate::environment::{Environment, host_name};
use crate::failure::{Exit, Failure};
use crate::service::spool;
use crate::words;

/// How long the hub's own connections may take once its server is healthy.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Lines about progress that may wait to be told.
const SAID: usize = 16;

/// Told while something takes long.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&str);

/// A hub that serves.
pub(crate) struct HubService {
    hub: Hub,
    bus: Bus,
    /// With it, the keeper.
    guard: JoinHandle<()>,
    /// What the operator should know about what is stored.
    pub(crate) notes: Vec<String>,
    /// Tells the server's restarts; answers for the hub.
    others: [JoinHandle<()>; 4],
    teller: Teller,
    /// From the beginning of the start until it served.
    pub(crate) took: Duration,
}

impl HubService {
    /// Finds or installs a server, starts it, makes the streams, starts the keeper.
    pub(crate) async fn start(
        settings: &Settings,
        environment: &Environment,
        tethered: bool,
        tell: Tell<'_>,
    ) -> Result<Self, Failure> {
        let begun = Instant::now();
        let server = server(settings, environment, tell).await?;
        let options = HubOptions {
            listen: settings.listen(),
            tethered,
            ..HubOptions::new(settings.home.clone(), server)
        };
        let hub = Hub::start(options).await.map_err(hub_failed)?;
        match Self::serve(&hub, settings).await {
            Ok((bus, guard, others, teller, notes)) => Ok(Self {
                hub,
                bus,
                guard,
                notes,
                others,
                teller,
                took: begun.elapsed(),
            }),
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = hub.stop().await;
                Err(failure)
            }
        }
    }

    async fn serve(hub: &Hub, settings: &Settings) -> Result<Serving, Failure> {
        let internal = |e: fleet_nats::hub::IdentityError| Failure::internal(e.to_string());
        let options = ConnectOptions {
            fail_within: CONNECT_WITHIN,
            ..ConnectOptions::new("fleet keeper", hub.keeper_credentials().map_err(internal)?)
        };
        let link = connect(&options).await.map_err(no_hub)?;
        let bus = Bus::new(&link);
        let keeps = settings.keeps();
        keeps.fit(hub.record().max_file_store).map_err(no_room)?;
        let mut guard = Guard::new(bus.clone(), hub.handle()).keeping(keeps);
        let notes = guard.admit().await.map_err(not_admitted)?;
        for note in &notes {
            tracing::error!("{note}");
        }
        let system = hub.system_credentials().map_err(internal)?;
        let system = connect_for_ever(&ConnectOptions::new("fleet hub", system))
            .await
            .map_err(no_hub)?;
        let counters = Arc::new(KeeperCounters::default());
        let about = AboutHub {
            host: host_name(),
            machine: Some(settings.machine().clone()),
            address: hub.listen().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: clock::now(),
            store: hub.home().hub_dir(),
        };
        let answers = hub_stats::answer(
            about,
            bus.clone(),
            system.client().clone(),
            counters.clone(),
        );
        let answerer = tokio::spawn(answers);
        let lockout = Lockout::new(
            bus.clone(),
            hub.handle(),
            hub.identity().clone(),
            system.client().clone(),
            counters.clone(),
            settings.flood_bounds(),
        );
        let lockout = tokio::spawn(lockout.watch());
        let (keepers_bus, identity) = (bus.clone(), hub.identity().clone());
        let retention = settings.retention();
        let keeper = move |_epoch| {
            KeeperTask::new(tokio::spawn(keeper::run(
                keepers_bus.clone(),
                system.client().clone(),
                identity.clone(),
                retention,
                clock::message_id().to_string(),
                counters.clone(),
            )))
        };
        let guard = tokio::spawn(guard.watch(keeper));
        // The keeper counts its own events; these are another writer's.
        let teller = Teller::new(&bus);
        let started = json!({ "url": hub.url(), "version": env!("CARGO_PKG_VERSION") });
        teller.tell(kind::HUB_STARTED, started).await;
        let restarts = tokio::spawn(tell_restarts(teller.clone(), hub.events()));
        let sender = tokio::spawn(spool::run(hub.home().clone(), vec![hub.url()]));
        Ok((
            bus,
            guard,
            [restarts, answerer, sender, lockout],
            teller,
            notes,
        ))
    }

    /// The hub itself.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The bus, as the keeper's user.
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Stops keeper and server in order.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.others.iter().for_each(JoinHandle::abort);
        self.teller.tell(kind::HUB_STOPPING, Value::Null).await;
        self.guard.abort();
        guard::write_down(&self.bus, &self.hub.handle()).await;
        self.hub.stop().await.map_err(hub_failed)
    }
}

/// Bus, guard with keeper, the others, teller, notes.
type Serving = (
    Bus,
    JoinHandle<()>,
    [JoinHandle<()>; 4],
    Teller,
    Vec<String>,
);

/// More is to be kept than the store can hold.
fn no_room(error: TooMuch) -> Failure {
    Failure::config(error.to_string()).next("smaller logs_size and flow_size in config.toml")
}

/// What the hub stores cannot be looked at.
fn not_admitted(error: GuardError) -> Failure {
    match error {
        GuardError::Bus(error) => error.into(),
        GuardError::Record(error) => Failure::config(error.to_string()),
    }
}

/// Tells the hub's own events, in one run with one count.
#[derive(Clone)]
struct Teller {
    bus: Bus,
    boot: String,
    told: Arc<AtomicU64>,
}

impl Teller {
    fn new(bus: &Bus) -> Self {
        Self {
            bus: bus.clone(),
            boot: clock::message_id().to_string(),
            told: Arc::default(),
        }
    }

    async fn tell(&self, kind: &'static str, detail: Value) {
        let event = NewEvent {
            kind,
            machine: None,
            job: None,
            attempt: None,
            detail,
        };
        let seq = self.told.fetch_add(1, Ordering::Relaxed) + 1;
        let told = self.bus.put_event(subject::HUB, &event, &self.boot, seq);
        if let Err(error) = told.await {
            tracing::warn!(%error, kind, "an event was not stored");
        }
    }
}

/// Tells each restart of the server; ends with the hub.
async fn tell_restarts(teller: Teller, mut events: broadcast::Receiver<HubEvent>) {
    let mut died = None;
    loop {
        match events.recv().await {
            Ok(HubEvent::ServerExited { pid, reason, .. }) => {
                tracing::warn!(pid, reason, "nats-server ended and is started again");
                died = Some(reason);
            }
            Ok(HubEvent::RestartFailed { reason, .. }) => {
                tracing::warn!(reason, "nats-server cannot be started again yet");
            }
            Ok(HubEvent::ServerRestarted { after, .. }) => {
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let detail = json!({ "reason": died.take(), "after_ms": after });
                teller.tell(kind::HUB_SERVER_RESTARTED, detail).await;
            }
            Ok(HubEvent::Stopped) | Err(broadcast::error::RecvError::Closed) => return,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
        }
    }
}

/// The server to run: found, or installed where nobody named one. Both block, on a thread of their
/// own, so that a wish to stop is heard.
pub(crate) async fn server(
    settings: &Settings,
    environment: &Environment,
    tell: Tell<'_>,
) -> Result<PathBuf, Failure> {
    let named = settings.path("nats_server").map(PathBuf::from);
    let variable = matches!(
        settings.get("nats_server").map(|s| &s.origin),
        Some(Origin::Variable(_))
    );
    let search = SearchPath {
        flag: named.clone().filter(|_| !variable),
        variable: named.filter(|_| variable),
        path: environment.path.clone(),
    };
    let (home, listen) = (settings.home.clone(), settings.listen());
    let (say, mut said) = mpsc::channel::<String>(SAID);
    let mut work = tokio::task::spawn_blocking(move || {
        match find_server(&search, &home) {
            Ok(found) => Ok(found.path),
            Err(FindError::NotFound(_)) => {
                // What cannot serve in any case is not worth a download.
                free(listen)?;
                // Nobody listens any longer only where the start was given up.
                let mut tell = |text: &str| drop(say.blocking_send(text.to_owned()));
                tell("no nats-server found here");
                install(&home, &mut tell).map(|installed| installed.path)
            }
            Err(error) => Err(Failure::config(error.to_string())),
        }
    });
    loop {
        tokio::select! {
            biased;
            Some(text) = said.recv() => tell(&text),
            done = &mut work => {
                return done.unwrap_or_else(|e| Err(Failure::internal(e.to_string())));
            }
        }
    }
}

/// Whether the hub could listen there; the server's own start says it again, and better.
fn free(listen: SocketAddr) -> Result<(), Failure> {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(Failure::config(format!(
            "{listen} is taken by another program"
        ))
        .next("--listen ADDRESS:PORT with another")),
        Err(e) => Err(Failure::config(format!("cannot listen on {listen}: {e}"))),
    }
}

/// Installs the pinned server, saying how far it is.
pub(crate) fn install(home: &Home, tell: Tell<'_>) -> Result<fleet_nats::hub::Installed, Failure> {
    let mut tenths = 0;
    let installed = install_server(home, |progress| match progress {
        Progress::Waiting => tell("another fleet installs nats-server here: waiting for it"),
        Progress::Downloading { with } => {
            tell(&format!(
                "fetching nats-server {} with {with}",
                fleet_nats::hub::PINNED_VERSION
            ));
        }
        Progress::Received { bytes, total } => {
            let now = bytes.saturating_mul(10).checked_div(total).unwrap_or(0);
            if now > tenths {
                tenths = now;
                tell(&format!(
                    "{} of {}",
                    words::bytes(bytes),
                    words::bytes(total)
                ));
            }
        }
        Progress::Unpacking { bytes } => tell(&format!("unpacking {}", words::bytes(bytes))),
    });
    installed.map_err(|error| {
        let exit = match &error {
            InstallError::NoClient | InstallError::Platform { .. } => Exit::Config,
            InstallError::Download { .. } => Exit::Unavailable,
            _ => Exit::Internal,
        };
        Failure::new(exit, error.to_string())
    })
}

/// A hub that did not start or stop: what the person can mend is configuration.
pub(crate) fn hub_failed(error: HubError) -> Failure {
    let exit = match &error {
        HubError::NotWritable { .. }
        | HubError::InUse { .. }
        | HubError::PortTaken { .. }
        | HubError::Listen { .. }
        | HubError::Identity(_)
        | HubError::Record(_) => Exit::Config,
        _ => Exit::Internal,
    };
    Failure::new(exit, error.to_string())
}

/// A file of the hub's that cannot be used.
pub(crate) fn file_failed(what: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::config(format!("{what}: {}: {error}", path.display()))
}
