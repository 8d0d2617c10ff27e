//! What must hold: after each record and each start, now and then, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_contract::ids::{AttemptId, JobId, MachineId, Writer};
use fleet_contract::job::{Applied, Job, JobState, token_epoch};
use fleet_contract::lease::LeaseRecord;
use fleet_contract::outcome::Outcome;
use fleet_contract::record::{Change, Next, Record, StateWord};
use fleet_contract::reorder::Reorder;
use fleet_contract::spec::Target;
use fleet_contract::time::Time;

use super::bus::{Entry, Micros, SECOND, fold};
use super::machine::Proc;
use super::world::{Event, World};

/// Within this long after the last fault nothing may be stuck.
const SETTLE_WITHIN: Micros = 900 * SECOND;
/// Within this long a lease that nobody renews is over, where the keeper hears and its clock is slow.
const LEASE_ENDS_WITHIN: Micros = 70 * SECOND;
/// Within this long a wish to cancel is obeyed by a machine that nothing disturbs.
const CANCELED_WITHIN: Micros = 100 * SECOND;

/// Short names for the ids in a history.
#[derive(Debug, Default)]
pub struct Names {
    jobs: BTreeSet<String>,
    short: BTreeMap<String, String>,
}

impl Names {
    pub fn job(&mut self, id: JobId) {
        self.jobs.insert(id.to_string());
    }

    pub fn shorten(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let id = |c: char| c.is_ascii_lowercase() || ('2'..='7').contains(&c);
        let mut rest = text;
        while let Some(at) = rest.find(id) {
            let (before, word) = rest.split_at(at);
            let end = word.find(|c| !id(c)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            out.push_str(before);
            if word.len() == 16 {
                let n = self.short.len() + 1;
                let job = self.jobs.contains(word);
                let name = || format!("{}{n}", if job { "job" } else { "id" });
                out.push_str(self.short.entry(word.to_owned()).or_insert_with(name));
            } else {
                out.push_str(word);
            }
            rest = after;
        }
        out + rest
    }
}

impl World {
    // The journal.

    /// Puts a record into the journal.
    pub fn store(
        &mut self,
        job: JobId,
        writer: Writer,
        time: Time,
        record: Option<Arc<Record>>,
        honest: bool,
    ) -> u64 {
        let seq = self.bus.journal.seq + 1;
        let stored = self.hub_now();
        let adopted = matches!(&record, Some(r) if matches!(r.change, Change::Adopted { .. }));
        // A retry's ticket whose dispatcher died, and that was sent after the keeper had looked for
        // such, may be all that a recovery finds of a job: then the operator is asked about it.
        let found = self.guard.journals_tickets() && writer == Writer::Keeper;
        if (adopted || found) && self.bus.journal.purged.remove(&job).is_some() {
            // It was given up and removed before its machine came back and reported it.
            self.hit("adopted after it was purged");
            self.reborn.insert(job);
        }
        if self.bus.journal.purged.contains_key(&job) {
            self.violated(format!("job {job} was purged and comes to life"));
        }
        let before = self.truth.get(&job).cloned();
        let applied = match (&mut self.truth.get_mut(&job), &record) {
            (Some(known), Some(record)) => known.apply(seq, time, &writer, record),
            (Some(known), None) => {
                known.skip(seq);
                Applied::Changed
            }
            (None, Some(record)) => match Job::first(job, seq, time, &writer, record) {
                Ok(first) => {
                    self.truth.insert(job, first);
                    Applied::Changed
                }
                Err(void) => Applied::Void(void),
            },
            (None, None) => Applied::Changed,
        };
        self.say(|| match &record {
            Some(r) => format!(
                "JOB {seq} {job} (prev {}) {writer}: {} {} -> {} {applied:?}",
                r.prev,
                r.change.kind(),
                r.change.attempt().map_or(String::new(), |a| a.to_string()),
                r.after.state
            ),
            None => format!("JOB {seq} {job} {writer}: garbage"),
        });
        if honest {
            let void = matches!(applied, Applied::Void(_));
            if let (Applied::Void(void), Some(record)) = (&applied, &record) {
                let kind = record.change.kind();
                // The keeper goes by the job that it had, where its purge was never answered.
                let reborn = writer == Writer::Keeper && self.reborn.contains(&job);
                if self.in_time && !reborn {
                    self.violated(format!("{writer} wrote a void {kind} on {job}: {void}"));
                }
                // A sequence of another epoch was the one that is the last in this one.
                self.hit("void record of an earlier epoch");
            }
            if let Some(record) = record.as_ref().filter(|_| !void) {
                self.after_record(job, &writer, before.as_ref(), record);
            }
        }
        self.stored_at.insert(job, self.now);
        self.bus.journal.push(Entry {
            job,
            seq,
            writer,
            time,
            stored,
            record,
        });
        self.wake_keepers(false);
        seq
    }

