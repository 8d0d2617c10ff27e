//! A good history, in which nothing is found, and for each rule bad ones, in which it is.

use fleet_contract::envelope::Header;
use fleet_contract::event::kind::ATTEMPT_SUPERSEDED;
use fleet_contract::ids::{AttemptId, JobId, Lane, MessageId, TicketId, Writer};
use fleet_contract::job::{Job, first_record};
use fleet_contract::outcome::{Outcome, OutputCount, StreamCount};
use fleet_contract::record::{Cause, Change, Next, Record};
use fleet_contract::spec::{JobSpec, OnLost, Target};
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use fleet_nats::journal::Entry;

use super::{Rule, check};
use crate::history::{Chunk, Did, Effect, History, Injected, Logs, Told};
use crate::schedule::{CRAMPED, Fault, PLAIN, PROXIED};
use crate::shape::{Kind, Shape};

const SHAPE: Shape = Shape {
    kind: Kind::Both,
    size: 3,
    exit: 0,
};

/// Seconds on the clock of the faults as the wall clock that records have, which is the same here.
fn at(seconds: f64) -> Time {
    Time::from_micros((seconds * 1e6) as i64)
}

/// One job's history as it is written.
struct Story {
    history: History,
    id: JobId,
    job: Option<Job>,
    spec: JobSpec,
}

impl Story {
    fn new(on_lost: OnLost) -> Self {
        let mut spec = JobSpec::new(
            SHAPE.command("job.sh"),
            Target::Lane(Lane::any()),
            at(1.0),
            "ana@studio".to_owned(),
        );
        spec.on_lost = on_lost;
        let id = JobId::from_random([1; 10]);
        let mut story = Self {
            history: History::default(),
            id,
            job: None,
            spec: spec.clone(),
        };
        story.history.acknowledged.push(id.to_string());
        story.queued(1.0, Cause::Dispatch, Writer::Operator, Some(Box::new(spec)));
        story
    }

    /// A record that counts.
    fn append(&mut self, seconds: f64, writer: Writer, change: Change) {
        let record = match &self.job {
            None => first_record(self.id, at(seconds), &writer, change).unwrap(),
            Some(job) => job.record(at(seconds), &writer, change).unwrap(),
        };
        self.store(seconds, writer, record);
        let mut job = None;
        for entry in &self.history.journal {
            fleet_nats::journal::fold(&mut job, entry);
        }
        self.job = job;
    }

    fn store(&mut self, seconds: f64, writer: Writer, record: Record) {
        let seq = self.history.journal.len() as u64 + 1;
        let id = MessageId::from_random([seq as u8; 10]);
        let header = Header::new(id, at(seconds), record.change.kind());
        self.history.shown_flow.push(id.to_string());
        self.history.journal.push(Entry {
            job: self.id,
            writer,
            seq,
            stored: at(seconds),
            record: Ok((header, record)),
        });
    }

    fn queued(&mut self, seconds: f64, cause: Cause, writer: Writer, spec: Option<Box<JobSpec>>) {
        let change = Change::Queued {
            ticket: TicketId::from_random([seconds as u8; 10]),
            target: self.spec.target.clone(),
            work_seq: 1,
            cause,
            spec,
        };
        self.append(seconds, writer, change);
    }

    fn claimed(&mut self, seconds: f64, no: u32, machine: &str) -> AttemptId {
        let attempt = AttemptId::from_random([no as u8; 10]);
        let job = self.job.as_ref().unwrap();
        let fleet_contract::job::JobState::Queued { ticket, .. } = job.state else {
            panic!("not queued");
        };
        let change = Change::Claimed {
            attempt,
            no,
            ticket,
            epoch: 0,
            target: None,
            lease: 1,
            spec: None,
        };
        self.append(seconds, Writer::Machine(machine.parse().unwrap()), change);
        attempt
    }

    fn did(&mut self, seconds: f64, attempt: AttemptId, what: Did) {
        let of = |a: &&fleet_contract::job::Attempt| a.id == attempt;
        let attempt = self.job.as_ref().unwrap().attempts.iter().find(of).unwrap();
        let effect = Effect {
            what,
            job: self.id.to_string(),
            attempt: attempt.id.to_string(),
            token: attempt.token,
            machine: attempt.machine.to_string(),
            at: seconds,
        };
        self.history.effects.push(effect);
    }

