//! Tickets in their queues: publishing them, deleting them, and handing them out.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use fleet_contract::envelope::{self, Header, TICKET_MAX_BYTES, WireError};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::bus::{Bus, BusError, Store, is_smuggled};
use crate::clock;
use crate::subject;

/// How long a delivered ticket may stay unanswered: it covers delivery to claim only.
pub const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long one parked pull waits at the hub.
pub const PARK_FOR: Duration = Duration::from_secs(60);
/// How long a pull without waiting waits for its answer.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How often the publication of a ticket is tried.
const PUBLISH_TRIES: u32 = 3;
/// How often a consumer that is being deleted is made, and the pause between two tries.
const CREATE_TRIES: u32 = 20;
const CREATE_PAUSE: Duration = Duration::from_millis(5);
/// How long one try waits.
const PUBLISH_WITHIN: Duration = Duration::from_secs(2);

/// A ticket as it was delivered.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The ticket, or why it is none.
    pub ticket: Result<Box<Ticket>, WireError>,
    /// The queue it came from.
    pub subject: String,
    /// How often it was delivered.
    pub deliveries: u64,
    reply: String,
}

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

/// One queue of tickets: a lane or a machine's own, and a priority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    api: String,
}

impl Queue {
    /// The queue of this target and priority.
    #[must_use]
    pub fn new(target: &Target, priority: Priority) -> Self {
        let stream = subject::ticket_stream(target);
        let consumer = subject::consumer(target, priority);
        Self {
            api: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        }
    }
}

/// Asks queues for tickets that are there now, one queue at a time, over one inbox: a delivered
/// ticket keeps its own subject, which the client's shared inbox cannot tell apart.
#[derive(Debug)]
pub struct Asker {
    bus: Bus,
    inbox: String,
    asked: u64,
    answers: Subscriber,
}

impl Asker {
    /// Asks a queue for a ticket that is there now. A ticket that an earlier pull had given up on
    /// may be what it brings.
    ///
    /// # Errors
    /// `NoAnswer` or `Closed`.
    pub async fn pull_now(&mut self, queue: &Queue) -> Result<Pulled, BusError> {
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        let body = Bytes::from_static(br#"{"batch":1,"no_wait":true}"#);
        let client = self.bus.client();
        let sent = client.publish_with_reply(queue.api.clone(), reply.clone(), body);
        let no_answer = || BusError::NoAnswer {
            what: queue.api.clone(),
            within: ASK_WITHIN,
        };
        let deadline = tokio::time::Instant::now() + ASK_WITHIN;
        tokio::time::timeout_at(deadline, sent)
            .await
            .map_err(|_| no_answer())?
            .map_err(|e| BusError::Closed(e.to_string()))?;
        loop {
            let answer = tokio::time::timeout_at(deadline, self.answers.next()).await;
            let Some(message) = answer.map_err(|_| no_answer())? else {
                return Err(BusError::Closed("the inbox of pulls ended".to_owned()));
            };
            match pulled(&message) {
                ticket @ Pulled::Ticket(_) => return Ok(ticket),
                status if message.subject.as_str() == reply => return Ok(status),
                // An earlier pull's word comes too late to mean anything.
                _ => {}
            }
        }
    }
}

impl Asker {
    /// Ends it. A ticket that still arrives goes back to its queue at once.
    pub async fn withdraw(mut self) {
        give_back_late(&self.bus, &mut self.answers).await;
    }
}

/// A pull that waits at the hub for the next ticket of a queue.
#[derive(Debug)]
pub struct Parked {
    replies: Subscriber,
    /// When the hub has surely given it up, whatever it said.
    over: tokio::time::Instant,
}

impl Parked {
    /// What the pull brings; waits up to [`PARK_FOR`].
    pub async fn next(&mut self) -> Pulled {
        match tokio::time::timeout_at(self.over, self.replies.next()).await {
            Ok(Some(message)) => pulled(&message),
            Ok(None) | Err(_) => Pulled::Again,
        }
    }

