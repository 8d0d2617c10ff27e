//! One attempt at a job, from the ticket to the result in the journal: the agent's state machine.
//!
//! Pure: inputs go in, effects come out, and the agent's shell and the simulation both carry them
//! out. It may not know a clock, a bus or a process; times and draws come with the inputs.

mod adoption;

pub use adoption::is_missed;

use crate::damage;
use crate::ids::{AttemptId, JobId, MachineId, Writer};
use crate::job::{first_record, token, token_epoch, token_seq};
use crate::outcome::{Outcome, OutputCount};
use crate::policy::{self, Situation};
use crate::record::{After, Change, Next, Record, StateWord};
use crate::spec::JobSpec;
use crate::ticket::{self, Reading, Refused, Ticket, Tip, Verdict};
use crate::time::Time;

/// What happened to an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The journal's last record, as asked by [`Effect::Read`].
    Tip(Option<Tip>),
    /// The append was stored at this sequence.
    Appended(u64),
    /// The append was refused, and this is what the journal says.
    Refused(Reading),
    /// Read or append brought no answer: nobody knows whether it was stored.
    NoAnswer,
    /// The pause asked for by [`Effect::Pause`] is over.
    Again,
    /// The executor started the process.
    Started(Time),
    /// Every process of the attempt is gone.
    Gone(Gone),
    /// The operator's wish to cancel arrived.
    CancelAsked,
    /// The journal was read again after a reconnect, or because its time had come.
    Reread(Reading),
    /// The last acknowledged renewal of the lease is older than [`crate::lease::CLAIM_WITHIN`]: the
    /// machine was asleep or cut off, and what was read before is old. To be told to every attempt
    /// once for each lapse, before whatever else has come meanwhile.
    Lapsed,
    /// The hub's store went back in time: what was read of it or appended to it before says nothing
    /// any more. To be told once the machine's lease is taken anew, and before anything is read or
    /// appended in the new epoch.
    Rebuilt {
        /// The hub's epoch.
        epoch: u64,
        /// The term of the machine's lease now.
        term: u64,
    },
}

/// How an attempt ended, as the executor saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// How.
    pub outcome: Outcome,
    /// What it wrote.
    pub output: OutputCount,
    /// When its process was started.
    pub started_at: Time,
    /// When it was gone.
    pub ended_at: Time,
}

/// What is to be done for an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the journal's last record; answer with [`Input::Tip`].
    Read,
    /// Read what the journal says where it matters; answer with [`Input::Reread`].
    ReadAll,
    /// Append the record, expecting its `prev`.
    Append(Box<Record>),
    /// Wait a little, with jitter, or for the link; answer with [`Input::Again`].
    Pause,
    /// The ticket is done with: acknowledge it, until the server has confirmed.
    Ack,
    /// The ticket goes back to its lane at once.
    GiveBack,
    /// Start the process with this fencing token.
    Start {
        /// The token.
        token: u64,
        /// The attempt's number.
        no: u32,
    },
    /// End its processes: the operator asked for it.
    Cancel,
    /// End its processes: another decision holds.
    Fence,
    /// The result is in the journal, or does not count: the executor may forget the attempt.
    Forget,
    /// Another decision held; this is how the attempt had truly ended. To be told as
    /// `attempt.superseded`.
    Superseded(Box<Gone>),
    /// Nothing more will come of this attempt: drop it.
    Done,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// The ticket is here, the journal not read yet.
    Judging,
    /// `claimed` is on its way.
    Claiming { record: Box<Record> },
    /// The journal says that it runs here.
    Running,
    /// Its processes are gone, its end is on its way.
    Ending { gone: Gone },
    /// Another decision holds; its processes are being ended.
    Superseded,
    /// Nothing is left to do.
    Done,
}

