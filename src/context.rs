//! What a verb needs: settings, environment, where to answer, and the way to the hub.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::{self, ConnectError, ConnectOptions, Link, Unreachable};
use fleet_nats::hub::{Credentials, CredentialsError, HubRecord, Permission, running_hub};

use crate::cmd::spool;
use crate::config::Settings;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::output::{Answer, Output};
use crate::spooled;

/// The hub's address where nothing says another.
const DEFAULT_HUB: &str = "nats://127.0.0.1:4222";

/// What can be typed where there is no hub.
pub(crate) const WITHOUT_A_HUB: &str = "fleet up, or fleet run -- CMD to run it here without one";

/// Pause before a hub that is being started again is tried again.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// What a verb needs.
pub(crate) struct Context {
    /// The process's environment.
    pub(crate) environment: Environment,
    /// Every setting.
    pub(crate) settings: Settings,
    /// Where answers go.
    pub(crate) output: Box<dyn Output>,
}

impl Context {
    /// Answers.
    pub(crate) fn show(&mut self, answer: &dyn Answer) -> Result<(), Failure> {
        Ok(self.output.show(answer)?)
    }

    /// The bus, to look only, connected within two seconds.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        self.connect(&[Permission::Viewer, Permission::Operator])
            .await
    }

    /// The bus, to change something, connected within two seconds.
    pub(crate) async fn acting_bus(&self) -> Result<Bus, Failure> {
        self.connect(&[Permission::Operator]).await
    }

    /// As [`Self::acting_bus`], without sending what waits here.
    pub(crate) async fn acting_bus_as_it_is(&self) -> Result<Bus, Failure> {
        let options = self
            .way_to_the_hub("fleet", &[Permission::Operator])
            .await?;
        Ok(Bus::new(&self.link(options).await?))
    }

    async fn connect(&self, may: &[Permission]) -> Result<Bus, Failure> {
        let options = self.way_to_the_hub("fleet", may).await?;
        let operator = options.credentials.permission() == Permission::Operator;
        let bus = Bus::new(&self.link(options).await?);
        // Before anything that is dispatched now.
        if operator && spooled::any(&self.settings.home) {
            Box::pin(spool::send_in_passing(self, &bus)).await;
        }
        Ok(bus)
    }

    /// Whether somebody with these settings may dispatch once the hub is there.
    pub(crate) fn may_dispatch_later(&self) -> Result<(), Failure> {
        let named = self.settings.path("credentials").map(PathBuf::from);
        let path = named.unwrap_or_else(|| self.settings.home.operator_credentials());
        let who = Credentials::load(&path).map(|credentials| credentials.permission());
        if matches!(who, Ok(Permission::Operator)) {
            return Ok(());
        }
        let text = format!(
            "nobody here may dispatch it later: {} holds no operator's credentials",
            path.display()
        );
        Err(Failure::new(Exit::NoPermission, text).next(
            "--credentials FILE with the operator.creds of the hub's FLEET_HOME, or \
             fleet run -- CMD to run it here",
        ))
    }

    /// Where the hub is and who comes to it, under this name in its list of connections, with one
    /// of these permissions.
    pub(crate) async fn way_to_the_hub(
        &self,
        name: &str,
        may: &[Permission],
    ) -> Result<ConnectOptions, Failure> {
        let credentials = self.credentials().await?;
        // The hub would refuse it too, but by silence.
        if !may.contains(&credentials.permission()) {
            return Err(Failure::new(
                Exit::NoPermission,
                format!(
                    "the credentials of {} {:?} do not permit this: an operator's are needed",
                    credentials.permission(),
                    credentials.name()
                ),
            )
            .next("--credentials FILE with the operator.creds of the hub's FLEET_HOME"));
        }
        let urls = self.settings.hub().map(str::to_owned);
        Ok(ConnectOptions {
            urls: urls.into_iter().collect(),
            ..ConnectOptions::new(name, credentials)
        })
    }

    /// Connects within two seconds. A hub that runs in this very home but cannot be reached is being
    /// started again: it is waited for, as long as that.
    async fn link(&self, mut options: ConnectOptions) -> Result<Link, Failure> {
        let deadline = Instant::now() + options.fail_within;
        loop {
            match connect::connect(&options).await {
                Ok(link) => return Ok(link),
                Err(error) if may_pass(&error) && self.hub_runs_here() => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left <= RESTART_PAUSE {
                        return Err(Failure::new(
                            Exit::Unavailable,
                            format!(
                                "{error}, though the hub runs here: its server is being started"
                            ),
                        )
                        .next(format!(
                            "try again, or look into {}",
                            self.settings.home.server_log().display()
                        )));
                    }
                    tokio::time::sleep(RESTART_PAUSE).await;
                    options.fail_within = left - RESTART_PAUSE;
                }
                Err(error) => return Err(no_hub(error)),
            }
        }
    }

    /// Whether the hub that was asked is the one that runs in this home.
    fn hub_runs_here(&self) -> bool {
        let home = &self.settings.home;
        running_hub(home).is_some()
            && self.settings.hub().is_none_or(|url| {
                let own = HubRecord::load(home).ok().flatten();
                own.is_some_and(|own| is_address_of(url, &own.listen))
            })
    }

    /// The credentials this person acts with: those that were named, or the operator's that the
    /// hub left under `FLEET_HOME`.
    async fn credentials(&self) -> Result<Credentials, Failure> {
        let named = self.settings.path("credentials").map(PathBuf::from);
        let path = named.unwrap_or_else(|| self.settings.home.operator_credentials());
        match Credentials::load(&path) {
            Ok(credentials) => Ok(credentials),
            Err(CredentialsError::Missing(path)) => Err(self.without_credentials(path).await),
            Err(error) => Err(Failure::config(format!("{}: {error}", path.display()))),
        }
    }

    /// Nobody gave credentials: either there is no hub at all, or one that asks for them.
    async fn without_credentials(&self, missing: PathBuf) -> Failure {
        let url = self.settings.hub().unwrap_or(DEFAULT_HUB).to_owned();
        match reach(&url).await {
            Err(why) => Failure::new(Exit::Unavailable, format!("no hub at {url}: {why}"))
                .next(WITHOUT_A_HUB),
            Ok(()) => Failure::new(
                Exit::NoPermission,
                format!(
                    "no credentials for the hub at {url}: {} does not exist",
                    missing.display()
                ),
            )
            .next("--credentials FILE with the operator.creds of the hub's FLEET_HOME"),
        }
    }
}

