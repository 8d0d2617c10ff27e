//! Why a dispatch stands where it stands, in the fewest lines that tell it.

use fleet_contract::ids::JobId;
use ratatui::text::Line;

use super::words;
use crate::model::Model;
use crate::text;

/// Why, one reason in each line.
pub(super) fn why(model: &Model, id: JobId) -> Vec<Line<'static>> {
    let Some(job) = model.fleet.job(id) else {
        return vec![Line::raw("this dispatch is not known any more")];
    };
    let note = words::note(model, job);
    let text = format!("{}: {}", job.state.word(), text::escape(&note));
    vec![Line::raw(text)]
}
