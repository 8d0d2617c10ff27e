//! Starts real hubs and agents in temporary folders and asks them through the real binary.
//!
//! A service is tethered to the test: it stops by itself when the test is gone, however the test
//! ended. Nothing here sleeps: waiting is reading a line, the end of a process, or asking again
//! with a deadline.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use fleet_nats::testing::TestPort;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

/// Longest any one thing may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The nats-server for tests, found or installed by fleet's own code.
pub(crate) fn nats_server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(fleet_nats::testing::test_server_blocking)
}

/// A `FLEET_HOME` and the home and current folder of whoever types.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let home = Self {
            dir: tempfile::Builder::new().prefix("fl").tempdir().unwrap(),
        };
        std::fs::create_dir_all(home.user().join("work")).unwrap();
        home
    }

    /// `FLEET_HOME`.
    pub(crate) fn fleet(&self) -> PathBuf {
        self.dir.path().join("f")
    }

    /// The user's home folder; commands are typed in `work` below it.
    pub(crate) fn user(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// `fleet` with these words, in an environment that has nothing of the test's own.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.user())
            .env("USER", "ana")
            .env("SHELL", "/bin/sh")
            .env("FLEET_HOME", self.fleet())
            .env("FLEET_NATS_SERVER", nats_server())
            // Tools of the machine that tests run on are nobody's concern, but for skills.
            .env("FLEET_PROBE", "asked")
            .current_dir(self.user().join("work"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `fleet` with these words to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ran {
        Ran::of(&mut self.command(words))
    }

    /// The same, with something on standard input.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, words: &[S], stdin: &[u8]) -> Ran {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let writer = std::thread::spawn(move || pipe.write_all(&bytes));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        Ran::new(out)
    }

    /// What `fleet --json` with these words answers; the command must succeed.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = std::iter::once("--json")
            .chain(words.iter().copied())
            .collect();
        let ran = self.run(&words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{words:?}: {e}: {}", ran.out))
    }

    /// The same, one value for each line, whatever the exit code.
    pub(crate) fn json_lines(&self, words: &[&str]) -> (u8, Vec<Value>) {
        let words: Vec<&str> = std::iter::once("--json")
            .chain(words.iter().copied())
            .collect();
        let ran = self.run(&words);
        (ran.code, lines(&ran.out))
    }
}

/// Each line as JSON.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// A command that has ended.
pub(crate) struct Ran {
    /// Its exit code, or 128 and its signal.
    pub(crate) code: u8,
    /// Its standard output as text.
    pub(crate) out: String,
    /// Its standard error as text.
    pub(crate) err: String,
    /// Its standard output as it was.
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head: String = self.out.chars().take(2000).collect();
        write!(
            f,
            "exit {}\n--- out\n{head}\n--- err\n{}",
            self.code, self.err
        )
    }
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::new(command.output().unwrap())
    }

    pub(crate) fn new(out: std::process::Output) -> Self {
        Self {
            code: code(out.status),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
            bytes: out.stdout,
        }
    }

    /// Fails the test unless it succeeded; its standard output without the last newline.
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end_matches('\n')
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(255)).unwrap_or(255)
}

/// A service that runs until it is stopped, or the test is gone.
pub(crate) struct Running {
    child: Child,
    /// Its tether.
    stdin: Option<ChildStdin>,
    lines: Mutex<mpsc::Receiver<String>>,
    /// A file: what was written is in it when the process has ended, whoever still holds it.
    errors: NamedTempFile,
    name: String,
}

impl Running {
    /// Starts it. Its standard output is read line by line, its standard error kept.
    pub(crate) fn start(mut command: Command) -> Self {
        let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let errors = NamedTempFile::new().unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.reopen().unwrap())
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines: Mutex::new(lines),
            errors,
            name,
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    pub(crate) fn line(&self) -> String {
        let next = self.lines.lock().unwrap().recv_timeout(DEADLINE);
        next.unwrap_or_else(|e| panic!("{}: no line ({e}): {}", self.name, self.errors()))
    }

    /// Its next line as JSON.
    pub(crate) fn json_line(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name))
    }

    /// What it wrote to standard error so far.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.errors.path()).unwrap()).into_owned()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        signal_process(self.pid(), signal);
    }

    /// Waits for its end; its exit code, or 128 and its signal.
    pub(crate) fn ended(&mut self) -> u8 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return code(status);
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end: {}",
                self.name,
                self.errors()
            );
            // The end of its output comes just before its own.
            let _ = self
                .lines
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_millis(10));
        }
    }

    /// Stops it in order; its exit code.
    pub(crate) fn stop(mut self) -> u8 {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Lets go of the tether: it stops by itself.
        drop(self.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal_process(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether a process is there and is no zombie: where nobody reaps orphans, in a container say, they
/// stay zombies for ever.
pub(crate) fn runs(pid: u32) -> bool {
    let number = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    if rustix::process::test_kill_process(number).is_err() {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        // No such file system, or gone in between.
        Err(_) => !Path::new("/proc/self/stat").exists(),
    }
}

/// Asks again until the answer is there; for what no event can be had of.
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, ask)
}

/// The same for what takes its time by itself, such as a lease.
pub(crate) fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    or_say(limit, what, || ask().ok_or(""))
}

