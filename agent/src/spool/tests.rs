//! The spool against what a crash, a full disk and a bad disk do to it, and against a model of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_contract::time::Time;
use proptest::prelude::*;
use tempfile::TempDir;

use super::segment::{self, Found, Kind, Record};
use super::{Damage, Limits, Refused, Store};

const SMALL: Limits = Limits {
    bytes: 1 << 20,
    segment: 600,
    age: Duration::from_secs(3600),
};

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn open(dir: &Path, limits: Limits, boot: &str) -> Store {
    Store::open(dir, limits, boot).unwrap()
}

/// As if the disk had it: what a power loss takes is what [`segment::scan`] is tried with.
fn flush(store: &mut Store) {
    if let Some((_, through)) = store.unsynced() {
        store.synced(through);
    }
}

/// Tells an event whose envelope is its place and `n`.
fn tell(store: &mut Store, n: u64) -> Result<(), Refused> {
    let told = store.append(at(n.cast_signed()), "x.y", |boot, seq| {
        Some(format!("{boot} {seq} {n}").into_bytes())
    });
    flush(store);
    told
}

/// The envelopes of everything that waits.
fn waiting(store: &mut Store) -> Vec<String> {
    let batch = store.batch(usize::MAX, usize::MAX).unwrap();
    let events = batch.events.iter();
    events
        .map(|e| String::from_utf8(e.envelope.to_vec()).unwrap())
        .collect()
}

fn told(boot: &str, seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter()
        .map(|n| format!("{boot} {n} {n}"))
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    found.sort();
    found
}

fn events(damages: &[Damage]) -> u64 {
    damages.iter().map(|d| d.events).sum()
}

#[test]
fn what_waits_survives_a_restart_and_is_handed_out_in_order_until_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    for n in 1..=50 {
        tell(&mut store, n).unwrap();
    }
    assert!(files(dir.path()).len() > 3, "several segments");
    let batch = store.batch(10, usize::MAX).unwrap();
    assert_eq!((batch.events.len(), batch.through), (10, 10));
    store.delivered(batch.through).unwrap();
    let seen = store.waiting();
    assert_eq!((seen.events, seen.oldest), (40, Some(at(11))));
    drop(store);

    let mut store = open(dir.path(), SMALL, "b");
    assert_eq!(store.damages(), []);
    for n in 1..=5 {
        tell(&mut store, n).unwrap();
    }
    let expected = [told("a", 11..=50), told("b", 1..=5)].concat();
    assert_eq!(waiting(&mut store), expected);
    store.delivered(store.last_synced()).unwrap();
    assert_eq!(store.waiting(), super::Waiting::default());
    assert_eq!(files(dir.path()).len(), 1, "what is delivered goes");
    assert_eq!(waiting(&mut store), [] as [&str; 0]);
}

#[test]
fn nothing_is_handed_out_before_it_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    let told = store.append(at(1), "x", |_, _| Some(b"1".to_vec()));
    told.unwrap();
    assert_eq!(store.batch(9, 9).unwrap().events, []);
    assert_eq!(store.waiting().events, 0);
    flush(&mut store);
    assert_eq!(store.batch(9, 9).unwrap().events.len(), 1);
}

#[test]
fn what_the_hub_has_last_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    for n in 1..=9 {
        tell(&mut store, n).unwrap();
    }
    drop(store);
    let mut store = open(dir.path(), SMALL, "b");
    for n in 1..=9 {
        tell(&mut store, n).unwrap();
    }
    assert!(store.resume_after("a", 4));
    assert_eq!(waiting(&mut store).len(), 14);
    assert!(store.resume_after("b", 2));
    assert_eq!(waiting(&mut store), told("b", 3..=9));
    // A hub that lost its last events gets again what is still here.
    store.delivered(store.last_synced()).unwrap();
    assert!(store.resume_after("b", 7));
    assert_eq!(waiting(&mut store), told("b", 8..=9));
    for (boot, seq) in [("a", 10), ("b", 10), ("c", 1), ("b", 0), ("b", u64::MAX)] {
        assert!(!store.resume_after(boot, seq), "{boot} {seq}");
        assert_eq!(waiting(&mut store), told("b", 8..=9), "{boot} {seq}");
    }
}

