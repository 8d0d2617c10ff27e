//! The processes of a machine, found by what they were started with, and signals to them.

use std::path::Path;

use rustix::process::{Pid, Signal};

/// Every process whose environment has this variable, zombies left out.
pub(crate) fn with(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // Gone in between, and zombies: nothing to read.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|b| *b == 0);
        if variables.any(|variable| variable == wanted.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// The words that a process was started with.
pub(crate) fn words(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|b| *b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The executor of a `FLEET_HOME`; two where one has yet to end.
pub(crate) fn executors(home: &Path) -> Vec<u32> {
    let mut pids = with("FLEET_HOME", home.to_str().unwrap());
    pids.retain(|pid| words(*pid).get(1).is_some_and(|word| word == "executor"));
    pids
}

/// Whether a process is not there any more, or only waits to be reaped.
pub(crate) fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.is_empty() || state.trim_start().starts_with('Z')
}

/// The processes of all jobs on a machine.
pub(crate) fn jobs(machine: &str) -> Vec<u32> {
    let mut pids = with("FLEET_MACHINE", machine);
    // Only what has a job, too: the test's own commands may name a machine.
    let prefix = b"FLEET_FENCING_TOKEN=";
    pids.retain(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|b| *b == 0);
        variables.any(|variable| variable.starts_with(prefix))
    });
    pids
}

/// Sends a signal; one that is gone by now has nothing to hear.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Sends all of a machine's jobs a signal, again until no new ones come up.
pub(crate) fn signal_jobs(machine: &str, what: Signal) {
    let mut seen = Vec::new();
    loop {
        let mut new = jobs(machine);
        new.retain(|pid| !seen.contains(pid));
        if new.is_empty() {
            return;
        }
        for pid in &new {
            signal(*pid, what);
        }
        seen.extend(new);
    }
}
