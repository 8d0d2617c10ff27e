//! A cable to another host: a network namespace and a pair of ends, one of which is taken down.

use std::process::{Child, Command, Stdio};

use crate::harness::{Ran, eventually};

/// The hub's address on the cable.
pub(crate) const HUB: &str = "10.231.7.1";
const FAR: &str = "10.231.7.2";

fn run(words: &[&str]) {
    let ran = Ran::of(Command::new(words[0]).args(&words[1..]));
    assert_eq!(ran.code, 0, "{words:?} (needs root): {ran:?}");
}

/// The cable, and a process that keeps the far host's namespace. All of it goes with that process
/// and the namespace of the test.
pub(crate) struct Cable {
    keeper: Child,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let cable = Self { keeper };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let pid = cable.keeper.id().to_string();
        eventually("the far host's namespace", || {
            let far = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
            (far != own).then_some(())
        });
        run(&["ip", "link", "set", "lo", "up"]);
        run(&[
            "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &pid,
        ]);
        run(&["ip", "address", "add", &format!("{HUB}/24"), "dev", "cable"]);
        run(&["ip", "link", "set", "cable", "up"]);
        cable.far(&["ip", "address", "add", &format!("{FAR}/24"), "dev", "cable"]);
        cable.far(&["ip", "link", "set", "lo", "up"]);
        cable.heal();
        cable
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.keeper.id())
    }

    fn far(&self, words: &[&str]) {
        run(&[&["nsenter", &self.namespace(), "--"], words].concat());
    }

    pub(crate) fn cut(&self) {
        self.far(&["ip", "link", "set", "cable", "down"]);
    }

    pub(crate) fn heal(&self) {
        self.far(&["ip", "link", "set", "cable", "up"]);
    }

    /// The same command on the far host. `nsenter` becomes it: its process is the command's.
    pub(crate) fn there(&self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there
            .arg(self.namespace())
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .current_dir(command.get_current_dir().unwrap());
        there
    }
}
