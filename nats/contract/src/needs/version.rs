//! Versions as they are compared, and the spans of them that a requirement allows. Pure.

use std::cmp::Ordering;
use std::fmt;

/// Most numbers of one version that are compared.
const NUMBERS_MAX: usize = 8;

/// A version: its numbers, from the most important on. What follows them (`-rc.1`, `+build`, words)
/// is not compared, and zeros at the end mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Version(Vec<u32>);

impl Version {
    /// The first version in a tool's own words: `Docker version 27.3.1, build ce12230` is 27.3.1.
    #[must_use]
    pub fn find(words: &str) -> Option<Self> {
        let begin = words.find(|c: char| c.is_ascii_digit())?;
        let rest = &words[begin..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let mut numbers = Vec::new();
        for number in rest[..end].split('.').take(NUMBERS_MAX) {
            match number.parse() {
                Ok(number) => numbers.push(number),
                // `3..2` or a number that is none of a version: what stands before it counts.
                Err(_) => break,
            }
        }
        (!numbers.is_empty()).then(|| Self::trimmed(numbers))
    }

    /// The numbers of a version that somebody typed: `20`, `v3.12`.
    pub(super) fn typed(text: &str) -> Option<Vec<u32>> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let numbers: Option<Vec<u32>> = text
            .split('.')
            .map(|n| {
                let digits = !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| n.parse().ok()).flatten()
            })
            .collect();
        numbers.filter(|numbers| numbers.len() <= NUMBERS_MAX)
    }

    pub(super) fn trimmed(mut numbers: Vec<u32>) -> Self {
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Self(numbers)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("0");
        };
        write!(f, "{first}")?;
        rest.iter().try_for_each(|number| write!(f, ".{number}"))
    }
}

/// Versions from one on (or all), below another (or none): what is required of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// The lowest; the version zero where any will do.
    from: Version,
    /// The first that is too high.
    below: Option<Version>,
}

impl Span {
    pub(super) fn from(numbers: Vec<u32>) -> Self {
        Self {
            from: Version::trimmed(numbers),
            below: None,
        }
    }

    pub(super) fn below(numbers: Vec<u32>) -> Self {
        Self {
            from: Version::default(),
            below: Some(Version::trimmed(numbers)),
        }
    }

    /// Every version that begins with these numbers; none where there is no number after the last.
    pub(super) fn beginning_with(numbers: Vec<u32>) -> Option<Self> {
        let mut below = numbers.clone();
        let last = below.last_mut()?;
        *last = last.checked_add(1)?;
        Some(Self {
            from: Version::trimmed(numbers),
            below: Some(Version::trimmed(below)),
        })
    }

    /// Versions that both allow.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        let below = match (&self.below, &other.below) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (one, None) | (None, one) => one.clone(),
        };
        Self {
            from: self.from.clone().max(other.from.clone()),
            below,
        }
    }

    /// Whether no version is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.below.as_ref().is_some_and(|below| *below <= self.from)
    }

    /// Whether any will do, and one that nobody can read as well.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.from.0.is_empty() && self.below.is_none()
    }

    /// Whether a version is in it.
    #[must_use]
    pub fn holds(&self, version: &Version) -> bool {
        *version >= self.from && self.below.as_ref().is_none_or(|below| version < below)
    }

    /// The numbers that all versions in it begin with, and no other does.
    fn beginning(&self) -> Option<String> {
        let mut numbers = self.below.as_ref()?.0.clone();
        let last = numbers.last_mut()?;
        *last = last.checked_sub(1)?;
        let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
        (Version::trimmed(numbers) == self.from).then(|| words.join("."))
    }

    /// The span of a name's versions in canonical words, one or two.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        if self.is_any() {
            return vec![name.to_owned()];
        }
        if let Some(beginning) = self.beginning() {
            return vec![format!("{name}@{beginning}")];
        }
        let below = self.below.as_ref().map(|v| format!("{name}<{v}"));
        let from = (!self.from.0.is_empty()).then(|| format!("{name}>={}", self.from));
        below.into_iter().chain(from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_tools_say() {
        for (words, version) in [
            ("v22.11.0", "22.11"),
            ("Docker version 27.3.1, build ce12230", "27.3.1"),
            ("go version go1.22.1 linux/amd64", "1.22.1"),
            ("1.95.0-nightly (abc 2026-01-01)", "1.95"),
            ("3..2", "3"),
            ("2.", "2"),
            ("0", "0"),
        ] {
            assert_eq!(
                Version::find(words).unwrap().to_string(),
                version,
                "{words}"
            );
        }
        for none in ["", "latest", "99999999999999999999"] {
            assert_eq!(Version::find(none), None, "{none}");
        }
    }

    #[test]
    fn a_span_is_written_as_short_as_it_can_be() {
        let from = |n: &[u32]| Span::from(n.to_vec());
        let with = |n: &[u32]| Span::beginning_with(n.to_vec()).unwrap();
        let below = |n: &[u32]| Span::below(n.to_vec());
        assert_eq!(from(&[20, 0]).words("node"), ["node>=20"]);
        assert_eq!(from(&[0]).words("node"), ["node"]);
        assert_eq!(with(&[20]).words("node"), ["node@20"]);
        assert_eq!(from(&[20]).and(&below(&[21])).words("node"), ["node@20"]);
        assert_eq!(with(&[3, 0]).words("x"), ["x@3.0"]);
        assert_eq!(below(&[1]).words("x"), ["x@0"]);
        assert_eq!(
            from(&[18]).and(&below(&[22])).words("node"),
            ["node<22", "node>=18"]
        );
        assert!(from(&[20]).and(&below(&[20])).is_empty());
        assert!(below(&[0]).is_empty());
        assert!(with(&[20]).holds(&Version::find("20.9.1").unwrap()));
        assert!(!with(&[20]).holds(&Version::find("21").unwrap()));
        assert_eq!(Span::beginning_with(vec![u32::MAX]), None);
    }
}
