//! What the lists show: which rows, in which order, which of them are marked, and where each list
//! stands on the screen. The order of the fleet itself is lazy; what a filter or another order
//! makes of it is kept here, and made anew a few times a second at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::job::Job;
use fleet_contract::machine::MachineState;
use fleet_contract::projection::{EventKey, Machine};
use fleet_contract::time::Time;

use crate::columns::{self, Col};
use crate::drawn::Pick;
use crate::filter::{Filter, Sieve};
use crate::model::{Model, Pane};
use crate::text;

/// Rows that a filter or an order made are not made anew sooner, unless the person does something.
const REFRESH: Duration = Duration::from_millis(250);
/// So many events in a row that are routine are folded.
const FOLD_FROM: usize = 3;

/// One list.
#[derive(Debug, Clone)]
pub(crate) struct List<K> {
    /// What is let through.
    pub(crate) filter: Option<Filter>,
    /// The last filter that there was.
    pub(crate) last: Option<Filter>,
    /// The column whose order holds; none is the list's own order.
    pub(crate) sort: Option<Col>,
    /// Whether the order is turned round.
    pub(crate) reverse: bool,
    /// Columns that the person asked for, or wants left out.
    pub(crate) chosen: BTreeMap<Col, bool>,
    /// Rows that are marked.
    pub(crate) marked: BTreeSet<K>,
    /// Whether what is marked was marked all at once.
    starred: bool,
    /// How many rows are above the selected one on the screen.
    pub(crate) above: usize,
    /// The rows, where they are not simply those of the fleet.
    rows: Option<Vec<Row<K>>>,
}

/// A row; below an event those that were folded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<K> {
    /// What it shows.
    pub(crate) key: K,
    /// So many events are in this row; 0 where it is one event itself.
    pub(crate) folded: usize,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self {
            filter: None,
            last: None,
            sort: None,
            reverse: false,
            chosen: BTreeMap::new(),
            marked: BTreeSet::new(),
            starred: false,
            above: 0,
            rows: None,
        }
    }
}

impl<K: Ord + Clone> List<K> {
    /// Whether the rows are not simply those of the fleet.
    fn is_own(&self) -> bool {
        self.filter.is_some() || self.sort.is_some() || self.reverse
    }

    /// Sets the filter, or takes it away.
    pub(crate) fn set_filter(&mut self, filter: Option<Filter>) {
        if let Some(filter) = &filter {
            self.last = Some(filter.clone());
        }
        self.filter = filter;
    }

    /// Marks a row, or takes its mark away.
    pub(crate) fn mark(&mut self, key: K) {
        if !self.marked.remove(&key) {
            self.marked.insert(key);
        }
    }

    /// Marks all of these. Where all were marked, or some were marked all at once before, none:
    /// rows that came since do not keep the marks on.
    pub(crate) fn mark_all(&mut self, keys: Vec<K>) {
        let marked = |key: &K| self.marked.contains(key);
        let ends = keys.iter().all(marked) || self.starred && keys.iter().any(marked);
        self.starred = !ends;
        if ends {
            for key in &keys {
                self.marked.remove(key);
            }
        } else {
            self.marked.extend(keys);
        }
    }

    /// The order of the next column; after the last the list's own.
    pub(crate) fn next_sort(&mut self, pane: Pane) {
        let all = columns::of(pane).iter().filter(|col| col.sorts());
        let mut after = all.skip_while(|col| self.sort.is_some_and(|sort| **col != sort));
        self.sort = match self.sort {
            Some(_) => after.nth(1).copied(),
            None => after.next().copied(),
        };
        self.reverse = false;
    }
}

/// All lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    /// The dispatches.
    pub(crate) jobs: List<JobId>,
    /// The machines.
    pub(crate) machines: List<MachineId>,
    /// The events.
    pub(crate) events: List<EventKey>,
    /// Whether routine among the events is folded.
    pub(crate) fold: bool,
    stale: bool,
    made: Time,
}

impl Lists {
    /// What is kept here of the fleet is no longer true.
    pub(crate) fn spoil(&mut self) {
        self.stale = true;
    }

    fn any_own(&self) -> bool {
        self.jobs.is_own() || self.machines.is_own() || self.events.is_own() || self.fold
    }

    /// How long it is until the rows are made anew by themselves.
    pub(crate) fn wakes_in(&self, now: Time) -> Option<Duration> {
        let waits = self.stale && self.any_own();
        waits.then(|| REFRESH.saturating_sub(now.since(self.made)))
    }

