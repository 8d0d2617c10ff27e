//! Putting a backup back: into a home without a hub, by a server of its own that nobody else finds.

use std::path::{Component, Path};

use super::{
    BackupError, MANIFEST, Manifest, Progress, file, is_occupied, transfer, verify, write::copy,
};
use crate::bus::Bus;
use crate::guard::streams;
use crate::home::Home;
use crate::hub::{HubRecord, StreamRecord};
use crate::subject::stream;

/// Reads a backup's manifest, and every file of it; that it can be put back into this home.
///
/// # Errors
/// [`BackupError`].
pub async fn check(
    home: &Home,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Manifest, BackupError> {
    let path = dir.join(MANIFEST);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(BackupError::NoManifest(dir.to_owned()));
        }
        Err(e) => return Err(file("read", &path)(e)),
    };
    let damaged = |why: String| BackupError::Manifest {
        path: path.clone(),
        why,
    };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if manifest.version != 1 {
        let why = format!("its version is {}, of a newer fleet", manifest.version);
        return Err(damaged(why));
    }
    for name in manifest.files.keys() {
        let plain = |part| matches!(part, Component::Normal(_));
        if !Path::new(name).components().all(plain) {
            return Err(damaged(format!("it names {name:?}")));
        }
    }
    if let Some(missing) = stream::ALL
        .iter()
        .find(|name| !manifest.streams.contains_key(**name))
    {
        return Err(damaged(format!("it has no stream {missing}")));
    }
    if home.hub_record().exists() || home.identity().exists() || is_occupied(&home.jetstream_dir())?
    {
        return Err(BackupError::HubThere(home.hub_dir()));
    }
    tell(Progress::Verifying);
    verify(dir, &manifest).await?;
    Ok(manifest)
}

/// Puts keys, credentials, configuration and the hub's record back. What a home has already of
/// credentials and configuration is left as it is; the record says that the store was restored, so
/// that the next start recovers it.
///
/// # Errors
/// [`BackupError::File`].
pub fn put_files(home: &Home, dir: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for below in manifest.files.keys() {
        let to = match below.split_once('/') {
            Some(("keys", name)) => home.keys_dir().join(name),
            Some(("credentials", name)) => home.credentials_dir().join(name),
            None if below == "config.toml" => home.config(),
            _ => continue,
        };
        if !to.exists() {
            copy(&dir.join(below), &to)?;
        }
    }
    let record = HubRecord {
        restored: Some(manifest.taken),
        recovering: None,
        ..manifest.hub.clone()
    };
    record.save(home)?;
    Ok(())
}

/// Puts every stream back, over a server of this home that has none, and compares what is there
/// then with what was copied.
///
/// # Errors
/// [`BackupError`].
pub async fn restore(
    bus: &Bus,
    dir: &Path,
    manifest: &Manifest,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<std::collections::BTreeMap<String, StreamRecord>, BackupError> {
    for name in stream::ALL {
        let Some(copy) = manifest.streams.get(name) else {
            continue;
        };
        let path = dir.join(format!("streams/{name}.snapshot"));
        transfer::put(bus, name, copy, &path, tell).await?;
    }
    tell(Progress::Verifying);
    let there = streams(bus).await?;
    let mut marks = std::collections::BTreeMap::new();
    for (name, copy) in &manifest.streams {
        let failed = transfer::failed(name);
        let Some(state) = there.get(name) else {
            return Err(failed("it is not there after it was put back".to_owned()));
        };
        let expected = (copy.messages, copy.first_seq, copy.last_seq);
        let found = (state.messages, state.first_seq, state.last_seq);
        // Age goes on: what was too old by now is gone, and only from the beginning.
        let aged = copy.config["max_age"].as_i64().unwrap_or(0) > 0;
        // The server reads how much there is and then writes it: a ticket that was taken between
        // the two is in the copy only as one that was taken. The journal, which says what became of
        // its job, is copied last.
        let taken = copy.config["retention"] == "workqueue";
        let less = (aged || taken) && found.2 == expected.2 && found.0 <= expected.0;
        // The server counts an empty stream from 0 or 1.
        let empty = found.0 == 0 && expected.0 == 0 && found.2 == expected.2;
        if found != expected && !less && !empty {
            return Err(failed(format!(
                "it holds {} messages, {} to {}; the backup has {}, {} to {}",
                found.0, found.1, found.2, expected.0, expected.1, expected.2
            )));
        }
        let mark = StreamRecord {
            created: state.created.clone(),
            last_sequence: state.last_seq,
        };
        marks.insert(name.clone(), mark);
    }
    Ok(marks)
}
