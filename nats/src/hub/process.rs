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

/// Waits for the server that this home's pid file names, should it be on its way out: killed a
/// moment ago, it is nobody's any more, but holds its ports still.
pub(crate) fn until_ended(home: &Home) {
    let text = std::fs::read_to_string(home.server_pid()).unwrap_or_default();
    if let Ok(pid) = text.trim().parse() {
        gone_within(KILL_WITHIN, || is_ending(pid));
    }
}

/// Whether this process runs now and has our configuration file among its arguments. One that ends
/// has no arguments any more and so is none.
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

/// Whether this process is our server, or was it and has not given back yet all that it held.
pub(crate) fn is_there(pid: u32, config: &Path) -> bool {
    is_our_server(pid, config) || is_ending(pid)
}

/// Whether this process is about to end: it has given up its memory, and with that its arguments,
/// but its files and ports perhaps not. A zombie, of which all threads have ended, is done with it.
fn is_ending(pid: u32) -> bool {
    cfg!(target_os = "linux")
        && std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| says_ending(&stat))
}

/// What Linux says of a process that ends, in `/proc/PID/stat`.
fn says_ending(stat: &str) -> bool {
    const EXITING: u64 = 0x4;
    // The name, in parentheses, may have anything in it.
    let (_, after) = stat.rsplit_once(')').unwrap_or_default();
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let mut number = |skipped: usize| fields.nth(skipped).and_then(|f| f.parse::<u64>().ok());
    // The 9th and the 20th of all fields; the state is the 3rd.
    let (flags, threads) = (number(5).unwrap_or(0), number(10).unwrap_or(0));
    let over = matches!(state, "Z" | "X") && threads <= 1;
    flags & EXITING != 0 && !over
}

/// Ends a server that is not our child: SIGTERM, and SIGKILL for one that stays. Blocks. Says
/// whether it is gone, and all that it held with it.
pub(crate) fn end(pid: u32, config: &Path) -> bool {
    for (signal, within) in [(Signal::TERM, TERM_WITHIN), (Signal::KILL, KILL_WITHIN)] {
        if is_our_server(pid, config) {
            send(pid, signal);
        }
        if gone_within(within, || is_there(pid, config)) {
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
    fn a_server_that_was_killed_is_there_until_its_last_thread_has_ended() {
        let of = |name: &str, state: &str, flags: u64, threads: u64| {
            let between = "0 0 0 0 0 0 0 0 20 0";
            says_ending(&format!(
                "7 ({name}) {state} 1 7 7 0 -1 {flags} {between} {threads} 0 1\n"
            ))
        };
        assert!(!of("nats-server", "S", 0x400_140, 9), "it runs");
        assert!(of("nats-server", "R", 0x400_144, 9), "it ends");
        assert!(of("a ) b", "Z", 0x400_14c, 2), "a thread of it still does");
        assert!(!of("nats-server", "Z", 0x400_14c, 1), "nobody reaps it");
        assert!(!says_ending(""));
        let me = std::process::id();
        assert!(!is_ending(me) && !is_ending(u32::MAX >> 1));
        // As this system writes it, of a process that has ended.
        let mut ended = Command::new("true").spawn().unwrap();
        let gone = || is_ending(ended.id()) || arguments(ended.id()).is_some();
        assert!(gone_within(Duration::from_secs(30), gone));
        ended.wait().unwrap();
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
            assert!(gone_within(Duration::from_secs(30), || {
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
