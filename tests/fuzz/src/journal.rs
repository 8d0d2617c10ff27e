//! Any sequence of records through the fold: scripts that write journals, honest and lying ones, and
//! lines of arbitrary envelopes. What is promised of a job must hold after each record, and the fold
//! in one go, in batches, in any order and of the projection must be the same.

use fleet_contract::envelope::{self, Header, TICKET_MAX_BYTES};
use fleet_contract::ids::{AttemptId, JobId, Lane, MachineId, TicketId, Writer};
use fleet_contract::job::{Applied, Job, Void, first_record, token_epoch};
use fleet_contract::outcome::{Outcome, OutputCount};
use fleet_contract::projection::{Fact, Fleet, JournalFact, Limits, why};
use fleet_contract::record::{Cause, Change, Next, Record, StateWord};
use fleet_contract::reorder::Reorder;
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use fleet_nats::journal;

use crate::Seed;
use crate::input::Input;

/// Jobs of one journal, and records of it at the most.
const JOBS: u8 = 2;
const RECORDS: usize = 200;

/// One record as it stands in the stream.
#[derive(Debug, Clone)]
struct Line {
    job: JobId,
    seq: u64,
    time: Time,
    writer: Writer,
    record: Result<Record, Void>,
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let lines = match mode {
        0 => of_envelopes(rest),
        _ => of_script(Input(rest)),
    };
    for n in 0..JOBS {
        one_job(&lines, job_id(n), Input(data));
    }
    whole_fleet(&lines);
}

fn job_id(n: u8) -> JobId {
    JobId::from_random([n; 10])
}

fn attempt_id(n: u8) -> AttemptId {
    AttemptId::from_random([n; 10])
}

fn machine(n: u8) -> MachineId {
    ["studio", "mini", "box"][usize::from(n % 3)]
        .parse()
        .unwrap()
}

/// Lines of a byte that says who wrote it and of which job, and an envelope of any kind.
fn of_envelopes(rest: &[u8]) -> Vec<Line> {
    let lines = rest.split(|byte| *byte == b'\n').take(RECORDS);
    let line = |(text, seq): (&[u8], u64)| {
        let (who, text) = text.split_first()?;
        let read: Result<(Header, Record), _> =
            envelope::decode_any(text, TICKET_MAX_BYTES, Change::knows_kind);
        let time = read
            .as_ref()
            .map_or(Time::default(), |(header, _)| header.time);
        Some(Line {
            job: job_id(who % JOBS),
            seq,
            time,
            writer: match (who / JOBS) % 5 {
                0 => Writer::Operator,
                1 => Writer::Keeper,
                n => Writer::Machine(machine(n)),
            },
            record: read
                .map(|(_, record)| record)
                .map_err(|error| Void::Unreadable(error.to_string())),
        })
    };
    lines.zip(1..).filter_map(line).collect()
}

/// A journal as writers make it that see the job as it is, but for those that lie.
fn of_script(mut input: Input<'_>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut jobs: [Option<Job>; JOBS as usize] = Default::default();
    let mut seq = 0_u64;
    while !input.is_over() && lines.len() < RECORDS {
        let which = input.below(JOBS);
        let job = &mut jobs[usize::from(which)];
        let writer = match input.below(5) {
            0 => Writer::Operator,
            1 => Writer::Keeper,
            n => Writer::Machine(machine(n)),
        };
        let Some(next) = seq.checked_add(1 + u64::from(input.below(3))) else {
            break;
        };
        let time = Time::from_micros(input.number().cast_signed());
        let change = change(&mut input, job.as_ref(), which);
        let made = match &*job {
            Some(job) => job.record(time, &writer, change.clone()),
            None => first_record(job_id(which), time, &writer, change.clone()),
        };
        let record = match made {
            Ok(honest) => Ok(lie(&mut input, honest)),
            // A claim that was honest until it reached the stream, or somebody who lies badly.
            Err(_) if input.flag() => match lines.last() {
                Some(Line {
                    record: Ok(record), ..
                }) => Ok(Record {
                    prev: job.as_ref().map_or(0, |job| job.last_seq),
                    change,
                    after: record.after.clone(),
                }),
                _ => Err(Void::Unreadable("garbage".to_owned())),
            },
            Err(void) => Err(void),
        };
        seq = next;
        let line = Line {
            job: job_id(which),
            seq,
            time,
            writer,
            record,
        };
        fold(job, &line);
        lines.push(line);
    }
    lines
}

