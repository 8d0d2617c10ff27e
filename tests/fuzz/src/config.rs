//! Settings: their files alone.

#[path = "../../../src/config/console.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
pub(crate) mod console;
#[path = "../../../src/config/file.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
pub(crate) mod file;
#[path = "../../../src/config/keys.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
pub(crate) mod keys;

/// As in the command line.
pub(crate) const PROJECT_FILE: &str = ".fleet.toml";
/// As in the command line.
pub(crate) const FILE_MAX_BYTES: u64 = 1024 * 1024;
