//! Watches over what the hub stores: whether it still holds what it once held, whether it can be
//! written, how full it is, and whether the clock jumps. It vouches for the server process, without
//! which no agent claims anything, and recovers a journal that went back in time into a new epoch.
//!
//! Runs inside the hub process only. It decides nothing about one job: that is the contract's
//! ([`fleet_contract::damage`]).

mod recover;
mod removed;
mod room;
mod state;
mod watch;
mod word;

use std::collections::BTreeMap;

use fleet_contract::damage::{self, Damage};
use fleet_contract::event::kind;
use fleet_contract::ids::MachineId;
use fleet_contract::lease::{LeaseRecord, Mark};
use fleet_contract::time::Time;
use serde_json::{Value, json};

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::flow::NewEvent;
use crate::hub::{HubHandle, HubRecord, RecordError, Recovering};
use crate::keeper;
use crate::registry::decode_lease;
use crate::streams::Keeps;
use crate::subject::{self, HUB, stream};

pub use fleet_contract::hub::Trouble;
pub use state::{StreamState, streams};
pub use watch::{KeeperTask, write_down};
pub use word::{HubWord, Recovered};

/// Sequences of leases are terms: after damage they go on this far beyond any that was written down.
const TERM_MARGIN: u64 = 1_000_000;
/// Leases read at once.
const PAGE: u64 = 256;
/// 2026-01-01, in minutes since 1970: epochs of recovered hubs count from here.
const EPOCHS_FROM: i64 = 29_454_240;

