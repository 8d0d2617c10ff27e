//! Listens: to the executor, to the operator's commands, to the link.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::attempt::{Gone, Input};
use fleet_contract::event::kind;
use fleet_contract::ids::JobId;
use fleet_contract::quota::Quota;
use fleet_nats::clock;
use fleet_nats::flow::NewEvent;
use fleet_nats::probe::ProbeAsk;
use fleet_nats::subject::{self, verb};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::context::{Context, gone_unknown};
use super::routes::{Announced, Told};
use crate::executor::{
    AttemptReport, ClientError, ConnectOptions, ExecutorClient, ExecutorEvent, Kept,
};

/// First and longest pause before an executor that is gone is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What an executor's report means for an attempt.
pub(super) fn told_of(report: &AttemptReport) -> Vec<Told> {
    let mut told = Vec::new();
    if let Some(at) = report.started_at {
        told.push(Told::from(Input::Started(at)));
    }
    if let Some(gone) = gone_of(report) {
        told.push(Told::from(Input::Gone(gone)));
    }
    told
}

/// How the attempt ended, if it did.
pub(super) fn gone_of(report: &AttemptReport) -> Option<Gone> {
    let ended_at = report.ended_at?;
    Some(Gone {
        outcome: report.outcome.clone()?,
        output: report.output,
        started_at: report.started_at.unwrap_or(ended_at),
        ended_at,
    })
}

/// How much of an attempt's output the report tells of.
pub(super) fn announced_of(report: &AttemptReport) -> Announced {
    Announced {
        chunks: report.output.chunks,
        bytes: report.output.stdout.bytes + report.output.stderr.bytes,
        ended: report.outcome.is_some(),
    }
}

/// Hands the executor's events to their attempts, and replaces an executor that is gone.
pub(super) async fn executor(
    context: Arc<Context>,
    options: ConnectOptions,
    mut events: mpsc::Receiver<ExecutorEvent>,
) {
    loop {
        // Another executor counts from nothing.
        let mut kept = Kept::default();
        while let Some(event) = events.recv().await {
            match event {
                ExecutorEvent::Lost => break,
                ExecutorEvent::Kept(now) => {
                    context.kept.say(now, std::mem::replace(&mut kept, now));
                }
                event => executor_event(&context, event).await,
            }
        }
        context.executor.send_replace(None);
        let (client, again) = restart(&options).await;
        events = again;
        context.events.tell(NewEvent::of_machine(
            kind::EXECUTOR_STARTED,
            &context.me,
            json!({ "pid": client.pid() }),
        ));
        // Whoever was started but is not known to the new executor is lost with the old one's disk.
        let started = context.routes.started_ones();
        let Some(reports) = list(&client).await else {
            continue;
        };
        context.executor.send_replace(Some(client));
        for attempt in started {
            if !reports.iter().any(|report| report.attempt == attempt) {
                let gone = gone_unknown("its executor went away and left no record of it");
                context
                    .routes
                    .tell(attempt, Told::from(Input::Gone(gone)))
                    .await;
            }
        }
        for report in reports {
            context
                .routes
                .announce(report.attempt, announced_of(&report));
            for told in told_of(&report) {
                context.routes.tell(report.attempt, told).await;
            }
        }
    }
}

/// What the executor knows; none where it is gone again.
async fn list(client: &ExecutorClient) -> Option<Vec<AttemptReport>> {
    loop {
        match client.list().await {
            Ok(reports) => return Some(reports),
            Err(ClientError::Lost) => return None,
            Err(error) => tracing::warn!(%error, "the executor does not list its attempts yet"),
        }
        tokio::time::sleep(clock::jittered(RESTART.0)).await;
    }
}

async fn restart(options: &ConnectOptions) -> (ExecutorClient, mpsc::Receiver<ExecutorEvent>) {
    let mut pause = RESTART.0;
    loop {
        match ExecutorClient::connect_or_start(options.clone()).await {
            Ok(connected) => return connected,
            Err(error) => tracing::error!(%error, "no executor"),
        }
        tokio::time::sleep(clock::jittered(pause)).await;
        pause = (pause * 2).min(RESTART.1);
    }
}

async fn executor_event(context: &Context, event: ExecutorEvent) {
    match event {
        ExecutorEvent::Started { attempt, at, .. } => {
            context
                .routes
                .tell(attempt, Told::from(Input::Started(at)))
                .await;
        }
        ExecutorEvent::Output {
            attempt,
            chunks,
            bytes,
        } => {
            context.routes.announce(
                attempt,
                Announced {
                    chunks,
                    bytes,
                    ended: false,
                },
            );
        }
        ExecutorEvent::Ended {
            attempt,
            outcome,
            output,
            started_at,
            ended_at,
            survivors,
        } => {
            if !survivors.is_empty() {
                tracing::warn!(%attempt, ?survivors, "processes of the attempt could not be ended");
            }
            context.routes.announce(
                attempt,
                Announced {
                    chunks: output.chunks,
                    bytes: output.stdout.bytes + output.stderr.bytes,
                    ended: true,
                },
            );
            let started_at = started_at.unwrap_or(ended_at);
            let gone = Gone {
                outcome,
                output,
                started_at,
                ended_at,
            };
            context
                .routes
                .tell(attempt, Told::from(Input::Gone(gone)))
                .await;
        }
        ExecutorEvent::Kept(_) | ExecutorEvent::Lost => {}
    }
}

