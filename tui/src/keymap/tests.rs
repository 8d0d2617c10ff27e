//! What the table promises, whatever is added to it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::*;

const PLACES: [Place; 5] = [
    Place::List,
    Place::Log,
    Place::Machine,
    Place::Popup,
    Place::Input,
];

fn press(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    Key::pressed(&KeyEvent::new(code, modifiers))
}

fn sequences() -> Vec<(&'static Binding, Vec<Key>)> {
    let all = KEYMAP.iter().flat_map(|binding| {
        binding.keys.iter().map(move |keys| {
            let keys = Key::sequence(keys).unwrap_or_else(|| panic!("no key: {keys:?}"));
            (binding, keys)
        })
    });
    all.collect()
}

#[test]
fn no_key_means_two_things_in_one_place_and_none_hides_a_longer_one() {
    let all = sequences();
    for (at, (a, keys)) in all.iter().enumerate() {
        for (b, others) in &all[at + 1..] {
            let met = keys.iter().zip(others).all(|(k, o)| k.meets(*o));
            assert!(
                !(met && a.place.meets(b.place)),
                "{} and {} share {}",
                a.name,
                b.name,
                key::shown(keys)
            );
        }
    }
    for (at, a) in KEYMAP.iter().enumerate() {
        for b in &KEYMAP[at + 1..] {
            assert_ne!(a.name, b.name);
            assert_ne!(a.action, b.action, "one line for one action");
        }
    }
}

#[test]
fn every_binding_is_explained_and_nothing_is_on_a_multiplexers_keys() {
    for (binding, keys) in sequences() {
        assert!(!binding.help.is_empty() && !binding.name.is_empty());
        for key in keys {
            // Leaving and suspending are what every program has there.
            let allowed = matches!(binding.action, Action::Leave | Action::Suspend);
            assert!(!matches!(key, Key::Ctrl(_)) || allowed, "{key}");
        }
    }
}

#[test]
fn what_is_kept_free_is_free() {
    let map = Keymap::default();
    for place in PLACES.into_iter().filter(|p| *p != Place::Input) {
        for key in ["a", "t", ",", ".", "<", ">", "{", "}", "u", "5"] {
            let key = Key::named(key).unwrap();
            assert_eq!(map.look(place, &[], key), Found::Nothing, "{key}");
        }
    }
}

#[test]
fn every_action_is_reached_by_its_keys() {
    let map = Keymap::default();
    for (binding, keys) in sequences() {
        let here = PLACES.into_iter().find(|p| binding.place.holds(*p));
        let here = here.unwrap();
        let mut before = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let pressed = match key {
                Key::Any => Key::Plain(KeyCode::Char('x')),
                key => *key,
            };
            let found = map.look(here, &before, pressed);
            if at + 1 < keys.len() {
                assert_eq!(found, Found::Prefix, "{}", binding.name);
            } else {
                let free = (*key == Key::Any).then_some('x');
                assert_eq!(
                    found,
                    Found::Action(binding.action, free),
                    "{}",
                    binding.name
                );
            }
            before.push(pressed);
        }
    }
}

