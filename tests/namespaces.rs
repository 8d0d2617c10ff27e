//! What needs namespaces of the kernel, and so Linux and root.
//!
//! Two network namespaces as two hosts: a hub and an agent in one, another agent in the other, and
//! a link between them that is cut and healed. A PID namespace as a container that was entered.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "it/harness.rs"]
#[allow(dead_code, reason = "the whole of it is used by the other tests")]
mod harness;

use harness::{Home, Ran, Running, eventually};

/// Two namespaces and the cable between them; gone when dropped, however the test ends.
struct Cable {
    hub: String,
    far: String,
}

const HUB: &str = "10.231.7.1";
const FAR: &str = "10.231.7.2";

fn ip(words: &[&str]) {
    let ran = Ran::of(Command::new("ip").args(words));
    assert_eq!(ran.code, 0, "ip {words:?} (needs root): {ran:?}");
}

impl Cable {
    fn new() -> Self {
        let pid = std::process::id();
        let cable = Self {
            hub: format!("fleet-hub-{pid}"),
            far: format!("fleet-far-{pid}"),
        };
        ip(&["netns", "add", &cable.hub]);
        ip(&["netns", "add", &cable.far]);
        let (hub, far) = (&cable.hub, &cable.far);
        // Both ends are made in their own namespaces: nothing of it is ever seen outside.
        ip(&[
            "-n", hub, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns",
            far,
        ]);
        for (host, address) in [(hub, HUB), (far, FAR)] {
            let address = format!("{address}/24");
            ip(&["-n", host, "address", "add", &address, "dev", "cable"]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
            ip(&["-n", host, "link", "set", "cable", "up"]);
        }
        cable
    }

    fn cut(&self) {
        ip(&["-n", &self.far, "link", "set", "cable", "down"]);
    }

    fn heal(&self) {
        ip(&["-n", &self.far, "link", "set", "cable", "up"]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for host in [&self.hub, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
    }
}

/// The same command on a host. `ip` becomes it: its process is the command's.
fn on(host: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside
        .args(["netns", "exec", host])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs() {
        inside.env(name, value.unwrap());
    }
    inside.current_dir(command.get_current_dir().unwrap());
    inside
}

/// A host: its namespace and its home.
struct Host<'a> {
    name: &'a str,
    home: Home,
}

impl Host<'_> {
    fn start(&self, words: &[&str]) -> Running {
        Running::start(on(self.name, &self.home.command(words)))
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&mut on(self.name, &self.home.command(words)))
    }

    fn json(&self, words: &[&str]) -> Value {
        let ran = self.run(&[&["--json"], words].concat());
        serde_json::from_str(ran.ok()).unwrap()
    }

    /// Waits until the machine is in one of these states.
    fn until(&self, machine: &str, states: &[&str]) {
        eventually(&format!("{machine} is {states:?}"), || {
            let machines = self.json(&["machines"]);
            let mut found = machines.as_array().unwrap().iter();
            let found = found.find(|m| m["machine"] == machine)?;
            states.contains(&found["state"].as_str()?).then_some(())
        });
    }

    fn agent(&self, hub: &Host<'_>, machine: &str) -> Running {
        let file = self.home.user().join("creds");
        let file = file.to_str().unwrap();
        hub.run(&["hub", "credentials", "--machine", machine, "--out", file])
            .ok();
        // Beats come each second, so that the test need not wait for long.
        std::fs::create_dir_all(self.home.fleet()).unwrap();
        std::fs::write(
            self.home.fleet().join("config.toml"),
            "heartbeat = \"1s\"\n",
        )
        .unwrap();
        let words = ["--json", "agent", "run", "--tether", "--credentials", file];
        let agent = self.start(&words);
        assert_eq!(agent.json_line()["machine"], machine);
        hub.until(machine, &["up", "degraded"]);
        agent
    }
}

/// A line for a shell that writes before and after a file is there, and ends with 3.
fn gated(dir: &std::path::Path, gate: &str) -> String {
    let dir = dir.display();
    format!(
        "echo before; while [ ! -e {dir}/{gate} ] && [ -d {dir} ]; do sleep 0.05; done; \
         echo after; touch {dir}/{gate}-passed; exit 3"
    )
}

