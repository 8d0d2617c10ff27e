//! The project that the current folder is in: the folder of the nearest `.fleet.toml`, its roles,
//! and where it lies on each machine. Settings in the same file are read by `config`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fleet_contract::ids::MachineId;
use serde::Deserialize;

use crate::config::{FILE_MAX_BYTES, find_project};
use crate::failure::Failure;

/// A project.
#[derive(Debug)]
pub(crate) struct Project {
    file: PathBuf,
    root: PathBuf,
    paths: BTreeMap<MachineId, String>,
    roles: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(default)]
    project: Table,
    #[serde(default)]
    roles: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    paths: BTreeMap<String, String>,
}

impl Project {
    /// The project of this folder; none where no `.fleet.toml` is in it or above it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn of(folder: Option<&Path>) -> Result<Option<Self>, Failure> {
        let file = folder.and_then(find_project);
        file.map(|file| Self::read(&file)).transpose()
    }

    /// The project of this file.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::config(format!("{}: {why}", file.display()));
        if let Some(why) = not_ours(file) {
            return Err(wrong(why));
        }
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(FILE_MAX_BYTES).read_to_string(&mut text))
            .map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let read: Text = toml::from_str(&text).map_err(|e| wrong(e.message().to_owned()))?;
        let mut paths = BTreeMap::new();
        for (machine, path) in read.project.paths {
            let at = |why: String| wrong(format!("project.paths.{machine}: {why}"));
            let id: MachineId = machine.parse().map_err(|e| at(format!("{e}")))?;
            if !(path.starts_with('/') || path == "~" || path.starts_with("~/")) {
                return Err(at(format!(
                    "{path:?} is relative: give an absolute path, or one that starts with ~/"
                )));
            }
            paths.insert(id, path);
        }
        Ok(Self {
            file: file.to_owned(),
            root: file.parent().unwrap_or(Path::new("/")).to_owned(),
            paths,
            roles: read.roles,
        })
    }

    /// Its file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Its folder here.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The tables of its roles.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (&str, &toml::Value)> {
        self.roles
            .iter()
            .map(|(name, table)| (name.as_str(), table))
    }

    /// What a folder of this project is called on the machines that have the project elsewhere.
    pub(crate) fn elsewhere(&self, folder: &Path) -> BTreeMap<MachineId, String> {
        let Some(below) = folder.strip_prefix(&self.root).ok().and_then(Path::to_str) else {
            return BTreeMap::new();
        };
        let named = |path: &str| match below {
            "" => path.to_owned(),
            below => format!("{}/{below}", path.trim_end_matches('/')),
        };
        let paths = self.paths.iter();
        paths
            .map(|(machine, path)| (machine.clone(), named(path)))
            .collect()
    }
}

/// Why the file is not believed: somebody else could have put it there, in a folder that many share,
/// for whoever dispatches below it.
fn not_ours(file: &Path) -> Option<String> {
    let found = std::fs::metadata(file).ok()?;
    let me = rustix::process::getuid().as_raw();
    if found.uid() != me && found.uid() != 0 {
        let owner = found.uid();
        return Some(format!(
            "belongs to user {owner} and not to you, so its roles and paths are not used: chown it, \
             or dispatch from elsewhere"
        ));
    }
    let shared = found.mode() & 0o002 != 0;
    shared.then(|| {
        "anybody may write it, so its roles and paths are not used: chmod o-w it".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Project, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".fleet.toml");
        std::fs::write(&file, text).unwrap();
        let shown = format!("{}/", dir.path().display());
        Project::read(&file).map_err(|e| e.render(false).unwrap().replace(&shown, ""))
    }

    #[test]
    fn a_folder_of_the_project_has_another_name_on_machines_that_say_so() {
        let project =
            read("hub = \"h\"\n[project.paths]\nstudio = \"/Users/ana/app/\"\nmini = \"~\"");
        let project = project.unwrap();
        let names = |below: &str| {
            let folder = project.root().join(below);
            let names = project.elsewhere(&folder).into_iter();
            names.map(|(m, p)| format!("{m}:{p}")).collect::<Vec<_>>()
        };
        assert_eq!(
            names("ops/x"),
            ["mini:~/ops/x", "studio:/Users/ana/app/ops/x"]
        );
        assert_eq!(names(""), ["mini:~", "studio:/Users/ana/app/"]);
        assert!(project.elsewhere(Path::new("/elsewhere")).is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            (
                "[project.paths]\nstudio = \"app\"",
                "project.paths.studio: \"app\" is relative: give an absolute path, or one that starts with ~/",
            ),
            (
                "[project]\npath = \"x\"",
                "unknown field `path`, expected `paths`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error, format!("fleet: .fleet.toml: {why}"));
        }
        assert!(
            read("[project.paths]\n\"S T\" = \"/x\"")
                .unwrap_err()
                .contains("project.paths.S T: ")
        );
    }
}
