//! The table of all settings: what each is called, what it may be, who may set it. The parser,
//! `fleet config show`, the default file and the documents come from it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use fleet_agent::executor::OutputBound;
use fleet_contract::flood::{FLOOD_MESSAGES, FLOOD_USELESS};
use fleet_contract::keeper::Retention;
use fleet_contract::machine::{HEARTBEAT_DEFAULT, HEARTBEAT_MAX, HEARTBEAT_MIN};
use fleet_contract::spec::LOG_KEEP_DEFAULT_BYTES;
use fleet_nats::streams::{BYTES_MIN, FLOW_AGE, LOG_AGE};

use crate::args::parse;
use crate::output::style::ColorChoice;
use crate::words;

/// How long running jobs get when the agent is stopped, unless configured.
pub(crate) const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// Most that can be configured for it.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Least and most output that can be kept of a job, in bytes.
const LOG_KEEP_BOUNDS: (u64, u64) = (64 * 1024, 1 << 40);
/// Least and most that the hub can keep of one kind, in bytes: what a stream has at least.
const SIZE_BOUNDS: (u64, u64) = (BYTES_MIN, 1 << 40);
/// Shortest and longest that the hub can keep anything.
const AGE_BOUNDS: (Duration, Duration) = (
    Duration::from_secs(3600),
    Duration::from_secs(10 * 31_557_600),
);
/// Least and most ended jobs that the hub can keep; each takes about 1 KiB of its memory.
const COUNT_BOUNDS: (u64, u64) = (1, 1_000_000);

/// Least and most output of all jobs that can be kept on a machine, in bytes.
const SPOOL_KEEP_BOUNDS: (u64, u64) = (1 << 20, 1 << 40);
/// Least and most time that it can be kept.
const SPOOL_AGE_BOUNDS: (Duration, Duration) = (
    Duration::from_secs(60),
    Duration::from_secs(365 * 24 * 3600),
);

/// Least and most messages that a machine may be let send.
const MESSAGES_BOUNDS: (u64, u64) = (100, 1_000_000_000);

/// A file that sets values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `.fleet.toml`: comes with a project, so it may not say which programs run or who this is.
    Project,
    /// `config.toml` under `FLEET_HOME`.
    User,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A word.
    Text(String),
    /// A number.
    Number(u64),
    /// A span of time.
    Span(Duration),
    /// A size in bytes.
    Size(u64),
    /// A path.
    Path(PathBuf),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(n) => write!(f, "{n}"),
            Self::Span(span) => f.write_str(&words::duration(*span)),
            Self::Size(size) => f.write_str(&words::bytes(*size)),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Tables of a project's file that are no settings: where it lies on machines, and its roles.
pub(crate) const PROJECT_TABLES: [&str; 2] = ["project", "roles"];

