//! What the hub keeps is set in its configuration, and what it has removed is said to whoever asks.

use fleet_contract::event::kind;
use fleet_nats::flow::NewEvent;
use fleet_nats::subject::{self, stream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fleet::HubEnd;
use crate::harness::{Fleet, Home, eventually_or_say};

fn configure(home: &Home, text: &str) {
    std::fs::write(home.fleet().join("config.toml"), text).unwrap();
}

/// A job that writes so many bytes; all of them are with the hub.
fn writes(fleet: &Fleet, bytes: usize) -> String {
    let id = fleet.dispatch(&["--", "head", "-c", &bytes.to_string(), "/dev/zero"]);
    assert_eq!(fleet.run(&["logs", "-f", &id]).code, 0);
    id
}

fn of_stream(fleet: &Fleet, name: &str) -> Value {
    let status = fleet.json(&["hub", "status"]);
    let mut streams = status["streams"].as_array().unwrap().iter();
    streams.find(|s| s["stream"] == name).unwrap().clone()
}

#[test]
fn how_much_the_hub_keeps_is_set_in_its_configuration_and_less_than_there_is_says_what_goes() {
    let mut fleet = Fleet::of(&[("studio", 1)]);
    let first = writes(&fleet, 6_000_000);
    let whole = fleet.run(&["logs", &first]).bytes.len();
    assert_eq!(whole, 6_000_000, "{}", of_stream(&fleet, stream::LOG));
    let before = of_stream(&fleet, stream::LOG)["max_bytes"].clone();
    fleet.without_hub(HubEnd::Stopped, |fleet| {
        configure(&fleet.home, "logs_size = \"4 MiB\"\n");
    });
    let said = fleet.hub.errors();
    assert!(
        said.contains("output: kept for 14 d and up to 4 MiB, was for 14 d and up to")
            && said.contains("were removed"),
        "{said}"
    );
    assert_eq!(of_stream(&fleet, stream::LOG)["max_bytes"], 4 << 20);
    let removed = fleet.event("hub.removed", |_| true);
    let output = &removed["data"]["detail"]["streams"]["LOG"];
    assert!(output["bytes"].as_u64().unwrap() > 1_000_000, "{removed}");
    let rows = fleet.json(&["config", "show"]);
    let mut rows = rows.as_array().unwrap().iter();
    let row = rows.find(|row| row["key"] == "logs_size").unwrap();
    assert_eq!(row["value"], "4.0 MiB");
    assert!(row["origin"].as_str().unwrap().ends_with("config.toml:1"));

    // What is left of a job's output is shown, with what is missing.
    let part = fleet.run(&["logs", &first]);
    assert_eq!(part.code, 0);
    assert!(part.err.contains("missing here"), "{}", part.err);
    assert!(part.bytes.len() > 1_000_000, "{}", part.bytes.len());
    // And where nothing is left, that the hub does not go back so far.
    writes(&fleet, 6_000_000);
    eventually_or_say("all of the first job's output has gone", || {
        let none = fleet.run(&["logs", &first]);
        match none.bytes.is_empty() && none.err.contains("the hub has no output from before") {
            true => Ok(()),
            false => Err(none.err),
        }
    });

    // Nobody sets it any more: as it was.
    fleet.without_hub(HubEnd::Stopped, |fleet| configure(&fleet.home, ""));
    assert_eq!(of_stream(&fleet, stream::LOG)["max_bytes"], before);
}

#[test]
fn a_hub_that_is_to_keep_what_it_cannot_does_not_start_and_says_why() {
    let home = Home::new();
    std::fs::create_dir_all(home.fleet()).unwrap();
    let words = ["hub", "run", "--listen", "127.0.0.1:0"];
    for (text, why) in [
        (
            "flow_age = \"10m\"",
            "config.toml:1: flow_age: \"10m\" is out of bounds: use 1h to 10years",
        ),
        ("jobs_age = 7", "config.toml:1: jobs_age: 7 has no unit"),
        (
            "jobs_size = \"much\"",
            "config.toml:1: jobs_size: \"much\" is not a size",
        ),
        (
            "jobs_count = -1",
            "config.toml:1: jobs_count: -1 is out of bounds: use 1 to 1000000",
        ),
        (
            "log_size = \"1 GiB\"",
            "there is no setting \"log_size\": the nearest is \"logs_size\"",
        ),
        ("logs_size = \"1 TiB\"", "but the hub's store has"),
    ] {
        configure(&home, text);
        let ran = home.run(&words);
        assert_eq!(ran.code, 78, "{text}: {ran:?}");
        assert!(ran.err.contains(why), "{text}: {ran:?}");
    }
}

#[test]
fn whoever_asks_for_a_removed_job_is_told_that_it_was_when_and_why() {
    let fleet = Fleet::hub_alone();
    let id = fleet.dispatch(&["--queue-anyway", "--", "true"]);
    fleet.run(&["cancel", "--yes", &id]).ok();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (_link, bus) = fleet.bus().await;
        let job = id.parse().unwrap();
        bus.purge(stream::JOB, &subject::job_all(job), None)
            .await
            .unwrap();
        let event = NewEvent {
            kind: kind::JOB_PURGED,
            machine: None,
            job: None,
            attempt: None,
            detail: json!({ "reason": "it was kept long enough", "count": 1, "jobs": [id] }),
        };
        bus.put_event(subject::HUB, &event, "test", 1)
            .await
            .unwrap();
    });
    for words in [
        &["show"][..],
        &["logs"],
        &["wait"],
        &["cancel", "--yes"],
        &["ack"],
    ] {
        let words: Vec<&str> = words.iter().copied().chain([id.as_str()]).collect();
        let ran = fleet.run(&words);
        assert_eq!(ran.code, 64, "{words:?}: {ran:?}");
        let said = format!("job {id} had ended and was removed with its output at 20");
        assert!(ran.err.contains(&said), "{words:?}: {ran:?}");
        assert!(ran.err.contains("it was kept long enough"), "{ran:?}");
    }
}
