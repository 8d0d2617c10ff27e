//! Starts an agent's parts in order and stops them in order.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::attempt::Attempt;
use fleet_contract::event::kind;
use fleet_contract::ids::InstanceId;
use fleet_contract::job::{token_epoch, token_seq};
use fleet_nats::bus::Bus;
use fleet_nats::clock;
use fleet_nats::connect::{ConnectOptions, connect_for_ever};
use fleet_nats::flow::NewEvent;
use fleet_nats::home::Home;
use fleet_nats::stat::Counters;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::capacity::{Capacity, Slot};
use super::context::{Context, Held, Kept, Outgoing, Tally};
use super::driver::Driver;
use super::epoch::{self, Seen};
use super::events::EventSink;
use super::presence::{self, Pulse};
use super::puller::{self, Offer};
use super::routes::{Announced, Routes};
use super::{AgentError, AgentOptions, Stop, deliver, lanes, lease, listen, probes, recall, stats};
use crate::executor::{self, ExecutorClient, KillCause};

/// How long all of starting the executor may take.
const EXECUTOR_WITHIN: Duration = Duration::from_secs(15);
/// How long a stopping agent waits for the results of its ended jobs to reach the hub.
const RESULTS_WITHIN: Duration = Duration::from_secs(10);
/// How long a stopping agent waits for its goodbye to be confirmed.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// Time for the processes of ended jobs to be gone, beyond the executor's own grace.
const ENDING_MARGIN: Duration = Duration::from_secs(10);
/// How often, and at what pauses, a lock that somebody has is tried again.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Offers that wait to become attempts.
const OFFERS: usize = 16;

/// Runs an agent until it is told to stop.
///
/// # Errors
/// See [`AgentError`]. A hub that is away is none: the agent waits for it for ever.
pub async fn run(options: AgentOptions, mut stop: watch::Receiver<Stop>) -> Result<(), AgentError> {
    let _lock = lock(&options.home)?;
    let instance = instance(&options.home)?;
    let mut executor_options = executor::ConnectOptions {
        home: options.home.root().to_owned(),
        command: options.executor.clone(),
        base_env: None,
        keep: Some(options.keep),
        limit: EXECUTOR_WITHIN,
    };
    let (world, connected) = tokio::join!(
        crate::world::capture_login_env(&options.login_env),
        ExecutorClient::connect_or_start(executor_options.clone()),
    );
    let (executor, executor_events) = connected?;
    tracing::debug!(source = ?world.source, "the world of jobs");
    executor.set_base_env(world.env.clone()).await?;
    let base = world.env.clone();
    executor_options.base_env = Some(world.env);
    let link = connect_for_ever(&ConnectOptions {
        urls: options.urls.clone(),
        ..ConnectOptions::new(
            format!("fleet agent {}", options.machine),
            options.credentials.clone(),
        )
    })
    .await?;
    let boot = clock::message_id().to_string();
    let spool = options.home.spool_events();
    let events = EventSink::start(spool, options.machine.clone(), boot.clone())?;
    let pulse = Arc::new(Pulse::new(&options));
    let capacity = Capacity::new(pulse.specs().clone(), options.labels.clone());
    let (ask_probes, asked) = mpsc::channel(probes::ASKS);
    let counters = Arc::new(Counters::default());
    let context = Arc::new(Context {
        me: options.machine.clone(),
        instance,
        boot,
        home: options.home.clone(),
        env: options.env.clone(),
        bus: Bus::new(&link).counting(counters.clone()),
        link,
        routes: Routes::default(),
        events,
        lease: watch::Sender::new(Held::default()),
        hub: watch::Sender::new(None),
        seen: Seen::load(&options.home),
        executor: watch::Sender::new(Some(executor.clone())),
        open: watch::Sender::new(true),
        stop: watch::Sender::new(Stop::No),
        output: Outgoing::default(),
        results: Tally::default(),
        kept: Kept::default(),
        capacity: Arc::new(capacity),
        lanes: watch::Sender::new(lanes::first()),
        lanes_stale: Notify::new(),
        ask_probes,
        beat_soon: Notify::new(),
        pulse,
        malformed: std::sync::Mutex::default(),
    });

    let slots = Arc::new(Semaphore::new(usize::try_from(options.slots).unwrap_or(1)));
    let mut attempts = adopt(&context, &executor, &slots).await?;
    let (offers, mut taken) = mpsc::channel::<Offer>(OFFERS);
    let mut parts = JoinSet::new();
    parts.spawn(deliver::run(context.clone()));
    parts.spawn(listen::executor(
        context.clone(),
        executor_options,
        executor_events,
    ));
    parts.spawn(listen::commands(context.clone()));
    parts.spawn(listen::link(context.clone()));
    parts.spawn(stats::tell(context.clone(), counters.clone()));
    parts.spawn(epoch::watch(context.clone()));
    parts.spawn(lease::fences(context.clone()));
    parts.spawn(lanes::watch(context.clone()));
    parts.spawn(recall::run(context.clone()));
    let tools = probes::world(base, &context);
    parts.spawn(probes::run(context.clone(), tools, options.probe, asked));
    parts.spawn(puller::run(context.clone(), slots.clone(), offers));
    let mut beat = tokio::spawn(presence::beat(context.clone()));
    let mut lease_part = tokio::spawn(lease::run(context.clone(), context.pulse.host().to_owned()));

    let mut hopeless = std::pin::pin!(hopeless(&context));
    let outcome = loop {
        tokio::select! {
            Some(offer) = taken.recv() => {
                counters.ticket();
                attempts.extend(take(&context, offer).await);
            }
            ended = &mut lease_part => break ended.unwrap_or(Err(AgentError::Broken("its lease"))),
            error = &mut hopeless => break Err(error),
            Some(_) = parts.join_next() => break Err(AgentError::Broken("one of its parts")),
            _ = &mut beat => break Err(AgentError::Broken("its heartbeat")),
            () = reached(&mut stop, Stop::Gracefully) => break Ok(()),
        }
        attempts.retain(|attempt: &JoinHandle<()>| !attempt.is_finished());
    };
    context.open.send_replace(false);
    while let Ok(offer) = taken.try_recv() {
        // It comes back by itself where this does not arrive.
        let _ = context.bus.give_back(&offer.delivered).await;
    }
    if outcome.is_ok() {
        context.stop.send_replace(Stop::Gracefully);
        context.beat_soon.notify_one();
        wind_down(&context, &options, &mut stop, attempts).await;
    }
    // A beat or a renewal after the goodbye would take it back.
    end(beat).await;
    end(lease_part).await;
    if outcome.is_ok() {
        say_goodbye(&context).await;
    }
    parts.shutdown().await;
    let client = context.executor.borrow().clone();
    if let Some(executor) = client
        && outcome.is_ok()
    {
        end_executor(&executor).await;
    }
    outcome
}

