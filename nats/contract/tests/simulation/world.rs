//! The world of a run: clock, network, faults, and what must hold after every step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use fleet_contract::ids::{AttemptId, JobId, MachineId, TicketId, Writer};
use fleet_contract::job::{Applied, Job};
use fleet_contract::keeper::Retention;
use fleet_contract::lease::BootTime;
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::{After, Change, Next, Record, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::time::Time;

use super::agent::{AgentEvent, ExecEvent, Machine};
use super::bus::{Bus, Entry, Micros, Req, Resp, SECOND};
use super::clients::Client;
use super::keepers::KeeperNode;
use super::rng::Rng;

/// What a run does wrong on purpose, to show that the simulation sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    None,
    AckBeforeClaim,
    TicketNamedAsJob,
    ClaimWithoutCas,
    NoReadOnRefusal,
    KeeperDoesNotWait,
    /// Its deafness counts as the machines' silence.
    DeafKeeper,
    StartBeforeClaim,
    NoFence,
    NothingHeld,
    ClaimWithoutTerm,
    TicketsNotChecked,
    SecondAttemptBesideFirst,
    EndNotRepeated,
    TicketsOutliveJournal,
    /// Rare: not among those that every test run has to catch.
    SleptOnTicket,
}

/// How long a request waits for its answer.
pub const ANSWER_WITHIN: Micros = 2 * SECOND;
/// 2023, so that clocks can be wrong in both directions.
const WALL: i64 = 1_700_000_000_000_000;
/// Within this long after the last fault nothing may be stuck.
const SETTLE_WITHIN: Micros = 900 * SECOND;

/// Whoever asks the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A machine's agent, in this run of it.
    Agent(usize, u64),
    Client(usize),
    /// A keeper, in this run of it.
    Keeper(usize, u64),
    /// Nobody waits for the answer.
    Nobody,
}

/// What the asker wanted the answer for.
#[derive(Debug, Clone)]
pub enum Tag {
    Tip(AttemptId),
    Reread(AttemptId),
    RefusedRead(AttemptId),
    Append(AttemptId),
    Ack(u64),
    Pull { unbroken: u64 },
    LeaseRead,
    LeaseAcquire,
    LeaseRenew { sent: Micros },
    Client,
    Keeper(super::keepers::Errand),
    None,
}

#[derive(Debug)]
pub enum Event {
    Arrive { id: u64, from: Node, req: Req },
    Reply { id: u64, resp: Resp },
    Timeout { id: u64 },
    Agent(usize, u64, AgentEvent),
    Exec(usize, u64, ExecEvent),
    Client(usize),
    KeeperTail(usize, u64, bool),
    KeeperTimer(usize, u64),
    Fault,
    Heal(Heal),
    Calm,
    Look,
}

#[derive(Debug, Clone, Copy)]
pub enum Heal {
    Partition(usize),
    AgentStart(usize),
    MachineStart(usize),
    Hub,
    KeeperStart(usize),
    KeeperStop(usize),
    KeeperPartition(usize),
    /// The hub's machine wakes, keeper and all.
    HubWakes,
}

