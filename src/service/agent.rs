//! The agent as a service: whose credentials it shows, how it is started and stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_agent::agent::{AgentError, AgentOptions, Stop};
use fleet_agent::executor::{ExecutorCommand, OutputBound};
use fleet_contract::ids::MachineId;
use fleet_contract::machine::Service;
use fleet_nats::bus::Bus;
use fleet_nats::home::Home;
use fleet_nats::hub::{Credentials, CredentialsError, Hub, Permission};
use fleet_nats::registry::decode_presence;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::config::keys::Table;
use crate::failure::{Exit, Failure};
use crate::private_file;

/// How long an agent may take to show up on the bus.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// An agent that runs in this process.
pub(crate) struct AgentService {
    stop: watch::Sender<Stop>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl AgentService {
    /// Starts it; it waits for its hub by itself.
    pub(crate) fn start(options: AgentOptions) -> Self {
        let (stop, stopped) = watch::channel(Stop::No);
        let task = tokio::spawn(fleet_agent::agent::run(options, stopped));
        Self { stop, task }
    }

    /// Asks it to stop; a second, stronger wish hurries it.
    pub(crate) fn stop(&self, how: Stop) {
        self.stop.send_if_modified(|now| {
            let more = how > *now;
            if more {
                *now = how;
            }
            more
        });
    }

    /// Waits until it has ended. Safe to drop and call again until it returned.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        match (&mut self.task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(agent_failed(error)),
            Err(error) => Err(Failure::internal(format!("the agent ended early: {error}"))),
        }
    }
}

/// What an agent of these settings is.
pub(crate) fn options(
    settings: &Settings,
    machine: MachineId,
    urls: Vec<String>,
    credentials: Credentials,
) -> Result<AgentOptions, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::internal(format!("cannot find fleet's own program: {e}")))?;
    let home = settings.home.root().as_os_str().to_owned();
    Ok(AgentOptions {
        home: settings.home.clone(),
        machine,
        urls,
        credentials,
        slots: settings.slots(),
        labels: settings.entries(Table::Labels),
        env: settings.entries(Table::Env),
        heartbeat: settings.span("heartbeat"),
        grace: settings.span("grace"),
        keep: OutputBound {
            bytes: settings.size("spool_keep"),
            age_ms: u64::try_from(settings.span("spool_age").as_millis()).unwrap_or(u64::MAX),
        },
        probe: settings.probes(),
        executor: ExecutorCommand {
            program: program.clone(),
            args: vec!["executor".into(), "--home".into(), home],
            env: Vec::new(),
        },
        login_env: ExecutorCommand {
            program,
            args: vec!["login-env".into()],
            env: Vec::new(),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The credentials of an agent that is started alone: those in the file that was named, which are
/// taken into `FLEET_HOME`, else those that are there. With them comes the machine's name, where
/// nothing else says one.
pub(crate) fn credentials(settings: &Settings) -> Result<(MachineId, Credentials), Failure> {
    let home = &settings.home;
    if let Some(path) = settings.path("credentials") {
        let credentials = load(path.to_owned())?;
        let machine = machine_of(settings, &credentials)?;
        take_in(home, &machine, &credentials)?;
        return Ok((machine, credentials));
    }
    let machine = match settings.machine_is_set() {
        true => settings.machine(),
        false => only_one(home).unwrap_or_else(|| settings.machine()),
    };
    let credentials = match load(home.machine_credentials(&machine)) {
        Ok(credentials) => credentials,
        Err(failure) => {
            return Err(failure.next(format!(
                "on the hub: fleet hub credentials --machine {machine} --out FILE, and here: \
                 fleet agent run --credentials FILE"
            )));
        }
    };
    credentials
        .expect_machine(&machine)
        .map_err(|e| Failure::config(e.to_string()))?;
    Ok((machine, credentials))
}

/// Takes the credentials in `file` in for the agent of this home, which may run as `running`.
pub(crate) fn renew(
    settings: &Settings,
    file: &Path,
    running: Option<&MachineId>,
) -> Result<(MachineId, Credentials), Failure> {
    let credentials = load(file.to_owned())?;
    let machine = match running {
        Some(machine) => machine.clone(),
        None => machine_of(settings, &credentials)?,
    };
    credentials
        .expect_machine(&machine)
        .map_err(|e| Failure::config(format!("{}: {e}", file.display())))?;
    take_in(&settings.home, &machine, &credentials)?;
    Ok((machine, credentials))
}

fn load(path: PathBuf) -> Result<Credentials, Failure> {
    Credentials::load(&path).map_err(|error| match error {
        CredentialsError::Missing(path) => Failure::new(
            Exit::NoPermission,
            format!("no credentials: {} does not exist", path.display()),
        ),
        error => Failure::config(format!("{}: {error}", path.display())),
    })
}

fn machine_of(settings: &Settings, credentials: &Credentials) -> Result<MachineId, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::config(e.to_string());
    let machine = if settings.machine_is_set() {
        settings.machine()
    } else {
        credentials.name().parse().map_err(|e| wrong(&e))?
    };
    credentials
        .expect_machine(&machine)
        .map_err(|e| wrong(&e))?;
    Ok(machine)
}

/// The machine of the only worker's credentials under `FLEET_HOME`.
pub(crate) fn only_one(home: &Home) -> Option<MachineId> {
    let entries = std::fs::read_dir(home.credentials_dir()).ok()?;
    let mut machines = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let name = name.to_str()?.strip_suffix(".creds")?;
        // `operator` is no machine's name, and so is not one here.
        name.parse::<MachineId>().ok()
    });
    let first = machines.next()?;
    machines.next().is_none().then_some(first)
}

