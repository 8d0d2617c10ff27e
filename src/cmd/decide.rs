//! What `retry` and `resolve` share: which jobs are meant, the question before anything is done, and
//! doing it over what was seen. A job that has moved on since keeps nobody from the others.

use std::collections::BTreeSet;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::job::{Job, JobState};
use fleet_contract::record::StateWord;
use fleet_contract::spec::Target;
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use fleet_nats::decide::Decided;
use fleet_nats::operate::ActError;
use serde::Serialize;

use crate::args::decide::{How, Which};
use crate::cmd::unsent;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::jobs::{reason_words, state_words};
use crate::output::table::clip;
use crate::output::{Answer, Look};
use crate::{ask, clock, prefix, read, words};

/// Longest line about a job, in columns.
const LONGEST: usize = 400;
/// Most jobs that a question or a refusal names one by one.
const NAMED: usize = 10;

/// A job as the person saw it.
pub(crate) struct Seen {
    pub(crate) view: JobView,
    /// Where it waits when it is queued again.
    pub(crate) target: Target,
    /// The machine of an attempt that may run still, though nobody has heard of it.
    pub(crate) open: Option<MachineId>,
}

impl Seen {
    fn of(job: &Job) -> Self {
        let open = match &job.state {
            JobState::NeedsHuman { open, .. } => open.as_ref().map(|open| open.machine.clone()),
            _ => None,
        };
        Self {
            view: JobView::of(job),
            target: job.target.clone(),
            open,
        }
    }
}

/// A verb that decides.
pub(crate) struct Verb {
    /// What is typed.
    pub(crate) name: &'static str,
    /// Why it cannot be done with a job, with what to type instead.
    pub(crate) refuses: fn(&JobView) -> Option<Failure>,
    /// The states that are meant where none is given.
    pub(crate) states: &'static [StateWord],
}

/// The jobs with which it is to be done, after the person was asked.
pub(crate) struct Agreed {
    pub(crate) jobs: Vec<Seen>,
    /// Why some cannot be.
    refused: Option<Failure>,
    /// The exit code where none is left.
    code: u8,
}

impl Agreed {
    /// How the verb ends, once it is done with those.
    pub(crate) fn ends(self, done: Result<(), Failure>) -> Outcome {
        done?;
        self.refused.map_or(Ok(self.code), Err)
    }
}

/// The jobs that are meant, as far as the person wants it done with them.
pub(crate) async fn agreed(
    cx: &mut Context,
    bus: &Bus,
    (verb, what): (&Verb, &str),
    (named, which): (&[String], &Which),
    how: How,
) -> Result<Agreed, Failure> {
    let (jobs, refused) = meant(cx, bus, verb, named, which).await?;
    let mut agreed = Agreed {
        jobs,
        refused,
        code: 0,
    };
    if agreed.jobs.is_empty() && agreed.refused.is_none() {
        cx.output
            .note("no job is meant by that: nothing was changed");
    }
    if agreed.jobs.is_empty() || may(cx, how, what, &agreed.jobs).await? {
        return Ok(agreed);
    }
    if !how.dry_run {
        agreed.code = Exit::Interrupted.code();
        agreed.refused = None;
    }
    agreed.jobs.clear();
    Ok(agreed)
}

/// The jobs that are meant, and why some of them cannot be.
async fn meant(
    cx: &Context,
    bus: &Bus,
    verb: &Verb,
    jobs: &[String],
    which: &Which,
) -> Result<(Vec<Seen>, Option<Failure>), Failure> {
    let all = match jobs {
        [] => chosen(bus, verb, which).await?,
        named => {
            let mut ids = unsent::resolve_all(cx, bus, named).await?;
            let mut once = BTreeSet::new();
            ids.retain(|id| once.insert(*id));
            let mut all = Vec::new();
            for id in ids {
                all.push(Seen::of(&read::job(bus, id).await?));
            }
            all
        }
    };
    let mut refused = None;
    let mut can = Vec::new();
    for seen in all {
        match (verb.refuses)(&seen.view) {
            None => can.push(seen),
            Some(failure) => drop(refused.get_or_insert(failure)),
        }
    }
    Ok((can, refused))
}

