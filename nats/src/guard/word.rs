//! What the hub says of itself on the bus: its epoch, for which very server process it vouches, and
//! what is wrong with it. Agents claim nothing at a server that nobody vouches for.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES, WireError};
use fleet_contract::event::kind;
use fleet_contract::hub::Trouble;
use fleet_contract::lease::Mark;
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError, Store};
use crate::clock;
use crate::subject::{self, stream};

/// The kind of the word's envelope.
const KIND: &str = "hub";

/// How often a word that cannot be read is read again, and the pause before that.
const READ_TRIES: u32 = 20;
const READ_AGAIN: Duration = Duration::from_millis(100);

/// A word as it lies in the stream.
pub(super) fn decode(bytes: &[u8]) -> Result<HubWord, WireError> {
    envelope::decode(bytes, KIND, MESSAGE_MAX_BYTES).map(|(_, word): (Header, HubWord)| word)
}

/// The hub about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HubWord {
    /// The hub's epoch: another one after each time that the journal went back.
    pub epoch: u64,
    /// The server process whose store the hub has looked at and found to be of this epoch.
    pub server: String,
    /// The last recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// What is wrong now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
}

impl HubWord {
    /// Why the hub takes no jobs, if it does not.
    #[must_use]
    pub fn refuses_jobs(&self) -> Option<&str> {
        let refuses = [kind::HUB_DISK_LOW, kind::HUB_STREAM_SILENT];
        let mut troubles = self.troubles.iter();
        let found = troubles.find(|trouble| refuses.contains(&trouble.kind.as_str()));
        found.map(|trouble| trouble.text.as_str())
    }
}

/// A recovery that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// When it was done.
    pub at: Time,
    /// The epoch that it began.
    pub epoch: u64,
    /// What the store was as of, in words.
    pub since: String,
    /// What was wrong, by stream.
    pub damage: BTreeMap<String, String>,
    /// Jobs that were put to the operator.
    pub asked: u64,
    /// Jobs that were running and are left to their machines' reports.
    pub running: u64,
    /// Tickets without a journal whose jobs were put to the operator.
    pub tickets: u64,
    /// Where the journal ended when it began: what has a later token is lost with the rest, and what
    /// has an earlier one and no journal was purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Mark>,
}

impl Bus {
    /// What the hub says of itself; none where it never has.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn hub_word(&self) -> Result<Option<HubWord>, BusError> {
        let mut tries = 0;
        loop {
            let Some(message) = self.last(stream::LANE, subject::HUB_WORD).await? else {
                return Ok(None);
            };
            tries += 1;
            match message.honest().and_then(|m| decode(&m.payload)) {
                Ok(word) => {
                    self.note_epoch(word.epoch);
                    return Ok(Some(word));
                }
                // Whoever wrote that is not the hub, which says its own again.
                Err(_) if tries < READ_TRIES => tokio::time::sleep(READ_AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The epoch of the server that this connection leads to, once its hub vouches for it.
    ///
    /// # Errors
    /// As [`Bus::last`].
    pub async fn vouched_epoch(&self) -> Result<Option<u64>, BusError> {
        let before = self.server_id();
        let word = self.hub_word().await?;
        let same = before == self.server_id();
        Ok(word
            .filter(|word| same && word.server == before)
            .map(|word| word.epoch))
    }

    /// The server process that this connection leads to.
    #[must_use]
    pub fn server_id(&self) -> String {
        self.client().server_info().server_id
    }

    pub(super) async fn say_word(&self, word: &HubWord) -> Result<(), BusError> {
        let header = Header::new(clock::message_id(), clock::now(), KIND);
        let payload = envelope::encode(&header, word, MESSAGE_MAX_BYTES)?;
        self.store(subject::HUB_WORD, payload.into(), &Store::default())
            .await?;
        self.note_epoch(word.epoch);
        Ok(())
    }
}
