//! The keeper's shell: tails the journal, the leases and the registry, and carries out what the
//! contract's [`fleet_contract::keeper::Keeper`] wants done. Runs inside the hub process only.
//! Its loop waits for events alone, never for an answer: acts run beside it.

mod errands;
mod removed;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::event::{SupersededTold, kind};
use fleet_contract::ids::{JobId, Lane, MachineId, Writer};
use fleet_contract::job::{Applied, Void};
use fleet_contract::keeper::{Act, Keeper, Pace, Retention};
use fleet_contract::machine;
use fleet_contract::quota::Quota;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::bus::{Bus, BusError, Stored, Usage};
use crate::clock::{self, Steady};
use crate::flow::{self, NewEvent};
use crate::hub::{Identity, PeerEventKind, Permission};
use crate::hub_stats::KeeperCounters;
use crate::journal::Entry;
use crate::lanes::LANES_MAX;
use crate::registry::{decode_lease, decode_presence};
use crate::streams::{self, Ensured, Keeps};
use crate::subject::{self, stream};
use crate::tail::{From, Next, Tail};

use errands::Errands;
use work::{Key, Outcome, Sign};

/// Errands of one lane carried out side by side at the most.
const AT_ONCE: usize = 16;
/// First and longest pause before a keeper whose link broke starts anew.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What a stored message takes besides subject and payload, about.
const MESSAGE_OVERHEAD: u64 = 64;
/// A lane in which tickets wait is looked at no more often than this.
const LANE_LOOK: Duration = Duration::from_secs(30);
/// Voids found while the journal is read for the first time that are told, at the most.
const UNTOLD_MAX: usize = 1024;

/// Runs the keeper until its task is ended. `system` is a connection of the system account, which
/// hears who leaves; `identity` tells who that was.
pub async fn run(
    bus: Bus,
    system: async_nats::Client,
    identity: Arc<Identity>,
    retention: Retention,
    boot: String,
    counters: Arc<KeeperCounters>,
) {
    let pace = Pace::default();
    run_at(bus, system, identity, retention, boot, pace, counters).await;
}

/// As [`run`], at another pace than the contract's: for tests.
pub async fn run_at(
    bus: Bus,
    system: async_nats::Client,
    identity: Arc<Identity>,
    retention: Retention,
    boot: String,
    pace: Pace,
    counters: Arc<KeeperCounters>,
) {
    let mut pause = RESTART_PAUSE.0;
    let mut shell = Shell {
        bus,
        identity,
        boot,
        keeper: Keeper::new(clock::boot_time(), retention).with_pace(pace),
        clock: Steady::new(),
        holes: BTreeMap::new(),
        machines: HashMap::new(),
        errands: Errands::new(),
        events: 0,
        lanes: HashMap::new(),
        caught_up: false,
        untold: BTreeMap::new(),
        room: Room::default(),
        removed: removed::Untold::default(),
        void_quota: Quota::default(),
        malformed_quota: Quota::default(),
        counters,
    };
    loop {
        // The guard has heard it, and starts another keeper in another epoch.
        shell.keeper = Keeper::new(clock::boot_time(), retention)
            .with_pace(pace)
            .in_epoch(shell.bus.epoch());
        if let Err(error) = Box::pin(shell.work(&system)).await {
            tracing::warn!(%error, "the keeper starts anew");
        }
        shell.holes.clear();
        shell.machines.clear();
        shell.caught_up = false;
        shell.untold.clear();
        shell.room = Room::default();
        tokio::time::sleep(clock::jittered(pause)).await;
        pause = (pause * 2).min(RESTART_PAUSE.1);
    }
}

struct Shell {
    bus: Bus,
    identity: Arc<Identity>,
    boot: String,
    keeper: Keeper,
    /// What spans of time are counted by.
    clock: Steady,
    /// Jobs whose last record names an earlier one that may be lost: which.
    holes: BTreeMap<JobId, u64>,
    /// Machines by what is known of their presence.
    machines: HashMap<MachineId, Beat>,
    errands: Errands<Key, Outcome>,
    events: u64,
    /// Lanes in which tickets wait long, by when they were looked at.
    lanes: HashMap<Lane, Instant>,
    /// Whether the journal was read to its end once.
    caught_up: bool,
    /// Void records from before this keeper that nobody has said anything over: only these can be
    /// news to anybody.
    untold: BTreeMap<JobId, NewEvent>,
    room: Room,
    removed: removed::Untold,
    /// What was told lately of whom: records that do not count, and messages that are none.
    void_quota: Quota,
    malformed_quota: Quota,
    counters: Arc<KeeperCounters>,
}

