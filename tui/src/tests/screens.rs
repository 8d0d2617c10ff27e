//! The lists, the inbox, the details and the reasons: what they say, how they look in all looks,
//! and that a job's output stays where it is read.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fleet_contract::ids::JobId;
use fleet_contract::outcome::{Outcome, OutputStream};
use fleet_contract::projection::Fact;
use fleet_contract::record::Next;
use fleet_nats::output::Chunk;
use ratatui::style::{Color, Modifier};

use super::snapshots::check_at;
use super::*;
use crate::model::{Cmd, Detail, JobDetail};

fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, model.now, Msg::Key(key))
}

fn keys(model: &mut Model, letters: &str) {
    for c in letters.chars() {
        press(model, KeyCode::Char(c));
    }
}

fn sized(situation: Situation, look: Look, size: (u16, u16)) -> Model {
    let mut model = model(situation, look);
    let at = model.now;
    update(&mut model, at, Msg::Resize(size.0, size.1));
    model
}

fn shown(model: &Model) -> String {
    text(&draw(model, model.size.0, model.size.1))
}

fn feed(model: &mut Model, facts: impl IntoIterator<Item = Option<Fact>>) {
    let facts = facts.into_iter().flatten().collect();
    let msg = Msg::Facts {
        reader: Reader::Journal,
        facts,
        left: 0,
    };
    update(model, model.now, msg);
}

fn find(model: &Model, name: &str) -> JobId {
    let jobs = model.fleet.jobs().values();
    jobs.filter(|job| job.spec.title() == name)
        .map(|job| job.id)
        .next()
        .unwrap()
}

fn open(model: &mut Model, name: &str) -> JobId {
    let id = find(model, name);
    model.job = Some(id);
    keys(model, "2");
    assert_eq!(press(model, KeyCode::Enter), [Cmd::OpenLog(id)]);
    id
}

