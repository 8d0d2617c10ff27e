//! Asks for work: a freed slot asks high, normal, low without waiting, lanes in rotating order, and
//! where nothing is there, parks a pull at every queue. Only lanes whose requirements this machine
//! satisfies and has room for are asked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{Lane, TicketId};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::ticket::Ticket;
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::LinkState;
use fleet_nats::lanes::KnownLane;
use fleet_nats::subject;
use fleet_nats::work::{Asker, Delivered, Parked, Pulled, Queue};
use futures_util::future::select_all;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::capacity::{Hold, Slot};
use super::context::Context;

/// A queue found empty is not asked again this soon while others give work.
const EMPTY_FOR: Duration = Duration::from_millis(5);
/// Pause before a hub that does not answer, or has no queue for us yet, is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// While the disk is full, how often it is looked at again.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// One sweep in so many asks the lanes from the other end.
const OTHER_END: u64 = 8;

/// How long after its dispatch a job is left once to the machines that it prefers.
const PREFER_FOR: Duration = Duration::from_secs(2);
/// Tickets that were left to others and are remembered.
const LEFT_MAX: usize = 1024;
/// Pause before a ticket for this very machine comes again that it has no room for.
const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// The same where it does not have what the job needs.
const LACK_PAUSE: Duration = Duration::from_secs(5);
/// The least between two of them.
const BACK_APART: Duration = Duration::from_millis(10);
/// The longest pause, however many they are.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// A ticket with the slot it may use.
pub(super) struct Offer {
    pub delivered: Delivered,
    pub slot: Slot,
    pub at: fleet_contract::time::Time,
    /// Lapses of the lease when its pull was made.
    pub lapses: u64,
}

