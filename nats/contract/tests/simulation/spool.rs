//! What a machine has to tell, and how it gets to the hub: in order, each once, over crashes and
//! outages. The spool's promises are modelled, not its files: what is on the disk stays, in order;
//! how far it was delivered is a hint; what was delivered long ago is gone.

use std::sync::Arc;

use super::agent::AgentEvent;
use super::bus::{Req, Resp, SECOND};
use super::lease::Lease;
use super::mutant::Mutant;
use super::network::Tag;
use super::world::World;

pub use super::bus::Told;

/// Events that are sent at once.
const BATCH: usize = 5;
/// A part of the spool that is removed at once when all of it was delivered.
const SEGMENT: usize = 8;

/// What is on a machine's disk, and what its agent has not put there yet.
#[derive(Debug, Default)]
pub struct Spool {
    /// Everything that was ever on the disk, in order.
    pub written: Vec<Told>,
    /// Of that, how much is gone from its beginning.
    pub trimmed: usize,
    /// How much was delivered, as far as that was noted.
    delivered: usize,
    /// What the agent holds in memory.
    unwritten: Vec<Told>,
    told: u64,
}

impl Spool {
    /// A new run of the agent: what was not on the disk never happened.
    pub fn reopened(&mut self) {
        self.unwritten.clear();
        self.told = 0;
    }

    pub fn unsettled(&self) -> Option<String> {
        let waits = self.written.len() - self.delivered;
        (waits > 0).then(|| format!("has {waits} events in its spool"))
    }

    /// The hub has everything up to this event; whether it is still known here.
    fn resume_after(&mut self, last: Told) -> bool {
        let kept = self.trimmed.saturating_sub(1);
        let found = self.written[kept..].iter().position(|told| *told == last);
        if let Some(at) = found {
            self.delivered = kept + at + 1;
            self.trim();
        }
        found.is_some()
    }

    fn trim(&mut self) {
        let whole = self.delivered / SEGMENT * SEGMENT;
        self.trimmed = self.trimmed.max(whole);
    }
}

/// What the agent is at with its events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Delivery {
    Idle,
    /// It asks the hub where to go on.
    Asking,
    /// What it sends next comes after this sequence of the stream.
    After(u64),
    /// Sent and not answered yet.
    Sent,
}

impl World {
    /// The machine has something to tell.
    pub fn tell_event(&mut self, m: usize) {
        let spool = &mut self.machines[m].spool;
        spool.told += 1;
        let no = spool.told;
        let told = self.event_of(m, no);
        self.machines[m].spool.unwritten.push(told);
        let slow = !self.calm && self.rng.chance(10);
        let disk = self.rng.range(500, if slow { 3 * SECOND } else { 20_000 });
        self.agent_at(m, disk, AgentEvent::Synced(no));
        if self.mutant == Mutant::EventSentBeforeWritten {
            self.deliver_events(m);
        }
    }

    pub fn synced(&mut self, m: usize, no: u64) {
        let spool = &mut self.machines[m].spool;
        let through = spool.unwritten.iter().take_while(|told| told.no <= no);
        let through = through.count();
        let written: Vec<Told> = spool.unwritten.drain(..through).collect();
        spool.written.extend(written);
        self.deliver_events(m);
    }

    /// Sends what waits, once it is known where to go on.
    pub fn deliver_events(&mut self, m: usize) {
        let node = self.node(m);
        let machine = &mut self.machines[m];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        // Nothing is said in the machine's name before.
        if agent.lease == Lease::None || agent.vouched.is_none() {
            return;
        }
        match agent.delivery {
            Delivery::Idle => {
                agent.delivery = Delivery::Asking;
                self.send(node, Tag::LastTold, Req::LastTold(m));
            }
            Delivery::After(after) => {
                let spool = &machine.spool;
                let mut events: Vec<Told> = spool.written[spool.delivered..].to_vec();
                if self.mutant == Mutant::EventSentBeforeWritten {
                    events.extend(&spool.unwritten);
                }
                events.truncate(BATCH);
                if events.is_empty() {
                    return;
                }
                agent.delivery = Delivery::Sent;
                let through = spool.delivered + events.len();
                let expect = (self.mutant != Mutant::EventsWithoutCas).then_some(after);
                let req = Req::Tell {
                    machine: m,
                    events: events.into(),
                    expect,
                };
                self.send(node, Tag::Tell { through }, req);
            }
            Delivery::Asking | Delivery::Sent => {}
        }
    }