#[test]
fn keys_are_found_by_their_names() {
    let none = KeyModifiers::NONE;
    let map = Keymap::default();
    let at = |key: Option<Key>, place| key.map(|key| map.look(place, &[], key));
    let q = press(KeyCode::Char('q'), none);
    assert_eq!(at(q, Place::List), Some(Found::Action(Action::Close, None)));
    assert_eq!(at(q, Place::Input), Some(Found::Nothing));
    let interrupt = press(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for place in PLACES {
        let found = at(interrupt, place);
        assert_eq!(found, Some(Found::Action(Action::Leave, None)));
    }
    let last = press(KeyCode::Char('G'), KeyModifiers::SHIFT);
    assert_eq!(
        at(last, Place::List),
        Some(Found::Action(Action::Last, None))
    );
    let up = press(KeyCode::Char('k'), KeyModifiers::CONTROL);
    assert_eq!(at(up, Place::List), Some(Found::Nothing));
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
    let left = press(KeyCode::Left, none);
    assert_eq!(
        at(left, Place::Log),
        Some(Found::Action(Action::Left, None))
    );
    let mut released = KeyEvent::new(KeyCode::Char('q'), none);
    released.kind = KeyEventKind::Release;
    assert_eq!(Key::pressed(&released), None);
    let tab = press(KeyCode::Tab, KeyModifiers::SHIFT);
    assert_eq!(
        at(tab, Place::List),
        Some(Found::Action(Action::Previous, None))
    );
}

#[test]
fn a_key_is_written_as_it_is_read() {
    for name in [
        "q",
        "G",
        "Space",
        "Shift-Tab",
        "Ctrl-c",
        "PageUp",
        "'",
        "<char>",
    ] {
        assert_eq!(Key::named(name).unwrap().to_string(), name);
    }
    for name in ["", " ", "Alt-x", "Ctrl-", "F13", "qq", "\t"] {
        assert_eq!(Key::named(name), None, "{name:?}");
    }
}

#[test]
fn a_prefix_tells_what_can_follow() {
    let map = Keymap::default();
    let g = Key::named("g").unwrap();
    let after = map.after(Place::List, &[g]);
    assert!(
        after
            .iter()
            .any(|(keys, b)| keys == "m" && b.action == Action::JumpMachine)
    );
    assert!(after.iter().all(|(keys, _)| keys.len() == 1));
}

fn rebound(changes: &[(&str, &[&str])]) -> Result<Keymap, String> {
    let changes = changes.iter().map(|(name, keys)| {
        let keys = keys.iter().map(|k| (*k).to_owned()).collect();
        ((*name).to_owned(), keys)
    });
    Keymap::rebound(&changes.collect()).map_err(|error| format!("{}: {error}", error.action))
}

#[test]
fn a_person_can_choose_other_keys() {
    let map = rebound(&[
        ("why", &["e", "g w"]),
        ("jump_machine", &["w"]),
        ("set_mark", &["b <char>"]),
        ("fold", &[]),
        ("accept", &["Ctrl-y"]),
    ])
    .unwrap();
    let look = |before: &[Key], key: &str, place| map.look(place, before, Key::named(key).unwrap());
    let list = Place::List;
    assert_eq!(look(&[], "e", list), Found::Action(Action::Why, None));
    assert_eq!(
        look(&[], "w", list),
        Found::Action(Action::JumpMachine, None)
    );
    let g = Key::named("g").unwrap();
    assert_eq!(look(&[g], "w", list), Found::Action(Action::Why, None));
    assert_eq!(look(&[g], "m", list), Found::Nothing);
    let b = Key::named("b").unwrap();
    assert_eq!(
        look(&[b], "7", list),
        Found::Action(Action::SetMark, Some('7'))
    );
    assert_eq!(look(&[], "z", list), Found::Nothing);
    assert_eq!(
        look(&[], "Ctrl-y", Place::Input),
        Found::Action(Action::Accept, None)
    );
    assert_eq!(map.key_of(Action::Why), "e");
    assert_eq!(map.prefix_of(Action::SetMark), "b");
}

#[test]
fn keys_that_cannot_be_are_refused_with_what_to_write() {
    for (name, keys, expected) in [
        ("quti", &["q"][..], "quti: there is no action \"quti\""),
        (
            "why",
            &["q"],
            "why: \"q\" is the key of quit: give quit another one",
        ),
        (
            "why",
            &["g"],
            "why: \"g g\" of first begins with \"g\": give first another one",
        ),
        (
            "why",
            &["q x"],
            "why: \"q\" is the key of quit: give quit another one",
        ),
        ("why", &["' a"], "why: \"' <char>\" is the key of go_mark"),
        ("why", &["x", "x y"], "why: \"x\" and \"x y\" begin alike"),
        (
            "why",
            &["Alt-x"],
            "why: \"Alt-x\" is no key: write one character",
        ),
        ("why", &["F1"], "why: \"F1\" is no key"),
        ("why", &[""], "why: \"\" is no key"),
        ("why", &["Ctrl-s"], "why: terminals take Ctrl-s for"),
        (
            "why",
            &["x <char>"],
            "why: \"x <char>\" cannot have a free character",
        ),
        (
            "set_mark",
            &["m"],
            "set_mark: \"m\" has to end in a free character: \"m <char>\"",
        ),
        ("set_mark", &["<char>"], "set_mark: \"<char>\" has to end"),
        (
            "why",
            &["a b c d e"],
            "why: \"a b c d e\" is too long: 4 keys",
        ),
        ("cancel", &["x"], "cancel: \"x\" would be typed"),
        (
            "quit_now",
            &["x"],
            "quit_now: \"x\" has to work while text is typed too",
        ),
        ("quit_now", &[], "quit_now: it cannot be without a key"),
    ] {
        let error = rebound(&[(name, keys)]).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    // Both of a pair can change places.
    assert!(rebound(&[("why", &["z"]), ("fold", &["w"])]).is_ok());
}

/// The keys as the document has them.
fn table() -> String {
    let map = Keymap::default();
    let mut text = String::from("| | Keys | | Name |\n|---|---|---|---|\n");
    for group in Group::ALL {
        let of = map.bound.iter().filter(|b| b.binding.group == group);
        for (at, bound) in of.enumerate() {
            let name = if at == 0 { group.name() } else { "" };
            let keys = bound
                .keys
                .iter()
                .map(|keys| match key::shown(keys).as_str() {
                    "`" => "`` ` ``".to_owned(),
                    shown => format!("`{shown}`").replace('|', "\\|"),
                });
            let keys: Vec<String> = keys.collect();
            let place = match bound.binding.place.words() {
                "" => String::new(),
                words => format!(" ({words})"),
            };
            let Binding {
                help, name: action, ..
            } = bound.binding;
            let keys = keys.join(" ");
            text.push_str(&format!(
                "| {name} | {keys} | {help}{place} | `{action}` |\n"
            ));
        }
    }
    text
}

#[test]
fn the_document_has_every_key() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/console.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = document.split_once("<!-- keys").unwrap();
    let (note, rest) = rest.split_once('\n').unwrap();
    let (_, after) = rest.split_once("<!-- end of keys -->").unwrap();
    let expected = format!(
        "{before}<!-- keys{note}\n\n{}\n<!-- end of keys -->{after}",
        table()
    );
    if std::env::var_os("FLEET_TUI_BLESS").is_some() {
        std::fs::write(&file, &expected).unwrap();
    }
    let document = std::fs::read_to_string(&file).unwrap();
    assert!(
        document == expected,
        "FLEET_TUI_BLESS=1 cargo test -p fleet-tui keymap"
    );
}
