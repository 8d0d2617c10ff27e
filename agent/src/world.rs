//! The world a job runs in: what the user's login shell gives.
//!
//! Under systemd and launchd a process has hardly any environment; programs such as `node`,
//! `cargo` or `claude` are found through what people write into their shell's files. So the
//! login shell is asked once, when the agent starts. It is asked by a process in a session of
//! its own: an interactive shell takes hold of the terminal it finds.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::executor::{Environment, ExecutorCommand};

/// How long the login shell may take in all.
pub const CAPTURE_LIMIT: Duration = Duration::from_secs(5);
/// Of that, how long it may take as an interactive one.
const INTERACTIVE_LIMIT: Duration = Duration::from_secs(3);
/// Most it may print, in bytes.
const CAPTURE_MAX: u64 = 4 * 1024 * 1024;
/// Around the variables, whatever the shell's files print besides.
const MARKER: &str = "__fleet_environment_7f3a__";
/// Variables that mean something only to the shell that was asked.
const LEFT_OUT: [&str; 5] = ["_", "SHLVL", "PWD", "OLDPWD", "PS1"];

/// Where an environment comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorldSource {
    /// This login shell gave it.
    LoginShell(PathBuf),
    /// The shell could not be asked, for this reason; it is the process's own.
    Own {
        /// Why, in words.
        reason: String,
    },
}

/// What jobs get before anything that is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Variables by name; those that are not UTF-8 are left out.
    pub env: Environment,
    /// Where they come from.
    pub source: WorldSource,
}

impl World {
    fn own(reason: String) -> Self {
        Self {
            env: clean(crate::executor::own_environment()),
            source: WorldSource::Own { reason },
        }
    }
}

/// Asks the login shell, by way of a helper process that calls [`print_login_env`]. Never fails:
/// what cannot be had is replaced by this process's own environment, and says so.
pub async fn capture_login_env(helper: &ExecutorCommand) -> World {
    let limit = CAPTURE_LIMIT + Duration::from_secs(1);
    match tokio::time::timeout(limit, ask_helper(helper)).await {
        Ok(Ok(world)) => world,
        Ok(Err(error)) => World::own(format!("cannot ask {}: {error}", helper.program.display())),
        Err(_) => World::own("the login shell did not answer in time".to_owned()),
    }
}

async fn ask_helper(helper: &ExecutorCommand) -> io::Result<World> {
    let mut child = tokio::process::Command::new(&helper.program)
        .args(&helper.args)
        .envs(helper.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(2 * CAPTURE_MAX).read_to_end(&mut text).await?;
    }
    let json = between_markers(&text).unwrap_or(&text);
    Ok(serde_json::from_slice(json)?)
}

/// The helper: asks the login shell and prints the [`World`] as JSON to standard output. What a
/// hidden command of the binary calls; it leaves the session it was started in.
///
/// # Errors
/// Only if nothing can be printed.
pub fn print_login_env() -> io::Result<()> {
    let _ = rustix::process::setsid();
    let world = ask_login_shell(&login_shell(), INTERACTIVE_LIMIT, CAPTURE_LIMIT);
    let mut out = io::stdout().lock();
    write!(out, "{MARKER}")?;
    serde_json::to_writer(&mut out, &world)?;
    writeln!(out, "{MARKER}")?;
    out.flush()
}

/// Asks this shell, first as an interactive login shell: many keep their PATH in a file that
/// only those read.
fn ask_login_shell(shell: &Path, interactive: Duration, all: Duration) -> World {
    let begun = std::time::Instant::now();
    let mut reason = String::new();
    for (flags, limit) in [(&["-l", "-i"][..], interactive), (&["-l"][..], all)] {
        let left = limit.min(all.saturating_sub(begun.elapsed()));
        match ask_shell(shell, flags, left) {
            Ok(env) => {
                return World {
                    env: clean(env),
                    source: WorldSource::LoginShell(shell.to_owned()),
                };
            }
            Err(error) => reason = format!("{} {}: {error}", shell.display(), flags.join(" ")),
        }
    }
    World::own(reason)
}

