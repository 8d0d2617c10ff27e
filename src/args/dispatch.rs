//! The flags of `fleet dispatch` and `fleet run`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, CommandFactory};
use fleet_contract::ids::MachineId;
use fleet_contract::spec::Prefer;

use super::parse::{duration, exit_code, machine, pair, prefer};
use crate::failure::Failure;
use crate::prefix;

/// The world a job runs in: what `run` and `dispatch` share.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct World {
    /// The folder to run in
    #[arg(long, value_name = "DIR", allow_hyphen_values = false)]
    pub(crate) cwd: Option<String>,
    /// A variable for the job; may be given several times
    #[arg(long = "env", short = 'e', value_name = "K=V", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// What the job reads on its standard input, at most 8 MiB; - is this command's own
    #[arg(long, value_name = "FILE|-")]
    pub(crate) stdin: Option<PathBuf>,
    /// End everything the job started after this time, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Take the command as a line for /bin/sh
    #[arg(long)]
    pub(crate) shell: bool,
    /// A name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Anything to find the job by; may be given several times
    #[arg(long = "tag", value_name = "K=V", value_parser = pair)]
    pub(crate) tags: Vec<(String, String)>,
}

/// The command, and what stands where it should not.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Command {
    /// Caught to say what to write instead.
    #[arg(hide = true, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) stray: Vec<String>,
    /// Program and arguments, after --
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

impl Command {
    /// The command; a first word without `--` is refused with the form to write.
    pub(crate) fn get(&self, verb: &str) -> Result<&[String], Failure> {
        if let Some(word) = self.stray.first() {
            if word.starts_with('-') {
                return Err(unknown_flag(verb, word));
            }
            let shown: String = word.chars().take(80).collect();
            return Err(Failure::usage(format!(
                "no role is named {shown:?}: a command goes after --"
            ))
            .next(format!("fleet {verb} -- {}", clipped(&self.stray))));
        }
        if self.command.is_empty() {
            return Err(
                Failure::usage("no command to run").next(format!("fleet {verb} -- CMD ARG…"))
            );
        }
        Ok(&self.command)
    }
}

/// A flag that does not exist lands among the stray words too.
fn unknown_flag(verb: &str, word: &str) -> Failure {
    let flag: String = word.chars().take_while(|&c| c != '=').take(80).collect();
    let cli = crate::args::Cli::command();
    let flags: Vec<String> = cli
        .get_arguments()
        .chain(
            cli.find_subcommand(verb)
                .into_iter()
                .flat_map(clap::Command::get_arguments),
        )
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    let near = prefix::nearest(&flag, flags.iter().map(String::as_str));
    let failure = match near.first() {
        Some(near) => Failure::usage(format!("no flag {flag:?}: the nearest is {near}")),
        None => Failure::usage(format!("no flag {flag:?}")),
    };
    failure.next(format!("fleet {verb} --help"))
}

fn clipped(words: &[String]) -> String {
    let line = words.join(" ");
    let short: String = line.chars().take(80).collect();
    if short.len() < line.len() {
        format!("{short}…")
    } else {
        short
    }
}

/// `fleet run`
#[derive(Debug, Args)]
#[command(
    override_usage = "fleet run [OPTIONS] -- CMD [ARG]...",
    after_help = "Runs in the current folder unless --cwd says otherwise. The record stays on disk under\nFLEET_HOME/runs.\n\nExamples:\n  fleet run -- make test\n  fleet run --timeout 10m --shell -- 'make test | tee log'"
)]
pub(crate) struct Run {
    /// Its world.
    #[command(flatten)]
    pub(crate) world: World,
    /// Its command.
    #[command(flatten)]
    pub(crate) command: Command,
}

/// What to do with a job whose machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum OnLost {
    /// Put it to the operator
    #[default]
    Ask,
    /// Run it again elsewhere
    Retry,
    /// End it as lost
    Fail,
}

/// How urgent a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Priority {
    /// Asked last
    Low,
    /// The usual
    #[default]
    Normal,
    /// Asked first
    High,
}

