//! The bus: the few primitives of JetStream that fleet is built on, with a time-out on each and a
//! typed error for each way it can fail. It may not know what a job is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use fleet_contract::envelope::WireError;
use fleet_contract::time::Time;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use crate::clock;
use crate::connect::{Link, LinkStatus};
use crate::lanes::LanesSeen;
use crate::stat::Counters;

/// How long one request waits for its answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The server's code for a stream that has too much waiting to be written.
const TOO_MANY_AT_ONCE: u64 = 10167;
/// Before a message is sent again that such a stream did not take.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The server's code for a refused compare-and-swap.
const WRONG_LAST_SEQUENCE: u64 = 10071;

/// Why something on the bus did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// No answer: nobody knows whether it happened.
    #[error("no answer from the hub for {what} (waited up to {} s)", .within.as_secs_f32())]
    NoAnswer {
        /// What was asked.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// Nobody listens: no such stream or consumer, or no permission to use it.
    #[error("nobody on the hub answers {0}: the stream or consumer does not exist (yet)")]
    NoResponders(String),
    /// The compare-and-swap was refused: the subject has moved on.
    #[error("the journal moved on: {0}")]
    Moved(String),
    /// A limit of the hub is reached.
    #[error("the hub is full: {0}")]
    Full(String),
    /// The server said no.
    #[error("the hub refused {what}: {description} ({code})")]
    Server {
        /// What was asked.
        what: String,
        /// The server's error code.
        code: u64,
        /// Its words.
        description: String,
    },
    /// A message that is none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection cannot be used any more.
    #[error("the connection to the hub is closed: {0}")]
    Closed(String),
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its sequence in its stream.
    pub seq: u64,
    /// When the hub stored it.
    pub time: Time,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its bytes.
    pub payload: Bytes,
    /// Whether the server itself put it there as an answer: whoever may ask for a message can name
    /// any subject for the answer, one he may not write to as well, and the server stores it.
    pub smuggled: bool,
}

/// Headers that the server gives the answers of a direct get. A message that was stored with them
/// is such an answer and was never published by whom its subject names.
const ANSWER_HEADERS: [&str; 3] = ["Nats-Stream", "Nats-Subject", "Nats-Sequence"];

/// Whether a message as a consumer delivers it was smuggled into its stream.
#[must_use]
pub(crate) fn is_smuggled(headers: &HeaderMap) -> bool {
    ANSWER_HEADERS
        .iter()
        .any(|name| headers.get(*name).is_some())
}

impl Stored {
    /// Refuses a message that the server was made to store.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn honest(&self) -> Result<&Self, WireError> {
        if self.smuggled {
            return Err(WireError::Malformed(format!(
                "it was stored on {} as the answer to a request, by nobody who may write there",
                self.subject
            )));
        }
        Ok(self)
    }
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Most bytes it may hold.
    pub max_bytes: u64,
    /// How long messages are kept; none: for ever.
    pub max_age: Option<Duration>,
    /// Its first sequence.
    pub first_seq: u64,
    /// When its first message was stored; none where it is empty.
    pub first_time: Option<Time>,
    /// Its last sequence.
    pub last_seq: u64,
    /// The hub's clock when it said so.
    pub now: Time,
}

impl Usage {
    /// Whether more than `percent` of the bytes are used.
    #[must_use]
    pub fn over(&self, percent: u64) -> bool {
        self.max_bytes > 0 && self.bytes / percent.max(1) > self.max_bytes / 100
    }
}

/// A connection to the hub.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    status: watch::Receiver<LinkStatus>,
    counters: Option<Arc<Counters>>,
    /// The hub's epoch as far as it was heard.
    epoch: Arc<AtomicU64>,
    lanes: LanesSeen,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    error: Option<Failure>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Deserialize)]
struct Seq {
    seq: u64,
}

impl Bus {
    /// The bus over this connection.
    #[must_use]
    pub fn new(link: &Link) -> Self {
        Self {
            client: link.client().clone(),
            status: link.status(),
            counters: None,
            epoch: Arc::default(),
            lanes: LanesSeen::default(),
        }
    }

    pub(crate) fn lanes_seen(&self) -> &LanesSeen {
        &self.lanes
    }

    /// The same bus, which counts what it stores.
    #[must_use]
    pub fn counting(self, counters: Arc<Counters>) -> Self {
        Self {
            counters: Some(counters),
            ..self
        }
    }

    /// The hub's epoch as far as it was heard, for tickets: who claims one goes by its own.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn note_epoch(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// The state of the connection, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// The connection itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Refuses what must not be queued for a reconnect: a claim or a lease could arrive long after
    /// what it goes by has changed.
    pub(crate) fn only_now(&self) -> Result<(), BusError> {
        match self.client.connection_state() {
            async_nats::connection::State::Connected => Ok(()),
            _ => Err(BusError::Closed("the link is down".to_owned())),
        }
    }

