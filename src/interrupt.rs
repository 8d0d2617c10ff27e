//! Ctrl-C and TERM as events. From the first listener on, the signal no longer ends the process
//! by itself, so the listener is kept for as long as it matters.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C.
pub(crate) struct Interrupts(Option<Signal>);

impl Interrupts {
    /// Listens from now on. Where that cannot be had, the signal ends the process as ever.
    pub(crate) fn new() -> Self {
        Self(signal(SignalKind::interrupt()).ok())
    }

    /// The next Ctrl-C. Safe to drop and call again.
    pub(crate) async fn next(&mut self) {
        next(&mut self.0).await;
    }
}

/// Ctrl-C, TERM or HUP: what asks a service to stop.
pub(crate) struct Stops {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Stops {
    /// Listens from now on.
    pub(crate) fn new() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: signal(SignalKind::hangup()).ok(),
        }
    }

    /// The next of them. Safe to drop and call again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
            () = next(&mut self.hangup) => {}
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}
