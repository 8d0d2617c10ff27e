//! A seeded simulation of the whole protocol: agents, executors, keeper, dispatchers and operators
//! over a model of the bus, with crashes, partitions, sleep, clocks that are wrong, lost, late and
//! doubled messages, and a hub whose store goes back in time.
//!
//! `FLEET_SIM_SEED=n` replays one seed and prints what happened; `FLEET_SIM_SEEDS=n` says how many
//! seeds are tried, `FLEET_SIM_MUTANT=name` which rule is broken in them,
//! `FLEET_SIM_GO_ON=1` that one failure is not enough.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and this one has settings in its environment"
)]

mod agent;
mod bus;
mod checks;
mod clients;
mod clock;
mod console;
mod faults;
mod guard;
mod keepers;
mod lease;
mod machine;
mod mutant;
mod network;
mod rng;
mod spool;
mod table;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mutant::Mutant;
use world::{JOBS_MIN, MACHINES_MIN, STEPS_MIN, World};

/// How many seeds are tried where nobody says.
const SEEDS: u64 = 400;
/// Within how many seeds each planted mistake but the rare ones is caught. Where more are asked for,
/// by `FLEET_SIM_MUTANT_SEEDS`, the rare ones are tried as well.
const MUTANT_SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is not a number")),
    )
}

fn named(name: &str) -> Mutant {
    let mutants = mutant::ALL.iter().map(|(mutant, _)| *mutant);
    mutants
        .chain([Mutant::None])
        .find(|mutant| format!("{mutant:?}") == name)
        .unwrap_or_else(|| panic!("no mistake is named {name}"))
}

/// What was run in all.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    /// Least, most and sum of what a seed has.
    steps: (u64, u64, u64),
    jobs: (u64, u64, u64),
    machines: (u64, u64, u64),
    hits: BTreeMap<&'static str, u64>,
    failures: BTreeMap<u64, String>,
}

fn add(sum: &mut (u64, u64, u64), n: u64) {
    *sum = (
        if sum.2 == 0 { n } else { sum.0.min(n) },
        sum.1.max(n),
        sum.2 + n,
    );
}

impl Sums {
    fn take(&mut self, world: &World, result: Result<(), String>) {
        self.seeds += 1;
        for (what, n) in &world.hits {
            *self.hits.entry(what).or_default() += n;
        }
        match result {
            Ok(()) => {
                add(&mut self.steps, world.steps);
                add(&mut self.jobs, world.jobs());
                add(&mut self.machines, world.machines.len() as u64);
            }
            Err(why) => drop(self.failures.insert(world.seed, why)),
        }
    }

    fn tell(&self, took: std::time::Duration) {
        let seconds = took.as_secs_f64();
        let mean = |(_, _, sum): (u64, u64, u64)| sum as f64 / self.seeds.max(1) as f64;
        println!(
            "{} seeds in {seconds:.1} s: {:.0} seeds/s, {:.0} steps/s",
            self.seeds,
            self.seeds as f64 / seconds,
            self.steps.2 as f64 / seconds
        );
        for (what, of) in [
            ("machines", self.machines),
            ("jobs", self.jobs),
            ("steps", self.steps),
        ] {
            println!(
                "{what:>9} a seed: {:.1} on average, {} to {}",
                mean(of),
                of.0,
                of.1
            );
        }
    }
}

/// Runs seeds on all processors, until one fails or to the end.
fn run(seeds: u64, mutant: Mutant) -> Sums {
    let sums = Mutex::new(Sums::default());
    let next = AtomicU64::new(0);
    let go_on = number("FLEET_SIM_GO_ON").is_some();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let mut world = World::new(seed, mutant, false);
            let result = world.run();
            let failed = result.is_err();
            sums.lock().unwrap().take(&world, result);
            if failed && !go_on {
                next.store(seeds, Ordering::Relaxed);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sums.into_inner().unwrap()
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    if let Some(seed) = number("FLEET_SIM_SEED") {
        let mutant = std::env::var("FLEET_SIM_MUTANT").map_or(Mutant::None, |name| named(&name));
        let mut world = World::new(seed, mutant, true);
        let result = world.run();
        table::print(&world.hits);
        return result.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    let seeds = number("FLEET_SIM_SEEDS").unwrap_or(SEEDS);
    #[expect(
        clippy::disallowed_methods,
        reason = "how long it took is told, and nothing else"
    )]
    let begun = std::time::Instant::now();
    let sums = run(seeds, Mutant::None);
    sums.tell(begun.elapsed());
    table::print(&sums.hits);
    for (seed, why) in &sums.failures {
        println!("seed {seed}: {why:.300}");
    }
    if let Some((seed, why)) = sums.failures.first_key_value() {
        panic!("seed {seed}: {why}\nreplay with FLEET_SIM_SEED={seed}");
    }
    assert!(sums.machines.0 >= MACHINES_MIN as u64, "{sums:?}");
    assert!(sums.jobs.0 >= JOBS_MIN as u64, "{sums:?}");
    assert!(sums.steps.0 >= STEPS_MIN, "{sums:?}");
    if seeds >= SEEDS {
        let missing = table::missing(&sums.hits);
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn planted_mistakes_are_caught() {
    let most = number("FLEET_SIM_MUTANT_SEEDS").unwrap_or(MUTANT_SEEDS);
    let only = std::env::var("FLEET_SIM_MUTANT")
        .ok()
        .map(|name| named(&name));
    let mut survived = Vec::new();
    for (mutant, how) in mutant::ALL {
        let rare = mutant::RARE.contains(mutant) && most <= MUTANT_SEEDS;
        if only.map_or(rare, |only| only != *mutant) {
            continue;
        }
        let sums = run(most, *mutant);
        match sums.failures.first_key_value() {
            Some((seed, why)) if how.iter().any(|how| why.contains(how)) => {
                println!("{mutant:?}: caught by seed {seed}: {why:.200}");
            }
            Some((seed, why)) => survived.push(format!(
                "{mutant:?} is caught otherwise: seed {seed}: {why:.300}"
            )),
            None => survived.push(format!("{mutant:?} is not caught")),
        }
    }
    assert!(survived.is_empty(), "{}", survived.join("\n"));
}
