//! Who the fleet is: an operator, the system account, the fleet's account and three scoped
//! signing keys. Made once per hub and reloaded ever after; a machine needs no change of the
//! server, only credentials signed by the key of its permission. Secrets stay in this module
//! and in the files it writes (0600).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fleet_contract::ids::MachineId;
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};

use super::credentials::{Credentials, is_name};
use super::jwt::{self, Scope};
use super::permission::Permission;
use crate::files::{private_dir, write_durably};
use crate::home::Home;

/// Names of the accounts in the server.
const FLEET_ACCOUNT: &str = "FLEET";
const SYSTEM_ACCOUNT: &str = "SYS";

/// Why there is no identity, or no credentials.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The home has none: no hub was ever started there.
    #[error("no hub identity at {}: run 'fleet up' or 'fleet hub run' once on this machine", .0.display())]
    Missing(PathBuf),
    /// The file could not be read or written.
    #[error("cannot {verb} hub identity {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what this module writes. It is never replaced: a new identity would lock
    /// out every machine and hide the store.
    #[error("hub identity {} is damaged ({why}): restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, no secret in it.
        why: String,
    },
    /// The name cannot be a user's.
    #[error("{0:?} cannot name a user: use 1 to 63 of a-z, 0-9, '-' and '_'")]
    Name(String),
    /// A worker must be named like a machine.
    #[error(transparent)]
    Machine(#[from] fleet_contract::ids::IdError),
    /// A key could not sign; never happens with keys that were loaded.
    #[error("cannot sign credentials: {0}")]
    Sign(String),
}

impl From<nkeys::error::Error> for IdentityError {
    fn from(error: nkeys::error::Error) -> Self {
        Self::Sign(error.to_string())
    }
}

/// The keys of one fleet. `Debug` shows public keys only.
pub struct Identity {
    operator: KeyPair,
    system: KeyPair,
    system_user: KeyPair,
    fleet: KeyPair,
    worker: KeyPair,
    viewer: KeyPair,
    operators: KeyPair,
    keeper_user: KeyPair,
}

/// The file: one, so that it is there whole or not at all.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    operator: String,
    system: String,
    system_user: String,
    fleet: String,
    worker: String,
    viewer: String,
    operators: String,
    keeper_user: String,
}

const VERSION: u32 = 1;

impl Identity {
    /// Loads the identity of this home, or makes it. Call it with the hub's lock held.
    ///
    /// # Errors
    /// [`IdentityError`]; a damaged file is never replaced.
    pub fn load_or_create(home: &Home) -> Result<Self, IdentityError> {
        match Self::load(home) {
            Err(IdentityError::Missing(_)) => {}
            loaded => return loaded,
        }
        let identity = Self {
            operator: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            system_user: KeyPair::new_user(),
            fleet: KeyPair::new_account(),
            worker: KeyPair::new_account(),
            viewer: KeyPair::new_account(),
            operators: KeyPair::new_account(),
            keeper_user: KeyPair::new_user(),
        };
        let path = home.identity();
        let text = serde_json::to_vec_pretty(&identity.stored()?)
            .map_err(|e| IdentityError::Sign(e.to_string()))?;
        private_dir(&home.hub_dir())
            .and_then(|()| private_dir(&home.keys_dir()))
            .and_then(|()| write_durably(&path, &text, 0o600))
            .map_err(|source| IdentityError::File {
                verb: "write",
                path,
                source,
            })?;
        Ok(identity)
    }