    fn events_again(&mut self, m: usize) {
        if let Some(agent) = &mut self.machines[m].agent {
            agent.delivery = Delivery::Idle;
        }
        self.agent_at(m, SECOND / 2, AgentEvent::Deliver);
    }

    pub fn last_told(&mut self, m: usize, resp: Option<Resp>) {
        let Some(Resp::LastTold(seq, last)) = resp else {
            return self.events_again(m);
        };
        let machine = &mut self.machines[m];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        if agent.delivery != Delivery::Asking {
            return;
        }
        agent.delivery = Delivery::After(seq);
        let before = machine.spool.delivered;
        let known = match last {
            Some(_) if self.mutant == Mutant::EventsGoOnByOwnMark => true,
            Some(last) => machine.spool.resume_after(last),
            None => true,
        };
        let now = machine.spool.delivered;
        self.say(|| format!("m{m}: the flow ends with {last:?}, spool goes on after {now}"));
        if !known {
            self.hit("spool: hub is further back than is kept");
        }
        if now > before {
            self.hit("spool: hub had more than was noted");
        }
        if now < before {
            self.hit("spool: delivered again to an older hub");
        }
        self.deliver_events(m);
    }

    pub fn told(&mut self, m: usize, through: usize, resp: Option<Resp>) {
        let machine = &mut self.machines[m];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        if agent.delivery != Delivery::Sent {
            return;
        }
        match resp {
            Some(Resp::Stored(seq)) => agent.delivery = Delivery::After(seq),
            None if self.mutant == Mutant::EventsNotRepeated => agent.delivery = Delivery::Idle,
            _ => return self.events_again(m),
        }
        let spool = &mut machine.spool;
        spool.delivered = through.min(spool.written.len());
        spool.trim();
        self.deliver_events(m);
    }

    /// The server stores events of a machine: all or none.
    pub fn store_events(&mut self, m: usize, events: &Arc<[Told]>, expect: Option<u64>) -> Resp {
        let last = self.bus.flow.last(m);
        if expect.is_some_and(|expect| expect != last.map_or(0, |(seq, _)| seq)) {
            self.hit("spool: batch refused");
            return Resp::Refused;
        }
        self.hit("spool: batch stored");
        self.say(|| format!("FLOW of m{m} after {last:?}: {events:?}"));
        for told in events.iter() {
            self.check_event(m, *told);
            self.bus.flow.seq += 1;
            let seq = self.bus.flow.seq;
            self.bus.flow.of.entry(m).or_default().push((seq, *told));
        }
        Resp::Stored(self.bus.flow.seq)
    }

    /// What the flow has of a machine is what its spool has written, in that order, without holes
    /// and doubles. Where the flow itself was lost or is an older one, it goes on with what the
    /// spool still has.
    fn check_event(&mut self, m: usize, told: Told) {
        let spool = &self.machines[m].spool;
        let Some(at) = spool.written.iter().position(|w| *w == told) else {
            return self.violated(format!("spool: m{m} told {told:?}, which it never wrote"));
        };
        let last = self.bus.flow.last(m).map(|(_, last)| last);
        let next = match last {
            Some(last) => {
                let known = spool.written.iter().position(|w| *w == last);
                known.map_or(0, |known| known + 1)
            }
            // All that was told before is lost: it goes on where it was.
            None if self.guard.flow_lost || self.guard.flow_older => at,
            None => 0,
        };
        if self.out_of_time && (self.guard.flow_lost || self.guard.flow_older) {
            // A sequence of the earlier stream was the one that is the last in this one.
            self.hit("spool: late event of an earlier stream");
        } else if at < next {
            self.violated(format!("spool: m{m} told {told:?} twice or too late"));
        } else if at > next && !(self.guard.flow_older && next < spool.trimmed) {
            let what = format!("spool: m{m} told {told:?}, a hole is before it: {next} to {at}");
            self.violated(what);
        }
    }
}
