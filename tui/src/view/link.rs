//! How true what is shown is, in words: for the header, for the line below it, for a screen of one
//! line, and for lists that are empty.

use std::time::Duration;

use super::words;
use crate::link::Phase;
use crate::model::Model;
use crate::text;
use crate::theme::Role;

/// A part of the header: its text, its role, and how soon it is left out where there is no room,
/// the highest first.
pub(super) type Said = (String, Role, u8);

/// The state for the header, most important first.
pub(super) fn parts(model: &Model) -> Vec<Said> {
    let link = &model.link;
    let at = |time| words::clock(time, &model.zone);
    let since = |time| words::stopwatch(model.clock.since(time));
    let as_of = |time| (format!("AS OF {}", at(time)), Role::Warn, 1);
    let mut parts = match model.phase() {
        Phase::Connecting => vec![(format!("CONNECTING {}", since(link.since)), Role::Warn, 0)],
        Phase::Down => vec![
            (format!("BUS DOWN {}", since(link.since)), Role::Bad, 0),
            as_of(link.as_of),
        ],
        Phase::Silent => vec![
            (format!("NO ANSWER {}", since(link.as_of)), Role::Bad, 0),
            as_of(link.as_of),
        ],
        Phase::CatchingUp { read, of } => {
            let (read, of) = (text::thousands(read), text::thousands(of));
            vec![(format!("CATCHING UP {read}/{of}"), Role::Warn, 0)]
        }
        Phase::Slow { left, age } => vec![
            ("SLOW".to_owned(), Role::Warn, 0),
            (
                format!("behind {} ev / {}", text::thousands(left), seconds(age)),
                Role::Warn,
                1,
            ),
        ],
        Phase::Live => live(model),
    };
    if link.read_only {
        parts.push(("READ-ONLY".to_owned(), Role::Wait, 1));
    }
    if link.lost > 0 {
        let lost = text::thousands(link.lost);
        let what = match link.lost_records {
            0 => "ev",
            records if records == link.lost => "records",
            _ => "messages",
        };
        parts.push((format!("lost {lost} {what}"), Role::Bad, 2));
    }
    if link.slow_drops > 0 {
        let dropped = text::thousands(link.slow_drops);
        parts.push((format!("dropped {dropped}"), Role::Bad, 3));
    }
    parts
}

fn live(model: &Model) -> Vec<Said> {
    let dot = if model.look.ascii { "*" } else { "●" };
    let now = words::clock(model.clock, &model.zone);
    let mut parts = vec![("LIVE".to_owned(), Role::Ok, 0), (now, Role::Plain, 6)];
    if let Some(rtt) = model.link.rtt {
        let ms = rtt.as_secs_f64() * 1000.0;
        parts.push((format!("bus {dot} {ms:.1} ms"), Role::Plain, 7));
    }
    if model.behind() > 0 {
        let behind = text::thousands(model.behind());
        parts.push((format!("behind {behind}"), Role::Warn, 3));
    }
    parts
}

/// Whether nothing of the fleet was ever read: it is not known how many there are of anything.
pub(super) fn never_read(model: &Model) -> bool {
    let live = matches!(model.phase(), Phase::Live | Phase::Slow { .. });
    let nothing = model.fleet.jobs().is_empty() && model.fleet.machines().is_empty();
    !live && nothing && !model.link.is_caught_up()
}

/// `as of 12:04:31`, where anything is known.
pub(super) fn as_of(model: &Model) -> String {
    match never_read(model) {
        true => "nothing was read yet".to_owned(),
        false => format!("as of {}", words::clock(model.link.as_of, &model.zone)),
    }
}

/// What went wrong on the way to the hub, in words of whoever looks after it.
fn plainly(error: &str) -> String {
    let lower = error.to_lowercase();
    if lower.contains("connection refused") {
        return "connection refused".to_owned();
    }
    let silent = ["timed out", "timeout", "no responders", "deadline"];
    if silent.iter().any(|word| lower.contains(word)) {
        return "does not answer".to_owned();
    }
    if lower.contains("io error") {
        return "cannot be reached".to_owned();
    }
    error.to_owned()
}

/// What to do about a hub that cannot be reached.
fn remedy(model: &Model) -> &'static str {
    let here = ["127.0.0.1", "localhost", "[::1]"];
    match here.iter().any(|host| model.hub.contains(host)) {
        true => "fleet up starts it, fleet hub status tells of it",
        false => "there: fleet hub status",
    }
}

