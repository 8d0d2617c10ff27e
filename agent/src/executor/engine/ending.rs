//! How attempts end: who is left of a job, what is sent to them, and when it is over.

use std::collections::HashMap;
use std::time::SystemTime;

use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::Outcome;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::time::Instant;

use super::super::boot::BootTime;
use super::super::orphans::Candidate;
use super::super::platform;
use super::{Attempt, Engine, GIVE_UP, Phase, Running, Stage};

impl Engine {
    /// A child changed: reaps what can be, and goes on with what ends.
    pub(crate) fn look(&mut self) {
        let waiting: Vec<AttemptId> = self.running().map(|(id, _)| id).collect();
        for id in &waiting {
            self.look_at_leader(*id);
        }
        self.look_at_orphans();
        for id in waiting {
            self.go_on(id);
        }
        self.end_strays();
    }

    /// Notes the end of a first process, leaving it unreaped where that keeps its number taken.
    fn look_at_leader(&mut self, id: AttemptId) {
        let Some(running) = self.running_mut(id) else {
            return;
        };
        if running.exit.is_some() {
            return;
        }
        let mut options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if platform::PIN_LEADER {
            options |= WaitIdOptions::NOWAIT;
        }
        let Some(pid) = Pid::from_raw(running.leader) else {
            return;
        };
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Ok(Some(status)) => running.exit = Some(outcome_of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                running.exit = Some(Outcome::Unknown {
                    reason: format!("its end could not be read: {error}"),
                });
            }
        }
    }

    /// Reaps orphans that ended and finds out whose the new ones are.
    fn look_at_orphans(&mut self) {
        let children = match platform::own_children() {
            Ok(children) => children,
            Err(error) => {
                tracing::error!(%error, "cannot list child processes");
                return;
            }
        };
        self.orphans.retain(&children);
        let spare = self.options.within_program.then_some(self.own_group);
        for pid in children {
            if self.leaders.contains_key(&pid) {
                continue;
            }
            // Without strangers a zombie need not be looked at.
            if spare.is_none() && reap(pid) {
                self.orphans.reaped(pid);
                continue;
            }
            if !self.orphans.knows(pid) {
                let candidates = self.candidates();
                self.orphans.adopt(pid, &candidates, spare);
            }
            if spare.is_some() && !self.orphans.is_stranger(pid) && reap(pid) {
                self.orphans.reaped(pid);
            }
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (attempt, running) in self.running() {
            let Some(known) = self.attempts.get(&attempt) else {
                continue;
            };
            if matches!(running.stage, Stage::Draining { .. }) {
                continue;
            }
            found.push(Candidate {
                attempt,
                leader: running.leader,
                not_before: known.begin.not_before,
                pipes: known
                    .started
                    .as_ref()
                    .map(|s| s.pipes.clone())
                    .unwrap_or_default(),
            });
        }
        found
    }

    /// Takes the next step of an attempt that is ending, if it is time for it.
    fn go_on(&mut self, id: AttemptId) {
        if self.running_mut(id).is_some_and(|r| r.exit.is_some()) {
            // Only now: the last look may have found orphans the first process left.
            let present = |id| is_present(&self.attempts, id);
            self.orphans.leave_to_others(id, present);
        }
        let left = self.orphans.of(id);
        let Some(running) = self.running_mut(id) else {
            return;
        };
        let gone = running.exit.is_some() && left.is_empty() && running.group_is_gone();
        match running.stage {
            Stage::Runs if running.exit.is_none() => {}
            Stage::Draining { .. } => {}
            _ if gone => self.gone(id, Vec::new()),
            Stage::Runs => self.terminate(id),
            Stage::Terminating { .. } => {}
            // Something was forked between the last look and the signal.
            Stage::Killing { .. } => self.signal_all(id, &[Signal::KILL]),
        }
    }

    pub(super) fn end_because(&mut self, id: AttemptId, cause: Outcome) {
        // It may have ended by itself a moment ago.
        self.look_at_leader(id);
        let Some(running) = self.running_mut(id) else {
            return;
        };
        if matches!(running.stage, Stage::Runs) && running.exit.is_none() {
            running.cause = Some(cause);
            self.terminate(id);
        } else {
            self.look_at_orphans();
            self.go_on(id);
        }
    }

    fn terminate(&mut self, id: AttemptId) {
        let kill_at = Instant::now() + self.options.grace;
        if let Some(running) = self.running_mut(id) {
            running.stage = Stage::Terminating { kill_at };
        }
        // A stopped process hears TERM only once it goes on.
        self.signal_all(id, &[Signal::TERM, Signal::CONT]);
    }

    fn kill_now(&mut self, id: AttemptId) {
        let give_up_at = Instant::now() + GIVE_UP;
        if let Some(running) = self.running_mut(id) {
            running.stage = Stage::Killing { give_up_at };
        }
        self.signal_all(id, &[Signal::KILL]);
    }

    /// Signals the group, and every descendant outside of it.
    fn signal_all(&mut self, id: AttemptId, signals: &[Signal]) {
        let orphans = self.orphans.of(id);
        let Some(running) = self.running_mut(id) else {
            return;
        };
        let leader = running.leader;
        let alone = platform::with_descendants(orphans.into_iter().chain([leader]));
        for &signal in signals {
            // The leader's number is taken as long as it is not reaped.
            if let Some(group) = Pid::from_raw(leader) {
                let _ = rustix::process::kill_process_group(group, signal);
            }
            for process in alone.iter().filter(|p| p.group != leader) {
                if let Err(error) = platform::signal(process, signal) {
                    tracing::warn!(attempt = %id, pid = process.pid, %error, "cannot signal a process");
                }
            }
        }
    }

    /// Every process is gone, or cannot be ended: read the rest of the output.
    fn gone(&mut self, id: AttemptId, survivors: Vec<u32>) {
        let Some(running) = self.running_mut(id) else {
            return;
        };
        // Reaps the leader at once where it was kept; where it does not end, it must not wait.
        let _ = running.child.try_wait();
        let leader = running.leader;
        running.stage = Stage::Draining { survivors };
        let _ = running.pump.finish.send(true);
        self.leaders.remove(&leader);
    }

    /// Children that belong to no attempt any more: survivors that can be ended now.
    fn end_strays(&mut self) {
        let present = |id| is_present(&self.attempts, id);
        for pid in self.orphans.of_nobody(present) {
            for process in platform::with_descendants([pid]) {
                let _ = platform::signal(&process, Signal::KILL);
            }
        }
    }

    /// Time passed: time-outs, and the next step of what ends.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.room.expire(SystemTime::now());
        self.outbox.kept(self.room.kept(), true);
        let due: Vec<AttemptId> = self
            .running()
            .filter(|(_, r)| r.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| id)
            .collect();
        for id in due {
            let Some(running) = self.running_mut(id) else {
                continue;
            };
            match running.stage {
                Stage::Runs => {
                    running.timeout_at = None;
                    self.end_because(id, Outcome::TimedOut);
                }
                Stage::Terminating { kill_at } if kill_at <= now => {
                    self.look_at_orphans();
                    self.kill_now(id);
                }
                Stage::Killing { give_up_at } if give_up_at <= now => {
                    let survivors = self.survivors(id);
                    self.gone(id, survivors);
                }
                Stage::Terminating { .. } | Stage::Killing { .. } => {
                    self.look_at_leader(id);
                    self.go_on(id);
                }
                Stage::Draining { .. } => {}
            }
        }
    }

    fn survivors(&self, id: AttemptId) -> Vec<u32> {
        let leader = self
            .running()
            .find(|(running, _)| *running == id)
            .map(|(_, r)| r.leader);
        platform::with_descendants(self.orphans.of(id).into_iter().chain(leader))
            .iter()
            .map(|p| p.pid.cast_unsigned())
            .collect()
    }

    /// The suspend-inclusive clock reached a fence.
    pub(crate) fn fence(&mut self, now: BootTime) {
        let due: Vec<(AttemptId, BootTime)> = self
            .running()
            .filter_map(|(id, _)| Some((id, self.attempts.get(&id)?.fence_at?)))
            .filter(|(_, at)| *at <= now)
            .collect();
        for (id, at) in due {
            self.end_because(id, Outcome::Fenced);
            let late = at.plus(self.options.grace) <= now;
            // The machine slept over it: no grace is left.
            if late
                && self
                    .running_mut(id)
                    .is_some_and(|r| matches!(r.stage, Stage::Terminating { .. }))
            {
                self.kill_now(id);
            }
        }
    }
}

