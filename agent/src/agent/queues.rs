//! What is known of the queues that this machine asks for work, and which is asked next: the pure
//! part of the puller. Time is an argument; nothing here waits.
//!
//! A freed slot asks in order. To ask a hundred empty queues one after another would take a hundred
//! round trips, to ask all at once would bring a hundred tickets for one slot. So a queue that gave a
//! ticket when it was asked last is asked alone, and those between, of which none is expected, at
//! once; what they bring beyond the first goes back.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fleet_contract::ids::{Lane, MachineId};
use fleet_contract::spec::{Priority, Target};
use fleet_nats::pulls::PARK_OVER;
use fleet_nats::work::Queue;
use tokio::time::Instant;

/// A queue found empty is not asked again this soon while others give work.
const EMPTY_FOR: Duration = Duration::from_millis(20);
/// First and longest pause before a queue that is not there, or does not answer, is asked again.
const LATER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest for this machine's own queues, which the keeper makes when it has heard of it.
const OWN_LATER: Duration = Duration::from_millis(500);
/// A parked pull that is over sooner than this is not made again at once.
const PARK_LEAST: Duration = Duration::from_secs(1);
/// Queues that are asked at once, at the most.
const AT_ONCE: usize = 64;
/// One sweep in so many asks the priorities from the other end.
const OTHER_END: u64 = 8;

/// A queue: of a lane, or the machine's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub priority: Priority,
    /// None: the machine's own.
    pub lane: Option<Lane>,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// It gave a ticket when it was asked last.
    Gives,
    /// It was empty.
    Empty(Instant),
    /// It is not there, or does not answer.
    Later { until: Instant, pause: Duration },
}

#[derive(Debug)]
struct One {
    queue: Queue,
    known: Known,
    pull: Option<Pull>,
    /// Whether it is among those that are asked.
    chosen: bool,
}

/// A pull that is under way.
#[derive(Debug, Clone, Copy)]
struct Pull {
    number: u64,
    since: Instant,
    parked: bool,
}

/// What became of a pull that brought no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Empty,
    Again,
    NoConsumer,
}

/// The queues.
#[derive(Debug)]
pub(super) struct Queues {
    me: Target,
    /// The lanes that are asked, sorted.
    lanes: Vec<Lane>,
    all: BTreeMap<Place, One>,
    /// Whose pull is under way, by its number.
    pulls: HashMap<u64, Place>,
    /// The lane that gave the last ticket of each priority.
    served: HashMap<Priority, Lane>,
    sweeps: u64,
}

impl Queues {
    pub(super) fn new(me: MachineId) -> Self {
        Self {
            me: Target::Pin(me),
            lanes: Vec::new(),
            all: BTreeMap::new(),
            pulls: HashMap::new(),
            served: HashMap::new(),
            sweeps: 0,
        }
    }

    /// Asks these lanes from now on. One that is no longer among them keeps the pull that waits
    /// there until that is over, rather than another each time it comes and goes.
    pub(super) fn choose(&mut self, mut lanes: Vec<Lane>) {
        lanes.sort_unstable();
        lanes.dedup();
        for one in self.all.values_mut() {
            one.chosen = false;
        }
        let own = std::iter::once(None);
        for lane in own.chain(lanes.iter().cloned().map(Some)) {
            let target = lane.clone().map_or_else(|| self.me.clone(), Target::Lane);
            for priority in Priority::ALL {
                let lane = lane.clone();
                let one = self
                    .all
                    .entry(Place { priority, lane })
                    .or_insert_with(|| One {
                        queue: Queue::new(&target, priority),
                        known: Known::Nothing,
                        pull: None,
                        chosen: false,
                    });
                one.chosen = true;
                if let Known::Later { .. } = one.known {
                    one.known = Known::Nothing;
                }
            }
        }
        self.all.retain(|_, one| one.chosen || one.pull.is_some());
        self.lanes = lanes;
    }

