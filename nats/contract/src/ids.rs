//! Names of things: machines, jobs, attempts, tickets, lanes.
//!
//! Every id is validated before it becomes a token of a subject, a folder or a word on screen,
//! so that nothing a peer or a person sent can escape its place.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Words that mean a part of fleet on the bus and can therefore not name a machine.
pub const RESERVED_MACHINE_IDS: [&str; 5] = ["operator", "keeper", "hub", "all", "here"];

/// Longest machine id in bytes (one DNS label, so that a host name always fits).
pub const MACHINE_ID_MAX: usize = 63;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not `[a-z0-9][a-z0-9_-]{0,62}`.
    #[error(
        "machine id {0:?} is not valid: use 1 to 63 of a-z, 0-9, '-' and '_', the first a letter or digit"
    )]
    Machine(String),
    /// The text is one of [`RESERVED_MACHINE_IDS`].
    #[error("machine id {0:?} is a word fleet uses itself: choose another")]
    Reserved(String),
    /// The text is not 16 characters of lower-case base32.
    #[error("{what} id {text:?} is not valid: expected 16 characters of a-z and 2-7")]
    Random {
        /// Which kind of id was expected.
        what: &'static str,
        /// What came instead.
        text: String,
    },
    /// The text is not a lane's name.
    #[error("lane {0:?} is not valid: expected 'any' or 16 characters of a-z and 2-7")]
    Lane(String),
    /// The text is not a writer of the journal.
    #[error("journal writer {0:?} is not valid: expected 'operator', 'keeper' or a machine id")]
    Writer(String),
}

/// RFC 4648 base32 in lower case without padding: the ids' alphabet.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // A constant of this file, valid by the tests below.
    spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

fn encode80(bytes: [u8; 10]) -> [u8; 16] {
    let mut out = [0; 16];
    BASE32.encode_mut(&bytes, &mut out);
    out
}

fn is_base32_16(text: &str) -> bool {
    text.len() == 16
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
}

/// Serde by way of `Display` and `FromStr`, for ids that travel as text.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id made of these 80 random bits.
            #[must_use]
            pub fn from_random(bits: [u8; 10]) -> Self {
                Self(encode80(bits))
            }

            /// The id's 16 characters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                // Made of ASCII only, by construction and by `FromStr`.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes: [u8; 16] = text.as_bytes().try_into().map_err(|_| IdError::Random {
                    what: $what,
                    text: clip(text),
                })?;
                if is_base32_16(text) {
                    Ok(Self(bytes))
                } else {
                    Err(IdError::Random { what: $what, text: clip(text) })
                }
            }
        }

        serde_as_text!($name);
    };
}

/// Keeps an error message short whatever a peer sent.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

random_id!(
    /// A job: 80 random bits in lower-case base32, shown as its shortest unique prefix.
    JobId,
    "job"
);
random_id!(
    /// One try at a job, named by the agent that makes it.
    AttemptId,
    "attempt"
);
random_id!(
    /// A ticket in a lane; also its `Nats-Msg-Id`.
    TicketId,
    "ticket"
);
random_id!(
    /// One message on the bus.
    MessageId,
    "message"
);
random_id!(
    /// One `FLEET_HOME` of an agent: a restart is the same instance, a second home is another.
    InstanceId,
    "instance"
);

impl JobId {
    /// The id of the job with this idempotency key: the same key is the same job.
    #[must_use]
    pub fn from_key(key: &str) -> Self {
        Self::derived("key", key, 0)
    }

    /// The id of the `index`-th job of a dispatch with this key and `--count`.
    #[must_use]
    pub fn from_key_and_index(key: &str, index: u32) -> Self {
        Self::derived("key-index", key, index)
    }

    fn derived(domain: &str, key: &str, index: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(domain.as_bytes());
        hash.update([0]);
        hash.update(index.to_be_bytes());
        hash.update(key.as_bytes());
        Self(encode80(first10(&hash.finalize())))
    }
}

fn first10(hash: &[u8]) -> [u8; 10] {
    let mut out = [0; 10];
    out.copy_from_slice(&hash[..10]);
    out
}

/// An operator-named machine, `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(Arc<str>);