#[test]
#[ignore = "needs root to make network namespaces: cargo test --test namespaces -- --ignored"]
fn two_hosts_work_for_each_other_and_outlive_a_cut_cable() {
    let cable = Cable::new();
    let gates = tempfile::tempdir().unwrap();
    let near = Host {
        name: &cable.hub,
        home: Home::new(),
    };
    let far = Host {
        name: &cable.far,
        home: Home::new(),
    };
    let listen = format!("{HUB}:4222");
    let hub = near.start(&["hub", "run", "--listen", &listen, "--tether"]);
    let ready = hub.line();
    assert!(ready.contains(&format!("nats://{listen}")), "{ready}");
    eventually("a warning, beyond loopback without TLS", || {
        hub.errors().contains("without TLS").then_some(())
    });
    let _here = near.agent(&near, "near");
    let _there = far.agent(&near, "away");

    // Both ways, told by the namespace that a job finds itself in.
    let operator = near.home.fleet().join("credentials/operator.creds");
    let operator = operator.to_str().unwrap();
    let namespace = ["--", "readlink", "/proc/self/ns/net"];
    let there = near.run(&[&["dispatch", "--follow", "--on", "away"], &namespace[..]].concat());
    let words = [
        "--credentials",
        operator,
        "dispatch",
        "--follow",
        "--on",
        "near",
    ];
    let here = far.run(&[&words, &namespace[..]].concat());
    assert_ne!(there.ok(), here.ok());
    let machines = near.json(&["machines"]);
    let address = |name: &str| {
        let mut found = machines.as_array().unwrap().iter();
        found.find(|m| m["machine"] == name).unwrap()["address"].clone()
    };
    assert_eq!((address("near"), address("away")), (HUB.into(), FAR.into()));

    // A short cut, which the connection outlives, and one that both sides notice.
    for (gate, noticed) in [("short", false), ("long", true)] {
        let script = gated(gates.path(), gate);
        let words = ["dispatch", "--on", "away", "--shell", "--", &script];
        let id = near.run(&words).ok().to_owned();
        let mut follower = near.start(&["logs", "-f", &id]);
        assert_eq!(follower.line(), "before");
        cable.cut();
        let begun = Instant::now();
        near.until("away", &["stale", "lost"]);
        near.until("away", &["lost"]);
        // Three beats of a second and their slack; the machine that runs this may be busy.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert_eq!(near.json(&["show", &id])["state"], "running");
        // The job ends while nobody can hear of it, and another is sent after it.
        std::fs::write(gates.path().join(gate), "").unwrap();
        eventually("the job has ended beyond the cut", || {
            let passed = gates.path().join(format!("{gate}-passed"));
            passed.exists().then_some(())
        });
        let queued = near.run(&["dispatch", "--on", "away", "--", "true"]);
        assert!(queued.err.contains("away is lost"), "{queued:?}");
        let begun = Instant::now();
        let cut_off = far.run(&["--credentials", operator, "dispatch", "--", "true"]);
        assert_eq!(cut_off.code, 69, "{cut_off:?}");
        // Two seconds, where the machine is not busy.
        assert!(begun.elapsed() < Duration::from_secs(30), "{cut_off:?}");
        if noticed {
            eventually("the agent knows that it is cut off", || {
                let status = far.json(&["agent", "status"]);
                (status["connected"] == false).then_some(())
            });
        }
        cable.heal();
        let waited = near.run(&["wait", "--timeout", "60s", &id]);
        assert_eq!(waited.code, 3, "{waited:?}");
        assert_eq!(follower.line(), "after");
        assert_eq!(follower.ended(), 0);
        let job = near.json(&["show", &id]);
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job}");
        near.run(&["wait", "--timeout", "60s", queued.ok()]).ok();
        near.until("away", &["up", "degraded"]);
    }
    let events = near.run(&["--json", "flow", "--machine", "away"]);
    let events = harness::lines(events.ok());
    let count = |kind: &str| events.iter().filter(|e| e["kind"] == kind).count();
    assert!(count("machine.lost") >= 2, "{events:?}");
    assert!(count("link.healed") >= 1, "{events:?}");
    assert_eq!(count("journal.void"), 0);
}

/// In a container that is entered from its host, session and process group have no number.
#[test]
#[ignore = "needs root to make a PID namespace: cargo test --test namespaces -- --ignored"]
fn a_job_runs_here_where_session_and_group_were_begun_outside() {
    let home = Home::new();
    let run = home.command(&["run", "--shell", "--", "echo here; (sleep 600 &); exit 3"]);
    let mut entered = Command::new("unshare");
    entered
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(run.get_program())
        .args(run.get_args())
        .env_clear();
    for (name, value) in run.get_envs() {
        if let Some(value) = value {
            entered.env(name, value);
        }
    }
    let ran = Ran::of(&mut entered);
    assert_eq!((ran.code, ran.out.as_str()), (3, "here\n"), "{ran:?}");
}

