//! The way of a job, hop by hop, with what each took: who sent it, where it waited, which machine
//! ran it, how that ended.

use std::time::Duration;

use fleet_contract::job::{Attempt, Job, JobState};
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::EventKey;
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::words;
use crate::model::Model;
use crate::text;
use crate::theme::{Look, Role};

/// Attempts that are told hop by hop; earlier ones are counted.
const ATTEMPTS: usize = 3;

/// Events that are looked through for when the hub stored a record.
const LOOK: usize = 2000;
/// How far two clocks may be apart for that.
const APART: Duration = Duration::from_secs(10);

/// A place on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    /// What it is called.
    pub(crate) name: String,
    /// How it looks.
    pub(crate) role: Role,
    /// How long it took to come here from the stop before; none at the first.
    pub(crate) took: Option<Duration>,
}

/// The stops of a job so far.
pub(crate) fn stops(model: &Model, job: &Job) -> Vec<Stop> {
    let look = model.look;
    let mut stops = vec![Stop {
        name: job.spec.submitted_by.clone(),
        role: Role::Plain,
        took: None,
    }];
    let mut at = job.spec.submitted_at;
    // Where it is still known when the hub stored that, the sender's clock ends here.
    let stored = stored(model, job, at, StateWord::Queued.as_str());
    if let Some(stored) = stored {
        stops.push(Stop {
            name: "hub".to_owned(),
            role: Role::Plain,
            took: Some(stored.since(at)),
        });
        at = stored;
    }
    let earlier = job.attempts.len().saturating_sub(ATTEMPTS);
    if let Some(last) = earlier.checked_sub(1).and_then(|no| job.attempts.get(no)) {
        let to = last.ended_at.unwrap_or(last.claimed_at);
        stops.push(Stop {
            name: match earlier {
                1 => "1 attempt".to_owned(),
                n => format!("{n} attempts"),
            },
            role: Role::Dim,
            took: Some(to.since(at)),
        });
        at = to;
    }
    for attempt in job.attempts.iter().skip(earlier) {
        stops.push(Stop {
            name: attempt.machine.to_string(),
            role: Role::Plain,
            took: Some(attempt.claimed_at.since(at)),
        });
        at = attempt.claimed_at;
        if let Some(started) = attempt.started_at.filter(|started| *started > at) {
            stops.push(Stop {
                name: "started".to_owned(),
                role: Role::Plain,
                took: Some(started.since(at)),
            });
            at = started;
        }
        if let Some(ended) = attempt.ended_at {
            stops.push(ended_stop(look, attempt, ended.since(at)));
            at = ended;
        }
    }
    stops.extend(now(model, job, at));
    stops
}

/// When the hub stored what a job was told at about this time, if that is still known.
fn stored(model: &Model, job: &Job, about: Time, word: &str) -> Option<Time> {
    let apart = i64::try_from(APART.as_micros()).unwrap_or(0);
    let from = EventKey {
        stored: Time::from_micros(about.as_micros().saturating_sub(apart)),
        of_journal: false,
        seq: 0,
        part: 0,
    };
    let near = model.fleet.events().range(from..).take(LOOK);
    // A dispatch that only the claim tells of has the claim's time.
    near.take_while(|(key, _)| key.stored <= about.plus(APART))
        .find(|(key, event)| key.part > 0 && event.job == Some(job.id) && event.word == word)
        .map(|(key, _)| key.stored)
}

fn ended_stop(look: Look, attempt: &Attempt, took: Duration) -> Stop {
    let word = match &attempt.outcome {
        Some(Outcome::Exited { exit_code: 0 }) => StateWord::Succeeded,
        Some(Outcome::TimedOut) => StateWord::TimedOut,
        Some(Outcome::Canceled) => StateWord::Canceled,
        Some(Outcome::Rejected { .. }) => StateWord::Rejected,
        Some(Outcome::Unknown { .. } | Outcome::Fenced | Outcome::Interrupted) => StateWord::Lost,
        Some(Outcome::Exited { .. } | Outcome::Signaled { .. }) | None => StateWord::Failed,
    };
    let (glyph, role) = look.job(word);
    Stop {
        name: format!("{glyph} {}", words::outcome(attempt.outcome.as_ref())),
        // Only where the job stands now wants a person.
        role,
        took: Some(took),
    }
}

/// Where it stands, unless its last attempt's end says so already.
fn now(model: &Model, job: &Job, at: Time) -> Option<Stop> {
    let word = job.state.word();
    let (glyph, role) = model.look.job(word);
    let until = model.heard_at();
    let (name, to) = match &job.state {
        JobState::Running { .. } => ("runs".to_owned(), until),
        JobState::Queued { .. } => ("waits".to_owned(), until),
        JobState::Backoff { .. } => ("pauses".to_owned(), until),
        JobState::NeedsHuman { .. } => ("asks".to_owned(), job.changed_at),
        _ if job.changed_at > at || job.attempts.is_empty() => (word.to_string(), job.changed_at),
        _ => return None,
    };
    Some(Stop {
        name: format!("{glyph} {name}"),
        role,
        took: Some(to.since(at)),
    })
}

/// All of it in one line; where that is too long, the first stops give way.
pub(crate) fn line(model: &Model, job: &Job, width: usize) -> Line<'static> {
    let look = model.look;
    let (rule, tip) = look.hop();
    let mut parts: Vec<(String, String, Role)> = stops(model, job)
        .into_iter()
        .map(|stop| {
            let hop = match stop.took {
                None => String::new(),
                // At once, as far as the clocks tell.
                Some(Duration::ZERO) => format!(" {rule}{rule}{tip} "),
                Some(took) => format!(
                    " {rule} {} {rule}{tip} ",
                    fleet_contract::projection::span(took)
                ),
            };
            (hop, text::escape(&stop.name).into_owned(), stop.role)
        })
        .collect();
    let wide = |parts: &[(String, String, Role)]| -> usize {
        parts
            .iter()
            .map(|(hop, name, _)| hop.width() + name.width())
            .sum()
    };
    let room = width.saturating_sub(1);
    let mut cut = false;
    while wide(&parts) + if cut { 1 } else { 0 } > room && parts.len() > 1 {
        parts.remove(0);
        cut = true;
        // What led to the first one that is left is cut with the stop before it.
        if let Some((hop, _, _)) = parts.first_mut() {
            *hop = " ".to_owned();
        }
    }
    let mut spans = vec![Span::raw(" ")];
    if cut {
        spans.push(Span::styled(look.ellipsis(), look.style(Role::Dim)));
    }
    for (hop, name, role) in parts {
        spans.push(Span::styled(hop, look.style(Role::Dim)));
        spans.push(Span::styled(name, look.calm(role)));
    }
    Line::from(spans)
}
