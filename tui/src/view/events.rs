//! What happened, newest first, each with a glyph and a word; gaps among it.

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::job::Job;
use fleet_contract::projection::{Event, EventKey};
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::table::{self, Column, Row, Table, Width, column};
use super::{link, words};
use crate::columns::Col;
use crate::model::{Model, Pane, Phase};
use crate::text;
use crate::theme::{Look, Role};
use crate::widget::{self, Cell, cell};

/// Of so many events one is shown while more come than can be read.
const SAMPLE: u64 = 10;
/// Events that are looked at to find those of one machine or job.
const LOOK_AT: usize = 5000;
/// From so many columns on there are hundredths of seconds.
const WIDE: usize = 90;
/// Lines that the selected event may take below its own.
const EXPANDED: usize = 4;

/// Draws them.
pub(super) fn draw(model: &Model, focused: bool, area: Rect, buf: &mut Buffer) {
    let look = model.look;
    let following = model.event.is_none();
    let counters = model.fleet.counters();
    let zone = words::zone(model);
    let sampled = is_sampled(model, usize::from(area.height));
    let right = match (following, counters.events_dropped) {
        _ if sampled => format!("1 in {SAMPLE} shown"),
        (true, 0) => format!("times in {zone}, following"),
        (true, n) => format!(
            "times in {zone}, following, {} no longer kept",
            text::thousands(n)
        ),
        (false, _) => format!("times in {zone}, f follows again"),
    };
    let title = format!("Events {} {}", look.dot(), model.list_notes(Pane::Events));
    let inner = widget::pane(buf, area, look, focused, &title, &right);
    let rows = window(model, focused, inner);
    if rows.is_empty() {
        let hidden = model.hidden(Pane::Events);
        let text = link::empty(model, hidden, "nothing happened in the last hour");
        return table::teach(buf, inner, look, &text);
    }
    let selected = model.selected_event().filter(|_| focused);
    let selected = rows
        .iter()
        .position(|row| row.key() == selected && selected.is_some());
    let table = Table {
        look,
        columns: &shown_columns(model, inner.width),
        sort: None,
        selected,
        marks: !model.lists.events.marked.is_empty(),
    };
    table.draw(&rows, inner, buf);
}

/// Whether so much comes that most of it is left out.
fn is_sampled(model: &Model, height: usize) -> bool {
    let many = model.fleet.events().len() >= height * 10;
    let slow = matches!(model.phase(), Phase::Slow { .. });
    many && slow && model.event.is_none() && model.lists.events.filter.is_none()
}

/// The event in each row on screen; none for rows that are no event's own.
pub(super) fn keys(model: &Model, focused: bool, inner: Rect) -> Vec<Option<EventKey>> {
    let rows = window(model, focused, inner);
    rows.iter().map(EventRow::key).collect()
}

/// The rows on screen.
fn window(model: &Model, focused: bool, inner: Rect) -> Vec<EventRow<'_>> {
    let height = table::height(inner);
    let selected = model
        .selected_event()
        .filter(|_| focused && model.event.is_some());
    let first = selected.map_or(0, |key| {
        let at = model.events_shown().position(|row| row.key == key);
        let above = model.lists.events.above.min(height.saturating_sub(1));
        at.unwrap_or(0).saturating_sub(above)
    });
    let view = View {
        first,
        expanded: selected,
        sampled: is_sampled(model, height),
        height,
        width: usize::from(inner.width),
    };
    rows(model, &view)
}

/// Which events are on screen.
struct View {
    /// So many newer ones are not.
    first: usize,
    /// The one that is told whole.
    expanded: Option<EventKey>,
    /// Whether most are left out.
    sampled: bool,
    /// Rows there are.
    height: usize,
    /// Columns there are.
    width: usize,
}

