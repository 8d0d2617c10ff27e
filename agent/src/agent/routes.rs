//! Which attempt hears what: the table of attempts that this agent drives.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_contract::attempt::Input;
use fleet_contract::ids::{AttemptId, JobId};
use fleet_contract::spec::OnLost;
use tokio::sync::{mpsc, watch};

/// Inputs that wait for one attempt. Few ever do: an executor tells of a start and an end, the
/// operator of a cancel.
pub(super) const INBOX: usize = 64;

/// What an attempt's driver is told.
#[derive(Debug)]
pub(super) enum Told {
    /// An input for its machine.
    Input(Box<Input>),
    /// Read the journal again.
    Reread,
}

impl From<Input> for Told {
    fn from(input: Input) -> Self {
        Self::Input(Box::new(input))
    }
}

/// How far an attempt's output has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Announced {
    /// Chunks on disk.
    pub chunks: u64,
    /// Bytes that were written, of both streams.
    pub bytes: u64,
    /// Whether there will be no more.
    pub ended: bool,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Route {
    pub job: JobId,
    pub on_lost: OnLost,
    pub inbox: mpsc::Sender<Told>,
    pub output: watch::Sender<Announced>,
    /// Whether the executor has it.
    pub started: bool,
}

/// All attempts.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<HashMap<AttemptId, Route>>);

impl Routes {
    fn table(&self) -> MutexGuard<'_, HashMap<AttemptId, Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, attempt: AttemptId, route: Route) {
        self.table().insert(attempt, route);
    }

    pub(super) fn remove(&self, attempt: AttemptId) {
        self.table().remove(&attempt);
    }

    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    /// Attempts with their policy.
    pub(super) fn attempts(&self) -> Vec<(AttemptId, OnLost)> {
        self.table()
            .iter()
            .map(|(id, route)| (*id, route.on_lost))
            .collect()
    }

    /// The executor has the attempt.
    pub(super) fn started(&self, attempt: AttemptId) {
        if let Some(route) = self.table().get_mut(&attempt) {
            route.started = true;
        }
    }

    /// The attempts that an executor should know.
    pub(super) fn started_ones(&self) -> Vec<AttemptId> {
        self.table()
            .iter()
            .filter(|(_, route)| route.started)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn announce(&self, attempt: AttemptId, announced: Announced) {
        if let Some(route) = self.table().get(&attempt) {
            route.output.send_if_modified(|now| {
                let next = Announced {
                    chunks: now.chunks.max(announced.chunks),
                    bytes: now.bytes.max(announced.bytes),
                    ended: now.ended || announced.ended,
                };
                std::mem::replace(now, next) != next
            });
        }
    }

    /// Tells one attempt; waits for room in its inbox.
    pub(super) async fn tell(&self, attempt: AttemptId, told: Told) {
        let inbox = self.table().get(&attempt).map(|route| route.inbox.clone());
        if let Some(inbox) = inbox {
            // Fails when the driver is gone: then nobody has a use for it.
            let _ = inbox.send(told).await;
        }
    }

    /// Tells every attempt of a job that the operator wants it ended. A hint to read the journal: one
    /// that has much to do already has enough of them, whoever sends how many.
    pub(super) fn ask_to_cancel(&self, job: JobId) {
        for route in self.table().values().filter(|route| route.job == job) {
            hint(&route.inbox, Told::from(Input::CancelAsked));
        }
    }

    /// Tells every attempt to read the journal again.
    pub(super) fn reread_all(&self) {
        for route in self.table().values() {
            hint(&route.inbox, Told::Reread);
        }
    }
}

/// Tells what leads to reading the journal. One that has much to do already will read it anyway; half
/// of its inbox is for what is told once only.
fn hint(inbox: &mpsc::Sender<Told>, told: Told) {
    if inbox.capacity() > INBOX / 2 {
        let _ = inbox.try_send(told);
    }
}
