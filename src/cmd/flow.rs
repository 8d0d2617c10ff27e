//! `fleet flow`: all events, those of jobs and all others, in one stream.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_contract::event::EventView;
use fleet_contract::event::kind::MACHINE_LOAD;
use fleet_contract::ids::JobId;
use fleet_contract::time::Time;
use fleet_nats::bus::Stored;
use fleet_nats::flow;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};

use crate::args::Flow;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Interrupts;
use crate::output::events::EventLine;
use crate::{clock, read, words};

/// How far back is shown where nothing is said.
const SINCE: Duration = Duration::from_secs(3600);
/// Events of one stream that wait for the other while both are read; then the older is shown.
const AHEAD_MAX: usize = 4096;
/// Events that cannot be read and are told one by one; later as a number, and while it goes on, so
/// often.
const UNREADABLE_MAX: u64 = 5;
const UNREADABLE_EVERY: u64 = 1000;

/// Shows events.
pub(crate) async fn run(args: &Flow, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let job = match &args.job {
        Some(text) => Some(read::resolve(&bus, text).await?),
        None => None,
    };
    let from = match (args.since, args.follow) {
        (Some(since), _) => From::Time(before(clock::now(), since)),
        (None, true) => From::New,
        (None, false) => From::Time(before(clock::now(), SINCE)),
    };
    let filter = Filter { args, job };
    let jobs = job.map_or_else(|| subject::JOBS.to_owned(), subject::job_all);
    let (journal, flow) = tokio::try_join!(
        Tail::open(&bus, stream::JOB, std::slice::from_ref(&jobs), from),
        async { Tail::open(&bus, stream::FLOW, &[subject::FLOWS.to_owned()], from).await },
    )?;
    let mut merged = Merged::new(journal, flow);
    let mut interrupts = Interrupts::new();
    let mut unreadable = 0;
    loop {
        let message = tokio::select! {
            message = merged.next(args.follow) => message?,
            () = interrupts.next() => return Ok(Exit::Interrupted.code()),
        };
        let Some(message) = message else {
            if unreadable > UNREADABLE_MAX {
                let more = words::count(unreadable - UNREADABLE_MAX, "more event");
                cx.output.note(&format!("{more} cannot be read"));
            }
            return Ok(0);
        };
        match flow::event(&message) {
            Ok(event) => {
                for event in dispatched(&event).into_iter().chain([event]) {
                    if filter.takes(&event) {
                        cx.show(&EventLine(event))?;
                    }
                }
            }
            Err(error) => {
                unreadable += 1;
                // Of thousands the first few say what they are.
                if unreadable <= UNREADABLE_MAX {
                    cx.output.note(&format!("an event cannot be read: {error}"));
                } else if args.follow && unreadable.is_multiple_of(UNREADABLE_EVERY) {
                    let so_far = words::count(unreadable, "event");
                    cx.output.note(&format!("{so_far} cannot be read so far"));
                }
            }
        }
    }
}

/// Where a machine was faster than the dispatcher's own record, the claim carries the job: the
/// dispatch is an event all the same. Its id is the job's, which no other event has.
fn dispatched(claim: &EventView) -> Option<EventView> {
    let spec = claim.data.get("spec").filter(|spec| spec.is_object())?;
    if claim.kind != "job.claimed" {
        return None;
    }
    let job = claim.job?;
    let time = serde_json::from_value(spec.get("submitted_at")?.clone()).ok()?;
    Some(EventView {
        id: job.as_str().parse().ok()?,
        seq: claim.seq,
        time,
        machine: None,
        kind: "job.queued".to_owned(),
        job: claim.job,
        attempt: None,
        data: serde_json::json!({
            "change": "queued",
            "cause": "dispatch",
            "derived_from": claim.id,
            "spec": spec,
            "after": { "state": "queued" },
        }),
    })
}

fn before(now: Time, span: Duration) -> Time {
    let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Time::from_micros(now.as_micros().saturating_sub(micros))
}

struct Filter<'a> {
    args: &'a Flow,
    job: Option<JobId>,
}

impl Filter<'_> {
    fn takes(&self, event: &EventView) -> bool {
        let machine = self.args.machine.is_none() || self.args.machine == event.machine;
        let job = self.job.is_none() || self.job == event.job;
        let kind = self.args.kind.as_ref().is_none_or(|kind| {
            event
                .kind
                .strip_prefix(kind.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || kind.ends_with('.'))
        });
        // A sample, and no news: shown to whoever asks for it alone.
        let news = event.kind != MACHINE_LOAD || self.args.kind.as_deref() == Some(MACHINE_LOAD);
        machine && job && kind && news
    }
}

