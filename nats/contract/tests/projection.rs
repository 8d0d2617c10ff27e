//! The projection: what is folded first, twice or from which stream does not matter, and its
//! orders and counts agree with its jobs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::EventView;
use fleet_contract::ids::{InstanceId, JobId, Lane, MessageId, Writer};
use fleet_contract::job::{Job, first_record};
use fleet_contract::machine::{Load, MachineState, Presence, Service, Specs};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::projection::{Fact, Fleet, JournalFact, Limits};
use fleet_contract::record::{Cause, Change, Next, Record, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::time::Time;
use proptest::prelude::*;

fn at(seq: u64) -> Time {
    Time::from_micros(i64::try_from(seq).unwrap() * 1_000_000)
}

/// One step of a made-up fleet: which job, what is tried with it, and by whom.
type Step = (u8, u8, u8);

/// Writes a history the way agents, operator and keeper would, mistakes included.
#[derive(Default)]
struct World {
    jobs: BTreeMap<JobId, Job>,
    seq: [u64; 3],
    facts: [Vec<Fact>; 3],
    clock: u64,
}

impl World {
    fn step(&mut self, (which, what, who): Step) {
        self.clock += 1;
        match what % 16 {
            0..=12 => self.record(which % 5, what % 16, who),
            13 | 14 => self.presence(who),
            _ => self.event(which),
        }
    }

    fn record(&mut self, which: u8, what: u8, who: u8) {
        let id = job_id(which);
        let agent = machine(if who.is_multiple_of(2) {
            "forge"
        } else {
            "lapis"
        });
        let time = at(self.clock);
        self.seq[0] += 1;
        let seq = self.seq[0];
        let known = self.jobs.get(&id);
        let open = known.and_then(|j| j.state.open().cloned());
        let (writer, change) = change(what, who, known, open.as_ref(), &agent, time);
        let record = match known {
            Some(job) => job.record(time, &writer, change.clone()),
            None => first_record(id, time, &writer, change.clone()),
        };
        let record = record.unwrap_or_else(|_| Record {
            prev: known.map_or(0, |j| j.last_seq),
            change,
            after: known.map_or_else(
                || {
                    let queued = queued(who, Some(Box::new(spec(Target::Lane(Lane::any())))));
                    first_record(id, time, &Writer::Operator, queued)
                        .unwrap()
                        .after
                },
                Job::after,
            ),
        });
        let fact = JournalFact {
            job: id,
            writer: writer.clone(),
            seq,
            stored: time,
            time,
            record: Ok(record.clone()),
        };
        match self.jobs.get_mut(&id) {
            Some(job) => drop(job.apply(seq, time, &writer, &record)),
            None => {
                if let Ok(job) = Job::first(id, seq, time, &writer, &record) {
                    self.jobs.insert(id, job);
                }
            }
        }
        self.facts[0].push(Fact::Record(Box::new(fact)));
    }

    fn presence(&mut self, who: u8) {
        self.seq[1] += 1;
        let presence = presence(["forge", "lapis", "anvil"][usize::from(who % 3)]);
        self.facts[1].push(Fact::Presence {
            presence: Box::new(presence),
            seq: self.seq[1],
            seen: at(self.clock),
        });
    }

    fn event(&mut self, which: u8) {
        self.seq[2] += 1;
        let event = EventView {
            id: MessageId::from_random([which; 10]),
            seq: self.seq[2],
            time: at(self.clock),
            machine: Some(machine("forge")),
            kind: if which.is_multiple_of(4) {
                "machine.load".to_owned()
            } else {
                "machine.up".to_owned()
            },
            job: None,
            attempt: None,
            data: serde_json::json!({ "boot": "a", "seq": 1, "detail": { "n": which } }),
        };
        self.facts[2].push(Fact::Event {
            event: Box::new(event),
            stored: at(self.clock),
        });
    }

    fn all(&self) -> Vec<Fact> {
        self.facts.concat()
    }
}

fn queued(who: u8, spec: Option<Box<fleet_contract::spec::JobSpec>>) -> Change {
    Change::Queued {
        ticket: ticket_id(who),
        target: Target::Lane(Lane::any()),
        work_seq: 1,
        cause: Cause::Dispatch,
        spec,
    }
}

fn change(
    what: u8,
    who: u8,
    known: Option<&Job>,
    open: Option<&fleet_contract::job::Open>,
    agent: &fleet_contract::ids::MachineId,
    time: Time,
) -> (Writer, Change) {
    let attempt = open.map_or_else(|| attempt_id(who), |o| o.attempt);
    let runs_on = open.map_or_else(|| agent.clone(), |o| o.machine.clone());
    match what {
        0..=3 => {
            let spec = known
                .is_none()
                .then(|| Box::new(spec(Target::Lane(Lane::any()))));
            (Writer::Operator, queued(who, spec))
        }
        4..=6 => {
            let claimed = Change::Claimed {
                attempt: attempt_id(who),
                no: known.map_or(1, Job::next_no),
                ticket: ticket_id(who),
                epoch: 0,
                target: None,
                lease: 1,
                spec: None,
            };
            (Writer::Machine(agent.clone()), claimed)
        }
        7..=9 => {
            let ended = Change::Ended {
                attempt,
                outcome: Outcome::Exited { exit_code: who % 3 },
                output: OutputCount::default(),
                started_at: time,
                ended_at: time,
                next: if what == 9 {
                    Next::Backoff { until: time }
                } else {
                    Next::End
                },
            };
            (Writer::Machine(runs_on), ended)
        }
        10 => (
            Writer::Keeper,
            Change::Lost {
                attempt,
                reason: "gone".to_owned(),
                next: if who.is_multiple_of(2) {
                    Next::End
                } else {
                    Next::Ask {
                        question: "retry?".to_owned(),
                    }
                },
            },
        ),
        11 => (
            Writer::Operator,
            Change::Canceled {
                by: "ana".to_owned(),
            },
        ),
        _ => (Writer::Keeper, Change::Expired {}),
    }
}

fn presence(name: &str) -> Presence {
    Presence {
        machine: machine(name),
        instance: InstanceId::from_random([0; 10]),
        boot: String::new(),
        host: String::new(),
        address: String::new(),
        connection: 0,
        service: Service::Up,
        interval_ms: 5000,
        contract: WIRE_VERSION,
        specs: Specs::default(),
        load: Load::default(),
        labels: BTreeMap::new(),
        skills: BTreeMap::new(),
        models: Vec::new(),
        degraded: Vec::new(),
        lost_at: None,
    }
}

fn folded<'a>(limits: Limits, facts: impl IntoIterator<Item = &'a Fact>) -> Fleet {
    let mut fleet = Fleet::new(limits);
    for fact in facts {
        fleet.fold(fact);
    }
    fleet
}

