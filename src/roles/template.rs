//! Text with places for values: `--to={target}`. `{{` and `}}` are the braces themselves. Pure.

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// A place that does not end.
    #[error("{0:?} has a {{ that is not closed: write {{NAME}}, or {{{{ for the brace itself")]
    Open(String),
    /// An end without a place.
    #[error("{0:?} has a }} with nothing before it: write }}}} for the brace itself")]
    Stray(String),
}

impl Template {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            rest = if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                after
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                after
            } else if let Some(inside) = from.strip_prefix('{') {
                let open = || TemplateError::Open(text.to_owned());
                let (name, after) = inside.split_once('}').ok_or_else(open)?;
                if name.contains('{') {
                    return Err(open());
                }
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Value(name.to_owned()));
                after
            } else {
                return Err(TemplateError::Stray(text.to_owned()));
            };
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// The names of its places.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with its values; the name of a place that has none is the error.
    pub(crate) fn fill<'a>(
        &'a self,
        value: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<String, &'a str> {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => Ok(text.as_str()),
                Part::Value(name) => value(name).ok_or(name.as_str()),
            })
            .collect()
    }
}

/// Where a word stands only if something holds: `model`, `!model`, `permission=edit`,
/// `target=ios|macos`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// The parameter.
    pub(crate) name: String,
    /// What it must be one of; none is anything but unset and `false`.
    pub(crate) is: Vec<String>,
    /// Whether the opposite is meant.
    pub(crate) not: bool,
}

impl Condition {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Self {
        let (not, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, is) = match text.split_once('=') {
            Some((name, values)) => (name, values.split('|').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        Self {
            name: name.to_owned(),
            is,
            not,
        }
    }

    /// Whether it holds where the parameter has this value.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        let plain = match self.is.is_empty() {
            true => value.is_some_and(|value| value != "false"),
            false => self.is.iter().any(|is| value == Some(is.as_str())),
        };
        plain != self.not
    }

    /// Whether it says that the parameter has a value.
    pub(crate) fn promises(&self, name: &str) -> bool {
        self.name == name && !self.not
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let template = Template::parse(text).map_err(|e| e.to_string())?;
        let value = |name: &str| (name == "a").then_some("{x}");
        template.fill(value).map_err(|name| format!("no {name}"))
    }

    #[test]
    fn places_are_filled_once_and_braces_can_be_written() {
        for (text, expected) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("--to={a}", Ok("--to={x}")),
            ("{a}{a}", Ok("{x}{x}")),
            ("{{\"k\": 1}}", Ok("{\"k\": 1}")),
            ("{{{a}}}", Ok("{{x}}")),
            ("ünï {a} é", Ok("ünï {x} é")),
            ("{b}", Err("no b")),
            (
                "{a",
                Err("\"{a\" has a { that is not closed: write {NAME}, or {{ for the brace itself"),
            ),
            (
                "a}",
                Err("\"a}\" has a } with nothing before it: write }} for the brace itself"),
            ),
        ] {
            assert_eq!(
                filled(text),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn a_condition_is_set_unset_or_a_value() {
        for (text, value, holds) in [
            ("model", None, false),
            ("model", Some("x"), true),
            ("fast", Some("false"), false),
            ("fast", Some("true"), true),
            ("!model", None, true),
            ("a=b", Some("b"), true),
            ("a=b", Some("c"), false),
            ("!a=b", Some("c"), true),
            ("a=b|c", Some("c"), true),
            ("a=b|c", Some("d"), false),
        ] {
            assert_eq!(
                Condition::parse(text).holds(value),
                holds,
                "{text} {value:?}"
            );
        }
    }
}
