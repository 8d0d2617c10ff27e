//! Filters of lists, as they are typed: words that are looked for fuzzily, and terms of a field
//! and a value, `state:failed m:forge age>10m`. All of them have to hold; `!` before one turns it
//! round; quotes take a text as it is. What is wrong is said with what would be right.

use std::time::Duration;

use fleet_contract::job::Job;
use fleet_contract::machine::MachineState;
use fleet_contract::projection::{Event, Machine, place};
use fleet_contract::record::StateWord;
use fleet_contract::time::Time;
use nucleo_matcher::pattern::{Atom, AtomKind, CaseMatching, Normalization};
use nucleo_matcher::{Config, Matcher, Utf32Str};

/// What a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Jobs,
    Machines,
    Events,
}

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// As it was typed.
    pub(crate) text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    not: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// A word or a quoted text.
    Text(Atom),
    /// One of these, by the beginnings of their names.
    Jobs(Vec<StateWord>),
    Machines(Vec<MachineState>),
    /// The field's text begins with one of these.
    Begins(Field, Vec<String>),
    /// The field's text holds this.
    Holds(Field, String),
    /// `name` or `name=value` among the field's pairs.
    Pair(Field, String, Option<String>),
    /// The field's number.
    Number(Field, Compare, u64),
    /// How long ago.
    Age(Compare, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Is,
    Above,
    Below,
}

impl Compare {
    fn holds<T: PartialOrd>(self, value: &T, bound: &T) -> bool {
        match self {
            Self::Is => value == bound,
            Self::Above => value > bound,
            Self::Below => value < bound,
        }
    }
}

/// What a term can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    State,
    Machine,
    Lane,
    Id,
    By,
    Tag,
    Exit,
    Attempts,
    Age,
    Label,
    Skill,
    Os,
    Version,
    Cause,
    Free,
    What,
}

/// Which fields there are, what they are called first, and what a value looks like.
const FIELDS: &[(Kind, Field, &[&str], &str)] = &[
    (Kind::Jobs, Field::State, &["state", "s"], "state:failed"),
    (Kind::Jobs, Field::Machine, &["m", "machine"], "m:forge"),
    (Kind::Jobs, Field::Lane, &["lane"], "lane:any"),
    (Kind::Jobs, Field::Id, &["id"], "id:7f3c"),
    (Kind::Jobs, Field::By, &["by"], "by:ana"),
    (Kind::Jobs, Field::Tag, &["tag"], "tag:suite=e2e"),
    (Kind::Jobs, Field::Exit, &["exit"], "exit:1"),
    (Kind::Jobs, Field::Attempts, &["attempts"], "attempts>1"),
    (Kind::Jobs, Field::Age, &["age"], "age>10m"),
    (Kind::Machines, Field::State, &["state", "s"], "state:lost"),
    (Kind::Machines, Field::Machine, &["m", "machine"], "m:forge"),
    (Kind::Machines, Field::Label, &["label"], "label:site=ams"),
    (Kind::Machines, Field::Skill, &["skill"], "skill:cargo"),
    (Kind::Machines, Field::Os, &["os"], "os:linux"),
    (Kind::Machines, Field::Version, &["version"], "version:0.1"),
    (Kind::Machines, Field::Cause, &["cause"], "cause:disk_low"),
    (Kind::Machines, Field::Free, &["free"], "free>0"),
    (Kind::Machines, Field::Age, &["age"], "age>1m"),
    (Kind::Events, Field::What, &["what", "state"], "what:failed"),
    (Kind::Events, Field::Machine, &["m", "machine"], "m:forge"),
    (Kind::Events, Field::Id, &["id"], "id:7f3c"),
    (Kind::Events, Field::Age, &["age"], "age<10m"),
];

impl Filter {
    /// Reads a filter; none where nothing is typed.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn parse(text: &str, kind: Kind) -> Result<Option<Self>, String> {
        let terms: Vec<Term> = words(text)?
            .into_iter()
            .map(|word| term(word, kind))
            .collect::<Result<_, _>>()?;
        let text = text.trim().to_owned();
        Ok((!terms.is_empty()).then_some(Self { text, terms }))
    }

    /// Whether all terms hold.
    fn all(&self, mut holds: impl FnMut(&Test) -> bool) -> bool {
        self.terms.iter().all(|term| holds(&term.test) != term.not)
    }
}

/// Looks at what filters let through; keeps the room that the matcher needs.
pub(crate) struct Sieve {
    matcher: Matcher,
    room: Vec<char>,
}

impl Sieve {
    /// A sieve.
    pub(crate) fn new() -> Self {
        Self {
            matcher: Matcher::new(Config::DEFAULT),
            room: Vec::new(),
        }
    }

    fn finds(&mut self, atom: &Atom, text: &str) -> bool {
        self.score(atom, text).is_some()
    }

    fn score(&mut self, atom: &Atom, text: &str) -> Option<u16> {
        atom.score(Utf32Str::new(text, &mut self.room), &mut self.matcher)
    }

