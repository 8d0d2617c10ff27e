//! The command line: what can be typed. Parsing has no side effects; nothing is looked up here.

pub(crate) mod decide;
pub(crate) mod dispatch;
pub(crate) mod machines;
pub(crate) mod parse;
pub(crate) mod skills;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use fleet_contract::ids::MachineId;
use fleet_contract::record::StateWord;

use self::parse::{duration, machine, pair, slots, state};
use crate::output::Mode;
use crate::output::style::ColorChoice;

/// Many machines become one.
#[derive(Debug, Parser)]
#[command(
    name = "fleet",
    version,
    about = "Many machines become one: dispatch jobs to the machines you own and watch them live",
    after_help = "Begin with:\n  fleet up --detach\n  fleet dispatch --wait -- uname -a\n\n\
                  Exit codes of fleet itself: 64 usage, 69 hub unreachable, 70 internal,\n\
                  75 nobody can run it, 77 not permitted, 78 bad configuration.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The hub's address, such as nats://studio:4222 [env: FLEET_HUB]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// Credentials to show to the hub, instead of those that lie in FLEET_HOME
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// Answer in JSON: one document, or one on each line where it streams
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Answer in text that only grows: no colours, nothing shortened, full times
    #[arg(long, global = true, conflicts_with = "json")]
    pub(crate) plain: bool,
    /// When to write colours
    #[arg(long, global = true, value_name = "WHEN", hide_possible_values = false)]
    pub(crate) color: Option<ColorChoice>,
    /// Say more on standard error about what happens; twice says everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// In which form answers are written.
    pub(crate) fn mode(&self) -> Mode {
        match (self.json, self.plain) {
            (true, _) => Mode::Json,
            (_, true) => Mode::Plain,
            _ => Mode::Human,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a fleet here: hub, this machine's agent and the console
    Up(Up),
    /// Stop what `up --detach` started
    Down,
    /// The hub alone, and its care
    #[command(subcommand)]
    Hub(Hub),
    /// The agent alone
    #[command(subcommand)]
    Agent(Agent),
    /// Run a command here and now, with no bus
    Run(dispatch::Run),
    /// Send a job to whichever machine fits
    Dispatch(Box<dispatch::Dispatch>),
    /// List jobs
    Jobs(Jobs),
    /// Show everything about a job
    Show(Show),
    /// Say where a job may run and why, machine by machine
    Explain(Show),
    /// Show what a job wrote
    Logs(Logs),
    /// Wait until jobs have ended
    Wait(Wait),
    /// End jobs
    Cancel(Cancel),
    /// Run jobs once more that have ended or wait for a person
    Retry(decide::Retry),
    /// Have a job run on another machine
    Move(decide::Move),
    /// Say what became of jobs, where fleet cannot know
    Resolve(decide::Resolve),
    /// Show what needs a person, and what to type about it
    Review,
    /// Count what failed, by machine, role and reason
    Failures(decide::Failures),
    /// Say that you know of attempts that had run though another decision held
    Ack(Ack),
    /// List the machines and how they are
    #[command(visible_alias = "status")]
    Machines(machines::Machines),
    /// What the machines can do: every skill on every machine
    Skills(skills::Skills),
    /// Show the stream of all events
    Flow(Flow),
    /// Jobs that were dispatched here while the hub was away
    #[command(subcommand)]
    Spool(Spool),
    /// Templates of jobs, and what each asks for
    Roles(Roles),
    /// The settings
    #[command(subcommand)]
    Config(Config),
    /// The console
    Tui(Tui),
    /// Print a script that completes fleet's commands in a shell
    #[command(
        after_help = "Examples:\n  fleet completions bash > ~/.local/share/bash-completion/completions/fleet\n  fleet completions zsh > \"${fpath[1]}/_fleet\"\n  fleet completions fish > ~/.config/fish/completions/fleet.fish"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The parent of this machine's jobs; the agent starts it
    #[command(hide = true)]
    Executor(Executor),
    /// Ask the login shell for its variables; the agent does
    #[command(hide = true)]
    LoginEnv,
}

/// The shells that can be completed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// How a service is held by whoever started it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Tether {
    /// Stop when standard input ends: for whoever starts fleet as its child
    #[arg(long, hide = true)]
    pub(crate) tether: bool,
}

