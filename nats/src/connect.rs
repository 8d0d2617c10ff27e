//! Connecting to the hub, in the two ways fleet needs: a command fails fast and says why, an
//! agent waits for ever and shows the state of its link. Hides the client library's traps:
//! its long default ping, its backoff without jitter, its silent errors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Event, RequestErrorKind};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::hub::{Credentials, OLDEST_VERSION};

/// The oldest JetStream API that has what the wire contract needs.
pub const OLDEST_API_LEVEL: u32 = 4;

/// A command knows within this time whether it has a hub.
pub const FAIL_WITHIN: Duration = Duration::from_secs(2);

/// A dead link is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Messages that wait for one slow subscription before the newest are dropped (and counted).
const SUBSCRIPTION_CAPACITY: usize = 4096;

/// Requests that set no time of their own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause between two tries to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Longest pause of an agent before its first try to reconnect.
const FIRST_OF_MANY: Duration = Duration::from_millis(500);

/// Who connects, and where to.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The hub's addresses, best first; empty: those of the credentials.
    pub urls: Vec<String>,
    /// Who this is.
    pub credentials: Credentials,
    /// Shown in the server's connection list and events, `fleet agent studio`.
    pub name: String,
    /// How long [`connect`] may take in all.
    pub fail_within: Duration,
    /// Whether to check that the server has the JetStream the contract needs. Only a user of the
    /// system account, which has none, does without.
    pub check_api: bool,
}

impl ConnectOptions {
    /// The addresses of the credentials, two seconds.
    pub fn new(name: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            urls: Vec::new(),
            credentials,
            name: name.into(),
            fail_within: FAIL_WITHIN,
            check_api: true,
        }
    }

    fn addresses(&self) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
        let urls = if self.urls.is_empty() {
            self.credentials.hubs()
        } else {
            &self.urls
        };
        if urls.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        urls.iter()
            .map(|url| {
                let invalid = |why: String| ConnectError::Address {
                    url: url.chars().take(200).collect(),
                    why,
                };
                let address: async_nats::ServerAddr = url
                    .parse()
                    .map_err(|e: std::io::Error| invalid(e.to_string()))?;
                if address.host().is_empty() {
                    return Err(invalid("it names no host".into()));
                }
                Ok(address)
            })
            .collect()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a URL nor credentials that name one.
    #[error("no hub address: give '--hub nats://HOST:4222', or credentials that name one")]
    NoAddress,
    /// A URL that is not one.
    #[error("hub address {url:?} is not valid ({why}): use nats://HOST:PORT")]
    Address {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// None of the addresses let us in.
    #[error("cannot reach the hub: {}", list(.0))]
    Unreachable(Vec<Attempt>),
    /// The hub does not know these credentials.
    #[error(
        "the hub at {url} refuses these credentials ({name}): get new ones with 'fleet hub credentials' on the hub"
    )]
    Refused {
        /// Where.
        url: String,
        /// Whose credentials.
        name: String,
    },
    /// The server has no JetStream for us.
    #[error("the server at {url} has no JetStream for {name}: is that a fleet hub?")]
    NoJetStream {
        /// Where.
        url: String,
        /// Whose credentials.
        name: String,
    },
    /// The server is too old.
    #[error(
        "the hub at {url} runs nats-server {version} (JetStream API level {level}); fleet needs {OLDEST_VERSION} or newer: run 'fleet hub install-server' there, or 'brew install nats-server'"
    )]
    TooOld {
        /// Where.
        url: String,
        /// What the server says it is.
        version: String,
        /// Its API level; 0 where it says none.
        level: u32,
    },
    /// The credentials cannot be used.
    #[error("cannot use the credentials of {name}: {why}")]
    Credentials {
        /// Whose.
        name: String,
        /// Why not.
        why: String,
    },
    /// The link went away before it could be used.
    #[error("the link to the hub broke while connecting: {0}")]
    Broken(String),
}

/// One address that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub url: String,
    /// Why it did not work.
    pub why: Unreachable,
}

