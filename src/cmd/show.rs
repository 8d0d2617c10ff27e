//! `fleet show`: everything about a job.

use fleet_contract::ids::JobId;
use fleet_contract::view::JobView;

use crate::args::Show;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::jobs::JobDetail;
use crate::{prefix, read, spooled};

/// Shows a job.
pub(crate) async fn run(args: &Show, cx: &mut Context) -> Outcome {
    let view = match of_hub(args, cx).await {
        Ok(view) => view,
        Err(failure) => spooled_here(args, cx).ok_or(failure)?,
    };
    cx.show(&JobDetail(view))?;
    Ok(0)
}

async fn of_hub(args: &Show, cx: &Context) -> Result<JobView, Failure> {
    let bus = cx.bus().await?;
    let id = read::resolve(&bus, &args.job).await?;
    Ok(JobView::of(&read::job(&bus, id).await?))
}

/// The job, where it waits on this machine and the hub has not heard of it.
fn spooled_here(args: &Show, cx: &Context) -> Option<JobView> {
    let spooled = spooled::views(&cx.settings.home);
    let ids: Vec<JobId> = spooled.iter().map(|job| job.id).collect();
    let id = prefix::resolve(&args.job, &ids).ok()?;
    spooled.into_iter().find(|job| job.id == id)
}
