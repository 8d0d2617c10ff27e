//! What the console itself costs: frames, bytes, and the time that they and the fold took. The
//! loop counts, the views show it.

use std::collections::VecDeque;
use std::time::Duration;

/// Frames that the percentile is of.
const RECENT: usize = 512;

/// What was counted. All totals only grow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Own {
    /// Frames drawn.
    pub(crate) frames: u64,
    /// Of them those that changed nothing on the screen, and so wrote nothing.
    pub(crate) still_frames: u64,
    /// Bytes written to the terminal.
    pub(crate) bytes: u64,
    /// Bytes of the last frame that wrote any.
    pub(crate) last_bytes: u64,
    /// How long the last frame took to draw.
    pub(crate) last_frame: Duration,
    /// How long the worst one took.
    pub(crate) worst_frame: Duration,
    /// Messages of the bus that were folded.
    pub(crate) folded: u64,
    /// How long that took in all.
    pub(crate) folding: Duration,
    recent: VecDeque<u32>,
}

impl Own {
    /// A frame was drawn.
    pub(crate) fn frame(&mut self, took: Duration, bytes: usize) {
        self.frames += 1;
        self.last_frame = took;
        self.worst_frame = self.worst_frame.max(took);
        if bytes == 0 {
            self.still_frames += 1;
        } else {
            self.last_bytes = bytes as u64;
            self.bytes += self.last_bytes;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.recent.push_back(micros);
    }

    /// So many messages were folded.
    pub(crate) fn fold(&mut self, count: u64, took: Duration) {
        self.folded += count;
        self.folding += took;
    }

    /// How long 99 of 100 of the last frames took at most; none before the first.
    pub(crate) fn p99_frame(&self) -> Option<Duration> {
        let mut all: Vec<u32> = self.recent.iter().copied().collect();
        all.sort_unstable();
        // Of fewer than 100 it is the worst.
        let at = (all.len() * 99).div_ceil(100).checked_sub(1)?;
        Some(Duration::from_micros(u64::from(all[at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_their_percentile_are_counted() {
        let mut own = Own::default();
        assert_eq!(own.p99_frame(), None);
        for micros in 1..=1000 {
            own.frame(Duration::from_micros(micros), usize::from(micros % 2 == 0));
        }
        assert_eq!((own.frames, own.still_frames, own.bytes), (1000, 500, 500));
        assert_eq!(own.p99_frame(), Some(Duration::from_micros(995)));
        assert_eq!(own.worst_frame, Duration::from_millis(1));
        own.fold(7, Duration::from_micros(3));
        assert_eq!((own.folded, own.folding), (7, Duration::from_micros(3)));
    }
}
