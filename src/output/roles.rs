//! Roles as lists and in detail.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::escape::one_line;
use super::style::Paint;
use super::table::{Cell, Column, Table};
use super::{Answer, Look};
use crate::roles::{Broken, Case, Conditional, Definition, MessageRule, Param, Role, Word};

/// A role in a list.
#[derive(Debug, Serialize)]
pub(crate) struct RoleRow {
    role: Option<String>,
    help: Option<String>,
    needs: Vec<String>,
    from: String,
    hash: Option<String>,
    /// What is wrong with it.
    error: Option<String>,
}

impl RoleRow {
    /// Of what there is under this name.
    pub(crate) fn of(name: &str, role: Result<&Role, &Broken>) -> Self {
        match role {
            Ok(role) => Self {
                role: Some(name.to_owned()),
                help: Some(role.definition.help.clone()),
                needs: role.definition.needs.clone(),
                from: role.origin.to_string(),
                hash: Some(role.hash()),
                error: None,
            },
            Err(broken) => Self {
                role: Some(name.to_owned()),
                ..Self::stray(broken)
            },
        }
    }

    /// Of what is no role.
    pub(crate) fn stray(broken: &Broken) -> Self {
        Self {
            role: None,
            help: None,
            needs: Vec::new(),
            from: broken.origin.to_string(),
            hash: None,
            error: Some(broken.why.clone()),
        }
    }
}

/// A list.
pub(crate) struct RoleRows(pub(crate) Vec<RoleRow>);

impl Answer for RoleRows {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let mut table = Table::new(&[
            Column::new("ROLE"),
            Column::new("WHAT IT DOES").shrinks(20),
            Column::new("NEEDS").shrinks(8).may_go(1),
            Column::new("FROM").shrinks(10).may_go(2),
        ]);
        for row in &self.0 {
            let what = match (&row.error, &row.help) {
                (Some(error), _) => Cell::painted(error, Paint::Bad),
                (None, help) => Cell::maybe(help.as_ref()),
            };
            let needs = (!row.needs.is_empty()).then(|| row.needs.join(", "));
            let from = match row.from.as_str() {
                "fleet" => Cell::painted("fleet", Paint::Dim),
                from => Cell::new(from),
            };
            table.row(vec![
                Cell::maybe(row.role.as_ref()),
                what,
                Cell::maybe(needs),
                from,
            ]);
        }
        table.render(look.width, look.color)
    }
}

/// One role with everything it asks for.
pub(crate) struct RoleDetail(pub(crate) Role);

#[derive(Serialize)]
struct Json<'a> {
    role: &'a str,
    from: String,
    hash: String,
    #[serde(flatten)]
    definition: &'a Definition,
}

impl Answer for RoleDetail {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Json {
            role: &self.0.name,
            from: self.0.origin.to_string(),
            hash: self.0.hash(),
            definition: &self.0.definition,
        })
    }

    fn text(&self, look: &Look) -> String {
        let Role {
            name, definition, ..
        } = &self.0;
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let title = Paint::Bold.on(&format!("{title:<9}"), look.color);
            let _ = writeln!(text, "{title} {}", one_line(value));
        };
        line("role", name);
        line("does", &definition.help);
        line("from", &self.0.origin.to_string());
        line("hash", &self.0.hash());
        line("type", &usage(name, definition));
        let command = |script: &Option<String>, typed: &[Word]| match script {
            Some(script) => first_line(script),
            None => words(typed),
        };
        if definition.cases.is_empty() {
            line("command", &command(&definition.script, &definition.command));
        }
        for case in &definition.cases {
            let Case { when, needs, .. } = case;
            let needs = match needs.is_empty() {
                true => String::new(),
                false => format!(" (needs {})", needs.join(", ")),
            };
            let command = command(&case.script, &case.command);
            line("command", &format!("{when}: {command}{needs}"));
        }
        if let Some(stdin) = &definition.stdin {
            line("reads", stdin);
        }
        if let Some(cwd) = &definition.cwd {
            line("folder", cwd);
        }
        if !definition.needs.is_empty() {
            line("needs", &definition.needs.join(", "));
        }
        for (name, value) in &definition.env {
            line("env", &format!("{name}={value}"));
        }
        if let Some(timeout) = &definition.timeout {
            line("timeout", timeout);
        }
        text.push_str(&params(&definition.params, look));
        text
    }
}

/// A script, as far as it fits on a line.
fn first_line(script: &str) -> String {
    let mut lines = script.trim().lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => format!("sh: {first}"),
        more => format!("sh: {first} … ({} lines, --json shows them)", more + 1),
    }
}

/// How it is dispatched.
fn usage(name: &str, definition: &Definition) -> String {
    let mut usage = format!("fleet dispatch {name}");
    match definition.message {
        MessageRule::None => {}
        MessageRule::Optional => usage.push_str(" [-m TEXT]"),
        MessageRule::Required => usage.push_str(" -m TEXT"),
    }
    for (name, param) in &definition.params {
        let what = name.to_ascii_uppercase();
        usage.push_str(&match param.required {
            true => format!(" {name}={what}"),
            false => format!(" [{name}={what}]"),
        });
    }
    usage
}

fn words(words: &[Word]) -> String {
    let shown: Vec<String> = words
        .iter()
        .map(|word| match word {
            Word::Always(text) => super::jobs::quoted(text),
            Word::When(Conditional { when, args }) => {
                let args: Vec<String> = args.iter().map(|a| super::jobs::quoted(a)).collect();
                format!("[{when}: {}]", args.join(" "))
            }
        })
        .collect();
    shown.join(" ")
}

fn params(params: &BTreeMap<String, Param>, look: &Look) -> String {
    if params.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        Column::new("PARAMETER"),
        Column::new("TYPE"),
        Column::new("DEFAULT").shrinks(8),
        Column::new("WHAT IT IS").shrinks(20),
    ]);
    for (name, param) in params {
        let default = match (param.required, param.by_skill) {
            (true, _) => Cell::painted("required", Paint::Bold),
            (_, true) => Cell::painted("by skill", Paint::Dim),
            _ => Cell::maybe(param.unless_given()),
        };
        let mut help = param.help.clone();
        if !param.choices.is_empty() {
            help.push_str(&format!(": {}", param.choices.join(", ")));
        }
        match (param.min, param.max) {
            (Some(min), Some(max)) => help.push_str(&format!(", {min} to {max}")),
            (Some(min), None) => help.push_str(&format!(", at least {min}")),
            (None, Some(max)) => help.push_str(&format!(", at most {max}")),
            (None, None) => {}
        }
        table.row(vec![
            Cell::new(name),
            Cell::new(param.kind.as_str()),
            default,
            Cell::new(help),
        ]);
    }
    format!("\n{}", table.render(look.width, look.color))
}
