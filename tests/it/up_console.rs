//! The console of `fleet up`, on a real terminal: it shares its process with hub and agent, so it is
//! not suspended, and asks before it ends them.

use crate::console::Pane;
use crate::harness::{Home, eventually};

#[test]
fn it_is_not_suspended_and_asks_before_it_ends_hub_and_agent() {
    let home = Home::new();
    let pane = Pane::open(&home, &[]);
    let fleet = env!("CARGO_BIN_EXE_fleet");
    pane.line(&format!(
        "{fleet} up --name studio --listen 127.0.0.1:0; echo left $?"
    ));
    pane.until("LIVE");
    // It ends by itself, should this test fail.
    let script = "for i in $(seq 6000); do [ -e go ] && break; sleep 0.1; done; echo whole > end";
    let words = ["dispatch", "--shell", "--cwd", ".", "--", script];
    let id = home.run(&words).ok().to_owned();
    eventually("it runs", || {
        (home.json(&["show", &id])["state"] == "running").then_some(())
    });
    // The console has seen it: that is what it asks about.
    pane.until("1 running");
    pane.keys(&["C-z"]);
    pane.until("would stop: fleet up --detach, fleet tui");
    // Hub and agent answer: nothing is stopped.
    assert_eq!(home.json(&["show", &id])["state"], "running");
    pane.keys(&["q"]);
    pane.until("1 job runs: end hub and agent? y/N");
    pane.keys(&["n"]);
    pane.until("nothing was ended");
    assert_eq!(home.json(&["show", &id])["state"], "running");
    pane.keys(&["C-c"]);
    pane.until("1 job runs: end hub and agent? y/N");
    pane.keys(&["C-c"]);
    pane.until("1 job runs: end hub and agent? y/N");
    pane.keys(&["y"]);
    pane.until("studio is up");
    std::fs::write(home.user().join("work/go"), "").unwrap();
    pane.until("left 0");
    assert!(
        home.user().join("work/end").exists(),
        "the job ran to its end"
    );
}
