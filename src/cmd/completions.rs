//! `fleet completions`: a script by which a shell asks fleet what can be typed next.

use std::io::Write;

use clap_complete::env::Shells;

use crate::args::Shell;
use crate::completion::VARIABLE;
use crate::failure::{Failure, Outcome};

/// Prints the script.
pub(crate) fn run(shell: Shell) -> Outcome {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let completer = shells
        .completer(name)
        .ok_or_else(|| Failure::internal(format!("no completion for {name}")))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "fleet", "fleet", "fleet", &mut script)?;
    let mut out = std::io::stdout();
    out.write_all(&script)?;
    out.flush()?;
    Ok(0)
}
