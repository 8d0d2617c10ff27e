//! What keys do in a dispatch's output: move, break long lines, show times, search, and go to the
//! line of a time. What is read stays where it is, whatever comes.

use fleet_contract::projection::EventKey;
use fleet_contract::time::Time;
use ratatui::layout::Rect;

use crate::log::Place;
use crate::model::{Cmd, Detail, JobDetail, Model, Screen};
use crate::view;

/// Columns that one key moves long lines by.
const SIDE_STEP: usize = 8;

fn detail(model: &mut Model) -> Option<&mut JobDetail> {
    match &mut model.detail {
        Some(Detail::Job(detail)) => Some(detail),
        _ => None,
    }
}

/// Columns and rows of the output on screen.
fn room(model: &Model) -> Option<(usize, usize)> {
    let Some(Detail::Job(detail)) = &model.detail else {
        return None;
    };
    let screen = Rect::new(0, 0, model.size.0, model.size.1);
    let inside = view::log_inside(model, detail, view::places(model, screen).body)?;
    Some(view::log_room(detail, inside))
}

/// Rows of a page of output, where one is open.
pub(super) fn page(model: &Model) -> Option<i64> {
    let (_, height) = room(model)?;
    Some(i64::try_from(height.max(2) - 1).unwrap_or(1))
}

/// Moves long lines.
pub(super) fn sideways(model: &mut Model, right: bool) {
    if let Some(detail) = detail(model) {
        detail.left = if right {
            (detail.left + SIDE_STEP).min(4096)
        } else {
            detail.left.saturating_sub(SIDE_STEP)
        };
    }
}

/// Breaks long lines, or no longer.
pub(super) fn wrap(model: &mut Model) {
    if let Some(detail) = detail(model) {
        detail.wrap = !detail.wrap;
        // A row of a broken line is none of a whole one.
        detail.top = detail.top.map(|top| Place::of(top.line));
        detail.left = 0;
    }
}

/// Shows each line's time, or no longer.
pub(super) fn times(model: &mut Model) {
    if let Some(detail) = detail(model) {
        detail.times = !detail.times;
        detail.top = detail.top.map(|top| Place::of(top.line));
    }
}

/// How many parts an open dispatch has here, and how far those beside its output can be scrolled.
fn parts(model: &Model) -> (usize, [usize; 2]) {
    let Some(Detail::Job(detail)) = &model.detail else {
        return (1, [0; 2]);
    };
    let screen = Rect::new(0, 0, model.size.0, model.size.1);
    view::job_parts(model, detail, view::places(model, screen).body)
}

/// Gives the arrows to the next part of an open dispatch.
pub(super) fn next_part(model: &mut Model, by: isize) {
    let (count, _) = parts(model);
    if let Some(detail) = detail(model) {
        let to = detail.part.min(count - 1).cast_signed() + by;
        detail.part = to.rem_euclid(count.cast_signed()).unsigned_abs();
    }
}

/// Scrolls a part beside the output, where the arrows are its; whether they are.
fn scroll_part(model: &mut Model, by: i64) -> bool {
    let (count, most) = parts(model);
    let Some(detail) = detail(model) else {
        return false;
    };
    let Some(part) = detail.part.min(count - 1).checked_sub(1) else {
        return false;
    };
    let step = isize::try_from(by).unwrap_or(isize::MAX);
    let above = detail.above[part].min(most[part]);
    detail.above[part] = above.saturating_add_signed(step).min(most[part]);
    true
}

/// Moves the first row on screen.
pub(super) fn scroll(model: &mut Model, by: i64) {
    if scroll_part(model, by) {
        return;
    }
    let Some((width, height)) = room(model) else {
        return;
    };
    let Some(detail) = detail(model) else { return };
    detail.goal = None;
    let width = detail.wrap.then_some(width);
    let log = &detail.log;
    let end = log.end(height, width);
    let here = detail.top.unwrap_or(end).min(end);
    let to = match by {
        i64::MIN => Place::of(log.dropped()),
        i64::MAX => end,
        by => log.step(here, by, width),
    };
    // At the end it follows again.
    detail.top = (to < end).then_some(to);
}

/// Brings a line on screen, a third from the top, and points at it.
fn show(model: &mut Model, line: u64) {
    let Some((width, height)) = room(model) else {
        return;
    };
    let Some(detail) = detail(model) else { return };
    let width = detail.wrap.then_some(width);
    let end = detail.log.end(height, width);
    let above = i64::try_from(height / 3).unwrap_or(0);
    let top = detail.log.step(Place::of(line), -above, width);
    detail.point = Some(line);
    // Also what is at the end stays where it is, for it was looked for.
    detail.top = Some(top.min(end));
}

