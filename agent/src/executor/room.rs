//! How much output of all jobs together may lie on this machine's disk: one bound by bytes and by
//! age, and a reserve of the disk that is left for results and events.
//!
//! It knows every segment of every log and which of them the hub has. What has to go goes oldest
//! first, of whichever job: segments that the hub has before those that it has not, and only the
//! latter are lost and counted. The segment that is being written is never taken. Told what happens,
//! it touches the disk only to remove and to measure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::{OutputCount, OutputStream};
use serde::{Deserialize, Serialize};

use super::log;

/// Bytes of the disk that output leaves free, at the most: on a small disk a sixteenth of it.
const RESERVE_MAX: u64 = 64 * 1024 * 1024;
/// How seldom what is too old is looked for, at the least: a clock may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// The disk is measured each time that so much was written, in bytes.
const MEASURE_EVERY: u64 = 256 * 1024;

/// How much output may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputBound {
    /// Bytes on disk, of all jobs.
    pub bytes: u64,
    /// Segments that were last written to longer ago go, in milliseconds.
    pub age_ms: u64,
}

impl OutputBound {
    /// Unless configured, in bytes.
    pub const BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
    /// Unless configured.
    pub const AGE_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
    /// No bound.
    pub(crate) const NONE: Self = Self {
        bytes: u64::MAX,
        age_ms: u64::MAX,
    };
}

