//! What went wrong in the systems that fleet grew out of, row by row, and the tests that would fail
//! if it went wrong here. Those that stand elsewhere are named in [`ROWS`], those that nobody else
//! had are below.

use serde_json::Value;

use crate::fleet::{Gate, freeze, kill, runs, thaw};
use crate::harness::{Fleet, Running, eventually};

/// What must hold, and which tests show it: file and name.
const ROWS: [(&str, &[(&str, &str)]); 9] = [
    (
        "a runner that is killed in a job is noticed in seconds; the job is run again or put to the \
         operator",
        &[
            (
                "faults.rs",
                "a_killed_executor_leaves_no_process_and_its_jobs_to_their_policy",
            ),
            (
                "faults.rs",
                "a_killed_agent_loses_neither_job_nor_output_nor_exit_status",
            ),
            (
                "faults.rs",
                "a_machine_that_is_gone_is_waited_for_and_then_replaced",
            ),
        ],
    ),
    (
        "after an outage every event and result reaches the hub, in order, once",
        &[
            (
                "spool.rs",
                "events_of_an_outage_arrive_once_and_in_order_though_the_agent_is_killed_in_it",
            ),
            (
                "spool.rs",
                "jobs_that_end_while_the_hub_is_away_are_told_with_all_they_wrote",
            ),
            (
                "moved.rs",
                "a_hub_that_was_moved_gets_everything_from_agents_that_were_given_its_new_address",
            ),
        ],
    ),
    (
        "a pin is honoured; an unknown machine is refused with the nearest names",
        &[
            ("agents.rs", "jobs_for_any_spread_and_pins_are_strict"),
            (
                "bad_input.rs",
                "what_the_fleet_does_not_have_is_refused_with_what_it_has",
            ),
        ],
    ),
    (
        "every end is reported to whoever waits",
        &[
            (
                "promises.rs",
                "every_kind_of_end_is_reported_to_whoever_waits",
            ),
            (
                "endings.rs",
                "a_waiting_dispatch_is_told_each_kind_of_end_at_once",
            ),
        ],
    ),
    (
        "after a time-out the whole process group is gone, and that is verified",
        &[
            (
                "endings.rs",
                "after_a_time_out_nothing_that_the_job_started_is_left",
            ),
            (
                "endings.rs",
                "after_a_cancel_nothing_that_the_job_started_is_left",
            ),
        ],
    ),
    (
        "one holder per fencing token, whatever the clocks say",
        &[
            (
                "superseded.rs",
                "a_frozen_machine_that_ran_on_is_told_of_until_somebody_acknowledges_it",
            ),
            (
                "damage.rs",
                "an_older_copy_of_the_whole_hub_is_found_out_by_what_an_agent_has_seen",
            ),
        ],
    ),
    (
        "every fact on the screen carries its age; a lost link looks lost",
        &[(
            "console.rs",
            "the_console_says_what_the_hub_does_and_misses_nothing",
        )],
    ),
    (
        "agents advertise what they measured; the same facts route, explain and display",
        &[(
            "promises.rs",
            "what_a_machine_measured_is_what_routes_and_what_is_shown",
        )],
    ),
    (
        "bytes in, bytes out; every buffer bounded, every drop counted and shown",
        &[
            ("bytes.rs", "every_byte_passes_on_both_streams"),
            ("bytes.rs", "a_hundred_megabytes_arrive_as_they_were"),
            (
                "promises.rs",
                "output_over_its_limit_is_counted_and_shown_and_the_rest_is_whole",
            ),
        ],
    ),
];

#[test]
fn every_row_has_its_tests() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for (row, tests) in ROWS {
        for (file, name) in tests {
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            let test = format!("#[test]\nfn {name}() {{");
            assert!(text.contains(&test), "{row}: no test {name} in {file}");
        }
    }
}

#[test]
fn every_kind_of_end_is_reported_to_whoever_waits() {
    let fleet = Fleet::of(&[("studio", 4)]);
    let gate = Gate::new();
    let script = format!(
        "echo > {}; {}",
        gate.file("$FLEET_JOB").display(),
        gate.wait("never")
    );
    let wait = |words: &[&str]| {
        let words = [&["--json", "dispatch", "--wait"], words].concat();
        let waits = Running::start(fleet.home.command(&words));
        let id = waits.json_line()["id"].as_str().unwrap().to_owned();
        (waits, id)
    };
    let started = |id: &str| {
        eventually("it runs", || gate.file(id).exists().then_some(()));
    };
    let ends = |(mut waits, id): (Running, String), state: &str, code: u8| {
        let end = waits.json_line();
        assert_eq!(
            (&end["id"], &end["state"]),
            (&id.into(), &state.into()),
            "{end}"
        );
        assert_eq!(waits.ended(), code, "{end}");
    };
    ends(wait(&["--", "true"]), "succeeded", 0);
    ends(wait(&["--shell", "--", "exit 7"]), "failed", 7);
    ends(wait(&["--shell", "--", "kill -9 $$"]), "failed", 137);
    ends(
        wait(&["--timeout", "200ms", "--", "sleep", "600"]),
        "timed_out",
        124,
    );
    ends(wait(&["--", "/no/such/command"]), "rejected", 75);
    let late = [
        "--queue-anyway",
        "--on",
        "nobody",
        "--expires",
        "300ms",
        "--",
        "true",
    ];
    ends(wait(&late), "expired", 75);
    let canceled = wait(&["--shell", "--", &script]);
    started(&canceled.1);
    fleet.run(&["cancel", "--yes", &canceled.1]).ok();
    ends(canceled, "canceled", 130);
    let lost = wait(&["--on-lost", "fail", "--shell", "--", &script]);
    let asks = wait(&["--shell", "--", &script]);
    started(&lost.1);
    started(&asks.1);
    kill(fleet.agents[0].executor());
    ends(lost, "lost", 75);
    ends(asks, "needs_human", 75);
}

