//! Reads a job's two output pipes, makes chunks of what comes and writes them to its log.
//!
//! Nothing is read before the last chunk is written, so a job that prints faster than the disk
//! takes it waits in its own write: no buffer here grows over one chunk.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::{CHUNK_MAX_BYTES, OutputCount, OutputStream};
use fleet_contract::time::Time;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::log::{CHUNK_HEADER, Chunk, LogWriter};
use super::outbox::Outbox;
use super::protocol::ExecutorEvent;
use super::wall_now;

/// How long a small piece may wait for more of its stream.
const COALESCE: Duration = Duration::from_millis(5);
/// Most that is read from a pipe after the job's last process is gone: the largest pipe an
/// ordinary user can have. Only a stranger that was handed the pipe could put in more.
const DRAIN_MAX: usize = 1024 * 1024;

/// The engine's handle on a pump.
pub(crate) struct PumpHandle {
    /// The counts so far.
    pub(crate) count: watch::Receiver<OutputCount>,
    /// Set when every process is gone: what lies in the pipes is read, and no more.
    pub(crate) finish: watch::Sender<bool>,
}

/// What a pump works for.
pub(crate) struct PumpOptions {
    pub(crate) attempt: AttemptId,
    pub(crate) log: LogWriter,
    pub(crate) outbox: Arc<Outbox>,
    /// Gets a copy of every chunk; the job waits for a slow receiver, and goes on without one.
    pub(crate) live: Option<mpsc::Sender<Chunk>>,
}

struct Pump {
    options: PumpOptions,
    count: watch::Sender<OutputCount>,
    /// Room for the header and then up to a chunk; empty while nothing waits.
    pending: Vec<u8>,
    stream: OutputStream,
    since: Time,
    flush_at: Instant,
}

/// Starts to read. `done` is called with the final counts, in the pump's own task.
pub(crate) fn start(
    options: PumpOptions,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    done: impl FnOnce(OutputCount) + Send + 'static,
) -> PumpHandle {
    let (count_tx, count) = watch::channel(OutputCount::default());
    let (finish, finish_rx) = watch::channel(false);
    let pump = Pump {
        options,
        count: count_tx,
        pending: Vec::new(),
        stream: OutputStream::Stdout,
        since: Time::default(),
        flush_at: Instant::now(),
    };
    let open = |fd: Option<OwnedFd>| fd.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok());
    let (stdout, stderr) = (open(stdout), open(stderr));
    tokio::spawn(async move { done(pump.run(stdout, stderr, finish_rx).await) });
    PumpHandle { count, finish }
}

impl Pump {
    async fn run(
        mut self,
        mut stdout: Option<pipe::Receiver>,
        mut stderr: Option<pipe::Receiver>,
        mut finish: watch::Receiver<bool>,
    ) -> OutputCount {
        let mut finished = false;
        while !finished {
            tokio::select! {
                r = ready(stdout.as_ref()), if stdout.is_some() => {
                    if r.is_err() || self.read(&mut stdout, OutputStream::Stdout).await.is_none() {
                        stdout = None;
                    }
                }
                r = ready(stderr.as_ref()), if stderr.is_some() => {
                    if r.is_err() || self.read(&mut stderr, OutputStream::Stderr).await.is_none() {
                        stderr = None;
                    }
                }
                () = tokio::time::sleep_until(self.flush_at), if !self.pending.is_empty() => {
                    self.flush().await;
                }
                // An engine that is gone wants no more either.
                () = told(&mut finish) => finished = true,
            }
        }
        self.drain(stdout, OutputStream::Stdout).await;
        self.drain(stderr, OutputStream::Stderr).await;
        self.flush().await;
        self.options.log.count()
    }

    /// Reads once what is ready; none at the end of the stream.
    async fn read(
        &mut self,
        from: &mut Option<pipe::Receiver>,
        stream: OutputStream,
    ) -> Option<()> {
        let pipe = from.as_ref()?;
        self.make_room(stream).await;
        let filled = self.pending.len();
        let read = pipe.try_io(|| {
            let room = rustix::buffer::spare_capacity(&mut self.pending);
            Ok(rustix::io::read(pipe.as_fd(), room)?)
        });
        let more = match read {
            Ok(0) => None,
            Ok(_) => Some(()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Some(()),
            Err(_) => None,
        };
        self.after_read(filled).await;
        more
    }

    /// Reads what lies in the pipe. Asks the kernel itself: the runtime may not have heard yet
    /// that there is something.
    async fn drain(&mut self, from: Option<pipe::Receiver>, stream: OutputStream) {
        let Some(pipe) = from else { return };
        let mut left = DRAIN_MAX;
        loop {
            self.make_room(stream).await;
            let filled = self.pending.len();
            let room = rustix::buffer::spare_capacity(&mut self.pending);
            let read = rustix::io::read(pipe.as_fd(), room);
            let length = *read.as_ref().unwrap_or(&0);
            self.after_read(filled).await;
            left = left.saturating_sub(length);
            match read {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1..) if left > 0 => {}
                _ => return,
            }
        }
    }

    /// Sends off what the other stream said before.
    async fn make_room(&mut self, stream: OutputStream) {
        if !self.pending.is_empty() && self.stream != stream {
            self.flush().await;
        }
        if self.pending.is_empty() {
            self.stream = stream;
            self.pending = Vec::with_capacity(CHUNK_HEADER + CHUNK_MAX_BYTES);
            self.pending.resize(CHUNK_HEADER, 0);
        }
    }

    async fn after_read(&mut self, before: usize) {
        let length = self.pending.len();
        if length == CHUNK_HEADER {
            self.pending = Vec::new();
        } else if length == CHUNK_HEADER + CHUNK_MAX_BYTES {
            if before == CHUNK_HEADER {
                self.since = wall_now();
            }
            self.flush().await;
        } else if before == CHUNK_HEADER {
            self.since = wall_now();
            self.flush_at = Instant::now() + COALESCE;
        }
    }

    async fn flush(&mut self) {
        if self.pending.len() <= CHUNK_HEADER {
            return;
        }
        let mut frame = std::mem::take(&mut self.pending);
        let offset = match self.stream {
            OutputStream::Stdout => self.options.log.count().stdout.bytes,
            OutputStream::Stderr => self.options.log.count().stderr.bytes,
        };
        let written = self.options.log.append(self.stream, self.since, &mut frame);
        let count = self.options.log.count();
        self.count.send_replace(count);
        if written {
            self.options.outbox.event(ExecutorEvent::Output {
                attempt: self.options.attempt,
                chunks: count.chunks,
                bytes: count.stdout.bytes + count.stderr.bytes,
            });
        }
        self.options.outbox.kept(self.options.log.kept(), false);
        let Some(live) = &self.options.live else {
            return;
        };
        let chunk = Chunk {
            seq: count.chunks,
            stream: self.stream,
            offset,
            time: self.since,
            bytes: Bytes::from(frame).slice(CHUNK_HEADER..),
        };
        if live.send(chunk).await.is_err() {
            self.options.live = None;
        }
    }
}

async fn ready(pipe: Option<&pipe::Receiver>) -> std::io::Result<()> {
    match pipe {
        Some(pipe) => pipe.readable().await,
        None => std::future::pending().await,
    }
}

async fn told(finish: &mut watch::Receiver<bool>) {
    let _ = finish.wait_for(|&told| told).await;
}
