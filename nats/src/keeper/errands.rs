//! What the keeper has under way: side by side and bounded, in one lane for each thing that may
//! fail to answer, so that a stream without replies holds up nothing but itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

/// Errands of one lane that wait for their turn, at the most.
const WAITING_MAX: usize = 1024;

/// Errands by key: one that is under way is not begun a second time.
pub(super) struct Errands<K, T> {
    lanes: HashMap<&'static str, Lane<K, T>>,
    running: FuturesUnordered<BoxFuture<'static, (&'static str, K, T)>>,
    keys: HashSet<K>,
    dropped: u64,
}

struct Lane<K, T> {
    width: usize,
    running: usize,
    waiting: VecDeque<(K, BoxFuture<'static, T>)>,
}

impl<K, T> Errands<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Send + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            running: FuturesUnordered::new(),
            keys: HashSet::new(),
            dropped: 0,
        }
    }

    /// Begins an errand, or has it wait until fewer than `width` of its lane are under way. Nothing
    /// happens where one of the same key is there already.
    pub(super) fn add(
        &mut self,
        lane: &'static str,
        width: usize,
        key: K,
        errand: impl Future<Output = T> + Send + 'static,
    ) {
        if self.keys.contains(&key) {
            return;
        }
        let entry = self.lanes.entry(lane).or_insert_with(|| Lane {
            width,
            running: 0,
            waiting: VecDeque::new(),
        });
        if entry.waiting.len() >= WAITING_MAX {
            self.dropped += 1;
            // What is dropped is found again when it is due again: said ever more seldom.
            if self.dropped.is_power_of_two() {
                tracing::warn!(lane, dropped = self.dropped, "too much waits: dropped");
            }
            return;
        }
        self.keys.insert(key.clone());
        entry.waiting.push_back((key, Box::pin(errand)));
        self.begin(lane);
    }

    fn begin(&mut self, name: &'static str) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        while lane.running < lane.width
            && let Some((key, errand)) = lane.waiting.pop_front()
        {
            lane.running += 1;
            self.running
                .push(Box::pin(async move { (name, key, errand.await) }));
        }
    }

    /// What the next one to end brought; waits for ever where there is none. May be dropped at any
    /// time: nothing is lost.
    pub(super) async fn next(&mut self) -> T {
        let Some((lane, key, outcome)) = self.running.next().await else {
            return std::future::pending().await;
        };
        self.keys.remove(&key);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.running -= 1;
        }
        self.begin(lane);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_lane_that_never_answers_holds_up_no_other() {
        let mut errands = Errands::new();
        for n in 0..100 {
            errands.add("dead", 16, n, std::future::pending());
        }
        errands.add("alive", 16, 100, async { "done" });
        assert_eq!(errands.next().await, "done");
        assert!(errands.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_narrow_lane_keeps_the_order_and_a_key_is_there_once() {
        let mut errands = Errands::new();
        for n in [1, 2, 2, 3] {
            errands.add("one", 1, n, async move {
                tokio::task::yield_now().await;
                n
            });
        }
        for n in 1..=3 {
            assert_eq!(errands.next().await, n);
        }
        assert!(errands.next().now_or_never().is_none());
        errands.add("one", 1, 2, async { 2 });
        assert_eq!(errands.next().await, 2, "it may be begun anew");
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_is_dropped_counted() {
        let mut errands: Errands<usize, ()> = Errands::new();
        for n in 0..=WAITING_MAX + 1 {
            errands.add("dead", 1, n, std::future::pending());
        }
        assert_eq!(errands.dropped, 1);
    }
}