/// Two streams as one: in the order in which the hub stored them while both are caught up on, then
/// as they come.
struct Merged {
    sides: [Side; 2],
}

struct Side {
    tail: Tail,
    ahead: VecDeque<Stored>,
    caught_up: bool,
}

impl Merged {
    fn new(a: Tail, b: Tail) -> Self {
        let side = |tail| Side {
            tail,
            ahead: VecDeque::new(),
            caught_up: false,
        };
        Self {
            sides: [side(a), side(b)],
        }
    }

    /// The next message; none at the end of what was there, unless it goes on. Safe to drop and
    /// call again.
    async fn next(&mut self, follow: bool) -> Result<Option<Stored>, Failure> {
        loop {
            let [a, b] = &mut self.sides;
            let a_ready = a.caught_up || !a.ahead.is_empty();
            let b_ready = b.caught_up || !b.ahead.is_empty();
            if a_ready && b_ready || a.full() || b.full() {
                let oldest = match (a.ahead.front(), b.ahead.front()) {
                    (Some(x), Some(y)) if x.time <= y.time => a.ahead.pop_front(),
                    (_, Some(_)) => b.ahead.pop_front(),
                    (Some(_), None) => a.ahead.pop_front(),
                    (None, None) => None,
                };
                if oldest.is_some() {
                    return Ok(oldest);
                }
                if !follow {
                    return Ok(None);
                }
            }
            let (at, next) = {
                let next = async {
                    tokio::select! {
                        next = a.tail.next(), if follow || !a.caught_up => Ok((0, next?)),
                        next = b.tail.next(), if follow || !b.caught_up => Ok((1, next?)),
                    }
                };
                match follow {
                    true => next.await?,
                    false => read::soon(next).await?,
                }
            };
            self.sides[at].take(next);
        }
    }
}

impl Side {
    fn full(&self) -> bool {
        self.ahead.len() >= AHEAD_MAX
    }

    fn take(&mut self, next: Next) {
        match next {
            Next::CaughtUp => self.caught_up = true,
            Next::Message(message, _) => self.ahead.push_back(*message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::ids::MessageId;

    #[test]
    fn a_claim_that_carries_the_job_is_a_dispatch_too() {
        let spec = fleet_contract::spec::JobSpec::new(
            vec!["true".to_owned()],
            fleet_contract::spec::Target::Lane(fleet_contract::ids::Lane::any()),
            Time::from_micros(5),
            "ana".to_owned(),
        );
        let mut claim = EventView {
            id: MessageId::from_random([0; 10]),
            seq: 7,
            time: Time::from_micros(9),
            machine: Some("studio".parse().unwrap()),
            kind: "job.claimed".to_owned(),
            job: Some(JobId::from_random([3; 10])),
            attempt: None,
            data: serde_json::json!({ "spec": spec }),
        };
        let queued = dispatched(&claim).unwrap();
        assert_eq!(
            (queued.kind.as_str(), queued.time, queued.seq, queued.job),
            ("job.queued", Time::from_micros(5), 7, claim.job)
        );
        assert_ne!(queued.id, claim.id);
        claim.data = serde_json::Value::Null;
        assert_eq!(dispatched(&claim), None);
    }

    #[test]
    fn a_kind_is_matched_whole_or_as_a_beginning() {
        let mut event = EventView {
            id: MessageId::from_random([0; 10]),
            seq: 1,
            time: Time::default(),
            machine: Some("studio".parse().unwrap()),
            kind: "machine.lost".to_owned(),
            job: None,
            attempt: None,
            data: serde_json::Value::Null,
        };
        let takes = |event: &EventView, kind: Option<&str>, machine: Option<&str>| {
            let args = Flow {
                follow: false,
                since: None,
                machine: machine.map(|m| m.parse().unwrap()),
                kind: kind.map(str::to_owned),
                job: None,
            };
            Filter {
                args: &args,
                job: None,
            }
            .takes(event)
        };
        assert!(takes(&event, None, None));
        assert!(takes(&event, Some("machine"), Some("studio")));
        assert!(takes(&event, Some("machine.lost"), None));
        assert!(takes(&event, Some("machine."), None));
        assert!(!takes(&event, Some("mach"), None));
        assert!(!takes(&event, Some("machine.lost.x"), None));
        assert!(!takes(&event, None, Some("mini")));
        event.kind = MACHINE_LOAD.to_owned();
        for hides in [None, Some("machine"), Some("machine.")] {
            assert!(!takes(&event, hides, None));
        }
        assert!(takes(&event, Some("machine.load"), None));
    }
}