    /// Loads the identity of this home.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] where no hub was ever started.
    pub fn load(home: &Home) -> Result<Self, IdentityError> {
        let path = home.identity();
        let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing(path.clone()),
            _ => IdentityError::File {
                verb: "read",
                path: path.clone(),
                source,
            },
        })?;
        // serde's message would quote what it found; only its place is shown.
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(|e| damaged(&path, place(&e)))?;
        if stored.version != VERSION {
            let why = format!("version {}, this fleet knows {VERSION}", stored.version);
            return Err(damaged(&path, why));
        }
        let key = |name: &str, seed: &str, kind| {
            KeyPair::from_seed(seed)
                .ok()
                .filter(|key| key.key_pair_type() == kind)
                .ok_or_else(|| damaged(&path, format!("its {name} key is not valid")))
        };
        Ok(Self {
            operator: key("operator", &stored.operator, KeyPairType::Operator)?,
            system: key("system", &stored.system, KeyPairType::Account)?,
            system_user: key("system user", &stored.system_user, KeyPairType::User)?,
            fleet: key("fleet", &stored.fleet, KeyPairType::Account)?,
            worker: key("worker", &stored.worker, KeyPairType::Account)?,
            viewer: key("viewer", &stored.viewer, KeyPairType::Account)?,
            operators: key("operators", &stored.operators, KeyPairType::Account)?,
            keeper_user: key("keeper user", &stored.keeper_user, KeyPairType::User)?,
        })
    }

    fn stored(&self) -> Result<Stored, IdentityError> {
        Ok(Stored {
            version: VERSION,
            operator: self.operator.seed()?,
            system: self.system.seed()?,
            system_user: self.system_user.seed()?,
            fleet: self.fleet.seed()?,
            worker: self.worker.seed()?,
            viewer: self.viewer.seed()?,
            operators: self.operators.seed()?,
            keeper_user: self.keeper_user.seed()?,
        })
    }

    fn signing_key(&self, permission: Permission) -> &KeyPair {
        match permission {
            Permission::Worker => &self.worker,
            Permission::Viewer => &self.viewer,
            Permission::Operator => &self.operators,
        }
    }

    /// The permission whose key this is.
    pub(crate) fn permission_of(&self, key: &str) -> Option<Permission> {
        Permission::ALL
            .into_iter()
            .find(|permission| self.signing_key(*permission).public_key() == key)
    }

    /// Public key of the fleet's account, as it appears in the server's own events.
    #[must_use]
    pub fn account(&self) -> String {
        self.fleet.public_key()
    }

    /// The fleet's account, without those users.
    pub(crate) fn fleet_account(
        &self,
        issued_at: i64,
        revoked: &BTreeMap<String, i64>,
    ) -> Result<String, IdentityError> {
        let scopes = Permission::ALL.map(|permission| Scope {
            role: permission.as_str(),
            key: self.signing_key(permission),
            template: permission.template(),
        });
        let (operator, fleet) = (&self.operator, &self.fleet);
        let all = jwt::account(
            issued_at,
            operator,
            fleet,
            FLEET_ACCOUNT,
            true,
            &scopes,
            revoked,
        )?;
        Ok(all)
    }

    /// What the server's configuration needs. `revoked` as in [`Self::fleet_account`].
    pub(crate) fn trust(
        &self,
        issued_at: i64,
        revoked: &BTreeMap<String, i64>,
    ) -> Result<Trust, IdentityError> {
        let fleet = self.fleet_account(issued_at, revoked)?;
        let system = jwt::account(
            issued_at,
            &self.operator,
            &self.system,
            SYSTEM_ACCOUNT,
            false,
            &[],
            &BTreeMap::new(),
        )?;
        Ok(Trust {
            operator_jwt: jwt::operator(issued_at, &self.operator, &self.system)?,
            system_account: self.system.public_key(),
            accounts: vec![
                (self.system.public_key(), system),
                (self.fleet.public_key(), fleet),
            ],
        })
    }

    /// Credentials of a new user with a key of its own.
    ///
    /// # Errors
    /// A worker must be named like a machine, the others by one word.
    pub fn issue(
        &self,
        issued_at: i64,
        name: &str,
        permission: Permission,
        hubs: Vec<String>,
    ) -> Result<Credentials, IdentityError> {
        self.issue_to(&KeyPair::new_user(), issued_at, name, permission, hubs)
    }

    fn issue_to(
        &self,
        key: &KeyPair,
        issued_at: i64,
        name: &str,
        permission: Permission,
        hubs: Vec<String>,
    ) -> Result<Credentials, IdentityError> {
        if permission == Permission::Worker {
            name.parse::<MachineId>()?;
        } else if !is_name(name) {
            return Err(IdentityError::Name(name.chars().take(80).collect()));
        }
        let signer = self.signing_key(permission);
        let jwt = jwt::user(issued_at, signer, &self.fleet, key, name, true)?;
        Ok(Credentials::new(
            name.to_owned(),
            permission,
            hubs,
            jwt,
            key.seed()?,
        ))
    }

    /// The hub's own user of the fleet's account: operator's rights, named `keeper`.
    ///
    /// # Errors
    /// Only where a key cannot sign.
    pub fn keeper(&self, issued_at: i64, hubs: Vec<String>) -> Result<Credentials, IdentityError> {
        let operator = Permission::Operator;
        self.issue_to(&self.keeper_user, issued_at, "keeper", operator, hubs)
    }

    /// The hub's user of the system account, for the server's own events. Never written to a file
    /// and never given to another process.
    ///
    /// # Errors
    /// Only where a key cannot sign.
    pub fn system(&self, issued_at: i64, hubs: Vec<String>) -> Result<Credentials, IdentityError> {
        let key = &self.system_user;
        let jwt = jwt::user(issued_at, &self.system, &self.system, key, "hub", false)?;
        Ok(Credentials::new(
            "hub".to_owned(),
            Permission::Operator,
            hubs,
            jwt,
            key.seed()?,
        ))
    }

    /// Writes `credentials/operator.creds`. The same user stays as long as the identity does; only
    /// the addresses follow the hub.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn write_operator_credentials(
        &self,
        home: &Home,
        issued_at: i64,
        hubs: Vec<String>,
    ) -> Result<Credentials, IdentityError> {
        let path = home.operator_credentials();
        let known = Credentials::load(&path)
            .ok()
            .filter(|c| c.issuer() == Some(self.operators.public_key()));
        let credentials = match &known {
            Some(known) => known.clone().with_hubs(hubs),
            None => self.issue(issued_at, "operator", Permission::Operator, hubs)?,
        };
        if known.is_some_and(|known| known.to_text() == credentials.to_text()) {
            return Ok(credentials);
        }
        private_dir(&home.credentials_dir())
            .and_then(|()| write_durably(&path, credentials.to_text().as_bytes(), 0o600))
            .map_err(|source| IdentityError::File {
                verb: "write",
                path,
                source,
            })?;
        Ok(credentials)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("operator", &self.operator.public_key())
            .field("account", &self.fleet.public_key())
            .finish_non_exhaustive()
    }
}

