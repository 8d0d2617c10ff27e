//! What a role asks for beside its message: parameters with a type, limits and help. Pure.

use serde::{Deserialize, Serialize};

use super::definition::is_line;
use crate::prefix;

/// Longest value, in bytes.
pub(crate) const VALUE_MAX_BYTES: usize = 8 * 1024;

/// What a parameter can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Any text.
    #[default]
    Text,
    /// One word that no program takes for a flag: no white space, no `-` in front.
    Name,
    /// A whole number.
    Number,
    /// Yes or no.
    Boolean,
    /// One of [`Param::choices`].
    Choice,
    /// A path on the machine that runs it; no `-` in front.
    Path,
}

impl Kind {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Name => "name",
            Self::Number => "number",
            Self::Boolean => "yes or no",
            Self::Choice => "choice",
            Self::Path => "path",
        }
    }
}

/// A default as it can be written in TOML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Literal {
    /// `true`
    Boolean(bool),
    /// `4`
    Number(i64),
    /// `"main"`
    Text(String),
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Param {
    /// What it is for, on one line.
    pub(crate) help: String,
    /// What it can be.
    #[serde(default, rename = "type")]
    pub(crate) kind: Kind,
    /// Its value where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<Literal>,
    /// Whether one must be given.
    #[serde(default)]
    pub(crate) required: bool,
    /// What a choice is between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) choices: Vec<String>,
    /// Where none is given: the first of the choices that is a skill of a machine that may take the
    /// job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) by_skill: bool,
    /// Least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<i64>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<i64>,
}

impl Param {
    /// Whether it has a value whatever is given.
    pub(crate) fn always_set(&self) -> bool {
        self.required || self.default.is_some() || self.by_skill || self.kind == Kind::Boolean
    }

    /// What holds where nothing is given.
    pub(crate) fn unless_given(&self) -> Option<String> {
        match (&self.default, self.kind) {
            (Some(default), _) => Some(default.to_string()),
            (None, Kind::Boolean) => Some("false".to_owned()),
            (None, _) => None,
        }
    }

    /// A value that was given, in its one form; why it is none in words.
    pub(crate) fn read(&self, text: &str) -> Result<String, String> {
        if text.len() > VALUE_MAX_BYTES {
            let limit = VALUE_MAX_BYTES / 1024;
            return Err(format!(
                "a value of {} bytes is over the limit of {limit} KiB: give a long text as the message, -m",
                text.len()
            ));
        }
        if text.contains('\0') {
            return Err("a NUL byte is in the value, which no program can receive".to_owned());
        }
        let shown = || {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?}")
        };
        let dash = |what: &str| {
            let why = format!("{} begins with a dash: a {what} does not", shown());
            (text.starts_with('-')).then_some(why)
        };
        match self.kind {
            Kind::Text => Ok(text.to_owned()),
            Kind::Path if text.is_empty() => Err("the path is empty".to_owned()),
            Kind::Path => dash("path").map_or_else(|| Ok(text.to_owned()), Err),
            Kind::Name if text.is_empty() => Err("it is empty".to_owned()),
            Kind::Name if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                Err(format!("{} has white space: it must be one word", shown()))
            }
            Kind::Name => dash("name").map_or_else(|| Ok(text.to_owned()), Err),
            Kind::Number => self.number(text),
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok("true".to_owned()),
                "false" | "no" | "off" | "0" => Ok("false".to_owned()),
                _ => Err(format!("{} is neither yes nor no", shown())),
            },
            Kind::Choice if self.choices.iter().any(|choice| choice == text) => Ok(text.to_owned()),
            Kind::Choice => {
                let all = self.choices.join(", ");
                let near = prefix::nearest(text, self.choices.iter().map(String::as_str));
                Err(match near.first() {
                    Some(near) => format!("{} is not one of {all}: nearest is {near}", shown()),
                    None => format!("{} is not one of {all}", shown()),
                })
            }
        }
    }

    fn number(&self, text: &str) -> Result<String, String> {
        let shown: String = text.chars().take(80).collect();
        let number: i64 = text
            .parse()
            .map_err(|_| format!("{shown:?} is no whole number"))?;
        let out = |bound: String| Err(format!("{number} is out of bounds: {bound}"));
        match (self.min, self.max) {
            (Some(min), Some(max)) if number < min || number > max => {
                out(format!("use {min} to {max}"))
            }
            (Some(min), _) if number < min => out(format!("use at least {min}")),
            (_, Some(max)) if number > max => out(format!("use at most {max}")),
            _ => Ok(number.to_string()),
        }
    }

    /// Checks the parameter itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_line(&self.help) {
            return Err("help must be one line that says what it is for".to_owned());
        }
        let numbers = self.min.is_some() || self.max.is_some();
        if numbers && self.kind != Kind::Number {
            return Err("min and max are for type = \"number\"".to_owned());
        }
        match self.kind {
            Kind::Choice if self.choices.is_empty() => {
                return Err("a choice needs choices = [\"one\", \"another\"]".to_owned());
            }
            // A shell that completes them puts them on its command line as they are.
            Kind::Choice if !self.choices.iter().all(|choice| is_choice(choice)) => {
                let why = "choices are words of letters, digits and . _ + : / @ % -";
                return Err(why.to_owned());
            }
            Kind::Choice => {}
            _ if !self.choices.is_empty() => {
                return Err("choices are for type = \"choice\"".to_owned());
            }
            _ if self.by_skill => return Err("by_skill is for type = \"choice\"".to_owned()),
            _ => {}
        }
        if self.required && (self.default.is_some() || self.by_skill) {
            return Err("what is required has no default".to_owned());
        }
        if let Some(default) = &self.default {
            self.read(&default.to_string())
                .map_err(|why| format!("default: {why}"))?;
        }
        Ok(())
    }
}

