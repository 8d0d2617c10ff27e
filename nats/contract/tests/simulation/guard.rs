//! The hub's guard as a model: it looks whether the store still holds what it once held, recovers it
//! into a new epoch, and vouches for the server. What is damage and what follows for a job is the
//! contract's; the order of the steps, each of which may be the last before a crash, is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_contract::damage::{self, Damage, Found, Recorded};
use fleet_contract::ids::{JobId, MachineId, Writer};
use fleet_contract::job::first_record;
use fleet_contract::lease::{LeaseRecord, Mark};
use fleet_contract::record::{Cause, Change, Record};
use fleet_contract::ticket::Ticket;

use super::agent::AgentEvent;
use super::bus::{Flow, Journal, Micros, Req, Resp, SECOND, Work, fold};
use super::faults::Heal;
use super::mutant::Mutant;
use super::network::Node;
use super::world::{Event, World};

/// How often it looks.
const LOOK_EVERY: Micros = 5 * SECOND;
/// Terms go on this far beyond any that was written down.
const TERM_MARGIN: u64 = 1_000_000;

/// What the guard does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    /// Look at the store of a server that nobody vouches for yet.
    #[default]
    Examine,
    ForgetLeases,
    JournalTickets,
    RemoveTickets,
    Ask,
    Vouch,
    /// Look now and then.
    Watch,
}

/// A copy of the store: the tickets before the journal.
#[derive(Debug, Clone, Default)]
pub struct Backup {
    work: Option<Work>,
    flow: Option<Flow>,
    journal: Option<Journal>,
}

impl Backup {
    fn is_whole(&self) -> bool {
        self.journal.is_some()
    }
}

/// What happened to the store while its server was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The end of the journal is lost.
    Truncated,
    JournalLost,
    TicketsLost,
    LeasesLost,
    EventsLost,
    /// Somebody put back an earlier copy.
    Restored,
}

#[derive(Debug, Default)]
pub struct Guard {
    run: u64,
    step: Step,
    /// What is written down: of the journal, the tickets and the leases.
    recorded: BTreeMap<String, Recorded>,
    /// What the look before saw.
    seen: BTreeMap<String, Found>,
    /// Written down, too: the epoch, and whether a recovery is under way.
    pub epoch: u64,
    recovering: bool,
    restored: bool,
    /// An agent's word alone has begun a recovery at this server.
    believed: bool,
    /// How often each stream was made.
    made: BTreeMap<&'static str, u64>,
    /// Tickets that were there when the recovery began.
    tickets_up_to: u64,
    ask: Vec<JobId>,
    pub backup: Backup,
    /// Machines' events were lost, or are those of an earlier time.
    pub flow_lost: bool,
    pub flow_older: bool,
}

impl Guard {
    /// Whether it writes into the journal what only tickets know.
    pub fn journals_tickets(&self) -> bool {
        self.step == Step::JournalTickets
    }
}

impl World {
    pub fn start_guard(&mut self) {
        self.guard.run += 1;
        self.guard.step = Step::Examine;
        self.guard.believed = false;
        if self.mutant == Mutant::VouchedUnseen {
            self.bus.word = (self.bus.server, self.guard.epoch);
        }
        // Before anybody else: whoever writes first hides that the end is lost.
        self.guard_turns(self.guard.run);
    }

    /// A copy is made at some time: first the tickets, the journal last.
    pub fn plan_backup(&mut self) {
        let begin = self.rng.range(0, self.calm_at / 2);
        for (n, heal) in [Heal::BackupTickets, Heal::BackupEvents, Heal::BackupJournal]
            .into_iter()
            .enumerate()
        {
            let after = u64::try_from(n).unwrap() * self.rng.range(1000, SECOND);
            self.at(begin + after, Event::Heal(heal));
        }
    }

    pub fn back_up(&mut self, what: Heal) {
        if self.guard.recovering || self.hub_down {
            return;
        }
        let backup = &mut self.guard.backup;
        match what {
            Heal::BackupTickets => backup.work = Some(self.bus.work.clone()),
            Heal::BackupEvents => backup.flow = Some(self.bus.flow.clone()),
            _ if backup.work.is_some() && backup.flow.is_some() => {
                backup.journal = Some(self.bus.journal.clone());
            }
            _ => {}
        }
    }

