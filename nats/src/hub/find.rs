//! Finding nats-server: the places in order, and what a found one says its version is. The
//! environment is an argument; nothing here reads it.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::OLDEST_VERSION;
use crate::home::Home;

/// How long `nats-server --version` may take.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// Where to look, in order of precedence.
#[derive(Debug, Clone, Default)]
pub struct SearchPath {
    /// The flag's value. When given, nothing else is tried.
    pub flag: Option<PathBuf>,
    /// `FLEET_NATS_SERVER`. When given without a flag, nothing else is tried.
    pub variable: Option<PathBuf>,
    /// `PATH`, as the environment has it.
    pub path: Option<OsString>,
}

/// A server that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundServer {
    /// The program.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
    /// Why this one: `flag`, `FLEET_NATS_SERVER`, `fleet's own` or `PATH`.
    pub origin: &'static str,
}

/// A released version, without what may follow the patch level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

/// Why there is no server to use.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None of the places has one.
    #[error(
        "no nats-server found in {0}: run 'fleet hub install-server', or 'brew install nats-server'"
    )]
    NotFound(String),
    /// The program that was named cannot be run.
    #[error("cannot run nats-server {} (from {origin}): {why}: name another, or run 'fleet hub install-server'", path.display())]
    CannotRun {
        /// The program.
        path: PathBuf,
        /// Who named it.
        origin: &'static str,
        /// Why not.
        why: String,
    },
    /// Too old for the wire contract.
    #[error("nats-server {} (from {origin}) is {version}, fleet needs {OLDEST_VERSION} or newer: run 'fleet hub install-server', or 'brew install nats-server'", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Who named it.
        origin: &'static str,
        /// What it says it is.
        version: Version,
    },
}

