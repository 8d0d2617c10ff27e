//! `fleet review`: what needs a person, why, and what to type about it.

use fleet_contract::job::Job;
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use fleet_contract::view::JobView;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::escape::one_line;
use crate::output::jobs::{ran_words, state_words};
use crate::output::style::Paint;
use crate::output::{Answer, Look};
use crate::{read, words};

/// Why a job needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    /// It waits for an answer.
    NeedsHuman,
    /// Nobody knows how it ended.
    Lost,
    /// More than one attempt ran.
    TwoRan,
    /// An attempt had run on after its end.
    HadRunOn,
}

#[derive(Debug, Serialize)]
struct Entry {
    why: Vec<Why>,
    question: Option<String>,
    since: Time,
    commands: Vec<String>,
    job: JobView,
}

impl Entry {
    fn of(job: &Job) -> Option<Self> {
        let view = JobView::of(job);
        let mut why = Vec::new();
        match view.state {
            StateWord::NeedsHuman => why.push(Why::NeedsHuman),
            StateWord::Lost => why.push(Why::Lost),
            _ => {}
        }
        match (view.unacknowledged, view.two_ran) {
            (false, _) => {}
            (true, true) => why.push(Why::TwoRan),
            (true, false) => why.push(Why::HadRunOn),
        }
        why.first()?;
        Some(Self {
            commands: commands(&view, &why),
            question: view.reason.clone(),
            since: job.changed_at,
            job: view,
            why,
        })
    }
}

/// What can be typed about it.
fn commands(job: &JobView, why: &[Why]) -> Vec<String> {
    let id = job.id;
    let mut all = Vec::new();
    if why.contains(&Why::NeedsHuman) || why.contains(&Why::Lost) {
        all.extend(["succeeded", "failed"].map(|to| format!("fleet resolve {id} {to}")));
        all.insert(0, format!("fleet retry {id}"));
    }
    if why.contains(&Why::NeedsHuman) {
        all.push(format!("fleet cancel {id}"));
    }
    if why.contains(&Why::TwoRan) || why.contains(&Why::HadRunOn) {
        all.push(format!("fleet ack {id}"));
    }
    all.push(format!("fleet logs {id}"));
    all
}

/// Everything that needs a person, the worst first, and in that the longest.
struct Review(Vec<Entry>);

impl Answer for Review {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        if self.0.is_empty() {
            return "nothing needs you\n".to_owned();
        }
        let mut text: String = self.0.iter().map(|entry| block(entry, look)).collect();
        let count = words::count(self.0.len() as u64, "job");
        let verb = if self.0.len() == 1 { "needs" } else { "need" };
        text.push_str(&format!("{count} {verb} you\n"));
        text
    }
}

fn block(entry: &Entry, look: &Look) -> String {
    let job = &entry.job;
    let state = Paint::of_job(job.state).on(&state_words(job), look.color);
    let place = job.machine.as_ref();
    let place = place.map_or_else(String::new, |machine| format!(" on {machine}"));
    let title = one_line(&job.title());
    let since = look.time(entry.since);
    let mut text = format!("{state}  {title}{place}, {since}\n");
    if let Some(question) = &entry.question {
        text.push_str(&format!("  {}\n", one_line(question)));
    }
    for told in &job.superseded {
        if told.acknowledged_by.is_none() {
            text.push_str(&format!("  {}\n", ran_words(told, look)));
        }
    }
    for command in &entry.commands {
        text.push_str(&format!("    {command}\n"));
    }
    text.push('\n');
    text
}

/// Shows what needs a person.
pub(crate) async fn run(cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let all = read::all(&bus).await?;
    let mut entries: Vec<Entry> = all.iter().filter_map(Entry::of).collect();
    entries.sort_by(|a, b| (a.why.first(), a.since).cmp(&(b.why.first(), b.since)));
    cx.show(&Review(entries))?;
    Ok(0)
}