/// One attempt at a job on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    me: MachineId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub id: AttemptId,
    /// The job as asked for.
    pub spec: JobSpec,
    ticket: Option<Ticket>,
    /// The term of the machine's lease that a claim is made under.
    term: u64,
    /// When its ticket was delivered, by the machine's clock.
    since: Option<Time>,
    /// The lease has lapsed since.
    lapsed: bool,
    /// An append of its claim was not answered: it may be stored.
    in_doubt: bool,
    /// Readings of a ticket's journal that did not bear it out.
    reads: u32,
    /// The attempt's number and the losses before it, once claimed.
    no: u32,
    losses: u32,
    /// Whether `losses` is known: an executor does not keep it.
    learned: bool,
    /// The journal's last sequence as far as this attempt has adopted it.
    known: u64,
    /// The record by which the journal knows it: its claim, or its adoption.
    claimed: Option<u64>,
    /// The epoch of its token.
    epoch: u64,
    /// Its token where `claimed` does not say it: it was adopted.
    token: Option<u64>,
    /// The epoch of its ticket.
    issued: u64,
    /// The hub's epoch as far as this attempt knows, in which it reads and appends.
    hub: u64,
    /// It is to be adopted: the journal of this epoch may not know it.
    unknown: bool,
    /// It was never started, as the claim was under way when the hub's store went back.
    unclaimed: bool,
    /// It is claimed only for the operator to be asked: its ticket is older than the journal's epoch,
    /// and the only thing that knows the job.
    asks: bool,
    cancel_requested: bool,
    /// The operator's wish may be in the journal already, beyond a claim that is on its way.
    look_for_cancel: bool,
    /// A pause is on: one is enough.
    pausing: bool,
    /// The sequence that an append on its way expects.
    appending: Option<u64>,
    /// Readings in a row that showed no journal at all.
    blanks: u32,
    stage: Stage,
}

impl Attempt {
    /// The attempt that a delivered ticket may become, and the first things to do. Only for a
    /// ticket that is fresh by [`crate::lease::CLAIM_WITHIN`]; any other goes back, for the job may
    /// have run and been purged since.
    #[must_use]
    pub fn deliver(me: MachineId, id: AttemptId, ticket: Ticket) -> (Self, Vec<Effect>) {
        let attempt = Self {
            me,
            job: ticket.job,
            id,
            spec: (*ticket.spec).clone(),
            term: 0,
            since: None,
            lapsed: false,
            in_doubt: false,
            reads: 0,
            no: 0,
            losses: 0,
            learned: true,
            known: ticket.after,
            claimed: None,
            epoch: ticket.epoch,
            token: None,
            issued: ticket.epoch,
            hub: ticket.epoch,
            unknown: false,
            unclaimed: false,
            asks: false,
            cancel_requested: false,
            look_for_cancel: false,
            pausing: false,
            appending: None,
            blanks: 0,
            stage: Stage::Judging,
            ticket: Some(ticket),
        };
        (attempt, vec![Effect::Read])
    }

    /// The same under this term of the machine's lease ([`crate::lease::LeaseRecord::term`]), for
    /// a ticket that was delivered at `now`. To be said before anything else happens to it.
    #[must_use]
    pub fn under_lease(mut self, term: u64, now: Time) -> Self {
        self.term = term;
        self.since = Some(now);
        self
    }

    /// The same at a hub of this epoch, in which it is claimed. To be said before anything else
    /// happens to it.
    #[must_use]
    pub fn in_epoch(mut self, epoch: u64) -> Self {
        (self.epoch, self.hub) = (epoch, epoch);
        self
    }

    /// The attempt that a restarted agent finds at its executor, running or ended.
    #[must_use]
    pub fn adopt(me: MachineId, found: Found, gone: Option<Gone>) -> (Self, Vec<Effect>) {
        let claimed = token_seq(found.token);
        let attempt = Self {
            me,
            job: found.job,
            id: found.attempt,
            spec: found.spec,
            ticket: None,
            term: 0,
            since: None,
            lapsed: false,
            in_doubt: false,
            reads: 0,
            no: found.no,
            losses: 0,
            learned: false,
            known: claimed,
            claimed: Some(claimed),
            epoch: token_epoch(found.token),
            token: Some(found.token),
            issued: token_epoch(found.token),
            hub: token_epoch(found.token),
            unknown: false,
            unclaimed: false,
            asks: false,
            cancel_requested: false,
            look_for_cancel: false,
            pausing: false,
            appending: None,
            blanks: 0,
            // What follows reads the journal first: the attempt may have been taken over.
            stage: gone.map_or(Stage::Running, |gone| Stage::Ending { gone }),
        };
        (attempt, vec![Effect::ReadAll])
    }

