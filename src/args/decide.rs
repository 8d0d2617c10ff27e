//! The flags of the verbs by which the operator decides about jobs: `retry`, `resolve`, `review` and
//! `failures`.

use std::time::Duration;

use clap::Args;
use fleet_contract::ids::MachineId;
use fleet_contract::record::StateWord;

use super::parse::{duration, machine, state};
use crate::failure::Failure;

/// Which jobs are meant where they are not named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Which {
    /// All jobs in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state, value_delimiter = ',')]
    pub(crate) states: Vec<StateWord>,
    /// All jobs on this machine
    #[arg(long, value_name = "M", value_parser = machine)]
    pub(crate) machine: Option<MachineId>,
    /// All jobs that ended or began to wait for a person in this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
}

impl Which {
    fn is_given(&self) -> bool {
        *self != Self::default()
    }
}

/// How far it is done.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct How {
    /// Say which jobs are meant and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `fleet retry`
#[derive(Debug, Args)]
#[command(
    after_help = "A job that has ended, or waits for a person or for its next attempt, runs once more as the\n\
    next attempt of the same job: what it was and what it wrote stay. Where jobs are chosen and no\n\
    --state is given, it is those that failed, timed out, were lost, rejected or expired, and those\n\
    that wait for a person.\n\n\
    Examples:\n  fleet retry abcd\n  fleet retry --state failed --machine studio --since 1h --dry-run\n  \
    fleet retry --state failed --since 1h --yes"
)]
pub(crate) struct Retry {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// Which, if they are not named.
    #[command(flatten)]
    pub(crate) which: Which,
    /// How far.
    #[command(flatten)]
    pub(crate) how: How,
}

/// `fleet resolve`
#[derive(Debug, Args)]
#[command(
    override_usage = "fleet resolve [OPTIONS] [JOB]... succeeded|failed|queued",
    after_help = "For what you know and fleet cannot: that a job whose machine is gone had succeeded, or that a\n\
    failure does not matter. `queued` runs it once more, as fleet retry does. Where jobs are chosen\n\
    and no --state is given, it is those that wait for a person.\n\n\
    Examples:\n  fleet resolve abcd succeeded --notes 'the release is there'\n  \
    fleet resolve --machine studio --yes failed"
)]
pub(crate) struct Resolve {
    /// The jobs' ids, or the beginnings of them, and last what became of them
    #[arg(value_name = "JOB", required = true)]
    pub(crate) words: Vec<String>,
    /// Which, if they are not named.
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    pub(crate) notes: Option<String>,
    /// How far.
    #[command(flatten)]
    pub(crate) how: How,
}

/// `fleet move`
#[derive(Debug, Args)]
#[command(
    after_help = "What waits is pinned to that machine. What runs is ended where it is, and when it has ended\n\
    queued there as its next attempt. A job that has ended or waits for a person runs there once more.\n\n\
    Examples:\n  fleet move abcd --on studio\n  fleet move abcd --on here"
)]
pub(crate) struct Move {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// The machine; `here` is this one
    #[arg(long, value_name = "M|here")]
    pub(crate) on: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// What became of a job, by a person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// It is over.
    End(StateWord),
    /// It runs once more.
    Queued,
}

impl Resolve {
    /// The jobs that are named, and what became of them.
    pub(crate) fn get(&self) -> Result<(&[String], To), Failure> {
        let Some((last, jobs)) = self.words.split_last() else {
            return Err(Failure::usage("no job to resolve").next("fleet review"));
        };
        let to = match last.as_str() {
            "succeeded" => To::End(StateWord::Succeeded),
            "failed" => To::End(StateWord::Failed),
            "queued" => To::Queued,
            other => {
                let shown: String = other.chars().take(80).collect();
                let text = format!(
                    "what became of it stands last: succeeded, failed or queued, not {shown:?}"
                );
                return Err(Failure::usage(text).next("fleet resolve JOB succeeded"));
            }
        };
        if to == To::Queued && self.notes.is_some() {
            return Err(Failure::usage(
                "--notes are kept of an end only: a job that runs once more has none",
            ));
        }
        Ok((jobs, to))
    }
}

/// Jobs are either named or chosen.
pub(crate) fn named_or_chosen(verb: &str, jobs: &[String], which: &Which) -> Result<(), Failure> {
    match (jobs.is_empty(), which.is_given()) {
        (true, false) => {
            let end = if verb == "resolve" { " succeeded" } else { "" };
            Err(Failure::usage(format!("no job to {verb}")).next(format!(
                "fleet {verb} JOB{end}, or choose some: fleet {verb} --state failed --dry-run{end}"
            )))
        }
        (false, true) => Err(Failure::usage(
            "jobs are either named or chosen by --state, --machine and --since, not both",
        )),
        _ => Ok(()),
    }
}

/// What failures are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// The machine it ran on
    Machine,
    /// Its role, or the program it runs
    Role,
    /// How it ended
    Reason,
}

/// `fleet failures`
#[derive(Debug, Args)]
#[command(
    after_help = "Counts jobs that failed, timed out, were lost, rejected or expired, beside all that ended\n\
    there in that time.\n\nExamples:\n  fleet failures\n  fleet failures --by machine --since 7days"
)]
pub(crate) struct Failures {
    /// Only jobs that ended in this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    pub(crate) since: Duration,
    /// Only jobs on this machine
    #[arg(long, value_name = "M", value_parser = machine)]
    pub(crate) machine: Option<MachineId>,
    /// What they are counted by; may be given several times [default: all three]
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) by: Vec<By>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn resolve(line: &[&str]) -> Result<(Vec<String>, To), String> {
        let line = ["fleet", "resolve"].iter().chain(line);
        let cli = Cli::try_parse_from(line).map_err(|e| e.to_string())?;
        let Verb::Resolve(args) = cli.verb else {
            return Err("another verb".to_owned());
        };
        match args.get() {
            Ok((jobs, to)) => Ok((jobs.to_vec(), to)),
            Err(failure) => Err(failure.render(false).unwrap()),
        }
    }

    #[test]
    fn what_became_of_it_stands_last() {
        let (jobs, to) = resolve(&["abcd", "efgh", "succeeded", "--yes"]).unwrap();
        assert_eq!((jobs.len(), to), (2, To::End(StateWord::Succeeded)));
        let chosen = resolve(&["--state", "lost", "failed"]).unwrap();
        assert_eq!(chosen, (Vec::new(), To::End(StateWord::Failed)));
        assert_eq!(resolve(&["abcd", "queued"]).unwrap().1, To::Queued);
        assert_eq!(
            resolve(&["abcd", "done"]).unwrap_err(),
            "fleet: what became of it stands last: succeeded, failed or queued, not \"done\"; \
             fleet resolve JOB succeeded"
        );
        assert!(
            resolve(&["abcd", "queued", "--notes", "x"])
                .unwrap_err()
                .contains("--notes are kept of an end only")
        );
    }

    #[test]
    fn jobs_are_named_or_chosen() {
        let some = ["abcd".to_owned()];
        let which = Which {
            states: vec![StateWord::Failed],
            ..Which::default()
        };
        let text = |jobs: &[String], which: &Which| {
            let failure = named_or_chosen("retry", jobs, which).unwrap_err();
            failure.render(false).unwrap()
        };
        assert!(text(&[], &Which::default()).contains("no job to retry"));
        assert!(text(&some, &which).contains("either named or chosen"));
        named_or_chosen("retry", &some, &Which::default()).unwrap();
        named_or_chosen("retry", &[], &which).unwrap();
    }
}