fn detail(model: &Model) -> &JobDetail {
    match &model.detail {
        Some(Detail::Job(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

fn push(model: &mut Model, id: JobId, chunks: Vec<Chunk>, left: u64) {
    let chunks = chunks
        .into_iter()
        .map(|mut chunk| {
            chunk.job = id;
            chunk
        })
        .collect();
    let job = id;
    update(model, model.now, Msg::Log { job, chunks, left });
}

fn numbered(from: u64, to: u64) -> String {
    (from..to).fold(String::new(), |text, n| text + &format!("line {n} of it\n"))
}

/// A fleet in which a job failed thrice on two machines, with what it wrote.
fn retried(look: Look) -> (Model, JobId) {
    let mut model = sized(Situation::Live, look, (120, 36));
    let mut script = Script::default();
    let _ = demo::facts(&mut script, now());
    let ago = |seconds| demo::before(now(), seconds);
    let exit = |code| Outcome::Exited { exit_code: code };
    let facts = vec![
        script.dispatch(30, ago(900), "flaky-deploy", "make deploy", ""),
        script.claim(30, ago(890), "forge"),
        script.end(30, ago(880), exit(2), Next::Backoff { until: ago(870) }),
        script.claim(30, ago(860), "anvil"),
        script.end(30, ago(840), exit(2), Next::End),
    ];
    feed(&mut model, facts);
    let id = open(&mut model, "flaky-deploy");
    let attempts: Vec<_> = model.fleet.job(id).unwrap().attempts.clone();
    assert_eq!(attempts.len(), 2);
    (model, id)
}

#[test]
fn the_inbox_says_what_was_asked_in_full_and_what_to_type() {
    let mut model = sized(Situation::Live, COLOUR, (60, 24));
    keys(&mut model, "!");
    let text = shown(&model);
    for expected in [
        "Inbox · 4",
        "1 waits for a person",
        "branch diverged by 3 commits: merge or rebase?",
        "1 lost: nobody knows how it ended",
        "the lease of its machine is over",
        "2 failed, timed out or never started",
        "signal 9 after 2 min",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    // Only verbs that there are, about the one that is selected.
    assert_eq!(text.matches("fleet retry").count(), 1, "{text}");
    // Long ones go on below, and what is more than a few lines says so.
    let long = "why ".repeat(200);
    let mut script = Script::default();
    let _ = demo::facts(&mut script, now());
    let ask = Next::Ask { question: long };
    let facts = vec![
        script.dispatch(31, now(), "asks-much", "ask", ""),
        script.claim(31, now(), "forge"),
        script.end(31, now(), Outcome::Exited { exit_code: 75 }, ask),
    ];
    feed(&mut model, facts);
    let text = shown(&model);
    assert!(text.contains("why why why"), "{text}");
    assert!(text.contains("2 wait for a person"), "{text}");
    let mut empty = sized(Situation::Empty, COLOUR, (60, 24));
    keys(&mut empty, "!");
    assert!(shown(&empty).contains("nothing waits for you"));
}

#[test]
fn output_is_pinned_while_lines_come_and_fall_out_and_follows_on_request() {
    let mut model = sized(Situation::Live, COLOUR, (100, 30));
    let id = open(&mut model, "fix-flaky-e2e");
    let chunk = |seq, text: &str| demo::output(5, seq, OutputStream::Stdout, text);
    push(&mut model, id, vec![chunk(1, &numbered(0, 100))], 7);
    let text = shown(&model);
    assert!(
        text.contains("following") && text.contains("line 99 of it"),
        "{text}"
    );
    assert!(text.contains("7 chunks to come"), "{text}");
    press(&mut model, KeyCode::PageUp);
    let top = detail(&model).top.unwrap();
    let first = format!("line {} of it", top.line);
    assert!(shown(&model).contains(&first));
    // What comes moves nothing; how far behind is said.
    for seq in 2..60 {
        let from = seq * 100;
        push(
            &mut model,
            id,
            vec![chunk(seq, &numbered(from, from + 100))],
            0,
        );
        assert!(shown(&model).contains(&first), "{seq}");
    }
    assert!(shown(&model).contains("behind by"), "{}", shown(&model));
    // Nor what falls out before it; and once it fell out itself, the oldest that is kept is shown.
    let long = "x".repeat(4000) + "\n";
    for seq in 60..1500 {
        push(&mut model, id, vec![chunk(seq, &long)], 0);
    }
    let log = &detail(&model).log;
    assert!(log.dropped() > top.line);
    assert!(shown(&model).contains("not kept here"), "{}", shown(&model));
    keys(&mut model, "f");
    assert_eq!(detail(&model).top, None);
}

#[test]
fn long_lines_are_broken_or_moved_and_the_place_is_kept() {
    let mut model = sized(Situation::Live, MONO, (60, 24));
    let id = open(&mut model, "fix-flaky-e2e");
    let wide = "漢字".repeat(60);
    let text = format!("begin {} end\nshort\n{wide}\n", "word ".repeat(40));
    push(
        &mut model,
        id,
        vec![demo::output(5, 1, OutputStream::Stdout, &text)],
        0,
    );
    assert!(!shown(&model).contains(" end"), "{}", shown(&model));
    keys(&mut model, "W");
    let broken = shown(&model);
    assert!(
        broken.contains(" end") && broken.contains("broken"),
        "{broken}"
    );
    assert!(broken.contains("…"), "rows that go on are marked: {broken}");
    keys(&mut model, "W");
    for _ in 0..4 {
        press(&mut model, KeyCode::Right);
    }
    let moved = shown(&model);
    assert!(moved.contains("from column 33"), "{moved}");
    assert!(!moved.contains("begin"), "{moved}");
    // Each row is as wide as the screen at most, wide letters too.
    let buffer = draw(&model, 60, 24);
    assert_eq!(buffer.area.width, 60);
    keys(&mut model, "T");
    assert!(shown(&model).contains("00:00:00.00"), "{}", shown(&model));
}

#[test]
fn output_is_searched_with_exact_counts_and_marks_that_need_no_colour() {
    let mut model = sized(Situation::Live, MONO, (100, 30));
    let id = open(&mut model, "fix-flaky-e2e");
    let line = |n: u64| match n % 50 {
        7 => format!("line {n} has a Needle and a needle\n"),
        _ => format!("line {n} of it\n"),
    };
    let lines = (0..1000).fold(String::new(), |text, n| text + &line(n));
    push(
        &mut model,
        id,
        vec![demo::output(5, 1, OutputStream::Stdout, &lines)],
        0,
    );
    press(&mut model, KeyCode::Char('g'));
    press(&mut model, KeyCode::Char('g'));
    keys(&mut model, "/needle");
    let text = shown(&model);
    assert!(text.contains("/needle 1 of 20 lines so far"), "{text}");
    press(&mut model, KeyCode::Enter);
    update(&mut model, now(), Msg::LogCaughtUp(id));
    keys(&mut model, "nn");
    let text = shown(&model);
    assert!(text.contains("/needle 3 of 20 lines"), "{text}");
    assert!(text.contains("▸   line 107 has a Needle"), "{text}");
    keys(&mut model, "N");
    assert!(
        shown(&model).contains("▸   line 57 has"),
        "{}",
        shown(&model)
    );
    // Reverse marks what was found, and nothing else in that line.
    let buffer = draw(&model, 100, 30);
    let y = (0..30)
        .find(|y| row(&buffer, *y).contains("line 57 has"))
        .unwrap();
    let marked: String = (0..100)
        .filter(|x| buffer[(*x, y)].modifier.contains(Modifier::REVERSED))
        .map(|x| buffer[(x, y)].symbol())
        .collect();
    assert_eq!(marked, "Needleneedle");
    // What comes is counted, and moves nothing.
    push(
        &mut model,
        id,
        vec![demo::output(5, 2, OutputStream::Stdout, "a needle\n")],
        0,
    );
    let text = shown(&model);
    assert!(text.contains("/needle 2 of 21 lines"), "{text}");
    assert!(text.contains("▸   line 57 has"), "{text}");
    // A capital letter means itself; nothing found is said.
    keys(&mut model, "/");
    for _ in 0..6 {
        press(&mut model, KeyCode::Backspace);
    }
    keys(&mut model, "nowhere");
    assert!(
        shown(&model).contains("/nowhere not found"),
        "{}",
        shown(&model)
    );
}

#[test]
fn from_an_event_to_the_line_of_its_time_and_back() {
    let mut model = sized(Situation::Live, COLOUR, (100, 30));
    keys(&mut model, "4");
    let events: Vec<_> = model.fleet.events().iter().rev().collect();
    let job = find(&model, "index-repo");
    let (at, time) = events
        .iter()
        .enumerate()
        .find(|(_, (_, e))| e.job == Some(job) && e.word == "claimed")
        .map(|(at, (_, e))| (at, e.time))
        .unwrap();
    keys(&mut model, &"j".repeat(at));
    keys(&mut model, "gl");
    assert!(model.detail.is_some(), "{}", shown(&model));
    assert_eq!(detail(&model).id, job);
    assert_eq!(detail(&model).goal, Some(time));
    // Before it, at it and after it, a chunk each.
    for (seq, offset) in [(1, -5), (2, 1), (3, 9)] {
        let text = numbered(seq * 100, seq * 100 + 40);
        let mut chunk = demo::output(5, seq, OutputStream::Stdout, &text);
        chunk.head.time = demo::before(time, -offset);
        push(&mut model, job, vec![chunk], 0);
    }
    let text = shown(&model);
    assert!(text.contains("▸   line 200 of it"), "{text}");
    keys(&mut model, "ge");
    assert!(model.detail.is_none());
    let selected = model.selected_event().unwrap();
    assert_eq!(model.fleet.events()[&selected].time, time);
}

#[test]
fn in_the_inbox_enter_opens_what_is_selected_there() {
    let mut model = sized(Situation::Live, COLOUR, (100, 30));
    // What is selected elsewhere is not in it.
    model.job = Some(find(&model, "unit"));
    keys(&mut model, "!");
    let first = find(&model, "fix-flaky-e2e");
    assert_eq!(press(&mut model, KeyCode::Enter), [Cmd::OpenLog(first)]);
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "jj");
    let third = find(&model, "nightly-bench");
    assert!(shown(&model).contains("▸✗ failed"), "{}", shown(&model));
    assert_eq!(press(&mut model, KeyCode::Enter), [Cmd::OpenLog(third)]);
}

#[test]
fn a_machine_that_does_not_fit_is_scrolled_to_its_end_and_no_further() {
    let mut model = sized(Situation::Live, COLOUR, (60, 16));
    keys(&mut model, "3");
    press(&mut model, KeyCode::Enter);
    assert!(!shown(&model).contains("skills"), "{}", shown(&model));
    for _ in 0..9 {
        press(&mut model, KeyCode::PageDown);
    }
    let end = shown(&model);
    assert!(end.contains("what happened"), "{end}");
    let top = model.ui.machine_top;
    press(&mut model, KeyCode::Down);
    assert_eq!(model.ui.machine_top, top);
    for _ in 0..99 {
        press(&mut model, KeyCode::Up);
    }
    assert!(shown(&model).contains("✕ lost  last beat"));
}

#[test]
fn output_of_several_attempts_is_told_apart_and_what_is_missing_is_said() {
    let (mut model, id) = retried(MONO);
    let ids: Vec<_> = model
        .fleet
        .job(id)
        .unwrap()
        .attempts
        .iter()
        .map(|a| a.id)
        .collect();
    assert_eq!(ids[0], ids[1], "the script's attempts share an id");
    let of = |attempt: u8, seq, stream, text: &str| demo::output(attempt, seq, stream, text);
    let chunks = vec![
        of(30, 1, OutputStream::Stdout, "\x1b[31mred\x1b[0m one\n"),
        of(30, 30, OutputStream::Stderr, "after a gap\n"),
        of(77, 1, OutputStream::Stdout, "of another\n"),
    ];
    push(&mut model, id, chunks, 0);
    update(&mut model, now(), Msg::LogCaughtUp(id));
    let text = shown(&model);
    for expected in [
        "28 chunks are missing here",
        "2> after a gap",
        "an attempt on forge that the journal does not name",
        "attempt 1   forge exit 2",
        "attempt 2   anvil exit 2",
        "token ",
        "make deploy",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let order = |what: &str| text.find(what).unwrap();
    assert!(order("red one") < order("missing here"));
    // Without colour none is set, whatever the output wants.
    let buffer = draw(&model, 120, 36);
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset));
    // Its journal stands beside it, newest first.
    assert!(order("✗ failed") < order("claimed"), "{text}");
    assert!(text.contains("times in UTC"));
}

#[test]
fn why_tells_the_chain_in_words_with_what_was_measured() {
    let mut model = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut model, "2");
    let mut why = |name: &str| {
        model.job = Some(find(&model, name));
        keys(&mut model, "w");
        let text = shown(&model);
        press(&mut model, KeyCode::Esc);
        text
    };
    for (name, expected) in [
        (
            "gpu-sweep",
            "it may only run on opal, which is offline; last heard of 1 h ago",
        ),
        ("make -j8 test", "slots are free on"),
        ("train-ablate", "attempt 1 runs on forge since 1 h"),
        ("sync-mirror", "pauses before attempt 2, due in 14 s"),
        ("fix-flaky-e2e", "asks for 4 min: branch diverged"),
        ("render-intro", "onyx is lost, last heard of 3 min ago"),
        ("docs-build", "it was worth one attempt"),
        ("nightly-bench", "attempt 1 on forge: signal 9 after"),
    ] {
        let text = why(name);
        assert!(text.contains(expected), "{name}: {expected}\n{text}");
    }
    keys(&mut model, "3");
    keys(&mut model, "w");
    let text = shown(&model);
    assert!(
        text.contains("its connection closed without goodbye 3 min ago"),
        "{text}"
    );
    // While the bus is down it is said that all of it is old.
    let mut down = sized(Situation::Down, COLOUR, (120, 36));
    keys(&mut down, "2w");
    assert!(shown(&down).contains("as of 12:04:31"), "{}", shown(&down));
}

#[test]
fn why_of_a_failed_dispatch_tells_the_last_of_its_standard_error() {
    let (mut model, id) = retried(COLOUR);
    let chunks = vec![
        demo::output(30, 1, OutputStream::Stdout, &numbered(0, 50)),
        demo::output(
            30,
            2,
            OutputStream::Stderr,
            "warning: old\nerror: no such host\n",
        ),
    ];
    push(&mut model, id, chunks, 0);
    keys(&mut model, "w");
    let text = shown(&model);
    assert!(text.contains("the last on standard error:"), "{text}");
    assert!(text.contains("      error: no such host"), "{text}");
}

#[test]
fn the_selected_event_is_told_whole_and_the_zone_once() {
    let mut model = sized(Situation::Live, COLOUR, (60, 20));
    keys(&mut model, "4");
    let text = shown(&model);
    assert_eq!(text.matches("UTC").count(), 1, "{text}");
    keys(&mut model, "jj");
    let text = shown(&model);
    assert!(text.contains("2026-01-31 12:0"), "{text}");
}

#[test]
fn a_machine_tells_its_causes_its_work_and_its_age() {
    let mut model = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut model, "3");
    press(&mut model, KeyCode::Enter);
    let text = shown(&model);
    for expected in [
        "Machine · onyx",
        "✕ lost  last beat 3 min ago",
        "its connection closed without goodbye 3 min ago",
        "runs now",
        "render-intro",
        "0 succeeded  0 failed  1 lost",
        "linux 6.12 x86_64",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

/// Everything of this file, at every size: nothing panics.
#[test]
fn no_size_is_too_small_for_a_detail() {
    let (mut job, id) = retried(ASCII);
    let noise = "漢字\t\x1b[31mred\x1b[0m 🚀 \x07".repeat(40) + "\n";
    push(
        &mut job,
        id,
        vec![demo::output(30, 1, OutputStream::Stderr, &noise.repeat(60))],
        3,
    );
    let mut wrapped = job.clone();
    keys(&mut wrapped, "WT");
    press(&mut wrapped, KeyCode::PageUp);
    let mut machine = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut machine, "3");
    press(&mut machine, KeyCode::Enter);
    let mut inbox = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut inbox, "!");
    let mut why = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut why, "2w");
    let mut models = [job, wrapped, machine, inbox, why];
    let mut turn = 0;
    for width in (0..=60).chain((61..=200).step_by(13)) {
        for height in (0..=30).chain((31..=80).step_by(11)) {
            turn += 1;
            let model = &mut models[turn % 5];
            model.size = (width, height);
            draw(model, width, height);
            press(model, KeyCode::Up);
            press(model, KeyCode::PageDown);
        }
    }
}

