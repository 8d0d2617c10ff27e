//! Drives one attempt: carries out the effects of the contract's attempt machine, in order, and
//! hands it what comes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::attempt::{Attempt, Effect, Gone, Input};
use fleet_contract::event::{SupersededTold, kind};
use fleet_contract::outcome::Outcome;
use fleet_contract::record::Record;
use fleet_contract::spec::OnLost;
use fleet_nats::bus::BusError;
use fleet_nats::clock;
use fleet_nats::flow::NewEvent;
use fleet_nats::work::Delivered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Stop;
use super::capacity::Slot;
use super::context::Context;
use super::pump;
use super::routes::{Announced, INBOX, Route, Told};
use crate::executor::{ClientError, KillCause, Start, StartRequest};

/// Pause before something that brought no answer is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Pause before what the spool did not take is told again.
const SPOOL_AGAIN: Duration = Duration::from_secs(5);
/// How often a running attempt reads its job's last record, should a command have been missed.
const REREAD: Duration = Duration::from_secs(30);
/// How often the acknowledgement of a ticket is tried.
const ACK_TRIES: u32 = 5;

/// An attempt and what belongs to it.
pub(super) struct Driver {
    context: Arc<Context>,
    attempt: Attempt,
    delivered: Option<Delivered>,
    inbox: mpsc::Receiver<Told>,
    /// Inputs that the driver makes itself.
    own: VecDeque<Told>,
    pause: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    slot: Option<Slot>,
    output: watch::Receiver<Announced>,
    pump: Option<JoinHandle<()>>,
    adopted: bool,
    /// Its end is known here and not to the hub yet.
    result_waits: bool,
    /// Lapses of the lease that the attempt knows of.
    lapses: u64,
    /// What is to be told of its being superseded, before the executor may forget it.
    superseded: Option<NewEvent>,
}

impl Driver {
    /// Drives `attempt`, which holds `slot`, until it is over.
    pub(super) fn start(
        context: &Arc<Context>,
        attempt: Attempt,
        effects: Vec<Effect>,
        delivered: Option<Delivered>,
        slot: Option<Slot>,
        announced: Announced,
    ) -> JoinHandle<()> {
        let (tell, inbox) = mpsc::channel(INBOX);
        let (announce, output) = watch::channel(announced);
        let route = Route {
            job: attempt.job,
            on_lost: attempt.spec.on_lost,
            inbox: tell,
            output: announce,
            started: delivered.is_none(),
        };
        context.routes.add(attempt.id, route);
        let result_waits = delivered.is_none() && announced.ended;
        if result_waits {
            context.results.make();
        }
        let driver = Self {
            context: context.clone(),
            lapses: context.lease.borrow().lapses_now(),
            adopted: delivered.is_none(),
            result_waits,
            attempt,
            delivered,
            inbox,
            own: VecDeque::new(),
            pause: None,
            slot,
            output,
            pump: None,
            superseded: None,
        };
        tokio::spawn(driver.run(effects))
    }

    async fn run(mut self, effects: Vec<Effect>) {
        if self.adopted {
            self.start_pump();
        }
        self.carry_out(effects).await;
        while !self.attempt.is_done() {
            let told = self.next().await;
            self.keep_up().await;
            let input = match told {
                Told::Input(input) => *input,
                Told::Reread => match self.read_all().await {
                    Some(input) => input,
                    None => continue,
                },
            };
            self.feed(input).await;
        }
        if self.result_waits {
            self.context.results.finish();
        }
        self.context.routes.remove(self.attempt.id);
        self.context.beat_soon.notify_one();
    }

