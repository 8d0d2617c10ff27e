//! What the console shows and does, over a made-up fleet and a clock that stands still; and its
//! source on a real hub.

mod behaviour;
mod bus_screen;
mod bytes;
mod hand;
mod honest;
mod interaction;
mod keys;
mod leave;
mod outage;
mod recorded;
mod screens;
mod snapshots;
mod source;
mod topology;
mod words;

use std::time::Duration;

use fleet_contract::time::Time;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::demo::{self, Script};
use crate::model::{Gap, Model, Msg, Reader};
use crate::theme::Look;
use crate::update::update;
use crate::view;

const COLOUR: Look = Look {
    colour: true,
    ascii: false,
};
const MONO: Look = Look {
    colour: false,
    ascii: false,
};
const ASCII: Look = Look {
    colour: true,
    ascii: true,
};

/// When everything here happens: 2026-01-31T12:04:31Z.
fn now() -> Time {
    Time::from_micros(1_769_861_071_000_000)
}

fn later(seconds: u64) -> Time {
    now().plus(Duration::from_secs(seconds))
}

/// What can be the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    Live,
    Down,
    Silent,
    Empty,
    CatchingUp,
    Connecting,
    Slow,
    Gap,
    ReadOnly,
    Refused,
    Paused,
}

const SITUATIONS: [Situation; 11] = [
    Situation::Live,
    Situation::Down,
    Situation::Silent,
    Situation::Empty,
    Situation::CatchingUp,
    Situation::Connecting,
    Situation::Slow,
    Situation::Gap,
    Situation::ReadOnly,
    Situation::Refused,
    Situation::Paused,
];

const READERS: [Reader; 3] = [Reader::Journal, Reader::Presence, Reader::Flow];

fn blank(look: Look) -> Model {
    Model::new(
        now(),
        TimeZone::UTC,
        "home".to_owned(),
        "nats://anvil:4222".to_owned(),
        look,
    )
}

fn link(up: bool) -> Msg {
    Msg::Link {
        up,
        error: (!up).then(|| "connection refused".to_owned()),
        slow_drops: 0,
    }
}

fn model(situation: Situation, look: Look) -> Model {
    let mut model = blank(look);
    if situation == Situation::Connecting {
        return model;
    }
    let mut msgs = vec![link(true)];
    msgs.extend(READERS.map(Msg::Opened));
    if situation != Situation::Empty {
        msgs.push(Msg::Facts {
            reader: Reader::Journal,
            facts: demo::facts(&mut Script::default(), now()),
            left: if situation == Situation::CatchingUp {
                1736
            } else {
                0
            },
        });
    }
    if situation != Situation::CatchingUp {
        msgs.extend(READERS.map(Msg::CaughtUp));
    }
    let journal_seq = model.fleet.journal_seq();
    msgs.push(Msg::Probe {
        rtt: Duration::from_micros(640),
        journal_seq,
    });
    for msg in msgs {
        update(&mut model, now(), msg);
    }
    match situation {
        Situation::Down => {
            update(&mut model, later(1), link(false));
            update(&mut model, later(13), Msg::Tick);
        }
        Situation::Silent => drop(update(&mut model, later(9), Msg::Tick)),
        Situation::Slow => {
            let mut script = Script::default();
            let beat = script.beat(now(), demo::presence("forge", 4, 1, 8, 32));
            let msg = Msg::Facts {
                reader: Reader::Flow,
                facts: vec![beat],
                left: 12_040,
            };
            update(&mut model, later(5), msg);
        }
        Situation::Gap => {
            let gap = Gap {
                reader: Reader::Flow,
                first: 88_100,
                last: 88_911,
                count: 812,
            };
            update(&mut model, later(1), Msg::Gap(gap));
        }
        Situation::ReadOnly => model.link.read_only = true,
        Situation::Refused => {
            let why = "the hub refuses these credentials (ana)".to_owned();
            update(&mut model, later(1), link(false));
            update(&mut model, later(1), Msg::Hopeless(why));
        }
        Situation::Paused => {
            let p = crossterm::event::KeyCode::Char('p');
            let key = crossterm::event::KeyEvent::from(p);
            update(&mut model, now(), Msg::Key(key));
            let journal_seq = model.live().journal_seq();
            let rtt = Duration::from_micros(640);
            update(&mut model, later(9), Msg::Probe { rtt, journal_seq });
        }
        _ => {}
    }
    model
}

fn draw(model: &Model, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    view::draw(model, area, &mut buffer);
    buffer
}

fn row(buffer: &Buffer, y: u16) -> String {
    let row: String = (0..buffer.area.width)
        .map(|x| buffer[(x, y)].symbol())
        .collect();
    row.trim_end().to_owned()
}

fn text(buffer: &Buffer) -> String {
    let rows: Vec<String> = (0..buffer.area.height).map(|y| row(buffer, y)).collect();
    rows.join("\n")
}
