//! The prober with stand-ins: tools that are there, absent, hang, answer garbage or without end, and
//! servers on this machine. What they were asked, with which variables, in which folder.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_contract::needs::Skill;
use fleet_contract::time::Time;
use tempfile::TempDir;

use super::find::World;
use super::prober::{Changes, Prober, Which};

/// A machine with nothing on it but `/bin/sh`.
struct Machine {
    dir: TempDir,
    env: Vec<(String, String)>,
    now: Mutex<Time>,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bin", "home", "skills.d"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let path = dir.path().join("bin").display().to_string();
        Self {
            dir,
            env: vec![("PATH".to_owned(), path)],
            now: Mutex::new(Time::from_micros(1_000_000_000_000)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Puts a tool there that runs this script.
    fn tool(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }

    fn own(&self, name: &str, text: &str) {
        std::fs::write(self.path("skills.d").join(name), text).unwrap();
    }

    fn passes(&self, span: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus(span);
    }

    fn now(&self) -> Time {
        *self.now.lock().unwrap()
    }

    fn prober(&self) -> Prober {
        // Nothing of this very machine is to be found.
        self.own("lm-studio.toml", "programs = [\"lms\"]");
        if self.env.iter().all(|(name, _)| name != "OLLAMA_HOST") {
            self.own("ollama.toml", "programs = [\"ollama\"]");
        }
        self.own("cuda.toml", "programs = [\"nvcc\"]");
        let world = World {
            env: self.env.iter().cloned().collect(),
            home: self.path("home"),
            os: "linux".to_owned(),
            mem_total: 16 << 30,
            booted_at: 1_000,
        };
        Prober::new(world, self.path("skills.d"), self.path("kept/skills.json"))
    }

    async fn look(&self, prober: &mut Prober, which: Which) -> Changes {
        prober.probe(&which, || self.now()).await
    }

    async fn all(&self, prober: &mut Prober) -> Changes {
        self.look(prober, Which::Named(Vec::new())).await
    }
}

fn reason(skill: Option<&Skill>) -> &str {
    skill
        .and_then(|skill| skill.reason.as_deref())
        .unwrap_or("")
}

#[tokio::test]
async fn tools_are_asked_in_the_world_that_jobs_have() {
    let mut machine = Machine::new();
    machine.set("SAID", "by the login shell");
    let out = machine.path("asked");
    let line = format!(
        "{{ echo \"argv $#: $*\"; echo \"in $PWD\"; echo \"env $SAID\"; read x || echo no input; \
         }} > {}; echo git version 2.39.5",
        out.display()
    );
    machine.tool("git", &line);
    let mut prober = machine.prober();
    let changes = machine.all(&mut prober).await;
    let git = &prober.skills()["git"];
    assert_eq!((git.ok, git.version.as_deref()), (true, Some("2.39.5")));
    assert_eq!(
        (git.category.as_str(), git.interval_ms),
        ("source", 600_000)
    );
    assert_eq!(changes.gained["git"].as_deref(), Some("2.39.5"));
    // What is not there is not there, and nobody's failure.
    assert_eq!(prober.skills().len(), 1, "{:?}", prober.skills());
    assert_eq!(prober.failing(), None);
    let home = std::fs::canonicalize(machine.path("home")).unwrap();
    let asked = std::fs::read_to_string(&out).unwrap();
    let expected = format!(
        "argv 1: --version\nin {}\nenv by the login shell\nno input\n",
        home.display()
    );
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn what_hangs_or_answers_garbage_fails_and_keeps_nobody() {
    let machine = Machine::new();
    let pid = machine.path("pid");
    let define = |name: &str| {
        let within = if name == "hangs" { "2s" } else { "60s" };
        let text = format!("programs = [\"{name}\"]\ntimeout = \"{within}\"\ncategory = \"test\"");
        machine.own(&format!("{name}.toml"), &text);
    };
    for name in ["hangs", "garbage", "much", "fails", "leaves"] {
        define(name);
    }
    let child = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    machine.tool("hangs", &child);
    machine.tool("garbage", "printf '\\377\\376\\033[31mwhat\\n'");
    machine.tool("much", "yes '1.2.3 and more of it' | head -c 1048576");
    machine.tool("fails", "echo no toolchain >&2; exit 3");
    // Something that goes on holds the pipes, and is left alone.
    let stays = machine.path("stays");
    machine.tool(
        "leaves",
        &format!(
            "sleep 1000 & echo $! > {}; echo leaves 1.2.3",
            stays.display()
        ),
    );
    machine.tool("git", "echo git version 2.39.5");
    let mut prober = machine.prober();
    let changes = machine.all(&mut prober).await;
    let skills = prober.skills();
    assert_eq!(reason(skills.get("hangs")), "no answer within 2 s");
    assert!(reason(skills.get("garbage")).starts_with("no version in its answer:"));
    assert_eq!(
        reason(skills.get("much")),
        "it answers with more than 65536 bytes"
    );
    assert_eq!(reason(skills.get("fails")), "exit status: 3: no toolchain");
    assert_eq!(skills["leaves"].version.as_deref(), Some("1.2.3"));
    assert!(skills["git"].ok);
    let failing: Vec<&String> = changes.failing.keys().collect();
    assert_eq!(failing, ["fails", "garbage", "hangs", "much"]);
    let told = prober.failing().unwrap();
    assert!(
        told.starts_with("fails: exit status: 3") && told.ends_with("and 1 more"),
        "{told}"
    );
    // The group of what hung is gone, its child as well.
    let gone = read_pid(&pid);
    for _ in 0..1000 {
        if !runs(gone) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!runs(gone), "its child still runs");
    let stays = read_pid(&stays);
    assert!(runs(stays), "what a tool left behind was ended");
    rustix::process::kill_process(stays, rustix::process::Signal::KILL).unwrap();
    // Told once, not at every look.
    let again = machine.all(&mut prober).await;
    assert_eq!(again, Changes::default());
    let left = read_pid(&machine.path("stays"));
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

fn read_pid(path: &Path) -> rustix::process::Pid {
    let text = std::fs::read_to_string(path).unwrap();
    rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Whether a process is there and no zombie.
fn runs(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    match stat {
        Ok(stat) => !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) if Path::new("/proc/self/stat").exists() => false,
        Err(_) => rustix::process::test_kill_process(pid).is_ok(),
    }
}

#[tokio::test]
async fn a_program_that_is_the_same_file_is_not_run_again_for_hours() {
    let machine = Machine::new();
    let runs = machine.path("runs");
    let script =
        |version: &str| format!("echo x >> {}; echo git version {version}", runs.display());
    machine.tool("git", &script("1.0.0"));
    let mut prober = machine.prober();
    assert_eq!(prober.next(machine.now()), Duration::ZERO);
    machine.look(&mut prober, Which::Due).await;
    let count = || std::fs::read_to_string(&runs).unwrap().lines().count();
    assert_eq!(count(), 1);
    assert!(prober.next(machine.now()) > Duration::from_secs(30));
    for _ in 0..5 {
        machine.passes(Duration::from_secs(600));
        machine.look(&mut prober, Which::Due).await;
    }
    assert_eq!(count(), 1);
    assert_eq!(prober.skills()["git"].checked_at, machine.now());
    // Another agent of this home knows it at once, and does not run it either.
    let mut other = machine.prober();
    assert_eq!(other.skills()["git"].version.as_deref(), Some("1.0.0"));
    assert!(!other.rebooted());
    machine.passes(Duration::from_secs(600));
    assert_eq!(
        machine.look(&mut other, Which::Due).await,
        Changes::default()
    );
    assert_eq!(count(), 1);
    // Another file is run, and what it says is told.
    machine.tool("git", &script("2.0.0"));
    machine.passes(Duration::from_secs(600));
    let changes = machine.look(&mut prober, Which::Due).await;
    assert_eq!(changes.changed["git"].as_deref(), Some("2.0.0"));
    assert_eq!(count(), 2);
    // So is whoever is asked for by name, and after hours.
    machine
        .look(&mut prober, Which::Named(vec!["git".to_owned()]))
        .await;
    machine.passes(Duration::from_secs(7 * 3600));
    machine.look(&mut prober, Which::Due).await;
    assert_eq!(count(), 4);
    std::fs::remove_file(machine.path("bin/git")).unwrap();
    machine.passes(Duration::from_secs(600));
    let changes = machine.look(&mut prober, Which::Due).await;
    assert_eq!(changes.lost["git"], "not found");
    // What was kept is damaged: no loss.
    std::fs::write(machine.path("kept/skills.json"), b"{\"form\":1,").unwrap();
    assert!(machine.prober().skills().is_empty());
}

#[tokio::test]
async fn ready_and_logged_in_are_looked_at_each_time() {
    let mut machine = Machine::new();
    let up = machine.path("up");
    let daemon = format!(
        "case $1 in --version) echo Docker version 27.3.1, build x;; *) test -e {};; esac",
        up.display()
    );
    machine.tool("docker", &daemon);
    machine.tool("claude", "echo '2.0.14 (Claude Code)'");
    machine.tool(
        "codex",
        "case $1 in login) exit 1;; *) echo codex-cli 0.149.1;; esac",
    );
    machine.tool("gemini", "echo 0.9.0");
    machine.tool("groq", "echo 1.0.2");
    machine.set("GROQ_API_KEY", "x");
    machine.set("CLAUDE_CONFIG_DIR", "");
    let mut prober = machine.prober();
    machine.all(&mut prober).await;
    let skills = prober.skills();
    assert_eq!(reason(skills.get("docker")), "its daemon does not answer");
    assert_eq!(skills["docker"].version.as_deref(), Some("27.3.1"));
    for agent in ["claude", "codex", "gemini"] {
        assert_eq!(reason(skills.get(agent)), "not logged in", "{agent}");
    }
    assert!(skills["groq"].ok, "a key is enough");
    assert_eq!(prober.failing(), None, "somebody can do something about it");
    std::fs::write(&up, "").unwrap();
    std::fs::create_dir_all(machine.path("home/.claude")).unwrap();
    std::fs::write(machine.path("home/.claude/.credentials.json"), "{}").unwrap();
    machine.tool("codex", "echo codex-cli 0.149.1");
    machine.passes(Duration::from_secs(600));
    let changes = machine.look(&mut prober, Which::Due).await;
    let gained: Vec<&String> = changes.gained.keys().collect();
    assert_eq!(gained, ["claude", "codex", "docker"]);
    std::fs::remove_file(&up).unwrap();
    machine.passes(Duration::from_secs(600));
    let changes = machine.look(&mut prober, Which::Due).await;
    assert_eq!(changes.lost["docker"], "its daemon does not answer");
}

/// Answers every question by its path, and keeps what it was asked.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            heard.lock().unwrap().push(first.trim().to_owned());
            let path = first.split(' ').nth(1).unwrap_or("").to_owned();
            let _ = stream.write_all(&answer(&path));
        }
    });
    (address, asked)
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn loaded_models_come_and_go() {
    let mut machine = Machine::new();
    let loaded = Arc::new(Mutex::new("[{\"name\":\"llama3:8b\"}]".to_owned()));
    let shown = loaded.clone();
    let (address, asked) = server(move |path| match path {
        "/api/ps" => ok(&format!("{{\"models\":{}}}", shown.lock().unwrap())),
        "/api/version" => ok("{\"version\":\"0.5.1\"}"),
        _ => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
    });
    machine.set("OLLAMA_HOST", &address);
    let mut prober = machine.prober();
    let changes = machine.all(&mut prober).await;
    assert_eq!(changes.models_loaded, ["llama3:8b"]);
    let ollama = &prober.skills()["ollama"];
    assert_eq!(
        (ollama.ok, ollama.version.as_deref()),
        (true, Some("0.5.1"))
    );
    assert_eq!(prober.models()[0].server, "ollama");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["GET /api/ps HTTP/1.0", "GET /api/version HTTP/1.0"]);
    *loaded.lock().unwrap() = "[]".to_owned();
    machine.passes(Duration::from_secs(60));
    let changes = machine.look(&mut prober, Which::Due).await;
    assert_eq!(changes.models_gone, ["llama3:8b"]);
    assert!(prober.models().is_empty() && prober.skills()["ollama"].ok);
    *loaded.lock().unwrap() = "<html>".to_owned();
    machine.passes(Duration::from_secs(60));
    machine.look(&mut prober, Which::Due).await;
    let skills = prober.skills();
    assert_eq!(
        reason(skills.get("ollama")),
        "what it tells of its models cannot be read"
    );
}

