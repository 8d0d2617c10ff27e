//! A job's output in lines: from line one, bounded, and what fell out is counted.

use std::collections::VecDeque;

use fleet_contract::ids::AttemptId;
use fleet_contract::outcome::OutputStream;
use fleet_nats::assemble::{Assembler, InOrder};
use fleet_nats::output::Chunk;

use crate::text;

/// Most that one log may take, in bytes; the oldest lines go first.
pub(crate) const LOG_MAX_BYTES: usize = 5 * 1024 * 1024;
/// Most lines that are kept.
const LINES_MAX: usize = 100_000;
/// A longer line is broken.
const LINE_MAX_BYTES: usize = 4096;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Not the job: what is known about its output.
    Note,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it came from.
    pub(crate) origin: Origin,
    /// Safe text.
    pub(crate) text: String,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Log {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
    open: [Vec<u8>; 2],
    attempt: Option<AttemptId>,
    assembler: Assembler,
    /// Whether all that was there when it was opened has been read.
    pub(crate) caught_up: bool,
    /// Chunks that are still to come, as far as the hub has them.
    pub(crate) left: u64,
}

impl Log {
    /// Takes in the next chunk as it is stored; shown is what is in order.
    pub(crate) fn push(&mut self, chunk: &Chunk) {
        for next in self.assembler.take(chunk.clone()) {
            self.show(&next);
        }
    }

    /// No more comes: what waits for chunks in between waits no longer.
    pub(crate) fn settle(&mut self) {
        for next in self.assembler.rest() {
            self.show(&next);
        }
    }

    fn show(&mut self, next: &InOrder) {
        let chunk = &next.chunk;
        if self.attempt != Some(chunk.head.attempt) {
            self.end_lines();
            if self.attempt.is_some() {
                self.note(format!("the next attempt, on {}", chunk.machine));
            }
            self.attempt = Some(chunk.head.attempt);
        }
        if next.missing > 0 {
            self.end_lines();
            self.note(format!("{} chunks are missing here", next.missing));
        }
        self.write(chunk.head.stream, &chunk.bytes);
    }

    /// Takes in something that is known about the output.
    pub(crate) fn note(&mut self, text: String) {
        self.keep(Line {
            origin: Origin::Note,
            text,
        });
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        let side = usize::from(stream == OutputStream::Stderr);
        let mut rest = bytes;
        while !rest.is_empty() {
            let newline = rest.iter().position(|b| *b == b'\n');
            let end = newline.unwrap_or(rest.len());
            let room = LINE_MAX_BYTES.saturating_sub(self.open[side].len());
            let take = end.min(room);
            self.open[side].extend_from_slice(&rest[..take]);
            if take < end {
                self.end_line(side);
                rest = &rest[take..];
            } else if newline.is_some() {
                self.end_line(side);
                rest = &rest[end + 1..];
            } else {
                rest = &[];
            }
        }
    }

    fn end_lines(&mut self) {
        for side in 0..2 {
            if !self.open[side].is_empty() {
                self.end_line(side);
            }
        }
    }

    fn end_line(&mut self, side: usize) {
        let bytes = std::mem::take(&mut self.open[side]);
        self.keep(line(side, &bytes));
    }

    fn keep(&mut self, line: Line) {
        self.bytes += line.text.len() + std::mem::size_of::<Line>();
        self.lines.push_back(line);
        while self.bytes > LOG_MAX_BYTES || self.lines.len() > LINES_MAX {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.text.len() + std::mem::size_of::<Line>();
            self.dropped += 1;
        }
    }

    /// Lines that are no longer kept: the first one that is has this number, counted from 0.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lines so far, those that are no longer kept and unfinished ones too.
    pub(crate) fn len(&self) -> u64 {
        let open = self.open.iter().filter(|o| !o.is_empty()).count();
        self.dropped + (self.lines.len() + open) as u64
    }

    /// The line with this number, counted from 0.
    pub(crate) fn line(&self, no: u64) -> Option<Line> {
        let at = usize::try_from(no.checked_sub(self.dropped)?).ok()?;
        if let Some(line) = self.lines.get(at) {
            return Some(line.clone());
        }
        (0..2)
            .filter(|side| !self.open[*side].is_empty())
            .nth(at - self.lines.len())
            .map(|side| line(side, &self.open[side]))
    }
}

fn line(side: usize, bytes: &[u8]) -> Line {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    Line {
        origin: [Origin::Out, Origin::Err][side],
        text: text::clean(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::ids::JobId;
    use fleet_contract::time::Time;
    use fleet_nats::output::ChunkHead;

    fn chunk(attempt: u8, seq: u64, stream: OutputStream, bytes: &[u8]) -> Chunk {
        let attempt = AttemptId::from_random([attempt; 10]);
        Chunk {
            job: JobId::from_random([0; 10]),
            machine: "forge".parse().unwrap(),
            head: ChunkHead::new(attempt, seq, stream, 0, Time::default()),
            bytes: bytes.to_vec().into(),
        }
    }

    fn texts(log: &Log) -> Vec<String> {
        (0..log.len())
            .filter_map(|no| log.line(no))
            .map(|l| l.text)
            .collect()
    }

    #[test]
    fn lines_are_put_together_whatever_the_chunks_are() {
        let mut log = Log::default();
        log.push(&chunk(1, 1, OutputStream::Stdout, b"one\ntw"));
        log.push(&chunk(1, 2, OutputStream::Stderr, b"err\r\n"));
        log.push(&chunk(1, 3, OutputStream::Stdout, b"o\nthree"));
        log.push(&chunk(1, 3, OutputStream::Stdout, b"o\nthree"));
        assert_eq!(texts(&log), ["one", "err", "two", "three"]);
        log.push(&chunk(2, 1, OutputStream::Stdout, b"again\n"));
        assert_eq!(
            texts(&log)[3..],
            ["three", "the next attempt, on forge", "again"]
        );
    }

    #[test]
    fn it_is_bounded_and_numbers_stay_true() {
        let mut log = Log::default();
        let line = [b"x".repeat(4000), b"\n".to_vec()].concat();
        for seq in 1..=3000 {
            log.push(&chunk(1, seq, OutputStream::Stdout, &line));
        }
        assert!(log.bytes <= LOG_MAX_BYTES);
        assert_eq!(log.len(), 3000);
        assert!(log.dropped() > 1000 && log.line(log.dropped() - 1).is_none());
        assert!(log.line(2999).is_some());
        log.push(&chunk(1, 3001, OutputStream::Stdout, &b"y".repeat(10_000)));
        assert_eq!(log.len(), 3003);
    }
}
