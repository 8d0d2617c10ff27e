//! New credentials for an agent that runs: taken into its `FLEET_HOME` by `fleet agent credentials`,
//! and gone on with as soon as its link is not there. Then the hub may be at another address.
//!
//! The client library cannot be sent to another server while it has none, so the agent begins anew
//! in the same process. Its executor keeps what runs, as over any crash of an agent.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fleet_agent::agent::read_status;
use fleet_contract::ids::MachineId;
use fleet_nats::home::Home;
use fleet_nats::hub::Credentials;

use crate::failure::Failure;

/// How often it is looked whether there are new ones.
const LOOK: Duration = Duration::from_secs(3);

/// Waits until other credentials than `known` lie there for this machine and its agent has no link;
/// the new ones.
pub(crate) async fn awaited(home: &Home, machine: &MachineId, known: &Credentials) -> Credentials {
    let path = home.machine_credentials(machine);
    let mut seen = modified(&path);
    let mut renewed: Option<Credentials> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = modified(&path);
        if now != seen {
            seen = now;
            // What cannot be read is left alone: somebody may still be writing it.
            let read = Credentials::load(&path).ok();
            renewed = read
                .filter(|new| new.expect_machine(machine).is_ok())
                .filter(|new| new.to_text() != known.to_text());
        }
        if let Some(new) = &renewed
            && read_status(home).is_ok_and(|status| !status.connected)
        {
            return new.clone();
        }
    }
}

fn modified(path: &std::path::Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// Begins anew in this very process, with what was typed but for the credentials that were named.
///
/// # Errors
/// Where the program cannot be run again.
pub(crate) fn begin_anew() -> Result<Infallible, Failure> {
    let failed = |error: std::io::Error| {
        Failure::internal(format!("cannot go on with the new credentials: {error}"))
            .next("fleet agent run")
    };
    let program = replaced(std::env::current_exe().map_err(failed)?);
    let words = without_credentials(std::env::args_os().skip(1));
    Err(failed(Command::new(program).args(words).exec()))
}

/// Where the program lies now: that of a file that was replaced since is told with a remark behind it.
fn replaced(program: PathBuf) -> PathBuf {
    let text = program.as_os_str().as_bytes();
    match text.strip_suffix(b" (deleted)") {
        Some(path) if !program.exists() => PathBuf::from(OsStr::from_bytes(path)),
        _ => program,
    }
}

fn without_credentials(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--credentials" {
            words.next();
        } else if !text.starts_with("--credentials=") {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_run_from_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("fleet");
        let remarked = dir.path().join("fleet (deleted)");
        assert_eq!(replaced(program.clone()), program);
        assert_eq!(replaced(remarked.clone()), program);
        std::fs::write(&remarked, "").unwrap();
        assert_eq!(replaced(remarked.clone()), remarked, "its own name");
    }

    #[test]
    fn what_was_typed_is_typed_again_without_the_old_credentials() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (typed, again) in [
            (
                "--json agent run --credentials a.creds --slots 2",
                "--json agent run --slots 2",
            ),
            ("agent run --credentials=a.creds", "agent run"),
            (
                "agent run --label a=--credentials",
                "agent run --label a=--credentials",
            ),
        ] {
            assert_eq!(without_credentials(words(typed).into_iter()), words(again));
        }
    }
}
