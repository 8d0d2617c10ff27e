//! What servers and drivers tell of models and graphics processors. Pure.

use fleet_contract::needs::Gpu;
use fleet_contract::time::Time;
use serde_json::Value;

/// Most models of one server that are told of.
const MODELS_MAX: usize = 64;
/// Longest name of a model.
const NAME_MAX_CHARS: usize = 128;
/// Most graphics processors that are told of.
const GPUS_MAX: usize = 64;

/// A text of one line, at most so long.
pub(super) fn clean(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = plain.take(most).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn names<'a>(found: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names = found.map(|name| clean(name, NAME_MAX_CHARS));
    let mut names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names.truncate(MODELS_MAX);
    names
}

/// What Ollama has loaded, by its answer to `/api/ps`; none where it is no such answer.
pub(super) fn ollama(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let models = match answer.get("models")? {
        Value::Null => return Some(Vec::new()),
        models => models.as_array()?,
    };
    Some(names(
        models.iter().filter_map(|model| model["name"].as_str()),
    ))
}

/// What LM Studio has loaded, by its answer to `/api/v1/models` or the older `/api/v0/models`.
pub(super) fn lm_studio(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    if let Some(models) = answer.get("models") {
        let loaded = models.as_array()?.iter().filter(|model| {
            let instances = model["loaded_instances"].as_array();
            instances.is_some_and(|instances| !instances.is_empty())
        });
        return Some(names(loaded.filter_map(|model| model["key"].as_str())));
    }
    let models = answer.get("data")?.as_array()?.iter();
    let loaded = models.filter(|model| model["state"] == "loaded");
    Some(names(loaded.filter_map(|model| model["id"].as_str())))
}

/// The lines `index, name, MiB` of `nvidia-smi`; none where one is no such line.
pub(super) fn nvidia(text: &str, now: Time) -> Option<Vec<Gpu>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let gpus: Option<Vec<Gpu>> = lines
        .take(GPUS_MAX)
        .map(|line| {
            let (index, rest) = line.split_once(',')?;
            let (name, mem) = rest.rsplit_once(',')?;
            let mib: u64 = mem.trim().parse().ok()?;
            Some(Gpu {
                index: index.trim().parse().ok()?,
                name: clean(name, NAME_MAX_CHARS),
                mem: mib.checked_mul(1 << 20)?,
                checked_at: now,
            })
        })
        .collect();
    gpus.filter(|gpus| !gpus.is_empty())
}

/// The displays of `system_profiler -json`. Where one says no memory of its own, it shares the
/// machine's.
pub(super) fn apple(text: &str, shared: u64, now: Time) -> Option<Vec<Gpu>> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let found = answer.get("SPDisplaysDataType")?.as_array()?.iter();
    let found = found
        .filter(|one| one["sppci_model"].is_string())
        .take(GPUS_MAX);
    let gpus: Vec<Gpu> = (0..)
        .zip(found)
        .map(|(index, one)| {
            let own = ["spdisplays_vram", "_spdisplays_vram"];
            let own = own.iter().find_map(|key| size(one[*key].as_str()?));
            Gpu {
                index,
                name: clean(one["sppci_model"].as_str().unwrap_or(""), NAME_MAX_CHARS),
                mem: own.unwrap_or(shared),
                checked_at: now,
            }
        })
        .collect();
    (!gpus.is_empty()).then_some(gpus)
}

/// `8 GB`, `1536 MB`: of these people mean powers of two.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let shift = match unit {
        "GB" => 30,
        "MB" => 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_models_are_read_and_garbage_is_none() {
        let some = br#"{"models":[{"name":"llama3:8b","size":1},{"name":"a\nb"},{"size":2}]}"#;
        assert_eq!(
            ollama(some),
            Some(vec!["a b".to_owned(), "llama3:8b".to_owned()])
        );
        for none in [&br#"{"models":[]}"#[..], br#"{"models":null}"#] {
            assert_eq!(ollama(none), Some(Vec::new()));
        }
        let new = br#"{"models":[{"key":"qwen","loaded_instances":[{"id":"qwen"}]},
                       {"key":"phi","loaded_instances":[]}]}"#;
        assert_eq!(lm_studio(new), Some(vec!["qwen".to_owned()]));
        let old = br#"{"data":[{"id":"qwen","state":"loaded"},{"id":"phi","state":"not-loaded"}]}"#;
        assert_eq!(lm_studio(old), Some(vec!["qwen".to_owned()]));
        for garbage in [&b"<html>"[..], b"{}", b"[]", br#"{"models":7,"data":7}"#] {
            assert_eq!((ollama(garbage), lm_studio(garbage)), (None, None));
        }
    }

    #[test]
    fn graphics_processors_are_read_and_garbage_is_none() {
        let now = Time::from_micros(1);
        let text = "0, NVIDIA GeForce RTX 4090, 24564\n1, A, B, 16\n";
        let gpus = nvidia(text, now).unwrap();
        let told: Vec<_> = gpus
            .iter()
            .map(|g| (g.index, g.name.as_str(), g.mem >> 20))
            .collect();
        assert_eq!(
            told,
            [(0, "NVIDIA GeForce RTX 4090", 24564), (1, "A, B", 16)]
        );
        for garbage in ["", "No devices were found", "0, x, [N/A]", "x, y, 1"] {
            assert_eq!(nvidia(garbage, now), None, "{garbage}");
        }
        let mac = r#"{"SPDisplaysDataType":[{"sppci_model":"Apple M2 Pro"},
                      {"sppci_model":"Radeon","spdisplays_vram":"8 GB"},{"_name":"no"}]}"#;
        let gpus = apple(mac, 32 << 30, now).unwrap();
        let told: Vec<_> = gpus
            .iter()
            .map(|g| (g.name.as_str(), g.mem >> 30))
            .collect();
        assert_eq!(told, [("Apple M2 Pro", 32), ("Radeon", 8)]);
        assert_eq!(apple("{}", 1, now), None);
    }
}
