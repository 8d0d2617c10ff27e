//! What can be chosen by typing: the actions of a place with their keys, and verbs that take a
//! name. Pure: the palette and the help draw it, and what is chosen of it is done.

use fleet_contract::ids::{JobId, MachineId};

use crate::filter::Sieve;
use crate::keymap::{Action, Bound, Group, Place};
use crate::model::{Model, Pane, Screen};
use crate::ui::Popup;

/// What choosing something does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Run {
    Action(Action),
    Dispatch(JobId),
    Machine(MachineId),
    Filter(String),
    /// A verb that wants more: this is typed for the person.
    Type(String),
    /// It only says something.
    Nothing,
}

/// Something to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its keys as people read them.
    pub(crate) keys: String,
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) help: String,
    /// What it is for, in the help.
    pub(crate) group: Option<Group>,
    /// What choosing it does.
    pub(crate) run: Run,
}

/// Verbs, what they take, and what they do.
const VERBS: [(&str, &str, &str); 3] = [
    (
        "dispatch",
        "ID",
        "open a dispatch by the beginning of its id",
    ),
    (
        "machine",
        "NAME",
        "open a machine by the beginning of its name",
    ),
    ("filter", "TERMS", "filter this list"),
];

/// What can be chosen now, best first; empty where nothing is open to choose from.
pub(crate) fn choices(model: &Model) -> Vec<Choice> {
    let Some(chooser) = model.ui.chooser() else {
        return Vec::new();
    };
    let palette = matches!(model.ui.popup, Some(Popup::Palette(_)));
    let typed = chooser.line.text().trim_start();
    if let (true, Some((verb, rest))) = (palette, typed.split_once(' '))
        && VERBS.iter().any(|(name, ..)| *name == verb)
    {
        return vec![verb_choice(model, verb, rest.trim())];
    }
    let mut all = actions(model, chooser.place);
    if palette {
        all.extend(VERBS.map(|(name, takes, help)| Choice {
            keys: String::new(),
            name: format!("{name} {takes}"),
            help: help.to_owned(),
            group: None,
            run: Run::Type(format!("{name} ")),
        }));
    }
    if typed.trim().is_empty() {
        return all;
    }
    let mut sieve = Sieve::new();
    let mut ranked: Vec<(u32, Choice)> = all
        .into_iter()
        .filter_map(|choice| {
            let in_name = sieve.rank(typed, &choice.name).map(|rank| rank * 2);
            let text = format!("{} {}", choice.name, choice.help);
            let rank = in_name.max(sieve.rank(typed, &text));
            // Whoever types the keys themselves knows what they want.
            let exact = choice.keys.split(' ').any(|keys| keys == typed.trim());
            let rank = if exact { Some(u32::MAX) } else { rank };
            rank.map(|rank| (rank, choice))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    ranked.into_iter().map(|(_, choice)| choice).collect()
}

/// The actions of a place, in the order of their groups.
fn actions(model: &Model, place: Place) -> Vec<Choice> {
    let of = |bound: &Bound| Choice {
        keys: bound.shown(),
        name: bound.binding.name.replace('_', " "),
        help: bound.binding.help.to_owned(),
        group: Some(bound.binding.group),
        run: Run::Action(bound.binding.action),
    };
    let none = |bound: &&Bound| place == Place::List && is_idle(model, bound.binding.action);
    let here: Vec<&Bound> = model.ui.keymap.here(place).filter(|b| !none(b)).collect();
    let in_group = |group| here.iter().filter(move |b| b.binding.group == group);
    let mut all = Vec::new();
    for group in Group::ALL {
        all.extend(in_group(group).map(|bound| of(bound)));
    }
    all
}

/// Whether an action does nothing where the person is: the bus has no rows, and only the drawing of
/// the fleet is zoomed.
pub(crate) fn is_idle(model: &Model, action: Action) -> bool {
    let of_rows = matches!(
        action,
        Action::Up
            | Action::Down
            | Action::PageUp
            | Action::PageDown
            | Action::First
            | Action::Last
            | Action::Open
            | Action::Filter
            | Action::NextMatch
            | Action::PreviousMatch
            | Action::MarkRow
            | Action::MarkAll
            | Action::Sort
            | Action::SortTurned
            | Action::Columns
            | Action::Fold
            | Action::Follow
            | Action::Why
            | Action::JumpMachine
            | Action::JumpDispatch
            | Action::JumpLog
            | Action::JumpEvents
    );
    let of_drawing = matches!(
        action,
        Action::CellLeft | Action::CellRight | Action::ZoomIn | Action::ZoomOut | Action::ZoomFit
    );
    let drawn = model.screen == Screen::Fleet;
    (model.focus() == Pane::Bus && of_rows) || (of_drawing && !drawn)
}

fn verb_choice(model: &Model, verb: &str, rest: &str) -> Choice {
    let (help, run) = match verb {
        "dispatch" => dispatch(model, rest),
        "machine" => machine(model, rest),
        _ => {
            let can = !matches!(model.focus(), Pane::Bus | Pane::Inbox);
            match (&model.detail, can) {
                (None, true) => ("filter this list".to_owned(), Run::Filter(rest.to_owned())),
                _ => ("there is nothing to filter here".to_owned(), Run::Nothing),
            }
        }
    };
    Choice {
        keys: String::new(),
        name: format!("{verb} {rest}"),
        help,
        group: None,
        run,
    }
}

fn dispatch(model: &Model, prefix: &str) -> (String, Run) {
    let all = model.fleet.jobs().values();
    let mut found = all.filter(|job| !prefix.is_empty() && job.id.as_str().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(job), None) => (job.spec.title(), Run::Dispatch(job.id)),
        (Some(_), Some(_)) => ("more than one id begins so".to_owned(), Run::Nothing),
        (None, _) => ("no id begins so".to_owned(), Run::Nothing),
    }
}

fn machine(model: &Model, prefix: &str) -> (String, Run) {
    let all = model.fleet.machines().keys();
    let exact = model
        .fleet
        .machines()
        .keys()
        .find(|id| id.as_str() == prefix);
    let mut found = all.filter(|id| !prefix.is_empty() && id.as_str().starts_with(prefix));
    match (exact, found.next(), found.next()) {
        (Some(id), ..) | (None, Some(id), None) => (id.to_string(), Run::Machine(id.clone())),
        (None, Some(_), Some(_)) => ("more than one name begins so".to_owned(), Run::Nothing),
        (None, None, _) => ("no machine's name begins so".to_owned(), Run::Nothing),
    }
}
