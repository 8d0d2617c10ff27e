//! An outage and what comes after it: nothing is made up, nothing is forgotten.

use fleet_contract::machine::MachineState;
use fleet_contract::projection::Fact;

use super::topology::fleet;
use super::*;
use crate::model::Phase;

fn back(model: &mut Model, at: Time, gap: Option<Gap>) {
    update(model, at, link(true));
    for reader in READERS {
        update(model, at, Msg::Opened(reader));
    }
    if let Some(gap) = gap {
        update(model, at, Msg::Gap(gap));
    }
    for reader in READERS {
        update(model, at, Msg::CaughtUp(reader));
    }
    let journal_seq = model.fleet.journal_seq();
    let rtt = Duration::from_millis(1);
    update(model, at, Msg::Probe { rtt, journal_seq });
}

/// Goes on for a while in which the hub answers.
fn alive(model: &mut Model, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let journal_seq = model.fleet.journal_seq();
        let rtt = Duration::from_millis(1);
        let msg = Msg::Probe { rtt, journal_seq };
        update(model, later(second), msg);
    }
}

fn states(model: &Model) -> Vec<MachineState> {
    model.machines_shown().map(|(state, _)| state).collect()
}

#[test]
fn a_hub_that_was_away_for_an_hour_makes_no_machine_lost_but_one_that_stays_away_is() {
    let mut model = model(Situation::Live, COLOUR);
    let before = states(&model);
    assert!(before.contains(&MachineState::Up), "{before:?}");
    update(&mut model, later(1), link(false));
    update(&mut model, later(3600), Msg::Tick);
    assert_eq!(states(&model), before, "while it is away");
    update(&mut model, later(3600), link(true));
    assert_eq!(states(&model), before, "while it is read");
    back(&mut model, later(3600), None);
    assert_eq!(model.phase(), Phase::Live);
    assert_eq!(states(&model), before, "at once");
    let beat = Fact::Presence {
        presence: Box::new(demo::presence("forge", 4, 1, 8, 32)),
        seq: 1_000_000,
        seen: later(3602),
    };
    let (reader, facts, left) = (Reader::Presence, vec![beat], 0);
    let msg = Msg::Facts {
        reader,
        facts,
        left,
    };
    update(&mut model, later(3602), msg);
    alive(&mut model, 3603..3612);
    let up = |model: &Model| states(model).contains(&MachineState::Up);
    assert!(up(&model), "{:?}", states(&model));
    alive(&mut model, 3612..3640);
    // Nobody was heard for half a minute by a hub that hears.
    assert!(!up(&model), "{:?}", states(&model));
}

#[test]
fn the_strip_keeps_an_outage_whether_it_was_read_later_or_never() {
    let strip = |model: &Model| row(&draw(model, 120, 36), 34);
    let outage = |gap| {
        let mut model = fleet(3);
        update(&mut model, now(), link(false));
        update(&mut model, later(150), Msg::Tick);
        back(&mut model, later(150), gap);
        strip(&model)
    };
    let read = outage(None);
    assert!(
        read.contains("▒▒▒ now") && read.contains("heard later"),
        "{read}"
    );
    assert!(!read.contains('░'), "{read}");
    let gap = Gap {
        reader: Reader::Flow,
        first: 5,
        last: 9,
        count: 5,
    };
    let lost = outage(Some(gap));
    assert!(
        lost.contains("░░░ now") && lost.contains("not heard"),
        "{lost}"
    );
    let mut model = fleet(3);
    for n in 0..200 {
        let at = later(2 * n);
        update(&mut model, at, link(false));
        back(&mut model, at, None);
    }
    assert!(model.link.holes.touch(now(), later(1)).is_some());
}

#[test]
fn no_cause_is_told_that_nobody_knows() {
    let mut model = model(Situation::Live, COLOUR);
    let down = Msg::Link {
        up: false,
        error: None,
        slow_drops: 0,
    };
    update(&mut model, later(1), down);
    let shown = text(&draw(&model, 120, 36));
    assert!(shown.contains("no link to nats://"), "{shown}");
    assert!(!shown.contains("refused"), "{shown}");
}

#[test]
fn what_is_not_read_to_its_end_is_as_uncertain_in_lists_as_in_the_drawing() {
    let model = model(Situation::CatchingUp, COLOUR);
    let shown = text(&draw(&model, 120, 36));
    assert!(shown.contains("? forge"), "{shown}");
    assert!(shown.contains("was running"), "{shown}");
    assert!(shown.contains("still reading"), "{shown}");
}

#[test]
fn lost_records_are_not_called_events() {
    let lost = |readers: &[Reader]| {
        let mut model = model(Situation::Live, COLOUR);
        for reader in readers {
            let gap = Gap {
                reader: *reader,
                first: 5,
                last: 6,
                count: 2,
            };
            update(&mut model, later(1), Msg::Gap(gap));
        }
        row(&draw(&model, 160, 36), 0)
    };
    for (readers, expected) in [
        (&[Reader::Flow][..], "lost 2 ev"),
        (&[Reader::Journal][..], "lost 2 records"),
        (&[Reader::Flow, Reader::Journal][..], "lost 4 messages"),
    ] {
        let header = lost(readers);
        assert!(header.contains(expected), "{expected}: {header}");
    }
}
