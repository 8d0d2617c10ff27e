//! What is known of attempts on disk: one journal for all that are not forgotten, and the small
//! records of forgotten ones.
//!
//! `<root>/journal` holds frames that are only ever appended: `begin` before a process is
//! started, `started` after it, `end` when every process is gone, `forgotten` when the result was
//! delivered; it is written anew when most of it is about forgotten ones. One file and not one
//! for each attempt: making and removing files and folders waits for every fsync of anybody on
//! the same disk, and the hub does nothing else. A folder is made only for an attempt that has
//! output, `<root>/<job>/<attempt>`. `<root>/../ended/<day>` holds one line for each forgotten
//! attempt, 7 days long.
//!
//! There is no fsync: a killed executor loses nothing that it handed to the kernel, and after a
//! power loss what ran is unknown in any case; a flush to the platter per job would cost more
//! than the job.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use fleet_contract::ids::{AttemptId, JobId, MachineId};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::spec::JobSpec;
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use super::frame;
use super::protocol::EndedRecord;

/// How long the record of a forgotten attempt is kept, in days.
const KEEP_DAYS: i64 = 7;
/// Most bytes of such records a day; the rest are not kept.
const DAY_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A record that is larger, in bytes, is kept without its specification.
const RECORD_MAX_BYTES: usize = 16 * 1024;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// The journal is not written anew below this size, in bytes.
const JOURNAL_MIN: u64 = 4 * 1024 * 1024;
/// Folders that may wait to be removed.
const SWEEP_AHEAD: usize = 4096;

/// What an attempt is, written before its process exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) token: u64,
    pub(crate) attempt_no: u32,
    pub(crate) machine: MachineId,
    /// Without standard input.
    pub(crate) spec: JobSpec,
    /// The boot and session of the executor that started it.
    pub(crate) boot: String,
    pub(crate) session: i32,
    /// Before the start, so that every process of the attempt is younger.
    pub(crate) not_before: BootTime,
}

/// The process that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) at: Time,
    /// After the start, so that the first process is older.
    pub(crate) not_after: BootTime,
    /// The numbers of its output pipes.
    pub(crate) pipes: Vec<u64>,
}

/// How it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) output: OutputCount,
    pub(crate) at: Time,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) survivors: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry<B, S, E> {
    Begin(B),
    Started { attempt: AttemptId, started: S },
    End { attempt: AttemptId, end: E },
    Forgotten { attempt: AttemptId },
}

type EntryOut<'a> = Entry<&'a Begin, &'a Started, &'a End>;
type EntryIn = Entry<Begin, Started, End>;

/// An attempt read back from disk.
pub(crate) struct Loaded {
    pub(crate) begin: Begin,
    pub(crate) started: Option<Started>,
    pub(crate) end: Option<End>,
}

/// Makes a folder, and those above it, that only its owner can enter.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// All attempts of one executor.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    logs: PathBuf,
    journal: File,
    /// Bytes of whole frames in it.
    length: u64,
    /// When it is written anew, in bytes.
    bloated_at: u64,
    /// Where records of forgotten attempts go; none keeps everything for ever.
    ended: Option<PathBuf>,
    /// Today's such file, and which day it is.
    today: Option<(i64, File)>,
    sweeper: Option<mpsc::SyncSender<PathBuf>>,
}

impl Store {
    /// Opens, or makes, the journal in the folder `root` and reads every attempt that was not
    /// forgotten. Output goes below `logs`.
    pub(crate) fn open(
        root: PathBuf,
        logs: PathBuf,
        ended: Option<PathBuf>,
    ) -> io::Result<(Self, Vec<Loaded>)> {
        make_private_dir(&root)?;
        if let Some(ended) = &ended {
            make_private_dir(ended)?;
        }
        let path = root.join("journal");
        let journal = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        let (loaded, length) = fold(&fs::read(&path)?);
        // What is appended from now on must not lie behind a torn frame.
        journal.set_len(length)?;
        let store = Self {
            root,
            logs,
            journal,
            length,
            bloated_at: JOURNAL_MIN,
            ended,
            today: None,
            sweeper: None,
        };
        Ok((store, loaded))
    }

    /// Where an attempt's output goes; made when there is some.
    pub(crate) fn attempt_dir(&self, job: JobId, attempt: AttemptId) -> PathBuf {
        self.logs.join(job.as_str()).join(attempt.as_str())
    }

    pub(crate) fn begin(&mut self, begin: &Begin) -> io::Result<()> {
        self.append(&EntryOut::Begin(begin))
    }

    pub(crate) fn started(&mut self, attempt: AttemptId, started: &Started) -> io::Result<()> {
        self.append(&EntryOut::Started { attempt, started })
    }

    pub(crate) fn end(&mut self, attempt: AttemptId, end: &End) -> io::Result<()> {
        self.append(&EntryOut::End { attempt, end })
    }

