//! Skills: what this machine can do, found out by asking its tools.
//!
//! A [`Definition`] says what is looked for and how: those of every agent stand in `builtin.toml`, the
//! operator's own in `skills.d/*.toml` under `FLEET_HOME`. A [`Prober`] asks, each check in a time of
//! its own and with an output of bounded size, remembers on disk what it found, and says what changed.
//! It never asks for more than versions: nothing is installed, logged in or fetched from here.

mod cache;
mod definition;
mod find;
mod finding;
mod http;
mod prober;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub use definition::{
    Definition, DefinitionError, FILE_MAX_BYTES, OWN_MAX, builtin, own, parse, scaffold,
};
pub use find::World;
pub use prober::{Changes, Prober, Which};