/// Obeys commands. They carry nothing but a hint to read the journal, or a question.
pub(super) async fn commands(context: Arc<Context>) {
    let mine = subject::command(&context.me, ">");
    let all = subject::command_all(">");
    loop {
        let client = context.link.client();
        let (Ok(mine), Ok(all)) = (
            client.subscribe(mine.clone()).await,
            client.subscribe(all.clone()).await,
        ) else {
            context.pause(RESTART.1).await;
            continue;
        };
        let mut messages = futures_util::stream::select(mine, all);
        while let Some(message) = messages.next().await {
            command(
                &context,
                &message.subject,
                &message.payload,
                message.reply.as_deref(),
            )
            .await;
        }
    }
}

async fn command(context: &Context, subject: &str, payload: &[u8], reply: Option<&str>) {
    #[derive(Deserialize)]
    struct Cancel {
        job: JobId,
    }
    if *subject == subject::command(&context.me, verb::CANCEL) {
        match serde_json::from_slice::<Cancel>(payload) {
            Ok(cancel) => context.routes.ask_to_cancel(cancel.job),
            Err(error) => malformed(context, subject, &error.to_string()),
        }
    } else if *subject == subject::command_all(verb::SPECS)
        || *subject == subject::command(&context.me, verb::SPECS)
    {
        // An answer goes to an inbox only: the asker could else have this agent write for it.
        let Some(reply) = reply.filter(|reply| reply.starts_with("_INBOX")) else {
            return;
        };
        let presence = super::presence::now(context).await;
        match serde_json::to_vec(&fleet_nats::probe::SpecsAnswer { presence }) {
            Ok(answer) => drop(context.bus.tell(reply, answer.into()).await),
            Err(error) => tracing::warn!(%error, "cannot answer for specs"),
        }
    } else if *subject == subject::command(&context.me, verb::PROBE) {
        match serde_json::from_slice::<ProbeAsk>(payload) {
            Ok(ask) => {
                let reply = reply.filter(|reply| reply.starts_with("_INBOX"));
                let asked = super::probes::Ask {
                    skills: ask.skills,
                    reply: reply.map(str::to_owned),
                };
                // Whoever asks more often than it can be done waits for no answer of his own.
                let _ = context.ask_probes.try_send(asked);
            }
            Err(error) => malformed(context, subject, &error.to_string()),
        }
    } else {
        malformed(context, subject, "no such command");
    }
}

/// Tells of a message that is none: the first few, and later how many there were.
pub(super) fn malformed(context: &Context, subject: &str, why: &str) {
    let takes = |quota: &mut Quota| quota.takes("", clock::boot_time());
    if context.malformed(takes) {
        let subject: String = subject.chars().take(200).collect();
        let detail = json!({ "subject": subject, "reason": why });
        context.events.tell(NewEvent::of_machine(
            kind::MESSAGE_MALFORMED,
            &context.me,
            detail,
        ));
    }
}

/// Tells how many messages were none and not told one by one.
pub(super) fn tell_untold(context: &Context) {
    let due = |quota: &mut Quota| quota.due(clock::boot_time());
    for (_, count) in context.malformed(due) {
        let detail = json!({ "count": count, "reason": "more of the kind" });
        context.events.tell(NewEvent::of_machine(
            kind::MESSAGE_MALFORMED,
            &context.me,
            detail,
        ));
    }
}

/// After every reconnect: says so, and has every attempt read its journal.
pub(super) async fn link(context: Arc<Context>) {
    let mut status = context.link.status();
    let (mut connects, mut disconnects) = (0, 0);
    loop {
        let now = status.borrow_and_update().clone();
        if now.disconnects > disconnects {
            disconnects = now.disconnects;
            let detail = json!({ "last_error": now.last_error });
            context
                .events
                .tell(NewEvent::of_machine(kind::LINK_LOST, &context.me, detail));
        }
        if now.connects > connects {
            if connects > 0 {
                let detail = json!({ "connects": now.connects, "last_error": now.last_error });
                context
                    .events
                    .tell(NewEvent::of_machine(kind::LINK_HEALED, &context.me, detail));
                context.routes.reread_all();
                context.beat_soon.notify_one();
            }
            connects = now.connects;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