impl Running {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = || platform::LOOK_EVERY.map(|every| Instant::now() + every);
        match self.stage {
            Stage::Runs => self.timeout_at.filter(|_| self.exit.is_none()),
            Stage::Terminating { kill_at } => Some(look().map_or(kill_at, |l| l.min(kill_at))),
            Stage::Killing { give_up_at } => Some(look().map_or(give_up_at, |l| l.min(give_up_at))),
            Stage::Draining { .. } => None,
        }
    }

    /// Where descendants cannot be listed the group is all there is to ask.
    fn group_is_gone(&self) -> bool {
        platform::PIN_LEADER
            || Pid::from_raw(self.leader).is_none_or(|group| {
                rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH)
            })
    }
}

/// Whether processes may belong to this attempt.
fn is_present(attempts: &HashMap<AttemptId, Attempt>, id: AttemptId) -> bool {
    attempts.get(&id).is_some_and(|a| match &a.phase {
        Phase::Running(r) => !matches!(r.stage, Stage::Draining { .. }),
        Phase::Recovering | Phase::Ended(_) => false,
    })
}

fn outcome_of(status: &rustix::process::WaitIdStatus) -> Outcome {
    if let Some(signal) = status.terminating_signal() {
        return Outcome::Signaled {
            signal: u8::try_from(signal).unwrap_or(0),
        };
    }
    Outcome::Exited {
        exit_code: u8::try_from(status.exit_status().unwrap_or(0) & 0xff).unwrap_or(0),
    }
}

/// Reaps a child if it has ended.
fn reap(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Pid::from_raw(pid).is_some_and(|pid| {
        matches!(
            rustix::process::waitid(WaitId::Pid(pid), options),
            Ok(Some(_)) | Err(rustix::io::Errno::CHILD)
        )
    })
}
