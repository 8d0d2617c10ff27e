//! The process's environment, read once. Everything else gets it as a value, so that tests need
//! not change the process.

use std::ffi::OsString;
use std::path::PathBuf;

/// What fleet reads of its environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `FLEET_HUB`
    pub(crate) hub: Option<OsString>,
    /// `FLEET_MACHINE`
    pub(crate) machine: Option<OsString>,
    /// `FLEET_HOME`
    pub(crate) home: Option<OsString>,
    /// `FLEET_NATS_SERVER`
    pub(crate) nats_server: Option<OsString>,
    /// `FLEET_PROBE`
    pub(crate) probe: Option<OsString>,
    /// `PATH`
    pub(crate) path: Option<OsString>,
    /// `XDG_DATA_HOME`
    pub(crate) data_home: Option<OsString>,
    /// The user's home folder.
    pub(crate) user_home: Option<PathBuf>,
    /// The current folder.
    pub(crate) folder: Option<PathBuf>,
    /// Who this is.
    pub(crate) user: Option<OsString>,
    /// Whether `NO_COLOR` is set and not empty.
    pub(crate) no_color: bool,
    /// Whether `TERM` is `dumb`.
    pub(crate) dumb: bool,
    /// Whether the terminal is reached over SSH.
    pub(crate) far: bool,
}

impl Environment {
    /// The environment of this process. An empty variable is the same as none.
    pub(crate) fn of_process() -> Self {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            hub: get("FLEET_HUB"),
            machine: get("FLEET_MACHINE"),
            home: get("FLEET_HOME"),
            nats_server: get("FLEET_NATS_SERVER"),
            probe: get("FLEET_PROBE"),
            path: get("PATH"),
            data_home: get("XDG_DATA_HOME"),
            user_home: std::env::home_dir().filter(|home| home.is_absolute()),
            folder: std::env::current_dir().ok(),
            user: get("USER").or_else(|| get("LOGNAME")),
            no_color: get("NO_COLOR").is_some(),
            dumb: get("TERM").is_some_and(|term| term == "dumb"),
            far: get("SSH_CONNECTION").or_else(|| get("SSH_TTY")).is_some(),
        }
    }

    /// `user@host`, who dispatches.
    pub(crate) fn who(&self) -> String {
        let user = self.user.as_ref().map_or_else(
            || named().unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw())),
            |user| user.to_string_lossy().into_owned(),
        );
        format!("{user}@{}", host_name())
    }

    /// Where every file of fleet is, unless a flag or variable says otherwise: the platform's own
    /// folder for data of the user.
    pub(crate) fn default_home(&self) -> Option<PathBuf> {
        let user_home = self.user_home.as_ref();
        if cfg!(target_os = "macos") {
            return user_home.map(|home| home.join("Library/Application Support/fleet"));
        }
        let data = self.data_home.as_ref().map(PathBuf::from);
        data.filter(|data| data.is_absolute())
            .or_else(|| user_home.map(|home| home.join(".local/share")))
            .map(|data| data.join("fleet"))
    }
}

/// This user's name, as the user database has it. Only where the environment does not say it.
fn named() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named_in(&local, &uid).or_else(asked)
}

/// The name of the user with this number in a text of passwd(5).
fn named_in(passwd: &str, uid: &str) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Users of a directory service are in no file; asking for them costs a process.
fn asked() -> Option<String> {
    let out = std::process::Command::new("id")
        .arg("-un")
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let name = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !name.is_empty()).then_some(name)
}

/// This host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_is_found_by_number_in_the_local_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nana:x:1000:1000::/home/ana:/bin/zsh\n";
        assert_eq!(named_in(passwd, "1000").as_deref(), Some("ana"));
        assert_eq!(named_in(passwd, "0").as_deref(), Some("root"));
        assert_eq!(named_in(passwd, "100"), None);
        assert_eq!(named_in("", "0"), None);
    }
}
