//! Events on their way to the spool: whoever tells one never waits; a thread of its own puts what
//! came at once on the disk, with one flush, and only then may it be delivered.
//!
//! What cannot be written is counted, and told as soon as something can be written again; from the
//! first lost event on, all are, so that the gap is one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_contract::event::kind;
use fleet_contract::ids::MachineId;
use fleet_contract::time::Time;
use fleet_nats::clock;
use fleet_nats::flow::NewEvent;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::AgentError;
use crate::spool::{Damage, Limits, Refused, Store, Waiting};

/// Events that wait for the disk at the most; more are dropped and counted.
const QUEUE: usize = 4096;
/// Events that one flush is for.
const GROUP: usize = 1024;

#[derive(Debug)]
enum Queued {
    Event(Time, Box<NewEvent>),
    /// Everything before it is on the disk, or never will be.
    Written(oneshot::Sender<()>),
}

/// How far the spool has come, by indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub synced: u64,
    pub delivered: u64,
}

/// Events that were lost since something last went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub since: Time,
    pub events: u64,
    pub reason: String,
}

/// What is known of the spool at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SpoolState {
    pub waiting: Waiting,
    /// Events that were lost since the start.
    pub dropped: u64,
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Default)]
struct Losses {
    dropped: u64,
    trouble: Option<Trouble>,
}

/// Shared by whoever tells, the thread that writes and the task that delivers.
#[derive(Debug)]
struct Shared {
    me: MachineId,
    boot: String,
    dir: PathBuf,
    limits: Limits,
    /// None as long as its folder cannot be used.
    store: Mutex<Option<Store>>,
    losses: Mutex<Losses>,
    /// Events of earlier runs that waited at the start.
    left_over: AtomicU64,
    progress: watch::Sender<Progress>,
}

/// Where events go in, and how they are had again.
#[derive(Debug, Clone)]
pub(super) struct EventSink {
    queue: mpsc::Sender<Queued>,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventSink {
    /// Opens the spool in this folder and starts to write. A folder that cannot be used is tried
    /// again with each event.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn start(dir: PathBuf, me: MachineId, boot: String) -> Result<Self, AgentError> {
        Self::bounded(dir, me, boot, Limits::default())
    }

    fn bounded(
        dir: PathBuf,
        me: MachineId,
        boot: String,
        limits: Limits,
    ) -> Result<Self, AgentError> {
        let (queue, told) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            me,
            boot,
            dir,
            limits,
            store: Mutex::new(None),
            losses: Mutex::default(),
            left_over: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
        });
        shared.write(Vec::new());
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("fleet-spool".to_owned())
            .spawn(move || writer.run(told))
            .map_err(|_| AgentError::Broken("a thread for its spool"))?;
        Ok(Self { queue, shared })
    }

    /// Tells an event. Never waits.
    pub(super) fn tell(&self, event: NewEvent) {
        let event = Queued::Event(clock::now(), Box::new(event));
        if self.queue.try_send(event).is_err() {
            self.shared.lose("more events at once than the disk takes");
        }
    }

    /// Tells an event and waits until it is on the disk; whether it surely is. Where it is not, it may
    /// be all the same: another one was lost meanwhile.
    pub(super) async fn tell_surely(&self, event: NewEvent) -> bool {
        let dropped = || lock(&self.shared.losses).dropped;
        let before = dropped();
        self.tell(event);
        self.written().await;
        dropped() == before
    }

    /// Has what was lost told, if it can be by now.
    pub(super) fn nudge(&self) {
        if lock(&self.shared.losses).trouble.is_some() {
            // A full queue is nudge enough.
            let _ = self.queue.try_send(Queued::Written(oneshot::channel().0));
        }
    }

    /// Waits until everything told so far is on the disk, as far as it can be.
    pub(super) async fn written(&self) {
        let (told, written) = oneshot::channel();
        if self.queue.send(Queued::Written(told)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Waits until everything told so far is with the hub.
    pub(super) async fn flush(&self) {
        self.written().await;
        let last = self.shared.progress.borrow().synced;
        let mut progress = self.shared.progress.subscribe();
        let _ = progress.wait_for(|p| p.delivered >= last).await;
    }

    /// How far it has come: read it, or wait for changes.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Does something with the spool's files, where blocking is allowed; none while they cannot be
    /// used.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut store = lock(&shared.store);
            let done = store.as_mut().map(act);
            if let Some(store) = &*store {
                shared.note(store);
            }
            done
        });
        done.await.ok().flatten()
    }

    /// Events of earlier runs that waited at the start.
    pub(super) fn left_over(&self) -> u64 {
        self.shared.left_over.load(Ordering::Relaxed)
    }

    /// How it is.
    pub(super) fn state(&self) -> SpoolState {
        let waiting = lock(&self.shared.store).as_mut().map(Store::waiting);
        let losses = lock(&self.shared.losses);
        SpoolState {
            waiting: waiting.unwrap_or_default(),
            dropped: losses.dropped,
            trouble: losses.trouble.clone(),
        }
    }
}

