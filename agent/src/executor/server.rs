//! The executor's process: one socket, one agent at a time, one engine, and when to end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fleet_contract::spec::KILL_GRACE;
use rustix::fs::FlockOperation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::engine::{Engine, EngineOptions, StartResult};
use super::outbox::{Outbox, Taken};
use super::protocol::{
    self, Environment, ExecutorEvent, FromExecutor, PROTOCOL_VERSION, Reply, Request, ToExecutor,
};
use super::record::{self, make_private_dir};
use super::room::OutputBound;
use super::socket::{self, Bound};
use super::wakeups::Wakeups;
use super::{ExecutorError, OnlyOne, agent_dir, jobs_dir};

/// What the executor says on its standard output once it can be connected to.
pub(crate) const READY: &str = "fleet-executor ready";
/// What it says if another one is there already.
pub(crate) const BUSY: &str = "fleet-executor busy";

/// How long a connection may take to say who it is.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Most connections that may be about to say so.
const GREETINGS_MAX: usize = 16;
/// How long the last messages may take when the executor ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Requests read ahead of the engine.
const REQUESTS_AHEAD: usize = 64;
/// About how much is written to the agent at once, in bytes.
const WRITE_BATCH: usize = 256 * 1024;
/// Reports in one part of a list, and about how many bytes they may have.
const LIST_PART: usize = 64;
const LIST_PART_BYTES: usize = 1024 * 1024;

/// How an executor works.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// `FLEET_HOME`.
    pub home: PathBuf,
    /// How long it waits without an agent and without jobs before it ends.
    pub linger: Duration,
    /// Time between TERM and KILL.
    pub grace: Duration,
}

impl ExecutorOptions {
    /// The usual ones for this `FLEET_HOME`.
    #[must_use]
    pub fn new(home: PathBuf) -> Self {
        Self {
            home,
            linger: Duration::from_secs(10),
            grace: KILL_GRACE,
        }
    }
}

/// Runs an executor on a single-threaded runtime of its own until it is told to end or has had
/// nothing to do for a while. What `fleet executor` calls.
///
/// # Errors
/// See [`ExecutorError`]; an executor that is there already is [`ExecutorError::Busy`].
pub fn serve_blocking(options: ExecutorOptions) -> Result<(), ExecutorError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ExecutorError::System {
            what: "start a runtime",
            error,
        })?
        .block_on(serve(options))
}

/// Like [`serve_blocking`], on the caller's runtime, which should be single-threaded and run
/// nothing else. Leaves the session of whoever started it; closes standard output once it
/// listens.
///
/// # Errors
/// See [`serve_blocking`].
pub async fn serve(mut options: ExecutorOptions) -> Result<(), ExecutorError> {
    let _only = OnlyOne::take()?;
    options.home =
        std::path::absolute(&options.home).map_err(io_error("find", &options.home.clone()))?;
    // It lives long and must keep no folder from being removed or unmounted.
    let _ = std::env::set_current_dir("/");
    // Fails only for the leader of a group, whose session is its own business.
    let _ = rustix::process::setsid();
    let dir = agent_dir(&options.home);
    make_private_dir(&dir).map_err(io_error("make", &dir))?;
    let _lock = take_lock(&options.home)?;

    let (wakeups, inputs) = Wakeups::new()?;
    let outbox = Arc::new(Outbox::default());
    let root = jobs_dir(&options.home);
    let engine = EngineOptions {
        ended: Some(ended_dir(&options.home)),
        grace: options.grace,
        base_env: own_environment(),
        within_program: false,
        logs: root.clone(),
        root: root.clone(),
    };
    let engine = Engine::open(engine, Arc::clone(&outbox), inputs)
        .map_err(io_error("read attempts under", &root))?;
    let bound = socket::bind(&options.home).map_err(io_error("listen in", &dir))?;
    announce(READY);
    let server = Server::new(options, engine, outbox)?;
    server.run(wakeups, bound).await;
    Ok(())
}

