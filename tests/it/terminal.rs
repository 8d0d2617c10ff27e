//! On a terminal: what is escaped, what is coloured, what is asked. Each command gets a
//! pseudo-terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{DEADLINE, Fleet, signal_process};

/// A command on a terminal.
struct Typed {
    child: Child,
    keys: File,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Typed {
    fn start(mut command: Command, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let side = || -> Stdio {
            // Another test's command must not hold it either.
            let flags =
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
            let mode = rustix::fs::Mode::empty();
            let side: OwnedFd = rustix::fs::open(&name, flags, mode).unwrap();
            side.into()
        };
        let child = command
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        // The command must hold no side of the terminal once the child has them.
        drop(command);
        let mut keys = File::from(master);
        let mut reader = keys.try_clone().unwrap();
        let (send, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends, on Linux with an error, when the last process on it has ended.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        keys.flush().unwrap();
        Self {
            child,
            keys,
            screen,
            seen: String::new(),
        }
    }

    /// Waits until this is on the screen.
    fn until(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(e) => panic!("never {text:?} ({e}): {}", self.seen),
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        self.keys.write_all(line.as_bytes()).unwrap();
        self.keys.write_all(b"\n").unwrap();
    }

    /// Its exit code and all that was on the screen.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        while let Ok(bytes) = self.screen.recv() {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, std::mem::take(&mut self.seen))
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_jobs_control_sequences_are_shown_and_colours_pass() {
    let fleet = Fleet::up("studio", 1);
    let script = r"printf '\033[31mred\033[0m\t\033[2J\033]0;title\007done\n'";
    let id = fleet.dispatch(&["--shell", "--", script]);
    fleet.run(&["wait", &id]).ok();
    let logs = |words: &[&str]| {
        let typed = Typed::start(fleet.home.command(words), 80);
        let (code, screen) = typed.ended();
        assert_eq!(code, Some(0), "{screen}");
        screen
    };
    assert_eq!(
        logs(&["logs", &id]),
        "\u{1b}[31mred\u{1b}[0m\t\\x1b[2J\\x1b]0;title\\x07done\r\n"
    );
    let raw = logs(&["logs", "--raw", &id]);
    assert!(raw.contains("\u{1b}[2J\u{1b}]0;title\u{7}"), "{raw:?}");
    let jobs = logs(&["jobs"]);
    assert!(jobs.contains("\u{1b}[32msucceeded\u{1b}[0m"), "{jobs:?}");
    assert!(!jobs.contains("\u{1b}[2J"), "{jobs:?}");
    let narrow = Typed::start(fleet.home.command(&["--color", "never", "machines"]), 60);
    let (_, narrow) = narrow.ended();
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 60),
        "{narrow}"
    );
    let mut quiet = fleet.home.command(&["jobs"]);
    quiet.env("NO_COLOR", "1");
    let (_, quiet) = Typed::start(quiet, 80).ended();
    assert!(!quiet.contains('\u{1b}'), "{quiet:?}");
}

#[test]
fn a_person_is_asked_before_a_job_is_canceled() {
    let fleet = Fleet::up("studio", 1);
    let id = fleet.dispatch(&["--", "sleep", "600"]);
    fleet.until(&id, "running");
    let mut cancel = Typed::start(fleet.home.command(&["cancel", &id]), 80);
    cancel.until("[y/N]");
    cancel.type_line("n");
    assert_eq!(cancel.ended().0, Some(130));
    assert_eq!(fleet.job(&id)["cancel_requested"], false);
    let mut cancel = Typed::start(fleet.home.command(&["cancel", &id]), 80);
    cancel.until("[y/N]");
    cancel.type_line("y");
    assert_eq!(cancel.ended().0, Some(0));
    assert_eq!(fleet.run(&["wait", &id]).code, 130);
}

#[test]
fn ctrl_c_asks_whether_to_cancel_or_to_leave() {
    let fleet = Fleet::up("studio", 2);
    for (answer, state) in [("c", "canceled"), ("", "running")] {
        let words = ["dispatch", "--wait", "--", "sleep", "600"];
        let mut waiting = Typed::start(fleet.home.command(&words), 80);
        waiting.until("\r\n");
        // More may have come with it.
        let id = waiting.seen.lines().next().unwrap().trim().to_owned();
        fleet.until(&id, "running");
        signal_process(waiting.child.id(), Signal::INT);
        waiting.until("[c/L]");
        waiting.type_line(answer);
        assert_eq!(waiting.ended().0, Some(130));
        assert_eq!(fleet.job(&id)["state"], state);
    }
}

#[test]
fn the_console_of_up_ends_with_it() {
    let home = crate::harness::Home::new();
    let words = [
        "up",
        "--tether",
        "--name",
        "studio",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut up = Typed::start(home.command(&words), 100);
    up.until("studio is up");
    signal_process(up.child.id(), Signal::TERM);
    assert_eq!(up.ended().0, Some(0));
    assert_eq!(home.json(&["down"])["result"], "nothing_ran");
}

#[test]
fn the_first_ctrl_c_on_the_console_lets_jobs_end() {
    let home = crate::harness::Home::new();
    let words = [
        "up",
        "--tether",
        "--name",
        "studio",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut up = Typed::start(home.command(&words), 100);
    up.until("studio is up");
    // The console takes the screen over.
    up.until("\u{1b}[?1049h");
    let script = "while [ ! -e go ]; do sleep 0.05; done; echo whole > end";
    let words = ["dispatch", "--shell", "--cwd", ".", "--", script];
    let id = home.run(&words).ok().to_owned();
    crate::harness::eventually("it runs", || {
        (home.json(&["show", &id])["state"] == "running").then_some(())
    });
    signal_process(up.child.id(), Signal::INT);
    // The terminal is given back when the console has left.
    up.until("\u{1b}[?1049l");
    std::fs::write(home.user().join("work/go"), "").unwrap();
    let (code, screen) = up.ended();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("ending what runs now"), "{screen}");
    assert!(
        home.user().join("work/end").exists(),
        "the job ran to its end"
    );
}
