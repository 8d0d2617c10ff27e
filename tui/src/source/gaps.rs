//! Sequences that are missing: messages that were gone from their stream before the console came to
//! them. Within one reading the bus brings every message that there is, in order, so what is
//! skipped is gone.

use crate::model::{Gap, Reader};

/// Watches the sequences of one reader.
#[derive(Debug)]
pub(super) struct Gaps {
    reader: Reader,
    /// Whether its stream keeps all messages, and not only the last of each subject.
    whole: bool,
    /// The sequence that comes next; none while any may, which the first reading takes as it is.
    next: Option<u64>,
    /// Whether the first reading goes on still.
    first: bool,
    /// The last sequence that the stream had given when the reading began.
    last: u64,
}

impl Gaps {
    /// A reader that goes on after `position`, 0 for one that begins; none where its stream is full
    /// of holes. The stream's last sequence is `last`.
    pub(super) fn new(reader: Reader, position: Option<u64>, last: u64) -> Self {
        let next = position.filter(|p| *p > 0).map(|p| p + 1);
        Self {
            reader,
            whole: position.is_some(),
            next,
            first: next.is_none(),
            last,
        }
    }

    /// Looks at the sequences of a batch; what is missing before and between them.
    pub(super) fn see(&mut self, seqs: impl Iterator<Item = u64>, caught_up: bool) -> Option<Gap> {
        let mut gap: Option<Gap> = None;
        for seq in seqs {
            self.skip_to(seq, &mut gap);
            self.next = Some(seq + 1);
        }
        if caught_up && self.next.is_some_and(|next| next <= self.last) {
            self.skip_to(self.last + 1, &mut gap);
            self.next = Some(self.last + 1);
        }
        self.first &= !caught_up;
        gap
    }

    /// The last sequence that was read or found missing; none before there is any.
    pub(super) fn reached(&self) -> Option<u64> {
        self.next.map(|next| next - 1)
    }

    fn skip_to(&self, seq: u64, gap: &mut Option<Gap>) {
        let Some(first) = self.next.filter(|next| *next < seq) else {
            return;
        };
        if self.first || !self.whole {
            return;
        }
        let gap = gap.get_or_insert(Gap {
            reader: self.reader,
            first,
            last: first,
            count: 0,
        });
        gap.last = seq - 1;
        gap.count += seq - first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(gaps: &mut Gaps, seqs: &[u64], caught_up: bool) -> Option<(u64, u64, u64)> {
        let gap = gaps.see(seqs.iter().copied(), caught_up);
        gap.map(|gap| (gap.first, gap.last, gap.count))
    }

    #[test]
    fn what_was_purged_before_the_first_reading_is_history_and_not_missed() {
        let mut gaps = Gaps::new(Reader::Journal, Some(0), 0);
        assert_eq!(see(&mut gaps, &[5, 9], false), None);
        assert_eq!(see(&mut gaps, &[12], true), None);
        assert_eq!(see(&mut gaps, &[13], false), None);
        assert_eq!(see(&mut gaps, &[15], false), Some((14, 14, 1)));
    }

    #[test]
    fn what_went_away_during_an_outage_is_missed() {
        let mut gaps = Gaps::new(Reader::Flow, Some(10), 20);
        assert_eq!(see(&mut gaps, &[14, 15, 17], false), Some((11, 16, 4)));
        assert_eq!(see(&mut gaps, &[18], false), None);
        // The rest of what was there is gone, too.
        assert_eq!(see(&mut gaps, &[], true), Some((19, 20, 2)));
        assert_eq!(see(&mut gaps, &[21], false), None);
        let mut all_gone = Gaps::new(Reader::Flow, Some(10), 20);
        assert_eq!(see(&mut all_gone, &[], true), Some((11, 20, 10)));
        // Told once: a reading that goes on from there finds nothing missing.
        assert_eq!(all_gone.reached(), Some(20));
        let mut nothing_new = Gaps::new(Reader::Flow, Some(20), 20);
        assert_eq!(see(&mut nothing_new, &[], true), None);
    }

    #[test]
    fn of_presence_only_the_last_is_kept() {
        let mut gaps = Gaps::new(Reader::Presence, None, 0);
        assert_eq!(see(&mut gaps, &[5, 9], true), None);
        assert_eq!(see(&mut gaps, &[30], false), None);
    }
}
