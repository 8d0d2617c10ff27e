//! A job's output in lines: from line one, bounded, and what fell out is counted. Each line has a
//! number that never changes.

mod ink;
mod place;
mod search;

use std::borrow::Cow;
use std::collections::VecDeque;

use fleet_contract::ids::AttemptId;
use fleet_contract::ids::MachineId;
use fleet_contract::outcome::OutputStream;
use fleet_contract::time::Time;
use fleet_nats::assemble::{Assembler, InOrder};
use fleet_nats::output::Chunk;

pub(crate) use ink::Ink;
pub(crate) use place::{Place, rows};
pub(crate) use search::Search;

/// Most that one log may take, in bytes; the oldest lines go first.
pub(crate) const LOG_MAX_BYTES: usize = 5 * 1024 * 1024;
/// Most lines that are kept.
const LINES_MAX: usize = 100_000;
/// A longer line is broken.
const LINE_MAX_BYTES: usize = 4096;

/// Where a line came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Not the job: what is known about its output.
    Note,
    /// Not the job: here the output of this attempt begins.
    Attempt(AttemptId, MachineId),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it came from.
    pub(crate) origin: Origin,
    /// Safe text.
    pub(crate) text: String,
    /// Where its look changes, by byte.
    pub(crate) inks: Vec<(u32, Ink)>,
    /// When its beginning was read, by the machine's clock.
    pub(crate) time: Time,
    /// Whether it is the rest of the line before it, which was too long.
    pub(crate) goes_on: bool,
}

impl Line {
    /// Whether a line of the job begins here: pieces of a long one are one line.
    fn is_own(&self) -> bool {
        matches!(self.origin, Origin::Out | Origin::Err) && !self.goes_on
    }

    fn weight(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.text.capacity()
            + self.inks.capacity() * std::mem::size_of::<(u32, Ink)>()
    }
}

