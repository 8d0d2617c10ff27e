//! Asks for work: a freed slot asks high, normal, low without waiting, lanes in rotating order, and
//! where nothing is there, parks a pull at every queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::Lane;
use fleet_contract::spec::{Priority, Target};
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::connect::LinkState;
use fleet_nats::subject::{self, stream};
use fleet_nats::work::{Asker, Delivered, Parked, Pulled, Queue};
use futures_util::future::select_all;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::context::Context;

/// A queue found empty is not asked again this soon while others give work.
const EMPTY_FOR: Duration = Duration::from_millis(5);
/// Pause before a hub that does not answer, or has no queue for us yet, is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// While the disk is full, how often it is looked at again.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// One sweep in so many asks the lanes from the other end.
const OTHER_END: u64 = 8;

/// A ticket with the slot it may use.
pub(super) struct Offer {
    pub delivered: Delivered,
    pub slot: OwnedSemaphorePermit,
    pub at: fleet_contract::time::Time,
    /// Lapses of the lease when its pull was made.
    pub lapses: u64,
}

/// Brings tickets as long as there are slots, until the receiver is gone.
pub(super) async fn run(context: Arc<Context>, slots: Arc<Semaphore>, offers: mpsc::Sender<Offer>) {
    let mut puller = Puller {
        context,
        lanes: vec![Lane::any()],
        parked: HashMap::new(),
        empty: HashMap::new(),
        sweeps: 0,
        connects: 0,
        lapses: 0,
        asker: None,
    };
    loop {
        let slot = match slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                puller.withdraw_all();
                let Ok(slot) = slots.clone().acquire_owned().await else {
                    return;
                };
                slot
            }
        };
        let delivered = puller.next().await;
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
    lanes: Vec<Lane>,
    parked: HashMap<Queue, Parked>,
    empty: HashMap<Queue, Instant>,
    sweeps: u64,
    connects: u64,
    /// Lapses of the lease before which no pull of these was made.
    lapses: u64,
    asker: Option<Asker>,
}

/// What waiting at the queues brought.
enum Waited {
    Ticket(Box<Delivered>),
    /// Ask again from the start.
    Again,
}

impl Puller {
    async fn next(&mut self) -> Delivered {
        loop {
            self.until_ready().await;
            let delivered = match self.sweep().await {
                Some(delivered) => delivered,
                None => match self.wait().await {
                    Waited::Ticket(delivered) => delivered,
                    Waited::Again => continue,
                },
            };
            if self.context.has_room() {
                return *delivered;
            }
            // It comes back by itself where this does not arrive.
            let _ = self.context.bus.give_back(&delivered).await;
        }
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
                self.read_lanes().await;
            }
            return;
        }
    }

    /// The lanes whose requirements this machine satisfies: those that require nothing.
    async fn read_lanes(&mut self) {
        #[derive(Deserialize)]
        struct Form {
            #[serde(default)]
            requires: String,
        }
        let Ok(found) = self
            .context
            .bus
            .last_of_each(stream::LANE, &[subject::LANES])
            .await
        else {
            return;
        };
        let mut lanes: Vec<Lane> = found
            .iter()
            .filter(|message| {
                fleet_contract::envelope::decode::<Form>(
                    &message.payload,
                    "lane",
                    fleet_contract::envelope::MESSAGE_MAX_BYTES,
                )
                .is_ok_and(|(_, form)| form.requires.is_empty())
            })
            .filter_map(|message| subject::parse_lane(&message.subject))
            .collect();
        if !lanes.contains(&Lane::any()) {
            lanes.push(Lane::any());
        }
        self.lanes = lanes;
    }

    /// All queues in the order in which this sweep asks them.
    fn queues(&self) -> Vec<Queue> {
        let me = Target::Pin(self.context.me.clone());
        let mut priorities = Priority::ALL;
        let mut lanes = self.lanes.clone();
        let turn = usize::try_from(self.sweeps).unwrap_or(0) % lanes.len().max(1);
        lanes.rotate_left(turn);
        if self.sweeps % OTHER_END == OTHER_END - 1 {
            priorities.reverse();
            lanes.reverse();
        }
        let mut queues = Vec::with_capacity(priorities.len() * (lanes.len() + 1));
        for priority in priorities {
            queues.push(Queue::new(&me, priority));
            queues.extend(
                lanes
                    .iter()
                    .map(|lane| Queue::new(&Target::Lane(lane.clone()), priority)),
            );
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
                Ok(Pulled::Again | Pulled::NoConsumer) | Err(_) => {}
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
        for (_, parked) in self.parked.drain() {
            let bus: Bus = self.context.bus.clone();
            tokio::spawn(async move { parked.withdraw(&bus).await });
        }
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
