//! Where the log goes: standard error, except while the console has the terminal. Then it is held,
//! bounded, and written when the console has left.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Most that is held, in bytes.
const HELD_MAX: usize = 64 * 1024;

/// What is held; none while nothing is.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    dropped: usize,
}

/// Holds the log until it is dropped.
pub(crate) struct Hold(());

impl Hold {
    /// Begins to hold it.
    pub(crate) fn begin() -> Self {
        HELD.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default();
        Self(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
        let held = held.unwrap_or_default();
        let mut out = io::stderr();
        // What nobody can read is lost in any case.
        let _ = out.write_all(&held.bytes);
        if held.dropped > 0 {
            let _ = writeln!(
                out,
                "fleet: {} more bytes of log were dropped",
                held.dropped
            );
        }
    }
}

/// What the log is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remarks;

impl Write for Remarks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return io::stderr().write(bytes),
            Some(held) if held.bytes.len() + bytes.len() <= HELD_MAX => {
                held.bytes.extend_from_slice(bytes);
            }
            Some(held) => held.dropped += bytes.len(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