/// Looks for a text in the output, and goes to the first line on screen or after that has it.
pub(super) fn search(model: &mut Model, wanted: &str) {
    let here = first_on_screen(model);
    let Some(detail) = detail(model) else { return };
    detail.log.look_for(wanted);
    let from = here.checked_sub(1);
    let found = match from {
        Some(from) => detail.log.find(from, true),
        None => detail.log.first_found(),
    };
    match found {
        Some(line) => show(model, line),
        None => detail.point = None,
    }
}

/// Goes to the next line that has what is looked for, or to the one before.
pub(super) fn find(model: &mut Model, forward: bool) {
    let first = first_on_screen(model);
    let Some(detail) = detail(model) else { return };
    if detail.log.search().wanted().is_empty() {
        return model.say("nothing is looked for: / begins");
    }
    let from = detail.log.search().at.unwrap_or(first);
    match detail.log.find(from, forward) {
        Some(line) => show(model, line),
        None => {
            let wanted = crate::text::escape(detail.log.search().wanted()).into_owned();
            model.say(format!("no line that is kept here has {wanted}"));
        }
    }
}

fn first_on_screen(model: &Model) -> u64 {
    let (Some((width, height)), Some(Detail::Job(detail))) = (room(model), &model.detail) else {
        return 0;
    };
    let end = detail.log.end(height, detail.wrap.then_some(width));
    detail.top.unwrap_or(end).min(end).line
}

/// Stays at the lines that are on screen; whether it followed the end.
pub(super) fn hold(model: &mut Model) -> bool {
    let Some((width, height)) = room(model) else {
        return false;
    };
    let Some(detail) = detail(model) else {
        return false;
    };
    let followed = detail.top.is_none();
    let end = detail.log.end(height, detail.wrap.then_some(width));
    detail.top.get_or_insert(end);
    followed
}

/// Follows the end again.
pub(super) fn follow(detail: &mut JobDetail) {
    detail.top = None;
    detail.point = None;
    detail.goal = None;
}

/// Goes to the line of a time as soon as it is there.
pub(super) fn go_to(model: &mut Model, time: Time) {
    if let Some(detail) = detail(model) {
        detail.goal = Some(time);
    }
    reach(model);
}

/// Where a line is waited for: goes there once it has come, and to the end once none can come.
pub(super) fn reach(model: &mut Model) {
    let Some(detail) = detail(model) else { return };
    let Some(goal) = detail.goal else { return };
    let found = detail.log.line_at(goal, None);
    let over = detail.log.caught_up;
    if found.is_some() || over {
        detail.goal = None;
    }
    match found {
        Some(line) => show(model, line),
        None if over => model.say("nothing was written after that event"),
        None => {}
    }
}

/// The line that is pointed at, else the first on screen, else the last.
pub(crate) fn line(model: &Model) -> Option<u64> {
    let Some(Detail::Job(detail)) = &model.detail else {
        return None;
    };
    let kept = |no: &u64| detail.log.line(*no).is_some();
    let last = detail.log.len().checked_sub(1);
    let pointed = detail.point.filter(kept);
    pointed
        .or(detail.top.map(|top| top.line).filter(kept))
        .or(last)
}

/// Goes to the event of the open dispatch that was the last before the line that is pointed at.
pub(super) fn jump_event(model: &mut Model) -> Vec<Cmd> {
    let Some(Detail::Job(detail)) = &model.detail else {
        return Vec::new();
    };
    let time = line(model).and_then(|no| detail.log.line(no).map(|l| l.time));
    let id = detail.id;
    let of_job = model
        .fleet
        .events()
        .iter()
        .filter(|(_, e)| e.job == Some(id));
    let before = |event_time: Time| time.is_none_or(|time| event_time <= time);
    let mut first: Option<EventKey> = None;
    let mut found = None;
    for (key, event) in of_job {
        first.get_or_insert(*key);
        if before(event.written) {
            found = Some(*key);
        }
    }
    let Some(key) = found.or(first) else {
        model.say("its events are no longer kept here");
        return Vec::new();
    };
    let cmds = super::act::go(model, Screen::Events);
    model.event = Some(key);
    cmds
}
