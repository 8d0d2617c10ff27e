//! The spool of events over any bytes in its files, and over any life of tears, flipped bits and
//! restarts: what it hands out was written, whole and in order, and what was flushed and not hit is
//! handed out.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_contract::time::Time;

use super::Script;
use crate::spool::segment::{self, Event, Found, Kind, Record};
use crate::spool::{Limits, Refused, Spooled, Store};

const SMALL: Limits = Limits {
    bytes: 6000,
    segment: 300,
    age: Duration::from_secs(3600),
};
/// Steps of one life.
const STEPS: usize = 120;

/// Takes any bytes, in an empty folder.
///
/// # Panics
/// Where the spool does not do what it should.
pub fn run(dir: &Path, data: &[u8]) {
    match data.split_first() {
        None => {}
        Some((0, rest)) => any_files(dir, rest),
        Some((1, rest)) => checked_records(dir, Script(rest)),
        Some((_, rest)) => Life::begin(dir).live(Script(rest)),
    }
}

fn name(first: u64) -> String {
    format!("events-{first:019}")
}

fn open(dir: &Path, boot: &str) -> Store {
    Store::open(dir, SMALL, boot).unwrap()
}

fn flush(store: &mut Store) {
    if let Some((_, through)) = store.unsynced() {
        store.synced(through);
    }
}

fn waiting(store: &mut Store) -> Vec<Spooled> {
    let batch = store.batch(usize::MAX, usize::MAX).unwrap();
    let ascending = batch
        .events
        .windows(2)
        .all(|two| two[0].index < two[1].index);
    assert!(ascending, "handed out in order");
    batch.events
}

/// The rest of the input as one or more files, torn apart at a line that no record holds.
fn any_files(dir: &Path, rest: &[u8]) {
    for (n, bytes) in rest.split(|byte| *byte == b'|').take(4).enumerate() {
        fs::write(dir.join(name(n as u64 * 10 + 1)), bytes).unwrap();
    }
    use_it(dir);
}

/// Records with the right checksums and anything else in them, with junk between them.
fn checked_records(dir: &Path, mut script: Script<'_>) {
    let (mut file, mut bytes, mut next) = (1, Vec::new(), 1_u64);
    let mut steps = 0;
    while !script.is_over() && steps < STEPS {
        steps += 1;
        match script.below(8) {
            0 => {
                let most = usize::from(script.byte());
                bytes.extend_from_slice(script.bytes(most));
            }
            1 => {
                let first = match script.below(4) {
                    0 => script.number(),
                    _ => next,
                };
                fs::write(dir.join(name(file)), std::mem::take(&mut bytes)).unwrap();
                file = first;
            }
            2 => {
                let most = script.place(bytes.len() + 1);
                bytes.truncate(most);
            }
            kind => {
                let index = match script.below(6) {
                    0 => script.number(),
                    1 => next + u64::from(script.byte()),
                    _ => next,
                };
                let (boot, seq) = (
                    ["a", "b", ""][usize::from(script.below(3))],
                    script.number(),
                );
                let length = usize::from(script.byte());
                let envelope = script.bytes(length);
                let body = Event {
                    boot,
                    seq,
                    kind: "x.y",
                    envelope,
                }
                .to_body()
                .unwrap();
                let junk = kind == 3;
                let record = Record {
                    kind: if kind == 4 {
                        Kind::Delivered
                    } else {
                        Kind::Event
                    },
                    index,
                    time: Time::from_micros(script.number().cast_signed()),
                    body: if junk { envelope } else { &body },
                };
                if let Some(frame) = segment::encode(&record) {
                    assert_eq!(segment::decode(&frame), Some(record));
                    bytes.extend_from_slice(&frame);
                }
                next = index.saturating_add(1);
            }
        }
    }
    fs::write(dir.join(name(file)), bytes).unwrap();
    use_it(dir);
}

