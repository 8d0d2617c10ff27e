//! The server as a supervised child: spawned in a process group of its own, so that Ctrl-C on
//! the terminal reaches us first; started again with capped, jittered backoff when it dies;
//! ended in order.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::health::until_healthy;
use super::process::{TERM_WITHIN, send};
use crate::clock;
use crate::home::Home;

/// First and longest pause before a server that died is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A server that ran this long has earned a quick restart.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// What happens to the server. Kept for the last 64 events; a slower reader is told how many it
/// missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEvent {
    /// The server has ended though nobody asked it to.
    ServerExited {
        /// Its process.
        pid: u32,
        /// How it ended, and the end of what it said.
        reason: String,
        /// When it is started again.
        restart_in: Duration,
    },
    /// The server could not be started again; the next try follows.
    RestartFailed {
        /// Why not.
        reason: String,
        /// When the next try is.
        restart_in: Duration,
    },
    /// A new server is healthy.
    ServerRestarted {
        /// Its process.
        pid: u32,
        /// From the death of the old one.
        after: Duration,
    },
    /// The server was ended as asked.
    Stopped,
}

/// How to start this home's server.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) home: Home,
    pub(crate) monitor: SocketAddr,
    /// The server dies with this process, however that ends.
    pub(crate) tethered: bool,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) pid: u32,
    /// Ends the server when this process is gone; itself ends when dropped.
    tether: Option<Tether>,
}

/// A shell that waits for the end of our side of its standard input and then kills the server.
struct Tether {
    _shell: Child,
    _stdin: Option<ChildStdin>,
}

impl Launch {
    /// Starts the server; it is not healthy yet.
    pub(crate) fn spawn(&self) -> io::Result<Server> {
        let output = File::create(self.home.server_output())?;
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.home.server_config())
            .current_dir(self.home.hub_dir())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            // For a start that is given up half-way. In order, it is ended before that.
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("it ended at once"))?;
        // The server writes the same; this closes the gap in which a killed hub would leave a
        // server that nobody finds.
        std::fs::write(self.home.server_pid(), pid.to_string())?;
        let tether = self.tethered.then(|| tether(pid)).transpose()?;
        Ok(Server { child, pid, tether })
    }

    /// Waits until the server is healthy.
    ///
    /// # Errors
    /// Why it is not, with the end of what it said: it ended, or the time is over.
    pub(crate) async fn healthy(
        &self,
        server: &mut Server,
        within: Duration,
    ) -> Result<(), String> {
        tokio::select! {
            ended = server.child.wait() => Err(self.epitaph(ended)),
            waited = timeout(within, until_healthy(self.monitor)) => match waited {
                // Somebody else may answer on that port: the child must be there still.
                Ok(()) => match server.child.try_wait() {
                    Ok(None) => Ok(()),
                    Ok(Some(status)) => Err(self.epitaph(Ok(status))),
                    Err(e) => Err(e.to_string()),
                },
                Err(_) => Err(format!(
                    "it was not healthy after {} s; {}",
                    within.as_secs(),
                    self.last_words()
                )),
            },
        }
    }

    fn epitaph(&self, ended: io::Result<ExitStatus>) -> String {
        let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
        format!("{how}; {}", self.last_words())
    }

    /// The last lines that the server wrote, without their times.
    fn last_words(&self) -> String {
        let mut words = Vec::new();
        for (path, lines) in [(self.home.server_output(), 3), (self.home.server_log(), 3)] {
            // What it said while all was well is no reason.
            words.extend(
                tail(&path, lines)
                    .into_iter()
                    .filter(|line| !line.contains("[INF]")),
            );
        }
        if words.is_empty() {
            return format!("it gave no reason in {}", self.home.server_log().display());
        }
        format!(
            "it said: {} (all of it in {})",
            words.join("; "),
            self.home.server_log().display()
        )
    }
}

/// The last lines of the last 4 KiB of a file.
fn tail(path: &Path, lines: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| {
            // `[13113] 2026/11/20 06:00:50.739142 [INF] Starting` → `[INF] Starting`
            let words = line.splitn(4, ' ').nth(3).filter(|_| line.starts_with('['));
            words.unwrap_or(line).chars().take(200).collect()
        })
        .collect()
}

