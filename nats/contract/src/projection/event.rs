//! An event in the few words that fit a line.

use std::time::Duration;

use serde_json::Value;

use super::JournalFact;
use crate::event::EventView;
use crate::ids::{JobId, Lane, MachineId, Writer};
use crate::job::Job;
use crate::outcome::Outcome;
use crate::record::{Cause, Change, Next, Record};
use crate::spec::{JobSpec, Target};
use crate::time::Time;

/// Longest text of an event; the rest is cut.
pub const TEXT_MAX_CHARS: usize = 300;

/// Where an event stands among all: by when the hub stored it, then by stream and sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// When the hub stored it, by the reader's own clock.
    pub stored: Time,
    /// Whether it is of the journal.
    pub of_journal: bool,
    /// Its sequence in its stream.
    pub seq: u64,
    /// Which of the events of one record: a claim that carries its job tells the dispatch first.
    pub part: u8,
}

impl EventKey {
    pub(super) fn journal(stored: Time, seq: u64) -> Self {
        Self {
            stored,
            of_journal: true,
            seq,
            part: 1,
        }
    }

    pub(super) fn flow(stored: Time, seq: u64) -> Self {
        Self {
            stored,
            of_journal: false,
            seq,
            part: 1,
        }
    }

    /// Right before it: what its record tells beside itself.
    pub(super) fn before(self) -> Self {
        Self { part: 0, ..self }
    }
}

/// One past-tense fact, as short as it can be told. Its texts come from peers: whoever shows them
/// escapes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When the hub stored it, by the reader's own clock.
    pub time: Time,
    /// When it happened, by its writer's clock. Only to find what the same writer wrote then.
    pub written: Time,
    /// The machine it is about.
    pub machine: Option<MachineId>,
    /// The job it is about.
    pub job: Option<JobId>,
    /// What happened, in one word: a job's new state where it ended, the kind otherwise.
    pub word: String,
    /// The rest.
    pub text: String,
}

impl Event {
    /// `job` is as it is after the record.
    pub(super) fn of_record(fact: &JournalFact, record: &Record, job: Option<&Job>) -> Self {
        // Of what others decide about an attempt its machine is told too.
        let tried = || {
            let about_attempt = matches!(
                record.change,
                Change::Lost { .. } | Change::CancelRequested { .. } | Change::Resolved { .. }
            );
            let attempt = job.filter(|_| about_attempt).and_then(Job::attempt);
            attempt.map(|attempt| attempt.machine.clone())
        };
        let machine = match (&fact.writer, &record.change) {
            (Writer::Machine(machine), _) | (_, Change::Superseded { machine, .. }) => {
                Some(machine.clone())
            }
            (
                _,
                Change::Queued {
                    target: Target::Pin(machine),
                    ..
                },
            ) => Some(machine.clone()),
            _ => record.after.machine.clone().or_else(tried),
        };
        let word = match &record.change {
            Change::Ended { .. } | Change::Lost { .. } => record.after.state.as_str(),
            change => change
                .kind()
                .strip_prefix("job.")
                .unwrap_or_else(|| change.kind()),
        };
        Self {
            time: fact.stored,
            written: fact.time,
            machine,
            job: Some(fact.job),
            word: word.to_owned(),
            text: cut(&describe(&record.change)),
        }
    }

    /// The dispatch of a job that was claimed before its dispatcher's own record was there: the
    /// claim carries the job then, and the dispatch is an event all the same.
    pub(super) fn of_dispatch(fact: &JournalFact, record: &Record) -> Option<Self> {
        let Change::Claimed {
            spec: Some(spec),
            target,
            ..
        } = &record.change
        else {
            return None;
        };
        let queued = describe_queued(Cause::Dispatch, target.as_ref(), Some(spec));
        Some(Self {
            time: fact.stored,
            written: spec.submitted_at,
            machine: target.as_ref().and_then(|target| match target {
                Target::Pin(machine) => Some(machine.clone()),
                Target::Lane(_) => None,
            }),
            job: Some(fact.job),
            word: "queued".to_owned(),
            text: cut(&queued),
        })
    }

    pub(super) fn of_flow(event: &EventView, stored: Time) -> Self {
        Self {
            time: stored,
            written: event.time,
            machine: event.machine.clone(),
            job: event.job,
            word: cut(&event.kind),
            text: cut(&details(event.detail())),
        }
    }
}

fn cut(text: &str) -> String {
    let end = text.char_indices().nth(TEXT_MAX_CHARS);
    text[..end.map_or(text.len(), |(at, _)| at)].to_owned()
}

