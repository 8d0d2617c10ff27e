//! What keys can do, and where. None of it changes anything but what is shown.

use crate::model::Screen;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Leave at once.
    Leave,
    /// Close what is open, and leave where nothing is.
    Close,
    /// Leave, with the last frame kept on the normal screen.
    LeaveKeeping,
    /// Let the shell have the terminal until it lets us go on.
    Suspend,
    Screen(Screen),
    Next,
    Previous,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Left,
    Right,
    /// The machine to the left, and to the right, where the fleet is drawn.
    CellLeft,
    CellRight,
    /// The fleet drawn nearer, farther, and as fits.
    ZoomIn,
    ZoomOut,
    ZoomFit,
    Open,
    Back,
    Follow,
    /// Break long lines of output, or no longer.
    Wrap,
    /// Show the time of each line of output, or no longer.
    Times,
    /// Keys of this place.
    Help,
    /// Everything by name.
    Palette,
    Filter,
    /// Look for a text in the output.
    Search,
    NextMatch,
    PreviousMatch,
    Why,
    /// The view before in the history, the one after it, and the last one.
    ViewBefore,
    ViewAfter,
    LastView,
    /// The machine of what is selected.
    JumpMachine,
    /// The dispatch of what is selected.
    JumpDispatch,
    /// The output of the selected dispatch.
    JumpLog,
    /// The events of what is selected.
    JumpEvents,
    /// Call this place by a character, and go there.
    SetMark,
    GoMark,
    /// Mark the selected row, or all.
    MarkRow,
    MarkAll,
    Sort,
    SortTurned,
    Columns,
    /// Turn on or off what is pointed at.
    Toggle,
    Fold,
    Pause,
    YankId,
    YankLine,
    YankJson,
    YankCommand,
    /// Whether the mouse is captured.
    Mouse,
    /// While text is typed.
    Accept,
    Cancel,
    ChooseUp,
    ChooseDown,
    EraseBefore,
    EraseAt,
    CursorLeft,
    CursorRight,
    CursorHome,
    CursorEnd,
}

/// Where a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everywhere, also while text is typed.
    Always,
    /// Everywhere but where text is typed.
    Anywhere,
    /// In a list.
    List,
    /// In a job's detail with its output.
    Log,
    /// In a machine's detail.
    Machine,
    /// In a popup.
    Popup,
    /// Where text is typed.
    Input,
}

impl Place {
    /// Whether a binding of this place holds where the person is.
    pub(crate) fn holds(self, here: Self) -> bool {
        match self {
            Self::Always => true,
            Self::Anywhere => here != Self::Input,
            place => place == here,
        }
    }

    /// Whether there is a place where bindings of both hold.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.holds(other) || other.holds(self)
    }

    /// In words, for the help; nothing where it holds everywhere.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Always | Self::Anywhere => "",
            Self::List => "in a list",
            Self::Log => "in a dispatch",
            Self::Machine => "in a machine",
            Self::Popup => "in a popup",
            Self::Input => "while typing",
        }
    }
}

/// What a binding is for: how the help and the documents order them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Screens,
    Move,
    Find,
    Jump,
    Lists,
    Yank,
    Log,
    Typing,
    Leave,
}

impl Group {
    /// All, in the order in which they are shown.
    pub(crate) const ALL: [Self; 9] = [
        Self::Screens,
        Self::Move,
        Self::Find,
        Self::Jump,
        Self::Lists,
        Self::Yank,
        Self::Log,
        Self::Typing,
        Self::Leave,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Screens => "Screens",
            Self::Move => "Move",
            Self::Find => "Find",
            Self::Jump => "Jump",
            Self::Lists => "Lists",
            Self::Yank => "Yank",
            Self::Log => "Output",
            Self::Typing => "Typing",
            Self::Leave => "Leave",
        }
    }
}
