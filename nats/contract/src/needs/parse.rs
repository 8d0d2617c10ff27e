//! Requirements as people type them. Every refusal shows the place and what to type instead. Pure.

use super::size::{self, NoSize};
use super::version::{Span, Version};

/// Longest name of a skill or label, in bytes.
pub const WORD_MAX_BYTES: usize = 63;
/// Longest value of a label, model or repository, in bytes.
pub const VALUE_MAX_BYTES: usize = 256;
/// How much of a text an error shows.
const SHOWN: usize = 80;

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// The system's or the processor's name.
    Word(Word, String),
    /// At least so much.
    Amount(Amount, u64),
    /// A skill, in one of these versions.
    Skill(String, Span),
    /// A label with this value.
    Label(String, String),
    /// This model is loaded.
    Model(String),
    /// This repository can be read.
    Repo(String),
}

/// What a machine is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// Its system: `linux`, `macos`.
    Os,
    /// Its processor: `x86_64`, `aarch64`.
    Arch,
}

impl Word {
    /// Its name in a requirement.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Arch => "arch",
        }
    }

    /// The one name of what has several.
    fn proper(self, value: &str) -> String {
        let value = value.to_lowercase();
        let proper = match (self, value.as_str()) {
            (Self::Os, "darwin" | "mac" | "osx") => "macos",
            (Self::Arch, "arm64") => "aarch64",
            (Self::Arch, "amd64" | "x64" | "x86-64") => "x86_64",
            _ => return value,
        };
        proper.to_owned()
    }
}

/// What a machine has so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// Logical processors.
    Cores,
    /// Memory.
    Mem,
    /// Graphics processors.
    Gpu,
    /// Memory of each of these.
    GpuMem,
}

impl Amount {
    /// Its name in a requirement.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Mem => "mem",
            Self::Gpu => "gpu",
            Self::GpuMem => "gpu-mem",
        }
    }

    /// Whether it is counted in bytes.
    #[must_use]
    pub fn is_size(self) -> bool {
        matches!(self, Self::Mem | Self::GpuMem)
    }

    /// So much of it, as it is written.
    pub(super) fn write(self, n: u64) -> String {
        match (self, n) {
            (Self::Gpu, 1) => "gpu".to_owned(),
            (_, n) if self.is_size() => format!("{}>={}", self.as_str(), size::exact(n)),
            (_, n) => format!("{}>={n}", self.as_str()),
        }
    }
}

/// What a name means.
enum Family {
    Word(Word),
    Amount(Amount),
    Model,
    Repo,
    Other,
}

fn family(name: &str) -> Family {
    match name {
        "os" => Family::Word(Word::Os),
        "arch" => Family::Word(Word::Arch),
        "cores" | "cpu" | "cpus" => Family::Amount(Amount::Cores),
        "mem" | "memory" | "ram" => Family::Amount(Amount::Mem),
        "gpu" | "gpus" => Family::Amount(Amount::Gpu),
        "gpu-mem" | "gpu_mem" | "gpumem" | "vram" => Family::Amount(Amount::GpuMem),
        "model" | "models" => Family::Model,
        "repo" => Family::Repo,
        _ => Family::Other,
    }
}

/// Why a text is no requirement: the place, and what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read requirement {text:?} at character {at}: {problem}: {hint}")]
pub struct NeedError {
    /// What was typed, shortened.
    pub text: String,
    /// The place in it, in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
    /// What to do.
    pub hint: String,
}

/// What is wrong with a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is nothing.
    #[error("nothing is there")]
    Empty,
    /// A name with other characters, or too long.
    #[error("a name is of letters, digits and . _ + / -, at most {WORD_MAX_BYTES}")]
    Name,
    /// An operator that is not known.
    #[error("the operators are = >= < and @")]
    Operator,
    /// An operator that this name does not go with.
    #[error("this name is not compared so")]
    Relation,
    /// A name that says nothing without a value.
    #[error("a value is missing")]
    NoValue,
    /// A value with other characters, or too long.
    #[error("a value has no control characters and at most {VALUE_MAX_BYTES} bytes")]
    Value,
    /// Not a version.
    #[error("a version is numbers with dots between them")]
    Version,
    /// Not a size.
    #[error("a size is a number with a unit")]
    Size,
    /// Not a count.
    #[error("a number is meant")]
    Count,
    /// So little that every machine has it.
    #[error("every machine has that")]
    Zero,
    /// It cannot hold together with another one.
    #[error("it contradicts what stands before it")]
    Contradiction,
    /// Too many requirements.
    #[error("there are too many requirements")]
    TooMany,
}

