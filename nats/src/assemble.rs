//! Puts the chunks of a job's output in order again. Pure.
//!
//! The hub stores a chunk that was sent again after a broken link behind those that were on their
//! way with it, so a gap in the numbers is not yet a loss: later chunks are held back until it has
//! closed, or until the sender has gone on so far that it cannot close any more.

use std::collections::{BTreeMap, HashMap, VecDeque};

use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::OutputStream;

use crate::output::{Chunk, WINDOW};

/// Attempts that are told apart; an older one that still writes begins anew.
const ATTEMPTS_MAX: usize = 64;

/// A chunk whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InOrder {
    /// The chunk; empty where it is gone itself.
    pub chunk: Chunk,
    /// How many right before it are gone, and itself where it is.
    pub missing: u64,
    /// How many bytes of its stream right before it are gone: of missing chunks, and what the
    /// machine could not even write down, which has no number.
    pub missing_bytes: u64,
}

impl InOrder {
    /// What is gone right before it, in words; none where nothing is.
    #[must_use]
    pub fn gap(&self) -> Option<String> {
        let of = |n: u64, what: &str| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        match (self.missing, self.missing_bytes) {
            (0, 0) => None,
            (0, bytes) => Some(of(bytes, "byte")),
            (chunks, 0) => Some(of(chunks, "chunk")),
            (chunks, bytes) => Some(format!("{} ({})", of(chunks, "chunk"), of(bytes, "byte"))),
        }
    }
}

/// Chunks of one job as they are stored, and as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assembler {
    attempts: HashMap<AttemptId, Held>,
    /// In the order in which they came, for the bound.
    order: VecDeque<AttemptId>,
    missing: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Held {
    /// The number of the last chunk that was given out.
    last: u64,
    /// The highest number that has come.
    newest: u64,
    /// Where each stream goes on, in bytes.
    ends: [u64; 2],
    /// At most a window of chunks that wait for others, by number.
    waiting: BTreeMap<u64, Chunk>,
}

impl Assembler {
    /// Takes in a chunk; those whose turn it is now. One that came before is dropped.
    pub fn take(&mut self, chunk: Chunk) -> Vec<InOrder> {
        let (attempt, seq) = (chunk.head.attempt, chunk.head.seq);
        if !self.attempts.contains_key(&attempt) {
            self.order.push_back(attempt);
            if self.order.len() > ATTEMPTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                let held = self.attempts.remove(&oldest);
                self.missing += held.map_or(0, |held| held.waiting.len() as u64);
            }
        }
        let first = !self.attempts.contains_key(&attempt);
        let held = self.attempts.entry(attempt).or_default();
        if seq <= held.last || held.waiting.contains_key(&seq) {
            return Vec::new();
        }
        held.newest = held.newest.max(seq);
        // Old output that the hub no longer has does not come late.
        let aged = first && seq > WINDOW;
        held.waiting.insert(seq, chunk);
        let ready = held.ready(aged);
        self.missing += ready.iter().map(|r| r.missing).sum::<u64>();
        ready
    }

    /// No more comes, or nobody waits any longer: what is held, gaps or not.
    pub fn rest(&mut self) -> Vec<InOrder> {
        let mut rest = Vec::new();
        for attempt in &self.order {
            if let Some(held) = self.attempts.get_mut(attempt) {
                while let Some(next) = held.pop() {
                    rest.push(next);
                }
            }
        }
        self.missing += rest.iter().map(|r| r.missing).sum::<u64>();
        rest
    }

    /// The number of the last chunk of this attempt that was given out.
    #[must_use]
    pub fn last(&self, attempt: AttemptId) -> u64 {
        self.attempts.get(&attempt).map_or(0, |held| held.last)
    }

    /// Where the streams of this attempt stand, in bytes: standard output and standard error.
    #[must_use]
    pub fn ends(&self, attempt: AttemptId) -> [u64; 2] {
        self.attempts.get(&attempt).map_or([0; 2], |held| held.ends)
    }

    /// How many are gone in all, as far as is known.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }
}

impl Held {
    fn ready(&mut self, mut aged: bool) -> Vec<InOrder> {
        let mut ready = Vec::new();
        while let Some((&seq, chunk)) = self.waiting.first_key_value() {
            let gap = seq - self.last - 1;
            let too_late = self.newest.saturating_sub(WINDOW) >= seq - 1;
            // The machine itself no longer had them.
            let told = chunk.head.missing >= gap;
            if gap > 0 && !too_late && !told && !aged {
                break;
            }
            aged = false;
            ready.extend(self.pop());
        }
        ready
    }

