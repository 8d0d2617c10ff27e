//! Settings: flag over environment over project over user over default, and each value knows where
//! it came from.

pub(crate) mod console;
pub(crate) mod file;
pub(crate) mod keys;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_contract::flood::Bounds;
use fleet_contract::ids::MachineId;
use fleet_contract::keeper::Retention;
use fleet_nats::home::Home;
use fleet_nats::streams::{Keep, Keeps};

use self::console::Console;
use self::file::File;
use self::keys::{Key, Table, Value};
use crate::args::{Global, HubFlags, MachineFlags};
use crate::environment::{Environment, host_name};
use crate::failure::Failure;
use crate::output::style::ColorChoice;

/// A project's own settings, looked for in the current folder and above it.
pub(crate) const PROJECT_FILE: &str = ".fleet.toml";
/// Largest configuration file, in bytes.
pub(crate) const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A line of a project's or the user's file.
    Line(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// The value; none where nothing is set and there is no fixed default.
    pub(crate) value: Option<Value>,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// What flags say, by key.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<&'static str, (Value, &'static str)>,
    labels: Vec<(String, String)>,
}

impl Flags {
    /// The flags of every verb.
    pub(crate) fn global(global: &Global) -> Result<Self, Failure> {
        let mut flags = Self::default();
        if let Some(hub) = &global.hub {
            let url = keys::hub_url(hub).map_err(|why| Failure::usage(format!("--hub: {why}")))?;
            flags.set("hub", "--hub", Value::Text(url));
        }
        if let Some(path) = &global.credentials {
            flags.set("credentials", "--credentials", Value::Path(path.clone()));
        }
        if let Some(color) = global.color {
            flags.set("color", "--color", Value::Text(color.as_str().to_owned()));
        }
        Ok(flags)
    }

    /// And those of a machine.
    pub(crate) fn machine(mut self, machine: &MachineFlags) -> Self {
        if let Some(name) = &machine.name {
            self.set("machine", "--name", Value::Text(name.to_string()));
        }
        if let Some(slots) = machine.slots {
            self.set("slots", "--slots", Value::Number(u64::from(slots)));
        }
        if let Some(grace) = machine.grace {
            self.set("grace", "--grace", Value::Span(grace));
        }
        self.labels.clone_from(&machine.labels);
        self
    }

    /// And those of a hub.
    pub(crate) fn hub(mut self, hub: &HubFlags) -> Self {
        if let Some(listen) = hub.listen {
            self.set("listen", "--listen", Value::Text(listen.to_string()));
        }
        if let Some(path) = &hub.nats_server {
            self.set("nats_server", "--nats-server", Value::Path(path.clone()));
        }
        self
    }

    fn set(&mut self, key: &'static str, flag: &'static str, value: Value) {
        self.values.insert(key, (value, flag));
    }
}

/// Every setting, resolved.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where every file of fleet is.
    pub(crate) home: Home,
    /// Where that came from.
    pub(crate) home_origin: Origin,
    /// Every key of [`keys::KEYS`].
    values: BTreeMap<&'static str, Setting>,
    tables: BTreeMap<Table, BTreeMap<String, (String, Origin)>>,
    console: Option<(PathBuf, Console)>,
}

impl Settings {
    /// Reads the files and puts everything in order.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a bad value: exit code 78, with file and line.
    pub(crate) fn resolve(environment: &Environment, flags: &Flags) -> Result<Self, Failure> {
        let (home, home_origin) = home(environment)?;
        let project = match environment.folder.as_deref().and_then(find_project) {
            Some(path) => File::read(&path, keys::Scope::Project)?,
            None => None,
        };
        let user = File::read(&home.config(), keys::Scope::User)?;
        let files = [project, user];
        let mut settings = Self {
            home,
            home_origin,
            values: BTreeMap::new(),
            tables: BTreeMap::new(),
            console: None,
        };
        for key in &keys::KEYS {
            let setting = settings.choose(key, environment, flags, &files)?;
            settings.values.insert(key.name, setting);
        }
        for table in Table::ALL {
            let entries = merged(table, flags, &files);
            settings.tables.insert(table, entries);
        }
        let mut files = files.into_iter().flatten();
        settings.console = files.find_map(|file| file.console.map(|console| (file.path, console)));
        Ok(settings)
    }