impl FindError {
    /// Whether installing one would help: nobody named a particular program.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// Finds a server: the flag, `FLEET_NATS_SERVER`, `FLEET_HOME/bin/nats-server`, `PATH`. One that
/// was named is used or refused; of fleet's own and those on `PATH` the first new enough is taken,
/// and an old one is refused only where no other is. Blocks while it asks for versions.
///
/// # Errors
/// [`FindError`].
pub fn find_server(search: &SearchPath, home: &Home) -> Result<FoundServer, FindError> {
    let named = [
        (&search.flag, "flag"),
        (&search.variable, "FLEET_NATS_SERVER"),
    ];
    for (path, origin) in named {
        if let Some(path) = path {
            return check(path, origin);
        }
    }
    let own = home.server_binary();
    let folders = search
        .path
        .iter()
        .flat_map(std::env::split_paths)
        .filter(|folder| folder.is_absolute())
        .map(|folder| (folder.join("nats-server"), "PATH"));
    let mut refused = None;
    for (path, origin) in std::iter::once((own.clone(), "fleet's own")).chain(folders) {
        if is_program(&path) {
            match check(&path, origin) {
                Ok(found) => return Ok(found),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    Err(refused.unwrap_or_else(|| FindError::NotFound(format!("{} or PATH", own.display()))))
}

fn check(path: &Path, origin: &'static str) -> Result<FoundServer, FindError> {
    let version = version_of(path).map_err(|why| FindError::CannotRun {
        path: path.to_owned(),
        origin,
        why,
    })?;
    let path = path.to_owned();
    if version < OLDEST_VERSION {
        return Err(FindError::TooOld {
            path,
            origin,
            version,
        });
    }
    Ok(FoundServer {
        path,
        version,
        origin,
    })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Asks the program for its version; why not, as text, where it has none.
pub(crate) fn version_of(path: &Path) -> Result<Version, String> {
    let mut child = spawn_for_version(path).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // A program that is no nats-server may write for ever: read a little in a thread of its
        // own, so that one that neither writes nor ends does not hold us either.
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.take(4096).read_to_end(&mut text);
            let _ = send.send(text);
        });
        text = receive.recv_timeout(VERSION_WITHIN).unwrap_or_default();
    }
    let _ = end(&mut child, Instant::now() + Duration::from_secs(1));
    let text = String::from_utf8_lossy(&text);
    parse_version(&text).ok_or_else(|| {
        let said: String = text.trim().chars().take(60).collect();
        format!("it does not say its version ('{said}')")
    })
}

/// Starts the program. A fresh one can be "busy" for a moment: a process that another thread
/// forked while it was written still holds it open.
fn spawn_for_version(path: &Path) -> std::io::Result<std::process::Child> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let spawned = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Err(e)
                if e.kind() == std::io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Waits for a child that has closed its output, and kills it when that takes too long.
fn end(child: &mut std::process::Child, deadline: Instant) -> std::io::Result<()> {
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Reads `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<Version> {
    let rest = text.trim().strip_prefix("nats-server: v")?;
    let mut numbers = rest.split('.').map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part[..digits].parse::<u32>().ok()
    });
    Some(Version {
        major: numbers.next()??,
        minor: numbers.next()??,
        patch: numbers.next()??,
    })
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(dir: &Path, says: &str) -> PathBuf {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join("nats-server");
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    struct World {
        dir: tempfile::TempDir,
        home: Home,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        World { dir, home }
    }

    #[test]
    fn versions_are_read_whatever_follows_them() {
        let version = |text| parse_version(text).map(|v| v.to_string());
        assert_eq!(version("nats-server: v2.15.1\n").as_deref(), Some("2.15.1"));
        assert_eq!(
            version("nats-server: v2.14.0-RC.1").as_deref(),
            Some("2.14.0")
        );
        for bad in ["", "nats-server: v2", "nats-server: v2.x.1", "nginx 2.15.1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_places_are_tried_in_order() {
        let World { dir, home } = world();
        let at = |name: &str| dir.path().join(name);
        let mut search = SearchPath::default();
        let error = find_server(&search, &home).unwrap_err();
        assert!(error.is_not_found());
        assert!(error.to_string().contains("fleet hub install-server"));

        let good = "nats-server: v2.15.1";
        fake(&at("path"), good);
        search.path = Some(at("path").into());
        assert_eq!(find_server(&search, &home).unwrap().origin, "PATH");
        fake(&at("home/bin"), good);
        assert_eq!(find_server(&search, &home).unwrap().origin, "fleet's own");
        search.variable = Some(fake(&at("variable"), good));
        let found = find_server(&search, &home).unwrap();
        assert_eq!(found.origin, "FLEET_NATS_SERVER");
        search.flag = Some(fake(&at("flag"), good));
        assert_eq!(find_server(&search, &home).unwrap().origin, "flag");
    }

    #[test]
    fn an_old_server_is_refused_unless_another_is_new_enough() {
        let World { dir, home } = world();
        let old = fake(&dir.path().join("old"), "nats-server: v2.9.10");
        let mut search = SearchPath {
            path: Some(dir.path().join("old").into()),
            ..SearchPath::default()
        };
        let error = find_server(&search, &home).unwrap_err();
        assert!(matches!(error, FindError::TooOld { .. }));
        let text = error.to_string();
        assert!(text.contains("2.14.0") && text.contains("brew install nats-server"));
        fake(&dir.path().join("new"), "nats-server: v2.14.0");
        let both = std::env::join_paths([dir.path().join("old"), dir.path().join("new")]).unwrap();
        search.path = Some(both);
        assert_eq!(find_server(&search, &home).unwrap().version.minor, 14);
        // But one that was named is not passed over.
        search.flag = Some(old);
        assert!(find_server(&search, &home).is_err());
    }

    #[test]
    fn a_named_program_that_is_no_server_is_refused() {
        let World { dir, home } = world();
        let nonsense = fake(&dir.path().join("a"), "hello");
        for path in [nonsense, dir.path().join("missing"), "/bin/cat".into()] {
            let search = SearchPath {
                flag: Some(path),
                ..SearchPath::default()
            };
            let error = find_server(&search, &home).unwrap_err();
            assert!(matches!(error, FindError::CannotRun { .. }), "{error}");
        }
    }
}