    fn after_record(&mut self, id: JobId, writer: &Writer, before: Option<&Job>, record: &Record) {
        self.hit(record.change.kind());
        self.count_change(before, record);
        if let Change::Ended { attempt, .. } = &record.change
            && !self.ends.insert(*attempt)
            && !self.reborn.contains(&id)
        {
            self.violated(format!("attempt {attempt} has two ends"));
        }
        // Somebody may answer.
        if record.after.state == StateWord::NeedsHuman && !self.calm && self.rng.chance(60) {
            self.plan_retry(id);
        }
        if let Some(open) = before.and_then(|before| before.state.open())
            && *writer == Writer::Operator
            && record.after.attempt.is_none()
        {
            self.hit("overruled by the operator");
            self.overruled.insert(open.attempt);
        }
        // What ran before the store went back and is not in it: a new dispatch and a decision of the
        // operator's are made without it.
        let decided = *writer == Writer::Operator || before.is_none();
        if decided
            && matches!(
                record.change,
                Change::Queued { .. } | Change::Claimed { .. }
            )
        {
            self.overrule_earlier_epochs(id);
        }
        let Some(before) = before else { return };
        if before.state.word().is_terminal()
            && *writer != Writer::Operator
            && !matches!(record.change, Change::Restated {})
        {
            self.violated(format!(
                "{writer} changed an ended job with {}",
                record.change.kind()
            ));
        }
        if let Change::Lost { attempt, .. } = &record.change
            && before.attempt().is_some_and(|a| a.epoch < self.guard.epoch)
        {
            self.hit("nobody reports it in the new epoch");
            if self.out_of_time {
                // It was ruled at the earlier server, where it held.
                self.hit("ruling of an earlier server");
            } else if record.after.state != StateWord::NeedsHuman {
                self.violated(format!(
                    "attempt {attempt} of an earlier epoch is forgotten: {id} goes on though it may have ended"
                ));
            }
        }
    }

    fn overrule_earlier_epochs(&mut self, id: JobId) {
        let epoch = self.guard.epoch;
        for machine in &self.machines {
            let procs = machine.procs.iter();
            let earlier = procs.filter(|(_, p)| p.job == id && token_epoch(p.token) < epoch);
            self.overruled.extend(earlier.map(|(attempt, _)| *attempt));
        }
    }

    fn count_change(&mut self, before: Option<&Job>, record: &Record) {
        match &record.change {
            Change::Claimed { .. } if before.is_none() => self.hit("claimed first"),
            Change::Adopted { .. } if before.is_none() => self.hit("adopted as the first record"),
            Change::Adopted { attempt, .. } => {
                let known = before
                    .and_then(Job::attempt)
                    .is_some_and(|a| a.id == *attempt);
                self.hit(if known {
                    "adopted again"
                } else {
                    "adopted anew"
                });
            }
            Change::Ended { outcome, .. } => {
                if before.is_some_and(|b| b.after().state == StateWord::NeedsHuman) {
                    self.hit("late end of an asked-about attempt");
                }
                match outcome {
                    Outcome::Fenced => self.hit("ended fenced"),
                    Outcome::Canceled => self.hit("ended canceled"),
                    Outcome::Unknown { .. } => self.hit("ended unknown"),
                    _ => {}
                }
            }
            Change::Lost { next, .. } => self.hit(match next {
                Next::Ask { .. } => "lost: ask",
                Next::Backoff { .. } => "lost: retry",
                Next::End => "lost: end",
            }),
            _ => {}
        }
        self.hit(match record.after.state {
            StateWord::Queued => "is queued",
            StateWord::Running => "is running",
            StateWord::Backoff => "is backoff",
            StateWord::NeedsHuman => "is needs_human",
            StateWord::Succeeded => "is succeeded",
            StateWord::Failed => "is failed",
            StateWord::TimedOut => "is timed_out",
            StateWord::Canceled => "is canceled",
            StateWord::Lost => "is lost",
            StateWord::Expired => "is expired",
            StateWord::Rejected => "is rejected",
        });
    }

    /// Removes a job's records up to there, where nothing came after them: the keeper looks just
    /// before. Whether it did.
    pub fn purge(&mut self, job: JobId, up_to: u64) -> bool {
        let last = self.bus.journal.last_seq(job);
        if last != up_to {
            self.hit("purge given up, the job went on");
            return false;
        }
        if self
            .truth
            .get(&job)
            .is_some_and(|known| !known.state.word().is_terminal())
        {
            self.violated(format!("job {job} was purged before its end"));
        }
        self.say(|| format!("PURGE {job}"));
        self.hit("purged");
        self.bus.journal.purge(job, up_to);
        if self.truth.remove(&job).is_some() {
            self.bus.journal.purged.insert(job, last);
        }
        true
    }

