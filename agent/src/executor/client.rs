//! The agent's side: finds or starts the executor, asks it for things, hears what happens.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use fleet_contract::ids::AttemptId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::boot::BootTime;
use super::protocol::{
    self, AttemptReport, EndedRecord, Environment, ExecutorEvent, FrameError, FromExecutor,
    KillCause, PROTOCOL_VERSION, Reply, Request, StartRequest, ToExecutor,
};
use super::record::make_private_dir;
use super::room::OutputBound;
use super::server::{BUSY, READY};
use super::{agent_dir, socket};

/// How long one request may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the greeting may take.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Pause before looking again for an executor that another process starts or that is ending:
/// neither tells this one.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Requests that may wait to be written.
const REQUESTS_AHEAD: usize = 256;
/// Events handed over before the receiver takes any.
const EVENTS_AHEAD: usize = 256;
/// About how much is written at once, in bytes.
const WRITE_BATCH: usize = 256 * 1024;
/// The executor's log file is begun anew over this size, in bytes.
const LOG_FILE_MAX: u64 = 1024 * 1024;

/// How an executor's process is started.
#[derive(Debug, Clone)]
pub struct ExecutorCommand {
    /// The program, usually this very binary.
    pub program: PathBuf,
    /// Its arguments, such as `executor --home DIR`.
    pub args: Vec<OsString>,
    /// Variables on top of this process's.
    pub env: Vec<(OsString, OsString)>,
}

/// How to reach, or start, an executor.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `FLEET_HOME`.
    pub home: PathBuf,
    /// What to start if none is there.
    pub command: ExecutorCommand,
    /// The base of every job's environment (see [`crate::world`]); none leaves what the
    /// executor has, at first its own.
    pub base_env: Option<Environment>,
    /// How much output of all jobs it may keep; none leaves what it has.
    pub keep: Option<OutputBound>,
    /// How long all of it may take.
    pub limit: Duration,
}

/// Why the executor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be reached or started in time.
    #[error("cannot start the executor ({program}): {reason}: see {log}", program = program.display(), log = log.display())]
    Start {
        /// What was started.
        program: PathBuf,
        /// What happened.
        reason: String,
        /// Where it writes what is wrong.
        log: PathBuf,
    },
    /// A file under `FLEET_HOME`.
    #[error("cannot write {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The executor speaks another version of the protocol, or found this side at fault.
    #[error("the executor refused the connection: {0}")]
    Refused(String),
    /// The connection is over.
    #[error("the connection to the executor is over: connect again")]
    Lost,
    /// No reply in time.
    #[error("the executor did not answer within {} s", CALL_LIMIT.as_secs())]
    NoAnswer,
    /// It has no such attempt.
    #[error("the executor knows no attempt {0}")]
    NotKnown(AttemptId),
    /// It cannot be forgotten yet.
    #[error("attempt {0} has not ended")]
    Running(AttemptId),
    /// It is about to end and takes no more; the next one will.
    #[error("the executor is about to end: ask the next one")]
    Stopping,
    /// It could not do it.
    #[error("{0}")]
    Failed(String),
    /// A request that is over the limits, or a reply that is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It was started, or ended at once (rejected, fenced): an event says which.
    New,
    /// It had been started before; nothing was done.
    Known(Box<AttemptReport>),
}

/// A connection to the executor. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct ExecutorClient {
    requests: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next_id: AtomicU64,
    pid: u32,
    takes_delivered: bool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    lost: bool,
    calls: HashMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    reply: oneshot::Sender<Reply>,
    /// Parts of a list so far.
    reports: Vec<AttemptReport>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, id: u64, reply: Reply) {
        let mut waiting = self.waiting();
        let Some(call) = waiting.calls.get_mut(&id) else {
            return;
        };
        let reply = match reply {
            Reply::Reports { reports, more } => {
                call.reports.extend(reports);
                if more {
                    return;
                }
                Reply::Reports {
                    reports: std::mem::take(&mut call.reports),
                    more,
                }
            }
            other => other,
        };
        if let Some(call) = waiting.calls.remove(&id) {
            // Fails when the caller no longer waits.
            let _ = call.reply.send(reply);
        }
    }

    fn lost(&self) {
        let mut waiting = self.waiting();
        waiting.lost = true;
        waiting.calls.clear();
    }
}

