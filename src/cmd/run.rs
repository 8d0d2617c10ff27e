//! `fleet run`: runs a command here and now with the very executor that agents use, with no bus.

use fleet_agent::executor::{AttemptReport, Chunk, ExecutorError, RunHere, run_here};
use fleet_contract::ids::Lane;
use fleet_contract::outcome::Outcome as End;
use fleet_contract::record::StateWord;
use fleet_contract::spec::Target;
use fleet_contract::view::{AttemptView, JobView};
use fleet_nats::clock::{attempt_id, job_id};
use tokio::sync::mpsc;

use crate::args::dispatch::Run;
use crate::config::keys::Table;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Stops;
use crate::output::jobs::{Ended, ended_line};
use crate::output::log::JobOutput;
use crate::{jobspec, place};

/// Chunks that wait to be shown; the job waits for a reader that is slower.
const CHUNKS_AHEAD: usize = 64;

/// Runs it.
pub(crate) async fn run(args: &Run, cx: &mut Context) -> Outcome {
    let target = Target::Lane(Lane::any());
    let mut spec = jobspec::build(args.command.get("run")?.to_vec(), &args.world, target, cx)?;
    spec.cwd = Some(place::here(args.world.cwd.as_deref(), &cx.environment)?);
    jobspec::check(&spec)?;
    let mut options = RunHere::new(
        cx.settings.home.root().to_owned(),
        job_id(),
        attempt_id(),
        cx.settings.machine(),
        spec,
    );
    options.env = cx.settings.entries(Table::Env);
    let (chunks, shown) = mpsc::channel(CHUNKS_AHEAD);
    let mut stops = Stops::new(false);
    let (report, shown) = tokio::join!(
        run_here(options, chunks, async move { stops.next().await }),
        show(shown, cx.output.is_json()),
    );
    let report = report.map_err(failed)?;
    shown?;
    let view = view(&report);
    if cx.output.is_json() {
        cx.show(&Ended(view.clone()))?;
    } else if view.state != StateWord::Succeeded {
        let line = ended_line(&view, &crate::output::Look::plain());
        cx.output.note(&line);
    }
    Ok(view.exit_status().unwrap_or(0))
}

/// Shows output as it comes. A reader that went away ends the showing, not the job's record.
async fn show(mut chunks: mpsc::Receiver<Chunk>, json: bool) -> Result<(), Failure> {
    let mut output = JobOutput::here(false);
    while let Some(chunk) = chunks.recv().await {
        // Programs read the record; their standard output is for one document.
        if json {
            continue;
        }
        output.write(chunk.stream, &chunk.bytes)?;
        if chunks.is_empty() {
            output.flush()?;
        }
    }
    Ok(output.finish()?)
}

fn failed(error: ExecutorError) -> Failure {
    match error {
        ExecutorError::Io { .. } => Failure::config(error.to_string()),
        other => Failure::internal(other.to_string()),
    }
}

/// The run as a job like any other, for people and programs.
fn view(report: &AttemptReport) -> JobView {
    let spec = &report.spec;
    let (state, exit_code, signal, reason) = match report.outcome.clone() {
        Some(End::Exited { exit_code: 0 }) => (StateWord::Succeeded, Some(0), None, None),
        Some(End::Exited { exit_code }) => (StateWord::Failed, Some(exit_code), None, None),
        Some(End::Signaled { signal }) => (StateWord::Failed, None, Some(signal), None),
        Some(End::TimedOut) => (StateWord::TimedOut, None, None, None),
        Some(End::Canceled | End::Interrupted | End::Fenced) => {
            (StateWord::Canceled, None, None, None)
        }
        Some(End::Rejected { reason, .. }) => (StateWord::Rejected, None, None, Some(reason)),
        Some(End::Unknown { reason }) => (StateWord::Lost, None, None, Some(reason)),
        None => (
            StateWord::Lost,
            None,
            None,
            Some("its end was not seen".to_owned()),
        ),
    };
    JobView {
        state,
        machine: Some(report.machine.clone()),
        lane: None,
        attempt: 1,
        attempts: vec![AttemptView {
            attempt: 1,
            id: report.attempt,
            machine: report.machine.clone(),
            token: report.token,
            started_at: report.started_at,
            ended_at: report.ended_at,
            exit_code,
            signal,
            reason: reason.clone(),
            output: report.output,
        }],
        exit_code,
        signal,
        reason,
        started_at: report.started_at,
        ended_at: report.ended_at,
        index: None,
        ..JobView::dispatched(report.job, spec, 0)
    }
}
