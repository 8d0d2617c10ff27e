//! Where the executor's socket is, and that it is nobody else's.
//!
//! `FLEET_HOME/agent/executor.sock`; where that path is too long for a socket it lies in a
//! private folder of the user and `executor.sock.at` names it. Both sides check the other's
//! user.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::agent_dir;
use super::record::make_private_dir;

/// Longest path of a socket that every system takes (macOS: 104 with its NUL).
const PATH_MAX: usize = 100;

fn direct_path(home: &Path) -> PathBuf {
    agent_dir(home).join("executor.sock")
}

fn pointer_path(home: &Path) -> PathBuf {
    agent_dir(home).join("executor.sock.at")
}

fn is_short(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_MAX
}

/// A bound socket that is removed with it.
pub(crate) struct Bound {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds the socket. The caller holds the lock on this home, so what lies there is stale.
pub(crate) fn bind(home: &Path) -> io::Result<Bound> {
    let direct = direct_path(home);
    let path = if is_short(&direct) {
        direct
    } else {
        let mut hash = DefaultHasher::new();
        home.canonicalize()?.hash(&mut hash);
        let path = private_dir()?.join(format!("{:016x}.sock", hash.finish()));
        std::fs::write(pointer_path(home), path.as_os_str().as_encoded_bytes())?;
        path
    };
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Bound { listener, path })
}

/// Connects to the executor of this home.
pub(crate) async fn connect(home: &Path) -> io::Result<UnixStream> {
    let direct = direct_path(home);
    let path = if is_short(&direct) {
        direct
    } else {
        PathBuf::from(std::fs::read_to_string(pointer_path(home))?)
    };
    let stream = UnixStream::connect(path).await?;
    check_peer(&stream)?;
    Ok(stream)
}

/// Refuses a peer of another user.
pub(crate) fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own {
        let text = format!("the other side of the socket is user {peer}, not {own}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// A folder with a short name that only this user can enter.
fn private_dir() -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute() && dir.as_os_str().len() < PATH_MAX - 40)
        .filter(|dir| check_private(dir, uid).is_ok());
    let dir = match runtime {
        Some(runtime) => runtime.join("fleet"),
        None => PathBuf::from(format!("/tmp/fleet-{uid}")),
    };
    make_private_dir(&dir)?;
    check_private(&dir, uid)?;
    Ok(dir)
}

fn check_private(dir: &Path, uid: u32) -> io::Result<()> {
    let found = std::fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let text = format!(
            "{} must be a folder that only this user can enter: remove it or chmod 700 it",
            dir.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}
