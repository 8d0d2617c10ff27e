//! The console on a real hub.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fleet_nats::bus::Bus;
use fleet_nats::clock;
use fleet_nats::connect::{ConnectOptions, Link, connect};
use fleet_nats::flow::NewEvent;
use fleet_nats::hub::{Credentials, Hub, HubOptions};
use fleet_nats::testing::TestHub;
use fleet_nats::{journal, subject};
use fleet_tui::demo::measure;
use fleet_tui::{ConsoleStyle, Motion, Options};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Fallible, percentiles, resident_mib};

const SIZE: (u16, u16) = (120, 36);
const PATIENCE: Duration = Duration::from_secs(60);
/// Jobs of the figure of the first read, three records each.
const JOBS: u32 = 20_000;
/// Messages of the figure of the delay.
const ROUNDS: u32 = 200;
/// How long the console is watched for each figure of its share of a processor.
const WATCH: Duration = Duration::from_secs(10);

/// The console that is measured.
pub(crate) fn console(url: String, credentials: &str) -> Fallible<()> {
    let mut connect = ConnectOptions::new("bench", Credentials::load(Path::new(credentials))?);
    connect.urls = vec![url];
    let style = ConsoleStyle {
        colour: true,
        ascii: false,
        plain: false,
        motion: Motion::Full,
        mouse: true,
    };
    let options = Options {
        connect,
        name: "bench".to_owned(),
        keys: Default::default(),
        style,
        with_hub: false,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(fleet_tui::run(options))?;
    Ok(())
}

pub(crate) fn all() -> Fallible<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure_all())
}

async fn measure_all() -> Fallible<()> {
    // The disk is none of the console's cost.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    };
    let hub = Hub::start(HubOptions {
        max_file_store: Some(512 * 1024 * 1024),
        ..TestHub::options(folder.path()).await
    })
    .await?;
    let credentials = hub.operator_credentials().clone();
    let file = folder.path().join("bench.creds");
    std::fs::write(&file, credentials.to_text())?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let mut way = ConnectOptions::new("bench", credentials);
    way.urls = vec![hub.url()];
    let link = connect(&way).await?;
    let bus = Bus::new(&link);
    fleet_nats::keeper::prepare(&bus, 512 << 20).await?;

    let records = fill(&bus).await?;
    let begun = Instant::now();
    let mut console = Console::start(&hub.url(), &file)?;
    console.until("LIVE")?;
    println!(
        "first read: {records} records live after {:.2} s; {:.1} MiB resident",
        begun.elapsed().as_secs_f64(),
        resident_mib(&console.child.id().to_string())?
    );
    let beats = tokio::spawn(beat(link.clone()));
    delay(&bus, &mut console).await?;
    for rate in [0, 1_000, 10_000] {
        load(&bus, &mut console, rate).await?;
    }
    beats.abort();
    drop(console);
    hub.stop().await?;
    Ok(())
}

