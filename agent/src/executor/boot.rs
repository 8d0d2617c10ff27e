//! The suspend-inclusive clock: what leases are judged by.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::platform;

/// A point on the machine's clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`), in
/// nanoseconds since boot. It means nothing on another machine or after a reboot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    /// Now, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(platform::boot_nanos())
    }

    /// The point this many nanoseconds after boot.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// This point and `span` more, at most the end of the clock.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This point and `span` less, at least boot itself.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// What has passed since `earlier`; zero where that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
