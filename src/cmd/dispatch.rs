//! `fleet dispatch`: sends a job to whichever machine fits.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::ready;

use fleet_agent::agent::read_status;
use fleet_contract::ids::{JobId, Lane, MachineId};
use fleet_contract::needs::{Needs, Standing};
use fleet_contract::record::StateWord;
use fleet_contract::spec::{JobSpec, OnLost, Prefer, Priority, Target};
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use fleet_nats::clock::{job_id, ticket_id};
use fleet_nats::operate::{Candidate, DispatchError, Dispatched as Sent, Placement, Survey};
use fleet_nats::subject::stream;
use futures_util::{StreamExt, stream as streams};
use serde::Serialize;

use crate::args::dispatch::{self as args, Dispatch};
use crate::cmd::logs::{self, JournalTail, LogTail, OnCtrlC, Sink};
use crate::cmd::wait::{self, Waited};
use crate::cmd::wanted::Wanted;
use crate::context::{Context, WITHOUT_A_HUB};
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Interrupts;
use crate::output::escape::one_line;
use crate::output::explain::candidates;
use crate::output::jobs::{Dispatched, Ended};
use crate::output::{Answer, Look};
use crate::read::{self, Waiter};
use crate::roles::Resolved;
use crate::spooled::{self, Batch, Planned};
use crate::{jobspec, prefix, words};

/// What can be typed where there is no hub to dispatch to.
const WITH_A_SPOOL: &str = "fleet up; or with --spool, to send it when the hub is there; or \
                            fleet run -- CMD to run it here without one";

/// Dispatches that are under way at once.
const AT_ONCE: usize = 128;

/// Sends a job, or says what would be sent.
pub(crate) async fn run(args: &Dispatch, cx: &mut Context) -> Outcome {
    let mut wanted = Wanted::of(args, cx)?;
    wanted.choose(args, cx).await?;
    if let Some(note) = wanted.note() {
        cx.output.note(&note);
    }
    let spec = spec(args, wanted.resolve()?, cx)?;
    if let Target::Pin(machine) = &spec.target
        && let Some(folder) = spec.cwd_on.get(machine)
    {
        let text = format!("on {machine} it runs in {folder}, as the project's .fleet.toml says");
        cx.output.note(&text);
    }
    let mut sent = Vec::new();
    let jobs = jobs(args);
    match now(args, cx, &spec, &jobs, &mut sent).await {
        Err(failure) if args.spool && failure.exit_code() == Exit::Unavailable.code() => {
            let known: Vec<JobId> = sent.iter().map(|done| done.view.id).collect();
            let left = jobs.into_iter().filter(|job| !known.contains(&job.id));
            spool(args, cx, &spec, left.collect(), &failure)
        }
        Err(failure) => Err(failure.instead_of(WITHOUT_A_HUB, WITH_A_SPOOL)),
        Ok(code) => Ok(code),
    }
}

/// Keeps jobs here until the hub is back.
fn spool(
    args: &Dispatch,
    cx: &mut Context,
    spec: &JobSpec,
    jobs: Vec<Planned>,
    failure: &Failure,
) -> Outcome {
    cx.may_dispatch_later()?;
    let batch = Batch::new(spec, jobs, args.key.as_deref(), args.queue_anyway);
    spooled::put(&cx.settings.home, &batch)?;
    for view in batch.views() {
        cx.show(&Dispatched(view))?;
    }
    if let Failure::Told(told) = failure {
        cx.output.note(&told.message);
    }
    let who = match read_status(&cx.settings.home) {
        Ok(_) => "the agent here sends it when the hub is back: fleet spool list",
        Err(_) => "the next fleet command that finds the hub sends it, or fleet spool send",
    };
    cx.output.note(&format!("{}: {who}", spooled::HERE));
    Ok(0)
}

