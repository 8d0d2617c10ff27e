//! What keys and messages do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fleet_contract::ids::JobId;
use fleet_contract::outcome::OutputStream;
use fleet_contract::projection::Fact;

use super::*;
use crate::model::{Cmd, Detail, Pane, Phase, Screen};
use crate::plain::Told;

fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, model.now, Msg::Key(key))
}

fn letter(model: &mut Model, c: char) -> Vec<Cmd> {
    press(model, KeyCode::Char(c))
}

fn shown(model: &Model) -> String {
    text(&draw(model, 120, 36))
}

fn listed(model: &Model) -> Vec<JobId> {
    model
        .fleet
        .worst_first(model.as_of())
        .map(|j| j.id)
        .collect()
}

#[test]
fn the_worst_is_selected_until_the_person_moves_and_then_the_job_is_kept() {
    let mut model = model(Situation::Live, COLOUR);
    let order = listed(&model);
    assert_eq!(model.selected_job(), Some(order[0]));
    letter(&mut model, 'j');
    press(&mut model, KeyCode::Down);
    letter(&mut model, 'k');
    assert_eq!(model.selected_job(), Some(order[1]));
    letter(&mut model, 'G');
    assert_eq!(model.selected_job(), order.last().copied());
    letter(&mut model, 'j');
    assert_eq!(model.selected_job(), order.last().copied());
    // Hours later the order is another one; the selection is not.
    update(&mut model, later(7200), Msg::Tick);
    assert_eq!(model.selected_job(), order.last().copied());
    press(&mut model, KeyCode::Home);
    assert_eq!(model.selected_job(), listed(&model).first().copied());
}

#[test]
fn enter_opens_a_job_with_its_log_and_escape_goes_back_but_never_out() {
    let mut model = model(Situation::Live, COLOUR);
    let id = model.selected_job().unwrap();
    assert_eq!(press(&mut model, KeyCode::Enter), [Cmd::OpenLog(id)]);
    assert!(shown(&model).contains("not read yet"));
    update(&mut model, now(), Msg::LogCaughtUp(id));
    assert!(shown(&model).contains("no output yet"));
    let mut chunk = demo::output(5, 1, OutputStream::Stderr, "hello\x1b[2J\n");
    chunk.job = id;
    let msg = Msg::Log {
        job: id,
        chunks: vec![chunk.clone()],
        left: 0,
    };
    update(&mut model, now(), msg);
    assert!(shown(&model).contains("2> hello\\u{1b}[2J"));
    assert_eq!(press(&mut model, KeyCode::Enter), []);
    assert_eq!(press(&mut model, KeyCode::Esc), [Cmd::CloseLog]);
    assert_eq!(press(&mut model, KeyCode::Esc), []);
    assert!(model.detail.is_none());
    // Output that was on its way when it was closed.
    let msg = Msg::Log {
        job: id,
        chunks: vec![chunk],
        left: 0,
    };
    update(&mut model, now(), msg);
    assert_eq!(letter(&mut model, 'q'), [Cmd::Quit]);
}

#[test]
fn a_log_follows_its_end_until_the_person_scrolls_and_then_stays_where_it_is() {
    let mut model = model(Situation::Live, COLOUR);
    update(&mut model, now(), Msg::Resize(120, 36));
    let id = model.selected_job().unwrap();
    press(&mut model, KeyCode::Enter);
    let push = |model: &mut Model, seq: u64| {
        let lines: String = (0..50).fold(String::new(), |t, n| t + &format!("line {seq}/{n}\n"));
        let mut chunk = demo::output(5, seq, OutputStream::Stdout, &lines);
        chunk.job = id;
        let msg = Msg::Log {
            job: id,
            chunks: vec![chunk],
            left: 0,
        };
        update(model, now(), msg);
    };
    push(&mut model, 1);
    assert!(shown(&model).contains("line 1/49"));
    press(&mut model, KeyCode::Home);
    assert!(shown(&model).contains("line 1/0\u{20}"));
    push(&mut model, 2);
    assert!(shown(&model).contains("line 1/0\u{20}") && shown(&model).contains("f follows"));
    letter(&mut model, 'f');
    push(&mut model, 3);
    assert!(shown(&model).contains("line 3/49"));
    letter(&mut model, 'k');
    push(&mut model, 4);
    assert!(!shown(&model).contains("line 4/49"));
    letter(&mut model, 'G');
    assert!(shown(&model).contains("line 4/49"));
}

