//! What the executor asks of macOS. Untried: written without a Mac at hand.
//!
//! macOS has neither subreapers nor a list of a process's children that a program without
//! privileges could trust. A job's end covers its process group only; a daemon that called
//! setsid is not found.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::ClockId;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use super::boot::{BootTime, boot_now};

/// A group that lost its leader sends no event to anyone.
pub(crate) const LOOK_EVERY: Option<Duration> = Some(Duration::from_millis(20));

/// A group that holds only a zombie answers `EPERM` here, which cannot be told from a refusal.
pub(crate) const PIN_LEADER: bool = false;

/// Nanoseconds since boot, sleep included (`CLOCK_MONOTONIC` counts it on macOS).
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Names this boot of the machine: the second it booted.
pub(crate) fn boot_id() -> String {
    System::boot_time().to_string()
}

/// There is no such thing.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(())
}

/// Start times come in whole seconds.
pub(crate) fn start_resolution() -> Duration {
    Duration::from_secs(2)
}

/// A process as the system shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) started: BootTime,
    pub(crate) zombie: bool,
}

/// What is known of a process; none if it is gone.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let wanted = sysinfo::Pid::from_u32(u32::try_from(pid).ok()?);
    let mut system = System::new();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[wanted]),
        true,
        ProcessRefreshKind::nothing(),
    );
    let seen = system.process(wanted)?;
    let raw = rustix::process::Pid::from_raw(pid)?;
    let number = |p: rustix::process::Pid| p.as_raw_nonzero().get();
    let since_boot = seen.start_time().saturating_sub(System::boot_time());
    Some(Process {
        pid,
        parent: seen.parent().map_or(0, |p| p.as_u32().cast_signed()),
        group: rustix::process::getpgid(Some(raw)).map_or(0, number),
        session: rustix::process::getsid(Some(raw)).map_or(0, number),
        started: BootTime(since_boot.saturating_mul(1_000_000_000)),
        zombie: seen.status() == sysinfo::ProcessStatus::Zombie,
    })
}

/// Process group and session of this process.
pub(crate) fn own_group_and_session() -> (i32, i32) {
    let number = |p: rustix::process::Pid| p.as_raw_nonzero().get();
    (
        number(rustix::process::getpgrp()),
        rustix::process::getsid(None).map_or(0, number),
    )
}

/// Not known.
pub(crate) fn own_children() -> io::Result<Vec<i32>> {
    Ok(Vec::new())
}

/// These processes alone.
pub(crate) fn with_descendants(roots: impl IntoIterator<Item = i32>) -> Vec<Process> {
    roots
        .into_iter()
        .filter_map(process)
        .filter(|p| !p.zombie)
        .collect()
}

/// Every process of the machine that can be seen.
pub(crate) fn processes() -> Vec<Process> {
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing());
    system
        .processes()
        .keys()
        .filter_map(|pid| process(pid.as_u32().cast_signed()))
        .collect()
}

/// Not readable without a call that only unsafe code can make.
pub(crate) fn attempt_of(_pid: i32) -> Option<String> {
    None
}

/// Not known.
pub(crate) fn pipes_of(_pid: i32) -> Vec<u64> {
    Vec::new()
}

/// Sends a signal to the process that was seen.
///
/// # Errors
/// The kernel's refusal. A process that is gone is no error.
pub(crate) fn signal(seen: &Process, signal: Signal) -> io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(seen.pid) else {
        return Ok(());
    };
    if process(seen.pid).is_none_or(|now| now.started != seen.started) {
        return Ok(());
    }
    match rustix::process::kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until none of these processes runs any more, or the time is over.
pub(crate) async fn wait_until_gone(seen: &[Process], limit: Duration) {
    let gone = async {
        while seen
            .iter()
            .any(|p| process(p.pid).is_some_and(|now| now.started == p.started && !now.zombie))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(limit, gone).await;
}

/// A timer on the clock that counts sleep. Tokio's own does not, so the clock is asked again
/// every few seconds while a deadline is set.
pub(crate) struct BootTimer;

impl BootTimer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits until `at` has come; for ever without one.
    pub(crate) async fn until(&mut self, at: Option<BootTime>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        loop {
            let left = at.since(boot_now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(2))).await;
        }
    }
}
