//! `fleet`: many machines become one. Parses, runs one verb, returns its exit code.

mod args;
mod ask;
mod clock;
mod cmd;
mod completion;
mod config;
mod context;
mod environment;
mod failure;
mod interrupt;
mod jobspec;
mod outage;
mod output;
mod place;
mod prefix;
mod private_file;
mod project;
mod read;
mod remarks;
mod roles;
mod service;
mod spooled;
mod words;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::args::{Agent, Cli, Config, Hub, Verb};
use crate::config::{Flags, Settings};
use crate::context::Context;
use crate::environment::Environment;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::style::ColorChoice;
use crate::project::Project;
use crate::roles::Catalogue;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let json = asks_for_json(&words);
    let outcome = parse(words).and_then(|cli| match cli {
        Some(cli) => run(&cli),
        None => Ok(0),
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if let Some(text) = failure.render(json) {
                // Where even this cannot be written, the exit code has to do.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether errors are to be JSON, known before the rest of the line is: it may be wrong.
fn asks_for_json(words: &[OsString]) -> bool {
    words
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json")
}

/// The command line; none where help or the version was asked for and written.
fn parse(words: Vec<OsString>) -> Result<Option<Cli>, Failure> {
    if let Some((at, word)) = words.iter().enumerate().find(|(_, w)| w.to_str().is_none()) {
        let shown: String = word.to_string_lossy().chars().take(80).collect();
        return Err(Failure::usage(format!(
            "argument {at} is not UTF-8: {shown:?}: send such bytes with --stdin FILE"
        )));
    }
    let json = asks_for_json(&words);
    match completion::answered(&words) {
        Ok(true) => return Ok(None),
        Ok(false) => {}
        Err(error) => return Err(misread(&error)),
    }
    match read(&words) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) => match error.kind() {
            kind if is_bare(kind) && !json => {
                let help = help_of(&words);
                write!(std::io::stderr(), "{help}")?;
                Err(Failure::Exit(Exit::Usage.code()))
            }
            kind if is_bare(kind) => {
                Err(Failure::usage("what to do is missing").next("fleet --help"))
            }
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let mut out = std::io::stdout();
                write!(out, "{}", error.render())?;
                Ok(None)
            }
            _ => Err(misread(&error)),
        },
    }
}

/// The words as a command line; with those of a role's parameters, where one is dispatched.
fn read(words: &[OsString]) -> Result<Cli, clap::Error> {
    let role = role_of(words);
    let command = match &role {
        Some(role) => roles::flags::with(Cli::command(), role),
        None => Cli::command(),
    };
    let matches = command.try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let (Some(role), Verb::Dispatch(dispatch)) = (&role, &mut cli.verb) {
        dispatch.given = roles::flags::given(&matches, role);
    }
    Ok(cli)
}

/// The role that is dispatched. What is wrong with it, or with a project's file, is said when the
/// job is made.
fn role_of(words: &[OsString]) -> Option<roles::Role> {
    if !words.iter().any(|word| word == roles::flags::VERB) {
        return None;
    }
    let name = roles::flags::named(words, &mut Cli::command())?;
    catalogue().get(&name).ok().cloned()
}

/// The roles that can be named here, as far as they can be read.
fn catalogue() -> Catalogue {
    let environment = Environment::of_process();
    let project = Project::of(environment.folder.as_deref()).ok().flatten();
    let home = config::home(&environment)
        .ok()
        .map(|(home, _)| home.roles());
    Catalogue::load(home.as_deref(), project.as_ref())
}

