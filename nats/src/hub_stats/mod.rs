//! How the hub is: gathered inside the hub's process from the server's own account and JetStream's
//! requests, answered to whoever may ask, and asked for by those who look. However many ask, it is
//! gathered once a second at the most; what does not answer in time is named as missing.

mod gather;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES};
use fleet_contract::flood::Sent;
use fleet_contract::hub::{HUB_STATS_KIND, HubStats, KeeperStats, LockedOutPeer};
use fleet_contract::ids::MachineId;
use fleet_contract::time::Time;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::hub::Permission;
use crate::subject::{self, verb};
use gather::Gatherer;
pub(crate) use gather::ask;

/// An answer is given again for so long.
const FRESH: Duration = Duration::from_millis(900);
/// Pause before questions are listened for again where that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What the keeper counts, shared with whoever answers for the hub.
#[derive(Debug, Default)]
pub struct KeeperCounters {
    pub(crate) voids: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) tickets_again: AtomicU64,
    pub(crate) machines_lost: AtomicU64,
    pub(crate) leases_taken: AtomicU64,
    /// What machines sent that does not count, since it was taken last.
    offences: Mutex<BTreeMap<MachineId, Sent>>,
    locked_out: Mutex<Vec<LockedOutPeer>>,
}

/// Machines whose offences are counted between two looks.
const OFFENDERS_MAX: usize = 4096;

impl KeeperCounters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A message of a machine's does not count, or is one of a kind that it sends seldom.
    pub(crate) fn offends(&self, machine: &MachineId, bytes: usize) {
        let mut all = self.offences.lock().unwrap_or_else(PoisonError::into_inner);
        let more = Sent {
            messages: 0,
            useless: 1,
            useless_bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        };
        if let Some(sent) = all.get_mut(machine) {
            sent.add(&more);
        } else if all.len() < OFFENDERS_MAX {
            all.insert(machine.clone(), more);
        }
    }

    pub(crate) fn take_offences(&self) -> BTreeMap<MachineId, Sent> {
        std::mem::take(&mut *self.offences.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_locked_out(&self, locked_out: Vec<LockedOutPeer>) {
        *self
            .locked_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = locked_out;
    }

    fn locked_out(&self) -> Vec<LockedOutPeer> {
        let locked_out = self.locked_out.lock();
        locked_out.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stats(&self) -> KeeperStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeeperStats {
            voids: read(&self.voids),
            malformed: read(&self.malformed),
            tickets_again: read(&self.tickets_again),
            machines_lost: read(&self.machines_lost),
            leases_taken: read(&self.leases_taken),
        }
    }
}

/// What the hub knows of itself without asking anybody.
#[derive(Debug, Clone)]
pub struct AboutHub {
    /// Its host name.
    pub host: String,
    /// What the agent beside it is called.
    pub machine: Option<MachineId>,
    /// Where it listens.
    pub address: String,
    /// The version of its fleet.
    pub version: String,
    /// When its process began.
    pub started_at: Time,
    /// Where its store is.
    pub store: PathBuf,
}

/// Answers until its task is ended. `system` is a connection of the system account.
pub async fn answer(about: AboutHub, bus: Bus, system: Client, keeper: Arc<KeeperCounters>) {
    let mut gatherer = Gatherer::new(about, bus.clone(), system);
    let mut last: Option<(Instant, Bytes)> = None;
    loop {
        let subject = subject::command_hub(verb::STATS);
        let Ok(mut questions) = bus.client().subscribe(subject).await else {
            tokio::time::sleep(clock::jittered(RETRY)).await;
            continue;
        };
        while let Some(question) = questions.next().await {
            let Some(inbox) = question.reply.filter(|reply| may_be_answered(reply)) else {
                continue;
            };
            let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
            let answer = match fresh {
                Some((_, answer)) => answer.clone(),
                None => {
                    let mut stats = gatherer.gather(keeper.stats()).await;
                    stats.locked_out = keeper.locked_out();
                    stats.bound();
                    let Some(answer) = encode(&stats) else {
                        continue;
                    };
                    last = Some((Instant::now(), answer.clone()));
                    answer
                }
            };
            if let Err(error) = bus.tell(&inbox, answer).await {
                tracing::debug!(%error, "a question was not answered");
            }
        }
    }
}

/// An answer goes to an inbox of those only who may ask: the asker could else have the hub write
/// for it, to an agent that waits for something else.
fn may_be_answered(reply: &str) -> bool {
    [Permission::Viewer, Permission::Operator]
        .into_iter()
        .any(|who| reply.starts_with(&who.inbox_prefix("")))
}

fn encode(stats: &HubStats) -> Option<Bytes> {
    let header = Header::new(clock::message_id(), clock::now(), HUB_STATS_KIND);
    envelope::encode(&header, stats, MESSAGE_MAX_BYTES)
        .inspect_err(|error| tracing::warn!(%error, "the hub cannot say how it is"))
        .ok()
        .map(Bytes::from)
}

impl Bus {
    /// Asks the hub how it is.
    ///
    /// # Errors
    /// `NoResponders` of a hub that is too old to answer; `NoAnswer`; `Wire` for an answer that is
    /// none.
    pub async fn hub_stats(&self, within: Duration) -> Result<HubStats, BusError> {
        let subject = subject::command_hub(verb::STATS);
        let answer = self
            .ask(&subject, Bytes::new(), HeaderMap::new(), within)
            .await?;
        let (_, mut stats): (_, HubStats) =
            envelope::decode(&answer.payload, HUB_STATS_KIND, MESSAGE_MAX_BYTES)?;
        stats.bound();
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_those_who_may_ask_and_to_nobody_for_them() {
        for inbox in ["_INBOX_V.ana.x.1", "_INBOX_O.ana.x.1"] {
            assert!(may_be_answered(inbox), "{inbox}");
        }
        for other in [
            "_INBOX.forge.x.1",
            "_INBOX_Vx.y",
            "_INBOX",
            "fleet.want.hub",
        ] {
            assert!(!may_be_answered(other), "{other}");
        }
    }
}
