//! The agent's shell and the executor as models: they carry out what the contract's attempt wants
//! done, and crash, freeze and come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::attempt::{Attempt, Effect, Found, Gone, Input};
use fleet_contract::ids::{AttemptId, InstanceId, JobId, MachineId, Writer};
use fleet_contract::lease::{
    Acquire, CLAIM_WITHIN, FENCE_AFTER, LeaseRecord, RENEW_EVERY, acquire,
};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::Record;
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::ticket::Ticket;
use fleet_contract::time::Time;

use super::bus::{ACK_WAIT, Micros, Req, Resp, SECOND};
use super::rng::Rng;
use super::world::{Event, Mutant, Node, Tag, World};

const SLOTS: usize = 2;

#[derive(Debug)]
pub enum AgentEvent {
    Again(AttemptId),
    Gone(AttemptId),
    AckAgain(u64),
    CancelAsked(JobId),
    Renew,
    Reread,
    Poll,
    TakeLease,
}

#[derive(Debug)]
pub enum ExecEvent {
    Ends(AttemptId),
    Dies(AttemptId),
    Fence,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lease {
    None,
    Held { term: u64, seq: u64, sent: Micros },
}

struct Slot {
    attempt: Attempt,
    ticket: Option<u64>,
}

pub struct Agent {
    attempts: BTreeMap<AttemptId, Slot>,
    lease: Lease,
    held: Vec<AttemptId>,
    pulling: bool,
    /// Grows whenever the lease was taken or had lapsed: pulls made before are void.
    unbroken: u64,
    /// The attempts have been told that the lease has lapsed.
    lapse_told: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum ProcState {
    /// An earlier attempt of the job has to be gone first.
    Waiting,
    Running,
    Ending(Outcome),
    Gone(Gone),
}

#[derive(Debug, Clone)]
struct Proc {
    job: JobId,
    token: u64,
    no: u32,
    spec: Arc<JobSpec>,
    state: ProcState,
    started: Time,
    planned: Outcome,
    /// Its machine was frozen whole while it ran.
    frozen: bool,
}

impl Proc {
    fn lives(&self) -> bool {
        matches!(self.state, ProcState::Running | ProcState::Ending(_))
    }
}

pub struct Machine {
    pub id: MachineId,
    instance: InstanceId,
    up: bool,
    boot: u64,
    run: u64,
    agent: Option<Agent>,
    /// What the executor keeps: it outlives the agent.
    procs: BTreeMap<AttemptId, Proc>,
    /// When the executor ends what another machine may take over.
    fence_at: Micros,
    /// When the agent asked for the lease last.
    sent: Micros,
    pub partitioned: bool,
    pub frozen_until: Micros,
    pub agent_frozen_until: Micros,
    pub skew: i64,
}

fn span(duration: std::time::Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap()
}

impl Agent {
    fn is_fresh(&self, now: Micros) -> bool {
        matches!(self.lease, Lease::Held { sent, .. } if sent + span(CLAIM_WITHIN) > now)
    }
}

impl Machine {
    pub fn new(n: usize, rng: &mut Rng) -> Self {
        Self {
            id: format!("m{n}").parse().unwrap(),
            instance: InstanceId::from_random(rng.bits()),
            up: true,
            boot: 0,
            run: 0,
            agent: None,
            procs: BTreeMap::new(),
            fence_at: 0,
            sent: 0,
            partitioned: false,
            frozen_until: 0,
            agent_frozen_until: 0,
            skew: 0,
        }
    }

    pub fn run(&self) -> u64 {
        self.run
    }

    pub fn unsettled(&self) -> Option<String> {
        if let Some((attempt, proc)) = self.procs.first_key_value() {
            let (id, job) = (&self.id, proc.job);
            return Some(format!(
                "{id} still knows attempt {attempt} of {job}: {:?}",
                proc.state
            ));
        }
        let slot = self.agent.as_ref()?.attempts.values().next()?;
        Some(format!("{} still has {:?}", self.id, slot.attempt))
    }
}

impl World {
    // Life of machine, agent and executor.