/// As [`eventually`], and where the answer never comes, what there was instead.
pub(crate) fn eventually_or_say<T, E: std::fmt::Display>(
    what: &str,
    ask: impl FnMut() -> Result<T, E>,
) -> T {
    or_say(DEADLINE, what, ask)
}

fn or_say<T, E: std::fmt::Display>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(instead) => assert!(Instant::now() < deadline, "never: {what} {instead}"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A hub with its agents. They are dropped before it.
pub(crate) struct Fleet {
    /// Agents beside the hub's own, by name.
    pub(crate) agents: Vec<Agent>,
    /// The hub's process, and with [`Fleet::up`] its agent's.
    pub(crate) hub: Running,
    /// The operator's home.
    pub(crate) home: Home,
    /// The hub's address.
    pub(crate) url: String,
    /// Its port, also while the hub is away.
    _port: TestPort,
}

/// An agent with a home of its own.
pub(crate) struct Agent {
    /// Its process.
    pub(crate) process: Running,
    /// Its home.
    pub(crate) home: Home,
    /// Its machine.
    pub(crate) name: String,
}

impl Fleet {
    /// `fleet up` with an agent of this name and so many slots.
    pub(crate) fn up(name: &str, slots: u32) -> Self {
        let slots = slots.to_string();
        Self::start(&["up", "--no-tui", "--name", name, "--slots", &slots])
    }

    /// `fleet hub run`, without any agent.
    pub(crate) fn hub_alone() -> Self {
        Self::start(&["hub", "run"])
    }

    /// `fleet up --demo`.
    pub(crate) fn demo() -> Self {
        Self::start(&["up", "--no-tui", "--demo", "--name", "studio"])
    }

    fn start(words: &[&str]) -> Self {
        let home = Home::new();
        let port = TestPort::take();
        let listen = port.address().to_string();
        let words: Vec<&str> = ["--json"]
            .iter()
            .chain(words)
            .chain(&["--listen", &listen, "--tether"])
            .copied()
            .collect();
        let hub = Running::start(home.command(&words));
        let ready = hub.json_line();
        assert_eq!(ready["event"], "ready", "{ready}");
        let url = ready["hub"].as_str().unwrap().to_owned();
        Self {
            agents: Vec::new(),
            hub,
            home,
            url,
            _port: port,
        }
    }

    /// Starts one more agent and waits until it is in service.
    pub(crate) fn add_agent(&mut self, name: &str, words: &[&str]) -> &Agent {
        let agent = self.agent(Home::new(), name, words);
        self.agents.push(agent);
        self.agents.last().unwrap()
    }

    /// The same in a home that may have been used before.
    pub(crate) fn agent(&self, home: Home, name: &str, words: &[&str]) -> Agent {
        self.agent_with(home, name, words, &[])
    }

    /// The same, with these variables.
    pub(crate) fn agent_with(
        &self,
        home: Home,
        name: &str,
        words: &[&str],
        env: &[(&str, &str)],
    ) -> Agent {
        let file = home.user().join(format!("{name}.creds"));
        if !file.exists() {
            let file = file.to_str().unwrap();
            self.home
                .run(&["hub", "credentials", "--machine", name, "--out", file])
                .ok();
        }
        let mut all = vec!["--json", "agent", "run", "--tether", "--credentials"];
        all.push(file.to_str().unwrap());
        all.extend(words);
        let mut command = home.command(&all);
        command.envs(env.iter().copied());
        let process = Running::start(command);
        assert_eq!(process.json_line()["machine"], name);
        eventually("the agent is in service", || {
            self.machine(name).filter(|m| {
                let state = m["state"].as_str().unwrap();
                state == "up" || state == "degraded"
            })
        });
        Agent {
            process,
            home,
            name: name.to_owned(),
        }
    }

    /// `fleet` with these words, as the operator.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.home.run(words)
    }

    /// Its JSON answer.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.home.json(words)
    }

    /// One machine as `fleet machines` shows it.
    pub(crate) fn machine(&self, name: &str) -> Option<Value> {
        let machines = self.json(&["machines"]);
        let found = machines.as_array().unwrap().iter();
        found.into_iter().find(|m| m["machine"] == name).cloned()
    }

    /// Dispatches a job with these flags and words; its id.
    pub(crate) fn dispatch(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["dispatch"].iter().chain(words).copied().collect();
        self.run(&words).ok().to_owned()
    }

    /// One job as `fleet show` shows it.
    pub(crate) fn job(&self, id: &str) -> Value {
        self.json(&["show", id])
    }

    /// Waits until a job is in this state.
    pub(crate) fn until(&self, id: &str, state: &str) -> Value {
        eventually_or_say(&format!("{id} is {state}"), || {
            let job = self.job(id);
            if job["state"] == state {
                Ok(job)
            } else {
                Err(job)
            }
        })
    }
}
