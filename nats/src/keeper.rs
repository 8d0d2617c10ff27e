//! The keeper's shell: tails the journal, the leases and the registry, and carries out what the
//! contract's [`fleet_contract::keeper::Keeper`] wants done. Runs inside the hub process only.

use std::collections::HashMap;
use std::time::Duration;

use fleet_contract::event::kind;
use fleet_contract::ids::{MachineId, Writer};
use fleet_contract::job::Applied;
use fleet_contract::keeper::{Act, Keeper, Retention};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{self, Presence, Service};
use fleet_contract::spec::Target;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use crate::bus::{Bus, BusError, Stored};
use crate::clock;
use crate::flow::NewEvent;
use crate::hub::{Identity, PeerEventKind, Permission};
use crate::journal::Entry;
use crate::registry::{decode_lease, decode_presence};
use crate::subject::{self, HUB, stream};
use crate::tail::{From, Next, Tail};

/// Acts carried out side by side at the most.
const ACTS_AT_ONCE: usize = 16;
/// First and longest pause before a keeper whose link broke starts anew.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Runs the keeper until its task is ended. `system` is a connection of the system account, which
/// hears who leaves; `identity` tells who that was.
pub async fn run(
    bus: Bus,
    system: async_nats::Client,
    identity: std::sync::Arc<Identity>,
    retention: Retention,
    boot: String,
) {
    let mut pause = RESTART_PAUSE.0;
    let mut events = 0;
    loop {
        let mut shell = Shell::new(&bus, &identity, retention, &boot, events);
        if let Err(error) = Box::pin(shell.work(&system)).await {
            tracing::warn!(%error, "the keeper starts anew");
        }
        events = shell.events;
        tokio::time::sleep(clock::jittered(pause)).await;
        pause = (pause * 2).min(RESTART_PAUSE.1);
    }
}

/// What an act brought.
enum Outcome {
    Nothing,
    TicketGone(fleet_contract::ids::JobId, u64),
    LeaseTaken(MachineId, u64),
    Cleared(fleet_contract::ids::JobId),
    Purged(fleet_contract::ids::JobId),
}

struct Shell<'a> {
    bus: &'a Bus,
    identity: &'a Identity,
    boot: &'a str,
    keeper: Keeper,
    /// Machines by what is known of their presence.
    machines: HashMap<MachineId, Beat>,
    events: u64,
}

/// A machine's last presence.
#[derive(Debug, Clone, Copy, Default)]
struct Beat {
    seq: u64,
    /// When it is lost, unless it speaks before.
    lost_at: Option<Instant>,
    /// Whether its queues exist.
    served: bool,
}

impl<'a> Shell<'a> {
    fn new(
        bus: &'a Bus,
        identity: &'a Identity,
        retention: Retention,
        boot: &'a str,
        events: u64,
    ) -> Self {
        let keeper = Keeper::new(clock::boot_time(), retention);
        Self {
            bus,
            identity,
            boot,
            keeper,
            machines: HashMap::new(),
            events,
        }
    }