/// A line that has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Unfinished {
    bytes: Vec<u8>,
    time: Time,
    ink: Ink,
    goes_on: bool,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Log {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
    /// Lines of the job that have ended, and how many of them are not kept.
    own: (u64, u64),
    open: [Unfinished; 2],
    attempt: Option<AttemptId>,
    /// That of the first line that is kept.
    first_attempt: Option<AttemptId>,
    assembler: Assembler,
    search: Search,
    /// Whether all that was there when it was opened has been read.
    pub(crate) caught_up: bool,
    /// Chunks that were left out: their machines never had the attempts they name.
    pub(crate) foreign: u64,
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
            self.open = Default::default();
            match self.attempt.replace(chunk.head.attempt) {
                None => self.first_attempt = self.attempt,
                Some(_) => {
                    let origin = Origin::Attempt(chunk.head.attempt, chunk.machine.clone());
                    self.note(origin, String::new(), chunk.head.time);
                }
            }
        }
        if let Some(what) = next.gap() {
            self.end_lines();
            let are = if what.starts_with("1 ") { "is" } else { "are" };
            let text = format!("{what} {are} missing here");
            self.note(Origin::Note, text, chunk.head.time);
        }
        self.write(chunk.head.stream, &chunk.bytes, chunk.head.time);
    }

    /// Takes in something that is known about the output.
    fn note(&mut self, origin: Origin, text: String, time: Time) {
        self.keep(Line {
            origin,
            text,
            inks: Vec::new(),
            time,
            goes_on: false,
        });
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8], time: Time) {
        let side = usize::from(stream == OutputStream::Stderr);
        let mut rest = bytes;
        while !rest.is_empty() {
            let newline = rest.iter().position(|b| *b == b'\n');
            let end = newline.unwrap_or(rest.len());
            let open = &mut self.open[side];
            if open.bytes.is_empty() {
                open.time = time;
            }
            let room = LINE_MAX_BYTES.saturating_sub(open.bytes.len());
            let take = end.min(room);
            open.bytes.extend_from_slice(&rest[..take]);
            if take < end {
                self.break_line(side);
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
            if !self.open[side].bytes.is_empty() {
                self.end_line(side);
            }
        }
    }

    /// Ends a line that is too long; a letter that is not whole yet goes on with it.
    fn break_line(&mut self, side: usize) {
        let bytes = &self.open[side].bytes;
        let begun = |at: &usize| bytes.get(*at).is_some_and(|b| *b >= 0xc0);
        let letter = (bytes.len().saturating_sub(3)..bytes.len())
            .rev()
            .find(begun);
        let whole =
            |at: &usize| std::str::from_utf8(&bytes[*at..]).is_err_and(|e| e.error_len().is_none());
        let rest = match letter.filter(whole) {
            Some(at) if at > 0 => self.open[side].bytes.split_off(at),
            _ => Vec::new(),
        };
        self.end_line(side);
        self.open[side].bytes = rest;
        self.open[side].goes_on = true;
    }

    fn end_line(&mut self, side: usize) {
        let open = std::mem::take(&mut self.open[side]);
        let (line, ink) = line(side, &open);
        self.open[side].ink = ink;
        self.open[side].time = open.time;
        self.keep(line);
    }

    fn keep(&mut self, line: Line) {
        let no = self.dropped + self.lines.len() as u64;
        self.search.look(no, &line.text);
        self.bytes += line.weight();
        self.own.0 += u64::from(line.is_own());
        self.lines.push_back(line);
        while self.bytes > LOG_MAX_BYTES || self.lines.len() > LINES_MAX {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.weight();
            if let Origin::Attempt(id, _) = oldest.origin {
                self.first_attempt = Some(id);
            }
            self.dropped += 1;
            self.own.1 += u64::from(oldest.is_own());
        }
        self.search.forget_before(self.dropped);
    }

    /// Lines that are no longer kept: the first one that is has this number, counted from 0.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lines that the job wrote so far, and how many of them are no longer kept.
    pub(crate) fn own_lines(&self) -> (u64, u64) {
        let begun = |open: &&Unfinished| !open.bytes.is_empty() && !open.goes_on;
        let open = self.open.iter().filter(begun).count();
        (self.own.0 + open as u64, self.own.1)
    }

    /// Lines so far, those that are no longer kept and unfinished ones too.
    pub(crate) fn len(&self) -> u64 {
        let open = self.open.iter().filter(|o| !o.bytes.is_empty()).count();
        self.dropped + (self.lines.len() + open) as u64
    }

    /// The line with this number, counted from 0.
    pub(crate) fn line(&self, no: u64) -> Option<Cow<'_, Line>> {
        let at = usize::try_from(no.checked_sub(self.dropped)?).ok()?;
        if let Some(line) = self.lines.get(at) {
            return Some(Cow::Borrowed(line));
        }
        (0..2)
            .filter(|side| !self.open[*side].bytes.is_empty())
            .nth(at - self.lines.len())
            .map(|side| Cow::Owned(line(side, &self.open[side]).0))
    }

    /// The first line of an attempt's output that was read at this time or later; of any attempt's
    /// where none is named.
    pub(crate) fn line_at(&self, time: Time, attempt: Option<AttemptId>) -> Option<u64> {
        let mut here = self.first_attempt;
        let found = self.lines.iter().position(|line| {
            if let Origin::Attempt(id, _) = &line.origin {
                here = Some(*id);
            }
            let wanted = attempt.is_none() || here == attempt;
            wanted && line.time >= time && matches!(line.origin, Origin::Out | Origin::Err)
        });
        found.map(|at| self.dropped + at as u64)
    }

    /// The attempt whose output this line is.
    pub(crate) fn attempt_of(&self, no: u64) -> Option<AttemptId> {
        let at = usize::try_from(no.checked_sub(self.dropped)?).ok()?;
        let before = self.lines.iter().take(at + 1).rev();
        let named = before.filter_map(|line| match &line.origin {
            Origin::Attempt(id, _) => Some(*id),
            _ => None,
        });
        named.into_iter().next().or(self.first_attempt)
    }

    /// Looks for something else from now on; nothing for an empty text.
    pub(crate) fn look_for(&mut self, wanted: &str) {
        if self.search.wanted() == wanted {
            return;
        }
        let mut search = Search::new(wanted);
        for (no, line) in (self.dropped..).zip(&self.lines) {
            search.look(no, &line.text);
        }
        self.search = search;
    }

    /// What is looked for, and what was found.
    pub(crate) fn search(&self) -> &Search {
        &self.search
    }

    /// How many lines have what is looked for, and which of them the person is at, from 1.
    pub(crate) fn found(&self) -> (usize, Option<usize>) {
        self.search.found(&self.open_found())
    }

    /// Goes to the first line that has what is looked for.
    pub(crate) fn first_found(&mut self) -> Option<u64> {
        let open = self.open_found();
        self.search.first(&open)
    }

    /// Goes to the next line that has what is looked for, or the one before.
    pub(crate) fn find(&mut self, from: u64, forward: bool) -> Option<u64> {
        let open = self.open_found();
        self.search.step(from, forward, &open)
    }

    /// The lines that have not ended yet and have what is looked for.
    fn open_found(&self) -> Vec<u64> {
        let ended = self.dropped + self.lines.len() as u64;
        let open = (ended..self.len()).filter(|no| {
            let line = self.line(*no);
            line.is_some_and(|line| self.search.is_in(&line.text))
        });
        open.collect()
    }
}

