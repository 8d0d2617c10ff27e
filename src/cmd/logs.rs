//! `fleet logs`: what a job wrote, from line one.

use std::time::Duration;

use data_encoding::BASE64;
use fleet_contract::ids::{AttemptId, JobId, MachineId};
use fleet_contract::job::Job;
use fleet_contract::machine::Service;
use fleet_contract::outcome::OutputStream;
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use fleet_nats::assemble::{Assembler, InOrder};
use fleet_nats::bus::{Bus, BusError};
use fleet_nats::journal::{Entry, fold};
use fleet_nats::output::Chunk;
use fleet_nats::owners::Owners;
use fleet_nats::subject::{self, stream};
use fleet_nats::tail::{From, Next, Tail};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::Logs;
use crate::cmd::unsent;
use crate::cmd::wait::{self, AfterInterrupt};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Interrupts;
use crate::outage::Outages;
use crate::output::log::JobOutput;
use crate::output::{Answer, Look, Said};
use crate::read;
use crate::words::{self, count};

/// Shows a job's output.
pub(crate) async fn run(args: &Logs, cx: &mut Context) -> Outcome {
    let waits = unsent::find(cx, &args.job);
    let (bus, id) = match (waits, args.follow) {
        (Some(_), true) => {
            let text = std::slice::from_ref(&args.job);
            let (bus, ids) = unsent::until_sent(cx, text, None).await?;
            (bus, ids[0])
        }
        (waits, _) => match look(args, cx).await {
            Ok(found) => found,
            Err(failure) => {
                let job = waits.ok_or(failure)?;
                return not_sent(&job, cx);
            }
        },
    };
    let Some(job) = bus.job(id).await? else {
        return match unsent::find(cx, id.as_str()) {
            Some(job) => not_sent(&job, cx),
            None => Err(read::gone(&bus, id).await),
        };
    };
    let mut sink = Sink::new(cx.output.is_json(), args.raw);
    sink.not_kept = not_kept(&bus, &job).await?;
    let mut reader = LogTail::open(&bus, id).await?;
    reader.owners.learn(&job);
    if args.follow {
        let mut journal = JournalTail::open(&bus, id, job.last_seq + 1, Some(job)).await?;
        follow(
            cx,
            &bus,
            &mut reader,
            &mut journal,
            &mut sink,
            (OnCtrlC::Stop, &mut Interrupts::new()),
        )
        .await?;
    } else {
        let mut view = JobView::of(&job);
        let only = args.attempt.map(|no| only(&mut view, no)).transpose()?;
        while let Some(chunk) = read::soon(reader.next()).await? {
            if only.is_none_or(|attempt| attempt == chunk.head.attempt) {
                sink.write(cx, chunk)?;
            }
        }
        sink.finish(cx, &view, &reader.owners)?;
    }
    Ok(0)
}

/// Leaves of the job this attempt alone; its id.
fn only(job: &mut JobView, no: u32) -> Result<AttemptId, Failure> {
    let ran_on = job.superseded.iter().map(|told| &told.ran);
    let mut all = job.attempts.iter().chain(ran_on);
    let Some(found) = all.find(|attempt| attempt.attempt == no).cloned() else {
        let text = match job.attempts.len() {
            0 => format!("job {} has no attempt yet", job.id),
            n => format!("job {} has no attempt {no}, it has {n}", job.id),
        };
        return Err(Failure::usage(text).next(format!("fleet show {}", job.id)));
    };
    job.machine = Some(found.machine.clone());
    let id = found.id;
    job.attempts = vec![found];
    Ok(id)
}

/// What the hub keeps of output where that begins only after this job's end: what of it is missing
/// may have been removed.
async fn not_kept(bus: &Bus, job: &Job) -> Result<Option<String>, Failure> {
    let Some(ended_at) = JobView::of(job).ended_at else {
        return Ok(None);
    };
    let kept = bus.usage(stream::LOG).await?;
    let age = kept.max_age.unwrap_or(Duration::MAX);
    let from = match kept.first_time {
        Some(first) => first,
        None if kept.now.since(ended_at) > age => kept.now,
        None => return Ok(None),
    };
    let removed = kept.last_seq > 0 && kept.first_seq > 1 && ended_at < from;
    Ok(removed.then(|| {
        format!(
            "the hub has no output from before {from} (it keeps it for {}, up to {})",
            words::span(age),
            words::bytes(kept.max_bytes)
        )
    }))
}