    /// How well a text is what the words mean; none where it is not.
    pub(crate) fn rank(&mut self, words: &str, text: &str) -> Option<u32> {
        let atoms = words.split_whitespace().map(fuzzy);
        let scores = atoms.map(|atom| self.score(&atom, text).map(u32::from));
        scores.sum()
    }

    /// Whether a filter lets a job through.
    pub(crate) fn job(&mut self, filter: &Filter, job: &Job, now: Time) -> bool {
        let machine = place(job).map_or("", |m| m.as_str());
        let spec = &job.spec;
        let lane = match &job.target {
            fleet_contract::spec::Target::Lane(lane) => lane.as_str(),
            fleet_contract::spec::Target::Pin(_) => "",
        };
        filter.all(|test| match test {
            Test::Text(atom) => {
                self.finds(atom, &spec.title())
                    || begins_id(atom, job.id.as_str())
                    || self.finds(atom, machine)
            }
            Test::Jobs(words) => words.contains(&job.state.word()),
            Test::Begins(Field::Machine, values) => begins(machine, values),
            Test::Begins(Field::Lane, values) => begins(lane, values),
            Test::Begins(Field::Id, values) => begins(job.id.as_str(), values),
            Test::Holds(Field::By, text) => holds(&spec.submitted_by, text),
            Test::Pair(Field::Tag, name, value) => pair(&spec.tags, name, value.as_deref()),
            Test::Number(Field::Exit, compare, bound) => match job.attempt().map(|a| &a.outcome) {
                Some(Some(fleet_contract::outcome::Outcome::Exited { exit_code })) => {
                    compare.holds(&u64::from(*exit_code), bound)
                }
                _ => false,
            },
            Test::Number(Field::Attempts, compare, bound) => {
                compare.holds(&(job.attempts.len() as u64), bound)
            }
            Test::Age(compare, bound) => compare.holds(&now.since(job.changed_at), bound),
            _ => false,
        })
    }

    /// Whether a filter lets a machine through.
    pub(crate) fn machine(&mut self, filter: &Filter, machine: &Machine, now: Time) -> bool {
        let presence = &machine.presence;
        let name = presence.machine.as_str();
        filter.all(|test| match test {
            Test::Text(atom) => {
                self.finds(atom, name)
                    || self.finds(atom, &presence.host)
                    || presence.labels.values().any(|v| self.finds(atom, v))
            }
            Test::Machines(states) => states.contains(&machine.state(now)),
            Test::Begins(Field::Machine, values) => begins(name, values),
            Test::Begins(Field::Version, values) => begins(&presence.specs.version, values),
            Test::Begins(Field::Os, values) => begins(&presence.specs.os, values),
            Test::Begins(Field::Cause, values) => {
                let mut causes = presence.degraded.iter();
                causes.any(|d| begins(d.cause.as_str(), values))
            }
            Test::Pair(Field::Label, name, value) => pair(&presence.labels, name, value.as_deref()),
            Test::Pair(Field::Skill, name, value) => pair(&presence.skills, name, value.as_deref()),
            Test::Number(Field::Free, compare, bound) => {
                let load = &presence.load;
                let free = load.slots.saturating_sub(load.slots_used);
                compare.holds(&u64::from(free), bound)
            }
            Test::Age(compare, bound) => compare.holds(&now.since(machine.seen), bound),
            _ => false,
        })
    }

    /// Whether a filter lets an event through; `title` is what its job is called.
    pub(crate) fn event(
        &mut self,
        filter: &Filter,
        event: &Event,
        title: Option<&str>,
        now: Time,
    ) -> bool {
        let machine = event.machine.as_ref().map_or("", |m| m.as_str());
        let id = event.job.map_or(String::new(), |id| id.to_string());
        filter.all(|test| match test {
            Test::Text(atom) => {
                let texts = [event.text.as_str(), &event.word, machine];
                texts.iter().any(|text| self.finds(atom, text))
                    || title.is_some_and(|title| self.finds(atom, title))
                    || begins_id(atom, &id)
            }
            Test::Begins(Field::What, values) => {
                begins(&event.word, values)
                    || begins(event.word.rsplit('.').next().unwrap_or(""), values)
            }
            Test::Begins(Field::Machine, values) => begins(machine, values),
            Test::Begins(Field::Id, values) => begins(&id, values),
            Test::Age(compare, bound) => compare.holds(&now.since(event.time), bound),
            _ => false,
        })
    }
}

fn fuzzy(word: &str) -> Atom {
    atom(word, AtomKind::Fuzzy)
}

fn atom(text: &str, kind: AtomKind) -> Atom {
    Atom::new(text, CaseMatching::Smart, Normalization::Smart, kind, false)
}

/// Ids are never looked for fuzzily: letters of many of them are in any order.
fn begins_id(atom: &Atom, id: &str) -> bool {
    let needle = atom.needle_text().to_string();
    !needle.is_empty() && id.starts_with(&needle)
}

fn begins(text: &str, values: &[String]) -> bool {
    let text = text.to_lowercase();
    values.iter().any(|value| text.starts_with(value.as_str()))
}

