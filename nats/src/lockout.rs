//! Locks out machines that send more than any that keeps to the contract does, and lets them in
//! again when the operator says so. What is too much is the contract's to say
//! ([`fleet_contract::flood`]); what the server counted of each connection, and what the keeper found
//! not to count, is what it goes by. Runs inside the hub process only.
//!
//! Whoever is locked out has his user revoked: the server ends his connections and lets him in no
//! more. The hub writes it down first, so that it holds over restarts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use fleet_contract::flood::{Bounds, FLOOD_WITHIN, Flood, Floods, Sent};
use fleet_contract::hub::LockedOutPeer;
use fleet_contract::ids::MachineId;
use fleet_contract::lease::BootTime;
use fleet_contract::time::Time;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::hub::{HubHandle, Identity, LockedOut, PeerUser, Permission};
use crate::hub_stats::{KeeperCounters, ask};
use crate::subject::{self, verb};

/// How often it is counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the server may take to answer.
const WITHIN: Duration = Duration::from_secs(5);
/// The connections are looked at one by one only where all of them together sent one part in so many
/// of what one may.
const ARMED_AT: u64 = 4;
/// Connections that are looked at, those that sent most first.
const CONNECTIONS_MAX: u64 = 2048;
/// Machines that are locked out at once; of more, those of longest ago are let in.
const LOCKED_MAX: usize = 1024;
/// Users of one machine that are locked out at once.
const KEYS_MAX: usize = 64;

/// What the watch needs.
pub struct Lockout {
    bus: Bus,
    hub: HubHandle,
    identity: Arc<Identity>,
    system: Client,
    counters: Arc<KeeperCounters>,
    bounds: Bounds,
    floods: Floods,
    /// What the server had counted of all connections, at each look within the span.
    totals: VecDeque<(BootTime, u64)>,
    /// What it had counted of each connection at the last look, by its number, while that is looked at.
    counted: HashMap<u64, u64>,
    /// The server that knows who is locked out.
    told: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Varz {
    in_msgs: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connz {
    connections: Vec<Connection>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connection {
    cid: u64,
    start: Time,
    in_msgs: u64,
    jwt: String,
}

/// What the hub answers to the operator's wish.
#[derive(Serialize, Deserialize)]
struct Admitted {
    /// Whether the machine was locked out.
    was: bool,
    /// Why it is still locked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Lockout {
    /// Over a connection of the keeper's user and one of the system account.
    #[must_use]
    pub fn new(
        bus: Bus,
        hub: HubHandle,
        identity: Arc<Identity>,
        system: Client,
        counters: Arc<KeeperCounters>,
        bounds: Bounds,
    ) -> Self {
        Self {
            bus,
            hub,
            identity,
            system,
            counters,
            bounds,
            floods: Floods::new(bounds),
            totals: VecDeque::new(),
            counted: HashMap::new(),
            told: String::new(),
        }
    }

    /// Watches until its task is ended.
    pub async fn watch(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wishes = self.hear().await;
        self.show();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if wishes.is_none() {
                        wishes = self.hear().await;
                    }
                    self.look().await;
                }
                wish = next(&mut wishes) => match wish {
                    Some(wish) => self.wish(wish).await,
                    None => wishes = None,
                },
            }
        }
    }

    async fn hear(&self) -> Option<Subscriber> {
        let subject = subject::command_hub(verb::ADMIT);
        let heard = self.bus.client().subscribe(subject).await;
        heard
            .inspect_err(|error| tracing::warn!(%error, "nobody can be let in again"))
            .ok()
    }

    async fn look(&mut self) {
        let now = clock::boot_time();
        let server = self.bus.server_id();
        if self.told != server && self.push().await.is_ok() {
            self.told = server;
        }
        for (machine, sent) in self.counters.take_offences() {
            if let Some(flood) = self.floods.add(&machine, sent, now) {
                self.lock_out(&machine, flood).await;
            }
        }
        match self.count(now).await {
            Ok(found) => {
                for (machine, flood) in found {
                    self.lock_out(&machine, flood).await;
                }
            }
            Err(error) => tracing::debug!(error, "the server did not say who sends how much"),
        }
        self.floods.settle(now);
    }