    /// What happens next: its own inputs first, then what it is told, then a pause that is over.
    async fn next(&mut self) -> Told {
        if let Some(told) = self.own.pop_front() {
            return told;
        }
        let pausing = self.pause.is_some();
        let pause = async {
            match &mut self.pause {
                Some(pause) => pause.await,
                None => std::future::pending().await,
            }
        };
        let watch = async {
            if self.attempt.is_running() && !pausing {
                tokio::time::sleep(clock::jittered(REREAD)).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Some(told) = self.inbox.recv() => told,
            () = pause => {
                self.pause = None;
                Told::from(Input::Again)
            }
            () = watch => Told::Reread,
        }
    }

    /// Tells the attempt that the hub's store went back in time, before anything else. What its
    /// output's reader had sent may be gone, too.
    async fn keep_up(&mut self) {
        let held = *self.context.lease.borrow();
        if held.term == 0 || held.epoch <= self.attempt.hub_epoch() {
            return;
        }
        let (epoch, term) = (held.epoch, held.term);
        self.step(Input::Rebuilt { epoch, term }).await;
        if let Some(pump) = self.pump.take() {
            pump.abort();
            self.adopted = true;
            self.start_pump();
        }
    }

    /// Whether the hub is in the epoch that the attempt reads and appends in.
    fn at_hub(&self) -> bool {
        self.context.epoch_now() == Some(self.attempt.hub_epoch())
    }

    async fn feed(&mut self, input: Input) {
        if matches!(input, Input::Gone(_)) && !std::mem::replace(&mut self.result_waits, true) {
            self.context.results.make();
        }
        // Before anything else: what has come was read before the machine slept or was cut off.
        let lapses = self.context.lease.borrow().lapses_now();
        if lapses != std::mem::replace(&mut self.lapses, lapses) {
            self.step(Input::Lapsed).await;
        }
        self.step(input).await;
    }

    async fn step(&mut self, input: Input) {
        let effects = self.attempt.on(input, clock::now(), clock::draw());
        if !self.attempt.holds_slot() {
            self.slot = None;
        }
        self.carry_out(effects).await;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.effect(effect).await;
        }
    }

    async fn effect(&mut self, effect: Effect) {
        let bus = &self.context.bus;
        match effect {
            Effect::Read => {
                let input = match bus.tip(self.attempt.job).await {
                    Ok(_) if !self.at_hub() => Input::NoAnswer,
                    Ok(tip) => Input::Tip(tip),
                    Err(error) => no_answer(&error),
                };
                self.own.push_back(Told::from(input));
            }
            Effect::ReadAll => {
                let input = self.read_all().await.unwrap_or(Input::NoAnswer);
                self.own.push_back(Told::from(input));
            }
            Effect::Append(record) => {
                let input = self.append(&record).await;
                self.own.push_back(Told::from(input));
            }
            Effect::Pause => {
                self.pause = Some(Box::pin(tokio::time::sleep(clock::jittered(AGAIN))));
            }
            Effect::Ack => self.ack(),
            Effect::GiveBack => {
                if let Some(delivered) = self.delivered.take() {
                    // It comes back by itself where this does not arrive.
                    let _ = bus.give_back_after(&delivered, AGAIN).await;
                }
            }
            Effect::Start { token, no } => self.start_process(token, no).await,
            Effect::Cancel => self.kill(KillCause::Cancel),
            Effect::Fence => self.kill(KillCause::Fence),
            Effect::Forget => self.forget(),
            Effect::Superseded(gone) => self.superseded(*gone),
            Effect::Done => {}
        }
    }

    async fn append(&self, record: &Record) -> Input {
        let context = &self.context;
        let job = self.attempt.job;
        if !self.at_hub() {
            return Input::NoAnswer;
        }
        match context
            .bus
            .append(job, &context.writer(), clock::now(), record)
            .await
        {
            // To a store that went back in time meanwhile: what became of it is read.
            Ok(_) if !self.at_hub() => Input::NoAnswer,
            Ok(seq) => {
                context.seen.note(self.attempt.hub_epoch(), seq);
                Input::Appended(seq)
            }
            Err(BusError::Moved(_)) => match context.bus.reading(job, &context.me).await {
                Ok(_) if !self.at_hub() => Input::NoAnswer,
                Ok(reading) => Input::Refused(reading),
                Err(error) => no_answer(&error),
            },
            Err(error) => no_answer(&error),
        }
    }

    async fn read_all(&self) -> Option<Input> {
        if !self.at_hub() {
            return None;
        }
        let reading = self
            .context
            .bus
            .reading(self.attempt.job, &self.context.me)
            .await;
        reading.ok().filter(|_| self.at_hub()).map(Input::Reread)
    }

    /// Acknowledges the ticket beside everything else: the journal carries the job by now.
    fn ack(&mut self) {
        let Some(delivered) = self.delivered.take() else {
            return;
        };
        let bus = self.context.bus.clone();
        tokio::spawn(async move {
            for _ in 0..ACK_TRIES {
                if bus.ack(&delivered).await.is_ok() {
                    return;
                }
                tokio::time::sleep(clock::jittered(AGAIN)).await;
            }
            tracing::debug!("a ticket was not acknowledged; it comes again and is stale");
        });
    }

