//! The thread that writes frames, and the mailbox of one frame before it: a slow terminal never
//! holds the console up. While the mailbox is full nothing is drawn, and the next frame shows what
//! is true by then. Nobody else writes while it lives: what gives the terminal back, too, is written
//! by it, behind whatever part of a frame is out.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;

use super::modes;

/// Bytes of one write: what a slow line takes before it can be told to stop.
const CHUNK: usize = 512;
/// How often a terminal that takes nothing is asked whether it is still waited for.
const ASK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Ends a sequence that was cut: the terminal forgets what it has of it.
const CANCEL: u8 = 0x18;

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// What makes the writer give the terminal back, from any thread.
#[derive(Debug, Clone)]
pub(super) struct Leaving(Arc<Mailbox>);

impl Leaving {
    /// Cuts the frame that is being written, forgets those that wait, and gives the terminal back;
    /// without that where it takes nothing for this long.
    pub(super) fn now(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.0.state();
        if state.ended {
            return;
        }
        state.leave = Some(until);
        self.0.changed.notify_all();
        let waits = |state: &mut State| !state.ended && state.leave.is_some();
        drop(self.0.changed.wait_timeout_while(state, patience, waits));
    }
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

    /// What gives the terminal back.
    pub(super) fn leaving(&self) -> Leaving {
        Leaving(self.mailbox.clone())
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
    /// The terminal is to be given back, if it can be until then.
    leave: Option<Instant>,
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

    /// What is to be done next; none at the end.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        state.writing = false;
        self.changed.notify_all();
        let idle =
            |state: &mut State| state.frame.is_none() && state.leave.is_none() && !state.closed;
        let waiting = self.changed.wait_while(state, idle);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        let frame = state.frame.take();
        // Whoever leaves does not want to see what waits.
        let work = match state.leave {
            Some(until) => Some(Work::Leave(until)),
            None => frame.map(Work::Frame),
        };
        state.writing = work.is_some();
        drop(state);
        self.freed.notify_one();
        work
    }

    fn has_left(&self) {
        self.state().leave = None;
        self.changed.notify_all();
    }
}

enum Work {
    Frame(Vec<u8>),
    Leave(Instant),
}

fn write_frames(mailbox: &Mailbox, mut out: File) {
    let mut whole = true;
    while let Some(work) = mailbox.next() {
        let written = match work {
            Work::Frame(frame) => write(&mut out, &frame, || mailbox.state().leave.is_some()),
            Work::Leave(until) => {
                let cancel: &[u8] = if whole { &[] } else { &[CANCEL] };
                let bytes = [cancel, modes::LEAVE].concat();
                let written = write(&mut out, &bytes, || Instant::now() > until);
                mailbox.has_left();
                written
            }
        };
        match written {
            Ok(all) => whole = all,
            Err(error) => {
                mailbox.state().error = Some(error);
                break;
            }
        }
    }
    mailbox.state().ended = true;
    mailbox.changed.notify_all();
    mailbox.freed.notify_one();
}

/// Writes bytes piece by piece, none once `stopped`; whether all were written.
fn write(out: &mut File, mut bytes: &[u8], stopped: impl Fn() -> bool) -> io::Result<bool> {
    while !bytes.is_empty() {
        if stopped() {
            return Ok(false);
        }
        if !takes_bytes(out)? {
            continue;
        }
        match out.write(&bytes[..bytes.len().min(CHUNK)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            // Somebody with the same terminal may have made it one that does not wait.
            Err(error) if is_for_now(error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn is_for_now(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Whether a write would not wait for ever: a person may have halted the output. Waits a while for
/// it.
fn takes_bytes(out: &File) -> io::Result<bool> {
    let mut ends = [PollFd::new(out, PollFlags::OUT)];
    match poll(&mut ends, Some(&ASK)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
        // An end that is gone is told by the write.
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;

    use super::*;

    /// More than any pipe takes.
    const FRAME: usize = 4 << 20;

    fn writer() -> (Writer, PipeReader) {
        let (read, write) = io::pipe().unwrap();
        (
            Writer::start(File::from(OwnedFd::from(write))).unwrap(),
            read,
        )
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "never {what}");
            std::thread::yield_now();
        }
    }

    /// A writer that is inside a frame, with another one waiting.
    fn busy() -> (Writer, PipeReader) {
        let (writer, read) = writer();
        writer.put(vec![b'a'; FRAME]);
        until("writing", || writer.mailbox.state().writing);
        writer.put(vec![b'b'; FRAME]);
        (writer, read)
    }

    fn ends_with_leave(bytes: &[u8]) -> &[u8] {
        let rest = bytes
            .strip_suffix(modes::LEAVE)
            .expect("given back at the end");
        rest.strip_suffix(&[CANCEL])
            .expect("what was cut is cancelled")
    }

    #[test]
    fn a_panic_in_the_middle_of_a_frame_cuts_it_and_nothing_comes_after() {
        let (mut writer, mut read) = busy();
        let leaving = writer.leaving();
        let panics = std::thread::spawn(move || leaving.now(Duration::from_secs(60)));
        until("leaving", || writer.mailbox.state().leave.is_some());
        let reads = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).map(|_| bytes)
        });
        panics.join().unwrap();
        // As the console is dropped after the panic.
        writer.end(Duration::from_secs(60));
        drop(writer);
        let bytes = reads.join().unwrap().unwrap();
        let frame = ends_with_leave(&bytes);
        assert!(frame.len() < FRAME, "{} bytes", frame.len());
        assert!(frame.iter().all(|b| *b == b'a'));
    }

    #[test]
    fn a_terminal_that_takes_nothing_is_not_waited_for_and_gets_nothing_later() {
        let (mut read, write) = io::pipe().unwrap();
        let watch = write.try_clone().unwrap();
        let mut writer = Writer::start(File::from(OwnedFd::from(write))).unwrap();
        writer.put(vec![b'a'; FRAME]);
        until("full", || {
            let mut ends = [PollFd::new(&watch, PollFlags::OUT)];
            poll(&mut ends, Some(&Timespec::default())) == Ok(0)
        });
        drop(watch);
        let begun = Instant::now();
        writer.leaving().now(Duration::from_millis(100));
        writer.end(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let mut bytes = Vec::new();
        drop(writer);
        read.read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == b'a'), "nothing but the frame");
    }

    #[test]
    fn it_goes_on_after_it_gave_the_terminal_back() {
        let (mut writer, mut read) = writer();
        writer.put(b"one".to_vec());
        writer.drain(Duration::from_secs(60));
        writer.leaving().now(Duration::from_secs(60));
        writer.put(b"two".to_vec());
        writer.end(Duration::from_secs(60));
        drop(writer);
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [b"one", modes::LEAVE, b"two"].concat());
    }
}
