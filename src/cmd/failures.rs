//! `fleet failures`: what failed lately, counted by machine, role and reason.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_contract::ids::JobId;
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use serde::Serialize;

use crate::args::decide::{By, Failures};
use crate::cmd::decide::known;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::escape::one_line;
use crate::output::jobs::{id_length, reason_words};
use crate::output::table::{Cell, Column, Table};
use crate::output::{Answer, Look};
use crate::{clock, prefix, read, words};

/// What jobs are counted under; what they are not counted by is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Key {
    machine: Option<String>,
    role: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Group {
    #[serde(flatten)]
    key: Key,
    failed: u64,
    /// Jobs that ended there in that time, the same machine and role, whatever their end.
    ended: u64,
    last: JobId,
    last_at: Time,
}

#[derive(Debug, Serialize)]
struct Counted {
    since_ms: u64,
    failed: u64,
    ended: u64,
    groups: Vec<Group>,
    #[serde(skip)]
    by: Vec<By>,
    #[serde(skip)]
    id_length: usize,
}

impl Answer for Counted {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let span = words::span(std::time::Duration::from_millis(self.since_ms));
        let total = format!(
            "{} of {} that ended in the last {span} failed\n",
            self.failed, self.ended
        );
        if self.groups.is_empty() {
            return total;
        }
        let mut columns = Vec::new();
        let mut names = Vec::new();
        for (by, name) in [
            (By::Machine, "MACHINE"),
            (By::Role, "ROLE"),
            (By::Reason, "REASON"),
        ] {
            if self.by.contains(&by) {
                columns.push(Column::new(name).shrinks(8));
                names.push(by);
            }
        }
        columns.push(Column::new("FAILED").right());
        columns.push(Column::new("OF").right());
        columns.push(Column::new("LAST").right());
        columns.push(Column::new("ID"));
        let mut table = Table::new(&columns);
        for group in &self.groups {
            let mut cells: Vec<Cell> = names
                .iter()
                .map(|by| {
                    Cell::maybe(match by {
                        By::Machine => group.key.machine.as_deref(),
                        By::Role => group.key.role.as_deref(),
                        By::Reason => group.key.reason.as_deref(),
                    })
                })
                .collect();
            cells.push(Cell::new(group.failed.to_string()));
            cells.push(Cell::new(group.ended.to_string()));
            cells.push(Cell::new(look.time(group.last_at)));
            cells.push(Cell::new(prefix::short(&group.last, self.id_length)));
            table.row(cells);
        }
        format!("{}{total}", table.render(look.width, look.color))
    }
}

/// Counts what failed.
pub(crate) async fn run(args: &Failures, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    if let Some(machine) = &args.machine {
        known(&bus, machine).await?;
    }
    let jobs: Vec<JobView> = read::all(&bus).await?.iter().map(JobView::of).collect();
    cx.show(&count(&jobs, args, clock::now()))?;
    Ok(0)
}

fn count(jobs: &[JobView], args: &Failures, now: Time) -> Counted {
    let by = match args.by.as_slice() {
        [] => vec![By::Machine, By::Role, By::Reason],
        given => given.to_vec(),
    };
    let recent = |job: &&JobView| {
        let within = |at: Time| now.since(at) <= args.since;
        let machine = args.machine.is_none() || args.machine == job.machine;
        machine && job.ended_at.is_some_and(within)
    };
    let mut ended: BTreeMap<Key, u64> = BTreeMap::new();
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    let (mut all, mut failed) = (0, 0);
    for job in jobs.iter().filter(recent) {
        all += 1;
        let mut key = key(job, &by);
        let reason = key.reason.take();
        *ended.entry(key.clone()).or_default() += 1;
        let Some(at) = job.ended_at.filter(|_| is_failure(job.state)) else {
            continue;
        };
        failed += 1;
        key.reason = reason;
        let group = groups.entry(key.clone()).or_insert(Group {
            key,
            failed: 0,
            ended: 0,
            last: job.id,
            last_at: at,
        });
        group.failed += 1;
        if at >= group.last_at {
            (group.last, group.last_at) = (job.id, at);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        let whole = Key {
            reason: None,
            ..group.key.clone()
        };
        group.ended = ended.get(&whole).copied().unwrap_or_default();
    }
    groups.sort_by(|a, b| b.failed.cmp(&a.failed).then_with(|| a.key.cmp(&b.key)));
    Counted {
        since_ms: u64::try_from(args.since.as_millis()).unwrap_or(u64::MAX),
        failed,
        ended: all,
        groups,
        by,
        id_length: id_length(jobs.iter().map(|job| &job.id)),
    }
}

fn is_failure(state: StateWord) -> bool {
    matches!(
        state,
        StateWord::Failed
            | StateWord::TimedOut
            | StateWord::Lost
            | StateWord::Rejected
            | StateWord::Expired
    )
}

fn key(job: &JobView, by: &[By]) -> Key {
    let machine = job.machine.as_ref().map(ToString::to_string);
    let asked = |by_this, value: Option<String>| value.filter(|_| by.contains(&by_this));
    Key {
        machine: asked(By::Machine, machine),
        role: asked(By::Role, Some(role(job))),
        reason: asked(By::Reason, Some(reason(job))),
    }
}

/// What it does, in a word: the program it runs.
fn role(job: &JobView) -> String {
    let first = job.command.first().map_or("", String::as_str);
    let word = first.split_whitespace().next().unwrap_or_default();
    let name = Path::new(word).file_name().and_then(|name| name.to_str());
    one_line(name.unwrap_or(word))
}

fn reason(job: &JobView) -> String {
    match job.state {
        StateWord::Failed | StateWord::Rejected => {
            reason_words(job).unwrap_or_else(|| job.state.to_string())
        }
        state => state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::jobs::tests::job;
    use std::time::Duration;

    fn args(by: &[By]) -> Failures {
        Failures {
            since: Duration::from_secs(3600),
            machine: None,
            by: by.to_vec(),
        }
    }

    #[test]
    fn failures_are_counted_beside_all_that_ended() {
        let now = Time::from_micros(1_060_000_000);
        let mut jobs: Vec<JobView> = (1..=3).map(|n| job(n, StateWord::Failed)).collect();
        jobs.push(job(4, StateWord::Succeeded));
        jobs.push(job(5, StateWord::TimedOut));
        jobs.push(job(6, StateWord::Canceled));
        jobs[2].machine = Some("mini".parse().unwrap());
        jobs[2].exit_code = Some(9);
        let counted = count(&jobs, &args(&[]), now);
        assert_eq!((counted.failed, counted.ended), (4, 6));
        let first = &counted.groups[0];
        assert_eq!(
            (first.failed, first.ended, first.key.reason.as_deref()),
            (2, 5, Some("exit 3"))
        );
        let by_machine = count(&jobs, &args(&[By::Machine]), now);
        let found: Vec<_> = by_machine
            .groups
            .iter()
            .map(|g| (g.key.machine.as_deref().unwrap(), g.failed, g.ended))
            .collect();
        assert_eq!(found, [("studio", 3, 5), ("mini", 1, 1)]);
        let later = now.plus(Duration::from_secs(7200));
        assert_eq!(count(&jobs, &args(&[]), later).ended, 0);
        assert_eq!(role(&jobs[0]), "echo");
    }
}