    async fn start_process(&mut self, token: u64, no: u32) {
        self.start_pump();
        let mut request = StartRequest {
            job: self.attempt.job,
            attempt: self.attempt.id,
            token,
            attempt_no: no,
            machine: self.context.me.clone(),
            spec: self.attempt.spec.clone(),
            env: self.context.env.clone(),
            fence_at: None,
        };
        loop {
            let executor = self.context.executor().await;
            // The lease of this very moment: the executor may have been away for long.
            let until = self.context.lease.borrow().until();
            request.fence_at = (self.attempt.spec.on_lost != OnLost::Ask).then_some(until);
            match executor.start(request.clone()).await {
                Ok(Start::New) => {
                    self.started();
                    return;
                }
                Ok(Start::Known(report)) => {
                    for told in super::listen::told_of(&report) {
                        self.own.push_back(told);
                    }
                    self.started();
                    return;
                }
                Err(error @ ClientError::Frame(_)) => {
                    let now = clock::now();
                    let gone = Gone {
                        outcome: Outcome::Rejected {
                            reason: error.to_string(),
                            no_room: false,
                        },
                        output: Default::default(),
                        started_at: now,
                        ended_at: now,
                    };
                    self.own.push_back(Told::from(Input::Gone(gone)));
                    return;
                }
                // The executor is being replaced: starting is the same however often it is asked.
                Err(error) => {
                    tracing::warn!(%error, "the executor does not start the attempt; trying again");
                    tokio::time::sleep(clock::jittered(AGAIN)).await;
                }
            }
        }
    }

    /// The executor has the attempt.
    fn started(&self) {
        self.context.routes.started(self.attempt.id);
        if *self.context.stop.borrow() == Stop::Now {
            // Its claim was on its way while the others were ended.
            self.kill(KillCause::Interrupt);
        }
    }

    /// Ends its processes, beside whatever else happens to it.
    fn kill(&self, cause: KillCause) {
        let (context, attempt) = (self.context.clone(), self.attempt.id);
        tokio::spawn(async move { context.kill(attempt, cause).await });
    }

    fn start_pump(&mut self) {
        if self.pump.is_none() {
            let log = pump::Log {
                job: self.attempt.job,
                attempt: self.attempt.id,
                resume: self.adopted,
            };
            self.pump = Some(tokio::spawn(pump::run(
                self.context.clone(),
                log,
                self.output.clone(),
            )));
        }
    }

    /// The executor may forget the attempt once its output is with the hub, too.
    fn forget(&mut self) {
        let (context, attempt) = (self.context.clone(), self.attempt.id);
        let (pump, superseded) = (self.pump.take(), self.superseded.take());
        tokio::spawn(async move {
            if let Some(event) = superseded {
                // Nobody but the executor knows of it until it is in the spool.
                while !context.events.tell_surely(event.clone()).await {
                    tokio::time::sleep(clock::jittered(SPOOL_AGAIN)).await;
                }
            }
            if let Some(pump) = pump
                && pump.await.is_err()
            {
                return;
            }
            let executor = context.executor().await;
            if let Err(error) = executor.forget(attempt).await {
                tracing::debug!(%error, %attempt, "the executor keeps the attempt; it is offered again");
            }
        });
    }

    fn superseded(&mut self, gone: Gone) {
        let told = SupersededTold {
            outcome: Some(gone.outcome),
            no: Some(self.attempt.no()),
            token: self.attempt.token(),
            output: gone.output,
            // The same where no process was started.
            started_at: (gone.started_at != gone.ended_at).then_some(gone.started_at),
            ended_at: Some(gone.ended_at),
        };
        self.superseded = Some(NewEvent {
            kind: kind::ATTEMPT_SUPERSEDED,
            machine: Some(self.context.me.clone()),
            job: Some(self.attempt.job),
            attempt: Some(self.attempt.id),
            detail: serde_json::to_value(told).unwrap_or_default(),
        });
    }
}

fn no_answer(error: &BusError) -> Input {
    tracing::debug!(%error, "no answer from the journal");
    Input::NoAnswer
}
