//! The rows with a name: the way to the hub, what was lost, the hub, its disk, this console.

use std::time::Duration;

use fleet_contract::hub::{DiskStats, HubStats, ServerStats};
use fleet_contract::projection::span;

use super::{Part, Sheet, bar, bytes};
use crate::model::Phase;
use crate::text;
use crate::theme::Role;
use crate::view::{spark, words};

/// A round trip from which on it is not good, and from which on it is bad.
const TRIP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// How far back round trips are drawn.
const DRAWN: Duration = Duration::from_secs(600);
/// A disk with less than so many percent free is filling, and full with less than this.
const DISK_FREE: (u64, u64) = (20, 5);
/// The console's memory is to stay below this.
const MEMORY_BUDGET: u64 = 64 << 20;

/// All of them.
pub(super) fn fill(sheet: &mut Sheet<'_>) {
    round_trip(sheet);
    link(sheet);
    lost(sheet);
    match sheet.hub.map(|(_, hub)| hub.clone()) {
        Some(hub) => of_hub(sheet, &hub),
        None => {
            let why = sheet.model.bus.silent();
            let why = why.unwrap_or("what the hub says of itself is not known yet");
            let part = (why.to_owned(), Role::Warn, 0);
            sheet.say(1, "hub", vec![part]);
        }
    }
    console(sheet);
}

fn of_hub(sheet: &mut Sheet<'_>, hub: &HubStats) {
    if let Some(why) = sheet.model.bus.silent().map(str::to_owned) {
        sheet.say(1, "hub", vec![(why, Role::Warn, 0)]);
    }
    for trouble in &hub.troubles {
        let since = words::clock(trouble.since, &sheet.model.zone);
        let parts = vec![
            (trouble.text.clone(), Role::Bad, 0),
            (format!("since {since}"), Role::Dim, 1),
        ];
        sheet.say(0, "degraded", parts);
    }
    for missing in &hub.missing {
        sheet.say(2, "not known", vec![(missing.clone(), Role::Warn, 0)]);
    }
    locked_out(sheet, hub);
    slow(sheet, hub);
    server(sheet, hub);
    disk(sheet, hub);
    keeper(sheet, hub);
}