/// How this machine takes part.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MachineFlags {
    /// This machine's name [default: the host's; env: FLEET_MACHINE]
    #[arg(long, value_name = "ID", value_parser = machine)]
    pub(crate) name: Option<MachineId>,
    /// How many jobs run at once [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub(crate) slots: Option<u32>,
    /// A label others can choose this machine by; may be given several times
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// How long running jobs get when the agent is stopped [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
}

/// How the hub listens.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HubFlags {
    /// Where to listen [default: 127.0.0.1:4222]
    #[arg(long, value_name = "ADDR", value_parser = parse::listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// The nats-server to use [default: found; env: FLEET_NATS_SERVER]
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
}

/// `fleet up`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fleet up\n  fleet up --detach --name studio --slots 4\n  fleet up --demo"
)]
pub(crate) struct Up {
    /// This machine.
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The hub.
    #[command(flatten)]
    pub(crate) hub: HubFlags,
    /// Leave it running in the background, and return when it is ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not open the console
    #[arg(long)]
    pub(crate) no_tui: bool,
    /// Add a few agents and a trickle of small real jobs
    #[arg(long)]
    pub(crate) demo: bool,
    /// By whom it is held.
    #[command(flatten)]
    pub(crate) tether: Tether,
    /// Set for the process in the background
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// `fleet tui`
#[derive(Debug, Default, Args)]
pub(crate) struct Tui {
    /// Write ASCII only, for terminals that show other glyphs too wide or not at all
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Let nothing move by itself; over SSH little does
    #[arg(long)]
    pub(crate) still: bool,
    /// Leave the mouse to the terminal, which selects text with it
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// `fleet hub`
#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Run the hub in the foreground
    Run {
        /// How it listens.
        #[command(flatten)]
        flags: HubFlags,
        /// By whom it is held.
        #[command(flatten)]
        tether: Tether,
    },
    /// Say how the hub of this machine is
    Status,
    /// Let a machine in again that the hub has locked out
    #[command(after_help = "Example:\n  fleet hub status\n  fleet hub admit studio")]
    Admit {
        /// The machine
        #[arg(value_name = "MACHINE", value_parser = machine)]
        machine: MachineId,
    },
    /// Get the nats-server that fleet is made for
    InstallServer,
    /// Write what another machine needs to take part, or a person to look on
    #[command(
        after_help = "Examples:\n  fleet hub credentials --machine studio --out studio.creds\n  \
        (on studio) fleet agent run --credentials studio.creds\n  \
        fleet hub credentials --viewer vera --out vera.creds\n  \
        (Vera) fleet tui --credentials vera.creds"
    )]
    Credentials {
        /// The machine they are for
        #[arg(long, value_name = "M", value_parser = machine, required_unless_present = "viewer")]
        machine: Option<MachineId>,
        /// A person or program that may look at everything and change nothing
        #[arg(long, value_name = "NAME", conflicts_with = "machine")]
        viewer: Option<String>,
        /// Where to write them; nobody else will be able to read the file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Copy streams, keys and configuration into a new folder
    #[command(after_help = "Example:\n  fleet hub backup /mnt/backup/fleet-monday")]
    Backup {
        /// A folder that is not there yet; nobody else will be able to read it
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make this FLEET_HOME the hub that a backup is of
    #[command(
        after_help = "Example, beside a damaged one:\n  mv ~/.local/share/fleet/hub ~/fleet-hub-damaged\n  \
        fleet hub restore /mnt/backup/fleet-monday\n  fleet hub run"
    )]
    Restore {
        /// The folder that `fleet hub backup` wrote
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `fleet agent`
#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Run this machine's agent in the foreground
    #[command(
        after_help = "Examples:\n  fleet agent run\n  fleet agent run --credentials studio.creds --slots 4 --label site=ams"
    )]
    Run {
        /// This machine.
        #[command(flatten)]
        flags: MachineFlags,
        /// By whom it is held.
        #[command(flatten)]
        tether: Tether,
    },
    /// Say how this machine's agent is
    Status,
    /// Take new credentials in, while the agent runs
    #[command(
        after_help = "For a hub that is at another address now. Nothing that runs is touched.\n\
        Example:\n  (on the hub) fleet hub credentials --machine studio --out studio.creds\n  \
        (on studio) fleet agent credentials studio.creds"
    )]
    Credentials {
        /// The file that `fleet hub credentials` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `fleet spool`
#[derive(Debug, Subcommand)]
pub(crate) enum Spool {
    /// List what waits here for the hub
    List,
    /// Send it now, what was refused before as well
    Send,
    /// Take jobs out: they are never sent
    Remove {
        /// The jobs' ids, or the beginnings of them
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<String>,
    },
}

/// `fleet jobs`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fleet jobs\n  fleet jobs --state running --machine studio\n  fleet jobs --since 1h --json"
)]
pub(crate) struct Jobs {
    /// Only jobs in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state, value_delimiter = ',')]
    pub(crate) states: Vec<StateWord>,
    /// Only jobs on this machine
    #[arg(long, value_name = "M", value_parser = machine)]
    pub(crate) machine: Option<MachineId>,
    /// Only jobs dispatched or changed in this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only so many of the newest; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// `fleet show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

/// `fleet logs`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fleet logs abcd\n  fleet logs -f abcd\n  fleet logs abcd > out.bin   # bytes as they were"
)]
pub(crate) struct Logs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Begin at line one and go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what this attempt wrote, by its number
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub(crate) attempt: Option<u32>,
    /// Pass every control sequence to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `fleet wait`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if all succeeded, else that of the first that did not:\n\
    the job's own, 128+n for a signal, 124 timed out, 130 canceled,\n\
    75 lost, expired, rejected or needs a person."
)]
pub(crate) struct Wait {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Give up waiting after this time, with exit code 75; the jobs go on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// `fleet cancel`
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `fleet ack`
#[derive(Debug, Args)]
#[command(
    after_help = "An attempt whose machine was cut off or frozen may have run on while its job was taken\n\
    over, ended or canceled. Its result does not count, but what it did is done: `fleet jobs`,\n\
    `fleet show JOB` and the console's inbox say so until it is acknowledged."
)]
pub(crate) struct Ack {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "JOB", required_unless_present = "all")]
    pub(crate) jobs: Vec<String>,
    /// All that are there
    #[arg(long, conflicts_with = "jobs")]
    pub(crate) all: bool,
}

