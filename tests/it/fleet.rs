//! What several modules do to a fleet: gates that hold jobs until a test lets them go, processes
//! watched by their numbers, hubs and agents killed and started again.

use std::path::PathBuf;
use std::process::Command;

use fleet_nats::bus::Bus;
use fleet_nats::connect::{ConnectOptions, Link, connect};
use fleet_nats::hub::Credentials;
use rustix::process::Signal;
use serde_json::Value;

pub(crate) use crate::harness::runs;
use crate::harness::{
    Agent, DEADLINE, Fleet, Home, Ran, Running, eventually, eventually_within, signal_process,
};

/// A file that jobs wait for. They also go on when its folder is gone, so that no job outlives its
/// test by more than a moment.
pub(crate) struct Gate {
    dir: tempfile::TempDir,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("flgate").tempdir().unwrap();
        Self { dir }
    }

    /// A file beside the gate, for whatever jobs write.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A line for a shell that waits until the gate of this name (which may have variables in it)
    /// is open.
    pub(crate) fn wait(&self, name: &str) -> String {
        let dir = self.dir.path().display();
        format!("while [ ! -e \"{dir}/{name}\" ] && [ -d {dir} ]; do sleep 0.05; done")
    }

    /// Opens a gate.
    pub(crate) fn open(&self, name: &str) {
        std::fs::write(self.file(name), "").unwrap();
    }

    /// The lines that jobs have written to a file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a file has so many lines.
    pub(crate) fn until_lines(&self, name: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in {name}"), || {
            Some(self.lines(name)).filter(|lines| lines.len() >= count)
        })
    }
}

/// Stops a process, and waits until it has stopped.
pub(crate) fn freeze(pid: u32) {
    signal_process(pid, Signal::STOP);
    eventually("it has stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok();
        let mut threads = tasks.into_iter().flatten().flatten();
        // Where there is no such file system, it is taken at its word.
        threads
            .all(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat"));
                stat.map_or(true, |stat| {
                    let state = stat.rsplit(')').next().unwrap_or_default();
                    state.trim_start().starts_with(['T', 't'])
                })
            })
            .then_some(())
    });
}

/// Lets a stopped process go on.
pub(crate) fn thaw(pid: u32) {
    signal_process(pid, Signal::CONT);
}

/// Kills a process at once.
pub(crate) fn kill(pid: u32) {
    signal_process(pid, Signal::KILL);
}