fn holds(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

fn pair(map: &std::collections::BTreeMap<String, String>, name: &str, value: Option<&str>) -> bool {
    map.get(name)
        .is_some_and(|found| value.is_none_or(|value| found == value))
}

/// A part of what was typed.
struct Word {
    not: bool,
    text: String,
    quoted: bool,
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (not, after) = match rest.strip_prefix('!') {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let (text, quoted) = if let Some(inside) = after.strip_prefix('"') {
            let (text, after) = inside
                .split_once('"')
                .ok_or_else(|| "a text in quotes has no end yet".to_owned())?;
            rest = after;
            (text, true)
        } else {
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            rest = &after[end..];
            (&after[..end], false)
        };
        if !text.is_empty() {
            let text = text.to_owned();
            words.push(Word { not, text, quoted });
        } else if not {
            return Err("! wants a term after it: !state:succeeded".to_owned());
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

fn term(word: Word, kind: Kind) -> Result<Term, String> {
    let test = match word.text.find([':', '<', '>']) {
        Some(at) if !word.quoted && at > 0 => typed(&word.text, at, kind)?,
        _ if word.quoted => Test::Text(atom(&word.text, AtomKind::Substring)),
        // Texts of events are long: almost any letters are somewhere in them.
        _ if kind == Kind::Events => Test::Text(atom(&word.text, AtomKind::Substring)),
        _ => Test::Text(fuzzy(&word.text)),
    };
    let not = word.not;
    Ok(Term { not, test })
}

fn typed(text: &str, at: usize, kind: Kind) -> Result<Test, String> {
    let (name, rest) = text.split_at(at);
    let (operator, value) = rest.split_at(1);
    let compare = match operator {
        ">" => Compare::Above,
        "<" => Compare::Below,
        _ => Compare::Is,
    };
    let here = || FIELDS.iter().filter(|(of, ..)| *of == kind);
    let Some((_, field, _, example)) = here().find(|(_, _, names, _)| names.contains(&name)) else {
        let names: Vec<&str> = here()
            .filter_map(|(_, _, names, _)| names.first().copied())
            .collect();
        let names = names.join(" ");
        return Err(format!(
            "{name} is no field here: {names}; or \"{text}\" in quotes"
        ));
    };
    let is_measure = matches!(
        field,
        Field::Age | Field::Exit | Field::Attempts | Field::Free
    );
    if compare != Compare::Is && !is_measure {
        return Err(format!(
            "{name} takes no {operator}: write it like {example}"
        ));
    }
    if value.is_empty() {
        return Err(match (field, kind) {
            (Field::State, _) => format!("{name}: {}", states(kind).join(" ")),
            _ => format!("{name} wants a value: {example}"),
        });
    }
    let values = || -> Vec<String> {
        let parts = value.split(',').filter(|part| !part.is_empty());
        parts.map(str::to_lowercase).collect()
    };
    Ok(match field {
        Field::State => state(&values(), kind)?,
        Field::Age => {
            let age = duration(value).ok_or_else(|| {
                format!("{value} is no time: write it like {example}, with s, m, h or d")
            })?;
            // An age is never exactly something.
            let compare = match compare {
                Compare::Is => Compare::Below,
                compare => compare,
            };
            Test::Age(compare, age)
        }
        Field::Exit | Field::Attempts | Field::Free => {
            let number = value
                .parse()
                .map_err(|_| format!("{value} is no number: write it like {example}"))?;
            Test::Number(*field, compare, number)
        }
        Field::By => Test::Holds(*field, value.to_lowercase()),
        Field::Tag | Field::Label | Field::Skill => match value.split_once('=') {
            Some((name, value)) => Test::Pair(*field, name.to_owned(), Some(value.to_owned())),
            None => Test::Pair(*field, value.to_owned(), None),
        },
        Field::Machine
        | Field::Lane
        | Field::Id
        | Field::Os
        | Field::Version
        | Field::Cause
        | Field::What => Test::Begins(*field, values()),
    })
}

fn states(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Machines => MachineState::ALL.iter().map(|s| s.as_str()).collect(),
        Kind::Jobs | Kind::Events => StateWord::ALL.iter().map(|w| w.as_str()).collect(),
    }
}

fn state(values: &[String], kind: Kind) -> Result<Test, String> {
    for value in values {
        if !states(kind)
            .iter()
            .any(|word| word.starts_with(value.as_str()))
        {
            let words = states(kind).join(" ");
            return Err(format!("no state begins with {value}: {words}"));
        }
    }
    let meant = |word: &str| values.iter().any(|value| word.starts_with(value.as_str()));
    Ok(match kind {
        Kind::Machines => {
            let all = MachineState::ALL.into_iter();
            Test::Machines(all.filter(|s| meant(s.as_str())).collect())
        }
        Kind::Jobs | Kind::Events => {
            let all = StateWord::ALL.into_iter();
            Test::Jobs(all.filter(|w| meant(w.as_str())).collect())
        }
    })
}

/// `90s`, `10m`, `2h`, `3d`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
