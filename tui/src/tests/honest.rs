//! What is cut away, filtered or standing still says so, whatever else is the matter.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::snapshots::check_at;
use super::*;

fn press(model: &mut Model, code: KeyCode) {
    let at = model.clock;
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, at, Msg::Key(key));
}

fn keys(model: &mut Model, letters: &str) {
    for c in letters.chars() {
        press(model, KeyCode::Char(c));
    }
}

fn filtered(situation: Situation) -> Model {
    let mut model = model(situation, MONO);
    // The drawing of the fleet, and the dispatches.
    press(&mut model, KeyCode::BackTab);
    for filter in ["/m:forge", "/state:failed"] {
        keys(&mut model, filter);
        press(&mut model, KeyCode::Enter);
        press(&mut model, KeyCode::Tab);
    }
    model
}

#[test]
fn a_filter_says_what_it_hides_while_the_link_is_down_or_silent() {
    for situation in [Situation::Live, Situation::Down, Situation::Silent] {
        let mut model = filtered(situation);
        let (machines, jobs) = (
            model.hidden(crate::model::Pane::Machines),
            model.hidden(crate::model::Pane::Dispatches),
        );
        assert!(machines > 0 && jobs > 0);
        for (width, height) in [(120, 36), (80, 24), (60, 30)] {
            update(&mut model, later(13), Msg::Resize(width, height));
            let text = text(&draw(&model, width, height));
            for hides in [
                format!("hides {machines}: /m:forge"),
                format!("hides {jobs}: /state:failed"),
            ] {
                assert!(text.contains(&hides), "{situation:?} {hides}\n{text}");
            }
        }
    }
    let mut down = filtered(Situation::Down);
    update(&mut down, later(13), Msg::Resize(120, 36));
    let all = down.fleet.machines().len();
    let text = text(&draw(&down, 120, 36));
    assert!(text.contains(&format!("1 of {all} machines")), "{text}");
    check_at("filter-down-mono", down, &[(120, 36), (80, 24), (40, 10)]);
}

#[test]
fn what_stands_still_says_so_at_any_size() {
    for (width, height) in [
        (120, 36),
        (80, 24),
        (60, 16),
        (40, 10),
        (39, 9),
        (20, 5),
        (15, 1),
    ] {
        let mut model = model(Situation::Paused, MONO);
        update(&mut model, later(20), Msg::Resize(width, height));
        let first = row(&draw(&model, width, height), 0).to_lowercase();
        assert!(first.contains("paused"), "{width}x{height} {first}");
        assert!(first.contains("12:04:31"), "{width}x{height} {first}");
        assert!(!first.contains("12:04:51"), "{width}x{height} {first}");
    }
}

#[test]
fn machines_and_jobs_that_are_lost_are_counted_apart() {
    let live = model(Situation::Live, MONO);
    let line = row(&draw(&live, 60, 5), 0);
    assert!(line.starts_with("lost 1 machine 1 job ask 1"), "{line}");
}

