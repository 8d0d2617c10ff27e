//! The folder, the environment and the standard input a job is promised.

use fleet_contract::outcome::Outcome;

use crate::support::{Agent, End, Home, exited, job, shell};

fn reason(end: &End) -> &str {
    match &end.outcome {
        Outcome::Rejected { reason, .. } => reason,
        other => panic!("not rejected: {other:?}"),
    }
}

async fn lines(agent: &mut Agent, request: &fleet_agent::executor::StartRequest) -> Vec<String> {
    let end = agent.run(request).await;
    assert_eq!(end.outcome, exited(0));
    let text = agent.text(request, end.output.chunks);
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn later_layers_of_the_environment_win() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let base = [
        ("PATH", "/usr/bin:/bin"),
        ("A", "login"),
        ("B", "login"),
        ("C", "login"),
    ];
    let base = base.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    agent.client.set_base_env(base).await.unwrap();
    let mut request = job(&["env"]);
    request.spec.index = Some(7);
    request.env.insert("B".to_owned(), "machine".to_owned());
    request.env.insert("C".to_owned(), "machine".to_owned());
    let own = [("C", "job"), ("FLEET_JOB", "forged")];
    request.spec.env = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let mut seen = lines(&mut agent, &request).await;
    seen.sort();
    let expected = [
        "A=login".to_owned(),
        "B=machine".to_owned(),
        "C=job".to_owned(),
        format!("FLEET_ATTEMPT={}", request.attempt),
        "FLEET_FENCING_TOKEN=42".to_owned(),
        "FLEET_INDEX=7".to_owned(),
        format!("FLEET_JOB={}", request.job),
        "FLEET_MACHINE=studio".to_owned(),
        "PATH=/usr/bin:/bin".to_owned(),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_folder_is_the_home_unless_told() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let user = home.scratch().canonicalize().unwrap().join("ana");
    std::fs::create_dir_all(user.join("src")).unwrap();
    let base = [
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("HOME", user.display().to_string()),
    ];
    let base = base.map(|(k, v)| (k.to_owned(), v)).into();
    agent.client.set_base_env(base).await.unwrap();
    let cases = [
        (None, user.clone()),
        (Some("~"), user.clone()),
        (Some("~/src"), user.join("src")),
        (Some("/"), "/".into()),
    ];
    for (cwd, expected) in cases {
        let mut request = job(&["pwd", "-P"]);
        request.spec.cwd = cwd.map(str::to_owned);
        let seen = lines(&mut agent, &request).await;
        assert_eq!(seen, [expected.to_str().unwrap()]);
    }
}

#[tokio::test]
async fn programs_are_found_in_the_jobs_own_path() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let bin = home.scratch().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("greet"), "#!/bin/sh\necho \"$0\" hi\n").unwrap();
    let mut request = job(&["greet"]);
    let path = format!("/usr/bin:{}:/bin", bin.display());
    request.spec.env.insert("PATH".to_owned(), path.clone());
    let end = agent.run(&request).await;
    assert!(reason(&end).starts_with("not executable: "), "{end:?}");

    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bin.join("greet"), mode).unwrap();
    let mut request = job(&["greet"]);
    request.spec.env.insert("PATH".to_owned(), path);
    let seen = lines(&mut agent, &request).await;
    assert!(seen[0].ends_with("greet hi"), "{seen:?}");
    // A path is taken from the working folder.
    let mut request = job(&["bin/greet"]);
    request.spec.cwd = Some(home.scratch().display().to_string());
    assert_eq!(lines(&mut agent, &request).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_started_is_rejected_with_the_reason() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let mut missing = job(&["no-such-program", "x"]);
    missing
        .spec
        .env
        .insert("PATH".to_owned(), "/a:/b".to_owned());
    let end = agent.run(&missing).await;
    assert_eq!(
        reason(&end),
        "no such command: no-such-program (PATH=/a:/b)"
    );

    let mut nowhere = job(&["true"]);
    nowhere.spec.cwd = Some("/no/such/folder".to_owned());
    let end = agent.run(&nowhere).await;
    assert_eq!(reason(&end), "no such folder: /no/such/folder on studio");

    let mut file = job(&["true"]);
    file.spec.cwd = Some("/bin/sh".to_owned());
    let end = agent.run(&file).await;
    assert_eq!(reason(&end), "not a folder: /bin/sh on studio");

    let end = agent.run(&job(&["/"])).await;
    assert!(reason(&end).starts_with("not executable: /"), "{end:?}");
    let end = agent.run(&job(&[])).await;
    assert!(reason(&end).starts_with("empty command"), "{end:?}");
    let end = agent.run(&job(&["echo", "a\0b"])).await;
    assert!(reason(&end).contains("NUL"), "{end:?}");

    use std::os::unix::fs::PermissionsExt;
    let script = home.scratch().join("script");
    for (text, expected) in [
        ("echo no interpreter\n", "nor a script that begins with #!"),
        ("#!/no/such/interpreter\n", "its interpreter does not exist"),
    ] {
        std::fs::write(&script, text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let end = agent.run(&job(&[script.to_str().unwrap()])).await;
        assert!(reason(&end).contains(expected), "{end:?}");
    }
    // The rejection is on record like any other end.
    let report = agent.report(&missing).await.unwrap();
    assert!(matches!(report.outcome, Some(Outcome::Rejected { .. })));
    assert_eq!(report.started_at, None);
}

#[tokio::test]
async fn there_is_no_shell_unless_asked_for() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let words = ["echo", "$HOME", "*", ";", "exit 9"];
    let seen = lines(&mut agent, &job(&words)).await;
    assert_eq!(seen, ["$HOME * ; exit 9"]);
    let mut request = job(&["echo", "one;", "exit", "9"]);
    request.spec.shell = true;
    assert_eq!(agent.run(&request).await.outcome, exited(9));
}

