//! The words of the console: they name what there is, tell nothing from not known, and are whole.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fleet_contract::projection::span;

use super::*;

fn typed(model: &mut Model, letters: &str) {
    for c in letters.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        let key = KeyEvent::new(code, KeyModifiers::NONE);
        update(model, model.clock, Msg::Key(key));
    }
}

fn sized(situation: Situation, (width, height): (u16, u16)) -> Model {
    let mut model = model(situation, MONO);
    let at = model.clock;
    update(&mut model, at, Msg::Resize(width, height));
    model
}

fn shown(model: &Model) -> String {
    text(&draw(model, model.size.0, model.size.1))
}

#[test]
fn why_names_only_what_can_be_typed_today() {
    let mut model = sized(Situation::Live, (120, 36));
    let jobs: Vec<_> = model.fleet.jobs().keys().copied().collect();
    typed(&mut model, "2w");
    let mut all = String::new();
    for id in jobs {
        model.job = Some(id);
        all.push_str(&shown(&model));
    }
    for there in ["fleet cancel", "fleet retry", "fleet resolve"] {
        assert!(all.contains(there), "{there}\n{all}");
    }
    for none in ["dispatch it again", "fleet answer"] {
        assert!(!all.contains(none), "{none}\n{all}");
    }
}

#[test]
fn what_was_never_read_is_not_none() {
    for (width, height) in [(120, 36), (80, 24), (60, 16), (40, 10), (30, 3)] {
        for keys in ["", "2", "3", "4", "!"] {
            let mut model = sized(Situation::Connecting, (width, height));
            typed(&mut model, keys);
            let text = shown(&model);
            for wrong in [
                "as of",
                "0 machines",
                "Dispatches 0",
                "Machines 0",
                " 0 ─",
                "· 0",
            ] {
                assert!(!text.contains(wrong), "{wrong}: {keys} {width}\n{text}");
            }
        }
    }
    // An empty fleet that was read has none.
    assert!(shown(&sized(Situation::Empty, (120, 36))).contains("Dispatches 0"));
}

#[test]
fn one_small_line_has_whole_items_only() {
    let of = |width| row(&draw(&sized(Situation::Live, (width, 1)), width, 1), 0);
    let whole = of(200);
    let words: Vec<&str> = whole.split(' ').collect();
    for width in 14..80 {
        let line = of(width);
        let last = line.split(' ').next_back().unwrap();
        let at = line.split(' ').count();
        assert_eq!(words[at - 1], last, "{width}: {line}");
        let number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
        let next = words.get(at).copied().unwrap_or("");
        let counted = ["machine", "job"].contains(&next);
        assert!(!(number(last) && counted), "{width}: {line}");
        let named = ["lost", "ask", "fail", "degraded", "run", "wait", "up"].contains(&last);
        assert!(!named, "{width}: {line}");
    }
}

#[test]
fn a_bus_that_is_down_says_what_to_do_in_words_of_people() {
    let mut model = sized(Situation::Live, (120, 36));
    let link = |error: &str| Msg::Link {
        up: false,
        error: Some(error.to_owned()),
        slow_drops: 0,
    };
    update(
        &mut model,
        later(1),
        link("nats: IO error: Connection refused (os error 111)"),
    );
    let text = shown(&model);
    assert!(text.contains("connection refused"), "{text}");
    assert!(text.contains("there: fleet hub status"), "{text}");
    assert!(!text.contains("IO error"), "{text}");
    model.hub = "nats://127.0.0.1:4222".to_owned();
    update(
        &mut model,
        later(2),
        link("request to $JS.API.STREAM.INFO.FLOW timed out"),
    );
    let text = shown(&model);
    assert!(text.contains("does not answer"), "{text}");
    assert!(text.contains("fleet up starts it"), "{text}");
    assert!(!text.contains("$JS"), "{text}");
}

#[test]
fn a_second_star_takes_the_marks_away_though_rows_came() {
    let mut model = sized(Situation::Live, (120, 36));
    typed(&mut model, "2*");
    let marked = model.lists.jobs.marked.len();
    assert_eq!(marked, model.jobs_count());
    let mut script = Script::default();
    let _ = demo::facts(&mut script, now());
    let facts = script
        .dispatch(31, now(), "came-later", "true", "")
        .into_iter()
        .collect();
    let msg = Msg::Facts {
        reader: Reader::Journal,
        facts,
        left: 0,
    };
    update(&mut model, later(1), msg);
    assert_eq!(model.jobs_count(), marked + 1);
    typed(&mut model, "*");
    assert!(model.lists.jobs.marked.is_empty());
    // Some marked by hand become all.
    typed(&mut model, "gg *");
    assert_eq!(model.lists.jobs.marked.len(), model.jobs_count());
}

#[test]
fn less_than_a_second_is_told_in_milliseconds_everywhere() {
    assert_eq!(span(Duration::from_millis(2)), "2 ms");
    assert_eq!(span(Duration::from_millis(999)), "999 ms");
    assert_eq!(span(Duration::from_millis(1000)), "1 s");
    let mut model = sized(Situation::Live, (160, 50));
    for keys in ["", "2", "4"] {
        typed(&mut model, keys);
        assert!(!shown(&model).contains(" 0.0 s"));
    }
}

