//! Carries one attempt's output from the executor's disk to the hub, in order and at most a window
//! ahead, and resumes where the hub left off.
//!
//! What is no longer on the disk is told with the chunk after it; where there is none after it, with
//! an empty chunk of the last number, so that nobody waits for what cannot come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_contract::ids::{AttemptId, JobId};
use fleet_contract::outcome::OutputStream;
use fleet_nats::bus::BusError;
use fleet_nats::clock;
use fleet_nats::output::{ChunkHead, WINDOW};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;

use super::context::{Context, Reached};
use super::routes::Announced;
use crate::executor::{Chunk, LogRead, LogReader, attempt_dir};

/// Bytes read from the disk at once.
const READ: usize = 512 * 1024;
/// Pause before chunks that were not stored are tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Whose output.
pub(super) struct Log {
    pub job: JobId,
    pub attempt: AttemptId,
    /// Whether an earlier agent may have sent some of it.
    pub resume: bool,
}

/// Where in the output it is: everything before is with the hub, or never will be.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Chunks.
    chunks: u64,
    /// Bytes of standard output and standard error.
    ends: [u64; 2],
}

impl Place {
    fn after(self, chunk: &Chunk) -> Self {
        let mut after = Self {
            chunks: chunk.seq,
            ..self
        };
        after.ends[which(chunk.stream)] = chunk.offset.saturating_add(chunk.bytes.len() as u64);
        after
    }

    fn reached(self, next: Option<&Chunk>) -> Reached {
        Reached {
            chunks: self.chunks,
            bytes: self.ends[0].saturating_add(self.ends[1]),
            next: next.map(|chunk| chunk.time),
        }
    }
}

fn which(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

/// Runs until all of the output is with the hub.
pub(super) async fn run(context: Arc<Context>, log: Log, mut output: watch::Receiver<Announced>) {
    let dir = attempt_dir(context.home.root(), log.job, log.attempt);
    // Where none of it is here any more there is nothing to send again.
    let back = if dir.exists() { WINDOW } else { 0 };
    let mut reader = Some(LogReader::new(dir));
    let mut place = Place {
        chunks: match log.resume {
            true => resume(&context, &log, back).await,
            false => 0,
        },
        ..Place::default()
    };
    let reached = place.reached(None);
    context.output.begin(log.attempt, output.clone(), reached);
    let _ended = Ended(&context, log.attempt);
    let mut told = 0;
    loop {
        context.output.reach(log.attempt, place.reached(None));
        if place.chunks >= told + WINDOW {
            told = place.chunks;
            tell(&context, log.attempt, told);
        }
        let announced = *output.borrow_and_update();
        if announced.chunks > place.chunks {
            let Some(owned) = reader.take() else { return };
            let from = place.chunks + 1;
            // Nothing is held in memory while it cannot be sent: on disk it counts, and may go.
            let here = context.link.is_connected();
            let most = if here { READ } else { 1 };
            let read = move || read(owned, from, announced.chunks, most);
            let Ok((owned, read)) = tokio::task::spawn_blocking(read).await else {
                return;
            };
            reader = Some(owned);
            match read {
                Ok(read) if !here => {
                    let reached = place.reached(read.chunks.first());
                    context.output.reach(log.attempt, reached);
                    context.connected().await;
                }
                Ok(read) => place = send(&context, &log, place, read).await,
                Err(error) => {
                    tracing::warn!(%error, attempt = %log.attempt, "cannot read output from disk");
                    context.pause(RETRY).await;
                }
            }
        } else if announced.ended || output.changed().await.is_err() {
            return;
        }
    }
}

/// Lets the executor know how far the hub is: what it has may go first where there is too much. Not
/// waited for, and no harm where it does not arrive.
fn tell(context: &Context, attempt: AttemptId, chunks: u64) {
    let executor = context.executor.borrow().clone();
    if let Some(executor) = executor {
        tokio::spawn(async move { executor.delivered(attempt, chunks).await });
    }
}

/// Nothing more of an attempt is on its way, however its pump ended.
struct Ended<'a>(&'a Context, AttemptId);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.output.end(self.1);
    }
}

fn read(
    mut reader: LogReader,
    from: u64,
    announced: u64,
    most: usize,
) -> (LogReader, std::io::Result<LogRead>) {
    let result = reader.read_from(from, announced, most);
    (reader, result)
}

/// How many chunks need not be sent again: `back` less than the hub has, since one before its last may
/// have been lost on the way. Chunks that come twice are told apart by their numbers.
async fn resume(context: &Context, log: &Log, back: u64) -> u64 {
    loop {
        match context.bus.last_chunk(log.job, &context.me).await {
            Ok(Some(head)) if head.attempt == log.attempt => {
                return head.seq.saturating_sub(back);
            }
            Ok(_) => return 0,
            Err(_) => context.pause(RETRY).await,
        }
    }
}

/// Sends what was read; where to go on.
async fn send(context: &Context, log: &Log, from: Place, read: LogRead) -> Place {
    let missing = read
        .gap
        .map_or(0, |gap| gap.to.saturating_sub(gap.from) + 1);
    let mut chunks = read.chunks;
    if chunks.is_empty() && missing > 0 {
        chunks.push(Chunk {
            seq: from.chunks + missing,
            stream: OutputStream::Stdout,
            // Nothing of what was written is after it.
            offset: from.ends[0],
            time: clock::now(),
            bytes: Bytes::new(),
        });
    }
    let mut chunks = chunks.into_iter().peekable();
    let mut under_way = FuturesOrdered::new();
    let mut done = from;
    let mut first = missing;
    context
        .output
        .reach(log.attempt, done.reached(chunks.peek()));
    loop {
        while under_way.len() < usize::try_from(WINDOW).unwrap_or(1) {
            let Some(chunk) = chunks.next() else { break };
            let missing = std::mem::take(&mut first);
            under_way.push_back(put(context, log, chunk, missing));
        }
        let Some(stored) = under_way.next().await else {
            break;
        };
        // After a failure the rest of the window is asked again, too: its order may have suffered.
        match stored {
            Ok(chunk) => {
                done = done.after(&chunk);
                let mut reached = done.reached(None);
                reached.next = Some(chunk.time);
                context.output.reach(log.attempt, reached);
            }
            Err(error) => {
                tracing::debug!(%error, "output was not stored; trying again");
                context.pause(RETRY).await;
                return done;
            }
        }
    }
    done
}

async fn put(context: &Context, log: &Log, chunk: Chunk, missing: u64) -> Result<Chunk, BusError> {
    let head = ChunkHead {
        missing,
        ..ChunkHead::new(
            log.attempt,
            chunk.seq,
            chunk.stream,
            chunk.offset,
            chunk.time,
        )
    };
    let bytes = chunk.bytes.clone();
    context
        .bus
        .put_chunk(log.job, &context.me, &head, bytes)
        .await
        .map(|_| chunk)
}
