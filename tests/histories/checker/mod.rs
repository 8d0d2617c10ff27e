//! Judges a history. Pure: it is given everything, and says what must not have happened.

mod flow;
mod output;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fleet_contract::ids::{JobId, Writer};
use fleet_contract::job::{Applied, Job};
use fleet_contract::outcome::Outcome;
use fleet_contract::record::{Change, Next};
use fleet_contract::spec::OnLost;
use fleet_contract::view::JobView;
use fleet_nats::journal::{Entry, fold};
use serde_json::Value;

use crate::history::History;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// What was acknowledged is in the journal, and what was taken back before it was sent is not.
    Kept,
    /// Every job has ended.
    Ended,
    /// After a result there is no other, unless the operator wanted another attempt.
    OneResult,
    /// Every record counts.
    NoVoid,
    /// What began was claimed, by this machine, with this token, and once.
    Claimed,
    /// No two attempts of a job run at the same time; where a machine was frozen, it is told.
    NoOverlap,
    /// What the journal says of an attempt's end is what the attempt did.
    Outcome,
    /// Losses are followed by what the job's policy says.
    Policy,
    /// Output is complete to the byte, or what is missing is marked.
    Output,
    /// The events of each writer are there in order and once.
    Flow,
    /// What the commands show is what the journal says.
    Shown,
    /// Nothing is left of what has ended: no process, no ticket.
    NothingLeft,
    /// Nothing went wrong on the way.
    NoComplaint,
}

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) text: String,
}

/// Everything that did not hold.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = Findings::default();
    let jobs = folded(history, &mut found);
    ends(history, &jobs, &mut found);
    results(history, &mut found);
    policies(history, &jobs, &mut found);
    runs::check(history, &jobs, &mut found);
    output::check(history, &jobs, &mut found);
    flow::check(history, &mut found);
    shown(history, &jobs, &mut found);
    left(history, &mut found);
    found.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: Rule, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Violation { rule, text });
    }
}

type Jobs = BTreeMap<JobId, Job>;

fn folded(history: &History, found: &mut Findings) -> Jobs {
    let mut all: BTreeMap<JobId, Option<Job>> = BTreeMap::new();
    for entry in &history.journal {
        if let Applied::Void(void) = fold(all.entry(entry.job).or_default(), entry) {
            found.add(
                Rule::NoVoid,
                format!("{} record {}: {void}", entry.job, entry.seq),
            );
        }
    }
    all.into_iter()
        .filter_map(|(id, job)| Some((id, job?)))
        .collect()
}

fn ends(history: &History, jobs: &Jobs, found: &mut Findings) {
    for id in &history.acknowledged {
        let known = id.parse().is_ok_and(|id: JobId| jobs.contains_key(&id));
        if !known {
            found.add(
                Rule::Kept,
                format!("{id} was acknowledged and has no journal"),
            );
        }
    }
    for id in &history.withdrawn {
        if id.parse().is_ok_and(|id: JobId| jobs.contains_key(&id)) {
            let text = format!("{id} was taken out before it was sent and is in the journal");
            found.add(Rule::Kept, text);
        }
    }
    for (id, job) in jobs {
        let word = job.state.word();
        if !word.is_terminal() {
            found.add(
                Rule::Ended,
                format!("{id} is {word} for ever: {:?}", job.state),
            );
        }
    }
}

/// Counted from the records alone, whatever the fold makes of them.
fn results(history: &History, found: &mut Findings) {
    let mut ended: BTreeMap<JobId, u64> = BTreeMap::new();
    for entry in &history.journal {
        let Ok((_, record)) = &entry.record else {
            continue;
        };
        match &record.change {
            Change::Ended { next, .. } => {
                if let Some(before) = ended.get(&entry.job) {
                    let text = format!("{}: results at {before} and {}", entry.job, entry.seq);
                    found.add(Rule::OneResult, text);
                }
                if *next == Next::End {
                    ended.insert(entry.job, entry.seq);
                }
            }
            // The operator opens another attempt.
            Change::Queued { .. } if entry.writer == Writer::Operator => {
                ended.remove(&entry.job);
            }
            _ => {}
        }
    }
}

/// Whether nobody knows what an attempt with this end did.
fn is_loss(change: &Change) -> Option<&Next> {
    match change {
        Change::Lost { next, .. } => Some(next),
        Change::Ended { outcome, next, .. } => matches!(
            outcome,
            Outcome::Unknown { .. } | Outcome::Fenced | Outcome::Interrupted
        )
        .then_some(next),
        _ => None,
    }
}

fn policies(history: &History, jobs: &Jobs, found: &mut Findings) {
    let mut wishes: BTreeMap<JobId, bool> = BTreeMap::new();
    for entry in &history.journal {
        let (Ok((_, record)), Some(job)) = (&entry.record, jobs.get(&entry.job)) else {
            continue;
        };
        let canceled = wishes.entry(entry.job).or_default();
        match &record.change {
            Change::CancelRequested { .. } => *canceled = true,
            Change::Queued { .. } => *canceled = false,
            change => {
                let Some(next) = is_loss(change) else {
                    continue;
                };
                let right = match (job.spec.on_lost, next) {
                    (OnLost::Ask, Next::Ask { .. })
                    | (OnLost::Fail, Next::End)
                    | (OnLost::Retry, Next::Backoff { .. }) => true,
                    // The third loss asks.
                    (OnLost::Retry, Next::Ask { .. }) => record.after.losses >= 3,
                    (_, Next::End) => *canceled,
                    _ => false,
                };
                if !right {
                    let text = format!(
                        "{} record {}: {next:?} after a loss under {:?}",
                        entry.job, entry.seq, job.spec.on_lost
                    );
                    found.add(Rule::Policy, text);
                }
            }
        }
    }
}

fn shown(history: &History, jobs: &Jobs, found: &mut Findings) {
    let mut missing: Vec<JobId> = jobs.keys().copied().collect();
    for value in &history.shown {
        let id = value["id"].as_str().and_then(|id| id.parse::<JobId>().ok());
        let Some((id, job)) = id.and_then(|id| Some((id, jobs.get(&id)?))) else {
            found.add(
                Rule::Shown,
                format!("shown and not in the journal: {value}"),
            );
            continue;
        };
        missing.retain(|one| *one != id);
        let says = serde_json::to_value(JobView::of(job)).unwrap_or(Value::Null);
        if says != *value {
            found.add(
                Rule::Shown,
                format!("shown {value}, the journal says {says}"),
            );
        }
    }
    for id in missing {
        found.add(
            Rule::Shown,
            format!("{id} is in the journal and not in `fleet jobs`"),
        );
    }
}

fn left(history: &History, found: &mut Findings) {
    for process in &history.alive {
        found.add(Rule::NothingLeft, format!("a process is left: {process}"));
    }
    for (stream, count) in &history.tickets {
        if *count > 0 {
            found.add(
                Rule::NothingLeft,
                format!("{count} tickets are left in {stream}"),
            );
        }
    }
    for complaint in history.complaints.iter().chain(&history.strange) {
        found.add(Rule::NoComplaint, complaint);
    }
}

/// When a record was stored, by the clock of the faults.
fn stored(history: &History, entry: &Entry) -> f64 {
    entry.stored.as_micros() as f64 / 1e6 - history.wall
}
