//! Sends what was dispatched here while the hub was away, as soon as it is there again, with the
//! operator's credentials that lie in the same home; without them nothing is done.

use std::time::Duration;

use fleet_nats::bus::Bus;
use fleet_nats::clock::jittered;
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::home::Home;
use fleet_nats::hub::{Credentials, Permission};

use crate::spooled::{self, Turn};

/// How often it is looked whether something waits, and whether the hub is there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks for ever.
pub(crate) async fn run(home: Home, urls: Vec<String>) {
    loop {
        if spooled::any(&home) {
            send(&home, &urls).await;
        }
        tokio::time::sleep(jittered(LOOK_EVERY)).await;
    }
}

async fn send(home: &Home, urls: &[String]) {
    let Ok(credentials) = Credentials::load(&home.operator_credentials()) else {
        return;
    };
    if credentials.permission() != Permission::Operator {
        return;
    }
    let options = ConnectOptions {
        urls: urls.to_vec(),
        ..ConnectOptions::new("fleet spool", credentials)
    };
    let sent = match connect(&options).await {
        Ok(link) => spooled::send(home, &Bus::new(&link), Turn::Passing).await,
        Err(error) => return tracing::debug!(%error, "what is spooled here waits on"),
    };
    match sent {
        Ok(sent) => {
            tracing::info!(jobs = sent.jobs.len(), "spooled jobs were sent");
            for (id, why) in &sent.refused {
                tracing::warn!(%id, why, "a spooled job cannot be sent");
            }
            if let Some(error) = sent.stopped {
                tracing::debug!(%error, "what is spooled here waits on");
            }
        }
        Err(failure) => {
            let why = failure.render(false).unwrap_or_default();
            tracing::warn!(why, "spooled jobs cannot be sent");
        }
    }
}
