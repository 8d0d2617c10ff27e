//! What is on fleet's bus and what it means.
//!
//! This crate is pure: no runtime, no files, no environment, no clock and no randomness (its
//! `clippy.toml` bans them). Time and random draws are arguments, so that agent, keeper, CLI,
//! console and the simulation all share the very same rules.
//!
//! Where to look: a job is asked for by a [`spec`], waits as a [`ticket`], and is what the [`record`]s
//! of its journal fold to ([`job`]). [`attempt`] is one try at it on a machine, [`policy`] what
//! becomes of it afterwards, [`lease`] the right to run it, [`keeper`] what the hub sees to, [`damage`]
//! what it does when its store went back in time, [`fill`] when it is nearly full.
//! [`needs`] are what a job requires of a machine, and who satisfies it.
//! [`machine`] and [`event`] are the other facts on the bus, [`envelope`] is around them all;
//! [`projection`] and [`view`] are what watchers make of them.

pub mod attempt;
pub mod damage;
pub mod envelope;
pub mod event;
pub mod fill;
pub mod flood;
pub mod hub;
pub mod ids;
pub mod job;
pub mod keeper;
pub mod lease;
pub mod machine;
pub mod needs;
pub mod outcome;
pub mod policy;
pub mod projection;
pub mod quota;
pub mod record;
pub mod reorder;
mod role;
pub mod spec;
pub mod stat;
pub mod ticket;
pub mod time;
pub mod view;
