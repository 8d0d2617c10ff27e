//! `--plain`: lines that are only ever appended, for screen readers, pipes and logs: events as they
//! come, and the state of the whole when it changes. No cursor movement, no colours, no glyphs
//! without their words.

use std::io::{self, Write};
use std::time::Duration;

use fleet_contract::projection::{Event, EventKey};
use fleet_contract::time::Time;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::app::Signals;
use crate::clock::Clock;
use crate::model::{Model, Phase};
use crate::source::Source;
use crate::text;
use crate::update::update;
use crate::view::{clock, counts};
use crate::{Left, TuiError};

/// The state is told again this long after it changed: counts that flicker are one line.
const SETTLE: Duration = Duration::from_millis(500);

/// How long leaving waits for whoever reads the lines.
const PATIENCE: Duration = Duration::from_millis(500);

/// The events that were told: two readers bring them, so a later one may stand before one that was
/// told. Within its stream it never does.
#[derive(Debug, Default)]
struct Events {
    /// As many were counted by then.
    counted: u64,
    /// The last sequence of each stream.
    journal: u64,
    flow: u64,
}

impl Events {
    fn last(&mut self, key: &EventKey) -> &mut u64 {
        if key.of_journal {
            &mut self.journal
        } else {
            &mut self.flow
        }
    }

    /// Those that came since it was asked last, in their order, and how many that came are kept no
    /// more.
    fn take<'a>(&mut self, model: &'a Model) -> (Vec<&'a Event>, u64) {
        let counted = model.fleet.counters().events;
        let came = counted.saturating_sub(self.counted);
        self.counted = counted;
        let mut new = Vec::new();
        for (key, event) in model.fleet.events().iter().rev() {
            if new.len() as u64 == came {
                break;
            }
            if key.seq > *self.last(key) {
                new.push((key, event));
            }
        }
        new.reverse();
        for (key, _) in &new {
            let last = self.last(key);
            *last = key.seq.max(*last);
        }
        let missed = came - new.len() as u64;
        (new.into_iter().map(|(_, event)| event).collect(), missed)
    }
}

/// What was told already.
#[derive(Debug, Default)]
pub(crate) struct Told {
    events: Events,
    mark: Option<Time>,
    state: String,
    live: bool,
}

impl Told {
    /// The lines that are new in the model; the state only where `settled`.
    pub(crate) fn lines(&mut self, model: &Model, settled: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if model.fleet.counters().events < self.events.counted {
            // Another store: what is in it already is its state.
            (self.events, self.live) = (Events::default(), false);
        }
        let live = model.phase() == Phase::Live;
        if live && !self.live {
            self.live = true;
            // What was there before is the state, not news.
            self.events.take(model);
            lines.push(format!(
                "reading fleet {} is done",
                text::escape(&model.name)
            ));
        }
        if self.live {
            let (events, missed) = self.events.take(model);
            if missed > 0 {
                let missed = text::thousands(missed);
                lines.push(format!(
                    "{missed} events came and are not told: more than are kept"
                ));
            }
            lines.extend(events.into_iter().map(|event| event_line(model, event)));
        }
        let after = self
            .mark
            .map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        for (at, mark) in model.marks.range((after, std::ops::Bound::Unbounded)) {
            lines.push(format!("{} {mark}", clock(*at, &model.zone)));
            self.mark = Some(*at);
        }
        let state = state(model);
        if settled && state != self.state {
            lines.push(format!("{} {state}", clock(model.now, &model.zone)));
            self.state = state;
        }
        lines
    }
}

fn event_line(model: &Model, event: &Event) -> String {
    let job = event.job.map(|id| {
        let title = model.fleet.job(id).map(|j| j.spec.title());
        format!(" job {id} {}", title.unwrap_or_default())
    });
    let machine = event.machine.as_ref().map(|m| format!(" on {m}"));
    let line = format!(
        "{} {}{}{} {}",
        clock(event.time, &model.zone),
        event.word,
        job.unwrap_or_default(),
        machine.unwrap_or_default(),
        event.text
    );
    text::escape(line.trim_end()).into_owned()
}

