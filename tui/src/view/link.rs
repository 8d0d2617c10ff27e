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
                error.map(str::to_owned),
                next_try(model),
                Some(format!("waiting for {}: fleet up starts one", model.hub)),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            Some(parts.join(&format!(" {dot} ")))
        }
        Phase::Down => {
            let next = next_try(model).unwrap_or_else(|| "tries again by itself".to_owned());
            let seq = text::thousands(model.live().journal_seq());
            let gone = match error {
                Some(error) => format!("{} {error}", model.hub),
                None => format!("no link to {}", model.hub),
            };
            Some(format!("{next} {dot} {gone} {dot} last record {seq}"))
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
        Phase::CatchingUp { read, of } => (format!("catching up {read}/{of}"), String::new()),
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
        return format!("the filter hides {}", text::thousands(hidden as u64));
    }
    let why = model.link.hopeless.as_ref().or(model.link.error.as_ref());
    match (model.phase(), why) {
        (Phase::Live | Phase::Slow { .. }, _) => none_yet.to_owned(),
        (Phase::CatchingUp { .. }, _) => "not loaded yet: still reading what is there".to_owned(),
        (_, Some(why)) => format!("could not look: {why}"),
        (Phase::Connecting, None) => "not loaded yet: no link to the hub".to_owned(),
        (Phase::Silent, None) => "could not look: the hub does not answer".to_owned(),
        (Phase::Down, None) => "could not look: the bus is down".to_owned(),
    }
}

/// `8.2 s`.
fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
