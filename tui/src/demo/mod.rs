//! A made-up fleet to look at where there is none: for the example, for pictures of states that
//! are hard to come by, and for the tests of the views. No part of the program.

pub(crate) mod hub;
mod many;
pub mod measure;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fleet_contract::envelope::WIRE_VERSION;
use fleet_contract::event::EventView;
use fleet_contract::ids::{
    AttemptId, InstanceId, JobId, Lane, MachineId, MessageId, TicketId, Writer,
};
use fleet_contract::job::{Job, first_record};
use fleet_contract::machine::{Cause as Degraded, Load, Presence, Service, Specs};
use fleet_contract::outcome::{Outcome, OutputCount, OutputStream};
use fleet_contract::projection::{Fact, JournalFact};
use fleet_contract::record::{Cause, Change, Next};
use fleet_contract::spec::{JobSpec, Target};
use fleet_contract::time::Time;
use fleet_nats::output::{Chunk, ChunkHead};
use fleet_nats::recording::RecordingError;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};

use crate::bus::BusMsg;
use crate::clock::Clock;
use crate::model::{Model, Msg, Reader};
use crate::source::{Source, Wants, replay};
use crate::theme::Look;
pub use many::{Many, fleet_of};

use crate::{ConsoleStyle, Left, TuiError};

/// Writes the history of a fleet, by the rules of the contract.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    jobs: BTreeMap<u32, Job>,
    pub(crate) seq: u64,
    beats: u64,
    told: u64,
}

impl Script {
    fn id(n: u32) -> JobId {
        JobId::from_random(match u8::try_from(n) {
            Ok(n) => [n.wrapping_mul(37), n, n, 1, 2, 3, 4, 5, 6, n],
            Err(_) => many::bits(u64::from(n)),
        })
    }

    /// Bits of a job's ticket and attempt.
    fn bits(n: u32) -> [u8; 10] {
        u8::try_from(n).map_or_else(|_| many::bits(u64::from(n)), |n| [n; 10])
    }

    fn machine(name: &str) -> MachineId {
        name.parse()
            .unwrap_or_else(|_| MachineId::from_host_name(name))
    }

    /// Appends a change as the writer would; none where it is not possible.
    fn write(&mut self, n: u32, at: Time, writer: &Writer, change: Change) -> Option<Fact> {
        let record = match self.jobs.get(&n) {
            Some(job) => job.record(at, writer, change),
            None => first_record(Self::id(n), at, writer, change),
        }
        .ok()?;
        self.seq += 1;
        match self.jobs.get_mut(&n) {
            Some(job) => drop(job.apply(self.seq, at, writer, &record)),
            None => {
                let job = Job::first(Self::id(n), self.seq, at, writer, &record).ok()?;
                self.jobs.insert(n, job);
            }
        }
        Some(Fact::Record(Box::new(JournalFact {
            job: Self::id(n),
            writer: writer.clone(),
            seq: self.seq,
            stored: at,
            time: at,
            record: Ok(record),
        })))
    }

    pub(crate) fn dispatch(
        &mut self,
        n: u32,
        at: Time,
        name: &str,
        command: &str,
        pin: &str,
    ) -> Option<Fact> {
        let target = match pin {
            "" => Target::Lane(Lane::any()),
            machine => Target::Pin(Self::machine(machine)),
        };
        let command = command.split(' ').map(str::to_owned).collect();
        let mut spec = JobSpec::new(command, target.clone(), at, "ana@anvil".to_owned());
        spec.name = (!name.is_empty()).then(|| name.to_owned());
        let queued = Change::Queued {
            ticket: TicketId::from_random(Self::bits(n)),
            target,
            work_seq: self.seq + 1,
            cause: Cause::Dispatch,
            spec: Some(Box::new(spec)),
        };
        self.write(n, at, &Writer::Operator, queued)
    }

