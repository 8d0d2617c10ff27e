//! `fleet run`: one job in this very process, with the same engine, files and endings, and no
//! other process or bus.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{AttemptId, JobId, MachineId};
use fleet_contract::spec::{JobSpec, KILL_GRACE};
use tokio::sync::{mpsc, oneshot};

use super::engine::{Engine, EngineOptions};
use super::log::Chunk;
use super::outbox::Outbox;
use super::protocol::{AttemptReport, Environment, KillCause, StartRequest};
use super::record::{self, Loaded};
use super::server::own_environment;
use super::wakeups::Wakeups;
use super::{ExecutorError, OnlyOne};

/// A job to run here and now.
#[derive(Debug, Clone)]
pub struct RunHere {
    /// `FLEET_HOME`; its files go to `runs/<job>` in it: a journal, and a folder with the output.
    pub home: PathBuf,
    /// The job's id.
    pub job: JobId,
    /// The attempt's id.
    pub attempt: AttemptId,
    /// This machine.
    pub machine: MachineId,
    /// What to run. Its folder should be absolute: none means the home.
    pub spec: JobSpec,
    /// The base of its environment; none for this process's own.
    pub base_env: Option<Environment>,
    /// The machine's configured variables.
    pub env: Environment,
    /// Time between TERM and KILL.
    pub grace: Duration,
}

impl RunHere {
    /// With this process's environment and the usual grace.
    #[must_use]
    pub fn new(
        home: PathBuf,
        job: JobId,
        attempt: AttemptId,
        machine: MachineId,
        spec: JobSpec,
    ) -> Self {
        Self {
            home,
            job,
            attempt,
            machine,
            spec,
            base_env: None,
            env: Environment::new(),
            grace: KILL_GRACE,
        }
    }

    /// The folder of the run's files.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        run_dir(&self.home, self.job)
    }

    /// The folder of its output: what [`super::LogReader::new`] wants.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.dir().join(self.attempt.as_str())
    }
}

fn run_dir(home: &Path, job: JobId) -> PathBuf {
    home.join("runs").join(job.as_str())
}

/// What a run left on disk; none if there was no such run. One without an outcome still runs, or
/// its process was killed.
///
/// # Errors
/// A journal that cannot be read.
pub fn read_run(home: &Path, job: JobId) -> std::io::Result<Option<AttemptReport>> {
    let read = record::read_journal(&run_dir(home, job))?;
    Ok(read.into_iter().next_back().map(AttemptReport::from))
}

/// Runs it to its end, on a thread of its own. Every chunk of output is sent to `output` once it
/// is on disk; the job waits for a slow receiver and goes on without one that was dropped. When
/// `cancel` is done the job is ended as canceled.
///
/// Children this process has besides must be in its own process group, which is the default:
/// any other is taken for something the job left behind.
///
/// # Errors
/// See [`ExecutorError`]; a job that cannot be started is an outcome, not an error.
pub async fn run_here(
    options: RunHere,
    output: mpsc::Sender<Chunk>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<AttemptReport, ExecutorError> {
    let only = OnlyOne::take()?;
    let (canceled, cancel_rx) = oneshot::channel();
    let (done, mut result) = oneshot::channel();
    let system = |what| move |error| ExecutorError::System { what, error };
    std::thread::Builder::new()
        .name("fleet-run".to_owned())
        .spawn(move || {
            let ran = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(system("start a runtime"))
                .and_then(|runtime| runtime.block_on(run(options, output, cancel_rx)));
            // Before the caller hears of it: it may go on with another.
            drop(only);
            // Fails only when the caller no longer waits.
            let _ = done.send(ran);
        })
        .map_err(system("start a thread"))?;
    let over = || {
        Err(ExecutorError::System {
            what: "run the job",
            error: std::io::Error::other("its thread ended early"),
        })
    };
    tokio::pin!(cancel);
    tokio::select! {
        ran = &mut result => return ran.unwrap_or_else(|_| over()),
        () = cancel => {}
    }
    let _ = canceled.send(());
    result.await.unwrap_or_else(|_| over())
}

async fn run(
    options: RunHere,
    output: mpsc::Sender<Chunk>,
    cancel: oneshot::Receiver<()>,
) -> Result<AttemptReport, ExecutorError> {
    let (mut wakeups, inputs) = Wakeups::new()?;
    let root = options.dir();
    let engine = EngineOptions {
        root: root.clone(),
        logs: options.home.join("runs"),
        ended: None,
        grace: options.grace,
        base_env: options.base_env.unwrap_or_else(own_environment),
        within_program: true,
    };
    let mut engine =
        Engine::open(engine, Arc::new(Outbox::default()), inputs).map_err(|error| {
            ExecutorError::Io {
                what: "write under",
                path: root,
                error,
            }
        })?;
    let attempt = options.attempt;
    let request = StartRequest {
        job: options.job,
        attempt,
        token: 0,
        attempt_no: 1,
        machine: options.machine,
        spec: options.spec,
        env: options.env,
        fence_at: None,
    };
    engine.start(request, Some(output));
    let mut cancel = Some(cancel);
    while engine.live() > 0 {
        tokio::select! {
            wake = wakeups.next(&engine) => wake.apply(&mut engine),
            asked = async {
                match cancel.as_mut() {
                    Some(cancel) => cancel.await.is_ok(),
                    None => std::future::pending().await,
                }
            } => {
                cancel = None;
                // A caller that went away wants no more of it either.
                let cause = if asked { KillCause::Cancel } else { KillCause::Interrupt };
                engine.kill(attempt, cause);
            }
        }
    }
    let report = engine.reports().next();
    report.ok_or_else(|| ExecutorError::System {
        what: "run the job",
        error: std::io::Error::other("it left no report"),
    })
}

impl From<Loaded> for AttemptReport {
    fn from(loaded: Loaded) -> Self {
        let Loaded {
            begin,
            started,
            end,
        } = loaded;
        let (ended_at, outcome, output, survivors) = match end {
            Some(end) => (Some(end.at), Some(end.outcome), end.output, end.survivors),
            None => Default::default(),
        };
        Self {
            job: begin.job,
            attempt: begin.attempt,
            token: begin.token,
            attempt_no: begin.attempt_no,
            machine: begin.machine,
            spec: begin.spec,
            pid: started.as_ref().map(|s| s.pid),
            started_at: started.map(|s| s.at),
            ended_at,
            outcome,
            output,
            fence_at: None,
            survivors,
        }
    }
}
