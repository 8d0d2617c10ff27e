//! What a job is asked to be: its command, its world, its policy. Written once at dispatch and
//! never changed; checked by the same rules at both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Lane, MachineId};
use crate::needs::{NeedError, Needs};
pub use crate::role::{FromRole, ROLE_NAME_MAX_BYTES, ROLE_PARAMS_MAX};
use crate::time::Time;

/// Longest single argument, in bytes (Linux `MAX_ARG_STRLEN` is 128 KiB with its NUL).
pub const ARG_MAX_BYTES: usize = 128 * 1024 - 1;
/// Most a whole specification may weigh as JSON without its standard input, in bytes.
pub const SPEC_MAX_BYTES: usize = 512 * 1024;
/// Most standard input a job can carry, in bytes.
pub const STDIN_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most jobs one `--count` can make.
pub const COUNT_MAX: u32 = 100_000;
/// Longest name of a job, in bytes.
pub const NAME_MAX_BYTES: usize = 200;
/// Most tags a job can have.
pub const TAGS_MAX: usize = 64;
/// Longest tag key or value, in bytes.
pub const TAG_MAX_BYTES: usize = 256;
/// Most machines that can have a folder of their own for a job.
pub const FOLDERS_MAX: usize = 256;
/// How long a job may wait before it starts, unless told otherwise: 30 days.
pub const EXPIRES_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much of a job's output is kept, unless told otherwise: 256 MiB.
pub const LOG_KEEP_DEFAULT_BYTES: u64 = 256 * 1024 * 1024;
/// Most attempts more that a failed job can be worth.
pub const RETRIES_MAX: u32 = 1000;
/// Time between TERM and KILL when a job's processes are ended.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// Which of the three queues of a lane a job waits in.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Asked first.
    High,
    /// The usual.
    #[default]
    Normal,
    /// Asked last.
    Low,
}

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The priority's token in a subject.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::High => 'h',
            Self::Normal => 'n',
            Self::Low => 'l',
        }
    }

    /// The priority with this token.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|p| letter.len() == 1 && letter.starts_with(p.letter()))
    }
}

/// What to do with an attempt whose machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// Put it to the operator; nobody else may take the job meanwhile.
    #[default]
    Ask,
    /// Run it again elsewhere, once the lost side has ended its processes.
    Retry,
    /// End the job as lost.
    Fail,
}

/// Where a job waits: on a machine of its own, or in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Strictly this machine.
    Pin(MachineId),
    /// Any machine that satisfies the lane's requirements.
    Lane(Lane),
}

/// The machines that a job would rather run on: one, or all with a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prefer {
    /// This machine.
    Machine(MachineId),
    /// Machines whose label of this name has this value.
    Label(String, String),
}

impl Prefer {
    /// Whether this machine is one of them.
    #[must_use]
    pub fn is(&self, machine: &MachineId, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Machine(preferred) => preferred == machine,
            Self::Label(name, value) => crate::needs::label(labels, name) == Some(value.as_str()),
        }
    }
}

impl std::fmt::Display for Prefer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine(machine) => f.pad(machine.as_str()),
            Self::Label(name, value) => write!(f, "{name}={value}"),
        }
    }
}

impl std::str::FromStr for Prefer {
    type Err = crate::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self::Label(name.to_owned(), value.to_owned()))
            }
            _ => text.parse().map(Self::Machine),
        }
    }
}

/// A job as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Program and arguments; with `shell`, one line for `/bin/sh -c`.
    pub command: Vec<String>,
    /// Whether the command is a line for a shell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell: bool,
    /// Absolute, or `~` or `~/…` for the home of the user on the machine that runs it.
    /// None is that home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Where the folder is another one on some machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cwd_on: BTreeMap<MachineId, String>,
    /// Variables set on top of the machine's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Standard input; none is closed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_base64")]
    pub stdin: Option<Vec<u8>>,
    /// Longest run of one attempt, in milliseconds; then every process is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What to do when the machine is gone.
    #[serde(default)]
    pub on_lost: OnLost,
    /// How many more attempts a failed one is worth.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// The exit codes that are worth another attempt; none are all but 0. A signal counts as 128 and
    /// its number, a time-out as 124.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<u8>,
    /// Where it waits.
    pub target: Target,
    /// What it needs of its machine, in canonical form ([`Needs`]). Text, so that a machine that
    /// cannot read a later fleet's words can still read the job.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub needs: String,
    /// The machines it would rather run on, as [`Prefer`] writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who or what sent it, and anything else the sender wants to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The role it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<FromRole>,
    /// Its number among the jobs of one `--count`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// When it was dispatched, by the dispatcher's clock.
    pub submitted_at: Time,
    /// Who dispatched it: `user@host`.
    pub submitted_by: String,
    /// How long it may wait before it starts, in milliseconds.
    pub expires_ms: u64,
    /// How much output is kept, in bytes; the oldest goes first and is counted.
    #[serde(default = "log_keep_default")]
    pub log_keep_bytes: u64,
}

