//! Ends what a killed executor left running. Its jobs are no children of this process any more,
//! so they are looked for among all of the machine's, and nothing is touched that cannot be
//! shown to be theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_contract::ids::AttemptId;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::boot::BootTime;
use super::engine::Input;
use super::platform::{self, Process};
use super::record::{Begin, Started};

/// What is known of an attempt whose executor died.
pub(crate) struct Claim {
    attempt: AttemptId,
    not_before: BootTime,
    session: i32,
    leader: Option<(i32, BootTime)>,
    pipes: Vec<u64>,
}

impl Claim {
    pub(crate) fn of(begin: &Begin, started: Option<&Started>) -> Self {
        Self {
            attempt: begin.attempt,
            not_before: begin.not_before.minus(platform::start_resolution()),
            session: begin.session,
            leader: started.map(|s| (s.pid.cast_signed(), s.not_after)),
            pipes: started.map(|s| s.pipes.clone()).unwrap_or_default(),
        }
    }

    /// Whether this process can be shown to be the attempt's.
    fn covers(&self, process: &Process, all: &BTreeMap<i32, Process>) -> bool {
        if process.started < self.not_before {
            return false;
        }
        if self.leads(process) || self.in_group(process, all) {
            return true;
        }
        if platform::attempt_of(process.pid).is_some_and(|a| a == self.attempt.as_str()) {
            return true;
        }
        !self.pipes.is_empty()
            && platform::pipes_of(process.pid)
                .iter()
                .any(|p| self.pipes.contains(p))
    }

    /// The first process: its number, started while the executor waited for its start, in the
    /// executor's session.
    fn leads(&self, process: &Process) -> bool {
        self.leader.is_some_and(|(pid, not_after)| {
            process.pid == pid && process.started <= not_after && process.session == self.session
        })
    }

    /// A member of its group. If another process has the leader's number today, the group is
    /// that one's.
    fn in_group(&self, process: &Process, all: &BTreeMap<i32, Process>) -> bool {
        self.leader.is_some_and(|(pid, _)| {
            process.group == pid
                && process.session == self.session
                && all.get(&pid).is_none_or(|leader| self.leads(leader))
        })
    }
}

/// Ends the processes of these attempts, TERM first, and reports each attempt.
pub(crate) async fn end_leftovers(
    claims: Vec<Claim>,
    grace: Duration,
    give_up: Duration,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let mut open = claims;
    for (signals, limit) in [
        (&[Signal::TERM, Signal::CONT][..], grace),
        (&[Signal::KILL][..], give_up),
    ] {
        let until = tokio::time::Instant::now() + limit;
        loop {
            let found = report_gone(&mut open, &inputs);
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if found.is_empty() || left.is_zero() {
                break;
            }
            for process in &found {
                for &signal in signals {
                    if let Err(error) = platform::signal(process, signal) {
                        tracing::warn!(pid = process.pid, %error, "cannot signal a process an earlier executor left");
                    }
                }
            }
            // What they started meanwhile is found by the next look.
            platform::wait_until_gone(&found, left).await;
        }
    }
    for claim in open {
        let survivors = leftovers(std::slice::from_ref(&claim)).remove(&claim.attempt);
        let _ = inputs.send(Input::Recovered {
            attempt: claim.attempt,
            survivors: survivors
                .unwrap_or_default()
                .iter()
                .map(|p| p.pid.cast_unsigned())
                .collect(),
        });
    }
}

/// Reports the attempts that have no process any more; answers the processes of the others.
fn report_gone(open: &mut Vec<Claim>, inputs: &mpsc::UnboundedSender<Input>) -> Vec<Process> {
    let mut by_attempt = leftovers(open);
    let mut found = Vec::new();
    open.retain(|claim| match by_attempt.remove(&claim.attempt) {
        Some(processes) => {
            found.extend(processes);
            true
        }
        None => {
            let _ = inputs.send(Input::Recovered {
                attempt: claim.attempt,
                survivors: Vec::new(),
            });
            false
        }
    });
    found
}

fn leftovers(claims: &[Claim]) -> BTreeMap<AttemptId, Vec<Process>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let all: BTreeMap<i32, Process> = platform::processes()
        .into_iter()
        .filter(|p| !p.zombie && p.pid != own && p.pid != 1)
        .map(|p| (p.pid, p))
        .collect();
    let mut found: BTreeMap<AttemptId, Vec<Process>> = BTreeMap::new();
    for claim in claims {
        let roots: BTreeSet<i32> = all
            .values()
            .filter(|p| claim.covers(p, &all))
            .map(|p| p.pid)
            .collect();
        let mut processes = platform::with_descendants(roots);
        processes.retain(|p| p.pid != own);
        if !processes.is_empty() {
            found.insert(claim.attempt, processes);
        }
    }
    found
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::executor::boot_now;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    fn child(line: &str) -> (Child, BootTime, BootTime) {
        let before = boot_now();
        let child = Command::new("/bin/sh")
            .args(["-c", line])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        (child, before, boot_now())
    }

    fn claim(child: &Child, before: BootTime, after: BootTime) -> Claim {
        Claim {
            attempt: AttemptId::from_random([7; 10]),
            not_before: before.minus(platform::start_resolution()),
            session: platform::own_group_and_session().1,
            leader: Some((child.id().cast_signed(), after)),
            pipes: Vec::new(),
        }
    }

    fn found(claim: Claim) -> usize {
        leftovers(&[claim]).values().map(Vec::len).sum()
    }

    #[test]
    fn a_leftover_is_found_by_its_number_and_start_and_a_stranger_with_the_number_is_not() {
        let (mut child, before, after) = child("sleep 600 & wait");
        // Let it start its own child.
        let pid = child.id().cast_signed();
        while platform::with_descendants([pid]).len() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(found(claim(&child, before, after)), 2);
        // The number was given to this process only after the attempt's had started.
        let long_ago = before.minus(Duration::from_secs(60));
        assert_eq!(found(claim(&child, long_ago, long_ago)), 0);
        // Its group is another's, too, while the number is.
        let mut other = claim(&child, before, after);
        other.session = 1;
        assert_eq!(found(other), 0);
        // What is older than the attempt is not its.
        let soon = after.plus(Duration::from_secs(60));
        assert_eq!(found(claim(&child, soon, soon)), 0);
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn what_ignores_term_is_killed_and_reported_gone() {
        let (mut child, before, after) = child("trap '' TERM; echo; while :; do sleep 0.1; done");
        // The trap is set once it has spoken.
        let mut stdout = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
        let (sender, mut inputs) = mpsc::unbounded_channel();
        let claims = vec![claim(&child, before, after)];
        let grace = Duration::from_millis(100);
        end_leftovers(claims, grace, Duration::from_secs(20), sender).await;
        let Some(Input::Recovered { survivors, .. }) = inputs.recv().await else {
            panic!("not reported");
        };
        assert!(survivors.is_empty());
        let status = child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9));
    }
}
