//! What the console costs: `cargo bench -p fleet-tui`. First without a bus: frames, bytes, the
//! fold and memory. Then on a real hub, with the console as a process of its own on a terminal of
//! its own: from a message published to its cell drawn, and its share of a processor. Speed is
//! reported here and asserted nowhere.

mod live;

use std::time::{Duration, Instant};

use fleet_contract::time::Time;
use fleet_tui::demo::measure::Desk;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Frames for each figure.
const FRAMES: usize = 400;
/// Events of the figure of memory.
const EVENTS: usize = 1_000_000;

fn main() -> Fallible<()> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        // This very program as the console that is measured.
        (Some("--console"), Some(url), Some(credentials)) => {
            return live::console(url, &credentials);
        }
        (Some("live"), ..) => return live::all(),
        (Some("frames"), ..) => return frames(),
        (Some("fold"), ..) => return fold(),
        // The same events with nobody who keeps them: what the generator itself takes.
        (Some("--generate"), ..) => {
            let mut desk = Desk::of(300, (120, 36), now())?;
            let mut count = 0;
            while count < EVENTS {
                count += desk.second().len();
            }
            println!("{:.1}", resident_mib("self")?);
            return Ok(());
        }
        _ => {}
    }
    frames()?;
    fold()?;
    live::all()
}

fn now() -> Time {
    Time::from_micros(1_769_861_071_000_000)
}

fn percentiles(took: &mut [Duration]) -> (Duration, Duration) {
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

fn frames() -> Fallible<()> {
    println!(
        "frames                    draw p50    draw p99   still    key  animated  second (bytes)"
    );
    for size in [(120, 36), (400, 100)] {
        for machines in [3, 30, 300, 3000] {
            let mut desk = Desk::of(machines, size, now())?;
            desk.frame()?;
            let still = desk.frame()?;
            desk.key('j');
            let key = desk.frame()?;
            let (mut took, mut animated, mut seconds) = (Vec::new(), 0, 0);
            for turn in 0..FRAMES {
                let second = turn % 5 == 4;
                if second {
                    let facts = desk.second();
                    desk.fold(facts);
                } else if !desk.step() {
                    desk.pass(Duration::from_millis(200));
                }
                let begun = Instant::now();
                let bytes = desk.frame()?;
                took.push(begun.elapsed());
                let most = if second { &mut seconds } else { &mut animated };
                *most = bytes.max(*most);
            }
            let (p50, p99) = percentiles(&mut took);
            println!(
                "{:>3}x{:<3} {machines:>5} machines  {:>7.3} ms  {:>7.3} ms  {still:>6} {key:>6} {animated:>9} {seconds:>7}",
                size.0,
                size.1,
                p50.as_secs_f64() * 1e3,
                p99.as_secs_f64() * 1e3,
            );
        }
    }
    Ok(())
}

fn fold() -> Fallible<()> {
    let mut desk = Desk::of(300, (120, 36), now())?;
    let before = resident_mib("self")?;
    let (mut count, mut took) = (0, Duration::ZERO);
    while count < EVENTS {
        let facts = desk.second();
        count += facts.len();
        let begun = Instant::now();
        desk.fold(facts);
        took += begun.elapsed();
    }
    let (jobs, events) = desk.kept();
    let rate = f64::from(u32::try_from(count)?) / took.as_secs_f64();
    println!(
        "fold: {count} events, {rate:.0} a second, {:.2} µs each",
        1e6 / rate
    );
    let after = resident_mib("self")?;
    let generator = std::process::Command::new(std::env::current_exe()?)
        .arg("--generate")
        .output()?;
    let generator: f64 = String::from_utf8(generator.stdout)?.trim().parse()?;
    println!(
        "memory after them: {after:.1} MiB resident, {generator:.1} of them the generator's \
         (before: {before:.1}), {jobs} jobs and {events} events kept"
    );
    Ok(())
}

fn resident_mib(pid: &str) -> Fallible<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line
        .and_then(|l| l.split_whitespace().nth(1))
        .ok_or("no VmRSS")?;
    Ok(f64::from(kib.parse::<u32>()?) / 1024.0)
}