fn world(steps: &[Step]) -> World {
    let mut world = World::default();
    for step in steps {
        world.step(*step);
    }
    world
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..8usize, 0..30usize).prop_map(|(ended_jobs, events)| Limits { ended_jobs, events })
}

proptest! {
    #[test]
    fn a_prefix_and_then_the_rest_is_all_of_it_and_duplicates_are_harmless(
        steps in prop::collection::vec(any::<Step>(), 0..150),
        limits in limits(),
        cut in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let facts = world(&steps).all();
        let whole = folded(limits, &facts);
        let cut = if facts.is_empty() { 0 } else { cut.index(facts.len()) };
        let mut resumed = folded(limits, &facts[..cut]);
        // A reader that resumes too early brings again what was folded already.
        let from = if cut == 0 { 0 } else { again.index(cut) };
        for fact in &facts[from..] {
            resumed.fold(fact);
        }
        prop_assert_eq!(whole, resumed);
    }

    #[test]
    fn which_stream_is_read_first_does_not_matter(
        steps in prop::collection::vec(any::<Step>(), 0..150),
        limits in limits(),
        turns in prop::collection::vec(0..3usize, 300),
    ) {
        let world = world(&steps);
        let mut sides = world.facts.each_ref().map(|facts| facts.iter());
        let mut mixed = Vec::new();
        for turn in turns {
            mixed.extend(sides[turn].next());
        }
        for side in &mut sides {
            mixed.extend(side);
        }
        prop_assert_eq!(folded(limits, &world.all()), folded(limits, mixed));
    }

    #[test]
    fn orders_and_counts_agree_with_the_jobs(
        steps in prop::collection::vec(any::<Step>(), 0..200),
        now in 0..20_000u64,
    ) {
        let world = world(&steps);
        let fleet = folded(Limits::default(), &world.all());
        let mut listed: Vec<JobId> = fleet.worst_first(at(now)).map(|j| j.id).collect();
        listed.sort_unstable();
        let known: Vec<JobId> = fleet.jobs().keys().copied().collect();
        prop_assert_eq!(&listed, &known);
        for word in StateWord::ALL {
            let counted = fleet.jobs().values().filter(|j| j.state.word() == word).count();
            prop_assert_eq!(fleet.count(word), counted);
        }
        // The very fold of a single job: states are those that its journal tells.
        for (id, job) in &world.jobs {
            prop_assert_eq!(&fleet.job(*id).unwrap().state, &job.state);
        }
    }
}

