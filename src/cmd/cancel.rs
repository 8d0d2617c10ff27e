//! `fleet cancel`: ends jobs.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::record::StateWord;
use fleet_nats::bus::Bus;
use fleet_nats::operate::Canceled;
use serde::Serialize;

use crate::args::Cancel;
use crate::ask;
use crate::cmd::{decide, unsent};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Answer, Look};
use crate::read;
use crate::spooled::{self, Turn, Withdrawn};

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
    /// It waited on this machine only, and the hub never heard of it.
    Removed,
    /// The same, but the hub may have heard of it.
    ToBeCanceled,
    CancelRequested {
        machine: MachineId,
    },
    AlreadyEnded {
        state: StateWord,
    },
}

impl Answer for Done {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, _: &Look) -> String {
        let id = self.id;
        match &self.what {
            What::Canceled => format!("{id} canceled\n"),
            What::Removed => format!("{id} canceled: it was never sent\n"),
            What::ToBeCanceled => unsent::to_be_canceled(id),
            What::CancelRequested { machine } => {
                format!("{id} is being ended on {machine}: fleet wait {id}\n")
            }
            What::AlreadyEnded { state } => format!("{id} had ended before: {state}\n"),
        }
    }
}

/// Ends jobs, after asking on a terminal.
pub(crate) async fn run(args: &Cancel, cx: &mut Context) -> Outcome {
    // Not the way on which what waits here is sent: it would run, and then be canceled.
    let bus = match cx.acting_bus_as_it_is().await {
        Err(failure) if !args.jobs.iter().all(|job| unsent::find(cx, job).is_some()) => {
            return Err(failure);
        }
        bus => bus,
    };
    let mut ids = match &bus {
        Ok(bus) => unsent::resolve_all(cx, bus, &args.jobs).await?,
        Err(_) => {
            let found = args.jobs.iter().filter_map(|job| unsent::find(cx, job));
            found.map(|job| job.id).collect()
        }
    };
    if !args.yes {
        ids = still_open(cx, bus.as_ref().ok(), ids).await?;
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
    let mut bus = bus;
    for id in ids {
        let by = cx.environment.who();
        let what = match spooled::withdraw(&cx.settings.home, id, &by)? {
            Withdrawn::Removed => What::Removed,
            Withdrawn::NotHere => cancel(of_hub(&mut bus)?, id, &by).await?,
            Withdrawn::Begun => match &bus {
                Ok(bus) => cancel_begun(cx, bus, id, &by).await?,
                Err(_) => What::ToBeCanceled,
            },
        };
        cx.show(&Done { id, what })?;
    }
    Ok(0)
}

/// Those that have not ended: nobody need be asked about the others.
async fn still_open(
    cx: &mut Context,
    bus: Option<&Bus>,
    ids: Vec<JobId>,
) -> Result<Vec<JobId>, Failure> {
    let mut open = Vec::new();
    for id in ids {
        let ended = match bus {
            Some(bus) if unsent::find(cx, id.as_str()).is_none() => {
                let state = read::job(bus, id).await?.state.word();
                Some(state).filter(|state| state.is_terminal())
            }
            _ => None,
        };
        match ended {
            Some(state) => {
                let what = What::AlreadyEnded { state };
                cx.show(&Done { id, what })?;
            }
            None => open.push(id),
        }
    }
    Ok(open)
}

fn of_hub(bus: &mut Result<Bus, Failure>) -> Result<&Bus, Failure> {
    match bus {
        Ok(bus) => Ok(bus),
        // It was sent in between, by somebody whom the hub has answered.
        Err(failure) => Err(std::mem::replace(
            failure,
            Failure::Exit(Exit::Unavailable.code()),
        )),
    }
}

/// Its sending was begun, and may have been cut off: it is made certain and canceled.
async fn cancel_begun(cx: &Context, bus: &Bus, id: JobId, by: &str) -> Result<What, Failure> {
    let sent = spooled::send(&cx.settings.home, bus, Turn::Told).await?;
    if unsent::find(cx, id.as_str()).is_some() {
        return Ok(What::ToBeCanceled);
    }
    let here = sent.canceled.contains(&id);
    if here && bus.job(id).await?.is_none() {
        // The hub never had it, and would not have taken it.
        return Ok(What::Removed);
    }
    Ok(match cancel(bus, id, by).await? {
        // By this very command.
        What::AlreadyEnded {
            state: StateWord::Canceled,
        } if here => What::Canceled,
        other => other,
    })
}

async fn cancel(bus: &Bus, id: JobId, by: &str) -> Result<What, Failure> {
    match bus.cancel(id, by).await {
        Ok(Canceled::Done) => Ok(What::Canceled),
        Ok(Canceled::Requested { machine } | Canceled::AlreadyRequested { machine }) => {
            Ok(What::CancelRequested { machine })
        }
        Ok(Canceled::AlreadyEnded(state)) => Ok(What::AlreadyEnded { state }),
        Err(error) => Err(decide::refused(bus, error).await),
    }
}

/// Cancels for a waiter that was interrupted; what had ended meanwhile is fine.
pub(crate) async fn quietly(bus: &Bus, id: JobId, by: &str) -> Result<(), Failure> {
    cancel(bus, id, by).await.map(drop)
}
