//! `fleet cancel`: ends jobs.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::record::StateWord;
use fleet_nats::bus::Bus;
use fleet_nats::operate::{ActError, Canceled};
use serde::Serialize;

use crate::args::Cancel;
use crate::ask;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Answer, Look};
use crate::read;

#[derive(Debug, Serialize)]
struct Done {
    id: JobId,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
enum What {
    Canceled,
    CancelRequested { machine: MachineId },
    AlreadyEnded { state: StateWord },
}

impl Answer for Done {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, _: &Look) -> String {
        let id = self.id;
        match &self.what {
            What::Canceled => format!("{id} canceled\n"),
            What::CancelRequested { machine } => {
                format!("{id} is being ended on {machine}: fleet wait {id}\n")
            }
            What::AlreadyEnded { state } => format!("{id} had ended before: {state}\n"),
        }
    }
}

/// Ends jobs, after asking on a terminal.
pub(crate) async fn run(args: &Cancel, cx: &mut Context) -> Outcome {
    let bus = cx.acting_bus().await?;
    let mut ids = read::resolve_all(&bus, &args.jobs).await?;
    if !args.yes {
        // Nobody need be asked about what has ended.
        let mut open = Vec::new();
        for id in ids {
            match read::job(&bus, id).await?.state.word() {
                state if state.is_terminal() => {
                    let what = What::AlreadyEnded { state };
                    cx.show(&Done { id, what })?;
                }
                _ => open.push(id),
            }
        }
        ids = open;
    }
    if !args.yes && !ids.is_empty() {
        let what = match ids.as_slice() {
            [one] => format!("cancel {one}?"),
            many => format!("cancel {} jobs?", many.len()),
        };
        if !ask::yes(&what).await? {
            return Ok(Exit::Interrupted.code());
        }
    }
    for id in ids {
        let what = cancel(&bus, id, &cx.environment.who()).await?;
        cx.show(&Done { id, what })?;
    }
    Ok(0)
}

async fn cancel(bus: &Bus, id: JobId, by: &str) -> Result<What, Failure> {
    match bus.cancel(id, by).await {
        Ok(Canceled::Done) => Ok(What::Canceled),
        Ok(Canceled::Requested { machine } | Canceled::AlreadyRequested { machine }) => {
            Ok(What::CancelRequested { machine })
        }
        Ok(Canceled::AlreadyEnded(state)) => Ok(What::AlreadyEnded { state }),
        Err(error) => Err(refused(error)),
    }
}

/// Cancels for a waiter that was interrupted; what had ended meanwhile is fine.
pub(crate) async fn quietly(bus: &Bus, id: JobId, by: &str) -> Result<(), Failure> {
    cancel(bus, id, by).await.map(drop)
}

fn refused(error: ActError) -> Failure {
    match error {
        ActError::UnknownJob(id) => read::unknown(id),
        ActError::Bus(error) => error.into(),
        other @ (ActError::Impossible { .. } | ActError::Moving(_)) => {
            Failure::new(Exit::TempFail, other.to_string())
        }
    }
}
