//! The table of all bindings: the lookup, the footer, the help, the documents and the checks are
//! made from it. A key may be a sequence, `g m`, whose last part may be a free character.
//!
//! Kept free: the prefix `a` for acting on jobs, and for time travel `t` `,` `.` `<` `>` `{` `}`,
//! `u`, `y u` and key `5`. No single key will ever change anything but what is shown.

use super::Binding;
use super::action::{Action, Group, Place};
use crate::model::Screen;

/// The table.
pub(crate) static KEYMAP: &[Binding] = &[
    screen(
        "screen_fleet",
        &["1"],
        Screen::Fleet,
        "Fleet: machines, dispatches and events",
    ),
    screen(
        "screen_dispatches",
        &["2"],
        Screen::Dispatches,
        "Dispatches: every job, worst first",
    ),
    screen(
        "screen_machines",
        &["3"],
        Screen::Machines,
        "Machines: every machine, worst first",
    ),
    screen(
        "screen_events",
        &["4"],
        Screen::Events,
        "Events: what happened, newest first",
    ),
    screen(
        "screen_bus",
        &["6"],
        Screen::Bus,
        "Bus: the hub, its streams, lag and losses",
    ),
    screen(
        "screen_inbox",
        &["!"],
        Screen::Inbox,
        "Inbox: what needs a person, failed or is lost",
    ),
    row("up", &["Up", "k"], Action::Up, Group::Move, "the row above"),
    row(
        "down",
        &["Down", "j"],
        Action::Down,
        Group::Move,
        "the row below",
    )
    .short("move"),
    row(
        "page_up",
        &["PageUp"],
        Action::PageUp,
        Group::Move,
        "a page up",
    ),
    row(
        "page_down",
        &["PageDown"],
        Action::PageDown,
        Group::Move,
        "a page down",
    ),
    row(
        "first",
        &["Home", "g g"],
        Action::First,
        Group::Move,
        "the first row",
    ),
    row(
        "last",
        &["End", "G"],
        Action::Last,
        Group::Move,
        "the last row",
    ),
    row(
        "next",
        &["Tab"],
        Action::Next,
        Group::Move,
        "the next pane, after the last one the next screen",
    )
    .short("next"),
    row(
        "previous",
        &["Shift-Tab"],
        Action::Previous,
        Group::Move,
        "the pane or screen before",
    ),
    row(
        "open",
        &["Enter"],
        Action::Open,
        Group::Move,
        "open what is selected: a dispatch with its output, or a machine",
    )
    .short("open"),
    row(
        "back",
        &["Esc"],
        Action::Back,
        Group::Move,
        "back; never leaves the console",
    )
    .short("back"),
    row(
        "help",
        &["?"],
        Action::Help,
        Group::Find,
        "the keys of this place",
    )
    .short("keys"),
    row(
        "why",
        &["w"],
        Action::Why,
        Group::Find,
        "why the selected dispatch or machine is as it is",
    ),
    row(
        "jump_machine",
        &["g m"],
        Action::JumpMachine,
        Group::Jump,
        "the machine of what is selected",
    ),
    row(
        "jump_dispatch",
        &["g d"],
        Action::JumpDispatch,
        Group::Jump,
        "the dispatch of what is selected",
    ),
    row(
        "jump_log",
        &["g l"],
        Action::JumpLog,
        Group::Jump,
        "the output of the selected dispatch",
    ),
    row(
        "follow",
        &["f"],
        Action::Follow,
        Group::Lists,
        "follow what is new: the output's end, the newest event",
    )
    .short("follow"),
    row(
        "cell_left",
        &["Left", "h"],
        Action::CellLeft,
        Group::Move,
        "the machine to the left, where the fleet is drawn",
    )
    .at(Place::List),
    row(
        "cell_right",
        &["Right", "l"],
        Action::CellRight,
        Group::Move,
        "the machine to the right, where the fleet is drawn",
    )
    .at(Place::List),
    row(
        "zoom_in",
        &["+"],
        Action::ZoomIn,
        Group::Move,
        "the fleet nearer: more of each machine",
    )
    .at(Place::List),
    row(
        "zoom_out",
        &["-"],
        Action::ZoomOut,
        Group::Move,
        "the fleet from farther away: more machines",
    )
    .at(Place::List),
    row(
        "zoom_fit",
        &["="],
        Action::ZoomFit,
        Group::Move,
        "the fleet as near as all machines fit",
    )
    .at(Place::List),
    row(
        "left",
        &["Left", "h"],
        Action::Left,
        Group::Log,
        "long lines: to the left",
    )
    .at(Place::Log),
    row(
        "right",
        &["Right", "l"],
        Action::Right,
        Group::Log,
        "long lines: to the right",
    )
    .at(Place::Log),
    row(
        "wrap",
        &["W"],
        Action::Wrap,
        Group::Log,
        "break long lines at the edge, or no longer",
    )
    .at(Place::Log),
    row(
        "times",
        &["T"],
        Action::Times,
        Group::Log,
        "the time of each line, or no longer",
    )
    .at(Place::Log),
    row(
        "close",
        &["q"],
        Action::Close,
        Group::Leave,
        "close what is open; leave the console where nothing is",
    )
    .short("quit"),
    row(
        "leave",
        &["Ctrl-c"],
        Action::Leave,
        Group::Leave,
        "leave the console; nothing else stops",
    )
    .at(Place::Always),
    row(
        "leave_keeping",
        &["Q"],
        Action::LeaveKeeping,
        Group::Leave,
        "leave the console and keep its last picture on the screen",
    ),
    row(
        "suspend",
        &["Ctrl-z"],
        Action::Suspend,
        Group::Leave,
        "give the terminal to the shell; fg comes back",
    )
    .at(Place::Always),
];

const fn row(
    name: &'static str,
    keys: &'static [&'static str],
    action: Action,
    group: Group,
    help: &'static str,
) -> Binding {
    Binding {
        name,
        keys,
        action,
        place: Place::Anywhere,
        group,
        help,
        short: "",
    }
}

const fn screen(
    name: &'static str,
    keys: &'static [&'static str],
    screen: Screen,
    help: &'static str,
) -> Binding {
    row(name, keys, Action::Screen(screen), Group::Screens, help)
}

impl Binding {
    const fn short(mut self, short: &'static str) -> Self {
        self.short = short;
        self
    }

    const fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }
}
