//! A role and what was given for it become a command in its world. Pure.

use std::collections::BTreeMap;

use fleet_contract::spec::{FromRole, OnLost, Priority};

use super::Role;
use super::definition::{Conditional, Definition, MESSAGE, MessageRule, PROJECT, Word, variable};
use super::param::Param;
use super::template::{Condition, Template};
use crate::prefix;

/// Most of a message's first line in a job's name, in characters.
const TITLE_CHARS: usize = 60;

/// What was given for a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Values by parameter, as they were typed.
    pub(crate) values: BTreeMap<String, String>,
    /// The message.
    pub(crate) message: Option<String>,
    /// The project's folder.
    pub(crate) project: Option<String>,
}

/// What a role is for once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Resolved {
    /// Program and arguments, or one line for a shell.
    pub(crate) command: Vec<String>,
    /// Whether it is for a shell.
    pub(crate) shell: bool,
    /// Standard input.
    pub(crate) stdin: Option<String>,
    /// Folder, as if typed after `--cwd`.
    pub(crate) cwd: Option<String>,
    /// Requirements.
    pub(crate) needs: Vec<String>,
    /// Variables.
    pub(crate) env: BTreeMap<String, String>,
    /// Longest run.
    pub(crate) timeout: Option<String>,
    /// How long it may wait.
    pub(crate) expires: Option<String>,
    /// What to do when its machine is gone.
    pub(crate) on_lost: Option<OnLost>,
    /// How urgent it is.
    pub(crate) priority: Option<Priority>,
    /// What people call the job.
    pub(crate) name: Option<String>,
    /// What travels in the job.
    pub(crate) from: Option<FromRole>,
}

/// Why there is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// A parameter the role does not have.
    #[error("role {role} has no parameter {name:?}{near}")]
    Unknown {
        role: String,
        name: String,
        near: String,
    },
    /// A value that its parameter cannot have.
    #[error("{name}: {why}")]
    Value { name: String, why: String },
    /// A parameter that must be given.
    #[error("role {role} needs {name}=…: {help}")]
    Missing {
        role: String,
        name: String,
        help: String,
    },
    /// No message, where there must be one.
    #[error("role {0} needs a message: -m TEXT, -m - for standard input, or --message-file FILE")]
    NoMessage(String),
    /// A message, where nobody would read it.
    #[error("role {0} takes no message")]
    Message(String),
    /// No folder, where the role runs in one.
    #[error("role {0} runs in a project's folder, and the current folder cannot be used as one")]
    NoProject(String),
    /// A value that would be more than one requirement.
    #[error("{name}: {value:?} stands in a requirement: no commas there")]
    Comma { name: String, value: String },
    /// No case holds.
    #[error("role {0} has no command for what was given")]
    NoCase(String),
}

