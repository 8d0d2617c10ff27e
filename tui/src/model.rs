//! All that the console knows: what the bus told, what the person looks at, and the time. It knows
//! neither the bus nor the terminal, and reads no clock: `now` is told to it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::projection::{EventKey, Fact, Fleet, Limits};
use fleet_contract::time::Time;
use fleet_nats::output::Chunk;
use jiff::tz::TimeZone;

use crate::log::Log;
use crate::theme::Look;

/// A link that is up and says nothing for so long is not believed: the hub is asked every 5 s.
const SILENCE: Duration = Duration::from_millis(6500);

/// Marks among the events that the console itself made.
const MARKS_MAX: usize = 100;

/// Which stream a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The journal.
    Journal,
    /// Presence.
    Presence,
    /// All other events.
    Flow,
}

/// What comes in.
#[derive(Debug, Clone)]
pub(crate) enum Msg {
    /// A reader begins or goes on after an outage; so much is there for it.
    Opened(Reader),
    /// What a reader brings; so many messages are still to come.
    Facts {
        reader: Reader,
        facts: Vec<Fact>,
        left: u64,
    },
    /// A reader has read everything that was there.
    CaughtUp(Reader),
    /// The link came or went, or there is another error to show.
    Link {
        up: bool,
        error: Option<String>,
        slow_drops: u64,
    },
    /// This can never work.
    Hopeless(String),
    /// The hub answered in this time; its journal ends here.
    Probe { rtt: Duration, journal_seq: u64 },
    /// The hub's store is another one: all that was known is void.
    Reset,
    /// Output of a job.
    Log {
        job: JobId,
        chunks: Vec<Chunk>,
        left: u64,
    },
    /// All output that was there has come.
    LogCaughtUp(JobId),
    /// A key.
    Key(crossterm::event::KeyEvent),
    /// The terminal has another size.
    Resize(u16, u16),
    /// Time passed.
    Tick,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cmd {
    /// Leave.
    Quit,
    /// Follow this job's output, and no other's.
    OpenLog(JobId),
    /// Follow no output.
    CloseLog,
}

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
    /// The last round trip.
    pub(crate) rtt: Option<Duration>,
    /// The last sequence that the hub's journal is known to have.
    pub(crate) hub_seq: u64,
    /// Since when the gap is open that is not closed yet.
    pub(crate) down_since: Option<Time>,
    /// Messages that the client library dropped.
    pub(crate) slow_drops: u64,
    /// The last error.
    pub(crate) error: Option<String>,
    /// Why it can never work.
    pub(crate) hopeless: Option<String>,
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
    /// The link is there, but the hub has not answered for longer than it should.
    Silent,
    /// The link went away.
    Down,
}

impl Link {
    /// How true what is shown is, silence aside.
    fn phase(&self) -> Phase {
        match (self.up, self.ever) {
            (false, false) => Phase::Connecting,
            (false, true) => Phase::Down,
            (true, _) if self.readers.iter().all(|r| r.caught_up) => Phase::Live,
            (true, _) => {
                let read = self.readers.iter().map(|r| r.read).sum();
                let left: u64 = self.readers.iter().map(|r| r.left).sum();
                Phase::CatchingUp {
                    read,
                    of: read + left,
                }
            }
        }
    }
}

/// The screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Fleet,
    Dispatches,
    Machines,
    Events,
}

impl Screen {
    /// All, in the order of their keys.
    pub(crate) const ALL: [Self; 4] = [Self::Fleet, Self::Dispatches, Self::Machines, Self::Events];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fleet => "Fleet",
            Self::Dispatches => "Dispatches",
            Self::Machines => "Machines",
            Self::Events => "Events",
        }
    }
}

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Machines,
    Dispatches,
    Events,
}

impl Pane {
    /// All, as the screen Fleet has them.
    pub(crate) const ALL: [Self; 3] = [Self::Machines, Self::Dispatches, Self::Events];
}

/// What is opened over a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detail {
    /// A job and its output.
    Job(Box<JobDetail>),
    /// A machine.
    Machine(MachineId),
}

/// A job and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobDetail {
    /// The job.
    pub(crate) id: JobId,
    /// Its output.
    pub(crate) log: Log,
    /// The first line on screen; none follows the end.
    pub(crate) top: Option<u64>,
    /// Columns that long lines are moved to the left by.
    pub(crate) left: usize,
}

