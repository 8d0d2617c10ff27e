//! `fleet up`: hub, this machine's agent and the console, on one machine, with no configuration.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use fleet_agent::agent::Stop;
use fleet_contract::ids::MachineId;
use fleet_tui::Left;

use crate::args::{Tui, Up};
use crate::cmd::tui;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Stops;
use crate::output::{Output, Said};
use crate::service::agent::{self, AgentService, Arrival};
use crate::service::background::{self, Line, Running, UpLock};
use crate::service::demo::Demo;
use crate::service::hub::HubService;
use crate::{clock, words};

/// The flag of the process in the background; nobody types it.
pub(crate) const BACKGROUND: &str = "--background";

/// Starts this program again in the background and waits until it is ready. Blocks.
pub(crate) fn detach(cx: &mut Context) -> Outcome {
    let begun = Instant::now();
    let args: Vec<OsString> = std::env::args_os()
        .skip(1)
        .filter(|word| word != "--detach" && word != "--json" && word != "--plain")
        .chain([OsString::from(BACKGROUND)])
        .collect();
    let output = &mut cx.output;
    let running = background::start(&cx.settings.home, &args, |text| output.note(text))?;
    tell_ready(cx, &running, begun)?;
    Ok(0)
}

fn tell_ready(cx: &mut Context, running: &Running, begun: Instant) -> Result<(), Failure> {
    let took = begun.elapsed();
    cx.show(&Said {
        value: serde_json::json!({
            "event": "ready",
            "hub": running.hub,
            "machine": running.machine,
            "pid": running.pid,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }),
        text: format!(
            "{} is up, hub at {}, in {}\ntry: fleet dispatch --follow -- uname -a\n",
            running.machine,
            running.hub,
            words::span(took)
        ),
    })
}

/// Everything that `up` runs in this process.
struct Fleet {
    hub: HubService,
    agent: AgentService,
    /// With `--demo`.
    demo: Option<Demo>,
    /// Held as long as it runs, and written to when it is ready.
    lock: UpLock,
}

/// Runs hub and agent until asked to stop, or until the person leaves the console.
pub(crate) async fn run(args: &Up, cx: &mut Context) -> Outcome {
    let begun = Instant::now();
    let mut stops = Stops::new(args.tether.tether);
    if args.background {
        // Out of the session of whoever typed it. Fails only for the leader of a group, which a
        // process that was just started by another is not.
        let _ = rustix::process::setsid();
    }
    let (mut fleet, running) = match start(args, cx, &mut stops).await {
        Ok(started) => started,
        Err(failure) => {
            if args.background {
                Line::failed(&failure).say();
            }
            return Err(failure);
        }
    };
    let told = if args.background {
        Line::Ready(running).say();
        Ok(())
    } else {
        tell_ready(cx, &running, begun)
    };
    // Whatever happens from here on, everything is stopped in order.
    let ended = match told {
        Ok(()) => until_stopped(args, cx, &mut fleet, &mut stops).await,
        Err(failure) => Ended::Here(Err(failure)),
    };
    stop(cx, fleet, &mut stops, ended).await?;
    Ok(0)
}

/// Asked to stop before it was up.
fn given_up() -> Failure {
    Failure::new(Exit::Interrupted, "stopped before it was up")
}

async fn start(
    args: &Up,
    cx: &mut Context,
    stops: &mut Stops,
) -> Result<(Fleet, Running), Failure> {
    let mut running = Running {
        pid: std::process::id(),
        machine: cx.settings.machine().to_string(),
        hub: String::new(),
        started_at: clock::now(),
    };
    let mut lock = UpLock::take(&cx.settings.home, &running)?;
    let background = args.background;
    let output = &mut cx.output;
    let mut tell = |text: &str| say(background, output.as_mut(), text);
    let starting = HubService::start(&cx.settings, &cx.environment, args.tether.tether, &mut tell);
    let hub = tokio::select! {
        // Given up half-way, the server ends with it.
        () = stops.next() => return Err(given_up()),
        hub = starting => hub?,
    };
    // In the foreground they are on standard error already.
    let notes = hub.notes.iter().filter(|_| args.background).cloned();
    for warning in notes.chain(hub.hub().warnings()) {
        tell(&warning);
    }
    running.hub = hub.hub().url();
    let agent = match lock.write(&running) {
        Ok(()) => start_agent(&hub, cx, stops).await,
        Err(failure) => Err(failure),
    };
    match agent {
        Ok(agent) => {
            let mut fleet = Fleet {
                hub,
                agent,
                demo: None,
                lock,
            };
            if args.demo {
                let (hub, home) = (&fleet.hub, &cx.settings.home);
                match Demo::start(hub.hub(), hub.bus(), home) {
                    Ok(demo) => fleet.demo = Some(demo),
                    // The fleet itself is fine without it.
                    Err(failure) => {
                        let text = failure.render(false).unwrap_or_default();
                        say(background, cx.output.as_mut(), &text);
                    }
                }
            }
            Ok((fleet, running))
        }
        Err(failure) => {
            // The first failure is the one to tell.
            let _ = hub.stop().await;
            Err(failure)
        }
    }
}

