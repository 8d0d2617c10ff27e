//! What there is to say about a machine or the hub, in as many letters as there is room for.

use fleet_contract::ids::MachineId;
use fleet_contract::machine::MachineState;
use fleet_contract::projection::Machine;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::roster::{self, Entry};
use crate::model::Model;
use crate::text;
use crate::theme::Role;
use crate::view::{machines, words};

use super::ink;

/// Whether a machine is the one that the hub runs on, by the hub's own word: what a machine says of
/// its host is its own.
pub(super) fn is_hub(model: &Model, machine: &Machine) -> bool {
    let hub = model
        .bus
        .hub()
        .and_then(|(_, stats)| stats.machine.as_ref());
    hub.is_some_and(|hub| *hub == machine.presence.machine)
}

/// What the hub is called: its machine, else its host, else where it is reached.
pub(super) fn hub_name(model: &Model, host: Option<Entry<'_>>) -> String {
    let stats = model.bus.hub().map(|(_, stats)| stats.host.as_str());
    match (host, stats.filter(|host| !host.is_empty())) {
        (Some((_, machine)), _) => machine.presence.machine.to_string(),
        (None, Some(host)) => text::escape(host).into_owned(),
        (None, None) => {
            let address = model.hub.split(',').next().unwrap_or("");
            let address = address.trim_start_matches("nats://");
            text::escape(address).into_owned()
        }
    }
}

/// Glyph, word and style of a state; `?` and what it was last where that is all that is known.
pub(super) fn state(model: &Model, state: MachineState) -> (&'static str, String, Style) {
    let look = model.look;
    let (glyph, role) = look.machine(state);
    if model.is_dated() {
        let (unknown, role) = look.unknown();
        return (unknown, format!("last {glyph} {state}"), look.style(role));
    }
    (glyph, state.to_string(), look.style(role))
}

/// When it was heard last: `seen 3 s`, `12 s ago`.
pub(super) fn seen(model: &Model, machine: &Machine) -> String {
    match words::age(model.now, machine.seen).as_str() {
        age if model.is_dated() => format!("{age} ago"),
        "now" => "seen now".to_owned(),
        age => format!("seen {age}"),
    }
}

/// Slots and queue: `▮▮▮▯ 3/4 q2`.
pub(super) fn slots(model: &Model, machine: &Machine) -> String {
    let load = &machine.presence.load;
    let slots = machines::slots(model.look, load.slots_used, load.slots);
    let queue = roster::waiting(model, &machine.presence.machine);
    format!("{slots} q{queue}")
}

/// The last load samples as bars, and the last as a share: `▁▂▅▇ 91%`.
pub(super) fn load(model: &Model, machine: &Machine, cells: usize) -> String {
    let look = model.look;
    let samples = model.fleet.load_history(&machine.presence.machine);
    let mut bars: Vec<&str> = samples
        .rev()
        .take(cells)
        .map(|(_, sample)| ink::bar(look, sample.load))
        .collect();
    bars.reverse();
    let now = machine.presence.load.load / f64::from(machine.presence.specs.cores.max(1));
    let percent = if now.is_finite() {
        now.clamp(0.0, 99.99) * 100.0
    } else {
        0.0
    };
    format!("{} {percent:.0}%", bars.concat())
}

/// Why it is not simply up, in words that are safe to write.
pub(super) fn causes(model: &Model, state: MachineState, machine: &Machine) -> String {
    text::escape(&words::causes(machine, state, model.as_of())).into_owned()
}

/// The jobs that it runs, as glyphs and short ids, each with its style; then how many more.
pub(super) fn jobs(model: &Model, machine: &MachineId, room: usize) -> Vec<(String, Style)> {
    let look = model.look;
    let mut jobs = model.fleet.running_on(machine).peekable();
    let mut parts: Vec<(String, Style)> = Vec::new();
    let mut used = 0;
    while let Some(job) = jobs.peek() {
        let (glyph, role) = look.job(job.state.word());
        let text = format!("{glyph} {}  ", words::prefix(&model.fleet, job.id));
        // Always room for how many are not shown.
        if used + text.width() + 4 > room {
            let more = jobs.count();
            parts.push((format!("+{more}"), look.style(Role::Dim)));
            return parts;
        }
        used += text.width();
        parts.push((text, look.style(role)));
        jobs.next();
    }
    if parts.is_empty() {
        parts.push(("(idle)".to_owned(), look.style(Role::Dim)));
    }
    parts
}

/// Why nothing flows: how long ago it was heard, and what it is where it is not up.
pub(super) fn silence(model: &Model, state: MachineState, machine: &Machine) -> String {
    let age = words::age(model.now, machine.seen);
    match state {
        _ if model.is_dated() => format!("last beat {age} ago"),
        MachineState::Up | MachineState::Degraded => {
            let told = model.fleet.tells_traffic(&machine.presence.machine);
            let quiet = if told { "quiet" } else { "told no traffic" };
            match age.as_str() {
                "now" => quiet.to_owned(),
                age => format!("{quiet} {} beat {age} ago", model.look.dot()),
            }
        }
        MachineState::Cordoned | MachineState::Draining => format!("{state}: takes no more work"),
        state => format!("{state} {} last beat {age} ago", model.look.dot()),
    }
}

/// Whether nothing can flow.
pub(super) fn is_broken(model: &Model, state: MachineState) -> bool {
    model.is_dated() || !matches!(state, MachineState::Up | MachineState::Degraded)
}