    pub fn start_agent(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if !machine.up || machine.agent.is_some() {
            return;
        }
        machine.run += 1;
        let run = machine.run;
        machine.agent = Some(Agent {
            attempts: BTreeMap::new(),
            lease: Lease::None,
            held: Vec::new(),
            pulling: false,
            unbroken: 0,
            lapse_told: false,
        });
        let found: Vec<(AttemptId, Proc)> = machine
            .procs
            .iter()
            .map(|(id, p)| (*id, p.clone()))
            .collect();
        self.say(|| format!("agent {m} starts, run {run}, finds {}", found.len()));
        for (id, proc) in found {
            self.hit("adopted");
            let gone = match proc.state {
                ProcState::Gone(gone) => Some(gone),
                _ => None,
            };
            let found = Found {
                job: proc.job,
                attempt: id,
                token: proc.token,
                no: proc.no,
                spec: (*proc.spec).clone(),
            };
            let (attempt, effects) = Attempt::adopt(self.machines[m].id.clone(), found, gone);
            self.enter(m, id, attempt, None, effects);
        }
        self.take_lease(m);
        self.agent_at(m, 30 * SECOND, AgentEvent::Reread);
        self.agent_at(m, SECOND / 10, AgentEvent::Poll);
    }

    pub fn crash_agent(&mut self, m: usize) -> bool {
        self.machines[m].agent_frozen_until = 0;
        self.machines[m].agent.take().is_some()
    }

    pub fn crash_machine(&mut self, m: usize) -> bool {
        if !self.machines[m].up {
            return false;
        }
        self.crash_agent(m);
        let lost = self.rng.chance(20);
        let now = self.wall(self.machines[m].skew);
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
        self.machines[m].up = true;
        self.start_agent(m);
    }

    pub fn freeze(&mut self, m: usize, agent_only: bool) -> bool {
        let until = self.now + self.rng.range(SECOND, 150 * SECOND);
        let machine = &mut self.machines[m];
        if !machine.up || machine.frozen_until > self.now {
            return false;
        }
        if agent_only {
            machine.agent_frozen_until = until;
        } else {
            machine.frozen_until = until;
            for proc in machine.procs.values_mut() {
                proc.frozen = true;
            }
        }
        true
    }

    fn agent_at(&mut self, m: usize, after: Micros, event: AgentEvent) {
        let run = self.machines[m].run;
        self.at(self.now + after, Event::Agent(m, run, event));
    }

    fn exec_at(&mut self, m: usize, after: Micros, event: ExecEvent) {
        let boot = self.machines[m].boot;
        self.at(self.now + after, Event::Exec(m, boot, event));
    }

    fn node(&self, m: usize) -> Node {
        Node::Agent(m, self.machines[m].run)
    }

    // The lease.

    /// All that this run answers for, whatever happens to its lease.
    fn holds(&self, m: usize) -> Vec<AttemptId> {
        let machine = &self.machines[m];
        let own = machine.agent.iter().flat_map(|agent| {
            let live = agent.attempts.iter().filter(|(_, s)| s.attempt.is_held());
            live.map(|(id, _)| *id)
        });
        let mut held: Vec<AttemptId> = own.chain(machine.procs.keys().copied()).collect();
        held.sort();
        held.dedup();
        held
    }

    fn take_lease(&mut self, m: usize) {
        if let Some(agent) = &mut self.machines[m].agent {
            agent.lease = Lease::None;
            let node = self.node(m);
            let id = self.machines[m].id.clone();
            self.send(node, Tag::LeaseRead, Req::LeaseRead(id));
        }
    }

    fn lease_record(&self, m: usize, term: Option<u64>, held: Vec<AttemptId>) -> LeaseRecord {
        let machine = &self.machines[m];
        let held = if self.mutant == Mutant::NothingHeld {
            Vec::new()
        } else {
            held
        };
        LeaseRecord::Agent {
            machine: machine.id.clone(),
            instance: machine.instance,
            host: "host".to_owned(),
            released: false,
            term,
            held,
            seen: None,
        }
    }

    fn lease_read(&mut self, m: usize, last: Option<(u64, LeaseRecord)>) {
        let instance = self.machines[m].instance;
        let last = last.as_ref().map(|(seq, record)| (*seq, record));
        let Acquire::Take { expect } = acquire(instance, last) else {
            return self.agent_at(m, 5 * SECOND, AgentEvent::TakeLease);
        };
        let held = self.holds(m);
        let record = self.lease_record(m, None, held.clone());
        if let Some(agent) = &mut self.machines[m].agent {
            agent.held = held;
        }
        let node = self.node(m);
        self.machines[m].sent = self.now;
        self.send(node, Tag::LeaseAcquire, Req::LeaseAppend { record, expect });
    }

