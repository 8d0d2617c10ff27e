//! Between the parties and the bus: what is sent may be lost, doubled, late, out of order, cut off
//! in one direction or both, or reach another server process than it was sent to.

use std::sync::Arc;

use fleet_contract::ids::AttemptId;
use fleet_contract::spec::Target;
use fleet_contract::ticket::Ticket;

use super::bus::{Micros, Req, Resp, SECOND};
use super::mutant::Mutant;
use super::world::{Event, World};

/// How long a request waits for its answer.
pub const ANSWER_WITHIN: Micros = 2 * SECOND;
/// How long a pull is parked.
const PARK: Micros = 60 * SECOND;

/// Whoever asks the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A machine's agent, in this run of it.
    Agent(usize, u64),
    Client(usize),
    /// A keeper, in this run of it.
    Keeper(usize, u64),
    /// The hub's guard: at the very server.
    Guard,
    /// Nobody waits for the answer, and nobody honest has asked.
    Nobody,
}

/// What the asker wanted the answer for.
#[derive(Debug, Clone)]
pub enum Tag {
    /// In the epoch that the attempt knew of.
    Tip(AttemptId),
    Reread(AttemptId),
    RefusedRead(AttemptId),
    Append(AttemptId, u64),
    Ack(u64),
    Pull {
        unbroken: u64,
    },
    LeaseRead,
    LeaseAcquire {
        sent: fleet_contract::lease::BootTime,
    },
    LeaseRenew {
        sent: fleet_contract::lease::BootTime,
        /// The term that it renews.
        term: u64,
    },
    Word,
    LastTold,
    Tell {
        through: usize,
    },
    Client,
    Keeper(super::keepers::Errand),
    None,
}

/// On its way.
#[derive(Debug)]
pub enum Message {
    Request {
        id: u64,
        from: Node,
        req: Req,
        server: u64,
        /// The hub's epoch when it was sent.
        epoch: u64,
    },
    Reply {
        id: u64,
        resp: Resp,
        server: u64,
    },
    /// It has come, to one that sleeps.
    Received {
        id: u64,
        resp: Resp,
    },
}

/// A pull that waits at the server.
#[derive(Debug, Clone, Copy)]
pub struct Parked {
    pub id: u64,
    pub machine: usize,
    pub until: Micros,
}

impl World {
    /// Whether what a node sends now arrives.
    pub fn heard(&self, node: Node) -> bool {
        !self.hub_down
            && match node {
                Node::Agent(m, _) => !self.machines[m].cut_out,
                Node::Keeper(k, _) => !self.keepers[k].partitioned,
                Node::Client(_) => self.clients_cut_until <= self.now,
                Node::Guard | Node::Nobody => true,
            }
    }

