//! Where roles lie: the operator's own in `roles.d`, which may stand for one of those that come with
//! fleet, and a project's, which may not take a name that means something already: who types
//! `fleet dispatch agent` in a clone of somebody else's gets the role that he knows. A broken one is
//! told where it is named and hides nobody else.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::definition::{Definition, is_name};
use super::{Origin, Role};
use crate::failure::Failure;
use crate::prefix;
use crate::project::Project;

/// Largest file of a role, in bytes.
const FILE_MAX_BYTES: u64 = 256 * 1024;
/// Most files that are read in `roles.d`.
const FILES_MAX: usize = 1000;

/// The roles that come with fleet.
const SHIPPED: [(&str, &str); 9] = [
    ("agent", include_str!("shipped/agent.toml")),
    ("flutter-build", include_str!("shipped/flutter-build.toml")),
    ("git-pull", include_str!("shipped/git-pull.toml")),
    ("gradle-build", include_str!("shipped/gradle-build.toml")),
    ("lint", include_str!("shipped/lint.toml")),
    ("npm-build", include_str!("shipped/npm-build.toml")),
    ("script", include_str!("shipped/script.toml")),
    ("test", include_str!("shipped/test.toml")),
    ("xcode-build", include_str!("shipped/xcode-build.toml")),
];

/// A definition that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Where it is.
    pub(crate) origin: Origin,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// All roles.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    roles: BTreeMap<String, Result<Role, Broken>>,
    /// What else lies in `roles.d` and is no role.
    stray: Vec<Broken>,
}

impl Catalogue {
    /// Reads what there is.
    pub(crate) fn load(roles_d: Option<&Path>, project: Option<&Project>) -> Self {
        let mut all = Self::default();
        for (name, text) in SHIPPED {
            all.add(name, Origin::Shipped, Definition::parse(text));
        }
        if let Some(folder) = roles_d {
            all.add_folder(folder);
        }
        for (name, table) in project.into_iter().flat_map(Project::roles) {
            let origin = project.map_or(Origin::Shipped, |p| Origin::Project(p.file().to_owned()));
            if let Some(Ok(Role { origin: whose, .. }) | Err(Broken { origin: whose, .. })) =
                all.roles.get(name)
            {
                let why = format!("{name} is the name of another role, from {whose}: not used");
                all.stray.push(Broken { origin, why });
                continue;
            }
            all.add(name, origin, Definition::of(table.clone()));
        }
        all
    }

    fn add_folder(&mut self, folder: &Path) {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "toml"))
                .collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                let origin = Origin::File(folder.to_owned());
                let why = format!("cannot be read: {e}");
                return self.stray.push(Broken { origin, why });
            }
        };
        files.sort();
        if files.len() > FILES_MAX {
            let why = format!(
                "{} files, of which the first {FILES_MAX} are read",
                files.len()
            );
            let origin = Origin::File(folder.to_owned());
            self.stray.push(Broken { origin, why });
            files.truncate(FILES_MAX);
        }
        for path in files {
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let name = name.unwrap_or_default().to_owned();
            let definition = read(&path).and_then(|text| Definition::parse(&text));
            self.add(&name, Origin::File(path), definition);
        }
    }

    fn add(&mut self, name: &str, origin: Origin, definition: Result<Definition, String>) {
        if !is_name(name) {
            let why =
                format!("{name:?} is no name for a role: use a-z, 0-9, - and _, a letter first");
            return self.stray.push(Broken { origin, why });
        }
        let role = match definition {
            Ok(definition) => Ok(Role {
                name: name.to_owned(),
                origin,
                definition,
            }),
            Err(why) => Err(Broken { origin, why }),
        };
        self.roles.insert(name.to_owned(), role);
    }

    /// Whether this names a role, a broken one too.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.roles.contains_key(name)
    }

    /// The roles, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Result<&Role, &Broken>)> {
        let roles = self.roles.iter();
        roles.map(|(name, role)| (name.as_str(), role.as_ref()))
    }

    /// What lies among the roles and is none.
    pub(crate) fn stray(&self) -> &[Broken] {
        &self.stray
    }

    /// The role of this name.
    ///
    /// # Errors
    /// There is none, or it is broken.
    pub(crate) fn get(&self, name: &str) -> Result<&Role, Failure> {
        match self.roles.get(name) {
            Some(Ok(role)) => Ok(role),
            Some(Err(broken)) => Err(Failure::config(format!(
                "role {name} cannot be read: {}: {}",
                broken.origin, broken.why
            ))),
            None => Err(self.unknown(name)),
        }
    }

    /// The nearest name to one that nobody has.
    pub(crate) fn nearest(&self, name: &str) -> Option<&str> {
        let near = prefix::nearest(name, self.roles.keys().map(String::as_str));
        near.first().copied()
    }

    /// Says that there is no such role, and which are near.
    pub(crate) fn unknown(&self, name: &str) -> Failure {
        let shown: String = name.chars().take(80).collect();
        let near = self
            .nearest(name)
            .map(|near| format!(": nearest is {near}"));
        let text = format!("no role is named {shown:?}{}", near.unwrap_or_default());
        Failure::usage(text).next("fleet roles")
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |e: io::Error| format!("cannot be read: {e}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(format!(
            "is over the limit of {} KiB",
            FILE_MAX_BYTES / 1024
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_role_can_be_read() {
        let all = Catalogue::load(None, None);
        for (name, role) in all.all() {
            assert!(role.is_ok(), "{name}: {role:?}");
        }
        assert_eq!(all.all().count(), SHIPPED.len());
        assert!(all.stray().is_empty());
    }

    #[test]
    fn a_project_takes_nobodys_name_and_a_broken_one_hides_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let roles_d = dir.path().join("roles.d");
        std::fs::create_dir(&roles_d).unwrap();
        let write = |name: &str, text: &str| std::fs::write(roles_d.join(name), text).unwrap();
        write("test.toml", "help = \"mine\"\ncommand = [\"x\"]");
        write("mine.toml", "help = \"mine\"\ncommand = [\"x\"]");
        write("broken.toml", "help = 3");
        write("No Name.toml", "help = \"x\"\ncommand = [\"x\"]");
        write("notes.txt", "not a role");
        let file = dir.path().join(".fleet.toml");
        std::fs::write(
            &file,
            "[roles.mine]\nhelp = \"project\"\ncommand = [\"y\"]\n\
             [roles.ours]\nhelp = \"project\"\ncommand = [\"y\"]",
        )
        .unwrap();
        let project = Project::read(&file).unwrap();
        let all = Catalogue::load(Some(&roles_d), Some(&project));
        let help = |name: &str| all.get(name).unwrap().definition.help.clone();
        assert_eq!(help("test"), "mine");
        let helps = (help("mine"), help("ours"));
        assert_eq!(helps, ("mine".to_owned(), "project".to_owned()));
        assert!(all.has("broken"));
        let error = all.get("broken").unwrap_err().render(false).unwrap();
        assert!(
            error.contains("broken.toml: line 1: invalid type"),
            "{error}"
        );
        let whys: Vec<&str> = all.stray().iter().map(|b| b.why.as_str()).collect();
        assert!(whys[0].contains("is no name for a role"), "{whys:?}");
        assert!(
            whys[1].starts_with("mine is the name of another role"),
            "{whys:?}"
        );
        let error = all.get("tset").unwrap_err().render(false).unwrap();
        assert_eq!(
            error,
            "fleet: no role is named \"tset\": nearest is test; fleet roles"
        );
    }
}
