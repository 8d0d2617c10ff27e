//! The hub: nats-server found or installed, given an identity and a configuration, and
//! supervised as a child. What lives on the bus (streams, the keeper) is not in here.

mod config;
pub mod credentials;
pub mod find;
mod health;
pub mod identity;
pub mod install;
mod jwt;
pub mod peers;
pub mod permission;
mod process;
pub mod record;
mod server;
mod supervise;

pub use credentials::{Credentials, CredentialsError};
pub use find::{FindError, FoundServer, SearchPath, find_server};
pub use identity::{Identity, IdentityError, issue_credentials};
pub use install::{InstallError, Installed, Progress, install_server};
pub use peers::{PeerEvent, PeerEventKind, PeerUser};
pub use permission::Permission;
pub use record::{HubRecord, LockedOut, RecordError, Recovering, StreamRecord};
pub use server::{Hub, HubError, HubHandle, HubOptions, running_hub};
pub use supervise::HubEvent;

/// The nats-server that [`install_server`] installs.
pub const PINNED_VERSION: &str = "2.15.1";

/// The oldest nats-server that has what the wire contract needs.
pub const OLDEST_VERSION: find::Version = find::Version {
    major: 2,
    minor: 14,
    patch: 0,
};
