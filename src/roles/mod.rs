//! Roles: named templates of jobs. A role is TOML; it becomes a command, its world and its
//! requirements where it is dispatched, and only these travel, with the role's name and hash.

mod catalogue;
mod definition;
pub(crate) mod flags;
mod param;
mod resolve;
mod template;

use std::fmt;
use std::path::PathBuf;

pub(crate) use catalogue::{Broken, Catalogue};
pub(crate) use definition::{Case, Conditional, Definition, MessageRule, Word};
pub(crate) use param::{Kind, Param};
pub(crate) use resolve::{Given, ResolveError, Resolved};

/// Where a role is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In fleet itself.
    Shipped,
    /// In a file of its own in `roles.d`.
    File(PathBuf),
    /// In a project's `.fleet.toml`.
    Project(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shipped => f.write_str("fleet"),
            Self::File(path) | Self::Project(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    /// Its name.
    pub(crate) name: String,
    /// Where it is defined.
    pub(crate) origin: Origin,
    /// What it is.
    pub(crate) definition: Definition,
}

impl Role {
    /// What tells its definition from every other.
    pub(crate) fn hash(&self) -> String {
        self.definition.hash()
    }
}