struct Due(Micros, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub struct World {
    pub seed: u64,
    pub mutant: Mutant,
    pub trace: bool,
    pub rng: Rng,
    pub now: Micros,
    pub bus: Bus,
    pub hub_down: bool,
    /// The hub's machine sleeps, keepers and all, until then.
    hub_asleep_until: Micros,
    pub calm: bool,
    calm_at: Micros,
    /// Percent of reads that come from a replica that lags.
    pub stale: u64,
    pub retention: Retention,
    pub machines: Vec<Machine>,
    pub clients: Vec<Client>,
    pub keepers: Vec<KeeperNode>,
    /// The fold of every journal, kept along the way: what holds.
    pub truth: BTreeMap<JobId, Job>,
    /// Jobs whose dispatch was acknowledged.
    pub acknowledged: BTreeSet<JobId>,
    /// Where each ticket waits.
    pub tickets: BTreeMap<TicketId, Target>,
    pub hits: BTreeMap<&'static str, u64>,
    pub failure: Option<String>,
    queue: BinaryHeap<Reverse<Due>>,
    pending: BTreeMap<u64, (Node, Tag)>,
    counter: u64,
    ends: BTreeMap<AttemptId, u64>,
    /// Attempts that the operator gave up while they may have run: what runs beside them is the
    /// operator's decision.
    pub overruled: BTreeSet<AttemptId>,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let stale = if rng.chance(30) { 25 } else { 0 };
        let retention = Retention {
            count: if rng.chance(40) { 2 } else { 100 },
            ..Retention::default()
        };
        let calm_at = rng.range(60, 260) * SECOND;
        let mut world = Self {
            seed,
            mutant,
            trace,
            now: 0,
            bus: Bus::default(),
            hub_down: false,
            hub_asleep_until: 0,
            calm: false,
            calm_at,
            stale,
            retention,
            machines: Vec::new(),
            clients: Vec::new(),
            keepers: Vec::new(),
            truth: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            tickets: BTreeMap::new(),
            hits: BTreeMap::new(),
            failure: None,
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            counter: 0,
            ends: BTreeMap::new(),
            overruled: BTreeSet::new(),
            rng,
        };
        if mutant == Mutant::TicketNamedAsJob {
            world.bus.dedup = Some(BTreeMap::new());
        }
        for n in 0..world.rng.range(2, 4) {
            let machine = Machine::new(usize::try_from(n).unwrap(), &mut world.rng);
            world.machines.push(machine);
            world.start_agent(usize::try_from(n).unwrap());
        }
        world.keepers = vec![KeeperNode::absent(), KeeperNode::absent()];
        world.start_keeper(0);
        world.plan_clients(calm_at);
        world.at(world.now + SECOND, Event::Fault);
        world.at(calm_at, Event::Calm);
        world
    }

    pub fn run(&mut self) -> Result<(), String> {
        let mut steps = 0u64;
        while let Some(Reverse(Due(at, _, event))) = self.queue.pop() {
            steps += 1;
            self.now = self.now.max(at);
            if let Some(until) = self.deferred(&event) {
                self.at(until, event);
                continue;
            }
            self.step(event);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if steps > 2_000_000 {
                return Err("too many steps: something spins".to_owned());
            }
            if self.calm && self.clients.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrive { id, from, req } => self.arrive(id, from, req),
            Event::Reply { id, resp } => self.answer(id, Some(resp)),
            Event::Timeout { id } => self.answer(id, None),
            Event::Agent(m, run, event) => self.agent_event(m, run, event),
            Event::Exec(m, boot, event) => self.exec_event(m, boot, event),
            Event::Client(n) => self.client_starts(n),
            Event::KeeperTail(k, run, lease) => self.keeper_tail(k, run, lease),
            Event::KeeperTimer(k, run) => self.keeper_timer(k, run),
            Event::Fault => self.fault(),
            Event::Heal(heal) => self.heal(heal),
            Event::Calm => self.becalm(),
            Event::Look => self.look(),
        }
    }

    // Time.

    pub fn at(&mut self, at: Micros, event: Event) {
        self.counter += 1;
        self.queue.push(Reverse(Due(at, self.counter, event)));
    }

    pub fn wall(&self, skew: i64) -> Time {
        Time::from_micros(WALL + i64::try_from(self.now).unwrap() + skew)
    }

    pub fn boot(&self) -> BootTime {
        BootTime(self.now * 1000)
    }

    /// A frozen machine or agent sees what happens to it when it wakes.
    fn deferred(&self, event: &Event) -> Option<Micros> {
        let asleep = (self.hub_asleep_until > self.now).then_some(self.hub_asleep_until);
        let (m, agent) = match event {
            Event::KeeperTail(..) | Event::KeeperTimer(..) => return asleep,
            Event::Agent(m, ..) => (*m, true),
            Event::Exec(m, ..) => (*m, false),
            Event::Reply { id, .. } | Event::Timeout { id } => match self.pending.get(id) {
                Some((Node::Agent(m, _), _)) => (*m, true),
                Some((Node::Keeper(..), _)) => return asleep,
                _ => return None,
            },
            _ => return None,
        };
        let machine = &self.machines[m];
        let until = if agent {
            machine.frozen_until.max(machine.agent_frozen_until)
        } else {
            machine.frozen_until
        };
        (until > self.now).then_some(until)
    }

    // Telling.

    pub fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e6, text());
        }
    }

    pub fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATED {what}"));
        self.failure
            .get_or_insert_with(|| format!("at {:.6} s: {what}", self.now as f64 / 1e6));
    }

    // The network.

    fn reachable(&self, node: Node) -> bool {
        !self.hub_down
            && match node {
                Node::Agent(m, _) => !self.machines[m].partitioned,
                Node::Keeper(k, _) => !self.keepers[k].partitioned,
                _ => true,
            }
    }

    fn delay(&mut self) -> Micros {
        if !self.calm && self.rng.chance(3) {
            self.hit("message late");
            return self.rng.range(SECOND / 10, 8 * SECOND);
        }
        self.rng.range(100, 5000)
    }

    pub fn send(&mut self, from: Node, tag: Tag, req: Req) {
        self.counter += 1;
        let id = self.counter;
        if from != Node::Nobody {
            self.pending.insert(id, (from, tag));
            self.at(self.now + ANSWER_WITHIN, Event::Timeout { id });
        }
        if !self.reachable(from) {
            return;
        }
        if !self.calm && self.rng.chance(2) {
            self.hit("request lost");
            return;
        }
        if !self.calm && self.rng.chance(2) {
            self.hit("request twice");
            let at = self.now + self.delay();
            let req = req.clone();
            self.at(at, Event::Arrive { id, from, req });
        }
        let at = self.now + self.delay();
        self.at(at, Event::Arrive { id, from, req });
    }

    fn arrive(&mut self, id: u64, from: Node, req: Req) {
        if !self.reachable(from) {
            return;
        }
        let resp = self.serve(from, req);
        if !self.calm && self.rng.chance(2) {
            self.hit("answer lost");
            return;
        }
        let at = self.now + self.delay();
        self.at(at, Event::Reply { id, resp });
    }

    fn answer(&mut self, id: u64, resp: Option<Resp>) {
        let Some((node, _)) = self.pending.get(&id) else {
            return;
        };
        if resp.is_some() && !self.reachable(*node) {
            return;
        }
        let Some((node, tag)) = self.pending.remove(&id) else {
            return;
        };
        if resp.is_none() {
            self.hit("no answer");
        }
        match node {
            Node::Agent(m, run) => self.agent_answer(m, run, tag, resp),
            Node::Client(n) => self.client_answer(n, resp),
            Node::Keeper(k, run) => self.keeper_answer(k, run, tag, resp),
            Node::Nobody => {}
        }
    }

    fn serve(&mut self, from: Node, req: Req) -> Resp {
        let stale = if self.calm { 0 } else { self.stale };
        let rng = &mut self.rng;
        match req {
            Req::Tip(job) => Resp::Tip(self.bus.tip(job, stale, rng)),
            Req::All(job, me) => Resp::All(Box::new(self.bus.reading(job, &me, stale, rng))),
            Req::Whole(job) => Resp::Whole(self.bus.whole(job, stale, rng).map(Box::new)),
            Req::Append {
                job,
                writer,
                time,
                record,
                expect,
            } => {
                if expect.is_some_and(|expect| expect != self.bus.last_seq(job)) {
                    self.hit("append refused");
                    return Resp::Refused;
                }
                let honest = from != Node::Nobody;
                Resp::Stored(self.store(job, writer, time, record, honest))
            }
            Req::Purge { job, up_to } => {
                self.purge(job, up_to);
                Resp::Ok
            }
            Req::Clear(job) => {
                if self.mutant != Mutant::TicketsOutliveJournal {
                    self.bus.queue.retain(|_, queued| queued.ticket.job != job);
                }
                Resp::Ok
            }
            Req::Publish(ticket) => {
                self.tickets.insert(ticket.ticket, ticket.target.clone());
                Resp::Stored(self.bus.publish(ticket))
            }
            Req::Delete(seq) | Req::Ack(seq) => {
                self.bus.queue.remove(&seq);
                Resp::Ok
            }
            Req::Nak(seq) => {
                if let Some(queued) = self.bus.queue.get_mut(&seq) {
                    queued.pending_until = None;
                }
                Resp::Ok
            }
            Req::Check(seq) => Resp::There(self.bus.queue.contains_key(&seq)),
            Req::Pull(me) => {
                let pulled = self.bus.pull(&me, self.now);
                if let Some((seq, ticket)) = &pulled {
                    let (seq, job) = (*seq, ticket.job);
                    self.say(|| format!("deliver {seq} {job} to {me}"));
                }
                Resp::Ticket(pulled)
            }
            Req::LeaseRead(machine) => Resp::Lease(self.bus.leases.get(&machine).cloned()),
            Req::LeaseAppend { record, expect } => {
                let machine = record.machine().clone();
                if self.bus.leases.get(&machine).map_or(0, |(seq, _)| *seq) != expect {
                    self.hit("lease refused");
                    return Resp::Refused;
                }
                let seq = self.bus.next_seq();
                self.say(|| format!("LEASE {seq} {record:?}"));
                self.bus.leases.insert(machine, (seq, record.clone()));
                self.bus.lease_log.push((seq, record));
                self.wake_keepers(true);
                Resp::Stored(seq)
            }
        }
    }

    // The journal and what must hold of it.

    fn store(
        &mut self,
        job: JobId,
        writer: Writer,
        time: Time,
        record: Option<Arc<Record>>,
        honest: bool,
    ) -> u64 {
        let seq = self.bus.next_seq();
        let stored = self.wall(0);
        if self.bus.purged.contains_key(&job) {
            self.violated(format!("job {job} was purged and comes to life"));
        }
        let before = self.truth.get(&job).cloned();
        let applied = match (&mut self.truth.get_mut(&job), &record) {
            (Some(known), Some(record)) => known.apply(seq, time, &writer, record),
            (Some(known), None) => {
                known.skip(seq);
                Applied::Changed
            }
            (None, Some(record)) => match Job::first(job, seq, time, &writer, record) {
                Ok(first) => {
                    self.truth.insert(job, first);
                    Applied::Changed
                }
                Err(void) => Applied::Void(void),
            },
            (None, None) => Applied::Changed,
        };
        self.say(|| match &record {
            Some(r) => format!(
                "JOB {job} {seq} (prev {}) {writer}: {} {:?} -> {} {applied:?}",
                r.prev,
                r.change.kind(),
                r.change.attempt(),
                r.after.state
            ),
            None => format!("JOB {job} {seq} {writer}: garbage"),
        });
        if honest {
            if let (Applied::Void(void), Some(record)) = (&applied, &record) {
                let kind = record.change.kind();
                self.violated(format!("{writer} wrote a void {kind} on {job}: {void}"));
            }
            if let Some(record) = &record {
                self.after_record(&writer, before.as_ref(), record);
            }
        }
        let entry = Entry {
            job,
            seq,
            writer,
            time,
            stored,
            record,
        };
        self.bus
            .journals
            .entry(job)
            .or_default()
            .push(entry.clone());
        self.bus.log.push(entry);
        self.wake_keepers(false);
        seq
    }

    fn after_record(&mut self, writer: &Writer, before: Option<&Job>, record: &Record) {
        self.hit(record.change.kind());
        match &record.change {
            Change::Claimed {
                target: Some(_), ..
            } => self.hit("claimed by an unnamed ticket"),
            Change::Claimed { .. } if before.is_none() => self.hit("claimed first"),
            Change::Ended {
                attempt, outcome, ..
            } => {
                *self.ends.entry(*attempt).or_default() += 1;
                if self.ends[attempt] > 1 {
                    self.violated(format!("attempt {attempt} has two ends"));
                }
                if before.is_some_and(|b| b.after().state == StateWord::NeedsHuman) {
                    self.hit("late end of an asked-about attempt");
                }
                match outcome {
                    Outcome::Fenced => self.hit("ended fenced"),
                    Outcome::Canceled => self.hit("ended canceled"),
                    Outcome::Unknown { .. } => self.hit("ended unknown"),
                    _ => {}
                }
            }
            Change::Lost { next, .. } => self.hit(match next {
                Next::Ask { .. } => "lost: ask",
                Next::Backoff { .. } => "lost: retry",
                Next::End => "lost: end",
            }),
            _ => {}
        }
        if let Some(open) = before.and_then(|before| before.state.open())
            && *writer == Writer::Operator
            && record.after.attempt.is_none()
        {
            self.hit("overruled by the operator");
            self.overruled.insert(open.attempt);
        }
        if let Some(before) = before
            && before.state.word().is_terminal()
            && *writer != Writer::Operator
            && !matches!(record.change, Change::Restated {})
        {
            self.violated(format!(
                "{writer} changed an ended job with {}",
                record.change.kind()
            ));
        }
        self.hit(match record.after.state {
            StateWord::Queued => "is queued",
            StateWord::Running => "is running",
            StateWord::Backoff => "is backoff",
            StateWord::NeedsHuman => "is needs_human",
            StateWord::Succeeded => "is succeeded",
            StateWord::Failed => "is failed",
            StateWord::TimedOut => "is timed_out",
            StateWord::Canceled => "is canceled",
            StateWord::Lost => "is lost",
            StateWord::Expired => "is expired",
            StateWord::Rejected => "is rejected",
        });
    }

    fn purge(&mut self, job: JobId, up_to: u64) {
        let last = self.bus.last_seq(job);
        let Some(known) = self.truth.get(&job) else {
            return;
        };
        if last > up_to {
            return;
        }
        if !known.state.word().is_terminal() {
            self.violated(format!("job {job} was purged before its end"));
        }
        self.say(|| format!("PURGE {job}"));
        self.hit("purged");
        self.bus.journals.remove(&job);
        self.truth.remove(&job);
        self.bus.purged.insert(job, last);
    }

    // Faults.

    fn for_a_while(&mut self, most: u64, heal: Heal) {
        let span = self.rng.range(SECOND / 10, most * SECOND);
        self.at((self.now + span).min(self.calm_at), Event::Heal(heal));
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let gap = self.rng.range(SECOND, 12 * SECOND);
        self.at(self.now + gap, Event::Fault);
        let m = usize::try_from(self.rng.next()).unwrap_or(0) % self.machines.len();
        // A deaf keeper takes no leases, which are what most of the rest is about.
        let what = if self.rng.chance(6) {
            self.rng.range(11, 13)
        } else {
            self.rng.range(0, 11)
        };
        self.say(|| format!("FAULT {what} machine {m}"));
        match what {
            0 => {
                if self.crash_agent(m) {
                    self.hit("agent crash");
                    self.for_a_while(70, Heal::AgentStart(m));
                }
            }
            1 => {
                if self.crash_machine(m) {
                    self.hit("machine crash");
                    self.for_a_while(100, Heal::MachineStart(m));
                }
            }
            2 | 3 => {
                if !std::mem::replace(&mut self.machines[m].partitioned, true) {
                    self.hit("partition");
                    self.for_a_while(120, Heal::Partition(m));
                }
            }
            4 => {
                if self.freeze(m, false) {
                    self.hit("machine frozen");
                }
            }
            5 => {
                if self.freeze(m, true) {
                    self.hit("agent frozen");
                }
            }
            6 => {
                self.hit("hub restart");
                self.hub_down = true;
                self.bus.restart();
                self.for_a_while(10, Heal::Hub);
            }
            7 => {
                self.hit("keeper restart");
                self.keepers[0].stop();
                self.for_a_while(60, Heal::KeeperStart(0));
            }
            8 => {
                self.hit("second keeper");
                self.start_keeper(1);
                self.for_a_while(90, Heal::KeeperStop(1));
            }
            9 => {
                self.hit("clock jump");
                let hours = i64::try_from(self.rng.range(0, 5)).unwrap() - 2;
                self.machines[m].skew = hours * 3_600_000_000;
            }
            11 => {
                if !self.keepers[0].partitioned {
                    self.hit("keeper cut off");
                    let noticed = self.rng.chance(50);
                    self.cut_keeper(0, noticed);
                    self.for_a_while(120, Heal::KeeperPartition(0));
                }
            }
            12 => self.hub_sleeps(),
            _ => self.rogue(),
        }
    }

    /// The hub's machine is suspended for longer than a lease: nobody renews, and its clock runs on.
    fn hub_sleeps(&mut self) {
        if self.hub_down || self.hub_asleep_until != 0 {
            return;
        }
        self.hit("hub asleep");
        self.hub_down = true;
        let lease = u64::try_from(fleet_contract::lease::LEASE.as_micros()).unwrap();
        let span = self.rng.range(lease * 2 / 3, lease * 2);
        let until = (self.now + span).max(self.now + lease / 2 + SECOND);
        self.hub_asleep_until = until;
        // Before anything that was put off until then.
        self.at(until, Event::Heal(Heal::HubWakes));
    }

    /// Somebody writes into a journal what does not count there.
    fn rogue(&mut self) {
        let jobs: Vec<JobId> = self.truth.keys().copied().collect();
        if jobs.is_empty() {
            return;
        }
        self.hit("void record");
        let job = jobs[usize::try_from(self.rng.next() % jobs.len() as u64).unwrap()];
        let writer = Writer::Machine(rogue());
        let last = self.bus.last_seq(job);
        let record = self.rng.chance(50).then(|| {
            Arc::new(Record {
                prev: last,
                change: Change::Ended {
                    attempt: AttemptId::from_random(self.rng.bits()),
                    outcome: Outcome::Exited { exit_code: 0 },
                    output: OutputCount::default(),
                    started_at: self.wall(0),
                    ended_at: self.wall(0),
                    next: Next::End,
                },
                after: After {
                    state: StateWord::Succeeded,
                    attempt: None,
                    machine: None,
                    cancel_requested: false,
                    attempts: 1,
                    losses: 0,
                },
            })
        });
        let time = self.wall(0);
        let req = Req::Append {
            job,
            writer,
            time,
            record,
            expect: Some(last),
        };
        self.serve(Node::Nobody, req);
    }

    fn heal(&mut self, heal: Heal) {
        self.say(|| format!("HEAL {heal:?}"));
        match heal {
            Heal::Partition(m) => self.machines[m].partitioned = false,
            Heal::AgentStart(m) => self.start_agent(m),
            Heal::MachineStart(m) => self.start_machine(m),
            Heal::Hub => {
                if self.hub_asleep_until == 0 {
                    self.hub_down = false;
                    self.keepers_hear_again(true);
                }
            }
            // Calm has woken it before.
            Heal::HubWakes if self.hub_asleep_until == 0 => {}
            Heal::HubWakes => {
                self.hub_asleep_until = 0;
                self.hub_down = false;
                self.keepers_hear_again(false);
            }
            Heal::KeeperPartition(k) => self.heal_keeper(k),
            Heal::KeeperStart(k) => self.start_keeper(k),
            Heal::KeeperStop(k) => self.keepers[k].stop(),
        }
    }

    fn becalm(&mut self) {
        self.say(|| "CALM".to_owned());
        self.calm = true;
        if std::mem::take(&mut self.hub_asleep_until) != 0 {
            self.keepers_hear_again(true);
        }
        self.hub_down = false;
        if self.keepers[0].partitioned {
            self.heal_keeper(0);
        }
        for m in 0..self.machines.len() {
            let machine = &mut self.machines[m];
            machine.partitioned = false;
            (machine.frozen_until, machine.agent_frozen_until) = (0, 0);
            self.start_machine(m);
            self.start_agent(m);
        }
        self.keepers[1].stop();
        if !self.keepers[0].is_alive() {
            self.start_keeper(0);
        }
        self.at(self.now + 10 * SECOND, Event::Look);
    }

    // The end.

    fn look(&mut self) {
        match self.unsettled() {
            None => {
                self.last_checks();
                // Ends the run.
                self.clients.clear();
            }
            Some(why) if self.now > self.calm_at + SETTLE_WITHIN => {
                self.violated(format!("stuck: {why}"));
            }
            Some(_) => self.at(self.now + 10 * SECOND, Event::Look),
        }
    }

    fn unsettled(&self) -> Option<String> {
        for (id, job) in &self.truth {
            let word = job.state.word();
            if !word.is_terminal() && word != StateWord::NeedsHuman {
                return Some(format!("job {id} is {:?}", job.state));
            }
            if job.void_on_top {
                return Some(format!("job {id} has a void record on top"));
            }
        }
        if let Some((seq, queued)) = self.bus.queue.first_key_value() {
            let job = queued.ticket.job;
            return Some(format!("ticket {seq} of job {job} is still there"));
        }
        for machine in &self.machines {
            if let Some(why) = machine.unsettled() {
                return Some(why);
            }
        }
        if self.keepers[0].lags(self.bus.log.len()) {
            return Some("the keeper lags".to_owned());
        }
        let client = self.clients.iter().find(|c| !c.is_over())?;
        Some(format!("a client is still at it: {client:?}"))
    }

    fn last_checks(&mut self) {
        for job in self.acknowledged.clone() {
            if !self.truth.contains_key(&job) && !self.bus.purged.contains_key(&job) {
                self.violated(format!("job {job} was acknowledged and is lost"));
            }
        }
        for (id, known) in self.truth.clone() {
            if super::bus::fold(self.bus.entries(id)).as_ref() != Some(&known) {
                self.violated(format!("a fresh fold of {id} is another"));
            }
            if self.keepers[0].job(id) != Some(&known) {
                self.violated(format!("the keeper's fold of {id} is another"));
            }
        }
    }
}

pub fn rogue() -> MachineId {
    "rogue".parse().unwrap()
}
