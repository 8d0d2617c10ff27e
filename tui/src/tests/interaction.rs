//! Filters, order, columns, marks of rows and places, history, yank, pause, the mouse.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use fleet_contract::view::{JobView, MachineView};

use super::*;
use crate::columns::Col;
use crate::model::{Cmd, Detail, Pane, Screen};
use crate::view::{Hit, hit};

fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, model.clock, Msg::Key(key))
}

/// Types these; `\n` is Enter and `\x1b` Esc. What the last one asked for.
fn typed(model: &mut Model, letters: &str) -> Vec<Cmd> {
    let each = letters.chars().map(|c| {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        press(model, code)
    });
    each.last().unwrap_or_default()
}

fn shown(model: &Model) -> String {
    let (width, height) = model.size;
    text(&draw(model, width, height))
}

fn live() -> Model {
    let mut model = model(Situation::Live, COLOUR);
    update(&mut model, now(), Msg::Resize(120, 36));
    model
}

fn titles(model: &Model) -> Vec<String> {
    model.jobs_shown().map(|job| job.spec.title()).collect()
}

fn copied(cmds: &[Cmd]) -> &str {
    match cmds {
        [Cmd::Copy(text)] => text,
        other => panic!("nothing was copied: {other:?}"),
    }
}

#[test]
fn a_filter_is_seen_while_it_is_typed_and_a_wrong_one_says_what_is_right() {
    let mut model = live();
    typed(&mut model, "2/state:fail");
    assert_eq!(
        titles(&model),
        ["nightly-bench", "docs-build", "weekly-backup"]
    );
    assert!(
        shown(&model).contains("hides 9: /state:fail"),
        "{}",
        shown(&model)
    );
    // A term that is wrong changes nothing but what is said.
    typed(&mut model, " moo:x");
    assert_eq!(titles(&model).len(), 3);
    assert!(
        shown(&model).contains("moo is no field here: state m"),
        "{}",
        shown(&model)
    );
    typed(&mut model, "\n");
    assert!(model.ui.input.is_some());
    for _ in 0..6 {
        press(&mut model, KeyCode::Backspace);
    }
    typed(&mut model, "\n");
    assert!(model.ui.input.is_none());
    assert_eq!(titles(&model).len(), 3);
    // Keys are keys again, and what is selected is among what is shown.
    let first = model.selected_job();
    typed(&mut model, "j");
    assert_ne!(model.selected_job(), first);
    typed(&mut model, "\u{1b}");
    assert_eq!(titles(&model).len(), 12);
    // What was looked for last is found among all.
    typed(&mut model, "ggnn");
    let job = model.fleet.job(model.selected_job().unwrap()).unwrap();
    assert_eq!(job.spec.title(), "docs-build");
    typed(&mut model, "N");
    let job = model.fleet.job(model.selected_job().unwrap()).unwrap();
    assert_eq!(job.spec.title(), "nightly-bench");
}

#[test]
fn a_filter_that_hides_all_says_so_and_escape_while_typing_clears_it() {
    let mut model = live();
    typed(&mut model, "2/zzzz");
    assert!(
        shown(&model).contains("the filter hides 12"),
        "{}",
        shown(&model)
    );
    assert_eq!(model.selected_job(), None);
    typed(&mut model, "\n");
    assert!(typed(&mut model, "\n").is_empty());
    // What stood before stands again; in the list Esc clears it.
    typed(&mut model, "/x\u{1b}");
    assert_eq!(titles(&model).len(), 0);
    assert!(shown(&model).contains("hides 12: /zzzz"));
    typed(&mut model, "\u{1b}");
    assert_eq!(titles(&model).len(), 12);
    typed(&mut model, "/zzzz\u{1b}");
    assert_eq!(titles(&model).len(), 12);
}

#[test]
fn what_comes_is_filtered_a_few_times_a_second() {
    let mut model = live();
    typed(&mut model, "2/state:succeeded\n");
    assert_eq!(titles(&model), ["unit"]);
    let mut script = Script::default();
    let all = demo::facts(&mut script, now());
    let mut facts: Vec<_> = script
        .dispatch(30, later(1), "late", "true", "")
        .into_iter()
        .collect();
    facts.extend(script.claim(30, later(1), "forge"));
    facts.extend(script.exit(30, later(1), 0));
    assert!(!all.is_empty() && facts.len() == 3);
    let msg = |facts| Msg::Facts {
        reader: Reader::Journal,
        facts,
        left: 0,
    };
    let soon = now().plus(Duration::from_millis(100));
    update(&mut model, soon, msg(facts));
    assert_eq!(titles(&model), ["unit"]);
    let left = model.wakes_in(soon).unwrap();
    update(&mut model, soon.plus(left), Msg::Tick);
    assert_eq!(titles(&model), ["late", "unit"]);
}

