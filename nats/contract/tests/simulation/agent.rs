//! The agent's shell as a model: it carries out what the contract's attempt wants done, and crashes,
//! is cut off, is stopped and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::attempt::{Attempt, Effect, Found, Input};
use fleet_contract::ids::{AttemptId, JobId, Writer};
use fleet_contract::job::{token_epoch, token_seq};
use fleet_contract::lease::Mark;
use fleet_contract::outcome::Outcome;
use fleet_contract::record::{Change, Next, Record, StateWord};
use fleet_contract::ticket::{Reading, Ticket, Tip};
use fleet_contract::time::Time;

use super::bus::{Micros, Req, Resp, SECOND};
use super::lease::Lease;
use super::machine::{Proc, ProcState};
use super::mutant::Mutant;
use super::network::Tag;
use super::spool::Delivery;
use super::world::{Event, World};

const SLOTS: usize = 2;

#[derive(Debug)]
pub enum AgentEvent {
    Again(AttemptId),
    NoAnswer(AttemptId),
    Gone(AttemptId),
    AckAgain(u64),
    CancelAsked(JobId),
    Renew,
    Reread,
    Pull,
    TakeLease,
    /// Its connection leads to the server that is there now.
    Connected,
    AskWord,
    /// The hub says something of itself.
    WordSaid,
    /// What it has told is on the disk.
    Synced(u64),
    Deliver,
    /// Something of its own that is worth telling.
    Tell,
}

impl AgentEvent {
    /// Whether it waits by a clock that stops in sleep; the others are messages.
    pub fn is_timer(&self) -> bool {
        !matches!(
            self,
            Self::Gone(_) | Self::CancelAsked(_) | Self::Connected | Self::WordSaid
        )
    }
}

pub struct Slot {
    pub attempt: Attempt,
    ticket: Option<u64>,
}

pub struct Agent {
    pub attempts: BTreeMap<AttemptId, Slot>,
    pub lease: Lease,
    pub held: Vec<AttemptId>,
    /// It is on its way to take the lease.
    pub taking: bool,
    pulling: bool,
    /// Grows whenever the lease was taken or had lapsed: pulls made before are void.
    pub unbroken: u64,
    /// The attempts have been told that the lease has lapsed.
    pub lapse_told: bool,
    /// The epoch that the hub vouches for at the server that is connected.
    pub vouched: Option<u64>,
    /// The highest of the journal that it has seen.
    pub seen: Mark,
    pub delivery: Delivery,
}

impl World {
    // Life.

