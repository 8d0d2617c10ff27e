//! What holds of the fold and of the wire whatever comes: generated histories, orders and garbage.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{attempt_id, job_id, machine, spec, ticket_id};
use fleet_contract::envelope::{self, Header, MESSAGE_MAX_BYTES};
use fleet_contract::ids::{Lane, MessageId, Writer};
use fleet_contract::job::{Applied, Job, Void, first_record};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::record::{Cause, Change, Next, Record, StateWord};
use fleet_contract::reorder::Reorder;
use fleet_contract::spec::Target;
use fleet_contract::ticket::{Reading, Tip, refused};
use fleet_contract::time::Time;
use proptest::prelude::*;

/// One attempt to write: most are possible, some are not.
#[derive(Debug, Clone)]
struct Try {
    writer: u8,
    change: u8,
    n: u8,
    flavour: u8,
    /// How the record lies: not at all for most.
    lie: u8,
    gap: u8,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = (0..4u8, 0..12u8, 1..6u8, 0..8u8, 0..12u8, 1..4u8).prop_map(
        |(writer, change, n, flavour, lie, gap)| Try {
            writer,
            change,
            n,
            flavour,
            lie,
            gap,
        },
    );
    proptest::collection::vec(one, 1..40)
}

#[derive(Debug, Clone)]
struct Line {
    seq: u64,
    writer: Writer,
    record: Result<Record, Void>,
}

fn time(seq: u64) -> Time {
    Time::from_micros(i64::try_from(seq).unwrap() * 1000)
}

fn change(t: &Try, job: Option<&Job>) -> Change {
    let open = job
        .and_then(|job| job.state.open())
        .map(|open| open.attempt);
    let attempt = open.filter(|_| t.flavour != 7).unwrap_or(attempt_id(t.n));
    let spec = || {
        let pinned = Target::Pin(machine("studio"));
        let lane = Target::Lane(Lane::any());
        Box::new(spec(if t.flavour == 3 { pinned } else { lane }))
    };
    let next = match t.flavour % 4 {
        0 | 1 => Next::End,
        2 => Next::Backoff { until: time(1) },
        _ => Next::Ask {
            question: "well?".to_owned(),
        },
    };
    let by = "ana".to_owned();
    match t.change {
        0..=2 => Change::Queued {
            ticket: ticket_id(t.n),
            target: match t.flavour {
                0 => Target::Pin(machine("studio")),
                1 => Target::Pin(machine("mini")),
                _ => Target::Lane(Lane::any()),
            },
            work_seq: 1,
            cause: Cause::Dispatch,
            spec: job.is_none().then(spec),
        },
        3..=5 => Change::Claimed {
            attempt: attempt_id(t.n),
            no: job.map_or(1, Job::next_no),
            ticket: ticket_id(t.n),
            epoch: 0,
            // Whatever it says.
            target: match t.flavour {
                0 => Some(Target::Pin(machine("studio"))),
                1 => Some(Target::Pin(machine("mini"))),
                2 => Some(Target::Lane(Lane::any())),
                _ => None,
            },
            lease: 0,
            spec: job.is_none().then(spec),
        },
        6 | 7 => Change::Ended {
            attempt,
            outcome: match t.flavour {
                0..=2 => Outcome::Exited { exit_code: 0 },
                3 => Outcome::Fenced,
                4 => Outcome::Unknown {
                    reason: String::new(),
                },
                _ => Outcome::Exited { exit_code: 2 },
            },
            output: OutputCount::default(),
            started_at: time(1),
            ended_at: time(2),
            next,
        },
        8 => Change::CancelRequested { by },
        9 => Change::Canceled { by },
        10 => match t.flavour {
            0..=5 => Change::Lost {
                attempt,
                reason: String::new(),
                next,
            },
            6 => Change::Expired {},
            _ => Change::Rejected {
                reason: String::new(),
            },
        },
        _ => match t.flavour {
            0..=3 => Change::Restated {},
            _ => Change::Resolved {
                to: StateWord::Failed,
                by,
                notes: None,
            },
        },
    }
}