    fn append(&mut self, entry: &EntryOut) -> io::Result<()> {
        let payload = serde_json::to_vec(entry)?;
        let written = frame::append(&mut self.journal, &payload);
        if written.is_ok() {
            self.length += (frame::HEADER + payload.len()) as u64;
        } else {
            // Half a frame (a full disk) would hide everything after it.
            let _ = self.journal.set_len(self.length);
        }
        written
    }

    /// Whether [`Self::rewrite`] is worth it.
    pub(crate) fn is_bloated(&self) -> bool {
        self.length > self.bloated_at
    }

    /// Replaces the journal by one that holds these attempts only.
    pub(crate) fn rewrite<'a>(
        &mut self,
        attempts: impl Iterator<Item = (&'a Begin, Option<&'a Started>, Option<&'a End>)>,
    ) -> io::Result<()> {
        let mut frames = Vec::new();
        for (begin, started, end) in attempts {
            let attempt = begin.attempt;
            let entries = [
                Some(EntryOut::Begin(begin)),
                started.map(|started| EntryOut::Started { attempt, started }),
                end.map(|end| EntryOut::End { attempt, end }),
            ];
            for entry in entries.iter().flatten() {
                frame::append(&mut frames, &serde_json::to_vec(entry)?)?;
            }
        }
        let next = self.root.join("journal.new");
        match fs::remove_file(&next) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&frames)?;
        fs::rename(&next, self.root.join("journal"))?;
        self.journal = file;
        self.length = frames.len() as u64;
        self.bloated_at = JOURNAL_MIN.max(self.length * 2);
        Ok(())
    }

    /// Keeps the small record of an attempt and lets go of everything else of it.
    pub(crate) fn forget(&mut self, record: &EndedRecord, now: Time) -> io::Result<()> {
        let attempt = record.attempt;
        self.keep(record, now)?;
        self.append(&EntryOut::Forgotten { attempt })?;
        if record.output.chunks > 0 {
            self.sweep(self.attempt_dir(record.job, attempt));
        }
        Ok(())
    }

    fn keep(&mut self, record: &EndedRecord, now: Time) -> io::Result<()> {
        let Some(ended) = &self.ended else {
            return Ok(());
        };
        let day = now.as_micros().div_euclid(DAY_MICROS);
        if self.today.as_ref().is_none_or(|(today, _)| *today != day) {
            prune(ended, day);
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(ended.join(day.to_string()))?;
            self.today = Some((day, file));
        }
        let Some((_, file)) = &mut self.today else {
            return Ok(());
        };
        if file.metadata()?.len() < DAY_MAX_BYTES {
            let mut line = serde_json::to_vec(record)?;
            if line.len() > RECORD_MAX_BYTES {
                line = serde_json::to_vec(&EndedRecord {
                    spec: None,
                    ..record.clone()
                })?;
            }
            line.push(b'\n');
            file.write_all(&line)?;
        } else {
            tracing::warn!(attempt = %record.attempt, limit = DAY_MAX_BYTES, "today's records of ended attempts are full, this one is not kept");
        }
        Ok(())
    }

    /// Removes an attempt's folder, on a thread of its own: see above on waiting for the disk.
    fn sweep(&mut self, dir: PathBuf) {
        if self.sweeper.is_none() {
            let (sender, dirs) = mpsc::sync_channel::<PathBuf>(SWEEP_AHEAD);
            let thread = std::thread::Builder::new().name("fleet-sweep".to_owned());
            let spawned = thread.spawn(move || {
                for dir in dirs {
                    remove_attempt_dir(&dir);
                }
            });
            self.sweeper = spawned.is_ok().then_some(sender);
        }
        let refused = match &self.sweeper {
            Some(sweeper) => sweeper.try_send(dir).err().map(|e| match e {
                mpsc::TrySendError::Full(dir) | mpsc::TrySendError::Disconnected(dir) => dir,
            }),
            None => Some(dir),
        };
        if let Some(dir) = refused {
            remove_attempt_dir(&dir);
        }
    }

    /// Removes folders of attempts that were forgotten, or of which nothing is known.
    pub(crate) fn sweep_unknown(&mut self, known: impl Fn(AttemptId) -> bool) -> io::Result<()> {
        for job in fs::read_dir(&self.logs)?.flatten() {
            if parse_name::<JobId>(&job).is_none() {
                continue;
            }
            for attempt in fs::read_dir(job.path()).into_iter().flatten().flatten() {
                if parse_name::<AttemptId>(&attempt).is_some_and(|id| !known(id)) {
                    self.sweep(attempt.path());
                }
            }
        }
        Ok(())
    }
}

