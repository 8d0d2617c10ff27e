//! What is on fleet's bus and what it means.
//!
//! This crate is pure: no runtime, no files, no environment, no clock and no randomness (its
//! `clippy.toml` bans them). Time and random draws are arguments, so that agent, keeper, CLI,
//! console and the simulation all share the very same rules.

pub mod attempt;
pub mod envelope;
pub mod event;
pub mod ids;
pub mod job;
pub mod keeper;
pub mod lease;
pub mod machine;
pub mod outcome;
pub mod policy;
pub mod projection;
pub mod record;
pub mod reorder;
pub mod spec;
pub mod ticket;
pub mod time;
pub mod view;
