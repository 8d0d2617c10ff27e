//! Roles: templates of jobs that become a command, its world and its requirements where they are
//! dispatched.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Fleet, Home, Ran};

const GREET: &str = r#"
help = "Greet somebody"
message = "required"
stdin = "{message}"
command = [
    "sh", "-c", 'printf "%s|%s|%s|%s|" "$1" "$WHO" "$FLEET_PARAM_LOUD" "$2"; cat', "greet",
    "{to}", { when = "!loud", args = ["quietly"] }, { when = "loud", args = ["loudly"] },
]
env = { WHO = "role {to}" }
timeout = "10m"
priority = "low"
on_lost = "retry"

[params.to]
help = "Whom"
type = "name"
required = true

[params.loud]
help = "Whether to shout"
type = "boolean"
"#;

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A program that says how it was called, where, and what it read.
fn stand_in(folder: &Path, name: &str) {
    let path = folder.join(name);
    let script = format!(
        "#!/bin/sh\nprintf '%s' '{name}'; printf ' <%s>' \"$@\"; printf '\\n%s\\n' \"$PWD\"; cat\n"
    );
    write(&path, &script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_role_runs_as_it_is_written_and_flags_are_stronger() {
    let fleet = Fleet::up("studio", 2);
    write(&fleet.home.fleet().join("roles.d/greet.toml"), GREET);
    let words = [
        "dispatch",
        "greet",
        "to=ana",
        "--loud",
        "-m",
        "hi; $(rm -rf /)\n",
        "--follow",
    ];
    let ran = fleet.run(&words);
    assert_eq!(ran.ok(), "ana|role ana|true|loudly|hi; $(rm -rf /)");

    let id = fleet.dispatch(&[
        "greet", "--to", "bob", "-m", "x", "-e", "WHO=flag", "--wait",
    ]);
    let id = id.lines().next().unwrap().to_owned();
    assert_eq!(fleet.run(&["logs", &id]).ok(), "bob|flag|false|quietly|x");
    let job = fleet.job(&id);
    assert_eq!(job["name"], "greet: x", "{job}");
    assert_eq!(job["role"]["name"], "greet");
    assert_eq!(job["role"]["params"]["to"], "bob");
    let hash = job["role"]["hash"].as_str().unwrap();
    let shown = fleet.json(&["roles", "show", "greet"]);
    assert_eq!(shown["hash"], hash, "{shown}");
    assert!(
        fleet
            .run(&["show", &id])
            .ok()
            .contains(&format!("greet loud=false to=bob (definition {hash})"))
    );

    let spec = |words: &[&str]| {
        let words = [
            &["dispatch", "greet", "to=ana", "-m", "x", "--dry-run"],
            words,
        ]
        .concat();
        fleet.json(&words)["spec"].clone()
    };
    let plain = spec(&[]);
    assert_eq!(plain["timeout_ms"], 600_000, "{plain}");
    assert_eq!(
        (&plain["priority"], &plain["on_lost"]),
        (&"low".into(), &"retry".into())
    );
    let flags = spec(&[
        "--timeout",
        "1m",
        "--priority",
        "high",
        "--on-lost",
        "ask",
        "--name",
        "n",
        "--cwd",
        "/",
    ]);
    assert_eq!(flags["timeout_ms"], 60_000, "{flags}");
    assert_eq!(
        (&flags["priority"], &flags["on_lost"]),
        (&"high".into(), &"ask".into())
    );
    assert_eq!((&flags["name"], &flags["cwd"]), (&"n".into(), &"/".into()));
}

#[test]
fn a_message_comes_from_words_a_file_or_standard_input() {
    let fleet = Fleet::up("studio", 2);
    let script = "echo one\necho \"two $0\"\n";
    let piped = fleet.home.run_with(
        &["dispatch", "script", "-m", "-", "--follow"],
        script.as_bytes(),
    );
    assert_eq!(piped.ok(), "one\ntwo sh");
    write(&fleet.home.user().join("work/s.sh"), "exit 3");
    let file = fleet.run(&["dispatch", "script", "--message-file", "s.sh", "--wait"]);
    assert_eq!(file.code, 3, "{file:?}");
}

#[test]
fn a_project_brings_its_roles_and_lies_elsewhere_on_other_machines() {
    let mut fleet = Fleet::up("studio", 2);
    fleet.add_agent("mini", &["--slots", "2"]);
    let here = fleet.home.user().join("work");
    let there = fleet.home.user().join("elsewhere");
    std::fs::create_dir_all(here.join("sub")).unwrap();
    std::fs::create_dir_all(there.join("sub")).unwrap();
    let text = format!(
        "[project.paths]\nmini = \"{}\"\n\n[roles.where]\nhelp = \"Ours\"\ncommand = [\"pwd\"]\ncwd = \"{{project}}\"\n",
        there.display()
    );
    write(&here.join(".fleet.toml"), &text);
    let real = |path: &Path| path.canonicalize().unwrap().display().to_string();
    let typed = |folder: &Path, words: &[&str]| {
        Ran::of(fleet.home.command(words).current_dir(folder))
            .ok()
            .to_owned()
    };
    for (machine, project) in [("studio", &here), ("mini", &there)] {
        // Its own role, wherever in the project it is typed.
        let words = ["dispatch", "where", "--on", machine, "--follow"];
        assert_eq!(typed(&here.join("sub"), &words), real(project), "{machine}");
        let words = [
            "dispatch", "--cwd", ".", "--on", machine, "--follow", "--", "pwd",
        ];
        assert_eq!(
            typed(&here.join("sub"), &words),
            real(&project.join("sub")),
            "{machine}"
        );
    }
    let rows = typed(&here, &["roles"]);
    assert!(rows.contains("Ours"), "{rows}");
    assert!(!typed(&fleet.home.user(), &["roles"]).contains("Ours"));
}

#[test]
fn what_comes_with_fleet_calls_the_tools_as_they_want_to_be_called() {
    let fleet = Fleet::up("studio", 2);
    let work = fleet.home.user().join("work");
    let command = |words: &[&str]| {
        let words = [&["dispatch", "--dry-run"], words].concat();
        // Nobody here has most of these tools: what would be sent is what counts.
        let spec = fleet.home.json_lines(&words).1[0]["spec"].clone();
        let words: Vec<String> = serde_json::from_value(spec["command"].clone()).unwrap();
        (
            words.join(" "),
            spec["needs"].as_str().unwrap_or_default().to_owned(),
        )
    };
    for (words, expected, needs) in [
        (
            &["agent", "agent=claude", "-m", "x"][..],
            "claude --print --permission-mode plan",
            "claude",
        ),
        (
            &[
                "agent",
                "agent=claude",
                "-m",
                "x",
                "permission=edit",
                "model=opus",
            ],
            "claude --print --permission-mode acceptEdits --model opus",
            "claude",
        ),
        (
            &["agent", "--agent", "codex", "-m", "x"],
            "codex exec --sandbox read-only -",
            "codex",
        ),
        (
            &["agent", "agent=gemini", "-m", "x", "--permission", "all"],
            "gemini --approval-mode yolo",
            "gemini",
        ),
        (&["git-pull"], "git pull --ff-only", "git"),
        (
            &["git-pull", "branch=main"],
            "git pull --ff-only origin main",
            "git",
        ),
        (
            &["test", "tool=go", "filter=X"],
            "go test -run X ./...",
            "go",
        ),
        (&["lint", "tool=ruff"], "ruff check .", "ruff"),
        (
            &[
                "xcode-build",
                "scheme=App",
                "action=test",
                "destination=platform=iOS Simulator",
            ],
            "xcodebuild -scheme App -configuration Release -destination platform=iOS Simulator test",
            "os=macos,xcode",
        ),
        (
            &["flutter-build", "target=ipa", "mode=debug"],
            "flutter build ipa --debug",
            "flutter,os=macos,xcode",
        ),
    ] {
        assert_eq!(
            command(words),
            (expected.to_owned(), needs.to_owned()),
            "{words:?}"
        );
    }
    // Those that look at the folder, run for real with stand-ins for the tools.
    let tools = fleet.home.user().join("tools");
    for tool in ["cargo", "npm", "go", "ruff", "python3"] {
        stand_in(&tools, tool);
    }
    let path = format!("PATH={}:/usr/bin:/bin", tools.display());
    let auto = |role: &str, file: &str, more: &[&str]| {
        let folder = work.join(format!("{role}-{file}"));
        write(&folder.join(file), "");
        let words = [
            &["dispatch", role, "-e", &path, "--cwd", ".", "--follow"],
            more,
        ]
        .concat();
        let ran = Ran::of(fleet.home.command(&words).current_dir(&folder));
        let folder = folder.canonicalize().unwrap();
        ran.ok()
            .replace(&format!("\n{}", folder.display()), " here")
    };
    assert_eq!(auto("test", "Cargo.toml", &[]), "cargo <test> here");
    assert_eq!(
        auto("test", "Cargo.toml", &["filter=x"]),
        "cargo <test> <--> <x> here"
    );
    assert_eq!(auto("test", "package.json", &[]), "npm <test> here");
    assert_eq!(
        auto("test", "go.mod", &["--filter", "X"]),
        "go <test> <-run> <X> <./...> here"
    );
    assert_eq!(auto("test", "setup.py", &[]), "python3 <-m> <pytest> here");
    assert_eq!(auto("lint", "ruff.toml", &[]), "ruff <check> <.> here");
    let nothing = fleet.run(&["dispatch", "test", "--cwd", "~", "--follow"]);
    assert_eq!(nothing.code, 64, "{nothing:?}");
    assert!(nothing.err.contains("no tests are known in"), "{nothing:?}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_dispatched() {
    let home = Home::new();
    let roles = home.fleet().join("roles.d");
    write(&roles.join("greet.toml"), GREET);
    write(
        &roles.join("broken.toml"),
        "help = \"x\"\ncomand = [\"x\"]\n",
    );
    for (words, code, expected) in [
        (
            &["tset"][..],
            64,
            "no role is named \"tset\": nearest is test; fleet dispatch test",
        ),
        (
            &["greet", "to=ana"],
            64,
            "role greet needs a message: -m TEXT",
        ),
        (
            &["greet", "-m", "x"],
            64,
            "role greet needs to=…: Whom; fleet roles show greet",
        ),
        (
            &["greet", "-m", "x", "too=ana"],
            64,
            "role greet has no parameter \"too\": nearest is to",
        ),
        (
            &["greet", "-m", "x", "to=a b"],
            64,
            "to: \"a b\" has white space: it must be one word",
        ),
        (
            &["greet", "-m", "x", "--to", "-v"],
            64,
            "to: \"-v\" begins with a dash",
        ),
        (
            &["greet", "-m", "x", "to=a", "loud=maybe"],
            64,
            "loud: \"maybe\" is neither yes nor no",
        ),
        (
            &["greet", "-m", "x", "to=a", "--to=b"],
            64,
            "to is given twice",
        ),
        (
            &["greet", "-m", "x", "to=a", "ana"],
            64,
            "\"ana\" is neither NAME=VALUE nor a flag of role greet",
        ),
        (
            &["greet", "-m", "x", "to=a", "--stdin", "/dev/null"],
            64,
            "reads its message from standard input",
        ),
        (
            &["greet", "-m", "x", "--", "y"],
            64,
            "role greet brings its own command",
        ),
        (
            &["greet", "-m", "x", "to=a", "--shell"],
            64,
            "role greet brings its own command",
        ),
        (
            &["greet", "--message-file", "/no/such"],
            64,
            "cannot read the message",
        ),
        (
            &["greet", "-m", "x", "to=a", "--wiat"],
            64,
            "a similar argument exists: '--wait'",
        ),
        (&["test", "-m", "x"], 64, "role test takes no message"),
        (&["-m", "x", "--", "y"], 64, "a message goes to a role"),
        (
            &["broken"],
            78,
            "broken.toml: line 2: unknown field `comand`",
        ),
        (
            &["make", "test"],
            64,
            "a command goes after --; fleet dispatch -- make test",
        ),
    ] {
        let words = [&["dispatch"], words].concat();
        let ran = home.run(&words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{words:?}: {ran:?}");
        assert_eq!(ran.out, "", "{words:?}");
    }
    let rows = home.json(&["roles"]);
    let row = |name: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["role"] == name).unwrap()
    };
    assert!(row("broken")["error"].as_str().unwrap().contains("comand"));
    assert_eq!(row("greet")["help"], "Greet somebody");
    let ran = home.run(&["roles", "show", "gret"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("nearest is greet; fleet roles"), "{ran:?}");
    // The file of a project is checked, too.
    write(
        &home.user().join("work/.fleet.toml"),
        "[project.paths]\nstudio = \"app\"\n",
    );
    let ran = home.run(&["dispatch", "test"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(
        ran.err
            .contains("project.paths.studio: \"app\" is relative"),
        "{ran:?}"
    );
}

#[test]
fn an_agent_that_nobody_has_is_refused_with_what_there_could_be() {
    let fleet = Fleet::up("studio", 1);
    let ran = fleet.run(&["dispatch", "agent", "-m", "x", "--needs", "site=nowhere"]);
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(
        ran.err
            .contains("no machine has any of claude, codex, gemini, groq"),
        "{ran:?}"
    );
    let ran = fleet.run(&[
        "dispatch",
        "agent",
        "-m",
        "x",
        "--on",
        "studio",
        "--needs",
        "site=nowhere",
    ]);
    assert!(ran.err.contains("studio has none of claude"), "{ran:?}");
}

#[test]
fn a_shell_completes_roles_and_their_parameters() {
    let home = Home::new();
    write(&home.fleet().join("roles.d/greet.toml"), GREET);
    let bin = Path::new(env!("CARGO_BIN_EXE_fleet")).parent().unwrap();
    let script = r#"
        eval "$(fleet completions bash)"
        for line in "fleet dis" "fleet dispatch gree" "fleet dispatch greet --lo" "fleet dispatch test --tool car"; do
            COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_TYPE=9
            _clap_complete_fleet fleet "${COMP_WORDS[COMP_CWORD]}" ""
            echo "${COMPREPLY[*]}"
        done
    "#;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ran = Ran::of(
        Command::new("bash")
            .args(["-c", script])
            .env("PATH", path)
            .env("HOME", home.user())
            .env("FLEET_HOME", home.fleet()),
    );
    assert_eq!(ran.ok(), "dispatch\ngreet\n--loud\ncargo", "{ran:?}");
}
