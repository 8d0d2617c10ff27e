//! Ctrl-C and TERM as events. From the first listener on, the signal no longer ends the process
//! by itself, so the listener is kept for as long as it matters.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

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

/// Ctrl-C, TERM or HUP: what asks a service to stop. A tethered service also stops when its
/// standard input ends, which it does with the process that started it, however that ends.
pub(crate) struct Stops {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    tether: Option<oneshot::Receiver<()>>,
}

impl Stops {
    /// Listens from now on.
    pub(crate) fn new(tethered: bool) -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: signal(SignalKind::hangup()).ok(),
            tether: tethered.then(tether).flatten(),
        }
    }

    /// The next of them. Safe to drop and call again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
            () = next(&mut self.hangup) => {}
            () = ended(&mut self.tether) => {}
        }
    }
}

/// A thread that reads standard input to its end; it ends with the process.
fn tether() -> Option<oneshot::Receiver<()>> {
    let (held, ended) = oneshot::channel();
    let reader = std::thread::Builder::new().name("fleet-tether".to_owned());
    let reader = reader.spawn(move || {
        let _held = held;
        // An input that cannot be read has ended, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    });
    reader.ok().map(|_| ended)
}

async fn ended(tether: &mut Option<oneshot::Receiver<()>>) {
    match tether {
        Some(ended) => {
            // Nothing is ever sent: this returns when the thread has ended.
            let _ = ended.await;
            *tether = None;
        }
        None => std::future::pending().await,
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
