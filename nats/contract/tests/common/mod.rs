//! What the contract's tests share: short names for ids and jobs.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]

use fleet_contract::ids::{AttemptId, JobId, MachineId, TicketId};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;

pub fn job_id(n: u8) -> JobId {
    JobId::from_random([n; 10])
}

pub fn attempt_id(n: u8) -> AttemptId {
    AttemptId::from_random([n; 10])
}

pub fn ticket_id(n: u8) -> TicketId {
    TicketId::from_random([n; 10])
}

pub fn machine(name: &str) -> MachineId {
    name.parse().unwrap()
}

pub fn spec(target: Target) -> JobSpec {
    JobSpec::new(
        vec!["true".to_owned()],
        target,
        Time::from_micros(0),
        "ana@studio".to_owned(),
    )
}