fn lie(input: &mut Input<'_>, honest: Record) -> Record {
    match input.below(12) {
        1 => Record {
            prev: input.number(),
            ..honest
        },
        2 => Record {
            after: fleet_contract::record::After {
                attempts: honest.after.attempts.wrapping_add(1),
                ..honest.after.clone()
            },
            ..honest
        },
        3 => Record {
            after: fleet_contract::record::After {
                state: StateWord::ALL[usize::from(input.below(11))],
                ..honest.after.clone()
            },
            ..honest
        },
        _ => honest,
    }
}

fn change(input: &mut Input<'_>, job: Option<&Job>, which: u8) -> Change {
    let open = job
        .and_then(|job| job.state.open())
        .map(|open| open.attempt);
    let any = attempt_id(input.below(4));
    let attempt = open.filter(|_| input.below(8) != 1).unwrap_or(any);
    let target = match input.below(4) {
        1 => Target::Pin(machine(input.byte())),
        _ => Target::Lane(Lane::any()),
    };
    let spec = job.is_none().then(|| {
        let by = "ana@studio".to_owned();
        let time = Time::from_micros(i64::from(which));
        let mut spec = JobSpec::new(vec!["true".to_owned()], target.clone(), time, by);
        spec.stdin = input.flag().then(|| vec![7; 3]);
        spec.expires_ms = input.number();
        Box::new(spec)
    });
    let ticket = TicketId::from_random([input.below(3); 10]);
    let no = match input.below(6) {
        1 => u32::try_from(input.number()).unwrap_or(u32::MAX),
        _ => job.map_or(1, Job::next_no),
    };
    let words = || "why".to_owned();
    match input.below(12) {
        0 => Change::Queued {
            ticket,
            target,
            work_seq: input.number(),
            cause: Cause::Dispatch,
            spec,
        },
        1 => Change::Claimed {
            attempt: any,
            no,
            ticket,
            epoch: u64::from(input.below(3)),
            target: input.flag().then_some(target),
            lease: input.number(),
            spec,
        },
        2 => Change::Ended {
            attempt,
            outcome: outcome(input),
            output: OutputCount {
                chunks: input.number(),
                ..OutputCount::default()
            },
            started_at: Time::from_micros(input.number().cast_signed()),
            ended_at: Time::from_micros(input.number().cast_signed()),
            next: next(input),
        },
        3 => Change::CancelRequested { by: words() },
        4 => Change::Canceled { by: words() },
        5 => Change::Lost {
            attempt,
            reason: words(),
            next: next(input),
        },
        6 => Change::Expired {},
        7 => Change::Rejected { reason: words() },
        8 => Change::Resolved {
            to: StateWord::ALL[usize::from(input.below(11))],
            by: words(),
            notes: None,
        },
        9 => Change::Restated {},
        10 => Change::Recovered {
            epoch: u64::from(input.below(4)),
            question: words(),
        },
        _ => Change::Adopted {
            attempt,
            no,
            token: input.number(),
            epoch: u64::from(input.below(4)),
            lease: input.number(),
            spec,
        },
    }
}

fn outcome(input: &mut Input<'_>) -> Outcome {
    let reason = String::new();
    match input.below(9) {
        0 => Outcome::Exited { exit_code: 0 },
        1 => Outcome::Exited {
            exit_code: input.byte(),
        },
        2 => Outcome::Signaled {
            signal: input.byte(),
        },
        3 => Outcome::TimedOut,
        4 => Outcome::Canceled,
        5 => Outcome::Interrupted,
        6 => Outcome::Fenced,
        7 => Outcome::Rejected {
            reason,
            no_room: false,
        },
        _ => Outcome::Unknown { reason },
    }
}

fn next(input: &mut Input<'_>) -> Next {
    match input.below(3) {
        0 => Next::End,
        1 => Next::Backoff {
            until: Time::from_micros(input.number().cast_signed()),
        },
        _ => Next::Ask {
            question: "well?".to_owned(),
        },
    }
}