#[test]
fn tab_goes_through_panes_and_screens_and_back() {
    let mut model = model(Situation::Live, COLOUR);
    let mut seen = Vec::new();
    for _ in 0..8 {
        press(&mut model, KeyCode::Tab);
        seen.push((model.screen, model.focus()));
    }
    assert_eq!(seen[0], (Screen::Fleet, Pane::Events));
    assert_eq!(seen[1], (Screen::Dispatches, Pane::Dispatches));
    assert_eq!(seen[6], (Screen::Fleet, Pane::Machines));
    assert_eq!(seen[7], (Screen::Fleet, Pane::Dispatches));
    press(&mut model, KeyCode::BackTab);
    assert_eq!((model.screen, model.focus()), seen[6]);
    letter(&mut model, '3');
    press(&mut model, KeyCode::Enter);
    assert!(matches!(model.detail, Some(Detail::Machine(_))));
    assert!(shown(&model).contains("Machine · onyx"));
    letter(&mut model, '1');
    assert!(model.detail.is_none());
}

#[test]
fn an_event_leads_to_its_job_and_following_begins_again_at_the_newest() {
    let mut model = model(Situation::Live, COLOUR);
    letter(&mut model, '4');
    assert_eq!(model.event, None);
    letter(&mut model, 'j');
    assert!(model.event.is_some());
    let event = model.fleet.events()[&model.selected_event().unwrap()].clone();
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        [Cmd::OpenLog(event.job.unwrap())]
    );
    press(&mut model, KeyCode::Esc);
    letter(&mut model, 'k');
    assert_eq!(model.event, None);
}

#[test]
fn what_is_shown_while_the_bus_is_down_is_dated_and_the_gap_is_marked() {
    let down = model(Situation::Down, COLOUR);
    let text = shown(&down);
    for expected in [
        "BUS DOWN 00:12",
        "AS OF 12:04:31",
        "nothing below is live",
        "? forge last ● up",
        "was running",
        "unknown for 13 s",
        "── bus down after record 29",
        "✗ failed",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("LIVE"));
    let mut back = down;
    let at = later(40);
    update(&mut back, at, link(true));
    for reader in READERS {
        update(&mut back, at, Msg::Opened(reader));
    }
    assert!(shown(&back).contains("CATCHING UP 0/0"));
    for reader in READERS {
        update(&mut back, at, Msg::CaughtUp(reader));
    }
    let text = shown(&back);
    assert!(text.contains("LIVE"), "{text}");
    assert!(text.contains("bus back, 39 s backfilled: none"), "{text}");
}

#[test]
fn a_hub_that_does_not_answer_is_not_believed() {
    let mut model = model(Situation::Live, COLOUR);
    update(&mut model, later(6), Msg::Tick);
    assert_eq!(model.phase(), Phase::Live);
    update(&mut model, later(9), Msg::Tick);
    let text = shown(&model);
    assert!(text.contains("NO ANSWER 00:09"), "{text}");
    assert!(text.contains("AS OF 12:04:31"), "{text}");
    // The machines did not become stale: nobody knows.
    assert!(text.contains("? forge last ● up"), "{text}");
    let rtt = Duration::from_millis(3);
    let journal_seq = 0;
    update(&mut model, later(9), Msg::Probe { rtt, journal_seq });
    assert_eq!(model.phase(), Phase::Live);
}

#[test]
fn a_clock_that_goes_back_makes_nothing_younger() {
    let mut model = model(Situation::Live, COLOUR);
    let before = model.now;
    update(&mut model, Time::from_micros(0), Msg::Tick);
    assert_eq!(model.now, before);
}

