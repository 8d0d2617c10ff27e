//! `fleet explain`: where a job may run and why, machine by machine.

use fleet_contract::job::{Job, JobState};
use fleet_contract::spec::Target;
use fleet_nats::operate::Placement;

use crate::args::Show;
use crate::context::Context;
use crate::failure::Outcome;
use crate::jobspec;
use crate::output::explain::{Explained, Holder, Told};
use crate::read;

/// Jobs that hold slots and are named.
const HOLDERS: usize = 3;

/// Explains a job.
pub(crate) async fn run(args: &Show, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let id = read::resolve(&bus, &args.job).await?;
    let job = read::job(&bus, id).await?;
    let (machines, _) = bus.machines().await?;
    let needs = job.spec.needs().map_err(|e| jobspec::invalid(e.into()))?;
    let placement = Placement::of(&job.target, &needs, &machines);
    // Only a job that waits is kept by others.
    let holders = match job.state {
        JobState::Queued { .. } => holders(&read::all(&bus).await?, &placement),
        _ => Vec::new(),
    };
    cx.show(&Explained {
        job: Some(Told {
            id,
            title: job.spec.title(),
            state: job.state.word(),
            machine: job.attempt().map(|attempt| attempt.machine.clone()),
            submitted_at: job.spec.submitted_at,
        }),
        pin: match &job.target {
            Target::Pin(machine) => Some(machine.clone()),
            Target::Lane(_) => None,
        },
        needs: job.spec.needs.clone(),
        prefer: job.spec.prefer.clone(),
        placement,
        holders,
    })?;
    Ok(0)
}

/// The jobs that have run for longest on machines that could run this one, too.
fn holders(jobs: &[Job], placement: &Placement) -> Vec<Holder> {
    let running = jobs.iter().filter_map(|job| {
        let machine = &job.state.open()?.machine;
        placement.ready.contains(machine).then(|| Holder {
            job: job.id,
            machine: machine.clone(),
            title: job.spec.title(),
            since: job.changed_at,
        })
    });
    let mut running: Vec<Holder> = running.collect();
    running.sort_by_key(|holder| holder.since);
    running.truncate(HOLDERS);
    running
}