/// The state without what changes every second.
fn state(model: &Model) -> String {
    let counts = counts(model);
    let as_of = clock(model.link.as_of, &model.zone);
    let state = match model.phase() {
        Phase::Live => format!("live: {counts}"),
        Phase::Slow { .. } => format!("slow, more comes than can be read: {counts}"),
        Phase::CatchingUp { .. } => "catching up".to_owned(),
        Phase::Connecting => format!("connecting to {}", model.hub),
        Phase::Down => format!("bus down, last known as of {as_of}: {counts}"),
        Phase::Silent => {
            format!("no answer from the hub, last known as of {as_of}: {counts}")
        }
    };
    let read_only = if model.link.read_only {
        "read-only, "
    } else {
        ""
    };
    // As long as they are refused, nothing else will change.
    let hopeless = model.link.hopeless.as_ref();
    let hopeless = hopeless.map_or_else(String::new, |why| format!("{}: ", text::escape(why)));
    format!("{read_only}{hopeless}{state}")
}

/// Writes lines until a signal comes or nobody reads them any more.
///
/// # Errors
/// Where they cannot be written.
pub(crate) async fn drive(
    mut model: Model,
    mut source: Source,
    clock: Clock,
) -> Result<Left, TuiError> {
    let mut signals = Signals::listen().map_err(TuiError::Terminal)?;
    let mut out = Lines::start(io::stdout()).map_err(TuiError::Terminal)?;
    let mut told = Told::default();
    let mut settle = Some(Instant::now() + SETTLE);
    loop {
        let msg = tokio::select! {
            number = signals.next() => {
                out.end().await;
                return Ok(Left::Signal(number));
            }
            msg = source.msgs.recv() => msg.ok_or(TuiError::Source)?,
            () = tokio::time::sleep_until(settle.unwrap_or_else(Instant::now)), if settle.is_some() => {
                settle = None;
                crate::model::Msg::Tick
            }
        };
        let settled = matches!(msg, crate::model::Msg::Tick);
        // Nothing here asks for anything.
        let _ = update(&mut model, clock.now(), msg);
        let lines = told.lines(&model, settled);
        if !settled {
            settle.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        let put = tokio::select! {
            number = signals.next() => return Ok(Left::Signal(number)),
            put = out.put(lines) => put,
        };
        match put {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Left::Quit),
            Err(error) => return Err(TuiError::Terminal(error)),
        }
    }
}

/// Where lines go: a thread, because whoever reads them may stop doing so, and that is no reason
/// not to end.
struct Lines {
    send: mpsc::Sender<Vec<String>>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (send, lines) = mpsc::channel(1);
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("fleet-tui-lines".to_owned())
            .spawn(move || {
                // The console may have left already.
                let _ = tell.send(write(out, lines));
            })?;
        Ok(Self { send, ended })
    }

    /// Writes lines behind those before; waits until they have a place.
    async fn put(&mut self, lines: Vec<String>) -> io::Result<()> {
        if lines.is_empty() || self.send.send(lines).await.is_ok() {
            return Ok(());
        }
        match (&mut self.ended).await {
            Ok(Err(error)) => Err(error),
            // It ends by itself only with an error.
            Ok(Ok(())) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until all is written, where somebody reads it.
    async fn end(self) {
        drop(self.send);
        let _ = tokio::time::timeout(PATIENCE, self.ended).await;
    }
}

fn write(mut out: impl Write, mut lines: mpsc::Receiver<Vec<String>>) -> io::Result<()> {
    while let Some(lines) = lines.blocking_recv() {
        let mut text = lines.join("\n");
        text.push('\n');
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn whoever_stops_reading_holds_nobody_up_and_whoever_is_gone_is_told() {
        let (mut read, write) = io::pipe().unwrap();
        let mut out = Lines::start(write).unwrap();
        let long = "x".repeat(1 << 20);
        // One is being written, one waits, and the next has no place.
        out.put(vec![long.clone()]).await.unwrap();
        out.put(vec![long.clone()]).await.unwrap();
        let put = out.put(vec![long.clone()]);
        let waits = tokio::time::timeout(Duration::from_millis(50), put).await;
        assert!(waits.is_err());
        let reads = std::thread::spawn(move || {
            let mut seen = vec![0; 2 << 20];
            read.read_exact(&mut seen).unwrap();
        });
        // Its end is gone with the thread.
        let gone = async {
            loop {
                if let Err(error) = out.put(vec![long.clone()]).await {
                    break error;
                }
            }
        };
        assert_eq!(gone.await.kind(), io::ErrorKind::BrokenPipe);
        reads.join().unwrap();
    }
}