    pub(crate) fn claim(&mut self, n: u32, at: Time, machine: &str) -> Option<Fact> {
        let no = self.jobs.get(&n).map_or(1, Job::next_no);
        let claimed = Change::Claimed {
            attempt: AttemptId::from_random(Self::bits(n)),
            no,
            ticket: TicketId::from_random(Self::bits(n)),
            epoch: 0,
            target: None,
            lease: 1,
            spec: None,
        };
        self.write(n, at, &Writer::Machine(Self::machine(machine)), claimed)
    }

    pub(crate) fn end(&mut self, n: u32, at: Time, outcome: Outcome, next: Next) -> Option<Fact> {
        let (machine, started_at) = {
            let attempt = self.jobs.get(&n)?.attempt()?;
            (attempt.machine.clone(), attempt.claimed_at)
        };
        let ended = Change::Ended {
            attempt: AttemptId::from_random(Self::bits(n)),
            outcome,
            output: OutputCount::default(),
            started_at,
            ended_at: at,
            next,
        };
        self.write(n, at, &Writer::Machine(machine), ended)
    }

    pub(crate) fn exit(&mut self, n: u32, at: Time, exit_code: u8) -> Option<Fact> {
        self.end(n, at, Outcome::Exited { exit_code }, Next::End)
    }

    fn lost(&mut self, n: u32, at: Time, next: Next) -> Option<Fact> {
        let lost = Change::Lost {
            attempt: AttemptId::from_random(Self::bits(n)),
            reason: "the lease of its machine is over".to_owned(),
            next,
        };
        self.write(n, at, &Writer::Keeper, lost)
    }

    /// The first attempt had run on this machine until now, though another decision held.
    #[cfg(test)]
    pub(crate) fn superseded(&mut self, n: u32, at: Time, on: &str, end: Outcome) -> Option<Fact> {
        let from = self.jobs.get(&n)?.attempts.first()?.claimed_at;
        let superseded = Change::Superseded {
            attempt: AttemptId::from_random(Self::bits(n + 500)),
            no: 1,
            machine: Self::machine(on),
            token: 7,
            outcome: end,
            output: OutputCount::default(),
            started_at: Some(from),
            ended_at: Some(at),
        };
        self.write(n, at, &Writer::Keeper, superseded)
    }

    #[cfg(test)]
    pub(crate) fn acknowledged(&mut self, n: u32, at: Time) -> Option<Fact> {
        let by = "ana".to_owned();
        self.write(n, at, &Writer::Operator, Change::Acknowledged { by })
    }

    /// A beat.
    pub(crate) fn beat(&mut self, at: Time, presence: Presence) -> Fact {
        self.beats += 1;
        Fact::Presence {
            presence: Box::new(presence),
            seq: self.beats,
            seen: at,
        }
    }

    fn tell(&mut self, at: Time, kind: &str, machine: &str, detail: serde_json::Value) -> Fact {
        self.told += 1;
        Fact::Event {
            event: Box::new(EventView {
                id: MessageId::from_random([1; 10]),
                seq: self.told,
                time: at,
                machine: Some(Self::machine(machine)),
                kind: kind.to_owned(),
                job: None,
                attempt: None,
                data: detail,
            }),
            stored: at,
        }
    }
}

/// A machine's presence.
pub(crate) fn presence(name: &str, slots: u32, used: u32, cores: u32, gib: u64) -> Presence {
    Presence {
        machine: Script::machine(name),
        instance: InstanceId::from_random([0; 10]),
        boot: String::new(),
        host: format!("{name}.local"),
        address: "10.0.0.7".to_owned(),
        connection: 7,
        service: Service::Up,
        interval_ms: 5000,
        contract: WIRE_VERSION,
        specs: Specs {
            os: "linux".to_owned(),
            os_version: "6.12".to_owned(),
            arch: "x86_64".to_owned(),
            cores,
            mem_total: gib << 30,
            version: "0.1.0".to_owned(),
        },
        load: Load {
            load: f64::from(used) * 0.93 + 0.11,
            mem_free: (gib << 30) / 3,
            disk_free: 412 << 30,
            disk_total: 931 << 30,
            slots,
            slots_used: used,
            rtt_ms: Some(1.8),
            rtt_p99_ms: Some(6.2),
            spooled: 0,
            spooled_bytes: 0,
            spooled_since: None,
            dropped_log_bytes: 0,
        },
        labels: BTreeMap::from([("os".to_owned(), "linux".to_owned())]),
        skills: BTreeMap::from([("docker".to_owned(), "27.3".to_owned())]),
        models: Vec::new(),
        probed: Default::default(),
        degraded: Vec::new(),
        lost_at: None,
    }
}

