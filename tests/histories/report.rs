//! What came of one history or of several: what was done, what was checked, and how long each kind
//! of fault stayed unnoticed.

use std::collections::BTreeMap;
use std::fmt::Write;

use fleet_contract::event::kind;
use serde::{Deserialize, Serialize};

use crate::history::{History, Injected};
use crate::schedule::{Fault, SHIFTY};
use crate::watch::Look;

/// Later than this after its end a fault is not noticed any more, but another.
const LATE: f64 = 15.0;

/// One history in figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Seconds of it.
    pub(crate) faults_for: f64,
    pub(crate) rest_after: f64,
    pub(crate) calls: u64,
    pub(crate) acknowledged: u64,
    pub(crate) jobs: u64,
    pub(crate) attempts: u64,
    pub(crate) begun: u64,
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Attempts that were lost, and that ran beside another.
    pub(crate) lost: u64,
    pub(crate) overlaps: u64,
    /// Each fault, and after how many seconds it was told first.
    pub(crate) faults: Vec<(String, Option<f64>)>,
    pub(crate) states: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
}

/// What tells a fault: kinds of event, states of the machine, causes of its being degraded.
fn signs(
    fault: Fault,
) -> (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
) {
    const GONE: &[&str] = &["stale", "lost"];
    const CUT: &[&str] = &[kind::LINK_LOST, kind::MACHINE_LOST];
    match fault {
        Fault::ServerKilled | Fault::ServerFrozen => {
            (&[kind::HUB_SERVER_RESTARTED, kind::LINK_LOST], &[], &[])
        }
        Fault::HubKilled => (&[kind::LINK_LOST], &[], &[]),
        Fault::HubStopped => (&[kind::HUB_STOPPING, kind::LINK_LOST], &[], &[]),
        Fault::HubFrozen => (&[], &[], &[]),
        Fault::AgentStopped => (&[kind::MACHINE_OFFLINE], &["offline", "draining"], &[]),
        Fault::AgentKilled | Fault::AgentFrozen | Fault::MachineCrashed | Fault::MachineFrozen => {
            (&[kind::MACHINE_LOST], GONE, &[])
        }
        Fault::ExecutorKilled => (&[kind::EXECUTOR_STARTED], &[], &["Executor"]),
        Fault::ExecutorFrozen => (&[], &[], &["Executor"]),
        Fault::CableCut
        | Fault::ProxyClosed
        | Fault::ProxyReset
        | Fault::ProxyStalled
        | Fault::ProxyHalfOpen
        | Fault::ProxyCutInMessage => (CUT, GONE, &[]),
        Fault::ProxySlow => (&[], GONE, &["RoundTrip"]),
        Fault::DiskFull => (&[], &[], &["EventsDropped", "DroppedLog"]),
        Fault::ClockForth | Fault::ClockBack => (&[], &[], &["ClockOffset"]),
    }
}

/// After how many seconds a fault was told first.
fn noticed(injected: &Injected, history: &History, looks: &[Look]) -> Option<f64> {
    let fault = Fault::named(&injected.fault)?;
    let (kinds, states, causes) = signs(fault);
    let until = injected.to.unwrap_or(f64::MAX) + LATE;
    let here = |machine: &str| injected.machine.as_deref().is_none_or(|m| m == machine);
    let events = history.flow.iter().filter(|event| {
        kinds.contains(&event.kind.as_str()) && event.machine.as_deref().is_none_or(here)
    });
    // One machine's own clock is not to be trusted.
    let events = events.map(|event| match event.writer.as_str() {
        SHIFTY => event.stored,
        _ => event.happened,
    });
    let looks = looks.iter().filter(|look| {
        here(&look.machine)
            && (states.contains(&look.state.as_str())
                || look.causes.iter().any(|c| causes.contains(&c.as_str())))
    });
    let looks = looks.map(|look| look.at);
    let after = events
        .chain(looks)
        .filter(|at| *at >= injected.from && *at <= until);
    let first = after.fold(f64::MAX, f64::min);
    (first < f64::MAX).then_some(first - injected.from)
}

