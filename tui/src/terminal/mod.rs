//! The terminal: taken, drawn on, and given back exactly as it was, however the console ends; and
//! for a while where the person suspends it.

mod input;
mod modes;
mod paper;
mod writer;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::{Frame, Terminal};
use rustix::process::{self, Signal};
use rustix::termios::{self, LocalModes, OptionalActions, QueueSelector, Termios};

use crate::terminal::writer::{Leaving, Writer};

pub(crate) use input::Input;
pub(crate) use paper::Paper;

/// How long leaving waits for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the terminal was before the one console of this process took it; none while it is free.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

type PanicHook = Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Sync + Send + 'static>;

/// A terminal that is taken.
pub(crate) struct Screen {
    canvas: Canvas,
    writer: Writer,
    hook: Arc<PanicHook>,
    mouse: bool,
    away: bool,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where standard input or output is none, or goes away.
    pub(crate) fn take(mouse: bool) -> io::Result<Self> {
        // Our themes decide about colour: the library's own reading of NO_COLOR would turn each
        // colour into a reset of bold and reverse.
        crossterm::style::force_color_output(true);
        let size = crossterm::terminal::size()?;
        let writer = Writer::start(output()?)?;
        make_raw()?;
        let hook = Arc::new(std::panic::take_hook());
        let (before, leaving) = (hook.clone(), writer.leaving());
        std::panic::set_hook(Box::new(move |info| {
            give_back(&leaving);
            before(info);
        }));
        writer.put(modes::enter(mouse));
        Ok(Self {
            canvas: Canvas::new(size)?,
            writer,
            hook,
            mouse,
            away: false,
        })
    }

    /// Whether a frame can be drawn now.
    pub(crate) fn is_free(&self) -> bool {
        !self.away && self.writer.is_free()
    }

    /// Waits until a frame can be drawn.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + use<> {
        let (away, freed) = (self.away, self.writer.freed());
        async move {
            if away {
                return std::future::pending().await;
            }
            freed.await;
        }
    }

    /// Draws a frame; how many bytes it took.
    ///
    /// # Errors
    /// Where the terminal is gone, or was given back after a panic elsewhere.
    pub(crate) fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<usize> {
        if let Some(error) = self.writer.error() {
            return Err(error);
        }
        if before().is_none() {
            return Err(io::Error::other("the console was left after a panic"));
        }
        let bytes = self.canvas.draw(view)?;
        let count = bytes.len();
        if count > 0 {
            self.writer.put(bytes);
        }
        Ok(count)
    }

    /// The terminal has this size now.
    pub(crate) fn resize(&mut self, size: (u16, u16)) {
        self.canvas.resize(size);
    }

    /// Puts this text into the clipboard of the person's terminal.
    pub(crate) fn copy(&self, text: &str) {
        self.writer.put(modes::copy(text));
    }

    /// Whether the mouse is the console's.
    pub(crate) fn set_mouse(&mut self, on: bool) {
        if on != self.mouse {
            self.mouse = on;
            self.writer.put(modes::mouse(on).to_vec());
        }
    }

    /// Gives the terminal back and stops the process, until somebody lets it go on: then
    /// [`Screen::resume`].
    pub(crate) fn suspend(&mut self) {
        if !has_job_control() {
            return;
        }
        self.away = true;
        self.writer.drain(PATIENCE);
        give_back(&self.writer.leaving());
        // Nobody can refuse this one.
        let _ = process::kill_process(process::getpid(), Signal::STOP);
    }

    /// Takes the terminal again, also where somebody else stopped the process: whoever had the
    /// terminal meanwhile may have left it in any state.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        // In the background the system stops the process here, until it is in front again.
        make_raw()?;
        self.away = false;
        self.canvas.forget();
        self.writer.put(modes::enter(self.mouse));
        Ok(())
    }

    /// Gives the terminal back and leaves this picture in its history.
    pub(crate) fn leave_behind(self, picture: &Buffer) -> io::Result<()> {
        let lines = modes::lines(picture);
        drop(self);
        output()?.write_all(&lines)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.writer.drain(PATIENCE);
        give_back(&self.writer.leaving());
        self.writer.end(PATIENCE);
        give_hook_back(&self.hook);
    }
}

