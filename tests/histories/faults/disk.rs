//! A disk so small that it can be filled to the last byte.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::Ran;

/// It goes with the namespace that it is mounted in.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let ran = Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=16m,mode=700", "fleet-test"])
                .arg(&at),
        );
        assert_eq!(ran.code, 0, "mount (needs root): {ran:?}");
        Self(at)
    }

    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}