#[test]
fn over_the_bound_the_newest_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 2000,
        ..SMALL
    };
    let mut store = open(dir.path(), limits, "a");
    let mut kept = 0;
    let full = (1..=1000).find_map(|n| match tell(&mut store, n) {
        Ok(()) => {
            kept = n;
            None
        }
        Err(refused) => Some(refused),
    });
    assert!(matches!(full, Some(Refused::Full { limit: 2000, .. })));
    assert!(kept > 10);
    let size: u64 = files(dir.path())
        .iter()
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(size <= 2000, "{size}");
    assert_eq!(waiting(&mut store), told("a", 1..=kept));
    // Once they are delivered there is room, and the count goes on without a hole.
    store.delivered(kept).unwrap();
    tell(&mut store, kept + 1).unwrap();
    assert_eq!(waiting(&mut store), told("a", [kept + 1]));
    // However little may be kept, what is delivered does not fill it for ever.
    for n in kept + 2..kept + 500 {
        tell(&mut store, n).unwrap();
        store.delivered(store.last_synced()).unwrap();
    }
}

#[test]
fn segments_that_are_too_old_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    for n in 1..=50 {
        tell(&mut store, n).unwrap();
    }
    assert_eq!(store.expire(at(3600)), 0);
    let before = files(dir.path()).len();
    let gone = store.expire(at(3600 + 30));
    assert!((1..30).contains(&gone), "{gone}");
    assert!(files(dir.path()).len() < before);
    assert_eq!(waiting(&mut store), told("a", gone + 1..=50));
    // The segment that is written to stays, whatever the clock says.
    let gone = gone + store.expire(at(1 << 40));
    assert!(gone < 50);
    assert_eq!(waiting(&mut store), told("a", gone + 1..=50));
}

#[test]
fn an_end_torn_at_any_byte_loses_the_torn_record_alone_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = Limits {
        segment: 1 << 19,
        ..SMALL
    };
    let mut store = open(dir.path(), roomy, "a");
    for n in 1..=4 {
        tell(&mut store, n).unwrap();
    }
    drop(store);
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let ends: Vec<usize> = segment::scan(&whole)
        .map(|found| match found {
            Found::Record(at, record) => at + record.length(),
            other => panic!("{other:?}"),
        })
        .collect();
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let mut store = open(dir.path(), roomy, "b");
        let left = ends.iter().filter(|&&end| end <= cut).count() as u64;
        assert_eq!(waiting(&mut store), told("a", 1..=left), "{cut}");
        let torn = store.damages();
        let clean = cut == 0 || ends.contains(&cut);
        assert_eq!(torn.len(), usize::from(!clean), "{cut}: {torn:?}");
        assert!(
            torn.iter()
                .all(|d| d.what == "torn at its end" && d.bytes > 0)
        );
        tell(&mut store, 1).unwrap();
        drop(store);
        let mut store = open(dir.path(), roomy, "c");
        assert_eq!(store.damages(), [], "{cut}: cut off and mended");
        let expected = [told("a", 1..=left), told("b", [1])].concat();
        assert_eq!(waiting(&mut store), expected, "{cut}");
    }
}

#[test]
fn a_flipped_bit_anywhere_loses_one_event_at_the_most_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    for n in 1..=20 {
        tell(&mut store, n).unwrap();
    }
    drop(store);
    let (first, last) = (
        files(dir.path()).remove(0),
        files(dir.path()).pop().unwrap(),
    );
    assert_ne!(first, last);
    for file in [&first, &last] {
        let whole = fs::read(file).unwrap();
        // Every bit of a record and a half, every few of what is alike.
        for bit in (0..600).chain((600..whole.len() * 8).step_by(11)) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(file, &bytes).unwrap();
            let mut store = open(dir.path(), SMALL, "b");
            let told = store.damages();
            assert!(!told.is_empty(), "{bit}");
            let left = waiting(&mut store);
            assert!(left.len() >= 19, "{bit}: {left:?}");
            assert!(left.is_sorted_by_key(|e| number(e)), "{bit}: {left:?}");
            drop(store);
            fs::write(file, &whole).unwrap();
        }
    }
}