/// Why the hub cannot serve what it stores.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The server does not do what is asked.
    #[error("cannot look at what the hub stores: {0}")]
    Bus(#[from] BusError),
    /// `hub.json`.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Watches over a hub.
pub struct Guard {
    bus: Bus,
    hub: HubHandle,
    boot: String,
    events: u64,
    word: HubWord,
    /// An agent's word alone has begun a recovery at this server: once is enough.
    believed: bool,
    /// It was admitted once.
    started: bool,
    /// How long events and output are kept.
    keeps: Keeps,
    watch: watch::Memory,
}

/// What is wrong with the store, and who said so.
type Damages = BTreeMap<String, Damage>;

impl Guard {
    /// A guard of this hub, over a connection of the keeper's user.
    #[must_use]
    pub fn new(bus: Bus, hub: HubHandle) -> Self {
        let record = hub.record();
        Self {
            bus,
            word: HubWord {
                epoch: record.epoch,
                recovered: record.recovered,
                ..HubWord::default()
            },
            hub,
            boot: clock::message_id().to_string(),
            events: 0,
            believed: false,
            started: false,
            keeps: Keeps::default(),
            watch: watch::Memory::new(),
        }
    }

    /// The same of a hub where events and output are kept like this.
    #[must_use]
    pub fn keeping(mut self, keeps: Keeps) -> Self {
        self.keeps = keeps;
        self
    }

    /// The hub's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.word.epoch
    }

    /// Looks at what is stored, recovers it where it was damaged, makes what is missing, and vouches
    /// for the server. What a person should know is in the answer.
    ///
    /// # Errors
    /// [`GuardError`]: then nobody vouches, and nothing is claimed.
    pub async fn admit(&mut self) -> Result<Vec<String>, GuardError> {
        let server = self.bus.server_id();
        let (mut damages, there) = self.examine().await?;
        let record = self.hub.record();
        if let Some(taken) = record.restored {
            damages.insert(stream::JOB.to_owned(), Damage::Restored { taken });
        }
        let notes = self.mend(record, damages, &there).await?;
        self.word.server = server;
        self.bus.say_word(&self.word).await?;
        self.started = true;
        Ok(notes)
    }

    /// What is wrong, by what was written down here and by the agents, and what is there.
    async fn examine(&self) -> Result<(Damages, BTreeMap<String, StreamState>), GuardError> {
        let there = streams(&self.bus).await?;
        let record = self.hub.record();
        let mut damages = damage::examine(&state::recorded(&record.streams), &state::found(&there));
        let found = there.get(stream::JOB).map_or(0, |job| job.last_seq);
        if !self.believed && there.contains_key(stream::LEASE) && !damages.contains_key(stream::JOB)
        {
            for (machine, seen) in self.seen_by_agents().await? {
                let later = seen.epoch > record.epoch;
                if later || damage::behind(record.epoch, found, seen) {
                    let seen = seen.seq;
                    let behind = Damage::Behind {
                        machine,
                        seen,
                        found,
                    };
                    damages.insert(stream::JOB.to_owned(), behind);
                    break;
                }
            }
        }
        Ok((damages, there))
    }

    /// The highest of the journal that each agent has ever seen, by its lease.
    async fn seen_by_agents(&self) -> Result<Vec<(MachineId, Mark)>, BusError> {
        let mut marks = Vec::new();
        let mut next = 1;
        loop {
            let page = self
                .bus
                .page(stream::LEASE, subject::LEASES, next, PAGE)
                .await?;
            let Some(last) = page.last() else {
                return Ok(marks);
            };
            next = last.seq.saturating_add(1);
            for message in &page {
                if let Ok(LeaseRecord::Agent {
                    machine,
                    seen: Some(seen),
                    ..
                }) = decode_lease(message)
                {
                    marks.push((machine, seen));
                }
            }
        }
    }

    /// Makes good what can be made good, and says the rest.
    async fn mend(
        &mut self,
        record: HubRecord,
        damages: Damages,
        there: &BTreeMap<String, StreamState>,
    ) -> Result<Vec<String>, GuardError> {
        let mut notes: Vec<String> = damages
            .iter()
            .map(|(stream, damage)| format!("stream {stream} {damage}"))
            .collect();
        let journal = damages.get(stream::JOB);
        if journal.is_some() {
            self.vouch_for_nothing().await;
            self.believed |= matches!(journal, Some(Damage::Behind { .. }));
            let epoch = self.next_epoch(&record).await;
            let since = since(&damages, there);
            let damage = texts(&damages);
            let journal = Some(ends(&record, &damages, there));
            self.hub.update_record(|record| {
                record.epoch = epoch;
                record.recovering = Some(Recovering {
                    since,
                    damage,
                    journal,
                });
            })?;
        }
        let store = record.max_file_store;
        let made = keeper::prepare_keeping(&self.bus, store, &self.keeps).await?;
        tracing::debug!(?made, "streams");
        if !self.started {
            self.bus.drop_empty_lanes().await?;
        }
        // Also of a stream that took nothing.
        self.watch.output_held = false;
        let after = streams(&self.bus).await?;
        notes.extend(removed::by_limits(there, &after));
        if damages.is_empty() {
            // What the first look finds gone, new limits have removed.
            self.watch.last.clone_from(there);
            self.watch.removals.expect();
        }
        let recovering = self.hub.record().recovering;
        if recovering.is_some() || damages.contains_key(stream::LEASE) {
            self.forget_leases(&record, there).await?;
        }
        let mut recovered = None;
        if let Some(Recovering {
            since,
            damage,
            journal,
        }) = recovering
        {
            let epoch = self.hub.record().epoch;
            let counts = recover::recover(&self.bus, epoch, &since).await?;
            notes.push(format!(
                "recovered from {since} into epoch {epoch}: {} put to you (`fleet jobs --state needs_human`), {} left to what their machines report",
                jobs(counts.asked),
                jobs(counts.running)
            ));
            recovered = Some(Recovered {
                at: clock::now(),
                epoch,
                since,
                damage,
                asked: counts.asked,
                running: counts.running,
                tickets: counts.tickets,
                journal,
            });
        }
        let marks = state::marks(&streams(&self.bus).await?);
        self.hub.update_record(|record| {
            record.streams = marks;
            record.restored = None;
            record.recovering = None;
            if recovered.is_some() {
                record.recovered.clone_from(&recovered);
            }
        })?;
        let record = self.hub.record();
        self.word.epoch = record.epoch;
        self.word.recovered = record.recovered;
        self.bus.note_epoch(record.epoch);
        for (stream, damage) in &damages {
            let text = format!("stream {stream} {damage}");
            let detail = json!({ "stream": stream, "damage": damage, "text": text });
            self.tell(kind::HUB_DAMAGED, detail).await;
        }
        if let Some(recovered) = recovered {
            let detail = serde_json::to_value(&recovered).unwrap_or_default();
            self.tell(kind::HUB_RECOVERED, detail).await;
        }
        Ok(notes)
    }

    /// Has every agent stop claiming: what it would claim now would get a token that was given out.
    async fn vouch_for_nothing(&mut self) {
        self.word.server.clear();
        // Where there is no stream for it, nobody can read that somebody vouches.
        if let Err(error) = self.bus.say_word(&self.word).await {
            tracing::debug!(%error, "the hub's word was not stored");
        }
    }

    /// Later than every epoch that anybody here knows of, and than those that nobody knows of any
    /// more: of a backup that was put back twice, each goes on in an epoch of its own.
    async fn next_epoch(&self, record: &HubRecord) -> u64 {
        let word = self.bus.hub_word().await.ok().flatten();
        let agents = self.seen_by_agents().await.unwrap_or_default();
        let known = agents
            .iter()
            .map(|(_, seen)| seen.epoch)
            .chain(word.map(|word| word.epoch))
            .fold(record.epoch, u64::max);
        let minute = clock::now().as_micros() / 60_000_000 - EPOCHS_FROM;
        known
            .saturating_add(1)
            .max(u64::try_from(minute).unwrap_or(0))
    }

    /// Every agent takes its lease anew, in a term that no earlier claim can name.
    async fn forget_leases(
        &self,
        record: &HubRecord,
        there: &BTreeMap<String, StreamState>,
    ) -> Result<(), BusError> {
        let recorded = record
            .streams
            .get(stream::LEASE)
            .map_or(0, |lease| lease.last_sequence);
        let found = there.get(stream::LEASE).map_or(0, |lease| lease.last_seq);
        let body = json!({ "seq": recorded.max(found).saturating_add(TERM_MARGIN) }).to_string();
        self.bus
            .api::<Value>(&format!("STREAM.PURGE.{}", stream::LEASE), body.into())
            .await
            .map(drop)
    }

    /// Tells an event of the hub's. One that cannot be stored now is in the log only.
    async fn tell(&mut self, kind: &'static str, detail: Value) {
        self.events += 1;
        let event = NewEvent {
            kind,
            machine: None,
            job: None,
            attempt: None,
            detail,
        };
        if let Err(error) = self
            .bus
            .put_event(HUB, &event, &self.boot, self.events)
            .await
        {
            tracing::warn!(%error, kind, "an event was not stored");
        }
    }
}

