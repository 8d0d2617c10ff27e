//! What each message makes of the model. Pure: no clock, no bus, no terminal.

mod act;
mod bus;
mod choose;
mod jump;
mod keys;
mod leave;
mod link;
mod list;
pub(crate) mod log;
mod mouse;
mod open;
mod pause;
mod select;
mod topology;
mod typing;
mod yank;

use fleet_contract::ids::JobId;
use fleet_contract::projection::{Fleet, Limits};
use fleet_contract::time::Time;

use crate::bus::BusMsg;
use crate::log::Log;
use crate::model::{Cmd, Detail, Model, Msg};

/// Takes in a message at a time; what is to be done outside.
pub(crate) fn update(model: &mut Model, now: Time, msg: Msg) -> Vec<Cmd> {
    // A clock that is set back would make things younger than they are.
    model.clock = model.clock.max(now);
    if model.paused.is_none() {
        model.now = model.clock;
    }
    if is_from_the_hub(&msg) {
        model.link.as_of = model.clock;
    }
    let of_a_person = matches!(msg, Msg::Key(_) | Msg::Mouse(_) | Msg::Paste(_));
    // What stands still is the same as before.
    if !of_a_person && model.paused.is_none() {
        model.lists.spoil();
    }
    bus::observe(model, &msg);
    let screen = model.screen;
    let mut cmds = take(model, msg);
    bus::watch(screen, model, &mut cmds);
    let at = model.as_of();
    if model.paused.is_none() {
        model.fleet.pass_time(at);
    }
    model.refresh_lists(of_a_person);
    cmds
}

/// Whether a frame can look different for it: on a screen that stands still what comes is not seen,
/// and the header's ages move with the second.
pub(crate) fn is_seen(model: &Model, msg: &Msg) -> bool {
    let folds = matches!(
        msg,
        Msg::Opened(_)
            | Msg::Facts { .. }
            | Msg::CaughtUp(_)
            | Msg::Probe { .. }
            | Msg::Log { .. }
            | Msg::LogForeign(..)
            | Msg::LogCaughtUp(_)
            | Msg::Bus(_)
    );
    !folds || model.paused.is_none()
}

/// Whether the hub has to be there for this to come.
fn is_from_the_hub(msg: &Msg) -> bool {
    match msg {
        Msg::Opened(_)
        | Msg::Facts { .. }
        | Msg::CaughtUp(_)
        | Msg::Gap(_)
        | Msg::Probe { .. }
        | Msg::Reset
        | Msg::Log { .. }
        | Msg::LogForeign(..)
        | Msg::LogCaughtUp(_) => true,
        Msg::Link { up, .. } => *up,
        Msg::Bus(msg) => matches!(msg, BusMsg::Stats { .. } | BusMsg::Hub(Ok(_))),
        Msg::Hopeless(_)
        | Msg::Tries { .. }
        | Msg::Key(_)
        | Msg::Mouse(_)
        | Msg::Paste(_)
        | Msg::Focus(_)
        | Msg::Suspended
        | Msg::Resumed
        | Msg::Resize(..)
        | Msg::Tick => false,
    }
}

fn take(model: &mut Model, msg: Msg) -> Vec<Cmd> {
    match msg {
        Msg::Key(key) => return keys::press(model, &key),
        // A question is answered by a key.
        Msg::Mouse(_) if model.ui.leaving.asked.is_some() => {}
        Msg::Mouse(event) => return mouse::take(model, &event),
        // Nothing takes text here: a paste must not become keys.
        Msg::Paste(text) if typing::paste(model, &text) => {}
        Msg::Paste(_) => model.say("nothing here takes text: the paste was left out"),
        Msg::Focus(focused) => model.ui.focused = focused,
        // A sequence that was begun before is forgotten.
        Msg::Suspended | Msg::Resumed => model.ui.pending = None,
        Msg::Opened(reader) => link::opened(model, reader),
        Msg::Facts {
            reader,
            facts,
            left,
        } => link::facts(model, reader, &facts, left),
        Msg::CaughtUp(reader) => link::caught_up(model, reader),
        Msg::Gap(gap) => link::missed(model, gap),
        Msg::Tries { no, after } => link::tries(model, no, after),
        Msg::Link {
            up,
            error,
            slow_drops,
        } => link::changed(model, up, error, slow_drops),
        Msg::Hopeless(why) => model.link.hopeless = Some(why),
        Msg::Bus(msg) => bus::take(model, msg),
        Msg::Probe { rtt, journal_seq } => {
            model.link.rtt = Some(rtt);
            model.link.hub_seq = journal_seq;
        }
        Msg::Reset => {
            *model.live_mut() = Fleet::new(Limits::default());
            model.mark("the hub's store is another one: all before is forgotten here".to_owned());
        }
        Msg::Log { job, chunks, left } => {
            if let Some(log) = log_of(model, job) {
                chunks.iter().for_each(|chunk| log.push(chunk));
                log.left = left;
            }
            log::reach(model);
        }
        Msg::LogForeign(job, more) => {
            if let Some(log) = log_of(model, job) {
                log.foreign += more;
            }
        }
        Msg::LogCaughtUp(job) => {
            let ended = model
                .live()
                .job(job)
                .is_some_and(|job| job.state.word().is_terminal());
            if let Some(log) = log_of(model, job) {
                log.caught_up = true;
                log.left = 0;
                if ended {
                    log.settle();
                }
            }
            log::reach(model);
        }
        Msg::Resize(columns, rows) => model.size = (columns, rows),
        Msg::Tick => {}
    }
    Vec::new()
}

fn log_of(model: &mut Model, job: JobId) -> Option<&mut Log> {
    match &mut model.detail {
        Some(Detail::Job(detail)) if detail.id == job => Some(&mut detail.log),
        _ => None,
    }
}
