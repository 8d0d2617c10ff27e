//! What somebody who waits is told when the hub goes away: once for each outage, with what to type
//! if it is somewhere else by now.

use std::time::Duration;

use fleet_contract::ids::JobId;
use fleet_nats::bus::Bus;
use fleet_nats::connect::{LinkState, LinkStatus};
use tokio::sync::watch;

/// Shorter outages are nobody's business.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// The outages of a link.
pub(crate) struct Outages {
    status: watch::Receiver<LinkStatus>,
    since: Option<tokio::time::Instant>,
    told: bool,
}

impl Outages {
    /// Those from now on.
    pub(crate) fn of(bus: &Bus) -> Self {
        Self {
            status: bus.status(),
            since: None,
            told: false,
        }
    }

    /// What there is to tell next to somebody who waits for these jobs. Safe to drop and call again.
    pub(crate) async fn next(&mut self, verb: &str, jobs: &[JobId]) -> String {
        loop {
            let here = self.status.borrow_and_update().state == LinkState::Connected;
            if here {
                self.since = None;
                if std::mem::take(&mut self.told) {
                    return "the hub is back".to_owned();
                }
            } else if !self.told {
                let since = *self.since.get_or_insert_with(tokio::time::Instant::now);
                let changed = tokio::time::timeout_at(since + TELL_AFTER, self.status.changed());
                if changed.await.is_err() {
                    self.told = true;
                    return away(verb, jobs);
                }
                continue;
            }
            if self.status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn away(verb: &str, jobs: &[JobId]) -> String {
    let jobs = match jobs {
        [one] => one.to_string(),
        _ => "JOB…".to_owned(),
    };
    format!(
        "the hub is away: waiting for it; if it is at another address now: \
         fleet {verb} {jobs} --hub nats://HOST:PORT"
    )
}
