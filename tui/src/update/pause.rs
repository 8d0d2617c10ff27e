//! A screen that stands still: what is shown is kept as it is, what comes is folded behind it.

use super::log;
use crate::model::{Detail, Model, Paused};

/// Lets the screen stand still, or go on.
pub(super) fn toggle(model: &mut Model) {
    match model.paused.take() {
        Some(paused) => {
            model.fleet = paused.live;
            model.now = model.clock;
            if let (Some(Detail::Job(detail)), true) = (&mut model.detail, paused.followed) {
                detail.top = None;
            }
            model.say("live again");
        }
        None => {
            let dated = model.is_dated();
            let followed = log::hold(model);
            model.paused = Some(Box::new(Paused {
                live: model.fleet.clone(),
                dated,
                followed,
            }));
        }
    }
    model.lists.spoil();
}
