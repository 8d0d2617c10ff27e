//! Why a job or a machine is as it is, as a chain of typed reasons with what was measured. It says
//! nothing in words: whoever shows the reasons does. Pure, like everything here, and bounded: what
//! is counted up to a bound says so.

use std::time::Duration;

use super::{Fleet, Machine, Rank};
use crate::envelope::WIRE_VERSION;
use crate::ids::{JobId, Lane, MachineId};
use crate::job::{Attempt, Job, JobState, Open};
use crate::machine::{BEATS_LOST, Degraded, MachineState, Service};
use crate::needs::{Facts, Missing, Needs, nearest};
use crate::outcome::Outcome;
use crate::record::{Cause, StateWord};
use crate::spec::{Priority, Target};
use crate::time::Time;

/// Waiting jobs that are looked at to find those before one; beyond it the number is a lower bound.
pub const AHEAD_MAX: usize = 10_000;
/// Ended attempts that are told one by one, the last ones.
pub const ATTEMPTS_TOLD: usize = 5;
/// A job that waits for longer than this while slots are free waits for something else.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// One link of the chain that made a job what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It waits since then, for this cause.
    Waits {
        /// Since when, by the writer's clock.
        since: Time,
        /// Why it was queued last.
        cause: Cause,
    },
    /// It may only run on a machine that nobody has heard of.
    PinUnknown {
        /// That machine.
        machine: MachineId,
    },
    /// It may only run on a machine that takes no work now.
    PinAway {
        /// That machine.
        machine: MachineId,
        /// How it is.
        state: MachineState,
        /// When it was heard of last.
        seen: Time,
    },
    /// It waits in a lane whose requirements are not known here.
    LaneOfItsOwn {
        /// The lane.
        lane: Lane,
    },
    /// It may only run where this is.
    Needs {
        /// Its requirements in canonical form.
        needs: String,
    },
    /// The machine that it is pinned to, or else the one that lacks least, has not what it needs.
    Lacks {
        /// The machine.
        machine: MachineId,
        /// The first thing that it lacks.
        first: Missing,
        /// Whether there are others, which lack as much or more.
        others: bool,
    },
    /// Machines could run it, but their jobs hold what it needs.
    Held {
        /// The first of them.
        machine: MachineId,
        /// What is held.
        held: Missing,
    },
    /// No machine is known at all.
    NoMachine,
    /// None of the machines that are known takes work now.
    NoneTakesWork {
        /// How many are known.
        known: usize,
        /// The best state among them.
        best: MachineState,
    },
    /// All slots of the machines that may take it are taken.
    SlotsTaken {
        /// How many machines may take it; one is named.
        machines: usize,
        /// The machine, if it is only one.
        only: Option<MachineId>,
        /// Their slots.
        slots: u32,
        /// The age of the oldest of these numbers.
        measured: Time,
        /// The job that holds one for longest.
        longest: Option<Holder>,
    },
    /// Slots are free, and it waits nevertheless.
    SlotsFree {
        /// How many.
        free: u32,
        /// On how many machines.
        machines: usize,
        /// The first of them.
        first: MachineId,
        /// Whether it has waited for so long that something else must be the matter.
        overdue: bool,
    },
    /// Others wait before it.
    Ahead {
        /// How many.
        jobs: usize,
        /// Whether there may be more.
        or_more: bool,
    },
    /// It expires then, unless it starts.
    Expires {
        /// When.
        at: Time,
    },
    /// Its next attempt is due then.
    Pause {
        /// When.
        until: Time,
    },
    /// An attempt runs.
    Runs {
        /// Its machine.
        machine: MachineId,
        /// Its number.
        no: u32,
        /// When it was claimed, by the machine's clock.
        since: Time,
        /// How its machine is; none where nobody has heard of it.
        state: Option<MachineState>,
        /// When its machine was heard of last.
        seen: Option<Time>,
    },
    /// The operator wants it ended, and its machine has not done so yet.
    CancelWaits {
        /// The machine.
        machine: MachineId,
    },
    /// It runs no longer than so.
    TimesOut {
        /// When.
        at: Time,
    },
    /// An attempt ended.
    Tried {
        /// Its number.
        no: u32,
        /// Its machine.
        machine: MachineId,
        /// How it ended.
        outcome: Outcome,
        /// How long it ran, where that is known.
        took: Option<Duration>,
        /// When it ended.
        ended: Option<Time>,
    },
    /// Attempts before those that are told.
    TriedBefore {
        /// How many.
        attempts: usize,
    },
    /// An attempt of which nobody has heard an end.
    Unheard {
        /// Its number.
        no: u32,
        /// Its machine.
        machine: MachineId,
        /// How that machine is now.
        state: Option<MachineState>,
        /// When it was heard of last.
        seen: Option<Time>,
    },
    /// Attempts were lost.
    Losses {
        /// How many.
        losses: u32,
    },
    /// A person has to decide.
    Asks {
        /// What.
        question: String,
        /// Since when.
        since: Time,
    },
    /// It ended so.
    Ended {
        /// How.
        word: StateWord,
        /// Why, where the state says so.
        reason: Option<String>,
        /// When.
        at: Time,
    },
    /// No attempt is left.
    NoAttemptLeft {
        /// Attempts that were made.
        made: usize,
        /// Attempts after the first one that it was worth.
        retries: u32,
    },
}