/// A spool in this folder can be used, whatever is in it.
fn use_it(dir: &Path) {
    let files: Vec<Vec<u8>> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    let mut store = open(dir, "new");
    let before = waiting(&mut store);
    for event in &before {
        assert!(
            files.iter().any(|file| was_written(file, event)),
            "{event:?}"
        );
    }
    for damage in store.damages() {
        assert!(damage.bytes > 0 || damage.events > 0, "{damage:?}");
    }
    if tell(&mut store, "first").is_err() {
        // No index is left, or the files are over the bound.
        return;
    }
    flush(&mut store);
    let after = waiting(&mut store);
    assert_eq!(after.len(), before.len() + 1);
    let last = after.last().unwrap();
    assert_eq!((last.boot.as_str(), last.seq), ("new", 1));
    if let Some(half) = after.get(after.len() / 2) {
        store.delivered(half.index).unwrap();
        let left = waiting(&mut store);
        // Where files overlap, as no spool writes them, one may go with the other; none comes twice.
        assert!(
            left.iter()
                .all(|e| e.index > half.index && after.contains(e))
        );
    }
    let last = store.last_synced();
    store.delivered(last).unwrap();
    assert_eq!(waiting(&mut store), []);
    assert_eq!(store.waiting().events, 0);
    drop(store);
    let mut store = open(dir, "newer");
    assert!(store.last_delivered() <= store.last_synced());
    store.expire(Time::from_micros(i64::MAX));
    let _ = store.waiting();
}

/// Whether a whole record of this event lies in a file: found without the spool's own reader.
fn was_written(file: &[u8], event: &Spooled) -> bool {
    let written = Event {
        boot: &event.boot,
        seq: event.seq,
        kind: &event.kind,
        envelope: &event.envelope,
    };
    let body = written.to_body().unwrap();
    let starts = 0..(file.len() + 1).saturating_sub(segment::HEADER + body.len());
    let mut starts = starts.filter(|at| file[*at..].starts_with(b"FSR1"));
    starts.any(|at| {
        let head = &file[at..at + segment::HEADER];
        let found = &file[at + segment::HEADER..at + segment::HEADER + body.len()];
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&length);
        crc.update(&head[12..]);
        crc.update(found);
        found == body
            && head[4..8] == length
            && head[8..12] == crc.finalize().to_le_bytes()
            && head[16..24] == event.index.to_le_bytes()
    })
}

/// Whether a file holds no whole record now that it did not hold before. What no disk makes by
/// accident is not tried in a life, where whatever the spool hands out must have been told:
/// [`checked_records`] is for that.
fn only_harmed(before: &[u8], after: &[u8]) -> bool {
    let records = |file| {
        let found = segment::scan(file).filter_map(|found| match found {
            Found::Record(at, record) => Some((at, record)),
            Found::Damage(..) | Found::Tail(_) => None,
        });
        found.collect::<Vec<_>>()
    };
    let before = records(before);
    records(after).iter().all(|record| before.contains(record))
}

fn tell(store: &mut Store, words: &str) -> Result<(), Refused> {
    store.append(Time::from_micros(1), "x.y", |boot, seq| {
        Some(format!("{{\"boot\":\"{boot}\",\"seq\":{seq},\"words\":\"{words}\"}}").into_bytes())
    })
}

/// A spool that is used, torn, hit and opened again, and what must be in it.
struct Life {
    dir: PathBuf,
    store: Store,
    boots: u32,
    /// Everything that was ever taken, by its envelope, in order.
    told: Vec<String>,
    /// How many of those may be missing: the disk lost them.
    lost: BTreeMap<String, ()>,
    delivered: usize,
}

