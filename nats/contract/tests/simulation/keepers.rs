//! The keeper's shell as a model: it tails the streams and carries out what the contract's keeper
//! wants done.

use std::sync::Arc;

use fleet_contract::ids::{JobId, MachineId, TicketId, Writer};
use fleet_contract::job::{Job, Void};
use fleet_contract::keeper::{Act, Keeper};
use fleet_contract::lease::{BootTime, LEASE, LeaseRecord};
use fleet_contract::record::Cause;
use fleet_contract::ticket::Ticket;

use super::bus::{Micros, Req, Resp, SECOND};
use super::world::{Event, Mutant, Node, Tag, World};

/// What a keeper waits for an answer to.
#[derive(Debug, Clone)]
pub enum Errand {
    Nothing,
    Issue {
        job: JobId,
        after: u64,
        ticket: TicketId,
        cause: Cause,
    },
    Check {
        job: JobId,
        revision: u64,
    },
    Take(MachineId),
    Clear(JobId),
    Purge(JobId),
}

pub struct KeeperNode {
    run: u64,
    keeper: Option<Keeper>,
    records: usize,
    leases: usize,
    timer: Option<Micros>,
    /// Cut off from the bus.
    pub partitioned: bool,
    /// Its link broke since its last turn, as far as it has noticed.
    link_broke: bool,
    /// Since when it hears, in truth: while it is alive and not cut off.
    hears_since: Micros,
}

impl KeeperNode {
    pub fn absent() -> Self {
        Self {
            run: 0,
            keeper: None,
            records: 0,
            leases: 0,
            timer: None,
            partitioned: false,
            link_broke: false,
            hears_since: 0,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.keeper.is_some()
    }

    pub fn stop(&mut self) {
        self.keeper = None;
        self.timer = None;
    }

    pub fn lags(&self, records: usize) -> bool {
        self.records < records
    }

    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.keeper.as_ref()?.job(id)
    }
}

impl World {
    pub fn start_keeper(&mut self, k: usize) {
        if self.keepers[k].is_alive() {
            return;
        }
        let started = if self.mutant == Mutant::KeeperDoesNotWait {
            BootTime(0)
        } else {
            self.boot()
        };
        let node = &mut self.keepers[k];
        node.run += 1;
        node.keeper = Some(Keeper::new(started, self.retention));
        node.hears_since = self.now;
        node.link_broke = false;
        (node.records, node.leases, node.timer) = (0, 0, None);
        self.keeper_tail_later(k, false);
        self.keeper_tail_later(k, true);
    }

    /// The keepers hear again what they could not; `noticed` by their links, or not at all.
    pub fn keepers_hear_again(&mut self, noticed: bool) {
        for node in &mut self.keepers {
            node.hears_since = self.now;
            node.link_broke |= noticed;
        }
    }

    /// A keeper is cut off, and may notice it only when it is over.
    pub fn cut_keeper(&mut self, k: usize, noticed: bool) {
        self.keepers[k].partitioned = true;
        self.keepers[k].link_broke |= noticed;
    }

    pub fn heal_keeper(&mut self, k: usize) {
        let node = &mut self.keepers[k];
        node.partitioned = false;
        node.link_broke = true;
        node.hears_since = self.now;
    }

    /// What the shell says at each turn of its loop.
    fn keeper_turns(&mut self, k: usize) {
        if self.mutant == Mutant::KeeperDoesNotWait || self.mutant == Mutant::DeafKeeper {
            return;
        }
        let (boot, deaf) = (self.boot(), self.hub_down);
        let node = &mut self.keepers[k];
        let hears = !std::mem::take(&mut node.link_broke) && !node.partitioned && !deaf;
        if let Some(keeper) = &mut node.keeper
            && keeper.turns(boot, hears)
        {
            self.hit("leases counted anew");
        }
    }

    pub fn wake_keepers(&mut self, lease: bool) {
        for k in 0..self.keepers.len() {
            if self.keepers[k].is_alive() {
                self.keeper_tail_later(k, lease);
            }
        }
    }

    fn keeper_tail_later(&mut self, k: usize, lease: bool) {
        let lag = if !self.calm && self.rng.chance(3) {
            self.rng.range(SECOND / 10, 5 * SECOND)
        } else {
            self.rng.range(200, 20_000)
        };
        let run = self.keepers[k].run;
        self.at(self.now + lag, Event::KeeperTail(k, run, lease));
    }

    pub fn keeper_tail(&mut self, k: usize, run: u64, lease: bool) {
        if self.keepers[k].run != run || self.hub_down || self.keepers[k].partitioned {
            if self.keepers[k].run == run && self.keepers[k].is_alive() {
                self.keeper_tail_later(k, lease);
            }
            return;
        }
        let boot = if self.mutant == Mutant::KeeperDoesNotWait {
            BootTime(0)
        } else {
            self.boot()
        };
        let node = &mut self.keepers[k];
        let Some(keeper) = &mut node.keeper else {
            return;
        };
        if lease {
            for (seq, record) in &self.bus.lease_log[node.leases..] {
                keeper.lease(record, *seq, boot);
            }
            node.leases = self.bus.lease_log.len();
        } else {
            for entry in &self.bus.log[node.records..] {
                let gone = self.bus.purged.get(&entry.job);
                if gone.is_some_and(|up_to| entry.seq <= *up_to) {
                    continue;
                }
                let record = entry.record.as_deref();
                let record = record.ok_or_else(|| Void::Unreadable("garbage".to_owned()));
                let (id, seq) = (entry.job, entry.seq);
                keeper.record(id, seq, entry.time, &entry.writer, record, entry.stored);
            }
            node.records = self.bus.log.len();
        }
        self.keeper_acts(k);
    }

