//! Summaries of what a machine counted in the last second: counted where messages are stored, told
//! on core NATS, never stored themselves. Counting may not wait, and nothing may depend on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, WireError};
use fleet_contract::event::kind;
use fleet_contract::ids::MachineId;
use fleet_contract::stat::{STAT_KIND, Stat};
use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::subject;

/// What was counted since the last summary.
#[derive(Debug, Default)]
pub struct Counters {
    tickets: AtomicU64,
    records: AtomicU64,
    chunks: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    counted: Notify,
}

impl Counters {
    /// Counts a ticket that was delivered.
    pub fn ticket(&self) {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        self.counted.notify_one();
    }

    /// Counts a message that the hub has stored. Beats, leases and samples of load are what an idle
    /// machine sends as well: they are no traffic worth a summary.
    pub(crate) fn stored(&self, subject: &str, bytes: usize) {
        let Some((part, rest)) = subject
            .strip_prefix("fleet.")
            .and_then(|rest| rest.split_once('.'))
        else {
            return;
        };
        let counter = match part {
            "job" => &self.records,
            "log" => &self.chunks,
            "flow" if !rest.ends_with(kind::MACHINE_LOAD) => &self.events,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counted.notify_one();
    }

    /// Waits until there is something to tell.
    pub async fn any(&self) {
        let counters = [&self.tickets, &self.records, &self.chunks, &self.events];
        while counters.iter().all(|n| n.load(Ordering::Relaxed) == 0) {
            self.counted.notified().await;
        }
    }

    /// What was counted in this time; from now on it is counted anew.
    #[must_use]
    pub fn take(&self, interval: Duration) -> Stat {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Stat {
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            tickets: take(&self.tickets),
            records: take(&self.records),
            chunks: take(&self.chunks),
            events: take(&self.events),
            bytes_out: take(&self.bytes),
        }
    }
}

impl Bus {
    /// Tells a summary to whoever listens now. One that cannot be sent at once is worth nothing.
    ///
    /// # Errors
    /// `Closed` while the link is down.
    pub async fn tell_stat(&self, machine: &MachineId, stat: &Stat) -> Result<(), BusError> {
        self.only_now()?;
        let mut header = Header::new(clock::message_id(), clock::now(), STAT_KIND);
        header.machine = Some(machine.clone());
        let bytes = envelope::encode(&header, stat, MESSAGE_MAX_BYTES)?;
        self.tell(&subject::stat(machine), bytes.into()).await
    }
}

/// A summary, and whose it is.
pub type Told = (MachineId, Stat);

/// Hears what all machines tell, from now on. Bounded by the connection: what comes while too much
/// waits is dropped and counted there.
#[derive(Debug)]
pub struct Heard(async_nats::Subscriber);

impl Heard {
    /// The next summary, or why it is none; nothing once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Result<Told, WireError>> {
        let message = self.0.next().await?;
        Some(decode_stat(&message.subject, &message.payload))
    }
}

impl Bus {
    /// Hears what all machines tell.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn hear_stats(&self) -> Result<Heard, BusError> {
        let heard = self.client().subscribe(subject::STATS).await;
        heard
            .map(Heard)
            .map_err(|e| BusError::Closed(e.to_string()))
    }
}

/// A summary, and whose it is: only the machine itself may publish on its subject.
///
/// # Errors
/// `Malformed`, `Oversize`, `UnknownKind`.
pub fn decode_stat(subject: &str, payload: &[u8]) -> Result<Told, WireError> {
    let machine = subject::parse_stat(subject)
        .ok_or_else(|| WireError::Malformed(format!("no machine's subject: {subject}")))?;
    let (_, stat) = envelope::decode(payload, STAT_KIND, MESSAGE_MAX_BYTES)?;
    Ok((machine, stat))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_an_idle_machine_sends_too_is_not_counted() {
        let counters = Counters::default();
        for subject in [
            "fleet.pres.studio",
            "fleet.lease.studio.studio",
            "fleet.flow.studio.machine.load",
            "nonsense",
        ] {
            counters.stored(subject, 10);
        }
        assert!(counters.any().now_or_never().is_none());
        counters.stored("fleet.job.aaaaaaaaaaaaaaaa.studio", 10);
        counters.stored("fleet.log.aaaaaaaaaaaaaaaa.studio", 20);
        counters.stored("fleet.flow.studio.machine.up", 30);
        counters.ticket();
        assert!(counters.any().now_or_never().is_some());
        let stat = counters.take(Duration::from_millis(1500));
        let expected = Stat {
            interval_ms: 1500,
            tickets: 1,
            records: 1,
            chunks: 1,
            events: 1,
            bytes_out: 60,
        };
        assert_eq!(stat, expected);
        // What was told is no reason to wake again.
        assert!(counters.any().now_or_never().is_none());
    }
}
