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
        "the next pane or part, then the next screen",
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
        "back: close what is open, then clear the filter; never leaves",
    )
    .short("back"),
    row(
        "view_before",
        &["["],
        Action::ViewBefore,
        Group::Move,
        "the view before this one",
    ),
    row(
        "view_after",
        &["]"],
        Action::ViewAfter,
        Group::Move,
        "the view after this one",
    ),
    row(
        "last_view",
        &["`"],
        Action::LastView,
        Group::Move,
        "the last view, and back again",
    ),
    row(
        "filter",
        &["/"],
        Action::Filter,
        Group::Find,
        "filter this list: words, and terms like state:failed m:forge age>10m",
    )
    .at(Place::List)
    .short("filter"),
    row(
        "next_match",
        &["n"],
        Action::NextMatch,
        Group::Find,
        "the next row that the last filter matches, or line that is found",
    ),
    row(
        "previous_match",
        &["N"],
        Action::PreviousMatch,
        Group::Find,
        "the row or line before it",
    ),
    row(
        "palette",
        &[":"],
        Action::Palette,
        Group::Find,
        "everything that can be done, by name",
    )
    .short("palette"),
    row(
        "help",
        &["?"],
        Action::Help,
        Group::Find,
        "the keys of this place; type to find one, Enter does it",
    )
    .short("keys"),
    row(
        "why",
        &["w"],
        Action::Why,
        Group::Find,
        "why the selected dispatch or machine is as it is",
    )
    .short("why"),
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
        "the output of the dispatch, at the time of the selected event",
    ),
    row(
        "jump_events",
        &["g e"],
        Action::JumpEvents,
        Group::Jump,
        "the events of what is selected, or of the line of output",
    ),
    row(
        "set_mark",
        &["m <char>"],
        Action::SetMark,
        Group::Jump,
        "call this place by a character",
    ),
    row(
        "go_mark",
        &["' <char>"],
        Action::GoMark,
        Group::Jump,
        "go to the place that was called so",
    ),
    row(
        "mark",
        &["Space"],
        Action::MarkRow,
        Group::Lists,
        "mark the row; what is yanked is of all marked ones",
    )
    .at(Place::List),
    row(
        "mark_all",
        &["*"],
        Action::MarkAll,
        Group::Lists,
        "mark every row that the filter lets through, or none",
    )
    .at(Place::List),
    row(
        "sort",
        &["s"],
        Action::Sort,
        Group::Lists,
        "put the rows in the order of the next column",
    )
    .at(Place::List),
    row(
        "sort_turned",
        &["S"],
        Action::SortTurned,
        Group::Lists,
        "turn the order round",
    )
    .at(Place::List),
    row(
        "columns",
        &["c"],
        Action::Columns,
        Group::Lists,
        "choose the columns",
    )
    .at(Place::List),
    row(
        "fold",
        &["z"],
        Action::Fold,
        Group::Lists,
        "fold what is routine among the events, or show all",
    )
    .at(Place::List),
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
        "pause",
        &["p"],
        Action::Pause,
        Group::Lists,
        "let the screen stand still, or go on",
    ),
    row(
        "mouse",
        &["M"],
        Action::Mouse,
        Group::Lists,
        "use the mouse here, or leave it to the terminal",
    ),
    row(
        "toggle",
        &["Space"],
        Action::Toggle,
        Group::Lists,
        "turn on or off what is pointed at",
    )
    .at(Place::Popup),
    row(
        "yank_id",
        &["y i"],
        Action::YankId,
        Group::Yank,
        "copy the id of what is selected",
    ),
    row(
        "yank_line",
        &["y l"],
        Action::YankLine,
        Group::Yank,
        "copy its line",
    ),
    row(
        "yank_json",
        &["y j"],
        Action::YankJson,
        Group::Yank,
        "copy it as JSON",
    ),
    row(
        "yank_command",
        &["y c"],
        Action::YankCommand,
        Group::Yank,
        "copy the command that shows the same",
    ),
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
    typing("accept", &["Enter"], Action::Accept, "take what was typed").short("take"),
    typing(
        "cancel",
        &["Esc"],
        Action::Cancel,
        "leave it: what stood before stands again",
    )
    .short("back"),
    typing("choose_up", &["Up"], Action::ChooseUp, "the row above"),
    typing(
        "choose_down",
        &["Down"],
        Action::ChooseDown,
        "the row below",
    ),
    typing(
        "erase_before",
        &["Backspace"],
        Action::EraseBefore,
        "remove the character before the cursor",
    ),
    typing(
        "erase_at",
        &["Delete"],
        Action::EraseAt,
        "remove the character at the cursor",
    ),
    typing(
        "cursor_left",
        &["Left"],
        Action::CursorLeft,
        "one character to the left",
    ),
    typing(
        "cursor_right",
        &["Right"],
        Action::CursorRight,
        "one character to the right",
    ),
    typing(
        "cursor_home",
        &["Home"],
        Action::CursorHome,
        "to the beginning",
    ),
    typing("cursor_end", &["End"], Action::CursorEnd, "to the end"),
    row(
        "search",
        &["/"],
        Action::Search,
        Group::Log,
        "look for a text in the output",
    )
    .at(Place::Log)
    .short("search"),
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
        "quit",
        &["q"],
        Action::Close,
        Group::Leave,
        "close what is open; leave the console where nothing is",
    )
    .short("quit"),
    row(
        "quit_now",
        &["Ctrl-c"],
        Action::Leave,
        Group::Leave,
        "leave the console; nothing else stops",
    )
    .at(Place::Always),
    row(
        "quit_keeping",
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

/// The lines that say something else where hub and agent run in the console's process.
pub(super) static WITH_HUB: &[Binding] = &[
    row(
        "quit",
        &["q"],
        Action::Close,
        Group::Leave,
        "close what is open; where nothing is, leave: ends this hub and agent",
    )
    .short("quit"),
    row(
        "quit_now",
        &["Ctrl-c"],
        Action::Leave,
        Group::Leave,
        "leave: ends this hub and agent, asks first while jobs run",
    )
    .at(Place::Always),
    row(
        "quit_keeping",
        &["Q"],
        Action::LeaveKeeping,
        Group::Leave,
        "leave and keep the last picture: ends this hub and agent",
    ),
    row(
        "suspend",
        &["Ctrl-z"],
        Action::Suspend,
        Group::Leave,
        "not here: hub and agent would stop (fleet up --detach, fleet tui)",
    )
    .at(Place::Always),
];

const fn typing(
    name: &'static str,
    keys: &'static [&'static str],
    action: Action,
    help: &'static str,
) -> Binding {
    row(name, keys, action, Group::Typing, help).at(Place::Input)
}

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