    async fn work(&mut self, system: &async_nats::Client) -> Result<(), BusError> {
        // Before the registry is read, so that no closed connection falls between the two.
        let disconnects = format!("$SYS.ACCOUNT.{}.DISCONNECT", self.identity.account());
        let mut disconnects = system
            .subscribe(disconnects)
            .await
            .map_err(|e| BusError::Closed(e.to_string()))?;
        let mut journal = Tail::open(
            self.bus,
            stream::JOB,
            &[subject::JOBS.to_owned()],
            From::First,
        )
        .await?;
        let mut leases = Tail::open(
            self.bus,
            stream::LEASE,
            &[subject::LEASES.to_owned()],
            From::LastOfEach,
        )
        .await?;
        let mut machines = Tail::open(
            self.bus,
            stream::PRES,
            &[subject::PRESENCES.to_owned()],
            From::LastOfEach,
        )
        .await?;
        let mut caught_up = false;
        loop {
            let due = if caught_up {
                self.keeper.next_due(clock::now(), clock::boot_time())
            } else {
                None
            };
            let due = due.map(|pause| Instant::now() + pause);
            let silent = self.machines.values().filter_map(|beat| beat.lost_at).min();
            let timer = async {
                match due.into_iter().chain(silent).min() {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = journal.next() => match next? {
                    Next::Message(message, _) => self.record(&message).await,
                    Next::CaughtUp => caught_up = true,
                },
                next = leases.next() => if let Next::Message(message, _) = next? {
                    self.lease(&message).await;
                },
                next = machines.next() => if let Next::Message(message, _) = next? {
                    self.presence(&message).await;
                },
                Some(message) = disconnects.next() => self.disconnected(&message.payload).await,
                () = timer => {}
            }
            self.lose_the_silent().await;
            if caught_up {
                self.act().await;
            }
        }
    }

    async fn record(&mut self, message: &Stored) {
        let Some(entry) = Entry::of(message) else {
            return;
        };
        let time = entry.time();
        let record = entry
            .record
            .as_ref()
            .map(|(_, record)| record)
            .map_err(Clone::clone);
        let applied = self.keeper.record(
            entry.job,
            entry.seq,
            time,
            &entry.writer,
            record,
            entry.stored,
        );
        if let Applied::Void(void) = applied {
            let machine = match entry.writer {
                Writer::Machine(machine) => Some(machine),
                _ => None,
            };
            let detail = json!({ "seq": entry.seq, "reason": void.to_string() });
            self.tell(NewEvent {
                kind: kind::JOURNAL_VOID,
                machine,
                job: Some(entry.job),
                attempt: None,
                detail,
            })
            .await;
        }
    }

    async fn lease(&mut self, message: &Stored) {
        match decode_lease(message) {
            Ok(record) => self.keeper.lease(&record, message.seq, clock::boot_time()),
            Err(error) => self.malformed(message, &error.to_string()).await,
        }
    }

    async fn presence(&mut self, message: &Stored) {
        let presence = match decode_presence(message) {
            Ok(presence) => presence,
            Err(error) => return self.malformed(message, &error.to_string()).await,
        };
        let beat = self.machines.entry(presence.machine.clone()).or_default();
        beat.seq = message.seq;
        beat.lost_at = machine::lost_after(&presence).map(|after| Instant::now() + after);
        if beat.served {
            return;
        }
        match self
            .bus
            .ensure_queues(&Target::Pin(presence.machine.clone()))
            .await
        {
            Ok(()) => beat.served = true,
            Err(error) => {
                tracing::warn!(%error, machine = %presence.machine, "cannot make the machine's queues");
            }
        }
    }

    /// The connection of a machine closed: without goodbye, it is lost, unless it has spoken over a
    /// later connection.
    async fn disconnected(&mut self, payload: &[u8]) {
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
        self.lose(&machine, &reason, |seen, _| {
            seen.connection == peer.connection
        })
        .await;
    }

    /// Machines whose beats stopped while their connection stayed.
    async fn lose_the_silent(&mut self) {
        let now = Instant::now();
        let silent: Vec<(MachineId, u64)> = self
            .machines
            .iter()
            .filter(|(_, beat)| beat.lost_at.is_some_and(|at| at <= now))
            .map(|(machine, beat)| (machine.clone(), beat.seq))
            .collect();
        for (machine, seq) in silent {
            if let Some(beat) = self.machines.get_mut(&machine) {
                beat.lost_at = None;
            }
            self.lose(&machine, "its beats stopped", |_, found| found == seq)
                .await;
        }
    }

    async fn lose(
        &mut self,
        machine: &MachineId,
        reason: &str,
        is_it: impl Fn(&Presence, u64) -> bool,
    ) {
        match self.mark_lost(machine, is_it).await {
            Ok(Some(host)) => {
                let detail = json!({ "reason": reason, "host": host });
                self.tell(NewEvent::of_machine(kind::MACHINE_LOST, machine, detail))
                    .await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, %machine, "cannot mark the machine as lost"),
        }
    }

    /// Marks a machine as lost, unless it has said goodbye or spoken since; its host.
    async fn mark_lost(
        &self,
        machine: &MachineId,
        is_it: impl Fn(&Presence, u64) -> bool,
    ) -> Result<Option<String>, BusError> {
        let Some(message) = self
            .bus
            .last(stream::PRES, &subject::presence(machine))
            .await?
        else {
            return Ok(None);
        };
        let Ok(mut presence) = decode_presence(&message) else {
            return Ok(None);
        };
        if matches!(presence.service, Service::Offline | Service::Lost)
            || !is_it(&presence, message.seq)
        {
            return Ok(None);
        }
        presence.service = Service::Lost;
        presence.lost_at = Some(clock::now());
        match self.bus.beat(&presence, Some(message.seq)).await {
            Ok(_) => Ok(Some(presence.host)),
            // It spoke in between: not lost.
            Err(BusError::Moved(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn act(&mut self) {
        let acts = self.keeper.due(clock::now(), clock::boot_time());
        if acts.is_empty() {
            return;
        }
        let outcomes: Vec<Outcome> = {
            let this = &*self;
            futures_util::stream::iter(acts)
                .map(|act| async move {
                    this.carry_out(&act).await.unwrap_or_else(|error| {
                        tracing::debug!(%error, ?act, "an act of the keeper failed; it is due again");
                        Outcome::Nothing
                    })
                })
                .buffer_unordered(ACTS_AT_ONCE)
                .collect()
                .await
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Nothing => {}
                Outcome::TicketGone(job, revision) => self.keeper.ticket_gone(job, revision),
                Outcome::Cleared(job) => self.keeper.cleared(job, clock::now()),
                Outcome::Purged(job) => self.keeper.purged(job),
                Outcome::LeaseTaken(machine, seq) => {
                    let (now, draw) = (clock::now(), clock::draw());
                    self.keeper
                        .lease_taken(&machine, seq, clock::boot_time(), now, draw);
                    self.tell(NewEvent::of_machine(
                        kind::LEASE_TAKEN,
                        &machine,
                        json!({ "seq": seq }),
                    ))
                    .await;
                }
            }
        }
    }

    async fn carry_out(&self, act: &Act) -> Result<Outcome, BusError> {
        match act {
            Act::Append { job, record } => {
                match self
                    .bus
                    .append(*job, &Writer::Keeper, clock::now(), record)
                    .await
                {
                    // Somebody else was faster: the next record says what holds.
                    Ok(_) | Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
                    Err(error) => Err(error),
                }
            }
            Act::Issue {
                job,
                after,
                target,
                cause,
            } => {
                let Some(whole) = self.bus.job(*job).await? else {
                    return Ok(Outcome::Nothing);
                };
                if whole.last_seq != *after {
                    return Ok(Outcome::Nothing);
                }
                let (ticket, work_seq) = self.bus.issue(&whole, *after, target).await?;
                let now = clock::now();
                let Some(record) = self
                    .keeper
                    .queued(*job, *after, ticket, work_seq, *cause, now)
                else {
                    return Ok(Outcome::Nothing);
                };
                match self.bus.append(*job, &Writer::Keeper, now, &record).await {
                    Ok(_) | Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
                    Err(error) => Err(error),
                }
            }
            Act::CheckTicket {
                job,
                revision,
                target,
                work_seq,
            } => {
                let there = self
                    .bus
                    .at(subject::ticket_stream(target), *work_seq)
                    .await?
                    .is_some();
                Ok(if there {
                    Outcome::Nothing
                } else {
                    Outcome::TicketGone(*job, *revision)
                })
            }
            Act::TakeLease { machine, expect } => {
                let record = LeaseRecord::Hub {
                    machine: machine.clone(),
                };
                match self.bus.append_lease(&record, *expect).await {
                    Ok(seq) => Ok(Outcome::LeaseTaken(machine.clone(), seq)),
                    // What cannot be read renews nothing, but it is what lies on the lease now.
                    Err(BusError::Moved(_)) => match self.bus.unreadable_lease(machine).await? {
                        Some(seq) => match self.bus.append_lease(&record, seq).await {
                            Ok(seq) => Ok(Outcome::LeaseTaken(machine.clone(), seq)),
                            Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
                            Err(error) => Err(error),
                        },
                        None => Ok(Outcome::Nothing),
                    },
                    Err(error) => Err(error),
                }
            }
            Act::Clear { job } => {
                for (stream, filter) in subject::tickets_of(*job) {
                    self.bus.purge(stream, &filter, None).await?;
                }
                Ok(Outcome::Cleared(*job))
            }
            Act::Purge { job, up_to } => {
                self.bus
                    .purge(stream::LOG, &subject::log_all(*job), None)
                    .await?;
                self.bus
                    .purge(stream::JOB, &subject::job_all(*job), Some(*up_to))
                    .await?;
                Ok(Outcome::Purged(*job))
            }
        }
    }

    async fn malformed(&mut self, message: &Stored, why: &str) {
        let detail = json!({ "subject": message.subject, "seq": message.seq, "reason": why });
        let event = NewEvent {
            kind: kind::MESSAGE_MALFORMED,
            machine: None,
            job: None,
            attempt: None,
            detail,
        };
        self.tell(event).await;
    }

    async fn tell(&mut self, event: NewEvent) {
        self.events += 1;
        if let Err(error) = self
            .bus
            .put_event(HUB, &event, self.boot, self.events)
            .await
        {
            tracing::warn!(%error, kind = event.kind, "an event was not stored");
        }
    }
}

/// Makes what every hub has: the streams, the lane `any` and the queues of all lanes with tickets.
///
/// # Errors
/// What the server says.
pub async fn prepare(
    bus: &Bus,
    store_bytes: u64,
) -> Result<Vec<crate::streams::Ensured>, BusError> {
    let report = crate::streams::ensure(bus, store_bytes).await?;
    let any = fleet_contract::ids::Lane::any();
    bus.ensure_queues(&Target::Lane(any.clone())).await?;
    bus.ensure_lane(&any, "").await?;
    for message in bus.last_of_each(stream::LANE, &[subject::LANES]).await? {
        if let Some(lane) = subject::parse_lane(&message.subject) {
            bus.ensure_queues(&Target::Lane(lane)).await?;
        }
    }
    Ok(report)
}
