//! `fleet resolve`: what became of a job, by the word of a person who knows.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::record::{Cause, StateWord};
use fleet_contract::view::JobView;
use fleet_nats::bus::Bus;
use serde::Serialize;

use crate::args::decide::{Resolve, To, named_or_chosen};
use crate::cmd::decide::{self, Seen, Verb};
use crate::cmd::retry;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Answer, Look};

/// A word about the end of jobs.
const RESOLVE: Verb = Verb {
    name: "resolve",
    refuses,
    states: &[StateWord::NeedsHuman],
};

/// The same that runs them once more.
const QUEUE: Verb = Verb {
    refuses: retry::refuses,
    ..RESOLVE
};

fn refuses(job: &JobView) -> Option<Failure> {
    let id = job.id;
    let (text, next) = match (job.state, &job.machine) {
        (StateWord::Running, Some(machine)) => (
            format!("job {id} runs on {machine}: nothing was changed"),
            format!("fleet cancel {id}, and when it has ended fleet resolve {id} succeeded|failed"),
        ),
        (StateWord::Queued | StateWord::Backoff, _) => (
            format!("job {id} waits for its next attempt: nothing was changed"),
            format!("fleet cancel {id}"),
        ),
        _ => return None,
    };
    Some(Failure::new(Exit::TempFail, text).next(next))
}

#[derive(Debug, Serialize)]
struct Done {
    id: JobId,
    result: &'static str,
    state: StateWord,
    was: StateWord,
    given_up: Option<MachineId>,
    revision: u64,
    #[serde(skip)]
    more: String,
}

impl Answer for Done {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, _: &Look) -> String {
        let Self {
            id,
            state,
            was,
            more,
            ..
        } = self;
        format!("{id} {state} by your word, it was {was}{more}\n")
    }
}

/// Resolves jobs, after asking on a terminal.
pub(crate) async fn run(args: &Resolve, cx: &mut Context) -> Outcome {
    let (named, to) = args.get()?;
    if let Some(notes) = &args.notes {
        check_notes(notes)?;
    }
    let (verb, what) = match to {
        To::Queued => (QUEUE, "run once more"),
        To::End(StateWord::Succeeded) => (RESOLVE, "take as succeeded"),
        To::End(_) => (RESOLVE, "take as failed"),
    };
    named_or_chosen("resolve", named, &args.which)?;
    let bus = cx.acting_bus().await?;
    let meant = (named, &args.which);
    let agreed = decide::agreed(cx, &bus, (&verb, what), meant, args.how).await?;
    let done = match to {
        To::Queued => retry::all(cx, &bus, &agreed.jobs, Cause::Resolve).await,
        To::End(word) => end(cx, &bus, &agreed.jobs, word, args.notes.as_deref()).await,
    };
    agreed.ends(done)
}

/// Longest notes, in bytes: they stand in the journal.
const NOTES_MAX_BYTES: usize = 4096;

fn check_notes(notes: &str) -> Result<(), Failure> {
    match notes.len() {
        0 => Err(Failure::usage("--notes is empty: leave it out")),
        1..=NOTES_MAX_BYTES => Ok(()),
        many => Err(Failure::usage(format!(
            "--notes are {many} bytes, the limit is {NOTES_MAX_BYTES}"
        ))),
    }
}

async fn end(
    cx: &mut Context,
    bus: &Bus,
    jobs: &[Seen],
    to: StateWord,
    notes: Option<&str>,
) -> Result<(), Failure> {
    let by = cx.environment.who();
    let mut failed = None;
    for seen in jobs {
        let (id, was) = (seen.view.id, seen.view.state);
        match bus.resolve(id, seen.view.revision, to, &by, notes).await {
            Ok(decided) => cx.show(&Done {
                id,
                result: "resolved",
                state: to,
                was,
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
    failed.map_or(Ok(()), Err)
}
