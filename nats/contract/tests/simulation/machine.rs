//! A machine and its executor as models: what outlives the agent, and what sleeps, crashes and
//! starts anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::attempt::{Attempt, Gone};
use fleet_contract::ids::{AttemptId, InstanceId, JobId, MachineId};
use fleet_contract::lease::{BootTime, Mark};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::spec::{JobSpec, KILL_GRACE, OnLost};
use fleet_contract::time::Time;

use super::agent::{Agent, AgentEvent};
use super::bus::{Micros, SECOND};
use super::clock::Clock;
use super::mutant::Mutant;
use super::network::Node;
use super::rng::Rng;
use super::spool::Spool;
use super::world::{Event, World};

/// From the first signal to a verified end, by the machine's own clock.
const ENDS_WITHIN: Micros = 8 * SECOND;

#[derive(Debug)]
pub enum ExecEvent {
    Ends(AttemptId),
    Dies(AttemptId),
    Fence,
}

impl ExecEvent {
    /// Whether it waits by a clock that stops in sleep. The fence does not.
    pub fn is_timer(&self) -> bool {
        !matches!(self, Self::Fence)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum ProcState {
    /// An earlier attempt of the job has to be gone first.
    Waiting,
    Running,
    Ending(Outcome),
    Gone(Gone),
}

#[derive(Debug, Clone)]
pub struct Proc {
    pub job: JobId,
    pub token: u64,
    pub no: u32,
    pub spec: Arc<JobSpec>,
    pub state: ProcState,
    started: Time,
    planned: Outcome,
    /// Its machine slept while it ran.
    pub slept: bool,
}

impl Proc {
    pub fn lives(&self) -> bool {
        matches!(self.state, ProcState::Running | ProcState::Ending(_))
    }
}

pub struct Machine {
    pub id: MachineId,
    pub instance: InstanceId,
    pub clock: Clock,
    pub up: bool,
    pub boot: u64,
    pub run: u64,
    pub agent: Option<Agent>,
    /// What the executor keeps: it outlives the agent.
    pub procs: BTreeMap<AttemptId, Proc>,
    /// When the executor ends what another machine may take over.
    pub fence_at: BootTime,
    /// The highest of the journal that it has seen, as it is on its disk.
    pub seen: Mark,
    pub spool: Spool,
    /// What it sends is lost.
    pub cut_out: bool,
    /// What is sent to it is lost.
    pub cut_in: bool,
    /// The server that its connection leads to.
    pub server: u64,
    pub frozen_until: Micros,
    pub agent_frozen_until: Micros,
    /// It falls asleep at its next renewal, before that is answered.
    pub is_tired: bool,
    /// For how long it has slept in all.
    pub slept: Micros,
    /// When it last woke, or will wake.
    pub woken_at: Micros,
    /// Since when nothing has disturbed it.
    pub well_since: Micros,
}

impl Machine {
    pub fn new(n: usize, slews: bool, rng: &mut Rng) -> Self {
        Self {
            id: format!("m{n}").parse().unwrap(),
            instance: InstanceId::from_random(rng.bits()),
            clock: Clock::new(rng, slews),
            up: true,
            boot: 0,
            run: 0,
            agent: None,
            procs: BTreeMap::new(),
            fence_at: BootTime(0),
            seen: Mark::default(),
            spool: Spool::default(),
            cut_out: false,
            cut_in: false,
            server: 0,
            frozen_until: 0,
            agent_frozen_until: 0,
            is_tired: false,
            slept: 0,
            woken_at: 0,
            well_since: 0,
        }
    }

    pub fn run(&self) -> u64 {
        self.run
    }

    /// Whether it has an attempt of the job, and will report it.
    pub fn knows(&self, job: JobId) -> bool {
        let slots = self.agent.iter().flat_map(|agent| agent.attempts.values());
        self.procs.values().any(|p| p.job == job) || { slots }.any(|s| s.attempt.job == job)
    }

    pub fn unsettled(&self) -> Option<String> {
        if let Some((attempt, proc)) = self.procs.first_key_value() {
            let (id, job) = (&self.id, proc.job);
            return Some(format!(
                "{id} still knows attempt {attempt} of {job}: {:?}",
                proc.state
            ));
        }
        if let Some(why) = self.spool.unsettled() {
            return Some(format!("{} {why}", self.id));
        }
        let slot = self.agent.as_ref()?.attempts.values().next()?;
        Some(format!("{} still has {:?}", self.id, slot.attempt))
    }
}

impl World {
    pub fn node(&self, m: usize) -> Node {
        Node::Agent(m, self.machines[m].run)
    }

    pub fn exec_at(&mut self, m: usize, after: Micros, event: ExecEvent) {
        let (boot, slept) = (self.machines[m].boot, self.machines[m].slept);
        self.at(self.now + after, Event::Exec(m, boot, event, slept));
    }

    pub fn disturb(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        machine.well_since = machine.well_since.max(self.now);
    }

    // What happens to a machine.

    pub fn crash_machine(&mut self, m: usize) -> bool {
        if !self.machines[m].up {
            return false;
        }
        self.crash_agent(m);
        let lost = self.rng.chance(20);
        let now = self.wall(m);
        let machine = &mut self.machines[m];
        machine.up = false;
        machine.boot += 1;
        machine.frozen_until = 0;
        if lost {
            // Written, but not yet on the disk.
            machine
                .procs
                .retain(|_, p| matches!(p.state, ProcState::Gone(_)));
        }
        for proc in machine.procs.values_mut() {
            if !matches!(proc.state, ProcState::Gone(_)) {
                proc.state = ProcState::Gone(Gone {
                    outcome: Outcome::Unknown {
                        reason: "the machine went down".to_owned(),
                    },
                    output: OutputCount::default(),
                    started_at: proc.started,
                    ended_at: now,
                });
            }
        }
        if lost {
            self.hit("executor's record lost");
        }
        true
    }

    pub fn start_machine(&mut self, m: usize) {
        let now = self.now;
        let machine = &mut self.machines[m];
        if !std::mem::replace(&mut machine.up, true) {
            machine.clock.reboot(now);
            machine.fence_at = BootTime(0);
        }
        self.start_agent(m);
    }

    /// The machine is suspended, or its agent alone is stopped.
    pub fn freeze(&mut self, m: usize, agent_only: bool) -> bool {
        let span = self.rng.range(SECOND, 150 * SECOND);
        let span = span.min(self.calm_at.saturating_sub(self.now));
        let until = self.now + span;
        let machine = &mut self.machines[m];
        if !machine.up || machine.frozen_until > self.now || machine.agent_frozen_until > self.now {
            return false;
        }
        machine.well_since = until;
        if agent_only {
            machine.agent_frozen_until = until;
            return true;
        }
        (machine.frozen_until, machine.woken_at) = (until, until);
        machine.slept += span;
        for proc in machine.procs.values_mut() {
            proc.slept |= proc.lives();
        }
        // What slept is ended when it wakes, by then.
        let gone = machine.clock.lasts(ENDS_WITHIN) + SECOND;
        self.at(until + gone, Event::Woken(m));
        true
    }

    /// Long enough after it woke: what it ran when it fell asleep runs beside nothing.
    pub fn check_woken(&mut self, m: usize) {
        let machine = &self.machines[m];
        let fresh = self.now < machine.woken_at + ENDS_WITHIN;
        if fresh || machine.frozen_until > self.now {
            return;
        }
        let doubled = machine.procs.iter().find(|(id, p)| {
            let other =
                |o: &AttemptId, q: &Proc| o != *id && q.job == p.job && q.lives() && q.no >= p.no;
            p.slept
                && p.lives()
                && !self.overruled.contains(*id)
                && (self.machines.iter()).any(|n| n.procs.iter().any(|(o, q)| other(o, q)))
        });
        if let Some((id, proc)) = doubled {
            let (me, job) = (&machine.id, proc.job);
            let what =
                format!("{me} has woken, and attempt {id} of {job} overlaps with a later one");
            self.violated(what);
        }
    }

    // The executor.

    pub fn start(&mut self, m: usize, id: AttemptId, attempt: &Attempt, token: u64, no: u32) {
        let job = attempt.job;
        let spec = Arc::new(attempt.spec.clone());
        let planned = match self.rng.range(0, 20) {
            0..=11 => Outcome::Exited { exit_code: 0 },
            12..=15 => Outcome::Exited { exit_code: 1 },
            16 => Outcome::Signaled { signal: 11 },
            17 => Outcome::TimedOut,
            18 => Outcome::Rejected {
                reason: "no such command".to_owned(),
                no_room: false,
            },
            _ => Outcome::Interrupted,
        };
        let proc = Proc {
            job,
            token,
            no,
            spec,
            state: ProcState::Waiting,
            started: self.wall(m),
            planned,
            slept: false,
        };
        self.machines[m].procs.insert(id, proc);
        if self.mutant != Mutant::SecondAttemptBesideFirst {
            let older: Vec<AttemptId> = self.machines[m]
                .procs
                .iter()
                .filter(|(other, p)| **other != id && p.job == job && p.lives())
                .map(|(other, _)| *other)
                .collect();
            for other in &older {
                self.hit("waited for an earlier attempt");
                self.end(m, *other, Outcome::Fenced);
            }
            if !older.is_empty() {
                return;
            }
        }
        self.launch(m, id);
    }

    fn launch(&mut self, m: usize, id: AttemptId) {
        let proc = self.machines[m].procs[&id].clone();
        let fenced = self.mutant != Mutant::NoFence && self.boot(m) >= self.machines[m].fence_at;
        if proc.spec.on_lost != OnLost::Ask && fenced {
            self.hit("too late to start");
            return self.gone(m, id, Outcome::Fenced);
        }
        if let Outcome::Rejected { .. } = proc.planned {
            return self.gone(m, id, proc.planned);
        }
        self.check_launch(m, id, &proc);
        self.say(|| format!("START {id} of {} on m{m}", proc.job));
        self.hit("process started");
        let until = self.machines[m].frozen_until;
        if let Some(proc) = self.machines[m].procs.get_mut(&id) {
            proc.state = ProcState::Running;
            proc.slept |= until > self.now;
        }
        let most = match self.rng.range(0, 20) {
            0..=1 if !self.calm => 400,
            2..=6 => 120,
            _ => 10,
        };
        let runs = self.rng.range(SECOND / 10, most * SECOND);
        self.exec_at(m, runs, ExecEvent::Ends(id));
    }

    /// Ends an attempt's processes.
    pub fn end(&mut self, m: usize, id: AttemptId, outcome: Outcome) {
        let Some(proc) = self.machines[m].procs.get_mut(&id) else {
            return;
        };
        match proc.state {
            ProcState::Waiting => self.gone(m, id, outcome),
            ProcState::Running => {
                proc.state = ProcState::Ending(outcome);
                let takes = match self.rng.range(0, 10) {
                    // It ignores the first signal, and the second takes all the time that it may.
                    0 => self.machines[m].clock.lasts(ENDS_WITHIN),
                    1 => {
                        let grace = u64::try_from(KILL_GRACE.as_micros()).unwrap();
                        self.rng.range(SECOND, grace)
                    }
                    _ => self.rng.range(1000, SECOND / 5),
                };
                self.exec_at(m, takes, ExecEvent::Dies(id));
            }
            ProcState::Ending(_) | ProcState::Gone(_) => {}
        }
    }

    fn gone(&mut self, m: usize, id: AttemptId, outcome: Outcome) {
        let ended_at = self.wall(m);
        let Some(proc) = self.machines[m].procs.get_mut(&id) else {
            return;
        };
        let job = proc.job;
        proc.state = ProcState::Gone(Gone {
            outcome,
            output: OutputCount::default(),
            started_at: proc.started,
            ended_at,
        });
        self.agent_at(m, 100, AgentEvent::Gone(id));
        self.check_waiting(m, job);
    }

    /// The executor forgets an attempt.
    pub fn forget(&mut self, m: usize, id: AttemptId, job: JobId) {
        self.machines[m].procs.remove(&id);
        self.check_waiting(m, job);
    }

    fn check_waiting(&mut self, m: usize, job: JobId) {
        let procs = &self.machines[m].procs;
        if procs.values().any(|p| p.job == job && p.lives()) {
            return;
        }
        let waiting = procs
            .iter()
            .find(|(_, p)| p.job == job && p.state == ProcState::Waiting)
            .map(|(id, _)| *id);
        if let Some(id) = waiting {
            self.launch(m, id);
        }
    }

    pub fn exec_event(&mut self, m: usize, boot: u64, event: ExecEvent) {
        if boot != self.machines[m].boot {
            return;
        }
        match event {
            ExecEvent::Ends(id) => {
                let Some(proc) = self.machines[m].procs.get(&id) else {
                    return;
                };
                if proc.state == ProcState::Running {
                    let outcome = proc.planned.clone();
                    self.gone(m, id, outcome);
                }
            }
            ExecEvent::Dies(id) => {
                if let Some(ProcState::Ending(outcome)) =
                    self.machines[m].procs.get(&id).map(|p| p.state.clone())
                {
                    self.gone(m, id, outcome);
                }
            }
            ExecEvent::Fence => self.fence(m),
        }
    }

    /// The fence is set to when the last acknowledged renewal says.
    pub fn fence_moved(&mut self, m: usize) {
        let left = self.machines[m].fence_at.since(self.boot(m));
        let left = u64::try_from(left.as_micros()).unwrap();
        let after = self.machines[m].clock.lasts(left);
        self.exec_at(m, after, ExecEvent::Fence);
    }

    fn fence(&mut self, m: usize) {
        if self.mutant == Mutant::NoFence {
            return;
        }
        let left = self.machines[m].fence_at.since(self.boot(m));
        if !left.is_zero() {
            // Moved meanwhile, and somebody waits for that; or the clock is not what it was.
            if self.mutant == Mutant::FenceByWallClock {
                self.exec_at(m, SECOND, ExecEvent::Fence);
            }
            return;
        }
        let due: Vec<AttemptId> = self.machines[m]
            .procs
            .iter()
            .filter(|(_, p)| p.spec.on_lost != OnLost::Ask)
            .filter(|(_, p)| matches!(p.state, ProcState::Running | ProcState::Waiting))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.hit("fenced itself");
            self.end(m, id, Outcome::Fenced);
        }
    }
}
