//! What the way to the hub makes of the model: coming, going, catching up, falling behind, and
//! what was missed meanwhile.

use std::time::Duration;

use fleet_contract::projection::{Fact, span};
use fleet_contract::time::Time;

use crate::link::{Gap, Hole, Outage, Progress};
use crate::model::{Model, Reader};
use crate::text;

fn progress(model: &mut Model, reader: Reader) -> &mut Progress {
    &mut model.link.readers[match reader {
        Reader::Journal => 0,
        Reader::Presence => 1,
        Reader::Flow => 2,
    }]
}

/// A reader begins, or goes on after an outage.
pub(super) fn opened(model: &mut Model, reader: Reader) {
    *progress(model, reader) = Progress::default();
}

/// What a reader brings.
pub(super) fn facts(model: &mut Model, reader: Reader, facts: &[Fact], left: u64) {
    let progress = progress(model, reader);
    progress.read += facts.len() as u64;
    progress.left = left;
    for fact in facts {
        model.live_mut().fold(fact);
    }
    if let Some(stored) = facts.iter().rev().find_map(stored) {
        model.link.measure_lag(model.clock, stored);
    }
}

fn stored(fact: &Fact) -> Option<Time> {
    match fact {
        Fact::Record(record) => Some(record.stored),
        Fact::Presence { seen, .. } => Some(*seen),
        Fact::Event { stored, .. } => Some(*stored),
        _ => None,
    }
}

/// A reader has read everything that was there when it began.
pub(super) fn caught_up(model: &mut Model, reader: Reader) {
    let was = model.link.is_caught_up();
    let progress = progress(model, reader);
    progress.caught_up = true;
    progress.left = 0;
    if was || !model.link.is_caught_up() {
        return;
    }
    let lost = tell_gaps(model);
    excuse(model);
    let Some(down) = model.link.down_since.take() else {
        return;
    };
    let read: u64 = model.link.readers.iter().map(|r| r.read).sum();
    let took = span(model.clock.since(down));
    model.link.holes.add(Hole {
        from: down,
        to: model.clock,
        lost: lost > 0,
    });
    let lost = match lost {
        0 => "none lost".to_owned(),
        lost => format!("{} lost", text::thousands(lost)),
    };
    model.mark(format!(
        "bus back, {took} backfilled: {lost}, {} messages",
        text::thousands(read)
    ));
}

/// Of the outage only that is an excuse in which the hub took no beats of any machine.
fn excuse(model: &mut Model) {
    let Some((outage, back)) = model.link.outage.and_then(|o| Some((o, o.back?))) else {
        return;
    };
    let beats = model.live().machines().values().map(|machine| machine.seen);
    let heard = beats.filter(|seen| *seen < back).max();
    model.link.outage = Some(Outage {
        heard: heard.unwrap_or(outage.heard).max(outage.heard),
        ..outage
    });
}

/// Messages were gone before a reader came to them.
pub(super) fn missed(model: &mut Model, gap: Gap) {
    model.link.missed(model.clock, gap);
    // While it catches up there may be more of it.
    if model.link.is_caught_up() {
        tell_gaps(model);
        let (from, to) = (model.clock, model.clock);
        let lost = true;
        model.link.holes.add(Hole { from, to, lost });
    }
}

/// Marks what was missed; how many messages that were.
fn tell_gaps(model: &mut Model) -> u64 {
    let gaps = std::mem::take(&mut model.link.gaps);
    for gap in &gaps {
        let what = match gap.reader {
            Reader::Journal => "records",
            Reader::Presence => "beats",
            Reader::Flow => "ev",
        };
        let (count, first, last) = (
            text::thousands(gap.count),
            text::thousands(gap.first),
            text::thousands(gap.last),
        );
        let to = model.look.range();
        model.mark(format!(
            "LOST {count} {what} seq {first}{to}{last}: gone before they were read"
        ));
    }
    gaps.iter().map(|gap| gap.count).sum()
}

/// The link came or went, or there is another error to show.
pub(super) fn changed(model: &mut Model, up: bool, error: Option<String>, slow_drops: u64) {
    let judged = model.as_of();
    let link = &mut model.link;
    link.slow_drops = slow_drops;
    if up != link.up {
        link.since = model.clock;
        link.up = up;
        link.lag = None;
        if up {
            link.ever = true;
            link.next_try = None;
            link.hopeless = None;
            link.readers = Default::default();
            if let Some(outage) = &mut link.outage {
                outage.back = Some(model.clock);
            }
        } else {
            link.outage = Some(Outage {
                heard: judged,
                back: None,
            });
            link.rtt = None;
            link.down_since = link.down_since.or(Some(model.clock));
            let seq = text::thousands(model.live().journal_seq());
            model.mark(format!("bus down after record {seq}"));
        }
    }
    model.link.error = if up { None } else { error };
}

/// The next try to connect comes after so long.
pub(super) fn tries(model: &mut Model, no: u64, after: Duration) {
    model.link.next_try = Some((no, model.clock.plus(after)));
}