/// The public half, for the server.
pub(crate) struct Trust {
    pub(crate) operator_jwt: String,
    pub(crate) system_account: String,
    /// Public key and JWT of each account.
    pub(crate) accounts: Vec<(String, String)>,
}

/// The text of a credentials file for a machine or a person, made by the identity of this home.
/// No server needs to run. `hubs` are the addresses under which the user will reach the hub.
///
/// # Errors
/// [`IdentityError::Missing`] where no hub was ever started; a name that cannot be a user's.
pub fn issue_credentials(
    home: &Home,
    issued_at: i64,
    name: &str,
    permission: Permission,
    hubs: Vec<String>,
) -> Result<String, IdentityError> {
    Ok(Identity::load(home)?
        .issue(issued_at, name, permission, hubs)?
        .to_text())
}

fn damaged(path: &Path, why: impl Into<String>) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn place(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_is_made_once_and_kept_secret() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        assert!(matches!(
            Identity::load(&home),
            Err(IdentityError::Missing(_))
        ));
        let first = Identity::load_or_create(&home).unwrap();
        let again = Identity::load_or_create(&home).unwrap();
        assert_eq!(first.account(), again.account());
        assert_eq!(first.operator.public_key(), again.operator.public_key());
        assert_eq!(mode(&home.identity()), 0o600);
        assert_eq!(mode(&home.keys_dir()), 0o700);
        let shown = format!("{first:?}");
        assert!(!shown.contains(&first.fleet.seed().unwrap()));
    }

    #[test]
    fn a_damaged_identity_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let identity = Identity::load_or_create(&home).unwrap();
        let good = std::fs::read_to_string(home.identity()).unwrap();
        let seed = identity.fleet.seed().unwrap();
        for bad in [
            "{".to_owned(),
            good.replace("\"version\": 1", "\"version\": 9"),
            good.replace(&seed, "SAAA"),
            good.replace(&seed, &KeyPair::new_user().seed().unwrap()),
        ] {
            std::fs::write(home.identity(), &bad).unwrap();
            let error = Identity::load_or_create(&home).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(home.identity()).unwrap(), bad);
        }
    }

    #[test]
    fn the_operators_file_keeps_its_user_and_follows_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let identity = Identity::load_or_create(&home).unwrap();
        let write = |at, hub: &str| {
            identity
                .write_operator_credentials(&home, at, vec![hub.to_owned()])
                .unwrap()
        };
        let first = write(1, "nats://127.0.0.1:4222");
        let second = write(2, "nats://127.0.0.1:5222");
        assert_eq!(first.public_key(), second.public_key());
        let read = Credentials::load(&home.operator_credentials()).unwrap();
        assert_eq!(read.hubs(), ["nats://127.0.0.1:5222"]);
        assert_eq!(mode(&home.operator_credentials()), 0o600);
        assert_eq!(mode(&home.credentials_dir()), 0o700);
        // Another hub's file is replaced: it would not be let in.
        std::fs::remove_file(home.identity()).unwrap();
        let stranger = Identity::load_or_create(&home).unwrap();
        let third = stranger
            .write_operator_credentials(&home, 3, Vec::new())
            .unwrap();
        assert_ne!(third.public_key(), first.public_key());
    }

    #[test]
    fn names_that_could_escape_their_subject_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let identity = Identity::load_or_create(&home).unwrap();
        for bad in ["", "a.b", "*", ">", "a b", "A", "{{name()}}"] {
            for permission in Permission::ALL {
                let issued = identity.issue(1, bad, permission, Vec::new());
                assert!(issued.is_err(), "{bad} {permission}");
            }
        }
        // Names of the contract's own parts cannot be machines, but may be persons.
        assert!(
            identity
                .issue(1, "operator", Permission::Worker, vec![])
                .is_err()
        );
        assert!(
            identity
                .issue(1, "operator", Permission::Operator, vec![])
                .is_ok()
        );
    }
}
