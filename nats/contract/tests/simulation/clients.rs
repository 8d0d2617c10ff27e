//! Dispatchers and operators as models: what the commands do, and where they may die.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{JobId, Lane, TicketId, Writer};
use fleet_contract::job::{Job, JobState, first_record};
use fleet_contract::record::{Cause, Change, Record, StateWord};
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::ticket::Ticket;
use fleet_contract::time::Time;

use super::agent::AgentEvent;
use super::bus::{Micros, Req, Resp, SECOND};
use super::mutant::Mutant;
use super::network::{Node, Tag};
use super::world::{Event, JOBS_MIN, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Dispatch,
    Cancel,
    Move,
    Retry,
    Resolve,
    /// Sends what was dispatched while the hub was away, if it was.
    Spooled,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Before,
    Reading,
    Publishing { tries: u32 },
    Appending,
    Deleting,
    Over,
}

#[derive(Debug)]
pub struct Client {
    job: JobId,
    wish: Wish,
    step: Step,
    spec: Option<Box<JobSpec>>,
    seen: Option<Box<Job>>,
    ticket: Option<Arc<Ticket>>,
    work_seq: u64,
    /// A ticket to delete once the append is stored.
    old_ticket: Option<u64>,
    file: Option<usize>,
    /// How far its clock is ahead of one that is two hours behind.
    skew: u64,
}

/// A dispatch that waits on somebody's disk until somebody comes by who can send it.
#[derive(Debug)]
pub struct Spooled {
    job: JobId,
    ticket: TicketId,
    spec: Box<JobSpec>,
    /// Somebody is at it: nobody else is then.
    busy: bool,
    /// It is not on the disk any more.
    removed: bool,
    /// The hub has it.
    known: bool,
    /// The jobs that it was sent as.
    sent_as: Vec<JobId>,
}

impl Spooled {
    pub fn waits(&self) -> bool {
        !self.removed
    }
}

impl Client {
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }
}

impl World {
    /// How many jobs are dispatched in this run.
    pub fn jobs(&self) -> u64 {
        let of = |client: &&Client| matches!(client.wish, Wish::Dispatch | Wish::Spooled);
        let ids = self.clients.iter().filter(of).map(|client| client.job);
        let ids: std::collections::BTreeSet<JobId> = ids.collect();
        ids.len() as u64
    }

    pub fn plan_clients(&mut self, until: Micros) {
        let jobs = JOBS_MIN + usize::try_from(self.rng.range(0, 6)).unwrap();
        for n in 0..jobs {
            let job = JobId::from_key(&format!("{}-{n}", self.seed));
            let spec = self.any_spec();
            let at = self.rng.range(0, until * 2 / 3);
            self.names.borrow_mut().job(job);
            if self.rng.chance(12) {
                self.spool_dispatch(job, spec.clone(), at);
            } else {
                self.plan(job, Wish::Dispatch, Some(spec.clone()), at);
            }
            if self.rng.chance(15) {
                // The same key, from elsewhere.
                let at = at + self.rng.range(0, 10_000);
                self.plan(job, Wish::Dispatch, Some(spec), at);
            }
            for _ in 0..self.rng.range(0, 3) {
                let wish = match self.rng.range(0, 8) {
                    0..=2 => Wish::Cancel,
                    3..=4 => Wish::Move,
                    5..=6 => Wish::Retry,
                    _ => Wish::Resolve,
                };
                let at = at + self.rng.range(0, until - at);
                self.plan(job, wish, None, at);
            }
        }
    }

    fn plan(&mut self, job: JobId, wish: Wish, spec: Option<Box<JobSpec>>, at: Micros) {
        self.clients.push(Client {
            job,
            wish,
            step: Step::Before,
            spec,
            seen: None,
            ticket: None,
            work_seq: 0,
            old_ticket: None,
            file: None,
            skew: self.rng.range(0, 4 * 3600) * u64::from(self.rng.chance(20)),
        });
        self.at(at, Event::Client(self.clients.len() - 1));
    }

