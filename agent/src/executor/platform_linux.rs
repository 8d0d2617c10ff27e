//! What the executor asks of Linux: who its descendants are, ending them without hitting a
//! stranger, and a timer on the suspend-inclusive clock.
//!
//! The executor is a child subreaper. So every process a job leaves behind, daemons that forked
//! twice and called setsid included, becomes a direct child of the executor the moment its own
//! parent is gone: if the executor's list of children holds nothing but the leaders of jobs,
//! nothing is left over anywhere.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::boot::BootTime;

/// How often an ending job must be looked at without an event: never, the last process of a job
/// to go is always a child of this process, and its SIGCHLD is the event.
pub(crate) const LOOK_EVERY: Option<Duration> = None;

/// Whether the leader stays unreaped until its whole group is gone, so that the group's number
/// cannot become a stranger's.
pub(crate) const PIN_LEADER: bool = true;

/// Nanoseconds since boot, sleep included.
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Makes orphans among this process's descendants its children.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Smallest difference of two start times in `/proc`: one clock tick.
pub(crate) fn start_resolution() -> Duration {
    Duration::from_nanos(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Rounded down to [`start_resolution`].
    pub(crate) started: BootTime,
    pub(crate) zombie: bool,
}

/// What is known of a process; none if it is gone.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Process group and session of this process.
///
/// Zero where the group or session was begun outside the PID namespace, as by a container that is
/// entered from its host. `rustix` takes a zero here for impossible, so `/proc` is asked.
pub(crate) fn own_group_and_session() -> (i32, i32) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    process(own).map_or((0, 0), |p| (p.group, p.session))
}

/// The name in parentheses can hold any byte, so everything is counted from its last one.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let close = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    let nanos = u128::from(ticks) * 1_000_000_000
        / u128::from(rustix::param::clock_ticks_per_second().max(1));
    Some(Process {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        started: BootTime(u64::try_from(nanos).unwrap_or(u64::MAX)),
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
    })
}

/// The children of this process, zombies included.
///
/// The kernel keeps them by thread: those that the calling thread started, and orphans, which it
/// gives to the first thread that lives, the main one. It promises a complete list only while no
/// child is removed from it. Children of this process are removed only when it reaps them, which
/// it does on the thread that also calls this: so here the list is complete.
pub(crate) fn own_children() -> io::Result<Vec<i32>> {
    let number = |pid: Pid| pid.as_raw_nonzero().get();
    let main = number(rustix::process::getpid());
    let own = number(rustix::thread::gettid());
    let read = |thread: i32| fs::read(format!("/proc/self/task/{thread}/children"));
    let lists = match read(main) {
        Ok(list) if own == main => vec![list],
        Ok(list) => vec![list, read(own)?],
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let all = processes().into_iter();
            return Ok(all.filter(|p| p.parent == main).map(|p| p.pid).collect());
        }
        Err(e) => return Err(e),
    };
    Ok(lists.iter().flat_map(|list| pids(list)).collect())
}

/// The numbers in a `children` file.
fn pids(list: &[u8]) -> impl Iterator<Item = i32> {
    let texts = list.split(u8::is_ascii_whitespace);
    texts.filter_map(|text| std::str::from_utf8(text).ok()?.parse().ok())
}

/// The children of any process; empty if it is gone.
fn children_of(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read(task.path().join("children")).ok());
    lists
        .flat_map(|list| pids(&list).collect::<Vec<_>>())
        .collect()
}

/// These processes and everything below them, zombies left out.
pub(crate) fn with_descendants(roots: impl IntoIterator<Item = i32>) -> Vec<Process> {
    let mut found = Vec::new();
    let mut open: Vec<i32> = roots.into_iter().collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(pid) = open.pop() {
        if !seen.insert(pid) {
            continue;
        }
        open.extend(children_of(pid));
        found.extend(process(pid).filter(|p| !p.zombie));
    }
    found
}

/// Every process of the machine that can be seen.
pub(crate) fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(process)
        .collect()
}