/// Where the small records of forgotten attempts are.
pub(crate) fn ended_dir(home: &Path) -> PathBuf {
    agent_dir(home).join("ended")
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExecutorError {
    let path = path.to_owned();
    move |error| ExecutorError::Io { what, path, error }
}

/// The executor's own variables, as far as they are text.
pub(crate) fn own_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Held as long as the executor lives, also against one that was killed: the kernel frees it.
fn take_lock(home: &Path) -> Result<File, ExecutorError> {
    let path = agent_dir(home).join("executor.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            announce(BUSY);
            Err(ExecutorError::Busy(home.to_owned()))
        }
        Err(error) => Err(io_error("lock", &path)(error.into())),
    }
}

/// Tells whoever started this process, and lets go of the pipe to them.
fn announce(line: &str) {
    use io::Write;
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

enum Incoming {
    Greeted {
        reader: OwnedReadHalf,
        writer: OwnedWriteHalf,
        buffer: BytesMut,
        version: u32,
        base_env: Option<Environment>,
        keep: Option<OutputBound>,
    },
    Request {
        epoch: u64,
        id: u64,
        request: Request,
    },
    Closed {
        epoch: u64,
        /// What was wrong, if it was not just closed.
        fault: Option<String>,
    },
}

struct Connection {
    epoch: u64,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

struct Server {
    options: ExecutorOptions,
    engine: Engine,
    outbox: Arc<Outbox>,
    connection: Option<Connection>,
    incoming: mpsc::Sender<Incoming>,
    received: mpsc::Receiver<Incoming>,
    stopping: bool,
    terminate: Signal,
    /// Listened to so that they do not end this process, and otherwise ignored.
    ignored: [Signal; 2],
}

impl Server {
    fn new(
        options: ExecutorOptions,
        engine: Engine,
        outbox: Arc<Outbox>,
    ) -> Result<Self, ExecutorError> {
        let listen = |kind| {
            signal(kind).map_err(|error| ExecutorError::System {
                what: "listen for signals",
                error,
            })
        };
        let (incoming, received) = mpsc::channel(REQUESTS_AHEAD);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            ignored: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::hangup())?,
            ],
            options,
            engine,
            outbox,
            connection: None,
            incoming,
            received,
            stopping: false,
        })
    }

    async fn run(mut self, mut wakeups: Wakeups, bound: Bound) {
        let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
        let mut idle_since = Instant::now();
        loop {
            let idle = self.connection.is_none() && self.engine.live() == 0;
            if self.stopping && self.engine.live() == 0 {
                break;
            }
            let [interrupt, hangup] = &mut self.ignored;
            tokio::select! {
                wake = wakeups.next(&self.engine) => wake.apply(&mut self.engine),
                Some(incoming) = self.received.recv() => self.incoming(incoming),
                Ok((stream, _)) = bound.listener.accept() => {
                    greet(stream, Arc::clone(&greetings), self.incoming.clone());
                }
                _ = self.terminate.recv() => self.stop(),
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
                () = tokio::time::sleep_until(idle_since + self.options.linger), if idle => break,
            }
            if !idle {
                idle_since = Instant::now();
            }
        }
        // From here on a client finds no socket, or is not answered, and starts another one.
        drop(bound);
        self.outbox.finish();
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(FAREWELL_LIMIT, connection.writer).await;
            connection.reader.abort();
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.engine.stop();
    }

    fn incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Greeted {
                reader,
                writer,
                buffer,
                version,
                base_env,
                keep,
            } => {
                if version != PROTOCOL_VERSION {
                    refuse(writer, version);
                    return;
                }
                if let Some(env) = base_env {
                    self.engine.set_base_env(env);
                }
                if let Some(bound) = keep {
                    self.engine.set_bound(bound);
                }
                self.connect(reader, writer, buffer, keep.is_some());
            }
            Incoming::Request { epoch, id, request } => self.request(epoch, id, request),
            Incoming::Closed { epoch, fault } => {
                if self.connection.as_ref().is_none_or(|c| c.epoch != epoch) {
                    return;
                }
                match fault {
                    Some(reason) => {
                        tracing::warn!(reason, "disconnecting the agent");
                        self.outbox.reply(epoch, FromExecutor::Refused { reason });
                    }
                    None => self.outbox.detach(epoch),
                }
                self.connection = None;
            }
        }
    }

    /// A newer agent replaces the older one.
    fn connect(
        &mut self,
        reader: OwnedReadHalf,
        writer: OwnedWriteHalf,
        buffer: BytesMut,
        keeps: bool,
    ) {
        if let Some(older) = self.connection.take() {
            older.reader.abort();
            older.writer.abort();
        }
        let kept = keeps.then(|| self.engine.kept());
        let epoch = self.outbox.attach(kept);
        self.outbox.reply(
            epoch,
            FromExecutor::Welcome {
                version: PROTOCOL_VERSION,
                pid: std::process::id(),
                takes_delivered: true,
            },
        );
        if let Some(kept) = kept {
            self.outbox.event(ExecutorEvent::Kept(kept));
        }
        let incoming = self.incoming.clone();
        self.connection = Some(Connection {
            epoch,
            reader: tokio::spawn(read_requests(reader, buffer, epoch, incoming)),
            writer: tokio::spawn(write_messages(writer, epoch, Arc::clone(&self.outbox))),
        });
    }

    fn request(&mut self, epoch: u64, id: u64, request: Request) {
        let reply = match request {
            Request::Start(request) => match self.engine.start(*request, None) {
                StartResult::New => Reply::Done,
                StartResult::Known(report) => Reply::Known(report),
                StartResult::Stopping => Reply::Stopping,
            },
            Request::Kill { attempt, cause } => done_if(self.engine.kill(attempt, cause)),
            Request::FenceAt { attempt, at } => done_if(self.engine.fence_at(attempt, at)),
            Request::List => return self.list(epoch, id),
            Request::Ended { attempts } => return self.ended(epoch, id, attempts),
            Request::Forget { attempt } => match self.engine.forget(attempt) {
                None | Some(Ok(true)) => Reply::Done,
                Some(Ok(false)) => Reply::Running,
                Some(Err(error)) => Reply::Failed {
                    reason: format!("cannot forget attempt {attempt}: {error}"),
                },
            },
            Request::Delivered { attempt, chunks } => {
                self.engine.delivered(attempt, chunks);
                Reply::Done
            }
            Request::SetBaseEnv { env } => {
                self.engine.set_base_env(env);
                Reply::Done
            }
            Request::Shutdown => {
                self.stop();
                Reply::Done
            }
        };
        self.outbox.reply(epoch, FromExecutor::Reply { id, reply });
    }

    fn list(&self, epoch: u64, id: u64) {
        let mut part = Vec::new();
        let mut weight = 0;
        let send = |reports, more| {
            let reply = Reply::Reports { reports, more };
            self.outbox.reply(epoch, FromExecutor::Reply { id, reply });
        };
        for report in self.engine.reports() {
            weight += report.spec.command.iter().map(String::len).sum::<usize>();
            weight += report.spec.env.values().map(String::len).sum::<usize>();
            part.push(report);
            if part.len() >= LIST_PART || weight >= LIST_PART_BYTES {
                send(std::mem::take(&mut part), true);
                weight = 0;
            }
        }
        send(part, false);
    }

    /// Reads files that may be large, beside the engine.
    fn ended(&self, epoch: u64, id: u64, attempts: Vec<fleet_contract::ids::AttemptId>) {
        let mut records = self.engine.ended(&attempts);
        let (outbox, dir) = (Arc::clone(&self.outbox), ended_dir(&self.options.home));
        tokio::task::spawn_blocking(move || {
            let reply = match record::read_ended(&dir, &attempts) {
                Ok(kept) => {
                    records.extend(kept);
                    Reply::Ended { records }
                }
                Err(error) => Reply::Failed {
                    reason: format!("cannot read {}: {error}", dir.display()),
                },
            };
            outbox.reply(epoch, FromExecutor::Reply { id, reply });
        });
    }
}

