//! Attempts that had run though another decision held: what the journal tells of them, what the
//! keeper makes of their machines' word, and that neither changes where a job stands.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::event::SupersededTold;
use fleet_contract::ids::{JobId, Lane, Writer};
use fleet_contract::job::{Applied, Job, SUPERSEDED_MAX, Void, first_record, token};
use fleet_contract::keeper::{Act, KEEP_UNACKNOWLEDGED, Keeper, Retention, UNACKNOWLEDGED_MAX};
use fleet_contract::lease::BootTime;
use fleet_contract::outcome::{Outcome, OutputCount, REASON_MAX_BYTES};
use fleet_contract::record::{Cause, Change, Next, StateWord};
use fleet_contract::spec::Target;
use fleet_contract::ticket::{Reading, Refused, Tip, refused};
use fleet_contract::time::Time;
use fleet_contract::view::JobView;

const EXITED: Outcome = Outcome::Exited { exit_code: 3 };

fn at(seconds: u64) -> Time {
    Time::from_micros(0).plus(Duration::from_secs(seconds))
}

fn on(name: &str) -> Writer {
    Writer::Machine(machine(name))
}

fn queued(n: u8, first: bool) -> Change {
    Change::Queued {
        ticket: ticket_id(n),
        target: Target::Lane(Lane::any()),
        work_seq: 7,
        cause: Cause::Dispatch,
        spec: first.then(|| Box::new(spec(Target::Lane(Lane::any())))),
    }
}

fn claimed(n: u8) -> Change {
    Change::Claimed {
        attempt: attempt_id(n),
        no: u32::from(n),
        ticket: ticket_id(n),
        epoch: 0,
        target: None,
        lease: 0,
        spec: None,
    }
}

fn lost(n: u8, next: Next) -> Change {
    Change::Lost {
        attempt: attempt_id(n),
        reason: "the lease of ada is over".to_owned(),
        next,
    }
}

fn ended(n: u8) -> Change {
    Change::Ended {
        attempt: attempt_id(n),
        outcome: Outcome::Exited { exit_code: 0 },
        output: OutputCount::default(),
        started_at: at(50),
        ended_at: at(60),
        next: Next::End,
    }
}

fn superseded(n: u8) -> Change {
    Change::Superseded {
        attempt: attempt_id(n),
        no: u32::from(n),
        machine: machine("ada"),
        token: token(0, 2),
        outcome: EXITED,
        output: OutputCount::default(),
        started_at: Some(at(2)),
        ended_at: Some(at(59)),
    }
}

fn acknowledged() -> Change {
    let by = "ana".to_owned();
    Change::Acknowledged { by }
}

fn told() -> SupersededTold {
    SupersededTold {
        outcome: Some(EXITED),
        no: Some(1),
        token: Some(token(0, 2)),
        output: OutputCount::default(),
        started_at: Some(at(2)),
        ended_at: Some(at(59)),
    }
}

/// A job that ran on ada, was taken over by bob, and stands where the changes lead.
fn taken_over() -> Vec<(Writer, Change)> {
    let until = at(45);
    vec![
        (Writer::Operator, queued(1, true)),
        (on("ada"), claimed(1)),
        (Writer::Keeper, lost(1, Next::Backoff { until })),
        (Writer::Keeper, queued(2, false)),
        (on("bob"), claimed(2)),
    ]
}

fn fold(changes: &[(Writer, Change)]) -> Job {
    let mut job: Option<Job> = None;
    for (n, (writer, change)) in changes.iter().enumerate() {
        let (seq, time) = (n as u64 + 1, at(n as u64));
        let id = job_id(1);
        match &mut job {
            None => {
                let record = first_record(id, time, writer, change.clone()).unwrap();
                job = Some(Job::first(id, seq, time, writer, &record).unwrap());
            }
            Some(job) => {
                let record = job.record(time, writer, change.clone()).unwrap();
                let applied = job.apply(seq, time, writer, &record);
                assert_eq!(applied, Applied::Changed, "{change:?}");
            }
        }
    }
    job.unwrap()
}

