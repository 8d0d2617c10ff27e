//! The clock of this crate: the bus's own.

pub(crate) use fleet_nats::clock::now;
