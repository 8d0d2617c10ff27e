//! Where hub and agent run in the console's process, as in `fleet up`: it is not suspended, and
//! asks before it is left while jobs run.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::model::Cmd;

fn press(model: &mut Model, code: KeyCode, modifiers: KeyModifiers) -> Vec<Cmd> {
    let at = model.clock;
    update(model, at, Msg::Key(KeyEvent::new(code, modifiers)))
}

fn plain(model: &mut Model, c: char) -> Vec<Cmd> {
    press(model, KeyCode::Char(c), KeyModifiers::NONE)
}

fn ctrl(model: &mut Model, c: char) -> Vec<Cmd> {
    press(model, KeyCode::Char(c), KeyModifiers::CONTROL)
}

fn with_hub(situation: Situation) -> Model {
    let mut model = model(situation, MONO);
    model.ui.with_hub();
    model
}

fn shown(model: &mut Model, (width, height): (u16, u16)) -> String {
    let at = model.clock;
    update(model, at, Msg::Resize(width, height));
    text(&draw(model, width, height))
}

#[test]
fn what_would_stop_the_hub_is_refused_with_what_to_type() {
    for size in [(120, 36), (80, 24), (60, 16)] {
        let mut model = with_hub(Situation::Live);
        assert_eq!(ctrl(&mut model, 'z'), []);
        let text = shown(&mut model, size);
        assert!(text.contains("would stop"), "{text}");
        let whole = size.0 >= 80;
        assert!(
            !whole || text.contains("fleet up --detach, fleet tui"),
            "{text}"
        );
    }
    let text = shown(
        &mut {
            let mut model = with_hub(Situation::Live);
            ctrl(&mut model, 'z');
            model
        },
        (20, 5),
    );
    assert!(text.contains("hub and agent run"), "{text}");
    // Elsewhere it is the shell's.
    assert_eq!(ctrl(&mut model(Situation::Live, MONO), 'z'), [Cmd::Suspend]);
}

#[test]
fn leaving_is_asked_about_while_jobs_run_and_only_y_is_a_yes() {
    type Key = fn(&mut Model) -> Vec<Cmd>;
    let keys: [(Key, Cmd); 3] = [
        (|m| plain(m, 'q'), Cmd::Quit),
        (|m| ctrl(m, 'c'), Cmd::Quit),
        (|m| plain(m, 'Q'), Cmd::QuitKeeping),
    ];
    for (key, cmd) in keys {
        let mut model = with_hub(Situation::Live);
        assert_eq!(key(&mut model), []);
        // Again, and again: no answer.
        assert_eq!(key(&mut model), []);
        assert_eq!(ctrl(&mut model, 'c'), []);
        for size in [(120, 36), (80, 24), (60, 16), (40, 10), (40, 7), (20, 5)] {
            let text = shown(&mut model, size).replace(['\n', ' '], "");
            assert!(text.contains("jobsrun"), "{size:?}\n{text}");
            assert!(text.contains("y/N"), "{size:?}\n{text}");
        }
        assert_eq!(ctrl(&mut model, 'y'), []);
        assert_eq!(model.ui.leaving.asked, None, "anything else is a no");
        for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Enter] {
            key(&mut model);
            assert_eq!(press(&mut model, no, KeyModifiers::NONE), []);
            assert!(model.ui.leaving.asked.is_none() && model.detail.is_none());
            assert!(shown(&mut model, (80, 24)).contains("nothing was ended"));
        }
        key(&mut model);
        let paste = Msg::Paste("y".to_owned());
        assert_eq!(update(&mut model, now(), paste), []);
        assert!(model.ui.leaving.asked.is_some(), "a paste is no answer");
        assert_eq!(plain(&mut model, 'y'), std::slice::from_ref(&cmd));
        // Elsewhere nothing is asked: nothing ends.
        assert_eq!(key(&mut super::model(Situation::Live, MONO)), [cmd]);
    }
    // Nothing runs.
    assert_eq!(plain(&mut with_hub(Situation::Empty), 'q'), [Cmd::Quit]);
    // Nobody knows yet whether anything does.
    let mut model = with_hub(Situation::Connecting);
    assert_eq!(plain(&mut model, 'q'), []);
    assert!(shown(&mut model, (80, 24)).contains("not known yet"));
}

#[test]
fn the_help_says_there_what_leaving_ends() {
    let mut model = with_hub(Situation::Live);
    plain(&mut model, '?');
    for c in "leave".chars() {
        plain(&mut model, c);
    }
    let text = shown(&mut model, (120, 36));
    assert!(text.contains("ends this hub and agent"), "{text}");
    assert!(!text.contains("nothing else stops"), "{text}");
    assert_eq!(ctrl(&mut model, 'c'), []);
    assert!(
        model.ui.leaving.asked.is_some(),
        "also while something is typed"
    );
}