fn with(more: Vec<(Writer, Change)>) -> Job {
    fold(&[taken_over(), more].concat())
}

#[test]
fn a_remark_changes_nothing_and_stays_until_it_is_acknowledged() {
    for end in [false, true] {
        let end = end.then(|| (on("bob"), ended(2)));
        let before = with(end.clone().into_iter().collect());
        let mut job = with(
            end.into_iter()
                .chain([(Writer::Keeper, superseded(1))])
                .collect(),
        );
        assert_eq!(job.after(), before.after());
        assert_eq!(
            (&job.state, job.changed_at),
            (&before.state, before.changed_at)
        );
        assert_eq!(job.attempts, before.attempts, "its end does not count");
        assert_eq!((job.unacknowledged(), job.two_ran()), (1, true));
        let view = JobView::of(&job);
        assert!(view.unacknowledged && view.two_ran);
        assert_eq!(view.superseded[0].ran.exit_code, Some(3));
        assert_eq!(view.superseded[0].ran.machine, machine("ada"));

        let record = job
            .record(at(99), &Writer::Operator, acknowledged())
            .unwrap();
        let seq = job.last_seq + 1;
        assert_eq!(
            job.apply(seq, at(99), &Writer::Operator, &record),
            Applied::Changed
        );
        assert_eq!(
            (job.unacknowledged(), job.changed_at),
            (0, before.changed_at)
        );
        let view = JobView::of(&job);
        assert_eq!(view.superseded[0].acknowledged_by.as_deref(), Some("ana"));
        assert!(!view.unacknowledged && view.two_ran);
        // Nothing is left to acknowledge.
        assert!(
            job.record(at(99), &Writer::Operator, acknowledged())
                .is_err()
        );
        // Read again from FLOW, it is not told again.
        assert!(job.record(at(99), &Writer::Keeper, superseded(1)).is_err());
    }
}

#[test]
fn only_the_keeper_tells_and_only_the_operator_acknowledges() {
    let job = with(vec![(Writer::Keeper, superseded(1))]);
    for writer in [on("ada"), on("bob"), Writer::Operator] {
        let void = with(Vec::new()).record(at(9), &writer, superseded(1));
        assert!(matches!(void, Err(Void::Writer { .. })), "{writer:?}");
    }
    for writer in [on("ada"), Writer::Keeper] {
        let void = job.record(at(9), &writer, acknowledged());
        assert!(matches!(void, Err(Void::Writer { .. })), "{writer:?}");
    }
}

#[test]
fn nothing_is_told_of_what_is_open_is_anothers_or_would_get_in_the_way() {
    let tells = |job: &Job, change| job.record(at(9), &Writer::Keeper, change).is_ok();
    let job = with(Vec::new());
    assert!(tells(&job, superseded(1)));
    assert!(!tells(&job, superseded(2)), "it is open");
    let mut other = superseded(1);
    if let Change::Superseded { machine: m, .. } = &mut other {
        *m = machine("eve");
    }
    assert!(!tells(&job, other), "ada ran it");
    // A ticket is valid only while `queued` is the last record.
    assert!(!tells(&fold(&taken_over()[..4]), superseded(1)));
    // A machine that may still have the job looks for the record of the recovery.
    let question = "restored".to_owned();
    let recovered = Change::Recovered { epoch: 1, question };
    let mut asked = fold(&taken_over()[..3]);
    let record = asked.record(at(9), &Writer::Keeper, recovered).unwrap();
    asked.apply(9, at(9), &Writer::Keeper, &record);
    assert!(!tells(&asked, superseded(1)));
    // Bounded.
    let mut full = with(Vec::new());
    for n in 0..SUPERSEDED_MAX {
        let n = u8::try_from(n).unwrap() + 10;
        let record = full.record(at(9), &Writer::Keeper, superseded(n)).unwrap();
        full.apply(full.last_seq + 1, at(9), &Writer::Keeper, &record);
    }
    assert!(!tells(&full, superseded(1)));
}

