//! Reading streams in order: all that is there, or all that will come.
//!
//! Always by a consumer: a core subscription would also show appends that the hub refused.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, Message};
use fleet_contract::time::Time;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until};

use crate::bus::{ANSWER_WITHIN, Bus, BusError, Stored, broken, is_smuggled};
use crate::connect::{LinkState, LinkStatus};

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first message there is.
    First,
    /// With the last message of each subject.
    LastOfEach,
    /// With this sequence.
    Seq(u64),
    /// With the first message stored at or after this time.
    Time(Time),
    /// With what comes next.
    New,
}

impl From {
    fn policy(self) -> DeliverPolicy {
        match self {
            Self::First => DeliverPolicy::All,
            Self::LastOfEach => DeliverPolicy::LastPerSubject,
            Self::Seq(seq) => DeliverPolicy::ByStartSequence {
                start_sequence: seq.max(1),
            },
            Self::New => DeliverPolicy::New,
            Self::Time(time) => {
                let nanos = i128::from(time.as_micros()) * 1000;
                match time::OffsetDateTime::from_unix_timestamp_nanos(nanos) {
                    Ok(start_time) => DeliverPolicy::ByStartTime { start_time },
                    Err(_) => DeliverPolicy::All,
                }
            }
        }
    }
}

/// What a tail brings next.
#[derive(Debug, Clone)]
pub enum Next {
    /// A message, and how many more the stream holds for this reader.
    Message(Box<Stored>, u64),
    /// Everything that was there when the tail began has been read.
    CaughtUp,
}

/// How long nothing may come before a reader looks whether there is anything to come.
const QUIET: Duration = Duration::from_millis(500);
/// First and longest pause before a reader that could not be made anew is tried again.
const REOPEN_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A reader that follows a stream; it resumes by itself at the next sequence after an outage.
pub struct Tail {
    bus: Bus,
    stream: String,
    filters: Vec<String>,
    /// Where it begins as long as it has read nothing.
    start: From,
    messages: Box<Ordered>,
    caught_up: bool,
    /// Messages that were there when it began and have not been read yet.
    left: u64,
    ready: VecDeque<Next>,
    last_seq: u64,
    /// How often the link had broken when its consumer was made.
    disconnects: u64,
    /// When something came last, while it is not caught up.
    quiet: Instant,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
            .field("stream", &self.stream)
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

impl Tail {
    /// Opens a reader of what matches one of `filters`.
    ///
    /// # Errors
    /// `Closed` or `NoAnswer` where the hub cannot be asked.
    pub async fn open(
        bus: &Bus,
        stream: &str,
        filters: &[String],
        from: From,
    ) -> Result<Self, BusError> {
        // What comes after this very moment, also if the consumer has to be made anew before
        // anything came.
        let start = match from {
            From::New => From::Seq(bus.usage(stream).await?.last_seq + 1),
            other => other,
        };
        let disconnects = bus.status().borrow().disconnects;
        let (messages, pending) = Box::pin(consumer(bus, stream, filters, start)).await?;
        let mut ready = VecDeque::new();
        if pending == 0 {
            ready.push_back(Next::CaughtUp);
        }
        Ok(Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filters: filters.to_vec(),
            start,
            messages,
            caught_up: pending == 0,
            left: pending,
            ready,
            last_seq: 0,
            disconnects,
            quiet: Instant::now(),
        })
    }

