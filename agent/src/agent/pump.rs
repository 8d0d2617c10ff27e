//! Carries one attempt's output from the executor's disk to the hub, in order and at most a window
//! ahead, and resumes where the hub left off.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{AttemptId, JobId};
use fleet_nats::bus::BusError;
use fleet_nats::output::{ChunkHead, WINDOW};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;

use super::context::Context;
use super::routes::Announced;
use crate::executor::{Chunk, LogReader, attempt_dir};

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

/// Runs until all of the output is with the hub.
pub(super) async fn run(context: Arc<Context>, log: Log, mut output: watch::Receiver<Announced>) {
    let mut reader = Some(LogReader::new(attempt_dir(
        context.home.root(),
        log.job,
        log.attempt,
    )));
    let mut next = if log.resume {
        resume(&context, &log).await
    } else {
        1
    };
    context.output.begin(log.attempt, output.clone(), next - 1);
    let _ended = Ended(&context, log.attempt);
    loop {
        context.output.reach(log.attempt, next - 1);
        let announced = *output.borrow_and_update();
        if announced.chunks >= next {
            let Some(owned) = reader.take() else { return };
            let read =
                tokio::task::spawn_blocking(move || read(owned, next, announced.chunks)).await;
            let Ok((owned, read)) = read else { return };
            reader = Some(owned);
            match read {
                Ok((missing, chunks)) => next = send(&context, &log, next, missing, chunks).await,
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

/// Nothing more of an attempt is on its way, however its pump ended.
struct Ended<'a>(&'a Context, AttemptId);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.output.end(self.1);
    }
}

fn read(
    mut reader: LogReader,
    next: u64,
    announced: u64,
) -> (LogReader, std::io::Result<(u64, Vec<Chunk>)>) {
    let result = reader.read_from(next, announced, READ).map(|read| {
        let missing = read
            .gap
            .map_or(0, |gap| gap.to.saturating_sub(gap.from) + 1);
        (missing, read.chunks)
    });
    (reader, result)
}

/// Where to go on: a window before the last chunk the hub has, since one before it may have been
/// lost on the way. Chunks that come twice are told apart by their numbers.
async fn resume(context: &Context, log: &Log) -> u64 {
    loop {
        match context.bus.last_chunk(log.job, &context.me).await {
            Ok(Some(head)) if head.attempt == log.attempt => {
                return head.seq.saturating_sub(WINDOW) + 1;
            }
            Ok(_) => return 1,
            Err(_) => context.pause(RETRY).await,
        }
    }
}

/// Sends chunks, the first of which comes after `missing` that are gone; the number to go on with.
async fn send(context: &Context, log: &Log, next: u64, missing: u64, chunks: Vec<Chunk>) -> u64 {
    if chunks.is_empty() {
        return next + missing;
    }
    let mut chunks = chunks.into_iter();
    let mut under_way = FuturesOrdered::new();
    let mut done = next + missing;
    let mut first = missing;
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
            Ok(seq) => {
                done = done.max(seq + 1);
                context.output.reach(log.attempt, seq);
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

async fn put(context: &Context, log: &Log, chunk: Chunk, missing: u64) -> Result<u64, BusError> {
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
    context
        .bus
        .put_chunk(log.job, &context.me, &head, chunk.bytes)
        .await
        .map(|_| chunk.seq)
}
