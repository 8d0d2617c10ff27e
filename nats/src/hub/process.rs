//! Processes that are not our children: whether one is this home's nats-server, and ending it.
//! A stranger is never signalled: a process counts only while its command line names our
//! configuration file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::home::Home;

/// How long a server has to end by itself.
pub(crate) const TERM_WITHIN: Duration = Duration::from_secs(10);

/// How long one may still be there after SIGKILL: the disk may hold it.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// The server that this home's pid file names, if it runs and is really ours.
pub(crate) fn orphan(home: &Home) -> Option<u32> {
    let text = std::fs::read_to_string(home.server_pid()).ok()?;
    let pid = text.trim().parse().ok()?;
    is_our_server(pid, &home.server_config()).then_some(pid)
}

/// Whether this process runs now and has our configuration file among its arguments. A zombie has
/// no arguments and so is none.
pub(crate) fn is_our_server(pid: u32, config: &Path) -> bool {
    let config = config.as_os_str().as_encoded_bytes();
    arguments(pid).is_some_and(|line| {
        line.split(|b| *b == 0).any(|argument| argument == config)
            // `ps` joins arguments by blanks.
            || (!line.contains(&0) && line.ends_with(config))
    })
}

/// The command line: arguments ended by NUL (Linux), or joined by blanks (elsewhere).
fn arguments(pid: u32) -> Option<Vec<u8>> {
    if cfg!(target_os = "linux") {
        return std::fs::read(format!("/proc/{pid}/cmdline"))
            .ok()
            .filter(|line| !line.is_empty());
    }
    let output = Command::new("ps")
        .args(["-ww", "-o", "args=", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let line = output.stdout.trim_ascii_end().to_vec();
    (!line.is_empty()).then_some(line)
}

/// Ends a server that is not our child: SIGTERM, and SIGKILL for one that stays. Blocks. Says
/// whether it is gone.
pub(crate) fn end(pid: u32, config: &Path) -> bool {
    for (signal, within) in [(Signal::TERM, TERM_WITHIN), (Signal::KILL, KILL_WITHIN)] {
        if !is_our_server(pid, config) {
            return true;
        }
        send(pid, signal);
        if gone_within(within, || is_our_server(pid, config)) {
            return true;
        }
    }
    false
}

/// Waits until `alive` says no. There is no event for a process that is not a child on every
/// system fleet runs on, so this looks again after pauses that grow to 50 ms.
pub(crate) fn gone_within(within: Duration, mut alive: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    while alive() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    true
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process with these arguments that ends with the test.
    fn process_named(argument: &Path) -> std::process::Child {
        Command::new("sh")
            .args(["-c", "read -r _"])
            .arg(argument)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_stranger_is_not_taken_for_our_server() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        std::fs::create_dir(home.hub_dir()).unwrap();
        let mut ours = process_named(&home.server_config());
        let mut stranger = process_named(Path::new("/somewhere/else"));
        for (pid, expected) in [(stranger.id(), None), (ours.id(), Some(ours.id()))] {
            std::fs::write(home.server_pid(), format!("{pid}\n")).unwrap();
            // The name of a process is there once it has been executed.
            assert!(gone_within(Duration::from_secs(5), || {
                orphan(&home) != expected
            }));
        }
        for nonsense in ["", "x", "0", "-1", "99999999999"] {
            std::fs::write(home.server_pid(), nonsense).unwrap();
            assert_eq!(orphan(&home), None, "{nonsense:?}");
        }
        drop(ours.stdin.take());
        ours.wait().unwrap();
        drop(stranger.stdin.take());
        assert!(stranger.wait().is_ok());
    }
}
