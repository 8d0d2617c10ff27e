//! The guard while the hub runs: a look every few seconds, and at once after each new server.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use fleet_contract::damage::{self, WARN_AT_PERCENT};
use fleet_contract::event::kind;
use fleet_contract::lease::BootTime;
use fleet_contract::time::Time;
use futures_util::StreamExt;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::removed::Removals;
use super::{Guard, GuardError, StreamState, Trouble, room, state, word};
use crate::bus::Bus;
use crate::clock;
use crate::connect::LinkState;
use crate::hub::HubHandle;
use crate::subject::{self, stream};

/// How often the guard looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First and longest pause before a hub that could not be admitted is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Less than this free, in bytes, and the disk is about to be full.
const DISK_LOW: u64 = 64 * 1024 * 1024;
/// ... or less than one part in so many of it, where that is less.
const DISK_PART: u64 = 50;
/// A server that is silent is not started again sooner than this after the last time.
const RESTART_PAUSE: Duration = Duration::from_secs(20);
/// Pause after the hub's word was said again over another's.
const CORRECT_PAUSE: Duration = Duration::from_millis(100);

/// The keeper's task; ended when dropped.
pub struct KeeperTask(JoinHandle<()>);

impl KeeperTask {
    /// Of this task.
    #[must_use]
    pub fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for KeeperTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes down what is stored, once nothing more is to come.
pub async fn write_down(bus: &Bus, hub: &HubHandle) {
    if let Ok(there) = super::streams(bus).await
        && let Err(error) = hub.update_record(|record| state::advance(&mut record.streams, &there))
    {
        tracing::warn!(%error, "what is stored was not written down");
    }
}

/// What the guard remembers from one look to the next.
pub(super) struct Memory {
    clock: (Time, BootTime),
    pub(super) last: BTreeMap<String, StreamState>,
    restarted: Option<BootTime>,
    pub(super) removals: Removals,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            clock: (clock::now(), clock::boot_time()),
            last: BTreeMap::new(),
            restarted: None,
            removals: Removals::default(),
        }
    }
}

/// The next word that was heard; waits for ever where nothing can be.
async fn next_word(words: &mut Option<Subscriber>) -> Option<Message> {
    match words {
        Some(words) => words.next().await,
        None => std::future::pending().await,
    }
}

