//! What a machine is known to be, as requirements are compared with it. Pure.
//!
//! What a machine says of itself in its presence comes in two parts: [`crate::machine::Specs`] and
//! labels, which hold as long as its agent runs, and [`Probed`], each entry of which was measured at
//! its own time. Whoever probes writes [`Probed`]; everybody else reads [`Facts`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::{Presence, Specs};
use crate::time::Time;

/// A probe that is older than so many of its intervals is stale.
pub const STALE_INTERVALS: u32 = 3;

/// A skill as it was probed last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skill {
    /// Whether it is there and works. What does not is kept, with the reason.
    pub ok: bool,
    /// Its version in the tool's own words, or a part of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When that was found out, by the machine's clock.
    pub checked_at: Time,
    /// How often it is probed, in milliseconds; 0 where it is not probed again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval_ms: u64,
    /// What kind of skill it is: `container`, `language`, `agent`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// Why it does not work: `not found`, `not logged in`, `no answer within 5 s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Skill {
    /// Whether it is older at `now`, by the machine's clock, than its interval allows.
    #[must_use]
    pub fn is_stale(&self, now: Time) -> bool {
        let interval = Duration::from_millis(self.interval_ms);
        !interval.is_zero() && now.since(self.checked_at) > interval * STALE_INTERVALS
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name, with its tag where it has one: `llama3:8b`.
    pub name: String,
    /// What has it loaded: `ollama`, `lm-studio`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// When that was found out, by the machine's clock.
    pub checked_at: Time,
}

/// A graphics processor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number for its driver: what a job is told.
    pub index: u32,
    /// What it calls itself.
    #[serde(default)]
    pub name: String,
    /// Its memory, in bytes.
    #[serde(default)]
    pub mem: u64,
    /// When that was found out, by the machine's clock.
    #[serde(default)]
    pub checked_at: Time,
}

/// Whether a repository can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Whether.
    pub ok: bool,
    /// When that was found out, by the machine's clock.
    pub checked_at: Time,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What running jobs hold of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reserved {
    /// Memory, in bytes.
    #[serde(default)]
    pub mem: u64,
    /// Graphics processors, by their number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<u32>,
}

/// What probes found on a machine, and what its jobs hold of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probed {
    /// Skills by name, those that do not work as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skills: BTreeMap<String, Skill>,
    /// Models that are loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    /// Graphics processors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Repositories that somebody asked about, by their address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repos: BTreeMap<String, Access>,
    /// What running jobs hold.
    #[serde(default)]
    pub reserved: Reserved,
}

impl Probed {
    /// Skills that work, with their versions, as they stand in a presence for everybody who reads
    /// no more than that.
    #[must_use]
    pub fn working(&self) -> BTreeMap<String, String> {
        let working = self.skills.iter().filter(|(_, skill)| skill.ok);
        working
            .map(|(name, skill)| (name.clone(), skill.version.clone().unwrap_or_default()))
            .collect()
    }
}

/// Everything that requirements are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the machine is.
    pub specs: &'a Specs,
    /// The operator's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What its probes found.
    pub probed: &'a Probed,
    /// Working skills of a machine that says no more about them.
    pub(super) plain_skills: &'a BTreeMap<String, String>,
    /// Models of such a machine.
    pub(super) plain_models: &'a [String],
    /// When the machine said so, by the clock of [`Skill::checked_at`].
    pub said: Time,
}

static NO_SKILLS: BTreeMap<String, String> = BTreeMap::new();

/// A label, whatever the case of its name.
pub(crate) fn label<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let found = labels.get(name).or_else(|| {
        let mut all = labels.iter();
        all.find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    });
    found.map(String::as_str)
}

impl<'a> Facts<'a> {
    /// What a machine knows of itself.
    #[must_use]
    pub fn new(
        specs: &'a Specs,
        labels: &'a BTreeMap<String, String>,
        probed: &'a Probed,
        now: Time,
    ) -> Self {
        Self {
            specs,
            labels,
            probed,
            plain_skills: &NO_SKILLS,
            plain_models: &[],
            said: now,
        }
    }

    /// What a machine told of itself at `said`. An earlier fleet told skills and models without
    /// their age: they are as old as its word.
    #[must_use]
    pub fn of(presence: &'a Presence, said: Time) -> Self {
        Self {
            plain_skills: &presence.skills,
            plain_models: &presence.models,
            ..Self::new(&presence.specs, &presence.labels, &presence.probed, said)
        }
    }

    /// A label, whatever the case of its name.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        label(self.labels, name)
    }

    /// Its word for its system or processor; an operator's label where it has measured none.
    pub(super) fn word(&self, word: super::Word) -> &'a str {
        let measured = match word {
            super::Word::Os => &self.specs.os,
            super::Word::Arch => &self.specs.arch,
        };
        match measured.as_str() {
            "" => self.label(word.as_str()).unwrap_or(""),
            measured => measured,
        }
    }
}
