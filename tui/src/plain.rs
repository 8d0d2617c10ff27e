//! `--plain`: lines that are only ever appended, for screen readers, pipes and logs: events as they
//! come, and the state of the whole when it changes. No cursor movement, no colours, no glyphs
//! without their words.

use std::io::{self, Write};
use std::time::Duration;

use fleet_contract::projection::{Event, EventKey};
use fleet_contract::time::Time;
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

/// What was told already.
#[derive(Debug, Default)]
pub(crate) struct Told {
    event: Option<EventKey>,
    mark: Option<Time>,
    state: String,
    live: bool,
}

impl Told {
    /// The lines that are new in the model; the state only where `settled`.
    pub(crate) fn lines(&mut self, model: &Model, settled: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let live = model.phase() == Phase::Live;
        if live && !self.live {
            self.live = true;
            if self.event.is_none() {
                // What was there before is the state, not news.
                self.event = model.fleet.events().keys().next_back().copied();
                lines.push(format!(
                    "reading fleet {} is done",
                    text::escape(&model.name)
                ));
            }
        }
        if self.live {
            let from = self
                .event
                .map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            for (key, event) in model
                .fleet
                .events()
                .range((from, std::ops::Bound::Unbounded))
            {
                lines.push(event_line(model, event));
                self.event = Some(*key);
            }
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
    format!("{read_only}{state}")
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
    let mut told = Told::default();
    let mut settle = Some(Instant::now() + SETTLE);
    loop {
        let msg = tokio::select! {
            number = signals.next() => return Ok(Left::Signal(number)),
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
        match write(&lines) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Left::Quit),
            Err(error) => return Err(TuiError::Terminal(error)),
        }
    }
}

fn write(lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
