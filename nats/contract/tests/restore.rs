//! A hub that is put back to an earlier copy of its journal while machines run on: a seeded model of
//! that alone, with answers lost on the way. The whole protocol is in `simulation`; this is what
//! happens to a store that forgets. `FLEET_SIM_SEED=n` replays one seed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "a test fails by panicking, and uses a part of what it shares"
)]

mod common;
#[path = "simulation/rng.rs"]
mod rng;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::{machine, spec};
use fleet_contract::attempt::{Attempt, Effect, Gone, Input};
use fleet_contract::damage;
use fleet_contract::ids::{AttemptId, JobId, Lane, MachineId, TicketId, Writer};
use fleet_contract::job::{Applied, Job, JobState, first_record};
use fleet_contract::keeper::{Act, Keeper, Retention};
use fleet_contract::lease::{BootTime, LeaseRecord};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::{Cause, Change, Record};
use fleet_contract::spec::{OnLost, Target};
use fleet_contract::ticket::{Reading, Ticket, Tip};
use fleet_contract::time::Time;
use rng::Rng;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// The epoch stays as it was.
    SameEpoch,
    /// Agents are not told.
    NotTold,
    /// Jobs that wait are left to wait, tickets and all.
    NobodyAsked,
    /// The keeper goes by the job's policy.
    PolicyDecides,
}

const EXPECTED: &[&str] = &[
    "job unknown after it",
    "adopted again",
    "adopted as the first record",
    "adopted after it ended",
    "put to the operator",
    "nobody reports it",
    "gave way",
    "claim dropped",
    "claimed in the new epoch",
    "append lost",
    "answer lost",
];

type Entry = (u64, Writer, Record);

#[derive(Debug, Clone, Default)]
struct Journal {
    jobs: BTreeMap<JobId, Vec<Entry>>,
    seq: u64,
}

impl Journal {
    fn fold(&self, id: JobId) -> Option<Job> {
        let mut entries = self.jobs.get(&id)?.iter();
        let (seq, writer, record) = entries.next()?;
        let mut job = Job::first(id, *seq, now(), writer, record).unwrap();
        for (seq, writer, record) in entries {
            assert_eq!(job.apply(*seq, now(), writer, record), Applied::Changed);
        }
        Some(job)
    }

    fn last_by(&self, id: JobId, writer: Option<&Writer>) -> Option<Tip> {
        let entries = self.jobs.get(&id)?;
        let by = |e: &&Entry| writer.is_none_or(|w| *w == e.1);
        let (seq, writer, record) = entries.iter().rev().find(by)?;
        Some(Tip::of(*seq, writer.clone(), record))
    }

    fn reading(&self, id: JobId, me: &MachineId) -> Reading {
        Reading {
            tip: self.last_by(id, None),
            operator: self.last_by(id, Some(&Writer::Operator)),
            keeper: self.last_by(id, Some(&Writer::Keeper)),
            own: self.last_by(id, Some(&Writer::Machine(me.clone()))),
        }
    }
}

fn now() -> Time {
    Time::from_micros(0)
}

/// An attempt with its process.
struct Live {
    me: MachineId,
    attempt: Attempt,
    asks: VecDeque<Effect>,
    runs: bool,
    claimed: bool,
}

