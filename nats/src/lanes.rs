//! Lanes: the queues of requirement sets. A lane is made in the order consumers, record, ticket, so
//! that whoever hears of one can pull from it; it is removed only while the hub starts.

use std::collections::BTreeSet;

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, TICKET_MAX_BYTES};
use fleet_contract::ids::Lane;
use fleet_contract::needs::{LANE_KIND, LaneForm, Needs};
use fleet_contract::spec::Target;
use fleet_contract::ticket::{TICKET_KIND, Ticket};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bus::{Bus, BusError, Store};
use crate::clock;
use crate::subject::{self, stream};

/// Most lanes of one hub: each costs three consumers there and three pulls of each machine.
pub const LANES_MAX: u64 = 1000;
/// Lanes that are read at once.
const LANES_PAGE: u64 = 500;

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
                .page(stream::LANE, subject::LANES, from, LANES_PAGE)
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
        let (lane, requires) = (needs.lane(), needs.to_string());
        let subject = subject::lane(&lane);
        let stored = self.last(stream::LANE, &subject).await?;
        let known = stored.and_then(|m| KnownLane::read(&m.subject, &m.payload));
        // A record that says something else would keep every machine away.
        if known.is_some_and(|known| known.needs.as_ref() == Some(needs)) {
            return Ok(());
        }
        let there = self.usage(stream::LANE).await?.messages;
        if there >= LANES_MAX {
            return Err(BusError::Full(format!(
                "there are {there} lanes, each another set of requirements, and no more may be: use \
                 one of them, or start the hub again, which removes those that nothing waits in"
            )));
        }
        self.ensure_queues(&Target::Lane(lane)).await?;
        let header = Header::new(clock::message_id(), clock::now(), LANE_KIND);
        let payload = envelope::encode(&header, &LaneForm { requires }, MESSAGE_MAX_BYTES)?;
        self.store(&subject, payload.into(), &Store::default())
            .await
            .map(drop)
    }

    /// Makes the consumers of every lane that has a record or a ticket, and removes the lanes that
    /// nothing waits in. Only while the hub starts.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn prepare_lanes(&self) -> Result<(), BusError> {
        self.ensure_lane(&Needs::default()).await?;
        self.ensure_queues(&Target::Lane(Lane::any())).await?;
        let mut waiting = self.lanes_with_tickets().await?;
        for KnownLane { lane, .. } in self.lanes().await? {
            if lane == Lane::any() {
                continue;
            }
            if waiting.remove(&lane) {
                self.ensure_queues(&Target::Lane(lane)).await?;
            } else {
                self.remove_lane(&lane).await?;
            }
        }
        for lane in waiting {
            self.restore_lane(&lane).await?;
        }
        Ok(())
    }

    /// Makes a lane without a record usable, in which tickets wait: they say what it requires.
    async fn restore_lane(&self, lane: &Lane) -> Result<(), BusError> {
        let tickets = format!("fleet.work.{lane}.>");
        let Some(stored) = self.last(stream::WORK, &tickets).await? else {
            return Ok(());
        };
        let ticket: Result<(Header, Ticket), _> =
            envelope::decode(&stored.payload, TICKET_KIND, TICKET_MAX_BYTES);
        let needs = ticket.ok().and_then(|(_, ticket)| ticket.spec.needs().ok());
        match needs.filter(|needs| needs.lane() == *lane) {
            Some(needs) => self.ensure_lane(&needs).await,
            // Of a later fleet, which makes the record when it queues the job again.
            None => self.ensure_queues(&Target::Lane(lane.clone())).await,
        }
    }

    /// Lanes in which tickets wait.
    async fn lanes_with_tickets(&self) -> Result<BTreeSet<Lane>, BusError> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            subjects: Option<std::collections::BTreeMap<String, u64>>,
        }
        let mut lanes = BTreeSet::new();
        let mut offset = 0;
        loop {
            let body = json!({ "subjects_filter": "fleet.work.>", "offset": offset });
            let verb = format!("STREAM.INFO.{}", stream::WORK);
            let info: Info = self.api(&verb, body.to_string().into()).await?;
            let subjects = info.state.subjects.unwrap_or_default();
            if subjects.is_empty() {
                return Ok(lanes);
            }
            offset += subjects.len();
            let found = subjects.keys().filter_map(|s| subject::parse_work(s));
            lanes.extend(found.map(|(lane, _)| lane));
        }
    }

    /// Removes a lane: its record first, so that whoever dispatches to it meanwhile makes it anew.
    async fn remove_lane(&self, lane: &Lane) -> Result<(), BusError> {
        self.purge(stream::LANE, &subject::lane(lane), None).await?;
        let target = Target::Lane(lane.clone());
        for priority in fleet_contract::spec::Priority::ALL {
            let name = subject::consumer(&target, priority);
            let verb = format!("CONSUMER.DELETE.{}.{name}", stream::WORK);
            match self.api::<Value>(&verb, bytes::Bytes::new()).await {
                // 10014: there was none.
                Ok(_) | Err(BusError::Server { code: 10014, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Somebody who saw the record a moment ago may have put a ticket there, and be gone.
        self.restore_lane(lane).await
    }
}