/// What is on the screen, and how to make it what it shall be.
pub(crate) struct Canvas {
    terminal: Terminal<Paper>,
    unknown: bool,
}

impl Canvas {
    /// An empty one.
    ///
    /// # Errors
    /// None that is known of.
    pub(crate) fn new(size: (u16, u16)) -> io::Result<Self> {
        Ok(Self {
            terminal: Terminal::new(Paper::new(size))?,
            unknown: false,
        })
    }

    /// The bytes that turn the last frame into this one; none where they are the same.
    ///
    /// # Errors
    /// None that is known of.
    pub(crate) fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.unknown) {
            let area = self.terminal.backend().area();
            self.terminal.resize(area)?;
        }
        self.terminal.draw(view)?;
        let drawn = self.terminal.backend_mut().take();
        if drawn.is_empty() {
            return Ok(drawn);
        }
        Ok([modes::BEGIN_FRAME, &drawn, modes::END_FRAME].concat())
    }

    /// The terminal has this size now.
    pub(crate) fn resize(&mut self, size: (u16, u16)) {
        self.terminal.backend_mut().resize(size);
    }

    /// Nobody knows what is on the screen: the next frame is whole.
    pub(crate) fn forget(&mut self) {
        self.unknown = true;
    }
}

fn output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives keys to the console one by one, and remembers how the terminal was.
fn make_raw() -> io::Result<()> {
    let mut before = before();
    let now = termios::tcgetattr(io::stdin())?;
    // After a stop it may still be as the console had it.
    if before.is_none() || now.local_modes.contains(LocalModes::ICANON) {
        *before = Some(now.clone());
    }
    let mut raw = now;
    raw.make_raw();
    set(&io::stdin(), &raw)
}

fn set(terminal: &impl AsFd, attributes: &Termios) -> io::Result<()> {
    let set = || termios::tcsetattr(terminal, OptionalActions::Now, attributes);
    Ok(rustix::io::retry_on_intr(set)?)
}

/// Gives keys to the shell again: none that were pressed for the console, and nothing that the mouse
/// did. Waits for no output: a person may have halted it.
fn give_keys_back(terminal: &impl AsFd, attributes: &Termios) -> io::Result<()> {
    set(terminal, attributes)?;
    Ok(termios::tcflush(terminal, QueueSelector::IFlush)?)
}

/// Gives the terminal back, if it is taken. Best effort: there is nobody to tell.
fn give_back(leaving: &Leaving) {
    let Some(before) = before().take() else {
        return;
    };
    leaving.now(PATIENCE);
    let _ = give_keys_back(&io::stdin(), &before);
}

/// Whether there is a shell that could let a stopped process go on. The processes that a shell
/// stops are in a group of their own; without one the console would be stopped for ever.
fn has_job_control() -> bool {
    process::getsid(None).is_ok_and(|session| session != process::getpgrp())
}

fn give_hook_back(hook: &Arc<PanicHook>) {
    // The hook cannot be changed while it runs.
    if !std::thread::panicking() {
        let hook = hook.clone();
        std::panic::set_hook(Box::new(move |info| hook(info)));
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn what_was_typed_for_the_console_is_no_line_for_the_shell() {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let before = termios::tcgetattr(&terminal).unwrap();
        let mut raw = before.clone();
        raw.make_raw();
        set(&terminal, &raw).unwrap();
        rustix::io::write(&person, b"x\nrm -r work\n").unwrap();
        let mut ends = [PollFd::new(&terminal, PollFlags::IN)];
        assert_eq!(poll(&mut ends, None).unwrap(), 1);
        give_keys_back(&terminal, &before).unwrap();
        assert_eq!(rustix::io::ioctl_fionread(&terminal).unwrap(), 0);
        let now = termios::tcgetattr(&terminal).unwrap();
        assert_eq!(now.local_modes, before.local_modes);
    }
}
