//! Asks for work: a freed slot asks high, normal, low without waiting, lanes in rotating order, and
//! where nothing is there, parks a pull at every queue. Only lanes whose requirements this machine
//! satisfies and has room for are asked. Which queue is asked when is [`super::queues`]'.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::ids::{Lane, TicketId};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::ticket::Ticket;
use fleet_nats::bus::BusError;
use fleet_nats::connect::LinkState;
use fleet_nats::lanes::KnownLane;
use fleet_nats::pulls::{ASK_WITHIN, Pulled, Pulls};
use fleet_nats::work::Delivered;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::capacity::{Hold, Slot};
use super::context::Context;
use super::queues::{Place, Queues, Word};

/// Pause before a hub that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// While the disk is full, how often it is looked at again.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
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
        queues: Queues::new(context.me.clone()),
        context,
        left: VecDeque::new(),
        backs: Backs::default(),
        connects: 0,
        lapses: 0,
        pulls: None,
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
    queues: Queues,
    /// Tickets that were left to machines that their jobs prefer.
    left: VecDeque<TicketId>,
    backs: Backs,
    connects: u64,
    /// Lapses of the lease before which no pull of these was made.
    lapses: u64,
    pulls: Option<Pulls>,
}

/// [`Back`] by what is missing.
#[derive(Default)]
struct Backs {
    room: Back,
    lack: Back,
    /// How often room was given back when `room` was last begun anew.
    freed: u64,
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

impl Backs {
    /// In how long a ticket comes again whose job lacks room that passes, or something else. When
    /// room was given back the next ones come as soon as ever.
    fn after(&mut self, now: Instant, passes: bool, freed: u64) -> Duration {
        if !passes {
            return self.lack.after(now, LACK_PAUSE);
        }
        if std::mem::replace(&mut self.freed, freed) != freed {
            self.room = Back::default();
        }
        self.room.after(now, ROOM_PAUSE)
    }
}

/// Why nothing is asked any more before it is seen whether work may be taken at all.
struct Interrupted;

impl Puller {
    async fn next(&mut self) -> (Delivered, Option<Hold>) {
        loop {
            self.until_ready().await;
            self.choose_again();
            let taken = match self.sweep().await {
                Ok(Some(taken)) => Ok(Some(taken)),
                Ok(None) => self.wait().await,
                Err(Interrupted) => Err(Interrupted),
            };
            let Ok(Some((place, delivered))) = taken else {
                continue;
            };
            if !self.context.has_room() {
                // It comes back by itself where this does not arrive.
                let _ = self.context.bus.give_back(&delivered).await;
                continue;
            }
            self.queues.serve(&place);
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
                // Nobody else can take what is pinned, and it would come again at once.
                let _ = match pinned {
                    true => {
                        let (now, passes) = (Instant::now(), missing.found.passes());
                        let freed = self.context.capacity.freed();
                        let pause = self.backs.after(now, passes, freed);
                        bus.give_back_after(&delivered, pause).await
                    }
                    false => bus.give_back(&delivered).await,
                };
                None
            }
        }
    }

    /// Whether a ticket is left to machines that its job prefers: once. Whoever wants it and waits for
    /// work has it before it comes here again.
    fn is_for_others(&self, ticket: &Ticket) -> bool {
        let Some(prefer) = ticket.spec.prefers() else {
            return false;
        };
        !prefer.is(&self.context.me, self.context.capacity.labels())
            && !self.left.contains(&ticket.ticket)
    }

    /// Chooses the lanes anew if there are others, or this machine has other things.
    fn choose_again(&mut self) {
        let lanes = self.known.has_changed().unwrap_or(false);
        if lanes || self.changes.has_changed().unwrap_or(false) {
            self.choose();
        }
    }

