//! `fleet show`: everything about a job.

use fleet_contract::view::JobView;

use crate::args::Show;
use crate::cmd::unsent;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::jobs::JobDetail;
use crate::read;

/// Shows a job.
pub(crate) async fn run(args: &Show, cx: &mut Context) -> Outcome {
    let view = match of_hub(args, cx).await {
        Ok(view) => view,
        // It waits on this machine, and the hub has not heard of it.
        Err(failure) => unsent::find(cx, &args.job).ok_or(failure)?,
    };
    cx.show(&JobDetail(view))?;
    Ok(0)
}

async fn of_hub(args: &Show, cx: &Context) -> Result<JobView, Failure> {
    let bus = cx.bus().await?;
    let id = read::resolve(&bus, &args.job).await?;
    Ok(JobView::of(&read::job(&bus, id).await?))
}
