//! The console's settings, `[tui]`: whether it takes the mouse, and its keys. What keys there can
//! be is the console's own knowledge.

use std::collections::BTreeMap;

use fleet_tui::Keys;
use toml::Spanned;
use toml::de::DeValue;

use crate::prefix;

/// Its table.
pub(crate) const TABLE: &str = "tui";

/// What is wrong, and where in the file.
pub(super) type Wrong = (usize, String);

/// What a file says of the console.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// Whether it takes the mouse, and the line that says so.
    pub(crate) mouse: Option<(bool, usize)>,
    /// Keys by action, and their lines.
    pub(crate) keys: BTreeMap<String, (Vec<String>, usize)>,
    /// The console's keys with these.
    pub(crate) bound: Keys,
}

impl Console {
    /// Reads `[tui]`; an error has the offset in the file.
    pub(super) fn read(
        value: &Spanned<DeValue<'_>>,
        line: &impl Fn(usize) -> usize,
    ) -> Result<Self, Wrong> {
        let mut console = Self::default();
        let at = line(value.span().start);
        let table = value.get_ref().as_table().ok_or_else(|| {
            let why = "tui: write it as a table, [tui] and below it mouse = true";
            (at, why.to_owned())
        })?;
        for (key, value) in table {
            let at = line(key.span().start);
            let name: &str = key.get_ref();
            match name {
                "mouse" => {
                    let on = value.get_ref().as_bool().ok_or_else(|| {
                        let why = "tui.mouse: write true or false, without quotes";
                        (at, why.to_owned())
                    })?;
                    console.mouse = Some((on, at));
                }
                "keys" => console.keys = keys(value, at, line)?,
                _ => {
                    let near = prefix::nearest(name, ["mouse", "keys"]);
                    let near = near.first().copied().unwrap_or("keys");
                    let why = format!(
                        "there is no setting {:?}: the nearest is {:?}",
                        format!("{TABLE}.{name}"),
                        format!("{TABLE}.{near}")
                    );
                    return Err((at, why));
                }
            }
        }
        let wanted = console.keys.iter();
        let wanted = wanted.map(|(name, (keys, _))| (name.clone(), keys.clone()));
        console.bound = Keys::rebound(&wanted.collect()).map_err(|error| {
            let line = console
                .keys
                .get(&error.action)
                .map_or(at, |(_, line)| *line);
            let hint = match prefix::nearest(&error.action, Keys::actions()).first() {
                Some(near) if error.unknown => format!(": the nearest is {near:?}"),
                None if error.unknown => ": docs/console.md has all".to_owned(),
                _ => String::new(),
            };
            (line, format!("tui.keys.{}: {error}{hint}", error.action))
        })?;
        Ok(console)
    }
}

fn keys(
    value: &Spanned<DeValue<'_>>,
    at: usize,
    line: &impl Fn(usize) -> usize,
) -> Result<BTreeMap<String, (Vec<String>, usize)>, Wrong> {
    let table = value.get_ref().as_table().ok_or_else(|| {
        let why = "tui.keys: write it as a table, [tui.keys] and below it ACTION = \"KEY\"";
        (at, why.to_owned())
    })?;
    let mut keys = BTreeMap::new();
    for (key, value) in table {
        let at = line(key.span().start);
        let name: &str = key.get_ref();
        let wrong = || {
            let why =
                format!("tui.keys.{name}: write its key as \"x\", or its keys as [\"x\", \"g x\"]");
            (at, why)
        };
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        let list = match value.get_ref() {
            DeValue::Array(items) => {
                let texts = items.iter().map(|item| text(item.get_ref()));
                texts.collect::<Option<Vec<String>>>().ok_or_else(wrong)?
            }
            one => vec![text(one).ok_or_else(wrong)?],
        };
        keys.insert(name.to_owned(), (list, at));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::file::File;
    use crate::config::keys::Scope;

    fn error(text: &str) -> String {
        let error = File::parse(Path::new("c.toml"), text, Scope::User).unwrap_err();
        error.render(false).unwrap()
    }

    #[test]
    fn keys_and_the_mouse_are_read() {
        let text = "[tui]\nmouse = false\n[tui.keys]\nwhy = \"e\"\njump_machine = [\"g x\"]\n";
        let file = File::parse(Path::new("c.toml"), text, Scope::User).unwrap();
        let console = file.console.unwrap();
        assert_eq!(console.mouse, Some((false, 2)));
        assert_eq!(console.keys["why"], (vec!["e".to_owned()], 4));
        assert_eq!(console.keys["jump_machine"].1, 5);
        let text = "tui.mouse = true\n";
        let file = File::parse(Path::new("c.toml"), text, Scope::User).unwrap();
        assert_eq!(file.console.unwrap().mouse, Some((true, 1)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_to_write() {
        for (text, expected) in [
            (
                "[tui.keys]\n\nquti = \"x\"",
                "fleet: c.toml:3: tui.keys.quti: there is no action \"quti\": the nearest is \"quit\"",
            ),
            (
                "[tui.keys]\nwhy = \"q\"",
                "fleet: c.toml:2: tui.keys.why: \"q\" is the key of quit: give quit another one",
            ),
            (
                "[tui.keys]\nwhy = \"Alt-w\"",
                "fleet: c.toml:2: tui.keys.why: \"Alt-w\" is no key: write one character",
            ),
            (
                "[tui.keys]\nwhy = 7",
                "fleet: c.toml:2: tui.keys.why: write its key as \"x\", or its keys as",
            ),
            (
                "[tui]\nmouse = \"off\"",
                "fleet: c.toml:2: tui.mouse: write true or false, without quotes",
            ),
            (
                "[tui]\nmuose = true",
                "fleet: c.toml:2: there is no setting \"tui.muose\": the nearest is \"tui.mouse\"",
            ),
            ("tui = 1", "fleet: c.toml:1: tui: write it as a table"),
        ] {
            let error = error(text);
            assert!(error.starts_with(expected), "{error}");
        }
        let project = File::parse(Path::new("c"), "[tui]\nmouse = true", Scope::Project);
        let error = project.unwrap_err().render(false).unwrap();
        assert!(error.contains("this machine's own"), "{error}");
    }
}
