//! What the projection costs: facts folded in a second, memory, what questions take.
//! `cargo run --release -p fleet-contract --example projection_cost -- MACHINES JOBS`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "it measures, and says what it measured"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::EventView;
use fleet_contract::ids::{
    AttemptId, InstanceId, JobId, Lane, MachineId, MessageId, TicketId, Writer,
};
use fleet_contract::job::{Job, first_record};
use fleet_contract::machine::{Load, MachineState, Presence, Service, Specs};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::projection::{Fact, Fleet, JournalFact, Limits};
use fleet_contract::record::{Cause, Change, Next};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::stat::Stat;
use fleet_contract::time::Time;

const START: i64 = 1_769_861_071_000_000;

fn at(ms: u64) -> Time {
    Time::from_micros(START + i64::try_from(ms).unwrap_or(0) * 1000)
}

fn machine(n: usize) -> MachineId {
    format!("site-{n:05}").parse().unwrap()
}

fn bits(n: u64) -> [u8; 10] {
    let mut bits = [7; 10];
    bits[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bits
}

/// The three records of each job, interleaved as a busy fleet's are.
struct Journal {
    seq: u64,
    open: std::collections::VecDeque<Job>,
    machines: usize,
}

impl Journal {
    fn fact(&mut self, n: u64, job: Option<Job>, writer: Writer, change: Change) -> (Fact, Job) {
        self.seq += 1;
        let (id, time) = (JobId::from_random(bits(n)), at(self.seq * 10));
        let record = match &job {
            Some(job) => job.record(time, &writer, change).unwrap(),
            None => first_record(id, time, &writer, change).unwrap(),
        };
        let job = match job {
            Some(mut job) => {
                job.apply(self.seq, time, &writer, &record);
                job
            }
            None => Job::first(id, self.seq, time, &writer, &record).unwrap(),
        };
        let fact = Fact::Record(Box::new(JournalFact {
            job: job.id,
            writer,
            seq: self.seq,
            stored: time,
            time,
            record: Ok(record),
        }));
        (fact, job)
    }

    fn job(&mut self, n: u64) -> Vec<Fact> {
        let target = Target::Lane(Lane::any());
        let command = vec!["cargo".to_owned(), "test".to_owned(), format!("case-{n}")];
        let spec = JobSpec::new(command, target.clone(), at(0), "ana@anvil".to_owned());
        let queued = Change::Queued {
            ticket: TicketId::from_random(bits(n)),
            target,
            work_seq: n,
            cause: Cause::Dispatch,
            spec: Some(Box::new(spec)),
        };
        let (first, job) = self.fact(n, None, Writer::Operator, queued);
        let name = machine(n as usize % self.machines);
        let claimed = Change::Claimed {
            attempt: AttemptId::from_random(bits(n)),
            no: 1,
            ticket: TicketId::from_random(bits(n)),
            epoch: 0,
            target: None,
            lease: 1,
            spec: None,
        };
        let (second, job) = self.fact(n, Some(job), Writer::Machine(name), claimed);
        self.open.push_back(job);
        let mut facts = vec![first, second];
        if self.open.len() > self.machines.min(2000) {
            facts.extend(self.end(n));
        }
        facts
    }

    fn end(&mut self, n: u64) -> Option<Fact> {
        let job = self.open.pop_front()?;
        let attempt = job.attempt()?.clone();
        let ended = Change::Ended {
            attempt: attempt.id,
            outcome: Outcome::Exited {
                exit_code: u8::from(n.is_multiple_of(20)),
            },
            output: OutputCount::default(),
            started_at: attempt.claimed_at,
            ended_at: at(self.seq * 10),
            next: Next::End,
        };
        Some(
            self.fact(0, Some(job), Writer::Machine(attempt.machine), ended)
                .0,
        )
    }
}

fn presence(n: usize) -> Presence {
    Presence {
        machine: machine(n),
        instance: InstanceId::from_random(bits(n as u64)),
        boot: "cfabdev47astc6n2".to_owned(),
        host: format!("host-{n}.example"),
        address: "192.168.1.20".to_owned(),
        connection: n as u64,
        service: Service::Up,
        interval_ms: 5000,
        contract: WIRE_VERSION,
        specs: Specs {
            os: "linux".to_owned(),
            os_version: "Debian GNU/Linux 13".to_owned(),
            arch: "x86_64".to_owned(),
            cores: 8,
            mem_total: 32 << 30,
            version: "0.1.0".to_owned(),
        },
        load: Load {
            slots: 8,
            ..Load::default()
        },
        labels: BTreeMap::from([("site".to_owned(), "ams".to_owned())]),
        skills: BTreeMap::new(),
        models: Vec::new(),
        probed: Default::default(),
        degraded: Vec::new(),
        lost_at: None,
    }
}

fn event(seq: u64, machines: usize) -> Fact {
    let event = EventView {
        id: MessageId::from_random(bits(seq)),
        seq,
        time: at(seq * 10),
        machine: Some(machine(seq as usize % machines)),
        kind: "build.step".to_owned(),
        job: None,
        attempt: None,
        data: serde_json::json!({ "boot": "x", "seq": seq, "detail": { "step": "link", "of": 12, "target": "release" } }),
    };
    Fact::Event {
        event: Box::new(event),
        stored: at(seq * 10),
    }
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Folds what `make` makes a thousand at a time; only the folding is timed.
fn fold(fleet: &mut Fleet, what: &str, count: u64, mut make: impl FnMut(u64) -> Vec<Fact>) {
    let (mut took, mut folded) = (Duration::ZERO, 0u64);
    let mut n = 0;
    while n < count {
        let batch: Vec<Fact> = (n..(n + 1000).min(count)).flat_map(&mut make).collect();
        n += 1000;
        folded += batch.len() as u64;
        let begun = Instant::now();
        for fact in &batch {
            fleet.fold(fact);
        }
        took += begun.elapsed();
    }
    println!(
        "{what}: {folded} folded, {:.2} us each, memory {} MiB",
        took.as_secs_f64() * 1e6 / folded as f64,
        memory()
    );
}

fn ask<T>(what: &str, mut ask: impl FnMut() -> T) {
    const TIMES: u32 = 200;
    let begun = Instant::now();
    for _ in 0..TIMES {
        black_box(ask());
    }
    println!(
        "{what}: {:.1} us",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
    );
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let machines: usize = args.next().unwrap_or(3000);
    let jobs = args.next().unwrap_or(100_000) as u64;
    let mut limits = Limits::default();
    limits.events = args.next().unwrap_or(limits.events);
    let mut fleet = Fleet::new(limits);
    println!(
        "{machines} machines, {jobs} jobs, {:?}; memory {} MiB",
        limits,
        memory()
    );
    let beat = |round: u64| {
        move |n: u64| {
            let fact = Fact::Presence {
                presence: Box::new(presence(n as usize)),
                seq: round * 1_000_000 + n + 1,
                seen: at(round * 5000),
            };
            vec![fact]
        }
    };
    fold(&mut fleet, "first beats", machines as u64, beat(0));
    let mut journal = Journal {
        seq: 0,
        open: std::collections::VecDeque::new(),
        machines,
    };
    fold(&mut fleet, "journal", jobs, |n| journal.job(n));
    fold(&mut fleet, "events", 200_000, |n| {
        vec![event(n + 1, machines)]
    });
    for round in 1..=120 {
        for n in 0..machines as u64 {
            for fact in beat(round)(n) {
                fleet.fold(&fact);
            }
        }
    }
    println!("120 more beats of each (10 min): memory {} MiB", memory());
    let stat = Stat {
        interval_ms: 1000,
        tickets: 3,
        chunks: 40,
        bytes_out: 100_000,
        ..Stat::default()
    };
    fold(&mut fleet, "summaries", machines as u64 * 10, |n| {
        let machine = machine(n as usize % machines);
        let at = at(600_000 + n / machines as u64 * 1000);
        vec![Fact::Stat { machine, stat, at }]
    });
    let now = at(603_000);
    fleet.pass_time(now);
    let later = now.plus(Duration::from_millis(900));
    ask("a screenful of machines", || {
        fleet.worst_machines(later).take(40).count()
    });
    ask("all machines, worst first", || {
        fleet.machines_worst_first(later).len()
    });
    ask("machines by state", || fleet.machine_counts(later));
    ask("machines by state, by looking", || {
        let all = fleet.machines().values();
        all.filter(|m| m.state(later) == MachineState::Up).count()
    });
    let one = machine(machines / 2);
    ask("what runs on a machine", || fleet.running_on(&one).count());
    ask("all traffic", || fleet.all_traffic(later).count());
    ask("a screenful of jobs", || {
        fleet.worst_first(later).take(40).count()
    });
    println!(
        "kept: {} jobs, {} events, {} machines",
        fleet.jobs().len(),
        fleet.events().len(),
        fleet.machines().len()
    );
}
