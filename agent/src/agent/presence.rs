//! The heartbeat: what this machine is, how busy, and what degrades it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::kind;
use fleet_contract::machine::{Cause, Degraded, Measured, Presence, Service, Specs, causes};
use fleet_contract::projection::{LOAD_STEP, LoadTold};
use fleet_contract::time::Time;
use fleet_nats::bus::BusError;
use fleet_nats::clock;
use fleet_nats::connect::LinkState;
use fleet_nats::flow::NewEvent;
use serde_json::json;
use tokio::time::Instant;

use super::context::{Context, Waits};
use super::events::SpoolState;
use super::status::{self, AgentStatus, SpoolStatus};
use super::{AgentOptions, specs};
use crate::executor::ClientError;

/// Round trips remembered for their percentiles.
const ROUND_TRIPS: usize = 64;
/// An executor that has not answered for so long does not answer.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Beats that are asked for come at most this often.
const SOONEST: Duration = Duration::from_millis(250);
/// One beat in so many also measures the clock against the hub's.
const CLOCK_EVERY: u64 = 12;
/// Bytes that must be free for the output of jobs.
const SPOOL_BOUND: u64 = 256 * 1024 * 1024;

/// What a beat is made of, beside what is measured each time.
pub(super) struct Pulse {
    host: String,
    specs: Specs,
    slots: u32,
    interval: Duration,
    /// Bytes of output that may be kept.
    keep: u64,
    started_at: Time,
    binary: Option<(PathBuf, SystemTime)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    round_trips: VecDeque<Duration>,
    clock_offset_ms: Option<i64>,
    backlog: Backlog,
    executor_gone_since: Option<Instant>,
    /// Since when the executor has been asked for a sign, while it has not answered.
    executor_asked: Option<Instant>,
    degraded: Vec<Degraded>,
    beats: u64,
}

impl Pulse {
    pub(super) fn new(options: &AgentOptions) -> Self {
        let binary = std::env::current_exe().ok().and_then(|path| {
            let modified = std::fs::metadata(&path).and_then(|m| m.modified()).ok()?;
            Some((path, modified))
        });
        Self {
            host: specs::host(),
            specs: specs::specs(&options.version),
            slots: options.slots,
            interval: options.heartbeat,
            keep: options.keep.bytes,
            started_at: clock::now(),
            binary,
            state: Mutex::default(),
        }
    }