    /// What each machine's connections sent, where all together sent much.
    async fn count(&mut self, now: BootTime) -> Result<Vec<(MachineId, Flood)>, String> {
        let varz: Varz = self.ask("VARZ", json!({})).await?;
        if self
            .totals
            .back()
            .is_some_and(|(_, was)| *was > varz.in_msgs)
        {
            // Another server: it counts from nothing.
            self.totals.clear();
            self.counted.clear();
        }
        self.totals.push_back((now, varz.in_msgs));
        while self.totals.len() > 1
            && self
                .totals
                .front()
                .is_some_and(|(at, _)| now.since(*at) > FLOOD_WITHIN)
        {
            self.totals.pop_front();
        }
        let first = self.totals.front().map_or(varz.in_msgs, |(_, n)| *n);
        if varz.in_msgs - first <= self.bounds.messages / ARMED_AT {
            self.counted.clear();
            return Ok(Vec::new());
        }
        let all = self.connections().await?;
        let begins = self.counted.is_empty();
        let within = i64::try_from(FLOOD_WITHIN.as_micros()).unwrap_or(i64::MAX);
        let since = Time::from_micros(clock::now().as_micros().saturating_sub(within));
        let mut by_machine: BTreeMap<MachineId, Sent> = BTreeMap::new();
        let before = std::mem::take(&mut self.counted);
        for connection in all {
            self.counted.insert(connection.cid, connection.in_msgs);
            let was = before.get(&connection.cid).copied();
            // Of one that was there before it was looked at, nobody knows since when.
            let fresh = connection.start >= since;
            let was = was.or_else(|| (fresh || !begins).then_some(0));
            let messages = connection
                .in_msgs
                .saturating_sub(was.unwrap_or(connection.in_msgs));
            if let Some(user) = self.worker(&connection.jwt) {
                let more = Sent {
                    messages,
                    ..Sent::default()
                };
                by_machine.entry(user.machine).or_default().add(&more);
            }
        }
        let floods = by_machine.into_iter().filter_map(|(machine, sent)| {
            let flood = self.floods.add(&machine, sent, now)?;
            Some((machine, flood))
        });
        Ok(floods.collect())
    }

    /// The connections that are open, those that sent most first.
    async fn connections(&self) -> Result<Vec<Connection>, String> {
        let body = json!({ "auth": true, "sort": "msgs_from", "limit": CONNECTIONS_MAX });
        let connz: Connz = self.ask("CONNZ", body).await?;
        Ok(connz.connections)
    }

    /// The latest of those that are closed.
    async fn closed(&self) -> Result<Vec<Connection>, String> {
        let body = json!({ "auth": true, "state": 1, "sort": "stop", "limit": CONNECTIONS_MAX });
        let connz: Connz = self.ask("CONNZ", body).await?;
        Ok(connz.connections)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        body: serde_json::Value,
    ) -> Result<T, String> {
        ask(&self.system, Instant::now() + WITHIN, what, body).await
    }

    /// The machine that a user's JWT is of, with the user's key.
    fn worker(&self, jwt: &str) -> Option<Worker> {
        let user: PeerUser = self.identity.user_of(jwt)?;
        let machine = user.name.parse().ok()?;
        (user.permission == Permission::Worker).then_some(Worker {
            machine,
            key: user.key,
        })
    }

