//! One attempt at a job, from the ticket to the result in the journal: the agent's state machine.
//!
//! Pure: inputs go in, effects come out, and the agent's shell and the simulation both carry them
//! out. It may not know a clock, a bus or a process; times and draws come with the inputs.

use crate::ids::{AttemptId, JobId, MachineId, Writer};
use crate::job::{first_record, token};
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
    Superseded(Option<Outcome>),
    /// Nothing more will come of this attempt: drop it.
    Done,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// The ticket is here, the journal not read yet.
    Judging { reads: u32 },
    /// `claimed` is on its way.
    Claiming { record: Box<Record> },
    /// The journal says that it runs here.
    Running,
    /// Its processes are gone, its end is on its way.
    Ending { gone: Gone, next: Next },
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
    /// The attempt's number and the losses before it, once claimed.
    no: u32,
    losses: u32,
    /// The journal's last sequence as far as this attempt has adopted it.
    known: u64,
    claimed: Option<u64>,
    epoch: u64,
    cancel_requested: bool,
    stage: Stage,
}

impl Attempt {
    /// The attempt that a delivered ticket may become, and the first things to do.
    #[must_use]
    pub fn deliver(me: MachineId, id: AttemptId, ticket: Ticket) -> (Self, Vec<Effect>) {
        let attempt = Self {
            me,
            job: ticket.job,
            id,
            spec: (*ticket.spec).clone(),
            no: 0,
            losses: 0,
            known: ticket.after,
            claimed: None,
            epoch: ticket.epoch,
            cancel_requested: false,
            stage: Stage::Judging { reads: 0 },
            ticket: Some(ticket),
        };
        (attempt, vec![Effect::Read])
    }

    /// The attempt that a restarted agent finds at its executor, running or ended.
    #[must_use]
    pub fn adopt(me: MachineId, found: Found, gone: Option<Gone>) -> (Self, Vec<Effect>) {
        let mut attempt = Self {
            me,
            job: found.job,
            id: found.attempt,
            spec: found.spec,
            ticket: None,
            no: found.no,
            losses: 0,
            known: found.token & ((1 << 40) - 1),
            claimed: Some(found.token & ((1 << 40) - 1)),
            epoch: found.token >> 40,
            cancel_requested: false,
            stage: Stage::Running,
        };
        if let Some(gone) = gone {
            // The next step reads the journal first: the attempt may have been taken over.
            attempt.stage = Stage::Ending {
                gone,
                next: Next::End,
            };
        }
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

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Its fencing token, once claimed.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        self.claimed.map(|seq| token(self.epoch, seq))
    }

    /// How many attempts of the job were lost before this one.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// Takes in what happened and says what to do, in order. `now` is the machine's clock, `draw` a
    /// random number in 0..1.
    pub fn on(&mut self, input: Input, now: Time, draw: f64) -> Vec<Effect> {
        match (&self.stage, input) {
            (Stage::Judging { .. }, Input::Tip(tip)) => self.judge(tip.as_ref(), now),
            (Stage::Judging { .. }, Input::NoAnswer) => vec![Effect::Pause],
            (Stage::Judging { .. }, Input::Again) => vec![Effect::Read],

            (Stage::Claiming { .. }, Input::Appended(seq)) => self.claimed_at(seq, seq),
            (Stage::Claiming { .. }, Input::Refused(reading) | Input::Reread(reading)) => {
                self.claim_refused(&reading, now)
            }
            (Stage::Claiming { .. }, Input::NoAnswer) => vec![Effect::Pause],
            (Stage::Claiming { record }, Input::Again) => vec![Effect::Append(record.clone())],

            (Stage::Running, Input::CancelAsked) => vec![Effect::ReadAll],
            (Stage::Running, Input::Gone(gone)) => self.ended(gone, now, draw),
            (Stage::Running, Input::Refused(reading) | Input::Reread(reading)) => {
                self.reread(&reading)
            }
            (Stage::Running, Input::Again) => vec![Effect::ReadAll],
            (Stage::Running, Input::NoAnswer) => vec![Effect::Pause],

            (Stage::Ending { .. }, Input::Appended(_)) => self.finish(vec![Effect::Forget]),
            (Stage::Ending { .. }, Input::Refused(reading) | Input::Reread(reading)) => {
                self.end_refused(&reading, now, draw)
            }
            (Stage::Ending { .. }, Input::NoAnswer) => vec![Effect::Pause],
            (Stage::Ending { .. }, Input::Again) => vec![Effect::ReadAll],

            (Stage::Superseded, Input::Gone(gone)) => {
                self.finish(vec![Effect::Superseded(Some(gone.outcome)), Effect::Forget])
            }
            // Whatever else arrives late was overtaken by what this attempt already knows.
            _ => Vec::new(),
        }
    }