fn log_keep_default() -> u64 {
    LOG_KEEP_DEFAULT_BYTES
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Why a specification cannot be a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No program to run.
    #[error(
        "empty command: give the program to run after --, such as: fleet dispatch -- make test"
    )]
    EmptyCommand,
    /// A NUL byte, which no program can receive.
    #[error("{0} contains a NUL byte, which no program can receive: remove it")]
    Nul(String),
    /// An argument over [`ARG_MAX_BYTES`].
    #[error(
        "argument {index} is {bytes} bytes, the limit is {ARG_MAX_BYTES}: send large input with --stdin FILE"
    )]
    LongArgument {
        /// Its place in the command, from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// An environment variable's name that no program can receive.
    #[error("environment variable name {0:?} is not valid: it must not be empty or contain '='")]
    EnvName(String),
    /// A working folder that is neither absolute nor under the home.
    #[error("working folder {0:?} is relative: give an absolute path, or one that starts with ~/")]
    RelativeCwd(String),
    /// Standard input over [`STDIN_MAX_BYTES`].
    #[error(
        "standard input is {0} bytes, the limit is {STDIN_MAX_BYTES}: put it in a file on the machine and name that"
    )]
    LongStdin(usize),
    /// A name over [`NAME_MAX_BYTES`], or one with control characters.
    #[error("name is not valid: use at most {NAME_MAX_BYTES} bytes without control characters")]
    Name,
    /// Too many or too long tags.
    #[error(
        "tags are over the limit: at most {TAGS_MAX}, each key and value at most {TAG_MAX_BYTES} bytes, no empty key"
    )]
    Tags,
    /// More folders than [`FOLDERS_MAX`].
    #[error("{0} machines have a folder of their own for this job, the limit is {FOLDERS_MAX}")]
    Folders(usize),
    /// A role with too long words or too many parameters.
    #[error(
        "role is not valid: names of at most {ROLE_NAME_MAX_BYTES} bytes without control characters, \
         at most {ROLE_PARAMS_MAX} parameters"
    )]
    Role,
    /// Requirements that cannot be read.
    #[error(transparent)]
    Needs(#[from] NeedError),
    /// A lane that is not the one of the requirements.
    #[error("lane {0} is not the one of its requirements: dispatch it again")]
    Lane(Lane),
    /// A preference that names nobody.
    #[error("cannot prefer {0:?}: give a machine, or a label as NAME=VALUE")]
    Prefer(String),
    /// More retries than there may be.
    #[error("{0} retries are over the limit of {RETRIES_MAX}")]
    Retries(u32),
    /// A time-out of zero.
    #[error("a time-out of zero would end the job before it starts: leave it out, or give more")]
    ZeroTimeout,
    /// The whole over [`SPEC_MAX_BYTES`].
    #[error(
        "the job's specification is {0} bytes, the limit is {SPEC_MAX_BYTES}: send large input with --stdin FILE"
    )]
    TooLarge(usize),
}

impl JobSpec {
    /// A job of this command with nothing special about it.
    #[must_use]
    pub fn new(
        command: Vec<String>,
        target: Target,
        submitted_at: Time,
        submitted_by: String,
    ) -> Self {
        Self {
            command,
            shell: false,
            cwd: None,
            cwd_on: BTreeMap::new(),
            env: BTreeMap::new(),
            stdin: None,
            timeout_ms: None,
            on_lost: OnLost::default(),
            retries: 0,
            retry_on: Vec::new(),
            target,
            needs: String::new(),
            prefer: None,
            priority: Priority::default(),
            name: None,
            tags: BTreeMap::new(),
            role: None,
            index: None,
            submitted_at,
            submitted_by,
            expires_ms: u64::try_from(EXPIRES_DEFAULT.as_millis()).unwrap_or(u64::MAX),
            log_keep_bytes: LOG_KEEP_DEFAULT_BYTES,
        }
    }

