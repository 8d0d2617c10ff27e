//! A console that panics gives the terminal back, and what it says about it can be read. On a real
//! terminal, in a tmux of its own; without tmux it fails.

#![expect(
    clippy::expect_used,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fleet_tui::{ConsoleStyle, Motion, demo};

const DEADLINE: Duration = Duration::from_secs(60);

/// A tmux that ends with the test.
struct Server(tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.0.path().join("s"));
        let _ = command.arg("kill-server").output();
    }
}

fn tmux(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new("tmux");
    command.arg("-S").arg(folder.join("s")).args(words);
    let out = command.output().expect("tmux is needed");
    assert!(out.status.success(), "{words:?}: {out:?}");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn until<T>(what: &str, folder: &Path, ask: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        let late = Instant::now() > deadline;
        assert!(
            !late,
            "never {what}:\n{}",
            tmux(folder, &["capture-pane", "-p"])
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn stty(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    let path = file.to_str().expect("a path of letters");
    let line = format!("stty -a > {path}.new; mv {path}.new {path}");
    tmux(folder, &["send-keys", "--", &line, "C-j"]);
    until("stty has said", folder, || {
        std::fs::read_to_string(&file).ok()
    })
}

/// No test of its own: the console that panics, started by the test below.
#[tokio::test]
#[ignore = "started by the other test, in a terminal"]
async fn play() {
    let style = ConsoleStyle {
        colour: true,
        ascii: false,
        plain: false,
        motion: Motion::Full,
        mouse: true,
    };
    let left = demo::run(style, "panic").await;
    panic!("the console was left: {left:?}");
}

#[test]
fn the_terminal_is_given_back_after_a_panic() {
    let server = Server(tempfile::tempdir().expect("a folder"));
    let folder = server.0.path();
    let new = [
        "-u",
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-x",
        "120",
        "-y",
        "30",
        "sh",
    ];
    tmux(folder, &new);
    let before = stty(folder, "before");
    let me = std::env::current_exe().expect("this test");
    let line = format!(
        "RUST_BACKTRACE=0 {} --ignored --exact play --nocapture; echo left $?",
        me.display()
    );
    tmux(folder, &["send-keys", "--", &line, "C-j"]);
    let screen = || tmux(folder, &["capture-pane", "-p"]);
    until("the console", folder, || {
        screen().contains("LIVE").then_some(())
    });
    // Opens a job: that is what it panics at.
    tmux(folder, &["send-keys", "--", "2", "Enter"]);
    let text = until("its end", folder, || {
        Some(screen()).filter(|s| s.contains("left 101"))
    });
    assert!(text.contains("as asked"), "{text}");
    let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag}";
    assert_eq!(tmux(folder, &["display-message", "-p", modes]), "0 1 0");
    assert_eq!(stty(folder, "after"), before);
}
