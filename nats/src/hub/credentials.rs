//! A credentials file: what a machine or a person shows to the hub. The standard NATS text, so
//! that other programs can use it, below comment lines that say whose it is and where the hub is.
//! Parsing touches no disk; [`Credentials::load`] does nothing but read and parse.

use std::fmt;
use std::path::{Path, PathBuf};

use fleet_contract::ids::MachineId;
use nkeys::{KeyPair, KeyPairType};

use super::jwt;
use super::permission::{Permission, PermissionError};

/// Larger files are no credentials.
const MAX_BYTES: u64 = 64 * 1024;

/// Most addresses one file may name.
const MAX_HUBS: usize = 16;

/// A user of the fleet: name, rights, key and the hub's addresses. `Debug` hides the secret.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    permission: Permission,
    hubs: Vec<String>,
    jwt: String,
    seed: String,
}

/// Why a text is not a credentials file, or not the right one.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file does not exist.
    #[error("no credentials at {}: on the hub run 'fleet hub credentials --machine M --out FILE' and bring FILE here", .0.display())]
    Missing(PathBuf),
    /// The file could not be read.
    #[error("cannot read credentials {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text has no user JWT, or one that cannot be read.
    #[error("not a fleet credentials file: it has no NATS user JWT")]
    NotCredentials,
    /// The text has a JWT but no seed, or one that is not a user's.
    #[error("the credentials hold no user seed: the file is incomplete, get it again from the hub")]
    NoSeed,
    /// Seed and JWT speak of different users.
    #[error("the seed does not belong to the JWT: the file was put together from two")]
    SeedMismatch,
    /// The header says another name than the JWT.
    #[error("the header names {header:?} but the JWT is for {jwt:?}: the file was edited")]
    NameMismatch {
        /// In the comment lines.
        header: String,
        /// In the JWT.
        jwt: String,
    },
    /// No `# permission:` line.
    #[error("the credentials do not say their permission: expected a line '# permission: worker'")]
    NoPermission,
    /// A permission that does not exist.
    #[error(transparent)]
    Permission(#[from] PermissionError),
    /// The name is not one subject token.
    #[error("the name {0:?} in the credentials is not one word of a-z, 0-9, '-' and '_'")]
    Name(String),
    /// More than 16 `# hub:` lines, or more than 64 KiB.
    #[error("the credentials file is too large")]
    TooLarge,
    /// They belong to somebody else.
    #[error(
        "these credentials are for {permission} {name:?}, not for machine {wanted:?}: {}get others with 'fleet hub credentials --machine {wanted}'",
        match permission {
            Permission::Worker => format!("start with '--name {name}', or "),
            Permission::Viewer | Permission::Operator => String::new(),
        }
    )]
    WrongMachine {
        /// Who was expected.
        wanted: MachineId,
        /// Whose they are.
        name: String,
        /// Their rights.
        permission: Permission,
    },
}