/// A degraded machine and a lost one among others.
pub(crate) fn presences(now: Time) -> Vec<(Time, Presence)> {
    let mut lapis = presence("lapis", 4, 0, 4, 8);
    lapis.degraded.push(fleet_contract::machine::Degraded {
        cause: Degraded::DiskLow,
        value: "211 MiB free".to_owned(),
        since: before(now, 300),
    });
    let mut onyx = presence("onyx", 2, 1, 2, 4);
    onyx.service = Service::Lost;
    onyx.lost_at = Some(before(now, 190));
    let mut opal = presence("opal", 8, 0, 8, 32);
    opal.service = Service::Offline;
    vec![
        (before(now, 1), presence("anvil", 4, 1, 8, 32)),
        (before(now, 2), presence("forge", 16, 11, 32, 128)),
        (before(now, 3), lapis),
        (before(now, 191), onyx),
        (before(now, 5400), opal),
    ]
}

/// So many seconds before.
pub(crate) fn before(now: Time, seconds: i64) -> Time {
    Time::from_micros(now.as_micros() - seconds * 1_000_000)
}

/// A fleet with something of everything.
pub(crate) fn facts(script: &mut Script, now: Time) -> Vec<Fact> {
    let ago = |seconds| before(now, seconds);
    let ask = |question: &str| Next::Ask {
        question: question.to_owned(),
    };
    let mut facts = vec![
        script.dispatch(1, ago(9000), "weekly-backup", "restic backup /srv", "anvil"),
        script.claim(1, ago(8999), "anvil"),
        script.exit(1, ago(8400), 3),
        script.dispatch(
            2,
            ago(4100),
            "train-ablate",
            "python train.py --ablate 4",
            "",
        ),
        script.claim(2, ago(3720), "forge"),
        script.dispatch(3, ago(2500), "docs-build", "mdbook build docs", ""),
        script.claim(3, ago(2490), "lapis"),
        script.exit(3, ago(2460), 1),
        script.dispatch(4, ago(1500), "nightly-bench", "cargo bench", "forge"),
        script.claim(4, ago(1499), "forge"),
        script.end(4, ago(1320), Outcome::Signaled { signal: 9 }, Next::End),
        script.dispatch(5, ago(400), "fix-flaky-e2e", "claude -p fix-flaky-e2e", ""),
        script.claim(5, ago(395), "forge"),
        script.end(
            5,
            ago(240),
            Outcome::Exited { exit_code: 75 },
            ask("branch diverged by 3 commits: merge or rebase?"),
        ),
        script.dispatch(
            6,
            ago(380),
            "render-intro",
            "blender -b intro.blend -a",
            "onyx",
        ),
        script.claim(6, ago(379), "onyx"),
        script.lost(6, ago(188), Next::End),
        script.dispatch(7, ago(200), "gpu-sweep", "python sweep.py", "opal"),
        script.dispatch(8, ago(120), "unit", "cargo test --workspace", ""),
        script.claim(8, ago(119), "anvil"),
        script.exit(8, ago(71), 0),
        script.dispatch(9, ago(60), "index-repo", "zoekt-index .", ""),
        script.claim(9, ago(38), "anvil"),
        script.dispatch(10, ago(42), "lint-all", "just lint", ""),
        script.claim(10, ago(9), "forge"),
        script.dispatch(11, ago(30), "sync-mirror", "git fetch --all", ""),
        script.claim(11, ago(29), "lapis"),
        script.end(
            11,
            ago(20),
            Outcome::Exited { exit_code: 128 },
            Next::Backoff {
                until: before(now, -14),
            },
        ),
        script.dispatch(12, ago(3), "", "make -j8 test", ""),
    ];
    facts.push(Some(script.tell(
        ago(300),
        "machine.degraded",
        "lapis",
        serde_json::json!({ "degraded": [{ "cause": "disk_low" }] }),
    )));
    facts.push(Some(script.tell(
        ago(190),
        "machine.lost",
        "onyx",
        serde_json::json!({ "reason": "its connection closed without goodbye" }),
    )));
    for (seen, presence) in presences(now) {
        facts.push(Some(script.beat(seen, presence)));
    }
    facts.into_iter().flatten().collect()
}

