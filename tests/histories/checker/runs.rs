//! What attempts did, against what the journal says of them.

use std::collections::BTreeMap;

use fleet_contract::event::kind::ATTEMPT_SUPERSEDED;
use fleet_contract::job::Job;
use fleet_contract::outcome::Outcome;
use fleet_contract::record::Change;

use super::{Findings, Jobs, Rule, stored};
use crate::history::{Did, Effect, History};
use crate::schedule::Fault;
use crate::shape::Shape;

/// The clock of the jobs tells hundredths of a second.
const TICK: f64 = 0.02;
/// The hub's wall clock may be put right while a history runs.
const WALL: f64 = 1.0;
/// How long after it wakes a frozen machine has ended what it may not run any more: TERM, 5 s later
/// KILL, and whatever else it has to do then.
const AFTER_WAKING: f64 = 20.0;

pub(super) fn check(history: &History, jobs: &Jobs, found: &mut Findings) {
    let mut by_job: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
    for effect in &history.effects {
        by_job.entry(&effect.job).or_default().push(effect);
    }
    for (id, effects) in &by_job {
        let job = id.parse().ok().and_then(|id| jobs.get(&id));
        let Some(job) = job else {
            found.add(Rule::Claimed, format!("{id} ran and has no journal"));
            continue;
        };
        claims(history, job, effects, found);
        overlaps(history, effects, found);
    }
    for (id, job) in jobs {
        let effects = by_job.get(id.as_str()).map_or(&[][..], |all| all);
        outcomes(job, effects, found);
    }
}

fn claims(history: &History, job: &Job, effects: &[&Effect], found: &mut Findings) {
    let mut begun: Vec<&str> = Vec::new();
    for effect in effects {
        let attempt = job
            .attempts
            .iter()
            .find(|attempt| attempt.id.as_str() == effect.attempt);
        let Some(attempt) = attempt else {
            let text = format!("{}: attempt {} ran unclaimed", job.id, effect.attempt);
            found.add(Rule::Claimed, text);
            continue;
        };
        if attempt.token != effect.token || attempt.machine.as_str() != effect.machine {
            let text = format!("{}: {effect:?} is not {attempt:?}", job.id);
            found.add(Rule::Claimed, text);
        }
        if !matches!(effect.what, Did::Begin { .. }) {
            continue;
        }
        if begun.contains(&effect.attempt.as_str()) {
            let text = format!("{}: attempt {} was started twice", job.id, effect.attempt);
            found.add(Rule::Claimed, text);
        }
        begun.push(&effect.attempt);
        let claim = history.journal.iter().find(|entry| {
            let record = entry.record.as_ref().map(|(_, record)| &record.change);
            matches!(record, Ok(Change::Claimed { attempt, .. }) if attempt.as_str() == effect.attempt)
        });
        if claim.is_some_and(|claim| stored(history, claim) > effect.at + WALL) {
            let text = format!(
                "{}: attempt {} began before it was claimed",
                job.id, effect.attempt
            );
            found.add(Rule::Claimed, text);
        }
    }
}

fn overlaps(history: &History, effects: &[&Effect], found: &mut Findings) {
    for (at, later) in effects.iter().enumerate() {
        let Did::Begin { beside } = later.what else {
            continue;
        };
        let ends_later = |attempt: &str| {
            effects[at..].iter().any(|effect| {
                effect.attempt == attempt
                    && matches!(effect.what, Did::End { .. })
                    && effect.at > later.at + TICK
            })
        };
        let mut earlier: Vec<&&Effect> = effects[..at]
            .iter()
            .filter(|e| matches!(e.what, Did::Begin { .. }) && e.attempt != later.attempt)
            .collect();
        if !beside {
            earlier.retain(|effect| ends_later(&effect.attempt));
        }
        if earlier.is_empty() {
            if beside {
                let text = format!("{later:?} ran beside nobody that is known");
                found.add(Rule::NoOverlap, text);
            }
            continue;
        }
        let frozen = earlier
            .iter()
            .find(|e| e.machine != later.machine && frozen(history, &e.machine, later.at));
        let Some(frozen) = frozen else {
            let text = format!("{later:?} ran beside one of {earlier:?}");
            found.add(Rule::NoOverlap, text);
            continue;
        };
        let told = history.flow.iter().any(|event| {
            event.kind == ATTEMPT_SUPERSEDED
                && event.attempt.as_deref() == Some(frozen.attempt.as_str())
        });
        if !told {
            let text = format!("{later:?} ran beside {frozen:?}, which was frozen; nobody told");
            found.add(Rule::NoOverlap, text);
        }
    }
}

/// Whether whoever ends a machine's attempts was frozen at this time, or just woke.
fn frozen(history: &History, machine: &str, at: f64) -> bool {
    let freezes = [Fault::MachineFrozen.name(), Fault::ExecutorFrozen.name()];
    history.injected.iter().any(|one| {
        freezes.contains(&one.fault.as_str())
            && one.machine.as_deref() == Some(machine)
            && one.from <= at
            && one.to.is_none_or(|to| at <= to + AFTER_WAKING)
    })
}

fn outcomes(job: &Job, effects: &[&Effect], found: &mut Findings) {
    let shape = Shape::of(&job.spec.command);
    for attempt in &job.attempts {
        let of = |wanted: fn(&Did) -> bool| {
            let mut all = effects.iter();
            all.find(|e| e.attempt == attempt.id.as_str() && wanted(&e.what))
        };
        let end = of(|did| matches!(did, Did::End { .. }));
        let begin = of(|did| matches!(did, Did::Begin { .. }));
        match &attempt.outcome {
            Some(Outcome::Exited { exit_code }) => {
                let did = end.map(|e| e.what);
                let right = did == Some(Did::End { exit: *exit_code })
                    && shape.is_none_or(|shape| shape.exit == *exit_code);
                if !right {
                    let text = format!(
                        "{}: attempt {} is said to have exited with {exit_code}, it did {did:?}",
                        job.id, attempt.id
                    );
                    found.add(Rule::Outcome, text);
                }
            }
            Some(outcome @ Outcome::Rejected { .. }) => {
                if begin.is_some() {
                    let text = format!(
                        "{}: attempt {} began and is {outcome:?}",
                        job.id, attempt.id
                    );
                    found.add(Rule::Outcome, text);
                }
                // Every job here can be started, but on a full disk.
                if attempt.machine.as_str() != crate::schedule::CRAMPED {
                    let text = format!("{}: attempt {}: {outcome:?}", job.id, attempt.id);
                    found.add(Rule::Outcome, text);
                }
            }
            Some(outcome @ Outcome::TimedOut) if job.spec.timeout_ms.is_none() => {
                let text = format!("{}: {outcome:?} without a time-out", job.id);
                found.add(Rule::Outcome, text);
            }
            _ => {}
        }
    }
}
