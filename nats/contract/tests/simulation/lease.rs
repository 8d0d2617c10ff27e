//! The agent's lease as a model of its shell: taken, renewed, lost; and what it lets the agent do.

use std::time::Duration;

use fleet_contract::attempt::Input;
use fleet_contract::ids::AttemptId;
use fleet_contract::lease::{
    Acquire, BootTime, CLAIM_WITHIN, FENCE_AFTER, LEASE, LeaseRecord, Mark, RENEW_EVERY, acquire,
};

use super::agent::AgentEvent;
use super::bus::{Micros, Req, SECOND};
use super::faults::Heal;
use super::mutant::Mutant;
use super::network::Tag;
use super::world::{Event, World};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lease {
    None,
    Held {
        term: u64,
        seq: u64,
        sent: BootTime,
        /// The hub's epoch in which it was taken.
        epoch: u64,
    },
}

fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap()
}

impl World {
    /// All that this run answers for, whatever happens to its lease.
    fn holds(&self, m: usize) -> Vec<AttemptId> {
        let machine = &self.machines[m];
        let own = machine.agent.iter().flat_map(|agent| {
            let live = agent.attempts.iter().filter(|(_, s)| s.attempt.is_held());
            live.map(|(id, _)| *id)
        });
        let mut held: Vec<AttemptId> = own.chain(machine.procs.keys().copied()).collect();
        if self.mutant == Mutant::HeldForEver {
            // All that ever ran here.
            let all = self.truth.values().flat_map(|job| &job.attempts);
            held.extend(all.filter(|a| a.machine == machine.id).map(|a| a.id));
        }
        held.sort();
        held.dedup();
        held
    }

    /// Takes the lease, once the hub vouches for the server.
    pub fn take_lease(&mut self, m: usize) {
        let node = self.node(m);
        let id = self.machines[m].id.clone();
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        agent.lease = Lease::None;
        if agent.vouched.is_some() && !std::mem::replace(&mut agent.taking, true) {
            self.send(node, Tag::LeaseRead, Req::LeaseRead(id));
        }
    }

    pub fn lease_again(&mut self, m: usize, after: Micros) {
        if let Some(agent) = &mut self.machines[m].agent {
            agent.lease = Lease::None;
            agent.taking = false;
        }
        self.agent_at(m, after, AgentEvent::TakeLease);
    }

    /// What it has seen of the journal is on its disk before the hub is told.
    fn write_down_seen(&mut self, m: usize) -> Option<Mark> {
        let machine = &mut self.machines[m];
        if let Some(agent) = &machine.agent {
            machine.seen = machine.seen.max(agent.seen);
        }
        Some(machine.seen).filter(|seen| *seen != Mark::default())
    }

    fn lease_record(&mut self, m: usize, term: Option<u64>, held: Vec<AttemptId>) -> LeaseRecord {
        let seen = self.write_down_seen(m);
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
            seen,
        }
    }

    pub fn lease_read(&mut self, m: usize, last: Option<(u64, LeaseRecord)>) {
        let instance = self.machines[m].instance;
        let last = last.as_ref().map(|(seq, record)| (*seq, record));
        let Acquire::Take { expect } = acquire(instance, last) else {
            return self.lease_again(m, 5 * SECOND);
        };
        let held = self.holds(m);
        let record = self.lease_record(m, None, held.clone());
        if let Some(agent) = &mut self.machines[m].agent {
            agent.held = held;
        }
        let (node, sent) = (self.node(m), self.boot(m));
        let expect = Some(expect);
        self.send(
            node,
            Tag::LeaseAcquire { sent },
            Req::LeaseAppend { record, expect },
        );
    }

    pub fn lease_acknowledged(&mut self, m: usize, term: Option<u64>, seq: u64, sent: BootTime) {
        let now = self.boot(m);
        let counted_from = if self.mutant == Mutant::FenceCountedFromAnswer {
            now
        } else {
            sent
        };
        let fence_after = if self.mutant == Mutant::FenceWithoutMargin {
            LEASE
        } else {
            FENCE_AFTER
        };
        let machine = &mut self.machines[m];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        let Some(vouched) = agent.vouched else {
            // Another connection by now: nothing that it says counts.
            return self.lease_again(m, SECOND / 2);
        };
        machine.fence_at = machine.fence_at.max(counted_from.plus(fence_after));
        let acquired = term.is_none();
        let term = term.unwrap_or(seq);
        let (lapsed, epoch) = match agent.lease {
            Lease::Held {
                sent: before,
                epoch,
                ..
            } => (now >= before.plus(CLAIM_WITHIN), epoch),
            Lease::None => (true, vouched),
        };
        agent.unbroken += u64::from(lapsed);
        agent.lapse_told = false;
        agent.taking = false;
        agent.lease = Lease::Held {
            term,
            seq,
            sent,
            epoch,
        };
        let due = sent.plus(RENEW_EVERY).since(now);
        let renew = self.machines[m].clock.lasts(micros(due));
        self.fence_moved(m);
        self.agent_at(m, renew, AgentEvent::Renew);
        if acquired {
            // What the hub ruled while it had the lease is to be known at once, and what was claimed
            // in an earlier epoch learns of this one.
            self.reread_all(m);
            self.deliver_events(m);
        }
        self.pull(m);
    }

    pub fn renew(&mut self, m: usize) {
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let Lease::Held {
            term, seq, epoch, ..
        } = agent.lease
        else {
            return;
        };
        if agent.vouched.is_some_and(|vouched| vouched != epoch) {
            return self.take_lease(m);
        }
        let held = agent.held.clone();
        let record = self.lease_record(m, Some(term), held);
        let (node, sent) = (self.node(m), self.boot(m));
        let expect = Some(seq);
        let req = Req::LeaseAppend { record, expect };
        self.send(node, Tag::LeaseRenew { sent, term }, req);
        if std::mem::take(&mut self.machines[m].is_tired) {
            let soon = self.now + self.rng.range(100, 8000);
            self.at(soon, Event::Heal(Heal::FallAsleep(m)));
        }
    }

    /// Whether the agent holds its lease in this very term.
    pub fn holds_term(&self, m: usize, of: u64) -> bool {
        let lease = self.machines[m].agent.as_ref().map(|agent| agent.lease);
        matches!(lease, Some(Lease::Held { term, .. }) if term == of)
    }

    /// Whether the last acknowledged renewal is recent enough to claim by.
    pub fn is_fresh(&self, m: usize) -> bool {
        let lease = self.machines[m].agent.as_ref().map(|agent| agent.lease);
        matches!(lease, Some(Lease::Held { sent, .. }) if self.boot(m) < sent.plus(CLAIM_WITHIN))
    }

    /// Before anything that has come is handled: whether it came while this machine slept.
    pub fn tell_lapse(&mut self, m: usize) {
        if self.is_fresh(m) || self.mutant == Mutant::SleptOnTicket {
            return;
        }
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if std::mem::replace(&mut agent.lapse_told, true) {
            return;
        }
        let ids: Vec<AttemptId> = agent.attempts.keys().copied().collect();
        for id in ids {
            self.feed(m, id, Input::Lapsed);
        }
    }
}
