//! Starts a job's first process in the world it was promised: its folder, its environment, its
//! standard input; or says in words why that cannot be.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::Access;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::protocol::{Environment, StartRequest};

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// Most of a PATH that an error shows, in bytes.
const SHOWN_PATH: usize = 400;

/// Why a job cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reject {
    #[error("{0}")]
    Spec(#[from] fleet_contract::spec::SpecError),
    #[error("no such command: {command} (PATH={path})")]
    NoCommand { command: String, path: String },
    #[error("not executable: {}: make it so with chmod +x, or name its interpreter", .0.display())]
    NotExecutable(PathBuf),
    #[error("no such folder: {} on {machine}", folder.display())]
    NoFolder { folder: PathBuf, machine: String },
    #[error("not a folder: {} on {machine}", folder.display())]
    NotAFolder { folder: PathBuf, machine: String },
    #[error("cannot enter folder {} on {machine}: {error}", folder.display())]
    Folder {
        folder: PathBuf,
        machine: String,
        error: io::Error,
    },
    #[error("no home folder is known on {0}: give an absolute working folder with --cwd")]
    NoHome(String),
    #[error(
        "cannot run {}: not a program of this kind of machine, nor a script that begins with #!",
        .0.display()
    )]
    Format(PathBuf),
    #[error("cannot run {}: its interpreter does not exist", .0.display())]
    Interpreter(PathBuf),
    #[error(
        "command and environment together are too long for this machine: send large input with --stdin FILE"
    )]
    TooLong,
    #[error("cannot start {}: {error}", program.display())]
    Other { program: PathBuf, error: io::Error },
}

/// Everything decided before the process is made.
pub(crate) struct Plan {
    program: PathBuf,
    name: String,
    args: Vec<String>,
    folder: PathBuf,
    env: Environment,
}

/// A process that was started, with this side's ends of its pipes.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Checks the request and finds program and folder.
pub(crate) fn plan(request: &StartRequest, base: &Environment) -> Result<Plan, Reject> {
    let spec = &request.spec;
    spec.validate()?;
    let folder = folder(request, base)?;
    let env = environment(request, base);
    let (name, args) = if spec.shell {
        let line = spec.command.join(" ");
        ("/bin/sh".to_owned(), vec!["-c".to_owned(), line])
    } else {
        let mut words = spec.command.iter().cloned();
        (words.next().unwrap_or_default(), words.collect())
    };
    let program = find_program(&name, &folder, env.get("PATH").map(String::as_str))?;
    Ok(Plan {
        program,
        name,
        args,
        folder,
        env,
    })
}

/// Later ones win: login shell, machine, job, fleet's own.
fn environment(request: &StartRequest, base: &Environment) -> Environment {
    let mut env = base.clone();
    let layers = [&request.env, &request.spec.env];
    for (name, value) in layers.into_iter().flatten() {
        env.insert(name.clone(), value.clone());
    }
    let mut own = |name: &str, value: String| env.insert(name.to_owned(), value);
    own("FLEET_JOB", request.job.to_string());
    own("FLEET_MACHINE", request.machine.to_string());
    own("FLEET_ATTEMPT", request.attempt.to_string());
    own("FLEET_FENCING_TOKEN", request.token.to_string());
    if let Some(index) = request.spec.index {
        own("FLEET_INDEX", index.to_string());
    }
    env
}

fn folder(request: &StartRequest, base: &Environment) -> Result<PathBuf, Reject> {
    let machine = || request.machine.to_string();
    let home = || {
        base.get("HOME")
            .map(PathBuf::from)
            .or_else(std::env::home_dir)
            .filter(|home| home.is_absolute())
            .ok_or_else(|| Reject::NoHome(machine()))
    };
    let folder = match request.spec.cwd_at(&request.machine) {
        None | Some("~") => home()?,
        Some(cwd) => match cwd.strip_prefix("~/") {
            Some(below) => home()?.join(below),
            None => PathBuf::from(cwd),
        },
    };
    match std::fs::metadata(&folder) {
        Ok(found) if !found.is_dir() => {
            let machine = machine();
            Err(Reject::NotAFolder { folder, machine })
        }
        Ok(_) => match rustix::fs::access(&folder, Access::EXEC_OK) {
            Ok(()) => Ok(folder),
            Err(error) => Err(Reject::Folder {
                folder,
                machine: machine(),
                error: error.into(),
            }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let machine = machine();
            Err(Reject::NoFolder { folder, machine })
        }
        Err(error) => Err(Reject::Folder {
            folder,
            machine: machine(),
            error,
        }),
    }
}

/// The program in the job's own PATH, as an absolute path: then the system needs no search, and
/// the quick way to make a process (no copy of this one) is open.
fn find_program(name: &str, folder: &Path, path: Option<&str>) -> Result<PathBuf, Reject> {
    let path = path.unwrap_or(DEFAULT_PATH);
    let missing = || Reject::NoCommand {
        command: name.chars().take(200).collect(),
        path: clip(path),
    };
    if name.contains('/') {
        let program = folder.join(name);
        return match look(&program) {
            Found::Runnable => Ok(program),
            Found::Refused => Err(Reject::NotExecutable(program)),
            Found::Nothing => Err(missing()),
        };
    }
    let mut refused = None;
    for dir in path.split(':') {
        // An empty entry means the working folder.
        let program = folder.join(dir).join(name);
        match look(&program) {
            Found::Runnable => return Ok(program),
            Found::Refused => refused = refused.or(Some(program)),
            Found::Nothing => {}
        }
    }
    Err(refused.map_or_else(missing, Reject::NotExecutable))
}

enum Found {
    Runnable,
    Refused,
    Nothing,
}

fn look(program: &Path) -> Found {
    match std::fs::metadata(program) {
        // Root may execute nothing either that nobody may.
        Ok(file) if file.is_file() => {
            let allowed = rustix::fs::access(program, Access::EXEC_OK).is_ok();
            if allowed && file.mode() & 0o111 != 0 {
                Found::Runnable
            } else {
                Found::Refused
            }
        }
        Ok(_) => Found::Refused,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Found::Refused,
        Err(_) => Found::Nothing,
    }
}

fn clip(text: &str) -> String {
    if text.len() <= SHOWN_PATH {
        return text.to_owned();
    }
    let mut end = SHOWN_PATH;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Starts the process in a group of its own.
pub(crate) fn spawn(plan: Plan, with_stdin: bool) -> Result<Spawned, Reject> {
    let mut command = Command::new(&plan.program);
    command
        .arg0(OsString::from(plan.name))
        .args(&plan.args)
        .env_clear()
        .envs(&plan.env)
        .current_dir(&plan.folder)
        .process_group(0)
        .stdin(if with_stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| explain(plan.program, error))?;
    Ok(Spawned {
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
        child,
    })
}

fn explain(program: PathBuf, error: io::Error) -> Reject {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOEXEC) => Reject::Format(program),
        // The file was there a moment ago.
        Some(Errno::NOENT) => Reject::Interpreter(program),
        Some(Errno::ACCESS) => Reject::NotExecutable(program),
        Some(Errno::TOOBIG) => Reject::TooLong,
        _ => Reject::Other { program, error },
    }
}

/// Writes a job's standard input and closes it. A program that does not read it all is no
/// failure; this ends when its pipe does.
pub(crate) fn feed(stdin: OwnedFd, bytes: Vec<u8>) {
    let Ok(mut pipe) = pipe::Sender::from_owned_fd(stdin) else {
        return;
    };
    tokio::spawn(async move {
        let _ = pipe.write_all(&bytes).await;
    });
}