/// Dispatches now, as far as the hub is there.
async fn now(
    args: &Dispatch,
    cx: &mut Context,
    spec: &JobSpec,
    jobs: &[Planned],
    sent: &mut Vec<Done>,
) -> Outcome {
    let bus = cx.acting_bus().await?;
    let waits = args.wait || args.follow;
    // Where to follow the journal from is known before the first job is in it.
    let (survey, from) = tokio::try_join!(bus.survey(&spec.target), async {
        match waits {
            true => bus.usage(stream::JOB).await.map(|u| u.last_seq + 1),
            false => Ok(0),
        }
    })?;
    let checked = survey.check(spec, args.queue_anyway || args.dry_run);
    let placement = checked.map_err(|e| refused(e, &survey))?;
    if !args.queue_anyway {
        somebody_is_preferred(args, &survey)?;
    }
    if args.dry_run {
        return dry_run(cx, spec, &placement);
    }
    if !waits {
        send(args, cx, &bus, spec, jobs, sent).await?;
        tell_who_is_away(cx, spec, &placement);
        return Ok(0);
    }
    // Listened for before the first id is told: whoever has read it may press Ctrl-C, and is told
    // what becomes of the job.
    let mut interrupts = Interrupts::new();
    tokio::select! {
        biased;
        done = send(args, cx, &bus, spec, jobs, sent) => done?,
        () = interrupts.next() => return Err(not_all_sent(sent.len(), jobs.len())),
    }
    let sent = std::mem::take(sent);
    tell_who_is_away(cx, spec, &placement);
    match args.follow {
        true => follow(args, cx, &bus, from, sent, &mut interrupts).await,
        false => until_ended(cx, &bus, from, sent, &mut interrupts).await,
    }
}

/// Ctrl-C came while jobs were on their way.
fn not_all_sent(sent: usize, of: usize) -> Failure {
    let text = format!("stopped: {sent} of {of} were dispatched, what was on its way may be, too");
    Failure::new(Exit::Interrupted, text).next("fleet jobs")
}

fn spec(args: &Dispatch, wanted: Resolved, cx: &Context) -> Result<JobSpec, Failure> {
    let target = match &args.on {
        Some(machine) => Target::Pin(machine.clone()),
        None => Target::Lane(Lane::any()),
    };
    // A flag is stronger than what the role says.
    let mut spec = jobspec::build(wanted.command, &args.world, target, cx)?;
    spec.shell |= wanted.shell;
    if let Some(cwd) = args.world.cwd.as_ref().or(wanted.cwd.as_ref()) {
        jobspec::travel(&mut spec, cwd, cx)?;
    }
    if let Some(text) = wanted.stdin {
        if spec.stdin.is_some() {
            let text = "the role reads its message from standard input: leave --stdin out";
            return Err(Failure::usage(text));
        }
        spec.stdin = Some(text.into_bytes());
    }
    spec.env = wanted.env.into_iter().chain(spec.env).collect();
    spec.name = spec.name.or(wanted.name);
    let span = |text: &String| words::parse_duration(text).map_err(Failure::config);
    let timeout = wanted.timeout.as_ref().map(span).transpose()?;
    spec.timeout_ms = spec.timeout_ms.or(timeout.map(jobspec::millis));
    let on_lost = args.on_lost.map(|on_lost| match on_lost {
        args::OnLost::Ask => OnLost::Ask,
        args::OnLost::Retry => OnLost::Retry,
        args::OnLost::Fail => OnLost::Fail,
    });
    spec.on_lost = on_lost.or(wanted.on_lost).unwrap_or_default();
    spec.retries = args.retries;
    spec.retry_on.clone_from(&args.retry_on);
    let priority = args.priority.map(|priority| match priority {
        args::Priority::Low => Priority::Low,
        args::Priority::Normal => Priority::Normal,
        args::Priority::High => Priority::High,
    });
    spec.priority = priority.or(wanted.priority).unwrap_or_default();
    let expires = wanted.expires.as_ref().map(span).transpose()?;
    if let Some(expires) = args.expires.or(expires) {
        spec.expires_ms = jobspec::millis(expires);
    }
    spec.role = wanted.from;
    let needs = wanted.needs.iter().chain(&args.needs).map(String::as_str);
    let needs = Needs::parse(needs);
    let needs = needs.map_err(|error| {
        let whose = spec.role.as_ref().filter(|_| args.needs.is_empty());
        let whose = whose.map_or("--needs".to_owned(), |role| {
            format!("needs of role {}", role.name)
        });
        Failure::usage(format!("{whose}: {error}"))
    })?;
    spec = spec.needing(&needs);
    spec.prefer = args.prefer.as_ref().map(Prefer::to_string);
    jobspec::check(&spec)?;
    Ok(spec)
}