#[test]
fn what_peers_wrote_cannot_reach_the_terminal_as_control() {
    let mut model = model(Situation::Live, COLOUR);
    let mut presence = demo::presence("evil", 2, 0, 2, 4);
    presence.host = "\x1b[2Jhost\u{9b}".to_owned();
    presence.specs.os = "a\nb\u{202e}".to_owned();
    let mut script = Script::default();
    for _ in 0..20 {
        script.beat(now(), presence.clone());
    }
    let fact = script.beat(now(), presence);
    assert!(matches!(fact, Fact::Presence { .. }));
    update(
        &mut model,
        now(),
        Msg::Facts {
            reader: Reader::Presence,
            facts: vec![fact],
            left: 0,
        },
    );
    model.machine = Some("evil".parse().unwrap());
    letter(&mut model, '3');
    press(&mut model, KeyCode::Enter);
    let buffer = draw(&model, 120, 36);
    assert!(text(&buffer).contains("\\u{1b}[2Jhost\\u{9b}"));
    assert!(text(&buffer).contains("a\\nb\\u{202e}"));
    let controls = |cell: &ratatui::buffer::Cell| cell.symbol().chars().any(char::is_control);
    assert!(!buffer.content.iter().any(controls));
}

#[test]
fn the_kinds_of_empty_each_say_which_they_are() {
    let text = shown(&model(Situation::Empty, COLOUR));
    assert!(text.contains("no jobs yet: fleet dispatch --follow -- uname -a"));
    assert!(text.contains("no machines yet: fleet up"));
    let mut connecting = model(Situation::Connecting, COLOUR);
    let text = shown(&connecting);
    assert!(text.contains("CONNECTING"), "{text}");
    assert!(text.contains("not loaded yet: no link"), "{text}");
    assert!(!text.contains("no jobs yet"), "{text}");
    update(&mut connecting, later(1), link(false));
    let text = shown(&connecting);
    assert!(
        text.contains("could not look: connection refused"),
        "{text}"
    );
    let mut reading = blank(COLOUR);
    update(&mut reading, now(), link(true));
    let text = shown(&reading);
    assert!(text.contains("not loaded yet: still reading"), "{text}");
}

#[test]
fn a_console_that_falls_behind_says_so_and_when_it_is_back() {
    let mut model = model(Situation::Slow, COLOUR);
    let text = shown(&model);
    for expected in ["SLOW", "behind 12,040 ev / 5.0 s", "counts are exact"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("LIVE"), "{text}");
    // What it shows was true then: nobody became stale meanwhile.
    assert_eq!(model.as_of(), now());
    let mut script = Script::default();
    let mut facts = |left| Msg::Facts {
        reader: Reader::Flow,
        facts: vec![script.beat(later(5), demo::presence("forge", 4, 1, 8, 32))],
        left,
    };
    update(&mut model, later(5), facts(300));
    assert!(matches!(model.phase(), Phase::Slow { left: 300, .. }));
    update(&mut model, later(5), facts(2));
    assert_eq!(model.phase(), Phase::Live);
    // Much is to come, but it is no older than a moment: that is a busy bus, not a slow console.
    update(&mut model, later(5), facts(900));
    assert_eq!(model.phase(), Phase::Live);
}

