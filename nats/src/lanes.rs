//! Lanes: the queues of requirement sets. A lane is made in the order consumers, record, ticket, so
//! that whoever hears of one can pull from it; one in which nothing waits is removed when the hub
//! starts.
//!
//! Dispatchers are connected by then, and neither side waits for the other. So whoever has put a
//! ticket into a lane looks at its record again (`Bus::confirm_lane`), and whoever has removed a
//! lane looks whether there is a ticket or a record ([`Bus::mend_lane`]): whoever is last makes the
//! consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, TICKET_MAX_BYTES};
use fleet_contract::ids::Lane;
use fleet_contract::needs::{LANE_KIND, LaneForm, Needs};
use fleet_contract::spec::Target;
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use crate::bus::{Bus, BusError, Store};
use crate::clock;
use crate::subject::{self, stream as name};

/// Most lanes of one hub: each costs three consumers there and three pulls of each machine.
pub const LANES_MAX: u64 = 1000;
/// Lanes that are read at once.
const LANES_PAGE: u64 = 500;
/// Lanes that are made sure of side by side.
const LANES_AT_ONCE: usize = 16;
/// Tickets that are read at once to find one that says what its lane requires, and how often.
const TICKETS_PAGE: u64 = 16;
const TICKETS_PAGES: usize = 64;

/// Whether [`LANES_MAX`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Kept,
    None,
}

/// In place of the sequence of a record that was stored here and not seen since.
const MADE: u64 = 0;

/// Lanes whose records this process has seen, by the sequence of the record: it is not looked for
/// again before each job that goes there.
#[derive(Debug, Clone, Default)]
pub(crate) struct LanesSeen(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    lanes: Mutex<BTreeMap<Lane, u64>>,
    /// Held by whoever makes one: hundreds of jobs that are sent at once into a new lane make it
    /// once.
    making: tokio::sync::Mutex<()>,
}

impl LanesSeen {
    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Lane, u64>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seq(&self, lane: &Lane) -> Option<u64> {
        self.lanes().get(lane).copied()
    }

    fn note(&self, lane: Lane, seq: u64) {
        let mut lanes = self.lanes();
        if lanes.len() as u64 >= 2 * LANES_MAX {
            lanes.clear();
        }
        lanes.insert(lane, seq);
    }
}

/// A lane and what it requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLane {
    /// The lane.
    pub lane: Lane,
    /// What it requires; none where that cannot be read.
    pub needs: Option<Needs>,
}

impl KnownLane {
    /// The lane that a message on its subject tells of; none where it is no lane's.
    #[must_use]
    pub fn read(subject: &str, payload: &[u8]) -> Option<Self> {
        let lane = subject::parse_lane(subject)?;
        let form: Result<(Header, LaneForm), _> =
            envelope::decode(payload, LANE_KIND, MESSAGE_MAX_BYTES);
        let needs = form.ok().and_then(|(_, form)| form.needs(&lane));
        Some(Self { lane, needs })
    }
}