/// A job that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// It.
    pub job: JobId,
    /// Where.
    pub machine: MachineId,
    /// Since when.
    pub since: Time,
}

/// One link of the chain that made a machine what it is.
#[derive(Debug, Clone, PartialEq)]
pub enum MachineReason {
    /// It said goodbye then.
    Goodbye {
        /// When.
        at: Time,
    },
    /// Its connection closed without goodbye.
    ConnectionClosed {
        /// When the hub saw it.
        at: Time,
    },
    /// Beats are missing.
    BeatsMissed {
        /// How many are overdue.
        beats: u64,
        /// The last one.
        seen: Time,
        /// How often they are due.
        interval: Duration,
        /// How many make it lost.
        lost_at: u32,
    },
    /// It was told to take no more work.
    Cordoned,
    /// It was told to take no more work, and waits for what runs.
    Draining {
        /// How many jobs that is.
        running: usize,
    },
    /// It measured something.
    Measured(Degraded),
    /// It speaks another version of the contract.
    Contract {
        /// Its version.
        theirs: u32,
    },
    /// Jobs run there whose outcome nobody will know until it is back.
    Holds {
        /// How many.
        jobs: usize,
    },
    /// Nothing is wrong.
    Well {
        /// The last beat.
        seen: Time,
    },
}

/// Why a job stands where it stands at `now`: the state first, then what is behind it.
#[must_use]
pub fn why(fleet: &Fleet, job: &Job, now: Time) -> Vec<Reason> {
    let mut chain = Vec::new();
    match &job.state {
        JobState::Queued { .. } => queued(fleet, job, now, &mut chain),
        JobState::Running {
            open,
            cancel_requested,
        } => running(fleet, job, (open, *cancel_requested), now, &mut chain),
        JobState::Backoff { until } => chain.push(Reason::Pause { until: *until }),
        JobState::NeedsHuman { question, open } => {
            chain.push(Reason::Asks {
                question: question.clone(),
                since: job.changed_at,
            });
            if let Some(open) = open {
                let no = job.attempt().map_or(0, |a| a.no);
                chain.push(unheard(fleet, no, &open.machine, now));
            }
        }
        state => chain.push(Reason::Ended {
            word: state.word(),
            reason: reason_of(state),
            at: job.changed_at,
        }),
    }
    if let (JobState::Lost { .. }, Some(last)) = (&job.state, job.attempt()) {
        chain.push(unheard(fleet, last.no, &last.machine, now));
    }
    if let (JobState::Failed { .. } | JobState::TimedOut, true) =
        (&job.state, !job.attempts.is_empty())
    {
        chain.push(Reason::NoAttemptLeft {
            made: job.attempts.len(),
            retries: job.spec.retries,
        });
    }
    if job.losses > 0 {
        chain.push(Reason::Losses { losses: job.losses });
    }
    tried(job, &mut chain);
    chain
}

fn unheard(fleet: &Fleet, no: u32, id: &MachineId, now: Time) -> Reason {
    let machine = fleet.machines().get(id);
    Reason::Unheard {
        no,
        machine: id.clone(),
        state: machine.map(|m| m.state(now)),
        seen: machine.map(|m| m.seen),
    }
}

fn reason_of(state: &JobState) -> Option<String> {
    match state {
        JobState::Failed {
            reason: Some(reason),
            ..
        }
        | JobState::Lost { reason }
        | JobState::Rejected { reason } => Some(reason.clone()),
        _ => None,
    }
}

/// The attempts that ended, the last one first.
fn tried(job: &Job, chain: &mut Vec<Reason>) {
    let ended = |a: &&Attempt| a.outcome.is_some();
    for attempt in job.attempts.iter().rev().filter(ended).take(ATTEMPTS_TOLD) {
        let Some(outcome) = attempt.outcome.clone() else {
            continue;
        };
        chain.push(Reason::Tried {
            no: attempt.no,
            machine: attempt.machine.clone(),
            outcome,
            took: attempt
                .started_at
                .zip(attempt.ended_at)
                .map(|(from, to)| to.since(from)),
            ended: attempt.ended_at,
        });
    }
    let before = job.attempts.iter().filter(ended).count();
    if before > ATTEMPTS_TOLD {
        chain.push(Reason::TriedBefore {
            attempts: before - ATTEMPTS_TOLD,
        });
    }
}