impl MachineId {
    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id nearest to a host name: lower case, everything after the first dot dropped, other
    /// characters as `-`. `machine` where nothing is left.
    #[must_use]
    pub fn from_host_name(host: &str) -> Self {
        let label = host.split('.').next().unwrap_or_default().to_lowercase();
        let mapped: String = label
            .chars()
            .map(|c| {
                if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' {
                    c
                } else {
                    '-'
                }
            })
            .skip_while(|c| !c.is_ascii_alphanumeric())
            .take(MACHINE_ID_MAX)
            .collect();
        mapped
            .trim_end_matches('-')
            .parse()
            .unwrap_or_else(|_| Self("machine".into()))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MachineId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let body = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !first || text.len() > MACHINE_ID_MAX || !text.bytes().all(body) {
            return Err(IdError::Machine(clip(text)));
        }
        if RESERVED_MACHINE_IDS.contains(&text) {
            return Err(IdError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

serde_as_text!(MachineId);

/// The queue of one requirement set: `any`, or the hash of its canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(String);

impl Lane {
    /// The lane of jobs without requirements.
    #[must_use]
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// The lane of a requirement set in canonical form; the empty form is [`Lane::any`].
    #[must_use]
    pub fn of_canonical_form(form: &str) -> Self {
        if form.is_empty() {
            return Self::any();
        }
        let text = encode80(first10(&Sha256::digest(form.as_bytes())));
        Self(String::from_utf8_lossy(&text).into_owned())
    }

    /// The lane's token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Lane {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "any" || is_base32_16(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Lane(clip(text)))
        }
    }
}

serde_as_text!(Lane);

/// Who wrote a record of the journal; the last token of its subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
    /// A person, or a program with the operator's permission.
    Operator,
    /// The hub's keeper.
    Keeper,
    /// The agent of a machine.
    Machine(MachineId),
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Operator => "operator",
            Self::Keeper => "keeper",
            Self::Machine(m) => m.as_str(),
        })
    }
}

impl FromStr for Writer {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "operator" => Ok(Self::Operator),
            "keeper" => Ok(Self::Keeper),
            other => other
                .parse()
                .map(Self::Machine)
                .map_err(|_| IdError::Writer(clip(text))),
        }
    }
}

serde_as_text!(Writer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_round_trip_and_refuse_what_is_not_one() {
        let id = JobId::from_random([0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(id.as_str().len(), 16);
        assert_eq!(id.as_str().parse::<JobId>(), Ok(id));
        for bad in [
            "",
            "ABCDEFGHIJKLMNOP",
            "abcdefghijklmno",
            "abcdefghijklmno1",
            "a.b",
            "äääääääää",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
        assert_ne!(JobId::from_key("a"), JobId::from_key("b"));
        assert_ne!(JobId::from_key("a"), JobId::from_key_and_index("a", 0));
    }

    #[test]
    fn machine_ids_are_one_subject_token() {
        for good in ["studio", "a", "0", "mac-mini_2", &"x".repeat(63)] {
            assert!(good.parse::<MachineId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a.b",
            "a*",
            "a>",
            "a b",
            "ä",
            "hub",
            "all",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_becomes_a_machine_id() {
        assert_eq!(
            MachineId::from_host_name("Anas-MacBook.local").as_str(),
            "anas-macbook"
        );
        assert_eq!(MachineId::from_host_name("").as_str(), "machine");
        assert_eq!(MachineId::from_host_name("hub").as_str(), "machine");
        assert_eq!(MachineId::from_host_name("--ü").as_str(), "machine");
    }

    #[test]
    fn the_empty_requirement_set_is_the_lane_any() {
        assert_eq!(Lane::of_canonical_form(""), Lane::any());
        let lane = Lane::of_canonical_form("docker");
        assert_eq!(lane.as_str().parse(), Ok(lane.clone()));
    }

    #[test]
    fn ids_travel_as_text() {
        let writer: Writer = serde_json::from_str("\"studio\"").unwrap();
        assert_eq!(serde_json::to_string(&writer).unwrap(), "\"studio\"");
        assert!(serde_json::from_str::<MachineId>("\"a.b\"").is_err());
    }
}