    /// Whether it holds a slot: from the claim until its processes are gone.
    #[must_use]
    pub fn holds_slot(&self) -> bool {
        !matches!(self.stage, Stage::Ending { .. } | Stage::Done)
    }

    /// Whether a process of it runs or is about to.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Superseded)
    }

    /// Whether this machine answers for it: it is claimed, or may be soon. To be named in `held`
    /// when the lease is taken.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.is_done()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Its number, from 1; 0 while it is not claimed.
    #[must_use]
    pub fn no(&self) -> u32 {
        self.no
    }

    /// Its fencing token, once claimed.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        self.token
            .or_else(|| self.claimed.map(|seq| token(self.epoch, seq)))
    }

    /// The hub's epoch as far as it knows: it reads and appends only at a hub of this epoch.
    #[must_use]
    pub fn hub_epoch(&self) -> u64 {
        self.hub
    }

    /// How many attempts of the job were lost before this one.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// Takes in what happened and says what to do, in order. `now` is the machine's clock, `draw` a
    /// random number in 0..1.
    pub fn on(&mut self, input: Input, now: Time, draw: f64) -> Vec<Effect> {
        self.since.get_or_insert(now);
        if matches!(input, Input::Again) {
            self.pausing = false;
        }
        // Which append this answers, if one: a re-read that comes by in between answers none.
        let refused = match input {
            Input::Appended(_) | Input::Refused(_) | Input::NoAnswer => self.appending.take(),
            _ => None,
        };
        match (&self.stage, input) {
            (_, Input::Rebuilt { epoch, term }) => self.rebuilt(epoch, term, now),
            (Stage::Running | Stage::Ending { .. }, Input::Appended(seq)) if self.unknown => {
                self.adopted(seq, now, draw)
            }
            (
                Stage::Running | Stage::Ending { .. },
                Input::Refused(reading) | Input::Reread(reading),
            ) if self.unknown => self.adopt_read(&reading, refused, now),
            // Its ticket goes back; another machine has it by now.
            (Stage::Judging, Input::Lapsed) => self.finish(vec![Effect::GiveBack]),
            (_, Input::Lapsed) => {
                self.lapsed = true;
                Vec::new()
            }

            (Stage::Judging, Input::Tip(tip)) => self.judge(tip.as_ref(), None, now),
            (Stage::Judging, Input::NoAnswer) => self.pause(),
            (Stage::Judging, Input::Again) => {
                if self.is_late(now) {
                    // Another machine has the ticket by now; this delivery means nothing.
                    return self.finish(Vec::new());
                }
                vec![Effect::Read]
            }

            (Stage::Claiming { .. }, Input::Appended(seq)) => self.claimed_at(seq, seq, now, draw),
            (Stage::Claiming { .. }, Input::Refused(reading) | Input::Reread(reading)) => {
                self.claim_read(&reading, refused, now, draw)
            }
            (Stage::Claiming { .. }, Input::NoAnswer) => {
                self.in_doubt = true;
                self.pause()
            }
            (Stage::Claiming { .. }, Input::CancelAsked) => {
                self.look_for_cancel = true;
                Vec::new()
            }
            (Stage::Claiming { record }, Input::Again) => {
                // A first record would make a job anew that ended and was purged meanwhile.
                if record.prev == 0 && self.is_late(now) {
                    return vec![Effect::ReadAll];
                }
                let record = record.clone();
                self.append(record)
            }

            (Stage::Running, Input::CancelAsked) => vec![Effect::ReadAll],
            (Stage::Running, Input::Gone(gone)) => {
                self.stage = Stage::Ending { gone };
                if self.unknown {
                    // Its adoption is under way, and comes first.
                    return Vec::new();
                }
                self.end(now, draw)
            }
            (Stage::Running, Input::Refused(reading) | Input::Reread(reading)) => {
                self.running_read(&reading)
            }
            (Stage::Running, Input::Again) => vec![Effect::ReadAll],
            (Stage::Running, Input::NoAnswer) => self.pause(),

            (Stage::Ending { .. }, Input::Appended(_)) => self.finish(vec![Effect::Forget]),
            (Stage::Ending { .. }, Input::Refused(reading) | Input::Reread(reading)) => {
                self.end_read(&reading, refused, now, draw)
            }
            (Stage::Ending { .. }, Input::NoAnswer) => self.pause(),
            (Stage::Ending { .. }, Input::Again) => vec![Effect::ReadAll],

            (Stage::Superseded, Input::Gone(gone)) => {
                self.finish(vec![Effect::Superseded(Box::new(gone)), Effect::Forget])
            }
            // Whatever else arrives late was overtaken by what this attempt already knows.
            _ => Vec::new(),
        }
    }

    /// Whether its ticket is so old that the job may have run and been purged since.
    fn is_late(&self, now: Time) -> bool {
        let held = self.since.map(|at| now.since(at));
        self.lapsed || held.is_some_and(|held| held > ticket::CLAIM_FRESH)
    }

    /// One pause at a time, however many answers fail to come.
    fn pause(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.pausing, true) {
            return Vec::new();
        }
        vec![Effect::Pause]
    }

    fn append(&mut self, record: Box<Record>) -> Vec<Effect> {
        self.appending = Some(record.prev);
        vec![Effect::Append(record)]
    }

    fn judge(&mut self, tip: Option<&Tip>, refused: Option<u64>, now: Time) -> Vec<Effect> {
        let Some(ticket) = self.ticket.clone() else {
            return self.finish(Vec::new());
        };
        match ticket::judge(&ticket, &self.me, tip) {
            // The append was refused over a record that this reading does not show yet.
            Verdict::Claim { expect, .. } if refused == Some(expect) => self.pause(),
            Verdict::Claim { expect: 0, .. } if self.is_late(now) => self.too_late(),
            verdict @ Verdict::Claim { .. } => {
                if matches!(verdict, Verdict::Claim { expect: 0, .. }) && self.issued < self.hub {
                    // The store went back since: the job may have run, and ended. Its dispatcher was
                    // told that the hub has it, so that it may not go without a word. It is of the
                    // ticket's epoch: should this end here, the keeper asks as well.
                    (self.asks, self.epoch) = (true, self.issued);
                }
                self.claim(&ticket, &verdict, now)
            }
            // A claim that nobody answered may be there, hidden from this reading: look again.
            Verdict::Stale if self.in_doubt && self.reads < ticket::READ_AGAIN_MAX => {
                self.reads += 1;
                self.pause()
            }
            Verdict::Stale => self.finish(vec![Effect::Ack]),
            Verdict::NotMine => self.finish(Vec::new()),
            // A claim may be on its way, or there already: go on until that is known, which is when
            // there is no journal any more that would take it.
            _ if self.stage != Stage::Judging && (tip.is_some() || refused.is_none()) => {
                self.pause()
            }
            Verdict::ReadAgain | Verdict::Early => {
                self.reads += 1;
                if self.reads < ticket::READ_AGAIN_MAX {
                    return self.pause();
                }
                // Whatever comes of the job has the keeper to publish a ticket for it, but for a
                // new one: of that this ticket is all there is.
                let done = if ticket.after == 0 {
                    Effect::GiveBack
                } else {
                    Effect::Ack
                };
                self.finish(vec![done])
            }
        }
    }

    /// There is no journal, and this machine has had the ticket for long: the job may have run and
    /// been purged meanwhile, and is not claimed anew. Whoever has the ticket now goes on. A claim
    /// that is still on its way is given time to arrive: counted in pauses, for clocks jump.
    fn too_late(&mut self) -> Vec<Effect> {
        self.reads += 1;
        if self.stage == Stage::Judging || self.reads > ticket::READ_AGAIN_MAX * 4 {
            self.finish(Vec::new())
        } else {
            self.pause()
        }
    }

    fn claim(&mut self, ticket: &Ticket, verdict: &Verdict, now: Time) -> Vec<Effect> {
        let &Verdict::Claim { expect, no, losses } = verdict else {
            return Vec::new();
        };
        (self.no, self.losses, self.known) = (no, losses, expect);
        let change = |spec: Option<Box<JobSpec>>| Change::Claimed {
            attempt: self.id,
            no,
            ticket: ticket.ticket,
            epoch: self.epoch,
            target: None,
            lease: self.term,
            spec,
        };
        let record = if expect == 0 {
            let writer = Writer::Machine(self.me.clone());
            match first_record(
                self.job,
                now,
                &writer,
                change(Some(Box::new(self.spec.clone()))),
            ) {
                Ok(record) => record,
                Err(_) => return self.finish(vec![Effect::Ack]),
            }
        } else {
            Record {
                prev: expect,
                change: change(None),
                after: self.after_claim(),
            }
        };
        let record = Box::new(record);
        self.stage = Stage::Claiming {
            record: record.clone(),
        };
        self.append(record)
    }

    fn after_claim(&self) -> After {
        After {
            state: StateWord::Running,
            attempt: Some(self.id),
            machine: Some(self.me.clone()),
            cancel_requested: false,
            attempts: self.no,
            losses: self.losses,
        }
    }

    fn claimed_at(&mut self, claimed: u64, known: u64, now: Time, draw: f64) -> Vec<Effect> {
        self.claimed = Some(claimed);
        self.known = known;
        if self.asks {
            self.stage = Stage::Ending {
                gone: Gone {
                    outcome: Outcome::Interrupted,
                    output: OutputCount::default(),
                    started_at: now,
                    ended_at: now,
                },
            };
            let mut effects = vec![Effect::Ack];
            effects.extend(self.end(now, draw));
            return effects;
        }
        self.stage = Stage::Running;
        let mut effects = vec![
            Effect::Ack,
            Effect::Start {
                token: self.token().unwrap_or_default(),
                no: self.no,
            },
        ];
        if self.look_for_cancel {
            effects.push(Effect::ReadAll);
        }
        effects
    }

    fn claim_read(
        &mut self,
        reading: &Reading,
        refused: Option<u64>,
        now: Time,
        draw: f64,
    ) -> Vec<Effect> {
        match ticket::refused(self.id, &self.me, self.claimed, self.known, reading) {
            Refused::GoOn {
                seq,
                claimed,
                cancel,
            } => {
                if self.asks {
                    self.cancel_requested = cancel;
                    return self.claimed_at(claimed, seq, now, draw);
                }
                let mut effects = self.claimed_at(claimed, seq, now, draw);
                if cancel {
                    // Start and end it: the executor's report then closes the attempt as any other.
                    self.cancel_requested = true;
                    effects.push(Effect::Cancel);
                }
                effects
            }
            Refused::NotClaimed if self.appending.is_some() => {
                // Its own append is still on its way and will tell.
                Vec::new()
            }
            Refused::NotClaimed => self.judge(reading.tip.as_ref(), refused, now),
            Refused::Ended { .. } | Refused::Fenced => self.finish(vec![Effect::Ack]),
            Refused::Blank | Refused::Unclear => self.pause(),
        }
    }

    /// An adopted attempt learns from its own claim what the executor does not keep.
    fn learn(&mut self, reading: &Reading) {
        if let Some(own) = &reading.own
            && own.readable
            && own.about == Some(self.id)
            && !own.ends
        {
            (self.no, self.losses) = (own.after.attempts, own.after.losses);
            self.learned = true;
        }
    }

    /// What a reading means for an attempt that is claimed: as [`ticket::refused`], but no journal
    /// at all is believed only when it is seen again and again.
    fn read(&mut self, reading: &Reading) -> Refused {
        self.learn(reading);
        match ticket::refused(self.id, &self.me, self.claimed, self.known, reading) {
            Refused::Blank => {
                self.blanks += 1;
                if self.blanks < ticket::BLANKS_MAX {
                    Refused::Unclear
                } else {
                    Refused::Fenced
                }
            }
            said => {
                self.blanks = 0;
                said
            }
        }
    }

    fn running_read(&mut self, reading: &Reading) -> Vec<Effect> {
        match self.read(reading) {
            Refused::GoOn { seq, cancel, .. } => {
                self.known = seq;
                if cancel && !self.cancel_requested {
                    self.cancel_requested = true;
                    return vec![Effect::Cancel];
                }
                Vec::new()
            }
            Refused::Unclear | Refused::Blank => self.pause(),
            Refused::Fenced | Refused::NotClaimed | Refused::Ended { .. } => {
                self.stage = Stage::Superseded;
                vec![Effect::Fence]
            }
        }
    }

    /// Appends the end, as far as it is known what the journal has to say about it.
    fn end(&mut self, now: Time, draw: f64) -> Vec<Effect> {
        let Stage::Ending { gone } = self.stage.clone() else {
            return Vec::new();
        };
        if !self.learned {
            return vec![Effect::ReadAll];
        }
        let situation = Situation {
            spec: &self.spec,
            machine: &self.me,
            attempts: self.no,
            losses: self.losses,
            cancel_requested: self.cancel_requested,
            now,
            draw,
        };
        let next = match policy::next(&gone.outcome, &situation) {
            _ if self.asks && !self.cancel_requested => Next::Ask {
                question: damage::question_of_ticket(),
            },
            Next::Backoff { .. } if self.is_of_earlier_epoch() => Next::Ask {
                question: damage::question_after(&self.me, self.no),
            },
            next => next,
        };
        let state = match &next {
            Next::End => crate::job::terminal_word(&gone.outcome),
            Next::Backoff { .. } => StateWord::Backoff,
            Next::Ask { .. } => StateWord::NeedsHuman,
        };
        let losses = self.losses + u32::from(policy::counts_as_lost(&gone.outcome));
        self.append(Box::new(Record {
            prev: self.known,
            change: Change::Ended {
                attempt: self.id,
                outcome: gone.outcome,
                output: gone.output,
                started_at: gone.started_at,
                ended_at: gone.ended_at,
                next,
            },
            after: After {
                state,
                attempt: None,
                machine: None,
                cancel_requested: false,
                attempts: self.no,
                losses,
            },
        }))
    }

    fn end_read(
        &mut self,
        reading: &Reading,
        refused: Option<u64>,
        now: Time,
        draw: f64,
    ) -> Vec<Effect> {
        let Stage::Ending { gone } = self.stage.clone() else {
            return Vec::new();
        };
        match self.read(reading) {
            Refused::Ended { .. } => self.finish(vec![Effect::Forget]),
            Refused::GoOn { seq, cancel, .. } => {
                self.known = seq;
                self.cancel_requested |= cancel;
                if self.appending.is_some() {
                    // One is on its way and will tell.
                    Vec::new()
                } else if refused == Some(seq) || !self.learned {
                    // A read that is older than what refused the append, or than the claim.
                    self.pause()
                } else {
                    self.end(now, draw)
                }
            }
            Refused::Unclear | Refused::Blank => self.pause(),
            Refused::Fenced | Refused::NotClaimed => {
                self.finish(vec![Effect::Superseded(Box::new(gone)), Effect::Forget])
            }
        }
    }

    /// Whether it was claimed in an epoch before the hub's: the journal may have lost later attempts.
    fn is_of_earlier_epoch(&self) -> bool {
        self.token().is_some_and(|t| token_epoch(t) < self.hub)
    }

    fn finish(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.stage = Stage::Done;
        effects.push(Effect::Done);
        effects
    }
}

/// What an executor knows of an attempt that its agent does not know any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its fencing token.
    pub token: u64,
    /// Its number.
    pub no: u32,
    /// The job as asked for.
    pub spec: JobSpec,
}