impl Bus {
    /// Every lane.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn lanes(&self) -> Result<Vec<KnownLane>, BusError> {
        let mut known = Vec::new();
        let mut from = 1;
        loop {
            // By pages: the server refuses to answer with the last of more than 1,024 subjects.
            let page = self
                .page(name::LANE, subject::LANES, from, LANES_PAGE)
                .await?;
            let Some(last) = page.last() else {
                return Ok(known);
            };
            from = last.seq + 1;
            let lanes = page.iter();
            known.extend(lanes.filter_map(|m| KnownLane::read(&m.subject, &m.payload)));
        }
    }

    /// Makes the lane of these requirements usable, if it is not: its consumers first, then its
    /// record.
    ///
    /// # Errors
    /// `Full` where the hub has too many lanes; what the server says.
    pub async fn ensure_lane(&self, needs: &Needs) -> Result<(), BusError> {
        self.ready_lane(needs, Limit::Kept).await
    }

    /// The same for a job that the hub has taken already, however many lanes there are.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn ensure_lane_again(&self, needs: &Needs) -> Result<(), BusError> {
        self.ready_lane(needs, Limit::None).await
    }

    async fn ready_lane(&self, needs: &Needs, limit: Limit) -> Result<(), BusError> {
        let lane = needs.lane();
        if self.lanes_seen().seq(&lane).is_some() {
            return Ok(());
        }
        let _alone = self.lanes_seen().0.making.lock().await;
        if self.lanes_seen().seq(&lane).is_some() {
            return Ok(());
        }
        let seq = match self.lane_record(&lane).await? {
            Some((seq, Some(stored))) if stored == *needs => seq,
            // A record that says something else would keep every machine away.
            _ => {
                if limit == Limit::Kept {
                    self.room_for_a_lane().await?;
                }
                self.make_lane(needs).await?;
                MADE
            }
        };
        self.lanes_seen().note(lane, seq);
        Ok(())
    }

    /// Looks again at a lane into which a ticket was put after [`Bus::ensure_lane`]: a hub that
    /// starts may have removed it in between, or just before it was made.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn confirm_lane(&self, needs: &Needs) -> Result<(), BusError> {
        let lane = needs.lane();
        let is_as_seen = |record: &Option<(u64, Option<Needs>)>| match record {
            Some((seq, Some(stored))) => {
                stored == needs && self.lanes_seen().seq(&lane) == Some(*seq)
            }
            _ => false,
        };
        if is_as_seen(&self.lane_record(&lane).await?) {
            return Ok(());
        }
        let _alone = self.lanes_seen().0.making.lock().await;
        let record = self.lane_record(&lane).await?;
        if is_as_seen(&record) {
            return Ok(());
        }
        let seq = match record {
            Some((seq, Some(stored))) if stored == *needs => {
                // It is younger than the last look: the consumers that were there then may be gone.
                self.ensure_queues(&Target::Lane(lane.clone())).await?;
                seq
            }
            _ => self.make_lane(needs).await?,
        };
        self.lanes_seen().note(lane, seq);
        Ok(())
    }

    /// The consumers, then the record; its sequence.
    async fn make_lane(&self, needs: &Needs) -> Result<u64, BusError> {
        let (lane, requires) = (needs.lane(), needs.to_string());
        let subject = subject::lane(&lane);
        self.ensure_queues(&Target::Lane(lane)).await?;
        let header = Header::new(clock::message_id(), clock::now(), LANE_KIND);
        let payload = envelope::encode(&header, &LaneForm { requires }, MESSAGE_MAX_BYTES)?;
        self.store(&subject, payload.into(), &Store::default())
            .await
    }

    async fn room_for_a_lane(&self) -> Result<(), BusError> {
        let found = self.subjects(name::LANE, subject::LANES).await?;
        let any = subject::lane(&Lane::any());
        let there = found.iter().filter(|subject| **subject != any).count() as u64;
        if there < LANES_MAX {
            return Ok(());
        }
        Err(BusError::Full(format!(
            "there are {there} lanes, each another set of requirements, and no more may be: use \
             one of them, or start the hub again, which removes those that nothing waits in"
        )))
    }

    /// The sequence of a lane's record, and what it says where that can be read.
    async fn lane_record(&self, lane: &Lane) -> Result<Option<(u64, Option<Needs>)>, BusError> {
        let stored = self.last(name::LANE, &subject::lane(lane)).await?;
        Ok(stored.map(|m| {
            let known = KnownLane::read(&m.subject, &m.payload);
            (m.seq, known.and_then(|known| known.needs))
        }))
    }

    /// Makes every lane usable that has a record or a ticket. One that cannot be is no reason for
    /// the others to wait.
    ///
    /// # Errors
    /// The hub does not answer.
    pub(crate) async fn prepare_lanes(&self) -> Result<(), BusError> {
        self.mend_lane_of(&Lane::any(), Some(Needs::default()))
            .await?;
        let mut all = self.lanes_with_tickets().await?;
        all.extend(self.lanes().await?.into_iter().map(|known| known.lane));
        let mended = all.into_iter().map(|lane| async move {
            let mended = self.mend_lane(&lane).await;
            (lane, mended)
        });
        let mut mended = stream::iter(mended).buffer_unordered(LANES_AT_ONCE);
        while let Some((lane, mended)) = mended.next().await {
            or_say(&lane, mended)?;
        }
        Ok(())
    }

    /// Removes the lanes in which nothing waits. For the start of a hub: whoever dispatches
    /// meanwhile makes his lane again, but agents that pull from one hear of nothing.
    ///
    /// # Errors
    /// The hub does not answer.
    pub async fn drop_empty_lanes(&self) -> Result<(), BusError> {
        let waiting = self.lanes_with_tickets().await?;
        for KnownLane { lane, .. } in self.lanes().await? {
            if lane != Lane::any() && !waiting.contains(&lane) {
                or_say(&lane, self.remove_lane(&lane).await)?;
            }
        }
        Ok(())
    }

    /// Makes a lane usable that has a record or a ticket: its consumers, and where its record is
    /// lost or says nothing, that too.
    ///
    /// # Errors
    /// What the server says.
    pub async fn mend_lane(&self, lane: &Lane) -> Result<(), BusError> {
        self.mend_lane_of(lane, None).await
    }

    /// The same where it may be known what the lane requires; then it is made though there is
    /// neither.
    pub(crate) async fn mend_lane_of(
        &self,
        lane: &Lane,
        needs: Option<Needs>,
    ) -> Result<(), BusError> {
        let record = self.lane_record(lane).await?;
        let is_read = matches!(record, Some((_, Some(_))));
        let (waits, told) = match needs.filter(|needs| needs.lane() == *lane) {
            Some(needs) => (true, Some(needs)),
            None if is_read => (true, None),
            None => self.told_by_tickets(lane).await?,
        };
        match told {
            Some(needs) if !is_read => self.make_lane(&needs).await.map(drop),
            // Without one that can be read they are of a later fleet, which makes the record when it
            // queues the job again.
            _ if waits => self.ensure_queues(&Target::Lane(lane.clone())).await,
            _ => Ok(()),
        }
    }

    /// Whether tickets wait in a lane, and what it requires by the first of them that says it.
    async fn told_by_tickets(&self, lane: &Lane) -> Result<(bool, Option<Needs>), BusError> {
        let tickets = format!("fleet.work.{lane}.>");
        let (mut waits, mut from) = (false, 1);
        for _ in 0..TICKETS_PAGES {
            let page = self.page(name::WORK, &tickets, from, TICKETS_PAGE).await?;
            let Some(last) = page.last() else { break };
            (waits, from) = (true, last.seq + 1);
            let told = page.iter().find_map(|stored| {
                let ticket: Result<(Header, Ticket), _> =
                    envelope::decode(&stored.payload, TICKET_KIND, TICKET_MAX_BYTES);
                let needs = ticket.ok()?.1.spec.needs().ok()?;
                (needs.lane() == *lane).then_some(needs)
            });
            if told.is_some() {
                return Ok((true, told));
            }
        }
        Ok((waits, None))
    }

    /// Lanes in which tickets wait.
    async fn lanes_with_tickets(&self) -> Result<BTreeSet<Lane>, BusError> {
        let subjects = self.subjects(name::WORK, "fleet.work.>").await?;
        let found = subjects.iter().filter_map(|s| subject::parse_work(s));
        Ok(found.map(|(lane, _)| lane).collect())
    }

    /// The subjects of a stream that have messages and match.
    async fn subjects(&self, stream: &str, filter: &str) -> Result<BTreeSet<String>, BusError> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            subjects: Option<BTreeMap<String, u64>>,
        }
        let mut all = BTreeSet::new();
        let mut offset = 0;
        loop {
            let body = json!({ "subjects_filter": filter, "offset": offset });
            let verb = format!("STREAM.INFO.{stream}");
            let info: Info = self.api(&verb, body.to_string().into()).await?;
            let subjects = info.state.subjects.unwrap_or_default();
            if subjects.is_empty() {
                return Ok(all);
            }
            offset += subjects.len();
            all.extend(subjects.into_keys());
        }
    }

    /// Removes a lane: its record first, so that whoever dispatches to it meanwhile makes it anew.
    async fn remove_lane(&self, lane: &Lane) -> Result<(), BusError> {
        self.purge(name::LANE, &subject::lane(lane), None).await?;
        let target = Target::Lane(lane.clone());
        for priority in fleet_contract::spec::Priority::ALL {
            let name = subject::consumer(&target, priority);
            self.delete_consumer(name::WORK, &name).await?;
        }
        // Somebody who made the lane just now found the consumers there that are gone, and somebody
        // who saw the record a moment ago may have put a ticket there, and be gone too.
        self.mend_lane(lane).await
    }
}

/// An error about one lane alone is said in the log.
fn or_say(lane: &Lane, done: Result<(), BusError>) -> Result<(), BusError> {
    match done {
        Err(BusError::NoAnswer { .. } | BusError::Closed(_)) => done,
        Err(error) => {
            tracing::error!(%error, %lane, "a lane could not be made sure of");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
