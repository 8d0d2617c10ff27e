//! A role as it is written in TOML, and what is wrong with one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fleet_contract::needs::Needs;
use fleet_contract::spec::{OnLost, Priority, ROLE_NAME_MAX_BYTES, ROLE_PARAMS_MAX};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::param::{Kind, Param};
use super::template::{Condition, Template};
use crate::words;

/// The message's name in templates and conditions.
pub(crate) const MESSAGE: &str = "message";
/// The project's folder in `cwd`.
pub(crate) const PROJECT: &str = "project";
/// Programs that read an argument as a script.
const SHELLS: [&str; 5] = ["sh", "bash", "zsh", "dash", "ksh"];

/// Whether a message belongs to a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageRule {
    /// It has no use for one.
    #[default]
    None,
    /// It may have one.
    Optional,
    /// It must have one.
    Required,
}

/// A word of a command, or words that stand there only if something holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    /// One word.
    Always(String),
    /// Words under a condition.
    When(Conditional),
}

/// `{ when = "model", args = ["--model", "{model}"] }`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conditional {
    /// What must hold.
    pub(crate) when: String,
    /// The words.
    pub(crate) args: Vec<String>,
}

/// One of several commands, chosen by a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What must hold.
    pub(crate) when: String,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<Word>,
    /// Instead: text for `/bin/sh`, as in [`Definition::script`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) script: Option<String>,
    /// What its machine must have, beside what the role needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<String>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// What it does, on one line.
    pub(crate) help: String,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<Word>,
    /// Instead: text for `/bin/sh`. Parameters reach it as `FLEET_PARAM_NAME`, never as text of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) script: Option<String>,
    /// Instead: several commands, of which the first holds whose condition does.
    #[serde(default, rename = "case", skip_serializing_if = "Vec::is_empty")]
    pub(crate) cases: Vec<Case>,
    /// Whether a message belongs to it.
    #[serde(default)]
    pub(crate) message: MessageRule,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stdin: Option<String>,
    /// Its folder; `{project}` is the project's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<String>,
    /// What its machine must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<String>,
    /// Its variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    /// Longest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
    /// How long it may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// What to do when its machine is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_lost: Option<OnLost>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<Priority>,
    /// What it asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) params: BTreeMap<String, Param>,
}

/// Whether this is a line of text for people.
pub(super) fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// Whether this can be the name of a role or a parameter.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    text.len() <= ROLE_NAME_MAX_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(fits)
}