async fn chosen(bus: &Bus, verb: &Verb, which: &Which) -> Result<Vec<Seen>, Failure> {
    // A state that can never be meant is a slip of the hand.
    for state in &which.states {
        if matches!(state, StateWord::Running | StateWord::Queued) {
            let text = format!("what is {state} cannot be chosen for fleet {}", verb.name);
            return Err(Failure::usage(text).next(format!("fleet jobs --state {state}")));
        }
    }
    if let Some(machine) = &which.machine {
        known(bus, machine).await?;
    }
    let now = clock::now();
    let all = read::all(bus).await?;
    let meant = all.iter().filter(|job| matches(job, verb, which, now));
    Ok(meant.map(Seen::of).collect())
}

/// Fails unless the machine is known.
pub(crate) async fn known(bus: &Bus, machine: &MachineId) -> Result<(), Failure> {
    let (machines, _) = bus.machines().await?;
    let known: Vec<MachineId> = machines
        .iter()
        .map(|seen| seen.presence.machine.clone())
        .collect();
    match known.contains(machine) {
        true => Ok(()),
        false => {
            let text = prefix::unknown_machine(machine.as_str(), &known);
            Err(Failure::usage(text).next("fleet machines"))
        }
    }
}

fn matches(job: &Job, verb: &Verb, which: &Which, now: Time) -> bool {
    let word = job.state.word();
    let state = match which.states.as_slice() {
        [] => verb.states.contains(&word),
        given => given.contains(&word),
    };
    if !state {
        return false;
    }
    let view = JobView::of(job);
    let machine = which.machine.is_none() || which.machine == view.machine;
    let recent = which
        .since
        .is_none_or(|since| now.since(view.ended_at.unwrap_or(job.changed_at)) <= since);
    machine && recent
}

/// Shows what is meant where nothing is to be done, else asks unless told not to. Whether it is to
/// be done.
async fn may(cx: &mut Context, how: How, what: &str, jobs: &[Seen]) -> Result<bool, Failure> {
    if how.dry_run {
        for seen in jobs {
            cx.show(&Would(seen))?;
        }
        return Ok(false);
    }
    if how.yes {
        return Ok(true);
    }
    let question = match jobs {
        [one] => format!("{}?", about(&format!("{what} "), one)),
        many => {
            if ask::possible() {
                list(many);
            }
            format!("{what} {}?", words::count(many.len() as u64, "job"))
        }
    };
    ask::yes(&question).await
}

fn about(what: &str, seen: &Seen) -> String {
    let job = &seen.view;
    let title = crate::output::escape::one_line(&job.title());
    let mut text = format!("{what}{} ({title}), {}", job.id, state_words(job));
    if let Some(reason) = reason_words(job) {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(machine) = &seen.open {
        text.push_str(&format!(
            "; an attempt on {machine} may run still, and is ended when {machine} is heard of"
        ));
    }
    clip(&text, LONGEST)
}

fn list(jobs: &[Seen]) {
    for seen in jobs.iter().take(NAMED) {
        crate::output::note(&about("", seen));
    }
    if jobs.len() > NAMED {
        crate::output::note(&format!("and {} more", jobs.len() - NAMED));
    }
}

/// A job that is meant.
struct Would<'a>(&'a Seen);

impl Answer for Would<'_> {
    fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            id: JobId,
            result: &'static str,
            state: StateWord,
            machine: Option<&'a MachineId>,
            reason: Option<String>,
            revision: u64,
        }
        let job = &self.0.view;
        serde_json::to_string(&Line {
            id: job.id,
            result: "would",
            state: job.state,
            machine: job.machine.as_ref(),
            reason: reason_words(job),
            revision: job.revision,
        })
    }

    fn text(&self, _: &Look) -> String {
        format!("{}\n", about("", self.0))
    }
}

/// Said of an attempt that was given up.
pub(crate) fn given_up_words(decided: &Decided) -> String {
    match &decided.given_up {
        Some(machine) => {
            format!("; what runs of it on {machine} is ended when {machine} is heard of")
        }
        None => String::new(),
    }
}

/// Why a decision was not taken.
pub(crate) async fn refused(bus: &Bus, error: ActError) -> Failure {
    let text = error.to_string();
    match error {
        ActError::UnknownJob(id) => read::gone(bus, id).await,
        ActError::Bus(error) => error.into(),
        ActError::OutcomeUnknown(_) => Failure::new(Exit::Unavailable, text),
        ActError::MovedOn { id, .. } | ActError::Impossible { id, .. } | ActError::Moving(id) => {
            Failure::new(Exit::TempFail, text).next(format!("fleet show {id}"))
        }
    }
}
