//! Asks one program one thing: in a group of its own, for a bounded time, with an answer of bounded
//! size. What does not end in time is ended with all of its group.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until};

use super::find::World;

/// Most bytes of each stream of an answer: what says more is not what it is taken for.
pub(super) const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// How long an answer may still come once its program has ended: something that it left behind may
/// hold the pipe for ever.
const LINGER: Duration = Duration::from_millis(200);
/// Pause before a program that is being written is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// What asking brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// It ended.
    Ended {
        /// By itself and well.
        well: bool,
        /// How, in words.
        how: String,
        /// What it wrote to its output.
        out: Vec<u8>,
        /// What it wrote to its errors.
        err: Vec<u8>,
    },
    /// It did not end in time.
    Silent,
    /// It wrote more than an answer may have.
    TooMuch,
    /// It could not be started.
    NotStarted(String),
}

/// Ends the group of a program that is given up.
struct Group(Option<Pid>);

impl Group {
    fn end(&mut self) {
        if let Some(pid) = self.0.take() {
            // Gone already is as good.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program to its end, at most for so long.
pub(super) async fn run(program: &Path, args: &[String], world: &World, within: Duration) -> Ran {
    let deadline = Instant::now() + within;
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(&world.env)
        .current_dir(&world.home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = loop {
        match command.spawn() {
            Ok(child) => break child,
            // It is being written: somebody installs it right now.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline =>
            {
                sleep_until(Instant::now() + BUSY_PAUSE).await;
            }
            Err(error) => return Ran::NotStarted(error.to_string()),
        }
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let mut group = Group(pid.and_then(Pid::from_raw));
    let mut out = Stream::of(child.stdout.take());
    let mut err = Stream::of(child.stderr.take());
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        if out.is_over() && err.is_over() && ended.is_some() {
            break;
        }
        let until = ended.map_or(deadline, |(_, linger)| linger);
        tokio::select! {
            within = out.read(), if !out.is_over() => if !within { return given_up(child, group).await; },
            within = err.read(), if !err.is_over() => if !within { return given_up(child, group).await; },
            status = child.wait(), if ended.is_none() => match status {
                // Its group is left alone: what it began besides may be meant to stay.
                Ok(status) => {
                    group.0 = None;
                    ended = Some((status, Instant::now() + LINGER));
                }
                Err(error) => return Ran::NotStarted(error.to_string()),
            },
            () = sleep_until(until) => {
                if ended.is_some() {
                    break;
                }
                group.end();
                let _ = child.wait().await;
                return Ran::Silent;
            }
        }
    }
    let how = ended.map_or_else(String::new, |(status, _)| status.to_string());
    Ran::Ended {
        well: ended.is_some_and(|(status, _)| status.success()),
        how,
        out: out.bytes,
        err: err.bytes,
    }
}

async fn given_up(mut child: tokio::process::Child, mut group: Group) -> Ran {
    group.end();
    let _ = child.wait().await;
    Ran::TooMuch
}

/// One stream of an answer.
struct Stream<R> {
    from: Option<R>,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    fn of(from: Option<R>) -> Self {
        Self {
            from,
            bytes: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.from.is_none()
    }

    /// Reads on; whether it is still within its bounds.
    async fn read(&mut self) -> bool {
        let Some(from) = &mut self.from else {
            return true;
        };
        let mut piece = [0; 4096];
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => self.from = None,
            Ok(read) => self.bytes.extend_from_slice(&piece[..read]),
        }
        self.bytes.len() <= ANSWER_MAX_BYTES
    }
}
