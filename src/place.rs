//! Where a job runs: what `--cwd` means on another machine. Pure but for the folder's real name.

use std::path::{Component, Path, PathBuf};

use crate::environment::Environment;
use crate::failure::Failure;

/// The working folder as it travels: `~` and `~/…` as they are, below the dispatcher's own home
/// `~/…`, everything else absolute.
pub(crate) fn travelling(cwd: &str, environment: &Environment) -> Result<String, Failure> {
    let path = absolute(cwd, environment)?;
    let Some(path) = path else {
        return Ok(cwd.to_owned());
    };
    for home in homes(environment) {
        // A home that is the root would turn every path into one below it.
        if home.parent().is_none() {
            continue;
        }
        if let Ok(below) = path.strip_prefix(&home) {
            let below = text(below)?;
            return Ok(if below.is_empty() {
                "~".to_owned()
            } else {
                format!("~/{below}")
            });
        }
    }
    text(&path).map(str::to_owned)
}

/// The working folder for this very machine, for `fleet run`: the current one unless told.
pub(crate) fn here(cwd: Option<&str>, environment: &Environment) -> Result<String, Failure> {
    let cwd = cwd.unwrap_or(".");
    match absolute(cwd, environment)? {
        Some(path) => text(&path).map(str::to_owned),
        None => Ok(cwd.to_owned()),
    }
}

/// The same folder as a path of this machine; none where only another machine can say.
pub(crate) fn local(cwd: &str, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    let below_home = |below: &str| environment.user_home.as_ref().map(|home| home.join(below));
    Ok(
        match (absolute(cwd, environment)?, cwd.strip_prefix("~/")) {
            (Some(path), _) => Some(path),
            (None, Some(below)) => below_home(below),
            (None, None) => environment.user_home.clone(),
        },
    )
}

/// The path without `.` and `..`; none for `~` and `~/…`, which are another machine's to read.
fn absolute(cwd: &str, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    if cwd.is_empty() {
        return Err(Failure::usage("--cwd is empty").next("--cwd . for the current folder"));
    }
    if cwd == "~" || cwd.starts_with("~/") {
        return Ok(None);
    }
    if cwd.starts_with('~') {
        return Err(Failure::usage(format!(
            "--cwd {cwd:?} names another user's home: give an absolute path, or one that starts with ~/"
        )));
    }
    let path = Path::new(cwd);
    if path.is_absolute() {
        return Ok(Some(clean(path)));
    }
    let folder = environment.folder.as_ref().ok_or_else(|| {
        Failure::usage(format!(
            "--cwd {cwd:?} is relative and the current folder is gone"
        ))
    })?;
    Ok(Some(clean(&folder.join(path))))
}

/// `.` and `..` taken out by their names: the folder need not exist here.
fn clean(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
        clean
    })
}

/// The user's home as it is named, and where it really is.
fn homes(environment: &Environment) -> Vec<PathBuf> {
    let Some(home) = environment.user_home.as_deref() else {
        return Vec::new();
    };
    let real = std::fs::canonicalize(home).ok();
    [Some(clean(home)), real].into_iter().flatten().collect()
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::usage(format!("--cwd {}: the path is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ana() -> Environment {
        Environment {
            user_home: Some("/home/ana".into()),
            folder: Some("/home/ana/src/fleet".into()),
            ..Environment::default()
        }
    }

    #[test]
    fn a_folder_below_the_home_means_the_same_place_below_every_home() {
        for (cwd, expected) in [
            (".", "~/src/fleet"),
            ("../other", "~/src/other"),
            ("nats", "~/src/fleet/nats"),
            ("/home/ana", "~"),
            ("/home/ana/x/./y/../z", "~/x/z"),
            ("~", "~"),
            ("~/x", "~/x"),
            ("/home/anabel/x", "/home/anabel/x"),
            ("/tmp", "/tmp"),
            ("../../../../..", "/"),
        ] {
            assert_eq!(travelling(cwd, &ana()).unwrap(), expected, "{cwd}");
        }
        for bad in ["", "~bob/x"] {
            assert!(travelling(bad, &ana()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_home_that_is_the_root_rewrites_nothing() {
        let root = Environment {
            user_home: Some("/".into()),
            ..ana()
        };
        assert_eq!(travelling("/srv/x", &root).unwrap(), "/srv/x");
    }

    #[test]
    fn a_linked_home_is_found_by_its_real_name_too() {
        let dir = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(dir.path()).unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = real.with_file_name("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let world = Environment {
            user_home: Some(link),
            folder: Some(real.join("src")),
            ..Environment::default()
        };
        assert_eq!(travelling(".", &world).unwrap(), "~/src");
    }

    #[test]
    fn run_uses_the_current_folder() {
        assert_eq!(here(None, &ana()).unwrap(), "/home/ana/src/fleet");
        assert_eq!(here(Some("../x"), &ana()).unwrap(), "/home/ana/src/x");
        assert_eq!(here(Some("~/x"), &ana()).unwrap(), "~/x");
    }
}
