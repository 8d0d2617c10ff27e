//! What goes wrong in a run, and how it gets better.

use std::sync::Arc;

use fleet_contract::ids::{AttemptId, JobId, MachineId, Writer};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::{After, Change, Next, Record, StateWord};

use super::bus::{Req, SECOND};
use super::guard::Harm;
use super::network::Node;
use super::world::{Event, World};

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
    BackupTickets,
    BackupEvents,
    BackupJournal,
    FallAsleep(usize),
    NetworkGone(usize),
    /// The server fails once more.
    HubFails,
}

impl World {
    fn for_a_while(&mut self, most: u64, heal: Heal) {
        let most = if self.rng.chance(10) { most * 2 } else { most };
        let span = self.rng.range(SECOND / 10, most * SECOND);
        self.at((self.now + span).min(self.calm_at), Event::Heal(heal));
    }

    fn any_machine(&mut self) -> usize {
        usize::try_from(self.rng.next()).unwrap_or(0) % self.machines.len()
    }

    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let gap = self.rng.range(SECOND / 2, 8 * SECOND);
        self.at(self.now + gap, Event::Fault);
        let m = self.any_machine();
        // A deaf keeper takes no leases, which are what most of the rest is about.
        let what = if self.rng.chance(8) {
            self.rng.range(20, 24)
        } else {
            self.rng.range(0, 14)
        };
        self.say(|| format!("FAULT {what} m{m}"));
        match what {
            0 => {
                if self.crash_agent(m) {
                    self.hit("agent crash");
                    self.disturb(m);
                    self.for_a_while(70, Heal::AgentStart(m));
                }
            }
            1 => {
                if self.crash_machine(m) {
                    self.hit("machine crash");
                    self.disturb(m);
                    self.for_a_while(100, Heal::MachineStart(m));
                }
            }
            2 => self.cut(m, true, true, "partition"),
            3 => self.cut(m, true, false, "one-way partition: unheard"),
            4 => self.cut(m, false, true, "one-way partition: deaf"),
            5 => self.cut_some(),
            6 if self.rng.chance(50) => self.machines[m].is_tired = true,
            6 => self.falls_asleep(m),
            7 => {
                if self.freeze(m, true) {
                    self.hit("agent frozen");
                }
            }
            8 => self.hub_fails(),
            9 => {
                self.hit("keeper restart");
                self.keepers[0].stop();
                self.keepers[0].is_restarting = true;
                self.for_a_while(60, Heal::KeeperStart(0));
            }
            10 => {
                if self.is_recovered() && !self.hub_down {
                    self.hit("second keeper");
                    self.start_keeper(1);
                    self.for_a_while(90, Heal::KeeperStop(1));
                }
            }
            11 => {
                self.hit("clock jump of a machine");
                let mut clock = self.machines[m].clock.clone();
                clock.jump(&mut self.rng);
                self.machines[m].clock = clock;
            }
            12 => self.hub_clock_jumps(),
            20 => {
                if !self.keepers[0].partitioned {
                    self.hit("keeper cut off");
                    let noticed = self.rng.chance(50);
                    self.cut_keeper(0, noticed);
                    self.for_a_while(120, Heal::KeeperPartition(0));
                }
            }
            21 => self.hub_sleeps(),
            22 | 23 => self.hub_harmed(),
            _ => self.rogue(),
        }
    }

    fn cut(&mut self, m: usize, out: bool, into: bool, what: &'static str) {
        let machine = &mut self.machines[m];
        if machine.cut_out || machine.cut_in {
            return;
        }
        (machine.cut_out, machine.cut_in) = (out, into);
        self.hit(what);
        self.disturb(m);
        self.for_a_while(120, Heal::Partition(m));
    }

    fn falls_asleep(&mut self, m: usize) {
        if !self.calm && self.freeze(m, false) {
            self.hit("machine asleep");
            if self.rng.chance(50) {
                // Whatever was on its way to it still comes.
                self.at(self.now + SECOND / 50, Event::Heal(Heal::NetworkGone(m)));
            }
        }
    }

    /// Where a machine wakes there may be no network for a while.
    fn wakes_without_network(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if self.calm || machine.cut_out || machine.cut_in {
            return;
        }
        (machine.cut_out, machine.cut_in) = (true, true);
        let woken = machine.woken_at;
        self.hit("machine wakes without network");
        let found = woken.max(self.now) + self.rng.range(SECOND, 60 * SECOND);
        self.at(found.min(self.calm_at), Event::Heal(Heal::Partition(m)));
    }

    /// Some are on one side with the hub, others are not.
    fn cut_some(&mut self) {
        self.hit("partition between some");
        for m in 0..self.machines.len() {
            if self.rng.chance(50) {
                self.cut(m, true, true, "partition");
            }
        }
        if self.rng.chance(50) {
            self.hit("operators cut off");
            self.clients_cut_until = self.now + self.rng.range(SECOND, 20 * SECOND);
        }
    }

    /// The server's process ends and another comes, with nothing of what consumers were at.
    fn hub_fails(&mut self) {
        if self.hub_down {
            return;
        }
        self.hit("hub restart");
        if !self.is_recovered() {
            self.hit("hub restart in a recovery");
        }
        self.hub_down = true;
        self.hub_well_since = self.now;
        self.parked.clear();
        self.for_a_while(10, Heal::Hub);
    }

    /// The server ends, and its store is not what it was when it comes back.
    fn hub_harmed(&mut self) {
        if self.hub_down || self.bus.journal.seq == 0 {
            return;
        }
        let harm = match self.rng.range(0, 9) {
            0..=2 => Harm::Truncated,
            3 => Harm::JournalLost,
            4 => Harm::TicketsLost,
            5 => Harm::LeasesLost,
            6 => Harm::EventsLost,
            _ => Harm::Restored,
        };
        if !self.harm(harm) {
            return;
        }
        self.say(|| format!("HARM {harm:?}"));
        self.hit(match harm {
            Harm::Truncated => "journal truncated",
            Harm::JournalLost => "journal lost",
            Harm::TicketsLost => "tickets lost",
            Harm::LeasesLost => "leases lost",
            Harm::EventsLost => "events lost",
            Harm::Restored => "restored from a backup",
        });
        self.hub_fails();
    }

    /// The hub's wall clock jumps: the server delivers again what it should not yet, or later.
    fn hub_clock_jumps(&mut self) {
        self.hit("clock jump of the hub");
        let mut clock = self.hub_clock.clone();
        clock.jump(&mut self.rng);
        self.hub_clock = clock;
        let back = self.rng.chance(50);
        let now = self.now;
        for queued in self.bus.work.queue.values_mut() {
            queued.pending_until = queued.pending_until.map(|until| match back {
                true => until + 60 * SECOND,
                false => now,
            });
        }
        self.at(now, Event::Offer);
        self.at(now + 66 * SECOND, Event::Offer);
    }

    /// The hub's machine is suspended for longer than a lease: nobody renews, and its clock runs on.
    fn hub_sleeps(&mut self) {
        if self.hub_down || self.hub_asleep_until != 0 {
            return;
        }
        let lease = u64::try_from(fleet_contract::lease::LEASE.as_micros()).unwrap();
        let span = self.rng.range(lease * 2 / 3, lease * 2);
        let until = (self.now + span).min(self.calm_at.saturating_sub(1));
        if until < self.now + lease / 2 + SECOND {
            return;
        }
        self.hit("hub asleep");
        self.hub_down = true;
        self.hub_asleep_until = until;
        self.hub_well_since = until;
        // Before anything that was put off until then.
        self.at(until, Event::Heal(Heal::HubWakes));
    }

    /// Somebody writes into a journal what does not count there.
    fn rogue(&mut self) {
        let jobs: Vec<JobId> = self.truth.keys().copied().collect();
        if jobs.is_empty() || self.hub_down {
            return;
        }
        self.hit("void record");
        let job = jobs[usize::try_from(self.rng.next() % jobs.len() as u64).unwrap()];
        let writer = Writer::Machine(rogue());
        let last = self.bus.journal.last_seq(job);
        let record = self.rng.chance(50).then(|| {
            Arc::new(Record {
                prev: last,
                change: Change::Ended {
                    attempt: AttemptId::from_random(self.rng.bits()),
                    outcome: Outcome::Exited { exit_code: 0 },
                    output: OutputCount::default(),
                    started_at: self.hub_now(),
                    ended_at: self.hub_now(),
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
        let time = self.hub_now();
        let req = Req::Append {
            job,
            writer,
            time,
            record,
            expect: Some(last),
        };
        self.serve(0, Node::Nobody, req);
    }

    pub fn heal(&mut self, heal: Heal) {
        self.say(|| format!("HEAL {heal:?}"));
        match heal {
            Heal::Partition(m) => self.heal_cut(m),
            Heal::AgentStart(m) => {
                self.disturb(m);
                self.start_agent(m);
            }
            Heal::MachineStart(m) => {
                self.disturb(m);
                self.start_machine(m);
            }
            Heal::Hub => {
                if self.hub_asleep_until == 0 && self.hub_down {
                    self.hub_returns();
                }
            }
            // Calm has woken it before.
            Heal::HubWakes if self.hub_asleep_until == 0 => {}
            Heal::HubWakes => {
                self.hub_asleep_until = 0;
                self.hub_down = false;
                self.keepers_hear_again(false);
                for m in 0..self.machines.len() {
                    self.reconnect(m);
                }
            }
            Heal::KeeperPartition(k) => self.heal_keeper(k),
            // Nothing starts on a machine that sleeps.
            Heal::KeeperStart(_) if self.hub_asleep_until > self.now => {
                self.at(self.hub_asleep_until, Event::Heal(heal));
            }
            Heal::KeeperStart(k) => {
                self.keepers[k].is_restarting = false;
                if self.is_recovered() {
                    self.start_keeper(k);
                }
            }
            Heal::KeeperStop(k) => self.keepers[k].stop(),
            Heal::FallAsleep(m) => self.falls_asleep(m),
            Heal::NetworkGone(m) => self.wakes_without_network(m),
            Heal::HubFails if self.calm => {}
            Heal::HubFails => self.hub_fails(),
            Heal::BackupTickets | Heal::BackupEvents | Heal::BackupJournal => self.back_up(heal),
        }
    }

    fn heal_cut(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if !(machine.cut_out || machine.cut_in) {
            return;
        }
        (machine.cut_out, machine.cut_in) = (false, false);
        self.disturb(m);
        // A short one the connection survives.
        if self.machines[m].server != self.bus.server || self.rng.chance(70) {
            self.reconnect(m);
        }
    }

    /// Another server process on the same store.
    fn hub_returns(&mut self) {
        self.hub_down = false;
        self.hub_well_since = self.now;
        self.bus.restart();
        self.parked.clear();
        self.keepers_hear_again(true);
        self.start_guard();
        if !self.is_recovered() && self.rng.chance(20) {
            let soon = self.now + self.rng.range(0, SECOND);
            self.at(soon, Event::Heal(Heal::HubFails));
        }
        for m in 0..self.machines.len() {
            self.reconnect(m);
        }
        self.at(self.now, Event::Offer);
    }

    pub fn becalm(&mut self) {
        self.say(|| "CALM".to_owned());
        self.calm = true;
        if std::mem::take(&mut self.hub_asleep_until) != 0 {
            self.hub_down = false;
            self.keepers_hear_again(true);
        }
        if self.hub_down {
            self.hub_returns();
        }
        self.hub_well_since = self.now;
        self.clients_cut_until = 0;
        if self.keepers[0].partitioned {
            self.heal_keeper(0);
        }
        for m in 0..self.machines.len() {
            let machine = &mut self.machines[m];
            (machine.frozen_until, machine.agent_frozen_until) = (0, 0);
            machine.woken_at = machine.woken_at.min(self.now);
            (machine.cut_out, machine.cut_in) = (false, false);
            self.disturb(m);
            self.start_machine(m);
            self.start_agent(m);
            self.reconnect(m);
        }
        self.keepers[1].stop();
        self.keepers[0].is_restarting = false;
        if !self.keepers[0].is_alive() && self.is_recovered() {
            self.start_keeper(0);
        }
    }
}

pub fn rogue() -> MachineId {
    "rogue".parse().unwrap()
}
