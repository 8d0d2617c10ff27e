//! What the person wants to see, as the source is told it: the latest only, so that nothing that is
//! wanted can be lost on a full channel, nor while there is no link.

use fleet_contract::ids::JobId;

use crate::model::Cmd;

/// What is wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    /// The output that is open.
    pub(crate) log: Option<Opening>,
    /// Whether the hub itself is looked at.
    pub(crate) hub: bool,
    openings: u64,
}

/// An opening of a job's output. Each is read from the first chunk on, also one of the same job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The job.
    pub(crate) job: JobId,
    no: u64,
}

impl Wants {
    /// Takes in a command. Whether it changes what is wanted.
    pub(crate) fn take(&mut self, cmd: &Cmd) -> bool {
        match cmd {
            Cmd::OpenLog(job) => {
                self.openings += 1;
                self.log = Some(Opening {
                    job: *job,
                    no: self.openings,
                });
                true
            }
            Cmd::CloseLog => self.log.take().is_some(),
            Cmd::WatchHub(on) => std::mem::replace(&mut self.hub, *on) != *on,
            Cmd::Quit | Cmd::QuitKeeping | Cmd::Suspend | Cmd::Copy(_) | Cmd::Mouse(_) => false,
        }
    }
}

/// How far the output is read that was opened last. Outlives a link.
#[derive(Debug, Default)]
pub(super) struct Reached {
    opening: Option<Opening>,
    /// The last sequence that was brought.
    pub(super) seq: u64,
}

impl Reached {
    /// What is to be read from now on: the same goes on, anything else begins.
    pub(super) fn turn_to(&mut self, wanted: Option<Opening>) {
        if self.opening != wanted {
            self.opening = wanted;
            self.seq = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_is_read_from_its_first_chunk_on_and_what_stays_open_goes_on() {
        let job = |n| JobId::from_random([n; 10]);
        let (mut wants, mut reached) = (Wants::default(), Reached::default());
        assert!(wants.take(&Cmd::OpenLog(job(1))));
        reached.turn_to(wants.log);
        reached.seq = 40;
        // The link went away and is back.
        reached.turn_to(wants.log);
        assert_eq!(reached.seq, 40);
        // Another one was opened meanwhile, or the same again.
        for n in [2, 1] {
            assert!(wants.take(&Cmd::CloseLog) && wants.take(&Cmd::OpenLog(job(n))));
            reached.turn_to(wants.log);
            assert_eq!(reached.seq, 0);
            reached.seq = 40;
        }
        assert!(!wants.take(&Cmd::Mouse(true)));
        assert!(wants.take(&Cmd::WatchHub(true)) && !wants.take(&Cmd::WatchHub(true)));
    }
}
