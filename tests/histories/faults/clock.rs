//! A wall clock that jumps: libfaketime in front of a program reads how far it is off from a file,
//! while it runs. Clocks that only run forth are left alone, as in the world.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Ran;

/// Where Debian keeps it; another place can be named.
fn library() -> PathBuf {
    if let Some(named) = std::env::var_os("FLEET_HISTORY_FAKETIME") {
        return named.into();
    }
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .filter(|file| file.exists());
    found.next().unwrap_or_else(|| {
        panic!("no libfaketime: install it, or name it by FLEET_HISTORY_FAKETIME")
    })
}

/// A clock of its own for the programs that are started with it.
pub(crate) struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    pub(crate) fn new(dir: &Path) -> Self {
        let clock = Self {
            file: dir.join("clock"),
            library: library(),
        };
        clock.set(0);
        // What its library shares between processes is named after their numbers, which are others
        // in each namespace.
        let ran = Ran::of(Command::new("mount").args(["-t", "tmpfs", "fleet-test", "/dev/shm"]));
        assert_eq!(ran.code, 0, "mount (needs root): {ran:?}");
        clock
    }

    /// So many seconds off from now on.
    pub(crate) fn set(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Gives it to a command.
    pub(crate) fn give(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_CACHE_DURATION", "1");
    }
}
