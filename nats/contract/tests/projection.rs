//! The projection: what is folded first, twice or from which stream does not matter, and its
//! orders and counts agree with its jobs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::EventView;
use fleet_contract::ids::{InstanceId, JobId, Lane, MachineId, MessageId, Writer};
use fleet_contract::job::{Job, first_record};
use fleet_contract::machine::{Load, MachineState, Presence, Service, Specs};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::projection::{
    Fact, Fleet, HISTORY_MINUTES, JournalFact, LOAD_SAMPLES, Limits, Minute, place,
};
use fleet_contract::record::{Cause, Change, Next, Record, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::stat::Stat;
use fleet_contract::time::Time;
use proptest::prelude::*;

const NAMES: [&str; 3] = ["forge", "lapis", "anvil"];

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
    /// Journal, presence, flow, summaries.
    facts: [Vec<Fact>; 4],
    clock: u64,
}

impl World {
    fn step(&mut self, (which, what, who): Step) {
        self.clock += 1;
        match what % 18 {
            0..=12 => self.record(which % 5, what % 18, who),
            13 | 14 => self.presence(which, who),
            15 => self.stat(which, who),
            _ => self.event(which, who),
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

    fn presence(&mut self, which: u8, who: u8) {
        self.seq[1] += 1;
        let mut presence = presence(NAMES[usize::from(who % 3)]);
        presence.load.load = f64::from(which);
        presence.service = match who % 9 {
            0 => Service::Offline,
            1 => Service::Lost,
            2 => Service::Cordoned,
            _ => Service::Up,
        };
        self.facts[1].push(Fact::Presence {
            presence: Box::new(presence),
            seq: self.seq[1],
            seen: at(self.clock),
        });
    }

    fn stat(&mut self, which: u8, who: u8) {
        let stat = Stat {
            interval_ms: 1000,
            tickets: u64::from(which),
            ..Stat::default()
        };
        self.facts[3].push(Fact::Stat {
            machine: machine(NAMES[usize::from(who % 3)]),
            stat,
            at: at(self.clock),
        });
    }

    fn event(&mut self, which: u8, who: u8) {
        self.seq[2] += 1;
        let kind = match which % 4 {
            0 => "machine.load",
            1 => "machine.lost",
            2 => "machine.degraded",
            _ => "machine.up",
        };
        let event = EventView {
            id: MessageId::from_random([which; 10]),
            seq: self.seq[2],
            time: at(self.clock),
            machine: Some(machine(NAMES[usize::from(who % 3)])),
            kind: kind.to_owned(),
            job: None,
            attempt: None,
            data: serde_json::json!({ "boot": "a", "seq": 1, "detail": {
                "load": which, "cores": 4, "mem_free": 1, "mem_total": 2, "slots_used": 1, "slots": 2,
            } }),
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
                // Faster than the dispatcher's own record, it carries the job.
                target: known.is_none().then(|| Target::Lane(Lane::any())),
                lease: 1,
                spec: known
                    .is_none()
                    .then(|| Box::new(spec(Target::Lane(Lane::any())))),
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
        probed: Default::default(),
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
        turns in prop::collection::vec(0..4usize, 300),
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
        for name in NAMES {
            counts_agree(&fleet, &machine(name));
        }
        // The very fold of a single job: states are those that its journal tells.
        for (id, job) in &world.jobs {
            prop_assert_eq!(&fleet.job(*id).unwrap().state, &job.state);
        }
    }
}

/// What is counted of a machine is what a look at every job finds.
fn counts_agree(fleet: &Fleet, name: &MachineId) {
    let here = |job: &&Job| place(job) == Some(name);
    for word in StateWord::ALL {
        let all = fleet.jobs().values().filter(here);
        let found = all.filter(|j| j.state.word() == word).count();
        let counted = fleet.jobs_at(name).map_or(0, |at| at.count(word));
        assert_eq!(counted, found, "{name} {word}");
    }
    let mut open: Vec<JobId> = fleet
        .jobs()
        .values()
        .filter(|j| j.state.open().is_some_and(|o| o.machine == *name))
        .map(|j| j.id)
        .collect();
    let mut running: Vec<JobId> = fleet.running_on(name).map(|j| j.id).collect();
    open.sort_unstable();
    running.sort_unstable();
    assert_eq!(running, open);
}

fn lost(seq: u64, stored: Time) -> Fact {
    let event = EventView {
        id: MessageId::from_random([0; 10]),
        seq,
        time: stored,
        machine: Some(machine("forge")),
        kind: "machine.lost".to_owned(),
        job: None,
        attempt: None,
        data: serde_json::Value::Null,
    };
    Fact::Event {
        event: Box::new(event),
        stored,
    }
}

/// Beats become too old at half seconds.
fn half(n: u64) -> Time {
    Time::from_micros(i64::try_from(n).unwrap() * 500_000)
}

/// What a look at every machine finds.
fn by_looking(fleet: &Fleet, now: Time) -> Vec<(MachineState, MachineId)> {
    let all = fleet.machines().values();
    let mut all: Vec<_> = all
        .map(|m| (m.state(now), m.presence.machine.clone()))
        .collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn the_index_of_machines_says_what_a_look_at_each_finds(
        beats in prop::collection::vec((0..30u8, 0..9u8, 0..60u64, any::<bool>()), 0..60),
        asked in prop::collection::vec(0..120u64, 1..6),
    ) {
        let mut fleet = Fleet::new(Limits::default());
        for (seq, (who, service, when, pass)) in beats.into_iter().enumerate() {
            let mut presence = presence(&format!("m{who}"));
            presence.service = [Service::Offline, Service::Lost, Service::Cordoned, Service::Draining]
                .get(usize::from(service))
                .copied()
                .unwrap_or(Service::Up);
            presence.interval_ms = 1000 * u64::from(service);
            let seen = half(when);
            fleet.fold(&Fact::Presence { presence: Box::new(presence), seq: seq as u64 + 1, seen });
            if pass {
                fleet.pass_time(seen);
            }
            if seq % 20 == 19 {
                let keep = (0..20).map(|n| machine(&format!("m{n}"))).collect();
                fleet.fold(&Fact::Registered(keep));
            }
        }
        for now in asked.into_iter().map(half) {
            let looked = by_looking(&fleet, now);
            let listed: Vec<_> = fleet
                .worst_machines(now)
                .map(|(state, m)| (state, m.presence.machine.clone()))
                .collect();
            prop_assert_eq!(&listed, &looked);
            for state in MachineState::ALL {
                let found = looked.iter().filter(|(s, _)| *s == state).count();
                prop_assert_eq!(fleet.count_machines(state, now), found);
            }
        }
    }

    #[test]
    fn minutes_add_up_to_what_was_folded(steps in prop::collection::vec(any::<Step>(), 0..200)) {
        let world = world(&steps);
        let fleet = folded(Limits::default(), &world.all());
        let sum = |what: fn(&Minute) -> u32| -> u64 {
            fleet.history().recorded().map(|(_, m)| u64::from(what(m))).sum()
        };
        prop_assert_eq!(sum(|m| m.events), fleet.counters().events);
        prop_assert_eq!(sum(|m| m.dispatched), fleet.jobs().len() as u64);
        let ended = fleet.jobs().values().filter(|j| j.state.word().is_terminal()).count();
        prop_assert!(sum(|m| m.ended) >= ended as u64);
        let lost = fleet.count(StateWord::Lost) as u64;
        prop_assert!(sum(|m| m.lost) >= lost);
    }

    #[test]
    fn minutes_and_samples_are_bounded_whatever_the_times(
        times in prop_oneof![
            prop::collection::vec(any::<i64>(), 0..50),
            prop::collection::vec(0..40_000_000_000i64, 0..2000),
        ],
    ) {
        let mut fleet = Fleet::new(Limits::default());
        for (seq, time) in times.into_iter().enumerate() {
            let seen = Time::from_micros(time);
            fleet.fold(&Fact::Presence {
                presence: Box::new(presence("forge")),
                seq: seq as u64 + 1,
                seen,
            });
            fleet.fold(&lost(seq as u64 + 1, seen));
            fleet.pass_time(seen);
        }
        prop_assert!(fleet.history().recorded().count() <= HISTORY_MINUTES);
        let at: Vec<Time> = fleet.load_history(&machine("forge")).map(|(at, _)| at).collect();
        prop_assert!(at.len() <= LOAD_SAMPLES && at.is_sorted());
    }
}

#[test]
fn traffic_is_the_last_summary_and_not_believed_for_long() {
    let mut fleet = Fleet::new(Limits::default());
    let stat = |tickets| Stat {
        interval_ms: 500,
        tickets,
        chunks: 3,
        events: 1,
        bytes_out: 2048,
        ..Stat::default()
    };
    let told = |tickets, when| Fact::Stat {
        machine: machine("forge"),
        stat: stat(tickets),
        at: at(when),
    };
    fleet.fold(&told(1, 10));
    fleet.fold(&told(2, 11));
    fleet.fold(&told(1, 10)); // comes again, late
    let now = fleet.traffic(&machine("forge"), at(12)).unwrap();
    assert_eq!((now.jobs_in_per_s, now.messages_out_per_s), (4.0, 8.0));
    assert_eq!((now.bytes_out_per_s, now.age.as_secs()), (4096.0, 1));
    assert_eq!(fleet.all_traffic(at(14)).count(), 1);
    assert_eq!(fleet.traffic(&machine("forge"), at(15)), None);
    assert_eq!(fleet.traffic(&machine("anvil"), at(12)), None);
    fleet.fold(&Fact::Registered([machine("anvil")].into()));
    assert_eq!(fleet.traffic(&machine("forge"), at(12)), None);
}

#[test]
fn a_load_sample_is_no_event_but_is_kept_with_what_beats_say() {
    let mut world = World {
        clock: 100,
        ..World::default()
    };
    world.step((3, 13, 0)); // a beat of forge at 101, load 3
    world.clock = 115;
    world.step((4, 16, 0)); // a sample of forge at 116, load 4 on 4 processors
    let fleet = folded(Limits::default(), &world.all());
    let samples: Vec<_> = fleet
        .load_history(&machine("forge"))
        .map(|(when, s)| (when, s.load, s.mem_free))
        .collect();
    assert_eq!(samples, [(at(101), 3.0, 1.0), (at(116), 1.0, 0.5)]);
    assert_eq!(fleet.events().len(), 0);
    assert_eq!(fleet.counters().samples, 1);
}

#[test]
fn the_minutes_of_a_failure_say_so() {
    let mut world = World::default();
    for what in [0, 4, 7] {
        world.step((0, what, 1)); // fails with exit 1 in the first minute
    }
    world.clock = 70;
    world.step((1, 0, 0));
    world.step((1, 4, 0));
    world.step((1, 10, 1)); // is asked about in the second
    world.clock = 130;
    world.step((1, 16, 0)); // a machine is lost in the third
    let fleet = folded(Limits::default(), &world.all());
    let minutes: Vec<Minute> = fleet
        .history()
        .minutes(at(140), 3)
        .map(|(_, m)| m)
        .collect();
    let counts = |m: &Minute| (m.dispatched, m.ended, m.failed, m.asked, m.machines_lost);
    let all: Vec<_> = minutes.iter().map(counts).collect();
    assert_eq!(all, [(1, 1, 1, 0, 0), (1, 0, 0, 1, 0), (0, 0, 0, 0, 1)]);
    assert!(minutes.iter().all(Minute::has_problem));
}

#[test]
fn what_is_kept_is_bounded_and_what_is_not_is_counted() {
    let mut world = World::default();
    for which in 0..5 {
        for what in [0, 4, 7] {
            world.step((which, what, 0));
        }
        world.step((1, 16, 0));
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
    assert_eq!(fleet.formerly_failed(at(20)), 0);
    assert_eq!(fleet.formerly_failed(at(4000)), 1);
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
fn a_writers_clock_decides_neither_what_is_fresh_nor_any_order() {
    const HOURS: i64 = 3 * 3600 * 1_000_000;
    let mut world = World::default();
    for step in [
        (0, 0, 0),
        (0, 4, 0),
        (0, 7, 1),
        (1, 0, 1),
        (1, 4, 1),
        (1, 7, 1),
    ] {
        world.step(step);
    }
    let honest = folded(Limits::default(), &world.all());
    let skewed = |off: i64| {
        let mut facts = world.all();
        for fact in &mut facts {
            let Fact::Record(record) = fact else { continue };
            // The first job's machine is off, the second one's is not.
            if record.job != job_id(0) || record.writer == Writer::Operator {
                continue;
            }
            let off = |time: Time| Time::from_micros(time.as_micros() + off);
            record.time = off(record.time);
            if let Ok(Record {
                change:
                    Change::Ended {
                        started_at,
                        ended_at,
                        ..
                    },
                ..
            }) = &mut record.record
            {
                (*started_at, *ended_at) = (off(*started_at), off(*ended_at));
            }
        }
        folded(Limits::default(), &facts)
    };
    assert_eq!(honest.freshly_failed(at(10)), 2);
    for off in [-HOURS, HOURS] {
        let fleet = skewed(off);
        assert_eq!(fleet.freshly_failed(at(10)), 2, "{off}");
        assert_eq!(fleet.jobs(), honest.jobs(), "{off}");
        let order = |fleet: &Fleet| fleet.worst_first_ids(at(10)).collect::<Vec<_>>();
        assert_eq!(order(&fleet), order(&honest), "{off}");
        let times = fleet.events().iter().map(|(key, e)| (key.stored, e.time));
        assert!(times.into_iter().all(|(stored, time)| stored == time));
    }
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

#[test]
fn a_machine_cannot_claim_a_rate_by_an_interval_that_cannot_be() {
    for (interval_ms, least, most) in [(1, 1.0, 200.0), (u64::MAX, 1.0, 2.0), (2000, 50.0, 50.0)] {
        let mut fleet = Fleet::new(Limits::default());
        assert!(!fleet.tells_traffic(&machine("forge")));
        fleet.fold(&Fact::Stat {
            machine: machine("forge"),
            stat: Stat {
                interval_ms,
                tickets: 100,
                ..Stat::default()
            },
            at: at(1),
        });
        let rate = fleet
            .traffic(&machine("forge"), at(2))
            .unwrap()
            .jobs_in_per_s;
        assert!((least..=most).contains(&rate), "{interval_ms}: {rate}");
        assert!(fleet.tells_traffic(&machine("forge")));
    }
}

/// One history everywhere: the flow shows this dispatch, too.
#[test]
fn a_claim_that_was_faster_than_its_dispatch_tells_both() {
    let mut world = World::default();
    world.step((1, 4, 0));
    let mut fleet = Fleet::new(Limits::default());
    for fact in world.all() {
        fleet.fold(&fact);
        fleet.fold(&fact);
    }
    let words: Vec<&str> = fleet.events().values().map(|e| e.word.as_str()).collect();
    assert_eq!(words, ["queued", "claimed"]);
    assert_eq!(fleet.counters().events, 2);
}