fn writer(n: u8) -> Writer {
    match n {
        0 => Writer::Operator,
        1 => Writer::Keeper,
        2 => Writer::Machine(machine("studio")),
        _ => Writer::Machine(machine("mini")),
    }
}

/// A journal as the compare-and-swap lets it come about: what is not possible is not written by
/// the honest, and written all the same by a liar. And its fold.
fn journal(tries: &[Try]) -> (Vec<Line>, Option<Job>) {
    let mut lines: Vec<Line> = Vec::new();
    let mut job: Option<Job> = None;
    let mut seq = 0;
    for t in tries {
        let next = seq + u64::from(t.gap);
        let writer = writer(t.writer);
        let change = change(t, job.as_ref());
        let made = match &job {
            Some(job) => job.record(time(next), &writer, change.clone()),
            None => first_record(job_id(1), time(next), &writer, change.clone()),
        };
        let Ok(honest) = made else { continue };
        let record = match (t.lie, &job) {
            (0, Some(_)) => Err(Void::Unreadable("garbage".to_owned())),
            (1, Some(job)) => Ok(Record {
                prev: job.last_seq.saturating_sub(1),
                ..honest
            }),
            (2, Some(_)) => Ok(Record {
                after: fleet_contract::record::After {
                    attempts: honest.after.attempts + 1,
                    ..honest.after.clone()
                },
                ..honest
            }),
            _ => Ok(honest),
        };
        seq = next;
        match (&mut job, &record) {
            (Some(job), Ok(record)) => {
                let lies = (1..=2).contains(&t.lie);
                let applied = job.apply(seq, time(seq), &writer, record);
                assert_eq!(applied == Applied::Changed, !lies, "{applied:?}");
                assert_eq!(
                    job.apply(seq, time(seq), &writer, record),
                    Applied::Duplicate
                );
            }
            (Some(job), Err(_)) => job.skip(seq),
            (None, Ok(record)) => {
                job = Some(Job::first(job_id(1), seq, time(seq), &writer, record).unwrap());
            }
            (None, Err(_)) => unreachable!(),
        }
        lines.push(Line {
            seq,
            writer,
            record,
        });
    }
    (lines, job)
}