impl Life {
    fn begin(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            store: open(dir, "0"),
            boots: 0,
            told: Vec::new(),
            lost: BTreeMap::new(),
            delivered: 0,
        }
    }

    fn live(mut self, mut script: Script<'_>) {
        let mut steps = 0;
        while !script.is_over() && steps < STEPS {
            steps += 1;
            match script.below(8) {
                0..=2 => self.tell(usize::from(script.byte())),
                3 => self.deliver(usize::from(script.byte()), usize::from(script.byte()) * 8),
                4 => {}
                5 => self.tear(script.byte()),
                6 => self.flip(&mut script),
                _ => {
                    let most = usize::from(script.byte());
                    self.junk(script.bytes(most));
                }
            }
            self.restart_and_look();
        }
    }

    fn tell(&mut self, length: usize) {
        let words = format!("{}{}", self.told.len(), "x".repeat(length));
        match tell(&mut self.store, &words) {
            Ok(()) => {
                flush(&mut self.store);
                let all = waiting(&mut self.store);
                let last = String::from_utf8(all.last().unwrap().envelope.to_vec()).unwrap();
                assert!(last.contains(&words));
                self.told.push(last);
            }
            Err(Refused::Full { bytes, limit }) => assert!(bytes <= limit && limit == SMALL.bytes),
            Err(error) => panic_on(&error),
        }
    }

    fn deliver(&mut self, most: usize, most_bytes: usize) {
        let batch = self.store.batch(most, most_bytes).unwrap();
        let envelopes = batch.events.iter().map(|event| text(&event.envelope));
        for envelope in envelopes {
            let at = self.told.iter().position(|told| *told == envelope).unwrap();
            self.delivered = self.delivered.max(at + 1);
        }
        self.store.delivered(batch.through).unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    /// The events whose records lie where a file was hit may be gone.
    fn hit(&mut self, file: &[u8], from: usize, to: usize) {
        for found in segment::scan(file) {
            let Found::Record(at, record) = found else {
                continue;
            };
            if at < to
                && from < at + record.length()
                && let Some(event) = Event::of_body(record.body)
            {
                self.lost.insert(text(event.envelope), ());
            }
        }
    }

    /// The end of the last file never reached the disk.
    fn tear(&mut self, bytes: u8) {
        let Some(path) = self.files().pop() else {
            return;
        };
        let file = fs::read(&path).unwrap();
        let left = file.len().saturating_sub(usize::from(bytes));
        self.hit(&file, left, file.len());
        fs::write(path, &file[..left]).unwrap();
    }

    fn flip(&mut self, script: &mut Script<'_>) {
        let files = self.files();
        let Some(path) = files.get(script.place(files.len())) else {
            return;
        };
        let mut file = fs::read(path).unwrap();
        if file.is_empty() {
            return;
        }
        let at = script.place(file.len());
        let before = file.clone();
        file[at] ^= 1 << script.below(8);
        if only_harmed(&before, &file) {
            self.hit(&before, at, at + 1);
            fs::write(path, file).unwrap();
        }
    }

    /// Something is behind the last record that is none.
    fn junk(&mut self, bytes: &[u8]) {
        let Some(path) = self.files().pop() else {
            return;
        };
        let before = fs::read(&path).unwrap();
        if only_harmed(&before, &[&before, bytes].concat()) {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    fn restart_and_look(&mut self) {
        self.boots += 1;
        self.store = open(&self.dir, &self.boots.to_string());
        let found = waiting(&mut self.store);
        let found: Vec<String> = found.iter().map(|event| text(&event.envelope)).collect();
        let mut place = 0;
        for envelope in &found {
            let at = self.told[place..].iter().position(|told| told == envelope);
            let Some(at) = at else {
                panic_on(&format!(
                    "{envelope} was not written, comes twice or too early"
                ))
            };
            place += at + 1;
        }
        for told in &self.told[self.delivered..] {
            let there = found.contains(told) || self.lost.contains_key(told);
            assert!(there, "{told} was flushed, and is not there");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[expect(clippy::panic, reason = "a panic is what the fuzzer looks for")]
fn panic_on(what: &impl std::fmt::Debug) -> ! {
    panic!("{what:?}")
}

/// A spool as it lies on a disk, and lives with every kind of step.
///
/// # Panics
/// Where this folder cannot be used.
#[must_use]
pub fn seeds(dir: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut store = open(dir, "a");
    for n in 0..8 {
        tell(&mut store, &format!("event {n}")).unwrap();
        flush(&mut store);
    }
    store.delivered(3).unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let files: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let on_disk = files.join(&b'|');
    let torn = on_disk[..on_disk.len() - 9].to_vec();
    let whole = [&[0][..], &on_disk].concat();
    let checked = b"\x01\x05\x02\x00\x01\x03abc\x05\x05\x02\x00\x02\x03def\x06\x01\x02\x04\x02\x01\x03\x00\x03\x05\x02\x01\x01\x02gh\x07";
    let life = [
        2, 0, 9, 1, 200, 0, 30, 3, 1, 9, 2, 8, 5, 4, 0, 7, 6, 0, 0, 50, 1, 7, 3, 1, 2, 3, 0, 1,
    ];
    let many: Vec<u8> = [2]
        .into_iter()
        .chain((0..40).flat_map(|n| [n % 4, 40, n]))
        .collect();
    vec![
        ("whole", whole),
        ("torn", [&[0][..], &torn].concat()),
        ("checked", checked.to_vec()),
        ("life", life.to_vec()),
        ("many", many),
    ]
}