    pub fn keeper_timer(&mut self, k: usize, run: u64) {
        if self.keepers[k].run == run {
            self.keepers[k].timer = None;
            self.keeper_acts(k);
        }
    }

    fn keeper_acts(&mut self, k: usize) {
        self.keeper_turns(k);
        let (now, boot) = (self.wall(0), self.boot());
        let run = self.keepers[k].run;
        let Some(keeper) = &mut self.keepers[k].keeper else {
            return;
        };
        let acts = keeper.due(now, boot);
        let next = keeper.next_due(now, boot);
        for act in acts {
            self.say(|| format!("keeper {k}: {act:?}").chars().take(200).collect());
            self.keeper_act(k, act);
        }
        if let Some(next) = next {
            let at = self.now + u64::try_from(next.as_micros()).unwrap() + 1;
            if self.keepers[k].timer.is_none_or(|timer| at < timer) {
                self.keepers[k].timer = Some(at);
                self.at(at, Event::KeeperTimer(k, run));
            }
        }
    }

    fn keeper_act(&mut self, k: usize, act: Act) {
        let node = Node::Keeper(k, self.keepers[k].run);
        let time = self.wall(0);
        let (errand, req) = match act {
            Act::Append { job, record } => (
                Errand::Nothing,
                Req::Append {
                    job,
                    writer: Writer::Keeper,
                    time,
                    expect: Some(record.prev),
                    record: Some(Arc::new(*record)),
                },
            ),
            Act::Issue {
                job,
                after,
                target,
                cause,
            } => {
                self.hit("ticket issued by the keeper");
                if cause == Cause::Republish {
                    self.hit("ticket republished");
                }
                let Some(known) = self.keepers[k].job(job) else {
                    return;
                };
                let spec = Box::new((*known.spec).clone());
                let ticket = self.ticket(job, after, target, spec);
                let errand = Errand::Issue {
                    job,
                    after,
                    ticket: ticket.ticket,
                    cause,
                };
                (errand, Req::Publish(Arc::new(ticket)))
            }
            Act::CheckTicket {
                job,
                revision,
                work_seq,
                ..
            } => {
                if self.mutant == Mutant::TicketsNotChecked {
                    return;
                }
                (Errand::Check { job, revision }, Req::Check(work_seq))
            }
            Act::TakeLease { machine, expect } => {
                let node = &self.keepers[k];
                let heard = self.now - node.hears_since;
                let lease = u64::try_from(LEASE.as_micros()).unwrap();
                if heard < lease
                    && !(self.hub_down || node.partitioned)
                    && self.mutant != Mutant::KeeperDoesNotWait
                {
                    let heard = heard / SECOND;
                    self.violated(format!(
                        "the lease of {machine} is taken by a keeper that hears since {heard} s: deaf"
                    ));
                }
                let record = LeaseRecord::Hub {
                    machine: machine.clone(),
                };
                (Errand::Take(machine), Req::LeaseAppend { record, expect })
            }
            Act::Clear { job } => (Errand::Clear(job), Req::Clear(job)),
            Act::Purge { job, up_to } => (Errand::Purge(job), Req::Purge { job, up_to }),
        };
        self.send(node, Tag::Keeper(errand), req);
    }

    /// A fresh ticket.
    pub fn ticket(
        &mut self,
        job: JobId,
        after: u64,
        target: fleet_contract::spec::Target,
        spec: Box<fleet_contract::spec::JobSpec>,
    ) -> Ticket {
        let ticket = if self.mutant == Mutant::TicketNamedAsJob {
            job.as_str().parse().unwrap()
        } else {
            TicketId::from_random(self.rng.bits())
        };
        Ticket {
            ticket,
            job,
            after,
            target,
            epoch: 0,
            spec,
        }
    }

    pub fn keeper_answer(&mut self, k: usize, run: u64, tag: Tag, resp: Option<Resp>) {
        if self.keepers[k].run != run {
            return;
        }
        let (now, boot, draw) = (self.wall(0), self.boot(), self.rng.unit());
        let Some(keeper) = &mut self.keepers[k].keeper else {
            return;
        };
        let Tag::Keeper(errand) = tag else { return };
        match (errand, resp) {
            (
                Errand::Issue {
                    job,
                    after,
                    ticket,
                    cause,
                },
                Some(Resp::Stored(work_seq)),
            ) => {
                let Some(record) = keeper.queued(job, after, ticket, work_seq, cause, now) else {
                    return;
                };
                let act = Act::Append {
                    job,
                    record: Box::new(record),
                };
                self.keeper_act(k, act);
            }
            (Errand::Check { job, revision }, Some(Resp::There(false))) => {
                keeper.ticket_gone(job, revision);
            }
            (Errand::Take(machine), Some(Resp::Stored(seq))) => {
                self.hits
                    .entry("lease taken")
                    .and_modify(|n| *n += 1)
                    .or_insert(1);
                keeper.lease_taken(&machine, seq, boot, now, draw);
            }
            (Errand::Clear(job), Some(Resp::Ok)) => keeper.cleared(job, now),
            (Errand::Purge(job), Some(Resp::Ok)) if self.bus.purged.contains_key(&job) => {
                keeper.purged(job);
            }
            _ => {}
        }
        self.keeper_acts(k);
    }
}
