//! The event log of a real fleet's bad day: five machines, a thousand jobs, agents, executors and
//! hubs that were killed and frozen, garbage on the bus. `tests/it/recorder.rs` wrote it, and
//! beside it what `fleet jobs --json` said at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fleet_contract::projection::{Fact, Fleet, Limits};
use serde_json::Value;

use super::bytes::Dice;
use super::*;
use crate::model::{Pane, Screen};
use crate::source::replay::{self, Replayed};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/recording")
}

fn day() -> &'static [Replayed] {
    static DAY: OnceLock<Vec<Replayed>> = OnceLock::new();
    DAY.get_or_init(|| {
        let messages = replay::read(&folder().join("bad-day.jsonl.gz"), 0).unwrap();
        messages.map(Result::unwrap).collect()
    })
}

fn folded<'a>(facts: impl IntoIterator<Item = &'a Replayed>) -> Fleet {
    let mut fleet = Fleet::new(Limits::default());
    for replayed in facts {
        fleet.fold(&replayed.fact);
    }
    fleet
}

/// What cannot be read has no sequence by which it could be known again.
fn readable(replayed: &&Replayed) -> bool {
    !matches!(replayed.fact, Fact::Unreadable { .. })
}

#[test]
fn every_job_is_what_the_command_line_said_in_the_end() {
    let text = std::fs::read_to_string(folder().join("bad-day.jobs.json")).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    let fleet = folded(day());
    let jobs = said["jobs"].as_object().unwrap();
    assert!(jobs.len() >= 1000, "{}", jobs.len());
    assert_eq!(fleet.jobs().len(), jobs.len());
    for (id, said) in jobs {
        let job = fleet.job(id.parse().unwrap()).unwrap();
        let machine = fleet_contract::projection::place(job).map(|m| m.as_str());
        let found = serde_json::json!([
            job.state.word().as_str(),
            job.attempt().map(|a| a.no),
            machine
        ]);
        assert_eq!(found[0], said[0], "{id}");
        assert_eq!(
            found[1].as_u64().unwrap_or(0),
            said[1].as_u64().unwrap_or(0),
            "{id}"
        );
        if !said[2].is_null() {
            assert_eq!(found[2], said[2], "{id}");
        }
    }
    for (word, count) in said["states"].as_object().unwrap() {
        let word = fleet_contract::record::StateWord::from_word(word).unwrap();
        assert_eq!(fleet.count(word) as u64, count.as_u64().unwrap(), "{word}");
    }
    assert_eq!(fleet.machines().len(), 5);
    assert!(fleet.counters().unreadable > 0 && fleet.counters().voids > 0);
}

#[test]
fn going_on_after_any_outage_is_the_same_as_having_seen_it_all() {
    let whole = folded(day());
    let mut dice = Dice::new(11);
    for _ in 0..40 {
        let cut = dice.index(day().len());
        let mut fleet = folded(&day()[..cut]);
        // What was under way when the link broke comes again.
        let back = cut.saturating_sub(dice.index(200));
        for replayed in day()[back..cut].iter().filter(readable) {
            fleet.fold(&replayed.fact);
        }
        for replayed in &day()[cut..] {
            fleet.fold(&replayed.fact);
        }
        assert!(fleet == whole, "cut at {cut}, repeated from {back}");
    }
}

#[test]
fn all_of_it_twice_is_the_same_as_once() {
    let mut fleet = folded(day());
    let once = fleet.clone();
    for replayed in day().iter().filter(readable) {
        assert!(!fleet.fold(&replayed.fact), "{:?}", replayed.fact);
    }
    assert!(fleet == once);
}

#[test]
fn the_order_between_the_streams_does_not_matter() {
    let whole = folded(day());
    let of = |reader| day().iter().filter(move |r| r.reader == reader);
    let [jobs, beats, flow] = READERS.map(|reader| of(reader).collect::<Vec<_>>());
    for order in [
        [&jobs, &beats, &flow],
        [&flow, &beats, &jobs],
        [&beats, &flow, &jobs],
    ] {
        assert!(folded(order.into_iter().flatten().copied()) == whole);
    }
    for seed in 1..6 {
        let mut dice = Dice::new(seed);
        let mut queues = [jobs.iter(), beats.iter(), flow.iter()];
        let mut fleet = Fleet::new(Limits::default());
        let mut left = day().len();
        while left > 0 {
            // A reader brings some at a time.
            let queue = &mut queues[dice.index(3)];
            for replayed in queue.by_ref().take(1 + dice.index(60)) {
                fleet.fold(&replayed.fact);
                left -= 1;
            }
        }
        assert!(fleet == whole, "seed {seed}");
    }
}

#[test]
fn every_view_can_be_drawn_at_each_fiftieth_step() {
    let sizes = [(120, 36), (80, 24), (40, 10), (20, 5), (1, 1), (200, 60)];
    let mut model = blank(COLOUR);
    let first = day()[0].stored;
    model.now = first;
    update(&mut model, first, link(true));
    for (at, replayed) in day().iter().enumerate() {
        let msg = Msg::Facts {
            reader: replayed.reader,
            facts: vec![replayed.fact.clone()],
            left: 0,
        };
        update(&mut model, replayed.stored, msg);
        if at % 50 != 0 {
            continue;
        }
        for screen in Screen::ALL {
            model.screen = screen;
            for pane in Pane::FLEET {
                model.pane = pane;
                let (width, height) = sizes[(at / 50) % sizes.len()];
                draw(&model, width, height);
            }
        }
        if at % 1000 == 0 {
            model.screen = Screen::Fleet;
            for (width, height) in sizes {
                draw(&model, width, height);
            }
        }
    }
}

#[test]
fn the_log_is_a_bad_day_indeed() {
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    let fleet = folded(day());
    for event in fleet.events().values() {
        *kinds.entry(event.word.clone()).or_default() += 1;
    }
    for (kind, least) in [
        ("machine.lost", 3),
        ("lost", 1),
        ("timed_out", 4),
        ("canceled", 4),
        ("rejected", 2),
        ("expired", 1),
        ("failed", 100),
        ("succeeded", 500),
    ] {
        let found = kinds.get(kind).copied().unwrap_or(0);
        assert!(found >= least, "{kind}: {found} of {kinds:?}");
    }
}