#[test]
fn who_stands_on_the_first_row_sees_worse_ones_come() {
    let mut model = sized(Situation::Empty, (80, 24));
    let mut script = Script::default();
    // More than there is room for.
    let plain = (101..140).map(|no| script.dispatch(no, now(), "plain", "true", ""));
    let msg = Msg::Facts {
        reader: Reader::Journal,
        facts: plain.flatten().collect(),
        left: 0,
    };
    update(&mut model, now(), msg);
    typed(&mut model, "2gg");
    let selected = model.selected_job();
    let mut ask = |model: &mut Model, no: u32| {
        let ask = fleet_contract::record::Next::Ask {
            question: format!("question {no}?"),
        };
        let name = format!("asks-{no}");
        let end = fleet_contract::outcome::Outcome::Exited { exit_code: 75 };
        let facts = [
            script.dispatch(no, later(1), &name, "ask", ""),
            script.claim(no, later(1), "forge"),
            script.end(no, later(1), end, ask),
        ];
        let facts = facts.into_iter().flatten().collect();
        let msg = Msg::Facts {
            reader: Reader::Journal,
            facts,
            left: 0,
        };
        update(model, later(2), msg);
    };
    ask(&mut model, 41);
    ask(&mut model, 42);
    let first = model.jobs_shown().next().unwrap().spec.title();
    assert_eq!(model.selected_job(), selected);
    assert!(shown(&model).contains(&first), "{}", shown(&model));
    // More than there is room for is told above the list.
    for no in 43..70 {
        ask(&mut model, no);
    }
    assert_eq!(model.selected_job(), selected);
    assert!(shown(&model).contains("worse above"), "{}", shown(&model));
}

#[test]
fn names_of_machines_are_cut_last() {
    let name = "build-server-01";
    let mut model = sized(Situation::Live, (40, 10));
    let mut script = Script::default();
    let facts = vec![script.beat(now(), demo::presence(name, 4, 1, 8, 32))];
    update(
        &mut model,
        now(),
        Msg::Facts {
            reader: Reader::Presence,
            facts,
            left: 0,
        },
    );
    typed(&mut model, "3");
    for _ in 0..9 {
        typed(&mut model, "j");
    }
    assert!(shown(&model).contains(name), "{}", shown(&model));
    for size in [(120, 36), (80, 24)] {
        update(&mut model, now(), Msg::Resize(size.0, size.1));
        typed(&mut model, "1");
        assert!(shown(&model).contains(name), "{}", shown(&model));
    }
}

#[test]
fn typing_replaces_the_filter_that_stood_and_up_brings_it_back() {
    let mut model = sized(Situation::Live, (120, 36));
    typed(&mut model, "2/state:failed\n/");
    assert!(
        shown(&model).contains("typing replaces state:failed"),
        "{}",
        shown(&model)
    );
    assert_eq!(model.hidden(crate::model::Pane::Dispatches), 9);
    let key = KeyEvent::new(KeyCode::Up, KeyModifiers::NONE);
    update(&mut model, now(), Msg::Key(key));
    typed(&mut model, "x");
    assert!(
        shown(&model).contains("/state:failedx"),
        "{}",
        shown(&model)
    );
    typed(&mut model, "\u{1b}/n\n");
    assert_eq!(
        model
            .lists
            .filter(crate::model::Pane::Dispatches)
            .unwrap()
            .text,
        "n"
    );
    // The filter of the drawing is cleared from wherever it is seen.
    typed(&mut model, "\u{1b}3/m:forge\n1\u{1b}");
    assert_eq!(model.hidden(crate::model::Pane::Machines), 0);
}

#[test]
fn tab_stays_in_an_open_dispatch_and_its_summary_is_read_in_full() {
    let mut model = sized(Situation::Live, (80, 24));
    typed(&mut model, "2gg\n");
    assert!(model.detail.is_some());
    typed(&mut model, "\t");
    let mut all = String::new();
    for _ in 0..20 {
        all.push_str(&shown(&model));
        typed(&mut model, "j");
    }
    for part in ["command", "dispatched", "policy", "id "] {
        assert!(all.contains(part), "{part}\n{all}");
    }
    typed(&mut model, "\t\t");
    assert!(model.detail.is_some());
}

#[test]
fn the_keys_of_the_bus_are_none_of_lists() {
    let mut model = sized(Situation::Live, (120, 60));
    typed(&mut model, "6?");
    let text = shown(&model);
    assert!(text.contains("Keys of the bus"), "{text}");
    assert!(
        !text.contains("the row below") && !text.contains("the fleet nearer"),
        "{text}"
    );
}

#[test]
fn a_low_bus_says_how_much_is_not_on_it() {
    let mut model = sized(Situation::Live, (60, 8));
    typed(&mut model, "6");
    let text = shown(&model);
    assert!(text.contains("more where it is higher"), "{text}");
    update(&mut model, now(), Msg::Resize(120, 60));
    let text = shown(&model);
    assert!(!text.contains("more where it is higher"), "{text}");
}
