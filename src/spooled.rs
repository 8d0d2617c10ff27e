//! Jobs that were dispatched while the hub was away: files in `FLEET_HOME/spool/dispatch`, each on
//! the disk before its ids are told, and removed once the hub has its jobs.
//!
//! Only who may dispatch reads them: a file holds no right, and whoever sends it shows the operator's
//! own credentials. A machine's agent cannot: it may not dispatch.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_contract::ids::{JobId, TicketId};
use fleet_contract::spec::JobSpec;
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::home::Home;
use fleet_nats::operate::{ActError, DispatchError};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::{clock, private_file};

/// Most bytes that may wait.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long a passer-by waits for another who is sending, and how often it looks.
const PASSING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What is said of a job that is here and nowhere else.
pub(crate) const HERE: &str = "spooled here, not sent";
/// What is said of one that is to be ended and that the hub may have.
const TO_BE_CANCELED: &str = "to be canceled, also at the hub, which may have it";

/// A job to be: its id and its ticket are decided before anybody hears of it, so that it is the same
/// job however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) id: JobId,
    pub(crate) ticket: TicketId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u32>,
    /// Who wants it ended, of a job that the hub may have already: it is canceled there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canceled_by: Option<String>,
}

/// What one command dispatched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    v: u32,
    pub(crate) spooled_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) queue_anyway: bool,
    pub(crate) spec: JobSpec,
    pub(crate) jobs: Vec<Planned>,
    /// Whether its sending was begun: from then on nobody here knows what the hub has of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
    /// Why the hub's fleet cannot run it: it is not sent again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

impl Batch {
    /// These jobs of this specification.
    pub(crate) fn new(
        spec: &JobSpec,
        jobs: Vec<Planned>,
        key: Option<&str>,
        queue_anyway: bool,
    ) -> Self {
        Self {
            v: 1,
            spooled_at: clock::now(),
            key: key.map(str::to_owned),
            queue_anyway,
            spec: spec.clone(),
            jobs,
            begun: false,
            refused: None,
        }
    }

    /// Whether nobody wants any of its jobs ended: what was refused then waits for a person.
    fn nobody_cancels(&self) -> bool {
        self.jobs.iter().all(|job| job.canceled_by.is_none())
    }

    /// Those that are wanted: one that is to be ended, and could not be yet, is not sent meanwhile.
    fn to_send(&self) -> impl Iterator<Item = &Planned> {
        self.jobs.iter().filter(|job| job.canceled_by.is_none())
    }

    fn spec_of(&self, job: &Planned) -> JobSpec {
        JobSpec {
            index: job.index,
            ..self.spec.clone()
        }
    }

    /// Its jobs as they are shown.
    pub(crate) fn views(&self) -> impl Iterator<Item = JobView> {
        self.jobs.iter().map(|job| self.view(job))
    }

    fn view(&self, job: &Planned) -> JobView {
        let reason = match &self.refused {
            _ if job.canceled_by.is_some() => format!("{HERE}: {TO_BE_CANCELED}"),
            Some(why) => format!("{HERE}: {why}"),
            None => HERE.to_owned(),
        };
        JobView {
            reason: Some(reason),
            resolved: None,
            cancel_requested: job.canceled_by.is_some(),
            index: job.index,
            ..JobView::dispatched(job.id, &self.spec, 0)
        }
    }
}

/// A file, and what is in it or why that cannot be read.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) batch: Result<Batch, String>,
}

fn names(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.spool_dispatch()).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort_unstable();
    names
}

/// Whether anything waits here.
pub(crate) fn any(home: &Home) -> bool {
    !names(home).is_empty()
}

/// Everything that waits here, oldest first.
pub(crate) fn list(home: &Home) -> Vec<Entry> {
    let read = |name: String| {
        let path = home.spool_dispatch().join(name);
        let batch = match fs::read(&path) {
            // Sent by another process in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
        };
        Some(Entry { path, batch })
    };
    names(home).into_iter().filter_map(read).collect()
}

