//! What a job needs of its machine: requirements, their canonical form, and who satisfies them.
//!
//! A set of requirements has one canonical form, whatever the order, units and repetitions it was
//! typed with; the form's hash names the lane in which such jobs wait ([`Needs::lane`]). Agents
//! read the form back and compare it with their own [`Facts`]; so do dispatch and `explain` with
//! those that machines told, so that all of them say the same.
//!
//! | typed | means |
//! |---|---|
//! | `os=macos` `arch=aarch64` | what the machine measured itself to be |
//! | `mem>=16GiB` `cores>=8` `gpu` `gpu>=2` `gpu-mem>=24GiB` | at least so much; memory and graphics processors are reserved while the job runs |
//! | `docker` `node>=20` `node<23` `node@20` | a skill that works, from a version on, below one, of those that begin so |
//! | `site=ams` | a label |
//! | `model=llama3` `model=llama3:8b` `repo=git@…` | a model that is loaded, a repository that can be read |
//!
//! Pure, like everything here.

mod facts;
mod matching;
mod parse;
mod room;
mod size;
mod standing;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Lane;

pub(crate) use facts::label;
pub use facts::{Access, Facts, Gpu, Model, Probed, Reserved, STALE_INTERVALS, Skill};
pub use matching::{Found, Missing, Near, nearest};
pub use parse::{Amount, NeedError, Problem, VALUE_MAX_BYTES, WORD_MAX_BYTES, Word};
pub use room::{Room, Share};
pub use size::{exact as exact_size, rounded as rounded_size, unit_bytes};
pub use standing::Standing;
pub use version::{Span, Version};

use parse::{Need, Piece};

/// The kind of a lane's envelope.
pub const LANE_KIND: &str = "lane";

/// What is kept of a lane: the canonical form of what it requires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneForm {
    /// That form; empty for [`Lane::any`].
    #[serde(default)]
    pub requires: String,
}

impl LaneForm {
    /// The requirements of this lane; none where the form is not the one that names it, or cannot be
    /// read: of a later fleet.
    #[must_use]
    pub fn needs(&self, lane: &Lane) -> Option<Needs> {
        let named = Lane::of_canonical_form(&self.requires) == *lane;
        self.requires.parse().ok().filter(|_| named)
    }
}

/// Most requirements of one job.
pub const NEEDS_MAX: usize = 32;

/// A set of requirements. Its `Display` is the canonical form; the empty set's is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Needs {
    words: BTreeMap<Word, String>,
    amounts: BTreeMap<Amount, u64>,
    labels: BTreeMap<String, String>,
    skills: BTreeMap<String, Span>,
    models: BTreeSet<String>,
    repos: BTreeSet<String>,
}

impl Needs {
    /// The set that these texts require, each one requirement or several with commas between.
    ///
    /// # Errors
    /// The first that is none, or that contradicts those before it.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NeedError> {
        let mut needs = Self::default();
        for text in texts {
            for piece in Piece::all(text) {
                needs.add(&piece)?;
            }
        }
        Ok(needs)
    }

    fn add(&mut self, piece: &Piece<'_>) -> Result<(), NeedError> {
        let contradicts = |before: String| {
            piece.wrong(0, Problem::Contradiction, format!("drop it, or {before}"))
        };
        match piece.need()? {
            Need::Word(word, value) => {
                let before = self.words.entry(word).or_insert_with(|| value.clone());
                if *before != value {
                    return Err(contradicts(format!("{}={before}", word.as_str())));
                }
            }
            Need::Amount(amount, n) => {
                let before = self.amounts.entry(amount).or_default();
                *before = n.max(*before);
            }
            Need::Label(name, value) => {
                let before = self
                    .labels
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
                if *before != value {
                    return Err(contradicts(format!("{name}={before}")));
                }
            }
            Need::Skill(name, span) => {
                let before = self.skills.entry(name.clone()).or_default();
                let both = before.and(&span);
                if both.is_empty() {
                    return Err(contradicts(before.words(&name).join(",")));
                }
                *before = both;
            }
            Need::Model(name) => drop(self.models.insert(name)),
            Need::Repo(url) => drop(self.repos.insert(url)),
        }
        // A graphics processor with so much memory is one to begin with.
        if self.amounts.contains_key(&Amount::GpuMem) && self.amounts.get(&Amount::Gpu) == Some(&1)
        {
            self.amounts.remove(&Amount::Gpu);
        }
        if self.len() > NEEDS_MAX {
            let hint = format!("use at most {NEEDS_MAX}");
            return Err(piece.wrong(0, Problem::TooMany, hint));
        }
        Ok(())
    }

    /// How many different things it requires.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
            + self.amounts.len()
            + self.labels.len()
            + self.skills.len()
            + self.models.len()
            + self.repos.len()
    }

    /// Whether it requires nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lane in which jobs with these requirements wait.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::of_canonical_form(&self.to_string())
    }

    /// What a job with these requirements holds of its machine while it runs.
    #[must_use]
    pub fn share(&self) -> Share {
        let amount = |amount| self.amounts.get(&amount).copied();
        let gpu_mem = amount(Amount::GpuMem).unwrap_or(0);
        let gpus = amount(Amount::Gpu).unwrap_or(u64::from(gpu_mem > 0));
        Share {
            mem: amount(Amount::Mem).unwrap_or(0),
            gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
            gpu_mem,
        }
    }

    /// Every requirement in canonical words, in order.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let named = |name: &str, value: &str| format!("{name}={value}");
        words.extend(self.words.iter().map(|(w, value)| named(w.as_str(), value)));
        words.extend(self.amounts.iter().map(|(amount, n)| amount.write(*n)));
        words.extend(self.labels.iter().map(|(name, value)| named(name, value)));
        words.extend(self.skills.iter().flat_map(|(name, span)| span.words(name)));
        words.extend(self.models.iter().map(|name| named("model", name)));
        words.extend(self.repos.iter().map(|url| named("repo", url)));
        words.sort_unstable();
        words
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words().join(","))
    }
}

impl FromStr for Needs {
    type Err = NeedError;
    fn from_str(text: &str) -> Result<Self, NeedError> {
        match text {
            "" => Ok(Self::default()),
            text => Self::parse([text]),
        }
    }
}

impl Serialize for Needs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Needs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
