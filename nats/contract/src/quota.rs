//! How often the same is told of a peer: the first few of each while one by one, the rest as one
//! number. Who sends garbage as fast as it can is told of, and fills nobody's events with it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lease::BootTime;

/// Told one by one in each [`QUOTA_EVERY`].
pub const QUOTA: u32 = 10;
/// How long a while is.
pub const QUOTA_EVERY: Duration = Duration::from_secs(60);
/// Peers that are told apart; all others count as one.
const PEERS_MAX: usize = 1024;

/// What was told of each peer lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quota {
    peers: BTreeMap<String, Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    since: BootTime,
    told: u32,
    untold: u64,
}

impl Quota {
    /// Whether one more of `peer` is told now; otherwise it is counted.
    pub fn takes(&mut self, peer: &str, now: BootTime) -> bool {
        let known = self.peers.contains_key(peer) || self.peers.len() < PEERS_MAX;
        let peer = if known { peer } else { "" };
        let told = self.peers.entry(peer.to_owned()).or_insert(Told {
            since: now,
            told: 0,
            untold: 0,
        });
        if told.told < QUOTA {
            told.told += 1;
            return true;
        }
        told.untold += 1;
        false
    }

    /// What was counted and not told, of the peers whose while is over; empty names are all those
    /// that were not told apart.
    pub fn due(&mut self, now: BootTime) -> Vec<(String, u64)> {
        let over = |told: &Told| now.since(told.since) >= QUOTA_EVERY;
        let untold = self
            .peers
            .iter()
            .filter(|(_, told)| over(told) && told.untold > 0)
            .map(|(peer, told)| (peer.clone(), told.untold))
            .collect();
        self.peers.retain(|_, told| !over(told));
        untold
    }

    /// How long until [`Quota::due`] has something to say; none while nothing was left untold.
    #[must_use]
    pub fn next_due(&self, now: BootTime) -> Option<Duration> {
        let untold = self.peers.values().filter(|told| told.untold > 0);
        untold
            .map(|told| QUOTA_EVERY.saturating_sub(now.since(told.since)))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::default().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_few_are_told_and_the_rest_is_a_number() {
        let mut quota = Quota::default();
        let told = (0..1000).filter(|_| quota.takes("rogue", at(1))).count();
        assert_eq!(told, QUOTA as usize);
        assert!(quota.takes("studio", at(1)), "another is told of");
        assert_eq!(quota.next_due(at(31)), Some(Duration::from_secs(30)));
        assert!(quota.due(at(60)).is_empty());
        assert_eq!(quota.due(at(61)), [("rogue".to_owned(), 990)]);
        assert_eq!(quota, Quota::default(), "nothing is kept of it");
        assert!(quota.takes("rogue", at(62)), "another while");
        assert_eq!(quota.next_due(at(62)), None);
    }

    #[test]
    fn however_many_names_there_are_memory_is_bounded() {
        let mut quota = Quota::default();
        let told = (0..10_000).filter(|n| quota.takes(&format!("m{n}"), at(0)));
        assert_eq!(told.count(), PEERS_MAX + QUOTA as usize);
        assert!(quota.peers.len() <= PEERS_MAX + 1);
        let counted: u64 = quota.due(at(60)).iter().map(|(_, n)| n).sum();
        assert_eq!(counted, (10_000 - PEERS_MAX) as u64 - u64::from(QUOTA));
    }
}
