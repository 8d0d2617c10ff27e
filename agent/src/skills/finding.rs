//! What asking for a skill brought: whether it is there, works, and as which version. Pure.

use fleet_contract::needs::{Gpu, Skill};
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use super::definition::{Definition, Gives, Pattern, words};
use super::report::{self, clean};
use super::run::{ANSWER_MAX_BYTES, Ran};

/// Longest version.
const VERSION_MAX_CHARS: usize = 64;
/// Longest reason.
const REASON_MAX_CHARS: usize = 160;

/// How it stands with a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It works.
    Works,
    /// It is not there.
    Absent,
    /// It is there, but something is missing that somebody can do: log in, start its daemon.
    NotReady(String),
    /// It could not be found out: its probe fails.
    Failing(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) state: State,
    #[serde(default)]
    pub(super) version: Option<String>,
    /// Models that it has loaded.
    #[serde(default)]
    pub(super) models: Vec<String>,
    /// Graphics processors.
    #[serde(default)]
    pub(super) gpus: Vec<Gpu>,
}

impl Finding {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            version: None,
            models: Vec::new(),
            gpus: Vec::new(),
        }
    }

    pub(super) fn failing(why: &str) -> Self {
        Self::new(State::Failing(clean(why, REASON_MAX_CHARS)))
    }

    pub(super) fn not_ready(why: &str) -> Self {
        Self::new(State::NotReady(clean(why, REASON_MAX_CHARS)))
    }

    pub(super) fn works(version: Option<String>) -> Self {
        Self {
            version,
            ..Self::new(State::Works)
        }
    }

    /// The same, as something that works no more for this reason.
    pub(super) fn but(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// What a machine says of it; nothing of what is not there.
    pub(super) fn skill(&self, definition: &Definition, checked_at: Time) -> Option<Skill> {
        let reason = match &self.state {
            State::Absent => return None,
            State::Works => None,
            State::NotReady(why) | State::Failing(why) => Some(why.clone()),
        };
        Some(Skill {
            ok: reason.is_none(),
            version: self.version.clone(),
            checked_at,
            interval_ms: u64::try_from(definition.every.as_millis()).unwrap_or(u64::MAX),
            category: definition.category.clone(),
            reason,
        })
    }
}

/// What the answer to the first question says.
pub(super) fn judge(definition: &Definition, ran: &Ran, mem_total: u64, now: Time) -> Finding {
    let (out, err) = match answer(ran, definition) {
        Ok(answer) => answer,
        Err(why) => return Finding::failing(&why),
    };
    let gpus = match definition.gives {
        None => return versioned(definition, &format!("{out}\n{err}")),
        Some(Gives::Nvidia) => report::nvidia(&out, now),
        Some(Gives::Apple) => report::apple(&out, mem_total, now),
    };
    match gpus {
        Some(gpus) => Finding {
            gpus,
            ..Finding::works(None)
        },
        None => Finding::failing(&format!("it lists none: {}", excerpt(&out))),
    }
}

/// The text of an answer, or why there is none.
pub(super) fn answer(ran: &Ran, definition: &Definition) -> Result<(String, String), String> {
    match ran {
        Ran::Ended {
            well: true,
            out,
            err,
            ..
        } => Ok((plain(out), plain(err))),
        Ran::Ended { how, out, err, .. } => {
            let said = if err.is_empty() { out } else { err };
            let said = excerpt(&plain(said));
            Err(match said.is_empty() {
                true => how.clone(),
                false => format!("{how}: {said}"),
            })
        }
        Ran::Silent => Err(format!("no answer within {}", words(definition.timeout))),
        Ran::TooMuch => Err(format!(
            "it answers with more than {ANSWER_MAX_BYTES} bytes"
        )),
        Ran::NotStarted(why) => Err(format!("it cannot be started: {why}")),
    }
}

fn excerpt(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty());
    clean(line.unwrap_or(""), 80)
}

/// The version in a text, as the definition says where it stands.
pub(super) fn versioned(definition: &Definition, text: &str) -> Finding {
    let version = match &definition.pattern {
        Pattern::None => return Finding::works(None),
        Pattern::Any => first_number(text),
        Pattern::Between(before, after) => between(text, before, after),
    };
    match version {
        Some(version) => Finding::works(Some(version)),
        None => Finding::failing(&format!("no version in its answer: {}", excerpt(text))),
    }
}

/// The first number in a text, with the numbers behind it.
fn first_number(text: &str) -> Option<String> {
    let rest = &text[text.find(|c: char| c.is_ascii_digit())?..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    let number = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
    (number.len() <= VERSION_MAX_CHARS).then(|| number.to_owned())
}

/// The text without the sequences that colour it on a terminal.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
        } else if chars.next() == Some('[') {
            // Ended by its letter.
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    plain
}

