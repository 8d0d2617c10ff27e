//! What is left of a machine's memory and graphics processors, and who holds the rest. Pure.

use super::facts::{Gpu, Reserved};

/// What one job holds of its machine while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Memory, in bytes.
    pub mem: u64,
    /// Graphics processors, each for this job alone.
    pub gpus: u32,
    /// Memory that each of these has at least, in bytes.
    pub gpu_mem: u64,
}

impl Share {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a machine has, less what its jobs hold.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    /// Memory in all, in bytes.
    pub mem: u64,
    /// Every graphics processor.
    pub gpus: &'a [Gpu],
    /// What is held.
    pub reserved: &'a Reserved,
}

impl Room<'_> {
    /// What a job with this share would hold; none where that is not left. Of the graphics
    /// processors that are large enough it takes the smallest.
    #[must_use]
    pub fn take(&self, share: &Share) -> Option<Reserved> {
        if share.mem > 0 && share.mem > self.mem.saturating_sub(self.reserved.mem) {
            return None;
        }
        let gpus = self.free_gpus(share.gpu_mem);
        let wanted = usize::try_from(share.gpus).unwrap_or(usize::MAX);
        (gpus.len() >= wanted).then(|| Reserved {
            mem: share.mem,
            gpus: gpus.into_iter().take(wanted).collect(),
        })
    }

    /// Graphics processors of at least so much memory that nobody holds, the smallest first.
    fn free_gpus(&self, mem: u64) -> Vec<u32> {
        let free = |gpu: &&Gpu| gpu.mem >= mem && !self.reserved.gpus.contains(&gpu.index);
        let mut free: Vec<&Gpu> = self.gpus.iter().filter(free).collect();
        free.sort_by_key(|gpu| (gpu.mem, gpu.index));
        free.into_iter().map(|gpu| gpu.index).collect()
    }
}

impl Reserved {
    /// All of it together.
    #[must_use]
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.mem = sum.mem.saturating_add(one.mem);
            sum.gpus.extend(&one.gpus);
        }
        sum.gpus.sort_unstable();
        sum.gpus.dedup();
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_taken_of_what_is_left_and_of_the_smallest_that_fits() {
        let gpu = |index, gib: u64| Gpu {
            index,
            mem: gib << 30,
            ..Gpu::default()
        };
        let gpus = [gpu(0, 80), gpu(1, 24), gpu(2, 8)];
        let mut held = Vec::new();
        let mut take = |mem: u64, gpus_wanted, gpu_mem: u64| {
            let reserved = Reserved::sum(&held);
            let room = Room {
                mem: 64,
                gpus: &gpus,
                reserved: &reserved,
            };
            let share = Share {
                mem,
                gpus: gpus_wanted,
                gpu_mem: gpu_mem << 30,
            };
            let took = room.take(&share);
            held.extend(took.clone());
            took.map(|took| took.gpus)
        };
        assert_eq!(take(60, 0, 0), Some(vec![]));
        assert_eq!(take(5, 0, 0), None);
        assert_eq!(take(4, 1, 16), Some(vec![1]));
        assert_eq!(take(0, 1, 0), Some(vec![2]));
        assert_eq!(take(0, 2, 0), None);
        assert_eq!(take(0, 1, 24), Some(vec![0]));
        assert_eq!(take(0, 0, 0), Some(vec![]));
    }
}
