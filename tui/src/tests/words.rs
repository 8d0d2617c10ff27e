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
    for there in ["fleet cancel", "dispatch it again"] {
        assert!(all.contains(there), "{there}\n{all}");
    }
    for none in ["--retries", "fleet retry", "fleet resolve", "fleet answer"] {
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