/// Every job that waits here, oldest first.
pub(crate) fn views(home: &Home) -> Vec<JobView> {
    let batches = list(home).into_iter().filter_map(|entry| entry.batch.ok());
    batches
        .flat_map(|batch| batch.views().collect::<Vec<_>>())
        .collect()
}

/// The right to change what waits here; held as long as the file is open.
fn lock(home: &Home, operation: FlockOperation) -> io::Result<File> {
    private_file::folder(&home.spool_dispatch())?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(home.spool_dispatch().join("lock"))?;
    flock(&file, operation)?;
    Ok(file)
}

/// Puts jobs on the disk: when this returns, they outlive a loss of power.
pub(crate) fn put(home: &Home, batch: &Batch) -> Result<(), Failure> {
    let folder = home.spool_dispatch();
    let failed = |error: io::Error| Failure::file("cannot spool the job", &folder, &error);
    let bytes = serde_json::to_vec(batch).map_err(|e| Failure::internal(e.to_string()))?;
    let _lock = lock(home, FlockOperation::LockExclusive).map_err(failed)?;
    let there = names(home);
    let size = |name: &String| fs::metadata(folder.join(name)).map_or(0, |m| m.len());
    let held: u64 = there.iter().map(size).sum();
    if held + bytes.len() as u64 > BYTES_MAX {
        let text = format!("the spool is full: {held} bytes of jobs wait, {BYTES_MAX} may");
        return Err(Failure::new(Exit::TempFail, text).next("fleet spool list"));
    }
    // Behind all that is there, whatever the clock says.
    let number = |name: &String| name.split('-').next()?.parse::<u64>().ok();
    let now = u64::try_from(clock::now().as_micros()).unwrap_or(0);
    let last = there
        .last()
        .and_then(number)
        .map_or(0, |n| n.saturating_add(1));
    let first = batch.jobs.first().map_or("none", |job| job.id.as_str());
    let path = folder.join(format!("{:020}-{first}.json", now.max(last)));
    private_file::replace(&path, &bytes).map_err(failed)?;
    for above in [home.spool_dir(), home.root().to_owned()] {
        File::open(&above)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}

/// What became of the wish to take a job out of what waits here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// It is gone: the hub never hears of it.
    Removed,
    /// Its sending was begun: whoever sends next sees to it that it is canceled at the hub, too.
    Begun,
    /// It is not here, or not any more.
    NotHere,
}

/// Takes a job out of what waits here, for `by`. Nobody sends it meanwhile: who sends has the lock.
pub(crate) fn withdraw(home: &Home, id: JobId, by: &str) -> Result<Withdrawn, Failure> {
    let failed = |path: &Path, e: &io::Error| Failure::file("cannot remove the job", path, e);
    let folder = home.spool_dispatch();
    if !any(home) {
        return Ok(Withdrawn::NotHere);
    }
    let _lock = lock(home, FlockOperation::LockExclusive).map_err(|e| failed(&folder, &e))?;
    for Entry { path, batch } in list(home) {
        let Ok(mut batch) = batch else { continue };
        let Some(at) = batch.jobs.iter().position(|job| job.id == id) else {
            continue;
        };
        let withdrawn = if batch.begun {
            batch.jobs[at].canceled_by = Some(by.to_owned());
            Withdrawn::Begun
        } else {
            batch.jobs.remove(at);
            Withdrawn::Removed
        };
        rewrite(&path, &batch).map_err(|e| failed(&path, &e))?;
        return Ok(withdrawn);
    }
    Ok(Withdrawn::NotHere)
}

/// Leaves these jobs in a file; without jobs the file goes.
fn rewrite(path: &Path, batch: &Batch) -> io::Result<()> {
    if !batch.jobs.is_empty() {
        let bytes = serde_json::to_vec(batch)?;
        return private_file::replace(path, &bytes);
    }
    fs::remove_file(path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What became of what waited here.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Jobs that the hub has now.
    pub(crate) jobs: Vec<JobId>,
    /// Jobs of which the hub may have had something, and which are canceled there now.
    pub(crate) canceled: Vec<JobId>,
    /// Jobs that the hub's fleet cannot run, and why.
    pub(crate) refused: Vec<(JobId, String)>,
    /// Files that cannot be read, and why.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    /// Why the rest waits on.
    pub(crate) stopped: Option<DispatchError>,
}

/// Whose turn it is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Whoever comes by: leaves it to another who is at it, and what was refused alone.
    Passing,
    /// Who was told to: everything.
    Told,
}