    fn judge(&mut self, tip: Option<&Tip>, now: Time) -> Vec<Effect> {
        let Some(ticket) = self.ticket.clone() else {
            return self.finish(Vec::new());
        };
        match ticket::judge(&ticket, &self.me, tip) {
            Verdict::Claim { expect, no, losses } => self.claim(&ticket, expect, no, losses, now),
            Verdict::Stale => self.finish(vec![Effect::Ack]),
            Verdict::NotMine => self.finish(Vec::new()),
            Verdict::GiveBack => self.finish(vec![Effect::GiveBack]),
            Verdict::ReadAgain => {
                let Stage::Judging { reads } = &mut self.stage else {
                    return Vec::new();
                };
                *reads += 1;
                match *reads {
                    n if n < ticket::READ_AGAIN_MAX => vec![Effect::Pause],
                    // The journal it refers to was purged: nothing can come of it.
                    _ if tip.is_none() => self.finish(vec![Effect::Ack]),
                    _ => self.finish(vec![Effect::GiveBack]),
                }
            }
        }
    }

    fn claim(
        &mut self,
        ticket: &Ticket,
        expect: u64,
        no: u32,
        losses: u32,
        now: Time,
    ) -> Vec<Effect> {
        (self.no, self.losses, self.known) = (no, losses, expect);
        let change = |spec| Change::Claimed {
            attempt: self.id,
            no,
            ticket: ticket.ticket,
            epoch: self.epoch,
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
        self.stage = Stage::Claiming {
            record: Box::new(record.clone()),
        };
        vec![Effect::Append(Box::new(record))]
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

    fn claimed_at(&mut self, claimed: u64, known: u64) -> Vec<Effect> {
        self.claimed = Some(claimed);
        self.known = known;
        self.stage = Stage::Running;
        vec![
            Effect::Ack,
            Effect::Start {
                token: token(self.epoch, claimed),
                no: self.no,
            },
        ]
    }

    fn claim_refused(&mut self, reading: &Reading, now: Time) -> Vec<Effect> {
        match ticket::refused(self.id, self.known, false, reading) {
            Refused::GoOn {
                seq,
                claimed: Some(claimed),
                cancel,
            } => {
                let mut effects = self.claimed_at(claimed, seq);
                if cancel {
                    // Start and end it: the executor's report then closes the attempt as any other.
                    self.cancel_requested = true;
                    effects.push(Effect::Cancel);
                }
                effects
            }
            Refused::NotClaimed => {
                self.stage = Stage::Judging { reads: 0 };
                self.judge(reading.tip.as_ref(), now)
            }
            Refused::Ended { .. } | Refused::Fenced | Refused::GoOn { claimed: None, .. } => {
                self.finish(vec![Effect::Ack])
            }
        }
    }

    /// An adopted attempt learns from its own claim what the executor does not keep.
    fn learn(&mut self, reading: &Reading) {
        if let Some(own) = &reading.own
            && own.about == Some(self.id)
            && !own.ends
        {
            (self.no, self.losses) = (own.after.attempts, own.after.losses);
        }
    }

    fn reread(&mut self, reading: &Reading) -> Vec<Effect> {
        self.learn(reading);
        match ticket::refused(self.id, self.known, true, reading) {
            Refused::GoOn { seq, cancel, .. } => {
                self.known = self.known.max(seq);
                if cancel && !self.cancel_requested {
                    self.cancel_requested = true;
                    return vec![Effect::Cancel];
                }
                Vec::new()
            }
            Refused::Fenced | Refused::NotClaimed | Refused::Ended { .. } => {
                self.stage = Stage::Superseded;
                vec![Effect::Fence]
            }
        }
    }

    fn ended(&mut self, gone: Gone, now: Time, draw: f64) -> Vec<Effect> {
        let next = policy::next(
            &gone.outcome,
            &Situation {
                spec: &self.spec,
                machine: &self.me,
                attempts: self.no,
                losses: self.losses,
                cancel_requested: self.cancel_requested,
                now,
                draw,
            },
        );
        let state = match (&next, crate::job::terminal_word(&gone.outcome)) {
            (Next::End, word) => word,
            (Next::Backoff { .. }, _) => StateWord::Backoff,
            (Next::Ask { .. }, _) => StateWord::NeedsHuman,
        };
        let losses = self.losses + u32::from(policy::counts_as_lost(&gone.outcome));
        let record = Record {
            prev: self.known,
            change: Change::Ended {
                attempt: self.id,
                outcome: gone.outcome.clone(),
                output: gone.output,
                started_at: gone.started_at,
                ended_at: gone.ended_at,
                next: next.clone(),
            },
            after: After {
                state,
                attempt: None,
                machine: None,
                cancel_requested: false,
                attempts: self.no,
                losses,
            },
        };
        self.stage = Stage::Ending { gone, next };
        vec![Effect::Append(Box::new(record))]
    }

    fn end_refused(&mut self, reading: &Reading, now: Time, draw: f64) -> Vec<Effect> {
        let Stage::Ending { gone, .. } = self.stage.clone() else {
            return Vec::new();
        };
        self.learn(reading);
        match ticket::refused(self.id, self.known, true, reading) {
            Refused::Ended { .. } => self.finish(vec![Effect::Forget]),
            Refused::GoOn { seq, cancel, .. } => {
                self.known = self.known.max(seq);
                self.cancel_requested |= cancel;
                self.ended(gone, now, draw)
            }
            Refused::Fenced | Refused::NotClaimed => {
                self.finish(vec![Effect::Superseded(Some(gone.outcome)), Effect::Forget])
            }
        }
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
