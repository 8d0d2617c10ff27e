//! Asking every agent at once: an inbox of its own collects the answers, because a request would
//! be over with the first.

use std::time::Duration;

use bytes::Bytes;
use fleet_contract::envelope::MESSAGE_MAX_BYTES;
use fleet_contract::ids::MachineId;
use fleet_contract::machine::Presence;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::bus::{Bus, BusError};
use crate::subject::{self, verb};

/// What an agent answers when all are asked for their specs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecsAnswer {
    /// What it would say in its next beat.
    pub presence: Presence,
}

/// What one agent answered.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Its answer.
    pub answer: SpecsAnswer,
    /// From the question to its answer.
    pub after: Duration,
}

impl Bus {
    /// Asks all agents what they are and how busy, now. Returns when each machine of `expected`
    /// has answered, at the latest after `within`. An answer that is none is left out, like one
    /// that did not come.
    ///
    /// # Errors
    /// `Closed` where the connection cannot be used.
    pub async fn ask_all_specs(
        &self,
        expected: &[MachineId],
        within: Duration,
    ) -> Result<Vec<Probed>, BusError> {
        let closed = |e: &dyn std::fmt::Display| BusError::Closed(e.to_string());
        let inbox = self.client().new_inbox();
        let mut answers = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|e| closed(&e))?;
        let asked = Instant::now();
        self.client()
            .publish_with_reply(subject::command_all(verb::SPECS), inbox, Bytes::new())
            .await
            .map_err(|e| closed(&e))?;
        let mut silent: Vec<&MachineId> = expected.iter().collect();
        let mut probed: Vec<Probed> = Vec::new();
        while !silent.is_empty() {
            let Ok(Some(message)) = timeout_at(asked + within, answers.next()).await else {
                break;
            };
            // Nobody listens at all.
            if message.status.is_some() {
                break;
            }
            if message.payload.len() > MESSAGE_MAX_BYTES {
                continue;
            }
            let Ok(answer) = serde_json::from_slice::<SpecsAnswer>(&message.payload) else {
                continue;
            };
            let machine = &answer.presence.machine;
            if probed.iter().any(|p| p.answer.presence.machine == *machine) {
                continue;
            }
            silent.retain(|other| *other != machine);
            probed.push(Probed {
                after: asked.elapsed(),
                answer,
            });
        }
        Ok(probed)
    }
}