/// Whether a server that ends or starts can be the reason: nobody listens, or it took the
/// connection and ended before it had answered.
fn may_pass(error: &ConnectError) -> bool {
    let ended =
        |why: &Unreachable| matches!(why, Unreachable::ConnectionRefused | Unreachable::Other(_));
    match error {
        ConnectError::Unreachable(tried) => tried.iter().all(|a| ended(&a.why)),
        ConnectError::Broken(_) => true,
        _ => false,
    }
}

/// Whether a hub's address, as it is given, is that of a hub of this machine which listens there.
fn is_address_of(url: &str, listen: &str) -> bool {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest);
    let parts = |address: &str| {
        let address = address.trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "4222"));
        (host.to_owned(), port.to_owned())
    };
    let ((host, port), (own, own_port)) = (parts(address), parts(listen));
    let here = ["127.0.0.1", "localhost", "[::1]", own.as_str()];
    port == own_port && here.contains(&host.as_str())
}

/// Whether anybody listens there.
async fn reach(url: &str) -> Result<(), String> {
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .to_owned();
    let connected = async {
        let addresses = tokio::task::spawn_blocking(move || authority.to_socket_addrs())
            .await
            .map_err(|e| e.to_string())?
            .map_err(|_| "unknown host".to_owned())?;
        let addresses: Vec<_> = addresses.collect();
        tokio::net::TcpStream::connect(addresses.as_slice())
            .await
            .map(drop)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => e.to_string(),
            })
    };
    tokio::time::timeout(Duration::from_millis(1500), connected)
        .await
        .unwrap_or_else(|_| Err("timed out".to_owned()))
}

/// Why there is no connection, with the exit code for it.
pub(crate) fn no_hub(error: ConnectError) -> Failure {
    let text = error.to_string();
    match error {
        ConnectError::Unreachable(_) | ConnectError::Broken(_) => {
            Failure::new(Exit::Unavailable, text).next(WITHOUT_A_HUB)
        }
        ConnectError::Refused { .. } => Failure::new(Exit::NoPermission, text),
        ConnectError::NoAddress
        | ConnectError::Address { .. }
        | ConnectError::Credentials { .. } => Failure::config(text),
        ConnectError::NoJetStream { .. } | ConnectError::TooOld { .. } => {
            Failure::new(Exit::Unavailable, text)
        }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        let exit = match &error {
            BusError::NoAnswer { .. } | BusError::Closed(_) | BusError::NoResponders(_) => {
                Exit::Unavailable
            }
            BusError::Full(_) | BusError::Moved(_) => Exit::TempFail,
            BusError::Server { .. } | BusError::Wire(_) => Exit::Internal,
        };
        let failure = Self::new(exit, error.to_string());
        match exit {
            Exit::Unavailable => failure.next("fleet hub status"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_elsewhere_on_the_same_port_is_not_the_one_that_runs_here() {
        for (url, listen, here) in [
            ("nats://127.0.0.1:4222", "127.0.0.1:4222", true),
            ("nats://localhost:4222/", "127.0.0.1:4222", true),
            ("nats://localhost", "0.0.0.0:4222", true),
            ("10.0.0.7:4333", "10.0.0.7:4333", true),
            ("nats://studio:4222", "127.0.0.1:4222", false),
            ("nats://127.0.0.1:4333", "127.0.0.1:4222", false),
        ] {
            assert_eq!(is_address_of(url, listen), here, "{url} {listen}");
        }
    }
}