#[test]
fn the_selected_row_is_one_bar_and_no_colour_is_needed_to_see_it() {
    for look in [COLOUR, MONO, ASCII] {
        let mut model = sized(Situation::Live, look, (100, 30));
        keys(&mut model, "2j");
        let buffer = draw(&model, 100, 30);
        let y = (0..30)
            .find(|y| {
                row(&buffer, *y).contains(look.pointer()) && row(&buffer, *y).contains("lost")
            })
            .unwrap();
        for x in 1..98 {
            let cell = &buffer[(x, y)];
            assert!(cell.modifier.contains(Modifier::REVERSED), "{x}");
            assert_eq!(cell.fg, Color::Reset, "{x}");
        }
    }
}

fn look_name(look: Look) -> &'static str {
    match look {
        COLOUR => "colour",
        MONO => "mono",
        _ => "ascii",
    }
}

/// A screen by its name.
fn screen(name: &str, situation: Situation, look: Look) -> Model {
    let mut model = sized(situation, look, (120, 36));
    match name {
        "dispatches" => keys(&mut model, "2"),
        "machines" => keys(&mut model, "3"),
        "events" => keys(&mut model, "4j"),
        "inbox" => keys(&mut model, "!"),
        "why" => keys(&mut model, "2w"),
        "machine" => {
            keys(&mut model, "3j");
            press(&mut model, KeyCode::Enter);
        }
        _ => {
            keys(&mut model, "2");
            press(&mut model, KeyCode::Enter);
            if let Some(id) = model.subject_job() {
                let text = "\x1b[32mok\x1b[0m 漢字\n".repeat(3);
                let chunks = vec![
                    demo::output(5, 1, OutputStream::Stdout, &text),
                    demo::output(5, 2, OutputStream::Stderr, "not ok\n"),
                ];
                push(&mut model, id, chunks, 2);
            }
        }
    }
    model
}