#[tokio::test]
async fn standard_input_is_closed_or_given() {
    let home = Home::new();
    let mut agent = home.connect().await;
    assert_eq!(agent.run(&job(&["cat"])).await.output.stdout.bytes, 0);
    let mut request = job(&["sha256sum"]);
    let bytes: Vec<u8> = (0..8_000_000_u32)
        .map(|i| (i.wrapping_mul(31) >> 3) as u8)
        .collect();
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(&bytes);
    let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    request.spec.stdin = Some(bytes);
    assert!(lines(&mut agent, &request).await[0].starts_with(&hash));
    // Echoed while it is written, more than any pipe holds.
    let mut request = job(&["cat"]);
    request.spec.stdin = Some(vec![b'x'; 5_000_000]);
    assert_eq!(agent.run(&request).await.output.stdout.bytes, 5_000_000);
    // A program that never reads it.
    let mut request = shell("sleep 0.05; exit 4");
    request.spec.stdin = Some(vec![b'x'; 8 * 1024 * 1024]);
    assert_eq!(agent.run(&request).await.outcome, exited(4));
    // It is not kept on disk or in reports.
    assert_eq!(agent.report(&request).await.unwrap().spec.stdin, None);
}

const ASK: &str = "FLEET_TEST_LOGIN_SHELL";

/// Not a test: the helper that asks the login shell, when started as one.
#[test]
fn login_env_helper() {
    if std::env::var_os(ASK).is_some() {
        fleet_agent::world::print_login_env().unwrap();
    }
}

#[tokio::test]
async fn the_login_shell_is_asked_by_a_helper_in_a_session_of_its_own() {
    use fleet_agent::executor::ExecutorCommand;
    use fleet_agent::world::{WorldSource, capture_login_env};
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let shell = home.scratch().join("shell");
    let script = "#!/bin/sh\necho welcome\nexport SESSION=$(ps -o sess= -p $$)\n\
                  for last; do :; done\neval \"$last\"\n";
    std::fs::write(&shell, script).unwrap();
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut helper = ExecutorCommand {
        program: std::env::current_exe().unwrap(),
        args: ["world::login_env_helper", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
        env: vec![
            (ASK.into(), "1".into()),
            ("SHELL".into(), shell.clone().into()),
        ],
    };
    let world = capture_login_env(&helper).await;
    assert_eq!(world.source, WorldSource::LoginShell(shell));
    // Asked like the shell asks: a session that was begun outside a PID namespace is 0 in it.
    let own = std::process::Command::new("ps")
        .args(["-o", "sess=", "-p", &std::process::id().to_string()])
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    assert_ne!(world.env["SESSION"].trim(), own.trim());

    helper.program = "/no/such/fleet".into();
    let world = capture_login_env(&helper).await;
    assert!(matches!(world.source, WorldSource::Own { .. }));
    assert!(world.env.contains_key("PATH"));
}
