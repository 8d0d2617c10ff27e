//! Output: each attempt wrote what its job writes, as far as it came, and all of it is there, or
//! what is missing is marked.

use fleet_contract::job::{Attempt, Job};
use fleet_contract::outcome::{Outcome, StreamCount};

use super::{Findings, Jobs, Rule};
use crate::history::{Chunk, History, Logs};
use crate::schedule::CRAMPED;
use crate::shape::Shape;

pub(super) fn check(history: &History, jobs: &Jobs, found: &mut Findings) {
    let none = Logs::default();
    for (id, job) in jobs {
        let logs = history.logs.get(id).unwrap_or(&none);
        if logs.to_come > 0 {
            let text = format!("{id}: {} chunks are still to come", logs.to_come);
            found.add(Rule::Output, text);
        }
        for attempt in &job.attempts {
            for why in wrong(job, attempt, logs) {
                let text = format!("{id}: attempt {} on {}: {why}", attempt.id, attempt.machine);
                found.add(Rule::Output, text);
            }
        }
        for chunk in &logs.chunks {
            let known = job.attempts.iter().any(|a| a.id.as_str() == chunk.attempt);
            if !known {
                let text = format!("{id}: output of attempt {}, of nobody", chunk.attempt);
                found.add(Rule::Output, text);
            }
        }
        plain(job, logs, found);
    }
}

/// All that is wrong with an attempt's output.
fn wrong(job: &Job, attempt: &Attempt, logs: &Logs) -> Vec<String> {
    let chunks: Vec<&Chunk> = logs
        .chunks
        .iter()
        .filter(|chunk| chunk.attempt == attempt.id.as_str())
        .collect();
    let mut why = Vec::new();
    let mut last = 0;
    for chunk in &chunks {
        if chunk.seq != last + 1 + chunk.missing {
            why.push(format!("chunk {} comes after {last}, unmarked", chunk.seq));
        }
        last = chunk.seq;
    }
    let missing: u64 = chunks.iter().map(|c| c.missing + c.missing_bytes).sum();
    // On a full disk output goes first; anywhere else there is no reason for a gap.
    if missing > 0 && attempt.machine.as_str() != CRAMPED {
        why.push("something is missing".to_owned());
    }
    // Of an attempt that nobody has seen end, nobody has counted the output.
    let counted = !matches!(attempt.outcome, None | Some(Outcome::Unknown { .. }));
    if counted && last != attempt.output.chunks {
        let chunks = attempt.output.chunks;
        why.push(format!("its last chunk is {last}, it wrote {chunks}"));
    }
    let Some(shape) = Shape::of(&job.spec.command) else {
        return why;
    };
    let (stdout, stderr) = shape.writes(attempt.token);
    let whole = matches!(attempt.outcome, Some(Outcome::Exited { .. }));
    for (is_stderr, expected, count) in [
        (false, stdout, attempt.output.stdout),
        (true, stderr, attempt.output.stderr),
    ] {
        let mine: Vec<&Chunk> = chunks
            .iter()
            .copied()
            .filter(|c| c.stderr == is_stderr)
            .collect();
        let name = if is_stderr { "stderr" } else { "stdout" };
        let known = counted.then_some(count);
        if let Err(text) = bytes(&mine, &expected, whole, known) {
            why.push(format!("{name}: {text}"));
        }
    }
    why
}

/// Each chunk is what belongs where it stands, and as much is here as was not dropped.
fn bytes(
    chunks: &[&Chunk],
    expected: &[u8],
    whole: bool,
    count: Option<StreamCount>,
) -> Result<(), String> {
    let mut at = 0;
    for chunk in chunks {
        at += usize::try_from(chunk.missing_bytes).unwrap_or(usize::MAX);
        let rest = expected.get(at..).unwrap_or_default();
        if !rest.starts_with(&chunk.bytes) {
            return Err(format!("chunk {} is not what it wrote at {at}", chunk.seq));
        }
        at += chunk.bytes.len();
    }
    let here: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
    if let Some(count) = count {
        let StreamCount { bytes, dropped } = count;
        if whole && bytes != expected.len() as u64 {
            return Err(format!("it counts {bytes} bytes of {}", expected.len()));
        }
        // What was dropped there may be here all the same: it was sent before.
        if here + dropped < bytes || at as u64 > bytes {
            return Err(format!(
                "{here} bytes are here up to {at}, it counts {bytes} and {dropped} dropped"
            ));
        }
    }
    Ok(())
}

/// `fleet logs` without `--json` is the same bytes.
fn plain(job: &Job, logs: &Logs, found: &mut Findings) {
    let Some((stdout, stderr)) = &logs.plain else {
        return;
    };
    let of = |is_stderr: bool| -> Vec<u8> {
        let chunks = logs.chunks.iter().filter(|c| c.stderr == is_stderr);
        chunks.flat_map(|c| c.bytes.iter().copied()).collect()
    };
    if *stdout != of(false) {
        let text = format!(
            "{}: `fleet logs` gives {} bytes, with --json {}",
            job.id,
            stdout.len(),
            of(false).len()
        );
        found.add(Rule::Output, text);
    }
    // Beside the job's own, remarks of fleet's stand there.
    let own = String::from_utf8_lossy(&of(true)).into_owned();
    let all = String::from_utf8_lossy(stderr);
    if let Some(line) = own.lines().find(|line| !all.contains(line)) {
        found.add(
            Rule::Output,
            format!("{}: {line:?} is not on stderr", job.id),
        );
    }
}