/// The value of `FLEET_ATTEMPT` in the environment this process was started with.
pub(crate) fn attempt_of(pid: i32) -> Option<String> {
    let read = || fs::read(format!("/proc/{pid}/environ")).ok();
    let mut environ = read()?;
    if environ.is_empty() {
        // Either it has none, or it is just now becoming another program.
        std::thread::sleep(Duration::from_micros(200));
        environ = read()?;
    }
    environ
        .split(|&b| b == 0)
        .find_map(|entry| entry.strip_prefix(b"FLEET_ATTEMPT="))
        .and_then(|value| String::from_utf8(value.to_vec()).ok())
}

/// The numbers of the pipes this process holds.
pub(crate) fn pipes_of(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = target.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?;
            number.parse().ok()
        })
        .collect()
}

/// Sends a signal to exactly the process that was seen: the descriptor is opened first, then the
/// start time is compared, so a number that became another's is left alone.
///
/// # Errors
/// The kernel's refusal (`EPERM` for a program of another user). A process that is gone is no
/// error.
pub(crate) fn signal(seen: &Process, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(seen.pid) else {
        return Ok(());
    };
    let gone = |e: rustix::io::Errno| e == rustix::io::Errno::SRCH;
    let descriptor = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(e) if gone(e) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if process(seen.pid).is_none_or(|now| now.started != seen.started) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&descriptor, signal) {
        Err(e) if !gone(e) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Waits until none of these processes runs any more, or the time is over.
pub(crate) async fn wait_until_gone(seen: &[Process], limit: Duration) {
    let mut open = Vec::new();
    for process_seen in seen {
        let Some(pid) = Pid::from_raw(process_seen.pid) else {
            continue;
        };
        if let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
            && process(process_seen.pid).is_some_and(|now| now.started == process_seen.started)
            && let Ok(descriptor) = watch(descriptor)
        {
            open.push(descriptor);
        }
    }
    let all = async {
        for descriptor in &open {
            // Readable once the process has ended.
            let _ = descriptor.readable().await;
        }
    };
    let _ = tokio::time::timeout(limit, all).await;
}

/// Lets the runtime wait until it is readable.
#[allow(
    deprecated,
    reason = "its safe successor does not exist; what makes it unsound, a descriptor that \
              changes hands, cannot happen to an OwnedFd"
)]
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// A timer that also counts while the machine sleeps and fires when it wakes.
pub(crate) struct BootTimer {
    descriptor: AsyncFd<OwnedFd>,
    armed: Option<BootTime>,
}

impl BootTimer {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self {
            descriptor: watch(descriptor)?,
            armed: None,
        })
    }

    /// Waits until `at` has come; for ever without one.
    pub(crate) async fn until(&mut self, at: Option<BootTime>) {
        if self.armed != at {
            self.arm(at);
        }
        if at.is_none() {
            return std::future::pending().await;
        }
        if let Ok(mut ready) = self.descriptor.readable().await {
            ready.clear_ready();
        }
        // Whoever waits asks the clock and arms anew.
        self.armed = None;
    }

    fn arm(&mut self, at: Option<BootTime>) {
        // An absolute time of zero would switch the timer off.
        let nanos = at.map_or(0, |at| at.0.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        let armed = timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::ABSTIME, &spec);
        self.armed = if armed.is_ok() { at } else { None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::boot_now;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = b"77 (a) b) (c) S 5 6 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 0 0";
        let p = parse_stat(77, line).unwrap();
        assert_eq!((p.parent, p.group, p.session, p.zombie), (5, 6, 7, false));
        let tick = start_resolution().as_nanos();
        assert_eq!(u128::from(p.started.0), 1234 * tick);
        assert!(parse_stat(1, b"1 (x").is_none());
    }

    #[test]
    fn this_process_is_seen() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let p = process(own).unwrap();
        assert!(!p.zombie && p.started <= boot_now());
        assert!(processes().iter().any(|q| q.pid == own));
    }

    #[tokio::test]
    async fn the_boot_timer_fires_and_can_be_moved() {
        let mut timer = BootTimer::new().unwrap();
        let far = boot_now().plus(Duration::from_secs(3600));
        let early = tokio::time::timeout(Duration::from_millis(20), timer.until(Some(far))).await;
        assert!(early.is_err());
        let at = boot_now().plus(Duration::from_millis(20));
        timer.until(Some(at)).await;
        assert!(boot_now() >= at);
        // A time that has passed fires at once.
        timer.until(Some(BootTime(0))).await;
    }
}