fn fold(job: &mut Option<Job>, line: &Line) -> Applied {
    match (job.as_mut(), &line.record) {
        (Some(job), Ok(record)) => job.apply(line.seq, line.time, &line.writer, record),
        (Some(job), Err(void)) => {
            job.skip(line.seq);
            Applied::Void(void.clone())
        }
        (None, Ok(record)) => {
            match Job::first(line.job, line.seq, line.time, &line.writer, record) {
                Ok(first) => {
                    *job = Some(first);
                    Applied::Changed
                }
                Err(void) => Applied::Void(void),
            }
        }
        (None, Err(void)) => Applied::Void(void.clone()),
    }
}

/// The promises of one job, record by record, and of every other way to read its journal.
fn one_job(lines: &[Line], id: JobId, mut order: Input<'_>) {
    let mine: Vec<&Line> = lines.iter().filter(|line| line.job == id).collect();
    let mut job: Option<Job> = None;
    for line in &mine {
        let before = job.clone();
        let applied = fold(&mut job, line);
        after_one(before.as_ref(), job.as_ref(), line, &applied);
        if job.is_some() {
            let now = job.clone();
            assert_eq!(fold(&mut job, line), repeated(line));
            assert_eq!(job, now, "a record that comes twice changes nothing");
        }
    }
    // Read on from the middle, by somebody who reads what was there already again.
    let mut resumed: Option<Job> = None;
    let half = mine.len() / 2;
    for line in mine[..half].iter().chain(&mine) {
        fold(&mut resumed, line);
    }
    assert_eq!(resumed, job, "read on from the middle");
    // In any order.
    let mut shuffled: Vec<(u8, &&Line)> = mine.iter().map(|line| (order.byte(), line)).collect();
    shuffled.sort_by_key(|(key, _)| *key);
    let mut reorder = Reorder::new(id);
    for (_, line) in shuffled {
        let record = line.record.clone();
        reorder.offer(line.seq, line.time, line.writer.clone(), record);
    }
    reorder.settle(u64::MAX);
    assert_eq!(reorder.job(), job.as_ref(), "read in another order");
}

/// What is said of a record that was known already; of one that is none, nothing.
fn repeated(line: &Line) -> Applied {
    match &line.record {
        Ok(_) => Applied::Duplicate,
        Err(void) => Applied::Void(void.clone()),
    }
}

fn after_one(before: Option<&Job>, now: Option<&Job>, line: &Line, applied: &Applied) {
    let Some(now) = now else {
        assert!(matches!(applied, Applied::Void(_)));
        return;
    };
    assert_eq!(now.last_seq, line.seq);
    match (applied, &line.record) {
        (Applied::Changed, Ok(record)) => {
            assert_eq!(record.after, now.after(), "what it says holds after it");
            assert!(!now.void_on_top);
            assert_eq!(record.prev, before.map_or(0, |job| job.last_seq));
            on_the_wire(line, record);
        }
        (Applied::Void(_), _) => {
            let same = before.map(|job| Job {
                last_seq: now.last_seq,
                void_on_top: true,
                voids: job.voids.saturating_add(1),
                ..job.clone()
            });
            assert_eq!(same.as_ref(), Some(now), "a void record is void");
        }
        _ => panic!("{applied:?} {line:?}"),
    }
    if let Some(before) = before {
        let ended = before.state.word().is_terminal();
        if ended && line.writer != Writer::Operator {
            assert_eq!(before.state, now.state, "an end absorbs");
            assert_eq!(before.attempts, now.attempts, "an end absorbs");
        }
        assert!(now.attempts.len() >= before.attempts.len());
    }
    let given_up = now.attempts.iter().rev().skip(1);
    assert!(
        given_up
            .into_iter()
            .all(|attempt| attempt.outcome.is_some())
    );
    if let Some(open) = now.state.open() {
        let last = now.attempts.last().unwrap();
        assert_eq!((last.id, &last.machine), (open.attempt, &open.machine));
        assert!(last.outcome.is_none());
    }
    let numbers: Vec<u32> = now.attempts.iter().map(|attempt| attempt.no).collect();
    let grow = numbers
        .windows(2)
        .all(|two| two[0] < two[1] || two[0] == u32::MAX);
    assert!(grow, "{numbers:?}");
    let view = JobView::of(now);
    assert_eq!(view.state, now.state.word());
    serde_json::to_string(&view).unwrap();
    let mut slim = now.clone();
    slim.forget_stdin();
    assert_eq!(
        (slim.spec.stdin.as_ref(), slim.after()),
        (None, now.after())
    );
    let _ = (now.expires_at(), view.title(), view.exit_status());
}