    fn lease_acknowledged(&mut self, m: usize, term: Option<u64>, seq: u64, sent: Micros) {
        let fence_at = sent + span(FENCE_AFTER);
        let machine = &mut self.machines[m];
        machine.fence_at = machine.fence_at.max(fence_at);
        let Some(agent) = &mut machine.agent else {
            return;
        };
        let acquired = term.is_none();
        let term = term.unwrap_or(seq);
        let lapsed = match agent.lease {
            Lease::Held { sent: before, .. } => self.now > before + span(CLAIM_WITHIN),
            Lease::None => true,
        };
        agent.unbroken += u64::from(lapsed);
        agent.lapse_told = false;
        agent.lease = Lease::Held { term, seq, sent };
        let after = fence_at.saturating_sub(self.now);
        self.exec_at(m, after, ExecEvent::Fence);
        let renew = (sent + span(RENEW_EVERY)).saturating_sub(self.now);
        self.agent_at(m, renew, AgentEvent::Renew);
        if acquired {
            // What the hub ruled while it had the lease is to be known at once.
            self.reread_all(m);
        }
    }

    fn renew(&mut self, m: usize) {
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let Lease::Held { term, seq, .. } = agent.lease else {
            return;
        };
        let record = self.lease_record(m, Some(term), agent.held.clone());
        let (node, sent) = (self.node(m), self.now);
        let req = Req::LeaseAppend {
            record,
            expect: seq,
        };
        self.send(node, Tag::LeaseRenew { sent }, req);
    }

    // Tickets.

    fn poll(&mut self, m: usize) {
        let pause = self.rng.range(SECOND / 5, SECOND);
        self.agent_at(m, pause, AgentEvent::Poll);
        let now = self.now;
        let machine = &mut self.machines[m];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        let busy = agent.attempts.values().filter(|s| s.attempt.holds_slot());
        if agent.pulling || !agent.is_fresh(now) || busy.count() >= SLOTS {
            return;
        }
        agent.pulling = true;
        let unbroken = agent.unbroken;
        let id = machine.id.clone();
        let node = self.node(m);
        self.send(node, Tag::Pull { unbroken }, Req::Pull(id));
    }

    fn deliver(&mut self, m: usize, seq: u64, ticket: &Ticket, unbroken: u64) {
        let node = self.node(m);
        let machine = &self.machines[m];
        let Some(agent) = &machine.agent else { return };
        let Lease::Held { term, .. } = agent.lease else {
            return self.send(node, Tag::None, Req::Nak(seq));
        };
        let old = !agent.is_fresh(self.now) || agent.unbroken != unbroken;
        if old && self.mutant != Mutant::SleptOnTicket {
            self.hit("slept on a ticket");
            return self.send(node, Tag::None, Req::Nak(seq));
        }
        let term = if self.mutant == Mutant::ClaimWithoutTerm {
            0
        } else {
            term
        };
        let id = AttemptId::from_random(self.rng.bits());
        let (attempt, effects) = Attempt::deliver(machine.id.clone(), id, ticket.clone());
        let attempt = attempt.under_lease(term, self.wall(machine.skew));
        if self.mutant == Mutant::AckBeforeClaim {
            self.send(node, Tag::Ack(seq), Req::Ack(seq));
        }
        if self.mutant == Mutant::StartBeforeClaim {
            self.start(m, id, &attempt, 0, 1);
        }
        self.enter(m, id, attempt, Some(seq), effects);
    }

    // The attempt's inputs and effects.

    fn enter(
        &mut self,
        m: usize,
        id: AttemptId,
        attempt: Attempt,
        ticket: Option<u64>,
        effects: Vec<Effect>,
    ) {
        if let Some(agent) = &mut self.machines[m].agent {
            agent.attempts.insert(id, Slot { attempt, ticket });
        }
        self.carry_out(m, id, effects);
    }

