//! Why a job waits, runs or ended, and why a machine is not well: the chain is what holds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::ids::{InstanceId, Lane, Writer};
use fleet_contract::job::{Job, first_record};
use fleet_contract::machine::{
    Cause as Measured, Degraded, Load, MachineState, Presence, Service, Specs,
};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::projection::{
    Fact, Fleet, Holder, JournalFact, Limits, MachineReason, Reason, why, why_machine,
};
use fleet_contract::record::{Cause, Change, Next, StateWord};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::time::Time;

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

struct World {
    fleet: Fleet,
    jobs: BTreeMap<u8, Job>,
    seq: u64,
    beats: u64,
}

impl World {
    fn new() -> Self {
        Self {
            fleet: Fleet::new(Limits::default()),
            jobs: BTreeMap::new(),
            seq: 0,
            beats: 0,
        }
    }

    fn write(&mut self, n: u8, seconds: i64, writer: &Writer, change: Change) {
        let time = at(seconds);
        let record = match self.jobs.get(&n) {
            Some(job) => job.record(time, writer, change).unwrap(),
            None => first_record(job_id(n), time, writer, change).unwrap(),
        };
        self.seq += 1;
        match self.jobs.get_mut(&n) {
            Some(job) => drop(job.apply(self.seq, time, writer, &record)),
            None => {
                let job = Job::first(job_id(n), self.seq, time, writer, &record).unwrap();
                self.jobs.insert(n, job);
            }
        }
        self.fleet.fold(&Fact::Record(Box::new(JournalFact {
            job: job_id(n),
            writer: writer.clone(),
            seq: self.seq,
            stored: time,
            time,
            record: Ok(record),
        })));
    }

    fn dispatch(&mut self, n: u8, seconds: i64, target: Target, priority: Priority) {
        let mut spec = spec(target.clone());
        spec.priority = priority;
        spec.retries = 1;
        let queued = Change::Queued {
            ticket: ticket_id(n),
            target,
            work_seq: 1,
            cause: Cause::Dispatch,
            spec: Some(Box::new(spec)),
        };
        self.write(n, seconds, &Writer::Operator, queued);
    }

    fn claim(&mut self, n: u8, seconds: i64, name: &str) {
        let claimed = Change::Claimed {
            attempt: attempt_id(n),
            no: self.jobs[&n].next_no(),
            ticket: ticket_id(n),
            epoch: 0,
            target: None,
            lease: 1,
            spec: None,
        };
        self.write(n, seconds, &Writer::Machine(machine(name)), claimed);
    }

    fn presence(&mut self, seconds: i64, name: &str, change: impl FnOnce(&mut Presence)) {
        let mut presence = Presence {
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
            load: Load {
                slots: 2,
                ..Load::default()
            },
            labels: BTreeMap::new(),
            skills: BTreeMap::new(),
            models: Vec::new(),
            probed: Default::default(),
            degraded: Vec::new(),
            lost_at: None,
        };
        change(&mut presence);
        self.beats += 1;
        self.fleet.fold(&Fact::Presence {
            presence: Box::new(presence),
            seq: self.beats,
            seen: at(seconds),
        });
    }

    fn why(&self, n: u8, seconds: i64) -> Vec<Reason> {
        why(&self.fleet, self.fleet.job(job_id(n)).unwrap(), at(seconds))
    }
}

fn any() -> Target {
    Target::Lane(Lane::any())
}

#[test]
fn a_job_waits_because_nobody_may_take_it() {
    let mut w = World::new();
    w.dispatch(1, 0, any(), Priority::Normal);
    assert_eq!(w.why(1, 1)[1], Reason::NoMachine);
    w.presence(0, "opal", |p| p.service = Service::Offline);
    w.presence(0, "onyx", |p| p.service = Service::Cordoned);
    assert_eq!(
        w.why(1, 1)[1],
        Reason::NoneTakesWork {
            known: 2,
            best: MachineState::Cordoned
        }
    );
    // A pin is strict: that others could does not help.
    w.presence(0, "forge", |_| {});
    w.dispatch(2, 0, Target::Pin(machine("opal")), Priority::Normal);
    w.dispatch(3, 0, Target::Pin(machine("opak")), Priority::Normal);
    assert_eq!(
        w.why(2, 1)[1],
        Reason::PinAway {
            machine: machine("opal"),
            state: MachineState::Offline,
            seen: at(0)
        }
    );
    assert_eq!(
        w.why(3, 1)[1],
        Reason::PinUnknown {
            machine: machine("opak")
        }
    );
}

#[test]
fn a_job_waits_for_slots_and_is_told_who_holds_them_longest_and_who_is_before_it() {
    let mut w = World::new();
    w.presence(10, "forge", |p| p.load.slots_used = 2);
    w.presence(12, "anvil", |p| p.load.slots_used = 2);
    w.presence(12, "opal", |p| {
        p.service = Service::Offline;
        p.load.slots_used = 0;
    });
    for (n, name) in [(1, "anvil"), (2, "forge"), (3, "forge")] {
        w.dispatch(n, 0, any(), Priority::Normal);
        w.claim(n, i64::from(n), name);
    }
    w.dispatch(4, 5, any(), Priority::Normal);
    w.dispatch(5, 6, any(), Priority::Normal);
    w.dispatch(6, 7, any(), Priority::High);
    w.dispatch(7, 1, Target::Pin(machine("forge")), Priority::High);
    let chain = w.why(5, 13);
    assert_eq!(
        chain[..3],
        [
            Reason::Waits {
                since: at(6),
                cause: Cause::Dispatch
            },
            Reason::SlotsTaken {
                machines: 2,
                only: None,
                slots: 4,
                measured: at(10),
                longest: Some(Holder {
                    job: job_id(1),
                    machine: machine("anvil"),
                    since: at(1)
                }),
            },
            // The older one and the more urgent one, not the one of another queue.
            Reason::Ahead {
                jobs: 2,
                or_more: false
            },
        ]
    );
    assert!(matches!(chain[3], Reason::Expires { .. }));
    // The pinned one waits for its own machine's slots only.
    let chain = w.why(7, 13);
    assert!(
        matches!(&chain[1], Reason::SlotsTaken { machines: 1, only: Some(only), slots: 2, longest: Some(held), .. }
            if *only == machine("forge") && held.job == job_id(2)),
        "{chain:?}"
    );
    // A free slot: it is about to be taken, or something else is the matter.
    w.presence(14, "anvil", |p| p.load.slots_used = 1);
    for (seconds, late) in [(14, false), (17, true)] {
        let chain = w.why(5, seconds);
        assert!(
            matches!(&chain[1], Reason::SlotsFree { free: 1, first, overdue, .. }
                if *first == machine("anvil") && *overdue == late),
            "{chain:?}"
        );
    }
}

