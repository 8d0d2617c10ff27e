//! Tells what the agent counted, at most once a second and only after a second in which something
//! was: an idle agent is not woken by it.

use std::sync::Arc;
use std::time::Duration;

use fleet_contract::stat::STAT_EVERY;
use fleet_nats::stat::Counters;
use tokio::time::Instant;

use super::context::Context;

/// What is waited before a summary at the most: beyond it nobody can make a rate of it.
const STALE: Duration = Duration::from_secs(10);

/// Tells for ever.
pub(super) async fn tell(context: Arc<Context>, counters: Arc<Counters>) {
    loop {
        counters.any().await;
        let since = Instant::now();
        tokio::time::sleep(STAT_EVERY).await;
        let interval = since.elapsed();
        let stat = counters.take(interval);
        if interval > STALE {
            continue;
        }
        // Nobody misses one: the next second has another.
        if let Err(error) = context.bus.tell_stat(&context.me, &stat).await {
            tracing::debug!(%error, "a summary was not told");
        }
    }
}