fn ms(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    match ms {
        ..10.0 => format!("{ms:.2} ms"),
        ..100.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

fn plural(n: u64, one: &str, many: &str) -> String {
    let word = if n == 1 { one } else { many };
    format!("{} {word}", text::thousands(n))
}

fn round_trip(sheet: &mut Sheet<'_>) {
    let model = sheet.model;
    let bus = &model.bus;
    let last = bus.trips().last();
    let now: Part = match last {
        // What was measured is no measure of a link that is away.
        Some((at, took)) if model.is_dated() => {
            let ago = words::ago(model.now, at);
            (format!("{} {ago}", ms(took)), Role::Warn, 0)
        }
        Some((_, took)) => {
            let role = match took {
                t if t >= TRIP.1 => Role::Bad,
                t if t >= TRIP.0 => Role::Warn,
                _ => Role::Ok,
            };
            (ms(took), role, 0)
        }
        None => ("not measured yet".to_owned(), Role::Warn, 0),
    };
    let mut parts = vec![now];
    if let Some((half, most)) = bus.percentiles() {
        let text = format!("p50 {} p99 {}", ms(half), ms(most));
        parts.push((text, Role::Plain, 1));
        let used: usize = parts
            .iter()
            .map(|(text, ..)| text.chars().count() + 3)
            .sum();
        let cells = sheet
            .width
            .saturating_sub(sheet.label() + used + 10)
            .min(60);
        if cells >= 10 {
            parts.push((trips(sheet, cells), Role::Busy, 2));
            parts.push((span(DRAWN), Role::Dim, 3));
        }
    }
    sheet.say(0, "round trip", parts);
}

/// The worst round trip of each stretch of the last minutes, against the worst of all.
fn trips(sheet: &Sheet<'_>, cells: usize) -> String {
    let model = sheet.model;
    // What is small against nothing is drawn low.
    let most = model.bus.trips().map(|(_, took)| took).max();
    let most = most.unwrap_or_default().max(Duration::from_millis(2));
    let share = |took: Duration| took.as_secs_f32() / most.as_secs_f32();
    let values = model.bus.trips().map(|(at, took)| (at, share(took)));
    spark::over(sheet.look(), model.now, DRAWN, values, cells)
}

fn link(sheet: &mut Sheet<'_>) {
    let model = sheet.model;
    let lasted = span(model.now.since(model.link.since));
    let (text, role, leave) = match model.phase() {
        Phase::Connecting => (format!("connecting for {lasted}"), Role::Warn, 0),
        Phase::Down => (format!("down for {lasted}"), Role::Bad, 0),
        Phase::Silent => {
            let silent = span(model.now.since(model.link.as_of));
            (format!("up, but no answer for {silent}"), Role::Bad, 0)
        }
        _ => (format!("up for {lasted}"), Role::Plain, 4),
    };
    let bus = &model.bus;
    let away = match (model.link.up, model.link.ever) {
        (false, true) => bus.away + model.now.since(model.link.since),
        _ => bus.away,
    };
    let outages = match bus.outages {
        0 => "never away".to_owned(),
        n => {
            let times = plural(n.into(), "time", "times");
            format!("away {times}, {} in all", span(away))
        }
    };
    let role_of = if bus.outages == 0 {
        Role::Dim
    } else {
        Role::Warn
    };
    let since = words::clock(bus.since(model.now), &model.zone);
    let parts = vec![
        (text, role, 0),
        (outages, role_of, 1),
        (format!("since {since}"), Role::Dim, 2),
        (model.hub.clone(), Role::Dim, 3),
    ];
    sheet.say(leave, "link", parts);
}

/// What did not come to be seen here.
fn lost(sheet: &mut Sheet<'_>) {
    let model = sheet.model;
    let counters = model.fleet.counters();
    let [journal, presence, flow] = model.bus.unreadable;
    let other = counters
        .unreadable
        .saturating_sub(journal + presence + flow);
    let counts = [
        (model.link.lost, "gone before they were read"),
        (model.link.slow_drops, "dropped by the link"),
        (counters.voids, "void records"),
        (journal, "unreadable records"),
        (presence, "unreadable beats"),
        (flow, "unreadable events"),
        (other, "unreadable summaries"),
        (counters.samples_dropped, "samples without room"),
    ];
    let since = words::clock(model.bus.since(model.now), &model.zone);
    let mut parts: Vec<Part> = counts
        .iter()
        .zip(1..)
        .filter(|((count, _), _)| *count > 0)
        .map(|((count, what), leave)| {
            (
                format!("{} {what}", text::thousands(*count)),
                Role::Bad,
                leave,
            )
        })
        .collect();
    let leave = if parts.is_empty() { 4 } else { 0 };
    if parts.is_empty() {
        parts.push(("nothing".to_owned(), Role::Ok, 0));
    }
    parts.push((format!("since {since}"), Role::Dim, 20));
    sheet.say(leave, "lost here", parts);
}

/// Who is not let in, and why: seldom, and never to be overlooked.
fn locked_out(sheet: &mut Sheet<'_>, hub: &HubStats) {
    for peer in &hub.locked_out {
        let ago = words::ago(sheet.model.now, peer.at);
        let parts = vec![
            (format!("{} {ago}", peer.machine), Role::Bad, 0),
            (text::escape(&peer.reason).to_string(), Role::Warn, 1),
            (format!("fleet hub admit {}", peer.machine), Role::Plain, 2),
        ];
        sheet.say(1, "locked out", parts);
    }
}

fn slow(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let Some(server) = &hub.server else { return };
    let mut parts = match server.slow_consumers {
        0 => vec![("none".to_owned(), Role::Ok, 0)],
        n => {
            let times = plural(n, "connection closed", "connections closed");
            vec![(times, Role::Bad, 0)]
        }
    };
    for (peer, leave) in hub.slow.iter().zip(2..) {
        let at = words::clock(peer.at, &sheet.model.zone);
        let text = format!("{} {at} {}", peer.name, peer.reason);
        parts.push((text, Role::Warn, leave));
    }
    let since = words::clock(server.started_at, &sheet.model.zone);
    parts.push((format!("since {since}"), Role::Dim, 1));
    let leave = if server.slow_consumers > 0 { 1 } else { 6 };
    sheet.say(leave, "too slow", parts);
}

fn server(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let old = sheet.is_old();
    let role = if old { Role::Dim } else { Role::Plain };
    let mut parts: Vec<Part> = vec![(hub.host.clone(), role, 0)];
    if let Some(server) = &hub.server {
        parts.extend(of_server(server, hub, role));
    }
    parts.push((format!("fleet {}", hub.version), role, 5));
    let addresses = hub.addresses.join(", ");
    parts.push((addresses, Role::Dim, 6));
    sheet.say(5, "hub", parts);
    let Some(server) = &hub.server else { return };
    let mut parts: Vec<Part> = Vec::new();
    if let Some(rates) = &server.rates {
        let flow = |word: &str, messages: f64, volume: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate for people"
            )]
            let (messages, volume) = (messages.max(0.0) as u64, volume.max(0.0) as u64);
            let (messages, volume) = (text::thousands(messages), bytes(volume));
            format!("{word} {messages} msg/s {volume}/s")
        };
        let text = flow("in", rates.messages_in, rates.bytes_in);
        parts.push((text, role, 0));
        let text = flow("out", rates.messages_out, rates.bytes_out);
        parts.push((text, role, 1));
    }
    let api = format!(
        "{} requests, {} refused",
        text::thousands(server.api_requests),
        text::thousands(server.api_errors)
    );
    parts.push((api, role, 2));
    sheet.say(5, "traffic", parts);
}