    /// Somebody wants another attempt soon.
    pub fn plan_retry(&mut self, job: JobId) {
        let soon = self.now + self.rng.range(SECOND / 10, 10 * SECOND);
        self.plan(job, Wish::Retry, None, soon);
    }

    fn spool_dispatch(&mut self, job: JobId, spec: Box<JobSpec>, at: Micros) {
        self.spooled.push(Spooled {
            job,
            ticket: TicketId::from_random(self.rng.bits()),
            spec,
            busy: false,
            removed: false,
            known: false,
            sent_as: Vec::new(),
        });
        self.at(at, Event::PassBy(self.spooled.len() - 1));
    }

    /// Somebody comes by who can send it.
    pub fn pass_by(&mut self, file: usize) {
        if !self.spooled[file].waits() {
            return;
        }
        let next = self.now + self.rng.range(SECOND, 8 * SECOND);
        self.at(next, Event::PassBy(file));
        if std::mem::replace(&mut self.spooled[file].busy, true) {
            return;
        }
        self.hit("somebody comes by a spooled dispatch");
        let mut job = self.spooled[file].job;
        if self.mutant == Mutant::SpooledAnew {
            job = JobId::from_random(self.rng.bits());
        }
        if self.mutant == Mutant::SpoolForgottenFirst {
            self.spooled[file].removed = true;
        }
        let spec = Some(self.spooled[file].spec.clone());
        self.plan(job, Wish::Spooled, spec, self.now);
        if let Some(client) = self.clients.last_mut() {
            client.file = Some(file);
        }
    }

    /// The hub has it, or knows it already.
    fn sent(&mut self, n: usize) {
        let job = self.clients[n].job;
        if let Some(file) = self.clients[n].file {
            let file = &mut self.spooled[file];
            if !file.sent_as.contains(&job) {
                file.sent_as.push(job);
            }
            file.known = true;
        }
    }

    fn finish(&mut self, n: usize) {
        self.clients[n].step = Step::Over;
        if let Some(file) = self.clients[n].file {
            self.spooled[file].busy = false;
        }
    }

    pub fn check_spooled(&mut self) {
        for file in &self.spooled {
            let (job, sent) = (file.job, &file.sent_as);
            if sent.len() > 1 {
                return self.violated(format!("spooled {job} was sent as {sent:?}"));
            }
            if file.removed && !file.known {
                return self.violated(format!("spooled {job} was never sent"));
            }
        }
    }

    fn any_target(&mut self) -> Target {
        if self.rng.chance(60) {
            return Target::Lane(Lane::any());
        }
        let m = usize::try_from(self.rng.next() % self.machines.len() as u64).unwrap();
        Target::Pin(self.machines[m].id.clone())
    }

    fn any_spec(&mut self) -> Box<JobSpec> {
        let target = self.any_target();
        let now = self.hub_now();
        let mut spec = JobSpec::new(vec!["work".to_owned()], target, now, "ana".to_owned());
        spec.on_lost = match self.rng.range(0, 6) {
            0 | 1 => OnLost::Ask,
            2 => OnLost::Fail,
            _ => OnLost::Retry,
        };
        spec.retries = u32::try_from(self.rng.range(0, 3)).unwrap();
        if self.rng.chance(15) {
            let soon = Duration::from_micros(self.rng.range(SECOND, 400 * SECOND));
            spec.expires_ms = u64::try_from(soon.as_millis()).unwrap();
        }
        Box::new(spec)
    }

    pub fn client_starts(&mut self, n: usize) {
        let (job, wish) = (self.clients[n].job, self.clients[n].wish);
        self.say(|| format!("client {n}: {wish:?} {job}"));
        if wish == Wish::Dispatch {
            let spec = self.clients[n].spec.clone().unwrap();
            let ticket = Arc::new(self.new_ticket(job, 0, spec.target.clone(), spec));
            self.publish(n, ticket);
        } else {
            self.clients[n].step = Step::Reading;
            self.send(Node::Client(n), Tag::Client, Req::Whole(job));
        }
    }