/// What would be dispatched.
#[derive(Serialize)]
struct DryRun<'a> {
    spec: &'a JobSpec,
    ready: &'a [MachineId],
    away: Vec<Away<'a>>,
    machines: &'a [Candidate],
}

#[derive(Serialize)]
struct Away<'a> {
    machine: &'a MachineId,
    state: &'static str,
}

/// The answer of a dry run.
struct Dry<'a>(DryRun<'a>);

impl Answer for Dry<'_> {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let DryRun {
            spec,
            ready,
            away,
            machines,
        } = &self.0;
        let mut text = format!("would dispatch: {}\n", one_line(&spec.title()));
        if !spec.needs.is_empty() {
            let needs = one_line(&spec.needs.replace(',', ", "));
            text.push_str(&format!("needs: {needs}\n"));
        }
        if let Some(cwd) = &spec.cwd {
            text.push_str(&format!("folder: {}\n", one_line(cwd)));
        }
        for (machine, cwd) in &spec.cwd_on {
            text.push_str(&format!("folder on {machine}: {}\n", one_line(cwd)));
        }
        if ready.is_empty() && away.is_empty() {
            text.push_str("no machine that is known could run it\n");
        }
        if !machines.is_empty() {
            text.push('\n');
            text.push_str(&candidates(machines, look));
        }
        text
    }
}

fn dry_run(cx: &mut Context, spec: &JobSpec, placement: &Placement) -> Outcome {
    let mut shown = spec.clone();
    // Megabytes that were just read from a file are not worth showing.
    shown.stdin = None;
    let away = placement.away.iter().map(|(machine, state)| Away {
        machine,
        state: state.as_str(),
    });
    cx.show(&Dry(DryRun {
        spec: &shown,
        ready: &placement.ready,
        away: away.collect(),
        machines: &placement.candidates,
    }))?;
    // As a dispatch would end.
    Ok(match placement.nobody() {
        true => Exit::TempFail.code(),
        false => 0,
    })
}

/// Refuses to prefer machines that nobody knows: a name that is mistyped would else run anywhere.
fn somebody_is_preferred(args: &Dispatch, survey: &Survey) -> Result<(), Failure> {
    let Some(prefer) = &args.prefer else {
        return Ok(());
    };
    let mut machines = survey.machines.iter().map(|seen| &seen.presence);
    if machines.any(|p| prefer.is(&p.machine, &p.labels)) {
        return Ok(());
    }
    let text = match prefer {
        Prefer::Machine(machine) => prefix::unknown_machine(machine.as_str(), &known(survey)),
        Prefer::Label(..) => format!("no machine has the label {prefer}"),
    };
    Err(
        Failure::new(Exit::TempFail, format!("cannot prefer: {text}"))
            .next("fleet machines, or --queue-anyway if it is still to come"),
    )
}

fn known(survey: &Survey) -> Vec<MachineId> {
    let machines = survey.machines.iter();
    machines.map(|seen| seen.presence.machine.clone()).collect()
}

/// A job that is safe with the hub, and its journal's last sequence if it was there before.
struct Done {
    view: JobView,
    existed: bool,
}

