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
        let rest = one_line(&details(&event.kind, &event.data));
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

/// The details that fit a line: of a job's transition what changed, of any other event its
/// details, each as `name=value`.
fn details(kind: &str, data: &Value) -> String {
    let mut words = Vec::new();
    if kind.starts_with("job.") {
        for name in ["state", "machine"] {
            add(&mut words, name, &data["after"][name]);
        }
        if kind == "job.superseded" {
            words = Vec::new();
            for name in ["no", "machine", "token"] {
                add(&mut words, name, &data[name]);
            }
        }
        for name in ["outcome", "exit_code", "signal", "reason"] {
            add(&mut words, name, &data["outcome"][name]);
        }
        for name in ["cause", "by", "to", "reason", "notes"] {
            add(&mut words, name, &data[name]);
        }
        for name in ["question", "until"] {
            add(&mut words, name, &data["next"][name]);
        }
        return words.join(" ");
    }
    // The envelope of the flow's own order is nothing for people.
    let data = data.get("detail").unwrap_or(data);
    match data {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Object(skills) if kind == "machine.skills" => {
                        words.push(format!("{name}={}", pairs(skills)));
                    }
                    value => add(&mut words, name, value),
                }
            }
        }
        Value::Null => {}
        other => words.push(other.to_string()),
    }
    words.join(" ")
}

/// `git 2.39.5,vale not found`: each name with what is said of it.
fn pairs(map: &serde_json::Map<String, Value>) -> String {
    let words = map.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name} {text}"),
        _ => name.clone(),
    });
    words.collect::<Vec<_>>().join(",")
}

fn add(words: &mut Vec<String>, name: &str, value: &Value) {
    match value {
        Value::Null | Value::Object(_) => {}
        Value::Array(items) if items.is_empty() => {}
        Value::String(text) => words.push(format!("{name}={text}")),
        other => words.push(format!("{name}={other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::ids::MessageId;
    use fleet_contract::time::Time;

    #[test]
    fn a_transition_says_what_changed() {
        let data = serde_json::json!({
            "change": "ended", "prev": 4,
            "outcome": {"outcome": "exited", "exit_code": 3},
            "after": {"state": "failed", "attempts": 1},
            "next": {"next": "end"},
        });
        assert_eq!(
            details("job.ended", &data),
            "state=failed outcome=exited exit_code=3"
        );
    }

    #[test]
    fn skills_are_told_with_their_versions_and_reasons() {
        let data = serde_json::json!({ "detail": {
            "gained": { "git": "2.39.5", "own": null },
            "lost": { "node": "not found" },
            "models_loaded": ["llama3:8b"],
        }});
        assert_eq!(
            details("machine.skills", &data),
            "gained=git 2.39.5,own lost=node not found models_loaded=[\"llama3:8b\"]"
        );
    }

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
            data: serde_json::json!({
                "boot": "x",
                "seq": 9,
                "detail": {"why": "a\nb", "n": 3, "deep": {"x": 1}},
            }),
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