/// All that the console knows.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Now, by a clock that only goes forward.
    pub(crate) now: Time,
    /// The person's time zone.
    pub(crate) zone: TimeZone,
    /// What the fleet is called.
    pub(crate) name: String,
    /// The hub's addresses.
    pub(crate) hub: String,
    /// How things look.
    pub(crate) look: Look,
    /// Columns and rows of the terminal.
    pub(crate) size: (u16, u16),
    /// The way to the hub.
    pub(crate) link: Link,
    /// The fleet.
    pub(crate) fleet: Fleet,
    /// What this console saw by itself, among the events: gaps.
    pub(crate) marks: BTreeMap<Time, String>,
    /// The screen.
    pub(crate) screen: Screen,
    /// The pane of the screen Fleet that has the focus.
    pub(crate) pane: Pane,
    /// The selected job; none is the first of the list.
    pub(crate) job: Option<JobId>,
    /// The selected machine; none is the first of the list.
    pub(crate) machine: Option<MachineId>,
    /// The selected event; none is the newest, and follows.
    pub(crate) event: Option<EventKey>,
    /// What is opened.
    pub(crate) detail: Option<Detail>,
    /// Whether the keys are shown.
    pub(crate) help: bool,
}

impl Model {
    /// A console that knows nothing yet.
    pub(crate) fn new(now: Time, zone: TimeZone, name: String, hub: String, look: Look) -> Self {
        Self {
            now,
            zone,
            name,
            hub,
            look,
            size: (80, 24),
            link: Link {
                since: now,
                as_of: now,
                ..Link::default()
            },
            fleet: Fleet::new(Limits::default()),
            marks: BTreeMap::new(),
            screen: Screen::Fleet,
            pane: Pane::Dispatches,
            job: None,
            machine: None,
            event: None,
            detail: None,
            help: false,
        }
    }

    /// The list that keys move in.
    pub(crate) fn focus(&self) -> Pane {
        match self.screen {
            Screen::Fleet => self.pane,
            Screen::Dispatches => Pane::Dispatches,
            Screen::Machines => Pane::Machines,
            Screen::Events => Pane::Events,
        }
    }

    /// The time by which states are judged: what a machine was when the link went away is all that
    /// is known of it.
    pub(crate) fn as_of(&self) -> Time {
        match self.phase() {
            Phase::Live => self.now,
            _ => self.link.as_of,
        }
    }

    /// How true what is shown is.
    pub(crate) fn phase(&self) -> Phase {
        match self.link.phase() {
            Phase::Live if self.now.since(self.link.as_of) > SILENCE => Phase::Silent,
            phase => phase,
        }
    }

    /// Whether what is shown may be no longer true.
    pub(crate) fn is_dated(&self) -> bool {
        matches!(self.phase(), Phase::Down | Phase::Silent)
    }

    /// Records of the journal that the hub has and this console has not.
    pub(crate) fn behind(&self) -> u64 {
        self.link.hub_seq.saturating_sub(self.fleet.journal_seq())
    }

    /// Marks something among the events.
    pub(crate) fn mark(&mut self, text: String) {
        self.marks.insert(self.now, text);
        while self.marks.len() > MARKS_MAX {
            self.marks.pop_first();
        }
    }

    /// The selected job.
    pub(crate) fn selected_job(&self) -> Option<JobId> {
        let kept = self.job.filter(|id| self.fleet.job(*id).is_some());
        kept.or_else(|| self.fleet.worst_first(self.as_of()).next().map(|j| j.id))
    }

    /// The selected machine.
    pub(crate) fn selected_machine(&self) -> Option<MachineId> {
        let kept = self.machine.clone();
        kept.filter(|id| self.fleet.machines().contains_key(id))
            .or_else(|| {
                let all = self.fleet.machines_worst_first(self.as_of());
                all.first().map(|(_, m)| m.presence.machine.clone())
            })
    }

    /// The selected event.
    pub(crate) fn selected_event(&self) -> Option<EventKey> {
        let events = self.fleet.events();
        match self.event {
            // One that is no longer kept: the oldest that is.
            Some(key) => events.range(key..).next().map(|(key, _)| *key),
            None => events.keys().next_back().copied(),
        }
    }
}