    /// After a ticket went: the job that was acknowledged has another, or a journal.
    pub fn check_not_lost(&mut self, job: JobId) {
        if self.acknowledged.contains(&job)
            && !self.truth.contains_key(&job)
            && !self.bus.journal.purged.contains_key(&job)
            && !self.bus.has_ticket(job)
            && !self.machines.iter().any(|m| m.knows(job))
        {
            self.violated(format!("job {job} was acknowledged and is lost"));
        }
    }

    /// The store is another: what it holds is what there is.
    pub fn rebuild_truth(&mut self) {
        let journal = &self.bus.journal;
        self.truth = journal
            .jobs
            .iter()
            .filter_map(|(id, entries)| Some((*id, fold(entries)?)))
            .collect();
        let ends = journal
            .log
            .iter()
            .filter_map(|entry| match &entry.record.as_ref()?.change {
                Change::Ended { attempt, .. } => Some(*attempt),
                _ => None,
            });
        self.ends = ends.collect();
        let bus = &self.bus;
        let truth = &self.truth;
        self.acknowledged.retain(|job| {
            truth.contains_key(job) || bus.journal.purged.contains_key(job) || bus.has_ticket(*job)
        });
        self.reborn.clear();
    }

    // Attempts.

    /// A token is given to one attempt, ever.
    pub fn check_token(&mut self, id: AttemptId, token: u64) {
        let first = *self.tokens.entry(token).or_insert(id);
        if first != id {
            self.violated(format!("token {token} is given to {first} and to {id}"));
        }
    }

    pub fn check_launch(&mut self, m: usize, id: AttemptId, new: &Proc) {
        let me = self.machines[m].id.clone();
        let claim = self
            .truth
            .get(&new.job)
            .and_then(|job| job.attempts.iter().find(|a| a.id == id));
        let claimed = claim.is_some_and(|claim| claim.machine == me && claim.token == new.token);
        // In another epoch its claim may be lost, and the agent reports it.
        if !claimed && self.bus.vouched() == Some(token_epoch(new.token)) {
            self.violated(format!("attempt {id} of {} runs unclaimed", new.job));
        }
        let ticket = self.bus.journal.ticket_of(new.job, id);
        if let Some(Target::Pin(pin)) = ticket.and_then(|ticket| self.tickets.get(&ticket))
            && *pin != me
        {
            self.violated(format!("attempt {id} of {} runs off its pin", new.job));
        }
        for (n, machine) in self.machines.iter().enumerate() {
            for (other, old) in &machine.procs {
                if *other == id || old.job != new.job || !old.lives() {
                    continue;
                }
                // What sleeps is ended when it wakes.
                let sleeps = old.slept && machine.woken_at + 10 * SECOND > self.now;
                let allowed = n != m && (sleeps || self.overruled.contains(other));
                if !allowed {
                    let what = format!(
                        "attempts {other} on {} and {id} on {me} of {} overlap",
                        machine.id, new.job
                    );
                    return self.violated(what);
                }
            }
        }
    }

    // Now and then.