/// Why an address did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens there.
    ConnectionRefused,
    /// No answer in time.
    TimedOut,
    /// The name has no address.
    UnknownHost,
    /// Something else.
    Other(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionRefused => "connection refused",
            Self::TimedOut => "timed out",
            Self::UnknownHost => "unknown host",
            Self::Other(why) => why,
        })
    }
}

fn list(attempts: &[Attempt]) -> String {
    let texts: Vec<String> = attempts
        .iter()
        .map(|a| format!("{} ({})", a.url, a.why))
        .collect();
    texts.join(", ")
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// Not connected yet, since the start.
    #[default]
    Connecting,
    /// Connected.
    Connected,
    /// Was connected; tries again.
    Disconnected,
    /// Closed for good.
    Closed,
}

/// What is known of a link. Counts only grow; they are lower bounds where hundreds of events come
/// at once, since the client library then drops some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// Now.
    pub state: LinkState,
    /// The server is about to stop.
    pub lame_duck: bool,
    /// Connections made.
    pub connects: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Messages dropped because a subscription was read too slowly.
    pub slow_drops: u64,
    /// Publishes and subscriptions that the server denied.
    pub denied: u64,
    /// Times the hub did not let us in.
    pub auth_failures: u64,
    /// The last error, as the server or the client library put it.
    pub last_error: Option<String>,
    /// The number of the try to connect that comes next, and when; none while connected.
    pub next_try: Option<(usize, Instant)>,
}

impl LinkStatus {
    /// Takes in one event. Says whether anything changed.
    fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Connected => {
                self.state = LinkState::Connected;
                self.lame_duck = false;
                self.connects += 1;
                self.next_try = None;
            }
            Event::Disconnected => {
                self.state = LinkState::Disconnected;
                self.disconnects += 1;
            }
            Event::Closed => self.state = LinkState::Closed,
            Event::LameDuckMode => self.lame_duck = true,
            Event::Draining => return false,
            Event::SlowConsumer(_) => self.slow_drops += 1,
            Event::ServerError(error) => self.error(&error.to_string()),
            Event::ClientError(error) => self.error(&error.to_string()),
        }
        true
    }

    fn error(&mut self, text: &str) {
        let lower = text.to_lowercase();
        if lower.contains("permissions violation") {
            self.denied += 1;
        } else if lower.contains("authorization violation")
            || lower.contains("authentication")
            || lower.contains("failed signing nonce")
        {
            self.auth_failures += 1;
        }
        self.last_error = Some(text.chars().take(300).collect());
    }
}

/// A client and the state of its link.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client,
    status: watch::Receiver<LinkStatus>,
    who: Arc<Who>,
}

#[derive(Debug)]
struct Who {
    name: String,
    urls: Vec<String>,
    check_api: bool,
}

impl Link {
    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The state of the link: read it, or wait for changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// Whether the link is up, from the client itself.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Waits, for ever if need be, until the hub has let us in, and checks that it is new enough.
    ///
    /// # Errors
    /// [`ConnectError::TooOld`], [`ConnectError::NoJetStream`] and [`ConnectError::Refused`], which
    /// waiting would not mend. Who was let in once is not refused here: he waits for a hub that
    /// knows him again.
    pub async fn ready(&self) -> Result<(), ConnectError> {
        let mut status = self.status();
        loop {
            let refused = |s: &LinkStatus| {
                let each = u64::try_from(self.who.urls.len()).unwrap_or(u64::MAX);
                s.connects == 0 && s.auth_failures >= each
            };
            let news = status.wait_for(|s| {
                matches!(s.state, LinkState::Connected | LinkState::Closed) || refused(s)
            });
            // The library drops events in a storm of them: look at the client itself, too.
            match tokio::time::timeout(REQUEST_TIMEOUT, news).await {
                Err(_) if !self.is_connected() => continue,
                Ok(Ok(status)) if status.state == LinkState::Closed => {
                    return Err(ConnectError::Broken("closed".into()));
                }
                Ok(Ok(status)) if refused(&status) => {
                    return Err(ConnectError::Refused {
                        url: self.who.urls.join(", "),
                        name: self.who.name.clone(),
                    });
                }
                Ok(Err(_)) => return Err(ConnectError::Broken("closed".into())),
                _ => {}
            }
            match check_api(&self.client, &self.who, Instant::now() + REQUEST_TIMEOUT).await {
                // The link broke meanwhile, or the server is still loading: it will be back.
                Err(ConnectError::Broken(_)) => {
                    tokio::time::sleep(pause(2, crate::clock::random_u32())).await;
                }
                other => return other,
            }
        }
    }
}

