//! Asking every agent at once: an inbox of its own collects the answers, because a request would
//! be over with the first.

use std::time::Duration;

use bytes::Bytes;
use fleet_contract::envelope::{MESSAGE_MAX_BYTES, WireError};
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

/// What an agent is asked that is to look for skills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAsk {
    /// Which; empty: all.
    pub skills: Vec<String>,
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
    /// Has one agent look for skills, and returns what it is then. It may take as long as its slowest
    /// tool.
    ///
    /// # Errors
    /// `NoAnswer` where it does not say so in time, `Closed`, or an answer that is none.
    pub async fn ask_probe(
        &self,
        machine: &MachineId,
        skills: &[String],
        within: Duration,
    ) -> Result<Presence, BusError> {
        let closed = |e: &dyn std::fmt::Display| BusError::Closed(e.to_string());
        let subject = subject::command(machine, verb::PROBE);
        let ask = ProbeAsk {
            skills: skills.to_vec(),
        };
        let payload = serde_json::to_vec(&ask).map_err(|e| closed(&e))?;
        let inbox = self.client().new_inbox();
        let subscribed = self.client().subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|e| closed(&e))?;
        self.client()
            .publish_with_reply(subject.clone(), inbox, payload.into())
            .await
            .map_err(|e| closed(&e))?;
        let no_answer = || BusError::NoAnswer {
            what: subject.clone(),
            within,
        };
        let answer = timeout_at(Instant::now() + within, answers.next()).await;
        let message = answer.map_err(|_| no_answer())?.ok_or_else(no_answer)?;
        if message.status.is_some() {
            return Err(BusError::NoResponders(subject));
        }
        let fits = message.payload.len() <= MESSAGE_MAX_BYTES;
        let answer = fits.then(|| serde_json::from_slice::<SpecsAnswer>(&message.payload));
        match answer {
            Some(Ok(answer)) => Ok(answer.presence),
            _ => Err(BusError::Wire(WireError::Malformed(format!(
                "the answer to {subject}"
            )))),
        }
    }

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