/// Ends a part and waits until it has ended; one that had is left alone.
async fn end<T>(part: JoinHandle<T>) {
    if !part.is_finished() {
        part.abort();
        let _ = part.await;
    }
}

/// Resolves when the agent is told to stop at least so, or by whoever could tell is gone.
async fn reached(stop: &mut watch::Receiver<Stop>, how: Stop) {
    let _ = stop.wait_for(|stop| *stop >= how).await;
}

/// Resolves when waiting cannot mend the link: the server is too old, or has no place for us.
async fn hopeless(context: &Context) -> AgentError {
    match context.link.ready().await {
        Err(error) => error.into(),
        Ok(()) => std::future::pending().await,
    }
}

/// Takes up every attempt that the executor knows.
async fn adopt(
    context: &Arc<Context>,
    executor: &ExecutorClient,
    slots: &Arc<Semaphore>,
) -> Result<Vec<JoinHandle<()>>, AgentError> {
    let mut attempts = Vec::new();
    for report in executor.list().await? {
        if report.machine != context.me {
            tracing::warn!(machine = %report.machine, attempt = %report.attempt, "an attempt of another name of this machine is left alone");
            continue;
        }
        let found = recall::found_by(&report);
        context
            .seen
            .note(token_epoch(report.token), token_seq(report.token));
        let gone = listen::gone_of(&report);
        let slot = gone.is_none().then(|| {
            let needs = report.spec.needs().unwrap_or_default();
            let permit = slots.clone().try_acquire_owned().ok();
            Slot::new(permit, context.capacity.hold_anyway(&needs))
        });
        let (attempt, effects) = Attempt::adopt(context.me.clone(), found, gone);
        let announced = listen::announced_of(&report);
        attempts.push(Driver::start(
            context, attempt, effects, None, slot, announced,
        ));
    }
    Ok(attempts)
}