    pub(super) fn specs(&self) -> &Specs {
        &self.specs
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The presence to send now.
    fn presence(&self, context: &Context, service: Service) -> Presence {
        let mut load = specs::load(context.home.root());
        load.slots = self.slots;
        load.slots_used = u32::try_from(context.routes.count())
            .unwrap_or(u32::MAX)
            .min(self.slots);
        let spool = context.events.state();
        let output = context.output.waiting();
        load.spooled = waiting(context, &spool);
        load.spooled_bytes = spool.waiting.bytes + output.bytes;
        load.spooled_since = oldest(&spool, &output);
        load.dropped_log_bytes = context.kept.dropped();
        let degraded = {
            let mut state = self.state();
            let (median, p99) = percentiles(&state.round_trips);
            load.rtt_ms = median.map(millis);
            load.rtt_p99_ms = p99.map(millis);
            let mut measured = self.measured(context, &mut state, &load, p99);
            measured.dropped_events = spool.trouble.map_or(0, |trouble| trouble.events);
            let since = clock::now();
            let mut found = causes(&measured);
            found.extend(
                context
                    .capacity
                    .failing(since)
                    .map(|why| (Cause::Probe, why)),
            );
            let next = with_since(found, &state.degraded, since);
            state.degraded.clone_from(&next);
            next
        };
        let info = context.link.client().try_server_info();
        let probed = context.capacity.probed();
        Presence {
            machine: context.me.clone(),
            instance: context.instance,
            boot: context.boot.clone(),
            host: self.host.clone(),
            address: info
                .as_ref()
                .map(|i| i.client_ip.clone())
                .unwrap_or_default(),
            connection: info.map_or(0, |i| i.client_id),
            service,
            interval_ms: u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
            contract: WIRE_VERSION,
            specs: self.specs.clone(),
            load,
            labels: context.capacity.labels().clone(),
            skills: probed.working(),
            models: probed.models.iter().map(|m| m.name.clone()).collect(),
            probed,
            degraded,
            lost_at: None,
        }
    }

    fn measured(
        &self,
        context: &Context,
        state: &mut State,
        load: &fleet_contract::machine::Load,
        rtt_p99: Option<Duration>,
    ) -> Measured {
        let now = Instant::now();
        let spool_waiting = state.backlog.waits(now, &so_far(context));
        let executor = context.executor.borrow().is_some();
        if executor {
            state.executor_gone_since = None;
        }
        let gone = (!executor).then(|| *state.executor_gone_since.get_or_insert(now));
        let silent = state.executor_asked.filter(|at| now - *at >= SILENT_AFTER);
        Measured {
            clock_offset_ms: state.clock_offset_ms,
            disk_free: load.disk_free,
            disk_total: load.disk_total,
            // What is kept is on the disk already.
            spool_bound: SPOOL_BOUND
                .min(self.keep)
                .saturating_sub(context.kept.bytes()),
            spool_waiting,
            rtt_p99,
            mem_free: load.mem_free,
            mem_total: self.specs.mem_total,
            dropped_log_bytes: load.dropped_log_bytes,
            dropped_events: 0,
            binary_replaced: self.binary_replaced(),
            executor_silent: gone.or(silent).map(|since| now - since),
        }
    }

    fn binary_replaced(&self) -> bool {
        let Some((path, then)) = &self.binary else {
            return false;
        };
        // A file that is gone was replaced by name under a package manager, or will be.
        std::fs::metadata(path)
            .and_then(|m| m.modified())
            .is_ok_and(|now| now > *then)
    }
}

/// How many of each kind were made so far, and how many of them the hub has: events, chunks of
/// output, results.
type SoFar = [(u64, u64); 3];

fn so_far(context: &Context) -> SoFar {
    let progress = *context.events.progress().borrow();
    let made = |done: u64, waiting: u64| (done.saturating_add(waiting), done);
    [
        (progress.synced, progress.delivered),
        made(context.output.done(), context.chunks_waiting()),
        made(context.results.done(), context.results.waiting()),
    ]
}

/// How long something has waited for the hub. What keeps coming and going does not count: only that
/// what was there at one look is not all delivered yet.
#[derive(Debug, Default)]
struct Backlog {
    since: Option<(Instant, SoFar)>,
}

impl Backlog {
    fn waits(&mut self, now: Instant, so_far: &SoFar) -> Duration {
        let waits = |then: &SoFar| {
            let pairs = then.iter().zip(so_far);
            pairs.into_iter().any(|((made, _), (_, done))| done < made)
        };
        match &self.since {
            Some((since, then)) if waits(then) => now - *since,
            _ => {
                self.since = waits(so_far).then_some((now, *so_far));
                Duration::ZERO
            }
        }
    }
}

/// Everything that waits for the hub.
fn waiting(context: &Context, spool: &SpoolState) -> u64 {
    spool.waiting.events + context.chunks_waiting() + context.results.waiting()
}

/// Since when the oldest of it waits.
fn oldest(spool: &SpoolState, output: &Waits) -> Option<Time> {
    match (spool.waiting.oldest, output.oldest) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Causes with the time since when each has held.
fn with_since(found: Vec<(Cause, String)>, before: &[Degraded], now: Time) -> Vec<Degraded> {
    found
        .into_iter()
        .map(|(cause, value)| {
            let since = before
                .iter()
                .find(|d| d.cause == cause)
                .map_or(now, |d| d.since);
            Degraded {
                cause,
                value,
                since,
            }
        })
        .collect()
}

fn percentiles(round_trips: &VecDeque<Duration>) -> (Option<Duration>, Option<Duration>) {
    let mut sorted: Vec<Duration> = round_trips.iter().copied().collect();
    sorted.sort();
    let at = |share: usize| {
        sorted
            .get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)))
            .copied()
    };
    (at(50), at(99))
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// What the next beat would say, for whoever asks now.
pub(super) async fn now(context: &Context) -> Presence {
    let pulse = context.pulse.clone();
    pulse.presence(context, context.service())
}