fn describe_queued(cause: Cause, target: Option<&Target>, spec: Option<&JobSpec>) -> String {
    let place = match target {
        Some(Target::Pin(machine)) => Some(format!("for {machine}")),
        Some(Target::Lane(lane)) if *lane != Lane::any() => Some(format!("in lane {lane}")),
        Some(Target::Lane(_)) | None => None,
    };
    let why = match (cause, spec) {
        (Cause::Dispatch, Some(spec)) => Some(format!("by {}", spec.submitted_by)),
        (Cause::Dispatch, None) => None,
        (Cause::Backoff, _) => Some("its next attempt is due".to_owned()),
        (Cause::Republish, _) => Some("its ticket was gone".to_owned()),
        (Cause::Retry, _) => Some("the operator wants another attempt".to_owned()),
        (Cause::Move, _) => Some("the operator moved it".to_owned()),
        (Cause::Resolve, _) => Some("the operator decided so".to_owned()),
        (Cause::Answer, _) => Some("the operator answered".to_owned()),
    };
    let words: Vec<String> = why.into_iter().chain(place).collect();
    words.join(", ")
}

fn describe(change: &Change) -> String {
    match change {
        Change::Queued {
            target,
            cause,
            spec,
            ..
        } => describe_queued(*cause, Some(target), spec.as_deref()),
        Change::Claimed { no, .. } => format!("attempt {no}"),
        Change::Ended {
            outcome,
            started_at,
            ended_at,
            next,
            ..
        } => {
            let took = span(ended_at.since(*started_at));
            format!(
                "{} after {took}{}",
                outcome_words(outcome),
                next_words(next)
            )
        }
        Change::CancelRequested { by } | Change::Canceled { by } | Change::Acknowledged { by } => {
            format!("by {by}")
        }
        Change::Lost { reason, next, .. } => format!("{reason}{}", next_words(next)),
        Change::Expired {} => "it waited too long".to_owned(),
        Change::Rejected { reason } => reason.clone(),
        Change::Resolved { to, by, notes } => match notes {
            Some(notes) => format!("as {to} by {by}: {notes}"),
            None => format!("as {to} by {by}"),
        },
        Change::Restated {} => "what holds, over a record that does not count".to_owned(),
        Change::Recovered { question, .. } => question.clone(),
        Change::Adopted { no, .. } => format!("attempt {no} is still there"),
        Change::Superseded {
            no,
            outcome,
            started_at,
            ended_at,
            ..
        } => {
            let took = started_at
                .zip(*ended_at)
                .map(|(from, to)| span(to.since(from)));
            let after = took.map_or(String::new(), |took| format!(" after {took}"));
            let how = outcome_words(outcome);
            format!("attempt {no} had run: {how}{after}; that does not count")
        }
    }
}

fn next_words(next: &Next) -> String {
    match next {
        Next::End => String::new(),
        Next::Backoff { .. } => ", tries again".to_owned(),
        Next::Ask { question } => format!(": {question}"),
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { exit_code } => format!("exit {exit_code}"),
        Outcome::Signaled { signal } => format!("signal {signal}"),
        Outcome::TimedOut => "ended at its time-out".to_owned(),
        Outcome::Canceled => "ended as asked".to_owned(),
        Outcome::Interrupted => "its agent stopped".to_owned(),
        Outcome::Fenced => "its lease ran out".to_owned(),
        Outcome::Rejected { reason, .. } | Outcome::Unknown { reason } => reason.clone(),
    }
}

/// Details of an event that fit a line: `name=value` of everything that is no table, and of a
/// machine's causes their names.
#[must_use]
pub fn details(data: &Value) -> String {
    let Value::Object(map) = data else {
        return match data {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
    };
    let words: Vec<String> = map
        .iter()
        .filter_map(|(name, value)| match value {
            Value::Null | Value::Object(_) => None,
            Value::Array(items) => {
                let causes: Vec<&str> = items
                    .iter()
                    .filter_map(|item| item.get("cause").and_then(Value::as_str))
                    .collect();
                (!causes.is_empty()).then(|| causes.join(", "))
            }
            Value::String(text) if name == "reason" => Some(text.clone()),
            Value::String(text) => Some(format!("{name}={text}")),
            other => Some(format!("{name}={other}")),
        })
        .collect();
    words.join(" ")
}

/// How long something took, as coarse as a line of a list needs: `400 ms`, `12 s`, `3 min`,
/// `2 h`, `5 d`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.subsec_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
