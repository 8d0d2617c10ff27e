//! How full a stream is, and what makes it grow.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::needs::rounded_size;

use super::StreamState;
use crate::bus::{Bus, BusError};
use crate::subject::{self, stream};

/// Growers that are named.
const NAMED: usize = 3;
/// Messages that are looked at for them, evenly over the stream: of all where there are no more.
const SAMPLES: u64 = 256;
/// Bytes that are read for that, and how long it may take, at the most.
const READ_MAX: usize = 32 * 1024 * 1024;
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What to say of a stream that is nearly full.
pub(super) async fn nearly_full(bus: &Bus, name: &str, state: &StreamState) -> String {
    let percent = state.bytes.saturating_mul(100) / state.max_bytes.max(1);
    let what = match name {
        stream::LOG => "the oldest output goes when it is full, however young: logs_size, logs_age",
        stream::FLOW => "the oldest events go when it is full, however young: flow_size, flow_age",
        stream::JOB => {
            "dispatch is refused from 90 %: keep less of what has ended (jobs_age, jobs_size), or end what waits (`fleet cancel`)"
        }
        stream::WORK | stream::PIN => {
            "dispatch is refused from 90 %: start agents that take it, or end what waits (`fleet jobs`, `fleet cancel`)"
        }
        _ => "it takes no more when it is full",
    };
    let growers = match tokio::time::timeout(READ_WITHIN, growers(bus, name, state)).await {
        Ok(Ok(growers)) if !growers.is_empty() => format!("; most of it: {}", growers.join(", ")),
        _ => String::new(),
    };
    format!("stream {name} is {percent} % full: {what}{growers}")
}

/// Whose messages take most, about: by what a sample of them takes.
async fn growers(bus: &Bus, name: &str, state: &StreamState) -> Result<Vec<String>, BusError> {
    let mut by_owner: BTreeMap<String, u64> = BTreeMap::new();
    let (mut read, mut seen) = (0, 0_u64);
    let span = state.last_seq.saturating_sub(state.first_seq) + 1;
    let step = match state.messages > SAMPLES {
        true => span / SAMPLES,
        false => 1,
    };
    let mut next = state.first_seq;
    for _ in 0..SAMPLES {
        let Some(message) = bus.page(name, ">", next, 1).await?.pop() else {
            break;
        };
        next = message.seq.saturating_add(1).max(next.saturating_add(step));
        let size = message.subject.len() + message.payload.len();
        read += size;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        seen = seen.saturating_add(size);
        if let Some(owner) = owner(name, &message.subject) {
            *by_owner.entry(owner).or_default() += size;
        }
        if read > READ_MAX {
            break;
        }
    }
    let mut owners: Vec<(String, u64)> = by_owner.into_iter().collect();
    owners.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let about = |part: u64| {
        let share = u128::from(state.bytes) * u128::from(part) / u128::from(seen.max(1));
        rounded_size(u64::try_from(share).unwrap_or(u64::MAX))
    };
    let named = owners.into_iter().take(NAMED);
    Ok(named
        .map(|(owner, part)| format!("{owner} (about {})", about(part)))
        .collect())
}

/// What fills the disk of the hub's store, as far as it is the hub.
pub(super) fn stored(there: &BTreeMap<String, StreamState>) -> String {
    let mut streams: Vec<(&str, u64)> = there
        .iter()
        .map(|(name, state)| (name.as_str(), state.bytes))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    streams.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let named: Vec<String> = streams
        .into_iter()
        .take(NAMED)
        .map(|(name, bytes)| format!("{name} {}", rounded_size(bytes)))
        .collect();
    named.join(", ")
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