    fn choose(
        &self,
        key: &'static Key,
        environment: &Environment,
        flags: &Flags,
        files: &[Option<File>],
    ) -> Result<Setting, Failure> {
        if let Some((value, flag)) = flags.values.get(key.name) {
            return Ok(Setting {
                value: Some(value.clone()),
                origin: Origin::Flag(flag),
            });
        }
        if let Some((name, text)) = key.variable.zip(variable(environment, key.name)) {
            let value = key
                .read_text(text)
                .map_err(|why| Failure::config(format!("environment {name}: {why}")))?;
            return Ok(Setting {
                value: Some(value),
                origin: Origin::Variable(name),
            });
        }
        for file in files.iter().flatten() {
            if let Some((value, line)) = file.values.get(key.name) {
                return Ok(Setting {
                    value: Some(value.clone()),
                    origin: Origin::Line(file.path.clone(), *line),
                });
            }
        }
        Ok(Setting {
            value: key.default(),
            origin: Origin::Default,
        })
    }

    /// One setting.
    pub(crate) fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).and_then(|s| s.value.as_ref())
    }

    /// The entries of a table with their origins.
    pub(crate) fn table(&self, table: Table) -> impl Iterator<Item = (&str, &str, &Origin)> {
        self.tables
            .get(&table)
            .into_iter()
            .flatten()
            .map(|(k, (v, o))| (k.as_str(), v.as_str(), o))
    }

    /// The entries of a table.
    pub(crate) fn entries(&self, table: Table) -> BTreeMap<String, String> {
        self.table(table)
            .map(|(k, v, _)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    /// The hub's address, if anything but the credentials says one.
    pub(crate) fn hub(&self) -> Option<&str> {
        match self.value("hub") {
            Some(Value::Text(url)) => Some(url),
            _ => None,
        }
    }

    /// This machine's name: what was set, else the host's.
    pub(crate) fn machine(&self) -> MachineId {
        match self.value("machine") {
            Some(Value::Text(name)) => name
                .parse()
                .unwrap_or_else(|_| MachineId::from_host_name(name)),
            _ => MachineId::from_host_name(&host_name()),
        }
    }

    /// Whether this machine's name was set by anybody.
    pub(crate) fn machine_is_set(&self) -> bool {
        self.value("machine").is_some()
    }

    /// How many jobs run at once: what was set, else one for each processor.
    pub(crate) fn slots(&self) -> u32 {
        match self.value("slots") {
            Some(Value::Number(n)) => u32::try_from(*n).unwrap_or(1),
            _ => std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        }
    }

    /// Where the hub listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        match self.value("listen") {
            Some(Value::Text(text)) => crate::args::parse::listen(text).ok(),
            _ => None,
        }
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4222)))
    }

    /// A path that was set.
    pub(crate) fn path(&self, key: &str) -> Option<&Path> {
        match self.value(key) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// A span that was set or has a default.
    pub(crate) fn span(&self, key: &str) -> Duration {
        match self.value(key) {
            Some(Value::Span(span)) => *span,
            _ => Duration::ZERO,
        }
    }

    /// A size in bytes that was set or has a default.
    pub(crate) fn size(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Size(size)) => *size,
            _ => 0,
        }
    }

    /// How long the hub keeps ended jobs, and how many of them.
    pub(crate) fn retention(&self) -> Retention {
        let default = Retention::default();
        Retention {
            age: self.span("jobs_age"),
            count: match self.value("jobs_count") {
                Some(Value::Number(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => default.count,
            },
            bytes: self.size_if_set("jobs_size"),
        }
    }

    /// What a machine may send the hub before it is locked out.
    pub(crate) fn flood_bounds(&self) -> Bounds {
        let default = Bounds::default();
        Bounds {
            messages: self.number("flood_messages").unwrap_or(default.messages),
            useless: self.number("flood_useless").unwrap_or(default.useless),
            ..default
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.value(key) {
            Some(Value::Number(n)) => Some(*n),
            _ => None,
        }
    }

    /// How long the hub keeps events and output, and how much of them: what was set.
    pub(crate) fn keeps(&self) -> Keeps {
        let keep = |age, bytes| Keep {
            age: self.is_set(age).then(|| self.span(age)),
            bytes: self.size_if_set(bytes),
        };
        Keeps {
            flow: keep("flow_age", "flow_size"),
            log: keep("logs_age", "logs_size"),
        }
    }

    fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some_and(|s| s.origin != Origin::Default)
    }

    fn size_if_set(&self, key: &str) -> Option<u64> {
        self.is_set(key).then(|| self.size(key))
    }

    /// Whether the console takes the mouse, and who says so.
    pub(crate) fn console_mouse(&self) -> (bool, Origin) {
        let said = self.console.as_ref();
        let said = said.and_then(|(path, console)| Some((path, console.mouse?)));
        said.map_or((true, Origin::Default), |(path, (on, line))| {
            (on, Origin::Line(path.clone(), line))
        })
    }

    /// Keys of the console that were chosen, by action, and who chose them.
    pub(crate) fn console_keys(&self) -> impl Iterator<Item = (&str, &[String], Origin)> {
        let chosen = self.console.iter().flat_map(|(path, console)| {
            let keys = console.keys.iter();
            keys.map(move |(name, (keys, line))| (path, name, keys, *line))
        });
        chosen.map(|(path, name, keys, line)| {
            let origin = Origin::Line(path.clone(), line);
            (name.as_str(), keys.as_slice(), origin)
        })
    }

    /// The console's keys.
    pub(crate) fn console_bound(&self) -> fleet_tui::Keys {
        let console = self.console.as_ref();
        console.map_or_else(Default::default, |(_, console)| console.bound.clone())
    }

    /// Whether this machine looks for what it can do by itself.
    pub(crate) fn probes(&self) -> bool {
        !matches!(self.value("probe"), Some(Value::Text(word)) if word == "asked")
    }

    /// When to write colours.
    pub(crate) fn color(&self) -> ColorChoice {
        match self.value("color") {
            Some(Value::Text(word)) => ColorChoice::from_word(word).unwrap_or_default(),
            _ => ColorChoice::Auto,
        }
    }
}

/// The root of every file.
pub(crate) fn home(environment: &Environment) -> Result<(Home, Origin), Failure> {
    if let Some(home) = &environment.home {
        let path = std::path::absolute(home)
            .map_err(|e| Failure::config(format!("environment FLEET_HOME: {e}")))?;
        return Ok((Home::new(path), Origin::Variable("FLEET_HOME")));
    }
    environment
        .default_home()
        .map(|path| (Home::new(path), Origin::Default))
        .ok_or_else(|| {
            Failure::config("no home folder is known to keep fleet's files in")
                .next("set FLEET_HOME to a folder")
        })
}

/// The nearest project file, in this folder or above it.
pub(crate) fn find_project(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .map(|dir| dir.join(PROJECT_FILE))
        .find(|path| path.is_file())
}

fn variable<'a>(environment: &'a Environment, key: &str) -> Option<&'a OsString> {
    match key {
        "hub" => environment.hub.as_ref(),
        "machine" => environment.machine.as_ref(),
        "nats_server" => environment.nats_server.as_ref(),
        "probe" => environment.probe.as_ref(),
        _ => None,
    }
}