impl Definition {
    /// The definition in a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let read: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                let before = text.as_bytes().get(..span.start).unwrap_or_default();
                before.iter().filter(|&&b| b == b'\n').count() + 1
            });
            format!("line {line}: {}", error.message())
        })?;
        read.checked()
    }

    /// The definition in a table of a project's file.
    pub(crate) fn of(table: toml::Value) -> Result<Self, String> {
        let read: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| e.message().to_owned())?;
        read.checked()
    }

    /// What tells this definition from every other: 16 hex digits of a hash over all of it.
    pub(crate) fn hash(&self) -> String {
        // Its own fields always serialize: texts, numbers and maps with texts as keys.
        let text = serde_json::to_string(self).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8])
    }

    fn checked(self) -> Result<Self, String> {
        if !is_line(&self.help) {
            return Err("help must be one line that says what it does".to_owned());
        }
        let ways = [
            !self.command.is_empty(),
            self.script.is_some(),
            !self.cases.is_empty(),
        ];
        if ways.iter().filter(|&&way| way).count() != 1 {
            return Err("give exactly one of command, script and [[case]]".to_owned());
        }
        self.check_params()?;
        self.check_texts()?;
        for span in [&self.timeout, &self.expires].into_iter().flatten() {
            words::parse_duration(span)?;
        }
        for name in self.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("FLEET_") {
                return Err(format!("env: {name:?} cannot be set by a role"));
            }
        }
        Ok(self)
    }

    fn check_params(&self) -> Result<(), String> {
        if self.params.len() > ROLE_PARAMS_MAX {
            let count = self.params.len();
            return Err(format!(
                "{count} parameters are over the limit of {ROLE_PARAMS_MAX}"
            ));
        }
        let mut variables = BTreeSet::new();
        for (name, param) in &self.params {
            if !is_name(name) || [MESSAGE, PROJECT].contains(&name.as_str()) {
                return Err(format!(
                    "params.{name}: no name for a parameter: use a-z, 0-9, - and _, a letter first, \
                     and neither {MESSAGE} nor {PROJECT}"
                ));
            }
            if crate::args::dispatch::is_flag(name) {
                return Err(format!(
                    "params.{name}: --{name} is a flag of fleet dispatch: use another name"
                ));
            }
            if !variables.insert(variable(name)) {
                return Err(format!(
                    "params.{name}: another one reaches the job as {}, too: use another name",
                    variable(name)
                ));
            }
            param
                .check()
                .map_err(|why| format!("params.{name}: {why}"))?;
        }
        Ok(())
    }

    /// Every place and condition names something that has a value there, and the message goes
    /// somewhere.
    fn check_texts(&self) -> Result<(), String> {
        let mut used = BTreeSet::new();
        let none: &[Condition] = &[];
        let words = |at: &str, words: &[Word], given: &[Condition], used: &mut _| {
            no_script_of_values(at, words)?;
            for word in words {
                match word {
                    Word::Always(text) => self.check_text(at, text, given, used)?,
                    Word::When(Conditional { when, args }) => {
                        let when = self.condition(at, when)?;
                        let given: Vec<_> = given.iter().cloned().chain([when]).collect();
                        for text in args {
                            self.check_text(at, text, &given, used)?;
                        }
                    }
                }
            }
            Ok::<(), String>(())
        };
        words("command", &self.command, none, &mut used)?;
        for case in &self.cases {
            let when = [self.condition("case", &case.when)?];
            if case.command.is_empty() != case.script.is_some() {
                return Err(format!(
                    "case {}: give one of command and script",
                    case.when
                ));
            }
            words("case", &case.command, &when, &mut used)?;
            for text in &case.needs {
                self.check_need(text, &when, &mut used)?;
            }
        }
        for text in &self.needs {
            self.check_need(text, none, &mut used)?;
        }
        let texts = [("stdin", &self.stdin), ("cwd", &self.cwd)];
        let texts = texts
            .into_iter()
            .filter_map(|(at, text)| Some((at, text.as_ref()?)));
        for (at, text) in texts.chain(self.env.values().map(|text| ("env", text))) {
            self.check_text(at, text, none, &mut used)?;
        }
        match (self.message, used.contains(MESSAGE)) {
            (MessageRule::None, true) => Err(
                "{message} is used but message = \"required\" or \"optional\" is not said"
                    .to_owned(),
            ),
            (MessageRule::Required | MessageRule::Optional, false) => {
                Err("the message goes nowhere: use {message} in command, stdin or env".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// A value that goes into a requirement may not be several, or any text.
    fn check_need(
        &self,
        text: &str,
        given: &[Condition],
        used: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        self.check_text("needs", text, given, used)?;
        let template = Template::parse(text);
        for name in template.iter().flat_map(Template::names) {
            let param = self.params.get(name);
            if param.is_none_or(|p| matches!(p.kind, Kind::Text | Kind::Path)) {
                return Err(format!(
                    "needs: {{{name}}} can be any text: use a parameter of type name, choice or number"
                ));
            }
        }
        // One with a value in it is known to be good only with the value.
        if Template::parse(text).is_ok_and(|t| t.names().next().is_none()) {
            Needs::parse([text]).map_err(|error| format!("needs: {error}"))?;
        }
        Ok(())
    }

    fn check_text(
        &self,
        at: &str,
        text: &str,
        given: &[Condition],
        used: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        let template = Template::parse(text).map_err(|error| format!("{at}: {error}"))?;
        for name in template.names() {
            if name == PROJECT && at == "cwd" {
                continue;
            }
            let promised = given.iter().any(|when| when.promises(name));
            let set = match (name, self.params.get(name)) {
                (MESSAGE, _) => self.message != MessageRule::Optional,
                (_, Some(param)) => param.always_set(),
                (_, None) => {
                    return Err(format!(
                        "{at}: {{{name}}} is no parameter: {}",
                        self.names()
                    ));
                }
            };
            if !set && !promised && at != "stdin" && at != "env" {
                return Err(format!(
                    "{at}: {{{name}}} may have no value: give it a default, or write \
                     {{ when = \"{name}\", args = [{text:?}] }}"
                ));
            }
            used.insert(name.to_owned());
        }
        Ok(())
    }

    fn condition(&self, at: &str, text: &str) -> Result<Condition, String> {
        let condition = Condition::parse(text);
        if condition.name == MESSAGE {
            return Ok(condition);
        }
        let Some(param) = self.params.get(&condition.name) else {
            return Err(format!(
                "{at}: when = {text:?} asks for {:?}, which is no parameter: {}",
                condition.name,
                self.names()
            ));
        };
        for value in &condition.is {
            param
                .read(value)
                .map_err(|why| format!("{at}: when = {text:?}: {why}"))?;
        }
        Ok(condition)
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.params.keys().map(String::as_str).collect();
        match names.is_empty() {
            true => "there are none".to_owned(),
            false => format!("there are {}", names.join(", ")),
        }
    }
}

/// The variable that a parameter reaches the job as.
pub(super) fn variable(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace('-', "_");
    format!("FLEET_PARAM_{name}")
}

/// A value put into the text of a script would be read as a part of it.
fn no_script_of_values(at: &str, words: &[Word]) -> Result<(), String> {
    let plain: Vec<&str> = words
        .iter()
        .map_while(|word| match word {
            Word::Always(text) => Some(text.as_str()),
            Word::When(_) => None,
        })
        .collect();
    let program = plain.first().and_then(|text| text.rsplit('/').next());
    if !program.is_some_and(|program| SHELLS.contains(&program)) {
        return Ok(());
    }
    let script = plain.iter().position(|text| *text == "-c");
    let script = script.and_then(|at| plain.get(at + 1));
    let Some(Ok(template)) = script.map(|text| Template::parse(text)) else {
        return Ok(());
    };
    match template.names().next() {
        Some(name) => Err(format!(
            "{at}: {{{name}}} would be read as a part of the script: use \"${}\" there",
            variable(name)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_role_is_said() {
        for (text, why) in [
            ("command = [\"x\"]", "line 1: missing field `help`"),
            (
                "help = \"h\"",
                "give exactly one of command, script and [[case]]",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\nscript = \"y\"",
                "give exactly one of command, script and [[case]]",
            ),
            (
                "help = \"h\"\ncommand = [\"{to}\"]",
                "command: {to} is no parameter: there are none",
            ),
            (
                "help = \"h\"\ncommand = [\"x\", \"{to}\"]\n[params.to]\nhelp = \"t\"",
                "command: {to} may have no value: give it a default, or write { when = \"to\", args = [\"{to}\"] }",
            ),
            (
                "help = \"h\"\ncommand = [\"x\", \"{message}\"]",
                "{message} is used but message = \"required\" or \"optional\" is not said",
            ),
            (
                "help = \"h\"\nmessage = \"required\"\ncommand = [\"x\"]",
                "the message goes nowhere: use {message} in command, stdin or env",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\n[params.wait]\nhelp = \"t\"",
                "params.wait: --wait is a flag of fleet dispatch: use another name",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\n[params.W]\nhelp = \"t\"",
                "params.W: no name for a parameter: use a-z, 0-9, - and _, a letter first, and neither message nor project",
            ),
            (
                "help = \"h\"\ncommand = [\"x\", { when = \"fast\", args = [] }]",
                "command: when = \"fast\" asks for \"fast\", which is no parameter: there are none",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\ntimeout = \"soon\"",
                "\"soon\" is not a duration: write it like 30s, 10m, 1h30m or 250ms",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\n[env]\nFLEET_JOB = \"1\"",
                "env: \"FLEET_JOB\" cannot be set by a role",
            ),
            (
                "help = \"h\"\ncommand = [\"sh\", \"-c\", \"rm {to}\"]\n[params.to]\nhelp = \"t\"\nrequired = true",
                "command: {to} would be read as a part of the script: use \"$FLEET_PARAM_TO\" there",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\nneeds = [\"site={to}\"]\n[params.to]\nhelp = \"t\"\nrequired = true",
                "needs: {to} can be any text: use a parameter of type name, choice or number",
            ),
            (
                "help = \"h\"\ncommand = [\"x\"]\n[params.a-b]\nhelp = \"t\"\n[params.a_b]\nhelp = \"t\"",
                "params.a_b: another one reaches the job as FLEET_PARAM_A_B, too: use another name",
            ),
            (
                "help = \"h\\u001b\"\ncommand = [\"x\"]",
                "help must be one line that says what it does",
            ),
        ] {
            assert_eq!(Definition::parse(text).unwrap_err(), why, "{text}");
        }
        let unknown = "help = \"h\"\n\ncomand = [\"x\"]";
        let why = Definition::parse(unknown).unwrap_err();
        assert!(why.starts_with("line 3: unknown field `comand`"), "{why}");
    }

    #[test]
    fn the_hash_changes_with_anything_and_not_with_comments() {
        let hash = |text: &str| Definition::parse(text).unwrap().hash();
        let one = hash("help = \"h\"\ncommand = [\"x\"]");
        assert_eq!(one.len(), 16);
        assert_eq!(one, hash("# why\ncommand = ['x']\nhelp = \"h\""));
        assert_ne!(one, hash("help = \"h\"\ncommand = [\"x\", \"y\"]"));
    }
}
