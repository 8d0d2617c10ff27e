//! What the bus tells about itself, and what can be seen of it in everything else that comes.

use crate::bus::BusMsg;
use crate::model::{Cmd, Model, Msg, Screen};

/// Looks at a message before it is taken in.
pub(super) fn observe(model: &mut Model, msg: &Msg) {
    let now = model.clock;
    model.bus.begin(now);
    match msg {
        Msg::Probe { rtt, .. } => model.bus.trip(now, *rtt),
        Msg::Facts { reader, facts, .. } => model.bus.count(*reader, facts),
        Msg::Link { up, .. } if *up != model.link.up => {
            let lasted = now.since(model.link.since);
            model.bus.linked(*up, lasted, model.link.ever);
        }
        _ => {}
    }
}

/// Takes in what the bus tells about itself.
pub(super) fn take(model: &mut Model, msg: BusMsg) {
    match msg {
        BusMsg::Stats { facts, superseded } => {
            model.bus.superseded += superseded;
            for fact in &facts {
                model.live_mut().fold(fact);
            }
        }
        BusMsg::Hub(said) => model.bus.hub_said(model.clock, said),
        BusMsg::Drops(dropped) => model.link.slow_drops = dropped,
        BusMsg::Memory(bytes) => model.bus.memory = Some(bytes),
    }
}

/// The hub is asked more often while its screen is looked at.
pub(super) fn watch(before: Screen, model: &Model, cmds: &mut Vec<Cmd>) {
    let is_bus = |screen| screen == Screen::Bus;
    if is_bus(before) != is_bus(model.screen) {
        cmds.push(Cmd::WatchHub(is_bus(model.screen)));
    }
}