    /// The same job with these requirements; where it is not pinned, it waits in their lane.
    #[must_use]
    pub fn needing(mut self, needs: &Needs) -> Self {
        self.needs = needs.to_string();
        if let Target::Lane(lane) = &mut self.target {
            *lane = needs.lane();
        }
        self
    }

    /// What it needs of its machine.
    ///
    /// # Errors
    /// A later fleet's words.
    pub fn needs(&self) -> Result<Needs, NeedError> {
        self.needs.parse()
    }

    /// The machines it would rather run on; none where nobody can read who they are.
    #[must_use]
    pub fn prefers(&self) -> Option<Prefer> {
        self.prefer.as_ref()?.parse().ok()
    }

    /// What people call it: its name, or its command on one line.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => self.command.join(" "),
        }
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// The first limit that does not hold.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(SpecError::EmptyCommand);
        }
        for (index, arg) in self.command.iter().enumerate() {
            no_nul(arg, || format!("argument {index}"))?;
            if arg.len() > ARG_MAX_BYTES {
                return Err(SpecError::LongArgument {
                    index,
                    bytes: arg.len(),
                });
            }
        }
        self.validate_folders()?;
        for (name, value) in &self.env {
            no_nul(name, || "an environment variable's name".to_owned())?;
            if name.is_empty() || name.contains('=') {
                return Err(SpecError::EnvName(name.chars().take(80).collect()));
            }
            no_nul(value, || format!("environment variable {name}"))?;
        }
        self.validate_labels()?;
        self.validate_place()?;
        if self.retries > RETRIES_MAX {
            return Err(SpecError::Retries(self.retries));
        }
        if self.timeout_ms == Some(0) {
            return Err(SpecError::ZeroTimeout);
        }
        if let Some(stdin) = &self.stdin
            && stdin.len() > STDIN_MAX_BYTES
        {
            return Err(SpecError::LongStdin(stdin.len()));
        }
        let weight = self.weight();
        if weight > SPEC_MAX_BYTES {
            return Err(SpecError::TooLarge(weight));
        }
        Ok(())
    }

    /// The working folder on this machine.
    #[must_use]
    pub fn cwd_at(&self, machine: &MachineId) -> Option<&str> {
        let own = self.cwd_on.get(machine);
        own.or(self.cwd.as_ref()).map(String::as_str)
    }

    fn validate_folders(&self) -> Result<(), SpecError> {
        if self.cwd_on.len() > FOLDERS_MAX {
            return Err(SpecError::Folders(self.cwd_on.len()));
        }
        for cwd in self.cwd.iter().chain(self.cwd_on.values()) {
            no_nul(cwd, || "the working folder".to_owned())?;
            if !(cwd.starts_with('/') || cwd == "~" || cwd.starts_with("~/")) {
                return Err(SpecError::RelativeCwd(cwd.chars().take(80).collect()));
            }
        }
        Ok(())
    }

    fn validate_place(&self) -> Result<(), SpecError> {
        let needs = self.needs()?;
        match &self.target {
            Target::Lane(lane) if *lane != needs.lane() => {
                return Err(SpecError::Lane(lane.clone()));
            }
            _ => {}
        }
        let long = |text: &&String| text.len() > 2 * TAG_MAX_BYTES || self.prefers().is_none();
        match self.prefer.as_ref().filter(long) {
            Some(text) => Err(SpecError::Prefer(text.chars().take(80).collect())),
            None => Ok(()),
        }
    }

    fn validate_labels(&self) -> Result<(), SpecError> {
        if let Some(name) = &self.name
            && (name.is_empty()
                || name.len() > NAME_MAX_BYTES
                || name.chars().any(char::is_control))
        {
            return Err(SpecError::Name);
        }
        let long = |s: &str| s.len() > TAG_MAX_BYTES;
        if self.tags.len() > TAGS_MAX
            || self
                .tags
                .iter()
                .any(|(k, v)| k.is_empty() || long(k) || long(v))
        {
            return Err(SpecError::Tags);
        }
        match &self.role {
            Some(role) if !role.is_valid() => Err(SpecError::Role),
            _ => Ok(()),
        }
    }

    /// Bytes of everything of variable length but standard input.
    fn weight(&self) -> usize {
        let pairs = |m: &BTreeMap<String, String>| {
            m.iter().map(|(k, v)| k.len() + v.len() + 6).sum::<usize>()
        };
        self.command.iter().map(|a| a.len() + 3).sum::<usize>()
            + self.cwd.as_ref().map_or(0, String::len)
            + self
                .cwd_on
                .values()
                .map(|cwd| cwd.len() + 70)
                .sum::<usize>()
            + self.role.as_ref().map_or(0, FromRole::weight)
            + self.submitted_by.len()
            + self.needs.len()
            + pairs(&self.env)
            + pairs(&self.tags)
    }
}

