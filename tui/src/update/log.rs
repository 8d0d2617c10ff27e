//! What keys do in a dispatch's output.

use crate::model::{Detail, JobDetail, Model};

/// Columns that one key moves long lines by.
const SIDE_STEP: usize = 8;

/// Moves long lines.
pub(super) fn sideways(model: &mut Model, right: bool) {
    if let Some(Detail::Job(detail)) = &mut model.detail {
        detail.left = if right {
            (detail.left + SIDE_STEP).min(4096)
        } else {
            detail.left.saturating_sub(SIDE_STEP)
        };
    }
}

/// Moves the first line on screen.
pub(super) fn scroll(detail: &mut JobDetail, by: i64, page: u64) {
    let end = detail.log.len().saturating_sub(page);
    let first = detail.log.dropped();
    let here = detail.top.unwrap_or(end).clamp(first, end.max(first));
    let to = here.saturating_add_signed(by).max(first);
    // At the end it follows again.
    detail.top = (to < end).then_some(to);
}
