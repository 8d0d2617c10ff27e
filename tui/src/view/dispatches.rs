//! The jobs, worst first unless another order is asked for.

use std::borrow::Cow;

use fleet_contract::job::{Job, JobState};
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::place;
use fleet_contract::spec::Priority;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::table::{self, Column, Row, Table, Width, column, number};
use super::{link, words};
use crate::columns::{self, Col};
use crate::model::{Model, Pane};
use crate::text;
use crate::theme::Role;
use crate::widget::{self, Cell, cell};

pub(super) use super::table::teach;

/// From so many columns on there is room for the columns that are not usual: those of an attempt,
/// who sent it, and the rest.
const ROOMY: [usize; 3] = [130, 160, 190];

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let list = &model.lists.jobs;
    let all = model.jobs_count();
    let notes = match (model.is_dated(), model.filter_note(Pane::Dispatches)) {
        _ if link::never_read(model) => "not read yet".to_owned(),
        (true, None) => "last known".to_owned(),
        (true, Some(note)) => format!("last known {} {note}", look.dot()),
        (false, _) => model.list_notes(Pane::Dispatches),
    };
    let above = first_above(model, focused, widget::inside(area));
    let title = format!("Dispatches {}{above} {notes}", look.dot());
    let count = match link::never_read(model) {
        true => String::new(),
        false => text::thousands(all as u64),
    };
    let inner = widget::pane(buf, area, look, focused, &title, &count);
    if all == 0 {
        let hidden = model.hidden(Pane::Dispatches);
        let text = link::empty(
            model,
            hidden,
            "no jobs yet: fleet dispatch --follow -- uname -a",
        );
        return teach(buf, inner, look, &text);
    }
    let height = table::height(inner);
    let (first, selected) = window(model, focused, height);
    let jobs = model.jobs_shown_from(first).take(height);
    let rows: Vec<JobRow<'_>> = jobs.map(|job| JobRow::new(model, job)).collect();
    let table = Table {
        look,
        columns: &shown_columns(model, inner.width),
        sort: list.sort.map(|col| (col, list.reverse)),
        selected: focused.then(|| selected - first),
        marks: !list.marked.is_empty(),
    };
    table.draw(&rows, inner, buf);
    table::more(buf, inner, look, all, first, height);
}

/// How many worse ones are above the screen: nobody may miss them.
fn first_above(model: &Model, focused: bool, inner: Rect) -> String {
    let list = &model.lists.jobs;
    let (first, _) = window(model, focused, table::height(inner));
    table::worse(model.look, first, list.sort.is_none() && !list.reverse)
}

/// The first row on screen, and the selected one.
pub(super) fn window(model: &Model, focused: bool, height: usize) -> (usize, usize) {
    // Without a selection, or the focus, the worst are what matters.
    let selected = match (focused, model.job) {
        (false, _) | (_, None) => 0,
        _ => {
            let wanted = model.selected_job();
            let mut ids = model.job_ids_shown();
            ids.position(|id| Some(id) == wanted).unwrap_or(0)
        }
    };
    let above = model.lists.jobs.above;
    let first = widget::first_below(selected, above, model.jobs_count(), height);
    (first, selected)
}