    /// Takes the pull back. A ticket that still arrives goes back to its queue at once: dropped, it
    /// would wait out its whole [`ACK_WAIT`].
    pub async fn withdraw(mut self, bus: &Bus) {
        give_back_late(bus, &mut self.replies).await;
    }
}

/// Ends a subscription and gives back whatever ticket still arrives on it.
async fn give_back_late(bus: &Bus, replies: &mut Subscriber) {
    if replies.drain().await.is_err() {
        return;
    }
    while let Some(message) = replies.next().await {
        if let Pulled::Ticket(delivered) = pulled(&message) {
            // Nothing more can be done about it: it is delivered again after its wait.
            let _ = bus.give_back(&delivered).await;
        }
    }
}

fn pulled(message: &Message) -> Pulled {
    match message.status {
        None | Some(StatusCode::OK) => {}
        Some(StatusCode::NO_RESPONDERS) => return Pulled::NoConsumer,
        Some(StatusCode::NOT_FOUND) => return Pulled::Empty,
        Some(_) => return Pulled::Again,
    }
    let Some(reply) = &message.reply else {
        return Pulled::Again;
    };
    let ticket = decode_ticket(message);
    Pulled::Ticket(Box::new(Delivered {
        ticket: ticket.map(|(_, ticket)| ticket),
        subject: message.subject.to_string(),
        deliveries: deliveries(reply),
        reply: reply.to_string(),
    }))
}

/// The ticket in a message. One that lies in another queue than it says, or that the server was made
/// to store, is none.
fn decode_ticket(message: &Message) -> Result<(Header, Box<Ticket>), WireError> {
    if message.headers.as_ref().is_some_and(is_smuggled) {
        return Err(WireError::Malformed(
            "a ticket that nobody who may dispatch has published".to_owned(),
        ));
    }
    let (header, ticket): (Header, Box<Ticket>) =
        envelope::decode(&message.payload, TICKET_KIND, TICKET_MAX_BYTES)?;
    if subject::ticket(&ticket.target, ticket.spec.priority, ticket.job) != message.subject.as_str()
    {
        return Err(WireError::Malformed(format!(
            "a ticket for another queue than {}",
            message.subject
        )));
    }
    // Whoever pulls from a lane satisfies its requirements and no others.
    if let (Target::Lane(lane), Ok(needs)) = (&ticket.target, ticket.spec.needs())
        && needs.lane() != *lane
    {
        return Err(WireError::Malformed(format!(
            "a ticket in lane {lane}, whose job needs another: {needs}"
        )));
    }
    Ok((header, ticket))
}

/// The delivery count in an acknowledgement subject: the fifth token from the end of the short form
/// `$JS.ACK.<stream>.<consumer>.<count>.<seq>.<seq>.<time>.<pending>`; the long form has a domain and
/// an account before the stream and a random token at the end.
fn deliveries(reply: &str) -> u64 {
    let tokens: Vec<&str> = reply.split('.').collect();
    let at = if tokens.len() >= 11 { 6 } else { 4 };
    tokens.get(at).and_then(|t| t.parse().ok()).unwrap_or(1)
}

impl Bus {
    /// Publishes a ticket, at most three times under the same message id; its sequence.
    ///
    /// # Errors
    /// `NoAnswer` where nobody knows whether the hub has it; `Full` where it has no room.
    pub async fn publish_ticket(
        &self,
        ticket: &Ticket,
        priority: Priority,
    ) -> Result<u64, BusError> {
        let mut header = Header::new(clock::message_id(), clock::now(), TICKET_KIND);
        header.job = Some(ticket.job);
        let payload: Bytes = envelope::encode(&header, ticket, TICKET_MAX_BYTES)?.into();
        let subject = subject::ticket(&ticket.target, priority, ticket.job);
        let id = ticket.ticket.to_string();
        let options = Store {
            message_id: Some(&id),
            within: PUBLISH_WITHIN,
            ..Store::default()
        };
        // A try that was not answered may have been stored, whatever a later one is told.
        let mut unanswered = None;
        for _ in 0..PUBLISH_TRIES {
            match self.store(&subject, payload.clone(), &options).await {
                Err(error @ BusError::NoAnswer { .. }) => unanswered = Some(error),
                Err(error) => return Err(unanswered.unwrap_or(error)),
                Ok(seq) => return Ok(seq),
            }
        }
        Err(unanswered.unwrap_or_else(|| BusError::Closed("never tried".to_owned())))
    }

