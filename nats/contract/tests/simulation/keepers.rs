//! The keeper's shell as a model: it tails the streams and carries out what the contract's keeper
//! wants done.

use std::sync::Arc;

use fleet_contract::ids::{JobId, MachineId, TicketId, Writer};
use fleet_contract::job::{Job, Void};
use fleet_contract::keeper::{Act, Keeper};
use fleet_contract::lease::{BootTime, LEASE, LeaseRecord};
use fleet_contract::record::{Cause, Change};
use fleet_contract::ticket::Ticket;

use super::bus::{Micros, Req, Resp, SECOND};
use super::mutant::Mutant;
use super::network::{Node, Tag};
use super::world::{Event, World};

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
    /// What its readers get next.
    record: u64,
    lease: u64,
    /// The epoch that it goes by, and the one that it was started in.
    epoch: u64,
    of: u64,
    /// It comes back by itself.
    pub is_restarting: bool,
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
            record: 1,
            lease: 1,
            epoch: 0,
            of: 0,
            is_restarting: false,
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

    pub fn lags(&self, seq: u64) -> bool {
        self.record <= seq
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
            self.hub_boot()
        };
        let epoch = match self.mutant {
            Mutant::PolicyDecides => 0,
            _ => self.guard.epoch,
        };
        let of = self.guard.epoch;
        let node = &mut self.keepers[k];
        node.run += 1;
        (node.epoch, node.of) = (epoch, of);
        node.keeper = Some(Keeper::new(started, self.retention).in_epoch(epoch));
        node.hears_since = self.now;
        node.link_broke = false;
        (node.record, node.lease, node.timer) = (1, 1, None);
        self.keeper_tail_later(k, false);
        self.keeper_tail_later(k, true);
    }

    /// They go by what is not so any more.
    pub fn stop_keepers(&mut self) {
        for node in &mut self.keepers {
            node.stop();
        }
    }

    /// Since when the keeper hears everything; none while it does not.
    pub fn keeper_hears_since(&self) -> Option<Micros> {
        let node = &self.keepers[0];
        let hears = node.is_alive() && !node.partitioned && !self.hub_down;
        hears.then_some(node.hears_since.max(self.hub_well_since))
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
        let (boot, deaf) = (self.hub_boot(), self.hub_down);
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
        let late = if lease { 10 } else { 3 };
        let lag = if !self.calm && self.rng.chance(late) {
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
            self.hub_boot()
        };
        let node = &mut self.keepers[k];
        let Some(keeper) = &mut node.keeper else {
            return;
        };
        let mut told = Vec::new();
        if lease {
            let log = &self.bus.lease_log;
            let new = log.partition_point(|(seq, _)| *seq < node.lease);
            for (seq, record) in &log[new..] {
                keeper.lease(record, *seq, boot);
            }
            node.lease = self.bus.lease_seq + 1;
        } else {
            for entry in self.bus.journal.since(node.record) {
                if self.mutant == Mutant::KeeperMissesARecord && entry.seq % 97 == 0 {
                    continue;
                }
                let record = entry.record.as_deref();
                let record = record.ok_or_else(|| Void::Unreadable("garbage".to_owned()));
                let (id, seq) = (entry.job, entry.seq);
                let stored = match self.mutant {
                    Mutant::RecordTimesDecide => entry.time,
                    _ => entry.stored,
                };
                keeper.record(id, seq, entry.time, &entry.writer, record, stored);
                told.push(id);
            }
            node.record = self.bus.journal.seq + 1;
        }
        self.check_keeper(k, told);
        self.keeper_acts(k);
    }

    /// Where the keeper has read as much of a job as there is, it knows what holds.
    fn check_keeper(&mut self, k: usize, told: Vec<JobId>) {
        for id in told {
            if let (Some(known), Some(is)) = (self.keepers[k].job(id), self.truth.get(&id))
                && known.last_seq == is.last_seq
                && known != is
                // Whose purge was never answered: it takes the job for the one that it had.
                && !self.reborn.contains(&id)
            {
                let what = format!("the keeper's fold of {id} is {known:?}, it is {is:?}");
                return self.violated(what);
            }
        }
    }

    pub fn keeper_timer(&mut self, k: usize, run: u64) {
        if self.keepers[k].run == run {
            self.keepers[k].timer = None;
            self.keeper_acts(k);
        }
    }

    /// Whether the hub vouches for the server, in the epoch of this keeper: it gives out nothing at
    /// another, whose store may be an earlier one.
    fn keeper_is_vouched(&self, k: usize) -> bool {
        self.bus.vouched() == Some(self.guard.epoch) && self.keepers[k].of == self.guard.epoch
    }

    fn keeper_acts(&mut self, k: usize) {
        self.keeper_turns(k);
        if !self.keeper_is_vouched(k) {
            return self.keeper_tail_later(k, false);
        }
        let (now, boot) = (self.hub_now(), self.hub_boot());
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
            let next = u64::try_from(next.as_micros()).unwrap().min(3600 * SECOND);
            let at = self.now + self.hub_clock.lasts(next);
            if self.keepers[k].timer.is_none_or(|timer| at < timer) {
                self.keepers[k].timer = Some(at);
                self.at(at, Event::KeeperTimer(k, run));
            }
        }
    }

    fn keeper_act(&mut self, k: usize, act: Act) {
        let node = Node::Keeper(k, self.keepers[k].run);
        let time = self.hub_now();
        let (errand, req) = match act {
            Act::Append { record, .. }
                if self.mutant == Mutant::VoidsStay
                    && matches!(record.change, Change::Restated {}) =>
            {
                return;
            }
            Act::TakeLease { .. } if self.mutant == Mutant::KeeperTakesNothing => return,
            Act::TakeLease { machine, .. } if self.mutant == Mutant::QueuedAgainUnderLease => {
                let (boot, draw) = (self.hub_boot(), self.rng.unit());
                if let Some(keeper) = &mut self.keepers[k].keeper {
                    keeper.lease_taken(&machine, self.bus.lease_seq + 1, boot, time, draw);
                }
                return;
            }
            Act::Clear { job } if self.mutant == Mutant::PurgedAtOnce => {
                let up_to = self.keepers[k].job(job).map_or(0, |job| job.last_seq);
                (Errand::Purge(job), Req::Purge { job, up_to })
            }
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
                let epoch = self.keepers[k].epoch;
                let ticket = self.ticket(job, after, target, spec, epoch);
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
                let lease = self.hub_clock.lasts(lease);
                if heard + 1000 < lease
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
                let expect = (self.mutant != Mutant::LeaseTakenWithoutCas).then_some(expect);
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
        epoch: u64,
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
            epoch,
            spec,
        }
    }

    pub fn keeper_answer(&mut self, k: usize, run: u64, tag: Tag, resp: Option<Resp>) {
        if self.keepers[k].run != run || !self.keeper_is_vouched(k) {
            return;
        }
        let (now, boot, draw) = (self.hub_now(), self.hub_boot(), self.rng.unit());
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
                *self.hits.entry("lease taken").or_default() += 1;
                keeper.lease_taken(&machine, seq, boot, now, draw);
            }
            (Errand::Clear(job), Some(Resp::Ok)) => keeper.cleared(job, now),
            (Errand::Purge(job), Some(Resp::Ok)) => {
                keeper.purged(job);
            }
            _ => {}
        }
        self.keeper_acts(k);
    }
}
