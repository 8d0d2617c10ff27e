//! Jobs as tables, details and lines.

use std::fmt::Write;

use fleet_contract::ids::JobId;
use fleet_contract::record::StateWord;
use fleet_contract::spec::FromRole;
use fleet_contract::view::{AttemptView, JobView, SupersededView};

use super::escape::one_line;
use super::style::Paint;
use super::table::{Cell, Column, Table, clip};
use super::{Answer, Look};
use crate::{prefix, spooled, words};

const COLUMNS: [Column; 8] = [
    Column::new("ID"),
    Column::new("STATE"),
    Column::new("MACHINE").shrinks(8),
    Column::new("COMMAND").shrinks(12),
    Column::new("EXIT").right().may_go(1),
    Column::new("TIME").right().may_go(2),
    Column::new("DISPATCHED").right(),
    Column::new("BY").shrinks(6).may_go(3),
];

/// Several jobs, newest last.
pub(crate) struct JobList {
    /// The jobs to show.
    pub(crate) jobs: Vec<JobView>,
    /// Jobs that wait on this machine and that the hub has not heard of.
    pub(crate) spooled: Vec<JobView>,
    /// How many characters of an id tell the jobs apart, those not shown included.
    pub(crate) id_length: usize,
    /// How many more there are that the limit left out.
    pub(crate) left_out: usize,
}

impl Answer for JobList {
    fn json(&self) -> serde_json::Result<String> {
        let all: Vec<&JobView> = self.jobs.iter().chain(&self.spooled).collect();
        serde_json::to_string(&all)
    }

    fn text(&self, look: &Look) -> String {
        if self.jobs.is_empty() && self.spooled.is_empty() {
            return "no jobs\n".to_owned();
        }
        let mut table = Table::new(&COLUMNS);
        for job in &self.jobs {
            table.row(row(job, self.id_length, look));
        }
        for job in &self.spooled {
            let mut cells = row(job, self.id_length, look);
            cells[1] = Cell::painted(spooled::HERE, Paint::Warn);
            table.row(cells);
        }
        let mut text = table.render(look.width, look.color);
        if self.left_out > 0 {
            let _ = writeln!(
                text,
                "{} older ones are not shown: --limit 0",
                self.left_out
            );
        }
        text
    }
}

fn row(job: &JobView, id_length: usize, look: &Look) -> Vec<Cell> {
    let took = job
        .started_at
        .map(|start| words::span(job.ended_at.unwrap_or(look.now).since(start)));
    vec![
        Cell::new(prefix::short(&job.id, id_length)),
        Cell::painted(state_words(job), Paint::of_job(job.state)),
        Cell::maybe(job.machine.as_ref().map(|m| m.as_str())),
        Cell::new(numbered_title(job)),
        Cell::maybe(exit_words(job)),
        Cell::maybe(took),
        Cell::new(look.time(job.submitted_at)),
        Cell::new(&job.submitted_by),
    ]
}

/// The title, and which of a `--count` it is.
fn numbered_title(job: &JobView) -> String {
    match job.index {
        Some(index) => format!("{} #{index}", job.title()),
        None => job.title(),
    }
}

/// The state, and what of it a person must know at once.
pub(crate) fn state_words(job: &JobView) -> String {
    let mark = match (job.unacknowledged, job.two_ran) {
        (false, _) => "",
        (true, true) => ", two ran",
        (true, false) => ", had run on",
    };
    format!("{}{mark}", state_and_wish(job))
}

fn state_and_wish(job: &JobView) -> String {
    match (job.state, job.cancel_requested) {
        (StateWord::Running, true) => match &job.machine {
            Some(machine) => format!("running, cancel waits for {machine}"),
            None => "running, cancel waits".to_owned(),
        },
        (state, _) => state.to_string(),
    }
}

fn exit_words(job: &JobView) -> Option<String> {
    match (job.exit_code, job.signal) {
        (Some(code), _) => Some(code.to_string()),
        (None, Some(signal)) => Some(signal_name(signal)),
        (None, None) => None,
    }
}

/// Why it stands where it stands, in short: its exit, its question, its reason.
pub(crate) fn reason_words(job: &JobView) -> Option<String> {
    let exit = exit_words(job).filter(|_| job.state != StateWord::Succeeded);
    let exit = exit.map(|exit| match job.exit_code {
        Some(_) => format!("exit {exit}"),
        None => exit,
    });
    match (&job.reason, exit) {
        (Some(reason), _) => Some(one_line(reason)),
        (None, exit) => exit,
    }
}

