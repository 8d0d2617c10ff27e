//! Pulls at queues of tickets: any number at a time, over one inbox. What a pull brings is told in
//! the order in which it comes; which queue a ticket is of, its subject says.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;

use crate::bus::{Bus, BusError};
use crate::work::{ACK_WAIT, Delivered, Queue};

/// How long one parked pull waits at the hub.
pub const PARK_FOR: Duration = Duration::from_secs(60);
/// When a parked pull is surely over, whatever the hub has said of it.
pub const PARK_OVER: Duration = PARK_FOR.saturating_add(ACK_WAIT);
/// How long a pull without waiting waits for its answer.
pub const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What a pull brought.
#[derive(Debug)]
pub enum Pulled {
    /// A ticket.
    Ticket(Box<Delivered>),
    /// The queue is empty.
    Empty,
    /// The pull has to be made again: it expired, or the hub's consumer moved.
    Again,
    /// The queue's consumer does not exist (yet).
    NoConsumer,
}

/// Pulls over one inbox of their own: a delivered ticket keeps its own subject, which the client's
/// shared inbox cannot tell apart.
#[derive(Debug)]
pub struct Pulls {
    bus: Bus,
    inbox: String,
    made: u64,
    answers: Subscriber,
}

impl Pulls {
    /// Asks a queue for a ticket that is there now; the pull's number.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn ask(&mut self, queue: &Queue) -> Result<u64, BusError> {
        let body = Bytes::from_static(br#"{"batch":1,"no_wait":true}"#);
        self.pull(queue, body).await
    }

    /// Parks a pull at a queue, for its next ticket; the pull's number.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn park(&mut self, queue: &Queue) -> Result<u64, BusError> {
        let expires = u64::try_from(PARK_FOR.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({ "batch": 1, "expires": expires }).to_string();
        self.pull(queue, body.into()).await
    }

    async fn pull(&mut self, queue: &Queue, body: Bytes) -> Result<u64, BusError> {
        self.made += 1;
        let reply = format!("{}.{}", self.inbox, self.made);
        let client = self.bus.client();
        let sent = client.publish_with_reply(queue.api().to_owned(), reply, body);
        let sent = tokio::time::timeout(ASK_WITHIN, sent).await;
        sent.map_err(|_| no_answer(queue))?
            .map_err(|e| BusError::Closed(e.to_string()))?;
        Ok(self.made)
    }

    /// What comes next, and of which pull; of a ticket its queue alone is known. Waits for ever where
    /// nothing comes; none when the inbox is gone. May be dropped at any time: nothing is lost.
    pub async fn next(&mut self) -> Option<(Option<u64>, Pulled)> {
        let message = self.answers.next().await?;
        let number = message.subject.strip_prefix(self.inbox.as_str());
        let number = number.and_then(|rest| rest.strip_prefix('.')?.parse().ok());
        Some((number, pulled(&message)))
    }

    /// Asks one queue for a ticket that is there now, and waits for it. A ticket that an earlier pull
    /// had given up on may be what it brings.
    ///
    /// # Errors
    /// `NoAnswer` or `Closed`.
    pub async fn pull_now(&mut self, queue: &Queue) -> Result<Pulled, BusError> {
        let number = self.ask(queue).await?;
        let deadline = tokio::time::Instant::now() + ASK_WITHIN;
        loop {
            let answer = tokio::time::timeout_at(deadline, self.next()).await;
            match answer.map_err(|_| no_answer(queue))? {
                Some((_, ticket @ Pulled::Ticket(_))) => return Ok(ticket),
                Some((of, status)) if of == Some(number) => return Ok(status),
                Some(_) => {}
                None => return Err(BusError::Closed("the inbox of pulls ended".to_owned())),
            }
        }
    }

    /// Takes them all back. A ticket that still arrives goes back to its queue at once: dropped, it
    /// would wait out its whole [`ACK_WAIT`].
    pub async fn withdraw(mut self) {
        if self.answers.drain().await.is_err() {
            return;
        }
        while let Some(message) = self.answers.next().await {
            if let Pulled::Ticket(delivered) = pulled(&message) {
                // Nothing more can be done about it: it is delivered again after its wait.
                let _ = self.bus.give_back(&delivered).await;
            }
        }
    }
}

impl Bus {
    /// Where pulls can be made.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn pulls(&self) -> Result<Pulls, BusError> {
        let inbox = self.client().new_inbox();
        let answers = self
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|e| BusError::Closed(e.to_string()))?;
        Ok(Pulls {
            bus: self.clone(),
            inbox,
            made: 0,
            answers,
        })
    }
}

fn no_answer(queue: &Queue) -> BusError {
    BusError::NoAnswer {
        what: queue.api().to_owned(),
        within: ASK_WITHIN,
    }
}

fn pulled(message: &Message) -> Pulled {
    match message.status {
        None | Some(StatusCode::OK) => {}
        Some(StatusCode::NO_RESPONDERS) => return Pulled::NoConsumer,
        Some(StatusCode::NOT_FOUND) => return Pulled::Empty,
        Some(_) => return Pulled::Again,
    }
    match Delivered::of(message) {
        Some(delivered) => Pulled::Ticket(Box::new(delivered)),
        None => Pulled::Again,
    }
}