impl Role {
    /// The parameters that are still to be chosen by what machines can do, with their choices.
    pub(crate) fn to_choose<'a>(
        &'a self,
        given: &'a Given,
    ) -> impl Iterator<Item = (&'a str, &'a Param)> {
        let params = self.definition.params.iter();
        params
            .filter(|(name, param)| {
                param.by_skill && param.default.is_none() && !given.values.contains_key(*name)
            })
            .map(|(name, param)| (name.as_str(), param))
    }

    /// The needs of the role itself and, where this parameter has this value, of its case.
    pub(crate) fn needs_if(&self, name: &str, value: &str) -> Vec<String> {
        let of_case = self.definition.cases.iter().filter(|case| {
            let when = Condition::parse(&case.when);
            when.name == name && when.holds(Some(value))
        });
        let needs = self.definition.needs.iter();
        let plain = |text: &&String| !text.contains(['{', '}']);
        needs
            .chain(of_case.flat_map(|case| &case.needs))
            .filter(plain)
            .cloned()
            .collect()
    }

    /// The command and its world.
    ///
    /// # Errors
    /// What was given does not fit, in words.
    pub(crate) fn resolve(&self, given: &Given) -> Result<Resolved, ResolveError> {
        let Definition {
            params,
            cases,
            message,
            ..
        } = &self.definition;
        let values = self.values(given)?;
        match (message, &given.message) {
            (MessageRule::Required, None) => {
                return Err(ResolveError::NoMessage(self.name.clone()));
            }
            (MessageRule::None, Some(_)) => return Err(ResolveError::Message(self.name.clone())),
            _ => {}
        }
        let in_project = |text: &String| text.contains("{project}");
        if given.project.is_none() && self.definition.cwd.as_ref().is_some_and(in_project) {
            return Err(ResolveError::NoProject(self.name.clone()));
        }
        let filler = Filler {
            given,
            values: &values,
        };
        let case = cases
            .iter()
            .find(|case| filler.holds(&Condition::parse(&case.when)));
        if !cases.is_empty() && case.is_none() {
            return Err(ResolveError::NoCase(self.name.clone()));
        }
        let (script, words) = match case {
            Some(case) => (&case.script, &case.command),
            None => (&self.definition.script, &self.definition.command),
        };
        let command = match script {
            Some(script) => vec![script.clone()],
            None => filler.words(words),
        };
        let of_case = case.into_iter().flat_map(|case| &case.needs);
        let needs = self.definition.needs.iter().chain(of_case);
        let templates: Vec<Template> = needs
            .clone()
            .filter_map(|text| Template::parse(text).ok())
            .collect();
        for name in templates.iter().flat_map(Template::names) {
            if let Some(value) = values.get(name).filter(|value| value.contains(',')) {
                return Err(ResolveError::Comma {
                    name: name.to_owned(),
                    value: value.clone(),
                });
            }
        }
        let mut env: BTreeMap<String, String> = values
            .iter()
            .filter(|(name, _)| params.contains_key(*name))
            .map(|(name, value)| (variable(name), value.clone()))
            .collect();
        let own = self.definition.env.iter();
        env.extend(own.map(|(name, text)| (name.clone(), filler.text(text))));
        Ok(Resolved {
            command,
            shell: script.is_some(),
            stdin: self.definition.stdin.as_ref().map(|t| filler.text(t)),
            cwd: self.definition.cwd.as_ref().map(|t| filler.text(t)),
            needs: needs.map(|text| filler.text(text)).collect(),
            env,
            timeout: self.definition.timeout.clone(),
            expires: self.definition.expires.clone(),
            on_lost: self.definition.on_lost,
            priority: self.definition.priority,
            name: Some(self.title(given, &values)),
            from: Some(FromRole {
                name: self.name.clone(),
                hash: self.hash(),
                params: values,
            }),
        })
    }

    /// Every parameter's value; those without one are left out.
    fn values(&self, given: &Given) -> Result<BTreeMap<String, String>, ResolveError> {
        let params = &self.definition.params;
        if let Some(name) = given.values.keys().find(|name| !params.contains_key(*name)) {
            let near = prefix::nearest(name, params.keys().map(String::as_str));
            let near = match (near.first(), params.is_empty()) {
                (Some(near), _) => format!(": nearest is {near}"),
                (None, true) => ": it takes none".to_owned(),
                (None, false) => {
                    let names: Vec<&str> = params.keys().map(String::as_str).collect();
                    format!(": there are {}", names.join(", "))
                }
            };
            return Err(ResolveError::Unknown {
                role: self.name.clone(),
                name: name.clone(),
                near,
            });
        }
        let mut values = BTreeMap::new();
        for (name, param) in params {
            let value = match given.values.get(name) {
                Some(text) => Some(param.read(text).map_err(|why| ResolveError::Value {
                    name: name.clone(),
                    why,
                })?),
                None => param.unless_given(),
            };
            match value {
                Some(value) => {
                    values.insert(name.clone(), value);
                }
                None if param.required || param.by_skill => {
                    return Err(ResolveError::Missing {
                        role: self.name.clone(),
                        name: name.clone(),
                        help: param.help.clone(),
                    });
                }
                None => {}
            }
        }
        Ok(values)
    }

    /// What people call the job: the role, then its message or what was given.
    fn title(&self, given: &Given, values: &BTreeMap<String, String>) -> String {
        let plain = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).collect() };
        let line = given.message.as_deref().and_then(|text| {
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| !line.is_empty())
        });
        if let Some(line) = line {
            let short: String = plain(line).chars().take(TITLE_CHARS).collect();
            return format!("{}: {short}", self.name);
        }
        let typed = given.values.keys();
        let typed = typed.filter_map(|name| Some(format!(" {name}={}", plain(values.get(name)?))));
        let title = format!("{}{}", self.name, typed.collect::<String>());
        title.chars().take(TITLE_CHARS).collect()
    }
}