async fn look(args: &Logs, cx: &Context) -> Result<(Bus, JobId), Failure> {
    let bus = cx.bus().await?;
    let texts = std::slice::from_ref(&args.job);
    let id = unsent::resolve_all(cx, &bus, texts).await?;
    Ok((bus, id[0]))
}

/// It has written nothing, for nobody has started it.
fn not_sent(job: &JobView, cx: &mut Context) -> Outcome {
    let reason = job.reason.as_deref().unwrap_or_default();
    cx.output
        .note(&format!("{} has written nothing: {reason}", job.id));
    Ok(0)
}

/// A chunk of output for programs.
#[derive(Debug, Serialize)]
struct ChunkView<'a> {
    job: JobId,
    machine: &'a MachineId,
    attempt: AttemptId,
    seq: u64,
    stream: OutputStream,
    time: Time,
    /// How many chunks right before it are gone.
    #[serde(skip_serializing_if = "is_zero")]
    missing: u64,
    /// How many bytes of its stream right before it are gone, those of missing chunks too.
    #[serde(skip_serializing_if = "is_zero")]
    missing_bytes: u64,
    /// Its bytes as text, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Its bytes in base64, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Answer for ChunkView<'_> {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, _: &Look) -> String {
        self.text.unwrap_or_default().to_owned()
    }
}

/// What is not here of a job's output, for programs.
#[derive(Debug, Serialize)]
struct Incomplete {
    job: JobId,
    /// Chunks in the midst of it that are gone.
    missing_chunks: u64,
    /// Chunks at its end that its machine has not sent yet.
    chunks_to_come: u64,
    /// Bytes that are gone: dropped on the machine before they could be sent, or by the hub.
    missing_bytes: u64,
    /// Chunks that machines sent which never had the attempt they name; not shown.
    #[serde(skip_serializing_if = "is_zero")]
    foreign_chunks: u64,
}

/// Where chunks go, and what is known of those that came.
pub(crate) struct Sink {
    json: bool,
    output: JobOutput<std::io::BufWriter<std::io::Stdout>, std::io::Stderr>,
    /// The attempt whose output was shown last.
    attempt: Option<AttemptId>,
    order: Assembler,
    /// Bytes that were missing before what was shown.
    missing_bytes: u64,
    /// What the hub keeps of output, where that does not reach back to the job's end.
    not_kept: Option<String>,
}

impl Sink {
    /// On this process's streams.
    pub(crate) fn new(json: bool, raw: bool) -> Self {
        Self {
            json,
            output: JobOutput::here(raw),
            attempt: None,
            order: Assembler::default(),
            missing_bytes: 0,
            not_kept: None,
        }
    }

    fn write(&mut self, cx: &mut Context, chunk: Chunk) -> Result<(), Failure> {
        for next in self.order.take(chunk) {
            self.show(cx, &next)?;
        }
        Ok(())
    }

    fn show(&mut self, cx: &mut Context, next: &InOrder) -> Result<(), Failure> {
        let InOrder { chunk, missing, .. } = next;
        if self.attempt != Some(chunk.head.attempt) {
            if self.attempt.is_some() {
                self.output.finish()?;
                let which = match chunk.head.seq - missing {
                    1 => "the next attempt",
                    _ => "again the attempt",
                };
                cx.output.note(&format!("{which}, on {}", chunk.machine));
            }
            self.attempt = Some(chunk.head.attempt);
        }
        self.missing_bytes += next.missing_bytes;
        if let Some(what) = next.gap() {
            self.output.flush()?;
            cx.output.note(&format!("{what} missing here"));
        }
        if self.json {
            return cx.show(&view(next));
        }
        Ok(self.output.write(chunk.head.stream, &chunk.bytes)?)
    }