/// Output of a job.
pub(crate) fn output(n: u8, seq: u64, stream: OutputStream, text: &str) -> Chunk {
    let attempt = AttemptId::from_random([n; 10]);
    Chunk {
        job: Script::id(u32::from(n)),
        machine: Script::machine("forge"),
        head: ChunkHead::new(attempt, seq, stream, 0, Time::default()),
        bytes: text.as_bytes().to_vec().into(),
    }
}

/// Shows the made-up fleet. `situation` is `live`, `down`, `troubled` (its hub is), `empty`, `catching-up`, `panic` (when a job is opened), or
/// `fleet:300` for one of 300 machines, also `down:300` and `catching-up:300`.
///
/// # Errors
/// As [`crate::run`].
pub async fn run(style: ConsoleStyle, situation: &str) -> Result<Left, TuiError> {
    let clock = Clock::start();
    let look = Look {
        colour: style.colour,
        ascii: style.ascii,
    };
    let hub = "nats://anvil:4222".to_owned();
    let mut model = Model::new(
        clock.now(),
        TimeZone::system(),
        "home".to_owned(),
        hub,
        look,
    );
    model.motion = style.motion;
    model.ui.mouse = style.mouse;
    let situation = situation.to_owned();
    let source = Source::spawn(move |msgs, wants| async move {
        // The console is gone: nobody to play for.
        let _ = play(&situation, clock, &msgs, wants).await;
    });
    if style.plain {
        crate::plain::drive(model, source, clock).await
    } else {
        crate::app::drive(model, source, clock, style.mouse).await
    }
}

/// How many machines a situation like `fleet:300` or `down:300` asks for.
fn machines_of(situation: &str) -> Option<usize> {
    let (what, n) = situation.split_once(':')?;
    let known = matches!(what, "fleet" | "down" | "catching-up");
    n.parse().ok().filter(|n| known && *n <= 100_000)
}

const READERS: [Reader; 3] = [Reader::Journal, Reader::Presence, Reader::Flow];

/// What a recording holds, as if it had just happened; nothing where it cannot be read.
fn recorded(situation: &str, now: Time) -> Vec<Fact> {
    let file = Path::new(situation.trim_start_matches("recording:"));
    let read = |shift| -> Result<Vec<replay::Replayed>, RecordingError> {
        replay::read(file, shift)?.collect()
    };
    let shift = read(0).ok().and_then(|all| {
        let last = all.iter().map(|replayed| replayed.stored).max()?;
        Some(now.as_micros() - last.as_micros())
    });
    let all = shift.and_then(|shift| read(shift).ok());
    let all = all.unwrap_or_default().into_iter();
    all.map(|replayed| replayed.fact).collect()
}