/// Sends what waits here, in order. Sent twice, by two processes or after a crash, a job is the same
/// job.
pub(crate) async fn send(home: &Home, bus: &Bus, turn: Turn) -> Result<Sent, Failure> {
    let mut sent = Sent::default();
    let Some(_lock) = my_turn(home, turn).await? else {
        return Ok(sent);
    };
    for Entry { path, batch } in list(home) {
        let mut batch = match batch {
            Ok(batch) => batch,
            Err(why) => {
                sent.unreadable.push((path, why));
                continue;
            }
        };
        if batch.refused.is_some() && turn == Turn::Passing && batch.nobody_cancels() {
            continue;
        }
        let done = match cancel_begun(bus, &mut batch, &mut sent).await {
            Ok(()) if batch.to_send().next().is_none() => Ok(()),
            Ok(()) => send_batch(bus, &path, &mut batch, &mut sent).await,
            Err(error) => Err(error.into()),
        };
        rewrite(&path, &batch).map_err(|e| Failure::file("cannot send", &path, &e))?;
        match done {
            Ok(()) => {}
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::There(error)) => {
                sent.stopped = Some(error);
                break;
            }
        }
    }
    Ok(sent)
}

/// Why the rest is not sent now.
enum Stopped {
    /// A file of ours cannot be written.
    Here(Failure),
    /// The hub, or what is on the way to it.
    There(DispatchError),
}

impl From<DispatchError> for Stopped {
    fn from(error: DispatchError) -> Self {
        Self::There(error)
    }
}

impl From<BusError> for Stopped {
    fn from(error: BusError) -> Self {
        Self::There(error.into())
    }
}

