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
    /// None once nobody watches any more.
    gone: Option<oneshot::Receiver<()>>,
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
            gone: Some(gone),
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
            () = told(&mut self.gone) => Err(io::Error::other("it is gone")),
            event = self.events.recv() => match event {
                Some(event) => event,
                None => Err(io::Error::other("its input ended")),
            },
        }
    }
}

/// Waits until the terminal is gone; for ever where nobody can tell.
async fn told(gone: &mut Option<oneshot::Receiver<()>>) {
    if let Some(watching) = gone {
        let told = watching.await;
        // One that has answered may never be asked again.
        *gone = None;
        if told.is_ok() {
            return;
        }
    }
    std::future::pending().await
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> (Input, mpsc::Sender<io::Result<Event>>, oneshot::Sender<()>) {
        let (send, events) = mpsc::channel(CHANNEL);
        let (tell, gone) = oneshot::channel();
        let input = Input {
            events,
            gone: Some(gone),
            _reading: oneshot::channel().0,
            _watching: io::pipe().unwrap().1,
        };
        (input, send, tell)
    }

    #[tokio::test]
    async fn keys_go_on_where_the_terminal_cannot_be_watched() {
        let (mut input, send, tell) = parts();
        drop(tell);
        for _ in 0..3 {
            send.send(Ok(Event::FocusGained)).await.unwrap();
            assert_eq!(input.next().await.unwrap(), Event::FocusGained);
        }
        drop(send);
        assert!(input.next().await.is_err());
    }

    #[tokio::test]
    async fn a_terminal_that_is_gone_is_told_before_keys() {
        let (mut input, send, tell) = parts();
        send.send(Ok(Event::FocusGained)).await.unwrap();
        tell.send(()).unwrap();
        assert!(input.next().await.is_err());
        // Whoever asks once more is not answered by a panic.
        assert!(input.next().await.is_ok());
    }
}
