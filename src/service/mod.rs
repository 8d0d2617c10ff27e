//! What runs on: the hub, the agent, and both in the background.

pub(crate) mod agent;
pub(crate) mod background;
pub(crate) mod demo;
pub(crate) mod hub;
pub(crate) mod renewal;
pub(crate) mod spool;
