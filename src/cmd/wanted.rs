//! What `fleet dispatch` is to send: a command, or a role with what was given for it.

use std::io::Read;
use std::path::Path;

use fleet_contract::ids::{Lane, MachineId};
use fleet_contract::needs::Needs;
use fleet_contract::spec::{STDIN_MAX_BYTES, Target};
use fleet_nats::operate::Placement;

use crate::args::dispatch::Dispatch;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::project::Project;
use crate::roles::{Catalogue, Given, Origin, ResolveError, Resolved, Role};

/// What is wanted.
pub(crate) enum Wanted {
    /// A command as it was typed.
    Command(Vec<String>),
    /// A role.
    Role(Box<Role>, Given),
}

impl Wanted {
    /// Reads the words before and after `--`.
    ///
    /// # Errors
    /// No command and no role, both, or a role that nobody knows.
    pub(crate) fn of(args: &Dispatch, cx: &Context) -> Result<Self, Failure> {
        let word = args.command.stray.first();
        let Some(word) = word.filter(|word| !word.starts_with('-')) else {
            return plain(args);
        };
        let project = Project::of(cx.environment.folder.as_deref())?;
        let all = Catalogue::load(Some(&cx.settings.home.roles()), project.as_ref());
        if !all.has(word) {
            // Else every misspelt role would be taken for a command without its dashes.
            return match all.nearest(word) {
                Some(near) if args.command.stray.iter().skip(1).all(|w| w.contains('=')) => {
                    Err(all.unknown(word).next(format!(
                        "fleet dispatch {near} …, or a command after --; fleet roles lists all"
                    )))
                }
                _ => plain(args),
            };
        }
        let role = all.get(word)?;
        if !args.command.command.is_empty() {
            let text = format!("role {word} brings its own command: nothing goes after --");
            return Err(Failure::usage(text).next(format!("fleet roles show {word}")));
        }
        if args.world.shell {
            let text = format!("role {word} brings its own command: --shell is for one after --");
            return Err(Failure::usage(text).next(format!("fleet roles show {word}")));
        }
        let project = project.as_ref().map(Project::root);
        let project = project.or(cx.environment.folder.as_deref());
        let mut given = Given {
            values: args.given.clone(),
            message: message(args)?,
            project: project.and_then(Path::to_str).map(str::to_owned),
        };
        for word in args.command.stray.iter().skip(1) {
            let Some((name, value)) = word.split_once('=') else {
                let shown: String = word.chars().take(80).collect();
                let text = format!(
                    "{shown:?} is neither NAME=VALUE nor a flag of role {}",
                    role.name
                );
                return Err(Failure::usage(text).next(format!("fleet roles show {}", role.name)));
            };
            if given
                .values
                .insert(name.to_owned(), value.to_owned())
                .is_some()
            {
                return Err(Failure::usage(format!("{name} is given twice")));
            }
        }
        Ok(Self::Role(Box::new(role.clone()), given))
    }

