//! The hub's epoch, and the highest that this machine has seen of the journal. Nothing is claimed or
//! ended at a server for which its hub does not vouch: its store may be one that went back in time.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_contract::lease::Mark;
use fleet_nats::clock;
use fleet_nats::connect::LinkState;
use fleet_nats::home::Home;
use fleet_nats::subject;
use futures_util::StreamExt;

use super::context::Context;

/// Pause before a hub that vouches for nothing yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How often the word is read again though nothing was heard.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// What the hub vouches for: the server that this connection of ours leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vouched {
    /// Which connection.
    pub connects: u64,
    /// The hub's epoch.
    pub epoch: u64,
}

impl Context {
    /// The hub's epoch, if it vouches for the server that is connected now.
    pub(super) fn epoch_now(&self) -> Option<u64> {
        let vouched = (*self.hub.borrow())?;
        let connects = self.link.status().borrow().connects;
        (vouched.connects == connects && self.link.is_connected()).then_some(vouched.epoch)
    }

    /// The hub's epoch; waits until it vouches for the server.
    pub(super) async fn vouched(&self) -> u64 {
        let mut hub = self.hub.subscribe();
        loop {
            hub.borrow_and_update();
            if let Some(epoch) = self.epoch_now() {
                return epoch;
            }
            // The link may change meanwhile, too.
            let _ = tokio::time::timeout(ASK_AGAIN, hub.changed()).await;
        }
    }
}

/// Follows what the hub says of itself.
pub(super) async fn watch(context: Arc<Context>) {
    let mut status = context.link.status();
    loop {
        context.connected().await;
        let connects = status.borrow_and_update().connects;
        let Ok(mut words) = context.link.client().subscribe(subject::HUB_WORD).await else {
            context.pause(ASK_AGAIN).await;
            continue;
        };
        loop {
            let vouched = context.bus.vouched_epoch().await;
            if status.borrow().connects != connects {
                break;
            }
            let next = match vouched {
                Ok(vouched) => vouched.map(|epoch| Vouched { connects, epoch }),
                Err(_) => *context.hub.borrow(),
            };
            context.hub.send_if_modified(|now| {
                let changed = *now != next;
                *now = next;
                changed
            });
            let known = next.is_some_and(|vouched| vouched.connects == connects);
            let pause = clock::jittered(if known { READ_AGAIN } else { ASK_AGAIN });
            let moved =
                status.wait_for(|s| s.connects != connects || s.state != LinkState::Connected);
            let gone = tokio::select! {
                word = words.next() => word.is_none(),
                _ = moved => true,
                () = tokio::time::sleep(pause) => false,
            };
            if gone {
                break;
            }
        }
    }
}

/// The highest of the journal that this machine has seen stored; on disk, so that a hub that has
/// less is found out even after a restart of the agent.
#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
    marks: Mutex<Marks>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    seen: Mark,
    written: Mark,
}

impl Seen {
    /// What earlier agents of this home wrote down. A file that cannot be read is none: it can only
    /// make a hub's damage harder to see.
    pub(super) fn load(home: &Home) -> Self {
        let path = home.agent_dir().join("seen.json");
        let seen = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let written = seen;
        let marks = Mutex::new(Marks { seen, written });
        Self { path, marks }
    }

    /// Something of the journal was seen stored.
    pub(super) fn note(&self, epoch: u64, seq: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.seen = marks.seen.max(Mark { epoch, seq });
    }

    /// The highest; none where nothing was ever seen.
    pub(super) fn mark(&self) -> Option<Mark> {
        let marks = *self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        Some(marks.seen).filter(|seen| *seen != Mark::default())
    }

    /// Writes it down where it has changed.
    pub(super) async fn write_down(&self) {
        let marks = *self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.seen == marks.written {
            return;
        }
        let path = self.path.clone();
        let write = move || write(&path, marks.seen);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {
                let mut now = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
                now.written = marks.seen;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot write down what was seen");
            }
            Err(_) => {}
        }
    }
}

fn write(path: &Path, seen: Mark) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let bytes = serde_json::to_vec(&seen).map_err(std::io::Error::other)?;
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_highest_is_kept_over_a_restart_and_an_epoch_outweighs_any_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        std::fs::create_dir_all(home.agent_dir()).unwrap();
        let seen = Seen::load(&home);
        assert_eq!(seen.mark(), None);
        seen.note(0, 40);
        seen.note(0, 12);
        seen.write_down().await;
        let again = Seen::load(&home);
        assert_eq!(again.mark(), Some(Mark { epoch: 0, seq: 40 }));
        again.note(7, 3);
        assert_eq!(again.mark(), Some(Mark { epoch: 7, seq: 3 }));
    }
}