impl Shared {
    fn run(&self, mut told: mpsc::Receiver<Queued>) {
        while let Some(first) = told.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = told.try_recv()
            {
                group.push(next);
            }
            let (mut events, mut waiting) = (Vec::new(), Vec::new());
            for queued in group {
                match queued {
                    Queued::Event(time, event) => events.push((time, *event)),
                    Queued::Written(told) => waiting.push(told),
                }
            }
            self.write(events);
            for told in waiting {
                // Fails where nobody waits any more.
                let _ = told.send(());
            }
        }
    }

    /// One event less.
    fn lose(&self, reason: &str) {
        let mut losses = lock(&self.losses);
        losses.dropped += 1;
        let trouble = losses.trouble.get_or_insert_with(|| {
            tracing::error!(reason, "events are lost");
            Trouble {
                since: clock::now(),
                events: 0,
                reason: reason.to_owned(),
            }
        });
        trouble.events += 1;
    }

    fn note(&self, store: &Store) {
        let now = Progress {
            synced: store.last_synced(),
            delivered: store.last_delivered(),
        };
        self.progress
            .send_if_modified(|progress| std::mem::replace(progress, now) != now);
    }

    /// Puts events on the disk, with one flush.
    fn write(&self, events: Vec<(Time, NewEvent)>) {
        let mut guard = lock(&self.store);
        if guard.is_none() {
            match Store::open(&self.dir, self.limits, &self.boot) {
                Ok(mut store) => {
                    let left = store.waiting().events;
                    self.left_over.store(left, Ordering::Relaxed);
                    *guard = Some(store);
                }
                Err(error) => {
                    let reason = format!("cannot use {}: {error}", self.dir.display());
                    events.iter().for_each(|_| self.lose(&reason));
                    return;
                }
            }
        }
        let Some(store) = &mut *guard else { return };
        self.tell_of_losses(store);
        for (time, event) in &events {
            if lock(&self.losses).trouble.is_some() {
                self.lose("");
            } else if let Err(error) = append(store, *time, event) {
                self.lose(&error.to_string());
            }
        }
        let Some((file, through)) = store.unsynced() else {
            return self.note(store);
        };
        // Whoever delivers need not wait for the disk.
        drop(guard);
        let flushed = file.sync_data();
        let mut guard = lock(&self.store);
        let Some(store) = &mut *guard else { return };
        match flushed {
            Ok(()) => store.synced(through),
            // They are there, but may not outlive a power loss: sent with what comes next.
            Err(error) => tracing::error!(%error, "the spool cannot be flushed"),
        }
        self.note(store);
    }

    /// What was lost, damaged or too old, before anything else.
    fn tell_of_losses(&self, store: &mut Store) {
        let now = clock::now();
        let expired = store.expire(now);
        if expired > 0 {
            tracing::error!(events = expired, "events were too old to be kept");
            let detail = json!({ "events": expired, "reason": "too old" });
            self.tell_or_lose(store, kind::SPOOL_DROPPED, detail);
        }
        for damage in store.damages() {
            tracing::error!(?damage, "the spool is damaged");
            let Damage {
                file,
                what,
                bytes,
                events,
            } = damage;
            let reason = format!("{file} {what}");
            let detail = json!({ "reason": reason, "bytes": bytes, "events": events });
            self.tell_or_lose(store, kind::SPOOL_DAMAGED, detail);
        }
        let trouble = lock(&self.losses).trouble.clone();
        let Some(trouble) = trouble else { return };
        let detail = json!({
            "events": trouble.events,
            "reason": trouble.reason,
            "since": trouble.since,
        });
        let event = NewEvent::of_machine(kind::SPOOL_DROPPED, &self.me, detail);
        if append(store, now, &event).is_ok() {
            // Those that could not even be queued meanwhile are told of the next time.
            let mut losses = lock(&self.losses);
            losses.trouble = losses.trouble.take().and_then(|mut now| {
                now.events = now.events.saturating_sub(trouble.events);
                (now.events > 0).then_some(now)
            });
        }
    }

    fn tell_or_lose(&self, store: &mut Store, kind: &'static str, detail: serde_json::Value) {
        let event = NewEvent::of_machine(kind, &self.me, detail);
        if let Err(error) = append(store, clock::now(), &event) {
            self.lose(&error.to_string());
        }
    }
}

