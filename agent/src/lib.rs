//! The headless worker: the agent (the link to the hub) and the executor (the parent of jobs),
//! two processes of one binary.

pub mod agent;
pub mod executor;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod skills;
mod spool;
pub mod world;
