//! The terminal: taken, drawn on, and given back exactly as it was, however the console ends.
//!
//! Frames are written by a thread of its own through a mailbox of one frame, so that a slow
//! terminal never holds the console up: while the mailbox is full nothing is drawn, and the next
//! frame shows what is true by then.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use tokio::sync::Notify;

/// Alternate screen, cursor hidden, pastes told apart from keys.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?2004h";
/// The end of a frame that may be open, no attributes, and the opposite of [`ENTER`].
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";
/// What is between these appears at once.
const BEGIN_FRAME: &[u8] = b"\x1b[?2026h";
const END_FRAME: &[u8] = b"\x1b[?2026l";
/// How long leaving waits for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the terminal is taken now, by the one console of this process.
static TAKEN: AtomicBool = AtomicBool::new(false);

type PanicHook = Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Sync + Send + 'static>;

/// A terminal that is taken.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Sheet>>,
    sheet: Sheet,
    mailbox: Arc<Mailbox>,
    writer: Option<JoinHandle<()>>,
    hook: Arc<PanicHook>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where standard input or output is none, or goes away.
    pub(crate) fn take() -> io::Result<Self> {
        // Our themes decide about colour: the library's own reading of NO_COLOR would turn each
        // colour into a reset of bold and reverse.
        crossterm::style::force_color_output(true);
        let mut out = output()?;
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let hook = Arc::new(std::panic::take_hook());
        let before = hook.clone();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let sheet = Sheet::default();
        let mailbox = Arc::new(Mailbox::default());
        let begun = out.write_all(ENTER).and_then(|()| {
            let terminal = Terminal::new(CrosstermBackend::new(sheet.clone()))?;
            let inbox = mailbox.clone();
            let writer = std::thread::Builder::new()
                .name("fleet-tui-writer".to_owned())
                .spawn(move || write_frames(&inbox, out))?;
            Ok((terminal, writer))
        });
        match begun {
            Ok((terminal, writer)) => Ok(Self {
                terminal,
                sheet,
                mailbox,
                writer: Some(writer),
                hook,
            }),
            Err(error) => {
                give_back();
                give_hook_back(&hook);
                Err(error)
            }
        }
    }

    /// Whether a frame can be drawn now.
    pub(crate) fn is_free(&self) -> bool {
        self.mailbox.state().has_room()
    }

    /// Waits until a frame can be drawn.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + use<> {
        let mailbox = self.mailbox.clone();
        async move {
            while !mailbox.state().has_room() {
                mailbox.freed.notified().await;
            }
        }
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// Where the terminal is gone, or was given back after a panic elsewhere.
    pub(crate) fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if let Some(error) = self.mailbox.state().error.take() {
            return Err(error);
        }
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the console was left after a panic"));
        }
        self.sheet.bytes().extend_from_slice(BEGIN_FRAME);
        self.terminal.draw(view)?;
        let mut bytes = std::mem::take(&mut *self.sheet.bytes());
        bytes.extend_from_slice(END_FRAME);
        self.mailbox.put(bytes);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.mailbox.close();
        if let Some(writer) = self.writer.take()
            && self.mailbox.wait_closed(PATIENCE)
        {
            // It has nothing left to do but to end.
            let _ = writer.join();
        }
        give_back();
        give_hook_back(&self.hook);
    }
}

fn output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Gives the terminal back, if it is taken. Best effort: there is nobody to tell.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        if let Ok(mut out) = output() {
            let _ = out.write_all(LEAVE);
        }
        let _ = disable_raw_mode();
    }
}

fn give_hook_back(hook: &Arc<PanicHook>) {
    // The hook cannot be changed while it runs.
    if !std::thread::panicking() {
        let hook = hook.clone();
        std::panic::set_hook(Box::new(move |info| hook(info)));
    }
}

/// Where a frame is put together.
#[derive(Debug, Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Sheet {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    // A frame goes out whole, when it is done.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Room for one frame between the console and the writer.
#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    frame: Option<Vec<u8>>,
    error: Option<io::Error>,
    closed: bool,
    ended: bool,
}

impl State {
    /// A writer that has ended has an error to tell, and nobody shall wait for it.
    fn has_room(&self) -> bool {
        self.frame.is_none() || self.ended
    }
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut state = self.state();
        // Only what changed is in a frame, so none may be left out.
        state.frame.get_or_insert_default().extend(bytes);
        drop(state);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Waits until the writer has ended; whether it has.
    fn wait_closed(&self, patience: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), patience, |state| !state.ended);
        waited.map_or_else(|e| e.into_inner().0.ended, |(state, _)| state.ended)
    }

    /// The next frame; none at the end.
    fn next(&self) -> Option<Vec<u8>> {
        let waiting = self
            .changed
            .wait_while(self.state(), |state| state.frame.is_none() && !state.closed);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        let frame = state.frame.take();
        drop(state);
        self.freed.notify_one();
        frame
    }
}

fn write_frames(mailbox: &Mailbox, mut out: File) {
    while let Some(frame) = mailbox.next() {
        if let Err(error) = out.write_all(&frame) {
            mailbox.state().error = Some(error);
            break;
        }
    }
    mailbox.state().ended = true;
    mailbox.changed.notify_all();
    mailbox.freed.notify_one();
}