/// Sends all of them, several at once, and tells each in order. After a failure no more are begun,
/// but those on their way are waited for and told: they may be with the hub. A reader who has had
/// enough does not keep the rest from being sent.
async fn send(
    args: &Dispatch,
    cx: &mut Context,
    bus: &Bus,
    spec: &JobSpec,
    jobs: &[Planned],
    done: &mut Vec<Done>,
) -> Result<(), Failure> {
    let key = args.key.as_deref();
    let count = jobs.len();
    let mut told = Ok(());
    let mut failed: Option<DispatchError> = None;
    let mut unknown = 0;
    let stop = Cell::new(false);
    {
        let mut sending = streams::iter(jobs)
            .take_while(|_| ready(!stop.get()))
            .map(|job| async move {
                let spec = JobSpec {
                    index: job.index,
                    ..spec.clone()
                };
                let sent = bus.dispatch(job.id, key, spec.clone()).await;
                (job.id, spec, sent)
            })
            .buffered(AT_ONCE);
        while let Some((id, spec, sent)) = sending.next().await {
            match sent {
                Ok(sent) => {
                    let next = view(bus, id, &spec, &sent).await?;
                    if told.is_ok() {
                        told = tell(args, cx, &next, sent.existed);
                    }
                    done.push(Done {
                        view: next,
                        existed: sent.existed,
                    });
                }
                Err(error) => {
                    stop.set(true);
                    unknown += usize::from(matches!(error, DispatchError::OutcomeUnknown(_)));
                    failed.get_or_insert(error);
                }
            }
        }
    }
    match failed {
        None => told,
        Some(error) if count == 1 => Err(not_sent(error)),
        Some(error) => {
            let mut text = format!("; {} of {count} were dispatched", done.len());
            if unknown > 0 {
                text.push_str(&format!(
                    ", of {unknown} nobody knows: look with `fleet jobs`"
                ));
            }
            Err(not_sent(error).and(&text))
        }
    }
}

/// Tells one that was dispatched.
fn tell(args: &Dispatch, cx: &mut Context, job: &JobView, existed: bool) -> Result<(), Failure> {
    if existed {
        let when = crate::words::ago(crate::clock::now(), job.submitted_at);
        cx.output.note(&format!(
            "{}: found, dispatched {when}: {}",
            job.id, job.state
        ));
    }
    // Whoever follows wants the job's own output on standard output, and programs both.
    if args.follow && !cx.output.is_json() {
        cx.output.note(&format!("dispatched {}", job.id));
        return Ok(());
    }
    cx.show(&Dispatched(job.clone()))
}

/// The jobs that are asked for, by ids that hold from now on.
fn jobs(args: &Dispatch) -> Vec<Planned> {
    let planned = |id, index| Planned {
        id,
        ticket: ticket_id(),
        index,
        canceled_by: None,
    };
    let key = args.key.as_deref();
    let Some(count) = args.count else {
        return vec![planned(key.map_or_else(job_id, JobId::from_key), None)];
    };
    let id = |index| key.map_or_else(job_id, |key| JobId::from_key_and_index(key, index));
    let all = (0..count).map(|index| planned(id(index), Some(index)));
    all.collect()
}

/// The job as it is right after it was dispatched: no need to ask the hub for what is known.
async fn view(bus: &Bus, id: JobId, spec: &JobSpec, sent: &Sent) -> Result<JobView, Failure> {
    if sent.existed {
        return Ok(JobView::of(&read::job(bus, id).await?));
    }
    Ok(JobView::dispatched(id, spec, sent.revision))
}

/// Queued, though nobody takes it now: said, not hidden.
fn tell_who_is_away(cx: &mut Context, spec: &JobSpec, placement: &Placement) {
    let all = &placement.candidates;
    let held = all.iter().find_map(|c| match &c.standing {
        Standing::Held(held) => Some(format!("{}: {held}", c.machine)),
        _ => None,
    });
    let busy = |c: &Candidate| matches!(c.standing, Standing::Ready { .. } | Standing::Full { .. });
    if all.iter().any(busy) {
        return;
    }
    let away: Vec<String> = placement
        .away
        .iter()
        .map(|(machine, state)| format!("{machine} is {}", state.as_str()))
        .collect();
    let why = match (held, away.is_empty(), &spec.target) {
        (Some(held), _, _) => held,
        (None, false, _) => away.join(", "),
        (None, true, Target::Pin(machine)) if all.iter().all(|c| c.machine != *machine) => {
            format!("{machine} is not known yet")
        }
        (None, true, _) if all.is_empty() => "no machine is known yet".to_owned(),
        (None, true, _) => format!("no machine has what it needs ({})", spec.needs),
    };
    cx.output
        .note(&format!("queued, nobody takes it now: {why}"));
}

