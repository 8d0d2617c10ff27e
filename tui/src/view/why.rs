//! Why a dispatch or a machine is as it is, in words: the chain of reasons with what was measured
//! and how old that is.

use fleet_contract::ids::JobId;
use fleet_contract::job::{Job, JobState};
use fleet_contract::machine::MachineState;
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::{self, Holder, Machine, MachineReason, Reason, span};
use fleet_contract::record::{Cause, StateWord};
use fleet_contract::time::Time;
use ratatui::text::{Line, Span};

use super::words;
use crate::log::Origin;
use crate::model::{Detail, Model};
use crate::text;
use crate::theme::Role;

/// Last lines of a failed job's output that are told, where its output is open.
const TAIL: usize = 5;

/// Why a dispatch stands where it stands, one reason in each line.
pub(super) fn why(model: &Model, id: JobId) -> Vec<Line<'static>> {
    let Some(job) = model.fleet.job(id) else {
        return vec![Line::raw("this dispatch is not known any more")];
    };
    let (glyph, role) = model.look.job(job.state.word());
    let was = if model.is_dated() && !job.state.word().is_terminal() {
        "was "
    } else {
        ""
    };
    let head = format!("{glyph} {was}{}", job.state.word());
    let since = match job.state.word().is_terminal() {
        true => words::ago(model.now, job.changed_at),
        false => format!("for {}", words::age(model.now, job.changed_at)),
    };
    let mut lines = vec![Line::from(vec![
        Span::styled(head, model.look.style(role)),
        Span::raw(format!(" {since}: {}", text::escape(&words::title(job)))),
    ])];
    if model.is_dated() {
        let as_of = words::clock(model.link.as_of, &model.zone);
        lines.push(said(
            model,
            Role::Warn,
            &format!("as of {as_of}: what follows was true then"),
        ));
    }
    let reasons = projection::why(&model.fleet, job, model.as_of());
    // How it ended stands in the first line; only why is left to tell.
    let told = |reason: &&Reason| !matches!(reason, Reason::Ended { reason: None, word, .. } if *word != StateWord::Expired);
    for (at, reason) in reasons.iter().filter(told).enumerate() {
        let role = if at == 0 {
            Role::Plain
        } else {
            role_of(reason)
        };
        lines.push(said(model, role, &words_of(model, job, reason)));
    }
    if let JobState::NeedsHuman { .. } = job.state {
        let id = words::prefix(&model.fleet, job.id);
        let again = format!("fleet retry {id} runs it once more");
        lines.push(said(model, Role::Plain, &again));
        let end = format!("fleet resolve {id} succeeded|failed, or fleet cancel {id}, ends it");
        lines.push(said(model, Role::Plain, &end));
    }
    lines.extend(tail(model, job));
    lines
}

fn said(model: &Model, role: Role, words: &str) -> Line<'static> {
    Line::from(vec![
        Span::styled(
            format!("  {} ", model.look.dot()),
            model.look.style(Role::Dim),
        ),
        Span::styled(text::escape(words).into_owned(), model.look.style(role)),
    ])
}

fn role_of(reason: &Reason) -> Role {
    match reason {
        Reason::Expires { .. } | Reason::TriedBefore { .. } | Reason::TimesOut { .. } => Role::Dim,
        _ => Role::Plain,
    }
}

