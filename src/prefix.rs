//! Ids by their shortest unique prefix, and names by the nearest one. Pure.

use fleet_contract::ids::{JobId, MachineId};

use crate::failure::Failure;

/// Ids are never shown shorter than this.
const SHORTEST: usize = 4;
/// How many candidates an error names.
const CANDIDATES: usize = 5;

/// The id's first characters.
pub(crate) fn short(id: &JobId, length: usize) -> &str {
    let text = id.as_str();
    text.get(..length).unwrap_or(text)
}

/// How many characters tell all of these apart, at least 4.
pub(crate) fn unique_length<'a>(ids: impl IntoIterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.windows(2)
        .map(|pair| common(pair[0], pair[1]) + 1)
        .max()
        .unwrap_or(0)
        .max(SHORTEST)
}

fn common(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

/// The text as a whole id, which needs no look at what exists.
pub(crate) fn whole(text: &str) -> Option<JobId> {
    text.parse().ok()
}

/// Checks that a text can be the beginning of an id.
pub(crate) fn check(text: &str) -> Result<(), Failure> {
    let fits = !text.is_empty()
        && text.len() <= 16
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
    if fits {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(
        Failure::usage(format!("{shown:?} is no job id: ids are of a-z and 2-7"))
            .next("fleet jobs"),
    )
}

/// The one id that begins with this text.
pub(crate) fn resolve(text: &str, ids: &[JobId]) -> Result<JobId, Failure> {
    check(text)?;
    let mut found: Vec<&JobId> = ids
        .iter()
        .filter(|id| id.as_str().starts_with(text))
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Err(Failure::usage(format!("no job begins with {text:?}")).next("fleet jobs")),
        [one] => Ok(**one),
        many => {
            let length = unique_length(many.iter().map(|id| id.as_str()));
            let mut names: Vec<&str> = many
                .iter()
                .take(CANDIDATES)
                .map(|id| short(id, length))
                .collect();
            let more = format!("and {} more", many.len().saturating_sub(CANDIDATES));
            if many.len() > CANDIDATES {
                names.push(&more);
            }
            Err(Failure::usage(format!(
                "{text:?} is the beginning of {} jobs: {}: give more of it",
                many.len(),
                names.join(", ")
            )))
        }
    }
}

/// The names nearest to a misspelled one, best first.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| {
            let score = strsim::jaro_winkler(wrong, name);
            let inside = name.contains(wrong) || wrong.contains(name);
            (if inside { score.max(0.9) } else { score }, name)
        })
        .filter(|(score, _)| *score > 0.7)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// What to say about a machine nobody knows.
pub(crate) fn unknown_machine(wrong: &str, known: &[MachineId]) -> String {
    let near = nearest(wrong, known.iter().map(MachineId::as_str));
    match near[..] {
        [] => {}
        [only] => return format!("no machine {wrong:?}: the nearest is {only}"),
        _ => return format!("no machine {wrong:?}: nearest are {}", near.join(", ")),
    }
    if known.is_empty() {
        return format!("no machine {wrong:?}: no machine is known yet");
    }
    let mut all: Vec<&str> = known
        .iter()
        .map(MachineId::as_str)
        .take(CANDIDATES)
        .collect();
    if known.len() > CANDIDATES {
        all.push("…");
    }
    format!("no machine {wrong:?}: there are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<JobId> {
        ["abcdefghijklmnop", "abcdezzzzzzzzzzz", "qrstuvwxyz234567"]
            .map(|t| t.parse().unwrap())
            .to_vec()
    }

    #[test]
    fn a_unique_prefix_is_enough_and_everything_else_says_why_not() {
        assert_eq!(resolve("q", &ids()).unwrap().as_str(), "qrstuvwxyz234567");
        assert_eq!(
            resolve("abcdef", &ids()).unwrap().as_str(),
            "abcdefghijklmnop"
        );
        let text = |t: &str| resolve(t, &ids()).unwrap_err().render(false).unwrap();
        assert_eq!(text("x"), "fleet: no job begins with \"x\"; fleet jobs");
        assert_eq!(
            text("abc"),
            "fleet: \"abc\" is the beginning of 2 jobs: abcdef, abcdez: give more of it"
        );
        for bad in ["", "ABC", "a.b", "abcdefghijklmnopq", "189"] {
            assert!(text(bad).contains("is no job id"), "{bad}");
        }
    }

    #[test]
    fn the_shown_length_tells_all_apart() {
        assert_eq!(unique_length(ids().iter().map(JobId::as_str)), 6);
        assert_eq!(unique_length([]), 4);
        assert_eq!(unique_length(["abcdefghijklmnop", "abcdefghijklmnop"]), 4);
    }

    #[test]
    fn the_nearest_names_are_offered() {
        let known: Vec<MachineId> = ["studio", "mini", "gpu-box"]
            .map(|m| m.parse().unwrap())
            .to_vec();
        assert_eq!(
            unknown_machine("stduio", &known),
            "no machine \"stduio\": the nearest is studio"
        );
        assert_eq!(
            unknown_machine("gpu", &known),
            "no machine \"gpu\": the nearest is gpu-box"
        );
        assert!(unknown_machine("zzz", &known).contains("there are studio, mini, gpu-box"));
        assert!(unknown_machine("a", &[]).contains("no machine is known yet"));
    }
}