/// `fleet flow`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fleet flow -f\n  fleet flow --since 10m --machine studio --kind machine"
)]
pub(crate) struct Flow {
    /// Go on with what happens
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin this long ago [default: 1h; with -f: now]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only events of this machine
    #[arg(long, value_name = "M", value_parser = machine)]
    pub(crate) machine: Option<MachineId>,
    /// Only events of this kind, or those that begin with it: job, machine.lost; samples of a
    /// machine's load are shown for machine.load alone
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only events of this job
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
}

/// `fleet roles`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fleet roles\n  fleet roles show agent\n  fleet dispatch agent -m 'explain this code' agent=claude"
)]
pub(crate) struct Roles {
    /// What to do; lists all unless said.
    #[command(subcommand)]
    pub(crate) what: Option<RolesWhat>,
}

/// `fleet roles …`
#[derive(Debug, Subcommand)]
pub(crate) enum RolesWhat {
    /// Show one with its parameters
    Show {
        /// Its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
}

/// `fleet config`
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show every setting and where its value comes from
    Show,
}

/// `fleet executor`
#[derive(Debug, Args)]
pub(crate) struct Executor {
    /// The agent's FLEET_HOME
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_verb_and_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.is_hide_set() || arg.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn global_flags_go_before_and_after_the_verb() {
        for line in [
            ["fleet", "--json", "--hub", "h:1", "jobs"],
            ["fleet", "jobs", "--json", "--hub", "h:1"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.mode(), Mode::Json);
            assert_eq!(cli.global.hub.as_deref(), Some("h:1"));
        }
        assert!(Cli::try_parse_from(["fleet", "jobs", "--json", "--plain"]).is_err());
    }

    #[test]
    fn verbs_of_later_issues_are_absent() {
        for verb in ["doctor", "drain", "pair", "service", "bench", "help"] {
            assert!(Cli::try_parse_from(["fleet", verb]).is_err(), "{verb}");
        }
    }
}