    /// Stores a message and waits until the hub has it on disk; its sequence.
    ///
    /// # Errors
    /// `Moved` where `expect` does not hold, `NoAnswer` where nobody knows.
    pub async fn store(
        &self,
        subject: &str,
        payload: Bytes,
        options: &Store<'_>,
    ) -> Result<u64, BusError> {
        let bytes = payload.len();
        let begun = tokio::time::Instant::now();
        loop {
            let left = options.within.saturating_sub(begun.elapsed());
            let headers = options.headers();
            let answer = self.ask(subject, payload.clone(), headers, left).await?;
            match parse::<Seq>(subject, &answer.payload) {
                // The stream has more to write than it takes in, somebody floods it: not stored.
                Err(BusError::Server {
                    code: TOO_MANY_AT_ONCE,
                    ..
                }) => {
                    tokio::time::sleep(clock::jittered(BUSY_PAUSE)).await;
                    if begun.elapsed() >= options.within {
                        return Err(no_answer(subject, options.within));
                    }
                }
                answer => {
                    let seq = answer?.seq;
                    self.count(subject, bytes);
                    return Ok(seq);
                }
            }
        }
    }

    /// Counts a message that was stored.
    pub(crate) fn count(&self, subject: &str, bytes: usize) {
        if let Some(counters) = &self.counters {
            counters.stored(subject, bytes);
        }
    }

    /// The first message of a batch, which the server confirms by an empty answer.
    ///
    /// # Errors
    /// `Server` where the stream takes no batches, or has too many under way.
    pub(crate) async fn begin_batch(
        &self,
        subject: &str,
        payload: Bytes,
        options: &Store<'_>,
    ) -> Result<(), BusError> {
        let headers = options.headers();
        let answer = self.ask(subject, payload, headers, options.within).await?;
        if answer.payload.is_empty() {
            return Ok(());
        }
        parse::<serde_json::Value>(subject, &answer.payload).map(drop)
    }

    /// Sends a message with headers that nobody confirms.
    ///
    /// # Errors
    /// As [`Bus::tell`].
    pub(crate) async fn send_headed(
        &self,
        subject: &str,
        payload: Bytes,
        headers: &[(&'static str, String)],
    ) -> Result<(), BusError> {
        let map = Store {
            headers,
            ..Store::default()
        };
        let sent = self
            .client
            .publish_with_headers(subject.to_owned(), map.headers(), payload);
        match tokio::time::timeout(ANSWER_WITHIN, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(BusError::Closed(error.to_string())),
            Err(_) => Err(no_answer(subject, ANSWER_WITHIN)),
        }
    }

    /// The last message on a subject, which may have wildcards, of a stream that allows direct gets.
    ///
    /// # Errors
    /// `NoAnswer`, or what the server says. A subject without messages is `Ok(None)`.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        let message = self
            .ask(&api, Bytes::new(), HeaderMap::new(), ANSWER_WITHIN)
            .await?;
        stored(&api, message)
    }

    /// The message with this sequence.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn at(&self, stream: &str, seq: u64) -> Result<Option<Stored>, BusError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let body = json!({ "seq": seq }).to_string();
        let message = self
            .ask(&api, body.into(), HeaderMap::new(), ANSWER_WITHIN)
            .await?;
        stored(&api, message)
    }