async fn follow(
    args: &Dispatch,
    cx: &mut Context,
    bus: &Bus,
    from: u64,
    sent: Vec<Done>,
    interrupts: &mut Interrupts,
) -> Outcome {
    let Some(Done { view, existed }) = sent.into_iter().next() else {
        return Ok(0);
    };
    let (from, job) = match existed {
        true => {
            let job = read::job(bus, view.id).await?;
            (job.last_seq + 1, Some(job))
        }
        false => (from, None),
    };
    let (mut reader, mut journal) = tokio::try_join!(
        LogTail::open(bus, view.id),
        JournalTail::open(bus, view.id, from, job)
    )?;
    let mut sink = Sink::new(cx.output.is_json(), args.raw);
    let ask = (OnCtrlC::Ask, interrupts);
    let ended = logs::follow(cx, bus, &mut reader, &mut journal, &mut sink, ask).await?;
    if cx.output.is_json() {
        cx.show(&Ended(ended.clone()))?;
    } else if ended.state != StateWord::Succeeded {
        cx.output.note(&crate::output::jobs::ended_line(
            &ended,
            &crate::output::Look::plain(),
        ));
        if ended.state == StateWord::NeedsHuman {
            cx.output.note(&crate::output::jobs::what_to_do(&ended));
        }
    }
    if let Some(note) = crate::output::jobs::superseded_note(&ended) {
        cx.output.note(&note);
    }
    Ok(ended.exit_status().unwrap_or(0))
}

async fn until_ended(
    cx: &mut Context,
    bus: &Bus,
    from: u64,
    sent: Vec<Done>,
    interrupts: &mut Interrupts,
) -> Outcome {
    let ids: Vec<JobId> = sent.iter().map(|done| done.view.id).collect();
    let mut ended = BTreeMap::new();
    let mut jobs = Vec::new();
    for Done { view, existed } in sent {
        if view.exit_status().is_some() {
            wait::show_ended(cx, &view)?;
            ended.insert(view.id, view);
        } else if existed {
            jobs.push((view.id, Some(read::job(bus, view.id).await?)));
        } else {
            jobs.push((view.id, None));
        }
    }
    if jobs.is_empty() {
        return Ok(wait::exit_code(&ids, &ended));
    }
    let from = jobs
        .iter()
        .filter_map(|(_, job)| job.as_ref().map(|job| job.last_seq + 1))
        .fold(from, u64::min);
    let left = jobs.iter().map(|(id, _)| *id).collect();
    let waiter = Waiter::open(bus, from, jobs).await?;
    let mut waited = Waited::new(left, ended);
    let until = (None, interrupts);
    wait::until_ended(cx, bus, waiter, &mut waited, &ids, until).await
}

/// Nobody can run it, or the hub has no room.
pub(crate) fn refused(error: DispatchError, survey: &Survey) -> Failure {
    match error {
        DispatchError::UnknownMachine { machine, .. } => {
            let text = prefix::unknown_machine(machine.as_str(), &known(survey));
            Failure::new(Exit::TempFail, text)
                .next("fleet machines, or --queue-anyway if it is still to come")
        }
        DispatchError::NobodyFits { needs, near } => {
            let near: Vec<String> = near
                .iter()
                .map(|(near, age)| {
                    let more = match near.lacks {
                        1 => String::new(),
                        n => format!(", and lacks {} more", n - 1),
                    };
                    let age = crate::words::span(*age);
                    format!("{}: {} ({age} ago){more}", near.machine, near.first)
                })
                .collect();
            let text = match near.is_empty() {
                true => format!("no machine has what this needs ({needs})"),
                false => format!("no machine has what this needs; {}", near.join("; ")),
            };
            Failure::new(Exit::TempFail, text)
                .next("fleet dispatch --dry-run shows every machine, --queue-anyway waits for one")
        }
        other => not_sent(other),
    }
}

/// Why a job is not with the hub, and what to type.
pub(crate) fn not_sent(error: DispatchError) -> Failure {
    match error {
        DispatchError::Spec(error) => jobspec::invalid(error),
        DispatchError::Bus(error) => error.into(),
        DispatchError::KeyTaken { .. } => Failure::usage(error.to_string()),
        DispatchError::OutcomeUnknown(_) => Failure::new(Exit::Unavailable, error.to_string()),
        DispatchError::UnknownMachine { .. }
        | DispatchError::NoMachine
        | DispatchError::NobodyFits { .. }
        | DispatchError::NearlyFull { .. }
        | DispatchError::Trouble(_) => Failure::new(Exit::TempFail, error.to_string()),
    }
}