#[test]
fn what_is_lost_stays_in_the_inbox_until_somebody_says_how_it_ended() {
    let mut model = model(Situation::Live, MONO);
    keys(&mut model, "!");
    update(&mut model, now(), Msg::Resize(80, 24));
    assert!(text(&draw(&model, 80, 24)).contains("1 failed more than an hour ago"));
    // Two hours later, told by the hub to be up to date.
    let at = later(2 * 3600);
    let journal_seq = model.live().journal_seq();
    let rtt = Duration::from_micros(640);
    update(&mut model, at, Msg::Probe { rtt, journal_seq });
    let text = text(&draw(&model, 80, 24));
    for expected in [
        "Inbox · 2",
        "1 waits for a person",
        "1 lost: nobody knows how it ended",
        "3 failed more than an hour ago",
        "1 job lost",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    // Without what runs and waits, older failures stand right below: they are not of the inbox.
    assert_eq!(crate::inbox::jobs(&model).count(), 2);
    let line = row(&draw(&model, 60, 5), 0);
    assert!(line.contains("1 job ask 1"), "{line}");
}

#[test]
fn an_inbox_with_nothing_in_it_does_not_say_that_all_is_well() {
    let mut model = model(Situation::Empty, MONO);
    let mut script = Script::default();
    let at = |seconds| demo::before(now(), seconds);
    let exit = fleet_contract::outcome::Outcome::Exited { exit_code: 2 };
    let facts = [
        script.dispatch(30, at(9000), "deploy", "make deploy", ""),
        script.claim(30, at(8990), "forge"),
        script.end(30, at(8980), exit, fleet_contract::record::Next::End),
    ];
    let facts = facts.into_iter().flatten().collect();
    let (reader, left) = (Reader::Journal, 0);
    update(
        &mut model,
        now(),
        Msg::Facts {
            reader,
            facts,
            left,
        },
    );
    keys(&mut model, "!");
    let text = text(&draw(&model, 80, 24));
    assert!(text.contains("nothing waits for you"), "{text}");
    assert!(
        text.contains("1 failed more than an hour ago: 2 lists all"),
        "{text}"
    );
    assert!(!text.contains("well"), "{text}");
}

#[test]
fn that_two_ran_is_in_the_inbox_and_the_dispatch_until_it_is_acknowledged() {
    let mut model = model(Situation::Empty, MONO);
    let mut script = Script::default();
    let at = |seconds| demo::before(now(), seconds);
    let exit = fleet_contract::outcome::Outcome::Exited { exit_code: 3 };
    let facts = vec![
        script.dispatch(30, at(9000), "deploy", "make deploy", ""),
        script.claim(30, at(8990), "forge"),
        script.exit(30, at(8000), 0),
        script.superseded(30, at(7000), "delta", exit),
    ];
    let tell = |model: &mut Model, facts: Vec<Option<fleet_contract::projection::Fact>>| {
        let facts = facts.into_iter().flatten().collect();
        let (reader, left) = (Reader::Journal, 0);
        let msg = Msg::Facts {
            reader,
            facts,
            left,
        };
        update(model, now(), msg);
    };
    tell(&mut model, facts);
    keys(&mut model, "!");
    update(&mut model, now(), Msg::Resize(120, 36));
    let inbox = text(&draw(&model, 120, 36));
    for expected in [
        "Inbox · 1",
        "1 ran twice, or on after its end",
        "two ran, after",
        "attempt 1 also ran, on delta: exit 3",
        "by its clock",
        "token 7; this end does not count",
        "fleet ack",
    ] {
        assert!(inbox.contains(expected), "{expected}\n{inbox}");
    }
    press(&mut model, KeyCode::Enter);
    let detail = text(&draw(&model, 120, 36));
    for expected in ["attempt 1", "also ran", "on delta: exit 3", "fleet ack"] {
        assert!(detail.contains(expected), "{expected}\n{detail}");
    }
    press(&mut model, KeyCode::Esc);
    let acknowledged = script.acknowledged(30, now());
    tell(&mut model, vec![acknowledged]);
    let inbox = text(&draw(&model, 120, 36));
    assert!(inbox.contains("nothing waits for you"), "{inbox}");
    // None of it is a failure.
    assert!(!inbox.contains("failed more than"), "{inbox}");
}

#[test]
fn what_stands_still_costs_nothing() {
    let mut model = blank(MONO);
    let journal = |facts| {
        let (reader, left) = (Reader::Journal, 0);
        Msg::Facts {
            reader,
            facts,
            left,
        }
    };
    let mut msgs = vec![link(true)];
    msgs.extend(READERS.map(Msg::Opened));
    msgs.push(journal(demo::fleet_of(3, 7, now())));
    msgs.extend(READERS.map(Msg::CaughtUp));
    msgs.push(Msg::Resize(120, 36));
    for msg in msgs {
        update(&mut model, now(), msg);
    }
    keys(&mut model, "2/state:running");
    press(&mut model, KeyCode::Enter);
    keys(&mut model, "1");
    let before = draw(&model, 120, 36);
    assert!(view::next_motion(&model).is_some(), "it moves");
    keys(&mut model, "p");
    model.ui.hush();
    assert_eq!(view::next_motion(&model), None);
    let more = journal(demo::facts(&mut Script::default(), now()));
    assert!(!crate::update::is_seen(&model, &more));
    let at = now().plus(Duration::from_millis(600));
    update(&mut model, at, more);
    assert_eq!(model.wakes_in(at), None, "no list waits to be made anew");
    let after = draw(&model, 120, 36);
    // The header says that it stands still; all else is as it was.
    let differ = (1..36).find(|y| row(&before, *y) != row(&after, *y));
    assert_eq!(differ, None, "{}", text(&after));
    keys(&mut model, "p");
    assert!(view::next_motion(&model).is_some());
}
