//! The loop: messages, keys, signals and time in; frames out. Nothing is awaited but its select.

use std::io;
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use fleet_contract::time::Time;
use fleet_nats::clock;
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::model::{Cmd, Model, Msg};
use crate::source::Source;
use crate::terminal::Screen;
use crate::update::update;
use crate::view;
use crate::{Left, TuiError};

/// Shortest time between two frames that nobody pressed a key for.
const FRAME: Duration = Duration::from_millis(33);
/// How often ages move.
const AGES: Duration = Duration::from_secs(1);

/// Now, by a clock that starts at the wall's time and only goes forward, through suspend too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall: Time,
    boot: fleet_contract::lease::BootTime,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            wall: clock::now(),
            boot: clock::boot_time(),
        }
    }

    /// Now.
    pub(crate) fn now(self) -> Time {
        let passed = clock::boot_time().0.saturating_sub(self.boot.0);
        self.wall.plus(Duration::from_nanos(passed))
    }
}

/// The signals that end a console.
pub(crate) struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the system does not let us.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.hangup.recv() => SignalKind::hangup().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// When the next frame is due.
#[derive(Debug, Default)]
struct Frames {
    dirty: bool,
    last: Option<Instant>,
}

impl Frames {
    fn due(&self) -> Option<Instant> {
        let soonest = self.last.map_or_else(Instant::now, |last| last + FRAME);
        self.dirty.then_some(soonest)
    }
}

/// Shows the model until the person leaves or a signal comes.
///
/// # Errors
/// Where the terminal is gone.
pub(crate) async fn drive(
    mut model: Model,
    mut source: Source,
    clock: Clock,
) -> Result<Left, TuiError> {
    let mut signals = Signals::listen().map_err(TuiError::Terminal)?;
    let mut screen = Screen::take().map_err(TuiError::Terminal)?;
    model.size = crossterm::terminal::size().map_err(TuiError::Terminal)?;
    let mut keys = EventStream::new();
    let mut ages = tokio::time::interval(AGES);
    ages.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frames = Frames {
        dirty: true,
        last: None,
    };
    loop {
        let due = frames.due();
        let wakes = model
            .ui
            .wakes_in(clock.now())
            .map(|left| Instant::now() + left);
        let msg = tokio::select! {
            biased;
            number = signals.next() => return Ok(Left::Signal(number)),
            event = keys.next() => match event {
                // Without a terminal there is nobody to show anything to.
                None => return Err(gone("its input ended")),
                Some(Err(error)) => return Err(TuiError::Terminal(error)),
                Some(Ok(event)) => {
                    // What a person did is shown at once.
                    frames.last = None;
                    match event {
                        Event::Key(key) => Msg::Key(key),
                        Event::Mouse(mouse) => Msg::Mouse(mouse),
                        Event::Paste(text) => Msg::Paste(text),
                        Event::FocusGained => Msg::Focus(true),
                        Event::FocusLost => Msg::Focus(false),
                        Event::Resize(columns, rows) => Msg::Resize(columns, rows),
                    }
                }
            },
            () = at(due), if screen.is_free() => {
                screen
                    .draw(|frame| view::draw(&model, frame.area(), frame.buffer_mut()))
                    .map_err(TuiError::Terminal)?;
                frames = Frames { dirty: false, last: Some(Instant::now()) };
                continue;
            }
            () = screen.freed(), if frames.dirty && !screen.is_free() => continue,
            msg = source.msgs.recv() => match msg {
                Some(msg) => msg,
                None => return Err(TuiError::Source),
            },
            _ = ages.tick() => Msg::Tick,
            // Something that waits for the person's next key shows by itself.
            () = at(wakes) => Msg::Tick,
        };
        frames.dirty = true;
        for cmd in update(&mut model, clock.now(), msg) {
            match cmd {
                Cmd::Quit | Cmd::QuitKeeping => return Ok(Left::Quit),
                Cmd::Suspend | Cmd::Copy(_) | Cmd::Mouse(_) => {}
                // A source that is so far behind would open it too late to be of use.
                cmd => drop(source.cmds.try_send(cmd)),
            }
        }
    }
}

fn gone(why: &'static str) -> TuiError {
    TuiError::Terminal(io::Error::other(why))
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
