//! The job's state machine as scenarios: each file in `scenarios/` is read and replayed, so that a
//! bug report becomes a file.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::ids::{Lane, Writer};
use fleet_contract::job::{Applied, Job, JobState, Void};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::policy::{self, Situation};
use fleet_contract::record::{After, Cause, Change, Next, Record, StateWord};
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::time::Time;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: Vec<Scenario>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(default)]
    on_lost: OnLost,
    #[serde(default)]
    retries: u32,
    #[serde(default)]
    target: Option<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize, Default, Debug, Clone)]
#[serde(deny_unknown_fields, default)]
struct Step {
    by: String,
    what: String,
    ticket: Option<u8>,
    target: Option<String>,
    attempt: Option<u8>,
    no: Option<u32>,
    outcome: Option<String>,
    next: Option<String>,
    to: Option<String>,
    spec: Option<bool>,
    /// Lies of the record: its previous record and the state after it.
    prev: Option<u64>,
    says: Option<String>,
    /// What is expected.
    is: Option<String>,
    void: Option<String>,
    machine: Option<String>,
    at: Option<String>,
    open: Option<u8>,
    attempts: Option<usize>,
    losses: Option<u32>,
    cancel: Option<bool>,
}

struct World {
    job: Option<Job>,
    seq: u64,
    spec: JobSpec,
    tickets: u8,
    attempts: u8,
}

fn target_of(text: &str) -> Target {
    match text {
        "any" => Target::Lane(Lane::any()),
        name => Target::Pin(machine(name)),
    }
}

fn word(text: &str) -> StateWord {
    StateWord::from_word(text).unwrap_or_else(|| panic!("no such state: {text}"))
}

fn outcome(text: &str) -> Outcome {
    let number = |prefix: &str| text.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok());
    if let Some(exit_code) = number("exit ") {
        return Outcome::Exited { exit_code };
    }
    if let Some(signal) = number("signal ") {
        return Outcome::Signaled { signal };
    }
    let reason = "in a test".to_owned();
    match text {
        "timed_out" => Outcome::TimedOut,
        "canceled" => Outcome::Canceled,
        "interrupted" => Outcome::Interrupted,
        "fenced" => Outcome::Fenced,
        "rejected" => Outcome::Rejected {
            reason,
            no_room: false,
        },
        "unknown" => Outcome::Unknown { reason },
        other => panic!("no such outcome: {other}"),
    }
}

fn void_word(void: &Void) -> &'static str {
    match void {
        Void::Prev { .. } => "prev",
        Void::Writer { .. } => "writer",
        Void::Transition { .. } => "transition",
        Void::After { .. } => "after",
        Void::Pin { .. } => "pin",
        Void::NoSpec => "spec",
        Void::Unreadable(_) => "unreadable",
    }
}

impl World {
    fn new(spec: JobSpec) -> Self {
        Self {
            job: None,
            seq: 0,
            spec,
            tickets: 0,
            attempts: 0,
        }
    }

    fn now(&self) -> Time {
        Time::from_micros(i64::try_from(self.seq).unwrap() * 1_000_000)
    }

    fn next(&self, step: &Step, outcome: Option<&Outcome>, cancel_requested: bool) -> Next {
        let by_machine = !matches!(step.by.as_str(), "keeper" | "operator");
        let machine = machine(if by_machine { &step.by } else { "studio" });
        let job = self.job.as_ref();
        let asked = matches!(job.map(|j| &j.state), Some(JobState::NeedsHuman { .. }));
        let at = Situation {
            spec: &self.spec,
            machine: &machine,
            attempts: job.map_or(0, |j| j.after().attempts),
            // The losses before this attempt: the agent knows them from its claim.
            losses: job.map_or(0, |j| j.losses) - u32::from(asked),
            cancel_requested,
            now: self.now(),
            draw: 0.5,
        };
        match step.next.as_deref() {
            None | Some("end") => Next::End,
            Some("backoff") => Next::Backoff { until: self.now() },
            Some("ask") => Next::Ask {
                question: "well?".to_owned(),
            },
            Some("policy") => match outcome {
                Some(outcome) => policy::next(outcome, &at),
                None => policy::next_after_lost_lease(&at),
            },
            Some(other) => panic!("no such next: {other}"),
        }
    }