    /// What the person chose of a pane's columns.
    pub(crate) fn chosen(&mut self, pane: Pane) -> Option<&mut BTreeMap<Col, bool>> {
        match pane {
            Pane::Machines => Some(&mut self.machines.chosen),
            Pane::Events => Some(&mut self.events.chosen),
            Pane::Dispatches => Some(&mut self.jobs.chosen),
            Pane::Bus | Pane::Inbox => None,
        }
    }

    /// Whether a pane's column is there, where there is room for it.
    pub(crate) fn has(&self, pane: Pane, col: Col) -> bool {
        let chosen = match pane {
            Pane::Machines => self.machines.chosen.get(&col),
            Pane::Events => self.events.chosen.get(&col),
            _ => self.jobs.chosen.get(&col),
        };
        chosen.copied().unwrap_or(columns::is_usual(col))
    }

    /// The filter of a pane.
    pub(crate) fn filter(&self, pane: Pane) -> Option<&Filter> {
        match pane {
            Pane::Machines => self.machines.filter.as_ref(),
            Pane::Events => self.events.filter.as_ref(),
            Pane::Dispatches => self.jobs.filter.as_ref(),
            Pane::Bus | Pane::Inbox => None,
        }
    }

    /// Sets the filter of a pane.
    pub(crate) fn set_filter(&mut self, pane: Pane, filter: Option<Filter>) {
        match pane {
            Pane::Machines => self.machines.set_filter(filter),
            Pane::Events => self.events.set_filter(filter),
            Pane::Dispatches => self.jobs.set_filter(filter),
            Pane::Bus | Pane::Inbox => {}
        }
    }
}

impl Model {
    /// Makes the rows of filtered and ordered lists anew, where they are stale and it is time, or
    /// where the person is waiting.
    pub(crate) fn refresh_lists(&mut self, at_once: bool) {
        let soon = self.clock.since(self.lists.made) >= REFRESH;
        if !self.lists.stale || !(at_once || soon) {
            return;
        }
        let mut sieve = None;
        let jobs = self.make_jobs(&mut sieve);
        let machines = self.make_machines(&mut sieve);
        let events = self.make_events(&mut sieve);
        let lists = &mut self.lists;
        (lists.jobs.rows, lists.machines.rows, lists.events.rows) = (jobs, machines, events);
        let fleet = &self.fleet;
        lists.jobs.marked.retain(|id| fleet.job(*id).is_some());
        let machines = fleet.machines();
        lists.machines.marked.retain(|id| machines.contains_key(id));
        let events = fleet.events();
        lists.events.marked.retain(|key| events.contains_key(key));
        lists.stale = false;
        lists.made = self.clock;
    }

    fn make_jobs(&self, sieve: &mut Option<Sieve>) -> Option<Vec<Row<JobId>>> {
        let list = &self.lists.jobs;
        if !list.is_own() {
            return None;
        }
        let at = self.as_of();
        let mut all: Vec<&Job> = self.fleet.worst_first(at).collect();
        if let Some(filter) = &list.filter {
            let sieve = sieve.get_or_insert_with(Sieve::new);
            all.retain(|job| sieve.job(filter, job, self.now));
        }
        if let Some(col) = list.sort {
            columns::sort_jobs(&mut all, col, self.now);
        }
        Some(rows(list, all.into_iter().map(|job| job.id)))
    }

    fn make_machines(&self, sieve: &mut Option<Sieve>) -> Option<Vec<Row<MachineId>>> {
        let list = &self.lists.machines;
        if !list.is_own() {
            return None;
        }
        let at = self.as_of();
        let mut all = self.fleet.machines_worst_first(at);
        if let Some(filter) = &list.filter {
            let sieve = sieve.get_or_insert_with(Sieve::new);
            all.retain(|(_, machine)| sieve.machine(filter, machine, at));
        }
        if let Some(col) = list.sort {
            columns::sort_machines(&mut all, col, &self.fleet);
        }
        let names = all.into_iter().map(|(_, m)| m.presence.machine.clone());
        Some(rows(list, names))
    }

