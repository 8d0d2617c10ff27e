//! A fleet in which each machine lives in a world of its own, and what is done to it: faults come
//! and go, agents and hub are killed, stopped and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fleet_nats::bus::Bus;
use fleet_nats::clock::boot_time;
use fleet_nats::connect::{ConnectOptions, Link, connect};
use fleet_nats::hub::Credentials;
use rustix::process::Signal;

use crate::faults::clock::Clock;
use crate::faults::disk::Disk;
use crate::faults::link::{Cable, HUB};
use crate::faults::process;
use crate::faults::proxy::{Mode, Proxy};
use crate::harness::{Home, Running, eventually};
use crate::history::Injected;
use crate::schedule::{CABLED, CRAMPED, Fault, MACHINES, PROXIED, SHIFTY};
use crate::shape::SCRIPT;

/// Longest that anything may take to stop in order: its own limits are far below.
const STOP: Duration = Duration::from_secs(300);

/// Seconds on the clock that faults and jobs are timed by: it runs on through everything.
pub(crate) fn uptime() -> f64 {
    boot_time().0 as f64 / 1e9
}

struct Machine {
    name: &'static str,
    home: Home,
    process: Option<Running>,
    /// Its folder for files of its own.
    credentials: PathBuf,
}

/// All of it.
pub(crate) struct World {
    /// Where everything of this history lies.
    pub(crate) dir: PathBuf,
    /// The hub's home, and its operator's.
    pub(crate) home: Home,
    /// A home of somebody else who may dispatch, and whose clock jumps.
    pub(crate) desk: Home,
    hub: Option<Running>,
    machines: Vec<Machine>,
    cable: Cable,
    proxy: Proxy,
    disk: Disk,
    clock: Clock,
    /// What was done to it, and when.
    pub(crate) injected: Vec<Injected>,
    /// What went wrong with doing so.
    pub(crate) complaints: Vec<String>,
}

impl World {
    /// Starts all of it and waits until every machine is in service.
    pub(crate) fn start(dir: &Path) -> Self {
        let jobs = dir.join("jobs");
        std::fs::create_dir_all(&jobs).unwrap();
        std::fs::write(jobs.join("job.sh"), SCRIPT).unwrap();
        let cable = Cable::new();
        let proxy = Proxy::start(format!("{HUB}:4222").parse().unwrap());
        let home = Home::new();
        let hub = start_hub(&home);
        let desk = Home::new();
        let folder = desk.fleet().join("credentials");
        std::fs::create_dir_all(&folder).unwrap();
        let operator = home.fleet().join("credentials/operator.creds");
        std::fs::copy(operator, folder.join("operator.creds")).unwrap();
        let mut machines = Vec::new();
        let mut disk = None;
        for name in MACHINES {
            let its = Home::new();
            if name == SHIFTY {
                // The clock is the agent's and the executor's; its library asks its own parent's
                // leave in each process, and a job outlives the agent.
                std::fs::create_dir_all(its.fleet()).unwrap();
                let file = its.fleet().join("config.toml");
                std::fs::write(file, "[env]\nLD_PRELOAD = \"\"\n").unwrap();
            }
            if name == CRAMPED {
                disk = Some(Disk::mount(its.fleet()));
            }
            let credentials = its.user().join("creds");
            let file = credentials.to_str().unwrap();
            home.run(&["hub", "credentials", "--machine", name, "--out", file])
                .ok();
            machines.push(Machine {
                name,
                home: its,
                process: None,
                credentials,
            });
        }
        let mut world = Self {
            dir: dir.to_owned(),
            clock: Clock::new(dir),
            home,
            desk,
            hub: Some(hub),
            machines,
            cable,
            proxy,
            disk: disk.unwrap(),
            injected: Vec::new(),
            complaints: Vec::new(),
        };
        for name in MACHINES {
            world.start_agent(name);
        }
        eventually("every machine is in service", || {
            let machines = world.home.json(&["machines"]);
            let up = machines.as_array().unwrap().iter();
            let up = up.filter(|m| m["state"] == "up" || m["state"] == "degraded");
            (up.count() == MACHINES.len()).then_some(())
        });
        world
    }

