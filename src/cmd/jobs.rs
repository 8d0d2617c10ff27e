//! `fleet jobs`: a list of jobs.

use fleet_contract::time::Time;
use fleet_contract::view::JobView;

use crate::args::Jobs;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::jobs::{JobList, id_length};
use crate::{clock, read, spooled};

/// Lists jobs.
pub(crate) async fn run(args: &Jobs, cx: &mut Context) -> Outcome {
    let (views, failure) = match of_hub(cx).await {
        Ok(views) => (views, None),
        // What waits here is known without a hub.
        Err(failure) if spooled::any(&cx.settings.home) => (Vec::new(), Some(failure)),
        Err(failure) => return Err(failure),
    };
    let now = clock::now();
    let mut list = select(views, args, now);
    list.spooled = spooled::views(&cx.settings.home);
    list.spooled.retain(|job| matches(job, args, now));
    if !list.spooled.is_empty() {
        let all = list.jobs.iter().chain(&list.spooled);
        list.id_length = list.id_length.max(id_length(all.map(|job| &job.id)));
    }
    cx.show(&list)?;
    failure.map_or(Ok(0), Err)
}

async fn of_hub(cx: &Context) -> Result<Vec<JobView>, Failure> {
    let bus = cx.bus().await?;
    Ok(read::all(&bus).await?.iter().map(JobView::of).collect())
}

/// The jobs that were asked for, newest last.
fn select(mut jobs: Vec<JobView>, args: &Jobs, now: Time) -> JobList {
    let id_length = id_length(jobs.iter().map(|job| &job.id));
    jobs.retain(|job| matches(job, args, now));
    let left_out = match args.limit {
        0 => 0,
        limit => jobs.len().saturating_sub(limit),
    };
    jobs.drain(..left_out);
    JobList {
        jobs,
        spooled: Vec::new(),
        id_length,
        left_out,
    }
}

fn matches(job: &JobView, args: &Jobs, now: Time) -> bool {
    let state = args.states.is_empty() || args.states.contains(&job.state);
    let machine = args.machine.is_none() || args.machine == job.machine;
    // A job that has not ended is of now, however long ago it was dispatched.
    let recent = args.since.is_none_or(|since| {
        let unended = !job.state.is_terminal();
        unended || now.since(job.ended_at.unwrap_or(job.submitted_at)) <= since
    });
    state && machine && recent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::jobs::tests::job;
    use fleet_contract::record::StateWord;
    use std::time::Duration;

    fn args() -> Jobs {
        Jobs {
            states: Vec::new(),
            machine: None,
            since: None,
            limit: 0,
        }
    }

    #[test]
    fn filters_and_limit_choose_the_newest_that_match() {
        let now = Time::from_micros(1_000_000_000).plus(Duration::from_secs(3600));
        let jobs = || {
            vec![
                job(1, StateWord::Succeeded),
                job(2, StateWord::Running),
                job(3, StateWord::Failed),
            ]
        };
        let states =
            |list: JobList| -> Vec<StateWord> { list.jobs.iter().map(|job| job.state).collect() };
        assert_eq!(states(select(jobs(), &args(), now)).len(), 3);
        let failed = Jobs {
            states: vec![StateWord::Failed],
            ..args()
        };
        assert_eq!(states(select(jobs(), &failed, now)), [StateWord::Failed]);
        let since = Jobs {
            since: Some(Duration::from_secs(60)),
            ..args()
        };
        assert_eq!(states(select(jobs(), &since, now)), [StateWord::Running]);
        let elsewhere = Jobs {
            machine: Some("mini".parse().unwrap()),
            ..args()
        };
        assert!(states(select(jobs(), &elsewhere, now)).is_empty());
        let two = select(jobs(), &Jobs { limit: 2, ..args() }, now);
        assert_eq!(two.left_out, 1);
        assert_eq!(states(two), [StateWord::Running, StateWord::Failed]);
    }
}