/// Connects for a command: tries each address in turn and gives up in [`ConnectOptions::fail_within`]
/// in all. A link that breaks later comes back by itself.
///
/// # Errors
/// [`ConnectError`], with every address that was tried and why it did not work.
pub async fn connect(options: &ConnectOptions) -> Result<Link, ConnectError> {
    let addresses = options.addresses()?;
    let deadline = Instant::now() + options.fail_within;
    let mut attempts = Vec::new();
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // What is left is shared by the addresses that are left.
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        let until = Instant::now() + share;
        let (library, status) = library_options(options, false)?;
        let library = library
            .connection_timeout(share)
            .reconnect_to_server_callback(|servers, _| std::future::ready(at_once(&servers)));
        let url = shown(address);
        let failed = match timeout_at(until, library.connect(address.clone())).await {
            Err(_) => Unreachable::TimedOut,
            Ok(Ok(client)) => {
                let who = Who {
                    name: options.credentials.name().to_owned(),
                    urls: vec![url],
                    check_api: options.check_api,
                };
                check_api(&client, &who, deadline).await?;
                if addresses.len() > 1 {
                    // Later it may come back at any of them; a failure here only narrows that.
                    let _ = client.set_server_pool(addresses.as_slice()).await;
                }
                return Ok(Link {
                    client,
                    status,
                    who: Arc::new(who),
                });
            }
            Ok(Err(error)) => classify(&error, &url, options)?,
        };
        attempts.push(Attempt { url, why: failed });
    }
    Err(ConnectError::Unreachable(attempts))
}

/// The very first try goes without a pause: even one of nothing costs a tick of the runtime's timer,
/// 1.1 ms of the 5 that a dispatch may take. Every later try has its pause.
fn at_once(servers: &[async_nats::Server]) -> Option<async_nats::ReconnectToServer> {
    let first = servers.first()?;
    let fresh = !first.did_connect && first.failed_attempts == 0;
    fresh.then(|| async_nats::ReconnectToServer {
        addr: first.addr.clone(),
        delay: Some(Duration::ZERO),
    })
}

/// Connects for an agent: returns at once and goes on trying for ever, with jitter. See
/// [`Link::ready`] and [`Link::status`].
///
/// # Errors
/// Only for addresses and credentials that can never work.
pub async fn connect_for_ever(options: &ConnectOptions) -> Result<Link, ConnectError> {
    let addresses = options.addresses()?;
    let (library, status) = library_options(options, true)?;
    let client = library
        .retry_on_initial_connect()
        .connect(addresses.as_slice())
        .await
        .map_err(|e| ConnectError::Broken(e.to_string()))?;
    let who = Who {
        name: options.credentials.name().to_owned(),
        urls: addresses.iter().map(shown).collect(),
        check_api: options.check_api,
    };
    Ok(Link {
        client,
        status,
        who: Arc::new(who),
    })
}

