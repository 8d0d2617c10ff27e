//! All that the console knows: what the bus told, what the person looks at, and the time. It knows
//! neither the bus nor the terminal, and reads no clock: `now` is told to it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::projection::{Event, EventKey, Fact, Fleet, Limits, place};
use fleet_contract::time::Time;
use fleet_nats::output::Chunk;
use jiff::tz::TimeZone;

use crate::Motion;
use crate::bus::{BusHealth, BusMsg};
use crate::drawn::Drawn;
use crate::keymap::Place;
pub(crate) use crate::link::{Gap, Link, Phase};
use crate::lists::Lists;
use crate::log::{self, Log};
use crate::own::Own;
use crate::theme::Look;
use crate::topology::Topology;
use crate::trail::Trail;
use crate::ui::Ui;

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
    /// These messages were gone before a reader came to them.
    Gap(Gap),
    /// The try of this number to connect comes after so long.
    Tries { no: u64, after: Duration },
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
    /// So much more of it came from machines that never had the attempts it names: left out.
    LogForeign(JobId, u64),
    /// All output that was there has come.
    LogCaughtUp(JobId),
    /// What the bus tells about itself.
    Bus(BusMsg),
    /// A key.
    Key(crossterm::event::KeyEvent),
    /// The mouse.
    Mouse(crossterm::event::MouseEvent),
    /// Text from the clipboard.
    Paste(String),
    /// The terminal came to the foreground, or went from it.
    Focus(bool),
    /// The shell has the terminal from now on.
    Suspended,
    /// The terminal is ours again.
    Resumed,
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
    /// Leave, with the last frame kept on the normal screen.
    QuitKeeping,
    /// Let the shell have the terminal.
    Suspend,
    /// Put this text on the terminal's clipboard.
    Copy(String),
    /// Capture the mouse, or let the terminal have it.
    Mouse(bool),
    /// Follow this job's output, and no other's.
    OpenLog(JobId),
    /// Follow no output.
    CloseLog,
    /// Ask the hub more often how it is, or no longer so.
    WatchHub(bool),
}

/// The screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Fleet,
    Dispatches,
    Machines,
    Events,
    Bus,
    Inbox,
}

impl Screen {
    /// All, in the order of their tabs.
    pub(crate) const ALL: [Self; 6] = [
        Self::Fleet,
        Self::Dispatches,
        Self::Machines,
        Self::Events,
        Self::Bus,
        Self::Inbox,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fleet => "Fleet",
            Self::Dispatches => "Dispatches",
            Self::Machines => "Machines",
            Self::Events => "Events",
            Self::Bus => "Bus",
            Self::Inbox => "Inbox",
        }
    }
}

/// The lists, and what else can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Machines,
    Dispatches,
    Events,
    Bus,
    Inbox,
}

impl Pane {
    /// Those of the screen Fleet.
    pub(crate) const FLEET: [Self; 3] = [Self::Machines, Self::Dispatches, Self::Events];
}

/// What goes on behind a screen that stands still.
#[derive(Debug, Clone)]
pub(crate) struct Paused {
    /// The fleet as it is. What is shown stays what it was.
    pub(crate) live: Fleet,
    /// Whether what is shown was dated when it was stopped.
    pub(crate) dated: bool,
    /// Whether the output that is open followed its end.
    pub(crate) followed: bool,
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
    /// The first row on screen; none follows the end.
    pub(crate) top: Option<log::Place>,
    /// The part that arrows scroll: 0 its output, 1 the summary, 2 the journal.
    pub(crate) part: usize,
    /// Lines of summary and journal that are above the screen.
    pub(crate) above: [usize; 2],
    /// Columns that long lines are moved to the left by.
    pub(crate) left: usize,
    /// Whether long lines are broken.
    pub(crate) wrap: bool,
    /// Whether each line shows its time.
    pub(crate) times: bool,
    /// The line that is pointed at: found by a search, or of an event.
    pub(crate) point: Option<u64>,
    /// The time of the line that is to be shown as soon as it is there.
    pub(crate) goal: Option<Time>,
}

impl JobDetail {
    /// The job, its output not read yet.
    pub(crate) fn new(id: JobId) -> Self {
        Self {
            id,
            log: Log::default(),
            top: None,
            part: 0,
            above: [0; 2],
            left: 0,
            wrap: false,
            times: false,
            point: None,
            goal: None,
        }
    }
}

/// All that the console knows.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// The time that is shown: that of the moment when the screen was stopped, else the time.
    pub(crate) now: Time,
    /// The time.
    pub(crate) clock: Time,
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
    /// What the lists show of the fleet.
    pub(crate) lists: Lists,
    /// Where the person was before, and places that were marked.
    pub(crate) trail: Trail,
    /// What goes on behind a screen that stands still.
    pub(crate) paused: Option<Box<Paused>>,
    /// What the person is in the middle of.
    pub(crate) ui: Ui,
    /// What the last frame showed.
    pub(crate) drawn: Drawn,
    /// What is known of the bus itself.
    pub(crate) bus: BusHealth,
    /// What the console itself costs.
    pub(crate) own: Own,
    /// How much may move by itself.
    pub(crate) motion: Motion,
    /// How the fleet is drawn.
    pub(crate) topology: Topology,
}