/// Brings tickets as long as there are slots, until the receiver is gone.
pub(super) async fn run(context: Arc<Context>, slots: Arc<Semaphore>, offers: mpsc::Sender<Offer>) {
    let mut puller = Puller {
        changes: context.capacity.changes(),
        known: context.lanes.subscribe(),
        context,
        lanes: vec![Lane::any()],
        served: HashMap::new(),
        left: VecDeque::new(),
        back: Back::default(),
        parked: HashMap::new(),
        empty: HashMap::new(),
        sweeps: 0,
        connects: 0,
        lapses: 0,
        asker: None,
    };
    puller.choose();
    loop {
        let permit = match slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                puller.withdraw_all();
                let Ok(permit) = slots.clone().acquire_owned().await else {
                    return;
                };
                permit
            }
        };
        let (delivered, hold) = puller.next().await;
        let slot = Slot::new(Some(permit), hold);
        let at = fleet_nats::clock::now();
        if offers
            .send(Offer {
                delivered,
                slot,
                at,
                lapses: puller.lapses,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

struct Puller {
    context: Arc<Context>,
    /// Every lane there is.
    known: watch::Receiver<Vec<KnownLane>>,
    /// What this machine has.
    changes: watch::Receiver<u64>,
    /// The lanes that are asked.
    lanes: Vec<Lane>,
    /// The lane that gave the last ticket of each priority.
    served: HashMap<Priority, Lane>,
    /// Tickets that were left to machines that their jobs prefer.
    left: VecDeque<TicketId>,
    back: Back,
    parked: HashMap<Queue, Parked>,
    empty: HashMap<Queue, Instant>,
    sweeps: u64,
    connects: u64,
    /// Lapses of the lease before which no pull of these was made.
    lapses: u64,
    asker: Option<Asker>,
}

/// When tickets for this very machine that it has no room for come again: one after another, so that
/// thousands of them leave time for work.
#[derive(Default)]
struct Back {
    last: Option<Instant>,
}

impl Back {
    /// In how long one comes again that is to come no earlier than after `pause`.
    fn after(&mut self, now: Instant, pause: Duration) -> Duration {
        let earliest = now + pause;
        let behind = self.last.map_or(earliest, |last| last + BACK_APART);
        let at = behind.clamp(earliest, now + BACK_WITHIN);
        self.last = Some(at);
        at - now
    }
}

/// What waiting at the queues brought.
enum Waited {
    Ticket(Box<Delivered>),
    /// Ask again from the start.
    Again,
}

impl Puller {
    async fn next(&mut self) -> (Delivered, Option<Hold>) {
        loop {
            self.until_ready().await;
            self.choose_again();
            let delivered = match self.sweep().await {
                Some(delivered) => delivered,
                None => match self.wait().await {
                    Waited::Ticket(delivered) => delivered,
                    Waited::Again => continue,
                },
            };
            if !self.context.has_room() {
                // It comes back by itself where this does not arrive.
                let _ = self.context.bus.give_back(&delivered).await;
                continue;
            }
            if let Some((lane, priority)) = subject::parse_work(&delivered.subject) {
                self.served.insert(priority, lane);
            }
            if let Some(taken) = self.consider(*delivered).await {
                return taken;
            }
        }
    }

    /// Takes a ticket with what its job needs, or gives it back: to machines that its job would
    /// rather run on, or because there is no room.
    async fn consider(&mut self, delivered: Delivered) -> Option<(Delivered, Option<Hold>)> {
        let bus = &self.context.bus;
        let Ok(ticket) = &delivered.ticket else {
            return Some((delivered, None));
        };
        // Requirements that nobody here can read are refused where the job would be started.
        let Ok(needs) = ticket.spec.needs() else {
            return Some((delivered, None));
        };
        let pinned = matches!(ticket.target, Target::Pin(_));
        if !pinned && self.is_for_others(ticket) {
            self.left.push_back(ticket.ticket);
            if self.left.len() > LEFT_MAX {
                self.left.pop_front();
            }
            // Wherever this does not arrive, it comes back by itself.
            let _ = bus.give_back(&delivered).await;
            return None;
        }
        match self.context.capacity.hold(&needs) {
            Ok(hold) => Some((delivered, hold)),
            Err(missing) => {
                tracing::debug!(job = %ticket.job, need = missing.need, "a ticket goes back");
                let pause = match missing.found.passes() {
                    true => ROOM_PAUSE,
                    false => LACK_PAUSE,
                };
                // Nobody else can take what is pinned, and it would come again at once.
                let _ = match pinned {
                    true => {
                        let now = Instant::now();
                        let pause = self.back.after(now, pause);
                        bus.give_back_after(&delivered, pause).await
                    }
                    false => bus.give_back(&delivered).await,
                };
                None
            }
        }
    }

    /// Whether a ticket is left to machines that its job prefers: once, and only when it is new.
    /// Whoever wants it and is free has it within a moment.
    fn is_for_others(&self, ticket: &Ticket) -> bool {
        let Some(prefer) = ticket.spec.prefers() else {
            return false;
        };
        let age = fleet_nats::clock::now().since(ticket.spec.submitted_at);
        !prefer.is(&self.context.me, self.context.capacity.labels())
            && age < PREFER_FOR
            && !self.left.contains(&ticket.ticket)
    }

    /// Chooses the lanes anew if there are others, or this machine has other things.
    fn choose_again(&mut self) {
        let lanes = self.known.has_changed().unwrap_or(false);
        if lanes || self.changes.has_changed().unwrap_or(false) {
            self.choose();
        }
    }

    /// Chooses the lanes that are asked, and takes back pulls that wait at others.
    fn choose(&mut self) {
        self.changes.mark_unchanged();
        let (mut lanes, mut needs) = (Vec::new(), Vec::new());
        for known in self.known.borrow_and_update().iter() {
            if let Some(requires) = &known.needs {
                lanes.push(known.lane.clone());
                needs.push(requires.clone());
            }
        }
        let fits = self.context.capacity.fits(&needs);
        let mut fits = fits.into_iter();
        lanes.retain(|_| fits.next() == Some(true));
        if !lanes.contains(&Lane::any()) {
            lanes.push(Lane::any());
        }
        lanes.sort_unstable();
        lanes.dedup();
        self.lanes = lanes;
        let mine: HashSet<Queue> = self.queues().into_iter().collect();
        let others: Vec<Queue> = self
            .parked
            .keys()
            .filter(|q| !mine.contains(*q))
            .cloned()
            .collect();
        for queue in others {
            if let Some(parked) = self.parked.remove(&queue) {
                self.withdraw(parked);
            }
        }
        self.empty.retain(|queue, _| mine.contains(queue));
    }

    /// Waits until work may be taken: in service, connected, the lease held, room on the disk.
    async fn until_ready(&mut self) {
        loop {
            let mut open = self.context.open.subscribe();
            if !*open.borrow_and_update() {
                self.withdraw_all();
                if open.wait_for(|open| *open).await.is_err() {
                    return std::future::pending().await;
                }
            }
            self.context.connected().await;
            let mut lease = self.context.lease.subscribe();
            if !lease.borrow_and_update().is_valid() {
                self.withdraw_all();
                if lease.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            if !self.context.has_room() {
                self.withdraw_all();
                tokio::time::sleep(fleet_nats::clock::jittered(ROOM_AGAIN)).await;
                continue;
            }
            let lapses = self.context.lease.borrow().lapses_now();
            if lapses != std::mem::replace(&mut self.lapses, lapses) {
                self.withdraw_all();
            }
            let connects = self.context.link.status().borrow().connects;
            if connects != self.connects {
                // Pulls parked over an earlier connection are gone at the hub.
                self.connects = connects;
                self.withdraw_all();
            }
            return;
        }
    }

    /// All queues in the order in which this sweep asks them.
    fn queues(&self) -> Vec<Queue> {
        let me = Target::Pin(self.context.me.clone());
        let mut priorities = Priority::ALL;
        if self.sweeps % OTHER_END == OTHER_END - 1 {
            priorities.reverse();
        }
        let mut queues = Vec::with_capacity(priorities.len() * (self.lanes.len() + 1));
        for priority in priorities {
            queues.push(Queue::new(&me, priority));
            // Each goes on behind the lane that gave the last one, so that an empty lane's turn is
            // nobody's gain.
            let served = self.served.get(&priority);
            let next = served.map_or(0, |s| self.lanes.partition_point(|lane| lane <= s));
            let (before, behind) = self.lanes.split_at(next);
            for lane in behind.iter().chain(before) {
                queues.push(Queue::new(&Target::Lane(lane.clone()), priority));
            }
        }
        queues
    }

    /// Asks every queue that has no parked pull for a ticket that is there now.
    async fn sweep(&mut self) -> Option<Box<Delivered>> {
        self.sweeps = self.sweeps.wrapping_add(1);
        for queue in self.queues() {
            if self.parked.contains_key(&queue) || self.found_empty(&queue) {
                continue;
            }
            match self.ask(&queue).await {
                Ok(Pulled::Ticket(delivered)) => return Some(delivered),
                Ok(Pulled::Empty) => {
                    self.empty.insert(queue, Instant::now());
                }
                // A lane that the hub removed at its start; or this machine's own, not made yet.
                Ok(Pulled::NoConsumer) => self.context.lanes_stale.notify_one(),
                Ok(Pulled::Again) | Err(_) => {}
            }
        }
        None
    }

    async fn ask(&mut self, queue: &Queue) -> Result<Pulled, BusError> {
        let asker = match &mut self.asker {
            Some(asker) => asker,
            none => none.insert(self.context.bus.asker().await?),
        };
        let pulled = asker.pull_now(queue).await;
        if pulled.is_err() {
            // Its answer may still come, and would pass for the next one's.
            self.withdraw_asker();
        }
        pulled
    }

    fn found_empty(&self, queue: &Queue) -> bool {
        self.empty
            .get(queue)
            .is_some_and(|at| at.elapsed() < EMPTY_FOR)
    }

    /// Parks a pull wherever none is and waits for the first to bring something.
    async fn wait(&mut self) -> Waited {
        let bus = self.context.bus.clone();
        let mut missing = false;
        for queue in self.queues() {
            if self.parked.contains_key(&queue) {
                continue;
            }
            // A queue that did not say it was empty may not exist: a pull parked there would never
            // be answered.
            if !self.empty.contains_key(&queue) {
                missing = true;
                continue;
            }
            match bus.park(&queue).await {
                Ok(parked) => {
                    self.parked.insert(queue, parked);
                }
                Err(_) => missing = true,
            }
        }
        let lease_over = self.lease_over();
        let (queue, pulled) = tokio::select! {
            first = first(&mut self.parked) => first,
            () = changed(&self.context) => return Waited::Again,
            _ = self.known.changed() => {
                self.known.mark_changed();
                return Waited::Again;
            }
            _ = self.changes.changed() => {
                self.changes.mark_changed();
                return Waited::Again;
            }
            () = lease_over => return Waited::Again,
            () = tokio::time::sleep(fleet_nats::clock::jittered(RETRY)), if missing => return Waited::Again,
        };
        self.parked.remove(&queue);
        match pulled {
            Pulled::Ticket(delivered) => Waited::Ticket(delivered),
            Pulled::NoConsumer => {
                self.empty.remove(&queue);
                tokio::time::sleep(fleet_nats::clock::jittered(RETRY)).await;
                Waited::Again
            }
            Pulled::Empty | Pulled::Again => Waited::Again,
        }
    }

    fn lease_over(&self) -> impl Future<Output = ()> + use<> {
        let mut lease = self.context.lease.subscribe();
        async move {
            loop {
                let held = *lease.borrow_and_update();
                if held.term == 0 {
                    return;
                }
                let left = held.fresh_until().since(fleet_nats::clock::boot_time());
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    changed = lease.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    fn withdraw_asker(&mut self) {
        if let Some(asker) = self.asker.take() {
            tokio::spawn(asker.withdraw());
        }
    }

    fn withdraw_all(&mut self) {
        self.withdraw_asker();
        for (_, parked) in std::mem::take(&mut self.parked) {
            self.withdraw(parked);
        }
    }

    fn withdraw(&self, parked: Parked) {
        let bus: Bus = self.context.bus.clone();
        tokio::spawn(async move { parked.withdraw(&bus).await });
    }
}

async fn first(parked: &mut HashMap<Queue, Parked>) -> (Queue, Pulled) {
    if parked.is_empty() {
        return std::future::pending().await;
    }
    let waits = parked.iter_mut().map(|(queue, parked)| {
        let queue = queue.clone();
        Box::pin(async move { (queue, parked.next().await) })
    });
    select_all(waits).await.0
}

/// Resolves when the agent closes or the link changes.
async fn changed(context: &Context) {
    let mut open = context.open.subscribe();
    let mut status = context.link.status();
    let connects = status.borrow_and_update().connects;
    tokio::select! {
        () = async { let _ = open.wait_for(|open| !*open).await; } => {}
        () = async { let _ = status.wait_for(|s| s.connects != connects || s.state != LinkState::Connected).await; } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_tickets_without_room_come_again_one_by_one() {
        let mut back = Back::default();
        let now = Instant::now();
        let pauses: Vec<Duration> = (0..10_000).map(|_| back.after(now, ROOM_PAUSE)).collect();
        assert_eq!(pauses[0], ROOM_PAUSE);
        assert_eq!(pauses[1], ROOM_PAUSE + BACK_APART);
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&BACK_WITHIN));
        // One that comes later is not late for their sake once they have come.
        let later = now + 2 * BACK_WITHIN;
        assert_eq!(back.after(later, ROOM_PAUSE), ROOM_PAUSE);
    }
}