    /// What comes next; waits for it for ever.
    ///
    /// # Errors
    /// `Closed` where the reader cannot go on.
    pub async fn next(&mut self) -> Result<Next, BusError> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(next);
            }
            let mut status = self.bus.status();
            let disconnects = self.disconnects;
            tokio::select! {
                message = self.messages.next() => match message {
                    None => return Err(BusError::Closed("the reader ended".to_owned())),
                    // The client makes the consumer anew after a gap or a missing heartbeat.
                    Some(Err(error)) => tracing::debug!(%error, "reader resumes"),
                    Some(Ok(message)) => self.take(&message)?,
                },
                // The client would notice only after 15 s that the hub has forgotten its consumer.
                () = broken(&mut status, disconnects) => self.reopen().await,
                () = sleep_until(self.quiet + QUIET), if !self.caught_up => self.look_for_end().await,
            }
        }
    }

    /// Nothing comes though the server says that there is more: it counts messages that it cannot
    /// read, for a damaged block, and never brings them. What it has last decides.
    async fn look_for_end(&mut self) {
        self.quiet = Instant::now();
        for filter in &self.filters {
            match self.bus.last(&self.stream, filter).await {
                Ok(last) if last.as_ref().is_none_or(|m| m.seq <= self.last_seq) => {}
                Ok(_) | Err(_) => return,
            }
        }
        tracing::warn!(
            stream = self.stream,
            left = self.left,
            "messages that cannot be read"
        );
        self.caught_up = true;
        self.ready.push_back(Next::CaughtUp);
    }

    /// Makes the consumer anew where the reader stopped.
    async fn reopen(&mut self) {
        let mut pause = REOPEN_PAUSE.0;
        loop {
            let mut status = self.bus.status();
            let up = |s: &LinkStatus| s.state == LinkState::Connected;
            if status.wait_for(up).await.is_err() {
                return std::future::pending().await;
            }
            let disconnects = status.borrow_and_update().disconnects;
            let from = match self.last_seq {
                0 => self.start,
                seq => From::Seq(seq + 1),
            };
            match Box::pin(consumer(&self.bus, &self.stream, &self.filters, from)).await {
                Ok((messages, pending)) => {
                    // Only now: whoever drops this future half-way and calls again begins anew.
                    self.disconnects = disconnects;
                    self.messages = messages;
                    if pending == 0 && !self.caught_up {
                        self.caught_up = true;
                        self.ready.push_back(Next::CaughtUp);
                    }
                    return;
                }
                Err(error) => tracing::debug!(%error, stream = self.stream, "reader not made anew"),
            }
            tokio::time::sleep(crate::clock::jittered(pause)).await;
            pause = (pause * 2).min(REOPEN_PAUSE.1);
        }
    }

    /// Whether it follows its stream right now: the link is up, and its consumer was made over it.
    pub(crate) fn follows(&self) -> bool {
        let status = self.bus.status();
        let status = status.borrow();
        status.state == LinkState::Connected && status.disconnects == self.disconnects
    }

    /// The sequence of the last message read.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn take(&mut self, message: &Message) -> Result<(), BusError> {
        let info = message
            .info()
            .map_err(|e| BusError::Closed(e.to_string()))?;
        let pending = info.pending;
        let micros = i64::try_from(info.published.unix_timestamp_nanos() / 1000).unwrap_or(0);
        let stored = Stored {
            subject: message.subject.to_string(),
            seq: info.stream_sequence,
            time: Time::from_micros(micros),
            smuggled: message.headers.as_ref().is_some_and(is_smuggled),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        };
        if stored.seq <= self.last_seq {
            return Ok(());
        }
        self.last_seq = stored.seq;
        self.quiet = Instant::now();
        self.ready
            .push_back(Next::Message(Box::new(stored), pending));
        // What keeps coming in does not put off the end of what was there.
        self.left = self.left.saturating_sub(1);
        if (self.left == 0 || pending == 0) && !self.caught_up {
            self.caught_up = true;
            self.ready.push_back(Next::CaughtUp);
        }
        Ok(())
    }
}

/// A consumer, and how much it has to bring.
async fn consumer(
    bus: &Bus,
    stream: &str,
    filters: &[String],
    from: From,
) -> Result<(Box<Ordered>, u64), BusError> {
    let context = jetstream::new(bus.client().clone());
    let failed = |error: &dyn std::fmt::Display| BusError::Server {
        what: format!("reading {stream}"),
        code: 0,
        description: error.to_string(),
    };
    let unanswered = || BusError::NoAnswer {
        what: format!("reading {stream}"),
        within: ANSWER_WITHIN,
    };
    let make = async {
        let handle = context
            .get_stream_no_info(stream)
            .await
            .map_err(|e| failed(&e))?;
        let config = OrderedConfig {
            filter_subjects: filters.to_vec(),
            deliver_policy: from.policy(),
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let created = handle.create_consumer(config).await;
        let consumer: Consumer<OrderedConfig> = created.map_err(|e| match e.kind() {
            // Nobody said no: the question or its answer was lost with the link.
            ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => unanswered(),
            _ => failed(&e),
        })?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|e| failed(&e))?;
        Ok((Box::new(messages), pending))
    };
    tokio::time::timeout(ANSWER_WITHIN, make)
        .await
        .map_err(|_| unanswered())?
}

/// Everything that matches and is there now, in order.
///
/// # Errors
/// As [`Tail::open`].
pub async fn read_all(
    bus: &Bus,
    stream: &str,
    filters: &[String],
    from: From,
) -> Result<Vec<Stored>, BusError> {
    let mut tail = Tail::open(bus, stream, filters, from).await?;
    let mut found = Vec::new();
    loop {
        match tokio::time::timeout(ANSWER_WITHIN, tail.next()).await {
            Ok(Ok(Next::Message(message, _))) => found.push(*message),
            Ok(Ok(Next::CaughtUp)) => return Ok(found),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(BusError::NoAnswer {
                    what: format!("reading {stream}"),
                    within: ANSWER_WITHIN,
                });
            }
        }
    }
}
