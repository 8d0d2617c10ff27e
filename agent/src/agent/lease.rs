//! Holds the machine's lease: takes it, renews it, moves the executor's fences with it.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::AttemptId;
use fleet_contract::lease::{Acquire, BootTime, LeaseRecord, RENEW_EVERY, acquire};
use fleet_contract::spec::OnLost;
use fleet_nats::bus::BusError;
use fleet_nats::clock;

use super::AgentError;
use super::context::{Context, Held};

/// Pause before a hub that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How often an agent looks whether the lease of one that is gone is over.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the lease was taken as.
#[derive(Debug, Clone)]
struct Term {
    /// The sequence of its last record.
    seq: u64,
    /// The term.
    term: u64,
    held: Vec<AttemptId>,
}

/// Takes the lease and renews it for ever.
///
/// # Errors
/// `NameTaken` where another live agent has it.
pub(super) async fn run(context: Arc<Context>, host: String) -> Result<(), AgentError> {
    loop {
        context.connected().await;
        let epoch = context.vouched().await;
        let term = take(&context, &host, epoch).await?;
        renew(&context, &host, term, epoch).await;
        // Not held, and everything read under it is old.
        context.lease.send_modify(|held| {
            *held = Held {
                lapses: held.lapses + 1,
                ..Held::default()
            };
        });
        // Taken by the hub: whatever another may have taken over reads it in its journal.
        context.routes.reread_all();
    }
}

fn record(
    context: &Context,
    host: &str,
    term: Option<u64>,
    held: &[AttemptId],
    released: bool,
) -> LeaseRecord {
    LeaseRecord::Agent {
        machine: context.me.clone(),
        instance: context.instance,
        host: host.to_owned(),
        released,
        term,
        held: held.to_vec(),
        seen: context.seen.mark(),
    }
}

async fn take(context: &Context, host: &str, epoch: u64) -> Result<Term, AgentError> {
    loop {
        let last = match context.bus.lease(&context.me).await {
            Ok(last) => last,
            Err(_) => {
                context.pause(RETRY).await;
                continue;
            }
        };
        let expect = match acquire(
            context.instance,
            last.as_ref().map(|(seq, record)| (*seq, record)),
        ) {
            Acquire::Take { expect } => expect,
            Acquire::Held { host: other } => {
                if alive(context).await {
                    return Err(AgentError::NameTaken {
                        machine: context.me.clone(),
                        host: other,
                        here: host.to_owned(),
                    });
                }
                tracing::info!(host = %other, "waiting for the lease of the agent that was here before");
                context.pause(LOOK_AGAIN).await;
                continue;
            }
        };
        let held: Vec<AttemptId> = context
            .routes
            .attempts()
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        context.seen.write_down().await;
        let sent = clock::boot_time();
        match context
            .bus
            .append_lease(&record(context, host, None, &held, false), expect)
            .await
        {
            Ok(seq) => {
                let term = Term {
                    seq,
                    term: seq,
                    held,
                };
                context.lease.send_modify(|held| held.epoch = epoch);
                hold(context, term.term, sent);
                // What was claimed in an earlier epoch learns of this one by it.
                context.routes.reread_all();
                return Ok(term);
            }
            Err(error) => {
                tracing::debug!(%error, "the lease was not taken; trying again");
                context.pause(RETRY).await;
            }
        }
    }
}

/// Whether the machine's other agent has been heard of lately, or by the hub's word is there.
async fn alive(context: &Context) -> bool {
    use fleet_contract::machine::{MachineState, state};
    let presence = match context.bus.own_presence(&context.me).await {
        Ok(Some(seen)) => seen,
        _ => return false,
    };
    let heard = state(&presence.presence, presence.age);
    presence.presence.instance != context.instance
        && matches!(
            heard,
            MachineState::Up
                | MachineState::Degraded
                | MachineState::Cordoned
                | MachineState::Draining
        )
}

/// Renews it until it is lost, or the hub is in another epoch than it was taken in.
async fn renew(context: &Context, host: &str, mut term: Term, epoch: u64) {
    let mut hub = context.hub.subscribe();
    loop {
        let moved = hub.wait_for(|vouched| vouched.is_some_and(|v| v.epoch != epoch));
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            _ = moved => return,
        }
        context.seen.write_down().await;
        loop {
            let sent = clock::boot_time();
            let renewal = record(context, host, Some(term.term), &term.held, false);
            match context.bus.append_lease(&renewal, term.seq).await {
                Ok(seq) => {
                    term.seq = seq;
                    hold(context, term.term, sent);
                    break;
                }
                Err(BusError::Moved(_)) => match context.bus.lease(&context.me).await {
                    // An earlier try of this renewal arrived after all.
                    Ok(Some((seq, found))) if found == renewal => term.seq = seq,
                    Ok(_) => return,
                    Err(_) => context.pause(RETRY).await,
                },
                Err(_) => context.pause(RETRY).await,
            }
        }
    }
}

/// The lease holds from when the renewal was sent.
fn hold(context: &Context, term: u64, sent: BootTime) {
    context
        .lease
        .send_modify(|held| *held = held.renewed(term, sent));
}

/// Moves the executor's fences with the lease: always to the newest, and beside the renewals, which
/// wait for no executor.
pub(super) async fn fences(context: Arc<Context>) {
    let mut lease = context.lease.subscribe();
    loop {
        let held = *lease.borrow_and_update();
        if held.term != 0 {
            let executor = context.executor().await;
            let fence = held.until();
            for (attempt, on_lost) in context.routes.attempts() {
                if on_lost != OnLost::Ask {
                    // One that has not started yet, or has ended, is not known there.
                    let _ = executor.fence_at(Some(attempt), Some(fence)).await;
                }
            }
        }
        if lease.changed().await.is_err() {
            return;
        }
    }
}

/// Gives the lease back, so that another home may take it at once.
pub(super) async fn release(context: &Context, host: &str) {
    let Ok(Some((
        seq,
        LeaseRecord::Agent {
            instance,
            term,
            held,
            ..
        },
    ))) = context.bus.lease(&context.me).await
    else {
        return;
    };
    if instance == context.instance {
        let term = Some(term.unwrap_or(seq));
        // Nobody waits for it: unreleased, it is over by itself.
        let _ = context
            .bus
            .append_lease(&record(context, host, term, &held, true), seq)
            .await;
    }
}