async fn play(
    situation: &str,
    clock: Clock,
    msgs: &mpsc::Sender<Msg>,
    mut wants: watch::Receiver<Wants>,
) -> Result<(), mpsc::error::SendError<Msg>> {
    let mut script = Script::default();
    let mut many = machines_of(situation).map(|n| Many::new(n, 7));
    let history = match situation {
        "empty" => Vec::new(),
        _ if many.is_some() => many
            .as_mut()
            .map(|many| many.history(clock.now()))
            .unwrap_or_default(),
        _ if situation.starts_with("recording:") => recorded(situation, clock.now()),
        _ => facts(&mut script, clock.now()),
    };
    let link = |up: bool| Msg::Link {
        up,
        error: (!up).then(|| "connection refused".to_owned()),
        slow_drops: 0,
    };
    msgs.send(link(true)).await?;
    for reader in READERS {
        msgs.send(Msg::Opened(reader)).await?;
    }
    let left = if situation.starts_with("catching-up") {
        1736
    } else {
        0
    };
    msgs.send(Msg::Facts {
        reader: Reader::Journal,
        facts: history,
        left,
    })
    .await?;
    if left == 0 {
        for reader in READERS {
            msgs.send(Msg::CaughtUp(reader)).await?;
        }
    }
    msgs.send(Msg::Probe {
        rtt: Duration::from_micros(640),
        journal_seq: many.as_ref().map_or(script.seq, Many::journal_seq),
    })
    .await?;
    let stats = match situation {
        "troubled" => hub::troubled(clock.now()),
        _ => hub::well(clock.now()),
    };
    msgs.send(Msg::Bus(BusMsg::Hub(Ok(Box::new(stats)))))
        .await?;
    if situation.starts_with("down") {
        msgs.send(link(false)).await?;
    }
    let mut beats = tokio::time::interval(Duration::from_secs(2));
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // Of a fleet whose bus is down, nothing more is heard.
    let mut many = many.filter(|_| situation.starts_with("fleet"));
    let mut n: u32 = 20;
    let mut shown = None;
    loop {
        tokio::select! {
            changed = wants.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let wanted = wants.borrow_and_update().log;
                if let Some(opening) = wanted.filter(|_| wanted != shown) {
                    #[expect(
                        clippy::panic,
                        reason = "to see that the terminal is given back even then"
                    )]
                    if situation == "panic" {
                        panic!("as asked");
                    }
                    log(opening.job, msgs).await?;
                }
                shown = wanted;
            }
            _ = seconds.tick(), if many.is_some() => {
                let (now, reader) = (clock.now(), Reader::Journal);
                if let Some(many) = &mut many {
                    let facts = many.second(now);
                    let journal_seq = many.journal_seq();
                    msgs.send(Msg::Facts { reader, facts, left: 0 }).await?;
                    let rtt = Duration::from_micros(640);
                    msgs.send(Msg::Probe { rtt, journal_seq }).await?;
                }
            }
            _ = beats.tick(), if situation == "live" => {
                let now = clock.now();
                let mut facts: Vec<Fact> = presences(now)
                    .into_iter()
                    .take(3)
                    .map(|(_, presence)| script.beat(now, presence))
                    .collect();
                facts.extend(script.dispatch(n, now, "", "cargo test -p contract", ""));
                facts.extend(script.claim(n, now, "forge"));
                facts.extend(script.exit(n.wrapping_sub(2).max(20), now, 0));
                n = n.checked_add(1).unwrap_or(20);
                let left = 0;
                msgs.send(Msg::Facts { reader: Reader::Journal, facts, left }).await?;
            }
        }
    }
}

async fn log(job: JobId, msgs: &mpsc::Sender<Msg>) -> Result<(), mpsc::error::SendError<Msg>> {
    let lines: String = (1..=60).fold(String::new(), |text, n| {
        text + &format!(
            "\x1b[32mtest\x1b[0m case_{n:02} ... ok\t({} ms)\n",
            n * 7 % 31
        )
    });
    let mut chunks = vec![
        output(0, 1, OutputStream::Stdout, "running 60 tests\n"),
        output(0, 2, OutputStream::Stderr, "warning: unused import\n"),
        output(0, 3, OutputStream::Stdout, &lines),
    ];
    for chunk in &mut chunks {
        chunk.job = job;
    }
    let left = 0;
    msgs.send(Msg::Log { job, chunks, left }).await?;
    msgs.send(Msg::LogCaughtUp(job)).await
}