fn no_nul(text: &str, what: impl FnOnce() -> String) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(SpecError::Nul(what()));
    }
    Ok(())
}

/// Bytes as base64 text in JSON, or nothing.
mod opt_base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::ref_option,
        reason = "serde's `with` passes the field by reference"
    )]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => s.collect_str(&BASE64.encode_display(bytes)),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(d)? else {
            return Ok(None);
        };
        BASE64
            .decode(text.as_bytes())
            .map(Some)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(command: &[&str]) -> JobSpec {
        JobSpec::new(
            command.iter().map(|&s| s.to_owned()).collect(),
            Target::Lane(Lane::any()),
            Time::from_micros(0),
            "ana@studio".to_owned(),
        )
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(spec(&["true"]).validate(), Ok(()));
        assert_eq!(spec(&[]).validate(), Err(SpecError::EmptyCommand));
        assert_eq!(spec(&[""]).validate(), Err(SpecError::EmptyCommand));
        assert!(matches!(
            spec(&["a", "b\0"]).validate(),
            Err(SpecError::Nul(_))
        ));
        assert!(matches!(
            spec(&["a", &"x".repeat(1 << 20)]).validate(),
            Err(SpecError::LongArgument { index: 1, .. })
        ));
        let many = vec!["x".repeat(100_000); 6];
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(
            spec(&many).validate(),
            Err(SpecError::TooLarge(_))
        ));
        let mut s = spec(&["true"]);
        s.cwd = Some("src".to_owned());
        assert!(matches!(s.validate(), Err(SpecError::RelativeCwd(_))));
        s.cwd = Some("~/src".to_owned());
        assert_eq!(s.validate(), Ok(()));
        s.env.insert("A=B".to_owned(), String::new());
        assert!(matches!(s.validate(), Err(SpecError::EnvName(_))));
    }

    #[test]
    fn a_job_waits_in_the_lane_of_what_it_needs() {
        let needs: Needs = "docker,mem>=16GiB".parse().unwrap();
        let mut s = spec(&["true"]).needing(&needs);
        assert_eq!(s.target, Target::Lane(needs.lane()));
        assert_eq!((s.validate(), s.needs()), (Ok(()), Ok(needs.clone())));
        s.target = Target::Lane(Lane::any());
        assert_eq!(s.validate(), Err(SpecError::Lane(Lane::any())));
        s.target = Target::Pin("studio".parse().unwrap());
        s.prefer = Some("site=ams".to_owned());
        assert_eq!(s.validate(), Ok(()));
        let labels = BTreeMap::from([("site".to_owned(), "ams".to_owned())]);
        assert!(s.prefers().unwrap().is(&"mini".parse().unwrap(), &labels));
        s.prefer = Some("Not a machine".to_owned());
        assert!(matches!(s.validate(), Err(SpecError::Prefer(_))));
        s.needs = "node>20".to_owned();
        assert!(matches!(s.validate(), Err(SpecError::Needs(_))));
    }

    #[test]
    fn a_spec_survives_the_wire_with_any_bytes_on_its_input() {
        let mut s = spec(&["cat"]);
        s.stdin = Some(vec![0, 255, 10, 13]);
        let json = serde_json::to_vec(&s).unwrap();
        assert_eq!(serde_json::from_slice::<JobSpec>(&json).unwrap(), s);
    }
}