    pub fn look(&mut self) {
        self.check_leases();
        self.check_cancels();
        if !self.calm {
            return self.at(self.now + 10 * SECOND, Event::Look);
        }
        match self.unsettled() {
            None => {
                self.last_checks();
                self.over = true;
            }
            Some(why) if self.now > self.calm_at + SETTLE_WITHIN => {
                self.violated(format!("stuck: {why}"));
            }
            Some(_) => self.at(self.now + 10 * SECOND, Event::Look),
        }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A lease that is not renewed ends.
    fn check_leases(&mut self) {
        let Some(since) = self.keeper_hears_since() else {
            return;
        };
        let held = |record: &LeaseRecord| {
            matches!(
                record,
                LeaseRecord::Agent {
                    released: false,
                    ..
                }
            )
        };
        let over = self.bus.leases.iter().find(|(machine, (seq, record))| {
            let at = self.leased_at.get(*machine).filter(|(s, _)| s == seq);
            let at = at.map_or(0, |(_, at)| *at).max(since);
            held(record) && self.now > at + LEASE_ENDS_WITHIN
        });
        if let Some(machine) = over.map(|(machine, _)| machine.clone()) {
            self.violated(format!("the lease of {machine} does not end"));
        }
    }

    fn check_cancels(&mut self) {
        let well = |id: &MachineId| {
            let m = self.machines.iter().find(|m| m.id == *id)?;
            let now = self.now;
            let there = m.up
                && m.agent.is_some()
                && !(m.cut_in || m.cut_out)
                && m.frozen_until.max(m.agent_frozen_until) <= now;
            there.then_some(m.well_since.max(self.hub_well_since))
        };
        let overlooked = self.truth.iter().find(|(id, job)| {
            let JobState::Running {
                open,
                cancel_requested: true,
            } = &job.state
            else {
                return false;
            };
            let stored = self.stored_at.get(id).copied().unwrap_or(self.now);
            let since = well(&open.machine).map(|well| well.max(stored));
            !self.hub_down && since.is_some_and(|since| self.now > since + CANCELED_WITHIN)
        });
        if let Some(id) = overlooked.map(|(id, _)| *id) {
            self.violated(format!("the wish to cancel {id} is overlooked"));
        }
    }

    fn unsettled(&self) -> Option<String> {
        for (id, job) in &self.truth {
            let word = job.state.word();
            if !word.is_terminal() && word != StateWord::NeedsHuman {
                return Some(format!("job {id} is {:?}", job.state));
            }
            if job.void_on_top {
                return Some(format!("job {id} has a void record on top"));
            }
        }
        if let Some((seq, queued)) = self.bus.work.queue.first_key_value() {
            let job = queued.ticket.job;
            return Some(format!("ticket {seq} of job {job} is still there"));
        }
        for machine in &self.machines {
            if let Some(why) = machine.unsettled() {
                return Some(why);
            }
        }
        if !self.is_recovered() {
            return Some("the hub vouches for nothing".to_owned());
        }
        if self.keepers[0].lags(self.bus.journal.seq) {
            return Some("the keeper lags".to_owned());
        }
        let strays = self.mutant == super::mutant::Mutant::OldEpochReadOn;
        if self.console.lags(self.guard.epoch, self.bus.journal.seq) && !strays {
            return Some("the console lags".to_owned());
        }
        if let Some(file) = self.spooled.iter().find(|file| file.waits()) {
            return Some(format!("a spooled dispatch was not sent: {file:?}"));
        }
        let client = self.clients.iter().find(|c| !c.is_over())?;
        Some(format!("a client is still at it: {client:?}"))
    }

    // The end.

    fn last_checks(&mut self) {
        for job in self.acknowledged.clone() {
            self.check_not_lost(job);
        }
        for (id, known) in self.truth.clone() {
            if fold(self.bus.journal.entries(id)).as_ref() != Some(&known) {
                self.violated(format!("a fresh fold of {id} is another"));
            }
            if self.keepers[0].job(id) != Some(&known) && !self.reborn.contains(&id) {
                self.violated(format!("the keeper's fold of {id} is another"));
            }
            if self.in_any_order(id).as_ref() != Some(&known) {
                self.violated(format!("the fold of {id} in another order is another"));
            }
        }
        self.check_spooled();
        self.check_console_whole();
        for m in 0..self.machines.len() {
            let told = self.bus.flow.last(m).map(|(_, told)| told);
            let spool = &self.machines[m].spool;
            if told == spool.written.last().copied() {
                continue;
            }
            // The spool goes on where it was if the flow ends further back than it keeps: what the
            // hub lost is then not told again, and the machine may have had nothing new to tell.
            let known = told.and_then(|told| spool.written.iter().position(|w| *w == told));
            let further_back = known.is_none_or(|at| at + 1 < spool.trimmed);
            if further_back && (self.guard.flow_lost || self.guard.flow_older) {
                self.hit("spool: what the hub lost is gone");
                continue;
            }
            let what = format!("spool: m{m} has more written than the flow has");
            return self.violated(what);
        }
    }

    /// The job as whoever gets its records in any order, and some twice, folds them.
    fn in_any_order(&mut self, id: JobId) -> Option<Job> {
        let mut entries = self.bus.journal.entries(id).to_vec();
        let upto = entries.last()?.seq;
        let twice = entries.clone();
        entries.extend(twice.into_iter().filter(|_| self.rng.chance(20)));
        for n in (1..entries.len()).rev() {
            let other = usize::try_from(self.rng.next()).unwrap_or(0) % (n + 1);
            entries.swap(n, other);
        }
        let mut reorder = Reorder::new(id);
        for entry in entries {
            let void = fleet_contract::job::Void::Unreadable("garbage".to_owned());
            let record = entry.record.map(|r| (*r).clone()).ok_or(void);
            reorder.offer(entry.seq, entry.time, entry.writer, record);
        }
        reorder.settle(upto);
        reorder.job().cloned()
    }
}
