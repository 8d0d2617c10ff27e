//! The source on a real hub: it reads what is there, brings what comes, says when the hub is gone,
//! and goes on after the last message when it is back.

use std::path::Path;

use fleet_contract::ids::{AttemptId, Lane, MachineId, Writer};
use fleet_contract::job::first_record;
use fleet_contract::outcome::OutputStream;
use fleet_contract::record::{Cause, Change};
use fleet_contract::spec::{JobSpec, Target};
use fleet_nats::bus::Bus;
use fleet_nats::clock;
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::hub::{Hub, HubOptions};
use fleet_nats::output::ChunkHead;
use fleet_nats::testing::{TestHub, TestPort};
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::model::{Cmd, Detail, JobDetail, Phase};
use crate::source::Source;

const DEADLINE: Duration = Duration::from_secs(60);

/// A console without a terminal.
struct Console {
    model: Model,
    source: Source,
}

impl Console {
    async fn until(&mut self, what: &str, holds: impl Fn(&Model) -> bool) {
        let waiting = async {
            while !holds(&self.model) {
                let msg = self.source.msgs.recv().await.expect("the source goes on");
                update(&mut self.model, clock::now(), msg);
            }
        };
        let held = timeout(DEADLINE, waiting).await;
        let shown = text(&draw(&self.model, 120, 36));
        assert!(held.is_ok(), "not seen in time: {what}\n{shown}");
    }
}

async fn hub(home: &Path, port: &TestPort) -> (Hub, Bus, ConnectOptions) {
    let options = HubOptions {
        listen: port.address(),
        ..TestHub::options(home).await
    };
    let hub = Hub::start(options).await.unwrap();
    let mut way = ConnectOptions::new("test console", hub.operator_credentials().clone());
    way.urls = vec![hub.url()];
    way.fail_within = DEADLINE;
    let link = connect(&way).await.unwrap();
    let bus = Bus::new(&link);
    fleet_nats::keeper::prepare(&bus, 1 << 30).await.unwrap();
    (hub, bus, way)
}

async fn dispatch(bus: &Bus, name: &str) -> fleet_contract::ids::JobId {
    let target = Target::Lane(Lane::any());
    let mut spec = JobSpec::new(
        vec!["true".to_owned()],
        target.clone(),
        clock::now(),
        "ana@studio".to_owned(),
    );
    spec.name = Some(name.to_owned());
    let queued = Change::Queued {
        ticket: clock::ticket_id(),
        target,
        work_seq: 1,
        cause: Cause::Dispatch,
        spec: Some(Box::new(spec)),
    };
    let id = clock::job_id();
    let record = first_record(id, clock::now(), &Writer::Operator, queued).unwrap();
    bus.append(id, &Writer::Operator, clock::now(), &record)
        .await
        .unwrap();
    id
}