fn of_server(server: &ServerStats, hub: &HubStats, role: Role) -> Vec<Part> {
    let up = span(hub.at.since(server.started_at));
    let connections = plural(server.connections, "connection", "connections");
    vec![
        (format!("nats-server {} up {up}", server.version), role, 1),
        (connections, role, 2),
        (bytes(server.memory), role, 3),
        (format!("cpu {:.0} %", server.cpu_percent), role, 4),
    ]
}

fn disk(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let old = sheet.is_old();
    let mut parts: Vec<Part> = Vec::new();
    let mut leave = 5;
    if let Some(DiskStats { total, free }) = hub.disk {
        let percent = free.saturating_mul(100).checked_div(total).unwrap_or(100);
        let role = match percent {
            p if p < DISK_FREE.1 => Role::Bad,
            p if p < DISK_FREE.0 => Role::Warn,
            _ if old => Role::Dim,
            _ => Role::Plain,
        };
        if role != Role::Plain && role != Role::Dim {
            leave = 1;
        }
        let cells = if sheet.width < 60 { 8 } else { 16 };
        let (free, size) = (bytes(free), bytes(total));
        let used = share(total.saturating_sub(hub.disk.map_or(0, |d| d.free)), total);
        parts.push((bar(sheet.look(), used, cells), role, 1));
        parts.push((format!("{free} free of {size} ({percent} %)"), role, 0));
    }
    if let Some(server) = &hub.server {
        let (used, limit) = (bytes(server.store_used), bytes(server.store_limit));
        let role = if old { Role::Dim } else { Role::Plain };
        parts.push((format!("store {used} of {limit}"), role, 2));
    }
    if !parts.is_empty() {
        sheet.say(leave, "disk", parts);
    }
}

fn share(part: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share for a bar")]
    let share = part as f64 / of.max(1) as f64;
    share.clamp(0.0, 1.0)
}

fn keeper(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let keeper = &hub.keeper;
    let counts = [
        (keeper.malformed, "malformed"),
        (keeper.voids, "void"),
        (keeper.tickets_again, "tickets again"),
        (keeper.machines_lost, "machines lost"),
        (keeper.leases_taken, "leases taken"),
    ];
    let parts = counts.iter().filter(|(count, _)| *count > 0).zip(0..);
    let mut parts: Vec<Part> = parts
        .map(|((count, what), leave)| {
            (
                format!("{} {what}", text::thousands(*count)),
                Role::Warn,
                leave,
            )
        })
        .collect();
    let leave = if parts.is_empty() { 7 } else { 3 };
    if parts.is_empty() {
        parts.push(("nothing to mend".to_owned(), Role::Ok, 0));
    }
    let since = words::clock(hub.started_at, &sheet.model.zone);
    parts.push((format!("since {since}"), Role::Dim, 20));
    sheet.say(leave, "keeper", parts);
}

/// What this console itself costs.
fn console(sheet: &mut Sheet<'_>) {
    let model = sheet.model;
    let own = &model.own;
    let mut parts: Vec<Part> = Vec::new();
    if let Some(memory) = model.bus.memory {
        let over = memory > MEMORY_BUDGET;
        let role = if over { Role::Warn } else { Role::Plain };
        let (memory, budget) = (bytes(memory), bytes(MEMORY_BUDGET));
        parts.push((format!("{memory} of {budget}"), role, 0));
    }
    if let Some(p99) = own.p99_frame() {
        let frames = plural(own.frames, "frame", "frames");
        let text = format!("{frames} p99 {} {}", ms(p99), bytes(own.bytes));
        parts.push((text, Role::Plain, 1));
    }
    let folded = text::thousands(own.folded);
    parts.push((format!("{folded} folded"), Role::Plain, 2));
    let kept = text::thousands(model.fleet.events().len() as u64);
    parts.push((format!("{kept} events kept"), Role::Dim, 3));
    if model.bus.superseded > 0 {
        let passed = text::thousands(model.bus.superseded);
        parts.push((format!("{passed} summaries passed over"), Role::Dim, 4));
    }
    sheet.say(8, "console", parts);
}
