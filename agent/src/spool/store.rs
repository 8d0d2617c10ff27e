//! The spool's files: segments of records that are only appended to, the oldest removed when all in
//! it is delivered. Blocks on the disk; one owner at a time.
//!
//! A record counts from when it is flushed: [`Store::synced`] says so, and nothing that is not is
//! handed out. That something was delivered is only noted, not flushed: what is handed out twice
//! after a power loss is found again by its place.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_contract::time::Time;

use super::segment::{self, Event, Found, Kind, Record};
use crate::executor::make_private_dir;

/// Most bytes of a segment that are read: no segment that was written here is larger.
const READ_MAX: u64 = 64 * 1024 * 1024;

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// Bytes of one segment; it may be passed by one record.
    pub(crate) segment: u64,
    /// Segments whose last event is older go, delivered or not.
    pub(crate) age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 * 1024 * 1024,
            segment: 1024 * 1024,
            age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// As much waits as may.
    #[error("the spool is full: {bytes} bytes wait for the hub, {limit} may")]
    Full {
        /// Bytes on disk.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// It cannot be put into a record: too large.
    #[error("the event is too large to be kept")]
    TooLarge,
    /// The disk's.
    #[error("the spool cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// Records that are gone, and why it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// In which file.
    pub(crate) file: String,
    /// What is wrong with it.
    pub(crate) what: &'static str,
    /// Bytes that are no record.
    pub(crate) bytes: u64,
    /// Events that must have been there; 0 where that cannot be said.
    pub(crate) events: u64,
}

/// An event to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spooled {
    /// Its place in the spool.
    pub(crate) index: u64,
    /// When it happened.
    pub(crate) time: Time,
    /// Which run of the agent told it.
    pub(crate) boot: String,
    /// That run's count.
    pub(crate) seq: u64,
    /// What happened.
    pub(crate) kind: String,
    /// Its envelope.
    pub(crate) envelope: Bytes,
}

/// Events to deliver, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Spooled>,
    /// Once these are delivered, everything up to here is.
    pub(crate) through: u64,
}

/// What waits to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waiting {
    /// Events.
    pub(crate) events: u64,
    /// Their bytes on disk, or a little more.
    pub(crate) bytes: u64,
    /// When the oldest happened.
    pub(crate) oldest: Option<Time>,
}

/// Events of one run of the agent, which follow each other in the spool.
#[derive(Debug, Clone)]
struct Run {
    boot: String,
    /// Index and count of one of them: the others stand as far from it in both.
    index: u64,
    seq: u64,
    last: u64,
}

#[derive(Debug)]
struct Segment {
    /// The index of its first record: its name.
    first: u64,
    bytes: u64,
    newest: Time,
}

/// Where the next event to deliver begins, or a mark before it.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    first: u64,
    offset: u64,
}

/// The spool's files.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    limits: Limits,
    boot: String,
    seq: u64,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    file: Option<Arc<File>>,
    /// Index of the next event.
    next: u64,
    synced: u64,
    delivered: u64,
    cursor: Option<Cursor>,
    runs: Vec<Run>,
    damages: Vec<Damage>,
    /// Up to which index missing events have been told of.
    told: u64,
}

fn file_name(first: u64) -> String {
    format!("events-{first:019}")
}

impl Store {
    /// Opens the spool in this folder, for a run of the agent that is called `boot`. Truncates a
    /// torn end, steps over damage; [`Store::damages`] says what was found.
    pub(crate) fn open(dir: &Path, limits: Limits, boot: &str) -> io::Result<Self> {
        make_private_dir(dir)?;
        let mut store = Self {
            dir: dir.to_owned(),
            limits,
            boot: boot.to_owned(),
            seq: 0,
            segments: VecDeque::new(),
            file: None,
            next: 1,
            synced: 0,
            delivered: 0,
            cursor: None,
            runs: Vec::new(),
            damages: Vec::new(),
            told: 0,
        };
        let firsts = store.firsts()?;
        let last = firsts.last().copied();
        for first in firsts {
            store.load(first, Some(first) == last)?;
        }
        store.synced = store.next - 1;
        store.told = store.synced;
        store.delivered = store.delivered.min(store.synced);
        if let Some(oldest) = store.segments.front() {
            store.delivered = store.delivered.max(oldest.first.saturating_sub(1));
        }
        store.trim();
        Ok(store)
    }