/// The right to send, where nobody else keeps it for longer than is waited.
async fn my_turn(home: &Home, turn: Turn) -> Result<Option<File>, Failure> {
    let begun = Instant::now();
    loop {
        match lock(home, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                return Err(Failure::file("cannot send", &home.spool_dispatch(), &error));
            }
        }
        // Whoever is at it is nearly done, as a rule: what comes after may be about these jobs.
        if turn == Turn::Passing && begun.elapsed() > PASSING {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Cancels the jobs of a file that are not wanted any more and that the hub may have: sent once more,
/// they are certainly the very jobs that it has or will have, and can be canceled.
async fn cancel_begun(bus: &Bus, batch: &mut Batch, sent: &mut Sent) -> Result<(), DispatchError> {
    let key = batch.key.clone();
    for job in batch.jobs.clone() {
        let Some(by) = &job.canceled_by else { continue };
        let spec = batch.spec_of(&job);
        let again = bus.dispatch_again(job.id, job.ticket, key.as_deref(), spec);
        match again.await {
            Ok(_) => match bus.cancel(job.id, by).await {
                Ok(_) | Err(ActError::UnknownJob(_)) => {}
                Err(ActError::Bus(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, id = %job.id, "a job that was sent is not canceled yet");
                    continue;
                }
            },
            Err(error) if is_for_good(&error) => {}
            Err(error) => return Err(error),
        }
        sent.canceled.push(job.id);
        batch.jobs.retain(|other| other.id != job.id);
    }
    Ok(())
}

/// Sends one file's jobs; what is not sent stays in it.
async fn send_batch(
    bus: &Bus,
    path: &Path,
    batch: &mut Batch,
    sent: &mut Sent,
) -> Result<(), Stopped> {
    batch.refused = None;
    let survey = bus.survey(&batch.spec.target).await?;
    if let Err(error) = survey.check(&batch.spec, batch.queue_anyway) {
        return Ok(refuse(batch, error, sent)?);
    }
    if !std::mem::replace(&mut batch.begun, true) {
        let failed = |e| Stopped::Here(Failure::file("cannot send", path, &e));
        rewrite(path, batch).map_err(failed)?;
    }
    let mut done = Ok(());
    // One after the other: what was spooled first is queued first.
    for job in batch.to_send() {
        let (key, spec) = (batch.key.as_deref(), batch.spec_of(job));
        match bus.dispatch_again(job.id, job.ticket, key, spec).await {
            Ok(_) => sent.jobs.push(job.id),
            Err(error) => {
                done = Err(error);
                break;
            }
        }
    }
    batch.jobs.retain(|job| !sent.jobs.contains(&job.id));
    Ok(done.or_else(|error| refuse(batch, error, sent))?)
}

fn is_for_good(error: &DispatchError) -> bool {
    matches!(
        error,
        DispatchError::UnknownMachine { .. }
            | DispatchError::NobodyFits { .. }
            | DispatchError::KeyTaken { .. }
            | DispatchError::Spec(_)
            | DispatchError::Bus(BusError::Wire(_))
    )
}

/// Keeps what the fleet will not take, however often it is asked; anything else is tried again.
fn refuse(batch: &mut Batch, error: DispatchError, sent: &mut Sent) -> Result<(), DispatchError> {
    if !is_for_good(&error) {
        return Err(error);
    }
    let why = error.to_string();
    let jobs = batch.jobs.iter().map(|job| (job.id, why.clone()));
    sent.refused.extend(jobs);
    batch.refused = Some(why);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fleet_contract::ids::Lane;
    use fleet_contract::spec::Target;
    use fleet_nats::clock::{job_id, ticket_id};

    use super::*;

    fn batch(count: u32) -> Batch {
        let command = vec!["true".to_owned()];
        let mut spec = JobSpec::new(
            command,
            Target::Lane(Lane::any()),
            clock::now(),
            "ana@laptop".to_owned(),
        );
        spec.stdin = Some(vec![0, 255]);
        let jobs = (0..count).map(|index| Planned {
            id: job_id(),
            ticket: ticket_id(),
            index: Some(index),
            canceled_by: None,
        });
        Batch::new(&spec, jobs.collect(), None, false)
    }

    #[test]
    fn what_is_spooled_is_private_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("f"));
        fs::create_dir(home.root()).unwrap();
        assert!(!any(&home));
        let batches: Vec<Batch> = (1..4).map(batch).collect();
        for batch in &batches {
            put(&home, batch).unwrap();
        }
        // Left over by a writer that was killed, and by nobody.
        fs::write(home.spool_dispatch().join("x.json.7.new"), "{").unwrap();
        fs::write(home.spool_dispatch().join("00-x.json"), "{").unwrap();
        let entries = list(&home);
        assert!(entries[0].batch.is_err());
        let read: Vec<Batch> = entries.into_iter().filter_map(|e| e.batch.ok()).collect();
        assert_eq!(read, batches);
        for (path, mode) in [
            (home.spool_dir(), 0o700),
            (home.spool_dispatch(), 0o700),
            (list(&home)[1].path.clone(), 0o600),
        ] {
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{}", path.display());
        }
        let views = views(&home);
        assert_eq!(views.len(), 6);
        assert_eq!(views[1].index, Some(0));
        assert_eq!(views[0].reason.as_deref(), Some(HERE));
        let out = |job: usize| withdraw(&home, views[job].id, "ana").unwrap();
        assert_eq!(out(1), Withdrawn::Removed);
        assert_eq!(out(1), Withdrawn::NotHere);
        assert_eq!(out(0), Withdrawn::Removed);
        assert_eq!(names(&home).len(), 3, "an empty one goes");
    }

    #[test]
    fn a_clock_that_goes_back_changes_no_order() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        private_file::folder(&home.spool_dispatch()).unwrap();
        let later = home.spool_dispatch().join("09999999999999999999-a.json");
        let first = batch(1);
        fs::write(later, serde_json::to_vec(&first).unwrap()).unwrap();
        let second = batch(1);
        put(&home, &second).unwrap();
        let read: Vec<Batch> = list(&home)
            .into_iter()
            .filter_map(|e| e.batch.ok())
            .collect();
        assert_eq!(read, [first, second]);
    }
}