/// Makes an attempt of a delivered ticket.
async fn take(context: &Arc<Context>, offer: Offer) -> Option<JoinHandle<()>> {
    let Offer {
        delivered,
        slot,
        at,
        lapses,
    } = offer;
    let ticket = match &delivered.ticket {
        Ok(ticket) => (**ticket).clone(),
        Err(error) => {
            listen::malformed(context, &delivered.subject, &error.to_string());
            // It comes again where this does not arrive, and is told again.
            let _ = context.bus.discard(&delivered).await;
            return None;
        }
    };
    let held = *context.lease.borrow();
    if !held.is_valid() || held.lapses_now() != lapses {
        // It comes back by itself where this does not arrive.
        let _ = context.bus.give_back(&delivered).await;
        return None;
    }
    let (attempt, effects) = Attempt::deliver(context.me.clone(), clock::attempt_id(), ticket);
    let attempt = attempt.under_lease(held.term, at).in_epoch(held.epoch);
    Some(Driver::start(
        context,
        attempt,
        effects,
        Some(delivered),
        Some(slot),
        Announced::default(),
    ))
}

/// Lets what runs end by itself for the grace time, then ends it and waits for the results to be
/// with the hub.
async fn wind_down(
    context: &Arc<Context>,
    options: &AgentOptions,
    stop: &mut watch::Receiver<Stop>,
    attempts: Vec<JoinHandle<()>>,
) {
    let mut all = JoinSet::new();
    for attempt in attempts {
        all.spawn(attempt);
    }
    let done = async |all: &mut JoinSet<_>| while all.join_next().await.is_some() {};
    tokio::select! {
        () = done(&mut all) => return,
        () = tokio::time::sleep(options.grace) => {}
        () = reached(stop, Stop::Now) => {}
    }
    context.stop.send_replace(Stop::Now);
    let mut kills = JoinSet::new();
    for (attempt, _) in context.routes.attempts() {
        let context = context.clone();
        kills.spawn(async move { context.kill(attempt, KillCause::Interrupt).await });
    }
    let within = fleet_contract::spec::KILL_GRACE + ENDING_MARGIN + RESULTS_WITHIN;
    if tokio::time::timeout(within, done(&mut all)).await.is_err() {
        tracing::warn!(
            "not every result is with the hub yet; the executor keeps them for the next start"
        );
    }
}

async fn say_goodbye(context: &Context) {
    let offline = NewEvent::of_machine(kind::MACHINE_OFFLINE, &context.me, json!({}));
    context.events.tell(offline);
    let goodbye = async {
        let (said, ()) = tokio::join!(presence::goodbye(context), context.events.flush());
        lease::release(context, context.pulse.host()).await;
        said
    };
    match tokio::time::timeout(GOODBYE_WITHIN, goodbye).await {
        Ok(Ok(())) => {}
        _ => tracing::warn!("the hub did not hear the goodbye; it will see the connection close"),
    }
    // What the hub has not heard is told at the next start.
    let _ = tokio::time::timeout(GOODBYE_WITHIN, context.events.written()).await;
}

async fn end_executor(executor: &ExecutorClient) {
    if executor.shutdown().await.is_err() {
        tracing::debug!("the executor was gone already");
    }
}

/// The lock of a home's agent; held as long as the file is open.
fn lock(home: &Home) -> Result<File, AgentError> {
    let dir = home.agent_dir();
    let path = home.agent_lock();
    let failed = |why: String| AgentError::File {
        path: path.clone(),
        why,
    };
    std::fs::create_dir_all(&dir).map_err(|e| failed(e.to_string()))?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| failed(e.to_string()))?;
    // Whoever asks whether an agent runs holds it for a moment, too.
    let mut taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
    for _ in 0..LOCK_TRIES {
        if taken.is_ok() {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    if taken.is_err() {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        return Err(AgentError::AlreadyRunning {
            pid: text.trim().parse().ok(),
            home: home.root().to_owned(),
        });
    }
    let mut write = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write().map_err(|e: std::io::Error| failed(e.to_string()))?;
    Ok(file)
}

/// Whether an agent runs in this home.
pub(super) fn is_locked(home: &Home) -> bool {
    File::open(home.agent_lock())
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// The home's identity, made at the first start.
fn instance(home: &Home) -> Result<InstanceId, AgentError> {
    let path = home.agent_instance();
    let failed = |why: String| AgentError::File {
        path: path.clone(),
        why,
    };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| failed(format!("{e}; remove it to become a new instance"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let instance = clock::instance_id();
            let bytes = serde_json::to_vec(&instance).map_err(|e| failed(e.to_string()))?;
            let temporary = path.with_extension("new");
            let write = || {
                let mut file = File::create(&temporary)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(|e: std::io::Error| failed(e.to_string()))?;
            Ok(instance)
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
