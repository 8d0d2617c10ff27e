//! `fleet machines`: who there is and how they are.

use std::time::Duration;

use fleet_contract::ids::MachineId;
use fleet_contract::machine::MachineState;
use fleet_contract::view::MachineView;
use fleet_nats::bus::Bus;
use fleet_nats::registry::Seen;

use crate::args::machines::{Act, Machines};
use crate::ask;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::Said;
use crate::output::machines::{MachineList, MachineRow, Probe};
use crate::{clock, prefix};

/// How long all agents have to answer.
const DEEP_WITHIN: Duration = Duration::from_secs(1);

/// Lists machines, or forgets one.
pub(crate) async fn run(args: &Machines, cx: &mut Context) -> Outcome {
    if let Some(Act::Forget { machine, yes }) = &args.act {
        return forget(machine, *yes, cx).await;
    }
    let bus = cx.bus().await?;
    let (machines, unreadable) = bus.machines().await?;
    let rows = match args.deep {
        true => deep(&bus, &machines).await?,
        false => machines.iter().map(|seen| row(seen, None)).collect(),
    };
    cx.show(&MachineList(rows))?;
    if unreadable > 0 {
        cx.output.note(&format!(
            "{unreadable} machines cannot be read: a newer fleet wrote them"
        ));
    }
    Ok(0)
}

fn row(seen: &Seen, probe: Option<Probe>) -> MachineRow {
    MachineRow {
        machine: seen.view(),
        probe,
    }
}

/// Asks every agent at once. One that does not answer is shown with what was known of it last.
async fn deep(bus: &Bus, machines: &[Seen]) -> Result<Vec<MachineRow>, Failure> {
    // One that said goodbye will not answer and need not be waited for.
    let expected: Vec<MachineId> = machines
        .iter()
        .filter(|seen| {
            !matches!(
                seen.view().state,
                MachineState::Offline | MachineState::Lost
            )
        })
        .map(|seen| seen.presence.machine.clone())
        .collect();
    let probed = bus.ask_all_specs(&expected, DEEP_WITHIN).await?;
    Ok(machines
        .iter()
        .map(|seen| {
            let machine = &seen.presence.machine;
            match probed
                .iter()
                .find(|p| p.answer.presence.machine == *machine)
            {
                Some(p) => {
                    let probe_ms = (p.after.as_secs_f64() * 10_000.0).round() / 10.0;
                    MachineRow {
                        machine: MachineView::of(&p.answer.presence, clock::now(), Duration::ZERO),
                        probe: Some(Probe::Answered { probe_ms }),
                    }
                }
                None => row(seen, Some(Probe::Silent)),
            }
        })
        .collect())
}

async fn forget(machine: &MachineId, yes: bool, cx: &mut Context) -> Outcome {
    let bus = cx.acting_bus().await?;
    let (machines, _) = bus.machines().await?;
    let Some(seen) = machines.iter().find(|m| m.presence.machine == *machine) else {
        let known: Vec<MachineId> = machines.into_iter().map(|m| m.presence.machine).collect();
        return Err(
            Failure::usage(prefix::unknown_machine(machine.as_str(), &known))
                .next("fleet machines"),
        );
    };
    let state = seen.view().state;
    if !matches!(state, MachineState::Offline | MachineState::Lost) {
        return Err(Failure::usage(format!(
            "{machine} is {}: it would come back with its next beat",
            state.as_str()
        ))
        .next(format!(
            "stop its agent, then fleet machines forget {machine}"
        )));
    }
    if !yes && !ask::yes(&format!("forget {machine}?")).await? {
        return Ok(Exit::Interrupted.code());
    }
    bus.forget(machine).await?;
    cx.show(&Said {
        value: serde_json::json!({ "machine": machine, "result": "forgotten" }),
        text: format!("{machine} forgotten\n"),
    })?;
    Ok(0)
}