    fn change(&mut self, step: &Step) -> Change {
        self.tickets = step.ticket.unwrap_or(self.tickets.max(1));
        let claims = step.what == "claimed";
        self.attempts = step
            .attempt
            .unwrap_or(self.attempts + u8::from(claims || self.attempts == 0));
        let first = self.job.is_none() && step.spec != Some(false);
        let spec = first.then(|| Box::new(self.spec.clone()));
        let cancel = self
            .job
            .as_ref()
            .is_some_and(|j| j.after().cancel_requested);
        let by = "ana@studio".to_owned();
        let attempt = attempt_id(self.attempts);
        let at = || self.job.as_ref().map_or(&self.spec.target, |j| &j.target);
        match step.what.as_str() {
            "queued" => Change::Queued {
                ticket: ticket_id(self.tickets),
                target: step
                    .target
                    .as_deref()
                    .map_or_else(|| at().clone(), target_of),
                work_seq: 1,
                cause: Cause::Dispatch,
                spec,
            },
            "claimed" => Change::Claimed {
                attempt,
                no: step
                    .no
                    .unwrap_or_else(|| self.job.as_ref().map_or(1, Job::next_no)),
                ticket: ticket_id(self.tickets),
                epoch: 0,
                target: step.target.as_deref().map(target_of),
                lease: 0,
                spec,
            },
            "ended" => {
                let outcome = outcome(step.outcome.as_deref().unwrap_or("exit 0"));
                Change::Ended {
                    attempt,
                    next: self.next(step, Some(&outcome), cancel),
                    outcome,
                    output: OutputCount::default(),
                    started_at: self.now(),
                    ended_at: self.now(),
                }
            }
            "cancel_requested" => Change::CancelRequested { by },
            "canceled" => Change::Canceled { by },
            "lost" => Change::Lost {
                attempt,
                reason: "its machine is gone".to_owned(),
                next: self.next(step, None, cancel),
            },
            "expired" => Change::Expired {},
            "rejected" => Change::Rejected {
                reason: "nobody can".to_owned(),
            },
            "resolved" => Change::Resolved {
                to: word(step.to.as_deref().unwrap_or("succeeded")),
                by,
                notes: None,
            },
            "restated" => Change::Restated {},
            other => panic!("no such change: {other}"),
        }
    }

    /// Writes the step's record as its writer would, lies included, and folds it.
    fn take(&mut self, step: &Step) -> Applied {
        self.seq += 1;
        let writer: Writer = step.by.parse().unwrap();
        if step.what == "garbage" {
            let void = Void::Unreadable("not a record".to_owned());
            if let Some(job) = &mut self.job {
                job.skip(self.seq);
            }
            return Applied::Void(void);
        }
        let change = self.change(step);
        let last = self.job.as_ref().map_or(0, |j| j.last_seq);
        let mut record = self.honest(&writer, change);
        record.prev = step.prev.unwrap_or(last);
        if let Some(says) = &step.says {
            record.after.state = word(says);
        }
        let now = self.now();
        match &mut self.job {
            Some(job) => job.apply(self.seq, now, &writer, &record),
            None => match Job::first(job_id(1), self.seq, now, &writer, &record) {
                Ok(job) => {
                    self.job = Some(job);
                    Applied::Changed
                }
                Err(void) => {
                    // As if purged: the next may be a first again.
                    self.seq = 0;
                    Applied::Void(void)
                }
            },
        }
    }

    /// The record with the true state after it where the change is possible.
    fn honest(&self, writer: &Writer, change: Change) -> Record {
        let now = self.now();
        let made = match &self.job {
            Some(job) => job.record(now, writer, change.clone()),
            None => fleet_contract::job::first_record(job_id(1), now, writer, change.clone()),
        };
        made.unwrap_or(Record {
            prev: 0,
            change,
            after: After {
                state: StateWord::Queued,
                attempt: None,
                machine: None,
                cancel_requested: false,
                attempts: 0,
                losses: 0,
            },
        })
    }

    fn check(&self, step: &Step, at: &str) {
        let job = self.job.as_ref().unwrap_or_else(|| panic!("{at}: no job"));
        let after = job.after();
        if let Some(is) = &step.is {
            assert_eq!(after.state, word(is), "{at}");
        }
        if let Some(want) = &step.machine {
            assert_eq!(after.machine, Some(machine(want)), "{at}");
        }
        if let Some(want) = &step.at {
            assert_eq!(job.target, target_of(want), "{at}");
        }
        if let Some(open) = step.open {
            assert_eq!(after.attempt, Some(attempt_id(open)), "{at}");
        }
        if let Some(attempts) = step.attempts {
            assert_eq!(job.attempts.len(), attempts, "{at}");
        }
        if let Some(losses) = step.losses {
            assert_eq!(job.losses, losses, "{at}");
        }
        if let Some(cancel) = step.cancel {
            assert_eq!(after.cancel_requested, cancel, "{at}");
        }
        if after.state.is_terminal() {
            assert_eq!(
                after.attempt, None,
                "{at}: an ended job has no open attempt"
            );
            assert!(
                job.attempts.iter().all(|a| a.ended_at.is_some()),
                "{at}: an ended job has no attempt without an end"
            );
        }
    }
}

