//! What is known of attempts on disk: one folder each, and the small records of forgotten ones.
//!
//! `<root>/<job>/<attempt>/record` holds frames that are only ever appended: `begin` before the
//! process is started, `pid` after it, `end` when every process is gone. There is no fsync: a
//! killed executor loses nothing that it handed to the kernel, and after a power loss the
//! attempt is reported as unknown in any case; a flush to the platter per job would cost more
//! than the job. `<root>/../ended/<day>` holds one line for each forgotten attempt, 7 days long.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

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
enum Entry<B> {
    Begin(B),
    Started(Started),
    End(End),
}

/// An attempt read back from disk.
pub(crate) struct Loaded {
    pub(crate) begin: Begin,
    pub(crate) started: Option<Started>,
    pub(crate) end: Option<End>,
    pub(crate) record: Record,
}

/// The open record of one attempt.
#[derive(Debug)]
pub(crate) struct Record {
    dir: PathBuf,
    file: Option<File>,
}

impl Record {
    /// The attempt's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn started(&mut self, started: &Started) -> io::Result<()> {
        self.append(&Entry::<&Begin>::Started(started.clone()))
    }

    pub(crate) fn end(&mut self, end: &End) -> io::Result<()> {
        let written = self.append(&Entry::<&Begin>::End(end.clone()));
        self.file = None;
        written
    }

    fn append(&mut self, entry: &Entry<&Begin>) -> io::Result<()> {
        let payload = serde_json::to_vec(entry)?;
        if self.file.is_none() {
            self.file = Some(
                OpenOptions::new()
                    .append(true)
                    .open(self.dir.join("record"))?,
            );
        }
        match &mut self.file {
            Some(file) => frame::append(file, &payload),
            None => Ok(()),
        }
    }
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
    /// Where records of forgotten attempts go; none keeps attempts' folders for ever.
    ended: Option<PathBuf>,
    pruned_on: i64,
}

impl Store {
    /// Opens, or makes, the folder.
    pub(crate) fn open(root: PathBuf, ended: Option<PathBuf>) -> io::Result<Self> {
        make_private_dir(&root)?;
        if let Some(ended) = &ended {
            make_private_dir(ended)?;
        }
        Ok(Self {
            root,
            ended,
            pruned_on: 0,
        })
    }

    /// Writes an attempt's beginning.
    pub(crate) fn begin(&self, begin: &Begin) -> io::Result<Record> {
        let job = self.root.join(begin.job.as_str());
        let dir = job.join(begin.attempt.as_str());
        match fs::create_dir(&job) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => fs::create_dir(&dir)?,
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.join("record"))?;
        frame::append(&mut file, &serde_json::to_vec(&Entry::Begin(begin))?)?;
        Ok(Record {
            dir,
            file: Some(file),
        })
    }

    /// Every attempt that has a readable beginning. A folder without one is removed: its
    /// process was never started, or power was lost and nothing is known of it.
    pub(crate) fn load(&self) -> io::Result<Vec<Loaded>> {
        let mut found = Vec::new();
        for job in fs::read_dir(&self.root)?.flatten() {
            if parse_name::<JobId>(&job).is_none() {
                continue;
            }
            for attempt in fs::read_dir(job.path()).into_iter().flatten().flatten() {
                if parse_name::<AttemptId>(&attempt).is_none() {
                    continue;
                }
                match load_one(attempt.path()) {
                    Ok(Some(loaded)) => found.push(loaded),
                    Ok(None) => {
                        tracing::warn!(folder = %attempt.path().display(), "removing an attempt whose record was never written whole");
                        let _ = fs::remove_dir_all(attempt.path());
                        let _ = fs::remove_dir(job.path());
                    }
                    Err(error) => {
                        tracing::warn!(folder = %attempt.path().display(), %error, "cannot read an attempt's record");
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes an attempt's folder and keeps its small record.
    pub(crate) fn forget(&mut self, record: &EndedRecord, now: Time) -> io::Result<()> {
        let Some(ended) = self.ended.clone() else {
            return Ok(());
        };
        let day = now.as_micros().div_euclid(DAY_MICROS);
        if day != self.pruned_on {
            self.pruned_on = day;
            prune(&ended, day);
        }
        let path = ended.join(day.to_string());
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        if file.metadata()?.len() < DAY_MAX_BYTES {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            file.write_all(&line)?;
        } else {
            tracing::warn!(attempt = %record.attempt, limit = DAY_MAX_BYTES, "today's records of ended attempts are full, this one is not kept");
        }
        let job = self.root.join(record.job.as_str());
        remove_flat_dir(&job.join(record.attempt.as_str()))?;
        // Fails while the job has other attempts here.
        let _ = fs::remove_dir(job);
        Ok(())
    }
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

fn parse_name<T: std::str::FromStr>(entry: &fs::DirEntry) -> Option<T> {
    entry.file_name().to_str()?.parse().ok()
}

fn load_one(dir: PathBuf) -> io::Result<Option<Loaded>> {
    let bytes = match fs::read(dir.join("record")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (mut begin, mut started, mut end) = (None, None, None);
    let mut whole = 0;
    for payload in frame::split(&bytes) {
        whole += payload.len() + frame::HEADER;
        match serde_json::from_slice::<Entry<Begin>>(payload) {
            Ok(Entry::Begin(b)) => begin = Some(b),
            Ok(Entry::Started(s)) => started = Some(s),
            Ok(Entry::End(e)) => end = Some(e),
            // Of a later version of fleet.
            Err(_) => {}
        }
    }
    if whole < bytes.len() {
        // What is appended from now on must not lie behind a torn frame.
        let file = OpenOptions::new().write(true).open(dir.join("record"))?;
        file.set_len(whole as u64)?;
    }
    Ok(begin.map(|begin| Loaded {
        begin,
        started,
        end,
        record: Record { dir, file: None },
    }))
}

/// Removes a folder that holds files only, quicker than walking a tree.
fn remove_flat_dir(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(dir)
}

fn prune(ended: &Path, today: i64) {
    for entry in fs::read_dir(ended).into_iter().flatten().flatten() {
        if parse_name::<i64>(&entry).is_some_and(|day| day < today - KEEP_DAYS) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