    /// Where the answers of [`Asker::pull_now`] arrive.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn asker(&self) -> Result<Asker, BusError> {
        let inbox = self.client().new_inbox();
        let answers = self
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|e| BusError::Closed(e.to_string()))?;
        Ok(Asker {
            bus: self.clone(),
            inbox,
            asked: 0,
            answers,
        })
    }

    /// Parks a pull at a queue.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn park(&self, queue: &Queue) -> Result<Parked, BusError> {
        let closed = |e: &dyn std::fmt::Display| BusError::Closed(e.to_string());
        let inbox = self.client().new_inbox();
        let replies = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|e| closed(&e))?;
        let expires = u64::try_from(PARK_FOR.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({ "batch": 1, "expires": expires }).to_string();
        self.client()
            .publish_with_reply(queue.api.clone(), inbox, body.into())
            .await
            .map_err(|e| closed(&e))?;
        let over = tokio::time::Instant::now() + PARK_FOR + ACK_WAIT;
        Ok(Parked { replies, over })
    }

    /// Acknowledges a ticket and waits until the hub has confirmed it.
    ///
    /// # Errors
    /// `NoAnswer`: the ticket may come again.
    pub async fn ack(&self, delivered: &Delivered) -> Result<(), BusError> {
        let headers = async_nats::HeaderMap::new();
        self.ask(
            &delivered.reply,
            Bytes::from_static(b"+ACK"),
            headers,
            PUBLISH_WITHIN,
        )
        .await
        .map(drop)
    }

    /// Gives a ticket back to its queue at once.
    ///
    /// # Errors
    /// `Closed`: it comes back after [`ACK_WAIT`].
    pub async fn give_back(&self, delivered: &Delivered) -> Result<(), BusError> {
        self.tell(&delivered.reply, Bytes::from_static(b"-NAK"))
            .await
    }

    /// Gives a ticket back to its queue, not to be delivered again before `pause`.
    ///
    /// # Errors
    /// `Closed`: it comes back after [`ACK_WAIT`].
    pub async fn give_back_after(
        &self,
        delivered: &Delivered,
        pause: Duration,
    ) -> Result<(), BusError> {
        let body = format!(
            "-NAK {}",
            json!({ "delay": u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX) })
        );
        self.tell(&delivered.reply, body.into()).await
    }

    /// Removes a message that is no ticket from its queue for good.
    ///
    /// # Errors
    /// `Closed`: it comes back after [`ACK_WAIT`].
    pub async fn discard(&self, delivered: &Delivered) -> Result<(), BusError> {
        self.tell(&delivered.reply, Bytes::from_static(b"+TERM malformed"))
            .await
    }

    /// Makes the three consumers of a lane or machine, if they are not there.
    ///
    /// # Errors
    /// What the server says.
    pub async fn ensure_queues(&self, target: &Target) -> Result<(), BusError> {
        let stream = subject::ticket_stream(target);
        for priority in Priority::ALL {
            let name = subject::consumer(target, priority);
            let config = json!({
                "stream_name": stream,
                "action": "",
                "config": {
                    "durable_name": name,
                    "name": name,
                    "filter_subject": subject::tickets(target, priority),
                    "deliver_policy": "all",
                    "ack_policy": "explicit",
                    "replay_policy": "instant",
                    "ack_wait": u64::try_from(ACK_WAIT.as_nanos()).unwrap_or(u64::MAX),
                    "max_ack_pending": -1,
                    "max_waiting": 20_000,
                    "max_deliver": -1,
                    // One ticket a slot: nobody takes all of a queue by one pull.
                    "max_batch": 1,
                    "max_expires": u64::try_from(PARK_FOR.as_nanos()).unwrap_or(u64::MAX),
                },
            });
            self.make_consumer(stream, &name, config).await?;
        }
        Ok(())
    }

    /// Deletes a consumer, if it is there.
    pub(crate) async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), BusError> {
        let verb = format!("CONSUMER.DELETE.{stream}.{name}");
        match self.api::<Value>(&verb, Bytes::new()).await {
            // 10014: there was none.
            Ok(_) | Err(BusError::Server { code: 10014, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn make_consumer(&self, stream: &str, name: &str, config: Value) -> Result<(), BusError> {
        let verb = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let body = Bytes::from(config.to_string());
        let mut tries = 0;
        loop {
            tries += 1;
            match self.api::<Value>(&verb, body.clone()).await {
                // There was one when it was asked for, and it was deleted under way.
                Err(BusError::Server { code: 10149, .. }) if tries < CREATE_TRIES => {
                    tokio::time::sleep(clock::jittered(CREATE_PAUSE)).await;
                }
                // The server deleted the folder of an earlier one after it had made this one: it
                // is there, and nothing that is done to it succeeds.
                Err(BusError::Server { code: 10012, .. }) if tries < CREATE_TRIES => {
                    self.delete_consumer(stream, name).await?;
                    tokio::time::sleep(clock::jittered(CREATE_PAUSE)).await;
                }
                made => return made.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_counts_are_read_from_both_forms() {
        assert_eq!(deliveries("$JS.ACK.WORK.any-n.3.10.11.1700.0"), 3);
        assert_eq!(
            deliveries("$JS.ACK._.hash.WORK.any-n.4.10.11.1700.0.rand"),
            4
        );
        assert_eq!(deliveries("nonsense"), 1);
    }
}
