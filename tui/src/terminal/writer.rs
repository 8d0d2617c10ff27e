//! The thread that writes frames, and the mailbox of one frame before it: a slow terminal never
//! holds the console up. While the mailbox is full nothing is drawn, and the next frame shows what
//! is true by then.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(out: File) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let inbox = mailbox.clone();
        let thread = std::thread::Builder::new()
            .name("fleet-tui-writer".to_owned())
            .spawn(move || write_frames(&inbox, out))?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    /// Whether there is room for a frame.
    pub(super) fn is_free(&self) -> bool {
        self.mailbox.state().has_room()
    }

    /// Waits until there is.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + use<> {
        let mailbox = self.mailbox.clone();
        async move {
            while !mailbox.state().has_room() {
                mailbox.freed.notified().await;
            }
        }
    }

    /// Puts bytes behind those that wait. What changed is in one frame only, so none is left out.
    pub(super) fn put(&self, bytes: Vec<u8>) {
        self.mailbox
            .state()
            .frame
            .get_or_insert_default()
            .extend(bytes);
        self.mailbox.changed.notify_all();
    }

    /// The error that ended it, once.
    pub(super) fn error(&self) -> Option<io::Error> {
        self.mailbox.state().error.take()
    }

    /// Waits until everything is written, but no longer than this.
    pub(super) fn drain(&self, patience: Duration) {
        let waits = |state: &mut State| !state.ended && (state.frame.is_some() || state.writing);
        let state = self.mailbox.state();
        drop(
            self.mailbox
                .changed
                .wait_timeout_while(state, patience, waits),
        );
    }

    /// Ends it when everything is written; where the terminal takes nothing for this long, without
    /// it.
    pub(super) fn end(&mut self, patience: Duration) {
        self.mailbox.state().closed = true;
        self.mailbox.changed.notify_all();
        let waits = |state: &mut State| !state.ended;
        let waited = self
            .mailbox
            .changed
            .wait_timeout_while(self.mailbox.state(), patience, waits);
        let ended = waited.map_or_else(|e| e.into_inner().0.ended, |(state, _)| state.ended);
        if let Some(thread) = self.thread.take()
            && ended
        {
            // It has nothing left to do but to end.
            let _ = thread.join();
        }
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
    writing: bool,
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

    /// The next frame; none at the end.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        state.writing = false;
        self.changed.notify_all();
        let waiting = self
            .changed
            .wait_while(state, |state| state.frame.is_none() && !state.closed);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        let frame = state.frame.take();
        state.writing = frame.is_some();
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