impl Model {
    /// A console that knows nothing yet.
    pub(crate) fn new(now: Time, zone: TimeZone, name: String, hub: String, look: Look) -> Self {
        Self {
            now,
            clock: now,
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
            lists: Lists::default(),
            trail: Trail::default(),
            paused: None,
            ui: Ui::new(),
            drawn: Drawn::default(),
            bus: BusHealth::default(),
            own: Own::default(),
            motion: Motion::Full,
            topology: Topology::default(),
        }
    }

    /// The list that keys move in.
    pub(crate) fn focus(&self) -> Pane {
        match self.screen {
            Screen::Fleet => self.pane,
            Screen::Dispatches => Pane::Dispatches,
            Screen::Machines => Pane::Machines,
            Screen::Events => Pane::Events,
            Screen::Bus => Pane::Bus,
            Screen::Inbox => Pane::Inbox,
        }
    }

    /// Where the person is, for the keys.
    pub(crate) fn place(&self) -> Place {
        self.ui.place().unwrap_or(match self.detail {
            Some(Detail::Job(_)) => Place::Log,
            Some(Detail::Machine(_)) => Place::Machine,
            None => Place::List,
        })
    }

    /// Says in one line what was done.
    pub(crate) fn say(&mut self, text: impl Into<String>) {
        self.ui.say(self.clock, text);
    }

    /// The time of what was heard last: now, unless the link is away or much is still to come.
    pub(crate) fn heard_at(&self) -> Time {
        match (self.phase(), self.link.lag) {
            (Phase::Live, _) => self.now,
            (Phase::Slow { .. }, Some(lag)) => lag.stored.min(self.now),
            _ => self.link.as_of.min(self.now),
        }
    }

    /// The time by which states are judged: what a machine was when the link went away, or by what
    /// was folded last, is all that is known of it. After an outage each has time to be heard again.
    pub(crate) fn as_of(&self) -> Time {
        let at = self.heard_at();
        self.link.outage.map_or(at, |outage| outage.judges(at))
    }

    /// How true what is shown is.
    pub(crate) fn phase(&self) -> Phase {
        self.link.phase(self.clock)
    }

    /// Whether what is shown may be no longer true, or not yet.
    pub(crate) fn is_dated(&self) -> bool {
        match &self.paused {
            // What stands still was true when it was stopped, and says when that was.
            Some(paused) => paused.dated,
            None => !matches!(self.phase(), Phase::Live | Phase::Slow { .. }),
        }
    }

    /// Records of the journal that the hub has and this console has not.
    pub(crate) fn behind(&self) -> u64 {
        self.link.hub_seq.saturating_sub(self.live().journal_seq())
    }

    /// The fleet as it is, also while the screen stands still.
    pub(crate) fn live(&self) -> &Fleet {
        self.paused.as_ref().map_or(&self.fleet, |p| &p.live)
    }

    /// The same, to fold into.
    pub(crate) fn live_mut(&mut self) -> &mut Fleet {
        match &mut self.paused {
            Some(paused) => &mut paused.live,
            None => &mut self.fleet,
        }
    }

    /// How long it is until something changes by itself; ages are none of it.
    pub(crate) fn wakes_in(&self, now: Time) -> Option<Duration> {
        let lists = self.lists.wakes_in(now);
        self.ui.wakes_in(now).into_iter().chain(lists).min()
    }

    /// Marks something among the events.
    pub(crate) fn mark(&mut self, text: String) {
        // Each has a place of its own.
        let mut at = self.clock;
        while self.marks.contains_key(&at) {
            at = at.plus(Duration::from_micros(1));
        }
        self.marks.insert(at, text);
        while self.marks.len() > MARKS_MAX {
            self.marks.pop_first();
        }
    }

    /// The job that an action is about: of what is opened, else of what is selected.
    pub(crate) fn subject_job(&self) -> Option<JobId> {
        let job = match (&self.detail, self.focus()) {
            (Some(Detail::Job(detail)), _) => Some(detail.id),
            (Some(Detail::Machine(_)), _) => None,
            (None, Pane::Dispatches) => self.selected_job(),
            (None, Pane::Inbox) => self.inbox_job(),
            (None, Pane::Events) => self.event_of(|event| event.job),
            (None, Pane::Machines | Pane::Bus) => None,
        };
        job.filter(|id| self.fleet.job(*id).is_some())
    }

    /// The machine that an action is about: itself, or the one of the job or event.
    pub(crate) fn subject_machine(&self) -> Option<MachineId> {
        let of_job = |id: JobId| self.fleet.job(id).and_then(place).cloned();
        let machine = match (&self.detail, self.focus()) {
            (Some(Detail::Job(detail)), _) => of_job(detail.id),
            (Some(Detail::Machine(id)), _) => Some(id.clone()),
            (None, Pane::Dispatches) => self.selected_job().and_then(of_job),
            (None, Pane::Inbox) => self.inbox_job().and_then(of_job),
            (None, Pane::Machines) => self.selected_machine(),
            (None, Pane::Events) => self
                .event_of(|event| event.machine.clone())
                .or_else(|| self.event_of(|event| event.job).and_then(of_job)),
            (None, Pane::Bus) => None,
        };
        machine.filter(|id| self.fleet.machines().contains_key(id))
    }

    fn event_of<T>(&self, part: impl FnOnce(&Event) -> Option<T>) -> Option<T> {
        let key = self.selected_event()?;
        self.fleet.events().get(&key).and_then(part)
    }
}