    /// Bytes at the end of attempts that will never come: all that is there of them has.
    fn lost_at_end(&self, job: &JobView) -> u64 {
        let attempts = job.attempts.iter();
        let whole = attempts.filter(|a| self.order.last(a.id) >= a.output.chunks);
        let lost = whole.map(|attempt| {
            let [stdout, stderr] = self.order.ends(attempt.id);
            let output = &attempt.output;
            output.stdout.bytes.saturating_sub(stdout) + output.stderr.bytes.saturating_sub(stderr)
        });
        lost.sum()
    }

    /// Whether everything that this job wrote in its last attempt has come.
    fn complete(&self, job: &JobView) -> bool {
        self.waits_for(job) == 0
    }

    fn waits_for(&self, job: &JobView) -> u64 {
        let Some(last) = job.attempts.last() else {
            return 0;
        };
        last.output.chunks.saturating_sub(self.order.last(last.id))
    }

    fn finish(&mut self, cx: &mut Context, job: &JobView, owners: &Owners) -> Result<(), Failure> {
        for next in self.order.rest() {
            self.show(cx, &next)?;
        }
        self.output.finish()?;
        let left = self.waits_for(job);
        if let Some(machine) = job.machine.as_ref().filter(|_| left > 0) {
            let chunks = count(left, "chunk");
            cx.output.note(&match &self.not_kept {
                Some(why) => format!("{chunks} removed, or still on {machine}: {why}"),
                None => format!("{chunks} still on {machine}"),
            });
        }
        let at_end = self.lost_at_end(job);
        if at_end > 0 {
            cx.output
                .note(&format!("{} missing at the end", count(at_end, "byte")));
        }
        let missing_bytes = self.missing_bytes + at_end;
        if missing_bytes > 0 {
            let text = count(missing_bytes, "byte");
            cx.output.note(&format!(
                "{text} dropped: over what is kept of output on a machine and at the hub"
            ));
        }
        if let Some(told) = owners.left_out() {
            cx.output.note(&told);
        }
        let missing = self.order.missing();
        let foreign_chunks = owners.foreign();
        if self.json && left + missing_bytes + missing + foreign_chunks > 0 {
            let value = Incomplete {
                job: job.id,
                missing_chunks: missing,
                chunks_to_come: left,
                missing_bytes,
                foreign_chunks,
            };
            let text = String::new();
            cx.show(&Said { value, text })?;
        }
        Ok(())
    }
}

fn view(next: &InOrder) -> ChunkView<'_> {
    let chunk = &next.chunk;
    let text = std::str::from_utf8(&chunk.bytes).ok();
    ChunkView {
        job: chunk.job,
        machine: &chunk.machine,
        attempt: chunk.head.attempt,
        seq: chunk.head.seq,
        stream: chunk.head.stream,
        time: chunk.head.time,
        missing: next.missing,
        missing_bytes: next.missing_bytes,
        base64: text.is_none().then(|| BASE64.encode(&chunk.bytes)),
        text,
    }
}

/// A reader of a job's output, past what is no attempt's own.
pub(crate) struct LogTail {
    bus: Bus,
    tail: Tail,
    owners: Owners,
    /// Read, and not yet known whose it is.
    next: Option<Chunk>,
    /// How many more the hub has now.
    left: u64,
}

impl LogTail {
    /// From line one.
    pub(crate) async fn open(bus: &Bus, job: JobId) -> Result<Self, Failure> {
        let filters = [subject::log_all(job)];
        Ok(Self {
            bus: bus.clone(),
            tail: Tail::open(bus, stream::LOG, &filters, From::First).await?,
            owners: Owners::of(job),
            next: None,
            left: 0,
        })
    }

    /// The next chunk; none once, when all that was there at the beginning has been read. Whoever
    /// drops this half-way and calls again misses nothing.
    async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        loop {
            if let Some(chunk) = &self.next {
                let own = self.owners.admits(&self.bus, chunk).await;
                let chunk = self.next.take();
                if own {
                    return Ok(chunk);
                }
            }
            match self.tail.next().await? {
                Next::CaughtUp => return Ok(None),
                Next::Message(message, left) => {
                    self.left = left;
                    match Chunk::of(&message) {
                        Ok(chunk) => self.next = Some(chunk),
                        Err(error) => tracing::warn!(%error, "a chunk cannot be read"),
                    }
                }
            }
        }
    }
}

