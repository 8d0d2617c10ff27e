//! Events: each writer's are there in order, once and without a hole, and all of them are shown.

use std::collections::{BTreeMap, BTreeSet};

use fleet_contract::event::kind::{MACHINE_LOAD, SPOOL_DAMAGED, SPOOL_DROPPED};
use fleet_nats::subject::HUB;

use super::{Findings, Rule};
use crate::history::History;
use crate::schedule::CRAMPED;

pub(super) fn check(history: &History, found: &mut Findings) {
    order(history, found);
    for event in &history.flow {
        let lossy = [SPOOL_DROPPED, SPOOL_DAMAGED].contains(&event.kind.as_str());
        if lossy && event.writer != CRAMPED {
            found.add(Rule::Flow, format!("without a reason: {event:?}"));
        }
    }
    shown(history, found);
}

fn order(history: &History, found: &mut Findings) {
    let mut last: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &history.flow {
        let run = (event.writer.as_str(), event.boot.as_str());
        let before = last.insert(run, event.seq).unwrap_or(0);
        // What the hub could not store while its server was away is missing: it has no spool.
        let hole = event.writer != HUB && event.seq > before + 1;
        if event.seq <= before || hole {
            let text = format!("after {before} of its run comes {event:?}");
            found.add(Rule::Flow, text);
        }
        // Two of the hub's parts tell, each with a count of its own.
        if event.writer == HUB {
            continue;
        }
        let order = runs.entry(&event.writer).or_default();
        if order.last() != Some(&event.boot.as_str()) {
            if order.contains(&event.boot.as_str()) {
                found.add(Rule::Flow, format!("an earlier run goes on: {event:?}"));
            }
            order.push(&event.boot);
        }
    }
}

fn shown(history: &History, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for id in &history.shown_flow {
        if !seen.insert(id.as_str()) {
            found.add(Rule::Flow, format!("event {id} is shown twice"));
        }
    }
    let told = history.flow.iter().filter(|e| e.kind != MACHINE_LOAD);
    let told = told.map(|event| event.id.as_str());
    let records = history.journal.iter().filter_map(|entry| {
        let (header, _) = entry.record.as_ref().ok()?;
        Some(header.id.as_str())
    });
    for id in told.chain(records) {
        if !seen.contains(id) {
            found.add(Rule::Flow, format!("event {id} is not shown"));
        }
    }
}
