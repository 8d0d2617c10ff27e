//! Leases: the right of a machine to run attempts, for a time.
//!
//! One lease per machine. It is renewed by compare-and-swap and judged only by clocks that count
//! through suspend ([`BootTime`]); record times and the hub's wall clock are never used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, MachineId};

/// How long a lease lasts after the keeper received its last record.
pub const LEASE: Duration = Duration::from_secs(45);
/// How often it is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);
/// When, counted from sending the last acknowledged renewal, a machine begins to end the attempts
/// that another may take over: TERM here, KILL [`crate::spec::KILL_GRACE`] later, gone 8 s later at
/// the most, which leaves 7 s of margin before the keeper may act.
pub const FENCE_AFTER: Duration = Duration::from_secs(30);

/// A reading of a clock that never goes back and runs on through suspend (`CLOCK_BOOTTIME`), in
/// nanoseconds since some start of its own. Readings of two machines cannot be compared.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// This reading and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// What has passed since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Who holds a machine's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "holder")]
pub enum LeaseRecord {
    /// The machine's agent.
    Agent {
        /// The machine.
        machine: MachineId,
        /// Which `FLEET_HOME` holds it: a restarted agent is the same instance.
        instance: InstanceId,
        /// The host it runs on, to name it when another is refused.
        host: String,
        /// Whether it gave the lease back (it stopped in order).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        released: bool,
    },
    /// The hub: the lease was over and its attempts may be taken over.
    Hub {
        /// The machine.
        machine: MachineId,
    },
}

/// Whether an instance may take a machine's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// Append the own record, expecting this sequence (0: none yet).
    Take {
        /// The lease's last sequence.
        expect: u64,
    },
    /// Another live instance holds it.
    Held {
        /// The host it runs on.
        host: String,
    },
}

/// Whether `me` may take the lease whose last record is `last`. A record of another instance counts
/// as live until it is released or the hub has taken it over.
#[must_use]
pub fn acquire(me: InstanceId, last: Option<(u64, &LeaseRecord)>) -> Acquire {
    match last {
        None => Acquire::Take { expect: 0 },
        Some((seq, LeaseRecord::Hub { .. })) => Acquire::Take { expect: seq },
        Some((
            seq,
            LeaseRecord::Agent {
                instance,
                released,
                host,
                ..
            },
        )) => {
            if *released || *instance == me {
                Acquire::Take { expect: seq }
            } else {
                Acquire::Held { host: host.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u8, released: bool) -> LeaseRecord {
        LeaseRecord::Agent {
            machine: "studio".parse().unwrap(),
            instance: InstanceId::from_random([n; 10]),
            host: "host".to_owned(),
            released,
        }
    }

    #[test]
    fn a_live_lease_of_another_instance_is_refused() {
        let me = InstanceId::from_random([1; 10]);
        assert_eq!(acquire(me, None), Acquire::Take { expect: 0 });
        assert_eq!(
            acquire(me, Some((7, &agent(1, false)))),
            Acquire::Take { expect: 7 }
        );
        assert_eq!(
            acquire(me, Some((7, &agent(2, true)))),
            Acquire::Take { expect: 7 }
        );
        assert_eq!(
            acquire(me, Some((7, &agent(2, false)))),
            Acquire::Held {
                host: "host".to_owned()
            }
        );
    }

    #[test]
    fn the_fence_closes_before_the_lease_is_over() {
        let gone = FENCE_AFTER + crate::spec::KILL_GRACE + Duration::from_secs(3);
        assert!(gone < LEASE);
        assert!(RENEW_EVERY * 2 < FENCE_AFTER);
    }
}
