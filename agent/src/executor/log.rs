//! An attempt's output on disk: numbered chunks in segments.
//!
//! The executor alone writes, and hands each chunk to the kernel in one write, so that it
//! survives the executor's death; there is no fsync (a power loss ends the attempt as unknown
//! anyway). Readers in other processes follow while it grows. The oldest segments go when more
//! than the job's limit is kept; a reader that comes too late is told which chunks are gone.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::{CHUNK_MAX_BYTES, OutputCount, OutputStream};
use fleet_contract::time::Time;

use super::record::make_private_dir;
use super::room::Room;

/// Largest segment in bytes.
const SEGMENT_MAX: u64 = 4 * 1024 * 1024;
/// Smallest segment in bytes, however little is kept.
const SEGMENT_MIN: u64 = 64 * 1024;
/// Bytes before each chunk: magic, length, checksum, stream, sequence, offset, time.
pub(crate) const CHUNK_HEADER: usize = 40;
const CHUNK_MAGIC: &[u8; 4] = b"FLC1";
/// A segment begins with magic, checksum, and the byte counts of both streams before it.
const SEGMENT_HEADER: usize = 24;
const SEGMENT_MAGIC: &[u8; 4] = b"FLS1";

/// A piece of output as it was read from the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its number among both streams' chunks, from 1.
    pub seq: u64,
    /// Which stream it came from.
    pub stream: OutputStream,
    /// Where in that stream it begins, in bytes.
    pub offset: u64,
    /// When its first byte was read.
    pub time: Time,
    /// At most [`CHUNK_MAX_BYTES`].
    pub bytes: Bytes,
}

/// Chunks that are no longer there, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first that is gone.
    pub from: u64,
    /// The last that is gone.
    pub to: u64,
}

/// What one read gave. Where there is a gap it lies before the chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRead {
    /// Chunks between the one asked for and the first of `chunks` that can never be read.
    pub gap: Option<Gap>,
    /// In order, without holes.
    pub chunks: Vec<Chunk>,
}

pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("log-{first:016}"))
}

