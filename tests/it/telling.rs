//! What machines and the hub tell for pictures only: summaries of what was counted, samples of the
//! load, how the hub is.

use std::time::Duration;

use fleet_contract::ids::MachineId;
use fleet_contract::stat::Stat;
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::hub::Credentials;
use fleet_nats::stat::Heard;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Fleet, lines};

/// A hub, and an agent that says each second that it is there.
fn quick() -> Fleet {
    let mut fleet = Fleet::hub_alone();
    fleet.add_agent_that_beats("studio", "1s");
    fleet
}

/// What a machine tells, as it comes.
enum Told {
    Beat,
    Stat(Stat),
}

struct Listener {
    heard: Heard,
    beats: Tail,
}

impl Listener {
    async fn open(bus: &Bus) -> Self {
        let beats = [subject::PRESENCES.to_owned()];
        Self {
            heard: bus.hear_stats().await.unwrap(),
            beats: Tail::open(bus, stream::PRES, &beats, From::New)
                .await
                .unwrap(),
        }
    }

    async fn next(&mut self) -> Told {
        let next = async {
            loop {
                tokio::select! {
                    stat = self.heard.next() => {
                        let (machine, stat) = stat.unwrap().unwrap();
                        assert_eq!(machine, "studio".parse::<MachineId>().unwrap());
                        return Told::Stat(stat);
                    }
                    beat = self.beats.next() => if let Next::Message(..) = beat.unwrap() {
                        return Told::Beat;
                    }
                }
            }
        };
        timeout(DEADLINE, next).await.unwrap()
    }
}

#[test]
fn a_job_with_output_is_counted_and_an_idle_agent_tells_nothing() {
    let fleet = quick();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_link, bus) = runtime.block_on(fleet.bus());
    let mut listener = runtime.block_on(Listener::open(&bus));
    // Answered after the subscriptions were taken in; `flush` would not say so.
    runtime.block_on(bus.usage(stream::PRES)).unwrap();
    let told = fleet.run(&["dispatch", "--wait", "--", "echo", "twelve bytes"]);
    assert_eq!(told.code, 0, "{told:?}");
    runtime.block_on(async {
        // Claimed and ended; a ticket; the line. What comes in two seconds is told in two.
        let mut sum = Stat::default();
        while sum.records < 2 || sum.chunks < 1 || sum.tickets < 1 {
            if let Told::Stat(stat) = listener.next().await {
                assert!(!stat.is_idle(), "{stat:?}");
                assert!(stat.interval_ms >= 900, "{stat:?}");
                sum.records += stat.records;
                sum.chunks += stat.chunks;
                sum.tickets += stat.tickets;
                sum.bytes_out += stat.bytes_out;
            }
        }
        assert_eq!((sum.records, sum.chunks, sum.tickets), (2, 1, 1));
        assert!(sum.bytes_out > 13, "{sum:?}");
        // Beats go on, summaries do not.
        let mut beats = 0;
        while beats < 4 {
            match listener.next().await {
                Told::Beat => beats += 1,
                Told::Stat(_) => beats = 0,
            }
        }
    });
}

#[test]
fn the_hub_says_how_it_is_to_the_operator_and_not_to_a_worker() {
    let fleet = Fleet::of(&[("studio", 1)]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let within = Duration::from_secs(10);
    let (_link, bus) = runtime.block_on(fleet.bus());
    // What a busy server does not answer within a second and a half is said to be missing.
    let stats = crate::harness::eventually_or_say("nothing is missing", || {
        let stats = runtime.block_on(bus.hub_stats(within));
        let stats = stats.map_err(|error| error.to_string())?;
        match stats.missing.is_empty() {
            true => Ok(stats),
            false => Err(format!("{:?}", stats.missing)),
        }
    });
    assert_eq!(stats.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((stats.streams.len(), stats.host.is_empty()), (8, false));
    // The keeper, the agent, the system's own and this one.
    assert!(stats.server.unwrap().connections >= 4);
    assert!(stats.disk.unwrap().total > 0);
    assert!(
        fleet.url.ends_with(&stats.addresses[0]),
        "{stats:?}",
        stats = stats.addresses
    );
    assert_eq!(stats.keeper.malformed, 0);
    let file = fleet.agents[0].home.user().join("studio.creds");
    let credentials = Credentials::load(&file).unwrap();
    let options = ConnectOptions {
        fail_within: DEADLINE,
        ..ConnectOptions::new("a worker that asks", credentials)
    };
    let refused = runtime.block_on(async {
        let link = connect(&options).await.unwrap();
        let within = Duration::from_millis(500);
        Bus::new(&link).hub_stats(within).await.unwrap_err()
    });
    assert!(matches!(refused, BusError::NoAnswer { .. }), "{refused}");
}

#[test]
fn samples_of_load_are_shown_to_whoever_asks_for_them_alone() {
    let fleet = Fleet::of(&[("studio", 1)]);
    let asked = ["--json", "flow", "--since", "1h", "--kind", "machine.load"];
    let sample = crate::harness::eventually("a sample of the load", || {
        lines(fleet.run(&asked).ok()).first().cloned()
    });
    assert_eq!(sample["machine"], "studio");
    let detail = &sample["data"]["detail"];
    assert_eq!(
        (&detail["slots"], &detail["slots_used"]),
        (&1.into(), &0.into())
    );
    assert!(detail["cores"].as_u64().unwrap() > 0 && detail["mem_total"].as_u64().unwrap() > 0);
    for hides in [
        &["--json", "flow"][..],
        &["--json", "flow", "--kind", "machine"],
    ] {
        let shown = lines(fleet.run(hides).ok());
        assert!(shown.iter().any(|e| e["kind"] == "machine.up"), "{shown:?}");
        assert!(
            shown.iter().all(|e| e["kind"] != "machine.load"),
            "{shown:?}"
        );
    }
}