/// Takes a call off the list when its caller no longer waits.
struct Registered<'a>(&'a Shared, u64);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.waiting().calls.remove(&self.1);
    }
}

impl ExecutorClient {
    /// Connects to the executor of this `FLEET_HOME`, starting one if there is none. It becomes
    /// the executor's only agent. Its processes and the events of an earlier connection are
    /// found with [`Self::list`].
    ///
    /// Every event of the connection comes through the receiver, [`ExecutorEvent::Lost`] last.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn connect_or_start(
        options: ConnectOptions,
    ) -> Result<(Self, mpsc::Receiver<ExecutorEvent>), ClientError> {
        let dir = agent_dir(&options.home);
        make_private_dir(&dir).map_err(|error| ClientError::Io {
            path: dir.clone(),
            error,
        })?;
        let until = Instant::now() + options.limit;
        let log = dir.join("executor.log");
        let failed = |reason| ClientError::Start {
            program: options.command.program.clone(),
            reason,
            log: log.clone(),
        };
        let mut reason = "it did not answer in time".to_owned();
        loop {
            match connect(&options).await {
                Ok(Some(connected)) => return Ok(connected),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                return Err(failed(reason));
            }
            match tokio::time::timeout_at(until, start(&options.command, &log)).await {
                Ok(Ok(Announced::Ready)) => {}
                Ok(Ok(Announced::Busy)) => tokio::time::sleep(LOOK_AGAIN).await,
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) => reason = "it did not say that it is ready in time".to_owned(),
            }
        }
    }

    /// The executor's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// Starts an attempt. Asking again for one that is known starts nothing.
    ///
    /// # Errors
    /// See [`ClientError`]. A job that cannot be started is no error but an event.
    pub async fn start(&self, request: StartRequest) -> Result<Start, ClientError> {
        match self.call(Request::Start(Box::new(request))).await? {
            Reply::Done => Ok(Start::New),
            Reply::Known(report) => Ok(Start::Known(report)),
            other => Err(unexpected(other)),
        }
    }

    /// Ends an attempt and everything it started: TERM, grace, KILL. Returns at once; the event
    /// follows when all of it is gone. One that has ended stays as it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn kill(&self, attempt: AttemptId, cause: KillCause) -> Result<(), ClientError> {
        match self.call(Request::Kill { attempt, cause }).await? {
            Reply::NotKnown => Err(ClientError::NotKnown(attempt)),
            other => done(other),
        }
    }

    /// Sets, moves or takes away the moment at which the executor ends an attempt by itself;
    /// `None` for all that run now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fence_at(
        &self,
        attempt: Option<AttemptId>,
        at: Option<BootTime>,
    ) -> Result<(), ClientError> {
        match (self.call(Request::FenceAt { attempt, at }).await?, attempt) {
            (Reply::NotKnown, Some(attempt)) => Err(ClientError::NotKnown(attempt)),
            (other, _) => done(other),
        }
    }

    /// Every attempt that runs, or has ended and was not forgotten.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self) -> Result<Vec<AttemptReport>, ClientError> {
        match self.call(Request::List).await? {
            Reply::Reports { reports, .. } => Ok(reports),
            other => Err(unexpected(other)),
        }
    }

    /// How these attempts ended, as far as it is known: also of those forgotten within the last
    /// 7 days.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ended(&self, attempts: Vec<AttemptId>) -> Result<Vec<EndedRecord>, ClientError> {
        match self.call(Request::Ended { attempts }).await? {
            Reply::Ended { records } => Ok(records),
            other => Err(unexpected(other)),
        }
    }

    /// The result was delivered: the attempt's files may go. One that is not known is no error.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Running`] before its end.
    pub async fn forget(&self, attempt: AttemptId) -> Result<(), ClientError> {
        match self.call(Request::Forget { attempt }).await? {
            Reply::Running => Err(ClientError::Running(attempt)),
            other => done(other),
        }
    }

    /// The hub has the chunks of an attempt up to this one: they go first where there is too much
    /// output. An executor that has no use for that is not told.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delivered(&self, attempt: AttemptId, chunks: u64) -> Result<(), ClientError> {
        if !self.shared.takes_delivered {
            return Ok(());
        }
        done(self.call(Request::Delivered { attempt, chunks }).await?)
    }

    /// Replaces the base of every later job's environment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_base_env(&self, env: Environment) -> Result<(), ClientError> {
        done(self.call(Request::SetBaseEnv { env }).await?)
    }

    /// Returns when the executor has answered, whatever it is asked: one that is stopped keeps its
    /// connection and does not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn answers(&self) -> Result<(), ClientError> {
        // Every version knows this, and nobody has this attempt.
        let attempt = Some(AttemptId::from_random([0; 10]));
        let asked = self.call(Request::FenceAt { attempt, at: None });
        asked.await.map(drop)
    }

    /// Tells the executor to end: its jobs as interrupted first, then itself. Returns when it
    /// has heard; [`ExecutorEvent::Lost`] follows when it is gone.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        done(self.call(Request::Shutdown).await?)
    }

    async fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::new();
        protocol::encode(&ToExecutor::Request { id, request }, &mut frame)?;
        let (reply, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.lost {
                return Err(ClientError::Lost);
            }
            let reports = Vec::new();
            waiting.calls.insert(id, Call { reply, reports });
        }
        let _registered = Registered(&self.shared, id);
        let answer = async {
            self.requests
                .send(frame)
                .await
                .map_err(|_| ClientError::Lost)?;
            answered.await.map_err(|_| ClientError::Lost)
        };
        tokio::time::timeout(CALL_LIMIT, answer)
            .await
            .map_err(|_| ClientError::NoAnswer)?
    }
}

