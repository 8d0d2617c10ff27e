//! The keeper's shell: tails the journal, the leases and the registry, and carries out what the
//! contract's [`fleet_contract::keeper::Keeper`] wants done. Runs inside the hub process only.

use std::collections::HashSet;
use std::time::Duration;

use fleet_contract::event::kind;
use fleet_contract::ids::{MachineId, Writer};
use fleet_contract::job::Applied;
use fleet_contract::keeper::{Act, Keeper, Retention};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::machine::{Presence, Service};
use fleet_contract::spec::Target;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;

use crate::bus::{Bus, BusError, Stored};
use crate::clock;
use crate::flow::NewEvent;
use crate::journal::Entry;
use crate::registry::{decode_lease, decode_presence};
use crate::subject::{self, HUB, stream};
use crate::tail::{From, Next, Tail};

/// Acts carried out side by side at the most.
const ACTS_AT_ONCE: usize = 16;
/// First and longest pause before a keeper whose link broke starts anew.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The subject of the server's own events about closed connections, for the system account.
pub const DISCONNECTS: &str = "$SYS.ACCOUNT.*.DISCONNECT";

/// Runs the keeper until `stop` resolves. `system` is a connection of the system account.
pub async fn run(bus: Bus, system: async_nats::Client, retention: Retention, boot: String) {
    let mut pause = RESTART_PAUSE.0;
    loop {
        let mut shell = Shell::new(bus.clone(), retention, boot.clone());
        match shell.work(&system).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the keeper starts anew"),
        }
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

struct Shell {
    bus: Bus,
    keeper: Keeper,
    boot: String,
    /// Machines whose queues exist.
    served: HashSet<MachineId>,
    events: u64,
}

#[derive(Deserialize)]
struct Disconnect {
    client: ClientInfo,
}

#[derive(Deserialize)]
struct ClientInfo {
    id: u64,
    #[serde(default)]
    name: String,
}

impl Shell {
    fn new(bus: Bus, retention: Retention, boot: String) -> Self {
        let keeper = Keeper::new(clock::boot_time(), retention);
        Self {
            bus,
            keeper,
            boot,
            served: HashSet::new(),
            events: 0,
        }
    }

    async fn work(&mut self, system: &async_nats::Client) -> Result<(), BusError> {
        // Before the registry is read, so that no closed connection falls between the two.
        let mut disconnects = system
            .subscribe(DISCONNECTS)
            .await
            .map_err(|e| BusError::Closed(e.to_string()))?;
        let mut journal = Tail::open(
            &self.bus,
            stream::JOB,
            &[subject::JOBS.to_owned()],
            From::First,
        )
        .await?;
        let mut leases = Tail::open(
            &self.bus,
            stream::LEASE,
            &[subject::LEASES.to_owned()],
            From::LastOfEach,
        )
        .await?;
        let mut machines = Tail::open(
            &self.bus,
            stream::PRES,
            &[subject::PRESENCES.to_owned()],
            From::LastOfEach,
        )
        .await?;
        self.lose_the_silent(system).await;
        let mut caught_up = false;
        loop {
            let due = if caught_up {
                self.keeper.next_due(clock::now(), clock::boot_time())
            } else {
                None
            };
            let timer = async {
                match due {
                    Some(pause) => tokio::time::sleep(pause).await,
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
        let machine = match decode_presence(message) {
            Ok(presence) => presence.machine,
            Err(error) => return self.malformed(message, &error.to_string()).await,
        };
        if self.served.contains(&machine) {
            return;
        }
        match self.bus.ensure_queues(&Target::Pin(machine.clone())).await {
            Ok(()) => {
                self.served.insert(machine);
            }
            Err(error) => tracing::warn!(%error, %machine, "cannot make the machine's queues"),
        }
    }

    /// The connection of a machine closed: without goodbye, it is lost, unless it has spoken over a
    /// later connection.
    async fn disconnected(&mut self, payload: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Disconnect>(payload) else {
            return;
        };
        let Some(machine) = event
            .client
            .name
            .strip_prefix("fleet agent ")
            .and_then(|m| m.parse().ok())
        else {
            return;
        };
        if let Err(error) = self
            .lose(&machine, |p| p.connection == event.client.id)
            .await
        {
            tracing::warn!(%error, %machine, "cannot mark the machine as lost");
        }
    }

    /// At the keeper's start: whoever left while no keeper listened is lost, too.
    async fn lose_the_silent(&mut self, _system: &async_nats::Client) {
        let Ok((machines, _)) = self.bus.machines().await else {
            return;
        };
        for seen in machines {
            let machine = seen.presence.machine.clone();
            let silent = fleet_contract::machine::state(&seen.presence, seen.age)
                == fleet_contract::machine::MachineState::Lost;
            if silent && let Err(error) = self.lose(&machine, |p| *p == seen.presence).await {
                tracing::warn!(%error, %machine, "cannot mark the machine as lost");
            }
        }
    }

    async fn lose(
        &mut self,
        machine: &MachineId,
        is_it: impl Fn(&Presence) -> bool,
    ) -> Result<(), BusError> {
        let Some(message) = self
            .bus
            .last(stream::PRES, &subject::presence(machine))
            .await?
        else {
            return Ok(());
        };
        let Ok(mut presence) = decode_presence(&message) else {
            return Ok(());
        };
        if matches!(presence.service, Service::Offline | Service::Lost) || !is_it(&presence) {
            return Ok(());
        }
        presence.service = Service::Lost;
        presence.lost_at = Some(clock::now());
        match self.bus.beat(&presence, Some(message.seq)).await {
            Ok(_) => {}
            // It spoke in between: not lost.
            Err(BusError::Moved(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        let detail =
            json!({ "reason": "its connection closed without goodbye", "host": presence.host });
        self.tell(NewEvent::of_machine(kind::MACHINE_LOST, machine, detail))
            .await;
        Ok(())
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
                    Err(BusError::Moved(_)) => Ok(Outcome::Nothing),
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
            .put_event(HUB, &event, &self.boot, self.events)
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