impl Default for OutputBound {
    fn default() -> Self {
        Self {
            bytes: Self::BYTES_DEFAULT,
            age_ms: u64::try_from(Self::AGE_DEFAULT.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What is kept, and what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of output that were lost before the hub had them, since the executor started.
    pub dropped: u64,
}

/// One segment of a log.
#[derive(Debug)]
struct Segment {
    /// Its place among all segments, the oldest first.
    place: u64,
    first: u64,
    last: u64,
    /// Bytes on disk.
    bytes: u64,
    /// Output in it, standard output and standard error.
    output: [u64; 2],
    written: SystemTime,
}

/// The segments of one attempt, oldest first.
#[derive(Debug, Default)]
struct Log {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    /// Chunks that the hub has.
    delivered: u64,
    /// Output that is no longer here, standard output and standard error.
    gone: [u64; 2],
}

#[derive(Debug)]
struct Inner {
    bound: OutputBound,
    logs: HashMap<AttemptId, Log>,
    /// Whose each segment is.
    places: BTreeMap<u64, AttemptId>,
    /// Those of them that the hub has.
    spare: BTreeSet<u64>,
    next: u64,
    kept: Kept,
    /// Bytes that may be written before the disk is measured again.
    unmeasured: u64,
}

/// Shared by the writers of all logs.
#[derive(Debug)]
pub(crate) struct Room(Mutex<Inner>);

fn which(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

impl Room {
    /// Room for so much.
    pub(crate) fn new(bound: OutputBound) -> Self {
        Self(Mutex::new(Inner {
            bound,
            logs: HashMap::new(),
            places: BTreeMap::new(),
            spare: BTreeSet::new(),
            next: 0,
            kept: Kept::default(),
            unmeasured: 0,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another bound from now on.
    pub(crate) fn set_bound(&self, bound: OutputBound, now: SystemTime) {
        let mut inner = self.inner();
        inner.bound = bound;
        inner.trim(None);
        inner.expire(now);
    }

    /// Bytes that may be kept.
    pub(crate) fn bound(&self) -> u64 {
        self.inner().bound.bytes
    }

    /// What is kept, and what was lost.
    pub(crate) fn kept(&self) -> Kept {
        self.inner().kept
    }

    /// Takes in logs that an earlier executor left, and what is known of those that have ended.
    pub(crate) fn load(
        &self,
        logs: impl Iterator<Item = (AttemptId, PathBuf, Option<OutputCount>)>,
    ) {
        let mut inner = self.inner();
        let mut found = Vec::new();
        for (attempt, dir, count) in logs {
            let firsts = log::segments(&dir).unwrap_or_default();
            for (n, first) in firsts.iter().enumerate() {
                let path = log::segment_path(&dir, *first);
                let Ok(file) = std::fs::metadata(path) else {
                    continue;
                };
                // Where it ends, the next one begins; the last one where the log does.
                let next = firsts.get(n + 1);
                let last = match (next, count) {
                    (Some(next), _) => next.saturating_sub(1),
                    (None, Some(count)) => count.chunks,
                    (None, None) => u64::MAX,
                };
                let end = match next {
                    Some(next) => log::counts_before(&dir, *next),
                    None => count.map(|count| [count.stdout.bytes, count.stderr.bytes]),
                };
                let output = match (log::counts_before(&dir, *first), end) {
                    (Some(from), Some(to)) => {
                        [to[0].saturating_sub(from[0]), to[1].saturating_sub(from[1])]
                    }
                    // Its head or its end was never written.
                    _ => [file.len(), 0],
                };
                let written = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((written, attempt, *first, last, file.len(), output));
            }
            let log = Log {
                dir,
                ..Log::default()
            };
            inner.logs.insert(attempt, log);
        }
        found.sort_unstable();
        for (written, attempt, first, last, bytes, output) in found {
            inner.begin(attempt, first, written);
            let log = inner.logs.get_mut(&attempt);
            if let Some(segment) = log.and_then(|log| log.segments.back_mut()) {
                (segment.last, segment.bytes, segment.output) = (last, bytes, output);
            }
            inner.kept.bytes += bytes;
        }
        inner.trim(None);
    }

    /// A segment that begins with this chunk was made, and so many bytes of it.
    pub(crate) fn begin(&self, attempt: AttemptId, dir: &Path, first: u64, bytes: u64) {
        let mut inner = self.inner();
        let log = inner.logs.entry(attempt).or_default();
        if log.dir.as_os_str().is_empty() {
            log.dir = dir.to_owned();
        }
        // One that could not be written before lay there with the same first chunk.
        let again = log.segments.back().is_some_and(|last| last.first == first);
        if !again {
            inner.begin(attempt, first, SystemTime::now());
            inner.grow(attempt, first.saturating_sub(1), bytes);
        }
    }

    /// A chunk was written to the newest segment.
    pub(crate) fn grew(
        &self,
        attempt: AttemptId,
        seq: u64,
        stream: OutputStream,
        output: u64,
        bytes: u64,
    ) {
        let mut inner = self.inner();
        inner.grow(attempt, seq, bytes);
        let log = inner.logs.get_mut(&attempt);
        if let Some(segment) = log.and_then(|log| log.segments.back_mut()) {
            segment.output[which(stream)] += output;
        }
    }

    /// Whether the newest segment of a log is still this one.
    pub(crate) fn has(&self, attempt: AttemptId, first: u64) -> bool {
        let inner = self.inner();
        let newest = inner.logs.get(&attempt).and_then(|log| log.segments.back());
        newest.is_some_and(|segment| segment.first == first)
    }

    /// Output of a log that is no longer here, standard output and standard error.
    pub(crate) fn gone(&self, attempt: AttemptId) -> [u64; 2] {
        let inner = self.inner();
        inner.logs.get(&attempt).map_or([0; 2], |log| log.gone)
    }

    /// Output that could not be written at all.
    pub(crate) fn refused(&self, bytes: u64) {
        self.inner().kept.dropped += bytes;
    }

    /// Makes room after a chunk: the log's own oldest go over `keep`, everybody's over the bound.
    pub(crate) fn trim(&self, attempt: AttemptId, keep: u64) {
        let mut inner = self.inner();
        while let Some(log) = inner.logs.get(&attempt)
            && let Some(oldest) = log.segments.front().filter(|_| log.segments.len() > 1)
            && let sum = log.segments.iter().map(Segment::payload).sum::<u64>()
            && sum - oldest.payload() >= keep
        {
            let place = oldest.place;
            if !inner.remove(place) {
                break;
            }
        }
        inner.trim(Some(attempt));
    }

    /// Lets go of the oldest segment but the one that this attempt writes; whether there was one.
    pub(crate) fn drop_one(&self, writing: AttemptId) -> bool {
        self.inner().drop_one(Some(writing))
    }

    /// Whether so much may be written as far as the disk goes. Where what is free is less than what
    /// must be, the oldest output goes for it.
    pub(crate) fn fits(&self, writing: AttemptId, dir: &Path, bytes: u64) -> bool {
        let mut inner = self.inner();
        if inner.unmeasured >= bytes {
            inner.unmeasured -= bytes;
            return true;
        }
        let Some((free, reserve)) = measure(dir) else {
            return true;
        };
        let needed = (reserve + MEASURE_EVERY).saturating_sub(free);
        // What a file system frees may be seen late: it counts when it is removed.
        let begun = inner.kept.bytes;
        while begun - inner.kept.bytes < needed {
            if !inner.drop_one(Some(writing)) {
                break;
            }
        }
        let room = free.saturating_add(begun - inner.kept.bytes);
        inner.unmeasured = room.saturating_sub(reserve).min(MEASURE_EVERY);
        let fits = inner.unmeasured >= bytes;
        inner.unmeasured = inner.unmeasured.saturating_sub(bytes);
        fits
    }

    /// The hub has the chunks of an attempt up to this one.
    pub(crate) fn delivered(&self, attempt: AttemptId, chunks: u64) {
        let mut inner = self.inner();
        let Some(log) = inner.logs.get_mut(&attempt) else {
            return;
        };
        log.delivered = log.delivered.max(chunks);
        let whole = log.segments.iter().filter(|s| s.last <= log.delivered);
        let places: Vec<u64> = whole.map(|segment| segment.place).collect();
        inner.spare.extend(places);
    }

    /// An attempt's files are gone, or soon will be.
    pub(crate) fn forget(&self, attempt: AttemptId) {
        let mut inner = self.inner();
        let Some(log) = inner.logs.remove(&attempt) else {
            return;
        };
        for segment in log.segments {
            inner.places.remove(&segment.place);
            inner.spare.remove(&segment.place);
            inner.kept.bytes = inner.kept.bytes.saturating_sub(segment.bytes);
        }
    }

    /// Lets go of what is too old.
    pub(crate) fn expire(&self, now: SystemTime) {
        self.inner().expire(now);
    }

    /// When the oldest segment is too old.
    pub(crate) fn expires_in(&self, now: SystemTime) -> Option<Duration> {
        let inner = self.inner();
        let oldest = inner.oldest()?;
        let age = now.duration_since(oldest.written).unwrap_or_default();
        let left = Duration::from_millis(inner.bound.age_ms).saturating_sub(age);
        // One that cannot be removed is tried again, and not without end.
        Some(left.clamp(Duration::from_secs(1), LOOK_AGAIN))
    }
}

impl Segment {
    fn payload(&self) -> u64 {
        self.output[0] + self.output[1]
    }
}

impl Inner {
    fn begin(&mut self, attempt: AttemptId, first: u64, written: SystemTime) {
        self.next += 1;
        let place = self.next;
        let log = self.logs.entry(attempt).or_default();
        log.segments.push_back(Segment {
            place,
            first,
            last: first,
            bytes: 0,
            output: [0; 2],
            written,
        });
        self.places.insert(place, attempt);
    }

    fn grow(&mut self, attempt: AttemptId, seq: u64, bytes: u64) {
        let log = self.logs.get_mut(&attempt);
        let Some(segment) = log.and_then(|log| log.segments.back_mut()) else {
            return;
        };
        segment.last = seq;
        segment.bytes += bytes;
        segment.written = SystemTime::now();
        self.spare.remove(&segment.place);
        self.kept.bytes += bytes;
    }

    fn oldest(&self) -> Option<&Segment> {
        let (place, attempt) = self.places.first_key_value()?;
        let mut segments = self.logs.get(attempt)?.segments.iter();
        segments.find(|segment| segment.place == *place)
    }

    fn trim(&mut self, writing: Option<AttemptId>) {
        while self.kept.bytes > self.bound.bytes && self.drop_one(writing) {}
    }

    fn expire(&mut self, now: SystemTime) {
        let age = Duration::from_millis(self.bound.age_ms);
        while let Some(oldest) = self.oldest()
            && now.duration_since(oldest.written).unwrap_or_default() >= age
        {
            let place = oldest.place;
            if !self.remove(place) {
                return;
            }
        }
    }

    /// Lets go of the oldest that the hub has, else of the oldest.
    fn drop_one(&mut self, writing: Option<AttemptId>) -> bool {
        let newest = writing.and_then(|attempt| self.logs.get(&attempt)?.segments.back());
        let newest = newest.map(|segment| segment.place);
        let mut spare = self.spare.iter().copied();
        let mut all = self.places.keys().copied();
        let may_go = |place: &u64| Some(*place) != newest;
        let found = spare.find(may_go).or_else(|| all.find(may_go));
        found.is_some_and(|place| self.remove(place))
    }

    /// Removes one segment; false where its file cannot be removed.
    fn remove(&mut self, place: u64) -> bool {
        let Some(attempt) = self.places.get(&place) else {
            return false;
        };
        let Some(log) = self.logs.get_mut(attempt) else {
            return false;
        };
        let Some(at) = log.segments.iter().position(|s| s.place == place) else {
            return false;
        };
        let first = log.segments[at].first;
        match std::fs::remove_file(log::segment_path(&log.dir, first)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, folder = %log.dir.display(), "cannot remove old output");
                return false;
            }
            _ => {}
        }
        let Some(segment) = log.segments.remove(at) else {
            return false;
        };
        for (gone, output) in log.gone.iter_mut().zip(segment.output) {
            *gone += output;
        }
        if segment.last > log.delivered {
            self.kept.dropped += segment.payload();
        }
        self.kept.bytes = self.kept.bytes.saturating_sub(segment.bytes);
        self.places.remove(&place);
        self.spare.remove(&place);
        true
    }
}

/// Bytes free on the disk of this folder, and how many of them must stay so.
fn measure(dir: &Path) -> Option<(u64, u64)> {
    let place = dir.ancestors().find(|folder| folder.is_dir())?;
    let disk = rustix::fs::statvfs(place).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    Some((free, RESERVE_MAX.min(total / 16)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::log::{CHUNK_HEADER, LogReader, LogWriter};
    use super::*;
    use fleet_contract::time::Time;

    const SMALL: OutputBound = OutputBound {
        bytes: 1024 * 1024,
        age_ms: 60_000,
    };
    const PIECE: usize = 16 * 1024;

    fn id(n: u8) -> AttemptId {
        AttemptId::from_random([n; 10])
    }

    struct Logs {
        dir: tempfile::TempDir,
        room: Arc<Room>,
    }

    impl Logs {
        fn new(bound: OutputBound) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let room = Arc::new(Room::new(bound));
            Self { dir, room }
        }

        fn folder(&self, n: u8) -> PathBuf {
            self.dir.path().join(n.to_string())
        }

        fn log(&self, n: u8) -> LogWriter {
            LogWriter::new(id(n), self.folder(n), 1 << 30, self.room.clone())
        }

        /// Bytes of output that can still be read, and the first chunk of it.
        fn left(&self, n: u8, chunks: u64) -> (u64, u64) {
            let (mut reader, mut next) = (LogReader::new(self.folder(n)), 1);
            let (mut bytes, mut first) = (0, 0);
            while next <= chunks {
                let read = reader.read_from(next, chunks, usize::MAX).unwrap();
                for chunk in &read.chunks {
                    bytes += chunk.bytes.len() as u64;
                    first = if first == 0 { chunk.seq } else { first };
                }
                let last = read.chunks.last().map(|chunk| chunk.seq);
                next = last.or(read.gap.map(|gap| gap.to)).unwrap() + 1;
            }
            (bytes, first)
        }

        fn on_disk(&self) -> u64 {
            let logs = std::fs::read_dir(self.dir.path()).unwrap();
            let files = logs.flat_map(|log| std::fs::read_dir(log.unwrap().path()).unwrap());
            files
                .map(|file| file.unwrap().metadata().unwrap().len())
                .sum()
        }
    }

    fn write(log: &mut LogWriter, pieces: usize) {
        for _ in 0..pieces {
            let mut frame = vec![7; CHUNK_HEADER + PIECE];
            assert!(log.append(OutputStream::Stdout, Time::default(), &mut frame));
        }
    }

    #[test]
    fn the_oldest_of_all_logs_goes_and_what_is_lost_is_counted_to_the_byte() {
        let logs = Logs::new(SMALL);
        let mut all: Vec<LogWriter> = (0..4).map(|n| logs.log(n)).collect();
        // 400 KiB each, one after the other: the first is gone, of the second a part.
        for log in &mut all {
            write(log, 25);
            assert!(logs.room.kept().bytes <= SMALL.bytes, "after every chunk");
        }
        assert_eq!(logs.on_disk(), logs.room.kept().bytes);
        let left: Vec<(u64, u64)> = (0..4).map(|n| logs.left(n, 25)).collect();
        assert_eq!(left[0], (0, 0));
        assert!((1..25).contains(&left[1].1.saturating_sub(1)), "{left:?}");
        assert_eq!([left[2], left[3]], [(25 * PIECE as u64, 1); 2]);
        let there: u64 = left.iter().map(|(bytes, _)| bytes).sum();
        let lost = 4 * 25 * PIECE as u64 - there;
        assert_eq!(logs.room.kept().dropped, lost);
        let gone: u64 = all.iter().map(|log| log.count().stdout.dropped).sum();
        assert_eq!(gone, lost);
        // One that lost all goes on where it was.
        write(&mut all[0], 1);
        assert_eq!(logs.left(0, 26), (PIECE as u64, 26));
        // What was forgotten makes room without a loss.
        let before = logs.room.kept();
        logs.room.forget(id(3));
        assert!(logs.room.kept().bytes < before.bytes);
        write(&mut all[2], 5);
        assert_eq!(logs.room.kept().dropped, before.dropped);
    }

    #[test]
    fn what_the_hub_has_goes_first_and_is_no_loss() {
        let logs = Logs::new(SMALL);
        let (mut old, mut new) = (logs.log(1), logs.log(2));
        write(&mut old, 25);
        write(&mut new, 25);
        logs.room.delivered(id(2), 25);
        write(&mut old, 30);
        assert_eq!(logs.room.kept().dropped, 0);
        assert_eq!(logs.left(1, 55).1, 1, "all of it waits");
        assert!(logs.left(2, 25).1 > 1, "some of it went");
        // What is delivered and goes on is not all delivered.
        write(&mut new, 60);
        assert!(logs.room.kept().dropped > 0);
    }

    #[test]
    fn the_next_executor_knows_what_is_there_and_what_it_loses() {
        let logs = Logs::new(SMALL);
        let (mut one, mut two) = (logs.log(1), logs.log(2));
        write(&mut one, 25);
        write(&mut two, 25);
        let kept = logs.room.kept();
        let room = Room::new(SMALL);
        let of = |n: u8, count| (id(n), logs.folder(n), Some(count));
        room.load([of(1, one.count()), of(2, two.count())].into_iter());
        assert_eq!(room.kept(), kept);
        let half = OutputBound {
            bytes: kept.bytes / 2,
            ..SMALL
        };
        room.set_bound(half, SystemTime::now());
        let there = logs.left(1, 25).0 + logs.left(2, 25).0;
        assert_eq!(room.kept().dropped, 50 * PIECE as u64 - there);
        assert!(room.kept().bytes <= half.bytes);
        assert_eq!(logs.left(2, 25), (25 * PIECE as u64, 1), "the oldest first");
    }

    #[test]
    fn what_is_too_old_goes_when_its_time_comes() {
        let logs = Logs::new(SMALL);
        assert_eq!(logs.room.expires_in(SystemTime::now()), None);
        let mut log = logs.log(1);
        write(&mut log, 3);
        let now = SystemTime::now();
        let left = logs.room.expires_in(now).unwrap();
        assert!(left <= Duration::from_secs(60), "{left:?}");
        logs.room.expire(now);
        assert_eq!(logs.left(1, 3).1, 1);
        logs.room.expire(now + Duration::from_secs(61));
        assert_eq!(logs.left(1, 3), (0, 0));
        assert_eq!(logs.room.kept().dropped, 3 * PIECE as u64);
        assert_eq!(logs.room.kept().bytes, 0);
        // The job goes on.
        write(&mut log, 1);
        assert_eq!(logs.left(1, 4), (PIECE as u64, 4));
    }
}
