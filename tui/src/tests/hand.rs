//! What a key or a click is about is what was on the screen, also where the lists have moved since.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use fleet_contract::ids::JobId;
use fleet_contract::outcome::Outcome;
use fleet_contract::record::Next;

use super::*;
use crate::model::{Cmd, Pane};

fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    let at = model.clock;
    update(model, at, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn keys(model: &mut Model, letters: &str) {
    for c in letters.chars() {
        press(model, KeyCode::Char(c));
    }
}

fn click(model: &mut Model, (column, row): (u16, u16)) -> Vec<Cmd> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    let modifiers = KeyModifiers::NONE;
    let event = MouseEvent {
        kind,
        column,
        row,
        modifiers,
    };
    let at = model.clock;
    update(model, at, Msg::Mouse(event))
}

/// A frame is drawn; what is on it.
fn see(model: &mut Model) -> String {
    let (width, height) = model.size;
    let rows = view::rows(model);
    model.saw(rows);
    text(&draw(model, width, height))
}

/// The list of dispatches, seen.
fn seen() -> Model {
    let mut model = model(Situation::Live, MONO);
    update(&mut model, now(), Msg::Resize(120, 36));
    keys(&mut model, "2");
    see(&mut model);
    model
}

/// A job comes that is worse than all others: it sorts to the first row.
fn worse(model: &mut Model) -> JobId {
    let mut script = Script::default();
    let _ = demo::facts(&mut script, now());
    let ago = |seconds| demo::before(now(), seconds);
    let ask = Next::Ask {
        question: "go on?".to_owned(),
    };
    let facts = [
        script.dispatch(31, ago(9000), "asks-long", "ask", ""),
        script.claim(31, ago(8990), "forge"),
        script.end(31, ago(8980), Outcome::Exited { exit_code: 75 }, ask),
    ];
    let facts = facts.into_iter().flatten().collect();
    let (reader, left) = (Reader::Journal, 0);
    update(
        model,
        now(),
        Msg::Facts {
            reader,
            facts,
            left,
        },
    );
    let first = model.job_ids_shown().next().unwrap();
    let title = model.fleet.job(first).unwrap().spec.title();
    assert_eq!(title, "asks-long", "it stands first");
    first
}

#[test]
fn what_is_opened_is_what_was_seen_not_what_sorted_there_since() {
    for key in ["\n", "yi", "w", "gd", " "] {
        let mut model = seen();
        let wanted = model.selected_job().unwrap();
        let first = worse(&mut model);
        assert_ne!(first, wanted);
        let cmds: Vec<Cmd> = key
            .chars()
            .flat_map(|c| match c {
                '\n' => press(&mut model, KeyCode::Enter),
                c => press(&mut model, KeyCode::Char(c)),
            })
            .collect();
        match key {
            "\n" | "gd" => assert_eq!(cmds, [Cmd::OpenLog(wanted)]),
            "yi" => assert_eq!(cmds, [Cmd::Copy(wanted.to_string())]),
            "w" => assert_eq!(model.subject_job(), Some(wanted)),
            _ => assert!(model.lists.jobs.marked.iter().eq([&wanted])),
        }
    }
    // Once it is seen, it is what is meant.
    let mut model = seen();
    let first = worse(&mut model);
    see(&mut model);
    assert_eq!(press(&mut model, KeyCode::Enter), [Cmd::OpenLog(first)]);
    // What a key selected is meant, without a frame between the two.
    let mut model = seen();
    let second = model.job_ids_shown().nth(1).unwrap();
    press(&mut model, KeyCode::Down);
    worse(&mut model);
    assert_eq!(press(&mut model, KeyCode::Enter), [Cmd::OpenLog(second)]);
}

#[test]
fn what_is_gone_since_is_never_another() {
    let mut model = seen();
    assert!(model.selected_job().is_some());
    // The store is another one: nothing of what was seen is there.
    update(&mut model, now(), Msg::Reset);
    worse_alone(&mut model);
    assert_eq!(press(&mut model, KeyCode::Enter), []);
    assert!(model.detail.is_none());
    assert!(see(&mut model).contains("gone: nothing was done"));
}

fn worse_alone(model: &mut Model) {
    let mut script = Script::default();
    let facts = vec![script.dispatch(9, now(), "other", "other", "")];
    let facts = facts.into_iter().flatten().collect();
    let (reader, left) = (Reader::Journal, 0);
    update(
        model,
        now(),
        Msg::Facts {
            reader,
            facts,
            left,
        },
    );
}

#[test]
fn a_click_is_about_the_row_that_was_drawn_and_the_second_about_the_first() {
    let mut model = seen();
    let third = model.job_ids_shown().nth(2).unwrap();
    let rows = view::rows(&model);
    let list = rows.iter().find(|r| r.pane == Pane::Dispatches).unwrap();
    let at = (list.body.x + 3, list.body.y + 2);
    worse(&mut model);
    click(&mut model, at);
    assert_eq!(model.selected_job(), Some(third));
    // Two more come before the second click: other rows are below the mouse, and are seen there.
    let mut model = seen();
    click(&mut model, at);
    model.lists.jobs.above = 0;
    worse(&mut model);
    see(&mut model);
    assert_eq!(click(&mut model, at), [Cmd::OpenLog(third)]);
}