fn is_choice(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._+:/@%-".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(text: &str) -> Param {
        toml::from_str(&format!("help = \"x\"\n{text}")).unwrap()
    }

    #[test]
    fn values_are_read_by_their_type() {
        let choice = "type = \"choice\"\nchoices = [\"debug\", \"release\"]";
        for (of, text, expected) in [
            ("", "-any text", Ok("-any text")),
            ("type = \"number\"", "007", Ok("7")),
            ("type = \"number\"", "x", Err("\"x\" is no whole number")),
            (
                "type = \"number\"\nmin = 1\nmax = 9",
                "10",
                Err("10 is out of bounds: use 1 to 9"),
            ),
            (
                "type = \"number\"\nmin = 1",
                "0",
                Err("0 is out of bounds: use at least 1"),
            ),
            ("type = \"boolean\"", "Yes", Ok("true")),
            (
                "type = \"boolean\"",
                "maybe",
                Err("\"maybe\" is neither yes nor no"),
            ),
            (choice, "release", Ok("release")),
            (
                choice,
                "relase",
                Err("\"relase\" is not one of debug, release: nearest is release"),
            ),
            ("type = \"name\"", "main", Ok("main")),
            (
                "type = \"name\"",
                "--upload-pack=x",
                Err("\"--upload-pack=x\" begins with a dash: a name does not"),
            ),
            (
                "type = \"name\"",
                "a b",
                Err("\"a b\" has white space: it must be one word"),
            ),
            (
                "type = \"path\"",
                "-rf",
                Err("\"-rf\" begins with a dash: a path does not"),
            ),
            ("type = \"path\"", "~/a b", Ok("~/a b")),
            (
                "",
                "a\0b",
                Err("a NUL byte is in the value, which no program can receive"),
            ),
        ] {
            let read = param(of).read(text);
            assert_eq!(
                read,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{of} {text}"
            );
        }
        assert!(param("").read(&"x".repeat(VALUE_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn a_parameter_that_cannot_be_is_refused() {
        for (text, why) in [
            (
                "type = \"choice\"",
                "a choice needs choices = [\"one\", \"another\"]",
            ),
            (
                "type = \"choice\"\nchoices = [\"x;curl\"]",
                "choices are words of letters, digits and . _ + : / @ % -",
            ),
            ("choices = [\"a\"]", "choices are for type = \"choice\""),
            ("min = 1", "min and max are for type = \"number\""),
            (
                "default = \"a\"\nrequired = true",
                "what is required has no default",
            ),
            (
                "type = \"number\"\ndefault = \"a\"",
                "default: \"a\" is no whole number",
            ),
        ] {
            assert_eq!(param(text).check(), Err(why.to_owned()), "{text}");
        }
        assert_eq!(param("type = \"number\"\ndefault = 4").check(), Ok(()));
    }
}