#[test]
fn what_a_machine_measured_is_what_routes_and_what_is_shown() {
    let mut fleet = Fleet::of(&[("ada", 3)]);
    fleet.add_agent("bob", &["--slots", "1", "--label", "room=attic"]);
    let cores = std::thread::available_parallelism().unwrap().get();
    let ada = fleet.machine("ada").unwrap();
    assert_eq!(
        (&ada["slots"], &ada["cores"]),
        (&3.into(), &cores.into()),
        "{ada}"
    );
    assert_eq!(ada["os"], std::env::consts::OS);
    assert_eq!(ada["arch"], std::env::consts::ARCH);
    assert_eq!(fleet.machine("bob").unwrap()["labels"]["room"], "attic");
    // Asked at once, each says what it has advertised.
    let deep = eventually("both have answered", || {
        let machines = fleet.json(&["machines", "--deep"]);
        let machines = machines.as_array().unwrap().clone();
        let all = machines.iter().all(|m| m["probe"] == "answered");
        (all && machines.len() == 2).then_some(machines)
    });
    for told in &deep {
        let known = fleet.machine(told["machine"].as_str().unwrap()).unwrap();
        for fact in [
            "slots",
            "cores",
            "mem_total",
            "os",
            "os_version",
            "arch",
            "labels",
        ] {
            assert_eq!(told[fact], known[fact], "{fact}");
        }
    }
    // What is advertised is what is given out: so many at once and no more.
    let gate = Gate::new();
    let held = gate.wait("go");
    fleet.dispatch(&["--count", "6", "--shell", "--", &held]);
    let running = fleet.until_count(4, "running");
    let on = |name: &str| running.iter().filter(|job| job["machine"] == name).count();
    assert_eq!((on("ada"), on("bob")), (3, 1));
    eventually("the slots that are used are shown", || {
        let used = |name: &str| fleet.machine(name).map(|m| m["slots_used"].clone());
        (used("ada") == Some(3.into()) && used("bob") == Some(1.into())).then_some(())
    });
    fleet.until_count(2, "queued");
    gate.open("go");
    fleet.until_count(6, "succeeded");
    // One that is not there is not said to be ready, and everybody says so with the same word.
    let bob = fleet.take("bob");
    assert_eq!(bob.process.stop(), 0);
    let state = fleet.machine("bob").unwrap()["state"].clone();
    let explained = fleet.json(&["dispatch", "--dry-run", "--", "true"]);
    assert_eq!(explained["ready"], Value::from(vec!["ada"]), "{explained}");
    assert_eq!(explained["away"][0]["machine"], "bob", "{explained}");
    assert_eq!(explained["away"][0]["state"], state, "{explained}");
    let pinned = fleet.run(&["dispatch", "--on", "bob", "--", "true"]);
    let expected = format!("bob is {}", state.as_str().unwrap());
    assert!(pinned.err.contains(&expected), "{pinned:?}");
}

#[test]
fn output_over_its_limit_is_counted_and_shown_and_the_rest_is_whole() {
    let fleet = Fleet::of(&[("studio", 1)]);
    std::fs::write(
        fleet.home.fleet().join("config.toml"),
        "log_keep = \"64KiB\"\n",
    )
    .unwrap();
    let gate = Gate::new();
    let script = format!(
        "echo $$ >> {}; {}; yes 0123456789abcde | head -c 3200000",
        gate.file("ran").display(),
        gate.wait("go")
    );
    let id = fleet.dispatch(&["--shell", "--", &script]);
    let pid = gate.until_lines("ran", 1)[0].parse().unwrap();
    // While nothing is sent, what is over the limit has nowhere to go.
    let agent = fleet.agents[0].process.pid();
    freeze(agent);
    gate.open("go");
    eventually("it has ended", || (!runs(pid)).then_some(()));
    thaw(agent);
    let job = fleet.until(&id, "succeeded");
    let stdout = &job["attempts"][0]["output"]["stdout"];
    assert_eq!(stdout["bytes"], 3_200_000, "{job}");
    let dropped = stdout["dropped"].as_u64().unwrap();
    let left = usize::try_from(3_200_000 - dropped).unwrap();
    assert!(dropped > 3_000_000 && left > 0, "{job}");
    let ran = eventually("all that was kept is there", || {
        let ran = fleet.run(&["logs", &id]);
        (ran.code == 0 && ran.bytes.len() >= left).then_some(ran)
    });
    // What was on its way when it was thrown away there came after all: here it is no loss.
    let missing = 3_200_000 - ran.bytes.len();
    assert!(u64::try_from(missing).unwrap() <= dropped, "{job}");
    let whole = "0123456789abcde\n".repeat(200_000);
    assert!(
        whole.as_bytes().ends_with(&ran.bytes),
        "the last of it, whole"
    );
    let told = format!("{missing} bytes dropped");
    assert!(
        ran.err.contains(&told),
        "each byte is here or told as gone: {}",
        ran.err
    );
    assert!(ran.err.contains("missing here"), "{}", ran.err);
    let shown = fleet.run(&["show", &id]);
    assert!(shown.ok().contains("dropped"), "{shown:?}");
}
