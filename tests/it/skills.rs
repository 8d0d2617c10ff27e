//! What machines can do: found, shown, needed, lost, installed. Tools are stand-ins in the user's own
//! `~/bin`, which the login shell puts into `PATH`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Fleet, Home, eventually, lines};

/// An agent that looks for skills by itself.
const PROBES: [(&str, &str); 1] = [("FLEET_PROBE", "auto")];

/// Has the user's login shell find programs in `~/bin` alone: what else this very machine can do is
/// nobody's concern.
fn with_bin(home: &Home) {
    let bin = home.user().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for own in ["env", "true"] {
        let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(own));
        let real = real.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(real, bin.join(own)).unwrap();
    }
    let profile = "PATH=\"$HOME/bin\"; export PATH\n";
    std::fs::write(home.user().join(".profile"), profile).unwrap();
}

/// Puts a tool there that says so; as a whole, however often it is asked meanwhile.
fn tool(home: &Home, name: &str, script: &str) {
    let path = home.user().join("bin").join(name);
    let new = path.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &path).unwrap();
}

/// A hub, and an agent with tools that looks for skills by itself.
fn fleet(tools: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::hub_alone();
    let home = Home::new();
    with_bin(&home);
    for (name, script) in tools {
        tool(&home, name, script);
    }
    std::fs::create_dir_all(home.fleet()).unwrap();
    std::fs::write(
        home.fleet().join("config.toml"),
        "[env]\nSAID = \"config\"\n",
    )
    .unwrap();
    let agent = fleet.agent_with(home, "studio", &[], &PROBES);
    fleet.agents.push(agent);
    fleet
}

fn skill(fleet: &Fleet, machine: &str, name: &str) -> Option<Value> {
    let all = fleet.json(&["skills", "--on", machine]);
    let skill = all[0]["skills"].get(name).cloned();
    skill.filter(|skill| !skill.is_null())
}

fn until(fleet: &Fleet, name: &str, ok: bool) -> Value {
    eventually("the skill is known", || {
        skill(fleet, "studio", name).filter(|skill| skill["ok"] == ok)
    })
}

