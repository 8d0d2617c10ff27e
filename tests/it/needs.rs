//! Jobs that need something: which machine takes them, what is refused and explained with which
//! words, what is held while they run.

use fleet_nats::bus::Bus;
use serde_json::Value;

use crate::fleet::Gate;
use crate::harness::{Fleet, eventually, lines};

/// Three machines that differ by their labels.
fn fleet() -> Fleet {
    let mut fleet = Fleet::hub_alone();
    for (name, words) in [
        (
            "ada",
            &[
                "--slots",
                "1",
                "--label",
                "site=ams",
                "--label",
                "disk=fast",
            ][..],
        ),
        ("bob", &["--slots", "1", "--label", "site=fra"]),
        ("cy", &["--slots", "1"]),
    ] {
        fleet.add_agent(name, words);
    }
    fleet
}

fn standing<'a>(explained: &'a Value, machine: &str) -> &'a Value {
    let machines = explained.get("machines").or(explained.get("candidates"));
    let machines = machines.unwrap().as_array().unwrap();
    machines.iter().find(|m| m["machine"] == machine).unwrap()
}

#[test]
fn a_job_runs_where_what_it_needs_is_and_nowhere_else() {
    let fleet = fleet();
    for (needs, machines) in [
        (&["site=ams"][..], &["ada"][..]),
        (&["disk=fast,site=ams", "cores>=1"], &["ada"]),
        (&["site=fra"], &["bob"]),
        (&["mem>=1MiB"], &["ada", "bob", "cy"]),
        (&[], &["ada", "bob", "cy"]),
    ] {
        let mut words = vec!["--count", "6", "--wait"];
        words.extend(needs.iter().flat_map(|n| ["--needs", *n]));
        words.extend(["--", "true"]);
        fleet.dispatch(&words);
        let jobs = fleet.json(&["jobs", "--limit", "6"]);
        for job in jobs.as_array().unwrap() {
            let on = job["machine"].as_str().unwrap();
            assert!(machines.contains(&on), "{needs:?}: {job}");
            assert_eq!(job["state"], "succeeded", "{job}");
        }
    }
    // The same set in other words is the same lane.
    let lane = |needs: &str| {
        let id = fleet.dispatch(&["--needs", needs, "--", "true"]);
        fleet.job(&id)["lane"].clone()
    };
    assert_eq!(
        lane("site=ams,mem>=1GiB"),
        lane("ram >= 1024MiB, Site=ams , mem>=1MiB")
    );
    // What runs on a pin alone is checked too.
    let ran = fleet.run(&[
        "dispatch", "--on", "ada", "--needs", "site=ams", "--wait", "--", "true",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // A machine that comes later pulls from lanes that are there, and is told of those that come.
    let mut fleet = fleet;
    let early = fleet.dispatch(&["--queue-anyway", "--needs", "site=lon", "--", "true"]);
    fleet.add_agent("dee", &["--label", "site=lon", "--label", "new=1"]);
    assert_eq!(fleet.until(&early, "succeeded")["machine"], "dee");
    let late = fleet.dispatch(&["--needs", "new=1", "--", "true"]);
    assert_eq!(fleet.until(&late, "succeeded")["machine"], "dee");
}

#[test]
fn nobody_who_could_is_refused_with_the_nearest_misses() {
    let mut fleet = fleet();
    let refused = fleet.run(&["dispatch", "--needs", "site=ams,gpu,docker", "--", "true"]);
    assert_eq!(refused.code, 75, "{refused:?}");
    for part in [
        "no machine has what this needs; ada: gpu: it has 0 (",
        " ago), and lacks 1 more; bob: gpu: it has 0 (",
        "and lacks 2 more",
        "--queue-anyway",
    ] {
        assert!(refused.err.contains(part), "{part}: {refused:?}");
    }
    let json = fleet.run(&["--json", "dispatch", "--needs", "docker", "--", "true"]);
    let error = &lines(&json.err)[0]["error"];
    assert_eq!(error["exit_code"], 75, "{error}");

    // A pin is strict: it is that machine, and it has what is needed.
    let pinned = fleet.run(&[
        "dispatch", "--on", "bob", "--needs", "site=ams", "--", "true",
    ]);
    assert_eq!(pinned.code, 75, "{pinned:?}");
    assert!(
        pinned.err.contains("bob: site=ams: it is fra ("),
        "{pinned:?}"
    );
    assert!(!pinned.err.contains("ada"), "{pinned:?}");

    // Queued in spite of it, it waits and says for what.
    let words = [
        "dispatch",
        "--queue-anyway",
        "--needs",
        "docker",
        "--",
        "true",
    ];
    let queued = fleet.run(&words);
    assert!(
        queued
            .err
            .contains("queued, nobody takes it now: no machine has what it needs (docker)"),
        "{queued:?}"
    );
    let id = queued.ok();
    let explained = fleet.run(&["explain", id]);
    for part in [
        "needs    docker",
        "for a machine that has what it needs",
        "no: docker: it has none",
    ] {
        assert!(explained.ok().contains(part), "{part}: {explained:?}");
    }
    fleet.run(&["cancel", "--yes", id]).ok();

    // Those that could are away: queued, and says so.
    assert_eq!(fleet.take("ada").process.stop(), 0);
    let away = fleet.run(&["dispatch", "--needs", "site=ams", "--", "true"]);
    assert!(
        away.err
            .contains("queued, nobody takes it now: ada is offline"),
        "{away:?}"
    );
    let explained = fleet.json(&["explain", away.ok()]);
    assert_eq!(
        standing(&explained, "ada")["standing"],
        "away",
        "{explained}"
    );
    let bob = standing(&explained, "bob");
    assert_eq!(
        (&bob["standing"], &bob["need"], &bob["found"]["value"]),
        (&"lacks".into(), &"site=ams".into(), &"fra".into()),
        "{explained}"
    );
    assert!(bob["age_ms"].is_u64(), "{explained}");
    assert_eq!(
        standing(&explained, "cy")["found"]["kind"],
        "nothing",
        "{explained}"
    );
}

#[test]
fn what_is_typed_wrong_is_refused_with_what_to_type() {
    let fleet = Fleet::up("studio", 1);
    for (words, code, part) in [
        (
            &["--needs", "node>20"][..],
            64,
            "--needs: cannot read requirement \"node>20\" at character 5: the operators are = >= < and @: type node>=20, or node@20",
        ),
        (&["--needs", ""], 64, "nothing is there"),
        (&["--needs", "mem>=16"], 64, "type mem>=16GiB"),
        (
            &["--needs", "os=macos", "--needs", "os=linux"],
            64,
            "drop it, or os=macos",
        ),
        (&["--prefer", "Studio"], 64, "or give a label as NAME=VALUE"),
        (
            &["--prefer", "studoi"],
            75,
            "cannot prefer: no machine \"studoi\": the nearest is studio",
        ),
        (
            &["--prefer", "site=ams"],
            75,
            "no machine has the label site=ams",
        ),
        (
            &["--prefer", "studio", "--on", "studio"],
            64,
            "cannot be used with",
        ),
        (&["--needs", "node=20"], 75, "studio: node=20: it has none"),
    ] {
        let words: Vec<&str> = ["dispatch"]
            .iter()
            .chain(words)
            .chain(&["--", "true"])
            .copied()
            .collect();
        let ran = fleet.run(&words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.contains(part), "{words:?}: {ran:?}");
    }
    assert_eq!(fleet.json(&["jobs"]), serde_json::json!([]));
    let unknown = fleet.run(&["explain", "zzzz"]);
    assert_eq!(unknown.code, 64, "{unknown:?}");
}

#[test]
fn a_dry_run_says_of_each_machine_whether_and_why_not() {
    let fleet = fleet();
    let words = ["dispatch", "--dry-run", "--needs", "site=ams", "--", "true"];
    let text = fleet.run(&words);
    for part in [
        "would dispatch: true",
        "needs: site=ams",
        "yes, 1 slot free",
        "no: site=ams: it is fra",
        "no: site=ams: it has none",
    ] {
        assert!(text.ok().contains(part), "{part}: {text:?}");
    }
    let dry = fleet.json(&words);
    assert_eq!(dry["ready"], serde_json::json!(["ada"]));
    assert_eq!(standing(&dry, "ada")["standing"], "ready", "{dry}");
    assert_eq!(dry["spec"]["needs"], "site=ams", "{dry}");
    let nobody = fleet.run(&["dispatch", "--dry-run", "--needs", "docker", "--", "true"]);
    assert_eq!(nobody.code, 75, "{nobody:?}");
    assert!(
        nobody.out.contains("no machine that is known could run it"),
        "{nobody:?}"
    );
    assert_eq!(fleet.json(&["jobs"]), serde_json::json!([]));
}

#[test]
fn memory_is_held_while_a_job_runs() {
    let fleet = Fleet::up("studio", 4);
    let gate = Gate::new();
    let total = fleet.machine("studio").unwrap()["mem_total"]
        .as_u64()
        .unwrap();
    let most = format!("mem>={}MiB", (total >> 20) * 2 / 3);
    let line = gate.wait("first");
    let first = fleet.dispatch(&["--needs", &most, "--shell", "--", &line]);
    fleet.until(&first, "running");
    // What is held is in the next beat.
    eventually("what is held is known", || {
        let dry = fleet.json(&["dispatch", "--dry-run", "--needs", &most, "--", "true"]);
        let found = standing(&dry, "studio")["found"]["kind"].clone();
        (found == "reserved_bytes").then_some(())
    });
    let second = fleet.run(&["dispatch", "--needs", &most, "--", "true"]);
    assert!(second.err.contains("its jobs hold "), "{second:?}");
    let second = second.ok().to_owned();
    let pinned = fleet.dispatch(&["--on", "studio", "--needs", &most, "--", "true"]);
    // What needs nothing passes by, in the lanes and on the pin.
    for words in [
        &["--wait", "--", "true"][..],
        &["--wait", "--on", "studio", "--", "true"],
    ] {
        fleet.dispatch(words);
    }
    assert_eq!(fleet.job(&second)["state"], "queued");
    assert_eq!(fleet.job(&pinned)["state"], "queued");
    let explained = fleet.run(&["explain", &second]);
    assert!(
        explained.ok().contains("yes, but not now: mem>="),
        "{explained:?}"
    );
    assert!(
        explained.ok().contains(&first),
        "who holds it: {explained:?}"
    );
    gate.open("first");
    fleet.until(&second, "succeeded");
    fleet.until(&pinned, "succeeded");
}

/// How many pulls wait in the lane of jobs that need nothing.
async fn parked(bus: &Bus) -> u64 {
    let verb = "CONSUMER.INFO.WORK.any-n";
    let info: Value = bus.api(verb, bytes::Bytes::new()).await.unwrap();
    info["num_waiting"].as_u64().unwrap()
}

#[test]
fn what_a_job_prefers_it_gets_where_it_is_free() {
    let mut fleet = fleet();
    fleet.add_agent("eve", &["--slots", "1"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_link, bus) = runtime.block_on(fleet.bus());
    // One of four by chance; by preference, as often as nobody is slow: five in a row.
    let mut row = 0;
    for _ in 0..40 {
        eventually("all four wait for work", || {
            (runtime.block_on(parked(&bus)) == 4).then_some(())
        });
        let (code, told) = fleet
            .home
            .json_lines(&["dispatch", "--prefer", "bob", "--wait", "--", "true"]);
        assert_eq!((code, &told[1]["prefer"]), (0, &"bob".into()), "{told:?}");
        row = if told[1]["machine"] == "bob" {
            row + 1
        } else {
            0
        };
        if row == 5 {
            break;
        }
    }
    assert_eq!(row, 5, "never five in a row ran where they would rather");
    // Where it is taken, another machine has it.
    let gate = Gate::new();
    let line = gate.wait("bob");
    let busy = fleet.dispatch(&["--on", "bob", "--shell", "--", &line]);
    fleet.until(&busy, "running");
    let (code, told) = fleet
        .home
        .json_lines(&["dispatch", "--prefer", "site=fra", "--wait", "--", "true"]);
    assert_eq!(code, 0, "{told:?}");
    assert_ne!(told[1]["machine"], "bob", "{told:?}");
    gate.open("bob");
    fleet.until(&busy, "succeeded");
}

#[test]
fn lanes_outlive_their_hub_and_empty_ones_go_with_it() {
    let mut fleet = Fleet::hub_alone();
    let early = fleet.dispatch(&["--queue-anyway", "--needs", "site=ams", "--", "true"]);
    let spare = fleet.dispatch(&["--queue-anyway", "--needs", "site=fra", "--", "true"]);
    fleet.run(&["cancel", "--yes", &spare]).ok();
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0);
    fleet.start_hub();
    fleet.add_agent("ada", &["--label", "site=ams"]);
    assert_eq!(fleet.until(&early, "succeeded")["machine"], "ada");
    fleet.add_agent("bob", &["--label", "site=fra"]);
    let again = fleet.dispatch(&["--needs", "site=fra", "--", "true"]);
    assert_eq!(fleet.until(&again, "succeeded")["machine"], "bob");
    // An agent that was there before its hub went away hears of lanes that come after it.
    fleet.hub.signal(rustix::process::Signal::TERM);
    assert_eq!(fleet.hub.ended(), 0);
    fleet.start_hub();
    for (needs, machine) in [
        ("site=fra", "bob"),
        ("site=ams", "ada"),
        ("site=ams,cores>=1", "ada"),
    ] {
        let id = fleet.dispatch(&["--needs", needs, "--", "true"]);
        assert_eq!(fleet.until(&id, "succeeded")["machine"], machine);
    }
}
