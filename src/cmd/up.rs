//! `fleet up`: hub, this machine's agent and the console, on one machine, with no configuration.

use std::ffi::OsString;
use std::time::Instant;

use fleet_agent::agent::Stop;
use fleet_contract::ids::MachineId;

use crate::args::{Tui, Up};
use crate::cmd::tui;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
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
    let (mut fleet, running) = match start(args, cx).await {
        Ok(started) => started,
        Err(failure) => {
            if args.background {
                Line::failed(&failure).say();
            }
            return Err(failure);
        }
    };
    if args.background {
        Line::Ready(running).say();
    } else {
        tell_ready(cx, &running, begun)?;
    }
    let ended = until_stopped(args, cx, &mut fleet, &mut stops).await;
    let Fleet {
        hub,
        agent,
        demo,
        lock,
    } = fleet;
    if let Some(demo) = demo {
        demo.stop().await;
    }
    let stopped = stop(cx, hub, agent, &mut stops, ended.is_err()).await;
    // Freed by the kernel when this process is gone: that is what `down` waits for.
    std::mem::forget(lock);
    ended.and(stopped)?;
    Ok(0)
}

async fn start(args: &Up, cx: &mut Context) -> Result<(Fleet, Running), Failure> {
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
    let hub =
        HubService::start(&cx.settings, &cx.environment, args.tether.tether, &mut tell).await?;
    for warning in hub.hub().warnings() {
        tell(&warning);
    }
    running.hub = hub.hub().url();
    lock.write(&running)?;
    match start_agent(&hub, cx).await {
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

async fn start_agent(hub: &HubService, cx: &Context) -> Result<AgentService, Failure> {
    let (machine, credentials): (MachineId, _) =
        agent::credentials_beside(hub.hub(), &cx.settings)?;
    let mut arrival = Arrival::watch(hub.bus(), &machine).await?;
    let options = agent::options(&cx.settings, machine, vec![hub.hub().url()], credentials)?;
    let mut service = AgentService::start(options);
    let up = tokio::select! {
        up = arrival.up() => up,
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

async fn until_stopped(
    args: &Up,
    cx: &mut Context,
    fleet: &mut Fleet,
    stops: &mut Stops,
) -> Result<(), Failure> {
    let console = !args.background && !args.no_tui && tui::possible(cx);
    tokio::select! {
        () = stops.next() => Ok(()),
        ended = fleet.agent.ended() => {
            Err(ended.err().unwrap_or_else(|| Failure::internal("the agent ended early")))
        }
        shown = async {
            if console {
                tui::show(&Tui::default(), cx).await.map(drop)
            } else {
                std::future::pending().await
            }
        } => shown,
    }
}

/// The agent first, so that it can say goodbye; then the hub.
async fn stop(
    cx: &mut Context,
    hub: HubService,
    mut agent: AgentService,
    stops: &mut Stops,
    agent_ended: bool,
) -> Result<(), Failure> {
    let mut ended = Ok(());
    if !agent_ended {
        agent.stop(Stop::Gracefully);
        ended = tokio::select! {
            ended = agent.ended() => ended,
            () = stops.next() => {
                cx.output.note("ending what runs now");
                agent.stop(Stop::Now);
                agent.ended().await
            }
        };
    }
    let stopped = hub.stop().await;
    ended.and(stopped)
}