#[test]
fn a_paste_is_typed_where_text_is_typed() {
    let mut model = live();
    typed(&mut model, "2/");
    let paste = Msg::Paste("flaky\n\u{1b}[2J".to_owned());
    update(&mut model, now(), paste);
    let input = model.ui.input.as_ref().unwrap();
    assert_eq!(input.line.text(), "flaky [2J");
}

#[test]
fn the_order_is_that_of_a_column_and_can_be_turned() {
    let mut model = live();
    typed(&mut model, "2s");
    assert_eq!(model.lists.jobs.sort, Some(Col::State));
    typed(&mut model, "ss");
    assert_eq!(model.lists.jobs.sort, Some(Col::What));
    let sorted = titles(&model);
    assert!(sorted.is_sorted(), "{sorted:?}");
    assert!(shown(&model).contains("WHAT▾") && shown(&model).contains("by what"));
    typed(&mut model, "S");
    let mut turned = titles(&model);
    turned.reverse();
    assert_eq!(turned, sorted);
    // After the last column the worst come first again.
    for _ in 0..20 {
        if model.lists.jobs.sort.is_none() {
            break;
        }
        typed(&mut model, "s");
    }
    assert_eq!(model.lists.jobs.sort, None);
    typed(&mut model, "3sss");
    assert!(shown(&model).contains("by seen"), "{}", shown(&model));
}

#[test]
fn columns_can_be_left_out_but_not_the_one_that_names() {
    let mut model = live();
    typed(&mut model, "2c");
    assert!(shown(&model).contains("[x] STATE"));
    typed(&mut model, " ");
    typed(&mut model, "jj ");
    assert!(
        shown(&model).contains("WHAT is always shown"),
        "{}",
        shown(&model)
    );
    typed(&mut model, "\u{1b}");
    let text = shown(&model);
    assert!(!text.contains("STATE") && text.contains("WHAT"), "{text}");
}

#[test]
fn marked_rows_are_counted_and_yanked_together() {
    let mut model = live();
    typed(&mut model, "2/state:fail\n  ");
    assert!(shown(&model).contains("2 marked"), "{}", shown(&model));
    let cmds = typed(&mut model, "yi");
    let ids: Vec<&str> = copied(&cmds).lines().collect();
    assert_eq!(ids.len(), 2);
    assert!(shown(&model).contains("copied id of 2 rows"));
    typed(&mut model, "*");
    assert!(shown(&model).contains("3 marked"));
    typed(&mut model, "*");
    assert!(!shown(&model).contains("marked · "));
    assert!(model.lists.jobs.marked.is_empty());
}

#[test]
fn what_is_yanked_is_what_the_command_line_says() {
    let mut model = live();
    let id = model.selected_job().unwrap();
    let view = JobView::of(model.fleet.job(id).unwrap());
    typed(&mut model, "2");
    let yank = |model: &mut Model, keys: &str| copied(&typed(model, keys)).to_owned();
    assert_eq!(yank(&mut model, "yi"), id.to_string());
    assert_eq!(
        yank(&mut model, "yj"),
        serde_json::to_string(&view).unwrap()
    );
    assert_eq!(yank(&mut model, "yc"), "fleet show xecq");
    let line = yank(&mut model, "yl");
    assert!(
        line.starts_with(&format!("needs_human  {id}  fix-flaky-e2e  forge")),
        "{line}"
    );
    press(&mut model, KeyCode::Enter);
    assert_eq!(yank(&mut model, "yc"), "fleet logs -f xecq");
    typed(&mut model, "gm");
    let machine = &model.fleet.machines()[&"forge".parse().unwrap()];
    let age = model.now.since(machine.seen);
    let view = MachineView::of(&machine.presence, machine.seen, age);
    assert_eq!(
        yank(&mut model, "yj"),
        serde_json::to_string(&view).unwrap()
    );
    assert_eq!(yank(&mut model, "yc"), "fleet machines");
    typed(&mut model, "4");
    assert!(yank(&mut model, "yc").starts_with("fleet flow --job "));
    typed(&mut model, "6");
    assert_eq!(typed(&mut model, "yi"), []);
}

