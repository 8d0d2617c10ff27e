//! What is known of the way to the hub, and so how true what is shown is. A part of the model; it
//! knows nothing of the fleet.

use std::time::Duration;

use fleet_contract::time::Time;

use crate::model::Reader;

/// A link that is up and says nothing for so long is not believed: the hub is asked every 5 s.
const SILENCE: Duration = Duration::from_millis(6500);
/// From so many messages to come on the console is behind, rather than about to show them.
const BEHIND: u64 = 2048;
/// From this age of what is folded on, too, if more is to come.
const OLD: Duration = Duration::from_secs(2);
/// With fewer it is no longer.
const NEARLY: u64 = 256;
/// For so long it is said where there is hardly any room that something was missed.
const GAP_SAID: Duration = Duration::from_secs(600);

/// Holes are kept for so long.
const HOUR: Duration = Duration::from_secs(3600);
/// Most holes that are kept.
const HOLES_MAX: usize = 64;
/// After an outage a machine has so long to be heard again: more than makes one lost.
const EXCUSED: Duration = Duration::from_secs(30);

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Messages since it was opened.
    pub(crate) read: u64,
    /// Messages that were still there.
    pub(crate) left: u64,
    /// Whether it has read everything that was there when it was opened.
    pub(crate) caught_up: bool,
}

/// Messages that were gone before they could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Of which stream.
    pub(crate) reader: Reader,
    /// The first of them.
    pub(crate) first: u64,
    /// The last of them.
    pub(crate) last: u64,
    /// How many they are.
    pub(crate) count: u64,
}

/// The console is behind the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Messages that are still to come.
    pub(crate) left: u64,
    /// When what was folded last was stored: what is shown was true then.
    pub(crate) stored: Time,
}

/// A time in which nothing was heard, or not all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    /// When it began.
    pub(crate) from: Time,
    /// When it ended.
    pub(crate) to: Time,
    /// Whether something of it was never read; otherwise all of it was read later.
    pub(crate) lost: bool,
}

/// The holes of the last hour, oldest first. Bounded: where there are many, the oldest are one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holes(Vec<Hole>);

impl Holes {
    /// Another one has ended, or something of a moment was missed.
    pub(crate) fn add(&mut self, hole: Hole) {
        self.0.retain(|old| hole.to.since(old.to) < HOUR);
        self.0.push(hole);
        if self.0.len() > HOLES_MAX {
            let oldest = self.0.remove(0);
            if let Some(next) = self.0.first_mut() {
                next.from = oldest.from;
                next.lost |= oldest.lost;
            }
        }
    }

    /// Whether a time touches any, and whether any of those was never read as a whole.
    pub(crate) fn touch(&self, begin: Time, end: Time) -> Option<bool> {
        let within = |hole: &&Hole| hole.from < end && begin <= hole.to;
        self.0
            .iter()
            .filter(within)
            .map(|hole| hole.lost)
            .reduce(|a, b| a || b)
    }
}

/// An outage as machines are judged by it: where the hub itself was away, none of them could be
/// heard, so for a while they are no older than they were when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Until when beats are known to have reached the hub.
    pub(crate) heard: Time,
    /// When the link was back; none while it is not.
    pub(crate) back: Option<Time>,
}

impl Outage {
    /// The time by which machines are judged at a time.
    pub(crate) fn judges(self, at: Time) -> Time {
        let judged = match self.back {
            None => self.heard,
            Some(back) if at.since(back) < EXCUSED => self.heard.plus(at.since(back)),
            Some(_) => at,
        };
        judged.min(at)
    }
}

