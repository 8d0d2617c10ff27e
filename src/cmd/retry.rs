//! `fleet retry`: another attempt of jobs that do not run.

use fleet_contract::ids::{JobId, Lane, MachineId};
use fleet_contract::job::Job;
use fleet_contract::record::{Cause, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use fleet_nats::decide::Decided;
use serde::Serialize;

use crate::args::decide::{Retry, named_or_chosen};
use crate::cmd::decide::{self, Seen, Verb};
use crate::cmd::dispatch;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Answer, Look};

/// The verb.
const RETRY: Verb = Verb {
    name: "retry",
    refuses,
    states: &[
        StateWord::Failed,
        StateWord::TimedOut,
        StateWord::Lost,
        StateWord::Rejected,
        StateWord::Expired,
        StateWord::NeedsHuman,
    ],
};

/// Why a job cannot be run once more.
pub(crate) fn refuses(job: &JobView) -> Option<Failure> {
    let id = job.id;
    match (job.state, &job.machine) {
        (StateWord::Running, Some(machine)) => Some(
            Failure::new(
                Exit::TempFail,
                format!("job {id} runs on {machine}: nothing was changed"),
            )
            .next(format!(
                "fleet cancel {id}, and when it has ended fleet retry {id}"
            )),
        ),
        (StateWord::Queued, _) => Some(
            Failure::new(
                Exit::TempFail,
                format!("job {id} waits for a machine already: nothing was changed"),
            )
            .next(format!("fleet show {id}")),
        ),
        _ => None,
    }
}

/// A job that runs once more.
#[derive(Debug, Serialize)]
pub(crate) struct Again {
    id: JobId,
    result: &'static str,
    attempt: u32,
    lane: Option<Lane>,
    machine: Option<MachineId>,
    given_up: Option<MachineId>,
    revision: u64,
    #[serde(skip)]
    more: String,
}

impl Again {
    /// It is queued for this machine.
    pub(crate) fn on(job: &Job, machine: &MachineId, decided: &Decided) -> Self {
        Self {
            id: job.id,
            result: "queued",
            attempt: job.next_no(),
            lane: None,
            machine: Some(machine.clone()),
            revision: decided.revision,
            more: decide::given_up_words(decided),
            given_up: decided.given_up.clone(),
        }
    }
}

impl Answer for Again {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, _: &Look) -> String {
        let (id, no) = (self.id, self.attempt);
        let place = self.machine.as_ref();
        let place = place.map_or_else(String::new, |machine| format!(" for {machine}"));
        format!("{id} queued{place} as attempt {no}{}\n", self.more)
    }
}

/// Runs jobs once more, after asking on a terminal.
pub(crate) async fn run(args: &Retry, cx: &mut Context) -> Outcome {
    named_or_chosen("retry", &args.jobs, &args.which)?;
    let bus = cx.acting_bus().await?;
    let meant = (args.jobs.as_slice(), &args.which);
    let agreed = decide::agreed(cx, &bus, (&RETRY, "retry"), meant, args.how).await?;
    let done = all(cx, &bus, &agreed.jobs, Cause::Retry).await;
    agreed.ends(done)
}

/// Runs each of them once more; one that has moved on does not keep the others from it.
pub(crate) async fn all(
    cx: &mut Context,
    bus: &Bus,
    jobs: &[Seen],
    cause: Cause,
) -> Result<(), Failure> {
    let mut failed = None;
    let mut room: Vec<Target> = Vec::new();
    for seen in jobs {
        let job = &seen.view;
        if !room.contains(&seen.target) {
            bus.has_room(&seen.target)
                .await
                .map_err(dispatch::not_sent)?;
            room.push(seen.target.clone());
        }
        match bus.run_again(job.id, job.revision, None, cause).await {
            Ok(decided) => cx.show(&Again {
                id: job.id,
                result: "queued",
                attempt: job.attempt + 1,
                lane: job.lane.clone(),
                machine: pin(&seen.target),
                revision: decided.revision,
                more: decide::given_up_words(&decided),
                given_up: decided.given_up,
            })?,
            Err(error) => {
                let why = decide::refused(bus, error).await;
                failed.get_or_insert(why);
            }
        }
    }
    let pins: Vec<MachineId> = room.iter().filter_map(pin).collect();
    tell_who_is_away(cx, bus, &pins).await?;
    failed.map_or(Ok(()), Err)
}

fn pin(target: &Target) -> Option<MachineId> {
    match target {
        Target::Pin(machine) => Some(machine.clone()),
        Target::Lane(_) => None,
    }
}

/// Queued for machines that take no work now: said, not hidden.
pub(crate) async fn tell_who_is_away(
    cx: &mut Context,
    bus: &Bus,
    pins: &[MachineId],
) -> Result<(), Failure> {
    if pins.is_empty() {
        return Ok(());
    }
    let (machines, _) = bus.machines().await?;
    for pin in pins {
        let seen = machines.iter().find(|seen| seen.presence.machine == *pin);
        let state = seen.map(|seen| fleet_contract::machine::state(&seen.presence, seen.age));
        match state {
            Some(state) if state.takes_work() => {}
            Some(state) => cx.output.note(&format!(
                "{pin} is {}: what is queued for it waits",
                state.as_str()
            )),
            None => cx
                .output
                .note(&format!("{pin} is not known: what is queued for it waits")),
        }
    }
    Ok(())
}