    fn make_events(&self, sieve: &mut Option<Sieve>) -> Option<Vec<Row<EventKey>>> {
        let lists = &self.lists;
        if !lists.fold && lists.events.filter.is_none() {
            return None;
        }
        let events = self.fleet.events().iter().rev();
        let mut kept: Vec<(EventKey, bool)> = Vec::new();
        match &lists.events.filter {
            None => kept.extend(events.map(|(key, event)| (*key, is_routine(&event.word)))),
            Some(filter) => {
                let sieve = sieve.get_or_insert_with(Sieve::new);
                for (key, event) in events {
                    let job = event.job.and_then(|id| self.fleet.job(id));
                    let title = job.map(|job| job.spec.title());
                    if sieve.event(filter, event, title.as_deref(), self.now) {
                        // Who looks for something does not want it folded.
                        kept.push((*key, false));
                    }
                }
            }
        }
        Some(fold(&kept, lists.fold))
    }

    /// The jobs that the list shows, in its order.
    pub(crate) fn jobs_shown(&self) -> impl Iterator<Item = &Job> {
        self.jobs_shown_from(0)
    }

    /// The jobs that the list shows without the first ones, at which nobody looks.
    pub(crate) fn jobs_shown_from(&self, first: usize) -> impl Iterator<Item = &Job> {
        let ids = self.job_ids_shown().skip(first);
        ids.filter_map(|id| self.fleet.job(id))
    }

