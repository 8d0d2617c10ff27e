//! What was found the last time, kept on disk: an agent that starts again knows at once what it knew.
//! A file that is damaged or of another fleet is no loss: everything is asked again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use super::find::Program;
use super::finding::Finding;

/// What this file's form is called; another one is not read.
const FORM: u32 = 1;
/// Most bytes of it.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is remembered of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Of which definition: another one may find another thing.
    pub(super) definition: u64,
    /// The program that was asked.
    pub(super) program: Option<Program>,
    /// When it was looked at last.
    pub(super) checked_at: Time,
    /// When its program was run, or its server asked, last.
    pub(super) asked_at: Time,
    /// What was found.
    pub(super) finding: Finding,
}

impl Entry {
    /// Whether it says the same as another but for when it was looked at: of a server, which is asked
    /// each time, when it was asked as well.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.definition == other.definition
            && self.program == other.program
            && self.finding == other.finding
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    form: u32,
    /// When the machine was started, in seconds of its clock.
    #[serde(default)]
    booted_at: u64,
    skills: BTreeMap<String, Entry>,
}

/// What was kept, or nothing, and when the machine had been started then.
pub(super) fn load(path: &Path) -> (BTreeMap<String, Entry>, u64) {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size == 0 || size > MAX_BYTES {
        return Default::default();
    }
    let kept: Option<Kept> = std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    kept.filter(|kept| kept.form == FORM)
        .map(|kept| (kept.skills, kept.booted_at))
        .unwrap_or_default()
}

/// Keeps it: as a whole or not at all.
pub(super) fn store(
    path: &Path,
    skills: BTreeMap<String, Entry>,
    booted_at: u64,
) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(&Kept {
        form: FORM,
        booted_at,
        skills,
    })?;
    let temporary = path.with_extension("new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
