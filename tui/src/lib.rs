//! The console: the whole fleet, live, in a terminal.
//!
//! One way through: a source brings messages, `update` folds them into the model, `view` draws the
//! model, widgets make the cells. Only the loop waits, only the source knows the bus, only the
//! terminal knows the terminal, and nothing but loop and source reads the one clock (`clock`).

mod app;
mod bus;
mod clock;
mod columns;
#[cfg(any(test, feature = "demo"))]
pub mod demo;
mod drawn;
mod filter;
mod inbox;
mod input;
mod keymap;
mod leave;
mod link;
mod lists;
mod log;
mod model;
mod own;
mod palette;
mod plain;
mod source;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod topology;
mod trail;
mod ui;
mod update;
mod view;
mod widget;
mod yank;

use std::time::Duration;

use fleet_nats::connect::{ConnectError, ConnectOptions};
use fleet_nats::hub::Permission;
use jiff::tz::TimeZone;

use crate::clock::Clock;
pub use crate::keymap::rebind::{Keys, KeysError};
use crate::model::Model;
use crate::source::Source;
use crate::theme::Look;

/// What to show, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who looks, and where the hub is. The console waits for the hub for ever.
    pub connect: ConnectOptions,
    /// What the fleet is called, in the header; empty for the hub's address.
    pub name: String,
    /// How it looks.
    pub style: ConsoleStyle,
    /// Its keys.
    pub keys: Keys,
    /// Whether hub and agent run in this process and end with the console: then it is not
    /// suspended, and asks before it is left while jobs run.
    pub with_hub: bool,
}

/// How the console looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleStyle {
    /// Whether colours are set. The caller decides about `NO_COLOR`.
    pub colour: bool,
    /// Whether only ASCII is written, for terminals that show `●` in two cells or not at all.
    pub ascii: bool,
    /// Append-only lines instead of a screen; needs no terminal.
    pub plain: bool,
    /// How much moves by itself.
    pub motion: Motion,
    /// Whether the console takes the mouse; without it the terminal selects text.
    pub mouse: bool,
}

/// How much moves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Motion {
    /// Nothing.
    Still,
    /// Little: for a terminal that is far away.
    Calm,
    /// All.
    #[default]
    Full,
}

impl Motion {
    /// The time between two steps of what moves; none where nothing does.
    #[must_use]
    pub fn period(self) -> Option<Duration> {
        match self {
            Self::Still => None,
            Self::Calm => Some(Duration::from_millis(500)),
            Self::Full => Some(Duration::from_millis(200)),
        }
    }
}

/// How the console was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The person left it, or nobody reads its lines any more.
    Quit,
    /// This signal ended it.
    Signal(i32),
}

/// Why there is no console, or none any more. The terminal is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Addresses or credentials that can never work.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No terminal, or one that went away.
    #[error("the console cannot use the terminal: {0}")]
    Terminal(#[source] std::io::Error),
    /// The reader of the bus ended by itself: a defect of fleet.
    #[error("the console's reader of the bus ended by itself")]
    Source,
}

/// Shows the console until the person leaves it or a signal ends it. The terminal is given back as
/// it was, also where this future is dropped.
///
/// # Errors
/// [`TuiError`]. That the hub is away is none: it is shown.
pub async fn run(options: Options) -> Result<Left, TuiError> {
    let clock = Clock::start();
    let source = Source::open(&options.connect, clock).await?;
    let hubs = match options.connect.urls.as_slice() {
        [] => options.connect.credentials.hubs(),
        urls => urls,
    };
    let look = Look {
        colour: options.style.colour,
        ascii: options.style.ascii,
    };
    let hub = text::escape(&hubs.join(", ")).into_owned();
    // The frame says which fleet this is, by its address where it has no name.
    let name = match options.name.as_str() {
        "" => hubs
            .first()
            .map_or("", |url| url.trim_start_matches("nats://")),
        name => name,
    };
    let name = name.to_owned();
    let mut model = Model::new(clock.now(), TimeZone::system(), name, hub, look);
    model.motion = options.style.motion;
    model.ui.keymap = options.keys.map;
    model.ui.mouse = options.style.mouse;
    if options.with_hub {
        model.ui.with_hub();
    }
    model.link.read_only = options.connect.credentials.permission() == Permission::Viewer;
    if options.style.plain {
        plain::drive(model, source, clock).await
    } else {
        app::drive(model, source, clock, options.style.mouse).await
    }
}