/// Tells whoever started it: in the background that is the process that waits.
fn say(background: bool, output: &mut dyn Output, text: &str) {
    if background {
        Line::Note(text.to_owned()).say();
    } else {
        output.note(text);
    }
}

async fn start_agent(
    hub: &HubService,
    cx: &Context,
    stops: &mut Stops,
) -> Result<AgentService, Failure> {
    let (machine, credentials): (MachineId, _) =
        agent::credentials_beside(hub.hub(), &cx.settings)?;
    let mut arrival = Arrival::watch(hub.bus(), &machine).await?;
    let options = agent::options(&cx.settings, machine, vec![hub.hub().url()], credentials)?;
    let mut service = AgentService::start(options);
    let up = tokio::select! {
        up = arrival.up() => up,
        () = stops.next() => Err(given_up()),
        ended = service.ended() => {
            return Err(ended.err().unwrap_or_else(|| Failure::internal("the agent ended early")));
        }
    };
    if let Err(failure) = up {
        service.stop(Stop::Now);
        // The first failure is the one to tell.
        let _ = service.ended().await;
        return Err(failure);
    }
    Ok(service)
}

/// Within this time a signal that the console has heard is heard here, too.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What ended it.
enum Ended {
    /// A signal, the person who left the console, or what failed in this very command.
    Here(Result<(), Failure>),
    /// The agent is gone by itself.
    Agent(Failure),
}

async fn until_stopped(args: &Up, cx: &mut Context, fleet: &mut Fleet, stops: &mut Stops) -> Ended {
    let console = !args.background && !args.no_tui && tui::possible(cx);
    let left = tokio::select! {
        biased;
        () = stops.next() => return Ended::Here(Ok(())),
        ended = fleet.agent.ended() => {
            let failure = ended.err();
            return Ended::Agent(failure.unwrap_or_else(|| Failure::internal("the agent ended early")));
        }
        left = async {
            if console {
                tui::show(&Tui::default(), true, cx).await
            } else {
                std::future::pending().await
            }
        } => left,
    };
    if matches!(left, Ok(Left::Signal(_))) {
        // The console has heard the same signal, and first: left where it is, the stop would take
        // it for a second one.
        let _ = tokio::time::timeout(SAME_SIGNAL, stops.next()).await;
    }
    Ended::Here(left.map(drop))
}

/// The agents first, side by side, so that they can say goodbye; then the hub. A second wish to
/// stop hurries the agent.
async fn stop(
    cx: &mut Context,
    fleet: Fleet,
    stops: &mut Stops,
    ended: Ended,
) -> Result<(), Failure> {
    let Fleet {
        hub,
        mut agent,
        demo,
        lock,
    } = fleet;
    // Freed by the kernel when this process is gone: that is what `down` waits for.
    std::mem::forget(lock);
    let agents = async {
        let of_demo = async {
            if let Some(demo) = demo {
                demo.stop().await;
            }
        };
        let own = async {
            match ended {
                Ended::Agent(failure) => Err(failure),
                Ended::Here(outcome) => {
                    agent.stop(Stop::Gracefully);
                    let gone = tokio::select! {
                        gone = agent.ended() => gone,
                        () = stops.next() => {
                            cx.output.note("ending what runs now");
                            agent.stop(Stop::Now);
                            agent.ended().await
                        }
                    };
                    outcome.and(gone)
                }
            }
        };
        tokio::join!(of_demo, own).1
    };
    let outcome = agents.await;
    let stopped = hub.stop().await;
    outcome.and(stopped)
}
