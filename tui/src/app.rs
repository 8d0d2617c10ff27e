//! The loop: messages, keys, signals and time in; frames out. Nothing is awaited but its select.

use std::io;
use std::time::Duration;

use crossterm::event::Event;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::bus::BusMsg;
use crate::clock::Clock;
use crate::model::{Cmd, Model, Msg};
use crate::source::Source;
use crate::terminal::{Input, Screen};
use crate::update::{is_seen, update};
use crate::view;
use crate::{Left, TuiError};

/// Shortest time between two frames that nobody pressed a key for.
const FRAME: Duration = Duration::from_millis(33);
/// The same where somebody did: a key that repeats is seen each time.
const KEY_FRAME: Duration = Duration::from_millis(8);

/// The signals that end a console.
pub(crate) struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
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
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.hangup.recv() => SignalKind::hangup().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.quit.recv() => SignalKind::quit().as_raw_value(),
        }
    }
}

/// A process that is stopped and goes on.
struct JobControl {
    stop: Signal,
    go_on: Signal,
}

impl JobControl {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            stop: signal(SignalKind::from_raw(process::Signal::TSTP.as_raw()))?,
            go_on: signal(SignalKind::from_raw(process::Signal::CONT.as_raw()))?,
        })
    }

    /// Whether to stop, rather than that it goes on.
    async fn next(&mut self) -> bool {
        tokio::select! {
            Some(()) = self.stop.recv() => true,
            Some(()) = self.go_on.recv() => false,
            else => std::future::pending().await,
        }
    }
}

/// When the next frame is due.
#[derive(Debug, Default)]
struct Frames {
    dirty: bool,
    urgent: bool,
    last: Option<Instant>,
}

impl Frames {
    fn due(&self) -> Option<Instant> {
        let least = if self.urgent { KEY_FRAME } else { FRAME };
        let soonest = self.last.map_or_else(Instant::now, |last| last + least);
        self.dirty.then_some(soonest)
    }
}

/// What wakes the loop.
enum Wake {
    Signal(i32),
    Stop(bool),
    Draw,
    Freed,
    Typed(Event),
    Msg(Msg),
    Second,
    Due,
}

/// Everything that the loop holds.
struct App {
    model: Model,
    source: Source,
    clock: Clock,
    screen: Screen,
    input: Input,
    frames: Frames,
    second: Instant,
    /// When something that is drawn moves by itself.
    motion: Option<Instant>,
}

/// Shows the model until the person leaves or a signal comes.
///
/// # Errors
/// Where the terminal is gone.
pub(crate) async fn drive(
    mut model: Model,
    source: Source,
    clock: Clock,
    mouse: bool,
) -> Result<Left, TuiError> {
    let mut signals = Signals::listen().map_err(TuiError::Terminal)?;
    let mut job_control = JobControl::listen().map_err(TuiError::Terminal)?;
    let screen = Screen::take(mouse).map_err(TuiError::Terminal)?;
    model.size = crossterm::terminal::size().map_err(TuiError::Terminal)?;
    let mut app = App {
        model,
        source,
        clock,
        screen,
        input: Input::open().map_err(TuiError::Terminal)?,
        frames: Frames {
            dirty: true,
            ..Frames::default()
        },
        second: Instant::now(),
        motion: None,
    };
    loop {
        let wake = app.wait(&mut signals, &mut job_control).await?;
        if let Some(left) = app.wake(wake)? {
            return match left {
                Leave::Now(left) => Ok(left),
                Leave::Picture => app.leave_behind(),
            };
        }
    }
}

/// How the console is left.
enum Leave {
    Now(Left),
    Picture,
}

impl App {
    async fn wait(
        &mut self,
        signals: &mut Signals,
        job_control: &mut JobControl,
    ) -> Result<Wake, TuiError> {
        let due = self.frames.due();
        let wakes = self.wakes();
        let free = self.screen.is_free();
        Ok(tokio::select! {
            biased;
            number = signals.next() => Wake::Signal(number),
            stop = job_control.next() => Wake::Stop(stop),
            () = at(due), if free => Wake::Draw,
            event = self.input.next() => Wake::Typed(event.map_err(TuiError::Terminal)?),
            () = self.screen.freed(), if due.is_some() && !free => Wake::Freed,
            msg = self.source.msgs.recv() => Wake::Msg(msg.ok_or(TuiError::Source)?),
            () = tokio::time::sleep_until(self.second) => Wake::Second,
            () = at(wakes) => Wake::Due,
        })
    }