    /// What befalls the store while no server runs on it. Whether it does.
    pub fn harm(&mut self, harm: Harm) -> bool {
        match harm {
            Harm::Truncated => {
                // Less than this is not known to anybody but those that wrote it.
                let known = self.known_to_be_stored();
                if known == 0 || self.bus.journal.seq == 0 {
                    return false;
                }
                let most = known.min(40);
                let to = known - self.rng.range(1, most + 1);
                self.bus.journal.truncate(to);
            }
            Harm::JournalLost => {
                self.bus.journal = Journal::default();
                *self.guard.made.entry("JOB").or_default() += 1;
            }
            Harm::TicketsLost => {
                // Its numbers go on: an acknowledgement that is late would else remove another ticket.
                self.bus.work.queue.clear();
                *self.guard.made.entry("WORK").or_default() += 1;
            }
            Harm::LeasesLost => {
                self.bus.leases.clear();
                self.bus.lease_log.clear();
                self.bus.lease_seq = 0;
                *self.guard.made.entry("LEASE").or_default() += 1;
            }
            Harm::EventsLost => {
                self.bus.flow = Flow::default();
                self.guard.flow_lost = true;
            }
            Harm::Restored => {
                let backup = &self.guard.backup;
                if !backup.is_whole() {
                    return false;
                }
                let Backup {
                    work,
                    flow,
                    journal,
                } = backup.clone();
                self.bus.work = work.unwrap_or_default();
                self.bus.flow = flow.unwrap_or_default();
                self.bus.journal = journal.unwrap_or_default();
                self.guard.restored = true;
                self.guard.flow_older = true;
            }
        }
        self.rebuild_truth();
        true
    }

    /// The highest of the journal that is written down where the guard looks.
    fn known_to_be_stored(&self) -> u64 {
        let own = self.guard.recorded.get("JOB").map_or(0, |r| r.last_seq);
        let agents = self.seen_by_agents();
        let seen = agents.iter().map(|(_, seen)| seen);
        seen.filter(|seen| seen.epoch == self.guard.epoch)
            .map(|seen| seen.seq)
            .fold(own, u64::max)
    }

    fn seen_by_agents(&self) -> Vec<(MachineId, Mark)> {
        let leases = self.bus.leases.values();
        leases
            .filter_map(|(_, record)| match record {
                LeaseRecord::Agent {
                    machine,
                    seen: Some(seen),
                    ..
                } => Some((machine.clone(), *seen)),
                _ => None,
            })
            .collect()
    }

    fn found(&self) -> BTreeMap<String, Found> {
        let made = |stream: &str| self.guard.made.get(stream).copied().unwrap_or(0);
        let one = |stream: &str, last_seq: u64| {
            let created = made(stream).to_string();
            (stream.to_owned(), Found { created, last_seq })
        };
        BTreeMap::from([
            one("JOB", self.bus.journal.seq),
            one("WORK", self.bus.work.seq),
            one("LEASE", self.bus.lease_seq),
        ])
    }

    fn examine(&mut self) -> BTreeMap<String, Damage> {
        let found = self.found();
        let mut damages = damage::examine(&self.guard.recorded, &found);
        if self.guard.restored {
            let taken = self.hub_now();
            damages.insert("JOB".to_owned(), Damage::Restored { taken });
        }
        let (epoch, stored) = (self.guard.epoch, self.bus.journal.seq);
        if !self.guard.believed && !damages.contains_key("JOB") {
            let agents = match self.mutant {
                Mutant::AgentsNotBelieved => Vec::new(),
                _ => self.seen_by_agents(),
            };
            for (machine, seen) in agents {
                if seen.epoch > epoch || damage::behind(epoch, stored, seen) {
                    self.hit("damage told by an agent");
                    let (seen, found) = (seen.seq, stored);
                    let behind = Damage::Behind {
                        machine,
                        seen,
                        found,
                    };
                    damages.insert("JOB".to_owned(), behind);
                    self.guard.believed = true;
                    break;
                }
            }
        }
        damages
    }

    pub fn guard_turns(&mut self, run: u64) {
        if run != self.guard.run || self.hub_down {
            return;
        }
        let before = self.guard.step;
        self.guard.step = match before {
            Step::Watch => self.watch(),
            Step::Examine => self.admit(),
            Step::ForgetLeases => self.forget_leases(),
            Step::JournalTickets => self.journal_tickets(),
            Step::RemoveTickets => self.remove_tickets(),
            Step::Ask => self.ask_next(),
            Step::Vouch => self.vouch(),
        };
        if before != self.guard.step {
            self.say(|| format!("GUARD {before:?} -> {:?}", self.guard.step));
        }
        let after = match self.guard.step {
            Step::Watch => LOOK_EVERY,
            _ => self.rng.range(SECOND / 1000, SECOND / 3),
        };
        self.at(self.now + after, Event::Guard(run));
    }

    fn watch(&mut self) -> Step {
        if !self.examine().is_empty() {
            self.hit("damage found while it runs");
            self.stop_keepers();
            self.guard.believed = false;
            return Step::Examine;
        }
        // What the look before saw is on the disk by now, whatever happens.
        let found = self.found();
        let seen = std::mem::replace(&mut self.guard.seen, found);
        for (stream, Found { created, last_seq }) in seen {
            self.guard
                .recorded
                .insert(stream, Recorded { created, last_seq });
        }
        Step::Watch
    }