    fn firsts(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("events-"));
            let number = number.and_then(|n| n.parse::<u64>().ok());
            found.extend(number.filter(|first| (1..segment::INDEX_MAX).contains(first)));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir.join(file_name(first))
    }

    /// Reads one segment at the start.
    fn load(&mut self, first: u64, last: bool) -> io::Result<()> {
        let bytes = self.read(Cursor { first, offset: 0 })?;
        let mut length = bytes.len();
        let mut newest = Time::default();
        // Nothing is known of what was before the first segment.
        if !self.segments.is_empty() {
            self.miss(first, first.saturating_sub(self.next), 0);
        }
        self.next = self.next.max(first);
        for found in segment::scan(&bytes) {
            match found {
                Found::Record(_, record) if record.kind == Kind::Delivered => {
                    self.delivered = record.index;
                    // It was given out, though the event may be damaged: whoever got it again would
                    // be delivered already.
                    self.next = self.next.max(record.index + 1);
                }
                Found::Record(_, record) => {
                    newest = newest.max(record.time);
                    self.know(first, &record);
                }
                Found::Damage(_, bytes) => self.damaged(first, "damaged", bytes),
                Found::Tail(at) if last => {
                    self.damaged(first, "torn at its end", length - at);
                    length = at;
                }
                Found::Tail(at) => self.damaged(first, "damaged at its end", length - at),
            }
        }
        if last && length < bytes.len() {
            // What is appended from now on must not lie behind half a record.
            let file = OpenOptions::new().write(true).open(self.path(first))?;
            file.set_len(length as u64)?;
            file.sync_all()?;
        }
        self.segments.push_back(Segment {
            first,
            bytes: length as u64,
            newest,
        });
        Ok(())
    }

    /// Takes in an event that was read at the start.
    fn know(&mut self, first: u64, record: &Record<'_>) {
        match Event::of_body(record.body) {
            Some(event) if record.index >= self.next => {
                self.miss(first, record.index - self.next, 0);
                self.next = record.index + 1;
                self.run(event.boot, record.index, event.seq);
            }
            _ => self.damaged(first, "holds what does not belong there", record.length()),
        }
    }

    /// So many events should be in a segment and are not, as so many damaged bytes may explain.
    fn miss(&mut self, first: u64, events: u64, bytes: usize) {
        if events > 0 || bytes > 0 {
            self.damages.push(Damage {
                file: file_name(first),
                what: "misses events",
                bytes: bytes as u64,
                events,
            });
        }
    }

    fn run(&mut self, boot: &str, index: u64, seq: u64) {
        match self.runs.last_mut() {
            Some(run)
                if run.boot == boot
                    && index.wrapping_sub(run.index) == seq.wrapping_sub(run.seq) =>
            {
                run.last = index;
            }
            _ => self.runs.push(Run {
                boot: boot.to_owned(),
                index,
                seq,
                last: index,
            }),
        }
    }

    fn damaged(&mut self, first: u64, what: &'static str, bytes: usize) {
        self.damages.push(Damage {
            file: file_name(first),
            what,
            bytes: bytes as u64,
            events: 0,
        });
    }

    /// What was found to be damaged since this was asked last.
    pub(crate) fn damages(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damages)
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Appends an event, whose envelope `encode` makes for its place in its run. Not flushed yet.
    pub(crate) fn append(
        &mut self,
        time: Time,
        kind: &str,
        encode: impl FnOnce(&str, u64) -> Option<Vec<u8>>,
    ) -> Result<(), Refused> {
        let seq = self.seq + 1;
        let envelope = encode(&self.boot, seq).ok_or(Refused::TooLarge)?;
        let event = Event {
            boot: &self.boot,
            seq,
            kind,
            envelope: &envelope,
        };
        let body = event.to_body().ok_or(Refused::TooLarge)?;
        let record = Record {
            kind: Kind::Event,
            index: self.next,
            time,
            body: &body,
        };
        let frame = segment::encode(&record).ok_or(Refused::TooLarge)?;
        let more = frame.len() as u64;
        let (full, empty) = (
            self.bytes() + more > self.limits.bytes,
            self.delivered + 1 == self.next,
        );
        let due = |s: &Segment| s.bytes >= self.limits.segment || (full && empty);
        if self
            .segments
            .back()
            .is_none_or(|s| due(s) && s.first < self.next)
        {
            self.begin_segment()?;
            self.trim();
        }
        if self.bytes() + more > self.limits.bytes {
            return Err(Refused::Full {
                bytes: self.bytes(),
                limit: self.limits.bytes,
            });
        }
        self.write(&frame)?;
        let boot = std::mem::take(&mut self.boot);
        self.run(&boot, self.next, seq);
        self.boot = boot;
        self.seq = seq;
        self.next += 1;
        if let Some(segment) = self.segments.back_mut() {
            segment.newest = segment.newest.max(time);
        }
        Ok(())
    }

    /// Makes the next segment; what was written to the one before is flushed first.
    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_data()?;
        }
        let first = self.next;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path(first))?;
        // Left over where the disk was full when it was tried before.
        file.set_len(0)?;
        File::open(&self.dir)?.sync_all()?;
        self.segments.push_back(Segment {
            first,
            bytes: 0,
            newest: Time::default(),
        });
        self.file = Some(Arc::new(file));
        Ok(())
    }

    /// Appends to the last segment, all or nothing.
    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let Some((first, before)) = self.segments.back().map(|s| (s.first, s.bytes)) else {
            return Ok(());
        };
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let file = OpenOptions::new().append(true).open(self.path(first))?;
                let file = Arc::new(file);
                self.file = Some(file.clone());
                file
            }
        };
        if let Err(error) = (&*file).write_all(frame) {
            // Half a record (a full disk) would hide what comes after it; where even this fails,
            // what follows goes into a segment of its own.
            if file.set_len(before).is_err() {
                self.file = None;
                if let Some(segment) = self.segments.back_mut() {
                    segment.bytes = self.limits.segment;
                }
            }
            return Err(error);
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += frame.len() as u64;
        }
        Ok(())
    }

    /// What has to be flushed, and up to which index it is then: outside of whatever guards this.
    pub(crate) fn unsynced(&self) -> Option<(Arc<File>, u64)> {
        let last = self.next - 1;
        let file = self.file.as_ref().filter(|_| last > self.synced)?;
        Some((file.clone(), last))
    }

    /// Everything up to this index is flushed.
    pub(crate) fn synced(&mut self, through: u64) {
        self.synced = self.synced.max(through.min(self.next - 1));
    }

    /// The index of the last event that is flushed.
    pub(crate) fn last_synced(&self) -> u64 {
        self.synced
    }

    /// Everything up to this index was delivered.
    pub(crate) fn last_delivered(&self) -> u64 {
        self.delivered
    }

    /// The next events, at most so many and, but for the first, so many bytes.
    pub(crate) fn batch(&mut self, most: usize, most_bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch {
            events: Vec::new(),
            through: self.delivered,
        };
        let (mut left, mut place) = (most_bytes, self.locate());
        while let Some(cursor) = place {
            let bytes = self.read(cursor)?;
            let mut bad = 0;
            for found in segment::scan(&bytes) {
                let record = match found {
                    Found::Record(_, record) => record,
                    Found::Damage(_, bytes) => {
                        bad += bytes;
                        continue;
                    }
                    // Of the last one the end may be half written at this moment.
                    Found::Tail(_) => continue,
                };
                if record.kind != Kind::Event || record.index <= batch.through {
                    continue;
                }
                // Of a later fleet, whatever index it has: nothing after it waits for it.
                let Some(event) = Event::of_body(record.body) else {
                    continue;
                };
                let fits = batch.events.is_empty() || record.body.len() <= left;
                if record.index > self.synced || batch.events.len() == most || !fits {
                    return Ok(batch);
                }
                left = left.saturating_sub(record.body.len());
                if record.index > self.told {
                    let missing = record.index - batch.through - 1;
                    self.miss(cursor.first, missing, std::mem::take(&mut bad));
                    self.told = record.index;
                }
                batch.through = record.index;
                batch.events.push(Spooled {
                    index: record.index,
                    time: record.time,
                    boot: event.boot.to_owned(),
                    seq: event.seq,
                    kind: event.kind.to_owned(),
                    envelope: Bytes::copy_from_slice(event.envelope),
                });
            }
            place = self.after(cursor);
        }
        // Whatever else should be there cannot be read.
        let last = self.segments.back().map_or(0, |s| s.first);
        if self.synced > self.told {
            self.miss(last, self.synced.saturating_sub(batch.through), 0);
            self.told = self.synced;
        }
        batch.through = batch.through.max(self.synced);
        Ok(batch)
    }

    /// Where the next event to deliver begins.
    fn locate(&mut self) -> Option<Cursor> {
        if self.delivered >= self.synced {
            return None;
        }
        if self.cursor.is_none() {
            let segments = self.segments.iter().rev();
            let mut holds = segments.skip_while(|s| s.first > self.delivered + 1);
            let segment = holds.next().or(self.segments.front())?;
            self.cursor = Some(Cursor {
                first: segment.first,
                offset: 0,
            });
        }
        self.cursor
    }

    /// The beginning of the segment after this one.
    fn after(&self, cursor: Cursor) -> Option<Cursor> {
        let next = self.segments.iter().find(|s| s.first > cursor.first)?;
        Some(Cursor {
            first: next.first,
            offset: 0,
        })
    }

    /// The bytes of a segment from here to its end; none where it is gone.
    fn read(&self, cursor: Cursor) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match File::open(self.path(cursor.first)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
            Err(error) => return Err(error),
            Ok(mut file) => {
                file.seek(SeekFrom::Start(cursor.offset))?;
                file.take(READ_MAX).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Everything up to this index is with the hub: notes it, and lets go of segments that hold
    /// nothing else.
    pub(crate) fn delivered(&mut self, through: u64) -> io::Result<()> {
        let through = through.min(self.synced);
        if through <= self.delivered {
            return Ok(());
        }
        self.move_to(through)?;
        self.mark();
        self.trim();
        Ok(())
    }

    /// Notes how far it was delivered. Only a hint, the hub knows better: a full disk is no reason
    /// not to go on.
    fn mark(&mut self) {
        let mark = Record {
            kind: Kind::Delivered,
            index: self.delivered,
            time: Time::default(),
            body: &[],
        };
        if let Some(frame) = segment::encode(&mark)
            && self.bytes() + (frame.len() as u64) <= self.limits.bytes
        {
            let _ = self.write(&frame);
        }
    }

    /// The place of an event that the hub has last: what follows it is delivered next, whether it
    /// was before or not. False where no such event is kept.
    pub(crate) fn resume_after(&mut self, boot: &str, seq: u64) -> bool {
        let found = self.runs.iter().find_map(|run| {
            let index = run.index.checked_add(seq.checked_sub(run.seq)?)?;
            (run.boot == boot && index <= run.last).then_some(index)
        });
        let kept = self.segments.front().map_or(u64::MAX, |s| s.first);
        match found {
            Some(index) if index <= self.synced && index + 1 >= kept => {
                if index != self.delivered {
                    self.delivered = index;
                    self.cursor = None;
                    self.mark();
                }
                self.trim();
                true
            }
            _ => false,
        }
    }

    /// Moves the cursor over what was delivered.
    fn move_to(&mut self, through: u64) -> io::Result<()> {
        let mut place = self.locate();
        self.delivered = through;
        while let Some(cursor) = place {
            let bytes = self.read(cursor)?;
            for found in segment::scan(&bytes) {
                if let Found::Record(at, record) = found
                    && record.kind == Kind::Event
                    && record.index > through
                {
                    self.cursor = Some(Cursor {
                        offset: cursor.offset + at as u64,
                        ..cursor
                    });
                    return Ok(());
                }
            }
            self.cursor = Some(Cursor {
                offset: cursor.offset + bytes.len() as u64,
                ..cursor
            });
            place = self.after(cursor);
        }
        Ok(())
    }

    /// Removes the oldest segments while the next one begins with what was delivered.
    fn trim(&mut self) {
        while let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1))
            && next.first <= self.delivered + 1
        {
            let (first, kept) = (oldest.first, next.first);
            match fs::remove_file(self.path(first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => {}
            }
            self.segments.pop_front();
            self.cursor = self.cursor.filter(|cursor| cursor.first != first);
            self.runs.retain(|run| run.last + 1 >= kept);
        }
    }

    /// Lets go of segments whose last event is older than may be, delivered or not: how many events
    /// that nobody will ever see.
    pub(crate) fn expire(&mut self, now: Time) -> u64 {
        let mut gone = 0;
        while let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1))
            && now.since(oldest.newest) > self.limits.age
        {
            let through = next.first - 1;
            gone += through.saturating_sub(self.delivered.max(oldest.first.saturating_sub(1)));
            if self.delivered < through {
                self.delivered = through;
                self.cursor = None;
            }
            let before = self.segments.len();
            self.trim();
            if self.segments.len() == before {
                break;
            }
        }
        gone
    }

    /// What waits.
    pub(crate) fn waiting(&mut self) -> Waiting {
        let Some(cursor) = self.locate() else {
            return Waiting::default();
        };
        let of = |s: &Segment| match s.first == cursor.first {
            true => s.bytes.saturating_sub(cursor.offset),
            false => s.bytes,
        };
        let later = self.segments.iter().filter(|s| s.first >= cursor.first);
        let bytes = later.map(of).sum();
        Waiting {
            events: self.synced - self.delivered,
            bytes,
            oldest: self.oldest(cursor),
        }
    }

    /// When the first event that waits happened, where it can be read.
    fn oldest(&self, cursor: Cursor) -> Option<Time> {
        let bytes = self.read(cursor).ok()?;
        segment::scan(&bytes).find_map(|found| match found {
            Found::Record(_, r) if r.kind == Kind::Event && r.index > self.delivered => {
                Some(r.time)
            }
            _ => None,
        })
    }
}
