//! What agent and executor say to each other over any bytes and however they are cut, and what the
//! executor keeps on disk: the journal of attempts, records of ended ones, the chunks of output.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use fleet_contract::ids::{AttemptId, JobId};
use fleet_contract::outcome::{CHUNK_MAX_BYTES, Outcome, OutputCount, OutputStream};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Script;
use crate::executor::boot::BootTime;
use crate::executor::frame;
use crate::executor::log::{CHUNK_HEADER, LogReader, LogWriter, segments};
use crate::executor::protocol::{
    self, AttemptReport, EndedRecord, ExecutorEvent, FrameError, FromExecutor, KillCause,
    PROTOCOL_VERSION, Reply, Request, StartRequest, ToExecutor,
};
use crate::executor::record::{Begin, End, Started, Store, ended_before, read_ended, read_journal};
use crate::executor::room::{OutputBound, Room};

/// Steps of one script.
const STEPS: usize = 100;

/// Takes any bytes, in an empty folder.
///
/// # Panics
/// Where something is read that was not written, or not read that was.
pub fn run(dir: &Path, data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    match mode {
        b'a' => wire::<ToExecutor>(rest),
        b'e' => wire::<FromExecutor>(rest),
        b'j' => journal(dir, rest),
        b'k' => journal(dir, &framed(rest)),
        b'n' => ended(dir, rest),
        b'r' => any_log(dir, Script(rest)),
        _ => log(dir, Script(rest)),
    }
}

/// A stream of messages, cut anywhere: the same messages, and the same end.
fn wire<T: Serialize + DeserializeOwned>(rest: &[u8]) {
    let (cuts, stream) = rest.split_at(rest.len().min(4));
    let whole = messages::<T>(&[stream]);
    let mut parts = Vec::new();
    let mut left = stream;
    for cut in cuts {
        let (part, more) = left.split_at(usize::from(*cut).min(left.len()));
        parts.push(part);
        left = more;
    }
    parts.push(left);
    assert_eq!(
        messages::<T>(&parts),
        whole,
        "cut otherwise, read otherwise"
    );
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    if stream.len() < 4096 {
        assert_eq!(messages::<T>(&bytes), whole, "byte by byte");
    }
}

/// What is read of a stream: messages as JSON, and whether it ended in an error.
fn messages<T: Serialize + DeserializeOwned>(parts: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match protocol::decode::<T>(&mut buffer) {
                Ok(Some(message)) => read.push(again(&message)),
                Ok(None) => break,
                Err(FrameError::TooLarge(_) | FrameError::Malformed(_)) => return (read, true),
            }
        }
    }
    (read, false)
}

/// The message as JSON, which it is again after another journey.
fn again<T: Serialize + DeserializeOwned>(message: &T) -> String {
    let text = serde_json::to_string(message).unwrap();
    let mut wire = Vec::new();
    protocol::encode(message, &mut wire).unwrap();
    let mut buffer = BytesMut::from(&wire[..]);
    let read: T = protocol::decode(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    text
}

/// Lines as frames with the right checksums.
fn framed(rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in rest.split(|byte| *byte == b'\n') {
        frame::append(&mut bytes, line).unwrap();
    }
    bytes
}

/// What stands in the journal on disk: what is whole up to the first damage, and a place behind it
/// where what is written can be read again.
fn journal(dir: &Path, bytes: &[u8]) {
    let whole: usize = frame::split(bytes).map(|p| frame::HEADER + p.len()).sum();
    assert!(whole <= bytes.len());
    fs::write(dir.join("journal"), bytes).unwrap();
    let before = read_journal(dir).unwrap();
    let ended = Some(dir.join("ended"));
    let open = || Store::open(dir.to_owned(), dir.to_owned(), ended.clone()).unwrap();
    let (mut store, loaded) = open();
    assert_eq!(loaded.len(), before.len());
    assert_eq!(
        fs::metadata(dir.join("journal")).unwrap().len(),
        whole as u64
    );
    let mine = begin(200);
    store.begin(&mine).unwrap();
    store.end(mine.attempt, &end()).unwrap();
    let (mut store, loaded) = open();
    let found = loaded.iter().find(|l| l.begin.attempt == mine.attempt);
    assert!(
        found.unwrap().end.is_some(),
        "behind damage, nothing is found"
    );
    let all = loaded.iter();
    let kept = all.map(|l| (&l.begin, l.started.as_ref(), l.end.as_ref()));
    store.rewrite(kept).unwrap();
    let (_, again) = open();
    assert_eq!(again.len(), loaded.len());
    for (one, other) in loaded.iter().zip(&again) {
        assert_eq!(one.begin.attempt, other.begin.attempt);
        assert_eq!(one.end.is_some(), other.end.is_some());
        assert_eq!(one.started.is_some(), other.started.is_some());
    }
}

/// The small records of forgotten attempts.
fn ended(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join("20000"), bytes).unwrap();
    let wanted = [
        AttemptId::from_random([1; 10]),
        AttemptId::from_random([2; 10]),
    ];
    for record in read_ended(dir, &wanted).unwrap() {
        assert!(wanted.contains(&record.attempt));
    }
    let mut left = 3;
    ended_before(dir, 9, |record| {
        assert!(record.token < 9);
        left -= 1;
        left > 0
    })
    .unwrap();
}