fn words_of(model: &Model, job: &Job, reason: &Reason) -> String {
    let ago = |time: &Time| words::ago(model.now, *time);
    match reason {
        Reason::Waits { since, cause } => {
            format!("waits since {} {}", because(*cause), ago(since))
        }
        Reason::PinUnknown { machine } => {
            format!("it may only run on {machine}, of which nobody has heard")
        }
        Reason::PinAway {
            machine,
            state,
            seen,
        } => format!(
            "it may only run on {machine}, which is {state}; last heard of {}",
            ago(seen)
        ),
        Reason::LaneOfItsOwn { lane } => {
            format!(
                "it waits in lane {lane}: only machines that satisfy its requirements ask there"
            )
        }
        Reason::Needs { needs } => format!("it needs {}", needs.replace(',', ", ")),
        Reason::Lacks {
            machine,
            first,
            others,
        } => {
            let also = if *others {
                ", and no other machine"
            } else {
                ""
            };
            let measured = ago(&first.checked_at);
            format!("{machine} does not have that{also}: {first}, measured {measured}")
        }
        Reason::Held { machine, held } => format!("{machine} could run it, but {held}"),
        Reason::NoMachine => "no machine is known: start one with fleet agent run".to_owned(),
        Reason::NoneTakesWork { known, best } => match known {
            1 => format!("the only machine is {best} and takes no work"),
            n => format!("none of {n} machines takes work now; the best of them is {best}"),
        },
        Reason::SlotsTaken {
            machines,
            only,
            slots,
            measured,
            longest,
        } => {
            let whose = match only {
                Some(machine) => format!("of {machine}"),
                None => format!("of {machines} machines"),
            };
            let all = match slots {
                0 => format!("there are no slots on the machine(s) it may run on ({whose})"),
                1 => format!("the one slot {whose} is taken"),
                n => format!("all {n} slots {whose} are taken"),
            };
            format!(
                "{all}, measured {}{}",
                ago(measured),
                held(model, longest.as_ref())
            )
        }
        Reason::SlotsFree {
            free,
            machines,
            first,
            overdue,
        } => {
            let where_ = match machines {
                1 => format!("on {first}"),
                n => format!("on {n} machines, {first} is one"),
            };
            let then = if *overdue {
                "and still nobody took it: its ticket may be gone, then the hub publishes it again"
            } else {
                "it is about to be taken"
            };
            let slots = match free {
                1 => "1 slot is free".to_owned(),
                n => format!("{n} slots are free"),
            };
            format!("{slots} {where_}, {then}")
        }
        Reason::Ahead { jobs, or_more } => {
            let more = if *or_more { " or more" } else { "" };
            match jobs {
                1 => format!("1{more} other is before it in the queue"),
                n => format!(
                    "{}{more} others are before it in the queue",
                    text::thousands(*n as u64)
                ),
            }
        }
        Reason::Expires { at } => match at.since(model.now) {
            left if *at > model.now => format!("expires in {}, unless it starts", span(left)),
            _ => "its time to start is over: it is about to expire".to_owned(),
        },
        Reason::Pause { until } if *until > model.now => format!(
            "pauses before attempt {}, due in {} ({})",
            job.next_no(),
            span(until.since(model.now)),
            words::clock(*until, &model.zone)
        ),
        Reason::Pause { .. } => format!("attempt {} is due now", job.next_no()),
        reason => words_of_attempts(model, job, reason),
    }
}

fn words_of_attempts(model: &Model, job: &Job, reason: &Reason) -> String {
    let ago = |time: &Time| words::ago(model.now, *time);
    match reason {
        Reason::Runs {
            machine,
            no,
            since,
            state,
            seen,
        } => {
            let of = match job.spec.retries {
                0 => String::new(),
                n => format!(" of at most {}", n + 1),
            };
            let runs = format!(
                "attempt {no}{of} runs on {machine} since {} ({})",
                words::age(model.now, *since),
                words::clock(*since, &model.zone)
            );
            format!("{runs}; {}", how_is(model, machine.as_str(), *state, *seen))
        }
        Reason::CancelWaits { machine } => {
            format!("it was asked to end: {machine} has not said that it did")
        }
        Reason::TimesOut { at } => match *at > model.now {
            true => format!("is ended at its time-out in {}", span(at.since(model.now))),
            false => "its time-out is over: it is about to be ended".to_owned(),
        },
        Reason::Tried {
            no,
            machine,
            outcome,
            took,
            ended,
        } => {
            let took = took.map_or(String::new(), |t| format!(" after {}", span(t)));
            let when = ended
                .as_ref()
                .map_or(String::new(), |t| format!(", {}", ago(t)));
            let how = match outcome {
                // The reason stands in the lines before.
                Outcome::Unknown { .. } => "its outcome is not known".to_owned(),
                outcome => words::outcome(Some(outcome)),
            };
            format!("attempt {no} on {machine}: {how}{took}{when}")
        }
        Reason::TriedBefore { attempts } => format!("{attempts} attempts before these"),
        Reason::Unheard {
            no,
            machine,
            state,
            seen,
        } => format!(
            "nobody has heard how attempt {no} on {machine} ended; {}",
            how_is(model, machine.as_str(), *state, *seen)
        ),
        Reason::Losses { losses: 1 } => "1 attempt was lost".to_owned(),
        Reason::Losses { losses } => format!("{losses} attempts were lost"),
        Reason::Asks { question, since } => {
            format!("asks for {}: {question}", words::age(model.now, *since))
        }
        Reason::Ended { word, reason, at } => {
            let why = reason.as_ref().map_or(String::new(), |r| format!(": {r}"));
            let done = match word {
                StateWord::Expired => "it waited longer than it was worth",
                _ => word.as_str(),
            };
            format!("{done}{why}, {}", ago(at))
        }
        Reason::NoAttemptLeft { made, retries } => match (made, retries) {
            (1, 0) => "it was worth one attempt: fleet retry runs it once more".to_owned(),
            (made, retries) => format!("no attempt is left: {made} made, worth {}", retries + 1),
        },
        // Told by the other half.
        _ => String::new(),
    }
}

fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::Dispatch => "it was dispatched",
        Cause::Backoff => "its next attempt was due",
        Cause::Republish => "its ticket was gone and published again",
        Cause::Retry => "the operator wanted another attempt",
        Cause::Move => "the operator moved it",
        Cause::Resolve => "the operator decided so",
        Cause::Answer => "the operator answered",
    }
}