    /// What to say of where it comes from: that a folder brings a command is not to go unseen.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Role(role, _) => match &role.origin {
                Origin::Project(file) => Some(format!(
                    "role {} is this project's, {}",
                    role.name,
                    file.display()
                )),
                Origin::Shipped | Origin::File(_) => None,
            },
            Self::Command(_) => None,
        }
    }

    /// Chooses by what machines can do, where a parameter is to be chosen so.
    ///
    /// # Errors
    /// No machine can do any of them, or the hub is away.
    pub(crate) async fn choose(&mut self, args: &Dispatch, cx: &Context) -> Result<(), Failure> {
        let Self::Role(role, given) = self else {
            return Ok(());
        };
        let open: Vec<_> = role.to_choose(given).collect();
        if open.is_empty() {
            return Ok(());
        }
        let mut chosen = Vec::new();
        let names: Vec<String> = open.iter().map(|(name, _)| format!("{name}=…")).collect();
        let bus = cx.acting_bus().await.map_err(|failure| {
            let which = format!(
                "; what machines can do would choose: give {}",
                names.join(" ")
            );
            failure.and(&which)
        })?;
        let (machines, _) = bus.machines().await?;
        for (name, param) in open {
            let could = |choice: &&String| {
                let texts = role.needs_if(name, choice);
                let texts = texts.iter().chain(&args.needs).map(String::as_str);
                let Ok(needs) = Needs::parse(texts) else {
                    return (false, false);
                };
                let target = target(args.on.as_ref(), &needs);
                let placement = Placement::of(&target, &needs, &machines);
                (!placement.ready.is_empty(), !placement.away.is_empty())
            };
            let now = param.choices.iter().find(|choice| could(choice).0);
            let later = || param.choices.iter().find(|choice| could(choice).1);
            let Some(choice) = now.or_else(later) else {
                let all = param.choices.join(", ");
                let who = args
                    .on
                    .as_ref()
                    .map_or("no machine".to_owned(), MachineId::to_string);
                let text = match args.on {
                    Some(_) => format!("{who} has none of {all}"),
                    None => format!("{who} has any of {all}"),
                };
                let next = format!("{name}=… with --queue-anyway, to wait for one; fleet machines");
                return Err(Failure::new(Exit::TempFail, text).next(next));
            };
            chosen.push((name.to_owned(), choice.clone()));
        }
        given.values.extend(chosen);
        Ok(())
    }

    /// The command and its world.
    ///
    /// # Errors
    /// What was given does not fit the role.
    pub(crate) fn resolve(self) -> Result<Resolved, Failure> {
        match self {
            Self::Command(command) => Ok(Resolved {
                command,
                ..Resolved::default()
            }),
            Self::Role(role, given) => role.resolve(&given).map_err(|error| {
                let next = match &error {
                    ResolveError::NoMessage(role) => format!("fleet dispatch {role} -m TEXT"),
                    _ => format!("fleet roles show {}", role.name),
                };
                Failure::usage(error.to_string()).next(next)
            }),
        }
    }
}

/// Where a job with these requirements waits.
fn target(on: Option<&MachineId>, needs: &Needs) -> Target {
    match on {
        Some(machine) => Target::Pin(machine.clone()),
        None if needs.is_empty() => Target::Lane(Lane::any()),
        None => Target::Lane(needs.lane()),
    }
}

/// A command after `--`.
fn plain(args: &Dispatch) -> Result<Wanted, Failure> {
    let command = args.command.get("dispatch")?;
    if args.message.is_some() || args.message_file.is_some() {
        let text = "a message goes to a role, and a command reads --stdin";
        return Err(Failure::usage(text).next("fleet dispatch ROLE -m TEXT, see fleet roles"));
    }
    Ok(Wanted::Command(command.to_vec()))
}

/// The message: what was typed, a file, or standard input.
fn message(args: &Dispatch) -> Result<Option<String>, Failure> {
    let (what, path) = match (&args.message, &args.message_file) {
        (Some(text), _) if text.trim().is_empty() => {
            return Err(Failure::usage("the message, -m, is empty"));
        }
        (Some(text), _) if text != "-" => return Ok(Some(text.clone())),
        (Some(_), _) => ("-m -", Path::new("-")),
        (None, Some(path)) => ("--message-file", path.as_path()),
        (None, None) => return Ok(None),
    };
    let failed = |e: std::io::Error| {
        Failure::usage(format!(
            "cannot read the message, {what} {}: {e}",
            path.display()
        ))
    };
    let limit = STDIN_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let taken = args.world.stdin.as_deref() == Some(Path::new("-"));
        if taken {
            let text = format!("{what} and --stdin - cannot both read standard input");
            return Err(Failure::usage(text));
        }
        let mut stdin = std::io::stdin().lock().take(limit);
        stdin.read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() > STDIN_MAX_BYTES {
        return Err(Failure::usage(format!(
            "the message, {what}, is over the limit of 8 MiB"
        )));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Failure::usage(format!("the message, {what}, is not UTF-8")))?;
    if text.trim().is_empty() {
        return Err(Failure::usage(format!("the message, {what}, is empty")));
    }
    Ok(Some(text))
}