fn begin(n: u8) -> Begin {
    Begin {
        job: JobId::from_random([n; 10]),
        attempt: AttemptId::from_random([n; 10]),
        token: 7,
        attempt_no: 1,
        machine: "studio".parse().unwrap(),
        spec: spec(),
        boot: "b".to_owned(),
        session: 1,
        not_before: BootTime(1),
    }
}

fn spec() -> JobSpec {
    let target = Target::Pin("studio".parse().unwrap());
    let by = "ana@studio".to_owned();
    JobSpec::new(vec!["make".to_owned()], target, Time::from_micros(1), by)
}

fn end() -> End {
    End {
        outcome: Outcome::Exited { exit_code: 0 },
        output: OutputCount::default(),
        at: Time::from_micros(2),
        survivors: vec![9],
    }
}

/// Any bytes as segments of output, some under right headers.
fn any_log(dir: &Path, mut script: Script<'_>) {
    let mut steps = 0;
    while !script.is_over() && steps < 6 {
        steps += 1;
        let first = script.number();
        let mut bytes = Vec::new();
        if script.below(4) > 0 {
            bytes.extend_from_slice(b"FLS1\0\0\0\0");
            bytes.extend_from_slice(&script.number().to_le_bytes());
            bytes.extend_from_slice(&script.number().to_le_bytes());
            let crc = crc32fast::hash(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        for n in 0..script.below(6) {
            let seq = match script.below(4) {
                0 => script.number(),
                _ => first.saturating_add(u64::from(n)),
            };
            let (offset, stream) = (script.number(), script.below(4));
            let length = usize::from(script.byte());
            bytes.extend_from_slice(&chunk(seq, offset, stream, script.bytes(length)));
        }
        let length = usize::from(script.byte());
        bytes.extend_from_slice(script.bytes(length));
        fs::write(dir.join(format!("log-{first:016}")), bytes).unwrap();
    }
    let (from, announced) = (script.number(), script.number());
    let mut reader = LogReader::new(dir.to_owned());
    for from in [from, 1, 2, from] {
        let read = reader.read_from(from, announced, 300).unwrap();
        let mut next = from.max(1);
        if let Some(gap) = read.gap {
            assert!(gap.from == next && gap.from <= gap.to, "{gap:?}");
            next = gap.to.saturating_add(1);
        }
        for chunk in read.chunks {
            assert_eq!(chunk.seq, next);
            assert!(chunk.bytes.len() <= CHUNK_MAX_BYTES);
            next = next.saturating_add(1);
        }
    }
    let _ = LogReader::new(dir.to_owned()).count().unwrap();
}

/// A chunk as it lies in a segment.
fn chunk(seq: u64, offset: u64, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK_HEADER];
    bytes[..4].copy_from_slice(b"FLC1");
    let length = u32::try_from(payload.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[12] = stream;
    bytes[16..24].copy_from_slice(&seq.to_le_bytes());
    bytes[24..32].copy_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A log that is written, hit and read: every chunk as it was written, or in a gap.
fn log(dir: &Path, mut script: Script<'_>) {
    let room = std::sync::Arc::new(Room::new(OutputBound::default()));
    let attempt = AttemptId::from_random([1; 10]);
    let mut writer = LogWriter::new(attempt, dir.to_owned(), 64 * 1024, room);
    let mut written: Vec<(OutputStream, Vec<u8>)> = Vec::new();
    let mut reader = LogReader::new(dir.to_owned());
    let mut harmed = false;
    let mut steps = 0;
    while !script.is_over() && steps < STEPS {
        steps += 1;
        match script.below(8) {
            0..=4 => {
                let stream = match script.below(2) {
                    0 => OutputStream::Stdout,
                    _ => OutputStream::Stderr,
                };
                let length = 1 + usize::from(script.byte()) * 128;
                let payload = vec![script.byte(); length.min(CHUNK_MAX_BYTES)];
                let mut frame = vec![0; CHUNK_HEADER];
                frame.extend_from_slice(&payload);
                if writer.append(stream, Time::from_micros(1), &mut frame) {
                    written.push((stream, payload));
                }
                assert_eq!(writer.count().chunks, written.len() as u64);
            }
            5 => {
                let from = 1 + script.place(written.len() + 1) as u64;
                look(&mut reader, dir, &written, from, harmed);
            }
            6 => harmed |= harm(dir, &mut script, true),
            _ => harmed |= harm(dir, &mut script, false),
        }
    }
    look(&mut reader, dir, &written, 1, harmed);
    let mut another = LogReader::new(dir.to_owned());
    look(&mut another, dir, &written, 1, harmed);
    let counted = LogReader::new(dir.to_owned()).count().unwrap();
    if !harmed {
        assert_eq!(counted, writer.count());
    }
    assert!(counted.chunks <= writer.count().chunks);
}

/// Cuts or flips something in one of the segments.
fn harm(dir: &Path, script: &mut Script<'_>, cut: bool) -> bool {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let Some(path) = files.get(script.place(files.len())) else {
        return false;
    };
    let mut bytes = fs::read(path).unwrap();
    let at = script.place(bytes.len());
    if bytes.is_empty() {
        return false;
    }
    if cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << script.below(8);
    }
    // In place, as a disk does it: the writer has the file open.
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    true
}

/// Reads from one chunk to the end: each is as it was written, or told as gone. Where nothing was
/// harmed only the oldest are gone, all that come before what is still there; a reader that has one
/// of their files open may have read that one to its end.
fn look(
    reader: &mut LogReader,
    dir: &Path,
    written: &[(OutputStream, Vec<u8>)],
    from: u64,
    harmed: bool,
) {
    let (mut next, last) = (from, written.len() as u64);
    let oldest = segments(dir).unwrap().first().copied();
    while next <= last {
        let read = reader.read_from(next, last, 5000).unwrap();
        if let Some(gap) = read.gap {
            assert!(
                gap.from == next && gap.from <= gap.to && gap.to <= last,
                "{gap:?}"
            );
            assert!(
                harmed || oldest == Some(gap.to + 1),
                "only the oldest go: {gap:?}, the oldest is {oldest:?}"
            );
            next = gap.to + 1;
        }
        for chunk in read.chunks {
            assert_eq!(chunk.seq, next);
            let (stream, bytes) = &written[usize::try_from(next - 1).unwrap()];
            assert_eq!((chunk.stream, &chunk.bytes[..]), (*stream, &bytes[..]));
            next += 1;
        }
    }
}

/// Every message between agent and executor, and files as an executor writes them.
///
/// # Panics
/// Where this folder cannot be used.
#[must_use]
pub fn seeds(dir: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let (job, attempt) = (JobId::from_random([1; 10]), AttemptId::from_random([1; 10]));
    let start = StartRequest {
        job,
        attempt,
        token: 7,
        attempt_no: 1,
        machine: "studio".parse().unwrap(),
        spec: JobSpec {
            stdin: Some(vec![1, 2, 3]),
            ..spec()
        },
        env: [("A".to_owned(), "b".to_owned())].into(),
        fence_at: Some(BootTime(9)),
    };
    let requests = [
        Request::Start(Box::new(start)),
        Request::Kill {
            attempt,
            cause: KillCause::Cancel,
        },
        Request::FenceAt {
            attempt: None,
            at: Some(BootTime(3)),
        },
        Request::List,
        Request::Ended {
            attempts: vec![attempt],
        },
        Request::Forget { attempt },
        Request::Delivered { attempt, chunks: 3 },
        Request::SetBaseEnv {
            env: [("A".to_owned(), "b".to_owned())].into(),
        },
        Request::Shutdown,
    ];
    let hello = ToExecutor::Hello {
        version: PROTOCOL_VERSION,
        base_env: None,
        keep: Some(OutputBound::default()),
    };
    let mut asked = vec![hello];
    asked.extend(
        (1..)
            .zip(requests)
            .map(|(id, request)| ToExecutor::Request { id, request }),
    );
    let at = Time::from_micros(1);
    let ended = EndedRecord {
        job,
        attempt,
        token: 7,
        attempt_no: 1,
        outcome: Outcome::Exited { exit_code: 3 },
        output: OutputCount::default(),
        started_at: Some(at),
        ended_at: at,
        machine: Some("studio".parse().unwrap()),
        spec: Some(Box::new(spec())),
    };
    let line = serde_json::to_vec(&ended).unwrap();
    let told = told(ended);
    let (mut store, _) = Store::open(dir.to_owned(), dir.to_owned(), None).unwrap();
    for n in 1..4 {
        let begin = begin(n);
        store.begin(&begin).unwrap();
        let pipes = vec![4, 5];
        let started = Started {
            pid: 77,
            at,
            not_after: BootTime(2),
            pipes,
        };
        store.started(begin.attempt, &started).unwrap();
    }
    store.end(begin(1).attempt, &end()).unwrap();
    let on_disk = fs::read(dir.join("journal")).unwrap();
    let lines: Vec<&[u8]> = frame::split(&on_disk).collect();
    let cuts = [9, 200, 3, 77];
    vec![
        ("requests", [&b"a"[..], &cuts, &encoded(&asked)].concat()),
        ("told", [&b"e"[..], &cuts, &encoded(&told)].concat()),
        ("journal", [b"j", &on_disk[..]].concat()),
        ("journal-torn", [b"j", &on_disk[..on_disk.len() - 5]].concat()),
        ("journal-lines", [b"k", &lines.join(&b'\n')[..]].concat()),
        ("ended", [b"n", &line[..], b"\n", &line[..40]].concat()),
        ("log", b"l\0\0\x10a\x01\x01\x20b\0\0\xffc\0\0\xffd\x05\0\0\x06\0\0\0\x30\0\x01\x10e\x07\0\0\0\x09\x02".to_vec()),
        ("log-any", b"r\x01\x01\0\0\x02\x01\0\x01\x03abc\x01\x03\x01\x02de\x00\x03\x01\x01\x01\x00\x00".to_vec()),
    ]
}

fn told(ended: EndedRecord) -> Vec<FromExecutor> {
    let (attempt, at) = (ended.attempt, ended.ended_at);
    let report = AttemptReport {
        job: ended.job,
        attempt,
        token: 7,
        attempt_no: 1,
        machine: "studio".parse().unwrap(),
        spec: spec(),
        pid: Some(77),
        started_at: Some(at),
        ended_at: Some(at),
        outcome: Some(ended.outcome.clone()),
        output: OutputCount::default(),
        fence_at: None,
        survivors: vec![8],
    };
    let events = [
        ExecutorEvent::Started {
            attempt,
            pid: 77,
            at,
        },
        ExecutorEvent::Output {
            attempt,
            chunks: 3,
            bytes: 70,
        },
        ExecutorEvent::Kept(crate::executor::Kept {
            bytes: 9,
            dropped: 2,
        }),
        ExecutorEvent::Ended {
            attempt,
            outcome: ended.outcome.clone(),
            output: OutputCount::default(),
            started_at: Some(at),
            ended_at: at,
            survivors: Vec::new(),
        },
    ];
    let replies = [
        Reply::Done,
        Reply::Known(Box::new(report.clone())),
        Reply::NotKnown,
        Reply::Running,
        Reply::Reports {
            reports: vec![report],
            more: false,
        },
        Reply::Ended {
            records: vec![ended],
        },
        Reply::Stopping,
        Reply::Failed {
            reason: "disk".to_owned(),
        },
    ];
    let mut told = vec![FromExecutor::Welcome {
        version: PROTOCOL_VERSION,
        pid: 7,
        takes_delivered: true,
    }];
    told.extend(events.map(FromExecutor::Event));
    told.extend(
        (1..)
            .zip(replies)
            .map(|(id, reply)| FromExecutor::Reply { id, reply }),
    );
    told.push(FromExecutor::Refused {
        reason: "version".to_owned(),
    });
    told
}

fn encoded<T: Serialize>(messages: &[T]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        protocol::encode(message, &mut wire).unwrap();
    }
    wire
}
