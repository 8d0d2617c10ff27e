//! Reports what ended here before the hub's store went back in time and was forgotten since: the small
//! records that executors keep for 7 days say how. By the rules for an attempt that the executor still
//! has, and only where the journal that is left has a place for it.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::attempt::{Attempt, Found, is_missed};
use fleet_contract::job::token;
use fleet_contract::lease::Mark;
use fleet_contract::ticket::Tip;
use tokio::sync::mpsc;

use super::context::Context;
use super::driver::Driver;
use super::listen;
use crate::executor::{AttemptReport, EndedRecord, ended_before, ended_dir};

/// Pause before a question that brought no answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// Records read ahead.
const AHEAD: usize = 64;

/// Looks once in each epoch but the first, which no store went back to.
pub(super) async fn run(context: Arc<Context>) {
    let mut lease = context.lease.subscribe();
    let mut done = 0;
    loop {
        let held = lease.wait_for(|held| held.term != 0 && held.epoch > done);
        let Ok(epoch) = held.await.map(|held| held.epoch) else {
            return std::future::pending().await;
        };
        if look(&context, epoch).await.is_some() {
            done = epoch;
        }
    }
}

/// Reports what is missed in this epoch; none where the hub is in another one by now.
async fn look(context: &Arc<Context>, epoch: u64) -> Option<()> {
    let left = left(context, epoch).await?;
    let (records, mut found) = mpsc::channel(AHEAD);
    let dir = ended_dir(context.home.root());
    let reading = tokio::task::spawn_blocking(move || {
        // Nobody listens any more once the hub is in another epoch.
        ended_before(&dir, token(epoch, 0), |record| {
            records.blocking_send(record).is_ok()
        })
    });
    while let Some(record) = found.recv().await {
        let Some(report) = report(context, record) else {
            continue;
        };
        let tip = tip(context, epoch, &report).await?;
        let found = found_by(&report);
        // What the executor still has is on its way.
        let mine = context.routes.attempts();
        if mine.iter().any(|(id, _)| *id == report.attempt) {
            continue;
        }
        if is_missed(&found, tip.as_ref(), left) {
            tracing::info!(job = %report.job, attempt = %report.attempt, "the hub has lost how it ended: told again");
            tell(context, found, &report).await;
        }
    }
    if let Ok(Err(error)) = reading.await {
        tracing::warn!(%error, "not all records of ended attempts can be read");
    }
    Some(())
}

/// Where the journals ended when the hub was recovered into this epoch.
async fn left(context: &Context, epoch: u64) -> Option<Option<Mark>> {
    loop {
        at_hub(context, epoch).await?;
        if let Ok(word) = context.bus.hub_word().await {
            let recovered = word.and_then(|word| word.recovered);
            let recovered = recovered.filter(|recovered| recovered.epoch == epoch);
            return Some(recovered.and_then(|recovered| recovered.journal));
        }
        context.pause(RETRY).await;
    }
}

/// The last record of a job in this epoch.
async fn tip(context: &Context, epoch: u64, report: &AttemptReport) -> Option<Option<Tip>> {
    loop {
        at_hub(context, epoch).await?;
        match context.bus.tip(report.job).await {
            Ok(tip) if context.epoch_now() == Some(epoch) => return Some(tip),
            _ => context.pause(RETRY).await,
        }
    }
}

/// Waits for a hub that vouches for its server; none where it is in another epoch.
async fn at_hub(context: &Context, epoch: u64) -> Option<()> {
    context.connected().await;
    (context.vouched().await == epoch).then_some(())
}

/// The record as the executor would report the attempt. None of another name of this machine, or where
/// too little is known of the job.
fn report(context: &Context, record: EndedRecord) -> Option<AttemptReport> {
    let (machine, spec) = (record.machine?, *record.spec?);
    (machine == context.me).then_some(AttemptReport {
        job: record.job,
        attempt: record.attempt,
        token: record.token,
        attempt_no: record.attempt_no,
        machine,
        spec,
        pid: None,
        started_at: record.started_at,
        ended_at: Some(record.ended_at),
        outcome: Some(record.outcome),
        output: record.output,
        fence_at: None,
        survivors: Vec::new(),
    })
}

pub(super) fn found_by(report: &AttemptReport) -> Found {
    Found {
        job: report.job,
        attempt: report.attempt,
        token: report.token,
        no: report.attempt_no,
        spec: report.spec.clone(),
    }
}

/// Has the attempt's end put into the journal, and waits for that.
async fn tell(context: &Arc<Context>, found: Found, report: &AttemptReport) {
    let gone = listen::gone_of(report);
    let (attempt, effects) = Attempt::adopt(context.me.clone(), found, gone);
    let announced = listen::announced_of(report);
    let told = Driver::start(context, attempt, effects, None, None, announced);
    if told.await.is_err() {
        tracing::warn!(attempt = %report.attempt, "its end was not told");
    }
}