/// What an attempt of bob finds when its append is refused over this record.
fn reading(job: &Job, writer: &Writer, change: &Change) -> Reading {
    let record = job.record(at(9), writer, change.clone()).unwrap();
    let tip = Tip::of(job.last_seq + 1, writer.clone(), &record);
    let claim = fold(&taken_over()[..4]);
    let claim = claim.record(at(9), &on("bob"), claimed(2)).unwrap();
    Reading {
        operator: (*writer == Writer::Operator).then(|| tip.clone()),
        keeper: (*writer == Writer::Keeper).then(|| tip.clone()),
        tip: Some(tip),
        own: Some(Tip::of(5, on("bob"), &claim)),
    }
}

#[test]
fn an_open_attempt_goes_on_over_a_remark_and_the_other_one_finds_that_it_is_over() {
    let job = with(Vec::new());
    let one = reading(&job, &Writer::Keeper, &superseded(1));
    let told = with(vec![(Writer::Keeper, superseded(1))]);
    let two = reading(&told, &Writer::Operator, &acknowledged());
    for (reading, seq) in [(one, 6), (two, 7)] {
        let said = refused(attempt_id(2), &machine("bob"), Some(5), 5, &reading);
        let goes_on = Refused::GoOn {
            seq,
            claimed: 5,
            cancel: false,
        };
        assert_eq!(said, goes_on);
        let own = Reading {
            own: None,
            ..reading
        };
        let said = refused(attempt_id(1), &machine("ada"), Some(2), 2, &own);
        assert_eq!(said, Refused::Fenced);
    }
}

/// A keeper that has read these changes.
fn keeper(changes: &[(Writer, Change)], epoch: u64) -> Keeper {
    let mut keeper = Keeper::new(BootTime(0), Retention::default()).in_epoch(epoch);
    for (writer, change) in changes {
        tell(&mut keeper, job_id(1), writer, change.clone());
    }
    keeper
}

fn tell(keeper: &mut Keeper, id: JobId, writer: &Writer, change: Change) {
    let (seq, now) = match keeper.job(id) {
        Some(job) => (job.last_seq + 1, at(job.last_seq)),
        None => (1, at(0)),
    };
    let record = match keeper.job(id) {
        Some(job) => job.record(now, writer, change).unwrap(),
        None => first_record(id, now, writer, change).unwrap(),
    };
    let applied = keeper.record(id, seq, now, writer, Ok(&record), now);
    assert_eq!(applied, Applied::Changed);
}

fn due(keeper: &mut Keeper, seconds: u64) -> Vec<Change> {
    let acts = keeper.due(at(seconds), BootTime(0));
    let changes = acts.into_iter().filter_map(|act| match act {
        Act::Append { record, .. } => Some(record.change),
        _ => None,
    });
    changes.collect()
}

#[test]
fn the_keeper_writes_down_what_a_machine_tells_once_and_says_what_holds_over_an_open_attempt() {
    let mut keeper = keeper(&taken_over(), 0);
    for _ in 0..2 {
        keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &told());
    }
    assert_eq!(due(&mut keeper, 10), [superseded(1)]);
    assert_eq!(due(&mut keeper, 10), [], "one is under way");
    assert_eq!(
        due(&mut keeper, 60),
        [superseded(1)],
        "and again while its record does not come"
    );
    tell(&mut keeper, job_id(1), &Writer::Keeper, superseded(1));
    // A machine that cannot read it goes on over this.
    assert_eq!(due(&mut keeper, 70), [Change::Restated {}]);
    tell(&mut keeper, job_id(1), &Writer::Keeper, Change::Restated {});
    assert_eq!(due(&mut keeper, 80), []);
    keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &told());
    assert_eq!(
        due(&mut keeper, 90),
        [],
        "the keeper was started anew and reads it again"
    );
}

