//! The figures of the spine, through the real binary, a real hub, agent and executor:
//! `cargo bench --bench spine`. Speed is reported here and asserted nowhere.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// One-shot dispatches per figure.
const ROUNDS: usize = 200;
/// Jobs of the throughput figure.
const JOBS: usize = 2000;
/// How long the idle fleet is watched.
const IDLE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // The job itself: the time of its first instructions, into a file.
    if let [_, verb, file] = &args[..]
        && verb == "--stamp"
    {
        let now = nanos();
        return match fs::write(file, now.to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn nanos() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos())
}

struct Fleet {
    home: tempfile::TempDir,
}

impl Fleet {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command
            .args(words)
            .env("FLEET_HOME", self.home.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Fallible<String> {
        let out = self.command(words).output()?;
        if !out.status.success() {
            return Err(
                format!("fleet {words:?}: {}", String::from_utf8_lossy(&out.stderr)).into(),
            );
        }
        Ok(String::from_utf8(out.stdout)?)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn bench() -> Fallible<()> {
    let fleet = Fleet {
        home: tempfile::tempdir()?,
    };
    fleet.run(&["hub", "install-server"])?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let listen = format!("127.0.0.1:{port}");
    let start = Instant::now();
    fleet.run(&[
        "up", "--detach", "--no-tui", "--name", "bench", "--listen", &listen,
    ])?;
    println!(
        "up to ready, first start               {:>8.1} ms",
        millis(start.elapsed())
    );
    fleet.run(&["down"])?;
    let start = Instant::now();
    fleet.run(&[
        "up", "--detach", "--no-tui", "--name", "bench", "--listen", &listen,
    ])?;
    println!(
        "up to ready, later start               {:>8.1} ms",
        millis(start.elapsed())
    );

    bare(&fleet)?;
    first_instruction(&fleet)?;
    round_trip(&fleet)?;
    throughput(&fleet)?;
    idle(&fleet)
}

/// What starting the binary costs by itself: the floor of every one-shot figure.
fn bare(fleet: &Fleet) -> Fallible<()> {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        fleet.run(&["--version"])?;
        took.push(start.elapsed());
    }
    print("fleet --version", &mut took);
    Ok(())
}

fn first_instruction(fleet: &Fleet) -> Fallible<()> {
    let stamp = fleet.home.path().join("stamp");
    let me = std::env::current_exe()?;
    let (me, file) = (text(&me)?, text(&stamp)?);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let _ = fs::remove_file(&stamp);
        let start = nanos();
        fleet.run(&["dispatch", "--", &me, "--stamp", &file])?;
        let began = wait_for(&stamp)?;
        took.push(Duration::from_nanos(u64::try_from(
            began.saturating_sub(start),
        )?));
    }
    print("dispatch to the child's first instruction", &mut took);
    Ok(())
}

fn wait_for(stamp: &Path) -> Fallible<u128> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(Ok(at)) = fs::read_to_string(stamp).map(|t| t.parse()) {
            return Ok(at);
        }
        if Instant::now() > until {
            return Err("the job did not start in time".into());
        }
        // The time is the child's own: looking seldom leaves it the processor and costs no accuracy.
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn round_trip(fleet: &Fleet) -> Fallible<()> {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        fleet.run(&["dispatch", "--wait", "--", "true"])?;
        took.push(start.elapsed());
    }
    print("dispatch --wait -- true", &mut took);
    Ok(())
}

fn throughput(fleet: &Fleet) -> Fallible<()> {
    let start = Instant::now();
    fleet.run(&[
        "dispatch",
        "--count",
        &JOBS.to_string(),
        "--wait",
        "--",
        "true",
    ])?;
    let took = start.elapsed();
    let rate = f64::from(u32::try_from(JOBS)?) / took.as_secs_f64();
    println!("{JOBS} x true, --wait, fsync on every write {rate:>6.0} jobs/s");
    Ok(())
}

/// Memory and CPU of every process of the fleet while nothing happens.
fn idle(fleet: &Fleet) -> Fallible<()> {
    let status: serde_json::Value =
        serde_json::from_str(&fleet.run(&["--json", "agent", "status"])?)?;
    let agent = status["pid"].as_u64().ok_or("no pid of the agent")?;
    let executor = status["executor_pid"]
        .as_u64()
        .ok_or("no pid of the executor")?;
    let server = fs::read_to_string(fleet.home.path().join("hub/nats-server.pid"))?;
    let processes = [
        ("hub and agent (fleet up)", agent.to_string()),
        ("executor", executor.to_string()),
        ("nats-server", server.trim().to_owned()),
    ];
    let before: Vec<u64> = processes
        .iter()
        .map(|(_, pid)| ticks(pid))
        .collect::<Fallible<_>>()?;
    std::thread::sleep(IDLE);
    for ((name, pid), before) in processes.iter().zip(before) {
        let used = ticks(pid)?.saturating_sub(before);
        // A tick is 10 ms on every Linux (sysconf(_SC_CLK_TCK) is 100).
        let percent = f64::from(u32::try_from(used)?) / IDLE.as_secs_f64();
        println!(
            "idle: {name:<28} {:>6.1} MiB {percent:>6.2} % CPU",
            resident_mib(pid)?
        );
    }
    std::io::stdout().flush()?;
    Ok(())
}

fn ticks(pid: &str) -> Fallible<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(") ").next().ok_or("no stat")?;
    let fields: Vec<&str> = after.split(' ').collect();
    Ok(fields.get(11).ok_or("short stat")?.parse::<u64>()?
        + fields.get(12).ok_or("short stat")?.parse::<u64>()?)
}

fn resident_mib(pid: &str) -> Fallible<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u32 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
    Ok(f64::from(kib) / 1024.0)
}

fn text(path: &Path) -> Fallible<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| "the path is not UTF-8".into())
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort();
    let at = |percent: usize| {
        millis(
            took.get(took.len() * percent / 100)
                .copied()
                .unwrap_or_default(),
        )
    };
    println!("{what:<42} p50 {:>6.2} ms  p99 {:>6.2} ms", at(50), at(99));
}
