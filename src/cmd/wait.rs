//! `fleet wait`: waits until jobs have ended, and exits as they did.

use std::collections::BTreeMap;

use fleet_contract::ids::JobId;
use fleet_contract::record::StateWord;
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;

use crate::args::Wait;
use crate::ask;
use crate::cmd::{cancel, unsent};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Interrupts;
use crate::outage::Outages;
use crate::output::jobs::{Ended, superseded_note};
use crate::read::{self, Waiter};

/// Waits for the jobs that were named.
pub(crate) async fn run(args: &Wait, cx: &mut Context) -> Outcome {
    let deadline = args.timeout.map(|t| tokio::time::Instant::now() + t);
    let (bus, ids) = unsent::until_sent(cx, &args.jobs, deadline).await?;
    let mut waiting = Vec::new();
    let mut ended = BTreeMap::new();
    for id in &ids {
        let Some(job) = read::through_outages(&bus, || bus.job(*id)).await? else {
            return Err(read::gone(&bus, *id).await);
        };
        let view = JobView::of(&job);
        if view.exit_status().is_some() {
            show_ended(cx, &view)?;
            ended.insert(*id, view);
        } else {
            waiting.push((*id, Some(job)));
        }
    }
    let from = waiting
        .iter()
        .filter_map(|(_, job)| job.as_ref().map(|job| job.last_seq + 1))
        .min();
    if let Some(from) = from {
        let waiter = Waiter::open(&bus, from, waiting).await?;
        let left = ids.iter().filter(|id| !ended.contains_key(id)).copied();
        let mut waited = Waited::new(left.collect(), ended);
        let until = (deadline, &mut Interrupts::new());
        return until_ended(cx, &bus, waiter, &mut waited, &ids, until).await;
    }
    Ok(exit_code(&ids, &ended))
}

/// What is known while jobs are waited for.
pub(crate) struct Waited {
    left: Vec<JobId>,
    ended: BTreeMap<JobId, JobView>,
}

impl Waited {
    /// These are left, those have ended.
    pub(crate) fn new(left: Vec<JobId>, ended: BTreeMap<JobId, JobView>) -> Self {
        Self { left, ended }
    }
}

/// Waits for all of them, telling each end as it comes, until the time is over or Ctrl-C comes: that
/// asks on a terminal and else leaves the jobs running.
pub(crate) async fn until_ended(
    cx: &mut Context,
    bus: &Bus,
    mut waiter: Waiter,
    waited: &mut Waited,
    ids: &[JobId],
    (deadline, interrupts): (Option<tokio::time::Instant>, &mut Interrupts),
) -> Outcome {
    let mut outages = Outages::of(bus);
    while !waited.left.is_empty() {
        let view = tokio::select! {
            view = waiter.next() => view?,
            () = interrupts.next() => {
                match on_interrupt(cx, bus, &waited.left, interrupts).await? {
                    AfterInterrupt::GoOn => continue,
                    AfterInterrupt::Leave => return Ok(Exit::Interrupted.code()),
                }
            }
            told = outages.next("wait", &waited.left) => {
                cx.output.note(&told);
                continue;
            }
            () = until(deadline) => {
                return Err(Failure::new(
                    Exit::TempFail,
                    not_in_time(&waited.left),
                ));
            }
        };
        waited.left.retain(|id| *id != view.id);
        show_ended(cx, &view)?;
        waited.ended.insert(view.id, view);
    }
    Ok(exit_code(ids, &waited.ended))
}

/// Tells how it ended, and whether more of it ran than counts.
pub(crate) fn show_ended(cx: &mut Context, view: &JobView) -> Result<(), Failure> {
    cx.show(&Ended(view.clone()))?;
    if let Some(note) = superseded_note(view) {
        cx.output.note(&note);
    }
    Ok(())
}

/// How many of them go on.
fn not_in_time(left: &[JobId]) -> String {
    match left {
        [one] => format!("job {one} has not ended in time: it goes on"),
        many => format!("{} jobs have not ended in time: they go on", many.len()),
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a person wants after Ctrl-C.
pub(crate) enum AfterInterrupt {
    /// The jobs are being ended, or nothing was decided: wait on.
    GoOn,
    /// Leave them running.
    Leave,
}

/// Asks what to do with the jobs that are waited for; without a terminal they are left running.
pub(crate) async fn on_interrupt(
    cx: &mut Context,
    bus: &Bus,
    jobs: &[JobId],
    interrupts: &mut Interrupts,
) -> Result<AfterInterrupt, Failure> {
    let names = match jobs {
        [one] => one.to_string(),
        many => format!("{} jobs", many.len()),
    };
    let leave = |cx: &mut Context| {
        cx.output.note(&format!("left running: {names}"));
        Ok(AfterInterrupt::Leave)
    };
    if !ask::possible() {
        return leave(cx);
    }
    let question = format!("\ncancel {names}, or leave running? [c/L] ");
    let answer = tokio::select! {
        answer = ask::line(&question) => answer,
        // A second Ctrl-C is an answer too.
        () = interrupts.next() => String::new(),
    };
    if !matches!(answer.trim(), "c" | "C" | "cancel") {
        return leave(cx);
    }
    for id in jobs {
        cancel::quietly(bus, *id, &cx.environment.who()).await?;
    }
    Ok(AfterInterrupt::GoOn)
}

/// 0 if all succeeded, else that of the first, in the order given, that did not.
pub(crate) fn exit_code(ids: &[JobId], ended: &BTreeMap<JobId, JobView>) -> u8 {
    ids.iter()
        .filter_map(|id| ended.get(id))
        .filter(|view| view.state != StateWord::Succeeded)
        .find_map(JobView::exit_status)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::jobs::tests::job;

    #[test]
    fn the_first_job_that_did_not_succeed_decides() {
        let jobs = [
            job(1, StateWord::Succeeded),
            job(2, StateWord::Canceled),
            job(3, StateWord::TimedOut),
        ];
        let ended: BTreeMap<_, _> = jobs.iter().map(|j| (j.id, j.clone())).collect();
        let ids: Vec<_> = jobs.iter().map(|j| j.id).collect();
        assert_eq!(exit_code(&ids, &ended), 130);
        assert_eq!(exit_code(&ids[..1], &ended), 0);
        assert_eq!(exit_code(&[ids[2], ids[1]], &ended), 124);
    }
}