/// Whether words are missing after a command that is none by itself.
fn is_bare(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The help of the deepest command that these words name.
fn help_of(words: &[OsString]) -> clap::builder::StyledStr {
    let mut command = Cli::command();
    command.build();
    // Flags may stand before a word.
    let typed = words.iter().skip(1).filter_map(|word| word.to_str());
    let typed: Vec<&str> = typed.filter(|word| !word.starts_with('-')).collect();
    help_below(&mut command, &typed)
}

fn help_below(command: &mut clap::Command, words: &[&str]) -> clap::builder::StyledStr {
    if let [word, rest @ ..] = words
        && command.find_subcommand(word).is_some()
        && let Some(below) = command.find_subcommand_mut(word)
    {
        return help_below(below, rest);
    }
    command.render_help()
}

/// The parser's error as one of ours: its first paragraph on one line, its tip as what to do.
fn misread(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|p| {
        let words: Vec<&str> = p.split_whitespace().collect();
        words.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let what = what.trim_start_matches("error: ").to_owned();
    let tip = paragraphs.find_map(|p| {
        let first = p.strip_prefix("tip: ")?.split(" tip: ").next();
        first.map(str::to_owned)
    });
    let usage = text
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "))
        .map(|usage| usage.split(" [").next().unwrap_or(usage))
        .map(|usage| usage.split(" <").next().unwrap_or(usage))
        .map(|usage| usage.split(" --").next().unwrap_or(usage).to_owned());
    let next = match (tip, usage) {
        (Some(tip), _) => tip,
        (None, Some(usage)) => format!("{usage} --help"),
        (None, None) => "fleet --help".to_owned(),
    };
    Failure::usage(what).next(next)
}

/// Resolves the settings and runs the verb.
fn run(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.verb {
        Verb::Completions { shell } => return cmd::completions::run(*shell),
        Verb::LoginEnv => return cmd::executor::login_env(),
        Verb::Executor(args) => {
            log_to_stderr(global.verbose, true, global.color);
            return cmd::executor::run(args);
        }
        verb => log_to_stderr(global.verbose, is_service(verb), global.color),
    }
    let environment = Environment::of_process();
    let settings = Settings::resolve(&environment, &flags(cli)?)?;
    let output = output::stdout(
        global.mode(),
        settings.color(),
        environment.no_color,
        environment.dumb,
    );
    let mut cx = Context {
        environment,
        settings,
        output,
    };
    match &cli.verb {
        Verb::Config(Config::Show) => cmd::config::show(&mut cx),
        Verb::Roles(args) => cmd::roles::run(args, &mut cx),
        Verb::Down => cmd::down::run(&mut cx),
        Verb::Up(args) if args.detach => cmd::up::detach(&mut cx),
        Verb::Hub(Hub::InstallServer) => cmd::hub::install_server(&mut cx),
        Verb::Hub(Hub::Credentials {
            machine,
            viewer,
            out,
        }) => {
            let whose = match (machine, viewer) {
                (Some(machine), _) => cmd::hub::Whose::Machine(machine),
                (None, viewer) => cmd::hub::Whose::Viewer(viewer.as_deref().unwrap_or_default()),
            };
            cmd::hub::credentials(&whose, out, &mut cx)
        }
        Verb::Agent(Agent::Status) => cmd::agent::status(&mut cx),
        Verb::Agent(Agent::Credentials { file }) => cmd::agent::renew(file, &mut cx),
        verb if is_service(verb) => on_runtime(
            &mut tokio::runtime::Builder::new_multi_thread(),
            &cli.verb,
            &mut cx,
        ),
        // One that asks, answers and ends: one thread is enough, and quicker to start.
        _ => on_runtime(
            &mut tokio::runtime::Builder::new_current_thread(),
            &cli.verb,
            &mut cx,
        ),
    }
}

/// Whether a verb runs until it is stopped.
fn is_service(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Up(_) | Verb::Hub(Hub::Run { .. }) | Verb::Agent(Agent::Run { .. })
    )
}

/// What flags say about settings.
fn flags(cli: &Cli) -> Result<Flags, Failure> {
    let flags = Flags::global(&cli.global)?;
    Ok(match &cli.verb {
        Verb::Up(up) => flags.machine(&up.machine).hub(&up.hub),
        Verb::Hub(Hub::Run { flags: hub, .. }) => flags.hub(hub),
        Verb::Agent(Agent::Run { flags: machine, .. }) => flags.machine(machine),
        _ => flags,
    })
}

fn on_runtime(builder: &mut tokio::runtime::Builder, verb: &Verb, cx: &mut Context) -> Outcome {
    let runtime = builder
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|e| Failure::internal(format!("cannot start a runtime: {e}")))?;
    let outcome = runtime.block_on(async {
        match verb {
            Verb::Up(args) => cmd::up::run(args, cx).await,
            Verb::Hub(Hub::Run { tether, .. }) => cmd::hub::run(*tether, cx).await,
            Verb::Hub(Hub::Status) => cmd::hub::status(cx).await,
            Verb::Hub(Hub::Admit { machine }) => cmd::hub::admit(machine, cx).await,
            Verb::Hub(Hub::Backup { dir }) => cmd::backup::backup(dir, cx).await,
            Verb::Hub(Hub::Restore { dir, yes }) => cmd::backup::restore(dir, *yes, cx).await,
            Verb::Agent(Agent::Run { tether, .. }) => cmd::agent::run(*tether, cx).await,
            Verb::Run(args) => cmd::run::run(args, cx).await,
            Verb::Dispatch(args) => cmd::dispatch::run(args, cx).await,
            Verb::Jobs(args) => cmd::jobs::run(args, cx).await,
            Verb::Show(args) => cmd::show::run(args, cx).await,
            Verb::Explain(args) => cmd::explain::run(args, cx).await,
            Verb::Logs(args) => cmd::logs::run(args, cx).await,
            Verb::Wait(args) => cmd::wait::run(args, cx).await,
            Verb::Cancel(args) => cmd::cancel::run(args, cx).await,
            Verb::Retry(args) => cmd::retry::run(args, cx).await,
            Verb::Move(args) => cmd::shift::run(args, cx).await,
            Verb::Resolve(args) => cmd::resolve::run(args, cx).await,
            Verb::Review => cmd::review::run(cx).await,
            Verb::Failures(args) => cmd::failures::run(args, cx).await,
            Verb::Ack(args) => cmd::ack::run(args, cx).await,
            Verb::Machines(args) => cmd::machines::run(args, cx).await,
            Verb::Skills(args) => cmd::skills::run(args, cx).await,
            Verb::Flow(args) => cmd::flow::run(args, cx).await,
            Verb::Spool(args) => cmd::spool::run(args, cx).await,
            Verb::Tui(args) => cmd::tui::run(args, cx).await,
            // The rest was handled by the caller, without a runtime.
            Verb::Down
            | Verb::Hub(Hub::InstallServer | Hub::Credentials { .. })
            | Verb::Agent(Agent::Status | Agent::Credentials { .. })
            | Verb::Config(_)
            | Verb::Roles(_)
            | Verb::Completions { .. }
            | Verb::Executor(_)
            | Verb::LoginEnv => Ok(0),
        }
    });
    // A thread that still reads a line from the terminal must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// What happens inside, on standard error. A verb that answers says only what is an error, so that
/// its own words stay readable, for programs too; a service says what an operator should know.
fn log_to_stderr(verbose: u8, service: bool, color: Option<ColorChoice>) {
    let level = match (verbose, service) {
        (0, false) => tracing::Level::ERROR,
        (0, true) => tracing::Level::WARN,
        (1, _) => tracing::Level::INFO,
        (_, _) => tracing::Level::DEBUG,
    };
    let color = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none()
        && !matches!(color, Some(ColorChoice::Never));
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(color)
        // A remark that cannot be written (a full disk) would be told on standard error, and what
        // cannot be told there ends the process: the executor, and with it every job.
        .log_internal_errors(false)
        .with_writer(|| remarks::Remarks)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &[&str]) -> (u8, String) {
        let words = std::iter::once("fleet").chain(line.iter().copied());
        let failure = parse(words.map(OsString::from).collect()).unwrap_err();
        (failure.exit_code(), failure.render(false).unwrap())
    }

    #[test]
    fn a_wrong_command_line_says_what_to_type() {
        for (line, expected) in [
            (
                &["jbos"][..],
                "fleet: unrecognized subcommand 'jbos'; a similar subcommand exists: 'jobs'",
            ),
            (
                &["jobs", "--limt", "3"],
                "fleet: unexpected argument '--limt' found; a similar argument exists: '--limit'",
            ),
            (
                &["dispatch", "--timeout", "soon", "--", "x"],
                "fleet: invalid value 'soon' for '--timeout <TIME>': \"soon\" is not a duration: \
                 write it like 30s, 10m, 1h30m or 250ms; fleet --help",
            ),
            (
                &["show"],
                "fleet: the following required arguments were not provided: <JOB>; fleet show --help",
            ),
        ] {
            assert_eq!(error(line), (64, expected.to_owned()));
        }
    }

    #[test]
    fn an_argument_that_is_not_utf_8_is_refused_with_words() {
        use std::os::unix::ffi::OsStringExt;
        let words = vec![
            "fleet".into(),
            "dispatch".into(),
            OsString::from_vec(vec![0xff]),
        ];
        let failure = parse(words).unwrap_err();
        assert_eq!(failure.exit_code(), 64);
        assert!(
            failure
                .render(false)
                .unwrap()
                .contains("argument 2 is not UTF-8")
        );
    }

    #[test]
    fn json_is_asked_for_before_the_command_only() {
        let words = |line: &str| -> Vec<OsString> { line.split(' ').map(Into::into).collect() };
        assert!(asks_for_json(&words("fleet dispatch --json -- x")));
        assert!(!asks_for_json(&words("fleet dispatch -- x --json")));
    }
}
