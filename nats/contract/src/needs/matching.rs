//! Compares requirements with what a machine is known to be, and says in types what is missing, with
//! what was measured instead. Pure.

use std::fmt;

use serde::Serialize;

use super::Needs;
use super::facts::{Facts, Gpu};
use super::parse::{Amount, Word};
use super::room::Room;
use super::size::rounded;
use super::version::{Span, Version};
use crate::time::Time;

/// Something that a machine has not, or not now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The requirement in canonical words.
    pub need: String,
    /// What is there instead.
    pub found: Found,
    /// When that was measured, by the machine's clock.
    pub checked_at: Time,
}

/// What is there instead of what is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Found {
    /// Nothing of that name.
    Nothing,
    /// Nobody has looked yet.
    NotChecked,
    /// It is there and does not work, for this reason.
    Failing(String),
    /// Another value.
    Value(String),
    /// A version in the tool's own words.
    Version(String),
    /// It works, but says no version that can be read.
    NoVersion,
    /// So many bytes.
    Bytes(u64),
    /// So many.
    Count(u64),
    /// So many of them, but the largest of these, in bytes, is too small.
    Small(u64),
    /// No skill of that name, but a label with this value.
    IsLabel(String),
    /// No label of that name, but a skill of this version.
    IsSkill(String),
    /// Enough of it, but running jobs hold so much: bytes of memory.
    ReservedBytes(u64),
    /// Enough of it, but running jobs hold so many.
    ReservedCount(u64),
}

impl Found {
    /// Whether it ends by itself, when jobs end.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::ReservedBytes(_) | Self::ReservedCount(_))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let need = &self.need;
        match &self.found {
            Found::Nothing => write!(f, "{need}: it has none"),
            Found::NotChecked => write!(f, "{need}: nobody has looked yet"),
            Found::Failing(reason) => write!(f, "{need}: {reason}"),
            Found::Value(value) => write!(f, "{need}: it is {value}"),
            Found::Version(version) => write!(f, "{need}: it has {version}"),
            Found::NoVersion => write!(f, "{need}: it says no version that can be read"),
            Found::Bytes(bytes) => write!(f, "{need}: it has {}", rounded(*bytes)),
            Found::Count(count) => write!(f, "{need}: it has {count}"),
            Found::Small(bytes) => write!(f, "{need}: its largest has {}", rounded(*bytes)),
            Found::IsLabel(value) => {
                write!(f, "{need}: that is no skill there but a label, {value}")
            }
            Found::IsSkill(version) => {
                write!(f, "{need}: that is no label there but a skill {version}")
            }
            Found::ReservedBytes(bytes) => {
                write!(f, "{need}: its jobs hold {}", rounded(*bytes))
            }
            Found::ReservedCount(count) => write!(f, "{need}: its jobs hold {count}"),
        }
    }
}