    /// Ends all connections of the machine and lets it in no more.
    async fn lock_out(&mut self, machine: &MachineId, flood: Flood) {
        let keys = match self.keys_of(machine).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%machine, error, "a machine that floods was not locked out yet");
                return;
            }
        };
        if keys.is_empty() {
            tracing::warn!(%machine, %flood, "a machine flooded, and nobody knows by which connection");
            return;
        }
        let revoked = self.hub.record().revoked();
        if keys.iter().all(|key| revoked.contains_key(key)) {
            // What it had sent before is counted now.
            return;
        }
        let now = clock::now();
        let second = now.as_micros() / 1_000_000;
        let reason = format!("it sent {flood}");
        tracing::error!(%machine, reason, "locked out");
        let changed = self.hub.update_record(|record| {
            let known = record.locked_out.entry(machine.clone());
            let locked = known.or_insert_with(|| LockedOut {
                at: now,
                reason,
                keys: BTreeMap::new(),
            });
            let room = KEYS_MAX.saturating_sub(locked.keys.len());
            locked
                .keys
                .extend(keys.into_iter().take(room).map(|key| (key, second)));
            while record.locked_out.len() > LOCKED_MAX {
                let oldest = record.locked_out.iter().min_by_key(|(_, locked)| locked.at);
                let Some(oldest) = oldest.map(|(machine, _)| machine.clone()) else {
                    break;
                };
                record.locked_out.remove(&oldest);
            }
        });
        if let Err(error) = changed {
            // It is locked out as long as the hub runs, all the same.
            tracing::error!(%error, "who is locked out was not written down");
        }
        self.tell_server().await;
    }

    /// The keys of the machine's connections; where none is open, of those that it closed last.
    async fn keys_of(&self, machine: &MachineId) -> Result<Vec<String>, String> {
        let open = self.keys_among(&self.connections().await?, machine);
        if open.is_empty() {
            return Ok(self.keys_among(&self.closed().await?, machine));
        }
        Ok(open)
    }

    fn keys_among(&self, connections: &[Connection], machine: &MachineId) -> Vec<String> {
        let workers = connections.iter().filter_map(|c| self.worker(&c.jwt));
        let mut keys: Vec<String> = workers
            .filter(|worker| worker.machine == *machine)
            .map(|worker| worker.key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The server is to know it at once; where it cannot, at the next look.
    async fn tell_server(&mut self) {
        self.show();
        let server = self.bus.server_id();
        match self.push().await {
            Ok(()) => self.told = server,
            Err(error) => {
                tracing::warn!(error, "the server does not know yet who is locked out");
                self.told.clear();
            }
        }
        self.hub.locked_out_changed();
    }

    /// Tells the server who is not let in.
    async fn push(&self) -> Result<(), String> {
        let revoked = self.hub.record().revoked();
        let issued_at = clock::now().as_micros() / 1_000_000;
        let account = self.identity.fleet_account(issued_at, &revoked);
        let account = account.map_err(|error| error.to_string())?;
        let subject = format!("$SYS.REQ.ACCOUNT.{}.CLAIMS.UPDATE", self.identity.account());
        let asked = self.system.request(subject, account.into());
        let answer = tokio::time::timeout(WITHIN, asked).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&answer.payload);
        if text.contains("\"error\"") {
            return Err(text.into_owned());
        }
        Ok(())
    }

    /// What those are shown who ask how the hub is.
    fn show(&self) {
        let record = self.hub.record();
        let locked = record.locked_out.into_iter();
        self.counters.set_locked_out(
            locked
                .map(|(machine, locked)| LockedOutPeer {
                    machine,
                    at: locked.at,
                    reason: locked.reason,
                })
                .collect(),
        );
    }

    /// The operator wants a machine to be let in again.
    async fn wish(&mut self, wish: Message) {
        let inbox = Permission::Operator.inbox_prefix("");
        let Some(reply) = wish.reply.filter(|reply| reply.starts_with(&inbox)) else {
            return;
        };
        let name = std::str::from_utf8(&wish.payload).ok();
        let answer = match name.and_then(|name| name.parse::<MachineId>().ok()) {
            Some(machine) => self.admit(&machine).await,
            None => Admitted {
                was: false,
                error: Some("no machine is called that".to_owned()),
            },
        };
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        if let Err(error) = self.bus.tell(&reply, bytes.into()).await {
            tracing::debug!(%error, "the operator was not answered");
        }
    }

    async fn admit(&mut self, machine: &MachineId) -> Admitted {
        let mut was = false;
        let changed = self
            .hub
            .update_record(|record| was = record.locked_out.remove(machine).is_some());
        if let Err(error) = changed {
            let error = Some(error.to_string());
            return Admitted { was, error };
        }
        if was {
            tracing::info!(%machine, "let in again");
            self.tell_server().await;
        }
        Admitted { was, error: None }
    }
}

/// A worker's user.
struct Worker {
    machine: MachineId,
    key: String,
}

/// The next wish; waits for ever where none can be heard.
async fn next(wishes: &mut Option<Subscriber>) -> Option<Message> {
    match wishes {
        Some(wishes) => wishes.next().await,
        None => std::future::pending().await,
    }
}

impl Bus {
    /// Has the hub let a machine in again that it had locked out; whether it had.
    ///
    /// # Errors
    /// `NoResponders` of a hub that is too old; `NoAnswer`; `Server` with the hub's words.
    pub async fn admit(&self, machine: &MachineId) -> Result<bool, BusError> {
        let subject = subject::command_hub(verb::ADMIT);
        let name = Bytes::from(machine.to_string());
        let answer = self
            .ask(&subject, name, HeaderMap::new(), WITHIN * 2)
            .await?;
        let failed = |description: String| BusError::Server {
            what: format!("letting {machine} in"),
            code: 0,
            description,
        };
        let answer: Admitted =
            serde_json::from_slice(&answer.payload).map_err(|e| failed(e.to_string()))?;
        match answer.error {
            Some(error) => Err(failed(error)),
            None => Ok(answer.was),
        }
    }
}
