//! What states and times are in words.

use std::time::Duration;

use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::ids::JobId;
use fleet_contract::job::{Job, JobState, Superseded};
use fleet_contract::machine::{MachineState, Presence};
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::{Fleet, Machine, span};
use fleet_contract::spec::Target;
use fleet_contract::time::Time;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::{Model, Phase};

/// Fewest characters of an id that are shown.
const ID_MIN: usize = 4;

/// The time of day where the person is, `12:04:31`.
pub(crate) fn clock(time: Time, zone: &TimeZone) -> String {
    let stamp = Timestamp::from_microsecond(time.as_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = zone.to_datetime(stamp);
    format!(
        "{:02}:{:02}:{:02}",
        local.hour(),
        local.minute(),
        local.second()
    )
}

/// Day and time where the person is, `2026-01-31 12:04:31`.
pub(super) fn date(time: Time, zone: &TimeZone) -> String {
    let stamp = Timestamp::from_microsecond(time.as_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{} {}", zone.to_datetime(stamp).date(), clock(time, zone))
}

/// The person's time zone: the console shows the times of where the person is, all else UTC.
pub(super) fn zone(model: &Model) -> String {
    let now = Timestamp::from_microsecond(model.now.as_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    let seconds = model.zone.to_offset(now).seconds();
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    let sign = if seconds < 0 { '-' } else { '+' };
    match (hours, minutes) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

/// The same with hundredths.
pub(crate) fn clock_fine(time: Time, zone: &TimeZone) -> String {
    let hundredths = time.as_micros().rem_euclid(1_000_000) / 10_000;
    format!("{}.{hundredths:02}", clock(time, zone))
}

/// Minutes and seconds, `00:12`; hours before them where there are any.
pub(crate) fn stopwatch(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// How long ago, `12 s`; in whole seconds, so that an idle screen changes once a second at most.
pub(crate) fn age(now: Time, then: Time) -> String {
    let passed = now.since(then);
    if passed < Duration::from_secs(1) {
        "now".to_owned()
    } else {
        span(passed)
    }
}

/// `12 s ago`, `now`.
pub(crate) fn ago(now: Time, then: Time) -> String {
    match age(now, then).as_str() {
        "now" => "now".to_owned(),
        age => format!("{age} ago"),
    }
}

/// Length of the shortest beginning of a job's id that no other job's has.
pub(crate) fn id_length(fleet: &Fleet, id: JobId) -> usize {
    let common = |other: &JobId| {
        let pairs = other.as_str().bytes().zip(id.as_str().bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let jobs = fleet.jobs();
    let before = jobs.range(..id).next_back().map_or(0, |(id, _)| common(id));
    let after = jobs
        .range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded))
        .next()
        .map_or(0, |(id, _)| common(id));
    (before.max(after) + 1).clamp(ID_MIN, id.as_str().len())
}

/// The shortest beginning of a job's id that no other job's has.
pub(crate) fn prefix(fleet: &Fleet, id: JobId) -> String {
    id.as_str()[..id_length(fleet, id)].to_owned()
}

/// What people call a job.
pub(crate) fn title(job: &Job) -> String {
    match job.spec.index {
        Some(index) => format!("{} [{index}]", job.spec.title()),
        None => job.spec.title(),
    }
}

/// What there is to know about where a job stands, beside its word.
pub(crate) fn note(model: &Model, job: &Job) -> String {
    let note = note_of_state(model, job);
    let mark = match (job.unacknowledged(), job.two_ran()) {
        (0, _) => return note,
        (_, true) => "two ran",
        (_, false) => "had run on",
    };
    match note.is_empty() {
        true => mark.to_owned(),
        false => format!("{mark}, {note}"),
    }
}

fn note_of_state(model: &Model, job: &Job) -> String {
    let now = model.now;
    if model.is_dated() && !job.state.word().is_terminal() {
        let unknown = match model.phase() {
            Phase::CatchingUp { .. } => "still reading".to_owned(),
            _ => format!("unknown for {}", age(now, model.link.as_of)),
        };
        return match &job.state {
            // What was asked is still worth reading.
            JobState::NeedsHuman { question, .. } => format!("{unknown}: {question}"),
            _ => unknown,
        };
    }
    match &job.state {
        JobState::Queued { .. } => match &job.target {
            Target::Pin(machine) => {
                let state = model.fleet.machines().get(machine);
                match state.map(|m| m.state(model.as_of())) {
                    Some(state) if !state.takes_work() => {
                        format!("{machine} is {state}")
                    }
                    Some(_) => format!("waits for {machine}"),
                    None => format!("{machine} was never heard of"),
                }
            }
            Target::Lane(lane) if lane.as_str() == "any" => "waits for a slot".to_owned(),
            Target::Lane(lane) => format!("waits in lane {lane}"),
        },
        JobState::Running {
            open,
            cancel_requested,
        } => {
            let machine = model.fleet.machines().get(&open.machine);
            let state = machine.map(|m| m.state(model.as_of()));
            match (cancel_requested, state, job.attempts.len()) {
                (_, Some(state @ (MachineState::Lost | MachineState::Stale)), _) => {
                    format!("{} is {state}: outcome unknown", open.machine)
                }
                (true, _, _) => format!("cancel waits for {}", open.machine),
                (false, _, 0 | 1) => String::new(),
                (false, _, n) => format!("attempt {n}"),
            }
        }
        JobState::Backoff { until } if *until > now => {
            format!("next attempt in {}", span(until.since(now)))
        }
        JobState::Backoff { .. } => "next attempt is due".to_owned(),
        JobState::NeedsHuman { question, .. } => question.clone(),
        JobState::Failed {
            exit_code,
            signal,
            reason,
        } => match (exit_code, signal, reason) {
            (Some(code), _, _) => format!("exit {code}{}", after(job)),
            (_, Some(signal), _) => format!("signal {signal}{}", after(job)),
            (_, _, reason) => reason.clone().unwrap_or_default(),
        },
        JobState::Lost { reason } | JobState::Rejected { reason } => reason.clone(),
        JobState::Succeeded | JobState::TimedOut | JobState::Canceled => {
            after(job).trim_start().to_owned()
        }
        JobState::Expired => "never started".to_owned(),
    }
}

/// How long the last attempt took.
fn after(job: &Job) -> String {
    let attempt = job.attempt();
    match attempt.and_then(|a| a.started_at.zip(a.ended_at)) {
        Some((started, ended)) => format!(" after {}", span(ended.since(started))),
        None => String::new(),
    }
}

/// What there is to know about attempts of it that had run though their ends do not count, and that
/// nobody has acknowledged: at most two, and how many more.
pub(crate) fn superseded(model: &Model, job: &Job) -> Vec<String> {
    const TOLD: usize = 2;
    let open = job.superseded.iter();
    let open = open.filter(|told| told.acknowledged_by.is_none());
    let mut words: Vec<String> = open.take(TOLD).map(|told| ran_too(model, told)).collect();
    let more = job.unacknowledged().saturating_sub(TOLD);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words
}

/// One attempt that had run though its end does not count.
pub(crate) fn ran_too(model: &Model, told: &Superseded) -> String {
    let clock = |time: Time| clock(time, &model.zone);
    let times = match (told.started_at, told.ended_at) {
        (Some(from), Some(to)) => {
            let took = span(to.since(from));
            format!(", {} to {} by its clock, {took}", clock(from), clock(to))
        }
        (_, Some(to)) => format!(", until {} by its clock", clock(to)),
        _ => String::new(),
    };
    let how = match &told.outcome {
        Outcome::Fenced => "ended by its machine".to_owned(),
        other => outcome(Some(other)),
    };
    let (no, machine, token) = (told.no, &told.machine, told.token);
    let seen = match &told.acknowledged_by {
        Some(by) => format!("acknowledged by {by}"),
        None => "this end does not count".to_owned(),
    };
    format!("attempt {no} also ran, on {machine}: {how}{times}, token {token}; {seen}")
}

/// How an attempt ended.
pub(crate) fn outcome(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "runs".to_owned(),
        Some(Outcome::Exited { exit_code }) => format!("exit {exit_code}"),
        Some(Outcome::Signaled { signal }) => format!("signal {signal}"),
        Some(Outcome::TimedOut) => "timed out".to_owned(),
        Some(Outcome::Canceled) => "canceled".to_owned(),
        Some(Outcome::Interrupted) => "interrupted: its agent stopped".to_owned(),
        Some(Outcome::Fenced) => "its lease ran out".to_owned(),
        Some(Outcome::Rejected { reason, .. } | Outcome::Unknown { reason }) => reason.clone(),
    }
}

/// Why a machine is not simply up, in words.
pub(crate) fn causes(machine: &Machine, state: MachineState, at: Time) -> String {
    let presence = &machine.presence;
    let mut words = Vec::new();
    match state {
        MachineState::Stale => words.push(format!("no beat for {}", age(at, machine.seen))),
        MachineState::Lost => words.push(match presence.lost_at {
            Some(lost) => format!("its connection closed {}", ago(at, lost)),
            None => format!("no beat for {}", age(at, machine.seen)),
        }),
        _ => {}
    }
    words.extend(own_causes(presence));
    words.join(", ")
}

/// What a machine says is wrong with it, each with its value.
pub(crate) fn own_causes(presence: &Presence) -> Vec<String> {
    let mut words: Vec<String> = presence
        .degraded
        .iter()
        .map(|d| format!("{}: {}", d.cause.as_str(), d.value))
        .collect();
    if presence.contract != WIRE_VERSION {
        words.push(format!("speaks contract {}", presence.contract));
    }
    words
}