/// `fleet dispatch`
#[derive(Debug, Args)]
#[command(
    override_usage = "fleet dispatch [OPTIONS] -- CMD [ARG]...\n       fleet dispatch [OPTIONS] ROLE [-m TEXT] [NAME=VALUE]...",
    after_help = "Prints the job's id once the job is safe on the hub's disk. Runs in the home folder of the\nmachine that takes it unless --cwd says otherwise; a --cwd below your own home means the same\nplace below that one.\n\nExamples:\n  fleet dispatch -- make test\n  fleet dispatch --on studio --follow -- xcodebuild test\n  fleet dispatch --cwd . --timeout 20m --wait -- cargo test\n  fleet dispatch --needs os=macos,'mem>=16GiB' -- make\n  fleet dispatch agent -m 'why does the build fail?' --follow\n  fleet dispatch --count 100 --wait --shell -- './render --frame $FLEET_INDEX'"
)]
pub(crate) struct Dispatch {
    /// Run on this machine and no other
    #[arg(long, value_name = "M", value_parser = machine)]
    pub(crate) on: Option<MachineId>,
    /// What its machine must have: docker, node>=20, mem>=16GiB, gpu, os=macos, LABEL=VALUE; may be
    /// given several times, or with commas
    #[arg(long, value_name = "EXPR")]
    pub(crate) needs: Vec<String>,
    /// Rather run it on this machine, or on one with this label, if one is free
    #[arg(long, value_name = "M|K=V", conflicts_with = "on", value_parser = prefer)]
    pub(crate) prefer: Option<Prefer>,
    /// Its world.
    #[command(flatten)]
    pub(crate) world: World,
    /// How urgent it is [default: normal]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) priority: Option<Priority>,
    /// Give up if it has not started after this time [default: 30days]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
    /// What to do if its machine goes away while it runs [default: ask]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_lost: Option<OnLost>,
    /// Try it so many times more if it fails, after a pause that grows from 1 s to 5 min
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(fleet_contract::spec::RETRIES_MAX)))]
    pub(crate) retries: u32,
    /// Only after these exit codes; a signal is 128 and its number, a time-out 124
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = exit_code, requires = "retries")]
    pub(crate) retry_on: Vec<u8>,
    /// The same key is the same job: a second dispatch finds the first
    #[arg(long, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// Dispatch it so many times; each finds its number, from 0, in FLEET_INDEX
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(fleet_contract::spec::COUNT_MAX)))]
    pub(crate) count: Option<u32>,
    /// Wait until it has ended, and exit as it did
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait, and show what it writes as it comes
    #[arg(long, conflicts_with = "count")]
    pub(crate) follow: bool,
    /// Pass every control sequence of its output to the terminal
    #[arg(long, requires = "follow")]
    pub(crate) raw: bool,
    /// Say what would be dispatched and who could run it; dispatch nothing
    #[arg(long, conflicts_with_all = ["wait", "follow"])]
    pub(crate) dry_run: bool,
    /// If the hub is away, keep it on this machine's disk and send it when the hub is back
    #[arg(long, conflicts_with_all = ["wait", "follow", "dry_run"])]
    pub(crate) spool: bool,
    /// Queue it even if no machine that is known could run it
    #[arg(long)]
    pub(crate) queue_anyway: bool,
    /// What a role is told: its prompt, its script; - reads standard input
    #[arg(long, short = 'm', value_name = "TEXT|-", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    pub(crate) message_file: Option<PathBuf>,
    /// A role's parameters that were given as flags.
    #[arg(skip)]
    pub(crate) given: BTreeMap<String, String>,
    /// Its command.
    #[command(flatten)]
    pub(crate) command: Command,
}

/// Whether this is the name of a flag of `fleet dispatch`, which no parameter of a role can be.
pub(crate) fn is_flag(name: &str) -> bool {
    static FLAGS: OnceLock<BTreeSet<String>> = OnceLock::new();
    let flags = FLAGS.get_or_init(|| {
        let mut cli = crate::args::Cli::command();
        cli.build();
        let dispatch = cli.find_subcommand("dispatch");
        let args = dispatch.into_iter().flat_map(clap::Command::get_arguments);
        args.filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect()
    });
    flags.contains(name)
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn command(line: &[&str]) -> Result<Vec<String>, String> {
        let line = ["fleet", "dispatch"].iter().chain(line);
        let cli = Cli::try_parse_from(line).map_err(|e| e.to_string())?;
        let Verb::Dispatch(args) = cli.verb else {
            return Err("another verb".to_owned());
        };
        match args.command.get("dispatch") {
            Ok(words) => Ok(words.to_vec()),
            Err(failure) => Err(failure.render(false).unwrap()),
        }
    }

    #[test]
    fn the_command_goes_after_two_dashes() {
        assert_eq!(command(&["--", "ls", "-l"]).unwrap(), ["ls", "-l"]);
        assert_eq!(
            command(&["--on", "m", "--wait", "--", "a", "--json"]).unwrap(),
            ["a", "--json"]
        );
        assert_eq!(command(&["--", "--", "x"]).unwrap(), ["--", "x"]);
    }

    #[test]
    fn a_first_word_without_dashes_is_refused_with_the_form() {
        for line in [&["make", "test"][..], &["--on", "m", "make", "test"]] {
            let error = command(line).unwrap_err();
            assert_eq!(
                error,
                "fleet: no role is named \"make\": a command goes after --; fleet dispatch -- make test"
            );
        }
        assert!(
            command(&["ls", "-la"])
                .unwrap_err()
                .ends_with("fleet dispatch -- ls -la")
        );
        assert_eq!(
            command(&["--priorty", "high", "--", "x"]).unwrap_err(),
            "fleet: no flag \"--priorty\": the nearest is --priority; fleet dispatch --help"
        );
        assert!(command(&[]).unwrap_err().contains("no command to run"));
    }
}