/// The first sequence numbers of the segments in a folder, ascending.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(|n| n.strip_prefix("log-"))
            && let Ok(first) = number.parse()
        {
            found.push(first);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Writes the chunks of one attempt.
pub(crate) struct LogWriter {
    attempt: AttemptId,
    dir: PathBuf,
    keep: u64,
    segment_limit: u64,
    room: Arc<Room>,
    /// The open segment, and its first chunk.
    file: Option<(u64, File)>,
    /// Bytes of payload in the open segment.
    filled: u64,
    /// What was counted as it came; what is no longer kept, the room knows.
    count: OutputCount,
}

impl LogWriter {
    /// A log in this folder; nothing is made before the first chunk. It keeps `keep` bytes, and no
    /// more than there is room for.
    pub(crate) fn new(attempt: AttemptId, dir: PathBuf, keep: u64, room: Arc<Room>) -> Self {
        Self {
            attempt,
            dir,
            keep,
            segment_limit: (keep.min(room.bound()) / 8).clamp(SEGMENT_MIN, SEGMENT_MAX),
            room,
            file: None,
            filled: 0,
            count: OutputCount::default(),
        }
    }

    pub(crate) fn count(&self) -> OutputCount {
        let [stdout, stderr] = self.room.gone(self.attempt);
        let mut count = self.count;
        count.stdout.dropped += stdout;
        count.stderr.dropped += stderr;
        count
    }

    /// What is kept of all logs.
    pub(crate) fn kept(&self) -> super::room::Kept {
        self.room.kept()
    }

    /// Writes `frame`, whose first [`CHUNK_HEADER`] bytes are room for the header, as the next
    /// chunk. What cannot be written (a full disk) is counted as dropped: a job does not fail
    /// because its log does.
    pub(crate) fn append(&mut self, stream: OutputStream, time: Time, frame: &mut [u8]) -> bool {
        let length = (frame.len() - CHUNK_HEADER) as u64;
        let offset = self.stream(stream).bytes;
        let seq = self.count.chunks + 1;
        fill_header(frame, stream, seq, offset, time);
        let fits = (self.room).fits(self.attempt, &self.dir, frame.len() as u64);
        let mut written = fits && self.write(seq, frame).is_ok();
        // On a full disk the oldest goes first, here as over the bound. Whatever half of the chunk
        // is there ends its segment for readers; it goes on in a new one.
        while fits && !written {
            self.file = None;
            if !self.room.drop_one(self.attempt) {
                break;
            }
            written = self.write(seq, frame).is_ok();
        }
        self.stream(stream).bytes += length;
        if !written {
            self.stream(stream).dropped += length;
            self.room.refused(length);
            return false;
        }
        self.count.chunks = seq;
        self.filled += length;
        let bytes = frame.len() as u64;
        self.room.grew(self.attempt, seq, stream, length, bytes);
        self.room.trim(self.attempt, self.keep);
        true
    }

    fn stream(&mut self, stream: OutputStream) -> &mut fleet_contract::outcome::StreamCount {
        match stream {
            OutputStream::Stdout => &mut self.count.stdout,
            OutputStream::Stderr => &mut self.count.stderr,
        }
    }

    fn write(&mut self, seq: u64, frame: &[u8]) -> io::Result<()> {
        let open = self.file.as_ref().map(|(first, _)| *first);
        let goes_on = open.is_some_and(|first| self.room.has(self.attempt, first));
        if self.filled >= self.segment_limit || !goes_on {
            self.file = None;
        }
        let (_, file) = match &mut self.file {
            Some(open) => open,
            None => {
                let file = self.open_segment(seq)?;
                self.file.insert((seq, file))
            }
        };
        file.write_all(frame)
    }

    fn open_segment(&mut self, first: u64) -> io::Result<File> {
        let mut header = [0; SEGMENT_HEADER];
        header[..4].copy_from_slice(SEGMENT_MAGIC);
        // The counts before the chunk that is being written.
        header[8..16].copy_from_slice(&self.count.stdout.bytes.to_le_bytes());
        header[16..].copy_from_slice(&self.count.stderr.bytes.to_le_bytes());
        let crc = crc32fast::hash(&header[8..]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        // A segment that could not be written before may lie there with the same first chunk.
        let path = segment_path(&self.dir, first);
        let mut file = match File::create(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_private_dir(&self.dir)?;
                File::create(&path)?
            }
            other => other?,
        };
        self.filled = 0;
        let bytes = SEGMENT_HEADER as u64;
        self.room.begin(self.attempt, &self.dir, first, bytes);
        file.write_all(&header)?;
        Ok(file)
    }
}

fn fill_header(frame: &mut [u8], stream: OutputStream, seq: u64, offset: u64, time: Time) {
    let length = u32::try_from(frame.len() - CHUNK_HEADER).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(CHUNK_MAGIC);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[12..16].copy_from_slice(&[stream_byte(stream), 0, 0, 0]);
    frame[16..24].copy_from_slice(&seq.to_le_bytes());
    frame[24..32].copy_from_slice(&offset.to_le_bytes());
    frame[32..40].copy_from_slice(&time.as_micros().to_le_bytes());
    let crc = crc32fast::hash(&frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn stream_byte(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

fn le_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.first_chunk::<8>().copied()?))
}

/// One open segment of a log being read.
struct Cursor {
    file: File,
    /// The first chunk of the segment: its name.
    first: u64,
    /// Where the next frame begins.
    at: u64,
    /// The next frame's sequence number, if the segment goes on.
    next: u64,
}

/// Reads the chunks of one attempt, also while they are written.
pub struct LogReader {
    dir: PathBuf,
    cursor: Option<Cursor>,
}

impl LogReader {
    /// A reader of the log in this attempt's folder (see [`super::attempt_dir`]). The folder
    /// need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, cursor: None }
    }

    /// The chunks from `seq` (from 1) on: at most `max_bytes` of payload, but at least one
    /// chunk where there is one. `announced` is the newest chunk the executor told of
    /// ([`super::ExecutorEvent::Output`], or the count of an ended attempt): one up to there
    /// that cannot be read is gone for good and told as a gap.
    ///
    /// Blocks on the disk. Reading on where the last read ended is cheap; going back is not.
    ///
    /// # Errors
    /// The disk's; a missing folder or file is none.
    pub fn read_from(&mut self, seq: u64, announced: u64, max_bytes: usize) -> io::Result<LogRead> {
        let seq = seq.max(1);
        let mut read = LogRead::default();
        let mut next = self.seek(seq)?;
        let mut weight = 0;
        while weight < max_bytes.max(1) {
            let Some(cursor) = &mut self.cursor else {
                break;
            };
            match cursor.take(&mut next)? {
                Some(chunk) => {
                    if chunk.seq < seq {
                        continue;
                    }
                    weight += chunk.bytes.len();
                    read.chunks.push(chunk);
                }
                None => {
                    // End of this segment: the next one begins with the next chunk, or a later
                    // one if chunks are gone, and then what was read so far is handed out first.
                    let Some(first) = self.open_from(next, !read.chunks.is_empty())? else {
                        break;
                    };
                    next = first;
                }
            }
        }
        let reached = read
            .chunks
            .first()
            .map_or(announced.saturating_add(1), |c| c.seq);
        if reached > seq {
            read.gap = Some(Gap {
                from: seq,
                to: reached - 1,
            });
        }
        Ok(read)
    }

    /// Moves to the segment that holds `seq`, or the first after it; answers the sequence
    /// number of the frame the cursor stands at.
    fn seek(&mut self, seq: u64) -> io::Result<u64> {
        if let Some(cursor) = &self.cursor
            && cursor.next == seq
        {
            return Ok(seq);
        }
        self.cursor = None;
        let firsts = segments_of(&self.dir)?;
        let start = firsts
            .iter()
            .rposition(|&first| first <= seq)
            .unwrap_or_default();
        for &first in &firsts[start.min(firsts.len())..] {
            if self.open(first)? {
                return Ok(first);
            }
        }
        Ok(seq)
    }

    /// Opens the first segment from `next` on that can be opened: the oldest may go at any
    /// moment. With `exactly`, only one that begins with `next`. Never the one that was just read to
    /// its end: its first chunk may be torn, or not be there yet.
    fn open_from(&mut self, next: u64, exactly: bool) -> io::Result<Option<u64>> {
        let behind = self.cursor.as_ref().map(|cursor| cursor.first);
        for first in segments_of(&self.dir)? {
            if first < next || behind.is_some_and(|behind| first <= behind) {
                continue;
            }
            if exactly && first != next {
                break;
            }
            if self.open(first)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Opens the segment that begins with `first`; false if it is gone or torn at its head.
    fn open(&mut self, first: u64) -> io::Result<bool> {
        let mut file = match File::open(segment_path(&self.dir, first)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        if read_segment_header(&mut file)?.is_none() {
            return Ok(false);
        }
        self.cursor = Some(Cursor {
            file,
            first,
            at: SEGMENT_HEADER as u64,
            next: first,
        });
        Ok(true)
    }

    /// What the files say was written and dropped: for an executor that finds an attempt whose
    /// writer died.
    pub(crate) fn count(&mut self) -> io::Result<OutputCount> {
        let mut count = OutputCount::default();
        for (index, first) in segments_of(&self.dir)?.into_iter().enumerate() {
            let Ok(mut file) = File::open(segment_path(&self.dir, first)) else {
                continue;
            };
            let Some((stdout, stderr)) = read_segment_header(&mut file)? else {
                continue;
            };
            if index == 0 {
                count.stdout.dropped = stdout;
                count.stderr.dropped = stderr;
            }
            count.stdout.bytes = count.stdout.bytes.max(stdout);
            count.stderr.bytes = count.stderr.bytes.max(stderr);
            let mut cursor = Cursor {
                file,
                first,
                at: SEGMENT_HEADER as u64,
                next: first,
            };
            let mut next = first;
            while let Some(chunk) = cursor.take(&mut next)? {
                count.chunks = chunk.seq;
                let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
                match chunk.stream {
                    OutputStream::Stdout => count.stdout.bytes = end,
                    OutputStream::Stderr => count.stderr.bytes = end,
                }
            }
        }
        Ok(count)
    }
}

/// Like [`segments`]; a folder that does not exist holds none.
fn segments_of(dir: &Path) -> io::Result<Vec<u64>> {
    match segments(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The counts of both streams before a segment, as it says itself; none where it is torn there.
pub(crate) fn counts_before(dir: &Path, first: u64) -> Option<[u64; 2]> {
    let mut file = File::open(segment_path(dir, first)).ok()?;
    let (stdout, stderr) = read_segment_header(&mut file).ok()??;
    Some([stdout, stderr])
}

fn read_segment_header(file: &mut File) -> io::Result<Option<(u64, u64)>> {
    let mut header = [0; SEGMENT_HEADER];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let crc = header[4..8].first_chunk().map(|b| u32::from_le_bytes(*b));
    if &header[..4] != SEGMENT_MAGIC || crc != Some(crc32fast::hash(&header[8..])) {
        return Ok(None);
    }
    Ok(le_u64(&header[8..]).zip(le_u64(&header[16..])))
}

impl Cursor {
    /// The frame at the cursor, if it is whole; moves past it.
    fn take(&mut self, next: &mut u64) -> io::Result<Option<Chunk>> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut header = [0; CHUNK_HEADER];
        if !read_fully(&mut self.file, &mut header)? {
            return Ok(None);
        }
        let Some(length) = header[4..8]
            .first_chunk()
            .map(|b| u32::from_le_bytes(*b) as usize)
            .filter(|&l| l <= CHUNK_MAX_BYTES && &header[..4] == CHUNK_MAGIC)
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; length];
        if !read_fully(&mut self.file, &mut bytes)? {
            return Ok(None);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[12..]);
        crc.update(&bytes);
        let expected = header[8..12].first_chunk().map(|b| u32::from_le_bytes(*b));
        let stream = match header[12] {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => return Ok(None),
        };
        let fields = (
            le_u64(&header[16..]),
            le_u64(&header[24..]),
            le_u64(&header[32..]),
        );
        let (Some(seq), Some(offset), Some(time)) = fields else {
            return Ok(None);
        };
        if expected != Some(crc.finalize()) || seq != self.next {
            return Ok(None);
        }
        self.at += (CHUNK_HEADER + length) as u64;
        self.next = self.next.saturating_add(1);
        *next = self.next;
        Ok(Some(Chunk {
            seq,
            stream,
            offset,
            time: Time::from_micros(time.cast_signed()),
            bytes: bytes.into(),
        }))
    }
}

/// False at the end of the file, as it is now.
fn read_fully(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(dir: &Path, keep: u64) -> LogWriter {
        let room = Arc::new(Room::new(crate::executor::OutputBound::default()));
        LogWriter::new(AttemptId::from_random([1; 10]), dir.to_owned(), keep, room)
    }

    fn append(log: &mut LogWriter, stream: OutputStream, bytes: &[u8]) {
        let mut frame = vec![0; CHUNK_HEADER];
        frame.extend_from_slice(bytes);
        assert!(log.append(stream, Time::from_micros(7), &mut frame));
    }

    #[test]
    fn a_reader_follows_the_writer_chunk_by_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 1 << 20);
        let mut reader = LogReader::new(dir.path().to_owned());
        assert_eq!(reader.read_from(1, 0, 1000).unwrap(), LogRead::default());
        append(&mut log, OutputStream::Stdout, b"one");
        append(&mut log, OutputStream::Stderr, b"\xff\0");
        let read = reader.read_from(1, 2, 1000).unwrap();
        assert_eq!(read.gap, None);
        assert_eq!(read.chunks.len(), 2);
        assert_eq!(read.chunks[1].stream, OutputStream::Stderr);
        assert_eq!(&read.chunks[1].bytes[..], b"\xff\0");
        assert_eq!(reader.read_from(3, 2, 1000).unwrap(), LogRead::default());
        append(&mut log, OutputStream::Stdout, b"two");
        let read = reader.read_from(3, 3, 1000).unwrap();
        assert_eq!((read.chunks[0].seq, read.chunks[0].offset), (3, 3));
        // Going back is allowed.
        assert_eq!(reader.read_from(2, 3, 1).unwrap().chunks[0].seq, 2);
        assert_eq!(reader.count().unwrap(), log.count());
    }

    #[test]
    fn the_oldest_segments_go_and_what_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 128 * 1024);
        let payload = vec![b'x'; CHUNK_MAX_BYTES];
        append(&mut log, OutputStream::Stderr, b"first words");
        for _ in 0..100 {
            append(&mut log, OutputStream::Stdout, &payload);
        }
        let count = log.count();
        assert_eq!(count.chunks, 101);
        assert_eq!(count.stderr.dropped, 11);
        let kept = count.stdout.bytes - count.stdout.dropped;
        assert!((128 * 1024..=256 * 1024).contains(&kept), "{kept}");
        let mut reader = LogReader::new(dir.path().to_owned());
        let mut next = 1;
        let mut bytes = 0;
        let mut gaps = Vec::new();
        while next <= count.chunks {
            let read = reader.read_from(next, count.chunks, 100_000).unwrap();
            gaps.extend(read.gap);
            bytes += read
                .chunks
                .iter()
                .map(|c| c.bytes.len() as u64)
                .sum::<u64>();
            next = read.chunks.last().unwrap().seq + 1;
        }
        assert_eq!(bytes, kept);
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].from, 1);
        assert_eq!(reader.count().unwrap(), count);
    }

    /// As a writer leaves it that is killed between the head of a segment and its first chunk, or
    /// whose disk is full there.
    #[test]
    fn a_segment_without_its_first_chunk_is_no_reason_to_look_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 1 << 20);
        append(&mut log, OutputStream::Stdout, b"whole");
        log.file = None;
        append(&mut log, OutputStream::Stdout, b"torn");
        let path = segment_path(dir.path(), 2);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(SEGMENT_HEADER as u64 + 3).unwrap();
        let mut reader = LogReader::new(dir.path().to_owned());
        let read = reader.read_from(1, 1, 1000).unwrap();
        assert_eq!((read.gap, read.chunks.len()), (None, 1));
        assert_eq!(reader.read_from(2, 1, 1000).unwrap(), LogRead::default());
        // It is written after all.
        file.set_len(SEGMENT_HEADER as u64).unwrap();
        log.count.chunks = 1;
        log.file = None;
        append(&mut log, OutputStream::Stdout, b"now");
        let read = reader.read_from(2, 2, 1000).unwrap();
        assert_eq!(&read.chunks[0].bytes[..], b"now");
        let mut late = LogReader::new(dir.path().to_owned());
        assert_eq!(late.read_from(1, 2, 1000).unwrap().chunks.len(), 2);
    }

    #[test]
    fn a_torn_tail_is_a_gap_and_no_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 1 << 20);
        append(&mut log, OutputStream::Stdout, b"whole");
        append(&mut log, OutputStream::Stdout, b"torn");
        let path = segment_path(dir.path(), 1);
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length - 1).unwrap();
        let mut reader = LogReader::new(dir.path().to_owned());
        let read = reader.read_from(1, 2, 1000).unwrap();
        assert_eq!((read.gap, read.chunks.len()), (None, 1));
        let read = reader.read_from(2, 2, 1000).unwrap();
        assert_eq!(read.gap, Some(Gap { from: 2, to: 2 }));
        assert_eq!(reader.count().unwrap().chunks, 1);
    }
}
