//! Everything that wakes an engine: its children, its tasks, its deadlines on both clocks.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ExecutorError;
use super::boot::boot_now;
use super::engine::{Engine, Input};
use super::platform::BootTimer;

/// What woke the engine.
pub(crate) enum Wake {
    Child,
    Input(Input),
    Deadline,
    Fence,
}

/// The sources of [`Wake`].
pub(crate) struct Wakeups {
    child: Signal,
    inputs: mpsc::UnboundedReceiver<Input>,
    boot: BootTimer,
}

impl Wakeups {
    /// Listens from now on; the sender is the engine's.
    ///
    /// The channel has no bound of its own: each attempt sends one message.
    pub(crate) fn new() -> Result<(Self, mpsc::UnboundedSender<Input>), ExecutorError> {
        let system = |what| move |error| ExecutorError::System { what, error };
        let (sender, inputs) = mpsc::unbounded_channel();
        let wakeups = Self {
            child: signal(SignalKind::child()).map_err(system("listen for ended children"))?,
            inputs,
            boot: BootTimer::new().map_err(system("make a timer"))?,
        };
        Ok((wakeups, sender))
    }

    /// Waits for the next one. Nothing is lost when it is dropped before that.
    pub(crate) async fn next(&mut self, engine: &Engine) -> Wake {
        let deadline = engine.deadline();
        let at = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            _ = self.child.recv() => Wake::Child,
            Some(input) = self.inputs.recv() => Wake::Input(input),
            () = tokio::time::sleep_until(at), if deadline.is_some() => Wake::Deadline,
            () = self.boot.until(engine.fence_deadline()) => Wake::Fence,
        }
    }
}

impl Wake {
    /// Lets the engine act on it.
    pub(crate) fn apply(self, engine: &mut Engine) {
        match self {
            Self::Child => engine.look(),
            Self::Input(input) => engine.input(input),
            Self::Deadline => engine.tick(Instant::now()),
            // The clock is asked anew: the timer only says that it may be time.
            Self::Fence => engine.fence(boot_now()),
        }
    }
}