/// A file system of its own, so small that it can be filled; gone when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let ran = Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "fleet-test"])
                .arg(&at),
        );
        assert_eq!(ran.code, 0, "mount (needs root): {ran:?}");
        Self(at)
    }

    /// Writes until there is no room for a byte.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Has an agent tell so many events: each is a command that means nothing.
fn annoy(fleet: &harness::Fleet, machine: &str, count: usize) {
    let file = fleet.home.fleet().join("credentials/operator.creds");
    let credentials = fleet_nats::hub::Credentials::load(&file).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = fleet_nats::connect::ConnectOptions {
            fail_within: harness::DEADLINE,
            ..fleet_nats::connect::ConnectOptions::new("fleet test", credentials)
        };
        let link = fleet_nats::connect::connect(&options).await.unwrap();
        let bus = fleet_nats::bus::Bus::new(&link);
        for _ in 0..count {
            let subject = format!("fleet.cmd.{machine}.nonsense");
            bus.tell(&subject, bytes::Bytes::new()).await.unwrap();
        }
        bus.flush(harness::DEADLINE).await;
    });
}

#[test]
#[ignore = "needs root to mount a small disk: cargo test --test namespaces -- --ignored"]
fn an_agent_on_a_full_disk_lives_on_and_tells_what_it_lost_when_there_is_room() {
    let home = Home::new();
    let disk = SmallDisk::mount(home.fleet());
    let fleet = harness::Fleet::hub_alone();
    let agent = fleet.agent(home, "studio", &[]);
    disk.fill();
    let degraded = eventually("it says that events are lost", || {
        annoy(&fleet, "studio", 100);
        let machine = fleet.machine("studio")?;
        let causes = machine["degraded"].as_array()?.clone();
        causes.into_iter().find(|c| c["cause"] == "events_dropped")
    });
    assert!(degraded["since"].is_string(), "{degraded}");
    assert_eq!(fleet.machine("studio").unwrap()["state"], "degraded");
    // It could not even note that it begins a job: it takes none, and rejects none.
    let waits = fleet.dispatch(&["--count", "4", "--", "true"]);
    annoy(&fleet, "studio", 100);
    disk.free();
    let waits: Vec<&str> = waits.lines().collect();
    let ran = fleet.run(&[&["wait", "--timeout", "60s"], &waits[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let told = eventually("what was lost is told", || {
        let (_, events) = fleet.home.json_lines(&["flow", "--kind", "spool.dropped"]);
        events.into_iter().next()
    });
    let detail = &told["data"]["detail"];
    assert!(detail["events"].as_u64().unwrap() > 0, "{told}");
    assert!(
        detail["reason"].as_str().unwrap().contains("space"),
        "{told}"
    );
    eventually("nothing is lost any more", || {
        let machine = fleet.machine("studio")?;
        let causes = machine["degraded"].as_array()?;
        causes
            .iter()
            .all(|c| c["cause"] != "events_dropped")
            .then_some(())
    });
    let ran = fleet.run(&["dispatch", "--wait", "--on", "studio", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    drop(agent);
    drop(disk);
}

/// The agent of a home on a machine that has just booted: with processes, a boot and a clock since then
/// of its own. Killed, it takes every process of that machine with it, as a power failure does.
fn booted(home: &Home, boot: &str, uptime: u32) -> Running {
    let id = home.user().join(format!("boot-{boot}"));
    std::fs::write(&id, format!("{boot}\n")).unwrap();
    let file = home.user().join("creds");
    let file = file.to_str().unwrap();
    let words = ["--json", "agent", "run", "--tether", "--credentials", file];
    let agent = home.command(&words);
    let mut machine = Command::new("unshare");
    machine.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--time"]);
    machine.args(["--boottime", &uptime.to_string(), "--", "sh", "-c"]);
    machine.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
    machine.arg(&id).arg(agent.get_program());
    machine.args(agent.get_args()).env_clear();
    for (name, value) in agent.get_envs() {
        if let Some(value) = value {
            machine.env(name, value);
        }
    }
    let agent = Running::start(machine);
    assert_eq!(agent.json_line()["machine"], "studio");
    agent
}

/// Waits until no process of this home is left on any machine.
fn until_off(home: &Home) {
    let needle = home.fleet().display().to_string();
    eventually("every process of the machine is gone", || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let mut environments =
            pids.filter_map(|pid| std::fs::read(pid.path().join("environ")).ok());
        let runs = environments.any(|bytes| String::from_utf8_lossy(&bytes).contains(&needle));
        (!runs).then_some(())
    });
}

/// A machine that loses power with jobs running and a result in its spool, while its hub is away.
#[test]
#[ignore = "needs root to make namespaces: cargo test --test namespaces -- --ignored"]
fn a_rebooted_machine_ends_what_ran_by_its_policy_and_tells_what_ended_before() {
    let mut fleet = harness::Fleet::hub_alone();
    let home = Home::new();
    let file = home.user().join("creds");
    let words = ["hub", "credentials", "--machine", "studio", "--out"];
    fleet
        .home
        .run(&[&words[..], &[file.to_str().unwrap()]].concat())
        .ok();
    std::fs::create_dir_all(home.fleet()).unwrap();
    std::fs::write(home.fleet().join("config.toml"), "slots = 4\n").unwrap();
    // It has been up for long: the next boot's clock is behind everything that was noted by this one.
    let machine = booted(&home, "first", 1_000_000);
    eventually("the hub knows it", || fleet.machine("studio"));
    let folder = fleet.home.user().to_owned();
    let ran = folder.join("ran");
    let job = |policy: &str, name: &str, code: u32| {
        let script = format!(
            "echo {name} $FLEET_FENCING_TOKEN >> {}; while [ ! -e {} ]; do sleep 0.05; done; exit {code}",
            ran.display(),
            folder.join(format!("go-{name}")).display()
        );
        fleet.dispatch(&[
            "--on-lost",
            policy,
            "--name",
            name,
            "--shell",
            "--",
            &script,
        ])
    };
    let ended = job("ask", "ended", 3);
    let [ask, retry, fail] = ["ask", "retry", "fail"].map(|policy| job(policy, policy, 0));
    let runs = |name: &str| -> Vec<u64> {
        let text = std::fs::read_to_string(&ran).unwrap_or_default();
        let of = text.lines().filter_map(|line| line.split_once(' '));
        let of = of.filter(|(of, _)| *of == name);
        of.filter_map(|(_, token)| token.parse().ok()).collect()
    };
    for (id, name) in [
        (&ended, "ended"),
        (&ask, "ask"),
        (&retry, "retry"),
        (&fail, "fail"),
    ] {
        eventually("it runs", || (runs(name).len() == 1).then_some(()));
        fleet.until(id, "running");
    }
    let listen = fleet.url.strip_prefix("nats://").unwrap().to_owned();
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0, "{}", fleet.hub.errors());
    std::fs::write(folder.join("go-ended"), "").unwrap();
    eventually("its result waits", || {
        let status = home.json(&["agent", "status"]);
        (status["spool"]["results"] == 1).then_some(())
    });
    machine.kill();
    until_off(&home);

    let words = ["--json", "hub", "run", "--listen", &listen, "--tether"];
    fleet.hub = Running::start(fleet.home.command(&words));
    fleet.hub.json_line();
    let machine = booted(&home, "second", 0);
    let attempts = |id: &str| {
        fleet.json(&["show", id])["attempts"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(fleet.run(&["wait", &ended]).code, 3);
    assert_eq!(attempts(&ended), 1);
    let asked = fleet.until(&ask, "needs_human");
    let why = asked["reason"].as_str().unwrap();
    assert!(why.contains("the machine was restarted"), "{asked}");
    fleet.until(&fail, "lost");
    eventually("what may run again does", || {
        (runs("retry").len() == 2).then_some(())
    });
    std::fs::write(folder.join("go-retry"), "").unwrap();
    assert_eq!(fleet.run(&["wait", &retry]).code, 0);
    assert_eq!(attempts(&retry), 2);
    let tokens = runs("retry");
    assert!(tokens[1] > tokens[0], "{tokens:?}");
    assert_eq!((runs("ask").len(), runs("fail").len()), (1, 1));
    // Its lease is of this boot, and so is the fence of what it runs.
    let status = home.json(&["agent", "status"]);
    assert_eq!(status["lease"], true, "{status}");
    let words = ["dispatch", "--on-lost", "retry", "--wait", "--", "true"];
    assert_eq!(fleet.run(&words).code, 0);
    let (_, events) = fleet.home.json_lines(&["flow", "--kind", "journal.void"]);
    assert_eq!(events, [] as [Value; 0]);
    drop(machine);
    until_off(&home);
}