fn done(reply: Reply) -> Result<(), ClientError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> ClientError {
    match reply {
        Reply::Failed { reason } => ClientError::Failed(reason),
        Reply::Stopping => ClientError::Stopping,
        _ => ClientError::Failed("the executor answered something else".to_owned()),
    }
}

type Connected = (ExecutorClient, mpsc::Receiver<ExecutorEvent>);

/// None if nobody is there, or whoever was there is ending.
async fn connect(options: &ConnectOptions) -> Result<Option<Connected>, ClientError> {
    let Ok(stream) = socket::connect(&options.home).await else {
        return Ok(None);
    };
    let greeted = tokio::time::timeout(GREETING_LIMIT, greet(stream, options)).await;
    let (reader, writer, buffer, welcome) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(ClientError::NoAnswer),
    };
    let shared = Arc::new(Shared {
        pid: welcome.0,
        takes_delivered: welcome.1,
        ..Shared::default()
    });
    let (requests, queue) = mpsc::channel(REQUESTS_AHEAD);
    let (events, receiver) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(write_requests(writer, queue));
    tokio::spawn(read_messages(reader, buffer, Arc::clone(&shared), events));
    Ok(Some((ExecutorClient { requests, shared }, receiver)))
}

/// The connection, the executor's process and whether it takes [`Request::Delivered`].
type Greeted = (OwnedReadHalf, OwnedWriteHalf, BytesMut, (u32, bool));

async fn greet(
    stream: UnixStream,
    options: &ConnectOptions,
) -> Result<Option<Greeted>, ClientError> {
    let (mut reader, mut writer) = stream.into_split();
    let hello = ToExecutor::Hello {
        version: PROTOCOL_VERSION,
        base_env: options.base_env.clone(),
        keep: options.keep,
    };
    let mut out = Vec::new();
    protocol::encode(&hello, &mut out)?;
    if writer.write_all(&out).await.is_err() {
        return Ok(None);
    }
    let mut buffer = BytesMut::new();
    loop {
        match protocol::decode(&mut buffer)? {
            Some(FromExecutor::Welcome {
                pid,
                takes_delivered,
                ..
            }) => {
                return Ok(Some((reader, writer, buffer, (pid, takes_delivered))));
            }
            Some(FromExecutor::Refused { reason }) => return Err(ClientError::Refused(reason)),
            Some(_) => return Err(ClientError::Refused("it did not greet".to_owned())),
            None => {}
        }
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            return Ok(None);
        }
    }
}

