//! The flags of `fleet skills`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleet_contract::ids::MachineId;

use super::parse::machine;

/// `fleet skills`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  fleet skills\n  fleet skills show docker\n  fleet skills probe --on studio\n  \
    fleet skills install ruff --on studio\n  fleet dispatch --needs 'node>=20',docker -- make"
)]
pub(crate) struct Skills {
    /// Only what this machine can do; may be given several times
    #[arg(long = "on", value_name = "M", value_parser = machine)]
    pub(crate) on: Vec<MachineId>,
    /// Only skills of this category: container, language, agent, gpu, model, mobile, …
    #[arg(long, value_name = "C")]
    pub(crate) category: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) act: Option<Act>,
}

/// What can be done with skills.
#[derive(Debug, Subcommand)]
pub(crate) enum Act {
    /// Show one: how it is looked for, and how it stands with it on each machine
    Show {
        /// The skill
        #[arg(value_name = "SKILL")]
        skill: String,
    },
    /// Have machines look now, and show what they found
    Probe {
        /// The skills; all if none is named
        #[arg(value_name = "SKILL")]
        skills: Vec<String>,
        /// Only this machine; may be given several times
        #[arg(long = "on", value_name = "M", value_parser = machine)]
        on: Vec<MachineId>,
    },
    /// Install one on a machine: its recipe as an ordinary job there, shown first
    Install {
        /// The skill
        #[arg(value_name = "SKILL")]
        skill: String,
        /// The machine
        #[arg(long, value_name = "M", value_parser = machine)]
        on: MachineId,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Take the definition of a skill in: this machine looks for it from then on
    Add {
        /// The file, NAME.toml
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace one that is there
        #[arg(long)]
        replace: bool,
    },
    /// Begin the definition of a skill of your own, to be edited
    Create {
        /// Its name
        #[arg(value_name = "SKILL")]
        skill: String,
    },
}