struct Filler<'a> {
    given: &'a Given,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Filler<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        match name {
            MESSAGE => self.given.message.as_deref(),
            PROJECT => self.given.project.as_deref(),
            name => self.values.get(name).map(String::as_str),
        }
    }

    fn holds(&self, when: &Condition) -> bool {
        when.holds(self.value(&when.name))
    }

    /// The text with its values. The definition was checked: what may have none stands under a
    /// condition, or is nothing there.
    fn text(&self, text: &str) -> String {
        let Ok(template) = Template::parse(text) else {
            return text.to_owned();
        };
        template
            .fill(|name| Some(self.value(name).unwrap_or_default()))
            .unwrap_or_default()
    }

    fn words(&self, words: &[Word]) -> Vec<String> {
        let mut out = Vec::new();
        for word in words {
            match word {
                Word::Always(text) => out.push(self.text(text)),
                Word::When(Conditional { when, args }) => {
                    if self.holds(&Condition::parse(when)) {
                        out.extend(args.iter().map(|text| self.text(text)));
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::Origin;

    const DEPLOY: &str = r#"
        help = "Deploy"
        message = "optional"
        command = ["./deploy", "--to={to}", { when = "fast", args = ["--fast"] }, { when = "message", args = ["-m", "{message}"] }]
        needs = ["git", "site={to}"]
        cwd = "{project}/ops"
        env = { TO = "{to}", NOTE = "{message}" }
        [params.to]
        type = "choice"
        choices = ["ams", "fra"]
        required = true
        help = "Where"
        [params.fast]
        type = "boolean"
        help = "Skip checks"
    "#;

    fn role() -> Role {
        Role {
            name: "deploy".to_owned(),
            origin: Origin::Shipped,
            definition: Definition::parse(DEPLOY).unwrap(),
        }
    }

    fn given(values: &[(&str, &str)], message: Option<&str>) -> Given {
        let values = values
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Given {
            values: values.collect(),
            message: message.map(str::to_owned),
            project: Some("/home/ana/app".to_owned()),
        }
    }

    #[test]
    fn a_role_becomes_a_command_and_what_was_given_is_data() {
        let given = given(
            &[("to", "fra"), ("fast", "yes")],
            Some("now; rm -rf /\nand more"),
        );
        let job = role().resolve(&given).unwrap();
        assert_eq!(
            job.command,
            [
                "./deploy",
                "--to=fra",
                "--fast",
                "-m",
                "now; rm -rf /\nand more"
            ]
        );
        assert_eq!(job.needs, ["git", "site=fra"]);
        assert_eq!(job.cwd.as_deref(), Some("/home/ana/app/ops"));
        assert_eq!(job.env["TO"], "fra");
        assert_eq!(job.env["FLEET_PARAM_FAST"], "true");
        assert_eq!(job.name.as_deref(), Some("deploy: now; rm -rf /"));
        let from = job.from.unwrap();
        assert_eq!(
            (from.params["to"].as_str(), from.hash),
            ("fra", role().hash())
        );
    }

    #[test]
    fn what_is_not_given_leaves_no_trace() {
        let job = role().resolve(&given(&[("to", "ams")], None)).unwrap();
        assert_eq!(job.command, ["./deploy", "--to=ams"]);
        assert_eq!(job.env["NOTE"], "");
        assert_eq!(job.env["FLEET_PARAM_FAST"], "false");
        assert_eq!(job.name.as_deref(), Some("deploy to=ams"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        for (values, why) in [
            (&[][..], "role deploy needs to=…: Where"),
            (
                &[("too", "ams")],
                "role deploy has no parameter \"too\": nearest is to",
            ),
            (
                &[("to", "amss")],
                "to: \"amss\" is not one of ams, fra: nearest is ams",
            ),
        ] {
            let error = role().resolve(&given(values, None)).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