/// A table of names and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// `[labels]`
    Labels,
    /// `[env]`
    Env,
}

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 2] = [Self::Labels, Self::Env];

    /// Its name in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Env => "env",
        }
    }

    /// What it is for.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::Labels => "Labels others can choose this machine by.",
            Self::Env => {
                "Variables for every job on this machine, over what the login shell gives."
            }
        }
    }

    /// What an entry may be.
    pub(crate) fn check(self, key: &str, value: &str) -> Result<(), String> {
        let nul = key.contains('\0') || value.contains('\0');
        if key.is_empty() || key.contains('=') || nul {
            return Err(format!("{key:?} is no name: no '=' and no NUL"));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Hub,
    Machine,
    Slots,
    Listen,
    Path,
    Heartbeat,
    Grace,
    LogKeep,
    SpoolKeep,
    SpoolAge,
    /// How long the hub keeps something, unless configured.
    Age(fn() -> Duration),
    /// How many bytes the hub keeps of something.
    Size,
    /// How many ended jobs the hub keeps.
    Count,
    /// How many messages a machine may send the hub, unless configured.
    Messages(u64),
    Color,
    Probe,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// Its environment variable.
    pub(crate) variable: Option<&'static str>,
    /// Whether a project's file may set it.
    pub(crate) project: bool,
    /// What it is, for the default file.
    pub(crate) help: &'static str,
    /// An example or the default, as it is written in the file.
    pub(crate) example: &'static str,
    kind: Kind,
}

/// Every setting that is not a table.
pub(crate) static KEYS: [Key; 22] = [
    Key {
        name: "hub",
        variable: Some("FLEET_HUB"),
        project: true,
        help: "The hub's address. Unset: where the credentials say it is.",
        example: "\"nats://127.0.0.1:4222\"",
        kind: Kind::Hub,
    },
    Key {
        name: "credentials",
        variable: None,
        project: false,
        help: "Credentials to show to the hub. Unset: what lies in FLEET_HOME/credentials.",
        example: "\"/path/to/operator.creds\"",
        kind: Kind::Path,
    },
    Key {
        name: "machine",
        variable: Some("FLEET_MACHINE"),
        project: false,
        help: "This machine's name. Unset: the host's.",
        example: "\"studio\"",
        kind: Kind::Machine,
    },
    Key {
        name: "slots",
        variable: None,
        project: false,
        help: "How many jobs run at once, 1 to 4096. Unset: one for each processor.",
        example: "4",
        kind: Kind::Slots,
    },
    Key {
        name: "listen",
        variable: None,
        project: false,
        help: "Where the hub listens.",
        example: "\"127.0.0.1:4222\"",
        kind: Kind::Listen,
    },
    Key {
        name: "nats_server",
        variable: Some("FLEET_NATS_SERVER"),
        project: false,
        help: "The nats-server of the hub. Unset: fleet's own, else the one in PATH.",
        example: "\"/usr/local/bin/nats-server\"",
        kind: Kind::Path,
    },
    Key {
        name: "heartbeat",
        variable: None,
        project: false,
        help: "How often this machine says that it is there, 1s to 60s.",
        example: "\"5s\"",
        kind: Kind::Heartbeat,
    },
    Key {
        name: "grace",
        variable: None,
        project: false,
        help: "How long running jobs get when the agent is stopped, 0s to 24h.",
        example: "\"30s\"",
        kind: Kind::Grace,
    },
    Key {
        name: "probe",
        variable: Some("FLEET_PROBE"),
        project: false,
        help: "When this machine looks for what it can do: auto, by itself; asked, only for `fleet skills probe`.",
        example: "\"auto\"",
        kind: Kind::Probe,
    },
    Key {
        name: "log_keep",
        variable: None,
        project: true,
        help: "How much output is kept of a job dispatched from here, 64 KiB to 1 TiB.",
        example: "\"256 MiB\"",
        kind: Kind::LogKeep,
    },
    Key {
        name: "spool_keep",
        variable: None,
        project: false,
        help: "How much output of all jobs lies on this machine until the hub has it, 1 MiB to 1 TiB.",
        example: "\"1 GiB\"",
        kind: Kind::SpoolKeep,
    },
    Key {
        name: "spool_age",
        variable: None,
        project: false,
        help: "How long it lies there, 1 minute to 365 days.",
        example: "\"30days\"",
        kind: Kind::SpoolAge,
    },
    Key {
        name: "jobs_age",
        variable: None,
        project: false,
        help: "How long the hub keeps ended jobs and their output, 1h to 10 years.",
        example: "\"7d\"",
        kind: Kind::Age(|| Retention::default().age),
    },
    Key {
        name: "jobs_count",
        variable: None,
        project: false,
        help: "How many ended jobs the hub keeps, 1 to 1000000.",
        example: "20000",
        kind: Kind::Count,
    },
    Key {
        name: "jobs_size",
        variable: None,
        project: false,
        help: "How many bytes of journal the hub keeps of ended jobs. Unset: while it has room.",
        example: "\"1 GiB\"",
        kind: Kind::Size,
    },
    Key {
        name: "logs_age",
        variable: None,
        project: false,
        help: "How long the hub keeps output, 1h to 10 years.",
        example: "\"14d\"",
        kind: Kind::Age(|| LOG_AGE),
    },
    Key {
        name: "logs_size",
        variable: None,
        project: false,
        help: "How many bytes of output the hub keeps. Unset: a share of its store.",
        example: "\"4 GiB\"",
        kind: Kind::Size,
    },
    Key {
        name: "flow_age",
        variable: None,
        project: false,
        help: "How long the hub keeps events, 1h to 10 years.",
        example: "\"14d\"",
        kind: Kind::Age(|| FLOW_AGE),
    },
    Key {
        name: "flow_size",
        variable: None,
        project: false,
        help: "How many bytes of events the hub keeps. Unset: a share of its store.",
        example: "\"1 GiB\"",
        kind: Kind::Size,
    },
    Key {
        name: "flood_messages",
        variable: None,
        project: false,
        help: "How many messages a machine may send the hub in 10 s, 100 to 1000000000.",
        example: "300000",
        kind: Kind::Messages(FLOOD_MESSAGES),
    },
    Key {
        name: "flood_useless",
        variable: None,
        project: false,
        help: "How many of them may not count, 100 to 1000000000.",
        example: "1000",
        kind: Kind::Messages(FLOOD_USELESS),
    },
    Key {
        name: "color",
        variable: None,
        project: false,
        help: "When to write colours: auto, always, never.",
        example: "\"auto\"",
        kind: Kind::Color,
    },
];

impl Key {
    /// The setting with this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The value that holds where nobody set one.
    pub(crate) fn default(&self) -> Option<Value> {
        match self.kind {
            Kind::Hub | Kind::Machine | Kind::Slots | Kind::Path | Kind::Size => None,
            Kind::Listen => Some(Value::Text("127.0.0.1:4222".to_owned())),
            Kind::Heartbeat => Some(Value::Span(HEARTBEAT_DEFAULT)),
            Kind::Grace => Some(Value::Span(GRACE_DEFAULT)),
            Kind::LogKeep => Some(Value::Size(LOG_KEEP_DEFAULT_BYTES)),
            Kind::SpoolKeep => Some(Value::Size(OutputBound::BYTES_DEFAULT)),
            Kind::SpoolAge => Some(Value::Span(OutputBound::AGE_DEFAULT)),
            Kind::Age(default) => Some(Value::Span(default())),
            Kind::Count => {
                let count = u64::try_from(Retention::default().count).unwrap_or(u64::MAX);
                Some(Value::Number(count))
            }
            Kind::Messages(default) => Some(Value::Number(default)),
            Kind::Color | Kind::Probe => Some(Value::Text("auto".to_owned())),
        }
    }

    /// The value that an environment variable says.
    pub(crate) fn read_text(&self, text: &OsStr) -> Result<Value, String> {
        if matches!(self.kind, Kind::Path) {
            return Ok(Value::Path(PathBuf::from(text)));
        }
        let text = text
            .to_str()
            .ok_or_else(|| format!("{text:?} is not UTF-8"))?;
        self.read_str(text)
    }

    /// The value that a quoted text of a file says.
    pub(crate) fn read_str(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Hub => hub_url(text).map(Value::Text),
            Kind::Machine => parse::machine(text).map(|m| Value::Text(m.to_string())),
            Kind::Slots | Kind::Count | Kind::Messages(_) => {
                Err(format!("{text:?} is no number: write it without quotes"))
            }
            Kind::Listen => parse::listen(text).map(|a| Value::Text(a.to_string())),
            Kind::Path if text.is_empty() => Err("an empty path".to_owned()),
            Kind::Path => Ok(Value::Path(PathBuf::from(text))),
            Kind::Heartbeat => within(text, HEARTBEAT_MIN, HEARTBEAT_MAX),
            Kind::Grace => within(text, Duration::ZERO, GRACE_MAX),
            Kind::LogKeep => words::parse_bytes(text).and_then(|size| sized(size, LOG_KEEP_BOUNDS)),
            Kind::SpoolKeep => {
                words::parse_bytes(text).and_then(|size| sized(size, SPOOL_KEEP_BOUNDS))
            }
            Kind::SpoolAge => within(text, SPOOL_AGE_BOUNDS.0, SPOOL_AGE_BOUNDS.1),
            Kind::Age(_) => within(text, AGE_BOUNDS.0, AGE_BOUNDS.1),
            Kind::Size => words::parse_bytes(text).and_then(|n| sized(n, SIZE_BOUNDS)),
            Kind::Probe if ["auto", "asked"].contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Probe => Err(format!("{text:?} is not one of auto, asked")),
            Kind::Color => ColorChoice::from_word(text)
                .map(|c| Value::Text(c.as_str().to_owned()))
                .ok_or_else(|| format!("{text:?} is not one of auto, always, never")),
        }
    }

    /// The value that a number of a file says.
    pub(crate) fn read_number(&self, number: i64) -> Result<Value, String> {
        match self.kind {
            Kind::Slots => parse::slots(&number.to_string())
                .map(|n| Value::Number(u64::from(n)))
                .map_err(|why| why.replace('"', "")),
            Kind::Count => counted(number, COUNT_BOUNDS),
            Kind::Messages(_) => counted(number, MESSAGES_BOUNDS),
            Kind::LogKeep | Kind::SpoolKeep | Kind::Size => {
                let bounds = match self.kind {
                    Kind::LogKeep => LOG_KEEP_BOUNDS,
                    Kind::SpoolKeep => SPOOL_KEEP_BOUNDS,
                    _ => SIZE_BOUNDS,
                };
                u64::try_from(number)
                    .map_err(|_| format!("{number} is less than nothing"))
                    .and_then(|size| sized(size, bounds))
            }
            Kind::Heartbeat | Kind::Grace | Kind::SpoolAge | Kind::Age(_) => {
                Err(format!("{number} has no unit: write it like \"{number}s\""))
            }
            _ => Err(format!(
                "{number} is a number: a text in quotes is expected"
            )),
        }
    }
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Value, String> {
    let span = words::parse_duration(text)?;
    if span < least || span > most {
        return Err(format!(
            "{text:?} is out of bounds: use {} to {}",
            words::duration(least),
            words::duration(most)
        ));
    }
    Ok(Value::Span(span))
}

fn counted(number: i64, (least, most): (u64, u64)) -> Result<Value, String> {
    match u64::try_from(number) {
        Ok(n) if (least..=most).contains(&n) => Ok(Value::Number(n)),
        _ => Err(format!("{number} is out of bounds: use {least} to {most}")),
    }
}

fn sized(size: u64, (least, most): (u64, u64)) -> Result<Value, String> {
    if size < least || size > most {
        return Err(format!(
            "{} is out of bounds: use {} to {}",
            words::bytes(size),
            words::bytes(least),
            words::bytes(most)
        ));
    }
    Ok(Value::Size(size))
}

/// A hub's address in full: `nats://HOST:PORT` from `HOST`, `HOST:PORT` or a URL.
pub(crate) fn hub_url(text: &str) -> Result<String, String> {
    let wrong = || {
        let shown: String = text.chars().take(80).collect();
        format!("{shown:?} is no hub address: write it like nats://studio:4222")
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    if !["nats", "tls"].contains(&scheme) {
        return Err(wrong());
    }
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port))
            if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) =>
        {
            (host, port.parse::<u16>().map_err(|_| wrong())?)
        }
        _ => (rest, 4222),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let fits = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(good),
    };
    if !fits {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

/// The committed default file: every setting with its help, commented out.
#[cfg(test)]
pub(crate) fn default_file() -> String {
    let mut text = String::from(
        "# fleet's settings. This is the file as it is without any: copy what you want to change to\n\
         # config.toml under FLEET_HOME. A flag is stronger than an environment variable, that than a\n\
         # project's .fleet.toml (in the current folder or above it), that than this file.\n\
         # 'fleet config show' says where each value came from.\n",
    );
    for key in &KEYS {
        text.push_str(&format!("\n# {}\n", key.help));
        if let Some(variable) = key.variable {
            text.push_str(&format!("# Environment: {variable}.\n"));
        }
        if key.project {
            text.push_str("# May stand in a project's .fleet.toml.\n");
        }
        text.push_str(&format!("#{} = {}\n", key.name, key.example));
    }
    for table in Table::ALL {
        let example = match table {
            Table::Labels => "#rack = \"cellar\"",
            Table::Env => "#RUST_BACKTRACE = \"1\"",
        };
        text.push_str(&format!(
            "\n# {}\n#[{}]\n{example}\n",
            table.help(),
            table.name()
        ));
    }
    text.push_str(
        "\n# The console: whether it takes the mouse. Without it the terminal selects text.\n\
         #[tui]\n#mouse = true\n\
         \n# Other keys of the console, by action: docs/console.md has all of them.\n\
         #[tui.keys]\n#why = \"w\"\n#jump_machine = [\"g m\"]\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_default_file_is_what_the_table_says() {
        let committed = include_str!("../../docs/config.toml");
        assert_eq!(committed, default_file(), "write this to docs/config.toml");
    }

    #[test]
    fn every_example_of_the_default_file_is_valid() {
        let text: String = default_file()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let path = std::path::Path::new("config.toml");
        let file = super::super::file::File::parse(path, &text, Scope::User).unwrap();
        assert_eq!(file.values.len(), KEYS.len());
        for key in &KEYS {
            if let Some(default) = key.default() {
                assert_eq!(file.values[key.name].0, default, "{}", key.name);
            }
        }
    }

    #[test]
    fn a_hub_address_is_completed() {
        for (text, full) in [
            ("studio", "nats://studio:4222"),
            ("studio:4333", "nats://studio:4333"),
            ("nats://1.2.3.4", "nats://1.2.3.4:4222"),
            ("tls://hub.example.com:443/", "tls://hub.example.com:443"),
            ("[::1]:4222", "nats://[::1]:4222"),
        ] {
            assert_eq!(hub_url(text).as_deref(), Ok(full), "{text}");
        }
        for bad in [
            "",
            "http://x",
            "nats://",
            "a b",
            "x:port",
            "nats://user:pw@h:1",
            "x:99999",
            "[::0]222",
            "::1",
        ] {
            assert!(hub_url(bad).is_err(), "{bad}");
        }
    }
}