    /// Their ids.
    pub(crate) fn job_ids_shown(&self) -> Box<dyn Iterator<Item = JobId> + '_> {
        match &self.lists.jobs.rows {
            Some(rows) => Box::new(rows.iter().map(|row| row.key)),
            None => Box::new(self.fleet.worst_first_ids(self.as_of())),
        }
    }

    /// How many jobs the list shows.
    pub(crate) fn jobs_count(&self) -> usize {
        let all = self.fleet.jobs().len();
        self.lists.jobs.rows.as_ref().map_or(all, Vec::len)
    }

    /// The machines that the list shows, in its order.
    pub(crate) fn machines_shown(&self) -> Box<dyn Iterator<Item = (MachineState, &Machine)> + '_> {
        let at = self.as_of();
        match &self.lists.machines.rows {
            Some(rows) => {
                let machines = self.fleet.machines();
                let known = rows.iter().filter_map(move |row| machines.get(&row.key));
                Box::new(known.map(move |machine| (machine.state(at), machine)))
            }
            None => Box::new(self.fleet.worst_machines(at)),
        }
    }

    /// How many machines the list shows.
    pub(crate) fn machines_count(&self) -> usize {
        let all = self.fleet.machines().len();
        self.lists.machines.rows.as_ref().map_or(all, Vec::len)
    }

    /// The events that the list shows, newest first.
    pub(crate) fn events_shown(&self) -> Box<dyn Iterator<Item = Row<EventKey>> + '_> {
        match &self.lists.events.rows {
            Some(rows) => {
                let events = self.fleet.events();
                let known = rows.iter().filter(|row| events.contains_key(&row.key));
                Box::new(known.copied())
            }
            None => {
                let keys = self.fleet.events().keys().rev();
                Box::new(keys.map(|key| Row {
                    key: *key,
                    folded: 0,
                }))
            }
        }
    }

    /// What a list's title says of its order, its filter and its marks: `/m:forge · 2 marked`.
    pub(crate) fn list_notes(&self, pane: Pane) -> String {
        let lists = &self.lists;
        let (sort, reverse, marked) = match pane {
            Pane::Machines => {
                let list = &lists.machines;
                (list.sort, list.reverse, list.marked.len())
            }
            Pane::Events => (None, false, lists.events.marked.len()),
            Pane::Dispatches => (lists.jobs.sort, lists.jobs.reverse, lists.jobs.marked.len()),
            Pane::Bus | Pane::Inbox => return String::new(),
        };
        let order = match (pane, sort, reverse) {
            (Pane::Events, ..) => "newest first".to_owned(),
            (_, None, false) => "worst first".to_owned(),
            (_, None, true) => "best first".to_owned(),
            (_, Some(col), turned) => {
                let name = col.name().to_lowercase();
                format!("by {name}{}", if turned { ", turned" } else { "" })
            }
        };
        let dot = self.look.dot();
        let mut notes = order;
        if let Some(note) = self.filter_note(pane) {
            notes.push_str(&format!(" {dot} {note}"));
        }
        if marked > 0 {
            let marked = text::thousands(marked as u64);
            notes.push_str(&format!(" {dot} {marked} marked"));
        }
        notes
    }

    /// What a pane's filter hides, and the filter; none without one. The number comes first: a
    /// title is cut from the right.
    pub(crate) fn filter_note(&self, pane: Pane) -> Option<String> {
        let filter = self.lists.filter(pane)?;
        let hidden = text::thousands(self.hidden(pane) as u64);
        let text = text::escape(&filter.text);
        Some(format!("hides {hidden}: /{text}"))
    }

    /// How many rows a pane's filter hides.
    pub(crate) fn hidden(&self, pane: Pane) -> usize {
        match pane {
            Pane::Dispatches => self.fleet.jobs().len().saturating_sub(self.jobs_count()),
            Pane::Machines => {
                let all = self.fleet.machines().len();
                all.saturating_sub(self.machines_count())
            }
            Pane::Events if self.lists.events.filter.is_some() => {
                let all = self.fleet.events().len();
                let shown = self.lists.events.rows.as_ref().map_or(all, Vec::len);
                all.saturating_sub(shown)
            }
            Pane::Events | Pane::Bus | Pane::Inbox => 0,
        }
    }

    /// The selected job.
    pub(crate) fn selected_job(&self) -> Option<JobId> {
        if let Some(pick) = self.drawn.hand(Pane::Dispatches) {
            return match pick {
                Some(Pick::Job(id)) => Some(*id),
                _ => None,
            };
        }
        let shown = |id: &JobId| match &self.lists.jobs.rows {
            Some(rows) => rows.iter().any(|row| row.key == *id),
            None => true,
        };
        let kept = self.job.filter(|id| self.fleet.job(*id).is_some());
        let kept = kept.filter(shown);
        kept.or_else(|| self.jobs_shown().next().map(|j| j.id))
    }

    /// The selected machine.
    pub(crate) fn selected_machine(&self) -> Option<MachineId> {
        if let Some(pick) = self.drawn.hand(Pane::Machines) {
            return match pick {
                Some(Pick::Machine(id)) => Some(id.clone()),
                _ => None,
            };
        }
        let shown = |id: &MachineId| match &self.lists.machines.rows {
            Some(rows) => rows.iter().any(|row| row.key == *id),
            None => true,
        };
        let kept = self.machine.clone();
        kept.filter(|id| self.fleet.machines().contains_key(id))
            .filter(shown)
            .or_else(|| {
                let worst = self.machines_shown().next();
                worst.map(|(_, m)| m.presence.machine.clone())
            })
    }

    /// The selected event, or the row of folded ones that it is in.
    pub(crate) fn selected_event(&self) -> Option<EventKey> {
        if let Some(pick) = self.drawn.hand(Pane::Events) {
            return match pick {
                Some(Pick::Event(key)) => Some(*key),
                _ => None,
            };
        }
        let newest = || self.events_shown().next().map(|row| row.key);
        let Some(wanted) = self.event else {
            return newest();
        };
        match &self.lists.events.rows {
            // Rows are newest first: of those not newer than it the first is or holds it.
            Some(rows) => {
                let at = rows.partition_point(|row| row.key > wanted);
                let here = rows.get(at).filter(|row| row.key == wanted);
                let before = at.checked_sub(1).and_then(|at| rows.get(at));
                let before = before.filter(|row| row.folded > 0);
                let row = here.or(before).or(rows.get(at)).or(rows.last());
                row.map(|row| row.key)
            }
            // One that is no longer kept: the oldest that is.
            None => {
                let mut kept = self.fleet.events().range(wanted..);
                kept.next().map(|(key, _)| *key).or_else(newest)
            }
        }
    }
}

fn rows<K>(list: &List<K>, keys: impl DoubleEndedIterator<Item = K>) -> Vec<Row<K>> {
    let row = |key| Row { key, folded: 0 };
    match list.reverse {
        true => keys.rev().map(row).collect(),
        false => keys.map(row).collect(),
    }
}

/// What happens all the time where all is well.
fn is_routine(word: &str) -> bool {
    matches!(word, "queued" | "claimed" | "succeeded" | "hub.job_purged")
}

/// Rows of many routine events in a row become one.
fn fold(events: &[(EventKey, bool)], wanted: bool) -> Vec<Row<EventKey>> {
    let mut rows = Vec::new();
    let mut rest = events;
    while let Some((key, _)) = rest.first() {
        let routine = rest.iter().take_while(|(_, routine)| *routine).count();
        let (take, folded) = match routine {
            FOLD_FROM.. if wanted => (routine, routine),
            _ => (1, 0),
        };
        rows.push(Row { key: *key, folded });
        rest = &rest[take..];
    }
    rows
}