    fn client_now(&self, n: usize) -> Time {
        let skew = match self.clients[n].skew {
            0 => 0,
            ahead => i64::try_from(ahead).unwrap() - 7200,
        };
        let now = self.hub_now().as_micros();
        Time::from_micros(now + skew * 1_000_000)
    }

    /// A ticket of the epoch that the hub vouches for as the command begins.
    fn new_ticket(&mut self, job: JobId, after: u64, to: Target, spec: Box<JobSpec>) -> Ticket {
        let epoch = self.bus.word.1;
        self.ticket(job, after, to, spec, epoch)
    }

    fn publish(&mut self, n: usize, ticket: Arc<Ticket>) {
        self.clients[n].ticket = Some(ticket.clone());
        self.clients[n].step = Step::Publishing { tries: 1 };
        self.send(Node::Client(n), Tag::Client, Req::Publish(ticket));
    }

    /// Whether the command dies here, with everything it had still to do.
    fn dies(&mut self, n: usize) -> bool {
        let dies = !self.calm && self.rng.chance(10);
        if dies {
            self.hit("client died");
            self.finish(n);
        }
        dies
    }

    pub fn client_answer(&mut self, n: usize, resp: Option<Resp>) {
        if self.dies(n) {
            return;
        }
        match (self.clients[n].step.clone(), resp) {
            (Step::Reading, Some(Resp::Whole(there))) if self.clients[n].file.is_some() => {
                if there.is_some() {
                    self.hit("spooled dispatch was there already");
                    self.sent(n);
                    self.spooled_done(n);
                    return self.finish(n);
                }
                let spec = self.clients[n].spec.clone().unwrap();
                let job = self.clients[n].job;
                let mut ticket = self.new_ticket(job, 0, spec.target.clone(), spec);
                if let Some(file) = self.clients[n].file
                    && self.mutant != Mutant::SpooledAnew
                {
                    ticket.ticket = self.spooled[file].ticket;
                }
                self.publish(n, Arc::new(ticket));
            }
            (Step::Reading, Some(Resp::Whole(Some(job)))) => self.decide(n, job),
            (Step::Publishing { .. }, Some(Resp::Stored(seq))) => self.published(n, seq),
            (Step::Publishing { tries }, None) if tries < 3 => {
                let ticket = self.clients[n].ticket.clone().unwrap();
                self.clients[n].step = Step::Publishing { tries: tries + 1 };
                self.send(Node::Client(n), Tag::Client, Req::Publish(ticket));
            }
            (Step::Appending, _) if self.clients[n].file.is_some() => {
                self.spooled_done(n);
                self.finish(n);
            }
            (Step::Appending, Some(Resp::Stored(_))) => {
                self.hit("client done");
                self.tell(n);
                match self.clients[n].old_ticket.take() {
                    Some(seq) => self.delete(n, seq),
                    None => self.finish(n),
                }
            }
            // The job moved on: its own ticket is of no use. (Or it is, for an answer was lost; then
            // the keeper publishes another.)
            (Step::Appending, Some(Resp::Refused)) => {
                let own = self.clients[n].work_seq;
                if own != 0 && (self.clients[n].wish != Wish::Dispatch || self.rng.chance(50)) {
                    self.hit("own ticket deleted");
                    self.delete(n, own);
                } else {
                    self.finish(n);
                }
            }
            _ => self.finish(n),
        }
    }

    fn delete(&mut self, n: usize, seq: u64) {
        self.clients[n].step = Step::Deleting;
        self.send(Node::Client(n), Tag::Client, Req::Delete(seq));
    }

    /// A running job's machine is told of the wish to cancel, if the message arrives.
    fn tell(&mut self, n: usize) {
        let client = &self.clients[n];
        let job = client.job;
        let open = client
            .seen
            .as_ref()
            .and_then(|job| job.state.open().cloned());
        let Some(open) = open.filter(|_| client.wish == Wish::Cancel) else {
            return;
        };
        let Some(m) = self.machines.iter().position(|m| m.id == open.machine) else {
            return;
        };
        if self.machines[m].cut_in || self.rng.chance(20) {
            return;
        }
        let after = self.rng.range(100, 5000);
        self.agent_at(m, after, AgentEvent::CancelAsked(job));
    }

