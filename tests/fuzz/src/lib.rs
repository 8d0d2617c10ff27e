//! What is fuzzed: each target takes any bytes as what a peer, a disk or a person may give, and
//! panics where something that must always hold does not.
//!
//! `cargo test -p fleet-fuzz` replays the committed inputs, `.ci/run fuzz` looks for new ones. An
//! input that made a target panic is kept in `corpus/<target>` for ever.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is what the fuzzer looks for"
)]

mod configuration;
mod envelope;
mod input;
mod journal;

// The command line is no library, and needs none but for this: the files that read settings, as
// they are, with no more around them than they ask for.
mod args;
mod config;
#[path = "../../../src/failure.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
mod failure;
mod output;
#[path = "../../../src/prefix.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
mod prefix;
#[path = "../../../src/words.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
mod words;

/// One thing that takes bytes from somewhere.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes; panics where something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made from real messages and files.
    pub seeds: fn() -> Vec<Seed>,
}

/// An input with a name.
pub type Seed = (String, Vec<u8>);

/// Every target.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "envelope",
        run: envelope::run,
        seeds: envelope::seeds,
    },
    Target {
        name: "journal",
        run: journal::run,
        seeds: journal::seeds,
    },
    Target {
        name: "spool",
        run: |data| in_folder(|dir| fleet_agent::fuzzing::spool::run(dir, data)),
        seeds: || named(fleet_agent::fuzzing::spool::seeds(&scratch())),
    },
    Target {
        name: "executor",
        run: |data| in_folder(|dir| fleet_agent::fuzzing::executor::run(dir, data)),
        seeds: || named(fleet_agent::fuzzing::executor::seeds(&scratch())),
    },
    Target {
        name: "configuration",
        run: configuration::run,
        seeds: configuration::seeds,
    },
];

/// The target of this name.
///
/// # Panics
/// Where there is none: the names are said.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    const ALL: &[Target] = &TARGETS;
    let found = ALL.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
        panic!("no target {name:?}: set FLEET_FUZZ_TARGET to one of {names:?}")
    })
}

fn named(seeds: Vec<(&'static str, Vec<u8>)>) -> Vec<Seed> {
    let seeds = seeds.into_iter();
    seeds
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

/// A folder of its own, in memory where the system has such a place: the disk is not what is tried.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn scratch() -> std::path::PathBuf {
    folder().keep()
}

fn in_folder(run: impl FnOnce(&std::path::Path)) {
    run(folder().path());
}
