//! One file of settings: TOML in, values with their lines out. What is unknown or wrong is an
//! error that names file, line and key, and the nearest key that exists.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::console::{self, Console};
use super::keys::{KEYS, Key, PROJECT_TABLES, Scope, Table, Value};
use super::{FILE_MAX_BYTES, PROJECT_FILE};
use crate::failure::Failure;
use crate::prefix;

/// A file that was read.
#[derive(Debug)]
pub(crate) struct File {
    /// Which.
    pub(crate) path: PathBuf,
    /// Its values and their lines.
    pub(crate) values: BTreeMap<&'static str, (Value, usize)>,
    /// Its tables' entries and their lines.
    pub(crate) tables: BTreeMap<Table, BTreeMap<String, (String, usize)>>,
    /// What it says of the console.
    pub(crate) console: Option<Console>,
}

impl File {
    /// Reads a file; none where there is none.
    pub(crate) fn read(path: &Path, scope: Scope) -> Result<Option<Self>, Failure> {
        let failed = |error: &io::Error| {
            Failure::config(format!("cannot read settings: {}: {error}", path.display()))
        };
        let file = match std::fs::File::open(path) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            other => other.map_err(|e| failed(&e))?,
        };
        let mut text = String::new();
        file.take(FILE_MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|e| failed(&e))?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(failed(&io::Error::other("larger than 1 MiB")));
        }
        Self::parse(path, &text, scope).map(Some)
    }

    /// The settings in this text.
    pub(crate) fn parse(path: &Path, text: &str, scope: Scope) -> Result<Self, Failure> {
        let at = |offset: usize| line_of(text, offset);
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().map_or(1, |span| at(span.start));
            wrong(path, line, e.message())
        })?;
        let mut file = Self {
            path: path.to_owned(),
            values: BTreeMap::new(),
            tables: BTreeMap::new(),
            console: None,
        };
        for (key, value) in table.get_ref() {
            let line = at(key.span().start);
            let name: &str = key.get_ref();
            if name == console::TABLE {
                if scope == Scope::Project {
                    return Err(not_here(path, line, name));
                }
                let console = Console::read(value, &at);
                file.console = Some(console.map_err(|(line, why)| wrong(path, line, &why))?);
                continue;
            }
            if let Some(table) = Table::ALL.into_iter().find(|t| t.name() == name) {
                if scope == Scope::Project {
                    return Err(not_here(path, line, name));
                }
                let entries = entries(path, table, value, &at)?;
                file.tables.insert(table, entries);
                continue;
            }
            // Roles and where the project lies are no settings: `project` reads them.
            if scope == Scope::Project && PROJECT_TABLES.contains(&name) {
                continue;
            }
            let Some(key) = Key::named(name) else {
                return Err(unknown(path, line, name));
            };
            if scope == Scope::Project && !key.project {
                return Err(not_here(path, line, name));
            }
            let value = read(key, value.get_ref())
                .map_err(|why| wrong(path, line, &format!("{name}: {why}")))?;
            file.values.insert(key.name, (value, line));
        }
        Ok(file)
    }
}

fn read(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => key.read_str(text),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{} is too large", number.as_str()))
            .and_then(|n| key.read_number(n)),
        other => Err(format!(
            "a value of type {} is not possible: write it like {}",
            other.type_str(),
            key.example
        )),
    }
}

fn entries(
    path: &Path,
    table: Table,
    value: &Spanned<DeValue<'_>>,
    at: &impl Fn(usize) -> usize,
) -> Result<BTreeMap<String, (String, usize)>, Failure> {
    let line = at(value.span().start);
    let Some(found) = value.get_ref().as_table() else {
        return Err(wrong(
            path,
            line,
            &format!(
                "{0}: write it as a table, [{0}] and below it NAME = \"text\"",
                table.name()
            ),
        ));
    };
    let mut entries = BTreeMap::new();
    for (key, value) in found {
        let line = at(key.span().start);
        let name: &str = key.get_ref();
        let fail = |why: &str| wrong(path, line, &format!("{}.{name}: {why}", table.name()));
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| fail("write its value as a text in quotes"))?;
        table.check(name, text).map_err(|why| fail(&why))?;
        entries.insert(name.to_owned(), (text.to_owned(), line));
    }
    Ok(entries)
}

