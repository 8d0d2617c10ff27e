//! `fleet tui`: the console.

use std::io::IsTerminal;

use crate::args::Flow;
use crate::cmd::flow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Whether there is a terminal to draw on.
pub(crate) fn possible(cx: &Context) -> bool {
    !cx.output.is_json() && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Shows the console until the person leaves it.
pub(crate) async fn run(cx: &mut Context) -> Outcome {
    if !possible(cx) {
        return Err(
            Failure::usage("the console needs a terminal").next("fleet flow -f, or fleet machines")
        );
    }
    show(cx).await?;
    Ok(0)
}

/// The console, for `tui` and `up`. Until there is one, it is the live stream of events.
pub(crate) async fn show(cx: &mut Context) -> Result<(), Failure> {
    let args = Flow {
        follow: true,
        since: None,
        machine: None,
        kind: None,
        job: None,
    };
    flow::run(&args, cx).await.map(drop)
}