/// What is known of the room in the journal.
#[derive(Debug, Default)]
struct Room {
    /// Whether a look is under way.
    looks: bool,
    /// As it was at the last look; none before the first.
    limit: Option<u64>,
    /// Whether it was too full then.
    over: bool,
    /// Bytes that came since.
    grown: u64,
    /// Whether a job has ended or gone since.
    freed: bool,
}

impl Room {
    /// Whether it is time to look again: after each hundredth that came, and where the journal is
    /// too full after each job that ended or went.
    fn is_due(&self) -> bool {
        let enough = |limit| self.grown > limit / 100 || (self.over && self.freed);
        !self.looks && self.limit.is_none_or(enough)
    }
}

/// A machine's last presence.
#[derive(Debug, Clone, Copy, Default)]
struct Beat {
    seq: u64,
    /// How long after its beat it is lost.
    patience: Option<Duration>,
    /// When it is lost, unless it speaks before.
    lost_at: Option<Instant>,
    /// Whether its queues exist.
    served: bool,
}

impl Shell {
    async fn work(&mut self, system: &async_nats::Client) -> Result<(), BusError> {
        // Before the registry is read, so that no closed connection falls between the two.
        let disconnects = format!("$SYS.ACCOUNT.{}.DISCONNECT", self.identity.account());
        let mut disconnects = system
            .subscribe(disconnects)
            .await
            .map_err(|e| BusError::Closed(e.to_string()))?;
        let all = |subjects: &str| [subjects.to_owned()];
        let (jobs, every) = (all(subject::JOBS), From::LastOfEach);
        let mut journal = Tail::open(&self.bus, stream::JOB, &jobs, From::First).await?;
        let mut leases = Tail::open(&self.bus, stream::LEASE, &all(subject::LEASES), every).await?;
        let mut machines =
            Tail::open(&self.bus, stream::PRES, &all(subject::PRESENCES), every).await?;
        let told = all(&subject::flow("*", kind::ATTEMPT_SUPERSEDED));
        let mut fresh = false;
        let mut superseded = Tail::open(&self.bus, stream::FLOW, &told, From::First).await?;
        let mut link = self.bus.status();
        loop {
            let next = self.next_turn();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = journal.next() => match next? {
                    Next::Message(message, _) => self.record(&message),
                    Next::CaughtUp => self.caught_up(),
                },
                next = leases.next() => if let Next::Message(message, _) = next? {
                    self.lease(&message);
                },
                next = machines.next() => if let Next::Message(message, _) = next? {
                    self.presence(&message);
                },
                // What is told is about jobs that the journal knows by then.
                next = superseded.next(), if self.caught_up => match next? {
                    Next::Message(message, _) => self.superseded(&message, fresh),
                    Next::CaughtUp => fresh = true,
                },
                Some(message) = disconnects.next() => self.disconnected(&message.payload),
                outcome = self.errands.next() => self.done(outcome),
                Ok(()) = link.changed() => {}
                () = timer => {}
            }
            self.turn(leases.follows() && machines.follows());
        }
    }

    /// When there is something to do though nothing comes.
    fn next_turn(&self) -> Option<Instant> {
        let due = if self.caught_up {
            self.keeper.next_due(self.clock.now(), clock::boot_time())
        } else {
            None
        };
        let due = due.map(|pause| Instant::now() + pause);
        let silent = self.machines.values().filter_map(|beat| beat.lost_at).min();
        let untold = [&self.void_quota, &self.malformed_quota]
            .into_iter()
            .filter_map(|quota| quota.next_due(clock::boot_time()))
            .map(|pause| Instant::now() + pause);
        due.into_iter()
            .chain(silent)
            .chain(untold)
            .chain(self.removed.due())
            .min()
    }

    /// Everything that may be due after something came.
    fn turn(&mut self, hears: bool) {
        if self.keeper.turns(clock::boot_time(), hears) {
            tracing::debug!(hears, "silence counts anew");
            for beat in self.machines.values_mut() {
                // One that is on its way to be marked as lost is found to speak, or not.
                if beat.lost_at.is_some() {
                    beat.lost_at = beat.patience.map(|span| Instant::now() + span);
                }
            }
        }
        self.lose_the_silent();
        self.tell_untold();
        self.tell_removed();
        if self.caught_up {
            for act in self.keeper.due(self.clock.now(), clock::boot_time()) {
                self.begin(act);
            }
            self.look_for_room();
        }
    }

    fn caught_up(&mut self) {
        self.caught_up = true;
        for (_, event) in std::mem::take(&mut self.untold) {
            KeeperCounters::count(&self.counters.voids);
            self.tell(event);
        }
        for (job, lost) in std::mem::take(&mut self.holes) {
            self.look_for_hole(job, lost);
        }
    }

    fn record(&mut self, message: &Stored) {
        let Some(entry) = Entry::of(message) else {
            return;
        };
        let time = entry.time();
        let (job, seq) = (entry.job, entry.seq);
        let record = entry
            .record
            .as_ref()
            .map(|(_, record)| record)
            .map_err(Clone::clone);
        let stored = self.clock.of_stored(entry.stored, self.caught_up);
        let applied = self
            .keeper
            .record(job, seq, time, &entry.writer, record, stored);
        let bytes = message.subject.len() + message.payload.len();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX) + MESSAGE_OVERHEAD;
        self.keeper.grew(job, bytes);
        self.room.grown = self.room.grown.saturating_add(bytes);
        let known = self.keeper.job(job);
        self.room.freed |= known.is_some_and(|job| job.state.word().is_terminal());
        if known.is_none() && message.smuggled {
            // Nobody wrote it whose word it could be, and it keeps the first record out.
            self.begin(Act::Purge { job, up_to: seq });
        }
        if let Applied::Void(void) = applied {
            self.offends(&entry.writer.to_string(), message);
            if let Void::Prev { expected, found } = void
                && (expected + 1..seq).contains(&found)
            {
                self.hole(job, found);
            }
            self.void(job, seq, entry.writer, &void);
        } else {
            self.untold.remove(&job);
            self.holes.remove(&job);
        }
    }

    /// A record names a previous one that was not read.
    fn hole(&mut self, job: JobId, lost: u64) {
        if self.caught_up {
            self.look_for_hole(job, lost);
        } else if self.holes.len() < UNTOLD_MAX {
            self.holes.insert(job, lost);
        }
    }

    fn look_for_hole(&mut self, job: JobId, lost: u64) {
        let errand = work::look_for_hole(self.bus.clone(), job, lost);
        self.errands
            .add("holes", AT_ONCE, Key::Job(job, "hole", lost), errand);
    }

    fn void(&mut self, job: JobId, seq: u64, writer: Writer, void: &Void) {
        if self.caught_up {
            KeeperCounters::count(&self.counters.voids);
            let who = writer.to_string();
            if !self.void_quota.takes(&who, clock::boot_time()) {
                return;
            }
        }
        let machine = match writer {
            Writer::Machine(machine) => Some(machine),
            _ => None,
        };
        let event = NewEvent {
            kind: kind::JOURNAL_VOID,
            machine,
            job: Some(job),
            attempt: None,
            detail: json!({ "seq": seq, "reason": void.to_string() }),
        };
        if self.caught_up {
            self.tell(event);
        } else if self.untold.len() < UNTOLD_MAX || self.untold.contains_key(&job) {
            self.untold.insert(job, event);
        } else {
            tracing::warn!(%job, seq, "a void record that is not told: there are too many");
        }
    }

    fn lease(&mut self, message: &Stored) {
        match decode_lease(message) {
            Ok(record) => {
                self.offends(
                    subject::owner(&message.subject).unwrap_or_default(),
                    message,
                );
                self.keeper.lease(&record, message.seq, clock::boot_time());
            }
            Err(error) => self.malformed(message, &error.to_string()),
        }
    }

    /// A machine tells of an attempt of its that had run though another decision held. What cannot be
    /// read is told once only: while it is `fresh`.
    fn superseded(&mut self, message: &Stored, fresh: bool) {
        if let Err(why) = self.try_superseded(message)
            && fresh
        {
            self.malformed(message, &why);
        }
    }

    fn try_superseded(&mut self, message: &Stored) -> Result<(), String> {
        let told = flow::event(message).map_err(|error| error.to_string())?;
        let writer = subject::parse_flow(&message.subject).map(|(writer, _)| writer);
        let detail = SupersededTold::deserialize(told.detail());
        let (Some(job), Some(attempt), Some(machine), Ok(detail)) =
            (told.job, told.attempt, &told.machine, detail)
        else {
            return Err("it does not say which attempt was superseded".to_owned());
        };
        if writer != Some(machine.as_str()) {
            return Err("it speaks for another machine".to_owned());
        }
        if self.keeper.superseded(job, attempt, machine, &detail) {
            Ok(())
        } else {
            Err(format!("attempt {attempt} of job {job} is not its own"))
        }
    }

    fn presence(&mut self, message: &Stored) {
        let presence = match decode_presence(message) {
            Ok(presence) => presence,
            Err(error) => return self.malformed(message, &error.to_string()),
        };
        self.offends(presence.machine.as_str(), message);
        let beat = self.machines.entry(presence.machine.clone()).or_default();
        beat.seq = message.seq;
        beat.patience = machine::lost_after(&presence);
        beat.lost_at = beat.patience.map(|after| Instant::now() + after);
        if !beat.served {
            let key = Key::Serve(presence.machine.clone());
            let errand = work::serve(self.bus.clone(), presence.machine);
            self.errands.add("queues", AT_ONCE, key, errand);
        }
    }

    /// The connection of a machine closed: without goodbye, it is lost, unless it has spoken over a
    /// later connection.
    fn disconnected(&mut self, payload: &[u8]) {
        let Some(peer) = self.identity.peer_event(payload) else {
            return;
        };
        if peer.kind != PeerEventKind::Disconnected || peer.permission != Permission::Worker {
            return;
        }
        let Ok(machine) = peer.name.parse() else {
            return;
        };
        let reason = peer.reason.as_deref().unwrap_or("its connection closed");
        let reason = format!("{reason}, without goodbye");
        self.lose(machine, Sign::Connection(peer.connection), reason);
    }

    /// Machines whose beats stopped while their connection stayed.
    fn lose_the_silent(&mut self) {
        let now = Instant::now();
        let mut silent = Vec::new();
        for (machine, beat) in &mut self.machines {
            if beat.lost_at.is_some_and(|at| at <= now) {
                beat.lost_at = None;
                silent.push((machine.clone(), beat.seq));
            }
        }
        for (machine, seq) in silent {
            self.lose(machine, Sign::Beat(seq), "its beats stopped".to_owned());
        }
    }

    fn lose(&mut self, machine: MachineId, sign: Sign, reason: String) {
        let key = Key::Lost(machine.clone(), sign);
        let errand = work::lose(self.bus.clone(), machine, sign, reason);
        self.errands.add(stream::PRES, AT_ONCE, key, errand);
    }

    fn begin(&mut self, act: Act) {
        let (lane, key) = work::lane_of(&act);
        let errand = work::carry_out(self.bus.clone(), act);
        self.errands.add(lane, AT_ONCE, key, errand);
    }

    /// Looks how full the journal is where enough has come or gone since the last look.
    fn look_for_room(&mut self) {
        if !self.room.is_due() {
            return;
        }
        let errand = work::look(self.bus.clone(), self.room.over);
        self.errands.add("room", 1, Key::Look, errand);
        (self.room.grown, self.room.freed, self.room.looks) = (0, false, true);
    }

    fn room(&mut self, usage: Usage) {
        self.room.looks = false;
        self.room.limit = Some(usage.max_bytes);
        self.room.over = self.keeper.journal_holds(usage.bytes, usage.max_bytes);
    }

    fn done(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::TicketGone(job, revision) => {
                KeeperCounters::count(&self.counters.tickets_again);
                self.keeper.ticket_gone(job, revision);
            }
            Outcome::Cleared(job) => self.keeper.cleared(job, self.clock.now()),
            Outcome::Purged(job) => {
                self.room.freed = true;
                if let Some(removed) = self.keeper.purged(job) {
                    self.removed.add(job, &removed, Instant::now());
                }
            }
            Outcome::LeaseTaken(machine, seq) => {
                let (now, draw) = (self.clock.now(), clock::draw());
                let boot = clock::boot_time();
                self.keeper.lease_taken(&machine, seq, boot, now, draw);
                let detail = json!({ "seq": seq });
                self.tell(NewEvent::of_machine(kind::LEASE_TAKEN, &machine, detail));
            }
            Outcome::Served(machine) => {
                self.machines.entry(machine).or_default().served = true;
            }
            Outcome::Lost(machine, reason, host) => {
                let detail = json!({ "reason": reason, "host": host });
                self.tell(NewEvent::of_machine(kind::MACHINE_LOST, &machine, detail));
            }
            Outcome::Holds(usage) => self.room(usage),
            Outcome::Waits(job, lane) => self.look_at_lane(job, lane),
            Outcome::Hole(job, lost) => {
                let text =
                    format!("record {lost} of job {job} is lost: a block of its stream is damaged");
                tracing::error!("{text}");
                self.tell(NewEvent {
                    kind: kind::HUB_DAMAGED,
                    machine: None,
                    job: Some(job),
                    attempt: None,
                    detail: json!({ "stream": stream::JOB, "seq": lost, "text": text }),
                });
            }
        }
    }

    /// Sees to it that a lane in which a ticket has waited for a while can be pulled from.
    fn look_at_lane(&mut self, job: JobId, lane: Lane) {
        let now = Instant::now();
        if self
            .lanes
            .get(&lane)
            .is_some_and(|at| now - *at < LANE_LOOK)
        {
            return;
        }
        if self.lanes.len() as u64 >= LANES_MAX {
            self.lanes.retain(|_, at| now - *at < LANE_LOOK);
        }
        self.lanes.insert(lane.clone(), now);
        let needs = self.keeper.job(job).and_then(|job| job.spec.needs().ok());
        let errand = work::mend_lane(self.bus.clone(), lane.clone(), needs);
        self.errands.add("lanes", 1, Key::Lane(lane), errand);
    }

    /// What a machine sent does not count, or is of a kind that comes a few times a minute: told to
    /// whoever watches for floods. What was there before this keeper is nobody's flood now.
    fn offends(&self, who: &str, message: &Stored) {
        if !self.caught_up {
            return;
        }
        if let Ok(machine) = who.parse() {
            self.counters.offends(&machine, message.payload.len());
        }
    }

    fn malformed(&mut self, message: &Stored, why: &str) {
        KeeperCounters::count(&self.counters.malformed);
        let who = subject::owner(&message.subject).unwrap_or_default();
        self.offends(who, message);
        if !self.malformed_quota.takes(who, clock::boot_time()) {
            return;
        }
        let detail = json!({ "subject": message.subject, "seq": message.seq, "reason": why });
        self.tell(NewEvent {
            kind: kind::MESSAGE_MALFORMED,
            machine: None,
            job: None,
            attempt: None,
            detail,
        });
    }

    /// Tells which ended jobs were removed.
    fn tell_removed(&mut self) {
        for event in self.removed.take(Instant::now()) {
            self.tell(event);
        }
    }

    /// Tells how many there were more of what was told of somebody one by one.
    fn tell_untold(&mut self) {
        let now = clock::boot_time();
        let voids = self.void_quota.due(now).into_iter();
        let voids = voids.map(|told| (kind::JOURNAL_VOID, told));
        let malformed = self.malformed_quota.due(now).into_iter();
        let malformed = malformed.map(|told| (kind::MESSAGE_MALFORMED, told));
        let untold: Vec<_> = voids.chain(malformed).collect();
        for (kind, (who, count)) in untold {
            let detail = json!({ "count": count, "reason": "more of the kind" });
            self.tell(NewEvent {
                kind,
                machine: who.parse().ok(),
                job: None,
                attempt: None,
                detail,
            });
        }
    }

    /// Tells an event, after all earlier ones.
    fn tell(&mut self, event: NewEvent) {
        let counter = match event.kind {
            kind::MACHINE_LOST => Some(&self.counters.machines_lost),
            kind::LEASE_TAKEN => Some(&self.counters.leases_taken),
            _ => None,
        };
        counter.into_iter().for_each(KeeperCounters::count);
        self.events += 1;
        let (seq, boot) = (self.events, self.boot.clone());
        let errand = work::tell(self.bus.clone(), event, boot, seq);
        self.errands.add(stream::FLOW, 1, Key::Event(seq), errand);
    }
}

/// Makes what every hub has: the streams, the lane `any` and the queues of all lanes with tickets.
///
/// # Errors
/// What the server says.
pub async fn prepare(bus: &Bus, store_bytes: u64) -> Result<Vec<Ensured>, BusError> {
    prepare_keeping(bus, store_bytes, &Keeps::default()).await
}

/// As [`prepare`], where events and output are kept as an operator has set it.
///
/// # Errors
/// What the server says.
pub async fn prepare_keeping(
    bus: &Bus,
    store_bytes: u64,
    keeps: &Keeps,
) -> Result<Vec<Ensured>, BusError> {
    let report = streams::ensure_keeping(bus, store_bytes, keeps).await?;
    bus.prepare_lanes().await?;
    Ok(report)
}