    fn admit(&mut self) -> Step {
        if self.mutant == Mutant::VouchedUnseen {
            return Step::Vouch;
        }
        let damages = self.examine();
        for damage in damages.values() {
            self.say(|| format!("DAMAGE {damage}"));
            self.hit(match damage {
                Damage::Missing { .. } => "damage: missing",
                Damage::Recreated { .. } => "damage: made anew",
                Damage::Truncated { .. } => "damage: truncated",
                Damage::Behind { .. } => "damage: behind",
                Damage::Restored { .. } => "damage: restored",
            });
        }
        if damages.contains_key("JOB") {
            self.bus.word.0 = u64::MAX;
            let agents = self.seen_by_agents();
            let known = agents.iter().map(|(_, seen)| seen.epoch);
            let known = known.fold(self.guard.epoch, u64::max);
            if self.mutant != Mutant::SameEpoch {
                self.guard.epoch = known + 1;
            }
            self.guard.recovering = true;
        }
        if self.guard.recovering {
            self.stop_keepers();
        }
        if self.guard.recovering || damages.contains_key("LEASE") {
            return Step::ForgetLeases;
        }
        Step::Vouch
    }

    /// Every agent takes its lease anew, in a term that no earlier claim can name.
    fn forget_leases(&mut self) -> Step {
        if self.mutant != Mutant::LeasesKept {
            let recorded = self.guard.recorded.get("LEASE").map_or(0, |r| r.last_seq);
            self.bus.lease_seq = recorded.max(self.bus.lease_seq) + TERM_MARGIN;
            self.bus.leases.clear();
            self.bus.lease_log.clear();
        }
        if !self.guard.recovering {
            self.hit("leases lost and made anew");
            self.stop_keepers();
            return Step::Vouch;
        }
        self.guard.tickets_up_to = self.bus.work.seq;
        Step::JournalTickets
    }

    fn append_as_keeper(&mut self, job: JobId, record: Record) -> bool {
        let req = Req::Append {
            job,
            writer: Writer::Keeper,
            time: self.hub_now(),
            expect: Some(record.prev),
            record: Some(Arc::new(record)),
        };
        matches!(self.serve(0, Node::Guard, req), Some(Resp::Stored(_)))
    }

    fn journal_tickets(&mut self) -> Step {
        let up_to = self.guard.tickets_up_to;
        let waiting: Vec<(u64, Arc<Ticket>)> = self
            .bus
            .work
            .queue
            .range(..=up_to)
            .map(|(seq, queued)| (*seq, queued.ticket.clone()))
            .collect();
        for (work_seq, ticket) in waiting {
            let known = self.bus.journal.last_seq(ticket.job) != 0;
            if known || self.mutant == Mutant::TicketsNotJournaled {
                continue;
            }
            let change = Change::Queued {
                ticket: ticket.ticket,
                target: ticket.target.clone(),
                work_seq,
                cause: Cause::Dispatch,
                spec: Some(ticket.spec.clone()),
            };
            if let Ok(record) = first_record(ticket.job, self.hub_now(), &Writer::Keeper, change) {
                self.hit("ticket without a journal gets one");
                self.append_as_keeper(ticket.job, record);
            }
        }
        Step::RemoveTickets
    }

    fn remove_tickets(&mut self) -> Step {
        let up_to = self.guard.tickets_up_to;
        let gone: Vec<JobId> = self
            .bus
            .work
            .queue
            .range(..=up_to)
            .map(|(_, queued)| queued.ticket.job)
            .collect();
        if self.mutant != Mutant::NobodyAsked {
            self.bus.work.queue.retain(|seq, _| *seq > up_to);
        }
        for job in gone {
            self.check_not_lost(job);
        }
        self.guard.ask = self.bus.journal.jobs.keys().copied().collect();
        Step::Ask
    }

    /// Puts jobs to the operator, some at a time.
    fn ask_next(&mut self) -> Step {
        if self.mutant == Mutant::NobodyAsked {
            return Step::Vouch;
        }
        for _ in 0..8 {
            let Some(id) = self.guard.ask.pop() else {
                return Step::Vouch;
            };
            let epoch = self.guard.epoch;
            let Some(job) = fold(self.bus.journal.entries(id)) else {
                continue;
            };
            if let Some(record) = damage::recovery(&job, epoch, "then", self.hub_now()) {
                self.hit("put to the operator by a recovery");
                self.append_as_keeper(id, record);
            }
        }
        Step::Ask
    }

    fn vouch(&mut self) -> Step {
        let found = self.found();
        let mark = |(stream, Found { created, last_seq }): (&String, &Found)| {
            let (created, last_seq) = (created.clone(), *last_seq);
            (stream.clone(), Recorded { created, last_seq })
        };
        self.guard.recorded = found.iter().map(mark).collect();
        self.guard.seen = found;
        if std::mem::take(&mut self.guard.recovering) {
            self.hit("recovered into a new epoch");
            self.guard.believed = true;
        }
        self.guard.restored = false;
        self.bus.word = (self.bus.server, self.guard.epoch);
        for m in 0..self.machines.len() {
            if self.machines[m].agent.is_some() && !self.machines[m].cut_in {
                let after = self.rng.range(100, SECOND / 10);
                self.agent_at(m, after, AgentEvent::WordSaid);
            }
        }
        if !self.keepers[0].is_alive() && !self.keepers[0].is_restarting {
            self.start_keeper(0);
        }
        Step::Watch
    }

    pub fn is_recovered(&self) -> bool {
        self.guard.step == Step::Watch && self.bus.vouched().is_some()
    }
}