/// The entries of a table: each by itself, the stronger source wins.
fn merged(
    table: Table,
    flags: &Flags,
    files: &[Option<File>],
) -> BTreeMap<String, (String, Origin)> {
    let mut entries = BTreeMap::new();
    for file in files.iter().rev().flatten() {
        for (key, (value, line)) in file.tables.get(&table).into_iter().flatten() {
            let origin = Origin::Line(file.path.clone(), *line);
            entries.insert(key.clone(), (value.clone(), origin));
        }
    }
    if table == Table::Labels {
        for (key, value) in &flags.labels {
            entries.insert(key.clone(), (value.clone(), Origin::Flag("--label")));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
        environment: Environment,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("project/a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(dir.path().join("home")).unwrap();
        let environment = Environment {
            home: Some(dir.path().join("home").into()),
            folder: Some(deep),
            ..Environment::default()
        };
        World { dir, environment }
    }

    impl World {
        fn write(&self, path: &str, text: &str) {
            std::fs::write(self.dir.path().join(path), text).unwrap();
        }

        fn resolve(&self, global: &Global, machine: &MachineFlags) -> Result<Settings, String> {
            let flags = Flags::global(global).map_err(|e| e.render(false).unwrap())?;
            Settings::resolve(&self.environment, &flags.machine(machine))
                .map_err(|e| e.render(false).unwrap())
        }

        fn hub(&self, flag: Option<&str>) -> (String, String) {
            let global = Global {
                hub: flag.map(str::to_owned),
                ..Global::default()
            };
            let settings = self.resolve(&global, &MachineFlags::default()).unwrap();
            let origin = settings.get("hub").unwrap().origin.to_string();
            let origin = origin.replace(&format!("{}/", self.dir.path().display()), "");
            (settings.hub().unwrap_or("none").to_owned(), origin)
        }
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn flag_over_environment_over_project_over_user_over_default() {
        let mut world = world();
        assert_eq!(world.hub(None), pair("none", "default"));
        world.write("home/config.toml", "# mine\nhub = \"nats://user:1\"\n");
        assert_eq!(world.hub(None), pair("nats://user:1", "home/config.toml:2"));
        world.write("project/.fleet.toml", "hub = \"project:2\"\n");
        assert_eq!(
            world.hub(None),
            pair("nats://project:2", "project/.fleet.toml:1")
        );
        world.environment.hub = Some("env:3".into());
        assert_eq!(
            world.hub(None),
            pair("nats://env:3", "environment FLEET_HUB")
        );
        assert_eq!(world.hub(Some("flag")), pair("nats://flag:4222", "--hub"));
    }

    #[test]
    fn tables_merge_entry_by_entry() {
        let world = world();
        world.write(
            "home/config.toml",
            "[labels]\nos = \"linux\"\nrack = \"a\"\n[env]\nA = \"1\"\n",
        );
        let flags = MachineFlags {
            labels: vec![pair("os", "macos")],
            ..MachineFlags::default()
        };
        let settings = world.resolve(&Global::default(), &flags).unwrap();
        let labels: Vec<_> = settings
            .table(Table::Labels)
            .map(|(k, v, o)| (k, v, matches!(o, Origin::Flag(_))))
            .collect();
        assert_eq!(labels, [("os", "macos", true), ("rack", "a", false)]);
        assert_eq!(settings.entries(Table::Env)["A"], "1");
    }

    #[test]
    fn bad_values_say_where_they_stand() {
        let mut world = world();
        world.environment.machine = Some("Not A Name".into());
        let error = world
            .resolve(&Global::default(), &MachineFlags::default())
            .unwrap_err();
        assert!(
            error.starts_with("fleet: environment FLEET_MACHINE: machine id \"Not A Name\""),
            "{error}"
        );
        world.environment.machine = None;
        world.write("home/config.toml", "heartbeat = \"5s\"\nslots = 0\n");
        let error = world
            .resolve(&Global::default(), &MachineFlags::default())
            .unwrap_err();
        assert!(
            error.contains("home/config.toml:2: slots: 0 is no number of slots"),
            "{error}"
        );
    }

    #[test]
    fn the_root_is_the_variable_or_the_platforms_own_folder() {
        let world = world();
        let (root, origin) = home(&world.environment).unwrap();
        assert_eq!(root.root(), world.dir.path().join("home"));
        assert_eq!(origin, Origin::Variable("FLEET_HOME"));
        let ana = Environment {
            user_home: Some("/home/ana".into()),
            ..Environment::default()
        };
        let (root, _) = home(&ana).unwrap();
        assert!(root.root().starts_with("/home/ana"));
        assert!(root.root().ends_with("fleet"));
        assert!(home(&Environment::default()).is_err());
    }
}
