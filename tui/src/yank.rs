//! What is put on the clipboard: ids, lines, JSON (jobs and machines as the command line prints them,
//! of events what is kept here), and the command that shows it. Pure: the terminal writes it.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::projection::{EventKey, place};
use fleet_contract::view::{JobView, MachineView};
use serde_json::json;

use crate::keymap::Action;
use crate::model::{Detail, Model, Pane};
use crate::text;
use crate::update::log;
use crate::view::words;

/// Most that is put on a clipboard, in bytes: terminals take no more.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A job in a list.
    Job(JobId),
    /// A job whose output is open.
    Output(JobId),
    Machine(MachineId),
    Event(EventKey),
}

/// What is open, else the marked rows of the list, else the selected one.
pub(crate) fn subjects(model: &Model) -> Vec<Subject> {
    let lists = &model.lists;
    match (&model.detail, model.focus()) {
        (Some(Detail::Job(detail)), _) => vec![Subject::Output(detail.id)],
        (Some(Detail::Machine(id)), _) => vec![Subject::Machine(id.clone())],
        (None, Pane::Dispatches) if !lists.jobs.marked.is_empty() => {
            let marked = lists.jobs.marked.iter();
            marked.map(|id| Subject::Job(*id)).collect()
        }
        (None, Pane::Dispatches | Pane::Inbox) => {
            model.subject_job().map(Subject::Job).into_iter().collect()
        }
        (None, Pane::Machines) if !lists.machines.marked.is_empty() => {
            let marked = lists.machines.marked.iter();
            marked.map(|id| Subject::Machine(id.clone())).collect()
        }
        (None, Pane::Machines) => {
            let machine = model.selected_machine();
            machine.map(Subject::Machine).into_iter().collect()
        }
        (None, Pane::Events) if !lists.events.marked.is_empty() => {
            let marked = lists.events.marked.iter();
            marked.map(|key| Subject::Event(*key)).collect()
        }
        (None, Pane::Events) => {
            let event = model.selected_event();
            event.map(Subject::Event).into_iter().collect()
        }
        (None, Pane::Bus) => Vec::new(),
    }
}

/// The text for one action: one line for each subject that has something to say.
pub(crate) fn text(model: &Model, action: Action, subjects: &[Subject]) -> String {
    let each = subjects.iter().filter_map(|subject| match action {
        Action::YankId => id(model, subject),
        Action::YankLine => line(model, subject),
        Action::YankJson => json(model, subject),
        _ => command(model, subject),
    });
    let mut lines: Vec<String> = each.collect();
    lines.dedup();
    lines.join("\n")
}

fn id(model: &Model, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Job(id) | Subject::Output(id) => Some(id.to_string()),
        Subject::Machine(id) => Some(id.to_string()),
        Subject::Event(key) => {
            let event = model.fleet.events().get(key)?;
            let job = event.job.map(|id| id.to_string());
            job.or_else(|| event.machine.as_ref().map(MachineId::to_string))
        }
    }
}

fn line(model: &Model, subject: &Subject) -> Option<String> {
    if let (Subject::Output(_), Some(Detail::Job(detail))) = (subject, &model.detail)
        && let Some(line) = log::line(model).and_then(|no| detail.log.line(no))
    {
        return Some(text::escape(&line.text).into_owned());
    }
    let parts = match subject {
        Subject::Job(id) | Subject::Output(id) => {
            let job = model.fleet.job(*id)?;
            vec![
                job.state.word().to_string(),
                id.to_string(),
                words::title(job),
                place(job).map_or("-".to_owned(), MachineId::to_string),
                words::age(model.now, job.changed_at),
                words::note(model, job),
            ]
        }
        Subject::Machine(id) => {
            let machine = model.fleet.machines().get(id)?;
            let at = model.as_of();
            let load = &machine.presence.load;
            let state = machine.state(at);
            vec![
                state.to_string(),
                id.to_string(),
                format!("seen {}", words::ago(model.now, machine.seen)),
                format!("{}/{} slots", load.slots_used, load.slots),
                words::causes(machine, state, at),
            ]
        }
        Subject::Event(key) => {
            let event = model.fleet.events().get(key)?;
            let job = event.job.map(|id| id.to_string());
            let machine = event.machine.as_ref().map(MachineId::to_string);
            vec![
                event.time.to_string(),
                event.word.clone(),
                job.unwrap_or_default(),
                machine.unwrap_or_default(),
                event.text.clone(),
            ]
        }
    };
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    // Somebody will paste it into a shell or a terminal.
    Some(text::escape(&parts.join("  ")).into_owned())
}

fn json(model: &Model, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Job(id) | Subject::Output(id) => {
            let job = model.fleet.job(*id)?;
            serde_json::to_string(&JobView::of(job)).ok()
        }
        Subject::Machine(id) => {
            let machine = model.fleet.machines().get(id)?;
            let age = model.now.since(machine.seen);
            let view = MachineView::of(&machine.presence, machine.seen, age);
            serde_json::to_string(&view).ok()
        }
        Subject::Event(key) => {
            let event = model.fleet.events().get(key)?;
            // No event of the command line: its id and data are not kept here.
            let view = json!({
                "seq": key.seq,
                "time": event.time,
                "machine": event.machine,
                "word": event.word,
                "job": event.job,
                "text": event.text,
            });
            serde_json::to_string(&view).ok()
        }
    }
}

fn command(model: &Model, subject: &Subject) -> Option<String> {
    let prefix = |id: JobId| words::prefix(&model.fleet, id);
    Some(match subject {
        Subject::Job(id) => format!("fleet show {}", prefix(*id)),
        Subject::Output(id) => format!("fleet logs -f {}", prefix(*id)),
        Subject::Machine(_) => "fleet machines".to_owned(),
        Subject::Event(key) => {
            let event = model.fleet.events().get(key)?;
            match (&event.job, &event.machine) {
                (Some(id), _) => format!("fleet flow --job {}", prefix(*id)),
                (None, Some(machine)) => format!("fleet flow --machine {machine}"),
                (None, None) => "fleet flow".to_owned(),
            }
        }
    })
}
