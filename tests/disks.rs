//! What needs a disk of its own, and so Linux and root: a hub whose store fills a small one.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "it/harness.rs"]
#[allow(dead_code, reason = "the whole of it is used by the other tests")]
mod harness;

use harness::{Home, Ran, Running, eventually};

/// A small disk; gone when dropped, however the test ends.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let ran = Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(at),
        );
        assert_eq!(ran.code, 0, "mount (needs root): {ran:?}");
        Self(at.to_owned())
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![7; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root and Linux: .ci/run namespaces"]
fn a_full_disk_is_said_and_when_there_is_room_nothing_acknowledged_is_lost() {
    let home = Home::new();
    let disk = Disk::new(&home.fleet().join("hub"), "64m");
    let hub = Running::start(home.command(&[
        "--json",
        "hub",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tether",
    ]));
    let ready = hub.json_line();
    assert_eq!(ready["event"], "ready", "{ready}");
    let creds = home.user().join("studio.creds");
    let file = creds.to_str().unwrap();
    home.run(&["hub", "credentials", "--machine", "studio", "--out", file])
        .ok();
    let other = Home::new();
    let agent = Running::start(other.command(&[
        "--json",
        "agent",
        "run",
        "--tether",
        "--slots",
        "4",
        "--credentials",
        file,
    ]));
    assert_eq!(agent.json_line()["machine"], "studio");
    eventually("the agent is in service", || {
        let machines = home.json(&["machines"]);
        (!machines.as_array().unwrap().is_empty()).then_some(())
    });
    let before = home.run(&["dispatch", "--count", "20", "--", "sleep", "3"]);
    let mut acknowledged: Vec<String> = before.ok().lines().map(str::to_owned).collect();
    disk.fill();
    // What is still acknowledged has to hold, whatever it is.
    let refused = eventually("a dispatch is not acknowledged", || {
        let ran = home.run(&["dispatch", "--shell", "--", "seq 20000"]);
        if ran.code == 0 {
            acknowledged.push(ran.ok().to_owned());
            return None;
        }
        Some(ran)
    });
    assert_ne!(refused.code, 0);
    eventually("the hub says so", || {
        let said = hub.errors();
        (said.contains("a stream takes nothing") && said.contains("bytes left")).then_some(())
    });
    disk.free();
    for id in &acknowledged {
        let ran = home.run(&["wait", "--timeout", "60s", id]);
        assert_eq!(ran.code, 0, "{id}: {ran:?} {}", hub.errors());
    }
    let restarts = home
        .json_lines(&["flow", "--kind", "hub.server_restarted"])
        .1;
    assert!(
        restarts.iter().any(|e| e["data"]["detail"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("disk was full"))),
        "{restarts:?}"
    );
    eventually("it is well again", || {
        let status = home.json(&["hub", "status"]);
        status["troubles"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    assert!(
        home.json_lines(&["flow", "--kind", "hub.damaged"])
            .1
            .is_empty()
    );
    assert_eq!(home.run(&["dispatch", "--wait", "--", "true"]).code, 0);
}
