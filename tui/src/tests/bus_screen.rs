//! The screen of the bus: what a hub says of itself, how old it is, and what stays where there is
//! no room.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fleet_contract::hub::HubStats;

use super::*;
use crate::bus::BusMsg;
use crate::demo::hub as made_up;
use crate::model::{Cmd, Screen};

fn said(stats: HubStats) -> Msg {
    Msg::Bus(BusMsg::Hub(Ok(Box::new(stats))))
}

fn on_bus(situation: Situation, look: Look, stats: HubStats) -> Model {
    let mut model = blank(look);
    model.screen = Screen::Bus;
    update(&mut model, now(), link(true));
    for reader in READERS {
        update(&mut model, now(), Msg::Opened(reader));
        update(&mut model, now(), Msg::CaughtUp(reader));
    }
    for (n, micros) in [600, 640, 700, 9000, 610].into_iter().enumerate() {
        let rtt = Duration::from_micros(micros);
        let journal_seq = 0;
        let probe = Msg::Probe { rtt, journal_seq };
        update(&mut model, later(n as u64), probe);
    }
    update(&mut model, later(5), said(stats));
    update(&mut model, later(5), Msg::Bus(BusMsg::Memory(13 << 20)));
    if situation == Situation::Down {
        update(&mut model, later(6), link(false));
        update(&mut model, later(18), Msg::Tick);
    }
    model
}

fn shown(model: &Model, width: u16, height: u16) -> String {
    text(&draw(model, width, height))
}

fn press(model: &mut Model, key: char) -> Vec<Cmd> {
    let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE);
    let now = model.now;
    update(model, now, Msg::Key(key))
}

#[test]
fn the_hub_is_asked_more_often_while_its_screen_is_looked_at() {
    let mut model = model(Situation::Live, MONO);
    assert_eq!(press(&mut model, '6'), [Cmd::WatchHub(true)]);
    assert_eq!(model.screen, Screen::Bus);
    assert_eq!(press(&mut model, '6'), []);
    assert_eq!(press(&mut model, '1'), [Cmd::WatchHub(false)]);
}