    /// The last message of every subject that matches one of the filters, as one consistent batch.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn last_of_each(
        &self,
        stream: &str,
        filters: &[&str],
    ) -> Result<Vec<Stored>, BusError> {
        let body = json!({ "multi_last": filters, "batch": 65_536 }).to_string();
        self.batch(stream, body).await
    }

    /// At most `count` messages of a stream that match a filter, from sequence `from` on.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub(crate) async fn page(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        count: u64,
    ) -> Result<Vec<Stored>, BusError> {
        let body = json!({ "seq": from, "next_by_subj": filter, "batch": count });
        self.batch(stream, body.to_string()).await
    }

    async fn batch(&self, stream: &str, body: String) -> Result<Vec<Stored>, BusError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let inbox = self.client.new_inbox();
        let closed = |e: &dyn std::fmt::Display| BusError::Closed(e.to_string());
        let mut replies = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|e| closed(&e))?;
        self.client
            .publish_with_reply(api.clone(), inbox, body.into())
            .await
            .map_err(|e| closed(&e))?;
        let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
        let mut found = Vec::new();
        loop {
            let next = tokio::time::timeout_at(deadline, replies.next()).await;
            let message = match next {
                Ok(Some(message)) => message,
                Ok(None) => return Err(BusError::Closed(api)),
                Err(_) => return Err(no_answer(&api, ANSWER_WITHIN)),
            };
            // 204 ends a batch, 404 says that there was nothing to begin with.
            match message.status {
                Some(StatusCode::NO_RESPONDERS) => return Err(BusError::NoResponders(api)),
                Some(status) if [204, 404].contains(&status.as_u16()) => return Ok(found),
                _ => found.extend(stored(&api, message)?),
            }
        }
    }

    /// How full a stream is, and the hub's clock.
    ///
    /// # Errors
    /// `NoAnswer`, or what the server says.
    pub async fn usage(&self, stream: &str) -> Result<Usage, BusError> {
        #[derive(Deserialize)]
        struct Info {
            config: Config,
            state: State,
            ts: Option<Time>,
        }
        #[derive(Deserialize)]
        struct Config {
            max_bytes: i64,
            #[serde(default)]
            max_age: u64,
        }
        #[derive(Deserialize)]
        struct State {
            messages: u64,
            bytes: u64,
            first_seq: u64,
            #[serde(default)]
            first_ts: String,
            last_seq: u64,
        }
        let info: Info = self
            .api(&format!("STREAM.INFO.{stream}"), Bytes::new())
            .await?;
        Ok(Usage {
            messages: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
            max_age: (info.config.max_age > 0).then(|| Duration::from_nanos(info.config.max_age)),
            first_seq: info.state.first_seq,
            first_time: match info.state.messages {
                0 => None,
                _ => info.state.first_ts.parse().ok(),
            },
            last_seq: info.state.last_seq,
            now: info.ts.unwrap_or_else(crate::clock::now),
        })
    }

    /// Deletes one message; whether it was there.
    ///
    /// # Errors
    /// `NoAnswer`, or what the server says.
    pub async fn delete(&self, stream: &str, seq: u64) -> Result<bool, BusError> {
        let body = json!({ "seq": seq, "no_erase": true }).to_string();
        let deleted = self
            .api::<serde_json::Value>(&format!("STREAM.MSG.DELETE.{stream}"), body.into())
            .await;
        match deleted {
            Ok(_) => Ok(true),
            // 10043: "message delete failed", with "no message found" in words; 10037 in others.
            Err(BusError::Server { description, .. }) if description.contains("no message") => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes all messages of a stream that match `filter`, up to `up_to` where it is given.
    ///
    /// # Errors
    /// `NoAnswer`, or what the server says.
    pub async fn purge(
        &self,
        stream: &str,
        filter: &str,
        up_to: Option<u64>,
    ) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let body = match up_to {
            Some(seq) => json!({ "filter": filter, "seq": seq.saturating_add(1) }),
            None => json!({ "filter": filter }),
        };
        let purged: Purged = self
            .api(&format!("STREAM.PURGE.{stream}"), body.to_string().into())
            .await?;
        Ok(purged.purged)
    }

    /// A request to the JetStream API below `$JS.API.`.
    ///
    /// # Errors
    /// `NoAnswer`, or what the server says.
    pub async fn api<T: DeserializeOwned>(&self, verb: &str, body: Bytes) -> Result<T, BusError> {
        let subject = format!("$JS.API.{verb}");
        let answer = self
            .ask(&subject, body, HeaderMap::new(), ANSWER_WITHIN)
            .await?;
        parse(&subject, &answer.payload)
    }

    /// A request, answered within `within`.
    ///
    /// # Errors
    /// `NoAnswer` or `NoResponders`.
    pub async fn ask(
        &self,
        subject: &str,
        payload: Bytes,
        headers: HeaderMap,
        within: Duration,
    ) -> Result<Message, BusError> {
        let mut request = async_nats::Request::new()
            .payload(payload)
            .timeout(Some(within));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        self.send(subject, request, within).await
    }

    async fn send(
        &self,
        subject: &str,
        request: async_nats::Request,
        within: Duration,
    ) -> Result<Message, BusError> {
        // The client's own time-out does not cover the wait for a place in its queue while the link
        // is down; and a request that was under way when the link broke gets no answer ever.
        let answer = tokio::time::timeout(
            within,
            self.client.send_request(subject.to_owned(), request),
        );
        let mut status = self.status();
        let disconnects = status.borrow().disconnects;
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = broken(&mut status, disconnects) => return Err(no_answer(subject, within)),
        };
        match answer {
            Ok(Ok(message)) => Ok(message),
            Err(_) => Err(no_answer(subject, within)),
            Ok(Err(error)) => Err(match error.kind() {
                async_nats::RequestErrorKind::TimedOut => no_answer(subject, within),
                async_nats::RequestErrorKind::NoResponders => {
                    BusError::NoResponders(subject.to_owned())
                }
                _ => BusError::Closed(error.to_string()),
            }),
        }
    }

    /// Sends a message to whoever listens now; nobody confirms it.
    ///
    /// # Errors
    /// `Closed`, or `NoAnswer` where the connection cannot take it in time.
    pub async fn tell(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        let sent = tokio::time::timeout(
            ANSWER_WITHIN,
            self.client.publish(subject.to_owned(), payload),
        )
        .await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(BusError::Closed(error.to_string())),
            Err(_) => Err(no_answer(subject, ANSWER_WITHIN)),
        }
    }

    /// Waits until everything sent so far is on its way, at most `within`.
    pub async fn flush(&self, within: Duration) {
        // Best effort by its meaning: whoever needs certainty asks for an answer.
        let _ = tokio::time::timeout(within, self.client.flush()).await;
    }
}