enum Announced {
    Ready,
    Busy,
}

/// Starts an executor and waits until it says that it listens.
///
/// It keeps this process's group: only so can it leave for a session of its own.
async fn start(command: &ExecutorCommand, log: &Path) -> Result<Announced, String> {
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.args)
        .envs(command.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(open_log(log).map_err(|error| format!("cannot write its log: {error}"))?)
        .spawn()
        .map_err(|error| error.to_string())?;
    let Some(stdout) = child.stdout.take() else {
        return Err("its output cannot be read".to_owned());
    };
    // Bounded: whatever else it says, a long line ends the wait.
    let mut lines = BufReader::new(stdout.take(64 * 1024)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A test's harness may have begun the line.
        if line.ends_with(READY) {
            return Ok(Announced::Ready);
        }
        if line.ends_with(BUSY) {
            return Ok(Announced::Busy);
        }
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    Err(format!("it ended with {status} before it was ready"))
}

fn open_log(path: &Path) -> io::Result<Stdio> {
    let large = std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_FILE_MAX);
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    let file = options.open(path)?;
    if large {
        file.set_len(0)?;
    }
    Ok(file.into())
}

async fn write_requests(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut out) = queue.recv().await {
        while out.len() < WRITE_BATCH
            && let Ok(more) = queue.try_recv()
        {
            out.extend_from_slice(&more);
        }
        if writer.write_all(&out).await.is_err() {
            // The reader sees it too and tells.
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Events that wait for a receiver that is slow, with those of output coalesced: replies must
/// not wait behind them, or a receiver that asks something would wait for itself.
#[derive(Default)]
struct EventQueue {
    items: VecDeque<ExecutorEvent>,
    /// Which attempts have an output event in the queue, and its newest counts.
    output: BTreeMap<AttemptId, (u64, u64)>,
}

impl EventQueue {
    fn push(&mut self, event: ExecutorEvent) {
        if let ExecutorEvent::Output {
            attempt,
            chunks,
            bytes,
        } = event
            && self.output.insert(attempt, (chunks, bytes)).is_some()
        {
            return;
        }
        if let (ExecutorEvent::Kept(now), Some(ExecutorEvent::Kept(last))) =
            (&event, self.items.back_mut())
        {
            *last = *now;
            return;
        }
        self.items.push_back(event);
    }

    fn pop(&mut self) -> Option<ExecutorEvent> {
        let event = self.items.pop_front()?;
        Some(match event {
            ExecutorEvent::Output {
                attempt,
                chunks,
                bytes,
            } => {
                let newest = self.output.remove(&attempt);
                let (chunks, bytes) = newest.unwrap_or((chunks, bytes));
                ExecutorEvent::Output {
                    attempt,
                    chunks,
                    bytes,
                }
            }
            other => other,
        })
    }
}

async fn read_messages(
    mut reader: OwnedReadHalf,
    mut buffer: BytesMut,
    shared: Arc<Shared>,
    events: mpsc::Sender<ExecutorEvent>,
) {
    let mut queue = EventQueue::default();
    let mut heard = true;
    loop {
        match protocol::decode(&mut buffer) {
            Ok(Some(FromExecutor::Event(event))) => {
                queue.push(event);
                continue;
            }
            Ok(Some(FromExecutor::Reply { id, reply })) => {
                shared.reply(id, reply);
                continue;
            }
            Ok(Some(FromExecutor::Welcome { .. })) => continue,
            Ok(Some(FromExecutor::Refused { reason })) => {
                tracing::warn!(reason, "the executor ended the connection");
                break;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot understand the executor");
                break;
            }
        }
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
            }
            permit = events.reserve(), if heard && !queue.items.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(event) = queue.pop() {
                        permit.send(event);
                    }
                }
                Err(_) => {
                    // Nobody listens: the connection goes on for replies.
                    heard = false;
                    queue = EventQueue::default();
                }
            },
        }
        if !heard {
            queue = EventQueue::default();
        }
    }
    shared.lost();
    while let Some(event) = queue.pop() {
        if events.send(event).await.is_err() {
            return;
        }
    }
    let _ = events.send(ExecutorEvent::Lost).await;
}