#[test]
fn everything_of_a_hub_is_on_the_screen() {
    let model = on_bus(Situation::Live, MONO, made_up::well(now()));
    let shown = shown(&model, 120, 36);
    for part in [
        "0.61 ms",
        "p50 0.64 ms p99 9.00 ms",
        "never away",
        "nothing",
        "anvil",
        "nats-server 2.15.1 up 3 h",
        "6 connections",
        "in 42 msg/s",
        "212 GiB free of 460 GiB (46 %)",
        "store 1.1 GiB of 8.0 GiB",
        "nothing to mend",
        "13 MiB of 64 MiB",
        "LOG",
        "35 %",
        "any-n",
        "answered now",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn what_is_wrong_stays_where_there_is_no_room_for_the_rest() {
    let model = on_bus(Situation::Live, MONO, made_up::troubled(now()));
    for (size, parts) in [
        (
            (120, 36),
            &["m-forge-n", "1,204", "not known   the consumers of LOG"][..],
        ),
        ((80, 24), &["m-forge-n", "filling", "refuses", "drops"]),
        ((60, 16), &["refuses", "2 connections closed", "(1 %)"]),
        ((40, 10), &["refuses", "2 connections closed"]),
    ] {
        let shown = shown(&model, size.0, size.1);
        for part in parts {
            assert!(shown.contains(part), "{part} at {size:?}\n{shown}");
        }
    }
}

#[test]
fn every_number_is_dated_when_the_link_is_gone() {
    let well = on_bus(Situation::Live, MONO, made_up::well(now()));
    let down = on_bus(Situation::Down, MONO, made_up::well(now()));
    for (width, height) in [(120, 36), (80, 24), (60, 16), (40, 10), (40, 8)] {
        let (well, down) = (shown(&well, width, height), shown(&down, width, height));
        assert!(!well.contains("down for"), "{well}");
        for part in ["down for 12 s", "14 s ago"] {
            assert!(down.contains(part), "{part} at {width}x{height}\n{down}");
        }
    }
    assert!(shown(&down, 120, 36).contains("as of 12:04:36, 13 s ago"));
}

#[test]
fn a_hub_that_says_nothing_is_said_to_and_its_last_word_is_dated() {
    let mut model = on_bus(Situation::Live, MONO, made_up::well(now()));
    let why = "the hub did not say in time how it is".to_owned();
    update(
        &mut model,
        later(9),
        Msg::Bus(BusMsg::Hub(Err(why.clone()))),
    );
    let shown_then = shown(&model, 120, 36);
    assert!(shown_then.contains(&why) && shown_then.contains("as of 12:04:36, 4 s ago"));
    let mut fresh = blank(MONO);
    fresh.screen = Screen::Bus;
    assert!(shown(&fresh, 80, 24).contains("was not heard yet"));
    update(&mut fresh, now(), Msg::Bus(BusMsg::Hub(Err(why.clone()))));
    assert!(shown(&fresh, 80, 24).contains(&why));
}

#[test]
fn losses_are_counted_where_they_happen() {
    let mut model = on_bus(Situation::Live, MONO, made_up::well(now()));
    let bad = || fleet_contract::projection::Fact::Unreadable {
        why: "no".to_owned(),
    };
    for reader in READERS {
        let facts = vec![bad()];
        let left = 0;
        update(
            &mut model,
            later(5),
            Msg::Facts {
                reader,
                facts,
                left,
            },
        );
    }
    update(&mut model, later(5), Msg::Bus(BusMsg::Drops(812)));
    let stats = BusMsg::Stats {
        facts: vec![bad()],
        superseded: 3,
    };
    update(&mut model, later(5), Msg::Bus(stats));
    let wide = shown(&model, 200, 40);
    for part in [
        "812 dropped by the link",
        "1 unreadable records",
        "1 unreadable beats",
        "1 unreadable events",
        "1 unreadable summaries",
        "3 summaries passed over",
        "since 12:04:31",
    ] {
        assert!(wide.contains(part), "{part}\n{wide}");
    }
    assert!(shown(&model, 40, 8).contains("812 dropped"));
}

#[test]
fn no_size_is_refused_and_what_the_hub_says_cannot_move_the_cursor() {
    let mut stats = made_up::troubled(now());
    stats.host = "\x1b[2Jevil\u{202e}".to_owned();
    stats.streams[0].name = "\x1b]0;x\x07".to_owned();
    stats.slow[0].name = "a\nb".to_owned();
    stats.missing = vec!["\u{9b}2J".to_owned()];
    for look in [COLOUR, ASCII] {
        let model = on_bus(Situation::Live, look, stats.clone());
        for width in (0..100).chain([120, 130]) {
            for height in (0..14).chain([24, 36]) {
                let buffer = draw(&model, width, height);
                let control = |c: char| c.is_control() || c == '\u{202e}';
                let cells = buffer.content().iter();
                assert!(!cells.flat_map(|c| c.symbol().chars()).any(control));
            }
        }
        if look.ascii {
            let all = shown(&model, 120, 36);
            assert!(all.is_ascii(), "{all}");
        }
    }
}

#[test]
fn the_screen_of_the_bus_looks_as_it_did() {
    use super::snapshots::check;
    let well = made_up::well(now());
    check("bus-colour", on_bus(Situation::Live, COLOUR, well.clone()));
    check("bus-down-mono", on_bus(Situation::Down, MONO, well));
    let troubled = made_up::troubled(now());
    check(
        "bus-trouble-colour",
        on_bus(Situation::Live, COLOUR, troubled.clone()),
    );
    check(
        "bus-trouble-ascii",
        on_bus(Situation::Live, ASCII, troubled),
    );
}

/// A console on a real hub that answers, and a machine that tells what it counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_real_hub_and_its_machines_tell_is_seen() {
    use fleet_nats::bus::Bus;
    use fleet_nats::connect::{ConnectOptions, connect};
    use fleet_nats::hub::Permission::{Viewer, Worker};
    use fleet_nats::hub_stats::{AboutHub, answer};
    use fleet_nats::testing::TestHub;

    let hub = TestHub::start().await;
    let operator = hub.operator().await;
    let bus = Bus::new(&operator);
    fleet_nats::keeper::prepare(&bus, 1 << 30).await.unwrap();
    let system = ConnectOptions {
        check_api: false,
        fail_within: Duration::from_secs(60),
        ..ConnectOptions::new("system", hub.system_credentials().unwrap())
    };
    let system = connect(&system).await.unwrap();
    let about = AboutHub {
        host: "anvil".to_owned(),
        machine: "anvil".parse().ok(),
        address: hub.listen().to_string(),
        version: "0.1.0".to_owned(),
        started_at: fleet_nats::clock::now(),
        store: hub.home().hub_dir(),
    };
    let answers = answer(about, bus, system.client().clone(), Default::default());
    let answers = tokio::spawn(answers);
    let worker = hub.connect("forge", Worker).await.unwrap();
    let forge: fleet_contract::ids::MachineId = "forge".parse().unwrap();
    let mut way = ConnectOptions::new("test console", hub.credentials("vera", Viewer));
    way.fail_within = Duration::from_secs(60);
    let mut source = crate::source::Source::open(&way, crate::clock::Clock::start())
        .await
        .unwrap();
    let mut model = blank(MONO);
    let worker = Bus::new(&worker);
    let stat = fleet_contract::stat::Stat {
        interval_ms: 1000,
        tickets: 2,
        ..Default::default()
    };
    let seen = async {
        let now = fleet_nats::clock::now;
        while model.fleet.traffic(&forge, now()).is_none() || model.bus.hub().is_none() {
            // What is told before the console listens is gone.
            worker.tell_stat(&forge, &stat).await.unwrap();
            let msg = source.msgs.recv().await.unwrap();
            update(&mut model, now(), msg);
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(60), seen).await;
    assert!(all.is_ok(), "{}", shown(&model, 120, 36));
    let traffic = model.fleet.traffic(&forge, fleet_nats::clock::now());
    assert!(traffic.is_some_and(|t| (t.jobs_in_per_s - 2.0).abs() < 0.01));
    let (_, stats) = model.bus.hub().unwrap();
    assert_eq!((stats.host.as_str(), stats.streams.len()), ("anvil", 8));
    answers.abort();
}
