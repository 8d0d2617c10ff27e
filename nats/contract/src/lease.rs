//! Leases: the right of a machine to run attempts, for a time.
//!
//! One lease per machine. It is renewed by compare-and-swap and judged only by clocks that count
//! through suspend ([`BootTime`]); record times and the hub's wall clock are never used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, InstanceId, MachineId};

/// How long a lease lasts after the keeper received its last record.
pub const LEASE: Duration = Duration::from_secs(45);
/// How often it is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);
/// When, counted from sending the last acknowledged renewal, a machine begins to end the attempts
/// that another may take over: TERM here, KILL [`crate::spec::KILL_GRACE`] later, gone 8 s later at
/// the most, which leaves 7 s of margin before the keeper may act.
pub const FENCE_AFTER: Duration = Duration::from_secs(30);

/// A machine hands a ticket to an attempt only while it sent the last acknowledged renewal less
/// than this ago, and only one that came by a pull made since the lease was taken or last lapsed by
/// this measure; any other goes back. A machine that was asleep or cut off learns by this, and by
/// nothing else, that what lies in its buffers is old.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(20);

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

    /// This reading and `span` less, at least the clock's start.
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

/// The highest sequence of the journal that somebody has seen stored, and the epoch it was seen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Mark {
    /// The hub's epoch.
    pub epoch: u64,
    /// The sequence.
    pub seq: u64,
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
        /// The sequence of the record by which this run of the agent took the lease: none in that
        /// very record, and the same in every renewal of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
        /// The attempts of earlier terms that the holder still answers for: all that its executor
        /// knew when it took the lease and that it had claimed itself. The same in every renewal.
        /// An earlier attempt that is not here is nobody's, and the keeper gives it up.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<AttemptId>,
        /// The highest that the holder has ever seen of the journal, also in earlier runs of it: a
        /// hub that has less has lost its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Mark>,
    },
    /// The hub: the lease was over and its attempts may be taken over.
    Hub {
        /// The machine.
        machine: MachineId,
    },
}

impl LeaseRecord {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &MachineId {
        match self {
            Self::Agent { machine, .. } | Self::Hub { machine } => machine,
        }
    }

    /// The term of the lease after this record at `seq`: the sequence of the record by which its
    /// holder took it. It only grows, so that claims under an earlier one can be told apart
    /// whatever order the two streams are read in.
    ///
    /// An agent takes the lease anew, and so begins a term, when it starts and whenever the hub
    /// has taken it. Between making up `held` and the answer it judges no ticket.
    #[must_use]
    pub fn term(&self, seq: u64) -> u64 {
        match self {
            Self::Agent { term, .. } => term.unwrap_or(seq),
            Self::Hub { .. } => seq,
        }
    }

    /// Whether an attempt that was claimed under term `claimed` is given up by this record at
    /// `seq`: nobody answers for it any more. 0 is a claim that does not say its term.
    #[must_use]
    pub fn gives_up(&self, seq: u64, claimed: u64, attempt: AttemptId) -> bool {
        match self {
            Self::Hub { .. } => claimed < seq,
            Self::Agent { held, .. } => {
                claimed != 0 && claimed < self.term(seq) && !held.contains(&attempt)
            }
        }
    }
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
            term: None,
            held: Vec::new(),
            seen: None,
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
    fn a_new_term_gives_up_what_its_holder_does_not_know() {
        let known = AttemptId::from_random([1; 10]);
        let unknown = AttemptId::from_random([2; 10]);
        let mut record = agent(1, false);
        let LeaseRecord::Agent { held, term, .. } = &mut record else {
            unreachable!();
        };
        held.push(known);
        *term = Some(20);
        assert!(record.gives_up(25, 19, unknown));
        assert!(!record.gives_up(25, 19, known), "it is held");
        assert!(
            !record.gives_up(25, 20, unknown),
            "claimed in this very term"
        );
        assert!(
            !record.gives_up(25, 30, unknown),
            "this record is the older one"
        );
        assert!(!record.gives_up(25, 0, unknown), "the claim does not say");
        assert_eq!(
            agent(1, false).term(9),
            9,
            "the taking record begins the term"
        );
        let hub = LeaseRecord::Hub {
            machine: "studio".parse().unwrap(),
        };
        assert!(hub.gives_up(25, 20, known));
        assert!(hub.gives_up(25, 0, known));
        assert!(
            !hub.gives_up(25, 26, known),
            "the agent has taken it back since"
        );
    }

    #[test]
    fn the_fence_closes_before_the_lease_is_over() {
        let gone = FENCE_AFTER + crate::spec::KILL_GRACE + Duration::from_secs(3);
        assert!(gone < LEASE);
        assert!(RENEW_EVERY * 2 < FENCE_AFTER);
    }
}