/// The client library's options: everything that its defaults get wrong for us.
fn library_options(
    options: &ConnectOptions,
    for_ever: bool,
) -> Result<(async_nats::ConnectOptions, watch::Receiver<LinkStatus>), ConnectError> {
    let (send, status) = watch::channel(LinkStatus::default());
    let send = Arc::new(send);
    let tries = send.clone();
    let key = options
        .credentials
        .key()
        .map_err(|e| ConnectError::Credentials {
            name: options.credentials.name().to_owned(),
            why: e.to_string(),
        })?;
    // The library's own reading of credentials files compiles regular expressions at every start.
    let library = async_nats::ConnectOptions::new()
        .jwt(options.credentials.jwt().to_owned(), move |nonce| {
            std::future::ready(key.sign(&nonce).map_err(async_nats::AuthError::new))
        })
        .name(&options.name)
        .custom_inbox_prefix(options.credentials.inbox_prefix())
        .ping_interval(PING_INTERVAL)
        .connection_timeout(REQUEST_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        // A hub that is moved is told to us by new credentials, never by the old one.
        .ignore_discovered_servers()
        .retain_servers_order()
        .reconnect_delay_callback(move |attempt| {
            let random = crate::clock::random_u32();
            let pause = match for_ever && tries.borrow().connects > 0 {
                true => pause_of_many(attempt, random),
                false => pause(attempt, random),
            };
            tries.send_modify(|status| status.next_try = Some((attempt, Instant::now() + pause)));
            pause
        })
        .event_callback(move |event| {
            let send = send.clone();
            async move {
                send.send_if_modified(|status| status.apply(&event));
            }
        });
    Ok((library, status))
}

/// The pause before an attempt: none before the first, then 100 ms doubling to 4 s, of which
/// `random` (of all of `u32`) takes off up to a half.
fn pause(attempt: usize, random: u32) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX);
    let full = Duration::from_millis(100)
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST_PAUSE);
    full - (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The pause before an attempt of an agent, whose link broke at the same moment as everybody's: any
/// time up to 0.5 s before the first, then 0.5 s doubling to 4 s, less up to a half.
fn pause_of_many(attempt: usize, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    if attempt <= 1 {
        return FIRST_OF_MANY.mul_f64(share);
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX);
    let full = FIRST_OF_MANY
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST_PAUSE);
    full - (full / 2).mul_f64(share)
}

/// Why an address did not work; an error where trying others is of no use.
fn classify(
    error: &async_nats::ConnectError,
    url: &str,
    options: &ConnectOptions,
) -> Result<Unreachable, ConnectError> {
    use async_nats::ConnectErrorKind as Kind;
    Ok(match error.kind() {
        Kind::AuthorizationViolation => {
            return Err(ConnectError::Refused {
                url: url.to_owned(),
                name: options.credentials.name().to_owned(),
            });
        }
        Kind::Authentication => {
            return Err(ConnectError::Credentials {
                name: options.credentials.name().to_owned(),
                why: error.to_string(),
            });
        }
        Kind::TimedOut => Unreachable::TimedOut,
        Kind::Dns => Unreachable::UnknownHost,
        _ if io_kind(error) == Some(std::io::ErrorKind::ConnectionRefused) => {
            Unreachable::ConnectionRefused
        }
        _ => Unreachable::Other(error.to_string().to_lowercase()),
    })
}

/// The kind of the I/O error that an error comes from.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

fn shown(address: &async_nats::ServerAddr) -> String {
    format!("nats://{}:{}", address.host(), address.port())
}

/// Asks the server for its API level.
async fn check_api(client: &Client, who: &Who, deadline: Instant) -> Result<(), ConnectError> {
    if !who.check_api {
        return Ok(());
    }
    let url = who.urls.join(", ");
    let asked = timeout_at(deadline, client.request("$JS.API.INFO", "".into())).await;
    let no_jetstream = |url| ConnectError::NoJetStream {
        url,
        name: who.name.clone(),
    };
    let message = match asked {
        Err(_) => return Err(ConnectError::Broken("no answer in time".into())),
        Ok(Err(e)) if e.kind() == RequestErrorKind::NoResponders => return Err(no_jetstream(url)),
        Ok(Err(e)) => return Err(ConnectError::Broken(e.to_string())),
        Ok(Ok(message)) => message,
    };
    match api_level(&message.payload) {
        None => Err(no_jetstream(url)),
        Some(level) if level < OLDEST_API_LEVEL => Err(ConnectError::TooOld {
            url,
            version: client.server_info().version,
            level,
        }),
        Some(_) => Ok(()),
    }
}

