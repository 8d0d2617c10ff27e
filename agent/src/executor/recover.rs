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