    /// Chooses the lanes that are asked.
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
        lanes.push(Lane::any());
        self.queues.choose(lanes);
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
                self.queues.reconnected();
            }
            return;
        }
    }

    /// Asks the queues that have no pull for a ticket that is there now, until one has.
    async fn sweep(&mut self) -> Result<Option<(Place, Box<Delivered>)>, Interrupted> {
        let order = self.queues.order();
        let mut rest = &order[..];
        loop {
            let (batch, left) = self.queues.batch(rest, Instant::now());
            if batch.is_empty() {
                return Ok(None);
            }
            rest = left;
            let mut found = match self.ask(batch).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "the hub does not say whether there is work");
                    return self.fail().await;
                }
            };
            // In the order in which they were asked; what is parked comes behind it.
            found.sort_by_key(|(place, _)| order.iter().position(|asked| asked == place));
            let mut found = found.into_iter();
            let first = found.next();
            for (_, surplus) in found {
                // It comes back by itself where this does not arrive.
                let _ = self.context.bus.give_back(&surplus).await;
            }
            if first.is_some() {
                return Ok(first);
            }
        }
    }

    /// Asks queues at once; every ticket that came until all have answered.
    async fn ask(&mut self, batch: Vec<&Place>) -> Result<Vec<(Place, Box<Delivered>)>, BusError> {
        let mut asked = Vec::with_capacity(batch.len());
        for place in batch {
            let Some(queue) = self.queues.queue(place).cloned() else {
                continue;
            };
            let number = self.pulls().await?.ask(&queue).await?;
            self.queues.asked(place, number, Instant::now());
            asked.push(number);
        }
        let mut found = Vec::new();
        let late = tokio::time::sleep(ASK_WITHIN);
        let interrupted = self.interrupted();
        tokio::pin!(late, interrupted);
        while asked.iter().any(|number| self.queues.is_open(*number)) {
            let pulls = self.pulls().await?;
            let answer = tokio::select! {
                answer = pulls.next() => answer,
                () = &mut late => None,
                () = &mut interrupted => None,
            };
            let Some(answer) = answer else {
                // What the others bring goes back. A ticket that is here is taken.
                self.withdraw_all();
                if found.is_empty() {
                    return Err(BusError::Closed("asking was interrupted".to_owned()));
                }
                break;
            };
            found.extend(self.heard(answer).await);
        }
        Ok(found)
    }

    /// Takes in what a pull brought; a ticket with the queue it is of.
    async fn heard(
        &mut self,
        (number, pulled): (Option<u64>, Pulled),
    ) -> Option<(Place, Box<Delivered>)> {
        let word = match pulled {
            Pulled::Ticket(delivered) => {
                let place = place(&delivered.subject);
                self.queues.gave(&place);
                if self.queues.is_chosen(&place) {
                    return Some((place, delivered));
                }
                // It was parked there before this machine had something else to do.
                let _ = self.context.bus.give_back(&delivered).await;
                return None;
            }
            Pulled::Empty => Word::Empty,
            Pulled::Again => Word::Again,
            Pulled::NoConsumer => Word::NoConsumer,
        };
        let gone = self.queues.brought(number?, word, Instant::now());
        // A lane that the hub removed at its start. (This machine's own may not be made yet.)
        if gone.is_some_and(|place| place.lane.is_some()) {
            self.context.lanes_stale.notify_one();
        }
        None
    }

    /// Parks a pull wherever none is and waits for the first ticket; none where it is time to ask
    /// again.
    async fn wait(&mut self) -> Result<Option<(Place, Box<Delivered>)>, Interrupted> {
        let interrupted = self.interrupted();
        tokio::pin!(interrupted);
        loop {
            for place in self.queues.to_park() {
                if self.park(&place).await.is_err() {
                    return self.fail().await;
                }
            }
            let due = self.queues.due();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (known, changes) = (&mut self.known, &mut self.changes);
            let Some(pulls) = &mut self.pulls else {
                return self.fail().await;
            };
            let answer = tokio::select! {
                answer = pulls.next() => answer,
                () = &mut interrupted => return Err(Interrupted),
                _ = known.changed() => {
                    known.mark_changed();
                    return Ok(None);
                }
                _ = changes.changed() => {
                    changes.mark_changed();
                    return Ok(None);
                }
                () = due => {
                    self.queues.expire(Instant::now());
                    return Ok(None);
                }
            };
            let Some(answer) = answer else {
                return self.fail().await;
            };
            let found = self.heard(answer).await;
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    async fn park(&mut self, place: &Place) -> Result<(), BusError> {
        if let Some(queue) = self.queues.queue(place).cloned() {
            let number = self.pulls().await?.park(&queue).await?;
            self.queues.parked(place, number, Instant::now());
        }
        Ok(())
    }

    /// Begins anew after a moment, with nothing under way.
    async fn fail<T>(&mut self) -> Result<T, Interrupted> {
        self.withdraw_all();
        tokio::time::sleep(fleet_nats::clock::jittered(RETRY)).await;
        Err(Interrupted)
    }

    async fn pulls(&mut self) -> Result<&mut Pulls, BusError> {
        match &mut self.pulls {
            Some(pulls) => Ok(pulls),
            none => Ok(none.insert(self.context.bus.pulls().await?)),
        }
    }

    /// Resolves when it has to be seen anew whether work may be taken: the agent closes, the link
    /// changes, the lease is over.
    fn interrupted(&self) -> impl Future<Output = ()> + use<> {
        let (context, connects) = (self.context.clone(), self.connects);
        let lease_over = self.lease_over();
        async move {
            tokio::select! {
                () = changed(&context, connects) => {}
                () = lease_over => {}
            }
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

    /// Takes back all pulls. What they still bring goes back to its queue.
    fn withdraw_all(&mut self) {
        self.queues.withdrawn();
        if let Some(pulls) = self.pulls.take() {
            tokio::spawn(pulls.withdraw());
        }
    }
}

/// The queue that a ticket with this subject is of, whatever else the subject says.
fn place(subject: &str) -> Place {
    let mut tokens = subject.split('.').skip(1);
    let of_lane = tokens.next() == Some("work");
    let name = tokens.next().filter(|_| of_lane);
    Place {
        lane: name.and_then(|name| name.parse().ok()),
        priority: tokens
            .next()
            .and_then(Priority::from_letter)
            .unwrap_or_default(),
    }
}

/// Resolves when the agent closes, or the link is not the one that had come up so many times.
async fn changed(context: &Context, connects: u64) {
    let mut open = context.open.subscribe();
    let mut status = context.link.status();
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
        // One that lacks something does not make one wait that lacks room, nor do those of before when
        // room was given back.
        let mut backs = Backs::default();
        for _ in 0..10_000 {
            backs.after(now, true, 1);
        }
        assert_eq!(backs.after(now, true, 1), BACK_WITHIN);
        assert_eq!(backs.after(now, false, 1), LACK_PAUSE);
        assert_eq!(backs.after(now, true, 2), ROOM_PAUSE);
        assert_eq!(backs.after(now, true, 2), ROOM_PAUSE + BACK_APART);
        // One that comes later is not late for their sake once they have come.
        let later = now + 2 * BACK_WITHIN;
        assert_eq!(back.after(later, ROOM_PAUSE), ROOM_PAUSE);
    }
}