    fn feed(&mut self, m: usize, id: AttemptId, input: Input) {
        let now = self.wall(self.machines[m].skew);
        let draw = self.rng.unit();
        let Some(slot) = self.machines[m]
            .agent
            .as_mut()
            .and_then(|agent| agent.attempts.get_mut(&id))
        else {
            return;
        };
        let told = if self.trace {
            format!("m{m} {id} {input:?}").chars().take(160).collect()
        } else {
            String::new()
        };
        let effects = slot.attempt.on(input, now, draw);
        self.say(|| format!("{told} => {}", short(&effects)));
        self.carry_out(m, id, effects);
    }

    fn carry_out(&mut self, m: usize, id: AttemptId, effects: Vec<Effect>) {
        for effect in effects {
            self.effect(m, id, effect);
        }
    }

    fn effect(&mut self, m: usize, id: AttemptId, effect: Effect) {
        let node = self.node(m);
        let me = self.machines[m].id.clone();
        let Some(slot) = self.machines[m]
            .agent
            .as_ref()
            .and_then(|agent| agent.attempts.get(&id))
        else {
            return;
        };
        let (job, ticket) = (slot.attempt.job, slot.ticket);
        match effect {
            Effect::Read => self.send(node, Tag::Tip(id), Req::Tip(job)),
            Effect::ReadAll => self.send(node, Tag::Reread(id), Req::All(job, me)),
            Effect::Append(record) => self.append(m, id, job, Arc::new(*record)),
            Effect::Pause => {
                self.hit("paused");
                let pause = self.rng.range(SECOND / 5, SECOND);
                self.agent_at(m, pause, AgentEvent::Again(id));
            }
            Effect::Ack => {
                if let Some(seq) = ticket {
                    self.send(node, Tag::Ack(seq), Req::Ack(seq));
                }
            }
            Effect::GiveBack => {
                self.hit("gave back");
                if let Some(seq) = ticket {
                    self.send(node, Tag::None, Req::Nak(seq));
                }
            }
            Effect::Start { token, no } => {
                let attempt = slot.attempt.clone();
                if self.mutant != Mutant::StartBeforeClaim {
                    self.start(m, id, &attempt, token, no);
                }
            }
            Effect::Cancel => {
                self.hit("cancel reached the machine");
                self.end(m, id, Outcome::Canceled);
            }
            Effect::Fence => {
                self.hit("fenced by a ruling");
                self.end(m, id, Outcome::Fenced);
            }
            Effect::Forget => {
                self.machines[m].procs.remove(&id);
                self.check_waiting(m, job);
            }
            Effect::Superseded(_) => self.hit("superseded"),
            Effect::Done => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.attempts.remove(&id);
                }
            }
        }
    }

    fn append(&mut self, m: usize, id: AttemptId, job: JobId, record: Arc<Record>) {
        let claim = record.change.kind() == "job.claimed";
        let machine = &self.machines[m];
        let expect = (self.mutant != Mutant::ClaimWithoutCas || !claim).then_some(record.prev);
        let req = Req::Append {
            job,
            writer: Writer::Machine(machine.id.clone()),
            time: self.wall(machine.skew),
            record: Some(record),
            expect,
        };
        self.send(self.node(m), Tag::Append(id), req);
    }

    fn reread_all(&mut self, m: usize) {
        let node = self.node(m);
        let me = self.machines[m].id.clone();
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let jobs: Vec<(AttemptId, JobId)> = agent
            .attempts
            .iter()
            .filter(|(_, slot)| slot.attempt.is_running())
            .map(|(id, slot)| (*id, slot.attempt.job))
            .collect();
        for (id, job) in jobs {
            self.send(node, Tag::Reread(id), Req::All(job, me.clone()));
        }
    }

