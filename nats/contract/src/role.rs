//! What a job tells of the role it was made from. The role itself stays where the job was
//! dispatched: what it said then is in the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest name of a role or of a parameter, in bytes.
pub const ROLE_NAME_MAX_BYTES: usize = 32;
/// Most parameters of a role.
pub const ROLE_PARAMS_MAX: usize = 32;

/// The role a job was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromRole {
    /// Its name.
    pub name: String,
    /// What tells its definition from every other of that name.
    pub hash: String,
    /// What its parameters were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

impl FromRole {
    /// Whether it is within its limits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let word = |text: &str| {
            !text.is_empty()
                && text.len() <= ROLE_NAME_MAX_BYTES
                && !text.chars().any(char::is_control)
        };
        word(&self.name)
            && word(&self.hash)
            && self.params.len() <= ROLE_PARAMS_MAX
            && self.params.keys().all(|name| word(name))
    }

    /// Bytes of everything of variable length.
    pub(crate) fn weight(&self) -> usize {
        let params = self.params.iter().map(|(k, v)| k.len() + v.len() + 6);
        self.name.len() + self.hash.len() + params.sum::<usize>()
    }
}
