//! Jobs that so far only wait on this machine for the hub: what the verbs that name jobs know
//! of them, and what `wait`, `logs` and `cancel` do about them.

use std::time::Duration;

use fleet_contract::ids::JobId;
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use fleet_nats::clock::jittered;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupts;
use crate::spooled::{self, HERE, Turn};
use crate::{prefix, read};

/// How often it is looked whether the hub is there, or whether another process has sent it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The job that waits here and that this text is the id, or the beginning of the id, of.
pub(crate) fn find(cx: &Context, text: &str) -> Option<JobView> {
    let spooled = spooled::views(&cx.settings.home);
    let ids: Vec<JobId> = spooled.iter().map(|job| job.id).collect();
    let id = prefix::resolve(text, &ids).ok()?;
    spooled.into_iter().find(|job| job.id == id)
}

/// What is said where a job is to be canceled that the hub may have already.
pub(crate) fn to_be_canceled(id: JobId) -> String {
    format!("{id} is canceled when the hub is back: its sending had begun\n")
}

/// The jobs that these texts mean, those that wait here among them.
pub(crate) async fn resolve_all(
    cx: &Context,
    bus: &Bus,
    texts: &[String],
) -> Result<Vec<JobId>, Failure> {
    if let Some(whole) = texts.iter().map(|text| prefix::whole(text)).collect() {
        return Ok(whole);
    }
    for text in texts {
        prefix::check(text)?;
    }
    let mut known = read::ids(bus).await?;
    known.extend(spooled::views(&cx.settings.home).iter().map(|job| job.id));
    texts
        .iter()
        .map(|text| prefix::resolve(text, &known))
        .collect()
}

/// Waits until the hub is there and has each of these jobs that waits here; their ids.
pub(crate) async fn until_sent(
    cx: &mut Context,
    texts: &[String],
    deadline: Option<Instant>,
) -> Result<(Bus, Vec<JobId>), Failure> {
    let here: Vec<JobView> = texts.iter().filter_map(|text| find(cx, text)).collect();
    let mut interrupts = Interrupts::new();
    let mut told = false;
    let bus = loop {
        match cx.bus().await {
            Ok(bus) => break bus,
            Err(failure) if !waits_for_hub(&failure) || here.len() < texts.len() => {
                return Err(failure);
            }
            Err(_) if !std::mem::replace(&mut told, true) => {
                cx.output.note(&format!("{HERE}: waiting for the hub"));
            }
            Err(_) => {}
        }
        pause(&mut interrupts, deadline).await?;
    };
    // What was found here before it was sent goes by its own id: the beginning may mean more now.
    let mut ids = Vec::new();
    for text in texts {
        match find(cx, text).or_else(|| by_text(&here, text)) {
            Some(job) => ids.push(job.id),
            None => ids.extend(resolve_all(cx, &bus, std::slice::from_ref(text)).await?),
        }
    }
    for job in &here {
        until_there(cx, &bus, job.id, &mut interrupts, deadline).await?;
    }
    Ok((bus, ids))
}

fn by_text(jobs: &[JobView], text: &str) -> Option<JobView> {
    jobs.iter()
        .find(|job| job.id.as_str().starts_with(text))
        .cloned()
}

fn waits_for_hub(failure: &Failure) -> bool {
    failure.exit_code() == Exit::Unavailable.code()
}

/// Waits until the hub has this job, by whomever it is sent.
async fn until_there(
    cx: &Context,
    bus: &Bus,
    id: JobId,
    interrupts: &mut Interrupts,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    loop {
        // In this order: who sends takes it out of the spool after the hub has it.
        let job = spooled::views(&cx.settings.home);
        let job = job.into_iter().find(|job| job.id == id);
        if read::through_outages(bus, || bus.job(id)).await?.is_some() {
            return Ok(());
        }
        let reason = match job {
            None => return Err(never_sent(id)),
            Some(job) => job.reason.unwrap_or_default(),
        };
        if reason != HERE {
            let text = format!("job {id} is {reason}");
            let next = format!("fleet spool send, or fleet spool remove {id}");
            return Err(Failure::new(Exit::TempFail, text).next(next));
        }
        // Another one is at it, or the hub had no room when it was tried.
        let _ = spooled::send(&cx.settings.home, bus, Turn::Passing).await?;
        pause(interrupts, deadline).await?;
    }
}

/// It was taken out here before the hub heard of it: as good as canceled.
fn never_sent(id: JobId) -> Failure {
    crate::output::note(&format!("{id} canceled: it was never sent"));
    Failure::Exit(Exit::Interrupted.code())
}

async fn pause(interrupts: &mut Interrupts, deadline: Option<Instant>) -> Result<(), Failure> {
    let over = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep(jittered(LOOK_AGAIN)) => Ok(()),
        () = interrupts.next() => Err(Failure::Exit(Exit::Interrupted.code())),
        () = over => Err(Failure::new(Exit::TempFail, "not sent in time: it waits here for the hub")
            .next("fleet spool list")),
    }
}