fn on_the_wire(line: &Line, record: &Record) {
    let bytes = journal::encode(line.job, &line.writer, line.time, record).unwrap();
    let (header, read): (Header, Record) =
        envelope::decode_any(&bytes, TICKET_MAX_BYTES, Change::knows_kind).unwrap();
    assert_eq!((header.job, &read), (Some(line.job), record));
    if let Change::Claimed { epoch, .. } = &record.change {
        let token = fleet_contract::job::token(*epoch, line.seq);
        assert_eq!(token_epoch(token), *epoch);
    }
}

/// The projection that command line and console share.
fn whole_fleet(lines: &[Line]) {
    let fact = |line: &Line| {
        Fact::Record(Box::new(JournalFact {
            job: line.job,
            writer: line.writer.clone(),
            seq: line.seq,
            stored: line.time,
            time: line.time,
            record: line.record.clone(),
        }))
    };
    let facts: Vec<Fact> = lines.iter().map(fact).collect();
    let mut fleet = Fleet::new(Limits::default());
    for fact in &facts {
        fleet.fold(fact);
    }
    let mut again = Fleet::new(Limits::default());
    let half = facts.len() / 2;
    for fact in facts[..half].iter().chain(&facts) {
        again.fold(fact);
    }
    assert!(fleet == again, "the projection reads on from the middle");
    let now = lines.last().map_or(Time::default(), |line| line.time);
    for (id, shown) in fleet.jobs() {
        let mut job = None;
        for line in lines.iter().filter(|line| line.job == *id) {
            fold(&mut job, line);
        }
        let mut job = job.unwrap();
        job.forget_stdin();
        assert_eq!(
            (shown.state.word(), shown.last_seq),
            (job.state.word(), job.last_seq)
        );
        assert_eq!(shown.after(), job.after());
        let _ = why(&fleet, shown, now);
    }
    let counted: usize = StateWord::ALL.iter().map(|word| fleet.count(*word)).sum();
    assert_eq!(counted, fleet.jobs().len());
    assert_eq!(fleet.worst_first(now).count(), fleet.jobs().len());
    // What was ended and is no longer kept costs the rest nothing.
    let mut tiny = Fleet::new(Limits {
        ended_jobs: 1,
        events: 3,
    });
    for fact in &facts {
        tiny.fold(fact);
    }
    assert!(tiny.events().len() <= 3);
    let ended = |job: &&Job| job.state.word().is_terminal();
    assert!(tiny.jobs().values().filter(ended).count() <= 1);
    tiny.fold(&Fact::JournalBegins(u64::MAX));
    assert_eq!(tiny.jobs().values().filter(ended).count(), 0);
}

/// Lives of a job as scripts, and the frozen records as lines.
pub(crate) fn seeds() -> Vec<Seed> {
    let frozen: Vec<u8> = crate::envelope::seeds()
        .into_iter()
        .filter(|(name, _)| name.starts_with("v1-job."))
        .flat_map(|(_, bytes)| [vec![0], bytes, vec![b'\n']].concat())
        .collect();
    // Draws in the order of `of_script`: job, writer, gap, time, then those of `change`.
    let record = |writer: u8, rest: &[u8]| [&[0, writer, 0, 1][..], rest].concat();
    let queued = record(0, &[0, 0, 0, 0, 9, 0, 0, 0, 1, 0]);
    let claimed = record(2, &[1, 0, 0, 0, 1, 0, 0, 0, 0]);
    let ended = record(2, &[0, 0, 0, 0, 0, 2, 0, 3, 1, 2, 0, 0]);
    let lost = record(1, &[0, 0, 0, 0, 0, 5, 2, 0]);
    let cancel = record(0, &[0, 0, 0, 0, 0, 3, 0]);
    let script = |parts: &[&[u8]]| [&[1][..], &parts.concat()].concat();
    vec![
        ("frozen-records".to_owned(), [vec![0], frozen].concat()),
        ("life".to_owned(), script(&[&queued, &claimed, &ended])),
        (
            "cancel".to_owned(),
            script(&[&queued, &claimed, &cancel, &ended]),
        ),
        (
            "lost".to_owned(),
            script(&[&queued, &claimed, &lost, &ended, &ended]),
        ),
    ]
}