    fn published(&mut self, n: usize, seq: u64) {
        self.clients[n].work_seq = seq;
        let client = &self.clients[n];
        let (job, ticket) = (client.job, client.ticket.clone().unwrap());
        let (cause, spec) = match client.wish {
            Wish::Dispatch | Wish::Spooled => (Cause::Dispatch, client.spec.clone()),
            Wish::Move => (Cause::Move, None),
            _ => (Cause::Retry, None),
        };
        if matches!(client.wish, Wish::Dispatch | Wish::Spooled)
            && !self.ticket_taken.contains(&job)
        {
            self.acknowledged.insert(job);
            self.check_not_lost(job);
        }
        if self.clients[n].file.is_some() {
            self.hit("spooled dispatch sent");
            self.sent(n);
        }
        let change = Change::Queued {
            ticket: ticket.ticket,
            target: ticket.target.clone(),
            work_seq: seq,
            cause,
            spec,
        };
        let now = self.client_now(n);
        let record = match &self.clients[n].seen {
            Some(job) => job.record(now, &Writer::Operator, change),
            None => first_record(job, now, &Writer::Operator, change),
        };
        match record {
            Ok(record) => self.client_append(n, record),
            Err(_) => self.finish(n),
        }
    }

    fn client_append(&mut self, n: usize, record: Record) {
        self.clients[n].step = Step::Appending;
        let careless = self.mutant == Mutant::CanceledWithoutCas;
        let careless = careless && self.clients[n].wish == Wish::Cancel;
        let req = Req::Append {
            job: self.clients[n].job,
            writer: Writer::Operator,
            time: self.client_now(n),
            expect: (!careless).then_some(record.prev),
            record: Some(Arc::new(record)),
        };
        self.send(Node::Client(n), Tag::Client, req);
    }

    /// The hub has a spooled dispatch: it goes from the disk.
    fn spooled_done(&mut self, n: usize) {
        if let Some(file) = self.clients[n].file {
            self.spooled[file].removed = true;
        }
    }

    fn decide(&mut self, n: usize, job: Box<Job>) {
        let wish = self.clients[n].wish;
        let by = "ana".to_owned();
        let word = job.state.word();
        let now = self.client_now(n);
        self.clients[n].seen = Some(job.clone());
        let change = match (wish, &job.state) {
            (Wish::Cancel, JobState::Running { .. }) => Change::CancelRequested { by },
            (Wish::Cancel, JobState::Queued { work_seq, .. }) => {
                self.clients[n].old_ticket = Some(*work_seq);
                Change::Canceled { by }
            }
            (Wish::Cancel, _) => Change::Canceled { by },
            (Wish::Resolve, _) => Change::Resolved {
                to: if self.rng.chance(50) {
                    StateWord::Succeeded
                } else {
                    StateWord::Failed
                },
                by,
                notes: None,
            },
            (Wish::Move, JobState::Queued { work_seq, .. }) => {
                self.clients[n].old_ticket = Some(*work_seq);
                let target = self.any_target();
                return self.send_on(n, &job, target);
            }
            (Wish::Move, JobState::Backoff { .. }) => {
                let target = self.any_target();
                return self.send_on(n, &job, target);
            }
            (Wish::Retry, _) if word.is_terminal() || word == StateWord::NeedsHuman => {
                let target = job.target.clone();
                return self.send_on(n, &job, target);
            }
            _ => return self.finish(n),
        };
        match job.record(now, &Writer::Operator, change) {
            Ok(record) => self.client_append(n, record),
            Err(_) => self.finish(n),
        }
    }

    fn send_on(&mut self, n: usize, job: &Job, target: Target) {
        let spec = Box::new((*job.spec).clone());
        let ticket = self.new_ticket(job.id, job.last_seq, target, spec);
        self.publish(n, Arc::new(ticket));
    }
}