    pub fn agent_event(&mut self, m: usize, run: u64, event: AgentEvent) {
        if run != self.machines[m].run || self.machines[m].agent.is_none() {
            return;
        }
        self.tell_lapse(m);
        match event {
            AgentEvent::Again(id) => self.feed(m, id, Input::Again),
            AgentEvent::Gone(id) => {
                let gone = match self.machines[m].procs.get(&id).map(|p| &p.state) {
                    Some(ProcState::Gone(gone)) => gone.clone(),
                    _ => return,
                };
                self.feed(m, id, Input::Gone(gone));
            }
            AgentEvent::AckAgain(seq) => self.send(self.node(m), Tag::Ack(seq), Req::Ack(seq)),
            AgentEvent::CancelAsked(job) => {
                let agent = self.machines[m].agent.as_ref();
                let ids: Vec<AttemptId> = agent
                    .into_iter()
                    .flat_map(|agent| &agent.attempts)
                    .filter(|(_, slot)| slot.attempt.job == job)
                    .map(|(id, _)| *id)
                    .collect();
                for id in ids {
                    self.feed(m, id, Input::CancelAsked);
                }
            }
            AgentEvent::Renew => self.renew(m),
            AgentEvent::Reread => {
                self.reread_all(m);
                self.agent_at(m, 30 * SECOND, AgentEvent::Reread);
            }
            AgentEvent::Poll => self.poll(m),
            AgentEvent::TakeLease => self.take_lease(m),
        }
    }

