//! The keeper's rules, one by one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::ids::{InstanceId, JobId, Lane, Writer};
use fleet_contract::job::{Applied, Void, first_record};
use fleet_contract::keeper::{
    ACT_TIMEOUT, Act, CLEAR_BEFORE_PURGE, Keeper, MAKE_ROOM_ABOVE_PERCENT,
    MAKE_ROOM_DOWN_TO_PERCENT, OVERDUE, PURGE_AGE_MIN, Pace, Retention, TICKET_CHECK_FIRST,
    TICKET_CHECK_MAX, Why,
};
use fleet_contract::lease::{BootTime, LEASE, LeaseRecord};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::policy::BACKOFF_MAX;
use fleet_contract::record::{Cause, Change, Next, StateWord};
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::time::Time;

const SECOND: Duration = Duration::from_secs(1);

/// A keeper, the streams in front of it, and a clock.
struct Bench {
    keeper: Keeper,
    seq: u64,
    now: Time,
    boot: BootTime,
    spec: JobSpec,
}

impl Bench {
    fn new(retention: Retention) -> Self {
        let boot = BootTime(1_000_000_000_000);
        Self {
            keeper: Keeper::new(boot, retention),
            seq: 0,
            now: Time::from_micros(0),
            boot,
            spec: spec(Target::Lane(Lane::any())),
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
        self.boot = self.boot.plus(span);
    }

    fn due(&mut self) -> Vec<Act> {
        self.keeper.due(self.now, self.boot)
    }

    fn next_due(&self) -> Option<Duration> {
        self.keeper.next_due(self.now, self.boot)
    }

    /// Waits as long as the keeper says, and does what it then wants.
    fn wait(&mut self) -> (Duration, Vec<Act>) {
        let mut waited = Duration::ZERO;
        loop {
            let pause = self.next_due().expect("nothing will ever be due");
            self.pass(pause);
            waited += pause;
            let acts = self.due();
            if !acts.is_empty() {
                return (waited, acts);
            }
            assert_ne!(self.next_due(), Some(Duration::ZERO), "it spins");
        }
    }

    fn write(&mut self, id: JobId, writer: &Writer, change: Change, skew: Duration) {
        self.seq += 1;
        let time = self.now.plus(skew);
        let record = match self.keeper.job(id) {
            Some(job) => job.record(time, writer, change).unwrap(),
            None => first_record(id, time, writer, change).unwrap(),
        };
        let applied = self
            .keeper
            .record(id, self.seq, time, writer, Ok(&record), self.now);
        assert_eq!(applied, Applied::Changed);
    }

    fn garbage(&mut self, id: JobId) {
        self.seq += 1;
        let void = Err(Void::Unreadable("garbage".to_owned()));
        let writer = Writer::Machine(machine("mini"));
        let applied = self
            .keeper
            .record(id, self.seq, self.now, &writer, void, self.now);
        assert!(matches!(applied, Applied::Void(_)));
    }

    fn queue(&mut self, id: JobId) {
        let first = self.keeper.job(id).is_none();
        let change = Change::Queued {
            ticket: ticket_id(1),
            target: self.spec.target.clone(),
            work_seq: 77,
            cause: Cause::Dispatch,
            spec: first.then(|| Box::new(self.spec.clone())),
        };
        self.write(id, &Writer::Operator, change, Duration::ZERO);
    }

    fn claim(&mut self, id: JobId, n: u8, lease: u64) {
        let change = Change::Claimed {
            attempt: attempt_id(n),
            no: u32::from(n),
            ticket: ticket_id(1),
            epoch: 0,
            target: None,
            lease,
            spec: None,
        };
        self.write(id, &studio(), change, Duration::ZERO);
    }

    fn end(&mut self, id: JobId, n: u8, next: Next, skew: Duration) {
        let change = Change::Ended {
            attempt: attempt_id(n),
            outcome: Outcome::Exited { exit_code: 1 },
            output: OutputCount::default(),
            started_at: self.now,
            ended_at: self.now,
            next,
        };
        self.write(id, &studio(), change, skew);
    }

    fn lease(&mut self, seq: u64, term: Option<u64>, held: &[u8], released: bool) {
        let record = LeaseRecord::Agent {
            machine: machine("studio"),
            instance: InstanceId::from_random([1; 10]),
            host: "host".to_owned(),
            released,
            term,
            held: held.iter().map(|n| attempt_id(*n)).collect(),
            seen: None,
        };
        self.keeper.lease(&record, seq, self.boot);
    }
}

fn studio() -> Writer {
    Writer::Machine(machine("studio"))
}

fn appended(acts: &[Act]) -> &Change {
    match acts {
        [Act::Append { record, .. }] => &record.change,
        other => panic!("expected one append: {other:?}"),
    }
}

fn long() -> Bench {
    Bench::new(Retention::default())
}

#[test]
fn nothing_is_due_where_nothing_is() {
    let mut bench = long();
    assert_eq!(bench.due(), []);
    assert_eq!(bench.next_due(), None);
}

#[test]
fn a_ticket_is_looked_for_ever_more_seldom_and_published_again_when_gone() {
    let mut bench = long();
    bench.queue(job_id(1));
    let (waited, acts) = bench.wait();
    assert_eq!(waited, TICKET_CHECK_FIRST);
    assert!(matches!(
        &acts[..],
        [Act::CheckTicket {
            work_seq: 77,
            revision: 1,
            ..
        }]
    ));
    assert_eq!(bench.wait().0, TICKET_CHECK_FIRST * 2);
    for _ in 0..10 {
        assert!(bench.wait().0 <= TICKET_CHECK_MAX);
    }
    bench.keeper.ticket_gone(job_id(1), 9);
    assert_eq!(bench.due(), [], "another revision");
    bench.keeper.ticket_gone(job_id(1), 1);
    let acts = bench.due();
    let cause = Cause::Republish;
    assert!(matches!(&acts[..], [Act::Issue { after: 1, cause: c, .. }] if *c == cause));
    let queued = bench
        .keeper
        .queued(job_id(1), 1, ticket_id(2), 78, cause, bench.now);
    assert_eq!(queued.unwrap().prev, 1);
    assert!(
        bench
            .keeper
            .queued(job_id(1), 0, ticket_id(2), 78, cause, bench.now)
            .is_none()
    );
}

#[test]
fn a_job_that_nobody_started_expires_and_the_act_is_repeated_until_its_record_comes() {
    let mut bench = long();
    bench.spec.expires_ms = 3000;
    bench.queue(job_id(1));
    let (waited, acts) = bench.wait();
    assert_eq!(waited, 3 * SECOND);
    assert_eq!(appended(&acts), &Change::Expired {});
    let (waited, acts) = bench.wait();
    assert_eq!(waited, ACT_TIMEOUT);
    assert_eq!(appended(&acts), &Change::Expired {});
    bench.write(
        job_id(1),
        &Writer::Keeper,
        Change::Expired {},
        Duration::ZERO,
    );
    assert_eq!(bench.due(), []);
}

#[test]
fn a_jobs_life_counts_from_when_the_hub_got_it_whatever_its_dispatchers_clock() {
    let hour = 3_600_000_000;
    for submitted in [-hour, 0, hour] {
        let mut bench = long();
        bench.spec.expires_ms = 3000;
        bench.spec.submitted_at = Time::from_micros(submitted);
        bench.queue(job_id(1));
        let (waited, acts) = bench.wait();
        assert_eq!(waited, 3 * SECOND, "{submitted}");
        assert_eq!(appended(&acts), &Change::Expired {});
    }
}

#[test]
fn a_job_that_the_operator_wants_run_again_has_its_whole_time_to_wait_once_more() {
    let mut bench = long();
    bench.spec.expires_ms = 3000;
    bench.queue(job_id(1));
    bench.pass(3 * SECOND);
    assert_eq!(appended(&bench.due()), &Change::Expired {});
    bench.write(
        job_id(1),
        &Writer::Keeper,
        Change::Expired {},
        Duration::ZERO,
    );
    bench.pass(20 * SECOND);
    let again = |ticket, cause| Change::Queued {
        ticket: ticket_id(ticket),
        target: Target::Lane(Lane::any()),
        work_seq: 78,
        cause,
        spec: None,
    };
    let retry = again(2, Cause::Retry);
    bench.write(job_id(1), &Writer::Operator, retry, Duration::ZERO);
    assert_eq!(bench.due(), [], "it is not over at once");
    let expires = |bench: &Bench| bench.keeper.job(job_id(1)).unwrap().expires_at();
    assert_eq!(expires(&bench), bench.now.plus(3 * SECOND));
    // Sent on its way anew it has no more time than before.
    bench.pass(2 * SECOND);
    let republish = again(3, Cause::Republish);
    bench.write(job_id(1), &Writer::Keeper, republish, Duration::ZERO);
    let (waited, acts) = bench.wait();
    assert_eq!(waited, SECOND);
    assert_eq!(appended(&acts), &Change::Expired {});
}

#[test]
fn an_attempt_of_an_earlier_epoch_that_nobody_has_is_asked_about_whatever_its_policy() {
    for on_lost in [OnLost::Fail, OnLost::Retry] {
        for (epoch, asks) in [(0, false), (9, true)] {
            let mut bench = long();
            bench.keeper = Keeper::new(bench.boot, Retention::default()).in_epoch(epoch);
            bench.spec.on_lost = on_lost;
            bench.queue(job_id(1));
            bench.claim(job_id(1), 1, 0);
            bench.pass(LEASE);
            assert!(matches!(&bench.due()[..], [Act::TakeLease { .. }]));
            let (seq, boot, now) = (bench.seq + 1, bench.boot, bench.now);
            bench
                .keeper
                .lease_taken(&machine("studio"), seq, boot, now, 0.5);
            let acts = bench.due();
            let Change::Lost { next, .. } = appended(&acts) else {
                panic!("{acts:?}");
            };
            assert_eq!(
                matches!(next, Next::Ask { .. }),
                asks,
                "{on_lost:?} {epoch}"
            );
        }
    }
}

#[test]
fn a_backoff_lasts_as_long_as_its_writer_meant_whatever_its_clock() {
    let year = 365 * 24 * 3600 * SECOND;
    for skew in [Duration::ZERO, year] {
        let mut bench = long();
        bench.queue(job_id(1));
        bench.claim(job_id(1), 1, 0);
        let until = bench.now.plus(skew).plus(7 * SECOND);
        bench.end(job_id(1), 1, Next::Backoff { until }, skew);
        let (waited, acts) = bench.wait();
        assert_eq!(waited, 7 * SECOND);
        assert!(matches!(
            &acts[..],
            [Act::Issue {
                cause: Cause::Backoff,
                after: 3,
                ..
            }]
        ));
        assert_eq!(bench.wait().0, ACT_TIMEOUT, "and again while it waits");
    }
    // A wait beyond any backoff is a mistake or malice.
    let mut bench = long();
    bench.queue(job_id(1));
    bench.claim(job_id(1), 1, 0);
    let until = bench.now.plus(year);
    bench.end(job_id(1), 1, Next::Backoff { until }, Duration::ZERO);
    assert_eq!(bench.wait().0, BACKOFF_MAX);
}

#[test]
fn a_void_record_is_restated_at_once_and_again_until_it_is() {
    let mut bench = long();
    bench.queue(job_id(1));
    bench.garbage(job_id(1));
    assert_eq!(bench.next_due(), Some(Duration::ZERO));
    assert_eq!(appended(&bench.due()), &Change::Restated {});
    assert_eq!(bench.due(), [], "one is under way");
    assert_eq!(bench.wait().0, ACT_TIMEOUT);
    bench.write(
        job_id(1),
        &Writer::Keeper,
        Change::Restated {},
        Duration::ZERO,
    );
    assert!(matches!(
        &bench.wait().1[..],
        [Act::CheckTicket { revision: 3, .. }]
    ));
}

#[test]
fn a_machine_cannot_keep_a_job_out_by_a_first_record_that_is_none() {
    let mut bench = long();
    bench.queue(job_id(2));
    let job = bench.keeper.job(job_id(2)).unwrap();
    let by = "ana".to_owned();
    let record = job.record(bench.now, &Writer::Operator, Change::Canceled { by });
    let mut record = record.unwrap();
    record.prev = 0;
    let void = bench
        .keeper
        .record(job_id(1), 9, bench.now, &studio(), Ok(&record), bench.now);
    assert!(matches!(void, Applied::Void(_)));
    assert_eq!(
        bench.due(),
        [Act::Purge {
            job: job_id(1),
            up_to: 9
        }]
    );
}

#[test]
fn nor_by_one_that_cannot_be_read_but_an_operators_may_be_of_a_newer_contract() {
    let mut bench = long();
    bench.garbage(job_id(1));
    assert_eq!(
        bench.due(),
        [Act::Purge {
            job: job_id(1),
            up_to: 1
        }]
    );
    // What comes in its place is the job's first record.
    bench.queue(job_id(1));
    assert_eq!(bench.keeper.job_count(), 1);
    let void = Err(Void::Unreadable("newer".to_owned()));
    let operator = Writer::Operator;
    let now = bench.now;
    bench.keeper.record(job_id(2), 9, now, &operator, void, now);
    assert_eq!(bench.due(), []);
}

#[test]
fn time_in_which_the_keeper_could_not_hear_is_no_silence() {
    // Its link was down.
    let mut bench = long();
    bench.lease(5, None, &[], false);
    bench.keeper.turns(bench.boot, true);
    bench.pass(20 * SECOND);
    assert!(!bench.keeper.turns(bench.boot, true));
    bench.pass(10 * SECOND);
    assert!(bench.keeper.turns(bench.boot, false));
    for _ in 0..5 {
        bench.pass(10 * SECOND);
        assert!(bench.keeper.turns(bench.boot, false));
        assert_eq!(bench.due(), [], "it hears nothing");
    }
    bench.pass(SECOND);
    assert!(bench.keeper.turns(bench.boot, true));
    assert_eq!(bench.due(), []);
    let (waited, acts) = bench.wait();
    assert_eq!(waited, LEASE);
    assert!(matches!(&acts[..], [Act::TakeLease { expect: 5, .. }]));

    // It was suspended, its link none the wiser.
    let mut bench = long();
    bench.lease(5, None, &[], false);
    bench.keeper.turns(bench.boot, true);
    bench.pass(LEASE * 3);
    assert!(bench.keeper.turns(bench.boot, true));
    assert_eq!(bench.due(), []);
    assert_eq!(bench.wait().0, LEASE);

    // Nobody says anything: its own turns tell that it was awake.
    let mut bench = long();
    bench.lease(5, None, &[], false);
    let mut waited = Duration::ZERO;
    loop {
        let pause = bench.next_due().unwrap();
        bench.pass(pause);
        waited += pause;
        assert!(!bench.keeper.turns(bench.boot, true), "no hole");
        if !bench.due().is_empty() {
            break;
        }
    }
    assert_eq!(waited, LEASE);
}

#[test]
fn another_length_of_leases_is_for_tests() {
    let mut bench = long();
    bench.keeper = Keeper::new(bench.boot, Retention::default()).with_pace(Pace {
        lease: 2 * SECOND,
        ..Pace::default()
    });
    bench.lease(5, None, &[], false);
    assert_eq!(bench.wait().0, 2 * SECOND);
}

#[test]
fn a_journal_that_fills_up_loses_its_oldest_ended_jobs_first_and_no_more_than_needed() {
    let mut bench = long();
    for n in 1..=5 {
        bench.queue(job_id(n));
        bench.keeper.grew(job_id(n), 150);
        if n < 5 {
            bench.claim(job_id(n), 1, 0);
            bench.end(job_id(n), 1, Next::End, Duration::ZERO);
        }
        bench.keeper.grew(job_id(n), 20);
        bench.pass(Duration::from_millis(1));
    }
    let holds = 850;
    assert!(!bench.keeper.journal_holds(holds, 1100));
    assert!(!bench.keeper.journal_holds(holds, 0), "no limit");
    assert!(bench.keeper.journal_holds(holds, 1000));
    assert!(bench.keeper.journal_holds(holds, 1000), "told twice");
    const { assert!(MAKE_ROOM_ABOVE_PERCENT == 80 && MAKE_ROOM_DOWN_TO_PERCENT == 70) };
    // 150 of 170 have to go: one job.
    bench.pass(PURGE_AGE_MIN);
    let cleared: Vec<Act> = bench.due();
    assert!(
        cleared.contains(&Act::Clear { job: job_id(1) }),
        "{cleared:?}"
    );
    let clears = cleared
        .iter()
        .filter(|act| matches!(act, Act::Clear { .. }));
    assert_eq!(clears.count(), 1, "{cleared:?}");
    // It is worse than thought: what is left of the ended goes, what waits stays.
    assert!(bench.keeper.journal_holds(2000, 1000));
    bench.pass(SECOND);
    let clears = bench.due();
    assert_eq!(clears.len(), 3, "{clears:?}");
}

#[test]
fn ended_jobs_that_take_more_than_is_kept_go_oldest_first_and_each_says_why() {
    let mut bench = Bench::new(Retention {
        age: 3600 * SECOND,
        count: 3,
        bytes: Some(400),
    });
    // Each takes 120 and then 40 more, by the record that ends it.
    for n in 1..=4 {
        bench.queue(job_id(n));
        bench.keeper.grew(job_id(n), 120);
        bench.claim(job_id(n), 1, 0);
        bench.end(job_id(n), 1, Next::End, Duration::ZERO);
        bench.keeper.grew(job_id(n), 40);
        bench.pass(Duration::from_millis(1));
    }
    bench.pass(PURGE_AGE_MIN);
    let clears: Vec<Act> = bench.due();
    let expected: Vec<Act> = (1..=2).map(|n| Act::Clear { job: job_id(n) }).collect();
    assert_eq!(
        clears, expected,
        "320 of 640 are kept, and no more than needed goes"
    );
    let removed = |bench: &mut Bench, n| bench.keeper.purged(job_id(n)).unwrap();
    let first = removed(&mut bench, 1);
    assert_eq!((first.why, first.bytes), (Why::Bytes, 160));
    assert_eq!(first.ended_at, Some(Time::from_micros(0)));
    // There is room for one that runs again: nothing else goes.
    bench.queue(job_id(2));
    assert_eq!(bench.keeper.purged(job_id(2)).unwrap().why, Why::Age);
    for n in 5..=6 {
        bench.queue(job_id(n));
        bench.claim(job_id(n), 1, 0);
        bench.end(job_id(n), 1, Next::End, Duration::ZERO);
    }
    assert_eq!(
        removed(&mut bench, 3).why,
        Why::Count,
        "small ones, but too many"
    );
    assert_eq!(bench.keeper.purged(job_id(3)), None);
}

#[test]
fn a_silent_machine_loses_its_lease_and_then_its_attempts() {
    for (on_lost, state) in [
        (OnLost::Ask, StateWord::NeedsHuman),
        (OnLost::Retry, StateWord::Backoff),
        (OnLost::Fail, StateWord::Lost),
    ] {
        let mut bench = long();
        bench.spec.on_lost = on_lost;
        bench.lease(5, None, &[], false);
        bench.queue(job_id(1));
        bench.claim(job_id(1), 1, 5);
        bench.pass(10 * SECOND);
        bench.lease(6, Some(5), &[], false);
        let (waited, acts) = bench.wait();
        assert_eq!(waited, LEASE);
        let take = Act::TakeLease {
            machine: machine("studio"),
            expect: 6,
        };
        assert_eq!(acts, std::slice::from_ref(&take));
        // Refused or unanswered: again.
        let (waited, acts) = bench.wait();
        assert_eq!((waited, acts), (ACT_TIMEOUT, vec![take]));
        bench
            .keeper
            .lease_taken(&machine("studio"), 7, bench.boot, bench.now, 0.5);
        let acts = bench.due();
        let Change::Lost { attempt, .. } = appended(&acts) else {
            panic!("{acts:?}");
        };
        assert_eq!(*attempt, attempt_id(1));
        let [Act::Append { record, .. }] = &acts[..] else {
            panic!("{acts:?}");
        };
        assert_eq!(record.after.state, state);
        // The append did not arrive: again, without waiting for another lease.
        let (waited, acts) = bench.wait();
        assert_eq!(waited, ACT_TIMEOUT);
        let change = appended(&acts).clone();
        bench.write(job_id(1), &Writer::Keeper, change, Duration::ZERO);
        let acts = bench.due();
        assert!(
            acts.iter().all(|act| matches!(act, Act::Issue { .. })),
            "{acts:?}"
        );
    }
}

#[test]
fn a_machine_that_renews_loses_nothing_and_a_keepers_start_counts_anew() {
    let mut bench = long();
    bench.lease(5, None, &[], false);
    bench.queue(job_id(1));
    bench.claim(job_id(1), 1, 5);
    for n in 0..20 {
        bench.pass(30 * SECOND);
        bench.lease(6 + n, Some(5), &[], false);
        assert_eq!(bench.due(), []);
    }
    // Nothing was ever heard of the other machine.
    let change = Change::Claimed {
        attempt: attempt_id(2),
        no: 1,
        ticket: ticket_id(1),
        epoch: 0,
        target: None,
        lease: 0,
        spec: None,
    };
    let mut bench = long();
    bench.queue(job_id(2));
    let mini = Writer::Machine(machine("mini"));
    bench.write(job_id(2), &mini, change, Duration::ZERO);
    let (waited, acts) = bench.wait();
    assert_eq!(waited, LEASE);
    assert_eq!(
        acts,
        [Act::TakeLease {
            machine: machine("mini"),
            expect: 0
        }]
    );
}

#[test]
fn a_lease_that_nobody_gives_back_is_taken_without_jobs_too_but_once() {
    let mut bench = long();
    bench.lease(5, None, &[], false);
    let (waited, acts) = bench.wait();
    assert_eq!(waited, LEASE);
    assert!(matches!(&acts[..], [Act::TakeLease { expect: 5, .. }]));
    bench
        .keeper
        .lease_taken(&machine("studio"), 6, bench.boot, bench.now, 0.5);
    assert_eq!(bench.next_due(), None);
    let mut bench = long();
    bench.lease(5, None, &[], true);
    assert_eq!(bench.next_due(), None, "it was given back");
}

#[test]
fn what_a_new_run_of_the_agent_does_not_know_is_lost() {
    let mut bench = long();
    bench.spec.on_lost = OnLost::Retry;
    bench.lease(5, None, &[], false);
    bench.queue(job_id(1));
    bench.claim(job_id(1), 1, 5);
    bench.queue(job_id(2));
    bench.claim(job_id(2), 1, 5);
    bench.lease(8, None, &[1], false);
    assert_eq!(bench.due(), [], "both attempts are held");
    bench.lease(9, None, &[], false);
    assert_eq!(bench.next_due(), Some(Duration::ZERO));
    let acts = bench.due();
    assert_eq!(acts.len(), 2, "{acts:?}");
    // A claim under the newer term that is seen before its lease is not touched.
    let mut bench = long();
    bench.lease(5, None, &[], false);
    bench.queue(job_id(1));
    bench.claim(job_id(1), 1, 9);
    bench.lease(6, Some(5), &[], false);
    assert_eq!(bench.due(), []);
}

#[test]
fn ended_jobs_go_when_they_are_old_or_too_many_their_tickets_first() {
    let retention = Retention {
        age: 3600 * SECOND,
        count: 1,
        bytes: None,
    };
    let mut bench = Bench::new(retention);
    for n in 1..=2 {
        bench.queue(job_id(n));
        bench.claim(job_id(n), 1, 0);
        bench.end(job_id(n), 1, Next::End, Duration::ZERO);
    }
    let (waited, acts) = bench.wait();
    // (The machine never had a lease; its running jobs are over.)
    assert_eq!(waited, PURGE_AGE_MIN - CLEAR_BEFORE_PURGE);
    assert_eq!(acts, [Act::Clear { job: job_id(1) }]);
    assert_eq!(
        bench.wait(),
        (ACT_TIMEOUT, vec![Act::Clear { job: job_id(1) }])
    );
    bench.keeper.cleared(job_id(1), bench.now);
    let (waited, acts) = bench.wait();
    assert_eq!(waited, CLEAR_BEFORE_PURGE);
    let purge = Act::Purge {
        job: job_id(1),
        up_to: 3,
    };
    assert_eq!(acts, std::slice::from_ref(&purge));
    assert_eq!(bench.wait(), (ACT_TIMEOUT, vec![purge]));
    bench.keeper.purged(job_id(1));
    assert_eq!(bench.keeper.job_count(), 1);
    // The other one by its age.
    let (_, acts) = bench.wait();
    assert_eq!(acts, [Act::Clear { job: job_id(2) }]);
    assert_eq!(
        bench.now,
        Time::from_micros(0).plus(3600 * SECOND - CLEAR_BEFORE_PURGE)
    );
}

#[test]
fn a_job_that_runs_again_is_not_purged() {
    let mut bench = Bench::new(Retention {
        age: 600 * SECOND,
        count: 0,
        bytes: None,
    });
    bench.queue(job_id(1));
    bench.claim(job_id(1), 1, 0);
    bench.end(job_id(1), 1, Next::End, Duration::ZERO);
    bench.wait();
    bench.keeper.cleared(job_id(1), bench.now);
    bench.queue(job_id(1));
    let (_, acts) = bench.wait();
    assert!(matches!(&acts[..], [Act::CheckTicket { .. }]), "{acts:?}");
    bench.keeper.cleared(job_id(1), bench.now);
    assert!(!matches!(&bench.wait().1[..], [Act::Purge { .. }]));
}

/// A machine that holds its lease and renews it for as long as `span` passes; the acts meanwhile.
fn live_for(bench: &mut Bench, span: Duration, lease: &mut u64) -> Vec<Act> {
    let mut acts = Vec::new();
    let until = bench.now.plus(span);
    while bench.now < until {
        bench.pass(10 * SECOND);
        *lease += 1;
        let held = LeaseRecord::Agent {
            machine: machine("studio"),
            instance: InstanceId::from_random([1; 10]),
            host: "host".to_owned(),
            released: false,
            term: Some(1),
            held: Vec::new(),
            seen: None,
        };
        bench.keeper.lease(&held, *lease, bench.boot);
        bench.keeper.turns(bench.boot, true);
        acts.extend(bench.due());
    }
    acts
}

fn lost(acts: &[Act]) -> Vec<(StateWord, String)> {
    let lost = acts.iter().filter_map(|act| match act {
        Act::Append { record, .. } => match &record.change {
            Change::Lost { reason, .. } => Some((record.after.state, reason.clone())),
            _ => None,
        },
        _ => None,
    });
    lost.collect()
}

#[test]
fn who_claims_and_never_ends_is_found_out_by_the_time_out_and_put_to_the_operator() {
    let mut bench = Bench::new(Retention::default());
    let (id, mut lease) = (job_id(1), 1);
    bench.spec.timeout_ms = Some(600_000);
    bench.spec.on_lost = OnLost::Retry;
    bench.queue(id);
    live_for(&mut bench, 60 * SECOND, &mut lease);
    bench.claim(id, 1, 1);
    // It may run as long as it may run, and be ended for a while.
    let early = live_for(&mut bench, 600 * SECOND + OVERDUE, &mut lease);
    assert_eq!(lost(&early), []);
    let late = lost(&live_for(&mut bench, 20 * SECOND, &mut lease));
    assert_eq!(
        late[0].0,
        StateWord::NeedsHuman,
        "never a second one by itself"
    );
    assert!(late[0].1.contains("studio has not ended it"), "{late:?}");
}

#[test]
fn a_job_without_a_time_out_runs_for_ever_until_it_is_asked_to_end() {
    let mut bench = Bench::new(Retention::default());
    let (id, mut lease) = (job_id(1), 1);
    bench.queue(id);
    live_for(&mut bench, 60 * SECOND, &mut lease);
    bench.claim(id, 1, 1);
    let days = live_for(&mut bench, 2 * 86_400 * SECOND, &mut lease);
    assert_eq!(lost(&days), []);
    let wish = Change::CancelRequested {
        by: "ana".to_owned(),
    };
    bench.write(id, &Writer::Operator, wish, Duration::ZERO);
    let early = live_for(&mut bench, OVERDUE, &mut lease);
    assert_eq!(lost(&early), []);
    let late = lost(&live_for(&mut bench, 20 * SECOND, &mut lease));
    assert_eq!(late[0].0, StateWord::Canceled, "{late:?}");
}

#[test]
fn a_machine_that_is_silent_is_lost_by_its_lease_and_not_by_a_time_out() {
    let mut bench = Bench::new(Retention::default());
    let (id, mut lease) = (job_id(1), 1);
    bench.spec.timeout_ms = Some(1000);
    bench.queue(id);
    live_for(&mut bench, 60 * SECOND, &mut lease);
    bench.claim(id, 1, 1);
    // Frozen, or its link cut.
    for _ in 0..60 {
        bench.pass(10 * SECOND);
        bench.keeper.turns(bench.boot, true);
        assert_eq!(lost(&bench.due()), [], "its lease is to be taken first");
    }
}
