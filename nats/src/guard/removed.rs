//! What the server removed of events and output by age and bytes: counted from one look to the next,
//! and told.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_contract::lease::BootTime;
use fleet_contract::needs::rounded_size;
use fleet_contract::time::Time;
use serde_json::{Value, json};

use super::StreamState;
use crate::subject::stream;

/// It is told this often at the most.
const TOLD_EVERY: Duration = Duration::from_secs(3600);
/// The streams whose oldest messages go by themselves.
pub(super) const STREAMS: [&str; 2] = [stream::FLOW, stream::LOG];

/// What went since it was told last.
#[derive(Debug, Default)]
pub(super) struct Removals {
    gone: BTreeMap<&'static str, Gone>,
    told: Option<BootTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Gone {
    messages: u64,
    /// About: what came meanwhile is taken to be as heavy as what is there.
    bytes: u64,
    /// What was stored from then, and until then, is not there any more.
    from: Option<Time>,
    until: Option<Time>,
}

impl Removals {
    /// What is to be told next is told at once.
    pub(super) fn expect(&mut self) {
        self.told = None;
    }

    /// Counts what went between two looks.
    pub(super) fn count(
        &mut self,
        then: &BTreeMap<String, StreamState>,
        now: &BTreeMap<String, StreamState>,
    ) {
        for name in STREAMS {
            let (Some(then), Some(now)) = (then.get(name), now.get(name)) else {
                continue;
            };
            let (messages, bytes) = between(then, now);
            if messages == 0 {
                continue;
            }
            let gone = self.gone.entry(name).or_default();
            gone.messages = gone.messages.saturating_add(messages);
            gone.bytes = gone.bytes.saturating_add(bytes);
            gone.from = gone.from.or(then.first_time);
            gone.until = now.first_time;
        }
    }

    /// What is to be told now.
    pub(super) fn take(&mut self, now: BootTime) -> Option<Value> {
        let lately = |at: BootTime| now.since(at) < TOLD_EVERY;
        if self.gone.is_empty() || self.told.is_some_and(lately) {
            return None;
        }
        self.told = Some(now);
        let gone = std::mem::take(&mut self.gone);
        let streams: BTreeMap<_, _> = gone
            .iter()
            .map(|(name, gone)| {
                let Gone {
                    messages,
                    bytes,
                    from,
                    until,
                } = gone;
                let one = json!({
                    "messages": messages, "bytes": bytes, "from": from, "until": until,
                });
                (name, one)
            })
            .collect();
        let messages: BTreeMap<_, _> = gone.iter().map(|(name, g)| (name, g.messages)).collect();
        Some(json!({ "messages": messages, "streams": streams }))
    }
}

/// Messages and bytes that went between two looks: what came, less what there is more of.
fn between(then: &StreamState, now: &StreamState) -> (u64, u64) {
    if then.created != now.created {
        return (0, 0);
    }
    let came = now.last_seq.saturating_sub(then.last_seq);
    let messages = then
        .messages
        .saturating_add(came)
        .saturating_sub(now.messages);
    let heavy = now.bytes.checked_div(now.messages).unwrap_or(0);
    let bytes = then
        .bytes
        .saturating_add(came.saturating_mul(heavy))
        .saturating_sub(now.bytes);
    (messages, bytes)
}

/// What limits that were changed at a start mean for what is stored, in words.
pub(super) fn by_limits(
    before: &BTreeMap<String, StreamState>,
    after: &BTreeMap<String, StreamState>,
) -> Vec<String> {
    let mut said = Vec::new();
    for name in STREAMS {
        let (Some(was), Some(is)) = (before.get(name), after.get(name)) else {
            continue;
        };
        if (was.max_age, was.max_bytes) == (is.max_age, is.max_bytes) {
            continue;
        }
        let what = match name {
            stream::FLOW => "events",
            _ => "output",
        };
        let mut text = format!("{what}: kept {}, was {}", limits(is), limits(was));
        let (messages, bytes) = between(was, is);
        if messages > 0 {
            text.push_str(&format!(
                "; {messages} messages ({}) were removed",
                rounded_size(bytes)
            ));
        }
        let tightened = |now: Option<Duration>, then: Option<Duration>| {
            now.is_some_and(|now| then.is_none_or(|then| now < then))
        };
        if tightened(is.max_age, was.max_age) {
            text.push_str("; what is older goes now: `fleet flow --kind hub.removed`");
        }
        said.push(text);
    }
    said
}

fn limits(state: &StreamState) -> String {
    let age = match state.max_age {
        Some(age) => format!("for {}", words(age)),
        None => "for ever".to_owned(),
    };
    format!("{age} and up to {}", rounded_size(state.max_bytes))
}

/// A span in the largest unit that names it in whole numbers.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        s if s > 0 && s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s > 0 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s > 0 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(messages: u64, last_seq: u64) -> StreamState {
        let first = i64::try_from(last_seq - messages).unwrap();
        StreamState {
            created: "x".to_owned(),
            first_seq: 1,
            last_seq,
            last_time: String::new(),
            first_time: Some(Time::from_micros(first * 1_000_000)),
            messages,
            bytes: messages * 100,
            max_bytes: 0,
            max_age: None,
        }
    }

    fn look(state: StreamState) -> BTreeMap<String, StreamState> {
        BTreeMap::from([(stream::LOG.to_owned(), state)])
    }

    #[test]
    fn what_went_is_what_came_and_is_not_there() {
        assert_eq!(between(&state(10, 10), &state(15, 15)), (0, 0));
        assert_eq!(between(&state(10, 10), &state(12, 15)), (3, 300));
        assert_eq!(between(&state(10, 10), &state(0, 10)), (10, 1000));
        let mut anew = state(0, 0);
        anew.created = "y".to_owned();
        assert_eq!(between(&state(10, 10), &anew), (0, 0));
    }

    #[test]
    fn it_is_told_at_once_and_then_once_an_hour_in_sum() {
        let mut removals = Removals::default();
        let at = |minute: u64| BootTime::default().plus(Duration::from_secs(60 * minute));
        assert_eq!(removals.take(at(0)), None, "nothing went");
        removals.count(&look(state(10, 10)), &look(state(8, 10)));
        let told = removals.take(at(0)).unwrap();
        assert_eq!(told["messages"], json!({ "LOG": 2 }));
        assert_eq!(told["streams"]["LOG"]["bytes"], 200);
        assert_eq!(
            told["streams"]["LOG"]["from"],
            "1970-01-01T00:00:00.000000Z"
        );
        assert_eq!(
            told["streams"]["LOG"]["until"],
            "1970-01-01T00:00:02.000000Z"
        );
        removals.count(&look(state(8, 10)), &look(state(6, 10)));
        removals.count(&look(state(6, 10)), &look(state(6, 10)));
        removals.count(&look(state(6, 10)), &look(state(5, 10)));
        assert_eq!(removals.take(at(59)), None);
        let told = removals.take(at(60)).unwrap();
        assert_eq!(told["messages"]["LOG"], 3);
        assert_eq!(
            told["streams"]["LOG"]["from"],
            "1970-01-01T00:00:02.000000Z"
        );
        removals.count(&look(state(5, 10)), &look(state(4, 10)));
        removals.expect();
        assert!(removals.take(at(61)).is_some());
    }
}