    pub fn agent_answer(&mut self, m: usize, run: u64, tag: Tag, resp: Option<Resp>) {
        if run != self.machines[m].run || self.machines[m].agent.is_none() {
            return;
        }
        self.tell_lapse(m);
        match (tag, resp) {
            (Tag::Tip(id), Some(Resp::Tip(tip))) => self.feed(m, id, Input::Tip(tip)),
            (Tag::Reread(id), Some(Resp::All(reading))) => {
                self.feed(m, id, Input::Reread(*reading));
            }
            (Tag::RefusedRead(id), Some(Resp::All(reading))) => {
                self.feed(m, id, Input::Refused(*reading));
            }
            (Tag::Append(id), Some(Resp::Stored(seq))) => self.feed(m, id, Input::Appended(seq)),
            (Tag::Append(id), Some(Resp::Refused)) => self.append_refused(m, id),
            (Tag::Append(id), None) if self.mutant == Mutant::EndNotRepeated => {
                self.effect(m, id, Effect::Forget);
                self.effect(m, id, Effect::Done);
            }
            (Tag::Tip(id) | Tag::Reread(id) | Tag::RefusedRead(id) | Tag::Append(id), _) => {
                self.feed(m, id, Input::NoAnswer);
            }
            (Tag::Ack(seq), None) => self.agent_at(m, SECOND / 2, AgentEvent::AckAgain(seq)),
            (Tag::Pull { unbroken }, resp) => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.pulling = false;
                }
                if let Some(Resp::Ticket(Some((seq, ticket)))) = resp {
                    self.deliver(m, seq, &ticket, unbroken);
                }
            }
            (Tag::LeaseRead, Some(Resp::Lease(last))) => self.lease_read(m, last),
            (Tag::LeaseAcquire, Some(Resp::Stored(seq))) => {
                let sent = self.machines[m].sent;
                self.lease_acknowledged(m, None, seq, sent);
            }
            (Tag::LeaseRenew { sent }, Some(Resp::Stored(seq))) => {
                let Some(Lease::Held { term, .. }) =
                    self.machines[m].agent.as_ref().map(|agent| agent.lease)
                else {
                    return;
                };
                self.lease_acknowledged(m, Some(term), seq, sent);
            }
            (Tag::LeaseRead | Tag::LeaseAcquire | Tag::LeaseRenew { .. }, _) => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.lease = Lease::None;
                }
                self.agent_at(m, SECOND / 2, AgentEvent::TakeLease);
            }
            _ => {}
        }
    }

    /// Before anything that has come is handled: whether it came while this machine slept.
    fn tell_lapse(&mut self, m: usize) {
        let now = self.now;
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if agent.is_fresh(now) || agent.lapse_told || self.mutant == Mutant::SleptOnTicket {
            return;
        }
        agent.lapse_told = true;
        let ids: Vec<AttemptId> = agent.attempts.keys().copied().collect();
        for id in ids {
            self.feed(m, id, Input::Lapsed);
        }
    }

    fn append_refused(&mut self, m: usize, id: AttemptId) {
        if self.mutant == Mutant::NoReadOnRefusal {
            self.effect(m, id, Effect::Fence);
            self.effect(m, id, Effect::Forget);
            self.effect(m, id, Effect::Ack);
            return self.effect(m, id, Effect::Done);
        }
        let agent = self.machines[m].agent.as_ref();
        let Some(slot) = agent.and_then(|agent| agent.attempts.get(&id)) else {
            return;
        };
        let (job, me) = (slot.attempt.job, self.machines[m].id.clone());
        self.send(self.node(m), Tag::RefusedRead(id), Req::All(job, me));
    }

    // The executor.

    fn start(&mut self, m: usize, id: AttemptId, attempt: &Attempt, token: u64, no: u32) {
        let job = attempt.job;
        let spec = Arc::new(attempt.spec.clone());
        let planned = match self.rng.range(0, 20) {
            0..=11 => Outcome::Exited { exit_code: 0 },
            12..=15 => Outcome::Exited { exit_code: 1 },
            16 => Outcome::Signaled { signal: 11 },
            17 => Outcome::TimedOut,
            18 => Outcome::Rejected {
                reason: "no such command".to_owned(),
            },
            _ => Outcome::Interrupted,
        };
        let proc = Proc {
            job,
            token,
            no,
            spec,
            state: ProcState::Waiting,
            started: self.wall(self.machines[m].skew),
            planned,
            frozen: false,
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
        let fenced = self.mutant != Mutant::NoFence && self.now >= self.machines[m].fence_at;
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
        if let Some(proc) = self.machines[m].procs.get_mut(&id) {
            proc.state = ProcState::Running;
        }
        let long = self.rng.chance(25);
        let runs = self
            .rng
            .range(SECOND / 10, if long { 120 } else { 10 } * SECOND);
        self.exec_at(m, runs, ExecEvent::Ends(id));
    }

    fn check_launch(&mut self, m: usize, id: AttemptId, new: &Proc) {
        let me = self.machines[m].id.clone();
        let claim = self
            .truth
            .get(&new.job)
            .and_then(|job| job.attempts.iter().find(|a| a.id == id));
        if claim.is_none_or(|claim| claim.machine != me || claim.token != new.token) {
            self.violated(format!("attempt {id} of {} runs unclaimed", new.job));
        }
        let ticket = self.bus.entries(new.job).iter().find_map(|entry| {
            match &entry.record.as_ref()?.change {
                fleet_contract::record::Change::Claimed {
                    attempt, ticket, ..
                } if *attempt == id => Some(*ticket),
                _ => None,
            }
        });
        if let Some(Target::Pin(pin)) = ticket.and_then(|ticket| self.tickets.get(&ticket))
            && *pin != me
        {
            self.violated(format!("attempt {id} of {} runs off its pin", new.job));
        }
        for (n, machine) in self.machines.iter().enumerate() {
            for (other, old) in &machine.procs {
                if *other == id || old.job != new.job || !old.lives() {
                    continue;
                }
                let allowed = n != m && (old.frozen || self.overruled.contains(other));
                if !allowed {
                    let what = format!(
                        "attempts {other} on {} and {id} on {me} of {} overlap",
                        machine.id, new.job
                    );
                    return self.violated(what);
                }
            }
        }
    }

    /// Ends an attempt's processes, which takes up to 8 s.
    fn end(&mut self, m: usize, id: AttemptId, outcome: Outcome) {
        let Some(proc) = self.machines[m].procs.get_mut(&id) else {
            return;
        };
        match proc.state {
            ProcState::Waiting => self.gone(m, id, outcome),
            ProcState::Running => {
                proc.state = ProcState::Ending(outcome);
                let takes = if self.rng.chance(20) {
                    self.rng.range(SECOND, 8 * SECOND)
                } else {
                    self.rng.range(1000, SECOND / 5)
                };
                self.exec_at(m, takes, ExecEvent::Dies(id));
            }
            ProcState::Ending(_) | ProcState::Gone(_) => {}
        }
    }

    fn gone(&mut self, m: usize, id: AttemptId, outcome: Outcome) {
        let ended_at = self.wall(self.machines[m].skew);
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
            ExecEvent::Fence => {
                if self.now < self.machines[m].fence_at || self.mutant == Mutant::NoFence {
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
    }
}

fn short(effects: &[Effect]) -> String {
    let words: Vec<String> = effects
        .iter()
        .map(|e| format!("{e:?}").chars().take(40).collect())
        .collect();
    words.join(", ")
}

const _: () = assert!(ACK_WAIT < 10 * SECOND);