struct World {
    mutant: Mutant,
    rng: Rng,
    epoch: u64,
    journal: Journal,
    tickets: BTreeMap<JobId, Ticket>,
    live: Vec<Live>,
    tokens: BTreeSet<u64>,
    ends: BTreeSet<AttemptId>,
    hits: BTreeMap<&'static str, u64>,
    failure: Option<String>,
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        Self {
            mutant,
            rng: Rng::new(seed),
            epoch: 0,
            journal: Journal::default(),
            tickets: BTreeMap::new(),
            live: Vec::new(),
            tokens: BTreeSet::new(),
            ends: BTreeSet::new(),
            hits: BTreeMap::new(),
            failure: None,
        }
    }

    fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    fn violated(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn append(&mut self, id: JobId, writer: &Writer, record: &Record) -> Option<u64> {
        let last = self.journal.last_by(id, None).map_or(0, |tip| tip.seq);
        if record.prev != last {
            return None;
        }
        let seq = self.journal.seq + 1;
        let applied = match self.journal.fold(id) {
            Some(mut job) => job.apply(seq, now(), writer, record),
            None => match Job::first(id, seq, now(), writer, record) {
                Ok(_) => Applied::Changed,
                Err(void) => Applied::Void(void),
            },
        };
        if let Applied::Void(void) = applied {
            self.violated(format!(
                "void: {writer} wrote {}: {void}",
                record.change.kind()
            ));
            return None;
        }
        if let Change::Ended { attempt, .. } = &record.change
            && !self.ends.insert(*attempt)
        {
            self.violated(format!("attempt {attempt} has two ends"));
        }
        self.journal.seq = seq;
        let entries = self.journal.jobs.entry(id).or_default();
        entries.push((seq, writer.clone(), record.clone()));
        Some(seq)
    }

    fn dispatch(&mut self) {
        let id = JobId::from_random(self.rng.bits());
        let target = Target::Lane(Lane::any());
        let mut spec = Box::new(spec(target.clone()));
        spec.on_lost = if self.rng.chance(50) {
            OnLost::Retry
        } else {
            OnLost::Ask
        };
        let ticket = Ticket {
            ticket: TicketId::from_random(self.rng.bits()),
            job: id,
            after: 0,
            target: target.clone(),
            epoch: self.epoch,
            spec: spec.clone(),
        };
        let change = Change::Queued {
            ticket: ticket.ticket,
            target,
            work_seq: 1,
            cause: Cause::Dispatch,
            spec: Some(spec),
        };
        self.tickets.insert(id, ticket);
        let record = first_record(id, now(), &Writer::Operator, change).unwrap();
        self.append(id, &Writer::Operator, &record);
    }

    /// A machine gets the ticket of some job.
    fn deliver(&mut self) {
        let waiting: Vec<JobId> = self.tickets.keys().copied().collect();
        if waiting.is_empty() {
            return;
        }
        let id = waiting[usize::try_from(self.rng.next() % waiting.len() as u64).unwrap()];
        let ticket = self.tickets.remove(&id).unwrap();
        let me = machine(if self.rng.chance(50) { "ada" } else { "bob" });
        let attempt_id = AttemptId::from_random(self.rng.bits());
        let (attempt, effects) = Attempt::deliver(me.clone(), attempt_id, ticket);
        let attempt = attempt
            .under_lease(1 + self.epoch * 1000, now())
            .in_epoch(self.epoch);
        self.live.push(Live {
            me,
            attempt,
            asks: effects.into(),
            runs: false,
            claimed: false,
        });
    }

    /// Something happens to one attempt.
    fn turn(&mut self, i: usize) {
        let Some(ask) = self.live[i].asks.pop_front() else {
            if self.live[i].runs && self.rng.chance(15) {
                self.ends_process(i, Outcome::Exited { exit_code: 0 });
            }
            return;
        };
        let (job, me) = (self.live[i].attempt.job, self.live[i].me.clone());
        let input = match ask {
            Effect::Read => Input::Tip(self.journal.last_by(job, None)),
            Effect::ReadAll => Input::Reread(self.journal.reading(job, &me)),
            Effect::Pause => Input::Again,
            Effect::Append(_) if self.rng.chance(15) => {
                self.hit("append lost");
                Input::NoAnswer
            }
            Effect::Append(record) => {
                let first = record.prev == 0;
                match self.append(job, &Writer::Machine(me.clone()), &record) {
                    Some(seq) => {
                        self.appended(&record, first, i);
                        if self.rng.chance(15) {
                            self.hit("answer lost");
                            Input::NoAnswer
                        } else {
                            Input::Appended(seq)
                        }
                    }
                    None => Input::Refused(self.journal.reading(job, &me)),
                }
            }
            _ => return,
        };
        self.feed(i, input);
    }

    fn appended(&mut self, record: &Record, first: bool, i: usize) {
        match &record.change {
            Change::Adopted { .. } => {
                self.hit(if first {
                    "adopted as the first record"
                } else {
                    "adopted again"
                });
                if !self.live[i].runs {
                    self.hit("adopted after it ended");
                }
            }
            Change::Claimed { .. } if self.epoch > 0 => self.hit("claimed in the new epoch"),
            _ => {}
        }
    }

    fn ends_process(&mut self, i: usize, outcome: Outcome) {
        self.live[i].runs = false;
        let gone = Gone {
            outcome,
            output: OutputCount::default(),
            started_at: now(),
            ended_at: now(),
        };
        self.feed(i, Input::Gone(gone));
    }

    fn feed(&mut self, i: usize, input: Input) {
        let effects = self.live[i].attempt.on(input, now(), 0.5);
        for effect in effects {
            match effect {
                Effect::Start { token, .. } => {
                    if !self.tokens.insert(token) {
                        self.violated(format!("token {token} is given out twice"));
                    }
                    let job = self.live[i].attempt.job;
                    if self.live.iter().any(|l| l.runs && l.attempt.job == job) {
                        self.violated(format!("overlap: two attempts of {job} run"));
                    }
                    (self.live[i].runs, self.live[i].claimed) = (true, true);
                }
                Effect::Fence | Effect::Cancel => {
                    self.hit("gave way");
                    if self.live[i].runs {
                        self.ends_process(i, Outcome::Fenced);
                    }
                }
                Effect::GiveBack => {}
                other => self.live[i].asks.push_back(other),
            }
        }
    }

    /// The hub is put back to `older`.
    fn restore(&mut self, older: Journal) {
        self.journal = older;
        self.tickets.retain(|_, ticket| ticket.after == u64::MAX);
        if self.mutant != Mutant::SameEpoch {
            self.epoch = 1;
        }
        // Those that the journal has forgotten are written again.
        self.ends.clear();
        let known: BTreeSet<JobId> = self.journal.jobs.keys().copied().collect();
        for id in known.iter().copied() {
            let job = self.journal.fold(id).unwrap();
            if self.mutant == Mutant::NobodyAsked {
                if let JobState::Queued { ticket, .. } = job.state {
                    let ticket = Ticket {
                        ticket,
                        job: id,
                        after: 0,
                        target: job.target.clone(),
                        epoch: 1,
                        spec: Box::new((*job.spec).clone()),
                    };
                    self.tickets.insert(id, ticket);
                }
                continue;
            }
            if let Some(record) = damage::recovery(&job, 1, "then", now()) {
                self.hit("put to the operator");
                self.append(id, &Writer::Keeper, &record);
                if self.rng.chance(20) {
                    // The operator is quicker than the machine that has it.
                    let job = self.journal.fold(id).unwrap();
                    let change = Change::Canceled {
                        by: "ana".to_owned(),
                    };
                    let record = job.record(now(), &Writer::Operator, change).unwrap();
                    self.append(id, &Writer::Operator, &record);
                }
            }
        }
        for i in 0..self.live.len() {
            let live = &self.live[i];
            if live.attempt.is_done() {
                continue;
            }
            let job = live.attempt.job;
            if !known.contains(&job) {
                self.hit("job unknown after it");
            }
            // What was asked of the old server is never answered.
            self.live[i].asks.retain(|ask| *ask == Effect::Pause);
            if self.mutant == Mutant::NotTold {
                self.feed(
                    i,
                    Input::Reread(self.journal.reading(job, &self.live[i].me.clone())),
                );
                continue;
            }
            let (epoch, term) = (1, 1_000_000);
            let was_claimed = self.live[i].claimed;
            self.feed(i, Input::Rebuilt { epoch, term });
            if !was_claimed {
                self.hit("claim dropped");
            }
        }
    }

    /// The keeper at work once every agent holds its lease again.
    fn keeper(&mut self) {
        let mut keeper = Keeper::new(BootTime(0), Retention::default());
        if self.mutant != Mutant::PolicyDecides {
            keeper = keeper.in_epoch(1);
        }
        let mut all: Vec<(JobId, &Entry)> = Vec::new();
        for (id, entries) in &self.journal.jobs {
            all.extend(entries.iter().map(|e| (*id, e)));
        }
        all.sort_by_key(|(_, e)| e.0);
        for (id, (seq, writer, record)) in all {
            keeper.record(id, *seq, now(), writer, Ok(record), now());
        }
        for name in ["ada", "bob"] {
            let held = self.live.iter().filter(|l| l.me.as_str() == name);
            let record = LeaseRecord::Agent {
                machine: machine(name),
                instance: fleet_contract::ids::InstanceId::from_random([1; 10]),
                host: String::new(),
                released: false,
                term: Some(1_000_000),
                held: held
                    .filter(|l| l.attempt.is_held())
                    .map(|l| l.attempt.id)
                    .collect(),
                seen: None,
            };
            keeper.lease(&record, 1_000_001, BootTime(0));
        }
        for act in keeper.due(now(), BootTime(0)) {
            let Act::Append { job, record } = act else {
                continue;
            };
            if let Change::Lost { .. } = record.change {
                self.hit("nobody reports it");
                if record.after.state != fleet_contract::record::StateWord::NeedsHuman {
                    self.violated(format!("forgotten: {job} goes on though it may have ended"));
                }
            }
            self.append(job, &Writer::Keeper, &record);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let steps = self.rng.range(10, 120);
        let copied_at = self.rng.range(0, steps);
        let mut older = Journal::default();
        for step in 0..steps {
            if step == copied_at {
                older = self.journal.clone();
            }
            self.step();
        }
        self.restore(older);
        for _ in 0..200 {
            self.step();
        }
        // Everybody comes to an end.
        for _ in 0..3000 {
            for i in 0..self.live.len() {
                self.turn(i);
            }
            self.live.retain(|l| !l.attempt.is_done() || l.runs);
        }
        if self.mutant != Mutant::NobodyAsked {
            self.keeper();
        }
        for live in &self.live {
            let what = format!("stuck: {:?}", live.attempt);
            self.failure.get_or_insert(what);
        }
        for id in self.journal.jobs.keys() {
            if let JobState::Running { open, .. } = self.journal.fold(*id).unwrap().state {
                let what = format!("stuck: {id} runs as {} and nobody has it", open.attempt);
                self.failure.get_or_insert(what);
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn step(&mut self) {
        match self.rng.range(0, 10) {
            0 => self.dispatch(),
            1 | 2 => self.deliver(),
            _ if self.live.is_empty() => {}
            _ => {
                let i = usize::try_from(self.rng.next() % self.live.len() as u64).unwrap();
                self.turn(i);
            }
        }
    }
}

fn first_failure(mutant: Mutant, hits: &mut BTreeMap<&'static str, u64>) -> Option<(u64, String)> {
    for seed in 0..2000 {
        let mut world = World::new(seed, mutant);
        let outcome = world.run();
        for (what, n) in &world.hits {
            *hits.entry(what).or_default() += n;
        }
        if let Err(why) = outcome {
            return Some((seed, why));
        }
    }
    None
}

#[test]
fn a_store_that_forgets_doubles_no_token_and_leaves_no_job_stuck() {
    if let Ok(seed) = std::env::var("FLEET_SIM_SEED") {
        let seed = seed.parse().unwrap();
        let mut world = World::new(seed, Mutant::None);
        return world
            .run()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    let mut hits = BTreeMap::new();
    if let Some((seed, why)) = first_failure(Mutant::None, &mut hits) {
        panic!("seed {seed}: {why}\nreplay with FLEET_SIM_SEED={seed}");
    }
    let missing: Vec<_> = EXPECTED
        .iter()
        .filter(|w| !hits.contains_key(**w))
        .collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{hits:#?}");
    println!("{hits:#?}");
}

#[test]
fn planted_mistakes_are_caught() {
    for (mutant, how) in [
        (Mutant::SameEpoch, "twice"),
        (Mutant::NotTold, "stuck"),
        (Mutant::NobodyAsked, "overlap"),
        (Mutant::PolicyDecides, "forgotten"),
    ] {
        match first_failure(mutant, &mut BTreeMap::new()) {
            Some((seed, why)) => {
                println!("{mutant:?}: seed {seed}: {why}");
                assert!(
                    why.contains(how),
                    "{mutant:?} is caught otherwise: seed {seed}: {why}"
                );
            }
            None => panic!("{mutant:?} is not caught"),
        }
    }
}