/// What is known of the way to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// Whether it is up.
    pub(crate) up: bool,
    /// Whether it ever was.
    pub(crate) ever: bool,
    /// Since when it is as it is.
    pub(crate) since: Time,
    /// When the hub was heard last: what is shown was true then.
    pub(crate) as_of: Time,
    /// The readers of journal, presence and flow.
    pub(crate) readers: [Progress; 3],
    /// Whether, and how far, the console is behind.
    pub(crate) lag: Option<Lag>,
    /// The last round trip.
    pub(crate) rtt: Option<Duration>,
    /// The last sequence that the hub's journal is known to have.
    pub(crate) hub_seq: u64,
    /// Since when the gap is open that is not closed yet.
    pub(crate) down_since: Option<Time>,
    /// When nothing was heard, or not all, in the last hour.
    pub(crate) holes: Holes,
    /// The last outage, for as long as it excuses machines that are not heard.
    pub(crate) outage: Option<Outage>,
    /// What was missed and is not told yet.
    pub(crate) gaps: Vec<Gap>,
    /// Messages that were missed in all.
    pub(crate) lost: u64,
    /// Those of them that were records of the journal.
    pub(crate) lost_records: u64,
    /// When some were missed last.
    pub(crate) lost_at: Option<Time>,
    /// Messages that the client library dropped.
    pub(crate) slow_drops: u64,
    /// The number of the try to connect that comes next, and when it does.
    pub(crate) next_try: Option<(u64, Time)>,
    /// The last error.
    pub(crate) error: Option<String>,
    /// Why it can never work.
    pub(crate) hopeless: Option<String>,
    /// Whether these credentials can only read.
    pub(crate) read_only: bool,
}

/// How true what is shown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There was no link yet.
    Connecting,
    /// Reading what is there: so many of so many.
    CatchingUp { read: u64, of: u64 },
    /// Everything is shown as it happens.
    Live,
    /// More comes than is shown: so many are to come, and what is shown was true so long ago.
    Slow { left: u64, age: Duration },
    /// The link is there, but the hub has not answered for longer than it should.
    Silent,
    /// The link went away.
    Down,
}

impl Link {
    /// How true what is shown is.
    pub(crate) fn phase(&self, now: Time) -> Phase {
        match (self.up, self.ever) {
            (false, false) => return Phase::Connecting,
            (false, true) => return Phase::Down,
            (true, _) if now.since(self.as_of) > SILENCE => return Phase::Silent,
            (true, _) => {}
        }
        if !self.is_caught_up() {
            let read = self.readers.iter().map(|r| r.read).sum();
            let of = read + self.left();
            return Phase::CatchingUp { read, of };
        }
        match self.lag {
            Some(Lag { left, stored }) => Phase::Slow {
                left,
                age: now.since(stored),
            },
            None => Phase::Live,
        }
    }

    /// Whether all readers have read what was there.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.readers.iter().all(|r| r.caught_up)
    }

    /// Messages that are still to come, as far as is known.
    pub(crate) fn left(&self) -> u64 {
        self.readers.iter().map(|r| r.left).sum()
    }

    /// Looks anew whether the console is behind, after something was folded that was stored then.
    pub(crate) fn measure_lag(&mut self, now: Time, stored: Time) {
        let left = self.left();
        let old = now.since(stored) >= OLD;
        self.lag = match self.lag {
            _ if !self.is_caught_up() => None,
            None if left >= BEHIND || (left >= NEARLY && old) => Some(Lag { left, stored }),
            Some(_) if left >= NEARLY => Some(Lag { left, stored }),
            _ => None,
        };
    }

    /// Messages were gone before they could be read.
    pub(crate) fn missed(&mut self, now: Time, gap: Gap) {
        self.lost += gap.count;
        if gap.reader == Reader::Journal {
            self.lost_records += gap.count;
        }
        self.lost_at = Some(now);
        let same = self.gaps.iter_mut().find(|g| g.reader == gap.reader);
        match same {
            Some(known) => {
                known.first = known.first.min(gap.first);
                known.last = known.last.max(gap.last);
                known.count += gap.count;
            }
            None => self.gaps.push(gap),
        }
    }

    /// Whether something was missed a short while ago.
    pub(crate) fn missed_lately(&self, now: Time) -> bool {
        self.lost_at.is_some_and(|at| now.since(at) < GAP_SAID)
    }
}