fn offer(reorder: &mut Reorder, line: &Line) {
    reorder.offer(
        line.seq,
        time(line.seq),
        line.writer.clone(),
        line.record.clone(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_fold_promises(tries in tries()) {
        let (lines, job) = journal(&tries);
        let mut fold: Option<Job> = None;
        let mut token = 0;
        for line in &lines {
            let before = fold.clone();
            match (&mut fold, &line.record) {
                (Some(job), Ok(record)) => { job.apply(line.seq, time(line.seq), &line.writer, record); }
                (Some(job), Err(_)) => job.skip(line.seq),
                (None, Ok(record)) => {
                    fold = Some(Job::first(job_id(1), line.seq, time(line.seq), &line.writer, record).unwrap());
                }
                (None, Err(_)) => unreachable!(),
            }
            let now = fold.as_ref().unwrap();
            if let (Some(before), Ok(record)) = (before, &line.record) {
                if !now.void_on_top {
                    prop_assert_eq!(&record.after, &now.after());
                }
                if before.state.word().is_terminal() && line.writer != Writer::Operator {
                    prop_assert_eq!(&before.state, &now.state);
                }
                if now.void_on_top {
                    prop_assert_eq!(before.after(), now.after());
                }
            }
            if let Some(open) = now.state.open() {
                prop_assert!(open.token >= token, "a fencing token went back");
                token = open.token;
            }
            prop_assert!(now.attempts.windows(2).all(|two| two[0].token < two[1].token));
            prop_assert!(now.attempts.iter().rev().skip(1).all(|a| a.outcome.is_some()));
        }
        prop_assert_eq!(fold, job);
    }

    #[test]
    fn order_and_duplicates_change_nothing(
        tries in tries(),
        order in proptest::collection::vec(any::<(u32, bool)>(), 40),
        cut in 0..40usize,
    ) {
        let (lines, job) = journal(&tries);
        let mut shuffled: Vec<(u32, &Line)> =
            lines.iter().zip(&order).map(|(line, (key, _))| (*key, line)).collect();
        shuffled.sort_by_key(|(key, _)| *key);
        let mut reorder = Reorder::new(job_id(1));
        for ((_, line), (_, twice)) in shuffled.iter().zip(&order) {
            offer(&mut reorder, line);
            if *twice {
                offer(&mut reorder, line);
            }
        }
        // Settled in two steps, what came before a second time again.
        if let Some(line) = lines.get(cut) {
            reorder.settle(line.seq);
            offer(&mut reorder, line);
        }
        let last = lines.last().map_or(0, |line| line.seq);
        reorder.settle(last);
        prop_assert_eq!(reorder.job(), job.as_ref());
        prop_assert_eq!(reorder.dropped(), 0);
    }

    #[test]
    fn an_honest_journal_needs_no_settling(
        tries in tries(),
        keys in proptest::collection::vec(any::<u32>(), 40),
    ) {
        let tries: Vec<Try> = tries.into_iter().map(|t| Try { lie: 11, ..t }).collect();
        let (lines, job) = journal(&tries);
        let mut shuffled: Vec<_> = keys.iter().zip(&lines).collect();
        shuffled.sort_by_key(|(key, _)| **key);
        let mut reorder = Reorder::new(job_id(1));
        for (_, line) in shuffled {
            offer(&mut reorder, line);
        }
        prop_assert_eq!(reorder.job(), job.as_ref());
    }

    /// Each part of a reading may be of another age: whatever the mixture, an attempt that is open
    /// is never fenced, and one that is not open is never told to go on from the last sequence.
    #[test]
    fn a_reading_of_mixed_age_decides_nothing_wrong(
        tries in tries(),
        ages in any::<[u8; 4]>(),
    ) {
        let tries: Vec<Try> = tries.into_iter().map(|t| Try { lie: 11, ..t }).collect();
        let (lines, job) = journal(&tries);
        let Some(job) = job else { return Ok(()) };
        let me = machine("studio");
        let seen = |age: u8, of: Option<&Writer>| {
            let upto = lines.len().saturating_sub(usize::from(age % 4));
            lines[..upto]
                .iter()
                .rev()
                .find(|line| of.is_none_or(|of| *of == line.writer))
                .map(|line| Tip::of(line.seq, line.writer.clone(), line.record.as_ref().unwrap()))
        };
        let reading = Reading {
            tip: seen(ages[0], None),
            operator: seen(ages[1], Some(&Writer::Operator)),
            keeper: seen(ages[2], Some(&Writer::Keeper)),
            own: seen(ages[3], Some(&Writer::Machine(me.clone()))),
        };
        for attempt in job.attempts.iter().filter(|a| a.machine == me) {
            let claimed = attempt.token;
            let said = refused(attempt.id, &me, Some(claimed), claimed, &reading);
            // An id that was used twice is no attempt's.
            if job.attempts.iter().filter(|a| a.id == attempt.id).count() > 1 {
                continue;
            }
            let open = job.state.open().is_some_and(|open| open.attempt == attempt.id);
            use fleet_contract::ticket::Refused;
            match said {
                Refused::Fenced | Refused::Ended { .. } => prop_assert!(!open, "{said:?}"),
                Refused::GoOn { seq, .. } if seq == job.last_seq => prop_assert!(open),
                _ => {}
            }
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = envelope::decode_header(&bytes, 200);
        let _ = envelope::decode_any::<Record>(&bytes, 200, Change::knows_kind);
        let _ = serde_json::from_slice::<fleet_contract::ticket::Ticket>(&bytes);
        let _ = serde_json::from_slice::<fleet_contract::lease::LeaseRecord>(&bytes);
    }

    #[test]
    fn a_damaged_record_is_an_error_or_void_and_no_panic(
        tries in tries(),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let (lines, job) = journal(&tries);
        let (Some(line), Some(mut job)) = (lines.last(), job) else { return Ok(()) };
        let Ok(record) = &line.record else { return Ok(()) };
        let header = Header::new(MessageId::from_random([1; 10]), time(1), record.change.kind());
        let mut bytes = envelope::encode(&header, record, MESSAGE_MAX_BYTES).unwrap();
        let back: (Header, Record) =
            envelope::decode_any(&bytes, MESSAGE_MAX_BYTES, Change::knows_kind).unwrap();
        prop_assert_eq!(&back.1, record);
        for (at, byte, how) in damage {
            let at = usize::from(at) % bytes.len();
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, b"0123456789{}[]\",:"[usize::from(byte) % 17]),
            }
        }
        if let Ok((_, record)) =
            envelope::decode_any::<Record>(&bytes, MESSAGE_MAX_BYTES, Change::knows_kind)
        {
            let seq = job.last_seq + 1;
            job.apply(seq, time(seq), &line.writer, &record);
            let _ = Job::first(job.id, seq, time(seq), &line.writer, &record);
        }
    }
}

/// Where a job waits by its journal: what operator and keeper said last.
fn said_target(lines: &[Line]) -> Option<Target> {
    let mut said = None;
    let mut fold: Option<Job> = None;
    for line in lines {
        let Ok(record) = &line.record else {
            if let Some(job) = &mut fold {
                job.skip(line.seq);
            }
            continue;
        };
        let counts = match &mut fold {
            Some(job) => {
                job.apply(line.seq, time(line.seq), &line.writer, record) == Applied::Changed
            }
            None => {
                fold = Job::first(job_id(1), line.seq, time(line.seq), &line.writer, record).ok();
                fold.is_some()
            }
        };
        match &record.change {
            Change::Queued { target, .. } if counts => said = Some(target.clone()),
            Change::Claimed {
                spec: Some(spec), ..
            } if counts && said.is_none() => {
                said = Some(spec.target.clone());
            }
            _ => {}
        }
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// A machine that claims over whatever state, with whatever claim, never gets a job that is
    /// pinned to another one.
    #[test]
    fn a_pin_holds_whatever_a_claim_says(tries in tries(), n in 1..6u8, says in 0..4u8) {
        let (lines, job) = journal(&tries);
        let Some(mut job) = job else { return Ok(()) };
        prop_assert_eq!(said_target(&lines), Some(job.target.clone()));
        for attempt in &job.attempts {
            // By then it was not pinned elsewhere.
            let upto: Vec<Line> = lines.iter().filter(|l| l.seq < attempt.token).cloned().collect();
            if let Some(Target::Pin(pinned)) = said_target(&upto) {
                prop_assert_eq!(&pinned, &attempt.machine);
            }
        }
        let mini = Writer::Machine(machine("mini"));
        let change = Change::Claimed {
            attempt: attempt_id(n),
            no: job.next_no(),
            ticket: ticket_id(n),
            epoch: 0,
            target: match says {
                0 => Some(Target::Pin(machine("mini"))),
                1 => Some(Target::Lane(Lane::any())),
                _ => None,
            },
            lease: 0,
            spec: None,
        };
        let pinned = job.target == Target::Pin(machine("studio"));
        let forged = Record {
            prev: job.last_seq,
            after: fleet_contract::record::After {
                state: StateWord::Running,
                attempt: Some(attempt_id(n)),
                machine: Some(machine("mini")),
                cancel_requested: false,
                attempts: job.next_no(),
                losses: job.losses,
            },
            change,
        };
        let seq = job.last_seq + 1;
        let applied = job.apply(seq, time(seq), &mini, &forged);
        prop_assert!(!pinned || matches!(applied, Applied::Void(_)), "{applied:?}");
    }
}

#[test]
fn an_unordered_reader_is_bounded_and_counts_what_it_drops() {
    let mut reorder = Reorder::new(job_id(1));
    let void = || Err(Void::Unreadable(String::new()));
    let max = u64::try_from(fleet_contract::reorder::WAITING_MAX).unwrap();
    for seq in 1..=max + 5 {
        reorder.offer(seq, time(seq), Writer::Operator, void());
    }
    assert_eq!(reorder.dropped(), 5);
}