/// A signal by the name people know it by.
pub(crate) fn signal_name(signal: u8) -> String {
    let name = match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return format!("signal {signal}"),
    };
    format!("SIG{name}")
}

/// One job with everything about it.
pub(crate) struct JobDetail(pub(crate) JobView);

impl Answer for JobDetail {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let job = &self.0;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(
                text,
                "{} {value}",
                Paint::Bold.on(&format!("{name:<12}"), look.color)
            );
        };
        line("job", job.id.as_str());
        if let Some(name) = &job.name {
            line("name", &one_line(name));
        }
        line(
            "state",
            &Paint::of_job(job.state).on(&state_words(job), look.color),
        );
        if let Some(exit) = exit_words(job) {
            line("exit", &exit);
        }
        if let Some(reason) = &job.reason {
            line("reason", &one_line(reason));
        }
        if let Some(resolved) = &job.resolved {
            let notes = resolved.notes.as_ref();
            let notes = notes.map_or_else(String::new, |notes| format!(": {notes}"));
            let when = look.time(resolved.at);
            line(
                "resolved",
                &one_line(&format!("by {} {when}{notes}", resolved.by)),
            );
        }
        if job.state == StateWord::NeedsHuman {
            line("next", &what_to_do(job));
        }
        for told in &job.superseded {
            line("also ran", &ran_words(told, look));
        }
        if job.unacknowledged {
            line("next", &to_acknowledge(job));
        }
        line("command", &command_line(job));
        if let Some(machine) = &job.machine {
            line("machine", machine.as_str());
        }
        if let Some(lane) = &job.lane {
            line("lane", lane.as_str());
        }
        if !job.needs.is_empty() {
            line("needs", &one_line(&job.needs.replace(',', ", ")));
        }
        if let Some(prefer) = &job.prefer {
            line("prefers", &one_line(prefer));
        }
        if let Some(cwd) = &job.cwd {
            line("folder", &one_line(cwd));
        }
        for (machine, cwd) in &job.cwd_on {
            line("", &one_line(&format!("on {machine} {cwd}")));
        }
        if let Some(role) = &job.role {
            line("role", &role_words(role));
        }
        for (key, value) in &job.tags {
            line("tag", &one_line(&format!("{key}={value}")));
        }
        if let Some(index) = job.index {
            line("index", &index.to_string());
        }
        line(
            "dispatched",
            &one_line(&format!(
                "{} by {}",
                look.time(job.submitted_at),
                job.submitted_by
            )),
        );
        if let Some(started) = job.started_at {
            line("started", &look.time(started));
        }
        if let Some(ended) = job.ended_at {
            line("ended", &look.time(ended));
        }
        text.push_str(&attempts(job, look));
        text
    }
}

/// A role with what was given for it.
fn role_words(role: &FromRole) -> String {
    let params = role
        .params
        .iter()
        .map(|(name, value)| format!(" {name}={value}"));
    let params: String = params.collect();
    one_line(&format!("{}{params} (definition {})", role.name, role.hash))
}

/// The command as a person could type it again.
fn command_line(job: &JobView) -> String {
    if job.shell {
        return one_line(&job.command.join(" "));
    }
    let words: Vec<String> = job.command.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// One argument with the quotes a shell needs.
pub(super) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./=:,+@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    one_line(&format!("'{}'", word.replace('\'', r"'\''")))
}

fn attempts(job: &JobView, look: &Look) -> String {
    if job.attempts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        Column::new("ATTEMPT").right(),
        Column::new("MACHINE").shrinks(8),
        Column::new("STARTED").right(),
        Column::new("TIME").right(),
        Column::new("END").shrinks(10),
        Column::new("OUTPUT").right().may_go(1),
    ]);
    for attempt in &job.attempts {
        let took = attempt
            .started_at
            .map(|start| words::span(attempt.ended_at.unwrap_or(look.now).since(start)));
        let output = attempt.output.stdout.bytes + attempt.output.stderr.bytes;
        let dropped = attempt.output.stdout.dropped + attempt.output.stderr.dropped;
        let output = match dropped {
            0 => words::bytes(output),
            _ => format!(
                "{}, {} dropped",
                words::bytes(output),
                words::bytes(dropped)
            ),
        };
        table.row(vec![
            Cell::new(attempt.attempt.to_string()),
            Cell::new(attempt.machine.as_str()),
            Cell::maybe(attempt.started_at.map(|t| look.time(t))),
            Cell::maybe(took),
            Cell::maybe(end_words(attempt)),
            Cell::new(output),
        ]);
    }
    format!("\n{}", table.render(look.width, look.color))
}