#[test]
fn the_keeper_waits_until_a_remark_is_possible_and_believes_machines_of_their_own_attempts_only() {
    let mut keeper = keeper(&taken_over()[..4], 0);
    keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &told());
    assert_eq!(due(&mut keeper, 4), [], "its ticket would be stale");
    tell(&mut keeper, job_id(1), &on("bob"), claimed(2));
    assert_eq!(due(&mut keeper, 6), [superseded(1)]);

    let never = SupersededTold {
        outcome: Some(Outcome::Rejected {
            reason: "no such folder".to_owned(),
            no_room: false,
        }),
        ..told()
    };
    let late = SupersededTold {
        outcome: Some(Outcome::Fenced),
        started_at: None,
        ..told()
    };
    let unsaid = SupersededTold {
        outcome: None,
        ..told()
    };
    for (n, by, told) in [
        (2, "bob", told()),
        (1, "eve", told()),
        (1, "ada", never),
        (1, "ada", unsaid),
        (1, "ada", late),
        (9, "ada", told()),
    ] {
        let mut keeper = self::keeper(&taken_over(), 0);
        keeper.superseded(job_id(1), attempt_id(n), &machine(by), &told);
        keeper.superseded(job_id(8), attempt_id(n), &machine(by), &told);
        assert_eq!(due(&mut keeper, 9), [], "{n} {by}");
    }
    // What an older agent tells is little.
    let mut keeper = self::keeper(&taken_over(), 0);
    let old: SupersededTold =
        serde_json::from_str(r#"{"outcome":{"outcome":"exited","exit_code":3}}"#).unwrap();
    keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &old);
    let [
        Change::Superseded {
            no: 1,
            token: 2,
            started_at: None,
            ..
        },
    ] = due(&mut keeper, 9)[..]
    else {
        panic!("not told");
    };
    // One that the restored journal never heard of.
    let mut keeper = self::keeper(&taken_over(), 4);
    keeper.superseded(job_id(1), attempt_id(9), &machine("ada"), &told());
    assert_eq!(due(&mut keeper, 9).len(), 1);
}

#[test]
fn what_nobody_has_acknowledged_is_kept_longer_but_not_for_ever_and_not_without_bound() {
    let day = 24 * 3600;
    let ends = [
        taken_over(),
        vec![(on("bob"), ended(2)), (Writer::Keeper, superseded(1))],
    ]
    .concat();
    let mut keeper = keeper(&ends, 0);
    let clears = |keeper: &mut Keeper, seconds| {
        let acts = keeper.due(at(seconds), BootTime(0));
        acts.iter().any(|act| matches!(act, Act::Clear { .. }))
    };
    assert!(!clears(&mut keeper, 29 * day));
    assert!(clears(&mut keeper, KEEP_UNACKNOWLEDGED.as_secs() + 60));
    let mut keeper = self::keeper(&ends, 0);
    tell(&mut keeper, job_id(1), &Writer::Operator, acknowledged());
    assert!(clears(&mut keeper, 7 * day + 60));

    // Over the number that is kept, older ones go first; those that nobody acknowledged stay.
    let few = Retention {
        age: Duration::from_secs(7 * day),
        count: 1,
        bytes: None,
    };
    let mut keeper = Keeper::new(BootTime(0), few);
    let id =
        |n: usize| JobId::from_random([&n.to_be_bytes()[..], &[1, 1]].concat().try_into().unwrap());
    for n in 0..UNACKNOWLEDGED_MAX + 3 {
        for (writer, change) in &ends {
            tell(&mut keeper, id(n), writer, change.clone());
        }
    }
    let mut cleared = Vec::new();
    loop {
        let acts = keeper.due(at(day), BootTime(0));
        if acts.is_empty() {
            break;
        }
        cleared.extend(acts.into_iter().filter_map(|act| match act {
            Act::Clear { job } => Some(job),
            _ => None,
        }));
    }
    assert_eq!(
        cleared,
        [id(UNACKNOWLEDGED_MAX), id(UNACKNOWLEDGED_MAX + 1)]
    );
}