    fn lost(&mut self, seconds: f64, attempt: AttemptId, next: Next) {
        let reason = "its lease is over".to_owned();
        let change = Change::Lost {
            attempt,
            reason,
            next,
        };
        self.append(seconds, Writer::Keeper, change);
    }

    /// The end of an attempt that wrote everything.
    fn ended(&mut self, seconds: f64, attempt: AttemptId, outcome: Outcome) {
        let open = self.job.as_ref().unwrap().state.open().unwrap().clone();
        let (stdout, stderr) = SHAPE.writes(open.token);
        let count = |bytes: &[u8]| StreamCount {
            bytes: bytes.len() as u64,
            dropped: 0,
        };
        let change = Change::Ended {
            attempt,
            outcome,
            output: OutputCount {
                chunks: 3,
                stdout: count(&stdout),
                stderr: count(&stderr),
            },
            started_at: at(seconds),
            ended_at: at(seconds),
            next: Next::End,
        };
        self.append(seconds, Writer::Machine(open.machine), change);
        let logs = self.history.logs.entry(self.id).or_default();
        let chunk = |seq, stderr, bytes: &[u8]| Chunk {
            attempt: attempt.to_string(),
            seq,
            stderr,
            missing: 0,
            missing_bytes: 0,
            bytes: bytes.to_vec(),
        };
        let (first, rest) = stdout.split_at(2);
        logs.chunks.push(chunk(1, false, first));
        logs.chunks.push(chunk(2, true, &stderr));
        logs.chunks.push(chunk(3, false, rest));
        logs.plain = Some((stdout, stderr));
    }

    fn tell(&mut self, run: &str, seq: u64, kind: &str, attempt: Option<AttemptId>) {
        let id = format!("{run}-{seq}");
        self.history.shown_flow.push(id.clone());
        self.history.flow.push(Told {
            id,
            writer: PLAIN.to_owned(),
            boot: run.to_owned(),
            seq,
            kind: kind.to_owned(),
            attempt: attempt.map(|a| a.to_string()),
            machine: Some(PLAIN.to_owned()),
            happened: 1.0,
            stored: 1.0,
        });
    }

    fn done(mut self) -> History {
        let view = JobView::of(self.job.as_ref().unwrap());
        self.history.shown = vec![serde_json::to_value(view).unwrap()];
        self.history
    }
}

const BEGIN: Did = Did::Begin { beside: false };
const BESIDE: Did = Did::Begin { beside: true };
const END: Did = Did::End { exit: 0 };
const EXITED: Outcome = Outcome::Exited { exit_code: 0 };

/// One attempt, which did what it had to.
fn one_attempt(machine: &str) -> Story {
    let mut story = Story::new(OnLost::Ask);
    let attempt = story.claimed(2.0, 1, machine);
    story.did(2.1, attempt, BEGIN);
    story.did(3.0, attempt, END);
    story.ended(3.1, attempt, EXITED);
    story.tell("a", 1, "machine.up", None);
    story.tell("a", 2, "link.lost", None);
    story.tell("b", 1, "machine.up", None);
    story
}

fn good() -> History {
    one_attempt(PLAIN).done()
}

/// An attempt that was lost, and one after it that begins so while the first is there until `until`.
fn two_attempts(second: Did, until: f64) -> Story {
    let mut story = Story::new(OnLost::Retry);
    let first = story.claimed(2.0, 1, PLAIN);
    story.did(2.1, first, BEGIN);
    story.lost(50.0, first, Next::Backoff { until: at(50.0) });
    story.queued(50.1, Cause::Backoff, Writer::Keeper, None);
    let again = story.claimed(50.2, 2, PROXIED);
    if until < 50.3 {
        story.did(until, first, END);
    }
    story.did(50.3, again, second);
    if until >= 50.3 {
        story.did(until, first, END);
    }
    story.did(52.0, again, END);
    story.ended(52.1, again, EXITED);
    story
}