    /// All queues in the order in which the next sweep asks them.
    pub(super) fn order(&mut self) -> Vec<Place> {
        self.sweeps = self.sweeps.wrapping_add(1);
        let mut priorities = Priority::ALL;
        if self.sweeps.is_multiple_of(OTHER_END) {
            priorities.reverse();
        }
        let mut order = Vec::with_capacity(priorities.len() * (self.lanes.len() + 1));
        for priority in priorities {
            // Each goes on behind the lane that gave the last one, so that an empty lane's turn is
            // nobody's gain.
            let served = self.served.get(&priority);
            let next = served.map_or(0, |s| self.lanes.partition_point(|lane| lane <= s));
            let (before, behind) = self.lanes.split_at(next);
            let lanes = behind.iter().chain(before).cloned().map(Some);
            let all = std::iter::once(None).chain(lanes);
            order.extend(all.map(|lane| Place { priority, lane }));
        }
        order
    }

    /// The queues that are asked next, all at once, from the front of an order; and what is left of
    /// it. None are left where there are none.
    pub(super) fn batch<'a>(
        &self,
        order: &'a [Place],
        now: Instant,
    ) -> (Vec<&'a Place>, &'a [Place]) {
        let mut batch = Vec::new();
        for (at, place) in order.iter().enumerate() {
            let Some(one) = self.all.get(place).filter(|one| one.is_asked(now)) else {
                continue;
            };
            if matches!(one.known, Known::Gives) {
                if batch.is_empty() {
                    return (vec![place], &order[at + 1..]);
                }
                return (batch, &order[at..]);
            }
            batch.push(place);
            if batch.len() == AT_ONCE {
                return (batch, &order[at + 1..]);
            }
        }
        (batch, &[])
    }

    /// The queues at which a pull is to be parked now.
    pub(super) fn to_park(&self) -> Vec<Place> {
        let free = self.all.iter().filter(|(_, one)| {
            one.chosen && one.pull.is_none() && matches!(one.known, Known::Empty(_))
        });
        free.map(|(place, _)| place.clone()).collect()
    }

    pub(super) fn queue(&self, place: &Place) -> Option<&Queue> {
        self.all.get(place).map(|one| &one.queue)
    }

    pub(super) fn is_chosen(&self, place: &Place) -> bool {
        self.all.get(place).is_some_and(|one| one.chosen)
    }

    /// It was asked there whether there is a ticket.
    pub(super) fn asked(&mut self, place: &Place, number: u64, now: Instant) {
        self.pulled(place, number, now, false);
    }

    /// A pull was parked there.
    pub(super) fn parked(&mut self, place: &Place, number: u64, now: Instant) {
        self.pulled(place, number, now, true);
    }

    fn pulled(&mut self, place: &Place, number: u64, since: Instant, parked: bool) {
        if let Some(one) = self.all.get_mut(place) {
            one.pull = Some(Pull {
                number,
                since,
                parked,
            });
            self.pulls.insert(number, place.clone());
        }
    }

    /// Whether a pull is still under way.
    pub(super) fn is_open(&self, number: u64) -> bool {
        self.pulls.contains_key(&number)
    }

    /// A ticket came from there.
    pub(super) fn gave(&mut self, place: &Place) {
        if let Some(one) = self.all.get_mut(place) {
            one.known = Known::Gives;
            if let Some(pull) = one.pull.take() {
                self.pulls.remove(&pull.number);
            }
        }
    }

    /// A ticket from there is taken: others of its priority come first next time.
    pub(super) fn serve(&mut self, place: &Place) {
        if let Some(lane) = &place.lane {
            self.served.insert(place.priority, lane.clone());
        }
    }

    /// A pull brought no ticket. Where that is a queue that is not there: its lane.
    pub(super) fn brought(&mut self, number: u64, word: Word, now: Instant) -> Option<Place> {
        let place = self.pulls.remove(&number)?;
        let one = self.all.get_mut(&place)?;
        let pull = one.pull.take();
        let at_once = pull.is_some_and(|pull| pull.parked && now - pull.since < PARK_LEAST);
        match word {
            Word::NoConsumer => one.later(&place, now),
            Word::Again if at_once => one.later(&place, now),
            // Its tickets are for those who have waited there for longer, or it has waited its time
            // itself: a pull is parked there.
            Word::Empty | Word::Again => one.known = Known::Empty(now),
        }
        (word == Word::NoConsumer).then_some(place)
    }

    /// When a queue is to be asked, or a pull is surely over, though nothing came.
    pub(super) fn due(&self) -> Option<Instant> {
        let chosen = self.all.values().filter(|one| one.chosen);
        chosen.filter_map(One::due).min()
    }

    /// Gives up pulls that are surely over.
    pub(super) fn expire(&mut self, now: Instant) {
        for one in self.all.values_mut() {
            if let Some(pull) = one.pull.take_if(|pull| now - pull.since >= PARK_OVER) {
                self.pulls.remove(&pull.number);
            }
        }
        self.all.retain(|_, one| one.chosen || one.pull.is_some());
    }

    /// All pulls were taken back. What did not answer is asked again: it may be another hub.
    pub(super) fn withdrawn(&mut self) {
        self.pulls.clear();
        for one in self.all.values_mut() {
            one.pull = None;
        }
        self.all.retain(|_, one| one.chosen);
    }

    /// It is another connection, or another hub: what was not there may be.
    pub(super) fn reconnected(&mut self) {
        for one in self.all.values_mut() {
            one.known = Known::Nothing;
        }
    }
}

