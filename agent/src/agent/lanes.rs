//! Follows the lanes that the hub has: what each requires. Which of them this machine pulls from is
//! the puller's.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::Lane;
use fleet_contract::needs::Needs;
use fleet_nats::clock;
use fleet_nats::connect::LinkState;
use fleet_nats::lanes::{KnownLane, LANES_MAX};
use fleet_nats::subject;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::context::Context;

/// Pause before lanes that could not be read are read again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The least between two reads where one of them is found to be gone at the hub.
const STALE_PAUSE: Duration = Duration::from_secs(2);
/// How often they are read again though nothing was heard: a slow reader may have missed one.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// Most lanes that are followed; two that are made at once may both find room for one.
const HEARD_MAX: usize = 2 * LANES_MAX as usize;

/// What is known before anything was read.
pub(super) fn first() -> Vec<KnownLane> {
    vec![KnownLane {
        lane: Lane::any(),
        needs: Some(Needs::default()),
    }]
}

/// Keeps the agent's lanes as the hub has them.
pub(super) async fn watch(context: Arc<Context>) {
    let mut status = context.link.status();
    loop {
        context.connected().await;
        let connects = status.borrow_and_update().connects;
        // Heard from before they are read, so that none falls between the two.
        let Ok(mut news) = context.link.client().subscribe(subject::LANES).await else {
            context.pause(ASK_AGAIN).await;
            continue;
        };
        let Ok(known) = context.bus.lanes().await else {
            context.pause(ASK_AGAIN).await;
            continue;
        };
        context.lanes.send_if_modified(|lanes| {
            let changed = *lanes != known;
            *lanes = known;
            changed
        });
        let read = Instant::now();
        let mut again = read + clock::jittered(READ_AGAIN);
        loop {
            let moved =
                status.wait_for(|s| s.connects != connects || s.state != LinkState::Connected);
            let message = tokio::select! {
                message = news.next() => message,
                _ = moved => None,
                () = context.lanes_stale.notified() => {
                    again = again.min(read + clock::jittered(STALE_PAUSE));
                    continue;
                }
                () = tokio::time::sleep_until(again) => None,
            };
            let Some(message) = message else {
                break;
            };
            if let Some(lane) = KnownLane::read(&message.subject, &message.payload) {
                context.lanes.send_if_modified(|lanes| {
                    lanes.retain(|known| known.lane != lane.lane);
                    // What is over the hub's own limit is not followed.
                    let room = lanes.len() < HEARD_MAX;
                    if room {
                        lanes.push(lane);
                    }
                    room
                });
            }
        }
    }
}