fn end_words(attempt: &AttemptView) -> Option<String> {
    if let Some(reason) = &attempt.reason {
        return Some(reason.clone());
    }
    match (attempt.exit_code, attempt.signal) {
        (Some(code), _) => Some(format!("exit {code}")),
        (None, Some(signal)) => Some(signal_name(signal)),
        (None, None) => None,
    }
}

/// A job that was just dispatched: its id for people, the whole job for programs.
pub(crate) struct Dispatched(pub(crate) JobView);

impl Answer for Dispatched {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, _: &Look) -> String {
        format!("{}\n", self.0.id)
    }
}

/// A job that ended: one line.
pub(crate) struct Ended(pub(crate) JobView);

impl Answer for Ended {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let line = ended_line(&self.0, look);
        match self.0.state {
            // On a line of its own, so that it is whole however narrow the terminal is.
            StateWord::NeedsHuman => format!("{line}\n  {}\n", what_to_do(&self.0)),
            _ => format!("{line}\n"),
        }
    }
}

/// How a job ended, in one line: id, state, exit, machine, why.
pub(crate) fn ended_line(job: &JobView, look: &Look) -> String {
    let mut line = format!(
        "{} {}",
        job.id,
        Paint::of_job(job.state).on(job.state.as_str(), look.color)
    );
    if job.state != StateWord::Succeeded
        && let Some(exit) = exit_words(job)
    {
        let _ = write!(line, " ({exit})");
    }
    if let Some(machine) = &job.machine {
        let _ = write!(line, " on {machine}");
    }
    if let (Some(start), Some(end)) = (job.started_at, job.ended_at) {
        let _ = write!(line, " in {}", words::span(end.since(start)));
    }
    if let Some(reason) = &job.reason {
        let _ = write!(line, ": {}", one_line(reason));
    }
    match look.width {
        Some(width) if !look.color => clip(&line, width),
        _ => line,
    }
}

/// What can be typed about a job that waits for a person's decision.
pub(crate) fn what_to_do(job: &JobView) -> String {
    let id = job.id;
    format!(
        "fleet retry {id} runs it again; else fleet resolve {id} succeeded|failed, or fleet cancel {id}"
    )
}

/// What is known of an attempt that had run though its result does not count.
pub(crate) fn ran_words(told: &SupersededView, look: &Look) -> String {
    let ran = &told.ran;
    let mut text = format!("attempt {} on {}", ran.attempt, ran.machine);
    match (ran.started_at, ran.ended_at) {
        (Some(start), Some(end)) => {
            let took = words::span(end.since(start));
            let (start, end) = (start.to_string(), end.to_string());
            let part = |time: &str| time.get(..19).unwrap_or(time).replace('T', " ");
            let _ = write!(
                text,
                " from {} to {} UTC ({took})",
                part(&start),
                part(&end)
            );
        }
        (_, Some(end)) => {
            let _ = write!(text, " until {}", look.time(end));
        }
        _ => {}
    }
    if let Some(end) = end_words(ran) {
        let _ = write!(text, ": {}", one_line(&end));
    }
    let _ = write!(text, " (token {})", ran.token);
    match &told.acknowledged_by {
        Some(by) => {
            let _ = write!(text, ", acknowledged by {}", one_line(by));
        }
        None => text.push_str("; this end does not count"),
    }
    text
}

/// What can be typed about attempts that nobody has acknowledged.
fn to_acknowledge(job: &JobView) -> String {
    let id = job.id;
    format!("fleet ack {id}, when you have seen to what it did")
}

/// For whoever has waited for a job: that more of it ran than counts.
pub(crate) fn superseded_note(job: &JobView) -> Option<String> {
    let told = job.superseded.iter();
    let told: Vec<String> = told
        .filter(|told| told.acknowledged_by.is_none())
        .map(|told| ran_words(told, &Look::plain()))
        .collect();
    let what = match job.two_ran {
        true => "two attempts ran",
        false => "an attempt had run on",
    };
    let id = job.id;
    (!told.is_empty()).then(|| {
        let told = told.join("; ");
        format!("{id}: {what}: {told}; {}", to_acknowledge(job))
    })
}