impl Report {
    /// Counts a history.
    pub(crate) fn count(&mut self, history: &History, looks: &[Look]) {
        self.acknowledged = history.acknowledged.len() as u64;
        self.records = history.journal.len() as u64;
        self.events = history.flow.len() as u64;
        self.begun = history.effects.iter().filter(|e| is_begin(e)).count() as u64;
        self.overlaps = history
            .effects
            .iter()
            .filter(|e| matches!(e.what, crate::history::Did::Begin { beside: true }))
            .count() as u64;
        for logs in history.logs.values() {
            self.chunks += logs.chunks.len() as u64;
            self.bytes += logs
                .chunks
                .iter()
                .map(|c| c.bytes.len() as u64)
                .sum::<u64>();
        }
        let mut ids = std::collections::BTreeSet::new();
        for entry in &history.journal {
            ids.insert(entry.job);
            let Ok((_, record)) = &entry.record else {
                continue;
            };
            match record.change.kind() {
                "job.claimed" => self.attempts += 1,
                "job.lost" => self.lost += 1,
                _ => {}
            }
        }
        self.jobs = ids.len() as u64;
        let mut seen = std::collections::BTreeSet::new();
        for job in &history.shown {
            if seen.insert(job["id"].as_str()) {
                let state = job["state"].as_str().unwrap_or("?");
                *self.states.entry(state.to_owned()).or_default() += 1;
            }
        }
        for injected in &history.injected {
            let after = noticed(injected, history, looks);
            self.faults.push((injected.fault.clone(), after));
        }
    }
}

fn is_begin(effect: &crate::history::Effect) -> bool {
    matches!(effect.what, crate::history::Did::Begin { .. })
}

/// Several histories as one table.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let _ = writeln!(
        text,
        "{} histories checked: {} jobs ({} acknowledged by {} calls), {} claims, {} begun, {} lost \
         with their machine, {} beside a frozen one",
        reports.len(),
        sum(|r| r.jobs),
        sum(|r| r.acknowledged),
        sum(|r| r.calls),
        sum(|r| r.attempts),
        sum(|r| r.begun),
        sum(|r| r.lost),
        sum(|r| r.overlaps),
    );
    let _ = writeln!(
        text,
        "{} records, {} events, {} chunks of {} bytes compared",
        sum(|r| r.records),
        sum(|r| r.events),
        sum(|r| r.chunks),
        sum(|r| r.bytes)
    );
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for (state, count) in reports.iter().flat_map(|r| &r.states) {
        *states.entry(state).or_default() += count;
    }
    let states: Vec<String> = states.iter().map(|(s, n)| format!("{n} {s}")).collect();
    let _ = writeln!(text, "ended: {}", states.join(", "));
    let _ = writeln!(
        text,
        "{:<24}{:>6}{:>9}{:>10}{:>10}{:>10}",
        "fault", "times", "noticed", "first", "half", "last"
    );
    for fault in Fault::ALL {
        let all = reports.iter().flat_map(|r| &r.faults);
        let all: Vec<Option<f64>> = all
            .filter(|(name, _)| name == fault.name())
            .map(|(_, after)| *after)
            .collect();
        let mut times: Vec<f64> = all.iter().copied().flatten().collect();
        times.sort_by(f64::total_cmp);
        let at = |share: usize| match times.len() {
            0 => "-".to_owned(),
            n => format!("{:.2} s", times[(n - 1) * share / 2]),
        };
        let _ = writeln!(
            text,
            "{:<24}{:>6}{:>9}{:>10}{:>10}{:>10}",
            fault.name(),
            all.len(),
            times.len(),
            at(0),
            at(1),
            at(2)
        );
    }
    for report in reports {
        let _ = writeln!(
            text,
            "seed {}: {:.0} s of faults, at rest {:.0} s later, {} violations",
            report.seed,
            report.faults_for,
            report.rest_after,
            report.violations.len()
        );
    }
    text
}
