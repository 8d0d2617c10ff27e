//! What the machine is and how busy, as the operating system tells it.

use std::path::Path;

use fleet_contract::machine::{Load, Specs};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What the machine is.
pub(super) fn specs(version: &str) -> Specs {
    let system = System::new_with_specifics(memory_only());
    Specs {
        os: std::env::consts::OS.to_owned(),
        os_version: System::long_os_version().unwrap_or_default(),
        arch: std::env::consts::ARCH.to_owned(),
        cores: cores(),
        mem_total: system.total_memory(),
        version: version.to_owned(),
    }
}

/// Logical processors, at least 1.
#[must_use]
pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

fn memory_only() -> RefreshKind {
    RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram())
}

/// How busy the machine is. Slots are the caller's.
pub(super) fn load(home: &Path) -> Load {
    let system = System::new_with_specifics(memory_only());
    let (disk_free, disk_total) = disk(home);
    Load {
        load: System::load_average().one,
        mem_free: system.available_memory(),
        disk_free,
        disk_total,
        ..Load::default()
    }
}

/// Bytes free for us, and in all, where `home` is; 0 and 0 where that cannot be asked.
pub(super) fn disk(home: &Path) -> (u64, u64) {
    rustix::fs::statvfs(home).map_or((0, 0), |s| {
        (
            s.f_bavail.saturating_mul(s.f_frsize),
            s.f_blocks.saturating_mul(s.f_frsize),
        )
    })
}

/// Whether so many bytes and files have room where `home` is. A disk that cannot be asked is none that
/// is known to be full, and one that counts no files never runs out of them.
pub(super) fn has_room(home: &Path, bytes: u64, files: u64) -> bool {
    rustix::fs::statvfs(home).map_or(true, |s| {
        let free = s.f_bavail.saturating_mul(s.f_frsize);
        let full = s.f_blocks > 0 && free < bytes;
        !full && (s.f_files == 0 || s.f_favail >= files)
    })
}

/// The machine's host name.
pub(super) fn host() -> String {
    System::host_name().unwrap_or_else(|| "unknown".to_owned())
}
