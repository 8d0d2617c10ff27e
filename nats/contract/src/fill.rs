//! How full is too full: from where on the hub warns of a stream and of its disk, and what it then
//! takes no more of. What is read is refused last: never here. Pure.

/// Percent of a stream's limit from which the hub warns, anew at each.
pub const WARN_AT_PERCENT: [u64; 3] = [75, 85, 90];
/// A warning is over when there is this much less, in percent of the limit.
const SLACK_PERCENT: u64 = 5;

/// Less than this free, in bytes, and the hub says that its disk fills up, and with what ...
const DISK_SHORT: u64 = 1024 * 1024 * 1024;
/// ... or less than one part in so many of it, where that is less.
const DISK_SHORT_PART: u64 = 10;
/// Less than this free, in bytes, and the disk is about to be full: no dispatch and no output is taken,
/// so that claims, results and events have room ...
const DISK_LOW: u64 = 64 * 1024 * 1024;
/// ... or less than one part in so many of it.
const DISK_LOW_PART: u64 = 50;

/// What the hub warns of, at `bytes` of `max_bytes` and where it has warned of `before`: a percentage of
/// [`WARN_AT_PERCENT`], not below `from`.
#[must_use]
pub fn warns_at(bytes: u64, max_bytes: u64, before: Option<u64>, from: u64) -> Option<u64> {
    if max_bytes == 0 {
        return None;
    }
    let percent = u128::from(bytes) * 100 / u128::from(max_bytes);
    let reached = |at: u64| percent >= u128::from(at);
    let stays =
        |at: u64| before >= Some(at) && percent + u128::from(SLACK_PERCENT) >= u128::from(at);
    let levels = WARN_AT_PERCENT.into_iter().filter(|at| *at >= from);
    levels.filter(|at| reached(*at) || stays(*at)).max()
}

/// How much room the hub's disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Disk {
    /// Enough.
    #[default]
    Enough,
    /// It fills up.
    Short,
    /// It is about to be full.
    Low,
}

impl Disk {
    /// With so many bytes free of so many, where it was `before`: it is better again only when there is
    /// a quarter more.
    #[must_use]
    pub fn of(free: u64, size: u64, before: Self) -> Self {
        let below = |mark: u64, state: Self| {
            let mark = if before >= state {
                mark + mark / 4
            } else {
                mark
            };
            free < mark
        };
        if below(DISK_LOW.min(size / DISK_LOW_PART), Self::Low) {
            Self::Low
        } else if below(DISK_SHORT.min(size / DISK_SHORT_PART), Self::Short) {
            Self::Short
        } else {
            Self::Enough
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_warned_of_once_on_the_way_up_and_left_well_below_it() {
        let way = [
            (74, None),
            (75, Some(75)),
            (84, Some(75)),
            (85, Some(85)),
            (89, Some(85)),
            (100, Some(90)),
            (86, Some(90)),
            (84, Some(85)),
            (79, Some(75)),
            (70, Some(75)),
            (69, None),
            (74, None),
        ];
        let mut before = None;
        for (percent, level) in way {
            before = warns_at(percent * 10, 1000, before, 0);
            assert_eq!(before, level, "{percent}");
        }
        assert_eq!(warns_at(80, 100, None, 85), None, "it makes room by itself");
        assert_eq!(warns_at(85, 100, None, 85), Some(85));
        assert_eq!(warns_at(7, 0, None, 0), None, "no limit");
        assert_eq!(warns_at(u64::MAX, 1, None, 0), Some(90));
    }

    #[test]
    fn a_disk_is_short_and_then_low_and_not_well_again_at_once() {
        let size = 100 << 30;
        let of = |mib: u64, before| Disk::of(mib << 20, size, before);
        assert_eq!(of(2000, Disk::Enough), Disk::Enough);
        assert_eq!(of(1000, Disk::Enough), Disk::Short);
        assert_eq!(of(1100, Disk::Short), Disk::Short);
        assert_eq!(of(63, Disk::Short), Disk::Low);
        assert_eq!(of(70, Disk::Low), Disk::Low);
        assert_eq!(of(90, Disk::Low), Disk::Short);
        assert_eq!(of(1300, Disk::Low), Disk::Enough);
        // A small one.
        assert_eq!(Disk::of(2 << 20, 64 << 20, Disk::Enough), Disk::Short);
        assert_eq!(Disk::of(1 << 20, 64 << 20, Disk::Enough), Disk::Low);
        assert_eq!(
            Disk::of(0, 0, Disk::Enough),
            Disk::Enough,
            "it cannot be asked"
        );
    }
}
