//! `fleet ack`: the operator knows that an attempt had run whose result does not count.

use fleet_contract::ids::JobId;
use fleet_contract::job::{Job, JobState};
use fleet_contract::view::{SupersededView, superseded_view};
use fleet_nats::bus::Bus;
use fleet_nats::operate::ActError;
use serde::Serialize;

use crate::args::Ack;
use crate::cmd::{decide, unsent};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::jobs::ran_words;
use crate::output::{Answer, Look};
use crate::read;

#[derive(Debug, Serialize)]
struct Done {
    id: JobId,
    result: &'static str,
    attempts: Vec<SupersededView>,
}

impl Answer for Done {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let id = self.id;
        if self.attempts.is_empty() {
            return format!("{id} has nothing to acknowledge\n");
        }
        let told = self.attempts.iter();
        told.map(|told| format!("{id} acknowledged: {}\n", ran_words(told, look)))
            .collect()
    }
}

/// Acknowledges what these jobs, or all, tell of.
pub(crate) async fn run(args: &Ack, cx: &mut Context) -> Outcome {
    let bus = cx.acting_bus().await?;
    let ids = match args.all {
        false => unsent::resolve_all(cx, &bus, &args.jobs).await?,
        true => {
            let mut all = read::all(&bus).await?;
            all.retain(|job| job.unacknowledged() > 0);
            all.iter().map(|job| job.id).collect()
        }
    };
    if ids.is_empty() {
        cx.output.note("nothing is to be acknowledged");
    }
    let mut refused = None;
    for id in ids {
        match acknowledge(&bus, id, &cx.environment.who()).await {
            Ok(done) => cx.show(&done)?,
            // One that cannot be now does not keep the others from it.
            Err(failure) => drop(refused.get_or_insert(failure)),
        }
    }
    refused.map_or(Ok(0), Err)
}

async fn acknowledge(bus: &Bus, id: JobId, by: &str) -> Result<Done, Failure> {
    match bus.acknowledge(id, by).await {
        Ok(told) => Ok(Done {
            id,
            result: match told.is_empty() {
                true => "nothing_to_acknowledge",
                false => "acknowledged",
            },
            attempts: told
                .iter()
                .map(|told| SupersededView {
                    acknowledged_by: Some(by.to_owned()),
                    ..superseded_view(told)
                })
                .collect(),
        }),
        Err(ActError::Impossible { .. }) => {
            let job = read::job(bus, id).await?;
            Err(Failure::new(Exit::TempFail, not_now(&job)).next(format!("fleet show {id}")))
        }
        Err(error) => Err(decide::refused(bus, error).await),
    }
}

/// Why nothing can be acknowledged as the job stands.
fn not_now(job: &Job) -> String {
    let id = job.id;
    match job.state {
        JobState::Queued { .. } => {
            format!("job {id} waits for a machine: acknowledge it when it runs or has ended")
        }
        _ => format!("job {id} waits for your decision: acknowledge it after that"),
    }
}