/// The level in an answer to `$JS.API.INFO`; 0 for a server that says none (before 2.11), `None`
/// where there is no JetStream.
fn api_level(answer: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        api: Api,
        error: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize, Default)]
    struct Api {
        #[serde(default)]
        level: u32,
    }
    let info: Info = serde_json::from_slice(answer).ok()?;
    info.error.is_none().then_some(info.api.level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_four_seconds_and_jitter() {
        assert_eq!(pause(1, 0), Duration::ZERO);
        assert_eq!(pause(2, 0), Duration::from_millis(100));
        assert_eq!(pause(2, u32::MAX), Duration::from_millis(50));
        assert_eq!(pause(5, 0), Duration::from_millis(800));
        assert_eq!(pause(usize::MAX, 0), LONGEST_PAUSE);
    }

    /// When each of so many agents is connected again, in milliseconds after the hub is back, where
    /// it was away for `away`. A try that fails takes no time: nobody listens.
    fn comebacks(agents: usize, away: Duration) -> Vec<u128> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            u32::try_from(random >> 32).unwrap()
        };
        let mut comeback = |_| {
            let mut now = Duration::ZERO;
            for attempt in 1.. {
                now += pause_of_many(attempt, draw());
                if now >= away {
                    break;
                }
            }
            (now - away).as_millis()
        };
        let mut found: Vec<u128> = (0..agents).map(&mut comeback).collect();
        found.sort_unstable();
        found
    }

    /// Most that come within the same tenth of a second.
    fn crowd(comebacks: &[u128]) -> usize {
        let within = |&first: &u128| {
            comebacks
                .iter()
                .filter(move |&&t| (first..first + 100).contains(&t))
        };
        comebacks
            .iter()
            .map(|first| within(first).count())
            .max()
            .unwrap()
    }

    #[test]
    fn a_thousand_agents_do_not_come_back_at_once() {
        for (away_ms, most, within_ms) in [
            (0, 260, 500),
            (200, 400, 700),
            (1000, 200, 2100),
            (10_000, 80, 4000),
            (3_600_000, 80, 4000),
        ] {
            let comebacks = comebacks(1000, Duration::from_millis(away_ms));
            let crowd = crowd(&comebacks);
            println!(
                "away {away_ms} ms: the last after {:?}, crowd {crowd}",
                comebacks[999]
            );
            assert!(crowd <= most, "away {away_ms} ms: {crowd} in 0.1 s");
            assert!(
                comebacks[999] <= within_ms,
                "away {away_ms} ms: {}",
                comebacks[999]
            );
        }
    }

    #[test]
    fn the_api_level_is_read_from_old_and_new_servers() {
        let level = |text: &str| api_level(text.as_bytes());
        assert_eq!(
            level(r#"{"memory":0,"api":{"level":5,"total":1}}"#),
            Some(5)
        );
        assert_eq!(
            level(r#"{"memory":0,"api":{"total":1,"errors":0}}"#),
            Some(0)
        );
        assert_eq!(level(r#"{"error":{"code":503,"err_code":10039}}"#), None);
        assert_eq!(level("-"), None);
    }

    #[test]
    fn a_link_counts_what_happens_to_it() {
        let mut status = LinkStatus::default();
        for event in [
            Event::Connected,
            Event::LameDuckMode,
            Event::SlowConsumer(3),
            Event::SlowConsumer(3),
            Event::Disconnected,
            Event::ClientError(async_nats::ClientError::Other(
                "authorization violation".into(),
            )),
            Event::ServerError(async_nats::ServerError::Other(
                "Permissions Violation for Publish to \"a\"".into(),
            )),
        ] {
            assert!(status.apply(&event));
        }
        let expected = LinkStatus {
            state: LinkState::Disconnected,
            lame_duck: true,
            connects: 1,
            disconnects: 1,
            slow_drops: 2,
            denied: 1,
            auth_failures: 1,
            last_error: status.last_error.clone(),
            next_try: None,
        };
        assert_eq!(status, expected);
        assert!(status.last_error.unwrap().contains("Permissions Violation"));
    }
}
