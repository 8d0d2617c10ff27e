//! What an agent has to tell and keeps on its disk until the hub has it: events, in order, each with
//! its place (run of the agent, count) fixed and flushed before anybody may send it.
//!
//! [`segment`] is the format, [`store`] the files. What sends is the agent's; output and results of
//! jobs are not here, but with the executor, which is their spool. Here nothing is thrown away
//! to make room: over its bound a spool takes no more and counts what it refused.

pub(crate) mod segment;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use store::{Damage, Limits, Refused, Spooled, Store, Waiting};