fn append(store: &mut Store, time: Time, event: &NewEvent) -> Result<(), Refused> {
    store.append(time, event.kind, |boot, seq| {
        event.encode_at(time, boot, seq).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TINY: Limits = Limits {
        bytes: 4000,
        segment: 1000,
        age: Duration::from_secs(3600),
    };

    fn sink(dir: PathBuf) -> EventSink {
        let me: MachineId = "studio".parse().unwrap();
        EventSink::bounded(dir, me, "run".to_owned(), TINY).unwrap()
    }

    async fn tell(sink: &EventSink, count: usize) {
        for n in 0..count {
            let event = NewEvent::of_machine("x.y", &sink.shared.me, json!({ "n": n }));
            sink.tell(event);
        }
        sink.written().await;
    }

    /// Delivers everything that waits: kinds, counts and details.
    async fn deliver(sink: &EventSink) -> Vec<(String, u64, serde_json::Value)> {
        let batch = sink.with(|s| s.batch(usize::MAX, usize::MAX).unwrap());
        let batch = batch.await.unwrap();
        let through = batch.through;
        sink.with(move |s| s.delivered(through).unwrap()).await;
        let read = batch.events.iter().map(|e| {
            let envelope: serde_json::Value = serde_json::from_slice(&e.envelope).unwrap();
            (e.kind.clone(), e.seq, envelope["data"]["detail"].clone())
        });
        read.collect()
    }

    #[tokio::test]
    async fn what_is_lost_over_the_bound_is_counted_and_told_when_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path().join("events"));
        tell(&sink, 100).await;
        let state = sink.state();
        let trouble = state.trouble.clone().unwrap();
        assert_eq!(
            (trouble.events, state.dropped),
            (state.dropped, trouble.events)
        );
        assert_eq!(state.waiting.events + state.dropped, 100);
        assert!(trouble.reason.contains("full"), "{trouble:?}");
        let kept = deliver(&sink).await.len() as u64;
        assert_eq!(kept, state.waiting.events);
        // The first beat after it tells, before any other event, and the count has no hole.
        sink.nudge();
        tell(&sink, 1).await;
        let told = deliver(&sink).await;
        assert_eq!(told[0].0, "spool.dropped");
        assert_eq!(told[0].1, kept + 1);
        assert_eq!(told[0].2["events"], trouble.events);
        assert_eq!(told.len(), 2);
        assert_eq!(sink.state().trouble, None);
        assert_eq!(sink.state().dropped, trouble.events);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("events");
        std::fs::write(&folder, "in the way").unwrap();
        let sink = sink(folder.clone());
        tell(&sink, 3).await;
        let trouble = sink.state().trouble.unwrap();
        assert_eq!(trouble.events, 3);
        assert!(trouble.reason.contains("events"), "{trouble:?}");
        std::fs::remove_file(folder).unwrap();
        sink.nudge();
        sink.written().await;
        let told = deliver(&sink).await;
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].1, &told[0].2["events"]), (1, &3.into()));
        assert_eq!(sink.state().trouble, None);
    }
}