/// Commands that run side by side, all to their end.
pub(crate) fn together(commands: Vec<Command>) -> Vec<Ran> {
    let threads: Vec<_> = commands
        .into_iter()
        .map(|mut command| std::thread::spawn(move || Ran::of(&mut command)))
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

impl Agent {
    /// Kills it at once; its home, to start it again in.
    pub(crate) fn kill(self) -> Home {
        self.process.kill();
        self.home
    }

    /// Its executor's process.
    pub(crate) fn executor(&self) -> u32 {
        eventually("the agent has an executor", || {
            let status = self.home.json(&["agent", "status"]);
            status["executor_pid"].as_u64().map(|pid| pid as u32)
        })
    }
}

impl Fleet {
    /// A hub and agents of these names, each with so many slots.
    pub(crate) fn of(agents: &[(&str, u32)]) -> Self {
        let mut fleet = Self::hub_alone();
        for (name, slots) in agents {
            fleet.add_agent(name, &["--slots", &slots.to_string()]);
        }
        fleet
    }

    /// Starts one more agent, which says this often that it is there.
    pub(crate) fn add_agent_that_beats(&mut self, name: &str, every: &str) -> &Agent {
        let home = Home::new();
        std::fs::create_dir_all(home.fleet()).unwrap();
        let config = format!("heartbeat = \"{every}\"\n");
        std::fs::write(home.fleet().join("config.toml"), config).unwrap();
        self.again(home, name, &[])
    }

    /// Takes an agent out, to stop or kill it.
    pub(crate) fn take(&mut self, name: &str) -> Agent {
        let at = self.agents.iter().position(|a| a.name == name).unwrap();
        self.agents.remove(at)
    }

    /// Starts an agent again in its old home.
    pub(crate) fn again(&mut self, home: Home, name: &str, words: &[&str]) -> &Agent {
        let agent = self.agent(home, name, words);
        self.agents.push(agent);
        self.agents.last().unwrap()
    }

    /// Runs this while the hub is gone, and starts it again at the same address.
    pub(crate) fn without_hub(&mut self, how: HubEnd, meanwhile: impl FnOnce(&Self)) {
        let server = self.server();
        match how {
            HubEnd::Stopped => {
                self.hub.signal(Signal::TERM);
                assert_eq!(self.hub.ended(), 0, "{}", self.hub.errors());
            }
            HubEnd::Killed => {
                // Its server first: a hub that sees its server die would start another.
                self.hub.signal(Signal::STOP);
                kill(server);
                self.hub.signal(Signal::KILL);
                self.hub.ended();
            }
        }
        meanwhile(self);
        self.start_hub();
    }

    /// Starts the hub at the address where it was.
    pub(crate) fn start_hub(&mut self) {
        let listen = self.url.strip_prefix("nats://").unwrap();
        let words = ["--json", "hub", "run", "--listen", listen, "--tether"];
        self.hub = Running::start(self.home.command(&words));
        let ready = self.hub.json_line();
        assert_eq!(ready["hub"], self.url.as_str(), "{ready}");
    }

    /// The process of its nats-server.
    pub(crate) fn server(&self) -> u32 {
        let file = self.home.fleet().join("hub/nats-server.pid");
        let text = std::fs::read_to_string(file).unwrap();
        text.trim().parse().unwrap()
    }

    /// Waits until a job has ended; what `fleet show` shows, and the exit code of `fleet wait`.
    pub(crate) fn ended(&self, id: &str) -> (u8, Value) {
        let limit = format!("{}s", DEADLINE.as_secs());
        let ran = self.run(&["wait", "--timeout", &limit, id]);
        (ran.code, self.job(id))
    }

    /// Waits until this many jobs are in this state.
    pub(crate) fn until_count(&self, count: usize, state: &str) -> Vec<Value> {
        eventually(&format!("{count} jobs are {state}"), || {
            let jobs = self.json(&["jobs", "--limit", "0", "--state", state]);
            Some(jobs.as_array().unwrap().clone()).filter(|jobs| jobs.len() == count)
        })
    }

    /// All events of this kind so far.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.home.json_lines(&["flow", "--kind", kind]).1
    }

    /// Waits for the first event of this kind that `takes` takes.
    pub(crate) fn event(&self, kind: &str, takes: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an event {kind}"), || {
            self.events(kind).into_iter().find(&takes)
        })
    }

    /// Waits until the hub has taken over this machine's lease, which takes 45 s.
    pub(crate) fn until_lease_taken(&self, machine: &str) {
        let limit = DEADLINE * 4;
        eventually_within(limit, &format!("the lease of {machine} is taken"), || {
            let taken = self.events("hub.lease_taken");
            taken.iter().any(|e| e["machine"] == machine).then_some(())
        });
    }

    /// Connects as the operator, past everything that fleet's commands check.
    pub(crate) async fn bus(&self) -> (Link, Bus) {
        let file = self.home.fleet().join("credentials/operator.creds");
        let credentials = Credentials::load(&file).unwrap();
        let options = ConnectOptions {
            fail_within: DEADLINE,
            ..ConnectOptions::new("fleet test", credentials)
        };
        let link = connect(&options).await.unwrap();
        let bus = Bus::new(&link);
        (link, bus)
    }
}

/// How a hub ends.
#[derive(Clone, Copy)]
pub(crate) enum HubEnd {
    /// In order.
    Stopped,
    /// Its process and its server's are killed.
    Killed,
}

/// The only attempt of a job.
pub(crate) fn only_attempt(job: &Value) -> &Value {
    let attempts = job["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{job}");
    &attempts[0]
}

/// Where each of these jobs ran last.
pub(crate) fn machines(jobs: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = jobs.iter().filter_map(|j| j["machine"].as_str()).collect();
    names.sort_unstable();
    names
}