/// One requirement and where it begins in what was typed.
pub(super) struct Piece<'a> {
    whole: &'a str,
    begin: usize,
    text: &'a str,
}

impl<'a> Piece<'a> {
    /// The requirements between commas.
    pub(super) fn all(whole: &'a str) -> impl Iterator<Item = Self> {
        let mut begin = 0;
        whole.split(',').map(move |piece| {
            let at = begin;
            begin += piece.len() + 1;
            let text = piece.trim();
            let lead = piece.len() - piece.trim_start().len();
            // Of nothing but spaces the end is the beginning.
            let begin = at + lead.min(piece.len());
            Self { whole, begin, text }
        })
    }

    /// What is wrong at a byte of this piece.
    pub(super) fn wrong(&self, at: usize, problem: Problem, hint: impl Into<String>) -> NeedError {
        let at = (self.begin + at).min(self.whole.len());
        NeedError {
            text: self.whole.chars().take(SHOWN).collect(),
            at: self.whole.get(..at).unwrap_or("").chars().count() + 1,
            problem,
            hint: hint.into(),
        }
    }

    /// What it requires.
    pub(super) fn need(&self) -> Result<Need, NeedError> {
        if self.text.is_empty() {
            return Err(self.wrong(0, Problem::Empty, "type something like docker or node>=20"));
        }
        let end = self
            .text
            .find(['=', '>', '<', '!', '~', '^', '@', '≥', '≤', ':']);
        let (name, rest) = self.text.split_at(end.unwrap_or(self.text.len()));
        let at = name.len();
        let name = self.name(name.trim_end(), rest)?;
        let (op, value) = self.operator(at, &name, rest)?;
        let value = Value {
            piece: self,
            at: self.text.len() - value.len(),
            name: &name,
            text: value,
        };
        match family(&name) {
            Family::Word(word) => value.word(word, op),
            Family::Amount(amount) => value.amount(amount, op),
            Family::Model => Ok(Need::Model(value.named("llama3", op)?)),
            Family::Repo => {
                let repo = value.named("git@github.com:me/app.git", op)?;
                Ok(Need::Repo(repo.trim_end_matches('/').to_owned()))
            }
            Family::Other => value.other(op),
        }
    }

    fn name(&self, name: &str, rest: &str) -> Result<String, NeedError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._+/-".contains(c);
        let hint = match self.text.contains("://") || name == "git" && rest.starts_with('@') {
            true => format!("type repo={}", self.text),
            false => "type a skill's name, or NAME=VALUE for a label".to_owned(),
        };
        if let Some((at, _)) = name.char_indices().find(|(_, c)| !fits(*c)) {
            return Err(self.wrong(at, Problem::Name, hint));
        }
        let first = name
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric());
        if !first || self.text.contains("://") && rest.starts_with(':') {
            return Err(self.wrong(0, Problem::Name, hint));
        }
        if name == "git" && rest.starts_with('@') && Version::typed(rest[1..].trim()).is_none() {
            return Err(self.wrong(3, Problem::Version, hint));
        }
        if name.len() > WORD_MAX_BYTES {
            return Err(self.wrong(WORD_MAX_BYTES, Problem::Name, hint));
        }
        Ok(name.to_ascii_lowercase())
    }

    /// The operator and what stands behind it.
    fn operator(&self, at: usize, name: &str, rest: &'a str) -> Result<(Op, &'a str), NeedError> {
        const KNOWN: [(&str, Option<Op>); 13] = [
            (">=", Some(Op::From)),
            ("=>", None),
            ("==", None),
            ("=", Some(Op::Is)),
            ("@", Some(Op::With)),
            ("<=", None),
            ("<", Some(Op::Below)),
            (">", None),
            ("≥", Some(Op::From)),
            ("≤", None),
            ("!", None),
            ("~", None),
            ("^", None),
        ];
        if rest.is_empty() {
            return Ok((Op::None, ""));
        }
        let found = KNOWN.into_iter().find(|(text, _)| rest.starts_with(text));
        let (text, op) = found.unwrap_or((":", None));
        let value = rest[text.len()..].trim();
        if let Some(op) = op {
            return Ok((op, value));
        }
        let value = value.trim_start_matches(['=', '>', '<']).trim();
        let value = if value.is_empty() { "20" } else { value };
        let hint = match (text, family(name)) {
            (":", _) => format!("type {name}={value}"),
            ("!", _) => "say what it must have, not what it must not".to_owned(),
            ("==", Family::Other) if Version::typed(value).is_some() => {
                format!("type {name}@{value} for versions that begin so")
            }
            ("==", _) => format!("type {name}={value}"),
            (_, Family::Word(_) | Family::Model | Family::Repo) => format!("type {name}={value}"),
            ("<=" | "≤", Family::Other) => format!("type {name}<VERSION, the first too high"),
            (_, Family::Amount(_)) => format!("type {name}>={value}"),
            _ => format!("type {name}>={value}, or {name}@{value} for versions that begin so"),
        };
        Err(self.wrong(at, Problem::Operator, shortened(&hint)))
    }
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    None,
    Is,
    From,
    Below,
    With,
}

