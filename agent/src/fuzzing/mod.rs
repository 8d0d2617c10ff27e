//! What the fuzzer runs of this crate's insides: the files of spool and executor, and the words
//! between agent and executor. Not part of any program; `tests/fuzz` has the rest.
#![expect(clippy::unwrap_used, reason = "a panic is what the fuzzer looks for")]

pub mod executor;
pub mod spool;

/// Decisions drawn off the front of any bytes; at their end every draw is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end.max(1)
    }

    /// Two bytes as a share of so many: any place in a file.
    fn place(&mut self, end: usize) -> usize {
        let draw = usize::from(self.byte()) << 8 | usize::from(self.byte());
        if end == 0 { 0 } else { draw % end }
    }

    /// Mostly a small number, now and then any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            254 => u64::MAX - u64::from(self.byte()),
            small => u64::from(small),
        }
    }

    /// The next bytes as they are, so many at the most.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
