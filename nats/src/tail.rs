//! Reading streams in order: all that is there, or all that will come.
//!
//! Always by a consumer: a core subscription would also show appends that the hub refused.

use std::collections::VecDeque;

use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::{self, Message};
use fleet_contract::time::Time;
use futures_util::StreamExt;

use crate::bus::{Bus, BusError, Stored, is_smuggled};

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

/// A reader that follows a stream; it resumes by itself at the next sequence after an outage.
pub struct Tail {
    messages: Ordered,
    caught_up: Option<bool>,
    ready: VecDeque<Next>,
    last_seq: u64,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
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
        let context = jetstream::new(bus.client().clone());
        let failed = |what: &str, error: &dyn std::fmt::Display| BusError::Server {
            what: format!("{what} {stream}"),
            code: 0,
            description: error.to_string(),
        };
        let handle = context
            .get_stream_no_info(stream)
            .await
            .map_err(|e| failed("reading", &e))?;
        let config = OrderedConfig {
            filter_subjects: filters.to_vec(),
            deliver_policy: from.policy(),
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let mut consumer: Consumer<OrderedConfig> =
            tokio::time::timeout(crate::bus::ANSWER_WITHIN, handle.create_consumer(config))
                .await
                .map_err(|_| BusError::NoAnswer {
                    what: format!("reading {stream}"),
                    within: crate::bus::ANSWER_WITHIN,
                })?
                .map_err(|e| failed("reading", &e))?;
        let pending = consumer
            .info()
            .await
            .map(|info| info.num_pending)
            .map_err(|e| failed("reading", &e))?;
        let messages = consumer
            .messages()
            .await
            .map_err(|e| failed("reading", &e))?;
        let mut ready = VecDeque::new();
        if pending == 0 {
            ready.push_back(Next::CaughtUp);
        }
        Ok(Self {
            messages,
            caught_up: Some(pending == 0),
            ready,
            last_seq: 0,
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
            match self.messages.next().await {
                None => return Err(BusError::Closed("the reader ended".to_owned())),
                // The reader makes its consumer anew after a gap or a missing heartbeat by itself.
                Some(Err(error)) => tracing::debug!(%error, "reader resumes"),
                Some(Ok(message)) => self.take(&message)?,
            }
        }
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
        self.last_seq = stored.seq;
        self.ready
            .push_back(Next::Message(Box::new(stored), pending));
        if pending == 0 && self.caught_up == Some(false) {
            self.caught_up = Some(true);
            self.ready.push_back(Next::CaughtUp);
        }
        Ok(())
    }
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
        match tokio::time::timeout(crate::bus::ANSWER_WITHIN, tail.next()).await {
            Ok(Ok(Next::Message(message, _))) => found.push(*message),
            Ok(Ok(Next::CaughtUp)) => return Ok(found),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(BusError::NoAnswer {
                    what: format!("reading {stream}"),
                    within: crate::bus::ANSWER_WITHIN,
                });
            }
        }
    }
}
