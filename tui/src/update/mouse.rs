//! What the mouse does.

use crossterm::event::MouseEvent;

use crate::model::{Cmd, Model};

/// Takes what the mouse did.
pub(super) fn take(_model: &mut Model, _event: &MouseEvent) -> Vec<Cmd> {
    Vec::new()
}