#[test]
fn what_is_too_much_for_a_clipboard_is_refused() {
    let mut model = live();
    let many = demo::fleet_of(300, 7, now());
    let facts = Msg::Facts {
        reader: Reader::Journal,
        facts: many,
        left: 0,
    };
    update(&mut model, now(), facts);
    typed(&mut model, "2*");
    assert_eq!(typed(&mut model, "yj"), []);
    assert!(
        shown(&model).contains("clipboards take 64 KiB"),
        "{}",
        shown(&model)
    );
}

#[test]
fn views_are_gone_through_back_and_forth() {
    let mut model = live();
    let job = model.selected_job().unwrap();
    typed(&mut model, "3");
    typed(&mut model, "2\n");
    assert!(matches!(model.detail, Some(Detail::Job(_))));
    typed(&mut model, "gm");
    assert!(matches!(model.detail, Some(Detail::Machine(_))));
    assert_eq!(typed(&mut model, "["), [Cmd::OpenLog(job)]);
    assert_eq!(typed(&mut model, "["), [Cmd::CloseLog]);
    typed(&mut model, "[");
    assert_eq!(model.screen, Screen::Machines);
    typed(&mut model, "[[[");
    assert_eq!(model.screen, Screen::Fleet);
    assert!(shown(&model).contains("no view before this one"));
    typed(&mut model, "]");
    assert_eq!(model.screen, Screen::Machines);
    assert_eq!(typed(&mut model, "]]"), [Cmd::OpenLog(job)]);
    // The last view, and back again; another way forgets what was after.
    typed(&mut model, "1`");
    assert!(matches!(model.detail, Some(Detail::Job(_))));
    typed(&mut model, "`");
    assert_eq!(
        (model.screen, model.detail.is_none()),
        (Screen::Fleet, true)
    );
    typed(&mut model, "]");
    assert!(shown(&model).contains("no view after this one"));
}

#[test]
fn places_are_called_by_a_character() {
    let mut model = live();
    typed(&mut model, "2j\n");
    let job = model.subject_job().unwrap();
    typed(&mut model, "ma");
    assert!(shown(&model).contains("this place is a: 'a comes back"));
    typed(&mut model, "\u{1b}3j");
    assert_eq!(typed(&mut model, "'a"), [Cmd::OpenLog(job)]);
    typed(&mut model, "'b");
    assert!(shown(&model).contains("no place is called b; there are a"));
    // The palette leaves the character to the person.
    typed(&mut model, "\u{1b}4:go mark\n");
    assert!(model.ui.pending.is_some());
    assert_eq!(typed(&mut model, "a"), [Cmd::OpenLog(job)]);
}

#[test]
fn a_screen_that_stands_still_keeps_everything_and_says_since_when() {
    let mut model = live();
    typed(&mut model, "2p");
    let before: Vec<String> = shown(&model).lines().skip(1).map(str::to_owned).collect();
    let mut script = Script::default();
    drop(demo::facts(&mut script, now()));
    let facts: Vec<_> = script
        .dispatch(31, later(5), "late", "true", "")
        .into_iter()
        .collect();
    let msg = Msg::Facts {
        reader: Reader::Journal,
        facts,
        left: 0,
    };
    update(&mut model, later(5), msg);
    update(&mut model, later(4000), Msg::Tick);
    let probe = Msg::Probe {
        rtt: Duration::from_millis(1),
        journal_seq: 0,
    };
    update(&mut model, later(4000), probe);
    let text = shown(&model);
    assert!(text.contains("PAUSED 12:04:31"), "{text}");
    let after: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    assert_eq!(before, after);
    typed(&mut model, "p");
    assert!(titles(&model).contains(&"late".to_owned()));
    assert_eq!(titles(&model).len(), 13);
    assert!(!shown(&model).contains("PAUSED"));
}

