//! What a person does: keys, the mouse, pastes, sizes. Read by a thread of its own, because the
//! library waits for the rest of a sequence that has begun; and the end of the terminal, because
//! the library reads a terminal that is gone for ever.

use std::io::{self, PipeReader, PipeWriter};

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{mpsc, oneshot};

/// Events that wait for the console; more wait in the terminal.
const CHANNEL: usize = 64;

/// What a person does.
#[derive(Debug)]
pub(crate) struct Input {
    events: mpsc::Receiver<io::Result<Event>>,
    gone: oneshot::Receiver<()>,
    _reading: oneshot::Sender<()>,
    _watching: PipeWriter,
}

impl Input {
    /// Begins to read the terminal.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn open() -> io::Result<Self> {
        let (send, events) = mpsc::channel(CHANNEL);
        let (reading, stop_reading) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("fleet-tui-keys".to_owned())
            .spawn(move || runtime.block_on(read(&send, stop_reading)))?;
        let (stop_watching, watching) = io::pipe()?;
        let (tell, gone) = oneshot::channel();
        std::thread::Builder::new()
            .name("fleet-tui-line".to_owned())
            .spawn(move || {
                if hung_up(&stop_watching) {
                    // The console left at this moment.
                    let _ = tell.send(());
                }
            })?;
        Ok(Self {
            events,
            gone,
            _reading: reading,
            _watching: watching,
        })
    }

    /// What was done next.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(crate) async fn next(&mut self) -> io::Result<Event> {
        tokio::select! {
            biased;
            Ok(()) = &mut self.gone => Err(io::Error::other("it is gone")),
            event = self.events.recv() => match event {
                Some(event) => event,
                None => Err(io::Error::other("its input ended")),
            },
        }
    }
}

async fn read(send: &mpsc::Sender<io::Result<Event>>, mut stop: oneshot::Receiver<()>) {
    let mut events = EventStream::new();
    loop {
        let event = tokio::select! {
            _ = &mut stop => return,
            event = events.next() => event,
        };
        let Some(event) = event else { return };
        let failed = event.is_err();
        if send.send(event).await.is_err() || failed {
            return;
        }
    }
}

/// Waits until the terminal is gone; whether it is, or nobody wants to know any more.
fn hung_up(stop: &PipeReader) -> bool {
    let terminal = io::stdin();
    loop {
        let mut ends = [
            // Nothing is asked for: its end is told in any case.
            PollFd::new(&terminal, PollFlags::empty()),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
            Ok(_) => {}
        }
        if !ends[1].revents().is_empty() {
            return false;
        }
        let told = ends[0].revents();
        if told.intersects(PollFlags::HUP | PollFlags::ERR) {
            return true;
        }
        // Some systems cannot watch a terminal.
        if !told.is_empty() {
            return false;
        }
    }
}