/// A screenful, gaps in their places. What is told whole is on it whole, if it fits at all.
fn rows<'a>(model: &'a Model, view: &View) -> Vec<EventRow<'a>> {
    let fine = view.width >= WIDE;
    let row = |what| EventRow { model, fine, what };
    let mut rows = Vec::with_capacity(view.height);
    // What is newer than what is shown is not shown.
    let marks = model.marks.iter().rev();
    let shown = |at: Time| model.paused.is_none() || at <= model.now;
    let mut marks = marks.filter(|(at, _)| shown(**at)).peekable();
    let kept = |key: &EventKey| !view.sampled || key.seq.is_multiple_of(SAMPLE);
    let shown = model.events_shown().filter(|row| kept(&row.key));
    let mut end = 0;
    for (at, this) in shown.skip(view.first).enumerate() {
        while let Some((seen, mark)) = marks.next_if(|(seen, _)| **seen > this.key.stored) {
            if at > 0 || view.first == 0 {
                rows.push(row(What::Mark(*seen, mark)));
            }
        }
        // Marks must not push the selected one off the screen.
        let waits = view.expanded.is_some() && end == 0;
        if rows.len() >= view.height && !waits {
            break;
        }
        let Some(event) = model.fleet.events().get(&this.key) else {
            continue;
        };
        rows.push(row(match this.folded {
            0 => What::Event(this.key, event),
            folded => What::Folded(this.key, folded),
        }));
        if view.expanded == Some(this.key) {
            if this.folded == 0 {
                let lines = expand(model, event, view.width);
                rows.extend(lines.into_iter().map(|line| row(What::Rest(line))));
            }
            end = rows.len();
        }
    }
    if rows.len() < view.height {
        rows.extend(marks.map(|(at, mark)| row(What::Mark(*at, mark))));
    }
    rows.drain(..end.saturating_sub(view.height));
    rows.truncate(view.height);
    rows
}

/// The whole of an event, in as many lines as it needs and may have.
fn expand(model: &Model, event: &Event, width: usize) -> Vec<String> {
    let mut head = vec![event.word.clone()];
    head.push(words::date(event.time, &model.zone));
    if let Some(job) = event.job.and_then(|id| model.fleet.job(id)) {
        head.push(format!("{} {}", job.id, words::title(job)));
    }
    if let Some(machine) = &event.machine {
        head.push(machine.to_string());
    }
    let dot = format!(" {} ", model.look.dot());
    let text = format!("{}{dot}{}", head.join(&dot), event.text);
    let text = text::escape(&text).into_owned();
    let room = width.saturating_sub(5).max(8);
    let rows = text::wrap(&text, room);
    rows.into_iter()
        .take(EXPANDED)
        .map(|range| text[range].to_owned())
        .collect()
}

fn shown_columns(model: &Model, width: u16) -> Vec<Column> {
    let wide = usize::from(width) >= WIDE;
    let mut columns = vec![
        column(Col::Time, Width::Is(if wide { 11 } else { 8 }), 1),
        column(Col::Id, Width::Is(5), 4),
        column(Col::Glyph, Width::Is(1), 0),
        column(Col::Kind, Width::Fit(6, if wide { 17 } else { 11 }), 0),
        column(
            Col::Where,
            Width::Fit(5, (usize::from(width) / 3).max(8)),
            3,
        ),
        column(Col::Text, Width::Rest(8), 2),
    ];
    let chosen = &model.lists.events.chosen;
    columns.retain(|column| chosen.get(&column.col) != Some(&false));
    columns
}

enum What<'a> {
    Event(EventKey, &'a Event),
    Folded(EventKey, usize),
    Mark(Time, &'a str),
    Rest(String),
}

struct EventRow<'a> {
    model: &'a Model,
    fine: bool,
    what: What<'a>,
}

impl EventRow<'_> {
    fn key(&self) -> Option<EventKey> {
        match &self.what {
            What::Event(key, _) | What::Folded(key, _) => Some(*key),
            What::Mark(..) | What::Rest(_) => None,
        }
    }
}

impl Row for EventRow<'_> {
    fn marked(&self) -> bool {
        let marked = &self.model.lists.events.marked;
        self.key().is_some_and(|key| marked.contains(&key))
    }

    fn across(&self) -> Option<Line<'static>> {
        let look = self.model.look;
        match &self.what {
            What::Event(..) | What::Folded(..) => None,
            What::Mark(at, mark) => {
                let time = words::clock(*at, &self.model.zone);
                let rule = look.rule();
                let text = format!(" {time} {rule} {mark} {rule}");
                Some(Line::styled(text, look.style(Role::Warn)))
            }
            What::Rest(text) => Some(Line::raw(format!("    {text}"))),
        }
    }

    fn cell(&self, col: Col) -> Cell<'_> {
        let look = self.model.look;
        let dim = look.style(Role::Dim);
        let event = match &self.what {
            What::Event(_, event) => event,
            What::Folded(key, count) => return folded(self.model, *key, *count, col),
            What::Mark(..) | What::Rest(_) => return cell("", dim),
        };
        let (glyph, role) = kind(look, &event.word);
        match col {
            Col::Time if self.fine => cell(words::clock_fine(event.time, &self.model.zone), dim),
            Col::Time => cell(words::clock(event.time, &self.model.zone), dim),
            Col::Id => {
                let id = event.job.map(|id| words::prefix(&self.model.fleet, id));
                cell(id.unwrap_or_default(), dim)
            }
            Col::Glyph => cell(glyph, look.calm(role)),
            Col::Kind => cell(short(&event.word), look.calm(role)),
            Col::Where => {
                let machine = event.machine.as_ref().map_or("-", |m| m.as_str());
                cell(machine, look.style(Role::Plain))
            }
            Col::Text => cell(event.text.as_str(), dim),
            _ => cell("", dim),
        }
    }
}

