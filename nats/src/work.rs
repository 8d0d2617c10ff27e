//! Tickets in their queues: publishing them, deleting them, and handing them out.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use fleet_contract::envelope::{self, Header, TICKET_MAX_BYTES, WireError};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use serde_json::{Value, json};

use crate::bus::{Bus, BusError, Store, is_smuggled};
use crate::clock;
use crate::pulls::PARK_FOR;
use crate::subject;

/// How long a delivered ticket may stay unanswered: it covers delivery to claim only.
pub const ACK_WAIT: Duration = Duration::from_secs(5);
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

    pub(crate) fn api(&self) -> &str {
        &self.api
    }
}

impl Delivered {
    /// The ticket in a message that a pull brought; none where it was not delivered as one.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let reply = message.reply.as_ref()?;
        Some(Self {
            ticket: decode_ticket(message).map(|(_, ticket)| ticket),
            subject: message.subject.to_string(),
            deliveries: deliveries(reply),
            reply: reply.to_string(),
        })
    }
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