/// Claims the job for `machine`, as its agent does: what it writes is of this attempt.
async fn claim(bus: &Bus, job: fleet_contract::ids::JobId, machine: &MachineId) -> AttemptId {
    let (attempt, known) = (clock::attempt_id(), bus.job(job).await.unwrap().unwrap());
    let writer = Writer::Machine(machine.clone());
    let claimed = Change::Claimed {
        attempt,
        no: known.next_no(),
        ticket: clock::ticket_id(),
        epoch: 0,
        target: None,
        lease: 0,
        spec: None,
    };
    let record = known.record(clock::now(), &writer, claimed).unwrap();
    bus.append(job, &writer, clock::now(), &record)
        .await
        .unwrap();
    attempt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_reads_follows_loses_and_finds_the_hub_again() {
    let folder = tempfile::tempdir().unwrap();
    let port = TestPort::take();
    let (first_hub, bus, way) = hub(folder.path(), &port).await;
    let before = dispatch(&bus, "before").await;
    bus.beat(&demo::presence("forge", 4, 1, 8, 32), None)
        .await
        .unwrap();
    let mut console = Console {
        model: blank(COLOUR),
        source: Source::open(&way, Clock::start()).await.unwrap(),
    };
    console
        .until("live", |m| {
            m.phase() == Phase::Live && m.fleet.jobs().len() == 1 && m.fleet.machines().len() == 1
        })
        .await;
    assert!(console.model.link.rtt.is_some());

    // What comes, and a log from its first line.
    let after = dispatch(&bus, "after").await;
    console
        .until("a new job", |m| m.fleet.job(after).is_some())
        .await;
    let forge: MachineId = "forge".parse().unwrap();
    let attempt = claim(&bus, before, &forge).await;
    let chunk = |seq| ChunkHead::new(attempt, seq, OutputStream::Stdout, 0, clock::now());
    // What another machine says in its place is left out, and counted.
    let rogue = "rogue".parse().unwrap();
    bus.put_chunk(before, &rogue, &chunk(9), "forged\n".into())
        .await
        .unwrap();
    bus.put_chunk(before, &forge, &chunk(1), "one\n".into())
        .await
        .unwrap();
    console.model.detail = Some(Detail::Job(Box::new(JobDetail::new(before))));
    let lines = |m: &Model| match &m.detail {
        Some(Detail::Job(detail)) => detail.log.len(),
        _ => 0,
    };
    console.source.want(&Cmd::OpenLog(before));
    let forged = |m: &Model| match &m.detail {
        Some(Detail::Job(detail)) => detail.log.foreign,
        _ => 0,
    };
    console
        .until("its first line", |m| lines(m) == 1 && forged(m) == 1)
        .await;
    bus.put_chunk(before, &forge, &chunk(2), "two\n".into())
        .await
        .unwrap();
    console.until("its next line", |m| lines(m) == 2).await;

    // Gone: nothing is forgotten, everything is dated.
    first_hub.stop().await.unwrap();
    console.until("down", |m| m.phase() == Phase::Down).await;
    assert_eq!(console.model.fleet.jobs().len(), 2);

    // Back, with what happened meanwhile; each message once.
    let (second_hub, bus, _) = hub(folder.path(), &port).await;
    let meanwhile = dispatch(&bus, "meanwhile").await;
    bus.put_chunk(before, &forge, &chunk(3), "three\n".into())
        .await
        .unwrap();
    console
        .until("back", |m| {
            m.phase() == Phase::Live && m.fleet.job(meanwhile).is_some() && lines(m) == 3
        })
        .await;
    let counters = console.model.fleet.counters();
    assert_eq!(
        (counters.records, counters.voids, counters.unreadable),
        (4, 0, 0)
    );
    let marks: Vec<&String> = console.model.marks.values().collect();
    assert!(marks[0].starts_with("bus down"), "{marks:?}");
    assert!(
        marks[1].starts_with("bus back") && marks[1].contains("none lost"),
        "{marks:?}"
    );
    drop(console);
    second_hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_is_opened_while_the_hub_is_away_is_read_from_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let port = TestPort::take();
    let (first_hub, bus, way) = hub(folder.path(), &port).await;
    let (long, other) = (dispatch(&bus, "long").await, dispatch(&bus, "other").await);
    let forge: MachineId = "forge".parse().unwrap();
    // What is opened later was written before what is open.
    for job in [other, long] {
        let (attempt, text) = (claim(&bus, job, &forge).await, "one\n".into());
        let chunk = ChunkHead::new(attempt, 1, OutputStream::Stdout, 0, clock::now());
        bus.put_chunk(job, &forge, &chunk, text).await.unwrap();
    }
    let mut console = Console {
        model: blank(COLOUR),
        source: Source::open(&way, Clock::start()).await.unwrap(),
    };
    let lines = |m: &Model| match &m.detail {
        Some(Detail::Job(detail)) => detail.log.len(),
        _ => 0,
    };
    let open = |console: &mut Console, job| {
        console.model.detail = Some(Detail::Job(Box::new(JobDetail::new(job))));
        console.source.want(&Cmd::OpenLog(job));
    };
    open(&mut console, long);
    console.until("its line", |m| lines(m) == 1).await;
    first_hub.stop().await.unwrap();
    console.until("down", |m| m.phase() == Phase::Down).await;
    open(&mut console, other);
    let (second_hub, _, _) = hub(folder.path(), &port).await;
    console.until("the other's line", |m| lines(m) == 1).await;
    drop(console);
    second_hub.stop().await.unwrap();
}
