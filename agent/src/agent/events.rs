//! Events on their way to the hub: a bounded queue, delivered in order, counted where it overflows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_nats::bus::{Bus, BusError};
use fleet_nats::clock;
use fleet_nats::flow::NewEvent;
use tokio::sync::{mpsc, oneshot};

/// Events that wait for the hub at the most; the newest is dropped and counted beyond that.
const QUEUE: usize = 4096;
/// Pause before an event that was not stored is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What waits in the queue.
#[derive(Debug)]
pub(super) enum Queued {
    Event(Box<NewEvent>),
    /// Everything before it was delivered.
    Flushed(oneshot::Sender<()>),
}

/// Where events go in.
#[derive(Debug, Clone)]
pub(super) struct EventSink {
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU64>,
}

impl EventSink {
    /// A sink, and where its events come out.
    pub(super) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (
            Self {
                queue,
                dropped: Arc::default(),
            },
            events,
        )
    }

    /// Waits until everything told so far is with the hub.
    pub(super) async fn flush(&self) {
        let (told, flushed) = oneshot::channel();
        if self.queue.send(Queued::Flushed(told)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Tells an event. Never waits.
    pub(super) fn tell(&self, event: NewEvent) {
        if self.queue.try_send(Queued::Event(Box::new(event))).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(dropped, "an event was dropped: too many wait for the hub");
        }
    }
}

/// Delivers events in order until the sinks are gone.
pub(super) async fn deliver(
    bus: Bus,
    writer: String,
    boot: String,
    mut events: mpsc::Receiver<Queued>,
) {
    let mut seq = 0;
    while let Some(event) = events.recv().await {
        let event = match event {
            Queued::Event(event) => event,
            Queued::Flushed(told) => {
                // Fails when nobody waits any more.
                let _ = told.send(());
                continue;
            }
        };
        seq += 1;
        loop {
            match bus.put_event(&writer, &event, &boot, seq).await {
                Ok(_) => break,
                Err(
                    BusError::NoAnswer { .. } | BusError::Closed(_) | BusError::NoResponders(_),
                ) => {
                    tokio::time::sleep(clock::jittered(RETRY)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, kind = event.kind, "an event was refused");
                    break;
                }
            }
        }
    }
}
