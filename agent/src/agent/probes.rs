//! Has this machine looked for skills, now and then and when somebody asks, and says what it found:
//! to whoever matches requirements, in the next beat, and where something changed as an event. Tools
//! are asked beside everything else; nothing waits for them.

use std::path::PathBuf;
use std::sync::Arc;

use fleet_contract::event::kind;
use fleet_nats::clock;
use fleet_nats::flow::NewEvent;
use fleet_nats::probe::SpecsAnswer;
use serde_json::json;
use tokio::sync::mpsc;

use super::context::Context;
use crate::executor::Environment;
use crate::skills::{Prober, Which, World};

/// Questions that may wait.
pub(super) const ASKS: usize = 16;
/// Most skills that are asked for by name.
const NAMES_MAX: usize = 64;

/// Somebody wants skills to be looked for now.
pub(super) struct Ask {
    /// Which; empty: all.
    pub skills: Vec<String>,
    /// Where the answer goes.
    pub reply: Option<String>,
}

/// What tools are asked in: what jobs of this machine have.
pub(super) fn world(base: Environment, context: &Context) -> World {
    let mut env = base;
    env.extend(context.env.clone());
    let home = env
        .get("HOME")
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let specs = context.pulse.specs();
    World {
        env,
        home,
        os: specs.os.clone(),
        mem_total: specs.mem_total,
        booted_at: sysinfo::System::boot_time(),
    }
}

/// Looks for skills for ever: by itself, unless that is switched off, and when it is asked to.
pub(super) async fn run(
    context: Arc<Context>,
    world: World,
    by_itself: bool,
    mut asks: mpsc::Receiver<Ask>,
) {
    let (own, kept) = (context.home.skills_dir(), context.home.agent_skills());
    let made = tokio::task::spawn_blocking(move || Prober::new(world, own, kept)).await;
    let Ok(mut prober) = made else {
        tracing::error!("skills are not looked for: their files could not be read");
        return std::future::pending().await;
    };
    if by_itself {
        if prober.rebooted() {
            tell(&context, kind::MACHINE_REBOOTED, json!({}));
        }
        // What was known the last time holds until it is looked at again.
        publish(&context, &prober);
    }
    loop {
        let next = prober.next(clock::now());
        let ask = tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            () = tokio::time::sleep(clock::jittered(next)), if by_itself => None,
        };
        let which = match &ask {
            None => Which::Due,
            Some(ask) => Which::Named(ask.skills.iter().take(NAMES_MAX).cloned().collect()),
        };
        let changes = prober.probe(&which, clock::now).await;
        publish(&context, &prober);
        if !changes.is_empty() {
            tell(&context, kind::MACHINE_SKILLS, json!(changes));
            context.beat_soon.notify_one();
        }
        if let Some(reply) = ask.and_then(|ask| ask.reply) {
            answer(&context, &reply).await;
        }
    }
}

fn tell(context: &Context, kind: &'static str, detail: serde_json::Value) {
    let event = NewEvent::of_machine(kind, &context.me, detail);
    context.events.tell(event);
}

fn publish(context: &Context, prober: &Prober) {
    let (skills, models, gpus) = (prober.skills(), prober.models(), prober.gpus());
    context.capacity.found(prober.failing(), |probed| {
        probed.skills = skills;
        probed.models = models;
        probed.gpus = gpus;
    });
}

async fn answer(context: &Context, reply: &str) {
    let presence = super::presence::now(context).await;
    match serde_json::to_vec(&SpecsAnswer { presence }) {
        // Whoever asked and hears nothing asks again.
        Ok(answer) => drop(context.bus.tell(reply, answer.into()).await),
        Err(error) => tracing::warn!(%error, "cannot answer for skills"),
    }
}