impl Guard {
    /// Watches for ever. `keeper` starts the keeper at a hub of this epoch: it runs only while the
    /// store is as the guard knows it.
    pub async fn watch(mut self, keeper: impl Fn(u64) -> KeeperTask + Send) {
        let mut running = keeper(self.epoch());
        let mut link = self.bus.status();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut words = self.hear_words().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => if words.is_none() {
                    words = self.hear_words().await;
                },
                changed = link.changed() => if changed.is_err() { return },
                spoken = next_word(&mut words) => {
                    match spoken {
                        Some(spoken) => self.correct(&spoken.payload).await,
                        None => words = None,
                    }
                    continue;
                }
            }
            let connected = link.borrow_and_update().state == LinkState::Connected;
            match self.look(connected).await {
                Ok(true) => {}
                Ok(false) => {
                    // It goes by what is not so any more.
                    drop(running);
                    self.admit_again().await;
                    running = keeper(self.epoch());
                }
                Err(error) => tracing::debug!(%error, "the guard cannot look now"),
            }
        }
    }

    /// What anybody says in the hub's place; none where that cannot be heard now.
    async fn hear_words(&self) -> Option<Subscriber> {
        let heard = self.bus.client().subscribe(subject::HUB_WORD).await;
        heard
            .inspect_err(|error| {
                tracing::warn!(%error, "nobody hears who speaks in the hub's place");
            })
            .ok()
    }

    /// Says the hub's word again over one that is not its own: nothing is claimed meanwhile.
    async fn correct(&mut self, spoken: &[u8]) {
        if self.is_own_word(spoken) || self.hub.record().recovering.is_some() {
            return;
        }
        tracing::warn!("somebody spoke in the hub's place; its word is said again");
        if let Err(error) = self.bus.say_word(&self.word).await {
            tracing::debug!(%error, "the hub's word was not stored");
        }
        // However fast others write, this is not faster.
        tokio::time::sleep(CORRECT_PAUSE).await;
    }

    fn is_own_word(&self, spoken: &[u8]) -> bool {
        word::decode(spoken).is_ok_and(|word| word == self.word)
    }

    async fn admit_again(&mut self) {
        let mut pause = AGAIN.0;
        loop {
            match self.admit().await {
                Ok(notes) => {
                    for note in notes {
                        tracing::error!("{note}");
                    }
                    return;
                }
                Err(error) => tracing::error!(%error, "the hub takes no work yet"),
            }
            tokio::time::sleep(clock::jittered(pause)).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    /// One look; whether the store is as it was.
    async fn look(&mut self, connected: bool) -> Result<bool, GuardError> {
        self.look_at_clock(connected).await;
        self.look_at_disk(connected).await;
        if !connected {
            return Ok(true);
        }
        let server = self.bus.server_id();
        let (damages, there) = self.examine().await?;
        if !damages.is_empty() || self.hub.record().recovering.is_some() {
            return Ok(false);
        }
        if server != self.word.server {
            self.believed = false;
            self.word.server = server;
            self.bus.say_word(&self.word).await?;
        }
        self.write_down(&there)?;
        self.look_at_room(&there).await;
        self.count_removed(&there).await;
        self.watch.last = there;
        Ok(true)
    }

    /// Writes down what the look before saw: by now that is on disk, whatever happens.
    fn write_down(&self, there: &BTreeMap<String, StreamState>) -> Result<(), GuardError> {
        let seen = &self.watch.last;
        if seen.keys().eq(there.keys()) {
            self.hub
                .update_record(|record| state::advance(&mut record.streams, seen))?;
        }
        Ok(())
    }

    async fn look_at_clock(&mut self, connected: bool) {
        let (wall, boot) = (clock::now(), clock::boot_time());
        let (wall_then, boot_then) = self.watch.clock;
        let moved = wall.as_micros().saturating_sub(wall_then.as_micros());
        let passed = i64::try_from(boot.since(boot_then).as_micros()).unwrap_or(i64::MAX);
        self.watch.clock = (wall, boot);
        if let Some(seconds) = damage::clock_jump(moved, passed)
            && connected
        {
            let text = format!(
                "the hub's clock jumped by {seconds} s; nothing ends earlier for it, but times before and after do not compare"
            );
            tracing::warn!("{text}");
            let detail = json!({ "seconds": seconds, "text": text });
            self.tell(kind::HUB_CLOCK_JUMPED, detail).await;
        }
    }

    /// A disk that was full leaves a stream silent until the server is started again: said, and done
    /// as soon as there is room.
    async fn look_at_disk(&mut self, connected: bool) {
        let (free, size) = self.hub.free_space();
        let low = free < DISK_LOW.min(size / DISK_PART);
        let text = format!(
            "the disk of {} has {free} bytes left: free some, the hub goes on by itself",
            self.hub.home().hub_dir().display()
        );
        self.trouble(kind::HUB_DISK_LOW, low.then_some(text)).await;
        if !connected {
            return;
        }
        let ailment = self.hub.ailment().await;
        let silent = ailment
            .as_deref()
            .filter(|text| text.contains("write error"));
        let text = silent.map(|what| {
            format!("a stream takes nothing: {what}; it is started again when there is room")
        });
        let ill = text.is_some();
        self.trouble(kind::HUB_STREAM_SILENT, text).await;
        let now = clock::boot_time();
        let lately = self
            .watch
            .restarted
            .is_some_and(|at| now.since(at) < RESTART_PAUSE);
        if ill && !low && !lately {
            self.watch.restarted = Some(now);
            self.hub
                .restart_server("a stream took nothing since the disk was full");
        }
    }

    async fn look_at_room(&mut self, there: &BTreeMap<String, StreamState>) {
        let mut full = Vec::new();
        for (name, state) in there {
            // Leases and presences replace each other; a registry is as full as it is.
            if state.max_bytes > 0 && state.bytes > state.max_bytes / 100 * WARN_AT_PERCENT {
                full.push(name.as_str());
            }
        }
        let known = self.word.troubles.iter();
        let mut said: Vec<&str> = known
            .filter_map(|t| {
                t.kind
                    .strip_prefix(kind::HUB_NEARLY_FULL)?
                    .strip_prefix(' ')
            })
            .collect();
        said.sort_unstable();
        if said == full {
            return;
        }
        let full: Vec<String> = full.into_iter().map(str::to_owned).collect();
        for name in stream::ALL {
            let text = match there.get(name).filter(|_| full.iter().any(|f| f == name)) {
                Some(state) => Some(room::nearly_full(&self.bus, name, state).await),
                None => None,
            };
            self.trouble_of(kind::HUB_NEARLY_FULL, Some(name), text)
                .await;
        }
    }

    /// What retention removed by age and bytes, since it was told last.
    async fn count_removed(&mut self, there: &BTreeMap<String, StreamState>) {
        self.watch.removals.count(&self.watch.last, there);
        if let Some(detail) = self.watch.removals.take(clock::boot_time()) {
            self.tell(kind::HUB_REMOVED, detail).await;
        }
    }

    async fn trouble(&mut self, kind: &'static str, text: Option<String>) {
        self.trouble_of(kind, None, text).await;
    }

    /// Says that something is wrong, or that it is well again: once each.
    async fn trouble_of(&mut self, kind: &'static str, about: Option<&str>, text: Option<String>) {
        let name = about.map_or_else(|| kind.to_owned(), |about| format!("{kind} {about}"));
        let known = self.word.troubles.iter().position(|t| t.kind == name);
        let over = text.is_none();
        match (known, text) {
            (None, None) | (Some(_), Some(_)) => return,
            (None, Some(text)) => {
                tracing::error!("{text}");
                let since = clock::now();
                self.word.troubles.push(Trouble {
                    kind: name,
                    text: text.clone(),
                    since,
                });
                let detail = json!({ "stream": about, "text": text });
                self.tell(kind, detail).await;
            }
            (Some(at), None) => {
                let trouble = self.word.troubles.remove(at);
                let detail =
                    json!({ "stream": about, "was": trouble.text, "since": trouble.since });
                self.tell(kind::HUB_WELL_AGAIN, detail).await;
            }
        }
        if let Err(error) = self.bus.say_word(&self.word).await {
            tracing::debug!(%error, over, "the hub's word was not stored");
        }
    }
}
