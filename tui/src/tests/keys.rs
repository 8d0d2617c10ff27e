//! Sequences of keys, popups, pastes, jumps.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::model::{Cmd, Detail, Screen};
use crate::ui::Popup;

fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, model.now, Msg::Key(key))
}

/// Types these letters; what the last one asked for.
fn typed(model: &mut Model, letters: &str) -> Vec<Cmd> {
    let each = letters.chars().map(|c| press(model, KeyCode::Char(c)));
    each.last().unwrap_or_default()
}

fn shown(model: &Model) -> String {
    text(&draw(model, 120, 36))
}

#[test]
fn a_sequence_shows_what_can_follow_after_a_moment_and_ends_with_escape_or_a_wrong_key() {
    let mut model = model(Situation::Live, COLOUR);
    typed(&mut model, "g");
    assert!(model.ui.hints(model.now).is_none());
    let left = model.ui.wakes_in(model.now).unwrap();
    assert_eq!(left, Duration::from_millis(300));
    update(&mut model, now().plus(left), Msg::Tick);
    let text = shown(&model);
    assert!(text.contains("m the machine of what is selected"), "{text}");
    assert_eq!(model.ui.wakes_in(model.now), None);
    press(&mut model, KeyCode::Esc);
    assert!(model.ui.pending.is_none() && model.detail.is_none());
    assert!(!shown(&model).contains("is no key here"));
    // An unknown key ends it and says so; it does nothing by itself.
    assert_eq!(typed(&mut model, "gq"), []);
    assert!(
        shown(&model).contains("gq is no key here"),
        "{}",
        shown(&model)
    );
    assert_eq!(typed(&mut model, "q"), [Cmd::Quit]);
}

#[test]
fn leaving_and_suspending_work_in_the_middle_of_a_sequence() {
    let mut model = model(Situation::Live, COLOUR);
    for (c, cmd) in [('c', Cmd::Quit), ('z', Cmd::Suspend)] {
        typed(&mut model, "g");
        let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        assert_eq!(update(&mut model, now(), Msg::Key(key)), [cmd]);
        assert!(model.ui.pending.is_none());
    }
}

#[test]
fn a_paste_is_no_keys() {
    let mut model = model(Situation::Live, COLOUR);
    let paste = Msg::Paste("q\u{1b}Q4".to_owned());
    assert_eq!(update(&mut model, now(), paste), []);
    assert_eq!(model.screen, Screen::Fleet);
    assert!(shown(&model).contains("the paste was left out"));
}

#[test]
fn escape_closes_one_thing_after_the_other_and_never_leaves() {
    let mut model = model(Situation::Live, COLOUR);
    press(&mut model, KeyCode::Enter);
    typed(&mut model, "w");
    assert!(shown(&model).contains("Why · xecq"), "{}", shown(&model));
    assert_eq!(press(&mut model, KeyCode::Esc), []);
    assert!(model.ui.popup.is_none() && model.detail.is_some());
    typed(&mut model, "?");
    assert!(matches!(model.ui.popup, Some(Popup::Help(_))));
    // What is typed there is searched for.
    assert_eq!(typed(&mut model, "q"), []);
    assert!(model.ui.popup.is_some());
    press(&mut model, KeyCode::Esc);
    assert!(matches!(
        press(&mut model, KeyCode::Esc)[..],
        [Cmd::CloseLog]
    ));
    assert_eq!(press(&mut model, KeyCode::Esc), []);
    assert_eq!(typed(&mut model, "q"), [Cmd::Quit]);
}

#[test]
fn jumps_lead_from_a_dispatch_to_its_machine_and_from_an_event_to_both() {
    let mut model = model(Situation::Live, COLOUR);
    let job = model.selected_job().unwrap();
    typed(&mut model, "gm");
    assert_eq!(
        model.detail,
        Some(Detail::Machine("forge".parse().unwrap()))
    );
    typed(&mut model, "gd");
    assert!(shown(&model).contains("no dispatch is selected here"));
    press(&mut model, KeyCode::Esc);
    assert_eq!(typed(&mut model, "gl"), [Cmd::OpenLog(job)]);
    assert_eq!(typed(&mut model, "gm"), [Cmd::CloseLog]);
}

#[test]
fn every_screen_has_its_tab_and_its_key() {
    let mut model = model(Situation::Live, COLOUR);
    for (key, screen) in [
        ('6', Screen::Bus),
        ('!', Screen::Inbox),
        ('2', Screen::Dispatches),
    ] {
        typed(&mut model, &key.to_string());
        assert_eq!(model.screen, screen);
        let tab = format!("[{key} {}", screen.name());
        assert!(shown(&model).contains(&tab), "{}", shown(&model));
    }
    typed(&mut model, "5");
    assert_eq!(model.screen, Screen::Dispatches);
}
