//! What is asked of the hub beside its streams, and what machines tell without its storing it. None
//! of it holds up a reader: what does not answer is said, what comes too fast is passed over for
//! what comes after it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::ids::MachineId;
use fleet_contract::projection::Fact;
use fleet_contract::time::Time;
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::LinkStatus;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::store::Clocks;
use super::{Ended, Forever, PROBE, Wants};
use crate::bus::BusMsg;
use crate::model::Msg;

/// How often the hub is asked while somebody looks.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Summaries are brought together this often.
const GATHER: Duration = Duration::from_millis(200);

/// Waits until it is time to ask again, or somebody begins to look.
pub(super) async fn pace(wants: &mut watch::Receiver<Wants>) {
    let looked_at = wants.borrow_and_update().hub;
    let pause = if looked_at { LOOKED_AT } else { PROBE };
    let begins = async {
        // Ends with the source.
        if wants
            .wait_for(|wants| wants.hub && !looked_at)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = sleep(pause) => {}
        () = begins => {}
    }
}

/// Asks the hub how it is.
pub(super) async fn asks(
    bus: &Bus,
    msgs: &mpsc::Sender<Msg>,
    mut wants: watch::Receiver<Wants>,
) -> Forever {
    loop {
        let said = bus.hub_stats(ANSWER).await.map(Box::new).map_err(why_not);
        msgs.send(Msg::Bus(BusMsg::Hub(said))).await?;
        if let Some(bytes) = memory() {
            msgs.send(Msg::Bus(BusMsg::Memory(bytes))).await?;
        }
        pace(&mut wants).await;
    }
}

fn why_not(error: BusError) -> String {
    match error {
        BusError::NoResponders(_) => "this hub does not say how it is: it is older".to_owned(),
        BusError::NoAnswer { .. } => "the hub did not say in time how it is".to_owned(),
        error => error.to_string(),
    }
}

/// What this process has in memory; none where the system does not say it in a file.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Brings what machines count: of each the latest, a few times a second.
pub(super) async fn stats(bus: &Bus, msgs: &mpsc::Sender<Msg>, clocks: &Clocks) -> Forever {
    let mut heard = bus.hear_stats().await?;
    let gone = || Ended::Failed("nobody hears the machines' summaries any more".to_owned());
    loop {
        let mut batch = Batch::default();
        batch.take(heard.next().await.ok_or_else(gone)?, clocks.now());
        let until = Instant::now() + GATHER;
        while let Ok(next) = timeout_at(until, heard.next()).await {
            batch.take(next.ok_or_else(gone)?, clocks.now());
        }
        let room = loop {
            tokio::select! {
                room = msgs.reserve() => break room.map_err(|_| Ended::Gone)?,
                next = heard.next() => batch.take(next.ok_or_else(gone)?, clocks.now()),
            }
        };
        room.send(Msg::Bus(BusMsg::Stats {
            facts: batch.facts.into_values().chain(batch.unreadable).collect(),
            superseded: batch.superseded,
        }));
    }
}

#[derive(Default)]
struct Batch {
    facts: BTreeMap<MachineId, Fact>,
    unreadable: Vec<Fact>,
    superseded: u64,
}

/// Most messages of one batch that are told to be unreadable; more say nothing more.
const UNREADABLE: usize = 64;

impl Batch {
    fn take(
        &mut self,
        heard: Result<fleet_nats::stat::Told, fleet_contract::envelope::WireError>,
        at: Time,
    ) {
        match heard {
            Ok((machine, stat)) => {
                let fact = Fact::Stat {
                    machine: machine.clone(),
                    stat,
                    at,
                };
                let before = self.facts.insert(machine, fact);
                self.superseded += u64::from(before.is_some());
            }
            Err(error) if self.unreadable.len() < UNREADABLE => {
                let why = error.to_string();
                self.unreadable.push(Fact::Unreadable { why });
            }
            Err(_) => self.superseded += 1,
        }
    }
}

/// Says what the client library drops as soon as it does.
pub(super) async fn drops(
    msgs: &mpsc::Sender<Msg>,
    mut status: watch::Receiver<LinkStatus>,
) -> Forever {
    let mut told = status.borrow().slow_drops;
    loop {
        let more = status.wait_for(|s| s.slow_drops > told).await;
        let Some(now) = more.ok().map(|status| status.slow_drops) else {
            return Err(Ended::Gone);
        };
        told = now;
        msgs.send(Msg::Bus(BusMsg::Drops(told))).await?;
        sleep(GATHER).await;
    }
}
