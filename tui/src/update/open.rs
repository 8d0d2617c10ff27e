//! Opening and closing: a dispatch with its output, a machine; and the jumps between them.

use fleet_contract::ids::{JobId, MachineId};

use super::list;
use crate::model::{Cmd, Detail, JobDetail, Model, Pane};

/// Opens what is selected.
pub(super) fn selected(model: &mut Model) -> Vec<Cmd> {
    if model.detail.is_some() || model.ui.popup.is_some() {
        return Vec::new();
    }
    if model.focus() == Pane::Events && is_fold(model) {
        list::fold(model);
        return Vec::new();
    }
    if let Some(id) = model.subject_job() {
        return job(model, id);
    }
    let focus = model.focus();
    if let Some(id) = model.subject_machine().filter(|_| focus != Pane::Bus) {
        return machine(model, id);
    }
    Vec::new()
}

/// Whether the selected row is one of events that are folded.
fn is_fold(model: &Model) -> bool {
    let selected = model.selected_event();
    let mut rows = model.events_shown();
    rows.find(|row| Some(row.key) == selected)
        .is_some_and(|row| row.folded > 0)
}

/// Opens the dispatch of what is selected or open.
pub(super) fn jump_job(model: &mut Model) -> Vec<Cmd> {
    match model.subject_job() {
        Some(id) => job(model, id),
        None => {
            model.say("no dispatch is selected here");
            Vec::new()
        }
    }
}

/// Opens the machine of what is selected or open.
pub(super) fn jump_machine(model: &mut Model) -> Vec<Cmd> {
    match model.subject_machine() {
        Some(id) => machine(model, id),
        None => {
            model.say("no machine is known for this");
            Vec::new()
        }
    }
}

/// Opens a job.
pub(super) fn job(model: &mut Model, id: JobId) -> Vec<Cmd> {
    if matches!(&model.detail, Some(Detail::Job(open)) if open.id == id) {
        return Vec::new();
    }
    model.ui.popup = None;
    model.job = Some(id);
    model.detail = Some(Detail::Job(Box::new(JobDetail::new(id))));
    vec![Cmd::OpenLog(id)]
}

/// Opens a machine.
pub(super) fn machine(model: &mut Model, id: MachineId) -> Vec<Cmd> {
    let cmds = close(model);
    model.ui.popup = None;
    model.machine = Some(id.clone());
    model.ui.machine_top = 0;
    model.detail = Some(Detail::Machine(id));
    cmds
}

/// Closes what is open.
pub(super) fn close(model: &mut Model) -> Vec<Cmd> {
    match model.detail.take() {
        Some(Detail::Job(_)) => vec![Cmd::CloseLog],
        _ => Vec::new(),
    }
}
