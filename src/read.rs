//! Jobs as the hub's journal has them: one, all, and waiting for their end.

use std::collections::BTreeMap;

use fleet_contract::event::kind;
use fleet_contract::ids::JobId;
use fleet_contract::job::Job;
use fleet_contract::view::JobView;
use fleet_nats::bus::{ANSWER_WITHIN, Bus, BusError};
use fleet_nats::connect::LinkState;
use fleet_nats::flow;
use fleet_nats::journal::{Entry, fold};
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail, read_all};
use serde::Deserialize;

use crate::failure::Failure;
use crate::prefix;

/// Up to so many jobs a reader asks for them by name; for more it reads everything.
const FILTERS_MAX: usize = 32;

/// What is there already comes without a pause: one this long means that the hub is gone.
pub(crate) async fn soon<T>(next: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(ANSWER_WITHIN, next)
        .await
        .unwrap_or_else(|_| {
            Err(BusError::NoAnswer {
                what: "reading on".to_owned(),
                within: ANSWER_WITHIN,
            }
            .into())
        })
}

/// Every job, in the order in which they were dispatched.
pub(crate) async fn all(bus: &Bus) -> Result<Vec<Job>, Failure> {
    let filters = [subject::JOBS.to_owned()];
    let mut tail = Tail::open(bus, stream::JOB, &filters, From::First).await?;
    let mut jobs: BTreeMap<JobId, Option<Job>> = BTreeMap::new();
    let mut order = Vec::new();
    while let Next::Message(message, _) = soon(async { Ok(tail.next().await?) }).await? {
        if let Some(entry) = Entry::of(&message) {
            let job = jobs.entry(entry.job).or_insert_with(|| {
                order.push(entry.job);
                None
            });
            fold(job, &entry);
        }
    }
    Ok(order
        .into_iter()
        .filter_map(|id| jobs.remove(&id).flatten())
        .collect())
}

/// Every job's id.
pub(crate) async fn ids(bus: &Bus) -> Result<Vec<JobId>, Failure> {
    #[derive(Deserialize)]
    struct Info {
        state: State,
        #[serde(default)]
        total: usize,
    }
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        subjects: BTreeMap<String, u64>,
    }
    let mut found = Vec::new();
    let mut offset = 0;
    loop {
        let body = serde_json::json!({ "subjects_filter": subject::JOBS, "offset": offset });
        let info: Info = bus
            .api(
                &format!("STREAM.INFO.{}", stream::JOB),
                body.to_string().into(),
            )
            .await?;
        let subjects = info.state.subjects;
        offset += subjects.len();
        let more = !subjects.is_empty() && offset < info.total;
        found.extend(
            subjects
                .keys()
                .filter_map(|s| subject::parse_job(s).map(|(id, _)| id)),
        );
        if !more {
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
    }
}

/// The job that this text is the id, or the beginning of the id, of.
pub(crate) async fn resolve(bus: &Bus, text: &str) -> Result<JobId, Failure> {
    if let Some(id) = prefix::whole(text) {
        return Ok(id);
    }
    prefix::check(text)?;
    prefix::resolve(text, &ids(bus).await?)
}

/// One job.
pub(crate) async fn job(bus: &Bus, id: JobId) -> Result<Job, Failure> {
    match bus.job(id).await? {
        Some(job) => Ok(job),
        None => Err(gone(bus, id).await),
    }
}

/// Reads for somebody who waits anyway: where the link went away meanwhile, once more when it is
/// there again. A hub that is there and does not answer is told of, and not waited for.
pub(crate) async fn through_outages<T, F>(bus: &Bus, read: impl Fn() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut status = bus.status();
    loop {
        let disconnects = status.borrow_and_update().disconnects;
        let found = read().await;
        if !matches!(found, Err(BusError::NoAnswer { .. } | BusError::Closed(_))) {
            return found;
        }
        let here = status.wait_for(|now| now.state == LinkState::Connected);
        if here.await.is_err() || status.borrow().disconnects == disconnects {
            return found;
        }
    }
}

/// The hub has no journal of this job: whether it had one, as far as its events tell.
pub(crate) async fn gone(bus: &Bus, id: JobId) -> Failure {
    let purges = [subject::flow(subject::HUB, kind::JOB_PURGED)];
    let told = read_all(bus, stream::FLOW, &purges, From::First).await;
    let events = told.unwrap_or_default().into_iter().rev();
    let events = events.filter_map(|message| flow::event(&message).ok());
    for event in events {
        let jobs = event.detail().get("jobs").and_then(|jobs| jobs.as_array());
        let names = |job: &serde_json::Value| job.as_str() == Some(id.as_str());
        if jobs.is_some_and(|jobs| jobs.iter().any(names)) {
            let reason = event.detail().get("reason").and_then(|why| why.as_str());
            let reason = reason.unwrap_or("its time was over");
            return Failure::usage(format!(
                "job {id} had ended and was removed with its output at {}: {reason}",
                event.time
            ))
            .next("fleet flow --kind hub.job_purged --since 14d");
        }
    }
    Failure::usage(format!("no job {id}")).next("fleet jobs")
}

/// Waits for jobs to end. A job that waits for a person's decision counts: its waiter shall know.
pub(crate) struct Waiter {
    tail: Tail,
    jobs: BTreeMap<JobId, Option<Job>>,
}

impl Waiter {
    /// A reader of these jobs' journals from this sequence on, which is at or before the first
    /// record of each job that is not given.
    pub(crate) async fn open(
        bus: &Bus,
        from: u64,
        jobs: impl IntoIterator<Item = (JobId, Option<Job>)>,
    ) -> Result<Self, Failure> {
        let jobs: BTreeMap<JobId, Option<Job>> = jobs.into_iter().collect();
        let filters = if jobs.len() <= FILTERS_MAX {
            jobs.keys().map(|id| subject::job_all(*id)).collect()
        } else {
            vec![subject::JOBS.to_owned()]
        };
        let open = || Tail::open(bus, stream::JOB, &filters, From::Seq(from));
        let tail = through_outages(bus, open).await?;
        Ok(Self { tail, jobs })
    }

    /// The next of the jobs that has ended; it is not waited for any longer.
    ///
    /// Safe to drop and call again: nothing read is lost.
    pub(crate) async fn next(&mut self) -> Result<JobView, Failure> {
        loop {
            let Next::Message(message, _) = self.tail.next().await? else {
                continue;
            };
            let Some(entry) = Entry::of(&message) else {
                continue;
            };
            let Some(job) = self.jobs.get_mut(&entry.job) else {
                continue;
            };
            fold(job, &entry);
            let view = job.as_ref().map(JobView::of);
            if let Some(view) = view.filter(|view| view.exit_status().is_some()) {
                self.jobs.remove(&entry.job);
                return Ok(view);
            }
        }
    }
}
