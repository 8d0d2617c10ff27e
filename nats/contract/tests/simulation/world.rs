//! The world of a run: its parties, its time, and what happens next.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fleet_contract::ids::{AttemptId, JobId, MachineId, TicketId};
use fleet_contract::job::Job;
use fleet_contract::keeper::Retention;
use fleet_contract::lease::BootTime;
use fleet_contract::spec::Target;
use fleet_contract::time::Time;

use super::bus::{Bus, Micros, SECOND};
use super::checks::Names;
use super::clients::{Client, Spooled};
use super::clock::Clock;
use super::console::Console;
use super::faults::Heal;
use super::guard::Guard;
use super::keepers::KeeperNode;
use super::machine::{ExecEvent, Machine};
use super::mutant::Mutant;
use super::network::{Message, Node, Parked, Tag};
use super::rng::Rng;
use super::{agent::AgentEvent, spool::Told};

/// Fewer are not a fleet.
pub const MACHINES_MIN: usize = 5;
pub const JOBS_MIN: usize = 30;
pub const STEPS_MIN: u64 = 500;
const STEPS_MAX: u64 = 2_000_000;

#[derive(Debug)]
pub enum Event {
    Message(Message),
    Timeout {
        id: u64,
        slept: Micros,
    },
    Agent(usize, u64, AgentEvent, Micros),
    Exec(usize, u64, ExecEvent, Micros),
    Woken(usize),
    Client(usize),
    /// Somebody comes by a home where dispatches are spooled.
    PassBy(usize),
    KeeperTail(usize, u64, bool),
    KeeperTimer(usize, u64),
    Guard(u64),
    Console,
    Offer,
    Fault,
    Heal(Heal),
    Calm,
    Look,
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
    pub steps: u64,
    pub bus: Bus,
    pub hub_clock: Clock,
    pub hub_down: bool,
    /// The hub's machine sleeps, keepers and all, until then.
    pub hub_asleep_until: Micros,
    /// Since when the hub is there, as nobody has disturbed it.
    pub hub_well_since: Micros,
    pub calm: bool,
    pub calm_at: Micros,
    /// Percent of reads that come from a replica that lags.
    pub stale: u64,
    pub retention: Retention,
    pub machines: Vec<Machine>,
    pub clients: Vec<Client>,
    pub clients_cut_until: Micros,
    pub spooled: Vec<Spooled>,
    pub keepers: Vec<KeeperNode>,
    pub guard: Guard,
    pub console: Console,
    /// The fold of every journal, kept along the way: what holds.
    pub truth: BTreeMap<JobId, Job>,
    /// Jobs whose dispatch was acknowledged.
    pub acknowledged: BTreeSet<JobId>,
    /// Jobs whose ticket an answer to an earlier server took away, which had one of this number: sent
    /// again it is held for the same, and nobody knows of it.
    pub ticket_taken: BTreeSet<JobId>,
    /// Where each ticket waits.
    pub tickets: BTreeMap<TicketId, Target>,
    pub hits: BTreeMap<&'static str, u64>,
    pub failure: Option<String>,
    pub pending: BTreeMap<u64, (Node, Tag)>,
    pub parked: Vec<Parked>,
    pub ends: BTreeSet<AttemptId>,
    /// Which attempt was started with a token.
    pub tokens: BTreeMap<u64, AttemptId>,
    /// Attempts that the operator gave up while they may have run: what runs beside them is the
    /// operator's decision.
    pub overruled: BTreeSet<AttemptId>,
    pub names: RefCell<Names>,
    /// When the last record of a job, and of a lease, was stored.
    pub stored_at: BTreeMap<JobId, Micros>,
    pub leased_at: BTreeMap<MachineId, (u64, Micros)>,
    /// Jobs that were purged and then reported by a machine that had one of their attempts: who
    /// shows them as ended never learns.
    pub reborn: BTreeSet<JobId>,
    /// What is being served was sent in this epoch.
    pub in_time: bool,
    /// ... or to another server.
    pub out_of_time: bool,
    /// Nothing is left to happen.
    pub over: bool,
    queue: BinaryHeap<Reverse<Due>>,
    counter: u64,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let stale = if rng.chance(30) { 25 } else { 0 };
        let retention = Retention {
            count: if rng.chance(40) { 8 } else { 100 },
            ..Retention::default()
        };
        let calm_at = rng.range(60, 260) * SECOND;
        let slews = rng.chance(15);
        let mut world = Self {
            seed,
            mutant,
            trace,
            now: 0,
            steps: 0,
            bus: Bus::default(),
            hub_clock: Clock::new(&mut rng, slews),
            hub_down: false,
            hub_asleep_until: 0,
            hub_well_since: 0,
            calm: false,
            calm_at,
            stale,
            retention,
            machines: Vec::new(),
            clients: Vec::new(),
            clients_cut_until: 0,
            spooled: Vec::new(),
            keepers: vec![KeeperNode::absent(), KeeperNode::absent()],
            guard: Guard::default(),
            console: Console::default(),
            truth: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            ticket_taken: BTreeSet::new(),
            tickets: BTreeMap::new(),
            hits: BTreeMap::new(),
            failure: None,
            pending: BTreeMap::new(),
            parked: Vec::new(),
            ends: BTreeSet::new(),
            tokens: BTreeMap::new(),
            overruled: BTreeSet::new(),
            names: RefCell::default(),
            stored_at: BTreeMap::new(),
            leased_at: BTreeMap::new(),
            reborn: BTreeSet::new(),
            in_time: true,
            out_of_time: false,
            over: false,
            queue: BinaryHeap::new(),
            counter: 0,
            rng,
        };
        if slews {
            world.hit("clocks slewed");
        }
        let machines = MACHINES_MIN + usize::try_from(world.rng.range(0, 2)).unwrap();
        for n in 0..machines {
            let machine = Machine::new(n, slews, &mut world.rng);
            world.machines.push(machine);
            world.start_agent(n);
        }
        world.start_keeper(0);
        world.start_guard();
        world.plan_clients(calm_at);
        world.plan_backup();
        world.at(SECOND, Event::Fault);
        world.at(SECOND, Event::Console);
        world.at(calm_at, Event::Calm);
        world.at(10 * SECOND, Event::Look);
        world
    }

    pub fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse(Due(at, _, event))) = self.queue.pop() {
            self.steps += 1;
            self.now = self.now.max(at);
            let Some(event) = self.put_off(at, event) else {
                continue;
            };
            self.step(event);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if self.steps > STEPS_MAX {
                return Err("too many steps: something spins".to_owned());
            }
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.arrives(message),
            Event::Timeout { id, .. } => self.answer(id, None),
            Event::Agent(m, run, event, _) => self.agent_event(m, run, event),
            Event::Exec(m, boot, event, _) => self.exec_event(m, boot, event),
            Event::Woken(m) => self.check_woken(m),
            Event::Client(n) => self.client_starts(n),
            Event::PassBy(n) => self.pass_by(n),
            Event::KeeperTail(k, run, lease) => self.keeper_tail(k, run, lease),
            Event::KeeperTimer(k, run) => self.keeper_timer(k, run),
            Event::Guard(run) => self.guard_turns(run),
            Event::Console => self.console_reads(),
            Event::Offer => self.offer_tickets(),
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

    pub fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A machine's wall clock.
    pub fn wall(&self, m: usize) -> Time {
        self.machines[m].clock.wall(self.now)
    }

    /// A machine's suspend-inclusive clock.
    pub fn boot(&self, m: usize) -> BootTime {
        if self.mutant == Mutant::FenceByWallClock {
            let wall = self.wall(m).as_micros();
            return BootTime(u64::try_from(wall).unwrap() * 1000);
        }
        self.machines[m].clock.boot(self.now)
    }

    /// The hub's suspend-inclusive clock.
    pub fn hub_boot(&self) -> BootTime {
        if self.mutant == Mutant::LeaseByWallClock {
            let wall = self.hub_clock.wall(self.now).as_micros();
            return BootTime(u64::try_from(wall).unwrap() * 1000);
        }
        self.hub_clock.boot(self.now)
    }

    /// What the keeper counts spans by.
    pub fn hub_now(&self) -> Time {
        self.hub_clock.steady(self.now)
    }

    /// What happens to a party that sleeps or is stopped has to wait, and timers that do not run in
    /// sleep have lost that time.
    fn put_off(&mut self, at: Micros, event: Event) -> Option<Event> {
        let (until, slept, event) = match event {
            Event::KeeperTail(..) | Event::KeeperTimer(..) | Event::Guard(_) => {
                (self.hub_asleep_until, 0, event)
            }
            Event::Agent(m, run, event, stamp) => {
                let machine = &self.machines[m];
                let lost = if event.is_timer() {
                    machine.slept - stamp
                } else {
                    0
                };
                let until = machine.frozen_until.max(machine.agent_frozen_until);
                (until, lost, Event::Agent(m, run, event, machine.slept))
            }
            Event::Exec(m, boot, event, stamp) => {
                let machine = &self.machines[m];
                let lost = if event.is_timer() || self.mutant == Mutant::FenceStopsInSleep {
                    machine.slept - stamp
                } else {
                    0
                };
                let event = Event::Exec(m, boot, event, machine.slept);
                (machine.frozen_until, lost, event)
            }
            Event::Timeout { id, slept } => match self.pending.get(&id) {
                Some((Node::Agent(m, _), _)) => {
                    let machine = &self.machines[*m];
                    let lost = machine.slept - slept;
                    let until = machine.frozen_until.max(machine.agent_frozen_until);
                    let slept = machine.slept;
                    (until, lost, Event::Timeout { id, slept })
                }
                Some((Node::Keeper(..), _)) => {
                    (self.hub_asleep_until, 0, Event::Timeout { id, slept })
                }
                _ => return Some(event),
            },
            Event::Message(Message::Reply { id, resp, server }) => {
                let until = self.sleeps_until(id);
                if until > self.now {
                    // It lies with the machine until it wakes, whatever becomes of the link.
                    if self.is_received(id, server) {
                        self.at(until, Event::Message(Message::Received { id, resp }));
                    }
                    return None;
                }
                return Some(Event::Message(Message::Reply { id, resp, server }));
            }
            Event::Message(Message::Received { id, .. }) => (self.sleeps_until(id), 0, event),
            _ => return Some(event),
        };
        let until = until.max(at + slept);
        if until > self.now {
            self.at(until, event);
            return None;
        }
        Some(event)
    }

    /// Until when the one who waits for this answer sleeps.
    fn sleeps_until(&self, id: u64) -> Micros {
        match self.pending.get(&id) {
            Some((Node::Agent(m, _), _)) => {
                let machine = &self.machines[*m];
                machine.frozen_until.max(machine.agent_frozen_until)
            }
            Some((Node::Keeper(..), _)) => self.hub_asleep_until,
            _ => 0,
        }
    }

    // Telling.

    pub fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            let text = self.names.borrow_mut().shorten(&text());
            println!("{:>12.6} {text}", self.now as f64 / 1e6);
        }
    }

    pub fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATED {what}"));
        self.failure
            .get_or_insert_with(|| format!("at {:.6} s: {what}", self.now as f64 / 1e6));
    }

    /// Something of a machine's own that is to be told.
    pub fn event_of(&self, m: usize, no: u64) -> Told {
        Told {
            run: self.machines[m].run(),
            no,
        }
    }
}