fn tether(pid: u32) -> io::Result<Tether> {
    let mut shell = Command::new("sh")
        .args(["-c", r#"read -r _; kill -9 "$1""#, "tether"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stdin = shell.stdin.take();
    Ok(Tether {
        _shell: shell,
        _stdin: stdin,
    })
}

impl Server {
    /// Ends the server: SIGTERM, and SIGKILL for one that stays. Returns once it is gone.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        send(self.pid, Signal::TERM);
        if timeout(TERM_WITHIN, self.child.wait()).await.is_err() {
            self.child.start_kill()?;
            self.child.wait().await?;
        }
        if let Some(mut tether) = self.tether.take() {
            // Killed before its input closes: the number may soon be somebody else's.
            tether._shell.start_kill()?;
            tether._shell.wait().await?;
        }
        Ok(())
    }
}

/// Keeps one server running until told to stop. `current` holds its pid, 0 while there is none.
pub(crate) async fn supervise(
    launch: Launch,
    mut server: Server,
    current: Arc<AtomicU32>,
    events: broadcast::Sender<HubEvent>,
    mut restarts: mpsc::Receiver<String>,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let pid = server.pid;
        let mut asked = None;
        let ended = tokio::select! {
            ended = server.child.wait() => Some(ended),
            Some(reason) = restarts.recv() => {
                asked = Some(reason);
                None
            }
            _ = &mut stop => {
                server.end().await?;
                current.store(0, Ordering::Release);
                let _ = events.send(HubEvent::Stopped);
                return Ok(());
            }
        };
        current.store(0, Ordering::Release);
        let died = Instant::now();
        match ended {
            Some(_) => drop(server),
            None => server.end().await?,
        }
        if died.duration_since(started) > STEADY_AFTER {
            backoff = Backoff::default();
        }
        let mut pause = match ended {
            Some(_) => backoff.next(clock::random_u32()),
            None => Duration::ZERO,
        };
        let _ = events.send(HubEvent::ServerExited {
            pid,
            reason: match ended {
                Some(ended) => launch.epitaph(ended),
                None => asked.unwrap_or_default(),
            },
            restart_in: pause,
        });
        server = loop {
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stop => {
                    let _ = events.send(HubEvent::Stopped);
                    return Ok(());
                }
            }
            match launch.spawn() {
                Ok(server) => break server,
                Err(e) => {
                    pause = backoff.next(clock::random_u32());
                    let _ = events.send(HubEvent::RestartFailed {
                        reason: e.to_string(),
                        restart_in: pause,
                    });
                }
            }
        };
        current.store(server.pid, Ordering::Release);
        // Loading a large store takes its time; only its end ends the wait.
        tokio::select! {
            () = until_healthy(launch.monitor) => {
                let _ = events.send(HubEvent::ServerRestarted {
                    pid: server.pid,
                    after: died.elapsed(),
                });
            }
            _ = server.child.wait() => {}
            _ = &mut stop => {
                server.end().await?;
                current.store(0, Ordering::Release);
                let _ = events.send(HubEvent::Stopped);
                return Ok(());
            }
        }
    }
}

/// Doubling pauses with jitter.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause: between half and all of the doubled one, as `random` (of all of `u32`)
    /// says.
    fn next(&mut self, random: u32) -> Duration {
        let (first, longest) = BACKOFF;
        let full = first
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(longest);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_and_jitter() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000]);
        assert_eq!(backoff.next(0), Duration::from_secs(5));
        backoff.tries = u32::MAX;
        assert_eq!(backoff.next(u32::MAX), Duration::from_secs(10));
    }

    #[test]
    fn only_the_end_of_a_log_is_shown_without_its_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut text = "[1] 2026/11/20 06:00:50.739142 [INF] old\n".repeat(1000);
        text.push_str("[1] 2026/11/20 06:00:50.739142 [FTL] no space\n\nplain\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(tail(&path, 2), ["[FTL] no space", "plain"]);
        assert!(tail(&dir.path().join("missing"), 2).is_empty());
    }
}