#[test]
fn a_job_with_one_attempt_that_ran_on_after_its_end_did_not_run_twice() {
    let by = "ana".to_owned();
    let question = "it is gone".to_owned();
    let changes = [
        (Writer::Operator, queued(1, true)),
        (on("ada"), claimed(1)),
        (Writer::Keeper, lost(1, Next::Ask { question })),
        (Writer::Operator, Change::Canceled { by }),
        (Writer::Keeper, superseded(1)),
    ];
    let job = fold(&changes);
    assert_eq!(job.state.word(), StateWord::Canceled);
    assert_eq!((job.unacknowledged(), job.two_ran()), (1, false));
}

/// What the keeper writes into the journal of job 1, each remark over the one before.
fn remarks(keeper: &mut Keeper) -> Vec<(String, Outcome)> {
    let mut written = Vec::new();
    loop {
        let acts = keeper.due(at(1000), BootTime(0));
        let Some(record) = acts.into_iter().find_map(|act| match act {
            Act::Append { record, .. } => Some(record),
            _ => None,
        }) else {
            return written;
        };
        if let Change::Superseded {
            machine, outcome, ..
        } = &record.change
        {
            written.push((machine.to_string(), outcome.clone()));
        }
        tell(keeper, job_id(1), &Writer::Keeper, record.change);
    }
}

#[test]
fn a_machine_cannot_tell_of_anothers_attempts_nor_keep_others_words_out() {
    let end = (on("bob"), ended(2));
    let history = [taken_over(), vec![end]].concat();
    let (ada, rogue) = (machine("ada"), machine("rogue"));
    let mut keeper = keeper(&history, 0);
    // Neither of an attempt of others nor of ever so many that nobody knows.
    assert!(!keeper.superseded(job_id(1), attempt_id(1), &rogue, &told()));
    let strange =
        (100..200).filter(|n| keeper.superseded(job_id(1), attempt_id(*n), &rogue, &told()));
    assert_eq!(strange.count(), 2, "a few may be named by the journal yet");
    assert!(keeper.superseded(job_id(1), attempt_id(1), &ada, &told()));
    assert_eq!(remarks(&mut keeper), [("ada".to_owned(), EXITED)]);
}

#[test]
fn after_a_recovery_a_machine_may_tell_of_few_attempts_that_the_journal_lost() {
    let end = (on("bob"), ended(2));
    let history = [taken_over(), vec![end]].concat();
    let mut keeper = keeper(&history, 3);
    for n in 100..200 {
        let rogue = machine(&format!("rogue{}", n % 2));
        keeper.superseded(job_id(1), attempt_id(n), &rogue, &told());
        let written = remarks(&mut keeper);
        assert!(written.iter().all(|(by, _)| *by == rogue.to_string()));
    }
    let job = keeper.job(job_id(1)).unwrap();
    assert_eq!(job.superseded.len(), 4, "two of each");
    assert!(keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &told()));
    assert_eq!(remarks(&mut keeper).len(), 1);
}

#[test]
fn however_long_a_reason_is_its_beginning_is_told() {
    let end = (on("bob"), ended(2));
    let mut keeper = keeper(&[taken_over(), vec![end]].concat(), 0);
    let reason = "é".repeat(100_000);
    let long = SupersededTold {
        outcome: Some(Outcome::Unknown { reason }),
        ..told()
    };
    assert!(keeper.superseded(job_id(1), attempt_id(1), &machine("ada"), &long));
    let written = remarks(&mut keeper);
    let [(_, Outcome::Unknown { reason })] = &written[..] else {
        panic!("{written:?}");
    };
    assert!(
        reason.len() <= REASON_MAX_BYTES && reason.ends_with("é…"),
        "{reason}"
    );
}