/// Routine events that are one row.
fn folded(model: &Model, key: EventKey, count: usize, col: Col) -> Cell<'static> {
    let look = model.look;
    let dim = look.style(Role::Dim);
    match col {
        Col::Time => cell(words::clock(key.stored, &model.zone), dim),
        Col::Glyph => cell(look.ellipsis(), dim),
        Col::Kind => cell("folded", dim),
        Col::Text => {
            let count = text::thousands(count as u64);
            cell(format!("{count} routine events, Enter shows them"), dim)
        }
        _ => cell("", dim),
    }
}

/// The machine stands beside it: `machine.lost` is `lost`.
fn short(word: &str) -> &str {
    word.strip_prefix("machine.").unwrap_or(word)
}

/// The glyph and the look of a kind.
pub(crate) fn kind(look: Look, word: &str) -> (&'static str, Role) {
    use fleet_contract::machine::MachineState;
    if let Some(state) = StateWord::from_word(word) {
        return look.job(state);
    }
    let machine = |state| look.machine(state);
    match word {
        "claimed" => look.job(StateWord::Running),
        "cancel_requested" => (look.job(StateWord::Canceled).0, Role::Warn),
        "resolved" => look.job(StateWord::Succeeded),
        "machine.up" | "machine.recovered" | "link.healed" => machine(MachineState::Up),
        "machine.degraded" => machine(MachineState::Degraded),
        "machine.lost" => machine(MachineState::Lost),
        "machine.offline" => machine(MachineState::Offline),
        word => match word.rsplit('.').next().unwrap_or(word) {
            "void" | "malformed" | "server_restarted" => (look.alarm(), Role::Bad),
            "superseded" | "lease_taken" => (look.alarm(), Role::Warn),
            _ => (look.dot(), Role::Plain),
        },
    }
}

/// One event in a line of a detail: time, glyph, word, the rest.
fn told(model: &Model, event: &Event, who: Option<String>) -> Line<'static> {
    let look = model.look;
    let (glyph, role) = kind(look, &event.word);
    let style = look.calm(role);
    let time = words::clock(event.time, &model.zone);
    let word = text::escape(short(&event.word)).into_owned();
    let who = who.map_or(String::new(), |who| format!("{} ", text::escape(&who)));
    let text = text::escape(&event.text).into_owned();
    Line::from(vec![
        Span::styled(format!(" {time} "), look.style(Role::Dim)),
        Span::styled(format!("{glyph} "), style),
        Span::styled(word, style),
        Span::raw(format!(" {who}")),
        Span::styled(text, look.style(Role::Dim)),
    ])
}

/// The last events of a job, newest first.
pub(super) fn of_job(model: &Model, job: &Job, most: usize) -> Vec<Line<'static>> {
    let events = model.fleet.events().values().rev();
    events
        .filter(|event| event.job == Some(job.id))
        .take(most)
        .map(|event| {
            let machine = event.machine.as_ref().map(ToString::to_string);
            told(model, event, machine)
        })
        .collect()
}

/// The last events of a machine, newest first, as far as they are among the last of all.
pub(super) fn of_machine(model: &Model, id: &MachineId, most: usize) -> Vec<Line<'static>> {
    let events = model.fleet.events().values().rev().take(LOOK_AT);
    events
        .filter(|event| event.machine.as_ref() == Some(id))
        .take(most)
        .map(|event| {
            let name = |id| model.fleet.job(id).map_or(String::new(), words::title);
            let job = event.job;
            let job = job.map(|id| format!("{} {} ", words::prefix(&model.fleet, id), name(id)));
            told(model, event, job)
        })
        .collect()
}

/// The jobs that ended on a machine last, as far as they are among the last events of all.
pub(super) fn ended_on<'a>(model: &'a Model, id: &MachineId, most: usize) -> Vec<&'a Job> {
    let mut seen: Vec<JobId> = Vec::new();
    let events = model.fleet.events().values().rev().take(LOOK_AT);
    for event in events.filter(|event| event.machine.as_ref() == Some(id)) {
        let ended = StateWord::from_word(&event.word).is_some_and(StateWord::is_terminal);
        if let (true, Some(job)) = (ended, event.job)
            && !seen.contains(&job)
        {
            seen.push(job);
        }
        if seen.len() > most {
            break;
        }
    }
    let jobs = seen.into_iter().filter_map(|id| model.fleet.job(id));
    jobs.filter(|job| job.state.word().is_terminal()).collect()
}
