//! What a skill is and how it is looked for: the keys of a definition, with their bounds. Reads files
//! of definitions, and runs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_contract::needs::Needs;
use serde::Deserialize;

/// Most bytes of a file of one definition.
pub const FILE_MAX_BYTES: u64 = 64 * 1024;
/// Most definitions of an operator's own that are read.
pub const OWN_MAX: usize = 64;
/// How often a skill is looked at, unless its definition says so.
pub(super) const EVERY: Duration = Duration::from_secs(600);
/// The bounds of that.
const EVERY_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(7 * 24 * 3600));
/// How long one command may take, unless its definition says so.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bounds of that.
const TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Where the version stands in a pattern.
const VERSION: &str = "{version}";
/// Most words of a command, and of any other list.
const LIST_MAX: usize = 32;
/// Longest single text.
const TEXT_MAX_BYTES: usize = 4096;

/// A skill and how it is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name: what jobs need.
    pub name: String,
    /// What kind it is.
    pub category: String,
    /// What it is, in a line.
    pub summary: String,
    /// The systems it can be on; empty: any.
    pub os: Vec<String>,
    /// The programs one of which has it, best first: names that are looked for in `PATH`, or paths.
    pub programs: Vec<String>,
    /// What the program is asked.
    pub args: Vec<String>,
    /// How its version stands in the answer.
    pub pattern: Pattern,
    /// A file beside the program in which its version stands; then the program is not run.
    pub version_file: Option<String>,
    /// What must hold besides.
    pub ready: Option<Ready>,
    /// Where it can be seen that somebody is logged in.
    pub login: Option<Login>,
    /// The server on this machine that has it.
    pub server: Option<Server>,
    /// What the answer is, where it is no version.
    pub gives: Option<Gives>,
    /// How often it is looked at.
    pub every: Duration,
    /// How long each command or question may take.
    pub timeout: Duration,
    /// How it is installed: a line for a shell, by system.
    pub install: BTreeMap<String, String>,
    /// The file it was read from, where it is an operator's own.
    pub file: Option<PathBuf>,
}

/// How a version stands in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The first number that looks like one.
    Any,
    /// None is wanted: it is enough that the program succeeds.
    None,
    /// Between these texts.
    Between(String, String),
}

/// What must hold besides: another question to the same program, which must succeed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// What it is asked.
    pub args: Vec<String>,
    /// What it means where it does not succeed.
    pub reason: String,
}

/// Where it can be seen that somebody is logged in: one of these is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    /// Variables that hold a key.
    pub env: Vec<String>,
    /// Files that are there once somebody has logged in.
    pub files: Vec<String>,
    /// A question to the same program that succeeds then.
    pub args: Vec<String>,
    /// An entry of the keychain, on macOS.
    pub keychain: Option<String>,
}

/// A server on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address, which must be this machine's own.
    pub url: String,
    /// A variable that says another.
    #[serde(default)]
    pub env: Option<String>,
    /// How it tells of its models.
    pub models: Models,
}

/// How a server tells of the models that it has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Models {
    /// As Ollama does.
    Ollama,
    /// As LM Studio does.
    LmStudio,
}

impl Models {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
        }
    }
}

/// What an answer tells besides a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gives {
    /// Graphics processors, as `nvidia-smi` lists them.
    Nvidia,
    /// Graphics processors, as `system_profiler` lists them.
    Apple,
}

/// Why a text is no definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct DefinitionError {
    /// The file, or the skill.
    pub place: String,
    /// Why not, and what would be right.
    pub why: String,
}

/// As it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    category: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    os: Vec<String>,
    #[serde(default)]
    programs: Vec<String>,
    args: Option<Vec<String>>,
    pattern: Option<String>,
    version_file: Option<String>,
    ready: Option<Ready>,
    login: Option<Login>,
    server: Option<Server>,
    gives: Option<Gives>,
    every: Option<String>,
    timeout: Option<String>,
    #[serde(default)]
    install: BTreeMap<String, String>,
}

/// The definitions that every agent has, by name.
///
/// # Errors
/// Never, unless fleet was built with a mistake in them.
pub fn builtin() -> Result<BTreeMap<String, Definition>, DefinitionError> {
    let raw: BTreeMap<String, Raw> =
        toml::from_str(include_str!("builtin.toml")).map_err(|e| wrong("builtin.toml", &e))?;
    raw.into_iter()
        .map(|(name, raw)| Ok((name.clone(), raw.checked(&name, None)?)))
        .collect()
}

/// The definition in this text of this file, which names the skill.
///
/// # Errors
/// Where the text, its file's name or one of its values is wrong.
pub fn parse(file: &Path, text: &str) -> Result<Definition, DefinitionError> {
    let shown = file.display().to_string();
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let name = stem.ok_or_else(|| wrong(&shown, &"its name is not UTF-8"))?;
    let raw: Raw = toml::from_str(text).map_err(|e| wrong(&shown, &one_line(&e)))?;
    raw.checked(name, Some(file))
        .map_err(|error| wrong(&shown, &error.why))
}