const SCREENS: [&str; 7] = [
    "dispatches",
    "machines",
    "events",
    "inbox",
    "why",
    "machine",
    "job",
];

#[test]
fn every_screen_looks_as_it_did() {
    const ALL: [(u16, u16); 6] = [(120, 36), (80, 24), (60, 16), (40, 10), (20, 5), (1, 1)];
    const ONE: [(u16, u16); 1] = [(80, 24)];
    for name in SCREENS {
        for (look, sizes) in [(COLOUR, &ALL[..]), (MONO, &ONE[..]), (ASCII, &ONE[..])] {
            let file = format!("{name}-live-{}", look_name(look));
            check_at(&file, screen(name, Situation::Live, look), sizes);
        }
        for (word, situation) in [("down", Situation::Down), ("empty", Situation::Empty)] {
            let file = format!("{name}-{word}-colour");
            check_at(&file, screen(name, situation, COLOUR), &ONE);
        }
    }
    for (name, pane) in [("dispatches", "2"), ("machines", "3"), ("events", "4")] {
        let mut hides = sized(Situation::Live, COLOUR, (120, 36));
        keys(&mut hides, pane);
        keys(&mut hides, "/nothing-is-called-so");
        press(&mut hides, KeyCode::Enter);
        check_at(&format!("{name}-hidden-colour"), hides, &ONE);
    }
    let mut ordered = sized(Situation::Live, COLOUR, (120, 36));
    keys(&mut ordered, "2 j sss");
    check_at("dispatches-ordered-colour", ordered, &ONE);
}

#[test]
fn a_question_that_does_not_fit_the_first_line_goes_on_below() {
    let mut model = sized(Situation::Live, COLOUR, (60, 24));
    open(&mut model, "fix-flaky-e2e");
    let text = shown(&model);
    assert!(
        text.contains("branch diverged by 3 commits: merge or rebase?"),
        "{text}"
    );
    // What was asked can be read while the bus is down, too.
    let mut down = sized(Situation::Down, COLOUR, (100, 24));
    open(&mut down, "fix-flaky-e2e");
    let text = shown(&down);
    assert!(text.contains("unknown for 13 s: branch diverged"), "{text}");
}
