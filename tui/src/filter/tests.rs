//! What filters let through, and what they say about what they do not understand.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::demo::{self, Script};
use fleet_contract::projection::{Fleet, Limits};

fn now() -> Time {
    Time::from_micros(1_769_861_071_000_000)
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::new(Limits::default());
    for fact in demo::facts(&mut Script::default(), now()) {
        fleet.fold(&fact);
    }
    fleet
}

static FLEET: LazyLock<Fleet> = LazyLock::new(fleet);

fn filter(text: &str, kind: Kind) -> Filter {
    Filter::parse(text, kind).unwrap().unwrap()
}

fn jobs(text: &str) -> BTreeSet<String> {
    let fleet = fleet();
    let filter = filter(text, Kind::Jobs);
    let mut sieve = Sieve::new();
    let all = fleet.jobs().values();
    all.filter(|job| sieve.job(&filter, job, now()))
        .map(|job| job.spec.title())
        .collect()
}

fn machines(text: &str) -> BTreeSet<String> {
    let fleet = fleet();
    let filter = filter(text, Kind::Machines);
    let mut sieve = Sieve::new();
    let all = fleet.machines().values();
    all.filter(|machine| sieve.machine(&filter, machine, now()))
        .map(|machine| machine.presence.machine.to_string())
        .collect()
}

fn events(text: &str) -> usize {
    let fleet = fleet();
    let filter = filter(text, Kind::Events);
    let mut sieve = Sieve::new();
    let all = fleet.events().values();
    all.filter(|event| sieve.event(&filter, event, None, now()))
        .count()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn words_are_fuzzy_and_all_of_them_have_to_hold() {
    assert_eq!(jobs("flaky"), set(&["fix-flaky-e2e"]));
    assert_eq!(jobs("ffe2e"), set(&["fix-flaky-e2e"]));
    assert_eq!(jobs("forge lint"), set(&["lint-all"]));
    assert_eq!(jobs("\"x-flaky\""), set(&["fix-flaky-e2e"]));
    assert_eq!(jobs("\"xflaky\""), set(&[]));
    assert_eq!(machines("frg"), set(&["forge"]));
}

#[test]
fn terms_ask_for_one_field() {
    let failed = set(&["nightly-bench", "docs-build", "weekly-backup"]);
    assert_eq!(jobs("state:failed"), failed);
    assert_eq!(
        jobs("state:fail age<1h"),
        set(&["nightly-bench", "docs-build"])
    );
    assert_eq!(jobs("state:fail age>1h"), set(&["weekly-backup"]));
    assert_eq!(
        jobs("s:needs,lost"),
        set(&["fix-flaky-e2e", "render-intro"])
    );
    assert_eq!(jobs("m:anvil exit:3"), set(&["weekly-backup"]));
    assert_eq!(jobs("!m:forge state:running"), set(&["index-repo"]));
    assert_eq!(jobs("by:ANA m:onyx"), set(&["render-intro"]));
    assert_eq!(machines("state:lost,degr"), set(&["lapis", "onyx"]));
    assert_eq!(machines("cause:disk"), set(&["lapis"]));
    assert_eq!(machines("free>4 !state:offline"), set(&["forge"]));
    assert_eq!(machines("os:linux"), machines("m:a,f,l,o"));
    assert!(events("what:lost") >= 2);
    assert_eq!(events("m:onyx what:lost"), events("m:onyx \"lost\""));
}

#[test]
fn what_is_wrong_is_said_with_what_would_be_right() {
    for (text, kind, expected) in [
        (
            "stat:failed",
            Kind::Jobs,
            "stat is no field here: state m lane id by tag exit attempts age; or \"stat:failed\" in quotes",
        ),
        (
            "state:faild",
            Kind::Jobs,
            "no state begins with faild: queued running",
        ),
        ("state:", Kind::Machines, "state: lost stale degraded"),
        (
            "age>10",
            Kind::Jobs,
            "10 is no time: write it like age>10m, with s, m, h or d",
        ),
        ("m>forge", Kind::Jobs, "m takes no >: write it like m:forge"),
        (
            "exit:one",
            Kind::Jobs,
            "one is no number: write it like exit:1",
        ),
        ("by:", Kind::Jobs, "by wants a value: by:ana"),
        (
            "label:x",
            Kind::Events,
            "label is no field here: what m id age",
        ),
        ("\"abc", Kind::Jobs, "a text in quotes has no end yet"),
        ("!", Kind::Jobs, "! wants a term after it"),
    ] {
        let wrong = Filter::parse(text, kind).unwrap_err();
        assert!(
            wrong.starts_with(expected) || wrong == expected,
            "{text}: {wrong}"
        );
    }
    assert_eq!(Filter::parse("  ", Kind::Jobs), Ok(None));
}

#[test]
fn every_example_of_a_field_is_understood() {
    for (kind, field, names, example) in FIELDS {
        assert!(
            Filter::parse(example, *kind).unwrap().is_some(),
            "{example}"
        );
        for (other, of, others, _) in FIELDS {
            let shared = names.iter().any(|name| others.contains(name));
            assert!(
                kind != other || field == of || !shared,
                "{names:?} {others:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_text_panics_and_more_terms_never_let_more_through(
        a in "[a-z!\":<>=, 0-9漢\\PC]{0,20}",
        b in "[a-z]{1,5}",
    ) {
        for kind in [Kind::Jobs, Kind::Machines, Kind::Events] {
            let Ok(Some(wide)) = Filter::parse(&a, kind) else { continue };
            let Ok(Some(narrow)) = Filter::parse(&format!("{a} {b}"), kind) else { continue };
            let fleet = &*FLEET;
            let mut sieve = Sieve::new();
            for job in fleet.jobs().values().filter(|_| kind == Kind::Jobs) {
                prop_assert!(!sieve.job(&narrow, job, now()) || sieve.job(&wide, job, now()));
            }
            for machine in fleet.machines().values().filter(|_| kind == Kind::Machines) {
                prop_assert!(!sieve.machine(&narrow, machine, now()) || sieve.machine(&wide, machine, now()));
            }
            for event in fleet.events().values().filter(|_| kind == Kind::Events) {
                prop_assert!(!sieve.event(&narrow, event, None, now()) || sieve.event(&wide, event, None, now()));
            }
        }
    }

    #[test]
    fn a_term_and_its_opposite_share_the_rows(text in "(state:(fail|run|q)|m:[a-z]|age[<>][1-9][smh]|[a-z]{1,4}|exit:[0-9])") {
        let fleet = &*FLEET;
        let mut sieve = Sieve::new();
        let (this, other) = (filter(&text, Kind::Jobs), filter(&format!("!{text}"), Kind::Jobs));
        for job in fleet.jobs().values() {
            prop_assert_ne!(sieve.job(&this, job, now()), sieve.job(&other, job, now()));
        }
    }
}