impl One {
    fn is_asked(&self, now: Instant) -> bool {
        let due = match self.known {
            Known::Nothing | Known::Gives => true,
            Known::Empty(at) => now - at >= EMPTY_FOR,
            Known::Later { until, .. } => now >= until,
        };
        self.chosen && self.pull.is_none() && due
    }

    fn due(&self) -> Option<Instant> {
        match (self.pull, self.known) {
            (Some(pull), _) => Some(pull.since + PARK_OVER),
            (None, Known::Later { until, .. }) => Some(until),
            (None, Known::Empty(at)) => Some(at + EMPTY_FOR),
            (None, Known::Nothing | Known::Gives) => None,
        }
    }

    fn later(&mut self, place: &Place, now: Instant) {
        let most = match place.lane {
            Some(_) => LATER.1,
            None => OWN_LATER,
        };
        let pause = match self.known {
            Known::Later { pause, .. } => (pause * 2).min(most),
            _ => LATER.0,
        };
        let until = now + fleet_nats::clock::jittered(pause);
        self.known = Known::Later { until, pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(n: usize) -> Vec<Lane> {
        let needs = (0..n).map(|n| format!("cores>={}", n + 1));
        let parsed = needs.map(|n| n.parse::<fleet_contract::needs::Needs>().unwrap().lane());
        parsed.collect()
    }

    fn queues(n: usize) -> Queues {
        let mut queues = Queues::new("studio".parse().unwrap());
        queues.choose(lanes(n));
        queues
    }

    /// A hub with so many tickets in each lane, at normal priority.
    struct Hub(HashMap<Lane, u64>);

    /// What a sweep with one free slot did.
    struct Swept {
        ran: Option<Lane>,
        round_trips: u64,
        back: u64,
    }

    impl Hub {
        fn take(&mut self, place: &Place) -> bool {
            let lane = place.lane.as_ref();
            let waiting = lane
                .filter(|_| place.priority == Priority::Normal)
                .and_then(|lane| self.0.get_mut(lane))
                .filter(|n| **n > 0);
            waiting.map(|n| *n -= 1).is_some()
        }

        fn sweep(&mut self, queues: &mut Queues, now: Instant) -> Swept {
            let order = queues.order();
            let (mut rest, mut number) = (&order[..], 1_000 * queues.sweeps);
            let mut swept = Swept {
                ran: None,
                round_trips: 0,
                back: 0,
            };
            loop {
                let (batch, left) = queues.batch(rest, now);
                if batch.is_empty() {
                    return swept;
                }
                rest = left;
                swept.round_trips += 1;
                for place in batch {
                    number += 1;
                    queues.asked(place, number, now);
                    if !self.take(place) {
                        queues.brought(number, Word::Empty, now);
                        continue;
                    }
                    queues.gave(place);
                    let lane = place.lane.clone().unwrap();
                    if swept.ran.is_none() {
                        queues.serve(place);
                        swept.ran = Some(lane);
                    } else {
                        *self.0.get_mut(&lane).unwrap() += 1;
                        swept.back += 1;
                    }
                }
                if swept.ran.is_some() {
                    return swept;
                }
            }
        }
    }

    #[test]
    fn lanes_that_all_have_work_take_exact_turns_and_give_no_ticket_too_many() {
        let mut queues = queues(6);
        let mut hub = Hub(lanes(6).into_iter().map(|lane| (lane, 200)).collect());
        let mut now = Instant::now();
        let mut ran: HashMap<Lane, u64> = HashMap::new();
        let first = hub.sweep(&mut queues, now);
        assert_eq!((first.round_trips, first.back), (1, 5));
        *ran.entry(first.ran.unwrap()).or_default() += 1;
        for _ in 1..600 {
            now += Duration::from_millis(30);
            let swept = hub.sweep(&mut queues, now);
            // Those of the priority above, which are empty, at once, and then the one whose turn it is.
            assert_eq!(swept.back, 0);
            assert!(swept.round_trips <= 2, "{}", swept.round_trips);
            *ran.entry(swept.ran.unwrap()).or_default() += 1;
        }
        assert!(ran.values().all(|n| *n == 100), "{ran:?}");
    }

    #[test]
    fn a_hundred_lanes_with_one_that_gives_cost_a_few_round_trips() {
        let mut queues = queues(100);
        let busy = lanes(100).swap_remove(70);
        let mut hub = Hub(HashMap::from([(busy.clone(), 1_000)]));
        let mut now = Instant::now();
        let mut most = 0;
        for _ in 0..100 {
            now += Duration::from_secs(1);
            let swept = hub.sweep(&mut queues, now);
            assert_eq!((swept.ran.as_ref(), swept.back), (Some(&busy), 0));
            most = most.max(swept.round_trips);
        }
        assert!(most <= 6, "{most}");
        // Nothing is asked twice within a moment but the one that gives.
        let swept = hub.sweep(&mut queues, now + Duration::from_millis(1));
        assert_eq!(swept.round_trips, 1);
    }

    #[test]
    fn a_queue_that_is_not_there_is_asked_less_and_less_until_lanes_change() {
        let mut queues = queues(1);
        let lane = lanes(1).remove(0);
        let place = Place {
            priority: Priority::Normal,
            lane: Some(lane.clone()),
        };
        let mut now = Instant::now();
        let mut asked = 0;
        let end = now + Duration::from_secs(60);
        while now < end {
            let order = [place.clone()];
            let (batch, _) = queues.batch(&order, now);
            if batch.is_empty() {
                now = queues.all[&place].due().unwrap();
                continue;
            }
            asked += 1;
            queues.asked(&place, asked, now);
            let gone = queues.brought(asked, Word::NoConsumer, now);
            assert_eq!(gone.as_ref(), Some(&place));
        }
        assert!((10..30).contains(&asked), "{asked}");
        queues.choose(vec![lane]);
        assert_eq!(queues.batch(&[place], now).0.len(), 1);
    }

    #[test]
    fn a_lane_that_comes_and_goes_keeps_one_pull() {
        let mut queues = queues(1);
        let lane = lanes(1).remove(0);
        let now = Instant::now();
        for (number, place) in (1..).zip(queues.order()) {
            queues.asked(&place, number, now);
            queues.brought(number, Word::Empty, now);
        }
        let parked = queues.to_park();
        assert_eq!(parked.len(), 6);
        for (number, place) in (100..).zip(&parked) {
            queues.parked(place, number, now);
        }
        for _ in 0..10 {
            queues.choose(Vec::new());
            assert!(!queues.is_chosen(parked.last().unwrap()));
            queues.choose(vec![lane.clone()]);
            assert_eq!(queues.to_park(), []);
        }
        // What is over after its whole time is made anew, what is over at once is not.
        queues.brought(100, Word::Again, now + PARK_OVER);
        assert_eq!(queues.to_park().len(), 1);
        queues.brought(101, Word::Again, now);
        assert_eq!(queues.to_park().len(), 1);
    }
}
