//! Every committed input through its target: what the fuzzer once found stays mended.
#![expect(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::path::{Path, PathBuf};

use fleet_fuzz::{TARGETS, Target, target};

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

fn replay(name: &str) {
    let target = target(name);
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(inputs.len() > 3, "{name}: only {} inputs", inputs.len());
    for input in inputs {
        // Shown where it panics.
        println!("{}", input.display());
        (target.run)(&std::fs::read(input).unwrap());
    }
    (target.run)(&[]);
}

#[test]
fn envelope() {
    replay("envelope");
}

#[test]
fn journal() {
    replay("journal");
}

#[test]
fn spool() {
    replay("spool");
}

#[test]
fn executor() {
    replay("executor");
}

#[test]
fn configuration() {
    replay("configuration");
}

/// Writes the inputs that are made from real messages and files anew; leaves those alone that the
/// fuzzer found.
#[test]
#[ignore = "writes into the repository: cargo test -p fleet-fuzz write_the_seeds -- --ignored"]
fn write_the_seeds() {
    for target in &TARGETS {
        let folder = corpus(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in (target.seeds)() {
            std::fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
        }
    }
}