/// What stands between two texts, as far as it is of the letters that versions have; it has to begin
/// with a digit.
fn between(text: &str, before: &str, after: &str) -> Option<String> {
    text.match_indices(before).find_map(|(at, _)| {
        let rest = &text[at + before.len()..];
        let fits = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        let version = &rest[..end];
        let whole = rest[end..].starts_with(after) && version.len() <= VERSION_MAX_CHARS;
        let begins = version.starts_with(|c: char| c.is_ascii_digit());
        (whole && begins).then(|| version.trim_end_matches(['.', '-']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::definition::builtin;
    use super::*;

    fn said(text: &str) -> Ran {
        Ran::Ended {
            well: true,
            how: "exit status: 0".to_owned(),
            out: text.as_bytes().to_vec(),
            err: Vec::new(),
        }
    }

    #[test]
    fn versions_are_read_from_what_tools_say() {
        let all = builtin().unwrap();
        for (name, text, version) in [
            ("git", "git version 2.39.5 (Apple Git-154)", "2.39.5"),
            (
                "docker",
                "Docker version 27.3.1, build ce1223035a",
                "27.3.1",
            ),
            ("podman", "podman version 5.2.3", "5.2.3"),
            ("tmux", "tmux 3.4a", "3.4"),
            ("node", "v22.11.0", "22.11.0"),
            ("npm", "10.9.0", "10.9.0"),
            ("python", "Python 3.13.0rc1", "3.13.0rc1"),
            ("uv", "uv 0.5.1 (f399a5271 2024-11-08)", "0.5.1"),
            (
                "rust",
                "rustc 1.95.0-nightly (abc 2026-01-01)",
                "1.95.0-nightly",
            ),
            ("go", "go version go1.23.2 linux/amd64", "1.23.2"),
            (
                "java",
                "openjdk version \"21.0.5\" 2024-10-15\nOpenJDK",
                "21.0.5",
            ),
            (
                "gradle",
                "\n-----\nGradle 8.10.2\n-----\n\nKotlin: 1.9.24",
                "8.10.2",
            ),
            (
                "maven",
                "Apache Maven 3.9.9 (8e8579a9e76f7d015ee5ec7bfcdc97d260186937)",
                "3.9.9",
            ),
            ("xcode", "Xcode 16.1\nBuild version 16B40", "16.1"),
            (
                "swift",
                "Apple Swift version 6.0.2 (swiftlang-6.0.2.1.2)",
                "6.0.2",
            ),
            (
                "clang",
                "Debian clang version 14.0.6\nTarget: x86_64",
                "14.0.6",
            ),
            ("terraform", "Terraform v1.9.8\non linux_amd64", "1.9.8"),
            (
                "kubectl",
                "Client Version: v1.31.2\nKustomize Version: v5.4.2",
                "1.31.2",
            ),
            (
                "ffmpeg",
                "ffmpeg version 7.1 Copyright (c) 2000-2024",
                "7.1",
            ),
            (
                "android-sdk",
                "Android Debug Bridge version 1.0.41\nVersion 35.0.2-12147458",
                "35.0.2-12147458",
            ),
            (
                "cuda",
                "Cuda compilation tools, release 12.4, V12.4.131",
                "12.4",
            ),
            ("claude", "2.0.14 (Claude Code)", "2.0.14"),
            ("codex", "codex-cli 0.149.1", "0.149.1"),
            (
                "shellcheck",
                "ShellCheck - shell script analysis tool\nversion: 0.9.0",
                "0.9.0",
            ),
        ] {
            let found = judge(&all[name], &said(text), 0, Time::from_micros(0));
            assert_eq!(found.state, State::Works, "{name}: {found:?}");
            let found = found.version.unwrap();
            let same = found == version || name == "tmux" && found.starts_with(version);
            assert!(same, "{name}: {found}");
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let all = builtin().unwrap();
        let git = &all["git"];
        let ended = |text: &str| Ran::Ended {
            well: false,
            how: "exit status: 3".to_owned(),
            out: Vec::new(),
            err: text.as_bytes().to_vec(),
        };
        for (ran, why) in [
            (said(""), "no version in its answer: "),
            (said("\u{1b}[31mhello\n"), "no version in its answer: hello"),
            (
                said("git version x"),
                "no version in its answer: git version x",
            ),
            (ended("\n boom \nmore"), "exit status: 3: boom"),
            (ended(""), "exit status: 3"),
            (Ran::Silent, "no answer within 10 s"),
            (Ran::TooMuch, "it answers with more than 65536 bytes"),
            (Ran::NotStarted("no".to_owned()), "it cannot be started: no"),
        ] {
            let found = judge(git, &ran, 0, Time::from_micros(0));
            assert_eq!(
                found.state,
                State::Failing(why.trim_end().to_owned()),
                "{ran:?}"
            );
            let skill = found.skill(git, Time::from_micros(5)).unwrap();
            assert!(!skill.ok && skill.reason.is_some(), "{skill:?}");
        }
        assert_eq!(
            Finding::new(State::Absent).skill(git, Time::from_micros(5)),
            None
        );
    }
}