#[test]
fn what_is_kept_is_bounded_and_what_is_not_is_counted() {
    let mut world = World::default();
    for which in 0..5 {
        for what in [0, 4, 7] {
            world.step((which, what, 0));
        }
        world.step((1, 15, 0));
    }
    let limits = Limits {
        ended_jobs: 2,
        events: 4,
    };
    let fleet = folded(limits, &world.all());
    assert_eq!(fleet.jobs().len(), 2);
    assert_eq!(fleet.events().len(), 4);
    let counters = fleet.counters();
    assert_eq!(counters.jobs_dropped, 3);
    assert_eq!(counters.events, counters.events_dropped + 4);
}

#[test]
fn what_waits_for_a_person_is_first_and_old_failures_are_behind_what_runs() {
    let mut world = World::default();
    world.step((0, 0, 0)); // 0 fails
    world.step((0, 4, 0));
    world.step((0, 7, 1));
    world.step((1, 0, 2)); // 1 runs
    world.step((1, 4, 2));
    world.step((2, 0, 1)); // 2 is asked about
    world.step((2, 4, 1));
    world.step((2, 10, 1));
    world.step((3, 0, 4)); // 3 waits
    let fleet = folded(Limits::default(), &world.all());
    let words =
        |now| -> Vec<StateWord> { fleet.worst_first(now).map(|j| j.state.word()).collect() };
    use StateWord::{Failed, NeedsHuman, Queued, Running};
    assert_eq!(words(at(20)), [NeedsHuman, Failed, Running, Queued]);
    assert_eq!(words(at(4000)), [NeedsHuman, Running, Queued, Failed]);
    assert_eq!(fleet.freshly_failed(at(20)), 1);
    assert_eq!(fleet.freshly_failed(at(4000)), 0);
}

#[test]
fn machines_are_worst_first_at_the_time_that_is_asked_about() {
    let mut fleet = Fleet::new(Limits::default());
    for (seq, name) in ["anvil", "forge"].into_iter().enumerate() {
        fleet.fold(&Fact::Presence {
            presence: Box::new(presence(name)),
            seq: seq as u64 + 1,
            seen: at(seq as u64 * 100),
        });
    }
    let states: Vec<_> = fleet
        .machines_worst_first(at(102))
        .into_iter()
        .map(|(state, m)| (state, m.presence.machine.to_string()))
        .collect();
    assert_eq!(
        states,
        [
            (MachineState::Lost, "anvil".to_owned()),
            (MachineState::Up, "forge".to_owned())
        ]
    );
    fleet.fold(&Fact::Registered([machine("forge")].into()));
    assert_eq!(fleet.machines().len(), 1);
}

#[test]
fn purged_jobs_go_when_the_journal_begins_after_them() {
    let mut world = World::default();
    for what in [0, 4, 7] {
        world.step((0, what, 0));
    }
    world.step((1, 0, 1));
    let mut fleet = folded(Limits::default(), &world.all());
    assert!(!fleet.fold(&Fact::JournalBegins(3)));
    assert!(fleet.fold(&Fact::JournalBegins(4)));
    assert_eq!(fleet.jobs().len(), 1);
    assert_eq!(fleet.count(StateWord::Succeeded), 0);
}

#[test]
fn a_watcher_keeps_no_megabytes_of_one_job() {
    let mut heavy = spec(Target::Lane(Lane::any()));
    heavy.command = vec!["sh".to_owned(), "ä".repeat(50_000), "tail".to_owned()];
    heavy.stdin = Some(vec![0; 1 << 20]);
    heavy.env = BTreeMap::from([("SECRET".to_owned(), "x".to_owned())]);
    let change = queued(1, Some(Box::new(heavy)));
    let record = first_record(job_id(1), at(1), &Writer::Operator, change).unwrap();
    let mut fleet = Fleet::new(Limits::default());
    fleet.fold(&Fact::Record(Box::new(JournalFact {
        job: job_id(1),
        writer: Writer::Operator,
        seq: 1,
        stored: at(1),
        time: at(1),
        record: Ok(record),
    })));
    let kept = &fleet.job(job_id(1)).unwrap().spec;
    assert!(kept.stdin.is_none() && kept.env.is_empty());
    assert_eq!(kept.command.len(), 2);
    assert!(kept.command[1].len() <= 4100 && kept.command[1].ends_with('…'));
}
