//! `fleet down`: stops what `up` started here.

use std::time::Duration;

use fleet_nats::hub::running_hub;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Said;
use crate::service::background::{self, Down};

/// What the end may take beyond the grace that running jobs get.
const MARGIN: Duration = Duration::from_secs(60);

/// Stops it and checks that nothing is left.
pub(crate) fn run(cx: &mut Context) -> Outcome {
    let home = cx.settings.home.clone();
    let within = cx.settings.span("grace") + MARGIN;
    let (value, text) = match background::end(&home, within)? {
        Down::Nothing => {
            if let Some(pid) = running_hub(&home) {
                cx.output.note(&format!(
                    "a hub that 'up' did not start runs here: process {pid}"
                ));
            }
            (
                serde_json::json!({ "result": "nothing_ran" }),
                "nothing to stop\n".to_owned(),
            )
        }
        Down::Ended(running) => {
            if home.server_pid().exists() {
                return Err(Failure::internal(format!(
                    "fleet has ended but its nats-server may still run: see {}",
                    home.server_pid().display()
                ))
                .next("fleet up takes it over"));
            }
            let text = format!("stopped {} (process {})\n", running.machine, running.pid);
            let value = serde_json::json!({
                "result": "stopped",
                "pid": running.pid,
                "machine": running.machine,
            });
            (value, text)
        }
    };
    cx.show(&Said { value, text })?;
    Ok(0)
}