/// The attempts in the journal of this folder; none where there is no journal.
pub(crate) fn read_journal(root: &Path) -> io::Result<Vec<Loaded>> {
    match fs::read(root.join("journal")) {
        Ok(bytes) => Ok(fold(&bytes).0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The attempts in a journal that are not forgotten, and how many of its bytes are whole frames.
fn fold(bytes: &[u8]) -> (Vec<Loaded>, u64) {
    let mut attempts: BTreeMap<AttemptId, Loaded> = BTreeMap::new();
    let mut whole = 0;
    for payload in frame::split(bytes) {
        whole += (payload.len() + frame::HEADER) as u64;
        match serde_json::from_slice::<EntryIn>(payload) {
            Ok(Entry::Begin(begin)) => {
                let loaded = Loaded {
                    begin,
                    started: None,
                    end: None,
                };
                attempts.insert(loaded.begin.attempt, loaded);
            }
            Ok(Entry::Started { attempt, started }) => {
                if let Some(loaded) = attempts.get_mut(&attempt) {
                    loaded.started = Some(started);
                }
            }
            Ok(Entry::End { attempt, end }) => {
                if let Some(loaded) = attempts.get_mut(&attempt) {
                    loaded.end = Some(end);
                }
            }
            Ok(Entry::Forgotten { attempt }) => {
                attempts.remove(&attempt);
            }
            // Of a later version of fleet.
            Err(error) => tracing::warn!(%error, "an entry of the journal is not understood"),
        }
    }
    (attempts.into_values().collect(), whole)
}

/// The kept records of these forgotten attempts. Reads everything that is kept: not for the
/// thread that runs jobs.
pub(crate) fn read_ended(ended: &Path, attempts: &[AttemptId]) -> io::Result<Vec<EndedRecord>> {
    let mut found = Vec::new();
    for day in fs::read_dir(ended)?.flatten() {
        let Ok(file) = File::open(day.path()) else {
            continue;
        };
        for line in BufReader::new(file).split(b'\n') {
            // A torn line is one that was never finished.
            if let Ok(record) = serde_json::from_slice::<EndedRecord>(&line?)
                && attempts.contains(&record.attempt)
            {
                found.push(record);
            }
        }
    }
    Ok(found)
}

/// Hands out every kept record of an attempt with an earlier token, the newest first, as long as it
/// is wanted. Reads everything that is kept, a part at a time.
pub(crate) fn ended_before(
    ended: &Path,
    token: u64,
    mut wanted: impl FnMut(EndedRecord) -> bool,
) -> io::Result<()> {
    let days = match fs::read_dir(ended) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut days: Vec<i64> = days.flatten().filter_map(|day| parse_name(&day)).collect();
    days.sort_unstable();
    for day in days.into_iter().rev() {
        let Ok(file) = File::open(ended.join(day.to_string())) else {
            continue;
        };
        let mut file = BufReader::new(file);
        for (at, length) in places_before(&mut file, token)?.into_iter().rev() {
            let mut line = vec![0; length];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut line)?;
            if let Ok(record) = serde_json::from_slice(&line)
                && !wanted(record)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Where the records of earlier tokens lie in a file, and how long they are.
fn places_before(file: &mut impl BufRead, token: u64) -> io::Result<Vec<(u64, usize)>> {
    /// As much of a record as tells whether it is one of them.
    #[derive(Deserialize)]
    struct Token {
        token: u64,
    }
    let (mut places, mut at, mut line) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(places);
        }
        // A torn line is one that was never finished.
        if serde_json::from_slice::<Token>(&line).is_ok_and(|found| found.token < token) {
            places.push((at, length));
        }
        at += length as u64;
    }
}

fn parse_name<T: std::str::FromStr>(entry: &fs::DirEntry) -> Option<T> {
    entry.file_name().to_str()?.parse().ok()
}

/// Removes a folder that holds files only, and the job's if nothing else is in it.
fn remove_attempt_dir(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %dir.display(), %error, "cannot remove an attempt's folder");
        }
        _ => {
            // Fails while the job has other attempts here.
            let _ = dir.parent().map(fs::remove_dir);
        }
    }
}

