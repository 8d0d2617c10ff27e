//! Where a job may run and why: a line for each machine, and what a waiting job waits for.

use std::fmt::Write;
use std::time::Duration;

use fleet_contract::ids::{JobId, MachineId};
use fleet_contract::needs::Standing;
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use fleet_nats::operate::{Candidate, Placement};
use serde::Serialize;

use super::escape::one_line;
use super::style::Paint;
use super::table::{Cell, Column, Table};
use super::{Answer, Look};
use crate::words;

/// The job that is explained.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) id: JobId,
    pub(crate) title: String,
    pub(crate) state: StateWord,
    /// Where it runs, or ran last.
    pub(crate) machine: Option<MachineId>,
    pub(crate) submitted_at: Time,
}

/// A job that has a slot on a machine that could run the one that waits.
#[derive(Debug, Serialize)]
pub(crate) struct Holder {
    pub(crate) job: JobId,
    pub(crate) machine: MachineId,
    pub(crate) title: String,
    pub(crate) since: Time,
}

/// Where a job may run and why.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<Told>,
    /// The only machine it may run on.
    pub(crate) pin: Option<MachineId>,
    /// What it needs, in canonical form.
    pub(crate) needs: String,
    /// The machines it would rather run on.
    pub(crate) prefer: Option<String>,
    #[serde(flatten)]
    pub(crate) placement: Placement,
    /// Who has had the slots for longest.
    pub(crate) holders: Vec<Holder>,
}

impl Answer for Explained {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<9}{}", one_line(value));
        };
        if let Some(job) = &self.job {
            line("job", &format!("{} {}", job.id, job.title));
            let at = match (&job.machine, job.state) {
                (Some(machine), state) if state != StateWord::Queued => format!(" on {machine}"),
                _ => String::new(),
            };
            line("state", &format!("{}{at}", job.state));
        }
        if let Some(pin) = &self.pin {
            line("on", pin.as_str());
        }
        if !self.needs.is_empty() {
            line("needs", &self.needs.replace(',', ", "));
        }
        if let Some(prefer) = &self.prefer {
            line("prefers", prefer);
        }
        match &self.job {
            Some(job) if job.state == StateWord::Queued => {
                line("waits", &waits_for(&self.placement))
            }
            None => line("then", &waits_for(&self.placement)),
            Some(_) => {}
        }
        for holder in &self.holders {
            let since = look.time(holder.since);
            let line = format!(
                "{} {} on {}, since {since}",
                holder.job, holder.title, holder.machine
            );
            let _ = writeln!(text, "{:<9}{}", "runs", one_line(&line));
        }
        if !self.placement.candidates.is_empty() {
            text.push('\n');
            text.push_str(&candidates(&self.placement.candidates, look));
        }
        text
    }
}

/// Every machine and how it stands to a job.
pub(crate) fn candidates(all: &[Candidate], look: &Look) -> String {
    let mut table = Table::new(&[
        Column::new("MACHINE").shrinks(8),
        Column::new("STATE"),
        Column::new("MAY IT").shrinks(12),
        Column::new("MEASURED").right().may_go(1),
    ]);
    for candidate in all {
        let (paint, words) = verdict(&candidate.standing);
        let age = words::span(Duration::from_millis(candidate.age_ms)) + " ago";
        table.row(vec![
            Cell::new(candidate.machine.as_str()),
            Cell::painted(candidate.state.as_str(), Paint::of_machine(candidate.state)),
            Cell::painted(words, paint),
            Cell::new(age),
        ]);
    }
    table.render(look.width, look.color)
}

fn verdict(standing: &Standing) -> (Paint, String) {
    match standing {
        Standing::Ready { free } => (
            Paint::Good,
            format!("yes, {} free", words::count(u64::from(*free), "slot")),
        ),
        Standing::Full { slots } => {
            let slots = words::count(u64::from(*slots), "slot");
            (Paint::Warn, format!("yes, when one of its {slots} is free"))
        }
        Standing::Held(held) => (Paint::Warn, format!("yes, but not now: {held}")),
        Standing::Away => (Paint::Warn, "yes, but it takes no work now".to_owned()),
        Standing::Lacks { first, lacks: 1 } => (Paint::Bad, format!("no: {first}")),
        Standing::Lacks { first, lacks } => {
            (Paint::Bad, format!("no: {first}; and {} more", lacks - 1))
        }
        Standing::Elsewhere => (Paint::Dim, "no: the job is for another machine".to_owned()),
    }
}

/// What a job that waits waits for.
fn waits_for(placement: &Placement) -> String {
    let count = |is: fn(&Standing) -> bool| {
        let all = placement.candidates.iter();
        u64::try_from(all.filter(|c| is(&c.standing)).count()).unwrap_or(u64::MAX)
    };
    let ready = count(|s| matches!(s, Standing::Ready { .. }));
    let full = count(|s| matches!(s, Standing::Full { .. }));
    let held = count(|s| matches!(s, Standing::Held(_)));
    let away = count(|s| matches!(s, Standing::Away));
    let machines = |n| words::count(n, "machine");
    if ready > 0 {
        return format!("{} could take it now", machines(ready));
    }
    let mut waits = Vec::new();
    if full > 0 {
        waits.push(format!("a free slot on {}", machines(full)));
    }
    if held > 0 {
        waits.push(format!("room on {}", machines(held)));
    }
    if waits.is_empty() && away > 0 {
        waits.push(format!("{} that take no work now", machines(away)));
    }
    match waits.as_slice() {
        [] if placement.candidates.is_empty() => "for a machine: none is known".to_owned(),
        [] => "for a machine that has what it needs: none is known".to_owned(),
        waits => format!("for {}", waits.join(", or ")),
    }
}