#[test]
fn what_a_machine_can_do_is_found_needed_and_lost() {
    let fleet = fleet(&[
        ("vale", "echo vale version 3.9.1"),
        ("claude", "echo '2.0.14 (Claude Code)'"),
        ("node", "echo v22.11.0; echo $SAID > $HOME/said"),
        ("docker", "exit 1"),
    ]);
    let home = &fleet.agents[0].home;
    let node = until(&fleet, "node", true);
    assert_eq!(
        (&node["version"], &node["category"]),
        (&"22.11.0".into(), &"language".into())
    );
    let claude = until(&fleet, "claude", false);
    assert_eq!(claude["reason"], "not logged in", "{claude}");
    let docker = until(&fleet, "docker", false);
    assert_eq!(docker["reason"], "exit status: 1", "{docker}");
    // In the world that jobs have.
    let said = std::fs::read_to_string(home.user().join("said")).unwrap();
    assert_eq!(said, "config\n");
    // A probe that fails degrades its machine; one that is not logged in does not.
    let degraded = eventually("the failing probe is told", || {
        let machine = fleet.machine("studio")?;
        let all = machine["degraded"].as_array()?.clone();
        all.into_iter().find(|d| d["cause"] == "probe")
    });
    assert_eq!(degraded["value"], "docker: exit status: 1", "{degraded}");

    let ran = fleet.run(&["dispatch", "--needs", "node>=20", "--wait", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for (needs, why) in [
        ("node>=23", "studio: node>=23: it has 22.11.0"),
        ("claude", "studio: claude: not logged in"),
        ("vale", "studio: vale: it has none"),
    ] {
        let ran = fleet.run(&["dispatch", "--needs", needs, "--", "true"]);
        assert_eq!(ran.code, 75, "{ran:?}");
        assert!(ran.err.contains(why), "{why}: {ran:?}");
    }

    // One of its own, and a tool that goes away. Looked at when asked to.
    let own = home.fleet().join("skills.d");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(
        own.join("vale.toml"),
        "programs = [\"vale\"]\ncategory = \"lint\"\n",
    )
    .unwrap();
    std::fs::remove_file(home.user().join("bin/node")).unwrap();
    let probed = fleet.run(&["skills", "probe", "vale", "node"]);
    assert!(probed.ok().contains("3.9.1"), "{probed:?}");
    assert!(!probed.ok().contains("docker"), "{probed:?}");
    let event = fleet.event("machine.skills", |e| {
        e["data"]["detail"]["lost"]["node"].is_string()
    });
    let detail = &event["data"]["detail"];
    assert_eq!(detail["lost"]["node"], "not found", "{event}");
    assert_eq!(detail["gained"]["vale"], "3.9.1", "{event}");
    eventually("what was found is in its next beat", || {
        skill(&fleet, "studio", "vale")
    });
    let ran = fleet.run(&["dispatch", "--needs", "vale", "--wait", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");

    let text = fleet.run(&["skills"]);
    for part in ["studio", "lint", "vale", "3.9.1", "! not logged in"] {
        assert!(text.ok().contains(part), "{part}: {text:?}");
    }
    let shown = fleet.run(&["skills", "show", "claude"]);
    for part in [
        "Claude Code, logged in",
        "claude",
        "not logged in",
        "npm install",
    ] {
        assert!(shown.ok().contains(part), "{part}: {shown:?}");
    }
    let json = fleet.json(&["skills", "show", "claude"]);
    assert_eq!(json["machines"][0]["skill"]["ok"], false, "{json}");
}

#[test]
fn an_agent_that_starts_again_knows_what_it_knew() {
    let mut fleet = fleet(&[("node", "echo x >> $HOME/runs; echo v22.11.0")]);
    until(&fleet, "node", true);
    let agent = fleet.take("studio");
    assert_eq!(agent.process.stop(), 0);
    let runs = |home: &Home| std::fs::read_to_string(home.user().join("runs")).unwrap();
    assert_eq!(runs(&agent.home), "x\n");
    // Nothing is looked at by itself this time: what is known is what was kept.
    let again = fleet.agent_with(agent.home, "studio", &[], &PROBES);
    fleet.agents.push(again);
    until(&fleet, "node", true);
    let ran = fleet.run(&["dispatch", "--needs", "node", "--wait", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        runs(&fleet.agents[0].home),
        "x\n",
        "the same file is not run again"
    );
}

#[test]
fn a_skill_is_installed_by_a_job_and_looked_for_again() {
    let fleet = fleet(&[]);
    let recipe = "PATH=/usr/bin:/bin; mkdir -p ~/bin; printf '#!/bin/sh\\necho vale 3.9.1\\n' > ~/bin/vale.new; \
                  chmod +x ~/bin/vale.new; mv ~/bin/vale.new ~/bin/vale";
    let text = format!(
        "programs = [\"vale\"]\n[install]\nlinux = '''{recipe}'''\nmacos = '''{recipe}'''\n"
    );
    let file = fleet.home.user().join("work/vale.toml");
    std::fs::write(&file, &text).unwrap();
    // Where one types, and where it is looked for.
    assert!(
        fleet
            .run(&["skills", "add", "vale.toml"])
            .ok()
            .contains("vale.toml")
    );
    let there = fleet.run(&["skills", "add", "vale.toml"]);
    assert_eq!(there.code, 64, "{there:?}");
    fleet.run(&["skills", "add", "--replace", "vale.toml"]).ok();
    let home = &fleet.agents[0].home;
    std::fs::write(home.user().join("work/vale.toml"), &text).unwrap();
    home.run(&["skills", "add", "vale.toml"]).ok();

    // Shown first and asked for; nobody is there to ask.
    let words = ["skills", "install", "vale", "--on", "studio"];
    let asked = fleet.run(&words);
    assert_eq!(asked.code, 64, "{asked:?}");
    assert!(
        asked
            .err
            .contains("on studio, in a shell: PATH=/usr/bin:/bin; mkdir -p ~/bin"),
        "{asked:?}"
    );
    assert_eq!(fleet.json(&["jobs"]), serde_json::json!([]));
    let words = ["skills", "install", "vale", "--on", "studio", "--yes"];
    let installed = fleet.run(&words);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(
        installed.out.contains("studio has 3.9.1: vale"),
        "{installed:?}"
    );
    let jobs = fleet.json(&["jobs"]);
    assert_eq!(
        (&jobs[0]["name"], &jobs[0]["machine"]),
        (&"install vale".into(), &"studio".into())
    );
}

#[test]
fn wrong_words_about_skills_are_refused_with_what_to_type() {
    let mut fleet = Fleet::up("studio", 1);
    for (words, code, part) in [
        (
            &["skills", "show", "dokcer"][..],
            64,
            "no skill \"dokcer\": the nearest is docker",
        ),
        (
            &["skills", "--on", "studoi"],
            75,
            "no machine \"studoi\": the nearest is studio",
        ),
        (
            &["skills", "probe", "--on", "studoi"],
            75,
            "the nearest is studio",
        ),
        (
            &["skills", "install", "nvidia", "--on", "studio"],
            64,
            "nvidia has no recipe for",
        ),
        (&["skills", "create", "GPU"], 64, "is no skill's name"),
        (&["skills", "create", "gpu"], 64, "is no skill's name"),
        (
            &["skills", "add", "nothing.toml"],
            78,
            "nothing.toml: No such file",
        ),
    ] {
        let ran = fleet.run(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.contains(part), "{words:?}: {ran:?}");
    }
    let work = fleet.home.user().join("work");
    std::fs::write(work.join("bad.toml"), "programs = [").unwrap();
    let bad = fleet.run(&["skills", "add", "bad.toml"]);
    assert_eq!(bad.code, 78, "{bad:?}");
    assert!(bad.err.contains("bad.toml"), "{bad:?}");
    let created = fleet.run(&["skills", "create", "vale"]);
    let file = fleet.home.fleet().join("skills.d/vale.toml");
    assert!(
        created.ok().contains(&file.display().to_string()),
        "{created:?}"
    );
    assert!(Path::new(&file).exists());
    assert_eq!(fleet.run(&["skills", "create", "vale"]).code, 64);
    let (code, told) = fleet.home.json_lines(&["skills", "probe", "vale"]);
    assert_eq!((code, &told[0][0]["machine"]), (0, &"studio".into()));
    // One that is away is said to be, and not waited for.
    fleet.add_agent("ada", &[]);
    assert_eq!(fleet.take("ada").process.stop(), 0);
    let probed = fleet.run(&["skills", "probe", "vale"]);
    assert_eq!(probed.code, 0, "{probed:?}");
    assert!(
        probed.err.contains("ada is offline: not asked"),
        "{probed:?}"
    );
    let nobody = fleet.run(&["--json", "skills", "probe", "--on", "ada"]);
    assert_eq!(nobody.code, 75, "{nobody:?}");
    assert!(
        lines(&nobody.err).iter().any(|l| l["error"].is_object()),
        "{nobody:?}"
    );
}