/// What stands behind the operator.
struct Value<'a> {
    piece: &'a Piece<'a>,
    at: usize,
    name: &'a str,
    text: &'a str,
}

impl Value<'_> {
    fn wrong(&self, problem: Problem, hint: impl AsRef<str>) -> NeedError {
        self.piece.wrong(self.at, problem, shortened(hint.as_ref()))
    }

    /// A value after `=`.
    fn named(&self, example: &str, op: Op) -> Result<String, NeedError> {
        let hint = format!("type {}={example}", self.name);
        if self.text.is_empty() {
            return Err(self.wrong(Problem::NoValue, hint));
        }
        if op != Op::Is {
            let hint = format!("type {}={}", self.name, self.text);
            return Err(self.wrong(Problem::Relation, hint));
        }
        if self.text.len() > VALUE_MAX_BYTES || self.text.chars().any(char::is_control) {
            return Err(self.wrong(Problem::Value, "type less, or another"));
        }
        Ok(self.text.to_owned())
    }

    fn word(&self, word: Word, op: Op) -> Result<Need, NeedError> {
        let example = match word {
            Word::Os => "macos",
            Word::Arch => "aarch64",
        };
        let value = word.proper(&self.named(example, op)?);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if value.len() > WORD_MAX_BYTES || !value.chars().all(fits) {
            return Err(self.wrong(Problem::Name, format!("type {}={example}", self.name)));
        }
        Ok(Need::Word(word, value))
    }

    fn amount(&self, amount: Amount, op: Op) -> Result<Need, NeedError> {
        let name = amount.as_str();
        let example = match amount {
            Amount::Mem => "16GiB",
            Amount::GpuMem => "24GiB",
            Amount::Cores => "8",
            Amount::Gpu => "2",
        };
        if op == Op::None && amount == Amount::Gpu {
            return Ok(Need::Amount(amount, 1));
        }
        if self.text.is_empty() {
            return Err(self.wrong(Problem::NoValue, format!("type {name}>={example}")));
        }
        if op != Op::From {
            return Err(self.wrong(Problem::Relation, format!("type {name}>={}", self.text)));
        }
        let n = if amount.is_size() {
            size::parse(self.text).map_err(|wrong| match wrong {
                NoSize::Unit => self.wrong(Problem::Size, format!("type {name}>={}GiB", self.text)),
                NoSize::Words => self.wrong(Problem::Size, format!("type {name}>={example}")),
            })?
        } else {
            let count = self.text.parse::<u32>().ok();
            let wrong = || self.wrong(Problem::Count, format!("type {name}>={example}"));
            u64::from(count.ok_or_else(wrong)?)
        };
        if n == 0 {
            return Err(self.wrong(Problem::Zero, format!("leave {name} out")));
        }
        Ok(Need::Amount(amount, n))
    }

    fn other(&self, op: Op) -> Result<Need, NeedError> {
        let name = self.name.to_owned();
        match op {
            Op::None => return Ok(Need::Skill(name, Span::default())),
            Op::Is => {
                let value = self.named("VALUE", op)?;
                return Ok(Need::Label(name, value));
            }
            Op::From | Op::Below | Op::With => {}
        }
        if self.text.is_empty() {
            return Err(self.wrong(Problem::NoValue, format!("type {name}>=20")));
        }
        let Some(numbers) = Version::typed(self.text) else {
            let hint = match Version::find(self.text) {
                Some(version) => format!("type {name}>={version}"),
                None => format!("type {name}>=20, or {name}={} for a label", self.text),
            };
            return Err(self.wrong(Problem::Version, hint));
        };
        let span = match op {
            Op::From => Some(Span::from(numbers)),
            Op::Below => Some(Span::below(numbers)).filter(|span| !span.is_empty()),
            _ => Span::beginning_with(numbers),
        };
        match span {
            Some(span) => Ok(Need::Skill(name, span)),
            None => Err(self.wrong(Problem::Version, format!("type {name}>=20"))),
        }
    }
}

fn shortened(hint: &str) -> String {
    match hint.char_indices().nth(2 * SHOWN) {
        Some((end, _)) => format!("{}…", &hint[..end]),
        None => hint.to_owned(),
    }
}