/// Beats for ever, until the context is dropped.
pub(super) async fn beat(context: Arc<Context>) {
    let pulse = context.pulse.clone();
    let mut told_degraded: Vec<Cause> = Vec::new();
    let mut told_load = None;
    // Nothing is said in the machine's name before its lease is held.
    until_held(&context, &pulse).await;
    let detail =
        json!({ "version": pulse.specs.version, "host": pulse.host, "slots": pulse.slots });
    let up = NewEvent::of_machine(kind::MACHINE_UP, &context.me, detail);
    context.events.tell(up);
    loop {
        until_connected(&context, &pulse, &mut told_degraded).await;
        let presence = pulse.presence(&context, context.service());
        tell_degraded(&context, &presence.degraded, &mut told_degraded);
        tell_load(&context, &presence, &mut told_load);
        super::listen::tell_untold(&context);
        ask_executor(&context, &pulse);
        let sent = context.bus.beat(&presence, None).await;
        if sent.is_ok() {
            measure(&context, &pulse).await;
        }
        write_status(&context, &pulse);
        let due = if sent.is_ok() {
            pulse.interval
        } else {
            pulse.interval.min(Duration::from_secs(1))
        };
        tokio::select! {
            () = tokio::time::sleep(due) => {}
            () = context.beat_soon.notified() => tokio::time::sleep(SOONEST).await,
            () = link_changed(&context) => write_status(&context, &pulse),
        }
    }
}

/// Asks the executor for a sign beside everything else, unless it is being asked: one that is
/// stopped keeps its connection.
fn ask_executor(context: &Arc<Context>, pulse: &Arc<Pulse>) {
    let Some(client) = context.executor.borrow().clone() else {
        return;
    };
    let asked = Instant::now();
    if pulse.state().executor_asked.is_some() {
        return;
    }
    pulse.state().executor_asked = Some(asked);
    let (context, pulse) = (context.clone(), pulse.clone());
    tokio::spawn(async move {
        // Where the connection is over, that is told in another way.
        while matches!(client.answers().await, Err(ClientError::NoAnswer)) {}
        pulse.state().executor_asked = None;
        if asked.elapsed() >= SILENT_AFTER {
            context.beat_soon.notify_one();
        }
    });
}