fn line(side: usize, open: &Unfinished) -> (Line, Ink) {
    let bytes = open.bytes.strip_suffix(b"\r").unwrap_or(&open.bytes);
    let mut ink = open.ink;
    let (text, inks) = ink::inked(bytes, &mut ink);
    let line = Line {
        origin: [Origin::Out, Origin::Err][side].clone(),
        text,
        inks,
        time: open.time,
        goes_on: open.goes_on,
    };
    (line, ink)
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
            .map(|l| l.text.clone())
            .collect()
    }

    #[test]
    fn pieces_of_one_long_line_are_one_line_of_the_job() {
        let mut log = Log::default();
        let long = format!("{}\nshort\nope", "x".repeat(LINE_MAX_BYTES * 3));
        log.push(&chunk(1, 1, OutputStream::Stdout, long.as_bytes()));
        log.push(&chunk(2, 1, OutputStream::Stdout, b"again\n"));
        assert!(log.len() > 5);
        assert_eq!(log.own_lines(), (4, 0));
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
        assert_eq!(texts(&log)[3..], ["three", "", "again"]);
        let of = |no| log.line(no).unwrap().origin.clone();
        let forge = "forge".parse().unwrap();
        assert_eq!(
            of(4),
            Origin::Attempt(AttemptId::from_random([2; 10]), forge)
        );
        assert_eq!(of(1), Origin::Err);
        assert_eq!(log.attempt_of(3), Some(AttemptId::from_random([1; 10])));
        assert_eq!(log.attempt_of(5), Some(AttemptId::from_random([2; 10])));
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

    #[test]
    fn a_line_of_a_mebibyte_is_broken_between_letters_and_nothing_takes_long() {
        for (letter, lines) in [("漢", 257), ("\t", 256), ("\x1b", 256), ("\x1b[1m", 256)] {
            let mut log = Log::default();
            let bytes = letter.repeat((1 << 20) / letter.len());
            for (seq, part) in (1..).zip(bytes.as_bytes().chunks(32 * 1024)) {
                log.push(&chunk(1, seq, OutputStream::Stdout, part));
            }
            assert!(log.len().abs_diff(lines) < 3, "{letter:?}: {}", log.len());
            assert!(log.bytes <= LOG_MAX_BYTES);
            for no in log.dropped()..log.len() {
                let line = log.line(no).unwrap();
                assert!(!line.text.contains("\\x"), "{letter:?}: {}", line.text);
                assert!(no < 1 || line.goes_on);
            }
        }
    }

    #[test]
    fn what_is_searched_is_counted_exactly_while_lines_come_and_go() {
        let mut log = Log::default();
        log.look_for("needle");
        let mut seq = 0;
        for round in 0..40 {
            let text: String = (0..100).fold(String::new(), |text, n| {
                let word = if n % 10 == 0 { "Needle" } else { "hay" };
                text + &format!("{round} {n} {word} {}\n", "x".repeat(2000))
            });
            for part in text.as_bytes().chunks(32 * 1024) {
                seq += 1;
                log.push(&chunk(1, seq, OutputStream::Stdout, part));
            }
        }
        assert!(log.dropped() > 0);
        let kept = |log: &Log| {
            (log.dropped()..log.len())
                .filter(|no| log.line(*no).unwrap().text.contains("Needle"))
                .count()
        };
        assert_eq!(log.found().0, kept(&log));
        log.look_for("");
        assert_eq!(log.found().0, 0);
        log.look_for("needle");
        assert_eq!(log.found().0, kept(&log));
        let first = log.find(0, true).unwrap();
        assert!(log.line(first).unwrap().text.contains("Needle"));
        assert_eq!(log.found().1, Some(1));
    }

    #[test]
    fn a_last_line_without_its_end_is_found_too() {
        let mut log = Log::default();
        log.look_for("error");
        log.push(&chunk(1, 1, OutputStream::Stdout, b"one\nan error"));
        assert_eq!(log.find(0, true), Some(1));
        assert_eq!(log.found(), (1, Some(1)));
        log.push(&chunk(1, 2, OutputStream::Stdout, b" indeed\n"));
        assert_eq!(log.found(), (1, Some(1)));
    }

    #[test]
    fn a_place_stays_while_lines_come_and_what_is_broken_counts_in_rows() {
        let mut log = Log::default();
        let long = "y".repeat(25);
        log.push(&chunk(
            1,
            1,
            OutputStream::Stdout,
            format!("a\n{long}\nb\n").as_bytes(),
        ));
        // Three rows between two of one.
        assert_eq!(log.end(3, None), Place::of(0));
        assert_eq!(log.end(3, Some(10)), Place { line: 1, row: 1 });
        let top = Place { line: 1, row: 1 };
        log.push(&chunk(1, 2, OutputStream::Stdout, b"c\n"));
        assert_eq!(log.step(top, 1, Some(10)), Place { line: 1, row: 2 });
        assert_eq!(log.step(top, 2, Some(10)), Place::of(2));
        assert_eq!(log.step(top, -2, Some(10)), Place::of(0));
        assert_eq!(log.step(top, -99, Some(10)), Place::of(0));
        assert_eq!(log.step(top, 99, None), Place::of(3));
        assert_eq!(Log::default().end(5, Some(10)), Place::of(0));
    }

    #[test]
    fn a_line_is_found_by_its_time_in_its_attempt() {
        let mut log = Log::default();
        let at = |seconds: i64| Time::from_micros(seconds * 1_000_000);
        for (attempt, seq, seconds) in [(1, 1, 10), (1, 2, 20), (2, 1, 30)] {
            let mut chunk = chunk(attempt, seq, OutputStream::Stdout, b"line\n");
            chunk.head.time = at(seconds);
            log.push(&chunk);
        }
        assert_eq!(log.line_at(at(0), None), Some(0));
        assert_eq!(log.line_at(at(11), None), Some(1));
        assert_eq!(
            log.line_at(at(0), Some(AttemptId::from_random([2; 10]))),
            Some(3)
        );
        assert_eq!(log.line_at(at(31), None), None);
    }
}