    pub fn start_agent(&mut self, m: usize) {
        let server = self.bus.server;
        let machine = &mut self.machines[m];
        if !machine.up || machine.agent.is_some() {
            return;
        }
        machine.run += 1;
        machine.server = server;
        let run = machine.run;
        machine.agent = Some(Agent {
            attempts: BTreeMap::new(),
            lease: Lease::None,
            held: Vec::new(),
            taking: false,
            pulling: false,
            unbroken: 0,
            lapse_told: false,
            vouched: None,
            seen: machine.seen,
            delivery: Delivery::Idle,
        });
        machine.spool.reopened();
        let found: Vec<(AttemptId, Proc)> = machine
            .procs
            .iter()
            .map(|(id, p)| (*id, p.clone()))
            .collect();
        self.say(|| format!("agent of m{m} starts, run {run}, finds {}", found.len()));
        for (id, proc) in found {
            self.hit("found by a new agent");
            self.note_seen(m, token_epoch(proc.token), token_seq(proc.token));
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
        self.agent_at(m, 0, AgentEvent::AskWord);
        self.agent_at(m, 30 * SECOND, AgentEvent::Reread);
        self.agent_at(m, 0, AgentEvent::Tell);
    }

    pub fn crash_agent(&mut self, m: usize) -> bool {
        self.machines[m].agent_frozen_until = 0;
        self.machines[m].agent.take().is_some()
    }

    pub fn agent_at(&mut self, m: usize, after: Micros, event: AgentEvent) {
        let (run, slept) = (self.machines[m].run, self.machines[m].slept);
        self.at(self.now + after, Event::Agent(m, run, event, slept));
    }

    pub fn note_seen(&mut self, m: usize, epoch: u64, seq: u64) {
        if let Some(agent) = &mut self.machines[m].agent {
            agent.seen = agent.seen.max(Mark { epoch, seq });
        }
    }

    // The link.

    /// The link broke: it is found again, at the server that is there then.
    pub fn reconnect(&mut self, m: usize) {
        if self.machines[m].agent.is_some() {
            let after = self.rng.range(SECOND / 20, 3 * SECOND);
            self.agent_at(m, after, AgentEvent::Connected);
        }
    }

    fn connected(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if self.hub_down || machine.cut_in || machine.cut_out {
            // Found again when it heals.
            return;
        }
        machine.server = self.bus.server;
        if let Some(agent) = &mut machine.agent {
            agent.vouched = None;
            agent.pulling = false;
            agent.delivery = Delivery::Idle;
        }
        self.ask_word(m);
        self.agent_at(m, 0, AgentEvent::Tell);
    }

    fn ask_word(&mut self, m: usize) {
        self.send(self.node(m), Tag::Word, Req::Word);
    }

    /// What the hub vouches for; counts only at the server that the connection leads to.
    fn word(&mut self, m: usize, server: u64, epoch: Option<u64>) {
        let same = self.machines[m].server == server;
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        let before = agent.vouched;
        agent.vouched = epoch.filter(|_| same);
        let now = agent.vouched;
        let Some(epoch) = now else {
            return self.agent_at(m, SECOND / 10, AgentEvent::AskWord);
        };
        if before == now {
            return;
        }
        match agent.lease {
            Lease::Held { epoch: of, .. } if of == epoch => {
                self.reread_all(m);
                self.pull(m);
                self.deliver_events(m);
            }
            // In another epoch everybody takes it anew.
            _ => self.take_lease(m),
        }
    }

    /// Whether the hub is in the epoch that the attempt reads and appends in.
    fn at_hub(&self, m: usize, id: AttemptId) -> bool {
        let Some(agent) = &self.machines[m].agent else {
            return false;
        };
        let slot = agent.attempts.get(&id);
        slot.is_some_and(|slot| agent.vouched == Some(slot.attempt.hub_epoch()))
    }

    fn epoch_of(&self, m: usize, id: AttemptId) -> Option<u64> {
        let slot = self.machines[m].agent.as_ref()?.attempts.get(&id)?;
        Some(slot.attempt.hub_epoch())
    }

    // Tickets.

    pub fn pull(&mut self, m: usize) {
        if !self.is_fresh(m) {
            return;
        }
        let node = self.node(m);
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        let busy = agent.attempts.values().filter(|s| s.attempt.holds_slot());
        if agent.pulling || agent.vouched.is_none() || busy.count() >= SLOTS {
            return;
        }
        agent.pulling = true;
        let unbroken = agent.unbroken;
        self.send(node, Tag::Pull { unbroken }, Req::Pull(m));
    }

    fn deliver(&mut self, m: usize, seq: u64, ticket: &Ticket, unbroken: u64) {
        let node = self.node(m);
        let fresh = self.is_fresh(m);
        let machine = &self.machines[m];
        let Some(agent) = &machine.agent else { return };
        let Lease::Held { term, epoch, .. } = agent.lease else {
            return self.send(node, Tag::None, Req::Nak(seq));
        };
        let old = !fresh || agent.unbroken != unbroken;
        if old && self.mutant != Mutant::SleptOnTicket {
            self.hit("slept on a ticket");
            return self.send(node, Tag::None, Req::Nak(seq));
        }
        let term = if self.mutant == Mutant::ClaimWithoutTerm {
            0
        } else {
            term
        };
        let issued_before = ticket.after == 0 && ticket.epoch < epoch;
        if issued_before && self.mutant == Mutant::OldTicketsDropped {
            return self.send(node, Tag::Ack(seq), Req::Ack(seq));
        }
        if issued_before {
            self.hit("ticket of an earlier epoch");
        }
        let id = AttemptId::from_random(self.rng.bits());
        let mut ticket = ticket.clone();
        if self.mutant == Mutant::PinIgnored {
            ticket.target = fleet_contract::spec::Target::Lane(fleet_contract::ids::Lane::any());
        }
        let (attempt, effects) = Attempt::deliver(self.machines[m].id.clone(), id, ticket);
        let attempt = attempt.under_lease(term, self.wall(m)).in_epoch(epoch);
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

    /// Tells the attempt that the hub's store went back in time, before anything else.
    fn keep_up(&mut self, m: usize, id: AttemptId) {
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let (Lease::Held { epoch, term, .. }, Some(slot)) = (agent.lease, agent.attempts.get(&id))
        else {
            return;
        };
        if epoch <= slot.attempt.hub_epoch() || self.mutant == Mutant::NotTold {
            return;
        }
        let unclaimed = slot.attempt.token().is_none();
        self.hit("told of a new epoch");
        if unclaimed {
            self.hit("claim dropped in a new epoch");
        }
        self.step_attempt(m, id, Input::Rebuilt { epoch, term });
    }

    pub fn feed(&mut self, m: usize, id: AttemptId, input: Input) {
        self.keep_up(m, id);
        self.step_attempt(m, id, input);
    }

    fn step_attempt(&mut self, m: usize, id: AttemptId, input: Input) {
        let (now, draw) = (self.wall(m), self.rng.unit());
        self.count_early(m, id, &input);
        let input = self.misread(m, id, input);
        let Some(slot) = self.machines[m]
            .agent
            .as_mut()
            .and_then(|agent| agent.attempts.get_mut(&id))
        else {
            return;
        };
        let told = if self.trace {
            let told: String = format!("{input:?}").chars().take(160).collect();
            format!("m{m} {id}: {told}")
        } else {
            String::new()
        };
        let effects = slot.attempt.on(input, now, draw);
        self.say(|| format!("{told} => {}", short(&effects)));
        self.carry_out(m, id, effects);
    }

    /// A ticket that is quicker than the record that names it.
    fn count_early(&mut self, m: usize, id: AttemptId, input: &Input) {
        let Input::Tip(Some(tip)) = input else { return };
        let slot = self.machines[m].agent.as_ref();
        let slot = slot.and_then(|agent| agent.attempts.get(&id));
        let ticket = slot.and_then(|s| self.bus.work.queue.get(&s.ticket?));
        if ticket.is_some_and(|t| t.ticket.after == tip.seq && !tip.after.state.is_terminal()) {
            self.hit("ticket before its record");
        }
    }

    /// What a mutant makes of what it reads.
    fn misread(&self, m: usize, id: AttemptId, input: Input) -> Input {
        let slot = self.machines[m].agent.as_ref();
        let slot = slot.and_then(|agent| agent.attempts.get(&id));
        let ticket = slot.and_then(|s| self.bus.work.queue.get(&s.ticket?));
        match (self.mutant, input) {
            (Mutant::StaleTicketClaimed, Input::Tip(Some(tip)))
                if !tip.after.state.is_terminal() =>
            {
                let queued = ticket.map(|t| t.ticket.ticket).or(tip.queued);
                Input::Tip(Some(Tip { queued, ..tip }))
            }
            (Mutant::EndedJobClaimed, Input::Tip(Some(mut tip))) => {
                if tip.after.state.is_terminal() {
                    tip.after.state = StateWord::Queued;
                    tip.queued = ticket.map(|t| t.ticket.ticket).or(tip.queued);
                }
                Input::Tip(Some(tip))
            }
            (Mutant::CancelOverlooked, Input::Reread(reading)) => {
                Input::Reread(without_cancel(reading))
            }
            (Mutant::CancelOverlooked, Input::Refused(reading)) => {
                Input::Refused(without_cancel(reading))
            }
            (Mutant::RulingsOverlooked, Input::Reread(reading)) => {
                let (operator, keeper) = (None, None);
                let tip = reading.own.clone();
                Input::Reread(Reading {
                    tip,
                    operator,
                    keeper,
                    ..reading
                })
            }
            (_, input) => input,
        }
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
                let token = match self.mutant {
                    Mutant::TokenWithoutEpoch => token_seq(token),
                    _ => token,
                };
                let attempt = slot.attempt.clone();
                self.check_token(id, token);
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
            Effect::Forget => self.forget(m, id, job),
            Effect::Superseded(_) => {
                self.hit("superseded");
                self.tell_event(m);
            }
            Effect::Done => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.attempts.remove(&id);
                }
            }
        }
        self.pull(m);
    }

    fn append(&mut self, m: usize, id: AttemptId, job: JobId, record: Arc<Record>) {
        if !self.at_hub(m, id) {
            // Nothing goes to a server that nobody vouches for.
            self.hit("not vouched for");
            return self.agent_at(m, 0, AgentEvent::NoAnswer(id));
        }
        let record = match self.mutant {
            Mutant::AdoptedGoesOn => going_on(record, self.wall(m)),
            _ => record,
        };
        let kind = record.change.kind();
        let careless = (self.mutant == Mutant::ClaimWithoutCas && kind == "job.claimed")
            || (self.mutant == Mutant::EndWithoutCas && kind == "job.ended");
        let expect = (!careless).then_some(record.prev);
        let req = Req::Append {
            job,
            writer: Writer::Machine(self.machines[m].id.clone()),
            time: self.wall(m),
            record: Some(record),
            expect,
        };
        let agent = self.machines[m].agent.as_ref();
        let epoch = agent.and_then(|agent| agent.vouched).unwrap_or(0);
        self.send(self.node(m), Tag::Append(id, epoch), req);
    }

    pub fn reread_all(&mut self, m: usize) {
        let node = self.node(m);
        let me = self.machines[m].id.clone();
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let jobs: Vec<(AttemptId, JobId)> = agent
            .attempts
            .iter()
            .map(|(id, slot)| (*id, slot.attempt.job))
            .collect();
        for (id, job) in jobs {
            self.keep_up(m, id);
            if self.is_running(m, id) {
                self.send(node, Tag::Reread(id), Req::All(job, me.clone()));
            }
        }
    }

    fn is_running(&self, m: usize, id: AttemptId) -> bool {
        let agent = self.machines[m].agent.as_ref();
        let slot = agent.and_then(|agent| agent.attempts.get(&id));
        slot.is_some_and(|slot| slot.attempt.is_running())
    }

    pub fn agent_event(&mut self, m: usize, run: u64, event: AgentEvent) {
        if run != self.machines[m].run || self.machines[m].agent.is_none() {
            return;
        }
        self.tell_lapse(m);
        match event {
            AgentEvent::Again(id) => self.feed(m, id, Input::Again),
            AgentEvent::NoAnswer(id) => self.feed(m, id, Input::NoAnswer),
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
                self.ask_word(m);
                self.agent_at(m, 30 * SECOND, AgentEvent::Reread);
            }
            AgentEvent::Pull => self.pull(m),
            AgentEvent::TakeLease => self.take_lease(m),
            AgentEvent::Connected => self.connected(m),
            AgentEvent::AskWord | AgentEvent::WordSaid => self.ask_word(m),
            AgentEvent::Synced(told) => self.synced(m, told),
            AgentEvent::Deliver => self.deliver_events(m),
            AgentEvent::Tell => {
                self.tell_event(m);
                if !self.calm {
                    let pause = self.rng.range(2 * SECOND, 20 * SECOND);
                    self.agent_at(m, pause, AgentEvent::Tell);
                }
            }
        }
    }

    pub fn agent_answer(&mut self, m: usize, run: u64, tag: Tag, resp: Option<Resp>) {
        if run != self.machines[m].run || self.machines[m].agent.is_none() {
            return;
        }
        self.tell_lapse(m);
        match (tag, resp) {
            // What was appended in an earlier epoch: whoever asked waits no more.
            (Tag::Append(id, epoch), _) if self.epoch_of(m, id) != Some(epoch) => {}
            (
                Tag::Tip(id) | Tag::Reread(id) | Tag::RefusedRead(id) | Tag::Append(id, _),
                Some(resp),
            ) if !self.at_hub(m, id) => {
                // What was asked of an earlier server, or comes of a store that may have gone back.
                self.hit("answer not vouched for");
                drop(resp);
                self.feed(m, id, Input::NoAnswer);
            }
            (Tag::Tip(id), Some(Resp::Tip(tip))) => self.feed(m, id, Input::Tip(tip)),
            (Tag::Reread(id), Some(Resp::All(reading))) => {
                self.feed(m, id, Input::Reread(*reading));
            }
            (Tag::RefusedRead(id), Some(Resp::All(reading))) => {
                self.feed(m, id, Input::Refused(*reading));
            }
            (Tag::Append(id, _), Some(Resp::Stored(seq))) => {
                let agent = self.machines[m].agent.as_ref();
                if let Some(epoch) = agent.and_then(|agent| agent.vouched) {
                    self.note_seen(m, epoch, seq);
                }
                self.feed(m, id, Input::Appended(seq));
            }
            (Tag::Append(id, _), Some(Resp::Refused)) => self.append_refused(m, id),
            (Tag::Append(id, _), None) if self.mutant == Mutant::EndNotRepeated => {
                self.effect(m, id, Effect::Forget);
                self.effect(m, id, Effect::Done);
            }
            (Tag::Tip(id) | Tag::Reread(id) | Tag::RefusedRead(id) | Tag::Append(id, _), _) => {
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
                self.agent_at(m, 1000, AgentEvent::Pull);
            }
            (Tag::Word, Some(Resp::Word(server, epoch))) => self.word(m, server, epoch),
            (Tag::Word, _) => self.agent_at(m, SECOND, AgentEvent::AskWord),
            (Tag::LastTold, resp) => self.last_told(m, resp),
            (Tag::Tell { through }, resp) => self.told(m, through, resp),
            (Tag::LeaseRead, Some(Resp::Lease(last))) => self.lease_read(m, last),
            (Tag::LeaseAcquire { sent }, Some(Resp::Stored(seq))) => {
                self.lease_acknowledged(m, None, seq, sent);
            }
            // Whatever comes of a renewal of a lease that is being taken anew: nobody waits for it.
            (Tag::LeaseRenew { term, .. }, _) if !self.holds_term(m, term) => {}
            (Tag::LeaseRenew { sent, term }, Some(Resp::Stored(seq))) => {
                self.lease_acknowledged(m, Some(term), seq, sent);
            }
            (Tag::LeaseRead | Tag::LeaseAcquire { .. } | Tag::LeaseRenew { .. }, _) => {
                self.lease_again(m, SECOND / 2);
            }
            _ => {}
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
}

fn without_cancel(mut reading: Reading) -> Reading {
    let tips = [&mut reading.tip, &mut reading.operator, &mut reading.keeper];
    for tip in tips.into_iter().flatten() {
        tip.after.cancel_requested = false;
    }
    reading
}

/// A failed attempt of an earlier epoch is repeated without asking.
fn going_on(record: Arc<Record>, now: Time) -> Arc<Record> {
    let mut record = (*record).clone();
    if let Change::Ended { next, .. } = &mut record.change
        && matches!(next, Next::Ask { question } if question.contains("from before that"))
    {
        *next = Next::Backoff { until: now };
        record.after.state = StateWord::Backoff;
    }
    Arc::new(record)
}

fn short(effects: &[Effect]) -> String {
    let words: Vec<String> = effects
        .iter()
        .map(|e| format!("{e:?}").chars().take(40).collect())
        .collect();
    words.join(", ")
}