#[test]
fn what_was_missed_is_marked_once_and_counted_for_ever() {
    let mut model = model(Situation::Down, COLOUR);
    let at = later(40);
    let gap = |first, last| {
        Msg::Gap(Gap {
            reader: Reader::Flow,
            first,
            last,
            count: last - first + 1,
        })
    };
    update(&mut model, at, link(true));
    for reader in READERS {
        update(&mut model, at, Msg::Opened(reader));
    }
    update(&mut model, at, gap(88_100, 88_500));
    update(&mut model, at, gap(88_502, 88_911));
    for reader in READERS {
        update(&mut model, at, Msg::CaughtUp(reader));
    }
    letter(&mut model, '4');
    let text = shown(&model);
    for expected in [
        "LOST 811 ev seq 88,100–88,911: gone",
        "bus back, 39 s backfilled: 811 lost, 0 messages",
        "lost 811 ev",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(text.matches("LOST").count(), 1);
    update(
        &mut model,
        later(7200),
        Msg::Probe {
            rtt: Duration::from_millis(1),
            journal_seq: 0,
        },
    );
    assert!(shown(&model).contains("lost 811 ev"));
    assert!(!text_of(&model, 20, 5).contains("gap"));
}

fn text_of(model: &Model, columns: u16, rows: u16) -> String {
    text(&draw(model, columns, rows))
}

#[test]
fn the_next_try_to_connect_is_counted_down() {
    let mut model = model(Situation::Down, COLOUR);
    let after = Duration::from_millis(2900);
    update(&mut model, later(13), Msg::Tries { no: 4, after });
    assert!(shown(&model).contains("try 4 in 3 s"));
    update(&mut model, later(15), Msg::Tick);
    assert!(shown(&model).contains("try 4 in 1 s"));
    update(&mut model, later(17), Msg::Tick);
    assert!(shown(&model).contains("try 4 now"));
    update(&mut model, later(17), link(true));
    assert!(!shown(&model).contains("try 4"));
}

#[test]
fn credentials_that_can_only_read_and_refused_ones_are_told() {
    assert!(shown(&model(Situation::ReadOnly, MONO)).contains("READ-ONLY"));
    let text = shown(&model(Situation::Refused, MONO));
    assert!(text.contains("refuses these credentials"), "{text}");
}

#[test]
fn plain_lines_are_news_and_the_state_when_it_changes() {
    let mut told = Told::default();
    let mut model = model(Situation::Live, MONO);
    let lines = told.lines(&model, true);
    assert_eq!(
        lines,
        [
            "reading fleet home is done",
            "12:04:31 live: lost 1 machine 1 job ask 1 fail 2 degraded 1 run 3 wait 3 up 2",
        ]
    );
    assert_eq!(told.lines(&model, true), Vec::<String>::new());
    update(&mut model, later(2), link(false));
    let lines = told.lines(&model, true);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("bus down after record 29"));
    assert!(lines[1].contains("bus down, last known as of 12:04:31: lost 1 machine 1 job"));
    assert!(lines.iter().all(|l| !l.chars().any(char::is_control)));
}

#[test]
fn plain_lines_leave_out_nothing_that_came_out_of_order() {
    let mut told = Told::default();
    let mut model = model(Situation::Live, MONO);
    told.lines(&model, true);
    let mut script = Script::default();
    script.seq = model.fleet.journal_seq();
    let mut dispatched = |seconds, name: &str, n| {
        let fact = script
            .dispatch(n, later(seconds), name, "make", "")
            .unwrap();
        let msg = Msg::Facts {
            reader: Reader::Journal,
            facts: vec![fact],
            left: 0,
        };
        update(&mut model, later(seconds), msg);
        told.lines(&model, false).join("\n")
    };
    assert!(dispatched(9, "first", 201).contains("first"));
    // Its stamp is before the one that was told.
    let line = dispatched(5, "second", 202);
    assert!(line.contains("second") && !line.contains("first"), "{line}");
    assert!(dispatched(9, "third", 203).contains("third"));
    // Another store counts from one, and what is in it is no news.
    update(&mut model, later(10), Msg::Reset);
    let lines = told.lines(&model, false).join("\n");
    assert!(lines.contains("another one"), "{lines}");
}

#[test]
fn plain_lines_say_that_credentials_are_refused() {
    let lines = Told::default().lines(&model(Situation::Refused, MONO), true);
    let state = lines.last().unwrap();
    assert!(state.contains("refuses these credentials"), "{lines:?}");
}

#[test]
fn another_store_is_another_fleet() {
    let mut model = model(Situation::Live, COLOUR);
    update(&mut model, now(), Msg::Reset);
    assert!(model.fleet.jobs().is_empty());
    assert!(shown(&model).contains("another one"));
}
