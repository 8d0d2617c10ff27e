//! The jobs, worst first.

use fleet_contract::job::{Job, JobState};
use fleet_contract::projection::place;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr;

use super::{link, words};
use crate::model::Model;
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, cell, left, right};

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let all = model.fleet.jobs().len();
    let order = if model.is_dated() {
        "last known"
    } else {
        "worst first"
    };
    let title = format!("Dispatches {} {order}", look.dot());
    let inner = widget::pane(
        buf,
        area,
        look,
        focused,
        &title,
        &text::thousands(all as u64),
    );
    if all == 0 {
        let text = link::empty(model, 0, "no jobs yet: fleet dispatch -- make test");
        return teach(buf, inner, look, &text);
    }
    let height = usize::from(inner.height);
    let at = model.as_of();
    // Without a selection, or the focus, the worst are what matters.
    let selected = match (focused, model.job) {
        (false, _) | (_, None) => 0,
        _ => {
            let wanted = model.selected_job();
            let mut jobs = model.fleet.worst_first(at);
            jobs.position(|j| Some(j.id) == wanted).unwrap_or(0)
        }
    };
    let first = widget::first_row(selected, all, height);
    let rows: Vec<Row<'_>> = model
        .fleet
        .worst_first(at)
        .skip(first)
        .take(height)
        .map(|job| Row {
            job,
            id: words::prefix(&model.fleet, job.id),
            title: words::title(job),
            place: place(job).map_or("-", |m| m.as_str()),
        })
        .collect();
    let columns = columns(usize::from(inner.width), model.is_dated(), &rows);
    for (y, row) in rows.iter().enumerate() {
        let selected = focused && first + y == selected;
        let y = u16::try_from(y).unwrap_or(u16::MAX);
        let cells = cells(model, row);
        widget::row(buf, inner, y, look, selected, &columns, cells);
    }
    more(buf, inner, look, all, first);
}

struct Row<'a> {
    job: &'a Job,
    id: String,
    title: String,
    place: &'a str,
}

fn cells<'a>(model: &Model, row: &'a Row<'a>) -> Vec<widget::Cell<'a>> {
    let look = model.look;
    let job = row.job;
    let word = job.state.word();
    let (glyph, role) = look.job(word);
    let dated = model.is_dated() && !word.is_terminal();
    let canceling = matches!(
        job.state,
        JobState::Running {
            cancel_requested: true,
            ..
        }
    );
    let shown = match (dated, canceling) {
        (true, _) => format!("was {word}"),
        (false, true) => "canceling".to_owned(),
        (false, false) => word.to_string(),
    };
    let style = look.style(if dated { Role::Dim } else { role });
    let plain = look.style(if dated { Role::Dim } else { Role::Plain });
    let dim = look.style(Role::Dim);
    let note = match role {
        Role::Bad if !dated => look.style(Role::Bad),
        _ => dim,
    };
    vec![
        cell(glyph, style),
        cell(shown, style),
        cell(row.id.as_str(), dim),
        cell(row.title.as_str(), plain),
        cell(row.place, plain),
        cell(words::age(model.now, job.changed_at), dim),
        cell(words::note(model, job), note),
    ]
}

/// Glyph, word, id, title, where, age, note: the narrower, the fewer; none wider than its cells.
fn columns(width: usize, dated: bool, rows: &[Row<'_>]) -> [widget::Column; 7] {
    let word = match (width, dated) {
        (..60, _) => 0,
        (_, true) => 15,
        (_, false) => 11,
    };
    let id = widget::width(rows.iter().map(|r| r.id.as_str()), 4, 8);
    let place = widget::width(rows.iter().map(|r| r.place), 5, (width / 6).max(5));
    // The pointer, the glyph, the age, and a space after each column.
    let fixed = 3 + word + usize::from(word > 0) + id + 1 + place + 1 + 7;
    let rest = width.saturating_sub(fixed);
    let most = (rest * 11 / 20).max(10);
    let title = widget::width(rows.iter().map(|r| r.title.as_str()), 8, most);
    [
        left(1),
        left(word),
        left(id),
        left(title),
        left(place),
        right(6),
        left(rest.saturating_sub(title + 1)),
    ]
}

/// An empty list says why, and what to type.
pub(super) fn teach(buf: &mut Buffer, area: Rect, look: Look, text: &str) {
    let text = text::clip(
        &text::escape(text),
        usize::from(area.width).saturating_sub(1),
        look.ellipsis(),
    );
    let line = Line::styled(format!(" {text}"), look.style(Role::Dim));
    widget::line(buf, area, 0, &line);
}

/// Says in the frame below a list how many rows are not on screen.
pub(super) fn more(buf: &mut Buffer, inner: Rect, look: Look, all: usize, first: usize) {
    let shown = usize::from(inner.height).min(all - first.min(all));
    let below = all - first - shown;
    if all <= shown {
        return;
    }
    let text = match first {
        0 => format!(" {} more below ", text::thousands(below as u64)),
        _ => format!(
            " {} above, {} below ",
            text::thousands(first as u64),
            text::thousands(below as u64)
        ),
    };
    let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
    let y = inner.y.saturating_add(inner.height);
    if width + 4 > inner.width || y >= buf.area.bottom() {
        return;
    }
    // Only a pane with a frame has a row below its inside that is its own.
    let corner = buf.cell((inner.x, y)).map(|c| c.symbol().to_owned());
    if corner.as_deref() == Some(look.border().horizontal_bottom) {
        let x = inner.x + inner.width - width - 1;
        buf.set_string(x, y, text, look.style(Role::Dim));
    }
}
