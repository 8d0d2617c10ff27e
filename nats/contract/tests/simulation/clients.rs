//! Dispatchers and operators as models: what the commands do, and where they may die.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{JobId, Lane, Writer};
use fleet_contract::job::{Job, JobState, first_record};
use fleet_contract::record::{Cause, Change, Record, StateWord};
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::ticket::Ticket;

use super::agent::AgentEvent;
use super::bus::{Micros, Req, Resp, SECOND};
use super::world::{Event, Node, Tag, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Dispatch,
    Cancel,
    Move,
    Retry,
    Resolve,
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
}

impl Client {
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }
}

impl World {
    pub fn plan_clients(&mut self, until: Micros) {
        let jobs = self.rng.range(3, 9);
        for n in 0..jobs {
            let job = JobId::from_key(&format!("{}-{n}", self.seed));
            let spec = self.any_spec();
            let at = self.rng.range(0, until * 2 / 3);
            self.plan(job, Wish::Dispatch, Some(spec.clone()), at);
            if self.rng.chance(25) {
                // The same key, from elsewhere.
                let at = at + self.rng.range(0, 10_000);
                self.plan(job, Wish::Dispatch, Some(spec), at);
            }
            for _ in 0..self.rng.range(0, 4) {
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
        });
        self.at(at, Event::Client(self.clients.len() - 1));
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
        let now = self.wall(0);
        let mut spec = JobSpec::new(vec!["work".to_owned()], target, now, "ana".to_owned());
        spec.on_lost = match self.rng.range(0, 4) {
            0 => OnLost::Ask,
            1 => OnLost::Fail,
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
            let ticket = Arc::new(self.ticket(job, 0, spec.target.clone(), spec));
            self.publish(n, ticket);
        } else {
            self.clients[n].step = Step::Reading;
            self.send(Node::Client(n), Tag::Client, Req::Whole(job));
        }
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
            self.clients[n].step = Step::Over;
        }
        dies
    }

    pub fn client_answer(&mut self, n: usize, resp: Option<Resp>) {
        if self.dies(n) {
            return;
        }
        match (self.clients[n].step.clone(), resp) {
            (Step::Reading, Some(Resp::Whole(Some(job)))) => self.decide(n, job),
            (Step::Publishing { .. }, Some(Resp::Stored(seq))) => self.published(n, seq),
            (Step::Publishing { tries }, None) if tries < 3 => {
                let ticket = self.clients[n].ticket.clone().unwrap();
                self.clients[n].step = Step::Publishing { tries: tries + 1 };
                self.send(Node::Client(n), Tag::Client, Req::Publish(ticket));
            }
            (Step::Appending, Some(Resp::Stored(_))) => {
                self.hit("client done");
                self.tell(n);
                match self.clients[n].old_ticket.take() {
                    Some(seq) => self.delete(n, seq),
                    None => self.clients[n].step = Step::Over,
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
                    self.clients[n].step = Step::Over;
                }
            }
            _ => self.clients[n].step = Step::Over,
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
        if self.machines[m].partitioned || self.rng.chance(20) {
            return;
        }
        let run = self.machines[m].run();
        let at = self.now + self.rng.range(100, 5000);
        self.at(at, Event::Agent(m, run, AgentEvent::CancelAsked(job)));
    }

    fn published(&mut self, n: usize, seq: u64) {
        self.clients[n].work_seq = seq;
        let client = &self.clients[n];
        let (job, ticket) = (client.job, client.ticket.clone().unwrap());
        let (cause, spec) = match client.wish {
            Wish::Dispatch => (Cause::Dispatch, client.spec.clone()),
            Wish::Move => (Cause::Move, None),
            _ => (Cause::Retry, None),
        };
        if client.wish == Wish::Dispatch {
            self.acknowledged.insert(job);
        }
        let change = Change::Queued {
            ticket: ticket.ticket,
            target: ticket.target.clone(),
            work_seq: seq,
            cause,
            spec,
        };
        let now = self.wall(0);
        let record = match &self.clients[n].seen {
            Some(job) => job.record(now, &Writer::Operator, change),
            None => first_record(job, now, &Writer::Operator, change),
        };
        match record {
            Ok(record) => self.client_append(n, record),
            Err(_) => self.clients[n].step = Step::Over,
        }
    }

    fn client_append(&mut self, n: usize, record: Record) {
        self.clients[n].step = Step::Appending;
        let req = Req::Append {
            job: self.clients[n].job,
            writer: Writer::Operator,
            time: self.wall(0),
            expect: Some(record.prev),
            record: Some(Arc::new(record)),
        };
        self.send(Node::Client(n), Tag::Client, req);
    }

    fn decide(&mut self, n: usize, job: Box<Job>) {
        let wish = self.clients[n].wish;
        let by = "ana".to_owned();
        let word = job.state.word();
        let now = self.wall(0);
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
            _ => return self.clients[n].step = Step::Over,
        };
        match job.record(now, &Writer::Operator, change) {
            Ok(record) => self.client_append(n, record),
            Err(_) => self.clients[n].step = Step::Over,
        }
    }

    fn send_on(&mut self, n: usize, job: &Job, target: Target) {
        let spec = Box::new((*job.spec).clone());
        let ticket = self.ticket(job.id, job.last_seq, target, spec);
        self.publish(n, Arc::new(ticket));
    }
}