fn number(envelope: &str) -> u64 {
    envelope.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn events_that_vanish_under_a_running_agent_are_counted_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    for n in 1..=30 {
        tell(&mut store, n).unwrap();
    }
    let segments = files(dir.path());
    fs::remove_file(&segments[1]).unwrap();
    let left = waiting(&mut store);
    let gone = 30 - left.len() as u64;
    assert!(gone > 0);
    assert_eq!(events(&store.damages()), gone);
    waiting(&mut store);
    assert_eq!(store.damages(), [], "told once");
    // The whole folder.
    for file in files(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    store.delivered(1).unwrap();
    let batch = store.batch(9, 999).unwrap();
    assert_eq!((batch.events.len(), batch.through), (0, 30));
    store.delivered(batch.through).unwrap();
    assert_eq!(store.waiting().events, 0);
}

#[test]
fn strange_files_are_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "events-x",
        "events-",
        "x",
        "events-0",
        "events-18446744073709551615",
    ] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::write(dir.path().join("events-0000000000000000007"), "").unwrap();
    let mut store = open(dir.path(), SMALL, "a");
    assert_eq!(store.damages(), []);
    tell(&mut store, 1).unwrap();
    assert_eq!(waiting(&mut store), told("a", [1]));
    let huge = store.append(at(1), "x", |_, _| Some(vec![0; segment::BODY_MAX]));
    assert!(matches!(huge, Err(Refused::TooLarge)));
    let none = store.append(at(1), "x", |_, _| None);
    assert!(matches!(none, Err(Refused::TooLarge)));
    tell(&mut store, 2).unwrap();
    assert_eq!(waiting(&mut store), told("a", [1, 2]), "no hole");
}

/// What may happen to a spool.
#[derive(Debug, Clone)]
enum Step {
    Tell(u8),
    Deliver(u8),
    /// The hub says what it has: so many of those that were ever delivered are lost to it.
    Resume(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20_u8).prop_map(Step::Tell),
        3 => (1..20_u8).prop_map(Step::Deliver),
        1 => (0..3_u8).prop_map(Step::Resume),
        2 => Just(Step::Restart),
    ]
}

