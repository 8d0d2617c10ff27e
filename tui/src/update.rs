//! What each message makes of the model. Pure: no clock, no bus, no terminal.

use fleet_contract::ids::JobId;
use fleet_contract::projection::{Fleet, Limits, span};
use fleet_contract::time::Time;

use crate::keymap::{self, Action};
use crate::log::Log;
use crate::model::{Cmd, Detail, JobDetail, Model, Msg, Pane, Phase, Progress, Reader, Screen};
use crate::text;

/// Columns that one key moves long lines by.
const SIDE_STEP: usize = 8;

/// Takes in a message at a time; what is to be done outside.
pub(crate) fn update(model: &mut Model, now: Time, msg: Msg) -> Vec<Cmd> {
    // A clock that is set back would make things younger than they are.
    model.now = model.now.max(now);
    if is_from_the_hub(&msg) {
        model.link.as_of = model.now;
    }
    take(model, msg)
}

/// Whether the hub has to be there for this to come.
fn is_from_the_hub(msg: &Msg) -> bool {
    match msg {
        Msg::Opened(_)
        | Msg::Facts { .. }
        | Msg::CaughtUp(_)
        | Msg::Probe { .. }
        | Msg::Reset
        | Msg::Log { .. }
        | Msg::LogCaughtUp(_) => true,
        Msg::Link { up, .. } => *up,
        Msg::Hopeless(_) | Msg::Key(_) | Msg::Resize(..) | Msg::Tick => false,
    }
}

fn take(model: &mut Model, msg: Msg) -> Vec<Cmd> {
    match msg {
        Msg::Key(key) => {
            let in_detail = model.detail.is_some();
            return match keymap::action(&key, in_detail) {
                Some(action) => act(model, action),
                None => Vec::new(),
            };
        }
        Msg::Opened(reader) => *progress(model, reader) = Progress::default(),
        Msg::Facts {
            reader,
            facts,
            left,
        } => {
            let progress = progress(model, reader);
            progress.read += facts.len() as u64;
            progress.left = left;
            for fact in &facts {
                model.fleet.fold(fact);
            }
        }
        Msg::CaughtUp(reader) => caught_up(model, reader),
        Msg::Link {
            up,
            error,
            slow_drops,
        } => link(model, up, error, slow_drops),
        Msg::Hopeless(why) => model.link.hopeless = Some(why),
        Msg::Probe { rtt, journal_seq } => {
            model.link.rtt = Some(rtt);
            model.link.hub_seq = journal_seq;
        }
        Msg::Reset => {
            model.fleet = Fleet::new(Limits::default());
            model.mark("the hub's store is another one: all before is forgotten here".to_owned());
        }
        Msg::Log { job, chunks, left } => {
            if let Some(log) = log_of(model, job) {
                chunks.iter().for_each(|chunk| log.push(chunk));
                log.left = left;
            }
        }
        Msg::LogCaughtUp(job) => {
            let ended = model
                .fleet
                .job(job)
                .is_some_and(|job| job.state.word().is_terminal());
            if let Some(log) = log_of(model, job) {
                log.caught_up = true;
                log.left = 0;
                if ended {
                    log.settle();
                }
            }
        }
        Msg::Resize(columns, rows) => model.size = (columns, rows),
        Msg::Tick => {}
    }
    Vec::new()
}

fn progress(model: &mut Model, reader: Reader) -> &mut Progress {
    &mut model.link.readers[match reader {
        Reader::Journal => 0,
        Reader::Presence => 1,
        Reader::Flow => 2,
    }]
}

fn caught_up(model: &mut Model, reader: Reader) {
    let was_live = model.phase() == Phase::Live;
    let progress = progress(model, reader);
    progress.caught_up = true;
    progress.left = 0;
    let missed: u64 = model.link.readers.iter().map(|r| r.read).sum();
    if let (false, Phase::Live, Some(down)) = (was_live, model.phase(), model.link.down_since) {
        model.link.down_since = None;
        let took = span(model.now.since(down));
        model.mark(format!(
            "the bus is back after {took}: {} messages from the gap were read",
            text::thousands(missed)
        ));
    }
}

fn link(model: &mut Model, up: bool, error: Option<String>, slow_drops: u64) {
    let link = &mut model.link;
    link.slow_drops = slow_drops;
    if up != link.up {
        link.since = model.now;
        link.up = up;
        if up {
            link.ever = true;
            link.readers = Default::default();
        } else {
            link.rtt = None;
            link.down_since = link.down_since.or(Some(model.now));
            let seq = text::thousands(model.fleet.journal_seq());
            model.mark(format!("bus down after record {seq}"));
        }
    }
    model.link.error = if up { None } else { error };
}

fn log_of(model: &mut Model, job: JobId) -> Option<&mut Log> {
    match &mut model.detail {
        Some(Detail::Job(detail)) if detail.id == job => Some(&mut detail.log),
        _ => None,
    }
}

fn act(model: &mut Model, action: Action) -> Vec<Cmd> {
    match action {
        Action::Quit => return vec![Cmd::Quit],
        Action::Help => model.help = !model.help,
        Action::Back if model.help => model.help = false,
        Action::Back => return close(model),
        Action::Screen(no) => {
            model.help = false;
            let screen = Screen::ALL.get(usize::from(no)).copied();
            model.screen = screen.unwrap_or(model.screen);
            return close(model);
        }
        Action::Next => {
            step(model, 1);
            return close(model);
        }
        Action::Previous => {
            step(model, -1);
            return close(model);
        }
        Action::Open => return open(model),
        Action::Follow => follow(model),
        Action::Up => scroll(model, -1),
        Action::Down => scroll(model, 1),
        Action::PageUp => scroll(model, -page(model)),
        Action::PageDown => scroll(model, page(model)),
        Action::First => scroll(model, i64::MIN),
        Action::Last => scroll(model, i64::MAX),
        Action::Left => sideways(model, false),
        Action::Right => sideways(model, true),
    }
    Vec::new()
}

