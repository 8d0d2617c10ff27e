//! Events, one line each.

use fleet_contract::event::EventView;
use serde_json::Value;

use super::escape::one_line;
use super::style::Paint;
use super::table::clip;
use super::{Answer, Look};

/// One event of the flow.
pub(crate) struct EventLine(pub(crate) EventView);

impl Answer for EventLine {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let event = &self.0;
        let time = event.time.to_string();
        // The day is known and microseconds are noise: hours to milliseconds, for people.
        let time = if look.ages {
            time.get(11..23).unwrap_or(&time)
        } else {
            &time
        };
        let machine = event.machine.as_ref().map_or("-", |m| m.as_str());
        let job = event.job.map(|j| format!(" {j}")).unwrap_or_default();
        let rest = one_line(&details(&event.data));
        let line = format!("{machine:<12} {:<22}{job} {rest}", one_line(&event.kind));
        let line = line.trim_end();
        let line = match look.width {
            Some(width) => clip(line, width.saturating_sub(time.len() + 1)),
            None => line.to_owned(),
        };
        let paint = paint(&event.kind);
        format!(
            "{} {}\n",
            Paint::Dim.on(time, look.color),
            paint.on(&line, look.color)
        )
    }
}

fn paint(kind: &str) -> Paint {
    match kind.rsplit('.').next().unwrap_or(kind) {
        "lost" | "rejected" | "void" | "malformed" | "expired" => Paint::Bad,
        "degraded" | "superseded" | "cancel_requested" | "server_restarted" => Paint::Warn,
        "up" | "recovered" | "healed" => Paint::Good,
        _ => Paint::None,
    }
}

/// The details that fit a line: `name=value` of everything that is no table.
fn details(data: &Value) -> String {
    let Value::Object(map) = data else {
        return match data {
            Value::Null => String::new(),
            other => other.to_string(),
        };
    };
    let words: Vec<String> = map
        .iter()
        .filter_map(|(name, value)| match value {
            Value::Null | Value::Object(_) | Value::Array(_) => None,
            Value::String(text) => Some(format!("{name}={text}")),
            other => Some(format!("{name}={other}")),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::ids::MessageId;
    use fleet_contract::time::Time;

    #[test]
    fn an_event_is_one_line_whatever_it_carries() {
        let event = EventLine(EventView {
            id: MessageId::from_random([1; 10]),
            seq: 4,
            time: Time::from_micros(1_700_000_000_123_456),
            machine: Some("studio".parse().unwrap()),
            kind: "machine.degraded".to_owned(),
            job: None,
            attempt: None,
            data: serde_json::json!({"why": "a\nb", "n": 3, "deep": {"x": 1}}),
        });
        let look = Look {
            width: None,
            color: false,
            ages: true,
            now: Time::default(),
        };
        assert_eq!(
            event.text(&look),
            "22:13:20.123 studio       machine.degraded       n=3 why=a\\nb\n"
        );
        let narrow = Look {
            width: Some(40),
            ..look
        };
        assert_eq!(event.text(&narrow).trim_end().chars().count(), 40);
        assert!(event.json().unwrap().contains("\"seq\":4"));
    }
}