    /// The folder that jobs write to.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.dir.join("jobs")
    }

    /// A machine's home.
    pub(crate) fn home_of(&self, name: &str) -> &Home {
        &self.machines.iter().find(|m| m.name == name).unwrap().home
    }

    fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.iter_mut().find(|m| m.name == name).unwrap()
    }

    /// `fleet` with these words, by an operator: the hub's own, or one with a clock of his own.
    pub(crate) fn operator(&self, shifty: bool, words: &[String]) -> Command {
        if !shifty {
            return self.home.command(words);
        }
        let mut command = self.desk.command(words);
        self.clock.give(&mut command);
        command
    }

    fn start_agent(&mut self, name: &'static str) {
        let proxy = self.proxy.url();
        let machine = self.machines.iter().find(|m| m.name == name).unwrap();
        let file = machine.credentials.to_str().unwrap();
        let mut words = vec!["--json", "agent", "run", "--tether", "--slots", "3"];
        words.extend(["--grace", "2s", "--credentials", file]);
        if name == PROXIED {
            words.extend(["--hub", &proxy]);
        }
        let mut command = machine.home.command(&words);
        if name == SHIFTY {
            self.clock.give(&mut command);
        }
        if name == CABLED {
            command = self.cable.there(&command);
        }
        self.machine(name).process = Some(Running::start(command));
    }

    /// The process of an agent, while there is one.
    fn agent_pid(&mut self, name: &str) -> Option<u32> {
        self.machine(name).process.as_ref().map(Running::pid)
    }

    fn executors(&mut self, name: &str) -> Vec<u32> {
        process::executors(&self.machine(name).home.fleet())
    }

    /// The process of the nats-server.
    fn server_pid(&self) -> Option<u32> {
        let file = self.home.fleet().join("hub/nats-server.pid");
        let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let words = process::words(pid);
        words.first()?.ends_with("nats-server").then_some(pid)
    }

    fn signal_hub(&mut self, what: Signal) {
        if let Some(hub) = &self.hub {
            process::signal(hub.pid(), what);
        }
    }

    fn signal_server(&mut self, what: Signal) {
        if let Some(pid) = self.server_pid() {
            process::signal(pid, what);
        }
    }

    fn signal_agent(&mut self, name: &str, what: Signal) {
        if let Some(pid) = self.agent_pid(name) {
            process::signal(pid, what);
        }
    }

    fn signal_executor(&mut self, name: &str, what: Signal) {
        for pid in self.executors(name) {
            process::signal(pid, what);
        }
    }

    /// A fault begins.
    pub(crate) fn inject(&mut self, fault: Fault, machine: Option<&'static str>) {
        self.injected.push(Injected {
            fault: fault.name().to_owned(),
            machine: machine.map(str::to_owned),
            from: uptime(),
            to: None,
        });
        let name = machine.unwrap_or_default();
        match fault {
            Fault::ServerKilled => self.signal_server(Signal::KILL),
            Fault::ServerFrozen => self.signal_server(Signal::STOP),
            Fault::HubFrozen => self.signal_hub(Signal::STOP),
            Fault::HubStopped => self.signal_hub(Signal::TERM),
            Fault::HubKilled => self.kill_hub(),
            Fault::AgentKilled => self.kill_agent(name),
            Fault::AgentStopped => self.signal_agent(name, Signal::TERM),
            Fault::AgentFrozen => self.signal_agent(name, Signal::STOP),
            Fault::ExecutorKilled => self.signal_executor(name, Signal::KILL),
            Fault::ExecutorFrozen => self.signal_executor(name, Signal::STOP),
            Fault::MachineCrashed => self.crash(name),
            Fault::MachineFrozen => self.freeze(name),
            Fault::CableCut => self.cable.cut(),
            Fault::ProxyClosed => self.proxy.set(Mode::Closed),
            Fault::ProxyReset => self.proxy.set(Mode::Reset),
            Fault::ProxyStalled => self.proxy.set(Mode::Stalled),
            Fault::ProxyHalfOpen => self.proxy.set(Mode::HalfOpen),
            Fault::ProxySlow => self.proxy.set(Mode::Slow(Duration::from_millis(400))),
            Fault::ProxyCutInMessage => self.proxy.set(Mode::CutInMessage),
            Fault::DiskFull => self.disk.fill(),
            Fault::ClockForth => self.clock.set(3600),
            Fault::ClockBack => self.clock.set(-3600),
        }
    }

    /// It is over.
    pub(crate) fn heal(&mut self, fault: Fault, machine: Option<&'static str>) {
        let name = machine.unwrap_or_default();
        match fault {
            Fault::ServerKilled | Fault::ExecutorKilled => {}
            Fault::ServerFrozen => self.signal_server(Signal::CONT),
            Fault::HubFrozen => self.signal_hub(Signal::CONT),
            Fault::HubStopped | Fault::HubKilled => {
                if let Some(hub) = self.hub.take() {
                    self.stopped("the hub", hub);
                }
                self.hub = Some(start_hub(&self.home));
            }
            Fault::AgentKilled | Fault::AgentStopped | Fault::MachineCrashed => {
                if let Some(agent) = self.machine(name).process.take() {
                    self.stopped(name, agent);
                }
                self.start_agent(machine.unwrap());
            }
            Fault::AgentFrozen => self.signal_agent(name, Signal::CONT),
            Fault::ExecutorFrozen => self.signal_executor(name, Signal::CONT),
            Fault::MachineFrozen => self.thaw(name),
            Fault::CableCut => self.cable.heal(),
            Fault::ProxyClosed
            | Fault::ProxyReset
            | Fault::ProxyStalled
            | Fault::ProxyHalfOpen
            | Fault::ProxySlow
            | Fault::ProxyCutInMessage => self.proxy.set(Mode::Pass),
            Fault::DiskFull => self.disk.free(),
            Fault::ClockForth | Fault::ClockBack => self.clock.set(0),
        }
        let open = self.injected.iter_mut().rev();
        let mut open = open.filter(|one| one.fault == fault.name());
        if let Some(one) = open.find(|one| one.machine.as_deref() == machine) {
            one.to = Some(uptime());
        }
    }

    /// Waits until what was told to stop has stopped.
    fn stopped(&mut self, what: &str, mut process: Running) {
        let until = Instant::now() + STOP;
        while !process::gone(process.pid()) {
            if Instant::now() > until {
                let complaint = format!("{what} does not stop: {}", process.errors());
                self.complaints.push(complaint);
                return process.kill();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        process.ended();
        let said = process.errors();
        if said.contains("panicked") {
            self.complaints.push(format!("{what}: {said}"));
        }
    }

    fn kill_hub(&mut self) {
        // Its server first: a hub that sees its server die would start another.
        self.signal_hub(Signal::STOP);
        self.signal_server(Signal::KILL);
        self.signal_hub(Signal::KILL);
    }

    /// An agent whose executor is gone as well leaves nobody to end its jobs: a machine of which
    /// that is left is none that fleet promises anything of.
    fn kill_agent(&mut self, name: &str) {
        if self.executors(name).is_empty() {
            return self.crash(name);
        }
        self.signal_agent(name, Signal::KILL);
    }

    fn crash(&mut self, name: &str) {
        self.freeze(name);
        process::signal_jobs(name, Signal::KILL);
        self.signal_executor(name, Signal::KILL);
        self.signal_agent(name, Signal::KILL);
    }

    fn freeze(&mut self, name: &str) {
        self.signal_agent(name, Signal::STOP);
        self.signal_executor(name, Signal::STOP);
        process::signal_jobs(name, Signal::STOP);
    }

    fn thaw(&mut self, name: &str) {
        process::signal_jobs(name, Signal::CONT);
        self.signal_executor(name, Signal::CONT);
        self.signal_agent(name, Signal::CONT);
    }

    /// What every service has written to standard error since it was started.
    pub(crate) fn said(&self) -> String {
        let mut text = String::new();
        if let Some(hub) = &self.hub {
            text += &format!("== hub\n{}\n", hub.errors());
        }
        for machine in &self.machines {
            if let Some(process) = &machine.process {
                text += &format!("== {}\n{}\n", machine.name, process.errors());
            }
        }
        text
    }
}

fn start_hub(home: &Home) -> Running {
    let listen = format!("{HUB}:4222");
    let words = ["--json", "hub", "run", "--listen", &listen, "--tether"];
    let hub = Running::start(home.command(&words));
    let ready = hub.json_line();
    assert_eq!(ready["event"], "ready", "{ready}");
    hub
}

/// Connects as the operator, past everything that fleet's commands check.
pub(crate) async fn bus(home: &Path) -> Result<(Link, Bus), String> {
    let file = home.join("credentials/operator.creds");
    let credentials = Credentials::load(&file).map_err(|e| e.to_string())?;
    let options = ConnectOptions {
        fail_within: Duration::from_secs(10),
        ..ConnectOptions::new("fleet test", credentials)
    };
    let link = connect(&options).await.map_err(|e| e.to_string())?;
    let bus = Bus::new(&link);
    Ok((link, bus))
}