/// How many characters of an id tell all of these apart, at least 4.
pub(crate) fn id_length<'a>(ids: impl IntoIterator<Item = &'a JobId>) -> usize {
    prefix::unique_length(ids.into_iter().map(JobId::as_str))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fleet_contract::ids::{AttemptId, Lane};
    use fleet_contract::outcome::OutputCount;
    use fleet_contract::time::Time;
    use std::collections::BTreeMap;

    pub(crate) fn job(n: u8, state: StateWord) -> JobView {
        let start = Time::from_micros(1_000_000_000);
        JobView {
            id: JobId::from_random([n; 10]),
            name: None,
            state,
            machine: Some("studio".parse().unwrap()),
            lane: Some(Lane::any()),
            command: vec!["echo".to_owned(), "a b".to_owned()],
            shell: false,
            attempt: 1,
            attempts: vec![AttemptView {
                attempt: 1,
                id: AttemptId::from_random([1; 10]),
                machine: "studio".parse().unwrap(),
                token: 7,
                started_at: Some(start),
                ended_at: Some(Time::from_micros(3_500_000_000)),
                exit_code: Some(3),
                signal: None,
                reason: None,
                output: OutputCount::default(),
            }],
            exit_code: Some(3),
            signal: None,
            reason: None,
            resolved: None,
            cancel_requested: false,
            submitted_at: start,
            started_at: Some(start),
            ended_at: Some(Time::from_micros(1_002_500_000)),
            submitted_by: "ana@laptop".to_owned(),
            tags: BTreeMap::from([("by".to_owned(), "ci".to_owned())]),
            cwd: None,
            cwd_on: BTreeMap::new(),
            role: None,
            index: None,
            needs: String::new(),
            prefer: None,
            revision: 9,
            superseded: Vec::new(),
            unacknowledged: false,
            two_ran: false,
        }
    }

    fn look() -> Look {
        Look {
            width: Some(80),
            color: false,
            ages: true,
            now: Time::from_micros(1_060_000_000),
        }
    }

    #[test]
    fn a_list_shows_short_ids_states_and_ages() {
        let mut jobs = vec![job(1, StateWord::Failed), job(2, StateWord::Succeeded)];
        jobs[1].index = Some(4);
        let list = JobList {
            id_length: id_length(jobs.iter().map(|j| &j.id)),
            jobs,
            spooled: Vec::new(),
            left_out: 2,
        };
        assert_eq!(
            list.text(&look()),
            "ID    STATE      MACHINE  COMMAND      EXIT  TIME  DISPATCHED  BY\n\
             aeaq  failed     studio   echo a b        3   2 s   1 min ago  ana@laptop\n\
             aiba  succeeded  studio   echo a b #4     3   2 s   1 min ago  ana@laptop\n\
             2 older ones are not shown: --limit 0\n"
        );
        assert!(
            list.json()
                .unwrap()
                .starts_with("[{\"id\":\"aeaqcaibaeaqcaib\"")
        );
    }

    #[test]
    fn a_detail_shows_the_command_as_it_could_be_typed() {
        let text = JobDetail(job(1, StateWord::Failed)).text(&look());
        assert!(text.contains("command      echo 'a b'\n"), "{text}");
        assert!(text.contains("tag          by=ci\n"), "{text}");
        assert!(text.contains("exit 3"), "{text}");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("a\nb"), r"'a\nb'");
    }

    #[test]
    fn an_end_is_one_line() {
        assert_eq!(
            ended_line(&job(1, StateWord::Failed), &look()),
            "aeaqcaibaeaqcaib failed (3) on studio in 2 s"
        );
        let mut asked = job(1, StateWord::NeedsHuman);
        asked.exit_code = None;
        asked.ended_at = None;
        asked.reason = Some("run it\nagain?".to_owned());
        assert_eq!(
            ended_line(&asked, &look()),
            "aeaqcaibaeaqcaib needs_human on studio: run it\\nagain?"
        );
        let text = Ended(asked).text(&look());
        assert!(
            text.contains("\n  fleet retry aeaqcaibaeaqcaib runs it again"),
            "{text}"
        );
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(64), "signal 64");
    }
}