fn ask_shell(shell: &Path, flags: &[&str], limit: Duration) -> io::Result<Environment> {
    let script = format!("printf '%s' {MARKER}; env -0; printf '%s' {MARKER}");
    let mut child = Command::new(shell)
        .args(flags)
        .arg("-c")
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&child);
    let Some(mut stdout) = child.stdout.take() else {
        return Err(io::Error::other("its output cannot be read"));
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    // Not joined: a daemon that the shell's files started may hold the pipe for ever.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 16 * 1024];
        while let Ok(length @ 1..) = io::Read::read(&mut stdout, &mut piece) {
            text.extend_from_slice(&piece[..length]);
            let whole = parse(&text);
            if whole.is_some() || text.len() as u64 > CAPTURE_MAX {
                let _ = sender.send(whole);
                return;
            }
        }
        let _ = sender.send(None);
    });
    let answer = receiver.recv_timeout(limit);
    if !matches!(answer, Ok(Some(_))) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    match answer {
        Ok(Some(env)) => {
            // It has said everything; its exit code does not matter.
            std::thread::spawn(move || child.wait());
            Ok(env)
        }
        Ok(None) => {
            let _ = child.wait();
            Err(io::Error::other("it did not print its environment"))
        }
        Err(_) => {
            let _ = child.wait();
            Err(io::Error::other("it did not answer in time"))
        }
    }
}

fn parse(text: &[u8]) -> Option<Environment> {
    let list = between_markers(text)?;
    let mut env = Environment::new();
    for entry in list.split(|&b| b == 0) {
        if let Ok(entry) = std::str::from_utf8(entry)
            && let Some((name, value)) = entry.split_once('=')
            && !name.is_empty()
        {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    (!env.is_empty()).then_some(env)
}

fn between_markers(text: &[u8]) -> Option<&[u8]> {
    let marker = MARKER.as_bytes();
    let find = |text: &[u8]| text.windows(marker.len()).position(|w| w == marker);
    let after = &text[find(text)? + marker.len()..];
    Some(&after[..find(after)?])
}

fn clean(mut env: Environment) -> Environment {
    env.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    env
}

/// `SHELL`, else what the user's entry in `/etc/passwd` says, else `/bin/sh`.
fn login_shell() -> PathBuf {
    std::env::var_os("SHELL")
        .filter(|shell| !shell.is_empty())
        .or_else(shell_of_passwd)
        .map_or_else(|| PathBuf::from("/bin/sh"), PathBuf::from)
}

fn shell_of_passwd() -> Option<OsString> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str()))
            .then(|| fields.get(6))
            .flatten()
            .filter(|shell| !shell.is_empty())
            .map(OsString::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shell");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    /// Long enough for a shell on a machine under load; a shell that answers is not waited for.
    const LONG: Duration = Duration::from_secs(60);
    /// For a shell that never answers, however long it is waited for.
    const SHORT: Duration = Duration::from_millis(250);

    #[test]
    fn garbage_around_the_variables_does_no_harm() {
        let (_dir, shell) = script(
            "#!/bin/sh\necho 'welcome! A=B'\nexport FROM_SHELL='two\nlines' \
             PWD=/x\nfor last; do :; done\neval \"$last\"\necho goodbye\n",
        );
        let world = ask_login_shell(&shell, LONG, LONG);
        assert_eq!(world.source, WorldSource::LoginShell(shell.clone()));
        assert_eq!(world.env["FROM_SHELL"], "two\nlines");
        assert!(!world.env.contains_key("PWD"));
    }

    #[test]
    fn a_shell_that_hangs_only_when_interactive_is_asked_again() {
        let (_dir, shell) = script(
            "#!/bin/sh\ncase \"$*\" in *-i*) sleep 600;; esac\n\
             export FROM_SHELL=plain\nfor last; do :; done\neval \"$last\"\n",
        );
        let world = ask_login_shell(&shell, SHORT, LONG);
        assert_eq!(world.env["FROM_SHELL"], "plain");
    }

    #[test]
    fn a_shell_that_hangs_fails_or_is_missing_is_replaced_by_the_own_environment() {
        let (_a, hangs) = script("#!/bin/sh\nsleep 600\n");
        let (_b, fails) = script("#!/bin/sh\nexit 3\n");
        for shell in [hangs, fails, PathBuf::from("/no/such/shell")] {
            let world = ask_login_shell(&shell, SHORT, 4 * SHORT);
            assert!(matches!(world.source, WorldSource::Own { .. }), "{world:?}");
            assert_eq!(world.env.get("PATH"), std::env::var("PATH").ok().as_ref());
        }
    }
}