    fn wake(&mut self, wake: Wake) -> Result<Option<Leave>, TuiError> {
        match wake {
            Wake::Signal(number) => return Ok(Some(Leave::Now(Left::Signal(number)))),
            Wake::Stop(true) => {
                let left = self.take(Msg::Suspended);
                self.screen.suspend();
                return Ok(left);
            }
            Wake::Stop(false) => {
                self.screen.resume().map_err(TuiError::Terminal)?;
                let left = self.take(Msg::Resumed);
                return Ok(left.or(self.measure()?));
            }
            Wake::Draw => self.draw()?,
            Wake::Freed => {}
            Wake::Typed(event) => {
                let urgent = !matches!(event, Event::Resize(..));
                self.frames.urgent |= urgent;
                return Ok(self.take(typed(event)));
            }
            Wake::Msg(msg) => return Ok(self.take(msg)),
            Wake::Second => {
                self.second = Instant::now() + to_next_second(self.clock.now());
                // A size that nobody told.
                self.measure()?;
                return Ok(self.take(Msg::Tick));
            }
            Wake::Due => return Ok(self.take(Msg::Tick)),
        }
        Ok(None)
    }

    /// When something changes by itself, before the next second begins.
    fn wakes(&self) -> Option<Instant> {
        let due = self.model.wakes_in(self.clock.now());
        let due = due.map(|left| Instant::now() + left);
        [due, self.motion].into_iter().flatten().min()
    }

    fn measure(&mut self) -> Result<Option<Leave>, TuiError> {
        let size = crossterm::terminal::size().map_err(TuiError::Terminal)?;
        self.frames.dirty = true;
        if size == self.model.size {
            return Ok(None);
        }
        Ok(self.take(Msg::Resize(size.0, size.1)))
    }

    fn draw(&mut self) -> Result<(), TuiError> {
        let begun = Instant::now();
        let model = &self.model;
        let bytes = self
            .screen
            .draw(|frame| view::draw(model, frame.area(), frame.buffer_mut()))
            .map_err(TuiError::Terminal)?;
        let done = Instant::now();
        let rows = view::rows(&self.model);
        self.model.saw(rows);
        self.model.own.frame(done - begun, bytes);
        let motion = view::next_motion(&self.model);
        self.motion = motion.map(|left| done + left);
        self.frames = Frames {
            dirty: false,
            urgent: false,
            last: Some(done),
        };
        Ok(())
    }

    /// Takes in a message; how to leave, if so.
    fn take(&mut self, msg: Msg) -> Option<Leave> {
        if let Msg::Resize(columns, rows) = msg {
            self.screen.resize((columns, rows));
        }
        let facts = match &msg {
            Msg::Facts { facts, .. } => facts.len() as u64,
            Msg::Bus(BusMsg::Stats { facts, .. }) => facts.len() as u64,
            _ => 0,
        };
        self.frames.dirty |= is_seen(&self.model, &msg);
        let begun = (facts > 0).then(Instant::now);
        let cmds = update(&mut self.model, self.clock.now(), msg);
        if let Some(begun) = begun {
            self.model.own.fold(facts, begun.elapsed());
        }
        for cmd in cmds {
            match cmd {
                Cmd::Quit => return Some(Leave::Now(Left::Quit)),
                Cmd::QuitKeeping => return Some(Leave::Picture),
                // As a terminal that sends the signal itself: to all processes of the job.
                Cmd::Suspend => {
                    let _ = process::kill_current_process_group(process::Signal::TSTP);
                }
                Cmd::Copy(text) => self.screen.copy(&text),
                Cmd::Mouse(on) => self.screen.set_mouse(on),
                cmd => self.source.want(&cmd),
            }
        }
        None
    }

    /// Leaves the last frame in the terminal's history.
    fn leave_behind(self) -> Result<Left, TuiError> {
        let (columns, rows) = self.model.size;
        let mut picture = Buffer::empty(Rect::new(0, 0, columns, rows));
        view::draw(&self.model, picture.area, &mut picture);
        self.screen
            .leave_behind(&picture)
            .map_err(TuiError::Terminal)?;
        Ok(Left::Quit)
    }
}

fn typed(event: Event) -> Msg {
    match event {
        Event::Key(key) => Msg::Key(key),
        Event::Mouse(mouse) => Msg::Mouse(mouse),
        Event::Paste(text) => Msg::Paste(text),
        Event::FocusGained => Msg::Focus(true),
        Event::FocusLost => Msg::Focus(false),
        Event::Resize(columns, rows) => Msg::Resize(columns, rows),
    }
}

/// Ages and the clock move when the second does.
fn to_next_second(now: Time) -> Duration {
    let micros = now.as_micros().rem_euclid(1_000_000);
    Duration::from_micros(1_000_000 - micros.unsigned_abs())
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