fn done_if(known: bool) -> Reply {
    if known { Reply::Done } else { Reply::NotKnown }
}

/// Reads the greeting of a new connection, beside the engine.
fn greet(stream: UnixStream, greetings: Arc<Semaphore>, incoming: mpsc::Sender<Incoming>) {
    let Ok(permit) = greetings.try_acquire_owned() else {
        tracing::warn!("too many connections that say nothing, refusing another");
        return;
    };
    if let Err(error) = socket::check_peer(&stream) {
        tracing::warn!(%error, "refusing a connection");
        return;
    }
    tokio::spawn(async move {
        let _permit = permit;
        let (mut reader, writer) = stream.into_split();
        let mut buffer = BytesMut::new();
        let hello = tokio::time::timeout(GREETING_LIMIT, async {
            loop {
                match protocol::decode::<ToExecutor>(&mut buffer) {
                    Ok(Some(ToExecutor::Hello {
                        version,
                        base_env,
                        keep,
                    })) => {
                        return Some((version, base_env, keep));
                    }
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) => return None,
                }
                if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
                    return None;
                }
            }
        });
        let Ok(Some((version, base_env, keep))) = hello.await else {
            tracing::warn!("a connection did not begin with a greeting");
            return;
        };
        let greeted = Incoming::Greeted {
            reader,
            writer,
            buffer,
            version,
            base_env,
            keep,
        };
        // Fails only when the executor ends.
        let _ = incoming.send(greeted).await;
    });
}