fn freeze(machine: &str) -> Injected {
    Injected {
        fault: Fault::MachineFrozen.name().to_owned(),
        machine: Some(machine.to_owned()),
        from: 3.0,
        to: Some(55.0),
    }
}

/// Plants something and says which rules find it.
fn planted(plant: impl FnOnce(&mut History)) -> Vec<Rule> {
    let mut history = good();
    plant(&mut history);
    rules(&history)
}

fn rules(history: &History) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(history).iter().map(|v| v.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

fn chunks(history: &mut History) -> &mut Vec<Chunk> {
    let logs: &mut Logs = history.logs.values_mut().next().unwrap();
    logs.plain = None;
    &mut logs.chunks
}

#[test]
fn in_good_histories_nothing_is_found() {
    assert_eq!(check(&good()), []);
    assert_eq!(check(&two_attempts(BEGIN, 40.0).done()), []);
}

#[test]
fn what_was_acknowledged_and_is_gone_is_found() {
    let other = JobId::from_random([9; 10]).to_string();
    let lost = planted(|h| h.acknowledged.push(other.clone()));
    assert_eq!(lost, [Rule::Kept]);
    // Taken out of the spool before it was sent.
    let taken_out = planted(|h| h.withdrawn.push(other.clone()));
    assert_eq!(taken_out, []);
    let sent_all_the_same = planted(|h| h.withdrawn.push(h.acknowledged[0].clone()));
    assert_eq!(sent_all_the_same, [Rule::Kept]);
}

#[test]
fn a_job_that_never_ends_is_found() {
    let mut story = Story::new(OnLost::Ask);
    let attempt = story.claimed(2.0, 1, PLAIN);
    story.did(2.1, attempt, BEGIN);
    assert_eq!(rules(&story.done()), [Rule::Ended]);
}

#[test]
fn a_second_result_is_found_and_one_after_the_operators_retry_is_not() {
    let mut story = one_attempt(PLAIN);
    let last = story.history.journal.last().unwrap().clone();
    let (_, mut record) = last.record.unwrap();
    record.prev = last.seq;
    story.store(4.0, last.writer, record);
    assert_eq!(
        rules(&story.history),
        [
            Rule::OneResult,
            Rule::NoVoid,
            // The fold knows a record more than what was shown.
            Rule::Shown
        ]
    );

    let mut story = one_attempt(PLAIN);
    story.queued(5.0, Cause::Retry, Writer::Operator, None);
    let again = story.claimed(5.1, 2, PROXIED);
    story.did(5.2, again, BEGIN);
    story.did(5.3, again, END);
    story.ended(5.4, again, EXITED);
    let mut history = story.done();
    history.logs.values_mut().next().unwrap().plain = None;
    assert_eq!(check(&history), []);
}

#[test]
fn a_record_that_does_not_count_is_found() {
    let mut story = one_attempt(PLAIN);
    let last = story.history.journal[1].clone();
    let (_, record) = last.record.unwrap();
    story.store(4.0, last.writer, record);
    assert!(rules(&story.history).contains(&Rule::NoVoid));
}

#[test]
fn an_attempt_without_its_claim_is_found() {
    let token = planted(|h| h.effects[1].token += 1);
    assert_eq!(token, [Rule::Claimed]);
    let machine = planted(|h| h.effects[0].machine = PROXIED.to_owned());
    assert_eq!(machine, [Rule::Claimed]);
    let twice = planted(|h| h.effects.insert(1, h.effects[0].clone()));
    assert_eq!(twice, [Rule::Claimed]);
    let early = planted(|h| h.effects[0].at = 0.5);
    assert_eq!(early, [Rule::Claimed]);
    let mut stranger = good().effects[0].clone();
    stranger.attempt = AttemptId::from_random([9; 10]).to_string();
    let unclaimed = planted(|h| h.effects.insert(0, stranger));
    assert_eq!(unclaimed, [Rule::Claimed]);
    let mut nobody = good().effects[0].clone();
    nobody.job = JobId::from_random([9; 10]).to_string();
    assert_eq!(planted(|h| h.effects.push(nobody)), [Rule::Claimed]);
}

#[test]
fn attempts_that_run_beside_each_other_are_found_by_lock_and_by_time() {
    // One that never said that it ended, and one that said so later.
    for (second, until) in [(BESIDE, 40.0), (BEGIN, 51.0), (BESIDE, 51.0)] {
        let rules = rules(&two_attempts(second, until).done());
        assert_eq!(rules, [Rule::NoOverlap], "{second:?} {until}");
    }
}

#[test]
fn a_machine_that_was_frozen_is_excused_where_it_is_told() {
    let mut story = two_attempts(BESIDE, 51.0);
    story.history.injected.push(freeze(PLAIN));
    let untold = story.history.clone();
    let first = AttemptId::from_random([1; 10]);
    story.tell("a", 1, ATTEMPT_SUPERSEDED, Some(first));
    assert_eq!(check(&story.done()), []);
    assert!(rules(&untold).contains(&Rule::NoOverlap));
    // Another machine's sleep excuses nothing, nor does one that was over long before.
    for other in [
        freeze(PROXIED),
        Injected {
            to: Some(5.0),
            ..freeze(PLAIN)
        },
    ] {
        let mut story = two_attempts(BESIDE, 51.0);
        story.history.injected.push(other);
        story.tell("a", 1, ATTEMPT_SUPERSEDED, Some(first));
        assert_eq!(rules(&story.done()), [Rule::NoOverlap]);
    }
}

#[test]
fn an_end_that_was_another_is_found() {
    let code = planted(|h| h.effects[1].what = Did::End { exit: 1 });
    assert_eq!(code, [Rule::Outcome]);
    let none = planted(|h| drop(h.effects.pop()));
    assert_eq!(none, [Rule::Outcome]);
    let reason = "no such folder".to_owned();
    for (machine, found) in [(PLAIN, true), (CRAMPED, false)] {
        let mut story = Story::new(OnLost::Ask);
        let attempt = story.claimed(2.0, 1, machine);
        let reason = reason.clone();
        story.ended(
            2.1,
            attempt,
            Outcome::Rejected {
                reason,
                no_room: false,
            },
        );
        let rules = rules(&story.done());
        assert_eq!(rules.contains(&Rule::Outcome), found, "{machine}");
    }
}

#[test]
fn a_loss_that_is_not_followed_by_what_the_policy_says_is_found() {
    let ask = || Next::Ask {
        question: "again?".to_owned(),
    };
    let wait = || Next::Backoff { until: at(50.0) };
    for (on_lost, next, found) in [
        (OnLost::Ask, Next::End, true),
        (OnLost::Ask, wait(), true),
        (OnLost::Ask, ask(), false),
        (OnLost::Fail, Next::End, false),
        (OnLost::Fail, wait(), true),
        (OnLost::Retry, wait(), false),
        (OnLost::Retry, ask(), true),
        (OnLost::Retry, Next::End, true),
    ] {
        let mut story = Story::new(on_lost);
        let attempt = story.claimed(2.0, 1, PLAIN);
        story.lost(50.0, attempt, next.clone());
        let rules = rules(&story.done());
        assert_eq!(rules.contains(&Rule::Policy), found, "{on_lost:?} {next:?}");
    }
}

#[test]
fn output_that_is_not_what_was_written_is_found() {
    let byte = planted(|h| chunks(h)[2].bytes[1] ^= 1);
    assert_eq!(byte, [Rule::Output]);
    let hole = planted(|h| drop(chunks(h).remove(1)));
    assert_eq!(hole, [Rule::Output]);
    let cut = planted(|h| drop(chunks(h).pop()));
    assert_eq!(cut, [Rule::Output]);
    let twice = planted(|h| {
        let first = chunks(h)[0].clone();
        chunks(h).insert(0, first);
    });
    assert_eq!(twice, [Rule::Output]);
    let to_come = planted(|h| h.logs.values_mut().next().unwrap().to_come = 1);
    assert_eq!(to_come, [Rule::Output]);
    let stranger = AttemptId::from_random([9; 10]).to_string();
    let nobodys = planted(|h| {
        let chunk = Chunk {
            attempt: stranger,
            ..chunks(h)[0].clone()
        };
        chunks(h).push(chunk);
    });
    assert_eq!(nobodys, [Rule::Output]);
    let plain = planted(|h| {
        let logs = h.logs.values_mut().next().unwrap();
        logs.plain.as_mut().unwrap().0.push(b'x');
    });
    assert_eq!(plain, [Rule::Output]);
}

#[test]
fn a_gap_is_excused_on_a_small_disk_where_it_is_marked() {
    for (machine, marked, bytes, found) in [
        (CRAMPED, true, 2, false),
        (CRAMPED, true, 1, true),
        (CRAMPED, false, 2, true),
        (PLAIN, true, 2, true),
    ] {
        let mut history = one_attempt(machine).done();
        for entry in &mut history.journal {
            let (_, record) = entry.record.as_mut().unwrap();
            if let Change::Ended { output, .. } = &mut record.change {
                output.stdout.dropped = 2;
            }
        }
        let all = chunks(&mut history);
        all.remove(0);
        all[0].missing = u64::from(marked);
        all[1].missing_bytes = bytes;
        history.shown.clear();
        let rules = rules(&history);
        let rules: Vec<Rule> = rules.into_iter().filter(|r| *r != Rule::Shown).collect();
        let expected = if found { &[Rule::Output][..] } else { &[] };
        assert_eq!(rules, expected, "{machine} {marked} {bytes}");
    }
}

#[test]
fn events_out_of_their_order_are_found() {
    let hole = planted(|h| h.flow[1].seq = 3);
    assert_eq!(hole, [Rule::Flow]);
    let twice = planted(|h| h.flow.insert(1, h.flow[0].clone()));
    assert_eq!(twice, [Rule::Flow]);
    let turned = planted(|h| h.flow.swap(0, 1));
    assert_eq!(turned, [Rule::Flow]);
    let mixed = planted(|h| h.flow.swap(1, 2));
    assert_eq!(mixed, [Rule::Flow]);
    let hidden = planted(|h| drop(h.shown_flow.pop()));
    assert_eq!(hidden, [Rule::Flow]);
    let shown_twice = planted(|h| h.shown_flow.push(h.shown_flow[0].clone()));
    assert_eq!(shown_twice, [Rule::Flow]);
    let lost = planted(|h| h.flow[0].kind = "spool.dropped".to_owned());
    assert_eq!(lost, [Rule::Flow]);
    // The hub has no spool, and two parts that count.
    let hub = |h: &mut History| h.flow.iter_mut().for_each(|e| e.writer = "hub".to_owned());
    let hubs = planted(|h| {
        hub(h);
        h.flow[1].seq = 3;
        h.flow.swap(1, 2);
    });
    assert_eq!(hubs, []);
    let hubs = planted(|h| {
        hub(h);
        h.flow[1].seq = 1;
    });
    assert_eq!(hubs, [Rule::Flow]);
}

#[test]
fn what_is_shown_and_not_so_is_found() {
    let state = planted(|h| h.shown[0]["state"] = "failed".into());
    assert_eq!(state, [Rule::Shown]);
    let missing = planted(|h| h.shown.clear());
    assert_eq!(missing, [Rule::Shown]);
    let unknown = planted(|h| {
        let mut other = h.shown[0].clone();
        other["id"] = JobId::from_random([9; 10]).to_string().into();
        h.shown.push(other);
    });
    assert_eq!(unknown, [Rule::Shown]);
}

#[test]
fn what_is_left_and_what_went_wrong_is_found() {
    let process = planted(|h| h.alive.push("7: sleep".to_owned()));
    assert_eq!(process, [Rule::NothingLeft]);
    let ticket = planted(|h| h.tickets.push(("WORK".to_owned(), 1)));
    assert_eq!(ticket, [Rule::NothingLeft]);
    let complaint = planted(|h| h.complaints.push("it panicked".to_owned()));
    assert_eq!(complaint, [Rule::NoComplaint]);
    let strange = planted(|h| h.strange.push("half a line".to_owned()));
    assert_eq!(strange, [Rule::NoComplaint]);
}
