//! Carries events from the spool to the hub: in order, each once. What the hub has last says where
//! to go on, and each publish says what it must come after: neither a broken link, a killed agent
//! nor a late message makes a gap or a double.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::event::kind;
use fleet_contract::time::Time;
use fleet_nats::bus::BusError;
use fleet_nats::clock;
use fleet_nats::connect::{LinkState, LinkStatus};
use fleet_nats::flow::{BATCH_MAX, Encoded, NewEvent};
use serde_json::json;
use tokio::time::Instant;

use super::context::Context;
use crate::spool::Spooled;

/// Pause before events that were not stored are tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes of events that are sent at once.
const BATCH_BYTES: usize = 512 * 1024;
/// How often one event that the hub refuses is tried before it is given up.
const TRIES: u32 = 5;

/// Delivers for ever, once the lease is held: nothing is said in the machine's name before.
pub(super) async fn run(context: Arc<Context>) {
    let mut lease = context.lease.subscribe();
    if lease.wait_for(|held| held.term != 0).await.is_err() {
        return std::future::pending().await;
    }
    let mut replay = Replay::default();
    let mut refusals = 0;
    loop {
        context.connected().await;
        let after = resume(&context).await;
        replay.begin(&context);
        let error = send(&context, after, &mut replay, &mut refusals).await;
        replay.broken(&context);
        tracing::debug!(%error, "events were not stored; trying again");
        context.pause(RETRY).await;
    }
}

/// Where to go on: the sequence of the last event that the hub has.
async fn resume(context: &Context) -> u64 {
    loop {
        match context.bus.last_told(context.me.as_str()).await {
            Ok(last) => {
                if let Some((boot, seq)) = last.place {
                    let found = context.events.with(move |s| s.resume_after(&boot, seq));
                    let found = found.await;
                    tracing::debug!(?found, "the hub said where to go on");
                }
                return last.seq;
            }
            Err(_) => context.pause(RETRY).await,
        }
    }
}

/// Sends what waits and what comes, until something goes wrong.
async fn send(
    context: &Context,
    mut after: u64,
    replay: &mut Replay,
    refusals: &mut u32,
) -> BusError {
    let mut progress = context.events.progress();
    let mut status = context.link.status();
    let connects = status.borrow_and_update().connects;
    loop {
        let down = |s: &LinkStatus| s.state != LinkState::Connected && !context.link.is_connected();
        let gone = status.wait_for(|s| s.connects != connects || down(s));
        // Nothing is left with a client that has no link: it would send it whenever it has one.
        tokio::select! {
            biased;
            _ = gone => return BusError::Closed("the link is down".to_owned()),
            more = progress.wait_for(|p| p.delivered < p.synced) => if more.is_err() {
                return BusError::Closed("the spool is gone".to_owned());
            }
        }
        let batch = context.events.with(|s| s.batch(BATCH_MAX, BATCH_BYTES));
        let batch = match batch.await {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return BusError::Closed(format!("the spool: {error}")),
            None => return BusError::Closed("the spool cannot be used".to_owned()),
        };
        let mut through = batch.through;
        match put(context, &batch.events, after).await {
            Ok((seq, last)) => {
                (after, through) = (seq, last.unwrap_or(through));
                *refusals = 0;
            }
            Err(error @ (BusError::Server { .. } | BusError::Wire(_))) if *refusals < TRIES => {
                *refusals += 1;
                return error;
            }
            // Nothing after it would ever be delivered.
            Err(error @ (BusError::Server { .. } | BusError::Wire(_))) => {
                *refusals = 0;
                let Some(first) = batch.events.first() else {
                    return error;
                };
                tracing::error!(%error, kind = first.kind, "the hub refuses an event: given up");
                let detail =
                    json!({ "events": 1, "reason": error.to_string(), "kind": first.kind });
                let lost = NewEvent::of_machine(kind::SPOOL_DROPPED, &context.me, detail);
                context.events.tell(lost);
                through = first.index;
            }
            Err(error) => return error,
        }
        let noted = context.events.with(move |s| s.delivered(through)).await;
        if let Some(Err(error)) = noted {
            return BusError::Closed(format!("the spool: {error}"));
        }
        replay.reached(context, through);
    }
}

/// Stores them, all at once, or the first where the hub takes no batch: the sequence of the last
/// one, and its index if there are more.
async fn put(
    context: &Context,
    events: &[Spooled],
    after: u64,
) -> Result<(u64, Option<u64>), BusError> {
    let encoded: Vec<Encoded> = events
        .iter()
        .map(|event| Encoded {
            kind: event.kind.clone(),
            payload: event.envelope.clone(),
        })
        .collect();
    let me = context.me.as_str();
    match context.bus.put_events(me, &encoded, after).await {
        Ok(seq) => Ok((seq, None)),
        // Too many batches under way, or a stream of an older hub.
        Err(BusError::Server { .. }) if events.len() > 1 => {
            let seq = context.bus.put_events(me, &encoded[..1], after).await?;
            Ok((seq, events.first().map(|event| event.index)))
        }
        Err(error) => Err(error),
    }
}

/// What waited when the hub came back, until it is with it and told.
#[derive(Debug, Default)]
struct Replay {
    connects: u64,
    /// Chunks and results that the hub had when the link broke.
    had: (u64, u64),
    under_way: Option<Waited>,
}

#[derive(Debug)]
struct Waited {
    until: u64,
    events: u64,
    bytes: u64,
    oldest: Option<Time>,
    chunks: u64,
    results: u64,
    since: Instant,
}

impl Replay {
    /// The link may be down.
    fn broken(&mut self, context: &Context) {
        if !context.link.is_connected() {
            self.had = (context.output.done(), context.results.done());
        }
    }

    /// Looks at what waits, once for each connection.
    fn begin(&mut self, context: &Context) {
        let connects = context.link.status().borrow().connects;
        let first = self.connects == 0;
        if connects == self.connects {
            return;
        }
        self.connects = connects;
        let waiting = context.events.state().waiting;
        // A start finds its own first words here; a run before it has left more.
        let left = context.events.left_over();
        if waiting.events == 0 || (first && left == 0) {
            return;
        }
        self.under_way = Some(Waited {
            until: context.events.progress().borrow().synced,
            events: waiting.events,
            bytes: waiting.bytes,
            oldest: waiting.oldest,
            // Some may be with the hub by now.
            chunks: context.chunks_waiting() + context.output.done() - self.had.0,
            results: context.results.waiting() + context.results.done() - self.had.1,
            since: Instant::now(),
        });
    }

    fn reached(&mut self, context: &Context, through: u64) {
        let Some(waited) = self.under_way.take_if(|w| w.until <= through) else {
            return;
        };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let detail = json!({
            "events": waited.events,
            "bytes": waited.bytes,
            "oldest_age_ms": waited.oldest.map(|t| millis(clock::now().since(t))),
            "chunks": waited.chunks,
            "results": waited.results,
            "took_ms": millis(waited.since.elapsed()),
        });
        let replayed = NewEvent::of_machine(kind::SPOOL_REPLAYED, &context.me, detail);
        context.events.tell(replayed);
    }
}
