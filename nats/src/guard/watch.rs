//! The guard while the hub runs: a look every few seconds, and at once after each new server.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use fleet_contract::damage;
use fleet_contract::event::kind;
use fleet_contract::fill::{Disk, warns_at};
use fleet_contract::ids::MachineId;
use fleet_contract::keeper::MAKE_ROOM_ABOVE_PERCENT;
use fleet_contract::lease::BootTime;
use fleet_contract::needs::rounded_size;
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
use crate::streams;
use crate::subject::{self, stream};

/// How often the guard looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First and longest pause before a hub that could not be admitted is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often it looks at the disk alone.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_secs(1);
/// After this long a warning is said in new words: who makes a stream grow may be another.
const REFRESH: Duration = Duration::from_secs(600);
/// A server that is silent is not started again sooner than this after the last time.
const RESTART_PAUSE: Duration = Duration::from_secs(20);
/// Pause after the hub's word was said again over another's.
const CORRECT_PAUSE: Duration = Duration::from_millis(100);
/// Machines that are locked out of which the hub's word tells at once; the others are in `hub.json`.
const LOCKED_OUT_SAID: usize = 64;

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
    disk: Disk,
    disk_said: Disk,
    /// Whether no output is taken, because of the disk.
    pub(super) output_held: bool,
    /// Streams that were warned of: at which percentage, and when in these words.
    warned: BTreeMap<&'static str, (u64, BootTime)>,
    pub(super) removals: Removals,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            clock: (clock::now(), clock::boot_time()),
            last: BTreeMap::new(),
            restarted: None,
            disk: Disk::Enough,
            disk_said: Disk::Enough,
            output_held: false,
            warned: BTreeMap::new(),
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
        let mut disk_ticks = interval(LOOK_AT_DISK_EVERY);
        disk_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => if words.is_none() {
                    words = self.hear_words().await;
                },
                _ = disk_ticks.tick() => {
                    let (free, size) = self.hub.free_space();
                    if Disk::of(free, size, self.watch.disk) == self.watch.disk {
                        continue;
                    }
                }
                changed = link.changed() => if changed.is_err() { return },
                () = self.hub.locked_out() => {
                    self.say_locked_out().await;
                    continue;
                }
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
        self.say_locked_out().await;
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

    /// A disk that fills up is said; one that is nearly full takes neither dispatches nor output, which
    /// waits on its machines. One that was full leaves a stream silent until the server is started again:
    /// said, and done as soon as there is room.
    async fn look_at_disk(&mut self, connected: bool) {
        let (free, size) = self.hub.free_space();
        let disk = Disk::of(free, size, self.watch.disk);
        self.watch.disk = disk;
        let low = disk == Disk::Low;
        self.say_disk(disk, free).await;
        if connected && low != self.watch.output_held {
            let store = self.hub.record().max_file_store;
            let done = match low {
                true => streams::hold(&self.bus, stream::LOG).await,
                false => streams::ensure_keeping(&self.bus, store, &self.keeps)
                    .await
                    .map(drop),
            };
            match done {
                Ok(()) => self.watch.output_held = low,
                Err(error) => tracing::warn!(%error, low, "output is not held or let go yet"),
            }
        }
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

    async fn say_disk(&mut self, disk: Disk, free: u64) {
        if disk == self.watch.disk_said {
            return;
        }
        self.watch.disk_said = disk;
        let place = self.hub.home().hub_dir();
        let left = format!(
            "the disk of {} has {} left",
            place.display(),
            rounded_size(free)
        );
        let short = match disk {
            Disk::Enough => None,
            Disk::Short | Disk::Low => {
                let there = super::streams(&self.bus).await;
                let there = there.unwrap_or_else(|_| self.watch.last.clone());
                let stored = room::stored(&there);
                Some(format!(
                    "{left}; the hub's own: {stored}: free some, or keep less (config.toml)"
                ))
            }
        };
        self.trouble(kind::HUB_DISK_SHORT, short).await;
        let low = format!(
            "{left}: dispatch is refused and output waits on its machines: free some, the hub goes on by itself"
        );
        let low = (disk == Disk::Low).then_some(low);
        self.trouble(kind::HUB_DISK_LOW, low).await;
    }

    async fn look_at_room(&mut self, there: &BTreeMap<String, StreamState>) {
        let now = clock::boot_time();
        for name in stream::ALL {
            let before = self.watch.warned.get(name).copied();
            let level = there.get(name).and_then(|state| {
                // The keeper makes room in the journal, before anybody has to.
                let from = if name == stream::JOB {
                    MAKE_ROOM_ABOVE_PERCENT
                } else {
                    0
                };
                warns_at(state.bytes, state.max_bytes, before.map(|(at, _)| at), from)
            });
            let (Some(level), Some(state)) = (level, there.get(name)) else {
                if self.watch.warned.remove(name).is_some() {
                    self.trouble_of(kind::HUB_NEARLY_FULL, Some(name), None)
                        .await;
                }
                continue;
            };
            let worse = before.is_none_or(|(at, _)| level > at);
            let old = before.is_none_or(|(_, said)| now.since(said) >= REFRESH);
            if worse || old {
                self.watch.warned.insert(name, (level, now));
                let text = room::nearly_full(&self.bus, name, state).await;
                self.warn(kind::HUB_NEARLY_FULL, name, text, worse).await;
            } else if let Some((at, _)) = self.watch.warned.get_mut(name) {
                *at = level;
            }
        }
    }

    /// What retention removed by age and bytes, since it was told last.
    async fn count_removed(&mut self, there: &BTreeMap<String, StreamState>) {
        self.watch.removals.count(&self.watch.last, there);
        if let Some(detail) = self.watch.removals.take(clock::boot_time()) {
            self.tell(kind::HUB_REMOVED, detail).await;
        }
    }

    /// Says a trouble in new words: as an event, too, where it is worse than it was.
    async fn warn(&mut self, kind: &'static str, about: &str, text: String, worse: bool) {
        let name = format!("{kind} {about}");
        let known = self.word.troubles.iter_mut().find(|t| t.kind == name);
        let Some(trouble) = known else {
            return self.trouble_of(kind, Some(about), Some(text)).await;
        };
        trouble.text.clone_from(&text);
        if worse {
            tracing::error!("{text}");
            let detail = json!({ "stream": about, "text": text });
            self.tell(kind, detail).await;
        }
        if let Err(error) = self.bus.say_word(&self.word).await {
            tracing::debug!(%error, "the hub's word was not stored");
        }
    }

    /// Who is locked out is said as long as that is so.
    async fn say_locked_out(&mut self) {
        let mut locked = self.hub.record().locked_out;
        let prefix = format!("{} ", kind::HUB_LOCKED_OUT);
        let known = self.word.troubles.iter();
        let said: Vec<String> = known
            .filter_map(|trouble| Some(trouble.kind.strip_prefix(&prefix)?.to_owned()))
            .collect();
        for machine in &said {
            let is = machine
                .parse()
                .is_ok_and(|machine: MachineId| locked.remove(&machine).is_some());
            if !is {
                self.trouble_of(kind::HUB_LOCKED_OUT, Some(machine), None)
                    .await;
            }
        }
        let room = LOCKED_OUT_SAID.saturating_sub(said.len());
        for (machine, locked) in locked.into_iter().take(room) {
            let text = format!(
                "{machine} is locked out: {}; see to it there, then let it in again with 'fleet hub admit {machine}'",
                locked.reason
            );
            self.trouble_of(kind::HUB_LOCKED_OUT, Some(machine.as_str()), Some(text))
                .await;
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
        let what = match kind {
            kind::HUB_LOCKED_OUT => "machine",
            _ => "stream",
        };
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
                let detail = json!({ what: about, "text": text });
                self.tell(kind, detail).await;
            }
            (Some(at), None) => {
                let trouble = self.word.troubles.remove(at);
                let detail = json!({ what: about, "was": trouble.text, "since": trouble.since });
                self.tell(kind::HUB_WELL_AGAIN, detail).await;
            }
        }
        if let Err(error) = self.bus.say_word(&self.word).await {
            tracing::debug!(%error, over, "the hub's word was not stored");
        }
    }
}