fn prune(ended: &Path, today: i64) {
    for entry in fs::read_dir(ended).into_iter().flatten().flatten() {
        if parse_name::<i64>(&entry).is_some_and(|day| day < today - KEEP_DAYS) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::ids::Lane;
    use fleet_contract::spec::Target;

    fn begin(number: u8) -> Begin {
        Begin {
            job: JobId::from_random([number; 10]),
            attempt: AttemptId::from_random([number; 10]),
            token: 1,
            attempt_no: 1,
            machine: MachineId::from_host_name("studio"),
            spec: JobSpec::new(
                vec!["true".to_owned()],
                Target::Lane(Lane::any()),
                Time::from_micros(0),
                "ana@studio".to_owned(),
            ),
            boot: "b".to_owned(),
            session: 1,
            not_before: BootTime(1),
        }
    }

    fn end() -> End {
        End {
            outcome: Outcome::Exited { exit_code: 0 },
            output: OutputCount::default(),
            at: Time::from_micros(5),
            survivors: Vec::new(),
        }
    }

    fn ended(begin: &Begin) -> EndedRecord {
        EndedRecord {
            job: begin.job,
            attempt: begin.attempt,
            token: begin.token,
            attempt_no: begin.attempt_no,
            outcome: end().outcome,
            output: OutputCount::default(),
            started_at: None,
            ended_at: Time::from_micros(5),
            machine: Some(begin.machine.clone()),
            spec: Some(Box::new(begin.spec.clone())),
        }
    }

    #[test]
    fn a_journal_is_read_back_without_what_was_forgotten_and_without_its_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = dir.path().join("jobs");
        let open =
            || Store::open(jobs.clone(), jobs.clone(), Some(dir.path().join("ended"))).unwrap();
        let (mut store, loaded) = open();
        assert!(loaded.is_empty());
        for number in 0..3 {
            store.begin(&begin(number)).unwrap();
        }
        store.end(begin(0).attempt, &end()).unwrap();
        store.end(begin(1).attempt, &end()).unwrap();
        let now = Time::from_micros(DAY_MICROS * 100);
        store.forget(&ended(&begin(0)), now).unwrap();
        let path = dir.path().join("jobs/journal");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"torn").unwrap();

        let (mut store, loaded) = open();
        assert_eq!(loaded.len(), 2);
        assert!(loaded[0].end.is_some() && loaded[1].end.is_none());
        // What is written behind a torn tail can be read.
        store.end(begin(2).attempt, &end()).unwrap();
        let (mut store, loaded) = open();
        assert!(loaded.iter().all(|l| l.end.is_some()));
        // So can a journal that was written anew, and what is appended to it.
        let kept = loaded.iter().map(|l| (&l.begin, None, None));
        store.rewrite(kept).unwrap();
        store.end(begin(1).attempt, &end()).unwrap();
        let (_, loaded) = open();
        assert!(loaded[0].end.is_some() && loaded[1].end.is_none());
        let found = read_ended(&dir.path().join("ended"), &[begin(0).attempt]).unwrap();
        assert_eq!(found, [ended(&begin(0))]);
    }

    #[test]
    fn records_of_earlier_tokens_are_handed_out_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("ended");
        let jobs = dir.path().join("jobs");
        let (mut store, _) = Store::open(jobs.clone(), jobs, Some(records.clone())).unwrap();
        let record = |number: u8| EndedRecord {
            token: u64::from(number),
            ..ended(&begin(number))
        };
        // 99 comes before 100, though not as a name.
        for (number, day) in [(1, 99), (2, 100), (9, 100), (3, 100), (4, 101)] {
            let now = Time::from_micros(DAY_MICROS * day);
            store.forget(&record(number), now).unwrap();
        }
        let torn = serde_json::to_vec(&record(1)).unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(records.join("100"))
            .unwrap();
        file.write_all(&torn[..torn.len() - 3]).unwrap();
        let upto = |most: usize| {
            let mut found = Vec::new();
            ended_before(&records, 9, |record| {
                found.push(record);
                found.len() < most
            })
            .unwrap();
            found
        };
        assert_eq!(upto(9), [record(4), record(3), record(2), record(1)]);
        assert_eq!(upto(2), [record(4), record(3)]);
        assert_eq!(
            ended_before(&dir.path().join("none"), 9, |_| false).ok(),
            Some(())
        );
    }

    #[test]
    fn a_record_that_is_too_large_is_kept_without_its_specification() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("ended");
        let jobs = dir.path().join("jobs");
        let (mut store, _) = Store::open(jobs.clone(), jobs, Some(records.clone())).unwrap();
        let mut large = ended(&begin(1));
        if let Some(spec) = &mut large.spec {
            spec.command.push("x".repeat(RECORD_MAX_BYTES));
        }
        store.forget(&large, Time::from_micros(0)).unwrap();
        let found = read_ended(&records, &[large.attempt]).unwrap();
        assert_eq!(
            found,
            [EndedRecord {
                spec: None,
                ..large
            }]
        );
    }

    #[test]
    fn small_records_go_after_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("ended");
        let jobs = dir.path().join("jobs");
        let (mut store, _) = Store::open(jobs.clone(), jobs, Some(records.clone())).unwrap();
        for day in [100, 101, 107, 108] {
            let now = Time::from_micros(DAY_MICROS * day);
            store.forget(&ended(&begin(1)), now).unwrap();
        }
        let mut days: Vec<String> = fs::read_dir(&records)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        days.sort();
        assert_eq!(days, ["101", "107", "108"]);
    }
}