/// Keeps credentials where the machine's agent looks for them.
pub(crate) fn take_in(
    home: &Home,
    machine: &MachineId,
    credentials: &Credentials,
) -> Result<(), Failure> {
    let path = home.machine_credentials(machine);
    let text = credentials.to_text();
    if std::fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    private_file::folder(&home.credentials_dir())
        .and_then(|()| private_file::replace(&path, text.as_bytes()))
        .map_err(|e| super::hub::file_failed("cannot keep the credentials", &path, &e))
}

/// Credentials for the agent beside a hub: made once, renewed when the hub's identity or address
/// is another.
pub(crate) fn credentials_beside(
    hub: &Hub,
    settings: &Settings,
) -> Result<(MachineId, Credentials), Failure> {
    let machine = settings.machine();
    let home = &settings.home;
    let issued = hub
        .identity()
        .issue(
            crate::clock::now().as_micros() / 1_000_000,
            machine.as_str(),
            Permission::Worker,
            vec![hub.url()],
        )
        .map_err(|e| Failure::internal(e.to_string()))?;
    let known = Credentials::load(&home.machine_credentials(&machine)).ok();
    let known = known.filter(|known| {
        known.expect_machine(&machine).is_ok() && known.issuer() == issued.issuer()
    });
    let credentials = match known {
        Some(known) => known.with_hubs(vec![hub.url()]),
        None => issued,
    };
    take_in(home, &machine, &credentials)?;
    Ok((machine, credentials))
}

/// What tells when a machine has shown up: open it before the agent starts.
pub(crate) struct Arrival(Tail);

impl Arrival {
    /// Listens from now on.
    pub(crate) async fn watch(bus: &Bus, machine: &MachineId) -> Result<Self, Failure> {
        let filters = [subject::presence(machine)];
        let tail = Tail::open(bus, stream::PRES, &filters, From::New).await?;
        Ok(Self(tail))
    }

    /// Waits until it is in service; gives up after half a minute.
    pub(crate) async fn up(&mut self) -> Result<(), Failure> {
        let arrived = async {
            loop {
                if let Next::Message(message, _) = self.0.next().await?
                    && decode_presence(&message).is_ok_and(|p| p.service != Service::Offline)
                {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(UP_WITHIN, arrived)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::internal(
                    "the agent did not show up on the bus in time",
                ))
            })
    }
}

fn agent_failed(error: AgentError) -> Failure {
    let text = error.to_string();
    match error {
        AgentError::AlreadyRunning { .. }
        | AgentError::NameTaken { .. }
        | AgentError::File { .. } => Failure::config(text),
        AgentError::Executor(_) | AgentError::Broken(_) => Failure::internal(text),
        AgentError::Connect(error) => crate::context::no_hub(error),
    }
}
