//! Where a program is in the world that jobs have, and what tells that it is another one now. Asks the
//! disk, and runs nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::{Deserialize, Serialize};

/// What tools are asked in: the variables and the folder that a job of this machine has.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The variables.
    pub env: BTreeMap<String, String>,
    /// The home of the user; also the folder in which tools are asked.
    pub home: PathBuf,
    /// `linux`, `macos`.
    pub os: String,
    /// Memory of the machine, in bytes: also that of graphics processors that share it.
    pub mem_total: u64,
    /// When the machine was started, in seconds of its clock; 0 where that is not known.
    pub booted_at: u64,
}

impl World {
    /// A variable that says something.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        let value = self.env.get(name).map(String::as_str);
        value.filter(|value| !value.trim().is_empty())
    }

    /// A path as it stands in a definition: `~/x`, `$NAME/x`, `/x`. None where the variable says
    /// nothing.
    pub(super) fn path(&self, text: &str) -> Option<PathBuf> {
        if let Some(rest) = text.strip_prefix("~/") {
            return Some(self.home.join(rest));
        }
        if let Some(rest) = text.strip_prefix('$') {
            let (name, rest) = rest.split_once('/')?;
            return Some(Path::new(self.var(name)?).join(rest));
        }
        Some(PathBuf::from(text))
    }

    /// The first of these programs that is there.
    pub(super) fn find(&self, programs: &[String]) -> Option<Program> {
        programs.iter().find_map(|name| self.find_one(name))
    }

    fn find_one(&self, name: &str) -> Option<Program> {
        if name.contains('/') {
            let path = self.path(name)?;
            return Program::at(&self.home.join(path), &self.os);
        }
        let path = self.var("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        path.split(':')
            .filter(|folder| !folder.is_empty())
            .find_map(|folder| Program::at(&self.home.join(folder).join(name), &self.os))
    }
}

/// A program, and what tells that it is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Program {
    fn at(path: &Path, os: &str) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let runs = file.is_file()
            && file.mode() & 0o111 != 0
            && rustix::fs::access(path, Access::EXEC_OK).is_ok();
        if !runs || os == "macos" && is_empty_shell(path) {
            return None;
        }
        Some(Self {
            path: path.to_owned(),
            modified: (file.mtime(), file.mtime_nsec()),
            size: file.size(),
            inode: file.ino(),
        })
    }
}

/// Programs that macOS has in any case. Where nothing is behind them, to run one asks the person at the
/// screen to install something.
fn is_empty_shell(path: &Path) -> bool {
    if path.parent() != Some(Path::new("/usr/bin")) {
        return false;
    }
    let there = |path: &str| Path::new(path).exists();
    match path.file_name().and_then(|name| name.to_str()) {
        Some("java") => std::fs::read_dir("/Library/Java/JavaVirtualMachines")
            .is_ok_and(|mut entries| entries.next().is_none()),
        Some("git" | "make" | "gmake" | "clang" | "gcc" | "swift" | "xcodebuild" | "python3") => {
            !there("/Library/Developer/CommandLineTools") && !there("/var/db/xcode_select_link")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_that_can_be_run_is_found_and_another_one_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let put = |name: &str, text: &str, mode: u32| {
            std::fs::write(bin.join(name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(bin.join(name), mode).unwrap();
        };
        put("tool", "one", 0o755);
        put("plain", "no program", 0o644);
        let env = [("PATH", "/nowhere::bin"), ("TOOLS", "bin"), ("EMPTY", "")];
        let world = World {
            env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            home: home.path().to_owned(),
            os: "linux".to_owned(),
            mem_total: 0,
            booted_at: 0,
        };
        let find = |name: &str| world.find(&["no-such".to_owned(), name.to_owned()]);
        let found = find("tool").unwrap();
        assert_eq!(found.path, bin.join("tool"));
        assert_eq!(find("~/bin/tool").unwrap().path, found.path);
        assert_eq!(find("$TOOLS/tool").unwrap().path, found.path);
        for none in [
            "plain",
            "$EMPTY/tool",
            "$NOT_SET/tool",
            "/nowhere/tool",
            "bin",
        ] {
            assert_eq!(find(none), None, "{none}");
        }
        put("tool", "another", 0o755);
        assert_ne!(find("tool"), Some(found));
    }
}
