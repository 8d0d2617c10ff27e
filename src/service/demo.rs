//! `up --demo`: a few agents more on this very machine, and a trickle of small real jobs, so that
//! there is something to look at. Everything lives under `FLEET_HOME/demo` and ends with `up`.

use std::process::Stdio;
use std::time::Duration;

use fleet_contract::ids::{Lane, MachineId};
use fleet_contract::spec::{JobSpec, Priority, Target};
use fleet_nats::bus::Bus;
use fleet_nats::clock;
use fleet_nats::home::Home;
use fleet_nats::hub::{Hub, Permission};
use fleet_nats::subject::stream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::agent::take_in;
use crate::failure::Failure;

/// The agents and their slots.
const AGENTS: [(&str, u32); 3] = [("demo-ada", 2), ("demo-bell", 1), ("demo-cray", 4)];
/// No more jobs are sent while so many wait.
const WAITING_MAX: u64 = 8;
/// The pause between two jobs is this, and up to twice as much more.
const PAUSE: Duration = Duration::from_millis(700);
/// How long an agent may take to end, beyond the second its jobs get.
const END_WITHIN: Duration = Duration::from_secs(20);

/// Small jobs: what each is called, and its line for the shell.
const JOBS: [(&str, &str); 8] = [
    (
        "count",
        "for i in 1 2 3 4 5; do echo step $i; sleep 1; done",
    ),
    ("who am I", "uname -a; id"),
    ("disk", "df -h ."),
    (
        "sum",
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i",
    ),
    ("nap", "sleep 8"),
    (
        "talk",
        "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.3; done",
    ),
    ("fail", "echo this one fails on purpose >&2; exit 3"),
    ("too slow", "echo this one runs into its time-out; sleep 60"),
];

/// What the demonstration runs.
pub(crate) struct Demo {
    agents: Vec<Child>,
    trickle: JoinHandle<()>,
}

impl Demo {
    /// Starts the agents and the trickle. The agents are ended with this, however that ends.
    pub(crate) fn start(hub: &Hub, bus: &Bus, home: &Home) -> Result<Self, Failure> {
        let mut agents = Vec::new();
        for (name, slots) in AGENTS {
            agents.push(agent(hub, home, name, slots)?);
        }
        let trickle = tokio::spawn(trickle(bus.clone()));
        Ok(Self { agents, trickle })
    }

    /// Ends all of it in order.
    pub(crate) async fn stop(mut self) {
        self.trickle.abort();
        for agent in &mut self.agents {
            // Its tether: it says goodbye by itself.
            drop(agent.stdin.take());
        }
        let ending = self.agents.iter_mut().map(async |agent| {
            if tokio::time::timeout(END_WITHIN, agent.wait())
                .await
                .is_err()
            {
                tracing::warn!(
                    pid = agent.id(),
                    "an agent of the demonstration had to be killed"
                );
                // Only fails where it has ended just now.
                let _ = agent.kill().await;
            }
        });
        futures_util::future::join_all(ending).await;
    }
}

fn agent(hub: &Hub, home: &Home, name: &str, slots: u32) -> Result<Child, Failure> {
    let internal = |e: &dyn std::fmt::Display| Failure::internal(format!("demo: {e}"));
    let machine: MachineId = name.parse().map_err(|e| internal(&e))?;
    let its_home = Home::new(home.root().join("demo").join(name));
    let issued_at = crate::clock::now().as_micros() / 1_000_000;
    let credentials = hub
        .identity()
        .issue(issued_at, name, Permission::Worker, vec![hub.url()])
        .map_err(|e| internal(&e))?;
    take_in(&its_home, &machine, &credentials)?;
    let log = its_home.root().join("agent.log");
    let log = std::fs::File::create(&log)
        .map_err(|e| super::hub::file_failed("cannot write", &log, &e))?;
    let program = std::env::current_exe().map_err(|e| internal(&e))?;
    Command::new(program)
        .args([
            "agent", "run", "--tether", "--grace", "1s", "--label", "demo=yes",
        ])
        .args(["--name", name, "--slots", &slots.to_string()])
        .env("FLEET_HOME", its_home.root())
        .env_remove("FLEET_HUB")
        .env_remove("FLEET_MACHINE")
        .current_dir(its_home.root())
        // Not in the terminal's group: Ctrl-C is for `up`, which ends them in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|e| internal(&e))
}

/// Sends a small job now and then, for as long as the bus is there.
async fn trickle(bus: Bus) {
    for (name, line) in JOBS.iter().cycle() {
        tokio::time::sleep(PAUSE.mul_f64(1.0 + 2.0 * clock::draw())).await;
        match bus.usage(stream::WORK).await {
            Ok(usage) if usage.messages < WAITING_MAX => {}
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "the demonstration waits for the hub");
                continue;
            }
        }
        if let Err(error) = bus.dispatch(clock::job_id(), None, job(name, line)).await {
            tracing::debug!(%error, "a job of the demonstration was not dispatched");
        }
    }
}

fn job(name: &str, line: &str) -> JobSpec {
    let mut spec = JobSpec::new(
        vec![line.to_owned()],
        Target::Lane(Lane::any()),
        clock::now(),
        format!("demo@{}", crate::environment::host_name()),
    );
    spec.shell = true;
    spec.name = Some(name.to_owned());
    spec.priority = Priority::Low;
    spec.timeout_ms = Some(10_000);
    spec.expires_ms = 600_000;
    spec.tags.insert("from".to_owned(), "demo".to_owned());
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_and_machine_of_the_demonstration_is_valid() {
        for (name, line) in JOBS {
            job(name, line).validate().unwrap();
        }
        for (name, _) in AGENTS {
            name.parse::<MachineId>().unwrap();
        }
    }
}
