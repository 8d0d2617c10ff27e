//! The flags of `fleet machines`.

use clap::{Args, Subcommand};
use fleet_contract::ids::MachineId;

use super::parse::machine;

/// `fleet machines`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Machines {
    /// Ask every agent at once, for at most a second
    #[arg(long)]
    pub(crate) deep: bool,
    /// What to do with one.
    #[command(subcommand)]
    pub(crate) act: Option<Act>,
}

/// What can be done with a machine.
#[derive(Debug, Subcommand)]
pub(crate) enum Act {
    /// Take a machine that is gone out of the list
    Forget {
        /// The machine
        #[arg(value_name = "M", value_parser = machine)]
        machine: MachineId,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}