    /// Whether what is sent to a node now arrives.
    fn hears(&self, node: Node) -> bool {
        !self.hub_down
            && match node {
                Node::Agent(m, _) => !self.machines[m].cut_in,
                node => self.heard(node),
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
        let id = self.count();
        if from != Node::Nobody {
            let within = match req {
                Req::Pull(_) => PARK + ANSWER_WITHIN,
                _ => ANSWER_WITHIN,
            };
            let slept = match from {
                Node::Agent(m, _) => self.machines[m].slept,
                _ => 0,
            };
            self.pending.insert(id, (from, tag));
            self.at(self.now + within, Event::Timeout { id, slept });
        }
        let server = match from {
            Node::Agent(m, _) => self.machines[m].server,
            _ => self.bus.server,
        };
        let epoch = match from {
            Node::Agent(m, _) => self.machines[m].agent.as_ref().and_then(|a| a.vouched),
            _ => None,
        };
        let epoch = epoch.unwrap_or(self.guard.epoch);
        if !self.heard(from) {
            // A client that is cut off keeps what it is given, and may send it when it is back.
            if !self.calm && self.rng.chance(5) {
                self.hit("sent after the outage");
                let at = self.now + self.rng.range(SECOND, 8 * SECOND);
                self.message(
                    at,
                    Message::Request {
                        id,
                        from,
                        req,
                        server,
                        epoch,
                    },
                );
            }
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
            self.message(
                at,
                Message::Request {
                    id,
                    from,
                    req,
                    server,
                    epoch,
                },
            );
        }
        let at = self.now + self.delay();
        self.message(
            at,
            Message::Request {
                id,
                from,
                req,
                server,
                epoch,
            },
        );
    }

    fn message(&mut self, at: Micros, message: Message) {
        self.at(at, Event::Message(message));
    }

    pub fn arrives(&mut self, message: Message) {
        match message {
            Message::Request {
                id,
                from,
                req,
                server,
                epoch,
            } => {
                if !self.heard(from) {
                    return;
                }
                if server != self.bus.server {
                    if self.rng.chance(50) {
                        self.hit("lost with its server");
                        return;
                    }
                    // A take of a lease that expects none would be one again where leases were lost twice.
                    if matches!(req, Req::LeaseAppend { .. }) {
                        return;
                    }
                    self.hit("reached the next server");
                }
                self.in_time = epoch == self.guard.epoch;
                self.out_of_time = server != self.bus.server;
                let resp = self.serve(id, from, req);
                self.in_time = true;
                let Some(resp) = resp else {
                    return;
                };
                self.reply(id, resp);
            }
            Message::Reply { id, resp, server } => {
                if server != self.bus.server {
                    return self.hit("answer of a server that is gone");
                }
                self.answer(id, Some(resp));
            }
            Message::Received { id, resp } => self.take_answer(id, Some(resp)),
        }
    }

    /// Whether an answer reaches who waits for it, and is none of another server.
    pub fn is_received(&self, id: u64, server: u64) -> bool {
        let Some((node, _)) = self.pending.get(&id) else {
            return false;
        };
        // What a server says comes over a connection to it, and so after the news of that.
        let connected = match node {
            Node::Agent(m, _) => self.machines[*m].server == server,
            _ => true,
        };
        server == self.bus.server && connected && self.hears(*node)
    }

    fn reply(&mut self, id: u64, resp: Resp) {
        if !self.calm && self.rng.chance(2) {
            self.hit("answer lost");
            return;
        }
        if !self.calm && self.rng.chance(1) {
            self.hit("answer twice");
            let at = self.now + self.delay();
            let (resp, server) = (resp.clone(), self.bus.server);
            self.message(at, Message::Reply { id, resp, server });
        }
        let at = self.now + self.delay();
        let server = self.bus.server;
        self.message(at, Message::Reply { id, resp, server });
    }

    pub fn answer(&mut self, id: u64, resp: Option<Resp>) {
        if resp.is_none() || self.is_received(id, self.bus.server) {
            self.take_answer(id, resp);
        }
    }

    fn take_answer(&mut self, id: u64, resp: Option<Resp>) {
        let Some((node, tag)) = self.pending.remove(&id) else {
            return;
        };
        if resp.is_none() && !matches!(tag, Tag::Pull { .. }) {
            self.hit("no answer");
        }
        match node {
            Node::Agent(m, run) => self.agent_answer(m, run, tag, resp),
            Node::Client(n) => self.client_answer(n, resp),
            Node::Keeper(k, run) => self.keeper_answer(k, run, tag, resp),
            Node::Guard | Node::Nobody => {}
        }
    }

    /// What the server does. None where there is no answer yet.
    pub fn serve(&mut self, id: u64, from: Node, req: Req) -> Option<Resp> {
        let stale = if self.calm { 0 } else { self.stale };
        let (rng, journal) = (&mut self.rng, &self.bus.journal);
        Some(match req {
            Req::Tip(job) => Resp::Tip(journal.tip(job, stale, rng)),
            Req::All(job, me) => Resp::All(Box::new(journal.reading(job, &me, stale, rng))),
            Req::Whole(job) => Resp::Whole(journal.whole(job, stale, rng).map(Box::new)),
            Req::Append {
                job,
                writer,
                time,
                record,
                expect,
            } => {
                if expect.is_some_and(|expect| expect != journal.last_seq(job)) {
                    self.hit("append refused");
                    return Some(Resp::Refused);
                }
                let honest = from != Node::Nobody;
                Resp::Stored(self.store(job, writer, time, record, honest))
            }
            Req::Purge { job, up_to } => {
                if !self.purge(job, up_to) {
                    return Some(Resp::Refused);
                }
                Resp::Ok
            }
            Req::Clear(job) => {
                if self.mutant != Mutant::TicketsOutliveJournal {
                    self.bus
                        .work
                        .queue
                        .retain(|_, queued| queued.ticket.job != job);
                }
                Resp::Ok
            }
            Req::Publish(ticket) => self.publish_ticket(ticket),
            Req::Ack(seq) if !self.bus.is_delivered(seq) => Resp::Ok,
            Req::Delete(seq) | Req::Ack(seq) => {
                if let Some(gone) = self.bus.work.queue.remove(&seq) {
                    if self.out_of_time && !self.truth.contains_key(&gone.ticket.job) {
                        // Its records went with the end of the journal, and now its ticket.
                        self.acknowledged.remove(&gone.ticket.job);
                        self.ticket_taken.insert(gone.ticket.job);
                    }
                    self.check_not_lost(gone.ticket.job);
                }
                Resp::Ok
            }
            Req::Nak(seq) => {
                if let Some(queued) = self.bus.work.queue.get_mut(&seq) {
                    queued.pending_until = queued.pending_until.map(|_| 0);
                    self.at(self.now, Event::Offer);
                }
                Resp::Ok
            }
            Req::Check(seq) => Resp::There(self.bus.work.queue.contains_key(&seq)),
            Req::Pull(machine) => {
                let until = self.now + PARK;
                self.parked.push(Parked { id, machine, until });
                self.offer_tickets();
                return None;
            }
            Req::LeaseRead(machine) => Resp::Lease(self.bus.leases.get(&machine).cloned()),
            Req::LeaseAppend { record, expect } => {
                let machine = record.machine().clone();
                let last = self.bus.leases.get(&machine).map_or(0, |(seq, _)| *seq);
                if expect.is_some_and(|expect| expect != last) {
                    self.hit("lease refused");
                    return Some(Resp::Refused);
                }
                self.bus.lease_seq += 1;
                let seq = self.bus.lease_seq;
                self.say(|| format!("LEASE {seq} {record:?}"));
                self.leased_at.insert(machine.clone(), (seq, self.now));
                self.bus.leases.insert(machine, (seq, record.clone()));
                self.bus.lease_log.push((seq, record));
                self.wake_keepers(true);
                Resp::Stored(seq)
            }
            Req::Word => Resp::Word(self.bus.server, self.bus.vouched()),
            Req::LastTold(machine) => {
                let last = self.bus.flow.last(machine);
                Resp::LastTold(last.map_or(0, |(seq, _)| seq), last.map(|(_, told)| told))
            }
            Req::Tell {
                machine,
                events,
                expect,
            } => self.store_events(machine, &events, expect),
        })
    }

    fn publish_ticket(&mut self, ticket: Arc<Ticket>) -> Resp {
        self.tickets.insert(ticket.ticket, ticket.target.clone());
        let seq = self.bus.publish(ticket, self.now);
        self.at(self.now, Event::Offer);
        Resp::Stored(seq)
    }

    /// Hands out what waits to whoever waits for it.
    pub fn offer_tickets(&mut self) {
        if self.hub_down {
            return;
        }
        let now = self.now;
        self.parked.retain(|parked| parked.until > now);
        let begin = usize::try_from(self.rng.next()).unwrap_or(0);
        let mut left = self.parked.len();
        while left > 0 && !self.parked.is_empty() {
            let at = (begin + left) % self.parked.len();
            left -= 1;
            let Parked { id, machine, .. } = self.parked[at];
            let me = self.machines[machine].id.clone();
            let stray = !self.calm && self.rng.chance(2);
            let Some((seq, ticket)) = self.bus.pull(&me, stray, now) else {
                continue;
            };
            if matches!(&ticket.target, Target::Pin(pin) if *pin != me) {
                self.hit("pinned ticket delivered elsewhere");
            }
            self.parked.remove(at);
            let job = ticket.job;
            self.say(|| format!("deliver ticket {seq} of {job} to {me}"));
            self.reply(id, Resp::Ticket(Some((seq, ticket))));
            self.at(now + super::bus::ACK_WAIT, Event::Offer);
        }
    }
}
