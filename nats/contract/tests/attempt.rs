//! Regressions of the attempt's state machine: each was a hole that the simulation, or a look at
//! the rules for it, found.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::attempt::{Attempt, Effect, Found, Gone, Input, is_missed};
use fleet_contract::ids::{Lane, Writer};
use fleet_contract::job::token;
use fleet_contract::lease::{Mark, RENEW_EVERY};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::{After, Change, Next, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::ticket::{BLANKS_MAX, READ_AGAIN_MAX, Reading, Ticket, Tip};
use fleet_contract::time::Time;

fn now() -> Time {
    Time::from_micros(0)
}

fn on(attempt: &mut Attempt, input: Input) -> Vec<Effect> {
    attempt.on(input, now(), 0.5)
}

fn delivered(after: u64) -> Attempt {
    let target = Target::Lane(Lane::any());
    let ticket = Ticket {
        ticket: ticket_id(1),
        job: job_id(1),
        after,
        target: target.clone(),
        epoch: 0,
        spec: Box::new(spec(target)),
    };
    let (attempt, effects) = Attempt::deliver(machine("studio"), attempt_id(1), ticket);
    assert_eq!(effects, [Effect::Read]);
    attempt.under_lease(9, now())
}

fn tip(seq: u64, by: &str, state: StateWord, n: Option<u8>) -> Tip {
    Tip {
        seq,
        writer: by.parse::<Writer>().unwrap(),
        queued: None,
        about: None,
        ends: false,
        recovered: None,
        after: After {
            state,
            attempt: n.map(attempt_id),
            machine: n.map(|_| machine("studio")),
            cancel_requested: false,
            attempts: 1,
            losses: 0,
        },
        readable: true,
    }
}

/// The record that names the ticket of [`delivered`].
fn named(seq: u64) -> Tip {
    Tip {
        queued: Some(ticket_id(1)),
        ..tip(seq, "operator", StateWord::Queued, None)
    }
}

/// The claim of attempt 1 by studio.
fn claim(seq: u64, losses: u32) -> Tip {
    let mut claim = tip(seq, "studio", StateWord::Running, Some(1));
    claim.about = Some(attempt_id(1));
    claim.after.losses = losses;
    claim
}

fn gone() -> Gone {
    Gone {
        outcome: Outcome::Exited { exit_code: 0 },
        output: OutputCount::default(),
        started_at: now(),
        ended_at: now(),
    }
}

fn adopted(gone: Option<Gone>) -> Attempt {
    let found = Found {
        job: job_id(1),
        attempt: attempt_id(1),
        token: 20,
        no: 1,
        spec: spec(Target::Lane(Lane::any())),
    };
    let (attempt, effects) = Attempt::adopt(machine("studio"), found, gone);
    assert_eq!(effects, [Effect::ReadAll]);
    attempt
}

#[test]
fn an_adopted_attempt_ends_by_what_its_claim_says_not_by_what_it_does_not_know() {
    let mut attempt = adopted(None);
    assert_eq!(on(&mut attempt, Input::Gone(gone())), [Effect::ReadAll]);
    let reading = Reading {
        tip: Some(claim(20, 2)),
        own: Some(claim(20, 2)),
        ..Reading::default()
    };
    let effects = on(&mut attempt, Input::Reread(reading));
    let [Effect::Append(record)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((record.prev, record.after.losses), (20, 2));
}

#[test]
fn a_ticket_that_was_slept_on_goes_back_and_claims_nothing() {
    let mut attempt = delivered(0);
    let effects = on(&mut attempt, Input::Lapsed);
    assert_eq!(effects, [Effect::GiveBack, Effect::Done]);
    assert_eq!(on(&mut attempt, Input::Tip(None)), []);
}

#[test]
fn a_first_claim_that_was_slept_on_is_looked_for_and_not_repeated() {
    let mut attempt = delivered(0);
    assert!(matches!(
        on(&mut attempt, Input::Tip(None))[..],
        [Effect::Append(_)]
    ));
    assert_eq!(on(&mut attempt, Input::NoAnswer), [Effect::Pause]);
    assert_eq!(on(&mut attempt, Input::Lapsed), []);
    let mut looks = 0;
    while !attempt.is_done() {
        assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
        on(&mut attempt, Input::Reread(Reading::default()));
        looks += 1;
        assert!(looks < 100);
    }
    assert!(looks > READ_AGAIN_MAX);
}

#[test]
fn an_orphan_ticket_of_an_ended_job_is_acknowledged_and_does_not_go_round() {
    let mut attempt = delivered(7);
    let ended = || Some(tip(7, "operator", StateWord::Canceled, None));
    for _ in 1..READ_AGAIN_MAX {
        assert_eq!(on(&mut attempt, Input::Tip(ended())), [Effect::Pause]);
        assert_eq!(on(&mut attempt, Input::Again), [Effect::Read]);
    }
    let effects = on(&mut attempt, Input::Tip(ended()));
    assert_eq!(effects, [Effect::Ack, Effect::Done]);
}

#[test]
fn a_wish_to_cancel_that_overtakes_the_claim_is_looked_for_after_it() {
    let mut attempt = delivered(7);
    // Until `queued` names it, nobody knows where the job waits.
    let before = tip(7, "operator", StateWord::Backoff, None);
    assert_eq!(on(&mut attempt, Input::Tip(Some(before))), [Effect::Pause]);
    assert_eq!(on(&mut attempt, Input::Again), [Effect::Read]);
    on(&mut attempt, Input::Tip(Some(named(8))));
    assert_eq!(on(&mut attempt, Input::CancelAsked), []);
    let effects = on(&mut attempt, Input::Appended(9));
    assert!(matches!(
        effects[..],
        [Effect::Ack, Effect::Start { .. }, Effect::ReadAll]
    ));
}

#[test]
fn a_tip_that_is_newer_than_the_rulings_read_with_it_is_not_adopted() {
    let mut attempt = adopted(Some(gone()));
    let mut reading = Reading {
        tip: Some(tip(30, "mini", StateWord::Running, Some(2))),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    assert_eq!(
        on(&mut attempt, Input::Reread(reading.clone())),
        [Effect::Pause]
    );
    reading.keeper = Some(tip(25, "keeper", StateWord::Queued, None));
    let effects = on(&mut attempt, Input::Reread(reading));
    assert!(matches!(
        effects[..],
        [Effect::Superseded(_), Effect::Forget, Effect::Done]
    ));
}

#[test]
fn no_journal_is_believed_only_when_the_hub_has_had_time_to_find_it_damaged() {
    // A renewal of the lease brings what this machine has seen; the hub looks soon after.
    let shortest_pause = std::time::Duration::from_millis(200);
    assert!(shortest_pause * BLANKS_MAX > RENEW_EVERY * 4);
    let mut attempt = adopted(None);
    for _ in 1..BLANKS_MAX {
        assert_eq!(
            on(&mut attempt, Input::Reread(Reading::default())),
            [Effect::Pause]
        );
        assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
    }
    let effects = on(&mut attempt, Input::Reread(Reading::default()));
    assert_eq!(effects, [Effect::Fence]);
}

#[test]
fn an_end_whose_answer_was_lost_is_read_and_neither_written_twice_nor_forgotten() {
    let mut attempt = delivered(7);
    let mut waits = named(8);
    waits.after.attempts = 0;
    on(&mut attempt, Input::Tip(Some(waits)));
    on(&mut attempt, Input::Appended(20));
    let append = on(&mut attempt, Input::Gone(gone()));
    assert!(matches!(append[..], [Effect::Append(_)]));
    // A reading that comes by while the append is on its way does not make a second.
    let open = || Reading {
        tip: Some(claim(20, 0)),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    assert_eq!(on(&mut attempt, Input::Reread(open())), []);
    assert_eq!(on(&mut attempt, Input::NoAnswer), [Effect::Pause]);
    assert_eq!(on(&mut attempt, Input::NoAnswer), [], "one pause is enough");
    assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
    // A read that is older than the append: the same append again, which the hub refuses.
    assert_eq!(on(&mut attempt, Input::Reread(open())), append);
    assert_eq!(on(&mut attempt, Input::Refused(open())), [Effect::Pause]);
    let mut end = claim(21, 0);
    (end.ends, end.after) = (true, tip(21, "studio", StateWord::Succeeded, None).after);
    let ended = Reading {
        tip: Some(end.clone()),
        own: Some(end),
        ..Reading::default()
    };
    let effects = on(&mut attempt, Input::Reread(ended));
    assert_eq!(effects, [Effect::Forget, Effect::Done]);
}

#[test]
fn a_later_attempt_of_the_same_machine_does_not_hide_this_ones_end() {
    let mut attempt = adopted(Some(gone()));
    let mut later = claim(40, 0);
    (later.about, later.after.attempt) = (Some(attempt_id(2)), Some(attempt_id(2)));
    let reading = Reading {
        tip: Some(later.clone()),
        own: Some(later),
        ..Reading::default()
    };
    let effects = on(&mut attempt, Input::Reread(reading));
    assert_eq!(effects, [Effect::Forget, Effect::Done]);
}

/// The attempt in epoch 1 of a hub whose store went back.
fn rebuilt(mut attempt: Attempt) -> Attempt {
    let told = Input::Rebuilt { epoch: 1, term: 50 };
    assert_eq!(on(&mut attempt, told), [Effect::ReadAll]);
    attempt
}

fn appended(effects: &[Effect]) -> &fleet_contract::record::Record {
    match effects {
        [.., Effect::Append(record)] => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ticket_from_before_a_recovery_that_alone_knows_its_job_has_the_operator_asked() {
    let mut attempt = delivered(0).in_epoch(1);
    let effects = on(&mut attempt, Input::Tip(None));
    // Of the ticket's epoch: should it end here, the keeper asks.
    assert!(matches!(
        appended(&effects).change,
        Change::Claimed { epoch: 0, .. }
    ));
    let effects = on(&mut attempt, Input::Appended(7));
    assert_eq!(effects[0], Effect::Ack);
    let record = appended(&effects);
    assert!(
        matches!(&record.change, Change::Ended { next: Next::Ask { .. }, outcome, .. }
            if *outcome == Outcome::Interrupted)
    );
    assert_eq!(record.after.state, StateWord::NeedsHuman);
}

#[test]
fn what_does_not_count_and_lies_over_its_claim_takes_no_attempt_from_a_machine() {
    let mut attempt = rebuilt(adopted(None));
    let mut void = tip(30, "mallory", StateWord::Succeeded, None);
    void.about = Some(attempt_id(9));
    let reading = Reading {
        tip: Some(void),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    for _ in 0..READ_AGAIN_MAX * 3 {
        let effects = on(&mut attempt, Input::Reread(reading.clone()));
        assert_eq!(effects, [Effect::Pause], "the keeper will say over it");
        assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
    }
    let restated = tip(31, "keeper", StateWord::Running, Some(1));
    let reading = Reading {
        tip: Some(restated.clone()),
        keeper: Some(restated),
        ..reading
    };
    let effects = on(&mut attempt, Input::Reread(reading));
    let record = appended(&effects);
    assert_eq!(record.prev, 31);
    assert!(matches!(record.change, Change::Adopted { token: 20, .. }));
}

#[test]
fn a_later_attempt_that_another_machine_reported_first_is_given_way_to_at_last() {
    let mut attempt = rebuilt(adopted(Some(gone())));
    // The keeper's question named this attempt, another machine's report came over it, and nobody has
    // anything to say over that.
    let mut asked = tip(30, "keeper", StateWord::NeedsHuman, Some(1));
    asked.recovered = Some(1);
    let mut other = tip(31, "mini", StateWord::Running, Some(9));
    (other.about, other.after.attempts) = (Some(attempt_id(9)), 2);
    let reading = Reading {
        tip: Some(other),
        keeper: Some(asked),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    for _ in 1..BLANKS_MAX {
        let effects = on(&mut attempt, Input::Reread(reading.clone()));
        assert_eq!(effects, [Effect::Pause], "it may not count");
        assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
    }
    let effects = on(&mut attempt, Input::Reread(reading));
    let superseded = Effect::Superseded(Box::new(gone()));
    assert_eq!(effects, [superseded, Effect::Forget, Effect::Done]);
}

#[test]
fn what_gave_way_to_a_decision_that_is_lost_tells_its_end() {
    let mut attempt = adopted(None);
    let resolved = tip(24, "operator", StateWord::Failed, None);
    let reading = Reading {
        tip: Some(resolved.clone()),
        operator: Some(resolved),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    assert_eq!(on(&mut attempt, Input::Reread(reading)), [Effect::Fence]);
    // The journal ends with the claim again, and would wait for ever.
    let mut attempt = rebuilt(attempt);
    let reading = Reading {
        tip: Some(claim(20, 0)),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    let effects = on(&mut attempt, Input::Reread(reading.clone()));
    assert!(matches!(appended(&effects).change, Change::Adopted { .. }));
    assert_eq!(on(&mut attempt, Input::Appended(30)), [Effect::ReadAll]);
    let fenced = Gone {
        outcome: Outcome::Fenced,
        ..gone()
    };
    let effects = on(&mut attempt, Input::Gone(fenced));
    assert!(matches!(appended(&effects).change, Change::Ended { .. }));
}

#[test]
fn what_ended_and_was_forgotten_is_told_where_the_journal_waits_for_it_or_has_lost_it_whole() {
    let found = |token| Found {
        job: job_id(1),
        attempt: attempt_id(1),
        token,
        no: 1,
        spec: spec(Target::Lane(Lane::any())),
    };
    let left = Some(Mark { epoch: 3, seq: 50 });
    let missed = |tip: Option<&Tip>| is_missed(&found(token(3, 20)), tip, left);
    assert!(missed(Some(&claim(20, 0))), "it runs, as far as is known");
    assert!(missed(Some(&tip(
        30,
        "keeper",
        StateWord::NeedsHuman,
        Some(1)
    ))));
    assert!(!missed(Some(&tip(
        30,
        "keeper",
        StateWord::NeedsHuman,
        Some(2)
    ))));
    assert!(!missed(Some(&tip(
        30,
        "keeper",
        StateWord::Succeeded,
        None
    ))));
    assert!(!missed(Some(&tip(30, "operator", StateWord::Queued, None))));
    // Put to the operator as one that had not run, or not this often.
    let mut asked = tip(30, "keeper", StateWord::NeedsHuman, None);
    (asked.recovered, asked.after.attempts) = (Some(4), 0);
    assert!(missed(Some(&asked)));
    asked.after.attempts = 1;
    assert!(!missed(Some(&asked)));
    // No journal: purged long ago, or lost with the rest.
    assert!(!missed(None));
    assert!(is_missed(&found(token(3, 51)), None, left));
    assert!(is_missed(&found(token(4, 2)), None, left));
    assert!(!is_missed(&found(token(2, 99)), None, left));
    assert!(!is_missed(&found(token(3, 51)), None, None), "nobody knows");
}

#[test]
fn one_old_reading_takes_no_attempt_from_a_machine_after_a_recovery() {
    let mut attempt = rebuilt(adopted(None));
    let queued = tip(8, "operator", StateWord::Queued, None);
    let old = Reading {
        tip: Some(queued.clone()),
        operator: Some(queued),
        ..Reading::default()
    };
    assert_eq!(on(&mut attempt, Input::Reread(old)), [Effect::Pause]);
    assert_eq!(on(&mut attempt, Input::Again), [Effect::ReadAll]);
    let reading = Reading {
        tip: Some(claim(20, 0)),
        own: Some(claim(20, 0)),
        ..Reading::default()
    };
    let effects = on(&mut attempt, Input::Reread(reading));
    assert_eq!(appended(&effects).prev, 20);
}

#[test]
fn a_failed_attempt_from_before_a_recovery_is_not_repeated_without_asking() {
    let failed = Gone {
        outcome: Outcome::Exited { exit_code: 1 },
        ..gone()
    };
    let found = Found {
        job: job_id(1),
        attempt: attempt_id(1),
        token: token(0, 20),
        no: 1,
        spec: fleet_contract::spec::JobSpec {
            retries: 5,
            ..spec(Target::Lane(Lane::any()))
        },
    };
    let (attempt, _) = Attempt::adopt(machine("studio"), found, Some(failed));
    let mut attempt = rebuilt(attempt);
    // The journal is lost, and with it whether a later attempt runs elsewhere.
    on(&mut attempt, Input::Reread(Reading::default()));
    let effects = on(&mut attempt, Input::Appended(3));
    assert!(matches!(
        &appended(&effects).change,
        Change::Ended {
            next: Next::Ask { .. },
            ..
        }
    ));
}
