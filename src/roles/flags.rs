//! A role's parameters as flags of `fleet dispatch`: `--to fra` beside `to=fra`, in its help, and
//! in what a shell completes.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use super::{Kind, Param, Role};

/// The verb that takes roles.
pub(crate) const VERB: &str = "dispatch";

/// The first word after `fleet dispatch` that is no flag and no flag's value, and stands before
/// `--`: the role, if anything is.
pub(crate) fn named(words: &[OsString], cli: &mut Command) -> Option<String> {
    cli.build();
    let mut at: &Command = cli;
    let mut below = false;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_str()?;
        let takes_next = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(""), _) => return None,
            (Some(long), _) => {
                let arg = at.get_arguments().find(|arg| arg.get_long() == Some(long));
                arg.is_some_and(takes_a_value)
            }
            (None, Some(short)) if !short.is_empty() => {
                // The first of them that takes a value takes the rest of the word.
                let takes = |c: char| {
                    let arg = at.get_arguments().find(|arg| arg.get_short() == Some(c));
                    arg.is_some_and(takes_a_value)
                };
                let first = short.char_indices().find(|(_, c)| takes(*c));
                first.is_some_and(|(at, c)| at + c.len_utf8() == short.len())
            }
            _ if below => return Some(word.to_owned()),
            _ if word == VERB => {
                at = at.find_subcommand(VERB)?;
                below = true;
                false
            }
            _ => return None,
        };
        if takes_next {
            words.next();
        }
    }
    None
}

fn takes_a_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The command line with this role's parameters as flags.
pub(crate) fn with(cli: Command, role: &Role) -> Command {
    let flags = role
        .definition
        .params
        .iter()
        .map(|(name, param)| flag(name, param, role));
    let flags: Vec<Arg> = flags.collect();
    cli.mut_subcommand(VERB, |dispatch| {
        dispatch
            .about(format!("{} (role {})", role.definition.help, role.name))
            .mut_arg("stray", |arg| arg.allow_hyphen_values(false))
            // What is changed goes to the end, and the parser wants these two in their order.
            .mut_arg("command", |arg| arg)
            .args(flags)
    })
}

fn flag(name: &str, param: &Param, role: &Role) -> Arg {
    let mut help = param.help.clone();
    if let Some(default) = &param.default {
        help.push_str(&format!(" [default: {default}]"));
    }
    if !param.choices.is_empty() {
        help.push_str(&format!(" [possible: {}]", param.choices.join(", ")));
    }
    let arg = Arg::new(id(name))
        .long(name.to_owned())
        .help(help)
        .help_heading(format!("Parameters of {}", role.name))
        .value_name(name.to_ascii_uppercase());
    match param.kind {
        Kind::Boolean => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        // A value that begins with a dash is for the parameter to refuse, in its own words.
        _ => arg
            .allow_hyphen_values(true)
            .add(candidates(&param.choices)),
    }
}

/// What a shell offers.
fn candidates(choices: &[String]) -> ArgValueCandidates {
    let choices = choices.to_vec();
    ArgValueCandidates::new(move || choices.iter().map(CompletionCandidate::new).collect())
}

/// What was given as flags, by parameter.
pub(crate) fn given(matches: &ArgMatches, role: &Role) -> BTreeMap<String, String> {
    let Some(dispatch) = matches.subcommand_matches(VERB) else {
        return BTreeMap::new();
    };
    let names = role.definition.params.keys();
    names
        .filter_map(|name| {
            let value = dispatch.get_one::<String>(&id(name))?;
            Some((name.clone(), value.clone()))
        })
        .collect()
}

/// Apart from the ids of fleet's own flags.
fn id(name: &str) -> String {
    format!("role.{name}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn named_in(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        named(&words, &mut Cli::command())
    }

    #[test]
    fn the_role_is_the_first_word_that_belongs_to_no_flag() {
        for (line, role) in [
            ("fleet dispatch test", Some("test")),
            (
                "fleet --hub x dispatch --on m --wait test a=1 --timeout 3s",
                Some("test"),
            ),
            ("fleet dispatch -e A=1 -m hello agent", Some("agent")),
            (
                "fleet dispatch -eMODE=release test --filter x",
                Some("test"),
            ),
            ("fleet dispatch -vm hello test", Some("test")),
            ("fleet dispatch --on=m test", Some("test")),
            ("fleet -v --json dispatch test", Some("test")),
            ("fleet dispatch -- test", None),
            ("fleet dispatch --wait -- make", None),
            ("fleet jobs dispatch", None),
            ("fleet", None),
        ] {
            assert_eq!(named_in(line).as_deref(), role, "{line}");
        }
    }
}