fn held(model: &Model, longest: Option<&Holder>) -> String {
    let Some(holder) = longest else {
        return String::new();
    };
    let name = model
        .fleet
        .job(holder.job)
        .map_or(String::new(), words::title);
    format!(
        "; {} {name} holds one on {} for longest, {}",
        words::prefix(&model.fleet, holder.job),
        holder.machine,
        words::age(model.now, holder.since)
    )
}

fn how_is(model: &Model, machine: &str, state: Option<MachineState>, seen: Option<Time>) -> String {
    let (Some(state), Some(seen)) = (state, seen) else {
        return format!("{machine} was never heard of");
    };
    let seen = words::ago(model.now, seen);
    match state {
        MachineState::Lost | MachineState::Stale | MachineState::Offline => {
            format!("{machine} is {state}, last heard of {seen}")
        }
        _ => format!("{machine} is {state}, heard of {seen}"),
    }
}

/// The last lines of what a failed job wrote, standard error first, where its output is open.
fn tail(model: &Model, job: &Job) -> Vec<Line<'static>> {
    let Some(Detail::Job(detail)) = &model.detail else {
        return Vec::new();
    };
    let failed = matches!(job.state.word(), StateWord::Failed | StateWord::TimedOut);
    if detail.id != job.id || !failed {
        return Vec::new();
    }
    let log = &detail.log;
    let last = |origin: Origin| -> Vec<String> {
        let back = (log.dropped()..log.len()).rev().take(2000);
        let of = back
            .filter_map(|no| log.line(no))
            .filter(|l| l.origin == origin);
        let texts = of.filter(|l| !l.text.trim().is_empty()).take(TAIL);
        texts.map(|l| l.text.clone()).collect()
    };
    let (name, texts) = match last(Origin::Err) {
        texts if texts.is_empty() => ("the last it wrote", last(Origin::Out)),
        texts => ("the last on standard error", texts),
    };
    if texts.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![said(model, Role::Dim, &format!("{name}:"))];
    lines.extend(
        texts
            .into_iter()
            .rev()
            .map(|text| Line::raw(format!("      {text}"))),
    );
    lines
}

/// Why a machine is as it is, one reason in each line.
pub(super) fn machine(model: &Model, machine: &Machine) -> Vec<Line<'static>> {
    let reasons = projection::why_machine(&model.fleet, machine, model.as_of());
    let words = reasons.iter().map(|reason| words_of_machine(model, reason));
    words
        .map(|words| Line::raw(text::escape(&words).into_owned()))
        .collect()
}

fn words_of_machine(model: &Model, reason: &MachineReason) -> String {
    let ago = |time: &Time| words::ago(model.now, *time);
    match reason {
        MachineReason::Goodbye { at } => format!("it said goodbye {}", ago(at)),
        MachineReason::ConnectionClosed { at } => {
            format!("its connection closed without goodbye {}", ago(at))
        }
        MachineReason::BeatsMissed {
            beats,
            seen,
            interval,
            lost_at,
        } => {
            let missed = match beats {
                1 => "1 beat is missing".to_owned(),
                n => format!("{} beats are missing", text::thousands(*n)),
            };
            format!(
                "{missed}: the last came {}, one is due each {}; {lost_at} make it lost",
                ago(seen),
                span(*interval)
            )
        }
        MachineReason::Cordoned => "it was told to take no more work".to_owned(),
        MachineReason::Draining { running: 0 } => {
            "it drains: nothing runs there any more".to_owned()
        }
        MachineReason::Draining { running } => {
            format!("it drains: takes no more work and waits for {running} that run")
        }
        MachineReason::Holds { jobs: 1 } => {
            "1 dispatch ran there: its outcome is not known until it is back".to_owned()
        }
        MachineReason::Holds { jobs } => {
            format!("{jobs} dispatches ran there: their outcome is not known until it is back")
        }
        MachineReason::Measured(degraded) => format!(
            "{}: {}, since {} ({})",
            degraded.cause.as_str(),
            degraded.value,
            words::clock(degraded.since, &model.zone),
            words::ago(model.now, degraded.since)
        ),
        MachineReason::Contract { theirs } => format!(
            "it speaks contract {theirs}, this console {}",
            fleet_contract::envelope::WIRE_VERSION
        ),
        MachineReason::Well { seen } => format!("nothing is wrong, as it said {}", ago(seen)),
    }
}

/// Why the machine with this name is as it is, with a head.
pub(super) fn of_machine(model: &Model, id: &fleet_contract::ids::MachineId) -> Vec<Line<'static>> {
    let Some(known) = model.fleet.machines().get(id) else {
        return vec![Line::raw("this machine is not known any more")];
    };
    let state = known.state(model.as_of());
    let (glyph, role) = model.look.machine(state);
    let was = if model.is_dated() { "was " } else { "" };
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{glyph} {was}{state}"), model.look.style(role)),
        Span::raw(format!(": {id}")),
    ])];
    for line in machine(model, known) {
        let mut spans = vec![Span::styled(
            format!("  {} ", model.look.dot()),
            model.look.style(Role::Dim),
        )];
        spans.extend(line.spans);
        lines.push(Line::from(spans));
    }
    lines
}
