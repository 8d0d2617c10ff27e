//! Which store a hub has, and how far each of its streams is read. A store that was replaced or put
//! back says so by its epoch; one that nobody looked after, by ending before what was read.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fleet_contract::time::Time;
use fleet_nats::bus::{Bus, BusError, Usage};
use fleet_nats::subject::stream;

use crate::clock::{Ahead, Clock};

/// The sequences after which the readers go on.
#[derive(Debug, Default)]
pub(super) struct Positions {
    pub(super) journal: AtomicU64,
    pub(super) presence: AtomicU64,
    pub(super) flow: AtomicU64,
}

impl Positions {
    pub(super) fn reset(&self) {
        for position in [&self.journal, &self.presence, &self.flow] {
            position.store(0, Ordering::Relaxed);
        }
    }

    fn all(&self) -> [u64; 3] {
        [&self.journal, &self.presence, &self.flow].map(|position| position.load(Ordering::Relaxed))
    }
}

/// What a hub says of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Store {
    /// Its epoch, as far as it tells one.
    pub(super) epoch: Option<u64>,
    /// The last sequences of journal, presence and flow.
    pub(super) last: [u64; 3],
}

impl Store {
    /// Asks for it. What the journal's stream says comes with it.
    pub(super) async fn ask(bus: &Bus, journal: &Usage) -> Result<Self, BusError> {
        let (presence, flow) = tokio::try_join!(bus.usage(stream::PRES), bus.usage(stream::FLOW))?;
        Ok(Self {
            epoch: epoch(bus).await?,
            last: [journal.last_seq, presence.last_seq, flow.last_seq],
        })
    }

    /// Whether it is another one than the one of which so much was read in an epoch.
    pub(super) fn is_another(&self, epoch: Option<u64>, read: &Positions) -> bool {
        let begun = epoch.zip(self.epoch).is_some_and(|(was, is)| was != is);
        let ends = read.all().into_iter().zip(self.last);
        begun || ends.into_iter().any(|(read, last)| last < read)
    }
}

/// The hub's epoch; none where it tells none, as older ones do, or not in words that are known here.
pub(super) async fn epoch(bus: &Bus) -> Result<Option<u64>, BusError> {
    match bus.hub_word().await {
        Ok(word) => Ok(word.map(|word| word.epoch)),
        Err(error @ (BusError::NoAnswer { .. } | BusError::Closed(_))) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The console's clock, and how far it is ahead of the hub's.
#[derive(Debug)]
pub(super) struct Clocks {
    clock: Clock,
    ahead: AtomicI64,
}

impl Clocks {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            ahead: AtomicI64::new(0),
        }
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The hub told its time when it was asked at this one.
    pub(super) fn told(&self, asked: Time, hub: Time) {
        let ahead = Ahead::found(asked, self.now(), hub);
        self.ahead.store(ahead.as_micros(), Ordering::Relaxed);
    }

    /// What the hub's time is here.
    pub(super) fn here(&self, hub: Time) -> Time {
        Ahead::from_micros(self.ahead.load(Ordering::Relaxed)).here(hub, self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_another_one_by_its_epoch_or_where_any_stream_ends_before_what_was_read() {
        let read = Positions::default();
        for (position, seq) in [(&read.journal, 10), (&read.presence, 20), (&read.flow, 30)] {
            position.store(seq, Ordering::Relaxed);
        }
        let store = |epoch, last| Store { epoch, last };
        let same = store(Some(1), [10, 20, 31]);
        assert!(!same.is_another(Some(1), &read));
        assert!(!same.is_another(None, &read), "an epoch that is told first");
        assert!(!store(None, same.last).is_another(Some(1), &read));
        assert!(store(Some(2), same.last).is_another(Some(1), &read));
        for last in [[9, 20, 30], [10, 19, 30], [10, 20, 29]] {
            assert!(store(Some(1), last).is_another(Some(1), &read), "{last:?}");
        }
        read.reset();
        assert!(!store(Some(1), [0, 0, 0]).is_another(Some(1), &read));
    }
}
