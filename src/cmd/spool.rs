//! `fleet spool`: jobs that were dispatched here while the hub was away.

use fleet_contract::ids::JobId;
use serde::Serialize;

use crate::args::Spool;
use crate::cmd::unsent;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::jobs::{JobList, id_length};
use crate::output::{Said, note};
use crate::spooled::{self, Sent, Turn, Withdrawn};
use crate::{prefix, words};

/// Lists them, sends them or takes some out.
pub(crate) async fn run(args: &Spool, cx: &mut Context) -> Outcome {
    match args {
        Spool::List => list(cx),
        Spool::Send => send(cx).await,
        Spool::Remove { jobs } => remove(jobs, cx),
    }
}

fn list(cx: &mut Context) -> Outcome {
    let spooled = spooled::views(&cx.settings.home);
    for entry in spooled::list(&cx.settings.home) {
        if let Err(why) = entry.batch {
            cx.output
                .note(&format!("cannot read {}: {why}", entry.path.display()));
        }
    }
    cx.show(&JobList {
        id_length: id_length(spooled.iter().map(|job| &job.id)),
        jobs: Vec::new(),
        spooled,
        left_out: 0,
    })?;
    Ok(0)
}

#[derive(Debug, Serialize)]
struct Report {
    sent: Vec<JobId>,
    refused: Vec<Refused>,
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct Refused {
    id: JobId,
    reason: String,
}

async fn send(cx: &mut Context) -> Outcome {
    // Else this very connection would have sent them, and not tried what was refused before.
    let bus = cx.acting_bus_as_it_is().await?;
    let sent = spooled::send(&cx.settings.home, &bus, Turn::Told).await?;
    let text = format!("{} sent\n", words::count(sent.jobs.len() as u64, "job"));
    tell_what_is_left(&sent);
    let refused = sent.refused.iter().map(|(id, reason)| Refused {
        id: *id,
        reason: reason.clone(),
    });
    let value = Report {
        refused: refused.collect(),
        waiting: spooled::views(&cx.settings.home).len(),
        sent: sent.jobs,
    };
    let left = value.waiting;
    cx.show(&Said { value, text })?;
    match sent.stopped {
        Some(error) => Err(super::dispatch::not_sent(error)),
        None if left > 0 => Ok(Exit::TempFail.code()),
        None => Ok(0),
    }
}

/// Says of each job that was not sent, why.
fn tell_what_is_left(sent: &Sent) {
    for id in &sent.canceled {
        note(&format!("{id} is canceled at the hub, as was asked here"));
    }
    for (id, why) in &sent.refused {
        note(&format!("{id} is not sent: {why}; fleet spool remove {id}"));
    }
    for (path, why) in &sent.unreadable {
        note(&format!("cannot read {}: {why}", path.display()));
    }
}

/// Sends what waits here, for a command that has reached the hub and does something else.
pub(crate) async fn send_in_passing(cx: &Context, bus: &fleet_nats::bus::Bus) {
    let sent = match spooled::send(&cx.settings.home, bus, Turn::Passing).await {
        Ok(sent) => sent,
        Err(failure) => return note(&failure.render(false).unwrap_or_default()),
    };
    if cx.output.is_json() {
        return;
    }
    if !sent.jobs.is_empty() {
        let jobs = words::count(sent.jobs.len() as u64, "job");
        note(&format!("sent {jobs} that waited here for the hub"));
    }
    tell_what_is_left(&sent);
    if let Some(error) = &sent.stopped {
        note(&format!("jobs that are spooled here wait on: {error}"));
    }
}

fn remove(jobs: &[String], cx: &mut Context) -> Outcome {
    let home = cx.settings.home.clone();
    let known: Vec<JobId> = spooled::views(&home).iter().map(|job| job.id).collect();
    let ids: Vec<JobId> = jobs
        .iter()
        .map(|text| prefix::resolve(text, &known).map_err(|f| f.next("fleet spool list")))
        .collect::<Result<_, _>>()?;
    for id in ids {
        let (result, text) = match spooled::withdraw(&home, id, &cx.environment.who())? {
            Withdrawn::Removed => ("removed", format!("{id} removed\n")),
            Withdrawn::Begun => ("to_be_canceled", unsent::to_be_canceled(id)),
            Withdrawn::NotHere => {
                let text = format!("{id} was sent in between");
                return Err(Failure::new(Exit::TempFail, text).next(format!("fleet cancel {id}")));
            }
        };
        let value = serde_json::json!({ "id": id, "result": result });
        cx.show(&Said { value, text })?;
    }
    Ok(0)
}