/// Line, column and message of an error that shows the file, too.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

/// The operator's own definitions in this folder, and what cannot be read of them.
#[must_use]
pub fn own(folder: &Path) -> (BTreeMap<String, Definition>, Vec<DefinitionError>) {
    let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(folder) else {
        return (found, errors);
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    files.sort();
    if files.len() > OWN_MAX {
        let why = format!(
            "{} files, of which the first {OWN_MAX} are read",
            files.len()
        );
        errors.push(wrong(&folder.display().to_string(), &why));
        files.truncate(OWN_MAX);
    }
    for file in files {
        match read(&file) {
            Ok(definition) => drop(found.insert(definition.name.clone(), definition)),
            Err(error) => errors.push(error),
        }
    }
    (found, errors)
}

fn read(file: &Path) -> Result<Definition, DefinitionError> {
    let failed = |why: &dyn std::fmt::Display| wrong(&file.display().to_string(), why);
    let size = std::fs::metadata(file).map_err(|e| failed(&e))?;
    if !size.is_file() || size.len() > FILE_MAX_BYTES {
        return Err(failed(&format!(
            "no file of at most {FILE_MAX_BYTES} bytes"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    parse(file, &text)
}

fn wrong(place: &str, why: &dyn std::fmt::Display) -> DefinitionError {
    DefinitionError {
        place: place.to_owned(),
        why: why.to_string(),
    }
}

impl Raw {
    fn checked(self, name: &str, file: Option<&Path>) -> Result<Definition, DefinitionError> {
        let failed = |why: &dyn std::fmt::Display| wrong(name, why);
        // What could not be needed is no skill: `gpu` and `mem` are requirements of their own.
        let plain: Result<Needs, _> = name.parse();
        if !plain.is_ok_and(|needs| needs.to_string() == name && needs.share().is_nothing()) {
            return Err(failed(&format!(
                "{name:?} is no skill's name: small letters, digits and . _ + / -, and no word that \
                 requirements have, such as gpu or mem"
            )));
        }
        self.check_texts().map_err(|why| failed(&why))?;
        let span = |text: Option<&str>, usual, (least, most)| match text {
            None => Ok(usual),
            Some(text) => duration(text)
                .filter(|span| *span >= least && *span <= most)
                .ok_or_else(|| {
                    let bounds = format!("{} to {}", words(least), words(most));
                    failed(&format!("{text:?} is no time of {bounds}"))
                }),
        };
        let every = span(self.every.as_deref(), EVERY, EVERY_BOUNDS)?;
        let timeout = span(self.timeout.as_deref(), TIMEOUT, TIMEOUT_BOUNDS)?;
        let pattern = pattern(self.pattern.as_deref()).map_err(|why| failed(&why))?;
        if self.programs.is_empty() && self.server.is_none() {
            return Err(failed(
                &"give programs = [\"NAME\"], what it is looked for by",
            ));
        }
        Ok(Definition {
            name: name.to_owned(),
            category: self.category,
            summary: self.summary,
            os: self.os,
            programs: self.programs,
            args: self.args.unwrap_or_else(|| vec!["--version".to_owned()]),
            pattern,
            version_file: self.version_file,
            ready: self.ready,
            login: self.login,
            server: self.server,
            gives: self.gives,
            every,
            timeout,
            install: self.install,
            file: file.map(Path::to_owned),
        })
    }

    /// Whether its lists and texts are of sizes that make sense.
    fn check_texts(&self) -> Result<(), String> {
        let none: &[String] = &[];
        let ready = self.ready.as_ref();
        let login = self.login.as_ref();
        let lists = [
            ("os", self.os.as_slice()),
            ("programs", &self.programs),
            ("args", self.args.as_deref().unwrap_or(none)),
            ("ready.args", ready.map_or(none, |r| &r.args)),
            ("login.env", login.map_or(none, |l| &l.env)),
            ("login.files", login.map_or(none, |l| &l.files)),
            ("login.args", login.map_or(none, |l| &l.args)),
        ];
        let bad = |text: &String| text.len() > TEXT_MAX_BYTES || text.contains('\0');
        for (key, list) in lists {
            if list.len() > LIST_MAX || list.iter().any(bad) {
                return Err(format!(
                    "{key}: at most {LIST_MAX} texts of at most {TEXT_MAX_BYTES} bytes, without NUL"
                ));
            }
        }
        if self.programs.iter().any(String::is_empty) {
            return Err("programs: an empty name".to_owned());
        }
        if self.category.len() > 32 || self.summary.len() > 200 {
            return Err("at most 32 bytes of category and 200 of summary".to_owned());
        }
        let known = |os: &String| ["linux", "macos"].contains(&os.as_str());
        if let Some(os) = self
            .os
            .iter()
            .chain(self.install.keys())
            .find(|os| !known(os))
        {
            return Err(format!("{os:?} is no system: linux or macos"));
        }
        if let Some(server) = &self.server
            && super::http::Address::parse(&server.url).is_none()
        {
            let url = &server.url;
            return Err(format!(
                "{url:?} is no address of this machine: http://127.0.0.1:PORT"
            ));
        }
        Ok(())
    }
}

fn pattern(text: Option<&str>) -> Result<Pattern, String> {
    match text {
        None => Ok(Pattern::Any),
        Some("") => Ok(Pattern::None),
        Some(text) => match text.split_once(VERSION) {
            Some((before, after)) if !after.contains(VERSION) => {
                Ok(Pattern::Between(before.to_owned(), after.to_owned()))
            }
            _ => Err(format!(
                "pattern {text:?} has not one {VERSION}, such as \"version {VERSION}\""
            )),
        },
    }
}

/// `5s`, `10m`, `6h`, `7d`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A span in the unit that says it best.
pub(super) fn words(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        _ if millis.is_multiple_of(86_400_000) => format!("{} d", millis / 86_400_000),
        _ if millis.is_multiple_of(3_600_000) => format!("{} h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{} min", millis / 60_000),
        _ => format!("{} s", millis / 1000),
    }
}

/// What a new definition of this name begins as.
#[must_use]
pub fn scaffold(name: &str) -> String {
    format!(
        r#"# The skill {name}: what `fleet dispatch --needs {name}` needs. Every agent that has this file in
# its FLEET_HOME/skills.d looks for it; `fleet skills probe {name}` has them look now.

category = "tool"
summary = "{name}"

# What it is looked for by: names in PATH, or paths (~ and $VARIABLES are understood); the first that
# is there is asked.
programs = ["{name}"]
args = ["--version"]

# How its version stands in the answer. Left out: the first number that looks like one. Empty: it has
# none, and it is enough that the program succeeds.
# pattern = "{name} {{version}}"

# What must hold besides, asked of the same program.
# ready = {{ args = ["status"], reason = "its daemon does not answer" }}

# How often it is looked at, and how long it may take.
every = "10m"
timeout = "10s"

# What `fleet skills install {name} --on MACHINE` runs there, in a shell.
# install = {{ linux = "@packages {name}", macos = "brew install {name}" }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_many_built_in_and_each_says_what_it_is() {
        let all = builtin().unwrap();
        assert!(all.len() >= 30, "{}", all.len());
        for (name, one) in &all {
            assert!(
                !one.category.is_empty() && !one.summary.is_empty(),
                "{name}"
            );
            assert!(one.timeout < one.every, "{name}");
        }
        let names = "git docker podman tmux node npm pnpm python uv rust cargo go java gradle maven \
                     flutter xcode swift cocoapods android-sdk cmake clang ruff eslint swiftlint \
                     ktlint terraform kubectl ffmpeg claude codex gemini groq ollama lm-studio nvidia \
                     metal";
        for name in names.split_whitespace() {
            assert!(all.contains_key(name), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let file = Path::new("/x/skills.d/vale.toml");
        for (text, why) in [
            (
                "programs = [\"vale\"]\nprogram = \"x\"",
                "unknown field `program`",
            ),
            ("", "give programs = [\"NAME\"]"),
            ("programs = [\"\"]", "an empty name"),
            (
                "programs = [\"a\"]\npattern = \"v\"",
                "has not one {version}",
            ),
            (
                "programs = [\"a\"]\nevery = \"1s\"",
                "\"1s\" is no time of 10 s to 7 d",
            ),
            (
                "programs = [\"a\"]\ntimeout = \"2 weeks\"",
                "is no time of 100 ms to 1 min",
            ),
            (
                "programs = [\"a\"]\nos = [\"beos\"]",
                "\"beos\" is no system",
            ),
            (
                "server = { url = \"http://studio:1\", models = \"ollama\" }",
                "is no address of this machine",
            ),
        ] {
            let error = parse(file, text).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("vale.toml"),
                "{text}: {error}"
            );
        }
        for name in ["gpu", "mem", "Vale", "os", "a b"] {
            let file = PathBuf::from(format!("/x/{name}.toml"));
            let error = parse(&file, "programs = [\"a\"]").unwrap_err();
            assert!(error.why.contains("is no skill's name"), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_scaffolded_can_be_read() {
        let file = Path::new("/x/vale.toml");
        let one = parse(file, &scaffold("vale")).unwrap();
        assert_eq!(
            (one.name.as_str(), &one.programs[..]),
            ("vale", &["vale".to_owned()][..])
        );
    }

    #[test]
    fn files_that_cannot_be_read_do_not_keep_others_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("vale.toml", "programs = [\"vale\"]");
        put("bad.toml", "programs = [");
        put("notes.txt", "programs = [");
        put("large.toml", &"#".repeat(100_000));
        let (found, errors) = own(folder.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["vale"]);
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(own(Path::new("/nowhere")).0.is_empty());
    }
}