fn running(
    fleet: &Fleet,
    job: &Job,
    (open, cancel): (&Open, bool),
    now: Time,
    chain: &mut Vec<Reason>,
) {
    let machine = fleet.machines().get(&open.machine);
    let attempt = job.attempt();
    let since = attempt.map_or(job.changed_at, |a| a.claimed_at);
    chain.push(Reason::Runs {
        machine: open.machine.clone(),
        no: attempt.map_or(1, |a| a.no),
        since,
        state: machine.map(|m| m.state(now)),
        seen: machine.map(|m| m.seen),
    });
    if cancel {
        chain.push(Reason::CancelWaits {
            machine: open.machine.clone(),
        });
    }
    if let Some(ms) = job.spec.timeout_ms {
        chain.push(Reason::TimesOut {
            at: since.plus(Duration::from_millis(ms)),
        });
    }
}

fn queued(fleet: &Fleet, job: &Job, now: Time, chain: &mut Vec<Reason>) {
    chain.push(Reason::Waits {
        since: job.changed_at,
        cause: job.cause,
    });
    let may = match &job.target {
        Target::Pin(machine) => pinned(fleet, job, machine, now, chain),
        Target::Lane(lane) => in_lane(fleet, job, lane, now, chain),
    };
    if !may.is_empty() {
        slots(fleet, job, &may, now, chain);
    }
    ahead(fleet, job, chain);
    chain.push(Reason::Expires {
        at: job.expires_at(),
    });
}

fn facts(machine: &Machine) -> Facts<'_> {
    Facts::of(&machine.presence, machine.seen)
}

/// The machine that it is pinned to, if it takes work and has what is needed.
fn pinned<'a>(
    fleet: &'a Fleet,
    job: &Job,
    id: &MachineId,
    now: Time,
    chain: &mut Vec<Reason>,
) -> Vec<&'a Machine> {
    let machine = id.clone();
    let Some(known) = fleet.machines().get(id) else {
        chain.push(Reason::PinUnknown { machine });
        return Vec::new();
    };
    let state = known.state(now);
    if !state.takes_work() {
        let seen = known.seen;
        chain.push(Reason::PinAway {
            machine,
            state,
            seen,
        });
        return Vec::new();
    }
    let needs = job.spec.needs().unwrap_or_default();
    if let Some(first) = needs.missing(&facts(known)).next() {
        chain.push(Reason::Lacks {
            machine,
            first,
            others: false,
        });
        return Vec::new();
    }
    with_room(vec![known], &needs, chain)
}

/// The machines that pull from its lane.
fn in_lane<'a>(
    fleet: &'a Fleet,
    job: &Job,
    lane: &Lane,
    now: Time,
    chain: &mut Vec<Reason>,
) -> Vec<&'a Machine> {
    // A later fleet's words cannot be compared with anything.
    let needs = job.spec.needs().ok().filter(|needs| needs.lane() == *lane);
    if needs.is_none() {
        chain.push(Reason::LaneOfItsOwn { lane: lane.clone() });
    }
    let needs = needs.unwrap_or_default();
    if !needs.is_empty() {
        let needs = needs.to_string();
        chain.push(Reason::Needs { needs });
    }
    let all = fleet.machines();
    let fit: Vec<&Machine> = all.values().filter(|m| needs.fit(&facts(m))).collect();
    let near = || {
        let all = all.iter().map(|(id, m)| (id.clone(), facts(m)));
        nearest(&needs, all, 1).into_iter().next()
    };
    if fit.is_empty()
        && let Some(near) = near()
    {
        chain.push(Reason::Lacks {
            machine: near.machine,
            first: near.first,
            others: all.len() > 1,
        });
        return fit;
    }
    let (may, away): (Vec<&Machine>, Vec<&Machine>) =
        fit.into_iter().partition(|m| m.state(now).takes_work());
    if may.is_empty() {
        chain.push(nobody(&away, now));
    }
    with_room(may, &needs, chain)
}

/// Those whose jobs do not hold what is needed.
fn with_room<'a>(
    may: Vec<&'a Machine>,
    needs: &Needs,
    chain: &mut Vec<Reason>,
) -> Vec<&'a Machine> {
    let held = |m: &&Machine| needs.held(&facts(m));
    let room: Vec<&Machine> = may.iter().copied().filter(|m| held(m).is_none()).collect();
    if room.is_empty()
        && let Some((machine, held)) = may.first().and_then(|m| Some((m, held(m)?)))
    {
        chain.push(Reason::Held {
            machine: machine.presence.machine.clone(),
            held,
        });
    }
    room
}

