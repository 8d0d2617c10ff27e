//! `fleet move`: has a job run on another machine. What waits is pinned there; what runs is ended
//! where it is first, and only then queued there, so that never two of it run.

use fleet_contract::ids::MachineId;
use fleet_contract::job::Job;
use fleet_contract::machine::MachineState;
use fleet_contract::record::{Cause, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use fleet_nats::operate::Canceled;

use crate::args::decide::Move;
use crate::cmd::retry::Again;
use crate::cmd::{decide, dispatch, unsent};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Interrupts;
use crate::read::{self, Waiter};
use crate::{ask, output};

/// The name of this very machine, for whoever does not want to type it.
const HERE: &str = "here";

/// Moves a job.
pub(crate) async fn run(args: &Move, cx: &mut Context) -> Outcome {
    let bus = cx.acting_bus().await?;
    let id = unsent::resolve_all(cx, &bus, std::slice::from_ref(&args.job)).await?[0];
    let job = read::job(&bus, id).await?;
    let to = match args.on.as_str() {
        HERE => cx.settings.machine(),
        name => crate::args::parse::machine(name)
            .map_err(|why| Failure::usage(format!("--on: {why}")))?,
    };
    refuse_there(&job, &to)?;
    let away = takes(&bus, &job, &to).await?;
    if !args.yes && !may(&job, &to, away).await? {
        return Ok(Exit::Interrupted.code());
    }
    let job = match job.state.open() {
        Some(_) if job.state.word() == StateWord::Running => end_there(cx, &bus, job, &to).await?,
        _ => job,
    };
    let target = Target::Pin(to.clone());
    let moved = bus
        .run_again(id, job.last_seq, Some(target), Cause::Move)
        .await;
    match moved {
        Ok(decided) => cx.show(&Again::on(&job, &to, &decided))?,
        Err(error) => return Err(decide::refused(&bus, error).await),
    }
    if let Some(state) = away {
        cx.output
            .note(&format!("{to} is {state}: what is queued for it waits"));
    }
    Ok(0)
}

/// Whether it is there already.
fn refuse_there(job: &Job, to: &MachineId) -> Result<(), Failure> {
    let id = job.id;
    let what = match (job.state.word(), job.state.open(), &job.target) {
        (StateWord::Running, Some(open), _) if open.machine == *to => "runs on",
        (StateWord::Queued | StateWord::Backoff, _, Target::Pin(pin)) if pin == to => "waits for",
        _ => return Ok(()),
    };
    let text = format!("job {id} {what} {to} already: nothing was changed");
    Err(Failure::new(Exit::TempFail, text).next(format!("fleet show {id}")))
}

/// That the machine is known, has what the job needs and the hub room for it; its state where it
/// takes no work now.
async fn takes(bus: &Bus, job: &Job, to: &MachineId) -> Result<Option<MachineState>, Failure> {
    let mut spec = (*job.spec).clone();
    spec.target = Target::Pin(to.clone());
    let survey = bus.survey(&spec.target).await?;
    let placement = survey.check(&spec, false).map_err(|error| {
        dispatch::refused(error, &survey).next(format!("fleet machines, fleet explain {}", job.id))
    })?;
    let away = placement.away.first().map(|(_, state)| *state);
    Ok(away.filter(|_| placement.ready.is_empty()))
}

/// Asks, where there is something that a person may not expect.
async fn may(job: &Job, to: &MachineId, away: Option<MachineState>) -> Result<bool, Failure> {
    let view = JobView::of(job);
    let (id, title) = (job.id, output::escape::one_line(&view.title()));
    let runs = job.state.word() == StateWord::Running;
    let mut question = match (&view.machine, runs) {
        (Some(machine), true) => format!("end {id} ({title}) on {machine} and run it anew on {to}"),
        _ => format!("run {id} ({title}), which is {}, on {to}", view.state),
    };
    let waits = matches!(view.state, StateWord::Queued | StateWord::Backoff);
    match away {
        Some(state) => question.push_str(&format!(", which is {state}")),
        // Nothing is lost by it, and it can be moved back.
        None if waits => return Ok(true),
        None => {}
    }
    ask::yes(&format!("{question}?")).await
}

/// Ends it where it runs, and waits for that; the job as it stands then.
async fn end_there(cx: &mut Context, bus: &Bus, job: Job, to: &MachineId) -> Result<Job, Failure> {
    let id = job.id;
    let mut interrupts = Interrupts::new();
    let mut waiter = Waiter::open(bus, job.last_seq + 1, [(id, Some(job))]).await?;
    let machine = match bus.cancel(id, &cx.environment.who()).await {
        Ok(Canceled::Requested { machine } | Canceled::AlreadyRequested { machine }) => machine,
        Ok(Canceled::AlreadyEnded(_) | Canceled::Done) => return ended(bus, id).await,
        Err(error) => return Err(decide::refused(bus, error).await),
    };
    cx.output.note(&format!("{id} is being ended on {machine}"));
    tokio::select! {
        view = waiter.next() => drop(view?),
        () = interrupts.next() => {
            let text = format!("stopped: {id} is being ended on {machine} and not moved");
            return Err(Failure::new(Exit::Interrupted, text)
                .next(format!("fleet move {id} --on {to}, when it has ended")));
        }
    }
    ended(bus, id).await
}

/// The job, if it was ended for the move. One that ended by itself meanwhile has done what it was for.
async fn ended(bus: &Bus, id: fleet_contract::ids::JobId) -> Result<Job, Failure> {
    let job = read::job(bus, id).await?;
    match job.state.word() {
        StateWord::Canceled => Ok(job),
        state => {
            let text = format!("job {id} is {state} by now: it was not moved");
            Err(Failure::new(Exit::TempFail, text).next(format!("fleet show {id}")))
        }
    }
}