/// The columns at this width.
fn shown_columns(model: &Model, width: u16) -> Vec<Column> {
    let width = usize::from(width);
    let word = if model.is_dated() { 15 } else { 11 };
    let mut columns = vec![
        column(Col::Glyph, Width::Is(1), 0),
        column(Col::State, Width::Is(word), 5),
        column(Col::Id, Width::Fit(4, 8), 1),
        column(Col::What, Width::Share(8, 55), 0),
        column(Col::Where, Width::Fit(5, (width * 2 / 5).max(5)), 2),
        number(Col::Age, Width::Is(6), 3),
    ];
    let all = columns::of(Pane::Dispatches);
    let chosen = &model.lists.jobs.chosen;
    for col in all.iter().filter(|col| !columns::is_usual(**col)) {
        let (width_of, from) = match col {
            Col::Attempt => (Width::Is(3), ROOMY[0]),
            Col::Took => (Width::Is(6), ROOMY[0]),
            Col::Exit => (Width::Is(6), ROOMY[0]),
            Col::By => (Width::Fit(4, 18), ROOMY[1]),
            Col::Lane => (Width::Fit(4, 10), ROOMY[2]),
            Col::Priority => (Width::Is(6), ROOMY[2]),
            _ => (Width::Fit(4, 24), ROOMY[2]),
        };
        let asked_for = chosen.get(col) == Some(&true);
        if width >= from || asked_for {
            let right = matches!(col, Col::Attempt | Col::Took | Col::Exit);
            columns.push(Column {
                right,
                ..column(*col, width_of, if asked_for { 3 } else { 6 })
            });
        }
    }
    columns.push(column(Col::Note, Width::Rest(12), 4));
    columns.retain(|column| chosen.get(&column.col) != Some(&false));
    columns
}

struct JobRow<'a> {
    model: &'a Model,
    job: &'a Job,
    id: String,
    title: String,
}

impl<'a> JobRow<'a> {
    fn new(model: &'a Model, job: &'a Job) -> Self {
        Self {
            model,
            job,
            id: words::prefix(&model.fleet, job.id),
            title: words::title(job),
        }
    }

    fn word(&self) -> String {
        let word = self.job.state.word();
        let canceling = matches!(
            self.job.state,
            JobState::Running {
                cancel_requested: true,
                ..
            }
        );
        match (self.model.is_dated() && !word.is_terminal(), canceling) {
            (true, _) => format!("was {word}"),
            (false, true) => "canceling".to_owned(),
            (false, false) => word.to_string(),
        }
    }

    fn rest(&self, col: Col) -> Cow<'a, str> {
        let (model, job) = (self.model, self.job);
        match col {
            Col::Age => words::age(model.now, job.changed_at).into(),
            Col::Note => words::note(model, job).into(),
            Col::Attempt => match job.attempts.len() {
                0 => "".into(),
                n => n.to_string().into(),
            },
            Col::Took => columns::took(job, model.now)
                .map_or("".into(), |t| fleet_contract::projection::span(t).into()),
            Col::Exit => exit(job).into(),
            Col::Lane => columns::lane(job).into(),
            Col::Priority => match job.spec.priority {
                Priority::High => "high".into(),
                Priority::Normal => "".into(),
                Priority::Low => "low".into(),
            },
            Col::By => job.spec.submitted_by.as_str().into(),
            Col::Tags => {
                let tags = job.spec.tags.iter().map(|(k, v)| format!("{k}={v}"));
                tags.collect::<Vec<_>>().join(" ").into()
            }
            _ => "".into(),
        }
    }
}

fn exit(job: &Job) -> String {
    match job.attempt().and_then(|a| a.outcome.as_ref()) {
        Some(Outcome::Exited { exit_code }) => exit_code.to_string(),
        Some(Outcome::Signaled { signal }) => format!("sig {signal}"),
        _ => String::new(),
    }
}

impl Row for JobRow<'_> {
    fn marked(&self) -> bool {
        self.model.lists.jobs.marked.contains(&self.job.id)
    }

    fn cell(&self, col: Col) -> Cell<'_> {
        let look = self.model.look;
        let word = self.job.state.word();
        let (glyph, role) = look.job(word);
        let dated = self.model.is_dated() && !word.is_terminal();
        let style = look.style(if dated { Role::Dim } else { role });
        let plain = look.style(if dated { Role::Dim } else { Role::Plain });
        let dim = look.style(Role::Dim);
        match col {
            Col::Glyph => cell(glyph, style),
            Col::State => cell(self.word(), style),
            Col::Id => cell(self.id.as_str(), dim),
            Col::What => cell(self.title.as_str(), plain),
            Col::Where => cell(place(self.job).map_or("-", |m| m.as_str()), plain),
            Col::Note if matches!(role, Role::Bad | Role::Attention) => cell(self.rest(col), plain),
            _ => cell(self.rest(col), dim),
        }
    }
}