/// What a spool ought to be: everything that was ever told, and how much the hub has.
struct Model {
    dir: TempDir,
    store: Store,
    run: u32,
    told: Vec<(String, u64)>,
    hub: usize,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), SMALL, "0");
        Self {
            dir,
            store,
            run: 0,
            told: Vec::new(),
            hub: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Tell(count) => {
                for _ in 0..count {
                    tell(&mut self.store, self.told.len() as u64 + 1).unwrap();
                    let boot = self.run.to_string();
                    let before = self.told.last().filter(|(b, _)| *b == boot);
                    let seq = before.map_or(1, |(_, seq)| seq + 1);
                    self.told.push((boot, seq));
                }
            }
            Step::Deliver(most) => {
                let batch = self.store.batch(usize::from(most), 200).unwrap();
                self.hub += batch.events.len();
                self.store.delivered(batch.through).unwrap();
            }
            Step::Resume(lost) => {
                // Only what the spool has not let go of can be had again.
                let back = self.hub.saturating_sub(usize::from(lost));
                if let Some((boot, seq)) = back.checked_sub(1).and_then(|at| self.told.get(at))
                    && self.store.resume_after(boot, *seq)
                {
                    self.hub = back;
                }
            }
            Step::Restart => {
                self.run += 1;
                self.store = open(self.dir.path(), SMALL, &self.run.to_string());
                assert_eq!(self.store.damages(), []);
            }
        }
        let left: Vec<(String, u64)> = self.told[self.hub..].to_vec();
        let batch = self.store.batch(usize::MAX, usize::MAX).unwrap();
        let found = batch.events.iter().map(|e| (e.boot.clone(), e.seq));
        assert_eq!(found.collect::<Vec<_>>(), left);
        assert_eq!(self.store.waiting().events, left.len() as u64);
        assert_eq!(self.store.damages(), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_spool_is_what_its_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
    }

    #[test]
    fn records_are_found_in_any_bytes_and_nothing_else_is(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), any::<bool>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        let mut records = BTreeSet::new();
        for (index, (body, whole)) in pieces.iter().enumerate() {
            let index = index as u64 + 1;
            let record = Record { kind: Kind::Event, index, time: at(1), body };
            let mut frame = segment::encode(&record).unwrap();
            if *whole {
                records.insert((bytes.len(), index));
            } else {
                frame.truncate(cut.index(frame.len()));
            }
            bytes.extend(frame);
        }
        let mut covered = 0;
        for found in segment::scan(&bytes) {
            match found {
                Found::Record(at, record) => {
                    prop_assert_eq!(at, covered);
                    prop_assert!(records.remove(&(at, record.index)));
                    covered += record.length();
                }
                Found::Damage(at, length) => {
                    prop_assert_eq!(at, covered);
                    covered += length;
                }
                Found::Tail(at) => {
                    prop_assert_eq!(at, covered);
                    covered = bytes.len();
                }
            }
        }
        prop_assert_eq!(covered, bytes.len());
        prop_assert!(records.is_empty());
    }
}

/// Folders of random and of mutated segments: nothing panics, what is handed out is in order, and
/// the spool can be used afterwards. `FLEET_FUZZ_SECONDS` makes it go on as long as wanted.
#[test]
fn no_bytes_on_disk_are_the_end_of_a_spool() {
    let seconds = std::env::var("FLEET_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(1, |s| s.parse().unwrap());
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut tried = 0_u64;
    while std::time::Instant::now() < until {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), SMALL, "a");
        for n in 1..=draw() % 30 + 1 {
            tell(&mut store, n).unwrap();
            if draw() % 4 == 0 {
                store.delivered(draw() % (n + 1)).unwrap();
            }
        }
        drop(store);
        for file in files(dir.path()) {
            let mut bytes = fs::read(&file).unwrap();
            for _ in 0..draw() % 4 {
                mutate(&mut bytes, &mut draw);
            }
            fs::write(file, bytes).unwrap();
        }
        let mut store = open(dir.path(), SMALL, "b");
        let before = waiting(&mut store);
        let mine = |e: &&String| e.starts_with("a ");
        assert!(before.iter().filter(mine).is_sorted_by_key(|e| number(e)));
        tell(&mut store, 1).unwrap();
        let after = waiting(&mut store);
        assert_eq!(after.last().map(String::as_str), Some("b 1 1"));
        assert_eq!(after.len(), before.len() + 1);
        store.delivered(store.last_synced()).unwrap();
        assert_eq!(waiting(&mut store), [] as [&str; 0]);
        tried += 1;
    }
    println!("{tried} damaged spools");
}

fn mutate(bytes: &mut Vec<u8>, draw: &mut impl FnMut() -> u64) {
    let length = bytes.len() as u64;
    let place = |n: u64| usize::try_from(n % (length + 1)).unwrap();
    let (from, to) = (place(draw()), place(draw()));
    let (from, to) = (from.min(to), from.max(to));
    match draw() % 6 {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(from..to)),
        2 => {
            let copied = bytes[from..to].to_vec();
            bytes.extend(copied);
        }
        3 => bytes[from..to].fill(0),
        4 => bytes.extend((0..draw() % 100).map(|n| (n * 37) as u8)),
        _ if from < bytes.len() => bytes[from] ^= 1 << (draw() % 8),
        _ => bytes.reverse(),
    }
}
