//! Starts executors, runs jobs, waits for events, each with a deadline.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet_agent::executor::{
    self, AttemptReport, Chunk, ConnectOptions, ExecutorClient, ExecutorCommand, ExecutorEvent,
    ExecutorOptions, LogReader, Start, StartRequest,
};
use fleet_contract::ids::{AttemptId, JobId, Lane};
use fleet_contract::outcome::{Outcome, OutputCount, OutputStream};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use tokio::sync::mpsc;

/// Longest a test waits for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Between TERM and KILL in tests.
pub(crate) const GRACE: Duration = Duration::from_millis(400);

const HOME: &str = "FLEET_TEST_EXECUTOR";
/// The process of the whole test program.
pub(crate) const TEST: &str = "FLEET_TEST_PROCESS";
const LINGER: &str = "FLEET_TEST_LINGER_MS";

/// Not a test: the executor's process, when started as one.
#[test]
fn executor_process() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    end_with_the_test();
    let linger = std::env::var(LINGER).ok().and_then(|ms| ms.parse().ok());
    let options = ExecutorOptions {
        linger: Duration::from_millis(linger.unwrap_or(2000)),
        grace: GRACE,
        ..ExecutorOptions::new(PathBuf::from(home))
    };
    match executor::serve_blocking(options) {
        Ok(()) | Err(executor::ExecutorError::Busy(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The executor outlives its agents, but not the test program, however that dies.
pub(crate) fn end_with_the_test() {
    let test = std::env::var(TEST).unwrap().parse().unwrap();
    let test = rustix::process::Pid::from_raw(test).unwrap();
    std::thread::spawn(move || {
        while rustix::process::test_kill_process(test).is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM)
    });
}

/// A `FLEET_HOME` whose executor goes when the test program does, or has nothing to do.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    below: PathBuf,
    pub(crate) linger_ms: u64,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with_path("home")
    }

    pub(crate) fn with_path(below: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join(below);
        std::fs::create_dir_all(&below).unwrap();
        Self {
            dir,
            below,
            linger_ms: 2000,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.below
    }

    /// A folder for what jobs leave.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        options(&self.below, self.linger_ms)
    }

    pub(crate) async fn connect(&self) -> Agent {
        connect(self.options()).await
    }
}

/// How to reach or start the executor of this home; in an agent's process, for its test program.
pub(crate) fn options(home: &Path, linger_ms: u64) -> ConnectOptions {
    let test = std::env::var_os(TEST).unwrap_or_else(|| std::process::id().to_string().into());
    ConnectOptions {
        home: home.to_owned(),
        command: ExecutorCommand {
            program: std::env::current_exe().unwrap(),
            args: ["support::executor_process", "--exact", "--nocapture"]
                .map(Into::into)
                .to_vec(),
            env: vec![
                (HOME.into(), home.into()),
                (TEST.into(), test),
                (LINGER.into(), linger_ms.to_string().into()),
            ],
        },
        base_env: None,
        keep: None,
        limit: LIMIT,
    }
}

pub(crate) async fn connect(options: ConnectOptions) -> Agent {
    let home = options.home.clone();
    let (client, events) = ExecutorClient::connect_or_start(options).await.unwrap();
    Agent {
        client,
        events,
        seen: Vec::new(),
        home,
    }
}

/// The agent's side of a connection.
pub(crate) struct Agent {
    pub(crate) client: ExecutorClient,
    pub(crate) events: mpsc::Receiver<ExecutorEvent>,
    /// Events that were not waited for.
    pub(crate) seen: Vec<ExecutorEvent>,
    home: PathBuf,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) output: OutputCount,
    pub(crate) survivors: Vec<u32>,
}

impl Agent {
    pub(crate) async fn next(&mut self) -> ExecutorEvent {
        tokio::time::timeout(LIMIT, self.events.recv())
            .await
            .expect("an event within the limit")
            .expect("an event before the end of all")
    }

    /// The first event, new or seen before, that is what is wanted.
    pub(crate) async fn wait<T>(
        &mut self,
        mut wanted: impl FnMut(&ExecutorEvent) -> Option<T>,
    ) -> T {
        for (index, event) in self.seen.iter().enumerate() {
            if let Some(found) = wanted(event) {
                self.seen.remove(index);
                return found;
            }
        }
        loop {
            let event = self.next().await;
            if let Some(found) = wanted(&event) {
                return found;
            }
            self.seen.push(event);
        }
    }