impl Credentials {
    pub(crate) fn new(
        name: String,
        permission: Permission,
        hubs: Vec<String>,
        jwt: String,
        seed: String,
    ) -> Self {
        Self {
            name,
            permission,
            hubs,
            jwt,
            seed,
        }
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`CredentialsError`]; a missing file has its own.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        use std::io::Read;
        let read = |source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => CredentialsError::Missing(path.to_owned()),
            _ => read(e),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| CredentialsError::NotCredentials)?;
        Self::parse(text)
    }

    /// Parses the text of a credentials file.
    ///
    /// # Errors
    /// [`CredentialsError`] for a text that is not one, is incomplete or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        if text.len() as u64 > MAX_BYTES {
            return Err(CredentialsError::TooLarge);
        }
        let header = Header::parse(text)?;
        let jwt = block(text, "NATS USER JWT").ok_or(CredentialsError::NotCredentials)?;
        let subject = jwt::subject(jwt).ok_or(CredentialsError::NotCredentials)?;
        let seed = block(text, "USER NKEY SEED").ok_or(CredentialsError::NoSeed)?;
        let pair = KeyPair::from_seed(seed).map_err(|_| CredentialsError::NoSeed)?;
        if pair.key_pair_type() != KeyPairType::User {
            return Err(CredentialsError::NoSeed);
        }
        if pair.public_key() != subject.sub {
            return Err(CredentialsError::SeedMismatch);
        }
        if let Some(name) = header.name.filter(|name| *name != subject.name) {
            return Err(CredentialsError::NameMismatch {
                header: clip(&name),
                jwt: clip(&subject.name),
            });
        }
        if !is_name(&subject.name) {
            return Err(CredentialsError::Name(clip(&subject.name)));
        }
        let permission = header
            .permission
            .ok_or(CredentialsError::NoPermission)?
            .parse()?;
        Ok(Self::new(
            subject.name,
            permission,
            header.hubs,
            jwt.to_owned(),
            seed.to_owned(),
        ))
    }

    /// The file's text, secret included.
    #[must_use]
    pub fn to_text(&self) -> String {
        let who = match self.permission {
            Permission::Worker => "machine",
            Permission::Viewer | Permission::Operator => "user",
        };
        let mut text = format!(
            "# fleet credentials\n# {who}: {}\n# permission: {}\n",
            self.name, self.permission
        );
        for hub in &self.hubs {
            text.push_str("# hub: ");
            text.push_str(hub);
            text.push('\n');
        }
        text.push_str("# Keep this file secret: whoever has it is this user.\n");
        text.push_str(&self.nats_text());
        text
    }

    /// The JWT as the server wants it.
    pub(crate) fn jwt(&self) -> &str {
        &self.jwt
    }

    /// The key that signs what the server asks to be signed.
    pub(crate) fn key(&self) -> Result<KeyPair, nkeys::error::Error> {
        KeyPair::from_seed(&self.seed)
    }

    /// The part that NATS clients read.
    fn nats_text(&self) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.jwt, self.seed
        )
    }

    /// The machine, or the name of the person or program.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What they may do.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// Where the hub is, best first. May be empty.
    #[must_use]
    pub fn hubs(&self) -> &[String] {
        &self.hubs
    }

    /// The same user at other addresses.
    #[must_use]
    pub fn with_hubs(mut self, hubs: Vec<String>) -> Self {
        self.hubs = hubs;
        self
    }

    /// The user's public key, safe to show.
    #[must_use]
    pub fn public_key(&self) -> String {
        jwt::subject(&self.jwt).map(|s| s.sub).unwrap_or_default()
    }

    /// The key that signed them; none where the JWT cannot be read.
    #[must_use]
    pub fn issuer(&self) -> Option<String> {
        jwt::subject(&self.jwt).map(|s| s.iss)
    }

    /// The prefix of inboxes this user may subscribe to.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        self.permission.inbox_prefix(&self.name)
    }

    /// Refuses credentials that are not this machine's own.
    ///
    /// # Errors
    /// [`CredentialsError::WrongMachine`].
    pub fn expect_machine(&self, machine: &MachineId) -> Result<(), CredentialsError> {
        if self.permission == Permission::Worker && self.name == machine.as_str() {
            return Ok(());
        }
        Err(CredentialsError::WrongMachine {
            wanted: machine.clone(),
            name: self.name.clone(),
            permission: self.permission,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .field("permission", &self.permission)
            .field("hubs", &self.hubs)
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

/// Whether the text may be a user's name: one subject token, like a machine's.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[derive(Default)]
struct Header {
    name: Option<String>,
    permission: Option<String>,
    hubs: Vec<String>,
}

impl Header {
    /// Comment lines `# key: value` above the JWT; unknown ones are left alone.
    fn parse(text: &str) -> Result<Self, CredentialsError> {
        let mut header = Self::default();
        for line in text.lines().take_while(|line| !line.starts_with("---")) {
            let Some((key, value)) = line
                .strip_prefix('#')
                .and_then(|line| line.split_once(':'))
                .map(|(key, value)| (key.trim(), value.trim()))
            else {
                continue;
            };
            match key {
                "machine" | "user" => header.name = Some(value.to_owned()),
                "permission" => header.permission = Some(value.to_owned()),
                "hub" if header.hubs.len() == MAX_HUBS => return Err(CredentialsError::TooLarge),
                "hub" => header.hubs.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(header)
    }
}

/// The one line between `-----BEGIN <what>-----` and `------END <what>------`.
fn block<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == format!("-----BEGIN {what}-----"))?;
    let body = lines.next().filter(|line| !line.is_empty())?;
    (lines.next() == Some(&format!("------END {what}------"))).then_some(body)
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn studio() -> Credentials {
        let account = KeyPair::new_account();
        let key = KeyPair::new_user();
        let jwt = jwt::user(1, &account, &account, &key, "studio", true).unwrap();
        Credentials::new(
            "studio".into(),
            Permission::Worker,
            vec!["nats://hub:4222".into(), "nats://10.0.0.1:4222".into()],
            jwt,
            key.seed().unwrap(),
        )
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let written = studio();
        let read = Credentials::parse(&written.to_text()).unwrap();
        assert_eq!(read.name(), "studio");
        assert_eq!(read.permission(), Permission::Worker);
        assert_eq!(read.hubs(), written.hubs());
        assert_eq!(read.to_text(), written.to_text());
        assert_eq!(read.inbox_prefix(), "_INBOX.studio");
        let crlf = written.to_text().replace('\n', "\r\n");
        assert_eq!(Credentials::parse(&crlf).unwrap().name(), "studio");
    }

    #[test]
    fn the_seed_is_not_in_debug_output() {
        let credentials = studio();
        let shown = format!("{credentials:?}");
        assert!(shown.contains("studio"));
        assert!(!shown.contains(&credentials.seed) && !shown.contains(&credentials.jwt));
    }

    #[test]
    fn each_wrong_file_has_its_own_error() {
        let good = studio();
        let text = good.to_text();
        let other = studio();
        let cases: [(&str, String, &str); 9] = [
            ("empty", String::new(), "no NATS user JWT"),
            (
                "prose",
                "# permission: worker\nhello\n".into(),
                "no NATS user JWT",
            ),
            (
                "torn jwt",
                text.replace(&good.jwt, "a.b.c"),
                "no NATS user JWT",
            ),
            (
                "no seed",
                text.split("-----BEGIN USER").next().unwrap().into(),
                "no user seed",
            ),
            (
                "an account's seed",
                text.replace(&good.seed, &KeyPair::new_account().seed().unwrap()),
                "no user seed",
            ),
            (
                "another's seed",
                text.replace(&good.seed, &other.seed),
                "does not belong",
            ),
            (
                "renamed",
                text.replace("# machine: studio", "# machine: mini"),
                "was edited",
            ),
            (
                "no permission",
                text.replace("# permission: worker\n", ""),
                "do not say their permission",
            ),
            (
                "unknown permission",
                text.replace("# permission: worker", "# permission: god"),
                "not known",
            ),
        ];
        for (what, text, expected) in cases {
            let error = Credentials::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{what}: {error}");
        }
        let long = "#\n".repeat(40_000);
        assert!(matches!(
            Credentials::parse(&long),
            Err(CredentialsError::TooLarge)
        ));
        let many = "# hub: nats://a\n".repeat(17);
        assert!(matches!(
            Credentials::parse(&many),
            Err(CredentialsError::TooLarge)
        ));
    }

    #[test]
    fn another_machines_credentials_are_refused() {
        let studio = studio();
        studio.expect_machine(&"studio".parse().unwrap()).unwrap();
        let error = studio.expect_machine(&"mini".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("--machine mini"), "{error}");
    }

    #[test]
    fn a_missing_file_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Credentials::load(&dir.path().join("no.creds")).unwrap_err();
        assert!(
            error.to_string().contains("fleet hub credentials"),
            "{error}"
        );
    }
}
