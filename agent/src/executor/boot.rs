//! The suspend-inclusive clock: what leases are judged by.

pub use fleet_contract::lease::BootTime;

use super::platform;

/// Now, by this machine's clock, which goes on while the machine sleeps.
#[must_use]
pub fn boot_now() -> BootTime {
    BootTime(platform::boot_nanos())
}