fn replay(scenario: &Scenario, file: &str) {
    let target = target_of(scenario.target.as_deref().unwrap_or("any"));
    let mut world = World::new(JobSpec {
        on_lost: scenario.on_lost,
        retries: scenario.retries,
        ..spec(target)
    });
    for (n, step) in scenario.steps.iter().enumerate() {
        let at = format!("{file}: {:?}, step {}: {step:?}", scenario.name, n + 1);
        let before = world.job.clone();
        let applied = world.take(step);
        match (&step.void, applied) {
            (None, Applied::Changed) => world.check(step, &at),
            (Some(want), Applied::Void(void)) => {
                assert_eq!(void_word(&void), want, "{at}: {void}");
                let known = |job: &Option<Job>| job.as_ref().map(|j| (j.state.clone(), j.after()));
                assert_eq!(
                    known(&before),
                    known(&world.job),
                    "{at}: a void record changed it"
                );
            }
            (_, applied) => panic!("{at}: {applied:?}"),
        }
    }
}

#[test]
fn scenarios() {
    let files = [
        ("life.toml", include_str!("scenarios/life.toml")),
        ("cancel.toml", include_str!("scenarios/cancel.toml")),
        ("lost.toml", include_str!("scenarios/lost.toml")),
        ("move.toml", include_str!("scenarios/move.toml")),
        ("void.toml", include_str!("scenarios/void.toml")),
    ];
    for (name, text) in files {
        let file: File = toml::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        for scenario in &file.scenario {
            replay(scenario, name);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    columns: Vec<String>,
    rows: BTreeMap<String, String>,
}

/// A world in the state of this column of the matrix.
fn reach(column: &str) -> World {
    let mut world = World::new(spec(Target::Lane(Lane::any())));
    let step = |by: &str, what: &str| Step {
        by: by.to_owned(),
        what: what.to_owned(),
        ..Step::default()
    };
    let queued = || vec![step("operator", "queued")];
    let running = || [queued(), vec![step("studio", "claimed")]].concat();
    let ended = |outcome: &str, next: &str| {
        let mut end = step("studio", "ended");
        (end.outcome, end.next) = (Some(outcome.to_owned()), Some(next.to_owned()));
        [running(), vec![end]].concat()
    };
    let mut lost = step("keeper", "lost");
    lost.next = Some("ask".to_owned());
    let steps = match column {
        "new" => Vec::new(),
        "queued" => queued(),
        "running" => running(),
        "canceling" => [running(), vec![step("operator", "cancel_requested")]].concat(),
        "backoff" => ended("exit 1", "backoff"),
        "asked" => [running(), vec![lost]].concat(),
        "asks" => ended("unknown", "ask"),
        "succeeded" => ended("exit 0", "end"),
        "failed" => ended("exit 1", "end"),
        "timed_out" => ended("timed_out", "end"),
        "canceled" => [queued(), vec![step("operator", "canceled")]].concat(),
        "lost" => ended("unknown", "end"),
        "expired" => [queued(), vec![step("keeper", "expired")]].concat(),
        "rejected" => [queued(), vec![step("keeper", "rejected")]].concat(),
        other => panic!("no such column: {other}"),
    };
    for step in &steps {
        assert_eq!(world.take(step), Applied::Changed, "{column}: {step:?}");
    }
    world
}

#[test]
fn every_change_in_every_state() {
    let matrix: Matrix = toml::from_str(include_str!("scenarios/matrix.toml")).unwrap();
    let mut pairs = 0;
    let kinds: std::collections::BTreeSet<_> = matrix
        .rows
        .keys()
        .map(|row| row.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(kinds.len(), 10, "a change has no row: {kinds:?}");
    for (row, cells) in &matrix.rows {
        let (by, what) = row.split_once(' ').unwrap();
        let cells: Vec<&str> = cells.split_whitespace().collect();
        assert_eq!(cells.len(), matrix.columns.len(), "{row}");
        for (column, want) in matrix.columns.iter().zip(cells) {
            let mut world = reach(column);
            let applied = world.take(&Step {
                by: by.to_owned(),
                what: what.to_owned(),
                ..Step::default()
            });
            let got = match &applied {
                Applied::Changed => world.job.as_ref().unwrap().after().state.as_str(),
                Applied::Void(Void::Writer { .. }) => "x",
                Applied::Void(Void::Transition { .. }) => "-",
                other => panic!("{row} in {column}: {other:?}"),
            };
            assert_eq!(got, want, "{row} in {column}: {applied:?}");
            pairs += 1;
        }
    }
    assert_eq!(pairs, 14 * matrix.rows.len());
}
