//! `up` in the background: who runs is held by a lock, so that `down` never ends a stranger.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_contract::time::Time;
use fleet_nats::home::Home;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Told};
use crate::private_file;

/// Largest record of who runs, in bytes.
const RECORD_MAX: u64 = 64 * 1024;

/// Who runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// This machine.
    pub(crate) machine: String,
    /// Where the hub is; empty until it is ready.
    pub(crate) hub: String,
    /// Since when.
    pub(crate) started_at: Time,
}

/// What the process in the background says to the one that started it, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// What takes long.
    Note(String),
    /// Everything runs.
    Ready(Running),
    /// It could not be started.
    Failed {
        /// What failed, on what.
        message: String,
        /// The next command to type.
        next: Option<String>,
        /// The exit code.
        exit_code: u8,
    },
}

impl Line {
    /// The failure, for the process that waits.
    pub(crate) fn failed(failure: &Failure) -> Self {
        match failure {
            Failure::Told(told) => Self::Failed {
                message: told.message.clone(),
                next: told.next.clone(),
                exit_code: told.exit_code,
            },
            other => Self::Failed {
                message: "it ended early".to_owned(),
                next: None,
                exit_code: other.exit_code(),
            },
        }
    }

    /// Says it on standard output, where the process that started this one reads.
    pub(crate) fn say(&self) {
        // Whoever waited may be gone; then nobody needs to know.
        if let Ok(mut line) = serde_json::to_string(self) {
            line.push('\n');
            let mut out = io::stdout();
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// The right to be the one `fleet up` of a home, held as long as this lives.
#[derive(Debug)]
pub(crate) struct UpLock {
    file: File,
    path: PathBuf,
}

fn lock_path(home: &Home) -> PathBuf {
    home.root().join("up.lock")
}

impl UpLock {
    /// Takes it.
    pub(crate) fn take(home: &Home, running: &Running) -> Result<Self, Failure> {
        let path = lock_path(home);
        let failed = |e: io::Error| super::hub::file_failed("cannot write", &path, &e);
        private_file::folder(home.root()).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = read(&file).map_or_else(String::new, |r| format!(" (process {})", r.pid));
            return Err(Failure::config(format!(
                "fleet is up here already{pid}: use it, or end it"
            ))
            .next("fleet down"));
        }
        let mut lock = Self { file, path };
        lock.write(running)?;
        Ok(lock)
    }

    /// Says more about who runs.
    pub(crate) fn write(&mut self, running: &Running) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(running).unwrap_or_default();
        let file = &mut self.file;
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(&bytes))
            .map_err(|e| super::hub::file_failed("cannot write", &self.path, &e))
    }
}

fn read(file: &File) -> Option<Running> {
    let mut file = file;
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(RECORD_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// What `down` found and did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// Nothing ran.
    Nothing,
    /// It has ended.
    Ended(Running),
}

/// Ends what runs in this home and waits until it is gone, at most `within`. Blocks.
pub(crate) fn end(home: &Home, within: Duration) -> Result<Down, Failure> {
    let path = lock_path(home);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Down::Nothing),
        other => other.map_err(|e| super::hub::file_failed("cannot read", &path, &e))?,
    };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(Down::Nothing);
    }
    let running = read(&file).ok_or_else(|| {
        Failure::internal(format!(
            "fleet runs here but {} does not say who",
            path.display()
        ))
    })?;
    let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::internal(format!("{}: no process", path.display())))?;
    match kill_process(pid, Signal::TERM) {
        // Gone between the two looks.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => {
            return Err(Failure::new(
                Exit::NoPermission,
                format!("cannot end process {}: {e}", running.pid),
            ));
        }
    }
    if released(file, within) {
        Ok(Down::Ended(running))
    } else {
        Err(Failure::new(
            Exit::TempFail,
            format!(
                "process {} has not ended in {} s: it may wait for its jobs",
                running.pid,
                within.as_secs()
            ),
        )
        .next("fleet down again"))
    }
}

/// Waits for the lock, which the kernel frees when the process is gone.
fn released(file: File, within: Duration) -> bool {
    let (done, waited) = std::sync::mpsc::channel();
    let waiter = std::thread::Builder::new().spawn(move || {
        let locked = flock(&file, FlockOperation::LockShared).is_ok();
        // Nobody waits any longer where this fails.
        let _ = done.send(locked);
    });
    waiter.is_ok() && waited.recv_timeout(within).unwrap_or(false)
}

/// Starts this very program again in the background with these arguments, and waits until it says
/// that it is ready. Blocks.
pub(crate) fn start(
    home: &Home,
    args: &[std::ffi::OsString],
    mut note: impl FnMut(&str),
) -> Result<Running, Failure> {
    let log = log_file(home)?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::internal(format!("cannot find fleet's own program: {e}")))?;
    let mut child = Command::new(&program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| Failure::file("cannot start", &program, &e))?;
    let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
    for line in lines.into_iter().flatten() {
        let line = line.map_err(|e| Failure::internal(format!("cannot hear from it: {e}")))?;
        match serde_json::from_str(&line) {
            Ok(Line::Note(text)) => note(&text),
            Ok(Line::Ready(running)) => return Ok(running),
            Ok(Line::Failed {
                message,
                next,
                exit_code,
            }) => {
                // It ends by itself; nothing is left behind.
                let _ = child.wait();
                return Err(Failure::Told(Box::new(Told {
                    message,
                    next,
                    exit_code,
                })));
            }
            Err(_) => {}
        }
    }
    let status = child.wait();
    Err(Failure::internal(format!(
        "fleet ended in the background before it was ready{}",
        status.map_or_else(|_| String::new(), |s| format!(" ({s})"))
    ))
    .next(format!("see {}", log_path(home).display())))
}

fn log_path(home: &Home) -> PathBuf {
    home.root().join("up.log")
}

/// Where the process in the background says what is wrong; begun anew at each start, the last one
/// kept.
fn log_file(home: &Home) -> Result<File, Failure> {
    let path: &Path = &log_path(home);
    let failed = |e: io::Error| super::hub::file_failed("cannot write", path, &e);
    private_file::folder(home.root()).map_err(failed)?;
    // There may be none from before.
    let _ = std::fs::rename(path, path.with_extension("log.old"));
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Running {
        Running {
            pid: std::process::id(),
            machine: "studio".to_owned(),
            hub: String::new(),
            started_at: Time::from_micros(0),
        }
    }

    #[test]
    fn a_second_up_is_refused_and_down_without_up_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        assert_eq!(end(&home, Duration::ZERO).unwrap(), Down::Nothing);
        let lock = UpLock::take(&home, &running()).unwrap();
        let second = UpLock::take(&home, &running()).unwrap_err();
        let text = second.render(false).unwrap();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.ends_with("; fleet down"), "{text}");
        drop(lock);
        assert_eq!(end(&home, Duration::ZERO).unwrap(), Down::Nothing);
        UpLock::take(&home, &running()).unwrap();
    }
}