#[test]
fn routine_among_the_events_folds_and_opens_again() {
    let mut model = live();
    typed(&mut model, "4z");
    let rows = model.events_shown().count();
    assert!(rows < model.fleet.events().len());
    assert!(
        shown(&model).contains("routine events, Enter shows them"),
        "{}",
        shown(&model)
    );
    let folded = model.events_shown().position(|row| row.folded > 0).unwrap();
    for _ in 0..folded {
        typed(&mut model, "j");
    }
    assert_eq!(typed(&mut model, "\n"), []);
    assert_eq!(model.events_shown().count(), model.fleet.events().len());
    typed(&mut model, "2z");
    assert!(shown(&model).contains("only events can be folded"));
}

#[test]
fn events_lead_from_a_job_and_the_palette_does_what_is_chosen() {
    let mut model = live();
    let id = model.selected_job().unwrap();
    typed(&mut model, "ge");
    assert_eq!(model.screen, Screen::Events);
    let of_job = |key| model.fleet.events()[&key].job == Some(id);
    assert!(model.events_shown().all(|row| of_job(row.key)));
    typed(&mut model, "\u{1b}:mach\n");
    assert_eq!(model.screen, Screen::Machines);
    typed(&mut model, ":machine lap\n");
    assert_eq!(
        model.detail,
        Some(Detail::Machine("lapis".parse().unwrap()))
    );
    assert_eq!(
        typed(&mut model, ":dispatch xecq\n"),
        [Cmd::CloseLog, Cmd::OpenLog(id)][1..]
    );
    typed(&mut model, "\u{1b}2:filter state:run\n");
    assert_eq!(model.jobs_count(), 3);
    assert_eq!(typed(&mut model, ":quit now\n"), [Cmd::Quit]);
    typed(&mut model, ":zzzzzz\n");
    assert!(shown(&model).contains("nothing is called so"));
}

#[test]
fn help_tells_every_key_of_its_place_and_does_it() {
    let mut model = live();
    typed(&mut model, "?");
    let choices = crate::palette::choices(&model);
    let here = model.ui.keymap.here(crate::keymap::Place::List);
    let idle = |action| crate::palette::is_idle(&model, action);
    let here: Vec<_> = here.filter(|bound| !idle(bound.binding.action)).collect();
    assert_eq!(choices.len(), here.len());
    for bound in here {
        assert!(choices.iter().any(|c| c.help == bound.binding.help));
    }
    typed(&mut model, "columns\n");
    assert!(shown(&model).contains("[x] STATE"), "{}", shown(&model));
    typed(&mut model, "\u{1b}??");
    assert!(model.ui.popup.is_none());
}

fn mouse(model: &mut Model, kind: MouseEventKind, (column, row): (u16, u16)) -> Vec<Cmd> {
    let modifiers = KeyModifiers::NONE;
    let event = MouseEvent {
        kind,
        column,
        row,
        modifiers,
    };
    update(model, model.clock, Msg::Mouse(event))
}

fn click(model: &mut Model, at: (u16, u16)) -> Vec<Cmd> {
    mouse(model, MouseEventKind::Down(MouseButton::Left), at)
}

/// Where a text is on screen.
fn find(model: &Model, wanted: &str) -> (u16, u16) {
    let (width, height) = model.size;
    let buffer = draw(model, width, height);
    let rows = (0..height).map(|y| (y, row(&buffer, y)));
    let found = rows.filter_map(|(y, row)| {
        let at = row.find(wanted)?;
        Some((row[..at].chars().count() as u16, y))
    });
    found
        .max_by_key(|(_, y)| *y)
        .unwrap_or_else(|| panic!("{wanted} is not on\n{}", text(&buffer)))
}

#[test]
fn a_click_hits_what_is_under_it_at_every_size() {
    for size in [(120, 36), (200, 60), (100, 24), (80, 24), (60, 16), (41, 9)] {
        let mut model = live();
        update(&mut model, now(), Msg::Resize(size.0, size.1));
        typed(&mut model, "2j");
        let height = crate::view::list_height(&model, Pane::Dispatches);
        for job in model
            .jobs_shown()
            .take(height)
            .map(|job| job.id)
            .collect::<Vec<_>>()
        {
            let at = find(&model, &job.as_str()[..4]);
            click(&mut model, at);
            assert_eq!(model.job, Some(job), "{size:?}");
            // It is still there: a second click hits the same.
            assert_eq!(find(&model, &job.as_str()[..4]), at, "{size:?}");
            let after = model.clock.plus(Duration::from_secs(1));
            update(&mut model, after, Msg::Tick);
        }
        typed(&mut model, "4");
        let keys: Vec<_> = model.events_shown().take(4).map(|row| row.key).collect();
        for (no, key) in keys.iter().enumerate().skip(1) {
            typed(&mut model, "gg");
            let Hit::Row(..) = hit(&model, 5, 2) else {
                continue;
            };
            let first = (0..size.1).find(|y| matches!(hit(&model, 5, *y), Hit::Row(_, 0, _)));
            click(&mut model, (5, first.unwrap() + no as u16));
            assert_eq!(model.event, Some(*key), "{size:?}");
        }
    }
}