/// Why nothing is live, and what happens next.
pub(super) fn trouble(model: &Model) -> Option<String> {
    let link = &model.link;
    if let Some(why) = &link.hopeless {
        return Some(why.clone());
    }
    let dot = model.look.dot();
    let error = link.error.as_deref();
    match model.phase() {
        Phase::Connecting => {
            let parts = [
                error.map(plainly),
                next_try(model),
                Some(format!("waiting for {}: fleet up starts one", model.hub)),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            Some(parts.join(&format!(" {dot} ")))
        }
        Phase::Down => {
            let next = next_try(model).unwrap_or_else(|| "tries again".to_owned());
            let seq = text::thousands(model.live().journal_seq());
            let gone = match error {
                Some(error) => format!("{} {}", model.hub, plainly(error)),
                None => format!("no link to {}", model.hub),
            };
            let remedy = remedy(model);
            Some(format!(
                "{next} {dot} {gone} {dot} {remedy} {dot} last record {seq}"
            ))
        }
        Phase::Slow { .. } => {
            Some("more comes than can be shown: counts are exact, events are sampled".to_owned())
        }
        _ => None,
    }
}

/// `try 4 in 3 s`.
fn next_try(model: &Model) -> Option<String> {
    let (no, at) = model.link.next_try?;
    let left = at.since(model.clock);
    Some(match left.as_millis() {
        0 => format!("try {no} now"),
        left => format!("try {no} in {} s", left.div_ceil(1000)),
    })
}

/// The state for one line, before what is counted, and what is said after it. Everything that
/// tells two states apart is before it: the line is cut from the right.
pub(super) fn around(model: &Model) -> (String, String) {
    let link = &model.link;
    let clock = |time| words::clock(time, &model.zone);
    let since = |time| words::stopwatch(model.clock.since(time));
    let as_of = format!("as of {}", clock(link.as_of));
    let (mut before, after) = match model.phase() {
        // What stands still is not of now.
        Phase::Live if model.paused.is_some() => Default::default(),
        Phase::Live => (String::new(), clock(model.clock)),
        Phase::Connecting => (format!("connecting {}", since(link.since)), String::new()),
        Phase::CatchingUp { read, of } => {
            let (read, of) = (text::thousands(read), text::thousands(of));
            (format!("catching up {read}/{of}"), String::new())
        }
        Phase::Slow { left, age } => (
            format!("slow {} / {}", text::thousands(left), seconds(age)),
            String::new(),
        ),
        Phase::Silent => (format!("no answer {}", since(link.as_of)), as_of),
        Phase::Down => (format!("down {}", since(link.since)), as_of),
    };
    let mut said = Vec::new();
    if model.paused.is_some() {
        said.push(format!("paused {}", clock(model.now)));
    }
    if link.missed_lately(model.clock) {
        said.push(format!("gap {}", text::thousands(link.lost)));
    }
    if link.read_only {
        said.push("read-only".to_owned());
    }
    if link.hopeless.is_some() {
        said.push("refused".to_owned());
    }
    if !before.is_empty() {
        said.push(before);
    }
    before = said.join(&format!(" {} ", model.look.dot()));
    (before, after)
}

/// What an empty list says: what to type where there is nothing yet; that a filter hides some; or
/// why nothing is known.
pub(super) fn empty(model: &Model, hidden: usize, none_yet: &str) -> String {
    if hidden > 0 {
        let hidden = text::thousands(hidden as u64);
        return format!("the filter hides {hidden}: Esc clears it");
    }
    let why = model.link.hopeless.as_ref().or(model.link.error.as_ref());
    match (model.phase(), why) {
        (Phase::Live | Phase::Slow { .. }, _) => none_yet.to_owned(),
        (Phase::CatchingUp { .. }, _) => "not loaded yet: still reading what is there".to_owned(),
        (_, Some(why)) => format!("could not look: {}", plainly(why)),
        (Phase::Connecting, None) => "not loaded yet: no link to the hub".to_owned(),
        (Phase::Silent, None) => "could not look: the hub does not answer".to_owned(),
        (Phase::Down, None) => "could not look: the bus is down".to_owned(),
    }
}

/// `8.2 s`.
fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