#[tokio::test]
async fn servers_that_are_elsewhere_silent_or_something_else_are_told_apart() {
    let mut machine = Machine::new();
    let (old, _) = server(|path| match path {
        "/api/v0/models" => ok("{\"data\":[{\"id\":\"qwen\",\"state\":\"loaded\"}]}"),
        _ => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
    });
    let (endless, _) = server(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.extend(std::iter::repeat_n(b'x', 1 << 20));
        answer
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let define = |name: &str, address: &str, models: &str| {
        let within = if name == "silent" { "2s" } else { "60s" };
        let text = format!(
            "timeout = \"{within}\"\nserver = {{ url = \"http://{address}\", models = \"{models}\" }}"
        );
        machine.own(&format!("{name}.toml"), &text);
    };
    define("old", &old, "lm-studio");
    define("endless", &endless, "ollama");
    define("silent", &silent_at.to_string(), "lm-studio");
    define("other", &old, "ollama");
    define("nobody", "127.0.0.1:1", "ollama");
    let down =
        "programs = [\"ollama\"]\nserver = { url = \"http://127.0.0.1:1\", models = \"ollama\" }";
    machine.own("down.toml", down);
    machine.tool("ollama", "exit 7");
    machine.set("OLLAMA_HOST", "10.1.2.3:11434");
    let mut prober = machine.prober();
    machine.all(&mut prober).await;
    let skills = prober.skills();
    assert!(skills["old"].ok);
    assert_eq!(prober.models()[0].name, "qwen");
    assert_eq!(reason(skills.get("endless")), "an answer without end");
    assert_eq!(reason(skills.get("silent")), "no answer within 2 s");
    assert_eq!(
        reason(skills.get("other")),
        "what answers there is another server"
    );
    assert_eq!(
        reason(skills.get("ollama")),
        "10.1.2.3:11434 is another machine"
    );
    assert_eq!(reason(skills.get("down")), "its server does not run");
    assert_eq!(skills.get("nobody"), None);
    drop(silent);
}

#[tokio::test]
async fn graphics_processors_are_found_with_their_memory() {
    let machine = Machine::new();
    let out = machine.path("asked");
    let script = format!(
        "echo \"$*\" > {}; echo '0, NVIDIA A100, 40960'; echo '1, NVIDIA A100, 40960'",
        out.display()
    );
    machine.tool("nvidia-smi", &script);
    machine.tool(
        "nvcc",
        "echo 'Cuda compilation tools, release 12.4, V12.4.131'",
    );
    let mut prober = machine.prober();
    let changes = machine.all(&mut prober).await;
    let gpus: Vec<_> = prober
        .gpus()
        .iter()
        .map(|gpu| (gpu.index, gpu.mem >> 30))
        .collect();
    assert_eq!(gpus, [(0, 40), (1, 40)]);
    assert_eq!(changes.gpus.as_ref().map(Vec::len), Some(2));
    let asked = std::fs::read_to_string(&out).unwrap();
    assert_eq!(
        asked.trim(),
        "--query-gpu=index,name,memory.total --format=csv,noheader,nounits"
    );
    machine.tool("nvidia-smi", "echo 'NVIDIA-SMI has failed' >&2; exit 9");
    machine.passes(Duration::from_secs(3600));
    let changes = machine.look(&mut prober, Which::Due).await;
    assert_eq!(changes.gpus, Some(Vec::new()));
    assert_eq!(
        reason(prober.skills().get("nvidia")),
        "exit status: 9: NVIDIA-SMI has failed"
    );
}

#[tokio::test]
async fn definitions_of_ones_own_come_go_and_replace() {
    let machine = Machine::new();
    machine.tool("vale", "echo vale version 3.9.1");
    machine.tool("fvm", "echo no number; exit 0");
    let mut prober = machine.prober();
    machine.all(&mut prober).await;
    assert!(prober.skills().is_empty());
    machine.own("vale.toml", "programs = [\"vale\"]\ncategory = \"lint\"");
    machine.own("flutter.toml", "programs = [\"fvm\"]\npattern = \"\"");
    machine.own("bad.toml", "programs = 7");
    let changes = machine.all(&mut prober).await;
    let gained: Vec<_> = changes
        .gained
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_deref()))
        .collect();
    assert_eq!(gained, [("flutter", None), ("vale", Some("3.9.1"))]);
    let told = prober.failing().unwrap();
    assert!(told.contains("bad.toml"), "{told}");
    std::fs::remove_file(machine.path("skills.d/vale.toml")).unwrap();
    std::fs::remove_file(machine.path("skills.d/bad.toml")).unwrap();
    let changes = machine.all(&mut prober).await;
    assert_eq!(changes.lost["vale"], "not found");
    assert_eq!(prober.failing(), None);
}
