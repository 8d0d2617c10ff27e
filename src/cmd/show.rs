//! `fleet show`: everything about a job.

use fleet_contract::view::JobView;

use crate::args::Show;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::jobs::JobDetail;
use crate::read;

/// Shows a job.
pub(crate) async fn run(args: &Show, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let id = read::resolve(&bus, &args.job).await?;
    let job = read::job(&bus, id).await?;
    cx.show(&JobDetail(JobView::of(&job)))?;
    Ok(0)
}