/// How a message is stored.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    /// The message's id for the server's dedup window.
    pub message_id: Option<&'a str>,
    /// The last sequence that subjects matching the filter must have.
    pub expect: Option<(u64, &'a str)>,
    /// Further headers.
    pub headers: &'a [(&'static str, String)],
    /// How long to wait.
    pub within: Duration,
}

impl Store<'_> {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(id) = self.message_id {
            headers.insert("Nats-Msg-Id", id);
        }
        if let Some((seq, filter)) = self.expect {
            headers.insert("Nats-Expected-Last-Subject-Sequence", seq.to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", filter);
        }
        for (name, value) in self.headers {
            headers.insert(*name, value.as_str());
        }
        headers
    }
}

impl Default for Store<'_> {
    fn default() -> Self {
        Self {
            message_id: None,
            expect: None,
            headers: &[],
            within: ANSWER_WITHIN,
        }
    }
}

/// Resolves when the link has broken since it had broken `disconnects` times.
pub(crate) async fn broken(status: &mut watch::Receiver<LinkStatus>, disconnects: u64) {
    let broken = status
        .wait_for(|s| s.disconnects > disconnects)
        .await
        .map(drop);
    if broken.is_err() {
        std::future::pending::<()>().await;
    }
}

fn no_answer(what: &str, within: Duration) -> BusError {
    BusError::NoAnswer {
        what: what.to_owned(),
        within,
    }
}

fn parse<T: DeserializeOwned>(what: &str, payload: &[u8]) -> Result<T, BusError> {
    let malformed =
        |why: String| BusError::Wire(WireError::Malformed(format!("answer to {what}: {why}")));
    let answer: Answer<T> =
        serde_json::from_slice(payload).map_err(|e| malformed(e.to_string()))?;
    if let Some(error) = answer.error {
        return Err(match error.err_code {
            WRONG_LAST_SEQUENCE | 10164 => BusError::Moved(error.description),
            // Maximum messages, bytes, per subject, account or server resources, and storage.
            10023 | 10028 | 10047 | 10054 | 10077 => BusError::Full(error.description),
            code => BusError::Server {
                what: what.to_owned(),
                code,
                description: error.description,
            },
        });
    }
    answer
        .value
        .ok_or_else(|| malformed("neither a value nor an error".to_owned()))
}

fn stored(what: &str, message: Message) -> Result<Option<Stored>, BusError> {
    match message.status {
        Some(StatusCode::NOT_FOUND) => return Ok(None),
        Some(StatusCode::NO_RESPONDERS) => return Err(BusError::NoResponders(what.to_owned())),
        Some(status) if status.as_u16() >= 300 => {
            return Err(BusError::Server {
                what: what.to_owned(),
                code: u64::from(status.as_u16()),
                description: message.description.unwrap_or_default(),
            });
        }
        _ => {}
    }
    let headers = message.headers.unwrap_or_default();
    // The last of each is the server's own, for this very answer; an earlier one was stored.
    let text = |name: &str| headers.get_all(name).last().map(|v| v.as_str().to_owned());
    let smuggled = ANSWER_HEADERS
        .iter()
        .any(|name| headers.get_all(*name).count() > 1);
    let missing = |name: &str| {
        BusError::Wire(WireError::Malformed(format!(
            "answer to {what} without {name}"
        )))
    };
    let seq = text("Nats-Sequence")
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| missing("its sequence"))?;
    let subject = text("Nats-Subject").ok_or_else(|| missing("its subject"))?;
    let time = text("Nats-Time-Stamp")
        .and_then(|t| t.parse().ok())
        .unwrap_or_default();
    Ok(Some(Stored {
        subject,
        seq,
        time,
        headers,
        payload: message.payload,
        smuggled,
    }))
}
