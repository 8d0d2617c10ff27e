//! What a shell completes: asked of fleet itself, so that roles and their parameters are known as
//! they are in this folder. The script that asks comes from `fleet completions`.

use std::ffi::{OsStr, OsString};

use clap::CommandFactory;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::CompleteEnv;

use crate::args::Cli;
use crate::roles::flags::{self, VERB};

/// The variable by which a shell's script asks; its value is the shell's name.
pub(crate) const VARIABLE: &str = "FLEET_COMPLETE";

/// Answers a shell that asks; whether one did.
///
/// # Errors
/// The shell is not known, or does not listen.
pub(crate) fn answered(words: &[OsString]) -> Result<bool, clap::Error> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(false);
    }
    let typed = || words.iter().skip_while(|word| *word != "--").skip(1);
    let command = || {
        let typed: Vec<OsString> = typed().cloned().collect();
        let cli = match crate::role_of(&typed) {
            Some(role) => flags::with(Cli::command(), &role),
            None => Cli::command(),
        };
        cli.mut_subcommand(VERB, |dispatch| {
            dispatch
                .mut_arg("stray", |arg| arg.add(ArgValueCompleter::new(roles)))
                .mut_arg("command", |arg| arg)
        })
    };
    let folder = std::env::current_dir().ok();
    let complete = CompleteEnv::with_factory(command).var(VARIABLE);
    complete.try_complete(words.iter().cloned(), folder.as_deref())
}

/// The roles whose names begin so.
fn roles(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let all = crate::catalogue();
    let found = all.all().filter(|(name, _)| name.starts_with(current));
    found
        .map(|(name, role)| {
            let help = role.ok().map(|role| role.definition.help.clone());
            CompletionCandidate::new(name).help(help.map(Into::into))
        })
        .collect()
}