/// Waits until the lease is held, and keeps saying on this machine how its link is meanwhile.
async fn until_held(context: &Context, pulse: &Pulse) {
    let mut lease = context.lease.subscribe();
    let mut status = context.link.status();
    loop {
        write_status(context, pulse);
        if lease.borrow_and_update().term != 0 {
            return;
        }
        let changed = tokio::select! {
            changed = lease.changed() => changed,
            changed = status.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the link is up, and keeps saying on this machine how it is meanwhile.
async fn until_connected(context: &Context, pulse: &Pulse, told: &mut Vec<Cause>) {
    let mut status = context.link.status();
    write_status(context, pulse);
    while status.borrow_and_update().state != LinkState::Connected {
        match tokio::time::timeout(pulse.interval, status.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => std::future::pending::<()>().await,
            // What is wrong without a hub is told to it later.
            Err(_) => {
                let presence = pulse.presence(context, context.service());
                tell_degraded(context, &presence.degraded, told);
            }
        }
        // Where it is up, before anybody can see the beat that follows.
        write_status(context, pulse);
    }
}

async fn link_changed(context: &Context) {
    let mut status = context.link.status();
    let before = status.borrow_and_update().state;
    let _ = status.wait_for(|s| s.state != before).await;
}

fn tell_degraded(context: &Context, degraded: &[Degraded], told: &mut Vec<Cause>) {
    let causes: Vec<Cause> = degraded.iter().map(|d| d.cause).collect();
    if causes == *told {
        return;
    }
    let kind = if causes.is_empty() {
        kind::MACHINE_RECOVERED
    } else {
        kind::MACHINE_DEGRADED
    };
    context.events.tell(NewEvent::of_machine(
        kind,
        &context.me,
        json!({ "degraded": degraded }),
    ));
    *told = causes;
}

/// Tells a sample of the load, where it is another than the last.
fn tell_load(context: &Context, presence: &Presence, told: &mut Option<(Instant, LoadTold)>) {
    let load = LoadTold::of(presence);
    let is_news = told.is_none_or(|(at, last)| {
        // A beat may be a little early.
        at.elapsed() + SOONEST >= LOAD_STEP && load.is_other_than(&last)
    });
    if is_news && let Ok(detail) = serde_json::to_value(load) {
        let sample = NewEvent::of_machine(kind::MACHINE_LOAD, &context.me, detail);
        context.events.tell(sample);
        *told = Some((Instant::now(), load));
    }
}

/// Measures the round trip, and now and then the clock against the hub's.
async fn measure(context: &Context, pulse: &Pulse) {
    let start = Instant::now();
    // A flush of the client ends at its own socket; only an answer has been there and back.
    let asked = context
        .bus
        .api::<serde_json::Value>("INFO", bytes::Bytes::new());
    if asked.await.is_err() {
        return;
    }
    let round_trip = start.elapsed();
    let beats = {
        let mut state = pulse.state();
        if state.round_trips.len() == ROUND_TRIPS {
            state.round_trips.pop_front();
        }
        state.round_trips.push_back(round_trip);
        state.beats += 1;
        state.beats
    };
    if beats % CLOCK_EVERY != 1 {
        return;
    }
    if let Ok(Some(offset)) = context.bus.clock_offset_ms(&context.me).await {
        pulse.state().clock_offset_ms = Some(offset);
    }
}

fn write_status(context: &Context, pulse: &Pulse) {
    let link = context.link.status().borrow().clone();
    context.events.nudge();
    let spool = context.events.state();
    let output = context.output.waiting();
    status::write(
        &context.home,
        &AgentStatus {
            pid: std::process::id(),
            machine: context.me.clone(),
            instance: context.instance,
            started_at: pulse.started_at,
            written_at: clock::now(),
            connected: link.state == LinkState::Connected,
            last_error: link.last_error,
            lease: context.lease.borrow().is_valid(),
            slots: pulse.slots,
            slots_used: u32::try_from(context.routes.count())
                .unwrap_or(u32::MAX)
                .min(pulse.slots),
            spooled: waiting(context, &spool),
            spool: SpoolStatus {
                events: spool.waiting.events,
                bytes: spool.waiting.bytes,
                oldest: spool.waiting.oldest,
                chunks: output.chunks,
                chunk_bytes: output.bytes,
                oldest_chunk: output.oldest,
                results: context.results.waiting(),
                kept_bytes: context.kept.bytes(),
                keep_bytes: pulse.keep,
                dropped_events: spool.dropped,
                dropped_log_bytes: context.kept.dropped(),
                trouble: spool.trouble.map(|trouble| trouble.reason),
            },
            executor_pid: context
                .executor
                .borrow()
                .as_ref()
                .map(crate::executor::ExecutorClient::pid),
        },
    );
}

/// Says goodbye.
///
/// # Errors
/// What the bus says.
pub(super) async fn goodbye(context: &Context) -> Result<(), BusError> {
    let presence = context.pulse.presence(context, Service::Offline);
    context.bus.beat(&presence, None).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_waits_from_the_first_look_until_what_was_there_is_delivered() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut backlog = Backlog::default();
        let mut look = |seconds, events: (u64, u64), chunks: (u64, u64)| {
            let waits = backlog.waits(at(seconds), &[events, chunks, (0, 0)]);
            waits.as_secs()
        };
        assert_eq!(look(0, (5, 5), (0, 0)), 0);
        // One that comes and goes is on its way at every look.
        assert_eq!(look(5, (6, 5), (0, 0)), 0);
        assert_eq!(look(10, (7, 6), (0, 0)), 0);
        assert_eq!(look(15, (9, 7), (0, 0)), 0);
        // Nothing moves.
        assert_eq!(look(20, (9, 7), (0, 0)), 5);
        assert_eq!(look(25, (9, 8), (3, 0)), 10);
        assert_eq!(look(30, (9, 9), (3, 0)), 0);
        assert_eq!(look(41, (9, 9), (3, 2)), 11);
        assert_eq!(look(42, (9, 9), (3, 3)), 0);
        assert_eq!(look(99, (9, 9), (3, 3)), 0);
    }
}