impl Needs {
    /// What a machine lacks to ever run a job with these requirements, as far as is known: the
    /// first is what to name. What its running jobs hold does not count.
    pub fn missing<'a>(&'a self, facts: &'a Facts<'a>) -> impl Iterator<Item = Missing> + 'a {
        let words = self.words.iter();
        let words = words.filter_map(|(word, value)| of_word(facts, *word, value));
        let amounts = self.amounts.iter();
        let amounts = amounts.filter_map(|(amount, n)| self.of_amount(facts, *amount, *n));
        let labels = self.labels.iter();
        let labels = labels.filter_map(|(name, value)| of_label(facts, name, value));
        let skills = self.skills.iter();
        let skills = skills.filter_map(|(name, span)| of_skill(facts, name, span));
        let models = self.models.iter().filter_map(|name| of_model(facts, name));
        let repos = self.repos.iter().filter_map(|url| of_repo(facts, url));
        words
            .chain(amounts)
            .chain(labels)
            .chain(skills)
            .chain(models)
            .chain(repos)
    }

    /// Whether a machine could run a job with these requirements, once it has room.
    #[must_use]
    pub fn fit(&self, facts: &Facts<'_>) -> bool {
        self.missing(facts).next().is_none()
    }

    /// What running jobs hold of what is required, where it is not left.
    #[must_use]
    pub fn held(&self, facts: &Facts<'_>) -> Option<Missing> {
        let share = self.share();
        let reserved = &facts.probed.reserved;
        let room = Room {
            mem: facts.specs.mem_total,
            gpus: &facts.probed.gpus,
            reserved,
        };
        if share.is_nothing() || room.take(&share).is_some() {
            return None;
        }
        let left = room.mem.saturating_sub(reserved.mem);
        let (amount, n, found) = if share.mem > left {
            (Amount::Mem, share.mem, Found::ReservedBytes(reserved.mem))
        } else {
            let held = u64::try_from(reserved.gpus.len()).unwrap_or(u64::MAX);
            (
                Amount::Gpu,
                u64::from(share.gpus),
                Found::ReservedCount(held),
            )
        };
        Some(Missing {
            need: amount.write(n),
            found,
            checked_at: facts.said,
        })
    }

    fn of_amount(&self, facts: &Facts<'_>, amount: Amount, n: u64) -> Option<Missing> {
        let gpus = &facts.probed.gpus;
        let of_gpus = |gpu: Option<&Gpu>| gpu.map_or(facts.said, |gpu| gpu.checked_at);
        let (found, checked_at) = match amount {
            Amount::Cores => {
                let cores = u64::from(facts.specs.cores);
                (Some(Found::Count(cores)).filter(|_| cores < n), facts.said)
            }
            Amount::Mem => {
                let mem = facts.specs.mem_total;
                (Some(Found::Bytes(mem)).filter(|_| mem < n), facts.said)
            }
            Amount::Gpu => {
                let count = u64::try_from(gpus.len()).unwrap_or(u64::MAX);
                let found = Some(Found::Count(count)).filter(|_| count < n);
                (found, of_gpus(gpus.first()))
            }
            Amount::GpuMem => {
                let enough = gpus.iter().filter(|gpu| gpu.mem >= n).count();
                let largest = gpus.iter().max_by_key(|gpu| gpu.mem);
                let found = match largest {
                    None => Some(Found::Count(0)),
                    Some(gpu) if gpu.mem < n => Some(Found::Small(gpu.mem)),
                    Some(_) => {
                        let enough = u64::try_from(enough).unwrap_or(u64::MAX);
                        let wanted = u64::from(self.share().gpus);
                        Some(Found::Count(enough)).filter(|_| enough < wanted)
                    }
                };
                (found, of_gpus(largest))
            }
        };
        Some(Missing {
            found: found?,
            need: amount.write(n),
            checked_at,
        })
    }
}

fn of_word(facts: &Facts<'_>, word: Word, wanted: &str) -> Option<Missing> {
    let found = facts.word(word);
    if found.eq_ignore_ascii_case(wanted) {
        return None;
    }
    Some(Missing {
        need: format!("{}={wanted}", word.as_str()),
        found: match found {
            "" => Found::NotChecked,
            found => Found::Value(found.to_owned()),
        },
        checked_at: facts.said,
    })
}

fn of_label(facts: &Facts<'_>, name: &str, wanted: &str) -> Option<Missing> {
    let found = match facts.label(name) {
        Some(found) if found == wanted => return None,
        Some(found) => Found::Value(found.to_owned()),
        None => match skill(facts, name) {
            Some(skill) if skill.ok => Found::IsSkill(skill.version.unwrap_or("").to_owned()),
            _ => Found::Nothing,
        },
    };
    Some(Missing {
        need: format!("{name}={wanted}"),
        found,
        checked_at: facts.said,
    })
}

/// A skill as far as it is known.
struct Known<'a> {
    ok: bool,
    version: Option<&'a str>,
    reason: Option<&'a str>,
    checked_at: Time,
}

