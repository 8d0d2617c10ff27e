//! Waits until a healed fleet is at rest, and then collects everything that is known of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use fleet_contract::ids::JobId;
use fleet_contract::job::{Job, JobState};
use fleet_nats::bus::{Bus, Stored};
use fleet_nats::journal::{Entry, fold};
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, read_all};
use serde_json::Value;

use crate::calls::{answer, within, words};
use crate::draw::Draw;
use crate::faults::process;
use crate::history::{Chunk, Effect, History, Logs, Told};
use crate::schedule::MACHINES;
use crate::world::{World, uptime};

/// Longest until everything is at rest once everything is healed: leases run out, attempts are
/// tried again, spools empty themselves.
const REST: Duration = Duration::from_secs(600);
/// Until when the operator wants more attempts; later the end of whatever asks.
const MORE: Duration = Duration::from_secs(45);
/// How long nothing may be busy until that is rest: longer than an agent's word of itself is old.
const CALM: Duration = Duration::from_secs(7);

/// Waits for rest, answering what is asked; what is not at rest at the end of the time.
pub(crate) async fn rest(world: &World, acknowledged: &[String], seed: u64) -> Vec<String> {
    let begun = Instant::now();
    let mut draw = Draw::new(seed);
    let mut calm: Option<Instant> = None;
    loop {
        let busy = match not_at_rest(world, acknowledged, begun, &mut draw).await {
            Ok(busy) => busy,
            Err(error) => vec![format!("the hub does not answer: {error}")],
        };
        if busy.is_empty() {
            if calm.get_or_insert_with(Instant::now).elapsed() >= CALM {
                return busy;
            }
        } else {
            calm = None;
        }
        if begun.elapsed() > REST {
            return busy;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn not_at_rest(
    world: &World,
    acknowledged: &[String],
    begun: Instant,
    draw: &mut Draw,
) -> Result<Vec<String>, String> {
    let (_link, bus) = crate::world::bus(&world.home.fleet()).await?;
    let jobs = jobs(&bus).await?;
    let mut busy = Vec::new();
    for id in acknowledged {
        if !id.parse().is_ok_and(|id: JobId| jobs.contains_key(&id)) {
            busy.push(format!("{id} has no journal"));
        }
    }
    for (id, job) in &jobs {
        if job.state.word().is_terminal() {
            continue;
        }
        busy.push(format!("{id} is {:?}", job.state));
        // What the question is about may still run, and then answers itself.
        let asks = matches!(job.state, JobState::NeedsHuman { .. });
        if asks && process::with("FLEET_JOB", id.as_str()).is_empty() {
            let again = begun.elapsed() < MORE && draw.chance(50);
            let _ = answer(&bus, *id, again).await;
        }
    }
    for name in [stream::WORK, stream::PIN] {
        let usage = bus.usage(name).await.map_err(|e| e.to_string())?;
        if usage.messages > 0 {
            busy.push(format!("{name} holds {} tickets", usage.messages));
        }
    }
    for name in MACHINES {
        let file = world.home_of(name).fleet().join("agent/status.json");
        let text = std::fs::read(&file).unwrap_or_default();
        let status: Value = serde_json::from_slice(&text).unwrap_or_default();
        let spool = &status["spool"];
        // Samples of the load come and go all the time.
        let calm = status["connected"] == true
            && spool["events"].as_u64().is_some_and(|n| n <= 2)
            && spool["chunks"] == 0
            && spool["results"] == 0;
        if !calm || status["slots_used"] != 0 {
            busy.push(format!("{name}: {status}"));
        }
        for pid in process::jobs(name) {
            busy.push(format!("{name}: {pid} {:?}", process::words(pid)));
        }
    }
    for (home, shifty) in [(&world.home, false), (&world.desk, true)] {
        let folder = home.fleet().join("spool/dispatch");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        if files
            .filter(|f| f.path().extension().is_some_and(|e| e == "json"))
            .count()
            > 0
        {
            busy.push("jobs are spooled".to_owned());
            within(world.operator(shifty, &words("spool send")));
        }
    }
    Ok(busy)
}

async fn journal(bus: &Bus) -> Result<Vec<Entry>, String> {
    let all = [subject::JOBS.to_owned()];
    let stored = read_all(bus, stream::JOB, &all, From::First).await;
    let stored = stored.map_err(|e| e.to_string())?;
    Ok(stored.iter().filter_map(Entry::of).collect())
}

async fn jobs(bus: &Bus) -> Result<BTreeMap<JobId, Job>, String> {
    let mut all: BTreeMap<JobId, Option<Job>> = BTreeMap::new();
    for entry in journal(bus).await? {
        fold(all.entry(entry.job).or_default(), &entry);
    }
    let known = all.into_iter();
    Ok(known.filter_map(|(id, job)| Some((id, job?))).collect())
}

/// Everything that is known now.
pub(crate) async fn gather(world: &World, acknowledged: Vec<String>) -> Result<History, String> {
    let (_link, bus) = crate::world::bus(&world.home.fleet()).await?;
    let mut history = History {
        acknowledged,
        injected: world.injected.clone(),
        complaints: world.complaints.clone(),
        journal: journal(&bus).await?,
        wall: fleet_nats::clock::now().as_micros() as f64 / 1e6 - uptime(),
        ..History::default()
    };
    let all = [subject::FLOWS.to_owned()];
    let events = read_all(&bus, stream::FLOW, &all, From::First).await;
    for message in events.map_err(|e| e.to_string())? {
        match told(&message, history.wall) {
            Some(told) => history.flow.push(told),
            None => history.strange.push(format!("no event: {message:?}")),
        }
    }
    for name in [stream::WORK, stream::PIN] {
        let usage = bus.usage(name).await.map_err(|e| e.to_string())?;
        history.tickets.push((name.to_owned(), usage.messages));
    }
    effects(world, &mut history);
    shown(world, &mut history);
    logs(world, &mut history);
    history.alive = MACHINES
        .iter()
        .flat_map(|name| process::jobs(name))
        .map(|pid| format!("{pid}: {:?}", process::words(pid)))
        .collect();
    Ok(history)
}

fn told(message: &Stored, wall: f64) -> Option<Told> {
    let event = fleet_nats::flow::event(message).ok()?;
    let (writer, _) = subject::parse_flow(&message.subject)?;
    let seconds = |time: fleet_contract::time::Time| time.as_micros() as f64 / 1e6 - wall;
    Some(Told {
        id: event.id.to_string(),
        writer: writer.to_owned(),
        boot: event.data["boot"].as_str()?.to_owned(),
        seq: event.data["seq"].as_u64()?,
        kind: event.kind,
        attempt: event.attempt.map(|attempt| attempt.to_string()),
        machine: event.machine.map(|machine| machine.to_string()),
        happened: seconds(event.time),
        stored: seconds(message.time),
    })
}

fn effects(world: &World, history: &mut History) {
    let text = std::fs::read_to_string(world.jobs().join("effects")).unwrap_or_default();
    for line in text.lines() {
        match Effect::read(line) {
            Some(effect) => history.effects.push(effect),
            None => history.strange.push(format!("no effect: {line}")),
        }
    }
}

fn shown(world: &World, history: &mut History) {
    let ran = within(world.operator(false, &words("--json jobs --limit 0")));
    match serde_json::from_str(&ran.out) {
        Ok(Value::Array(jobs)) => history.shown = jobs,
        _ => history.complaints.push(format!("fleet jobs: {ran:?}")),
    }
    let some = history.shown.iter().step_by(10).cloned();
    for job in some.collect::<Vec<_>>() {
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        let ran = within(world.operator(false, &["--json".into(), "show".into(), id]));
        match serde_json::from_str(&ran.out) {
            Ok(job) => history.shown.push(job),
            Err(_) => history.complaints.push(format!("fleet show: {ran:?}")),
        }
    }
    let ran = within(world.operator(false, &words("--json flow --since 24h")));
    for line in ran.out.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let id = event["id"].as_str().unwrap_or_default();
        history.shown_flow.push(id.to_owned());
    }
}

/// Asks for the output of every job, a few at a time.
fn logs(world: &World, history: &mut History) {
    const AT_ONCE: usize = 4;
    let ids: Vec<String> = history
        .shown
        .iter()
        .filter_map(|job| job["id"].as_str().map(str::to_owned))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    for (n, some) in ids.chunks(AT_ONCE).enumerate() {
        let asked: Vec<_> = some
            .iter()
            .map(|id| {
                let json = world.operator(false, &["--json".into(), "logs".into(), id.clone()]);
                let plain = (n % 4 == 0)
                    .then(|| world.operator(false, &["logs".into(), "--raw".into(), id.clone()]));
                let asked = std::thread::spawn(move || (within(json), plain.map(within)));
                (id.clone(), asked)
            })
            .collect();
        for (id, asked) in asked {
            let (json, plain) = asked.join().unwrap();
            let Some(mut logs) = read_logs(&json.out) else {
                history
                    .complaints
                    .push(format!("fleet logs {id}: {json:?}"));
                continue;
            };
            logs.plain = plain.map(|ran| (ran.bytes, ran.err.into_bytes()));
            if let Ok(id) = id.parse() {
                history.logs.insert(id, logs);
            }
        }
    }
}

fn read_logs(text: &str) -> Option<Logs> {
    let mut logs = Logs::default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).ok()?;
        if let Some(to_come) = line["chunks_to_come"].as_u64() {
            logs.to_come = to_come;
            continue;
        }
        let bytes = match line["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => BASE64.decode(line["base64"].as_str()?.as_bytes()).ok()?,
        };
        logs.chunks.push(Chunk {
            attempt: line["attempt"].as_str()?.to_owned(),
            seq: line["seq"].as_u64()?,
            stderr: line["stream"] == "stderr",
            missing: line["missing"].as_u64().unwrap_or(0),
            missing_bytes: line["missing_bytes"].as_u64().unwrap_or(0),
            bytes,
        });
    }
    Some(logs)
}