    fn pop(&mut self) -> Option<InOrder> {
        let (seq, chunk) = self.waiting.pop_first()?;
        // An empty chunk stands in the place of one that is gone.
        let missing = seq - self.last - u64::from(!chunk.bytes.is_empty());
        self.last = seq;
        let end = &mut self.ends[usize::from(chunk.head.stream == OutputStream::Stderr)];
        let missing_bytes = chunk.head.offset.saturating_sub(*end);
        let after = chunk.head.offset.saturating_add(chunk.bytes.len() as u64);
        *end = after.max(*end);
        Some(InOrder {
            chunk,
            missing,
            missing_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::ChunkHead;
    use fleet_contract::ids::JobId;
    use fleet_contract::time::Time;

    fn chunk(attempt: u8, seq: u64, missing: u64) -> Chunk {
        let attempt = AttemptId::from_random([attempt; 10]);
        let head = ChunkHead::new(attempt, seq, OutputStream::Stdout, 0, Time::default());
        Chunk {
            job: JobId::from_random([1; 10]),
            machine: "studio".parse().unwrap(),
            head: ChunkHead { missing, ..head },
            bytes: "x".into(),
        }
    }

    fn order(assembler: &mut Assembler, seqs: &[u64]) -> Vec<(u64, u64)> {
        seqs.iter()
            .flat_map(|seq| assembler.take(chunk(1, *seq, 0)))
            .map(|r| (r.chunk.head.seq, r.missing))
            .collect()
    }

    #[test]
    fn what_was_sent_again_after_a_break_comes_in_its_place() {
        let mut a = Assembler::default();
        // 5..12 were lost with the link, 13..20 stored before them; all of it is sent again.
        let stored: Vec<u64> = (1..5).chain(13..21).chain(5..40).collect();
        let expected: Vec<(u64, u64)> = (1..40).map(|n| (n, 0)).collect();
        assert_eq!(order(&mut a, &stored), expected);
        assert_eq!((a.missing(), a.rest()), (0, vec![]));
    }

    #[test]
    fn a_gap_is_told_once_and_in_one_number() {
        let mut a = Assembler::default();
        let stored: Vec<u64> = [1].into_iter().chain(5..30).collect();
        let shown = order(&mut a, &stored);
        assert_eq!(shown[..3], [(1, 0), (5, 3), (6, 0)]);
        assert_eq!((shown.len(), a.missing()), (26, 3));
        // At the end nothing is waited for.
        let mut a = Assembler::default();
        assert_eq!(order(&mut a, &[1, 4, 6]), [(1, 0)]);
        let rest: Vec<(u64, u64)> = a
            .rest()
            .iter()
            .map(|r| (r.chunk.head.seq, r.missing))
            .collect();
        assert_eq!(rest, [(4, 2), (6, 1)]);
        assert_eq!(a.missing(), 3);
    }

    #[test]
    fn old_output_that_is_gone_and_what_the_machine_dropped_do_not_wait() {
        let mut a = Assembler::default();
        assert_eq!(order(&mut a, &[5000, 5001]), [(5000, 4999), (5001, 0)]);
        let told = a.take(chunk(1, 5004, 2));
        assert_eq!((told[0].chunk.head.seq, told[0].missing), (5004, 2));
        assert_eq!(a.missing(), 5001);
    }

    #[test]
    fn bytes_that_were_never_written_down_are_missed_where_they_were() {
        let mut a = Assembler::default();
        let missed = [
            // The disk was full at the beginning, and once more; the other stream has all of its own.
            (1, OutputStream::Stdout, 24, 10, 24),
            (2, OutputStream::Stdout, 34, 10, 0),
            (3, OutputStream::Stderr, 0, 5, 0),
            (4, OutputStream::Stdout, 50, 1, 6),
        ];
        for (seq, stream, offset, length, expected) in missed {
            let mut chunk = chunk(1, seq, 0);
            chunk.head.stream = stream;
            chunk.head.offset = offset;
            chunk.bytes = vec![b'x'; length].into();
            let next = a.take(chunk);
            assert_eq!((next[0].missing, next[0].missing_bytes), (0, expected));
        }
        assert_eq!(a.missing(), 0);
    }

    #[test]
    fn an_empty_chunk_says_that_it_is_gone_itself() {
        let mut a = Assembler::default();
        assert_eq!(order(&mut a, &[1]), [(1, 0)]);
        let last = Chunk {
            bytes: Vec::new().into(),
            ..chunk(1, 9, 8)
        };
        let shown = a.take(last);
        assert_eq!((shown.len(), shown[0].missing), (1, 8));
        assert_eq!(
            (a.missing(), a.last(AttemptId::from_random([1; 10]))),
            (8, 9)
        );
    }

    #[test]
    fn attempts_that_write_at_the_same_time_are_told_apart() {
        let mut a = Assembler::default();
        let stored = [(1, 1), (2, 1), (1, 2), (2, 1), (1, 2), (2, 2)];
        let shown: Vec<u64> = stored
            .iter()
            .flat_map(|(attempt, seq)| a.take(chunk(*attempt, *seq, 0)))
            .map(|r| r.chunk.head.seq)
            .collect();
        assert_eq!(shown, [1, 1, 2, 2]);
        assert_eq!(a.last(AttemptId::from_random([1; 10])), 2);
        for n in 0..200 {
            a.take(chunk(n, 1, 0));
        }
        assert!(a.attempts.len() <= ATTEMPTS_MAX);
    }
}
