//! How full a stream is, and what makes it grow.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::StreamState;
use crate::bus::Bus;
use crate::subject::{self, stream};

/// Growers that are named.
const NAMED: usize = 3;
/// Subjects that are looked through for them.
const SUBJECTS: usize = 100_000;

/// What to say of a stream that is nearly full.
pub(super) async fn nearly_full(bus: &Bus, name: &str, state: &StreamState) -> String {
    let percent = state.bytes.saturating_mul(100) / state.max_bytes.max(1);
    let what = match name {
        stream::LOG | stream::FLOW => "the oldest go first when it is full",
        stream::JOB | stream::WORK | stream::PIN => {
            "dispatch is refused from 90 %: end what waits (`fleet jobs`, `fleet cancel`), or let ended jobs go"
        }
        _ => "it takes no more when it is full",
    };
    let growers = match growers(bus, name).await {
        Ok(growers) if !growers.is_empty() => format!("; most of it: {}", growers.join(", ")),
        _ => String::new(),
    };
    format!("stream {name} is {percent} % full: {what}{growers}")
}

/// Whose messages are the most.
async fn growers(bus: &Bus, name: &str) -> Result<Vec<String>, crate::bus::BusError> {
    #[derive(Deserialize)]
    struct Info {
        state: State,
    }
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        subjects: BTreeMap<String, u64>,
    }
    let body = json!({ "subjects_filter": ">" }).to_string();
    let info: Info = bus.api(&format!("STREAM.INFO.{name}"), body.into()).await?;
    let mut by_owner: BTreeMap<String, u64> = BTreeMap::new();
    for (subject, messages) in info.state.subjects.into_iter().take(SUBJECTS) {
        if let Some(owner) = owner(name, &subject) {
            *by_owner.entry(owner).or_default() += messages;
        }
    }
    let mut owners: Vec<(String, u64)> = by_owner.into_iter().collect();
    owners.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(owners
        .into_iter()
        .take(NAMED)
        .map(|(owner, n)| format!("{owner} ({n})"))
        .collect())
}

fn owner(name: &str, subject: &str) -> Option<String> {
    match name {
        stream::LOG => subject::parse_log(subject).map(|(job, _)| format!("output of job {job}")),
        stream::FLOW => {
            subject::parse_flow(subject).map(|(writer, _)| format!("events of {writer}"))
        }
        stream::JOB => subject::parse_job(subject).map(|(job, _)| format!("job {job}")),
        stream::WORK => subject::parse_work(subject).map(|(lane, _)| format!("lane {lane}")),
        stream::PIN => subject
            .strip_prefix("fleet.pin.")
            .and_then(|rest| rest.split('.').next())
            .map(|machine| format!("pinned to {machine}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grower_is_named_by_who_can_do_something_about_it() {
        let job = "aeaqcaibaeaqcaib";
        assert_eq!(
            owner(stream::LOG, &format!("fleet.log.{job}.studio")).unwrap(),
            format!("output of job {job}")
        );
        assert_eq!(
            owner(stream::FLOW, "fleet.flow.studio.machine.up").unwrap(),
            "events of studio"
        );
        assert_eq!(
            owner(stream::PIN, "fleet.pin.studio.n.x").unwrap(),
            "pinned to studio"
        );
    }
}
