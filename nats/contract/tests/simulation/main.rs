//! A seeded simulation of the whole protocol: agents, executors, keeper, dispatchers and operators
//! over a model of the bus, with crashes, partitions, freezes and lost, late and doubled messages.
//!
//! `FLEET_SIM_SEED=n` replays one seed and prints what happened; `FLEET_SIM_SEEDS=n` says how many
//! seeds are tried.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and this one has settings in its environment"
)]

mod agent;
mod bus;
mod clients;
mod keepers;
mod rng;
mod world;

use std::collections::BTreeMap;

use world::{Mutant, World};

const SEEDS: u64 = 5000;

/// Everything that has to happen at least once over all seeds, or the simulation looks away.
const EXPECTED: &[&str] = &[
    "message late",
    "request lost",
    "request twice",
    "answer lost",
    "no answer",
    "agent crash",
    "machine crash",
    "executor's record lost",
    "partition",
    "machine frozen",
    "agent frozen",
    "hub restart",
    "keeper restart",
    "second keeper",
    "keeper cut off",
    "hub asleep",
    "leases counted anew",
    "clock jump",
    "void record",
    "append refused",
    "lease refused",
    "lease taken",
    "adopted",
    "paused",
    "superseded",
    "fenced by a ruling",
    "overruled by the operator",
    "fenced itself",
    "too late to start",
    "waited for an earlier attempt",
    "cancel reached the machine",
    "process started",
    "purged",
    "client died",
    "client done",
    "own ticket deleted",
    "slept on a ticket",
    "ticket issued by the keeper",
    "ticket republished",
    "claimed first",
    "claimed by an unnamed ticket",
    "late end of an asked-about attempt",
    "ended fenced",
    "ended canceled",
    "ended unknown",
    "lost: ask",
    "lost: retry",
    "lost: end",
    "job.queued",
    "job.claimed",
    "job.ended",
    "job.cancel_requested",
    "job.canceled",
    "job.lost",
    "job.expired",
    "job.resolved",
    "job.restated",
    "is queued",
    "is running",
    "is backoff",
    "is needs_human",
    "is succeeded",
    "is failed",
    "is timed_out",
    "is canceled",
    "is lost",
    "is expired",
    "is rejected",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is not a number")),
    )
}

/// Runs seeds until one fails.
fn first_failure(
    seeds: std::ops::Range<u64>,
    mutant: Mutant,
    hits: &mut BTreeMap<&'static str, u64>,
) -> Option<(u64, String)> {
    for seed in seeds {
        let mut world = World::new(seed, mutant, false);
        let result = world.run();
        for (what, n) in &world.hits {
            *hits.entry(what).or_default() += n;
        }
        if let Err(why) = result {
            return Some((seed, why));
        }
    }
    None
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    if let Some(seed) = number("FLEET_SIM_SEED") {
        let mut world = World::new(seed, Mutant::None, true);
        let result = world.run();
        println!("{:#?}", world.hits);
        return result.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    let seeds = number("FLEET_SIM_SEEDS").unwrap_or(SEEDS);
    let mut hits = BTreeMap::new();
    if let Some((seed, why)) = first_failure(0..seeds, Mutant::None, &mut hits) {
        panic!("seed {seed}: {why}\nreplay with FLEET_SIM_SEED={seed}");
    }
    if seeds >= SEEDS {
        let missing: Vec<_> = EXPECTED
            .iter()
            .filter(|w| !hits.contains_key(**w))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}\n{hits:#?}");
    }
}

#[test]
fn planted_mistakes_are_caught() {
    let mutants = [
        (Mutant::AckBeforeClaim, "lost"),
        (Mutant::TicketNamedAsJob, "stuck"),
        (Mutant::ClaimWithoutCas, "void"),
        (Mutant::NoReadOnRefusal, "stuck"),
        (Mutant::KeeperDoesNotWait, "overlap"),
        (Mutant::DeafKeeper, "deaf"),
        (Mutant::StartBeforeClaim, "unclaimed"),
        (Mutant::NoFence, "overlap"),
        (Mutant::NothingHeld, "overlap"),
        (Mutant::ClaimWithoutTerm, "stuck"),
        (Mutant::TicketsNotChecked, "stuck"),
        (Mutant::SecondAttemptBesideFirst, "overlap"),
        (Mutant::EndNotRepeated, "stuck"),
        (Mutant::TicketsOutliveJournal, "comes to life"),
    ];
    for (mutant, how) in mutants {
        let caught = first_failure(0..2000, mutant, &mut BTreeMap::new());
        match caught {
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
