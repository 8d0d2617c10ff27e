//! Writing a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    BackupError, FileSum, MANIFEST, Manifest, Progress, StreamCopy, file, is_occupied, sum,
    transfer, verify,
};
use crate::bus::Bus;
use crate::clock;
use crate::files::{create_private, private_dir, write_durably};
use crate::home::Home;
use crate::hub::HubRecord;
use crate::subject::stream;

/// Writes a backup of the hub of this home, which serves on `bus`, into a new folder: first what
/// refers to the journal, the journal last. Then reads it all again.
///
/// # Errors
/// [`BackupError`]; what was written until then has no manifest.
pub async fn backup(
    bus: &Bus,
    home: &Home,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Manifest, BackupError> {
    if is_occupied(dir)? {
        return Err(BackupError::NotEmpty(dir.to_owned()));
    }
    let taken = clock::now();
    let Some(hub) = HubRecord::load(home)? else {
        return Err(BackupError::NoHub(home.root().to_owned()));
    };
    for folder in [dir.to_owned(), dir.join("streams")] {
        private_dir(&folder).map_err(file("make", &folder))?;
    }
    let mut files = copy_files(home, dir)?;
    let mut streams: BTreeMap<String, StreamCopy> = BTreeMap::new();
    for name in stream::ALL {
        let below = format!("streams/{name}.snapshot");
        let (copy, sum) = transfer::fetch(bus, name, &dir.join(&below), tell).await?;
        streams.insert(name.to_owned(), copy);
        files.insert(below, sum);
    }
    let manifest = Manifest {
        version: 1,
        taken,
        fleet: env!("CARGO_PKG_VERSION").to_owned(),
        hub,
        files,
        streams,
    };
    tell(Progress::Verifying);
    verify(dir, &manifest).await?;
    let path = dir.join(MANIFEST);
    let bytes = serde_json::to_vec_pretty(&manifest).map_err(|e| BackupError::Manifest {
        path: path.clone(),
        why: e.to_string(),
    })?;
    write_durably(&path, &bytes, 0o600).map_err(file("write", &path))?;
    Ok(manifest)
}

/// Keys, credentials and configuration.
fn copy_files(home: &Home, dir: &Path) -> Result<BTreeMap<String, FileSum>, BackupError> {
    let mut wanted: Vec<(PathBuf, String)> = vec![(home.identity(), "keys/identity.json".into())];
    if home.config().exists() {
        wanted.push((home.config(), "config.toml".into()));
    }
    let credentials = home.credentials_dir();
    if credentials.exists() {
        let entries = std::fs::read_dir(&credentials).map_err(file("read", &credentials))?;
        for entry in entries {
            let entry = entry.map_err(file("read", &credentials))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_file() && !name.starts_with('.') {
                wanted.push((entry.path(), format!("credentials/{name}")));
            }
        }
    }
    let mut files = BTreeMap::new();
    for (from, below) in wanted {
        let to = dir.join(&below);
        copy(&from, &to)?;
        files.insert(below, sum(&to)?);
    }
    Ok(files)
}

/// Copies a small file so that nobody else can read it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    if let Some(folder) = to.parent() {
        private_dir(folder).map_err(file("make", folder))?;
    }
    let mut source = std::fs::File::open(from).map_err(file("read", from))?;
    let mut out = create_private(to).map_err(file("write", to))?;
    std::io::copy(&mut source, &mut out)
        .and_then(|_| out.sync_all())
        .map_err(file("write", to))
}