fn wrong(path: &Path, line: usize, why: &str) -> Failure {
    Failure::config(format!("{}:{line}: {why}", path.display()))
}

fn unknown(path: &Path, line: usize, name: &str) -> Failure {
    let names = KEYS
        .iter()
        .map(|key| key.name)
        .chain(Table::ALL.map(Table::name))
        .chain([console::TABLE]);
    let near = prefix::nearest(name, names);
    let hint = match near.first() {
        Some(near) => format!("the nearest is {near:?}"),
        None => "see 'fleet config show' for all".to_owned(),
    };
    wrong(path, line, &format!("there is no setting {name:?}: {hint}"))
}

fn not_here(path: &Path, line: usize, name: &str) -> Failure {
    wrong(
        path,
        line,
        &format!(
            "{name:?} is this machine's own and cannot stand in a project's {PROJECT_FILE}: \
             put it in config.toml under FLEET_HOME"
        ),
    )
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|&&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, scope: Scope) -> String {
        File::parse(Path::new("c.toml"), text, scope)
            .unwrap_err()
            .render(false)
            .unwrap()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_the_nearest_key() {
        for (text, expected) in [
            (
                "slots = 2\nheartbaet = \"5s\"\n",
                "fleet: c.toml:2: there is no setting \"heartbaet\": the nearest is \"heartbeat\"",
            ),
            (
                "heartbeat = 5",
                "fleet: c.toml:1: heartbeat: 5 has no unit: write it like \"5s\"",
            ),
            (
                "heartbeat = \"2m\"",
                "fleet: c.toml:1: heartbeat: \"2m\" is out of bounds: use 1s to 1m",
            ),
            (
                "\n\nslots = \"4\"",
                "fleet: c.toml:3: slots: \"4\" is no number: write it without quotes",
            ),
            (
                "slots = [1]",
                "fleet: c.toml:1: slots: a value of type array is not possible: write it like 4",
            ),
            (
                "labels = 3",
                "fleet: c.toml:1: labels: write it as a table, [labels] and below it NAME = \"text\"",
            ),
            (
                "[env]\nA = 1",
                "fleet: c.toml:2: env.A: write its value as a text in quotes",
            ),
            (
                "jobs_age = \"5m\"",
                "fleet: c.toml:1: jobs_age: \"5m\" is out of bounds: use 1h to 10years",
            ),
            (
                "logs_age = 14",
                "fleet: c.toml:1: logs_age: 14 has no unit: write it like \"14s\"",
            ),
            (
                "flow_size = \"1 MiB\"",
                "fleet: c.toml:1: flow_size: 1.0 MiB is out of bounds: use 4.0 MiB to 1.0 TiB",
            ),
            (
                "jobs_count = 0",
                "fleet: c.toml:1: jobs_count: 0 is out of bounds: use 1 to 1000000",
            ),
            (
                "jobs_count = \"many\"",
                "fleet: c.toml:1: jobs_count: \"many\" is no number: write it without quotes",
            ),
            (
                "log_keep = \"1 KiB\"",
                "fleet: c.toml:1: log_keep: 1.0 KiB is out of bounds: use 64 KiB to 1.0 TiB",
            ),
            (
                "color = \"pink\"",
                "fleet: c.toml:1: color: \"pink\" is not one of auto, always, never",
            ),
        ] {
            assert_eq!(error(text, Scope::User), expected, "{text}");
        }
        assert!(error("a = = 1", Scope::User).starts_with("fleet: c.toml:1: "));
        assert!(error("zzz = 1", Scope::User).contains("fleet config show"));
    }

    #[test]
    fn a_project_cannot_say_which_programs_run_or_who_this_is() {
        for text in [
            "nats_server = \"./evil\"",
            "machine = \"m\"",
            "[env]\nA = \"1\"",
        ] {
            assert!(
                error(text, Scope::Project).contains("this machine's own"),
                "{text}"
            );
        }
        assert!(File::parse(Path::new("c"), "hub = \"h\"", Scope::Project).is_ok());
    }
}
