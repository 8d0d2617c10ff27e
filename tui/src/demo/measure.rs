//! The console without a terminal and without a bus, for whoever measures what it costs.

use std::time::Duration;

use fleet_contract::ids::{JobId, Writer};
use fleet_contract::machine::Presence;
use fleet_contract::projection::Fact;
use fleet_contract::record::Record;
use fleet_contract::time::Time;
use jiff::tz::TimeZone;

use super::{Many, READERS, Script};
use crate::model::{Model, Msg, Reader};
use crate::terminal::Canvas;
use crate::theme::Look;
use crate::update::update;
use crate::view;

/// A console over a made-up fleet.
pub struct Desk {
    model: Model,
    canvas: Canvas,
    many: Many,
    now: Time,
}

impl Desk {
    /// One that is live, of so many machines, on a terminal of this size.
    ///
    /// # Errors
    /// None that is known of.
    pub fn of(machines: usize, size: (u16, u16), now: Time) -> std::io::Result<Self> {
        crossterm::style::force_color_output(true);
        let look = Look {
            colour: true,
            ascii: false,
        };
        let zone = TimeZone::UTC;
        let hub = "nats://anvil:4222".to_owned();
        let mut desk = Self {
            model: Model::new(now, zone, "home".to_owned(), hub, look),
            canvas: Canvas::new(size)?,
            many: Many::new(machines, 7),
            now,
        };
        desk.take(Msg::Link {
            up: true,
            error: None,
            slow_drops: 0,
        });
        desk.take(Msg::Resize(size.0, size.1));
        let history = desk.many.history(now);
        desk.fold(history);
        for reader in READERS {
            desk.take(Msg::CaughtUp(reader));
        }
        Ok(desk)
    }

    fn take(&mut self, msg: Msg) {
        let _ = update(&mut self.model, self.now, msg);
    }

    /// Draws; how many bytes that takes.
    ///
    /// # Errors
    /// None that is known of.
    pub fn frame(&mut self) -> std::io::Result<usize> {
        let model = &self.model;
        let draw = |frame: &mut ratatui::Frame<'_>| {
            view::draw(model, frame.area(), frame.buffer_mut());
        };
        Ok(self.canvas.draw(draw)?.len())
    }

    /// A key.
    pub fn key(&mut self, key: char) {
        let code = crossterm::event::KeyCode::Char(key);
        let none = crossterm::event::KeyModifiers::NONE;
        self.take(Msg::Key(crossterm::event::KeyEvent::new(code, none)));
    }

    /// Time passes until the next step of what moves; whether anything does.
    pub fn step(&mut self) -> bool {
        let Some(next) = view::next_motion(&self.model) else {
            return false;
        };
        self.now = self.now.plus(next);
        self.take(Msg::Tick);
        true
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.take(Msg::Tick);
    }

    /// What the fleet tells in the next second; nothing is folded yet.
    pub fn second(&mut self) -> Vec<Fact> {
        self.now = self.now.plus(Duration::from_secs(1));
        self.many.second(self.now)
    }

    /// Folds what was told.
    pub fn fold(&mut self, facts: Vec<Fact>) {
        self.take(Msg::Facts {
            reader: Reader::Journal,
            facts,
            left: 0,
        });
    }

    /// Jobs and events that are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (
            self.model.fleet.jobs().len(),
            self.model.fleet.events().len(),
        )
    }
}

/// The records of jobs that were dispatched, claimed and have ended, for a real journal.
#[must_use]
pub fn records(jobs: u32, now: Time) -> Vec<(JobId, Writer, Time, Record)> {
    let mut script = Script::default();
    let mut all = Vec::new();
    for n in 1000..1000 + jobs {
        all.extend(script.dispatch(n, now, &format!("job-{n}"), "make test", ""));
        all.extend(script.claim(n, now, "forge"));
        all.extend(script.exit(n, now, 0));
    }
    let records = all.into_iter().filter_map(|fact| match fact {
        Fact::Record(fact) => Some((fact.job, fact.writer, fact.time, fact.record.ok()?)),
        _ => None,
    });
    records.collect()
}

/// What a machine says.
#[must_use]
pub fn presence(name: &str) -> Presence {
    super::presence(name, 4, 1, 8, 32)
}