/// A reader of one job's journal.
pub(crate) struct JournalTail {
    tail: Tail,
    id: JobId,
    job: Option<Job>,
}

impl JournalTail {
    /// From this sequence on, which is at or before its first record if the job is not given.
    pub(crate) async fn open(
        bus: &Bus,
        id: JobId,
        from: u64,
        job: Option<Job>,
    ) -> Result<Self, Failure> {
        let filters = [subject::job_all(id)];
        let tail = Tail::open(bus, stream::JOB, &filters, From::Seq(from)).await?;
        Ok(Self { tail, id, job })
    }

    fn view(&self) -> Option<JobView> {
        self.job.as_ref().map(JobView::of)
    }

    async fn next(&mut self) -> Result<(), Failure> {
        if let Next::Message(message, _) = self.tail.next().await?
            && let Some(entry) = Entry::of(&message)
        {
            fold(&mut self.job, &entry);
        }
        Ok(())
    }
}

/// What Ctrl-C means to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnCtrlC {
    /// It only looks: stop looking.
    Stop,
    /// It dispatched the job: ask.
    Ask,
}

/// How long nothing may come of the output's rest once the job has ended: where its machine is gone,
/// and where it is in service and only slow.
const REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Shows output as it comes until the job has ended and all of it is here.
pub(crate) async fn follow(
    cx: &mut Context,
    bus: &Bus,
    reader: &mut LogTail,
    journal: &mut JournalTail,
    sink: &mut Sink,
    (on_ctrl_c, interrupts): (OnCtrlC, &mut Interrupts),
) -> Result<JobView, Failure> {
    let mut give_up: Option<Instant> = None;
    let mut patient = false;
    let mut outages = Outages::of(bus);
    let waits_for = [journal.id];
    loop {
        if let Some(job) = journal.view().filter(|job| job.exit_status().is_some()) {
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + REST.0);
            let late = Instant::now() >= deadline;
            let asked = match late && !sink.complete(&job) {
                true => is_in_service(bus, &job).await,
                false => Ok(false),
            };
            match asked {
                Ok(true) if !patient => {
                    patient = true;
                    give_up = Some(Instant::now() + REST.1);
                }
                Ok(_) if late || sink.complete(&job) => {
                    sink.finish(cx, &job, &reader.owners)?;
                    return Ok(job);
                }
                Ok(_) => {}
                // The hub is away, and the output's rest with it.
                Err(_) => give_up = Some(Instant::now() + REST.0),
            }
        } else {
            give_up = None;
        }
        tokio::select! {
            biased;
            () = interrupts.next() => {
                sink.output.flush()?;
                let leave = on_ctrl_c == OnCtrlC::Stop
                    || matches!(wait::on_interrupt(cx, bus, &[journal.id], interrupts).await?, AfterInterrupt::Leave);
                if leave {
                    return Err(Failure::Exit(Exit::Interrupted.code()));
                }
            }
            chunk = reader.next() => match chunk? {
                Some(chunk) => {
                    sink.write(cx, chunk)?;
                    // Several chunks that came at once make one write.
                    if reader.left == 0 {
                        sink.output.flush()?;
                    }
                    if give_up.is_some() {
                        (give_up, patient) = (Some(Instant::now() + REST.0), false);
                    }
                }
                None => sink.output.flush()?,
            },
            changed = journal.next() => {
                changed?;
                if let Some(job) = &journal.job {
                    reader.owners.learn(job);
                }
            }
            told = outages.next("logs -f", &waits_for) => {
                sink.output.flush()?;
                cx.output.note(&told);
            }
            () = until(give_up) => {}
        }
    }
}

/// Whether the machine that has the output's rest can still send it.
async fn is_in_service(bus: &Bus, job: &JobView) -> Result<bool, BusError> {
    let Some(machine) = &job.machine else {
        return Ok(false);
    };
    let seen = bus.own_presence(machine).await?;
    Ok(seen.is_some_and(|s| !matches!(s.presence.service, Service::Offline | Service::Lost)))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
