//! The whole of fleet from outside: the real binary, a real nats-server, real agents, each fleet
//! in temporary folders of its own on free ports. See [`harness`] for how to write one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

mod agents;
mod bad_input;
mod bytes;
mod console;
mod damage;
mod decide;
mod dispatch;
mod endings;
mod faults;
mod fixtures;
mod fleet;
mod harness;
mod json;
mod lanes;
mod moved;
mod needs;
mod output;
mod peers;
mod promises;
mod recorder;
mod retention;
mod roles;
mod services;
mod shift;
mod skills;
mod spool;
mod spool_bounds;
mod spool_dispatch;
mod superseded;
mod telling;
mod terminal;
mod unsent;
mod up_console;
