//! The shape of the code, kept by a test: which crate may depend on which, where a library may
//! be named, how long a file may grow, what lies at the top. It reads `cargo metadata` and the
//! files themselves; it builds and runs nothing of fleet.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A few hundred lines are the aim; a file that needs more than this is two files.
const MOST_LINES: usize = 800;

/// The same for a file of tests, most of which is tables and scenarios.
const MOST_LINES_OF_TESTS: usize = 900;

/// Who may depend on whom. `fleet-tui` and `fleet-agent` never meet.
const DIRECTION: &[(&str, &[&str])] = &[
    ("fleet-contract", &[]),
    ("fleet-nats", &["fleet-contract"]),
    ("fleet-agent", &["fleet-contract", "fleet-nats"]),
    ("fleet-tui", &["fleet-contract", "fleet-nats"]),
    // Nobody depends on it.
    (
        "fleet-fuzz",
        &["fleet-agent", "fleet-contract", "fleet-nats", "fleet-tui"],
    ),
    (
        "fleet",
        &["fleet-agent", "fleet-contract", "fleet-nats", "fleet-tui"],
    ),
];

/// Libraries with one owner.
const OWNED: &[(&str, &str)] = &[
    ("async-nats", "fleet-nats"),
    ("nkeys", "fleet-nats"),
    ("ratatui", "fleet-tui"),
    ("crossterm", "fleet-tui"),
    ("clap", "fleet"),
];

/// All that the contract may use: neither a runtime nor anything that reads a clock, a file, the
/// environment or a source of randomness by itself.
const CONTRACT_MAY_USE: &[&str] = &[
    "data-encoding",
    "jiff",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
];

/// All that lies at the top of the repository.
const TOP: &[&str] = &[
    ".ci",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "clippy.toml",
    "docs",
    "nats",
    "rustfmt.toml",
    "src",
    "tests",
    "tui",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each member of the workspace as `cargo metadata` describes it.
fn members() -> BTreeMap<String, Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked"])
        .args(["--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "cargo metadata: {error}");
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            (
                package["name"].as_str().unwrap().to_owned(),
                package.clone(),
            )
        })
        .collect()
}

/// What a package depends on; `shipped` leaves out what only its tests use.
fn dependencies(package: &Value, shipped: bool) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter()
        .filter(|dependency| !shipped || dependency["kind"] != "dev")
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The files of the repository: those that git knows, or, where this is no repository, all but
/// the build folder.
fn files() -> Vec<PathBuf> {
    let git = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    match git {
        Ok(out) if out.status.success() && !out.stdout.is_empty() => {
            let names = String::from_utf8(out.stdout).unwrap();
            let names = names.split('\0').filter(|name| !name.is_empty());
            // A file that was deleted and not yet committed is still in git's list.
            names
                .map(PathBuf::from)
                .filter(|name| root().join(name).exists())
                .collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(Path::new(""), &mut found);
            found
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let built = path == Path::new("target") || path == Path::new(".git");
        if entry.file_type().unwrap().is_dir() {
            if !built {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn text(file: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).unwrap()).ok()
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let files = files().into_iter().filter(|f| has_extension(f, "rs"));
    let found: Vec<_> = files
        .map(|file| {
            let text = text(&file).unwrap_or_else(|| panic!("{}: not UTF-8", file.display()));
            (file, text)
        })
        .collect();
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

#[test]
fn dependencies_run_one_way() {
    let members = members();
    let known: BTreeSet<&str> = DIRECTION.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(found, known, "the members of the workspace");
    for (name, allowed) in DIRECTION {
        for dependency in dependencies(&members[*name], false) {
            let inside = known.contains(dependency.as_str());
            // A crate may name itself to switch on a feature for its own tests.
            let fine = dependency == *name || allowed.contains(&dependency.as_str());
            assert!(!inside || fine, "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn a_library_with_an_owner_is_named_by_it_alone() {
    let members = members();
    for (library, owner) in OWNED {
        let users: Vec<&String> = members
            .iter()
            .filter(|(_, package)| dependencies(package, true).contains(*library))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(users, [*owner], "who uses {library}");
    }
}

#[test]
fn the_contract_is_pure() {
    let contract = &members()["fleet-contract"];
    let allowed: BTreeSet<String> = CONTRACT_MAY_USE.iter().map(|&s| s.to_owned()).collect();
    let found = dependencies(contract, true);
    let more: Vec<_> = found.difference(&allowed).collect();
    assert!(more.is_empty(), "the contract may not use {more:?}");
    // The clocks and files of std are banned by the contract's own clippy.toml.
    let bans = text(Path::new("nats/contract/clippy.toml")).unwrap();
    for ban in ["SystemTime::now", "Instant::now", "env::var", "fs::read"] {
        assert!(bans.contains(ban), "nats/contract/clippy.toml bans {ban}");
    }
}

#[test]
fn every_crate_follows_the_lints() {
    for (name, package) in members() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let manifest = std::fs::read_to_string(manifest).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} does not take the workspace's lints"
        );
    }
    let workspace = text(Path::new("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}

#[test]
fn every_file_says_what_it_is_for() {
    for (file, text) in rust_files() {
        assert!(
            text.starts_with("//! "),
            "{} does not begin with a comment on the module",
            file.display()
        );
    }
}

#[test]
fn no_file_grows_without_end() {
    for (file, text) in rust_files() {
        let lines = text.lines().count();
        let tests = file.components().any(|part| part.as_os_str() == "tests");
        let most = if tests {
            MOST_LINES_OF_TESTS
        } else {
            MOST_LINES
        };
        assert!(
            lines <= most,
            "{}: {lines} lines, more than {most}: make it two files",
            file.display()
        );
    }
}

/// Neither the path of somebody's machine nor the host of a package registry belongs here:
/// both hold on one machine alone. `Cargo.lock` is written by cargo.
#[test]
fn no_file_names_somebodys_machine() {
    // In two parts, so that this file does not name them.
    let banned: Vec<String> = [
        ("/ro", "ot/"),
        ("/wo", "rk/wt"),
        ("/wo", "rk/main"),
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("crates", ".io/"),
        ("arti", "factory"),
        ("index.", "crates.io"),
    ]
    .iter()
    .map(|(a, b)| format!("{a}{b}"))
    .collect();
    for file in files() {
        if file == Path::new("Cargo.lock") {
            continue;
        }
        let Some(text) = text(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in &banned {
                assert!(
                    !line.contains(word.as_str()),
                    "{}:{}: {word} does not belong here",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn the_top_holds_what_is_settled() {
    let found: BTreeSet<String> = files()
        .iter()
        .filter_map(|file| file.components().next())
        .map(|first| first.as_os_str().to_string_lossy().into_owned())
        .collect();
    let settled: BTreeSet<String> = TOP.iter().map(|&name| name.to_owned()).collect();
    let more: Vec<_> = found.difference(&settled).collect();
    assert!(more.is_empty(), "{more:?} do not belong at the top");
}
