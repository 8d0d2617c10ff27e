//! What a machine counted in the last second: short summaries for whoever watches, told on core
//! NATS and never stored. Nothing goes by them but pictures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kind of a summary's envelope.
pub const STAT_KIND: &str = "stat";
/// Shortest time between two summaries of a machine. One in which nothing was counted is not told.
pub const STAT_EVERY: Duration = Duration::from_secs(1);

/// What a machine counted since its last summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stat {
    /// How long that was, in milliseconds.
    pub interval_ms: u64,
    /// Tickets that were delivered to it.
    #[serde(default)]
    pub tickets: u64,
    /// Records of the journal that the hub took from it.
    #[serde(default)]
    pub records: u64,
    /// Chunks of output that the hub took from it.
    #[serde(default)]
    pub chunks: u64,
    /// Events that the hub took from it.
    #[serde(default)]
    pub events: u64,
    /// Bytes of all those.
    #[serde(default)]
    pub bytes_out: u64,
}

impl Stat {
    /// Messages to the hub.
    #[must_use]
    pub fn messages_out(&self) -> u64 {
        let sum = self.records.saturating_add(self.chunks);
        sum.saturating_add(self.events)
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tickets == 0 && self.messages_out() == 0
    }
}