fn skill<'a>(facts: &Facts<'a>, name: &str) -> Option<Known<'a>> {
    let probed = facts.probed.skills.get(name).map(|skill| Known {
        ok: skill.ok,
        version: skill.version.as_deref(),
        reason: skill.reason.as_deref(),
        checked_at: skill.checked_at,
    });
    probed.or_else(|| {
        facts.plain_skills.get(name).map(|version| Known {
            ok: true,
            version: Some(version.as_str()),
            reason: None,
            checked_at: facts.said,
        })
    })
}

fn of_skill(facts: &Facts<'_>, name: &str, span: &Span) -> Option<Missing> {
    let missing = |found, checked_at| {
        Some(Missing {
            need: span.words(name).join(","),
            found,
            checked_at,
        })
    };
    let Some(known) = skill(facts, name) else {
        let label = facts.label(name);
        let found = label.map_or(Found::Nothing, |value| Found::IsLabel(value.to_owned()));
        return missing(found, facts.said);
    };
    if !known.ok {
        let reason = known.reason.unwrap_or("its probe failed").to_owned();
        return missing(Found::Failing(reason), known.checked_at);
    }
    if span.is_any() {
        return None;
    }
    let words = known.version.unwrap_or("");
    match Version::find(words) {
        None => missing(Found::NoVersion, known.checked_at),
        Some(version) if span.holds(&version) => None,
        Some(_) => missing(Found::Version(words.to_owned()), known.checked_at),
    }
}

/// Whether a loaded model is the one that is wanted: by its whole name, or by that before its tag.
fn is_model(loaded: &str, wanted: &str) -> bool {
    let rest = loaded.get(..wanted.len()).zip(loaded.get(wanted.len()..));
    rest.is_some_and(|(begin, rest)| {
        begin.eq_ignore_ascii_case(wanted) && (rest.is_empty() || rest.starts_with(':'))
    })
}

fn of_model(facts: &Facts<'_>, wanted: &str) -> Option<Missing> {
    let probed = &facts.probed.models;
    let mut plain = facts.plain_models.iter();
    if probed.iter().any(|model| is_model(&model.name, wanted))
        || plain.any(|name| is_model(name, wanted))
    {
        return None;
    }
    let last = probed.iter().map(|model| model.checked_at).max();
    Some(Missing {
        need: format!("model={wanted}"),
        found: Found::Nothing,
        checked_at: last.unwrap_or(facts.said),
    })
}

fn of_repo(facts: &Facts<'_>, url: &str) -> Option<Missing> {
    let (found, checked_at) = match facts.probed.repos.get(url) {
        Some(access) if access.ok => return None,
        Some(access) => {
            let reason = access.reason.clone();
            let reason = reason.unwrap_or_else(|| "it cannot be read".to_owned());
            (Found::Failing(reason), access.checked_at)
        }
        None => (Found::NotChecked, facts.said),
    };
    Some(Missing {
        need: format!("repo={url}"),
        found,
        checked_at,
    })
}

/// A machine that nearly satisfies a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Near<M> {
    /// The machine.
    pub machine: M,
    /// How many requirements it does not satisfy.
    pub lacks: usize,
    /// The first of them.
    pub first: Missing,
}

/// The machines that lack the fewest things, at most `most`, the nearest first; those that lack
/// nothing are left out.
pub fn nearest<'a, M: Ord + Clone>(
    needs: &Needs,
    machines: impl IntoIterator<Item = (M, Facts<'a>)>,
    most: usize,
) -> Vec<Near<M>> {
    let mut near: Vec<Near<M>> = Vec::new();
    for (machine, facts) in machines {
        let mut missing = needs.missing(&facts);
        let Some(first) = missing.next() else {
            continue;
        };
        let lacks = 1 + missing.count();
        let at = near.partition_point(|n| (n.lacks, &n.machine) < (lacks, &machine));
        if at < most {
            near.insert(
                at,
                Near {
                    machine,
                    lacks,
                    first,
                },
            );
            near.truncate(most);
        }
    }
    near
}