fn jobs(n: u64) -> String {
    match n {
        1 => "1 job".to_owned(),
        n => format!("{n} jobs"),
    }
}

fn texts(damages: &Damages) -> BTreeMap<String, String> {
    damages
        .iter()
        .map(|(stream, damage)| (stream.clone(), damage.to_string()))
        .collect()
}

/// What the journal is as of, in words.
fn since(damages: &Damages, there: &BTreeMap<String, StreamState>) -> String {
    if let Some(Damage::Restored { taken }) = damages.get(stream::JOB) {
        return format!("a backup of {}", seconds(*taken));
    }
    match there.get(stream::JOB) {
        Some(job) if job.messages > 0 => match job.last_time.parse::<Time>() {
            Ok(time) => seconds(time),
            Err(_) => job.last_time.clone(),
        },
        _ => "nothing: its journal was lost".to_owned(),
    }
}

/// Where the journal ends, in the epoch that it was in. One that was made anew holds nothing of that.
fn ends(record: &HubRecord, damages: &Damages, there: &BTreeMap<String, StreamState>) -> Mark {
    let anew = matches!(
        damages.get(stream::JOB),
        Some(Damage::Missing { .. } | Damage::Recreated { .. })
    );
    let found = there.get(stream::JOB).map_or(0, |job| job.last_seq);
    Mark {
        epoch: record.epoch,
        seq: if anew { 0 } else { found },
    }
}

/// A time to the second.
fn seconds(time: Time) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