fn nobody(machines: &[&Machine], now: Time) -> Reason {
    let states = machines.iter().map(|m| m.state(now));
    // The order of the states is worst first but for offline, which nothing can be done about here.
    let best = states.max_by_key(|s| (*s != MachineState::Offline, *s));
    match best {
        None => Reason::NoMachine,
        Some(best) => Reason::NoneTakesWork {
            known: machines.len(),
            best,
        },
    }
}

fn slots(fleet: &Fleet, job: &Job, may: &[&Machine], now: Time, chain: &mut Vec<Reason>) {
    let free_of = |m: &&Machine| {
        let load = &m.presence.load;
        load.slots.saturating_sub(load.slots_used)
    };
    let free: u32 = may
        .iter()
        .map(free_of)
        .fold(0, |all, n| all.saturating_add(n));
    let first = may.iter().find(|m| free_of(m) > 0);
    if let Some(first) = first {
        chain.push(Reason::SlotsFree {
            free,
            machines: may.iter().filter(|m| free_of(m) > 0).count(),
            first: first.presence.machine.clone(),
            overdue: now.since(job.changed_at) > TAKEN_WITHIN,
        });
        return;
    }
    let among = |id: &MachineId| may.iter().any(|m| m.presence.machine == *id);
    // The order is longest first, so that the first one is the answer.
    let longest = fleet.rank(Rank::Running).find_map(|(_, _, id)| {
        let job = fleet.jobs.get(id)?;
        let open = job.state.open().filter(|open| among(&open.machine))?;
        Some(Holder {
            job: *id,
            machine: open.machine.clone(),
            since: job.changed_at,
        })
    });
    chain.push(Reason::SlotsTaken {
        machines: may.len(),
        only: match may {
            [only] => Some(only.presence.machine.clone()),
            _ => None,
        },
        slots: may
            .iter()
            .map(|m| m.presence.load.slots)
            .fold(0, |all, n| all.saturating_add(n)),
        measured: may.iter().map(|m| m.seen).min().unwrap_or(now),
        longest,
    });
}

fn urgency(priority: Priority) -> usize {
    Priority::ALL
        .iter()
        .position(|p| *p == priority)
        .unwrap_or(0)
}

/// Those in the same queue that are asked first: more urgent ones, and older ones as urgent.
fn ahead(fleet: &Fleet, job: &Job, chain: &mut Vec<Reason>) {
    let here = (urgency(job.spec.priority), job.changed_at, job.id);
    let mut looked = 0;
    let jobs = fleet
        .rank(Rank::Queued)
        .take(AHEAD_MAX)
        .inspect(|_| looked += 1)
        .filter_map(|(_, _, id)| fleet.jobs.get(id))
        .filter(|other| {
            other.target == job.target
                && (urgency(other.spec.priority), other.changed_at, other.id) < here
        })
        .count();
    if jobs > 0 {
        chain.push(Reason::Ahead {
            jobs,
            or_more: looked == AHEAD_MAX,
        });
    }
}

/// Why a machine is as it is at `now`: its state first, then what it measured.
#[must_use]
pub fn why_machine(fleet: &Fleet, machine: &Machine, now: Time) -> Vec<MachineReason> {
    let presence = &machine.presence;
    let running = || fleet.running_on(&presence.machine).count();
    let state = machine.state(now);
    let mut chain = Vec::new();
    match (state, presence.service) {
        (MachineState::Offline, _) => chain.push(MachineReason::Goodbye { at: machine.seen }),
        (_, Service::Lost) => chain.push(MachineReason::ConnectionClosed {
            at: presence.lost_at.unwrap_or(machine.seen),
        }),
        (MachineState::Lost | MachineState::Stale, _) => {
            let interval = Duration::from_millis(presence.interval_ms.clamp(100, 600_000));
            let age = now.since(machine.seen).as_millis();
            let beats = age / interval.as_millis().max(1);
            chain.push(MachineReason::BeatsMissed {
                beats: u64::try_from(beats).unwrap_or(u64::MAX),
                seen: machine.seen,
                interval,
                lost_at: BEATS_LOST,
            });
        }
        _ => {}
    }
    match presence.service {
        Service::Cordoned => chain.push(MachineReason::Cordoned),
        Service::Draining => chain.push(MachineReason::Draining { running: running() }),
        Service::Up | Service::Offline | Service::Lost => {}
    }
    if matches!(
        state,
        MachineState::Lost | MachineState::Stale | MachineState::Offline
    ) && running() > 0
    {
        chain.push(MachineReason::Holds { jobs: running() });
    }
    chain.extend(
        presence
            .degraded
            .iter()
            .cloned()
            .map(MachineReason::Measured),
    );
    if presence.contract != WIRE_VERSION {
        chain.push(MachineReason::Contract {
            theirs: presence.contract,
        });
    }
    if chain.is_empty() {
        chain.push(MachineReason::Well { seen: machine.seen });
    }
    chain
}