fn refuse(mut writer: OwnedWriteHalf, version: u32) {
    let reason = format!(
        "the executor speaks version {PROTOCOL_VERSION} of the protocol, the agent version {version}"
    );
    tracing::warn!(reason, "refusing a connection");
    tokio::spawn(async move {
        let mut out = Vec::new();
        if protocol::encode(&FromExecutor::Refused { reason }, &mut out).is_ok() {
            let _ = tokio::time::timeout(FAREWELL_LIMIT, writer.write_all(&out)).await;
        }
    });
}

async fn read_requests(
    mut reader: OwnedReadHalf,
    mut buffer: BytesMut,
    epoch: u64,
    incoming: mpsc::Sender<Incoming>,
) {
    let fault = loop {
        match protocol::decode::<ToExecutor>(&mut buffer) {
            Ok(Some(ToExecutor::Request { id, request })) => {
                let request = Incoming::Request { epoch, id, request };
                if incoming.send(request).await.is_err() {
                    return;
                }
            }
            Ok(Some(ToExecutor::Hello { .. })) => break Some("a second greeting".to_owned()),
            Ok(None) => match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break None,
                Ok(_) => {}
            },
            Err(error) => break Some(error.to_string()),
        }
    };
    let _ = incoming.send(Incoming::Closed { epoch, fault }).await;
}

async fn write_messages(mut writer: OwnedWriteHalf, epoch: u64, outbox: Arc<Outbox>) {
    let mut out = Vec::new();
    while let Some(message) = outbox.next(epoch).await {
        let mut last = put(&mut out, &message);
        while out.len() < WRITE_BATCH && !last {
            match outbox.try_next(epoch) {
                Taken::Message(message) => last = put(&mut out, &message),
                Taken::Nothing | Taken::Over => break,
            }
        }
        if writer.write_all(&out).await.is_err() || last {
            break;
        }
        out.clear();
        if out.capacity() > WRITE_BATCH {
            out = Vec::new();
        }
    }
    // The reader hears of it by the other side's close.
    let _ = writer.shutdown().await;
    outbox.detach(epoch);
}

/// True if nothing may follow.
fn put(out: &mut Vec<u8>, message: &FromExecutor) -> bool {
    if let Err(error) = protocol::encode(message, out) {
        tracing::error!(%error, "cannot tell the agent");
    }
    matches!(message, FromExecutor::Refused { .. })
}