    pub(crate) async fn start(&self, request: &StartRequest) {
        let start = self.client.start(request.clone()).await.unwrap();
        assert_eq!(start, Start::New);
    }

    pub(crate) async fn end(&mut self, request: &StartRequest) -> End {
        let id = request.attempt;
        self.wait(|event| match event {
            ExecutorEvent::Ended {
                attempt,
                outcome,
                output,
                survivors,
                ..
            } if *attempt == id => Some(End {
                outcome: outcome.clone(),
                output: *output,
                survivors: survivors.clone(),
            }),
            _ => None,
        })
        .await
    }

    pub(crate) async fn run(&mut self, request: &StartRequest) -> End {
        self.start(request).await;
        self.end(request).await
    }

    /// Waits until this many chunks are announced.
    pub(crate) async fn output(&mut self, request: &StartRequest, at_least: u64) -> u64 {
        let id = request.attempt;
        self.wait(|event| match event {
            ExecutorEvent::Output {
                attempt, chunks, ..
            } if *attempt == id && *chunks >= at_least => Some(*chunks),
            _ => None,
        })
        .await
    }

    pub(crate) async fn report(&self, request: &StartRequest) -> Option<AttemptReport> {
        let list = self.client.list().await.unwrap();
        list.into_iter().find(|r| r.attempt == request.attempt)
    }

    pub(crate) fn log(&self, request: &StartRequest) -> LogReader {
        LogReader::new(executor::attempt_dir(
            &self.home,
            request.job,
            request.attempt,
        ))
    }

    /// All chunks up to this one, which must be there.
    pub(crate) fn chunks(&self, request: &StartRequest, announced: u64) -> Vec<Chunk> {
        let mut reader = self.log(request);
        let mut chunks: Vec<Chunk> = Vec::new();
        while (chunks.len() as u64) < announced {
            let next = chunks.len() as u64 + 1;
            let read = reader.read_from(next, announced, 1 << 20).unwrap();
            assert_eq!(read.gap, None);
            chunks.extend(read.chunks);
        }
        chunks
    }

    pub(crate) fn text(&self, request: &StartRequest, announced: u64) -> String {
        let chunks = self.chunks(request, announced);
        let stdout = chunks.iter().filter(|c| c.stream == OutputStream::Stdout);
        String::from_utf8(stdout.flat_map(|c| c.bytes.to_vec()).collect()).unwrap()
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn random() -> [u8; 10] {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bits[8..].copy_from_slice(&u16::to_be_bytes((std::process::id() & 0xffff) as u16));
    bits
}

/// A job of this command in `/`.
pub(crate) fn job(command: &[&str]) -> StartRequest {
    let mut spec = JobSpec::new(
        command.iter().map(|&word| word.to_owned()).collect(),
        Target::Lane(Lane::any()),
        Time::from_micros(0),
        "ana@studio".to_owned(),
    );
    spec.cwd = Some("/".to_owned());
    StartRequest {
        job: JobId::from_random(random()),
        attempt: AttemptId::from_random(random()),
        token: 42,
        attempt_no: 1,
        machine: "studio".parse().unwrap(),
        spec,
        env: Default::default(),
        fence_at: None,
    }
}

/// A job of this shell line.
pub(crate) fn shell(line: &str) -> StartRequest {
    let mut request = job(&[line]);
    request.spec.shell = true;
    request
}

pub(crate) fn exited(code: u8) -> Outcome {
    Outcome::Exited { exit_code: code }
}

/// Whether a process runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    let state = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Waits for a file that holds a number and a line's end.
pub(crate) async fn number_in(path: &Path) -> u32 {
    let until = Instant::now() + LIMIT;
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text.trim().parse().unwrap();
        }
        assert!(Instant::now() < until, "no number in {}", path.display());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) async fn gone(pid: u32) {
    let until = Instant::now() + LIMIT;
    while runs(pid) {
        assert!(Instant::now() < until, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