#[test]
fn a_click_into_a_pane_without_the_focus_does_not_move_its_rows() {
    let mut model = live();
    // Far down among the events, then away from them.
    press(&mut model, KeyCode::Tab);
    assert_eq!(model.pane, Pane::Events);
    typed(&mut model, "jjjjjjjjjjjjjjjjjjjj");
    press(&mut model, KeyCode::BackTab);
    let at = find(&model, "Events ·");
    let at = (at.0 + 3, at.1 + 4);
    let Hit::Row(Pane::Events, row, _) = hit(&model, at.0, at.1) else {
        panic!("no event is there\n{}", shown(&model));
    };
    click(&mut model, at);
    let key = model.events_shown().nth(row).map(|row| row.key);
    assert_eq!(model.event, key);
    assert!(matches!(hit(&model, at.0, at.1), Hit::Row(_, now, _) if now == row));
}

#[test]
fn tabs_panes_and_the_wheel_know_the_mouse_and_a_double_click_opens() {
    let mut model = live();
    let at = find(&model, "3 Machines");
    click(&mut model, at);
    assert_eq!(model.screen, Screen::Machines);
    let at = find(&model, "lapis");
    click(&mut model, at);
    assert_eq!(click(&mut model, at), []);
    assert_eq!(
        model.detail,
        Some(Detail::Machine("lapis".parse().unwrap()))
    );
    let at = find(&model, "1 Fleet");
    click(&mut model, at);
    let at = find(&model, "Events ·");
    click(&mut model, at);
    assert_eq!(model.pane, Pane::Events);
    let at = find(&model, "Dispatches ·");
    mouse(&mut model, MouseEventKind::ScrollDown, (at.0, at.1 + 3));
    assert_eq!(model.pane, Pane::Dispatches);
    let third = model.jobs_shown().nth(3).map(|job| job.id);
    assert_eq!(model.selected_job(), third);
    // In the drawing a click only gives the focus: its machines are no rows of a list.
    let at = find(&model, "Topology ·");
    let before = model.selected_machine();
    click(&mut model, (at.0, at.1 + 3));
    assert_eq!(
        (model.pane, model.selected_machine()),
        (Pane::Machines, before)
    );
    // Two clicks that are slow are two clicks.
    let at = find(&model, "lint-all");
    click(&mut model, at);
    update(&mut model, later(2), Msg::Tick);
    assert_eq!(click(&mut model, at), []);
    // What is over the screen is what is hit.
    typed(&mut model, "c");
    let at = find(&model, "] WHERE");
    click(&mut model, at);
    assert!(!model.lists.has(Pane::Dispatches, Col::Where));
}

#[test]
fn the_mouse_is_left_to_the_terminal_where_the_person_wants_that() {
    let mut model = live();
    assert_eq!(typed(&mut model, "M"), [Cmd::Mouse(false)]);
    let at = find(&model, "3 Machines");
    click(&mut model, at);
    assert_eq!(model.screen, Screen::Fleet);
    assert_eq!(typed(&mut model, "M"), [Cmd::Mouse(true)]);
}

#[test]
fn no_cell_of_any_size_panics_under_the_mouse() {
    for keys in ["", "2", "3", "4", "6", "!", "\n", "?", ":", "c", "w", "/x"] {
        for size in [(120, 36), (80, 24), (40, 8), (39, 7), (1, 1), (60, 9)] {
            let mut model = live();
            typed(&mut model, keys);
            update(&mut model, now(), Msg::Resize(size.0, size.1));
            for y in 0..=size.1 {
                for x in (0..=size.0).step_by(7) {
                    hit(&model, x, y);
                }
            }
            mouse(
                &mut model,
                MouseEventKind::ScrollUp,
                (size.0 / 2, size.1 / 2),
            );
            click(&mut model, (u16::MAX, u16::MAX));
        }
    }
}
