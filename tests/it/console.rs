//! The console on a real terminal, before a real hub: what is on the screen while the hub freezes,
//! dies and comes back, and how the terminal is left. Each test has a tmux of its own; without tmux
//! they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleet_nats::bus::Store;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fleet::HubEnd;
use crate::harness::{DEADLINE, Fleet, Home, Ran, eventually, signal_process};

/// A shell in a pane.
pub(crate) struct Pane {
    socket: tempfile::TempDir,
}

impl Pane {
    /// A shell with the environment of this home, and these variables too.
    pub(crate) fn open(home: &Home, extra: &[(&str, &str)]) -> Self {
        let socket = tempfile::Builder::new().prefix("fl").tempdir().unwrap();
        let pane = Self { socket };
        let typed = home.command::<&str>(&[]);
        let mut environment: BTreeMap<String, String> = typed
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_str()?.into(), value?.to_str()?.into())))
            .collect();
        environment.insert("PS1".into(), "$ ".into());
        environment.insert("LC_ALL".into(), "C.UTF-8".into());
        for (name, value) in extra {
            environment.insert((*name).into(), (*value).into());
        }
        let mut command = pane.command(&["-u", "-f", "/dev/null", "new-session", "-d"]);
        // The server passes its own environment on, and sets TERM itself.
        let term = environment.remove("TERM");
        command.env_clear().envs(&environment).env("TERM", "screen");
        command.args(["-x", "120", "-y", "36"]);
        let shell = match term {
            Some(term) => format!("TERM={term} exec sh"),
            None => "exec sh".to_owned(),
        };
        command.arg(shell).current_dir(home.user().join("work"));
        Ran::of(&mut command).ok();
        pane.until("$");
        pane
    }

    /// One with the console on it.
    fn console(fleet: &Fleet, flags: &str) -> Self {
        let pane = Self::open(&fleet.home, &[]);
        pane.start(flags);
        pane.until("LIVE");
        pane
    }

    fn start(&self, flags: &str) {
        let fleet = env!("CARGO_BIN_EXE_fleet");
        self.line(&format!("{fleet} tui {flags}; echo left $?"));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(self.socket.path().join("s"))
            .args(words);
        command
    }

    fn tmux(&self, words: &[&str]) -> String {
        Ran::of(&mut self.command(words)).ok().to_owned()
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "--"], keys].concat());
    }

    pub(crate) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
        // What Enter sends is no end of a line to a terminal that the console left raw.
        self.keys(&["C-j"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with its colours and attributes.
    fn looks(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until this is on the screen; the screen.
    pub(crate) fn until(&self, text: &str) -> String {
        self.until_that(text, |screen| screen.contains(text))
    }

    fn until_that(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never {what:?}:\n{screen}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// The modes of the terminal.
    fn modes(&self) -> String {
        self.tmux(&[
            "display-message",
            "-p",
            "alternate #{alternate_on} cursor #{cursor_flag} mouse #{mouse_any_flag}",
        ])
    }

    /// What `stty -a` says; the shell has to be in front.
    fn stty(&self, name: &str) -> String {
        let file = self.socket.path().join(name);
        let path = file.to_str().unwrap();
        self.line(&format!("stty -a > {path}.new; mv {path}.new {path}"));
        eventually("stty has said", || std::fs::read_to_string(&file).ok())
    }

    /// The process that the shell waits for.
    fn child(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        eventually("the shell has a child", || {
            let found = Ran::of(Command::new("pgrep").args(["-P", &shell]));
            found.out.lines().next().and_then(|pid| pid.parse().ok())
        })
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

/// The letter of a process's state; none where there is no such process.
fn process_state(process: u32) -> String {
    let mut ps = Command::new("ps");
    ps.args(["-o", "state=", "-p", &process.to_string()]);
    Ran::of(&mut ps).out.trim().to_owned()
}

fn is_stopped(process: u32) -> bool {
    process_state(process).starts_with('T')
}

const GIVEN_BACK: &str = "alternate 0 cursor 1 mouse 0";
const TAKEN: &str = "alternate 1 cursor 0 mouse 1";

#[test]
fn who_may_only_look_sees_all_and_changes_nothing() {
    let fleet = Fleet::up("studio", 1);
    let id = fleet.dispatch(&["--", "true"]);
    fleet.until(&id, "succeeded");
    let file = fleet.home.user().join("vera.creds");
    let file = file.to_str().unwrap();
    let written = fleet
        .home
        .json(&["hub", "credentials", "--viewer", "vera", "--out", file]);
    assert_eq!(written["viewer"], "vera");

    // Another computer, which has nothing but this file.
    let home = Home::new();
    let with = |words: &[&str]| home.run(&[&["--credentials", file], words].concat());
    assert!(with(&["jobs"]).ok().contains("succeeded"));
    assert_eq!(with(&["logs", &id]).code, 0);
    for words in [&["dispatch", "--", "true"][..], &["cancel", "--yes", &id]] {
        let refused = with(words);
        assert_eq!(refused.code, 77, "{refused:?}");
        assert!(refused.err.contains("viewer \"vera\""), "{refused:?}");
    }
    let agent = with(&["agent", "run", "--name", "mini"]);
    assert_eq!(agent.code, 78, "{agent:?}");
    assert!(!agent.err.contains("--name vera"), "{agent:?}");
    let pane = Pane::open(&home, &[]);
    pane.start(&format!("--credentials {file}"));
    pane.until("READ-ONLY");
    pane.until("studio");
}

#[test]
fn the_console_says_what_the_hub_does_and_misses_nothing() {
    let mut fleet = Fleet::of(&[("studio", 2)]);
    fleet
        .run(&["dispatch", "--wait", "--name", "first", "--", "true"])
        .ok();
    let pane = Pane::console(&fleet, "");
    pane.until("first");

    let server = fleet.server();
    signal_process(server, Signal::STOP);
    let frozen = pane.until("NO ANSWER");
    assert!(
        frozen.contains("AS OF") && frozen.contains("first"),
        "{frozen}"
    );
    signal_process(server, Signal::CONT);
    pane.until("LIVE");

    fleet.without_hub(HubEnd::Killed, |_| {
        let down = pane.until_that("down, and when it tries again", |screen| {
            screen.contains("BUS DOWN") && screen.contains("try ")
        });
        assert!(down.contains("AS OF") && down.contains("first"), "{down}");
        assert!(down.contains("bus down after record"), "{down}");
    });
    let words = [
        "dispatch", "--wait", "--count", "5", "--name", "second", "--", "true",
    ];
    fleet.run(&words).ok();
    pane.until("LIVE");
    pane.keys(&["4"]);
    pane.until("backfilled: none lost");
    let jobs = fleet.json(&["jobs", "--limit", "0"]);
    assert_eq!(jobs.as_array().unwrap().len(), 6);
    pane.until("Dispatches 6");
    pane.keys(&["q"]);
    pane.until("left 0");
}

#[test]
fn what_was_purged_while_the_console_could_not_read_is_told_as_lost() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    fleet.run(&["dispatch", "--wait", "--", "true"]).ok();
    let pane = Pane::console(&fleet, "");
    pane.until("succeeded");
    let console = pane.child();
    signal_process(console, Signal::STOP);
    fleet.without_hub(HubEnd::Killed, |_| {});
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        for _ in 0..25 {
            let subject = "fleet.flow.nobody.thing.happened";
            let bytes = Bytes::from_static(b"{}");
            bus.store(subject, bytes, &Store::default()).await.unwrap();
        }
        bus.purge("FLOW", "fleet.flow.>", None).await.unwrap();
    });
    pane.line("fg");
    let screen = pane.until("LOST ");
    assert!(screen.contains(" ev seq "), "{screen}");
    let screen = pane.until("LIVE");
    assert!(screen.contains("lost "), "{screen}");
}

#[test]
fn a_machine_that_is_killed_is_lost_at_once() {
    let mut fleet = Fleet::of(&[("ada", 1)]);
    // Its connection tells: three beats that it misses take longer than this waits for anything.
    fleet.add_agent_that_beats("bob", "60s");
    let pane = Pane::console(&fleet, "");
    pane.until_that("both are there", |s| s.contains("ada") && s.contains("bob"));
    let agent = fleet.take("bob");
    let _home = agent.kill();
    pane.until("1 machine lost");
}

#[test]
fn a_terminal_that_is_resized_in_a_storm_shows_the_whole_in_the_end() {
    let fleet = Fleet::of(&[("studio", 1)]);
    fleet
        .run(&["dispatch", "--wait", "--name", "kept", "--", "true"])
        .ok();
    let pane = Pane::console(&fleet, "");
    let sizes = [
        (1, 1),
        (20, 5),
        (200, 60),
        (40, 10),
        (7, 50),
        (90, 2),
        (80, 24),
    ];
    for (columns, rows) in sizes.into_iter().cycle().take(42) {
        pane.resize(columns, rows);
    }
    pane.resize(1, 1);
    pane.until_that("one cell", |screen| screen.trim().chars().count() <= 1);
    pane.resize(120, 36);
    let screen = pane.until_that("everything again", |screen| {
        screen.contains("LIVE") && screen.contains("kept") && screen.contains("studio")
    });
    assert_eq!(screen.matches("LIVE").count(), 1, "{screen}");
    pane.keys(&["q"]);
    pane.until("left 0");
}

#[test]
fn it_is_suspended_and_goes_on_and_the_terminal_is_as_it_was() {
    let fleet = Fleet::of(&[("studio", 1)]);
    let pane = Pane::open(&fleet.home, &[]);
    let before = pane.stty("before");
    pane.start("");
    pane.until("LIVE");
    assert_eq!(pane.modes(), TAKEN);

    // The key, and the signal from elsewhere.
    let console = pane.child();
    for way in 0..2 {
        if way == 0 {
            pane.keys(&["C-z"]);
        } else {
            signal_process(console, Signal::TSTP);
        }
        // Until then the console could still take what is typed.
        eventually("it is stopped", || is_stopped(console).then_some(()));
        eventually("the shell is in front", || {
            (pane.modes() == GIVEN_BACK).then_some(())
        });
        assert_eq!(pane.stty(&format!("suspended{way}")), before);
        pane.line("echo meanwhile");
        pane.until("meanwhile");
        pane.line("fg");
        let screen = pane.until("LIVE");
        assert!(!screen.contains("meanwhile"), "{screen}");
        eventually("it has the terminal", || {
            (pane.modes() == TAKEN).then_some(())
        });
        // What the person does arrives again.
        pane.keys(&["2"]);
        pane.until("[2 Dispatches");
        pane.keys(&["1"]);
        pane.until("[1 Fleet");
    }

    // Stopped by force: nobody could give the terminal back, but going on mends it.
    signal_process(console, Signal::STOP);
    eventually("it is stopped", || is_stopped(console).then_some(()));
    pane.line("printf scribble");
    pane.until("scribble");
    pane.line("fg");
    pane.until_that("whole again", |screen| {
        screen.contains("LIVE") && !screen.contains("scribble")
    });
    pane.keys(&["q"]);
    eventually("it has left", || {
        process_state(console).is_empty().then_some(())
    });
    assert_eq!(pane.modes(), GIVEN_BACK);
    assert_eq!(pane.stty("after"), before);
}

#[test]
fn every_way_out_leaves_the_terminal_as_it_was() {
    let fleet = Fleet::of(&[("studio", 1)]);
    let pane = Pane::open(&fleet.home, &[]);
    let before = pane.stty("before");
    for (no, (signal, code)) in [
        (Signal::TERM, "left 143"),
        (Signal::HUP, "left 129"),
        (Signal::INT, "left 130"),
    ]
    .into_iter()
    .enumerate()
    {
        pane.line("clear");
        pane.start("");
        pane.until("LIVE");
        signal_process(pane.child(), signal);
        pane.until(code);
        assert_eq!(pane.modes(), GIVEN_BACK);
        assert_eq!(pane.stty(&format!("signal{no}")), before);
    }
    // Q keeps the last frame where the person can scroll back to it.
    pane.line("clear");
    pane.start("");
    pane.until("LIVE");
    pane.keys(&["Q"]);
    let screen = pane.until("left 0");
    assert!(screen.contains("studio"), "{screen}");
    assert_eq!(pane.modes(), GIVEN_BACK);
    assert_eq!(pane.stty("kept"), before);
}

#[test]
fn a_terminal_that_goes_away_ends_the_console_even_where_no_signal_says_so() {
    let fleet = Fleet::of(&[("studio", 1)]);
    // It is nobody's controlling terminal, so nobody is sent a signal.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    // A process that another test starts at this moment must not hold it.
    #[cfg(target_os = "linux")]
    let flags = flags | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let side = || -> Stdio {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        rustix::fs::open(&name, flags, Mode::empty())
            .unwrap()
            .into()
    };
    let mut command = fleet.home.command(&["tui"]);
    command.env("TERM", "xterm").stdin(side()).stdout(side());
    let mut console = command.stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut screen = File::from(master);
    let mut seen = Vec::new();
    let live = |seen: &[u8]| String::from_utf8_lossy(seen).contains("LIVE");
    while !live(&seen) {
        let mut buffer = [0; 4096];
        let count = screen.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    drop(screen);
    let status = eventually("it has ended", || console.try_wait().unwrap());
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
}

/// The codes of all looks on a screen.
fn codes(looks: &str) -> BTreeSet<String> {
    let sequences = looks
        .split("\u{1b}[")
        .filter_map(|rest| rest.split_once('m'));
    let codes = sequences.flat_map(|(codes, _)| codes.split(';'));
    codes.map(str::to_owned).collect()
}

#[test]
fn colours_glyphs_and_plain_lines_are_as_the_environment_wants() {
    let fleet = Fleet::of(&[("studio", 1)]);
    fleet
        .run(&["dispatch", "--wait", "--name", "unit", "--", "true"])
        .ok();
    // Of a palette, or one of the 16.
    let coloured = |looks: &str| {
        let mut all = (30..39).chain(90..98).map(|code: u8| code.to_string());
        all.any(|code| codes(looks).contains(&code))
    };

    let pane = Pane::console(&fleet, "");
    pane.until("unit");
    assert!(coloured(&pane.looks()));
    drop(pane);

    let pane = Pane::open(&fleet.home, &[("NO_COLOR", "1")]);
    pane.start("--ascii");
    pane.until("unit");
    let looks = pane.looks();
    assert!(
        !coloured(&looks) && codes(&looks).contains("7"),
        "{looks:?}"
    );
    assert!(looks.is_ascii(), "{looks}");
    drop(pane);

    // A terminal that can do nothing gets lines.
    let pane = Pane::open(&fleet.home, &[("TERM", "dumb")]);
    pane.start("");
    pane.until("live: ");
    assert_eq!(pane.modes(), GIVEN_BACK);
    drop(pane);

    let mut plain = fleet.home.command(&["--plain", "tui"]);
    plain.env("TERM", "xterm");
    let plain = crate::harness::Running::start(plain);
    let done = plain.line();
    assert!(done.starts_with("reading fleet"), "{done}");
    let state = plain.line();
    assert!(
        state.contains("live: ") && !state.contains('\u{1b}'),
        "{state}"
    );
    fleet
        .run(&["dispatch", "--wait", "--name", "news", "--", "true"])
        .ok();
    eventually("the news is told", || {
        plain.line().contains("news").then_some(())
    });
}