#[test]
fn a_job_that_failed_says_which_attempts_did_and_that_none_is_left() {
    let mut w = World::new();
    w.presence(0, "forge", |_| {});
    w.dispatch(1, 0, any(), Priority::Normal);
    for (no, next) in [(1, Next::Backoff { until: at(9) }), (2, Next::End)] {
        let seconds = i64::from(no) * 10;
        if no == 2 {
            let queued = Change::Queued {
                ticket: ticket_id(1),
                target: any(),
                work_seq: 2,
                cause: Cause::Backoff,
                spec: None,
            };
            assert_eq!(w.why(1, 8)[0], Reason::Pause { until: at(9) });
            w.write(1, seconds - 1, &Writer::Keeper, queued);
        }
        w.claim(1, seconds, "forge");
        assert!(matches!(
            &w.why(1, seconds)[0],
            Reason::Runs { no: n, state: Some(_), .. } if *n == no
        ));
        let ended = Change::Ended {
            attempt: attempt_id(1),
            outcome: Outcome::Exited {
                exit_code: no as u8,
            },
            output: OutputCount::default(),
            started_at: at(seconds),
            ended_at: at(seconds + 3),
            next,
        };
        w.write(1, seconds + 3, &Writer::Machine(machine("forge")), ended);
    }
    let chain = w.why(1, 30);
    assert!(matches!(
        chain[0],
        Reason::Ended {
            word: StateWord::Failed,
            ..
        }
    ));
    assert_eq!(
        chain[1],
        Reason::NoAttemptLeft {
            made: 2,
            retries: 1
        }
    );
    let tried: Vec<(u32, &Outcome)> = chain
        .iter()
        .filter_map(|r| match r {
            Reason::Tried {
                no, outcome, took, ..
            } => {
                assert_eq!(*took, Some(Duration::from_secs(3)));
                Some((*no, outcome))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        tried,
        [
            (2, &Outcome::Exited { exit_code: 2 }),
            (1, &Outcome::Exited { exit_code: 1 })
        ]
    );
}

#[test]
fn a_job_whose_machine_went_away_says_who_was_heard_of_last_and_what_is_asked() {
    let mut w = World::new();
    w.presence(0, "onyx", |_| {});
    w.dispatch(1, 0, any(), Priority::Normal);
    w.claim(1, 1, "onyx");
    assert!(matches!(
        w.why(1, 40)[0],
        Reason::Runs {
            state: Some(MachineState::Lost),
            ..
        }
    ));
    let lost = Change::Lost {
        attempt: attempt_id(1),
        reason: "its lease is over".to_owned(),
        next: Next::Ask {
            question: "shall it run again?".to_owned(),
        },
    };
    w.write(1, 50, &Writer::Keeper, lost);
    assert_eq!(
        w.why(1, 60),
        [
            Reason::Asks {
                question: "shall it run again?".to_owned(),
                since: at(50)
            },
            Reason::Unheard {
                no: 1,
                machine: machine("onyx"),
                state: Some(MachineState::Lost),
                seen: Some(at(0))
            },
            Reason::Losses { losses: 1 },
        ]
    );
}

#[test]
fn a_machine_says_what_is_wrong_with_it_worst_first() {
    let mut w = World::new();
    let degraded = Degraded {
        cause: Measured::DiskLow,
        value: "211 MiB free".to_owned(),
        since: at(3),
    };
    w.presence(10, "lapis", |p| {
        p.degraded.push(degraded.clone());
        p.contract = WIRE_VERSION + 1;
    });
    w.presence(10, "onyx", |p| {
        p.service = Service::Lost;
        p.lost_at = Some(at(11));
    });
    w.presence(10, "forge", |_| {});
    w.dispatch(1, 0, any(), Priority::Normal);
    w.claim(1, 1, "onyx");
    let of = |name: &str, seconds| {
        let machine = &w.fleet.machines()[&machine(name)];
        why_machine(&w.fleet, machine, at(seconds))
    };
    assert_eq!(
        of("lapis", 11),
        [
            MachineReason::Measured(degraded.clone()),
            MachineReason::Contract {
                theirs: WIRE_VERSION + 1
            }
        ]
    );
    assert_eq!(
        of("lapis", 18)[0],
        MachineReason::BeatsMissed {
            beats: 1,
            seen: at(10),
            interval: Duration::from_secs(5),
            lost_at: 3
        }
    );
    assert_eq!(
        of("onyx", 11),
        [
            MachineReason::ConnectionClosed { at: at(11) },
            MachineReason::Holds { jobs: 1 }
        ]
    );
    assert_eq!(of("forge", 11), [MachineReason::Well { seen: at(10) }]);
}