/// Three machines that only beat.
async fn beat(link: Link) {
    let bus = Bus::new(&link);
    loop {
        for name in ["anvil", "forge", "lapis"] {
            // A beat that fails is missed.
            let _ = bus.beat(&measure::presence(name), None).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn fill(bus: &Bus) -> Fallible<u64> {
    for (job, writer, time, record) in measure::records(JOBS, clock::now()) {
        let bytes = journal::encode(job, &writer, time, &record)?;
        bus.client()
            .publish(subject::job(job, &writer), bytes.into())
            .await?;
    }
    bus.client().flush().await?;
    let expected = u64::from(JOBS) * 3;
    let begun = Instant::now();
    loop {
        let last = bus.usage(subject::stream::JOB).await?.last_seq;
        if last >= expected {
            return Ok(last);
        }
        if begun.elapsed() > PATIENCE * 4 {
            return Err(format!("only {last} of {expected} records were stored").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From an event published to its text on the screen.
async fn delay(bus: &Bus, console: &mut Console) -> Fallible<()> {
    console.keys.write_all(b"4")?;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        // Not in step with the console's clock or frames.
        let pause = 20 + u64::from(round * 37 % 90);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mark = format!("mark-{round}-end");
        let (subject, bytes) = event(&mark)?;
        let begun = Instant::now();
        bus.client().publish(subject, bytes.into()).await?;
        bus.client().flush().await?;
        took.push(console.until(&mark)?.duration_since(begun));
    }
    console.keys.write_all(b"1")?;
    let (p50, p99) = percentiles(&mut took);
    println!(
        "published to drawn: p50 {:.1} ms  p99 {:.1} ms",
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3
    );
    Ok(())
}

fn event(mark: &str) -> Fallible<(String, Vec<u8>)> {
    let event = NewEvent {
        kind: "bench.happened",
        machine: Some("forge".parse()?),
        job: None,
        attempt: None,
        detail: serde_json::json!({ "mark": mark }),
    };
    let bytes = event.encode("bench", 1)?;
    Ok((subject::flow("forge", "bench.happened"), bytes))
}

/// Its share of a processor while so many events come in a second.
async fn load(bus: &Bus, console: &mut Console, rate: u32) -> Fallible<()> {
    let pid = console.child.id().to_string();
    let (ticks_before, bytes_before) = (ticks(&pid)?, console.bytes);
    let begun = Instant::now();
    let mut sent: u32 = 0;
    while begun.elapsed() < WATCH {
        let due = f64::from(rate) * begun.elapsed().as_secs_f64();
        while f64::from(sent) < due {
            sent += 1;
            let (subject, bytes) = event(&sent.to_string())?;
            bus.client().publish(subject, bytes.into()).await?;
        }
        console.read_what_is_there();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let span = begun.elapsed().as_secs_f64();
    console.read_what_is_there();
    // A tick is 10 ms on every Linux.
    let used = f64::from(u32::try_from(ticks(&pid)? - ticks_before)?);
    let state = console.line(0);
    println!(
        "{:>6.0} events/s: {:>5.1} % of a processor, {:>7.0} bytes/s to the terminal, {:.1} MiB · {}",
        f64::from(sent) / span,
        used / span,
        f64::from(u32::try_from(console.bytes - bytes_before)?) / span,
        resident_mib(&pid)?,
        state.trim()
    );
    Ok(())
}

/// The console in a process and on a terminal of its own.
struct Console {
    child: Child,
    keys: File,
    output: mpsc::Receiver<(Instant, Vec<u8>)>,
    emulator: vt100::Parser,
    bytes: u64,
}

impl Console {
    fn start(url: &str, credentials: &Path) -> Fallible<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let size = Winsize {
            ws_row: SIZE.1,
            ws_col: SIZE.0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size)?;
        let side = || -> Fallible<Stdio> {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            Ok(rustix::fs::open(&name, flags, Mode::empty())?.into())
        };
        let child = Command::new(std::env::current_exe()?)
            .arg("--console")
            .arg(url)
            .arg(credentials)
            .stdin(side()?)
            .stdout(side()?)
            .stderr(Stdio::inherit())
            .spawn()?;
        let (send, output) = mpsc::channel();
        let keys = File::from(master);
        let mut screen = keys.try_clone()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                let read = (Instant::now(), buffer[..count].to_vec());
                if send.send(read).is_err() {
                    break;
                }
            }
        });
        let one = |n: u16| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN);
        Ok(Self {
            child,
            keys,
            output,
            emulator: vt100::Parser::new(one(SIZE.1), one(SIZE.0), 0),
            bytes: 0,
        })
    }

    /// When this was on the screen.
    fn until(&mut self, text: &str) -> Fallible<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((at, bytes)) = self.output.recv_timeout(left) else {
                let screen = self.emulator.screen().contents();
                return Err(format!("never {text:?}:\n{screen}").into());
            };
            self.take(&bytes);
            if self.emulator.screen().contents().contains(text) {
                return Ok(at);
            }
        }
    }

    fn read_what_is_there(&mut self) {
        while let Ok((_, bytes)) = self.output.try_recv() {
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.emulator.process(bytes);
    }

    fn line(&self, no: usize) -> String {
        let screen = self.emulator.screen().contents();
        screen.lines().nth(no).unwrap_or_default().to_owned()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It has ended, unless it is still shown.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks(pid: &str) -> Fallible<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(") ").next().ok_or("no stat")?;
    let fields: Vec<&str> = after.split(' ').collect();
    let field = |no: usize| -> Fallible<u64> { Ok(fields.get(no).ok_or("short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}