/// All places that Tab goes through: the panes of the first screen, then the other screens.
const PLACES: [(Screen, Pane); 6] = [
    (Screen::Fleet, Pane::Machines),
    (Screen::Fleet, Pane::Dispatches),
    (Screen::Fleet, Pane::Events),
    (Screen::Dispatches, Pane::Dispatches),
    (Screen::Machines, Pane::Machines),
    (Screen::Events, Pane::Events),
];

fn step(model: &mut Model, by: isize) {
    let here = (model.screen, model.focus());
    let at = PLACES.iter().position(|p| *p == here).unwrap_or(0);
    let to = at.cast_signed() + by;
    let to = to.rem_euclid(PLACES.len().cast_signed()).unsigned_abs();
    model.screen = PLACES[to].0;
    if model.screen == Screen::Fleet {
        model.pane = PLACES[to].1;
    }
}

fn close(model: &mut Model) -> Vec<Cmd> {
    match model.detail.take() {
        Some(Detail::Job(_)) => vec![Cmd::CloseLog],
        _ => Vec::new(),
    }
}

fn open(model: &mut Model) -> Vec<Cmd> {
    if model.detail.is_some() || model.help {
        return Vec::new();
    }
    let (job, machine) = match model.focus() {
        Pane::Dispatches => (model.selected_job(), None),
        Pane::Machines => (None, model.selected_machine()),
        Pane::Events => {
            let event = model.selected_event();
            let event = event.and_then(|key| model.fleet.events().get(&key));
            (
                event.and_then(|e| e.job),
                event.and_then(|e| e.machine.clone()),
            )
        }
    };
    let known = |id: &JobId| model.fleet.job(*id).is_some();
    if let Some(id) = job.filter(known) {
        model.job = Some(id);
        model.detail = Some(Detail::Job(Box::new(JobDetail {
            id,
            log: Log::default(),
            top: None,
            left: 0,
        })));
        return vec![Cmd::OpenLog(id)];
    }
    if let Some(id) = machine.filter(|id| model.fleet.machines().contains_key(id)) {
        model.machine = Some(id.clone());
        model.detail = Some(Detail::Machine(id));
    }
    Vec::new()
}

fn follow(model: &mut Model) {
    match &mut model.detail {
        Some(Detail::Job(detail)) => detail.top = None,
        Some(Detail::Machine(_)) => {}
        None => match model.focus() {
            Pane::Events => model.event = None,
            Pane::Dispatches => model.job = None,
            Pane::Machines => model.machine = None,
        },
    }
}

fn sideways(model: &mut Model, right: bool) {
    if let Some(Detail::Job(detail)) = &mut model.detail {
        detail.left = if right {
            (detail.left + SIDE_STEP).min(4096)
        } else {
            detail.left.saturating_sub(SIDE_STEP)
        };
    }
}

fn page(model: &Model) -> i64 {
    i64::from(model.size.1.saturating_sub(8).max(1))
}

fn scroll(model: &mut Model, by: i64) {
    if model.help {
        return;
    }
    let page = page(model).unsigned_abs();
    match &mut model.detail {
        Some(Detail::Job(detail)) => scroll_log(detail, by, page),
        Some(Detail::Machine(_)) => {}
        None => select(model, by),
    }
}

fn scroll_log(detail: &mut JobDetail, by: i64, page: u64) {
    let end = detail.log.len().saturating_sub(page);
    let first = detail.log.dropped();
    let here = detail.top.unwrap_or(end).clamp(first, end.max(first));
    let to = here.saturating_add_signed(by).max(first);
    // At the end it follows again.
    detail.top = (to < end).then_some(to);
}

fn select(model: &mut Model, by: i64) {
    let at = model.as_of();
    match model.focus() {
        Pane::Dispatches => {
            let ids: Vec<JobId> = model.fleet.worst_first(at).map(|j| j.id).collect();
            model.job = moved(&ids, model.selected_job().as_ref(), by);
        }
        Pane::Machines => {
            let all = model.fleet.machines_worst_first(at);
            let ids: Vec<_> = all
                .iter()
                .map(|(_, m)| m.presence.machine.clone())
                .collect();
            model.machine = moved(&ids, model.selected_machine().as_ref(), by);
        }
        Pane::Events => {
            let keys: Vec<_> = model.fleet.events().keys().rev().copied().collect();
            let to = moved(&keys, model.selected_event().as_ref(), by);
            // The newest one follows.
            model.event = to.filter(|key| keys.first() != Some(key));
        }
    }
}

fn moved<T: PartialEq + Clone>(all: &[T], here: Option<&T>, by: i64) -> Option<T> {
    let at = here.and_then(|h| all.iter().position(|x| x == h));
    let at = i64::try_from(at.unwrap_or(0)).unwrap_or(i64::MAX);
    let last = i64::try_from(all.len()).unwrap_or(i64::MAX) - 1;
    let to = at.saturating_add(by).clamp(0, last.max(0));
    all.get(usize::try_from(to).unwrap_or(0)).cloned()
}
