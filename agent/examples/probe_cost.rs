//! What looking for skills costs on this machine: `cargo run --release -p fleet-agent --example
//! probe_cost`. Asks every tool that is here, and then looks again as an agent does every ten minutes.

#![allow(clippy::unwrap_used, reason = "an example that measures")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use fleet_agent::skills::{Prober, Which, World};
use fleet_contract::time::Time;

/// Processor time of this process and of those that it waited for, in milliseconds, to a tick.
fn processor() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse().unwrap())
        .collect();
    ((ticks[0] + ticks[1]) * 10, (ticks[2] + ticks[3]) * 10)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = std::env::temp_dir().join(format!("probe-cost-{}", std::process::id()));
    let world = World {
        env: std::env::vars().collect(),
        home: std::env::home_dir().unwrap(),
        os: std::env::consts::OS.to_owned(),
        mem_total: 0,
        booted_at: 0,
    };
    let now = Cell::new(Time::from_micros(1_000_000_000_000));
    let mut prober = Prober::new(world, folder.join("skills.d"), folder.join("skills.json"));
    let measure = |what: &str, looks: u32, since: Instant, before: (u64, u64)| {
        let after = processor();
        println!(
            "{what}: {:.1} ms each, of processor {:.2} ms own and {:.1} ms of tools",
            since.elapsed().as_secs_f64() * 1e3 / f64::from(looks),
            (after.0 - before.0) as f64 / f64::from(looks),
            (after.1 - before.1) as f64 / f64::from(looks),
        );
    };
    let (begun, before) = (Instant::now(), processor());
    prober.probe(&Which::Named(Vec::new()), || now.get()).await;
    measure("first look", 1, begun, before);
    for (name, skill) in prober.skills() {
        let says = skill.version.or(skill.reason).unwrap_or_default();
        println!("  {name}: {says}");
    }
    let (begun, before) = (Instant::now(), processor());
    // Less than six hours in all: no program that is the same file is run.
    for _ in 0..30 {
        now.set(now.get().plus(Duration::from_secs(600)));
        prober.probe(&Which::Due, || now.get()).await;
    }
    measure("every ten minutes", 30, begun, before);
    let (begun, before) = (Instant::now(), processor());
    for _ in 0..100 {
        now.set(now.get().plus(Duration::from_secs(60)));
        prober.probe(&Which::Due, || now.get()).await;
    }
    measure("every minute, the rest included", 100, begun, before);
    let _ = std::fs::remove_dir_all(folder);
}
